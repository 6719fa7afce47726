"""What a consumer commits for its group, and when: what was asked past is finished."""

import threading
import time

import pytest
from members import Listener
from orders import ORDERS, fill, orders_broker, values
from tables import eventually

import pylog
from pylog import OffsetAndMetadata, subscriber
from pylog.broker import Broker
from pylog.consumer import Consumer


def grouped(broker, **options):
    return Consumer(broker, "orders", group_id="g", consumer_timeout_ms=0, **options)


def committed(broker, number=0):
    """What the next consumer of the group finds."""
    found = broker.group("g").committed(ORDERS[number], broker.log("orders", number).incarnation)
    return found and found.offset


def of_one_partition(broker, count=5):
    for number in range(count):
        broker.append("orders", b"%d" % number, partition=0)


def test_commit_takes_in_the_record_in_hand(broker):
    of_one_partition(broker)
    with grouped(broker, enable_auto_commit=False) as consumer:
        next(consumer)
        next(consumer)
        consumer.commit()
        assert consumer.committed(ORDERS[0]) == 2
        next(consumer)

    assert committed(broker) == 2


@pytest.mark.parametrize("read", [
    lambda c: [next(c) for _ in range(3)],
    lambda c: [c.consume(1), c.consume(1), c.consume(1)],
    lambda c: [c.poll(max_records=2), c.poll(max_records=1)],
    lambda c: [next(c.batches(2)), next(c)],
])
def test_close_commits_all_but_what_is_in_hand(broker, read):
    of_one_partition(broker)

    with grouped(broker) as consumer:
        read(consumer)

    assert committed(broker) == 2


def test_record_whose_handling_raised_is_not_committed(broker):
    of_one_partition(broker)

    with pytest.raises(ZeroDivisionError):
        with grouped(broker) as consumer:
            for record in consumer:
                if record.value == b"3":
                    raise ZeroDivisionError

    assert committed(broker) == 3


def test_iteration_that_came_to_the_end_has_finished_all(broker):
    of_one_partition(broker)

    with grouped(broker) as consumer:
        for _ in consumer:
            pass

    assert committed(broker) == 5


def test_pause_in_the_loop_leaves_the_record_in_hand_unfinished(broker):
    of_one_partition(broker)

    with grouped(broker) as consumer:
        next(consumer)
        next(consumer)
        consumer.pause(ORDERS[0])

    assert committed(broker) == 1


def test_seek_says_that_what_is_in_hand_is_finished(broker):
    of_one_partition(broker)

    with grouped(broker) as consumer:
        next(consumer)
        consumer.seek(ORDERS[0], 4)

    assert committed(broker) == 4


def test_slow_loop_commits_in_time(broker):
    of_one_partition(broker, 40)
    seen = []
    with grouped(broker, auto_commit_interval_ms=1) as consumer:
        for record in consumer:
            time.sleep(0.01)
            seen.append(committed(broker) or 0)
            assert seen[-1] <= record.offset

    assert len(set(seen)) > 3


def test_nothing_is_committed_by_itself_when_that_is_off(broker):
    of_one_partition(broker)

    with grouped(broker, enable_auto_commit=False, auto_commit_interval_ms=1) as consumer:
        list(consumer)

    assert committed(broker) is None


def test_reading_starts_at_what_was_committed(broker):
    of_one_partition(broker)
    with grouped(broker, enable_auto_commit=False) as consumer:
        next(consumer)
        consumer.commit({ORDERS[0]: OffsetAndMetadata(3, "so far")})
    with grouped(broker) as consumer:
        assert values(consumer) == [b"3", b"4"]
        consumer.commit({ORDERS[0]: OffsetAndMetadata(1, "back")})
        assert consumer.committed(ORDERS[0], metadata=True) == OffsetAndMetadata(1, "back")
        consumer.seek_to_committed()
        assert values(consumer) == [b"1", b"2", b"3", b"4"]


@pytest.mark.parametrize(("offsets", "error"), [
    ({ORDERS[0]: 6}, pylog.OffsetOutOfRangeError),
    ({ORDERS[0]: -1}, pylog.OffsetOutOfRangeError),
    ({ORDERS[0]: "1"}, TypeError),
    ({ORDERS[0]: OffsetAndMetadata("1")}, TypeError),
    ({ORDERS[0]: OffsetAndMetadata(1, 7)}, TypeError),
    ({ORDERS[0]: OffsetAndMetadata(1, "", "first")}, TypeError),
    ({"orders": 1}, TypeError),
    ({("order", 0): 0}, pylog.UnknownTopicOrPartitionError),
])
def test_impossible_commits_are_refused_whole(broker, offsets, error):
    of_one_partition(broker)
    with grouped(broker, enable_auto_commit=False) as consumer:
        next(consumer)
        with pytest.raises(error):
            consumer.commit({ORDERS[1]: 0} | offsets)

    assert committed(broker, 1) is None


def test_what_is_no_dict_by_partition_is_not_committed(broker):
    of_one_partition(broker)
    with grouped(broker, enable_auto_commit=False) as consumer:
        for offsets in (next(consumer), [ORDERS[0]], 1):
            with pytest.raises(TypeError, match=r"a dict by partition, as {TopicPartition\("):
                consumer.commit(offsets)

    assert committed(broker) is None


def test_who_was_removed_is_a_member_again_when_it_reads_on_after_the_refusal(broker):
    of_one_partition(broker)
    with grouped(broker, enable_auto_commit=False) as consumer:
        next(consumer)
        pylog.Admin(broker).remove_group_members("g", [consumer.group_metadata().member_id])
        with pytest.raises(pylog.UnknownMemberIdError, match="rejoin"):
            consumer.commit()

        assert next(consumer).value == b"0"
        consumer.commit()

    assert committed(broker) == 1


class CountingTable:
    """A group's table, and how often it was synced."""

    def __init__(self, table):
        self.table = table
        self.syncs = 0

    def sync(self):
        self.syncs += 1
        self.table.sync()

    def __getattr__(self, name):
        return getattr(self.table, name)


@pytest.mark.parametrize("durability", ["os", "fsync"])
@pytest.mark.parametrize("commit", [
    lambda consumer: consumer.commit(),
    lambda consumer: consumer.commit({ORDERS[0]: 1}),
    lambda consumer: consumer.commit_async(),
    lambda consumer: list(consumer) or consumer.close(),
])
def test_commits_of_an_fsync_broker_are_synced(tmp_path, durability, commit):
    with Broker(tmp_path / "data", durability) as broker:
        broker.append("orders", b"0")
        consumer = grouped(broker)
        consumer.poll()
        table = consumer._group.table = CountingTable(consumer._group.table)
        commit(consumer)

        assert (table.syncs > 0) == (durability == "fsync")


def listening(broker, **options):
    listener = Listener()
    consumer = Consumer(broker, group_id="g", consumer_timeout_ms=0, **options)
    consumer.subscribe(["orders"], listener=listener)
    list(consumer)
    return consumer, listener


def test_partitions_that_are_taken_away_are_committed_and_read_no_more(broker):
    fill(broker, 3)
    first, listener = listening(broker)
    with grouped(broker) as second:
        assert list(second) == []
        list(first)
        list(second)
        assert len(first.assignment()) + len(second.assignment()) == 3
        fill(broker, 3)
        read = [r.partition for r in first] + [r.partition for r in second]
        assert sorted(read) == sorted(r.partition for r in broker.read("orders"))[::2]
    assert listener.told[0] == ("assigned", [0, 1, 2])
    assert listener.told[1][0] == "revoked"
    first.close()
    assert listener.told[-1][0] == "revoked"


def test_a_partition_that_could_not_be_opened_when_it_was_assigned_is_read_later(
        broker, monkeypatch):
    fill(broker, 1)
    opened, failures = broker.log, [pylog.PylogTimeoutError("a stopped process is inside")]

    def log(topic, partition=0):
        if partition == 1 and failures:
            raise failures.pop()
        return opened(topic, partition)

    monkeypatch.setattr(broker, "log", log)
    listener = Listener()
    with Consumer(broker, group_id="g", consumer_timeout_ms=100) as consumer:
        consumer.subscribe(["orders"], listener=listener)
        with pytest.raises(pylog.PylogTimeoutError):
            consumer.poll()

        assert sorted(r.value for r in consumer) == [b"0:0", b"1:0", b"2:0"]
        assert listener.told == [("assigned", [0, 1, 2])]


def test_a_second_member_goes_on_where_the_first_has_let_go(broker):
    of_one_partition(broker, 10)
    first = grouped(broker)
    for _ in range(4):
        next(first)
    first.close()

    with grouped(broker) as second:
        assert values(second) == [b"%d" % n for n in range(3, 10)]


def test_what_is_finished_is_committed_after_an_earlier_offset_was_by_hand(broker):
    """Also where another had joined in between, so that the generation had to be learned."""
    of_one_partition(broker, 4)
    with grouped(broker, enable_auto_commit=False) as first:
        assert len(list(first)) == 4
        first.commit()
        with grouped(broker):
            first.commit({ORDERS[0]: 1})
            assert committed(broker) == 1
            first.commit()
            assert committed(broker) == 4


def test_a_consumer_that_assigns_itself_commits_where_nobody_reads(broker):
    of_one_partition(broker)
    with Consumer(broker, group_id="g", consumer_timeout_ms=0) as alone:
        alone.assign(ORDERS[:1])
        next(alone)
        alone.commit()
        assert committed(broker) == 1
        assert alone.group_metadata()[1:3] == (-1, "")
        with grouped(broker) as member:
            list(member)
            with pytest.raises(pylog.CommitFailedError, match="orders-0"):
                alone.commit({ORDERS[0]: 3})


def test_nothing_is_committed_for_a_partition_of_another_member(broker):
    with grouped(broker) as first, grouped(broker) as second:
        for _ in range(2):
            list(first)
            list(second)
        theirs = next(iter(second.assignment()))
        with pytest.raises(pylog.CommitFailedError, match=f"orders-{theirs.partition}"):
            first.commit({theirs: 0})


@pytest.mark.parametrize("is_read", [True, False])
def test_a_commit_is_never_for_the_next_topic_of_the_name(broker, monkeypatch, is_read):
    """Its group has another generation, so that it takes the long way."""
    of_one_partition(broker)
    check = subscriber.note

    def check_and_stop(*given):
        monkeypatch.setattr(subscriber, "note", check)
        with Broker(broker.path) as other:
            other.delete_topic("orders")
            other.create_topic("orders", 3)
            of_one_partition(other, 9)
            grouped(other).close()
        return check(*given)

    with grouped(broker, enable_auto_commit=False) as consumer:
        if is_read:
            next(consumer)
        else:
            consumer.unsubscribe()
        monkeypatch.setattr(subscriber, "note", check_and_stop)
        consumer.commit({ORDERS[0]: 5})

    assert committed(broker) is None    # else four records of the new one are read by nobody


def test_async_commit_tells_how_it_went(broker):
    of_one_partition(broker)
    told = []
    with grouped(broker, enable_auto_commit=False) as consumer:
        next(consumer)
        consumer.commit_async(callback=lambda *how: told.append(how))
        consumer.commit_async({ORDERS[0]: 99}, callback=lambda *how: told.append(how))

    assert told[0] == (None, None)
    assert isinstance(told[1][1], pylog.OffsetOutOfRangeError)
    assert committed(broker) == 1


@pytest.mark.parametrize("callback", [None, lambda *how: None])
def test_async_commit_of_who_can_commit_nothing_raises(broker, callback):
    of_one_partition(broker)
    with Consumer(broker, "orders") as alone, \
            pytest.raises(pylog.IllegalStateError, match=r"commit_async\(\) needs a group"):
        alone.commit_async(callback=callback)
    consumer = grouped(broker)
    consumer.close()

    with pytest.raises(pylog.ClosedError):
        consumer.commit_async(callback=callback)


def test_who_was_removed_is_told_and_comes_back(broker):
    of_one_partition(broker)
    consumer, listener = listening(broker, enable_auto_commit=False)
    group = broker.group("g")
    generation, roster = group.roster()
    roster.members.clear()
    assert group.table.publish(generation, roster.encode())

    with pytest.raises(pylog.UnknownMemberIdError, match="no member"):
        consumer.commit({ORDERS[0]: 3})
    assert committed(broker) is None
    assert values(consumer) == [b"%d" % n for n in range(5)]
    assert [what for what, _ in listener.told] == ["assigned", "lost", "assigned"]
    consumer.close()


def test_a_log_that_ends_before_what_was_committed_is_read_anew(broker, caplog):
    of_one_partition(broker)
    log = broker.log("orders", 0)
    broker.group("g").alter_offsets({ORDERS[0]: OffsetAndMetadata(1000)},
                                    {ORDERS[0]: log.incarnation})
    with grouped(broker) as consumer:
        assert values(consumer) == [b"%d" % n for n in range(5)]
    assert "has lost records" in caplog.text


@pytest.mark.parametrize(("options", "error"), [
    ({"group_id": ""}, pylog.InvalidGroupIdError),
    ({"group_id": 3}, TypeError),
    ({"group_instance_id": "one"}, pylog.ConfigurationError),
    ({"group_id": "g", "group_instance_id": ""}, pylog.ConfigurationError),
    ({"group_id": "g", "session_timeout_ms": 1}, pylog.ConfigurationError),
    ({"group_id": "g", "session_timeout_ms": "9"}, TypeError),
    ({"group_id": "g", "partition_assignment_strategy": "eager"}, pylog.ConfigurationError),
])
def test_groups_that_cannot_be(broker, options, error):
    with pytest.raises(error):
        Consumer(broker, "orders", **options)
    assert broker.topics()


def test_a_broker_that_is_closed_closes_its_consumers_which_commit(log_path):
    broker = orders_broker(log_path)
    of_one_partition(broker)
    consumer = grouped(broker)
    assert len(values(consumer)) == 5

    broker.close()

    assert consumer.closed
    consumer.close()
    with pytest.raises(pylog.ClosedError):
        next(consumer)
    with pytest.raises(pylog.ClosedError):
        consumer.commit()
    with pylog.Broker(log_path) as broker:
        assert committed(broker) == 5


def is_in_use(consumer):
    """By another thread, which asks for the next record."""
    try:
        consumer._check_usable()
    except pylog.ConcurrentModificationError:
        return True
    return False


def test_a_reader_whose_broker_another_thread_closes_is_told(log_path):
    broker = orders_broker(log_path)
    consumer = Consumer(broker, "orders", group_id="g")
    told = []

    def read():
        try:
            list(consumer)
        except pylog.PylogError as error:
            told.append(type(error))
    thread = threading.Thread(target=read)
    thread.start()
    eventually(lambda: is_in_use(consumer))
    with pytest.raises(pylog.ConcurrentModificationError):
        broker.close()
    thread.join(20)

    assert told == [pylog.ClosedError]


@pytest.mark.parametrize("durability", ["os", "interval"])
def test_last_commits_of_an_interval_broker_are_synced_at_its_end(tmp_path, durability):
    with pylog.Broker(tmp_path / "data", durability=durability) as broker:
        broker.create_topic("orders", 1)
        broker.append("orders", b"0")
        group = broker.group("g")
        before = group._synced
        consumer = grouped(broker, enable_auto_commit=False)
        next(consumer)
        consumer.commit()
        commits = group.table.commits

    assert group._synced == (commits if durability == "interval" else before)


def test_commits_of_an_interval_broker_are_synced_within_seconds(tmp_path, monkeypatch):
    with pylog.Broker(tmp_path / "data", durability="interval") as broker:
        broker.create_topic("orders", 1)
        broker.append("orders", b"0")
        with grouped(broker, enable_auto_commit=False) as consumer:
            next(consumer)
            consumer.commit()
            group, synced = broker.group("g"), threading.Event()
            sync = group.sync_if_changed
            monkeypatch.setattr(group, "sync_if_changed", lambda: (sync(), synced.set()))
            assert synced.wait(10)
            assert group._synced == group.table.commits
