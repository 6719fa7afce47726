"""Which partitions a consumer reads, alone or as a member of a group, and what it commits.

What is decided between records: where reading starts, which partitions there are, what is committed
when. The records themselves are native (`_native.Fetcher`).
"""

import logging
import os
import re
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

from pylog.broker import Broker
from pylog.errors import (
    ConfigurationError,
    GroupError,
    IllegalStateError,
    NoOffsetForPartitionError,
    OffsetOutOfRangeError,
    PylogError,
)
from pylog.group import check_group_id, note
from pylog.log import Log
from pylog.membership import Membership
from pylog.options import at_least, is_true, one_of
from pylog.positions import Positions
from pylog.serde import make_deserializer, typed_record
from pylog.subscription_state import SubscriptionState, make_subscription
from pylog.topic import (
    ConsumerGroupMetadata,
    OffsetAndMetadata,
    TopicPartition,
    by_partition,
    take_offset,
    take_partition,
    take_partitions,
)

logger = logging.getLogger("pylog")

Reset = Literal["earliest", "latest", "none"]
Offsets = Mapping[TopicPartition, OffsetAndMetadata | int]

RESETS = ("earliest", "latest", "none")
LOOK_SECONDS = 10.0    # topics are told of when they change, unless who changed them was killed


class Subscriber(Positions):
    """What a consumer reads and commits, whether it waits in a thread or in an event loop.

    broker: a Broker, or the path of one, which is then opened and closed with the consumer. topics:
    to subscribe to. auto_offset_reset: where to start a partition for which nothing was committed,
    and where to go on when what was next is gone: "earliest", "latest", or "none" (raise).
    consumer_timeout_ms: ends an iteration when nothing came for so long. max_poll_records: what a
    `poll` returns at most. on_corruption: "skip" steps over damage. key_deserializer,
    value_deserializer: "str", "json", a callable or an object (see `pylog.serde`).

    group_id: of the group that shares the partitions and keeps what was committed; None: all are
    read, and nothing is committed. client_id: what the group's description calls this member.
    enable_auto_commit, auto_commit_interval_ms: commits what is finished, so often and at the end.
    partition_assignment_strategy: "cooperative-sticky", "range", "roundrobin" or "sticky", the same
    for all members. group_instance_id: makes it a static member, whose partitions wait for it when
    it is away. session_timeout_ms: how long its process may be stopped before it is taken for dead;
    None: for ever.
    """

    _handling: Any = None    # of a `run`: what is finished is what it has handled

    def __init__(
        self,
        broker: Broker | str | os.PathLike[str],
        *topics: str,
        group_id: str | None = None,
        client_id: str = "pylog",
        auto_offset_reset: Reset = "earliest",
        enable_auto_commit: bool = True,
        auto_commit_interval_ms: int = 5000,
        partition_assignment_strategy: str = "cooperative-sticky",
        group_instance_id: str | None = None,
        session_timeout_ms: int | None = None,
        max_poll_records: int = 500,
        consumer_timeout_ms: float | None = None,
        on_corruption: Literal["raise", "skip"] = "raise",
        key_deserializer: Any = None,
        value_deserializer: Any = None,
    ) -> None:
        one_of("auto_offset_reset", auto_offset_reset, RESETS)
        one_of("on_corruption", on_corruption, ("raise", "skip"))
        self.client_id = client_id
        self._reset_to = auto_offset_reset
        self._max_poll_records = at_least("max_poll_records", max_poll_records, 1)
        self._commit_seconds = at_least(
            "auto_commit_interval_ms", auto_commit_interval_ms, 1) / 1000
        self._does_commit = is_true("enable_auto_commit", enable_auto_commit)
        self._commit_at = time.monotonic() + self._commit_seconds
        self._group: Membership | None = None
        self._subscription: SubscriptionState | None = None
        self._topics_seen = -1    # the doorbells' word, when all that is subscribed to was there
        key = make_deserializer(key_deserializer, "key_deserializer")
        value = make_deserializer(value_deserializer, "value_deserializer")
        self._configure(
            None if key is None and value is None
            else lambda record: typed_record(record, key, value),
            -1 if consumer_timeout_ms is None
            else at_least("consumer_timeout_ms", consumer_timeout_ms, 0),
            on_corruption == "skip")
        self._broker, self._owns_broker = Broker.of(broker)
        self._broker.dependents.add(self)
        self._watch(self._broker.doorbells.word())
        try:
            if group_id is not None:
                self._group = Membership(
                    self._broker, check_group_id(group_id), partition_assignment_strategy,
                    client_id, group_instance_id,
                    None if session_timeout_ms is None
                    else at_least("session_timeout_ms", session_timeout_ms, 10))
                self._use_group(self._group.table, self._group.group.writes_through)
                self._be_member(0, self._group.seen)
            elif group_instance_id is not None:
                raise ConfigurationError("group_instance_id needs a group: pass group_id too",
                                         option="group_instance_id", value=group_instance_id)
            if topics:
                self.subscribe(topics)
        except BaseException:
            self._finish(False)
            raise

    # ---- what is read

    def subscribe(
        self, topics: Iterable[str] = (), pattern: str | re.Pattern[str] | None = None,
        listener: Any = None,
    ) -> None:
        """Reads all partitions of topics, named or matched by a regular expression from their
        beginning on (`re.match`), instead of those subscribed to before.

        listener: an object with `on_partitions_assigned(partitions)`, `on_partitions_revoked` and
        `on_partitions_lost`, or some of them. Raises IllegalStateError after `assign`,
        UnknownTopicOrPartitionError where topics are not created by being used.
        """
        self._check_usable()
        wanted = make_subscription(topics, pattern, listener)
        if self._subscription is None and self._partitions():
            raise IllegalStateError("partitions were assigned by hand: unsubscribe() first")
        if not wanted.names and wanted.pattern is None:
            return self.unsubscribe()
        wanted.make_topics(self._broker)
        present = wanted.partitions(self._broker)
        self._subscription = wanted
        if self._group is not None:
            self._group.subscribe(wanted)
        else:
            for partition in self._partitions():
                if not wanted.matches(partition.topic):
                    self._drop([partition])
            self._take_in(present, self._reset_to)
        self._look_soon()
        return None

    def unsubscribe(self) -> None:
        """Reads nothing any more, until the next `subscribe` or `assign`."""
        self._check_usable()
        self._leave(self._does_commit)
        self._look_soon()

    def _leave(self, autocommit: bool) -> None:
        """Lets go of all partitions, and of the group."""
        partitions = self._partitions()
        try:
            if autocommit and partitions:
                self._commit_finished()
            if self._subscription is not None:
                self._subscription.tell("revoked", partitions)
        finally:
            self._subscription = None
            self._drop(partitions)
            if self._group is not None:
                self._group.leave()
                self._be_member(0, self._group.seen)

    def subscription(self) -> set[str]:
        """The topics subscribed to; of a pattern, those that it matches now."""
        self._check_usable()
        if self._subscription is None:
            return set()
        return set(self._subscription.names) | {one.topic for one in self._partitions()}

    def assign(self, partitions: Iterable[TopicPartition]) -> None:
        """Reads these partitions, instead of those assigned before, whose positions stay.

        Raises IllegalStateError after `subscribe`, UnknownTopicOrPartitionError.
        """
        self._check_usable()
        wanted = take_partitions(partitions)
        if self._subscription is not None:
            raise IllegalStateError("the consumer has subscribed to topics: unsubscribe() first")
        logs = {one: self._broker.log(*one) for one in wanted}
        self._drop(sorted(set(self._partitions()).difference(wanted)))
        for partition in wanted:
            if partition not in self._partitions():
                self._add(partition, logs[partition], self._first_offset(partition, self._reset_to))
        self._look_soon()

    def assignment(self) -> set[TopicPartition]:
        """The partitions that are read now."""
        self._check_usable()
        return set(self._partitions())

    def _take_in(self, partitions: list[TopicPartition], start: Reset) -> None:
        """Reads those that it does not read yet."""
        known = set(self._partitions())
        new = [partition for partition in partitions if partition not in known]
        places = [(partition, self._broker.log(*partition), self._first_offset(partition, start))
                  for partition in new]    # what raises, raises before any is read
        for place in places:
            self._add(*place)
        if self._subscription is not None:
            self._subscription.tell("assigned", new)

    def _first_offset(self, partition: TopicPartition, start: Reset) -> int | None:
        """Where reading starts; None: nowhere, until somebody seeks."""
        committed = None if self._group is None else self._group.committed(partition)
        if committed is not None:
            end = self._broker.log(*partition).end_offset
            if committed.offset <= end:
                return committed.offset
            # A restored backup, say: what comes next must not be taken for what was read before.
            logger.warning("%s-%d ends at %d, and the group %r has committed %d: the log has lost "
                           "records; reading goes on at auto_offset_reset=%r",
                           *partition, end, self._group and self._group.group.id,
                           committed.offset, start)
        return None if start == "none" else self._broker.log(*partition).resolve(start)

    # ---- groups

    def _commit(self, offsets: Offsets | None) -> None:
        group = self._group
        if group is None or self.closed:
            group = self._needs_group("commit")
        if offsets is None and self._handling is not None:    # what it has read is not finished
            self._handling.finish_own()
            offsets = self._handling.finished()
        try:
            self._commit_as(group, offsets)
        except GroupError:
            self._look_soon()    # so that who was removed is a member again before it reads on
            raise

    def _commit_as(self, group: Membership, offsets: Offsets | None) -> None:
        if offsets is None:
            if (refused := self._commit_lanes(True)) is not None:
                self._commit_again(group, refused, True)
            elif group.group.writes_through:
                group.table.sync()
            return
        given = by_partition(offsets, "17")
        logs = {one: self._any_log(one) for one in given}
        # Of these logs: those of the same names may be others when it comes to the commit.
        incarnations = {one: log.incarnation for one, log in logs.items()}
        chosen = {one: self._committable(one, wanted, logs[one]) for one, wanted in given.items()}
        notes = {one: note(one, wanted.metadata) for one, wanted in chosen.items()}
        left = {one: wanted for one, wanted in chosen.items() if not self._commit_lane(
            one, wanted.offset, notes[one], wanted.leader_epoch)}
        if left:
            group.commit(left, incarnations)
            self._be_member(group.number, group.seen)
            for one, wanted in left.items():
                self._note_commit(one, wanted.offset)
        elif group.group.writes_through:
            group.table.sync()

    def commit_async(
        self, offsets: Offsets | None = None,
        callback: Callable[[Offsets | None, Exception | None], None] | None = None,
    ) -> None:
        """As `commit`, and calls callback(offsets, error), error None when it went well.

        A commit takes less time than a thread would, so it is done when this returns; but for an
        "fsync" broker, whose commits wait for the disk here too. A consumer that is closed or has
        no group raises, as in `commit`: that is a mistake, and no commit that failed.
        """
        self._needs_group("commit_async")
        try:
            self._commit(offsets)
        except PylogError as error:
            if callback is None:
                logger.warning("commit_async: %s", error)
            else:
                callback(offsets, error)
        else:
            if callback is not None:
                callback(offsets, None)

    def _commit_at_once(self, partition: TopicPartition, offset: int) -> bool:
        """From a handler's thread; False: the thread that reads is to do it, as there is a new
        generation, or the disk to wait for."""
        group = self._group
        return group is not None and not group.group.writes_through and bool(
            self._commit_lane(partition, offset, b"", -1))

    def _commit_again(
        self, group: Membership, refused: list[TopicPartition] | None, with_hand: bool
    ) -> None:
        """After a change of the generation, or a refusal."""
        while refused is not None:
            if refused:
                raise group.refusal(refused)
            group.see_generation()
            self._be_member(group.number, group.seen)
            refused = self._commit_lanes(with_hand)
        if group.group.writes_through:
            group.table.sync()

    def committed(self, partition: TopicPartition, metadata: bool = False) -> Any:
        """The offset that the group has committed, with `metadata` as an OffsetAndMetadata; None
        where there is none. The partition need not be assigned.

        Raises UnknownTopicOrPartitionError.
        """
        group, chosen = self._needs_group("committed"), take_partition(partition)
        self._any_log(chosen)    # a topic is not made by being asked for
        found = group.committed(chosen)
        if found is None or not metadata:
            return found and found.offset
        return OffsetAndMetadata(found.offset, found.metadata, found.leader_epoch)

    def seek_to_committed(self, *partitions: TopicPartition) -> None:
        """Goes back to what was committed, of these partitions or of all; where nothing was, to
        where `auto_offset_reset` says. Raises NoOffsetForPartitionError."""
        self._needs_group("seek_to_committed")
        for partition in self._chosen(partitions):
            self._go(partition, self._start(partition))

    def _go(self, partition: TopicPartition, offset: int) -> None:
        self._log(partition)    # raises where it is not assigned
        self._forget([partition])
        self._seek(partition, offset)

    def group_metadata(self) -> ConsumerGroupMetadata:
        """Who this consumer is in its group; generation and member are -1 and "" outside."""
        group = self._needs_group("group_metadata")
        return ConsumerGroupMetadata(
            group.group.id, group.generation if group.number else -1,
            str(group.number) if group.number else "", group.instance_id)

    def _committable(self, name: TopicPartition, given: Any, log: Log) -> OffsetAndMetadata:
        wanted = take_offset(given)
        end = log.end_offset
        if not 0 <= wanted.offset <= end:
            raise OffsetOutOfRangeError(
                f"offset {wanted.offset} of {name.topic}-{name.partition} lies outside [0, {end}]: "
                "commit that of the record to be read next", offset=wanted.offset,
                start_offset=0, end_offset=end)
        return wanted

    def _needs_group(self, verb: str) -> Membership:
        self._check_usable()
        if self._group is None:
            raise IllegalStateError(
                f"{verb}() needs a group, for offsets are committed for one: make the consumer "
                "with group_id='...'; without one, keep position() yourself and seek() to it")
        return self._group

    # ---- what the native half asks

    def _turn(self) -> int:
        """Between two records, now and then. Returns after how many ms at the latest it is due."""
        if self._subscription is None and not self._partitions():
            raise IllegalStateError(
                "there is nothing to read: subscribe() or assign() first, or name topics behind "
                f"the broker, which is {str(self._broker.path)!r}")
        now = time.monotonic()
        due = [LOOK_SECONDS]
        if self._group is not None:
            if self._subscription is not None:
                self._miss_deleted(self._subscription)
                self._keep_up(self._group)
            due.append(self._group.look_seconds)
        elif self._subscription is not None:
            self._take_in(self._subscription.partitions(self._broker), "earliest")
        if self._group is not None and self._does_commit:
            if now >= self._commit_at:
                self._commit_at = now + self._commit_seconds
                self._commit_finished()
            due.append(self._commit_at - now)
        return max(1, int(min(due) * 1000))

    def _miss_deleted(self, subscription: SubscriptionState) -> None:
        """A group goes on without a topic that is gone; its readers are told."""
        if self._topics_seen != (seen := self._broker.doorbells.topics):
            subscription.partitions(self._broker)
            self._topics_seen = seen

    def _keep_up(self, group: Membership) -> None:
        try:
            group.sync(self)
            if missed := group.owned.difference(self._partitions()):    # the taking in had raised
                self._assigned(sorted(missed))
        finally:
            self._be_member(group.number, group.seen)

    def _commit_finished(self) -> None:
        """What is not ours any more is another's to finish."""
        if self._group is None:
            return
        try:
            if self._handling is not None:
                self._handling.commit()
            elif (refused := self._commit_lanes(False)) is not None:
                self._commit_again(self._group, refused, False)
            elif self._group.group.writes_through:
                self._group.table.sync()
        except GroupError as error:
            logger.info("commit of what is finished: %s", error)

    def _start(self, partition: TopicPartition) -> int:
        offset = self._first_offset(partition, self._reset_to)
        if offset is None:
            raise NoOffsetForPartitionError(
                f"nobody has said where to read {partition.topic}-{partition.partition}: seek() "
                "first, or pass auto_offset_reset='earliest' or 'latest'", topic=partition.topic,
                partition=partition.partition)
        return offset

    def _reset(self, partition: TopicPartition, error: OffsetOutOfRangeError) -> int:
        """What was next is gone, by retention or with a copy of the files."""
        if self._reset_to == "none":
            raise error
        offset = self._log(partition).resolve(self._reset_to)
        logger.warning("%s-%d goes on at offset %d (auto_offset_reset=%r): %s",
                       *partition, offset, self._reset_to, error)
        return int(offset)

    def _not_assigned(self, partition: Any) -> Exception:
        take_partition(partition)
        return IllegalStateError(f"{partition} is not assigned to this consumer: it reads "
                                 f"{sorted(self._partitions()) or 'nothing'}")

    # ---- what the group tells

    def _assigned(self, partitions: list[TopicPartition]) -> None:
        self._take_in(partitions, self._reset_to)

    def _revoked(self, partitions: list[TopicPartition]) -> set[TopicPartition]:
        if self._group is not None:
            self._be_member(self._group.number, self._group.seen)
        kept: set[TopicPartition] = set()
        try:
            if self._handling is not None:
                kept = self._handling.let_go(partitions)
            try:
                if self._does_commit:
                    self._commit_finished()
            finally:
                self._tell("revoked", [one for one in partitions if one not in kept])
        except BaseException:
            kept = set()    # the group lets go of them all
            raise
        finally:
            self._drop([one for one in partitions if one not in kept])
        return kept

    def _lost(self, partitions: list[TopicPartition]) -> None:
        try:
            self._tell("lost", partitions)
        finally:
            self._drop(partitions)

    def _tell(self, what: str, partitions: list[TopicPartition]) -> None:
        if self._subscription is not None:
            self._subscription.tell(what, partitions)

    def _drop(self, partitions: list[TopicPartition]) -> None:
        self._forget(partitions)
        for partition in partitions:
            self._remove(partition)

    def _forget(self, partitions: list[TopicPartition]) -> None:
        """What a run has read of them and not handled."""
        if self._handling is not None:
            self._handling.let_go(partitions)
            self._handling.forget(partitions)

    # ---- figures, lifetime

    def _most(self, max_records: int | None) -> int:
        """What a poll returns."""
        return self._max_poll_records if max_records is None else at_least(
            "max_records", max_records, 1)

    def metrics(self) -> dict[str, dict[str, float]]:
        """Counters and gauges, by Kafka's names where it has them."""
        records, damage = self._counted()
        lags = [self.lag(one) for one in self._partitions() if self._place(one) is not None]
        return {
            "consumer-fetch-manager-metrics": {
                "records-consumed-total": records,
                "records-lag-max": max(lags, default=0),
                "damage-skipped-total": damage,
            },
            "consumer-coordinator-metrics": {"assigned-partitions": len(self._partitions())},
        }

    def _close_with_broker(self) -> None:
        self._finish(True)

    def _finish(self, autocommit: bool) -> None:
        if self.closed:
            return
        self._check_alone()
        try:
            if self._group is not None:
                self._leave(autocommit and self._does_commit)
        finally:
            self._forget(self._partitions())
            self._shut()
            if self._owns_broker:
                self._broker.close()

    def __repr__(self) -> str:
        state = "closed" if self.closed else f"{len(self._partitions())} partitions"
        return f"<{type(self).__name__} of {str(self._broker.path)!r}, {state}>"
