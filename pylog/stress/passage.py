"""A passage: the checker's one way through a log, live or at rest.

*Live* it stands on `Log.batches` of a log opened to be read, as any relay does, and goes on where
it stopped. *At rest* it walks the files as bytes, opens no log and maps nothing, so that what the
reader has a mistake in is not hidden by the same mistake here. Either way each record is looked at
once; the memory does not grow with their number.
"""

import bisect
import math
import time
from pathlib import Path
from typing import Any

import pylog
from pylog import _native
from pylog.errors import CorruptRecordError, OffsetOutOfRangeError
from pylog.names import is_segment
from pylog.stress.sightings import Sightings
from pylog.walk import Walker, Window

PATIENCE_SECONDS = 3.0    # so long damage may stand before the live passage goes around it


class Passage:
    """A checker, and how far it is. `notes` gets what it finds as soon as it is found."""

    def __init__(self, notes: Sightings, run: int = 0, folds: Any = None) -> None:
        self.notes = notes
        self.checker = _native.Checker(run, folds=folds)
        self.noted = dict.fromkeys(_native.FINDINGS, 0)
        self.seen_total = 0
        self.is_first = True
        self.damaged_since = math.inf

    @property
    def next_offset(self) -> int:
        """The offset to come; 0 before anything was seen."""
        return max(0, self.checker.next_offset)

    # ---- live

    def go_on(self, log: pylog.Log, batches_max: int = 4096) -> int:
        """Checks what was appended since; returns the records."""
        before = self.checker.records
        start = max(self.next_offset, log.start_offset)
        if start > self.next_offset and not self.is_first:
            self.checker.seek(start)    # deleted meanwhile
        take, left, is_resumed = self.checker.take_batch, batches_max, True
        try:
            for batch in log.batches(start):
                take(batch, is_resumed)
                is_resumed = self.is_first = False
                left -= 1
                if not left:
                    break
            self.damaged_since = math.inf
        except CorruptRecordError as error:
            self.wait_or_go_around(log, error)
        except OffsetOutOfRangeError:
            pass    # deleted between the look and the read
        if self.checker.found_total != self.seen_total:
            self.note_findings(None, None)
        return self.checker.records - before

    @property
    def is_at_damage(self) -> bool:
        """Whether the last turn ended at damage; a log that is opened anew may see it undone."""
        return self.damaged_since != math.inf

    def wait_or_go_around(self, log: pylog.Log, error: CorruptRecordError) -> None:
        """Damage that is undone in time is passed over as if it had not been there."""
        now = time.monotonic()
        self.damaged_since = min(self.damaged_since, now)
        if now - self.damaged_since < PATIENCE_SECONDS:
            return
        self.notes.note("torn-batch", str(error), offset=error.offset, file=error.path,
                        position=error.position)
        beyond = next(log.read(self.next_offset, on_corruption="skip"), None)
        self.checker.seek(beyond.offset if beyond else log.end_offset)
        self.damaged_since = math.inf

    # ---- at rest

    def walk(self, directory: Path) -> None:
        """Checks all whole batches of a directory's files, in the order of their names."""
        for file in segments_of(directory):
            window = Window(file)
            try:
                self._walk_file(file, window)
            finally:
                window.close()

    def _walk_file(self, file: Path, window: Window) -> None:
        position = 0
        walker = Walker(window)
        while len(window.view(position, 12)) >= 12:
            size = walker.size_at(position)
            if size <= 12 and window.is_zero(position):
                return    # preallocated
            batch = window.view(position, size)[:max(size, 0)] if size > 12 else b""
            self.checker.take_batch(batch)
            if self.checker.found_total != self.seen_total:
                self.note_findings(file, position)
            if 12 < size == len(batch):
                position += size
                continue
            walker.position = position
            if not walker.resync(self.next_offset):
                return
            position = walker.position

    # ---- what was found

    def note_findings(self, file: Path | None, position: int | None) -> None:
        """Notes what is new since the last time."""
        found = self.checker.figures()["found"]
        self.seen_total = self.checker.found_total
        for name, count in found.items():
            new = count - self.noted[name]
            for finding in self.checker.findings(name)[self.noted[name]:]:
                known: dict[str, Any] = {
                    key: finding[key] for key in ("offset", "producer", "sequence")
                    if finding[key] >= 0}
                if name == "inconsistent-offset":    # found at the end of its block
                    known["end_offset"] = finding["offset"] + _native.FOLD_RECORDS
                else:
                    known |= {"file": file and str(file), "position": position}
                self.notes.note(name, sentence(name, finding), **known)
                new -= 1
            if new:
                self.notes.note(name, count=new)
            self.noted[name] = count


def sentence(name: str, finding: dict[str, int]) -> str:
    """What the checker found, in words."""
    record = f"producer {finding['producer']}, sequence {finding['sequence']}"
    expected = finding["expected"]
    return {
        "duplicate": f"{record}: its interval already stands from offset {expected} on",
        "reordered": f"{record}: a later one of the producer stands at offset {expected}",
        "zombie-write": f"{record}: incarnation {finding['incarnation']} after {expected}",
        "offset-gap": f"offset {expected} was to come",
        "offset-backwards": f"offset {expected} was to come",
        "stale-epoch": f"epoch {expected} came before",
        "other-run": f"{record}, of another run",
        "inconsistent-offset": f"one of {_native.FOLD_RECORDS} records from here on is not what "
                               "another look saw",
    }.get(name, "its own bytes say so")


def base_of(file: Path) -> int:
    """The offset that a segment file is named after."""
    return int(file.name[:20])


def segments_of(directory: Path) -> list[Path]:
    """The segment files, in the order of their offsets."""
    return sorted(path for path in directory.iterdir() if is_segment(path.name))


def place_of(directory: Path, offset: int) -> tuple[str, int] | None:
    """File and position of the batch that bears an offset. Cost: a walk over its segment."""
    files = segments_of(directory)
    at = bisect.bisect_right(list(map(base_of, files)), offset) - 1
    if at < 0:
        return None
    window = Window(files[at])
    try:
        walker = Walker(window)
        place = walker.position
        while (found := walker.step()) and not found["fault"]:
            if found["last_offset"] >= offset:
                return (str(files[at]), place) if found["base_offset"] <= offset else None
            place = walker.position
    finally:
        window.close()
    return None
