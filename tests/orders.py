"""A broker with the topic "orders" in three partitions, and what is in it."""

from pylog import TopicPartition
from pylog.broker import Broker

NOON = 1_700_000_000_000
ORDERS = [TopicPartition("orders", number) for number in range(3)]


def orders_broker(path):
    broker = Broker(path, auto_create_topics=False)
    broker.create_topic("orders", 3, {"retention.ms": -1})    # NOON was long ago
    return broker


def fill(broker, count=10, topic="orders", partitions=3):
    """count records a partition: b"<partition>:<offset>", a second apart."""
    for partition in range(partitions):
        for number in range(count):
            broker.append(topic, b"%d:%d" % (partition, number), partition=partition,
                          timestamp=NOON + 1000 * number)


def values(records):
    return [record.value for record in records]


def everything(count=10, partitions=3):
    return {b"%d:%d" % (p, n) for p in range(partitions) for n in range(count)}
