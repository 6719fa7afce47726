"""A consumer without a group: what it reads, and where it starts."""

import logging
import threading
import time
from datetime import UTC, datetime, timedelta

import pytest
from children import appended_soon
from orders import NOON, ORDERS, everything, fill, values

import pylog
from pylog import OffsetAndTimestamp
from pylog.broker import Broker
from pylog.consumer import Consumer
from pylog.patterns.schema import schema_of

# ---- reading

def test_iteration_returns_all_partitions_each_in_order(broker, consumer):
    fill(broker)

    records = list(consumer)

    assert set(values(records)) == everything()
    for number in range(3):
        of_one = [r for r in records if r.partition == number]
        assert values(of_one) == [b"%d:%d" % (number, n) for n in range(10)]
        assert {r.topic for r in of_one} == {"orders"}


def test_iteration_goes_on_where_it_stopped(broker, consumer):
    fill(broker, 3)
    first = list(consumer)
    broker.append("orders", b"more", partition=1)

    assert len(first) == 9
    assert values(consumer) == [b"more"]


def test_partitions_take_turns(broker):
    large = [b"x" * 1000] * 1000    # four turns each
    for number in range(3):
        broker.log("orders", number).append_many(large)

    with Consumer(broker, "orders", consumer_timeout_ms=0) as consumer:
        order = [record.partition for record in consumer]

    assert len(order) == 3000
    assert len(set(order[:900])) == 3


def test_first_turn_is_the_first_partitions(broker):
    fill(broker, 1)

    with Consumer(broker, "orders", consumer_timeout_ms=0) as consumer:
        assert [record.partition for record in consumer] == [0, 1, 2]

    with Consumer(broker, consumer_timeout_ms=0) as consumer:
        consumer.assign(ORDERS[:1])
        consumer.assign(ORDERS[1:])    # as many again, one of them gone before any turn
        assert [record.partition for record in consumer] == [1, 2]


def test_iteration_ends_after_the_timeout(broker):
    with Consumer(broker, "orders", consumer_timeout_ms=100) as consumer:
        start = time.monotonic()

        assert list(consumer) == []
        assert 0.09 < time.monotonic() - start < 10


@pytest.mark.parametrize("number", [0, 2])
def test_append_of_another_process_ends_the_wait(broker, number):
    with Consumer(broker.path, "orders") as consumer, \
            appended_soon(broker.path, b"from the child", partition=number):
        record = next(consumer)

    assert (record.partition, record.value) == (number, b"from the child")


def test_poll_returns_lists_by_partition(broker, consumer):
    fill(broker)

    found = consumer.poll()

    assert set(found) == set(ORDERS)
    assert {key: values(records) for key, records in found.items()} == {
        one: [b"%d:%d" % (one.partition, n) for n in range(10)] for one in ORDERS}
    assert consumer.poll() == {}


@pytest.mark.parametrize("most", [1, 7, 10, 29])
def test_poll_returns_at_most_max_records(broker, consumer, most):
    fill(broker)

    found, polls = [], 0
    while lists := consumer.poll(max_records=most):
        found.extend(record for records in lists.values() for record in records)
        assert sum(map(len, lists.values())) <= most
        polls += 1

    assert set(values(found)) == everything()
    assert len(found) == 30
    assert polls == -(-30 // most)


def test_max_poll_records_bounds_a_poll_that_says_nothing(broker):
    fill(broker)

    with Consumer(broker, "orders", max_poll_records=4) as consumer:
        assert sum(map(len, consumer.poll().values())) == 4


def test_poll_returns_after_its_timeout(consumer):
    start = time.monotonic()

    assert consumer.poll(timeout_ms=120) == {}
    assert 0.11 < time.monotonic() - start < 10


def test_poll_waits_no_longer_than_for_the_first_record(broker, consumer):
    threading.Timer(0.05, broker.append, ["orders", b"one"]).start()
    start = time.monotonic()

    assert sum(map(len, consumer.poll(timeout_ms=30_000).values())) == 1
    assert time.monotonic() - start < 20


def test_consume_returns_as_many_as_asked_for(broker, consumer):
    fill(broker)

    assert len(consumer.consume(12)) == 12
    assert len(consumer.consume(12)) == 12
    assert len(consumer.consume(12, timeout=0)) == 6
    assert consumer.consume(12, timeout=0) == []


def test_consume_waits_until_it_has_them_all(broker, consumer):
    broker.append("orders", b"one", partition=0)
    threading.Timer(0.05, broker.append, ["orders", b"two"], {"partition": 2}).start()

    assert values(consumer.consume(2, timeout=30)) == [b"one", b"two"]


def test_consume_alone_takes_one(broker, consumer):
    fill(broker, 1)

    assert len(consumer.consume()) == 1


def test_batches_are_chunks_that_know_their_partition(broker, consumer):
    fill(broker)

    chunks = list(consumer.batches())

    assert {(chunk.topic, chunk.partition): chunk.values() for chunk in chunks} == {
        one: [b"%d:%d" % (one.partition, n) for n in range(10)] for one in ORDERS}


def test_batches_bound_their_records(broker, consumer):
    fill(broker)

    sizes = [len(chunk) for chunk in consumer.batches(4)]

    assert sum(sizes) == 30
    assert max(sizes) <= 4


def test_all_ways_of_reading_share_one_position(broker, consumer):
    fill(broker)

    found = [next(consumer).value]
    found += values(consumer.consume(4))
    found += [r.value for records in consumer.poll(max_records=5).values() for r in records]
    found += next(consumer.batches(3)).values()
    found += values(consumer)

    assert len(found) == 30
    assert set(found) == everything()


def test_a_path_stands_for_a_broker(broker):
    fill(broker, 2)

    with Consumer(broker.path, "orders", consumer_timeout_ms=0) as consumer:
        assert set(values(consumer)) == everything(2)
    assert not broker.closed


def test_records_are_deserialized(broker):
    broker.append("orders", b'{"apples":12}', key=b"alice", partition=0)

    with Consumer(broker, "orders", key_deserializer="str", value_deserializer="json",
                  consumer_timeout_ms=0) as consumer:
        (record,) = list(consumer)
        consumer.seek_to_beginning()
        ((again,),) = consumer.poll().values()

    assert (record.key, record.value, record.offset) == ("alice", {"apples": 12}, 0)
    assert again == record
    assert isinstance(record, pylog.TypedRecord)


@pytest.fixture
def broken(broker):
    """A consumer of JSON; in one partition two records, one that is no JSON, and one more."""
    for value in (b"1", b"2", b"{", b"4"):
        broker.append("orders", value, partition=1)
    with Consumer(broker, "orders", value_deserializer="json", consumer_timeout_ms=0) as consumer:
        yield consumer


def test_record_that_cannot_be_deserialized_comes_again_until_somebody_seeks(broken):
    found = [next(broken).value, next(broken).value]
    for _ in range(3):
        with pytest.raises(pylog.DeserializationError) as caught:
            next(broken)
    assert broken.position(ORDERS[1]) == caught.value.offset == 2

    broken.seek(ORDERS[1], caught.value.offset + 1)

    assert found + values(broken) == [1, 2, 4]


def test_lists_hold_what_lies_before_a_record_that_does_not_fit_its_schema(broker):
    def check(value):
        if value == 3:
            raise ValueError("not 3")

    for value in (b"1", b"2", b"3", b"4"):
        broker.append("orders", value, partition=1)
    with Consumer(broker, "orders", value_deserializer=schema_of(check)) as consumer:
        assert values(consumer.consume(10, 0)) == [1, 2]
        with pytest.raises(pylog.ValidationError) as caught:
            consumer.consume(10, 0)
        consumer.seek(ORDERS[1], caught.value.offset + 1)
        assert values(consumer.consume(10, 0)) == [4]


def test_lists_hold_what_lies_before_a_record_that_cannot_be_deserialized(broken):
    assert values(broken.consume(10, 0)) == [1, 2]
    with pytest.raises(pylog.DeserializationError):
        broken.consume(10, 0)
    with pytest.raises(pylog.DeserializationError):
        broken.poll()
    broken.seek(ORDERS[1], 3)

    assert values(broken.consume(10, 0)) == [4]


# ---- what is read

def test_subscription_tells_its_topics(broker, consumer):
    assert consumer.subscription() == {"orders"}
    assert consumer.assignment() == set(ORDERS)


def test_subscribe_again_replaces_and_keeps_positions(broker, consumer):
    broker.create_topic("refunds", 1)
    fill(broker, 2)
    consumer.consume(6)

    consumer.subscribe(["orders", "refunds"])
    broker.append("refunds", b"back")

    assert values(consumer) == [b"back"]
    consumer.subscribe(["refunds"])
    assert consumer.assignment() == {("refunds", 0)}


def test_added_partitions_are_found_and_read_from_their_beginning(broker):
    with Consumer(broker, "orders", auto_offset_reset="latest") as consumer:
        assert consumer.poll() == {}
        broker.metadata.add_partitions("orders", 5)
        broker.append("orders", b"new", partition=4)

        (found,) = consumer.poll(timeout_ms=5000).items()

    assert found[0] == ("orders", 4)
    assert values(found[1]) == [b"new"]


def test_pattern_finds_topics_that_are_made_later(broker):
    told = []

    class Listener:
        def on_partitions_assigned(self, partitions):
            told.append(partitions)

    with Consumer(broker) as consumer:
        consumer.subscribe(pattern="or|re", listener=Listener())
        assert consumer.subscription() == {"orders"}
        assert consumer.poll() == {}
        broker.create_topic("refunds", 1)
        broker.create_topic("unasked", 1)
        broker.append("refunds", b"new")

        assert [values(one) for one in consumer.poll(timeout_ms=5000).values()] == [[b"new"]]
        assert consumer.subscription() == {"orders", "refunds"}

    assert told == [ORDERS, [("refunds", 0)]]


@pytest.mark.parametrize("group", [None, "g"])
def test_topic_whose_maker_was_killed_before_it_told_is_found(broker, monkeypatch, group):
    monkeypatch.setattr(pylog.subscriber, "LOOK_SECONDS", 0.1)
    monkeypatch.setattr(pylog.membership, "LOOK_SECONDS", 0.1)
    with Consumer(broker, group_id=group) as consumer:
        consumer.subscribe(pattern="refunds")
        assert consumer.poll() == {}
        broker.metadata.on_change = None
        broker.create_topic("refunds", 1)
        broker.append("refunds", b"new")

        assert [values(one) for one in consumer.poll(timeout_ms=5000).values()] == [[b"new"]]


@pytest.mark.parametrize("group", [None, "g"])
@pytest.mark.parametrize("makes_topics", [False, True])
def test_deleted_topic_ends_its_reader_and_is_not_made_anew_by_it(log_path, group, makes_topics):
    with Broker(log_path, auto_create_topics=makes_topics) as broker:
        for name in ("orders", "refunds"):
            broker.create_topic(name)
        with Consumer(broker, "orders", "refunds", group_id=group) as consumer:
            assert consumer.poll() == {}
            threading.Timer(0.1, broker.delete_topic, ["orders"]).start()
            for _ in range(2):
                with pytest.raises(pylog.UnknownTopicOrPartitionError, match="was deleted"):
                    consumer.poll(timeout_ms=5000)
            assert list(broker.topics()) == ["refunds"]

            consumer.subscribe(["refunds"])
            broker.append("refunds", b"back")
            assert [values(one) for one in consumer.poll(5000).values()] == [[b"back"]]


def test_reader_of_a_pattern_goes_on_without_a_deleted_topic(broker):
    broker.create_topic("refunds", 1)
    with Consumer(broker, group_id="g") as consumer:
        consumer.subscribe(pattern="orders|refunds")
        assert consumer.poll() == {}
        broker.delete_topic("refunds")
        broker.append("orders", b"one")
        assert [values(one) for one in consumer.poll(5000).values()] == [[b"one"]]


def test_topic_is_made_by_a_subscription_where_the_broker_says_so(log_path):
    with Broker(log_path, num_partitions=2) as broker, Consumer(broker, "news") as consumer:
        assert consumer.assignment() == {("news", 0), ("news", 1)}


def test_unsubscribe_ends_the_reading(broker, consumer):
    fill(broker, 1)
    consumer.unsubscribe()

    assert consumer.assignment() == consumer.subscription() == set()
    with pytest.raises(pylog.IllegalStateError, match="subscribe"):
        next(consumer)


def test_assign_reads_only_those_and_keeps_positions(broker):
    fill(broker, 4)

    with Consumer(broker, consumer_timeout_ms=0) as consumer:
        consumer.assign([ORDERS[1]])
        assert values(consumer.consume(2)) == [b"1:0", b"1:1"]
        consumer.assign([ORDERS[2], ("orders", 1)])
        assert consumer.assignment() == {ORDERS[1], ORDERS[2]}
        assert set(values(consumer)) == {b"1:2", b"1:3", b"2:0", b"2:1", b"2:2", b"2:3"}
        consumer.assign([])
        assert consumer.assignment() == set()


def test_latest_begins_with_what_comes_after_the_subscription(broker):
    fill(broker, 2)
    with Consumer(broker, "orders", auto_offset_reset="latest", consumer_timeout_ms=0) as consumer:
        broker.append("orders", b"after", partition=1)

        assert values(consumer) == [b"after"]


def test_none_asks_where_to_begin(broker):
    fill(broker, 2)
    with Consumer(broker, "orders", auto_offset_reset="none", consumer_timeout_ms=0) as consumer:
        for ask in (lambda: next(consumer), consumer.poll, lambda: consumer.position(ORDERS[0])):
            with pytest.raises(pylog.NoOffsetForPartitionError, match="seek"):
                ask()
        for partition in ORDERS:
            consumer.seek(partition, 1)

        assert set(values(consumer)) == {b"0:1", b"1:1", b"2:1"}


# ---- positions

def test_position_is_that_of_the_next_record(broker, consumer):
    fill(broker, 5)
    assert [consumer.position(one) for one in ORDERS] == [0, 0, 0]

    record = next(consumer)

    assert consumer.position(ORDERS[record.partition]) == 1
    list(consumer)
    assert [consumer.position(one) for one in ORDERS] == [5, 5, 5]


def test_seek_in_the_middle_of_an_iteration(broker, consumer):
    fill(broker, 5)
    first = next(consumer)
    consumer.seek(ORDERS[first.partition], 3)

    rest = [r for r in consumer if r.partition == first.partition]

    assert [r.offset for r in rest] == [3, 4]


def test_seek_to_beginning_and_end(broker, consumer):
    fill(broker, 5)
    list(consumer)

    consumer.seek_to_beginning(ORDERS[1])
    assert [consumer.position(one) for one in ORDERS] == [5, 0, 5]
    consumer.seek_to_beginning()
    assert [consumer.position(one) for one in ORDERS] == [0, 0, 0]
    consumer.seek_to_end(ORDERS[0], ORDERS[2])
    assert [consumer.position(one) for one in ORDERS] == [5, 0, 5]
    consumer.seek_to_end()
    assert list(consumer) == []


@pytest.mark.parametrize(("moment", "offset"), [
    (NOON, 0), (NOON + 1, 1), (NOON + 4000, 4), (NOON + 4001, 5), (0, 0),
    (datetime.fromtimestamp(NOON / 1000, UTC) + timedelta(seconds=2), 2),
])
def test_seek_to_timestamp(broker, consumer, moment, offset):
    fill(broker, 5)

    consumer.seek_to_timestamp(moment, ORDERS[0])

    assert consumer.position(ORDERS[0]) == offset
    assert consumer.position(ORDERS[1]) == 0


def test_paused_partitions_are_left_out_until_they_are_resumed(broker, consumer):
    fill(broker, 3)
    first = next(consumer)
    paused = ORDERS[first.partition]
    consumer.pause(paused)

    rest = values(consumer)

    assert consumer.paused() == {paused}
    assert set(rest) == {value for value in everything(3) if value[0:1] != first.value[0:1]}
    assert consumer.poll() == {}
    consumer.resume(paused)
    assert consumer.paused() == set()
    assert [r.offset for r in consumer] == [1, 2]


def test_consumer_with_everything_paused_waits_and_can_be_woken(broker, consumer):
    fill(broker, 3)
    consumer.pause(*ORDERS)
    threading.Timer(0.05, consumer.wakeup).start()

    with pytest.raises(pylog.WakeupError):
        consumer.poll(timeout_ms=30_000)


def test_reading_goes_on_by_the_reset_where_the_next_record_was_deleted(broker, consumer, caplog):
    fill(broker, 5)
    broker.log("orders", 0).delete_before(3)
    with caplog.at_level(logging.WARNING, "pylog"):
        found = values(consumer)

    assert [value for value in found if value.startswith(b"0:")] == [b"0:3", b"0:4"]
    assert "orders-0 goes on at offset 3" in caplog.text


def test_none_raises_where_the_next_record_was_deleted(broker):
    fill(broker, 5)
    broker.log("orders", 0).delete_before(3)
    with Consumer(broker, auto_offset_reset="none", consumer_timeout_ms=0) as consumer:
        consumer.assign([ORDERS[0]])
        consumer.seek(ORDERS[0], 1)
        for _ in range(2):
            with pytest.raises(pylog.OffsetOutOfRangeError):
                next(consumer)
        consumer.seek_to_beginning()

        assert [r.offset for r in consumer] == [3, 4]


# ---- what there is

def test_offsets_and_lag(broker, consumer):
    fill(broker, 5)
    broker.log("orders", 1).delete_before(2)

    assert consumer.beginning_offsets(ORDERS) == dict(zip(ORDERS, [0, 2, 0], strict=True))
    assert consumer.end_offsets(ORDERS) == dict.fromkeys(ORDERS, 5)
    assert consumer.highwater(ORDERS[2]) == 5
    assert (consumer.lag(ORDERS[0]), consumer.lag()) == (5, 15)
    list(consumer)
    assert consumer.lag() == 0


def test_offsets_for_times(broker, consumer):
    fill(broker, 5)

    found = consumer.offsets_for_times({
        ORDERS[0]: NOON + 1500, ORDERS[1]: NOON + 10_000,
        ORDERS[2]: datetime.fromtimestamp(NOON / 1000, UTC)})

    assert found == {ORDERS[0]: OffsetAndTimestamp(2, NOON + 2000, 0), ORDERS[1]: None,
                     ORDERS[2]: OffsetAndTimestamp(0, NOON, 0)}


def test_topics_and_their_partitions(broker, consumer):
    broker.create_topic("refunds", 2)

    assert consumer.topics() == {"one", "orders", "refunds"}
    assert consumer.partitions_for_topic("refunds") == {0, 1}
    assert consumer.partitions_for_topic("nothing") is None


def test_metrics_count_what_was_returned(broker, consumer):
    fill(broker, 5)
    next(consumer)
    consumer.consume(3)
    consumer.seek_to_end(ORDERS[0])
    next(consumer.batches(2))

    figures = consumer.metrics()

    assert figures["consumer-fetch-manager-metrics"]["records-consumed-total"] == 6
    assert figures["consumer-coordinator-metrics"]["assigned-partitions"] == 3
