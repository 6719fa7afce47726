"""What a consumer commits for its group, and when: what was asked past is finished."""

import time

import pytest
from orders import ORDERS, fill, orders_broker, values

import pylog
from pylog import OffsetAndMetadata
from pylog.consumer import Consumer


@pytest.fixture
def broker(log_path):
    with orders_broker(log_path) as broker:
        yield broker


class Group:
    """What a consumer asks of a group, as one process may hold it."""

    def __init__(self):
        self.offsets = {}
        self.commits = 0
        self.syncs = 0
        self.is_closed = False

    def sync(self):
        self.syncs += 1

    def commit(self, offsets):
        self.offsets |= offsets
        self.commits += 1

    def committed(self, partition):
        return self.offsets.get(partition)

    def close(self):
        self.is_closed = True


def grouped(broker, group, **options):
    consumer = Consumer(broker, consumer_timeout_ms=0, **options)
    consumer._group = group
    consumer.subscribe(["orders"])
    return consumer


def of_one_partition(broker, count=5):
    for number in range(count):
        broker.append("orders", b"%d" % number, partition=0)


def test_commit_takes_in_the_record_in_hand(broker):
    group = Group()
    of_one_partition(broker)
    with grouped(broker, group, enable_auto_commit=False) as consumer:
        next(consumer)
        next(consumer)
        consumer.commit()
        assert consumer.committed(ORDERS[0]) == 2
        next(consumer)

    assert group.offsets[ORDERS[0]] == OffsetAndMetadata(2)
    assert group.is_closed


@pytest.mark.parametrize("read", [
    lambda c: [next(c) for _ in range(3)],
    lambda c: [c.consume(1), c.consume(1), c.consume(1)],
    lambda c: [c.poll(max_records=2), c.poll(max_records=1)],
    lambda c: [next(c.batches(2)), next(c)],
])
def test_close_commits_all_but_what_is_in_hand(broker, read):
    group = Group()
    of_one_partition(broker)

    with grouped(broker, group) as consumer:
        read(consumer)

    assert group.offsets[ORDERS[0]].offset == 2


def test_record_whose_handling_raised_is_not_committed(broker):
    group = Group()
    of_one_partition(broker)

    with pytest.raises(ZeroDivisionError):
        with grouped(broker, group) as consumer:
            for record in consumer:
                if record.value == b"3":
                    raise ZeroDivisionError

    assert group.offsets[ORDERS[0]].offset == 3


def test_iteration_that_came_to_the_end_has_finished_all(broker):
    group = Group()
    of_one_partition(broker)

    with grouped(broker, group) as consumer:
        for _ in consumer:
            pass

    assert group.offsets[ORDERS[0]].offset == 5


def test_pause_in_the_loop_leaves_the_record_in_hand_unfinished(broker):
    group = Group()
    of_one_partition(broker)

    with grouped(broker, group) as consumer:
        next(consumer)
        next(consumer)
        consumer.pause(ORDERS[0])

    assert group.offsets[ORDERS[0]].offset == 1


def test_seek_says_that_what_is_in_hand_is_finished(broker):
    group = Group()
    of_one_partition(broker)

    with grouped(broker, group) as consumer:
        next(consumer)
        consumer.seek(ORDERS[0], 4)

    assert group.offsets[ORDERS[0]].offset == 4


def test_slow_loop_commits_in_time(broker):
    group = Group()
    of_one_partition(broker, 40)
    with grouped(broker, group, auto_commit_interval_ms=1) as consumer:
        read = 0
        while group.commits < 3 and read < 40:
            last = next(consumer)
            read += 1
            time.sleep(0.01)

        assert 0 < group.offsets[ORDERS[0]].offset <= last.offset < 39


def test_nothing_is_committed_by_itself_when_that_is_off(broker):
    group = Group()
    of_one_partition(broker)

    with grouped(broker, group, enable_auto_commit=False, auto_commit_interval_ms=1) as consumer:
        list(consumer)

    assert group.offsets == {}


def test_reading_starts_at_what_was_committed(broker):
    group = Group()
    group.offsets[ORDERS[0]] = OffsetAndMetadata(3, "so far")
    of_one_partition(broker)
    with grouped(broker, group) as consumer:
        assert values(consumer) == [b"3", b"4"]
        consumer.commit({ORDERS[0]: OffsetAndMetadata(1, "back")})
        assert consumer.committed(ORDERS[0], metadata=True) == OffsetAndMetadata(1, "back")
        consumer.seek_to_committed()
        assert values(consumer) == [b"1", b"2", b"3", b"4"]


@pytest.mark.parametrize(("offsets", "error"), [
    ({ORDERS[0]: 6}, pylog.OffsetOutOfRangeError),
    ({ORDERS[0]: -1}, pylog.OffsetOutOfRangeError),
    ({ORDERS[0]: "1"}, TypeError),
    ({"orders": 1}, TypeError),
    ({("order", 0): 0}, pylog.UnknownTopicOrPartitionError),
])
def test_impossible_commits_are_refused_whole(broker, offsets, error):
    group = Group()
    of_one_partition(broker)
    with grouped(broker, group, enable_auto_commit=False) as consumer:
        with pytest.raises(error):
            consumer.commit({ORDERS[1]: 0} | offsets)

    assert group.commits == 0


def test_partitions_that_are_taken_away_are_read_no_more(broker):
    fill(broker, 3)
    group, told = Group(), []

    class Listener:
        def on_partitions_revoked(self, partitions):
            told.append(("revoked", partitions, consumer.position(partitions[0])))

        def on_partitions_lost(self, partitions):
            told.append(("lost", partitions))

    with Consumer(broker, consumer_timeout_ms=0) as consumer:
        consumer._group = group
        consumer.subscribe(["orders"], listener=Listener())
        group.sync = lambda: consumer._revoked(ORDERS[:1]) if ORDERS[0] in consumer.assignment() \
            else None
        assert {r.partition for r in consumer} == {1, 2}
        consumer._lost(ORDERS[1:])
        assert consumer.assignment() == set()

    assert told == [("revoked", ORDERS[:1], 0), ("lost", ORDERS[1:])]
