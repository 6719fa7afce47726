"""pylog.Log: one log (one partition) in one directory, opened by any number of processes at once.

The hot calls are native (`_native.Log`); here is what is decided once: options, where a read
starts, what is said about a recovery.
"""

import atexit
import contextlib
import errno
import logging
import os
import stat
import weakref
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import takewhile
from pathlib import Path
from typing import Any, Literal, Self, SupportsIndex

from pylog import _native
from pylog.check import Report, check
from pylog.compression import codec_number
from pylog.errors import (
    ClosedError,
    ConfigurationError,
    DiskFullError,
    LogError,
    OffsetOutOfRangeError,
    PylogError,
    UnsupportedEnvironmentError,
    UnsupportedFormatError,
)
from pylog.names import STORE_NAME

logger = logging.getLogger("pylog")

Durability = Literal["os", "interval", "fsync"]
TimestampType = Literal["create", "append"]
Start = SupportsIndex | Literal["earliest", "latest"] | datetime

DURABILITIES = ("os", "interval", "fsync")
TIMESTAMP_TYPES = ("create", "append")
UNSET = -1
# What numbers an option may have, as in pl_options_check: refused here, nothing is created.
RANGES = {
    "segment_bytes": (4096, 1 << 30),
    "max_message_bytes": (128, 1 << 30),
    "index_interval_bytes": (0, 1 << 30),
    "flush_interval_ms": (1, 86_400_000),
    "lock_timeout_ms": (0, 10**15),
}
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# The options that log.meta holds, in the order of `_native.Log._open`; two of them are words.
STORED = ("durability", "segment_bytes", "max_message_bytes", "append_time",
          "index_interval_bytes", "flush_interval_ms")
WORDS = {"durability": DURABILITIES, "append_time": TIMESTAMP_TYPES}

_open_logs: "weakref.WeakSet[Log]" = weakref.WeakSet()


@dataclass(frozen=True, slots=True)
class Recovered:
    """What opening a log that nobody closed found and did.

    reason: "killed" (same boot: nothing can be lost) or "scanned" (after a reboot, a copy, a lost
    control page). is_lossy: records may be gone, and the log goes on at `next_offset`, an offset
    never used before. cut_offset: the first that is gone or never was. cut_bytes: bytes set aside
    in a file `*.cut-<ms>`, with `batches_beyond` valid batches among them. path, position, why:
    where the scan stopped, and on what; empty after a kill, when nothing is scanned.
    """

    reason: str
    is_lossy: bool
    cut_offset: int
    next_offset: int
    cut_bytes: int
    batches_beyond: int
    path: str
    position: int
    why: str


def log_directory(path: str | bytes | os.PathLike[str] | os.PathLike[bytes]) -> Path:
    given = os.fsdecode(path)
    if not given or "\0" in given:
        raise ConfigurationError(
            f"path={given!r} names no directory; use '.' for the current one",
            option="path",
            value=given,
        )
    return Path(os.path.abspath(given))


def _make_directory(path: Path) -> list[Path]:
    """Returns it and those of its parents that were not there, innermost first."""
    missing = list(takewhile(lambda one: not os.path.lexists(one), (path, *path.parents)))
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        _remove_if_empty(missing)
        raise _failure("create", path, error) from error
    return missing


def _remove_if_empty(directories: list[Path]) -> None:
    """What was made for a log that is not to be."""
    for directory in directories:
        with contextlib.suppress(OSError):
            directory.rmdir()


def _failure(action: str, path: Path, error: OSError) -> LogError:
    is_full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    kind, advice = (DiskFullError, "free some space") if is_full \
        else (LogError, "choose another path")
    return kind(
        f"cannot {action} {path}: {error.strerror}; {advice}", path=str(path), errno=error.errno
    )


def _one_of(name: str, value: str | None, choices: tuple[str, ...]) -> int:
    if value is None:
        return UNSET
    if value not in choices:
        raise ConfigurationError(
            f"{name}={value!r} is unknown; use one of {', '.join(map(repr, choices))}",
            option=name,
            value=value,
        )
    return choices.index(value)


def _number(name: str, value: SupportsIndex | None) -> int:
    if value is None:
        return UNSET
    number, (least, most) = _native.to_int(value, name), RANGES[name]
    if not least <= number <= most:
        raise ConfigurationError(
            f"{name}={number} is impossible; use {least:,} to {most:,}", option=name, value=number
        )
    return number


def _milliseconds(moment: datetime, name: str) -> int:
    """Since the epoch, rounded down; exact, as `timestamp()` is not."""
    if moment.utcoffset() is None:
        raise ConfigurationError(
            f"{name}={moment!r} without a time zone is ambiguous; use datetime(..., tzinfo=UTC)",
            option=name,
            value=moment,
        )
    return (moment - EPOCH) // timedelta(milliseconds=1)


def _contradiction(path: Path, wanted: tuple[int, ...]) -> ConfigurationError | None:
    """The first of the options `wanted` that is not the log's; None: they are not the trouble."""
    meta = _native.load_meta(os.fsencode(path))
    for name, number in zip(STORED, wanted, strict=False):
        if meta is None or number in (UNSET, meta[name]):
            continue
        words = WORDS.get(name)
        stored, value = (words[n] if words else n for n in (meta[name], number))
        name = "timestamp_type" if name == "append_time" else name
        return ConfigurationError(
            f"the log was created with {name}={stored!r}, not {value!r}; leave the option out to "
            f"use the stored one [{path}]",
            option=name, value=value, stored=stored, path=str(path),
        )
    return None


class Log(_native.Log):
    """An append-only log in a directory: create or open it, from any number of processes.

    path: the directory; made (0700) if missing. mode: "a" creates, appends and reads; "r" only
    reads, and works on a read-only directory; of a log that no writer has opened since a reboot
    or a copy it shows what is there, and sees no more until it is opened again. durability: "os"
    (survives kill -9 of any process), "interval" (also on disk within flush_interval_ms), "fsync"
    (on disk when append returns, and read only then). compression: None, "lz4" or "gzip", of what
    append_many writes; append and append_buffer compress nothing. segment_bytes: size at which a
    new file is begun, from 4,096 to 2^30. max_message_bytes: greatest batch, as in Kafka.
    timestamp_type: "create" (the caller's) or "append". lock_timeout_ms: how long an append waits
    for a lock that a stopped process holds.

    durability, segment_bytes, max_message_bytes, timestamp_type, index_interval_bytes and
    flush_interval_ms are properties of the log, stored when it is created; None takes the stored
    one or the default, and a contradiction raises ConfigurationError.

        >>> import pylog, tempfile
        >>> with pylog.Log(tempfile.mkdtemp(dir=".") + "/orders") as log:
        ...     first = log.append(b"hello", key=b"greeting")
        ...     offset = log.append_many([b"one", b"two"])
        ...     [record.value for record in log.read()]
        [b'hello', b'one', b'two']

    Cost: opening maps two pages; a log that was closed or whose processes were killed opens in
    constant time, one that lived through a reboot is scanned from its last known durable record.
    Raises UnsupportedFilesystemError, UnsupportedFormatError, UnsupportedEnvironmentError,
    CorruptRecordError, ConfigurationError, ReadOnlyLogError, DiskFullError.
    """

    __slots__ = ("_path",)

    def __init__(
        self,
        path: str | bytes | os.PathLike[str] | os.PathLike[bytes],
        mode: Literal["a", "r"] = "a",
        durability: Durability | None = None,
        compression: str | None = None,
        segment_bytes: SupportsIndex | None = None,
        max_message_bytes: SupportsIndex | None = None,
        timestamp_type: TimestampType | None = None,
        index_interval_bytes: SupportsIndex | None = None,
        flush_interval_ms: SupportsIndex | None = None,
        lock_timeout_ms: SupportsIndex | None = 10_000,
    ) -> None:
        if mode not in ("a", "r"):
            raise ConfigurationError(f"mode={mode!r} is unknown; use 'a' or 'r'", option="mode",
                                     value=mode)
        self._path = log_directory(path)
        options = (
            _one_of("durability", durability, DURABILITIES),
            _number("segment_bytes", segment_bytes),
            _number("max_message_bytes", max_message_bytes),
            _one_of("timestamp_type", timestamp_type, TIMESTAMP_TYPES),
            _number("index_interval_bytes", index_interval_bytes),
            _number("flush_interval_ms", flush_interval_ms),
            _number("lock_timeout_ms", 10_000 if lock_timeout_ms is None else lock_timeout_ms),
            codec_number(compression),
        )
        made = self._prepare_directory(mode)
        try:
            self._open(os.fsencode(self._path), mode == "a", *options)
        except PylogError as error:
            _remove_if_empty(made)
            if isinstance(error, ConfigurationError):
                raise _contradiction(self._path, options) or error from None
            raise
        _open_logs.add(self)
        if recovered := self.recovered:
            level = logging.WARNING if recovered.is_lossy else logging.INFO
            logger.log(level, "%s: recovered, %s", self._path, recovered)

    def _prepare_directory(self, mode: str) -> list[Path]:
        """Sees that there is one; returns what had to be made for it, innermost first."""
        try:
            is_there = stat.S_ISDIR(self._path.stat().st_mode)
        except (FileNotFoundError, NotADirectoryError):
            is_there = False
        except OSError as error:
            raise _failure("look at", self._path, error) from error
        else:
            if not is_there:
                raise UnsupportedFormatError(
                    f"{self._path} is a file; a log is a directory: choose another path",
                    path=str(self._path),
                )
        if (self._path / STORE_NAME).exists():
            raise UnsupportedFormatError(
                f"{self._path} is a broker, and no log; open it with pylog.Broker, which has a log "
                "for each partition, or choose another path", path=str(self._path))
        if mode == "r":
            if is_there:
                return []
            raise UnsupportedFormatError(
                f"there is no log at {self._path}; create it with mode='a'", path=str(self._path)
            )
        made = [] if is_there else _make_directory(self._path)
        self._check_owner()
        return made

    def _check_owner(self) -> None:
        """Whoever can write the directory is trusted (the mutexes in it bear pointers): only us."""
        info = self._path.stat()
        user = os.geteuid()
        if user and info.st_uid not in (user, 0):
            raise UnsupportedEnvironmentError(
                f"{self._path} belongs to user {info.st_uid}, not to {user}; use a directory of "
                "your own, or mode='r'",
                path=str(self._path), found=info.st_uid, required=user,
            )
        if info.st_mode & 0o002:
            raise UnsupportedEnvironmentError(
                f"everybody can write {self._path}, and so could run code in your process; "
                "chmod o-w it, or use another directory",
                path=str(self._path), found=stat.S_IMODE(info.st_mode),
                required=stat.S_IMODE(info.st_mode) & ~0o002,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __repr__(self) -> str:
        if self.closed:
            return f"<pylog.Log {str(self._path)!r}, closed>"
        return f"<pylog.Log {str(self._path)!r}, offsets [{self.start_offset}, {self.end_offset})>"

    def __reduce__(self) -> Any:
        raise TypeError("a log cannot be pickled; pass its path and open it in the other process")

    @property
    def path(self) -> Path:
        """The directory, absolute."""
        return self._path

    @property
    def durability(self) -> str:
        """The stored durability: "os", "interval" or "fsync"."""
        return DURABILITIES[self._options()["durability"]]

    @property
    def recovered(self) -> Recovered | None:
        """What this opening had to repair; None if nothing."""
        found = self._recovered()
        if found is None:
            return None
        found["reason"] = {1: "killed", 2: "scanned"}[found["reason"]]
        return Recovered(**found)

    def resolve(self, start: Start) -> int:
        """The offset that `start` means: an offset, -10 (the last ten records), "earliest",
        "latest", or an aware datetime: the first record at or after it, rounded down to its
        millisecond, for timestamps have no finer ones."""
        return self._resolve(start, "start")

    def _resolve(self, where: Start, name: str) -> int:
        """As `resolve`; `name` is what the errors call it."""
        if isinstance(where, datetime):
            offset = self.offset_for_time(_milliseconds(where, name))
            return self.readable_offset if offset is None else offset
        if isinstance(where, str):
            if where == "earliest":
                return self.start_offset
            if where == "latest":
                return self.readable_offset
            raise ConfigurationError(
                f"{name}={where!r} is unknown; use an offset, 'earliest', 'latest' or a datetime",
                option=name,
                value=where,
            )
        offset = _native.to_int(where, f"{name}, if not 'earliest', 'latest' or a datetime,")
        if offset >= 0:
            return self._offset(offset)
        return self._offset_before_end(min(-offset, 1 << 62))

    def cursor(self, start: Start = "earliest") -> _native.Cursor:
        """A native reader with a position: iterate it, or `fetch` chunks from it.

        start: as in `resolve`. It stops at what is there, and goes on when there is more. Raises
        ConfigurationError for a `start` that is none, ClosedError; whether there is such an offset
        shows at the first read.
        """
        return _native.Cursor(self, self.resolve(start))

    def read(
        self,
        start: Start = "earliest",
        stop: Start | None = None,
        follow: bool = False,
        on_corruption: Literal["raise", "skip"] = "raise",
    ) -> _native.Cursor:
        """Iterates over records from `start` up to `stop`, excluded.

        Both are what `resolve` takes: an offset, -10 (the last ten records), "earliest", "latest",
        or an aware datetime, rounded down to its millisecond. Without `stop` it ends at what can
        be read at the call; with `follow` it waits for more, for ever, woken by whoever appends.
        on_corruption: "skip" steps over damaged batches and counts them in `.skipped`. Raises
        OffsetOutOfRangeError, CorruptRecordError, UnsupportedCodecError (its `next_offset` is where
        to read on).
        """
        if on_corruption not in ("raise", "skip"):
            raise ConfigurationError(
                f"on_corruption={on_corruption!r} is unknown; use 'raise' or 'skip'",
                option="on_corruption",
                value=on_corruption,
            )
        end = -1 if follow else self.readable_offset
        if stop is not None:
            last = self._resolve(stop, "stop")
            end = last if end < 0 else min(end, last)
        first = self.resolve(start)
        if first > self.end_offset:
            end = -1    # not an empty range: the first step says that there is no such offset
        return _native.Cursor(self, first, end, follow, on_corruption == "skip")

    def offset_for_time(self, timestamp: SupportsIndex | datetime) -> int | None:
        """Offset of the first record at or after `timestamp`; None: there is none.

        timestamp: ms since the epoch, or an aware datetime, rounded down to its millisecond.
        Cost: a time index look-up, then a walk of batch headers and of one batch. Source: Kafka's
        ListOffsets.
        """
        if isinstance(timestamp, datetime):
            timestamp = _milliseconds(timestamp, "timestamp")
        sought = _native.to_int(timestamp, "a timestamp (ms since the epoch)")
        while True:
            began = self.start_offset
            try:
                return self._first_since(sought)
            except OffsetOutOfRangeError:
                if self.start_offset == began:
                    raise    # else what was looked at was deleted meanwhile, and is no answer

    def _first_since(self, sought: int) -> int | None:
        start = self._offset_for_time(sought)
        if start is None:
            return None
        for record in _native.Cursor(self, start):
            if record.timestamp >= sought:
                return record.offset
        return None

    def stats(self) -> dict[str, Any]:
        """Offsets, sizes and counters as a plain dict; `options` as the constructor takes them.

        Cost: a directory listing.
        """
        options: dict[str, Any] = self._options()
        options["durability"] = DURABILITIES[options["durability"]]
        options["timestamp_type"] = TIMESTAMP_TYPES[options.pop("append_time")]
        return self._page() | {
            "path": str(self._path),
            "readable_offset": self.readable_offset,
            "size_bytes": self.size_bytes,
            "crc_kernel": _native.CRC_KERNEL,
            "options": options,
        }

    def alter(
        self,
        segment_bytes: SupportsIndex | None = None,
        max_message_bytes: SupportsIndex | None = None,
        timestamp_type: TimestampType | None = None,
        flush_interval_ms: SupportsIndex | None = None,
    ) -> None:
        """Changes stored properties of the log; None leaves one as it is. Durable on return.

        Every process that has it open goes by them from its next append on; what is there already
        stays as it was written, and readable, but for a compressed batch of more than 8 MiB of
        records that is also over 64 times the new max_message_bytes: raise it again to read such a
        one. The other properties stay what the log was created with. Cost: a
        sync. Raises ConfigurationError, ReadOnlyLogError, PylogTimeoutError.
        """
        self._alter(_number("segment_bytes", segment_bytes),
                    _number("max_message_bytes", max_message_bytes),
                    _one_of("timestamp_type", timestamp_type, TIMESTAMP_TYPES),
                    _number("flush_interval_ms", flush_interval_ms))

    def _compress(self, compression: str | None) -> None:
        self._set_codec(codec_number(compression))

    def check(self) -> Report:
        """Proves the structure of the files as they are now; see `pylog.check`."""
        if self.closed:
            raise ClosedError("the log is closed; open it again, or use pylog.check(path)")
        return check(self._path, end_offset=self.end_offset)


@atexit.register
def _close_all() -> None:
    """A process that just ends leaves a tidy log too."""
    for log in list(_open_logs):
        try:
            log.close()
        except Exception:
            logger.exception("closing %s at exit", log)
