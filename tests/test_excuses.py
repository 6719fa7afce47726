"""Excuses: what a fault of the run explains does not fail it, and nothing else is let through."""

import resource
import subprocess
from pathlib import Path

import pytest

import pylog
from pylog.errors import (
    ConfigurationError,
    CorruptRecordError,
    DiskFullError,
    IllegalStateError,
    MessageSizeTooLargeError,
    PylogTimeoutError,
    ResourceLimitError,
    WrongEndOffsetError,
)
from pylog.stress import nemesis
from pylog.stress.board import Board, Phase
from pylog.stress.examination import Layout
from pylog.stress.excuses import excuse_of
from pylog.stress.nemesis import Event
from pylog.stress.passage import segments_of
from pylog.stress.plan import Fault, Options, Plan
from pylog.stress.sightings import Sighting, Sightings, Tally, read_sightings
from pylog.stress.stage import Stage
from pylog.stress.verdict import anomalies_of
from pylog.stress.writing import Writer

# ---- errors of writers --------------------------------------------------------------------------


def told_of(directory, error, nemeses, began):
    """What a writer of such a run notes of an error."""
    plan = Plan(Options(nemeses=nemeses), 1, ())
    Writer(plan, Layout(directory), Board(), 0).excuse(error("as it were"), began)
    return [sighting.anomaly for sighting in read_sightings(Layout(directory).sightings)]


@pytest.mark.parametrize(("nemesis", "error"), [
    ("limits", ResourceLimitError), ("limits", MemoryError), ("pause", PylogTimeoutError),
    ("flip", CorruptRecordError), ("truncate", CorruptRecordError),
])
def test_error_is_explained_while_its_fault_may_stand_and_not_after(tmp_path, nemesis, error):
    assert told_of(tmp_path, error, (nemesis,), Phase.FAULTS) == ["refused-call"]
    (tmp_path / "sightings").unlink()

    assert told_of(tmp_path, error, (nemesis,), Phase.QUIET) == ["unexpected-error"]


@pytest.mark.parametrize("kept", [25, 40, 80])
def test_sighting_cut_short_counts_for_its_name_and_hides_none(tmp_path, kept):
    path = tmp_path / "sightings"
    Sightings(path, "one").note("hole", "x" * 100)
    path.write_bytes(path.read_bytes()[:kept])

    Sightings(path, "other").note("duplicate", "it stands")

    assert [sighting.anomaly for sighting in read_sightings(path)] == ["hole", "duplicate"]
    assert Tally(path).look() == {"hole": 1, "duplicate": 1}


def test_disk_that_was_full_is_so_until_the_janitor_comes(tmp_path):
    assert told_of(tmp_path, DiskFullError, ("disk-full",), Phase.QUIET) == ["refused-call"]


@pytest.mark.parametrize(("nemeses", "error"), [
    ((), ResourceLimitError), (("kill", "fork"), PylogTimeoutError),
    (("pause",), CorruptRecordError), (("flip",), ConfigurationError), (("pause",), ValueError),
    (("kill-at",), IllegalStateError),
])
def test_error_that_no_fault_of_the_run_explains_is_told(tmp_path, nemeses, error):
    assert told_of(tmp_path, error, nemeses, Phase.FAULTS) == ["unexpected-error"]


@pytest.mark.parametrize("nemeses", [(), ("kill",), ("limits", "pause")])
@pytest.mark.parametrize("began", [Phase.FAULTS, Phase.QUIET])
def test_disk_that_is_full_by_no_fault_of_the_run_is_called_that(tmp_path, nemeses, began):
    assert told_of(tmp_path, DiskFullError, nemeses, began) == ["full-disk"]


@pytest.mark.parametrize("error", [WrongEndOffsetError, MessageSizeTooLargeError])
@pytest.mark.parametrize("began", [Phase.FAULTS, Phase.QUIET])
def test_error_that_callers_ask_for_is_not_worth_a_word(tmp_path, error, began):
    assert told_of(tmp_path, error, ("limits",), began) == []


# ---- what is seen -------------------------------------------------------------------------------

CUT = Event(10.0, "truncate", "a file cut", file="a.log", position=7, offset=50, end_offset=100,
            until=10.3)
FLIP = Event(10.0, "flip", "a bit", file="a.log", position=7, offset=50, end_offset=60, until=10.3)
LIMITS = Event(10.0, "limits", "open files up to 4", pid=77, until=11.0)


def seen(anomaly, at=10.1, by="reader 1", pid=1, **known):
    return Sighting(anomaly, "it", at=at, by=by, pid=pid, **known)


@pytest.mark.parametrize(("event", "sighting"), [
    (FLIP, seen("torn-batch", offset=50)),
    (FLIP, seen("torn-batch", offset=59)),
    (FLIP, seen("torn-batch", offset=40, end_offset=51)),
    (FLIP, seen("torn-batch", file="a.log")),
    (FLIP, seen("torn-batch", offset=55, at=11.2)),
    (FLIP, seen("changed-view", offset=55, at=500.0)),
    (CUT, seen("torn-batch", offset=99, at=500.0)),
    (CUT, seen("broken-worker", at=11.2, by="stage")),
    (CUT, seen("damaged-structure", file="a.log", by="stage")),
    (LIMITS, seen("broken-worker", by="writer 0", pid=77)),
    (LIMITS, seen("broken-worker", by="child of writer 0", pid=78)),
    (LIMITS, seen("broken-worker", by="stage", pid=77)),
])
def test_sighting_at_the_place_and_time_of_a_fault_is_excused(event, sighting):
    assert excuse_of(sighting, [event]) is event


@pytest.mark.parametrize(("event", "sighting"), [
    (FLIP, seen("torn-batch", offset=60)),
    (FLIP, seen("torn-batch", offset=40, end_offset=50)),
    (FLIP, seen("torn-batch", file="b.log")),
    (FLIP, seen("torn-batch")),
    (FLIP, seen("torn-batch", offset=55, at=9.9)),
    (FLIP, seen("torn-batch", offset=55, at=11.4)),
    (FLIP, seen("duplicate", offset=55)),
    (FLIP, seen("broken-worker", file="a.log")),
    (CUT, seen("torn-batch", offset=100)),
    (CUT, seen("torn-batch", offset=5000, file="z.log", at=500.0)),
    (CUT, seen("torn-batch", offset=55, by="stage", at=500.0)),
    (CUT, seen("damaged-structure", file="a.log", by="stage", at=500.0)),
    (CUT, seen("hole", offset=55)),
    (CUT, seen("broken-worker", at=11.4, by="stage")),
    (CUT, seen("broken-worker", at=11.4, by="reader 1")),
    (CUT, seen("broken-worker", at=9.9, by="reader 1")),
    (LIMITS, seen("broken-worker", by="reader 0", pid=78)),
    (LIMITS, seen("broken-worker", by="stage", pid=78)),
    (LIMITS, seen("broken-worker", by="writer 0", pid=77, at=12.1)),
    (LIMITS, seen("torn-batch", offset=55, pid=77)),
])
def test_sighting_elsewhere_or_later_or_of_another_kind_is_not_excused(event, sighting):
    assert excuse_of(sighting, [event]) is None


def paused(at, until):
    return Event(at, "pause", "SIGSTOP", pid=1, until=until)


@pytest.mark.parametrize(("pauses", "at"), [
    ([paused(10.2, 12.2)], 13.1),
    ([paused(9.0, 11.0)], 11.9),
    ([paused(11.2, 13.2)], 14.1),
    ([paused(1.0, 2.0), paused(10.2, 12.0), paused(12.5, 14.5)], 15.4),
])
def test_sighting_of_a_process_that_was_stopped_on_the_way_is_excused(pauses, at):
    assert excuse_of(seen("torn-batch", offset=55, at=at), [FLIP], pauses) is FLIP
    assert excuse_of(seen("torn-batch", offset=55, at=at), [FLIP]) is None


@pytest.mark.parametrize(("pauses", "at"), [
    ([paused(10.2, 12.2)], 13.3),     # it had gone on for longer than a second
    ([paused(11.4, 13.4)], 13.5),     # it was stopped when all was over
    ([paused(8.0, 9.0)], 11.4),       # and before anything had begun
])
def test_pause_is_no_excuse_for_what_is_seen_long_after_it(pauses, at):
    assert excuse_of(seen("torn-batch", offset=55, at=at), [FLIP], pauses) is None


@pytest.mark.parametrize(("pid", "is_excused"), [(1, True), (2, False)])
def test_pause_of_another_process_is_no_excuse(pid, is_excused):
    stage = Stage(Plan(Options(), 1, ()), Path("run"))
    stage.events = [FLIP, paused(10.2, 12.2)]

    rows = anomalies_of([seen("torn-batch", offset=55, at=13.0, pid=pid)], stage)

    assert [*rows] == ["torn-batch (counted)" if is_excused else "torn-batch"]


def test_damage_is_told_of_by_the_name_that_errors_have_for_the_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    stage = Stage(Plan(Options(), 1, ()), Path("run"))
    with pylog.Log(Path("run/log")) as log:
        log.append(bytes(100))
    (tmp_path / "run/log/00000000000000000000.log").write_bytes(bytes(100))

    with pytest.raises(CorruptRecordError) as caught, pylog.Log(Path("run/log"), mode="r") as log:
        list(log.read())

    assert caught.value.path == str(stage.log / "00000000000000000000.log")


class Target:
    """A log whose middle segments are to be damaged, and one process."""

    def __init__(self, log=None, pid=None):
        self.log, self.pid = log, pid

    def alive(self, *roles):
        return [self.pid]

    def inspect(self, event):
        pass


def test_cut_is_said_to_end_where_the_next_segment_begins(log_path):
    with pylog.Log(log_path, segment_bytes=4096) as log:
        for _ in range(400):
            log.append(bytes(100))
    event = Event(0.0, "truncate", "")

    nemesis.truncate(Target(log_path), Fault(0.0, "truncate", 0.1, 5), event)

    bases = [int(file.name[:20]) for file in segments_of(log_path)]
    assert event.end_offset in bases
    assert event.offset < event.end_offset
    assert event.end_offset == bases[bases.index(int(event.file[-24:-4])) + 1]


def test_limits_that_overlap_are_all_undone():
    process = subprocess.Popen(["sleep", "60"])
    names = resource.RLIMIT_NOFILE, resource.RLIMIT_AS
    try:
        undos = [nemesis.limits(Target(pid=process.pid), Fault(0.0, "limits", 0.1, choice),
                                Event(0.0, "limits", "")) for choice in range(6)]
        limited = [resource.prlimit(process.pid, name) for name in names]
        for undo in undos:
            undo()
        undone = [resource.prlimit(process.pid, name) for name in names]
    finally:
        process.kill()
        process.wait()

    assert undone == [resource.getrlimit(name) for name in names] != limited
