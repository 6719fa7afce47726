"""A writing process: threads that append records that check themselves, by every way in.

Each thread is one producer with one ledger, and goes on where its dead predecessor stopped. An
error that a fault of the run explains puts the records at hand in doubt and the thread goes on;
any other is noted, and the thread goes on, too: what matters is what the log holds in the end. An
error that says how many records are in is taken at its word, to which the settlement holds it.
"""

import itertools
import os
import random
import threading
import time
from collections.abc import Callable

import numpy

import pylog
from pylog import _native
from pylog.errors import (
    ConfigurationError,
    CorruptRecordError,
    DiskFullError,
    IllegalStateError,
    MessageSizeTooLargeError,
    OffsetError,
    PylogError,
    PylogTimeoutError,
    ResourceLimitError,
    WrongEndOffsetError,
)
from pylog.stress.board import Board, Phase
from pylog.stress.examination import Layout
from pylog.stress.plan import Plan
from pylog.stress.sightings import Sightings

BACKLOG_BYTES = 64 << 20      # the checker is at most so far behind
LOOK_BACK_EVERY = 50          # calls between two reads of what was just written
LOOK_BACK_MAX = 4096          # records that are read to see whether a refused call left one
SMALL_MAX, MIDDLE_MAX = 400, 16384
CHILDREN = 1000               # numbers of producers from here on are of forked children

MATTERS_OF_COURSE = (MessageSizeTooLargeError, WrongEndOffsetError)
# These promise that nothing was appended; others say how much was, by `appended`, or do not.
PROMISING = (*MATTERS_OF_COURSE, ConfigurationError)
EXPLAINED: dict[str, tuple[type[BaseException], ...]] = {
    "pause": (PylogTimeoutError,),
    "flip": (CorruptRecordError,),
    "truncate": (CorruptRecordError,),
    "limits": (ResourceLimitError, PylogError, MemoryError, OSError),
    "disk-full": (DiskFullError, PylogError, OSError),
}


def explained_by(nemeses: tuple[str, ...]) -> tuple[type[BaseException], ...]:
    """Errors that a call may raise while such faults stand."""
    return tuple(itertools.chain(*(EXPLAINED.get(nemesis, ()) for nemesis in nemeses)))


def enter_failure(ledger: _native.Ledger, error: BaseException) -> None:
    """What a call that raised leaves in its producer's ledger: the error's word, or doubt."""
    appended = getattr(error, "appended", None)
    if appended is None and isinstance(error, PROMISING):
        appended = 0
    ledger.acknowledge(appended or 0)
    ledger.doubt(is_failed=appended is not None)


class Writer:
    """One process of the run. `index` counts them from 0."""

    def __init__(self, plan: Plan, layout: Layout, board: Board, index: int) -> None:
        self.plan = plan
        self.layout = layout
        self.board = board
        self.index = index
        self.notes = Sightings(layout.sightings, f"writer {index}")
        self.explained = explained_by(plan.options.nemeses)

    def run(self) -> None:
        """Appends until the board says stop."""
        forks = self.board.forks_asked(self.index)
        log = self._open()
        if log is None:
            return
        threads = [
            threading.Thread(target=self.produce, args=(log, number))
            for number in range(self.plan.options.threads)
        ]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            if self.board.forks_asked(self.index) != forks:
                forks = self.board.forks_asked(self.index)
                self.fork(log, forks)
            threads[0].join(0.02)
            time.sleep(0.02)
        log.close()

    def produce(self, log: pylog.Log, number: int) -> None:
        """The life of a thread. What ends it before its time is said, and ends the process: its
        successor has all its threads."""
        try:
            Producer(self, log, number).run()
        except BaseException as error:
            self.notes.note_end(error, f"thread {number}: {type(error).__name__}: {error}")
            os._exit(1)

    def _open(self) -> pylog.Log | None:
        """The log, tried again while a fault is in the way; None: the run is over."""
        while (phase := self.board.phase) < Phase.STOP:
            try:
                return pylog.Log(self.layout.log)
            except Exception as error:
                self.excuse(error, phase)
                time.sleep(0.05)
        return None

    def excuse(self, error: BaseException, began: Phase) -> None:
        """Notes an error, by what a fault of the run explains or by what none does.

        began: the phase when the call did. In the quiet one no fault stands that could explain it,
        but that a disk which was full gets room only when the janitor comes to delete; whether it
        does, the stage sees.
        """
        if isinstance(error, MATTERS_OF_COURSE):
            return
        may_be_full = "disk-full" in self.plan.options.nemeses
        if isinstance(error, DiskFullError):
            name = "refused-call" if may_be_full else "full-disk"
        elif began == Phase.FAULTS and isinstance(error, self.explained):
            name = "refused-call"
        else:
            name = "unexpected-error"
        self.notes.note(name, f"{type(error).__name__}: {error}")

    def fork(self, log: pylog.Log, number: int) -> None:
        """Makes a child that must be refused the inherited log, and writes through its own."""
        if os.fork():
            return    # the stage adopts it
        status = 1
        try:
            Child(self, log, CHILDREN * (1 + self.index) + number % CHILDREN).run()
            status = 0
        except BaseException as error:
            self.notes.note_end(error, f"forked child: {type(error).__name__}: {error}")
        finally:
            os._exit(status)


class Producer:
    """One thread: a ledger, a random choice of ways in, and the log."""

    def __init__(self, writer: Writer, log: pylog.Log, number: int) -> None:
        options = writer.plan.options
        self.writer = writer
        self.log = log
        self.number = writer.index * options.threads + number
        self.ledger = _native.Ledger(
            writer.layout.ledgers / f"producer-{self.number}", writer.plan.run, self.number)
        starts = self.ledger.enter()
        self.incarnation = starts & 0xFFFF    # as serial numbers: csrc/pl_checker.c
        seed = f"{options.seed} {self.number} {starts}"
        self.rng = random.Random(seed)
        self.sizes_rng = numpy.random.default_rng(self.rng.getrandbits(60))
        self.size_max = options.size_max
        self.calls = 0
        self.first = 0    # sequence of the latest call's first record
        self.backlog = BACKLOG_BYTES // 256
        self.ways: dict[str, Callable[[], int | None]] = {
            way: getattr(self, way) for way in options.ways}

    def run(self) -> None:
        """Turns until the board says stop."""
        board = self.writer.board
        while (phase := board.phase) < Phase.STOP:
            if self.log.end_offset - board.checked > self.backlog:
                time.sleep(0.002)
                continue
            self.turn(self.rng.choice(self.writer.plan.options.ways), phase)

    def turn(self, way: str, phase: Phase) -> None:
        """One call, or some single appends, and what comes of it in the ledger."""
        self.calls += 1
        try:
            first = self.ways[way]()
            if first is not None and self.calls % LOOK_BACK_EVERY == 0:
                self.look_back(first)
        except Exception as error:
            if isinstance(error, WrongEndOffsetError) and self.is_absent(error, phase):
                self.ledger.withdraw()
            else:
                enter_failure(self.ledger, error)
            self.writer.excuse(error, phase)
            if not isinstance(error, PROMISING):
                time.sleep(0.01)

    # ---- what is sent

    def sizes(self, count: int, least: int = 1) -> numpy.ndarray:
        """Sizes from `least` bytes on: most are small, one in a hundred up to 16 KiB, one in five
        thousand up to the run's greatest."""
        tops = numpy.full(count, min(SMALL_MAX, self.size_max))
        draws = self.sizes_rng.random(count)
        tops[draws < 0.01] = min(MIDDLE_MAX, self.size_max)
        tops[draws < 0.0002] = self.size_max
        return (least * (tops / least) ** self.sizes_rng.random(count)).astype(numpy.int64)

    def make(
        self, count: int, least: int = 1, size_max: int = 1 << 30
    ) -> tuple[list[bytes | None], list[bytes | None] | None]:
        """Begins a call: its values, and keys where some values are too short for a stamp."""
        sizes = numpy.minimum(self.sizes(count, least), size_max)
        self.first = self.ledger.begin(count)
        return _native.stamp_values(
            self.writer.plan.run, self.number, self.incarnation, self.first, sizes)

    # ---- the ways in; each returns the offset of its first record

    def append(self) -> None:
        count = self.rng.randrange(1, 400)
        values, keys = _native.stamp_values(
            self.writer.plan.run, self.number, self.incarnation, self.ledger.sent,
            self.sizes(count))
        self.ledger.send_each(self.log.append, values, keys)

    def append_full(self) -> int:
        (value,), keys = self.make(1)
        offset = self.log.append(
            value, keys[0] if keys else None, headers={"way": b"full"},
            timestamp=int(time.time() * 1000) - self.rng.randrange(1000),
            durability=self.rng.choice((None, None, None, "fsync")))
        self.ledger.acknowledge()
        return offset

    def append_many(self) -> int:
        values, keys = self.make(self.rng.randrange(1, 2000))
        first = self.log.append_many(values, keys=keys)
        self.ledger.acknowledge()
        return first

    def atomic(self) -> int:
        values, keys = self.make(self.rng.randrange(1, 50), size_max=MIDDLE_MAX)
        first = self.log.append_many(values, keys=keys, atomic=True)
        self.ledger.acknowledge()
        return first

    def if_end(self) -> int:
        end = self.log.end_offset
        values, keys = self.make(self.rng.randrange(1, 10), size_max=MIDDLE_MAX)
        first = self.log.append_many(values, keys=keys, if_end=end)
        self.ledger.acknowledge()
        return first

    def append_buffer(self) -> int:
        values, _ = self.make(self.rng.randrange(1, 500), least=_native.STAMP_BYTES)
        positions = numpy.cumsum([0, *map(len, values)])    # type: ignore[arg-type]
        first = self.log.append_buffer(b"".join(values), positions)    # type: ignore[arg-type]
        self.ledger.acknowledge()
        return first

    def flush(self) -> None:
        if self.rng.random() < 0.1:
            self.log.flush()

    def look_back(self, offset: int) -> None:
        """Reads what a call has just returned the offset of: the first of its records."""
        try:
            record = self.log.get(offset)
        except OffsetError:
            if offset >= self.log.start_offset:
                raise
            return    # deleted meanwhile
        stamp = _native.read_stamp(record.key, record.value)
        mine = self.number, self.first
        if not isinstance(stamp, dict) or (stamp["producer"], stamp["sequence"]) != mine:
            self.writer.notes.note(
                "misplaced-write", f"append said {offset}, where {stamp} stands", offset=offset,
                producer=self.number, sequence=self.first)

    def is_absent(self, refusal: WrongEndOffsetError, phase: Phase) -> bool:
        """Whether nothing of a call that came second is there, from where it met the end on.

        Ten calls a second come second: entered as failed, they would fill any ledger in a day.
        False where it cannot be seen, or not soon.
        """
        count = self.ledger.sent - self.ledger.settled
        start = max(refusal.offset or 0, (refusal.end_offset or 0) - count)
        end = self.log.end_offset
        if end - start > LOOK_BACK_MAX:
            return False
        try:
            if self.log.readable_offset < end:
                self.log.flush()
            stamps = [_native.read_stamp(record.key, record.value)
                      for record in self.log.read(start, stop=end)]
        except Exception as error:
            self.writer.excuse(error, phase)
            return False
        return not any(isinstance(stamp, dict) and stamp["producer"] == self.number
                       and stamp["sequence"] >= self.first for stamp in stamps)


class Child:
    """What a fork leaves: an inherited log that must not work, and a producer of its own."""

    def __init__(self, writer: Writer, inherited: pylog.Log, number: int) -> None:
        self.writer = writer
        self.number = number
        self.inherited = inherited
        self.notes = Sightings(writer.layout.sightings, f"child of writer {writer.index}")

    def run(self, records: int = 200) -> None:
        """Tries the inherited log, opens its own, appends."""
        try:
            self.inherited.append(b"from the child")
        except IllegalStateError:
            pass
        else:
            self.notes.note("fork-accepted", "append through a log opened before the fork")
        run = self.writer.plan.run
        path = self.writer.layout.ledgers / f"producer-{self.number}"
        ledger = _native.Ledger(path, run, self.number)
        values, keys = _native.stamp_values(
            run, self.number, ledger.enter(), ledger.sent, numpy.full(records, 100))
        try:
            with pylog.Log(self.writer.layout.log) as log:
                ledger.send_each(log.append, values, keys)
        except Exception as error:
            enter_failure(ledger, error)
            self.writer.excuse(error, Phase.FAULTS)    # it has inherited its parent's limits
