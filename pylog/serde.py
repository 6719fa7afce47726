"""Typed keys and values: what makes bytes of them, what makes them of bytes, the typed record.

Bytes are the native currency; types are asked for. A serializer is named ("str", "json", "bytes"),
or is a callable that takes the value, or an object with a method as kafka-python's have it:

    serialize(topic, headers, value)      deserialize(topic, headers, data)      kafka-python 3
    serialize(topic, value)               deserialize(topic, data)               kafka-python 2

None is passed to none but an object with `takes_none = True`, as schemas are: a record without a
key has none, and a tombstone stays one.
"""

import inspect
import json
import reprlib
from collections.abc import Callable
from types import CoroutineType
from typing import Any

from pylog._native import Record
from pylog.errors import (
    ConfigurationError,
    DeserializationError,
    SerializationError,
    ValidationError,
)
from pylog.options import is_async
from pylog.topic import closest

__all__ = ["Deserialize", "Serialize", "TypedRecord", "make_deserializer", "make_serializer",
           "typed_record"]

# (topic, headers, value) -> bytes or None, and (record) -> value.
Serialize = Callable[[str, Any, Any], Any]
Deserialize = Callable[[Record], Any]


_encode = json.JSONEncoder(    # made once, 1 us; NaN is Python's alone
    ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode


def _to_json(value: Any) -> bytes:
    return _encode(value).encode()


_decode = json.JSONDecoder().decode


def _from_json(data: bytes) -> Any:
    try:
        return _decode(data.decode())    # a third of what `loads` takes for bytes
    except ValueError:
        return json.loads(data)    # in another encoding, or it says what is wrong


def _to_utf8(value: Any) -> bytes:
    if not isinstance(value, str):
        raise TypeError(f"'str' takes str, not {type(value).__name__}")
    return value.encode()


_SERIALIZERS: dict[str, Callable[[Any], bytes]] = {"str": _to_utf8, "json": _to_json}
_DESERIALIZERS: dict[str, Callable[[bytes], Any]] = {"str": bytes.decode, "json": _from_json}


def make_serializer(given: Any, option: str) -> Serialize | None:
    """What turns a key or value into bytes; None: it must be bytes already.

    given: a name, a callable, an object with `serialize`, or None. option: "value_serializer" or
    "key_serializer", what messages call it. What is returned raises SerializationError, with what
    the user's code raised as its cause; a ValidationError of its own it raises with the topic.

    Raises ConfigurationError for an unknown name, TypeError for what is no serializer.

        >>> make_serializer("json", "value_serializer")("orders", None, {"apples": 12})
        b'{"apples":12}'
    """
    function = _taken(given, option, "serialize", _SERIALIZERS)
    if function is None:
        return None
    what = option.partition("_")[0]
    takes_none = getattr(given, "takes_none", False) is True

    def serialize(topic: str, headers: Any, value: Any) -> Any:
        if value is None and not takes_none:
            return None
        try:
            data = _made(function(topic, headers, value))
        except ValidationError as error:
            raise ValidationError(
                f"the {what} for the topic {topic!r} {error}; nothing was appended; send what fits",
                topic=topic, field=what, errors=error.errors) from error.__cause__
        except Exception as error:
            raise SerializationError(
                f"{option}={_name(given)} cannot make bytes of the {what} {reprlib.repr(value)} "
                f"for the topic {topic!r}: {type(error).__name__}: {error}; nothing was appended; "
                "send what it takes, or pass another serializer", topic=topic, field=what,
            ) from error
        if data is None or isinstance(data, bytes | bytearray | memoryview):
            return data
        raise SerializationError(
            f"{option}={_name(given)} returned {type(data).__name__} and not bytes for the {what} "
            f"{reprlib.repr(value)}; nothing was appended; let it return bytes, or None for null",
            topic=topic, field=what)

    return serialize


def make_deserializer(given: Any, option: str) -> Deserialize | None:
    """What turns the key or value of a record into an object; None: it stays bytes.

    Arguments and errors as `make_serializer`'s. What is returned takes a record, and raises
    DeserializationError, which has the place of the record, and the record itself.

        >>> from pylog._native import make_record
        >>> record = make_record("orders", 0, 17, 0, 0, None, b'{"apples":12}', None, 0)
        >>> make_deserializer("json", "value_deserializer")(record)
        {'apples': 12}
    """
    function = _taken(given, option, "deserialize", _DESERIALIZERS)
    if function is None:
        return None
    what = option.partition("_")[0]
    by_name = _DESERIALIZERS.get(given) if isinstance(given, str) else None
    takes_none = getattr(given, "takes_none", False) is True

    def deserialize(record: Record) -> Any:
        data: Any = record.key if what == "key" else record.value
        if data is None and not takes_none:
            return None
        try:
            if by_name is not None:    # which spares it the headers, 1 us
                return by_name(data)
            return _made(function(record.topic, record.headers, data))
        except ValidationError as error:
            raise ValidationError(
                f"the {what} at offset {record.offset} of {record.topic}-{record.partition} "
                f"{error}; seek to {record.offset + 1} to go on behind it", topic=record.topic,
                partition=record.partition, offset=record.offset, field=what, record=record,
                errors=error.errors) from error.__cause__
        except Exception as error:
            raise DeserializationError(
                f"{option}={_name(given)} cannot read the {what} {reprlib.repr(data)} at offset "
                f"{record.offset} of {record.topic}-{record.partition}: {type(error).__name__}: "
                f"{error}; seek to {record.offset + 1} to go on behind it", topic=record.topic,
                partition=record.partition, offset=record.offset, field=what, record=record,
            ) from error

    return deserialize


def _made(found: Any) -> Any:
    if isinstance(found, CoroutineType):
        found.close()    # else Python warns that nobody has awaited it
        raise TypeError("it is async, and nobody would await it")
    return found


def _taken(given: Any, option: str, method: str, named: dict[str, Callable[[Any], Any]]) -> Any:
    """The function (topic, headers, data) behind a name, a callable or an object; None for none."""
    if given is None:
        return None
    if isinstance(given, str):
        return _by_name(given, option, named)
    wanted = f"{option} must be a name, a callable or an object with {method}(topic, headers, data)"
    if hasattr(given, method):
        if isinstance(given, type):
            raise TypeError(f"{wanted}, not a class: pass an instance, {given.__name__}()")
        _refuse_async(getattr(given, method), f"{wanted}, and {method} of {_name(given)}")
        return _by_method(getattr(given, method), option, method)
    if not callable(given):
        raise TypeError(f"{wanted}, not {type(given).__name__}")
    _refuse_async(given, f"{wanted}, and {_name(given)}")
    return lambda topic, headers, data: given(data)


def _refuse_async(function: Any, what: str) -> None:
    if is_async(function):
        raise TypeError(f"{what} is async: nobody would await it; await what it needs beforehand, "
                        "and send or convert what came of it")


def _by_name(name: str, option: str, named: dict[str, Callable[[Any], Any]]) -> Any:
    if name == "bytes":
        return None
    if name not in named:
        known = ["bytes", *named]
        advice = closest(name, known) or f"; use {', '.join(map(repr, known))} or a callable"
        raise ConfigurationError(f"{option}={name!r} is unknown{advice}", option=option, value=name)
    function = named[name]
    return lambda topic, headers, data: function(data)


def _by_method(method: Any, option: str, name: str) -> Any:
    try:
        parameters = inspect.signature(method).parameters.values()
    except (TypeError, ValueError):    # some built-ins do not tell
        return method
    places = [one for one in parameters
              if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)]
    count = len(places)
    needed = sum(one.default is one.empty for one in places)
    if needed <= 3 <= count or any(one.kind is one.VAR_POSITIONAL for one in parameters):
        return method
    if needed <= 2 <= count:
        return lambda topic, headers, data: method(topic, data)
    raise TypeError(f"{option} has a method {name} that takes {count} arguments; it must take "
                    "(topic, headers, data) or (topic, data)")


def _name(given: Any) -> str:
    return repr(given) if isinstance(given, str) \
        else getattr(given, "__qualname__", None) or type(given).__name__


# ---- the typed record ----------------------------------------------------------------------------


class TypedRecord:
    """A record whose key and value are objects; all other attributes are those of `raw`.

    raw: the Record itself, with the bytes. Equal records have equal keys, values and raw records.
    """

    __slots__ = ("key", "raw", "value")
    __match_args__ = ("topic", "partition", "offset", "timestamp", "key", "value")

    def __init__(self, raw: Record, key: Any, value: Any) -> None:
        self.raw = raw
        self.key = key
        self.value = value

    @property
    def topic(self) -> str | None:
        """Name of the topic."""
        return self.raw.topic

    @property
    def partition(self) -> int | None:
        """Number of the partition."""
        return self.raw.partition

    @property
    def offset(self) -> int:
        """The number of the record in its partition."""
        return self.raw.offset

    @property
    def timestamp(self) -> int:
        """ms since the epoch."""
        return self.raw.timestamp

    @property
    def timestamp_type(self) -> int:
        """0: the producer's time; 1: the append's."""
        return self.raw.timestamp_type

    @property
    def headers(self) -> tuple[tuple[str, bytes | None], ...]:
        """((name, value), ...), in order; () for none. The values are bytes."""
        return self.raw.headers

    def header(self, name: str, default: Any = None) -> Any:
        """The value of the last header of this name, bytes or None; `default`: there is none."""
        return self.raw.header(name, default)

    @property
    def leader_epoch(self) -> int:
        """Of the batch: one more after each recovery."""
        return self.raw.leader_epoch

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, TypedRecord):
            return NotImplemented
        return (self.raw, self.key, self.value) == (other.raw, other.key, other.value)

    def __hash__(self) -> int:
        return hash(self.raw)

    def __repr__(self) -> str:
        headers = f", headers={self.headers!r}" if self.headers else ""
        return (f"TypedRecord(topic={self.topic!r}, partition={self.partition}, "
                f"offset={self.offset}, timestamp={self.timestamp}, key={self.key!r}, "
                f"value={self.value!r}{headers})")


def typed_record(record: Record, key: Deserialize | None, value: Deserialize | None) -> TypedRecord:
    """Deserializes both; raises DeserializationError.

        >>> from pylog._native import make_record
        >>> record = make_record("orders", 0, 17, 0, 0, b"alice", b"12", None, 0)
        >>> typed_record(record, None, make_deserializer("json", "value_deserializer")).value
        12
    """
    return TypedRecord(record, record.key if key is None else key(record),
                       record.value if value is None else value(record))
