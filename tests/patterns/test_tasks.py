"""Tasks of an App in one process: sent, worked off, watched; what fails, and bad use."""

import asyncio
import contextlib
import os
import signal
import threading
import time

import pytest
from children import in_child
from patterns.waiting import until

import pylog
from pylog.patterns import App, Bus, DeadLetters, Retry, Topic, current_task
from pylog.patterns.task_status import TaskStates
from pylog.patterns.time_limit import TimeLimit

PATIENCE = 20


@pytest.fixture
def app(broker):
    with App(broker) as app:
        yield app


@pytest.fixture
def work(app):
    """Begins the worker."""
    return app.start


def letters(app, queue="default"):
    return [(one.error.rpartition(".")[2], one.message, one.attempts)
            for one in DeadLetters(app.broker, topic=f"dlq.queue.{app.name}.{queue}").list()]


# ---- sending and working -------------------------------------------------------------------------

def test_a_call_is_answered_at_once_and_done_later(app, work):
    @app.task
    def transcode(video, formats=("720p",)):
        return {"video": video, "formats": formats}

    sent = transcode.send("v1", formats=["720p", "4K"])
    assert sent.status()[:4] == (sent.id, "transcode", "queued", 0)
    work()
    assert sent.result(PATIENCE) == {"video": "v1", "formats": ["720p", "4K"]}
    assert sent.status()[1:5] == ("transcode", "done", 1, 1.0)
    assert app.result(sent.id).result(0) == sent.result(0)
    assert transcode("v2") == {"video": "v2", "formats": ("720p",)}    # called, it is the function
    assert len(app.statuses()) == 1


def test_progress_is_seen_while_it_is_at_work_also_by_another_process(app, work):
    go_on = threading.Event()

    @app.task
    def transcode():
        current_task().progress(0.5, "720p done")
        go_on.wait(PATIENCE)
        return [current_task().name, current_task().attempt, current_task().id]

    work()
    sent = transcode.send()
    until(lambda: sent.progress() == 0.5)

    def look():
        with App(app.broker.path) as other:
            return other.result(sent.id).status()

    assert in_child(look)[1:6] == ("transcode", "running", 1, 0.5, "720p done")
    go_on.set()
    assert sent.result(PATIENCE) == ["transcode", 1, sent.id]
    assert (sent.progress(), current_task().id) == (1.0, "")


def test_watch_yields_each_change_until_it_is_finished(app, work):
    turn = threading.Semaphore(0)

    @app.task
    def count():
        for number in (1, 2):
            current_task().progress(number / 2, f"{number} done")
            turn.acquire(timeout=PATIENCE)

    sent, seen = count.send(), []
    for status in sent.watch(PATIENCE):
        if not seen:
            work()
        seen.append((status.state, status.message))
        if status.message:
            turn.release()
    assert [one for one in seen if one != ("running", "")] == [
        ("queued", ""), ("running", "1 done"), ("running", "2 done"), ("done", "")]


def test_coroutine_functions_are_tasks_side_by_side(app, work):
    both = asyncio.Barrier(2)

    @app.task
    async def meet(name):
        await both.wait()
        current_task().progress(0.5, name)
        return [name, current_task().id]

    work(concurrency=2)
    first, second = meet.send("a"), meet.send("b")
    assert first.result(PATIENCE) == ["a", first.id]

    async def wait():
        return await second

    assert asyncio.run(wait()) == ["b", second.id]


def test_dedup_key_is_of_one_task(app, work):
    @app.task
    def transcode(video):
        return "video"

    @app.task
    def thumbnail(video):
        return "picture"

    sent = [one.options(dedup_key="v1").send("v1") for one in (transcode, thumbnail)]
    work()

    assert [one.result(PATIENCE) for one in sent] == ["video", "picture"]


def test_options_of_a_call(app, work):
    seen = {}

    @app.task
    def note(text):
        assert text not in seen
        seen[text] = time.monotonic()

    begun = time.monotonic()
    late = note.options(delay=0.2, key="k").send("late")
    first = note.options(dedup_key="once").send("once")
    assert note.options(dedup_key="once").send("never").id == first.id
    dead = note.options(ttl=0).send("dead")
    work()
    late.result(PATIENCE)
    first.result(PATIENCE)
    assert seen.keys() == {"once", "late"}
    assert seen["late"] - begun > 0.19    # of whole milliseconds
    assert dead.status().state == "queued"    # nobody began it
    assert until(lambda: letters(app))[0][0] == "RejectedError"
    assert b"k" in [record.key for record in app.broker.read("app.default")]


def test_a_worker_may_have_the_tasks_of_some_queues_only(app, work):
    @app.task(queue="video")
    def transcode():
        return "video"

    @app.task
    def mail():
        return "mail"

    slow, quick = transcode.send(), mail.send()
    work(queues=["default"])
    assert quick.result(PATIENCE) == "mail"
    app.stop()
    assert slow.status().state == "queued"
    work()
    assert slow.result(PATIENCE) == "video"


# ---- failures ------------------------------------------------------------------------------------

def test_a_task_that_fails_is_tried_again_and_at_last_a_dead_letter(app, work):
    attempts = []

    @app.task(retry=Retry(attempts=3, backoff=0.01))
    def unlucky():
        attempts.append(current_task().attempt)
        raise OSError("no route")

    work()
    sent = unlucky.send()
    with pytest.raises(pylog.TaskFailedError, match="attempt 3: OSError: no route") as caught:
        sent.result(PATIENCE)
    assert (caught.value.task, caught.value.task_id, caught.value.type, caught.value.reason,
            caught.value.attempts) == ("unlucky", sent.id, "OSError", "no route", 3)
    assert attempts == [1, 2, 3]
    assert until(lambda: letters(app)) == [("OSError", "no route", 3)]
    assert sent.status().message == "OSError: no route"


def test_what_was_replayed_may_be_done_after_all(app, work):
    is_mended = []

    @app.task
    def unlucky():
        return is_mended[0]

    work()
    sent = unlucky.send()
    until(lambda: letters(app))
    assert sent.status().state == "failed"
    is_mended.append("fine")
    dead = DeadLetters(app.broker, topic="dlq.queue.app.default")
    assert dead.replay(dead.list()) == 1
    until(lambda: sent.status().state == "done")
    assert sent.result(0) == "fine"


@pytest.mark.parametrize("error", [SystemExit(3), asyncio.CancelledError(), ValueError()])
def test_whatever_a_task_raises_its_worker_goes_on(app, work, error):
    @app.task
    def bad():
        raise error

    @app.task
    async def bad_too():
        raise error if not isinstance(error, SystemExit) else ValueError

    @app.task
    def good():
        return 1

    work()
    for task in (bad, bad_too):
        with pytest.raises(pylog.TaskFailedError):
            task.send().result(PATIENCE)
    assert good.send().result(PATIENCE) == 1


def test_a_task_nobody_knows_is_a_dead_letter_that_says_where_to_look(app, broker, work):
    @app.task
    def known():
        pass

    with App(broker) as newer:
        @newer.task
        def renamed():
            pass

        sent = renamed.send()
    work()
    with pytest.raises(pylog.TaskFailedError, match="no task 'renamed' in the app 'app', which has "
                                                    "known of"):
        sent.result(PATIENCE)
    [(error, message, _)] = until(lambda: letters(app))
    assert error == "UnknownTaskError"
    assert __name__ in message


@pytest.mark.parametrize("value", [
    b"[]", b"{}", b"null", b'{"id": 1, "task": "t", "args": [], "kwargs": {}}', b"no json",
    b'{"id": "1", "task": "t", "args": {}, "kwargs": {}}',
    b'{"id": "1", "task": "t", "args": []}', None])
def test_a_message_that_is_no_call_is_a_dead_letter(app, work, value):
    @app.task
    def t():
        pass

    app.broker.create_topic("app.default", 1)
    app.broker.append("app.default", value)
    sent = t.send()
    work()
    sent.result(PATIENCE)
    assert len(until(lambda: letters(app))) == 1


def test_what_is_no_json_fails_once(app, work):
    @app.task(retry=Retry(attempts=3, backoff=0))
    def bad():
        return {1, 2}

    work()
    with pytest.raises(pylog.TaskFailedError, match="attempt 1: SerializationError"):
        bad.send().result(PATIENCE)
    with pytest.raises(pylog.SerializationError):
        bad_arguments = app.task(lambda value: value, name="bad_arguments")
        bad_arguments.send(object())


@pytest.mark.parametrize("is_async", [False, True])
def test_what_takes_too_long_is_interrupted(app, work, is_async):
    begun, cleaned = [], []    # its time may be over before it begins

    def slow():
        try:
            begun.append(1)
            while True:
                time.sleep(0.001)
        finally:
            cleaned.append(1)

    async def slow_async():
        try:
            begun.append(1)
            await asyncio.sleep(60)
        finally:
            cleaned.append(1)

    task = app.task(slow_async if is_async else slow, name="slow", timeout=0.05,
                    retry=Retry(attempts=2, backoff=0))
    work()
    with pytest.raises(pylog.TaskFailedError, match="attempt 2: TaskTimeoutError: slow was at work "
                                                    "for longer than its timeout=0"):
        task.send().result(PATIENCE)
    assert cleaned == begun != []


def test_a_time_limit_raises_within_its_body_or_not_at_all():
    for _ in range(100):
        limit = TimeLimit(0.0002, KeyError)
        with contextlib.suppress(KeyError):
            with limit:
                time.sleep(0.0002)
        limit._expire()    # as by a timer that was slower than the body
        sum(range(100))    # here it would be raised
    with pytest.raises(KeyError):
        with TimeLimit(0.001, KeyError):
            while True:
                pass


def test_a_lease_is_renewed_while_a_task_is_at_work(broker):
    for lock in (0.1, 0.5, 2.5):    # until who renews it has not stood still for so long
        begun = []
        with App(broker, f"app-{lock}", lock=lock) as app:
            @app.task
            def slow(lock=lock, begun=begun):
                begun.append(1)
                time.sleep(4 * lock)

            app.start(concurrency=2)
            slow.send().result(PATIENCE)
        if begun == [1]:
            return
    assert begun == [1]


# ---- consumers, listeners, schedules -------------------------------------------------------------

def test_consumers_and_listeners_get_what_is_theirs_and_go_on_where_they_were(app, work):
    seen = []

    @app.consumer("orders", group="billing", value="json")
    def bill(record):
        seen.append(("bill", record.value))

    @app.on("user.*")
    def audit(event):
        seen.append((event.type, event.data))

    @app.on("user.created", bus="events")
    async def welcome(event):
        seen.append(("welcome", event.data))

    expected = []
    with Topic(app.broker, "orders", value="json") as orders, Bus(app.broker, "events") as bus:
        for number in (1, 2):
            orders.publish(number)
            bus.emit("user.created", number)
            work()
            bus.emit("user.deleted", number)
            expected += [(what, number)
                         for what in ("bill", "user.created", "user.deleted", "welcome")]
            until(lambda number=number: len(seen) >= 4 * number)
            app.stop()
    assert sorted(seen) == sorted(expected)
    groups = {one["group_id"] for one in pylog.Admin(app.broker).list_groups()}
    assert {"billing", "app.audit", "app.welcome"} <= groups


def test_of_a_schedule_one_of_several_workers_sends_each_moment_once(broker):
    moments, begun = [], time.time()
    with App(broker) as app, App(broker) as other:
        for one in (app, other):
            @one.every(0.1, name="tick")
            def tick():
                moments.append(round(time.time(), 3))

            one.start()
        until(lambda: len({int(one / 0.1) for one in moments}) >= 3)
        sent, ended = app.statuses(), time.time()
    assert len(sent) <= (ended - begun) / 0.1 + 2


# ---- lifetime and bad use ------------------------------------------------------------------------

def test_an_app_touches_no_disk_before_it_is_used(tmp_path):
    app = App(tmp_path / "data")
    app.task(print, name="p")
    assert not (tmp_path / "data").exists()
    app.close()
    assert not (tmp_path / "data").exists()


def test_stop_waits_for_what_is_in_work_and_a_new_start_goes_on(app, work):
    begun = threading.Event()

    @app.task
    def slow():
        begun.set()
        time.sleep(0.1)
        return "whole"

    work()
    sent = slow.send()
    begun.wait(PATIENCE)
    app.stop()
    assert sent.result(0) == "whole"
    later = slow.send()
    app.stop()
    assert later.status().state == "queued"
    work()
    assert later.result(PATIENCE) == "whole"


def test_a_signal_lets_run_finish_and_hands_signals_back(app):
    before = signal.getsignal(signal.SIGTERM)

    @app.task
    def end():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.1)
        return "whole"

    sent = end.send()
    app.run()
    assert sent.result(0) == "whole"
    assert signal.getsignal(signal.SIGTERM) is before


def test_run_raises_what_a_consumer_has_failed_with(app):
    @app.consumer("orders", dlq=False)
    def fail(record):
        raise ValueError("no")

    with Topic(app.broker, "orders") as orders:
        orders.publish(b"1")
    with pytest.raises(ValueError, match="no"):
        app.run()


def test_a_start_that_fails_leaves_nothing_running_and_may_be_repeated(tmp_path):
    with pylog.Broker(tmp_path / "data", auto_create_topics=False) as broker, App(broker) as app:
        app.task(lambda: 1, name="one")
        app.consumer("orders")(print)
        for _ in range(2):
            with pytest.raises(pylog.UnknownTopicOrPartitionError):
                app.start()
        names = {thread.name for thread in threading.enumerate()}
        assert not names & {"pylog-default", "pylog-tasks-leases", "pylog-tasks-loop"}
        broker.create_topic("orders", 1)
        app.start()
        assert app.tasks["one"].send().result(PATIENCE) == 1


def test_a_task_that_waits_for_its_own_end_is_told(app, work):
    @app.task
    def end():
        app.stop()

    work()
    with pytest.raises(pylog.TaskFailedError, match="call quit"):
        end.send().result(PATIENCE)


def test_nothing_is_known_of_an_id_that_nobody_sent(app):
    unknown = app.result("nobody")
    assert unknown.status() == ("nobody", "", "unknown", 0, 0.0, "", 0.0)
    with pytest.raises(pylog.PylogTimeoutError, match="nobody is unknown"):
        unknown.result(0.01)
    with pytest.raises(TypeError):
        app.result(7)


def test_what_is_done_stays_as_the_first_to_finish_has_it(broker):
    states = TaskStates(broker, "app", 60)
    states.tell("1", "t", "queued")
    states.tell("1", "t", "running", 1)
    states.tell("1", "t", "running", 2)    # the first was taken for dead
    states.tell("1", "t", "running", 1, progress=(0.9, "stale"))
    states.tell("1", "t", "failed", 1, error=ValueError("stale"))
    assert states.get("1").status[2:6] == ("running", 2, 0.0, "")
    states.tell("1", "t", "done", 1, result=b"1")
    states.tell("1", "t", "done", 2, result=b"2")
    states.tell("1", "t", "running", 3)
    states.tell("1", "t", "queued")
    assert states.get("1").record.value == b"1"


@pytest.mark.parametrize("call", [
    lambda app: app.task(7),
    lambda app: app.task(retry=3)(print),
    lambda app: app.task(timeout="1")(print),
    lambda app: app.every("1"),
    lambda app: app.every(1)(lambda moment: 1),
    lambda app: app.consumer("orders")(7),
    lambda app: app.on("user.*")(7),
    lambda app: app.consumer("orders", concurrency="1"),
    lambda app: app.start(concurrency="1"),
    lambda app: app.start(queues="default"),
    lambda app: app.start(queues=7),
    lambda app: app.task(name=7)(print),
    lambda app: app.task(queue=None)(print),
    lambda app: app.consumer(None),
    lambda app: app.on(None),
    lambda app: app.on("user.*", bus=7),
    lambda app: App("data", None),
    lambda app: app.task(print).options(key=5),
    lambda app: app.task(print).options(dedup_key=5),
    lambda app: app.task(print).options(delay="1"),
    lambda app: app.task(print).options(ttl="1"),
    lambda app: app.result("nobody").result("x"),
    lambda app: current_task().progress("half"),
    lambda app: current_task().progress(True),
])
def test_of_the_wrong_type_is_a_type_error(app, call):
    with pytest.raises(TypeError):
        call(app)


@pytest.mark.parametrize(("call", "words"), [
    (lambda app: [app.task(print, name="p"), app.task(print, name="p")], "two tasks"),
    (lambda app: app.task(timeout=0)(print), "timeout=0"),
    (lambda app: app.task(retry=Retry(mode="park"))(print), "inline"),
    (lambda app: app.task(name="")(print), "name of the task is empty"),
    (lambda app: app.on("a..b"), "words with dots between"),
    (lambda app: app.task(print).options(delay=-1), "delay=-1"),
    (lambda app: app.task(print).options(ttl=-1), "ttl=-1"),
    (lambda app: app.task(print).options(dedup_key=""), "dedup_key is empty"),
    (lambda app: app.task(timeout=-1)(print), "timeout"),
    (lambda app: app.every(0), "every 0"),
    (lambda app: app.every(-1), "seconds"),
    (lambda app: [app.consumer("o")(print), app.consumer("o")(print)], "two consumers"),
    (lambda app: app.consumer("o", value="yaml"), "value"),
    (lambda app: app.consumer("o", concurrency=0), "concurrency"),
    (lambda app: app.start(), "nothing to do"),
    (lambda app: [app.task(print, name="p"), app.start(0)], "concurrency"),
    (lambda app: [app.task(print, name="p"), app.start(queues=["video"])], "default"),
    (lambda app: app.result("nobody").result(float("nan")), "timeout=nan"),
    (lambda app: current_task().progress(1.1), "0 to 1"),
    (lambda app: current_task().progress(-0.1), "0 to 1"),
])
def test_what_is_impossible_is_said(app, call, words):
    with pytest.raises(pylog.ConfigurationError, match=words):
        call(app)


@pytest.mark.parametrize("call", [
    lambda app: App("data", ""),
    lambda app: App("data", "a/b"),
    lambda app: app.task(queue="a/b")(print),
    lambda app: app.task(queue="")(print),
    lambda app: app.consumer(""),
    lambda app: app.on("user.*", bus="a b"),
])
def test_what_can_be_no_part_of_a_topic_is_refused_where_it_is_declared(app, call):
    with pytest.raises(pylog.InvalidTopicError, match="cannot be a part of a topic's name"):
        call(app)


@pytest.mark.parametrize(("args", "kwargs"), [((), {}), ((1, 2), {}), ((1,), {"b": 2})])
def test_arguments_that_a_function_does_not_take_are_not_sent(app, args, kwargs):
    task = app.task(lambda a: a, name="f")
    with pytest.raises(TypeError, match="was sent with other arguments"):
        task.send(*args, **kwargs)
    assert app.statuses() == []


def test_an_app_is_started_once(app, work):
    app.task(print, name="p")
    work()
    with pytest.raises(pylog.IllegalStateError, match="stop it first"):
        work()


@pytest.mark.parametrize("is_async", [False, True])
def test_a_consumer_may_not_wait_for_the_end_of_its_worker(app, work, is_async):
    told = []

    def stop(record):
        with pytest.raises(pylog.IllegalStateError, match="quit"):
            app.stop()
        told.append(record.offset)

    async def stop_in_loop(record):
        stop(record)

    app.consumer("ends", group="g")(stop_in_loop if is_async else stop)
    work()
    app.broker.append("ends", b"now")
    until(lambda: told)
    app.stop()
