"""pylog.Consumer: reads partitions of a broker in turn, alone or as a member of a group.

The hot calls are native (`_native.Fetcher`); what is decided between records is in `subscriber.py`,
where it stands and may go in `positions.py`.
"""

import time
from collections.abc import Callable, Iterator
from typing import Any, Self

from pylog import _native
from pylog.errors import WakeupError
from pylog.handling import Handling, Terms, terms_of
from pylog.kafka_options import takes_options
from pylog.options import at_least, is_async, patience, seconds
from pylog.subscriber import Offsets, Subscriber
from pylog.topic import TopicPartition


@takes_options("Consumer", Subscriber)
class Consumer(Subscriber):
    """Reads records of topics, partition by partition in turn. For one thread at a time.

    **Asking for the next record says that the one before is finished**, and so it is with the lists
    of `poll` and `consume`. What is in hand when the loop is left, by an exception or by `break`,
    is not finished: `close` does not commit it, `commit()` does. A context manager.

    Without a group all partitions of the topics are read, nothing can be committed, and new
    partitions and topics (by pattern) are found when they are made; from their beginning.

        >>> import tempfile
        >>> from pylog.broker import Broker
        >>> broker = Broker(tempfile.mkdtemp(dir="."))
        >>> broker.append("orders", b"12 apples").offset
        0
        >>> with Consumer(broker, "orders", consumer_timeout_ms=0) as consumer:
        ...     [(record.partition, record.value) for record in consumer]
        [(0, b'12 apples')]
        >>> broker.close()
    """

    __aiter__ = None  # type: ignore[assignment]
    __anext__ = None  # type: ignore[assignment]

    # ---- reading in lists

    def poll(
        self, timeout_ms: float | None = 0, max_records: int | None = None
    ) -> dict[TopicPartition, list[Any]]:
        """Records by partition, as soon as there are some: at most max_records (or the option
        max_poll_records). Empty after timeout_ms; None waits without end.

        What the poll before returned is finished. Raises as an iteration does.
        """
        found: dict[TopicPartition, list[Any]] = self._poll(
            self._most(max_records), seconds(timeout_ms))
        return found

    def consume(self, num_messages: int = 1, timeout: float | None = None) -> list[Any]:
        """A list of num_messages records, or of those that came within `timeout` s.

        What was returned before is finished. Cost: that of `Log.fetch`. Raises as an iteration.
        """
        found: list[Any] = self._consume(
            at_least("num_messages", num_messages, 1), patience("timeout", timeout))
        return found

    def batches(self, max_records: int = 2**31 - 1) -> Iterator[_native.Chunk]:
        """Chunks of raw records (no deserializer is asked), each of one partition: columns and
        views are where they are fastest. Asking for the next finishes the one before.

        Ends as an iteration does.
        """
        most = at_least("max_records", max_records, 1)
        while (chunk := self._chunk(most, self._iteration_seconds)) is not None:
            yield chunk

    def run(
        self, handler: Callable[[Any], object], concurrency: int = 1,
        commit_every: int | None = None, commit_interval: float | None = None,
    ) -> None:
        """Calls handler(record) for each record, until wakeup() is called or nothing came for
        consumer_timeout_ms. With a concurrency above 1 in as many threads, a partition's records
        in order all the same.

        commit_every, commit_interval: commits what was handled after so many records, or so many
        seconds, beside the auto-commit. What the handler raises ends the run and is raised; that
        record, and what of its partition comes after it, is not finished and will be read again.
        A handler may seek, pause and commit (its own record too) where concurrency is 1; of
        several, in other threads, ConcurrentModificationError is raised for all but `wakeup`.
        """
        terms = terms_of(self, handler, concurrency, commit_every, commit_interval)
        if is_async(handler):
            raise TypeError(f"the handler {handler!r} is async, and nobody would await it; use "
                            "AsyncConsumer.run")
        if terms.concurrency == 1:
            self._run_here(terms)
            return
        self._handling = Handling(self, terms)
        self._be_in_run(True)
        try:
            self._handling.run(self._max_poll_records, self._iteration_seconds)
        finally:
            self._handling = None
            self._be_in_run(False)

    def _run_here(self, terms: Terms) -> None:
        handler, every, interval = terms.handler, terms.commit_every, terms.commit_seconds
        commit_at, count = time.monotonic() + (interval or 0), 0
        try:
            for record in self:    # which says that the one before is finished
                try:
                    if count == every or (interval is not None and time.monotonic() >= commit_at):
                        commit_at, count = time.monotonic() + (interval or 0), 0
                        self._commit_finished()
                    handler(record)
                except BaseException:
                    self._take_back()
                    raise
                count += 1
        except WakeupError:
            return
        finally:
            if every is not None or interval is not None:
                self._commit_finished()

    # ---- what is finished

    def commit(self, offsets: Offsets | None = None) -> None:
        """Commits positions for the group: everything that was returned, what is in hand too.

        offsets: others than those, {partition: offset or OffsetAndMetadata}; the offset is that of
        the record to be read next. Durable as the broker is. Raises IllegalStateError without a
        group, OffsetOutOfRangeError beyond the end of a log.
        """
        if offsets is not None or not self._commit_now():
            self._commit(offsets)

    # ---- lifetime

    def close(self, autocommit: bool = True) -> None:
        """Commits what is finished (with auto-commit) and lets go of the partitions; idempotent.

        The record in hand is not finished. Raises ConcurrentModificationError when another thread
        is inside: wakeup() gets it out.
        """
        self._finish(autocommit)

    def __enter__(self) -> Self:
        self._check_usable()
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
