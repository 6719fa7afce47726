"""What a producer costs over the log that it appends to, and over Kafka's own client library.

Every case sends to a topic, or appends to a log, of its own in steady state, as in `appending`.
confluent-kafka sends to the mock cluster that is built into it, in its own process: no broker, no
disk and no network, only what the client itself does.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable

from bench.appending import LIST, append_bound, append_lists
from bench.harness import Case, Question, Target
from bench.workspace import Workspace
from pylog import Producer
from pylog.broker import Broker

try:
    import confluent_kafka
except ImportError:
    confluent_kafka = None
    print("SKIPPED: producer against confluent-kafka, which is not installed "
          "(pip install --group bench)", file=sys.stderr)

PARTITIONS = 3


def to_topic(workspace: Workspace, send: Callable, **options) -> Case:
    """A case that sends the round's values, and reads all back at the end."""
    broker = workspace.closing(Broker(workspace.path("broker")))
    broker.create_topic("bench", PARTITIONS)
    producer = workspace.closing(Producer(broker, **options))
    values = workspace.values(workspace.sizes.round_records)
    rounds = 0

    def reset() -> None:
        nonlocal rounds
        rounds += 1

    def finish() -> None:
        producer.flush()
        found = Counter(record.value for record in broker.read("bench"))
        if found != dict.fromkeys(values, rounds):
            raise AssertionError("the topic holds something else than what was sent")

    return Case(lambda: send(producer, values), len(values), reset=reset, finish=finish)


def send_each(producer: Producer, values: list[bytes]) -> None:
    send = producer.send
    for v in values: send("bench", v)    # noqa: E701


def send_bound(workspace: Workspace) -> Case:
    return to_topic(workspace, send_each)


def send_with_key(workspace: Workspace) -> Case:
    def send(producer, values):
        f, k = producer.send, b"key-0001"
        for v in values:
            f("bench", v, key=k)

    return to_topic(workspace, send)


def send_lingering(workspace: Workspace) -> Case:
    def send(producer, values):
        send_each(producer, values)
        producer.flush()

    return to_topic(workspace, send, linger_ms=5)


def send_lists(workspace: Workspace, keys: list[bytes] | None = None) -> Case:
    values = workspace.values(workspace.sizes.round_records)
    lists = [values[at:at + LIST] for at in range(0, len(values), LIST)]

    def send(producer, values):
        for part in lists:
            producer.send_many("bench", part, keys)

    return to_topic(workspace, send)


def send_keyed_lists(workspace: Workspace) -> Case:
    size = min(LIST, workspace.sizes.round_records)
    return send_lists(workspace, [b"key-%04d" % (number % 1000) for number in range(size)])


def send_to_mock(workspace: Workspace) -> Case:
    """The loop of `send_each`, and a flush, by confluent-kafka."""
    producer = confluent_kafka.Producer({
        "bootstrap.servers": "", "test.mock.num.brokers": 1, "log_level": 0,
        "queue.buffering.max.messages": 10 * workspace.sizes.round_records})
    values = workspace.values(workspace.sizes.round_records)
    delivered = 0

    def note(error, _) -> None:
        nonlocal delivered
        delivered += error is None

    def run() -> None:
        send = producer.produce
        for v in values: send("bench", v)    # noqa: E701
        producer.flush()

    def check() -> None:
        producer.produce("bench", b"last", on_delivery=note)
        if producer.flush(30) or not delivered:
            raise AssertionError("confluent-kafka did not deliver")

    return Case(run, len(values), check=check)


QUESTIONS = (
    Question(
        "send", "send one record of 100 bytes to a topic of three partitions",
        {"append": append_bound, "send": send_bound, "send, key": send_with_key},
        (
            Target("Producer.send(topic, value), linger 0", "send", "append", 2.0, 1.5),
            Target("Producer.send(topic, value, key=...), linger 0", "send, key", "append"),
        ),
    ),
    Question(
        "send_many", "send 100-byte records in lists of 10,000 to a topic of three partitions",
        {"append_many": append_lists, "send_many": send_lists, "with keys": send_keyed_lists},
        (
            Target("send_many(list)", "send_many", "append_many", 1.2, 1.05),
            Target("send_many(list, keys), over 3 partitions", "with keys", "append_many", 2.5,
                   1.6),
        ),
    ),
)
if confluent_kafka:
    QUESTIONS += (
        Question(
            "producer", "the same loop by pylog and by confluent-kafka with its mock cluster",
            {"confluent-kafka": send_to_mock, "pylog": send_bound, "linger": send_lingering},
            (
                Target("the same producer, over confluent-kafka", "pylog", "confluent-kafka", 5,
                       15, is_speed=True),
                Target("the same, linger_ms=5 in both", "linger", "confluent-kafka",
                       is_speed=True),
            ),
        ),
    )
