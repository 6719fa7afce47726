"""Queue: point to point. Each message is for one worker, who says what became of it.

    <name>              the messages: a topic, which keeps them as history
    <name>.delayed      those that are not due yet (delayed.py)
    idempotency.queue.<name>    the keys of the last messages, where some are given
    dlq.<group>.<name>  those that nobody could do (dead_letters.py)

Who has which message is in the leases of a share group (`pylog.ShareConsumer`).
"""

import asyncio
import contextlib
import os
import queue
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from types import TracebackType
from typing import Any, NamedTuple, Self

from pylog import (
    AsyncShareConsumer,
    Broker,
    ClaimLostError,
    ClosedError,
    ConfigurationError,
    Delivery,
    InvalidRecordStateError,
    Producer,
    PylogError,
    SendFuture,
    ShareConsumer,
)
from pylog.patterns import headers as names
from pylog.patterns.delayed import DELAYED, Delayed
from pylog.patterns.handler import is_async
from pylog.patterns.headers import number_of, to_key, to_value
from pylog.patterns.idempotency import Idempotency
from pylog.patterns.letter import EXPIRED, GIVEN_UP, REJECTED, burier, dlq_name, is_mark
from pylog.patterns.pending import Pending
from pylog.patterns.queue_workers import Work, WorkHandler
from pylog.patterns.retry import check_backoff, check_count, check_seconds
from pylog.patterns.unpicklable import Unpicklable
from pylog.patterns.values import advised, codec_of, listed, serde_of

LOCK_MIN = 0.01    # seconds
LOOKS = 100    # at both topics of a queue, until none has changed in between


class RejectedError(PylogError):
    """Why a message is a dead letter, where a text was given and no exception."""


class QueueStats(NamedTuple):
    """How a queue stands. ready: for anybody to take. delayed: not due. in_flight: somebody has
    them. dead: dead letters that are pending. oldest_age: seconds since the oldest that is not done
    was put; 0 where none is. done, redelivered: counts since the queue was made; what is
    redelivered was given back, or taken from who died or took too long."""

    ready: int
    delayed: int
    in_flight: int
    dead: int
    oldest_age: float
    done: int
    redelivered: int


class _Queue(Unpicklable):
    """What a queue is, whether its workers are threads or tasks."""

    def __init__(
        self, broker: Broker | str | os.PathLike[str], name: str, *, group: str = "queue",
        value: Any = None, lock: float = 30.0, max_deliveries: int = 5,
        backoff: float | Callable[[int], float] = 0.0, ordered_by_key: bool | None = None,
        dlq: bool | str = True, dedup_window: float = 300.0,
    ) -> None:
        self.name = name
        self.group = group
        self.lock = check_seconds("lock", lock, LOCK_MIN)
        self.dedup_window = check_seconds("dedup_window", dedup_window)
        self._codec = codec_of(value)
        if isinstance(name, str) and name.endswith(DELAYED):
            raise ConfigurationError(
                f"{name!r} is where the queue {name.removesuffix(DELAYED)!r} keeps what is not due "
                "yet, and whoever took messages there would have them too early; use another name",
                option="name", value=name)
        check_backoff(backoff)
        self._backoff = backoff if callable(backoff) else _always(backoff)
        check_count("max_deliveries", max_deliveries)
        self._broker, self._is_owner = Broker.of(broker)
        self._has_closed = False
        self._dedup: Idempotency | None = None
        with contextlib.ExitStack() as stack:
            stack.callback(self._close)
            self._broker.create_topic(name, 1, exist_ok=True)
            self.dlq = dlq_name(dlq, group, name)
            self._dead = None if self.dlq is None else Pending(self._broker, self.dlq)
            self._work = Work(name, lambda: self.closed,
                              "dropped" if self.dlq is None else "a dead letter")
            self._bury = burier(self._broker, dlq, group, name)
            self._producer = Producer(self._broker)
            self._delayed = Delayed(self._broker, name, self._producer)
            self._send = self._producer.send
            self._is_plain = self._codec.serialize is None
            self._options: dict[str, Any] = {
                "group_id": group, "acknowledgement_mode": "explicit",
                "lock_ms": int(self.lock * 1000), "max_deliveries": max_deliveries,
                "ordered_by_key": ordered_by_key, "keeps_records": True,
                "value_deserializer": serde_of(value), "backoff": self._backoff,
                "accepts": self._accepts, "on_reject": self._on_reject,
                "on_displaced": self._on_displaced}
            self._consumer = self._make_consumer()
            self._delayed.start()
            self._broker.dependents.add(self)
            stack.pop_all()

    def _make_consumer(self) -> Any:
        raise NotImplementedError

    # ---- putting

    def _put(
        self, value: Any, key: Any, headers: Any, delay: float, ttl: float | None,
    ) -> SendFuture:
        if self._codec.serialize is not None:
            value = self._codec.serialize(self.name, headers, value)
        pairs = self._codec.headers_with(headers)
        now_ms = time.time_ns() // 1_000_000
        due_ms = now_ms + int(check_seconds("delay", delay) * 1000)
        if ttl is not None:
            pairs.append((names.EXPIRES_AT,
                          to_value(due_ms + int(check_seconds("ttl", ttl) * 1000))))
        try:
            if due_ms > now_ms:
                return self._delayed.put(value, to_key(key), pairs, due_ms)
            return self._send(self.name, value, to_key(key), pairs)
        except TypeError as error:
            raise advised(error) from None

    def _put_many(self, values: Iterable[Any], keys: Iterable[Any] | None, headers: Any) -> int:
        many = listed("values", values)
        if self._codec.serialize is not None:
            many = [self._codec.serialize(self.name, headers, value) for value in many]
        common = self._codec.headers_with(headers)
        try:
            self._producer.send_many(
                self.name, many,
                None if keys is None else [to_key(key) for key in listed("keys", keys)],
                headers=[common] * len(many) if common else None)
        except TypeError as error:
            raise advised(error) from None
        self._producer.flush()
        return len(many)

    def _claim_of(self, dedup_key: str) -> Any:
        if self._dedup is None:
            self._dedup = Idempotency(self._broker, f"queue.{self.name}", ttl=self.dedup_window)
        return self._dedup.claim(dedup_key)

    # ---- what becomes of a delivery

    def _accepts(self, delivery: Delivery) -> bool:
        """Of those that have headers: is it for us, and in time?"""
        replayed_for = delivery.header(names.REPLAY_GROUP)
        if (replayed_for is not None and replayed_for != self.group.encode()) \
                or is_mark(delivery.record):
            delivery.ack()
            return False
        expires_ms = delivery.header(names.EXPIRES_AT)
        if expires_ms is not None and number_of(expires_ms, 1 << 62) <= time.time() * 1000:
            self._letter(delivery, RejectedError("its time to live was over"), EXPIRED)
            delivery._discard()
            return False
        before = delivery.header(names.DELIVERIES)
        if before is not None:
            delivery.count_from(max(0, number_of(before, 0)))
        return True

    def _on_reject(self, delivery: Delivery, reason: object) -> None:
        error = reason if isinstance(reason, BaseException) \
            else RejectedError(str(reason) if reason is not None else "no reason was given")
        is_given_up = delivery.delivery_count >= self._consumer.max_deliveries
        disposition = None if isinstance(reason, BaseException) and not is_given_up \
            else GIVEN_UP if is_given_up else REJECTED
        self._letter(delivery, error, disposition)

    def _letter(self, delivery: Delivery, error: BaseException, disposition: str | None) -> None:
        if self._bury is not None:
            record = getattr(delivery.record, "raw", delivery.record)
            self._bury(record, error, delivery.delivery_count, disposition=disposition)

    def _on_displaced(self, delivery: Delivery, due_ms: int) -> None:
        """A delayed one that keeps 65,536 others from being taken waits elsewhere."""
        record = getattr(delivery.record, "raw", delivery.record)
        pairs = [pair for pair in record.headers if pair[0] != names.DELIVERIES]
        self._delayed.put(record.value, record.key, [
            *pairs, (names.DELIVERIES, to_value(delivery.delivery_count))], due_ms)

    # ---- the rest

    def wakeup(self) -> None:
        """Ends the wait of the thread or task that is in `get`, or the next `get`, with
        WakeupError. For any thread."""
        if not self._has_closed:
            self._consumer.wakeup()

    def stats(self) -> QueueStats:
        """How it stands now. A message that is moved meanwhile, when it is due or comes again with
        a delay, may be counted in both places, and is in one at least. Cost: some 100 us, and what
        came to the dead letters since the last call of this object is read."""
        self._check_open()
        for _ in range(LOOKS):
            end = self._delayed.end_offset
            found, delayed = self._consumer.stats(), self._delayed.count()
            if self._delayed.end_offset == end:
                break    # none went from one to the other behind our back
        sums = {name: sum(counts[name] for counts in found.values())
                for name in ("lag", "held", "delayed", "done", "rejected", "given_back", "expired",
                             "orphaned")}
        return QueueStats(
            ready=sums["lag"] - sums["held"] - sums["delayed"],
            delayed=sums["delayed"] + delayed,
            in_flight=sums["held"], dead=0 if self._dead is None else len(self._dead),
            oldest_age=self._oldest_age(found),
            done=sums["done"] - sums["rejected"],
            redelivered=sums["given_back"] + sums["expired"] + sums["orphaned"])

    def _oldest_age(self, found: dict[Any, dict[str, int]]) -> float:
        times = []
        for (topic, partition), counts in found.items():
            if counts["lag"] > 0:
                log = self._broker.log(topic, partition)
                times += [record.timestamp for record in
                          log.fetch(max(counts["start"], log.start_offset), max_records=1)]
        return max(0.0, time.time() - min(times) / 1000) if times else 0.0

    @property
    def closed(self) -> bool:
        """True after close()."""
        return self._has_closed

    _is_made_of_others = True    # the broker closes it before its consumers

    def _close_with_broker(self) -> None:
        self._is_owner = False
        self._close()

    def _check_open(self) -> None:
        if self._has_closed:
            raise ClosedError("the queue is closed; open it again")

    def _close(self) -> None:
        self._has_closed = True
        with contextlib.ExitStack() as last_first:
            if self._is_owner:
                last_first.callback(self._broker.close)
            for name in ("_producer", "_consumer", "_delayed"):
                one = getattr(self, name, None)
                if one is not None:
                    last_first.callback(one.stop if name == "_delayed" else one._finish
                                        if name == "_consumer" else one.close)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}{', closed' if self.closed else ''}>"


class Queue(_Queue):
    """A queue of messages, each for one of its workers. A context manager, safe for threads.

    broker: a Broker, or the path of one. name: of its topic, which is made if need be. group: of
    its workers; another group gets every message too. value: None (bytes), "str", "json", a type or
    an object with serialize and deserialize. lock: seconds that a worker has for a message before
    another may get it. max_deliveries: how often one is tried. backoff: seconds until one that
    failed comes again, or a function of the number of deliveries, such as `expo(1, 60)`.
    ordered_by_key: a message waits until those of its key before it are done, where one that is put
    with a delay has its place when it is due; None: as the queue was made, which is not, if it is
    new. dlq: dead letters go to `dlq.<group>.<name>`; or to the topic of this name, which is not
    changed if it exists; False: they are dropped. dedup_window: seconds that a dedup_key is
    remembered.

    Guarantees: at least once, and once where nobody is killed, takes longer than its lock, or loses
    its power. A message that was acknowledged is delivered no more, and stays readable in its topic
    for as long as that keeps it; what is not done is spared by retention. One that a killed process
    had is another's within 200 ms; what a stuck one has, after its lock. Messages come oldest
    first; order among workers is by key, if asked for, or not at all. With 65,536 messages behind
    one that somebody holds, the queue waits for that one.

    Cost: put, get and ack of 100 bytes 0.8 us; a get does not depend on how many wait. Source:
    AMQP's acknowledge and reject, SQS's visibility time-out, KIP-932.

        >>> with Queue("data", "emails", value="json") as emails:
        ...     _ = emails.put({"to": "alice@example.com"})
        ...     with emails.get() as delivery:
        ...         print(delivery.value, delivery.delivery_count)
        ...     emails.stats().done
        {'to': 'alice@example.com'} 1
        1
    """

    def _make_consumer(self) -> ShareConsumer:
        return ShareConsumer(self._broker, self.name, **self._options)

    def put(
        self, value: Any, *, key: Any = None, headers: Any = None, delay: float = 0,
        ttl: float | None = None, dedup_key: str | None = None,
    ) -> SendFuture | None:
        """Adds a message; every process sees it when it returns. The future is done: its `get()` is
        the RecordMetadata.

        key: bytes or str; for order, and for who looks. delay: seconds before anybody gets it. ttl:
        seconds after which it is a dead letter instead, counted from when it is due. dedup_key: a
        second put with the same within `dedup_window` adds nothing, and returns None. Raises as
        Producer.send, SerializationError.
        """
        if self._has_closed:
            self._check_open()
        if dedup_key is None:
            if headers is None and ttl is None and not delay and key is None and self._is_plain:
                try:
                    return self._send(self.name, value)
                except TypeError as error:
                    raise advised(error) from None
            return self._put(value, key, headers, delay, ttl)
        with self._claim_of(dedup_key) as claim:
            return _put_once(claim, lambda: self._put(value, key, headers, delay, ttl))

    def put_many(self, values: Iterable[Any], *, keys: Iterable[Any] | None = None,
                 headers: Any = None) -> int:
        """Adds many, with the same headers; returns how many. Cost: 30 ns each."""
        self._check_open()
        return self._put_many(values, keys, headers)

    def get(self, timeout: float | None = None) -> Delivery:
        """The next message, for this worker alone. Raises queue.Empty after `timeout` seconds;
        None waits without end."""
        try:
            found: Delivery | None = self._consumer.take(timeout)
        except ClosedError:
            self._check_open()
            raise
        if found is None:
            self._check_open()
            raise queue.Empty(f"no message of {self.name!r} within {timeout} s")
        return found

    def __iter__(self) -> Iterator[Delivery]:
        """Messages, one by one, until the queue is closed; the loop settles each."""
        while True:
            try:
                found = self._consumer.take(1.0)
            except ClosedError:
                return
            if found is not None:
                yield found

    def work(self, handler: WorkHandler, concurrency: int = 1, idle: float | None = None) -> int:
        """Calls handler(delivery) for each message, in `concurrency` threads, until `stop()`, or
        until none came for `idle` seconds. Returns how many.

        What the handler returns from is acknowledged, unless it settled it; what it raises for is
        logged and given back, and after max_deliveries a dead letter. A coroutine function runs in
        an event loop of its own, `concurrency` at once. Raises TypeError for what cannot be called
        with a delivery, and what ends a thread: SystemExit, after which the message comes again as
        after any failure, damage.
        """
        self._check_open()
        with self._work.begun(handler, concurrency, idle):
            if is_async(handler):
                return asyncio.run(self._work_in_loop(handler, concurrency, idle))
            return self._work.as_threads(self._consumer, handler, concurrency, idle)

    async def _work_in_loop(self, handler: WorkHandler, concurrency: int,
                            idle: float | None) -> int:
        async with AsyncShareConsumer(self._broker, self.name, **self._options) as consumer:
            return await self._work.as_tasks(consumer, handler, concurrency, idle)

    def stop(self) -> None:
        """Ends the `work` that is going on, after the messages in hand."""
        self._work.stop()

    def purge(self) -> int:
        """Throws away what is ready; returns how many. What others have in hand stays theirs."""
        count = 0
        while (delivery := self._consumer.take(0)) is not None:
            with contextlib.suppress(InvalidRecordStateError):    # its lock is over, at this moment
                delivery.ack()
                count += 1
        return count

    def close(self) -> None:
        """Idempotent."""
        self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class AsyncQueue(_Queue):
    """`Queue` in an event loop: the same names, awaited. `async with`, `async for`.

    A task that is cancelled while it waits has taken nothing. Deliveries are settled at once, as
    there.

        >>> import asyncio
        >>> async def main():
        ...     async with AsyncQueue("data", "letters", value="str") as letters:
        ...         await letters.put("dear Alice")
        ...         with await letters.get() as delivery:
        ...             return delivery.value
        >>> asyncio.run(main())
        'dear Alice'
    """

    def _make_consumer(self) -> AsyncShareConsumer:
        return AsyncShareConsumer(self._broker, self.name, **self._options)

    async def put(
        self, value: Any, *, key: Any = None, headers: Any = None, delay: float = 0,
        ttl: float | None = None, dedup_key: str | None = None,
    ) -> SendFuture | None:
        """As `Queue.put`."""
        self._check_open()
        if dedup_key is None:
            return self._put(value, key, headers, delay, ttl)
        async with self._claim_of(dedup_key) as claim:
            return _put_once(claim, lambda: self._put(value, key, headers, delay, ttl))

    async def put_many(self, values: Iterable[Any], *, keys: Iterable[Any] | None = None,
                       headers: Any = None) -> int:
        """As `Queue.put_many`."""
        self._check_open()
        return self._put_many(values, keys, headers)

    async def get(self, timeout: float | None = None) -> Delivery:
        """As `Queue.get`; raises asyncio.QueueEmpty."""
        try:
            found: Delivery | None = await self._consumer.take(timeout)
        except ClosedError:
            self._check_open()
            raise
        if found is None:
            self._check_open()
            raise asyncio.QueueEmpty(f"no message of {self.name!r} within {timeout} s")
        return found

    async def __aiter__(self) -> AsyncIterator[Delivery]:
        while True:
            try:
                found = await self._consumer.take()
            except ClosedError:
                return
            if found is not None:
                yield found

    async def work(self, handler: WorkHandler, concurrency: int = 1,
                   idle: float | None = None) -> int:
        """As `Queue.work`: `concurrency` tasks; handler: a coroutine function, or a function."""
        self._check_open()
        with self._work.begun(handler, concurrency, idle):
            return await self._work.as_tasks(self._consumer, handler, concurrency, idle)

    def stop(self) -> None:
        """Ends the `work` that is going on, after the messages in hand."""
        self._work.stop()

    async def purge(self) -> int:
        """As `Queue.purge`."""
        count = 0
        while (delivery := await self._consumer.take(0)) is not None:
            with contextlib.suppress(InvalidRecordStateError):    # its lock is over, at this moment
                delivery.ack()
                count += 1
        return count

    async def close(self) -> None:
        """Idempotent. A task that waits gets ClosedError."""
        self._close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()


def _put_once(claim: Any, put: Callable[[], SendFuture]) -> SendFuture | None:
    if claim.done:
        return None
    future = put()
    with contextlib.suppress(ClaimLostError):    # it took longer than the key is remembered
        claim.save()
    return future


def _always(seconds: float) -> Callable[[int], float]:
    return lambda deliveries: seconds
