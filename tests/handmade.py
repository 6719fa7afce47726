"""Kafka batches made and read by hand, from the format's text and not with pylog's code.

The maker lets every field be wrong; the reader accepts exactly what docs/format.md allows. A test
that compares pylog with them compares two readings of one specification.
"""

import struct
from pathlib import Path
from typing import NamedTuple

from aiokafka.record._crc32c import crc as crc32c

GOLDEN = Path(__file__).parent / "golden"
HEADER = struct.Struct(">qiibIhiqqqhii")
CODEC, APPEND_TIME, TRANSACTIONAL, CONTROL = 0x07, 0x08, 0x10, 0x20
NOW = 1_700_000_000_000


class Bad(Exception):
    """The bytes are not what the format says."""


class Plain(NamedTuple):
    """A record's fields, as a model or another decoder has them."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple = ()


def plain(record):
    """The fields of a record of pylog, all of them decoded."""
    return Plain(record.offset, record.timestamp, record.key, record.value, record.headers)


def golden(name):
    (path,) = GOLDEN.glob(f"{name}*.hex")
    return bytes.fromhex(path.read_text())


# ---- making ------------------------------------------------------------------------------------


def varint(value, size=0):
    """Zigzag, with needless continuation bytes up to `size` of them."""
    rest = (value << 1) ^ (value >> 63) if value < 0 else value << 1
    out = bytearray()
    while rest >= 0x80 or len(out) + 1 < size:
        out.append(rest & 0x7F | 0x80)
        rest >>= 7
    return bytes(out) + bytes([rest])


def sized(data):
    return varint(-1) if data is None else varint(len(data)) + data


def make_record(value=b"v", key=b"k", headers=(), offset_delta=0, timestamp_delta=0, size=None,
                header_count=None, tail=b""):
    """One record; `size`, `header_count` and `tail` make it a liar."""
    count = len(headers) if header_count is None else header_count
    body = b"\0" + varint(timestamp_delta) + varint(offset_delta) + sized(key) + sized(value)
    body += varint(count) + b"".join(sized(name) + sized(data) for name, data in headers) + tail
    return varint(len(body) if size is None else size) + body


def make_batch(payload, count=1, base_offset=0, length=None, epoch=0, magic=2, crc=None,
               attributes=0, last_delta=None, base_timestamp=NOW, max_timestamp=NOW,
               producer=(-1, -1, -1)):
    """A batch around `payload`, with a right CRC unless one is given."""
    last_delta = count - 1 if last_delta is None else last_delta
    rest = struct.pack(">HiqqqhiI", attributes, last_delta, base_timestamp, max_timestamp,
                       *producer, count & 0xFFFFFFFF) + payload
    length = len(rest) + 9 if length is None else length
    crc = crc32c(rest) if crc is None else crc
    return struct.pack(">qIibI", base_offset, length & 0xFFFFFFFF, epoch, magic, crc) + rest


def with_crc(batch):
    """The same bytes with the CRC that belongs to them."""
    return batch[:17] + struct.pack(">I", crc32c(batch[21:])) + batch[21:]


# ---- reading -----------------------------------------------------------------------------------


class Reader:
    """Takes a record's fields off some bytes; Bad when they do not hold what they say."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, size):
        if size < 0 or self.at + size > len(self.data):
            raise Bad("a size leads outside")
        self.at += size
        return self.data[self.at - size:self.at]

    def varint(self, bits=32):
        value = 0
        for index in range(10 if bits == 64 else 5):
            (byte,) = self.take(1)
            value |= (byte & 0x7F) << (7 * index)
            if byte < 0x80:
                if value >> bits:
                    raise Bad("a varint is too great")
                return (value >> 1) ^ -(value & 1)
        raise Bad("a varint is too long")

    def sized(self):
        size = self.varint()
        return None if size == -1 else self.take(size)


def wrapped(number):
    """As 64 bits hold it: Kafka's Java adds a hostile delta the same way."""
    return (number + 2**63) % 2**64 - 2**63


def read_record(data):
    """(offset delta, timestamp delta, key, value, headers) of one record's bytes, all used up."""
    reader = Reader(data)
    reader.take(1)
    timestamp_delta, offset_delta = reader.varint(64), reader.varint()
    key, value, count = reader.sized(), reader.sized(), reader.varint()
    if count < 0:
        raise Bad("a negative count of headers")
    headers = []
    while len(headers) < count:
        name = reader.take(reader.varint())
        headers.append((name.decode("utf-8", "replace"), reader.sized()))
    if reader.at != len(data):
        raise Bad("bytes after a record's headers")
    return offset_delta, timestamp_delta, key, value, tuple(headers)


def read_batch(batch, decompress=None):
    """The records of one whole batch, whose CRC is taken for right; Bad if anything is wrong."""
    (base, _, _, _, _, attributes, last_delta, base_timestamp, max_timestamp, _, _, _,
     count) = HEADER.unpack_from(batch)
    payload = batch[HEADER.size:]
    if attributes & CODEC:
        payload = decompress(payload)
    reader, out, previous = Reader(payload), [], -1
    for _ in range(count):
        delta, time, key, value, headers = read_record(reader.take(reader.varint()))
        if not previous < delta <= last_delta:
            raise Bad("an offset out of order")
        previous = delta
        time = max_timestamp if attributes & APPEND_TIME else wrapped(base_timestamp + time)
        out.append(Plain(base + delta, time, key, value, headers))
    if reader.at != len(payload):
        raise Bad("bytes after the last record")
    return out
