"""Parties of a pattern as processes: forked, killed, begun anew; each writes down what it does.

A diary is a file that is appended to by one system call a line, so that a kill leaves it whole. The
test forks from its main thread, and no party inherits an open broker.
"""

import logging
import os
import signal
import time
import traceback
from pathlib import Path


class Party:
    """A process that runs `act(*arguments)`."""

    def __init__(self, act, *arguments):
        self.start = lambda: self._fork(act, arguments)
        self.start()

    def _fork(self, act, arguments):
        self.pid = os.fork()
        if self.pid == 0:
            code = 1
            logging.disable(logging.WARNING)    # of each failure that is meant
            try:
                act(*arguments)
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)

    def kill(self):
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)

    def pause(self):
        """Stopped, all of its threads, when this returns."""
        os.kill(self.pid, signal.SIGSTOP)
        os.waitpid(self.pid, os.WUNTRACED)

    def go_on(self):
        os.kill(self.pid, signal.SIGCONT)

    def wait(self):
        """Until it has ended of itself, and well."""
        _, status = os.waitpid(self.pid, 0)
        assert os.waitstatus_to_exitcode(status) == 0


class Diary:
    """Lines that a party writes; opened anew in each process."""

    def __init__(self, path):
        self.path = Path(path)
        self.path.touch()
        self._file = (0, -1)    # whose, and which

    def write(self, line):
        if self._file[0] != os.getpid():
            self._file = os.getpid(), os.open(self.path, os.O_WRONLY | os.O_APPEND)
        os.write(self._file[1], f"{line}\n".encode())

    def lines(self):
        return self.path.read_text(encoding="utf-8").splitlines()


class Signal:
    """Something that was said once, to all processes."""

    def __init__(self, path):
        self.path = Path(path)

    def give(self):
        self.path.touch()

    @property
    def is_given(self):
        return self.path.exists()

    def wait(self, seconds=60):
        deadline = time.monotonic() + seconds
        while not self.is_given:
            assert time.monotonic() < deadline, f"nobody gave {self.path.name}"
            time.sleep(0.002)


def kill_at_random(parties, rng, rounds, pauses=(0.0, 0.06)):
    """Kills one of them, and begins it anew, round after round."""
    for _ in range(rounds):
        time.sleep(rng.uniform(*pauses))
        party = rng.choice(parties)
        party.kill()
        party.start()
