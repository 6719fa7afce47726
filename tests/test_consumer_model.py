"""A consumer against a Python list a partition: whatever is asked, in whatever order."""

import shutil
import tempfile
from pathlib import Path

import pytest
from conftest import SCRATCH
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from orders import ORDERS

import pylog
from pylog import TopicPartition
from pylog.broker import Broker
from pylog.consumer import Consumer


class Model(RuleBasedStateMachine):
    """written[p]: what was appended. place[p]: what comes next. hand: what is not finished."""

    @initialize(latest=st.booleans())
    def open(self, latest):
        self.path = Path(tempfile.mkdtemp(dir=SCRATCH))
        self.broker = Broker(self.path)
        self.broker.create_topic("orders", 2)
        self.written = {one: [] for one in ORDERS[:2]}
        self.consumer = Consumer(
            self.broker, "orders", group_id="g", enable_auto_commit=False, consumer_timeout_ms=0,
            auto_offset_reset="latest" if latest else "earliest", max_poll_records=5)
        self.consumer.poll()
        self.place = dict.fromkeys(self.written, 0)
        self.hand = dict(self.place)      # where the records in hand begin
        self.committed = {}
        self.paused = set()

    def teardown(self):
        if hasattr(self, "consumer"):
            self.consumer.close()
            self.broker.close()
            shutil.rmtree(self.path)

    # ---- what the others do

    @rule(number=st.integers(0, 2), count=st.integers(1, 70))
    def append(self, number, count):
        partition = ORDERS[number]
        if partition not in self.written:
            return
        values = [b"%d:%d" % (number, len(self.written[partition]) + n) for n in range(count)]
        self.broker.log(*partition).append_many(values)
        self.written[partition] += values

    @precondition(lambda self: len(self.written) == 2)
    @rule()
    def add_partition(self):
        self.broker.metadata.add_partitions("orders", 3)
        self.written[ORDERS[2]] = []
        self.consumer._look_soon()
        # with a group its members take it in at their next look at the topics
        for _ in range(100):
            if ORDERS[2] in self.consumer.assignment():
                break
            self.returned(self.consumer.poll(timeout_ms=50))
        self.place[ORDERS[2]] = self.hand[ORDERS[2]] = 0

    # ---- reading

    def returned(self, lists):
        """Is it what comes next? Then it is in hand, and all before it finished."""
        self.hand = dict(self.place)
        for partition, records in lists.items():
            assert partition not in self.paused
            for record in records:
                assert (record.topic, record.partition) == partition
                assert record.offset == self.place[partition]
                assert record.value == self.written[partition][record.offset]
                self.place[partition] += 1

    def left(self):
        return sum(len(values) - self.place[one] for one, values in self.written.items()
                   if one not in self.paused)

    def by_partition(self, records):
        lists = {}
        for record in records:
            lists.setdefault(TopicPartition(record.topic, record.partition), []).append(record)
        return lists

    @rule(most=st.none() | st.integers(1, 40))
    def poll(self, most):
        expected = min(self.left(), most or 5)
        lists = self.consumer.poll(max_records=most)
        self.returned(lists)
        assert sum(map(len, lists.values())) == expected

    @rule(count=st.integers(1, 60))
    def consume(self, count):
        expected = min(self.left(), count)
        records = self.consumer.consume(count, 0)
        assert len(records) == expected
        self.returned(self.by_partition(records))

    @rule(count=st.integers(1, 60))
    def iterate(self, count):
        for _ in range(count):
            if (record := next(self.consumer, None)) is None:
                assert not self.left()
                self.hand = dict(self.place)
                return
            self.returned({TopicPartition(record.topic, record.partition): [record]})

    @rule(most=st.integers(1, 40))
    def batch(self, most):
        has_more = self.left() > 0
        chunk = next(self.consumer.batches(most), None)
        assert (chunk is not None) == has_more
        self.returned({} if chunk is None else
                      {TopicPartition(chunk.topic, chunk.partition): list(chunk)})

    # ---- moving

    def some_partition(self, data):
        return data.draw(st.sampled_from(sorted(self.written)))

    @rule(data=st.data())
    def seek(self, data):
        partition = self.some_partition(data)
        offset = data.draw(st.integers(0, len(self.written[partition])))
        self.consumer.seek(partition, offset)
        self.place[partition] = self.hand[partition] = offset

    @rule(data=st.data())
    def seek_to_beginning(self, data):
        partition = self.some_partition(data)
        self.consumer.seek_to_beginning(partition)
        self.place[partition] = self.hand[partition] = 0

    @rule()
    def seek_to_end(self):
        self.consumer.seek_to_end()
        self.place = {one: len(values) for one, values in self.written.items()}
        self.hand = dict(self.place)

    @rule(data=st.data())
    def pause(self, data):
        partition = self.some_partition(data)
        self.consumer.pause(partition)
        self.paused.add(partition)

    @rule(data=st.data())
    def resume(self, data):
        partition = self.some_partition(data)
        self.consumer.resume(partition)
        self.paused.discard(partition)

    @rule()
    def commit(self):
        self.consumer.commit()
        self.committed |= self.place

    @rule()
    def commit_what_is_finished(self):
        self.consumer._commit_finished()
        self.committed |= self.hand

    @rule(data=st.data())
    def wake(self, data):
        self.consumer.wakeup()
        ask = data.draw(st.sampled_from([
            self.consumer.poll, lambda: next(self.consumer), lambda: self.consumer.consume(100)]))
        with pytest.raises(pylog.WakeupError):
            ask()
        self.hand = dict(self.place)

    # ---- what always holds

    @invariant()
    def it_is_where_the_model_is(self):
        if not hasattr(self, "consumer"):
            return
        assert {one: self.consumer.position(one) for one in self.written} == self.place
        assert self.consumer.paused() == self.paused
        assert self.consumer.lag() == sum(
            len(values) - self.place[one] for one, values in self.written.items())
        for partition, offset in self.committed.items():
            assert self.consumer.committed(partition) == offset


Model.TestCase.settings = settings(max_examples=25, stateful_step_count=40, deadline=None)
TestConsumer = pytest.mark.slow(Model.TestCase)
