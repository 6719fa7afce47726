"""A consumer's records given to a coroutine, one at a time or several at once."""

import asyncio
import time

import pytest
from lateness import late_once
from members import Listener
from orders import ORDERS, fill, orders_broker
from runs import committed, impossible_runs
from turns import turns_of_another

import pylog
from pylog import AsyncConsumer, Consumer, TopicPartition

EVERYTHING = [(p, n) for p in range(3) for n in range(20)]


@pytest.fixture
def broker(log_path):
    with orders_broker(log_path) as broker:
        fill(broker, 20)
        yield broker


class Diary:
    """A handler that writes down what it gets, and how many were in it at once."""

    def __init__(self, seconds=0.0, fails_at=None):
        self.seconds = seconds
        self.fails_at = fails_at
        self.records = []
        self.inside = {}
        self.inside_max = 0

    async def __call__(self, record):
        place = record.partition, record.offset
        assert record.partition not in self.inside, "two records of a partition at once"
        self.inside[record.partition] = record.offset
        self.inside_max = max(self.inside_max, len(self.inside))
        try:
            await asyncio.sleep(self.seconds)
            if place == self.fails_at:
                raise ZeroDivisionError
        finally:
            del self.inside[record.partition]
        self.records.append(place)

    def offsets(self, partition):
        return [offset for number, offset in self.records if number == partition]


def in_loop(broker, act, **options):
    """act(consumer) in a loop of its own, with a consumer of the orders."""
    options = {"consumer_timeout_ms": 0, **options}

    async def main():
        async with AsyncConsumer(broker, "orders", **options) as consumer:
            return await asyncio.wait_for(act(consumer), 60)
    return asyncio.run(main())


each_way = pytest.mark.parametrize("concurrency", [1, 2, 3, 8])


@each_way
@pytest.mark.parametrize("seconds", [0, 0.0005])
def test_every_record_is_handled_once_and_a_partition_in_order(broker, concurrency, seconds):
    diary = Diary(seconds)

    in_loop(broker, lambda c: c.run(diary, concurrency=concurrency), max_poll_records=7)

    assert [diary.offsets(number) for number in range(3)] == [list(range(20))] * 3
    assert diary.inside_max <= concurrency
    assert concurrency == 1 or diary.inside_max > 1


def test_a_handler_need_not_be_async(broker):
    places = []

    in_loop(broker, lambda c: c.run(lambda r: places.append((r.partition, r.offset))))

    assert sorted(places) == EVERYTHING


def test_a_slow_partition_keeps_no_other_from_going_on(broker):
    seen, others = dict.fromkeys(range(3), 0), asyncio.Event()

    async def handle(record):
        if record.partition == 0:
            await others.wait()
        seen[record.partition] += 1
        if seen[1] == seen[2] == 20:
            others.set()

    in_loop(broker, lambda c: c.run(handle, concurrency=3), max_poll_records=5)

    assert seen == {0: 20, 1: 20, 2: 20}


def test_other_tasks_have_their_turn(broker):
    async def act(consumer):
        with turns_of_another() as turns:
            await consumer.run(lambda record: None)
        assert turns.count > 60

    in_loop(broker, act, max_poll_records=1)


@each_way
def test_what_a_handler_raises_ends_the_run_and_is_not_finished(broker, concurrency):
    diary = Diary(0, fails_at=(1, 7))

    async def act(consumer):
        with pytest.raises(ZeroDivisionError):
            await consumer.run(diary, concurrency=concurrency)
        assert [consumer.position(one) for one in ORDERS] == [
            len(diary.offsets(number)) for number in range(3)]
        assert consumer.paused() == set()
        diary.fails_at = None
        await consumer.run(diary, concurrency=concurrency)

    in_loop(broker, act, group_id="g", max_poll_records=6)

    assert sorted(diary.records) == EVERYTHING
    assert diary.offsets(1) == list(range(20))
    assert committed(broker) == [20, 20, 20]


@each_way
@pytest.mark.parametrize("end", ["wakeup", "cancel"])
def test_a_run_that_is_ended_commits_what_was_handled_and_no_more(broker, concurrency, end):
    diary = Diary(0.001)

    async def act(consumer):
        running = asyncio.ensure_future(consumer.run(diary, concurrency=concurrency))
        while len(diary.records) < 9:
            await asyncio.sleep(0)
        if end == "wakeup":
            consumer.wakeup()
            await running
        else:
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running
        assert not diary.inside
        handled = len(diary.records)
        await asyncio.sleep(0.01)
        assert len(diary.records) == handled

    in_loop(broker, act, group_id="g", consumer_timeout_ms=None, max_poll_records=4)

    assert 9 <= len(diary.records) < 60
    assert committed(broker) == [len(diary.offsets(number)) or 0 for number in range(3)]


@each_way
@pytest.mark.parametrize("option", [{"commit_every": 10}, {"commit_interval": 0.01}])
def test_commits_come_in_time(broker, concurrency, option):
    seen = []

    async def handle(record):
        await asyncio.sleep(0.001)
        seen.append(sum(one or 0 for one in committed(broker)))

    in_loop(broker, lambda c: c.run(handle, concurrency=concurrency, **option), group_id="g",
            enable_auto_commit=False, max_poll_records=3)

    assert seen[0] == 0
    assert max(seen) > 0
    assert committed(broker) == [20, 20, 20]


def test_what_is_left_of_an_interval_is_committed_though_nothing_more_comes(broker):
    async def act(consumer):
        running = asyncio.ensure_future(consumer.run(lambda record: None, commit_interval=0.02))
        deadline = time.monotonic() + 10
        while committed(broker) != [20, 20, 20]:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.005)
        running.cancel()

    in_loop(broker, act, group_id="g", enable_auto_commit=False, consumer_timeout_ms=None)


@each_way
def test_nothing_is_committed_where_nobody_asked_for_it(broker, concurrency):
    in_loop(broker, lambda c: c.run(Diary(), concurrency=concurrency), group_id="g",
            enable_auto_commit=False)

    assert committed(broker) == [None, None, None]


def test_a_partition_in_work_is_let_go_behind_its_record_and_the_others_go_on(broker):
    listener, held, begun = Listener(), asyncio.Event(), []

    async def handle(record):
        begun.append((record.partition, record.offset))
        if (record.partition, record.offset) == (2, 3):
            await held.wait()

    async def act(consumer):
        consumer.subscribe(["orders"], listener=listener)
        running = asyncio.ensure_future(consumer.run(handle, concurrency=3))
        while (2, 3) not in begun:
            await asyncio.sleep(0)
        with Consumer(broker, "orders", group_id="g", consumer_timeout_ms=0) as other:
            other.poll()                      # it has come, and is to have partition 2
            broker.append("orders", b"0:20", partition=0)
            while (0, 20) not in begun:
                await asyncio.sleep(0)
            assert listener.told == [("assigned", [0, 1, 2])]
            assert other.poll() == {}
            assert other.assignment() == set()
            held.set()
            while not (found := other.poll()):
                await asyncio.sleep(0)
            consumer.wakeup()
            await running
        assert listener.told == [("assigned", [0, 1, 2]), ("revoked", [2])]
        assert [(one.partition, records[0].offset) for one, records in found.items()] == [(2, 4)]

    in_loop(broker, act, group_id="g", consumer_timeout_ms=None)

    assert begun.count((2, 3)) == 1
    assert (2, 4) not in begun


def test_a_lost_partition_that_comes_back_waits_for_the_record_in_work(broker):
    diary, held, committed_ahead = Diary(), asyncio.Event(), []

    async def handle(record):
        if (committed(broker)[record.partition] or 0) > record.offset:
            committed_ahead.append((record.partition, record.offset))
        if not held.is_set() and (record.partition, record.offset) == (1, 3):
            await held.wait()
        await diary(record)

    async def act(consumer):
        running = asyncio.ensure_future(consumer.run(handle, concurrency=3, commit_every=1))
        while len(diary.records) < 43:
            await asyncio.sleep(0)
        pylog.Admin(broker).remove_group_members(
            "g", [consumer.group_metadata().member_id])
        broker.append("orders", b"0:20", partition=0)
        while (0, 20) not in diary.records:    # so it has joined anew
            await asyncio.sleep(0)
        await asyncio.sleep(0.01)
        assert diary.offsets(1) == [0, 1, 2]
        held.set()
        while diary.offsets(1)[-1:] != [19]:
            await asyncio.sleep(0)
        consumer.wakeup()
        await running

    in_loop(broker, act, group_id="g", consumer_timeout_ms=None)

    assert committed_ahead == []
    again = diary.offsets(1)[4:]
    assert diary.offsets(1)[:4] == [0, 1, 2, 3]
    assert again == list(range(again[0], 20))
    assert again[0] <= 3


def test_what_a_listener_raises_ends_the_run_with_nothing_kept(broker):
    held, begun, errors = asyncio.Event(), [], [RuntimeError("the listener")]

    class Failing(Listener):
        def on_partitions_revoked(self, partitions):
            if errors:
                raise errors.pop()

    async def handle(record):
        begun.append((record.partition, record.offset))
        if record.partition == 2:
            await held.wait()

    async def act(consumer):
        consumer.subscribe(["orders"], listener=Failing())
        running = asyncio.ensure_future(consumer.run(handle, concurrency=3))
        while (2, 0) not in begun:
            await asyncio.sleep(0)
        with Consumer(broker, "orders", group_id="g"), Consumer(broker, "orders", group_id="g"):
            asyncio.get_running_loop().call_later(0.05, held.set)    # 1 is to go, and 2 in work
            with pytest.raises(RuntimeError, match="the listener"):
                await running
            assert consumer.assignment() == set(ORDERS[:1])

    in_loop(broker, act, group_id="g", consumer_timeout_ms=None)


@each_way
def test_a_handler_that_seeks_is_obeyed(broker, concurrency):
    diary, sought = Diary(), []

    async def act(consumer):
        async def handle(record):
            if record.offset == 3 and record.partition not in sought:
                sought.append(record.partition)
                consumer.seek(ORDERS[record.partition], 15 if record.partition else 1)
            await diary(record)
        await consumer.run(handle, concurrency=concurrency)
        assert [consumer.position(one) for one in ORDERS] == [20] * 3

    in_loop(broker, act, group_id="g")

    assert diary.offsets(0) == [0, 1, 2, 3, *range(1, 20)]
    assert diary.offsets(1) == [0, 1, 2, 3, *range(15, 20)]
    assert committed(broker) == [20, 20, 20]


@each_way
def test_a_handler_that_seeks_and_ends_the_run_is_obeyed(broker, concurrency):
    async def act(consumer):
        async def handle(record):
            if record.offset == 3:
                consumer.seek(ORDERS[record.partition], 17)
                consumer.wakeup()
                raise ZeroDivisionError
        with pytest.raises(ZeroDivisionError):
            await consumer.run(handle, concurrency=concurrency)
        assert 17 in [consumer.position(one) for one in ORDERS]
        assert 4 not in [consumer.position(one) for one in ORDERS]

    in_loop(broker, act)


@each_way
def test_a_handler_that_pauses_is_obeyed_until_somebody_resumes(broker, concurrency):
    diary = Diary()

    async def act(consumer):
        async def handle(record):
            await diary(record)
            if record.offset == 3:
                consumer.pause(ORDERS[record.partition])
                if len(consumer.paused()) == 3:
                    waiting.set()
        waiting = asyncio.Event()
        running = asyncio.ensure_future(consumer.run(handle, concurrency=concurrency))
        await waiting.wait()
        await asyncio.sleep(0.02)
        assert len(diary.records) == 12
        consumer.resume(ORDERS[2])
        while diary.offsets(2)[-1] != 19:
            await asyncio.sleep(0)
        consumer.wakeup()
        await running
        assert consumer.paused() == set(ORDERS[:2])

    in_loop(broker, act, group_id="g", consumer_timeout_ms=None)

    assert [diary.offsets(number) for number in range(3)] == [[0, 1, 2, 3]] * 2 + [[*range(20)]]
    assert committed(broker) == [4, 4, 20]


@each_way
@pytest.mark.parametrize("verb", ["unsubscribe", "close"])
@pytest.mark.parametrize("group", ["g", None])
def test_a_handler_that_gives_all_up_ends_the_run_and_nothing_is_handled_after_it(
        broker, concurrency, verb, group):
    diary = Diary()

    async def act(consumer):
        async def handle(record):
            if record.offset == 3 and not given_up:
                given_up.append(record)
                if verb == "close":
                    await consumer.close()
                else:
                    consumer.unsubscribe()
                left.append(len(diary.records) + len(diary.inside))
            await diary(record)
        given_up, left = [], []
        with pytest.raises(pylog.PylogError, match=r"nothing to read|closed"):
            await consumer.run(handle, concurrency=concurrency)
        assert len(diary.records) <= left[0] + 1

    in_loop(broker, act, group_id=group)

    if group:
        assert all((one or 0) <= len(diary.offsets(number))
                   for number, one in enumerate(committed(broker)))


def test_partitions_that_a_handler_gave_up_are_not_committed_later(broker):
    other = TopicPartition("refunds", 0)
    broker.create_topic("refunds", 1)
    broker.append("refunds", b"one")

    async def act(consumer):
        async def handle(record):
            if record.topic == "orders" and record.offset == 3:
                consumer.unsubscribe()
                consumer.assign([other])
        consumer.unsubscribe()
        consumer.assign(ORDERS[:1])
        await consumer.run(handle, commit_every=1)
        assert consumer.committed(other) == 1

    in_loop(broker, act, group_id="g", enable_auto_commit=False)

    assert committed(broker)[0] == 3


@each_way
def test_a_handler_that_commits_commits_what_was_handled_and_its_own_record(broker, concurrency):
    diary, ahead = Diary(), []

    async def act(consumer):
        async def handle(record):
            await diary(record)
            await consumer.commit()
            found = committed(broker)
            assert found[record.partition] == record.offset + 1
            ahead.extend(number for number, one in enumerate(found)
                         if (one or 0) > len(diary.offsets(number)))
        await consumer.run(handle, concurrency=concurrency)

    in_loop(broker, act, group_id="g", enable_auto_commit=False)

    assert ahead == []
    assert committed(broker) == [20, 20, 20]


@impossible_runs
def test_impossible_runs_are_refused(broker, options, error):
    async def act(consumer):
        with pytest.raises(error):
            await consumer.run(**{"handler": Diary(), **options})

    in_loop(broker, act)


def test_second_run_inside_a_run_is_refused(broker):
    errors = []

    async def act(consumer):
        async def handle(record):
            try:
                await consumer.run(handle)
            except pylog.ConcurrentModificationError as error:
                errors.append(error)
        await consumer.run(handle)

    in_loop(broker, act)

    assert len(errors) == 60


@each_way
def test_async_handler_is_refused_by_who_would_not_await_it(broker, concurrency):
    async def handle(record):
        pass

    with Consumer(broker, "orders", group_id="g", consumer_timeout_ms=0) as consumer:
        for handler in (handle, Diary()):
            with pytest.raises(TypeError, match=r"use AsyncConsumer\.run"):
                consumer.run(handler, concurrency=concurrency)

    assert committed(broker) == [None, None, None]


@pytest.mark.slow
def test_the_time_of_a_handler_is_not_one_without_records(broker):
    broker.create_topic("late")
    broker.append("late", b"0")
    seen = []

    async def handle(record):
        seen.append(record.value)
        if record.value == b"0":
            await asyncio.sleep(1.1)
            asyncio.get_running_loop().call_later(0.05, broker.append, "late", b"1")

    async def main():
        async with AsyncConsumer(broker, "late", consumer_timeout_ms=1000) as consumer:
            await consumer.run(handle)

    asyncio.run(main())
    assert seen == [b"0", b"1"]


def test_reader_that_stood_still_behind_its_look_reads_what_came_meanwhile(broker):
    diary = Diary()

    async def act(consumer):
        await consumer.run(diary)
        consumer._poll = late_once(consumer._poll, 0.1, lambda: fill(broker, 1))
        await consumer.run(diary)

    in_loop(broker, act, consumer_timeout_ms=50)
    assert len(diary.records) == len(EVERYTHING) + 3
