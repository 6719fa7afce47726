"""The two sparse indexes of a segment as bytes: taking them apart, and proving them by its batches.

    .index      {last offset of a batch - base, int32 | position of that batch, int32}
    .timeindex  {greatest timestamp so far, int64     | last offset of its batch - base, int32}

Both are caches: a reader checks an answer against the log and builds its own when it is wrong. An
entry is true when the batch it names is there with that last offset, and for a time entry when
that batch brought the greatest timestamp so far (what Kafka's DumpLogSegments asks for). As both
are written by Kafka's rule from the log alone (LogSegment.append), we also know the very bytes.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

OFFSET_ENTRY = struct.Struct(">iI")
TIME_ENTRY = struct.Struct(">qi")
ENTRIES = {".index": OFFSET_ENTRY, ".timeindex": TIME_ENTRY}


@dataclass(frozen=True, slots=True)
class IndexFault:
    """What is wrong at byte `position` of the index with this `suffix`; offset: that it names."""

    suffix: str
    position: int
    offset: int | None
    what: str
    is_harmless: bool = False


@dataclass(slots=True)
class IndexCheck:
    """Fed every batch of a segment in order, then asked for the faults of its index files."""

    base_offset: int
    interval_bytes: int
    offset_bytes: bytes | None    # None: there is no such file
    time_bytes: bytes | None
    _named: set[int] = field(default_factory=set)          # positions that .index names
    _timed: set[int] = field(default_factory=set)          # relative offsets that .timeindex names
    _last_offsets: dict[int, int] = field(default_factory=dict)
    _times: dict[int, tuple[int, int]] = field(default_factory=dict)
    _rebuilt_offsets: bytearray = field(default_factory=bytearray)
    _rebuilt_times: bytearray = field(default_factory=bytearray)
    _bytes_since: int = 0
    _max_timestamp: int = -1
    _max_offset: int = 0
    _indexed_timestamp: int = -1
    _is_whole: bool = True

    def __post_init__(self) -> None:
        self._named = {position for _, position in entries(OFFSET_ENTRY, self.offset_bytes)}
        self._timed = {offset for _, offset in entries(TIME_ENTRY, self.time_bytes)}

    def add(self, position: int, batch: dict[str, Any]) -> None:
        """Counts one more batch, at `position`; the rule is Kafka's LogSegment.append."""
        relative = batch["last_offset"] - self.base_offset
        timestamp = batch["max_timestamp"]
        if timestamp > self._max_timestamp:
            self._max_timestamp, self._max_offset = timestamp, relative
        if position in self._named:
            self._last_offsets[position] = relative
        if relative in self._timed:
            self._times[relative] = (timestamp, self._max_timestamp)
        if self._bytes_since > self.interval_bytes:
            self._rebuilt_offsets += OFFSET_ENTRY.pack(relative & 0x7FFFFFFF, position & 0xFFFFFFFF)
            self._add_time()
            self._bytes_since = 0
        self._bytes_since += batch["size"]

    def _add_time(self) -> None:
        if self._max_timestamp > self._indexed_timestamp:
            relative = self._max_offset & 0x7FFFFFFF
            self._rebuilt_times += TIME_ENTRY.pack(self._max_timestamp, relative)
            self._indexed_timestamp = self._max_timestamp

    def faults(self, is_final: bool, is_whole: bool) -> Iterator[IndexFault]:
        """is_final: the segment gets no more batches, so the indexes must be what a rebuild gives.

        Only then a missing entry is told, as harmless: a look-up walks further, and is right.
        is_whole: no batch of the segment is broken. Where one is, an entry that names what was
        not seen may be true, and is let pass.
        """
        self._is_whole = is_whole
        self._add_time()
        for suffix, data, rebuilt, prove in (
            (".index", self.offset_bytes, bytes(self._rebuilt_offsets), self._prove_offset),
            (".timeindex", self.time_bytes, bytes(self._rebuilt_times), self._prove_time),
        ):
            if data is None:
                continue
            found = list(self._prove(suffix, data, prove))
            yield from found
            if is_final and is_whole and not found and data != rebuilt:
                yield IndexFault(
                    suffix, first_difference(data, rebuilt), None,
                    f"the {len(data)} bytes are true, but not the {len(rebuilt)} that a rebuild "
                    "gives; look-ups are slower and still right", is_harmless=True)

    def _prove(self, suffix: str, data: bytes, prove: Any) -> Iterator[IndexFault]:
        entry = ENTRIES[suffix]
        before: tuple[int, int] | None = None
        for number, now in enumerate(entries(entry, data)):
            position = number * entry.size
            what = prove(before, *now)
            if what and now == (0, 0) and not any(data[position:]):
                yield IndexFault(suffix, position, None, "zeros follow the last entry: a "
                                 "preallocated tail, as Kafka's live indexes have",
                                 is_harmless=True)
                return
            if what:
                relative = now[0] if suffix == ".index" else now[1]
                yield IndexFault(suffix, position, self.base_offset + relative, what)
            before = now
        if len(data) % entry.size:
            yield IndexFault(suffix, len(data) - len(data) % entry.size, None,
                             f"{len(data) % entry.size} bytes follow the last whole entry")

    def _prove_offset(self, before: tuple[int, int] | None, relative: int, position: int) -> str:
        if before and (relative <= before[0] or position <= before[1]):
            return "the entry does not come after the one before it"
        there = self._last_offsets.get(position)
        if there is None:
            return f"the entry names byte {position}, where no batch begins" * self._is_whole
        if there != relative:
            return (f"the entry says offset {self.base_offset + relative}, and the batch at byte "
                    f"{position} ends at {self.base_offset + there}")
        return ""

    def _prove_time(self, before: tuple[int, int] | None, timestamp: int, relative: int) -> str:
        if before and (timestamp <= before[0] or relative <= before[1]):
            return "the entry does not come after the one before it"
        if relative not in self._times:
            what = f"the entry names offset {self.base_offset + relative}, where no batch ends"
            return what * self._is_whole
        own, greatest = self._times[relative]
        if own != timestamp or (greatest != timestamp and self._is_whole):
            return (f"the entry says timestamp {timestamp}, and the batch that ends at offset "
                    f"{self.base_offset + relative} brings {own}, the greatest so far {greatest}")
        return ""


def entries(entry: struct.Struct, data: bytes | None) -> Iterator[tuple[int, int]]:
    """The whole entries of an index file; none when there is no file."""
    whole = data or b""
    return entry.iter_unpack(whole[: len(whole) - len(whole) % entry.size])


def first_difference(first: bytes, second: bytes) -> int:
    """Where two unequal strings of bytes differ first."""
    pairs = enumerate(zip(first, second, strict=False))
    return next((at for at, (a, b) in pairs if a != b), min(len(first), len(second)))
