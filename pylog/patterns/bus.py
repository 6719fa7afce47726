"""Bus and AsyncBus: an event bus. What happened is emitted by its type; who listens names types,
with wildcards, and never the publisher.

    with Bus(broker, "shop") as bus:
        @bus.on("user.*", group="audit")          durable: it goes on where it was
        def audit(event): ...

        @bus.on("order.created")                  from now on, and only while we live
        def notify(event): ...

        bus.start()                               the groups, when all their handlers are there
        bus.emit("user.created", {"id": 123}, key="123")

A bus is one topic and the type is in a header, so a listener reads all events and chooses: 0.3 us
for each that it does not want, and a pattern costs nothing while nothing matches it.
"""

import asyncio
import dataclasses
import logging
import os
import threading
from collections.abc import Callable
from datetime import datetime
from types import TracebackType
from typing import Any, Self, TypeVar

from pylog import (
    AsyncProducer,
    Broker,
    ClosedError,
    ConfigurationError,
    IllegalStateError,
    Producer,
    Record,
    RecordMetadata,
)
from pylog.patterns.events import (
    CONTENT_TYPES,
    Event,
    Ids,
    as_declared,
    attributes,
    declared,
    version_header,
)
from pylog.patterns.handler import Handler, Stats, check_handler, is_async, name_of
from pylog.patterns.headers import to_key
from pylog.patterns.letter import burier
from pylog.patterns.reader import Start
from pylog.patterns.retry import Retry, check_retry
from pylog.patterns.routes import Entry, Routes
from pylog.patterns.subscription import AsyncSubscription, Subscription
from pylog.patterns.values import advised, codec_of, serde_of
from pylog.patterns.wildcards import matcher

logger = logging.getLogger("pylog.patterns")

Function = TypeVar("Function", bound=Callable[[Any], Any])


class _Line:
    """The handlers of a group, or those without one, and the subscription that calls them."""

    def __init__(self, group: str | None, deserialize: Callable[[Any], Any] | None) -> None:
        self.group = group
        self.routes = Routes(deserialize)
        self.start: Start = None
        self.concurrency: int | None = None
        self.subscription: Any = None

    def agree(self, option: str, given: Any) -> None:
        """One consumer reads for all handlers of a group: what is said of it is said once."""
        before = getattr(self, option)
        if given is not None and before is not None and given != before:
            raise ConfigurationError(
                f"{option}={given!r} of a handler of the group {self.group!r}, and {before!r} of "
                "another: one consumer reads for them all; say it once, or use another group",
                option=option, value=given)
        if given is not None:
            setattr(self, option, given)


class _Bus:
    """What both have."""

    _kind: Any

    def __init__(self, broker: Broker | str | os.PathLike[str], name: str = "events", *,
                 value: Any = "json", source: str | None = None, num_partitions: int = 1) -> None:
        self.name = name
        self.source = name if source is None else source
        self._codec = codec_of(value)
        self._content_type = CONTENT_TYPES.get(value) if isinstance(value, str) else None
        self._broker, self._is_owner = Broker.of(broker)
        self._ids = Ids()
        self._lines: dict[Any, _Line] = {}
        self._lock = threading.Lock()
        self._closing = threading.Event()
        if name not in self._broker.topics() and self._broker.auto_create_topics:
            self._broker.create_topic(name, num_partitions, exist_ok=True)
        self._broker.topic(name)    # says it where it is missing

    @property
    def broker(self) -> Broker:
        """The broker that it is a topic of."""
        return self._broker

    def event(self, record: Record) -> Event:
        """The event that a record of its topic is, however it was read."""
        return Event(record, self._codec.deserialize)

    # ---- emitting

    def _made(self, kind: Any, data: Any, key: Any, subject: str | None, source: str | None,
              event_id: str | None, time: datetime | None, headers: Any,
              ) -> tuple[str, Any, Any, list[tuple[str, bytes | None]]]:
        """Topic, value, key and headers."""
        more: tuple[tuple[str, bytes], ...] = ()
        if not isinstance(kind, str):
            said = declared(type(kind))
            if said is None:
                raise TypeError(f"expected the type of an event, or an instance of a class that "
                                f"@event declares, not {type(kind).__name__}")
            if data is not None:
                raise TypeError(f"{type(kind).__name__} is the data already: pass it alone")
            if key is None and said.key is not None:
                key = getattr(kind, said.key)
                key = key if isinstance(key, str | bytes) else str(key)
            kind, data = said.type, dataclasses.asdict(kind)
            more = version_header(said.version)
        found = attributes(kind, self.source if source is None else source,
                           self._ids.next() if event_id is None else event_id, time, subject,
                           self._content_type, self._codec.headers_with(headers))
        return self.name, data, to_key(key), [*found, *more]

    # ---- listening

    def on(
        self, pattern: Any, handler: Callable[[Event], Any] | None = None, *,
        group: str | None = None, retry: Retry | None = None, dlq: bool | str | None = None,
        start: Start = None, concurrency: int | None = None, name: str | None = None,
    ) -> Any:
        """Calls handler(event) for each event whose type the pattern matches; without a handler, a
        decorator.

        pattern: a type, `*` for one segment of it, `**` for one or more; or a class that `@event`
        declares, whose instance is `event.data` then. handler: a function or a coroutine function.

        group: None is from now on, with nothing kept; such handlers are called at once, all by one
        thread (those that are coroutine functions: by another), each event by one after the other.
        With a name it is durable and begins at `start()`: each group has its own offset, and each
        of its handlers its own retry and dead letters. All handlers of a group get an event, in the
        order in which they were registered; one that fails on it is dead-lettered by its name and
        stops no other, though the others wait for its retries: a group of its own waits for nobody.
        An event is finished when all have had it; a kill before that repeats it for all of them.

        retry, dlq, start, concurrency: as `Topic.subscribe`'s, the last two for the whole group.
        name: of the handler in its dead letters; that of the function by default.

        Raises IllegalStateError for a group that has begun: register all of its handlers before
        `start()`, lest one miss events; ConfigurationError, TypeError.
        """
        said = declared(pattern)
        wants = matcher(pattern if said is None else said.type)    # now: a decorator may be late
        if handler is None:
            def register(function: Function) -> Function:
                self.on(pattern, function, group=group, retry=retry, dlq=dlq, start=start,
                        concurrency=concurrency, name=name)
                return function
            return register
        check_handler(handler)
        function: Callable[[Any], Any] = handler
        if said is not None:
            def function(event: Event) -> Any:
                return handler(as_declared(pattern, event))
        made = Handler(function, name_of(handler) if name is None else name,
                       check_retry(retry, group), burier(self._broker, dlq, group, self.name),
                       group is not None, is_async(handler))
        if group is None and (start is not None or concurrency is not None):
            raise ConfigurationError(
                "start= and concurrency= are for a group: without one a handler gets what comes "
                "from now on, one event after the other; pass group=", option="group")
        with self._lock:
            self._check_open()
            line = self._line(group, made.is_async)
            if group is not None and line.routes.named(made.name) not in (None, handler):
                raise ConfigurationError(
                    f"two handlers of the group {group!r} are called {made.name!r}, and its dead "
                    "letters could not be told apart; pass name=", option="name", value=made.name)
            line.agree("start", start)
            line.agree("concurrency", concurrency)
            line.routes.add(Entry(made, handler, wants, self._ends() if line.subscription else {}))
            if group is None:
                self._begin_live(line)
        return handler

    def _line(self, group: str | None, is_coroutine: bool) -> _Line:
        key = is_coroutine if group is None else group
        line = self._lines.get(key)
        if line is None:
            line = self._lines[key] = _Line(group, self._codec.deserialize)
        if group is not None and line.subscription is not None:
            raise IllegalStateError(
                f"the group {group!r} has begun, and a handler that comes now would miss events: "
                "register all handlers of a group before start(), or use another group")
        return line

    def _begin_live(self, line: _Line) -> None:
        self._begin(line)

    def _begin(self, line: _Line) -> None:
        if line.subscription is None:
            line.subscription = self._kind(
                self._broker, self.name, line.routes.of, line.routes.handlers, group=line.group,
                start=line.start, concurrency=line.concurrency or 1)

    def _ends(self) -> dict[int, int]:
        """What is published now is not what a handler that comes now gets."""
        count = self._broker.topic(self.name).partitions
        return {number: self._broker.log(self.name, number).readable_offset
                for number in range(count)}

    def start(self) -> Self:
        """Begins the groups that have not begun; returns the bus. Raises what Consumer raises."""
        with self._lock:
            self._check_open()
            for line in self._lines.values():
                self._begin(line)
        return self

    def _check_open(self) -> None:
        if self._closing.is_set():
            raise ClosedError("the bus is closed: make another")

    def _told_to_close(self) -> list[Any]:
        """The subscriptions that are to stop."""
        self._closing.set()
        with self._lock:
            for line in self._lines.values():
                if line.subscription is None:
                    logger.warning("the group %r of the bus %r was never begun: call start()",
                                   line.group, self.name)
            return [line.subscription for line in self._lines.values() if line.subscription]

    # ---- figures

    def stats(self) -> dict[tuple[str | None, str], Stats]:
        """How each handler has fared, by its group and its name."""
        return {(line.group, one.name): one.stats() for line in list(self._lines.values())
                for one in list(line.routes.handlers)}

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r} of {str(self._broker.path)!r}>"


class Bus(_Bus):
    """An event bus: `emit`, `on`, `start`. A context manager, which stops what it has begun. Safe
    for threads.

    name: of the topic that all events go to. value: what data is, "json" by default, as Topic's.
    source: who emits, the bus's name by default. num_partitions: of a bus that is made here; events
    of one key stay in order.

        >>> import threading
        >>> done = threading.Event()
        >>> with Bus("data", "shop") as bus:
        ...     @bus.on("user.*")
        ...     def greet(event):
        ...         print(event.type, event.data)
        ...         done.set()
        ...     metadata = bus.emit("user.created", {"id": 123})
        ...     done.wait(10)
        user.created {'id': 123}
        True
    """

    _kind = Subscription

    def __init__(self, broker: Broker | str | os.PathLike[str], name: str = "events", *,
                 value: Any = "json", source: str | None = None, num_partitions: int = 1) -> None:
        super().__init__(broker, name, value=value, source=source, num_partitions=num_partitions)
        self._producer = Producer(self._broker, value_serializer=serde_of(value))

    def emit(
        self, kind: Any, data: Any = None, *, key: Any = None, subject: str | None = None,
        source: str | None = None, event_id: str | None = None, time: datetime | None = None,
        headers: Any = None,
    ) -> RecordMetadata:
        """Publishes an event, visible to all processes on return; as durable as the broker is.

        kind: its type, or an instance of a class that `@event` declares, which is the data too.
        key: bytes or str. subject, source, event_id, time: CloudEvents' attributes; an id that
        nobody else has, and now. headers: others. Cost: 10 us. Raises SerializationError,
        ConfigurationError, TypeError, MessageSizeTooLargeError, DiskFullError.
        """
        topic, value, key, found = self._made(kind, data, key, subject, source, event_id, time,
                                              headers)
        self._check_open()
        try:
            done: RecordMetadata = self._producer.send(topic, value, key, found).get()
        except TypeError as error:
            raise advised(error) from None
        return done

    def run(self) -> None:
        """Begins all groups and waits until the bus is closed, by another thread or by Ctrl-C.
        Raises what ends a subscription."""
        self.start()
        while not self._closing.wait(0.2):
            for line in self._lines.values():
                line.subscription.join(0)

    def close(self) -> None:
        """Stops all handlers, after the events that they are at; idempotent."""
        for subscription in self._told_to_close():
            subscription.stop()
        self._producer.close()
        if self._is_owner:
            self._broker.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class AsyncBus(_Bus):
    """As Bus, in an event loop: handlers are tasks of it, and what may wait is awaited.

    `on` is called before the loop runs or in it; handlers without a group begin in a running loop
    at once, else at `start()`.

        >>> async def main():
        ...     async with AsyncBus("data", "shop") as bus:
        ...         seen = asyncio.Queue()
        ...         bus.on("user.*", seen.put)
        ...         await bus.emit("user.created", {"id": 123})
        ...         return (await seen.get()).data
        >>> asyncio.run(main())
        {'id': 123}
    """

    _kind = AsyncSubscription

    def __init__(self, broker: Broker | str | os.PathLike[str], name: str = "events", *,
                 value: Any = "json", source: str | None = None, num_partitions: int = 1) -> None:
        super().__init__(broker, name, value=value, source=source, num_partitions=num_partitions)
        self._producer = AsyncProducer(self._broker, value_serializer=serde_of(value))

    def _begin_live(self, line: _Line) -> None:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return    # it begins at start()
        self._begin(line)

    async def emit(
        self, kind: Any, data: Any = None, *, key: Any = None, subject: str | None = None,
        source: str | None = None, event_id: str | None = None, time: datetime | None = None,
        headers: Any = None,
    ) -> RecordMetadata:
        """As `Bus.emit`."""
        topic, value, key, found = self._made(kind, data, key, subject, source, event_id, time,
                                              headers)
        self._check_open()
        try:
            return await self._producer.send(topic, value, key, found)
        except TypeError as error:
            raise advised(error) from None

    async def run(self) -> None:
        """As `Bus.run`; a cancellation ends it too."""
        self.start()
        tasks = [asyncio.ensure_future(line.subscription.join()) for line in self._lines.values()]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()

    async def close(self) -> None:
        """As `Bus.close`."""
        for subscription in self._told_to_close():
            await subscription.stop()
        await self._producer.close()
        if self._is_owner:
            self._broker.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None,
                        trace: TracebackType | None) -> None:
        await self.close()
