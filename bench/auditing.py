"""What an audit trail costs beside a log: the same bytes, and no chain.

The yardstick appends an entry's value, key, headers and timestamp one by one; the entries are made
(checked, JSON, the hash of the one before) while the clock runs.
"""

from __future__ import annotations

from bench.harness import Case, Question, Target
from bench.workspace import Workspace
from pylog.broker import Broker
from pylog.patterns import Audit

ENTRY = {"actor": "user-17", "action": "order.cancelled", "target": "order-42",
         "before": {"status": "paid"}, "after": {"status": "cancelled"}, "reason": "asked for it"}


def trail_of(workspace: Workspace) -> Audit:
    return Audit(workspace.closing(Broker(workspace.path("broker"))))


def chained(workspace: Workspace, record) -> Case:
    """A case that records so many entries a round, and proves the chain at the end."""
    trail, count = trail_of(workspace), workspace.sizes.queued

    def finish() -> None:
        if (found := trail.verify(head=trail.head())) is not None:
            raise AssertionError(f"the chain is broken: {found}")

    return Case(lambda: record(trail, count), count, finish=finish)


def one_by_one(workspace: Workspace) -> Case:
    def record(trail: Audit, count: int) -> None:
        for _ in range(count):
            trail.record(**ENTRY)

    return chained(workspace, record)


def in_lists(workspace: Workspace) -> Case:
    return chained(workspace, lambda trail, count: trail.record_many([ENTRY] * count))


def appended(workspace: Workspace) -> Case:
    trail, count = trail_of(workspace), workspace.sizes.queued
    trail.record(**ENTRY)
    with Broker(trail._broker.path) as broker:
        [entry] = broker.read("audit")
        value, key, timestamp, headers = entry.value, entry.key, entry.timestamp, [*entry.headers]
    log = workspace.log("append")

    def append() -> None:
        for _ in range(count):
            log.append(value, key, headers, timestamp)

    return Case(append, count)


QUESTIONS = (Question(
    "audit", "an entry in a hash chain, beside a bare append of the same bytes",
    {"append": appended, "record": one_by_one, "record_many": in_lists},
    (Target("audit entries, record_many, over Log.append", "record_many", "append", 10, 4),
     Target("audit entries, one by one, over Log.append", "record", "append")),
    unit="entry"),)
