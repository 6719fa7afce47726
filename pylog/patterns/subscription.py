"""Subscription: records of a topic given to handlers, in a thread or a task of its own.

What Topic, Bus and the servers of Rpc run on. What is done with a record, `reader.py` says.
"""

import asyncio
import atexit
import logging
import os
import threading
import time
import weakref
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from pylog import AsyncConsumer, Broker, Consumer, GroupError, PylogTimeoutError, Record
from pylog.patterns.handler import Handler
from pylog.patterns.reader import Reader, Route, Start, Stopped

logger = logging.getLogger("pylog.patterns")

EXIT_SECONDS = 1.0     # that the interpreter waits for handlers when it ends


class Subscription(Reader):
    """What `subscribe` returns: handlers at work in a thread. A context manager, which stops it.

    A handler that is `async def` runs in an event loop of that thread. Closing the broker stops it,
    and so does the end of the interpreter, which waits a second for what is in work.

    error: what ended it though nobody stopped it; None: nothing has.
    """

    def __init__(self, broker: Broker, topic: str, route: Route, handlers: Sequence[Handler], *,
                 group: str | None = None, start: Start = None, concurrency: int = 1) -> None:
        self._is_async = any(one.is_async for one in handlers)
        super().__init__(AsyncConsumer if self._is_async else Consumer, broker, topic, route,
                         handlers, group, start, concurrency)
        broker.dependents.discard(self._consumer)    # closed by its thread
        broker.dependents.add(self)
        _running.add(self)
        self._is_over = threading.Event()    # its thread has done all that it had to
        self._process_id = os.getpid()
        self._thread = threading.Thread(target=self._run, daemon=True, name=f"pylog-{topic}")
        self._thread.start()

    def _run(self) -> None:
        self._inside.add(threading.get_ident())
        try:
            if self._is_async:
                asyncio.run(self._run_async())
            elif self._parking is None:
                self._run_here()
            else:
                self._run_with_parking()
        except BaseException as error:
            self._fail(error)
        finally:
            self._has_ended = True
            if not self._is_async:
                self._consumer.close()
            self._broker.dependents.discard(self)
            self._is_over.set()

    def _has_come_to_its_end(self, timeout: float | None) -> bool:
        """Waits for it; what Thread.join cannot do: in Python 3.12 and before, one that Ctrl-C
        interrupts takes the thread for ended. A fork has no such thread."""
        return self._process_id != os.getpid() or self._is_over.wait(timeout)

    def _run_with_parking(self) -> None:
        beside = threading.Thread(target=self._work_parked, daemon=True,
                                  name=f"pylog-parked-{self.topic}")
        beside.start()
        try:
            self._run_here()
        finally:
            self._parking.stop()
            beside.join()
            self._parking.close()

    def _work_parked(self) -> None:
        self._inside.add(threading.get_ident())
        try:
            self._parking.work(self._process)
        except BaseException as error:
            self._fail(error)
            self._ask_to_stop()

    def _run_here(self) -> None:
        if self.group is None:
            self._consumer.run(self._process, self._concurrency)
        elif self._concurrency == 1:
            self._consumer.run(self._process_and_commit)
        else:
            self._consumer.run(self._process, self._concurrency, commit_every=1)

    def _process(self, record: Record, only: str | None = None, failed: int = 0) -> None:
        if self._concurrency > 1:
            self._inside.add(threading.get_ident())
        item, handlers = self._chosen(record, only)
        for handler in handlers:
            handler.run(record, item, self._wait, self._park, failed)

    def _process_and_commit(self, record: Record) -> None:
        item, handlers = self._chosen(record)
        for handler in handlers:
            handler.run(record, item, self._wait, self._park)
        try:
            self._consumer.commit()
        except GroupError as error:    # the partition is another's now, who does it again
            logger.info("commit of %s-%s, offset %d: %s", record.topic, record.partition,
                        record.offset, error)

    def _wait(self, seconds: float) -> None:
        if self._stopping.wait(seconds):
            raise Stopped

    def stop(self, timeout: float | None = None) -> None:
        """Lets the record in work be finished, and ends; idempotent. What waits for its next
        attempt is read again by whoever subscribes next.

        Called by a handler it does not wait. Raises PylogTimeoutError after `timeout` seconds; the
        thread ends as soon as its handler does.
        """
        self._ask_to_stop()
        if threading.get_ident() in self._inside:
            return
        if not self._has_come_to_its_end(timeout):
            raise PylogTimeoutError(
                f"a handler of {self.topic!r} has been at work for {timeout} s since it was to "
                "stop; call stop() again, or let the handler have a time-out",
                timeout_ms=int(1000 * (timeout or 0)))

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


_running: "weakref.WeakSet[Subscription]" = weakref.WeakSet()


@atexit.register
def _stop_all() -> None:
    """Before the logs are closed under them. In a fork they have no thread."""
    running = [one for one in list(_running) if not one._has_come_to_its_end(0)]
    for one in running:
        one._ask_to_stop()
    deadline = time.monotonic() + EXIT_SECONDS
    for one in running:
        one._has_come_to_its_end(max(0.0, deadline - time.monotonic()))


class AsyncSubscription(Reader):
    """As Subscription, a task of the event loop that it was made in. An async context manager.

    A task that is cancelled cancels its handlers; their records are read again.
    """

    def __init__(self, broker: Broker, topic: str, route: Route, handlers: Sequence[Handler], *,
                 group: str | None = None, start: Start = None, concurrency: int = 1) -> None:
        loop = asyncio.get_running_loop()
        super().__init__(AsyncConsumer, broker, topic, route, handlers, group, start, concurrency)
        self._task = loop.create_task(self._run_async(), name=f"pylog-{topic}")

    async def stop(self, timeout: float | None = None) -> None:
        """As `Subscription.stop`."""
        self._ask_to_stop()
        if asyncio.current_task() in self._inside:
            return
        done, _ = await asyncio.wait([self._task], timeout=timeout)
        if not done:
            raise PylogTimeoutError(
                f"a handler of {self.topic!r} has been at work for {timeout} s since it was to "
                "stop; call stop() again, or let the handler have a time-out",
                timeout_ms=int(1000 * (timeout or 0)))

    async def join(self, timeout: float | None = None) -> bool:
        """As `Subscription.join`."""
        done, _ = await asyncio.wait([self._task], timeout=timeout)
        if self.error is not None:
            raise self.error
        return bool(done)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None,
                        trace: TracebackType | None) -> None:
        await self.stop()
