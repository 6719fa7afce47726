"""Saga: all steps, or all undone, in whatever process; each step's result is kept."""

import threading
import time

import pytest
from children import killed
from waiting import until

from pylog import Broker, ConfigurationError, SagaFailedError, TerminalError
from pylog.patterns import Bus, Retry, Saga, serve

QUICK = Retry(attempts=3, backoff=0.001)


@pytest.fixture
def broker(tmp_path):
    with Broker(tmp_path / "data") as broker:
        yield broker


class Trip:
    """A saga of three steps; `calls` has what was called, `failures` how a step fails, one by one,
    before it goes well."""

    STEPS = ("flight", "hotel", "car")

    def __init__(self, broker, retry=QUICK, **options):
        self.saga = Saga(broker, "trip", **options)
        self.calls = []
        self.failures = {}
        for name in self.STEPS:
            self.saga.step(self.does(name), name=name, retry=retry).compensate(
                self.undoes(name), retry=retry)

    def does(self, name):
        def do(ctx, traveller):
            self.called(name)
            return f"{name} of {traveller}"
        return do

    def undoes(self, name):
        def undo(ctx, traveller, result):
            self.called(f"no {name}", result)
        return undo

    def called(self, name, *result):
        self.calls.append((name, *result) if result else name)
        if errors := self.failures.get(name):
            raise errors.pop(0)

    def fails(self, name, *errors):
        self.failures[name] = list(errors)

    def history(self, saga):
        return [one.event if one.step is None else f"{one.event} {one.step}"
                for one in self.saga.show(saga)]


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


# ---- commands and their answers


@pytest.fixture
def bus(broker):
    with Bus(broker, "events", num_partitions=3) as bus:
        yield bus


class Payments:
    """A service that takes payments, each once, and gives them back."""

    def __init__(self, bus):
        self.log = []

        @serve(bus, "saga.processPayment", reply="saga.paymentProcessed",
               failed="saga.paymentFailed", group="payments")
        def charge(event):
            if event.data["total"] > 100:
                raise TerminalError("card refused")
            self.log.append((event.id, event.data["total"]))
            return {"receipt": len(self.log)}

        @serve(bus, "saga.refundPayment", reply="saga.paymentRefunded", group="payments")
        def refund(event):
            self.log.append((event.id, event.data["result"]))

        bus.start()


def shop(broker, bus, **options):
    saga = Saga(broker, "checkout")
    saga.command("charge", bus, "saga.processPayment", reply="saga.paymentProcessed",
                 failed="saga.paymentFailed", compensate="saga.refundPayment", **options)
    return saga


def test_command_is_sent_and_its_answer_is_the_result(broker, bus):
    payments = Payments(bus)
    saga = shop(broker, bus)

    assert saga.run({"total": 12}, id="o-1") == {"charge": {"receipt": 1}}

    assert payments.log == [("checkout/o-1/charge", 12)]
    kinds = sorted(record.header("ce_type") for record in broker.read("events"))
    assert kinds == [b"saga.paymentProcessed.o-1", b"saga.processPayment"]


def test_a_step_cannot_be_parked(broker):
    with pytest.raises(ConfigurationError, match="use mode='inline'"):
        Saga(broker, "trip").step(print, name="flight", retry=Retry(mode="park"))


def test_command_that_is_refused_fails_the_saga_with_the_reason(broker, bus):
    Payments(bus)

    with pytest.raises(SagaFailedError, match="TerminalError: card refused"):
        shop(broker, bus).run({"total": 101})


def test_command_is_undone_by_another_with_its_result(broker, bus):
    payments = Payments(bus)
    saga = shop(broker, bus, compensated="saga.paymentRefunded")

    @saga.step
    def pack(ctx, order):
        raise TerminalError("nothing left")

    with pytest.raises(SagaFailedError, match="nothing left"):
        saga.run({"total": 12}, id="o-1")

    assert payments.log == [("checkout/o-1/charge", 12),
                            ("checkout/o-1/charge/undo", {"receipt": 1})]


def test_command_without_an_answer_in_time_is_undone_without_a_result(broker, bus):
    saga = shop(broker, bus, timeout=0.05)
    with pytest.raises(SagaFailedError, match=r"'charge' has not been done within 0.05 s"):
        saga.run({"total": 12}, id="o-1")

    payments = Payments(bus)    # it comes too late, and gets both in order

    until(lambda: len(payments.log) == 2)
    assert payments.log == [("checkout/o-1/charge", 12), ("checkout/o-1/charge/undo", None)]


def test_sagas_that_wait_for_answers_hold_no_thread(broker, bus):
    saga = shop(broker, bus)
    saga.start()
    handles = [saga.submit({"total": 1}) for _ in range(300)]
    until(lambda: sum(one.status == "running" for one in saga.list()) == 300)
    assert threading.active_count() < 20

    payments = Payments(bus)
    receipts = {one.result(20)["charge"]["receipt"] for one in handles}
    saga.stop()

    assert receipts == set(range(1, 301))
    assert len(payments.log) == 300


def test_answer_that_came_while_the_orchestrator_was_dead_is_found(broker, bus):
    def act():
        other = Broker(broker.path)
        events = Bus(other, "events")
        saga = shop(other, events)
        saga.submit({"total": 12}, id="o-1")
        saga.start()
        until(lambda: saga.handle("o-1").status() == "running")
        until(lambda: list(other.read("events")))
        return other, saga

    killed(act)
    bus.emit("saga.paymentProcessed.o-1", {"receipt": 7})
    bus.emit("unrelated", None)

    saga = shop(broker, bus)
    assert saga.run({"total": 12}, id="o-1") == {"charge": {"receipt": 7}}


# ---- death


def test_what_a_dead_process_had_goes_on_where_it_was(broker, tmp_path):
    def act():
        other = Broker(broker.path)
        trip = Trip(other)
        trip.saga.submit("ann", id="t-1")
        trip.fails("car", *[OSError("away")] * 2)
        trip.called = lambda name, *result: time.sleep(60) if name == "car" else None
        trip.saga.start()
        until(lambda: "step_completed hotel" in trip.history("t-1"))
        return other, trip

    killed(act)
    trip = Trip(broker)
    assert trip.saga.run("ann", id="t-1")["flight"] == "flight of ann"

    assert trip.calls == ["car"]
    assert trip.history("t-1").count("claimed") == 2
