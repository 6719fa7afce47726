"""A projection into SQLite, beside `executemany` of the rows that it makes.

Both write the same rows by the same statement, in transactions of the same size, into a new file in
WAL mode each round; the yardstick has them ready in a list. The projection also reads the records,
finds who wants them, makes the rows, and writes how far it is. The view is a read model as people
make it: orders by number, and an index by which those of a user are found.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing

from bench.harness import Case, Question, Target
from bench.workspace import Workspace
from pylog.broker import Broker
from pylog.patterns import Bus, Projection, Topic
from pylog.patterns.projection_run import BATCH_MAX
from pylog.patterns.view_file import ViewFile

SCHEMA = """
CREATE TABLE IF NOT EXISTS orders (id INTEGER PRIMARY KEY, user, data);
CREATE INDEX IF NOT EXISTS orders_by_user ON orders (user);
"""
INSERT = "INSERT INTO orders VALUES (?, ?, ?)"


def user(number: int) -> str:
    return f"user-{number * 7919 % 997}"


def row_of_record(record) -> tuple:
    return record.offset, record.key, record.value


def row_of_event(event) -> tuple:
    order = event.data
    return order["id"], order["user"], order["total"]


class Views:
    """A new file each round, and what is in it at the end."""

    def __init__(self, workspace: Workspace, rows: list[tuple]) -> None:
        self.rows = rows
        self.path = workspace.path("views")

    def reset(self) -> None:
        self.path.unlink(missing_ok=True)

    def check(self) -> None:
        with closing(sqlite3.connect(self.path)) as db:
            if db.execute("SELECT * FROM orders ORDER BY id").fetchall() != self.rows:
                raise AssertionError("the view has other rows than it should have")

    def case(self, run) -> Case:
        return Case(run, len(self.rows), self.reset, self.check)


def executed(workspace: Workspace, rows: list[tuple]) -> Case:
    views = Views(workspace, rows)

    def run() -> None:
        with closing(ViewFile(views.path).connect()) as db:
            db.executescript(SCHEMA)
            for at in range(0, len(rows), BATCH_MAX):
                with db:
                    db.executemany(INSERT, rows[at:at + BATCH_MAX])

    return views.case(run)


def projected(workspace: Workspace, source, row, rows: list[tuple]) -> Case:
    """source: has all the records already. row: of what it gives."""
    views = Views(workspace, rows)
    projection = Projection(source.broker, "orders", source=source, view=views.path, schema=SCHEMA)
    projection.rows(None, INSERT)(row)
    return views.case(projection.run_once)


def rows_of_records(workspace: Workspace) -> list[tuple]:
    values = workspace.values(workspace.sizes.round_records)
    return [(number, user(number).encode(), value) for number, value in enumerate(values)]


def rows_of_events(workspace: Workspace) -> list[tuple]:
    return [(number, user(number), number % 1000)
            for number in range(workspace.sizes.round_records)]


def of_records(workspace: Workspace) -> Case:
    """Records of 100 bytes as they are."""
    topic = Topic(workspace.closing(Broker(workspace.path("broker"))), "orders")
    rows = rows_of_records(workspace)
    topic.publish_many([value for _, _, value in rows], [key for _, key, _ in rows])
    return projected(workspace, topic, row_of_record, rows)


def of_events(workspace: Workspace) -> Case:
    """Events of a bus, whose data is JSON."""
    bus = Bus(workspace.closing(Broker(workspace.path("broker"))), "orders")
    rows = rows_of_events(workspace)
    for number, who, total in rows:
        bus.emit("order.placed", {"id": number, "user": who, "total": total})
    return projected(workspace, bus, row_of_event, rows)


QUESTIONS = (Question(
    "projection", "a projection into SQLite, beside executemany of the same rows",
    {"rows": lambda workspace: executed(workspace, rows_of_records(workspace)),
     "records": of_records,
     "rows of events": lambda workspace: executed(workspace, rows_of_events(workspace)),
     "events": of_events},
    (Target("projection of records over executemany of the rows", "records", "rows", 0.7, 0.9,
            is_speed=True),
     Target("projection of events in JSON over executemany", "events", "rows of events",
            is_speed=True)),
    unit="row"),)
