"""Text of records by a pattern, in the words of kcat's -f: '%t %p %o %k %s\\n'."""

import re
from collections.abc import Callable
from functools import partial

from pylog._native import Record

TOKENS: dict[str, Callable[[Record], bytes]] = {
    "t": lambda record: (record.topic or "").encode(),
    "p": lambda record: b"" if record.partition is None else b"%d" % record.partition,
    "o": lambda record: b"%d" % record.offset,
    "k": lambda record: record.key or b"",
    "s": lambda record: record.value or b"",
    "T": lambda record: b"%d" % record.timestamp,
    "K": lambda record: b"%d" % (-1 if record.key is None else len(record.key)),
    "S": lambda record: b"%d" % (-1 if record.value is None else len(record.value)),
    "h": lambda record: b",".join(
        name.encode() + b"=" + (b"NULL" if value is None else value)
        for name, value in record.headers),
}
MEANINGS = ("%t topic, %p partition, %o offset, %k key, %s value, %T timestamp (ms), %h headers, "
            "%K and %S sizes of key and value (-1: null), %% a percent sign; \\n \\t \\r \\0 \\xHH")
ESCAPES = {"n": b"\n", "t": b"\t", "r": b"\r", "0": b"\0", "\\": b"\\"}

Part = bytes | Callable[[Record], bytes]
PIECE = re.compile(r"%(.?)|\\(x[0-9a-fA-F]{2}|.?)|([^%\\]+)", re.DOTALL)


def make_format(pattern: str) -> Callable[[Record], bytes]:
    """A function that makes a record's text. Raises ValueError, which says what there is.

    Cost: a call a token.
    """
    return partial(_text, [_part(*found.groups()) for found in PIECE.finditer(pattern)])


def _text(parts: list[Part], record: Record) -> bytes:
    return b"".join([part if isinstance(part, bytes) else part(record) for part in parts])


def _part(token: str | None, escape: str | None, plain: str | None) -> Part:
    if plain is not None:
        return plain.encode(errors="surrogateescape")
    if token == "%":
        return b"%"
    if token is not None and token in TOKENS:
        return TOKENS[token]
    if escape in ESCAPES:
        return ESCAPES[escape]
    if escape and len(escape) == 3:
        return bytes.fromhex(escape[1:])
    wrong = f"%{token}" if token is not None else f"\\{escape}"
    raise ValueError(f"{wrong!r} is unknown in a pattern; there are {MEANINGS}")
