"""Measuring: cases run in turn, round by round, and judged by the ratio to their yardstick.

A Question is a set of cases that do the same work; the first is usually the yardstick. All cases
run once in each round, every other round in reverse, so that what disturbs the machine disturbs
all of them. A Target says which ratio matters and what it should be. What does not fit (latency,
reopening, memory) is a Probe, which measures as it must and returns Figures as well.

The figure is the best round over the yardstick's best; the median of the ratios stands beside it.
A verdict is *undecided* when the best of the yardstick's first half of rounds and that of its
second differ by more than a tenth: then the machine moved, and not the code.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bench.workspace import Workspace

UNSTEADY = 1.10


def nothing() -> None:
    """No preparation, no check."""


@dataclass
class Case:
    """One way to do a question's work. `run` is timed; `reset` before and `check` after it are
    not. `count` is how many records (or bytes, or calls) one run handles."""

    run: Callable[[], object]
    count: int
    reset: Callable[[], None] = nothing
    check: Callable[[], None] = nothing
    finish: Callable[[], None] = nothing    # after the last round: verify all that was done


CaseMaker = Callable[["Workspace"], Case]


@dataclass(frozen=True)
class Target:
    """A row of the table. `of` over `to` in time an item, or, with `is_speed`, in speed.

    to: a case, or several, of which the one with the best round counts. gate, ambition: None for a
    row that is only shown. Times want at most, speeds at least.
    """

    name: str
    of: str
    to: str | tuple[str, ...]
    gate: float | None = None
    ambition: float | None = None
    is_speed: bool = False


@dataclass(frozen=True)
class Question:
    """`cases` by name; those under `peers` are left to pytest-benchmark."""

    name: str
    title: str
    cases: dict[str, CaseMaker]
    targets: tuple[Target, ...]
    peers: dict[str, CaseMaker] = field(default_factory=dict)
    unit: str = "record"


@dataclass(frozen=True)
class Probe:
    """A question with its own way of measuring."""

    name: str
    title: str
    measure: Callable[[Workspace, int], list[Figure]]


@dataclass
class Figure:
    """One row of the table, measured."""

    question: str
    name: str
    best: float
    median: float | None = None
    unit: str = "x"
    gate: float | None = None
    ambition: float | None = None
    is_speed: bool = False
    is_steady: bool = True
    detail: str = ""

    @property
    def verdict(self) -> str:
        if self.gate is None:
            return ""
        if not self.is_steady:
            return "undecided"
        sign = -1 if self.is_speed else 1
        if sign * self.best > sign * self.gate:
            return "missed"
        if self.ambition is not None and sign * self.best <= sign * self.ambition:
            return "met, ambition too"
        return "met"


def run_rounds(cases: dict[str, Case], rounds: int) -> dict[str, list[float]]:
    """Seconds per item of every round, by case. The first round is a warm-up and does not count."""
    taken: dict[str, list[float]] = {name: [] for name in cases}
    names = list(cases)
    clock = time.perf_counter
    for number in range(rounds + 1):
        for name in names if number % 2 else reversed(names):
            case = cases[name]
            case.reset()
            gc.collect()
            gc.disable()
            start = clock()
            case.run()
            seconds = clock() - start
            gc.enable()
            case.check()
            if number:
                taken[name].append(seconds / case.count)
    return taken


def is_steady(times: list[float]) -> bool:
    """Whether the best of both halves agree within a tenth."""
    half = len(times) // 2
    if half == 0:
        return True
    first, second = min(times[:half]), min(times[half:])
    return max(first, second) <= UNSTEADY * min(first, second)


def judge(question: Question, target: Target, taken: dict[str, list[float]]) -> Figure:
    rival = target.to if isinstance(target.to, str) else min(target.to, key=lambda n: min(taken[n]))
    of, to = taken[target.of], taken[rival]
    pairs = list(zip(of, to, strict=True))
    if target.is_speed:
        best, median = min(to) / min(of), statistics.median(b / a for a, b in pairs)
    else:
        best, median = min(of) / min(to), statistics.median(a / b for a, b in pairs)
    return Figure(
        question.name, target.name, best, median, "x", target.gate, target.ambition,
        target.is_speed, is_steady(to),
        f"{format_time(min(of))} against {format_time(min(to))} a {question.unit}"
        + ("" if rival == target.to else f" of {rival}"),
    )


def format_time(seconds: float) -> str:
    for factor, unit in ((1e9, "ns"), (1e6, "us"), (1e3, "ms")):
        if seconds * factor < 1000:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds:.3g} s"


def ask(question: Question, workspace: Workspace, rounds: int) -> list[Figure]:
    cases = {name: make(workspace) for name, make in question.cases.items()}
    taken = run_rounds(cases, rounds)
    for case in cases.values():
        case.finish()
    return [judge(question, target, taken) for target in question.targets]
