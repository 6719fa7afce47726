"""What is derived of an event store's events: folds and their snapshots, data of older versions,
the index that is kept; and who subscribes to them."""

import asyncio
import json
import shutil
import threading
from collections import defaultdict
from dataclasses import dataclass

import pytest
from faults import reboot_image, snapshot
from waiting import until

import pylog
from pylog import Broker
from pylog.patterns import (
    ANY,
    NO_STREAM,
    AsyncBus,
    EventStore,
    Folded,
    NewEvent,
    event,
    index_runs,
)
from pylog.patterns import stream_index as stream_index_module


@event("order.placed", version=3)
@dataclass
class OrderPlaced:
    total: int
    currency: str


@dataclass
class Total:
    cents: int = 0


def new(number, **more):
    return NewEvent("counted", {"n": number}, **more)


def add(total, one):
    return total + one.data["n"]


def add_cents(total, one):
    return Total(total.cents + one.data["n"])


def numbers(store, count, stream="o-1"):
    """Appends that many events, with the numbers from 1 on."""
    for number in range(1, count + 1):
        store.append(stream, new(number), expected_version=ANY)


@pytest.fixture
def broker(tmp_path):
    with Broker(tmp_path / "data") as broker:
        yield broker


@pytest.fixture
def store(broker):
    return EventStore(broker, "orders")


# ---- snapshots


def counting(calls):
    def apply(total, one):
        calls.append(one.version)
        return add(total, one)
    return apply


def test_fold_with_snapshots_begins_at_the_latest(broker, store):
    numbers(store, 5)
    calls = []
    apply = counting(calls)

    assert store.fold("o-1", 0, apply, snapshot_every=3) == Folded(15, 5)
    assert EventStore(broker, "orders").fold("o-1", 0, apply, snapshot_every=3) == Folded(15, 5)
    numbers(store, 2)
    assert store.fold("o-1", 0, apply, snapshot_every=3) == Folded(18, 7)
    assert calls == [1, 2, 3, 4, 5, 6, 7]
    assert [one.header("stream_version") for one in broker.read("orders.snapshots")] == [b"5"]


def test_fold_without_snapshots_takes_none_and_uses_none(broker, store):
    numbers(store, 5)
    store.fold("o-1", 0, add)
    assert "orders.snapshots" not in broker.topics()
    broker_calls = []

    store.fold("o-1", 0, add, snapshot_every=1)
    assert store.fold("o-1", 0, counting(broker_calls)) == Folded(15, 5)
    assert broker_calls == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("change", [{"fold_version": 2}, {"fold_name": "other"}], ids=str)
def test_changed_code_gets_no_old_state(store, change):
    numbers(store, 3)
    store.fold("o-1", 0, add, snapshot_every=1)
    calls = []

    store.fold("o-1", 0, counting(calls), snapshot_every=1, **change)
    assert calls == [1, 2, 3]


def test_state_of_a_type_is_kept_by_it(store):
    numbers(store, 3)

    for _ in range(2):
        assert store.fold("o-1", Total, add_cents, snapshot_every=2, state=Total) == (Total(6), 3)


@pytest.mark.parametrize(("initial", "apply"), [
    (Total(), add_cents), ((), lambda state, one: (*state, 1)),
    ({}, lambda state, one: {**state, one.version: 1}), (0, lambda state, one: object())],
    ids=["dataclass", "tuple", "int keys", "object"])
def test_state_that_would_be_read_as_another_is_refused(broker, store, initial, apply):
    numbers(store, 2)

    with pytest.raises(pylog.SerializationError):
        store.fold("o-1", initial, apply, snapshot_every=1, fold_name="f")
    assert list(broker.read("orders.snapshots")) == []


@pytest.mark.parametrize(("options", "error"), [
    ({"apply": lambda total, one: total}, pylog.ConfigurationError),
    ({"snapshot_every": -1}, pylog.ConfigurationError),
    ({"snapshot_every": "1"}, pylog.ConfigurationError),
    ({"fold_version": 0}, pylog.ConfigurationError), ({"fold_version": "2"}, TypeError),
    ({"state": "xml"}, pylog.ConfigurationError), ({"stream": ""}, pylog.ConfigurationError),
    ({"stream": 7}, TypeError)], ids=lambda value: str(value)[:30])
def test_what_makes_no_fold_is_refused(store, options, error):
    terms = {"stream": "o-1", "initial": 0, "apply": add, "snapshot_every": 1, **options}

    with pytest.raises(error):
        store.fold(**terms)


@pytest.mark.parametrize("ruin", [
    lambda broker: broker.delete_topic("orders.snapshots"),
    lambda broker: broker.log("orders.snapshots").delete_before(1),
    lambda broker: broker.append("orders.snapshots", b"{", b"o-1", [
        ("stream_version", b"9"), ("ce_id", b"?"), ("fold", b"add/1")]),
    lambda broker: broker.append("orders.snapshots", b"?", b"o-1", [
        ("stream_version", b"3"), ("ce_id", b"?"), ("fold", b"add/1")]),
    lambda broker: broker.append("orders.snapshots", b"7", b"o-1", [("fold", b"add/1")]),
], ids=["deleted", "cut", "damaged", "of another event", "of none"])
def test_snapshots_may_be_lost_or_damaged(broker, store, ruin):
    terms = {"apply": add, "initial": 0, "snapshot_every": 1, "fold_name": "add"}
    numbers(store, 3)
    store.fold("o-1", **terms)
    ruin(broker)

    assert store.fold("o-1", **terms) == EventStore(broker, "orders").fold("o-1", **terms) == (6, 3)


def test_snapshot_of_a_store_that_was_made_anew_is_not_used(broker, store):
    numbers(store, 3)
    store.fold("o-1", 0, add, snapshot_every=1)
    broker.delete_topic("orders")
    store = EventStore(broker, "orders")
    store.append("o-1", [new(10), new(20), new(30)], expected_version=NO_STREAM)

    assert store.fold("o-1", 0, add, snapshot_every=1) == (60, 3)


def test_fold_over_deleted_events_is_refused(broker, store):
    numbers(store, 3)
    broker.log("orders").delete_before(2)

    with pytest.raises(pylog.RecordNotFoundError, match="events 1 to 2 of 'o-1' were deleted"):
        store.fold("o-1", 0, add)


# ---- upcasting


def test_upcasts_lead_from_any_version_to_the_latest(broker):
    old = EventStore(broker, "orders")
    old.append("o-1", NewEvent("order.placed", {"euros": 2}), expected_version=NO_STREAM)
    broker.append("orders", b'{"total":300}', b"o-1", [
        ("ce_type", b"order.placed"), ("stream_version", b"2"), ("event_version", b"2")])
    store = EventStore(broker, "orders", events=[OrderPlaced])
    store.upcast("order.placed", 1)(lambda data: {"total": 100 * data["euros"]})
    store.upcast("order.placed", 2)(lambda data: {**data, "currency": "EUR"})
    store.append("o-1", [OrderPlaced(400, "USD"), NewEvent("order.placed", {
        "total": 500, "currency": "CHF"})], expected_version=2)

    assert [one.data for one in store.read("o-1")] == [
        OrderPlaced(200, "EUR"), OrderPlaced(300, "EUR"), OrderPlaced(400, "USD"),
        OrderPlaced(500, "CHF")]
    assert [one.header("event_version") for one in store.read("o-1")] == [None, b"2", b"3", b"3"]
    assert [one.data["total"] for one in old.read("o-1", after=1)] == [300, 400, 500]


def test_type_without_a_class_is_written_as_what_its_upcasts_lead_to(store):
    store.append("o-1", new(1), expected_version=NO_STREAM)
    store.upcast("counted", 1)(lambda data: {"n": str(data["n"])})
    store.append("o-1", NewEvent("counted", {"n": "2"}), expected_version=1)

    assert [one.data for one in store.read("o-1")] == [{"n": "1"}, {"n": "2"}]


def test_upcast_that_fails_says_so_of_its_event(store):
    numbers(store, 1)
    store.upcast("counted", 1)(lambda data: data["m"])

    [one] = store.read("o-1")
    with pytest.raises(pylog.DeserializationError, match="cannot be upcast from version 1: 'm'"):
        _ = one.data


@pytest.mark.parametrize(("kind", "version", "error"), [
    ("order.placed", 3, pylog.ConfigurationError), ("order.placed", 4, pylog.ConfigurationError),
    ("order.placed", 0, pylog.ConfigurationError), ("order.placed", "1", TypeError),
    ("order.*", 1, pylog.ConfigurationError), (7, 1, TypeError)])
def test_upcast_that_leads_nowhere_is_refused(broker, kind, version, error):
    store = EventStore(broker, "orders", events=[OrderPlaced])

    with pytest.raises(error):
        store.upcast(kind, version)


# ---- the index that is kept


@pytest.fixture
def short_runs(monkeypatch):
    for module in (index_runs, stream_index_module):
        monkeypatch.setattr(module, "RUN", 10)


def filled(broker, name="orders"):
    """A store with three full runs and two events more, which another has opened and so noted the
    runs; all streams, as they are to be found."""
    store = EventStore(broker, name)
    for number in range(32):
        store.append(f"o-{number % 5}", new(number), expected_version=number // 5)
    EventStore(broker, name)
    return store, {name: told(store, name) for name in store.streams()}


def told(store, stream):
    return [(one.version, one.data["n"]) for one in store.read(stream)]


def test_store_is_opened_by_the_runs_that_were_noted(broker, short_runs, monkeypatch):
    store, expected = filled(broker)
    assert [one.key for one in broker.read("orders.index")] == [b"0:0", b"0:10", b"0:20"]
    assert json.loads(next(broker.read("orders.index", start=1)).value)["o-4"] == [2, 4, 9]
    looked_at = []
    take = stream_index_module.StreamIndex._take
    monkeypatch.setattr(stream_index_module.StreamIndex, "_take",
                        lambda self, record: (looked_at.append(record.offset), take(self, record)))

    store = EventStore(broker, "orders")

    assert {name: told(store, name) for name in store.streams()} == expected
    assert looked_at == [30, 31]
    store.append("o-1", new(99), expected_version=7)
    assert told(store, "o-1")[-1] == (8, 99)


def change_run(broker, change):
    """Notes the run of the offsets from 10 on again, changed."""
    record = next(broker.read("orders.index", start=1))
    run = json.loads(record.value)
    broker.append("orders.index", change(run), record.key, record.headers)


@pytest.mark.parametrize("change", [
    lambda run: b"", lambda run: b"{", lambda run: b"[]", lambda run: b"{}",
    lambda run: json.dumps({**run, "o-1": [2]}).encode(),
    lambda run: json.dumps({**run, "o-1": [2, "1", 6]}).encode(),
    lambda run: json.dumps({**run, "o-1": [2, True, 6]}).encode(),
    lambda run: json.dumps({**run, "o-1": [2, 1, -6]}).encode(),
    lambda run: json.dumps({**run, "o-1": [2, 1, 10**30]}).encode(),
    lambda run: json.dumps({**run, "o-1": [2, 6, 1]}).encode(),
    lambda run: json.dumps({**run, "o-1": [2, 1, 1]}).encode(),
    lambda run: json.dumps({**run, "o-1": [2, 1, 10]}).encode(),
    lambda run: json.dumps({**run, "o-1": [1, 1, 6]}).encode(),
    lambda run: json.dumps({**run, "o-1": 7}).encode(),
    lambda run: json.dumps({**run, "": [0, 1]}).encode(),
    lambda run: json.dumps({**run, "o-9": [3, 1]}).encode(),
    lambda run: json.dumps({**{name: run[name] for name in run if name != "o-4"},
                            "new": [0, 9]}).encode(),
], ids=range(17))
def test_run_that_does_not_fit_is_read_from_the_events(broker, short_runs, caplog, change):
    _, expected = filled(broker)
    change_run(broker, change)

    store = EventStore(broker, "orders")

    assert {name: told(store, name) for name in store.streams()} == expected
    assert "does not fit" in caplog.text


def test_runs_that_are_missing_are_noted_by_who_opens_the_store(broker, short_runs):
    _, expected = filled(broker)
    before = [one.value for one in broker.read("orders.index")]
    broker.delete_topic("orders.index")

    store = EventStore(broker, "orders")

    assert {name: told(store, name) for name in store.streams()} == expected
    assert [json.loads(one.value) for one in broker.read("orders.index")] == [
        json.loads(one) for one in before]


def test_runs_of_a_topic_that_was_deleted_count_for_nothing(broker, short_runs):
    filled(broker)
    broker.delete_topic("orders")
    store = EventStore(broker, "orders")
    store.append("new", [new(number) for number in range(8)], expected_version=NO_STREAM)
    store.append("o-4", [new(8), new(9)], expected_version=NO_STREAM)    # as it ended before

    assert EventStore(broker, "orders").streams() == {"new": 8, "o-4": 2}


@pytest.mark.slow
def test_power_cut_takes_events_and_what_was_kept_of_them(tmp_path, short_runs, rng):
    with Broker(tmp_path / "life") as broker:
        store, log = EventStore(broker, "orders"), broker.log("orders")
        log.flush()
        lives = [snapshot(log)]
        for number in range(64):
            store.append(f"o-{number % 5}", new(number), expected_version=number // 5)
            lives += [snapshot(log)] if number % 8 == 7 else []
        EventStore(broker, "orders")    # notes the runs
        for stream in store.streams():
            store.fold(stream, 0, add, snapshot_every=1)

    lost = 0
    for image in range(8):
        path = tmp_path / f"image{image}"
        shutil.copytree(tmp_path / "life", path, ignore=shutil.ignore_patterns("orders-0"))
        reboot_image(rng, path / "orders-0", lives)
        with Broker(path) as broker:
            store = EventStore(broker, "orders")
            for _ in range(2):
                raw = defaultdict(list)
                for one in broker.read("orders"):
                    raw[one.key.decode()].append(json.loads(one.value)["n"])
                assert store.streams() == {name: len(raw[name]) for name in raw}
                for name, numbers in raw.items():
                    assert store.fold(name, 0, add, snapshot_every=1).state == sum(numbers)
                lost += 64 - sum(map(len, raw.values()))
                store.append("o-1", [new(1000), new(2000)], expected_version=ANY)
    assert lost > 0


@pytest.mark.parametrize("start", [5, 10, 15, 25, 31, 32])
def test_runs_and_deleted_events_go_together(broker, short_runs, start):
    store, expected = filled(broker)
    broker.log("orders").delete_before(start)

    again = EventStore(broker, "orders")

    left = {name: [one for one in events if one[1] >= start] for name, events in expected.items()}
    for one in (store, again):
        assert {name: told(one, name) for name in expected} == left


def test_runs_that_cannot_be_noted_keep_nobody_out(broker, short_runs, monkeypatch, caplog):
    def full(*arguments, **keywords):
        raise pylog.DiskFullError("the disk is full")
    monkeypatch.setattr(broker, "append", full)

    store, _ = filled(broker)

    assert "was not noted" in caplog.text
    assert EventStore(broker, "orders").streams() == store.streams()


def test_runs_are_noted_once(broker, short_runs):
    filled(broker)
    store = EventStore(broker, "orders")
    for number in range(8):
        store.append("o-9", new(number), expected_version=number)
    EventStore(broker, "orders")

    assert [one.key for one in broker.read("orders.index")] == [
        b"0:0", b"0:10", b"0:20", b"0:30"]


# ---- subscribing


def test_subscription_has_all_events_behind_a_position(broker, store):
    first = store.append("o-1", new(1), expected_version=NO_STREAM)
    store.append("o-2", [new(2), NewEvent("other.kind", {"n": 3})], expected_version=NO_STREAM)
    broker.append("orders", b"of somebody else")
    [*_, last] = store.read("o-2", limit=1)

    def found(**terms):
        return [one.data["n"] for one in store.subscribe(follow=False, **terms)]

    assert found() == [1, 2, 3]
    assert found(after=first) == found(after=0) == found(after={0: 0}) == [2, 3]
    assert found(after=last) == [3]
    assert found(after="latest") == found(after=3) == []
    assert found(types="other.*") == [3]
    assert found(types=["counted", "other.kind"]) == [1, 2, 3]
    assert found(types="none") == found(types=[]) == []


def test_subscription_follows_in_all_partitions(broker):
    store = EventStore(broker, "orders", num_partitions=3)
    numbers(store, 3, "o-1")
    numbers(store, 2, "o-2")
    place = next(store.read("o-1")).record.partition
    seen = []

    def follow():
        for one in store.subscribe(after={place: 0}):
            seen.append((one.stream, one.version))
            if len(seen) == 5:
                return

    thread = threading.Thread(target=follow)
    thread.start()
    until(lambda: len(seen) == 4)
    store.append("o-3", new(1), expected_version=NO_STREAM)
    thread.join(20)

    assert sorted(seen) == [("o-1", 2), ("o-1", 3), ("o-2", 1), ("o-2", 2), ("o-3", 1)]


def test_subscription_ends_when_the_broker_is_closed(broker, store):
    numbers(store, 1)
    seen, ended = [], []

    def follow():
        try:
            seen.extend(store.subscribe())    # one by one
        except pylog.ClosedError as error:
            ended.append(error)

    thread = threading.Thread(target=follow)
    thread.start()
    until(lambda: seen)
    broker.close()
    thread.join(20)

    assert [one.version for one in seen] == [1]
    assert ended


def test_async_bus_handles_the_events_of_a_store(broker, store):
    numbers(store, 3)

    async def main():
        async with AsyncBus(broker, "orders") as bus:
            seen = asyncio.Queue()
            bus.on("counted", seen.put, group="g")
            bus.start()
            return [(await seen.get()).data["n"] for _ in range(3)]

    assert asyncio.run(main()) == [1, 2, 3]


@pytest.mark.parametrize(("after", "partitions", "error"), [
    (-2, 1, pylog.ConfigurationError), ("now", 1, TypeError), (0.5, 1, TypeError),
    (True, 1, TypeError), ({1: 0}, 1, pylog.ConfigurationError),
    ({0: "x"}, 1, pylog.ConfigurationError), (5, 3, pylog.ConfigurationError),
    ({3: 0}, 3, pylog.ConfigurationError), ([0], 1, TypeError),
], ids=str)
def test_position_that_is_none_is_refused(broker, after, partitions, error):
    store = EventStore(broker, "orders", num_partitions=partitions)

    with pytest.raises(error):
        store.subscribe(after=after)


def test_result_of_an_append_is_no_position_of_several_partitions(broker):
    store = EventStore(broker, "orders", num_partitions=2)
    place = store.append("o-1", new(1), expected_version=NO_STREAM)

    with pytest.raises(pylog.ConfigurationError, match="say where each begins"):
        store.subscribe(after=place)
    with pytest.raises(pylog.ConfigurationError):
        store.subscribe(types="a.b*")
