"""A group of real processes that are killed, stopped, forked, and come and go; then a judgement.

Each process writes a diary before it does anything (pylog/stress/diary.py); who judges reads those,
and no more of the group than its committed offsets. What a judge can find is planted in diaries
once, in test_judgement.py.
"""

import json
import signal
import subprocess
import sys
import time

import group_worker
import pytest

from pylog.broker import Broker
from pylog.group import describe
from pylog.stress.diary import Diary, read_diaries
from pylog.stress.judgement import Judgement, Outage
from pylog.topic import TopicPartition

WORKER = group_worker.__file__
PARTITIONS = 12
SESSION_MS = 2000    # longer than a busy machine lets a process stand still: that has no excuse
SETTLE_S = 20
ACTIONS = {"kill": 40, "leave": 8, "fork_and_kill": 7, "stop": 10, "two": 10}    # how often
SPARES = 3    # started ahead: an interpreter takes 0.2 s


class Process:
    """A worker's: started, and told to join when it is needed."""

    def __init__(self, chaos, session_timeout_ms):
        self.session_timeout_ms = session_timeout_ms
        options = {"seed": chaos.rng.randrange(1 << 32), "session_timeout_ms": session_timeout_ms,
                   "commits": chaos.rng.choice(["auto", "hand"]), "strategy": chaos.strategy}
        self.popen = subprocess.Popen(
            [sys.executable, WORKER, chaos.broker.path, chaos.diaries, json.dumps(options)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=chaos.errors)
        self.pid = self.popen.pid

    def join(self):
        self.popen.stdout.readline()
        self.popen.stdin.write(b"join\n")
        self.popen.stdin.flush()

    def send(self, number):
        self.popen.send_signal(number)

    def end(self):
        if self.popen.poll() is None:
            self.send(signal.SIGKILL)
            self.send(signal.SIGCONT)
        self.popen.communicate()


class Chaos:
    """A group and what is done to it, one or two things a round. The group settles in between."""

    def __init__(self, directory, rng, strategy="cooperative-sticky"):
        self.rng = rng
        self.strategy = strategy
        self.diaries = directory / "diaries"
        self.diaries.mkdir()
        self.errors = (directory / "stderr").open("w+b")
        self.broker = Broker(directory / "data")
        self.broker.create_topic(group_worker.TOPIC, PARTITIONS)
        self.group = self.broker.group(group_worker.GROUP)
        self.diary = Diary(self.diaries)
        self.members, self.spares, self.gone = [], [], []
        self.outages = []
        self.settled_rounds = []    # (start, end) of those in which one process came or went
        self.done = dict.fromkeys(ACTIONS, 0)

    # ---- what is done

    def join(self):
        while len(self.spares) <= SPARES:
            session = SESSION_MS if self.rng.random() < 0.3 else None
            self.spares.append(Process(self, session))
        process = self.spares.pop(0)
        process.join()
        self.members.append(process)

    def remove(self, process=None):
        process = process or self.rng.choice(self.members)
        self.members.remove(process)
        self.gone.append(process)
        return process

    def kill(self, process=None):
        process = self.remove(process)
        self.outages.append(Outage(process.pid, time.monotonic_ns()))
        process.send(signal.SIGKILL)

    def leave(self):
        self.remove().send(signal.SIGTERM)

    def fork_and_kill(self):
        """The child outlives the parent, and must not stand for it."""
        process = self.rng.choice(self.members)
        process.send(signal.SIGUSR1)
        assert process.popen.stdout.readline() == b"forked\n"
        self.kill(process)

    def stop(self):
        """With a session it is fenced, and comes back; without one its partitions wait for it."""
        process = self.rng.choice(self.members)
        owned, start = self.group.owners(), time.monotonic_ns()
        process.send(signal.SIGSTOP)
        if process.session_timeout_ms is None:
            time.sleep(0.05)
            self.append(5)
            assert self.group.owners() == owned
        else:
            self.members.remove(process)
            self.settle()
            self.append(20)
            self.members.append(process)
        self.outages.append(Outage(process.pid, start, time.monotonic_ns()))
        process.send(signal.SIGCONT)

    def two(self):
        """A kill in the middle of a rebalance."""
        self.rng.choice([self.join, self.leave, self.kill])()
        time.sleep(self.rng.uniform(0, 0.01))
        self.kill()

    def round(self):
        start = time.monotonic_ns()
        self.append(self.rng.randrange(100))
        action = "join"
        if len(self.members) > 2 and self.rng.random() < 0.6:
            action, = self.rng.choices([*ACTIONS], [*ACTIONS.values()])
            self.done[action] += 1
        getattr(self, action)()
        self.append(self.rng.randrange(100))
        self.settle()
        if action in ("join", "kill", "leave", "fork_and_kill"):
            self.settled_rounds.append((start, time.monotonic_ns()))

    # ---- meanwhile

    def append(self, count):
        for _ in range(count):
            self.broker.append(group_worker.TOPIC, b"x", partition=self.rng.randrange(PARTITIONS))
        self.look(self.rng.randrange(PARTITIONS))

    def look(self, partition):
        at = time.monotonic_ns()
        log = self.broker.log(group_worker.TOPIC, partition)
        found = self.group.committed(TopicPartition(group_worker.TOPIC, partition), log.incarnation)
        self.diary.note("look", 0, 0, partition, found.offset if found else -1, at)
        self.diary.note("end", 0, 0, partition, log.end_offset)

    def is_settled(self):
        told = describe(self.group)["members"]
        return {one["pid"] for one in told} == {one.pid for one in self.members} \
            and sum(len(one["owned"]) for one in told) == PARTITIONS \
            and all(one["owned"] == one["assignment"] for one in told)

    def settle(self):
        deadline = time.monotonic() + SETTLE_S
        while not self.is_settled():
            assert not self.said(), self.said()
            assert time.monotonic() < deadline, describe(self.group)
            self.look(self.rng.randrange(PARTITIONS))
            time.sleep(0.002)

    def ends(self):
        return {p: self.broker.log(group_worker.TOPIC, p).end_offset for p in range(PARTITIONS)}

    def drain(self):
        """All leave but one, which reads what is left."""
        while len(self.members) > 1:
            self.leave()
        self.settle()
        deadline = time.monotonic() + SETTLE_S
        while not self.is_drained():
            assert time.monotonic() < deadline, (self.ends(), self.said())
            time.sleep(0.02)

    def is_drained(self):
        last = {(e.partition, e.offset + 1) for e in read_diaries(self.diaries) if e.kind == "work"}
        return {(p, end) for p, end in self.ends().items() if end} <= last

    def said(self):
        self.errors.seek(0)
        return self.errors.read().decode()

    def judgement(self):
        return Judgement(read_diaries(self.diaries), self.ends(), self.outages)

    def close(self):
        for process in (*self.members, *self.spares, *self.gone):
            process.end()
        self.diary.close()
        self.broker.close()
        self.errors.close()


def percentile(values, part):
    return sorted(values)[min(len(values) - 1, int(part * len(values)))]


def play(directory, rng, rounds, capsys, **options):
    """Rounds of chaos, and the judgement of them."""
    chaos = Chaos(directory, rng, **options)
    try:
        for _ in range(rounds):
            chaos.round()
        chaos.drain()
        judgement = chaos.judgement()
        said = chaos.said()
    finally:
        chaos.close()
    took = [one.seconds * 1000 for one in judgement.takeovers()]
    handled = sum(entry.kind == "work" for entry in judgement.entries)
    with capsys.disabled():
        print(f"\n{rounds} rounds, {chaos.done}, {sum(judgement.ends.values())} records handled "
              f"{handled} times; {len(took)} takeovers after SIGKILL: "
              f"p50 {percentile(took, .5):.0f} ms, p99 {percentile(took, .99):.0f} ms, "
              f"max {max(took):.0f} ms")
    assert judgement.findings() == []
    assert not said
    if chaos.strategy == "cooperative-sticky":
        for start, end in chaos.settled_rounds:
            assert list(judgement.bounced(start, end)) == []


@pytest.mark.slow
def test_100_rounds_lose_no_record_and_let_no_two_have_one_partition(tmp_path, rng, capsys):
    play(tmp_path, rng, 100, capsys)


@pytest.mark.soak
@pytest.mark.parametrize("strategy", ["range", "roundrobin", "cooperative-sticky"])
def test_thousands_of_rounds(tmp_path, rng, capsys, strategy):
    play(tmp_path, rng, 1000, capsys, strategy=strategy)
