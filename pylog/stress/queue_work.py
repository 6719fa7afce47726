"""Who works in the workload `queue`: members of two share groups, a feeder, and one who only looks.

    member    takes messages one by one, acknowledges, gives back, keeps some for too long, adds
              others; it is killed, stopped
    feeder    adds messages; never killed: it is the queue that is tried
    looker    looks until all is done, and leaves behind how many messages there are

One topic is a queue as it is, the other one is ordered by key. A pattern `Queue` stands on the same
leases; what it adds is tried beside them (timed_work.py).
"""

import json
import random
import time

from pylog.broker import Broker
from pylog.errors import InvalidRecordStateError
from pylog.share_consumer import ShareConsumer
from pylog.stress.board import Board, Phase
from pylog.stress.diary import Diary
from pylog.stress.examination import Layout
from pylog.stress.grouping import FEED, FEED_SECONDS, LOOK_SECONDS, opened
from pylog.stress.plan import Plan
from pylog.stress.queue_judgement import LOCK_MS, ORDERED
from pylog.stress.timed_work import Timed, is_done, note_letters, queue_of

TOPICS, GROUP = ("plain", "ordered"), "stress"    # by the number that diaries have
KEYS = 20
TIMED_FEED = 3    # of messages with a delay, a time to live or a dedup key, at a time
TAKE_SECONDS = 0.01
MOST_DELIVERIES = 1_000_000    # nothing is given up: all has to be done in the end


class Worker:
    """A member, which writes into its diary before it does anything; the feeder puts alone."""

    def __init__(self, broker: Broker, diary: Diary, rng: random.Random) -> None:
        self.broker = broker
        self.diary = diary
        self.rng = rng
        self.consumers = [consumer_of(broker, queue) for queue in range(len(TOPICS))]
        self.timed = Timed(broker, diary, rng)

    def put(self) -> None:
        """A message more; what it notes, it has."""
        queue, key = self.rng.randrange(len(TOPICS)), self.rng.randrange(KEYS)
        done = self.broker.append(TOPICS[queue], b"%x" % self.rng.getrandbits(400), b"%d" % key)
        self.diary.note("put", queue, 0, key, done.offset)

    def work(self) -> bool:
        """Takes one of each queue and settles it; whether there were any."""
        took = [self.work_at(queue) for queue in range(len(TOPICS))]
        # It waits only where nothing else is to do: else the others would pile up meanwhile.
        took.append(self.timed.work(0 if any(took) else TAKE_SECONDS))
        return any(took)

    def work_at(self, queue: int) -> bool:
        before = time.monotonic_ns()
        delivery = self.consumers[queue].take(TAKE_SECONDS)
        if delivery is None:
            return False
        place = (queue, delivery.delivery_count, int(delivery.key), delivery.offset)
        self.diary.note("want", *place, before)
        self.diary.note("got", *place)
        chance = self.rng.random()
        if chance < 0.2:
            time.sleep(self.rng.uniform(0, 0.02))
        elif chance < 0.201:
            time.sleep(2 * LOCK_MS / 1000)    # stuck: another gets it
        try:
            if self.rng.random() < 0.05:
                self.diary.note("back", *place)
                delivery.release(self.rng.choice((0, 0, 0.005)))
            else:
                self.diary.note("ask", *place)
                delivery.ack()
                self.diary.note("done", *place)
        except InvalidRecordStateError:
            self.diary.note("refused", *place)
        return True


def consumer_of(broker: Broker, queue: int) -> ShareConsumer:
    return ShareConsumer(
        broker, TOPICS[queue], group_id=GROUP, acknowledgement_mode="explicit", lock_ms=LOCK_MS,
        max_deliveries=MOST_DELIVERIES, ordered_by_key=queue == ORDERED)


def found(plan: Plan, layout: Layout) -> None:
    """Makes the data directory, the topics and their groups."""
    options = plan.options
    configs = {"compression.type": options.compression} if options.compression else {}
    with opened(plan, layout) as broker:
        for queue, topic in enumerate(TOPICS):
            broker.create_topic(topic, 1, configs)
            consumer_of(broker, queue).close()
        queue_of(broker).close()


def take_part(plan: Plan, layout: Layout, board: Board, index: int) -> None:
    """The life of a member: of five that it handles it puts one again."""
    with opened(plan, layout) as broker, Diary(layout.ledgers) as diary:
        rng = random.Random(f"{plan.options.seed} {diary.process}")
        worker = Worker(broker, diary, rng)
        while board.phase < Phase.END:
            if worker.work() and board.phase < Phase.STOP and rng.random() < 0.2:
                worker.put()
                worker.timed.put()


def feed(plan: Plan, layout: Layout, board: Board) -> None:
    """Puts until the run says stop."""
    with opened(plan, layout) as broker, Diary(layout.ledgers) as diary:
        worker = Worker(broker, diary, random.Random(f"{plan.options.seed} feeder"))
        while board.phase < Phase.STOP:
            for _ in range(FEED):
                worker.put()
            for _ in range(TIMED_FEED):
                worker.timed.put()
            board.checked += FEED
            time.sleep(FEED_SECONDS)


def look(plan: Plan, layout: Layout, board: Board) -> None:
    """Looks until all that is there is done; leaves the ends of the queues behind."""
    with opened(plan, layout) as broker, Diary(layout.ledgers) as diary:
        consumers = [consumer_of(broker, queue) for queue in range(len(TOPICS))]
        while board.phase < Phase.SETTLE or any(
                counts["lag"] for one in consumers for counts in one.stats().values()):
            time.sleep(LOOK_SECONDS)
        timed = queue_of(broker)
        while not is_done(timed):
            time.sleep(LOOK_SECONDS)
        note_letters(broker, timed, diary)
        ends = {queue: broker.log(topic).end_offset for queue, topic in enumerate(TOPICS)}
        layout.figures.write_text(json.dumps({"ends": ends}), encoding="utf-8")
