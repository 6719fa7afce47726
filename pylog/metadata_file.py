"""The file of the metadata store: its schema and rows, how it is opened, made, and made anew.

SQLite has no checksums. The row of the sequence bears a digest of all other rows and of itself, so
that what a disk has changed or lost is found. A store is made under another name and moved into
place as a whole: there is none that is half made.
"""

import contextlib
import errno
import json
import logging
import os
import sqlite3
import time
import uuid
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pylog import _native, topic
from pylog.errors import (
    CorruptMetadataError,
    DiskFullError,
    LogError,
    MetadataError,
    PylogError,
    PylogTimeoutError,
    UnsupportedFormatError,
)
from pylog.names import STORE_NAME

logger = logging.getLogger("pylog")

LOCK_NAME = "metadata.lock"
APPLICATION_ID = int.from_bytes(b"pylg", "big")
SCHEMA_VERSION = 1
MAGIC = b"SQLite format 3\0"
HEADER_BYTES = 100
BUSY_S = 10.0       # for SQLite's own locks, which nobody holds for long

SCHEMA = f"""
    PRAGMA journal_mode = WAL;
    PRAGMA application_id = {APPLICATION_ID};
    PRAGMA user_version = {SCHEMA_VERSION};
    CREATE TABLE store (
        only INTEGER PRIMARY KEY CHECK (only = 1),
        sequence INTEGER NOT NULL, digest INTEGER NOT NULL
    );
    CREATE TABLE topics (
        name TEXT PRIMARY KEY, topic_id TEXT NOT NULL, partitions INTEGER NOT NULL,
        created_ms INTEGER NOT NULL, configs TEXT NOT NULL
    ) WITHOUT ROWID;
"""
DELETED = "/"       # ends the name of a topic whose logs are still to be removed; no name has one
COLUMNS = "name, topic_id, partitions, created_ms, configs"


@dataclass(frozen=True, slots=True)
class TopicEntry:
    """A topic as the store has it. configs: what was set, as text; the defaults are not in it."""

    name: str
    topic_id: uuid.UUID
    partitions: int
    created_ms: int
    configs: dict[str, str]


class DamageError(Exception):
    """What is read cannot have been written; the message says why."""


# ---- rows ----------------------------------------------------------------------------------------

def row_of(entry: TopicEntry) -> tuple[Any, ...]:
    configs = json.dumps(entry.configs, sort_keys=True)
    return entry.name, str(entry.topic_id), entry.partitions, entry.created_ms, configs


def insert(connection: sqlite3.Connection, entry: TopicEntry) -> None:
    connection.execute(f"INSERT INTO topics ({COLUMNS}) VALUES (?, ?, ?, ?, ?)", row_of(entry))


def entry_of(row: tuple[Any, ...]) -> TopicEntry:
    try:
        name, topic_id, partitions, created_ms, configs = row
        return TopicEntry(str(name), uuid.UUID(topic_id), int(partitions), int(created_ms),
                          dict(json.loads(configs)))
    except (ValueError, TypeError, AttributeError) as error:
        raise DamageError(f"the topic {row[0]!r} makes no sense: {error}") from error


def sequence_and_digest(connection: sqlite3.Connection) -> tuple[int, int]:
    row = connection.execute("SELECT sequence, digest FROM store").fetchone()
    if row is None or [type(number) for number in row] != [int, int]:
        raise DamageError(f"the row of the sequence is {row}")
    return row[0], row[1]


def deleted_names(connection: sqlite3.Connection) -> list[str]:
    """Of the rows whose topics' logs are still to be removed."""
    rows = connection.execute("SELECT name FROM topics WHERE substr(name, -1) = ?", (DELETED,))
    return [name for name, in rows]


def verified(rows: list[tuple[Any, ...]]) -> dict[str, TopicEntry]:
    """rows: sequence, digest, and a topic's columns; they are NULL if there is no topic. What is
    being deleted is no topic any more."""
    entries = [entry_of(row[2:]) for row in rows if row[2] is not None]
    digest = 0
    for entry in entries:
        digest ^= crc_of(entry)
    if not rows or rows[0][1] != digest ^ crc_of_sequence(rows[0][0]):
        raise DamageError("the rows are not the ones that were written")
    return {entry.name: entry for entry in entries if not entry.name.endswith(DELETED)}


def crc_of(entry: TopicEntry) -> int:
    return zlib.crc32("\n".join(map(str, row_of(entry))).encode())


def crc_of_sequence(sequence: int) -> int:
    """The digest is this and the CRCs of all entries, combined by exclusive or."""
    return zlib.crc32(str(sequence).encode())


# ---- files ---------------------------------------------------------------------------------------

def connect(path: Path) -> sqlite3.Connection:
    """Raises UnsupportedFormatError for what is no store or a newer one; DamageError."""
    _check_header(path)
    connection = sqlite3.connect(
        f"{path.as_uri()}?mode=rw", uri=True, timeout=BUSY_S, isolation_level=None,
        check_same_thread=False,
    )
    try:
        connection.execute("PRAGMA synchronous = FULL")
        application, = connection.execute("PRAGMA application_id").fetchone()
        version, = connection.execute("PRAGMA user_version").fetchone()
        if application != APPLICATION_ID:
            raise _foreign(path, application)
        if version != SCHEMA_VERSION:
            raise UnsupportedFormatError(
                f"{path} has version {version}, and this pylog reads {SCHEMA_VERSION}; use the "
                "pylog that wrote it, or a newer one",
                path=str(path), found=version, supported=SCHEMA_VERSION,
            )
        found, = connection.execute("PRAGMA quick_check(1)").fetchone()
        if found != "ok":
            raise DamageError(found)
    except BaseException:
        connection.close()
        raise
    return connection


def _check_header(path: Path) -> None:
    """SQLite would take an empty file for an empty database."""
    try:
        with open(path, "rb") as file:
            header = file.read(HEADER_BYTES)
    except OSError as error:
        raise failure("read", path, error, "look at its owner and mode") from error
    if len(header) < HEADER_BYTES:
        raise DamageError(f"it has {len(header)} bytes")
    if not header.startswith(MAGIC):
        raise _foreign(path, header[:len(MAGIC)])


def _foreign(path: Path, found: Any) -> UnsupportedFormatError:
    return UnsupportedFormatError(
        f"{path} is no metadata store of pylog's (found {found!r}); move it away if it is somebody "
        "else's; if it was one, `pylog doctor --rebuild` makes it anew (or Metadata.rebuild)",
        path=str(path), found=found, supported=APPLICATION_ID,
    )


def make_store(directory: Path) -> None:
    """Makes the store from the directories of logs; under the writers' lock.

    Made under another name and moved into place as a whole. A store that was there is kept beside
    it. The sequence starts at the clock (ms), so that no number comes twice.
    """
    path, unfinished = directory / STORE_NAME, directory / (STORE_NAME + ".new")
    entries = topics_on_disk(directory)
    with told_as_ours(directory):
        _remove(unfinished)
        _write_store(unfinished, entries)
        if path.exists():
            aside = f"{path}.damaged-{time.time_ns() // 1_000_000}"
            os.link(path, aside)
            with contextlib.suppress(FileNotFoundError):
                os.replace(f"{path}-wal", f"{aside}-wal")
            logger.warning("%s: set aside as %s, and made anew", path, aside)
        elif entries:
            logger.warning("%s: missing, and made anew from %d topics' directories", path,
                           len(entries))
        _remove(path, "-wal", "-shm")     # of a store that is gone: they would be read into the new
        os.replace(unfinished, path)
        sync_name(directory)


def _write_store(path: Path, entries: list[TopicEntry]) -> None:
    """A whole store, in one file, on disk."""
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    sequence = time.time_ns() // 1_000_000
    digest = crc_of_sequence(sequence)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.executescript(SCHEMA)
        connection.execute("BEGIN")
        for entry in entries:
            insert(connection, entry)
            digest ^= crc_of(entry)
        connection.execute("INSERT INTO store VALUES (1, ?, ?)", (sequence, digest))
        connection.execute("COMMIT")
    sync_name(path)


def topics_on_disk(directory: Path) -> list[TopicEntry]:
    """A topic for each name of which there is a log, with all partitions up to the last one."""
    partitions: dict[str, list[int]] = {}
    for name in os.listdir(directory):
        found = topic.partition_of(name)
        if found and (directory / name / "log.meta").exists():
            partitions.setdefault(found.topic, []).append(found.partition)
    now = time.time_ns() // 1_000_000
    return [
        TopicEntry(name, uuid.uuid4(), max(numbers) + 1, now,
                   _configs_on_disk(directory / topic.directory_name(name, min(numbers))))
        for name, numbers in sorted(partitions.items())
    ]


def _configs_on_disk(log_directory: Path) -> dict[str, str]:
    options = None
    with contextlib.suppress(LogError):     # a damaged log.meta is for who opens the log
        options = _native.load_meta(os.fsencode(log_directory))
    return topic.configs_of(options)


def make_directory(path: Path) -> None:
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise failure("create", path, error, "choose another path") from error


def _remove(path: Path, *suffixes: str) -> None:
    for suffix in suffixes or ("", "-wal", "-shm", "-journal"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{path}{suffix}")


def sync_name(path: Path) -> None:
    """Has a file, or the names in a directory, on disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# ---- errors --------------------------------------------------------------------------------------

@contextlib.contextmanager
def told_as_ours(directory: Path) -> Iterator[None]:
    """Turns what SQLite raises, and our own doubts, into the errors of pylog."""
    path = directory / STORE_NAME
    try:
        yield
    except PylogError:
        raise
    except sqlite3.Error as error:
        raise _translated(path, error) from error
    except (DamageError, UnicodeDecodeError) as error:      # SQLite quotes what it has read
        raise _corrupt(path, error) from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _full(path) from error
        raise failure("change", path, error, "look at its owner, its mode and its disk") from error


def _translated(path: Path, error: sqlite3.Error) -> Exception:
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF
    if code == sqlite3.SQLITE_FULL:
        return _full(path)
    if code == sqlite3.SQLITE_BUSY:
        return PylogTimeoutError(
            f"another process keeps {path} locked; see which one (`fuser {path}`), and try again",
            path=str(path), timeout_ms=int(BUSY_S * 1000),
        )
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR):
        return _corrupt(path, error)
    return MetadataError(
        f"{path} cannot be used: {error}; see that it can be written, that the disk has room and "
        "that no limit (ulimit -f) is in the way",
        path=str(path),
    )


def _full(path: Path) -> DiskFullError:
    return DiskFullError(f"no room to change {path}; free some space", path=str(path))


def _corrupt(path: Path, why: Exception) -> CorruptMetadataError:
    return CorruptMetadataError(
        f"{path} is damaged: {why}; the logs do not depend on it, `pylog doctor -d {path.parent} "
        "--rebuild` makes it anew from them (or pylog.metadata.Metadata.rebuild)",
        path=str(path),
    )


def failure(action: str, path: Path, error: OSError, advice: str) -> MetadataError:
    return MetadataError(
        f"cannot {action} {path}: {error.strerror}; {advice}", path=str(path), errno=error.errno)
