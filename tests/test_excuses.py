"""Excuses: what a fault of the run explains does not fail it, and nothing else is let through."""

import pytest

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
from pylog.stress.board import Board, Phase
from pylog.stress.examination import Layout
from pylog.stress.plan import Options, Plan
from pylog.stress.sightings import read_sightings
from pylog.stress.writing import Writer

# ---- errors of writers --------------------------------------------------------------------------


def told_of(directory, error, nemeses, began):
    """What a writer of such a run notes of an error."""
    plan = Plan(Options(nemeses=nemeses), 1, ())
    Writer(plan, Layout(directory), Board(), 0).excuse(error("as it were"), began)
    return [sighting.anomaly for sighting in read_sightings(Layout(directory).sightings)]


@pytest.mark.parametrize(("nemesis", "error"), [
    ("limits", ResourceLimitError), ("limits", MemoryError), ("disk-full", DiskFullError),
    ("pause", PylogTimeoutError), ("flip", CorruptRecordError), ("truncate", CorruptRecordError),
])
def test_error_is_explained_while_its_fault_may_stand_and_not_after(tmp_path, nemesis, error):
    assert told_of(tmp_path, error, (nemesis,), Phase.FAULTS) == ["refused-call"]
    (tmp_path / "sightings").unlink()

    assert told_of(tmp_path, error, (nemesis,), Phase.QUIET) == ["unexpected-error"]


@pytest.mark.parametrize(("nemeses", "error"), [
    ((), ResourceLimitError), (("kill",), DiskFullError), (("kill", "fork"), PylogTimeoutError),
    (("pause",), CorruptRecordError), (("flip",), ConfigurationError), (("pause",), ValueError),
    (("kill-at",), IllegalStateError),
])
def test_error_that_no_fault_of_the_run_explains_is_told(tmp_path, nemeses, error):
    assert told_of(tmp_path, error, nemeses, Phase.FAULTS) == ["unexpected-error"]


@pytest.mark.parametrize("error", [WrongEndOffsetError, MessageSizeTooLargeError])
@pytest.mark.parametrize("began", [Phase.FAULTS, Phase.QUIET])
def test_error_that_callers_ask_for_is_not_worth_a_word(tmp_path, error, began):
    assert told_of(tmp_path, error, ("limits",), began) == []
