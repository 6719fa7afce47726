"""pylog.Producer: sends records to topics, as Kafka's producers do.

The hot call is native (`_native.Sender`); here is what is decided once: options, what is known of
the topics, lists, how it ends. Batches that linger are accumulator.py's.
"""

import os
from collections.abc import Iterable
from itertools import chain, repeat
from typing import Any, Literal, Self

from pylog import _native
from pylog.accumulator import Accumulator
from pylog.broker import Broker
from pylog.compression import CODECS, codec_number
from pylog.errors import ConfigurationError, MetadataError, NotSupportedError
from pylog.kafka_options import takes_options
from pylog.log import Log
from pylog.metadata_file import TopicEntry
from pylog.options import patience
from pylog.partitioner import HashPartitioner, make_partitioner
from pylog.serde import Serialize, make_serializer
from pylog.topic import BatchMetadata, RecordMetadata, TopicPartition, config_value

Acks = Literal[0, 1, -1, "all"]

NUMBER_MAX = 1 << 40    # of bytes and of milliseconds


@takes_options("Producer")
class Producer(_native.Sender):
    """Sends records to the topics of a broker. A context manager; safe for threads.

    broker: a Broker, or the path of one, which is then closed with the producer.

    acks: 0 and 1 return when the record is appended, "all" (or -1) when it is as durable as its log
    promises. linger_ms: 0 appends each record at once; else records gather in batches of a
    partition, for so long at most, and a thread appends them. batch_size: bytes of such a batch.
    buffer_memory: bytes of all of them. max_block_ms: how long send waits when these are used up.
    compression_type: None, "lz4" or "gzip", of batches and of lists; single records are never
    compressed, and a topic whose compression.type is not "producer" decides itself.

    partitioner: "murmur2" (Kafka's own), "crc32" (librdkafka's), "round_robin", or a callable
    (key, all_partitions, available). key_serializer, value_serializer: "str", "json", a callable,
    or an object with `serialize`. enable_idempotence, transactional_id: False and None only; what
    they stand for is not built yet.

    The batches of a partition are appended in order, one at a time. One that fails is not tried
    again; its futures tell, and the batches behind it are appended all the same. What no future has
    been asked about, the next `flush` or `close` raises.

        >>> with Producer("data/shop", value_serializer="json") as producer:
        ...     metadata = producer.send("orders", {"apples": 12}, key=b"alice").get()
        ...     metadata.topic, metadata.offset
        ('orders', 0)

    Raises ConfigurationError, NotSupportedError (transactions), and what Broker raises.
    """

    __slots__ = ("_accumulator", "_batch_size", "_broker", "_codec", "_is_interrupted", "_is_owner",
                 "_key_serializer", "_partitioner", "_value_serializer")

    def __init__(
        self,
        broker: Broker | str | os.PathLike[str],
        *,
        acks: Acks = "all",
        linger_ms: float = 0,
        batch_size: int = 16384,
        buffer_memory: int = 33_554_432,
        max_block_ms: float = 60_000,
        compression_type: str | None = None,
        partitioner: Any = None,
        key_serializer: Any = None,
        value_serializer: Any = None,
        enable_idempotence: bool = False,
        transactional_id: str | None = None,
    ) -> None:
        _refuse_unbuilt(enable_idempotence, transactional_id)
        waits = _taken_acks(acks) == "all"
        linger = _at_least("linger_ms", linger_ms, 0)
        self._batch_size = int(_at_least("batch_size", batch_size, 1))
        self._codec = codec_number(compression_type, "compression_type")
        self._partitioner = partitioner
        make_partitioner(partitioner, 1)    # raises for what is none
        self._key_serializer = make_serializer(key_serializer, "key_serializer")
        self._value_serializer = make_serializer(value_serializer, "value_serializer")
        self._accumulator = Accumulator(
            linger, self._batch_size, int(_at_least("buffer_memory", buffer_memory, 1)),
            _at_least("max_block_ms", max_block_ms, 0), waits, blocks=not self._defers)
        self._is_interrupted = False
        self._broker, self._is_owner = Broker.of(broker)
        self._broker.dependents.add(self)
        self._prepare(self._key_serializer, self._value_serializer, linger > 0, waits, self._defers,
                      self._accumulator.pool)

    _defers = False    # it is the caller who waits for the disk

    # ---- what the native half asks

    def _accumulate(self, *record: Any) -> tuple[Any, int]:
        return self._accumulator.add(*record)

    def _find(self, topic: str) -> _native.Target:
        entry = self._broker.topic(topic)
        partitioner = make_partitioner(self._partitioner, entry.partitions)
        hash_name = partitioner.name if isinstance(partitioner, HashPartitioner) else None
        target = _native.Target(topic, entry.partitions, partitioner, hash_name, self._batch_size,
                                _metadata)
        target.renew(entry, entry.partitions, self._codec_of(entry))
        return target

    def _look(self) -> None:
        """Whether anything has changed about the topics that are sent to."""
        try:
            entries = self._broker.topics()
        except MetadataError:    # the logs do not depend on it, nor does who appends to them
            return
        for topic, target in list(self._targets.items()):
            entry = entries.get(topic)
            if entry is None or entry.topic_id != target.entry.topic_id:
                self._forget(topic)
            elif entry != target.entry:
                target.renew(entry, entry.partitions, self._codec_of(entry))

    def _codec_of(self, entry: TopicEntry) -> int:
        codec = config_value(entry.configs, "compression.type")
        return self._codec if codec == "producer" else CODECS.get(codec, 0)

    def _open_log(self, topic: str, partition: int) -> Log:
        return self._broker.log(topic, partition)

    # ---- lists

    def send_many(
        self, topic: str, values: Iterable[Any], keys: Iterable[Any] | None = None,
        headers: Any = None, timestamps_ms: Any = None, partition: int | None = None,
    ) -> list[BatchMetadata]:
        """Sends many records; visible to every process when it returns, whatever the linger.

        Parallel lists, as Log.append_many takes them. Returns where they went: an entry for each
        partition that got some. Without keys and partition all go to one partition, and the next
        list to another. What lingers is appended first.

        All is checked before anything is appended. When the disk is full or a lock is held halfway,
        the error says which partitions have theirs, and how many of the next one's are in.

        Cost: as Log.append_many; 15 ns a record more where keys choose. Raises as `send`.
        """
        target, values, keys, headers = self._prepared_lists(topic, values, keys, headers)
        self._accumulator.drain()
        return self._send_lists(target, values, keys, headers, timestamps_ms, partition)

    def _prepared_lists(
        self, topic: str, values: Iterable[Any], keys: Iterable[Any] | None, headers: Any
    ) -> tuple[_native.Target, list[Any], list[Any] | None, Any]:
        target = self._target(topic)
        if headers is not None and not hasattr(headers, "__len__"):
            headers = list(headers)    # each serializer goes through them, and so does the log
        values = self._serialized(self._value_serializer, topic, values, headers)
        if keys is not None:
            keys = self._serialized(self._key_serializer, topic, keys, headers)
        return target, values, keys, headers

    def _send_lists(
        self, target: _native.Target, values: list[Any], keys: list[Any] | None, headers: Any,
        timestamps: Any, partition: int | None,
    ) -> list[BatchMetadata]:
        try:
            done = self._append_lists(target, values, keys, headers, timestamps, partition)
        except TypeError as error:    # of a log's, which knows of no serializers
            raise (_native.refused_entry(values, keys) or error) from None
        target.took(values, keys)
        topic = target.topic
        return [BatchMetadata(topic, place, TopicPartition(topic, place), offset, count)
                for place, offset, count in done if count]

    def _append_lists(
        self, target: _native.Target, values: list[Any], keys: list[Any] | None, headers: Any,
        timestamps: Any, partition: int | None,
    ) -> list[tuple[int, int, int]]:
        done: list[tuple[int, int, int]]
        if partition is not None:
            return self._append_list(target, self._place(target, partition), values, keys, headers,
                                     timestamps)
        if keys is None and isinstance(
                place := target.partitioner.partitions(None, len(values)), int):
            done = self._append_list(target, place, values, None, headers, timestamps)
            target.move_on(place)
            return done
        logs = [self._log(target, number) for number in range(target.partitions)]
        done = target.partitioner.append_many(
            logs, values, keys, headers, timestamps, None, target.codec, self._waits)
        return done

    def _append_list(
        self, target: _native.Target, place: int, values: list[Any], keys: list[Any] | None,
        headers: Any, timestamps: Any,
    ) -> list[tuple[int, int, int]]:
        log = self._log(target, place)
        offset = _native.append_list(log, values, keys, headers, timestamps, target.codec,
                                     self._waits)
        return [(place, offset, len(values))]

    @staticmethod
    def _serialized(
        serialize: Serialize | None, topic: str, column: Iterable[Any], headers: Any
    ) -> list[Any]:
        if isinstance(column, str | bytes):
            raise TypeError(f"expected a list of values or keys, not {type(column).__name__}")
        if serialize is None:
            return column if isinstance(column, list) else list(column)
        each = chain(headers or (), repeat(None))    # too few are the log's to refuse
        return [serialize(topic, heads, one) for one, heads in zip(column, each, strict=False)]

    # ---- what can be asked

    def partitions_for(self, topic: str) -> set[int]:
        """The numbers of a topic's partitions, as of a second ago or later."""
        return set(range(self._target(topic).partitions))

    def metrics(self) -> dict[str, dict[str, float]]:
        """Counters by Kafka's names, of the producer and of each topic, since it was made. Records
        are counted when they are accepted, with the bytes of key and value; batches, those that
        linger, when they are appended, with their bytes before compression."""
        buffer = self._accumulator
        topics: dict[str, dict[str, float]] = {
            f"producer-topic-metrics.{topic}": {
                "record-send-total": target.records, "byte-total": target.bytes}
            for topic, target in self._targets.items()}
        records, size = (sum(one[figure] for one in topics.values())
                         for figure in ("record-send-total", "byte-total"))
        batches = buffer.batches_total
        return {"producer-metrics": {
            "record-send-total": records,
            "byte-total": size,
            "record-size-avg": size / max(1, records),
            "record-error-total": buffer.errors_total,
            "batch-total": batches,
            "batch-size-avg": buffer.batch_bytes_total / max(1, batches),
            "records-per-request-avg": buffer.batch_records_total / max(1, batches),
            "buffer-total-bytes": buffer.buffer_memory,
            "buffer-available-bytes": buffer.buffer_memory - buffer.pool.bytes,
            "records-pending": buffer.pool.records,
            "waiting-threads": buffer.waiting_threads,
        }, **topics}

    # ---- the end

    def flush(self, timeout: float | None = None) -> None:
        """Returns when all that was sent before is appended, or has failed.

        Raises PylogTimeoutError after `timeout` seconds, and the first error of a batch of whose
        futures none has been asked. Nothing to do with the disk: that is the log's durability.
        """
        self._check_usable()
        self._accumulator.flush(patience("timeout", timeout))

    def close(self, timeout: float | None = None) -> None:
        """Appends what is in the buffer; raises as `flush`. Idempotent.

        What cannot be appended within `timeout` seconds is given up, and the error says how much. A
        producer that is not closed appends its buffer all the same, also when the interpreter ends.
        """
        patience("timeout", timeout)
        if not self._end() and not self._is_interrupted:
            return
        self._is_interrupted = True    # by Ctrl-C: the buffer is appended still, and needs the logs
        try:
            self._accumulator.close(timeout)
            self._is_interrupted = False
        except Exception:
            self._is_interrupted = False
            raise
        finally:
            if self._is_owner and not self._is_interrupted:
                self._broker.close()

    def _close_with_broker(self) -> None:
        self.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __del__(self) -> None:
        if accumulator := getattr(self, "_accumulator", None):
            accumulator.abandon()

    def __repr__(self) -> str:
        return f"<Producer of {str(self._broker.path)!r}{', closed' if self.closed else ''}>"

    def __reduce__(self) -> Any:
        raise TypeError("a producer cannot be pickled; make one in the other process")


def _metadata(topic: str, partition: int, offset: int, timestamp: int, key_size: int,
              value_size: int, headers_size: int) -> RecordMetadata:
    return RecordMetadata(topic, partition, TopicPartition(topic, partition), offset, timestamp,
                          None, key_size, value_size, headers_size)


def _refuse_unbuilt(enable_idempotence: Any, transactional_id: Any) -> None:
    if transactional_id is not None:
        raise NotSupportedError(
            f"transactional_id={transactional_id!r}: transactions are not built yet; they will "
            "make records of several partitions visible together, and commit offsets with them; "
            "until then leave it out; Log.append_many(atomic=True) is all or nothing in one "
            "partition")
    if enable_idempotence:
        raise NotSupportedError(
            "enable_idempotence=True is not built yet; it will come with transactions, so that "
            "what is sent again after a crash is told from what is new; leave it out: nothing "
            "between a producer and its log repeats a record by itself")


def _taken_acks(acks: Any) -> Acks:
    if not isinstance(acks, bool) and acks in (0, 1, -1, "all"):
        return "all" if acks == -1 else acks
    raise ConfigurationError(f"acks={acks!r} is unknown; use 0, 1 or 'all'", option="acks",
                             value=acks)


def _at_least(option: str, value: Any, least: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{option} must be a number, not {type(value).__name__}")
    if not least <= value <= NUMBER_MAX:
        raise ConfigurationError(
            f"{option}={value} is impossible; use {least} to {NUMBER_MAX:,}", option=option,
            value=value)
    return value
