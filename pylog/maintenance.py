"""Maintenance of a broker: what is too old or too much goes, what was left half done is finished.

    DATA/maintenance.lock      flock: held by the process that does it; its mtime is the last round

Each process with an open broker has a thread for it, of which one at a time works: the kernel gives
the lock to another when its holder is dead. Short-lived processes make up for rounds that nobody
was there to do. Files tell which partitions are due, so that the rest are not opened.

Retention goes by whole segments from the oldest on, as in Kafka: by the largest timestamp of each,
or while what is behind it is enough. The last segment is rolled first if it is to go, or older than
segment.ms. Source: Kafka, UnifiedLog.deleteOldSegments.
"""

import contextlib
import fcntl
import functools
import logging
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Protocol

from pylog import _native
from pylog.errors import PylogError
from pylog.log import Log
from pylog.metadata import Metadata
from pylog.metadata_file import TopicEntry
from pylog.names import is_segment, segment_name
from pylog.share import kept_offset
from pylog.topic import (
    TopicPartition,
    altered_options,
    codec_of,
    config_value,
    directory_name,
)

logger = logging.getLogger("pylog")

LOCK_NAME = "maintenance.lock"
LOOK_SECONDS = 1.0          # a process looks for changed configs, and for commits to sync
ROUND_SECONDS = 10.0        # between rounds of the one that works
LATE_SECONDS = 300.0        # a round this late is made up for by who closes
UNFINISHED_SECONDS = 3600.0
SEGMENTS_AT_ONCE = 16       # deleted under the lock of the store; one by one 2000 take 30 s, not 4
HEADER = _native.batch_layout()

Unchanged = Callable[[], contextlib.AbstractContextManager[bool]]


class Maintained(Protocol):
    """Of a broker, what is needed here."""

    path: Path
    metadata: Metadata
    doorbells: _native.Doorbells

    def topics(self) -> dict[str, TopicEntry]: ...
    def log_that_is_there(self, topic: str, partition: int) -> Log: ...
    def opened(self) -> dict[tuple[str, int], Log]: ...
    def sync_groups(self) -> None: ...


def maintain(broker: Maintained, now_ms: int | None = None) -> bool:
    """One round, now; False: another process is at it. now_ms: what the time is, for tests.

    Cost: for each partition a listing, the header of a batch, and log.meta if it has segments.
    """
    now_ms = time.time_ns() // 1_000_000 if now_ms is None else now_ms
    with _claimed(broker.path) as is_ours:
        if is_ours:
            _round(broker, now_ms)
        return is_ours


@contextlib.contextmanager
def _claimed(data: Path) -> Iterator[bool]:
    descriptor = os.open(data / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True
        os.utime(descriptor)
    finally:
        os.close(descriptor)


def _round(broker: Maintained, now_ms: int) -> None:
    broker.metadata.finish_deletions()
    _remove_unfinished(broker.path)
    for entry in broker.topics().values():
        for partition in range(entry.partitions):
            directory = broker.path / directory_name(entry.name, partition)
            try:
                log = broker.opened().get((entry.name, partition))
                if log is not None and not log.closed:
                    bring_up_to_date(broker.metadata, log, entry)
                if is_due(directory, entry.configs, now_ms):
                    clean(broker.log_that_is_there(entry.name, partition), entry.configs, now_ms,
                          kept_offset(broker.path, TopicPartition(entry.name, partition)),
                          functools.partial(_unchanged, broker.metadata, entry))
            except (PylogError, FileNotFoundError) as error:
                # Deleted meanwhile, damaged, a full disk: whoever uses it is told.
                logger.debug("maintenance of %s: %s", directory, error)


def _remove_unfinished(data: Path) -> None:
    """Files that somebody was making when he was killed: nobody takes an hour for one."""
    for path in [*data.glob("*.tmp"), *data.glob("groups/*.tmp"), *data.glob("shares/*/*.tmp")]:
        with contextlib.suppress(OSError):
            if os.stat(path).st_mtime < time.time() - UNFINISHED_SECONDS:
                os.unlink(path)


def bring_up_to_date(metadata: Metadata, log: Log, entry: TopicEntry) -> None:
    """Has a log go by the configs of its topic, where they were altered since it was created."""
    if altered_options(entry.configs, log.stats()["options"]):
        with metadata.holding(entry) as current:    # what is altered once more meanwhile stands
            if current and (options := altered_options(current.configs, log.stats()["options"])):
                log.alter(**options)
    log._compress(codec_of(entry.configs))


@contextlib.contextmanager
def _unchanged(metadata: Metadata, entry: TopicEntry) -> Iterator[bool]:
    """Whether the topic goes by the same configs still, and does so meanwhile."""
    with metadata.holding(entry) as current:
        yield current is not None and current.configs == entry.configs


# ---- what is due -------------------------------------------------------------------------------

def is_due(directory: Path, configs: Mapping[str, str], now_ms: int) -> bool:
    """What the files alone tell: there may be something to delete, or to roll."""
    try:
        bases = sorted(int(name[:20]) for name in os.listdir(directory) if is_segment(name))
    except FileNotFoundError:
        return False
    if not bases:
        return False
    retention_ms = config_value(configs, "retention.ms")
    retention_bytes = config_value(configs, "retention.bytes")
    oldest = _first_timestamp(directory / segment_name(bases[0]))
    if retention_ms >= 0 and oldest is not None and now_ms - oldest > retention_ms:
        return True
    if retention_bytes >= 0:
        sizes = [os.stat(directory / segment_name(base)).st_size for base in bases]
        if sum(sizes) - sizes[0] >= retention_bytes and sum(sizes) > 0:
            return True
    newest = oldest if len(bases) == 1 else _first_timestamp(directory / segment_name(bases[-1]))
    if newest is not None and now_ms - newest > config_value(configs, "segment.ms"):
        return True
    meta = _native.load_meta(os.fsencode(directory)) if len(bases) > 1 else None
    return meta is not None and meta["log_start"] >= bases[1]    # a deletion that was killed


def _first_timestamp(segment: Path) -> int | None:
    """Of the first batch; None: the segment is empty."""
    with open(segment, "rb") as file:
        header = file.read(HEADER["records"])
    if len(header) < HEADER["records"] or not header[HEADER["magic"]]:
        return None
    return int.from_bytes(header[HEADER["baseTimestamp"]:][:8], "big", signed=True)


# ---- cleaning ----------------------------------------------------------------------------------

def clean(
    log: Log, configs: Mapping[str, str], now_ms: int, kept: int | None = None,
    unchanged: Unchanged = lambda: contextlib.nullcontext(True),
) -> None:
    """Rolls and deletes what is due in one log; nothing from `kept` on, if that is given, and
    nothing when it has other configs by then, or is another topic's: `unchanged` tells, and keeps
    it so. Some segments at a time, for nobody can alter any topic meanwhile."""
    retention_ms = config_value(configs, "retention.ms")
    keep = log.start_offset
    log.delete_before(keep)    # what a deletion that was killed has left
    if retention_ms >= 0:
        keep = max(keep, _past_retention(log, now_ms - retention_ms))
    _roll_if_old(log, now_ms - config_value(configs, "segment.ms"))
    keep = max(keep, _past_size(log, config_value(configs, "retention.bytes")))
    keep = min(keep, log.readable_offset)
    if kept is not None:
        keep = min(keep, kept)
    for offset in [*_bases(log)[SEGMENTS_AT_ONCE::SEGMENTS_AT_ONCE], keep]:
        if log.start_offset < offset <= keep:
            with unchanged() as is_so:
                if not is_so:
                    return
                log.delete_before(offset)


def _bases(log: Log) -> list[int]:
    return sorted(int(name[:20]) for name in os.listdir(log.path) if is_segment(name))


def _past_retention(log: Log, limit_ms: int) -> int:
    """The first offset of the first segment that has a record of this time or later."""
    bases = _bases(log)    # before the look: what comes in after it is young, and in none of them
    found = log.offset_for_time(limit_ms)
    if found is None:
        log.roll()
        bases = _bases(log)
        found = log.offset_for_time(limit_ms)    # one may have come in before the roll
    return bases[-1] if found is None else max(base for base in bases if base <= found)


def _roll_if_old(log: Log, limit_ms: int) -> None:
    first = _first_timestamp(log.path / segment_name(_bases(log)[-1]))
    if first is not None and first < limit_ms:
        log.roll()


def _past_size(log: Log, retention_bytes: int) -> int:
    """The first offset of the first segment behind which there is less than is to be kept."""
    active: int = log._page()["active_base"]    # what others roll from here on is left out
    if retention_bytes < 0 or not log._retire():    # before that a segment has blocks to spare
        return log.start_offset
    bases = [base for base in _bases(log) if base < active]
    sizes = [os.stat(log.path / segment_name(base)).st_size for base in bases]
    excess = sum(sizes) + log._page()["position"] - retention_bytes
    for base, size in zip(bases, sizes, strict=True):
        if excess < size:
            return base
        excess -= size
    return active


# ---- the thread --------------------------------------------------------------------------------

class Maintainer:
    """The thread of a process. It holds no broker: one that is let go of may be collected."""

    def __init__(self, broker: Maintained) -> None:
        self._broker = weakref.ref(broker)
        self._stopped = threading.Event()
        self._pid = os.getpid()
        self._thread = threading.Thread(target=self._run, name="pylog-maintainer", daemon=True)
        self._thread.start()

    def stop(self, broker: Maintained) -> None:
        """Idempotent. A round that is overdue is done here."""
        was_stopped = self._stopped.is_set()
        self._stopped.set()
        if was_stopped or self._pid != os.getpid():
            return
        self._thread.join(10)
        with contextlib.suppress(PylogError, OSError):
            if _last_round(broker.path) < time.time() - LATE_SECONDS:
                maintain(broker)

    def _run(self) -> None:
        topics, next_round = -1, time.monotonic() + LOOK_SECONDS
        while not self._stopped.wait(LOOK_SECONDS):
            broker = self._broker()
            if broker is None:
                return
            try:
                broker.sync_groups()
                is_due = time.monotonic() >= next_round
                if topics != (topics := broker.doorbells.topics) or is_due:
                    _follow_configs(broker)
                if is_due:
                    next_round = time.monotonic() + ROUND_SECONDS
                    maintain(broker)
            except Exception as error:    # closed meanwhile, the directory gone: tried again
                logger.debug("maintenance of %s: %s", broker.path, error)
            del broker


def _follow_configs(broker: Maintained) -> None:
    """What other processes cannot tell through the log itself."""
    entries = broker.topics()
    for (topic, _), log in broker.opened().items():
        if topic in entries and not log.closed:
            log._compress(codec_of(entries[topic].configs))


def _last_round(data: Path) -> float:
    try:
        return os.stat(data / LOCK_NAME).st_mtime
    except FileNotFoundError:
        return 0.0
