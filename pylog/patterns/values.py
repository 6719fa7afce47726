"""What `value=` of a pattern means: how its values become bytes, and bytes values."""

from collections.abc import Callable
from typing import Any, NamedTuple

from pylog import (
    ConfigurationError,
    NotSupportedError,
    Record,
    TypedRecord,
    make_deserializer,
    make_serializer,
)


class Codec(NamedTuple):
    """Both ways; None: values are bytes. serialize(topic, headers, value), deserialize(record)."""

    serialize: Callable[[str, Any, Any], Any] | None
    deserialize: Callable[[Any], Any] | None

    def typed(self, record: Record) -> Any:
        """The record as users get it: a TypedRecord, or itself where values are bytes."""
        read = self.deserialize
        return record if read is None else TypedRecord(record, record.key, read(record))


def codec_of(value: Any) -> Codec:
    """Of None or "bytes", "str", "json", or an object with `serialize` and `deserialize`.

    Raises ConfigurationError for an unknown name, TypeError for what does not go both ways.

        >>> codec_of("json").serialize("orders", None, {"apples": 12})
        b'{"apples":12}'
    """
    if isinstance(value, type):
        raise NotSupportedError(f"value={value.__name__}: types come with the schemas; use 'json', "
                                "or an object with serialize and deserialize")
    if value is not None and not isinstance(value, str) and not (
            hasattr(value, "serialize") and hasattr(value, "deserialize")):
        raise ConfigurationError(
            f"value={value!r} does not go both ways; use None, 'str', 'json', or an object with "
            "serialize(topic, headers, value) and deserialize(topic, headers, data)",
            option="value", value=value)
    return Codec(make_serializer(value, "value"), make_deserializer(value, "value"))
