"""A producer: each record is where it says, visible when send returns, and bad input is nowhere."""

import asyncio
import os
import threading
import time
from collections import Counter
from itertools import pairwise

import pytest
from brokers import codecs, records, values
from children import in_child, killed
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import pylog
from pylog import Producer, _native
from pylog.broker import Broker

# ---- where a record goes -------------------------------------------------------------------------


def test_record_comes_back_as_it_was_sent(broker):
    with Producer(broker) as producer:
        metadata = producer.send("orders", b"value", b"key", {"h": b"x", "n": None},
                                 timestamp_ms=1234).get()

    (record,) = records(broker)
    assert (record.value, record.key, record.headers, record.timestamp) == (
        b"value", b"key", (("h", b"x"), ("n", None)), 1234)
    assert (metadata.topic, metadata.partition, metadata.offset, metadata.timestamp) == (
        "orders", record.partition, 0, 1234)
    assert metadata.topic_partition == ("orders", record.partition)
    assert (metadata.serialized_key_size, metadata.serialized_value_size) == (3, 5)
    assert metadata.serialized_header_size > 0


@pytest.mark.parametrize("call", [
    lambda p: p.send("orders", b"v", b"k"),
    lambda p: p.send("orders", value=b"v", key=b"k"),
    lambda p: p.send("orders", b"v", key=b"k"),
    lambda p: p.send(topic="orders", value=b"v", key=b"k"),
    lambda p: p.send("orders", b"v", b"k", None, None, None),
    lambda p: p.send("orders", bytearray(b"v"), memoryview(b"k")),
    lambda p: p.send("".join(["or", "ders"]), b"v", b"k"),
])
def test_every_way_to_call_it_does_the_same(broker, call):
    with Producer(broker) as producer:
        for _ in range(2):    # the first time the log is opened
            call(producer)

    assert {(r.key, r.partition) for r in records(broker)} == {
        (b"k", _native.partition_of(b"k", 3))}
    assert values(broker) == [b"v"] * 2


def test_record_is_visible_to_another_process_when_send_returns(broker):
    with Producer(broker) as producer:
        for n in range(3):
            producer.send("one", b"%d" % n)

            def read():
                with Broker(broker.path) as other:
                    return values(other, "one")

            assert in_child(read) == [b"%d" % i for i in range(n + 1)]


@pytest.mark.parametrize("linger_ms", [0, 1])
@pytest.mark.parametrize("policy", ["murmur2", "crc32"])
def test_key_goes_where_kafkas_clients_put_it(broker, policy, linger_ms):
    keys = [b"key %d" % n for n in range(50)]
    with Producer(broker, partitioner=policy, linger_ms=linger_ms) as producer:
        futures = [producer.send("orders", b"v", key=key) for key in keys]
        assert [future.get().partition for future in futures] == _native.partitions_of(
            keys, 3, policy).tolist()
        assert Counter(r.key for r in records(broker)) == Counter(keys)


@pytest.mark.parametrize("linger_ms", [0, 1])
def test_round_robin_takes_turns(broker, linger_ms):
    with Producer(broker, partitioner="round_robin", linger_ms=linger_ms) as producer:
        futures = [producer.send("orders", b"v", key=b"same") for _ in range(30)]
        places = [future.get().partition for future in futures]

    assert Counter(places) == {0: 10, 1: 10, 2: 10}
    assert places[3:] == places[:-3]


def test_callable_chooses(broker):
    def choose(key, every, available):
        return int(key) % len(every)

    with Producer(broker, partitioner=choose) as producer:
        assert [producer.send("orders", b"v", key=b"%d" % n).get().partition
                for n in range(5)] == [0, 1, 2, 0, 1]


@pytest.mark.parametrize("partition", [0, 1, 2])
def test_partition_that_is_named_is_taken(broker, partition):
    with Producer(broker, partitioner=lambda *_: 1 / 0) as producer:
        assert producer.send("orders", b"v", key=b"k", partition=partition).get().partition \
            == partition


def test_records_without_a_key_stay_together_for_a_batch_and_go_on(broker, monkeypatch):
    # Drawn by lot, its 12 changes leave out one of the three partitions in one run of 2048.
    monkeypatch.setattr("pylog.partitioner.random.randrange", lambda count: 0)
    with Producer(broker, batch_size=10_000) as producer:
        places = [producer.send("orders", bytes(100)).get().partition for _ in range(900)]

    changes = sum(one != other for one, other in pairwise(places))
    assert set(places) == {0, 1, 2}
    assert 8 <= changes <= 12


def test_two_topics_in_turn_do_not_mix(broker):
    with Producer(broker) as producer:
        for n in range(100):
            producer.send("one", b"one %d" % n)
            producer.send("orders", b"orders %d" % n, partition=0)

    assert values(broker, "one") == [b"one %d" % n for n in range(100)]
    assert values(broker) == [b"orders %d" % n for n in range(100)]


def test_topic_is_made_when_it_is_first_sent_to(broker):
    with Producer(broker) as producer:
        assert producer.send("new", b"v").get().offset == 0
        assert producer.partitions_for("new") == {0}
        assert producer.partitions_for("orders") == {0, 1, 2}


def test_partitions_that_are_added_are_used(broker):
    with Producer(broker, partitioner="round_robin") as producer:
        producer.send("one", b"v")
        broker.metadata.add_partitions("one", 4)
        assert producer.send("one", b"v", partition=3).get().partition == 3
        assert {producer.send("one", b"v").get().partition for _ in range(4)} == {0, 1, 2, 3}


def test_partitions_that_are_added_are_seen_within_a_second_or_two(broker):
    with Producer(broker) as producer:
        producer.send("one", b"v", b"k")
        broker.metadata.add_partitions("one", 7)
        deadline = time.monotonic() + 20
        keys = [b"%d" % n for n in range(50)]
        while {producer.send("one", b"v", key).get().partition for key in keys} == {0}:
            assert time.monotonic() < deadline
            time.sleep(0.1)

        assert [producer.send("one", b"v", key).get().partition for key in keys] \
            == _native.partitions_of(keys, 7).tolist()


def test_deleted_topic_is_told_and_the_next_one_of_its_name_is_sent_to(broker):
    with Producer(broker) as producer, Broker(broker.path) as other:
        producer.send("one", b"before")
        other.delete_topic("one")
        with pytest.raises(pylog.UnknownTopicOrPartitionError, match="was deleted"):
            producer.send("one", b"lost")
        other.create_topic("one", 2)

        assert producer.send("one", b"after", partition=1).get().offset == 0


def test_damaged_metadata_keeps_nobody_from_sending(broker, monkeypatch):
    with Producer(broker) as producer:
        producer.send("one", b"before")

        def fail():
            raise pylog.CorruptMetadataError("damaged: rebuild it")

        monkeypatch.setattr(broker, "topics", fail)
        producer._look()
        producer.send("one", b"after")
        monkeypatch.undo()

    assert values(broker, "one") == [b"before", b"after"]


def test_path_may_stand_for_a_broker(tmp_path):
    with Producer(tmp_path / "data") as producer:
        producer.send("orders", b"v")
        broker = producer._broker

    assert broker.closed
    with Broker(tmp_path / "data") as broker:
        assert values(broker) == [b"v"]
        with Producer(broker):
            pass
        assert not broker.closed


def test_typed_keys_and_values(broker):
    with Producer(broker, key_serializer="str", value_serializer="json") as producer:
        producer.send("one", {"apples": 12}, "alice")
        producer.send("one", None)
        producer.send_many("one", [[1], None], keys=["bob", None])

    assert [(r.key, r.value) for r in records(broker, "one")] == [
        (b"alice", b'{"apples":12}'), (None, None), (b"bob", b"[1]"), (None, None)]


# ---- futures -------------------------------------------------------------------------------------


def test_future_is_done_when_nothing_lingers(broker):
    with Producer(broker) as producer:
        future = producer.send("one", b"v")

    assert future.done()
    assert future.is_done
    assert future.succeeded()
    assert not future.failed()
    assert future.exception() is None
    assert future.value == future.result() == future.get(0) == future.get(timeout=1)
    assert "offset 0" in repr(future)


def test_callbacks_of_a_done_future_are_called_at_once(broker, caplog):
    seen = []
    with Producer(broker) as producer:
        future = producer.send("one", b"v")
        future.add_done_callback(seen.append)
        assert future.add_callback(lambda *a, **k: seen.append((a, k)), 1, two=2) is future
        assert future.add_errback(seen.append) is future
        assert future.add_both(seen.append) is future
        future.add_done_callback(lambda _: 1 / 0)

    assert seen == [future, ((1, future.value), {"two": 2}), future.value]
    assert "ZeroDivisionError" in caplog.text


@pytest.mark.parametrize("call", [Producer.flush, Producer.close])
@pytest.mark.parametrize(("timeout", "error"), [
    ("1", TypeError), (True, TypeError), (-1, ValueError), (float("nan"), ValueError)])
def test_timeout_that_is_none_is_refused_and_closes_nothing(broker, call, timeout, error):
    with Producer(broker, linger_ms=60_000) as producer:
        producer.send("one", b"v")
        with pytest.raises(error, match="timeout"):
            call(producer, timeout)
        assert not producer.closed


@pytest.mark.parametrize("linger_ms", [0, 20])
def test_future_can_be_awaited(broker, linger_ms):
    async def send(producer):
        futures = [producer.send("one", b"%d" % n) for n in range(5)]
        return [(await future).offset for future in futures] + [(await futures[0]).offset]

    with Producer(broker, linger_ms=linger_ms) as producer:
        assert asyncio.run(send(producer)) == [0, 1, 2, 3, 4, 0]


def test_future_is_not_made_by_hand():
    with pytest.raises(TypeError, match=r"Producer\.send"):
        _native.SendFuture()


@pytest.mark.parametrize(("call", "error"), [
    (lambda f: f.add_done_callback(5), TypeError),
    (lambda f: f.get(timeout="soon"), TypeError),
    (lambda f: f.get(timeout=float("nan")), ValueError),
])
def test_future_refuses_nonsense(broker, call, error):
    with Producer(broker, linger_ms=10_000) as producer:
        with pytest.raises(error):
            call(producer.send("one", b"v"))


# ---- acks and durability -------------------------------------------------------------------------


@pytest.mark.parametrize(("acks", "is_durable"), [(0, False), (1, False), ("all", True),
                                                  (-1, True)])
@pytest.mark.parametrize("send", [
    lambda p, v: p.send("t", v), lambda p, v: p.send("t", v, headers=[("h", b"x")]),
    lambda p, v: p.send_many("t", [v]), lambda p, v: p.send_many("t", [v], keys=[b"k"]),
], ids=["send", "headers", "list", "keyed list"])
def test_acks_say_whether_to_wait_for_the_disk(tmp_path, acks, is_durable, send):
    with Broker(tmp_path / "data", durability="fsync") as broker, \
            Producer(broker, acks=acks) as producer:
        log = broker.log("t")
        for _ in range(3):
            send(producer, b"v")

        if is_durable:
            assert log.durable_offset == 3
        else:
            assert log.durable_offset < 3
        assert log.end_offset == 3


def test_lingering_batch_is_durable_before_its_futures_are_done(tmp_path):
    with Broker(tmp_path / "data", durability="fsync") as broker, \
            Producer(broker, linger_ms=1) as producer:
        future = producer.send("t", b"v")
        future.get(30)

        assert broker.log("t").durable_offset == 1


# ---- compression ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "number"), [(None, 0), ("none", 0), ("lz4", 3), ("gzip", 1)])
def test_batches_and_lists_are_compressed_and_single_records_are_not(broker, name, number):
    with Producer(broker, compression_type=name, linger_ms=60_000) as producer:
        for n in range(50):
            producer.send("one", b"again and again %d" % n)
        producer.flush()
        producer.send_many("one", [b"again and again"] * 50)
        producer.send_many("orders", [b"again and again"] * 50, keys=[b"k"] * 50)
    with Producer(broker, compression_type=name) as producer:
        producer.send("one", b"again and again " * 10)

    assert codecs(broker, "one") == [number, number, 0]
    assert {c for p in range(3) for c in codecs(broker, "orders", p)} == {number}
    assert values(broker, "one")[49:51] == [b"again and again 49", b"again and again"]


@pytest.mark.parametrize(("config", "wanted"), [("lz4", 3), ("gzip", 1), ("uncompressed", 0),
                                                ("producer", 3)])
def test_topic_may_decide_the_codec(broker, config, wanted):
    broker.create_topic("t", 1, {"compression.type": config})
    with Producer(broker, compression_type="lz4", linger_ms=60_000) as producer:
        producer.send_many("t", [b"again and again"] * 50)
        for _ in range(50):
            producer.send("t", b"again and again")

    assert set(codecs(broker, "t")) == {wanted}


# ---- many at once --------------------------------------------------------------------------------


@pytest.mark.parametrize("linger_ms", [0, 1])
def test_threads_share_a_producer(broker, linger_ms):
    failures = []

    def send(thread):
        try:
            for n in range(500):
                producer.send("orders", b"%d %d" % (thread, n), key=b"%d" % thread)
                if n % 100 == 0:
                    producer.send_many("orders", [b"%d %d.5" % (thread, n)], [b"%d" % thread])
        except BaseException as error:
            failures.append(error)

    with Producer(broker, linger_ms=linger_ms, batch_size=1000) as producer:
        threads = [threading.Thread(target=send, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert failures == []
    by_thread = {}
    for record in records(broker):
        thread, n = record.value.split()
        by_thread.setdefault(thread, []).append(float(n))
    assert len(by_thread) == 4
    for found in by_thread.values():
        assert len(found) == 505
        assert found == sorted(found), "the order of a thread's records was lost"


def test_metrics_count_what_was_sent(broker):
    with Producer(broker) as producer:
        for _ in range(5):
            producer.send("one", b"v")
            producer.send("orders", b"v", headers={"h": b"x"})
        producer.send_many("orders", [b"v"] * 10)
        told = producer.metrics()

    assert told["producer-metrics"]["record-send-total"] == 20
    assert told["producer-metrics"]["record-error-total"] == 0
    assert told["producer-topic-metrics.orders"]["record-send-total"] == 15


@pytest.mark.parametrize("linger_ms", [0, 1000])
def test_metrics_count_the_bytes_of_keys_and_values(broker, linger_ms):
    with Producer(broker, linger_ms=linger_ms) as producer:
        producer.send("orders", b"four", key=b"2k", headers={"h": b"not counted"})
        producer.send("orders", None, key=b"2k")
        producer.send_many("orders", [b"four", bytearray(b"seventy"), None], keys=[b"k", None, b""])
        producer.send_many("one", [memoryview(b"x" * 100)])
        producer.flush()
        told = producer.metrics()

    assert told["producer-topic-metrics.orders"]["byte-total"] == 6 + 2 + 5 + 7
    assert told["producer-topic-metrics.one"]["byte-total"] == 100
    assert told["producer-metrics"]["byte-total"] == 120
    assert told["producer-metrics"]["record-size-avg"] == 20


def test_metrics_tell_how_full_the_batches_were(broker):
    with Producer(broker, linger_ms=60_000) as producer:
        assert producer.metrics()["producer-metrics"]["batch-size-avg"] == 0
        for _ in range(3):
            producer.send("one", b"x" * 100)
        producer.flush()
        producer.send("one", b"x" * 100)
        producer.flush()
        told = producer.metrics()["producer-metrics"]

    assert told["batch-total"] == 2
    assert told["records-per-request-avg"] == 2
    assert 200 < told["batch-size-avg"] < 400


def test_sent_records_are_there_after_a_kill(broker):
    def send():
        producer = Producer(broker.path)
        for n in range(1000):
            producer.send("one", b"%d" % n)
        return producer

    killed(send)

    assert values(broker, "one") == [b"%d" % n for n in range(1000)]


PLACES = st.none() | st.integers(0, 2)
KEYS = st.none() | st.binary(max_size=5)
CALLS = st.lists(st.one_of(
    st.tuples(st.just("send"), KEYS, PLACES),
    st.tuples(st.just("list"), st.lists(KEYS, max_size=5), PLACES),
    st.tuples(st.just("flush")),
), max_size=30)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(CALLS, st.sampled_from([0, 5, 60_000]), st.sampled_from([1, 200, 16_384]),
       st.sampled_from([None, "lz4"]))
def test_partitions_hold_what_was_sent_to_them_in_order(
        broker, calls, linger_ms, batch_size, codec):
    """Each value is the number of its send: so a partition's values rise, and none is missing."""
    topic = f"model-{len(broker.topics())}"
    broker.create_topic(topic, 3)
    futures, runs, keys = {}, [], []
    with Producer(broker, linger_ms=linger_ms, batch_size=batch_size,
                  compression_type=codec) as producer:
        for kind, *call in calls:
            if kind == "flush":
                producer.flush()
                assert all(future.done() for future in futures.values())
            elif kind == "send":
                futures[len(keys)] = producer.send(topic, b"%d" % len(keys), call[0],
                                                   partition=call[1])
                keys.append(tuple(call))
            else:
                sent = [b"%d" % (len(keys) + n) for n in range(len(call[0]))]
                runs += producer.send_many(topic, sent, call[0], partition=call[1])
                keys += [(key, call[1]) for key in call[0]]

    stored = {(r.partition, r.offset): (int(r.value), r.key) for r in broker.read(topic)}
    assert sorted(n for n, _ in stored.values()) == list(range(len(keys)))
    for partition in range(3):
        found = [n for (where, _), (n, _) in sorted(stored.items()) if where == partition]
        assert found == sorted(found)
    for (partition, _), (n, key) in stored.items():
        assert key == keys[n][0]
        if keys[n][1] is not None or key is not None:
            assert partition == (_native.partition_of(key, 3) if keys[n][1] is None else keys[n][1])
    for n, future in futures.items():
        told = future.get(0)
        assert stored[told.partition, told.offset][0] == n
    for run in runs:
        assert all((run.partition, run.offset + i) in stored for i in range(run.record_count))
    assert sum(run.record_count for run in runs) == len(keys) - len(futures)


def test_fork_leaves_the_parents_buffer_alone(broker):
    with Producer(broker, linger_ms=60_000) as producer:
        future = producer.send("one", b"parent's")
        in_child(lambda: os.getpid())
        producer.flush(30)
        assert future.get(0).offset == 0


@pytest.mark.parametrize("linger_ms", [0, 5])
@pytest.mark.parametrize("timestamp_ms", [None, 5])
def test_timestamp_is_the_logs_where_it_is_that_of_the_append(broker, linger_ms, timestamp_ms):
    broker.create_topic("events", 1, {"message.timestamp.type": "LogAppendTime"})
    before = time.time_ns() // 1_000_000 - 10    # the native clock is a coarse one
    with Producer(broker, linger_ms=linger_ms) as producer:
        sent = [producer.send("events", b"%d" % n, timestamp_ms=timestamp_ms).get()
                for n in range(3)]
        producer.send_many("events", [b"3"], timestamps_ms=timestamp_ms)

    sent.append(broker.append("events", b"4", timestamp=timestamp_ms))
    records = list(broker.read("events"))
    assert [one.timestamp_type for one in records] == [1] * 5
    assert all(one.timestamp >= before for one in records)
    del records[3]
    assert [one.timestamp for one in sent] == [one.timestamp for one in records]


@pytest.mark.parametrize("timestamp", [None, 5])
def test_broker_tells_the_timestamp_that_a_record_has(broker, timestamp):
    where = broker.append("orders", b"v", timestamp=timestamp)

    record, = broker.read("orders")
    assert (where.offset, where.timestamp) == (record.offset, record.timestamp)
