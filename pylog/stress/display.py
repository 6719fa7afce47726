"""What a run looks like while it goes: one block that is drawn over, or a line now and then.

rich draws it, without its thread: the stage forks, and a process that forks has no threads.
"""

import os
import sys
import textwrap
import time
from typing import TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from pylog.report import counted
from pylog.stress import sightings
from pylog.stress.anomalies import ANOMALIES
from pylog.stress.board import Phase
from pylog.stress.stage import Stage

LINE_SECONDS = 5.0
WIDTH_MIN = 40
WHAT_IT_IS = {
    Phase.FAULTS: "faults", Phase.QUIET: "quiet: no more faults",
    Phase.STOP: "the writers end", Phase.SETTLE: "all is to be seen", Phase.END: "examination",
}


class Display:
    """Shows a stage, four times a second in a terminal, every five seconds elsewhere."""

    def __init__(self, stream: TextIO = sys.stderr) -> None:
        self.console = Console(file=stream)
        self.live = Live(console=self.console, auto_refresh=False, transient=True)
        self.before = (time.monotonic(), 0)
        self.shown = 0.0
        self.tally: sightings.Tally | None = None

    def __enter__(self) -> "Display":
        if self.console.is_terminal:
            self.live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.live.stop()

    def show(self, stage: Stage) -> None:
        """The stage calls it."""
        now = time.monotonic()
        if self.console.is_terminal:
            self.live.update(Group(*self.block(stage, now)), refresh=True)
        elif now - self.shown >= LINE_SECONDS:
            self.shown = now
            self.console.print(self.line(stage, now), soft_wrap=True, highlight=False)

    def line(self, stage: Stage, now: float) -> str:
        """All of it in one."""
        appended, rate = self.progress(stage, now)
        return (f"{now - stage.began:6.1f} s  {WHAT_IT_IS[stage.board.phase]}: "
                f"{appended:,} records ({rate:,.0f}/s), {stage.board.checked:,} checked, "
                f"{counted(stage.faults.total(), 'fault')}, {self.sighted(stage)}")

    def block(self, stage: Stage, now: float) -> list[Table | Text]:
        """A small table, and what went wrong so far."""
        appended, rate = self.progress(stage, now)
        table = Table.grid(padding=(0, 2))
        table.add_row(f"{now - stage.began:.1f} s of {stage.plan.options.seconds:g}",
                      WHAT_IT_IS[stage.board.phase])
        table.add_row("appended", f"{appended:,} records, {rate:,.0f}/s")
        table.add_row("checked", f"up to offset {stage.board.checked:,}")
        table.add_row("faults", ", ".join(
            f"{count:,} {name}" for name, count in stage.faults.items()) or "none yet")
        table.add_row("replaced", ", ".join(
            counted(count, role) for role, count in stage.replaced.items()) or "none yet")
        table.add_row("alive", ", ".join(
            counted(len(stage.alive(role)), role) for role in ("writer", "reader", "driver")
            if stage.alive(role)))
        return [table, Text(self.sighted(stage), style="bold")]

    def progress(self, stage: Stage, now: float) -> tuple[int, float]:
        """Records so far, and how many a second since the last look."""
        appended = stage.acknowledged()
        then, before = self.before
        self.before = (now, appended)
        return appended, (appended - before) / max(now - then, 1e-3)

    def sighted(self, stage: Stage) -> str:
        """Sightings by name, of all that is no matter of course. What a fault excuses, and what
        several saw of one anomaly, is told apart in the end."""
        self.tally = self.tally or sightings.Tally(stage.layout.sightings)
        seen = [f"{count:,} {name}" for name, count in self.tally.look().items()
                if not ANOMALIES[name].is_documented]
        return "sighted so far: " + (", ".join(seen) or "none")


def fitted(text: str, stream: TextIO) -> str:
    """The lines as they are; in a terminal broken between words, those that go on further in."""
    if not stream.isatty():
        return text
    width = max(WIDTH_MIN, os.get_terminal_size(stream.fileno()).columns)
    return "\n".join(
        textwrap.fill(line, width, subsequent_indent=" " * (len(line) - len(line.lstrip()) + 4),
                      break_long_words=False, break_on_hyphens=False)
        for line in text.splitlines())
