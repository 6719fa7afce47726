"""Background: work that goes on in a thread or a task of its own until it is told to stop.

What a Subscription and the server of an Rpc are. Told so by `stop`, by the end of the broker, and
by that of the interpreter, which waits a second for what is in work.
"""

import asyncio
import atexit
import os
import threading
import time
import weakref
from types import TracebackType
from typing import Any, Self

from pylog import Broker, PylogTimeoutError

EXIT_SECONDS = 1.0     # that the interpreter waits for handlers when it ends


class _Stoppable:
    """What both say of themselves.

    error: what ended it though nobody stopped it; None: nothing has.
    """

    topic: str
    error: BaseException | None
    _broker: Broker
    _inside: set[Any]    # the threads or tasks that handlers are in
    _has_ended: bool

    def _ask_to_stop(self) -> None:
        """Returns at once. For any thread, any number of times."""
        raise NotImplementedError

    def _timed_out(self, timeout: float | None) -> PylogTimeoutError:
        return PylogTimeoutError(
            f"a handler of {self.topic!r} has been at work for {timeout} s since it was to stop; "
            "call stop() again, or let the handler have a time-out",
            timeout_ms=int(1000 * (timeout or 0)))

    @property
    def is_running(self) -> bool:
        """Whether it is at work still: it was not stopped and has not failed."""
        return not self._has_ended


class Background(_Stoppable):
    """A thread. A context manager, which stops it. `_run` is what it does, and ends with
    `_is_over.set()`."""

    def _begin(self) -> None:
        self._broker.dependents.add(self)
        _running.add(self)
        self._is_over = threading.Event()    # its thread has done all that it had to
        self._process_id = os.getpid()
        self._thread = threading.Thread(target=self._run, daemon=True, name=f"pylog-{self.topic}")
        self._thread.start()

    def _run(self) -> None:
        raise NotImplementedError

    def _has_come_to_its_end(self, timeout: float | None) -> bool:
        """Waits for it; what Thread.join cannot do: in Python 3.12 and before, one that Ctrl-C
        interrupts takes the thread for ended. A fork has no such thread."""
        return self._process_id != os.getpid() or self._is_over.wait(timeout)

    def stop(self, timeout: float | None = None) -> None:
        """Lets what is in work be finished, and ends; idempotent. A record that waits for its next
        attempt is read again by whoever comes next.

        Called by a handler it does not wait. Raises PylogTimeoutError after `timeout` seconds; the
        thread ends as soon as its handler does.
        """
        self._ask_to_stop()
        if threading.get_ident() not in self._inside and not self._has_come_to_its_end(timeout):
            raise self._timed_out(timeout)

    def join(self, timeout: float | None = None) -> bool:
        """Waits until it has ended, and raises what ended it; False after `timeout` seconds."""
        is_over = self._has_come_to_its_end(timeout)
        if self.error is not None:
            raise self.error
        return is_over

    _is_made_of_others = True    # the broker closes it before its consumer

    def _close_with_broker(self) -> None:
        self.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()


_running: "weakref.WeakSet[Background]" = weakref.WeakSet()


@atexit.register
def _stop_all() -> None:
    """Before the logs are closed under them. In a fork they have no thread."""
    running = [one for one in list(_running) if not one._has_come_to_its_end(0)]
    for one in running:
        one._ask_to_stop()
    deadline = time.monotonic() + EXIT_SECONDS
    for one in running:
        one._has_come_to_its_end(max(0.0, deadline - time.monotonic()))


class AsyncBackground(_Stoppable):
    """A task of the event loop that it was made in. An async context manager, which stops it."""

    def _begin(self) -> None:
        self._task = asyncio.get_running_loop().create_task(
            self._run_async(), name=f"pylog-{self.topic}")

    async def _run_async(self) -> None:
        raise NotImplementedError

    async def stop(self, timeout: float | None = None) -> None:
        """As that of a thread."""
        self._ask_to_stop()
        if asyncio.current_task() in self._inside:
            return
        done, _ = await asyncio.wait([self._task], timeout=timeout)
        if not done:
            raise self._timed_out(timeout)

    async def join(self, timeout: float | None = None) -> bool:
        """As that of a thread."""
        done, _ = await asyncio.wait([self._task], timeout=timeout)
        if self.error is not None:
            raise self.error
        return bool(done)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None,
                        trace: TracebackType | None) -> None:
        await self.stop()
