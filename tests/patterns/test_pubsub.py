"""Topic and AsyncTopic: every subscriber gets a copy; in threads and in an event loop. In several
processes: test_pubsub_kills."""

import asyncio
import shutil
import threading
import time
from collections import Counter
from datetime import UTC, datetime

import pytest
from chances import assert_once_below
from waiting import until

import pylog
from pylog.patterns import AsyncTopic, Bus, DeadLetters, Topic


class Points:
    """A serde as users write one."""

    def serialize(self, topic, headers, value):
        return b"%d,%d" % value

    def deserialize(self, topic, headers, data):
        return tuple(map(int, data.split(b",")))


# ---- partitions


@pytest.mark.parametrize("kind", [Topic, Bus], ids=["topic", "bus"])
def test_partitions_that_a_topic_has_not_are_not_promised(data_path, kind):
    with kind(data_path, "orders", num_partitions=3):
        pass
    with kind(data_path, "orders"), kind(data_path, "orders", num_partitions=2):    # has 3
        pass

    with pytest.raises(pylog.ConfigurationError, match=r"has 3; .*add-partitions orders 7"):
        kind(data_path, "orders", num_partitions=7)
    with pylog.Broker(data_path) as broker:    # it was let go of
        assert broker.topics()["orders"].partitions == 3


@pytest.mark.parametrize(("count", "error"), [
    (0, pylog.ConfigurationError), ("3", TypeError), (True, TypeError), (2.0, TypeError)])
def test_counts_of_partitions_that_are_none(broker, count, error):
    for name in ("new", "orders"):
        for kind in (Topic, Bus):
            with pytest.raises(error, match="num_partitions"):
                kind(broker, name, num_partitions=count)
    assert "new" not in broker.topics()


# ---- publish


@pytest.mark.parametrize(("value", "published", "stored"), [
    (None, b"raw", b"raw"),
    ("bytes", b"raw", b"raw"),
    ("str", "größer", "größer".encode()),
    ("json", {"user": 123}, b'{"user":123}'),
    (Points(), (3, 4), b"3,4"),
    ("json", None, None),
])
def test_values_go_in_and_come_out_as_they_are_declared(broker, value, published, stored):
    with Topic(broker, "one", value=value) as topic:
        metadata = topic.publish(published, key="größe", headers={"tenant": "eu", "none": None})
        [record] = topic.read()

    raw = next(broker.read("one"))
    assert (metadata.topic, metadata.partition, metadata.offset) == ("one", 0, 0)
    assert (raw.key, raw.value) == ("größe".encode(), stored)
    assert raw.headers == (("tenant", b"eu"), ("none", None))
    assert record.value == published
    assert record.key == "größe".encode()


@pytest.mark.parametrize(("value", "error", "words"), [
    ("jsn", pylog.ConfigurationError, "did you mean 'json'"),
    (7, pylog.ConfigurationError, "does not go both ways"),
    (bytes, pylog.ConfigurationError, "leave it out"),
])
def test_values_that_cannot_be_declared_so(broker, value, error, words):
    with pytest.raises(error, match=words):
        Topic(broker, "one", value=value)


@pytest.mark.parametrize(("arguments", "error"), [
    ((object(),), pylog.SerializationError),
    (({1, 2},), pylog.SerializationError),
    ((1, 5), TypeError),
    ((1, "k", [("h", 5)]), TypeError),
    ((1, "k", [(b"h", b"v")]), TypeError),
    ((1, "k", {"h": object()}), TypeError),
])
def test_what_cannot_be_published_is_refused_and_nothing_is_in(broker, arguments, error):
    with Topic(broker, "one", value="json") as topic:
        with pytest.raises(error):
            topic.publish(*arguments)

    assert list(broker.read("one")) == []


@pytest.mark.parametrize("many", ["abc", b"abc", {"a": 1}, 7, None], ids=str)
def test_one_value_is_not_taken_for_several(broker, many):
    with Topic(broker, "one", value="json") as topic:
        with pytest.raises(TypeError, match="values must be several"):
            topic.publish_many(many)
        with pytest.raises(TypeError, match="keys must be several"):
            topic.publish_many([1, 2], keys="ab")

    assert list(broker.read("one")) == []


def test_publish_many_keeps_keys_together(broker):
    with Topic(broker, "orders", value="json") as topic:
        assert topic.publish_many(range(100), keys=[f"k{n % 10}" for n in range(100)]) == 100
        found = {}
        for record in topic.read():
            found.setdefault(record.key, []).append((record.partition, record.value))

    assert len(found) == 10
    for places in found.values():
        assert len({partition for partition, _ in places}) == 1
        assert [value for _, value in places] == sorted(value for _, value in places)


def test_topic_that_is_missing_is_named_where_none_is_made(data_path):
    with pylog.Broker(data_path, auto_create_topics=False) as broker, \
            pytest.raises(pylog.UnknownTopicOrPartitionError, match="'users'"):
        Topic(broker, "users")


# ---- subscribe


def test_every_subscriber_gets_a_copy_and_one_that_fails_stops_no_other(broker):
    seen = {name: [] for name in ("mail", "profile", "analytics")}

    def fail(record):
        raise ValueError("always")

    with Topic(broker, "one", value="json") as users:
        users.subscribe(fail)
        users.subscribe(fail, group="failing")
        users.subscribe(lambda record: seen["mail"].append(record.value))
        users.subscribe(lambda record: seen["profile"].append(record.value), group="profile")
        users.subscribe(lambda record: seen["analytics"].append(record.value), group="analytics")
        for number in range(20):
            users.publish({"user": number})
        until(lambda: all(len(values) == 20 for values in seen.values()))
        until(lambda: len(DeadLetters(broker, "failing").list()) == 20)

    assert list(seen.values()) == [[{"user": number} for number in range(20)]] * 3


def test_without_a_group_nothing_from_before_and_all_from_then_on(broker):
    with Topic(broker, "orders", value="str") as topic:
        for partition in range(3):
            topic.publish("before", partition=partition)
        seen = []
        topic.subscribe(lambda record: seen.append((record.partition, record.value)))
        for partition in range(3):
            topic.publish("after", partition=partition)
        until(lambda: len(seen) == 3)

    assert sorted(seen) == [(0, "after"), (1, "after"), (2, "after")]


def test_a_group_goes_on_where_it_was(broker):
    seen = []
    with Topic(broker, "one", value="str") as topic:
        for value in "abcdef":
            topic.publish(value)
            with topic.subscribe(lambda record: seen.append(record.value), group="g") as one:
                until(lambda one=one: one.stats().handled)

    assert seen == list("abcdef")


NOON = 3_800_000_000_000    # in 2090: what is old goes within a second or two, by retention


@pytest.mark.parametrize("group", [None, "g"])
@pytest.mark.parametrize(("start", "first"), [
    ("earliest", 0), (0, 0), (3, 3), (-2, 8), ("latest", 10), ("now", 10),
    (datetime.fromtimestamp(NOON / 1000 + 4, UTC), 4), (datetime(2100, 1, 1, tzinfo=UTC), 10)])
def test_start_says_where_the_first_record_is(broker, group, start, first):
    seen = []
    with Topic(broker, "one") as topic:
        for number in range(10):
            topic.publish(b"x", timestamp_ms=NOON + 1000 * number)
        topic.subscribe(lambda record: seen.append(record.offset), group=group, start=start)
        topic.publish(b"last")
        until(lambda: 10 in seen)

    assert seen == list(range(first, 11))


def test_start_holds_only_where_nothing_was_committed(broker):
    seen = []
    with Topic(broker, "one") as topic:
        topic.publish_many([b"x"] * 5)
        for start in (2, "earliest", "now"):
            with topic.subscribe(lambda record: seen.append(record.offset), group="g",
                                 start=start) as one:
                topic.publish(b"x")
                until(lambda one=one: one.stats().handled
                      and len(seen) == topic._broker.log("one").end_offset - 2)

    assert seen == list(range(2, 8))


def generate(record):
    yield record


async def generate_later(record):
    yield record


@pytest.mark.parametrize("group", [None, "g"])
def test_start_beyond_the_end_is_refused_and_repeats_nothing(broker, group):
    with Topic(broker, "one") as topic:
        topic.publish_many([b"x"] * 5)
        with pytest.raises(pylog.OffsetOutOfRangeError, match="start=6 lies beyond the end of one"):
            topic.subscribe(print, group=group, start=6)


@pytest.mark.parametrize(("start", "error"), [
    ("yesterday", pylog.ConfigurationError), (object(), TypeError),
    (datetime(2026, 1, 1), pylog.ConfigurationError)])
def test_places_that_are_none_are_refused(broker, start, error):
    with Topic(broker, "one") as topic, pytest.raises(error):
        topic.subscribe(print, start=start)


@pytest.mark.parametrize(("arguments", "error", "words"), [
    ({"handler": 5}, TypeError, "a handler must be callable, not int"),
    ({"handler": lambda: 5}, TypeError, "will be called with 1 argument"),
    ({"handler": lambda record, more: 5}, TypeError, "will be called with 1 argument"),
    ({"handler": lambda *, record: 5}, TypeError, "will be called with 1 argument"),
    ({"handler": generate}, TypeError, "is a generator"),
    ({"handler": generate_later}, TypeError, "is a generator"),
    ({"dlq": "one"}, pylog.ConfigurationError, "without end"),
    ({"group": ""}, pylog.ConfigurationError, "group='' is no name"),
    ({"group": 5}, pylog.ConfigurationError, "group=5 is no name"),
    ({"group": "my group"}, pylog.InvalidTopicError, "or name the topic of dead letters"),
    ({"dlq": True}, pylog.ConfigurationError, "there is none; pass group="),
    ({"dlq": 5}, TypeError, "dlq must be True, False or the name of a topic"),
    ({"dlq": "no/name"}, pylog.InvalidTopicError, "'/'"),
    ({"concurrency": 0}, pylog.ConfigurationError, "concurrency"),
    ({"concurrency": "2"}, TypeError, "concurrency"),
    ({"retry": 5}, TypeError, "retry must be a Retry"),
])
def test_subscriptions_that_cannot_be_are_refused_before_they_begin(
        broker, arguments, error, words):
    before = set(threading.enumerate())    # those of other tests may end meanwhile
    with Topic(broker, "one") as topic:
        with pytest.raises(error, match=words):
            topic.subscribe(**{"handler": print} | arguments)

        assert set(threading.enumerate()) <= before
        assert topic._subscriptions == []


def test_a_group_of_any_name_with_letters_in_a_topic_that_is_named(broker):
    with Topic(broker, "one") as topic:
        with topic.subscribe(lambda record: 1 / 0, group="my group", dlq="mine-dlq") as one:
            topic.publish(b"x")
            until(lambda: one.stats().buried)

    [letter] = DeadLetters(broker, topic="mine-dlq").list()
    assert (letter.group, letter.error) == ("my group", "ZeroDivisionError")


def test_decorator_leaves_the_function_as_it_is(broker):
    seen = []
    with Topic(broker, "one") as topic:
        @topic.subscribe(group="g")
        def act(record):
            """What it is for."""
            seen.append(record.value)

        topic.publish(b"x")
        until(lambda: seen)

    assert act.__doc__ == "What it is for."
    assert topic._subscriptions[0].group == "g"


def test_close_stops_what_it_has_begun(data_path):
    topic = Topic(data_path, "users")
    subscription = topic.subscribe(print)
    topic.close()
    topic.close()

    assert not subscription.is_running
    assert topic._broker.closed


def test_a_closed_topic_is_closed(broker):
    topic = Topic(broker, "users")
    topic.close()

    for call in (lambda: topic.publish(b"x"), lambda: topic.publish_many([b"x"]),
                 lambda: topic.subscribe(print)):
        with pytest.raises(pylog.ClosedError, match="'users' was closed here"):
            call()
    assert broker.log("users", 0).end_offset == 0


@pytest.mark.parametrize(("value", "words"), [
    ("text", "pass value='str'"), ({"a": 1}, "pass value='json'")])
def test_what_is_no_bytes_is_told_by_the_option_that_helps(broker, value, words):
    with Topic(broker, "users") as topic:
        for call in (lambda: topic.publish(value), lambda: topic.publish_many([value])):
            with pytest.raises(TypeError, match=words):
                call()
        with pytest.raises(TypeError, match=r"key must be bytes or str; got int$"):
            topic.publish(b"x", key=5)


# ---- in an event loop


def run_async(data_template, tmp_path, main):
    async def act():
        with pylog.Broker(shutil.copytree(data_template, tmp_path / "data")) as broker:
            async with AsyncTopic(broker, "orders", value="json") as topic:
                return await asyncio.wait_for(main(topic), 30)
    return asyncio.run(act())


async def until_async(condition):
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.002)


def test_async_topic_does_the_same_in_a_loop(data_template, tmp_path):
    async def main(topic):
        seen, plain = [], []

        async def act(record):
            await asyncio.sleep(0)
            seen.append(record.value)

        topic.subscribe(act, group="g", concurrency=3)
        topic.subscribe(lambda record: plain.append(record.value))
        metadata = await topic.publish({"user": 1}, key="k")
        assert await topic.publish_many(range(50), keys=[str(n) for n in range(50)]) == 50
        await until_async(lambda: len(seen) == len(plain) == 51)
        assert metadata.offset == 0
        assert sorted(map(str, seen)) == sorted(map(str, plain)) == sorted(
            [*map(str, range(50)), "{'user': 1}"])
        assert len(list(topic.read())) == 51

    run_async(data_template, tmp_path, main)


def test_async_handlers_fail_retry_and_are_buried(data_template, tmp_path):
    async def main(topic):
        async def fail(record):
            raise ValueError("no")

        subscription = topic.subscribe(fail, group="g")
        await topic.publish("a")
        await until_async(lambda: subscription.stats().buried)
        await subscription.stop()
        assert subscription.stats().state == "stopped"
        [letter] = DeadLetters(topic._broker, "g").list()
        assert letter.message == "no"

    run_async(data_template, tmp_path, main)


def test_cancelled_handler_is_read_again(data_template, tmp_path):
    async def main(topic):
        started, seen = asyncio.Event(), []

        async def hang(record):
            started.set()
            await asyncio.sleep(1000)

        subscription = topic.subscribe(hang, group="g")
        await topic.publish("a", partition=0)
        await started.wait()
        subscription._task.cancel()
        assert await subscription.join(10)
        assert subscription.error is None
        async with topic.subscribe(lambda record: seen.append(record.value), group="g"):
            await until_async(lambda: seen)
        assert seen == ["a"]

    run_async(data_template, tmp_path, main)


def test_async_handler_may_stop_its_own_subscription(data_template, tmp_path):
    async def main(topic):
        async def act(record):
            await subscription.stop()

        subscription = topic.subscribe(act, group="g")
        await topic.publish("a")
        assert await subscription.join(20)
        assert subscription.error is None

    run_async(data_template, tmp_path, main)


def test_async_stop_with_a_timeout(data_template, tmp_path):
    async def main(topic):
        go_on, started = asyncio.Event(), asyncio.Event()

        async def act(record):
            started.set()
            await go_on.wait()

        subscription = topic.subscribe(act)
        await topic.publish("a")
        await started.wait()
        with pytest.raises(pylog.PylogTimeoutError, match="has been at work"):
            await subscription.stop(0.02)
        assert await subscription.join(0) is False
        go_on.set()

    run_async(data_template, tmp_path, main)


def test_closing_the_broker_under_async_subscriptions_is_no_error(data_template, tmp_path):
    async def main():
        broker = pylog.Broker(shutil.copytree(data_template, tmp_path / "data"))
        topic = AsyncTopic(broker, "one")
        subscription = topic.subscribe(print)
        await asyncio.sleep(0.01)
        broker.close()
        assert await subscription.join(10)
        assert subscription.error is None

    asyncio.run(main())


def test_async_topic_needs_a_running_loop(broker):
    topic = AsyncTopic(broker, "one")
    with pytest.raises(RuntimeError, match="no running event loop"):
        topic.subscribe(print)


def test_idle_subscriptions_cost_nothing(broker):
    with Topic(broker, "one") as topic:
        for _ in range(5):
            topic.subscribe(print)
            topic.subscribe(print, group="g")
        time.sleep(0.2)

        def spent(_):    # the first time perhaps on their beginning still
            began = time.process_time()
            time.sleep(0.5)
            return time.process_time() - began

        assert_once_below(0.05, spent)    # else they poll


def test_model_of_groups_and_copies(broker, rng):
    """Random publishing while subscriptions come and go: what each group has seen together is what
    there is, once; what each other subscriber has seen is what came after it."""
    published, groups, copies = [], {"g": [], "h": []}, []
    with Topic(broker, "orders", value="json", num_partitions=3) as topic:
        members = []
        for step in range(60):
            choice = rng.random()
            if choice < 0.7:
                count = rng.randrange(1, 20)
                values = range(len(published), len(published) + count)
                published.extend(values)
                topic.publish_many(values, keys=[str(rng.random()) for _ in values])
            elif choice < 0.85:
                name = rng.choice("gh")
                members.append(topic.subscribe(
                    lambda record, name=name: groups[name].append(record.value), group=name))
            elif choice < 0.95 and members:
                members.pop(rng.randrange(len(members))).stop()
            else:
                seen = []
                copies.append((len(published), seen))
                topic.subscribe(lambda record, seen=seen: seen.append(record.value))
            assert step is not None
        for name in "gh":
            topic.subscribe(lambda record, name=name: groups[name].append(record.value),
                            group=name)
        until(lambda: all(len(seen) >= len(published) for seen in groups.values()))
        until(lambda: all(len(seen) == len(published) - at for at, seen in copies))

    for name in "gh":
        assert Counter(groups[name]) == Counter(published)
    for at, seen in copies:
        assert sorted(seen) == published[at:]
