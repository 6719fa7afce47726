"""A share group against a model: a list of records, and a dict of who has which.

The model knows no ring, no sets and no tokens: what is free is searched for, oldest first.
"""

import os
import tempfile

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
)
from sharing import AT, workers

import pylog

SCRATCH = "/dev/shm" if os.path.isdir("/dev/shm") else None
KEYS = [None, b"a", b"b", b"c"]


class Share(RuleBasedStateMachine):
    """Consumers come and go; each record is free, held by one delivery, delayed, or done."""

    held = Bundle("held")

    @initialize(ordered=st.booleans())
    def open(self, ordered):
        self.scratch = tempfile.TemporaryDirectory(dir=SCRATCH)
        self.broker = pylog.Broker(self.scratch.name)
        self.broker.create_topic("jobs")
        self.ordered = ordered
        self.keys = []             # of the records
        self.done = set()
        self.delayed = set()
        self.counts = {}           # deliveries
        self.holders = {}          # offset: the delivery
        self.takers = {}           # offset: the consumer
        self.orphans = set()
        self.start = 0             # of the log
        self.consumers = [self.new()]

    def new(self):
        return workers(self.broker, ordered_by_key=self.ordered, max_deliveries=1000,
                       lock_ms=3_600_000)

    # ---- the model

    def first_free(self):
        """The oldest that is nobody's, and in an ordered group not behind another of its key."""
        for offset in range(self.start, len(self.keys)):
            if offset in self.done or offset in self.holders or offset in self.delayed:
                continue
            if self.ordered and self.keys[offset] is not None and any(
                    self.keys[before] == self.keys[offset] and before not in self.done
                    for before in range(offset)):
                continue
            return offset
        return None

    # ---- what happens

    @rule(keys=st.lists(st.sampled_from(KEYS), min_size=1, max_size=8))
    def append(self, keys):
        for key in keys:
            self.broker.append("jobs", b"%d" % len(self.keys), key=key)
            self.keys.append(key)

    @rule(target=held, which=st.integers(0, 3), count=st.integers(1, 5))
    def take(self, which, count):
        consumer = self.consumers[which % len(self.consumers)]
        found = consumer._take_now(count)
        for delivery in found:
            expected = self.first_free()
            assert delivery.offset == expected
            assert delivery.value == b"%d" % expected
            self.counts[expected] = self.counts.get(expected, 0) + 1
            assert delivery.delivery_count == self.counts[expected]
            self.holders[expected] = delivery
            self.takers[expected] = consumer
        assert len(found) == count or self.first_free() is None
        return multiple(*found)

    @rule(delivery=consumes(held))
    def ack(self, delivery):
        self.settle(delivery, delivery.ack, self.done)

    @rule(delivery=consumes(held))
    def reject(self, delivery):
        self.settle(delivery, lambda: delivery.reject("no"), self.done)

    @rule(delivery=consumes(held), count=st.booleans())
    def release(self, delivery, count):
        if self.settle(delivery, lambda: delivery.release(count=count), None) and not count:
            self.counts[delivery.offset] -= 1

    @rule(delivery=consumes(held))
    def delay(self, delivery):
        self.settle(delivery, lambda: delivery.release(delay=10_000), self.delayed)

    @rule(delivery=held)
    def extend(self, delivery):
        if self.holders.get(delivery.offset) is delivery and delivery.offset not in self.orphans:
            delivery.extend(3600)
        else:
            with pytest.raises((pylog.InvalidRecordStateError, pylog.ClosedError)):
                delivery.extend(3600)

    def settle(self, delivery, verb, place):
        if self.holders.get(delivery.offset) is not delivery:
            with pytest.raises(pylog.InvalidRecordStateError):
                verb()
            return False
        if delivery.offset in self.orphans:    # its consumer has left, and it is held all the same
            with pytest.raises(pylog.ClosedError):
                verb()
            return False
        verb()
        del self.holders[delivery.offset]
        if place is not None:
            place.add(delivery.offset)
        elif delivery.offset < self.start:    # there is nothing to give to anybody
            self.done.add(delivery.offset)
        return True

    @rule()
    def join(self):
        if len(self.consumers) < 4:
            self.consumers.append(self.new())

    @rule(which=st.integers(0, 3))
    def leave(self, which):
        if len(self.consumers) > 1:
            gone = self.consumers.pop(which % len(self.consumers))
            gone.close()
            self.orphans |= {one for one in self.holders if self.takers[one] is gone}

    @rule(portion=st.floats(0, 1))
    def delete_records(self, portion):
        self.start += int(portion * (len(self.keys) - self.start))
        self.broker.log("jobs").delete_before(self.start)
        for offset in range(self.start):
            if offset not in self.holders and offset not in self.delayed:
                self.done.add(offset)

    @invariant()
    def stats_agree(self):
        if not hasattr(self, "broker"):
            return
        counts = self.consumers[0].stats()[AT]
        assert counts["held"] == len(self.holders)
        assert counts["delayed"] == len(self.delayed)
        open_ones = [one for one in range(self.start, len(self.keys)) if one not in self.done]
        assert counts["start"] <= (open_ones[0] if open_ones else len(self.keys))

    def teardown(self):
        if hasattr(self, "broker"):
            self.broker.close()
            self.scratch.cleanup()


TestShare = pytest.mark.slow(Share.TestCase)
TestShare.settings = settings(max_examples=100, stateful_step_count=40)
