"""What a consumer costs over the log that it reads, waits for, and over Kafka's client library.

The topic has three partitions; beside it stands a log with the same records. All CRCs are checked
anew in each pass. confluent-kafka reads from the mock cluster that is built into it, over a socket
of this machine.
"""

from __future__ import annotations

import asyncio
import mmap
import resource
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial

from bench import yardsticks
from bench.appending import append_bound
from bench.harness import Case, Figure, Probe, Question, Target, format_time, is_steady
from bench.processes import STAMP, baton_run, other_process, ping
from bench.workspace import CHUNK_BYTES, Workspace, read_values
from pylog import AsyncConsumer, Consumer, Producer
from pylog.broker import Broker

try:
    import confluent_kafka
except ImportError:
    confluent_kafka = None
    print("SKIPPED: consumer against confluent-kafka, which is not installed "
          "(pip install --group bench)", file=sys.stderr)

PARTITIONS, LIST, IDLE_PARTITIONS = 3, 500, 50
FETCHED_SECONDS = 0.3    # by then its own threads have fetched a round
TOPIC = "bench"


# ---- reading what is there ----------------------------------------------------------------------

def filled_broker(workspace: Workspace) -> Broker:
    """A broker with the values of `filled(memory_records)`, dealt out to its partitions."""
    broker = workspace.closing(Broker(workspace.path("broker")))
    broker.create_topic(TOPIC, PARTITIONS)
    values = workspace.values(workspace.sizes.memory_records)
    for number in range(PARTITIONS):
        log = broker.log(TOPIC, number)
        part = values[number::PARTITIONS]
        for at in range(0, len(part), 10_000):
            log.append_many(part[at:at + 10_000])
        log.flush()
        if list(read_values(log)) != part:
            raise AssertionError("the topic does not hold what was written")
    return broker


def from_topic(workspace: Workspace, kind: type, read: Callable, **options) -> Case:
    """A case that reads all of it, from the beginning; `read(consumer)` says how many."""
    broker = filled_broker(workspace)
    logs = [broker.log(TOPIC, number) for number in range(PARTITIONS)]
    consumer = kind(broker, TOPIC, consumer_timeout_ms=0, **options)
    read(consumer)    # in a group, it has its partitions now
    count, found = workspace.sizes.memory_records, 0

    def reset() -> None:
        consumer.seek_to_beginning()
        for log in logs:
            log._forget_verified()

    def run() -> None:
        nonlocal found
        found = read(consumer)

    def check() -> None:
        if found != count:
            raise AssertionError(f"{found} records were read of {count}")
        if not all(log._verified_bytes() for log in logs):
            raise AssertionError("no CRC was checked")

    return Case(run, count, reset=reset, check=check)


def from_log(workspace: Workspace, read: Callable) -> Case:
    log, count = workspace.filled(workspace.sizes.memory_records), workspace.sizes.memory_records
    found = 0

    def run() -> None:
        nonlocal found
        found = read(log)

    def check() -> None:
        if found != count:
            raise AssertionError(f"{found} records were read of {count}")

    return Case(run, count, reset=log._forget_verified, check=check)


def count_records(records) -> int:
    number = 0
    for _ in records:
        number += 1
    return number


async def count_later(consumer) -> int:
    number = 0
    async for _ in consumer:
        number += 1
    return number


def count_lists(consumer) -> int:
    number = 0
    while records := consumer.consume(LIST, 0):
        number += len(records)
    return number


def count_fetched(log) -> int:
    cursor, number = log.cursor(), 0
    while records := list(cursor.fetch(LIST, CHUNK_BYTES)):
        number += len(records)
    return number


def read_loop(workspace: Workspace) -> Case:
    return from_log(workspace, lambda log: count_records(log.read()))


def fetch_lists(workspace: Workspace) -> Case:
    return from_log(workspace, count_fetched)


def consumer_loop(workspace: Workspace) -> Case:
    return from_topic(workspace, Consumer, count_records, group_id="bench",
                      auto_commit_interval_ms=100)


def plain_loop(workspace: Workspace) -> Case:
    return from_topic(workspace, Consumer, count_records)


def async_loop(workspace: Workspace) -> Case:
    loop = workspace.closing(asyncio.new_event_loop())
    return from_topic(workspace, AsyncConsumer,
                      lambda consumer: loop.run_until_complete(count_later(consumer)))


def consume_lists(workspace: Workspace) -> Case:
    return from_topic(workspace, Consumer, count_lists)


def consume_from_mock(workspace: Workspace) -> Case:
    """The loop of `count_lists`, by confluent-kafka, whose threads have fetched all before the
    clock runs. The mock keeps 5 MB of a partition, so each round's records are produced anew."""
    count = min(workspace.sizes.round_records, 20_000)
    producer = confluent_kafka.Producer({
        "bootstrap.servers": "", "test.mock.num.brokers": 1, "log_level": 0,
        "queue.buffering.max.messages": 2 * count})
    values = workspace.values(count)
    producer.produce(TOPIC, b"first", partition=0)
    producer.flush(60)
    brokers = producer.list_topics(timeout=30).brokers.values()
    consumer = workspace.closing(confluent_kafka.Consumer({
        "bootstrap.servers": ",".join(f"{one.host}:{one.port}" for one in brokers),
        "group.id": "bench", "enable.auto.commit": False, "log_level": 0,
        "fetch.wait.max.ms": 5, "fetch.queue.backoff.ms": 1}))
    consumer.assign([confluent_kafka.TopicPartition(TOPIC, 0, 0)])
    if not consumer.consume(1, 30):
        raise AssertionError("confluent-kafka did not deliver")
    found: list[bytes] = []

    def reset() -> None:
        found.clear()
        for value in values:
            producer.produce(TOPIC, value, partition=0)
        if producer.flush(60):
            raise AssertionError("confluent-kafka did not deliver")
        time.sleep(FETCHED_SECONDS)

    def run() -> None:
        number = 0
        while number < count:
            records = consumer.consume(LIST, 10)
            if not records:
                return
            number += len(records)
        found.append(records[-1].value())

    def check() -> None:
        if found != values[-1:]:
            raise AssertionError("confluent-kafka returned something else than was sent")

    return Case(run, count, reset=reset, check=check)


# ---- waiting ------------------------------------------------------------------------------------

def measure_idle(workspace: Workspace, rounds: int) -> list[Figure]:
    """The whole process: its main thread in a poll, the housekeeper and what else there is."""
    broker = workspace.closing(Broker(workspace.path("broker")))
    broker.create_topic(TOPIC, IDLE_PARTITIONS)
    for number in range(IDLE_PARTITIONS):
        broker.log(TOPIC, number).append(b"value")
    with Consumer(broker, TOPIC, group_id="bench") as consumer:
        while consumer.poll(timeout_ms=2500):
            pass
        seconds = workspace.sizes.idle_seconds
        before = resource.getrusage(resource.RUSAGE_SELF)
        consumer.poll(timeout_ms=seconds * 1000)
        after = resource.getrusage(resource.RUSAGE_SELF)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    woken = (after.ru_nvcsw - before.ru_nvcsw) / seconds
    return [Figure(
        "idle", f"idle consumer of {IDLE_PARTITIONS} partitions: CPU of the process",
        100 * used / seconds, None, "% of a core", 0.1,
        detail=f"{1000 * used:.1f} ms in {seconds:g} s, {woken:.1f} wake-ups a second")]


def send_stamps(connection, path: str, baton_path: str) -> None:
    with Producer(path) as producer:
        ping(connection, baton_path, partial(producer.send, TOPIC))


def end_to_end_run(consumer, connection, count: int) -> float:
    """Median seconds from a producer's stamp to the record's bytes in a consumer's hand."""
    clock, taken = time.perf_counter_ns, []
    connection.send(("log", count))
    while len(taken) < count:
        value = next(consumer).value
        taken.append(clock() - STAMP.unpack_from(value)[0])
    return statistics.median(taken) / 1e9


def measure_end_to_end(workspace: Workspace, rounds: int) -> list[Figure]:
    broker = workspace.closing(Broker(workspace.path("broker")))
    baton_path = workspace.path("baton")
    broker.create_topic(TOPIC, PARTITIONS)
    baton_path.write_bytes(bytes(4096))
    pings = max(1, workspace.sizes.sleeps // rounds)
    ours, bare = [], []
    with (
        open(baton_path, "r+b") as file,
        other_process(send_stamps, str(broker.path), str(baton_path)) as connection,
        Consumer(broker, TOPIC, group_id="bench") as consumer,
    ):
        consumer.poll()
        baton = yardsticks.Baton(mmap.mmap(file.fileno(), 4096))
        for _ in range(rounds):
            bare.append(baton_run(baton, connection, pings))
            ours.append(end_to_end_run(consumer, connection, pings))
    return [Figure(
        "end_to_end", "from send to a waiting consumer: p50 over a bare futex",
        min(ours) / min(bare), statistics.median(a / b for a, b in zip(ours, bare, strict=True)),
        "x", 1.5, 1.2, is_steady=is_steady(bare),
        detail=f"{format_time(min(ours))} against {format_time(min(bare))}")]


# ---- committing ---------------------------------------------------------------------------------

def commit_each(workspace: Workspace) -> Case:
    """Each record is taken and committed: the step to the next one is in the figure."""
    broker, count = workspace.closing(Broker(workspace.path("broker"))), \
        workspace.sizes.round_records
    broker.create_topic(TOPIC, 1)
    log = broker.log(TOPIC)
    log.append_many(workspace.values(count))
    consumer = Consumer(broker, TOPIC, group_id="bench", enable_auto_commit=False,
                        consumer_timeout_ms=0)
    count_records(consumer)    # it has its partition now

    def run() -> None:
        commit = consumer.commit
        for _ in consumer:
            commit()

    def check() -> None:
        (partition,) = consumer.assignment()
        if consumer.committed(partition) != count:
            raise AssertionError(f"{consumer.committed(partition)} is committed, of {count}")

    return Case(run, count, reset=consumer.seek_to_beginning, check=check)


QUESTIONS = (
    Question(
        "commit", "take a record and commit it, one partition",
        {"Log.append": append_bound, "commit": commit_each},
        (Target("next record, then commit(), one partition", "commit", "Log.append", 5, 2),),
    ),
    Question(
        "consume_loop", "read all of a topic of three partitions, record by record",
        {"log.read": read_loop, "consumer": consumer_loop, "no group": plain_loop,
         "async": async_loop},
        (
            Target("for record in consumer, commits every 100 ms", "consumer", "log.read", 1.25,
                   1.1),
            Target("for record in consumer, no group", "no group", "log.read"),
            Target("async for record in consumer", "async", "no group", 0.5, 0.8, is_speed=True),
        ),
    ),
    Question(
        "consume_lists", "read all of a topic of three partitions, in lists of 500",
        {"log.fetch": fetch_lists, "consume": consume_lists},
        (Target("consume(500)", "consume", "log.fetch", 1.2, 1.05),),
    ),
)
if confluent_kafka:
    QUESTIONS += (
        Question(
            "consumer", "the same loop by pylog and by confluent-kafka with its mock cluster",
            {"confluent-kafka": consume_from_mock, "pylog": consume_lists},
            (Target("consume(500), over confluent-kafka", "pylog", "confluent-kafka", 5, 15,
                    is_speed=True),),
        ),
    )
PROBES = (
    Probe("idle", "what a consumer costs that waits", measure_idle),
    Probe("end_to_end", "from a producer to a consumer in another process", measure_end_to_end),
)
