"""Where a consumer stands, where it may go, and what there is to read.

The half of `Consumer` that knows nothing of groups and of what is committed.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, SupportsIndex

from pylog import _native
from pylog.broker import Broker
from pylog.errors import ConfigurationError, UnknownTopicOrPartitionError
from pylog.log import Log
from pylog.topic import (
    OffsetAndTimestamp,
    TopicPartition,
    by_partition,
    closest,
    take_partition,
    take_partitions,
)


class Positions(_native.Fetcher):
    """The native reader of many partitions, with names for where it is.

    Every call raises ClosedError, IllegalStateError (after a fork, or for a partition that is not
    assigned) and ConcurrentModificationError.
    """

    _broker: Broker

    def _start(self, partition: TopicPartition) -> int:
        """Where reading starts, of a partition that nobody has been in."""
        raise NotImplementedError

    def position(self, partition: TopicPartition) -> int:
        """Offset of the record that comes next. Raises NoOffsetForPartitionError."""
        self._check_usable()
        place = self._place(partition)
        return self._start(partition) if place is None else place

    def seek(self, partition: TopicPartition, offset: SupportsIndex) -> None:
        """Goes on at `offset`; that it exists is checked by the next read.

        What is in hand of the partition counts as finished: the caller has decided.
        """
        self._check_usable()
        wanted = _native.to_int(offset, "an offset")
        if wanted < 0:
            raise ConfigurationError(f"offset={wanted} is negative; seek_to_end() goes to the end",
                                     option="offset", value=wanted)
        self._go(take_partition(partition), wanted)

    def seek_to_beginning(self, *partitions: TopicPartition) -> None:
        """Goes to the first record that is kept, of these partitions or of all."""
        for partition in self._chosen(partitions):
            self._go(partition, self._log(partition).start_offset)

    def seek_to_end(self, *partitions: TopicPartition) -> None:
        """Goes behind what can be read now, of these partitions or of all."""
        for partition in self._chosen(partitions):
            self._go(partition, self._log(partition).readable_offset)

    def seek_to_timestamp(
        self, timestamp: SupportsIndex | datetime, *partitions: TopicPartition
    ) -> None:
        """Goes to the first record at or after a moment, of these partitions or of all; behind the
        last where there is none. timestamp: ms since the epoch, or an aware datetime."""
        chosen = self._chosen(partitions)
        found = {one: self._log(one).offset_for_time(timestamp) for one in chosen}
        for partition, offset in found.items():
            end = self._log(partition).readable_offset
            self._go(partition, end if offset is None else offset)

    def _go(self, partition: TopicPartition, offset: int) -> None:
        """Where the user wants to be."""
        self._seek(partition, offset)

    def pause(self, *partitions: TopicPartition) -> None:
        """Returns no records of these partitions until `resume`."""
        for partition in self._named(partitions):
            self._pause(partition, True)

    def resume(self, *partitions: TopicPartition) -> None:
        """Returns records of these partitions again."""
        for partition in self._named(partitions):
            self._pause(partition, False)

    def paused(self) -> set[TopicPartition]:
        """The partitions that are paused."""
        self._check_usable()
        return set(self._paused())

    def _named(self, partitions: tuple[Any, ...]) -> list[TopicPartition]:
        self._check_usable()
        chosen = [take_partition(one) for one in partitions]
        for partition in chosen:
            self._log(partition)    # raises where it is not assigned
        return chosen

    def _chosen(self, partitions: tuple[Any, ...]) -> list[TopicPartition]:
        return self._named(partitions) or self._partitions()

    # ---- what there is

    def topics(self) -> set[str]:
        """The names of all topics of the broker."""
        self._check_usable()
        return set(self._broker.topics())

    def partitions_for_topic(self, topic: str) -> set[int] | None:
        """The numbers of a topic's partitions; None: there is no such topic."""
        self._check_usable()
        entry = self._broker.topics().get(topic)
        return None if entry is None else set(range(entry.partitions))

    def beginning_offsets(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """Offset of the first record that is kept, of each; they need not be assigned."""
        return {one: self._any_log(one).start_offset for one in take_partitions(partitions)}

    def end_offsets(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """Offset behind the last record that can be read, of each; they need not be assigned."""
        return {one: self._any_log(one).readable_offset for one in take_partitions(partitions)}

    def offsets_for_times(
        self, timestamps: Mapping[TopicPartition, SupportsIndex | datetime]
    ) -> dict[TopicPartition, OffsetAndTimestamp | None]:
        """The first record at or after a moment (ms since the epoch, or an aware datetime), of each
        partition; None: there is none."""
        found: dict[TopicPartition, OffsetAndTimestamp | None] = {}
        for partition, timestamp in by_partition(timestamps, "1_700_000_000_000").items():
            log = self._any_log(partition)
            offset = log.offset_for_time(timestamp)
            if offset is None:
                found[partition] = None
            else:
                record = log.get(offset)
                found[partition] = OffsetAndTimestamp(offset, record.timestamp, record.leader_epoch)
        return found

    def highwater(self, partition: TopicPartition) -> int:
        """Offset behind the last record that can be read, of an assigned partition."""
        self._check_usable()
        return int(self._log(take_partition(partition)).readable_offset)

    def lag(self, partition: TopicPartition | None = None) -> int:
        """How many offsets lie before the end, of one assigned partition or of all together.

        Those count too that no record has: what a power cut took, until a read has gone past it.
        """
        chosen = self._chosen(() if partition is None else (partition,))
        return sum(self.highwater(one) - self.position(one) for one in chosen)

    def _any_log(self, partition: TopicPartition) -> Log:
        """Of a partition that need not be assigned, and is not made by being asked for."""
        self._check_usable()
        log: Log | None = self._read_log(partition)
        if log is not None:
            return log
        topics = self._broker.topics()
        if partition.topic not in topics:
            raise UnknownTopicOrPartitionError(
                f"there is no topic {partition.topic!r}{closest(partition.topic, topics)}; "
                "create it first", topic=partition.topic)
        return self._broker.log(*partition)

