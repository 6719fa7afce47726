"""The registry: versions of schemas follow each other as their compatibility says."""

import json
import threading

import jsonschema
import msgspec
import pytest
from children import in_child

import pylog
from pylog import Broker
from pylog.patterns.compatibility import incompatibilities
from pylog.patterns.pubsub import Topic
from pylog.patterns.registry import Schemas


class Old(msgspec.Struct):
    user: str
    total: float


class New(msgspec.Struct):
    user: str
    total: float
    note: str = ""


class Stricter(msgspec.Struct):
    user: str
    total: float
    note: str


OBJECT = {"type": "object"}


def of(properties, required=(), **more):
    return OBJECT | {"properties": properties, "required": list(required)} | more


INT, STR = {"type": "integer"}, {"type": "string"}


@pytest.fixture
def broker(tmp_path):
    with Broker(tmp_path / "data") as broker:
        yield broker


@pytest.fixture
def schemas(broker):
    return Schemas(broker)


def test_versions_are_counted_and_kept(broker, schemas):
    schemas.register("orders", Old)
    schemas.register("users", of({"name": STR}))
    schemas.register("orders", New)

    assert [(one.version, one.id) for one in schemas.versions("orders")] == [(1, 0), (2, 2)]
    assert schemas.get("orders").schema["$defs"]["New"]["required"] == ["user", "total"]
    assert schemas.get("orders", 1) == schemas.by_id(0)
    assert {name: one.version for name, one in schemas.subjects().items()} \
        == {"orders": 2, "users": 1}
    assert Schemas(broker).versions("orders") == schemas.versions("orders")


def test_the_same_schema_again_is_no_new_version(broker, schemas):
    first = schemas.register("orders", Old)

    assert schemas.register("orders", Old).headers == first.headers
    assert in_child(lambda: register_in(broker.path)) == first.headers
    assert len(schemas.versions("orders")) == 1


def register_in(path):
    with Schemas(path) as schemas:
        return schemas.register("orders", Old).headers


def test_what_does_not_go_with_the_version_before_is_refused_with_reasons(schemas):
    schemas.register("orders", Old)

    with pytest.raises(pylog.IncompatibleSchemaError, match="note: FIELD_REQUIRED") as caught:
        schemas.register("orders", Stricter)

    assert [(one.path, one.rule) for one in caught.value.reasons] == [("note", "FIELD_REQUIRED")]
    assert caught.value.subject == "orders"
    assert schemas.check("orders", Stricter) == caught.value.reasons
    assert schemas.check("orders", New) == []
    assert schemas.check("nobody", Stricter) == []
    assert len(schemas.versions("orders")) == 1


def test_compatibility_stays_with_the_subject_until_it_is_said_anew(schemas):
    schemas.register("orders", Old, "forward")
    schemas.register("orders", Stricter)
    with pytest.raises(pylog.IncompatibleSchemaError):
        schemas.register("orders", of({}))

    schemas.register("orders", of({}), "NONE")

    assert [one.compatibility for one in schemas.versions("orders")] \
        == ["FORWARD", "FORWARD", "NONE"]


def test_records_bear_the_id_of_the_schema_that_they_were_written_with(broker, schemas):
    for kind in (Old, New):
        with Topic(broker, "orders", value=schemas.register("orders", kind)) as orders:
            orders.publish(kind("ann", 1.0), headers={"tenant": "eu"})

    ids = [int(record.header("schema_id")) for record in broker.read("orders")]
    assert [schemas.by_id(one).version for one in ids] == [1, 2]
    assert next(broker.read("orders")).header("tenant") == b"eu"
    with Topic(broker, "orders", value=New) as orders:
        assert [record.value for record in orders.read()] == [New("ann", 1.0)] * 2


def test_those_who_register_at_once_follow_each_other(schemas, broker):
    wide = [of({f"field {n}": STR}) for n in range(8)]
    threads = [threading.Thread(target=Schemas(broker).register, args=["orders", one])
               for one in wide]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    found = schemas.versions("orders")
    assert [one.version for one in found] == list(range(1, 9))
    assert sorted(json.dumps(one.schema) for one in found) == sorted(map(json.dumps, wide))


def test_records_that_make_no_sense_are_skipped(broker, schemas):
    schemas.register("orders", Old)
    for value in (b"{", b"[]", b'{"version": 1, "compatibility": "BACKWARD", "schema": {}}',
                  b'{"version": 2, "compatibility": "SOME", "schema": {}}',
                  b'{"version": 2, "compatibility": "FULL", "schema": 5}', b'{"version": 2}'):
        broker.append("_schemas", value, key=b"orders")

    assert len(schemas.versions("orders")) == len(Schemas(broker).versions("orders")) == 1
    schemas.register("orders", New)
    assert schemas.get("orders").version == 2


@pytest.mark.parametrize(("call", "error"), [
    (lambda schemas: schemas.get("nobody"), pylog.UnknownSchemaError),
    (lambda schemas: schemas.get("orders", 2), KeyError),
    (lambda schemas: schemas.get("orders", 0), pylog.UnknownSchemaError),
    (lambda schemas: schemas.by_id(7), pylog.UnknownSchemaError),
    (lambda schemas: schemas.register("", Old), pylog.ConfigurationError),
    (lambda schemas: schemas.register(7, Old), TypeError),
    (lambda schemas: schemas.register("orders", Old, "SIDEWARDS"), pylog.ConfigurationError),
    (lambda schemas: schemas.register("orders", Old, 7), pylog.ConfigurationError),
    (lambda schemas: schemas.register("orders", lambda value: value), pylog.NotSupportedError),
    (lambda schemas: schemas.register("orders", {"type": "thing"}), pylog.ConfigurationError),
    (lambda schemas: schemas.check("orders", 7), TypeError),
])
def test_misuse_is_told(schemas, call, error):
    schemas.register("orders", Old)

    with pytest.raises(error):
        call(schemas)


# ---- compatibility


@pytest.mark.parametrize(("old", "new", "rules"), [
    (of({"a": INT}), of({"a": INT, "b": STR}), []),
    (of({"a": INT}, "a"), of({"a": INT}), []),
    (of({"a": INT}), of({"a": INT}, "a"), ["a FIELD_REQUIRED"]),
    (of({"a": INT}), of({"a": INT, "b": STR}, "b"), ["b FIELD_REQUIRED"]),
    (of({"a": INT}), of({}), []),
    (of({"a": INT}), of({}, additionalProperties=False), ["a FIELD_REMOVED"]),
    (of({"a": INT}), of({}, additionalProperties=STR), ["a TYPE_CHANGED", "* NARROWED"]),
    (of({"a": INT}), of({"a": {"type": "number"}}), []),
    (of({"a": {"type": "number"}}), of({"a": INT}), ["a TYPE_CHANGED"]),
    (of({"a": INT}), of({"a": STR}), ["a TYPE_CHANGED"]),
    (of({"a": INT}), of({"a": {"type": ["integer", "null"]}}), []),
    (of({"a": {"type": ["integer", "null"]}}), of({"a": INT}), ["a TYPE_CHANGED"]),
    (of({"a": {"anyOf": [INT, STR]}}), of({"a": {"anyOf": [STR, {"type": "null"}]}}),
     ["a ALTERNATIVE_REMOVED"]),
    (of({"a": {"anyOf": [INT, STR]}}), of({"a": {"oneOf": [STR, INT, OBJECT]}}), []),
    (of({"a": {"enum": [1, 2]}}), of({"a": {"enum": [1, 2, 3]}}), []),
    (of({"a": {"enum": [1, 2]}}), of({"a": {"enum": [1]}}), ["a ENUM_VALUE_REMOVED"]),
    (of({"a": INT}), of({"a": INT | {"enum": [1]}}), ["a ENUM_ADDED"]),
    (of({"a": {"const": 1}}), of({"a": {"const": 2}}), ["a ENUM_VALUE_REMOVED"]),
    (of({"a": INT | {"minimum": 1}}), of({"a": INT | {"minimum": 0}}), []),
    (of({"a": INT}), of({"a": INT | {"minimum": 0}}), ["a BOUND_TIGHTENED"]),
    (of({"a": STR | {"maxLength": 9}}), of({"a": STR | {"maxLength": 8}}), ["a BOUND_TIGHTENED"]),
    (of({"a": STR}), of({"a": STR | {"pattern": "^x"}}), ["a CONSTRAINT_CHANGED"]),
    (of({"a": STR | {"pattern": "^x"}}), of({"a": STR}), []),
    (of({"a": {"type": "array", "items": INT}}), of({"a": {"type": "array", "items": STR}}),
     ["a[0] TYPE_CHANGED"]),
    (of({"a": {"type": "array"}}), of({"a": {"type": "array", "items": STR}}),
     ["a[0] NARROWED"]),
    (of({"a": {"$ref": "#/$defs/A"}}, **{"$defs": {"A": INT}}), of({"a": INT}), []),
    (of({"a": {"$ref": "#/$defs/A"}}, **{"$defs": {"A": INT}}),
     of({"a": {"$ref": "#/$defs/A"}}, **{"$defs": {"A": STR}}), ["a TYPE_CHANGED"]),
    (of({}), of({}, allOf=[OBJECT]), [" NOT_COMPARABLE"]),
    (of({}, allOf=[OBJECT]), of({}, allOf=[OBJECT]), []),
    ({}, {}, []), ({}, INT, [" TYPE_CHANGED"]), (INT, {}, []),
], ids=lambda value: json.dumps(value)[:80])
def test_reader_of_the_new_schema_reads_what_the_old_one_wrote_or_it_is_said_why_not(
        old, new, rules):
    assert [f"{one.path} {one.rule}" for one in incompatibilities(old, new)] == rules
    assert incompatibilities(new, old, "FORWARD") == incompatibilities(old, new)
    assert incompatibilities(old, new, "NONE") == []
    assert set(incompatibilities(old, new, "FULL")) \
        == {*incompatibilities(old, new), *incompatibilities(new, old)}


def test_types_that_contain_themselves_come_to_an_end():
    tree = {"$ref": "#/$defs/T", "$defs": {"T": of({"children": {
        "type": "array", "items": {"$ref": "#/$defs/T"}}})}}
    loop = {"$ref": "#/$defs/L", "$defs": {"L": {"$ref": "#/$defs/L"}}}
    other = json.loads(json.dumps(tree))
    other["$defs"]["T"]["properties"]["size"] = INT

    assert incompatibilities(tree, other) == []
    incompatibilities(loop, tree), incompatibilities(tree, loop)


def made(schema, rng):
    """A value that fits, with no fields but those that are declared."""
    if "enum" in schema:
        return rng.choice(schema["enum"])
    if "anyOf" in schema:
        return made(rng.choice(schema["anyOf"]), rng)
    kind = schema["type"]
    if isinstance(kind, list):
        return made(schema | {"type": rng.choice(kind)}, rng)
    if kind == "integer":
        return schema.get("minimum", -5) + rng.randrange(10)
    if kind == "string":
        return "x" * rng.randrange(schema.get("maxLength", 9) + 1)
    if kind == "array":
        return [made(schema["items"], rng) for _ in range(rng.randrange(3))]
    if kind == "object":
        return {name: made(one, rng) for name, one in schema["properties"].items()
                if name in schema["required"] or rng.random() < 0.5}
    return None if kind == "null" else rng.choice([0, 1.5, -7])


KINDS = [INT, STR, {"type": "number"}, {"type": "null"}, {"enum": [1, 2]}, {"enum": [2]},
         INT | {"minimum": 0}, INT | {"minimum": 2}, STR | {"maxLength": 3}, STR | {"maxLength": 1},
         {"type": ["integer", "null"]}, {"anyOf": [STR, INT]}, {"anyOf": [INT, {"type": "null"}]}]


def changed(schema, rng):
    """The same with a change or two, as a next version has."""
    if schema.get("type") == "array" and rng.random() < 0.8:
        return schema | {"items": changed(schema["items"], rng)}
    if schema.get("type") != "object" or rng.random() < 0.1:
        return rng.choice(KINDS)
    fields = dict(schema["properties"])
    for name in rng.sample("abc", rng.randrange(3)):
        if name not in fields:
            fields[name] = rng.choice(KINDS)
        elif rng.random() < 0.2:
            del fields[name]
        else:
            fields[name] = changed(fields[name], rng)
    required = {name for name in fields if (name in schema["required"]) ^ (rng.random() < 0.1)}
    return schema | {"properties": fields, "required": sorted(required)} \
        | ({"additionalProperties": False} if rng.random() < 0.2 else {})


def test_what_is_called_compatible_is_read_by_an_independent_judge(rng):
    """And it is no judge that calls nothing so."""
    judged = {True: 0, False: 0}
    for _ in range(1500):
        old = changed(of({name: rng.choice(KINDS) for name in "ab"}, "a"), rng)
        new = changed(old, rng)
        assert incompatibilities(old, old) == []
        reasons = incompatibilities(old, new)
        judged[not reasons] += 1
        validator = jsonschema.Draft202012Validator(new)
        fits = all(validator.is_valid(made(old, rng)) for _ in range(12))
        assert fits or reasons, (old, new)
    assert min(judged.values()) > 300
