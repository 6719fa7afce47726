"""Loops that time calls: all of them together, or each; and the percentiles of what was taken.

A look at the clock costs about as much as an append. So throughput comes from a loop without it,
and the time of each call from another, whose own share is measured (`time_nothing`) and printed
beside the figures, never taken off them.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pylog.benchmark.settings import Limits

Times = NDArray[np.int64]
Loop = Callable[[Sequence[Any]], None]

FIRST_BLOCK = 8
BLOCK_NS = 2_000_000    # between two looks whether to go on
QUANTILES = {"p50_ns": 0.5, "p90_ns": 0.9, "p99_ns": 0.99, "p999_ns": 0.999, "p9999_ns": 0.9999}

clock = time.perf_counter_ns    # CLOCK_MONOTONIC: the same in all processes


@dataclass(frozen=True, slots=True)
class Timed:
    """A measured part of one process or thread. started, ended: of the clock, ns. times: ns of each
    call; empty where they were not taken."""

    calls: int
    started: int
    ended: int
    times: Times


@dataclass(frozen=True, slots=True)
class Spread:
    """Percentiles in ns. None where fewer calls were timed than a percentile needs to mean
    anything: 10,000 for p99.99."""

    count: int
    p50_ns: int | None
    p90_ns: int | None
    p99_ns: int | None
    p999_ns: int | None
    p9999_ns: int | None
    max_ns: int | None

    def to_dict(self) -> dict[str, int | None]:
        return asdict(self)


def spread_of(times: Sequence[Times]) -> Spread:
    """Of all that the processes, or threads, took."""
    whole = np.concatenate(times) if times else np.empty(0, np.int64)
    count = len(whole)
    at = {
        name: int(np.percentile(whole, 100 * part, method="higher"))
        if count and (part <= 0.5 or round(count * (1 - part), 6) >= 1) else None
        for name, part in QUANTILES.items()
    }
    return Spread(count, **at, max_ns=int(whole.max()) if count else None)


def time_all(call: Callable[[Any], object], arguments: Sequence[Any], limits: Limits) -> Timed:
    """Calls with one argument after the other, round and round, and no clock between."""

    def loop(block: Sequence[Any]) -> None:
        for argument in block:
            call(argument)

    return run_blocks(loop, arguments, limits, [])


def time_each(call: Callable[[Any], object], arguments: Sequence[Any], limits: Limits) -> Timed:
    """The same, and looks at the clock after each call."""
    stamps: list[int] = []
    stamp, now = stamps.append, clock
    times: list[Times] = []

    def loop(block: Sequence[Any]) -> None:
        stamp(now())
        for argument in block:
            call(argument)
            stamp(now())
        take(stamps, times)

    return run_blocks(loop, arguments, limits, times)


def time_nothing(calls: int) -> Timed:
    """The loop of `time_each` with no call in it: what that adds to each time, and what the machine
    adds to some."""
    stamps: list[int] = []
    stamp, now = stamps.append, clock
    times: list[Times] = []

    def loop(block: Sequence[Any]) -> None:
        stamp(now())
        for _argument in block:
            stamp(now())
        take(stamps, times)

    return run_blocks(loop, range(10_000), Limits(float("inf"), calls), times)


def take(stamps: list[int], times: list[Times]) -> None:
    """Empties the list after each block, so that its integers live in memory that is warm."""
    whole = np.array(stamps, np.int64)
    times.append(whole[1:] - whole[:-1])
    stamps.clear()


def run_blocks(loop: Loop, arguments: Sequence[Any], limits: Limits, times: list[Times]) -> Timed:
    """Blocks of arguments that grow until one takes `BLOCK_NS`: slow calls end in time, fast ones
    do not wait for the clock."""
    done, size = 0, min(FIRST_BLOCK, len(arguments))
    block = arguments[:size]
    started = before = clock()
    deadline = started + limits.seconds * 1e9
    while done < limits.calls:
        if len(block) != (count := min(size, limits.calls - done)):
            block = arguments[:count]
        loop(block)
        done += count
        after = clock()
        if after >= deadline:
            break
        if after - before < BLOCK_NS:
            size = min(2 * size, len(arguments))
        before = after
    return Timed(done, started, clock(), np.concatenate(times) if times else np.empty(0, np.int64))
