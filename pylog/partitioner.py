"""Which partition a record goes to: the policies by name, and a callable of the user's own.

A partitioner belongs to one producer and one topic; it may be used from several threads. Records
for which the user named a partition never come here. The hashes, and lists of keys, are native.

| policy | with a key | without |
|---|---|---|
| "murmur2" | as Kafka's Java client, kafkajs, kafka-python, aiokafka | sticky |
| "crc32" | as librdkafka and confluent-kafka; an empty key counts as none | sticky |
| "round_robin" | the next partition, whatever the key | the next partition |
| a callable | what it returns | what it returns |

Sticky (KIP-480, KIP-794): one partition until a batch is full or its linger has ended, then another
at random. So batches are large; `move_on` is how the producer tells.
"""

import difflib
import inspect
import random
import reprlib
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy
from numpy.typing import NDArray

from pylog._native import (
    Appender,
    append_by_key,
    append_by_partition,
    partition_of,
    partitions_of,
    to_int,
)
from pylog.errors import ConfigurationError

__all__ = ["CallablePartitioner", "HashPartitioner", "Partitioner", "RoundRobinPartitioner",
           "make_partitioner"]

_Key = bytes | bytearray | memoryview | None
_Value = _Key
_Policy = str | Callable[[bytes | None, list[int], list[int]], int]

PARTITIONS_MAX = 2**31 - 1


def make_partitioner(policy: _Policy | None, count: int,
                     rng: random.Random | None = None) -> "Partitioner":
    """The partitioner of a topic with `count` partitions.

    policy: "murmur2" (also what None means), "crc32", "round_robin", or a callable
    (key_bytes, all_partitions, available) that returns one of the partitions, as kafka-python 2 and
    aiokafka call theirs. rng: what the sticky choice is drawn from, for tests.

    Raises ConfigurationError for an unknown name or count, TypeError for what is no policy.

        >>> make_partitioner("murmur2", 6).partition(b"kafka")
        4
        >>> make_partitioner(lambda key, partitions, available: partitions[-1], 6).partition(b"k")
        5
    """
    if policy is None:
        policy = "murmur2"
    if isinstance(policy, str):
        if policy in ("murmur2", "crc32"):
            return HashPartitioner(policy, count, rng)
        if policy == "round_robin":
            return RoundRobinPartitioner(count, rng)
        raise _unknown_policy(policy)
    _check_callable(policy)
    return CallablePartitioner(policy, count)


class Partitioner:
    """What all policies have in common: the count of partitions, and what a producer asks.

    count: how many partitions the topic has; `resize` when some were added.
    """

    def __init__(self, count: int) -> None:
        self.count = _checked_count(count)

    def resize(self, count: int) -> None:
        """The topic has `count` partitions now. Keys may land elsewhere, as in Kafka."""
        self.count = _checked_count(count)

    def partition(self, key: _Key = None) -> int:
        """The partition of the next record, which has this key."""
        raise NotImplementedError

    def partitions(self, keys: Sequence[_Key] | None, size: int) -> int | NDArray[numpy.int32]:
        """The partitions of the next `size` records, one for each, or an int: all go there.

        keys: one for each, None where a record has none; None: no record has one.
        """
        raise NotImplementedError

    def append_many(
        self, logs: Sequence[Appender | None], values: Sequence[_Value],
        keys: Sequence[_Key] | None = None, headers: Any = None, timestamps: Any = None,
        done: list[tuple[int, int, int]] | None = None, codec: int | None = None,
        waits: bool = True,
    ) -> list[tuple[int, int, int]]:
        """Appends lists, as Log.append_many takes them, to the logs of the partitions, in order.

        logs: of all partitions by number, None where it is sure that nothing goes. Returns `done`,
        filled as it goes with (partition, first_offset, count). All is checked before anything is
        appended; a later error's `appended` is of the partition that comes next after `done`.
        codec, waits: as `append_by_partition`'s.
        """
        places = self.partitions(keys, len(values))
        if isinstance(places, int):
            places = numpy.full(len(values), places, numpy.int32)
        return append_by_partition(logs, places, values, keys, headers, timestamps, done, codec,
                                   waits)

    def move_on(self, partition: int) -> None:
        """The batch of `partition` is full, or its linger has ended.

        Records without a key go to another partition now, if they went to this one. Two threads
        that tell the same move on once.
        """


class HashPartitioner(Partitioner):
    """By the hash of the key; without one, sticky.

    sticky: the partition that records without a key go to now.
    """

    def __init__(self, name: str, count: int, rng: random.Random | None = None) -> None:
        super().__init__(count)
        self.name = name
        # The module's own functions: their state is seeded anew in a forked child.
        self._randrange = random.randrange if rng is None else rng.randrange
        self.sticky = self._randrange(self.count)

    def resize(self, count: int) -> None:
        count = _checked_count(count)
        if self.sticky >= count:    # a topic that was deleted and made anew, smaller
            self.sticky = self._randrange(count)
        self.count = count

    def partition(self, key: _Key = None) -> int:
        if key is None:
            return self.sticky
        found = partition_of(key, self.count, self.name)
        return self.sticky if found < 0 else found

    def partitions(self, keys: Sequence[_Key] | None, size: int) -> int | NDArray[numpy.int32]:
        if keys is None or self.count == 1:
            return self.sticky
        _check_size(keys, size)
        return partitions_of(keys, self.count, self.name, self.sticky)

    def append_many(
        self, logs: Sequence[Appender | None], values: Sequence[_Value],
        keys: Sequence[_Key] | None = None, headers: Any = None, timestamps: Any = None,
        done: list[tuple[int, int, int]] | None = None, codec: int | None = None,
        waits: bool = True,
    ) -> list[tuple[int, int, int]]:
        """As `Partitioner.append_many`, with the hashes taken on the way."""
        if keys is not None:
            return append_by_key(
                logs, self.name, self.sticky, values, keys, headers, timestamps, done, codec, waits)
        return super().append_many(logs, values, keys, headers, timestamps, done, codec, waits)

    def move_on(self, partition: int) -> None:
        if partition == self.sticky and self.count > 1:
            step = self._randrange(self.count - 1) + 1    # any but this one, each as likely
            self.sticky = (partition + step) % self.count


class RoundRobinPartitioner(Partitioner):
    """One after the other, from a random one on; Kafka's RoundRobinPartitioner, keys ignored."""

    name = "round_robin"

    def __init__(self, count: int, rng: random.Random | None = None) -> None:
        super().__init__(count)
        self._turn = random.randrange(self.count) if rng is None else rng.randrange(self.count)
        self._lock = threading.Lock()

    def partition(self, key: _Key = None) -> int:
        return self._take(1)[0]

    def partitions(self, keys: Sequence[_Key] | None, size: int) -> int | NDArray[numpy.int32]:
        if keys is not None:
            _check_size(keys, size)
        start, count = self._take(size)
        return (numpy.arange(start, start + size) % count).astype(numpy.int32)

    def _take(self, size: int) -> tuple[int, int]:
        """The first of `size` turns, and the count of partitions that it was made for."""
        with self._lock:
            start = self._turn % self.count
            self._turn = start + size
            return start, self.count


class CallablePartitioner(Partitioner):
    """Asks a function of the user's own, called as kafka-python 2 and aiokafka call theirs.

    What it raises comes out as it is. What it returns must be one of the partitions, else
    ConfigurationError; nothing is appended then.
    """

    def __init__(self, function: Callable[[bytes | None, list[int], list[int]], int],
                 count: int) -> None:
        super().__init__(count)
        self.name = getattr(function, "__qualname__", None) or type(function).__name__
        self._function = function

    def partition(self, key: _Key = None) -> int:
        # Lists of its own each time: a callable may shuffle or pop what it is given.
        count = self.count
        held = key if key is None or isinstance(key, bytes) else _key_bytes(key)
        result = self._function(held, list(range(count)), list(range(count)))
        return self._checked(result, held, count)

    def partitions(self, keys: Sequence[_Key] | None, size: int) -> int | NDArray[numpy.int32]:
        if keys is None:
            keys = [None] * size
        _check_size(keys, size)
        return numpy.fromiter((self.partition(key) for key in keys), numpy.int32, size)

    def _checked(self, result: Any, key: bytes | None, count: int) -> int:
        if inspect.iscoroutine(result):
            result.close()    # else Python warns, later and elsewhere, that nobody awaited it
        try:
            found = to_int(result, "a partition")
        except TypeError:
            found = -1
        if 0 <= found < count:
            return found
        raise ConfigurationError(
            f"the partitioner {self.name} returned {reprlib.repr(result)} for the key "
            f"{reprlib.repr(key)}, and the topic has the partitions 0 to {count - 1}; nothing was "
            "appended; return one of all_partitions, an int", option="partitioner", value=result)


# What policies are called elsewhere, and by which of our names they go here.
_OTHER_NAMES = {
    "default": "murmur2", "defaultpartitioner": "murmur2", "java": "murmur2",
    "murmur2_random": "murmur2", "sticky": "murmur2", "stickypartitioner": "murmur2",
    "uniformstickypartitioner": "murmur2",
    "consistent": "crc32", "consistent_random": "crc32", "crc": "crc32",
    "roundrobin": "round_robin", "roundrobinpartitioner": "round_robin",
}


def _unknown_policy(policy: str) -> ConfigurationError:
    names = ["murmur2", "crc32", "round_robin"]
    plain = policy.strip().lower().replace("-", "_").rpartition(".")[2]
    close = [_OTHER_NAMES[plain]] if plain in _OTHER_NAMES \
        else difflib.get_close_matches(plain, names, 1)
    if close:
        advice = f"use {close[0]!r}"
    elif plain in ("random", "fnv1a", "fnv1a_random"):
        advice = "pass a callable (key, all_partitions, available) that does it"
    else:
        advice = "use 'murmur2', 'crc32', 'round_robin' or a callable"
    return ConfigurationError(
        f"partitioner={policy!r} is unknown; {advice}", option="partitioner", value=policy)


def _check_callable(policy: Any) -> None:
    wanted = "partitioner must be a name or a callable (key, all_partitions, available)"
    if isinstance(policy, type):
        raise TypeError(f"{wanted}, not a class: pass an instance, {policy.__name__}()")
    if not callable(policy):
        if hasattr(policy, "partition"):    # kafka-python 3's: it asks a cluster, which is not here
            raise TypeError(
                f"{wanted}, and this {type(policy).__name__} has a method partition() that wants a "
                "cluster; pass 'murmur2' for kafka-python's own, else a function")
        raise TypeError(f"{wanted}, not {type(policy).__name__}")
    if inspect.iscoroutinefunction(policy):
        raise TypeError(f"{wanted}, and {policy.__qualname__} is async: nobody would await it")


def _checked_count(count: int) -> int:
    taken: int = to_int(count, "the count of partitions")
    if 1 <= taken <= PARTITIONS_MAX:
        return taken
    raise ConfigurationError(
        f"a topic cannot have {count} partitions; pass how many it has, from 1 on",
        option="count", value=count)


def _check_size(keys: Sequence[_Key], size: int) -> None:
    if len(keys) != size:
        raise ConfigurationError(
            f"there are {size} values and {len(keys)} keys: give one each; nothing was appended",
            option="keys")


def _key_bytes(key: Any) -> bytes:
    """What a callable gets of a key that is bytes-like; TypeError for all else."""
    partition_of(key, 1)
    return bytes(key)
