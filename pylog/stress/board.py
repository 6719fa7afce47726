"""The board: a few words of memory that all processes of a run share, and nobody locks."""

import mmap
from enum import IntEnum

import numpy


class Phase(IntEnum):
    """Where a run is. Who works looks at it between two calls."""

    FAULTS = 0
    QUIET = 1
    STOP = 2      # no more appends; readers go on to the end
    SETTLE = 3    # the writers are gone: what is there now is all
    END = 4


PHASE, CHECKED, HELD, FORKS = 0, 1, 2, 8
FORKS_MAX = 248


class Board:
    """Anonymous shared memory, made before the first fork; each word has one writer."""

    def __init__(self) -> None:
        self.words = numpy.frombuffer(mmap.mmap(-1, 8 * (FORKS + FORKS_MAX)), numpy.int64)

    @property
    def phase(self) -> Phase:
        """The stage's word."""
        return Phase(int(self.words[PHASE]))

    @phase.setter
    def phase(self, phase: Phase) -> None:
        self.words[PHASE] = phase

    @property
    def checked(self) -> int:
        """The checker's word: offsets below it were checked."""
        return int(self.words[CHECKED])

    @checked.setter
    def checked(self, offset: int) -> None:
        self.words[CHECKED] = offset

    @property
    def is_held(self) -> bool:
        """The stage's word: nothing is to be deleted now."""
        return bool(self.words[HELD])

    @is_held.setter
    def is_held(self, is_held: bool) -> None:
        self.words[HELD] = is_held

    def ask_to_fork(self, writer: int) -> None:
        """The stage asks a writer."""
        self.words[FORKS + writer % FORKS_MAX] += 1

    def forks_asked(self, writer: int) -> int:
        """How often it was asked so far."""
        return int(self.words[FORKS + writer % FORKS_MAX])
