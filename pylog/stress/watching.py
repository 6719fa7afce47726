"""The two who look after a run: the watcher, which checks, and the janitor, which deletes.

The watcher is the checker's live passage and nothing else: one thread, read-only, so that what it
costs can be told by its own time. It is the one process that no fault is aimed at.
"""

import json
import time
from dataclasses import asdict

import pylog
from pylog.errors import PylogError
from pylog.stress.board import Board, Phase
from pylog.stress.examination import Layout, open_folds
from pylog.stress.passage import Passage
from pylog.stress.plan import Plan
from pylog.stress.settlement import settle
from pylog.stress.sightings import Sightings
from pylog.stress.writing import explained_by

TURN_BATCHES = 256


def watch(plan: Plan, layout: Layout, board: Board) -> None:
    """Checks all that is appended, and settles with the ledgers when the writers are gone."""
    notes = Sightings(layout.sightings, "watcher")
    passage = Passage(notes, plan.run, open_folds(layout.folds))
    behind_ns: list[int] = []
    log = pylog.Log(layout.log, mode="r")
    while True:
        is_over = board.phase == Phase.SETTLE
        taken = passage.go_on(log, TURN_BATCHES)
        board.checked = passage.next_offset
        if taken:
            behind_ns.append(time.monotonic_ns() - passage.checker.figures()["last_sent_ns"])
        elif passage.is_at_damage:
            time.sleep(0.02)
            log.close()
            log = pylog.Log(layout.log, mode="r")
        elif is_over and passage.next_offset >= log.end_offset:
            break
        else:
            log.wait(passage.next_offset, timeout=0.1)
    stats = log.stats()
    log.close()
    balance = settle(passage.checker, layout.producers(), notes)
    layout.figures.write_text(json.dumps({
        "checker": passage.checker.figures(), "balance": asdict(balance),
        "behind_ms": percentiles(behind_ns), "cpu_seconds": time.thread_time(),
        "log": {name: stats[name] for name in ("owner_deaths", "rolls", "flushes", "end_offset",
                                               "start_offset", "size_bytes")},
    }))


def percentiles(times_ns: list[int]) -> dict[str, float]:
    """In milliseconds."""
    ordered = sorted(times_ns) or [0]
    at = {"p50": 0.5, "p99": 0.99, "max": 1.0}
    return {name: round(ordered[min(int(p * len(ordered)), len(ordered) - 1)] / 1e6, 3)
            for name, p in at.items()}


def clean(plan: Plan, layout: Layout, board: Board) -> None:
    """Deletes what was checked when the log outgrows the run's disk."""
    notes = Sightings(layout.sightings, "janitor")
    limit, explained = plan.options.disk_bytes, explained_by(plan.options.nemeses)
    with pylog.Log(layout.log) as log:
        while board.phase < Phase.END:
            time.sleep(0.1)
            try:
                total, start, end = log.size_bytes, log.start_offset, log.end_offset
                if total > limit and not board.is_held:
                    wanted = start + int((end - start) * (1 - limit / 2 / total))
                    log.delete_before(max(start, min(wanted, board.checked)))
            except PylogError as error:
                if not isinstance(error, explained):
                    notes.note("unexpected-error", f"{type(error).__name__}: {error}")
                time.sleep(0.1)
