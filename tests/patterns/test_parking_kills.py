"""Kills of those who park: a record is handled to its end or a dead letter, and none is lost."""

import contextlib
import os
import signal
import time
from collections import Counter

import pytest
from parties import Diary, Party, Signal, kill_at_random
from waiting import count_parked, until

import pylog
from pylog.patterns import DeadLetters, Queue, Retry, Topic


class Play:
    """A topic, a group that parks, and who publishes."""

    def __init__(self, place):
        self.data = place / "data"
        self.handled, self.published = Diary(place / "handled"), Diary(place / "published")
        self.met = place / "met"    # once in all, whoever is killed in between
        self.met.mkdir()
        self.enough, self.end = Signal(place / "enough"), Signal(place / "end")
        with pylog.Broker(self.data) as broker:
            broker.create_topic("orders", 2)

    def publish(self):
        with Topic(self.data, "orders", value="str") as topic:
            number = 0
            while not self.enough.is_given:
                topic.publish(str(number), key=str(number))
                self.published.write(number)
                number += 1
                time.sleep(0.0005)

    def handle(self, is_async):
        """Each fifth fails at first, each seventh always. What goes well is written down."""
        def act(record):
            number = int(record.value)
            if number % 7 == 0:
                raise ConnectionError
            if number % 5 == 0:
                with contextlib.suppress(FileExistsError):
                    (self.met / record.value).touch(exist_ok=False)
                    raise ConnectionError
            self.handled.write(f"{record.value} {record.topic} {record.partition} {record.offset}")

        async def act_async(record):
            act(record)

        with Topic(self.data, "orders", value="str") as topic, topic.subscribe(
                act_async if is_async else act, group="g",
                retry=Retry(attempts=4, backoff=0.01, mode="park")):
            self.end.wait()


def survive(place, rng, rounds):
    play = Play(place)
    publisher = Party(play.publish)
    members = [Party(play.handle, False), Party(play.handle, False), Party(play.handle, True)]
    until(lambda: play.handled.lines())
    kill_at_random(members, rng, rounds)
    until(lambda: len(play.published.lines()) > 20 * rounds, 60)    # whatever held that up
    play.enough.give()
    publisher.wait()
    numbers = {int(line) for line in play.published.lines()}
    with pylog.Broker(play.data) as broker:
        with contextlib.closing(pylog.Admin(broker)) as admin:
            until(lambda: sum(one.lag for one in admin.list_group_offsets("g").values()) == 0, 60)
            until(lambda: count_parked(broker) == 0, 60)
        play.end.give()
        for member in members:
            member.wait()
        places = {int(record.value): ("orders", record.partition, record.offset)
                  for number in range(2) for record in broker.read("orders", partition=number)}
        letters = DeadLetters(broker, "g").list()

    done = Counter()
    for line in play.handled.lines():
        number, topic, partition, offset = line.split()
        assert places[int(number)] == (topic, int(partition), int(offset))
        done[int(number)] += 1
    dead = {number for number in numbers if number % 7 == 0}
    assert set(done) == numbers - dead, "lost, or invented"
    assert {int(one.value) for one in letters} == dead
    assert all((one.topic, one.partition, one.offset) == places[int(one.value)]
               and one.attempts == 4 for one in letters)
    assert sum(done.values()) < 2 * len(done), "a kill repeats what was in work, not all"


@pytest.mark.slow
def test_killed_subscribers_that_park_lose_nothing(tmp_path, rng):
    survive(tmp_path, rng, 20)


@pytest.mark.soak
def test_killed_subscribers_that_park_lose_nothing_in_hundreds_of_rounds(tmp_path, rng):
    survive(tmp_path, rng, 300)


def handle_and_die(data, diary, when):
    """Fails always. when: the verb of pylog that kills the process in the place of doing it."""
    def die(*arguments, **keywords):
        os.kill(os.getpid(), signal.SIGKILL)

    def fail(record):
        diary.write(record.value.decode())
        raise ConnectionError

    with Topic(data, "orders") as topic:
        kind, verb = when
        if kind is pylog.Delivery:
            Queue.get = lambda self, get=Queue.get: Doomed(get(self), die)
        else:
            setattr(kind, verb, die)
        topic.subscribe(fail, group="g", retry=Retry(attempts=2, backoff=0, mode="park")).join(20)


class Doomed:
    """A delivery, the acknowledgement of which kills."""

    def __init__(self, delivery, die):
        self.record, self._die = delivery.record, die

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self._die()


@pytest.mark.slow
@pytest.mark.parametrize("when", [
    (pylog.Consumer, "commit"),     # it is parked, and will be again
    (pylog.Delivery, "ack"),        # it is a letter, and will be again
])
def test_a_kill_between_two_steps_repeats_the_first(tmp_path, when):
    data, diary = tmp_path / "data", Diary(tmp_path / "tries")
    with Topic(data, "orders") as topic:
        topic.publish(b"a")
    pid = Party(handle_and_die, data, diary, when).pid
    _, status = os.waitpid(pid, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL

    def fail(record):
        raise ConnectionError

    with Topic(data, "orders") as topic:
        broker = topic._broker
        with topic.subscribe(fail, group="g",
                             retry=Retry(attempts=2, backoff=0, mode="park")) as subscription:
            until(lambda: committed_of(subscription) == 1 and count_parked(broker) == 0)
        found = DeadLetters(broker, "g").list()

    assert {(one.topic, one.offset, one.attempts) for one in found} == {("orders", 0, 2)}
    assert len(found) == 2


def committed_of(subscription):
    with contextlib.closing(pylog.Admin(subscription._broker)) as admin:
        return sum(one.offset or 0 for one in admin.list_group_offsets("g").values())
