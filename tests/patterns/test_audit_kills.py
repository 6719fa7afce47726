"""An audit trail of processes that are killed: its chain is unbroken, each entry whose recording
returned is there once, and each event of the bus is one entry."""

import json
import time
from collections import Counter

import pytest
from parties import Diary, Party, Signal, kill_at_random
from waiting import until

from pylog import Broker
from pylog.patterns import Audit, Bus


class Play:
    """Three who record, one who emits, two who feed."""

    def __init__(self, place):
        self.data = place / "data"
        self.recorded, self.end = Diary(place / "recorded"), Signal(place / "end")
        with Broker(self.data) as broker:
            Audit(broker)
            broker.create_topic("shop", 2)

    def record(self, number):
        with Audit(self.data) as trail:
            run, count = f"{number}-{time.monotonic_ns()}", 0
            while not self.end.is_given:
                count += 1
                if count % 4:
                    trail.record(actor="one", action="a", target=f"{run}-{count}")
                    self.recorded.write(f"{run}-{count}")
                else:
                    names = [f"{run}-{count}-{n}" for n in range(5)]
                    trail.record_many([{"actor": "many", "action": "a", "target": one}
                                       for one in names])
                    self.recorded.write("\n".join(names))
                time.sleep(0.0005)

    def emit(self):
        with Bus(self.data, "shop") as bus:
            run, count = time.monotonic_ns(), 0
            while not self.end.is_given:
                count += 1
                bus.emit("user.login", f"{run}-{count}", key=str(count))
                time.sleep(0.001)

    def feed(self):
        with Audit(self.data) as trail:
            with trail.feed("shop", "user.*"):
                self.end.wait()


def survive(place, rng, rounds):
    play = Play(place)
    parties = [*(Party(play.record, number) for number in range(3)), Party(play.emit),
               Party(play.feed), Party(play.feed)]
    until(lambda: len(play.recorded.lines()) > 10)
    kill_at_random(parties, rng, rounds)
    play.end.give()
    for party in parties:
        party.wait()

    with Broker(play.data) as broker:
        trail = Audit(broker)
        events = [json.loads(record.value) for record in broker.read("shop")]
        with trail.feed("shop", "user.*"):
            until(lambda: sum(1 for _ in trail.query(actor="shop")) >= len(events), 60)
        entries = list(trail.query())

        assert trail.verify(head=trail.head()) is None
    targets = Counter(one.target for one in entries if one.actor != "shop")
    assert set(play.recorded.lines()) <= targets.keys()
    assert set(targets.values()) == {1}
    assert Counter(one.after for one in entries if one.actor == "shop") == Counter(events)
    assert len(events) > rounds < len(targets)
    batches = Counter(one.rpartition("-")[0] for one in targets if one.count("-") == 3)
    assert set(batches.values()) == {5}, "a batch is there in part"


@pytest.mark.slow
def test_killed_recorders_and_feeds_leave_the_chain_unbroken(tmp_path, rng):
    survive(tmp_path, rng, 20)


@pytest.mark.soak
def test_recorders_and_feeds_killed_hundreds_of_times_leave_the_chain_unbroken(tmp_path, rng):
    survive(tmp_path, rng, 400)
