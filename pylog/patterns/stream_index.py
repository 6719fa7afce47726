"""The index of an event store: which events each stream has, for one partition of its topic.

It is folded from the records, in each process for itself, and kept current by reading on. An event
is the next of its stream if its header says the next version; what does not is skipped, so that a
stream has each version once, whatever somebody else has written to the topic.
"""

import logging
import threading
from array import array
from bisect import bisect_left
from collections.abc import Iterator
from typing import TypeAlias

from pylog import (
    ConfigurationError,
    Log,
    OffsetOutOfRangeError,
    PylogError,
    PylogTimeoutError,
    Record,
)
from pylog.patterns.event_codec import Made
from pylog.patterns.headers import CE_ID, STREAM_VERSION, number_of
from pylog.patterns.index_runs import RUN, IndexRuns, run_key, run_of

logger = logging.getLogger("pylog.patterns")

PATIENCE_SECONDS = 60.0    # for records of an "fsync" topic that are appended and not yet on disk
NAME_LENGTH_MAX = 255
NEIGHBOURS = 500    # records that are read together

Offsets: TypeAlias = "array[int]"


def key_of(stream: object) -> bytes:
    """The key of a stream's records. Raises ConfigurationError, TypeError."""
    if not isinstance(stream, str):
        raise TypeError(f"the name of a stream must be a str, not {type(stream).__name__}")
    if not 0 < len(stream) <= NAME_LENGTH_MAX:
        raise ConfigurationError(
            f"the name of a stream cannot have {len(stream)} characters; use 1 to "
            f"{NAME_LENGTH_MAX}, as order-42", option="stream", value=stream)
    try:
        return stream.encode()
    except UnicodeEncodeError:
        raise ConfigurationError(
            f"the name of a stream cannot be {stream[:60]!r}: half a character of UTF-16 is no "
            "text", option="stream", value=stream) from None


class Stream:
    """The events of a stream. before: how many of its first were deleted. offsets: of the others.

    Appending to `offsets` is all that makes an event known, so no interrupt leaves it half known.
    """

    __slots__ = ("before", "key", "offsets")

    def __init__(self, key: bytes, before: int = 0) -> None:
        self.key = key
        self.before = before
        self.offsets = array("q")

    @property
    def version(self) -> int:
        """Of its last event; 0: it has none."""
        return self.before + len(self.offsets)


class StreamIndex:
    """The streams of one partition. Who uses it holds its lock."""

    def __init__(self, log: Log, partition: int, runs: IndexRuns, noted: dict[bytes, Record],
                 ) -> None:
        self.log = log
        self.partition = partition
        self.lock = threading.Lock()
        self.streams: dict[str, Stream] = {}
        self._runs = runs
        self._start = self.next = log.start_offset
        self._take_runs(noted)

    def read_on(self) -> int:
        """Folds what anybody has appended; returns the end up to which it did.

        Raises what reading raises, CorruptRecordError among it.
        """
        log = self.log
        while True:
            end = log.end_offset    # before the start: who appends later saw the later start
            if log.start_offset != self._start:
                self._drop_before(log.start_offset)
            if end <= self.next:
                return self.next
            try:
                self._fold(end)
            except OffsetOutOfRangeError:
                if log.start_offset <= self.next:
                    raise

    def begin(self, stream: str) -> Stream:
        """A stream that has no events yet. Raises ConfigurationError, TypeError."""
        return self.streams.setdefault(stream, Stream(key_of(stream)))

    def append_many(self, known: Stream, made: list[Made]) -> int:
        """Appends events, if nobody has appended anything since `read_on`; all or none. Returns the
        offset of the last. Raises WrongEndOffsetError, MessageSizeTooLargeError, DiskFullError."""
        first = self.log.append_many(
            [value for value, *_ in made], [known.key] * len(made),
            [[*headers, (CE_ID, event_id), (STREAM_VERSION, b"%d" % version)]
             for version, (_, headers, event_id, _) in enumerate(made, known.version + 1)],
            if_end=self.next)
        known.offsets.extend(range(first, first + len(made)))
        self.next = first + len(made)
        return self.next - 1

    def records(self, known: Stream, after: int, limit: int) -> list[Record]:
        """The records of the versions after `after`, as many as there are; at most `limit`."""
        place = after - known.before
        return [*self.records_at(known.offsets[place:place + limit])] if place >= 0 else []

    def find(self, known: Stream, event_id: bytes) -> int:
        """The version before the last event of this id; where there is none, that of the last."""
        for back, record in enumerate(self.records_at(known.offsets[::-1]), 1):
            if record.header(CE_ID) == event_id:
                return known.version - back
        return known.version

    def records_at(self, offsets: Offsets) -> Iterator[Record]:
        """The records at some offsets, up or down. Neighbours are read together, as far as
        NEIGHBOURS goes: each for itself would be looked for from the beginning of its batch."""
        get, at, last = self.log.get, 0, len(offsets) - 1
        while at < last:
            first = offsets[at]
            step = offsets[at + 1] - first
            at += 1
            if step != 1 and step != -1:
                yield get(first)
                continue
            stop = min(at + NEIGHBOURS, last + 1)
            while at < stop and offsets[at] - offsets[at - 1] == step:
                at += 1
            low, high = sorted((first, offsets[at - 1]))
            yield from [*self.log.read(low, high + 1)][::step]
        if at == last:
            yield get(offsets[at])

    # ---- runs that were noted

    def _take_runs(self, noted: dict[bytes, Record]) -> None:
        """All runs that are full: as they were noted, or else from the events, to be noted."""
        end = self.log.end_offset
        while (start := self.next - self.next % RUN) + RUN <= end:
            is_whole = self.next <= max(start, self._start)    # not where a power cut left a gap
            record = noted.get(run_key(self.partition, start)) if is_whole else None
            if record is None or not self._take_run(start, record):
                self._fold(start + RUN)
                if is_whole:
                    self._note_run(start)

    def _take_run(self, start: int, record: Record) -> bool:
        try:
            found = {}
            for stream, (before, *places) in run_of(record).items():
                found[stream] = one = Stream(key_of(stream), before)
                one.offsets.extend(start + place for place in places)
            self._check_run(start, found)
        except (ValueError, OverflowError, PylogError) as error:
            logger.warning("%s: the run at offset %d does not fit, and the events are read instead:"
                           " %s", self._runs.topic, record.offset, error)
            return False
        for stream, one in found.items():
            if stream in self.streams:
                self.streams[stream].offsets.extend(one.offsets)
            else:
                self.streams[stream] = one
        self.next = start + RUN
        if start < self._start:
            self._drop_before(self._start)
        return True

    def _check_run(self, start: int, found: dict[str, Stream]) -> None:
        """That it goes on where the index is, and that its last event is what it says: a power cut
        may have spared the run and taken events, the last ones first."""
        for stream, one in found.items():
            known = self.streams.get(stream)
            if one.before != known.version if known is not None else one.before and not self._start:
                raise ValueError(f"it begins {stream!r} behind version {one.before}")
            if sorted(set(one.offsets)) != one.offsets.tolist() or one.offsets[-1] >= start + RUN:
                raise ValueError(f"its offsets of {stream!r} are not in order")
        last = max(found.values(), key=lambda one: one.offsets[-1])
        record = self.log.get(last.offsets[-1])
        if (record.key, record.header(STREAM_VERSION)) != (last.key, b"%d" % last.version):
            raise ValueError(f"the event at offset {record.offset} is another")

    def _note_run(self, start: int) -> None:
        """Notes which events are in the run, for who opens the store later."""
        try:
            keys = self._keys_of(start)
        except PylogError as error:
            logger.warning("the run at offset %d was not noted: %s", start, error)
            return
        run = {}
        for key in keys:
            stream = (key or b"").decode("utf-8", "replace")
            if (known := self.streams.get(stream)) is not None:
                first, last = (bisect_left(known.offsets, one) for one in (start, start + RUN))
                if first < last:
                    run[stream] = [known.before + first,
                                   *(one - start for one in known.offsets[first:last])]
        if run:
            self._runs.save(self.partition, start, run)

    def _keys_of(self, start: int) -> set[bytes | None]:
        keys: set[bytes | None] = set()
        cursor = self.log.cursor(max(start, self._start))
        while (left := start + RUN - cursor.offset) > 0 and len(chunk := cursor.fetch(left)):
            keys.update(chunk.keys())
        return keys

    # ---- folding

    def _fold(self, end: int) -> None:
        cursor = self.log.cursor(self.next)
        while self.next < end:
            chunk = cursor.fetch(end - self.next)
            if not len(chunk) and cursor.offset < end and not cursor.wait(PATIENCE_SECONDS):
                raise PylogTimeoutError(
                    f"the events from offset {self.next} on have not come to disk for "
                    f"{PATIENCE_SECONDS:.0f} s; see to the disk, then try again",
                    timeout_ms=int(1000 * PATIENCE_SECONDS))
            for record in chunk:
                self._take(record)
            self.next = cursor.offset

    def _take(self, record: Record) -> None:
        text = record.header(STREAM_VERSION)
        if text is None:
            return    # of somebody who shares the topic
        version = number_of(text)
        try:
            stream = (record.key or b"").decode()
        except UnicodeDecodeError:
            stream = ""
        known = self.streams.get(stream)
        if known is None or not known.offsets:
            known = Stream(record.key or b"", version - 1 if self._start else 0)
        elif record.offset <= known.offsets[-1]:
            return    # this process's own, and an interrupt was faster than the note of it
        if not stream or version < 1 or version != known.version + 1:
            logger.warning("the record at offset %d of %s is no event of a stream: its version is "
                           "%r, after %d of %r", record.offset, record.topic, text, known.version,
                           stream)
            return
        self.streams[stream] = known
        known.offsets.append(record.offset)

    def _drop_before(self, start: int) -> None:
        """What was deleted is deleted here too: another who opens the store now never sees it."""
        for stream, known in list(self.streams.items()):
            count = bisect_left(known.offsets, start)
            known.before += count
            del known.offsets[:count]
            if not known.offsets:
                del self.streams[stream]
        self._start = start
        self.next = max(self.next, start)
