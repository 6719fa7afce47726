"""The header schema_id: what sends by a registered schema writes it, what reads knows it."""

import asyncio
import contextlib

import msgspec
import pytest
from waiting import until

import pylog
from pylog import Broker
from pylog.patterns import (
    AsyncBus,
    AsyncQueue,
    AsyncRpc,
    AsyncTopic,
    Bus,
    DeadLetters,
    Queue,
    Rpc,
    Schemas,
    Topic,
)


class Order(msgspec.Struct):
    user: str
    total: float = 0.0


ANN = Order("ann", 12.5)
EU = {"tenant": "eu"}


@pytest.fixture
def broker(tmp_path):
    with Broker(tmp_path / "data") as broker:
        yield broker


@pytest.fixture
def schema(broker):
    """Not the first of its broker: an id of 0 could be anything."""
    schemas = Schemas(broker)
    schemas.register("other", {"type": "object"})
    return schemas.register("orders", Order)


def ids(broker, topic):
    return [record.header("schema_id") for record in broker.read(topic)]


# ---- what is sent


async def maybe(result):
    return await result if asyncio.iscoroutine(result) else result


def sent(act, kind, broker, *arguments, **options):
    """act(an object of the kind), awaited where need be."""
    async def run():
        if hasattr(kind, "__aenter__"):
            async with kind(broker, *arguments, **options) as made:
                return await maybe(act(made))
        with kind(broker, *arguments, **options) as made:
            return act(made)
    return asyncio.run(run())


BOTH = {"topic": (Topic, AsyncTopic), "queue": (Queue, AsyncQueue), "bus": (Bus, AsyncBus)}


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize(("pattern", "act", "count"), [
    ("topic", lambda one: one.publish(ANN, headers=EU), 1),
    ("topic", lambda one: one.publish_many([ANN] * 3, keys=["a", None, "b"]), 3),
    ("queue", lambda one: one.put(ANN, headers=EU), 1),
    ("queue", lambda one: one.put(ANN), 1),
    ("queue", lambda one: one.put(ANN, dedup_key="k", key="a", ttl=9), 1),
    ("queue", lambda one: one.put_many([ANN] * 3, headers=EU), 3),
    ("queue", lambda one: one.put_many([ANN] * 3), 3),
    ("bus", lambda one: one.emit("order.placed", ANN, headers=EU), 1),
])
def test_each_record_bears_the_id_of_its_schema(broker, schema, pattern, act, count, is_async):
    sent(act, BOTH[pattern][is_async], broker, "orders", value=schema)

    assert ids(broker, "orders") == [b"1"] * count


def test_headers_of_a_user_stay(broker, schema):
    with Queue(broker, "orders", value=schema) as queue, Topic(broker, "orders") as topic:
        queue.put(ANN, headers=EU)
        queue.put_many([ANN], headers=EU)
        assert [record.headers for record in topic.read()] == [
            (("tenant", b"eu"), ("schema_id", b"1"))] * 2


def test_a_delayed_message_bears_the_id_when_it_comes(broker, schema):
    with Queue(broker, "orders", value=schema) as queue:
        queue.put(ANN, delay=0.02)
        with queue.get(10) as delivery:
            assert (delivery.value, delivery.header("schema_id")) == (ANN, b"1")


@pytest.mark.parametrize("kind", [Rpc, AsyncRpc])
def test_requests_and_replies_bear_the_id(broker, schema, kind):
    seen = []

    def double(request):
        seen.append(request.header("schema_id"))
        return Order(request.value.user, 2 * request.value.total)

    def ask(rpc):
        rpc.handler("orders", double)
        return rpc.request("orders", ANN, headers=EU)

    reply = sent(ask, kind, broker, value=schema)

    assert seen == [b"1"]
    assert (reply.value, reply.headers[-1]) == (Order("ann", 25.0), ("schema_id", b"1"))


@pytest.mark.parametrize(("pattern", "act"), [
    ("topic", lambda one: one.publish_many([ANN])), ("queue", lambda one: one.put_many([ANN])),
    ("queue", lambda one: one.put(ANN)), ("topic", lambda one: one.publish(ANN))])
def test_without_a_registry_there_is_no_id(broker, pattern, act):
    sent(act, BOTH[pattern][0], broker, "orders", value=Order)

    assert [record.headers for record in broker.read("orders")] == [()]


# ---- what is read


def append(broker, schema_id):
    broker.append("orders", b'{"user":"eve"}', headers=[("schema_id", schema_id)])


@pytest.mark.parametrize(("schema_id", "shown"), [
    (b"17", "'17'"), (b"-1", "'-1'"), (b"one", "'one'"), (b"\xff", "'\ufffd'"), (None, "''"),
    (b"9" * 40, "'" + "9" * 40 + "'")])
def test_an_id_that_nobody_registered_is_named(broker, schema, schema_id, shown):
    with Topic(broker, "orders", value=schema) as topic:
        append(broker, schema_id)
        with pytest.raises(pylog.DeserializationError,
                           match=r"UnknownSchemaError.*its header schema_id is") as caught:
            list(topic.read())

    assert f"schema_id is {shown}, and '_schemas' has no such schema" in str(caught.value)
    assert isinstance(caught.value.__cause__, pylog.UnknownSchemaError)


def test_it_is_a_dead_letter_that_says_so(broker, schema):
    seen = []
    with Topic(broker, "orders", value=schema) as topic, \
            topic.subscribe(lambda record: seen.append(record.value), group="g") as subscription:
        append(broker, b"17")
        append(broker, b"1")
        until(lambda: subscription.stats().handled)

    [letter] = DeadLetters(broker, "g").list()
    assert "schema_id is '17'" in letter.message
    assert letter.disposition == "DESERIALIZATION_FAILED"
    assert seen == [Order("eve")]


def test_it_is_a_queues_dead_letter_too(broker, schema):
    with Queue(broker, "orders", value=schema) as queue:
        append(broker, b"17")
        queue.put(ANN)
        with queue.get(10) as delivery:
            assert delivery.value == ANN
        assert "schema_id is '17'" in DeadLetters(broker, topic=queue.dlq).list()[0].message


def test_one_that_asks_by_an_unknown_schema_is_told(broker, schema):
    with Rpc(broker, value=schema) as rpc:
        rpc.handler("orders", lambda request: request.value)
        with pytest.raises(pylog.RemoteError, match="schema_id is '17'"), \
                Rpc(broker, value=Order) as other:
            other.request("orders", ANN, headers={"schema_id": "17"})


def test_versions_that_are_registered_later_are_read(broker, schema):
    class Order(msgspec.Struct):
        user: str
        total: float = 0.0
        note: str = ""

    with Broker(broker.path) as other, Topic(broker, "orders", value=schema) as topic:
        with Topic(other, "orders", value=Schemas(other).register("orders", Order)) as later:
            later.publish(Order("ben", 1.0, "!"))
        assert [record.value.user for record in topic.read()] == ["ben"]


def test_who_has_no_registry_reads_all_that_fits(broker, schema):
    with Topic(broker, "orders", value=Order) as topic:
        append(broker, b"17")
        assert [record.value for record in topic.read()] == [Order("eve")]


def test_a_registry_that_was_closed_judges_nothing(broker, tmp_path):
    with Schemas(tmp_path / "elsewhere") as schemas:
        schema = schemas.register("orders", Order)
    with Topic(broker, "orders", value=schema) as topic:
        append(broker, b"17")
        assert [record.value for record in topic.read()] == [Order("eve")]


# ---- queues of a type


@pytest.mark.parametrize("kind", [Queue, AsyncQueue])
def test_a_queue_takes_the_type_itself(broker, kind):
    async def put_and_get(queue):
        await maybe(queue.put(ANN))
        with await maybe(queue.get(10)) as delivery:
            return delivery.value

    def act(queue):
        if kind is AsyncQueue:
            return put_and_get(queue)
        queue.put(ANN)
        with queue.get(10) as delivery:
            return delivery.value

    assert sent(act, kind, broker, "orders", value=Order) == ANN


def test_what_does_not_fit_is_a_queues_dead_letter_at_once(broker):
    seen = []
    with Queue(broker, "orders", value=Order) as queue:
        broker.append("orders", b'{"user": 17}')
        broker.append("orders", b"{no json")
        queue.put(ANN)
        queue.work(lambda delivery: seen.append(delivery.value), idle=0.05)
        with contextlib.suppress(pylog.ValidationError):
            queue.put(17)
        letters = DeadLetters(broker, topic=queue.dlq).list()
        assert queue.stats()[:4] == (0, 0, 0, 2)

    assert seen == [ANN]
    assert [letter.error.rpartition(".")[2] for letter in letters] == [
        "ValidationError", "DeserializationError"]
