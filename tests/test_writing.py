"""What a writer enters in its ledger when a call has raised: the error's word, or doubt."""

import pytest

import pylog
from pylog import _native, errors
from pylog.stress import writing
from pylog.stress.board import Board, Phase
from pylog.stress.examination import Layout
from pylog.stress.liars import Refuser
from pylog.stress.plan import Options, Plan
from pylog.stress.sightings import read_sightings
from pylog.stress.writing import Producer, Writer, enter_failure

RUN = 5


# ---- what an error says -------------------------------------------------------------------------


@pytest.mark.parametrize(("error", "spans", "acknowledged"), [
    (errors.WrongEndOffsetError("no"), [(0, 9, True)], 0),
    (errors.MessageSizeTooLargeError("no"), [(0, 9, True)], 0),
    (errors.ConfigurationError("no"), [(0, 9, True)], 0),
    (errors.ResourceLimitError("no", appended=0), [(0, 9, True)], 0),
    (errors.PylogTimeoutError("no", appended=0), [(0, 9, True)], 0),
    (errors.DiskFullError("no", appended=4), [(4, 9, True)], 4),
    (errors.DurabilityError("no", appended=9), [], 9),
    (errors.ResourceLimitError("no"), [(0, 9, False)], 0),
    (errors.DiskFullError("no"), [(0, 9, False)], 0),
    (errors.PylogTimeoutError("no"), [(0, 9, False)], 0),
    (MemoryError(), [(0, 9, False)], 0),
])
def test_error_is_taken_at_its_word_and_at_no_more(tmp_path, error, spans, acknowledged):
    ledger = _native.Ledger(tmp_path / "producer-0", RUN, 0)
    ledger.enter()
    ledger.begin(9)
    enter_failure(ledger, error)

    assert (ledger.spans, ledger.acknowledged, ledger.settled) == (spans, acknowledged, 9)


# ---- conditional appends that come second -------------------------------------------------------


class Late(pylog.Log):
    """A log that has been appended to whenever its user has looked where it ends."""

    def append_many(self, *values, **more):
        super().append_many([b"somebody else's"] * 3)
        return super().append_many(*values, **more)


class Undurable(Refuser):
    """One that shows what it has appended after a flush."""

    is_flushed = False

    @property
    def readable_offset(self):
        return super().readable_offset if self.is_flushed else 0

    def flush(self):
        self.is_flushed = True

    def read(self, *asked, **more):
        return super().read(*asked, **more) if self.is_flushed else iter(())


@pytest.fixture
def produce(tmp_path):
    """A function that makes a producer on a log of a class, made with some options."""
    made = []

    def make(kind, durability="os"):
        layout = Layout(tmp_path)
        layout.ledgers.mkdir()
        log = kind(layout.log, durability=durability)
        made.append(log)
        plan = Plan(Options(ways=("if_end",), size_max=400), RUN, ())
        return Producer(Writer(plan, layout, Board(), 0), log, 0)

    yield make
    for log in made:
        log.close()


@pytest.mark.parametrize("durability", ["os", "fsync"])
def test_call_that_came_second_and_left_nothing_was_never_sent(produce, durability):
    producer = produce(Late, durability)
    for _ in range(20):
        producer.turn("if_end", Phase.FAULTS)

    assert producer.log.end_offset == 60
    assert (producer.ledger.sent, producer.ledger.spans) == (0, [])
    assert read_sightings(producer.writer.layout.sightings) == []


@pytest.mark.parametrize("kind", [Refuser, Undurable])
def test_call_that_came_second_and_left_something_has_failed(produce, kind):
    producer = produce(kind)
    producer.turn("if_end", Phase.FAULTS)

    assert producer.ledger.sent == producer.log.end_offset > 0
    assert producer.ledger.spans == [(0, producer.ledger.sent, True)]


def test_call_of_which_nobody_can_see_whether_it_left_something_has_failed(produce, monkeypatch):
    monkeypatch.setattr(writing, "LOOK_BACK_MAX", 2)
    producer = produce(Late)
    producer.turn("if_end", Phase.FAULTS)

    assert producer.ledger.spans == [(0, producer.ledger.sent, True)]


def test_trouble_while_looking_is_told_and_withdraws_nothing(produce, monkeypatch):
    producer = produce(Late)
    monkeypatch.setattr(Late, "read", lambda *asked, **more: 1 / 0, raising=False)
    producer.turn("if_end", Phase.FAULTS)

    (sighting,) = read_sightings(producer.writer.layout.sightings)
    assert sighting.anomaly == "unexpected-error"
    assert producer.ledger.spans == [(0, producer.ledger.sent, True)]
