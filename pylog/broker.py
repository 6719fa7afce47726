"""A broker: a directory of topics, which any number of processes open at once.

    DATA/metadata.db              what exists (metadata.py)
    DATA/doorbells                where all who wait for any of its partitions sleep
    DATA/<topic>-<partition>/     a Log each

There is no server and nothing to start: who opens the directory is part of the broker.
"""

import contextlib
import functools
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from pylog import _native
from pylog.claim import Claim, ClaimEntry, claims_table, held_claims
from pylog.errors import (
    ClosedError,
    ConfigurationError,
    PylogError,
    PylogTimeoutError,
    TopicAlreadyExistsError,
    UnknownTopicOrPartitionError,
    UnsupportedFormatError,
)
from pylog.group import Group
from pylog.log import DURABILITIES, Durability, Log, Start, log_directory
from pylog.maintenance import Maintainer, bring_up_to_date, maintain
from pylog.metadata import Metadata
from pylog.metadata_file import TopicEntry
from pylog.names import META_NAME
from pylog.options import is_true, no_address, one_of
from pylog.partitioner import Partitioner, make_partitioner
from pylog.share import forget_topic
from pylog.topic import (
    RecordMetadata,
    TopicPartition,
    check_alterable,
    check_name,
    closest,
    directory_name,
    log_options,
)

DOORBELLS_BYTES = 4096
CHUNK_RECORDS = 500
NEW_PARTITIONS_SECONDS = 1.0    # how often a reader that follows looks for added ones


class Broker:
    """Creates or opens the broker in a directory. A context manager; safe for threads.

    durability: of the topics that are created through this object, as `Log`'s. num_partitions: of
    topics that are created by being appended to, if `auto_create_topics`. Cost of opening: a
    directory and a small database; partitions are opened when they are first used.

    >>> with Broker("data/shop") as broker:
    ...     broker.append("orders", b"12 apples", key=b"alice").offset
    ...     [record.value for record in broker.read("orders")]
    0
    [b'12 apples']
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        durability: Durability = "os",
        auto_create_topics: bool = True,
        num_partitions: int = 1,
    ) -> None:
        one_of("durability", durability, DURABILITIES)
        no_address(path)
        self.path = log_directory(path)
        if (self.path / META_NAME).exists():
            raise UnsupportedFormatError(
                f"{self.path} is a log, and no directory of topics; open it with pylog.Log, or "
                "choose another path", path=str(self.path))
        self.durability = durability
        self.auto_create_topics = is_true("auto_create_topics", auto_create_topics)
        self.num_partitions = num_partitions
        self.metadata = Metadata(self.path)    # makes the directory
        self.metadata.on_removal = functools.partial(forget_topic, self.path)
        with contextlib.suppress(PylogTimeoutError):    # of another, who is being stopped in it
            self.metadata.finish_deletions()
        make_doorbells(self.path / "doorbells")
        self.doorbells = _native.Doorbells(self.path / "doorbells")
        self.metadata.on_change = self.doorbells.tell_topics
        self._entries: dict[str, TopicEntry] = {}
        self._sequence = -1
        self._logs: dict[tuple[str, int], Log] = {}
        self._groups: dict[str, Group] = {}
        self._processes: _native.Processes | None = None
        self._claims: _native.Table | None = None
        self._lock = threading.RLock()
        self._partitioners: dict[str, Partitioner] = {}
        self._look_at = 0.0    # when `append` looks at the topics again
        self._is_closed = False
        self._maintainer: Maintainer | None = None    # from the first partition on
        # Producers and consumers: closed first, as they may have something to finish.
        self.dependents: weakref.WeakSet[Any] = weakref.WeakSet()
        # Synced each second, also those that are closed by others.
        self.share_consumers: weakref.WeakSet[Any] = weakref.WeakSet()

    @classmethod
    def of(cls, given: "Broker | str | os.PathLike[str]") -> tuple["Broker", bool]:
        """The broker itself, or the one in a directory; and whether it was opened here, so that who
        asked has to close it."""
        if isinstance(given, Broker):
            given._check_open()
            return given, False
        if isinstance(given, str | os.PathLike):
            return cls(given), True
        no_address(given)
        raise TypeError(f"broker must be a Broker or the path of one, not {type(given).__name__}")

    # ---- topics

    def topics(self) -> dict[str, TopicEntry]:
        """All topics by name, as they are now. Cost: a look whether anything has changed."""
        self._check_open()
        with self._lock:
            sequence = self.metadata.sequence
            if sequence != self._sequence:
                self._entries, self._sequence = self.metadata.topics(), sequence
            return dict(self._entries)

    def topic(self, name: str) -> TopicEntry:
        """One topic. UnknownTopicOrPartitionError when there is none of this name, unless topics
        are created by being used."""
        if entry := self.topics().get(name):
            return entry
        if not self.auto_create_topics:
            return self._topic_that_is_there(name)
        return self.create_topic(name, self.num_partitions, exist_ok=True)

    def _topic_that_is_there(self, name: str) -> TopicEntry:
        if entry := self.topics().get(name):
            return entry
        raise UnknownTopicOrPartitionError(
            f"there is no topic {name!r}{closest(name, self.topics())}; create it first",
            topic=name)

    def delete_topic(self, name: str) -> TopicEntry:
        """Removes a topic and all its records; see `Metadata.delete_topic`."""
        self._check_open()
        return self.metadata.delete_topic(name)

    def create_topic(
        self, name: str, num_partitions: int = 1,
        configs: Mapping[str, Any] | None = None, exist_ok: bool = False,
    ) -> TopicEntry:
        """Makes a topic and its partitions; durable when it returns."""
        check_name(name)
        while True:
            if exist_ok and (entry := self.topics().get(name)):
                return entry
            try:
                return self.metadata.create_topic(name, num_partitions, configs)
            except TopicAlreadyExistsError:
                if not exist_ok:
                    raise    # else another was faster, just now

    def alter_configs(self, name: str, configs: Mapping[str, Any]) -> TopicEntry:
        """Sets some configs of a topic, all or none; None sets one back to its default.

        Every process goes by them from its next append on, by compression.type within a second.
        Cost: a sync of the metadata, and of each partition whose log is concerned. Raises
        InvalidConfigError, NotSupportedError, UnknownTopicOrPartitionError.
        """
        self._check_open()
        check_alterable(configs)
        entry = self.metadata.alter_configs(name, configs)
        for partition in range(entry.partitions):
            if (self.path / directory_name(name, partition)).exists():
                bring_up_to_date(self.metadata, self.log_that_is_there(name, partition), entry)
        return entry

    def maintain(self, now_ms: int | None = None) -> bool:
        """Deletes what is past its retention, now; a thread of each process does it by itself.

        False: another process is at it. now_ms: what the time is, for tests.
        """
        self._check_open()
        return maintain(self, now_ms)

    # ---- partitions

    def opened(self) -> dict[tuple[str, int], Log]:
        """The logs that this object has open, by topic and partition."""
        with self._lock:
            return dict(self._logs)

    def log(self, topic: str, partition: int = 0) -> Log:
        """The log of a partition, opened at its first use and shared by all users of the object."""
        self._check_open()
        log = self._logs.get((topic, partition))
        return log if log is not None and not log.closed else self._open_log(topic, partition)

    def log_that_is_there(self, topic: str, partition: int) -> Log:
        """As `log`, but makes no topic: for who has seen it, and it may be deleted since."""
        return self._open_log(topic, partition, self._topic_that_is_there)

    def _open_log(self, topic: str, partition: int,
                  find: Callable[[str], TopicEntry] | None = None) -> Log:
        with self._lock:
            log = self._logs.pop((topic, partition), None)
            if log is not None and not log.closed:    # another thread was faster
                self._logs[topic, partition] = log
                return log
            if log is not None:
                log.close()
            while True:
                entry = (find or self.topic)(topic)
                log = self._try_to_open(entry, partition)
                if log is not None and self._is_current(entry):
                    self._logs[topic, partition] = log
                    if self._maintainer is None:
                        self._maintainer = Maintainer(self)
                    return log
                if log is not None:    # deleted while it was opened, and perhaps made anew
                    log.close()

    def _try_to_open(self, entry: TopicEntry, partition: int) -> Log | None:
        """None: the topic was deleted meanwhile."""
        if not 0 <= partition < entry.partitions:
            raise UnknownTopicOrPartitionError(
                f"topic {entry.name!r} has the partitions 0 to {entry.partitions - 1}, and no "
                f"{partition}; add some first", topic=entry.name, partition=partition)
        directory = self.path / directory_name(entry.name, partition)
        try:
            if not directory.exists():
                with self.metadata.keeping(entry):
                    directory.mkdir(mode=0o700, exist_ok=True)
                    link_doorbells(self.path / "doorbells", directory / "doorbells")
            log = self._open_as(entry, directory)
        except (PylogError, FileNotFoundError):
            if self._is_current(entry):
                raise
            return None
        log._become_partition(entry.name, partition)
        return log

    def _open_as(self, entry: TopicEntry, directory: Path) -> Log:
        """A log that is there has its own options, and may have slept through some changes."""
        options: dict[str, Any] = {"durability": self.durability, **log_options(entry.configs)}
        log = None
        if not (directory / META_NAME).exists():
            with contextlib.suppress(ConfigurationError):    # another was faster, with others
                log = _Partition(directory, **options)
        log = log or _Partition(directory)
        bring_up_to_date(self.metadata, log, self.topics().get(entry.name, entry))
        return log

    def _is_current(self, entry: TopicEntry) -> bool:
        found = self.topics().get(entry.name)
        return found is not None and found.topic_id == entry.topic_id

    # ---- records

    def append(
        self, topic: str, value: Any, key: Any = None, headers: Any = None,
        partition: int | None = None, timestamp: int | None = None, if_end: int | None = None,
    ) -> RecordMetadata:
        """Appends one record, visible to all processes on return.

        The partition is what Kafka's clients would choose for the key (murmur2), or any. if_end:
        append only if that partition ends at this offset, else WrongEndOffsetError; so with it,
        name the partition, unless the topic has a single one. A topic that was deleted and made
        anew meanwhile may end there too; where that matters, keep to the same `broker.log(topic)`.
        """
        if partition is None:
            if if_end is not None:
                self._check_single(topic)
            partition = self._partitioner(topic).partition(key)
        log = self.log(topic, partition)
        offset, timestamp = log._append_timed(value, key, headers, timestamp, if_end)
        return RecordMetadata(topic, partition, TopicPartition(topic, partition), offset, timestamp)

    def partition_of(self, topic: str, key: Any, partitions: int | None = None) -> int:
        """The partition that records with this key go to, as Kafka's clients would choose it.

        partitions: as it would be if the topic had so many; None: as many as it has.
        """
        if partitions is None:
            return self._partitioner(topic).partition(key)
        return _by_key(partitions).partition(key)

    def _check_single(self, topic: str) -> None:
        if (count := self.topic(topic).partitions) > 1:
            raise ConfigurationError(
                f"if_end= is the end of one partition, and {topic!r} has {count}: name it, with "
                "partition=; nothing was appended", option="partition", value=None)

    def _partitioner(self, topic: str) -> Partitioner:
        chosen = self._partitioners.get(topic)
        if chosen is not None and time.monotonic() < self._look_at:
            return chosen
        count = self.topic(topic).partitions
        with self._lock:
            self._look_at = time.monotonic() + NEW_PARTITIONS_SECONDS
            chosen = self._partitioners.get(topic)
            if chosen is None:
                chosen = self._partitioners[topic] = make_partitioner(None, count)
            chosen.resize(count)
            return chosen

    def read(
        self, topic: str, start: Start | Mapping[int, Start] = "earliest",
        partition: int | None = None, follow: bool = False,
    ) -> Iterator[_native.Record]:
        """Records of one or all partitions, each partition's in order; no group, nothing committed.

        Ends at what was the end when it began, or with `follow` never. start: as `Log.read`'s, for
        each partition, or {partition: start}; one that is left out is read from its earliest.
        """
        reader = _Reading(self, topic, start, partition)
        return reader.follow() if follow else reader.to_the_end()

    # ---- processes, groups, claims

    @property
    def processes(self) -> _native.Processes:
        """The processes that take part; this one does once it has `join`ed them."""
        self._check_open()
        with self._lock:
            if self._processes is None:
                self._processes = _native.Processes(self.path / "processes",
                                                    self.path / "doorbells")
            return self._processes

    def group(self, group_id: str) -> Group:
        """A consumer group, made if there is none of this id; opened once and shared."""
        processes = self.processes
        with self._lock:
            group = self._groups.get(group_id)
            if group is None:
                group = Group(self.path, group_id, processes, self.durability)
                self._groups[group_id] = group
            return group

    def delete_group(self, group_id: str) -> bool:
        """Removes a group that has no members; False when another process has it open."""
        with self._lock:
            group = self.group(group_id)
            if group.table.remove():
                del self._groups[group_id]
                return True
            return False

    def sync_groups(self) -> None:
        """What was committed is on disk then: the promise of an "interval" broker, kept by the
        maintainer each second. An "fsync" broker's commits are already; what its share consumers
        settled is not, for an ack is a store and no fdatasync."""
        if self.durability == "interval":
            with self._lock:
                groups = list(self._groups.values())
            for group in groups:
                group.sync_if_changed()
        if self.durability != "os":
            for consumer in list(self.share_consumers):
                consumer._sync_if_changed()

    def claim(self, name: str, timeout: float | None = None) -> Claim:
        """A lock among all processes of the broker, free again the moment its holder dies.

        timeout: how many seconds `with` waits for it, before PylogTimeoutError; None: for ever.
        """
        return Claim(self._claims_table(), self.processes, name, timeout)

    def claims(self) -> list[ClaimEntry]:
        """The claims that are held, and by whom."""
        return held_claims(self._claims_table(), self.processes)

    def _claims_table(self) -> _native.Table:
        processes = self.processes
        with self._lock:
            if self._claims is None:
                self._claims = claims_table(self.path, processes)
            return self._claims

    # ---- lifetime

    def _check_open(self) -> None:
        if self._is_closed:
            raise ClosedError("the broker is closed; open it again")

    @property
    def closed(self) -> bool:
        return self._is_closed

    def close(self) -> None:
        """Closes all that this object opened, after its producers and consumers; idempotent."""
        with contextlib.ExitStack() as last_first:
            last_first.callback(self._stop_maintainer)    # of a thread that was in `log` till then
            last_first.callback(self._close)
            if not self._is_closed:
                last_first.callback(self._stop_maintainer)
                # What they commit at their end is not synced otherwise.
                last_first.callback(self.sync_groups)
            # What is made of others goes before them: its threads are inside of theirs.
            for one in sorted(self.dependents, key=lambda one: hasattr(one, "_is_made_of_others")):
                last_first.callback(one._close_with_broker)

    def _stop_maintainer(self) -> None:
        if self._maintainer is not None:
            self._maintainer.stop(self)

    def _close(self) -> None:
        with self._lock:
            self._is_closed = True
            with contextlib.ExitStack() as stack:
                stack.callback(self.metadata.close)
                if self._processes is not None:    # after all that belongs to this process
                    stack.callback(self._processes.close)
                if self._claims is not None:
                    stack.callback(self._claims.close)
                for group in self._groups.values():
                    stack.callback(group.close)
                for log in self._logs.values():
                    stack.callback(log.close)
            self._logs.clear()

    def __reduce__(self) -> Any:
        raise TypeError(
            "a broker cannot be pickled; pass its path and open it in the other process")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Broker {str(self.path)!r}{', closed' if self._is_closed else ''}>"


_by_key = functools.cache(functools.partial(make_partitioner, None))    # a key's place has no state


class _Partition(Log):
    """A log whose directory the broker makes: one that is gone was deleted, and stays so."""

    __slots__ = ()

    def _prepare_directory(self, mode: str) -> list[Path]:
        self._check_owner()
        return []


class _Reading:
    """Cursors over the partitions of a topic, taken in turn."""

    def __init__(self, broker: Broker, topic: str, start: Start | Mapping[int, Start],
                 partition: int | None) -> None:
        self.broker = broker
        self.topic = topic
        self.only = partition
        self.logs: list[Log] = []
        self.cursors: list[_native.Cursor] = []
        self.join_new(start)

    def join_new(self, start: Start | Mapping[int, Start]) -> None:
        """Takes in the partitions that it does not read yet."""
        count = self.broker.topic(self.topic).partitions
        wanted = range(count) if self.only is None else [self.only]
        for number in wanted[len(self.logs):]:
            log = self.broker.log(self.topic, number)
            self.logs.append(log)
            self.cursors.append(log.cursor(
                start.get(number, "earliest") if isinstance(start, Mapping) else start))

    def to_the_end(self) -> Iterator[_native.Record]:
        """What was there at the beginning."""
        ends = [log.readable_offset for log in self.logs]
        for cursor, end in zip(self.cursors, ends, strict=True):
            if cursor.offset > end:
                cursor.fetch()    # raises OffsetOutOfRangeError
        pending = list(zip(self.cursors, ends, strict=True))
        while pending:
            pending = [(cursor, end) for cursor, end in pending if cursor.offset < end]
            for cursor, end in pending:
                yield from cursor.fetch(max_records=min(CHUNK_RECORDS, end - cursor.offset))

    def follow(self) -> Iterator[_native.Record]:
        """What is there and what is to come."""
        waiter = _native.Waiter(self.logs)
        while True:
            for cursor in self.cursors:
                yield from cursor.fetch(max_records=CHUNK_RECORDS)
            offsets = [cursor.offset for cursor in self.cursors]
            if waiter.wait(offsets, NEW_PARTITIONS_SECONDS) < 0 and self.only is None:
                known = len(self.logs)
                self.join_new("earliest")
                if len(self.logs) > known:
                    waiter = _native.Waiter(self.logs)


def make_doorbells(path: Path) -> None:
    """Whole or not at all: two processes may make it at once, and one be killed."""
    if path.exists():
        if path.stat().st_size < DOORBELLS_BYTES:
            raise ConfigurationError(f"{path} is no file of doorbells: remove it", option="path",
                                     value=str(path))
        return
    unfinished = path.with_name(f"doorbells.{os.getpid()}.{threading.get_ident()}.tmp")
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.write(descriptor, bytes(DOORBELLS_BYTES))
        with contextlib.suppress(FileExistsError):
            os.link(unfinished, path)
    finally:
        os.close(descriptor)
        unfinished.unlink()


def link_doorbells(shared: Path, own: Path) -> None:
    """Before the log is opened: a partition rings where all the broker's waiters sleep.

    A copy of the directory may have lost the link; a log that has its own doorbells is polled.
    """
    with contextlib.suppress(FileExistsError):
        os.link(shared, own)
