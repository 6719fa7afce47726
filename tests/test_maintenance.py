"""Retention, rolling by age and configs that change, with a clock that does as it is told."""

import fcntl
import os
import threading
import time

import pytest
from chances import assert_once_below
from children import in_child, killed

import pylog
from pylog import maintenance, testing
from pylog.broker import Broker
from pylog.testing import VirtualClock, drain

HOUR = 3_600_000
broker = testing.broker     # the fixture that programs are given


@pytest.fixture
def clock(monkeypatch):
    """With it there are no rounds but those that are asked for: while the broker's thread is at
    one, `maintain` does nothing."""
    monkeypatch.setattr(maintenance, "LOOK_SECONDS", 3600)
    return VirtualClock(time.time_ns() // 1_000_000)


def segments(log):
    return sorted(int(path.name[:20]) for path in log.path.glob("*.log"))


def hourly(broker, clock, hours, **configs):
    """A topic with a segment an hour, of 10 records each."""
    broker.create_topic("orders", 1, {"segment.bytes": 65_536, **configs})
    log = broker.log("orders")
    for hour in range(hours):
        for _ in range(10):
            log.append(bytes(1000), timestamp=clock.now_ms)
        if hour < hours - 1:
            log.roll()
            clock.advance(hours=1)
    return log


def test_what_is_older_than_retention_ms_goes_by_whole_segments(broker, clock):
    log = hourly(broker, clock, 6, **{"retention.ms": int(2.5 * HOUR)})
    assert segments(log) == [0, 10, 20, 30, 40, 50]

    assert broker.maintain(clock.now_ms) is True

    assert segments(log) == [30, 40, 50]
    assert log.start_offset == 30
    assert [r.offset for r in log.read()] == list(range(30, 60))


def test_last_segment_goes_too_when_all_of_it_is_old(broker, clock):
    log = hourly(broker, clock, 3, **{"retention.ms": HOUR})
    clock.advance(hours=2)

    broker.maintain(clock.now_ms)

    assert (log.start_offset, log.end_offset) == (30, 30)
    assert drain(broker) == []
    assert log.append(b"next") == 30


def test_record_that_is_young_keeps_what_is_behind_it(broker, clock):
    """As Kafka: the first segment that does not qualify ends it."""
    log = hourly(broker, clock, 4, **{"retention.ms": HOUR})
    broker.maintain(clock.now_ms - 3 * HOUR)
    log.roll()
    log.append(b"old", timestamp=clock.now_ms - 100 * HOUR)
    log.roll()
    log.append(b"new", timestamp=clock.now_ms)

    broker.maintain(clock.now_ms)

    assert [r.value for r in log.read()][-2:] == [b"old", b"new"]


def test_size_is_kept_and_a_segment_less_would_not_be_enough(broker, clock):
    log = hourly(broker, clock, 6, **{"retention.bytes": 25_000})
    while not log._retire():    # the housekeeper is at it; a round would leave it to the next
        time.sleep(0.01)

    broker.maintain(clock.now_ms)

    sizes = {base: sum(len(b) for b in log.batches(base)) for base in segments(log)}
    kept = sizes[log.start_offset]
    assert kept >= 25_000
    assert kept - sizes[segments(log)[1]] > 0
    assert segments(log) == [30, 40, 50]


class Busy:
    """A log into which another process writes, and rolls it, behind the nth call of a method."""

    def __init__(self, log, method, nth, write):
        self._log, self._method, self._left, self._write = log, method, nth, write

    def __getattr__(self, name):
        found = getattr(self._log, name)
        if name != self._method:
            return found

        def call(*arguments):
            result = found(*arguments)
            self._left -= 1
            if self._left == 0:
                self._write()
                self._log.roll()
            return result

        return call


def test_what_comes_in_while_retention_looks_is_not_taken_for_old(broker, clock):
    log = hourly(broker, clock, 3, **{"retention.ms": HOUR})
    clock.advance(hours=2)
    busy = Busy(log, "offset_for_time", 2, lambda: log.append(b"new", timestamp=clock.now_ms))

    maintenance.clean(busy, {"retention.ms": str(HOUR)}, clock.now_ms)

    assert [r.value for r in log.read()] == [b"new"]


def test_segment_that_others_rolled_counts_by_its_records_not_by_its_blocks(broker, clock):
    log = hourly(broker, clock, 6, **{"retention.bytes": 25_000})
    while not log._retire():
        time.sleep(0.01)
    busy = Busy(log, "_retire", 1, lambda: log.append(b"new"))

    maintenance.clean(busy, {"retention.ms": "-1", "retention.bytes": "25000"}, clock.now_ms)

    assert log.start_offset in (20, 30)    # the next round takes what this one did not see


def anew(broker, clock):
    broker.delete_topic("orders")
    hourly(broker, VirtualClock(clock.now_ms - 9 * HOUR), 3, **{"retention.ms": -1})


def keep_all(broker, clock):
    broker.alter_configs("orders", {"retention.ms": -1})


@pytest.mark.parametrize("change", [anew, keep_all])
@pytest.mark.parametrize("step", ["is_due", "clean", "_past_size"])
def test_round_deletes_by_no_configs_that_do_not_hold_any_more(broker, clock, monkeypatch, step,
                                                               change):
    """The round has read them, and stands still for a while."""
    hourly(broker, clock, 3, **{"retention.ms": HOUR})
    clock.advance(hours=5)
    real = getattr(maintenance, step)

    def late(*given):
        monkeypatch.setattr(maintenance, step, real)
        if step == "clean":    # what it was given is of what was there before
            change(broker, clock)
            return real(broker.log("orders"), *given[1:])
        found = real(*given)
        change(broker, clock)
        return found

    monkeypatch.setattr(maintenance, step, late)
    broker.maintain(clock.now_ms)

    assert len(drain(broker)) == 30


def test_round_puts_no_log_back_to_what_its_topic_was_altered_from(broker, clock, monkeypatch):
    broker.create_topic("orders", 1, {"max.message.bytes": 1000})
    log, topics = broker.log("orders"), broker.topics()
    broker.alter_configs("orders", {"max.message.bytes": 2000})
    monkeypatch.setattr(broker, "topics", lambda: topics)    # as of before

    broker.maintain(clock.now_ms)

    assert log.stats()["options"]["max_message_bytes"] == 2000


@pytest.mark.parametrize("configs", [
    {"retention.ms": -1}, {"retention.ms": -1, "retention.bytes": -1},
    {"retention.ms": 1000 * HOUR, "retention.bytes": 10**9},
])
def test_what_is_to_be_kept_is_kept(broker, clock, configs):
    log = hourly(broker, clock, 4, **configs)

    broker.maintain(clock.now_ms + 100 * HOUR)

    assert log.start_offset == 0
    assert segments(log) == [0, 10, 20, 30]


def test_default_is_seven_days(broker, clock):
    broker.append("orders", b"value", timestamp=clock.now_ms)
    clock.advance(days=6.9)
    broker.maintain(clock.now_ms)
    assert len(drain(broker)) == 1

    clock.advance(days=0.2)
    broker.maintain(clock.now_ms)
    assert drain(broker) == []


def test_segment_is_rolled_when_it_is_older_than_segment_ms(broker, clock):
    log = hourly(broker, clock, 1, **{"segment.ms": HOUR, "retention.ms": -1})
    broker.maintain(clock.now_ms + HOUR // 2)
    assert segments(log) == [0]

    broker.maintain(clock.now_ms + 2 * HOUR)
    broker.maintain(clock.now_ms + 4 * HOUR)

    assert segments(log) == [0, 10]
    assert log.start_offset == 0


def test_partition_that_is_open_nowhere_is_maintained(broker, clock):
    log = hourly(broker, clock, 4, **{"retention.ms": HOUR})
    log.close()
    broker._logs.clear()

    broker.maintain(clock.now_ms)

    assert broker.log("orders").start_offset == 20


def test_partition_that_is_not_due_is_not_opened(broker, clock):
    broker.create_topic("orders", 50)
    broker.append("orders", b"value", partition=7)
    broker.log("orders", 7).close()
    broker._logs.clear()

    broker.maintain(clock.now_ms)

    assert broker.opened() == {}


def test_deletion_that_was_killed_is_finished(broker, clock):
    log = hourly(broker, clock, 4, **{"retention.ms": -1})
    first = log.path / f"{0:020}.log"
    data = first.read_bytes()
    log.delete_before(10)
    first.write_bytes(data)     # as if it had been killed behind the first sync

    assert maintenance.is_due(log.path, {"retention.ms": "-1"}, clock.now_ms)
    broker.maintain(clock.now_ms)

    assert segments(log) == [10, 20, 30]
    assert not maintenance.is_due(log.path, {"retention.ms": "-1"}, clock.now_ms)


@pytest.mark.parametrize("name", ["groups/billing.2e.tmp", "shares/workers/orders-0.2e.tmp"])
def test_what_was_being_made_in_a_kill_is_swept_and_what_is_being_made_is_not(broker, clock, name):
    broker.group("billing")
    with pylog.ShareConsumer(broker, "orders", group_id="workers"):
        pass
    old, new = broker.path / "processes.1f.tmp", broker.path / name
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (time.time() - 4000,) * 2)

    broker.maintain(clock.now_ms)
    assert not old.exists()
    assert new.exists()

    os.utime(new, (time.time() - 4000,) * 2)
    broker.maintain(clock.now_ms)
    assert not new.exists()


def test_damaged_partition_keeps_nobody_from_the_others(broker, clock):
    hourly(broker, clock, 3, **{"retention.ms": HOUR // 2})
    broker.create_topic("a-first", 1, {"retention.ms": 1})
    broker.append("a-first", b"value", timestamp=1)
    broker.log("a-first").close()
    (broker.path / "a-first-0" / "log.meta").write_bytes(b"damage")

    assert broker.maintain(clock.now_ms) is True

    assert broker.log("orders").start_offset == 20


def test_one_process_at_a_time_works(broker):
    with open(broker.path / "maintenance.lock", "w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)

        assert broker.maintain() is False
    assert broker.maintain() is True


def test_work_passes_on_when_its_holder_is_killed(broker):
    def act():
        descriptor = os.open(broker.path / "maintenance.lock", os.O_RDWR | os.O_CREAT)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        return descriptor

    killed(act)

    assert broker.maintain() is True


def test_who_closes_makes_up_for_rounds_that_nobody_did(log_path):
    def act():
        with Broker(log_path) as broker:
            broker.create_topic("orders", 1, {"retention.ms": 1000})
            broker.append("orders", b"old", timestamp=1)
        return True

    assert in_child(act)
    with Broker(log_path) as broker:
        assert broker.log("orders").start_offset == 1


def test_thread_works_by_itself_and_ends_with_the_broker(log_path, monkeypatch):
    monkeypatch.setattr(maintenance, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(maintenance, "ROUND_SECONDS", 0.02)
    before = set(threading.enumerate())    # another test may have left a broker open
    with Broker(log_path) as broker:
        broker.create_topic("orders", 1, {"retention.ms": 1000})
        log = broker.log("orders")
        log.append(b"old", timestamp=1)
        deadline = time.monotonic() + 10
        while log.start_offset == 0 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert log.start_offset == 1
    assert [one for one in threading.enumerate()
            if one.name == "pylog-maintainer" and one not in before] == []


# ---- configs ------------------------------------------------------------------------------------

def test_altered_configs_reach_logs_that_are_open_elsewhere(broker):
    broker.create_topic("orders", 2)
    logs = [broker.log("orders", n) for n in range(2)]
    for log in logs:
        log.append(b"value")

    def act():
        with Broker(broker.path) as other:
            other.alter_configs("orders", {"segment.bytes": 8192, "max.message.bytes": 5000,
                                           "message.timestamp.type": "LogAppendTime"})
        return True

    assert in_child(act)
    for log in logs:
        log.append(bytes(4000), timestamp=7)
        log.append(bytes(4000), timestamp=7)
        assert len(segments(log)) == 2
        assert log.get(1).timestamp_type == 1
        with pytest.raises(pylog.MessageSizeTooLargeError):
            log.append(bytes(5000))


def test_config_set_back_is_the_default_again(broker):
    broker.create_topic("orders", 1, {"segment.bytes": 8192})
    broker.log("orders")
    broker.alter_configs("orders", {"segment.bytes": None})

    assert broker.log("orders").stats()["options"]["segment_bytes"] == 1 << 30


def test_log_that_slept_through_an_alteration_is_brought_up_to_date_when_opened(broker):
    broker.create_topic("orders", 1)
    broker.append("orders", b"value")
    broker.log("orders").close()
    broker.metadata.alter_configs("orders", {"segment.bytes": 8192})

    assert broker.log("orders").stats()["options"]["segment_bytes"] == 8192


def test_alteration_that_was_killed_is_finished_by_a_round(broker):
    broker.create_topic("orders", 1)
    broker.append("orders", b"value")
    broker.metadata.alter_configs("orders", {"segment.bytes": 8192})

    broker.maintain()

    assert broker.log("orders").stats()["options"]["segment_bytes"] == 8192


def test_compression_is_the_topics(broker, monkeypatch):
    broker.create_topic("orders", 1, {"compression.type": "lz4"})
    log = broker.log("orders")
    log.append_many([bytes(1000)] * 50)
    packed = sum(len(batch) for batch in log.batches(0))
    broker.alter_configs("orders", {"compression.type": None})
    log.append_many([bytes(1000)] * 50)

    assert packed < 5000
    assert sum(len(batch) for batch in log.batches(50)) > 50_000


@pytest.mark.parametrize(("configs", "error"), [
    ({"index.interval.bytes": 100}, pylog.InvalidConfigError),
    ({"segment.byte": 100}, pylog.InvalidConfigError),
    ({"segment.bytes": 100}, pylog.InvalidConfigError),
    ({"cleanup.policy": "compact"}, pylog.NotSupportedError),
    ({"segment.bytes": 8192, "retention.ms": "soon"}, pylog.InvalidConfigError),
])
def test_configs_that_cannot_be_change_nothing(broker, configs, error):
    entry = broker.create_topic("orders")
    log = broker.log("orders")
    before = log.stats()["options"]

    with pytest.raises(error):
        broker.alter_configs("orders", configs)

    assert broker.topics()["orders"] == entry
    assert log.stats()["options"] == before


# ---- what programs that use pylog test with -----------------------------------------------------

def test_drain_gives_all_topics_and_keeps_them(broker):
    broker.append("b", b"2")
    broker.append("a", b"1")

    assert [r.value for r in drain(broker)] == [b"1", b"2"]
    assert [r.value for r in drain(broker, "b")] == [b"2"]


def test_clock_does_not_go_back(clock):
    with pytest.raises(ValueError, match="cannot go back"):
        clock.advance(seconds=-1)


@pytest.mark.slow
def test_idle_broker_wakes_once_a_second(broker):
    broker.create_topic("orders", 20)
    for partition in range(20):
        broker.append("orders", b"value", partition=partition)
    time.sleep(2)

    def spent(_):
        before = time.process_time()
        time.sleep(5)
        return time.process_time() - before

    assert_once_below(0.1, spent)


def test_reader_goes_on_behind_what_retention_took(broker, clock):
    log = hourly(broker, clock, 4, **{"retention.ms": HOUR})
    cursor = log.cursor()
    assert next(cursor).offset == 0
    broker.maintain(clock.now_ms)

    with pytest.raises(pylog.OffsetOutOfRangeError):
        log.get(0)
    assert next(log.read()).offset == 20
