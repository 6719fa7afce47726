"""Handling: records of a consumer given to a handler, by several threads at once.

A partition belongs to one thread, so its records are handled in order. What counts as finished is
what was handled, however much more was read. Reading goes on a few lists ahead; a partition whose
thread has enough to do is held meanwhile, so that the reading thread always turns to its group.
`aio_handling.py` does the same with tasks.
"""

import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pylog.errors import ConcurrentModificationError, GroupError, WakeupError
from pylog.options import at_least, interval
from pylog.subscriber import Subscriber
from pylog.topic import OffsetAndMetadata, TopicPartition

AHEAD_LISTS = 2         # of a partition, that wait for its thread
LOOK_SECONDS = 0.05     # between looks at a commit that may become due


@dataclass(frozen=True)
class Terms:
    """How a run is to be. concurrency: how many records at once. commit_every: after how many to
    commit. commit_seconds: how often. None: not for that reason."""

    handler: Callable[[Any], object]
    concurrency: int
    commit_every: int | None
    commit_seconds: float | None


def terms_of(
    consumer: Subscriber, handler: Callable[[Any], object], concurrency: int,
    commit_every: int | None, commit_interval: float | None,
) -> Terms:
    """What `run` was given, checked. Raises for what cannot be, and where a run is going on
    already."""
    if not callable(handler):
        raise TypeError(f"the handler must be callable, not {type(handler).__name__}")
    most = at_least("concurrency", concurrency, 1)
    every = None if commit_every is None else at_least("commit_every", commit_every, 1)
    often = interval("commit_interval", commit_interval)
    if every is not None or often is not None:
        consumer._needs_group("run(commit_every=, commit_interval=)")
    consumer._check_usable()
    if consumer._handling is not None:
        raise ConcurrentModificationError("the consumer is in a run already: let that end")
    return Terms(handler, most, every, often)


class Progress:
    """What a run has handled and committed. Safe for threads."""

    def __init__(self, consumer: Subscriber, terms: Terms) -> None:
        self._consumer = consumer
        self._handler = terms.handler
        self._every = terms.commit_every
        self._seconds = terms.commit_seconds
        self._commit_at = time.monotonic()
        self._lock = threading.Condition()
        self._reached: dict[TopicPartition, int] = {}      # the first offset not handled
        self._committed: dict[TopicPartition, int] = {}
        self._count = 0                                    # handled since the last commit
        self._full: set[TopicPartition] = set()            # held: nothing more is read of it
        self._failure: BaseException | None = None
        self._has_ended = False

    def finish_own(self) -> None:
        """The record that its handler commits is finished."""

    def finished(self) -> dict[TopicPartition, OffsetAndMetadata]:
        """What was handled since it was last asked for, to be committed."""
        with self._lock:
            moved = {one: offset for one, offset in self._reached.items()
                     if self._committed.get(one) != offset}
            self._committed |= moved
            self._count = 0
        return {one: OffsetAndMetadata(offset) for one, offset in moved.items()}

    def commit(self) -> None:
        """Commits that. No thread commits more meanwhile, which this would take back."""
        with self._lock:
            done = self.finished()
            try:
                if done:
                    self._consumer._commit(done)
            except GroupError:    # they are another's
                raise
            except BaseException:    # it is to be done yet
                for partition in done:
                    self._committed.pop(partition, None)
                raise
            finally:
                self._lock.notify_all()

    def forget(self, partitions: list[TopicPartition]) -> None:
        """What was read of them is void: they are another's from now on, or were sought in."""
        with self._lock:
            for partition in partitions:
                self._reached.pop(partition, None)
                self._committed.pop(partition, None)
                self._full.discard(partition)
                self._consumer._hold(partition, False)
            self._lock.notify_all()

    def _commit_if_due(self) -> None:
        now = time.monotonic()
        if (self._every is not None and self._count >= self._every) or (
                self._seconds is not None and now >= self._commit_at):
            self._commit_at = now + (self._seconds or 0)
            self._consumer._commit_finished()

    def _go_back(self) -> None:
        """The consumer stands where the handler has come to."""
        if self._every is not None or self._seconds is not None or self._consumer._does_commit:
            self._consumer._commit_finished()
        for partition in set(self._reached) & set(self._consumer._partitions()):
            self._consumer._seek(partition, self._reached[partition])
            self._consumer._hold(partition, False)


class Handling(Progress):
    """A run of a consumer with `concurrency` threads."""

    def __init__(self, consumer: Subscriber, terms: Terms) -> None:
        super().__init__(consumer, terms)
        self._pending: dict[TopicPartition, int] = {}      # lists not handled yet
        self._gone: set[TopicPartition] = set()            # given up: what waits is dropped
        self._awaited: dict[TopicPartition, int] = {}      # commits that threads wait for
        self._calls = 0                                    # of wakeup, by us
        self._calls_before = consumer._wakeups
        self._queues: list[queue.SimpleQueue[Any]] = [
            queue.SimpleQueue() for _ in range(terms.concurrency)]
        self._places: dict[TopicPartition, int] = {}       # which queue
        self._threads = [threading.Thread(target=self._work, args=(one,), daemon=True,
                                          name=f"pylog-handler-{number}")
                         for number, one in enumerate(self._queues)]

    # ---- in the thread that reads

    def run(self, most: int, idle_seconds: float | None) -> None:
        """Until wakeup() is called, nothing came for idle_seconds, or the handler raised: that
        is raised. What was read and not handled will be read again."""
        for thread in self._threads:
            thread.start()
        try:
            self._read(most, idle_seconds)
        finally:
            with self._lock:
                self._has_ended = True
                self._lock.notify_all()
            for one in self._queues:
                one.put(None)
            for thread in self._threads:
                thread.join()
            self._go_back()
            if not self._is_asked_to_stop():
                self._consumer._forget_wakeups()    # they were ours
        if self._failure is not None:
            raise self._failure

    def _read(self, most: int, idle_seconds: float | None) -> None:
        last = time.monotonic()
        while self._failure is None:
            asked = time.monotonic()    # who stands still from here on has not been idle
            try:
                found = self._consumer._poll(most, self._timeout(last, idle_seconds))
            except WakeupError:
                if self._is_asked_to_stop():
                    return
                found = {}
            for partition, records in found.items():
                self._give(partition, records)
            may_be_more = self._resume()
            self._commit_if_due()
            if found or may_be_more or self._is_busy():
                last = time.monotonic()
            elif idle_seconds is not None and asked - last >= idle_seconds:
                return

    def _timeout(self, last: float, idle_seconds: float | None) -> float | None:
        """How long a poll may wait; None: until something comes."""
        waits = [] if idle_seconds is None else [max(0, last + idle_seconds - time.monotonic())]
        is_busy = self._is_busy()    # before the count: what is not in work is counted
        commits = self._every is not None or self._seconds is not None
        if (commits and (is_busy or self._count)) or (idle_seconds is not None and is_busy):
            waits.append(LOOK_SECONDS)
        return min(waits, default=None)

    def _is_busy(self) -> bool:
        with self._lock:
            return any(self._pending.values())

    def _is_asked_to_stop(self) -> bool:
        with self._lock:
            return self._consumer._wakeups - self._calls_before > self._calls

    def _give(self, partition: TopicPartition, records: list[Any]) -> None:
        place = self._places.setdefault(partition, len(self._places) % len(self._queues))
        with self._lock:
            self._gone.discard(partition)
            self._reached.setdefault(partition, records[0].offset)
            self._pending[partition] = self._pending.get(partition, 0) + 1
            is_full = self._pending[partition] >= AHEAD_LISTS
            if is_full:
                self._full.add(partition)
        if is_full:
            self._consumer._hold(partition, True)
        self._queues[place].put((partition, records))

    def _resume(self) -> bool:
        """Whether there may be more, of a partition that was held."""
        with self._lock:
            free = {one for one in self._full if self._pending[one] < AHEAD_LISTS}
            self._full -= free
        for partition in free & set(self._consumer._partitions()):
            self._consumer._hold(partition, False)
        return bool(free)

    def let_go(self, partitions: list[TopicPartition]) -> set[TopicPartition]:
        """Handles no more of these, but for the record that is being handled: waits for that, and
        commits meanwhile, or a thread that waits for its commit would stand before what is waited
        for. Returns those that are in work all the same: none."""
        def is_busy() -> bool:
            return any(self._pending.get(one) for one in partitions)

        with self._lock:
            self._gone |= set(partitions)
            self._lock.notify_all()
        while True:
            with self._lock:
                self._lock.wait_for(lambda: not is_busy() or self._is_commit_awaited())
                if not is_busy():
                    return set()
            self._consumer._commit_finished()

    def _is_commit_awaited(self) -> bool:
        return any(self._committed.get(one) != reached == self._reached.get(one)
                   for one, reached in self._awaited.items() if one not in self._gone)

    # ---- in the threads

    def _work(self, given: "queue.SimpleQueue[Any]") -> None:
        while (one := given.get()) is not None:
            partition, records = one
            failure: BaseException | None = None
            try:
                self._handle(partition, records)
            except BaseException as error:
                failure = error
            with self._lock:
                self._pending[partition] -= 1
                self._failure = self._failure or failure
                calls = partition in self._full or failure is not None
                self._calls += calls
                self._lock.notify_all()
            if calls:
                self._consumer.wakeup()

    def _handle(self, partition: TopicPartition, records: list[Any]) -> None:
        for record in records:
            if self._has_ended or self._failure is not None or partition in self._gone:
                return
            self._handler(record)
            self._finish(partition, record.offset + 1)

    def _finish(self, partition: TopicPartition, reached: int) -> None:
        """With each one committed, by this thread: the reading one would be late, and a kill would
        repeat what it has not come to. Where there is a new generation, or the disk to wait for, it
        has to; nothing more of the partition begins before."""
        with self._lock:
            self._reached[partition] = reached
            if self._every == 1 and self._consumer._commit_at_once(partition, reached):
                self._committed[partition] = reached
                return
            self._count += 1
            if self._every == 1:
                self._calls += 1
                self._consumer.wakeup()
                self._awaited[partition] = reached
                self._lock.notify_all()
                self._lock.wait_for(lambda: self._committed.get(partition) == reached
                                    or self._reached.get(partition) != reached    # it is void
                                    or partition in self._gone or self._has_ended
                                    or self._failure is not None)
                del self._awaited[partition]
