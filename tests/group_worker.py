"""A member of a group, as a process of its own, for tests that do things to it.

    python group_worker.py DATA DIARIES OPTIONS     OPTIONS: JSON, see Worker

It says "ready" once it is imported, and joins when a line comes in. SIGTERM: it leaves. SIGUSR1: it
forks; the child must be refused the consumer, and outlives its parent for a moment.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

from pylog.broker import Broker
from pylog.consumer import Consumer
from pylog.errors import GroupError, IllegalStateError, WakeupError
from pylog.stress.diary import Diary

TOPIC, GROUP = "t", "g"


class Worker:
    """A consumer that writes its diary; also the listener of its rebalances.

    options: seed; session_timeout_ms; commits ("auto" or "hand"); strategy.
    """

    def __init__(self, broker, diary, options):
        self.diary = diary
        self.rng = random.Random(options["seed"])
        self.member, self.generation = 0, -1
        self.by_hand = options["commits"] == "hand"
        self.consumer = Consumer(
            broker, group_id=GROUP, enable_auto_commit=not self.by_hand,
            auto_commit_interval_ms=20, session_timeout_ms=options["session_timeout_ms"],
            partition_assignment_strategy=options["strategy"])

    def note(self, kind, partition, offset=-1, at=None):
        me = self.consumer.group_metadata()
        if me.member_id:    # who has lost all is nobody, and was somebody
            self.member, self.generation = int(me.member_id), me.generation_id
        self.diary.note(kind, self.member, self.generation, partition, offset, at)

    def on_partitions_assigned(self, partitions):
        for partition in partitions:
            now = time.monotonic_ns()
            found = self.consumer.committed(partition)
            self.note("own", partition.partition, -1 if found is None else found, now)

    def on_partitions_revoked(self, partitions):
        for partition in partitions:
            self.note("drop", partition.partition)

    def on_partitions_lost(self, partitions):
        for partition in partitions:
            self.note("lost", partition.partition)

    def run(self):
        with self.consumer:
            try:
                self.consumer.subscribe([TOPIC], listener=self)
                for record in self.consumer:
                    self.note("work", record.partition, record.offset)
                    if self.rng.random() < 0.01:
                        time.sleep(self.rng.uniform(0, 0.003))
                    if self.by_hand and self.rng.random() < 0.2:
                        self.commit(record)
            except WakeupError:
                pass

    def commit(self, record):
        partition, offset = record.partition, record.offset + 1
        self.note("ask", partition, offset)
        try:
            self.consumer.commit({(TOPIC, partition): offset})
        except GroupError:
            self.note("refused", partition, offset)
        else:
            self.note("done", partition, offset)

    def fork(self, *unused):
        if os.fork() == 0:
            for use in (self.consumer.commit, self.consumer.poll, lambda: next(self.consumer)):
                try:
                    use()
                except IllegalStateError:
                    continue
                os.write(2, b"a forked child was not refused\n")
            time.sleep(0.3)
            os._exit(0)
        os.write(1, b"forked\n")


def main():
    data, diaries, options = sys.argv[1], Path(sys.argv[2]), json.loads(sys.argv[3])
    signal.signal(signal.SIGTERM, lambda *unused: sys.exit(0))    # not joined yet
    with Broker(data) as broker:
        os.write(1, b"ready\n")
        if not sys.stdin.buffer.readline():
            return
        with Diary(diaries) as diary:
            worker = Worker(broker, diary, options)
            signal.signal(signal.SIGTERM, lambda *unused: worker.consumer.wakeup())
            signal.signal(signal.SIGUSR1, worker.fork)
            worker.run()


if __name__ == "__main__":
    main()
