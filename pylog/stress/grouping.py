"""Who works in the workload `group`: members that write diaries, a feeder, and one who only looks.

    member    reads with a consumer of the group, commits, by itself and by hand, is killed, stopped
    feeder    appends to all partitions; never killed: it is the group that is tried
    looker    what is committed, where each partition ends; in the end, that all was handled
"""

import json
import random
import time
from typing import Any

from pylog.broker import Broker
from pylog.consumer import Consumer
from pylog.errors import GroupError
from pylog.stress.board import Board, Phase
from pylog.stress.diary import Diary, noting_stalls
from pylog.stress.examination import Layout
from pylog.stress.plan import Plan
from pylog.topic import TopicPartition

TOPIC, GROUP, PARTITIONS = "stress", "stress", 12
SESSION_MS = 500
FEED, FEED_SECONDS = 20, 0.04    # 500 records a second: what is tried is the group, not the log
LOOK_SECONDS = 0.005


class GroupMember:
    """A consumer that writes into its diary before it does anything, and hears of rebalances.

    by_hand: the part of the records after which it commits. options: the consumer's.
    """

    def __init__(self, broker: Broker, topic: str, diary: Diary, rng: random.Random,
                 by_hand: float, **options: Any) -> None:
        self.topic = topic
        self.diary = diary
        self.rng = rng
        self.by_hand = by_hand
        self.member, self.generation = 0, -1
        self.consumer = Consumer(broker, **options)

    def subscribe(self) -> None:
        self.consumer.subscribe([self.topic], listener=self)

    def read(self) -> None:
        """Handles records until the consumer's iteration ends."""
        for record in self.consumer:
            self.note("work", record.partition, record.offset)
            if self.rng.random() < 0.01:
                time.sleep(self.rng.uniform(0, 0.003))
            if self.rng.random() < self.by_hand:
                self.commit(record.partition, record.offset + 1)

    def commit(self, partition: int, offset: int) -> None:
        self.note("ask", partition, offset)
        try:
            self.consumer.commit({TopicPartition(self.topic, partition): offset})
        except GroupError:
            self.note("refused", partition, offset)
        else:
            self.note("done", partition, offset)

    def note(self, kind: str, partition: int, offset: int = -1, at: int | None = None) -> None:
        me = self.consumer.group_metadata()
        if me.member_id:    # who has lost all is nobody, and was somebody
            self.member, self.generation = int(me.member_id), me.generation_id
        self.diary.note(kind, self.member, self.generation, partition, offset, at)

    # ---- what the consumer tells

    def on_partitions_assigned(self, partitions: list[TopicPartition]) -> None:
        for one in partitions:
            now = time.monotonic_ns()
            found = self.consumer.committed(one)
            self.note("own", one.partition, -1 if found is None else found, now)

    def on_partitions_revoked(self, partitions: list[TopicPartition]) -> None:
        for one in partitions:
            self.note("drop", one.partition)

    def on_partitions_lost(self, partitions: list[TopicPartition]) -> None:
        for one in partitions:
            self.note("lost", one.partition)


def opened(plan: Plan, layout: Layout) -> Broker:
    return Broker(layout.log, durability=plan.options.durability)    # type: ignore[arg-type]


def found(plan: Plan, layout: Layout, partitions: int = PARTITIONS) -> None:
    """Makes the data directory, its topic and the group."""
    options = plan.options
    configs = {"compression.type": options.compression} if options.compression else {}
    with opened(plan, layout) as broker:
        broker.create_topic(TOPIC, partitions, configs)
        broker.group(GROUP)


def take_part(plan: Plan, layout: Layout, board: Board, index: int) -> None:
    """The life of a member. Every second one has a session, and is fenced when it was stopped."""
    options = plan.options
    with opened(plan, layout) as broker, Diary(layout.ledgers) as diary, noting_stalls(diary):
        member = GroupMember(
            broker, TOPIC, diary, random.Random(f"{options.seed} {diary.process}"),
            by_hand=0.2 * (index % 3), group_id=GROUP, auto_commit_interval_ms=50,
            session_timeout_ms=SESSION_MS if index % 2 else None, consumer_timeout_ms=50)
        with member.consumer:
            member.subscribe()
            while board.phase < Phase.END:
                member.read()


def feed(plan: Plan, layout: Layout, board: Board) -> None:
    """Appends until the run says stop."""
    rng = random.Random(f"{plan.options.seed} feeder")
    with opened(plan, layout) as broker:
        while board.phase < Phase.STOP:
            for _ in range(FEED):
                broker.append(TOPIC, b"%x" % rng.getrandbits(400),
                              partition=rng.randrange(PARTITIONS))
            board.checked += FEED
            time.sleep(FEED_SECONDS)


def look(plan: Plan, layout: Layout, board: Board) -> None:
    """Looks until all that is there is committed; leaves the ends of the partitions behind."""
    with opened(plan, layout) as broker, Diary(layout.ledgers) as diary:
        group = broker.group(GROUP)
        logs = [broker.log(TOPIC, partition) for partition in range(PARTITIONS)]
        while True:
            is_last = board.phase >= Phase.SETTLE
            left = 0
            for partition, log in enumerate(logs):
                at = time.monotonic_ns()
                found = group.committed(TopicPartition(TOPIC, partition), log.incarnation)
                committed = found.offset if found else -1
                diary.note("look", 0, 0, partition, committed, at)
                diary.note("end", 0, 0, partition, log.end_offset)
                left += log.end_offset - max(committed, 0)
            if is_last and not left:
                break
            time.sleep(LOOK_SECONDS)
        ends = {partition: log.end_offset for partition, log in enumerate(logs)}
        layout.figures.write_text(json.dumps({"ends": ends}), encoding="utf-8")
