"""Publish-subscribe in several processes, some of which are killed: a group has each record at
least once, exactly once where nobody was killed, and nothing vanishes on the way to the dead
letters."""

import contextlib
import time
from collections import Counter

import pytest
from parties import Diary, Party, Signal, kill_at_random
from waiting import until

import pylog
from pylog.patterns import DeadLetters, Retry, Topic

PARTITIONS = 3


class Play:
    """A topic, two publishers, two members of the group "g", one of "h" and one without."""

    def __init__(self, place):
        self.data = place / "data"
        self.published = Diary(place / "published")
        self.handled = {group: Diary(place / f"handled-{group}") for group in ("g", "h")}
        self.copies = Diary(place / "copies")
        self.ready = Diary(place / "ready")
        self.publishers_end, self.all_end = Signal(place / "enough"), Signal(place / "end")
        with pylog.Broker(self.data) as broker:
            broker.create_topic("orders", PARTITIONS)

    def publish(self, name, most):
        """One after the other; what was published is written down afterwards."""
        with Topic(self.data, "orders", value="str") as topic:
            run = time.monotonic_ns()
            for number in range(most):
                if self.publishers_end.is_given:
                    break
                value = f"{name}-{run}-{number}"
                topic.publish(value, key=value)
                self.published.write(value)
                time.sleep(0.0002)    # lest the others have seconds to catch up

    def handle(self, group, concurrency=1):
        """By threads, in the group "h" by tasks. What it handles it writes down first. Each seventh
        fails always, each fifth at first."""
        def act(record):
            time.sleep(0.0002)    # so that a kill finds a record in work
            self.handled[group].write(record.value)
            number = int(record.value.rpartition("-")[2])
            if number % 7 == 0:
                raise ValueError(record.value)
            if number % 5 == 0 and record.value not in met:
                met.add(record.value)
                raise ConnectionError

        async def act_async(record):
            act(record)

        met = set()
        retry = Retry(attempts=3, backoff=0.001, except_=ValueError)
        with Topic(self.data, "orders", value="str") as topic, \
                topic.subscribe(act_async if group == "h" else act, group=group, retry=retry,
                                concurrency=concurrency):
            self.ready.write(group)
            self.all_end.wait()

    def copy(self):
        with Topic(self.data, "orders", value="str") as topic, \
                topic.subscribe(lambda record: self.copies.write(record.value)):
            self.ready.write("copy")
            self.all_end.wait()

    def finish(self, parties):
        """Lets the groups come to the end. Returns what the topic has, and the letters by group."""
        with pylog.Broker(self.data) as broker:
            with contextlib.closing(pylog.Admin(broker)) as admin:
                until(lambda: all(
                    len(offsets := admin.list_group_offsets(group)) == PARTITIONS
                    and sum(place.lag for place in offsets.values()) == 0 for group in "gh"), 60)
            self.all_end.give()
            for party in parties:
                party.wait()
            there = [record.value.decode() for record in broker.read("orders")]
            letters = {group: [letter.value.decode() for letter in
                               DeadLetters(broker, group).list()] for group in "gh"}
        return there, letters


def doomed(values):
    return [value for value in values if int(value.rpartition("-")[2]) % 7 == 0]


@pytest.mark.slow
def test_nobody_killed_and_each_record_is_handled_exactly_once(tmp_path):
    play = Play(tmp_path)
    readers = [Party(play.handle, "g"), Party(play.handle, "g", 2), Party(play.handle, "h", 2),
               Party(play.copy)]
    until(lambda: len(play.ready.lines()) == 4)
    publishers = [Party(play.publish, name, 500) for name in "ab"]
    for party in publishers:
        party.wait()

    there, letters = play.finish(readers)

    tries = Counter(there) + Counter(
        value for value in there if int(value.rpartition("-")[2]) % 5 == 0
        and value not in doomed(there))
    assert sorted(there) == sorted(play.published.lines())
    assert len(there) == 1000
    assert sorted(play.copies.lines()) == sorted(there)
    for group in "gh":
        assert Counter(play.handled[group].lines()) == tries
        assert sorted(letters[group]) == sorted(doomed(there))


def survive(place, rng, rounds):
    play = Play(place)
    parties = [Party(play.handle, "g"), Party(play.handle, "g", 2), Party(play.handle, "h", 2),
               Party(play.publish, "a", 10**9)]
    until(lambda: play.published.lines() and play.handled["g"].lines())
    kill_at_random(parties, rng, rounds)
    until(lambda: len(play.published.lines()) > 20 * rounds)    # however slow a machine is
    play.publishers_end.give()
    parties.pop().wait()

    there, letters = play.finish(parties)

    assert len(there) == len(set(there)) > 20 * rounds
    assert set(play.published.lines()) <= set(there)
    for group in "gh":
        assert set(play.handled[group].lines()) == set(there)
        assert set(letters[group]) == set(doomed(there))
    return there, play


@pytest.mark.slow
def test_killed_publishers_and_subscribers_lose_nothing(tmp_path, rng):
    there, play = survive(tmp_path, rng, 20)

    again = sum(Counter(play.handled["g"].lines()).values()) / len(there)
    assert again < 2, "a kill repeats what was in work, not all that there was"


@pytest.mark.soak
def test_killed_publishers_and_subscribers_lose_nothing_in_hundreds_of_rounds(tmp_path, rng):
    survive(tmp_path, rng, 400)
