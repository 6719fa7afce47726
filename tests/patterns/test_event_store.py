"""EventStore: streams of events, appended on condition, read, folded and subscribed to."""

from dataclasses import dataclass

import pytest
from children import in_child
from waiting import until

import pylog
from pylog import Broker
from pylog.patterns import (
    ANY,
    EXISTS,
    NO_STREAM,
    AppendResult,
    Bus,
    EventStore,
    NewEvent,
    Topic,
    event,
)


@event("order.placed")
@dataclass
class OrderPlaced:
    total: int
    currency: str = "EUR"


@event("order.paid")
@dataclass
class OrderPaid:
    amount: int


PLACED = NewEvent("order.placed", {"total": 20})


def new(number, **more):
    return NewEvent("counted", {"n": number}, **more)


def told(events):
    return [(one.version, one.data["n"]) for one in events]


@pytest.fixture
def broker(tmp_path):
    with Broker(tmp_path / "data") as broker:
        yield broker


@pytest.fixture
def store(broker):
    return EventStore(broker, "orders")


# ---- appending


def test_append_tells_version_and_place(store):
    assert store.append("o-1", PLACED, expected_version=NO_STREAM) == AppendResult("o-1", 1, 0, 0)
    assert store.append("o-2", [PLACED, PLACED], expected_version=0) == AppendResult("o-2", 2, 0, 2)
    assert store.append("o-1", [PLACED], expected_version=1) == AppendResult("o-1", 2, 0, 3)

    assert store.streams() == {"o-1": 2, "o-2": 2}
    assert store.streams("o-2") == {"o-2": 2}
    assert (store.version("o-1"), store.version("o-3")) == (2, 0)


class Seen(int):
    """A number all the same, as a member of an IntEnum is."""


@pytest.mark.parametrize(("expected", "actual", "is_right"), [
    (NO_STREAM, 0, True), (NO_STREAM, 1, False), (1, 0, False), (1, 1, True), (1, 2, False),
    (2, 1, False), (3, 2, False), (Seen(1), 1, True), (Seen(2), 1, False), (ANY, 0, True),
    (ANY, 2, True), (EXISTS, 0, False), (EXISTS, 1, True)], ids=str)
def test_append_goes_by_the_version_that_is_expected(store, expected, actual, is_right):
    for version in range(actual):
        store.append("o-1", new(version), expected_version=version)

    if is_right:
        assert store.append("o-1", new(9), expected_version=expected).version == actual + 1
        return
    with pytest.raises(pylog.WrongExpectedVersionError) as caught:
        store.append("o-1", new(9), expected_version=expected)

    error = caught.value
    assert (error.stream, error.expected, error.actual) == ("o-1", expected, actual)
    assert store.version("o-1") == actual


def test_another_store_sees_what_was_appended_and_is_seen(broker, store):
    other = EventStore(broker, "orders")
    store.append("o-1", new(1), expected_version=NO_STREAM)
    other.append("o-1", [new(2), new(3)], expected_version=1)

    with pytest.raises(pylog.WrongExpectedVersionError, match="at version 3"):
        store.append("o-1", new(4), expected_version=1)
    assert told(store.read("o-1")) == told(other.read("o-1")) == [(1, 1), (2, 2), (3, 3)]


def test_several_partitions_keep_each_stream_in_one(broker):
    store = EventStore(broker, "orders", num_partitions=3)
    places = {store.append(f"o-{number % 20}", new(number), expected_version=number // 20)[::2]
              for number in range(60)}

    assert len(places) == 20
    assert {partition for _, partition in places} == {0, 1, 2}
    assert EventStore(broker, "orders").streams() == {f"o-{number}": 3 for number in range(20)}


@pytest.mark.parametrize("expected", [NO_STREAM, 1, ANY, EXISTS], ids=str)
def test_events_with_ids_are_appended_once(store, expected):
    if expected != NO_STREAM:
        store.append("o-1", new(0), expected_version=NO_STREAM)
    events = [new(1, id="a"), new(2, id="b")]
    first = store.append("o-1", events, expected_version=expected)
    store.append("o-1", new(3), expected_version=EXISTS)

    assert store.append("o-1", events, expected_version=expected) == first
    assert store.append("o-1", events, expected_version=ANY) == first
    assert store.version("o-1") == first.version + 1


@pytest.mark.parametrize("events", [
    [new(1, id="a"), new(2, id="c")], [new(1, id="x"), new(2, id="b")],
    [new(1, id="a"), new(2, id="b"), new(3, id="c")]])
def test_events_that_are_there_in_part_are_refused(store, events):
    store.append("o-1", [new(1, id="a"), new(2, id="b")], expected_version=NO_STREAM)

    with pytest.raises(pylog.WrongExpectedVersionError, match="are there already, from version 1"):
        store.append("o-1", events, expected_version=NO_STREAM)
    assert store.version("o-1") == 2


def test_ids_of_another_place_or_stream_or_of_some_only_make_nothing_idempotent(store):
    store.append("o-1", [new(1, id="a"), new(2, id="b")], expected_version=NO_STREAM)

    assert store.append("o-2", new(1, id="a"), expected_version=ANY).version == 1
    assert store.append("o-1", new(1, id="a"), expected_version=2).version == 3
    assert store.append("o-1", [new(1, id="a"), new(2)], expected_version=ANY).version == 5
    with pytest.raises(pylog.WrongExpectedVersionError):
        store.append("o-1", [new(1, id="a"), new(2)], expected_version=NO_STREAM)


@pytest.mark.parametrize(("stream", "events", "expected", "error"), [
    ("o-1", [], ANY, pylog.ConfigurationError), ("o-1", "order.placed", ANY, TypeError),
    ("o-1", {"total": 1}, ANY, TypeError), ("o-1", 7, ANY, TypeError),
    ("o-1", None, ANY, TypeError), ("o-1", ["order.placed"], ANY, TypeError),
    ("o-1", [PLACED, 7], ANY, TypeError), ("o-1", NewEvent(""), ANY, pylog.ConfigurationError),
    ("o-1", NewEvent("order.*"), ANY, pylog.ConfigurationError), ("o-1", NewEvent(7), ANY,
                                                                  TypeError),
    ("o-1", NewEvent(OrderPaid(1), {}), ANY, TypeError),
    ("o-1", new(1, id=""), ANY, pylog.ConfigurationError), ("o-1", new(1, id=7), ANY, TypeError),
    ("o-1", new(1, headers={"a": 1}), ANY, TypeError),
    ("o-1", NewEvent("a", object()), ANY, pylog.SerializationError),
    ("", PLACED, ANY, pylog.ConfigurationError), (None, PLACED, ANY, TypeError),
    (b"o-1", PLACED, ANY, TypeError), ("o" * 256, PLACED, ANY, pylog.ConfigurationError),
    ("\ud800", PLACED, ANY, pylog.ConfigurationError),
    ("o-1", PLACED, None, TypeError), ("o-1", PLACED, "any", TypeError),
    ("o-1", PLACED, 0.5, TypeError), ("o-1", PLACED, 0.0, TypeError),
    ("o-1", PLACED, False, TypeError), ("o-1", PLACED, -1, pylog.ConfigurationError),
    ("o-1", [new(1, id="a"), new(2, id="a")], ANY, pylog.ConfigurationError),
    ("o-1", NewEvent("a", "x" * (2 << 20)), ANY, pylog.MessageSizeTooLargeError),
    ("o-1", [NewEvent("a", "x" * (1 << 20))] * 2, ANY, pylog.MessageSizeTooLargeError),
], ids=lambda value: repr(value)[:30])
def test_what_cannot_be_appended_is_refused_whole(broker, store, stream, events, expected, error):
    with pytest.raises(error):
        store.append(stream, events, expected_version=expected)

    assert list(broker.read("orders")) == []
    assert store.streams() == {}
    assert store.append("o-1", PLACED, expected_version=NO_STREAM).version == 1


# ---- reading


def test_read_from_to_and_backwards(store):
    store.append("o-1", [new(number) for number in range(1, 6)], expected_version=NO_STREAM)
    store.append("o-2", new(9), expected_version=NO_STREAM)

    def versions(**terms):
        return [one.version for one in store.read("o-1", **terms)]

    assert versions() == [1, 2, 3, 4, 5]
    assert versions(after=3) == [4, 5]
    assert versions(after=3, limit=1) == [4]
    assert versions(limit=0) == versions(after=5) == versions(after=9) == []
    assert versions(backwards=True) == [5, 4, 3, 2, 1]
    assert versions(backwards=True, after=3) == [2, 1]
    assert versions(backwards=True, after=9, limit=2) == [5, 4]
    assert versions(backwards=True, after=1) == []
    assert list(store.read("nobody")) == []


@pytest.mark.parametrize(("terms", "error", "words"), [
    ({"limit": -1}, pylog.ConfigurationError, "limit=-1"), ({"limit": "x"}, TypeError, "limit"),
    ({"limit": True}, TypeError, "limit"), ({"after": "x"}, TypeError, "after"),
    ({"after": 1.0}, TypeError, "after"), ({"after": -5}, pylog.ConfigurationError, "after=-5"),
    ({"stream": "\ud800"}, pylog.ConfigurationError, "cannot be '\\\\ud800'"),
    ({"stream": 7}, TypeError, "must be a str")], ids=str)
def test_what_cannot_be_read_is_refused(store, terms, error, words):
    with pytest.raises(error, match=words):
        store.read(**{"stream": "o-1", **terms})


def test_read_is_the_same_however_the_events_were_appended(store, rng):
    lengths = dict.fromkeys("ab", 0)
    for size in (1, 1, 2, 700, 1, 3, 1, 1, 501, 500, 1):
        for name in rng.choice(("a", "ab", "aba", "b")):
            store.append(name, [new(lengths[name] + number) for number in range(size)],
                         expected_version=lengths[name])
            lengths[name] += size
    for name, length in lengths.items():
        numbers = [*range(length)]
        assert [one.data["n"] for one in store.read(name)] == numbers
        assert [one.data["n"] for one in store.read(name, backwards=True)] == numbers[::-1]
        for _ in range(20):
            after, limit = rng.randrange(length + 2), rng.randrange(length + 2)
            assert [one.data["n"] for one in store.read(name, after=after, limit=limit)] \
                == numbers[after:][:limit]
        for version in rng.choices(range(1, length + 1), k=20) if length else ():
            event = next(store.read(name, after=version - 1, limit=1))
            assert (event.version, event.data["n"]) == (version, version - 1)
            again = store.append(name, new(0, id=event.id), expected_version=ANY)
            assert again.version == version    # its id is found


def test_read_has_what_was_there_at_the_call(store):
    store.append("o-1", new(1), expected_version=NO_STREAM)
    reading = store.read("o-1")
    store.append("o-1", new(2), expected_version=1)

    assert told(reading) == [(1, 1)]


def test_declared_events_are_read_as_instances(broker):
    store = EventStore(broker, "orders", events=[OrderPlaced])
    store.append("o-1", [OrderPlaced(20), OrderPaid(20), NewEvent("order.placed", {"total": 1,
                 "from": "later"})], expected_version=NO_STREAM)

    assert [one.data for one in store.read("o-1")] == [
        OrderPlaced(20), {"amount": 20}, OrderPlaced(1)]
    assert [one.type for one in store.read("o-1")] == ["order.placed", "order.paid",
                                                       "order.placed"]


def test_fold_gives_the_state_and_the_version_to_be_expected(store):
    store.append("o-1", [new(3), new(4)], expected_version=NO_STREAM)

    state, version = store.fold("o-1", 0, lambda total, one: total + one.data["n"])
    assert (state, version) == (7, 2)
    assert store.fold("o-2", list, lambda state, one: state) == ([], 0)


def test_bus_and_topic_of_the_name_read_the_same_events(broker, store):
    store.append("o-1", [PLACED, new(1)], expected_version=NO_STREAM)

    with Bus(broker, "orders") as bus:
        seen = []
        bus.on("order.*", lambda one: seen.append((one.type, one.data, one.key)), group="g")
        bus.start()
        until(lambda: seen)
    assert seen == [("order.placed", {"total": 20}, b"o-1")]
    with Topic(broker, "orders", value="json") as topic:
        assert [one.value for one in topic.read()] == [{"total": 20}, {"n": 1}]


def test_records_of_others_in_the_topic_are_no_events_of_a_stream(broker, store):
    store.append("o-1", PLACED, expected_version=NO_STREAM)
    with Bus(broker, "orders") as bus:
        bus.emit("order.paid", {}, key="o-1")
    broker.append("orders", b"?")
    store.append("o-1", new(1), expected_version=1)

    assert [one.type for one in store.read("o-1")] == ["order.placed", "counted"]
    assert EventStore(broker, "orders").streams() == {"o-1": 2}


@pytest.mark.parametrize("version", [b"1", b"3", b"0", b"-1", b"x", b"", b"9" * 30])
def test_a_record_that_says_another_version_than_the_next_is_skipped(broker, store, caplog,
                                                                     version):
    store.append("o-1", new(1), expected_version=NO_STREAM)
    for key in (b"o-1", b"", b"\xff", None):
        broker.append("orders", b"?", key=key, headers=[("stream_version", version)])
    store.append("o-1", new(2), expected_version=1)

    assert told(store.read("o-1")) == [(1, 1), (2, 2)]
    assert EventStore(broker, "orders").streams() == {"o-1": 2}
    assert "is no event of a stream" in caplog.text


# ---- deleted events, topics, processes


def test_deleted_events_are_deleted_for_all_and_versions_go_on(broker, store):
    for number in range(4):
        store.append("o-1", new(number), expected_version=number)
    store.append("o-2", new(9), expected_version=NO_STREAM)
    broker.log("orders").delete_before(2)

    for one in (store, EventStore(broker, "orders")):
        assert told(one.read("o-1")) == [(3, 2), (4, 3)]
        assert told(one.read("o-1", after=1)) == [(3, 2), (4, 3)]
        assert told(one.read("o-1", backwards=True, after=4)) == [(3, 2)]
    assert store.append("o-1", new(4), expected_version=4).version == 5
    broker.log("orders").delete_before(broker.log("orders").end_offset)
    assert store.streams() == EventStore(broker, "orders").streams() == {}
    assert store.append("o-1", new(1), expected_version=NO_STREAM).version == 1
    assert EventStore(broker, "orders").streams() == store.streams()


def test_topic_is_kept_for_ever(broker):
    broker.create_topic("short", 2, {"retention.ms": 1000})
    EventStore(broker, "short")
    EventStore(broker, "made")

    assert {broker.topic(name).configs["retention.ms"] for name in ("short", "made")} == {"-1"}


def test_store_of_a_path_closes_its_broker(tmp_path):
    with EventStore(tmp_path / "data", "orders") as store:
        store.append("o-1", PLACED, expected_version=NO_STREAM)

    with pytest.raises(pylog.ClosedError):
        store.append("o-1", PLACED, expected_version=1)
    with EventStore(tmp_path / "data", "orders") as store:
        assert store.version("o-1") == 1


def test_store_in_a_forked_child_says_that_it_must_be_opened_again(store):
    store.append("o-1", PLACED, expected_version=NO_STREAM)

    found = in_child(lambda: store.append("o-1", PLACED, expected_version=1))

    assert isinstance(found, pylog.IllegalStateError)
    assert "fork" in str(found)


@pytest.mark.parametrize(("options", "error"), [
    ({"broker": 7}, TypeError), ({"name": ""}, pylog.InvalidTopicError),
    ({"name": "a b"}, pylog.InvalidTopicError), ({"value": "xml"}, pylog.ConfigurationError),
    ({"events": [int]}, TypeError), ({"events": [OrderPaid(1)]}, TypeError),
    ({"events": 7}, TypeError), ({"num_partitions": 0}, pylog.InvalidPartitionsError),
], ids=str)
def test_what_makes_no_store_is_refused(broker, options, error):
    arguments = {"broker": broker, "name": "orders", **options}

    with pytest.raises(error):
        EventStore(arguments.pop("broker"), arguments.pop("name"), **arguments)


@pytest.mark.parametrize("before", [1, 3])
def test_partitions_that_were_added_make_no_stream_begin_anew(broker, before):
    store = EventStore(broker, "orders", num_partitions=before)
    names = [f"o-{number}" for number in range(8)]
    for name in names:
        store.append(name, PLACED, expected_version=NO_STREAM)
    with pylog.Admin(broker) as admin:
        admin.create_partitions({"orders": 5})

    with pytest.raises(pylog.ConfigurationError, match="cannot be added"):
        EventStore(broker, "orders")
    assert [store.append(name, PLACED, expected_version=1).version for name in names] == [2] * 8
