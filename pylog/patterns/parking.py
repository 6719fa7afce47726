"""Parking: where a record waits for its next attempt while those behind it go on.

    retry.<group>.<topic>    a queue, which all processes of the group share

A parked record is itself, key, value and headers, and `__retry.*` headers that say where it comes
from and how often it was tried. It is parked before its offset is committed; and parked again, or
a dead letter, before its message is acknowledged. So a kill repeats an attempt and loses nothing.
"""

import threading
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from pylog import Broker, ClosedError, InvalidTopicError, Record, WakeupError
from pylog.patterns import headers as names
from pylog.patterns.headers import number_of, text_of, to_value
from pylog.patterns.queue import AsyncQueue, Queue
from pylog.patterns.retry import SECONDS_MAX

CONFIGS = {"max.message.bytes": 1 << 30}    # a parked record is larger than what it was
# A handler may take its time: who has died is known at once. And attempts are counted here.
OPTIONS: dict[str, Any] = {"lock": SECONDS_MAX, "max_deliveries": 1 << 30, "dlq": False}
# Headers of the record that would mean something to the queue, or to us.
OURS = (names.QUEUE_PREFIX, names.RETRY_PREFIX, names.REPLAY_PREFIX)


class Parked(NamedTuple):
    """What is parked: the record as it was in its topic, and the handler that failed on it."""

    record: Record
    handler: str
    attempts: int


def parking_topic(group: str, topic: str) -> str:
    """The name of the queue."""
    return f"retry.{group}.{topic}"


def to_headers(parked: Parked) -> list[tuple[str, bytes | None]]:
    """The headers of its message."""
    record = parked.record
    kept = [(names.RETRY_KEPT + name if name.startswith(OURS) else name, value)
            for name, value in record.headers]
    return [*kept, *((name, to_value(value)) for name, value in (
        (names.RETRY_TOPIC, record.topic), (names.RETRY_PARTITION, record.partition),
        (names.RETRY_OFFSET, record.offset), (names.RETRY_TIMESTAMP, record.timestamp),
        (names.RETRY_HANDLER, parked.handler), (names.RETRY_ATTEMPTS, parked.attempts)))]


def parked_of(message: Record) -> Parked:
    """What a message of the queue is. One that says of no topic was put there by somebody else, and
    is a record of the queue's own topic."""
    topic = message.header(names.RETRY_TOPIC)
    if topic is None:
        return Parked(message, "", 0)
    number = {name: _in_range(number_of(message.header(name))) for name in (
        names.RETRY_PARTITION, names.RETRY_OFFSET, names.RETRY_TIMESTAMP, names.RETRY_ATTEMPTS)}
    record = message.replace(
        topic=text_of(topic), partition=number[names.RETRY_PARTITION],
        offset=number[names.RETRY_OFFSET], timestamp=number[names.RETRY_TIMESTAMP],
        headers=[(name.removeprefix(names.RETRY_KEPT), value) for name, value in message.headers
                 if name.startswith(names.RETRY_KEPT) or not name.startswith(OURS)])
    return Parked(record, text_of(message.header(names.RETRY_HANDLER)),
                  max(0, number[names.RETRY_ATTEMPTS]))


def _in_range(number: int) -> int:
    return number if -1 <= number < 1 << 63 else -1


class _Parking:
    """What both have: the queue of a group for a topic, made if need be."""

    _kind: Any

    def __init__(self, broker: Broker, group: str, topic: str) -> None:
        name = parking_topic(group, topic)
        try:
            broker.create_topic(name, 1, CONFIGS, exist_ok=True)
            self._queue = self._kind(broker, name, group=group, **OPTIONS)
        except InvalidTopicError as error:
            raise InvalidTopicError(
                f"{error}; mode='park' names a topic after the group: name that otherwise, or use "
                "mode='inline'", topic=name) from None
        broker.dependents.discard(self._queue)    # closed by the subscription
        self._stopping = threading.Event()

    def stop(self) -> None:
        """Ends `work` after the record that it is at. For any thread."""
        self._stopping.set()
        self._queue.wakeup()


class Parking(_Parking):
    """For handlers in threads."""

    _kind = Queue

    def park(self, record: Record, handler: str, attempts: int, seconds: float) -> None:
        """Until so many seconds are over. Raises what an append raises."""
        self._queue.put(record.value, key=record.key, delay=seconds,
                        headers=to_headers(Parked(record, handler, attempts)))

    def work(self, attempt: Callable[[Record, str, int], None]) -> None:
        """Calls attempt(record, handler, attempts so far) for each record whose time has come,
        until `stop`. What it returns from is done here; what it raises ends this, and the record is
        for whoever comes next."""
        while not self._stopping.is_set():
            try:
                delivery = self._queue.get()
            except (WakeupError, ClosedError):
                return
            with delivery:
                attempt(*parked_of(delivery.record))

    def close(self) -> None:
        """Idempotent."""
        self._queue.close()


class AsyncParking(_Parking):
    """For handlers in an event loop."""

    _kind = AsyncQueue

    async def park(self, record: Record, handler: str, attempts: int, seconds: float) -> None:
        """As `Parking.park`."""
        await self._queue.put(record.value, key=record.key, delay=seconds,
                              headers=to_headers(Parked(record, handler, attempts)))

    async def work(self, attempt: Callable[[Record, str, int], Awaitable[None]]) -> None:
        """As `Parking.work`."""
        while not self._stopping.is_set():
            try:
                delivery = await self._queue.get()
            except (WakeupError, ClosedError):
                return
            with delivery:
                await attempt(*parked_of(delivery.record))

    async def close(self) -> None:
        """As `Parking.close`. In a thread: it waits for one of the queue's."""
        await self._queue.close()
