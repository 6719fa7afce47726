"""Events: CloudEvents' attributes in headers, patterns of types, declared events."""

import dataclasses
import re
import sys
import typing
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from waiting import until

import pylog
from pylog.patterns import (
    ANY,
    Bus,
    DeadLetters,
    Event,
    EventStore,
    NewEvent,
    Retry,
    event,
    schema,
)
from pylog.patterns.events import Ids, attributes, declared
from pylog.patterns.wildcards import check_type, matcher

# ---- types and patterns


def matches(pattern, kind):
    """The rule, word by word."""
    if not pattern or not kind:
        return not pattern and not kind
    if pattern[0] == "**":
        return matches(pattern[1:], kind[1:]) or matches(pattern, kind[1:])
    return pattern[0] in ("*", kind[0]) and matches(pattern[1:], kind[1:])


WORDS = st.sampled_from(["a", "b", "a-b", "$", "ü"])


@given(st.lists(st.one_of(WORDS, st.sampled_from(["*", "**"])), min_size=1, max_size=6),
       st.lists(WORDS, min_size=1, max_size=6))
@example(["user", "**"], ["user"])
@example(["**"], ["a"])
@example(["**", "a"], ["a"])
@example(["*"], ["a", "b"])
def test_pattern_matches_what_the_rule_says(pattern, kind):
    assert matcher(".".join(pattern))(".".join(kind)) is matches(pattern, kind)


def test_many_wildcards_take_no_longer_than_their_segments():
    assert not matcher(".".join(["**", "a"] * 40))(".".join(["a"] * 120 + ["b"]))


@pytest.mark.parametrize("name", ["", ".", "a.", ".a", "a..b", "a b", "a\n", "a\x00", "x" * 256,
                                  "a*", "a.b*", "*a", "a.***", "a.**b", "a.#", "#", "a.>", "+.b",
                                  "user.?", "user.[ab]", "user.{a,b}"])
def test_patterns_that_are_none(name):
    with pytest.raises(pylog.ConfigurationError, match=r"cannot be|neither a name nor a wildcard"):
        matcher(name)


@pytest.mark.parametrize("name", ["", ".", "a.", "a..b", "a b", "*", "user.*", "user.**", "a\t",
                                  "\ud800"])
def test_types_that_are_none(name):
    with pytest.raises(pylog.ConfigurationError):
        check_type(name)


@pytest.mark.parametrize("name", [None, 5, b"user.created", ["user"]])
def test_types_and_patterns_are_text(name):
    with pytest.raises(TypeError):
        check_type(name)
    with pytest.raises(TypeError):
        matcher(name)


# ---- attributes


NOON = datetime(2026, 11, 29, 12, 0, 0, 123456, timezone(timedelta(hours=1)))


def test_an_event_is_cloudevents_binary_mode(broker):
    with Bus(broker, "one") as bus:
        bus.emit("user.created", {"id": 123}, key="123", subject="users/123", source="/shop",
                 event_id="e-1", time=NOON, headers={"ce_tenant": "eu"})

    [record] = broker.read("one")
    assert record.key == b"123"
    assert record.value == b'{"id":123}'
    assert record.headers == (
        ("ce_type", b"user.created"), ("ce_specversion", b"1.0"), ("ce_id", b"e-1"),
        ("ce_source", b"/shop"), ("ce_time", b"2026-11-29T11:00:00.123+00:00"),
        ("ce_subject", b"users/123"), ("content-type", b"application/json"), ("ce_tenant", b"eu"))
    one = Event(record, lambda record: record.value.decode())
    assert (one.type, one.id, one.source, one.subject, one.key, one.data) == (
        "user.created", "e-1", "/shop", "users/123", b"123", '{"id":123}')
    assert one.time == NOON.replace(microsecond=123000)
    assert one.header("ce_tenant") == b"eu"
    assert (one.headers, one.timestamp) == (record.headers, record.timestamp)
    assert repr(one) == "<Event 'user.created', id 'e-1', from '/shop'>"


@pytest.mark.parametrize(("value", "data", "content_type"), [
    ("json", [1], b"application/json"), ("str", "a", b"text/plain; charset=utf-8"),
    (None, b"\x00", None)])
def test_content_type_is_that_of_the_bus(broker, value, data, content_type):
    with Bus(broker, "one", value=value) as bus:
        bus.emit("a", data)

    assert next(broker.read("one")).header("content-type") == content_type


def test_what_was_not_said_has_a_default(broker):
    before = datetime.now(UTC) - timedelta(seconds=1)
    with Bus(broker, "one") as bus:
        bus.emit("a")
        bus.emit("a")

    first, second = map(Event, broker.read("one"))
    assert first.data is None
    assert first.source == "one"
    assert first.subject is None
    assert first.id != second.id
    assert before < first.time < datetime.now(UTC) + timedelta(seconds=1)


@pytest.mark.parametrize("text", [b"", b"yesterday", b"2026-13-01T00:00:00Z", b"\xff", None])
def test_time_that_is_none_is_that_of_the_record(broker, text):
    broker.append("one", b"", headers=[("ce_type", b"a"), ("ce_time", text)],
                  timestamp=3_800_000_000_000)    # an old one would go, by retention

    [one] = map(Event, broker.read("one"))
    assert one.time == datetime.fromtimestamp(3_800_000_000, UTC)


def test_time_without_a_zone_is_utc(broker):
    broker.append("one", b"", headers=[("ce_time", b"2026-11-29T12:00:00")])

    assert Event(next(broker.read("one"))).time == datetime(2026, 11, 29, 12, tzinfo=UTC)


@pytest.mark.parametrize(("arguments", "error"), [
    ({"kind": "user.*"}, pylog.ConfigurationError),
    ({"source": ""}, pylog.ConfigurationError),
    ({"event_id": ""}, pylog.ConfigurationError),
    ({"source": b"/shop"}, TypeError),
    ({"event_id": 5}, TypeError),
    ({"time": datetime(2026, 11, 29)}, TypeError),
    ({"time": 1_700_000_000_000}, TypeError),
    ({"subject": 5}, TypeError),
    ({"headers": {"a": 5}}, TypeError),
    ({"headers": 5}, TypeError),
    ({"headers": {"ce_type": "b"}}, pylog.ConfigurationError),
    ({"headers": [("x", b"1"), ("ce_id", b"2")]}, pylog.ConfigurationError),
])
def test_attributes_that_cannot_be(arguments, error):
    with pytest.raises(error):
        attributes(**{"kind": "a", "source": "s", "event_id": "1"} | arguments)


def test_ids_are_each_different():
    makers = [Ids() for _ in range(3)]
    found = [ids.next() for ids in makers for _ in range(100)]

    assert len(set(found)) == 300
    assert all(re.fullmatch(r"[0-9a-f]{32}-\d+", one) for one in found)


# ---- declared events


@event("order.created", key="order_id")
@dataclasses.dataclass
class OrderCreated:
    order_id: str


@event("order.state", key="order_id")
@dataclasses.dataclass
class OrderState:
    order_id: str
    items: list
    total: float = 0.0


def test_the_thin_and_the_full_event_go_side_by_side(broker):
    seen = []
    with Bus(broker, "one") as bus:
        @bus.on(OrderCreated)
        def notify(event):
            seen.append((event.type, event.key, event.data))

        bus.on(OrderState, lambda event: seen.append((event.type, event.key, event.data)))
        bus.emit(OrderCreated("o-1"))
        bus.emit(OrderState("o-1", ["pears"], 12.5), key="other")
        until(lambda: len(seen) == 2)

    assert seen == [("order.created", b"o-1", OrderCreated("o-1")),
                    ("order.state", b"other", OrderState("o-1", ["pears"], 12.5))]


def test_declared_events_bear_with_more_fields_and_not_with_fewer(broker):
    seen = []
    with Bus(broker, "one") as bus:
        bus.on(OrderState, lambda event: seen.append(event.data), group="g")
        for data in ({"order_id": "1", "items": [], "currency": "EUR"}, {"order_id": "2"}, [1],
                     None, "text"):
            bus.emit("order.state", data)
        bus.start()
        letters = DeadLetters(broker, "g")
        until(lambda: len(letters.list()) == 4)

    assert seen == [OrderState("1", [])]
    assert {letter.disposition for letter in letters.list()} == {"DESERIALIZATION_FAILED"}
    assert "does not fit OrderState: " in letters.list()[0].message


@dataclasses.dataclass
class Line:
    product: str
    count: int


@event("basket", key="user")
@dataclasses.dataclass(frozen=True)
class Basket:
    user: str
    lines: list[Line]
    at: datetime | None = None


@pytest.fixture(params=["msgspec", "pydantic"])
def library(request, monkeypatch):
    """Which of the two is installed."""
    other = {"msgspec": "pydantic", "pydantic": "msgspec"}[request.param]
    yield from hiding(monkeypatch, other)


@pytest.fixture
def no_library(monkeypatch):
    yield from hiding(monkeypatch, "msgspec", "pydantic")


def hiding(monkeypatch, *libraries):
    for one in libraries:
        monkeypatch.setitem(sys.modules, one, None)
    schema._library.cache_clear()
    schema.shape_of.cache_clear()
    yield
    schema._library.cache_clear()
    schema.shape_of.cache_clear()


def test_a_declared_event_comes_as_it_was_with_all_that_is_in_it(broker, library):
    sent = Basket("ann", [Line("pears", 2)], datetime(2026, 1, 2, tzinfo=UTC))
    seen = []
    with Bus(broker, "one") as bus:
        bus.on(Basket, lambda event: seen.append(event.data))
        bus.on("basket", lambda event: seen.append(event.data))
        bus.emit(sent)
        until(lambda: len(seen) == 2)

    assert seen == [sent, {"user": "ann", "lines": [{"product": "pears", "count": 2}],
                           "at": "2026-01-02T00:00:00Z"}]


@pytest.mark.parametrize(("wrong", "path"), [
    (Basket(7, []), "user"), (Basket("ann", [Line("pears", "many")]), "lines[0].count"),
    (Basket("ann", None), "lines"), (Basket("ann", [None]), "lines[0]"),
    (Basket("ann", [], "soon"), "at")], ids=str)
def test_a_declared_event_that_does_not_fit_is_not_emitted(broker, library, wrong, path):
    store = EventStore(broker, "store", events=[Basket])
    with Bus(broker, "one") as bus:
        for append in (bus.emit, lambda one: store.append("s", one, expected_version=ANY)):
            with pytest.raises(pylog.ValidationError, match="nothing was appended") as caught:
                append(wrong)
            assert "'basket'" in str(caught.value)
            assert [name for name, _ in caught.value.errors] == [path]

    assert list(broker.read("one")) == []
    assert list(broker.read("store")) == []


@pytest.mark.parametrize(("data", "path"), [
    ({"user": 7, "lines": []}, "user"), ({"user": "ann"}, ""),
    ({"user": "ann", "lines": [{"product": "pears", "count": []}]}, "lines[0].count")], ids=str)
def test_what_is_no_declared_event_is_a_dead_letter_at_once(broker, data, path):
    plain = []
    with Bus(broker, "one") as bus:
        bus.on(Basket, lambda event: event.data, group="g", name="typed",
               retry=Retry(attempts=5, backoff=10))
        bus.on("basket", lambda event: plain.append(event.data), group="g", name="plain")
        bus.start()
        bus.emit("basket", data)
        until(lambda: plain)

    letter, = DeadLetters(broker, "g").list()
    assert plain == [data]
    assert (letter.handler, letter.attempts, letter.disposition) \
        == ("typed", 1, "DESERIALIZATION_FAILED")
    assert f"does not fit Basket: {path}" in letter.message


def test_the_events_of_a_store_are_checked_where_they_are_looked_at(broker):
    store = EventStore(broker, "store", events=[Basket])
    store.append("s", NewEvent("basket", {"user": "ann", "lines": [{"product": "pears"}]}),
                 expected_version=ANY)

    with pytest.raises(pylog.ValidationError, match=r"lines\[0\]") as caught:
        [one.data for one in store.read("s")]
    assert caught.value.offset == 0


def test_without_a_library_fields_are_not_looked_at(broker, no_library):
    seen = []
    with Bus(broker, "one") as bus:
        bus.on(Basket, lambda event: seen.append(event.data), group="g")
        bus.emit(Basket(7, [Line("pears", 2)]))
        bus.emit("basket", {"user": "ann"})
        bus.start()
        until(lambda: DeadLetters(broker, "g").list())

    assert seen == [Basket(7, [{"product": "pears", "count": 2}])]


def test_a_class_whose_fields_cannot_be_read_is_told_at_once(broker):
    @event("odd")
    @dataclasses.dataclass
    class Odd:
        which: Line | Basket

    with Bus(broker, "one") as bus:
        for act in (lambda: bus.on(Odd, print), lambda: bus.emit(Odd(Line("a", 1))),
                    lambda: EventStore(broker, "store", events=[Odd])):
            with pytest.raises(TypeError, match="is no type that values can be of"):
                act()


def test_a_field_that_is_no_plain_value_is_told(broker):
    @event("any")
    @dataclasses.dataclass
    class Any:
        thing: typing.Any

    with Bus(broker, "one") as bus, \
            pytest.raises(pylog.SerializationError, match="are no plain values"):
        bus.emit(Any(object()))


def test_numbers_may_be_keys(broker):
    @event("numbered", key="number")
    @dataclasses.dataclass
    class Numbered:
        number: int

    with Bus(broker, "one") as bus:
        bus.emit(Numbered(7))

    assert next(broker.read("one")).key == b"7"


def test_a_subclass_is_declared_on_its_own():
    class Later(OrderCreated):
        pass

    assert declared(OrderCreated).type == "order.created"
    assert declared(Later) is None
    assert declared("order.created") is None


@pytest.mark.parametrize(("declare", "error", "words"), [
    (lambda: event("order.*"), pylog.ConfigurationError, "name one type"),
    (lambda: event("a")(int), TypeError, "is for dataclasses"),
    (lambda: event("a")(lambda: None), TypeError, "is for dataclasses"),
    (lambda: event("a", key="id")(OrderCreated), pylog.ConfigurationError, "it has order_id"),
])
def test_what_cannot_be_declared(declare, error, words):
    with pytest.raises(error, match=words):
        declare()


@pytest.mark.parametrize("arguments", [(5,), (object(),), (OrderCreated,), (None, {}),
                                       (OrderCreated("1"), {"more": 1})])
def test_what_cannot_be_emitted(broker, arguments):
    with Bus(broker, "one") as bus, pytest.raises(TypeError):
        bus.emit(*arguments)

    assert list(broker.read("one")) == []
