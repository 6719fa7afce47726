"""What the tests of queues look at: what is ready, and what is dead."""

import queue as stdlib

from pylog.patterns import DeadLetters

PATIENCE = 10.0


def drained(queue):
    """The values that are ready, acknowledged."""
    found = []
    while True:
        try:
            with queue.get(0) as delivery:
                found.append(delivery.value)
        except stdlib.Empty:
            return found


def letters(queue):
    return [(one.value, one.error.rpartition(".")[2], one.message, one.attempts, one.disposition)
            for one in DeadLetters(queue._broker, topic=queue.dlq).list()]
