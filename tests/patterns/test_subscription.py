"""Subscription: attempts, dead letters, breaker, the end; in a thread and in a loop."""

import asyncio
import itertools
import logging
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest
from waiting import until

import pylog
from pylog.patterns import AsyncTopic, DeadLetters, Retry, Topic, expo

FAST = Retry(attempts=3, backoff=0.001)


@pytest.fixture
def topic(broker):
    with Topic(broker, "one", value="str") as topic:
        yield topic


def committed(broker, group, topic="one"):
    with pylog.Consumer(broker, group_id=group) as consumer:
        return consumer.committed(pylog.TopicPartition(topic, 0))


def as_coroutine(function):
    async def handle(record):
        await asyncio.sleep(0)
        return function(record)
    return handle


@pytest.fixture(params=["def", "async def"])
def written(request):
    """A handler as one writes it: the same function, or a coroutine function."""
    return (lambda function: function) if request.param == "def" else as_coroutine


# ---- attempts


def test_handler_is_tried_again_until_it_goes_well(topic, written):
    tries = []

    def fail_twice(record):
        tries.append(record.value)
        if len(tries) < 3:
            raise ConnectionError("down")

    topic.publish("a")
    topic.publish("b")
    with topic.subscribe(written(fail_twice), group="g", retry=FAST) as subscription:
        until(lambda: subscription.stats().handled == 2)

    assert tries == ["a", "a", "a", "b"]    # what comes behind it waits
    assert subscription.stats()[:5] == ("stopped", 2, 2, 0, 0)
    assert DeadLetters(topic._broker, "g").list() == []


def test_what_never_goes_well_is_a_dead_letter_and_finished(topic, broker, written):
    seen = []

    def fail_on_b(record):
        seen.append(record.value)
        if record.value == "b":
            raise ValueError("no b, please")

    for value in "abc":    # later than what the retention takes away, after a second
        topic.publish(value, key="k", headers={"tenant": "eu"}, timestamp_ms=4_000_000_000_000)
    with topic.subscribe(written(fail_on_b), group="g", retry=FAST) as subscription:
        until(lambda: subscription.stats().handled == 2)

    assert seen == ["a", "b", "b", "b", "c"]
    assert committed(broker, "g") == 3
    [letter] = DeadLetters(broker, "g").list()
    assert (letter.topic, letter.partition, letter.offset, letter.timestamp, letter.group,
            letter.attempts, letter.error, letter.message, letter.disposition, letter.key,
            letter.value, letter.headers, letter.mark) == (
        "one", 0, 1, 4_000_000_000_000, "g", 3, "ValueError", "no b, please",
        "MAX_DELIVERY_ATTEMPTS_REACHED", b"k", b"b", (("tenant", b"eu"),), None)
    assert letter.id == "dlq.g.one:0:0"
    assert "fail_on_b" in letter.handler or "handle" in letter.handler


def test_errors_that_are_not_to_be_tried_again_are_not(topic, broker):
    tries = []

    def fail(record):
        tries.append(record.value)
        raise ValueError

    topic.publish("a")
    with topic.subscribe(fail, group="g", retry=Retry(attempts=9, except_=ValueError)) as one:
        until(lambda: one.stats().buried)

    assert tries == ["a"]
    assert DeadLetters(broker, "g").list()[0].attempts == 1


def test_what_cannot_be_deserialized_is_a_dead_letter_at_once(broker, written):
    seen = []
    with Topic(broker, "one", value="json") as topic:
        broker.append("one", b"{not json")
        topic.publish({"a": 1})
        with topic.subscribe(written(lambda record: seen.append(record.value)), group="g",
                             retry=Retry(attempts=None, backoff=0)) as subscription:
            until(lambda: subscription.stats().handled)

    [letter] = DeadLetters(broker, "g").list()
    assert seen == [{"a": 1}]
    assert letter.disposition == "DESERIALIZATION_FAILED"
    assert letter.error == "pylog.errors.DeserializationError"
    assert letter.value == b"{not json"


def test_a_group_without_dead_letters_ends_and_loses_nothing(topic, broker, written):
    def fail(record):
        raise ValueError("no")

    topic.publish("a")
    topic.publish("b")
    subscription = topic.subscribe(written(fail), group="g", retry=FAST, dlq=False)
    with pytest.raises(ValueError, match=r"^no$"):
        subscription.join(20)

    assert subscription.stats().state == "failed"
    assert isinstance(subscription.error, ValueError)
    assert not committed(broker, "g")
    assert not [name for name in broker.topics() if name.startswith("dlq.")]


def test_without_a_group_a_failure_is_logged_and_skipped(topic, broker, written, caplog):
    seen = []

    def fail_on_a(record):
        if record.value == "a":
            raise ValueError("no a, please")
        seen.append(record.value)

    with topic.subscribe(written(fail_on_a)) as subscription, \
            caplog.at_level(logging.WARNING, "pylog.patterns"):
        topic.publish("a")
        topic.publish("b")
        until(lambda: seen)

    assert seen == ["b"]
    assert subscription.stats()[1:] == (1, 0, 1, 0, 0)
    assert "failed on one-0, offset 0, after 1 attempt(s); it is skipped" in caplog.text
    assert "no a, please" in caplog.text


def test_failure_without_a_group_goes_to_the_dead_letters_that_are_named(topic, broker):
    def fail(record):
        raise ValueError

    with topic.subscribe(fail, dlq="one-dlq") as subscription:
        topic.publish("a")
        until(lambda: subscription.stats().buried)

    assert [(one.group, one.value) for one in DeadLetters(broker, topic="one-dlq").list()] == [
        ("", b"a")]


def test_an_error_whose_text_raises_is_a_dead_letter_all_the_same(topic, broker, caplog):
    caplog.set_level(logging.CRITICAL, "pylog.patterns")    # half a pair cannot be printed

    class Broken(Exception):
        def __str__(self):
            raise RuntimeError("no text")

    def fail(record):
        raise Broken if record.value == "a" else ValueError("\ud800" + "x" * 10_000)

    topic.publish("a")
    topic.publish("b")
    with topic.subscribe(fail, group="g") as subscription:
        until(lambda: subscription.stats().buried == 2)

    first, second = DeadLetters(broker, "g").list()
    assert first.message == "(its text cannot be had)"
    assert first.error.endswith("Broken")
    assert second.message == "?" + "x" * 4095


def test_a_record_as_large_as_can_be_fits_into_the_dead_letters(broker):
    def fail(record):
        raise ValueError("x" * 4096)

    with Topic(broker, "one") as topic:
        topic.publish(bytes(1_048_000))
        with topic.subscribe(fail, group="g") as subscription:
            until(lambda: subscription.stats().buried or subscription.error)

    assert len(DeadLetters(broker, "g").list()[0].value) == 1_048_000


def test_what_a_plain_function_returns_to_be_awaited_is_not_lost(topic, broker):
    async def act(record):
        """Never awaited."""

    topic.publish("a")
    with topic.subscribe(lambda record: act(record), group="g") as subscription:
        until(lambda: subscription.stats().buried)

    assert "nobody would await it" in DeadLetters(broker, "g").list()[0].message


def test_a_handler_whose_own_await_was_cancelled_has_failed(topic, broker):
    async def act(record):
        waiting = asyncio.ensure_future(asyncio.sleep(1000))
        waiting.cancel()
        await waiting

    topic.publish("a")
    with topic.subscribe(act, group="g") as subscription:
        until(lambda: subscription.stats().buried)
        assert subscription.is_running

    assert "was cancelled, and not by us" in DeadLetters(broker, "g").list()[0].message


def test_a_handler_that_exits_fails_on_its_record_and_ends_nothing(topic, broker, written):
    handled = []

    def leave(record):
        if record.value == "a":
            sys.exit("enough")
        handled.append(record.value)

    for value in "ab":
        topic.publish(value)
    with topic.subscribe(written(leave), group="g", retry=FAST):
        until(lambda: handled)

    [letter] = DeadLetters(broker, "g").list()
    assert (letter.value, letter.error, letter.message, letter.attempts) \
        == (b"a", "SystemExit", "enough", 1)


def test_without_dead_letters_an_exit_ends_the_subscription_and_names_the_record(
        topic, broker, written, caplog):
    topic.publish("a")
    subscription = topic.subscribe(written(lambda record: sys.exit("enough")), group="g", dlq=False)
    with pytest.raises(SystemExit, match="enough"):
        subscription.join(20)

    assert subscription.stats().state == "failed"
    assert not committed(broker, "g")
    assert "failed on one-0, offset 0, after 1 attempt(s); there are no dead letters" in caplog.text


def test_an_exit_in_the_main_thread_ends_the_program(data_template, tmp_path, caplog):
    path = shutil.copytree(data_template, tmp_path / "data")

    async def main():
        async with AsyncTopic(path, "one", value="str") as topic:
            await topic.publish("a")
            topic.subscribe(as_coroutine(lambda record: sys.exit("enough")), group="g")
            await asyncio.sleep(20)

    with pytest.raises(SystemExit, match="enough"):
        asyncio.run(main())
    assert "failed on one-0, offset 0, after 1 attempt(s); SystemExit ends the program" \
        in caplog.text
    with pylog.Broker(path) as broker:
        assert not committed(broker, "g")


def test_coroutines_are_handled_at_once_by_concurrency(broker):
    at_once, most = 0, 0

    async def handle(record):
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        await asyncio.sleep(0.02)
        at_once -= 1

    with Topic(broker, "orders") as topic:
        for partition in (0, 1, 2) * 3:
            topic.publish(b"x", partition=partition)
        with topic.subscribe(handle, group="g", concurrency=3) as subscription:
            until(lambda: subscription.stats().handled == 9)

    assert most == 3


@pytest.mark.parametrize("concurrency", [1, 2, 5])
def test_order_of_a_partition_is_kept_whatever_fails(broker, concurrency, rng, written):
    values = {partition: [] for partition in range(3)}

    def flicker(record):
        if rng.random() < 0.2:
            raise ConnectionError
        values[record.partition].append(record.offset)

    with Topic(broker, "orders") as topic:
        for number in range(300):
            topic.publish(b"%d" % number, partition=number % 3)
        with topic.subscribe(written(flicker), group="g", concurrency=concurrency,
                             retry=Retry(attempts=None, backoff=0)) as subscription:
            until(lambda: subscription.stats().handled == 300)

    assert values == {key: list(range(100)) for key in range(3)}
    assert subscription.stats().retried > 0


# ---- the breaker


def test_failures_in_a_row_pause_the_subscription(topic, written, caplog):
    calls = []

    def call(record):
        calls.append(record.value)
        raise ConnectionError("down")

    topic.publish_many(list("01234567"))
    retry = Retry(attempts=1, pause_after=3, cooldown=1000)
    with topic.subscribe(written(call), group="g", retry=retry) as subscription:
        until(lambda: subscription.stats().state == "paused")

    assert calls == ["0", "1", "2"]
    assert "is paused for 1000 s" in caplog.text


def test_after_a_pause_one_is_tried_and_success_ends_the_pauses(topic, broker, written):
    times = []

    def call(record):
        times.append(time.monotonic())
        if len(times) <= 4:    # the fourth is the first trial
            raise ConnectionError("down")

    topic.publish_many(list("01234567"))
    retry = Retry(attempts=1, pause_after=3, cooldown=0.15)
    with topic.subscribe(written(call), group="g", retry=retry) as subscription:
        until(lambda: subscription.stats().handled == 4)
        assert subscription.stats()[:5] == ("running", 4, 0, 4, 4)

    assert times[3] - times[2] >= 0.15
    assert times[4] - times[3] >= 0.15
    assert len(DeadLetters(broker, "g").list()) == 4


def test_unreadable_records_open_no_breaker(broker):
    retry = Retry(pause_after=1, cooldown=1000)
    with Topic(broker, "one", value="json") as topic:
        for _ in range(5):
            broker.append("one", b"{")
        topic.publish(1)
        with topic.subscribe(lambda record: None, group="g", retry=retry) as subscription:
            until(lambda: subscription.stats().handled)

    assert subscription.stats().buried == 5


def test_an_unreadable_record_is_no_trial(broker):
    """The breaker is open; what comes next says nothing of whether it would go well."""
    retry, is_down = Retry(attempts=1, pause_after=1, cooldown=0.05), True

    def call(record):
        if is_down:
            raise ConnectionError

    with Topic(broker, "one", value="json") as topic:
        topic.publish(1)
        with topic.subscribe(call, group="g", retry=retry) as subscription:
            until(lambda: subscription.stats().buried)
            is_down = False
            broker.append("one", b"{")
            topic.publish(2)
            until(lambda: subscription.stats().handled)


# ---- how it ends


def test_stop_lets_the_record_in_work_be_finished(topic, broker, written):
    started, go_on, seen = threading.Event(), threading.Event(), []

    def slow(record):
        started.set()
        seen.append(go_on.wait(20))

    topic.publish("a")
    topic.publish("b")
    subscription = topic.subscribe(slow if written(1) == 1 else as_waiting(started, go_on, seen),
                                   group="g")
    started.wait(20)
    with pytest.raises(pylog.PylogTimeoutError):    # it is asked to stop before the record is done
        subscription.stop(0.05)
    go_on.set()
    subscription.stop()

    assert seen == [True]
    assert subscription.stats().state == "stopped"
    assert not subscription.is_running
    assert committed(broker, "g") == 1


def as_waiting(started, go_on, seen):
    async def slow(record):
        started.set()
        while not go_on.is_set():
            await asyncio.sleep(0.002)
        seen.append(True)
    return slow


def test_stop_does_not_wait_for_the_next_attempt(topic, broker, written):
    def fail(record):
        raise ConnectionError

    topic.publish("a")
    subscription = topic.subscribe(written(fail), group="g", retry=Retry(backoff=1000))
    until(lambda: subscription.stats().retried)
    began = time.monotonic()
    subscription.stop()

    assert time.monotonic() - began < 500
    assert subscription.error is None
    assert not committed(broker, "g")    # it is read again
    assert DeadLetters(broker, "g").list() == []


def test_stop_is_over_at_once_where_nothing_comes(topic):
    subscription = topic.subscribe(print)

    subscription.stop()
    subscription.stop()

    assert subscription.join(0)


@pytest.mark.parametrize("concurrency", [1, 3])
def test_a_handler_may_stop_its_own_subscription(topic, broker, written, concurrency):
    def stop(record):
        subscription.stop()

    topic.publish("a")
    topic.publish("b")
    subscription = None

    def handle(record):
        until(lambda: subscription)
        stop(record)

    subscription = topic.subscribe(written(handle), group="g", concurrency=concurrency)

    assert subscription.join(20)
    assert subscription.error is None


def test_stop_with_a_timeout_names_what_it_waits_for(topic):
    started, go_on = threading.Event(), threading.Event()
    subscription = topic.subscribe(lambda record: (started.set(), go_on.wait(20)))
    topic.publish("a")
    started.wait(20)
    try:
        with pytest.raises(pylog.PylogTimeoutError, match="a handler of 'one' has been at work"):
            subscription.stop(0.02)
        assert subscription.join(0) is False
    finally:
        go_on.set()
    subscription.stop()


def test_closing_the_broker_stops_the_subscriptions(data_template, tmp_path, written):
    seen = []
    with pylog.Broker(tmp_path / "data") as broker:
        topic = Topic(broker, "one")
        subscription = topic.subscribe(written(seen.append), group="g")
        other = topic.subscribe(written(seen.append))
        topic.publish(b"a")
        until(lambda: len(seen) == 2)

    assert not subscription.is_running
    assert not other.is_running
    assert subscription.error is other.error is None


LEFT_OPEN = """
import sys, threading, time
from pylog.patterns import Topic, background

background.EXIT_SECONDS = float(sys.argv[3])
started = threading.Event()

def slow(record):
    started.set()
    time.sleep(float(sys.argv[2]))
    print("handled", record.value)

async def act(record):
    pass

topic = Topic(sys.argv[1], "one")
topic.subscribe(slow, group="g")
topic.subscribe(lambda record: None)
topic.subscribe(act, group="h")
topic.publish(b"a")
started.wait(20)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("seconds", "moment", "printed"), [
    ("0.1", "20", "handled b'a'\n"), ("100", "1", "")])
def test_a_script_that_just_ends_waits_a_moment_for_what_is_in_work(
        data_path, seconds, moment, printed):
    done = subprocess.run([sys.executable, "-c", LEFT_OPEN, data_path, seconds, moment], timeout=60,
                          capture_output=True, text=True, check=True)

    assert (done.stdout, done.stderr) == (printed, "")
    with pylog.Broker(data_path) as broker:
        assert (committed(broker, "g") or 0) == len(printed[:1])


JOINS = """
import sys
from pylog.patterns import Topic

topic = Topic(sys.argv[1], "one")
subscription = topic.subscribe(lambda record: print("handled", record.value, flush=True), group="g")
topic.publish(b"a")
subscription.join()
"""


@pytest.mark.slow
def test_ctrl_c_while_somebody_joins_stops_it_and_is_no_failure(data_path):
    with subprocess.Popen([sys.executable, "-c", JOINS, data_path], text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE) as script:
        assert script.stdout.readline() == "handled b'a'\n"
        time.sleep(0.1)    # it is in join by now
        script.send_signal(signal.SIGINT)
        _, told = script.communicate(timeout=20)

    assert told.splitlines()[-1] == "KeyboardInterrupt"
    assert "has ended" not in told


def test_topic_that_is_deleted_ends_its_subscription_with_the_reason(broker):
    with Topic(broker, "one") as topic:
        subscription = topic.subscribe(print)
        broker.delete_topic("one")
        with pytest.raises(pylog.UnknownTopicOrPartitionError, match="'one' was deleted"):
            subscription.join(20)

    assert subscription.stats().state == "failed"


def test_full_dead_letters_end_it_and_lose_nothing(topic, broker):
    broker.create_topic("small", configs={"max.message.bytes": 200})

    def fail(record):
        raise ValueError

    topic.publish("a" * 150)
    subscription = topic.subscribe(fail, group="g", dlq="small")
    with pytest.raises(pylog.MessageSizeTooLargeError):
        subscription.join(20)

    assert not committed(broker, "g")


def test_a_backoff_that_makes_no_sense_ends_it(topic, broker):
    def fail(record):
        raise ConnectionError

    topic.publish("a")
    subscription = topic.subscribe(fail, group="g", retry=Retry(backoff=lambda failed: -1))
    with pytest.raises(pylog.ConfigurationError, match="what backoff returned=-1"):
        subscription.join(20)

    assert not committed(broker, "g")


def test_expo_is_what_is_waited(topic):
    times = []

    def fail(record):
        times.append(time.monotonic())
        raise ConnectionError

    topic.publish("a")
    with topic.subscribe(fail, group="g", retry=Retry(4, expo(0.02, 1, jitter=0))) as subscription:
        until(lambda: subscription.stats().buried)

    waits = [after - before for before, after in itertools.pairwise(times)]
    assert len(waits) == 3
    assert all(wait >= least for wait, least in zip(waits, (0.02, 0.04, 0.08), strict=True))
