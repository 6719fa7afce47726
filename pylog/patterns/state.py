"""State: a dict folded from a topic, the same in all processes, and changed exactly.

The topic is the truth, and the dict is what its records come to. Who changes it appends a record on
condition that nobody has appended since he looked (`if_end`); who was too late looks again. So
there is no database, no server and no lock that a killed process leaves behind.
"""

import heapq
import logging
import os
import threading
import time
from collections.abc import Callable
from types import MappingProxyType
from typing import Any, NamedTuple

from pylog import (
    Broker,
    ClosedError,
    ConfigurationError,
    Cursor,
    Log,
    OffsetOutOfRangeError,
    PylogTimeoutError,
    Record,
    TaskTimeoutError,
    UnknownTopicOrPartitionError,
    WrongEndOffsetError,
)
from pylog.patterns.racing import until_first
from pylog.patterns.tenant import Tenant

logger = logging.getLogger("pylog.patterns")

PATIENCE_SECONDS = 60.0     # for records of an "fsync" topic that are appended and not yet on disk
RETENTION_DEFAULT_MS = 604_800_000
SEGMENT_MS = (10_000, 604_800_000)
SEGMENT_BYTES = 16 << 20
# What a deleted topic answers; the second once another thread has opened the next of its name.
GONE = (UnknownTopicOrPartitionError, ClosedError)


class Change(NamedTuple):
    """A record that a `decide` wants appended. key: of the entry that it changes."""

    key: bytes
    value: bytes | None = None
    headers: Any = None


Entries = MappingProxyType[bytes, Any]    # read-only
Fold = Callable[[Any, Record], Any]


class State(Tenant):
    """A dict by key, folded from the records of a topic with one partition. Safe for threads.

    broker: a Broker, or the path of one, which is then closed with the state. topic: created if it
    is not there. fold(entry, record): the entry of the record's key after this record; `entry` is
    the one before, or None; what it returns is the new one, or None for none. It must look at
    nothing else. A record that it raises for is skipped, counted (`skipped`) and logged. ttl:
    seconds that an entry lives, from the timestamp of its last record on; the topic's retention is
    at least that, and without a ttl it keeps all. clock: the time, for tests.

    Entries whose last record was deleted (retention, `delete_records`) are gone; with the topic all
    are. Cost: opening folds the whole topic, 0.4 us a record and what `fold` takes; `current` with
    nothing new 0.5 us; a change 4 us.

        >>> from pylog import Broker
        >>> def add(total, record):
        ...     return (total or 0) + int(record.value)
        >>> with Broker("data") as broker, State(broker, "accounts", add) as accounts:
        ...     accounts.change(lambda entries: Change(b"alice", b"100"))
        ...     accounts.change(lambda entries:
        ...         Change(b"alice", b"-70") if entries[b"alice"] >= 70 else None)
        ...     accounts.change(lambda entries:
        ...         Change(b"alice", b"-70") if entries[b"alice"] >= 70 else None) is None
        ...     accounts.current()[b"alice"]
        0
        1
        True
        30

    Raises ConfigurationError for a topic of several partitions or a ttl that is none.
    """

    def __init__(
        self, broker: Broker | str | os.PathLike[str], topic: str, fold: Fold,
        ttl: float | None = None, clock: Callable[[], float] = time.time,
    ) -> None:
        if not callable(fold):
            raise TypeError(f"fold must be a function (entry, record), not {type(fold).__name__}")
        self._ttl_ms = None if ttl is None else _milliseconds(ttl)
        super().__init__(broker)
        self.topic = topic
        self._fold = fold
        self._clock = clock
        self._lock = threading.RLock()
        self._log: Log | None = None
        self._cursor: Cursor | None = None
        self._start = 0
        self._entries: dict[bytes, Any] = {}
        self._last: dict[bytes, tuple[int, int]] = {}      # offset and timestamp of the last record
        self._due: list[tuple[int, int, bytes]] = []    # timestamp, offset, key: a heap
        self._view = MappingProxyType(self._entries)
        self.skipped = 0
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    # ---- looking

    def current(self) -> Entries:
        """The entries as of now, after all that any process has appended before the call.

        A live view: the next call, of whatever thread, moves it on. To go through it while others
        may call, take `.copy()` first. Raises what reading raises, CorruptRecordError among it.
        """
        with self._lock:
            self._read_on()
            return self._view

    def wait(self, timeout: float | None = None) -> bool:
        """Until there is a record that this object has not folded; False after `timeout` s."""
        with self._lock:
            cursor = self._cursor
        try:
            return cursor is None or cursor.wait(timeout)
        except GONE:    # that is something new
            return True

    # ---- changing

    def change(self, decide: Callable[[Entries], Change | list[Change] | None]) -> int | None:
        """Appends what decide(entries) returns, if nobody has appended since; else decides again. A
        list is appended whole or not at all.

        Returns the first record's offset, or None when decide returned None. `decide` is called as
        often as others are faster, so it must do nothing but decide; what it raises is raised.
        After 8 tries in vain it takes turns with others in a claim (`broker.claim`) and goes on.
        """
        return until_first(self._broker, f"state:{self.topic}", lambda: self._try_to_change(decide))

    def _try_to_change(self, decide: Callable[[Entries], Change | list[Change] | None],
                       ) -> int | None:
        with self._lock:
            log, end = self._read_on()
            change = decide(self._view)
            if change is None:
                return None
            now_ms = int(self._clock() * 1000)
            try:
                # By the log that was folded: one of the same name may end at the same offset.
                if isinstance(change, list):
                    keys, values, headers = zip(*change, strict=True)
                    return log.append_many(values, keys, headers, now_ms, if_end=end)
                return log.append(change.value, change.key, change.headers, now_ms, if_end=end)
            except GONE as error:
                raise WrongEndOffsetError(f"the topic {self.topic!r} was deleted meanwhile; "
                                          "decide again") from error

    # ---- folding

    def _open(self) -> None:
        """Begins at the start of the topic, which is made if there is none."""
        entry = self._broker.topics().get(self.topic)
        configs = self._configs()
        if entry is None:
            entry = self._broker.create_topic(self.topic, 1, configs, exist_ok=True)
        if entry.partitions != 1:
            raise ConfigurationError(
                f"the topic {self.topic!r} has {entry.partitions} partitions, and the state of a "
                "topic with several has no one order; name a topic with one", option="topic",
                value=self.topic)
        kept, wanted = (int(each.get("retention.ms", RETENTION_DEFAULT_MS))
                        for each in (entry.configs, configs))
        if kept != -1 and (wanted == -1 or kept < wanted):    # others may want it longer
            self._broker.alter_configs(self.topic, {"retention.ms": wanted})
        log = self._broker.log(self.topic, 0)
        self._forget()
        self._start = log.start_offset
        self._log, self._cursor = log, log.cursor(self._start)

    def _configs(self) -> dict[str, int]:
        if self._ttl_ms is None:
            return {"retention.ms": -1}
        least, most = SEGMENT_MS
        return {"retention.ms": self._ttl_ms, "segment.bytes": SEGMENT_BYTES,
                "segment.ms": max(least, min(self._ttl_ms // 2, most))}

    def _read_on(self) -> tuple[Log, int]:
        """Folds up to the end that the log has now; returns both."""
        while True:
            log = self._log
            try:
                if log is None or log.closed:    # the topic was deleted, or the broker closed
                    self._open()
                    continue
                end = log.end_offset    # before the start: who appends later saw the later start
                if log.start_offset != self._start:
                    self._drop_before(log.start_offset)
                if not self._fold_up_to(end):
                    continue
                self._expire()
            except GONE:
                if self._broker.closed:
                    raise
                self._log = None
                continue
            except BaseException:    # a signal's, too: nobody knows what of a chunk was folded
                self._log = None
                raise
            return log, end

    def _fold_up_to(self, end: int) -> bool:
        """False: what was to come next has been deleted."""
        cursor = self._cursor
        while cursor is not None and cursor.offset < end:
            try:
                chunk = cursor.fetch()
            except OffsetOutOfRangeError as error:
                if cursor.offset < (error.start_offset or 0):
                    return False
                raise
            for record in chunk:
                self._take(record)
            if not len(chunk) and cursor.offset < end and not cursor.wait(PATIENCE_SECONDS):
                raise PylogTimeoutError(
                    f"the records of {self.topic!r} from offset {cursor.offset} on have not come "
                    f"to disk for {PATIENCE_SECONDS:.0f} s; see to the disk, then try again",
                    timeout_ms=int(1000 * PATIENCE_SECONDS))
        return True

    def _take(self, record: Record) -> None:
        key, offset, timestamp = record.key, record.offset, record.timestamp
        try:
            if key is None:
                raise ValueError("the record has no key")
            before = self._entries.get(key)
            if before is not None and self._ttl_ms is not None \
                    and self._last[key][1] + self._ttl_ms <= timestamp:
                before = None    # whoever reads later never had it
            entry = self._fold(before, record)
        except TaskTimeoutError:    # the time of the task that looks is over, wherever it is
            raise
        except Exception as error:
            self.skipped += 1
            logger.warning("%s: the record at offset %d is skipped, it makes no sense: %s: %s",
                           self.topic, offset, type(error).__name__, error)
            return
        if entry is None:
            self._drop(key)
            return
        if self._ttl_ms is not None and (
                key not in self._last or timestamp < self._last[key][1]):
            heapq.heappush(self._due, (timestamp, offset, key))
        self._entries[key] = entry
        self._last[key] = offset, timestamp

    # ---- forgetting

    def _expire(self) -> None:
        if not self._due:
            return
        limit = int(self._clock() * 1000) - (self._ttl_ms or 0)
        while self._due and self._due[0][0] <= limit:
            timestamp, offset, key = heapq.heappop(self._due)
            last = self._last.get(key)
            if last == (offset, timestamp):
                self._drop(key)
            elif last is not None:    # it was renewed
                heapq.heappush(self._due, (last[1], last[0], key))

    def _drop_before(self, start: int) -> None:
        """What was deleted is deleted here too: another who opens the topic now never sees it."""
        for key in [key for key, (offset, _) in self._last.items() if offset < start]:
            self._drop(key)
        self._start = start
        if self._cursor is not None and self._cursor.offset < start:
            self._cursor.seek(start)

    def _drop(self, key: bytes) -> None:
        self._entries.pop(key, None)
        self._last.pop(key, None)

    def _forget(self) -> None:
        self._entries.clear()
        self._last.clear()
        self._due.clear()

    def __len__(self) -> int:
        return len(self.current())

    def __repr__(self) -> str:
        return f"<State of {self.topic!r}, {len(self._entries)} entries>"


def _milliseconds(ttl: object) -> int:
    if isinstance(ttl, bool) or not isinstance(ttl, int | float):
        raise TypeError(f"ttl must be a number of seconds or None, not {type(ttl).__name__}")
    if not 0.001 <= ttl <= 3_153_600_000:
        raise ConfigurationError(f"ttl={ttl} is impossible; use 0.001 to 3,153,600,000 seconds",
                                 option="ttl", value=ttl)
    return int(ttl * 1000)
