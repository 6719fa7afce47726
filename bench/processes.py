"""From one process to another: records a second, and how soon a record is seen.

One process writes, this one reads. Throughput: `append` one at a time there, a bytes object for
each record here, beside multiprocessing.Queue. Latency: the writer stamps the time into the
record, the reader makes the bytes and looks at the clock, which both share (CLOCK_MONOTONIC).
Spinning readers look at the end offset; blocking ones sleep in `wait`, beside a bare futex.
"""

from __future__ import annotations

import itertools
import mmap
import multiprocessing
import random
import statistics
import struct
import time
from collections.abc import Callable
from contextlib import contextmanager

import pylog
from bench import yardsticks
from bench.harness import Case, Figure, Probe, Question, Target, format_time, is_steady
from bench.workspace import CHUNK_BYTES, Workspace

SPAWN = multiprocessing.get_context("spawn")
GAP_NS = 20_000             # between two spin pings
SLEEP_SECONDS = 0.01             # between two blocking pings: reader and core are asleep by then
SPIN_RUNS = 12
SMALL_CHUNK, PAUSE_NS = 64, 20_000
STAMP = struct.Struct("=q")
FILLER = bytes(100 - STAMP.size)


# ---- what runs in the other process -------------------------------------------------------------

def values_to_send(count: int) -> list[bytes]:
    block = random.Random(count).randbytes(count * 100)
    return [block[at:at + 100] for at in range(0, count * 100, 100)]


def append_values(connection, path: str, count: int) -> None:
    """At each word from the parent: all values, one append each. None ends."""
    values = values_to_send(count)
    with pylog.Log(path) as log:
        connection.send("ready")
        while connection.recv():
            f = log.append
            for v in values:
                f(v)


def put_values(connection, queue, count: int) -> None:
    values = values_to_send(count)
    connection.send("ready")
    while connection.recv():
        f = queue.put
        for v in values:
            f(v)


def append_stamps(connection, path: str) -> None:
    """At each (count, gap): that many stamped records, `gap` ns apart, spinning between."""
    clock, pack = time.perf_counter_ns, STAMP.pack
    with pylog.Log(path) as log:
        connection.send("ready")
        while task := connection.recv():
            count, gap = task
            for _ in range(count):
                due = clock() + gap
                while clock() < due:
                    pass
                log.append(pack(clock()) + FILLER)


def stamp_and_wake(connection, path: str, baton_path: str) -> None:
    with pylog.Log(path) as log:
        ping(connection, baton_path, log.append)


def ping(connection, baton_path: str, append: Callable[[bytes], object]) -> None:
    """At each ("log" or "futex", count): that many pings, with a sleep before each."""
    clock, pack = time.perf_counter_ns, STAMP.pack
    with open(baton_path, "r+b") as file:
        baton = yardsticks.Baton(mmap.mmap(file.fileno(), 4096))
        connection.send("ready")
        while task := connection.recv():
            way, count = task
            for _ in range(count):
                time.sleep(SLEEP_SECONDS)
                if way == "log":
                    append(pack(clock()) + FILLER)
                else:
                    baton.send()


@contextmanager
def other_process(target, *arguments):
    """Starts target(connection, *arguments) in another process; yields the connection."""
    here, there = SPAWN.Pipe()
    process = SPAWN.Process(target=target, args=(there, *arguments), daemon=True)
    process.start()
    try:
        if here.recv() != "ready":
            raise RuntimeError("the other process did not start")
        yield here
    finally:
        here.send(None)
        process.join(10)
        if process.is_alive():
            process.kill()


# ---- throughput ---------------------------------------------------------------------------------

def pause() -> None:
    """Lets the writer get ahead: a reader right behind it takes its cache lines away."""
    due = time.perf_counter_ns() + PAUSE_NS
    while time.perf_counter_ns() < due:
        pass


def through_a_log(workspace: Workspace) -> Case:
    count = workspace.sizes.exchanged
    log = workspace.log("exchange")
    connection = workspace.entering(other_process(append_values, str(log.path), count))
    cursor = log.cursor()
    values = values_to_send(count)
    started = log.end_offset

    def run() -> None:
        nonlocal started
        started = log.end_offset
        connection.send("go")
        missing = count
        while missing:
            got = len(cursor.fetch(max_bytes=CHUNK_BYTES).values())
            missing -= got
            if got < SMALL_CHUNK:
                pause()

    def check() -> None:
        again, at = log.cursor(started), 0
        while chunk := again.fetch(max_bytes=CHUNK_BYTES):
            if chunk.values() != values[at:at + len(chunk)]:
                raise AssertionError("other records arrived than were sent")
            at += len(chunk)
        if at != count:
            raise AssertionError(f"{at} records arrived of {count}")

    return Case(run, count, check=check)


def through_a_queue(workspace: Workspace) -> Case:
    count = workspace.sizes.queued
    queue = SPAWN.Queue()
    connection = workspace.entering(other_process(put_values, queue, count))
    values = values_to_send(count)
    received: list[bytes] = []

    def run() -> None:
        received.clear()
        connection.send("go")
        get = queue.get
        received.extend(get() for _ in range(count))

    def check() -> None:
        if received != values:
            raise AssertionError("the queue delivered other records than were sent")

    return Case(run, count, check=check)


def through_a_pipe(workspace: Workspace) -> Case:
    """multiprocessing.Pipe, a message each: what a queue costs without its thread and lock."""
    count = workspace.sizes.queued
    reader, writer = SPAWN.Pipe(duplex=False)
    connection = workspace.entering(other_process(send_values, writer, count))

    def run() -> None:
        connection.send("go")
        for _ in range(count):
            reader.recv_bytes()

    return Case(run, count)


def send_values(connection, writer, count: int) -> None:
    values = values_to_send(count)
    connection.send("ready")
    while connection.recv():
        for v in values:
            writer.send_bytes(v)


# ---- latency ------------------------------------------------------------------------------------

def spin_run(log, connection, count: int) -> list[int]:
    """ns from stamp to bytes object, of each record of one run, sorted."""
    clock, taken = time.perf_counter_ns, []
    at = log.end_offset
    cursor = log.cursor(at)
    connection.send((count, GAP_NS))
    while len(taken) < count:
        while log.end_offset == at:
            pass
        values = cursor.fetch().values()
        now = clock()
        at += len(values)
        taken.extend(now - STAMP.unpack_from(value)[0] for value in values)
    return sorted(taken)


def measure_spin(workspace: Workspace, rounds: int) -> list[Figure]:
    log = workspace.log("spin")
    with other_process(append_stamps, str(log.path)) as connection:
        runs = [spin_run(log, connection, workspace.sizes.pings) for _ in range(SPIN_RUNS)]
    halves = [run[len(run) // 2] / 1000 for run in runs]
    tails = sorted(run[len(run) * 99 // 100] / 1000 for run in runs)
    return [Figure(
        "spin", f"another process sees it, spinning: p50 (best of {SPIN_RUNS} runs)",
        min(halves), statistics.median(halves), "us", 1.0, 0.5,
        detail=f"p99 of the best run {tails[0]:.1f} us; both processes spin",
    )]


def block_run(log, cursor, connection, count: int) -> float:
    """Median seconds from stamp to bytes object of a reader that sleeps in wait()."""
    clock, taken = time.perf_counter_ns, []
    connection.send(("log", count))
    while len(taken) < count:    # a reader that was kept from its core may find two at once
        cursor.wait()
        values = cursor.fetch().values()
        now = clock()
        taken.extend(now - STAMP.unpack_from(value)[0] for value in values)
    return statistics.median(taken) / 1e9


def baton_run(baton, connection, count: int) -> float:
    connection.send(("futex", count))
    first = baton.received
    return statistics.median(baton.receive(first + i) for i in range(count)) / 1e9


def measure_blocking(workspace: Workspace, rounds: int) -> list[Figure]:
    log, baton_path = workspace.log("block"), workspace.path("baton")
    baton_path.write_bytes(bytes(4096))
    pings = max(1, workspace.sizes.sleeps // rounds)
    times: dict[str, list[float]] = {"log": [], "futex": []}
    with (
        open(baton_path, "r+b") as file,
        other_process(stamp_and_wake, str(log.path), str(baton_path)) as connection,
    ):
        baton, cursor = yardsticks.Baton(mmap.mmap(file.fileno(), 4096)), log.cursor("latest")
        for _ in itertools.repeat(None, rounds):
            times["futex"].append(baton_run(baton, connection, pings))
            times["log"].append(block_run(log, cursor, connection, pings))
    ours, bare = times["log"], times["futex"]
    return [Figure(
        "blocking", "another process sees it, blocking: p50 over a bare futex",
        min(ours) / min(bare), statistics.median(a / b for a, b in zip(ours, bare, strict=True)),
        "x", 1.3, 1.1, is_steady=is_steady(bare),
        detail=f"{format_time(min(ours))} against {format_time(min(bare))}",
    )]


QUESTIONS = (
    Question(
        "exchange", "one writer process, one reader process",
        {"multiprocessing.Queue": through_a_queue, "append, fetch": through_a_log},
        (Target("one writer, one reader process, over mp.Queue", "append, fetch",
                "multiprocessing.Queue", 40, 130, is_speed=True),),
        peers={"multiprocessing.Pipe": through_a_pipe},
    ),
)
PROBES = (
    Probe("spin", "latency, spinning", measure_spin),
    Probe("blocking", "latency, blocking", measure_blocking),
)
