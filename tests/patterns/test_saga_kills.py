"""Sagas whose orchestrators, services and clients are killed: each is completed with all effects,
or compensated with all of them undone, or parked and listed. The diaries are the outside world:
what has an effect writes a line there, and does not keep it from being done again under its key.
"""

import time
from collections import Counter

import pytest
from parties import Diary, Party, Signal, kill_at_random
from waiting import until

import pylog
from pylog import TerminalError
from pylog.patterns import Bus, Retry, Saga, serve

QUICK = Retry(attempts=None, backoff=0.001)


def is_refused(number):
    """By the service, or by the last step; or its first step cannot be undone."""
    return {0: "charge", 1: "ship", 2: "release"}.get(number % 7)


class Play:
    """Clients that submit orders; orchestrators; and payments, a service on a bus.

    A line of a diary: what was done, the idempotency key, and when.
    """

    TIMEOUT = 30

    def __init__(self, place):
        self.data = place / "data"
        self.submitted, self.world = Diary(place / "submitted"), Diary(place / "world")
        self.clients_end, self.all_end = Signal(place / "enough"), Signal(place / "end")
        with pylog.Broker(self.data) as broker:
            broker.create_topic("shop", 2)
            self.saga(broker, None)

    def note(self, what, key):
        self.world.write(f"{what} {key} {time.monotonic_ns()}")

    def submit(self, most):
        with Saga(self.data, "checkout") as saga:
            run = time.monotonic_ns()
            for number in range(most):
                if self.clients_end.is_given:
                    break
                saga.submit({"n": number}, id=f"{run}-{number}")
                self.submitted.write(f"{run}-{number}")
                time.sleep(0.001)

    def pay(self):
        with Bus(self.data, "shop") as bus:
            @serve(bus, "pay", reply="paid", failed="refused", group="payments", retry=QUICK)
            def pay(event):
                if is_refused(event.data["n"]) == "charge":
                    raise TerminalError("no money")
                self.note("charge", event.id)
                return "receipt"

            @serve(bus, "refund", reply="refunded", group="payments", retry=QUICK)
            def refund(event):
                self.note("refund", event.id.removesuffix("/undo"))

            bus.start()
            self.all_end.wait()

    def saga(self, broker, bus):
        saga = Saga(broker, "checkout", max_takeovers=1000)
        if bus is None:
            return saga

        @saga.step(retry=QUICK)
        def reserve(ctx, order):
            self.note("reserve", ctx.idempotency_key)
            if order["n"] % 5 == 0 and ctx.attempt == 1:
                raise OSError("once more")
            return order["n"]

        @reserve.compensate(retry=QUICK)
        def release(ctx, order, result):
            if is_refused(order["n"]) == "release":
                raise TerminalError("nobody can undo this")
            assert result in (order["n"], None)
            self.note("release", ctx.idempotency_key.removesuffix("/undo"))

        saga.command("charge", bus, "pay", reply="paid", failed="refused", compensate="refund",
                     compensated="refunded", timeout=self.TIMEOUT)

        @saga.step(retry=QUICK, timeout=self.TIMEOUT)
        async def ship(ctx, order):
            assert ctx.results == {"reserve": order["n"], "charge": "receipt"}
            if is_refused(order["n"]) in ("ship", "release"):
                raise TerminalError("no truck")
            self.note("ship", ctx.idempotency_key)

        return saga

    def orchestrate(self):
        with pylog.Broker(self.data) as broker, Bus(broker, "shop") as bus:
            with self.saga(broker, bus).start(concurrency=2):
                self.all_end.wait()

    def outcome(self, parties):
        """How each saga has ended, by its id; when each effect was had first and last."""
        with pylog.Broker(self.data) as broker:
            saga = self.saga(broker, None)
            until(lambda: all(one.status in ("completed", "compensated", "parked")
                              for one in saga.list()), 60)
            self.all_end.give()
            for party in parties:
                party.wait()
            ended = {one.id: one.status for one in saga.list()}
        effects = {}
        for what, key, when in map(str.split, self.world.lines()):
            first, _ = effects.setdefault((what, key.split("/")[1]), (int(when), 0))
            effects[what, key.split("/")[1]] = first, int(when)
        return ended, effects


def judge(ended, effects):
    for saga, status in ended.items():
        def first(what, saga=saga):
            return effects.get((what, saga), (0, 0))[0]

        def last(what, saga=saga):
            return effects.get((what, saga), (0, 0))[1]

        refused = is_refused(int(saga.partition("-")[2]))
        expected = {None: "completed", "release": "parked"}.get(refused, "compensated")
        assert status == expected, saga
        if status == "completed":
            assert 0 < first("reserve") < first("charge") < first("ship"), f"{saga}: not all done"
            assert last("release") == last("refund") == 0, f"{saga}: undone"
        else:
            assert not first("ship"), saga
            assert (first("charge") > 0) == (refused != "charge"), saga
            assert last("refund") >= last("charge"), f"{saga}: the money is not given back"
            assert (last("release") > last("reserve")) == (status == "compensated"), saga


def survive(place, rng, rounds):
    play = Play(place)
    parties = [Party(play.orchestrate), Party(play.orchestrate), Party(play.pay), Party(play.pay),
               Party(play.submit, 10**9)]
    until(lambda: len(play.world.lines()) > 20)
    kill_at_random(parties, rng, rounds)
    play.clients_end.give()
    parties.pop().wait()

    ended, effects = play.outcome(parties)

    print(f"{Counter(ended.values())}, {len(effects)} effects")
    assert set(play.submitted.lines()) <= set(ended)
    assert len(ended) > 5 * rounds, "hardly anything was done"
    judge(ended, effects)


@pytest.mark.slow
def test_killed_orchestrators_services_and_clients_leave_each_saga_done_or_undone(tmp_path, rng):
    survive(tmp_path, rng, 20)


@pytest.mark.soak
def test_hundreds_of_kills_leave_each_saga_done_or_undone(tmp_path, rng):
    survive(tmp_path, rng, 400)
