"""Waiting for what another thread does: until it is so, or the test has failed."""

import time

from pylog.patterns import Queue


def until(condition, seconds=20):
    """Returns what `condition` returns, once that is true."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.002)
    return found


def count_parked(broker, group="g", topic="orders"):
    """How many records of a topic wait aside for another attempt."""
    with Queue(broker, f"retry.{group}.{topic}", group=group) as queue:
        stats = queue.stats()
        return stats.ready + stats.delayed + stats.in_flight
