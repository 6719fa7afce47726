"""Batches that fill up, and the one thread that appends them: what lingering is.

Records of a partition gather in its open batch. It is closed when it is full, when its linger has
ended, when somebody flushes, and when there is no room for another record; from then on it waits
in a queue, so that the batches of a partition are appended in the order in which they were begun,
one at a time, as by a Kafka producer with max.in.flight.requests.per.connection=1. A batch that
fails is not tried again (what can be waited for, the log has waited for); its futures get the
error, and the batches behind it are appended all the same.

A record for a batch that is open is put into it by the native half alone, without the lock: the
GIL is one (`native/filling.pxi`). All waits are for conditions; nothing polls, and an idle producer
costs nothing.
"""

import atexit
import contextlib
import copy
import functools
import logging
import os
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Generator
from typing import Any

from pylog import _native
from pylog.errors import (
    ClosedError,
    IllegalStateError,
    MessageSizeTooLargeError,
    PylogTimeoutError,
)

logger = logging.getLogger("pylog")

# Those whose thread runs: at exit they are finished, also when nobody else knows them any more.
_running: "set[Accumulator]" = set()


class Job:
    """What the thread does in its turn; a Batch is one. What futures ask of it is here."""

    def __init__(self, accumulator: "Accumulator", do: Callable[[], int]) -> None:
        self.accumulator = accumulator
        self.do = do
        self.first_offset = -1
        self.error: BaseException | None = None
        self.is_done = False
        self.is_told = False    # somebody has asked what became of it
        self.callbacks: list[tuple[Any, Any]] = []

    @property
    def records(self) -> int:
        """How many it appends as a batch."""
        return 0

    def wait(self, timeout: float | None) -> bool:
        """Until it is done; False after `timeout` seconds."""
        return self.is_done or self.accumulator.wait_for(lambda: self.is_done, timeout)

    def tell(self) -> BaseException | None:
        """Its error, or None. Each who asks gets a copy: raising adds a traceback, and with it the
        frames of who asked."""
        self.is_told = True
        return copy_of(self.error)

    def add_callback(self, future: Any, function: Any) -> bool:
        """False: it is done, and nobody would call."""
        return self.accumulator.add_callback(self, future, function)

    def add_done_callback(self, function: Callable[["Job"], None]) -> None:
        if not self.add_callback(self, function):
            function(self)

    def __await__(self) -> Generator[Any, None, None]:
        yield from _native.wait_in_loop(self)
        if error := self.tell():
            raise error


class Batch(Job):
    """Records of one partition, appended whole or not at all; the native half is `filling`."""

    def __init__(self, accumulator: "Accumulator", target: _native.Target, log: _native.Appender,
                 limit: int, deadline: float) -> None:
        super().__init__(accumulator, self.append)
        self.target = target
        self.log = log
        self.deadline = deadline
        self.filling = _native.Filling(self, limit)

    @property
    def records(self) -> int:
        return self.filling.records

    def append(self) -> int:
        return self.filling.append(self.log, self.target.codec, self.accumulator.waits)


class Accumulator:
    """The batches of one producer. Safe for threads, but for its own: see `check_thread`.

    waits: for the disk, before a batch is done. max_block_ms: how long `add` waits for room; with
    blocks=False it does not, and the caller asks `has_room` before.
    """

    def __init__(self, linger_ms: float, batch_size: int, buffer_memory: int, max_block_ms: float,
                 waits: bool, blocks: bool = True) -> None:
        self.linger = linger_ms / 1000
        self.batch_size = batch_size
        self.buffer_memory = buffer_memory
        self.max_block = max_block_ms / 1000
        self.waits = waits
        self.pool = _native.Pool(buffer_memory if blocks else 1 << 62)
        self._lock = threading.Lock()
        self._work = threading.Condition(self._lock)        # for the thread
        self._progress = threading.Condition(self._lock)    # for all who wait for it
        self._open: dict[tuple[_native.Target, int], Batch] = {}    # the oldest first
        self._queue: deque[Job] = deque()
        self._thread: threading.Thread | None = None
        self._pid = os.getpid()
        self._is_closing = False
        self._is_abandoned = False
        self._accepted = 0    # jobs, and of these the finished ones
        self._finished = 0
        self._failed: list[Job] = []
        self._at_progress: list[Callable[[], None]] = []
        self.batches_total = 0
        self.batch_bytes_total = 0
        self.batch_records_total = 0
        self.errors_total = 0    # records
        self.waiting_threads = 0

    # ---- in

    def add(self, target: _native.Target, partition: int, log: _native.Appender,
            value: bytes | None, key: bytes | None, headers: bytes | None, timestamp: int,
            size: int, size_max: int) -> tuple[Batch, int]:
        """Puts a record into the open batch of its partition; returns it, and the place in it.

        size: of the record as a batch of its own, at most. size_max: of a batch in this log. Waits
        for room, and raises PylogTimeoutError when there is none after max_block_ms.
        """
        place = (target, partition)
        with self._lock:
            while True:
                self._check_open()
                if self.pool.bytes + size > self.pool.bytes_max:
                    self._wait_for_room(size)
                batch = self._open.get(place)
                if batch is None:
                    batch = self._begin(place, log, min(self.batch_size, size_max))
                index = batch.filling.add(self.pool, value, key, headers, timestamp, size)
                if index >= 0:
                    return batch, index
                if self.pool.bytes + size <= self.pool.bytes_max:    # so it is the batch
                    self._close_batch(place)

    def _begin(self, place: tuple[_native.Target, int], log: _native.Appender, limit: int) -> Batch:
        batch = Batch(self, place[0], log, limit, time.monotonic() + self.linger)
        self._open[place] = batch
        place[0].fill(place[1], batch.filling)
        self._accepted += 1
        self._start()
        if len(self._open) == 1:    # else the thread waits for an older one
            self._work.notify()
        return batch

    def _close_batch(self, place: tuple[_native.Target, int]) -> None:
        batch = self._open.pop(place)
        batch.filling.close()
        self._queue.append(batch)
        place[0].move_on(place[1])
        self._work.notify()

    def _close_batches(self) -> None:
        for place in list(self._open):
            self._close_batch(place)

    def _wait_for_room(self, size: int) -> None:
        if size > self.buffer_memory:
            raise MessageSizeTooLargeError(
                f"the record takes {size} bytes, over buffer_memory ({self.buffer_memory}); "
                "nothing was sent; use a larger buffer, or linger_ms=0", size=size)
        self.check_thread("wait for room in the buffer")
        self._close_batches()    # so that what is there goes
        self.waiting_threads += 1
        try:
            has_room = self._progress.wait_for(
                lambda: self._is_closing or self.pool.bytes + size <= self.pool.bytes_max,
                self.max_block)
        finally:
            self.waiting_threads -= 1
        self._check_open()
        if not has_room:
            raise PylogTimeoutError(
                f"the buffer is full: {self.pool.bytes} of {self.buffer_memory} bytes wait to be "
                f"appended, and there was no room for {size} more within max_block_ms "
                f"({self.max_block * 1000:g}); nothing was sent; send it again, or use a larger "
                "buffer_memory", timeout_ms=int(self.max_block * 1000))

    @property
    def is_idle(self) -> bool:
        """Whether all that was accepted is appended or has failed."""
        return self._finished == self._accepted

    @property
    def has_room(self) -> bool:
        """Whether another record may be put in, whatever its size."""
        return self.pool.bytes < self.buffer_memory

    def call_at_progress(self, function: Callable[[], None]) -> None:
        """Calls it in the thread when something was appended; at once if there is room."""
        with self._lock:
            if not self.has_room:
                self._close_batches()    # so that what is there goes
                self._at_progress.append(function)
                return
        function()

    def run(self, do: Callable[[], int]) -> Job:
        """Has the thread call `do` when all that was sent before is appended."""
        with self._lock:
            self._check_open()
            self._close_batches()
            job = Job(self, do)
            self._queue.append(job)
            self._accepted += 1
            self._start()
            self._work.notify()
            return job

    # ---- waiting

    def check_thread(self, action: str) -> None:
        """A callback that waits for the thread it runs in would wait for ever."""
        if threading.current_thread() is self._thread:
            raise IllegalStateError(
                f"cannot {action} in a callback: it runs in the thread that appends; do it "
                "elsewhere, as by a queue")

    def _check_open(self) -> None:
        if self._is_closing:
            raise ClosedError("the producer is closed; make a new one")

    def wait_for(self, predicate: Callable[[], bool], timeout: float | None) -> bool:
        """Until something that happens in the thread has happened."""
        self.check_thread("wait for a record")
        with self._lock:
            return self._progress.wait_for(predicate, timeout)

    def add_callback(self, job: Job, future: Any, function: Any) -> bool:
        with self._lock:
            if job.is_done:
                return False
            job.callbacks.append((future, function))
            return True

    def drain(self, timeout: float | None = None) -> None:
        """Waits until what was accepted so far is appended, or has failed."""
        if self._pid != os.getpid():
            return
        self.check_thread("flush")
        with self._lock:
            self._close_batches()
            wanted = self._accepted
            if self._progress.wait_for(lambda: self._finished >= wanted, timeout):
                return
            count = self.pool.records
        raise PylogTimeoutError(
            f"{count} record(s) are still in the buffer after {timeout} s; wait again",
            timeout_ms=int((timeout or 0) * 1000))

    def flush(self, timeout: float | None = None) -> None:
        """As `drain`, and raises the first error of which no future has been asked."""
        self.drain(timeout)
        self.raise_untold()

    def raise_untold(self) -> None:
        with self._lock:
            failed, self._failed = self._failed, []
        untold = [job for job in failed if not job.is_told]
        if untold and (error := copy_of(untold[0].error)):
            error.add_note(f"{sum(job.records for job in untold)} record(s) that were sent are not "
                           f"in the log, in {len(untold)} batch(es); this was the first's error")
            raise error

    def close(self, timeout: float | None = None) -> None:
        """Appends what is there and ends the thread. After `timeout` seconds what has not begun is
        given up: its futures get ClosedError, and PylogTimeoutError is raised. Idempotent."""
        if self._pid != os.getpid():
            return    # of another process, which has the thread
        self.check_thread("close the producer")
        with self._lock:
            self._is_closing = True
            self._close_batches()
            self._work.notify()
            self._progress.notify_all()
            is_done = self._progress.wait_for(lambda: self._finished == self._accepted, timeout)
            given_up = [] if is_done else list(self._queue)
            self._queue.clear()
        error = ClosedError("the producer was closed before the record was appended; send it again")
        for job in given_up:
            self._finish(job, -1, error)
        if not is_done:
            raise PylogTimeoutError(
                f"closing took over {timeout} s: {sum(job.records for job in given_up)} record(s) "
                "were given up and are not in the log, as their futures tell",
                timeout_ms=int((timeout or 0) * 1000))
        if self._thread is not None:
            self._thread.join()
        self.raise_untold()

    def abandon(self) -> None:
        """Nobody will close it: the thread appends what is there, and ends.

        May be called by the garbage collector, in whatever thread and wherever that is.
        """
        if self._is_closing or self._pid != os.getpid():
            return
        if self.pool.records:
            warnings.warn(f"a producer with {self.pool.records} record(s) in its buffer was "
                          "dropped; they are being appended; close() it, or use `with`",
                          ResourceWarning, stacklevel=3)
        self._is_closing = self._is_abandoned = True
        if self._lock.acquire(blocking=False):    # else the thread has it, and will look
            self._work.notify()
            self._lock.release()

    # ---- the thread

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._work_on, name="pylog-producer",
                                            daemon=True)
            _running.add(self)
            _finish_at_exit()
            self._thread.start()

    def _work_on(self) -> None:
        while (job := self._next()) is not None:
            offset, error = -1, None
            try:
                offset = job.do()
            except BaseException as caught:
                error = caught
            self._finish(job, offset, error)
            del job, error
        _running.discard(self)
        for job in self._failed:
            if self._is_abandoned and not job.is_told:
                logger.error("%d record(s) are not in the log: %s", job.records, job.error)

    def _next(self) -> Job | None:
        """The next thing to do; None: there will be none any more."""
        with self._lock:
            while True:
                now = time.monotonic()
                for place, batch in list(self._open.items()):
                    if batch.deadline > now and not self._is_closing:
                        break
                    self._close_batch(place)
                if self._queue:
                    return self._queue.popleft()
                if self._is_closing:
                    return None
                oldest = next(iter(self._open.values()), None)
                self._work.wait(None if oldest is None else oldest.deadline - now)

    def _finish(self, job: Job, offset: int, error: BaseException | None) -> None:
        with self._lock:
            job.first_offset, job.error, job.is_done = offset, error, True
            callbacks, job.callbacks = job.callbacks, []
            at_progress, self._at_progress = self._at_progress, []
            self._finished += 1
            if isinstance(job, Batch):
                self.pool.release(job.filling)
                job.filling.empty()
                self.batches_total += 1
                self.batch_bytes_total += job.filling.bytes
                self.batch_records_total += job.filling.records
            if error is not None:
                self.errors_total += job.records
                self._failed.append(job)
            self._progress.notify_all()
        for function in at_progress:
            function()
        for one in callbacks:
            try:
                _native.run_callbacks([one])
            except BaseException:    # such as SystemExit, which would end the thread
                if threading.current_thread() is not self._thread:
                    raise
                logger.exception("a callback of %r", one[0])


def copy_of(error: BaseException | None) -> BaseException | None:
    with contextlib.suppress(Exception):    # some cannot be copied
        return copy.copy(error)
    return error


@functools.cache
def _finish_at_exit() -> None:
    """A process that just ends loses nothing that was accepted.

    Asked for when the first thread starts, and so called before what closes the logs: that was
    asked for when the first log was opened, at the latest.
    """
    atexit.register(_finish_all)


def _finish_all() -> None:
    for accumulator in list(_running):
        try:
            accumulator.close()
        except Exception:
            logger.exception("records that were sent are not in the log")
