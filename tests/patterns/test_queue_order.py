"""A queue that keeps the order of each key."""

import queue as stdlib
import random
import threading
import time

import pytest
from queues import PATIENCE

from pylog.patterns import Queue
from pylog.testing import broker as broker


def test_messages_of_a_key_are_done_one_after_another(broker):
    with Queue(broker, "jobs", ordered_by_key=True) as jobs:
        for number in range(6):
            jobs.put(b"%d" % number, key="ab"[number % 2])
        first, second = jobs.get(0), jobs.get(0)
        assert (first.value, second.value) == (b"0", b"1")
        with pytest.raises(stdlib.Empty):
            jobs.get(0)
        first.nack()
        second.ack()
        again, third = jobs.get(0), jobs.get(0)
        assert (again.value, third.value) == (b"0", b"3")


def test_a_delayed_message_comes_into_the_order_when_it_is_due_and_a_failed_one_keeps_its_place(
        broker):
    for delay in (0.3, 1, 3):    # until all that is to be before it was
        with Queue(broker, f"jobs-{delay}", ordered_by_key=True) as jobs:
            begun, found = time.monotonic(), []
            jobs.put(b"1", key="a", delay=delay)
            jobs.put(b"2", key="a")
            jobs.put(b"3", key="a")
            jobs.get(0).nack(delay=0.05)
            while len(found) < 3:
                with jobs.get(PATIENCE) as delivery:
                    found.append((delivery.value, time.monotonic() - begun))
        if found[1][1] < delay:
            break
    assert [value for value, _ in found] == [b"2", b"3", b"1"]


def test_many_threads_keep_the_order_of_each_key(broker):
    rng = random.Random(7)
    done, lock = {}, threading.Lock()
    with Queue(broker, "jobs", ordered_by_key=True) as jobs:
        keys = [rng.randrange(5) for _ in range(300)]
        jobs.put_many([b"%d" % n for n in range(300)], keys=[b"%d" % key for key in keys])

        def work(delivery):
            if rng.random() < 0.1 and delivery.delivery_count == 1:
                raise ValueError
            with lock:
                done.setdefault(delivery.key, []).append(int(delivery.value))

        assert jobs.work(work, concurrency=6, idle=0.3) > 300
    for key in range(5):
        assert done[b"%d" % key] == [n for n in range(300) if keys[n] == key]
