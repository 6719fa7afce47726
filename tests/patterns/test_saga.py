"""Saga: all steps, or all undone, in whatever process; each step's result is kept."""

import asyncio
import math
import os
import threading
import time

import pytest
from chances import assert_once_below
from children import kill, start
from trips import Trip, nap, nap_until_stopped, shop
from waiting import until

import pylog
from pylog import Broker, SagaFailedError, TerminalError
from pylog.patterns import Bus, Retry, Saga
from pylog.patterns.saga_run import SagaRun


@pytest.fixture
def broker(tmp_path):
    with Broker(tmp_path / "data") as broker:
        yield broker


@pytest.fixture
def bus(broker):
    with Bus(broker, "events", num_partitions=3) as bus:
        yield bus


@pytest.fixture
def trip(broker):
    return Trip(broker)


def test_steps_are_done_in_order_and_their_results_returned(trip):
    assert trip.saga.run("ann", id="t-1") == {
        "flight": "flight of ann", "hotel": "hotel of ann", "car": "car of ann"}

    assert trip.calls == ["flight", "hotel", "car"]
    assert trip.history("t-1") == ["started", "step_completed flight", "step_completed hotel",
                                   "step_completed car", "completed"]


def test_same_id_is_the_same_saga(trip, broker):
    first = trip.saga.run("ann", id="t-1")

    assert trip.saga.run("ben", id="t-1") == first
    assert trip.saga.submit("cy", id="t-1").result() == first
    assert Trip(broker).saga.run("dan", id="t-1") == first
    assert trip.calls == ["flight", "hotel", "car"]
    assert trip.saga.run("ann") != trip.saga.run("ben")


def test_step_that_exits_has_failed_and_ends_nobody(trip):
    trip.fails("car", *[SystemExit(3)] * 3)
    with pytest.raises(SagaFailedError, match=r"SystemExit.*is undone"):
        trip.saga.run("ann", id="t-1")


def test_terminal_error_undoes_at_once_what_was_done_in_reverse_order(trip):
    refused = TerminalError("no car left")
    trip.fails("car", refused)

    with pytest.raises(SagaFailedError, match="no car left; what was done before is undone") \
            as caught:
        trip.saga.run("ann", id="t-1")

    assert trip.calls == ["flight", "hotel", "car",
                          ("no hotel", "hotel of ann"), ("no flight", "flight of ann")]
    error = caught.value
    assert (error.saga, error.step, error.reason, error.compensated, error.__cause__) == (
        "t-1", "car", "TerminalError: no car left", True, refused)
    assert trip.history("t-1")[3:] == [
        "step_failed car", "compensating car", "step_compensated hotel",
        "step_compensated flight", "compensated"]
    with pytest.raises(SagaFailedError, match="no car left"):
        trip.saga.run("ann", id="t-1")
    assert len(trip.calls) == 5


def test_other_errors_are_tried_again_then_undone(trip):
    trip.fails("hotel", OSError("down"), OSError("down"))
    trip.saga.run("ann", id="t-1")
    trip.fails("hotel", *[OSError("down for good")] * 3)

    with pytest.raises(SagaFailedError, match="OSError: down for good"):
        trip.saga.run("ben", id="t-2")

    assert trip.calls[:5] == ["flight", "hotel", "hotel", "hotel", "car"]
    assert trip.calls[5:] == ["flight", "hotel", "hotel", "hotel", ("no flight", "flight of ben")]
    assert [one.attempt for one in trip.saga.show("t-2") if one.attempt] == [1, 2, 3]


def test_compensation_that_fails_is_tried_again(trip):
    trip.fails("car", TerminalError("none"))
    trip.fails("no hotel", OSError(), OSError())

    with pytest.raises(SagaFailedError) as caught:
        trip.saga.run("ann")

    assert caught.value.compensated
    assert [one[0] for one in trip.calls[3:]] == ["no hotel"] * 3 + ["no flight"]


def test_compensation_that_goes_on_failing_parks_the_saga_until_it_is_retried(trip):
    trip.fails("car", TerminalError("none"))
    trip.fails("no hotel", *[OSError("down")] * 3)

    with pytest.raises(SagaFailedError, match="it is parked") as caught:
        trip.saga.run("ann", id="t-1")

    assert not caught.value.compensated
    [entry] = trip.saga.list("parked")
    assert (entry.id, entry.status, entry.step, entry.error, entry.pid) == (
        "t-1", "parked", "hotel", "OSError: down", None)
    assert trip.saga.resume() == 0, "it is not tried of itself"
    trip.saga.retry("t-1")
    assert trip.saga.list("parked") == []
    assert trip.saga.resume() == 1
    assert trip.saga.handle("t-1").status() == "compensated"
    assert [one[0] for one in trip.calls[3:]] == ["no hotel"] * 4 + ["no flight"]


def test_submitted_ones_are_executed_by_whoever_works(trip, broker):
    client = Saga(broker, "trip")
    handles = [client.submit(f"p{number}") for number in range(20)]
    assert {one.status() for one in handles} == {"submitted"}

    trip.saga.start()
    results = [one.result(10) for one in handles]
    trip.saga.stop()

    assert [one["car"] for one in results] == [f"car of p{number}" for number in range(20)]
    assert trip.saga.error is None


def test_steps_get_the_results_of_those_before_and_a_key_of_their_own(broker):
    seen = []
    saga = Saga(broker, "s")
    saga.step(lambda ctx, given: 7, name="first")
    saga.step(lambda ctx, given: seen.append(ctx), name="second")

    saga.run({"a": 1}, id="x")

    [ctx] = seen
    assert (ctx.id, ctx.step, ctx.attempt, ctx.idempotency_key) == ("x", "second", 1, "s/x/second")
    assert ctx.results["first"] == 7


# ---- death


def die_in_car(path):
    """A process that executes sagas, and dies in the step "car"."""
    die_in("car", path)


def die_in(step, path, **failures):
    def act():
        trip = Trip(Broker(path))
        trip.failures = failures
        called, trip.called = trip.called, lambda name, *result: (
            os._exit(0) if name == step else called(name, *result))
        trip.saga.work()

    os.waitpid(start(act), 0)


def test_what_a_dead_process_had_goes_on_where_it_was(broker):
    Saga(broker, "trip").submit("ann", id="t-1")
    die_in_car(broker.path)
    trip = Trip(broker)

    assert trip.saga.run("ann", id="t-1")["flight"] == "flight of ann"

    assert trip.calls == ["car"]
    assert trip.history("t-1").count("claimed") == 2


def test_step_that_kills_its_processes_is_given_up_and_undone_as_it_may_have_happened(broker):
    Saga(broker, "trip").submit("ann", id="t-1")
    for _ in range(3):
        die_in_car(broker.path)

    trip = Trip(broker, max_takeovers=2)
    with pytest.raises(SagaFailedError, match="3 processes died at it"):
        trip.saga.run("ann", id="t-1")

    assert trip.calls == [("no car", None), ("no hotel", "hotel of ann"),
                          ("no flight", "flight of ann")]


def test_compensation_that_kills_its_processes_parks_the_saga(broker):
    Saga(broker, "trip").submit("ann", id="t-1")
    for _ in range(3):
        die_in("no flight", broker.path, car=[TerminalError("none")])

    trip = Trip(broker, max_takeovers=2)
    with pytest.raises(SagaFailedError, match=r"3 processes died at it.*it is parked"):
        trip.saga.run("ann", id="t-1")

    assert trip.calls == []
    trip.saga.retry("t-1")
    trip.saga.resume()
    assert trip.calls == [("no flight", "flight of ann")]


def test_step_that_may_have_happened_is_undone_by_whoever_goes_on(broker):
    Saga(broker, "trip").submit("ann", id="t-1")
    die_in_car(broker.path)
    die_in("no car", broker.path, car=[TerminalError("none")])
    trip = Trip(broker)

    with pytest.raises(SagaFailedError):
        trip.saga.run("ann", id="t-1")

    assert trip.calls[0] == ("no car", None)


def test_what_could_not_be_released_is_taken_over_in_the_same_process(trip, monkeypatch):
    def fail(run):
        raise pylog.DiskFullError("full")

    trip.fails("hotel", KeyboardInterrupt())
    with monkeypatch.context() as patch:
        patch.setattr(SagaRun, "release", fail)
        with pytest.raises(KeyboardInterrupt):
            trip.saga.run("ann", id="t-1")

    assert trip.saga.run("ann", id="t-1")["car"] == "car of ann"


def test_run_that_is_interrupted_leaves_its_saga_to_the_next_with_a_doubt(trip):
    trip.fails("hotel", KeyboardInterrupt(), TerminalError("none"))
    with pytest.raises(KeyboardInterrupt):
        trip.saga.run("ann", id="t-1")

    with pytest.raises(SagaFailedError):
        trip.saga.run("ann", id="t-1")

    assert trip.calls == ["flight", "hotel", "hotel", ("no hotel", None),
                          ("no flight", "flight of ann")]


def test_run_that_is_stopped_says_so(broker):
    saga = nap_until_stopped(broker, on_nap=lambda: threading.Thread(target=saga.stop).start())

    with pytest.raises(pylog.IllegalStateError, match="was stopped while it was running"):
        saga.run("x", id="n-1")

    assert nap(broker, 0).run("x", id="n-1") == {"sleep": None}


def test_step_that_was_at_work_in_a_dead_process_is_undone_if_it_fails_then(broker):
    Saga(broker, "trip").submit("ann", id="t-1")
    die_in_car(broker.path)
    trip = Trip(broker)
    trip.fails("car", TerminalError("none"))

    with pytest.raises(SagaFailedError):
        trip.saga.run("ann", id="t-1")

    assert trip.calls[:2] == ["car", ("no car", None)]


def test_sagas_of_a_process_that_is_killed_are_taken_over_at_once(broker):
    def seconds(number):
        for one in range(5):
            Saga(broker, "nap").submit(one)
        pid = start(lambda: nap(Broker(broker.path)).work())
        saga = nap(broker, seconds=0)
        until(lambda: [one.pid for one in saga.list("running")] == [pid] * 5)
        with saga.start():
            kill(pid)
            begun = time.monotonic()
            until(lambda: not saga.list("running"))
            taken = time.monotonic() - begun
        assert len(saga.list("completed")) == 5 * (number + 1)
        return taken

    assert_once_below(0.5, seconds)


def test_run_takes_over_what_it_waits_for(broker):
    Saga(broker, "nap").submit("x", id="n-1")
    pid = start(lambda: nap(Broker(broker.path)).work())
    saga = nap(broker, seconds=0)
    until(lambda: saga.list("running"))
    threading.Timer(0.1, kill, [pid]).start()

    assert saga.run("x", id="n-1") == {"sleep": "x"}


# ---- what has its time, and where it is called


def test_coroutines_wait_all_at_once(broker):
    saga = nap(broker, seconds=0.1)
    for number in range(200):
        saga.submit(number)
    begun = time.monotonic()

    assert saga.resume() == 200
    assert time.monotonic() - begun < 15    # one after the other it is 20
    assert saga.run("x") == {"sleep": "x"}


@pytest.mark.parametrize("is_async", [False, True])
def test_attempt_that_takes_too_long_has_failed_and_may_have_happened(broker, is_async):
    saga, calls, end = Saga(broker, "s"), [], threading.Event()

    def wait(ctx, given):
        end.wait(10)
        return "too late"

    async def wait_async(ctx, given):
        await asyncio.sleep(10)

    step = saga.step(wait_async if is_async else wait, name="wait", timeout=0.03,
                     retry=Retry(attempts=2, backoff=0.001))
    step.compensate(lambda ctx, given, result: calls.append(result))

    with pytest.raises(SagaFailedError, match=r"'wait' has not been done within 0.03 s"):
        saga.run(1, id="x")

    end.set()
    assert [one.attempt for one in saga.show("x") if one.attempt] == [1, 2]
    assert calls == [None]


def test_functions_are_called_in_as_many_threads_as_was_said(broker):
    saga, inside, most, three = nap(broker, seconds=0.01), set(), [], threading.Event()

    @saga.step
    def work(ctx, given):
        inside.add(ctx.id)
        most.append(len(inside))
        if len(inside) == 3:
            three.set()
        three.wait(10)
        time.sleep(0.003)
        inside.discard(ctx.id)

    for number in range(30):
        saga.submit(number)

    assert saga.work(concurrency=3, idle=0) == 30
    assert max(most) == 3


def test_no_more_sagas_are_claimed_than_there_are_threads_for(broker):
    saga, end = Saga(broker, "s"), threading.Event()
    saga.step(lambda ctx, given: end.wait(10), name="wait")
    for number in range(10):
        saga.submit(number)

    with saga.start(concurrency=2):
        until(lambda: len(saga.list("running")) == 2)
        time.sleep(0.05)
        assert len(saga.list("running")) == 2
        end.set()
        until(lambda: len(saga.list("completed")) == 10)


def test_what_is_stopped_is_anybodys_after_the_functions_at_work(broker, bus):
    saga, is_in, end = shop(broker, bus), threading.Event(), threading.Event()

    @saga.step
    def last(ctx, given):
        is_in.set()
        end.wait(10)

    saga.submit({"total": 1}, id="waits")
    saga.start()
    until(lambda: saga.list("running"))
    saga.submit({"total": 2}, id="works")
    until(lambda: len(list(broker.read("events"))) == 2)
    bus.emit("saga.paymentProcessed.works", 2)
    is_in.wait(10)
    with pytest.raises(pylog.PylogTimeoutError, match="a step of 'checkout' has been at work"):
        saga.stop(0.02)
    end.set()
    saga.stop()

    assert {(one.id, one.status, one.pid) for one in saga.list()} == {
        ("waits", "running", None), ("works", "running", None)}
    assert saga.run({}, id="works") == {"charge": 2, "last": None}


def test_closing_the_broker_stops_it(tmp_path):
    with Broker(tmp_path) as broker:
        saga = nap_until_stopped(broker).start()
        handles = [saga.submit(number) for number in range(3)]
        until(lambda: len(saga.list("running")) == 3)
        handles.append(nap(broker).submit("never begun"))

    assert saga.error is None
    with Broker(tmp_path) as broker:
        assert nap(broker, 0).resume() == 4


def test_error_of_the_journal_ends_it_and_is_told(broker, caplog):
    saga = Trip(broker).saga.start()

    broker.delete_topic("saga.trip")
    until(lambda: saga.error)

    assert "is executed no more" in caplog.text


# ---- what is wrong


@pytest.mark.parametrize("result", [object(), math.nan, b"x"],
                         ids=["object", "nan", "bytes"])
def test_result_that_is_no_json_fails_the_step_which_may_have_happened(broker, result):
    saga, undone = Saga(broker, "s"), []
    saga.step(lambda ctx, given: result, name="bad").compensate(
        lambda ctx, given, result: undone.append(result))

    with pytest.raises(SagaFailedError, match="the step has returned what is no JSON"):
        saga.run(1)

    assert undone == [None]


def test_step_that_the_code_has_no_more_parks_the_saga(broker):
    trip = Trip(broker)
    trip.fails("car", TerminalError("none"))
    trip.fails("no hotel", TerminalError("park it"))
    with pytest.raises(SagaFailedError, match="park it"):
        trip.saga.run("ann", id="t-1")
    other = Saga(broker, "trip")
    other.step(lambda ctx, given: None, name="flight")

    other.retry("t-1")
    other.resume()

    [entry] = other.list()
    assert (entry.status, entry.step) == ("parked", "hotel")
    assert "no such step any more" in entry.error
    trip.saga.retry("t-1")
    trip.saga.resume()
    assert trip.saga.handle("t-1").status() == "compensated"


def test_input_that_cannot_be_read_parks_its_saga_and_stops_nobody(trip, broker):
    broker.append("saga.trip", b"no json", key=b"bad", headers=[("saga_event", b"started")])
    good = trip.saga.submit("ann")

    assert trip.saga.resume() == 2

    assert good.done()
    [entry] = trip.saga.list("parked")
    assert entry.id == "bad"
    assert entry.error.startswith("DeserializationError: ")


def test_what_is_stopped_at_once_has_stopped(trip):
    for _ in range(20):
        with trip.saga.start():
            pass
    assert trip.saga.error is None


def test_two_threads_execute_each_saga_once(trip):
    for number in range(200):
        trip.saga.submit(number)
    threads = [threading.Thread(target=trip.saga.resume) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(trip.saga.list("completed")) == 200
    assert len(trip.calls) == 600


def test_handle_says_what_it_waits_for(broker):
    handle = Saga(broker, "s").submit(1, id="x")

    with pytest.raises(pylog.PylogTimeoutError, match="is submitted after"):
        handle.result(0.01)
    assert not handle.done()


@pytest.mark.parametrize("ask", [
    lambda saga: saga.handle("none").status(), lambda saga: saga.show("none"),
    lambda saga: saga.retry("none"), lambda saga: saga.handle("none").result(0)])
def test_unknown_saga_is_an_error(broker, ask):
    with pytest.raises(pylog.UnknownSagaError, match="there is no saga 'none'"):
        ask(Saga(broker, "s"))


def test_only_what_is_parked_can_be_retried(trip):
    trip.saga.run("ann", id="t-1")

    with pytest.raises(pylog.IllegalStateError, match="'t-1' is completed"):
        trip.saga.retry("t-1")


def test_saga_is_forgotten_after_its_ttl(broker):
    trip = Trip(broker, ttl=1000)
    assert trip.saga.run("ann", id="x")["car"] == "car of ann"
    trip.later(1001)

    assert trip.saga.list() == []
    assert trip.saga.run("ben", id="x")["car"] == "car of ben"


def test_records_that_make_no_sense_are_skipped(trip, broker):
    for headers in ([], [("saga_event", b"what")], [("saga_event", b"claimed")],
                    [("saga_event", b"claimed"), ("saga_owner", b"1:2")],
                    [("saga_event", b"command_sent"), ("saga_ends", b"a,b")],
                    [("saga_event", b"started"), ("saga_owner", b"nobody")]):
        broker.append("saga.trip", b"x", key=b"t-1", headers=headers)

    assert trip.saga.run("ann", id="t-1")["car"] == "car of ann"
    for event in (b"started", b"what", b"claimed", b"command_sent"):
        broker.append("saga.trip", b"x", key=b"t-1", headers=[("saga_event", event)])
    assert trip.saga.handle("t-1").status() == "completed"


@pytest.mark.parametrize(("saga_id", "error"), [
    ("", pylog.ConfigurationError), ("a b", pylog.ConfigurationError),
    ("a..b", pylog.ConfigurationError), ("*", pylog.ConfigurationError),
    ("x" * 256, pylog.ConfigurationError), (17, TypeError), (b"x", TypeError)])
def test_what_is_no_id_is_refused(trip, saga_id, error):
    for ask in (trip.saga.submit, trip.saga.run):
        with pytest.raises(error, match="id"):
            ask("ann", id=saga_id)


@pytest.mark.parametrize(("make", "error", "message"), [
    (lambda saga: saga.step(3), TypeError, "must be callable"),
    (lambda saga: saga.step(print, name=3), TypeError, "name of a step"),
    (lambda saga: saga.step(print, name=""), pylog.ConfigurationError, "name"),
    (lambda saga: saga.step(print, name="flight"), pylog.ConfigurationError, "'flight'"),
    (lambda saga: saga.step(print, retry=3), TypeError, "retry"),
    (lambda saga: saga.step(print, retry=Retry(mode="park")), pylog.ConfigurationError, "inline"),
    (lambda saga: saga.work(idle=float("nan")), pylog.ConfigurationError, "idle=nan"),
    (lambda saga: saga.step(print, timeout="1"), TypeError, "timeout"),
    (lambda saga: saga.step(print).compensate(lambda ctx: 1), TypeError, "with 3 arguments"),
    (lambda saga: saga.command("x", "events", "a", reply="b"), TypeError, "must be a Bus"),
    (lambda saga: saga.list("done"), pylog.ConfigurationError, "status='done' is unknown"),
    (lambda saga: saga.work(concurrency=0), pylog.ConfigurationError, "concurrency"),
    (lambda saga: saga.work(in_flight="2"), TypeError, "in_flight"),
    (lambda saga: saga.submit(object()), pylog.SerializationError, "cannot make bytes"),
    (lambda saga: (saga.run("ann"), saga.step(print)), pylog.IllegalStateError, "has begun")])
def test_bad_use_is_refused(trip, make, error, message):
    with pytest.raises(error, match=message):
        make(trip.saga)


def test_second_compensation_of_a_step_is_refused(broker):
    step = Saga(broker, "s").step(print)
    step.compensate(print)

    with pytest.raises(pylog.ConfigurationError, match="has a compensation already"):
        step.compensate(print)


def test_bus_of_another_broker_and_types_that_are_none_are_refused(broker, bus, tmp_path):
    saga = Saga(broker, "s")
    with Bus(tmp_path / "other") as other, pytest.raises(pylog.ConfigurationError, match="one bro"):
        saga.command("x", other, "a", reply="b")
    for types in ({"kind": "a.*", "reply": "b"}, {"kind": "a", "reply": ""},
                  {"kind": "a", "reply": "b", "failed": "c d"}):
        with pytest.raises(pylog.ConfigurationError):
            saga.command("x", bus, **types)


@pytest.mark.parametrize(("options", "error"), [
    ({"name": 3}, TypeError), *[({"name": one}, pylog.InvalidTopicError) for one in ("a/b", "")],
    ({"ttl": -1}, pylog.ConfigurationError), ({"max_takeovers": 0}, pylog.ConfigurationError),
    ({"value": "xml"}, pylog.ConfigurationError)])
def test_bad_options_are_refused(broker, options, error):
    with pytest.raises(error):
        Saga(broker, **{"name": "s", **options})


def test_saga_without_steps_is_executed_by_nobody(broker):
    saga = Saga(broker, "s")
    saga.submit(1)

    for execute in (saga.work, saga.start, saga.resume, lambda: saga.run(1)):
        with pytest.raises(pylog.IllegalStateError, match="no steps here"):
            execute()


def test_saga_of_a_path_closes_its_broker(tmp_path):
    with Saga(tmp_path, "s", value=None) as saga:
        saga.step(lambda ctx, given: given.decode(), name="only")
        assert saga.run(b"bytes") == {"only": "bytes"}

    with pytest.raises(pylog.ClosedError):
        saga.list()
