"""What the workload `queue` does with a pattern `Queue`: delays, times to live, dedup keys.

A message says its number, which no other has, and bears one or two of the three. Where it is to
stand in the topic nobody knows when it is put: so the judge (timed_judgement.py) goes by number.
"""

import queue
import random
import time
from itertools import count

from pylog.broker import Broker
from pylog.errors import InvalidRecordStateError, KeyInProgressError
from pylog.patterns.dead_letters import DeadLetters
from pylog.patterns.queue import Queue
from pylog.stress.diary import Diary

NAME, LOCK = "timed", 0.3
DELAY, TTL = 0.5, 0.3           # seconds at most
SHORT = 0.003                   # a time to live that is mostly over
KEYS, KEYS_SECONDS = 3, 0.2     # so many dedup keys at a time, and others after that
MOST_DELIVERIES = 1_000_000     # a dead letter is one whose time to live was over


class Timed:
    """Puts and takes, and writes into its diary before and after. Closed with its broker."""

    def __init__(self, broker: Broker, diary: Diary, rng: random.Random) -> None:
        self.diary = diary
        self.rng = rng
        self.numbers = count(1)
        self.queue = queue_of(broker)

    def put(self) -> None:
        """A message more, or a second one with a key."""
        number = self.diary.process << 24 | next(self.numbers)
        delay, ttl, key = 0.0, None, -1
        chance = self.rng.random()
        if chance < 0.5:
            delay = self.rng.uniform(0, DELAY)
        if 0.4 < chance < 0.7:
            ttl = self.rng.uniform(0, self.rng.choice((SHORT, TTL)))
        elif chance > 0.7:
            key = int(time.monotonic() / KEYS_SECONDS) * KEYS + self.rng.randrange(KEYS)
        self.diary.note("post", number, int(delay * 1e6), -1 if ttl is None else int(ttl * 1e6),
                        key)
        try:
            done = self.queue.put(b"%d" % number, delay=delay, ttl=ttl,
                                  dedup_key=None if key < 0 else str(key))
        except KeyInProgressError:    # who has it is stopped
            return
        self.diary.note("posted", number, int(done is not None), 0)

    def work(self, seconds: float) -> bool:
        """Takes one, waiting for so long, and acknowledges it; whether there was any."""
        before = time.monotonic_ns()
        try:
            delivery = self.queue.get(seconds)
        except queue.Empty:
            return False
        number = int(delivery.value or b"")
        self.diary.note("reach", number, delivery.delivery_count, 0, delivery.offset, before)
        self.diary.note("take", number, delivery.delivery_count, 0, delivery.offset)
        try:
            self.diary.note("settle", number, delivery.delivery_count, 0, delivery.offset)
            delivery.ack()
            self.diary.note("settled", number, delivery.delivery_count, 0, delivery.offset)
        except InvalidRecordStateError:    # it was stopped for longer than its lock
            pass
        return True


def queue_of(broker: Broker) -> Queue:
    return Queue(broker, NAME, lock=LOCK, max_deliveries=MOST_DELIVERIES)


def is_done(timed: Queue) -> bool:
    """Whether all that was put is acknowledged or a dead letter."""
    stats = timed.stats()
    return not (stats.ready or stats.delayed or stats.in_flight)


def note_letters(broker: Broker, timed: Queue, diary: Diary) -> None:
    """Of each dead letter, which message it is."""
    for letter in DeadLetters(broker, topic=timed.dlq).list():
        diary.note("letter", int(letter.value or b""), 0, 0)
