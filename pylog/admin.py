"""pylog.Admin: topics, partitions, configs, records and groups of a broker, as plain data.

Names and shapes are those of kafka-python's KafkaAdminClient where it has them.
"""

import contextlib
import os
from collections.abc import Iterable, Mapping
from typing import Any, Self

from pylog import backup
from pylog.broker import Broker
from pylog.check import Progress, Report
from pylog.errors import ConfigurationError, PylogError, UnknownTopicOrPartitionError
from pylog.options import names_in
from pylog.share_admin import ShareAdmin
from pylog.topic import TOPIC_CONFIGS, TopicPartition, by_partition, config_value


class Admin(ShareAdmin):
    """What an administrator does with a broker. A context manager; safe for threads.

    broker: a Broker, or the path of one, which is closed with this object then. Topics are never
    made by being asked for: an unknown one raises UnknownTopicOrPartitionError, with the closest
    name. Calls on several topics do one after the other, and stop at the first error.

        >>> with Admin("data") as admin:
        ...     admin.create_topic("orders", 3, {"retention.ms": 3_600_000})
        ...     admin.describe_configs(["orders"])["orders"]["retention.ms"]
        3600000
    """

    def __init__(self, broker: Broker | str | os.PathLike[str]) -> None:
        opened, self._is_own = Broker.of(broker)
        super().__init__(opened)

    # ---- topics

    def create_topic(
        self, name: str, num_partitions: int = 1, configs: Mapping[str, Any] | None = None,
        exist_ok: bool = False,
    ) -> None:
        """Makes a topic; durable on return. exist_ok: one that is there is left as it is.

        Raises TopicAlreadyExistsError, InvalidTopicError, InvalidPartitionsError,
        InvalidConfigError, NotSupportedError.
        """
        self._broker.create_topic(name, num_partitions, configs, exist_ok)

    def create_topics(self, topics: Mapping[str, Mapping[str, Any]]) -> None:
        """Makes topics: {"orders": {"num_partitions": 3, "configs": {...}}}."""
        for options in _by_name(topics, "{'orders': {'num_partitions': 3}}").values():
            if not isinstance(options, Mapping):
                raise TypeError(f"a topic is told as {{'num_partitions': 3, 'configs': {{...}}}}, "
                                f"not {options!r}")
            if unknown := set(options) - {"num_partitions", "configs"}:
                raise ConfigurationError(
                    f"a topic has no {min(unknown)!r}; use num_partitions and configs",
                    option=min(unknown), value=options[min(unknown)])
        for name, options in topics.items():
            self.create_topic(name, **options)

    def delete_topics(self, topics: Iterable[str]) -> None:
        """Removes topics and their records; whoever has one open is told, in any process.

        Raises PylogTimeoutError while a stopped process is inside of one.
        """
        for name in names_in("topics", topics):
            self._broker.delete_topic(name)

    def list_topics(self) -> list[str]:
        """The names of all topics, sorted."""
        return sorted(self._broker.topics())

    def describe_topics(self, topics: Iterable[str] | None = None) -> dict[str, dict[str, Any]]:
        """What topics are, all by default: topic_id, created_ms, configs that were set, and for
        each partition its offsets and bytes. Cost: opens each partition."""
        if topics is not None:
            return {name: self._describe(name) for name in names_in("topics", topics)}
        found = {}
        for name in self.list_topics():
            with contextlib.suppress(UnknownTopicOrPartitionError):    # deleted meanwhile
                found[name] = self._describe(name)
        return found

    def _describe(self, name: str) -> dict[str, Any]:
        entry = self._entry(name)
        logs = [self._broker.log_that_is_there(name, number) for number in range(entry.partitions)]
        return {
            "topic": name, "topic_id": str(entry.topic_id), "created_ms": entry.created_ms,
            "configs": dict(entry.configs), "partitions": [{
                "partition": number, "start_offset": log.start_offset,
                "end_offset": log.end_offset, "size_bytes": log.size_bytes,
            } for number, log in enumerate(logs)]}

    def create_partitions(self, topics: Mapping[str, int]) -> None:
        """Gives topics more partitions: {"orders": 6} in total. There is no way back, and keys may
        land elsewhere from then on. Raises InvalidPartitionsError."""
        for name, total in _by_name(topics, "{'orders': 6}").items():
            self._broker.metadata.add_partitions(name, total)

    # ---- configs

    def describe_configs(self, topics: Iterable[str]) -> dict[str, dict[str, int | str]]:
        """All configs of topics, by name: what was set, or the default."""
        return {name: {config: config_value(self._entry(name).configs, config)
                       for config in TOPIC_CONFIGS} for name in names_in("topics", topics)}

    def alter_configs(self, topics: Mapping[str, Mapping[str, Any]]) -> None:
        """Sets some configs: {"orders": {"retention.ms": 3_600_000}}; None is the default again.

        Every process goes by them from its next append on. Raises InvalidConfigError,
        NotSupportedError.
        """
        for name, configs in _by_name(topics, "{'orders': {'retention.ms': 3_600_000}}").items():
            self._entry(name)
            self._broker.alter_configs(name, configs)

    # ---- records

    def delete_records(self, offsets: Mapping[TopicPartition, int]) -> dict[TopicPartition, int]:
        """Deletes what lies before an offset, in each partition; -1: all that is there.

        Returns where each begins now. Durable on return. Raises OffsetOutOfRangeError.
        """
        found = {}
        for partition, offset in by_partition(offsets, "17").items():
            log = self._log(partition)
            log.delete_before(log.readable_offset if offset == -1 else offset)
            found[partition] = log.start_offset
        return found

    # ---- the broker as a whole

    def stats(self) -> dict[str, Any]:
        """How much there is: topics, partitions, offsets in use, bytes. Cost: opens everything."""
        described = self.describe_topics()
        partitions = [one for topic in described.values() for one in topic["partitions"]]
        return {
            "path": str(self._broker.path), "topics": len(described),
            "partitions": len(partitions), "groups": len(self.list_groups()),
            "records": sum(one["end_offset"] - one["start_offset"] for one in partitions),
            "size_bytes": sum(one["size_bytes"] for one in partitions)}

    def verify(self, topics: Iterable[str] | None = None) -> dict[TopicPartition, Report]:
        """Proves the files of all partitions, or of some topics': see `pylog.check`.

        May run beside writers. Cost: reads every byte.
        """
        if topics is not None:
            return {place: report for name in names_in("topics", topics)
                    for place, report in self._verify(name).items()}
        found: dict[TopicPartition, Report] = {}
        for name in self.list_topics():
            with contextlib.suppress(UnknownTopicOrPartitionError):    # deleted meanwhile
                found |= self._verify(name)
        return found

    def _verify(self, name: str) -> dict[TopicPartition, Report]:
        entry, found = self._entry(name), {}
        for number in range(entry.partitions):
            try:
                log = self._broker.log_that_is_there(name, number)
                found[TopicPartition(name, number)] = log.check()
            except PylogError:
                if self._broker._is_current(entry):
                    raise
                raise UnknownTopicOrPartitionError(
                    f"the topic {name!r} was deleted while its files were proved",
                    topic=name) from None
        return found

    def backup(
        self, target: str | os.PathLike[str], *, on_progress: Progress | None = None,
    ) -> dict[TopicPartition, int | None]:
        """Copies the broker, while it is used, to a directory that is not there yet.

        Each partition up to what can be read at the moment, proved afterwards; groups no further
        than their partitions. on_progress(bytes_done, bytes_total) is called every few MiB;
        done is total when all is copied and the disk alone is waited for (os.sync), which takes as
        long as it takes. Returns where each partition ends; None: its topic was deleted meanwhile,
        and is not in the copy. Opened, the copy goes on there. Cost: files that no longer change
        are hard links where that is possible, so it takes room only for the rest.
        Raises LogError, CorruptRecordError, PylogTimeoutError; then there is no copy.
        """
        return backup.backup(self._broker, target, on_progress)

    # ---- lifetime

    def close(self) -> None:
        """Closes the broker too, if it was opened here; idempotent."""
        self._is_closed = True
        if self._is_own:
            self._given.close()

    def __enter__(self) -> Self:
        self._broker._check_open()
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _by_name(topics: Mapping[str, Any], example: str) -> Mapping[str, Any]:
    """What is said of each; kafka-python 2 had lists of objects."""
    if not isinstance(topics, Mapping):
        raise TypeError(f"topics must be a dict by name, as {example}, not "
                        f"{type(topics).__name__}")
    return topics

