"""Groups: how soon others have what a killed member had, and whether who stays is left alone.

A takeover is measured from before the SIGKILL until the survivor, this process, sleeping in `poll`,
has been given a record of each partition that the victim had: whatever the survivor had to notice,
to decide and to look up is in it. The processes are forked by a small one, which opens no broker.
"""

from __future__ import annotations

import itertools
import mmap
import os
import random
import signal
import statistics
import sys
import time
from pathlib import Path

from bench.harness import Figure, Probe, is_steady
from bench.processes import other_process
from bench.workspace import MADV_POPULATE_WRITE, Workspace
from pylog import Broker, Consumer, TopicPartition
from pylog.stress.diary import Diary, read_diaries
from pylog.stress.grouping import GroupMember
from pylog.stress.judgement import Judgement

TOPIC, GROUP = "t", "g"
SHARED, PARTITIONS, MEMBERS = 8, 64, 8
FREE_BYTES = 8 << 30         # below it, no process of 4 GiB is made
FEED_SECONDS = 0.005         # a record for each of the 64 partitions
WATCHED_SECONDS = 1.0        # after a join
PATIENCE_SECONDS = 30
LIMITS_MS = (1, 2, 5, 10, 20, 50, 100, 200, 1000, float("inf"))


# ---- what runs in the other processes -----------------------------------------------------------

def breed(connection) -> None:
    """At each (function, arguments): forks a child that does it; answers its pid."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    connection.send("ready")
    while task := connection.recv():
        pid = os.fork()
        if pid == 0:
            function, arguments = task
            try:
                function(*arguments)
            finally:
                os._exit(1)
        connection.send(pid)


def be_victim(path: str, resident: int) -> None:
    """A member with so many bytes in memory."""
    ballast = mmap.mmap(-1, resident, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    ballast.madvise(MADV_POPULATE_WRITE)
    with Broker(path) as broker, \
            Consumer(broker, TOPIC, group_id=GROUP, enable_auto_commit=False) as consumer:
        while True:
            consumer.poll(timeout_ms=1000)


def be_member(path: str, diaries: str, waits: bool) -> None:
    """A member that keeps a diary; with `waits`, from SIGUSR1 on."""
    with Broker(path) as broker, Diary(Path(diaries)) as diary:
        member = GroupMember(broker, TOPIC, diary, random.Random(0), by_hand=0, group_id=GROUP)
        if waits:
            signal.sigwait({signal.SIGUSR1})
        member.subscribe()
        member.read()


# ---- takeover -----------------------------------------------------------------------------------

def until(condition, what: str, step=lambda: time.sleep(0.001)) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} took more than {PATIENCE_SECONDS} s")
        step()


def take_over(connection, broker: Broker, survivor: Consumer, resident: int) -> float:
    """Seconds, of one victim."""
    connection.send((be_victim, (str(broker.path), resident)))
    victim, group = connection.recv(), broker.group(GROUP)
    try:
        until(lambda: len(set(group.owners().values())) == 2 and len(group.owners()) == SHARED,
              "the victim's join", lambda: survivor.poll(timeout_ms=5))
        missing = {TopicPartition(TOPIC, n) for n in range(SHARED)} - survivor.assignment()
        survivor.poll(timeout_ms=0)
        start = time.perf_counter()
    finally:
        os.kill(victim, signal.SIGKILL)
    while missing:
        missing -= survivor.poll(timeout_ms=1000).keys()
        if time.perf_counter() - start > PATIENCE_SECONDS:
            raise TimeoutError(f"nobody has taken {missing}")
    return time.perf_counter() - start


def take_over_often(workspace: Workspace, rounds: int, resident: int) -> list[float]:
    """ms of each, sorted."""
    with Broker(workspace.path("takeover")) as broker, \
            other_process(breed) as connection:
        broker.create_topic(TOPIC, SHARED)
        for number in range(SHARED):
            broker.append(TOPIC, b"a record", partition=number)
        with Consumer(broker, TOPIC, group_id=GROUP, enable_auto_commit=False) as survivor:
            return sorted(1000 * take_over(connection, broker, survivor, resident)
                          for _ in range(rounds))


def spread(taken: list[float]) -> str:
    """A histogram of ms, in words."""
    counts = dict.fromkeys(LIMITS_MS, 0)
    for one in taken:
        counts[next(limit for limit in LIMITS_MS if one <= limit)] += 1
    return ", ".join(f"up to {limit:g} ms {count}" for limit, count in counts.items() if count)


def measure_takeover(workspace: Workspace, rounds: int) -> list[Figure]:
    taken = take_over_often(workspace, workspace.sizes.takeovers, 1 << 20)
    ninety_nine = taken[min(len(taken) - 1, len(taken) * 99 // 100)]
    name = f"takeover after SIGKILL, {len(taken)} rounds"
    return [
        Figure("takeover", f"{name}: p50", statistics.median(taken), None, "ms", 100, 60),
        Figure("takeover", f"{name}: p99", ninety_nine, None, "ms", 200, 80,
               detail=f"the longest {taken[-1]:.1f} ms; {spread(taken)}"),
    ]


def free_bytes() -> int:
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable"))


def measure_large_takeover(workspace: Workspace, rounds: int) -> list[Figure]:
    resident = workspace.sizes.resident_bytes
    if resident > 1 << 30 and free_bytes() < FREE_BYTES:
        print(f"SKIPPED: takeover of a process of {resident >> 30} GiB: "
              f"{free_bytes() / (1 << 30):.1f} GiB of memory are free, and it wants "
              f"{FREE_BYTES >> 30}", file=sys.stderr)
        return []
    taken = take_over_often(workspace, workspace.sizes.large_takeovers, resident)
    name = f"the same, {resident / (1 << 30):.2g} GiB resident, {len(taken)} rounds"
    return [
        Figure("large-takeover", f"{name}: p50", statistics.median(taken), None, "ms", 100, 60),
        Figure("large-takeover", f"{name}: max", taken[-1], None, "ms", 200, 80,
               detail=spread(taken)),
    ]


# ---- one joins ----------------------------------------------------------------------------------

def watch(connection, workspace: Workspace, joins: bool) -> tuple[int, float, float]:
    """Revocations of partitions that stay; the longest gap, in ms, between two records of one of
    them; ms until the newcomer has its share. Eight members; the last two 0 without a newcomer."""
    diaries, pids = workspace.path("diaries"), []
    diaries.mkdir()
    with Broker(workspace.path("join")) as broker:
        broker.create_topic(TOPIC, PARTITIONS)
        group = broker.group(GROUP)

        def start(waits: bool) -> int:
            connection.send((be_member, (str(broker.path), str(diaries), waits)))
            pids.append(connection.recv())
            return pids[-1]

        def feed(seconds: float) -> None:
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                for number in range(PARTITIONS):
                    broker.append(TOPIC, b"a record", partition=number)
                time.sleep(FEED_SECONDS)

        try:
            for _ in range(MEMBERS):
                start(waits=False)
            newcomer = start(waits=True)
            until(lambda: sorted(map(list(group.owners().values()).count,
                                     set(group.owners().values()))) == [8] * 8, "eight joins")
            feed(0.5)
            begin = time.monotonic_ns()
            if joins:
                os.kill(newcomer, signal.SIGUSR1)
            feed(WATCHED_SECONDS)
            end = time.monotonic_ns()
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGKILL)
    return figures_of(Judgement(read_diaries(diaries), {}), begin, end, newcomer)


def figures_of(judgement: Judgement, begin: int, end: int, newcomer: int
               ) -> tuple[int, float, float]:
    before, after = (dict(held) for held in judgement.holders((begin, end)))
    stayed = {p for p, own in before.items() if p in after and after[p] == own}
    drops = sum(entry.kind == "drop" and begin < entry.at < end and
                after[entry.partition].process != newcomer for entry in judgement.entries)
    gap = 0
    for partition in stayed:
        times = [entry.at for entry in judgement.by_partition[partition]
                 if entry.kind == "work" and begin <= entry.at <= end]
        gap = max(gap, *(b - a for a, b in itertools.pairwise(times)))
    got = [own.at - begin for own in after.values() if own.process == newcomer]
    return drops, gap / 1e6, max(got, default=0) / 1e6


def measure_join(workspace: Workspace, rounds: int) -> list[Figure]:
    with other_process(breed) as connection:
        pairs = [(watch(connection, workspace, False), watch(connection, workspace, True))
                 for _ in range(workspace.sizes.joins)]
    without, gaps = [one[1] for one, _ in pairs], [one[1] for _, one in pairs]
    name = f"a process joins {MEMBERS} with {PARTITIONS} partitions"
    balanced = statistics.median(one[2] for _, one in pairs)
    return [
        Figure("join", f"{name}: revoked in vain",
               sum(one[0] for _, one in pairs), None, "", 0, 0),
        Figure("join", f"{name}: gap over none",
               min(gaps) / min(without), statistics.median(gaps) / statistics.median(without), "x",
               1.5, 1.1, is_steady=is_steady(without),
               detail=f"{min(gaps):.1f} ms against {min(without):.1f} ms"),
        Figure("join", f"{name}: balanced", balanced, None, "ms",
               500, 100, detail=f"the median of {len(pairs)} joins"),
    ]


PROBES = (
    Probe("takeover", "takeover after SIGKILL", measure_takeover),
    Probe("large-takeover", "takeover of a large process", measure_large_takeover),
    Probe("join", "a member joins", measure_join),
)
