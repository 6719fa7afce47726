"""Copying a broker while it is used, and putting a copy back.

    segments         a log is rolled first; what lies before changes no more: hard links, or copied
    log.meta         as it is, but for the clean end there, so that nothing looks lost
    metadata, groups copied, before the logs, so that no group, no share group either, is ahead of
                     one; a topic that is deleted meanwhile is taken out again

The copy is made under another name, proved and synced, and renamed: none is half made.
"""

import contextlib
import os
import secrets
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TypeVar

from pylog import _native
from pylog.broker import Broker
from pylog.check import Progress, check
from pylog.errors import CorruptRecordError, LogError, PylogError, PylogTimeoutError
from pylog.log import Log
from pylog.metadata import Metadata
from pylog.metadata_file import TopicEntry
from pylog.names import STORE_NAME, is_segment, segment_name
from pylog.topic import TopicPartition, directory_name

PATIENCE_MS = 10_000    # until the housekeeper has trimmed what was rolled
TRIES = 10      # of a partition, while retention takes its segments away

Value = TypeVar("Value")


class _Work:
    """How far it is, in bytes: each counts half when it is copied, and half when it is proved. That
    all is done it says once, when the disk alone is waited for."""

    def __init__(self, total: int, on_progress: Progress | None) -> None:
        self.total, self.halves, self.on_progress = total, 0, on_progress

    def add(self, count: int) -> None:
        self.halves += count
        self._tell(max(0, min(self.halves // 2, self.total - 1)))

    def finish(self) -> None:
        self._tell(self.total)

    def _tell(self, done: int) -> None:
        if self.on_progress is not None:
            self.on_progress(done, self.total)

    def prove(self, directory: Path) -> None:
        """Raises CorruptRecordError."""
        before = self.halves
        report = check(directory, on_progress=lambda done, _: self.add(before + done - self.halves))
        if not report.ok:
            raise CorruptRecordError(
                f"the log in {directory} is damaged, so nothing was copied; see `pylog check`: "
                f"{report.findings[0].what}", path=str(directory))


def backup(broker: Broker, target: str | os.PathLike[str], on_progress: Progress | None = None,
           ) -> dict[TopicPartition, int | None]:
    """See `Admin.backup`."""
    broker._check_open()
    path = Path(os.path.abspath(target))
    ends: dict[TopicPartition, int | None] = {}
    with _whole(path) as unfinished:
        for kind in ("groups", "shares"):
            if (broker.path / kind).is_dir():
                shutil.copytree(broker.path / kind, unfinished / kind,
                                copy_function=_copy_if_there)
        _copy_store(broker.path / STORE_NAME, unfinished / STORE_NAME)
        with Metadata(unfinished) as copied:
            topics = []
            for entry in copied.topics().values():
                logs = _if_there(broker, entry, partial(_logs_of, broker, entry))
                topics.append((entry, logs, _size(logs)))
            work = _Work(sum(size for _, _, size in topics), on_progress)
            for entry, logs, size in topics:
                goal = work.halves + 2 * size
                done = None if logs is None else _if_there(
                    broker, entry, partial(_copy_logs, logs, unfinished, work))
                if done is None:
                    _leave_out(copied, entry)
                    work.add(max(0, goal - work.halves))
                ends |= dict.fromkeys(_partitions(entry)) if done is None else done
        work.finish()
    return ends


def _copy_if_there(source: str, target: str) -> None:
    """What a share group had of a topic goes with the topic, which may be just now."""
    with contextlib.suppress(FileNotFoundError):
        shutil.copy2(source, target)


def _if_there(broker: Broker, entry: TopicEntry, do: Callable[[], Value]) -> Value | None:
    """What it returns; None: the topic was deleted meanwhile, and perhaps made anew."""
    try:
        value = do()
    except (PylogError, FileNotFoundError):
        if broker._is_current(entry):
            raise
        return None
    return value if broker._is_current(entry) else None


def _partitions(entry: TopicEntry) -> list[TopicPartition]:
    return [TopicPartition(entry.name, number) for number in range(entry.partitions)]


def _logs_of(broker: Broker, entry: TopicEntry) -> dict[TopicPartition, Log]:
    """Of the partitions that somebody has used."""
    return {one: broker.log_that_is_there(*one) for one in _partitions(entry)
            if broker._is_current(entry) and (broker.path / directory_name(*one)).exists()}


def _size(logs: dict[TopicPartition, Log] | None) -> int:
    try:
        return sum(log.size_bytes for log in (logs or {}).values())
    except PylogError:    # deleted just now
        return 0


def _copy_logs(logs: dict[TopicPartition, Log], target: Path, work: _Work,
               ) -> dict[TopicPartition, int]:
    return {one: _copy_log(log, target / directory_name(*one), work) for one, log in logs.items()}


def _leave_out(copied: Metadata, entry: TopicEntry) -> None:
    for one in _partitions(entry):
        shutil.rmtree(copied.path / directory_name(*one), ignore_errors=True)
    copied.delete_topic(entry.name)


def restore(source: str | os.PathLike[str], target: str | os.PathLike[str],
            on_progress: Progress | None = None) -> None:
    """Puts a copy of a broker to where none is: proved first, and whole or not at all.

    on_progress(bytes_done, bytes_total) is called every few MiB; done is total when the disk alone
    is waited for. The copy stays. Raises LogError, CorruptRecordError.
    """
    path, copy = Path(os.path.abspath(target)), Path(os.path.abspath(source))
    if not (copy / STORE_NAME).exists():
        raise LogError(f"{copy} is no copy of a broker: it has no {STORE_NAME}", path=str(copy))
    with _whole(path) as unfinished:
        work = _Work(sum(file.stat().st_size for file in copy.glob("*/*.log")), on_progress)

        def copy_file(source: str, target: str) -> None:
            shutil.copy2(source, target)
            work.add(os.stat(target).st_size)

        shutil.copytree(copy, unfinished, dirs_exist_ok=True, copy_function=copy_file)
        for meta in sorted(unfinished.glob("*/log.meta")):
            work.prove(meta.parent)
        work.finish()


@contextlib.contextmanager
def _whole(path: Path) -> Iterator[Path]:
    if os.path.lexists(path):
        raise LogError(f"{path} is there already; name a directory that is not", path=str(path))
    # A name of its own: what fails here removes it, and another thread may copy to here, too.
    unfinished = path.with_name(f"{path.name}.{secrets.token_hex(8)}.unfinished")
    try:
        unfinished.mkdir(mode=0o700, parents=True)
        yield unfinished
        os.sync()
        os.rename(unfinished, path)
    except PylogError:      # some are OSErrors, too
        raise
    except OSError as error:
        raise LogError(f"cannot copy to {path}: {error.strerror}; nothing is there now",
                       path=str(path), errno=error.errno) from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _copy_store(source: Path, target: Path) -> None:
    with contextlib.closing(sqlite3.connect(f"{source.as_uri()}?mode=ro", uri=True)) as old, \
            contextlib.closing(sqlite3.connect(target)) as new:
        old.backup(new)
    os.chmod(target, 0o600)


def _copy_log(log: Log, target: Path, work: _Work) -> int:
    """Returns where the copy ends."""
    for _ in range(TRIES):
        target.mkdir(mode=0o700)
        with contextlib.suppress(FileNotFoundError):    # a segment was deleted meanwhile
            end = _roll(log)
            if _try_to_copy_log(log, end, target, work):
                work.prove(target)
                return end
        shutil.rmtree(target)
    raise LogError(f"the segments of {log.path} are deleted faster than they can be copied; "
                   "raise its retention, and try again", path=str(log.path))


def _roll(log: Log) -> int:
    """Returns an offset before which all is in files that change no more."""
    log.roll()
    end = int(log.stats()["active_base"])
    for _ in range(PATIENCE_MS):
        if log._retire():
            return end
        time.sleep(0.001)
    raise PylogTimeoutError(
        f"another process has been tidying up {log.path} for {PATIENCE_MS // 1000} s, stopped "
        "perhaps; try again", path=str(log.path), timeout_ms=PATIENCE_MS)


def _try_to_copy_log(log: Log, end: int, target: Path, work: _Work) -> bool:
    """False: all of it was deleted meanwhile, and more."""
    # What others roll while we list may be in the list or not, but none of it is before `end`.
    bases = [int(name[:20]) for name in os.listdir(log.path) if is_segment(name)]
    for base in bases:
        if base < end:
            for name in (segment_name(base), f"{base:020}.index", f"{base:020}.timeindex"):
                _link_or_copy(log.path / name, target / name)
            work.add((target / segment_name(base)).stat().st_size)
    with open(target / segment_name(end), "wb", opener=_private):
        pass        # what came in since the roll is not in the copy
    # Read when the files are safe: where the log begins is told before they are removed.
    meta = (log.path / "log.meta").read_text()
    _write(target / "log.meta", _with_clean_end(meta, end))
    there = _native.load_meta(os.fsencode(target))
    return there is not None and there["log_start"] <= end


def _with_clean_end(meta: str, end: int) -> str:
    """As its last closer would leave it."""
    lines = [line for line in meta.splitlines() if not line.startswith("crc32c ")]
    values = {"clean_end": end, "durable_end": end}
    changed = [f"{name} {values[name]}" if (name := line.split()[0]) in values else line
               for line in lines]
    text = "\n".join(changed) + "\n"
    return f"{text}crc32c {_native.crc32c(text.encode()):08x}\n"


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except FileNotFoundError:
        if source.suffix == ".log":
            raise       # an index is made again by who needs it
    except OSError:     # another file system, or one without links
        shutil.copy2(source, target)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _write(path: Path, text: str) -> None:
    with open(path, "w", encoding="ascii", opener=_private) as file:
        file.write(text)
