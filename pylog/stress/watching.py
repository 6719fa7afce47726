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
from pylog.stress.sightings import Sightings, is_of_full_disk
from pylog.stress.writing import explained_by

TURN_BATCHES = 256
DELAYS_MAX = 1 << 16


def watch(plan: Plan, layout: Layout, board: Board) -> None:
    """Checks all that is appended, and settles with the ledgers when the writers are gone."""
    notes = Sightings(layout.sightings, "watcher")
    passage = Passage(notes, plan.run, open_folds(layout.folds))
    behind = Delays()
    log = pylog.Log(layout.log, mode="r")
    while True:
        is_over = board.phase == Phase.SETTLE
        taken = passage.go_on(log, TURN_BATCHES)
        board.checked = passage.next_offset
        if taken:
            behind.take(time.monotonic_ns() - passage.checker.figures()["last_sent_ns"])
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
        "behind_ms": behind.percentiles(), "cpu_seconds": time.thread_time(),
        "log": {name: stats[name] for name in ("owner_deaths", "rolls", "flushes", "end_offset",
                                               "start_offset", "size_bytes")},
    }))


class Delays:
    """Times in ns, of which an even choice is kept, and the greatest: a run may take a day."""

    def __init__(self) -> None:
        self.kept: list[int] = []
        self.count = self.longest = 0
        self.step = 1    # each so many'th is kept

    def take(self, delay_ns: int) -> None:
        self.longest = max(self.longest, delay_ns)
        if self.count % self.step == 0:
            self.kept.append(delay_ns)
        self.count += 1
        if len(self.kept) == DELAYS_MAX:
            del self.kept[1::2]
            self.step *= 2

    def percentiles(self) -> dict[str, float]:
        """In milliseconds."""
        ordered = sorted(self.kept) or [0]
        at = {name: ordered[int(part * len(ordered))]
              for name, part in (("p50", 0.5), ("p99", 0.99))}
        return {name: round(ns / 1e6, 3) for name, ns in (*at.items(), ("max", self.longest))}


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
                    name = "full-disk" if is_of_full_disk(error) else "unexpected-error"
                    notes.note(name, f"{type(error).__name__}: {error}")
                time.sleep(0.1)
