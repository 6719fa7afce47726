"""SagaHandle: a saga seen from outside, whoever executes it."""

import time
from typing import Any

from pylog import PylogTimeoutError, SagaFailedError
from pylog.patterns.retry import check_seconds
from pylog.patterns.saga_entry import ENDED, Entry
from pylog.patterns.saga_journal import Journal


class SagaHandle:
    """What `submit` returns. id: of the saga. Holds no resources; for any thread."""

    def __init__(self, journal: Journal, saga: str) -> None:
        self.id = saga
        self._journal = journal

    def status(self) -> str:
        """ "submitted", "running", "compensating", "completed", "compensated" or "parked".

        Raises UnknownSagaError where its time to live is over.
        """
        return self._journal.entry(self.id.encode()).status

    def done(self) -> bool:
        """Whether it has ended: completed, compensated or parked."""
        return self.status() in ENDED

    def result(self, timeout: float | None = None) -> dict[str, Any]:
        """Waits for its end, and returns what its steps have returned, by name.

        Raises SagaFailedError (compensated or parked), PylogTimeoutError after `timeout` s: it goes
        on then, if anybody works.
        """
        deadline = None if timeout is None else time.monotonic() + check_seconds("timeout", timeout)
        while (entry := self._journal.entry(self.id.encode())).status not in ENDED:
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                raise PylogTimeoutError(
                    f"the saga {self.id!r} is {entry.status} after {timeout} s: see whether "
                    "anybody works for it, or wait for longer",
                    timeout_ms=int(1000 * (timeout or 0)))
            self._journal.state.wait(left)
        return result_of(self._journal, entry)

    def __repr__(self) -> str:
        return f"<SagaHandle {self.id!r}>"


def result_of(journal: Journal, entry: Entry) -> dict[str, Any]:
    """The results of one that has ended. Raises SagaFailedError."""
    if entry.status != "completed":
        raise failure(entry.key.decode(), entry.status, entry.step, journal.error_of(entry))
    return {name: journal.result(offset) for name, offset in entry.steps if offset is not None}


def failure(saga: str, status: str, step: str | None, reason: str | None) -> SagaFailedError:
    """The error of one that was not completed."""
    is_undone = status == "compensated"
    what = "what was done before is undone" if is_undone else \
        "it is parked: mend what its compensation fails on, then `retry` it"
    return SagaFailedError(f"the saga {saga!r} failed at the step {step!r}: {reason}; {what}",
                           saga=saga, step=step, reason=reason, compensated=is_undone)
