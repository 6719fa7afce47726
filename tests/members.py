"""Members of a group that read no records: what they have, and what they were told."""

import time

import pytest

from pylog.broker import Broker
from pylog.membership import Membership
from pylog.subscription_state import make_subscription
from pylog.topic import OffsetAndMetadata, TopicPartition


def at(number, topic="t"):
    return TopicPartition(topic, number)


@pytest.fixture
def six(tmp_path):
    """A broker with a topic of six partitions."""
    with Broker(tmp_path / "data") as broker:
        broker.create_topic("t", 6)
        yield broker


class Listener:
    """Writes down what a consumer tells."""

    def __init__(self):
        self.told = []

    def on_partitions_assigned(self, partitions):
        self.told.append(("assigned", [one.partition for one in partitions]))

    def on_partitions_revoked(self, partitions):
        self.told.append(("revoked", [one.partition for one in partitions]))

    def on_partitions_lost(self, partitions):
        self.told.append(("lost", [one.partition for one in partitions]))


class Worker:
    """A consumer without records: what it was told, and a membership."""

    def __init__(self, broker, group="g", topics=("t",), pattern=None, **options):
        self.told = []
        self.broker = broker
        self.member = Membership(broker, group, **options)
        self.member.subscribe(make_subscription(topics, pattern, None))
        self.sync()

    def sync(self):
        self.member._look_at = 0    # at sessions and topics too, which is done now and then
        self.member.sync(self)

    def _assigned(self, partitions):
        self.told.append(("assigned", list(partitions)))

    def _revoked(self, partitions):
        self.told.append(("revoked", list(partitions)))

    def _lost(self, partitions):
        self.told.append(("lost", list(partitions)))

    @property
    def owned(self):
        return sorted(p.partition for p in self.member.owned)

    def commit(self, number, offset, note=""):
        self.member.commit({at(number): OffsetAndMetadata(offset, note)})

    def committed(self, number):
        found = self.member.committed(at(number))
        return None if found is None else found.offset


def settle(*workers, seconds=30.0):
    """Syncs in turn until nobody has anything to do."""
    deadline = time.monotonic() + seconds
    while True:
        for worker in workers:
            worker.sync()
        if all(w.member.is_current and not w.member.awaited for w in workers):
            return
        assert time.monotonic() < deadline, "the group does not settle"
