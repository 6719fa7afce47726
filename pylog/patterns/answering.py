"""Answering: a handler's side of request-reply. What it is given, and how its reply finds the way.

The reply goes to the topic that the request names; one that is gone has no asker any more. A reply
is appended before the request counts as finished: a server that is killed in between has another
answer again, and the asker drops the second reply as late.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from pylog import Broker, Delivery, Log, PylogError, Record, UnknownTopicOrPartitionError
from pylog.patterns.handler import is_async, name_of
from pylog.patterns.headers import (
    CORRELATION_ID,
    ERROR_MESSAGE,
    ERROR_TYPE,
    EXPIRES,
    REPLY_PARTITION,
    REPLY_TO,
    number_of,
    text_of,
    to_value,
)
from pylog.patterns.letter import message_of
from pylog.patterns.values import Codec

logger = logging.getLogger("pylog.patterns")


class ServersDiedError(PylogError):
    """Why a request has an error reply that no handler raised: each process that took it ended."""


class Request(NamedTuple):
    """What a handler is given. record: the Record itself."""

    value: Any
    record: Record

    @property
    def topic(self) -> str | None:
        """That it was sent to."""
        return self.record.topic

    @property
    def key(self) -> bytes | None:
        """Of the record."""
        return self.record.key

    @property
    def correlation_id(self) -> str:
        """What the reply will bear; empty for one that wants none."""
        return text_of(self.record.header(CORRELATION_ID))

    @property
    def timestamp(self) -> int:
        """ms since the epoch: when it was sent."""
        return self.record.timestamp

    @property
    def headers(self) -> tuple[tuple[str, bytes | None], ...]:
        """((name, value), ...), in order; those of the pattern itself among them."""
        return self.record.headers

    def header(self, name: str, default: Any = None) -> Any:
        """The value of the last header of this name, bytes or None."""
        return self.record.header(name, default)


class ServerStats(NamedTuple):
    """answered: with a result; failed: with an error. expired: requests whose asker had given up
    before they were begun. unanswerable: replies that nobody wanted, or whose topic was gone."""

    answered: int
    failed: int
    expired: int
    unanswerable: int


class Answering:
    """Calls a function for each request, and sends what it returns or raises. Safe for threads."""

    def __init__(self, broker: Broker, function: Callable[[Request], Any], codec: Codec) -> None:
        self.name = name_of(function)
        self.is_async = is_async(function)
        self._function = function
        self._codec = codec
        self._broker = broker
        self._logs: dict[tuple[bytes, bytes | None], Log] = {}
        self._lock = threading.Lock()
        self._counts = dict.fromkeys(ServerStats._fields, 0)

    @property
    def stats(self) -> ServerStats:
        """Since it began."""
        return ServerStats(**self._counts)

    def answer(self, record: Record) -> Any:
        """Returns None, or what has to be awaited."""
        expires = record.header(EXPIRES)
        if expires is not None and self._is_over(expires):
            return None
        if self.is_async:
            return self._answer_later(record)
        read = self._codec.deserialize
        try:
            result = self._function(Request(record.value if read is None else read(record), record))
        except (Exception, SystemExit) as error:    # who asks is not to end whoever answers
            self._send_error(record, error)
        else:
            self._send(record, result)
        return None

    async def _answer_later(self, record: Record) -> None:
        read = self._codec.deserialize
        try:
            result = await self._function(
                Request(record.value if read is None else read(record), record))
        except asyncio.CancelledError as error:
            if (task := asyncio.current_task()) is None or task.cancelling():
                raise
            self._send_error(record, error)    # what it awaited was cancelled, and not by us
        except (Exception, SystemExit) as error:
            self._send_error(record, error)
        else:
            self._send(record, result)

    def give_up(self, delivery: Delivery, reason: object) -> None:
        """Nobody will serve this request any more, and who asks is told so, if that can be. Raising
        here it would come again, and end one server after another."""
        expires = delivery.header(EXPIRES)
        if expires is not None and self._is_over(expires):
            return
        try:
            self._send_error(delivery.record, reason if isinstance(reason, Exception)
                             else ServersDiedError(str(reason)))
        except Exception as error:
            logger.error("the request at %s-%s, offset %d, gets no reply: %s", delivery.topic,
                         delivery.partition, delivery.offset, error)

    def _is_over(self, expires: bytes) -> bool:
        if not 0 <= number_of(expires) < time.time() * 1000:
            return False
        self._count("expired")
        return True

    def _count(self, what: str) -> None:
        with self._lock:
            self._counts[what] += 1

    # ---- the reply

    def _send(self, record: Record, result: Any) -> None:
        serialize = self._codec.serialize
        try:
            data = result if serialize is None else serialize(record.topic or "", None, result)
            is_sent = self._append(record, data, self._codec.headers)
        except Exception as error:    # no bytes can be made of it, it is too large, the disk full
            self._send_error(record, error)
        else:
            self._count("answered" if is_sent else "unanswerable")

    def _send_error(self, record: Record, error: BaseException) -> None:
        logger.warning("%s failed on the request at %s-%s, offset %d", self.name, record.topic,
                       record.partition, record.offset, exc_info=error)
        is_sent = self._append(record, None, [
            (ERROR_TYPE, to_value(type(error).__qualname__)),
            (ERROR_MESSAGE, to_value(message_of(error)))])
        self._count("failed")
        if not is_sent:
            self._count("unanswerable")

    def _append(self, record: Record, value: Any,
                headers: Iterable[tuple[str, bytes | None]]) -> bool:
        topic, number = record.header(REPLY_TO), record.header(CORRELATION_ID)
        if topic is None:
            return False
        place = topic, record.header(REPLY_PARTITION)
        log = self._logs.get(place)
        if log is None or log.closed:
            log = self._open(place)
            if log is None:
                return False
        try:
            log.append(value, record.key, [(CORRELATION_ID, number), *headers])
        except UnknownTopicOrPartitionError:    # the asker was closed just now
            return False
        return True

    def _open(self, place: tuple[bytes, bytes | None]) -> Log | None:
        """None: there is no such place, and none is made."""
        topic, partition = text_of(place[0]), 0 if place[1] is None else number_of(place[1])
        with self._lock:
            for other, log in list(self._logs.items()):
                if log.closed:    # an asker that is gone: let go of its files
                    log.close()
                    del self._logs[other]
            entry = self._broker.topics().get(topic)
            if entry is None or not 0 <= partition < entry.partitions:
                return None
            found = self._logs[place] = self._broker.log(topic, partition)
            return found
