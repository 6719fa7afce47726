"""EventStore: what happened is the truth, and states are folded from it.

    store = EventStore(broker, "orders", events=[OrderPlaced, OrderPaid])
    store.append("order-42", [OrderPlaced(total=20)], expected_version=NO_STREAM)
    order, version = store.fold("order-42", {}, apply)
    store.append("order-42", [OrderPaid(20)], expected_version=version)

Each stream (an order, an account) has its events as versions 1, 2, 3; who appends says up to which
version he has seen it, and where somebody was faster nothing is appended. It is one topic, the
stream is the key of a record, and an event looks as a `Bus` writes it: a Bus, a Topic or a Consumer
of the topic's name reads the same events.
"""

import enum
import operator
import os
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, NamedTuple, Self

from pylog import Broker, WrongEndOffsetError, WrongExpectedVersionError
from pylog.patterns.event_codec import EventCodec, Made, StoredEvent
from pylog.patterns.headers import CE_ID
from pylog.patterns.racing import until_first
from pylog.patterns.stream_index import Stream, StreamIndex, key_of


class StreamState(enum.Enum):
    """What `expected_version` may be instead of a number."""

    ANY = "any"          # whatever the stream has
    EXISTS = "exists"    # at least one event


ANY, EXISTS = StreamState
NO_STREAM = 0


class AppendResult(NamedTuple):
    """Where the last event of an append is.

    version: in its stream. partition, offset: in the topic: who has read up to it has read all.
    """

    stream: str
    version: int
    partition: int
    offset: int


class Folded(NamedTuple):
    """What the events of a stream come to, up to this version."""

    state: Any
    version: int


class EventStore:
    """A store of events, the same in all processes. Safe for threads; a context manager.

    broker: a Broker, or the path of one, which is then closed with the store. name: of the topic;
    it is made if it is not there, and kept for ever. value: what data is, "json" by default, as
    Topic's. events: classes that `@event` declares; what is read of their types has them as data.
    source: who says so, in CloudEvents' words; the name by default. num_partitions: of a topic that
    is made here. A stream is in one, which murmur2 of its name chooses, and events are in order
    within it: with one partition, all of the store.

        >>> from pylog import Broker
        >>> from pylog.patterns import NewEvent
        >>> with Broker("data") as broker:
        ...     store = EventStore(broker, "orders")
        ...     store.append("order-42", NewEvent("order.placed", {"total": 20}),
        ...                  expected_version=NO_STREAM)
        ...     [(one.version, one.type, one.data) for one in store.read("order-42")]
        AppendResult(stream='order-42', version=1, partition=0, offset=0)
        [(1, 'order.placed', {'total': 20})]

    **Guarantee**: the versions of a stream have no gap and none is there twice, whoever appends at
    the same time and whoever is killed; the events of one append are there all or none. Cost: each
    process keeps 8 bytes an event and 300 a stream in memory.
    """

    def __init__(
        self, broker: Broker | str | os.PathLike[str], name: str, *, value: Any = "json",
        events: Iterable[type] = (), source: str | None = None, num_partitions: int = 1,
    ) -> None:
        self.name = name
        self._codec = EventCodec(name, value, events, source)
        self._broker, self._is_owner = Broker.of(broker)
        try:
            forever = {"retention.ms": -1}
            entry = self._broker.create_topic(name, num_partitions, forever, exist_ok=True)
            if entry.configs.get("retention.ms") != "-1":
                self._broker.alter_configs(name, forever)
            self._indexes = [StreamIndex(self._broker.log(name, number), number)
                             for number in range(entry.partitions)]
        except BaseException:
            self.close()
            raise

    # ---- appending

    def append(self, stream: str, events: Any, *, expected_version: int | StreamState,
               ) -> AppendResult:
        """Appends events to a stream: all, in one batch, or none. Visible to all processes on
        return; as durable as the broker is.

        events: a NewEvent, an instance of a class that `@event` declares, or several. They may have
        1 MiB in all (max.message.bytes). expected_version: the version that the caller has seen the
        stream at; NO_STREAM: it has no event yet; EXISTS: it has one; ANY: whatever it has.

        Events that all have an id of the caller's are appended once: where they are there already,
        at the place where they would be now, or for ANY and EXISTS anywhere in the stream, that
        place is returned and nothing is appended. So who does not know whether an append has gone
        well does it again.

        Raises WrongExpectedVersionError, SerializationError, ConfigurationError, TypeError,
        MessageSizeTooLargeError, DiskFullError.
        """
        made = self._codec.made(events)
        index = self._index_of(stream)
        try:
            return self._append_now(index, stream, made, expected_version)
        except WrongEndOffsetError:
            return until_first(self._broker, f"events:{self.name}", partial(
                self._append_now, index, stream, made, expected_version))

    def _append_now(self, index: StreamIndex, stream: str, made: Made,
                    expected: int | StreamState) -> AppendResult:
        with index.lock:
            index.read_on()
            known = index.streams.get(stream)
            if expected != (known.version if known else NO_STREAM):
                earlier = self._earlier(index, stream, known, made, expected)
                if earlier is not None:
                    return earlier
            known = index.append(stream, made.values, made.headers)
            return AppendResult(stream, known.version, index.partition, known.offsets[-1])

    def _earlier(self, index: StreamIndex, stream: str, known: Stream | None, made: Made,
                 expected: int | StreamState) -> AppendResult | None:
        """Where the events are if they are there already; None: they are to be appended."""
        if not isinstance(expected, int | StreamState) or isinstance(expected, bool):
            raise TypeError("expected_version must be an int, NO_STREAM, ANY or EXISTS, not "
                            f"{type(expected).__name__}")
        actual, count, same, after = known.version if known else NO_STREAM, len(made.ids), 0, 0
        if known and count:
            after = expected if isinstance(expected, int) else index.find(known, made.ids[0])
            there = [one.header(CE_ID) for one in index.records(known, after, count)]
            same = sum(map(operator.eq, there, made.ids))
            if same == count:
                return AppendResult(stream, after + count, index.partition,
                                    known.offsets[after + count - known.before - 1])
        if not same and (expected is ANY or (expected is EXISTS and actual)):
            return None
        wanted = expected if isinstance(expected, int) else "one that exists"
        fault = f"{same} of the {count} events are there already, from version {after + 1} on, " \
            "and the others are not" if same else f"the version that was expected is {wanted}"
        raise WrongExpectedVersionError(
            f"the stream {stream!r} is at version {actual}, and {fault}; read what is new, and "
            "decide anew", stream=stream, expected=expected, actual=actual)

    # ---- reading

    def read(self, stream: str, *, after: int | None = None, backwards: bool = False,
             limit: int | None = None) -> Iterator[StoredEvent]:
        """The events of a stream as of now, oldest first; none where there is no stream.

        after: only those behind this version, in the order of reading. limit: so many at most.
        Cost: 0.6 us an event that is looked at, whatever else the store has. Raises
        CorruptRecordError, and DeserializationError where `data` is looked at.
        """
        with (index := self._index_of(stream)).lock:
            index.read_on()
            known = index.streams.get(stream)
            if known is None:
                key_of(stream)
                return iter(())
            if backwards:
                last = known.version if after is None else after - 1
                offsets = known.offsets[:max(last - known.before, 0)][::-1]
            else:
                offsets = known.offsets[max((after or 0) - known.before, 0):]
        return (StoredEvent(index.log.get(one), self._codec.data_of)
                for one in (offsets if limit is None else offsets[:limit]))

    def version(self, stream: str) -> int:
        """The version of its last event, as of now; 0 (NO_STREAM): it has none. Cost: 1 us."""
        with (index := self._index_of(stream)).lock:
            index.read_on()
            known = index.streams.get(stream)
            return known.version if known else NO_STREAM

    def streams(self, prefix: str = "") -> dict[str, int]:
        """The versions of all streams whose names begin so, by name. Cost: 0.2 us a stream that
        there is."""
        found: dict[str, int] = {}
        for index in self._indexes:
            with index.lock:
                index.read_on()
                found.update((name, known.version) for name, known in index.streams.items()
                             if name.startswith(prefix) and known.offsets)
        return dict(sorted(found.items()))

    def fold(self, stream: str, initial: Any, apply: Callable[[Any, StoredEvent], Any]) -> Folded:
        """What the events of a stream come to: state = apply(state, event), from the first on.

        initial: the state before the first event, or a function without arguments that makes it
        (`dict`, `Order`). Returns the state and the version that it is of, to be expected by the
        next append. Raises what apply raises.
        """
        state, version = initial() if callable(initial) else initial, NO_STREAM
        for event in self.read(stream):
            state, version = apply(state, event), event.version
        return Folded(state, version)

    def _index_of(self, stream: str) -> StreamIndex:
        if len(self._indexes) == 1:
            return self._indexes[0]
        return self._indexes[self._broker.partition_of(self.name, key_of(stream))]

    # ---- lifetime

    def close(self) -> None:
        """Closes the broker if it was opened here; idempotent."""
        if self._is_owner:
            self._broker.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<EventStore {self.name!r} of {str(self._broker.path)!r}>"
