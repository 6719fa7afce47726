"""The same cases under pytest-benchmark, a group per question, with the peers as rows.

Run by `python -m bench` (or `pytest bench/bench_groups.py`). The first row of a group is its
yardstick; pytest-benchmark's own column in brackets is the ratio to the best of the group.
BENCH_SMOKE=1 takes tiny sizes, BENCH_ROUNDS says how many rounds.
"""

import os

import pytest

from bench.questions import QUESTIONS
from bench.workspace import FULL, SMOKE, Workspace

IS_SMOKE = os.environ.get("BENCH_SMOKE") == "1"
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "15"))
ROWS = [
    pytest.param(question, make, id=f"{question.name}: {name}")
    for question in QUESTIONS
    for name, make in {**question.cases, **question.peers}.items()
]


@pytest.mark.parametrize(("question", "make"), ROWS)
def test_row(question, make, benchmark):
    with Workspace(SMOKE if IS_SMOKE else FULL) as workspace:
        case = make(workspace)
        benchmark.group = f"{question.title} ({case.count:,} a round)"

        benchmark.pedantic(
            case.run, setup=case.reset, teardown=case.check, rounds=ROUNDS, warmup_rounds=1)

        case.finish()
