"""What a consumer refuses: impossible arguments, a second thread, a fork, calls after its close."""

import re
import threading

import pytest
from children import in_child
from orders import ORDERS, everything, fill, values
from tables import eventually

import pylog
from pylog.broker import Broker
from pylog.consumer import Consumer

# ---- refusals

@pytest.mark.parametrize(("options", "error", "match"), [
    ({"auto_offset_reset": "smallest"}, pylog.ConfigurationError, "'earliest', 'latest', 'none'"),
    ({"auto_offset_reset": None}, pylog.ConfigurationError, "auto_offset_reset"),
    ({"on_corruption": "ignore"}, pylog.ConfigurationError, "'raise', 'skip'"),
    ({"max_poll_records": 0}, pylog.ConfigurationError, "1 or more"),
    ({"max_poll_records": "many"}, TypeError, "max_poll_records"),
    ({"max_poll_records": True}, TypeError, "max_poll_records"),
    ({"auto_commit_interval_ms": 0}, pylog.ConfigurationError, "auto_commit_interval_ms"),
    ({"enable_auto_commit": "false"}, TypeError, "True or False, not 'false'"),
    ({"consumer_timeout_ms": -1}, pylog.ConfigurationError, "consumer_timeout_ms"),
    ({"consumer_timeout_ms": float("nan")}, pylog.ConfigurationError, "consumer_timeout_ms"),
    ({"value_deserializer": "jsn"}, pylog.ConfigurationError, "json"),
    ({"key_deserializer": 7}, TypeError, "key_deserializer"),
])
def test_impossible_options_are_refused(broker, options, error, match):
    with pytest.raises(error, match=match):
        Consumer(broker, "orders", **options)


@pytest.mark.parametrize(("act", "error", "match"), [
    (lambda c: c.subscribe("orders"), TypeError, r"\['orders'\]"),
    (lambda c: c.subscribe(["or ders"]), pylog.InvalidTopicError, "or ders"),
    (lambda c: c.subscribe([7]), TypeError, "str"),
    (lambda c: c.subscribe(7), TypeError, "list of names"),
    (lambda c: c.subscribe(["orders"], listener=print), TypeError, "on_partitions_assigned"),
    (lambda c: c.subscribe(["orders"], pattern="o.*"), pylog.ConfigurationError, "not both"),
    (lambda c: c.subscribe(pattern="("), pylog.ConfigurationError, "regular expression"),
    (lambda c: c.subscribe(["order"]), pylog.UnknownTopicOrPartitionError, "orders"),
    (lambda c: c.assign(ORDERS), pylog.IllegalStateError, "unsubscribe"),
    (lambda c: c.assign(ORDERS[0]), TypeError, "list of TopicPartition"),
    (lambda c: c.assign(["orders"]), TypeError, "TopicPartition"),
    (lambda c: c.seek(("orders", 9), 0), pylog.IllegalStateError, "not assigned"),
    (lambda c: c.seek("orders", 0), TypeError, "TopicPartition"),
    (lambda c: c.seek(ORDERS[0], -1), pylog.ConfigurationError, "negative"),
    (lambda c: c.seek(ORDERS[0], "end"), TypeError, "offset"),
    (lambda c: c.seek(ORDERS[0], True), TypeError, "offset"),
    (lambda c: c.position(("refunds", 0)), pylog.IllegalStateError, "not assigned"),
    (lambda c: c.pause(("refunds", 0)), pylog.IllegalStateError, "not assigned"),
    (lambda c: c.resume("orders"), TypeError, "TopicPartition"),
    (lambda c: c.seek_to_end(("refunds", 0)), pylog.IllegalStateError, "not assigned"),
    (lambda c: c.seek_to_timestamp("noon"), TypeError, "timestamp"),
    (lambda c: c.poll(timeout_ms=-1), pylog.ConfigurationError, "negative"),
    (lambda c: c.poll(timeout_ms="1"), TypeError, "timeout_ms"),
    (lambda c: c.poll(max_records=0), pylog.ConfigurationError, "max_records"),
    (lambda c: c.consume(0), pylog.ConfigurationError, "num_messages"),
    (lambda c: c.consume(1, "soon"), TypeError, "timeout"),
    (lambda c: c.consume(1, -1), pylog.ConfigurationError, "timeout=-1 is negative"),
    (lambda c: c.consume(1, float("nan")), pylog.ConfigurationError, "no number"),
    (lambda c: next(c.batches(0)), pylog.ConfigurationError, "max_records"),
    (lambda c: c.end_offsets([("order", 0)]), pylog.UnknownTopicOrPartitionError, "orders"),
    (lambda c: c.end_offsets([("orders", 9)]), pylog.UnknownTopicOrPartitionError, "0 to 2"),
    (lambda c: c.beginning_offsets(ORDERS[0]), TypeError, "list"),
    (lambda c: c.offsets_for_times({"orders": 0}), TypeError, "TopicPartition"),
    (lambda c: c.offsets_for_times(ORDERS), TypeError, "a dict by partition"),
    (lambda c: c.commit(), pylog.IllegalStateError, "group_id"),
    (lambda c: c.commit({ORDERS[0]: 0}), pylog.IllegalStateError, "group_id"),
    (lambda c: c.committed(ORDERS[0]), pylog.IllegalStateError, "group_id"),
    (lambda c: c.seek_to_committed(), pylog.IllegalStateError, "group_id"),
])
def test_what_cannot_be_asked_for_is_refused_and_changes_nothing(broker, consumer, act, error,
                                                                 match):
    broker.auto_create_topics = False
    fill(broker, 2)

    with pytest.raises(error, match=match):
        act(consumer)
    assert set(values(consumer)) == everything(2)


@pytest.mark.parametrize(("partition", "match"), [
    (("order", 0), "did you mean 'orders'"), (("orders", 3), "0 to 2"), (("orders", -1), "no -1")])
def test_committed_of_what_is_not_there_is_refused_and_makes_no_topic(log_path, partition, match):
    with Broker(log_path) as broker:    # which makes topics that are used
        broker.create_topic("orders", 3)
        with Consumer(broker, group_id="g") as consumer:
            with pytest.raises(pylog.UnknownTopicOrPartitionError, match=match):
                consumer.committed(partition)
            assert consumer.committed(("orders", 0)) is None

        assert list(broker.topics()) == ["orders"]


def test_assign_of_what_is_not_there_is_refused(broker):
    broker.auto_create_topics = False
    with Consumer(broker) as consumer:
        for unknown in (("order", 0), ("orders", 3), ("orders", -1)):
            with pytest.raises(pylog.UnknownTopicOrPartitionError):
                consumer.assign([ORDERS[0], unknown])
            assert consumer.assignment() == set()


def test_nothing_to_read_is_an_error_and_no_wait(broker):
    with Consumer(broker) as consumer:
        for ask in (lambda: next(consumer), lambda: consumer.poll(10_000),
                    lambda: consumer.consume(1), lambda: next(consumer.batches())):
            with pytest.raises(pylog.IllegalStateError, match=re.escape("subscribe()")):
                ask()


# ---- lifetime, threads, forks

def test_closed_consumer_says_so_whatever_it_is_asked(broker, consumer):
    fill(broker, 2)
    next(consumer)
    consumer.close()
    consumer.close()

    for ask in (lambda: next(consumer), consumer.poll, lambda: consumer.consume(1),
                consumer.assignment, lambda: consumer.subscribe(["orders"]),
                lambda: consumer.seek(ORDERS[0], 0), lambda: next(consumer.batches()),
                lambda: consumer.lag(), lambda: consumer.end_offsets(ORDERS), consumer.__enter__):
        with pytest.raises(pylog.ClosedError):
            ask()
    assert consumer.closed
    assert "closed" in repr(consumer)


def test_consumer_that_could_not_be_made_leaves_no_broker_open(log_path):
    Broker(log_path, auto_create_topics=False).close()

    with pytest.raises(pylog.InvalidTopicError):
        Consumer(log_path, "or ders")


def test_wakeup_ends_the_wait_of_another_thread(consumer):
    threading.Timer(0.05, consumer.wakeup).start()

    with pytest.raises(pylog.WakeupError):
        consumer.poll(30_000)
    assert consumer.poll() == {}


def test_wakeup_before_a_call_ends_that_and_loses_nothing(broker, consumer):
    fill(broker, 2)
    next(consumer)
    consumer.wakeup()

    with pytest.raises(pylog.WakeupError):
        next(consumer)
    assert len(list(consumer)) == 5


def test_wakeup_of_a_consume_gives_back_what_it_had_taken(broker, consumer):
    fill(broker, 1)
    threading.Timer(0.05, consumer.wakeup).start()

    with pytest.raises(pylog.WakeupError):
        consumer.consume(100)
    assert len(consumer.consume(3)) == 3


def test_second_thread_is_refused(broker):
    with Consumer(broker, "orders") as consumer:
        caught = []

        def wait():
            with pytest.raises(pylog.WakeupError) as error:
                consumer.poll(60_000)
            caught.append(error)

        thread = threading.Thread(target=wait)
        thread.start()
        eventually(lambda: is_in_use(consumer))

        for ask in (lambda: next(consumer), consumer.poll, lambda: consumer.seek(ORDERS[0], 0),
                    consumer.close):
            with pytest.raises(pylog.ConcurrentModificationError):
                ask()
        consumer.wakeup()
        thread.join()
        assert caught
        assert consumer.poll() == {}


def is_in_use(consumer):
    try:
        consumer.poll()
    except pylog.ConcurrentModificationError:
        return True
    return False


@pytest.mark.slow
def test_callback_may_look_and_seek_but_not_read(broker):
    fill(broker, 3)
    seen = []

    class Listener:
        def on_partitions_assigned(self, partitions):
            if consumer is None:
                return
            consumer.seek(partitions[0], 2)
            with pytest.raises(pylog.ConcurrentModificationError, match="callback"):
                consumer.poll()
            with pytest.raises(pylog.ConcurrentModificationError, match="callback"):
                consumer.close()
            seen.append(consumer.position(partitions[0]))

    consumer = None
    with Consumer(broker) as made:
        made.subscribe(pattern="ref", listener=Listener())
        consumer = made
        broker.create_topic("refunds", 1)
        fill(broker, 3, "refunds", 1)

        assert [r.offset for r in made.consume(1, timeout=30)] == [2]
    assert seen == [2]


def test_forked_child_is_told_to_make_its_own(broker, consumer):
    fill(broker, 40)
    next(consumer)

    def use():
        found = []
        for ask in (lambda: list(consumer), consumer.poll, lambda: consumer.assignment()):
            try:
                ask()
            except pylog.IllegalStateError as error:
                found.append("fork" in str(error))
        return found

    assert in_child(use) == [True, True, True]
    assert len(list(consumer)) == 119


def test_closed_broker_ends_the_wait(broker):
    with Consumer(broker, "orders") as consumer:
        def close():
            with pytest.raises(pylog.ConcurrentModificationError):    # of the consumer, which waits
                broker.close()

        threading.Timer(0.05, close).start()

        with pytest.raises(pylog.ClosedError):
            next(consumer)
