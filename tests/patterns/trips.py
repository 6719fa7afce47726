"""Sagas for tests: a trip of three steps, and a shop whose payments are a service on a bus."""

import asyncio
import time

from pylog import TerminalError
from pylog.patterns import Retry, Saga, serve

QUICK = Retry(attempts=3, backoff=0.001)


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

    def later(self, seconds):
        """As if so much time had passed since what was written."""
        journal = self.saga._journal
        journal._clock = journal.state._clock = lambda: time.time() + seconds
        journal._keep_at = 0.0

    def history(self, saga):
        return [one.event if one.step is None else f"{one.event} {one.step}"
                for one in self.saga.show(saga)]


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


def shop(broker, bus, name="checkout", **options):
    saga = Saga(broker, name)
    saga.command("charge", bus, "saga.processPayment", reply="saga.paymentProcessed",
                 failed="saga.paymentFailed", compensate="saga.refundPayment", **options)
    return saga


def nap(broker, seconds=60.0):
    """A saga whose step takes its time."""
    saga = Saga(broker, "nap")

    @saga.step
    async def sleep(ctx, given):
        await asyncio.sleep(seconds)
        return given

    return saga


def nap_until_stopped(broker, on_nap=lambda: None):
    """The same, whose step takes until its saga is to stop; on_nap: is called at its beginning."""
    saga = Saga(broker, "nap")

    @saga.step
    async def sleep(ctx, given):
        on_nap()
        while not any(one._is_stopping for one in saga._orchestrators):
            await asyncio.sleep(0.005)

    return saga
