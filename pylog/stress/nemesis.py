"""The nemeses: each fault, begun and ended, done to processes and files from outside.

A fault that lasts has an end that undoes it, so that the run's second phase is quiet.
"""

import os
import random
import resource
import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from pylog.stress.passage import base_of, segments_of
from pylog.stress.plan import Fault, Plan
from pylog.walk import Walker, Window

Undo = Callable[[], None]


@dataclass(slots=True)
class Event:
    """A fault as it happened: `what`, to which process, or where in which file."""

    at: float
    nemesis: str
    what: str
    pid: int | None = None
    file: str | None = None
    position: int | None = None
    offset: int | None = None
    end_offset: int | None = None
    until: float | None = None


class Target(Protocol):
    """What the nemeses need of the stage."""

    plan: Plan
    log: Path

    @property
    def ballast(self) -> Path | None: ...    # on the run's small disk, if it has one

    def alive(self, *roles: str) -> list[int]: ...
    def ask_to_fork(self, choice: int) -> int: ...
    def send_driver(self, choice: int) -> str | None: ...
    def hold_janitor(self, is_held: bool) -> None: ...
    def inspect(self, event: Event) -> None: ...


def kill(target: Target, fault: Fault, event: Event) -> Undo | None:
    """SIGKILL; one in twenty kills all writers at once."""
    rng = random.Random(fault.choice)
    writers = target.alive("writer", "member")
    if rng.random() < 0.05 and writers:
        event.what = f"SIGKILL to all {len(writers)} writers or members"
        for pid in writers:
            send(pid, signal.SIGKILL)
        return None
    roles = ("writer", "member") if rng.random() < 0.8 else ("reader", "janitor")
    victims = target.alive(*roles) or writers
    if victims:
        event.pid = rng.choice(victims)
        event.what = "SIGKILL"
        send(event.pid, signal.SIGKILL)
    return None


def kill_at(target: Target, fault: Fault, event: Event) -> Undo | None:
    """A C writer that dies at a named point of the core."""
    if point := target.send_driver(fault.choice):
        event.what = f"a C writer is to die at {point}"
    return None


def pause(target: Target, fault: Fault, event: Event) -> Undo | None:
    """SIGSTOP, and SIGCONT when it is over."""
    victims = target.alive("writer", "member", "reader", "janitor")
    if not victims:
        return None
    pid = event.pid = victims[fault.choice % len(victims)]
    event.what = f"SIGSTOP for {fault.seconds:.2f} s"
    send(pid, signal.SIGSTOP)
    return lambda: send(pid, signal.SIGCONT)


def fork(target: Target, fault: Fault, event: Event) -> Undo | None:
    """Asks a writer to."""
    event.what = f"writer {target.ask_to_fork(fault.choice)} is to fork"
    return None


def limits(target: Target, fault: Fault, event: Event) -> Undo | None:
    """Few open files, or hardly more memory than there is in use."""
    victims = target.alive("writer")
    if not victims:
        return None
    rng = random.Random(fault.choice)
    pid = event.pid = rng.choice(victims)
    which, low = rng.choice((
        (resource.RLIMIT_NOFILE, rng.randrange(4, 24)),
        (resource.RLIMIT_AS, memory_of(pid) + rng.randrange(1 << 20, 64 << 20)),
    ))
    with suppress(ProcessLookupError):
        own = resource.getrlimit(which)    # of the writer, too, unless another fault stands
        resource.prlimit(pid, which, (low, own[1]))
        event.what = f"{'open files' if which == resource.RLIMIT_NOFILE else 'memory'} up to {low}"

        def undo() -> None:
            with suppress(ProcessLookupError):
                resource.prlimit(pid, which, own)

        return undo
    return None


def memory_of(pid: int) -> int:
    """Bytes of address space."""
    with suppress(OSError):
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[0])
        return pages * os.sysconf("SC_PAGE_SIZE")
    return 1 << 30


def flip(target: Target, fault: Fault, event: Event) -> Undo | None:
    """One bit of a retired segment's records."""
    place = retired_byte(target.log, fault.choice)
    if place is None:
        return None
    file, position = place
    bit = 1 << fault.choice % 8
    found = place_in(file, position)
    if found is None or not xor(file, position, bit):
        return None
    event.file, event.position = str(file), position
    event.offset, event.end_offset = found
    event.what = f"bit {bit:#04x} of byte {position} of {file.name}"
    target.inspect(event)

    def undo() -> None:
        xor(file, position, bit)

    return undo


def truncate(target: Target, fault: Fault, event: Event) -> Undo | None:
    """The end of a retired segment is gone, and comes back."""
    place = retired_byte(target.log, fault.choice)
    if place is None:
        return None
    file, position = place
    found = place_in(file, position)
    try:
        tail = file.read_bytes()[position:]
        os.truncate(file, position)
    except OSError:
        return None
    event.file, event.position = str(file), position
    event.offset = found[0] if found else None
    event.end_offset = next((base for base in map(base_of, segments_of(target.log))
                             if base > base_of(file)), None)
    event.what = f"{file.name} cut to {position} bytes"
    target.inspect(event)

    def undo() -> None:
        with suppress(FileNotFoundError), file.open("r+b") as opened:
            opened.seek(position)
            opened.write(tail)

    return undo


def disk_full(target: Target, fault: Fault, event: Event) -> Undo | None:
    """A file takes all that the small disk has left; or no file may grow."""
    if target.ballast is None:
        return no_growth(target, event)
    ballast = target.ballast
    target.hold_janitor(True)
    disk = os.statvfs(ballast.parent)
    with suppress(OSError), ballast.open("wb") as opened:
        os.posix_fallocate(opened.fileno(), 0, max(1, disk.f_bavail * disk.f_frsize))
    event.what = f"the last {disk.f_bavail * disk.f_frsize >> 10} KiB taken away"

    def undo() -> None:
        ballast.unlink(missing_ok=True)
        target.hold_janitor(False)

    return undo


def no_growth(target: Target, event: Event) -> Undo:
    """Where nothing can be mounted: RLIMIT_FSIZE for all writers, which fallocate obeys."""
    pids = target.alive("writer")
    for pid in pids:
        limit_file_size(pid, target.plan.options.segment_bytes // 4)
    event.what = f"no file of {len(pids)} writers may grow"

    def undo() -> None:
        for pid in pids:
            limit_file_size(pid, resource.getrlimit(resource.RLIMIT_FSIZE)[0])

    return undo


def limit_file_size(pid: int, limit: int) -> None:
    """The soft limit alone: the hard one could not be raised again."""
    with suppress(ProcessLookupError):
        hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)[1]
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (limit, hard))


def retired_byte(log: Path, choice: int) -> tuple[Path, int] | None:
    """A byte of a segment that is neither the active nor the first one, which may be deleted."""
    retired = segments_of(log)[1:-1]
    if not retired:
        return None
    rng = random.Random(choice)
    file = rng.choice(retired)
    with suppress(OSError):
        return file, rng.randrange(1, file.stat().st_size)
    return None


def place_in(file: Path, position: int) -> tuple[int, int] | None:
    """First and end offset of the batch at a byte of a segment file."""
    with suppress(OSError):
        window = Window(file)
        try:
            walker = Walker(window)
            while (found := walker.step()) and not found["fault"]:
                if walker.position > position:
                    return found["base_offset"], found["last_offset"] + 1
        finally:
            window.close()
    return None


def xor(file: Path, position: int, bit: int) -> bool:
    """False: it was deleted meanwhile."""
    try:
        with file.open("r+b") as opened:
            opened.seek(position)
            byte = opened.read(1)
            opened.seek(position)
            opened.write(bytes([byte[0] ^ bit]))
    except (OSError, IndexError):
        return False
    return True


def send(pid: int, signal_number: int) -> None:
    """To a process that may be gone."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal_number)


FAULTS: dict[str, Callable[[Any, Fault, Event], Undo | None]] = {
    "kill": kill, "kill-at": kill_at, "pause": pause, "fork": fork, "limits": limits, "flip": flip,
    "truncate": truncate,
    "disk-full": disk_full,
}
