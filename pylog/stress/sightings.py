"""Sightings: what the processes of a run saw go wrong, in one file that outlives them.

Each is one line of JSON, added by one write(2) with O_APPEND, so a process may be killed before or
after it and never in it, and processes need no lock. What a full disk does not take is counted in
memory that a process shares with all that it forks.
"""

import errno
import json
import mmap
import os
import re
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy

from pylog.stress.anomalies import ANOMALIES, RANK, ROWS, Severity

KEPT = 16    # examples of an anomaly that one process describes; the rest are counted
LOST = numpy.frombuffer(mmap.mmap(-1, 8 * len(ROWS)), numpy.int64)    # by anomaly: not written


@dataclass(slots=True)
class Sighting:
    """One example of an anomaly, or `count` of them; without a description from the 17th on.

    offset, producer, sequence: of the record concerned, where one is. file, position: where its
    batch stands. at: seconds on the monotonic clock. by: the process that saw it.
    """

    anomaly: str
    what: str = ""
    offset: int | None = None
    end_offset: int | None = None
    producer: int | None = None
    sequence: int | None = None
    file: str | None = None
    position: int | None = None
    count: int = 1
    by: str = ""
    pid: int = field(default_factory=os.getpid)
    at: float = field(default_factory=time.monotonic)

    @property
    def place(self) -> tuple[object, int] | None:
        """Where it is, by what all who see it have in common; None where it has no place."""
        if self.sequence is not None and ANOMALIES[self.anomaly].seen_by == "ledger":
            return self.producer, self.sequence    # what is missing has no offset
        if self.anomaly == "stuck-reader":
            return "reader", self.pid    # two may be stuck at one offset
        if self.offset is not None:
            return "offset", self.offset
        if self.file is not None and self.position is not None:
            return self.file, self.position
        return None

    def to_dict(self) -> dict[str, Any]:
        """Without what is not known."""
        return {name: value for name, value in asdict(self).items() if value is not None}


class Sightings:
    """Notes sightings into a file, the first few of each anomaly with what is known of them."""

    def __init__(self, path: Path, by: str) -> None:
        self.path = path
        self.by = by
        # Opened now: who finds something may have no descriptor left.
        self.descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self.counts: Counter[str] = Counter()
        self.described: Counter[str] = Counter()

    def note(self, anomaly: str, what: str = "", count: int = 1, **known: Any) -> None:
        """Never fails: see `lost`. Cost: a write(2)."""
        self.counts[ANOMALIES[anomaly].name] += count
        self.described[anomaly] += bool(what)    # not `count`: one of them may be thousands
        if self.described[anomaly] > KEPT:
            what = ""
        said = json.dumps(Sighting(anomaly, what, count=count, by=self.by, **known).to_dict())
        # A line that is cut short must not swallow this one; empty lines are nothing.
        line = b"\n" + said.encode() + b"\n"
        try:
            is_written = os.write(self.descriptor, line) == len(line)
        except OSError:
            is_written = False
        if not is_written:
            LOST[RANK[anomaly]] += count

    def note_end(self, error: BaseException, what: str) -> None:
        """What ended a process or a thread before its time."""
        self.note("full-disk" if is_of_full_disk(error) else "broken-worker", what)

    def __del__(self) -> None:
        os.close(self.descriptor)


def is_of_full_disk(error: BaseException) -> bool:
    """Whether no room is what it says; or no more room for a file, as `ulimit -f` has it."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def forget_lost() -> None:
    """At the begin of a run."""
    LOST[:] = 0


def lost() -> list[Sighting]:
    """What this process and those it forked could not write since: counts by name are all that is
    known. Where a name is never the log's fault, nothing hangs on it but its count."""
    return [
        Sighting("lost-sighting" if row.otherwise is Severity.NEVER else row.name,
                 f"{count} of {row.name} could not be written", count=count, by="stage")
        for row, count in zip(ROWS, LOST.tolist(), strict=True) if count]


def read_sightings(path: Path) -> list[Sighting]:
    """All that was noted so far; none where there is no file."""
    try:
        lines = filter(None, path.read_bytes().splitlines())
    except FileNotFoundError:
        return []
    return [parsed(line) for line in lines]


class Tally:
    """Counts by name of what was noted so far, for who asks often: only what is new is read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.position = 0
        self.counts: Counter[str] = Counter()

    def look(self) -> Counter[str]:
        """Cost: a read(2), and 5 us a new line."""
        with suppress(FileNotFoundError), self.path.open("rb") as file:
            file.seek(self.position)
            new = file.read()
            whole = new[:new.rfind(b"\n") + 1]
            self.position += len(whole)
            self.counts.update(counted(map(parsed, filter(None, whole.splitlines()))))
        return self.counts


def parsed(line: bytes) -> Sighting:
    """A line; one that a full disk or RLIMIT_FSIZE cut short counts for what it still names."""
    try:
        return Sighting(**json.loads(line))
    except (ValueError, TypeError):
        name = re.match(rb'\{"anomaly": "([a-z-]+)"', line)
        anomaly = name[1].decode() if name and name[1].decode() in ANOMALIES else "refused-call"
        return Sighting(anomaly, f"a sighting could not be written whole: {line!r}", at=0.0)


def counted(sightings: Iterable[Sighting]) -> Counter[str]:
    """How many of each anomaly."""
    counts: Counter[str] = Counter()
    for sighting in sightings:
        counts[sighting.anomaly] += sighting.count
    return counts


def distinct(sightings: Iterable[Sighting]) -> int:
    """How many anomalies of one name they are of, however many processes saw each.

    What has a place is one there. What has none is one each, but of what many look for (a checker
    counts what it no longer describes) each of them sees the same: the most that one has counted.
    """
    spans: defaultdict[object, list[tuple[int, int]]] = defaultdict(list)
    rest: Counter[str] = Counter()
    is_looked_for = False
    for sighting in sightings:
        is_looked_for = ANOMALIES[sighting.anomaly].seen_by in ("checker", "ledger", "reader")
        if sighting.place is None:
            rest[sighting.by] += sighting.count
        else:
            where, start = sighting.place
            spans[where].append((start, start + sighting.count))
    placeless = max(rest.values(), default=0) if is_looked_for else rest.total()
    return placeless + sum(map(size_of_union, spans.values()))


def size_of_union(spans: Iterable[tuple[int, int]]) -> int:
    """How many numbers are in half-open intervals that may overlap."""
    total = reached = 0
    for start, end in sorted(spans):
        total += max(0, end - max(start, reached))
        reached = max(reached, end)
    return total


def described(sightings: Iterable[Sighting]) -> Iterator[Sighting]:
    """Those that say what was seen."""
    return (sighting for sighting in sightings if sighting.what)
