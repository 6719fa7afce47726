"""Writers of an event store that race, against a model and as processes that are killed: versions
without a gap, no update lost, what was acknowledged there once."""

import itertools
import json
import random
import threading
import time
from collections import Counter, defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from parties import Diary, Party, Signal, kill_at_random
from waiting import until

import pylog
from pylog import Broker
from pylog.patterns import ANY, EXISTS, EventStore, NewEvent, index_runs
from pylog.patterns import stream_index as stream_index_module

STREAMS = ("a", "b", "c")


def new(number, event_id=None):
    return NewEvent("counted", {"n": number}, event_id)


# ---- against a model

writers = st.integers(0, 2)
streams = st.sampled_from(STREAMS)
STEPS = st.lists(st.one_of(
    st.tuples(st.just("append"), writers, streams, st.sampled_from([ANY, EXISTS, *range(6)]),
              st.integers(1, 3)),
    st.tuples(st.just("again"), writers, st.integers(0, 40)),
    st.tuples(st.just("look"), writers, streams),
    st.tuples(st.just("foreign"), streams),
    st.tuples(st.just("cut"), st.integers(0, 30)),
    st.tuples(st.just("anew"), writers),
), max_size=40)


class Model:
    """The events that there are, in the order in which they were appended, as (offset, stream,
    version, number); and what each append returned."""

    def __init__(self):
        self.events, self.end, self.start, self.calls = [], 0, 0, []

    def of(self, stream):
        return [(version, number) for offset, name, version, number in self.events
                if name == stream and offset >= self.start]

    def version(self, stream):
        return max((version for version, _ in self.of(stream)), default=0)

    def append(self, stream, expected, numbers):
        """The version that is to be returned; None: it is to be refused."""
        actual = self.version(stream)
        if not (expected is ANY or (actual if expected is EXISTS else expected == actual)):
            return None
        for version, number in enumerate(numbers, actual + 1):
            self.events.append((self.end, stream, version, number))
            self.end += 1
        return actual + len(numbers)


@pytest.mark.slow
@settings(max_examples=60)
@given(STEPS)
def test_stores_are_what_a_model_says(tmp_path_factory, steps):
    model, numbers = Model(), itertools.count()
    with pytest.MonkeyPatch.context() as patch, \
            Broker(tmp_path_factory.mktemp("model") / "data") as broker:
        patch.setattr(index_runs, "RUN", 7)
        patch.setattr(stream_index_module, "RUN", 7)
        stores = [EventStore(broker, "t") for _ in range(3)]
        for kind, *arguments in steps:
            if kind == "append":
                writer, stream, expected, count = arguments
                made = [next(numbers) for _ in range(count)]
                version = model.append(stream, expected, made)
                call = stream, [new(number, f"e{number}") for number in made], expected
                if version is None:
                    with pytest.raises(pylog.WrongExpectedVersionError) as caught:
                        append(stores[writer], *call)
                    assert caught.value.actual == model.version(stream)
                    continue
                found = append(stores[writer], *call)
                assert (found.version, found.offset) == (version, model.end - 1)
                model.calls.append((call, found))
            elif kind == "again" and model.calls:
                writer, which = arguments
                call, found = model.calls[which % len(model.calls)]
                if found.offset - len(call[1]) + 1 >= model.start:
                    assert append(stores[writer], *call) == found
            elif kind == "look":
                writer, stream = arguments
                assert told(stores[writer], stream) == model.of(stream)
                assert stores[writer].version(stream) == model.version(stream)
            elif kind == "foreign":
                broker.append("t", b"{}", arguments[0].encode())
                model.end += 1
            elif kind == "cut":
                model.start = max(model.start, min(arguments[0], model.end))
                broker.log("t").delete_before(model.start)
            elif kind == "anew":
                stores[arguments[0]] = EventStore(broker, "t")
        for store in (*stores, EventStore(broker, "t")):
            assert {name: told(store, name) for name in STREAMS} == {
                name: model.of(name) for name in STREAMS}


def append(store, stream, events, expected):
    return store.append(stream, events, expected_version=expected)


def told(store, stream):
    return [(one.version, one.data["n"]) for one in store.read(stream)]


# ---- threads


def test_threads_of_one_store_lose_no_update(tmp_path):
    with EventStore(tmp_path / "data", "counters") as store:
        def count():
            for _ in range(100):
                add_one(store, "n")

        threads = [threading.Thread(target=count) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert told(store, "n") == [(number, number) for number in range(1, 301)]


def test_appends_to_different_streams_do_not_refuse_each_other(tmp_path):
    with Broker(tmp_path / "data") as broker:
        stores = [EventStore(broker, "orders") for _ in range(3)]

        def write(stream):
            for number in range(200):
                stores[stream].append(f"s-{stream}", new(number), expected_version=number)

        threads = [threading.Thread(target=write, args=[one]) for one in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert stores[0].streams() == {"s-0": 200, "s-1": 200, "s-2": 200}


def test_fsync_store_waits_for_what_is_not_on_disk(tmp_path):
    with Broker(tmp_path / "data", durability="fsync") as broker:
        stores = [EventStore(broker, "counters") for _ in range(3)]
        threads = [threading.Thread(target=lambda store=store: [add_one(store, "n") for _ in
                                                                range(5)]) for store in stores]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert told(stores[0], "n") == [(number, number) for number in range(1, 16)]


# ---- processes


def add_one(store, stream, event_id=None):
    """Reads, modifies, writes; again where somebody was faster. Returns the number."""
    while True:
        number, version = store.fold(stream, 0, lambda _, one: one.data["n"])
        try:
            store.append(stream, new(number + 1, event_id), expected_version=version)
            return number + 1
        except pylog.WrongExpectedVersionError:
            continue


class Play:
    """Processes that race for counters, and write down what was acknowledged."""

    def __init__(self, place):
        self.data, self.acknowledged = place / "data", Diary(place / "acknowledged")
        self.enough = Signal(place / "enough")
        with Broker(self.data) as broker:
            EventStore(broker, "counters", num_partitions=2)

    def write(self, most):
        rng = random.Random(time.monotonic_ns())
        run = time.monotonic_ns()
        with EventStore(self.data, "counters") as store:
            for number in range(most):
                if self.enough.is_given:
                    return
                stream = rng.choice(STREAMS)
                if number % 3:
                    found = add_one_counted(store, stream, f"{run}-{number}")
                else:
                    found = store.append(stream, [part("x"), part("y"), part("z")],
                                         expected_version=ANY).version
                self.acknowledged.write(json.dumps([stream, found, number % 3 > 0]))

    def check(self, kills):
        """Returns how many events there are."""
        acknowledged = Counter(map(tuple, map(json.loads, self.acknowledged.lines())))
        with Broker(self.data) as broker:
            store = EventStore(broker, "counters")
            raw = defaultdict(list)
            for record in broker.read("counters"):
                raw[record.key.decode()].append(int(record.header("stream_version")))
            assert store.streams() == {name: len(raw[name]) for name in raw}
            counted = 0
            for name, versions in raw.items():
                assert versions == list(range(1, len(versions) + 1))
                events = list(store.read(name))
                counts = [one.data["n"] for one in events if one.type == "counted"]
                assert counts == list(range(1, len(counts) + 1)), "an update was lost"
                parts = [one.data for one in events if one.type == "part"]
                assert parts == ["x", "y", "z"] * (len(parts) // 3)
                counted += len(counts)
            is_counted = {(name, one.version) for name in raw for one in store.read(name)
                          if one.type == "counted"}
            assert set(acknowledged.values()) == {1}
            told = {(name, version) for name, version, is_count in acknowledged if is_count}
            assert told <= is_counted
            assert counted - len(told) <= kills
            return sum(map(len, raw.values()))


def part(name):
    return NewEvent("part", name)


def add_one_counted(store, stream, event_id):
    """As `add_one`, among other events; twice, as by one who does not know how the first went.
    Returns the version."""
    while True:
        number, version = store.fold(
            stream, 0, lambda last, one: one.data["n"] if one.type == "counted" else last)
        try:
            first, again = (store.append(stream, new(number + 1, event_id),
                                         expected_version=version) for _ in range(2))
        except pylog.WrongExpectedVersionError:
            continue
        assert first == again
        return first.version


def test_racing_processes_lose_no_update(tmp_path):
    play = Play(tmp_path)
    parties = [Party(play.write, 300) for _ in range(3)]
    for party in parties:
        party.wait()

    assert play.check(kills=0) == 3 * (200 + 3 * 100)


def survive(place, rng, rounds):
    play = Play(place)
    parties = [Party(play.write, 10**9) for _ in range(3)]
    until(lambda: len(play.acknowledged.lines()) > 10)
    kill_at_random(parties, rng, rounds)
    until(lambda: len(play.acknowledged.lines()) > 5 * rounds, 60)    # on a slow machine, longer
    play.enough.give()
    for party in parties:
        party.wait()
    assert play.check(kills=rounds) > 5 * rounds


@pytest.mark.slow
def test_killed_writers_leave_no_gap_and_lose_no_update(tmp_path, rng):
    survive(tmp_path, rng, 20)


@pytest.mark.soak
def test_killed_writers_leave_no_gap_in_hundreds_of_rounds(tmp_path, rng):
    survive(tmp_path, rng, 300)
