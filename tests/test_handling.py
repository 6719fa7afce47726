"""A consumer's records given to a handler, in the reading thread or by several at once."""

import threading
import time

import pytest
from lateness import late_once
from orders import ORDERS, fill
from runs import committed, impossible_runs

import pylog
from pylog.consumer import Consumer


class Diary:
    """A handler that writes down what it gets."""

    def __init__(self, seconds=0.0):
        self.seconds = seconds
        self.records = []
        self.lock = threading.Lock()
        self.threads = {}

    def __call__(self, record):
        """Returns how many it has got, which no other call returns."""
        time.sleep(self.seconds)
        with self.lock:
            self.records.append((record.partition, record.offset))
            self.threads.setdefault(record.partition, set()).add(threading.get_ident())
            return len(self.records)

    def offsets(self, partition):
        return [offset for number, offset in self.records if number == partition]


each_way = pytest.mark.parametrize("concurrency", [1, 2, 3, 8])


@each_way
def test_every_record_is_handled_once_and_a_partition_in_order(broker, concurrency):
    fill(broker, 200)
    diary = Diary()

    with Consumer(broker, "orders", consumer_timeout_ms=50, max_poll_records=7) as consumer:
        consumer.run(diary, concurrency=concurrency)

    assert [diary.offsets(number) for number in range(3)] == [list(range(200))] * 3
    assert all(len(threads) == 1 for threads in diary.threads.values())


def test_run_whose_reader_was_stopped_ends_when_all_was_read(broker):
    """Its partition was held until the handlers had caught up, for longer than the timeout."""
    fill(broker, 50)
    diary = Diary(0.002)

    with Consumer(broker, "orders", consumer_timeout_ms=50, max_poll_records=7) as consumer:
        poll, stops = consumer._poll, []

        def poll_and_be_stopped(*given):
            try:
                return poll(*given)
            except pylog.WakeupError:    # a handler is free
                while consumer._handling._is_busy():
                    time.sleep(0.06)
                stops.append(True)
                raise

        consumer._poll = poll_and_be_stopped
        consumer.run(diary, concurrency=2)

    assert stops
    assert [diary.offsets(number) for number in range(3)] == [list(range(50))] * 3


def test_reader_that_stood_still_behind_its_look_reads_what_came_meanwhile(broker):
    fill(broker, 1)
    diary = Diary()

    with Consumer(broker, "orders", consumer_timeout_ms=50) as consumer:
        consumer._poll = late_once(consumer._poll, 0.1, lambda: fill(broker, 1))
        consumer.run(diary, concurrency=2)

    assert len(diary.records) == 6


def test_partitions_are_handled_at_once(broker):
    fill(broker, 5)
    diary, three = Diary(), threading.Barrier(3)

    def handle(record):
        three.wait(30)    # broken, and so an error, where there are never three
        diary(record)

    with Consumer(broker, "orders", consumer_timeout_ms=0) as consumer:
        consumer.run(handle, concurrency=3)

    assert len(diary.records) == 15


def test_one_handler_runs_in_the_thread_that_reads(broker):
    fill(broker, 2)
    diary = Diary()

    with Consumer(broker, "orders", consumer_timeout_ms=0) as consumer:
        consumer.run(diary)

    assert set.union(*diary.threads.values()) == {threading.get_ident()}


def test_slow_partition_holds_up_no_other(broker):
    fill(broker, 50)
    seen = dict.fromkeys(range(3), 0)
    gate = threading.Event()

    def handle(record):
        if record.partition == 0:
            assert gate.wait(30)
        seen[record.partition] += 1
        if seen[1] == seen[2] == 50:
            gate.set()

    with Consumer(broker, "orders", consumer_timeout_ms=100, max_poll_records=5) as consumer:
        consumer.run(handle, concurrency=3)

    assert seen == {0: 50, 1: 50, 2: 50}


@each_way
def test_what_a_handler_raises_ends_the_run_and_is_not_finished(broker, concurrency):
    fill(broker, 20)
    handled = []

    def handle(record):
        if (record.partition, record.offset) == (1, 7):
            raise ZeroDivisionError
        handled.append((record.partition, record.offset))

    with Consumer(broker, "orders", group_id="g", consumer_timeout_ms=0,
                  max_poll_records=6) as consumer:
        with pytest.raises(ZeroDivisionError):
            consumer.run(handle, concurrency=concurrency)
        places = [consumer.position(one) for one in ORDERS]
        assert places[1] == 7
        assert places == [sum(number == n for n, _ in handled) for number in range(3)]
        rest = [(r.partition, r.offset) for r in consumer]

    assert sorted(handled + rest) == [(p, n) for p in range(3) for n in range(20)]


@each_way
def test_run_goes_on_after_a_failure(broker, concurrency):
    fill(broker, 20)
    handled, failed = [], []

    def handle(record):
        place = record.partition, record.offset
        if place == (2, 3) and not failed:
            failed.append(place)
            raise ZeroDivisionError
        handled.append(place)

    with Consumer(broker, "orders", group_id="g", consumer_timeout_ms=0) as consumer:
        with pytest.raises(ZeroDivisionError):
            consumer.run(handle, concurrency=concurrency)
        consumer.run(handle, concurrency=concurrency)

    assert sorted(handled) == [(p, n) for p in range(3) for n in range(20)]
    assert committed(broker) == [20, 20, 20]


@each_way
def test_close_commits_what_was_handled_and_no_more(broker, concurrency):
    fill(broker, 30)
    diary = Diary(0.001)

    def handle(record):
        if diary(record) == 20:
            consumer.wakeup()

    with Consumer(broker, "orders", group_id="g", max_poll_records=4) as consumer:
        consumer.run(handle, concurrency=concurrency)

    assert committed(broker) == [len(diary.offsets(number)) or 0 for number in range(3)]
    assert len(diary.records) < 90


@each_way
def test_wakeup_ends_a_run_that_waits(broker, concurrency):
    with Consumer(broker, "orders") as consumer:
        threading.Timer(0.05, consumer.wakeup).start()
        consumer.run(Diary(), concurrency=concurrency)
        assert consumer.poll() == {}


@each_way
@pytest.mark.parametrize("option", [{"commit_every": 10}, {"commit_interval": 0.02}])
def test_commits_come_in_time(broker, concurrency, option):
    fill(broker, 30)
    seen = []

    def handle(record):
        time.sleep(0.005)
        seen.append(sum(one or 0 for one in committed(broker)))

    with Consumer(broker, "orders", group_id="g", enable_auto_commit=False,
                  consumer_timeout_ms=0, max_poll_records=3) as consumer:
        consumer.run(handle, concurrency=concurrency, **option)

    assert seen[0] == 0
    assert max(seen) > 0
    assert committed(broker) == [30, 30, 30]


@each_way
def test_with_each_one_committed_none_begins_before_the_one_before_it_is(broker, concurrency):
    """A kill repeats what is in work, and nothing that was finished."""
    fill(broker, 200)
    behind = []

    def handle(record):
        found = committed(broker)[record.partition] or 0
        if found < record.offset:
            behind.append((record.partition, record.offset, found))

    with Consumer(broker, "orders", group_id="g", enable_auto_commit=False,
                  consumer_timeout_ms=0) as consumer:
        consumer.run(handle, concurrency=concurrency, commit_every=1)

    assert behind == []
    assert committed(broker) == [200, 200, 200]


def test_record_in_hand_is_handled_though_the_commit_of_those_before_it_failed(
        broker, monkeypatch):
    fill(broker, 5)
    diary = Diary()
    commit, left = Consumer._commit_finished, [pylog.PylogTimeoutError("one is stopped in it")]

    def fails_once(consumer):
        if diary.records and left:
            raise left.pop()
        commit(consumer)

    with Consumer(broker, "orders", group_id="g", enable_auto_commit=False,
                  consumer_timeout_ms=0) as consumer:
        monkeypatch.setattr(Consumer, "_commit_finished", fails_once)
        with pytest.raises(pylog.PylogTimeoutError):
            consumer.run(diary, commit_every=1)
        consumer.run(diary, commit_every=1)

    assert [diary.offsets(number) for number in range(3)] == [list(range(5))] * 3
    assert committed(broker) == [5, 5, 5]


def test_what_a_commit_that_failed_was_of_is_committed_when_the_run_ends(broker, monkeypatch):
    fill(broker, 5)
    commit, failed = Consumer._commit_as, []

    def interrupted_once(consumer, group, offsets):
        if not failed:
            failed.append(offsets)
            raise KeyboardInterrupt
        commit(consumer, group, offsets)

    with Consumer(broker, "orders", group_id="g", enable_auto_commit=False,
                  consumer_timeout_ms=100) as consumer:
        monkeypatch.setattr(Consumer, "_commit_as", interrupted_once)
        with pytest.raises(KeyboardInterrupt):
            consumer.run(lambda record: None, concurrency=3, commit_every=15)

    assert sum(one.offset for one in failed[0].values()) == 15
    assert committed(broker) == [5, 5, 5]


@pytest.mark.parametrize("concurrency", [2, 8])
def test_none_begins_before_the_one_before_it_is_committed_where_its_thread_cannot(
        broker, monkeypatch, concurrency):
    """As when a member was killed just now: the reading thread has to see the new generation."""
    fill(broker, 50)
    behind = []

    def handle(record):
        found = committed(broker)[record.partition] or 0
        if found < record.offset:
            behind.append((record.partition, record.offset, found))

    monkeypatch.setattr(Consumer, "_commit_at_once", lambda self, partition, offset: False)
    with Consumer(broker, "orders", group_id="g", enable_auto_commit=False,
                  consumer_timeout_ms=0) as consumer:
        consumer.run(handle, concurrency=concurrency, commit_every=1)

    assert behind == []
    assert committed(broker) == [50, 50, 50]


def test_a_partition_is_let_go_though_a_thread_in_front_of_it_waits_for_a_commit(
        broker, monkeypatch):
    """Of three partitions two have one thread. The reading one, which waits for what it lets go, is
    the one that commits."""
    fill(broker, 50)
    both = threading.Barrier(2)
    met, done = [], []

    def let_go(consumer):
        handling = consumer._handling
        with handling._lock:
            handling._lock.wait_for(lambda: handling._awaited, 10)
        last = list(handling._places)[2]
        done.append(handling.let_go([last]))

    def handle(record):
        if len(met) < 2:    # the first of each thread
            met.append(record.partition)
            both.wait(10)

    poll = Consumer._poll

    def poll_and_let_go(self, *arguments):
        if len(self._handling._places) == 3 and not done:
            let_go(self)
        return poll(self, *arguments)

    monkeypatch.setattr(Consumer, "_commit_at_once", lambda self, partition, offset: False)
    monkeypatch.setattr(Consumer, "_poll", poll_and_let_go)
    with Consumer(broker, "orders", group_id="g", enable_auto_commit=False,
                  consumer_timeout_ms=0) as consumer:
        thread = threading.Thread(target=consumer.run, args=[handle, 2],
                                  kwargs={"commit_every": 1}, daemon=True)
        thread.start()
        thread.join(10)
        assert not thread.is_alive()
    assert done == [set()]


def test_threads_commit_each_one_through_to_the_disk_too(tmp_path):
    with pylog.Broker(tmp_path / "data", durability="fsync") as broker:
        broker.create_topic("orders", 3, {"retention.ms": -1})
        fill(broker, 5)
        with Consumer(broker, "orders", group_id="g", enable_auto_commit=False,
                      consumer_timeout_ms=0) as consumer:
            consumer.run(Diary(), concurrency=3, commit_every=1)
        assert committed(broker) == [5, 5, 5]


@pytest.mark.parametrize("option", [{"commit_every": 1}, {"commit_interval": 0.01}])
def test_what_is_handled_while_nothing_comes_is_committed_in_time(broker, option):
    broker.append("orders", b"slow", partition=0)
    with Consumer(broker, "orders", group_id="g", enable_auto_commit=False) as consumer:
        thread = threading.Thread(target=consumer.run, args=[lambda record: time.sleep(0.1), 2],
                                  kwargs=option)
        thread.start()
        deadline = time.monotonic() + 10
        while committed(broker) != [1, None, None] and time.monotonic() < deadline:
            time.sleep(0.01)
        late = time.monotonic() >= deadline
        consumer.wakeup()
        thread.join()

    assert not late


@each_way
def test_nothing_is_committed_where_nobody_asked_for_it(broker, concurrency):
    fill(broker, 5)

    with Consumer(broker, "orders", group_id="g", enable_auto_commit=False,
                  consumer_timeout_ms=0) as consumer:
        consumer.run(Diary(), concurrency=concurrency)

    assert committed(broker) == [None, None, None]


@pytest.mark.slow
def test_partition_that_another_member_gets_is_let_go_behind_the_record_in_work(broker):
    fill(broker, 300)
    first, second = Diary(0.002), Diary()
    consumers = []

    def end_with_the_last(record):
        if len(first.records) + len(second.records) >= 900:
            for one in consumers:
                one.wakeup()

    def join():
        with Consumer(broker, "orders", group_id="g") as other:
            consumers.append(other)
            other.run(lambda record: (second(record), end_with_the_last(record)))

    joining = threading.Thread(target=join)

    def handle(record):
        if first(record) == 20:
            first.seconds = 0.05    # so that there is something left, however late the other comes
            joining.start()
        if second.records:
            first.seconds = 0.002
        end_with_the_last(record)

    with Consumer(broker, "orders", group_id="g", max_poll_records=5) as consumer:
        consumers.append(consumer)
        consumer.run(handle, concurrency=3)

    joining.join()
    assert second.records
    for number in range(3):
        assert sorted(first.offsets(number) + second.offsets(number)) == list(range(300))


def own(record):
    return pylog.TopicPartition(record.topic, record.partition)


def test_a_handler_that_seeks_is_obeyed(broker):
    fill(broker, 20)
    diary, sought = Diary(), []

    def handle(record):
        diary(record)
        if record.offset == 3 and record.partition not in sought:
            sought.append(record.partition)
            consumer.seek(own(record), 15 if record.partition else 1)

    with Consumer(broker, "orders", group_id="g", consumer_timeout_ms=0) as consumer:
        consumer.run(handle)

    assert diary.offsets(0) == [0, 1, 2, 3, *range(1, 20)]
    assert diary.offsets(1) == [0, 1, 2, 3, *range(15, 20)]
    assert committed(broker) == [20, 20, 20]


def test_a_handler_that_pauses_is_obeyed(broker):
    fill(broker, 20)
    diary = Diary()

    def handle(record):
        diary(record)
        if record.offset == 3:
            consumer.pause(own(record))

    with Consumer(broker, "orders", group_id="g", consumer_timeout_ms=0) as consumer:
        consumer.run(handle)
        assert consumer.paused() == set(ORDERS)

    assert [diary.offsets(number) for number in range(3)] == [[0, 1, 2, 3]] * 3
    assert committed(broker) == [4, 4, 4]


@pytest.mark.parametrize("verb", ["seek", "pause", "unsubscribe", "poll", "commit"])
def test_what_a_handler_raises_is_raised_whatever_it_did_before(broker, verb):
    fill(broker, 20)

    def handle(record):
        {"seek": lambda: consumer.seek(own(record), 7),
         "pause": lambda: consumer.pause(own(record)),
         "unsubscribe": consumer.unsubscribe,
         "poll": lambda: consumer.poll(max_records=2),
         "commit": consumer.commit}[verb]()
        raise ZeroDivisionError

    with Consumer(broker, "orders", group_id="g", consumer_timeout_ms=0) as consumer:
        with pytest.raises(ZeroDivisionError):
            consumer.run(handle)
        if verb != "unsubscribe":
            assert sum(map(consumer.position, ORDERS)) == {"seek": 7, "poll": 1}.get(verb, 0)


@pytest.mark.parametrize("concurrency", [2, 8])
def test_handler_in_another_thread_is_told_what_it_may_not(broker, concurrency):
    fill(broker, 20)
    errors = []

    def handle(record):
        partition = own(record)
        for verb in (lambda: consumer.seek(partition, 0), lambda: consumer.pause(partition),
                     lambda: consumer.resume(partition), consumer.unsubscribe, consumer.commit,
                     consumer.poll, consumer.close, lambda: consumer.position(partition)):
            with pytest.raises(pylog.ConcurrentModificationError, match="concurrency=1") as error:
                verb()
            errors.append(error)

    with Consumer(broker, "orders", group_id="g", consumer_timeout_ms=50) as consumer:
        consumer.run(handle, concurrency=concurrency)
        assert [consumer.position(one) for one in ORDERS] == [20] * 3    # now it may
        consumer.commit()

    assert len(errors) == 8 * 60


@pytest.mark.parametrize("concurrency", [1, 2, 8])
def test_partition_that_the_user_paused_stays_paused(broker, concurrency):
    fill(broker, 20)
    diary = Diary()

    with Consumer(broker, "orders", consumer_timeout_ms=50, max_poll_records=3) as consumer:
        consumer.pause(ORDERS[1])
        consumer.run(diary, concurrency=concurrency)
        assert consumer.paused() == {ORDERS[1]}

    assert [len(diary.offsets(number)) for number in range(3)] == [20, 0, 20]


@pytest.mark.slow
def test_listener_that_commits_commits_no_more_than_was_handled(broker):
    fill(broker, 300)
    diary, ahead = Diary(0.001), []

    class Committing:
        def on_partitions_revoked(self, partitions):
            consumer.commit()
            found = committed(broker)
            ahead.extend((one, found[one.partition]) for one in partitions
                         if found[one.partition] != len(diary.offsets(one.partition)))
            consumer.wakeup()

    def handle(record):
        if diary(record) == 20:
            diary.seconds = 0.05    # so that not all is handled before this one lets go
            others.append(Consumer(broker, "orders", group_id="g"))

    others = []
    with Consumer(broker, group_id="g", enable_auto_commit=False) as consumer:
        consumer.subscribe(["orders"], listener=Committing())
        consumer.run(handle, concurrency=3)

    others[0].close()
    assert len(diary.records) < 900
    assert ahead == []


@impossible_runs
def test_impossible_runs_are_refused(broker, options, error):
    with Consumer(broker, "orders", consumer_timeout_ms=0) as consumer:
        with pytest.raises(error):
            consumer.run(**{"handler": Diary(), **options})


def test_second_run_inside_a_run_is_refused(broker):
    fill(broker, 1)
    errors = []

    def handle(record):
        try:
            consumer.run(handle, concurrency=2)
        except pylog.ConcurrentModificationError as error:
            errors.append(error)

    with Consumer(broker, "orders", consumer_timeout_ms=100) as consumer:
        consumer.run(handle, concurrency=2)

    assert len(errors) == 3
