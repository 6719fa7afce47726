"""Retry(mode="park"): what failed waits aside, those behind it go on, and nothing is lost of it."""

import asyncio
import dataclasses
import itertools
import sys
import threading
import time
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from waiting import count_parked, until

import pylog
from pylog.patterns import AsyncBus, AsyncTopic, Bus, DeadLetters, Retry, Topic, headers
from pylog.patterns.parking import Parked, parked_of, to_headers

PARK = Retry(attempts=3, backoff=0.02, mode="park")
NOON = 1_700_000_000_000


@pytest.fixture
def topic(broker):
    with Topic(broker, "orders", value="str", num_partitions=2) as topic:
        yield topic


def as_coroutine(function):
    async def handle(record):
        await asyncio.sleep(0)
        return function(record)
    return handle


@pytest.fixture(params=["def", "async def"])
def written(request):
    """A handler as one writes it: the same function, or a coroutine function."""
    return (lambda function: function) if request.param == "def" else as_coroutine


def committed(broker, partition=0):
    with pylog.Consumer(broker, group_id="g") as consumer:
        return consumer.committed(pylog.TopicPartition("orders", partition)) or 0


# ---- what becomes of a record


def test_a_record_that_fails_waits_aside_and_the_others_keep_their_order(topic, broker, written):
    seen, times = [], []

    def fail_on_b(record):
        seen.append(record.value)
        if record.value == "b":
            times.append(time.monotonic())
        if record.value == "b" and len(times) < 3:
            raise ConnectionError("down")

    for value in "abcde":
        topic.publish(value, partition=0)
    with topic.subscribe(written(fail_on_b), group="g", retry=PARK) as subscription:
        until(lambda: subscription.stats().handled == 5)

    assert [value for value in seen if value != "b"] == list("acde")
    assert seen[1] == "b"
    assert len(times) == 3
    # Whether the others are done by then is up to the scheduler; the next test has a long wait.
    assert all(after - before > 0.018 for before, after in itertools.pairwise(times))
    assert subscription.stats() == ("stopped", 5, 2, 0, 0, 1)
    assert committed(broker) == 5
    assert count_parked(broker) == 0
    assert DeadLetters(broker, "g").list() == []


def test_a_failing_record_does_not_block_its_partition(topic, written):
    seen = []

    def fail(record):
        seen.append(record.value)
        if record.value == "a":
            raise ConnectionError

    topic.publish("a", partition=1)
    topic.publish("b", partition=1)
    with topic.subscribe(written(fail), group="g",
                         retry=Retry(backoff=1000, mode="park")) as subscription:
        until(lambda: subscription.stats().handled)

    assert seen == ["a", "b"]


def test_the_handler_sees_the_record_as_it_was(topic, written):
    seen = []

    def fail_once(record):
        seen.append((record.topic, record.partition, record.offset, record.timestamp,
                     record.timestamp_type, record.key, record.value, record.headers))
        if len(seen) == 1:
            raise ConnectionError

    topic.publish("before", partition=1)
    given = {"tenant": "eu", "__queue.moved": "17", "__queue.expires_at": "1", "__retry.topic": "x",
             "__retry.kept.a": b"", "deliver_at": None}
    topic.publish("a", key="k", headers=given, partition=1, timestamp_ms=NOON)
    with topic.subscribe(written(fail_once), group="g", start=-1, retry=PARK) as subscription:
        until(lambda: subscription.stats().handled)

    assert seen[0] == seen[1]
    assert seen[1][:7] == ("orders", 1, 1, NOON, 0, b"k", "a")
    assert [name for name, _ in seen[1][7]] == list(given)


def test_attempts_are_counted_across_parkings_and_the_backoff_is_asked_for_each(topic, broker):
    asked, times = [], []

    def backoff(failed):
        asked.append(failed)
        return 0.02 * failed

    def fail(record):
        times.append(time.monotonic())
        raise ConnectionError("down")

    topic.publish("a", key="k", headers={"tenant": "eu"}, partition=1, timestamp_ms=NOON)
    with topic.subscribe(fail, group="g",
                         retry=Retry(4, backoff, mode="park")) as subscription:
        # Parking is counted by the one thread, and what becomes of it by the other.
        until(lambda: subscription.stats().buried and subscription.stats().parked)
        assert subscription.stats() == ("running", 0, 3, 1, 1, 1)

    assert asked == [1, 2, 3]
    waits = [later - sooner for sooner, later in itertools.pairwise(times)]
    assert all(wait >= least for wait, least in zip(waits, (0.018, 0.038, 0.058), strict=True))
    [letter] = DeadLetters(broker, "g").list()
    assert (letter.topic, letter.partition, letter.offset, letter.timestamp, letter.group,
            letter.attempts, letter.error, letter.disposition, letter.key, letter.value,
            letter.headers) == (
        "orders", 1, 0, NOON, "g", 4, "ConnectionError", "MAX_DELIVERY_ATTEMPTS_REACHED", b"k",
        b"a", (("tenant", b"eu"),))
    assert count_parked(broker) == 0


def test_attempts_are_counted_across_processes_and_ends(topic, broker, written):
    subscription = None

    def fail(record):
        until(lambda: subscription).stop()    # at once, or it might have the next attempt, too
        raise ConnectionError

    topic.publish("a")
    for _ in range(3):
        subscription = None
        subscription = topic.subscribe(written(fail), group="g", retry=PARK)
        assert subscription.join(20)

    assert subscription.stats()[1:5] == (0, 0, 1, 1)
    assert DeadLetters(broker, "g").list()[0].attempts == 3


def test_a_replay_of_its_letter_is_for_the_handler_that_failed(broker):
    seen, is_down = [], True

    def fail(event):
        seen.append(event.data)
        if is_down:
            raise ConnectionError

    with Bus(broker, "orders") as bus:
        bus.on("order.*", lambda event: seen.append("other"), group="g", name="other")
        bus.on("order.*", fail, group="g", retry=PARK, name="fail")
        bus.start()
        bus.emit("order.placed", 17)
        letters = DeadLetters(broker, "g")
        [letter] = until(letters.list)
        assert (letter.handler, letter.topic, letter.attempts) == ("fail", "orders", 3)
        is_down = False
        letters.replay(letter, edit=lambda it: dataclasses.replace(it, value=b"18"))
        until(lambda: bus.stats()["g", "fail"].handled)
        assert letters.list() == []

    assert Counter(seen) == {17: 3, "other": 1, 18: 1}


def test_a_replay_that_fails_is_parked_again(topic, broker):
    tries = []

    def fail(record):
        tries.append(record.header(headers.REPLAY_GROUP))
        if len(tries) < 6:
            raise ConnectionError

    topic.publish("a")
    with topic.subscribe(fail, group="g", retry=PARK) as subscription:
        letters = DeadLetters(broker, "g")
        letters.replay(until(letters.list))
        until(lambda: subscription.stats().handled)

    assert tries == [None] * 3 + [b"g"] * 3


@pytest.mark.parametrize("kinds", [{"except_": ValueError}, {"only": OSError}])
def test_what_is_not_to_be_tried_again_is_a_letter_at_once(topic, broker, kinds):
    def fail(record):
        raise ValueError

    topic.publish("a")
    with topic.subscribe(fail, group="g",
                         retry=Retry(attempts=9, mode="park", **kinds)) as subscription:
        until(lambda: subscription.stats().buried)

    assert subscription.stats()[1:] == (0, 0, 1, 1, 0)
    assert DeadLetters(broker, "g").list()[0].attempts == 1


def test_what_cannot_be_deserialized_is_a_letter_at_once(broker):
    with Topic(broker, "orders", value="json") as topic:
        broker.append("orders", b"{not json")
        with topic.subscribe(print, group="g", retry=PARK) as subscription:
            until(lambda: subscription.stats().buried)

    assert subscription.stats().parked == 0


@pytest.mark.parametrize(("key", "value"), [(None, None), (b"", b""), (b"k", None)])
def test_null_and_empty_are_parked_as_they_are(broker, key, value):
    seen = []

    def fail_once(record):
        seen.append((record.key, record.value))
        if len(seen) == 1:
            raise ConnectionError

    with Topic(broker, "orders") as topic:
        topic.publish(value, key)
        with topic.subscribe(fail_once, group="g", retry=Retry(backoff=0, mode="park")) as one:
            until(lambda: one.stats().handled)

    assert seen == [(key, value)] * 2


def test_a_record_as_large_as_can_be_is_parked(broker):
    with Topic(broker, "orders") as topic:
        topic.publish(bytes(1_048_450), headers={"a": "b"})
        seen = []
        with topic.subscribe(lambda record: seen.append(len(record.value)) or 1 / (len(seen) - 1),
                             group="g", retry=PARK) as subscription:
            until(lambda: subscription.stats().handled or subscription.error)

    assert seen == [1_048_450] * 2


# ---- where: topics, buses, groups


def test_each_group_has_a_queue_of_its_own(topic, broker):
    seen = []

    def act(record, group):
        seen.append(group)
        if group == "g" and seen.count("g") == 1:
            raise ConnectionError

    topic.publish("a")
    with topic.subscribe(lambda record: act(record, "g"), group="g", retry=PARK) as one, \
            topic.subscribe(lambda record: act(record, "h"), group="h", retry=PARK) as other:
        until(lambda: one.stats().handled and other.stats().handled)

    assert Counter(seen) == {"g": 2, "h": 1}
    assert {"retry.g.orders", "retry.h.orders"} <= set(broker.topics())


def test_only_the_handler_of_a_bus_that_failed_is_called_again(broker, written):
    seen = []

    def act(name, event):
        seen.append((name, event.type, event.data))
        if name == "fail" and seen.count(seen[-1]) < 3:
            raise ConnectionError

    with Bus(broker, "orders") as bus:
        for name in ("first", "fail", "last"):
            bus.on("order.**", written(lambda event, name=name: act(name, event)), group="g",
                   retry=PARK, name=name)
        bus.start()
        bus.emit("order.placed", 12)
        until(lambda: bus.stats()["g", "fail"].handled and bus.stats()["g", "fail"].parked)
        assert bus.stats()["g", "fail"].parked == 1
        assert bus.stats()["g", "first"].parked == 0

    assert Counter(seen) == {(name, "order.placed", 12): count for name, count in (
        ("first", 1), ("fail", 3), ("last", 1))}


def test_async_topics_and_buses_park_as_well(data_path):
    async def main():
        tries = Counter()

        async def fail_twice(record):
            tries[type(record).__name__] += 1
            if tries[type(record).__name__] < 3:
                raise ConnectionError

        async with AsyncTopic(data_path, "orders", value="json") as topic, \
                AsyncBus(topic._broker, "shop") as bus:
            subscription = topic.subscribe(fail_twice, group="g", retry=PARK)
            bus.on("*", fail_twice, group="g", retry=PARK)
            bus.start()
            await topic.publish(1)
            await bus.emit("placed", 2)
            for _ in range(2000):
                handled = subscription.stats().handled, *(
                    one.handled for one in bus.stats().values())
                if handled == (1, 1):
                    break
                await asyncio.sleep(0.005)
            return handled, tries, subscription.stats().parked

    assert asyncio.run(main()) == ((1, 1), {"TypedRecord": 3, "Event": 3}, 1)


def test_what_was_parked_is_worked_off_when_the_group_parks_no_more(topic, broker):
    def fail(record):
        raise ConnectionError

    tries = []
    topic.publish("a", partition=0)
    # However late it is stopped, it has not given up.
    retry = Retry(attempts=None, backoff=0.05, mode="park")
    with topic.subscribe(fail, group="g", retry=retry) as one:
        until(lambda: one.stats().parked)
    with topic.subscribe(lambda record: tries.append(record.offset), group="g") as other:
        until(lambda: other.stats().handled)

    assert tries == [0]
    assert committed(broker) == 1


def test_a_message_that_somebody_put_there_is_a_record_of_the_queues_topic(topic, broker):
    seen = []
    with topic.subscribe(lambda record: seen.append((record.topic, record.value)), group="g",
                         retry=PARK) as subscription:
        broker.append("retry.g.orders", b"by hand")
        broker.append("retry.g.orders", b"odd", headers=[
            ("__retry.topic", b"\xff"), ("__retry.partition", b"9" * 20),
            ("__retry.offset", b"x"), ("__retry.attempts", b"-5")])
        until(lambda: subscription.stats().handled == 2)

    assert seen == [("retry.g.orders", "by hand"), ("\ufffd", "odd")]


@given(st.lists(st.tuples(
    st.one_of(st.text(max_size=8), st.sampled_from(
        [value for name, value in vars(headers).items() if name.isupper()])),
    st.none() | st.binary(max_size=4))))
def test_headers_of_any_name_come_back(pairs):
    record = pylog._native.make_record("orders", 3, 1 << 40, NOON, 0, b"k", b"v", pairs, 0)
    parked = Parked(record, "act", 7)

    message = record.replace(topic="retry.g.orders", partition=0, offset=0, timestamp=1,
                             headers=to_headers(parked))

    back = parked_of(message)
    assert back.record.headers == record.headers
    assert (back.record.topic, back.record.partition, back.record.offset, back.handler,
            back.attempts) == ("orders", 3, 1 << 40, "act", 7)
    assert not any(name.startswith(("__queue.", "__replay.")) for name, _ in message.headers)


# ---- the breaker


def test_a_trial_that_is_parked_pauses_again(topic, broker):
    times = []

    def fail(record):
        times.append(time.monotonic())
        raise ValueError if record.value == "a" else ConnectionError

    topic.publish("a")
    topic.publish("b")
    topic.publish("c")
    retry = Retry(attempts=1, pause_after=1, cooldown=1000)
    with topic.subscribe(fail, group="g", retry=retry) as subscription:
        until(lambda: subscription.stats().given_up == 1)
    retry = Retry(attempts=9, backoff=1000, only=ConnectionError, mode="park", pause_after=1,
                  cooldown=0.1)
    del times[:]
    with topic.subscribe(fail, group="g", retry=retry) as subscription:
        for one in subscription._handlers:
            one.breaker.failed()
        until(lambda: len(times) >= 2)

    assert times[1] - times[0] >= 0.09


# ---- how it ends


def test_stop_lets_the_parked_record_in_work_be_finished(topic, broker, written):
    tries, go_on = [], threading.Event()

    def slow(record):
        tries.append(record.value)
        if len(tries) == 1:
            raise ConnectionError
        go_on.wait(20)

    topic.publish("a")
    subscription = topic.subscribe(written(slow), group="g", retry=PARK)
    until(lambda: len(tries) == 2)
    threading.Timer(0.05, go_on.set).start()
    subscription.stop()

    assert subscription.stats()[:2] == ("stopped", 1)
    assert count_parked(broker) == 0


def test_stop_is_over_at_once_where_all_is_parked(topic, broker, written):
    def fail(record):
        raise ConnectionError

    topic.publish("a", partition=0)
    subscription = topic.subscribe(written(fail), group="g", retry=Retry(backoff=99, mode="park"))
    until(lambda: subscription.stats().parked)
    began = time.monotonic()
    subscription.stop()

    assert time.monotonic() - began < 20
    assert subscription.join(0)
    assert count_parked(broker) == 1
    assert committed(broker) == 1


def test_closing_the_broker_stops_it(tmp_path, written):
    def fail(record):
        raise ConnectionError

    with pylog.Broker(tmp_path / "data") as broker:
        topic = Topic(broker, "orders")
        subscription = topic.subscribe(written(fail), group="g",
                                       retry=Retry(backoff=0, attempts=None, mode="park"))
        topic.publish(b"a")
        until(lambda: subscription.stats().retried > 3)

    assert not subscription.is_running
    assert subscription.error is None


def test_a_handler_may_stop_its_own_subscription(topic, written):
    subscription, tries = None, []

    def handle(record):
        until(lambda: subscription)
        tries.append(record.value)
        if len(tries) == 1:
            raise ConnectionError
        subscription.stop()

    topic.publish("a")
    subscription = topic.subscribe(written(handle), group="g", retry=PARK)

    assert subscription.join(20)
    assert subscription.error is None


@pytest.mark.parametrize("how", [ValueError, SystemExit])
def test_without_dead_letters_it_ends_and_the_record_stays(topic, broker, written, how):
    tries = []

    def fail(record):
        tries.append(record.value)
        if len(tries) == 1:
            raise ConnectionError
        if how is SystemExit:
            sys.exit("no")
        raise ValueError("no")

    topic.publish("a")
    subscription = topic.subscribe(written(fail), group="g", dlq=False,
                                   retry=dataclasses.replace(PARK, attempts=2))
    with pytest.raises(how, match="no"):
        subscription.join(20)

    assert subscription.stats().state == "failed"
    assert count_parked(broker) == 1
    with topic.subscribe(lambda record: tries.append("again"), group="g", retry=PARK) as other:
        until(lambda: other.stats().handled)
    assert tries == ["a", "a", "again"]


def test_what_ends_the_reading_ends_the_worker(topic, broker, written):
    def fail(record):
        raise ValueError

    with topic.subscribe(written(fail), group="g", retry=PARK) as subscription:
        broker.delete_topic("orders")
        with pytest.raises(pylog.UnknownTopicOrPartitionError, match="orders"):
            subscription.join(20)

    assert not [one for one in threading.enumerate() if one.name.startswith("pylog-parked")]


def test_the_queue_that_is_deleted_ends_it(topic, broker, written):
    with topic.subscribe(written(print), group="g", retry=PARK) as subscription:
        broker.delete_topic("retry.g.orders")
        with pytest.raises(pylog.PylogError):
            subscription.join(20)


# ---- bad use


def test_without_a_group_there_is_nowhere_to_park(topic, broker):
    with pytest.raises(pylog.ConfigurationError, match=r"a queue of the group.*pass group="):
        topic.subscribe(print, retry=PARK)
    with Bus(broker, "shop") as bus, \
            pytest.raises(pylog.ConfigurationError, match=r"pass group=, or use mode='inline'"):
        bus.on("*", print, retry=PARK)


@pytest.mark.parametrize("group", ["a group with blanks", "g" * 240])
def test_a_group_after_which_no_queue_can_be_named_is_told(topic, group):
    with pytest.raises(pylog.InvalidTopicError, match=r"mode='park' names a topic after the group"):
        topic.subscribe(print, group=group, dlq=False, retry=PARK)


def test_a_backoff_that_makes_no_sense_ends_it(topic, broker):
    def fail(record):
        raise ConnectionError

    topic.publish("a")
    subscription = topic.subscribe(fail, group="g", retry=Retry(backoff=lambda n: -1, mode="park"))
    with pytest.raises(pylog.ConfigurationError, match="what backoff returned=-1"):
        subscription.join(20)

    assert committed(broker) == 0
