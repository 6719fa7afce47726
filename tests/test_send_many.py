"""Lists sent by a producer: where they go, in which order, and that bad ones go nowhere."""

from collections import Counter
from itertools import pairwise

import pytest
from brokers import records, values

import pylog
from pylog import Producer
from pylog.partitioner import make_partitioner

POLICIES = ["murmur2", "crc32", "round_robin", lambda key, every, available: every[-1]]


@pytest.mark.parametrize("linger_ms", [0, 5])
@pytest.mark.parametrize("policy", POLICIES, ids=["murmur2", "crc32", "in turn", "callable"])
@pytest.mark.parametrize("has_keys", [False, True])
def test_list_goes_where_the_policy_says_and_in_order(broker, policy, has_keys, linger_ms):
    sent = [b"%d" % n for n in range(500)]
    keys = [b"key %d" % (n % 20) for n in range(500)] if has_keys else None
    with Producer(broker, partitioner=policy, linger_ms=linger_ms) as producer:
        found = producer.send_many("orders", sent, keys, [[("h", b"x")]] * 500, list(range(500)))

    by_partition = {}
    for record in records(broker):
        assert record.headers == (("h", b"x"),)
        assert record.timestamp == int(record.value)
        by_partition.setdefault(record.partition, []).append(int(record.value))
    assert {(m.partition, m.offset, m.record_count) for m in found} == {
        (partition, 0, len(one)) for partition, one in by_partition.items()}
    assert all(one == sorted(one) for one in by_partition.values())
    assert sum(map(len, by_partition.values())) == 500
    if has_keys and policy in ("murmur2", "crc32"):
        places = make_partitioner(policy, 3).partitions(keys, 500).tolist()
        assert Counter(places) == {p: len(one) for p, one in by_partition.items()}


def test_lists_without_keys_go_round(broker):
    with Producer(broker) as producer:
        places = [producer.send_many("orders", [b"v"] * 10)[0].partition for _ in range(20)]

    assert all(one != other for one, other in pairwise(places))


@pytest.mark.parametrize("make", [list, tuple, iter, lambda x: (one for one in x)])
def test_list_may_be_any_iterable(broker, make):
    with Producer(broker) as producer:
        producer.send_many("one", make([b"a", b"b"]), make([b"k", None]))
        producer.send_many("one", make([b"c"]))
        assert producer.send_many("one", make([])) == []

    assert values(broker, "one") == [b"a", b"b", b"c"]


def test_list_comes_after_what_lingers(broker):
    with Producer(broker, linger_ms=60_000) as producer:
        future = producer.send("one", b"first")
        producer.send_many("one", [b"second", b"third"])
        assert future.done()
        producer.send("one", b"fourth")

    assert values(broker, "one") == [b"first", b"second", b"third", b"fourth"]


@pytest.mark.parametrize(("arguments", "error"), [
    ({"values": b"abc"}, TypeError),
    ({"values": "abc"}, TypeError),
    ({"values": None}, TypeError),
    ({"values": 5}, TypeError),
    ({"values": [b"a", "b"]}, TypeError),
    ({"values": [b"a", b"b"], "keys": [b"k"]}, ValueError),
    ({"values": [], "keys": [b"k"]}, ValueError),
    ({"values": [b"a"], "keys": b"k"}, TypeError),
    ({"values": [b"a"], "keys": [5]}, TypeError),
    ({"values": [b"a"], "headers": {"h": b"x"}}, TypeError),
    ({"values": [b"a"], "headers": [None, None]}, ValueError),
    ({"values": [b"a"], "timestamps_ms": [1, 2]}, ValueError),
    ({"values": [b"a"], "timestamps_ms": -1}, ValueError),
    ({"values": [b"a"], "partition": 3}, KeyError),
    ({"values": [b"a"], "partition": -1}, KeyError),
    ({"values": [b"a"], "partition": "0"}, TypeError),
    ({"values": [b"a", bytes(2 << 20)]}, pylog.MessageSizeTooLargeError),
    ({"values": [b"a", bytes(2 << 20)], "keys": [b"k", b"l"]}, pylog.MessageSizeTooLargeError),
])
@pytest.mark.parametrize("has_keys", [False, True])
def test_bad_list_is_refused_whole(broker, arguments, error, has_keys):
    if has_keys and "keys" not in arguments and isinstance(arguments["values"], list):
        arguments = {**arguments, "keys": [b"k"] * len(arguments["values"])}
    with Producer(broker) as producer:
        with pytest.raises(error):
            producer.send_many("orders", **arguments)

    assert values(broker) == []


@pytest.mark.parametrize("partition", [None, 0])
@pytest.mark.parametrize(("options", "values", "keys", "words"), [
    ({}, [b"a", "b"], None, "value must be bytes; got str: pass value_serializer='str'"),
    ({}, [{"a": 1}], [b"k"], "value must be bytes; got dict: pass value_serializer='json'"),
    ({}, [b"a"], ["k"], "key must be bytes; got str: pass key_serializer='str'"),
    ({"value_serializer": "str"}, ["a"], [5], "key must be bytes; got int: pass key_serializer"),
])
def test_entry_of_a_list_is_refused_in_the_words_of_a_send(
        broker, options, values, keys, words, partition):
    with Producer(broker, **options) as producer:
        with pytest.raises(TypeError, match=words) as caught:
            producer.send_many("orders", values, keys, partition=partition)

    assert caught.value.__suppress_context__


def test_what_a_partitioner_raises_is_its_own(broker):
    def choose(key, every, available):
        raise TypeError("no such key")

    with Producer(broker, partitioner=choose) as producer:
        with pytest.raises(TypeError, match="no such key"):
            producer.send_many("orders", [b"a"], [b"k"])


@pytest.mark.parametrize("has_keys", [False, True])
def test_serialized_list_with_too_few_headers_is_refused_whole(broker, has_keys):
    with Producer(broker, value_serializer="json", key_serializer="str") as producer:
        keys = ["k"] * 3 if has_keys else None
        with pytest.raises(pylog.ConfigurationError, match="3 values and 1 headers"):
            producer.send_many("orders", [1, 2, 3], keys, [[("h", b"x")]])

    assert values(broker) == []


def test_headers_may_be_an_iterator_beside_serializers(broker):
    with Producer(broker, value_serializer="json", key_serializer="str") as producer:
        producer.send_many("one", [1, 2], ["k", "l"], ([("h", b"%d" % n)] for n in range(2)))

    assert [(r.key, r.value, r.headers) for r in records(broker, "one")] == [
        (b"k", b"1", (("h", b"0"),)), (b"l", b"2", (("h", b"1"),))]
