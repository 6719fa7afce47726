"""Byte streams into logs, line by line, and the records of a log out again, chunk by chunk.

Both ways in large pieces while there is much, and at once while there is little: what stands in a
pipe is appended before more is waited for, and what was read is written before the log is.
"""

import itertools
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from pylog import _native
from pylog._native import Chunk, Record
from pylog.envelope import BadLine, Columns
from pylog.errors import CorruptRecordError, MessageSizeTooLargeError
from pylog.log import Log, Start

BLOCK_BYTES = 1 << 20
ROWS_MAX = 4096
MESSAGE_BYTES_MAX = 1_048_588    # of a new log
UNLIMITED = 1 << 62
LOOK_SECONDS_MAX = 8.0    # at first a second

Rows = Chunk | list[Record]


def line_blocks(stream: BinaryIO, line_bytes_max: int) -> Iterator[list[bytes]]:
    """The whole lines of one read at a time, newlines stripped; the last may lack its newline.

    Memory: a block and a line. Raises BadLine for a longer line than line_bytes_max, without
    waiting for its end.
    """
    pending: list[bytes] = []
    size = 0
    while data := stream.read1(BLOCK_BYTES):    # type: ignore[attr-defined]
        lines = data.split(b"\n")
        rest = lines.pop()
        if lines:
            lines[0] = b"".join([*pending, lines[0]])
            pending, size = [], 0
            yield lines
        pending.append(rest)
        size += len(rest)
        if size > line_bytes_max:
            raise BadLine(f"it has over {line_bytes_max} bytes, and no record may be so large")
    if size:
        yield [b"".join(pending)]


class Intake:
    """Takes the lines of streams as records; where they go is the business of those below.

    That is opened by the first record that may go in, so that a bad first line makes nothing.
    count: of the records that are in; on_count is told of it. in_flight: records of which an
    interrupt or an error left open whether they are in.
    """

    def __init__(self, parse: Callable[[list[bytes]], Columns], is_json: bool = False) -> None:
        self.parse = parse
        self.is_json = is_json
        self.is_open = False
        self.message_bytes_max = MESSAGE_BYTES_MAX
        self.count = self.in_flight = 0
        self.on_count: Callable[[int], None] | None = None

    def open(self) -> None:
        """At the first call opens, or makes; sets message_bytes_max."""
        raise NotImplementedError

    def append(self, columns: Columns) -> None:
        """All of them; after an error `appended` of it, if there is one, are in."""
        raise NotImplementedError

    @property
    def line_bytes_max(self) -> int:
        """In JSON a byte takes up to six, as in "\\u0000", and there are names beside."""
        return self.message_bytes_max * (8 if self.is_json else 1) + BLOCK_BYTES

    def take_all(self, names: tuple[str, ...]) -> None:
        """Files, and stdin where the name is "-"."""
        for name in names:
            if name == "-":
                self.take(sys.stdin.buffer, "stdin")
                continue
            with open(name, "rb") as stream:
                self.take(stream, name)

    def take(self, stream: BinaryIO, name: str) -> None:
        """All of `stream`. Raises BadLine, with every line before the bad one appended."""
        before = self.count
        try:
            for lines in line_blocks(stream, self.line_bytes_max):
                self._append_block(lines)
        except BadLine as bad:
            number = self.count - before + 1
            raise BadLine(f"{name}, line {number}: {bad}; the lines before it are appended, this "
                          "one and what follows are not") from None

    def _append_block(self, lines: list[bytes]) -> None:
        bad = None
        try:
            columns = self.parse(lines)
        except BadLine as error:
            bad, columns = error, error.columns
        try:
            self._append(columns)
        except MessageSizeTooLargeError as error:
            at = error.index or 0
            self._append(columns.head(at))
            raise too_large(columns.values[at], self.message_bytes_max) from None
        if bad:
            raise bad

    def _append(self, columns: Columns) -> None:
        if not columns.values:
            return
        if not self.is_open and _is_too_large(columns.head(1), self.message_bytes_max):
            raise MessageSizeTooLargeError("the first record is too large for a log", index=0)
        self.open()
        self.in_flight = len(columns)
        try:
            self.append(columns)
        except Exception as error:
            self.count, self.in_flight = self.count + (getattr(error, "appended", None) or 0), 0
            raise
        self.count, self.in_flight = self.count + len(columns), 0
        if self.on_count is not None:
            self.on_count(self.count)


def too_large(value: bytes | None, message_bytes_max: int) -> BadLine:
    return BadLine(f"its value of {len(value or b'')} bytes, with key and headers, is over the "
                   f"log's max_message_bytes ({message_bytes_max}); `pylog topic alter TOPIC -c "
                   "max.message.bytes=N` raises that of a topic")


class LogIntake(Intake):
    """Into one log. first: the offset of the first record. log: None until it is opened."""

    def __init__(self, open_log: Callable[[], Log], parse: Callable[[list[bytes]], Columns], *,
                 is_json: bool = False, is_compressed: bool = False) -> None:
        super().__init__(parse, is_json)
        self.open_log, self.is_compressed = open_log, is_compressed
        self.log: Log | None = None
        self.first: int | None = None

    def open(self) -> None:
        self.opened()

    def opened(self) -> Log:
        """The log, at the first call opened, or made."""
        if self.log is None:
            self.log = self.open_log()
            self.message_bytes_max = self.log.stats()["options"]["max_message_bytes"]
            self.is_open = True
        return self.log

    def close(self) -> None:
        if self.log is not None:
            self.log.close()

    def append(self, columns: Columns) -> None:
        first = self._append_columns(self.opened(), columns)
        if self.first is None:
            self.first = first

    def _append_columns(self, log: Log, columns: Columns) -> int:
        keys, headers, stamps = columns.keys, columns.headers, columns.timestamps
        if len(columns) > 1 or self.is_compressed:
            return log.append_many(columns.values, keys, headers, stamps)
        return log.append(    # into the open batch, which takes less than one of its own
            columns.values[0],
            keys[0] if keys else None,
            headers[0] if headers else None,
            stamps[0] if stamps else None,
        )


def _is_too_large(record: Columns, message_bytes_max: int) -> bool:
    """Whether no batch of a log with this limit may hold the one record."""
    batch = _native.encode_batch(record.values, record.keys, record.headers, record.timestamps)
    return len(batch) > message_bytes_max


class Outlet:
    """Walks a log from `start` to `stop` or the end, or follows it, in chunks of about a MiB.

    skips_corrupt: damaged batches are stepped over, and counted in `skipped`.
    """

    def __init__(self, path: Path, start: Start, stop: Start | None = None, *,
                 count_max: int | None = None, follow: bool = False,
                 skips_corrupt: bool = False) -> None:
        self.path, self.follow = path, follow
        self.skips_corrupt, self.skipped = skips_corrupt, 0
        self._look_seconds = 1.0
        self._open()
        self.offset = self.log.resolve(start)
        self.left = UNLIMITED if count_max is None else count_max
        self.end = UNLIMITED if follow else self.log.readable_offset
        if stop is not None:
            self.end = min(self.end, self.log.resolve(stop))

    def _open(self) -> None:
        self._page = self._page_identity()
        self.log = Log(self.path, mode="r")
        self._cursor = self.log.cursor()

    def close(self) -> None:
        self.log.close()

    def chunks(self, before_wait: Callable[[], object]) -> Iterator[Rows]:
        """Yields them; calls `before_wait` when there is nothing more to read for now."""
        self._check_start()
        while self.left > 0 and self.offset < self.end:
            before = self.offset
            rows = self._fetch(min(self.left, self.end - self.offset))
            if len(rows):
                self.left -= len(rows)
                yield rows
            elif self.offset == before:
                if not self.follow:
                    return
                before_wait()
                self._wait()

    def _check_start(self) -> None:
        """An offset that is not there is told, also where nothing would be read from it."""
        self._cursor.seek(self.offset)
        try:
            self._cursor.fetch(1, 1)
        except CorruptRecordError:
            if not self.skips_corrupt:
                raise

    def _fetch(self, count_max: int) -> Rows:
        """The next records, maybe none; moves `offset` behind them."""
        if self.skips_corrupt:
            return self._fetch_whole(count_max)
        self._cursor.seek(self.offset)
        chunk = self._cursor.fetch(count_max)
        self.offset = chunk.next_offset
        if self.offset > self.end:    # offsets were missing among them
            return [record for record in chunk if record.offset < self.end]
        return chunk

    def _fetch_whole(self, count_max: int) -> list[Record]:
        """As _fetch, and steps over damage; one by one, so that it meets damage of any kind."""
        end = min(self.log.readable_offset, self.end)
        cursor = self.log.read(self.offset, end, on_corruption="skip")
        rows = list(itertools.islice(cursor, min(count_max, ROWS_MAX)))
        self.offset = cursor.offset if rows else max(self.offset, end)
        self.skipped += cursor.skipped
        return rows

    def _wait(self) -> None:
        if self.log.wait(self.offset, self._look_seconds):
            return
        self._look_seconds = min(2 * self._look_seconds, LOOK_SECONDS_MAX)
        # After a reboot or a copy we read on our own, until a writer makes the shared page anew.
        if self._page_identity() != self._page:
            self.log.close()
            self._open()

    def _page_identity(self) -> tuple[int, int] | None:
        try:
            info = os.stat(self.path / "control")
        except OSError:
            return None
        return info.st_dev, info.st_ino
