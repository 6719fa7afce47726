"""State: the same dict in all processes, changed exactly, whatever happens to its topic."""

import logging
import os
import random
import threading
import time

import pytest
from children import in_child, kill, killed, start
from hypothesis import given, settings
from hypothesis import strategies as st
from waiting import until

import pylog
from pylog import Broker
from pylog.patterns import racing
from pylog.patterns.state import Change, State


def number(entry, record):
    """The last number of each key; None takes it away, what is no number is refused."""
    return None if record.value is None else int(record.value)


def total(entry, record):
    return (entry or 0) + int(record.value)


def set_to(key, value):
    return lambda entries: Change(key, b"%d" % value)


def add_one(entries):
    return Change(b"n", b"%d" % (entries.get(b"n", 0) + 1))


class Clock:
    """Far ahead of the maintainer's, who takes away what is older than a topic keeps it: after a
    second, and in the middle of a test that has stood still for so long."""

    def __init__(self):
        self.now = 4_000_000_000.0

    def __call__(self):
        return self.now


@pytest.fixture
def broker(tmp_path):
    with Broker(tmp_path / "data") as broker:
        yield broker


@pytest.fixture
def numbers(broker):
    return State(broker, "numbers", number)


def test_entries_are_what_the_records_come_to(broker):
    totals = State(broker, "totals", total)

    for value in (b"3", b"4", b"-2"):
        broker.append("totals", value, key=b"a")
    broker.append("totals", b"1", key=b"b")

    assert totals.current() == {b"a": 5, b"b": 1}
    assert len(totals) == 2
    assert State(broker, "totals", total).current() == totals.current()


def test_change_appends_what_was_decided_and_tells_where(broker, numbers):
    assert numbers.change(set_to(b"a", 7)) == 0
    assert numbers.change(lambda entries: Change(b"a", None, [("why", b"gone")])) == 1

    assert numbers.current() == {}
    records = list(broker.read("numbers"))
    assert [(one.key, one.value) for one in records] == [(b"a", b"7"), (b"a", None)]
    assert records[1].headers == (("why", b"gone"),)


def test_nothing_is_appended_where_nothing_was_decided(numbers):
    assert numbers.change(lambda entries: None) is None

    assert numbers.change(add_one) == 0


def test_what_decide_raises_is_raised_and_nothing_is_appended(numbers):
    with pytest.raises(ZeroDivisionError):
        numbers.change(lambda entries: 1 // 0)

    assert numbers.current() == {}
    assert numbers.change(add_one) == 0


def test_entries_cannot_be_changed_behind_the_topics_back(numbers):
    numbers.change(add_one)

    with pytest.raises(TypeError):
        numbers.current()[b"n"] = 5
    with pytest.raises(AttributeError):
        numbers.change(lambda entries: entries.update({b"n": 5}))


def test_who_is_late_decides_again_on_what_there_is_then(broker, numbers):
    seen = []

    def decide(entries):
        seen.append(entries.get(b"n"))
        if len(seen) <= 3:
            broker.append("numbers", b"%d" % (10 * len(seen)), key=b"n")
        return add_one(entries)

    numbers.change(decide)

    assert seen == [None, 10, 20, 30]
    assert numbers.current() == {b"n": 31}


def test_who_is_late_too_often_goes_on_under_a_claim(broker, numbers):
    held = []

    def decide(entries):
        held.append([one.name for one in broker.claims()])
        if len(held) <= 11:
            broker.append("numbers", b"0", key=b"n")
        return add_one(entries)

    numbers.change(decide)

    assert held == [[]] * racing.OPTIMISTIC_TRIES + [["state:numbers"]] * 4
    assert broker.claims() == []
    assert numbers.current() == {b"n": 1}


def test_claim_that_somebody_keeps_keeps_nobody_from_changing(broker, numbers, monkeypatch):
    monkeypatch.setattr(racing, "OPTIMISTIC_TRIES", 1)
    monkeypatch.setattr(racing, "CLAIM_SECONDS", 0.01)
    calls = []

    def decide(entries):
        calls.append(1)
        if len(calls) < 4:
            broker.append("numbers", b"0", key=b"n")
        return add_one(entries)

    with broker.claim("state:numbers"):
        numbers.change(decide)

    assert numbers.current() == {b"n": 1}


def test_record_that_makes_no_sense_is_skipped_counted_and_logged(broker, numbers, caplog):
    numbers.change(set_to(b"a", 1))
    broker.append("numbers", b"many", key=b"a")
    broker.append("numbers", b"2")
    broker.append("numbers", b"3", key=b"b")

    with caplog.at_level(logging.WARNING, "pylog.patterns"):
        assert numbers.current() == {b"a": 1, b"b": 3}

    assert numbers.skipped == 2
    assert "offset 1 is skipped" in caplog.messages[0]
    assert "ValueError" in caplog.messages[0]
    assert "no key" in caplog.messages[1]
    assert numbers.change(add_one) == 4


def test_entries_whose_records_were_deleted_are_gone(broker, numbers):
    late = State(broker, "numbers", number)
    for place in range(10):
        numbers.change(set_to(b"key %d" % (place % 5), place))

    broker.log("numbers").delete_before(7)

    expected = {b"key 2": 7, b"key 3": 8, b"key 4": 9}
    assert numbers.current() == late.current() == expected
    assert State(broker, "numbers", number).current() == expected
    assert numbers.change(set_to(b"more", 1)) == 10


def test_records_that_are_deleted_while_they_are_read_are_not_missed(broker):
    def cut_once(entry, record):
        if record.offset == 0:
            broker.log("numbers").delete_before(59)
        return number(entry, record)

    state = State(broker, "numbers", cut_once)
    for place in range(60):    # two fetches, and more
        broker.append("numbers", b"%50000d" % place, key=b"key %d" % place)

    assert state.current() == {b"key 59": 59}


def test_topic_that_is_deleted_takes_the_entries_along(broker, numbers):
    numbers.change(set_to(b"a", 1))
    with Broker(broker.path) as other:
        other.delete_topic("numbers")

    assert numbers.current() == {}
    assert numbers.change(set_to(b"b", 2)) == 0
    assert numbers.current() == {b"b": 2}
    assert broker.topic("numbers").configs["retention.ms"] == "-1"


def test_no_decision_on_a_topic_is_appended_to_the_next_of_its_name(broker, numbers):
    numbers.change(set_to(b"n", 41))
    calls = []

    def decide(entries):
        calls.append(entries.get(b"n"))
        if len(calls) == 1:    # made anew, and of the same length
            broker.delete_topic("numbers")
            broker.create_topic("numbers", 1)
            broker.append("numbers", b"7", key=b"n")
        return add_one(entries)

    numbers.change(decide)

    assert calls == [41, 7]
    assert numbers.current() == {b"n": 8}


def test_gap_that_a_recovery_left_is_passed_over(tmp_path):
    def act():
        broker = Broker(tmp_path / "data")
        state = State(broker, "numbers", number)
        state.change(set_to(b"a", 1))
        log = broker.log("numbers")
        log.append_many([b"2"], keys=[b"b"])
        log.append_many([b"3"], keys=[b"c"])
        return broker, log

    killed(act)
    folder = tmp_path / "data" / "numbers-0"
    file = folder / "00000000000000000000.log"
    at = file.read_bytes().index(b"3", file.read_bytes().index(b"c"))
    with file.open("r+b") as stream:
        stream.seek(at)
        stream.write(b"4")
    os.remove(folder / "control")

    with Broker(tmp_path / "data") as broker:
        state = State(broker, "numbers", number)
        before = dict(state.current())
        offset = state.change(set_to(b"d", 5))

        assert before == {b"a": 1, b"b": 2}
        assert offset > 1_000_000
        assert state.current() == State(broker, "numbers", number).current() \
            == {**before, b"d": 5}


def test_entries_live_as_long_as_their_ttl_from_their_last_record_on(broker):
    clock = Clock()
    state = State(broker, "numbers", number, ttl=10, clock=clock)
    state.change(set_to(b"a", 1))
    state.change(set_to(b"b", 1))
    clock.now += 6
    state.change(set_to(b"b", 2))
    clock.now += 3.999

    assert state.current() == {b"a": 1, b"b": 2}
    clock.now += 0.001
    assert state.current() == {b"b": 2}
    clock.now += 6
    assert state.current() == {}


def test_entry_that_was_over_is_not_what_the_next_record_is_folded_onto(broker):
    clock = Clock()
    state = State(broker, "totals", total, ttl=10, clock=clock)
    state.change(set_to(b"a", 5))
    clock.now += 10
    state.change(set_to(b"a", 3))

    late = State(broker, "totals", total, ttl=10, clock=clock)

    assert state.current() == late.current() == {b"a": 3}


def test_entries_come_to_their_end_by_their_own_time_whatever_the_order(broker):
    clock = Clock()
    state = State(broker, "numbers", number, ttl=10, clock=clock)
    now = int(clock.now * 1000)
    broker.append("numbers", b"1", key=b"ahead", timestamp=now + 60_000)
    broker.append("numbers", b"2", key=b"behind", timestamp=now - 9_000)
    broker.append("numbers", b"3", key=b"over", timestamp=now - 10_000)

    assert set(state.current()) == {b"ahead", b"behind"}
    clock.now += 1
    assert set(state.current()) == {b"ahead"}


def test_topic_keeps_its_records_at_least_as_long_as_the_ttl(broker):
    State(broker, "made", number, ttl=3600)
    broker.create_topic("short", 1, {"retention.ms": 1000})
    State(broker, "short", number, ttl=3600)
    broker.create_topic("long", 1, {"retention.ms": -1})
    State(broker, "long", number, ttl=3600)
    broker.create_topic("default", 1)
    State(broker, "default", number)

    kept = {name: broker.topic(name).configs["retention.ms"]
            for name in ("made", "short", "long", "default")}
    assert kept == {"made": "3600000", "short": "3600000", "long": "-1", "default": "-1"}


def test_retention_and_ttl_go_together(broker):
    clock = Clock()
    clock.now = time.time()
    state = State(broker, "numbers", number, ttl=60, clock=clock)
    state.change(set_to(b"old", 1))
    broker.log("numbers").roll()
    clock.now += 61
    state.change(set_to(b"new", 2))

    assert broker.maintain(int(clock.now * 1000))

    assert broker.log("numbers").start_offset == 1
    assert state.current() == {b"new": 2}


def test_what_is_appended_and_not_on_disk_yet_is_waited_for(tmp_path):
    with Broker(tmp_path / "data", durability="fsync") as broker:
        state = State(broker, "numbers", number)
        threads = [threading.Thread(target=lambda: [state.change(add_one) for _ in range(5)])
                   for _ in range(3)]
        for thread in threads:
            thread.start()
        other = State(broker, "numbers", number)
        for _ in range(5):
            other.change(add_one)
        for thread in threads:
            thread.join()

        assert state.current() == {b"n": 20}


def test_threads_of_one_state_change_it_exactly(numbers):
    threads = [threading.Thread(target=lambda: [numbers.change(add_one) for _ in range(200)])
               for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert numbers.current() == {b"n": 800}


def test_wait_ends_when_another_process_changes_something(broker, numbers):
    numbers.change(add_one)
    numbers.current()
    assert numbers.wait(0.01) is False

    def act():
        time.sleep(0.05)
        with Broker(broker.path) as other, State(other, "numbers", number) as state:
            state.change(add_one)

    thread = threading.Thread(target=in_child, args=[act])
    thread.start()
    try:
        assert numbers.wait(10) is True
    finally:
        thread.join()
    assert numbers.current() == {b"n": 2}


def test_state_of_a_path_closes_its_broker(tmp_path):
    with State(tmp_path / "data", "numbers", number) as state:
        state.change(add_one)

    with pytest.raises(pylog.ClosedError):
        state.current()
    state.close()
    with State(tmp_path / "data", "numbers", number) as again:
        assert again.current() == {b"n": 1}


def test_state_of_a_broker_leaves_it_open(broker, numbers):
    numbers.close()

    assert broker.closed is False
    assert numbers.change(add_one) == 0


def test_state_in_a_forked_child_says_that_it_must_be_opened_again(numbers):
    numbers.change(add_one)

    found = in_child(lambda: numbers.change(add_one))

    assert isinstance(found, pylog.IllegalStateError)
    assert "fork" in str(found)


def test_topic_with_several_partitions_is_refused(broker):
    broker.create_topic("orders", 3)

    with pytest.raises(pylog.ConfigurationError, match="has 3 partitions"):
        State(broker, "orders", number)


@pytest.mark.parametrize(("options", "error"), [
    ({"ttl": 0}, pylog.ConfigurationError), ({"ttl": -1}, pylog.ConfigurationError),
    ({"ttl": float("nan")}, pylog.ConfigurationError),
    ({"ttl": float("inf")}, pylog.ConfigurationError), ({"ttl": "60"}, TypeError),
    ({"ttl": True}, TypeError), ({"fold": None}, TypeError), ({"fold": "last"}, TypeError),
    ({"topic": "no/name"}, pylog.InvalidTopicError), ({"topic": ""}, pylog.InvalidTopicError),
    ({"broker": 7}, TypeError),
], ids=str)
def test_what_makes_no_state_is_refused(broker, options, error):
    arguments = {"broker": broker, "topic": "numbers", "fold": number, **options}

    with pytest.raises(error):
        State(**arguments)


# ---- against a model -----------------------------------------------------------------------------

KEYS = [b"a", b"b", b"c"]
STEPS = st.lists(st.one_of(
    st.tuples(st.just("set"), st.integers(0, 1), st.sampled_from(KEYS), st.integers(0, 9)),
    st.tuples(st.just("remove"), st.integers(0, 1), st.sampled_from(KEYS)),
    st.tuples(st.just("raw"), st.sampled_from([*KEYS, None]), st.sampled_from([b"5", b"?", None]),
              st.integers(-20_000, 20_000)),
    st.tuples(st.just("pass"), st.integers(1, 9_000)),
    st.tuples(st.just("cut"), st.integers(0, 20)),
    st.tuples(st.just("anew"), st.booleans()),
    st.tuples(st.just("look"), st.integers(0, 1)),
), max_size=25)


class Model:
    """All records that there are, and what they come to, worked out anew each time."""

    def __init__(self, ttl_ms):
        self.records, self.start, self.end, self.ttl_ms = [], 0, 0, ttl_ms

    def append(self, key, value, timestamp):
        self.records.append((self.end, key, value, timestamp))
        self.end += 1

    def entries(self, now_ms):
        found = {}
        for offset, key, value, timestamp in self.records:
            if offset < self.start or key is None or value == b"?":
                continue
            if value is None:
                found.pop(key, None)
            else:
                found[key] = int(value), timestamp
        return {key: value for key, (value, timestamp) in found.items()
                if timestamp + self.ttl_ms > now_ms}


@pytest.mark.slow
@settings(max_examples=40)
@given(STEPS)
def test_two_states_are_what_a_model_says(tmp_path_factory, steps):
    clock, model = Clock(), Model(10_000)
    with Broker(tmp_path_factory.mktemp("model") / "data") as broker:
        states = [State(broker, "t", number, ttl=10, clock=clock) for _ in range(2)]
        for kind, *arguments in steps:
            now = int(clock.now * 1000)
            if kind == "set":
                which, key, value = arguments
                states[which].change(set_to(key, value))
                model.append(key, b"%d" % value, now)
            elif kind == "remove":
                which, key = arguments
                before = model.entries(now)
                done = states[which].change(
                    lambda entries, key=key: Change(key) if key in entries else None)
                assert (done is not None) == (key in before)
                if done is not None:
                    model.append(key, None, now)
            elif kind == "raw":
                key, value, shift = arguments
                broker.append("t", value, key=key, timestamp=now + shift)
                model.append(key, value, now + shift)
            elif kind == "pass":
                clock.now += arguments[0] / 1000
            elif kind == "cut":
                model.start = max(model.start, min(arguments[0], model.end))
                broker.log("t").delete_before(model.start)
            elif kind == "anew":
                if "t" in broker.topics():
                    broker.delete_topic("t")
                if arguments[0]:
                    broker.create_topic("t", 1)
                model = Model(10_000)
            else:
                assert states[arguments[0]].current() == model.entries(now)
        now = int(clock.now * 1000)
        states.append(State(broker, "t", number, ttl=10, clock=clock))
        assert [one.current().copy() for one in states] == [model.entries(now)] * 3


# ---- processes -----------------------------------------------------------------------------------


def count_up(path, times=1 << 30):
    with Broker(path) as broker, State(broker, "numbers", number) as state:
        for _ in range(times):
            state.change(add_one)


def has_counted_to(path, number):
    """In a topic that somebody else makes."""
    if not path.exists():
        return False
    with Broker(path) as broker:
        return "numbers" in broker.topics() and broker.log("numbers").end_offset > number


@pytest.mark.slow
def test_processes_change_it_exactly(tmp_path):
    pids = [start(count_up, tmp_path / "data", 300) for _ in range(4)]
    assert [os.waitpid(pid, 0)[1] for pid in pids] == [0] * 4

    with Broker(tmp_path / "data") as broker:
        assert [int(one.value) for one in broker.read("numbers")] == list(range(1, 1201))


@pytest.mark.slow
def test_20_kills_leave_no_change_half_done_and_none_twice(tmp_path, rng: random.Random):
    path = tmp_path / "data"
    pids = [start(count_up, path) for _ in range(3)]
    try:
        for _ in range(20):
            time.sleep(rng.uniform(0.02, 0.08))
            kill(pids.pop(rng.randrange(3)))
            pids.append(start(count_up, path))
        until(lambda: has_counted_to(path, 100), 60)    # to make a topic may take longer than that
    finally:
        for pid in pids:
            kill(pid)

    with Broker(path) as broker:
        values = [int(one.value) for one in broker.read("numbers")]
        assert len(values) > 100
        assert values == list(range(1, len(values) + 1))
        assert State(broker, "numbers", number).current() == {b"n": len(values)}


class Held:
    """A log that others delete from and append to, behind the first look at its start."""

    def __init__(self, log, act):
        self._log, self._act = log, act

    def __getattr__(self, name):
        found = getattr(self._log, name)
        if name == "start_offset" and self._act is not None:
            act, self._act = self._act, None
            act()
        return found


def test_nobody_decides_on_what_was_deleted_before_others_decided(broker):
    def total(entry, record):
        return (entry or 0) + int(record.value)

    def deposit(entries):
        return Change(b"alice", b"100") if not entries else None

    with State(broker, "accounts", total) as state, State(broker, "accounts", total) as other:
        state.change(deposit)
        assert state.current() == {b"alice": 100}

        def delete_and_deposit():
            broker.log("accounts").delete_before(1)
            assert other.change(deposit) == 1

        state._log = Held(state._log, delete_and_deposit)
        assert state.change(lambda entries: Change(b"alice", b"-150")
                            if entries[b"alice"] >= 150 else None) is None
        assert state.current() == other.current() == {b"alice": 100}
