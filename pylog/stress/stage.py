"""The stage: one run, from an empty directory to its verdict.

    1  faults   writers and readers work, faults begin and end as planned; nothing wrong may happen
    2  quiet    all faults are undone: the log must take appends again, of each producer
    3  stop     the writers end; all that was acknowledged must be seen within ten seconds
    4  settle   the watcher settles with the ledgers; then the files are examined at rest

Who dies in 1 is replaced at once, under the same number and with the same ledger. The stage forks
and kills, reads ledgers and the board, and never touches the log.
"""

import heapq
import json
import os
import shutil
import signal
import subprocess
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import count
from pathlib import Path

import pylog
from pylog import _native
from pylog.errors import ConfigurationError, DiskFullError
from pylog.report import counted
from pylog.stress.anomalies import DAMAGE
from pylog.stress.board import Board, Phase
from pylog.stress.cast import Cast, Member
from pylog.stress.disk import SmallDisk
from pylog.stress.examination import Examination, Layout, examine
from pylog.stress.inspection import inspect
from pylog.stress.nemesis import FAULTS, Event, send
from pylog.stress.passage import place_of
from pylog.stress.plan import Fault, Plan
from pylog.stress.reading import Reader
from pylog.stress.settlement import acknowledged_of
from pylog.stress.sightings import Sightings, forget_lost, lost, read_sightings
from pylog.stress.watching import clean, watch
from pylog.stress.writing import Writer

TICK_SECONDS = 0.005
AFTERMATH_SECONDS = 0.5    # a disk that was full has room a moment after its ballast is gone
SHOW_SECONDS = 0.25
FOLD_BLOCKS = 1 << 20    # looks up to 4 milliard offsets apart are compared, in a file of 8 MiB
INSPECTION = "inspector"
DRIVERS_MAX = 4          # C writers at once
DRIVER_PRODUCERS = 500   # their producers' numbers from here on
PLACES_MAX = 8           # offsets of an anomaly that are looked up
PRODUCERS_TOLD = 8
PASSES_MAX = 40          # a point is passed up to so many times before the one that kills


class Stage:
    """One run of one plan. `show`, if given, is called four times a second."""

    def __init__(self, plan: Plan, directory: Path,
                 show: Callable[["Stage"], None] | None = None,
                 driver: Path | None = None) -> None:
        self.plan = plan
        self.driver = driver
        self.points = points_of(driver)    # and how many died there
        self.layout = Layout(directory.resolve())    # as errors name their files
        self.show = show
        self.board = Board()
        self.events: list[Event] = []
        self.faults: Counter[str] = Counter()      # that were done, by nemesis
        self.faults_missed = 0                     # without a target when their time came
        self.replaced: Counter[str] = Counter()    # by role
        self.undos: list[tuple[float, int, Event, Callable[[], None]]] = []
        self.disk = SmallDisk()
        self.places: dict[int, tuple[str, int]] = {}    # of the offsets that were sighted
        self.is_over = self.was_interrupted = False
        self.numbers = count()
        self.began = self.shown = 0.0

    # ---- the run

    @contextmanager
    def noting_interrupts(self) -> Iterator[None]:
        """Ctrl-C ends the run, and nothing else: a KeyboardInterrupt in the middle of a fork would
        be swallowed by Python's own hooks, and one while the report is made would lose it."""
        before = signal.signal(signal.SIGINT, self.note_interrupt)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    def note_interrupt(self, *unused: object) -> None:
        self.was_interrupted = True

    def run(self) -> Examination | None:
        """Plays the plan. None: it was interrupted, or there is no room for it."""
        prepare(self.layout)
        forget_lost()
        self.began = time.monotonic()
        self.notes = Sightings(self.layout.sightings, "stage")
        self.cast = Cast(self.notes)
        with SmallDisk.under(self.layout.log, self.plan) as self.disk:
            try:
                self.raise_curtain()
                self.play_faults()
                self.play_quiet()
                self.play_settlement()
                examination = self.examine()
                self.places = places_of(self.layout)
                return examination
            except KeyboardInterrupt:
                return None
            except DiskFullError as error:
                self.notes.note("full-disk", str(error))
                return None
            finally:
                self.is_over = True
                self.end_faults()
                self.clear()

    def examine(self) -> Examination:
        return examine(self.layout, self.notes, self.plan.run, self.plan.options.seed)

    def raise_curtain(self) -> None:
        """The log is made, the folds, and everybody started."""
        options = self.plan.options
        try:    # real blocks: on a full disk a page of a hole would be a SIGBUS
            with self.layout.folds.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, 8 * FOLD_BLOCKS)
        except OSError as error:
            self.layout.folds.unlink(missing_ok=True)    # the report needs some of it
            raise DiskFullError(f"no room for a run ({error.strerror}); free some space",
                                path=str(self.layout.directory)) from None
        self.must_end(self.start("founder", 0, self.found))
        if not (self.layout.log / "log.meta").exists():
            seen = [*read_sightings(self.layout.sightings), *lost()]
            said = "the log cannot be made: " + "; ".join(sighting.what for sighting in seen)
            is_full = any(sighting.anomaly == "full-disk" for sighting in seen)
            raise DiskFullError(said) if is_full else ConfigurationError(said)
        self.start("janitor", 0, partial(clean, self.plan, self.layout, self.board))
        self.start("watcher", 0, partial(watch, self.plan, self.layout, self.board))
        for index in range(options.readers):
            self.start("reader", index, partial(self.read, index))
        for index in range(options.processes):
            self.start("writer", index, partial(self.write, index))
        self.began = time.monotonic()

    def found(self) -> None:
        """Makes the log with the run's options."""
        options = self.plan.options
        pylog.Log(
            self.layout.log,
            durability=options.durability,    # type: ignore[arg-type]
            compression=options.compression,
            segment_bytes=options.segment_bytes,
            max_message_bytes=max(options.size_max + 4096, 1 << 20)).close()

    def write(self, index: int) -> None:
        Writer(self.plan, self.layout, self.board, index).run()

    def read(self, index: int) -> None:
        Reader(self.plan, self.layout, self.board, index).run()

    def play_faults(self) -> None:
        """All faults at their times."""
        for fault in self.plan.faults:
            self.go_on_until(self.began + fault.at)
            self.begin(fault)
        self.go_on_until(self.began + self.plan.options.seconds)

    def play_quiet(self) -> None:
        """No more faults; the log must take appends again, of each producer."""
        self.end_faults()
        if self.plan.faults:
            self.go_on_until(time.monotonic() + AFTERMATH_SECONDS)
        self.board.phase = Phase.QUIET
        sent = Counter({ledger.producer: ledger.sent for ledger in self.ledgers()})
        if not self.go_on_while(lambda: bool(self.silent_since(sent))):
            self.note_full_disk()
            silent = self.silent_since(sent)
            self.notes.note(
                "unwritable-log", f"{counted(len(silent), 'producer')} of {self.producers} had "
                f"nothing acknowledged for {self.plan.options.quiet_seconds:g} s after the faults: "
                f"{', '.join(map(str, silent[:PRODUCERS_TOLD]))}")
        self.board.phase = Phase.STOP
        if not self.go_on_while(lambda: bool(
                self.cast.alive("writer", "driver", INSPECTION) or self.cast.has_orphans())):
            self.notes.note("unwritable-log", "a writer did not come back from its call within "
                            f"{self.plan.options.quiet_seconds:g} s after the faults")
            self.kill("writer")

    def note_full_disk(self) -> None:
        """That the disk is full, and not only the small one of the run."""
        disk = os.statvfs(self.layout.directory)
        room = disk.f_bavail * disk.f_frsize
        if room < self.plan.options.segment_bytes:
            self.notes.note("full-disk", f"{room} bytes are left at {self.layout.directory}")

    def play_settlement(self) -> None:
        """Everything acknowledged is to be seen now, by the watcher and by each reader."""
        self.board.phase = Phase.SETTLE
        self.go_on_while(lambda: bool(self.cast.alive("watcher", "reader")))
        seconds = self.plan.options.quiet_seconds
        if self.cast.alive("watcher"):
            self.notes.note("unseen", f"the watcher was at {self.board.checked} after "
                            f"{seconds:g} s, and not at the end")
        for pid in self.cast.alive("reader"):
            index = self.cast.members[pid].index
            ledger = _native.Ledger(self.layout.ledgers / f"reader-{index}")
            self.notes.note("stuck-reader", f"reader {index} was at {ledger.next} after "
                            f"{seconds:g} s, and not at the end", offset=ledger.next, pid=pid)
        self.board.phase = Phase.END
        self.go_on_while(lambda: bool(self.cast.alive("janitor", "member")))

    # ---- time

    def go_on_until(self, when: float) -> None:
        """Ends what is due, replaces who died, shows how it goes."""
        while time.monotonic() < when:
            self.tick()

    def go_on_while(self, condition: Callable[[], bool]) -> bool:
        """The same while something holds, at most for the quiet time; whether it ended."""
        deadline = time.monotonic() + self.plan.options.quiet_seconds
        while condition():
            if time.monotonic() > deadline:
                return False
            self.tick()
        return True

    def tick(self) -> None:
        if self.was_interrupted:
            raise KeyboardInterrupt
        while self.undos and self.undos[0][0] <= time.monotonic():
            if not self.end(*heapq.heappop(self.undos)[2:]):
                break
        self.replace_the_dead()
        if self.show and time.monotonic() - self.shown > SHOW_SECONDS:
            self.shown = time.monotonic()
            self.show(self)
        time.sleep(TICK_SECONDS)

    # ---- faults

    def begin(self, fault: Fault) -> None:
        """One fault, and its end in the calendar."""
        event = Event(time.monotonic(), fault.nemesis, "")
        undo = None if self.is_in_the_way(fault) else FAULTS[fault.nemesis](self, fault, event)
        if not event.what:
            self.faults_missed += 1
            return
        self.events.append(event)
        self.faults[fault.nemesis] += 1
        if undo:
            entry = (time.monotonic() + fault.seconds, next(self.numbers), event, undo)
            heapq.heappush(self.undos, entry)

    def is_in_the_way(self, fault: Fault) -> bool:
        """One damage at a time: two in one file could not be undone."""
        return fault.nemesis in DAMAGE and any(
            event.nemesis in DAMAGE for _, _, event, _ in self.undos)

    def end(self, event: Event, undo: Callable[[], None]) -> bool:
        """Ends a fault, but one that is being inspected: later."""
        if event.pid is not None and self.role_of(event.pid) == INSPECTION:
            again = (time.monotonic() + TICK_SECONDS, next(self.numbers), event, undo)
            heapq.heappush(self.undos, again)
            return False
        undo()
        event.until = time.monotonic()
        return True

    def end_faults(self) -> None:
        """All of them, now."""
        while any(self.role_of(event.pid or 0) == INSPECTION for _, _, event, _ in self.undos):
            self.replace_the_dead()
            time.sleep(TICK_SECONDS)
        while self.undos:
            self.end(*heapq.heappop(self.undos)[2:])

    def alive(self, *roles: str) -> list[int]:
        return self.cast.alive(*roles)

    @property
    def log(self) -> Path:
        return self.layout.log

    @property
    def ballast(self) -> Path | None:
        return self.disk.ballast

    def ask_to_fork(self, choice: int) -> int:
        """The writer that is to."""
        index = choice % self.plan.options.processes
        self.board.ask_to_fork(index)
        return index

    def send_driver(self, choice: int) -> str | None:
        """A C writer for the point that the fewest have died at; None: there are enough."""
        slots = {self.cast.members[pid].index for pid in self.cast.alive("driver")}
        free = sorted(set(range(DRIVERS_MAX)) - slots)
        if not self.points or not free or self.driver is None:
            return None
        errands = [self.cast.members[pid].errand for pid in self.cast.alive("driver")]
        point = min(self.points, key=lambda name: (self.points[name] + errands.count(name)))
        number = DRIVER_PRODUCERS + free[0]
        self.cast.start_program("driver", free[0], point, [
            str(self.driver), str(self.layout.log), str(self.layout.ledgers / f"producer-{number}"),
            str(self.plan.run), str(number), str(choice), point,
            str(1 + choice % min(PASSES_MAX, 1 + self.points[point])), str(self.board.checked)])
        return point

    def hold_janitor(self, is_held: bool) -> None:
        """While the disk is to be full, nothing makes room."""
        self.board.is_held = is_held

    def inspect(self, event: Event) -> None:
        """A process that has never seen the log reads the damaged place."""
        event.pid = self.start(INSPECTION, 0, partial(inspect, self.layout, event))

    # ---- processes

    def start(self, role: str, index: int, work: Callable[[], None]) -> int:
        return self.cast.start(role, index, work)

    def replace_the_dead(self) -> None:
        for member in self.cast.bury():
            self.replace(member)

    def replace(self, member: Member) -> None:
        """Whoever died while there is work to do."""
        if member.role == "driver":
            self.receive(member)
        phase = self.board.phase
        is_over = {"writer": phase >= Phase.STOP, "reader": phase >= Phase.SETTLE,
                "janitor": phase >= Phase.SETTLE, "member": phase >= Phase.SETTLE}
        if not is_over.get(member.role, True) and not self.is_over:
            self.replaced[member.role] += 1
            if member.work:
                self.start(member.role, member.index, member.work)

    def receive(self, driver: Member) -> None:
        """A C writer that has died where it was to, or lived on, or did what it should not."""
        if os.WIFSIGNALED(driver.status):
            self.points[driver.errand] += 1
        elif os.WEXITSTATUS(driver.status):
            self.notes.note("broken-worker", f"the driver of {driver.errand} failed; it has said "
                            "why on stderr")

    def role_of(self, pid: int) -> str | None:
        member = self.cast.members.get(pid)
        return member.role if member else None

    def must_end(self, pid: int) -> None:
        """Waits for a process on which all else depends."""
        while pid in self.cast.members:
            self.cast.bury()
            time.sleep(TICK_SECONDS)

    def kill(self, *roles: str) -> None:
        for pid in self.cast.alive(*roles):
            send(pid, signal.SIGKILL)

    def clear(self) -> None:
        """Nobody is left behind, whatever happened."""
        self.kill()
        while self.cast.members:
            self.cast.bury()
            time.sleep(TICK_SECONDS)

    # ---- figures

    def ledgers(self, role: str = "producer") -> list[_native.Ledger]:
        return [_native.Ledger(path) for path in self.layout.ledgers.glob(f"{role}-*[0-9]")]

    @property
    def producers(self) -> int:
        """How many there are, from 0 on, without forked children and C writers."""
        return self.plan.options.processes * self.plan.options.threads

    def acknowledged(self) -> int:
        """Records that calls have returned for."""
        return sum(ledger.acknowledged for ledger in self.ledgers())

    def silent_since(self, sent: Counter[int]) -> list[int]:
        """Producers of whose calls none has returned that began after they had sent so much."""
        heard = {ledger.producer for ledger in self.ledgers()
                 if any(acknowledged_of(ledger, sent[ledger.producer]))}
        return sorted({*range(self.producers)} - heard)


def places_of(layout: Layout) -> dict[int, tuple[str, int]]:
    """File and position for the offsets of sightings that bear none, of a few of each anomaly."""
    wanted: dict[str, set[int]] = defaultdict(set)
    for sighting in read_sightings(layout.sightings):
        if (sighting.offset is not None and sighting.file is None
                and len(wanted[sighting.anomaly]) < PLACES_MAX):
            wanted[sighting.anomaly].add(sighting.offset)
    offsets = set().union(*wanted.values())
    found = ((offset, place_of(layout.log, offset)) for offset in offsets)
    return {offset: place for offset, place in found if place}


def points_of(driver: Path | None) -> dict[str, int]:
    """The points that the driver knows, each not yet hit."""
    if driver is None:
        return {}
    said = subprocess.run([driver, "--points"], capture_output=True, text=True, check=False)
    if said.returncode or not said.stdout:
        raise ConfigurationError(f"{driver} is not the driver of kill-at: it does not answer "
                                 "--points; build it by `make -C tests/c build/stress`")
    return dict.fromkeys(said.stdout.split(), 0)


def is_of_a_run(layout: Layout) -> bool:
    """Whether an earlier run's report is there: what it lies beside may go."""
    try:
        report = json.loads(layout.report.read_text(encoding="utf-8"))
        Plan.from_dict(report["plan"])
    except (OSError, ValueError, KeyError, TypeError, ConfigurationError):
        return False
    return True


def prepare(layout: Layout) -> None:
    """An empty directory with what a run needs; one that holds something else is refused."""
    directory = layout.directory
    if directory.exists() and any(directory.iterdir()) and not is_of_a_run(layout):
        raise ConfigurationError(
            f"{directory} is not empty, and not of an earlier run; name a new directory")
    for path in (layout.log, layout.ledgers):
        shutil.rmtree(path, ignore_errors=True)
    for path in (layout.folds, layout.sightings, layout.figures, layout.report):
        path.unlink(missing_ok=True)
    layout.ledgers.mkdir(parents=True, mode=0o700)


