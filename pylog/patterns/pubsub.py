"""Topic and AsyncTopic: publish-subscribe. Every subscriber gets a copy of what is published.

    with Topic(broker, "users", value="json") as users:
        users.subscribe(send_welcome_email, group="mailer")    # durable, shared by the group
        users.subscribe(print)                                 # everything from now on
        users.publish({"event": "registered", "user": 123}, key="123")
"""

import os
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Any, Self, TypeVar

from pylog import AsyncProducer, Broker, ClosedError, Producer, Record, RecordMetadata, TypedRecord
from pylog.patterns.handler import Handler, check_handler, is_async, name_of
from pylog.patterns.headers import to_key
from pylog.patterns.letter import burier, is_mark
from pylog.patterns.reader import Start
from pylog.patterns.retry import Retry, check_retry
from pylog.patterns.subscription import AsyncSubscription, Subscription
from pylog.patterns.tenant import make_topic
from pylog.patterns.unpicklable import Unpicklable
from pylog.patterns.values import advised, codec_of, listed, serde_of

Function = TypeVar("Function", bound=Callable[[Any], Any])


class _Topic(Unpicklable):
    """What both have: a name, how values become bytes, how a subscription is made."""

    _kind: Any

    def __init__(self, broker: Broker | str | os.PathLike[str], name: str, *, value: Any = None,
                 num_partitions: int | None = None) -> None:
        self.name = name
        self._codec = codec_of(value)
        self._broker, self._is_owner = Broker.of(broker)
        self._subscriptions: list[Any] = []
        self._is_closed = False
        try:
            make_topic(self._broker, name, num_partitions)
        except BaseException:
            if self._is_owner:
                self._broker.close()
            raise

    def subscribe(
        self, handler: Callable[[Any], Any] | None = None, *, group: str | None = None,
        start: Start = None, retry: Retry | None = None, dlq: bool | str | None = None,
        concurrency: int = 1,
    ) -> Any:
        """Calls handler(record) for each record. Returns the subscription; without a handler, a
        decorator that leaves the function as it is.

        handler: a function or a coroutine function. It gets a Record, or a TypedRecord where the
        topic has `value=`. Of a topic of dead letters it gets the letters, and no marks.

        group: None is everything that is published from now on, the position fixed before this
        returns; each such subscriber has a copy, and nothing is kept of where it was. With a name
        the subscription is durable: it goes on where the group was, and members of one group, in
        any processes, share the records by partition. Each is handled at least once: a member that
        is killed may have handled one that it has not committed, and another handles that again.

        start: where a group that has committed nothing begins, "earliest" by default, or any other
        subscriber: "now", "latest", an offset, -10 (the last ten), an aware datetime.

        retry: one attempt by default. dlq: where records go that were given up: True, as for each
        group, is the topic dlq.<group>.<topic>; or its name, and one that exists is not changed;
        False, there is none. A group without ends on the first such record, which is not lost;
        without a group it is logged and skipped. What cannot be deserialized goes there at once.

        concurrency: records handled at a time, each of another partition.

        Cost: 0.4 us a record over the call of the handler; a commit is 0.1 us of it. Raises
        TypeError, ConfigurationError, InvalidGroupIdError, InvalidTopicError, what Broker raises.
        """
        if handler is None:
            def subscribe(function: Function) -> Function:
                self.subscribe(function, group=group, start=start, retry=retry, dlq=dlq,
                               concurrency=concurrency)
                return function
            return subscribe
        check_handler(handler)
        self._check_open()
        made = Handler(self._typed(handler), name_of(handler), check_retry(retry, group),
                       burier(self._broker, dlq, group, self.name), group is not None,
                       is_async(handler))
        handlers = (made,)
        subscription = self._kind(
            self._broker, self.name,
            lambda record: (record, () if is_mark(record) else handlers),
            handlers, group=group, start=start, concurrency=concurrency)
        self._subscriptions.append(subscription)
        return subscription

    def _check_open(self) -> None:
        if self._is_closed:
            raise ClosedError(f"the topic {self.name!r} was closed here; make another object of it")

    def _listed(self, values: Iterable[Any], keys: Iterable[Any] | None) -> tuple[Any, Any, Any]:
        """Values, keys and headers of a list."""
        many, common = listed("values", values), self._codec.headers
        return (many, None if keys is None else [to_key(key) for key in listed("keys", keys)],
                [common] * len(many) if common else None)

    @property
    def broker(self) -> Broker:
        """The broker that it is a topic of."""
        return self._broker

    def typed(self, record: Record) -> Any:
        """A record of the topic as handlers get it, however it was read."""
        return self._codec.typed(record)

    def _typed(self, handler: Callable[[Any], Any]) -> Callable[[Any], Any]:
        deserialize = self._codec.deserialize
        if deserialize is None:
            return handler
        return lambda record: handler(TypedRecord(record, record.key, deserialize(record)))

    def read(self, start: Any = "earliest") -> Iterator[Any]:
        """What the topic has, up to its end, as handlers get it; nothing is committed. start: as
        `subscribe`'s. Raises DeserializationError where the iteration comes to such a record."""
        deserialize = self._codec.deserialize
        for record in self._broker.read(self.name, "latest" if start == "now" else start):
            if not is_mark(record):
                yield record if deserialize is None else \
                    TypedRecord(record, record.key, deserialize(record))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r} of {str(self._broker.path)!r}>"


class Topic(_Topic):
    """A topic that values are published to, each subscriber of which gets a copy. A context
    manager, which stops the subscriptions that were made by it. Safe for threads.

    value: what values are: None or "bytes", "str", "json", a type (see `schema.py`), or an object
    with serialize and deserialize. A value of None is a record without a value, Kafka's tombstone;
    of a type it has to fit as any other, which `Order | None` says.

    num_partitions: of a topic that is made here, 1 by default, and a ConfigurationError where one
    has fewer; records with the same key stay in order, and a durable group has no more members at
    work than partitions.

        >>> import threading
        >>> seen, both = [], threading.Barrier(3)
        >>> with Topic("data", "users", value="json") as users:
        ...     for name in ("mail", "profile"):
        ...         @users.subscribe()
        ...         def act(record, name=name):
        ...             seen.append((name, record.value["user"]))
        ...             both.wait(10)
        ...     metadata = users.publish({"user": 123})
        ...     place = both.wait(10)
        >>> sorted(seen)
        [('mail', 123), ('profile', 123)]
    """

    _kind = Subscription

    def __init__(self, broker: Broker | str | os.PathLike[str], name: str, *, value: Any = None,
                 num_partitions: int | None = None) -> None:
        super().__init__(broker, name, value=value, num_partitions=num_partitions)
        self._producer = Producer(self._broker, value_serializer=serde_of(value))

    def publish(self, value: Any, key: Any = None, headers: Any = None, *,
                partition: int | None = None, timestamp_ms: int | None = None) -> RecordMetadata:
        """Appends a value, visible to all processes on return; as durable as the broker is.

        key: bytes or str. headers: a dict or pairs, values bytes, str or None. Cost: 1 us. Raises
        SerializationError, MessageSizeTooLargeError, DiskFullError.
        """
        self._check_open()
        try:
            done: RecordMetadata = self._producer.send(
                self.name, value, to_key(key), self._codec.headers_with(headers) or None,
                partition, timestamp_ms).get()
        except TypeError as error:
            raise advised(error) from None
        return done

    def publish_many(self, values: Iterable[Any], keys: Iterable[Any] | None = None) -> int:
        """Appends many, 40 ns each; returns how many. All is checked before any is in."""
        self._check_open()
        many, keys, headers = self._listed(values, keys)
        try:
            self._producer.send_many(self.name, many, keys, headers)
        except TypeError as error:
            raise advised(error) from None
        return len(many)

    def close(self) -> None:
        """Stops the subscriptions made by this object; idempotent."""
        self._is_closed = True
        for subscription in self._subscriptions:
            subscription.stop()
        self._producer.close()
        if self._is_owner:
            self._broker.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class AsyncTopic(_Topic):
    """As Topic, in an event loop: `async with`, and what may wait is awaited.

    `subscribe` is called in a running loop and makes a task of it; a handler that is no coroutine
    function is called as it is and keeps the loop waiting.

        >>> import asyncio
        >>> async def main():
        ...     async with AsyncTopic("data", "users", value="json") as users:
        ...         seen = asyncio.Queue()
        ...         users.subscribe(seen.put)
        ...         await users.publish({"user": 123})
        ...         return (await seen.get()).value
        >>> asyncio.run(main())
        {'user': 123}
    """

    _kind = AsyncSubscription

    def __init__(self, broker: Broker | str | os.PathLike[str], name: str, *, value: Any = None,
                 num_partitions: int | None = None) -> None:
        super().__init__(broker, name, value=value, num_partitions=num_partitions)
        self._producer = AsyncProducer(self._broker, value_serializer=serde_of(value))

    async def publish(self, value: Any, key: Any = None, headers: Any = None, *,
                      partition: int | None = None, timestamp_ms: int | None = None,
                      ) -> RecordMetadata:
        """As `Topic.publish`."""
        self._check_open()
        try:
            return await self._producer.send(
                self.name, value, to_key(key), self._codec.headers_with(headers) or None,
                partition, timestamp_ms)
        except TypeError as error:
            raise advised(error) from None

    async def publish_many(self, values: Iterable[Any], keys: Iterable[Any] | None = None) -> int:
        """As `Topic.publish_many`."""
        self._check_open()
        many, keys, headers = self._listed(values, keys)
        try:
            await self._producer.send_many(self.name, many, keys, headers)
        except TypeError as error:
            raise advised(error) from None
        return len(many)

    async def close(self) -> None:
        """As `Topic.close`."""
        self._is_closed = True
        for subscription in self._subscriptions:
            await subscription.stop()
        await self._producer.close()
        if self._is_owner:
            self._broker.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None,
                        trace: TracebackType | None) -> None:
        await self.close()
