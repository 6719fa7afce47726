"""pylog.AsyncShareConsumer: `ShareConsumer` in an event loop."""

import asyncio
import os
import time
from types import TracebackType
from typing import Literal, Self

from pylog._native import Delivery
from pylog.aio_consumer import deadline_in
from pylog.kafka_options import takes_options
from pylog.options import at_least, seconds
from pylog.share_consumer import ShareSubscriber
from pylog.topic import TopicPartition

LOOK_MS = 1000    # whatever happened unheard


@takes_options("AsyncShareConsumer", ShareSubscriber)
class AsyncShareConsumer(ShareSubscriber):
    """`ShareConsumer` with calls that are awaited; deliveries are settled as there, at once.

    While one waits, the other tasks of the loop run: a native thread of the process waits for all.
    A task that is cancelled in here has taken nothing. An async context manager.

        >>> import asyncio, tempfile
        >>> async def main():
        ...     async with AsyncShareConsumer(tempfile.mkdtemp(dir="."), "jobs",
        ...                                   group_id="workers") as consumer:
        ...         consumer._broker.append("jobs", b"resize 17")
        ...         delivery = await consumer.take()
        ...         delivery.ack()
        ...         return delivery.value
        >>> asyncio.run(main())
        b'resize 17'
    """

    async def poll(
        self, timeout_ms: float | None = 0, max_records: int | None = None
    ) -> list[Delivery]:
        """As `ShareConsumer.poll`."""
        most = self._max_poll_records if max_records is None \
            else at_least("max_records", max_records, 1)
        timeout = seconds(timeout_ms)
        self._ready_for_poll()
        self._in_hand = await self._take_later(most, timeout)
        return list(self._in_hand)

    async def take(self, timeout: float | None = None) -> Delivery | None:
        """As `ShareConsumer.take`; for several tasks at once."""
        found = await self._take_later(1, timeout)
        return found[0] if found else None

    async def _take_later(self, most: int, timeout: float | None) -> list[Delivery]:
        deadline = deadline_in(timeout)
        while not (found := self._take_now(most)):
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                return []
            await self._wait(LOOK_MS if left is None else min(LOOK_MS, int(left * 1000) + 1))
            self._turn()
        return found

    async def _wait(self, most_ms: int) -> None:
        """Until there may be something. One task is told by the native thread, and tells the
        others of this consumer."""
        if self._waiting is not None:
            await asyncio.wait([self._waiting], timeout=most_ms / 1000)
            return
        loop = asyncio.get_running_loop()
        ready = loop.create_future()
        event = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._waiting = ready
        try:
            loop.add_reader(event, _set, ready)
            timer = loop.call_later(self._post(event, most_ms) / 1000, _set, ready)
            try:
                await ready
            finally:
                timer.cancel()
        finally:
            self._withdraw()
            self._waiting = None
            _set(ready)
            loop.remove_reader(event)
            os.close(event)

    _waiting: "asyncio.Future[None] | None" = None

    async def commit_sync(self, timeout_ms: float | None = None) -> dict[TopicPartition, None]:
        """As `ShareConsumer.commit_sync`; in a thread, so that the loop goes on."""
        return await asyncio.to_thread(self._sync, timeout_ms)

    async def close(self) -> None:
        """As `ShareConsumer.close`; who waits gets ClosedError."""
        self._finish()

    async def __aenter__(self) -> Self:
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
