"""What a producer refuses: options, records and calls that cannot be, and what it says then."""

import pickle

import pytest
from brokers import values
from children import in_child

import pylog
from pylog import Producer, _native
from pylog.broker import Broker


@pytest.mark.parametrize(("arguments", "error", "words"), [
    (("orders", "text"), TypeError, "value must be bytes; got str: pass value_serializer='str'"),
    (("orders", {"a": 1}), TypeError, "must be bytes; got dict: pass value_serializer='json'"),
    (("orders", 5), TypeError, "got int"),
    (("orders", b"v", "key"), TypeError, "key must be bytes; got str: pass key_serializer='str'"),
    (("orders", b"v", None, "h"), TypeError, "headers"),
    (("orders", b"v", None, {"h": "x"}), TypeError, "header's value"),
    (("orders", b"v", None, {b"h": b"x"}), TypeError, "header's name"),
    (("orders", b"v", None, [b"x"]), TypeError, "headers"),
    (("orders", b"v", None, None, 3), KeyError, "has the partitions 0 to 2, and no 3"),
    (("orders", b"v", None, None, -1), KeyError, "and no -1"),
    (("orders", b"v", None, None, 2**80), KeyError, "and no"),
    (("orders", b"v", None, None, "0"), TypeError, "partition must be an int"),
    (("orders", b"v", None, None, 1.0), TypeError, "partition must be an int"),
    (("orders", b"v", None, None, True), TypeError, "partition must be an int"),
    (("orders", b"v", None, None, None, -1), ValueError, "timestamp"),
    (("orders", b"v", None, None, None, 10**18), ValueError, "pass ms"),
    (("orders", b"v", None, None, None, "now"), TypeError, "timestamp"),
    (("orders", bytes(2 << 20)), pylog.MessageSizeTooLargeError, "split it"),
    (("orders", b"v", bytes(2 << 20)), pylog.MessageSizeTooLargeError, "split it"),
    ((b"orders", b"v"), TypeError, "topic must be a str, not bytes"),
    ((None, b"v"), TypeError, "topic must be a str"),
    ((["orders"], b"v"), TypeError, "topic must be a str"),
    (("a/b", b"v"), pylog.InvalidTopicError, "has '/' in it"),
    (("", b"v"), pylog.InvalidTopicError, "is empty"),
])
@pytest.mark.parametrize("linger_ms", [0, 60_000])
def test_bad_record_is_refused_and_nothing_is_sent(broker, arguments, error, words, linger_ms):
    with Producer(broker, linger_ms=linger_ms) as producer:
        producer.send("orders", b"good", partition=0)
        with pytest.raises(error, match=words):
            producer.send(*arguments)

    assert values(broker) == [b"good"]
    assert list(broker.topics()) == ["one", "orders"]


def test_unknown_topic_is_told_with_the_closest_name(tmp_path):
    with Broker(tmp_path / "data", auto_create_topics=False) as broker:
        broker.create_topic("orders")
        with Producer(broker) as producer:
            for call in (lambda: producer.send("oders", b"v"),
                         lambda: producer.send_many("oders", []),
                         lambda: producer.partitions_for("oders")):
                with pytest.raises(KeyError, match="did you mean 'orders'"):
                    call()


@pytest.mark.parametrize(("options", "error"), [
    ({"acks": 2}, ValueError), ({"acks": "none"}, ValueError), ({"acks": True}, ValueError),
    ({"acks": None}, ValueError), ({"linger_ms": -1}, ValueError), ({"linger_ms": "5"}, TypeError),
    ({"linger_ms": float("nan")}, ValueError), ({"linger_ms": float("inf")}, ValueError),
    ({"batch_size": 0}, ValueError), ({"batch_size": None}, TypeError),
    ({"buffer_memory": 0}, ValueError), ({"max_block_ms": -1}, ValueError),
    ({"max_block_ms": True}, TypeError),
    ({"compression_type": "zip"}, ValueError), ({"compression_type": "zstd"}, pylog.LogError),
    ({"partitioner": "sticky?"}, ValueError), ({"partitioner": 5}, TypeError),
    ({"value_serializer": "jsn"}, ValueError), ({"key_serializer": 5}, TypeError),
    ({"transactional_id": "x"}, pylog.NotSupportedError),
    ({"enable_idempotence": True}, pylog.NotSupportedError), ({"ack": 1}, TypeError),
])
def test_impossible_option_is_refused_before_anything_is_made(tmp_path, options, error):
    with pytest.raises(error):
        Producer(tmp_path / "data", **options)

    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("broker", [None, 5, b"data", object()], ids=["None", "5", "b", "object"])
def test_what_is_no_broker_is_refused(broker):
    with pytest.raises(TypeError, match="a Broker or the path of one"):
        Producer(broker)


def test_closed_producer_refuses(broker):
    producer = Producer(broker)
    producer.send("one", b"v")
    producer.close()
    producer.close()

    assert producer.closed
    assert "closed" in repr(producer)
    for call in (lambda: producer.send("one", b"x"), lambda: producer.send_many("one", [b"x"]),
                 producer.flush, lambda: producer.partitions_for("one")):
        with pytest.raises(pylog.ClosedError, match="make a new one"):
            call()
    assert values(broker, "one") == [b"v"]


def test_closed_broker_closes_its_producers_and_loses_nothing(tmp_path):
    broker = Broker(tmp_path / "data")
    producer = Producer(broker, linger_ms=60_000)
    future = producer.send("one", b"v")
    broker.close()

    assert future.succeeded()
    assert producer.closed
    with pytest.raises(pylog.ClosedError):
        Producer(broker)
    with Broker(tmp_path / "data") as broker:
        assert values(broker, "one") == [b"v"]


@pytest.mark.parametrize("linger_ms", [0, 60_000])
def test_producer_made_before_a_fork_is_refused_in_the_child(broker, linger_ms):
    with Producer(broker, linger_ms=linger_ms) as producer:
        producer.send("one", b"parent's")

        for call in (lambda: producer.send("one", b"x"),
                     lambda: producer.send("one", b"x", headers={"h": b"x"}),
                     lambda: producer.send_many("one", [b"x"]), lambda: producer.flush()):
            assert isinstance(in_child(call), pylog.IllegalStateError)
        assert in_child(producer.close) is None

    assert values(broker, "one") == [b"parent's"]


def test_producer_is_not_pickled(broker):
    with Producer(broker) as producer, pytest.raises(TypeError, match="in the other process"):
        pickle.dumps(producer)


def test_producer_of_a_subclass_is_as_quick(broker):
    class Audit(Producer):
        pass

    with Audit(broker) as producer:
        assert producer.send("one", b"v").get().offset == 0
        assert type(producer).send is Producer.send is _native.Sender.send
