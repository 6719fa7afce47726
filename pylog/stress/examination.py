"""The examination: all that can be proved of a run's directory once nobody works in it.

    DIR/log/           the log
    DIR/ledgers/       one file a producer or reader: producer-7, reader-2
    DIR/folds          a hash for every 4,096 offsets, of whoever came by first
    DIR/sightings      what the processes saw go wrong, a line each
    DIR/figures.json   what the watcher counted
    DIR/report.json    the verdict

It walks the files as bytes with a fresh checker, settles with the ledgers, has `pylog.check` prove
the structure and asks the indexes for records whose place is known.
"""

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy

import pylog
from pylog import _native
from pylog.errors import PylogError
from pylog.report import Report
from pylog.stress.passage import Passage, place_of
from pylog.stress.settlement import Balance, settle
from pylog.stress.sightings import Sightings

PROBES = 200


@dataclass(slots=True)
class Examination:
    """The figures of one: of the checker, of the ledgers, of check(). A group has no more than
    figures."""

    figures: dict[str, Any]
    balance: Balance | None = None
    report: Report | None = None


@dataclass(frozen=True, slots=True)
class Layout:
    """The paths of a run's directory."""

    directory: Path

    @property
    def log(self) -> Path:
        return self.directory / "log"

    @property
    def ledgers(self) -> Path:
        return self.directory / "ledgers"

    @property
    def folds(self) -> Path:
        return self.directory / "folds"

    @property
    def sightings(self) -> Path:
        return self.directory / "sightings"

    @property
    def figures(self) -> Path:
        return self.directory / "figures.json"

    @property
    def report(self) -> Path:
        return self.directory / "report.json"

    def producers(self) -> list[_native.Ledger]:
        """The producers' ledgers, opened to be read."""
        return [_native.Ledger(path) for path in sorted(self.ledgers.glob("producer-*[0-9]"))]


def examine(layout: Layout, notes: Sightings, run: int = 0, seed: int = 0) -> Examination:
    """Looks at everything once; what is wrong goes to `notes`."""
    passage = Passage(notes, run, open_folds(layout.folds))
    passage.walk(layout.log)
    report = pylog.check(layout.log)
    starts_late = report.start_offset > 0
    balance = settle(passage.checker, layout.producers(), notes, starts_late, report.gaps)
    for start, end in report.gaps:
        notes.note("cut", f"offsets {start} to {end - 1} were skipped", offset=end)
    for finding in report.findings:
        if finding.severity not in ("notice", "inconclusive"):
            notes.note("damaged-structure", finding.what, offset=finding.offset,
                       file=str(layout.log / finding.path), position=finding.position)
    if passage.checker.records:
        probe(layout.log, notes, random.Random(seed))
    return Examination(passage.checker.figures(), balance, report)


def open_folds(path: Path) -> Any:
    """The hashes that all looks at a log share; None where no file was made."""
    return numpy.memmap(path, numpy.int64, "r+") if path.exists() else None


def probe(directory: Path, notes: Sightings, rng: random.Random, probes: int = PROBES) -> None:
    """Asks for records by offset and by time, and looks whether they are the ones."""
    try:
        with pylog.Log(directory, mode="r") as log:
            for _ in range(probes):
                if log.end_offset > log.start_offset:
                    probe_once(log, notes, rng.randrange(log.start_offset, log.end_offset))
    except PylogError as error:
        notes.note("damaged-structure", f"it does not open: {error}")


def probe_once(log: pylog.Log, notes: Sightings, offset: int) -> None:
    """One offset: `fetch` must begin there, and a search by its time must not pass over it."""
    try:
        chunk = log.fetch(offset, max_records=1)
        if not len(chunk):
            return    # behind the last record, in a gap
        record = chunk[0]
        if record.offset < offset or (record.offset > offset and place_of(log.path, offset)):
            notes.note("lying-index", f"asked for {offset}, got {record.offset}", offset=offset)
        found = log.offset_for_time(record.timestamp)
        if found is None or found > record.offset:
            notes.note("lying-time-index", f"the record of time {record.timestamp} is at "
                       f"{record.offset}, the search says {found}", offset=record.offset)
    except PylogError:
        pass    # damage: the walk and check() have named it
