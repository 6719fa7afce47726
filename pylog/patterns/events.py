"""Event: what happened, as CloudEvents 1.0 have it in Kafka's binary mode: attributes in `ce_*`
headers, the data alone as the value. Declared events: the thin and the full one side by side.

    @event("order.created", key="order_id")            a notification: that it happened, and to
    @dataclass                                         what; who needs more asks the publisher
    class OrderCreated:
        order_id: str

    @event("order.state", key="order_id")              event-carried state transfer: all that a
    @dataclass                                         subscriber needs to have a copy of its own
    class OrderState:
        order_id: str
        items: list
        total: float
"""

import dataclasses
import itertools
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, NamedTuple, TypeVar

from pylog import (
    ConfigurationError,
    DeserializationError,
    Record,
    SerializationError,
    ValidationError,
)
from pylog.patterns import headers as names
from pylog.patterns.headers import as_headers, text_of
from pylog.patterns.schema import shape_of
from pylog.patterns.wildcards import check_type

SPECVERSION = b"1.0"
CONTENT_TYPES = {"json": b"application/json", "str": b"text/plain; charset=utf-8"}

Class = TypeVar("Class", bound=type)
Deserialize = Callable[[Any], Any] | None


class Event:
    """An event that a handler gets. Its attributes are decoded when they are asked for.

    record: the record that bears it.
    """

    __slots__ = ("_data", "_deserialize", "record")

    _data: Any    # once it was looked at

    def __init__(self, record: Record, deserialize: Deserialize = None) -> None:
        self.record = record
        self._deserialize = deserialize

    @property
    def type(self) -> str:
        """What kind of event: words with dots between."""
        return text_of(self.record.header(names.CE_TYPE))

    @property
    def id(self) -> str:
        """Its own: with the source unlike any other's. The same where it was sent again."""
        return text_of(self.record.header(names.CE_ID))

    @property
    def source(self) -> str:
        """Who says so."""
        return text_of(self.record.header(names.CE_SOURCE))

    @property
    def subject(self) -> str | None:
        """What it is about, within the source; None: nothing was said."""
        found = self.record.header(names.CE_SUBJECT)
        return None if found is None else text_of(found)

    @property
    def time(self) -> datetime:
        """When it happened, in UTC; where nobody said so, when it was published."""
        text = text_of(self.record.header(names.CE_TIME))
        try:
            found = datetime.fromisoformat(text)
            return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)
        except ValueError:
            return datetime.fromtimestamp(self.record.timestamp / 1000, UTC)

    @property
    def key(self) -> bytes | None:
        """What keeps events in order: those of one key are."""
        return self.record.key

    @property
    def data(self) -> Any:
        """What there is to say. Deserialized once, at the first look. Raises DeserializationError
        and ValidationError, which a handler had best not catch: the event goes to the dead letters
        at once."""
        try:
            return self._data
        except AttributeError:
            pass    # what the deserializer raises is not about this
        deserialize = self._deserialize
        self._data = self.record.value if deserialize is None else deserialize(self.record)
        return self._data

    @property
    def timestamp(self) -> int:
        """ms since the epoch: when it was published."""
        return self.record.timestamp

    @property
    def headers(self) -> tuple[tuple[str, bytes | None], ...]:
        """((name, value), ...), in order, CloudEvents' attributes among them."""
        return self.record.headers

    def header(self, name: str, default: Any = None) -> Any:
        """As `Record.header`: an extension is `ce_<name>`."""
        return self.record.header(name, default)

    def __repr__(self) -> str:
        return f"<Event {self.type!r}, id {self.id!r}, from {self.source!r}>"


class Ids:
    """Ids that nobody else makes, 0.1 us each: a random word, and a count."""

    def __init__(self) -> None:
        self._word = uuid.uuid4().hex
        self._counts = itertools.count(1)

    def next(self) -> str:
        """The next of them."""
        return f"{self._word}-{next(self._counts)}"


def attributes(
    kind: str, source: str, event_id: str, time: datetime | None = None,
    subject: str | None = None, content_type: bytes | None = None, headers: Any = None,
) -> list[tuple[str, bytes | None]]:
    """The headers of an event. Raises ConfigurationError, TypeError.

    kind: its type. time: aware; None: now. headers: others that it is to have.
    """
    check_type(kind)
    for option, text in (("source", source), ("id", event_id)):
        if not isinstance(text, str):
            raise TypeError(f"{option} must be a str, not {type(text).__name__}")
        if not text:
            raise ConfigurationError(f"{option} is empty, and an event has one; leave it out for "
                                     "the bus to give one", option=option, value=text)
    if time is None:
        time = datetime.now(UTC)
    elif not isinstance(time, datetime) or time.tzinfo is None:
        raise TypeError(f"time must be an aware datetime, not {time!r}: datetime.now(UTC)")
    found: list[tuple[str, bytes | None]] = [
        (names.CE_TYPE, kind.encode()),
        (names.CE_SPECVERSION, SPECVERSION),
        (names.CE_ID, event_id.encode()),
        (names.CE_SOURCE, source.encode()),
        (names.CE_TIME, time.astimezone(UTC).isoformat(timespec="milliseconds").encode()),
    ]
    if subject is not None:
        found += as_headers({names.CE_SUBJECT: subject})
    if content_type is not None:
        found.append((names.CONTENT_TYPE, content_type))
    if headers is not None:
        own = {name for name, _ in found if name != names.CONTENT_TYPE}
        for name, value in as_headers(headers):
            if name in own:
                raise ConfigurationError(f"the header {name!r} is the event's own; pass another "
                                         "type, source=, event_id=, time= or subject=",
                                         option="headers", value=name)
            found.append((name, value))
    return found


# ---- declared events -----------------------------------------------------------------------------


class Declared(NamedTuple):
    """What `event` has noted of a class. key: the field whose value is the key; None: no key."""

    type: str
    key: str | None
    version: int = 1


def event(kind: str, key: str | None = None, version: int = 1) -> Callable[[Class], Class]:
    """Declares a dataclass as the data of a type of event: `bus.emit(it)`, `bus.on(Class)`,
    `store.append(stream, it)`.

    key: the name of the field that keeps events in order. version: of the fields; one that is not 1
    is in the header event_version (see `EventStore.upcast`). Raises ConfigurationError for a field
    that there is not and a version below 1, TypeError for what is no dataclass.

    The class is the schema of its events, nested dataclasses too (`shape_of`, with msgspec or
    pydantic): one whose fields are not of their types is not appended, and one that is read and
    does not fit is a ValidationError, which makes it a dead letter at once. Who listens by the name
    of the type gets what was sent.

        >>> @event("order.created", key="order_id")
        ... @dataclasses.dataclass
        ... class OrderCreated:
        ...     order_id: str
        >>> declared(OrderCreated)
        Declared(type='order.created', key='order_id', version=1)
    """
    check_type(kind)
    check_version(version)

    def declare(data_class: Class) -> Class:
        if not (isinstance(data_class, type) and dataclasses.is_dataclass(data_class)):
            raise TypeError(f"@event is for dataclasses, and {data_class!r} is none: put it above "
                            "@dataclass")
        fields = [one.name for one in dataclasses.fields(data_class)]
        if key is not None and key not in fields:
            raise ConfigurationError(f"{data_class.__name__} has no field {key!r} to be the key; "
                                     f"it has {', '.join(fields) or 'none'}", option="key",
                                     value=key)
        data_class.__event__ = Declared(kind, key, version)    # type: ignore[attr-defined]
        return data_class

    return declare


def check_version(version: object) -> int:
    """Returns the version of a type of event. Raises ConfigurationError, TypeError."""
    if not isinstance(version, int) or isinstance(version, bool):
        raise TypeError(f"version must be an int, not {type(version).__name__}")
    if version < 1:
        raise ConfigurationError(f"version={version} is impossible; versions begin at 1",
                                 option="version", value=version)
    return version


def version_header(version: int) -> tuple[tuple[str, bytes], ...]:
    """What an event of this version of its type bears."""
    return ((names.EVENT_VERSION, b"%d" % version),) if version > 1 else ()


def declared(data_class: Any) -> Declared | None:
    """What was declared of a class, itself and not its bases; None: nothing."""
    found = vars(data_class).get("__event__") if isinstance(data_class, type) else None
    return found if isinstance(found, Declared) else None


def as_declared(data_class: type, one: Event) -> Event:
    """The event with an instance of the class as its data: see `instance_of`."""
    return type(one)(one.record, lambda record: instance_of(data_class, one.data, record))


def plain_of(instance: Any, topic: str) -> Any:
    """The data of an event that is to be appended to the topic: the fields of an instance of a
    declared class, if each is of its type. Raises ValidationError, SerializationError, TypeError.
    """
    kind: Any = type(instance)
    shape, what = shape_of(kind), f"the event {kind.__event__.type!r} for {topic!r}"
    try:
        return shape.to_plain(instance)
    except ValidationError as error:
        raise ValidationError(f"{what} {error}; nothing was appended; pass what fits", topic=topic,
                              field="value", errors=error.errors) from error.__cause__
    except (TypeError, ValueError) as error:
        raise SerializationError(
            f"{what} has fields that are no plain values: {error}; nothing was appended",
            topic=topic, field="value") from error


def instance_of(data_class: type, data: Any, record: Record) -> Any:
    """An instance made of the data of an event. Fields that the class does not have are left out,
    so that a publisher may add some. Raises ValidationError."""
    if isinstance(data, data_class):    # of an EventStore that knows the class
        return data
    try:
        return shape_of(data_class).to_instance(data)
    except ValidationError as error:
        raise ValidationError(
            f"the event {text_of(record.header(names.CE_TYPE))!r} at offset {record.offset} of "
            f"{record.topic}-{record.partition} {error}", topic=record.topic,
            partition=record.partition, offset=record.offset, field="value", record=record,
            errors=error.errors) from error.__cause__


def no_event(record: Record, fault: str, error: Exception) -> DeserializationError:
    """The error of an event whose data is not what its type says."""
    return DeserializationError(
        f"the event {text_of(record.header(names.CE_TYPE))!r} at offset {record.offset} of "
        f"{record.topic}-{record.partition} {fault}: {error}", topic=record.topic,
        partition=record.partition, offset=record.offset, field="value", record=record)
