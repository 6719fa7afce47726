"""Subscription: records of a topic given to handlers, in a thread or a task of its own.

What Topic, Bus and the servers of Rpc run on. The consumer reads; a *route* says for each record
which handlers get it, and as what; a Handler is called until it went well or the record is a dead
letter; then, for a group, it is committed. In this order, so that a kill repeats and never loses.
"""

import asyncio
import atexit
import contextlib
import logging
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self

from pylog import (
    AsyncConsumer,
    Broker,
    ClosedError,
    Consumer,
    GroupError,
    PylogTimeoutError,
    Record,
    TopicPartition,
)
from pylog.patterns.handler import Handler, Stats
from pylog.patterns.headers import REPLAY_GROUP, REPLAY_HANDLER, text_of
from pylog.patterns.retry import check_count

logger = logging.getLogger("pylog.patterns")

EXIT_SECONDS = 1.0     # that the interpreter waits for handlers when it ends
LOOK_SECONDS = 0.05    # between looks whether it is to stop, in an event loop that waits

# "now", "earliest", an offset, a datetime; None: a group's beginning, else now.
Start = Any
# What a record is for its handlers, and which they are; () for none.
Route = Callable[[Record], tuple[Any, Sequence[Handler]]]


class _Stopped(Exception):
    """Ends a run while a record waits for its next attempt: that is not finished."""


class _Reader:
    """What a subscription reads and what it does with a record, in whatever it runs."""

    def __init__(self, kind: type[Consumer] | type[AsyncConsumer], broker: Broker, topic: str,
                 route: Route, handlers: Sequence[Handler], group: str | None, start: Start,
                 concurrency: int) -> None:
        self.topic = topic
        self.group = group
        self.error: BaseException | None = None
        self._broker = broker
        self._route = route
        self._handlers = handlers
        self._concurrency = check_count("concurrency", concurrency)
        self._replays_for = None if group is None else group.encode()
        self._has_ended = False
        self._stopping = threading.Event()
        self._inside: set[Any] = set()    # the threads or tasks that handlers are in
        places = _places(broker, topic, "latest" if start is None and group is None else start)
        self._consumer: Any = kind(broker, group_id=group)
        if group is None:
            self._consumer.subscribe([topic])
            for partition, offset in places.items():
                self._consumer.seek(partition, offset)
        else:
            self._consumer.subscribe(
                [topic], listener=_Beginning(self._consumer, places) if places else None)

    # ---- a record

    def _chosen(self, record: Record) -> tuple[Any, Sequence[Handler]]:
        replay = record.header(REPLAY_GROUP)
        if replay is None:
            return self._route(record)
        if replay != self._replays_for:
            return None, ()
        item, handlers = self._route(record)
        only = text_of(record.header(REPLAY_HANDLER))
        return item, [one for one in handlers if one.name == only] or handlers

    async def _process_async(self, record: Record) -> None:
        item, handlers = self._chosen(record)
        task = asyncio.current_task()
        self._inside.add(task)
        try:
            for handler in handlers:
                await handler.run_async(record, item, self._wait_async)
        finally:
            self._inside.discard(task)

    async def _wait_async(self, seconds: float) -> None:
        while seconds > 0:
            if self._stopping.is_set():
                raise _Stopped
            await asyncio.sleep(min(seconds, LOOK_SECONDS))
            seconds -= LOOK_SECONDS

    async def _run_async(self) -> None:
        try:
            await self._consumer.run(self._process_async, self._concurrency,
                                     commit_every=None if self.group is None else 1)
        except Exception as error:
            self._fail(error)
        finally:
            self._has_ended = True
            await self._consumer.close()

    # ---- the end

    def _fail(self, error: BaseException) -> None:
        is_asked_to = self._stopping.is_set() or self._broker.closed
        if not isinstance(error, _Stopped) and not (isinstance(error, ClosedError) and is_asked_to):
            self.error = error
            logger.error("the subscription to %r has ended: %s", self.topic, error, exc_info=error)

    def _ask_to_stop(self) -> None:
        self._stopping.set()
        with contextlib.suppress(ClosedError):    # it has ended meanwhile
            self._consumer.wakeup()

    # ---- figures

    @property
    def is_running(self) -> bool:
        """Whether records are handled still: it was not stopped and has not failed."""
        return not self._has_ended

    def stats(self) -> Stats:
        """How it has fared, all handlers together; "paused": one of them is."""
        each = [one.stats() for one in self._handlers]
        if self.error:
            state = "failed"
        elif self._has_ended:
            state = "stopped"
        else:
            state = "paused" if any(one.state == "paused" for one in each) else "running"
        return Stats(state, sum(one.handled for one in each), sum(one.retried for one in each),
                     sum(one.given_up for one in each), sum(one.buried for one in each))

    def __repr__(self) -> str:
        who = "" if self.group is None else f", group {self.group!r}"
        return f"<{type(self).__name__} of {self.topic!r}{who}, {self.stats().state}>"


class Subscription(_Reader):
    """What `subscribe` returns: handlers at work in a thread. A context manager, which stops it.

    A handler that is `async def` runs in an event loop of that thread. Closing the broker stops it,
    and so does the end of the interpreter, which waits a second for what is in work.

    error: what ended it though nobody stopped it; None: nothing has.
    """

    def __init__(self, broker: Broker, topic: str, route: Route, handlers: Sequence[Handler], *,
                 group: str | None = None, start: Start = None, concurrency: int = 1) -> None:
        self._is_async = any(one.is_async for one in handlers)
        super().__init__(AsyncConsumer if self._is_async else Consumer, broker, topic, route,
                         handlers, group, start, concurrency)
        broker.dependents.discard(self._consumer)    # closed by its thread
        broker.dependents.add(self)
        _running.add(self)
        self._thread = threading.Thread(target=self._run, daemon=True, name=f"pylog-{topic}")
        self._thread.start()

    def _run(self) -> None:
        self._inside.add(threading.get_ident())
        try:
            if self._is_async:
                asyncio.run(self._run_async())
            else:
                self._run_here()
        except BaseException as error:    # SystemExit of a handler, too
            self._fail(error)
        finally:
            self._has_ended = True
            if not self._is_async:
                self._consumer.close()
        self._broker.dependents.discard(self)

    def _run_here(self) -> None:
        if self.group is None:
            self._consumer.run(self._process, self._concurrency)
        elif self._concurrency == 1:
            self._consumer.run(self._process_and_commit)
        else:
            self._consumer.run(self._process, self._concurrency, commit_every=1)

    def _process(self, record: Record) -> None:
        if self._concurrency > 1:
            self._inside.add(threading.get_ident())
        item, handlers = self._chosen(record)
        for handler in handlers:
            handler.run(record, item, self._wait)

    def _process_and_commit(self, record: Record) -> None:
        item, handlers = self._chosen(record)
        for handler in handlers:
            handler.run(record, item, self._wait)
        try:
            self._consumer.commit()
        except GroupError as error:    # the partition is another's now, who does it again
            logger.info("commit of %s-%s, offset %d: %s", record.topic, record.partition,
                        record.offset, error)

    def _wait(self, seconds: float) -> None:
        if self._stopping.wait(seconds):
            raise _Stopped

    def stop(self, timeout: float | None = None) -> None:
        """Lets the record in work be finished, and ends; idempotent. What waits for its next
        attempt is read again by whoever subscribes next.

        Called by a handler it does not wait. Raises PylogTimeoutError after `timeout` seconds; the
        thread ends as soon as its handler does.
        """
        self._ask_to_stop()
        if threading.get_ident() in self._inside:
            return
        self._thread.join(timeout)
        if self._thread.is_alive():
            raise PylogTimeoutError(
                f"a handler of {self.topic!r} has been at work for {timeout} s since it was to "
                "stop; call stop() again, or let the handler have a time-out",
                timeout_ms=int(1000 * (timeout or 0)))

    def join(self, timeout: float | None = None) -> bool:
        """Waits until it has ended, and raises what ended it; False after `timeout` seconds."""
        self._thread.join(timeout)
        if self.error is not None:
            raise self.error
        return not self._thread.is_alive()

    _is_made_of_others = True    # the broker closes it before its consumer

    def _close_with_broker(self) -> None:
        self.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()


_running: "weakref.WeakSet[Subscription]" = weakref.WeakSet()


@atexit.register
def _stop_all() -> None:
    """Before the logs are closed under them. In a fork they have no thread."""
    running = [one for one in list(_running) if one._thread.is_alive()]
    for one in running:
        one._ask_to_stop()
    deadline = time.monotonic() + EXIT_SECONDS
    for one in running:
        one._thread.join(max(0.0, deadline - time.monotonic()))


class AsyncSubscription(_Reader):
    """As Subscription, a task of the event loop that it was made in. An async context manager.

    A task that is cancelled cancels its handlers; their records are read again.
    """

    def __init__(self, broker: Broker, topic: str, route: Route, handlers: Sequence[Handler], *,
                 group: str | None = None, start: Start = None, concurrency: int = 1) -> None:
        loop = asyncio.get_running_loop()
        super().__init__(AsyncConsumer, broker, topic, route, handlers, group, start, concurrency)
        self._task = loop.create_task(self._run_async(), name=f"pylog-{topic}")

    async def stop(self, timeout: float | None = None) -> None:
        """As `Subscription.stop`."""
        self._ask_to_stop()
        if asyncio.current_task() in self._inside:
            return
        done, _ = await asyncio.wait([self._task], timeout=timeout)
        if not done:
            raise PylogTimeoutError(
                f"a handler of {self.topic!r} has been at work for {timeout} s since it was to "
                "stop; call stop() again, or let the handler have a time-out",
                timeout_ms=int(1000 * (timeout or 0)))

    async def join(self, timeout: float | None = None) -> bool:
        """As `Subscription.join`."""
        done, _ = await asyncio.wait([self._task], timeout=timeout)
        if self.error is not None:
            raise self.error
        return bool(done)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None,
                        trace: TracebackType | None) -> None:
        await self.stop()


class _Beginning:
    """Where a group starts to read the partitions of which it has committed nothing. It is
    committed at once, so that whoever takes the partition over begins there too."""

    def __init__(self, consumer: Any, places: dict[TopicPartition, int]) -> None:
        self._consumer = consumer
        self._places = places

    def on_partitions_assigned(self, partitions: list[TopicPartition]) -> None:
        for one in partitions:
            if one in self._places and self._consumer.committed(one) is None:
                self._consumer.seek(one, self._places[one])
                self._consumer.commit_async({one: self._places[one]})


def _places(broker: Broker, topic: str, start: Start) -> dict[TopicPartition, int]:
    """The offsets that a start means now, partition by partition; none: from the beginning on."""
    count = broker.topic(topic).partitions    # the topic is made, or missed
    if start is None:
        return {}
    place: Any = "latest" if start == "now" else start
    return {TopicPartition(topic, number): broker.log(topic, number).resolve(place)
            for number in range(count)}
