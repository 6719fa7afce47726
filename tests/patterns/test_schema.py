"""Schemas: what does not fit its type is not sent, and told field by field where it is read."""

import json
import sys
import typing
from dataclasses import dataclass, field

import msgspec
import pydantic
import pytest
from waiting import until

import pylog
from pylog import Broker, Consumer, Producer
from pylog.patterns import DeadLetters
from pylog.patterns import schema as schema_module
from pylog.patterns.pubsub import Topic
from pylog.patterns.rpc import Rpc
from pylog.patterns.schema import schema_of


class Item(msgspec.Struct):
    product: str
    quantity: typing.Annotated[int, msgspec.Meta(ge=1)] = 1


class Order(msgspec.Struct):
    user: str
    total: float
    items: list[Item] = []


class ModelItem(pydantic.BaseModel):
    product: str
    quantity: int = pydantic.Field(1, ge=1)


class Model(pydantic.BaseModel):
    user: str
    total: float
    items: list[ModelItem] = []


@dataclass
class DataItem:
    product: str
    quantity: int = 1


@dataclass
class Data:
    user: str
    total: float
    items: list[DataItem] = field(default_factory=list)


class Typed(typing.TypedDict):
    user: str
    total: float
    items: list[dict]


DESCRIBED = {
    "title": "Described", "type": "object", "required": ["user", "total"],
    "properties": {
        "user": {"type": "string"}, "total": {"type": "number"},
        "items": {"type": "array", "items": {
            "type": "object", "required": ["product"],
            "properties": {"product": {"type": "string"},
                           "quantity": {"type": "integer", "minimum": 1}}}}}}


def checked(value):
    for name, kind in (("user", str), ("total", float)):
        if not isinstance(value[name], kind):
            raise TypeError(f"{name} is no {kind.__name__}")


KINDS = {"msgspec": Order, "pydantic": Model, "dataclass": Data, "TypedDict": Typed,
         "JSON Schema": DESCRIBED, "function": checked}
GOOD = {"user": "ann", "total": 12.5, "items": [{"product": "apple", "quantity": 2}]}
each_kind = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
described_kinds = pytest.mark.parametrize("kind", [Order, Model, Data, DESCRIBED])


@pytest.fixture
def broker(tmp_path):
    with Broker(tmp_path / "data") as broker:
        broker.create_topic("orders")
        yield broker


def plain(value):
    return json.loads(msgspec.json.encode(value)) if not isinstance(value, pydantic.BaseModel) \
        else value.model_dump()


@each_kind
def test_value_that_fits_goes_and_comes_back(broker, kind):
    orders = schema_of(kind)
    value = orders.deserialize("orders", None, json.dumps(GOOD).encode())

    with Producer(broker, value_serializer=orders) as producer:
        producer.send("orders", value)
    with Consumer(broker, "orders", value_deserializer=orders, consumer_timeout_ms=0) as consumer:
        found = [record.value for record in consumer]

    assert found == [value]
    assert plain(found[0]) == GOOD
    if isinstance(kind, type) and kind is not Typed:
        assert isinstance(found[0], kind)


@each_kind
@pytest.mark.parametrize("wrong", [{"user": 7, "total": 1.0}, {"user": "ann", "total": "much"},
                                   {"user": "ann"}, {}], ids=str)
def test_value_that_does_not_fit_is_neither_sent_nor_read(broker, kind, wrong):
    orders = schema_of(kind)
    broker.append("orders", json.dumps(wrong).encode())

    with Producer(broker, value_serializer=orders) as producer:
        with pytest.raises(pylog.ValidationError, match="nothing was appended") as sent:
            producer.send("orders", wrong)
    with Consumer(broker, "orders", value_deserializer=orders, consumer_timeout_ms=0) as consumer:
        with pytest.raises(pylog.ValidationError, match="at offset 0 of orders-0") as read:
            next(consumer)

    assert broker.log("orders").end_offset == 1
    for error in (sent.value, read.value):
        assert error.errors
        assert isinstance(error, pylog.SerdeError)
        assert error.topic == "orders"
    assert (read.value.offset, read.value.record.value) == (0, json.dumps(wrong).encode())


@described_kinds
@pytest.mark.parametrize(("change", "path"), [
    ({"total": "much"}, "total"), ({"items": [{"product": "apple"}, {"product": 7}]},
                                   "items[1].product"),
    ({"items": 7}, "items")], ids=str)
def test_error_names_the_field(kind, change, path):
    with pytest.raises(pylog.ValidationError) as caught:
        schema_of(kind).deserialize("orders", None, json.dumps(GOOD | change).encode())

    assert [name for name, _ in caught.value.errors] == [path]
    assert f"{path}: " in str(caught.value)


@pytest.mark.parametrize("kind", [Order, Model, DESCRIBED])
def test_bounds_of_fields_are_kept(kind):
    wrong = GOOD | {"items": [{"product": "apple", "quantity": 0}]}

    with pytest.raises(pylog.ValidationError, match=r"items\[0\]\.quantity"):
        schema_of(kind).serialize("orders", None, wrong)


@pytest.mark.parametrize("kind", [Model, DESCRIBED])
def test_all_fields_that_are_wrong_are_told_but_not_without_end(kind):
    wrong = {"user": 1, "total": "x", "items": [{"product": n} for n in range(20)]}

    with pytest.raises(pylog.ValidationError, match="and 17 more") as caught:
        schema_of(kind).deserialize("orders", None, json.dumps(wrong).encode())

    assert len(caught.value.errors) == 22
    assert len(str(caught.value)) < 600


@each_kind
@pytest.mark.parametrize("data", [b"", b"{", b"\xff", b"{'user': 1}", b"nonsense"])
def test_what_is_no_json_is_a_deserialization_error(broker, kind, data):
    broker.append("orders", data)

    with Consumer(broker, "orders", value_deserializer=schema_of(kind)) as consumer:
        with pytest.raises(pylog.DeserializationError):
            next(consumer)


@each_kind
def test_what_is_no_json_cannot_be_sent(broker, kind):
    with Producer(broker, value_serializer=schema_of(kind)) as producer:
        for wrong in (object(), {"user": {1, 2}, "total": object()}, float("nan")):
            with pytest.raises(pylog.SerdeError):
                producer.send("orders", wrong)

    assert broker.log("orders").end_offset == 0


def test_object_that_was_changed_after_it_was_made_is_checked(broker):
    order, model = Order("ann", 1.0), Model(user="ann", total=1.0)
    order.user = model.user = 7

    for value in (order, model):
        with pytest.raises(pylog.ValidationError, match="user"):
            schema_of(type(value)).serialize("orders", None, value)


def test_function_may_refuse_by_false_and_may_return_another_value():
    positive = schema_of(lambda value: value > 0)
    celsius = schema_of(lambda value: (value - 32) / 1.8)

    assert positive.deserialize("t", None, positive.serialize("t", None, 1)) == 1
    with pytest.raises(pylog.ValidationError, match="it is refused"):
        positive.serialize("t", None, -1)
    assert celsius.deserialize("t", None, b"212") == 100


def test_other_types_that_the_library_knows_will_do():
    many = schema_of(list[Order])

    assert many.deserialize("t", None, many.serialize("t", None, [Order("a", 1.0)])) \
        == [Order("a", 1.0)]
    assert schema_of(dict).deserialize("t", None, b'{"a": 1}') == {"a": 1}
    with pytest.raises(pylog.ValidationError, match=r"\[0\]\.user"):
        many.deserialize("t", None, b'[{"user": 1, "total": 1}]')


@pytest.mark.parametrize(("given", "error"), [
    (7, TypeError), (None, TypeError), ("json", TypeError), ([Order], TypeError),
    (bytes, pylog.ConfigurationError), ({"type": "thing"}, pylog.ConfigurationError),
    ({"properties": 5}, pylog.ConfigurationError), (type("Mine", (), {"x": 1}), None)], ids=str)
def test_what_is_no_schema_is_refused(given, error):
    if error is None:    # a class of nobody's kind: its values do not fit, whatever they are
        with pytest.raises((TypeError, ValueError)):
            schema_of(given).deserialize("t", None, b'{"x": 1}')
        return
    with pytest.raises(error):
        schema_of(given)


@pytest.fixture
def without(monkeypatch):
    """Libraries that are not installed, for the test."""
    def hide(*names):
        for name in names:
            monkeypatch.setitem(sys.modules, name, None)
        schema_module._library.cache_clear()
    yield hide
    schema_module._library.cache_clear()


def test_missing_library_is_named_with_the_extra_that_has_it(without):
    without("msgspec", "pydantic", "jsonschema")

    for given, library in ((Data, "msgspec"), (DESCRIBED, "jsonschema")):
        with pytest.raises(pylog.NotSupportedError, match=rf"{library}.*pylog-engine\[schema\]"):
            schema_of(given)
    assert schema_of(checked).serialize("t", None, GOOD)


def test_dataclasses_do_with_pydantic_alone(without):
    without("msgspec")
    orders = schema_of(Data)

    assert orders.deserialize("t", None, orders.serialize("t", None, Data("ann", 1.0))) \
        == Data("ann", 1.0)
    with pytest.raises(pylog.ValidationError, match="total"):
        orders.deserialize("t", None, b'{"user": "ann", "total": "x"}')


# ---- None


@each_kind
def test_none_is_a_value_that_does_not_fit(broker, kind):
    orders = schema_of(kind)
    broker.append("orders", None, b"order-17")

    with Producer(broker, value_serializer=orders) as producer:
        with pytest.raises(pylog.ValidationError, match="nothing was appended"):
            producer.send("orders", None, b"order-17")
    with Consumer(broker, "orders", value_deserializer=orders, consumer_timeout_ms=0) as consumer:
        with pytest.raises(pylog.ValidationError, match="at offset 0 of orders-0"):
            next(consumer)

    assert broker.log("orders").end_offset == 1


@pytest.mark.parametrize("kind", [
    Order | None, Model | None, Data | None, DESCRIBED | {"type": ["object", "null"]},
    lambda value: value is None or checked(value)],
    ids=["msgspec", "pydantic", "dataclass", "JSON Schema", "function"])
def test_a_type_that_takes_none_publishes_tombstones(broker, kind):
    with Topic(broker, "orders", value=kind) as orders:
        orders.publish(GOOD, key="order-17")
        orders.publish(None, key="order-17")
        broker.append("orders", b"null")    # as others may write it
        with pytest.raises(pylog.ValidationError):
            orders.publish({"user": 7})

        first, *rest = [record.value for record in orders.read()]

    assert plain(first) == GOOD
    assert rest == [None, None]
    assert [record.value for record in broker.read("orders", start=1)] == [None, b"null"]


def test_records_without_a_value_are_dead_letters_of_a_type(broker):
    with Topic(broker, "orders", value=Order) as orders:
        seen = []
        with orders.subscribe(seen.append, group="billing"):
            broker.append("orders", None, b"order-17")
            orders.publish(Order("ann", 1.0))
            until(lambda: seen)

    with DeadLetters(broker, "billing") as letters:
        letter, = letters.list()
        assert (letter.key, letter.value, letter.disposition) \
            == (b"order-17", None, "DESERIALIZATION_FAILED")
        assert "Order" in letter.message
        assert letters.discard(letter) == 1    # no mark is taken for a letter, nor the reverse
        assert [one.mark for one in letters.list(marked=True)] == ["discarded"]


# ---- in patterns


@each_kind
def test_patterns_take_the_type_itself(broker, kind):
    with Topic(broker, "orders", value=kind) as orders:
        orders.publish(GOOD)
        with pytest.raises(pylog.ValidationError):
            orders.publish({"user": 7})

        assert [plain(record.value) for record in orders.read()] == [GOOD]


def test_record_that_does_not_fit_goes_to_the_dead_letters_at_once(broker):
    with Topic(broker, "orders", value=Order) as orders:
        broker.append("orders", b'{"user": 7}')
        seen = []
        with orders.subscribe(seen.append, group="billing") as billing:
            orders.publish(Order("ann", 1.0))
            until(lambda: seen)

    letter, = broker.read("dlq.billing.orders")
    assert letter.value == b'{"user": 7}'
    assert b"user: Expected `str`, got `int`" in b" ".join(
        value or b"" for _, value in letter.headers)
    assert billing.stats().buried == 1


def test_request_and_reply_are_checked(broker):
    with Rpc(broker, value=Order) as rpc:
        rpc.handler("add", lambda request: Order(request.value.user, request.value.total + 1))
        rpc.handler("lie", lambda request: {"user": 7})

        assert rpc.request("add", Order("ann", 1.0)).value == Order("ann", 2.0)
        with pytest.raises(pylog.ValidationError):
            rpc.request("add", {"user": "ann"})
        with pytest.raises(pylog.RemoteError, match="ValidationError"):
            rpc.request("lie", Order("ann", 1.0))
