"""Pending: which letters of a topic nobody has replayed or discarded, and what became of the rest.

What became of a letter is a *mark*, a record with a null value that names it, behind it in the same
topic. So nobody knows what is pending who has not seen all marks; whoever asks again needs to see
the new ones only.
"""

import threading
from collections.abc import Iterator

from pylog import Broker, OffsetOutOfRangeError, Record
from pylog.patterns import headers as names
from pylog.patterns.headers import number_of, text_of
from pylog.patterns.letter import Letter, is_mark, letter_of

Place = tuple[int, int]    # partition, offset


class Pending:
    """The letters of a topic that are pending. It keeps their places, and no records. Safe for
    threads.

    Cost: each call reads what was appended since the one before, 0.5 us a record.
    """

    def __init__(self, broker: Broker, topic: str) -> None:
        self._broker = broker
        self._topic = topic
        self._topic_id: object = None
        self._offsets: list[dict[int, None]] = []    # by partition, oldest first
        self._ends: list[int] = []                   # where reading goes on
        self._early: set[Place] = set()    # whose marks were read before them
        self._lock = threading.Lock()

    def __len__(self) -> int:
        with self._lock:
            self._read_on()
            return sum(map(len, self._offsets))

    def __contains__(self, place: Place) -> bool:
        partition, offset = place
        with self._lock:
            self._read_on()
            return partition < len(self._offsets) and offset in self._offsets[partition]

    def __iter__(self) -> Iterator[Record]:
        """The records of those that are pending now, partition by partition, oldest first."""
        with self._lock:
            self._read_on()
            known = list(self._offsets)
            ranges = [(next(iter(one)), next(reversed(one))) if one else None for one in known]
        for partition, (offsets, limits) in enumerate(zip(known, ranges, strict=True)):
            if limits is not None:
                for record in _kept(self._broker, self._topic, limits[0], partition):
                    if record.offset in offsets:
                        yield record
                    if record.offset >= limits[1]:
                        break

    def _read_on(self) -> None:
        entry = self._broker.topics().get(self._topic)
        topic_id = None if entry is None else entry.topic_id
        if topic_id != self._topic_id:    # it was deleted, or made anew
            self._topic_id, self._offsets, self._ends = topic_id, [], []
            self._early.clear()
        if entry is None:
            return
        while len(self._ends) < entry.partitions:
            self._offsets.append({})
            self._ends.append(0)
        for partition in range(entry.partitions):
            start = self._broker.log(self._topic, partition).start_offset
            offsets = self._offsets[partition]
            if offsets and next(iter(offsets)) < start:    # some were deleted
                self._offsets[partition] = dict.fromkeys(one for one in offsets if one >= start)
            for record in _kept(self._broker, self._topic, self._ends[partition], partition):
                self._ends[partition] = record.offset + 1
                self._take(partition, record)

    def _take(self, partition: int, record: Record) -> None:
        place = (partition, record.offset)
        if not is_mark(record):
            if place in self._early:
                self._early.remove(place)
            else:
                self._offsets[partition][record.offset] = None
            return
        where, offset = of_mark(record)
        if not 0 <= where < len(self._ends):
            return    # nonsense of somebody else
        if offset < self._ends[where]:
            self._offsets[where].pop(offset, None)
        else:
            self._early.add((where, offset))


def _kept(broker: Broker, topic: str, start: int, partition: int) -> Iterator[Record]:
    """The records of a partition from `start` on, but those that retention takes meanwhile."""
    log = broker.log(topic, partition)
    while True:
        start = max(start, log.start_offset)
        try:
            for record in broker.read(topic, start, partition):
                start = record.offset + 1
                yield record
        except OffsetOutOfRangeError:
            if log.start_offset <= start:
                raise
        else:
            return


def _all(broker: Broker, topic: str) -> Iterator[Record]:
    for partition in range(broker.topic(topic).partitions):
        yield from _kept(broker, topic, 0, partition)


def of_mark(record: Record) -> Place:
    """Which letter a mark is of; -1 where it says nonsense."""
    partition, _, offset = text_of(record.header(names.DLQ_MARK_OF)).partition(":")
    return number_of(partition.encode()), number_of(offset.encode())


def marks_of(broker: Broker, topic: str) -> dict[Place, str]:
    """What became of the letters that are not pending: "replayed" or "discarded". Reads all."""
    found: dict[Place, str] = {}
    for record in _all(broker, topic):
        if is_mark(record):
            found.setdefault(of_mark(record), text_of(record.header(names.DLQ_MARK)))
    return found


def all_letters(broker: Broker, topic: str) -> Iterator[Letter]:
    """Pending or not, partition by partition, oldest first. Reads all, twice."""
    marks = marks_of(broker, topic)
    for record in _all(broker, topic):
        if not is_mark(record):
            yield letter_of(record, marks.get((record.partition or 0, record.offset)))
