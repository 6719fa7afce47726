"""What a saga costs: its steps a second, of functions that return at once. So what is measured is
the journal: each result is a record before the next step is begun, and each saga is claimed.
"""

from __future__ import annotations

import time

from bench.harness import Figure, Probe, format_time
from bench.workspace import Workspace
from pylog.patterns import Saga

STEPS = ("reserve", "charge", "ship")
ORDER = {"id": 17, "items": [{"sku": "pears", "quantity": 3}], "total": 12.5}


def measure_steps(workspace: Workspace, rounds: int) -> list[Figure]:
    saga = workspace.closing(Saga(workspace.path("broker"), "checkout"))
    called = []
    for name in STEPS:
        saga.step(lambda ctx, order, name=name: called.append(name) or {"done": order["id"]},
                  name=name)
    count = max(1, workspace.sizes.queued // 10)
    ran, worked = [], []
    for _ in range(rounds):
        start = time.perf_counter()
        for _ in range(count):
            saga.run(ORDER)
        ran.append(time.perf_counter() - start)
        handles = [saga.submit(ORDER) for _ in range(count)]
        start = time.perf_counter()
        saga.resume()
        worked.append(time.perf_counter() - start)
        if len(called) != 2 * count * len(STEPS) or not all(one.done() for one in handles):
            raise AssertionError(f"{len(called)} steps were called")
        called.clear()
    steps = count * len(STEPS)
    return [figure("run, one after the other", steps, ran),
            figure("submitted before, and worked off", steps, worked)]


def figure(how: str, steps: int, seconds: list[float]) -> Figure:
    middle = sorted(seconds)[len(seconds) // 2]
    return Figure("saga", f"saga steps a second, {how}", steps / min(seconds) / 1000,
                  steps / middle / 1000, "k/s", 20.0, 100.0, is_speed=True,
                  detail=f"{format_time(min(seconds) / steps)} a step of three")


PROBES = (Probe("saga", "saga: steps of functions, at \"os\"", measure_steps),)
