"""What a person sees of a run, in a narrow terminal and in a pipe."""

import fcntl
import io
import os
import pty
import struct
import termios
from pathlib import Path

import pytest
from rich.console import Console

from pylog.stress.display import Display, fitted
from pylog.stress.plan import NEMESES, Options, Plan
from pylog.stress.sightings import Sightings
from pylog.stress.stage import Stage

REPORT = """verdict: ok
  records: 3,205,541 sent, 3,198,011 acknowledged, 5,520 failed, 2,010 indeterminate
    3.458 s, writer 0: LogError: cannot map [/a/long/path/without/any/blank/in/it/at/all.log]
"""


class Few:
    """A cast of two in each role. A real one adopts orphans, and this process buries none."""

    def alive(self, *roles):
        return [1, 2]


@pytest.fixture
def stage(tmp_path):
    """One in full swing: all faults, many of them, and something seen."""
    stage = Stage(Plan(Options(nemeses=tuple(NEMESES)), 1, ()), tmp_path)
    (tmp_path / "ledgers").mkdir()
    stage.cast = Few()
    stage.faults.update(dict.fromkeys(NEMESES, 123_456))
    stage.replaced.update(writer=123_456, reader=1)
    notes = Sightings(tmp_path / "sightings", "stage")
    notes.note("visible-before-durable", "it", offset=5)
    notes.note("refused-call", "it")
    return stage


@pytest.mark.parametrize("width", [60, 80, 200])
def test_live_block_fits_the_terminal_and_shows_all(stage, width):
    display, drawn = Display(io.StringIO()), io.StringIO()

    Console(file=drawn, width=width).print(*display.block(stage, stage.began + 3))

    lines = drawn.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    assert len(lines) < 20
    words = " ".join(drawn.getvalue().split())
    for name in NEMESES:
        assert f"123,456 {name}" in words
    assert "123,456 writers, 1 reader" in words
    assert "sighted so far: 1 visible-before-durable" in words
    assert "refused-call" not in words


def test_line_counts_faults_and_nothing_else_as_faults(stage):
    line = Display(io.StringIO()).line(stage, stage.began + 3)

    assert f"{123_456 * len(NEMESES):,} faults, sighted so far: 1 visible-before-durable" in line


@pytest.fixture
def terminal():
    """Opens a terminal of so many columns, to be written to."""
    opened = []

    def open_terminal(columns):
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 20, columns, 0, 0))
        opened.append(ours)
        return os.fdopen(theirs, "w")

    yield open_terminal
    for descriptor in opened:
        os.close(descriptor)


@pytest.mark.parametrize("columns", [0, 1, 60, 80])
def test_report_is_broken_between_words_in_a_terminal(terminal, columns):
    with terminal(columns) as stream:
        lines = fitted(REPORT, stream).splitlines()

    assert " ".join(REPORT.split()) == " ".join(" ".join(lines).split())
    assert all(len(line) <= max(40, columns) or line.count(" ") == line.rfind(" ") + 1
               for line in lines)    # but for a word that has a line of its own
    assert lines[0] == "verdict: ok"
    assert lines[1].startswith("  records")
    assert lines[2].startswith("      ")


def test_report_in_a_pipe_has_its_lines_whole():
    assert fitted(REPORT, io.StringIO()) == REPORT


def test_report_in_a_file_has_its_lines_whole(tmp_path):
    with Path(tmp_path / "file").open("w") as stream:
        assert fitted(REPORT, stream) == REPORT
