"""Functions of sagas that are called elsewhere: coroutine functions in an event loop of its own,
the others in threads, so many at a time."""

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any

from pylog.patterns.saga_ear import Attempt

Call = tuple[Attempt, tuple[Any, ...]]


class Calls:
    """Used by one thread, which is told by the functions that it gives.

    most: threads that functions are in at a time. begun(attempt): a call begins now. bring(attempt,
    done): in another thread, when it has returned, raised or been cancelled.
    """

    def __init__(self, most: int, begun: Callable[[Attempt], None],
                 bring: Callable[[Attempt, "Future[Any]"], None]) -> None:
        self._most = most
        self._begun = begun
        self._bring = bring
        self._busy = 0         # calls that are waited for
        self._idle = 0         # threads that have nothing to do
        self._threads = 0
        self._given: SimpleQueue[Call | None] = SimpleQueue()
        self._waiting: deque[Call] = deque()
        self._tasks: dict[bytes, Future[Any]] = {}    # by the key of the saga
        self._loop: _Loop | None = None
        self._idents: set[int] = set()                # of the threads

    @property
    def is_busy(self) -> bool:
        """Whether any call is waited for."""
        return bool(self._busy or self._tasks)

    @property
    def is_full(self) -> bool:
        """Whether the next would have to wait for its thread."""
        return self._busy >= self._most

    @property
    def is_this_thread(self) -> bool:
        """Whether a function that is called here asks."""
        ident = threading.get_ident()
        return ident in self._idents or (self._loop is not None and ident == self._loop.ident)

    def begin(self, attempt: Attempt, arguments: tuple[Any, ...]) -> None:
        """Now, or when there is a thread for it."""
        if attempt.action.is_async:
            if self._loop is None:
                self._loop = _Loop()
            task = self._loop.begin(attempt.action.function(*arguments))
            self._tasks[attempt.run.key] = task
            self._begun(attempt)
            task.add_done_callback(lambda task: self._bring(attempt, task))
        elif self.is_full:
            self._waiting.append((attempt, arguments))
        else:
            self._give(attempt, arguments)

    def _give(self, attempt: Attempt, arguments: tuple[Any, ...]) -> None:
        self._busy += 1
        if self._idle:
            self._idle -= 1
        else:
            self._threads += 1
            threading.Thread(target=self._run, daemon=True, name="pylog-saga-step").start()
        self._begun(attempt)
        self._given.put((attempt, arguments))

    def _run(self) -> None:
        self._idents.add(threading.get_ident())
        while (call := self._given.get()) is not None:
            attempt, arguments = call
            done: Future[Any] = Future()
            try:
                done.set_result(attempt.action.function(*arguments))
            except BaseException as error:    # SystemExit, too, fails the step and no more
                done.set_exception(error)
            self._bring(attempt, done)

    def returned(self, attempt: Attempt) -> None:
        """Whoever it was brought to has taken it."""
        if not attempt.action.is_async:
            self._idle += 1

    def over(self, attempt: Attempt) -> None:
        """It is waited for no more; if its time was over, another may have its place."""
        if attempt.action.is_async:
            self._tasks.pop(attempt.run.key).cancel()    # in vain, unless it is at it still
            return
        self._busy -= 1
        if self._waiting:
            self._give(*self._waiting.popleft())

    def close(self) -> None:
        """Cancels the coroutines; the threads end when their functions do."""
        for _ in range(self._threads):
            self._given.put(None)
        if self._loop is not None:
            self._loop.close()


class _Loop:
    """An event loop, in its thread."""

    def __init__(self) -> None:
        self._has_begun = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True,
                                        name="pylog-saga-loop")
        self._thread.start()
        self._has_begun.wait()
        self.ident = self._thread.ident

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._end = asyncio.Event()
        self._has_begun.set()
        await self._end.wait()

    def begin(self, coroutine: Any) -> "Future[Any]":
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def close(self) -> None:
        """Cancels those that are not done, and waits for them."""
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join()
