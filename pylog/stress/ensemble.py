"""The stage of the workloads `group`, `queue` and `request`: the same run, with members in it.

In place of a log there is a data directory, in place of the ledgers are diaries, and in the end the
judgement takes the place of the settlement. Faults are those that can be done to a member.
"""

import json
import time
from functools import partial
from types import ModuleType
from typing import NamedTuple

from pylog.stress import grouping, queue_work, request_work
from pylog.stress.board import Phase
from pylog.stress.diary import read_diaries
from pylog.stress.examination import Examination, Layout
from pylog.stress.judgement import SECOND, Judgement, Outage, note_finding
from pylog.stress.plan import Fault
from pylog.stress.queue_judgement import QueueJudgement
from pylog.stress.request_judgement import RequestJudgement
from pylog.stress.stage import Stage

Judge = type[Judgement] | type[QueueJudgement] | type[RequestJudgement]


class Piece(NamedTuple):
    """players: the module of who works. judgement: of what they write."""

    players: ModuleType
    judgement: Judge


PIECES = {"group": Piece(grouping, Judgement), "queue": Piece(queue_work, QueueJudgement),
          "request": Piece(request_work, RequestJudgement)}


class Ensemble(Stage):
    """One run of one plan of the workload."""

    def raise_curtain(self) -> None:
        self.hit: list[tuple[int, int]] = []    # process, and the number of its event
        players = PIECES[self.plan.options.workload].players
        self.must_end(self.start("founder", 0, partial(players.found, self.plan, self.layout)))
        run = (self.plan, self.layout, self.board)
        self.start("watcher", 0, partial(players.look, *run))
        self.start("feeder", 0, partial(players.feed, *run))
        for index in range(self.plan.options.processes):
            self.start("member", index, partial(players.take_part, *run, index))
        self.began = time.monotonic()

    def begin(self, fault: Fault) -> None:
        members, before = self.cast.alive("member"), len(self.events)
        super().begin(fault)
        for number, event in enumerate(self.events[before:], before):
            self.hit += [(pid, number) for pid in ([event.pid] if event.pid else members)]

    def play_quiet(self) -> None:
        """No more faults; the feeder ends."""
        self.end_faults()
        self.board.phase = Phase.STOP
        if not self.go_on_while(lambda: bool(self.cast.alive("feeder"))):
            self.notes.note("unwritable-log", "the feeder did not come back from its call within "
                            f"{self.plan.options.quiet_seconds:g} s after the faults")
            self.kill("feeder")

    def acknowledged(self) -> int:
        return self.board.checked

    def examine(self) -> Examination:
        """The judgement; its figures go where the watcher's are."""
        judge = PIECES[self.plan.options.workload].judgement
        ends = ends_of(self.layout)
        judgement = judge(read_diaries(self.layout.ledgers), ends, self.outages())
        sent = max(self.board.checked, sum(ends.values()))    # members of a queue put some, too
        for finding in judgement.findings():
            note_finding(self.notes, self.layout, finding)
        takeovers = [one for one in judgement.takeovers() if one.seconds != float("inf")]
        figures = {
            "balance": {"sent": sent, "acknowledged": sent},
            "checker": judgement.figures(),
            "details": judgement.details(),
            "takeover_ms": quantiles([1000 * one.seconds for one in takeovers]),
            "lone_takeover_ms": quantiles([1000 * one.seconds for one in takeovers
                                           if one.is_alone]),
        }
        self.layout.figures.write_text(json.dumps(figures), encoding="utf-8")
        return Examination({"records": 0})

    def outages(self) -> list[Outage]:
        done = [(pid, self.events[number]) for pid, number in self.hit]
        return [Outage(pid, int(event.at * SECOND), None if event.nemesis == "kill"
                       else int((event.until or event.at) * SECOND)) for pid, event in done]


def ends_of(layout: Layout) -> dict[int, int]:
    """The ends that the watcher left; none where it left none."""
    if not layout.figures.exists():
        return {}
    told = json.loads(layout.figures.read_text(encoding="utf-8"))["ends"]
    return {int(partition): end for partition, end in told.items()}


def quantiles(values: list[float]) -> dict[str, float]:
    """How many, p50, p99 and the greatest; empty where there is none."""
    values = sorted(values)
    if not values:
        return {}
    return {"count": len(values), "p50": round(values[len(values) // 2], 1),
            "p99": round(values[int(0.99 * len(values))], 1), "max": round(values[-1], 1)}
