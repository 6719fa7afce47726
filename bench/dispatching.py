"""What an event bus costs: a hundred wildcard handlers in a durable group, of which one wants an
event, beside a loop that calls it.

The events lie there before the group begins. The clock runs from the first call of a handler to the
last: reading, finding who wants it, the call, and the commit of each event.
"""

from __future__ import annotations

import threading
import time

from bench.harness import Figure, Probe, format_time
from bench.workspace import Workspace
from pylog.broker import Broker
from pylog.patterns import Bus

HANDLERS = 100
NAME = "bench"


class Counting:
    """A handler that notes when it was called first and last of `count` times."""

    def __init__(self, count: int) -> None:
        self.left = self.count = count
        self.done = threading.Event()

    def __call__(self, event) -> None:
        if self.left == self.count:
            self.start = time.perf_counter()
        self.left -= 1
        if not self.left:
            self.end = time.perf_counter()
            self.done.set()

    def seconds_each(self) -> float:
        return (self.end - self.start) / (self.count - 1)


def dispatched(broker: Broker, count: int, group: str) -> float:
    """Seconds an event, of a group that has them all before it."""
    handle = Counting(count)
    with Bus(broker, NAME) as bus:
        for number in range(HANDLERS):
            bus.on(f"kind{number}.*", handle, group=group, name=f"handler{number}")
        bus.start()
        if not handle.done.wait(60):
            raise AssertionError(f"{handle.left} events came to no handler")
        if sum(one.handled for one in bus.stats().values()) > count:
            raise AssertionError("an event came to more than one handler")
    return handle.seconds_each()


def called(events: list[dict]) -> float:
    handle = Counting(len(events))
    for event in events:
        handle(event)
    return handle.seconds_each()


def measure_dispatch(workspace: Workspace, rounds: int) -> list[Figure]:
    broker = workspace.closing(Broker(workspace.path("broker")))
    events = [{"id": number} for number in range(workspace.sizes.queued)]
    with Bus(broker, NAME) as bus:
        for event in events:
            bus.emit(f"kind{event['id'] % HANDLERS}.made", event)
    ours, direct = [], []
    for number in range(rounds):
        direct.append(called(events))
        ours.append(dispatched(broker, len(events), f"group{number}"))
    middle = sorted(ours)[rounds // 2]
    return [Figure(
        "dispatch", f"bus dispatch, {HANDLERS} wildcard handlers, an event", 1e6 * min(ours),
        1e6 * middle, "us", 3.0, 1.0,
        detail=f"{format_time(min(direct))} where the handler is called directly")]


PROBES = (Probe("dispatch", "bus: an event to one of a hundred handlers", measure_dispatch),)
