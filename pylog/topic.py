"""Topics in words: the names that Kafka allows, the configs that there are, the tuples of both.

Nothing here touches a file. A config has Kafka's name, default and range, and travels as Kafka's
do: as text, in a dict that holds only what differs from the default because somebody said so.
"""

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from pylog import _native
from pylog.errors import (
    InvalidConfigError,
    InvalidPartitionsError,
    InvalidTopicError,
    NotSupportedError,
)

NAME_LENGTH_MAX = 249
# So that <topic>-<partition> stays within the 255 bytes of a file name: five digits at most.
PARTITIONS_MAX = 100_000
FOREVER = (1 << 63) - 1

_NOT_IN_NAMES = re.compile(r"[^a-zA-Z0-9._-]")
_DIRECTORY = re.compile(r"([a-zA-Z0-9._-]{1,249})-(0|[1-9][0-9]{0,4})")


class TopicPartition(NamedTuple):
    """One log of a topic.

        >>> TopicPartition("orders", 2).partition
        2
    """

    topic: str
    partition: int


class OffsetAndMetadata(NamedTuple):
    """What a group has committed: the offset to read next, and a note of the committer's own.

        >>> OffsetAndMetadata(17).metadata
        ''
    """

    offset: int
    metadata: str = ""
    leader_epoch: int = -1


class ConsumerGroupMetadata(NamedTuple):
    """Who a consumer is in its group. generation_id -1 and member_id "": no member.

        >>> ConsumerGroupMetadata("billing").generation_id
        -1
    """

    group_id: str
    generation_id: int = -1
    member_id: str = ""
    group_instance_id: str | None = None


class OffsetAndTimestamp(NamedTuple):
    """The first record at or after a moment. timestamp: its own, in ms since the epoch.

        >>> OffsetAndTimestamp(17, 1_700_000_000_000).offset
        17
    """

    offset: int
    timestamp: int
    leader_epoch: int = -1


class RecordMetadata(NamedTuple):
    """Where a record went.

    timestamp: ms since the epoch. serialized_*_size: bytes; -1 where there is none.

        >>> RecordMetadata("orders", 2, TopicPartition("orders", 2), 17).offset
        17
    """

    topic: str
    partition: int
    topic_partition: TopicPartition
    offset: int
    timestamp: int = -1
    checksum: int | None = None
    serialized_key_size: int = -1
    serialized_value_size: int = -1
    serialized_header_size: int = -1


class BatchMetadata(NamedTuple):
    """Where the records of a list went that one partition got, in the order of the list.

    offset: of the first. The others follow it, and where the list was long, other writers' records
    may stand between them.

        >>> BatchMetadata("orders", 2, TopicPartition("orders", 2), 17, 500).record_count
        500
    """

    topic: str
    partition: int
    topic_partition: TopicPartition
    offset: int
    record_count: int


# ---- names ---------------------------------------------------------------------------------------

def check_name(name: object) -> str:
    """Returns the name of a topic that Kafka would allow. Raises InvalidTopicError, TypeError.

        >>> check_name("orders.eu-1")
        'orders.eu-1'
    """
    if not isinstance(name, str):
        raise TypeError(f"the name of a topic must be a str, not {type(name).__name__}")
    if not name:
        fault = "is empty; give the topic a name"
    elif name in (".", ".."):
        fault = "is a directory of the file system; use another name"
    elif len(name) > NAME_LENGTH_MAX:
        fault = f"has {len(name)} characters; use {NAME_LENGTH_MAX} at most"
    elif bad := _NOT_IN_NAMES.search(name):
        fault = f"has {bad[0]!r} in it; use ASCII letters, digits, '.', '_' and '-' only"
    else:
        return name
    shown = name if len(name) <= 60 else name[:57] + "..."
    raise InvalidTopicError(f"the topic name {shown!r} {fault}", topic=name)


def check_no_collision(name: str, others: Iterable[str]) -> None:
    """Kafka turns '.' into '_' in the names of metrics: names that differ in these alone collide.

    Raises InvalidTopicError. Source: kafka.common.internals.Topic.hasCollision.

        >>> check_no_collision("a.b", ["ab", "a-b"])
    """
    folded = name.replace(".", "_")
    for other in others:
        if other != name and other.replace(".", "_") == folded:
            raise InvalidTopicError(
                f"the topic {name!r} would differ from {other!r} in '.' and '_' alone, and Kafka "
                f"takes these for the same in its metrics; use {other!r}, or another name",
                topic=name, collides_with=other,
            )


def take_partition(given: Any) -> TopicPartition:
    """A TopicPartition, or a pair that is meant as one. Raises TypeError.

        >>> take_partition(("orders", 2))
        TopicPartition(topic='orders', partition=2)
    """
    if isinstance(given, tuple) and len(given) == 2:
        topic, number = given
        if isinstance(topic, str) and isinstance(number, int) and not isinstance(number, bool):
            return TopicPartition(topic, number)
    raise TypeError(f"expected a TopicPartition(topic, partition), not {given!r}")


def take_partitions(given: Any) -> list[TopicPartition]:
    """A list of them, each once, in the order given. Raises TypeError."""
    if isinstance(given, TopicPartition | str | bytes | Mapping) or not hasattr(given, "__iter__"):
        raise TypeError("expected a list of TopicPartition(topic, partition), not "
                        f"{type(given).__name__}")
    return list(dict.fromkeys(map(take_partition, given)))


def take_offset(given: Any) -> OffsetAndMetadata:
    """An OffsetAndMetadata, or an offset alone. Raises TypeError.

        >>> take_offset(17)
        OffsetAndMetadata(offset=17, metadata='', leader_epoch=-1)
    """
    offset, metadata, epoch = given if isinstance(given, OffsetAndMetadata) else (given, "", -1)
    if not isinstance(metadata, str | None):
        raise TypeError("the metadata of a commit must be a str, not "
                        f"{type(metadata).__name__}")
    return OffsetAndMetadata(_native.to_int(offset, "an offset to commit"), metadata or "",
                             -1 if epoch is None else _native.to_int(epoch, "a leader_epoch"))


def by_partition(given: Any, example: str) -> dict[TopicPartition, Any]:
    """What is said of each partition. Raises TypeError.

        >>> by_partition({("orders", 2): 17}, "17")
        {TopicPartition(topic='orders', partition=2): 17}
    """
    if not isinstance(given, Mapping):
        raise TypeError("expected a dict by partition, as {TopicPartition('orders', 0): "
                        f"{example}}}, not {type(given).__name__}")
    return {take_partition(one): said for one, said in given.items()}


def closest(name: str, known: Iterable[str]) -> str:
    """ "; did you mean 'orders'?", or nothing: the middle of a message about an unknown name.

        >>> closest("oders", ["orders", "flights"])
        "; did you mean 'orders'?"
    """
    found = difflib.get_close_matches(name, known, 1)
    return f"; did you mean {found[0]!r}?" if found else ""


def check_partitions(count: object, topic: str) -> int:
    """Returns how many partitions a topic may have. Raises InvalidPartitionsError, TypeError."""
    number = _native.to_int(count, "the number of partitions")
    if not 1 <= number <= PARTITIONS_MAX:
        raise InvalidPartitionsError(
            f"the topic {topic!r} cannot have {number} partitions; use 1 to {PARTITIONS_MAX:,}",
            topic=topic, partitions=number,
        )
    return number


def directory_name(topic: str, partition: int) -> str:
    """The directory of a partition's log, as Kafka names it.

        >>> directory_name("orders", 2)
        'orders-2'
    """
    return f"{topic}-{partition}"


def partition_of(directory: str) -> TopicPartition | None:
    """What a directory of this name holds; None: it is no partition's.

        >>> partition_of("eu-orders-2"), partition_of("orders-2.1f3a-delete")
        (TopicPartition(topic='eu-orders', partition=2), None)
    """
    found = _DIRECTORY.fullmatch(directory)
    if not found or found[1] in (".", ".."):
        return None
    return TopicPartition(found[1], int(found[2]))


# ---- configs -------------------------------------------------------------------------------------

@dataclass(frozen=True, slots=True)
class TopicConfig:
    """A config of a topic.

    default: as Kafka writes it. values: its least and greatest number, or the words it may be.
    option: the argument of pylog.Log that it becomes; None: the maintainer goes by it, or a
    producer. meaning: one line.
    """

    name: str
    default: str
    values: range | tuple[str, ...]
    option: str | None
    meaning: str

    def parse(self, text: str) -> int | str:
        """The value itself: a number is an int."""
        return int(text) if isinstance(self.values, range) else text


def _numbers(least: int, most: int = FOREVER) -> range:
    return range(least, most + 1)


TOPIC_CONFIGS = {config.name: config for config in (
    TopicConfig("cleanup.policy", "delete", ("delete",), None,
                "what happens to old records"),
    TopicConfig("compression.type", "producer", ("producer", "uncompressed", "gzip", "lz4"),
                "compression", "the codec of stored batches; producer: as it chose"),
    TopicConfig("flush.ms", str(FOREVER), _numbers(1), "flush_interval_ms",
                "ms until a record is on disk, if durability is 'interval': 100 by default"),
    TopicConfig("index.interval.bytes", "4096", _numbers(0, 1 << 30), "index_interval_bytes",
                "bytes of records per entry of the index"),
    TopicConfig("max.message.bytes", "1048588", _numbers(128, 1 << 30), "max_message_bytes",
                "the largest batch"),
    TopicConfig("message.timestamp.type", "CreateTime", ("CreateTime", "LogAppendTime"),
                "timestamp_type", "whose clock a record's timestamp is"),
    TopicConfig("retention.bytes", "-1", _numbers(-1), None,
                "bytes kept of each partition; -1: all"),
    TopicConfig("retention.ms", "604800000", _numbers(-1), None,
                "how long records are kept; -1: for ever"),
    TopicConfig("segment.bytes", "1073741824", _numbers(4096, 1 << 30), "segment_bytes",
                "size at which a new file is begun"),
    TopicConfig("segment.ms", "604800000", _numbers(1), None,
                "age at which a new file is begun"),
)}

# What the words of Kafka are as arguments of pylog.Log.
_WORDS: dict[str, str | None] = {
    "CreateTime": "create", "LogAppendTime": "append", "uncompressed": None, "producer": None,
}
ALTERABLE = {"segment_bytes", "max_message_bytes", "timestamp_type", "flush_interval_ms"}
_FLUSH_MS_MAX = 86_400_000    # of pylog.Log: a day

_NO_REPLICAS = "a directory has no replicas"
_NO_REMOTE = "there is no second, remote storage"
_NO_COMPACTION = "compaction is not built yet"
_NO_OLD_FORMAT = "there is one format of messages"
_NOT_CHECKED = "any timestamp is taken"
REFUSED = {
    "delete.retention.ms": _NO_COMPACTION,
    "file.delete.delay.ms": "a deleted file lives as long as its last reader, and no longer",
    "flush.messages": "the log's durability says when records are flushed; see also flush.ms",
    "follower.replication.throttled.replicas": _NO_REPLICAS,
    "leader.replication.throttled.replicas": _NO_REPLICAS,
    "local.retention.bytes": _NO_REMOTE,
    "local.retention.ms": _NO_REMOTE,
    "max.compaction.lag.ms": _NO_COMPACTION,
    "message.downconversion.enable": _NO_OLD_FORMAT,
    "message.format.version": _NO_OLD_FORMAT,
    "message.timestamp.after.max.ms": _NOT_CHECKED,
    "message.timestamp.before.max.ms": _NOT_CHECKED,
    "message.timestamp.difference.max.ms": _NOT_CHECKED,
    "min.cleanable.dirty.ratio": _NO_COMPACTION,
    "min.compaction.lag.ms": _NO_COMPACTION,
    "min.insync.replicas": _NO_REPLICAS,
    "preallocate": "files are always preallocated, and trimmed when they are full",
    "remote.log.copy.disable": _NO_REMOTE,
    "remote.log.delete.on.disable": _NO_REMOTE,
    "remote.storage.enable": _NO_REMOTE,
    "segment.index.bytes": "an index is as large as its segment needs",
    "segment.jitter.ms": "there are no thousand brokers to keep from rolling at once",
    "unclean.leader.election.enable": _NO_REPLICAS,
}


def check_configs(configs: Mapping[str, object] | None) -> dict[str, str]:
    """Returns the configs as text. A number may be an int.

    Raises InvalidConfigError, NotSupportedError (compaction, codecs that cannot be written yet),
    TypeError.

        >>> check_configs({"retention.ms": 3_600_000, "compression.type": "lz4"})
        {'retention.ms': '3600000', 'compression.type': 'lz4'}
    """
    if configs is None:
        return {}
    return {config_named(name).name: check_config(name, value)
            for name, value in _dict(configs).items()}


def _dict(configs: Mapping[str, object]) -> Mapping[str, object]:
    if not isinstance(configs, Mapping):
        raise TypeError(f"configs must be a dict, not {type(configs).__name__}")
    return configs


def config_named(name: object) -> TopicConfig:
    """Raises InvalidConfigError with the reason, or with the closest name that there is."""
    if not isinstance(name, str):
        raise TypeError(f"the name of a config must be a str, not {type(name).__name__}")
    if name in TOPIC_CONFIGS:
        return TOPIC_CONFIGS[name]
    if name in REFUSED:
        raise InvalidConfigError(
            f"{name} cannot be set: {REFUSED[name]}; leave it out", config=name)
    advice = closest(name, TOPIC_CONFIGS) or f"; there are {', '.join(TOPIC_CONFIGS)}"
    raise InvalidConfigError(f"there is no topic config {name!r}{advice}", config=name)


def check_config(name: str, value: object) -> str:
    """Returns the value of a config as text; raises as `check_configs`.

        >>> check_config("segment.bytes", 1 << 20)
        '1048576'
    """
    config = config_named(name)
    text = value if isinstance(value, str) else str(_native.to_int(value, f"{name}, if not a str,"))
    if isinstance(config.values, range):
        return _check_number(config, text)
    if text not in config.values:
        _refuse_unbuilt(name, text)
        raise InvalidConfigError(
            f"{name}={text!r} is unknown; use {' or '.join(config.values)}",
            config=name, value=text,
        )
    return text


def _check_number(config: TopicConfig, text: str) -> str:
    least, most = config.values[0], config.values[-1]
    is_number = re.fullmatch(r"-?[0-9]{1,30}", text)
    if not is_number or int(text) not in config.values:
        shown = text if is_number else repr(text if len(text) <= 30 else text[:27] + "...")
        raise InvalidConfigError(
            f"{config.name}={shown} is impossible; use a whole number from {least} to {most}",
            config=config.name, value=text,
        )
    return str(int(text))


def _refuse_unbuilt(name: str, text: str) -> None:
    """Kafka knows these words, and pylog will."""
    policies = {word.strip() for word in text.split(",")}
    if name == "cleanup.policy" and "compact" in policies <= {"compact", "delete"}:
        raise NotSupportedError(
            f"{name}={text!r}: compaction is not built yet; use 'delete', with retention.ms=-1 to "
            "keep all")
    if name == "compression.type" and text in ("snappy", "zstd"):
        raise NotSupportedError(
            f"{name}={text!r} cannot be written yet; use 'lz4', 'gzip', 'uncompressed' or "
            "'producer'")


def config_value(configs: Mapping[str, str], name: str) -> Any:
    """What holds for a topic: an int or a word, its own or the default.

        >>> config_value({}, "retention.ms"), config_value({"retention.ms": "-1"}, "retention.ms")
        (604800000, -1)
    """
    config = config_named(name)
    return config.parse(configs.get(name, config.default))


def log_options(configs: Mapping[str, str]) -> dict[str, Any]:
    """The arguments of pylog.Log that a topic's configs are; those at their default are left out.

        >>> log_options({"segment.bytes": "65536", "retention.ms": "-1"})
        {'segment_bytes': 65536}
    """
    options = {}
    for name, text in configs.items():
        config = config_named(name)
        if config.option is None or text == config.default:
            continue
        value = config.parse(text)
        if name == "flush.ms":
            value = min(int(value), _FLUSH_MS_MAX)
        options[config.option] = _WORDS.get(value, value) if isinstance(value, str) else value
    return options


def altered_options(configs: Mapping[str, str], options: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of Log.alter that bring a log of these options to what its topic's configs are.

        >>> altered_options({"segment.bytes": "65536"}, {"segment_bytes": 1 << 30,
        ...     "max_message_bytes": 1048588, "timestamp_type": "create"})
        {'segment_bytes': 65536}
    """
    found = {}
    for config in TOPIC_CONFIGS.values():
        if config.option in ALTERABLE and config.option in options:
            value: Any = config_value(configs, config.name)
            if config.option == "flush_interval_ms" and config.name not in configs:
                continue    # by default it is the log's own
            value = _WORDS.get(value, value) if isinstance(value, str) else value
            if config.option == "flush_interval_ms":
                value = min(value, _FLUSH_MS_MAX)
            if value != options[config.option]:
                found[config.option] = value
    return found


def codec_of(configs: Mapping[str, str]) -> str | None:
    """What append_many compresses with."""
    return _WORDS.get(word := config_value(configs, "compression.type"), word)


def check_alterable(configs: Mapping[str, object]) -> None:
    """Raises InvalidConfigError for one that is what the topic was created with, for ever."""
    for name in _dict(configs):
        option = config_named(name).option
        if option is not None and option not in ALTERABLE and option != "compression":
            raise InvalidConfigError(
                f"{name} cannot be altered: files that are there would no longer be what they say; "
                "set it when a topic is created", config=name)


def configs_of(options: Mapping[str, int] | None) -> dict[str, str]:
    """The configs that log.meta still shows, where the words about its topic are lost.

    options: as `_native.load_meta` gives them. What is lost for good are the retentions: they come
    back as "keep all", lest a default delete what somebody wanted kept.
    """
    found = {} if options is None else {
        "index.interval.bytes": str(options["index_interval_bytes"]),
        "max.message.bytes": str(options["max_message_bytes"]),
        "message.timestamp.type": ("CreateTime", "LogAppendTime")[options["append_time"]],
        "segment.bytes": str(options["segment_bytes"]),
    }
    kept = {name: text for name, text in found.items() if text != TOPIC_CONFIGS[name].default}
    return {**kept, "retention.ms": "-1", "retention.bytes": "-1"}
