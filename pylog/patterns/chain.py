"""Chain: entries of which each has the hash of the one before, and what of them does not fit.

    hash(n) = SHA-256(hash(n - 1), timestamp, key, value, other headers), each with its length

Whoever alters, removes, inserts or swaps entries breaks the chain there, or has to make all hashes
behind it anew. That shows to anybody who knows a later hash: so write a head down elsewhere.
"""

import struct
from collections.abc import Iterable, Iterator
from hashlib import sha256
from typing import NamedTuple

from pylog import CorruptRecordError, DeserializationError, Record
from pylog.patterns.headers import CHAIN_HASH, CHAIN_PREVIOUS

FIRST = bytes(32)    # what the first entry is chained to
NONE = -1            # the length of what is not there
ENTRY, HEADER = struct.Struct("<32sqqq"), struct.Struct("<qq")

Headers = Iterable[tuple[str, bytes | None]]


class Head(NamedTuple):
    """An entry and its hash: with it, all before it is proved. As text, OFFSET:HASH."""

    offset: int
    hash: str

    def __str__(self) -> str:
        return f"{self.offset}:{self.hash}"

    @classmethod
    def of(cls, text: "str | Head") -> "Head":
        """The head that a text is. Raises DeserializationError."""
        offset, _, digest = str(text).partition(":")
        if not (offset.isascii() and offset.isdigit() and len(offset) < 19 and len(digest) == 64
                and set(digest) <= set("0123456789abcdef")):
            raise DeserializationError(f"{str(text)[:80]!r} is no head of a chain: that is an "
                                       "offset, a colon, and 64 hexadecimal digits")
        return cls(int(offset), digest)


class Break(NamedTuple):
    """The first entry that does not fit. offset: its own. message: what is wrong with it.

    kind: "altered", its own hash is another; "displaced", it was chained to another than the one
    before it, so one of the two was altered, inserted or moved, or one between was removed;
    "foreign", it bears no hashes; "unreadable", its bytes are damaged; "cut", the head that was
    known is not there; "rewritten", it has another hash than that head.
    """

    offset: int
    kind: str
    message: str


def link(previous: bytes, timestamp: int, key: bytes | None, value: bytes | None,
         headers: Headers = ()) -> bytes:
    """The hash of an entry, 32 bytes. previous: that of the one before. Each part is with its
    length, so that no two entries come to the same bytes.

        >>> link(FIRST, 0, None, b"").hex()[:8]
        'ba68703d'
    """
    body = ENTRY.pack(previous, timestamp, NONE if key is None else len(key),
                      NONE if value is None else len(value)) + (key or b"") + (value or b"")
    for name, one in headers:
        text = name.encode()
        body += HEADER.pack(len(text), NONE if one is None else len(one)) + text + (one or b"")
    return sha256(body).digest()


def hash_of(record: Record) -> bytes | None:
    """What an entry says its hash is."""
    found: bytes | None = record.header(CHAIN_HASH)
    return found


def walk(records: Iterable[Record], previous: bytes) -> Iterator[Record | Break]:
    """The entries as far as they fit; last, what does not. previous: the hash before the first."""
    offset = -1
    try:
        for record in records:
            offset = record.offset
            if (found := misfit(record, previous)) is not None:
                yield found
                return
            previous = hash_of(record) or b""
            yield record
    except CorruptRecordError as error:
        yield Break(offset + 1 if error.offset is None else error.offset, "unreadable", str(error))


def misfit(record: Record, previous: bytes) -> Break | None:
    """What is wrong with an entry behind one with that hash; None: nothing."""
    offset, headers = record.offset, record.headers
    if [name for name, _ in headers[:2]] != [CHAIN_PREVIOUS, CHAIN_HASH]:
        return Break(offset, "foreign", "it bears no hashes, so it was not recorded here")
    (_, said_previous), (_, said), *others = headers
    made = link(said_previous or b"", record.timestamp, record.key, record.value, others)
    if made != said:
        return Break(offset, "altered", "what it holds has the hash "
                     f"{_short(made)}, and it says {_short(said)}")
    if said_previous != previous:
        return Break(offset, "displaced", f"it was chained to {_short(said_previous)}, and the "
                     f"entry before it is {_short(previous)}")
    return None


def _short(digest: bytes | None) -> str:
    return f"{digest[:6].hex()}..." if digest else "nothing"
