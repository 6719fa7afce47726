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
from contextlib import suppress
from pathlib import Path

from pylog.broker import Broker
from pylog.errors import IllegalStateError, WakeupError
from pylog.stress.diary import Diary, noting_stalls
from pylog.stress.grouping import GroupMember

TOPIC, GROUP = "t", "g"


class Worker(GroupMember):
    """options: seed; session_timeout_ms; commits ("auto" or "hand"); strategy."""

    def __init__(self, broker, diary, options):
        by_hand = options["commits"] == "hand"
        super().__init__(
            broker, TOPIC, diary, random.Random(options["seed"]), by_hand=0.2 * by_hand,
            group_id=GROUP, enable_auto_commit=not by_hand, auto_commit_interval_ms=20,
            session_timeout_ms=options["session_timeout_ms"],
            partition_assignment_strategy=options["strategy"])

    def run(self):
        with self.consumer, suppress(WakeupError):
            self.subscribe()
            self.read()

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
        with Diary(diaries) as diary, noting_stalls(diary):
            worker = Worker(broker, diary, options)
            signal.signal(signal.SIGTERM, lambda *unused: worker.consumer.wakeup())
            signal.signal(signal.SIGUSR1, worker.fork)
            worker.run()


if __name__ == "__main__":
    main()
