"""Rooms: what is emitted comes once, in order, to who listens; what was missed, to who is back."""

import asyncio
import contextlib
import json

import pytest
from children import in_child
from hypothesis import given, settings
from hypothesis import strategies as st
from waiting import until

import pylog
from pylog import Broker, TopicPartition
from pylog.patterns import Bus, DeadLetters, Rooms, hub, inflow


@pytest.fixture
def broker(tmp_path):
    with Broker(tmp_path / "data") as broker:
        yield broker


@pytest.fixture
def rooms(broker):
    return Rooms(broker)


async def take(messages, count):
    """So many, without what we say ourselves."""
    found = []
    while len(found) < count:
        one = await asyncio.wait_for(anext(messages), 20)
        if one.room is not None:
            found.append(one)
    return found


def run(action):
    """Runs a coroutine function that gets an exit stack."""
    async def act():
        async with contextlib.AsyncExitStack() as stack:
            return await action(stack)
    return asyncio.run(act())


async def opened(stack, rooms, *names, **options):
    """A listener that is there, and its "ready"."""
    messages = await stack.enter_async_context(
        contextlib.aclosing(rooms.messages(*names, **options)))
    ready = await asyncio.wait_for(anext(messages), 20)
    assert (ready.event, ready.room) == ("ready", None)
    return messages, ready


def test_rooms_are_listed_by_what_is_there_of_them(broker, rooms):
    assert rooms.list() == []
    ids = [rooms.emit(room, number) for number, room in enumerate(["b", "a", "b", "größe"])]
    broker.append("live", b"1")    # of no room

    assert [(one.room, one.messages, one.id) for one in rooms.list()] == [
        ("a", 1, ids[1]), ("b", 2, ids[2]), ("größe", 1, ids[3])]
    assert [one.changed for one in rooms.list()] == [
        broker.log("live").get(offset).timestamp for offset in (1, 2, 3)]
    broker.log("live").delete_before(2)
    assert [(one.room, one.messages) for one in rooms.list()] == [("b", 1), ("größe", 1)]
    assert run(lambda stack: missed(stack, rooms, ids[2])) == 3


async def missed(stack, rooms, place):
    messages, _ = await opened(stack, rooms, "größe", after=place)
    return (await take(messages, 1))[0].data


# ---- who listens


def test_a_message_comes_to_all_who_are_in_the_room_and_to_no_other(rooms):
    async def act(stack):
        first, _ = await opened(stack, rooms, "a")
        second, _ = await opened(stack, rooms, "a", "b")
        rooms.emit("b", 1)
        rooms.emit("c", 2)
        rooms.emit("a", {"status": "shipped"}, event="orderUpdate")
        return await take(first, 1), await take(second, 2)

    [one], [other, same] = run(act)

    assert (one.room, one.event, one.data) == ("a", "orderUpdate", {"status": "shipped"})
    assert same == one
    assert (other.room, other.event, other.data) == ("b", "message", 1)
    assert json.loads(one.text) == {"id": one.id, "room": "a", "event": "orderUpdate",
                                    "data": {"status": "shipped"}}


def test_it_is_emitted_in_any_process(broker, rooms):
    async def act(stack):
        messages, _ = await opened(stack, rooms, "a")
        emitted = in_child(lambda: emit_in(broker.path))
        return emitted, await take(messages, 1)

    emitted, [one] = run(act)

    assert (one.id, one.data) == (emitted, "from afar")


def emit_in(path):
    with Broker(path) as broker:
        return Rooms(broker).emit("a", "from afar")


def test_who_comes_back_gets_what_was_missed_and_then_what_comes(rooms):
    ids = [rooms.emit("ab"[n % 2], n) for n in range(10)]

    async def act(stack):
        messages, ready = await opened(stack, rooms, "a", after=ids[3])
        rooms.emit("a", 10)
        return ready, await take(messages, 4)

    ready, found = run(act)

    assert ready.data == {"recovered": True}
    assert ready.id == ids[3]
    assert [one.data for one in found] == [4, 6, 8, 10]
    assert [one.id for one in found[:3]] == [ids[4], ids[6], ids[8]]


def test_without_an_id_it_is_from_now_on_and_ready_says_from_where(rooms):
    rooms.emit("a", "before")

    async def act(stack):
        async with contextlib.AsyncExitStack() as inner:
            _, ready = await opened(inner, rooms, "a")
        rooms.emit("a", "between")
        messages, _ = await opened(stack, rooms, "a", after=ready.id)
        return await take(messages, 1)

    assert [one.data for one in run(act)] == ["between"]


@pytest.mark.parametrize("after", ["", None])
def test_no_id_is_nothing_missed(rooms, after):
    async def act(stack):
        return (await opened(stack, rooms, "a", after=after))[1]

    assert run(act).data == {"recovered": True}


@pytest.mark.parametrize("after", [
    "0", "-1", "x-1", "{tag}-", "{tag}-x", "{tag}--1", "{tag}-99", "{tag}-1", "{tag}-" + "9" * 40,
    "{tag}-٣", "00000000-3", " ", "{tag} -3"])
def test_an_id_that_means_nothing_here_any_more_is_told_and_it_goes_on_from_now(
        broker, rooms, after):
    ids = [rooms.emit("a", n) for n in range(5)]
    broker.log("live").delete_before(2)
    tag = ids[0].partition("-")[0]

    async def act(stack):
        messages, ready = await opened(stack, rooms, "a", after=after.format(tag=tag))
        rooms.emit("a", "new")
        return ready, await take(messages, 1)

    ready, [one] = run(act)

    assert ready.data == {"recovered": False}
    assert ready.id == ids[-1]
    assert one.data == "new"


def test_ids_of_a_topic_that_was_made_anew_are_known_to_be_of_another(broker, rooms):
    old, *_ = [rooms.emit("a", n) for n in range(3)]
    broker.delete_topic("live")
    again = Rooms(broker)
    for n in range(3):
        again.emit("a", n)

    async def act(stack):
        return (await opened(stack, again, "a", after=old))[1]

    assert run(act).data == {"recovered": False}


def test_a_heartbeat_comes_when_nothing_does_and_its_id_is_up_to_date(rooms):
    async def act(stack):
        messages, _ = await opened(stack, rooms, "a", heartbeat=0.02)
        ids = [rooms.emit("b", n) for n in range(3)]
        while (one := await anext(messages)).id != ids[-1]:
            assert one.event == "heartbeat"
        rooms.emit("a", 1)
        return await take(messages, 1)

    assert run(act)[0].data == 1


def test_who_is_slow_reads_from_the_log_and_misses_nothing(rooms, monkeypatch):
    monkeypatch.setattr(hub, "BUFFER", 5)

    async def act(stack):
        slow, _ = await opened(stack, rooms, "a", "b")
        quick, _ = await opened(stack, rooms, "a", "b")
        for n in range(200):
            rooms.emit("ab"[n % 2], n)
            if n % 50 == 0:
                await asyncio.sleep(0.01)
        rest = await take(quick, 200)
        for n in range(200, 210):
            rooms.emit("ab"[n % 2], n)
        return await take(slow, 210), rest + await take(quick, 10)

    slow, quick = run(act)

    assert [one.data for one in slow] == list(range(210))
    assert slow == quick


def test_nobody_listens_and_nobody_reads(rooms):
    async def act(stack):
        async with contextlib.AsyncExitStack() as inner:
            await opened(inner, rooms, "a")
            messages, _ = await opened(inner, rooms, "b")
            rooms.emit("b", 1)
            await take(messages, 1)
            assert len(asyncio.all_tasks()) > 1
        async with asyncio.timeout(20):    # the reader ends by itself, soon
            while len(asyncio.all_tasks()) > 1:
                await asyncio.sleep(0.001)
        messages, _ = await opened(stack, rooms, "b")
        rooms.emit("b", 2)
        return await take(messages, 1)

    assert run(act)[0].data == 2


def test_a_record_that_is_no_message_is_passed_over(broker, rooms):
    async def act(stack):
        messages, ready = await opened(stack, rooms, "a")
        for value in (b"{", b"\xff", b"", b"1 2"):
            broker.append("live", value, b"a")
        broker.append("live", b"3")
        rooms.emit("a", "well")
        again, _ = await opened(stack, rooms, "a", after=ready.id)
        return await take(messages, 1) + await take(again, 1)

    assert [one.data for one in run(act)] == ["well", "well"]


def test_who_listens_is_told_that_the_topic_is_deleted(broker, rooms):
    async def act(stack):
        messages, _ = await opened(stack, rooms, "a")
        rooms.emit("a", 1)
        await take(messages, 1)
        broker.delete_topic("live")
        await take(messages, 1)

    with pytest.raises(pylog.PylogError):
        run(act)


@settings(max_examples=15)
@given(st.lists(st.sampled_from(["emit", "emit", "leave", "come", "breathe"]), max_size=60),
       st.data())
def test_any_coming_and_going_gets_each_message_once(tmp_path_factory, acts, data):
    """A client that leaves and comes back at any time; beside it one that stays."""
    async def act(stack, rooms):
        stays, ready = await opened(stack, rooms, "a", "b", heartbeat=0.0005)
        inner, comes, last = contextlib.AsyncExitStack(), None, ready.id
        seen, emitted = [], []
        for one in acts:
            if one == "emit":
                room = data.draw(st.sampled_from("abc"))
                rooms.emit(room, len(emitted))
                emitted.append(room)
            elif one == "breathe":
                await asyncio.sleep(0.001)
            elif one == "come" and comes is None:
                comes, again = await opened(inner, rooms, "a", "b", after=last, heartbeat=0.0005)
                assert again.data == {"recovered": True}
            elif one == "leave" and comes is not None:
                missed = sum(room != "c" for room in emitted) - len(seen)
                seen += await take(comes, data.draw(st.integers(0, missed)))
                last = seen[-1].id if seen else last
                await inner.aclose()
                inner, comes = contextlib.AsyncExitStack(), None
        await inner.aclose()
        wanted = [n for n, room in enumerate(emitted) if room != "c"]
        comes, _ = await opened(stack, rooms, "a", "b", after=last)
        seen += await take(comes, len(wanted) - len(seen))
        assert [one.data for one in seen] == wanted
        assert await take(stays, len(wanted)) == seen

    with Broker(tmp_path_factory.mktemp("rooms") / "data") as broker:
        run(lambda stack: act(stack, Rooms(broker)))


# ---- fed by a bus


def data_of(broker, topic="live"):
    return [json.loads(record.value) for record in broker.read(topic)]


def test_events_of_a_bus_become_messages(broker, rooms):
    with Bus(broker, "shop") as bus:
        bus.emit("order.statusChanged", {"orderId": "1", "newStatus": "paid"})
        bus.emit("user.created", {"id": 1})
        with rooms.feed(bus, "order.*", lambda event: f"order-{event.data['orderId']}"
                        if event.data["orderId"] else None, event="orderUpdate"):
            until(lambda: len(data_of(broker)) == 1)
            bus.emit("order.statusChanged", {"orderId": "", "newStatus": "lost"})
            bus.emit("order.statusChanged", {"orderId": "2", "newStatus": "shipped"})
            until(lambda: len(data_of(broker)) == 2)

    assert [(record.key, record.header("event")) for record in broker.read("live")] == [
        (b"order-1", b"orderUpdate"), (b"order-2", b"orderUpdate")]
    assert data_of(broker)[1] == {"orderId": "2", "newStatus": "shipped"}


def test_an_event_is_fed_once_however_often_it_is_begun(broker, rooms, monkeypatch):
    """The commit fails, as for one who is killed before it."""
    def fails(self, consumer, partition, offset):
        if consumer.committed(partition) is not None:
            raise InterruptedError
        original(self, consumer, partition, offset)

    original = inflow.Inflow._commit
    with Bus(broker, "shop") as bus:
        rooms.emit("other", 0)
        for n in range(5):
            bus.emit("order.paid", n + 1)
        monkeypatch.setattr(inflow.Inflow, "_commit", fails)
        with rooms.feed(bus, "**", lambda event: "a") as fed:
            until(lambda: fed.error)
            assert len(data_of(broker)) == 6
        monkeypatch.setattr(inflow.Inflow, "_commit", original)
        bus.emit("order.paid", 6)
        with rooms.feed("shop", "**", lambda event: "a"):
            until(lambda: len(data_of(broker)) == 7)

    assert data_of(broker) == list(range(7))


def test_what_makes_no_message_is_a_dead_letter_and_its_replay_is_fed(broker, rooms):
    known = []
    with Bus(broker, "shop") as bus:
        bus.emit("order.paid", {"id": "bad"})
        bus.emit("order.paid", {"id": "good"})
        with rooms.feed(bus, "**", lambda event: {"good": "a", **dict(known)}[event.data["id"]]):
            letters = DeadLetters(broker, "push")
            until(lambda: len(data_of(broker)) == 1)
            [letter] = letters.list()
            assert "KeyError" in letter.error
            known.append(("bad", "b"))
            letters.replay(letter)
            until(lambda: len(data_of(broker)) == 2)

    assert [record.key for record in broker.read("live")] == [b"a", b"b"]


def test_a_replay_for_another_group_is_not_fed(broker, rooms):
    with Bus(broker, "shop") as bus:
        bus.emit("a", 1, headers={"__replay.group": "others"})
        bus.emit("a", 2)
        with rooms.feed(bus, "**", lambda event: "a"):
            until(lambda: data_of(broker))

    assert data_of(broker) == [2]


def test_one_feeds_at_a_time_and_from_now_on_if_asked(broker, rooms):
    with Bus(broker, "shop") as bus:
        bus.emit("a", "before")
        first = rooms.feed(bus, "**", lambda event: "a", start="now").start()
        until(broker.claims)
        with rooms.feed(bus, "**", lambda event: "b", start="now"):
            bus.emit("a", 1)
            until(lambda: len(data_of(broker)) == 1)
            first.stop()
            bus.emit("a", 2)
            until(lambda: len(data_of(broker)) == 2)

    assert [(record.key, record.value) for record in broker.read("live")] == [
        (b"a", b"1"), (b"b", b"2")]


def test_all_of_a_bus_that_is_made_anew_is_fed_whatever_was_known_of_the_one_before(
        broker, rooms, monkeypatch):
    def fails(self, consumer, partition, offset):
        monkeypatch.setattr(inflow.Inflow, "_commit", original)
        raise pylog.PylogError("not now")

    original = inflow.Inflow._commit
    with Bus(broker, "shop") as bus:
        bus.emit("a", "before")
        with rooms.feed(bus, "**", lambda event: "a", start="now") as fed:
            bus.emit("a", 0)
            until(lambda: data_of(broker) == [0])
            monkeypatch.setattr(inflow.Inflow, "_commit", fails)
            bus.emit("a", 1)    # which it finds in the rooms when it begins again
            until(lambda: broker.group("push").committed(
                TopicPartition("shop", 0), broker.log("shop").incarnation).offset == 3)
            broker.delete_topic("shop")
            with Bus(broker, "shop") as again:
                for n in range(2, 6):
                    again.emit("a", n)
                until(lambda: len(data_of(broker)) == 6)
                assert fed.error is None

    assert data_of(broker) == list(range(6))


def test_a_feed_goes_on_where_its_rooms_are_made_anew(broker, rooms):
    with Bus(broker, "shop") as bus:
        with rooms.feed(bus, "**", lambda event: "a"):
            for n in range(3):
                bus.emit("a", n)
            until(lambda: len(data_of(broker)) == 3)
            broker.delete_topic("live")
            bus.emit("a", 3)
            until(lambda: data_of(broker))
        with rooms.feed(bus, "**", lambda event: "a") as fed:
            bus.emit("a", 4)
            until(lambda: len(data_of(broker)) == 2)
            assert fed.error is None

    assert data_of(broker) == [3, 4]


# ---- bad use


@pytest.mark.parametrize(("arguments", "error"), [
    (("",), ValueError), (("a\n",), ValueError), (("x" * 256,), ValueError), ((1,), TypeError),
    ((None,), TypeError), ((b"a",), TypeError),
    (("a", object()), pylog.SerializationError), (("a", b"bytes"), pylog.SerializationError),
    (("a", 1, ""), ValueError), (("a", 1, "a\nid: 7"), ValueError), (("a", 1, "ready"), ValueError),
    (("a", 1, "heartbeat"), ValueError), (("a", 1, "error"), ValueError), (("a", 1, 7), TypeError),
])
def test_what_cannot_be_a_message_is_refused(broker, rooms, arguments, error):
    with pytest.raises(error):
        rooms.emit(*arguments)

    assert data_of(broker) == []


@pytest.mark.parametrize("after", [5, 0, b"5", ["a-5"], True])
def test_what_is_no_id_of_a_message_is_refused_by_its_type(rooms, after):
    with pytest.raises(TypeError, match="after must be the id of a message"):
        run(lambda stack: opened(stack, rooms, "a", after=after))


@pytest.mark.parametrize("ttl", [0, -1, None, "1", True, float("nan"), float("inf")])
def test_a_time_to_live_that_is_none_is_refused(broker, ttl):
    with pytest.raises(ValueError, match="ttl="):
        Rooms(broker, ttl=ttl)


@pytest.mark.parametrize(("heartbeat", "error"), [
    (-1, ValueError), (float("nan"), ValueError), ("x", TypeError)])
def test_what_is_no_time_between_heartbeats_is_refused(rooms, heartbeat, error):
    with pytest.raises(error, match="heartbeat"):
        run(lambda stack: opened(stack, rooms, "a", heartbeat=heartbeat))


def test_a_topic_of_several_partitions_is_refused(broker):
    broker.create_topic("many", 2)

    with pytest.raises(ValueError, match="name a topic with one"):
        Rooms(broker, "many")


def test_a_bus_of_another_broker_is_refused(rooms, tmp_path):
    with Bus(tmp_path / "elsewhere", "shop") as bus:
        with pytest.raises(ValueError, match="feed within one broker"):
            rooms.feed(bus, "**", lambda event: "a")


@pytest.mark.parametrize(("arguments", "error"), [
    ((None, "**", str), TypeError), (("shop", "a*", str), ValueError),
    (("shop", "", str), ValueError), (("shop", "**", "room"), TypeError)])
def test_what_is_no_feed_is_refused(rooms, arguments, error):
    with pytest.raises(error):
        rooms.feed(*arguments)


def test_a_room_that_cannot_be_is_refused_to_who_listens(rooms):
    with pytest.raises(ValueError, match="a room cannot be called"):
        run(lambda stack: opened(stack, rooms, ""))


def test_messages_live_as_long_as_was_said(tmp_path):
    with Rooms(tmp_path / "data", ttl=60) as rooms:
        rooms.emit("a", 1)
    with Broker(tmp_path / "data") as broker:
        assert broker.topic("live").configs["retention.ms"] == "60000"


def test_who_listens_is_told_that_the_hub_cannot_begin(rooms, monkeypatch):
    async def act(stack):
        def fails(*_):
            raise pylog.PylogError("no more files can be opened")

        with monkeypatch.context() as context:
            context.setattr(pylog.AsyncConsumer, "assign", fails)
            messages, _ = await opened(stack, rooms, "a")
            with pytest.raises(pylog.PylogError, match="files"):
                await asyncio.wait_for(anext(messages), 5)
        again, _ = await opened(stack, rooms, "a")
        asking = asyncio.create_task(take(again, 1))
        await asyncio.sleep(0)
        rooms.emit("a", {"n": 1})
        return [one.data for one in await asking]

    assert run(act) == [{"n": 1}]
