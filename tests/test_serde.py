"""Typed keys and values: what goes in comes out, and what does not fit is told with its place."""

import functools
import json
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

import pylog
from pylog import _native
from pylog.serde import TypedRecord, make_deserializer, make_serializer, typed_record

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text()
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10)


def record_of(value, key=None, headers=None):
    return _native.make_record("orders", 2, 17, 1000, 0, key, value, headers, 3)


def there_and_back(name, value):
    data = make_serializer(name, "value_serializer")("orders", None, value)
    return make_deserializer(name, "value_deserializer")(record_of(data))


class ThreeArguments:
    def serialize(self, topic, headers, data):
        return f"{topic} {headers} {data}".encode()

    def deserialize(self, topic, headers, data):
        return topic, headers, data


class TwoArguments:
    def serialize(self, topic, data):
        return f"{topic} {data}".encode()

    def deserialize(self, topic, data):
        return topic, data


@given(JSON)
def test_json_comes_back_as_it_was(value):
    assert there_and_back("json", value) == value


@given(st.text())
def test_text_comes_back_as_it_was(value):
    assert there_and_back("str", value) == value


@pytest.mark.parametrize("given", [None, "bytes"])
def test_bytes_need_no_serializer(given):
    assert make_serializer(given, "key_serializer") is None
    assert make_deserializer(given, "key_deserializer") is None


@pytest.mark.parametrize("given", ["str", "json", str.encode, ThreeArguments()],
                         ids=["str", "json", "callable", "object"])
def test_null_stays_null(given):
    assert make_serializer(given, "value_serializer")("orders", None, None) is None


@pytest.mark.parametrize("given", ["str", "json", bytes.decode, ThreeArguments()],
                         ids=["str", "json", "callable", "object"])
def test_tombstone_stays_one(given):
    assert make_deserializer(given, "value_deserializer")(record_of(None)) is None


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_json_may_be_in_another_encoding(encoding):
    data = '{"fruit":"\u00e4pple"}'.encode(encoding)
    assert make_deserializer("json", "value_deserializer")(record_of(data)) == {"fruit": "äpple"}


def test_callable_gets_the_value_alone():
    assert make_serializer(str.encode, "key_serializer")("orders", None, "a") == b"a"
    assert make_deserializer(int, "key_deserializer")(record_of(None, b"12")) == 12


def test_object_is_called_as_kafka_python_calls_it():
    headers = [("h", b"x")]

    assert make_serializer(ThreeArguments(), "value_serializer")("t", headers, 5) \
        == b"t [('h', b'x')] 5"
    assert make_serializer(TwoArguments(), "value_serializer")("t", headers, 5) == b"t 5"
    record = record_of(b"v", headers=headers)
    assert make_deserializer(ThreeArguments(), "value_deserializer")(record) \
        == ("orders", (("h", b"x"),), b"v")
    assert make_deserializer(TwoArguments(), "value_deserializer")(record) == ("orders", b"v")


@pytest.mark.parametrize(("given", "error", "words"), [
    ("jsn", ValueError, "did you mean 'json'"),
    ("protobuf", pylog.ConfigurationError, "a callable"),
    (5, TypeError, "not int"),
    (ThreeArguments, TypeError, r"pass an instance, ThreeArguments\(\)"),
    (type("One", (), {"serialize": lambda self, data: b"", "deserialize": lambda self, d: 1})(),
     TypeError, r"\(topic, data\)"),
])
def test_what_is_no_serializer_is_refused(given, error, words):
    with pytest.raises(error, match=words):
        make_serializer(given, "value_serializer")
    with pytest.raises(error, match=words):
        make_deserializer(given, "value_deserializer")


async def later(value):
    return value


class AsyncMethods:
    async def serialize(self, topic, headers, data):
        return data

    async def deserialize(self, topic, data):
        return data


class AsyncCall:
    async def __call__(self, value):
        return value


@pytest.mark.parametrize("given", [
    later, functools.partial(later), AsyncMethods(), AsyncCall(), AsyncMethods().serialize])
@pytest.mark.parametrize("make", [make_serializer, make_deserializer])
def test_what_is_async_is_refused(given, make):
    with pytest.raises(TypeError, match=r"(later|partial|Async\w+(\.serialize)?) is async"):
        make(given, "value_serializer")


@pytest.mark.filterwarnings(    # of any warning it might be one of what another test left behind
    "error:coroutine .* was never awaited", r"error:(?s).*coroutine object later.*")
def test_what_turns_out_to_be_async_is_told():
    with pytest.raises(pylog.SerializationError, match="async"):
        make_serializer(lambda value: later(value), "value_serializer")("orders", None, b"x")
    with pytest.raises(pylog.DeserializationError, match="async"):
        make_deserializer(lambda value: later(value), "value_deserializer")(record_of(b"x"))


@pytest.mark.parametrize(("given", "value", "cause"), [
    ("str", 5, TypeError), ("str", b"bytes", TypeError), ("str", "\ud800", UnicodeEncodeError),
    ("json", b"bytes", TypeError), ("json", {1, 2}, TypeError), (str.encode, 5, TypeError),
    ("json", {"a": float("nan")}, ValueError), ("json", [float("-inf")], ValueError),
    (lambda value: 1 / 0, "x", ZeroDivisionError),
])
def test_value_that_does_not_fit_is_told_with_what_it_is(given, value, cause):
    with pytest.raises(pylog.SerializationError, match="nothing was appended") as caught:
        make_serializer(given, "value_serializer")("orders", None, value)

    assert isinstance(caught.value.__cause__, cause)
    assert (caught.value.topic, caught.value.field) == ("orders", "value")


@pytest.mark.parametrize("result", ["text", 5, [b"x"]])
def test_serializer_that_returns_no_bytes_is_told(result):
    with pytest.raises(pylog.SerializationError, match=f"returned {type(result).__name__}"):
        make_serializer(lambda key: result, "key_serializer")("orders", None, "x")


@pytest.mark.parametrize(("given", "data"), [
    ("json", b"{"), ("json", b"\xff"), ("json", b""), ("str", b"\xff"), (int, b"x"),
])
def test_bytes_that_do_not_fit_are_told_with_their_place(given, data):
    record = record_of(data)

    with pytest.raises(ValueError, match=r"at offset 17 of orders-2.*seek to 18") as caught:
        make_deserializer(given, "value_deserializer")(record)

    error = caught.value
    assert isinstance(error, pylog.DeserializationError)
    assert (error.topic, error.partition, error.offset, error.field) == ("orders", 2, 17, "value")
    assert error.record is record
    assert pickle.loads(pickle.dumps(error)).record == record


def test_typed_record_has_the_attributes_of_a_record():
    raw = record_of(b'{"a":1}', b"k", [("h", b"x")])
    record = typed_record(raw, make_deserializer("str", "key_deserializer"),
                          make_deserializer("json", "value_deserializer"))

    of_bytes_alone = {"value_view", "replace"}
    names = [name for name in dir(raw) if not name.startswith("_") and name not in of_bytes_alone]
    for name in set(names) - {"key", "value", "header"}:
        assert getattr(record, name) == getattr(raw, name), name
    assert (record.header("h"), record.header("i", 5)) == (b"x", 5)
    assert (record.key, record.value, record.raw) == ("k", {"a": 1}, raw)
    assert TypedRecord.__match_args__ == pylog.Record.__match_args__
    assert "value={'a': 1}" in repr(record)
    with pytest.raises(AttributeError):
        record.offset = 5


def test_typed_records_compare_by_what_they_hold():
    raw = record_of(json.dumps([1]).encode())
    one, two = TypedRecord(raw, None, [1]), TypedRecord(raw, None, [1])

    assert one == two
    assert hash(one) == hash(two)
    assert pickle.loads(pickle.dumps(one)) == one
    assert one != TypedRecord(raw, None, [2])
    assert one != raw
