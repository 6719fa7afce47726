"""PostgreSQL: views and outboxes in a server, by both drivers. Skipped where there is none."""

import contextlib
import itertools
import re
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import postgres
import pytest
from ordering import place, rows_of
from parties import Party, Signal, kill_at_random
from waiting import until

import pylog
from pylog import Broker, ProjectionError
from pylog.patterns import Bus, Outbox, Projection

SCHEMA = "CREATE TABLE IF NOT EXISTS orders (id TEXT, total INTEGER)"
INSERT = "INSERT INTO orders VALUES (%s, %s)"
PAGE = Path(__file__).parents[2] / "docs" / "patterns.md"
NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def server():
    with postgres.running() as conninfo:
        yield conninfo


@pytest.fixture(params=["psycopg", "psycopg2"])
def connect(server, request):
    """Opens a connection, with tables of the test's own."""
    module = pytest.importorskip(request.param)
    name = f"pylog_{next(NUMBERS)}"

    def connect(**options):
        return module.connect(server, options=f"-c search_path={name}", **options)

    with contextlib.closing(connect()) as db:
        run(db, f"DROP SCHEMA IF EXISTS {name} CASCADE", f"CREATE SCHEMA {name}")
    yield connect
    with contextlib.closing(connect()) as db:
        run(db, f"DROP SCHEMA {name} CASCADE")


@pytest.fixture
def broker(tmp_path):
    with Broker(tmp_path / "data") as broker:
        yield broker


@pytest.fixture
def bus(broker):
    with Bus(broker, "shop") as bus:
        yield bus


@pytest.fixture
def outbox(connect):
    [tables] = re.findall(r"```sql\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    with contextlib.closing(connect()) as db:
        run(db, tables)
    return Outbox(connect)


def run(db, *statements):
    for statement in statements:
        db.cursor().execute(statement)
    db.commit()


def ask(connect, question="SELECT * FROM orders"):
    with contextlib.closing(connect()) as db:
        cursor = db.cursor()
        cursor.execute(question)
        return cursor.fetchall()


def placing(broker, source, connect, function=None, **options):
    orders = Projection(broker, "orders", source=source, view=connect, schema=SCHEMA, **options)
    if function is None:
        orders.rows("order.placed", INSERT)(lambda event: (event.data["id"], event.data["total"]))
    else:
        orders.on("order.placed", function)

    @orders.reset
    def empty(db):
        db.cursor().execute("DELETE FROM orders")

    return orders


def insert(db, event):
    db.cursor().execute(INSERT, (event.data["id"], event.data["total"]))


# ---- projections


def test_view_is_filled_waited_for_and_made_anew_while_others_read_it(broker, bus, connect):
    orders = placing(broker, bus, connect)
    seen = []
    with orders:
        orders.wait(place(bus, 1, 2, 3))
        assert ask(connect) == rows_of(1, 2, 3)
        assert orders.rebuild(lambda done, total: seen.append(ask(connect))) == 3
        orders.wait(place(bus, 4))

    assert seen == [rows_of(1, 2, 3)]
    assert ask(connect) == rows_of(1, 2, 3, 4)
    assert ask(connect, "SELECT name, part, next_offset FROM pylog_projections") == [
        ("orders", 0, 4)]
    assert orders.status().lag == 0


def test_record_that_does_not_go_in_stops_it_or_is_a_dead_letter(broker, bus, connect):
    bus.emit("order.placed", {"id": "o1", "total": 1})
    bus.emit("order.placed", {"id": "o2", "total": "two"})
    bus.emit("order.placed", {"id": "o3", "total": 3})
    with pytest.raises(ProjectionError, match=r"at offset 1 .*invalid input syntax"):
        placing(broker, bus, connect).run_once()
    assert ask(connect) == rows_of(1)

    orders = placing(broker, bus, connect, dlq=True)
    assert orders.run_once() == 2
    assert orders.rebuild() == 3
    assert ask(connect) == rows_of(1, 3)


def test_connection_that_is_cut_in_a_function_is_opened_again(broker, bus, connect):
    cut = threading.Event()

    def placed(db, event):
        insert(db, event)
        if event.data["total"] == 2 and not cut.is_set():
            cut.set()
            cursor = db.cursor()
            cursor.execute("SELECT pg_backend_pid()")
            ask(connect, f"SELECT pg_terminate_backend({cursor.fetchone()[0]})")
            cursor.execute("SELECT 1")

    with placing(broker, bus, connect, placed) as orders:
        orders.wait(place(bus, 1, 2, 3))
    assert cut.is_set()
    assert ask(connect) == rows_of(1, 2, 3)


def test_deadlock_is_tried_again(broker, bus, connect):
    """The view's transaction has the place, and wants what the other has, which wants the place."""
    orders = placing(broker, bus, connect)
    orders.run_once()
    place(bus, 1)
    orders.run_once()
    other, tries = connect(), []
    cursor = other.cursor()
    cursor.execute("SET deadlock_timeout = '60s'")    # so that it is the projection's that ends
    cursor.execute("LOCK TABLE orders")
    reached = threading.Event()

    waits = f"SELECT wait_event_type FROM pg_stat_activity WHERE pid = {pid_of(other)}"

    def placed(db, event):
        tries.append(event.data["total"])
        reached.set()
        if len(tries) == 1:    # whether there is a deadlock the server looks once, a second later
            until(lambda: ask(connect, waits) == [("Lock",)])
        insert(db, event)

    with placing(broker, bus, connect, placed) as again:
        last = place(bus, 2)
        reached.wait(20)
        cursor.execute("UPDATE pylog_projections SET next_offset = next_offset")
        other.commit()
        again.wait(last)
    other.close()
    assert len(tries) > 1
    assert ask(connect) == rows_of(1, 2)


def test_connections_that_commit_by_themselves_are_refused(broker, bus, connect):
    def committing():
        db = connect()
        db.autocommit = True
        return db

    with pytest.raises(pylog.ConfigurationError, match="open it with autocommit off"):
        placing(broker, bus, committing).run_once()


@pytest.mark.slow
def test_killed_runners_leave_each_record_in_the_view_once(tmp_path, connect, rng):
    end = Signal(tmp_path / "end")

    def work():
        with Broker(tmp_path / "data") as mine, placing(mine, Bus(mine, "shop"), connect):
            end.wait()

    with Broker(tmp_path / "data") as broker:
        Bus(broker, "shop").close()
    parties = [Party(work), Party(work)]
    for number in range(20):
        with Broker(tmp_path / "data") as broker, Bus(broker, "shop") as bus:
            place(bus, *range(10 * number, 10 * number + 10))
        kill_at_random(parties, rng, 1)
    with Broker(tmp_path / "data") as broker, Bus(broker, "shop") as bus:
        seen = placing(broker, bus, connect)
        until(lambda: seen.status().lag == 0)
    end.give()
    for party in parties:
        party.wait()
    assert ask(connect) == rows_of(*range(200))


# ---- outboxes


def test_committed_rows_are_records_and_no_others(broker, connect, outbox):
    with contextlib.closing(connect()) as db:
        outbox.add(db, "orders", {"id": 1}, key="k", headers={"a": "b"})
        outbox.emit(db, "shop", "order.made", {"id": 1})
        outbox.add(db, "no/topic", 1)
        db.cursor().execute("INSERT INTO outbox (topic, value) VALUES ('orders', 'plain')")
        db.commit()
        outbox.add(db, "orders", {"id": 2})
        db.rollback()

    assert abs(datetime.now(UTC) - outbox.oldest()) < timedelta(minutes=5)
    assert outbox.pending() == outbox.relay(broker).run_once() == 4
    first, plain = broker.read("orders")
    assert (first.key, first.value, plain.value) == (b"k", b'{"id":1}', b"plain")
    assert first.headers[0] == ("a", b"b")
    assert outbox.oldest() is None
    [parked] = outbox.parked()
    assert (parked.topic, outbox.pending(), outbox.retry(parked.id)) == ("no/topic", 0, 1)
    assert outbox.relay(broker).run_once() == 1
    with contextlib.closing(connect()) as db, \
            pytest.raises(pylog.NotSupportedError, match="by a migration"):
        outbox.create_table(db)


def test_rows_that_commit_late_with_a_lower_number_are_sent(broker, connect, outbox):
    slow, quick = connect(), connect()
    outbox.add(slow, "orders", 1)
    outbox.add(quick, "orders", 2)
    quick.commit()
    assert outbox.relay(broker).run_once() == 1
    slow.commit()
    assert outbox.relay(broker).run_once() == 1
    slow.close()
    quick.close()
    assert [record.value for record in broker.read("orders")] == [b"2", b"1"]


def test_relay_whose_connection_is_cut_goes_on(broker, connect, outbox):
    with outbox.relay(broker, poll=0.01), contextlib.closing(connect()) as db:
        for number in range(5):
            outbox.add(db, "orders", number)
            db.commit()
            until(lambda: not outbox.pending())
            ask(connect, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE "
                         "'%outbox%' AND pid NOT IN (pg_backend_pid(), "
                         f"{pid_of(db)})")
    assert [record.value for record in broker.read("orders")] == [b"%d" % n for n in range(5)]


def pid_of(db):
    cursor = db.cursor()
    cursor.execute("SELECT pg_backend_pid()")
    return cursor.fetchone()[0]


@pytest.mark.slow
def test_killed_programs_and_relays_make_one_record_of_each_row(tmp_path, connect, outbox, rng):
    end = Signal(tmp_path / "end")
    with contextlib.closing(connect()) as db:
        run(db, "CREATE TABLE said (id TEXT)")

    def write():
        with contextlib.closing(connect()) as db:
            for count in itertools.count():
                if end.is_given:
                    return
                row = outbox.add(db, "orders", count, f"k{count % 5}")
                db.cursor().execute("INSERT INTO said VALUES (%s)", (row,))
                db.rollback() if count % 5 == 0 else db.commit()
                time.sleep(0.0005)

    def relay():
        with Broker(tmp_path / "data") as mine, outbox.relay(mine, poll=0.001):
            end.wait()

    with Broker(tmp_path / "data") as broker:
        broker.create_topic("orders", 2)
    parties = [Party(write), Party(write), Party(relay), Party(relay)]
    kill_at_random(parties, rng, 20)
    end.give()
    for party in parties:
        party.wait()
    with Broker(tmp_path / "data") as broker:
        until(lambda: not outbox.relay(broker).run_once() and not outbox.pending())
        there = sorted(record.header("outbox_id").decode() for record in broker.read("orders"))

    assert there == sorted(row for (row,) in ask(connect, "SELECT id FROM said"))
    assert len(there) > 20
