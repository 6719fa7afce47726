"""Schemas: the registry of what values of each subject look like, version by version.

It is the topic `_schemas`, a record a version: the subject as its key, as its value JSON with
version, compatibility and the JSON Schema. The id of a version is the offset of its record: no two
ever have the same, and records bear it in the header schema_id.
"""

import json
import os
from collections.abc import Iterable
from typing import Any, NamedTuple, Self

from pylog import (
    Broker,
    ClosedError,
    ConfigurationError,
    IncompatibleSchemaError,
    Record,
    UnknownSchemaError,
)
from pylog.patterns.compatibility import (
    Compatibility,
    Reason,
    check_compatibility,
    incompatibilities,
)
from pylog.patterns.headers import SCHEMA_ID, number_of, text_of
from pylog.patterns.schema import Schema, schema_of
from pylog.patterns.state import Change, Entries, State

TOPIC = "_schemas"


class SchemaVersion(NamedTuple):
    """One version. id: of all versions of all subjects. schema: the JSON Schema."""

    id: int
    subject: str
    version: int
    compatibility: Compatibility
    schema: dict[str, Any]


Versions = tuple[SchemaVersion, ...]


def _fold(versions: Versions | None, record: Record) -> Versions | None:
    if record.value is None:
        return None
    found, known = json.loads(record.value), versions or ()
    version = SchemaVersion(record.offset, (record.key or b"").decode(), found["version"],
                            check_compatibility(found["compatibility"]), found["schema"])
    if version.version != len(known) + 1 or not isinstance(version.schema, dict):
        raise ValueError(f"version {version.version!r} after {len(known)}")
    return (*known, version)


class Schemas:
    """The registry of schemas of a broker, the same in all processes. Safe for threads.

    broker: a Broker, or the path of one, which is then closed with this. topic: where it lies.

        >>> with Schemas("data") as schemas:
        ...     old = {"type": "object", "properties": {"total": {"type": "number"}}}
        ...     orders = schemas.register("orders", old)
        ...     schemas.get("orders").version, orders.headers
        ...     print(*schemas.check("orders", {"type": "object", "required": ["user"]}))
        (1, (('schema_id', b'0'),))
        user: FIELD_REQUIRED: who reads requires it, and who wrote did not

    **Guarantee**: versions of a subject follow each other as its compatibility says, whoever
    registers at the same time. Cost: a look 0.5 us, a registration an append.
    """

    def __init__(self, broker: Broker | str | os.PathLike[str], topic: str = TOPIC) -> None:
        self._state = State(broker, topic, _fold)
        self._seen: set[bytes | None] = set()    # ids that records bear, and that there are

    def register(self, subject: str, given: Any, compatibility: Compatibility | None = None
                 ) -> Schema:
        """Adds a version, unless the latest is the same; returns the Schema, to be used as
        `value=`: records that are sent by it, whatever the pattern, bear the header schema_id; one
        that is read and bears an id that is not in here is a DeserializationError, which names it.

        given: as `schema_of` takes it, a function excepted. compatibility: with the version before,
        and of the next ones: what the subject has, BACKWARD at first. Raises
        IncompatibleSchemaError, which has all `reasons`.
        """
        schema = schema_of(given)
        described = schema.json_schema()
        key = _key(subject)
        wanted = None if compatibility is None else check_compatibility(compatibility)
        same: list[SchemaVersion] = []

        def decide(entries: Entries) -> Change | None:
            known: Versions = entries.get(key, ())
            level = wanted or (known[-1].compatibility if known else "BACKWARD")
            same.clear()
            if known and known[-1].schema == described and known[-1].compatibility == level:
                same.append(known[-1])
                return None
            if known and (reasons := incompatibilities(known[-1].schema, described, level)):
                raise IncompatibleSchemaError(
                    f"version {len(known) + 1} of {subject!r} is not {level} compatible with "
                    f"version {len(known)}: {'; '.join(map(str, reasons))}; change it, or register "
                    "it under another subject", subject=subject, reasons=reasons)
            return Change(key, json.dumps({
                "version": len(known) + 1, "compatibility": level, "schema": described}).encode())

        number = self._state.change(decide)
        if number is None:
            number = same[0].id
        return schema.registered((SCHEMA_ID, b"%d" % number), self._check_headers)

    def check(self, subject: str, given: Any, compatibility: Compatibility | None = None
              ) -> list[Reason]:
        """What would keep it from being the next version; empty: nothing. Changes nothing."""
        described = schema_of(given).json_schema()
        wanted = None if compatibility is None else check_compatibility(compatibility)
        known = self._state.current().get(_key(subject))
        if not known:
            return []
        return incompatibilities(known[-1].schema, described, wanted or known[-1].compatibility)

    def subjects(self) -> dict[str, SchemaVersion]:
        """The latest version of each, by name."""
        return {key.decode(): versions[-1]
                for key, versions in sorted(self._state.current().copy().items())}

    def versions(self, subject: str) -> Versions:
        """All, from the first on. Raises UnknownSchemaError."""
        found: Versions | None = self._state.current().get(_key(subject))
        if found is None:
            raise UnknownSchemaError(f"there is no schema of {subject!r}; register one first",
                                     subject=subject)
        return found

    def get(self, subject: str, version: int | None = None) -> SchemaVersion:
        """One version; None: the latest. Raises UnknownSchemaError."""
        found = self.versions(subject)
        if version is None:
            return found[-1]
        if not 1 <= version <= len(found):
            raise UnknownSchemaError(f"{subject!r} has the versions 1 to {len(found)}, and no "
                                     f"{version}", subject=subject)
        return found[version - 1]

    def by_id(self, number: int) -> SchemaVersion:
        """The version that the header schema_id of a record names. Raises UnknownSchemaError."""
        if isinstance(number, bool) or not isinstance(number, int):
            raise TypeError(f"an id must be an int, not {type(number).__name__}: "
                            "int(record.header('schema_id'))")
        for versions in self._state.current().copy().values():
            for one in versions:
                if one.id == number:
                    found: SchemaVersion = one
                    return found
        raise UnknownSchemaError(f"there is no schema of the id {number}; was its topic deleted?")

    def _check_headers(self, headers: Iterable[tuple[str, bytes | None]]) -> None:
        """Of a record. Raises UnknownSchemaError."""
        for name, value in headers:
            if name == SCHEMA_ID and value not in self._seen:
                try:
                    self.by_id(number_of(value))
                except ClosedError:    # nobody knows any more: the value says whether it fits
                    return
                except UnknownSchemaError:
                    raise UnknownSchemaError(
                        f"its header {SCHEMA_ID} is {text_of(value)!r}, and {self._state.topic!r} "
                        "has no such schema: it is of another broker, or that topic was deleted; "
                        "restore it, or read with the type itself as value=") from None
                self._seen.add(value)

    def close(self) -> None:
        """Closes the broker if it was opened here; idempotent."""
        self._state.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Schemas in {self._state.topic!r}>"


def _key(subject: object) -> bytes:
    if not isinstance(subject, str):
        raise TypeError(f"a subject must be a str, not {type(subject).__name__}")
    if not subject:
        raise ConfigurationError("a subject must have a name; use that of the topic",
                                 option="subject", value=subject)
    return subject.encode()
