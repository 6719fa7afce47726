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
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import repeat
from typing import Any, NamedTuple

from pylog import (
    Broker,
    ConfigurationError,
    Record,
    RecordNotFoundError,
    WrongEndOffsetError,
    WrongExpectedVersionError,
)
from pylog.patterns.event_codec import EventCodec, Made, NewEvent, StoredEvent, Upcast
from pylog.patterns.feed import of_types, starts_behind
from pylog.patterns.headers import CE_ID, STREAM_VERSION
from pylog.patterns.index_runs import IndexRuns
from pylog.patterns.racing import until_first
from pylog.patterns.snapshots import Snapshot, Snapshots, name_of_fold
from pylog.patterns.stream_index import Offsets, Stream, StreamIndex, key_of
from pylog.patterns.tenant import Tenant
from pylog.patterns.values import Codec, codec_of
from pylog.patterns.wildcards import matcher

Apply = Callable[[Any, StoredEvent], Any]
_new_tuple = tuple.__new__    # makes a NamedTuple in half the time


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


class EventStore(Tenant):
    """A store of events, the same in all processes. Safe for threads; a context manager.

    broker: a Broker, or the path of one, which is then closed with the store. name: of the topic;
    it is made if it is not there, and kept for ever. value: what data is, "json" by default, as
    Topic's. events: classes that `@event` declares; what is read of their types has them as data.
    source: who says so, in CloudEvents' words; the name by default. num_partitions: of a topic that
    is made here. A stream is in one, which murmur2 of its name chooses, and events are in order
    within it: with one partition, all of the store. None can be added later: a topic that has got
    some is refused, for its streams would be looked for where they are not.

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
        self._lock = threading.Lock()
        self._snapshots: Snapshots | None = None    # from the first fold with some on
        super().__init__(broker)
        try:
            forever = {"retention.ms": -1}
            entry = self._broker.create_topic(name, num_partitions, forever, exist_ok=True)
            if entry.configs.get("retention.ms") != "-1":
                self._broker.alter_configs(name, forever)
            runs = IndexRuns(self._broker, name)
            noted = runs.load()
            self._indexes = [StreamIndex(self._broker.log(name, number), number, runs, noted)
                             for number in range(entry.partitions)]
            self._only = self._indexes[0] if entry.partitions == 1 else None
            if self._only is None:
                self._check_places()
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
        right behind expected_version, or for ANY and EXISTS anywhere in the stream (which is read
        for that, 0.9 us an event), their place is returned and nothing is appended. So who does not
        know whether an append has gone well does it again as it was; at a version that was read
        anew they are new events.

        Raises WrongExpectedVersionError, SerializationError, ConfigurationError, TypeError,
        MessageSizeTooLargeError, DiskFullError.
        """
        self._check_open()
        made = [self._codec.made(events)] if events.__class__ is NewEvent \
            else self._codec.all_made(events)
        index = self._only or self._index_of(stream)
        try:
            return self._append_now(index, stream, made, expected_version)
        except WrongEndOffsetError:
            return until_first(self._broker, f"events:{self.name}", partial(
                self._append_now, index, stream, made, expected_version))

    def _append_now(self, index: StreamIndex, stream: str, made: list[Made],
                    expected: int | StreamState) -> AppendResult:
        index.lock.acquire()    # `with` would cost twice as much
        try:
            end = index.read_on()
            known = index.streams.get(stream) or index.begin(stream)
            version = known.before + len(known.offsets)
            if expected != version or expected.__class__ is not int:    # True is 1, and 1.0, too
                earlier = self._earlier(index, known, made, expected)
                if earlier is not None:
                    return earlier
            if len(made) == 1:
                value, headers, event_id, _ = made[0]
                offset = index.log.append(
                    value, known.key, [*headers, (CE_ID, event_id),
                                       (STREAM_VERSION, b"%d" % (version + 1))], None, end)
                known.offsets.append(offset)
                index.next = offset + 1
            else:
                offset = index.append_many(known, made)
        finally:
            index.lock.release()
        return _new_tuple(AppendResult, (stream, version + len(made), index.partition, offset))

    def _earlier(self, index: StreamIndex, known: Stream, made: list[Made],
                 expected: int | StreamState) -> AppendResult | None:
        """Where the events are if they are there already; None: they are to be appended."""
        if not isinstance(expected, int | StreamState) or isinstance(expected, bool):
            raise TypeError("expected_version must be an int, NO_STREAM, ANY or EXISTS, not "
                            f"{type(expected).__name__}")
        if isinstance(expected, int) and expected < 0:
            raise ConfigurationError(
                f"expected_version={expected} is no version: use the one that was seen, 0 or "
                "NO_STREAM where there is no event yet, ANY or EXISTS",
                option="expected_version", value=expected)
        stream, actual, count, after, same = known.key.decode(), known.version, len(made), 0, 0
        if all(is_given for *_, is_given in made):
            ids = [event_id for _, _, event_id, _ in made]
            after = expected if isinstance(expected, int) else index.find(known, ids[0])
            there = index.records(known, after, count)
            same = sum(one.header(CE_ID) == two for one, two in zip(there, ids, strict=False))
            if same == count:
                return AppendResult(stream, after + count, index.partition, there[-1].offset)
        if not same and (expected is ANY or expected == actual or (expected is EXISTS and actual)):
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
        Cost: 0.9 us an event that is returned, whatever else the store has. Raises
        ConfigurationError, CorruptRecordError, and DeserializationError where `data` is looked at.
        """
        for option, given in (("after", after), ("limit", limit)):
            if given is not None and (isinstance(given, bool) or not isinstance(given, int)):
                raise TypeError(f"{option} must be an int or None, not {type(given).__name__}")
        if after is not None and after < 0:
            raise ConfigurationError(f"after={after} is no version: use 0 or more, or None for all",
                                     option="after", value=after)
        if limit is not None and limit < 0:
            raise ConfigurationError(f"limit={limit} is no number of events: use 0 or more, or "
                                     "None for all", option="limit", value=limit)
        before, offsets = self._seen(stream)
        if backwards:
            last = before + len(offsets) if after is None else after - 1
            wanted = offsets[:max(last - before, 0)][::-1]
        else:
            wanted = offsets[max((after or 0) - before, 0):]
        return self._stored(stream, wanted if limit is None else wanted[:limit])

    def _seen(self, stream: str) -> tuple[int, Offsets]:
        """How many of its first events were deleted, and the offsets of the others, as of now."""
        with (index := self._index_of(stream)).lock:
            index.read_on()
            known = index.streams.get(stream) or Stream(key_of(stream))
            return known.before, known.offsets[:]

    def _stored(self, stream: str, offsets: Offsets) -> Iterator[StoredEvent]:
        return map(StoredEvent, self._index_of(stream).records_at(offsets),
                   repeat(self._codec.data_of))

    def _index_of(self, stream: str) -> StreamIndex:
        return self._only or self._indexes[
            self._broker.partition_of(self.name, key_of(stream), len(self._indexes))]

    def _check_places(self) -> None:
        """Where partitions were added, a stream may be looked for where it is not, and its versions
        would begin anew."""
        for index in self._indexes:
            with index.lock:
                index.read_on()
                for name in index.streams:
                    if self._index_of(name) is not index:
                        raise ConfigurationError(
                            f"the event store {self.name!r} was made with other partitions than "
                            f"the {len(self._indexes)} that its topic has now: the stream {name!r} "
                            f"is in {index.partition}. Partitions cannot be added to a store; copy "
                            "its events into another", option="num_partitions",
                            value=len(self._indexes))

    def version(self, stream: str) -> int:
        """The version of its last event, as of now; 0 (NO_STREAM): it has none. Cost: 1 us."""
        with (index := self._index_of(stream)).lock:
            index.read_on()
            return (index.streams.get(stream) or Stream(key_of(stream))).version

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

    # ---- folding

    def fold(
        self, stream: str, initial: Any, apply: Apply, *,
        snapshot_every: int = 0, state: Any = "json", fold_name: str | None = None,
        fold_version: int = 1,
    ) -> Folded:
        """What the events of a stream come to: state = apply(state, event), from the first on.
        Returns it and the version that it is of, to be expected by the next append.

        initial: the state before the first event, or a function without arguments that makes it
        (`dict`, `Order`). snapshot_every: keeps the state after so many events, and the next fold,
        in any process, begins there. state: how a snapshot becomes bytes, as `value=`: "json", or
        the type of the state. fold_name: whose snapshots are used; the name of `apply` by default.
        fold_version: to be raised when `apply` changes, lest it go on with states of the old one.

        Cost: 0.9 us an event and the call. Raises what apply raises, SerializationError for a state
        that no snapshot can be of, RecordNotFoundError where events were deleted.
        """
        if not isinstance(snapshot_every, int) or snapshot_every < 0:
            raise ConfigurationError(f"snapshot_every={snapshot_every!r} is no number of events",
                                     option="snapshot_every", value=snapshot_every)
        if not snapshot_every:
            return self._fold(stream, initial, apply, NO_STREAM)
        return self._fold_from_snapshot(stream, initial, apply, snapshot_every, codec_of(state),
                                        name_of_fold(apply, fold_name, fold_version))

    def _fold_from_snapshot(self, stream: str, initial: Any, apply: Apply, every: int,
                            codec: Codec, name: str) -> Folded:
        with self._lock:
            if self._snapshots is None:
                self._snapshots = Snapshots(self._broker, self.name)
        key, begun = key_of(stream), Folded(initial, NO_STREAM)
        found = self._snapshots.latest(key, name, codec)
        if found is not None and found.event_id == self._id_of(stream, found.version):
            begun = Folded(found.state, found.version)
        folded = self._fold(stream, begun.state, apply, begun.version)
        if folded.version - begun.version >= every and \
                (event_id := self._id_of(stream, folded.version)) is not None:
            self._snapshots.save(key, name, codec, Snapshot(*folded, event_id))
        return folded

    def _id_of(self, stream: str, version: int) -> bytes | None:
        """Of the event of this version; None: there is none, or it was deleted."""
        found = list(self.read(stream, after=max(version - 1, 0), limit=1))
        return found[0].header(CE_ID) if found and found[0].version == version else None

    def _fold(self, stream: str, initial: Any, apply: Apply, version: int) -> Folded:
        before, offsets = self._seen(stream)
        if before > version:
            raise RecordNotFoundError(
                f"the events {version + 1} to {before} of {stream!r} were deleted, so what all of "
                "them come to is not known; use read() for those that are left")
        state = initial() if callable(initial) and not version else initial
        for event in self._stored(stream, offsets[version - before:]):
            state = apply(state, event)
        return Folded(state, before + len(offsets))

    # ---- what data is, and was

    def upcast(self, kind: str, version: int) -> Callable[[Upcast], Upcast]:
        """A decorator: function(data) makes data of the next version out of that of `version`.

        Whoever reads an event of this type by the store gets its data as the latest version, by
        one function after the other; what is stored stays. From then on what is appended by the
        name of the type is of the version that the functions lead to; of a declared class, of the
        version that it declares. What it raises is a DeserializationError where `data` is looked
        at. Raises ConfigurationError, TypeError.
        """
        return self._codec.upcast(kind, version)

    # ---- subscribing

    def subscribe(self, *, after: Any = None, types: str | Iterable[str] = "**",
                  follow: bool = True) -> Iterator[StoredEvent]:
        """All events of all streams, in the order of their partition; each one once.

        after: the position behind which it begins: an AppendResult, a StoredEvent or an offset; of
        several partitions a dict {partition: offset}, in which those that are left out begin at the
        beginning; "latest": from now on; None: at the beginning. types: those that are wanted, as
        `Bus.on` takes them. follow: waits for more, for ever; else it ends at what is the end now.

        A log has no holes that are filled later: behind a position that was read nothing comes up.
        To be called by a thread or task of the patterns', with retry and dead letters, subscribe to
        the topic by a Bus. Cost: 0.5 us an event. Raises ConfigurationError, TypeError, ClosedError
        when the broker is closed while it waits.
        """
        matchers = [matcher(one) for one in ([types] if isinstance(types, str) else types)]
        starts = starts_behind(after, [index.log for index in self._indexes])
        records = self._broker.read(self.name, starts, follow=follow)
        return (StoredEvent(one, self._codec.data_of) for one in of_types(records, matchers)
                if one.header(STREAM_VERSION) is not None)

    def event(self, record: Record) -> StoredEvent:
        """The event that a record of its topic is, however it was read."""
        return StoredEvent(record, self._codec.data_of)

    @property
    def broker(self) -> Broker:
        """The broker that it is a topic of."""
        return self._broker

    def __repr__(self) -> str:
        return f"<EventStore {self.name!r} of {str(self._broker.path)!r}>"
