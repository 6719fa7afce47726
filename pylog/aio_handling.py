"""AsyncHandling: records of a consumer given to a coroutine, of several partitions at once.

A list of a partition is a task, which handles its records in order; meanwhile the partition is
held. Nothing here may block the loop: a partition that the group takes away while a record of it
is in work is kept until that is done, and the others go on.
"""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from pylog.errors import WakeupError
from pylog.handling import Progress, Terms
from pylog.subscriber import Subscriber
from pylog.topic import TopicPartition

Wait = Callable[[float | None], Awaitable[bool]]


@dataclass(eq=False)
class _Work:
    """A list in work. next_offset: behind the record in work. is_stopped: no more of it is begun.
    is_forgotten: nobody asks how far it came."""

    partition: TopicPartition
    records: list[Any]
    task: "asyncio.Task[None] | None" = None
    next_offset: int = 0
    is_stopped: bool = False
    is_forgotten: bool = False


class AsyncHandling(Progress):
    """A run of a consumer with at most `concurrency` records in work at once."""

    def __init__(self, consumer: Subscriber, terms: Terms) -> None:
        super().__init__(consumer, terms)
        self._turns = asyncio.Semaphore(terms.concurrency)
        self._works: dict[TopicPartition, _Work] = {}    # the last of each
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self, most: int, idle_seconds: float | None, wait: Wait) -> None:
        """Until wakeup() is called, nothing came for idle_seconds, or the handler raised: that
        is raised. What was read and not handled will be read again. wait: until a deadline, or
        until there may be something."""
        try:
            await self._read(most, idle_seconds, wait)
        except asyncio.CancelledError:
            for task in self._tasks:
                task.cancel()
            raise
        finally:
            self._has_ended = True
            try:
                await asyncio.gather(*self._tasks, return_exceptions=True)
            finally:
                self._go_back()
        if self._failure is not None:
            raise self._failure

    async def _read(self, most: int, idle_seconds: float | None, wait: Wait) -> None:
        last = time.monotonic()
        while self._failure is None:
            asked = time.monotonic()    # who stands still from here on has not been idle
            try:
                found = self._consumer._poll(most, 0)
            except WakeupError:
                return
            for partition, records in found.items():
                self._give(partition, records)
            self._commit_if_due()
            deadlines = [self._commit_at] if self._count and self._seconds is not None else []
            is_busy = bool(self._tasks)
            if not is_busy and idle_seconds is not None:
                if asked - last >= idle_seconds:
                    return
                deadlines.append(last + idle_seconds)
            await wait(min(deadlines, default=None))    # the end of a task ends it, too
            if is_busy:
                last = time.monotonic()

    def _give(self, partition: TopicPartition, records: list[Any]) -> None:
        before, work = self._works.get(partition), _Work(partition, records)
        self._works[partition] = work
        self._reached.setdefault(partition, records[0].offset)
        self._full.add(partition)
        self._consumer._hold(partition, True)
        work.task = asyncio.create_task(self._handle(work, before.task if before else None))
        self._tasks.add(work.task)
        work.task.add_done_callback(self._end)

    def _end(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        self._consumer._look_soon()    # also where a partition waits to be let go

    # ---- in the tasks

    async def _handle(self, work: _Work, before: "asyncio.Task[None] | None") -> None:
        if before is not None and not before.done():    # lost with a record in work, and back
            await asyncio.wait([before])
        try:
            for record in work.records:
                async with self._turns:
                    if self._has_ended or self._failure is not None or work.is_stopped or \
                            self._consumer._is_paused(work.partition):
                        return
                    work.next_offset = record.offset + 1
                    done = self._handler(record)
                    if inspect.isawaitable(done):
                        await done
                if not work.is_forgotten:
                    self._reached[work.partition] = work.next_offset
                    self._count += 1
                    self._commit_if_due()
        except BaseException as error:
            self._failure = self._failure or error
        finally:
            self._go_on(work)

    def finish_own(self) -> None:
        """The record that its handler commits is finished."""
        own = asyncio.current_task()
        for partition, work in self._works.items():
            if work.task is own and not work.is_forgotten:
                self._reached[partition] = work.next_offset

    def _go_on(self, work: _Work) -> None:
        partition = work.partition
        if not self._has_ended and not work.is_forgotten and \
                partition in self._consumer._partitions():
            self._full.discard(partition)
            if self._reached[partition] <= work.records[-1].offset:
                self._consumer._seek(partition, self._reached[partition])
            self._consumer._hold(partition, False)

    # ---- when partitions go

    def let_go(self, partitions: list[TopicPartition]) -> set[TopicPartition]:
        """Begins no more records of these. Returns those of which one is in work still."""
        busy = set()
        for partition in partitions:
            work = self._works.get(partition)
            if work is not None and work.task is not None and not work.task.done():
                work.is_stopped = True
                busy.add(partition)
        return busy

    def forget(self, partitions: list[TopicPartition]) -> None:
        """They are another's from now on."""
        super().forget(partitions)
        for partition in partitions:
            if (work := self._works.get(partition)) is not None:
                work.is_stopped = work.is_forgotten = True
