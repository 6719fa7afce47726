"""Commands of sagas: services that are asked on a bus, and how their answers are found."""

import threading
import time

import pytest
from children import killed
from trips import Payments, shop
from waiting import until

import pylog
from pylog import Broker, SagaFailedError, TerminalError
from pylog.patterns import Bus, Retry, Saga, serve


@pytest.fixture
def broker(tmp_path):
    with Broker(tmp_path / "data") as broker:
        yield broker


@pytest.fixture
def bus(broker):
    with Bus(broker, "events", num_partitions=3) as bus:
        yield bus


async def later(ctx, given):
    return {}


def commands(broker):
    """The ids of those that were sent."""
    return [one.header("ce_id") for one in broker.read("events")
            if one.header("ce_type") == b"saga.processPayment"]


def test_command_is_sent_and_its_answer_is_the_result(broker, bus):
    payments = Payments(bus)
    saga = shop(broker, bus)

    assert saga.run({"total": 12}, id="o-1") == {"charge": {"receipt": 1}}

    assert payments.log == [("checkout/o-1/charge", 12)]
    kinds = sorted(record.header("ce_type") for record in broker.read("events"))
    assert kinds == [b"saga.paymentProcessed.o-1", b"saga.processPayment"]


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


def test_answer_that_is_there_counts_though_nobody_looked_within_its_time(broker, bus):
    """The thread was in another saga's step, as it might have been stopped."""
    saga = Saga(broker, "checkout")

    @saga.step
    def think(ctx, order):
        if order["is_slow"]:
            until(lambda: any(record.header("ce_type") == b"paid.quick"
                              for record in broker.read("events")))
            time.sleep(0.2)
            raise TerminalError("and this one is over, lest it asks for an answer in its time")

    saga.command("charge", bus, "pay", reply="paid", timeout=0.1)
    quick = saga.submit({"is_slow": False}, id="quick")
    slow = saga.submit({"is_slow": True}, id="slow")
    serve(bus, "pay", reply="paid", group="payments")(lambda event: "paid")
    bus.start()
    with saga.start():
        assert quick.result(20)["charge"] == "paid"
        with pytest.raises(SagaFailedError, match="this one is over"):
            slow.result(20)


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
    assert len(commands(broker)) == 1    # it is not sent again


def test_command_that_nobody_answered_is_sent_again_by_whoever_takes_over(broker, bus):
    def act():
        other = Broker(broker.path)
        saga = shop(other, Bus(other, "events"))
        handles = [saga.submit({"total": 12}, id=f"o-{number}") for number in range(40)]
        saga.start()
        until(lambda: len(commands(other)) == 40)
        return saga, handles

    killed(act)
    for number in range(0, 40, 2):
        bus.emit(f"saga.paymentProcessed.o-{number}", number)
    pylog.Admin(broker).create_partitions({"events": 4})
    broker.append("events", b"1", partition=3, headers=[
        ("ce_type", b"saga.paymentProcessed.o-1"), ("ce_specversion", b"1.0")])

    saga = shop(broker, bus)
    saga.start()
    until(lambda: len(commands(broker)) >= 59)
    for number in range(3, 40, 2):
        bus.emit(f"saga.paymentProcessed.o-{number}", number)

    assert [saga.handle(f"o-{number}").result(20)["charge"] for number in range(40)] == [*range(40)]
    assert sorted(commands(broker)[40:]) == sorted(
        f"checkout/o-{number}/charge".encode() for number in range(3, 40, 2))
    saga.stop()


def test_command_is_sent_again_with_the_same_id(broker, bus):
    saga = shop(broker, bus, timeout=0.05, retry=Retry(attempts=100, backoff=0.05))
    saga.start()
    handle = saga.submit({"total": 12}, id="o-1")
    until(lambda: len(commands(broker)) >= 2)

    bus.emit("saga.paymentProcessed.o-1", "at last")

    assert handle.result(10) == {"charge": "at last"}
    assert {*commands(broker)} == {b"checkout/o-1/charge"}
    saga.stop()


def test_answer_between_two_attempts_counts(broker, bus):
    def answer(failed):
        bus.emit("saga.paymentProcessed.o-1", "late")    # while it waits for its next attempt
        return 0.05

    saga = shop(broker, bus, timeout=0.05, retry=Retry(attempts=3, backoff=answer))
    saga.start()
    handle = saga.submit({"total": 12}, id="o-1")

    assert handle.result(10) == {"charge": "late"}
    assert "step_failed" in [one.event for one in saga.show("o-1")]
    assert commands(broker) == [b"checkout/o-1/charge"]    # it is not sent again
    saga.stop()


@pytest.mark.parametrize(("timeout", "error"), [
    ("x", TypeError), (-1, pylog.ConfigurationError), (float("nan"), pylog.ConfigurationError)])
def test_what_is_no_time_to_wait_for_a_result_is_refused(broker, bus, timeout, error):
    with pytest.raises(error, match="timeout"):
        shop(broker, bus).submit({"total": 1}).result(timeout)


def test_data_of_a_command_are_what_was_said(broker, bus):
    saga = shop(broker, bus, data=lambda ctx, order: {"total": order, "as": ctx.step}, timeout=0)
    with pytest.raises(SagaFailedError):
        saga.run(12, id="o-1")

    do, undo = (bus.event(one).data for one in broker.read("events"))
    assert do == {"total": 12, "as": "charge", "sagaId": "o-1"}
    assert undo == {**do, "result": None}
    with pytest.raises(SagaFailedError, match="the data of a command is a dict, not int"):
        shop(broker, bus, name="other").run(12)


@pytest.mark.parametrize(("options", "error", "words"), [
    ({"failed": "b"}, pylog.ConfigurationError, "failed='b' is the reply too"),
    ({"compensated": "c"}, pylog.ConfigurationError, "compensated='c' answers nothing"),
    ({"data": 5}, TypeError, "must be callable"),
    ({"data": lambda: 1}, TypeError, "with 2 arguments"),
    ({"data": later}, TypeError, "no `async def`"),
])
def test_command_that_cannot_be_is_refused_where_it_is_declared(broker, bus, options, error, words):
    with pytest.raises(error, match=words):
        Saga(broker, "s").command("x", bus, "a", reply="b", **options)


@pytest.mark.parametrize(("options", "error", "words"), [
    ({"command": "a.*"}, pylog.ConfigurationError, "name one type"),
    ({"command": ""}, pylog.ConfigurationError, "cannot be ''"),
    ({"reply": "b.*"}, pylog.ConfigurationError, "name one type"),
    ({"reply": None}, TypeError, "must be a str"),
    ({"failed": "c d"}, pylog.ConfigurationError, "'c d'"),
    ({"failed": "b"}, pylog.ConfigurationError, "failed='b' is the reply too"),
    ({"bus": "events"}, TypeError, "must be a Bus"),
    ({"function": 5}, TypeError, "must be callable"),
    ({"function": lambda: 1}, TypeError, "with 1 argument"),
])
def test_service_that_cannot_be_is_refused_where_it_is_declared(bus, options, error, words):
    with pytest.raises(error, match=words):
        serve(**{"bus": bus, "command": "a", "function": print, "reply": "b", "group": "g",
                 **options})


def test_service_that_is_a_coroutine_and_one_without_a_refusal(broker, bus):
    @serve(bus, "saga.processPayment", reply="saga.paymentProcessed", group="payments")
    async def charge(event):
        if event.data["total"] > 100:
            raise TerminalError("nobody hears this")
        return event.data["total"]

    bus.start()
    assert shop(broker, bus).run({"total": 3}) == {"charge": 3}
    with pytest.raises(SagaFailedError, match="has not been done within"):
        shop(broker, bus, name="quick", timeout=0.1).run({"total": 101})


@pytest.mark.slow
def test_answer_in_a_partition_that_was_added_is_heard(broker, bus):
    saga = shop(broker, bus)
    with saga.start():
        handle = saga.submit({"total": 12}, id="o-1")
        until(lambda: list(broker.read("events")))
        pylog.Admin(broker).create_partitions({"events": 4})
        broker.append("events", b'"there"', partition=3, headers=[
            ("ce_type", b"saga.paymentProcessed.o-1"), ("ce_specversion", b"1.0")])
        assert handle.result(10) == {"charge": "there"}


def test_bus_that_is_closed_ends_the_work_and_fails_no_saga(broker):
    bus = Bus(broker, "events")
    saga = shop(broker, bus)
    handle = saga.submit({"total": 1})
    bus.close()

    with pytest.raises(pylog.ClosedError):
        saga.resume()

    assert handle.status() == "running"


@pytest.mark.parametrize("kind", ["thread", "coroutine", "with a timeout"])
def test_step_may_stop_its_saga_wherever_it_is_called(broker, kind):
    saga, asked = Saga(broker, "stopping"), threading.Event()

    def stop(ctx, given):
        saga.stop()
        asked.set()

    async def stop_in_loop(ctx, given):
        stop(ctx, given)

    saga.step(stop_in_loop if kind == "coroutine" else stop, name="stop",
              timeout=10 if kind == "with a timeout" else None)
    saga.start(concurrency=2 if kind == "thread" else 1)
    saga.submit(1, id="s-1")
    assert asked.wait(20)
    until(lambda: not saga._thread.is_alive())


def test_results_are_the_same_before_and_after_a_crash(broker):
    saga = Saga(broker, "pure")
    saga.step(lambda ctx, given: {1: ("a",)}, name="make")
    saga.step(lambda ctx, given: ctx.results["make"]["1"], name="use")

    assert saga.run(1, id="p-1") == {"make": {"1": ["a"]}, "use": ["a"]}
    assert saga.handle("p-1").result() == saga.run(1, id="p-1")
