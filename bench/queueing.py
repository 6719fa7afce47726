"""What a queue costs: over the others that Python has in files, over one that keeps nothing, over a
bare wake-up, and with a million messages waiting.

The others do their work as their own documentation says is fast, in WAL mode and without a sync
where that is offered (persist-queue does not offer it), one message a call as here. In bursts of
100: what one of them leaves lying is swept after each burst, so that none looks through it again.
Only litequeue and persist-queue acknowledge; diskcache and huey forget a message when they hand it
out, and so do less.
"""

from __future__ import annotations

import mmap
import statistics
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec

from bench import yardsticks
from bench.harness import Case, Figure, Probe, Question, Target, format_time, is_steady
from bench.processes import SPAWN, STAMP, baton_run, other_process, ping, put_values, values_to_send
from bench.workspace import Workspace
from pylog.patterns import Queue

BURST, TEN, TENS = 100, 10, 100
NAME = "bench"


def is_installed(module: str, name: str) -> bool:
    if find_spec(module):
        return True
    print(f"SKIPPED: queues against {name}, which is not installed (pip install --group bench)",
          file=sys.stderr)
    return False


# ---- one process --------------------------------------------------------------------------------

def in_bursts(
    workspace: Workspace, count: int, put: Callable, take: Callable[[], object],
    sweep: Callable[[], object] | None = None,
) -> Case:
    """Puts a burst, and takes it: `take()` returns the value, and has acknowledged it."""
    values = workspace.values(count)
    bursts = [values[at:at + BURST] for at in range(0, count, BURST)]
    found: list[object] = []

    def run() -> None:
        found.clear()
        for burst in bursts:
            for v in burst:
                put(v)
            found.extend(take() for _ in burst)
            if sweep:
                sweep()

    def check() -> None:
        if found != values:
            raise AssertionError("a queue returned something else than was put")

    return Case(run, count, check=check)


def put_get_ack(workspace: Workspace) -> Case:
    queue = workspace.closing(Queue(workspace.path("broker"), NAME))
    get = queue.get

    def take() -> bytes:
        delivery = get(0)
        value = delivery.value
        delivery.ack()
        return value

    return in_bursts(workspace, workspace.sizes.round_records, queue.put, take)


def in_litequeue(workspace: Workspace) -> Case:
    from litequeue import LiteQueue

    queue = workspace.closing(LiteQueue(workspace.path("litequeue")))
    queue.conn.execute("pragma synchronous=off")

    def take() -> bytes:
        message = queue.pop()
        queue.done(message.message_id)
        return message.data

    return in_bursts(workspace, workspace.sizes.peer_messages, queue.put, take, queue.prune)


class AsIs:
    """A serializer of bytes, of persist-queue."""

    dumps = loads = staticmethod(bytes)


def in_persist_queue(workspace: Workspace) -> Case:
    from persistqueue import SQLiteAckQueue

    queue = workspace.closing(
        SQLiteAckQueue(str(workspace.path("persist-queue")), serializer=AsIs))

    def take() -> bytes:
        message = queue.get(raw=True)
        queue.ack(id=message["pqid"])
        return message["data"]

    return in_bursts(workspace, workspace.sizes.peer_messages, queue.put, take,
                     lambda: queue.clear_acked_data(keep_latest=0))


def in_diskcache(workspace: Workspace) -> Case:
    from diskcache import Cache, Deque

    cache = workspace.closing(Cache(str(workspace.path("diskcache")), eviction_policy="none",
                                    sqlite_synchronous=0))
    deque = Deque.fromcache(cache)
    return in_bursts(workspace, workspace.sizes.peer_messages, deque.append, deque.popleft)


def in_huey(workspace: Workspace) -> Case:
    from huey.storage import SqliteStorage

    storage = workspace.closing(
        SqliteStorage(NAME, str(workspace.path("huey")), fsync=False))
    return in_bursts(workspace, workspace.sizes.peer_messages, storage.enqueue, storage.dequeue)


# ---- several processes --------------------------------------------------------------------------

def put_messages(connection, path: str, count: int) -> None:
    with Queue(path, NAME) as queue:
        put_values(connection, queue, count)


def take_messages(connection, path: str, count: int) -> None:
    with Queue(path, NAME) as queue:
        def take() -> bytes:
            with queue.get() as delivery:
                return delivery.value

        take_values(connection, take, count)


def take_from_pipe(connection, queue, count: int) -> None:
    take_values(connection, queue.get, count)


def take_values(connection, take: Callable[[], bytes], count: int) -> None:
    """At each "go" takes `count` and says so; at "show" sends them."""
    found: list[bytes] = []
    connection.send("ready")
    while word := connection.recv():
        if word == "go":
            found = [take() for _ in range(count)]
            connection.send("done")
        else:
            connection.send(found)


def two_and_two(workspace: Workspace, count: int, puts: Callable, takes: Callable, queue) -> Case:
    """Two producers and two workers, each with half of `count`. Both producers put the same."""
    half = count // 2
    producers = [workspace.entering(other_process(puts, queue, half)) for _ in range(2)]
    workers = [workspace.entering(other_process(takes, queue, half)) for _ in range(2)]

    def run() -> None:
        for one in (*workers, *producers):
            one.send("go")
        for worker in workers:
            worker.recv()

    def check() -> None:
        found: list[bytes] = []
        for worker in workers:
            worker.send("show")
            found += worker.recv()
        if sorted(found) != sorted(2 * values_to_send(half)):
            raise AssertionError("the workers got something else than was put")

    return Case(run, 2 * half, check=check)


def with_workers(workspace: Workspace) -> Case:
    return two_and_two(workspace, workspace.sizes.round_records, put_messages, take_messages,
                       str(workspace.path("broker")))


def with_mp_queue(workspace: Workspace) -> Case:
    return two_and_two(workspace, workspace.sizes.queued, put_values, take_from_pipe,
                       SPAWN.Queue())


# ---- latency ------------------------------------------------------------------------------------

def put_stamps(connection, path: str, baton_path: str) -> None:
    with Queue(path, NAME) as queue:
        ping(connection, baton_path, queue.put)


def work_run(queue: Queue, connection, count: int) -> float:
    """Median seconds from before the put until the handler has the bytes."""
    clock, taken = time.perf_counter_ns, []

    def handle(delivery) -> None:
        value = delivery.value
        taken.append(clock() - STAMP.unpack_from(value)[0])
        if len(taken) == count:
            queue.stop()

    connection.send(("log", count))
    queue.work(handle)
    return statistics.median(taken) / 1e9


def measure_handler(workspace: Workspace, rounds: int) -> list[Figure]:
    path, baton_path = workspace.path("broker"), workspace.path("baton")
    baton_path.write_bytes(bytes(4096))
    pings = max(1, workspace.sizes.sleeps // rounds)
    ours, bare = [], []
    with (
        open(baton_path, "r+b") as file,
        Queue(path, NAME) as queue,
        other_process(put_stamps, str(path), str(baton_path)) as connection,
    ):
        baton = yardsticks.Baton(mmap.mmap(file.fileno(), 4096))
        for _ in range(rounds):
            bare.append(baton_run(baton, connection, pings))
            ours.append(work_run(queue, connection, pings))
    return [Figure(
        "queue_handler", "put to handler in another, idle, process: p50 over a futex",
        min(ours) / min(bare), statistics.median(a / b for a, b in zip(ours, bare, strict=True)),
        "x", 2.0, 1.3, is_steady=is_steady(bare),
        detail=f"{format_time(min(ours))} against {format_time(min(bare))}")]


def get_ten(queue: Queue) -> float:
    """Seconds a get. What was taken is acknowledged afterwards."""
    get = queue.get
    start = time.perf_counter()
    taken = [get(0) for _ in range(TEN)]
    seconds = time.perf_counter() - start
    for delivery in taken:
        delivery.ack()
    return seconds / TEN


def measure_waiting(workspace: Workspace, rounds: int) -> list[Figure]:
    """Ten are put, then ten taken, of a queue that held none and of one that held a million."""
    few, many = (workspace.closing(Queue(workspace.path("broker"), NAME)) for _ in range(2))
    values = workspace.values(TEN)
    many.put_many(workspace.values(workspace.sizes.million))
    times: dict[Queue, list[float]] = {few: [], many: []}
    for number in range(rounds):
        for queue in (few, many) if number % 2 else (many, few):
            taken = []
            for _ in range(TENS):
                for value in values:
                    queue.put(value)
                taken.append(get_ten(queue))
            times[queue].append(statistics.median(taken))
    waiting = many.stats().ready
    if waiting != workspace.sizes.million or few.stats().ready:
        raise AssertionError(f"{waiting} messages wait of {workspace.sizes.million}")
    of_many, of_few = times[many], times[few]
    return [Figure(
        "queue_waiting", "get, a million messages waiting: p50 over ten waiting",
        min(of_many) / min(of_few),
        statistics.median(a / b for a, b in zip(of_many, of_few, strict=True)),
        "x", 1.1, 1.0, is_steady=is_steady(of_few),
        detail=f"{format_time(min(of_many))} against {format_time(min(of_few))} a get")]


PEERS = {name: make for module, name, make in (
    ("litequeue", "litequeue", in_litequeue), ("persistqueue", "persist-queue", in_persist_queue),
    ("diskcache", "diskcache.Deque", in_diskcache), ("huey", "huey's SqliteStorage", in_huey),
) if is_installed(module, name)}
QUESTIONS = (
    Question(
        "queue_processes", "queue: two producers and two workers, four processes",
        {"multiprocessing.Queue": with_mp_queue, "pylog": with_workers},
        (Target("2 producers, 2 workers as processes, over mp.Queue", "pylog",
                "multiprocessing.Queue", 2, 10, is_speed=True),),
        unit="message",
    ),
)
if PEERS:
    QUESTIONS = (
        Question(
            "queue", "queue: put, get and acknowledge 100 bytes, one process",
            {**PEERS, "pylog": put_get_ack},
            (Target("queue put, get, ack, one process, over the best", "pylog", tuple(PEERS), 20,
                    50, is_speed=True),),
            unit="message",
        ),
        *QUESTIONS,
    )
PROBES = (
    Probe("queue_handler", "queue: from a put to a handler in another process", measure_handler),
    Probe("queue_waiting", "queue: a get, with many messages waiting", measure_waiting),
)
