"""Projection: a view is what the records come to, and how far it is stands in it."""

import dataclasses
import sqlite3
import threading

import pytest
from ordering import INSERT, SCHEMA, ask, picky, place, placing, rows_of
from waiting import until

import pylog
from pylog import Broker, ProjectionError
from pylog.patterns import (
    Bus,
    DeadLetters,
    EventStore,
    NewEvent,
    Projection,
    Retry,
    Topic,
    event,
)


@event("order.placed", key="id")
@dataclasses.dataclass
class OrderPlaced:
    id: str
    total: int


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


# ---- what is written


def test_view_has_what_the_events_say_and_what_was_written_can_be_waited_for(orders, bus, path):
    place(bus, 1, 2)

    with orders:
        orders.wait(place(bus, 3))
        assert ask(path) == rows_of(1, 2, 3)

        orders.wait(place(bus, 4))
        assert ask(path) == rows_of(1, 2, 3, 4)


def test_position_of_another_topic_is_refused(orders, broker, bus):
    place(bus, 1)
    with Bus(broker, "other") as other, orders, \
            pytest.raises(pylog.ConfigurationError, match=r"is of 'other', and .* of 'shop'"):
        orders.wait(place(other, 1))


def test_functions_get_the_events_that_their_patterns_mean_in_order(broker, bus, path):
    orders = Projection(broker, "orders", source=bus, view=path, schema=SCHEMA)
    seen = []
    for pattern in ("order.*", "order.cancelled", "**", None):
        orders.on(pattern, lambda db, event, pattern=pattern: seen.append((pattern, event.type)))

    @orders.rows("order.placed", INSERT)
    def placed(event):
        return (event.data, 0) if event.data else None

    @orders.on("order.cancelled")
    def cancelled(db, event):
        db.execute("DELETE FROM orders WHERE id = ?", (event.data,))

    for kind, data in (("order.placed", "a"), ("order.placed", None), ("user.created", "x"),
                       ("order.placed", "b"), ("order.cancelled", "a"), ("order.placed", "c")):
        bus.emit(kind, data)
    orders.run_once()

    assert ask(path) == [("b", 0), ("c", 0)]
    assert [pattern for pattern, kind in seen if kind == "user.created"] == ["**", None]
    assert [pattern for pattern, kind in seen if kind == "order.cancelled"] == [
        "order.*", "order.cancelled", "**", None]


@pytest.mark.parametrize("is_known", [False, True])
def test_store_is_a_source_and_its_events_have_their_class_and_version(broker, path, is_known):
    store = EventStore(broker, "orders", events=[OrderPlaced] if is_known else [])
    orders = Projection(broker, "orders", source=store, view=path, schema=SCHEMA)

    @orders.rows(OrderPlaced, INSERT)
    def placed(event):
        assert isinstance(event.data, OrderPlaced)
        return f"{event.stream}/{event.version}", event.data.total

    @orders.on()
    def each(db, event):
        assert event.version > 0

    with orders:
        orders.wait(store.append("o1", [OrderPlaced("o1", 5), NewEvent("order.paid")],
                                 expected_version=0))
        Bus(broker, "orders").emit("order.placed", {"id": "no event of the store", "total": 1})
        orders.wait(store.append("o1", OrderPlaced("o1", 7), expected_version=2))

    assert ask(path) == [("o1/1", 5), ("o1/3", 7)]


@pytest.mark.parametrize("value", [None, "json"])
def test_topic_is_a_source_whose_records_all_come(broker, path, value):
    topic = Topic(broker, "orders", value=value, num_partitions=3)
    source = topic if value else "orders"
    orders = Projection(broker, "orders", source=source, view=path, schema=SCHEMA)

    @orders.rows(None, INSERT)
    def each(record):
        return record.key, record.value

    with orders:
        for n in range(20):
            orders.wait(topic.publish(n if value else b"%d" % n, f"k{n}"))
        pylog.Admin(broker).create_partitions({"orders": 5})
        orders.wait(topic.publish(20 if value else b"20", "k20", partition=4))

    assert sorted(ask(path)) == sorted((b"k%d" % n, n if value else b"%d" % n) for n in range(21))
    assert ask(path, "SELECT sum(next_offset) FROM pylog_projections") == [(21,)]


def test_rows_in_a_row_go_through_one_executemany(broker, bus, tmp_path):
    calls = []

    class Cursor(sqlite3.Cursor):
        def executemany(self, statement, rows):
            calls.append((statement, len(rows)))
            return super().executemany(statement, rows)

    class Connection(sqlite3.Connection):
        def cursor(self):
            return super().cursor(Cursor)

    orders = placing(broker, bus, lambda: sqlite3.connect(tmp_path / "v.db", factory=Connection))
    place(bus, *range(50))
    bus.emit("user.created")
    place(bus, *range(50))
    orders.run_once()

    assert [count for statement, count in calls if statement == INSERT][:2] == [50, 49]


# ---- going on


def test_it_goes_on_where_the_view_is(broker, bus, path, orders):
    place(bus, 1, 2)
    assert orders.run_once() == 2
    place(bus, 3)

    assert placing(broker, bus, path).run_once() == 1
    assert ask(path) == rows_of(1, 2, 3)


def test_view_that_was_deleted_is_made_of_the_first_record_on(bus, path, orders):
    place(bus, 1, 2)
    orders.run_once()
    for name in path.parent.glob("views.db*"):
        name.unlink()

    assert orders.run_once() == 2
    assert ask(path) == rows_of(1, 2)


def test_several_views_of_one_database_are_each_by_itself(broker, bus, path, orders):
    others = Projection(broker, "others", source=bus, view=path,
                        schema="CREATE TABLE IF NOT EXISTS others (id)")
    others.rows("**", "INSERT INTO others VALUES (?)")(lambda event: (event.data["total"],))
    place(bus, 1)
    orders.run_once()
    place(bus, 2)
    with orders, others:
        last = place(bus, 3)
        orders.wait(last)
        others.wait(last)
    assert orders.rebuild() == 3

    assert ask(path) == rows_of(1, 2, 3)
    assert ask(path, "SELECT * FROM others") == [(1,), (2,), (3,)]


def test_topic_that_was_made_anew_makes_the_view_anew(broker, path):
    topic = Topic(broker, "orders", value="json")
    orders = Projection(broker, "orders", source=topic, view=path, schema=SCHEMA)
    orders.rows(None, INSERT)(lambda record: ("x", record.value))
    for n in range(5):
        topic.publish(n)
    orders.run_once()
    broker.delete_topic("orders")
    Topic(broker, "orders", value="json").publish(17)

    orders.run_once()

    assert ask(path) == [("x", 17)]


def test_records_that_went_before_the_view_had_them_stop_it(broker, bus, path, orders):
    place(bus, 1)
    orders.run_once()
    last = place(bus, 2, 3, 4)
    pylog.Admin(broker).delete_records({pylog.TopicPartition("shop", 0): 3})

    with pytest.raises(ProjectionError, match="rebuild"):
        orders.run_once()
    assert ask(path) == rows_of(1)
    with orders, pytest.raises(ProjectionError, match="offset 1"):
        orders.wait(last)
    assert orders.rebuild() == 1
    assert ask(path) == rows_of(4)


def test_one_works_and_the_others_stand_by(broker, bus, path, orders):
    other = placing(broker, bus, path)
    with other:
        other.wait(place(bus, 1))
        with orders:
            orders.wait(place(bus, 2))
            with pytest.raises(pylog.PylogTimeoutError, match="has held the claim"):
                placing(broker, bus, path).run_once(timeout=0.01)
            other.stop()
            orders.wait(place(bus, 3))

    assert ask(path) == rows_of(1, 2, 3)


def test_what_a_killed_one_had_not_told_is_told_by_the_next(broker, bus, path, orders):
    last = place(bus, 1, 2)
    orders.run_once()
    admin = pylog.Admin(broker)
    for act in (orders.run_once, orders.rebuild):
        admin.delete_group_offsets("projection.orders", [pylog.TopicPartition("shop", 0)])
        assert orders.status().lag == 2
        act()
        orders.wait(last, 0)
        assert orders.status().lag == 0


def test_log_that_ends_before_the_view_stops_it(broker, bus, path, orders):
    """A backup was restored, say."""
    last = place(bus, 1)
    orders.run_once()
    with sqlite3.connect(path) as db:
        db.execute("UPDATE pylog_projections SET next_offset = 17")

    with pytest.raises(ProjectionError, match="rebuild"):
        orders.run_once()
    orders.rebuild()
    orders.wait(last, 0)


def test_run_works_until_it_is_stopped(bus, path, orders):
    thread = threading.Thread(target=orders.run)
    thread.start()
    orders.wait(place(bus, 1))
    orders.stop()
    thread.join(10)

    assert not thread.is_alive()
    assert ask(path) == rows_of(1)


# ---- what fails


def test_record_that_does_not_go_in_stops_it_and_all_before_is_there(broker, bus, path):
    last = place(bus, 1, 2, 3, 4)
    orders = picky(broker, bus, path)

    with pytest.raises(ProjectionError, match=r"offset 2 of shop-0 \(order.placed\): ValueError: "
                                              "three is too many") as caught:
        orders.run_once()

    assert ask(path) == rows_of(1, 2)
    assert (caught.value.projection, caught.value.partition, caught.value.offset) == \
        ("orders", 0, 2)
    assert isinstance(caught.value.__cause__, ValueError)
    assert caught.value.__cause__.__context__ is None    # one traceback, not one a try
    with pytest.raises(ProjectionError):
        orders.run()
    with orders, pytest.raises(ProjectionError, match="three is too many"):
        orders.wait(last)

    mended = placing(broker, bus, path)
    assert mended.run_once() == 2
    assert ask(path) == rows_of(1, 2, 3, 4)


def test_it_can_be_started_again_after_it_has_stopped(broker, bus, path):
    last = place(bus, 1)
    orders = Projection(broker, "orders", source=bus, view=path, schema=SCHEMA)
    is_mended = threading.Event()

    @orders.rows("order.placed", INSERT)
    def placed(event):
        return event.data["id"], event.data["total"] / is_mended.is_set()

    with orders:
        until(lambda: not orders.is_running)
        is_mended.set()
        orders.start()
        orders.wait(last)

    assert ask(path) == rows_of(1)


def test_function_is_tried_again_as_its_retry_says(broker, bus, path):
    place(bus, 2, 3, 4)
    seen = []
    orders = picky(broker, bus, path, seen, retry=Retry(attempts=3, backoff=0.001))

    with pytest.raises(ProjectionError):
        orders.run_once()

    assert seen == [2, 3, 2, 3, 3, 3]    # together, one by one, and again
    assert ask(path) == rows_of(2)


def test_stop_ends_the_wait_for_the_next_attempt(broker, bus, path):
    place(bus, 3)
    seen = []
    orders = picky(broker, bus, path, seen, retry=Retry(attempts=None, backoff=3600))
    with orders:
        until(lambda: seen)
    assert seen == [3]


def test_dead_letters_take_what_does_not_go_in_and_give_it_back(broker, bus, path):
    place(bus, 2, 3, 4)
    picky(broker, bus, path, dlq=True).run_once()

    letters = DeadLetters(broker, "projection.orders")
    assert [(one.message, one.offset) for one in letters.list()] == [("three is too many", 1)]
    assert ask(path) == rows_of(2, 4)

    letters.replay(letters.list())
    mended = placing(broker, bus, path)
    mended.run_once()
    assert ask(path) == rows_of(2, 4, 3)


def test_replayed_letters_of_others_are_not_counted_twice(broker, bus, path, orders):
    @bus.on("order.placed", group="billing")
    def bill(event):
        raise OSError("no bank")

    with bus.start():
        place(bus, 1)
        until(lambda: DeadLetters(broker, "billing").list())
    letters = DeadLetters(broker, "billing")
    letters.replay(letters.list())

    assert orders.run_once() == 2
    assert ask(path) == rows_of(1)


@pytest.mark.parametrize("write", [
    lambda event: next(iter(())),              # StopIteration, which ends whoever is not careful
    lambda event: (event.data["nothing"], 1),
    lambda event: (1,),
    lambda event: 17,
    lambda event: (object(), 1),
])
def test_rows_that_cannot_be_are_failures(broker, bus, path, write):
    orders = Projection(broker, "orders", source=bus, view=path, schema=SCHEMA)
    orders.rows("order.*", INSERT)(write)
    place(bus, 1, 2)

    with pytest.raises(ProjectionError, match="offset 0 of shop-0"):
        orders.run_once()
    assert ask(path) == []


def test_data_that_cannot_be_read_is_a_failure(broker, bus, path, orders):
    broker.append("shop", b"{", headers=[("ce_type", b"order.placed")])
    with pytest.raises(ProjectionError, match="DeserializationError"):
        orders.run_once()


def test_function_that_commits_is_found_out(broker, bus, path):
    orders = Projection(broker, "orders", source=bus, view=path, schema=SCHEMA)

    @orders.on("order.placed")
    def placed(db, event):
        with db:
            db.execute(INSERT, ("x", 1))

    place(bus, 1)
    with pytest.raises(ProjectionError, match="has committed or rolled back"):
        orders.run_once()
    with pytest.raises(ProjectionError, match="has committed or rolled back"):
        orders.run()


def test_database_that_fails_is_tried_again(broker, bus, tmp_path, path):
    is_away = threading.Event()
    is_away.set()

    def connect():
        if is_away.is_set():
            raise sqlite3.OperationalError("no route to host")
        return sqlite3.connect(path, timeout=10)

    orders = placing(broker, bus, connect)
    with orders:
        until(lambda: orders.error)
        assert "failing" in repr(orders)
        is_away.clear()
        orders.wait(place(bus, 1))
        until(lambda: orders.error is None)
    assert ask(path) == rows_of(1)


def test_lock_of_another_is_waited_for(broker, bus, path, orders):
    orders.run_once()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with orders:
        until(lambda: orders.status().pid)
        last = place(bus, 1)
        with pytest.raises(pylog.PylogTimeoutError, match="1 records behind"):
            orders.wait(last, 0.05)
        other.execute("COMMIT")
        orders.wait(last)
    other.close()


def test_who_waits_is_told_what_the_database_fails_on(broker, bus, path):
    orders = Projection(broker, "orders", source=bus, view=path, schema="CREATE TABEL orders")
    orders.on("**", lambda db, event: None)
    with orders:
        last = place(bus, 1)
        until(lambda: orders.error)
        with pytest.raises(pylog.PylogTimeoutError) as late:
            orders.wait(last, 0.05)
    assert "TABEL" in str(late.value.__cause__)


def test_database_that_is_full_in_a_function_is_tried_again(broker, bus, path):
    orders = Projection(broker, "orders", source=bus, view=path, schema=SCHEMA)
    is_small = threading.Event()
    is_small.set()

    @orders.on("order.placed")
    def placed(db, event):
        pages = db.execute("PRAGMA page_count").fetchone()[0]
        db.execute(f"PRAGMA max_page_count = {pages if is_small.is_set() else 10_000}")
        db.execute(INSERT, (event.data["id"], "x" * 100_000))

    with orders:
        last = place(bus, 1)
        until(lambda: orders.error)
        assert "full" in str(orders.error)
        assert orders.is_running
        is_small.clear()
        orders.wait(last)
    assert ask(path, "SELECT id FROM orders") == [("o1",)]


def test_wait_says_who_should_have_run_it(bus, orders):
    with pytest.raises(pylog.PylogTimeoutError, match="nobody runs it: call start"):
        orders.wait(place(bus, 1), 0.01)


# ---- status


def test_status_is_the_same_for_all_processes(broker, bus, path, orders):
    place(bus, 1, 2)
    with Broker(broker.path) as elsewhere:
        seen = Projection(elsewhere, "orders", source="shop", view=path)
        assert seen.status() == ("orders", "shop", None, 2, {0: 0})
        with orders:
            orders.wait(place(bus, 3))
            seen.wait(bus.emit("user.created"))
            status = seen.status()
            assert (status.lag, status.next_offsets) == (0, {0: 4})
            assert status.pid is not None
        assert pylog.Admin(elsewhere).list_group_offsets("projection.orders")


def test_view_that_was_deleted_is_no_longer_said_to_be_far(broker, bus, path, orders):
    written = place(bus, 1)
    orders.run_once()
    path.unlink()
    anew = placing(broker, bus, path)
    anew.on("order.placed", lambda db, one: 1 / 0)

    with anew:
        until(lambda: anew.error)
        assert anew.status().next_offsets == {0: 0}
        with pytest.raises(ProjectionError):
            anew.wait(written)


def test_view_that_was_deleted_is_waited_for_before_and_while_it_is_made(broker, bus, path, orders):
    written = place(bus, 1)
    orders.run_once()
    path.unlink()
    anew = placing(broker, bus, path)
    with pytest.raises(pylog.PylogTimeoutError):
        anew.wait(written, 0.01)

    with anew:
        anew.wait(written)
        assert ask(path) == rows_of(1)


# ---- the file, while it is open


def names_of(path, ends):
    return [path.with_name(path.name + end) for end in ends]


@pytest.mark.parametrize("ends", [("",), ("", "-wal", "-shm")], ids=["alone", "all"])
@pytest.mark.parametrize("is_busy", [False, True])
def test_view_that_is_deleted_while_it_runs_is_made_anew(broker, bus, path, orders, ends, is_busy):
    with orders:
        first = place(bus, 1)
        orders.wait(first)
        with broker.claim("projection.orders.file"):    # it is not made anew before we have looked
            for name in names_of(path, ends):
                name.unlink()
            assert orders.status().lag == 1
        last = place(bus, 2) if is_busy else first
        orders.wait(last)
        seen = ask(path)
        orders.wait(place(bus, 3))

    assert seen == (rows_of(1, 2) if is_busy else rows_of(1))
    assert ask(path)[-1:] == rows_of(3)


def test_view_that_is_replaced_while_it_runs_goes_on_from_there(bus, path, orders, tmp_path):
    older = tmp_path / "older.db"
    with orders:
        orders.wait(place(bus, 1))
        db = sqlite3.connect(path)
        db.execute("VACUUM INTO ?", (str(older),))
        db.close()
        last = place(bus, 2, 3)
        orders.wait(last)
        for name in names_of(path, ("-wal", "-shm")):
            name.unlink()
        holder = sqlite3.connect(older)
        holder.execute("BEGIN IMMEDIATE")    # it does not go on before we have looked
        older.replace(path)
        assert orders.status().next_offsets == {0: 0}    # nobody knows yet
        holder.close()
        orders.wait(last)

        assert ask(path) == rows_of(1, 2, 3)


def test_file_that_is_no_view_is_not_believed(bus, path, orders):
    last = place(bus, 1)
    orders.run_once()
    path.rename(path.with_suffix(".old"))
    for content in (b"", b"no database"):
        path.write_bytes(content)
        with pytest.raises(pylog.PylogTimeoutError, match="nobody runs it"):
            orders.wait(last, 0.01)


def test_who_only_looks_at_a_deleted_view_does_no_harm(broker, bus, path, orders):
    """Looking makes an empty file, and finds what was left beside the one that was deleted."""
    with orders:
        last = place(bus, 1)
        orders.wait(last)
        reader = sqlite3.connect(path)
        assert reader.execute("SELECT * FROM orders").fetchall() == rows_of(1)
        with broker.claim("projection.orders.file"), pytest.raises(sqlite3.Error):
            path.unlink()    # it is not made anew before we have looked
            ask(path)
        orders.wait(last)

        assert ask(path) == rows_of(1)
        assert reader.execute("SELECT * FROM orders").fetchall() == rows_of(1)    # of the old one
        reader.close()
