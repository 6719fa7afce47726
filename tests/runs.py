"""What tests of `Consumer.run` and of `AsyncConsumer.run` share."""

import pytest
from orders import ORDERS

import pylog

impossible_runs = pytest.mark.parametrize(("options", "error"), [
    ({"handler": "print"}, TypeError),
    ({"concurrency": 0}, pylog.ConfigurationError),
    ({"concurrency": "many"}, TypeError),
    ({"commit_every": 0}, pylog.ConfigurationError),
    ({"commit_every": 10}, pylog.IllegalStateError),
    ({"commit_interval": 1.0}, pylog.IllegalStateError),
    *(({"commit_interval": seconds}, pylog.ConfigurationError)
      for seconds in (-1, 0, 0.0, float("nan"), float("inf"))),
    ({"commit_interval": "1"}, TypeError),
    ({"commit_interval": True}, TypeError),
])


def committed(broker):
    """What the next consumer of the group finds, by partition."""
    found = [broker.group("g").committed(one, broker.log(*one).incarnation) for one in ORDERS]
    return [one and one.offset for one in found]
