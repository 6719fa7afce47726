"""The trial of the checker: a good log, one thing planted in it, and whether that is found.

What has never failed proves nothing. So `--plant` makes a good run's directory by every way into a
log, shows that nothing is told of it, and then plants each anomaly (planting.py) in a copy of its
own. It must be *found*, *named* (nothing else is told but what the plant implies) and *placed*.
What no file can show is told to a reader of the run by a log that lies (liars.py). What a group can
do wrong is forged into its members' diaries (forgery.py), and so are a queue (queue_forgery.py,
timed_forgery.py) and request-reply (request_forgery.py).
"""

import itertools
import random
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy

import pylog
from pylog import _native
from pylog.stress import forgery as of_group
from pylog.stress import queue_forgery as of_queue
from pylog.stress import request_forgery as of_request
from pylog.stress import timed_forgery as of_timed
from pylog.stress.anomalies import ANOMALIES
from pylog.stress.diary import read_diaries
from pylog.stress.editor import LogFiles
from pylog.stress.examination import Layout, examine, open_folds
from pylog.stress.forgery import Forgery, forge
from pylog.stress.judgement import Judgement, note_finding, place_of_finding
from pylog.stress.liars import LIES, tell
from pylog.stress.passage import Passage
from pylog.stress.planting import NOT_PLANTED, PLANTS, RESERVED, Planted, Spot, make
from pylog.stress.queue_judgement import QueueJudgement
from pylog.stress.request_judgement import RequestJudgement
from pylog.stress.sightings import Sighting, Sightings, counted, described, read_sightings
from pylog.stress.timed_judgement import TimedJudgement

RUN = 0x600D_0000_600D
PRODUCERS = 4
ROUNDS = 24
FOLDS = 64
FORGED: tuple[tuple[Any, Any], ...] = (
    (of_group, Judgement), (of_queue, QueueJudgement), (of_timed, TimedJudgement),
    (of_request, RequestJudgement))


@dataclass(frozen=True, slots=True)
class Row:
    """One plant, and what was found of it. An empty anomaly: the log unplanted.

    found: how often each name was told. unexpected: those of them that neither are the planted one
    nor follow from it.
    """

    anomaly: str
    what: str
    where: str
    found: dict[str, int] = field(default_factory=dict)
    unexpected: tuple[str, ...] = ()
    is_placed: bool = True
    seconds: float = 0.0

    @property
    def is_found(self) -> bool:
        return not self.anomaly or self.found.get(self.anomaly, 0) > 0

    @property
    def is_right(self) -> bool:
        """Found, named and placed."""
        return self.is_found and self.is_placed and not self.unexpected


def planted(
    names: Iterable[str] = ("all",), seed: int = 0, directory: Path | None = None
) -> Iterator[Row]:
    """Tries the anomalies of these names ("all": every one): first the log unplanted.

    `directory`: where the copies are made; one of its own otherwise. ValueError, with the names
    that there are, for one that is not a plant's.
    """
    wanted = set(names)
    known = {*(one.anomaly for one in PLANTS), *(one.anomaly for one in LIES),
             *(one.anomaly for forged, _ in FORGED for one in forged.FORGERIES)}
    for name in sorted(wanted - known - {"all"}):
        why = NOT_PLANTED.get(name, f"there are all, {', '.join(sorted(known))}")
        raise ValueError(f"{name!r} cannot be planted: {why}")
    with ExitStack() as stack:
        if directory is None:
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pylog-")))
        good = make_good_run(directory / "good", seed)
        yield try_unplanted(good)
        for number, plant in enumerate(PLANTS):
            if {"all", plant.anomaly} & wanted:
                yield try_plant(good, directory / "planted", number, seed)
        for forged, judge_of in FORGED:
            for forgery in forged.FORGERIES:
                if {"all", forgery.anomaly} & wanted:
                    yield try_forgery(forgery, judge_of, forged.ENDS, directory / "forged")
        for number, lie in enumerate(LIES):
            if {"all", lie.anomaly} & wanted:
                yield try_lie(good, directory / "told", number, seed)


def try_unplanted(good: Path) -> Row:
    """Of the good log nothing may be told that is not documented."""
    start = time.perf_counter()
    sightings = look_at(good)
    found = dict(counted(sightings))
    unexpected = tuple(name for name in found if not ANOMALIES[name].is_documented)
    figures = LogFiles(good / "log")
    return Row("", "nothing planted", f"{figures.end} records, {len(figures.segments)} segments",
               found, unexpected, seconds=time.perf_counter() - start)


def try_plant(good: Path, copy: Path, number: int, seed: int) -> Row:
    """Plants one thing in a copy of the good directory and has it looked at."""
    start = time.perf_counter()
    shutil.copytree(good, copy)
    try:
        done = make(PLANTS[number], copy, random.Random(f"{seed} {number}"))
        sightings = look_at(copy)
    finally:
        shutil.rmtree(copy)
    return judge(done, sightings, start)


def judge(done: Planted, sightings: list[Sighting], start: float) -> Row:
    """Found, named, placed?"""
    found = dict(counted(sightings))
    unexpected = tuple(sorted(found.keys() - done.implies - {done.anomaly}))
    is_placed = any(agrees(sighting, done) for sighting in described(sightings))
    return Row(done.anomaly, done.what, text_of(done.spot), found, unexpected, is_placed,
               time.perf_counter() - start)


def try_lie(good: Path, copy: Path, number: int, seed: int) -> Row:
    """Has a reader told one lie, and sees what it says of that."""
    start = time.perf_counter()
    lie, rng = LIES[number], random.Random(f"{seed} lie {number}")
    shutil.copytree(good, copy)
    try:
        spot = tell(lie, layout := Layout(copy), RUN, rng)
        sightings = read_sightings(layout.sightings)
    finally:
        shutil.rmtree(copy)
    return judge(Planted(lie.anomaly, lie.what, spot, lie.implies), sightings, start)


def try_forgery(forgery: Forgery, judge_of: Any, ends: dict[int, int], directory: Path) -> Row:
    """Has forged diaries judged."""
    start = time.perf_counter()
    layout = Layout(directory)
    try:
        forge(forgery.text, layout.ledgers)
        notes = Sightings(layout.sightings, "judge")
        for finding in judge_of(read_diaries(layout.ledgers), ends).findings():
            note_finding(notes, layout, finding)
        sightings = read_sightings(layout.sightings)
    finally:
        shutil.rmtree(directory)
    spot = Spot(file=str(place_of_finding(layout, forgery.process, *ends)))
    return judge(Planted(forgery.anomaly, forgery.what, spot, forgery.implies), sightings, start)


def look_at(directory: Path) -> list[Sighting]:
    """What an examination tells of a run's directory."""
    layout = Layout(directory)
    examine(layout, Sightings(layout.sightings, "examination"), RUN)
    return read_sightings(layout.sightings)


def agrees(sighting: Sighting, done: Planted) -> bool:
    """Whether a sighting is of the planted thing, and says rightly where it is.

    All that both know must be the same, and they must have something in common.
    """
    spot = done.spot
    answers = []
    if sighting.file is not None and spot.file is not None:
        answers.append(sighting.file == spot.file)
        if spot.position is not None:
            answers.append(sighting.position == spot.position)
    if sighting.offset is not None and spot.offset is not None:
        end = sighting.end_offset or sighting.offset + 1
        answers.append(spot.offset < end and sighting.offset < (spot.end or spot.offset + 1))
    if sighting.producer is not None and spot.producer is not None:
        answers.append(sighting.producer == spot.producer)
        if sighting.sequence is not None and spot.sequence is not None:
            last = sighting.sequence + sighting.count
            answers.append(sighting.sequence <= spot.sequence < last)
    return sighting.anomaly == done.anomaly and bool(answers) and all(answers)


def text_of(spot: Spot) -> str:
    """A place in few words."""
    parts = []
    if spot.file is not None:
        file = Path(spot.file)
        name = f"{int(file.stem)}{file.suffix}" if file.stem.isdigit() else file.name
        parts.append(name if spot.position is None else f"{name}:{spot.position}")
    if spot.offset is not None:
        parts.append(f"offset {spot.offset}")
    if spot.producer is not None:
        parts.append(f"record {spot.producer}:{spot.sequence}")
    return ", ".join(parts)


def table(rows: Iterable[Row]) -> str:
    """The rows as text of 100 columns, two lines each; then how many were right."""
    rows = list(rows)
    lines = [line_of("planted", "told", "place", "ms", "")]
    for row in rows:
        told = ", ".join(f"{name} {count}" for name, count in row.found.items()) or "nothing"
        place = "" if not row.anomaly else "right" if row.is_placed else "WRONG"
        verdict = "ok" if row.is_right else "NOT FOUND" if not row.is_found else "NOT RIGHT"
        lines.append(line_of(row.anomaly or "(nothing)", told, place, f"{1000 * row.seconds:.0f}",
                             verdict))
        lines.append(f"    {row.what}: {row.where}" if row.anomaly else f"    {row.where}")
    right = sum(row.is_right for row in rows)
    return "\n".join([*lines, f"{right} of {len(rows)} right", ""])


def line_of(name: str, told: str, place: str, milliseconds: str, verdict: str) -> str:
    """The columns of a row's first line."""
    return f"{name:22} {told:57} {place:5} {milliseconds:>5}  {verdict}".rstrip()


# ---- the good log -----------------------------------------------------------------------------


def make_good_run(directory: Path, seed: int = 0) -> Path:
    """A run's directory in which all is well: several producers, every way in, rolls, an epoch."""
    layout = Layout(directory)
    layout.ledgers.mkdir(parents=True)
    numpy.zeros(FOLDS, numpy.int64).tofile(layout.folds)
    options: dict[str, Any] = {"segment_bytes": 1 << 18, "index_interval_bytes": 2048}
    with pylog.Log(layout.log, **options) as plain, \
            pylog.Log(layout.log, compression="lz4") as packed:
        clock = itertools.count(1_700_000_000_000)
        writers = [GoodWriter(layout, number, seed, clock) for number in range(PRODUCERS)]
        passage = Passage(Sightings(layout.sightings, "passage"), RUN, open_folds(layout.folds))
        for turn in range(ROUNDS):
            mingle(writers, plain, 60)
            for writer in writers:
                writer.write_many(plain, 40)
                writer.write_many(packed, 120)
                writer.write_buffer(plain, 30)
            if turn == ROUNDS // 2:
                for writer in writers:
                    writer.enter()
            passage.go_on(plain)
        writers[0].write_many(plain, 500)
        passage.go_on(plain)
        for writer in writers:
            writer.ledger.note(plain.end_offset, 0, 0)
    begin_epoch(layout.log)
    return directory


def mingle(writers: list["GoodWriter"], log: pylog.Log, turns: int) -> None:
    """Single records of all producers in turn, with calls that fail among them."""
    for _ in range(turns):
        for writer in writers:
            writer.write_one(log)
    for writer in writers:
        writer.fail(log)


def begin_epoch(log: Path) -> None:
    """A new epoch in the middle, as when a copy of the log was opened: nothing lost or skipped."""
    files = LogFiles(log)
    later = files.segments[len(files.segments) // 2:]
    for segment in later:
        for batch in segment.batches:
            batch.epoch = 1
    files.epochs.append((1, later[0].base))
    files.meta["reserved_end"] = str(later[0].base + RESERVED)
    files.save()


class GoodWriter:
    """A producer that keeps its ledger, and whose calls do what they say."""

    def __init__(
        self, layout: Layout, producer: int, seed: int, clock: Iterator[int]
    ) -> None:
        self.ledger = _native.Ledger(layout.ledgers / f"producer-{producer}", RUN, producer)
        self.rng = random.Random(f"{seed} {producer}")
        self.clock = clock
        self.enter()

    def enter(self) -> None:
        """Anew, as after a death."""
        self.incarnation = self.ledger.enter()

    def make(self, sizes: list[int]) -> tuple[list[bytes | None], list[bytes | None] | None]:
        """Records for the next call, entered as sent."""
        first = self.ledger.begin(len(sizes))
        return _native.stamp_values(RUN, self.ledger.producer, self.incarnation, first, sizes)

    def now(self, count: int) -> list[int]:
        """Times that rise."""
        return list(itertools.islice(self.clock, count))

    def size(self) -> int:
        """Mostly around a hundred bytes; null, empty, short and large ones too."""
        return self.rng.choice([-1, 0, 1, 47, 48, 49, 100, 100, 100, 150, 300])

    def write_one(self, log: pylog.Log) -> None:
        """One record by append."""
        (value,), keys = self.make([self.size()])
        log.append(value, keys[0] if keys else None, timestamp=self.now(1)[0])
        self.ledger.acknowledge()

    def write_many(self, log: pylog.Log, count: int) -> None:
        """Some by append_many, whole or not."""
        values, keys = self.make([self.size() for _ in range(count)])
        log.append_many(values, keys=keys, timestamps=self.now(count),
                        atomic=self.rng.random() < 0.5)
        self.ledger.acknowledge()

    def write_buffer(self, log: pylog.Log, count: int) -> None:
        """Some by append_buffer."""
        values, _ = self.make([self.rng.randrange(48, 200) for _ in range(count)])
        pieces = [value or b"" for value in values]
        positions = numpy.cumsum([0, *map(len, pieces)])
        log.append_buffer(b"".join(pieces), positions, timestamps=self.now(count))
        self.ledger.acknowledge()

    def fail(self, log: pylog.Log) -> None:
        """A call of which nobody knows, and one that raised with nothing appended."""
        values, _ = self.make([100] * 2)
        log.append(self.rng.choice(values), timestamp=self.now(1)[0])
        self.ledger.doubt()
        self.make([100] * 3)
        self.ledger.doubt(is_failed=True)
