"""pylog.ShareConsumer: takes records of topics, which no other of its group gets, to settle each.

Kafka's share groups (KIP-932): what a queue is, under Kafka's words. The hot calls are native
(`_native.Shares`, `Leases`).
"""

import contextlib
import enum
import os
import threading
from collections.abc import Callable, Iterable
from typing import Any, Literal, Self

from pylog import _native
from pylog._native import Delivery, Leases
from pylog.broker import Broker
from pylog.errors import (
    ClosedError,
    IllegalStateError,
    InvalidRecordStateError,
    UnknownTopicOrPartitionError,
)
from pylog.group import check_group_id
from pylog.kafka_options import takes_options
from pylog.options import at_least, one_of, seconds
from pylog.serde import make_deserializer, typed_record
from pylog.share import open_leases
from pylog.subscription_state import make_subscription
from pylog.topic import TopicPartition

OnReject = Callable[[Delivery, object], object]


class AcknowledgeType(enum.Enum):
    """What becomes of a record: done; given back; never to be tried again; kept for longer."""

    ACCEPT = 1
    RELEASE = 2
    REJECT = 3
    RENEW = 4


class ShareSubscriber(_native.Shares):
    """What a share consumer takes, whether it waits in a thread or in an event loop.

    broker: a Broker, or the path of one. topics: to subscribe to. group_id: of the share group,
    which begins at the start of a topic, or with auto_offset_reset="latest" at its end, and then
    remembers. acknowledgement_mode: "implicit": asking for the next accepts the ones before;
    "explicit": each is settled by its `ack`, `release`, `reject`, or `acknowledge`. lock_ms: how
    long one is kept for who took it. max_deliveries: how often one is given out before it is
    rejected. ordered_by_key: a record waits until those of its key before it are done; None: as
    the group was made, which is not, if it is new. keeps_records: retention spares what is not
    done. accepts: asked of each record that has headers; what it settles itself, and says False to,
    is not delivered. backoff: how many seconds
    a failed one is kept back, after so many deliveries. on_reject: called with a delivery and the
    reason before it is rejected: the place of a dead letter. on_displaced: called with a delivery
    that was given back with a delay, and when it is due (ms since the epoch), where it keeps all
    others waiting: it remembers it elsewhere, then it is done here.
    """

    def __init__(
        self,
        broker: Broker | str | os.PathLike[str],
        *topics: str,
        group_id: str,
        acknowledgement_mode: Literal["implicit", "explicit"] = "implicit",
        lock_ms: int = 30_000,
        max_deliveries: int = 5,
        max_poll_records: int = 500,
        auto_offset_reset: Literal["earliest", "latest"] = "earliest",
        ordered_by_key: bool | None = None,
        keeps_records: bool = False,
        key_deserializer: Any = None,
        value_deserializer: Any = None,
        accepts: Callable[[Delivery], bool] | None = None,
        backoff: Callable[[int], float] | None = None,
        on_reject: OnReject | None = None,
        on_displaced: Callable[[Delivery, int], object] | None = None,
    ) -> None:
        one_of("acknowledgement_mode", acknowledgement_mode, ("implicit", "explicit"))
        one_of("auto_offset_reset", auto_offset_reset, ("earliest", "latest"))
        self.group_id = check_group_id(group_id)
        self.lock_ms = at_least("lock_ms", lock_ms, 10)
        self.max_deliveries = at_least("max_deliveries", max_deliveries, 1)
        self._is_implicit = acknowledgement_mode == "implicit"
        self._max_poll_records = at_least("max_poll_records", max_poll_records, 1)
        self._starts_at_end = auto_offset_reset == "latest"
        self._ordered, self._keeps_records = ordered_by_key, bool(keeps_records)
        self._asked_accepts, self._backoff = accepts, backoff
        self._on_reject, self._on_displaced = on_reject, on_displaced
        key = make_deserializer(key_deserializer, "key_deserializer")
        value = make_deserializer(value_deserializer, "value_deserializer")
        self._configure(self.lock_ms, self.max_deliveries, accepts is not None,
                        None if key is None and value is None
                        else lambda record: typed_record(record, key, value))
        self._topics: frozenset[str] = frozenset()
        self._refreshing = threading.Lock()
        self._topics_seen = -1
        self._by_partition: dict[TopicPartition, Leases] = {}
        self._synced: dict[TopicPartition, int] = {}    # what was settled when it was last synced
        self._in_hand: list[Delivery] = []
        self._broker, self._owns_broker = Broker.of(broker)
        self._broker.dependents.add(self)
        self._broker.share_consumers.add(self)
        try:
            self._broker.processes.join()
            if topics:
                self.subscribe(topics)
        except BaseException:
            self._finish()
            raise

    # ---- what is taken from

    def subscribe(self, topics: Iterable[str]) -> None:
        """Takes records of these topics from now on, instead of those before."""
        wanted = make_subscription(topics, None, None)
        for topic in wanted.names:
            self._broker.topic(topic)
        self._topics = frozenset(wanted.names)
        self._refresh()

    def subscription(self) -> set[str]:
        """The topics."""
        return set(self._topics)

    def unsubscribe(self) -> None:
        """Takes from no topic any more. What is in hand stays so."""
        self._topics = frozenset()
        self._refresh()

    def _refresh(self) -> None:
        with self._refreshing:    # several threads may take, and each looks
            self._use_what_there_is()

    def _use_what_there_is(self) -> None:
        self._topics_seen = self._broker.doorbells.topics
        known = self._broker.topics()
        wanted = [TopicPartition(topic, number) for topic in sorted(self._topics)
                  for number in range(known[topic].partitions if topic in known else 0)]
        gone = set(self._by_partition) - set(wanted)
        for partition in wanted:
            if partition not in self._by_partition:
                self._by_partition[partition] = self._open(partition)
        self._use([self._by_partition[partition] for partition in wanted])
        for partition in gone:
            self._by_partition.pop(partition).close()

    def _open(self, partition: TopicPartition) -> Leases:
        log = self._broker.log(*partition)
        start = log.end_offset if self._starts_at_end else log.start_offset
        return open_leases(self._broker.path, self.group_id, partition, log,
                           self._broker.processes, start, self._ordered, self._keeps_records,
                           self._on_displaced is not None)

    def _turn(self) -> None:
        if self._topics_seen != self._broker.doorbells.topics:
            self._refresh()

    # ---- what becomes of a delivery

    def acknowledge(
        self, delivery: Delivery, type: AcknowledgeType = AcknowledgeType.ACCEPT,  # noqa: A002
    ) -> None:
        """Settles one. Raises InvalidRecordStateError when its time was over."""
        if type is AcknowledgeType.ACCEPT:
            delivery.ack()
        elif type is AcknowledgeType.RELEASE:
            self._nack(delivery, None, None)
        elif type is AcknowledgeType.REJECT:
            self._reject(delivery, None)
        elif type is AcknowledgeType.RENEW:
            delivery.extend(self.lock_ms / 1000)
        else:
            raise TypeError(f"type must be an AcknowledgeType, not {type!r}")

    def renew(self, delivery: Delivery, lock_ms: int | None = None) -> None:
        """Keeps it for so long, from now on (KIP-1222)."""
        delivery.extend((self.lock_ms if lock_ms is None else lock_ms) / 1000)

    def _accepts(self, delivery: Delivery) -> bool:
        return self._asked_accepts is None or self._asked_accepts(delivery)

    def _nack(self, delivery: Delivery, delay: float | None, reason: object) -> None:
        if delivery.delivery_count >= self.max_deliveries:
            self._reject(delivery, reason)
        elif delay is not None:
            delivery.release(delay)
        else:
            delivery.release(self._backoff(delivery.delivery_count) if self._backoff else 0)

    def _reject(self, delivery: Delivery, reason: object) -> None:
        if self._on_reject is not None:
            delivery.extend(self.lock_ms / 1000)    # raises for one that is not ours any more
            self._on_reject(delivery, reason)    # first: a kill in between repeats, and loses not
        delivery._discard()

    def _displace(self, delivery: Delivery, due_ms: int) -> None:
        if self._on_displaced is not None:
            self._on_displaced(delivery, due_ms)
        delivery.ack()

    def _give_up(self, delivery: Delivery) -> None:
        """It was delivered often enough, and nobody settled it."""
        self._reject(delivery, f"delivered {delivery.delivery_count} times, and never settled: "
                               "whoever had it died, or took longer than its lock")

    # ---- the rest

    def _nothing_to_take(self) -> Exception:
        if self._topics:
            return UnknownTopicOrPartitionError(
                f"there is no topic {', '.join(map(repr, sorted(self._topics)))} any more; create "
                "it anew, or subscribe to another", topic=min(self._topics))
        return IllegalStateError("nothing is subscribed; call subscribe(topics) first")

    def _ready_for_poll(self) -> None:
        if not self._topics:
            raise self._nothing_to_take()
        self._turn()
        in_hand, self._in_hand = self._in_hand, []
        for delivery in in_hand:
            if not delivery.held:    # settled, or another may have it
                continue
            if not self._is_implicit:
                self._in_hand = in_hand
                raise IllegalStateError(
                    f"offset {delivery.offset} of {delivery.topic!r} is not acknowledged; "
                    "acknowledge all of a poll before the next, or use "
                    "acknowledgement_mode='implicit'")
            with contextlib.suppress(InvalidRecordStateError):    # over at this moment
                delivery.ack()

    def stats(self) -> dict[TopicPartition, dict[str, int]]:
        """Of each partition: what the group has in hand and has done, in numbers, and its `lag`:
        how many records are not done, deleted ones counted."""
        found = {}
        for partition, leases in self._by_partition.items():
            counts = leases.stats()
            end = self._broker.log(*partition).end_offset
            waiting = max(0, end - counts["next"])
            counts["lag"] = waiting + sum(counts[one] for one in
                                          ("ready", "held", "delayed", "behind"))
            found[partition] = counts
        return found

    def _sync(self, timeout_ms: float | None) -> dict[TopicPartition, None]:
        seconds(timeout_ms)
        for leases in self._by_partition.values():
            leases.sync()
        return dict.fromkeys(self._by_partition)

    def _sync_if_changed(self) -> None:
        """What the maintainer does each second."""
        for partition, leases in list(self._by_partition.items()):
            with contextlib.suppress(ClosedError, UnknownTopicOrPartitionError):
                settled = leases.settled
                if self._synced.get(partition) != settled:
                    leases.sync()
                    self._synced[partition] = settled

    def _finish(self) -> None:
        """Gives back what is in hand of a poll, closes all."""
        if self.closed:
            return
        for delivery in self._in_hand:
            if delivery.held:
                with contextlib.suppress(InvalidRecordStateError):
                    delivery.release(count=False)
        self._in_hand = []
        if self._broker.durability != "os":    # nobody else may be there to do it
            self._sync_if_changed()
        self._shut()
        if self._owns_broker:
            self._broker.close()

    def _close_with_broker(self) -> None:
        self._owns_broker = False
        self._finish()

    def __repr__(self) -> str:
        return (f"<{type(self).__name__} of group {self.group_id!r} on {sorted(self._topics)}"
                f"{', closed' if self.closed else ''}>")


@takes_options("ShareConsumer", ShareSubscriber)
class ShareConsumer(ShareSubscriber):
    """Takes records, each for itself alone, from topics that any number of consumers of the group
    work off: more than there are partitions, and whoever is idle gets the next. A context manager,
    safe for threads where each settles what it took.

    Guarantee: at least once. A record that somebody has is nobody else's until it is given back,
    its time is over, or the process dies: then another gets it within 200 ms of the death. What is
    acknowledged is delivered no more, whoever is killed; after a power cut, what was not synced may
    be: by `commit_sync`, or each second if the broker is "interval" or "fsync". No more than 65,536
    records are in hand behind the first that is not done; then a group waits for that one (unless
    it is delayed, and `on_displaced` takes it).

    Cost: 0.2 us a record in lists, an ack 40 ns. Source: KIP-932, KIP-1222.

        >>> import tempfile
        >>> from pylog.broker import Broker
        >>> broker = Broker(tempfile.mkdtemp(dir="."))
        >>> broker.append("jobs", b"resize 17").offset
        0
        >>> with ShareConsumer(broker, "jobs", group_id="workers",
        ...                    acknowledgement_mode="explicit") as consumer:
        ...     for delivery in consumer.poll(timeout_ms=1000):
        ...         print(delivery.value, delivery.delivery_count)
        ...         delivery.ack()
        b'resize 17' 1
        >>> broker.close()
    """

    def poll(
        self, timeout_ms: float | None = 0, max_records: int | None = None
    ) -> list[Delivery]:
        """Up to max_records deliveries, as soon as there are some; [] after timeout_ms; None waits
        without end. What the poll before returned is accepted, in "implicit" mode."""
        most = self._max_poll_records if max_records is None \
            else at_least("max_records", max_records, 1)
        timeout = seconds(timeout_ms)
        self._ready_for_poll()
        self._in_hand = self._take(most, timeout)
        return list(self._in_hand)

    def take(self, timeout: float | None = None) -> Delivery | None:
        """The next record, to be settled by the caller, in either mode; None after `timeout`
        seconds. For several threads at once."""
        return self._take_one(timeout)

    def commit_sync(self, timeout_ms: float | None = None) -> dict[TopicPartition, None]:
        """What was settled is on disk when it returns: a power cut does not bring it back. A kill
        does not in any case."""
        return self._sync(timeout_ms)

    def close(self) -> None:
        """What is in hand of a poll is given back. Idempotent."""
        self._finish()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
