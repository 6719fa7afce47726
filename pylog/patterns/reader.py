"""Reader: what a subscription reads, and what it does with a record, in whatever it runs.

The consumer reads; a *route* says for each record which handlers get it, and as what; a Handler is
called until it went well, or the record is parked or a dead letter; then, for a group, it is
committed. In this order, so that a kill repeats and never loses.
"""

import asyncio
import contextlib
import logging
import threading
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from pylog import (
    AsyncConsumer,
    Broker,
    ClosedError,
    Consumer,
    OffsetOutOfRangeError,
    Record,
    TopicPartition,
)
from pylog.patterns.handler import Handler, Stats
from pylog.patterns.headers import REPLAY_GROUP, REPLAY_HANDLER, text_of
from pylog.patterns.parking import AsyncParking, Parking, parking_topic
from pylog.patterns.retry import check_count

logger = logging.getLogger("pylog.patterns")

LOOK_SECONDS = 0.05    # between looks whether it is to stop, in an event loop that waits

# "now", "earliest", an offset, a datetime; None: a group's beginning, else now.
Start = Any
# What a record is for its handlers, and which they are; () for none.
Route = Callable[[Record], tuple[Any, Sequence[Handler]]]


class Stopped(Exception):
    """Ends a run while a record waits for its next attempt: that is not finished."""


class Reader:
    """What a subscription reads and what it does with a record, in whatever it runs."""

    def __init__(self, kind: type[Consumer] | type[AsyncConsumer], broker: Broker, topic: str,
                 route: Route, handlers: Sequence[Handler], group: str | None, start: Start,
                 concurrency: int) -> None:
        self.topic = topic
        self.group = group
        self.error: BaseException | None = None
        self._broker = broker
        self._route = route
        self._handlers = handlers
        self._concurrency = check_count("concurrency", concurrency)
        self._replays_for = None if group is None else group.encode()
        self._has_ended = False
        self._stopping = threading.Event()
        self._inside: set[Any] = set()    # the threads or tasks that handlers are in
        places = places_of(broker, topic, "latest" if start is None and group is None else start)
        self._parking: Any = None         # where records wait aside for another attempt
        if group is not None and (any(one.parks for one in handlers)
                                  or parking_topic(group, topic) in broker.topics()):
            self._parking = (Parking if kind is Consumer else AsyncParking)(broker, group, topic)
        self._park = None if self._parking is None else self._parking.park
        self._consumer: Any = kind(broker, group_id=group)
        if group is None:
            self._consumer.subscribe([topic])
            for partition, offset in places.items():
                self._consumer.seek(partition, offset)
        else:
            self._consumer.subscribe(
                [topic], listener=_Beginning(self._consumer, places) if places else None)

    # ---- a record

    def _chosen(self, record: Record, only: str | None = None) -> tuple[Any, Sequence[Handler]]:
        """only: the handler that it was parked for."""
        replay = record.header(REPLAY_GROUP)
        if replay is None and only is None:
            return self._route(record)
        if replay is not None and replay != self._replays_for:
            return None, ()
        item, handlers = self._route(record)
        if only is None:
            only = text_of(record.header(REPLAY_HANDLER))
        return item, [one for one in handlers if one.name == only] or handlers

    async def _process_async(self, record: Record, only: str | None = None,
                             failed: int = 0) -> None:
        item, handlers = self._chosen(record, only)
        task = asyncio.current_task()
        self._inside.add(task)
        try:
            for handler in handlers:
                await handler.run_async(record, item, self._wait_async, self._park, failed)
        finally:
            self._inside.discard(task)

    async def _wait_async(self, seconds: float) -> None:
        while seconds > 0:
            if self._stopping.is_set():
                raise Stopped
            await asyncio.sleep(min(seconds, LOOK_SECONDS))
            seconds -= LOOK_SECONDS

    async def _run_async(self) -> None:
        try:
            reading = self._consumer.run(self._process_async, self._concurrency,
                                         commit_every=None if self.group is None else 1)
            if self._parking is None:
                await self._until_the_end(reading)
            else:
                await asyncio.gather(self._until_the_end(reading), self._until_the_end(
                    self._parking.work(self._process_async)))
        finally:
            self._has_ended = True
            await self._consumer.close()
            if self._parking is not None:
                await self._parking.close()

    async def _until_the_end(self, work: Awaitable[object]) -> None:
        """Of this work; and that is then the end of the other, too."""
        try:
            await work
        except Exception as error:
            self._fail(error)
        self._ask_to_stop()

    # ---- the end

    def _fail(self, error: BaseException) -> None:
        is_asked_to = self._stopping.is_set() or self._broker.closed
        if not isinstance(error, Stopped) and not (isinstance(error, ClosedError) and is_asked_to):
            self.error = self.error or error
            logger.error("the subscription to %r has ended: %s", self.topic, error, exc_info=error)

    def _ask_to_stop(self) -> None:
        self._stopping.set()
        with contextlib.suppress(ClosedError):    # it has ended meanwhile
            self._consumer.wakeup()
        if self._parking is not None:
            self._parking.stop()

    # ---- figures

    def stats(self) -> Stats:
        """How it has fared, all handlers together; "paused": one of them is."""
        each = [one.stats() for one in self._handlers]
        if self.error:
            state = "failed"
        elif self._has_ended:
            state = "stopped"
        else:
            state = "paused" if any(one.state == "paused" for one in each) else "running"
        return Stats(state, sum(one.handled for one in each), sum(one.retried for one in each),
                     sum(one.given_up for one in each), sum(one.buried for one in each),
                     sum(one.parked for one in each))

    def __repr__(self) -> str:
        who = "" if self.group is None else f", group {self.group!r}"
        return f"<{type(self).__name__} of {self.topic!r}{who}, {self.stats().state}>"


class _Beginning:
    """Where a group starts to read the partitions of which it has committed nothing. It is
    committed at once, so that whoever takes the partition over begins there too."""

    def __init__(self, consumer: Any, places: dict[TopicPartition, int]) -> None:
        self._consumer = consumer
        self._places = places

    def on_partitions_assigned(self, partitions: list[TopicPartition]) -> None:
        for one in partitions:
            if one in self._places and self._consumer.committed(one) is None:
                self._consumer.seek(one, self._places[one])
                self._consumer.commit_async({one: self._places[one]})


def places_of(broker: Broker, topic: str, start: Start) -> dict[TopicPartition, int]:
    """The offsets that a start means now, partition by partition; none: from the beginning on.
    Raises OffsetOutOfRangeError beyond an end, from where a consumer would begin anew."""
    count = broker.topic(topic).partitions    # the topic is made, or missed
    if start is None:
        return {}
    place: Any = "latest" if start == "now" else start
    found = {}
    for number in range(count):
        log = broker.log(topic, number)
        offset, end = log.resolve(place), log.end_offset
        if offset > end:
            raise OffsetOutOfRangeError(
                f"start={place!r} lies beyond the end of {topic}-{number}, {end}: pass an offset "
                "that is there, a time, or 'now'", offset=offset, start_offset=log.start_offset,
                end_offset=end)
        found[TopicPartition(topic, number)] = offset
    return found
