"""The byte editor of --plant: a log's files read, changed and written by the text of the format.

It shares no code with encoder, decoder, checker or check(): what one of them has wrong must not be
wrong here the same way. It knows docs/format.md and nothing else, imports nothing of pylog, and is
slow. A log is held as segments of batches; only batches that are opened are parsed, and a batch
that is not touched is written back as it was.
"""

import itertools
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import lz4.frame

HEADER = struct.Struct(">qiibIhiqqqhii")
STAMP = struct.Struct(">IIQIHHQIHHQ")
STAMP_MAGIC = 0x706C5354
CRC_START = 21
CODEC_BITS, LZ4 = 7, 3


def crc_table() -> list[int]:
    """CRC-32C (Castagnoli, reflected), for one byte at a time."""
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return table


TABLE = crc_table()


def crc32c(data: bytes) -> int:
    """Of some bytes. Cost: 60 ns a byte."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = TABLE[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


def varint(number: int) -> bytes:
    """Zigzag, low seven bits first."""
    rest = number << 1 if number >= 0 else (-number << 1) - 1
    out = bytearray()
    while rest > 0x7F:
        out.append(rest & 0x7F | 0x80)
        rest >>= 7
    return bytes([*out, rest])


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    """The number, and where the next byte is."""
    number = shift = 0
    while True:
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return number >> 1 ^ -(number & 1), at


def sized(data: bytes | None) -> bytes:
    """With its length before it; None is -1."""
    return varint(-1) if data is None else varint(len(data)) + data


@dataclass(frozen=True, slots=True)
class Stamp:
    """What a record says of itself, CRC and magic left out."""

    run: int
    producer: int
    incarnation: int
    flags: int
    sequence: int
    transaction: int
    index: int
    count: int
    sent: int

    def to_bytes(self, rest: bytes) -> bytes:
        """The 48 bytes, which vouch for `rest`."""
        body = STAMP.pack(STAMP_MAGIC, 0, self.run, self.producer, self.incarnation, self.flags,
                          self.sequence, self.transaction, self.index, self.count, self.sent)[8:]
        return struct.pack(">II", STAMP_MAGIC, crc32c(body + rest)) + body


@dataclass(frozen=True, slots=True)
class Entry:
    """A record as it stands in a batch; `headers`: their bytes, the count before them."""

    attributes: int
    time: int
    delta: int
    key: bytes | None
    value: bytes | None
    headers: bytes

    def to_bytes(self) -> bytes:
        body = bytes([self.attributes]) + varint(self.time) + varint(self.delta)
        body += sized(self.key) + sized(self.value) + self.headers
        return varint(len(body)) + body

    @property
    def is_in_value(self) -> bool:
        """Whether the value has room for the stamp; else the key is it."""
        return self.value is not None and len(self.value) >= STAMP.size

    @property
    def stamp(self) -> Stamp:
        place = self.value if self.is_in_value else self.key
        return Stamp(*STAMP.unpack_from(place or bytes(STAMP.size))[2:])

    def stamped(self, **changes: int) -> "Entry":
        """With other fields in its stamp, and the CRC that belongs to them."""
        stamp = replace(self.stamp, **changes)
        if not self.is_in_value:
            return replace(self, key=stamp.to_bytes(self.value or b""))
        rest = (self.value or b"")[STAMP.size:]
        return replace(self, value=stamp.to_bytes(rest) + rest)


def read_entry(data: bytes, at: int) -> tuple[Entry, int]:
    """The record there, and where the next one is."""
    size, at = read_varint(data, at)
    end = at + size
    time, next_at = read_varint(data, at + 1)
    delta, next_at = read_varint(data, next_at)
    both: list[bytes | None] = []
    for _ in range(2):
        length, next_at = read_varint(data, next_at)
        both.append(None if length < 0 else data[next_at:next_at + length])
        next_at += max(0, length)
    return Entry(data[at], time, delta, both[0], both[1], data[next_at:end]), end


@dataclass(slots=True, eq=False)
class Batch:
    """A batch: the fields of its header, and its records as bytes."""

    base: int
    epoch: int
    magic: int
    crc: int
    attributes: int
    last_delta: int
    first_time: int
    max_time: int
    producer: tuple[int, int, int]
    count: int
    payload: bytes
    file: Path = Path()
    position: int = -1

    @property
    def end(self) -> int:
        """The offset after its last."""
        return self.base + self.last_delta + 1

    @property
    def size(self) -> int:
        return HEADER.size + len(self.payload)

    def entries(self) -> list[Entry]:
        """Its records, decompressed."""
        data, at = self.payload, 0
        if self.attributes & CODEC_BITS == LZ4:
            data = lz4.frame.decompress(data)
        found = []
        while at < len(data):
            entry, at = read_entry(data, at)
            found.append(entry)
        return found

    def put(self, entries: list[Entry]) -> None:
        """Other records, numbered in the order in which they come; counts, times and CRC follow."""
        numbered = [replace(entry, delta=at) for at, entry in enumerate(entries)]
        self.max_time = self.first_time + max(entry.time for entry in entries)
        self.put_payload(b"".join(entry.to_bytes() for entry in numbered), len(entries))

    def put_payload(self, plain: bytes, count: int) -> None:
        """Records as bytes, compressed if the batch is."""
        if self.attributes & CODEC_BITS == LZ4:
            plain = lz4.frame.compress(plain, block_linked=False)
        self.payload = plain
        self.count = count
        self.last_delta = count - 1
        self.put_crc()

    def put_crc(self) -> None:
        """The CRC that belongs to the fields."""
        self.crc = crc32c(self.to_bytes()[CRC_START:])

    def to_bytes(self) -> bytes:
        return HEADER.pack(self.base, self.size - 12, self.epoch, self.magic, self.crc,
                           self.attributes, self.last_delta, self.first_time, self.max_time,
                           *self.producer, self.count) + self.payload


def read_batches(file: Path) -> list[Batch]:
    """Of a closed log's segment file."""
    data, at, found = file.read_bytes(), 0, []
    while at < len(data):
        (base, length, epoch, magic, crc, attributes, delta, first, greatest, who, who_epoch,
         sequence, count) = HEADER.unpack_from(data, at)
        payload = data[at + HEADER.size:at + 12 + length]
        found.append(Batch(base, epoch, magic, crc, attributes, delta, first, greatest,
                           (who, who_epoch, sequence), count, payload, file, at))
        at += 12 + length
    return found


@dataclass(slots=True)
class Segment:
    """A segment file."""

    base: int
    batches: list[Batch] = field(default_factory=list)

    def name(self, suffix: str) -> str:
        return f"{self.base:020}{suffix}"

    def indexes(self, interval: int) -> tuple[bytes, bytes]:
        """Offset and time index, by the rule of the format."""
        offsets, times = b"", b""
        passed = position = 0
        greatest, last_time = (-1, 0), -1

        def time_entry() -> bytes:
            is_later = greatest[0] > last_time
            return struct.pack(">qi", *greatest) if is_later else b""

        for batch in self.batches:
            last = batch.end - 1 - self.base
            if batch.max_time > greatest[0]:
                greatest = (batch.max_time, last)
            if passed > interval:
                offsets += struct.pack(">ii", last, position)
                times += time_entry()
                last_time = max(last_time, greatest[0])
                passed = 0
            passed += batch.size
            position += batch.size
        return offsets, times + time_entry()


class LogFiles:
    """A closed log's files, held in memory until they are saved."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.segments = [Segment(int(file.stem), read_batches(file))
                         for file in sorted(directory.glob("*.log"))]
        text = (directory / "log.meta").read_text("ascii")
        lines = [line.split(" ", 1) for line in text.splitlines()[:-1]]
        self.meta = {name: value for name, value in lines if name != "epoch"}
        epochs = [value.split() for name, value in lines if name == "epoch"]
        self.epochs = [(int(epoch), int(start)) for epoch, start in epochs]

    def batches(self) -> Iterator[Batch]:
        return itertools.chain.from_iterable(segment.batches for segment in self.segments)

    @property
    def end(self) -> int:
        return int(self.meta["clean_end"])

    def shift(self, batch: Batch, by: int) -> None:
        """Gives other offsets to the batch and all that follows, and to the log's end.

        So offsets join again after a record was put in or taken out before it.
        """
        first = batch.base
        for segment in self.segments:
            if segment.base > first or segment.batches[:1] == [batch]:
                segment.base += by
            for other in segment.batches:
                if other.base >= first:
                    other.base += by
        self.epochs = [(epoch, start + by * (start >= first)) for epoch, start in self.epochs]
        self.meta["clean_end"] = str(self.end + by)

    def following(self, batch: Batch) -> Batch | None:
        """The batch after it."""
        every = iter(self.batches())
        return next((next(every, None) for one in every if one is batch), None)

    def edit(self, batch: Batch, entries: list[Entry]) -> None:
        """Other records in a batch; what follows is numbered on from there."""
        by, after = len(entries) - batch.count, self.following(batch)
        if entries:
            batch.put(entries)
        else:
            self.remove(batch)
        if by and after:
            self.shift(after, by)
        elif by:
            self.meta["clean_end"] = str(self.end + by)

    def remove(self, batch: Batch) -> None:
        """Takes it out of its segment; no offset changes."""
        for segment in self.segments:
            segment.batches = [one for one in segment.batches if one is not batch]

    def save(self) -> None:
        """Writes all files anew: segments, their indexes, log.meta, the epochs for Kafka."""
        for file in self.directory.iterdir():
            if file.suffix in (".log", ".index", ".timeindex"):
                file.unlink()
        interval = int(self.meta["index_interval_bytes"])
        for segment in self.segments:
            file, position = self.directory / segment.name(".log"), 0
            for batch in segment.batches:
                batch.file, batch.position = file, position
                position += batch.size
            file.write_bytes(b"".join(batch.to_bytes() for batch in segment.batches))
            offsets, times = segment.indexes(interval)
            (self.directory / segment.name(".index")).write_bytes(offsets)
            (self.directory / segment.name(".timeindex")).write_bytes(times)
        self.save_meta()

    def save_meta(self) -> None:
        """log.meta with the CRC that belongs to it, and leader-epoch-checkpoint."""
        lines = [f"{name} {value}" for name, value in self.meta.items()]
        lines += [f"epoch {epoch} {start}" for epoch, start in self.epochs]
        text = "\n".join([*lines, ""])
        crc = crc32c(text.encode())
        (self.directory / "log.meta").write_text(f"{text}crc32c {crc:08x}\n")
        epochs = [f"{epoch} {start}" for epoch, start in self.epochs]
        (self.directory / "leader-epoch-checkpoint").write_text(
            "\n".join(["0", str(len(epochs)), *epochs, ""]))


@dataclass(frozen=True, slots=True)
class Account:
    """A producer's ledger file, in the byte order of this machine."""

    producer: int
    run: int
    sent: int
    settled: int
    doubtful: list[tuple[int, int]]
    failed: list[tuple[int, int]]


def read_account(file: Path) -> Account:
    """By the drawing in docs/format.md."""
    data = file.read_bytes()
    (producer, run) = struct.unpack_from("=IQ", data, 12)
    ((sent,), (settled,)) = (struct.unpack_from("=Q", data, at) for at in (64, 128))
    (count,) = struct.unpack_from("=I", data, 256)
    spans = [struct.unpack_from("=QQQ", data, 264 + 24 * at) for at in range(count)]
    return Account(producer, run, sent, settled, [(start, end) for start, end, _ in spans],
                   [(start, end) for start, end, kind in spans if kind == 1])
