"""Inflow: events of a bus become records of another topic, each exactly once, whoever is killed.

"Each" is a record of the bus: an event that its source emits again, with the same id, is another.

A record bears in a header which event it was made of. What the group commits is the event's offset
and, as the note of the same commit, where the other topic ended: who takes over reads that from
there on, and knows which events it has already.
"""

from collections.abc import Callable
from contextlib import closing
from functools import partial
from typing import Any

from pylog import (
    Broker,
    ConfigurationError,
    Consumer,
    MessageSizeTooLargeError,
    OffsetAndMetadata,
    Record,
    TopicPartition,
)
from pylog.patterns.bus import AsyncBus, Bus
from pylog.patterns.events import Event
from pylog.patterns.handler import check_handler
from pylog.patterns.headers import CE_TYPE, FED_FROM, REPLAY_GROUP, number_of, text_of
from pylog.patterns.letter import burier
from pylog.patterns.reader import places_of
from pylog.patterns.standby import Standby
from pylog.patterns.values import codec_of
from pylog.patterns.wildcards import matcher

BATCH = 100       # events between two commits
LOOK_MS = 50      # between looks whether it is to stop

Headers = list[tuple[str, bytes | None]]
# What makes something of an event: None, nothing; else what appends it with these headers, and
# returns the offset behind it.
Make = Callable[[Event], Callable[[Headers], int] | None]


class Inflow(Standby):
    """What `Rooms.feed` and `Audit.feed` return. See Standby for `start`, `stop`, `error`.

    An event on which `make` fails is a dead letter of the group, at once. What fails when it is
    appended is tried again.
    """

    def __init__(self, broker: Broker, bus: Bus | AsyncBus | str, pattern: str, target: str,
                 make: Make, group: str, start: Any) -> None:
        self._source, self._event = _source(broker, bus)
        super().__init__(broker, f"feed:{target}:{group}"[:100])
        self._what: tuple[str, str] = self._source, pattern
        for one in list(broker.dependents):
            if isinstance(one, Inflow) and one.name == self.name and one._what != self._what:
                raise ConfigurationError(
                    f"another feed of {target!r} has the group {group!r}, and one of a group "
                    "works at a time: give each a group= of its own", option="group", value=group)
        self._target_name = target
        self._target = broker.log(target)
        self._group = group
        self._wants = matcher(pattern)
        self._make = check_handler(make)
        # Of which logs the places are: there may be others of these names when it begins again.
        self._incarnations = {} if start is None else {
            number: broker.log(self._source, number).incarnation
            for number in range(broker.topic(self._source).partitions)}
        self._places = places_of(broker, self._source, start)    # "now" is now
        self._bury: Any = burier(broker, True, group, self._source)
        self._fed: set[bytes] = set()

    def _work(self) -> None:
        self._fed.clear()    # of another topic of the name, perhaps; what counts is read again
        self._target = self._broker.log(self._target_name)    # and so may that be
        with closing(Consumer(self._broker, group_id=self._group, enable_auto_commit=False,
                              auto_offset_reset="earliest")) as consumer:
            consumer.subscribe([self._source], listener=_Arrival(partial(self._begin, consumer)))
            while not self._is_stopping:
                for partition, records in consumer.poll(LOOK_MS, BATCH).items():
                    for record in records:
                        self._take(record)
                    self._commit(consumer, partition, records[-1].offset + 1)
                self.error = None

    def _take(self, record: Record) -> None:
        mark = f"{self._group}:{self._source}:{record.partition}:{record.offset}".encode()
        if mark in self._fed or not self._is_meant(record):
            return
        try:
            append = self._make(self._event(record))
        except Exception as error:
            self._bury(record, error, 1, self.name)
            return
        if append is not None:
            try:
                append([(FED_FROM, mark)])
            except MessageSizeTooLargeError as error:    # it would be again, and hold up the rest
                self._bury(record, error, 1, self.name)

    def _is_meant(self, record: Record) -> bool:
        replay = record.header(REPLAY_GROUP)
        return replay in (None, self._group.encode()) and \
            self._wants(text_of(record.header(CE_TYPE), "-"))

    def _commit(self, consumer: Consumer, partition: TopicPartition, offset: int) -> None:
        target = self._target
        note = f"{target.end_offset}:{target.incarnation}"
        consumer.commit({partition: OffsetAndMetadata(offset, note)})

    # ---- where the one before was killed

    def _begin(self, consumer: Consumer, partition: TopicPartition) -> None:
        found = consumer.committed(partition, metadata=True)
        if found is None:
            log, known = self._broker.log(*partition), self._incarnations.get(partition.partition)
            offset = log.start_offset
            if log.incarnation == known:
                offset = self._places.get(partition, offset)
            self._commit(consumer, partition, offset)
            consumer.seek(partition, offset)
            return
        target = self._target
        noted, _, incarnation = found.metadata.partition(":")
        place = number_of(noted.encode(), 0)
        if incarnation not in ("", str(target.incarnation)) or place > target.end_offset:
            place = 0    # of another topic of the name
        marks = (record.header(FED_FROM) for record in
                 target.read(max(place, target.start_offset)))
        self._fed.update(mark for mark in marks if mark is not None)


class _Arrival:
    """What the consumer tells of partitions that it begins to read."""

    def __init__(self, begin: Callable[[TopicPartition], None]) -> None:
        self._begin = begin

    def on_partitions_assigned(self, partitions: list[TopicPartition]) -> None:
        for one in partitions:
            self._begin(one)


def _source(broker: Broker, bus: Bus | AsyncBus | str) -> tuple[str, Callable[[Record], Event]]:
    """The topic of a bus, and what makes events of its records."""
    if isinstance(bus, str):
        deserialize = codec_of("json").deserialize
        return bus, lambda record: Event(record, deserialize)
    if not isinstance(bus, Bus | AsyncBus):
        raise TypeError(f"bus must be a Bus or the name of one, not {type(bus).__name__}")
    if bus.broker.path != broker.path:
        raise ConfigurationError(
            f"the bus {bus.name!r} is of {str(bus.broker.path)!r}, and this is of "
            f"{str(broker.path)!r}: feed within one broker", option="bus", value=bus.name)
    return bus.name, bus.event
