"""One at a time among all processes: an flock with a time-out that names its holder.

A file of the file system, not a lock in shared memory: for what is done seldom, takes milliseconds,
and must not be held by a process that is dead. The kernel frees it when it has taken down the
holder's memory: at once after a small process, 0.2 s after one that had 2 GiB.
"""

import contextlib
import fcntl
import os
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from pylog.errors import MetadataError, PylogTimeoutError

PAUSE_S, PAUSE_MAX_S = 0.0005, 0.005    # between two tries

# Whoever of this process holds a lock, or what it guards, holds this too. A fork waits for it, so
# that no child inherits half of a lock; see pylog.metadata.
process_mutex = threading.RLock()


@contextlib.contextmanager
def file_lock(path: Path, timeout_ms: int) -> Iterator[None]:
    """Holds the lock, and `process_mutex` with it.

    Tried again and again, with the file open and the mutex held only while it is tried; signals are
    handled in between. Raises PylogTimeoutError, MetadataError.
    """
    deadline, pause = time.monotonic() + timeout_ms / 1000, PAUSE_S
    while True:
        with process_mutex:
            if (descriptor := _try_lock(path)) is not None:
                try:
                    yield
                finally:
                    fcntl.flock(descriptor, fcntl.LOCK_UN)
                    os.close(descriptor)
                return
        if time.monotonic() >= deadline:
            raise _timeout(path, timeout_ms)
        time.sleep(pause * random.uniform(0.5, 1))
        pause = min(2 * pause, PAUSE_MAX_S)


def _try_lock(path: Path) -> int | None:
    """A descriptor of the locked file; None: somebody else has it."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise MetadataError(
            f"cannot open {path}: {error.strerror}; look at the owner and mode of its directory",
            path=str(path), errno=error.errno,
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(descriptor), os.stat(path)):
            with contextlib.suppress(OSError):      # a full disk: then errors know no pid
                os.pwrite(descriptor, b"%-20d\n" % os.getpid(), 0)
            return descriptor
    except (BlockingIOError, FileNotFoundError):    # taken; or removed meanwhile, and made anew
        pass
    os.close(descriptor)
    return None


def _timeout(path: Path, timeout_ms: int) -> PylogTimeoutError:
    try:
        holder = int(path.read_bytes())
    except (OSError, ValueError):
        holder = None
    return PylogTimeoutError(
        f"process {holder or 'unknown'} has held {path} for {timeout_ms:,} ms; see what stops it, "
        "and try again",
        path=str(path), timeout_ms=timeout_ms, holder_pid=holder,
    )
