"""Whether one version of a schema goes with another, and what exactly does not.

    BACKWARD    the new one reads what the old one wrote      readers are upgraded first
    FORWARD     the old one reads what the new one writes     writers are upgraded first
    FULL        both
    NONE        anything goes

The words and their meaning are those of Confluent's Schema Registry, the comparison is of JSON
Schemas. One thing is taken easier than there: a field that only the reader knows, and does not
require, may be added to a schema that is not closed. Strictly, old records may have had anything
under that name; those who wrote them wrote what their type declares.
"""

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

from pylog import ConfigurationError
from pylog.patterns.schema import path_of

Compatibility = Literal["BACKWARD", "FORWARD", "FULL", "NONE"]
COMPATIBILITIES = ("BACKWARD", "FORWARD", "FULL", "NONE")

# What the reader may not ask more of than the writer gave: the bound, and whether it is the least.
BOUNDS = {
    "minimum": True, "exclusiveMinimum": True, "minLength": True, "minItems": True,
    "minProperties": True, "maximum": False, "exclusiveMaximum": False, "maxLength": False,
    "maxItems": False, "maxProperties": False,
}
SAME = ("pattern", "format", "multipleOf", "uniqueItems")    # kept, or dropped by the reader
INCOMPARABLE = ("allOf", "not", "if", "dependentSchemas", "patternProperties", "prefixItems",
                "contains", "propertyNames")
KINDS = {"null", "boolean", "object", "array", "number", "string"}
DEPTH_MAX = 64    # of types that contain themselves

Place = tuple[str | int, ...]


class Reason(NamedTuple):
    """Why two schemas do not go together. path: of the field. rule: FIELD_REQUIRED and the like."""

    path: str
    rule: str
    message: str

    def __str__(self) -> str:
        return f"{self.path or 'the value'}: {self.rule}: {self.message}"


def check_compatibility(name: object) -> Compatibility:
    """Returns it in capitals. Raises ConfigurationError."""
    word = name.upper() if isinstance(name, str) else name
    if word not in COMPATIBILITIES:
        raise ConfigurationError(f"compatibility={name!r} is unknown; use one of "
                                 f"{', '.join(COMPATIBILITIES)}", option="compatibility",
                                 value=name)
    return word  # type: ignore[return-value]


def incompatibilities(old: dict[str, Any], new: dict[str, Any],
                      compatibility: Compatibility = "BACKWARD") -> list[Reason]:
    """What keeps `new` from following `old`; empty: nothing does.

        >>> old = {"type": "object", "properties": {"user": {"type": "string"}}}
        >>> new = old | {"required": ["user"]}
        >>> print(*incompatibilities(old, new))
        user: FIELD_REQUIRED: who reads requires it, and who wrote did not
        >>> incompatibilities(old, new, "FORWARD")
        []
    """
    found: list[Reason] = []
    if compatibility in ("BACKWARD", "FULL"):
        found += _Comparison(old, new).run()
    if compatibility in ("FORWARD", "FULL"):
        found += _Comparison(new, old).run()
    return list(dict.fromkeys(found))


class _Comparison:
    """Whether all that fits the writer's schema fits the reader's."""

    def __init__(self, writer: dict[str, Any], reader: dict[str, Any]) -> None:
        self.roots = writer, reader
        self.inside: list[tuple[int, int]] = []    # pairs that are being compared: may recur

    def run(self) -> list[Reason]:
        return list(self.compare(*self.roots, ()))

    def compare(self, writer: Any, reader: Any, place: Place) -> Iterator[Reason]:
        writer, reader = (_resolved(one, root)
                          for one, root in zip((writer, reader), self.roots, strict=True))
        pair = id(writer), id(reader)
        if reader == writer and self.roots[0] == self.roots[1]:
            return
        if reader is True or reader == {} or writer is False or pair in self.inside \
                or len(self.inside) > DEPTH_MAX:
            return
        if reader is False or writer is True or not isinstance(writer, dict) \
                or not isinstance(reader, dict):
            yield _reason(place, "NARROWED", "who reads takes less than anything")
            return
        self.inside.append(pair)
        try:
            yield from self._compare_dicts(writer, reader, place)
        finally:
            self.inside.pop()

    def _compare_dicts(self, writer: dict[str, Any], reader: dict[str, Any], place: Place
                       ) -> Iterator[Reason]:
        for word in INCOMPARABLE:
            if word in reader and reader[word] != writer.get(word):
                yield _reason(place, "NOT_COMPARABLE", f"{word!r} has changed, and what that means "
                                                       "is not looked into")
                return
        written, read = _alternatives(writer), _alternatives(reader)
        if len(written) > 1 or len(read) > 1:
            yield from self._each_has_one(written, read, place)
            return
        taken = _kinds(reader)
        lost = _kinds(writer) - taken - ({"integer"} if "number" in taken else set())
        if lost:
            yield _reason(place, "TYPE_CHANGED", "who reads does not take "
                          f"{', '.join(sorted(lost))}, but {', '.join(sorted(taken))}")
            return
        yield from self._values(writer, reader, place)
        yield from self._fields(writer, reader, place)
        if "items" in reader:
            yield from self.compare(writer.get("items", True), reader["items"], (*place, 0))

    def _each_has_one(self, written: list[Any], read: list[Any], place: Place
                      ) -> Iterator[Reason]:
        for one in written:
            tries = [list(self.compare(one, other, place)) for other in read]
            if all(tries):
                if len(read) == 1:
                    yield from tries[0]
                else:
                    yield _reason(place, "ALTERNATIVE_REMOVED",
                                  f"who reads takes nothing like {_short(one)}")

    def _values(self, writer: dict[str, Any], reader: dict[str, Any], place: Place
                ) -> Iterator[Reason]:
        written, read = _enum(writer), _enum(reader)
        if read is not None:
            lost = None if written is None else [one for one in written if one not in read]
            if lost is None:
                yield _reason(place, "ENUM_ADDED", f"who reads takes {_short(read)} only")
            elif lost:
                yield _reason(place, "ENUM_VALUE_REMOVED",
                              f"who reads does not take {_short(lost)}")
        for word, is_least in BOUNDS.items():
            bound, was = reader.get(word), writer.get(word)
            if bound is not None and (was is None or (bound > was if is_least else bound < was)):
                yield _reason(place, "BOUND_TIGHTENED", f"{word} is {bound} for who reads, and was "
                                                        f"{'none' if was is None else was}")
        for word in SAME:
            if word in reader and reader[word] not in (writer.get(word), False):
                yield _reason(place, "CONSTRAINT_CHANGED", f"{word} is {reader[word]!r} for who "
                                                           f"reads, and was {writer.get(word)!r}")

    def _fields(self, writer: dict[str, Any], reader: dict[str, Any], place: Place
                ) -> Iterator[Reason]:
        written, read = writer.get("properties", {}), reader.get("properties", {})
        for name in reader.get("required", ()):
            if name not in writer.get("required", ()):
                yield _reason((*place, name), "FIELD_REQUIRED",
                              "who reads requires it, and who wrote did not")
        others = reader.get("additionalProperties", True)
        for name, kind in written.items():
            if name in read:
                yield from self.compare(kind, read[name], (*place, name))
            elif others is False:
                yield _reason((*place, name), "FIELD_REMOVED",
                              "who reads takes no fields but its own, and this is none any more")
            else:
                yield from self.compare(kind, others, (*place, name))
        if "additionalProperties" in reader and others is not True:
            open_writer = writer.get("additionalProperties", True)
            if open_writer is True and others is False and written:
                return    # who wrote wrote what is declared; see the top of this file
            yield from self.compare(open_writer, others, (*place, "*"))


def _resolved(schema: Any, root: dict[str, Any]) -> Any:
    """What a local $ref stands for."""
    for _ in range(DEPTH_MAX):
        if not isinstance(schema, dict) or not isinstance(ref := schema.get("$ref"), str):
            return schema
        found: Any = root
        for step in ref.removeprefix("#").strip("/").split("/"):
            if step:
                found = found.get(step.replace("~1", "/").replace("~0", "~"), {}) \
                    if isinstance(found, dict) else {}
        schema = found
    return schema


def _alternatives(schema: dict[str, Any]) -> list[Any]:
    for word in ("anyOf", "oneOf"):
        if isinstance(schema.get(word), list):
            return list(schema[word])
    kinds = schema.get("type")
    if isinstance(kinds, list):
        return [schema | {"type": kind} for kind in kinds]
    return [schema]


def _kinds(schema: dict[str, Any]) -> set[str]:
    kind = schema.get("type")
    if isinstance(kind, str):
        return {kind}
    return {"object"} if "properties" in schema else KINDS


def _enum(schema: dict[str, Any]) -> list[Any] | None:
    if "const" in schema:
        return [schema["const"]]
    found: list[Any] | None = schema.get("enum")
    return found


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _reason(place: Place, rule: str, message: str) -> Reason:
    return Reason(path_of(place), rule, message)
