"""Queue: each message for one worker, who says what became of it."""

import asyncio
import dataclasses
import queue as stdlib
import threading
import time

import pytest
from children import in_child
from queues import PATIENCE, drained, letters
from waiting import until

import pylog
from pylog.patterns import AsyncQueue, DeadLetters, Queue, RejectedError, Rpc, Topic, expo
from pylog.patterns.delayed import TRIM_RECORDS, Delayed
from pylog.patterns.headers import DELIVER_AT
from pylog.testing import broker as broker


@pytest.fixture
def emails(broker):
    with Queue(broker, "emails") as emails:
        yield emails


# ---- putting and getting -------------------------------------------------------------------------

def test_a_message_is_for_one_worker_and_gone_when_it_is_acknowledged(broker, emails):
    emails.put(b"one")
    emails.put(b"two")
    with Queue(broker, "emails") as other:
        first, second = emails.get(0), other.get(0)
        assert (first.value, second.value) == (b"one", b"two")
        with pytest.raises(stdlib.Empty):
            emails.get(0)
        first.ack()
        second.ack()
        assert drained(emails) == []
    assert [record.value for record in broker.read("emails")] == [b"one", b"two"]    # history


@pytest.mark.parametrize("name", ["moved", "deliver_at", "expires_at", "deliveries"])
@pytest.mark.parametrize("delay", [0, 0.01])
def test_headers_of_any_name_are_the_users_own(emails, name, delay):
    emails.put(b"x", headers={name: "17"}, delay=delay)

    with emails.get(PATIENCE) as delivery:
        assert (delivery.headers, delivery.delivery_count) == (((name, b"17"),), 1)


def test_who_waits_for_a_message_can_be_woken(emails):
    threading.Timer(0.05, emails.wakeup).start()
    began = time.monotonic()
    with pytest.raises(pylog.WakeupError):
        emails.get(PATIENCE)
    assert time.monotonic() - began < PATIENCE / 2

    emails.wakeup()
    with pytest.raises(pylog.WakeupError):
        emails.get(PATIENCE)
    emails.put(b"x")
    assert drained(emails) == [b"x"]
    emails.close()
    emails.wakeup()    # of no use, and no harm


def test_a_task_that_waits_for_a_message_can_be_woken(broker):
    async def main():
        async with AsyncQueue(broker, "emails") as emails:
            timer = threading.Timer(0.05, emails.wakeup)
            timer.start()
            began = time.monotonic()
            with pytest.raises(pylog.WakeupError):
                await emails.get(PATIENCE)
            return time.monotonic() - began

    assert asyncio.run(main()) < PATIENCE / 2


def test_put_says_where_it_went_and_many_are_put_in_order(emails):
    assert emails.put(b"0").get().offset == 0
    assert emails.put_many([b"%d" % n for n in range(1, 1000)]) == 999
    assert drained(emails) == [b"%d" % n for n in range(1000)]


def test_values_may_be_typed(broker):
    with Queue(broker, "jobs", value="json") as jobs:
        jobs.put({"resize": 17}, key="alice", headers={"tenant": "eu"})
        with jobs.get(0) as delivery:
            assert (delivery.value, delivery.key) == ({"resize": 17}, b"alice")
            assert delivery.header("tenant") == b"eu"
        with pytest.raises(pylog.SerializationError):
            jobs.put(object())


@dataclasses.dataclass
class Job:
    number: int


def test_a_message_that_does_not_fit_its_schema_is_a_dead_letter_at_once(broker):
    with Queue(broker, "jobs", value=Job) as jobs:
        with pytest.raises(pylog.ValidationError):
            jobs.put({"number": "one"})
        broker.append("jobs", b'{"number": "one"}')    # by somebody who does not check
        jobs.put(Job(2))
        assert drained(jobs) == [Job(2)]
        ((value, error, _, attempts, disposition),) = letters(jobs)
        assert (value, error, attempts, disposition) == (
            b'{"number": "one"}', "ValidationError", 1, "DESERIALIZATION_FAILED")
        assert jobs.stats().in_flight == 0


def test_a_function_may_check_messages(broker):
    def check(value):
        if value < 0:
            raise ValueError("negative")

    with Queue(broker, "jobs", value=check) as jobs:
        jobs.put(3)
        broker.append("jobs", b"-1")
        assert drained(jobs) == [3]
        assert [one[1] for one in letters(jobs)] == ["ValidationError"]


def test_what_cannot_be_deserialized_is_a_dead_letter_at_once(broker):
    broker.append("jobs", b"{broken")
    with Queue(broker, "jobs", value="json") as jobs:
        jobs.put([1])
        assert drained(jobs) == [[1]]
        ((value, error, _, attempts, disposition),) = letters(jobs)
        assert (value, error, attempts, disposition) == (
            b"{broken", "DeserializationError", 1, "DESERIALIZATION_FAILED")


def test_get_waits_for_a_message_and_no_longer_than_it_is_told(emails):
    start = time.monotonic()
    with pytest.raises(stdlib.Empty):
        emails.get(0.1)
    assert 0.09 < time.monotonic() - start < PATIENCE / 2    # the clock of waits is coarse
    timer = threading.Timer(0.1, emails.put, (b"late",))
    timer.start()
    assert emails.get(PATIENCE).value == b"late"
    timer.join()


def test_another_group_gets_every_message(broker, emails):
    with Queue(broker, "emails", group="archive") as archive:
        emails.put(b"one")
        assert drained(emails) == drained(archive) == [b"one"]


def test_iterating_ends_when_the_queue_is_closed(broker):
    queue = Queue(broker, "jobs")
    queue.put_many([b"1", b"2", b"3"])
    found = []
    for delivery in queue:
        found.append(delivery.value)
        delivery.ack()
        if len(found) == 3:
            queue.close()
    assert found == [b"1", b"2", b"3"]


# ---- failing -------------------------------------------------------------------------------------

def test_what_failed_comes_again_and_then_is_a_dead_letter(broker):
    with Queue(broker, "jobs", max_deliveries=3) as jobs:
        jobs.put(b"poison")
        jobs.put(b"good")
        counts = []
        for _ in range(3):
            with pytest.raises(OSError, match="no route"), jobs.get(0) as delivery:
                counts.append(delivery.delivery_count)
                raise OSError("no route")
        assert counts == [1, 2, 3]
        assert drained(jobs) == [b"good"]
        assert letters(jobs) == [
            (b"poison", "OSError", "no route", 3, "MAX_DELIVERY_ATTEMPTS_REACHED")]
        assert jobs.stats().dead == 1


def test_reject_buries_at_once_with_its_reason(emails):
    emails.put(b"spam", headers={"tenant": "eu"})
    emails.get(0).reject("no such address")
    assert drained(emails) == []
    assert letters(emails) == [(b"spam", "RejectedError", "no such address", 1,
                                "CLIENT_REJECTED")]


def test_a_rejection_needs_no_reason(emails):
    emails.put(b"never")
    with emails.get(0) as delivery:
        delivery.reject()

    [letter] = DeadLetters(emails._broker, "queue").list()
    assert (letter.message, letter.disposition) == ("no reason was given", "CLIENT_REJECTED")


def test_what_is_settled_or_another_has_meanwhile_makes_no_letter(broker):
    with Queue(broker, "slow", max_deliveries=2) as jobs:
        jobs.put_many([b"done", b"late"])
        done, late = jobs.get(0), jobs.get(0)
        done.ack()
        late.extend(0.02)    # of the two deliveries only this has a lock that is soon over
        again = jobs.get(PATIENCE)
        for delivery in (done, late):
            with pytest.raises(pylog.InvalidRecordStateError):
                delivery.reject("too late")
        again.extend(60)
        again.ack()

        assert again.value == b"late"
        assert DeadLetters(broker, "queue").list() == []


@pytest.mark.parametrize("seconds", [-1, 31_536_001, float("nan")])
def test_limits_are_told_alike(emails, seconds):
    emails.put(b"x")
    with emails.get(0) as delivery:
        for wrong in (lambda: emails.put(b"x", delay=seconds), lambda: delivery.nack(seconds),
                      lambda: delivery.extend(seconds)):
            with pytest.raises(pylog.ConfigurationError,
                               match=rf"={seconds} is impossible; use 0 to 31,536,000"):
                wrong()


def test_nack_may_wait(emails):
    emails.put_many([b"long", b"short"])
    emails.get(0).nack(delay=1000)
    with emails.get(0) as delivery:
        began = time.monotonic()
        delivery.nack(delay=0.15)
    again = emails.get(PATIENCE)
    assert time.monotonic() - began > 0.14    # the clock of waits is coarse
    assert (again.value, again.delivery_count) == (b"short", 2)
    again.ack()
    with pytest.raises(stdlib.Empty):
        emails.get(0)
    assert emails.stats().delayed == 1


def test_backoff_is_asked_how_often_it_was_delivered(broker):
    asked = []
    with Queue(broker, "jobs", backoff=lambda count: asked.append(count) or 0) as jobs:
        jobs.put(b"one")
        for _ in range(3):
            jobs.get(0).nack()
        assert asked == [1, 2, 3]
    with Queue(broker, "jobs", backoff=expo(60, 60)) as jobs:
        jobs.get(0).nack()
        with pytest.raises(stdlib.Empty):
            jobs.get(0.05)


def test_a_worker_that_dies_often_enough_makes_a_dead_letter(broker):
    with Queue(broker, "jobs", lock=0.02, max_deliveries=2) as jobs:
        jobs.put(b"slow")
        held = [jobs.get(PATIENCE), jobs.get(PATIENCE)]

        def letters_of_who_waits():
            with pytest.raises(stdlib.Empty):
                jobs.get(0.05)
            return letters(jobs)

        ((value, error, message, attempts, disposition),) = until(letters_of_who_waits)
        assert (value, error, attempts, disposition) == (
            b"slow", "RejectedError", 2, "MAX_DELIVERY_ATTEMPTS_REACHED")
        assert message.startswith("delivered 2 times, and never settled")
        with pytest.raises(pylog.InvalidRecordStateError):
            held[1].ack()


def test_dead_letters_may_have_a_name_or_none(broker):
    with Queue(broker, "jobs", dlq="jobs-dlq") as jobs:
        jobs.put(b"one")
        jobs.get(0).reject("no")
        assert jobs.dlq == "jobs-dlq"
        assert len(letters(jobs)) == 1
    with Queue(broker, "chores", dlq=False) as chores:
        chores.put(b"one")
        chores.get(0).reject("no")
        assert (chores.dlq, chores.stats().dead) == (None, 0)


def test_a_topic_of_letters_that_exists_keeps_its_own_retention(broker):
    broker.create_topic("mine", configs={"retention.ms": 1000})
    for name in ("mine", "new"):
        Queue(broker, "jobs", dlq=name).close()
    assert [broker.topic(name).configs["retention.ms"] for name in ("mine", "new")] == [
        "1000", "-1"]


def test_a_replayed_letter_comes_to_the_group_that_failed_alone(broker, emails):
    with Queue(broker, "emails", group="archive") as archive:
        emails.put(b"one")
        emails.get(0).reject("no")
        assert drained(archive) == [b"one"]
        dead = DeadLetters(broker, topic=emails.dlq)
        assert dead.replay(dead.list()) == 1
        assert drained(archive) == []
        assert drained(emails) == [b"one"]


# ---- delays, times to live, dedup ----------------------------------------------------------------

def test_a_delayed_message_comes_when_it_is_due_and_not_before(emails):
    emails.put(b"much later", delay=1000)
    emails.put(b"now")
    assert drained(emails) == [b"now"]
    start = time.monotonic()
    emails.put(b"later", delay=0.3, key="k", headers={"a": "b"})
    delivery = emails.get(PATIENCE)
    assert 0.29 < time.monotonic() - start < PATIENCE / 2    # due to the millisecond
    assert (delivery.value, delivery.key, delivery.headers) == (b"later", b"k", (("a", b"b"),))
    delivery.ack()
    until(lambda: emails.stats().delayed == 1)    # the mark follows


def test_delayed_messages_come_in_the_order_in_which_they_are_due(emails):
    for delay in (0.3, 0.1, 0.2):
        emails.put(b"%.1f" % delay, delay=delay)
    due = {record.value: int(record.header(DELIVER_AT))    # as late as they were put, besides
           for record in emails._broker.read("emails.delayed") if record.header(DELIVER_AT)}
    found = []
    while len(found) < 3:
        with emails.get(PATIENCE) as delivery:
            found.append(delivery.value)
    assert found == sorted(due, key=due.get)


def test_an_error_of_any_kind_does_not_end_who_moves_delayed_messages(emails, monkeypatch):
    move, failed = Delayed._move_all, []

    def fail_once(self):
        if not failed:
            failed.append(self)
            raise OSError("no descriptors are left")
        move(self)

    monkeypatch.setattr(Delayed, "_move_all", fail_once)
    emails.put(b"later", delay=0.01)
    assert emails.get(PATIENCE).value == b"later"
    assert failed


def test_delayed_messages_outlive_who_put_them(broker):
    def put():
        with pylog.Broker(broker.path) as own, Queue(own, "jobs") as jobs:
            jobs.put(b"later", delay=0.2)
        return True

    assert in_child(put)
    with Queue(broker, "jobs") as jobs:
        assert jobs.get(PATIENCE).value == b"later"


def test_moved_messages_are_trimmed(broker):
    with Queue(broker, "jobs") as jobs:
        for number in range(TRIM_RECORDS // 2 + 1):
            jobs.put(b"%d" % number, delay=0.01)
        got = 0
        while got <= TRIM_RECORDS // 2:
            jobs.get(PATIENCE).ack()
            got += 1
        log = broker.log("jobs.delayed")
        deadline = time.monotonic() + PATIENCE
        while log.start_offset == 0 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert log.start_offset >= TRIM_RECORDS
        jobs.put(b"more", delay=0.01)
        assert jobs.get(PATIENCE).value == b"more"


def test_after_its_time_to_live_a_message_is_a_dead_letter(emails):
    emails.put(b"short", ttl=0.05)
    emails.put(b"long", ttl=100)
    time.sleep(0.1)
    assert drained(emails) == [b"long"]
    assert [(one[0], one[4]) for one in letters(emails)] == [(b"short", "EXPIRED")]


def test_who_replays_what_has_expired_wants_it_delivered(emails):
    emails.put(b"short", ttl=0.05)
    time.sleep(0.1)
    assert drained(emails) == []

    dead = DeadLetters(emails._broker, "queue")
    assert dead.replay(dead.list()) == 1
    assert drained(emails) == [b"short"]


def test_a_dedup_key_puts_once_whoever_puts(broker, emails):
    assert emails.put(b"one", dedup_key="order-17") is not None
    assert emails.put(b"one", dedup_key="order-17") is None
    assert emails.put(b"two", dedup_key="order-18") is not None
    with Queue(broker, "emails") as other:
        assert other.put(b"one", dedup_key="order-17") is None
    assert drained(emails) == [b"one", b"two"]


def test_a_dedup_key_is_forgotten_after_its_window(broker):
    with Queue(broker, "jobs", dedup_window=0.2) as jobs:
        assert jobs.put(b"one", dedup_key="k")
        time.sleep(0.3)
        assert jobs.put(b"one", dedup_key="k")


# ---- numbers -------------------------------------------------------------------------------------

def test_stats_miss_no_message_that_is_moved_while_they_are_taken(emails):
    emails.put(b"a", delay=0.05)
    take = emails._consumer.stats

    def take_and_be_overtaken():
        found = take()
        until(lambda: emails._delayed.count() == 0)
        return found

    emails._consumer.stats = take_and_be_overtaken
    assert emails.stats()[:3] == (1, 0, 0)


def test_stats_tell_how_it_stands(emails):
    assert emails.stats() == (0, 0, 0, 0, 0.0, 0, 0)
    for number in range(6):
        emails.put(b"%d" % number)
    emails.put(b"later", delay=1000)
    emails.get(0).ack()
    emails.get(0).nack(delay=1000)
    emails.get(0).reject("no")
    held = emails.get(0)
    stats = emails.stats()
    assert stats[:4] == (2, 2, 1, 1)
    assert 0 < stats.oldest_age < 5
    assert (stats.done, stats.redelivered) == (1, 1)
    held.ack()


def test_purge_throws_away_what_is_ready_and_no_more(emails):
    emails.put_many([b"x"] * 5)
    held = emails.get(0)
    assert emails.purge() == 4
    assert emails.stats()[:3] == (0, 0, 1)
    held.ack()


# ---- in an event loop ----------------------------------------------------------------------------

def test_the_async_queue_has_the_same_verbs(broker):
    async def main():
        async with AsyncQueue(broker, "jobs", value="json") as jobs:
            await jobs.put({"n": 1})
            assert await jobs.put({"n": 2}, dedup_key="k")
            assert await jobs.put({"n": 2}, dedup_key="k") is None
            began = time.monotonic()
            await jobs.put({"n": 3}, delay=0.1)
            assert await jobs.put_many([{"n": 4}, {"n": 5}]) == 2
            found = {}
            async for delivery in jobs:
                found[delivery.value["n"]] = time.monotonic()
                delivery.ack()
                if len(found) == 5:
                    break
            assert [one for one in found if one != 3] == [1, 2, 4, 5]
            assert found[3] - began > 0.09
            with pytest.raises(asyncio.QueueEmpty):
                await jobs.get(0)
            await jobs.put_many([{"n": n} for n in range(10)])
            done = []

            async def work(delivery):
                await asyncio.sleep(0)
                done.append(delivery.value["n"])

            assert await jobs.work(work, concurrency=3, idle=0.1) == 10
            assert sorted(done) == list(range(10))
            await jobs.put({"n": 6})
            assert await jobs.purge() == 1
            assert jobs.stats().ready == 0

    asyncio.run(main())


# ---- misuse --------------------------------------------------------------------------------------

@pytest.mark.parametrize(("options", "error", "message"), [
    ({"lock": -1}, pylog.ConfigurationError, "lock"),
    ({"lock": 0}, pylog.ConfigurationError, "lock=0 is impossible; use 0.01 to 31,536,000"),
    ({"lock": "long"}, TypeError, "lock"),
    ({"max_deliveries": 0}, pylog.ConfigurationError, "max_deliveries"),
    ({"backoff": -1}, pylog.ConfigurationError, "backoff"),
    ({"backoff": "slow"}, TypeError, "backoff"),
    ({"backoff": lambda: 1}, TypeError, "backoff will be called with"),
    ({"value": "yaml"}, pylog.ConfigurationError, "yaml"),
    ({"value": 17}, pylog.ConfigurationError, "serialize"),
    ({"dlq": 17}, TypeError, "dlq"),
    ({"dlq": "no/topic"}, pylog.InvalidTopicError, "no/topic"),
    ({"dlq": "jobs"}, pylog.ConfigurationError, "without end"),
    ({"group": ""}, pylog.PylogError, "group"),
    ({"dedup_window": -1}, pylog.ConfigurationError, "dedup_window"),
])
def test_wrong_options_are_told(broker, options, error, message):
    with pytest.raises(error, match=message):
        Queue(broker, "jobs", **options)


def _generates(delivery):
    yield delivery


def test_wrong_calls_are_told(broker):
    jobs = Queue(broker, "jobs")
    with pytest.raises(TypeError, match="pass value='str'"):
        jobs.put("text")
    for many in ("abc", b"abc", {"a": 1}, 7):
        with pytest.raises(TypeError, match="values must be several"):
            jobs.put_many(many)
    with pytest.raises(TypeError, match="keys must be several"):
        jobs.put_many([b"a", b"b"], keys="ab")
    with pytest.raises(pylog.ConfigurationError, match="key is empty"):
        jobs.put(b"x", dedup_key="")
    with pytest.raises(pylog.ConfigurationError, match="delay"):
        jobs.put(b"x", delay=-1)
    with pytest.raises(TypeError, match="ttl"):
        jobs.put(b"x", ttl="soon")
    with pytest.raises(TypeError, match="header"):
        jobs.put(b"x", headers={"a": 17})
    with pytest.raises(TypeError, match="headers must be a dict or pairs"):
        jobs.put(b"x", headers=17)
    with pytest.raises(TypeError, match="pass value='str'"):
        jobs.put_many(["text"])
    with pytest.raises(TypeError, match=r"key must be bytes or str; got int$"):
        jobs.put(b"x", key=17)
    with pytest.raises(TypeError, match="callable"):
        jobs.work(17)
    with pytest.raises(TypeError, match="will be called with 1 argument"):
        jobs.work(lambda: None)
    with pytest.raises(TypeError, match="generator"):
        jobs.work(_generates)
    with pytest.raises(pylog.ConfigurationError, match="concurrency"):
        jobs.work(print, concurrency=0)
    assert drained(jobs) == []
    jobs.close()
    jobs.close()
    for verb in (lambda: jobs.put(b"x"), lambda: jobs.get(0), lambda: jobs.work(print), jobs.stats):
        with pytest.raises(pylog.ClosedError, match="queue is closed"):
            verb()
    with pytest.raises(pylog.ConfigurationError, match="what is not due yet"):
        Queue(broker, "jobs.delayed")
    with pytest.raises(pylog.InvalidTopicError):
        Queue(broker, "no/topic")
    with pytest.raises(pylog.ConfigurationError, match="not made to keep the order"):
        Queue(broker, "jobs", ordered_by_key=True)


def test_a_rejection_is_an_error_of_pylog():
    assert issubclass(RejectedError, pylog.PylogError)


def test_a_broker_that_is_closed_closes_its_queues_and_subscriptions_first(tmp_path):
    for number in range(5):
        with pylog.Broker(tmp_path / str(number)) as broker:
            jobs = Queue(broker, "jobs")
            jobs.put(b"x", delay=0.01)
            Topic(broker, "users").subscribe(lambda record: None, group="mail")
            rpc = Rpc(broker)
            rpc.handler("prices", lambda request: b"3")
            assert rpc.request("prices", b"pear").value == b"3"
            assert jobs.get(PATIENCE).value == b"x"
        assert jobs.closed
