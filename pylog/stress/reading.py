"""A reading process: a checker of its own over what any reader of the log gets to see.

In each turn it follows the end, or seeks somewhere and reads on by chunks, records or single gets,
and it holds views of old chunks whose bytes must not change. Its hash of every 4,096 offsets is
compared with that of all others (Checker's folds).
"""

import random
import time
import zlib
from collections import deque
from collections.abc import Callable
from typing import Literal

import pylog
from pylog import _native
from pylog.errors import CorruptRecordError, OffsetOutOfRangeError, RecordNotFoundError
from pylog.stress.board import Board, Phase
from pylog.stress.examination import Layout, open_folds
from pylog.stress.passage import sentence
from pylog.stress.plan import Plan
from pylog.stress.sightings import Sightings

MODES: tuple[Literal["a", "r"], ...] = ("a", "r")
VIEWS = 8
LATE_MS = 1000
AS_READER = {"offset-gap": "poll-skip", "offset-backwards": "nonmonotonic-poll"}


class Reader:
    """One process of the run. Number 0 only follows; the others do all a reader can do."""

    def __init__(self, plan: Plan, layout: Layout, board: Board, index: int) -> None:
        self.plan = plan
        self.board = board
        self.index = index
        self.notes = Sightings(layout.sightings, f"reader {index}")
        self.folds = open_folds(layout.folds)
        self.ledger = _native.Ledger(layout.ledgers / f"reader-{index}", plan.run, index)
        incarnation = self.ledger.enter()
        self.rng = random.Random(f"{plan.options.seed} reader {index} {incarnation}")
        self.path, self.mode = layout.log, MODES[index % 2]
        self.log = pylog.Log(self.path, mode=self.mode)
        self.checker = _native.Checker(plan.run, folds=self.folds)
        self.next = self.ledger.next
        self.records, self.rounds = self.ledger.records, self.ledger.rounds
        self.views: deque[tuple[int, int, memoryview, int]] = deque(maxlen=VIEWS)
        self.must_wake = not {"pause", "kill-at"} & set(plan.options.nemeses)

    def run(self) -> None:
        """Turns until the run is settled and the end is reached."""
        turns: list[Callable[[], None]] = [self.follow]
        if self.index:
            turns += [self.read_chunks, self.read_records, self.get, self.hold_view, self.look_back]
        while not (self.board.phase == Phase.SETTLE and self.next >= self.log.readable_offset):
            turn = self.follow if self.board.phase >= Phase.STOP else self.rng.choice(turns)
            try:
                turn()
            except OffsetOutOfRangeError as error:
                self.was_refused(error)
            except RecordNotFoundError as error:
                self.was_not_found(error)
            except CorruptRecordError as error:
                self.notes.note("torn-batch", str(error), offset=error.offset, file=error.path,
                                position=error.position)
                self.open_anew()
            self.rounds += 1
            self.ledger.note(self.next, self.records, self.rounds)
        self.log.close()

    def open_anew(self) -> None:
        """What is mapped of a file that was cut stays cut; who restores it opens again."""
        time.sleep(0.05)
        self.log.close()
        self.log = pylog.Log(self.path, mode=self.mode)

    def was_refused(self, error: OffsetOutOfRangeError) -> None:
        """An offset that was deleted may be refused; none at or above the start."""
        start = self.log.start_offset
        if error.offset is not None and error.offset >= start:
            self.notes.note("retention-early", str(error), offset=error.offset)
        self.next = max(self.next, start)

    def was_not_found(self, error: RecordNotFoundError) -> None:
        """An offset that a recovery skipped bears no record; any other does."""
        if error.offset is not None and not self.is_cut(error.offset, error.offset + 1):
            self.notes.note("retention-early", str(error), offset=error.offset)

    def is_cut(self, start: int, end: int) -> bool:
        """Whether these offsets are among those that a recovery skipped. A record does not bear its
        epoch, which would tell: check() is asked. Cost: a walk over the log; it is seldom asked."""
        return any(first <= start and end <= last
                   for first, last in pylog.check(self.path).gaps)

    def new_checker(self, offset: int) -> None:
        """After a seek: sequences may come again."""
        self.checker = _native.Checker(self.plan.run, offset, self.folds)

    # ---- turns

    def follow(self) -> None:
        """Goes on where it was, waiting for what is to come."""
        self.next = max(self.next, self.log.start_offset)
        if self.checker.next_offset != self.next:    # it was deleted, or read elsewhere meanwhile
            self.new_checker(self.next)
        cursor = self.log.cursor(self.next)
        for _ in range(self.rng.randrange(1, 20)):
            if not cursor.wait(0.1):
                self.see_whether_late()
                break
            self.next = self.take(cursor.fetch(max_bytes=1 << 18))

    def see_whether_late(self) -> None:
        """A wait that timed out though its record had been there for long."""
        if self.must_wake and self.log.readable_offset > self.next >= self.log.start_offset:
            age = time.time() * 1000 - self.log.get(self.next).timestamp
            if age > LATE_MS:
                self.notes.note("late-wake-up", f"it was there for {age:.0f} ms", offset=self.next)

    def seek(self) -> int:
        """A random offset that is there, for a checker that starts with it."""
        start, end = self.log.start_offset, self.log.readable_offset
        offset = self.rng.randrange(start, end) if end > start else start
        self.new_checker(offset)
        return offset

    def read_chunks(self) -> None:
        """From a random offset on, at most 2 MiB."""
        offset = self.seek()
        for _ in range(self.rng.randrange(1, 8)):
            offset = self.take(self.log.fetch(offset, max_bytes=1 << 18))

    def read_records(self) -> None:
        """The same with one Record after the other."""
        offset = self.seek()
        for record in self.log.read(offset, stop=offset + self.rng.randrange(1, 2000)):
            self.checker.take_record(record.offset, record.key, record.value)
            self.records += 1
        self.note_findings()

    def get(self) -> None:
        """Single records, anywhere."""
        for _ in range(20):
            offset = self.seek()
            if offset >= self.log.readable_offset:
                return
            record = self.log.get(offset)
            self.checker.take_record(record.offset, record.key, record.value)
            self.records += 1
            if record.offset != offset:
                self.notes.note("lying-index", f"asked for {offset}, got {record.offset}",
                                offset=offset)
        self.note_findings()

    def hold_view(self) -> None:
        """Keeps a view of a chunk that may be deleted any moment."""
        offset = self.seek()
        chunk = self.log.fetch(offset, max_bytes=1 << 16)
        # Of the open batch only what is there now is promised.
        self.views.append(
            (offset, chunk.next_offset, chunk.payload, zlib.crc32(chunk.payload)))

    def look_back(self) -> None:
        """The bytes of an old view are what they were."""
        for held in list(self.views):
            offset, end_offset, view, crc = held
            if zlib.crc32(view) != crc:
                self.views.remove(held)
                self.notes.note("changed-view", f"a view of {len(view)} bytes", offset=offset,
                                end_offset=end_offset)

    # ---- what was read

    def take(self, chunk: _native.Chunk) -> int:
        """Checks a chunk; returns the offset behind it."""
        if self.plan.options.durability == "fsync" and len(chunk):
            self.see_whether_durable(chunk.next_offset)
        self.records += self.checker.take_chunk(chunk)
        self.note_findings()
        return max(chunk.next_offset, self.checker.next_offset)

    def see_whether_durable(self, next_offset: int) -> None:
        """In an fsync log nothing is to be read that a power cut may take back."""
        if next_offset > (durable := self.log.durable_offset):
            self.notes.note("visible-before-durable", f"durable was {durable}", offset=durable)

    def note_findings(self) -> None:
        """Notes what the checker found since, as a reader sees it; then starts anew."""
        if not self.checker.found_total:
            return
        for name, count in self.checker.figures()["found"].items():
            findings = self.checker.findings(name)
            for finding in findings:
                if name == "offset-gap" and self.is_cut(finding["expected"], finding["offset"]):
                    continue
                known = {key: finding[key] for key in ("offset", "producer", "sequence")
                         if finding[key] >= 0}
                self.notes.note(AS_READER.get(name, name), sentence(name, finding), **known)
            if count > len(findings):
                self.notes.note(AS_READER.get(name, name), count=count - len(findings))
        self.new_checker(self.checker.next_offset)
