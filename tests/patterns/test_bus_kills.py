"""A bus in several processes, some of which are killed: each durable handler has, or its dead
letters have, each event at least once, and exactly once where nobody was killed."""

import contextlib
import time
from collections import Counter

import pytest
from parties import Diary, Party, Signal, kill_at_random
from waiting import until

import pylog
from pylog.patterns import Bus, DeadLetters

PARTITIONS = 2
TYPES = ("order.paid", "order.sent", "user.created")
# group: the patterns of its handlers, which are called by them; each fails on its own numbers.
GROUPS = {"shop": ("order.*", "**"), "audit": ("**",)}


def fails(name, number):
    return number % (5 if name == "**" else 7) == 0


def wants(name, kind):
    return name == "**" or kind.startswith("order.")


class Play:
    """A bus, whoever emits, two processes of the group "shop" and one of "audit"."""

    def __init__(self, place):
        self.data = place / "data"
        self.emitted, self.ready = Diary(place / "emitted"), Diary(place / "ready")
        self.handled = Diary(place / "handled")
        self.emitters_end, self.all_end = Signal(place / "enough"), Signal(place / "end")
        with pylog.Broker(self.data) as broker:
            broker.create_topic("shop", PARTITIONS)

    def emit(self, most):
        with Bus(self.data, "shop") as bus:
            run = time.monotonic_ns()
            for number in range(most):
                if self.emitters_end.is_given:
                    break
                bus.emit(TYPES[number % 3], {"n": number}, key=f"{number % 11}",
                         event_id=f"{run}-{number}")
                self.emitted.write(f"{run}-{number}")
                time.sleep(0.0003)

    def listen(self, group):
        with Bus(self.data, "shop") as bus:
            for name in GROUPS[group]:
                def act(event, name=name):
                    time.sleep(0.0001)
                    if fails(name, event.data["n"]):
                        raise ValueError(event.id)
                    self.handled.write(f"{group} {name} {event.id}")
                bus.on(name, act, group=group, name=name)
            bus.start()
            self.ready.write(group)
            self.all_end.wait()

    def outcome(self, parties):
        """Events that there are; what each handler has handled, and its letters, counted."""
        with pylog.Broker(self.data) as broker:
            with contextlib.closing(pylog.Admin(broker)) as admin:
                until(lambda: all(
                    len(offsets := admin.list_group_offsets(group)) == PARTITIONS
                    and sum(place.lag for place in offsets.values()) == 0 for group in GROUPS), 60)
            self.all_end.give()
            for party in parties:
                party.wait()
            there = [(record.header("ce_id").decode(), record.header("ce_type").decode())
                     for record in broker.read("shop")]
            letters = Counter((one.group, one.handler, dict(one.headers)["ce_id"].decode())
                              for one in DeadLetters(broker).list())
        return there, Counter(tuple(line.split()) for line in self.handled.lines()), letters


def due(there):
    """What is to be handled, and what is to be dead: (group, handler, id)."""
    handled, dead = set(), set()
    for group, handlers in GROUPS.items():
        for name in handlers:
            for event_id, kind in there:
                if wants(name, kind):
                    number = int(event_id.rpartition("-")[2])
                    (dead if fails(name, number) else handled).add((group, name, event_id))
    return handled, dead


@pytest.mark.slow
def test_nobody_killed_and_each_handler_has_each_event_exactly_once(tmp_path):
    play = Play(tmp_path)
    listeners = [Party(play.listen, group) for group in ("shop", "shop", "audit")]
    until(lambda: len(play.ready.lines()) == 3)
    emitters = [Party(play.emit, 300) for _ in range(2)]
    for party in emitters:
        party.wait()

    there, handled, letters = play.outcome(listeners)

    assert len(there) == 600
    assert {event_id for event_id, _ in there} == set(play.emitted.lines())
    assert (set(handled), set(letters)) == due(there)
    assert set(handled.values()) == set(letters.values()) == {1}


def survive(place, rng, rounds):
    play = Play(place)
    parties = [Party(play.listen, group) for group in ("shop", "shop", "audit")]
    parties.append(Party(play.emit, 10**9))
    until(lambda: len(play.handled.lines()) > 10)
    kill_at_random(parties, rng, rounds)
    play.emitters_end.give()
    parties.pop().wait()

    there, handled, letters = play.outcome(parties)

    assert set(play.emitted.lines()) <= {event_id for event_id, _ in there}
    assert len(there) == len(set(there)) > 5 * rounds
    assert (set(handled), set(letters)) == due(there)


@pytest.mark.slow
def test_killed_emitters_and_listeners_lose_no_event(tmp_path, rng):
    survive(tmp_path, rng, 20)


@pytest.mark.soak
def test_killed_emitters_and_listeners_lose_no_event_in_hundreds_of_rounds(tmp_path, rng):
    survive(tmp_path, rng, 400)
