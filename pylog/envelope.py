"""Records as lines of text and back: what `pylog read` writes and `pylog append` takes.

    plain    the value as it is; null is an empty line
    keyed    key, separator, value; a null key comes out as the value alone, and does not go in
    JSON     {"offset": 7, "timestamp": 1700000000000, "key": "k", "value": "v", "headers": []}

Only JSON brings every record through unchanged. Text that is not UTF-8 stands in base64 under
another name: key_b64, value_b64, headers_b64. headers is a list of [name, value], as a name may
come twice. timestamp is in ms since the epoch; topic and partition are there where a record has
them. Coming in, `value` (or value_b64) must be there, and topic, partition and offset are let pass:
the log gives the offset.
"""

import json
import time
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from pylog._native import Record

Headers = list[tuple[str, bytes | None]]
Home = tuple[str | None, int | None]    # topic and partition that a record bears

NAMES = ("topic", "partition", "offset", "timestamp", "key", "value", "headers",
         "key_b64", "value_b64", "headers_b64")

TIMESTAMP_MAX = 253_402_300_799_999    # the year 9999, as the log has it

quote: Callable[[Any], str] = json.JSONEncoder(ensure_ascii=False).encode


@dataclass(slots=True)
class Columns:
    """Records as `append_many` takes them; a None column is the default of all."""

    values: list[bytes | None] = field(default_factory=list)
    keys: list[bytes | None] | None = None
    headers: list[Headers] | None = None
    timestamps: list[int] | None = None
    homes: list[Home] | None = None

    def __len__(self) -> int:
        return len(self.values)

    def head(self, count: int) -> "Columns":
        """The first `count` of them."""
        return self.part(0, count)

    def part(self, start: int, end: int) -> "Columns":
        """Those from `start` on, before `end`."""
        return Columns(
            self.values[start:end],
            self.keys and self.keys[start:end],
            self.headers and self.headers[start:end],
            self.timestamps and self.timestamps[start:end],
            self.homes and self.homes[start:end],
        )


class BadLine(ValueError):
    """A line that is no record. columns: the lines before it in the same block."""

    def __init__(self, why: str, columns: Columns | None = None) -> None:
        super().__init__(why)
        self.columns = columns or Columns()


# ---- out ----------------------------------------------------------------------------------------


def plain_lines(values: list[bytes | None]) -> bytes:
    """Each value and a newline."""
    try:
        return b"\n".join(values) + b"\n"    # type: ignore[arg-type]
    except TypeError:    # a null among them
        return b"\n".join([value or b"" for value in values]) + b"\n"


def keyed_lines(records: Iterable[Record], separator: bytes) -> bytes:
    """Key, separator, value; the value alone where the key is null."""
    lines = []
    for record in records:
        key, value = record.key, record.value or b""
        lines.append(value if key is None else key + separator + value)
    return b"\n".join([*lines, b""])


def json_lines(records: Iterable[Record]) -> bytes:
    """One JSON object a line. Cost: about 1 us a record."""
    return "\n".join([*map(to_json, records), ""]).encode()


def to_json(record: Record) -> str:
    """The envelope of one record."""
    home = "" if record.topic is None else (
        f'"topic": {quote(record.topic)}, "partition": {quote(record.partition)}, ')
    return (f'{{{home}"offset": {record.offset}, "timestamp": {record.timestamp}, '
            f'{text_field("key", record.key)}, {text_field("value", record.value)}, '
            f'{_headers_field(record.headers)}}}')


def text_field(name: str, data: bytes | None) -> str:
    """A member of a JSON object: text, or base64 under name_b64 where it is not UTF-8."""
    if data is None:
        return f'"{name}": null'
    try:
        return f'"{name}": {quote(data.decode())}'
    except UnicodeDecodeError:
        return f'"{name}_b64": "{b64encode(data).decode()}"'


def _headers_field(headers: tuple[tuple[str, bytes | None], ...]) -> str:
    if not headers:
        return '"headers": []'
    try:
        texts = [[name, None if data is None else data.decode()] for name, data in headers]
        return f'"headers": {quote(texts)}'
    except UnicodeDecodeError:
        texts = [[name, None if data is None else b64encode(data).decode()]
                 for name, data in headers]
        return f'"headers_b64": {quote(texts)}'


# ---- in -----------------------------------------------------------------------------------------


def from_plain(lines: list[bytes]) -> Columns:
    """The line is the value."""
    return Columns(values=list(lines))


def from_keyed(lines: list[bytes], separator: bytes) -> Columns:
    """What stands before the first separator is the key. Raises BadLine where there is none, as
    Kafka's console producer does (parse.key): a null key by mistake would end up anywhere."""
    keys: list[bytes | None] = []
    columns = Columns(keys=keys)
    for line in lines:
        key, found, value = line.partition(separator)
        if not found:
            raise BadLine(f"it has no {separator.decode(errors='backslashreplace')!r} between key "
                          "and value (null keys go in with --json)", columns)
        keys.append(key)
        columns.values.append(value)
    return columns


def from_json(lines: list[bytes]) -> Columns:
    """The envelope; records without a timestamp get the time of now. Raises BadLine."""
    return _from_json(lines, None)


def from_json_with_homes(lines: list[bytes]) -> Columns:
    """The envelope, and in `homes` which topic and partition each record is of. Raises BadLine."""
    return _from_json(lines, [])


def _from_json(lines: list[bytes], homes: list[Home] | None) -> Columns:
    keys: list[bytes | None] = []
    headers: list[Headers] = []
    stamps: list[int] = []
    columns = Columns(keys=keys, headers=headers, timestamps=stamps, homes=homes)
    now = time.time_ns() // 1_000_000
    for line in lines:
        try:
            given = json.loads(line.decode())
            key, value, heads, stamp = _record_of(given, now)
            if homes is not None:
                homes.append(home_of(given.get("topic"), given.get("partition")))
        except (ValueError, RecursionError) as error:
            raise BadLine(_reason(error), columns) from None
        columns.values.append(value)
        keys.append(key)
        headers.append(heads)
        stamps.append(stamp)
    if not any(headers):
        columns.headers = None
    return columns


def home_of(topic: Any, partition: Any) -> Home:
    """Both, checked for their types. Raises ValueError."""
    if not (topic is None or isinstance(topic, str)):
        raise ValueError(f'"topic" must be text, not {quote(topic)[:40]}')
    if not (partition is None or (type(partition) is int and 0 <= partition < 1 << 31)):
        raise ValueError(f'"partition" must be a number from 0 on, not {quote(partition)[:40]}')
    return topic, partition


def _reason(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"this is not JSON ({error.msg} at column {error.colno})"
    if isinstance(error, UnicodeDecodeError):
        return "this is not UTF-8, so not JSON"
    return str(error)


def _record_of(envelope: Any, now: int) -> tuple[bytes | None, bytes | None, Headers, int]:
    if not isinstance(envelope, dict):
        raise ValueError("this is JSON, but no object with a \"value\"")
    for name in envelope:
        if name not in NAMES:
            raise ValueError(f"{quote(name)} is no name that a record has: {', '.join(NAMES)}")
    if "value" not in envelope and "value_b64" not in envelope:
        raise ValueError('it has neither "value" nor "value_b64" (null is a value)')
    stamp = envelope.get("timestamp")
    if stamp is None or stamp == -1:    # -1 is how Kafka's batches say that there is none
        stamp = now
    if type(stamp) is not int or not 0 <= stamp <= TIMESTAMP_MAX:
        raise ValueError(f'"timestamp" must be a whole number in [0, {TIMESTAMP_MAX}]: ms since '
                         "the epoch")
    return _field(envelope, "key"), _field(envelope, "value"), _headers(envelope), stamp


def _field(envelope: dict[str, Any], name: str) -> bytes | None:
    if f"{name}_b64" not in envelope:
        return _encode(name, envelope.get(name))
    if envelope.get(name) is not None:
        raise ValueError(f'it has both "{name}" and "{name}_b64"')
    return _decode_b64(f"{name}_b64", envelope[f"{name}_b64"])


def _headers(envelope: dict[str, Any]) -> Headers:
    is_b64 = "headers_b64" in envelope
    name = "headers_b64" if is_b64 else "headers"
    if is_b64 and envelope.get("headers"):
        raise ValueError('it has both "headers" and "headers_b64"')
    convert = _decode_b64 if is_b64 else _encode
    pairs = envelope.get(name) or []
    if not isinstance(pairs, list) or not all(
            isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], str)
            for pair in pairs):
        raise ValueError(f'"{name}" must be a list of [name, value]')
    for head, _ in pairs:
        _encode(name, head)
    return [(head, convert(name, text)) for head, text in pairs]


def _encode(name: str, text: Any) -> bytes | None:
    if text is None:
        return None
    if not isinstance(text, str):
        raise ValueError(f'"{name}" must be text or null, not {quote(text)[:40]}; JSON inside '
                         "JSON is text too")
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise ValueError(f'"{name}" has half of a surrogate pair, which UTF-8 cannot hold; '
                         f'use "{name}_b64"') from None


def _decode_b64(name: str, text: Any) -> bytes | None:
    if text is None:
        return None
    try:
        return b64decode(text, validate=True)
    except (ValueError, TypeError):
        raise ValueError(f'"{name}" is not base64') from None
