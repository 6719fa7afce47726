"""Handler: a user's function, and what becomes of the records on which it fails.

One attempt after the other as its Retry says; then the dead letters, or a line in the log. What
waits between two attempts, a thread or a task, is the subscription's.
"""

import asyncio
import inspect
import logging
import threading
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, NoReturn

from pylog import Record
from pylog.patterns.breaker import Breaker
from pylog.patterns.retry import Retry

logger = logging.getLogger("pylog.patterns")

# (record, error, attempts, name of the handler): appends the letter.
Bury = Callable[[Record, BaseException, int, str], object]
# (record, name of the handler, attempts, seconds until the next): moves the record aside.
Park = Callable[[Record, str, int, float], object]
ParkAsync = Callable[[Record, str, int, float], Awaitable[None]]


class Stats(NamedTuple):
    """How a handler, or all of a subscription, has fared since it began.

    state: "running", "paused" by a breaker, "stopped", or "failed". handled: records that went
    well. retried: attempts after the first. given_up: records that never went well; buried: those
    of them that are dead letters. parked: records that were moved aside until their second attempt,
    which any process of the group may make.
    """

    state: str
    handled: int
    retried: int
    given_up: int
    buried: int
    parked: int


class Handler:
    """A function that is called with one item at a time.

    SystemExit is a failure as any other, which is not tried again: in a thread it would end no
    program, but this subscription, and that of whoever gets the record next. In the main thread,
    where event loops of the user's run, it ends the program.

    is_async: what it returns has to be awaited. bury: makes a dead letter of a record that was
    given up. Without it the error is raised where `is_strict`, which ends the subscription before
    the record counts as finished; else it is logged and skipped. Safe for threads.
    """

    def __init__(self, function: Callable[[Any], Any], name: str, retry: Retry, bury: Bury | None,
                 is_strict: bool, is_async: bool) -> None:
        self.name = name
        self.is_async = is_async
        self.breaker = Breaker(retry.pause_after, retry.cooldown)
        self._function = function
        self._retry = retry
        self._bury = bury
        self._is_strict = is_strict
        self._lock = threading.Lock()
        self._handled = self._retried = self._given_up = self._buried = self._parked = 0

    @property
    def parks(self) -> bool:
        """Whether what fails is moved aside, and not waited for."""
        return self._retry.mode == "park"

    def run(self, record: Record, item: Any, wait: Callable[[float], None],
            park: Park | None = None, failed: int = 0) -> None:
        """Until it went well, was parked or was given up. wait: sleeps, or raises to end all this.
        failed: attempts that were made before."""
        if self.breaker.state != "closed":
            while seconds := self.breaker.wait_seconds():
                wait(seconds)
        attempt = failed + 1
        while True:
            try:
                result = self._function(item)
                if result is not None and inspect.isawaitable(result):
                    awaited_by_nobody(result, self.name)
            except (Exception, SystemExit) as error:
                delay = self._failed(record, error, attempt)
            else:
                return self._succeeded()
            if delay is None:
                return None
            if self.parks and park is not None:
                park(record, self.name, attempt, delay)
                return self._was_parked(attempt)
            wait(delay)
            attempt += 1

    async def run_async(
        self, record: Record, item: Any, wait: Callable[[float], Awaitable[None]],
        park: ParkAsync | None = None, failed: int = 0,
    ) -> None:
        """The same in an event loop; what the function returns is awaited if it can be."""
        if self.breaker.state != "closed":
            while seconds := self.breaker.wait_seconds():
                await wait(seconds)
        attempt = failed + 1
        while True:
            try:
                result = self._function(item)
                if result is not None and inspect.isawaitable(result):
                    await result
            except asyncio.CancelledError as error:
                if (task := asyncio.current_task()) is None or task.cancelling():
                    raise
                failure = RuntimeError("what the handler awaited was cancelled, and not by us")
                failure.__cause__ = error
                delay = self._failed(record, failure, attempt)
            except (Exception, SystemExit) as error:
                if isinstance(error, SystemExit) and \
                        threading.current_thread() is threading.main_thread():
                    self._tell(record, attempt, "SystemExit ends the program, and the record comes "
                               "again: raise another error to have it given up", error)
                    raise    # maybe of a signal's handler
                delay = self._failed(record, error, attempt)
            else:
                return self._succeeded()
            if delay is None:
                return None
            if self.parks and park is not None:
                await park(record, self.name, attempt, delay)
                return self._was_parked(attempt)
            await wait(delay)
            attempt += 1

    def _succeeded(self) -> None:
        with self._lock:
            self._handled += 1
        if self.breaker.failures:
            self.breaker.succeeded()

    def _was_parked(self, attempt: int) -> None:
        with self._lock:
            self._parked += attempt == 1
        if self.breaker.state == "half-open":    # this was the trial
            self.breaker.failed()

    def _failed(self, record: Record, error: BaseException, attempt: int) -> float | None:
        """Seconds until the next attempt; None: there is none, and the record is finished."""
        delay = self._retry.delay(attempt, error)
        if delay is not None:
            with self._lock:
                self._retried += 1
            return delay
        if self._bury is not None:
            self._bury(record, error, attempt, self.name)
        elif self._is_strict:
            self._tell(record, attempt, "there are no dead letters, so the subscription ends here, "
                       "and the record is for whoever comes next: mend the handler, or pass dlq=",
                       error)
            raise error
        with self._lock:
            self._given_up += 1
            self._buried += self._bury is not None
        self._tell(record, attempt,
                   "it is a dead letter now" if self._bury else "it is skipped", error)
        if not self._retry.covers(error):
            self.breaker.undecided()
        elif self.breaker.failed():
            logger.warning("%s is paused for %s s: it failed on %d in a row or more", self.name,
                           self._retry.cooldown, self._retry.pause_after)
        return None

    def _tell(self, record: Record, attempt: int, what: str, error: BaseException) -> None:
        logger.warning("%s failed on %s-%s, offset %d, after %d attempt(s); %s", self.name,
                       record.topic, record.partition, record.offset, attempt, what, exc_info=error)

    def stats(self) -> Stats:
        """How it has fared."""
        with self._lock:
            state = "running" if self.breaker.state == "closed" else "paused"
            return Stats(state, self._handled, self._retried, self._given_up, self._buried,
                         self._parked)


def is_async(function: Any) -> bool:
    """Whether what it returns has to be awaited."""
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(function, "__call__", None))    # noqa: B004 - an object with an async __call__


def name_of(function: Any) -> str:
    """What a handler is called in letters and figures."""
    found = getattr(function, "__qualname__", None) or type(function).__qualname__
    return str(found).replace(".<locals>.", ".")


def check_handler(function: object, count: int | None = 1) -> Callable[..., Any]:
    """Returns it. Raises TypeError, too, for what cannot be called with `count` arguments (None:
    any): told here it is a mistake in a program, told by each call a topic full of dead letters."""
    if not callable(function):
        raise TypeError(f"a handler must be callable, not {type(function).__name__}")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise TypeError(f"the handler {name_of(function)} is a generator, whose body nobody would "
                        "run: leave out `yield`")
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):    # of some builtins nobody can tell
        return function
    try:
        if count is not None:
            signature.bind(*[None] * count)
    except TypeError as error:
        raise TypeError(f"the handler {name_of(function)}{signature} will be called with {count} "
                        f"argument{'' if count == 1 else 's'}: {error}") from None
    return function


def awaited_by_nobody(result: Any, name: str) -> NoReturn:
    """Where a thread called what only a loop can finish: TypeError, so that nothing is lost."""
    if inspect.iscoroutine(result):
        result.close()
    raise TypeError(f"the handler {name} returned {type(result).__name__}, and nobody would await "
                    "it: write it as `async def`, or use the async class")
