"""Routes: which handlers of a bus want which events, looked up once for each type."""

import threading
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from pylog import Record
from pylog.patterns.events import Event
from pylog.patterns.handler import Handler
from pylog.patterns.headers import CE_TYPE

TYPES_MAX = 4096    # that are remembered: somebody may have made ids a part of them
NOBODY: tuple[None, tuple[Handler, ...]] = (None, ())


class Entry(NamedTuple):
    """A handler, the types that it wants, and the offsets from which on, where it came later."""

    handler: Handler
    function: Any
    wants: Callable[[str], bool]
    places: dict[int, int]


class Routes:
    """Which handlers want which events: looked up once a type. Safe for threads."""

    def __init__(self, deserialize: Callable[[Any], Any] | None) -> None:
        self.handlers: list[Handler] = []
        self._deserialize = deserialize
        self._entries: list[Entry] = []
        self._known: dict[bytes | None, tuple[Handler, ...]] = {}
        self._late: list[Entry] = []    # those that came while records were waiting to be read
        self._lock = threading.Lock()

    def add(self, entry: Entry) -> None:
        """From the next record on; of those before its places it gets none."""
        with self._lock:
            self._entries.append(entry)
            if entry.places:
                self._late.append(entry)
            self.handlers.append(entry.handler)
            self._known = {}

    def named(self, name: str) -> Any:
        """The function that has the name; None: none has."""
        return next((one.function for one in self._entries if one.handler.name == name), None)

    def of(self, record: Record) -> tuple[Any, Sequence[Handler]]:
        """The event that a record is, and who wants it."""
        kind = record.header(CE_TYPE)
        handlers = self._known.get(kind)
        if handlers is None:
            handlers = self._look(kind)
        if handlers and self._late:
            handlers = self._without_late(record, handlers)
        return (Event(record, self._deserialize), handlers) if handlers else NOBODY

    def _look(self, kind: bytes | None) -> tuple[Handler, ...]:
        text = "" if kind is None else kind.decode("utf-8", "replace")
        with self._lock:
            if len(self._known) >= TYPES_MAX:
                self._known = {}
            found = tuple(one.handler for one in self._entries if text and one.wants(text))
            self._known[kind] = found
            return found

    def _without_late(self, record: Record, handlers: Sequence[Handler]) -> tuple[Handler, ...]:
        with self._lock:
            early = {one.handler for one in self._late
                     if record.offset < one.places.get(record.partition or 0, 0)}
            for one in self._late:
                if record.offset >= one.places.get(record.partition or 0, 0):
                    one.places.pop(record.partition or 0, None)
            self._late = [one for one in self._late if one.places]
        return tuple(one for one in handlers if one not in early)
