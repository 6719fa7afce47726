"""Where the replies to one asker come in, and who is waiting for which.

    reply.<slot>-<nonce>-<number>    the private topic of one asker: of a process, as in
                                     `broker.processes`, and of the asker within it

It is there before the first request is sent, and deleted when its asker is closed; what a killed
process leaves behind, the next asker deletes.

A thread that waits for its reply reads the topic itself, and hands out what it finds for others: so
a reply wakes the one who wants it, and no thread stands in between. When it has its own, one of the
others goes on reading.
"""

import contextlib
import itertools
import re
import threading
import time
from typing import Any

from pylog import (
    Broker,
    ClosedError,
    OffsetOutOfRangeError,
    PylogTimeoutError,
    Record,
    RemoteError,
    RequestTimeoutError,
    UnknownTopicOrPartitionError,
)
from pylog.patterns.headers import CORRELATION_ID, ERROR_MESSAGE, ERROR_TYPE, text_of
from pylog.patterns.values import Codec

PRIVATE = re.compile(r"reply\.(\d{1,9})-([0-9a-f]{1,16})-\d+")
# A reply is read as soon as it is there: what is kept is for who wants to look at it afterwards.
CONFIGS = {"retention.ms": 3_600_000, "retention.bytes": 64 << 20, "segment.bytes": 8 << 20}

FORGET_AT = 1000    # replies that are waited for, when those that are over are looked for

_numbers = itertools.count(1)


class ReplyPlace:
    """The partition that replies come to. topic: a shared one, or None for one of its own.

    prefix: what all correlation ids of this asker begin with.
    """

    def __init__(self, broker: Broker, topic: str | None) -> None:
        self._broker = broker
        processes = broker.processes
        processes.join()
        slot, nonce = processes.me or (0, 0)
        name = f"{slot}-{nonce:x}-{next(_numbers)}"
        self.prefix = name.encode() + b"-"
        self.is_private = topic is None
        self.topic = f"reply.{name}" if topic is None else topic
        self.partition = 0
        self._requests = itertools.count(1)
        if self.is_private:
            _delete_leftovers(broker)
            broker.create_topic(self.topic, 1, CONFIGS)
        else:
            broker.create_topic(self.topic, 1, exist_ok=True)
        self.log = broker.log(self.topic, self.partition)
        self.start = self.log.end_offset

    def next_id(self) -> bytes:
        """The correlation id of a request: no other has it."""
        return b"%b%d" % (self.prefix, next(self._requests))

    def delete(self) -> None:
        """Deletes the topic if it is private; idempotent."""
        if self.is_private and not self._broker.closed:
            _delete(self._broker, self.topic)


def _delete_leftovers(broker: Broker) -> None:
    for name in broker.topics():
        if (found := PRIVATE.fullmatch(name)) and \
                not broker.processes.is_alive(int(found[1]), int(found[2], 16)):
            _delete(broker, name)


def _delete(broker: Broker, topic: str) -> None:
    # The second: a process that is stopped has it open. It is gone, and its files go with that one.
    with contextlib.suppress(UnknownTopicOrPartitionError, PylogTimeoutError):
        broker.delete_topic(topic)


def result_of(record: Record, topic: str, codec: Codec) -> Any:
    """The reply as the asker gets it; raises RemoteError for an error reply."""
    kind = record.header(ERROR_TYPE)
    if kind is None:
        return codec.typed(record)
    name, message = text_of(kind), text_of(record.header(ERROR_MESSAGE))
    raise RemoteError(f"the handler of {topic!r} raised {name}: {message}; mend the request or the "
                      "handler", topic=topic, type=name, reason=message)


class PendingReply:
    """A reply that is to come: what `Rpc.submit` returns. For any thread.

    topic: of the request.
    """

    __slots__ = ("_inbox", "deadline", "number", "record", "timeout", "topic")

    def __init__(self, inbox: "Inbox", topic: str, number: bytes, timeout: float) -> None:
        self.topic = topic
        self.number = number
        self.record: Record | None = None
        self.timeout = timeout
        self.deadline = time.monotonic() + timeout
        self._inbox = inbox

    @property
    def correlation_id(self) -> str:
        """What its reply bears."""
        return self.number.decode()

    def done(self) -> bool:
        """Whether the reply is there. Does not wait."""
        if self.record is None:
            self._inbox.look()
        return self.record is not None

    def result(self) -> Any:
        """Waits for the reply, until the request's timeout is over, and returns it: a Record, or a
        TypedRecord where `value=` was given.

        Raises RequestTimeoutError, RemoteError, DeserializationError, ClosedError.
        """
        if self.record is None:
            self._inbox.wait_for(self)
        if self.record is None:
            raise timed_out(self.topic, self.correlation_id, self.timeout)
        return result_of(self.record, self.topic, self._inbox.codec)

    def __repr__(self) -> str:
        state = "waiting" if self.record is None else "replied"
        return f"<PendingReply of {self.topic!r}, {self.correlation_id}, {state}>"


def timed_out(topic: str, correlation_id: str, timeout: float) -> RequestTimeoutError:
    """The error."""
    return RequestTimeoutError(
        f"no reply from {topic!r} within {timeout} s: see whether a handler runs for it, or give it"
        " more time", topic=topic, correlation_id=correlation_id, timeout_ms=int(1000 * timeout))


class Inbox:
    """The replies to an `Rpc`, read by whichever of its threads waits for one."""

    def __init__(self, place: ReplyPlace, codec: Codec) -> None:
        self.place = place
        self.codec = codec
        self.late = 0
        self.replied = 0
        self._cursor = place.log.cursor(place.start)
        self._pending: dict[bytes, PendingReply] = {}
        self._forget_at = FORGET_AT
        self._lock = threading.Lock()
        self._turn = threading.Condition(self._lock)
        self._followers = 0      # threads that wait while another reads
        self._reader: int | None = None    # the thread that reads for all
        self._is_closed = False

    @property
    def outstanding(self) -> int:
        """How many replies are waited for, or may be."""
        return len(self._pending)

    def expect(self, topic: str, number: bytes, timeout: float) -> PendingReply:
        """Before the request is sent."""
        if self._is_closed:
            raise ClosedError("the Rpc is closed; make another")
        pending = self._pending[number] = PendingReply(self, topic, number, timeout)
        if len(self._pending) > self._forget_at:
            self._forget_old()
        return pending

    def forget(self, number: bytes) -> None:
        """The request was not sent."""
        self._pending.pop(number, None)

    def _forget_old(self) -> None:
        """Those whose time is over, and that nobody may ever ask for."""
        now = time.monotonic()
        for number, pending in list(self._pending.items()):
            if pending.deadline < now:
                self._pending.pop(number, None)
        self._forget_at = max(FORGET_AT, 2 * len(self._pending))

    def look(self) -> None:
        """Takes what is there, unless another thread is at it."""
        with self._lock:
            if self._reader is None and not self._is_closed:
                self._take()

    def wait_for(self, pending: PendingReply) -> None:
        """Until its record is there or its time is over; then it is not waited for any more."""
        try:
            self._wait_for(pending)
        finally:    # an interrupt may come anywhere, and nobody would read for the others
            if self._reader == threading.get_ident():
                self._hand_over()

    def _wait_for(self, pending: PendingReply) -> None:
        while pending.record is None:
            with self._lock:
                left = pending.deadline - time.monotonic()
                if self._is_closed:
                    raise ClosedError("the Rpc was closed while a reply was awaited")
                if left <= 0:
                    if self._reader is None:
                        self._take()    # a timeout of 0: it may be there
                    self._pending.pop(pending.number, None)
                    return
                if self._reader is not None:
                    self._followers += 1
                    try:
                        self._turn.wait(left)
                    finally:
                        self._followers -= 1
                    continue
                self._reader = threading.get_ident()
            self._read_for(pending)

    def _read_for(self, pending: PendingReply) -> None:
        left = pending.deadline - time.monotonic()
        try:
            while pending.record is None and left > 0:
                if self._cursor.wait(left) and self._take() and self._followers:
                    with self._lock:
                        self._turn.notify_all()    # it may have been theirs
                left = pending.deadline - time.monotonic()
        except UnknownTopicOrPartitionError:
            if not self._is_closed:
                raise
        self._hand_over()

    def _hand_over(self) -> None:
        with self._lock:
            self._reader = None
            if self._followers:
                self._turn.notify_all()

    def _take(self) -> int:
        """Hands out what is there; returns for how many."""
        handed, at = 0, self._cursor.offset
        try:
            for record in self._cursor.fetch():
                number = record.header(CORRELATION_ID) or b""
                pending = self._pending.get(number)
                if pending is not None:
                    pending.record = record
                    self._pending.pop(number, None)
                    handed += 1
                elif number.startswith(self.place.prefix):
                    self.late += 1
                at = record.offset + 1
        except OffsetOutOfRangeError:    # what was next has been deleted: who misses it times out
            self._cursor.seek(self.place.log.start_offset)
            return 0
        except BaseException:    # an interrupt: the replies behind it are others'
            self._cursor.seek(at)
            raise
        finally:
            self.replied += handed
        return handed

    def close(self) -> None:
        """Whoever waits gets ClosedError; idempotent."""
        with self._lock:
            self._is_closed = True
            self._turn.notify_all()
        self.place.delete()
