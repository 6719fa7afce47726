"""Projection: views made anew, in any database; and what is refused."""

import sqlite3

import other_database
import pytest
from ordering import INSERT, SCHEMA, ask, picky, place, placing, rows_of

import pylog
from pylog import Broker, ProjectionError
from pylog.patterns import Bus, Projection, Retry
from pylog.patterns.projection_run import ProjectionRun


@pytest.fixture
def broker(tmp_path):
    with Broker(tmp_path / "data") as broker:
        yield broker


@pytest.fixture
def bus(broker):
    with Bus(broker, "shop") as bus:
        yield bus


@pytest.fixture
def path(tmp_path):
    return tmp_path / "views.db"


@pytest.fixture
def orders(broker, bus, path):
    return placing(broker, bus, path)


# ---- rebuild


@pytest.mark.parametrize("how", ["run_once", "rebuild"])
def test_a_view_begins_behind_what_was_deleted_since_it_looked(broker, bus, path, orders,
                                                               monkeypatch, how):
    """By retention, in no view yet: nothing of it is lost there."""
    place(bus, *range(10))
    seek = ProjectionRun.seek

    def seek_and_be_late(run):
        seek(run)
        broker.log("shop").delete_before(5)

    monkeypatch.setattr(ProjectionRun, "seek", seek_and_be_late)
    assert getattr(orders, how)() == 5
    assert ask(path) == rows_of(*range(5, 10))


def test_rebuild_makes_the_view_anew_and_others_read_the_old_one_meanwhile(broker, bus, path,
                                                                           orders):
    place(bus, *range(1000))
    orders.run_once()
    anew = Projection(broker, "orders", source=bus, view=path,
                      schema="CREATE TABLE IF NOT EXISTS orders (total); -- a; comment\n"
                             "CREATE INDEX IF NOT EXISTS i ON orders (total);\n"
                             "CREATE VIEW IF NOT EXISTS most AS SELECT max(total) FROM orders;")
    anew.rows("order.placed", "INSERT INTO orders VALUES (?)")(lambda e: (e.data["total"],))
    told = []

    def progress(done, total):
        told.append((done, total, len(ask(path)), len(ask(path)[0])))

    assert anew.rebuild(progress) == 1000
    assert told[-1] == (1000, 1000, 1000, 2)
    assert len(told) > 1
    assert [done for done, *_ in told] == sorted(done for done, *_ in told)
    assert ask(path) == [(n,) for n in range(1000)]
    assert ask(path, "SELECT * FROM most") == [(999,)]
    assert anew.run_once() == 0


def test_rebuild_that_fails_or_is_cancelled_leaves_the_old_view(broker, bus, path, orders):
    place(bus, 1, 2, 3)
    orders.run_once()

    with pytest.raises(ProjectionError, match="offset 2"):
        picky(broker, bus, path).rebuild()
    with pytest.raises(InterruptedError):
        orders.rebuild(lambda done, total: (_ for _ in ()).throw(InterruptedError))

    assert ask(path) == rows_of(1, 2, 3)
    assert orders.run_once() == 0


def test_rebuild_beside_who_runs_it_moves_him_on(broker, bus, path, orders):
    with orders:
        orders.wait(place(bus, 1, 2))
        other = placing(broker, bus, path)
        for n in range(3, 8):
            place(bus, n)
            other.rebuild()
        orders.wait(place(bus, 8))

    assert ask(path) == rows_of(*range(1, 9))


def test_rebuild_needs_to_know_how_tables_are_emptied(broker, bus, path):
    ask(path, SCHEMA)
    orders = Projection(broker, "orders", source=bus, view=path)
    orders.rows("order.placed", INSERT)(lambda event: tuple(event.data.values()))
    place(bus, 1)
    orders.run_once()
    with pytest.raises(pylog.ConfigurationError, match=r"projection.reset"):
        orders.rebuild()

    @orders.reset
    def empty(db):
        db.execute("DELETE FROM orders")

    assert orders.rebuild() == 1
    assert ask(path) == rows_of(1)


# ---- other databases


def test_other_databases_by_their_own_style(broker, bus, path):
    orders = Projection(broker, "orders", source=bus, schema=SCHEMA,
                        view=lambda: other_database.connect(path))

    @orders.rows("order.placed", "INSERT INTO orders VALUES (%s, %s)")
    def placed(event):
        return event.data["id"], event.data["total"]

    @orders.reset
    def empty(db):
        db.cursor().execute("DELETE FROM orders")

    with orders:
        orders.wait(place(bus, 1, 2))
    assert orders.rebuild() == 2
    assert ask(path) == rows_of(1, 2)
    assert ask(path, "SELECT name, part, next_offset FROM pylog_projections") == [("orders", 0, 2)]


# ---- bad use


@pytest.mark.parametrize(("change", "error", "match"), [
    ({"name": 17}, TypeError, "name must be a str"),
    ({"name": ""}, pylog.ConfigurationError, "name is empty"),
    ({"name": "x" * 300}, pylog.InvalidGroupIdError, "too long"),
    ({"source": 17}, TypeError, "source must be"),
    ({"source": None}, TypeError, "source must be"),
    ({"source": "no/topic"}, pylog.InvalidTopicError, "no/topic"),
    ({"view": 17}, TypeError, "path of an SQLite"),
    ({"view": ""}, pylog.ConfigurationError, "path of the database is empty"),
    ({"view": ":memory:"}, pylog.ConfigurationError, "name a file"),
    ({"schema": None}, TypeError, "schema must be a str"),
    ({"retry": 3}, TypeError, "retry must be a Retry"),
    ({"retry": Retry(mode="park")}, pylog.ConfigurationError, "in order"),
    ({"dlq": 3}, TypeError, "dlq must be"),
    ({"broker": 3}, TypeError, "broker must be"),
])
def test_bad_options_are_refused(broker, path, change, error, match):
    options = {"broker": broker, "name": "x", "source": "t", "view": path, **change}
    with pytest.raises(error, match=match):
        Projection(options.pop("broker"), options.pop("name"), **options)


async def coroutine(db, event):
    pass


def one_too_many(db, event):
    return event.data


@pytest.mark.parametrize(("register", "error", "match"), [
    (lambda orders: orders.on("order.*", 17), TypeError, "must be callable"),
    (lambda orders: orders.on("order.*", coroutine), TypeError, "is `async def`"),
    (lambda orders: orders.on("order.*", lambda event: None), TypeError, "2 arguments"),
    (lambda orders: orders.rows(None, INSERT)(one_too_many), TypeError, "1 argument"),
    (lambda orders: orders.on("order.x*", print), pylog.ConfigurationError, "wildcard"),
    (lambda orders: orders.on(17, print), TypeError, "pattern"),
    (lambda orders: orders.rows("order.*", 17), TypeError, "statement must be"),
])
def test_bad_functions_are_refused(broker, bus, path, register, error, match):
    with pytest.raises(error, match=match):
        register(Projection(broker, "x", source=bus, view=path))


def test_patterns_are_for_sources_that_have_types(broker, path):
    with pytest.raises(pylog.ConfigurationError, match="give the Bus or the EventStore"):
        Projection(broker, "x", source="shop", view=path).on("order.*", print)


def test_function_that_returns_what_has_to_be_awaited_is_a_failure(broker, bus, path):
    orders = Projection(broker, "x", source=bus, view=path)
    orders.on("**", lambda db, event: coroutine(db, event))
    place(bus, 1)
    with pytest.raises(ProjectionError, match="nobody does"):
        orders.run_once()


def test_without_functions_nothing_is_run(broker, bus, path):
    orders = Projection(broker, "x", source=bus, view=path)
    for act in (orders.start, orders.run, orders.run_once, orders.rebuild):
        with pytest.raises(pylog.IllegalStateError, match="has no function"):
            act()


def test_function_that_comes_late_is_refused(orders):
    with orders, pytest.raises(pylog.IllegalStateError, match="would miss events"):
        orders.on("order.*", print)


def test_source_of_another_broker_is_refused(tmp_path, bus, path):
    with Broker(tmp_path / "other") as other:
        with pytest.raises(pylog.ConfigurationError, match="give both the same"):
            Projection(other, "x", source=bus, view=path)


@pytest.mark.parametrize("position", [17, None, (0, 5), "end"])
def test_only_positions_can_be_waited_for(orders, position):
    with pytest.raises(TypeError, match="position must be"):
        orders.wait(position)


@pytest.mark.parametrize(("timeout", "error"), [
    ("x", TypeError), (-1, pylog.ConfigurationError), (float("nan"), pylog.ConfigurationError)])
def test_what_is_no_time_to_wait_is_refused(orders, bus, timeout, error):
    with pytest.raises(error, match="timeout"):
        orders.wait(place(bus, 1), timeout=timeout)


def test_connections_that_commit_by_themselves_are_refused(broker, bus, path):
    orders = placing(broker, bus, lambda: other_database.connect(path, autocommit=True))
    with pytest.raises(pylog.ConfigurationError, match="autocommit off"):
        orders.run_once()


@pytest.mark.parametrize("level", ["", None, "EXCLUSIVE"])
def test_sqlite_connections_of_any_isolation_level_will_do(broker, bus, path, level):
    orders = placing(broker, bus, lambda: sqlite3.connect(path, isolation_level=level))
    place(bus, 1)
    orders.run_once()
    place(bus, 2)
    assert orders.run_once() == 1
    assert orders.rebuild() == 2
    assert ask(path) == rows_of(1, 2)
