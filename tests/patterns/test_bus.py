"""Bus and AsyncBus: who gets which events, in groups and without, and what becomes of failures."""

import asyncio
import logging
import shutil
import threading
import time
from collections import Counter

import pytest
from waiting import until

import pylog
from pylog.patterns import AsyncBus, Bus, DeadLetters, Retry
from pylog.patterns.routes import TYPES_MAX


@pytest.fixture
def bus(broker):
    with Bus(broker, "orders") as bus:
        yield bus


def reader_of(seen):
    return lambda event: seen.append((event.type, event.data))


# ---- who gets what


def test_handlers_without_a_group_get_what_they_name_from_now_on(bus):
    seen = {pattern: [] for pattern in ("user.created", "user.*", "user.**", "**", "order.*")}
    bus.emit("user.created", "before")
    for pattern, events in seen.items():
        bus.on(pattern, reader_of(events))
    for number, kind in enumerate(("user.created", "user.address.changed", "user", "order.paid")):
        bus.emit(kind, number, key="k")
    until(lambda: len(seen["**"]) == 4 and seen["order.*"])    # whose turn comes after all others

    assert seen == {
        "user.created": [("user.created", 0)],
        "user.*": [("user.created", 0)],
        "user.**": [("user.created", 0), ("user.address.changed", 1)],
        "**": [("user.created", 0), ("user.address.changed", 1), ("user", 2), ("order.paid", 3)],
        "order.*": [("order.paid", 3)],
    }


def test_a_handler_that_comes_later_gets_nothing_from_before(bus, broker):
    """Though the consumer that it shares has it all still to read."""
    go_on, late = threading.Event(), []
    bus.on("**", lambda event: go_on.wait(20))
    for number in range(30):
        bus.emit("a", number, key=str(number))
    bus.on("a", reader_of(late))
    for number in range(30, 60):
        bus.emit("a", number, key=str(number))
    go_on.set()
    until(lambda: len(late) == 30)

    assert sorted(data for _, data in late) == list(range(30, 60))


def test_each_group_gets_all_from_the_beginning_and_goes_on_where_it_was(broker):
    seen = {"audit": [], "mail": []}
    with Bus(broker, "one") as bus:
        bus.emit("a", 0)
    for number in (1, 2):
        with Bus(broker, "one") as bus:
            for group, events in seen.items():
                bus.on("*", reader_of(events), group=group)
            bus.emit("a", number)
            bus.start()
            until(lambda n=number: all(len(events) == n + 1 for events in seen.values()))

    assert seen == {group: [("a", 0), ("a", 1), ("a", 2)] for group in seen}


def test_groups_begin_at_start_with_all_their_handlers(bus):
    first, second = [], []
    for number in range(50):
        bus.emit("a", number)
    bus.on("*", reader_of(first), group="g", name="first")
    bus.on("*", reader_of(second), group="g", name="second")
    time.sleep(0.02)
    assert first == []
    assert bus.start() is bus
    until(lambda: len(second) == 50)

    assert sorted(first) == sorted(second) == [("a", number) for number in range(50)]


def test_a_handler_that_comes_after_its_group_has_begun_is_refused(bus):
    bus.on("*", print, group="g")
    bus.start()
    with pytest.raises(pylog.IllegalStateError, match="would miss events"):
        bus.on("*", repr, group="g")

    seen = []
    bus.on("*", reader_of(seen), group="h")
    bus.start()
    bus.emit("a", 1)
    until(lambda: seen)


def test_a_group_that_was_never_begun_is_told_of(broker, caplog):
    with caplog.at_level(logging.WARNING, "pylog.patterns"), Bus(broker, "one") as bus:
        bus.on("*", print, group="forgotten")

    assert "the group 'forgotten' of the bus 'one' was never begun: call start()" in caplog.text


def test_coroutine_functions_and_functions_side_by_side(bus):
    seen = []

    @bus.on("*")
    async def slowly(event):
        await asyncio.sleep(0.001)
        seen.append("slowly")

    @bus.on("*")
    def at_once(event):
        seen.append("at once")

    @bus.on("*", group="g")
    async def durable(event):
        seen.append("durable")

    @bus.on("*", group="g")
    def plain(event):
        seen.append("plain")

    bus.start()
    bus.emit("a")
    until(lambda: len(seen) == 4)

    assert set(seen) == {"slowly", "at once", "durable", "plain"}


def test_order_of_a_key_is_kept(bus):
    seen = {}
    bus.on("*", lambda event: seen.setdefault(event.key, []).append(event.data), group="g",
           concurrency=3)
    for number in range(300):
        bus.emit("a", number, key=str(number % 7))
    bus.start()
    until(lambda: sum(map(len, seen.values())) == 300)

    for key, numbers in seen.items():
        assert numbers == list(range(int(key), 300, 7))


def test_records_without_a_type_are_nobodys(bus, broker):
    seen = []
    bus.on("**", reader_of(seen))
    broker.append("orders", b"plain")
    for kind in (None, b"", b"\xff\xfe", b"..", b"a" * 10_000):
        broker.append("orders", b"1", headers=[("ce_type", kind)])
    bus.emit("end", key="k")
    until(lambda: len(seen) == 4)

    assert {kind for kind, _ in seen} == {"\ufffd\ufffd", "..", "a" * 10_000, "end"}


def test_more_types_than_are_remembered(bus):
    routes = None
    bus.on("id.*", lambda event: None)
    routes = bus._lines[False].routes
    for number in range(TYPES_MAX + 10):
        assert len(routes._look(b"id.%d" % number)) == 1

    assert len(routes._known) <= TYPES_MAX


# ---- failures


def test_one_that_fails_is_dead_lettered_by_its_name_and_stops_no_other(bus, broker):
    seen = []

    def charge(event):
        raise ValueError(f"no money for {event.data}")

    bus.on("order.*", charge, group="shop", retry=Retry(2, 0))
    bus.on("order.*", reader_of(seen), group="shop", name="ship")
    bus.on("order.*", charge)
    bus.start()
    for number in range(3):
        bus.emit("order.paid", number, key="k")
    until(lambda: len(seen) == 3)
    letters = DeadLetters(broker, "shop")
    until(lambda: len(letters.list()) == 3)
    until(lambda: bus.stats()["shop", "ship"].handled == 3)    # it is counted behind the handler

    assert {letter.handler.rpartition(".")[2] for letter in letters.list()} == {"charge"}
    assert [letter.message for letter in letters.list()] == [
        f"no money for {number}" for number in range(3)]
    assert letters.list()[0].attempts == 2
    assert dict(letters.list()[0].headers)["ce_type"] == b"order.paid"
    [shop_charge] = [stats for (group, name), stats in bus.stats().items()
                     if group == "shop" and name.endswith("charge")]
    assert shop_charge == ("running", 0, 3, 3, 3, 0)


def test_replay_is_for_the_handler_that_failed_alone(bus, broker):
    seen, is_mended = [], False

    def charge(event):
        seen.append("charge")
        if not is_mended:
            raise ValueError

    bus.on("*", charge, group="shop", name="charge")
    bus.on("*", lambda event: seen.append("ship"), group="shop", name="ship")
    bus.on("*", lambda event: seen.append("audit"), group="audit")
    bus.on("*", lambda event: seen.append("live"))
    bus.start()
    bus.emit("order")
    until(lambda: len(seen) == 4)
    letters = DeadLetters(broker, "shop")
    until(letters.list)
    is_mended = True
    letters.replay(letters.list())
    until(lambda: len(seen) == 5)
    bus.emit("end")
    until(lambda: len(seen) == 9)

    assert Counter(seen) == {"charge": 3, "ship": 2, "audit": 2, "live": 2}


def test_replay_for_a_handler_that_is_gone_reaches_the_others_of_its_group(broker):
    with Bus(broker, "one") as bus:
        bus.on("*", lambda event: 1 / 0, group="g", name="old")
        bus.emit("a", 1)
        bus.start()
        until(lambda: bus.stats()["g", "old"].buried)
    seen, letters = [], DeadLetters(broker, "g")
    with Bus(broker, "one") as bus:
        bus.on("*", reader_of(seen), group="g", name="new")
        bus.start()
        letters.replay(letters.list())
        until(lambda: seen)

    assert seen == [("a", 1)]


def test_data_that_cannot_be_read_is_a_dead_letter_at_once(bus, broker):
    seen = []
    bus.on("*", reader_of(seen), group="g", retry=Retry(None, 0))
    bus.on("*", lambda event: seen.append("needs no data"), group="g", name="other")
    broker.append("orders", b"{", headers=[("ce_type", b"a")])
    bus.start()
    until(lambda: DeadLetters(broker, "g").list() and seen)

    assert seen == ["needs no data"]
    assert DeadLetters(broker, "g").list()[0].disposition == "DESERIALIZATION_FAILED"


def test_each_handler_has_its_own_dead_letters_if_it_names_them(bus, broker):
    bus.on("*", lambda event: 1 / 0, group="g", name="a", dlq="a-dlq")
    bus.on("*", lambda event: 1 / 0, group="g", name="b")
    bus.start()
    bus.emit("x")
    until(lambda: all(one.buried for one in bus.stats().values()))

    assert [one.handler for one in DeadLetters(broker, topic="a-dlq").list()] == ["a"]
    assert [one.handler for one in DeadLetters(broker, "g").list()] == ["b"]


# ---- what cannot be


@pytest.mark.parametrize(("arguments", "error", "words"), [
    ({"pattern": "user*"}, pylog.ConfigurationError, "neither a name nor a wildcard"),
    ({"pattern": ""}, pylog.ConfigurationError, "words with dots between"),
    ({"pattern": 5}, TypeError, "a pattern must be a str"),
    ({"pattern": int}, TypeError, "a pattern must be a str"),
    ({"handler": 5}, TypeError, "a handler must be callable"),
    ({"handler": lambda: 5}, TypeError, "will be called with 1 argument"),
    ({"start": "earliest"}, pylog.ConfigurationError, "pass group="),
    ({"concurrency": 2}, pylog.ConfigurationError, "pass group="),
    ({"dlq": True}, pylog.ConfigurationError, "pass group="),
    ({"group": ""}, pylog.ConfigurationError, "is no name of a group"),
    ({"retry": 3}, TypeError, "must be a Retry"),
])
def test_handlers_that_cannot_be(bus, arguments, error, words):
    with pytest.raises(error, match=words):
        bus.on(**{"pattern": "*", "handler": print} | arguments)

    assert bus.stats() == {}


def test_a_decorator_without_a_pattern_is_told(bus):
    with pytest.raises(TypeError, match="a pattern must be a str, not function"):
        @bus.on
        def listen(event):
            raise AssertionError

    assert bus.stats() == {}


@pytest.mark.parametrize(("option", "one", "other"), [
    ("start", "earliest", "now"), ("concurrency", 1, 2)])
def test_handlers_of_a_group_agree(bus, option, one, other):
    bus.on("a", print, group="g", **{option: one})
    bus.on("b", repr, group="g", **{option: one})
    with pytest.raises(pylog.ConfigurationError, match="one consumer reads for them all"):
        bus.on("c", len, group="g", **{option: other})


def test_two_of_one_name_in_a_group_are_refused(bus):
    bus.on("a", lambda event: None, group="g")
    with pytest.raises(pylog.ConfigurationError, match="could not be told apart; pass name="):
        bus.on("b", lambda event: None, group="g")
    bus.on("b", lambda event: None, group="g", name="other")
    bus.on("b", lambda event: None, group="h")
    bus.on("a", print, group="g")
    bus.on("b", print, group="g")    # the same one

    assert len(bus.stats()) == 4


def test_a_closed_bus_is_closed(broker):
    bus = Bus(broker, "one")
    bus.close()
    bus.close()
    for call in (lambda: bus.on("*", print), bus.start, lambda: bus.emit("a")):
        with pytest.raises(pylog.ClosedError, match="the bus is closed"):
            call()


def test_bus_that_is_missing_is_named_where_none_is_made(data_path):
    with pylog.Broker(data_path, auto_create_topics=False) as broker, \
            pytest.raises(pylog.UnknownTopicOrPartitionError, match="'shop'"):
        Bus(broker, "shop")


# ---- run


def test_run_waits_until_it_is_closed(broker):
    bus, seen = Bus(broker, "one"), []
    bus.on("*", reader_of(seen), group="g")
    thread = threading.Thread(target=bus.run)
    thread.start()
    bus.emit("a", 1)
    until(lambda: seen)
    bus.close()
    thread.join(10)

    assert not thread.is_alive()


def test_run_raises_what_ends_a_group(broker):
    with Bus(broker, "one") as bus:
        bus.on("*", lambda event: 1 / 0, group="g", dlq=False)
        bus.on("*", print, group="h")
        bus.emit("a", 1)
        with pytest.raises(ZeroDivisionError):
            bus.run()


# ---- in an event loop


def run_async(data_template, tmp_path, main):
    async def act():
        with pylog.Broker(shutil.copytree(data_template, tmp_path / "data")) as broker:
            async with AsyncBus(broker, "orders") as bus:
                return await asyncio.wait_for(main(bus), 30)
    return asyncio.run(act())


async def until_async(condition):
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.002)


def test_async_bus_does_the_same_in_a_loop(data_template, tmp_path):
    async def main(bus):
        seen = []

        @bus.on("user.*")
        async def live(event):
            seen.append(("live", event.data))

        @bus.on("user.*", group="g")
        async def durable(event):
            await asyncio.sleep(0)
            seen.append(("durable", event.data))

        bus.on("**", lambda event: 1 / 0, group="g", name="failing")
        bus.start()
        for number in range(3):
            await bus.emit("user.created", number, key="k")
        await bus.emit("order.paid", 3, key="k")
        await until_async(lambda: len(DeadLetters(bus._broker, "g").list()) == 4)
        await until_async(lambda: len(seen) == 6)
        assert Counter(name for name, _ in seen) == {"live": 3, "durable": 3}

    run_async(data_template, tmp_path, main)


def test_async_handlers_are_registered_before_the_loop_runs(broker):
    bus, seen = AsyncBus(broker, "one"), []

    @bus.on("*", group="g")
    async def durable(event):
        seen.append("durable")

    bus.on("*", lambda event: seen.append("live"))

    async def main():
        async with bus:
            bus.start()
            await bus.emit("a")
            await until_async(lambda: len(seen) == 2)

    asyncio.run(main())
    assert set(seen) == {"durable", "live"}


def test_async_run_ends_with_the_bus_or_with_what_ends_a_group(data_template, tmp_path):
    async def main(bus):
        bus.on("*", lambda event: 1 / 0, group="g", dlq=False)
        bus.on("*", print, group="h")
        await bus.emit("a")
        with pytest.raises(ZeroDivisionError):
            await bus.run()

    run_async(data_template, tmp_path, main)

    async def main(bus):
        bus.on("*", print, group="h")
        task = asyncio.create_task(bus.run())
        await asyncio.sleep(0.02)
        await bus.close()
        await task

    run_async(data_template, tmp_path / "again", main)


# ---- the model


def test_model_of_a_bus(broker, rng):
    """Random handlers, patterns and events, some of which fail: each group has handled, or buried,
    each event that it wants, once a handler."""
    words = ("a", "b", "a.a", "a.b", "b.a.b")
    patterns = ("a", "a.*", "a.**", "**", "*.a", "b.**", "*.*")
    wants = {"a": {"a", "**"}, "b": {"b", "**"}, "a.a": {"a.*", "a.**", "**", "*.a", "*.*"},
             "a.b": {"a.*", "a.**", "**", "*.*"}, "b.a.b": {"b.**", "**"}}
    with Bus(broker, "orders") as bus:
        handlers, seen = [], Counter()
        for number in range(12):
            group, pattern = rng.choice(("g", "h", "i")), rng.choice(patterns)
            fails = rng.random() < 0.4

            def handle(event, number=number, fails=fails):
                if fails and event.data % 3 == 0:
                    raise ValueError
                seen[number, event.data] += 1

            bus.on(pattern, handle, group=group, name=f"{number}", concurrency=2)
            handlers.append((number, group, pattern, fails))
        bus.start()
        emitted = [rng.choice(words) for _ in range(150)]
        for data, kind in enumerate(emitted):
            bus.emit(kind, data, key=str(rng.random()))
        due, dead = Counter(), Counter()
        for number, group, pattern, fails in handlers:
            for data, kind in enumerate(emitted):
                if pattern in wants[kind]:
                    if fails and data % 3 == 0:
                        dead[group, f"{number}", b"%d" % data] += 1
                    else:
                        due[number, data] += 1
        until(lambda: sum(one.handled + one.buried for one in bus.stats().values())
              == due.total() + dead.total())

    assert seen == due
    assert Counter((letter.group, letter.handler, letter.value)
                   for letter in DeadLetters(broker).list()) == dead
