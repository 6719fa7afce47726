"""Claims: a name that one holder at a time has, among all processes of a broker.

    DATA/claims            who has which (csrc/pl_table.h)

A lock, or a leadership, that the kernel gives back: it is free within milliseconds of its holder's
death, and there is no lease to renew. A holder that is stopped keeps it.
"""

import contextlib
import time
from pathlib import Path
from typing import NamedTuple, Self

from pylog._native import TABLE_NAME_MAX, Processes, Table
from pylog.errors import ConfigurationError, IllegalStateError, PylogTimeoutError
from pylog.options import patience


class ClaimEntry(NamedTuple):
    """A claim that somebody holds. pid: of the holder's process."""

    name: str
    pid: int


def check_claim_name(name: object) -> str:
    """Returns it. Raises ConfigurationError, TypeError."""
    if not isinstance(name, str):
        raise TypeError(f"the name of a claim must be a str, not {type(name).__name__}")
    if not 1 <= len(name.encode("utf-8", "surrogatepass")) <= TABLE_NAME_MAX or "\0" in name:
        raise ConfigurationError(
            f"a claim cannot be called {name[:60]!r}; use 1 to {TABLE_NAME_MAX} bytes",
            option="name", value=name)
    return name


class Claim:
    """What `broker.claim(name)` returns: a context manager, to be held by one `with` at a time.

        >>> import pylog.broker
        >>> with pylog.broker.Broker("data") as broker:
        ...     with broker.claim("nightly-job") as claim:
        ...         claim.is_held
        True
    """

    def __init__(self, table: Table, processes: Processes, name: str,
                 timeout: float | None) -> None:
        self.name = check_claim_name(name)
        self.timeout = patience("timeout", timeout)
        self._table = table
        self._processes = processes
        self._place = table.find(name) or 0
        self._number = 0

    @property
    def is_held(self) -> bool:
        """Whether this object holds it. It does until `release`, or for as long as we live."""
        return self._number != 0

    def acquire(self, timeout: float | None = None) -> bool:
        """Waits for it, woken by whoever gives it back or dies; False after `timeout` seconds.

        timeout: 0 only looks; None waits for ever. Raises IllegalStateError when held already.
        """
        if self._number:
            raise IllegalStateError(f"this object holds the claim {self.name!r} already")
        patience("timeout", timeout)
        self._processes.join()
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            changes, deaths = self._table.changes, self._processes.deaths
            owner, *holder = self._table.owner(self._place)
            if not owner or not self._processes.is_alive(*holder):
                if self._take(owner):
                    return True
                continue
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                return False
            self._table.wait(changes, deaths, left)

    def _take(self, owner: int) -> bool:
        """From a dead owner, or nobody. Whose number it is is noted before: an interrupt may come
        when it is ours already."""
        self._number = self._table.new_owner()
        try:
            if self._table.own(self._place, owner, self._number):
                return True
        except BaseException:
            self.release()
            raise
        self._number = 0
        return False

    def release(self) -> None:
        """Gives it back; idempotent. What it raises leaves it held, and it may be done again."""
        if self._number:
            self._table.own(self._place, self._number, 0)
            self._number = 0

    def __enter__(self) -> Self:
        if self.acquire(self.timeout):
            return self
        raise PylogTimeoutError(
            f"pid {self.holder()} has held the claim {self.name!r} for {self.timeout} s; wait "
            "longer, or end that process", holder_pid=self.holder(),
            timeout_ms=int(1000 * (self.timeout or 0)))

    def __exit__(self, *exception: object) -> None:
        self.release()

    def holder(self) -> int | None:
        """The process id of who holds it; None: nobody."""
        owner, *holder = self._table.owner(self._place)
        return self._processes.pid_of(*holder) if owner else None

    def __repr__(self) -> str:
        return f"<Claim {self.name!r}, {'held' if self._number else 'not held'} by this object>"

    def __del__(self) -> None:
        with contextlib.suppress(Exception):
            self.release()


def claims_table(data_dir: Path, processes: Processes) -> Table:
    """The table that all claims of a broker are in."""
    return Table(data_dir / "claims", "claims", processes)


def held_claims(table: Table, processes: Processes) -> list[ClaimEntry]:
    """Those that are held by somebody who lives."""
    found = []
    for place, (name, _) in enumerate(table.slots()):
        owner, *holder = table.owner(place)
        pid = processes.pid_of(*holder) if owner else None
        if pid is not None:
            found.append(ClaimEntry(name, pid))
    return sorted(found)
