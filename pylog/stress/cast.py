"""The cast: the processes of a run, forked, watched, adopted and buried.

The stage itself opens no log and starts no thread, so that its forks are clean and fast (3 ms,
where a new interpreter takes 150).
"""

import ctypes
import os
import signal
import traceback
from collections import Counter, defaultdict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pylog.stress.sightings import Sightings

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36


@dataclass(slots=True)
class Member:
    """One process: its role, and the number that its successor will have, too."""

    pid: int
    role: str
    index: int
    work: Callable[[], None] | None = None
    errand: str = ""
    status: int = 0    # as wait(2) gives it, when it has ended


class Cast:
    """All of them. `cpu_seconds` sums what those who ended have used, by role."""

    def __init__(self, notes: Sightings) -> None:
        self.notes = notes
        self.members: dict[int, Member] = {}
        self.cpu_seconds: defaultdict[str, float] = defaultdict(float)
        self.ended: Counter[str] = Counter()
        self.libc = ctypes.CDLL(None)
        # The children of a killed writer come to us and not to init.
        self.libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)

    def start(self, role: str, index: int, work: Callable[[], None]) -> int:
        """Forks; the child works and ends."""
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        stage = os.getpid()
        pid = os.fork()
        if pid == 0:
            self.go_with(stage)
            perform(work, Sightings(self.notes.path, f"{role} {index}"))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        self.members[pid] = Member(pid, role, index, work)
        return pid

    def go_with(self, stage: int) -> None:
        """In a child: who kills the stage with SIGKILL has not to look for the others."""
        self.libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != stage:    # it was killed just now
            os._exit(1)

    def start_program(self, role: str, index: int, errand: str, command: list[str]) -> int:
        """The same with a program; `errand` is what it is to do."""
        pid = os.posix_spawn(command[0], command, os.environ)
        self.members[pid] = Member(pid, role, index, errand=errand)
        return pid

    def alive(self, *roles: str) -> list[int]:
        """Process numbers, in the order of their starts; all without a role."""
        return [pid for pid, member in self.members.items()
                if not roles or member.role in roles]

    def has_orphans(self) -> bool:
        """Whether children of a writer that has ended are at work: they are ours by now."""
        stage = os.getpid()
        with suppress(OSError):    # a kernel without CONFIG_PROC_CHILDREN
            return bool({*Path(f"/proc/{stage}/task/{stage}/children").read_text().split()}
                        - {*map(str, self.members)})
        return False

    def bury(self) -> list[Member]:
        """Those who ended since, for the stage to replace."""
        gone: list[Member] = []
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return gone
            if pid == 0:
                return gone
            member = self.members.pop(pid, None)
            role = member.role if member else "child"
            self.cpu_seconds[role] += usage.ru_utime + usage.ru_stime
            self.ended[how(status)] += 1
            if member is None:
                continue    # a child of a writer; what went wrong, it has noted
            member.status = status
            if os.WIFSIGNALED(status) and os.WTERMSIG(status) != signal.SIGKILL:
                self.notes.note("broken-worker",
                                f"{role} {member.index} (pid {pid}) died of {how(status)}",
                                pid=pid)
            gone.append(member)


def how(status: int) -> str:
    """How a process ended, in a word or two."""
    if os.WIFSIGNALED(status):
        return signal.Signals(os.WTERMSIG(status)).name
    return f"exit {os.WEXITSTATUS(status)}"


def perform(work: Callable[[], None], notes: Sightings) -> None:
    """The life of a child. Never returns."""
    status = 1
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)    # Ctrl-C is the stage's alone
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)    # a file that may not grow: EFBIG
        work()
        status = 0
    except BaseException as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        notes.note_end(error, f"{type(error).__name__}: {error} "
                       f"({os.path.basename(where.filename)}:{where.lineno})")
    finally:
        os._exit(status)
