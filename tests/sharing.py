"""Records of a topic, and those who share them, for tests."""

import pylog
from pylog.topic import TopicPartition

AT = TopicPartition("jobs", 0)


def fill(broker, count, topic="jobs", key=None):
    for number in range(count):
        broker.append(topic, b"%d" % number, key=key(number) if key else None)


def workers(broker, *topics, **options):
    return pylog.ShareConsumer(broker, *(topics or ["jobs"]), group_id="workers",
                               acknowledgement_mode="explicit", **options)


def taken(consumer, count=100, timeout_ms=0):
    return [int(one.value) for one in consumer.poll(timeout_ms, count)]
