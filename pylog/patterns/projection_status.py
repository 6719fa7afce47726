"""How far a projection is, as all processes are told: by the offsets of a consumer group.

They are committed after the view, each with a note which file that is (view_file.py). Where another
lies in its place they say nothing.
"""

import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from pylog import Broker, Consumer, OffsetAndMetadata, PylogTimeoutError, TopicPartition
from pylog.patterns.retry import check_seconds
from pylog.patterns.view_file import ViewFile
from pylog.patterns.views import Place

LOOK_SECONDS = 0.001    # between two looks at how far another process is


class ProjectionStatus(NamedTuple):
    """How a projection stands. pid: of the process that runs it; None: nobody does. lag: how many
    records are not in the view yet. next_offsets: by partition, all before it is in the view."""

    name: str
    topic: str
    pid: int | None
    lag: int
    next_offsets: dict[int, int]


class Told:
    """What is told of one projection, by whoever runs it. Safe for threads."""

    def __init__(self, broker: Broker, name: str, group: str, topic: str, file: ViewFile) -> None:
        self._broker = broker
        self._name = name
        self._group_name = group
        self._topic = topic
        self._file = file
        self._group = Consumer(broker, group_id=group, enable_auto_commit=False)
        self._news = threading.Condition()

    def tell(self, places: dict[int, Place], identity: str | None) -> None:
        """Everybody, how far the view of that file is; after it was committed."""
        with self._news:
            self._group.commit({
                TopicPartition(self._topic, part): OffsetAndMetadata(
                    places[part].next_offset if part in places
                    else self._broker.log(self._topic, part).start_offset, identity or "")
                for part in range(self._broker.topic(self._topic).partitions)})
            self._news.notify_all()

    def _next_offset(self, partition: int) -> int | None:
        """All before it is in the view that is there now; None: nothing is known of that."""
        found = self._group.committed(TopicPartition(self._topic, partition), metadata=True)
        if found is None or found.metadata != self._file.identity:
            return None
        return int(found.offset)

    def wait(self, partition: int, offset: int, timeout: float | None,
             check: Callable[[], object]) -> None:
        """Until the view has that record. check: raises to end it. Raises PylogTimeoutError."""
        deadline = None if timeout is None else time.monotonic() + check_seconds("timeout", timeout)
        with self._news:
            while (self._next_offset(partition) or 0) <= offset:
                check()
                if deadline is not None and time.monotonic() >= deadline:
                    raise PylogTimeoutError(self._why_late(partition, offset, timeout),
                                            timeout_ms=int(1000 * (timeout or 0)))
                self._news.wait(LOOK_SECONDS)

    def _why_late(self, partition: int, offset: int, timeout: float | None) -> str:
        status = self.status()
        who = "nobody runs it: call start() or run() in some process" if status.pid is None \
            else f"pid {status.pid} runs it, and is {status.lag:,} records behind"
        return (f"offset {offset} of {status.topic}-{partition} is not in the view "
                f"{self._name!r} after {timeout} s; {who}")

    def status(self) -> ProjectionStatus:
        """How it stands, whoever runs it."""
        logs = [self._broker.log(self._topic, number)
                for number in range(self._broker.topic(self._topic).partitions)]
        with self._news:
            next_offsets = {number: self._next_offset(number) or log.start_offset
                            for number, log in enumerate(logs)}
        lag = sum(log.readable_offset - next_offsets[number] for number, log in enumerate(logs))
        return ProjectionStatus(self._name, self._topic,
                                self._broker.claim(self._group_name).holder(), lag, next_offsets)
