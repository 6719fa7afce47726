"""Projector: which functions write what of a record into a view."""

import inspect
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from typing import Any

from pylog import ConfigurationError, Record
from pylog.patterns.bus import AsyncBus, Bus
from pylog.patterns.event_store import EventStore
from pylog.patterns.events import as_declared, declared
from pylog.patterns.handler import check_handler, is_async, name_of
from pylog.patterns.headers import CE_TYPE, REPLAY_GROUP, STREAM_VERSION, text_of
from pylog.patterns.pubsub import AsyncTopic, Topic
from pylog.patterns.routes import TYPES_MAX
from pylog.patterns.wildcards import matcher

Source = str | Topic | AsyncTopic | Bus | AsyncBus | EventStore


class Writer:
    """A user's function. statement: what its rows are the parameters of; None: it writes itself."""

    def __init__(self, function: Callable[..., Any], statement: str | None, pattern: Any) -> None:
        if is_async(check_handler(function, 2 if statement is None else 1)):
            raise TypeError(f"{name_of(function)} is `async def`, and the transaction that it "
                            "writes into waits for nobody: write it as `def`")
        said = declared(pattern)
        self.wants = None if pattern is None else matcher(said.type if said else pattern)
        self._function = function
        self._statement = statement
        self._data_class = pattern if said else None

    def write(self, connection: Any, items: list[Any]) -> None:
        """Raises what the function raises, and the database."""
        function = self._function
        if self._data_class is not None:
            items = [as_declared(self._data_class, one) for one in items]
        if self._statement is None:
            for item in items:
                if inspect.iscoroutine(result := function(connection, item)):
                    result.close()
                    raise TypeError(f"{name_of(function)} returned what has to be awaited, and "
                                    "nobody does: write it as `def`")
        # No generator: a function that raises StopIteration would end one, and rows be missing.
        elif rows := [row for item in items if (row := function(item)) is not None]:
            connection.cursor().executemany(self._statement, rows)


class Projector:
    """All functions of a projection. group: whose replayed dead letters are for it."""

    def __init__(self, source: Source, group: str) -> None:
        self._item = _item_of(source)
        self.topic = source if isinstance(source, str) else source.name
        self._has_events = isinstance(source, Bus | AsyncBus | EventStore)
        # What else is in the topic is no event of a store.
        self._mark = STREAM_VERSION if isinstance(source, EventStore) else None
        self._group = group.encode()
        self._writers: list[Writer] = []
        self._known: dict[bytes | None, tuple[Writer, ...]] = {}

    def add(self, writer: Writer) -> None:
        """Raises ConfigurationError."""
        if writer.wants is not None and not self._has_events:
            raise ConfigurationError(
                f"{self.topic!r} was given as a topic, whose records have no types: leave the "
                "pattern out, or give the Bus or the EventStore as the source", option="pattern",
                value=self.topic)
        self._writers.append(writer)
        self._known = {}

    @property
    def is_empty(self) -> bool:
        """Whether nobody wants anything."""
        return not self._writers

    def write(self, connection: Any, records: Iterable[Record]) -> None:
        """Writes what is wanted of the records, in their order. Those in a row that one function
        alone wants are its together."""
        item = self._item
        for writers, run in groupby(records, self._wanting):
            if len(writers) == 1:
                writers[0].write(connection, [item(record) for record in run])
                continue
            for record in run if writers else ():
                found = [item(record)]
                for writer in writers:
                    writer.write(connection, found)

    def _wanting(self, record: Record) -> Sequence[Writer]:
        if record.header(REPLAY_GROUP, self._group) != self._group:
            return ()    # a dead letter of others, sent again for them
        if self._mark is not None and record.header(self._mark) is None:
            return ()
        kind = record.header(CE_TYPE) if self._has_events else None
        found = self._known.get(kind)
        return self._look(kind) if found is None else found

    def _look(self, kind: bytes | None) -> tuple[Writer, ...]:
        if len(self._known) >= TYPES_MAX:
            self._known = {}
        text = text_of(kind)
        found = tuple(one for one in self._writers
                      if one.wants is None or (text and one.wants(text)))
        self._known[kind] = found
        return found


def _item_of(source: Source) -> Callable[[Record], Any]:
    """What makes of a record what a function gets."""
    if isinstance(source, str):
        return lambda record: record
    if isinstance(source, Topic | AsyncTopic):
        return source.typed
    if isinstance(source, Bus | AsyncBus | EventStore):
        return source.event
    raise TypeError("source must be an EventStore, a Bus, a Topic or the name of a topic, not "
                    f"{type(source).__name__}")
