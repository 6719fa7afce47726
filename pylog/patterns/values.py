"""What `value=` of a pattern means: how its values become bytes, and bytes values."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from pylog import (
    ConfigurationError,
    Record,
    TypedRecord,
    make_deserializer,
    make_serializer,
)
from pylog.patterns.headers import as_headers
from pylog.patterns.schema import schema_of


class Codec(NamedTuple):
    """Both ways; None: values are bytes. serialize(topic, headers, value), deserialize(record).

    headers: what each record bears for whoever reads it (of a registered schema: its id).
    """

    serialize: Callable[[str, Any, Any], Any] | None
    deserialize: Callable[[Any], Any] | None
    headers: tuple[tuple[str, bytes], ...] = ()

    def headers_with(self, given: Any) -> list[tuple[str, bytes | None]]:
        """What a user gave for a record that is to be sent, and then the codec's own."""
        return [*as_headers(given), *self.headers]

    def typed(self, record: Record) -> Any:
        """The record as users get it: a TypedRecord, or itself where values are bytes."""
        read = self.deserialize
        return record if read is None else TypedRecord(record, record.key, read(record))


def serde_of(value: Any) -> Any:
    """What Producer and Consumer take for it: types have become schemas (schema.py)."""
    if value is None or isinstance(value, str):
        return value
    if not isinstance(value, type) and hasattr(value, "serialize") and hasattr(value,
                                                                               "deserialize"):
        return value
    try:
        return schema_of(value)
    except TypeError as error:
        raise ConfigurationError(
            f"value={value!r} does not go both ways: {error}; use None, 'str', 'json', a type, or "
            "an object with serialize(topic, headers, value) and deserialize(topic, headers, data)",
            option="value", value=value) from None


def codec_of(value: Any) -> Codec:
    """Of None or "bytes", "str", "json", a type or what else schema.py knows, or an object with
    `serialize` and `deserialize`.

    Raises ConfigurationError for an unknown name or what does not go both ways.

        >>> codec_of("json").serialize("orders", None, {"apples": 12})
        b'{"apples":12}'
    """
    serde = serde_of(value)
    return Codec(make_serializer(serde, "value"), make_deserializer(serde, "value"),
                 tuple(getattr(serde, "headers", ())))


def listed(option: str, given: Any) -> list[Any]:
    """What a user gave as several. Raises TypeError, too, for one text, whose characters would be
    taken for them, or one dict, whose keys would."""
    if isinstance(given, str | bytes | bytearray | memoryview | Mapping):
        raise TypeError(f"{option} must be several, and {type(given).__name__} is one: put it into "
                        "a list")
    try:
        return list(given)
    except TypeError:
        raise TypeError(f"{option} must be several, as in a list, not {type(given).__name__}"
                        ) from None


def advised(error: TypeError) -> TypeError:
    """A Producer's, in the words of the patterns: a value is `value=`, a key bytes or str."""
    text = str(error).replace("value_serializer=", "value=")
    place = text.find("; got") if text.startswith("key must be bytes") else -1
    if place >= 0:
        text = "key must be bytes or str" + text[place:].partition(":")[0]
    return TypeError(text)
