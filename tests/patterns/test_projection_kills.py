"""A projection of processes that are killed: the view is a fold of the log, whenever it is read."""

import os
import random
import signal
import sqlite3
import time
from collections import Counter

import pytest
from children import killed
from ordering import ask, place, placing, rows_of
from parties import Party, Signal, kill_at_random
from waiting import until

from pylog import Broker
from pylog.patterns import ANY, Bus, EventStore, NewEvent, Projection

PARTITIONS = 2
STREAMS = 5
SCHEMA = """
CREATE TABLE IF NOT EXISTS events (stream, version);
CREATE TABLE IF NOT EXISTS totals (stream PRIMARY KEY, count NOT NULL);
"""
# What one transaction says: events and counts that are not the same are of half a transaction.
INSIDE = """SELECT (SELECT count(*) FROM events), (SELECT coalesce(sum(count), 0) FROM totals),
                   (SELECT coalesce(sum(next_offset), 0) FROM pylog_projections)"""


class Play:
    """Two who append, two who run the projection, one who makes it anew again and again, and one
    who reads it."""

    def __init__(self, folder):
        self.data, self.view = folder / "data", folder / "views.db"
        self.end = Signal(folder / "end")
        with Broker(self.data) as broker:
            EventStore(broker, "orders", num_partitions=PARTITIONS)
            self.projection(broker).run_once()

    def projection(self, broker):
        projection = Projection(broker, "orders", source=EventStore(broker, "orders"),
                                view=self.connect, schema=SCHEMA)

        @projection.rows("placed", "INSERT INTO events VALUES (?, ?)")
        def placed(event):
            return event.stream, event.version

        @projection.on("**")
        def count(db, event):
            if event.type == "moved":
                db.execute("INSERT INTO events VALUES (?, ?)", (event.stream, event.version))
            db.execute("INSERT INTO totals VALUES (?, 1) "
                       "ON CONFLICT DO UPDATE SET count = count + 1", (event.stream,))

        return projection

    def connect(self):
        db = sqlite3.connect(self.view, timeout=60)
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = OFF")    # killed are processes, not the machine
        return db

    def append(self):
        with Broker(self.data) as broker:
            store = EventStore(broker, "orders")
            count = 0
            while not self.end.is_given:
                count += 1
                kind = "placed" if count % 10 < 7 else "moved"
                store.append(f"order-{count % STREAMS}", [NewEvent(kind)] * (count % 3 + 1),
                             expected_version=ANY)
                time.sleep(0.0005)

    def run(self):
        with Broker(self.data) as broker, self.projection(broker):
            self.end.wait()

    def rebuild(self):
        with Broker(self.data) as broker:
            projection = self.projection(broker)
            while not self.end.is_given:
                projection.rebuild()
                time.sleep(0.02)

    def read(self):
        while not self.end.is_given:
            events, counts, offsets = ask(self.view, INSIDE)[0]
            assert events == counts == offsets
            time.sleep(0.001)


def survive(folder, rng, rounds):
    play = Play(folder)
    reader = Party(play.read)
    parties = [Party(act) for act in (play.append, play.append, play.run, play.run, play.rebuild)]
    kill_at_random(parties, rng, rounds)
    until(lambda: ask(play.view, INSIDE)[0][0] > rounds, 60)    # on a slow machine it takes longer
    play.end.give()
    for party in (*parties, reader):
        party.wait()
    with Broker(play.data) as broker:
        play.projection(broker).run_once()
        fold = Counter((event.stream, event.version) for event in
                       EventStore(broker, "orders").subscribe(follow=False))

    assert Counter(ask(play.view, "SELECT * FROM events")) == fold
    assert dict(ask(play.view, "SELECT * FROM totals")) == Counter(
        stream for stream, _ in fold.elements())


@pytest.mark.slow
def test_killed_runners_and_rebuilders_leave_a_fold_of_the_log(tmp_path, rng):
    survive(tmp_path, rng, 20)


@pytest.mark.soak
def test_killed_runners_leave_a_fold_of_the_log_in_hundreds_of_rounds(tmp_path, rng):
    survive(tmp_path, rng, 400)


def deleted_again_and_again(folder, rng, rounds):
    """Two runners that are killed; one who deletes the view, writes, and reads what it wrote."""
    data, path = folder / "data", folder / "views.db"
    end, over = Signal(folder / "end"), Signal(folder / "over")
    seed = rng.random()

    def run():
        with Broker(data) as broker, placing(broker, Bus(broker, "shop"), path):
            over.wait()

    def delete_and_read():
        chance = random.Random(seed)
        with Broker(data) as broker:
            bus = Bus(broker, "shop")
            orders, last = placing(broker, bus, path), None
            # However slow the machine is.
            while not end.is_given or last is None or last.offset <= rounds:
                for name in chance.choice([(), ("",), ("", "-wal", "-shm")]):
                    (folder / f"views.db{name}").unlink(missing_ok=True)
                last = place(bus, 1)
                orders.wait(last, 60)
                assert ask(path, "SELECT count(*) FROM orders") == [(last.offset + 1,)]

    with Broker(data) as broker:
        Bus(broker, "shop").close()
    reader = Party(delete_and_read)
    runners = [Party(run), Party(run)]
    kill_at_random(runners, rng, rounds)
    end.give()
    reader.wait()
    over.give()
    for party in runners:
        party.wait()


@pytest.mark.slow
def test_what_was_written_is_read_though_the_view_is_deleted(tmp_path, rng):
    deleted_again_and_again(tmp_path, rng, 20)


@pytest.mark.soak
def test_what_was_written_is_read_in_hundreds_of_rounds(tmp_path, rng):
    deleted_again_and_again(tmp_path, rng, 400)


def test_rebuild_killed_midway_leaves_the_old_view(tmp_path):
    path = tmp_path / "views.db"
    with Broker(tmp_path / "data") as broker:
        with Bus(broker, "shop") as bus:
            place(bus, *range(500))
            placing(broker, bus, path).run_once()

    def act():
        broker = Broker(tmp_path / "data")
        placing(broker, Bus(broker, "shop"), path).rebuild(
            lambda done, total: os.kill(os.getpid(), signal.SIGKILL))

    killed(act)

    assert ask(path) == rows_of(*range(500))
    with Broker(tmp_path / "data") as broker, Bus(broker, "shop") as bus:
        orders = placing(broker, bus, path)
        place(bus, 500)
        assert orders.run_once() == 1
        assert orders.rebuild() == 501
    assert ask(path) == rows_of(*range(501))


def test_another_process_takes_over_at_once(tmp_path):
    """What the dead one had not told is told by the next."""
    path = tmp_path / "views.db"
    with Broker(tmp_path / "data") as broker:
        Bus(broker, "shop").close()

    def run():
        with Broker(tmp_path / "data") as mine:
            placing(mine, Bus(mine, "shop"), path).run()

    first = Party(run)
    second = None
    try:
        with Broker(tmp_path / "data") as broker, Bus(broker, "shop") as bus:
            seen = placing(broker, bus, path)
            seen.wait(place(bus, 1))
            assert seen.status().pid == first.pid
            second = Party(run)
            seen.wait(place(bus, 2))
            first.kill()
            start = time.monotonic()
            seen.wait(place(bus, 3))
            assert time.monotonic() - start < 15
            assert until(lambda: seen.status().pid) == second.pid
    finally:
        if second:
            second.kill()
    assert ask(path) == rows_of(1, 2, 3)
