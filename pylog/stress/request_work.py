"""Who works in the workload `request`: askers, servers of one group, and one who only looks.

    member    every second one serves, the others ask, some in an event loop; killed, stopped
    feeder    asks; never killed
    looker    looks until all requests are done, and writes down where each of them is

A request says its number, and which payload; its reply says both again, and which answer it is.
One in fifty is to fail, and its error says the same.
"""

import asyncio
import json
import random
import time
import zlib
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import Any

from pylog.broker import Broker
from pylog.errors import RemoteError, RequestTimeoutError
from pylog.patterns.rpc import AsyncRpc, Rpc
from pylog.share_consumer import ShareConsumer
from pylog.stress.board import Board, Phase
from pylog.stress.diary import Diary, noting_stalls
from pylog.stress.examination import Layout
from pylog.stress.grouping import LOOK_SECONDS, opened
from pylog.stress.plan import Plan

TOPIC, GROUP, PARTITIONS = "stress", "stress", 2
TIMEOUT = 3.0
SHORT = 0.02           # seconds at most, of so many: some time out
BRIEF = 0.1            # the share of these
AGAIN = 0.2            # the share of bursts after which one is asked for again
BURST = 8              # requests that a thread has on their way
REST_SECONDS = 0.06    # between two bursts, at most
HEARD = 50             # of which some are asked for again
PAYLOAD = 400          # bytes at most
WAIT_SECONDS = 0.05
FAILS = 50             # each request whose number this divides


class Asker:
    """Asks and waits, in threads or tasks, and writes into its diary before and after."""

    def __init__(self, diary: Diary, rng: random.Random) -> None:
        self.diary = diary
        self.rng = rng
        self.numbers = count(1)
        self.payloads: dict[int, bytes] = {}

    def prepare(self) -> tuple[int, float, bytes]:
        """The next request: its number, its time-out, its value."""
        number = self.diary.process << 24 | next(self.numbers)
        payload = self.rng.randbytes(self.rng.randrange(PAYLOAD))
        timeout = self.rng.uniform(0, SHORT) if self.rng.random() < BRIEF else TIMEOUT
        self.payloads[number] = payload
        self.diary.note("send", number, int(timeout * 1e6), 0)
        return number, timeout, b"%d %b" % (number, payload)

    def rest(self) -> float:
        return self.rng.uniform(0, REST_SECONDS)

    # ---- in threads

    def ask(self, rpc: Rpc, board: Board) -> Iterator[int]:
        """Bursts of requests until the run says stop; how many each time."""
        heard = deque[tuple[int, Any]](maxlen=HEARD)
        while board.phase < Phase.STOP:
            sent = [self.submit(rpc) for _ in range(self.rng.randint(1, BURST))]
            self.rng.shuffle(sent)
            for number, pending in sent:
                self.hear(number, pending.result)
            heard.extend(sent)
            if self.rng.random() < AGAIN:    # who asks again is to hear the same
                number, pending = self.rng.choice(heard)
                self.hear(number, pending.result)
            yield len(sent)
            time.sleep(self.rest())

    def submit(self, rpc: Rpc) -> tuple[int, Any]:
        number, timeout, value = self.prepare()
        pending = rpc.submit(TOPIC, value, timeout)
        self.diary.note("sent", number, 0, 0)
        return number, pending

    def hear(self, number: int, result: Any) -> None:
        self.diary.note("wait", number, 0, 0)
        try:
            reply = result().value
        except (RequestTimeoutError, RemoteError) as error:
            self.note_error(number, error)
        else:
            self.note_reply(number, reply)

    # ---- in an event loop

    async def ask_in_loop(self, rpc: AsyncRpc, board: Board) -> None:
        """The same by an AsyncRpc."""
        while board.phase < Phase.STOP:
            await asyncio.gather(*(self.request(rpc) for _ in range(self.rng.randint(1, BURST))))
            await asyncio.sleep(self.rest())

    async def request(self, rpc: AsyncRpc) -> None:
        number, timeout, value = self.prepare()
        self.diary.note("wait", number, 0, 0)
        try:
            reply = await rpc.request(TOPIC, value, timeout)
        except (RequestTimeoutError, RemoteError) as error:
            self.note_error(number, error)
        else:
            self.note_reply(number, reply.value)

    # ---- what is heard

    def note_error(self, number: int, error: RequestTimeoutError | RemoteError) -> None:
        if isinstance(error, RequestTimeoutError):
            self.diary.note("over", number, 0, 0)
        elif error.type == "ValueError":
            self.note_told(number, error.reason or "", number % FAILS == 0)
        else:
            raise error

    def note_reply(self, number: int, value: bytes) -> None:
        self.note_told(number, value.decode(), number % FAILS != 0)

    def note_told(self, number: int, told: str, is_right: bool) -> None:
        """What a reply says, and of which request; 0: it is none that this one could have."""
        asked, answer, payload = map(int, told.split())
        if asked == number:
            is_right = is_right and payload == zlib.crc32(self.payloads[number])
        self.diary.note("reply", number, answer, 0, asked if is_right else 0)

    def note_count(self, stats: Any) -> None:
        self.diary.note("count", stats.replied, stats.late, 0)


class Answerer:
    """The handler of a server."""

    def __init__(self, diary: Diary, rng: random.Random) -> None:
        self.diary = diary
        self.rng = rng
        self.numbers = count(1)

    def answer(self, request: Any) -> bytes:
        asked, payload = request.value.split(b" ", 1)
        number, answer = int(asked), self.diary.process << 24 | next(self.numbers)
        place = (number, answer, request.record.partition, request.record.offset)
        self.diary.note("serve", *place)
        if self.rng.random() < 0.1:
            time.sleep(self.rng.uniform(0, 0.02))
        told = b"%d %d %d" % (number, answer, zlib.crc32(payload))
        self.diary.note("answer", *place)
        if number % FAILS == 0:
            raise ValueError(told.decode())
        return told


def found(plan: Plan, layout: Layout) -> None:
    """Makes the data directory, the topic of requests and the leases of its servers."""
    with opened(plan, layout) as broker:
        broker.create_topic(TOPIC, PARTITIONS)
        shares_of(broker).close()


def shares_of(broker: Broker) -> ShareConsumer:
    """As the servers' own."""
    return ShareConsumer(broker, TOPIC, group_id=GROUP, ordered_by_key=True)


def take_part(plan: Plan, layout: Layout, board: Board, index: int) -> None:
    """The life of a member: of four, one serves alone, one in two threads, and two ask."""
    with opened(plan, layout) as broker, Diary(layout.ledgers) as diary, noting_stalls(diary):
        rng = random.Random(f"{plan.options.seed} {diary.process}")
        if index % 2 == 0:
            serve(broker, Answerer(diary, rng), board, concurrency=1 + index // 2 % 2)
        elif index % 4 == 1:
            ask_in_threads(broker, Asker(diary, rng), board, plan.options.threads)
        else:
            asyncio.run(ask_in_tasks(broker, Asker(diary, rng), board, plan.options.threads))


def serve(broker: Broker, answerer: Answerer, board: Board, concurrency: int) -> None:
    with Rpc(broker) as rpc:
        server = rpc.handler(TOPIC, answerer.answer, group=GROUP, concurrency=concurrency)
        while board.phase < Phase.END and not server.join(WAIT_SECONDS):
            pass


def ask_in_threads(broker: Broker, asker: Asker, board: Board, threads: int) -> None:
    with Rpc(broker) as rpc:
        with ThreadPoolExecutor(threads) as pool:
            for one in [pool.submit(sum, asker.ask(rpc, board)) for _ in range(threads)]:
                one.result()
        while board.phase < Phase.END:    # what comes too late is counted yet
            time.sleep(WAIT_SECONDS)
        asker.note_count(rpc.stats())


async def ask_in_tasks(broker: Broker, asker: Asker, board: Board, tasks: int) -> None:
    async with AsyncRpc(broker) as rpc:
        await asyncio.gather(*(asker.ask_in_loop(rpc, board) for _ in range(tasks)))
        while board.phase < Phase.END:
            await asyncio.sleep(WAIT_SECONDS)
        asker.note_count(rpc.stats())


def feed(plan: Plan, layout: Layout, board: Board) -> None:
    """Asks until the run says stop."""
    with opened(plan, layout) as broker, Diary(layout.ledgers) as diary, noting_stalls(diary), \
            Rpc(broker) as rpc:
        asker = Asker(diary, random.Random(f"{plan.options.seed} feeder"))
        for done in asker.ask(rpc, board):
            board.checked += done
        asker.note_count(rpc.stats())


def look(plan: Plan, layout: Layout, board: Board) -> None:
    """Looks until all that is there is done; leaves the ends of the partitions behind."""
    with opened(plan, layout) as broker, Diary(layout.ledgers) as diary:
        logs = [broker.log(TOPIC, partition) for partition in range(PARTITIONS)]
        with shares_of(broker) as shares:
            while board.phase < Phase.SETTLE or any(
                    counts["lag"] for counts in shares.stats().values()):
                time.sleep(LOOK_SECONDS)
        for partition, log in enumerate(logs):
            for record in log.read():
                number = int((record.value or b"").split(b" ", 1)[0])
                diary.note("there", number, 0, partition, record.offset)
        ends = {partition: log.end_offset for partition, log in enumerate(logs)}
        layout.figures.write_text(json.dumps({"ends": ends}), encoding="utf-8")
