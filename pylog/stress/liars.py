"""Logs that lie: what no file can show is planted in what a reader is told.

A reading process of a run (reading.py), or a writing one, is given, instead of its log, one that
answers wrongly in one way. What it notes must be the lie, by name and place.
"""

import contextlib
import operator
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, SupportsIndex

import pylog
from pylog.errors import OffsetOutOfRangeError, WrongEndOffsetError
from pylog.stress.board import Board, Phase
from pylog.stress.editor import LogFiles
from pylog.stress.examination import Layout, probe_once
from pylog.stress.passage import Passage
from pylog.stress.plan import Options, Plan
from pylog.stress.planting import Spot, patch
from pylog.stress.reading import VIEWS, Reader
from pylog.stress.settlement import settle
from pylog.stress.writing import Producer, Writer


class Liar(pylog.Log):
    """A log whose answers are those for a neighbour of what was asked for, or are refused."""

    by = 0
    durable: int | None = None
    refuses = False
    first_asked = -1

    def fetch(self, offset: SupportsIndex, *limits: SupportsIndex, **more: SupportsIndex) -> Any:
        offset = self.neighbour(offset)
        if self.refuses:
            raise OffsetOutOfRangeError("it was deleted", offset=offset)
        return super().fetch(offset, *limits, **more)

    def append_many(self, *values: Any, **more: Any) -> int:
        return super().append_many(*values, **more) + self.by

    def get(self, offset: SupportsIndex) -> Any:
        return super().get(self.neighbour(offset))

    def neighbour(self, offset: SupportsIndex) -> int:
        """What is told instead, if there is such a record; notes the first time."""
        asked = operator.index(offset)
        if not self.start_offset <= asked + self.by < self.end_offset:
            return asked
        if self.first_asked < 0:
            self.first_asked = asked
        return asked + self.by

    @property
    def durable_offset(self) -> int:
        return super().durable_offset if self.durable is None else self.durable


class Boaster(Liar):
    """One that says another offset than the one at which it appended, and tells it no more."""

    def get(self, offset: SupportsIndex) -> Any:
        return pylog.Log.get(self, offset)


class Refuser(Liar):
    """One that refuses a list because it came second, and appends it nevertheless."""

    def append_many(self, *values: Any, if_end: Any = None, **more: Any) -> int:
        found = self.end_offset
        super().append_many(*values, **more)
        raise WrongEndOffsetError("it came second", offset=if_end, end_offset=found)


class Sleeper(Liar):
    """One whose waiters are never woken."""

    def cursor(self, start: Any = "earliest") -> Any:
        return self

    def wait(self, *asked: Any) -> bool:
        return False


@dataclass(frozen=True, slots=True)
class Lie:
    """One way to lie. implies: what else a reader rightly says of it."""

    anomaly: str
    tell: Callable[[Reader, Any, random.Random], Spot]
    implies: frozenset[str] = frozenset()
    liar: type[Liar] = Liar
    mode: Literal["a", "r"] = "r"

    @property
    def what(self) -> str:
        """The first line of what its function says."""
        return (self.tell.__doc__ or "").splitlines()[0].rstrip(".")


def skip(reader: Reader, log: Liar, rng: random.Random) -> Spot:
    """a reader is given the record behind the one that is next."""
    log.by = 1
    while log.first_asked < 0:
        reader.read_chunks()
    return Spot(offset=log.first_asked + 1)


def go_back(reader: Reader, log: Liar, rng: random.Random) -> Spot:
    """a reader is given the record before the one that is next."""
    log.by = -1
    while log.first_asked < 0:
        reader.read_chunks()
    return Spot(offset=log.first_asked - 1)


def answer_with_the_next(reader: Reader, log: Liar, rng: random.Random) -> Spot:
    """one who asks for a record gets the one behind it."""
    log.by = 1
    while log.first_asked < 0:
        reader.get()
    return Spot(offset=log.first_asked)


def mislead_the_prober(reader: Reader, log: Liar, rng: random.Random) -> Spot:
    """the prober gets the record before the one asked for, or behind it."""
    offset = rng.randrange(1, 8000)
    log.by = rng.choice((-1, 1))
    probe_once(log, reader.notes, offset)
    return Spot(offset=offset)


def change_a_held_view(reader: Reader, log: Liar, rng: random.Random) -> Spot:
    """bytes of a segment change under a view that is held."""
    files = LogFiles(log.path)
    for _ in range(VIEWS):
        reader.hold_view()
    offset, batch = next((offset, batch) for offset, *_ in reader.views
                         for batch in files.batches()
                         if batch.base <= offset < batch.end and not batch.attributes & 7)
    at = batch.size - 9    # in the last record, which is in the view as the batch is whole
    byte = batch.to_bytes()[at]
    patch(batch.file, batch.position + at, bytes([byte ^ 1]))
    reader.look_back()
    return Spot(offset=offset)


def show_too_early(reader: Reader, log: Liar, rng: random.Random) -> Spot:
    """records of an fsync log are read before they are durable."""
    options = replace(reader.plan.options, durability="fsync")
    reader.plan = replace(reader.plan, options=options)
    log.durable = 0
    reader.read_chunks()
    return Spot(offset=0)


def refuse(reader: Reader, log: Liar, rng: random.Random) -> Spot:
    """a record that is there is refused as deleted."""
    log.refuses = True
    try:
        reader.read_chunks()
    except OffsetOutOfRangeError as error:
        reader.was_refused(error)
    return Spot(offset=log.first_asked)


def let_sleep(reader: Reader, log: Liar, rng: random.Random) -> Spot:
    """a waiter is not woken, and old records are there."""
    reader.next = rng.randrange(8000)
    reader.follow()
    return Spot(offset=reader.next)


def boast(reader: Reader, log: Liar, rng: random.Random) -> Spot:
    """an append returns the offset of its producer's record before."""
    log.by = -1
    writer = Writer(reader.plan, Layout(log.path.parent), reader.board, 0)
    producer = Producer(writer, log, 0)    # whose records are the last ones there
    sequence = producer.ledger.sent
    producer.look_back(producer.append_many())
    return Spot(producer=0, sequence=sequence)


def refuse_and_append(reader: Reader, log: Liar, rng: random.Random) -> Spot:
    """an append is refused because it came second, and its records are there."""
    layout = Layout(log.path.parent)
    producer = Producer(Writer(reader.plan, layout, reader.board, 0), log, 0)
    sequence = producer.ledger.sent
    producer.turn("if_end", Phase.FAULTS)
    passage = Passage(reader.notes, reader.plan.run)
    passage.go_on(log)
    settle(passage.checker, layout.producers(), reader.notes)
    return Spot(producer=0, sequence=sequence)


LIES = (
    Lie("failed-write", refuse_and_append, liar=Refuser, mode="a"),
    Lie("misplaced-write", boast, liar=Boaster, mode="a"),
    Lie("poll-skip", skip),
    Lie("nonmonotonic-poll", go_back),
    Lie("lying-index", answer_with_the_next, frozenset({"poll-skip"})),
    Lie("lying-index", mislead_the_prober),
    Lie("changed-view", change_a_held_view),
    Lie("visible-before-durable", show_too_early),
    Lie("retention-early", refuse),
    Lie("late-wake-up", let_sleep, liar=Sleeper),
)


def tell(lie: Lie, layout: Layout, run: int, rng: random.Random) -> Spot:
    """Has a reader told it, in the directory of a run at rest."""
    plan = Plan(Options(seed=rng.getrandbits(32), size_max=400), run, ())
    reader = Reader(plan, layout, Board(), 1)
    reader.log.close()
    with contextlib.closing(lie.liar(layout.log, mode=lie.mode)) as log:
        reader.log = log
        spot = lie.tell(reader, log, rng)
        reader.views.clear()
        return spot
