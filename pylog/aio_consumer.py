"""pylog.AsyncConsumer: a Consumer in an event loop.

A record that is there is handed out without a coroutine (`native/step.pxi`). Who has to wait leaves
a post with the process's sentry (`csrc/pl_sentry.h`), one native thread for all, which writes to a
descriptor that the loop watches. So no call has a thread, and a wait that is cancelled takes
nothing.
"""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Literal, Self

from pylog import _native
from pylog.aio_handling import AsyncHandling
from pylog.errors import ConcurrentModificationError, PylogTimeoutError
from pylog.handling import terms_of
from pylog.kafka_options import takes_options
from pylog.options import at_least, patience, seconds
from pylog.subscriber import Offsets, Subscriber
from pylog.topic import TopicPartition


@takes_options("AsyncConsumer", Subscriber)
class AsyncConsumer(Subscriber):
    """Reads records of topics in an event loop: `async with`, `async for`.

    Arguments, methods and meaning are those of `Consumer`. What may wait is awaited: `poll`,
    `consume`, `batches`, and `getone` and `getmany`, as aiokafka calls them; `commit` and `close`
    are awaited too, so that code for aiokafka need not change. All else takes microseconds and is
    called as it is. For one task at a time; a wait that is cancelled has taken no record.

        >>> import tempfile
        >>> from pylog.broker import Broker
        >>> async def main(path):
        ...     with Broker(path) as broker:
        ...         broker.append("orders", b"12 apples")
        ...         async with AsyncConsumer(broker, "orders", consumer_timeout_ms=0) as consumer:
        ...             return [record.value async for record in consumer]
        >>> asyncio.run(main(tempfile.mkdtemp(dir=".")))
        [b'12 apples']
    """

    __iter__ = None  # type: ignore[assignment]
    __next__ = None  # type: ignore[assignment]

    _is_waiting = False

    # ---- reading

    async def getone(self, *partitions: TopicPartition) -> Any:
        """The next record, of these partitions or of all. Raises PylogTimeoutError after
        consumer_timeout_ms, if set."""
        try:
            with self._confined_to(partitions):
                return await anext(self)
        except StopAsyncIteration:
            raise PylogTimeoutError("no record came within consumer_timeout_ms; ask again, or make "
                                    "the consumer without it") from None

    async def getmany(
        self, *partitions: TopicPartition, timeout_ms: float | None = 0,
        max_records: int | None = None,
    ) -> dict[TopicPartition, list[Any]]:
        """`poll`, by aiokafka's name: of these partitions, or of all.

        Whichever they are, what was returned before is finished.
        """
        with self._confined_to(partitions):
            return await self.poll(timeout_ms, max_records)

    @contextmanager
    def _confined_to(self, partitions: tuple[TopicPartition, ...]) -> Iterator[None]:
        """Nothing is returned of others meanwhile."""
        if not partitions:
            yield
            return
        only = frozenset(self._named(partitions))
        if self._is_waiting or self._handling is not None:
            raise ConcurrentModificationError(
                "another task waits for records of this consumer, or has it in a run: give each "
                "task its own, or pause() what is not to be read")
        self._confine(only)
        try:
            yield
        finally:
            self._confine(None)

    async def poll(
        self, timeout_ms: float | None = 0, max_records: int | None = None
    ) -> dict[TopicPartition, list[Any]]:
        """As `Consumer.poll`, and other tasks run meanwhile."""
        most = self._most(max_records)
        deadline = deadline_in(seconds(timeout_ms))
        while not (found := self._poll(most, 0)):
            if not await self._wait(deadline):
                break
        return found

    async def consume(
        self, num_messages: int = 1, timeout: float | None = None
    ) -> list[Any]:
        """As `Consumer.consume`, and other tasks run meanwhile."""
        count = at_least("num_messages", num_messages, 1)
        deadline = deadline_in(patience("timeout", timeout))
        found: list[Any] = []
        try:
            while self._gather(count, found):
                if not await self._wait(deadline):
                    break
        except BaseException:
            self._take_back()
            raise
        return found

    async def batches(
        self, max_records: int = 2**31 - 1
    ) -> AsyncIterator[_native.Chunk]:
        """As `Consumer.batches`, and other tasks run meanwhile."""
        most = at_least("max_records", max_records, 1)
        deadline = deadline_in(self._iteration_seconds)
        while True:
            if chunk := self._chunk(most, 0):
                yield chunk
                await asyncio.sleep(0)
                deadline = deadline_in(self._iteration_seconds)
            elif not await self._wait(deadline):
                return

    async def _next_later(self) -> Any:
        """What a step awaits where no record is at hand."""
        deadline = deadline_in(self._iteration_seconds)
        while await self._wait(deadline):
            if (record := self._next_now()) is not None:
                return record
        raise StopAsyncIteration

    async def run(
        self, handler: Callable[[Any], object], concurrency: int = 1,
        commit_every: int | None = None, commit_interval: float | None = None,
    ) -> None:
        """Awaits handler(record) for each record, until wakeup() is called or nothing came for
        consumer_timeout_ms. With a concurrency above 1 so many records are in work at once, each of
        another partition; a partition's records in order all the same.

        The rest is as with `Consumer.run`. A run that is cancelled cancels its handlers. handler: a
        coroutine function, or one that does not wait. It may seek, pause, commit what was handled
        (its own record too) and unsubscribe: what was read ahead is read again, or not at all.
        """
        self._handling = AsyncHandling(
            self, terms_of(self, handler, concurrency, commit_every, commit_interval))
        self._be_in_run(True)
        try:
            await self._handling.run(
                self._max_poll_records, self._iteration_seconds, self._wait)
        finally:
            self._handling = None
            self._be_in_run(False)

    async def _wait(self, deadline: float | None) -> bool:
        """Until there may be something; False: it is past the deadline."""
        if self._is_waiting:
            raise ConcurrentModificationError(
                "another task waits for records of this consumer: give each task its own")
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and left <= 0:
            return False
        loop = asyncio.get_running_loop()
        ready = loop.create_future()
        event = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._is_waiting = True
        try:
            loop.add_reader(event, _set, ready)
            due = self._post(event) / 1000
            timer = loop.call_later(due if left is None else min(due, left), _set, ready)
            try:
                await ready
            finally:
                timer.cancel()
        finally:
            self._is_waiting = False
            self._withdraw()
            loop.remove_reader(event)
            os.close(event)
        return True

    # ---- lifetime

    async def commit(self, offsets: Offsets | None = None) -> None:
        """As `Consumer.commit`."""
        self._commit(offsets)

    async def close(self, autocommit: bool = True) -> None:
        """As `Consumer.close`; a task that waits for records gets ClosedError."""
        self._finish(autocommit)

    async def __aenter__(self) -> Self:
        self._check_usable()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> Literal[False]:
        await self.close()
        return False


def _set(ready: "asyncio.Future[None]") -> None:
    if not ready.done():
        ready.set_result(None)


def deadline_in(timeout: float | None) -> float | None:
    """On the monotonic clock; None: never."""
    return None if timeout is None else time.monotonic() + timeout
