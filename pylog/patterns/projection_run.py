"""A projection at work: records are read and written into its view by one thread."""

import itertools
import time
from collections.abc import Callable
from typing import Any

from pylog import (
    Broker,
    Consumer,
    OffsetOutOfRangeError,
    ProjectionError,
    Record,
    TopicPartition,
)
from pylog.patterns.dbapi import is_passing
from pylog.patterns.headers import CE_TYPE, text_of
from pylog.patterns.projector import Projector
from pylog.patterns.retry import Retry
from pylog.patterns.views import Place, View

BATCH_MAX = 10_000          # records a transaction, and
TRANSACTION_SECONDS = 0.1   # about so long at most

Progress = Callable[[int, int], object]


class Moved(Exception):
    """Another has rebuilt the view: it is elsewhere now."""


class ProjectionRun:
    """One who has a view open, and reads on from where that is. Raises ProjectionError where a
    record does not go in.

    bury: makes a dead letter of such a record, which is then left out; None: nothing is. wait:
    sleeps between two attempts, or raises to end all this.
    """

    def __init__(self, broker: Broker, name: str, projector: Projector, view: View, retry: Retry,
                 bury: Callable[..., object] | None, wait: Callable[[float], None]) -> None:
        self.consumer = Consumer(broker, projector.topic, auto_offset_reset="none")
        self.places: dict[int, Place] = {}
        self._broker = broker
        self._name = name
        self._topic = projector.topic
        self._topic_id = str(broker.topic(projector.topic).topic_id)
        self._projector = projector
        self._view = view
        self.identity = view.identity
        self._retry = retry
        self._bury = bury
        self._wait = wait
        self._batch = 100

    def close(self) -> None:
        """The view, too."""
        self.consumer.close()
        self._view.close()

    # ---- where it is

    def seek(self) -> None:
        """Goes where the view is; makes it anew if that is of another topic."""
        with self._view.transaction():
            self.places = self._view.places(self._name)
        if any(place.topic_id != self._topic_id for place in self.places.values()):
            self.rebuild()
            return
        for one in self.consumer.assignment():
            log, place = self._broker.log(*one), self.places.get(one.partition)
            if place is not None and place.next_offset > log.end_offset:
                raise self._lost(f"{one.topic}-{one.partition} ends at {log.end_offset}",
                                 place.next_offset)
            self.consumer.seek(one, log.start_offset if place is None else place.next_offset)

    # ---- writing

    def step(self, timeout_ms: float | None = 0) -> int:
        """Writes what there is, in a transaction a partition; waits for it if there is nothing.
        Returns how many records were read."""
        found = self._poll(timeout_ms)
        start = time.monotonic()
        try:
            for records in found.values():
                self._write(records)
        except Moved:
            self.seek()
        if count := sum(map(len, found.values())):
            seconds = time.monotonic() - start
            self._batch = max(1, min(BATCH_MAX, int(count * TRANSACTION_SECONDS / seconds)))
        return count

    def _poll(self, timeout_ms: float | None) -> dict[TopicPartition, list[Record]]:
        while True:
            try:
                return self.consumer.poll(timeout_ms, self._batch)
            except OffsetOutOfRangeError as error:
                if not self._begin_later():
                    raise self._lost(str(error), error.offset) from error

    def _begin_later(self) -> bool:
        """Where nothing was read yet, and what was to be the first record was deleted meanwhile."""
        found = False
        for one in self.consumer.assignment():
            start = self._broker.log(*one).start_offset
            if one.partition not in self.places and self.consumer.position(one) < start:
                self.consumer.seek(one, start)
                found = True
        return found

    def _lost(self, what: str, offset: int | None) -> ProjectionError:
        return ProjectionError(
            f"the view of the projection {self._name!r} is at an offset {offset} that the topic "
            f"does not have (any more): {what}; rebuild() makes it anew of what there is",
            projection=self._name, topic=self._topic, offset=offset)

    def _write(self, records: list[Record]) -> None:
        """All, of one partition; after a failure one by one, so that it is known which it is."""
        try:
            self._transact(records, lambda db: self._projector.write(db, records))
            return
        except _NotWrittenError as failure:
            error = failure.error    # what follows is outside, lest each error be another's context
        if len(records) == 1:
            self._write_again(records, error)
            return
        for record in records:
            self._write([record])

    def _write_again(self, records: list[Record], error: Exception) -> None:
        for attempt in itertools.count(1):
            delay = self._retry.delay(attempt, error)
            if delay is None:
                self._give_up(records, error, attempt)
                return
            self._wait(delay)
            try:
                self._transact(records, lambda db: self._projector.write(db, records))
                return
            except _NotWrittenError as failure:
                error = failure.error

    def _transact(self, records: list[Record], write: Callable[[Any], object]) -> None:
        """Raises _NotWrittenError for what `write` raises; Moved; what the database raises before
        and after it, or as it fares, for which the records are not to blame."""
        last = records[-1]
        places = {last.partition or 0: Place(self._topic_id, last.offset + 1)}
        with self._view.transaction() as connection:
            if self._view.places(self._name) != self.places:
                raise Moved
            try:
                write(connection)
            except Exception as error:
                if is_passing(error):
                    raise
                raise _NotWrittenError(error) from error
            if self._view.is_broken:
                raise ProjectionError(
                    f"a function of the projection {self._name!r} has committed or rolled back, so "
                    "that its rows may be in the view without their place. Leave both to the "
                    "projection, `with db:` too, and call rebuild()", projection=self._name,
                    topic=self._topic)
            self._view.move(self._name, places)
        self.places |= places

    def _give_up(self, records: list[Record], error: Exception, attempts: int) -> None:
        record = records[0]
        if self._bury is not None:
            self._bury(record, error, attempts)    # before the place is moved: a kill repeats it
            self._transact(records, lambda db: None)
            return
        kind = text_of(record.header(CE_TYPE))
        raise ProjectionError(
            f"the projection {self._name!r} has stopped at offset {record.offset} of "
            f"{record.topic}-{record.partition}{kind and f' ({kind})'}: {type(error).__name__}: "
            f"{error}; all before it is in the view, and nothing else. Mend the function, and "
            "start it again", projection=self._name, topic=record.topic,
            partition=record.partition, offset=record.offset) from error

    # ---- the whole

    def rebuild(self, progress: Progress | None = None) -> int:
        """Empties the view and fills it, in one transaction; returns the number of records."""
        with self._view.transaction():
            self._view.places(self._name)    # where it is, it stays
            self._view.empty(self._name)
            self.seek()
            logs = [self._broker.log(*one) for one in self.consumer.assignment()]
            total = sum(log.readable_offset - log.start_offset for log in logs)
            done = 0
            while done < total and (count := self.step()):
                done += count
                if progress is not None:
                    progress(done, max(done, total))
        return done


class _NotWrittenError(Exception):
    def __init__(self, error: Exception) -> None:
        self.error = error
