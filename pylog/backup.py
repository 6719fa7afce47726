"""Copying a broker while it is used, and putting a copy back.

    segments         a log is rolled first; what lies before changes no more: hard links, or copied
    log.meta         as it is, but for the clean end there, so that nothing looks lost
    metadata, groups copied; groups before the logs, so that none is ahead of one

The copy is made under another name, proved and synced, and renamed: none is half made.
"""

import contextlib
import os
import shutil
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

from pylog import _native
from pylog.broker import Broker
from pylog.check import Progress, check
from pylog.errors import CorruptRecordError, LogError, PylogError, PylogTimeoutError
from pylog.log import Log
from pylog.names import STORE_NAME, is_segment, segment_name
from pylog.topic import TopicPartition, directory_name

PATIENCE_MS = 10_000    # until the housekeeper has trimmed what was rolled
TRIES = 10      # of a partition, while retention takes its segments away


class _Work:
    """How far it is, in bytes: each counts half when it is copied, and half when it is proved."""

    def __init__(self, total: int, on_progress: Progress | None) -> None:
        self.total, self.halves, self.on_progress = total, 0, on_progress

    def add(self, count: int) -> None:
        self.halves += count
        if self.on_progress is not None:
            self.on_progress(min(self.halves // 2, self.total), self.total)

    def prove(self, directory: Path) -> None:
        """Raises CorruptRecordError."""
        before = self.halves
        report = check(directory, on_progress=lambda done, _: self.add(before + done - self.halves))
        if not report.ok:
            raise CorruptRecordError(
                f"the log in {directory} is damaged, so nothing was copied; see `pylog check`: "
                f"{report.findings[0].what}", path=str(directory))


def backup(broker: Broker, target: str | os.PathLike[str], on_progress: Progress | None = None,
           ) -> dict[TopicPartition, int]:
    """See `Admin.backup`."""
    broker._check_open()
    path = Path(os.path.abspath(target))
    ends = {}
    with _whole(path) as unfinished:
        groups = broker.path / "groups"
        if groups.is_dir():
            shutil.copytree(groups, unfinished / "groups")
        _copy_store(broker.path / STORE_NAME, unfinished / STORE_NAME)
        logs = {TopicPartition(name, number): broker.log(name, number)
                for name, entry in broker.topics().items() for number in range(entry.partitions)
                if (broker.path / directory_name(name, number)).exists()}
        work = _Work(sum(log.size_bytes for log in logs.values()), on_progress)
        for partition, log in logs.items():
            ends[partition] = _copy_log(log, unfinished / directory_name(*partition), work)
    return ends


def restore(source: str | os.PathLike[str], target: str | os.PathLike[str],
            on_progress: Progress | None = None) -> None:
    """Puts a copy of a broker to where none is: proved first, and whole or not at all.

    on_progress(bytes_done, bytes_total) is called every few MiB. The copy stays. Raises LogError,
    CorruptRecordError.
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


@contextlib.contextmanager
def _whole(path: Path) -> Iterator[Path]:
    if os.path.lexists(path):
        raise LogError(f"{path} is there already; name a directory that is not", path=str(path))
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.unfinished")
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
