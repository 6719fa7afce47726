"""Supervisor: keeps a number of worker processes alive until it is told to stop.

A worker has its stdin from here, and ends when that does; so none outlives its supervisor, whatever
kills that. It is in a process group of its own: Ctrl-C reaches the supervisor alone, which passes
on one SIGTERM.
"""

import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence

from pylog.exits import Exit

LOOK_SECONDS = 0.05
TWICE_SECONDS = 0.3
YOUNG_SECONDS = 5.0                      # who dies younger is begun anew later and later:
BACKOFF_FIRST, BACKOFF_MOST = 0.1, 30.0


class Worker:
    """A place for a process. due: when it is begun (time.monotonic)."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.process: subprocess.Popen[bytes] | None = None
        self.failures = 0
        self.begun = self.due = 0.0

    def begin(self, command: Sequence[str]) -> None:
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, process_group=0)
        self.begun = time.monotonic()

    def ended(self) -> int | None:
        """The exit code of a process that has ended since the last look, which is forgotten."""
        if self.process is None or (code := self.process.poll()) is None:
            return None
        if self.process.stdin is not None:
            self.process.stdin.close()
        self.process = None
        is_young = time.monotonic() - self.begun < YOUNG_SECONDS
        self.failures = self.failures + 1 if is_young else 1
        self.due = time.monotonic() + min(BACKOFF_MOST, BACKOFF_FIRST * 2.0 ** (self.failures - 1))
        return code

    def send(self, number: signal.Signals) -> None:
        if self.process is not None:
            self.process.send_signal(number)


class Supervisor:
    """command: of a worker, which finishes what it is at when it gets SIGTERM. count: how many.
    grace: seconds that it has for that. say: is told what happens, a line each."""

    def __init__(self, command: Sequence[str], count: int, grace: float,
                 say: Callable[[str], None]) -> None:
        self._command = command
        self._workers = [Worker(number) for number in range(1, count + 1)]
        self._grace = grace
        self._say = say
        self._is_asked = self._is_urged = False
        self._asked_at = 0.0
        self._changed = threading.Event()

    def reload(self) -> None:
        """Ends all workers and begins them anew, with the code as it is now. Safe for threads."""
        self._changed.set()

    def run(self, waits_for_changes: bool = False) -> Exit:
        """Until SIGINT or SIGTERM, or until a worker says that it cannot begin (Exit.USAGE), unless
        changes may mend that. A second signal ends the workers at once."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._ask)
        outcome = Exit.FINE
        while not self._is_asked:
            if self._changed.is_set():
                self._changed.clear()
                self._say("reloading: files have changed")
                self._stop_all()
                for worker in self._workers:
                    worker.due = worker.failures = 0
            for worker in self._workers:
                if self._look(worker) == Exit.USAGE and not waits_for_changes:
                    outcome, self._is_asked = Exit.USAGE, True
            time.sleep(LOOK_SECONDS)
        self._stop_all()
        return outcome

    def _look(self, worker: Worker) -> int | None:
        """Begins it, if that is due. Returns the code with which it has ended."""
        code = worker.ended()
        if code == Exit.USAGE:
            worker.due = float("inf")
        elif code is not None:
            self._say(f"worker {worker.number} {_how(code)}; it is begun anew in "
                      f"{max(0.0, worker.due - time.monotonic()):.1f} s")
        elif worker.process is None and time.monotonic() >= worker.due:
            worker.begin(self._command)
        return code

    def _ask(self, number: int, frame: object) -> None:
        """One Ctrl-C may come twice: from the terminal, and from a program that passes it on."""
        now = time.monotonic()
        if not self._is_asked:
            self._is_asked, self._asked_at = True, now
        elif now - self._asked_at > TWICE_SECONDS:
            self._is_urged = True

    def _stop_all(self) -> None:
        deadline = time.monotonic() + self._grace
        self._send(signal.SIGTERM)
        while any(one.process is not None for one in self._workers):
            if self._is_urged or time.monotonic() > deadline:
                self._say("killing workers that are still at work; others will do that again")
                self._send(signal.SIGKILL)
                deadline, self._is_urged = float("inf"), False
            for worker in self._workers:
                worker.ended()
            time.sleep(LOOK_SECONDS)

    def _send(self, number: signal.Signals) -> None:
        for worker in self._workers:
            worker.send(number)


def _how(code: int) -> str:
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
