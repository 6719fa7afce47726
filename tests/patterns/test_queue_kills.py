"""A queue whose producers and workers are killed: nothing is lost, nothing comes after its ack.

Each process writes a line to a diary of its own before and after what it does, so what it did is
known also where it was killed in the middle of it; the diaries alone are judged.
"""

import os
import queue as stdlib
import random
import signal
import time

import pytest
from waiting import until

import pylog
from pylog.patterns import Queue

ROUNDS = 20
KEYS = 3


def put_for_ever(path, diary, number, ordered):
    with Queue(path, "jobs", ordered_by_key=ordered) as jobs:
        sequence = 0
        while True:
            name = b"%d-%d" % (number, sequence)
            key = b"%d" % (sequence % KEYS)
            os.write(diary, b"begin %s %s %d\n" % (name, key, time.monotonic_ns()))
            jobs.put(name, key=b"%d-" % number + key)
            os.write(diary, b"put %s %s %d\n" % (name, key, time.monotonic_ns()))
            sequence += 1
            time.sleep(0.0005)


def work_for_ever(path, diary, number, ordered):
    rng = random.Random(number)
    with Queue(path, "jobs", ordered_by_key=ordered, max_deliveries=1000) as jobs:
        for delivery in jobs:
            os.write(diary, b"got %s %s %d\n" % (delivery.value, delivery.key,
                                                 time.monotonic_ns()))
            dice = rng.random()
            if dice < 0.1:
                delivery.nack()
            elif dice < 0.15:
                delivery.nack(delay=0.005)
            else:
                if dice > 0.9:
                    time.sleep(0.002)
                os.write(diary, b"ack %s %s %d\n" % (delivery.value, delivery.key,
                                                     time.monotonic_ns()))
                delivery.ack()
                os.write(diary, b"acked %s %s %d\n" % (delivery.value, delivery.key,
                                                       time.monotonic_ns()))


class Cast:
    """The processes, each replaced when it is killed."""

    def __init__(self, path, ordered):
        self.path, self.ordered, self.count, self.pids = path, ordered, 0, {}

    def start(self, role):
        self.count += 1
        diary = os.open(self.path.parent / f"diary-{self.count}", os.O_WRONLY | os.O_CREAT)
        pid = os.fork()
        if pid == 0:
            try:
                role(self.path, diary, self.count, self.ordered)
            finally:
                os._exit(1)
        os.close(diary)
        self.pids[pid] = role

    def kill(self, pid):
        role = self.pids.pop(pid)
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        assert os.WIFSIGNALED(status), f"{role.__name__} ended by itself"
        return role

    def count_acked(self):
        return sum(what == b"acked" for what, *_ in self.lines())

    def lines(self):
        for diary in self.path.parent.glob("diary-*"):
            for line in diary.read_bytes().splitlines():
                words = line.split()
                if len(words) == 4:
                    yield words[0], words[1], words[2], int(words[3])


@pytest.mark.slow
@pytest.mark.parametrize("ordered", [False, True])
def test_20_rounds_lose_nothing_and_deliver_nothing_after_its_ack(tmp_path, seed, ordered):
    path, rng = tmp_path / "broker", random.Random(seed)
    cast = Cast(path, ordered)
    for role in (put_for_ever, put_for_ever, work_for_ever, work_for_ever, work_for_ever):
        cast.start(role)
    for _ in range(ROUNDS):
        time.sleep(rng.uniform(0.02, 0.12))
        cast.start(cast.kill(rng.choice(list(cast.pids))))
    until(lambda: cast.count_acked() > 20, 60)    # to make a topic may take longer than all that
    for pid in list(cast.pids):
        cast.kill(pid)

    rest = []
    with pylog.Broker(path) as broker, Queue(broker, "jobs", ordered_by_key=ordered) as jobs:
        while True:
            try:
                delivery = jobs.get(0.1)
            except stdlib.Empty:
                break
            rest.append(delivery.value)
            delivery.ack()
        assert jobs.stats()[:4] == (0, 0, 0, 0)

    judge(list(cast.lines()), rest)


def judge(lines, rest):
    began = {name for what, name, _, _ in lines if what == b"begin"}
    put = {name for what, name, _, _ in lines if what == b"put"}
    got = [(when, name) for what, name, _, when in lines if what == b"got"]
    acking = {name for what, name, _, _ in lines if what == b"ack"}
    acked = {name: when for what, name, _, when in lines if what == b"acked"}
    print(f"{len(put)} put, {len(got)} deliveries, {len(acked)} acknowledged, {len(rest)} left")

    assert put, "nobody put anything"
    assert len(acked) > 20, "hardly anything was done"
    assert {name for _, name in got} | set(rest) <= began, "invented"
    assert put <= acking | set(rest), f"lost: {sorted(put - acking - set(rest))[:5]}"
    assert len(rest) == len(set(rest)), "given out twice by an idle queue"
    assert not set(rest) & set(acked), "delivered after its ack"
    late = [name for when, name in got if acked.get(name, when) < when]
    assert not late, f"delivered after its ack: {late[:5]}"


@pytest.mark.slow
def test_with_nobody_killed_each_message_is_done_once_and_in_the_order_of_its_key(tmp_path):
    path = tmp_path / "broker"
    with Queue(path, "jobs", ordered_by_key=True) as jobs:
        jobs.put_many([b"%d" % n for n in range(2000)],
                      keys=[b"%d" % (n % 7) for n in range(2000)])
    pids, ends = [], []
    for _ in range(3):
        end, other = os.pipe()
        pid = os.fork()
        if pid == 0:
            with Queue(path, "jobs", ordered_by_key=True) as jobs:
                def note(delivery, other=other):
                    os.write(other, b"%s %d\n" % (delivery.value, time.monotonic_ns()))

                jobs.work(note, concurrency=2, idle=0.5)
            os._exit(0)
        os.close(other)
        pids.append(pid)
        ends.append(end)
    done = []
    for pid, end in zip(pids, ends, strict=True):
        with os.fdopen(end, "rb") as lines:
            done += [(int(when), int(value)) for value, when in map(bytes.split, lines)]
        os.waitpid(pid, 0)
    done.sort()
    assert sorted(value for _, value in done) == list(range(2000))
    for key in range(7):
        values = [value for _, value in done if value % 7 == key]
        assert values == sorted(values)
