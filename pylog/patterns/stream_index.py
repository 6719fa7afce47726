"""The index of an event store: which events each stream has, for one partition of its topic.

It is folded from the records, in each process for itself, and kept current by reading on. An event
is the next of its stream if its header says the next version; what does not is skipped, so that a
stream has each version once, whatever somebody else has written to the topic.
"""

import logging
import threading
from array import array
from bisect import bisect_left
from typing import Any

from pylog import ConfigurationError, Log, OffsetOutOfRangeError, PylogTimeoutError, Record
from pylog.patterns.headers import CE_ID, STREAM_VERSION, number_of

logger = logging.getLogger("pylog.patterns")

PATIENCE_SECONDS = 60.0    # for records of an "fsync" topic that are appended and not yet on disk


NAME_LENGTH_MAX = 255


def key_of(stream: object) -> bytes:
    """The key of a stream's records. Raises ConfigurationError, TypeError."""
    if not isinstance(stream, str):
        raise TypeError(f"the name of a stream must be a str, not {type(stream).__name__}")
    if not 0 < len(stream) <= NAME_LENGTH_MAX:
        raise ConfigurationError(
            f"the name of a stream cannot have {len(stream)} characters; use 1 to "
            f"{NAME_LENGTH_MAX}, as order-42", option="stream", value=stream)
    return stream.encode()


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

    def __init__(self, log: Log, partition: int) -> None:
        self.log = log
        self.partition = partition
        self.lock = threading.Lock()
        self.streams: dict[str, Stream] = {}
        self.skipped = 0
        self._start = self._next = log.start_offset

    def read_on(self) -> int:
        """Folds what anybody has appended; returns the end up to which it did.

        Raises what reading raises, CorruptRecordError among it.
        """
        log = self.log
        while True:
            end = log.end_offset    # before the start: who appends later saw the later start
            if log.start_offset != self._start:
                self._drop_before(log.start_offset)
            if end <= self._next:
                return self._next
            try:
                self._fold(end)
            except OffsetOutOfRangeError:
                if log.start_offset <= self._next:
                    raise

    def append(self, stream: str, values: list[Any], headers: list[Any]) -> Stream:
        """Appends events of a stream, if nobody has appended anything since `read_on`; all or none.

        Raises WrongEndOffsetError, MessageSizeTooLargeError, DiskFullError.
        """
        known = self.streams.get(stream)
        if known is None:
            known = self.streams[stream] = Stream(key_of(stream))
        version = known.version
        numbered = [[*one, (STREAM_VERSION, b"%d" % number)]
                    for number, one in enumerate(headers, version + 1)]
        if len(values) == 1:
            offset = self.log.append(values[0], known.key, numbered[0], None, self._next)
        else:
            offset = self.log.append_many(values, [known.key] * len(values), numbered,
                                          if_end=self._next)
        known.offsets.extend(range(offset, offset + len(values)))
        self._next = offset + len(values)
        return known

    def records(self, known: Stream, after: int, limit: int) -> list[Record]:
        """The records of the versions after `after`, as many as there are; at most `limit`."""
        place = after - known.before
        return [self.log.get(one) for one in known.offsets[place:place + limit]] \
            if place >= 0 else []

    def find(self, known: Stream, event_id: bytes) -> int:
        """The version before the last event of this id; where there is none, that of the last."""
        for place in range(len(known.offsets) - 1, -1, -1):
            if self.log.get(known.offsets[place]).header(CE_ID) == event_id:
                return known.before + place
        return known.version

    # ---- folding

    def _fold(self, end: int) -> None:
        cursor = self.log.cursor(self._next)
        while self._next < end:
            chunk = cursor.fetch()
            if not len(chunk) and not cursor.wait(PATIENCE_SECONDS):
                raise PylogTimeoutError(
                    f"the events from offset {self._next} on have not come to disk for "
                    f"{PATIENCE_SECONDS:.0f} s; see to the disk, then try again",
                    timeout_ms=int(1000 * PATIENCE_SECONDS))
            for record in chunk:
                self._take(record)
            self._next = cursor.offset

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
            self.skipped += 1
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
        self._next = max(self._next, start)
