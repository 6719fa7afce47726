"""Chain: entries of which each has the hash of the one before, and what of them does not fit.

    hash(n) = SHA-256(hash(n - 1), timestamp, key, value, other headers), each with its length

Whoever alters, removes, inserts or swaps entries breaks the chain there, or has to make all hashes
behind it anew. That shows to anybody who knows a later hash: so write a head down elsewhere.
"""

import hashlib
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from pylog import CorruptRecordError, DeserializationError, Record
from pylog.patterns.headers import CHAIN_HASH, CHAIN_PREVIOUS

FIRST = b"0" * 64    # what the first entry is chained to

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
    """The hash of an entry, in hexadecimal. previous: that of the one before.

        >>> link(FIRST, 0, None, b"")[:8]
        b'e11826f8'
    """
    body = b"%b %d %d %b %d %b" % (    # each with its length: no two entries come to the same bytes
        previous, timestamp, -1 if key is None else len(key), key or b"",
        -1 if value is None else len(value), value or b"")
    for name, one in headers:
        body += b" %d %b %d %b" % (len(name.encode()), name.encode(),
                                   -1 if one is None else len(one), one or b"")
    return hashlib.sha256(body).hexdigest().encode()


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
                     f"{made[:12].decode()}..., and it says {(said or b'')[:12]!r}...")
    if said_previous != previous:
        return Break(offset, "displaced", f"it was chained to {(said_previous or b'')[:12]!r}..., "
                     f"and the entry before it is {previous[:12].decode()}...")
    return None
