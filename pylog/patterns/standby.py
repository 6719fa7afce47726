"""Standby: work that one process at a time does, and another takes over the moment it dies.

The relay of an outbox and the feed of an audit trail are this: a thread that waits for a claim
(`broker.claim`), works while it has it, and finds out by itself what the one before had in hand.
"""

import atexit
import logging
import threading
from typing import Any, Self

from pylog import Broker, PylogTimeoutError

logger = logging.getLogger("pylog.patterns")

LOOK_SECONDS = 0.2              # between looks whether it is to stop, while another has the claim
PAUSE_SECONDS = (0.05, 5.0)     # after a failure; twice as long after each


class Standby:
    """A thread that works under a claim: `start`, `stop`, or `with`. What fails is tried again.

    claim: its name, where it is not that of the work. error: what the work has failed on last, and
    is about to be tried again; None: all is well.
    """

    def __init__(self, broker: Broker, name: str, claim: str | None = None) -> None:
        self.name = name
        self._claim_name = name if claim is None else claim
        self.error: BaseException | None = None
        self._broker = broker
        self._is_stopping = False
        self._news = threading.Event()
        self._thread: threading.Thread | None = None

    def _work(self) -> None:
        """Called with the claim held. Works until `_is_stopping`, says `error = None` when it went
        well, and `_wait` when there is nothing to do. What it raises is logged, and it is called
        again."""
        raise NotImplementedError

    def _wait(self, seconds: float) -> None:
        self._news.wait(seconds)
        if not self._is_stopping:
            self._news.clear()

    def wake(self) -> None:
        """Says that there is something to do: it looks at once, and not after its pause."""
        self._news.set()

    # ---- the thread

    def start(self) -> Self:
        """Begins, or stands by while another process is at it; returns itself. Idempotent."""
        if not self.is_running:
            self._is_stopping = False
            self.error = None
            self._news.clear()
            self._broker.dependents.add(self)
            atexit.register(self.stop)    # before the logs are closed under it
            self._thread = threading.Thread(target=self._run, daemon=True, name=self.name)
            self._thread.start()
        return self

    def _run(self) -> None:
        claim = self._broker.claim(self._claim_name)
        pause, longest = PAUSE_SECONDS
        while not self._is_stopping:
            try:
                if claim.acquire(LOOK_SECONDS):
                    self._work()
            except Exception as error:
                if self._broker.closed:
                    return
                pause = PAUSE_SECONDS[0] if self.error is None else min(2 * pause, longest)
                self.error = error
                logger.warning("%s: %s: %s; it is tried again in %.2g s", self.name,
                               type(error).__name__, error, pause)
                self._wait(pause)
            finally:
                claim.release()

    @property
    def is_running(self) -> bool:
        """Whether it works, or stands by: it was started, and not stopped."""
        return self._thread is not None and self._thread.is_alive()

    def stop(self, timeout: float | None = None) -> None:
        """Finishes what is in hand, and ends; idempotent. Raises PylogTimeoutError."""
        self._is_stopping = True
        self.wake()
        thread = self._thread    # which another that stops it may set to None meanwhile
        if thread is None or thread is threading.current_thread():
            return
        thread.join(timeout)
        if thread.is_alive():
            raise PylogTimeoutError(f"{self.name} has been at work for {timeout} s since it was to "
                                    "stop; call stop() again",
                                    timeout_ms=int(1000 * (timeout or 0)))
        self._thread = None
        atexit.unregister(self.stop)

    _is_made_of_others = True    # the broker closes it before its producers and consumers

    def _close_with_broker(self) -> None:
        self.stop()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exception: Any) -> None:
        self.stop()

    def __repr__(self) -> str:
        state = "failing" if self.error else "running" if self.is_running else "not running"
        return f"<{type(self).__name__} {self.name!r}, {state}>"
