"""Breaker: stops trying for a while what has failed too often in a row. It only says so: who asks
waits himself.
"""

import threading
import time
from collections.abc import Callable
from typing import Literal

TRIAL_SECONDS = 0.05    # between looks at how the one trial went

State = Literal["closed", "open", "half-open"]


class Breaker:
    """Counts `failures` in a row. Safe for threads.

    pause_after: how many open it; None: none do. cooldown: seconds that it is open. Then one who
    asks may try (half-open), and the others wait for how that goes.

        >>> breaker = Breaker(pause_after=2, cooldown=30, clock=lambda: 0)
        >>> breaker.failed(), breaker.failed(), breaker.wait_seconds()
        (False, True, 30)
    """

    __slots__ = ("_clock", "_cooldown", "_lock", "_open_until", "_pause_after", "failures",
                 "state")

    def __init__(self, pause_after: int | None, cooldown: float,
                 clock: Callable[[], float] = time.monotonic) -> None:
        self.state: State = "closed"
        self._pause_after = pause_after
        self._cooldown = cooldown
        self._clock = clock
        self.failures = 0
        self._open_until = 0.0
        self._lock = threading.Lock()

    def wait_seconds(self) -> float:
        """0: go ahead. Else so many seconds are to pass until it is asked again."""
        if self.state == "closed":
            return 0
        with self._lock:
            if self.state == "half-open":
                return TRIAL_SECONDS
            if self.state == "open":
                left = self._open_until - self._clock()
                if left > 0:
                    return left
                self.state = "half-open"
            return 0

    def succeeded(self) -> None:
        """It went well: all is forgotten."""
        with self._lock:
            self.failures = 0
            self.state = "closed"

    def failed(self) -> bool:
        """One more in a row; whether it is open now."""
        if self._pause_after is None:
            return False
        with self._lock:
            self.failures += 1
            if self.failures < self._pause_after and self.state != "half-open":
                return False
            self.state = "open"
            self._open_until = self._clock() + self._cooldown
            return True

    def undecided(self) -> None:
        """It failed for a reason that says nothing of the next one, which may try."""
        if self.state == "half-open":
            with self._lock:
                self.state = "open"    # until a time that has passed
