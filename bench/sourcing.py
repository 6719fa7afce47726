"""What an event store costs: an append on the version that the caller has seen, beside the append
that it comes to, a record with the same key and headers on the end that was seen.

Events are made beforehand, as values are for the other rows; making a NewEvent takes 0.2 us.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from bench.harness import Figure, Probe, format_time
from bench.workspace import Workspace
from pylog.broker import Broker
from pylog.log import Log
from pylog.patterns import EventStore, NewEvent

STREAMS = 100
EVENT = NewEvent("order.placed", bytes(100))


def timed(act: Callable[[int], object], count: int) -> float:
    start = time.perf_counter()
    act(count)
    return (time.perf_counter() - start) / count


def append_events(store: EventStore, streams: list[str], count: int) -> None:
    append = store.append
    for version in range(count // STREAMS):
        for stream in streams:
            append(stream, EVENT, expected_version=version)


def append_records(log: Log, key: bytes, headers: list[tuple[str, bytes]], count: int) -> None:
    end = log.end_offset
    for number in range(end, end + count):
        log.append(EVENT.data, key, [*headers, ("stream_version", b"%d" % number)], None, number)


def measure_append(workspace: Workspace, rounds: int) -> list[Figure]:
    broker = workspace.closing(Broker(workspace.path("broker")))
    store, log = EventStore(broker, "orders", value=None), broker.log("plain")
    count = workspace.sizes.queued // STREAMS * STREAMS
    store.append("first", EVENT, expected_version=0)
    *headers, _ = next(broker.read("orders")).headers
    ours, plain = [], []
    for number in range(rounds):
        streams = [f"order-{number}-{one}" for one in range(STREAMS)]
        plain.append(timed(lambda count: append_records(log, b"order-0-0", headers, count), count))
        ours.append(timed(lambda count, streams=streams: append_events(store, streams, count),
                          count))
    if sum(store.streams("order-").values()) != rounds * count:
        raise AssertionError("an event was not appended")
    read = timed(lambda count: sum(1 for one in streams for _ in store.read(one)), count)
    opened = timed(lambda count: EventStore(broker, "orders").version("first"), rounds * count)
    opened_again = timed(lambda count: EventStore(broker, "orders"), rounds * count)
    return [
        Figure("sourcing", "event store append, expected version, 100 bytes", 1e6 * min(ours),
               1e6 * sorted(ours)[rounds // 2], "us", 2.0, 0.5,
               detail=f"{format_time(min(plain))} the record alone, with if_end"),
        Figure("sourcing", "event store opened, an event in it", 1e6 * opened, None, "us",
               detail=f"{format_time(opened_again)} when its index was kept; {format_time(read)} "
               "to read one"),
    ]


PROBES = (Probe("sourcing", "event store: appends, on the version that was seen", measure_append),)
