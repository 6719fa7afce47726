"""Request-reply: from the call to the reply in hand, of an asker and a server in two processes.

The yardstick is what no request and its reply can do without: two bare futex wake-ups, there and
back, between the same two processes. In two rhythms: one request after the other, and each after
10 ms in which both sides slept, when their code and data are in no cache any more.
"""

from __future__ import annotations

import itertools
import mmap
import statistics
import time
from collections.abc import Callable

from bench import yardsticks
from bench.harness import Figure, Probe, format_time, is_steady
from bench.processes import SLEEP_SECONDS, other_process
from bench.workspace import Workspace
from pylog.patterns.rpc import Rpc

VALUE = bytes(100)
IN_A_ROW = 10    # times as many, when nobody sleeps


def batons(path):
    """There and back."""
    with open(path, "r+b") as file:
        memory = memoryview(mmap.mmap(file.fileno(), 4096))
    return yardsticks.Baton(memory[:64]), yardsticks.Baton(memory[128:192])


def serve_and_wake(connection, path: str, baton_path: str) -> None:
    """A server of requests; and at each count from the parent, of so many batons."""
    there, back = batons(baton_path)
    with Rpc(path) as rpc:
        rpc.handler("echo", lambda request: request.value)
        connection.send("ready")
        while count := connection.recv():
            seen = there.received
            for number in range(count):
                there.receive(seen + number)
                back.send()


def median_of(act: Callable[[], object], count: int, pause: float) -> float:
    """Median seconds of act(), with a pause before each."""
    taken = []
    for _ in range(count):
        if pause:
            time.sleep(pause)
        start = time.perf_counter()
        act()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def measure_request(workspace: Workspace, rounds: int) -> list[Figure]:
    path, baton_path = workspace.path("rpc"), workspace.path("baton")
    baton_path.write_bytes(bytes(4096))
    there, back = batons(baton_path)
    count = max(1, workspace.sizes.sleeps // rounds)
    with (
        other_process(serve_and_wake, str(path), str(baton_path)) as connection,
        Rpc(path) as rpc,
    ):
        def ask() -> None:
            if rpc.request("echo", VALUE).value != VALUE:
                raise AssertionError("another reply came than was sent")

        def pass_and_get() -> None:
            there.send()
            back.receive(seen)

        found = []
        median_of(ask, 20, 0)    # opens the logs
        for rhythm, pause, times in (("one after the other", 0.0, count * IN_A_ROW),
                                     ("both have slept", SLEEP_SECONDS, count)):
            ours, bare = [], []
            for _ in itertools.repeat(None, rounds):
                connection.send(times)
                taken = []
                for _ in range(times):
                    seen = back.received
                    taken.append(median_of(pass_and_get, 1, pause))
                bare.append(statistics.median(taken))
                ours.append(median_of(ask, times, pause))
            found.append(Figure(
                "request", f"request-reply, {rhythm}: p50 over two futex one-ways",
                min(ours) / min(bare),
                statistics.median(a / b for a, b in zip(ours, bare, strict=True)),
                "x", 2.5, 1.5, is_steady=is_steady(bare),
                detail=f"{format_time(min(ours))} against {format_time(min(bare))}"))
    return found


PROBES = (Probe("request", "request-reply, two processes", measure_request),)
