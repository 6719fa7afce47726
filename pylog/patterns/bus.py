"""Bus and AsyncBus: an event bus. What happened is emitted by its type; who listens names types,
with wildcards, and never the publisher.

    with Bus(broker, "shop") as bus:
        @bus.on("user.*", group="audit")          durable: it goes on where it was
        def audit(event): ...

        @bus.on("order.created")                  from now on, and only while we live
        def notify(event): ...

        bus.start()                               the groups, when all their handlers are there
        bus.emit("user.created", {"id": 123}, key="123")

A bus is one topic, and the type is in a header.
"""

import asyncio
import os
from datetime import datetime
from types import TracebackType
from typing import Any, Self

from pylog import AsyncProducer, Broker, Producer, Record, RecordMetadata
from pylog.patterns.events import (
    CONTENT_TYPES,
    Event,
    Ids,
    attributes,
    declared,
    plain_of,
    version_header,
)
from pylog.patterns.headers import to_key
from pylog.patterns.listening import Line, Listening
from pylog.patterns.subscription import AsyncSubscription, Subscription
from pylog.patterns.tenant import make_topic
from pylog.patterns.unpicklable import Unpicklable
from pylog.patterns.values import advised, codec_of, serde_of


class _Bus(Unpicklable, Listening):
    """What both have."""

    def __init__(self, broker: Broker | str | os.PathLike[str], name: str = "events", *,
                 value: Any = "json", source: str | None = None,
                 num_partitions: int | None = None) -> None:
        self.source = name if source is None else source
        self._codec = codec_of(value)
        self._content_type = CONTENT_TYPES.get(value) if isinstance(value, str) else None
        made, self._is_owner = Broker.of(broker)
        super().__init__(made, name, self._codec.deserialize)
        self._ids = Ids()
        try:
            make_topic(made, name, num_partitions)
        except BaseException:
            if self._is_owner:
                made.close()
            raise

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
            kind, data = said.type, plain_of(kind, self.name)
            more = version_header(said.version)
        found = attributes(kind, self.source if source is None else source,
                           self._ids.next() if event_id is None else event_id, time, subject,
                           self._content_type, self._codec.headers_with(headers))
        return self.name, data, to_key(key), [*found, *more]


class Bus(_Bus):
    """An event bus: `emit`, `on`, `start`. A context manager, which stops what it has begun. Safe
    for threads.

    name: of the topic that all events go to. value: what data is, "json" by default, as Topic's.
    source: who emits, the bus's name by default. num_partitions: of a bus that is made here, 1
    by default, and a ConfigurationError where one has fewer; events of one key stay in order.

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
                 value: Any = "json", source: str | None = None,
                 num_partitions: int | None = None) -> None:
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
        ValidationError, ConfigurationError, TypeError, MessageSizeTooLargeError, DiskFullError.
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
                 value: Any = "json", source: str | None = None,
                 num_partitions: int | None = None) -> None:
        super().__init__(broker, name, value=value, source=source, num_partitions=num_partitions)
        self._producer = AsyncProducer(self._broker, value_serializer=serde_of(value))

    def _begin_live(self, line: Line) -> None:
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
