"""Schemas: values that are of a type, checked when they are sent and when they are read.

A type is a msgspec.Struct, a pydantic model, a dataclass, a TypedDict, anything else that msgspec
or pydantic knows (`list[Order]`), a JSON Schema as a dict, or a function that raises for what it
does not take. Values travel as JSON, so that whoever has another of these can read them.
"""

import dataclasses
import functools
import importlib
import json
import re
import sys
import typing
from collections.abc import Callable
from typing import Any, NamedTuple

from pylog import ConfigurationError, NotSupportedError, ValidationError

Errors = list[tuple[str, str]]

NULL = b"null"
MESSAGE_ERRORS_MAX = 5    # of how many a message tells; `errors` has all
_MSGSPEC_PLACE = re.compile(r"^(.*) - at `\$\.?(.*)`$", re.DOTALL)


class Schema:
    """What makes JSON of a value and a value of JSON, and lets nothing else pass.

    An object with `serialize` and `deserialize`: for value_serializer= and value_deserializer= of
    producers and consumers, and for `value=` of every pattern (which takes the type itself as
    well). name: of the type. headers: what records of it bear, if it is registered.

        >>> from dataclasses import dataclass
        >>> @dataclass
        ... class Order:
        ...     user: str
        ...     total: float
        >>> orders = schema_of(Order)
        >>> orders.serialize("orders", None, Order("ann", 12.5))
        b'{"user":"ann","total":12.5}'
        >>> orders.deserialize("orders", None, b'{"user":"ann","total":"much"}')
        Traceback (most recent call last):
        pylog.errors.ValidationError: does not fit Order: total: Expected `float`, got `str`

    Sending checks too: the bytes are read back before they go. None is a value as any other: it is
    refused, and a record without a value does not fit, unless the type takes None. To delete by key
    use such a type, `Order | None`: its None is sent as a record without a value, which is Kafka's
    tombstone, and read as None. Cost: with msgspec 1 us each way for a small struct, with pydantic
    2 to 3, with JSON Schema 40.
    """

    takes_none = True    # see pylog/serde.py

    def __init__(self, name: str, encode: Callable[[Any], bytes], decode: Callable[[bytes], Any],
                 describe: Callable[[], dict[str, Any]] | None) -> None:
        self.name = name
        self.headers: tuple[tuple[str, bytes], ...] = ()
        self._check_headers: Callable[[Any], object] | None = None
        self._encode = encode
        self._decode = decode
        self._describe = describe

    def serialize(self, topic: str, headers: Any, value: Any) -> bytes | None:
        """Raises ValidationError, TypeError for what is no JSON."""
        if value is None:
            self._decode(NULL)
            return None
        data = self._encode(value)
        self._decode(data)
        return data

    def deserialize(self, topic: str, headers: Any, data: bytes | None) -> Any:
        """Raises ValidationError; ValueError for what is no JSON at all; UnknownSchemaError where
        the headers name a schema that the registry has not."""
        if self._check_headers is not None and headers:
            self._check_headers(headers)
        return self._decode(NULL if data is None else data)

    def json_schema(self) -> dict[str, Any]:
        """The type as a JSON Schema. Raises NotSupportedError for a function, which has none."""
        if self._describe is None:
            raise NotSupportedError(f"what {self.name} takes cannot be told from the function; "
                                    "use a type or a JSON Schema")
        return self._describe()

    def registered(self, header: tuple[str, bytes], check: Callable[[Any], object]) -> "Schema":
        """The same, with the header that its records bear. check: of the headers of what is read;
        raises."""
        found = Schema(self.name, self._encode, self._decode, self._describe)
        found.headers = (header,)
        found._check_headers = check
        return found

    def __repr__(self) -> str:
        return f"<Schema {self.name}>"


def schema_of(given: Any) -> Schema:
    """The schema of a type, a JSON Schema or a function; see the top of this file.

    A function gets the value that the JSON stands for. It raises, or returns False, for what it
    does not take; it returns None or True, or what is to be read instead.

    Raises TypeError for what is none of these, ConfigurationError for a JSON Schema that is none,
    NotSupportedError where the library is not installed: `pip install pylog-engine[schema]`.
    """
    if isinstance(given, Schema):
        return given
    if isinstance(given, dict):
        return _of_json_schema(given)
    if given is bytes:
        raise ConfigurationError("value=bytes: bytes are what values are without value=; leave it "
                                 "out", option="value", value=given)
    if isinstance(given, type) or typing.get_origin(given) is not None:
        return _of_type(given)
    if callable(given):
        return _of_function(given)
    raise TypeError(f"a schema is a type, a dict (JSON Schema) or a function, not {given!r}")


def invalid(name: str, errors: Errors, cause: Exception | None = None) -> ValidationError:
    """The error, with its fields in words."""
    told = "; ".join(f"{path}: {message}" if path else message
                     for path, message in errors[:MESSAGE_ERRORS_MAX])
    more = len(errors) - MESSAGE_ERRORS_MAX
    rest = f"; and {more} more" if more > 0 else ""
    error = ValidationError(f"does not fit {name}: {told}{rest}", errors=errors)
    error.__cause__ = cause
    return error


# ---- types ---------------------------------------------------------------------------------------


def _of_type(kind: Any) -> Schema:
    name = getattr(kind, "__qualname__", None) or str(kind)
    if (pydantic := sys.modules.get("pydantic")) and _names(kind, pydantic.BaseModel):
        return _by_pydantic(kind, name)
    if msgspec := _library("msgspec"):
        return _by_msgspec(kind, name, msgspec)
    if _library("pydantic"):
        return _by_pydantic(kind, name)
    raise _missing(f"the type {name}", "msgspec (or pydantic)")


def _names(kind: Any, base: type) -> bool:
    """Whether it is such a class, or has one in it, as `list[Model]` and `Model | None` do."""
    if isinstance(kind, type):
        return issubclass(kind, base)
    return any(_names(one, base) for one in typing.get_args(kind))


def _by_msgspec(kind: Any, name: str, msgspec: Any) -> Schema:
    decode = _told_by_msgspec(name, msgspec, _msgspec_decoder(kind, name, msgspec).decode)
    return Schema(name, msgspec.json.encode, decode, lambda: msgspec.json.schema(kind))


def _msgspec_decoder(kind: Any, name: str, msgspec: Any) -> Any:
    try:
        return msgspec.json.Decoder(kind)
    except (TypeError, NameError) as error:
        raise TypeError(f"{name} is no type that values can be of: {error}") from None


def _told_by_msgspec(name: str, msgspec: Any, function: Callable[[Any], Any]
                     ) -> Callable[[Any], Any]:
    def check(data: Any) -> Any:
        try:
            return function(data)
        except msgspec.ValidationError as error:
            found = _MSGSPEC_PLACE.match(str(error))
            path, message = (found[2], found[1]) if found else ("", str(error))
            raise invalid(name, [(path, message)], error) from error

    return check


def _by_pydantic(kind: Any, name: str) -> Schema:
    pydantic = _library("pydantic")
    adapter = _pydantic_adapter(kind, name, pydantic)

    def encode(value: Any) -> bytes:
        return bytes(adapter.dump_json(value, warnings=False))

    return Schema(name, encode, _told_by_pydantic(name, pydantic, adapter.validate_json),
                  adapter.json_schema)


def _pydantic_adapter(kind: Any, name: str, pydantic: Any) -> Any:
    try:
        return pydantic.TypeAdapter(kind)
    except pydantic.errors.PydanticSchemaGenerationError as error:
        raise TypeError(f"{name} is no type that values can be of: {error}") from None


def _told_by_pydantic(name: str, pydantic: Any, function: Callable[[Any], Any]
                      ) -> Callable[[Any], Any]:
    def check(data: Any) -> Any:
        try:
            return function(data)
        except pydantic.ValidationError as error:
            found = error.errors(include_url=False, include_input=False)
            if found[0]["type"] == "json_invalid":
                raise ValueError(found[0]["msg"]) from error
            raise invalid(name, [(path_of(one["loc"]), one["msg"]) for one in found],
                          error) from error

    return check


# ---- dataclasses, in plain values ----------------------------------------------------------------


class Shape(NamedTuple):
    """What an instance of a dataclass is in the values that JSON has: `to_plain`, and back:
    `to_instance`, of nested ones too. Both raise ValidationError."""

    to_plain: Callable[[Any], Any]
    to_instance: Callable[[Any], Any]


@functools.cache
def shape_of(data_class: type) -> Shape:
    """Of a dataclass. What comes is of the types of its fields; fields that it does not have are
    left out.

    By msgspec (1 us to plain values, 1.5 back for a small one), or by pydantic. Where neither is
    installed nothing but the names of the fields is looked at, and nested dataclasses stay dicts.
    Raises TypeError for a field of a type that the library does not know.
    """
    name = data_class.__qualname__
    if msgspec := _library("msgspec"):
        _msgspec_decoder(data_class, name, msgspec)    # says now what it cannot read
        plain = functools.partial(msgspec.to_builtins, str_keys=True)
        back = _told_by_msgspec(name, msgspec, functools.partial(
            msgspec.convert, type=data_class, str_keys=True))
    elif pydantic := _library("pydantic"):
        adapter = _pydantic_adapter(data_class, name, pydantic)
        plain = functools.partial(adapter.dump_python, mode="json", warnings=False)
        back = _told_by_pydantic(name, pydantic, adapter.validate_python)
    else:
        return Shape(dataclasses.asdict, functools.partial(_of_fields, data_class))

    def to_plain(instance: Any) -> Any:
        data = plain(instance)
        back(data)
        return data

    return Shape(to_plain, back)


def _of_fields(data_class: type, data: Any) -> Any:
    fields = {field.name for field in dataclasses.fields(data_class) if field.init}
    try:
        return data_class(**{name: value for name, value in data.items() if name in fields})
    except (TypeError, AttributeError, ValueError) as error:
        raise invalid(data_class.__qualname__, [("", str(error))], error) from error


# ---- JSON Schema, functions ----------------------------------------------------------------------


def _of_json_schema(given: dict[str, Any]) -> Schema:
    jsonschema = _library("jsonschema")
    if jsonschema is None:
        raise _missing("a JSON Schema", "jsonschema")
    kind = jsonschema.validators.validator_for(given, jsonschema.Draft202012Validator)
    try:
        kind.check_schema(given)
    except jsonschema.SchemaError as error:
        raise ConfigurationError(
            f"this is no JSON Schema: {path_of(error.absolute_path) or 'it'}: {error.message}; see "
            "json-schema.org", option="value", value=given) from None
    validator = kind(given)
    name = given.get("title") or "the JSON Schema"

    def decode(data: bytes) -> Any:
        value = json.loads(data)
        found = sorted(validator.iter_errors(value), key=lambda one: path_of(one.absolute_path))
        if found:
            raise invalid(name, [(path_of(one.absolute_path), one.message) for one in found])
        return value

    return Schema(name, _to_json, decode, lambda: given)


def _of_function(function: Callable[[Any], Any]) -> Schema:
    name = getattr(function, "__qualname__", None) or type(function).__name__

    def decode(data: bytes) -> Any:
        value = json.loads(data)
        try:
            result = function(value)
        except ValidationError:
            raise
        except Exception as error:
            raise invalid(name, [("", f"{type(error).__name__}: {error}")], error) from error
        if result is False:
            raise invalid(name, [("", "it is refused")])
        return value if result is None or result is True else result

    return Schema(name, _to_json, decode, None)


def _to_json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


def path_of(places: Any) -> str:
    """items[0].quantity, of a sequence of names and numbers."""
    path = ""
    for place in places:
        path += f"[{place}]" if isinstance(place, int) else f".{place}"
    return path.lstrip(".")


# ---- libraries that may not be there -------------------------------------------------------------


@functools.cache
def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def _missing(what: str, library: str) -> NotSupportedError:
    return NotSupportedError(f"{what} needs the library {library}, which is not installed: "
                             "pip install 'pylog-engine[schema]'")
