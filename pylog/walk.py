"""Walking a segment file as bytes, batch by batch, whoever wrote it: what check and dump stand on.

The file is read with pread through one buffer and never mapped: a file that is cut while we read,
or a bad sector, is a short read or an OSError here, where a mapping would kill the process with
SIGBUS. The copy costs a tenth of what proving a batch does (0.1 s a GiB).

A writer may be at work in the file. What looks broken is read again from the file once before it
is called broken: a batch is complete in memory as soon as its length is there, but one read need
not see both stores.
"""

import errno
import itertools
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy

from pylog import _native
from pylog.errors import LogError, ResourceLimitError, UnsupportedCodecError
from pylog.report import Severity

WINDOW_BYTES = 4 << 20
OPEN_BATCH_BYTES = 1 << 16    # an open batch is sealed well before it is so large
LAYOUT = _native.batch_layout()
HEADER_BYTES = LAYOUT["records"]
LENGTH = LAYOUT["batchLength"]
LENGTH_END = LAYOUT["partitionLeaderEpoch"]
UNSIGNED = {"crc"}

_FIELDS = sorted((position, name) for name, position in LAYOUT.items())
_SPANS = [(name, at, end) for (at, name), (end, _) in itertools.pairwise(_FIELDS)]


def raise_ours(error: OSError | LogError) -> None:
    """Raises again what this process lacks: it is no fault of the log."""
    if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
        raise error


def unless_denied(error: OSError | LogError, severity: Severity) -> Severity:
    """How bad it is that a file cannot be read: a missing permission says nothing about it."""
    return "inconclusive" if error.errno in (errno.EACCES, errno.EPERM) else severity


def cannot_look(error: OSError, directory: Path) -> LogError:
    """The named error for one that says nothing about the log itself."""
    path = str(error.filename or directory)
    said = f"cannot look at {path}: {error.strerror or error}; "
    if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
        limit = "virtual memory" if error.errno == errno.ENOMEM else "open files"
        return ResourceLimitError(
            f"{said}close some files, or raise `ulimit -n`", path=path, errno=error.errno,
            limit=limit)
    return LogError(f"{said}see its owner and mode", path=path, errno=error.errno)


def open_regular(path: str | os.PathLike[str]) -> int:
    """A descriptor for reading; OSError for what is not a plain file (links, pipes, devices)."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(f"{path} is not a regular file")
    return fd


def read_small(path: str | os.PathLike[str], size_max: int) -> bytes:
    """The first `size_max` bytes of a plain file."""
    fd = open_regular(path)
    try:
        return os.pread(fd, size_max, 0)
    finally:
        os.close(fd)


def raw_header(view: memoryview) -> dict[str, int]:
    """The header fields by Kafka's names, as they stand: legal or not."""
    return {
        name: int.from_bytes(view[at:end], "big", signed=name not in UNSIGNED)
        for name, at, end in _SPANS
    }


def is_open_header(view: memoryview, offset: int) -> bool:
    """Whether an open batch that begins with `offset` stands at the start of `view`."""
    if len(view) < HEADER_BYTES:
        return False
    header = raw_header(view)
    return (header["batchLength"], header["magic"], header["baseOffset"]) == (0, 2, offset)


def examine(view: memoryview) -> dict[str, Any]:
    """What `_native.decode_batch` says of the batch at the start of `view`, and two more keys.

    fault: None, or the sentence that says what is wrong. unread: None, or the name of the codec
    that hides the records from us (their CRC is checked all the same). An illegal header has no
    other keys.
    """
    try:
        found = _native.decode_batch(view)
    except UnsupportedCodecError as error:
        raw = raw_header(view)
        return {
            "fault": None,
            "unread": error.codec,
            "base_offset": raw["baseOffset"],
            "last_offset": raw["baseOffset"] + raw["lastOffsetDelta"],
            "size": raw["batchLength"] + LENGTH_END,
            "leader_epoch": raw["partitionLeaderEpoch"],
            "max_timestamp": raw["maxTimestamp"],
            "records_count": raw["recordsCount"],
        }
    if isinstance(found, str):
        return {"fault": found, "unread": None}
    found["fault"] = found["records_error"] if found["crc_ok"] else "a batch fails its CRC-32C"
    found["unread"] = None
    return found


class Window:
    """A plain file, seen through one buffer of 4 MiB, or of one batch where that is larger."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.fd = open_regular(path)
        self.size = os.fstat(self.fd).st_size
        self._buffer = memoryview(bytearray(min(WINDOW_BYTES, max(self.size, 1))))
        self._start = self._end = 0

    def close(self) -> None:
        os.close(self.fd)

    def forget(self) -> None:
        """The next look reads the file again."""
        self._start = self._end = 0

    def view(self, position: int, least: int) -> memoryview:
        """The bytes from `position` on, at least `least` of them unless the file ends before.

        Valid until the next call. Cost: a read where the window does not hold them yet.
        """
        if position < self._start or position + least > self._end:
            self._fill(position, least)
        return self._buffer[position - self._start : self._end - self._start]

    def _fill(self, position: int, least: int) -> None:
        least = min(least, max(0, self.size - position))
        if least > len(self._buffer):
            self._buffer = memoryview(bytearray(least))
        filled = 0
        wanted = min(len(self._buffer), max(0, self.size - position))
        while filled < wanted:
            got = os.preadv(self.fd, [self._buffer[filled:wanted]], position + filled)
            if got == 0:    # cut meanwhile: its owner trimmed it, or it was damaged
                self.size = position + filled
                break
            filled += got
        self._start, self._end = position, position + filled

    def is_zero(self, position: int) -> bool:
        """Whether nothing but zeros follows."""
        while position < self.size:
            view = self.view(position, 1)
            if not len(view):
                break
            if numpy.frombuffer(view, numpy.uint8).any():
                return False
            position += len(view)
        return True


class Walker:
    """Steps from batch to batch of one segment file.

    position: of the next batch. batch_bytes_max: no batch is larger, which bounds the memory that
    a hostile length can ask for. search_bytes_left: how much `resync` may still look at.
    """

    def __init__(self, window: Window, batch_bytes_max: int = 1 << 30) -> None:
        self.window = window
        self.position = 0
        self.batch_bytes_max = batch_bytes_max
        self.search_bytes_left = 4 * window.size + WINDOW_BYTES

    def step(self) -> dict[str, Any] | None:
        """The batch at `position` as `examine` says it, and moves behind it when it is whole.

        None at the end of the file. A broken one stays where it is: `resync` goes on from there.
        """
        found = self._look()
        if found is not None and found["fault"]:
            self.window.forget()
            found = self._look()
        if found is not None and not found["fault"]:
            self.position += found["size"]
        return found

    def size_at(self, position: int) -> int:
        """What the header there claims as the size of its batch."""
        view = self.window.view(position, HEADER_BYTES)
        return LENGTH_END + int.from_bytes(view[LENGTH:LENGTH_END], "big")

    def _look(self) -> dict[str, Any] | None:
        view = self.window.view(self.position, HEADER_BYTES)
        if not len(view):
            return None
        if len(view) < HEADER_BYTES:
            return {"fault": "the file ends inside a batch header", "unread": None}
        size = LENGTH_END + int.from_bytes(view[LENGTH:LENGTH_END], "big")
        if size > len(view) and self.position + size <= self.window.size:
            if size > self.batch_bytes_max:
                return {"fault": "the length is over max_message_bytes", "unread": None}
            view = self.window.view(self.position, size)
        return examine(view)

    def resync(self, offset: int) -> bool:
        """Moves behind a broken batch, to the next whole one whose base is at least `offset`.

        False, with the position where it was, when none follows. Cost: a look at every byte, and
        a CRC for each header that could be one, up to four times the file's size in all.
        """
        broken = self.position
        for candidate in self._candidates(broken):
            self.position = candidate
            size = min(self.size_at(candidate), self.batch_bytes_max)
            self.search_bytes_left -= size
            if self.search_bytes_left < 0:
                break
            found = self._look()
            if found and not found["fault"] and found["base_offset"] >= offset:
                return True
        self.position = broken
        return False

    def _candidates(self, broken: int) -> Iterator[int]:
        size = self.size_at(broken) if broken + HEADER_BYTES <= self.window.size else 0
        if HEADER_BYTES < size <= self.window.size - broken - HEADER_BYTES:
            yield broken + size    # most damage leaves the length alone
        position = broken + 1
        while position + HEADER_BYTES <= self.window.size:
            view = self.window.view(position, HEADER_BYTES)
            if len(view) < HEADER_BYTES:
                return
            places = plausible_headers(view)
            length = len(view)
            for place in places:
                yield position + place
            position += length - HEADER_BYTES + 1


def plausible_headers(view: memoryview) -> list[int]:
    """Where in `view` a batch header could start: only what no legal header lacks is asked for."""
    data = numpy.frombuffer(view, numpy.uint8)
    count = len(data) - HEADER_BYTES + 1
    places = numpy.flatnonzero(data[LAYOUT["magic"] :][:count] == 2)
    for name, limit in (("attributes", 1), ("baseOffset", 0x80), ("batchLength", 0x40),
                        ("lastOffsetDelta", 0x80)):
        places = places[data[places + LAYOUT[name]] < limit]
    # Ours never have holes: as many records as offsets.
    delta = sum(data[places + LAYOUT["lastOffsetDelta"] + i].astype(numpy.int64) << 8 * (3 - i)
                for i in range(4))
    records = sum(data[places + LAYOUT["recordsCount"] + i].astype(numpy.int64) << 8 * (3 - i)
                  for i in range(4))
    found: list[int] = places[records == delta + 1].tolist()
    return found


def open_batch(view: memoryview, goal: int) -> tuple[int, int]:
    """(records, bytes) of an open batch at the start of `view`.

    Counts records up to `goal` of them, or to the first that does not parse. An open batch has no
    CRC and no count: that its records parse is all that can be said of them.
    """
    position, count = HEADER_BYTES, 0
    while count < goal:
        end = _open_record(view, position, count)
        if end is None:
            break
        position, count = end, count + 1
    return count, position


def sealed(view: memoryview, count: int) -> bytes:
    """A copy of the open batch at the start of `view`, as if its first `count` records were sealed.

    Its CRC proves nothing: it is taken from the very bytes.
    """
    position, greatest = HEADER_BYTES, 0
    for _ in range(count):
        size, at = _varint(view, position)
        greatest = max(greatest, _varint(view, at + 1)[0])
        position = at + size
    batch = bytearray(view[:position])
    header = raw_header(view)
    for name, size, value in (
        ("batchLength", 4, position - LENGTH_END),
        ("lastOffsetDelta", 4, count - 1),
        ("recordsCount", 4, count),
        ("maxTimestamp", 8, header["baseTimestamp"] + greatest),
    ):
        number = value & (1 << 8 * size) - 1    # a hostile timestamp may be over 64 bits
        batch[LAYOUT[name] : LAYOUT[name] + size] = number.to_bytes(size, "big")
    crc = _native.crc32c(bytes(batch[LAYOUT["attributes"] :]))
    batch[LAYOUT["crc"] : LAYOUT["crc"] + 4] = crc.to_bytes(4, "big")
    return bytes(batch)


def _open_record(view: memoryview, position: int, number: int) -> int | None:
    size, at = _varint(view, position)
    end = at + size
    if size < 6 or end > len(view):
        return None
    _, at = _varint(view, at + 1)    # attributes, then the timestamp
    delta, at = _varint(view, at)
    return end if delta == number and at < end else None


def _varint(view: memoryview, position: int) -> tuple[int, int]:
    """A zigzag varint and the position after it; (-1, position) when it is cut off or too long."""
    value = 0
    for i in range(10):
        if position + i >= len(view):
            break
        byte = view[position + i]
        value |= (byte & 0x7F) << 7 * i
        if byte < 0x80:
            return (value >> 1) ^ -(value & 1), position + i + 1
    return -1, position
