"""Delayed: the messages of a queue that are not due yet, and who brings them into it.

    <queue>.delayed     a topic: a message with the time when it is due, and later a mark that it
                        was moved

One process at a time moves what is due, under a claim: when it dies, another goes on at once. With
nobody alive that works for the queue nothing moves; at the next who does, all that is due.
"""

import heapq
import logging
import threading
import time
from typing import Any

from pylog import (
    Broker,
    ClosedError,
    Consumer,
    Cursor,
    Log,
    OffsetOutOfRangeError,
    Producer,
    Record,
    SendFuture,
    TopicPartition,
    WakeupError,
)
from pylog.patterns import headers as names
from pylog.patterns.headers import number_of, to_value

logger = logging.getLogger("pylog.patterns")

DELAYED = ".delayed"      # behind the name of the queue
LOOK_SECONDS = 0.5        # whatever happened unheard; and how soon a claim is asked for again
TRIM_RECORDS = 1000       # that nobody needs are deleted together
CONFIGS = {"retention.ms": -1, "max.message.bytes": 1 << 30}


class Pile:
    """Which messages of the topic are not moved yet, as far as it was read."""

    def __init__(self) -> None:
        self.due: list[tuple[int, int]] = []    # when, offset: a heap, moved ones still in it
        self.pending: set[int] = set()

    def take(self, record: Record) -> None:
        """The next record of the topic."""
        moved = record.header(names.MOVED)
        if moved is not None:
            self.pending.discard(number_of(moved))
            return
        self.pending.add(record.offset)
        heapq.heappush(self.due, (number_of(record.header(names.DELIVER_AT), 0), record.offset))

    def next_due_ms(self) -> int | None:
        """When the next message is due; None: there is none."""
        while self.due and self.due[0][1] not in self.pending:
            heapq.heappop(self.due)
        return self.due[0][0] if self.due else None


class Delayed:
    """The delayed messages of one queue. `put` is safe for threads, `start` and `stop` too."""

    def __init__(self, broker: Broker, queue: str, producer: Producer) -> None:
        self.topic = f"{queue}{DELAYED}"
        self._broker = broker
        self._producer = producer
        self._queue = queue
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._reader: Consumer | None = None    # of who moves
        self._stopping = threading.Event()
        self._seen = Pile()
        self._cursor: Cursor | None = None
        broker.create_topic(self.topic, 1, CONFIGS, exist_ok=True)

    def put(self, value: bytes | None, key: bytes | None, headers: list[tuple[str, Any]],
            due_ms: int) -> SendFuture:
        """Remembers a message until it is due, ms since the epoch."""
        return self._producer.send(
            self.topic, value, key, [*headers, (names.DELIVER_AT, to_value(due_ms))])

    @property
    def end_offset(self) -> int:
        """Changes with each message that comes here or is moved."""
        return self._broker.log(self.topic).end_offset

    def count(self) -> int:
        """How many wait. Cost: what was appended since the last call is read."""
        with self._lock:
            if self._cursor is None:
                self._cursor = self._broker.log(self.topic).cursor("earliest")
            try:
                for record in self._cursor:
                    self._seen.take(record)
            except OffsetOutOfRangeError as error:    # what was moved is deleted meanwhile
                start = error.start_offset or 0
                self._cursor.seek(start)
                self._seen.pending = {one for one in self._seen.pending if one >= start}
            return len(self._seen.pending)

    # ---- who moves

    def start(self) -> None:
        """Moves what is due from now on, whenever no other process does. Idempotent."""
        with self._lock:
            if self._thread is None and not self._stopping.is_set():
                self._thread = threading.Thread(target=self._run, daemon=True,
                                                name=f"pylog-delayed-{self._queue}")
                self._thread.start()

    def stop(self) -> None:
        """Ends it; another process takes over."""
        self._stopping.set()
        with self._lock:
            if self._reader is not None:
                self._reader.wakeup()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                claim = self._broker.claim(f"pylog.delayed.{self._queue}")
                if claim.acquire(timeout=0):
                    try:
                        self._move_all()
                    finally:
                        claim.release()
            except ClosedError:
                return
            except Exception as error:    # nobody else would begin this thread anew
                logger.warning("the delayed messages of %r: %s", self._queue, error)
            self._stopping.wait(LOOK_SECONDS)

    def _move_all(self) -> None:
        pile, log = Pile(), self._broker.log(self.topic)
        with Consumer(self._broker) as reader:
            reader.assign([TopicPartition(self.topic, 0)])
            with self._lock:
                self._reader = reader
            try:
                self._go_on(pile, log, reader)
            except WakeupError:
                pass
            finally:
                with self._lock:
                    self._reader = None

    def _go_on(self, pile: Pile, log: Log, reader: Consumer) -> None:
        left = 0.0
        while not self._stopping.is_set():
            for records in reader.poll(timeout_ms=1000 * left).values():
                for record in records:
                    pile.take(record)
                left = 0.0
                break
            else:
                now_ms = time.time_ns() // 1_000_000
                while (due_ms := pile.next_due_ms()) is not None and due_ms <= now_ms:
                    self._move(pile, log, heapq.heappop(pile.due)[1])
                self._trim(pile, log, reader.position(TopicPartition(self.topic, 0)))
                left = LOOK_SECONDS if due_ms is None \
                    else max(0.001, min(LOOK_SECONDS, (due_ms - now_ms) / 1000))

    def _move(self, pile: Pile, log: Log, offset: int) -> None:
        """Into the queue, then marked: a kill in between delivers it twice, and loses it never."""
        record = log.get(offset)
        self._broker.append(
            self._queue, record.value, record.key,
            [pair for pair in record.headers if pair[0] != names.DELIVER_AT])
        self._broker.append(self.topic, None, None, [(names.MOVED, to_value(offset))])
        pile.pending.discard(offset)

    def _trim(self, pile: Pile, log: Log, read_to: int) -> None:
        """Deletes what nobody needs: marks, and moved ones below the first that waits."""
        needed = min(pile.pending, default=read_to)
        if needed - log.start_offset >= TRIM_RECORDS:
            log.delete_before(needed)
