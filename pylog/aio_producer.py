"""pylog.AsyncProducer: the producer in an event loop, with the same names.

A send appends in the loop itself, for that takes less than waking a thread would. What would wait,
for the disk or for room in the buffer, is waited for by the one thread of the accumulator, whatever
the number of calls.
"""

import asyncio
import contextlib
import os
from collections.abc import Iterable
from functools import partial
from typing import Any, Self

from pylog._native import SendFuture, Target
from pylog.accumulator import Job
from pylog.broker import Broker
from pylog.errors import PylogTimeoutError
from pylog.kafka_options import takes_options
from pylog.options import patience
from pylog.producer import Producer
from pylog.topic import BatchMetadata, RecordMetadata

SENDS_PER_TURN = 256    # after so many that never waited the loop's other tasks have a turn


class _Deferring(Producer):
    """A producer that leaves it to its thread to wait for the disk, and never blocks for room."""

    __slots__ = ()
    _defers = True

    def has_to_wait(self, target: Target) -> bool:
        """Whether a list is better appended by the thread: behind what lingers, or to a disk."""
        is_slow = self._waits and self._log(target, 0).durability == "fsync"
        return is_slow or not self._accumulator.is_idle


@takes_options("AsyncProducer", Producer)
class AsyncProducer:
    """Sends records from coroutines; an asynchronous context manager. Options are Producer's.

    Of one event loop. A cancelled call harms nothing: what was accepted is appended, and what still
    waited for room is not sent. To make one opens the broker if it is a path, which takes some
    milliseconds of the loop.

        >>> import asyncio
        >>> async def main():
        ...     async with AsyncProducer("data/shop", value_serializer="json") as producer:
        ...         return (await producer.send("orders", {"apples": 12})).offset
        >>> asyncio.run(main())
        0
    """

    def __init__(self, broker: Broker | str | os.PathLike[str], **options: Any) -> None:
        self._producer = _Deferring(broker, **options)
        self._buffer = self._producer._accumulator
        self._turn = asyncio.Lock()    # of those who wait for room: first come, first served
        self._sends = 0

    # ---- sending

    async def send(
        self, topic: str, value: Any = None, key: Any = None, headers: Any = None,
        partition: int | None = None, timestamp_ms: int | None = None,
    ) -> RecordMetadata:
        """Sends one record, and returns where it is. Arguments and errors as Producer.send.

        With linger_ms that takes as long: send many at once, by asyncio.gather or `send_nowait`.
        Records are sent in the order in which the calls begin.
        """
        if self._buffer.has_room and not self._turn.locked():
            future = self._producer.send(topic, value, key, headers, partition, timestamp_ms)
        else:
            async with self._turn:
                await self._room()
                future = self._producer.send(topic, value, key, headers, partition, timestamp_ms)
        self._sends += 1
        if self._sends % SENDS_PER_TURN == 0:
            await asyncio.sleep(0)
        metadata: RecordMetadata = await future
        return metadata

    def send_nowait(
        self, topic: str, value: Any = None, key: Any = None, headers: Any = None,
        partition: int | None = None, timestamp_ms: int | None = None,
    ) -> SendFuture:
        """As `send`, with the future, which can be awaited; PylogTimeoutError if there is no room.
        """
        if not self._buffer.has_room:
            raise PylogTimeoutError(
                f"the buffer is full: {self._buffer.pool.bytes} of {self._buffer.buffer_memory} "
                "bytes wait to be appended; nothing was sent; await send(), which waits for room",
                timeout_ms=0)
        return self._producer.send(topic, value, key, headers, partition, timestamp_ms)

    async def send_many(
        self, topic: str, values: Iterable[Any], keys: Iterable[Any] | None = None,
        headers: Any = None, timestamps_ms: Any = None, partition: int | None = None,
    ) -> list[BatchMetadata]:
        """As Producer.send_many. Where nothing has to be waited for, the list is appended in the
        loop: 30 ns a record."""
        producer = self._producer
        target, values, keys, headers = producer._prepared_lists(topic, values, keys, headers)
        if not producer.has_to_wait(target):
            return producer._send_lists(target, values, keys, headers, timestamps_ms, partition)
        found: list[BatchMetadata] = []
        values, keys = values[:], keys and keys[:]    # the caller may go on with its own

        def append() -> int:
            found.extend(producer._send_lists(
                target, values, keys, headers, timestamps_ms, partition))
            return 0

        await self._done(self._buffer.run(append), None)
        return found

    async def _room(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._buffer.max_block):
                while not self._buffer.has_room:
                    woken = loop.create_future()
                    self._buffer.call_at_progress(partial(_wake, loop, woken))
                    await woken
        except TimeoutError:
            raise PylogTimeoutError(
                f"the buffer is full, and there was no room within max_block_ms "
                f"({self._buffer.max_block * 1000:g}); nothing was sent; send it again, or use a "
                "larger buffer_memory", timeout_ms=int(self._buffer.max_block * 1000)) from None

    @staticmethod
    async def _done(job: Job, timeout: float | None) -> None:
        try:
            async with asyncio.timeout(timeout):
                await job
        except TimeoutError:
            if job.is_done:    # it is the job's own
                raise
            raise PylogTimeoutError(
                f"some records are still in the buffer after {timeout} s; wait again",
                timeout_ms=int((timeout or 0) * 1000)) from None

    # ---- all else

    async def partitions_for(self, topic: str) -> set[int]:
        """The numbers of a topic's partitions."""
        return self._producer.partitions_for(topic)

    def metrics(self) -> dict[str, dict[str, float]]:
        """As Producer.metrics."""
        return self._producer.metrics()

    async def flush(self, timeout: float | None = None) -> None:
        """As Producer.flush."""
        patience("timeout", timeout)
        self._producer._check_usable()
        if not self._buffer.is_idle:
            await self._done(self._buffer.run(lambda: 0), timeout)
        self._buffer.raise_untold()

    async def close(self, timeout: float | None = None) -> None:
        """As Producer.close; in a thread, for closing a log writes and syncs files."""
        await asyncio.to_thread(self._producer.close, timeout)

    @property
    def closed(self) -> bool:
        """True from the call of close() on."""
        return self._producer.closed

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"<Async{repr(self._producer)[1:]}"


def _wake(loop: asyncio.AbstractEventLoop, woken: "asyncio.Future[None]") -> None:
    """From another thread."""
    def finish() -> None:
        if not woken.done():
            woken.set_result(None)

    with contextlib.suppress(RuntimeError):    # the loop is closed
        loop.call_soon_threadsafe(finish)
