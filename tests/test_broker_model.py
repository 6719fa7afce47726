"""A broker against a model of it: topics, sends, and a group that polls, seeks, commits and dies.

The model is lists and dicts: what is in each partition, where each consumer stands, what is in its
hand, what the group has committed. Who gets which partition it does not foretell, and takes from
the consumer; that no two have one, and that all are had in the end, it knows. All consumers are of
one process and one thread, so that a rebalance happens in `poll` and nowhere else.
"""

import atexit
import functools
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from pylog.broker import Broker
from pylog.consumer import Consumer
from pylog.errors import (
    CommitFailedError,
    IllegalStateError,
    OffsetOutOfRangeError,
    TopicAlreadyExistsError,
    UnknownTopicOrPartitionError,
)
from pylog.producer import Producer
from pylog.topic import TopicPartition

FIRST_TOPICS = {"t": 3, "u": 2}
MEMBERS_MAX = 4
NEVER_MS = 3_600_000

VALUES = [b"a", b"b", b"c", b"d"]    # in each partition of those
numbers = st.integers(0, 59)    # choose among what there is, modulo


@functools.cache
def template():
    """A directory to be copied, in memory: on a disk an example waits half a second for its syncs.
    Gone with the process."""
    path = tempfile.mkdtemp(dir="/dev/shm")
    atexit.register(shutil.rmtree, path)
    with Broker(path) as broker, Producer(broker) as producer:
        for name, count in FIRST_TOPICS.items():
            broker.create_topic(name, count)
            for number in range(count):
                producer.send_many(name, VALUES, partition=number)
    return path


@dataclass
class Reader:
    """A consumer and what is known of it."""

    consumer: Consumer
    topics: list[str]
    commits: bool    # by itself, which is when it lets partitions go
    places: dict[TopicPartition, int] = field(default_factory=dict)
    hand: dict[TopicPartition, int] = field(default_factory=dict)    # where what is in hand begins


class BrokerModel(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.directory = Path(tempfile.mkdtemp(dir="/dev/shm"))
        shutil.copytree(template(), self.directory / "data")
        self.broker = Broker(self.directory / "data", auto_create_topics=False)
        self.producer = Producer(self.broker)
        self.records = {TopicPartition(name, number): list(VALUES)
                        for name, count in FIRST_TOPICS.items() for number in range(count)}
        self.committed = {}
        self.readers = []
        self.join(["t", "u"], True)

    def teardown(self):
        self.producer.close()
        for partition, values in self.records.items():
            assert [record.value for record in self.broker.read(
                partition.topic, partition=partition.partition)] == values
        for reader in self.readers:
            reader.consumer.close()
        self.broker.close()
        shutil.rmtree(self.directory)

    def pick(self, number):
        return self.readers[number % len(self.readers)]

    def pick_place(self, number):
        """A reader that has a partition, and that; None: nobody has one."""
        places = [(reader, one) for reader in self.readers for one in sorted(reader.places)]
        return places[number % len(places)] if places else None

    # ---- topics and records

    @rule(number=numbers, count=st.integers(1, 3))
    def create_topic(self, number, count):
        name = f"v{number % 3}"
        if TopicPartition(name, 0) not in self.records:
            self.broker.create_topic(name, count)
            self.records |= {TopicPartition(name, one): [] for one in range(count)}
        else:
            with pytest.raises(TopicAlreadyExistsError):
                self.broker.create_topic(name, count)

    @rule(number=numbers, values=st.lists(st.binary(max_size=8), min_size=1, max_size=6),
          way=st.sampled_from(["append", "send", "send_many"]))
    def send(self, number, values, way):
        topic, place = partition = sorted(self.records)[number % len(self.records)]
        known = self.records[partition]
        if way == "send_many":
            self.producer.send_many(topic, values, partition=place)
        for offset, value in enumerate(values, len(known)):
            if way == "append":
                assert self.broker.append(topic, value, partition=place).offset == offset
            elif way == "send":
                sent = self.producer.send(topic, value, partition=place).get(1)
                assert (sent.topic, sent.partition, sent.offset) == (topic, place, offset)
        known += values

    @rule(topic=st.sampled_from(["nowhere", "t"]), place=st.integers(3, 9))
    def send_where_nothing_is(self, topic, place):
        with pytest.raises(UnknownTopicOrPartitionError):
            self.producer.send(topic, b"", partition=place).get(1)

    # ---- members come and go

    @precondition(lambda self: len(self.readers) < MEMBERS_MAX)
    @rule(topics=st.sampled_from([["t"], ["t", "u"], ["u"]]), commits=st.booleans())
    def join(self, topics, commits):
        consumer = Consumer(self.broker, *topics, group_id="g", enable_auto_commit=commits,
                            auto_commit_interval_ms=NEVER_MS)
        self.readers.append(Reader(consumer, topics, commits))

    @precondition(lambda self: self.readers)
    @rule(number=numbers)
    def close(self, number):
        reader = self.pick(number)
        reader.consumer.close()
        if reader.commits:    # what is in hand is not finished
            self.committed |= reader.places | reader.hand
        self.readers.remove(reader)

    @precondition(lambda self: self.readers)
    @rule(number=numbers)
    def forget(self, number):
        """A consumer that nobody closes: it commits nothing, and is no member any more."""
        self.readers.remove(self.pick(number))

    # ---- reading

    @precondition(lambda self: self.readers)
    @rule(number=numbers, most=st.integers(1, 8))
    def poll(self, number, most):
        reader = self.pick(number)
        self.check_poll(reader, reader.consumer.poll(0, most), most)

    def check_poll(self, reader, found, most):
        reader.hand.clear()
        had, has = reader.places, reader.consumer.assignment()
        if had.keys() - has and reader.commits:
            self.committed |= had
        reader.places = {one: had[one] if one in had else self.committed.get(one, 0)
                         for one in has}
        there = sum(len(self.records[one]) - place for one, place in reader.places.items())
        assert sum(map(len, found.values())) == min(most, there)
        for partition, records in found.items():
            place = reader.places[partition]
            assert [(record.offset, record.value) for record in records] == [
                *enumerate(self.records[partition][place:place + len(records)], place)]
            reader.hand[partition] = place
            reader.places[partition] = place + len(records)

    @precondition(lambda self: self.readers)
    @rule()
    def settle(self):
        """Everybody polls until nothing moves: then all is had."""
        for _ in range(2 * len(self.readers) + 1):
            for reader in self.readers:
                self.check_poll(reader, reader.consumer.poll(0, 1), 1)
        wanted = {topic for reader in self.readers for topic in reader.topics}
        assert {one for reader in self.readers for one in reader.places} == {
            one for one in self.records if one.topic in wanted}

    @precondition(lambda self: self.readers)
    @rule(number=numbers, offset=numbers)
    def seek(self, number, offset):
        if chosen := self.pick_place(number):
            reader, partition = chosen
            offset %= len(self.records[partition]) + 1
            reader.consumer.seek(partition, offset)
            reader.places[partition] = offset
            reader.hand.pop(partition, None)

    @precondition(lambda self: self.readers)
    @rule(number=numbers)
    def seek_where_it_has_nothing(self, number):
        with pytest.raises(IllegalStateError):
            self.pick(number).consumer.seek(("t", 9), 0)

    # ---- commits

    @precondition(lambda self: self.readers)
    @rule(number=numbers)
    def commit(self, number):
        reader = self.pick(number)
        reader.consumer.commit()
        self.committed |= reader.places

    @precondition(lambda self: self.readers)
    @rule(number=numbers, offset=numbers)
    def commit_an_offset(self, number, offset):
        if chosen := self.pick_place(number):
            reader, partition = chosen
            offset %= len(self.records[partition]) + 2
            if offset > len(self.records[partition]):
                with pytest.raises(OffsetOutOfRangeError):
                    reader.consumer.commit({partition: offset})
            else:
                reader.consumer.commit({partition: offset})
                self.committed[partition] = offset

    @precondition(lambda self: len(self.readers) > 1)
    @rule(number=numbers)
    def commit_what_another_has(self, number):
        if chosen := self.pick_place(number):
            owner, partition = chosen
            for reader in self.readers:
                if reader is not owner:
                    with pytest.raises(CommitFailedError):
                        reader.consumer.commit({partition: 0})

    # ---- what always holds

    @invariant()
    def no_two_have_one_partition(self):
        had = [one for reader in self.readers for one in reader.places]
        assert len(had) == len(set(had))

    @invariant()
    def all_stand_where_they_should(self):
        for reader in self.readers:
            assert reader.consumer.assignment() == reader.places.keys()
            for partition, place in reader.places.items():
                assert reader.consumer.position(partition) == place
                assert reader.consumer.highwater(partition) == len(self.records[partition])

    @invariant()
    def what_was_committed_is_known(self):
        for reader in self.readers[:1]:
            for partition in self.records:
                assert reader.consumer.committed(partition) == self.committed.get(partition)


BrokerModel.TestCase.settings = settings(
    max_examples=60, stateful_step_count=50, deadline=None)
test_a_broker_does_what_its_model_does = pytest.mark.slow(BrokerModel.TestCase)
