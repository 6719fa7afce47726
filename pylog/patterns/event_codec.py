"""How the events of a store become records, and records events: types, ids, versions, upcasting."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from pylog import ConfigurationError, Record
from pylog.patterns.events import (
    CONTENT_TYPES,
    SPECVERSION,
    Event,
    Ids,
    check_version,
    declared,
    instance_of,
    no_event,
    plain_of,
    version_header,
)
from pylog.patterns.headers import (
    CE_SOURCE,
    CE_SPECVERSION,
    CE_TYPE,
    CONTENT_TYPE,
    EVENT_VERSION,
    STREAM_VERSION,
    as_headers,
    number_of,
    text_of,
)
from pylog.patterns.schema import shape_of
from pylog.patterns.values import codec_of
from pylog.patterns.wildcards import check_type

Headers = list[tuple[str, bytes | None]]
Upcast = Callable[[Any], Any]


class NewEvent(NamedTuple):
    """An event that is to be appended.

    type: words with dots between; or an instance of a class that `@event` declares, which is the
    data too. id: its own; one that is given makes a second append of it harmless. headers: others.
    """

    type: Any
    data: Any = None
    id: str | None = None
    headers: Any = None


class StoredEvent(Event):
    """An event of a stream: an `Event`, and its place."""

    __slots__ = ()

    @property
    def stream(self) -> str:
        """The stream that it is of."""
        return text_of(self.record.key)

    @property
    def version(self) -> int:
        """Which one of its stream it is, from 1 on, without gaps."""
        return number_of(self.record.header(STREAM_VERSION))

    def __repr__(self) -> str:
        return f"<StoredEvent {self.type!r}, version {self.version} of {self.stream!r}>"


# An event as it is to be written: value, headers, id, and whether that is the caller's.
Made = tuple[Any, Headers, bytes, bool]


class EventCodec:
    """Both ways. name: of the store. value, classes, source: as EventStore's."""

    def __init__(self, name: str, value: Any, classes: Iterable[type], source: str | None) -> None:
        self._name = name
        self._codec = codec_of(value)
        self._common: Headers = [(CE_SPECVERSION, SPECVERSION),
                                 (CE_SOURCE, (source or name).encode())]
        if isinstance(value, str) and value in CONTENT_TYPES:
            self._common.append((CONTENT_TYPE, CONTENT_TYPES[value]))
        self._common += self._codec.headers
        self._classes: dict[str, type] = {}
        for one in classes:
            if (said := declared(one)) is None:
                raise TypeError(f"events= has {one!r}, which is no class that @event declares")
            shape_of(one)    # says now what it cannot read
            self._classes[said.type] = one
        self._upcasts: dict[tuple[str, int], Upcast] = {}
        self._prefixes: dict[str | type, Headers] = {}
        self._ids = Ids()

    # ---- writing

    def all_made(self, events: Any) -> list[Made]:
        """Of one event or several. Raises ConfigurationError, SerializationError, TypeError."""
        if isinstance(events, NewEvent) or declared(type(events)):
            return [self.made(events)]
        if isinstance(events, str | bytes | Mapping) or not hasattr(events, "__iter__"):
            raise TypeError("events must be a NewEvent, an instance of a class that @event "
                            f"declares, or a list of these, not {type(events).__name__}")
        if not (found := [self.made(one) for one in events]):
            raise ConfigurationError("there is nothing to append: events is empty",
                                     option="events", value=events)
        ids = [event_id for _, _, event_id, is_given in found if is_given]
        if len(set(ids)) < len(ids):
            raise ConfigurationError("two of the events have the same id, and are one event: give "
                                     "each its own", option="events", value=events)
        return found

    def made(self, one: Any) -> Made:
        """Of one event."""
        if one.__class__ is NewEvent and one[0].__class__ is str:
            kind, data, given, more = one
        else:
            kind, data, given, more = self._declared(one)
        headers = self._prefixes.get(kind) or self._prefix(kind)
        if more is not None:
            headers = [*headers, *as_headers(more)]
        if (serialize := self._codec.serialize) is not None:
            data = serialize(self._name, None, data)
        if given is None:
            return data, headers, self._ids.next().encode(), False
        return data, headers, _id_of(given), True

    def _declared(self, one: Any) -> tuple[str | type, Any, Any, Any]:
        """The class and the fields of an instance."""
        instance, data, given, more = one if isinstance(one, NewEvent) else NewEvent(one)
        if data is not None:
            raise TypeError(f"{type(instance).__name__} is the data already: pass it alone")
        if declared(type(instance)) is None:
            raise TypeError("an event must be a NewEvent, of a type that is a str, or an instance "
                            f"of a class that @event declares, not {type(instance).__name__}")
        return type(instance), plain_of(instance, self._name), given, more

    def _prefix(self, kind: str | type) -> Headers:
        """The headers that all events of a type have. kind: it, or a class that declares it."""
        if isinstance(kind, str):
            name, version = check_type(kind), self._version_of(kind)
        else:
            name, _, version = kind.__event__    # type: ignore[attr-defined]
        found = [(CE_TYPE, name.encode()), *self._common, *version_header(version)]
        self._prefixes[kind] = found
        return found

    def _version_of(self, kind: str) -> int:
        """The version of the data that is appended by the name of the type."""
        if (said := declared(self._classes.get(kind))) is not None:
            return said.version
        return 1 + max((version for name, version in self._upcasts if name == kind), default=0)

    # ---- reading

    def upcast(self, kind: str, version: int) -> Callable[[Upcast], Upcast]:
        """See `EventStore.upcast`."""
        said = declared(self._classes.get(check_type(kind)))
        if check_version(version) >= (said.version if said else version + 1):
            raise ConfigurationError(
                f"the class of {kind!r} is of version {version} or earlier, so there is nothing to "
                f"be made of it; declare it with version={version + 1}", option="version",
                value=version)

        def register(function: Upcast) -> Upcast:
            self._upcasts[kind, version] = function
            self._prefixes.clear()
            return function

        return register

    def data_of(self, record: Record) -> Any:
        """The data of an event as it would be written today. Raises DeserializationError."""
        deserialize = self._codec.deserialize
        data = record.value if deserialize is None else deserialize(record)
        kind = text_of(record.header(CE_TYPE))
        if self._upcasts:
            version = number_of(record.header(EVENT_VERSION), 1)
            while (function := self._upcasts.get((kind, version))) is not None:
                try:
                    data = function(data)
                except Exception as error:
                    raise no_event(record, f"cannot be upcast from version {version}",
                                   error) from error
                version += 1
        data_class = self._classes.get(kind)
        return data if data_class is None else instance_of(data_class, data, record)


def _id_of(given: Any) -> bytes:
    if not isinstance(given, str):
        raise TypeError(f"the id of an event must be a str, not {type(given).__name__}")
    if not given:
        raise ConfigurationError("the id of an event is empty; leave it out to have one given",
                                 option="id", value=given)
    return given.encode()
