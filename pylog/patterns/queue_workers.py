"""Work: a handler called for the messages of a queue, in threads or in tasks, each settled by what
the handler does. What `Queue.work` and `AsyncQueue.work` run on."""

import asyncio
import contextlib
import inspect
import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from pylog import AsyncShareConsumer, ClosedError, Delivery, InvalidRecordStateError, ShareConsumer
from pylog.patterns.handler import awaited_by_nobody, check_handler, name_of
from pylog.patterns.retry import check_count, check_seconds

logger = logging.getLogger("pylog.patterns")

LOOK_SECONDS = 0.05    # between looks of an idle worker whether it is to stop: 20 us each

WorkHandler = Callable[[Delivery], object]


class _Crew(NamedTuple):
    """The threads of one `work`. counts: messages of each. errors: what ended it."""

    counts: list[int]
    errors: list[BaseException]
    is_over: threading.Event


class Work:
    """All the work that goes on for one queue object. Safe for threads.

    name: of the queue. is_closed: whether its object is. dead: what becomes of a message that
    nobody could do, for the log.
    """

    def __init__(self, name: str, is_closed: Callable[[], bool], dead: str) -> None:
        self._name = name
        self._is_closed = is_closed
        self._dead = dead
        self._stopped = threading.Event()
        self._going_on = 0
        self._lock = threading.Lock()

    def stop(self) -> None:
        """Ends what goes on, after the messages in hand."""
        self._stopped.set()

    @contextlib.contextmanager
    def begun(self, handler: WorkHandler, concurrency: int, idle: float | None,
              ) -> Iterator[None]:
        """`stop()` is for all who work at that moment, and forgotten when the last of them ends.
        Raises TypeError, ConfigurationError."""
        check_count("concurrency", concurrency)
        check_handler(handler)
        if idle is not None:
            check_seconds("idle", idle)
        with self._lock:
            self._going_on += 1
        try:
            yield
        finally:
            with self._lock:
                self._going_on -= 1
                if self._going_on == 0:
                    self._stopped.clear()

    def _is_over(self) -> bool:
        return self._stopped.is_set() or self._is_closed()

    # ---- threads

    def as_threads(self, consumer: ShareConsumer, handler: WorkHandler, concurrency: int,
                   idle: float | None) -> int:
        """This one, and others; returns how many messages. Raises what ended one of them."""
        crew = _Crew([0] * concurrency, [], threading.Event())
        threads = [threading.Thread(target=self._in_thread, daemon=True,
                                    args=(consumer, handler, idle, crew, number),
                                    name=f"pylog-worker-{number}")
                   for number in range(1, concurrency)]
        try:
            for thread in threads:
                thread.start()
            self._in_thread(consumer, handler, idle, crew, 0)
            for thread in threads:    # what one is at may fail, and be for it to do again
                thread.join()
        finally:
            crew.is_over.set()
            for thread in threads:
                if thread.ident is not None:    # else one before it could not be started
                    thread.join()
        if crew.errors:
            raise crew.errors[0]
        return sum(crew.counts)

    def _in_thread(self, consumer: ShareConsumer, handler: WorkHandler, idle: float | None,
                   crew: _Crew, number: int) -> None:
        last = time.monotonic()
        try:
            while not (crew.is_over.is_set() or self._is_over()):
                asked = time.monotonic()    # a look later than this may find one, however late
                delivery = consumer.take(_slice(asked, last, idle))
                if delivery is not None:
                    try:
                        with delivery:
                            done = handler(delivery)
                            if done is not None and inspect.isawaitable(done):
                                awaited_by_nobody(done, name_of(handler))
                    except Exception as error:    # it is given back, or a dead letter
                        self._tell(consumer, handler, delivery, error)
                    except SystemExit as error:
                        self._tell(consumer, handler, delivery, error)
                        raise
                    del delivery
                    crew.counts[number] += 1
                    last = time.monotonic()
                elif idle is not None and asked - last >= idle:
                    return
        except ClosedError:
            return
        except BaseException as error:    # of one thread it is that of all, and `work` raises it
            crew.errors.append(error)
            crew.is_over.set()

    # ---- tasks

    async def as_tasks(self, consumer: AsyncShareConsumer, handler: WorkHandler, concurrency: int,
                       idle: float | None) -> int:
        """Tasks of the running loop; returns how many messages."""
        return sum(await asyncio.gather(
            *[self._in_task(consumer, handler, idle) for _ in range(concurrency)]))

    async def _in_task(self, consumer: AsyncShareConsumer, handler: WorkHandler,
                       idle: float | None) -> int:
        count, last = 0, time.monotonic()
        while not self._is_over():
            asked = time.monotonic()
            try:
                delivery = await consumer.take(_slice(asked, last, idle))
            except ClosedError:
                break
            if delivery is not None:
                try:
                    with delivery:
                        done = handler(delivery)
                        if done is not None and inspect.isawaitable(done):
                            await done
                except Exception as error:    # it is given back, or a dead letter
                    self._tell(consumer, handler, delivery, error)
                except SystemExit as error:
                    self._tell(consumer, handler, delivery, error)
                    raise
                del delivery
                count, last = count + 1, time.monotonic()
            elif idle is not None and asked - last >= idle:
                break
        return count

    # ---- what went wrong

    def _tell(self, consumer: Any, handler: WorkHandler, delivery: Delivery,
              error: BaseException) -> None:
        """Logs it: a failure that another delivery may mend as INFO."""
        count, most = delivery.delivery_count, consumer.max_deliveries
        if isinstance(error, InvalidRecordStateError):
            level, what = logging.WARNING, "who took longer than its lock may have it done twice"
        elif isinstance(error, SystemExit):
            level, what = logging.WARNING, ("this ends the work, and after the last delivery it is "
                                            f"{self._dead}: raise another error to go on")
        elif count < most:
            level, what = logging.INFO, "it comes again, unless the handler settled it"
        else:
            level, what = logging.WARNING, f"it is {self._dead} now"
        logger.log(level, "%s failed on %s, offset %d, delivery %d of %d; %s", name_of(handler),
                   self._name, delivery.offset, count, most, what, exc_info=error)


def _slice(now: float, last: float, idle: float | None) -> float:
    """How long a worker waits before it looks whether it is to stop."""
    return LOOK_SECONDS if idle is None else max(0.0, min(LOOK_SECONDS, last + idle - now))
