"""Sagas whose orchestrators are stopped (SIGSTOP), beyond any of their times: nobody takes over
while they live, and what they do when they go on is recorded once.
"""

import os
import signal
import time

import pytest
from parties import Diary, Party, Signal
from test_saga_kills import Play
from waiting import until

import pylog
from pylog.patterns import Bus, Saga

ENDED = ("completed", "compensated", "parked")
STEPS = ["reserve", "charge", "ship"]


def judge(history):
    """What the journal says of one saga, [(event, step)], is what one owner at a time would do."""
    events = [event for event, _ in history]
    assert [event for event in events if event in ENDED] == events[-1:], history
    done = [step for event, step in history if event == "step_completed"]
    undone = [step for event, step in history if event == "step_compensated"]
    assert done == STEPS[:len(done)], history
    assert len(set(undone)) == len(undone), history
    if events[-1] == "completed":
        assert (done, undone) == (STEPS, []), history
    if "compensating" in events:
        assert "step_completed" not in events[events.index("compensating"):], history
    if events[-1] == "compensated":
        assert set(done[:2]) <= set(undone), history


def history_of(saga, saga_id):
    return [(one.event, one.step) for one in saga.show(saga_id)]


@pytest.mark.parametrize("how", ["function", "limited", "coroutine", "command"])
@pytest.mark.parametrize("goes_on", [True, False], ids=["goes-on", "killed"])
def test_who_is_stopped_keeps_its_saga_and_records_each_step_once(tmp_path, how, goes_on):
    data, diary, over = tmp_path / "data", Diary(tmp_path / "diary"), Signal(tmp_path / "over")

    def make(broker, bus):
        saga = Saga(broker, "trip")

        def book(ctx, order):
            diary.write(ctx.attempt)
            time.sleep(0.1)
            return "booked"

        async def book_async(ctx, order):
            return book(ctx, order)

        if how == "command":
            saga.command("book", bus, "book", reply="booked", timeout=0.2)
        else:
            saga.step(book_async if how == "coroutine" else book, name="book",
                      timeout=None if how == "function" else 0.3)
        saga.step(lambda ctx, order: ctx.results["book"], name="tell")
        return saga

    def work():
        with pylog.Broker(data) as broker, Bus(broker, "shop") as bus, make(broker, bus).start():
            over.wait()

    with pylog.Broker(data) as broker:
        Bus(broker, "shop").close()
    first = Party(work)
    with pylog.Broker(data) as broker, Bus(broker, "shop") as bus, make(broker, bus) as saga:
        handle = saga.submit({"n": 1}, id="one")
        until(lambda: diary.lines() or list(broker.read("shop")))
        first.pause()
        late = history_of(saga, "one").count(("step_failed", "book"))    # before it was stopped
        bus.emit("booked.one", "booked")
        with saga.start():
            time.sleep(0.5)
            if handle.status() != "completed":    # it was done before the signal
                assert (handle.status(), saga.list()[0].pid) == ("running", first.pid)
            os.kill(first.pid, signal.SIGCONT if goes_on else signal.SIGKILL)
            until(lambda: handle.status() in ENDED)
        history = history_of(saga, "one")
    over.give()
    os.waitpid(first.pid, 0)

    failed = history.count(("step_failed", "book"))    # its time was over, and it was tried again
    assert failed == late or how in ("limited", "coroutine")
    assert [one for one in history if one[0] not in ("claimed", "command_sent", "step_failed")] == [
        ("started", None), ("step_completed", "book"), ("step_completed", "tell"),
        ("completed", None)]
    if goes_on:
        assert len(diary.lines()) == (how != "command") * (1 + failed)


class Stopped(Play):
    """With times that are over while who executes is stopped."""

    TIMEOUT = 0.1


@pytest.mark.slow
def test_stopped_and_killed_ones_record_no_step_twice(tmp_path, rng):
    play = Stopped(tmp_path)
    clients = Party(play.submit, 300)
    parties = [Party(play.orchestrate), Party(play.orchestrate), Party(play.pay)]
    for _ in range(20):
        party = rng.choice(parties)
        os.kill(party.pid, signal.SIGSTOP)
        time.sleep(rng.uniform(0, 0.3))
        if rng.random() < 0.3:
            party.kill()
            party.start()
        else:
            os.kill(party.pid, signal.SIGCONT)
        time.sleep(rng.uniform(0, 0.05))
    play.clients_end.give()
    clients.wait()
    ended, _ = play.outcome(parties)

    with pylog.Broker(play.data) as broker:
        saga = play.saga(broker, None)
        for saga_id in ended:
            judge(history_of(saga, saga_id))
    assert set(play.submitted.lines()) <= set(ended)
    assert "compensated" in ended.values()    # where all is slow none may be completed in time
