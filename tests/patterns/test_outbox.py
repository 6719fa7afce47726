"""Outbox: rows of the user's own transaction become records, once."""

import itertools
import json
import os
import signal
import sqlite3
import sys
import threading
import time
import types

import pytest
from children import killed
from waiting import until

import pylog
from pylog import Broker
from pylog.patterns import Bus, Outbox, relay


@pytest.fixture
def broker(tmp_path):
    with Broker(tmp_path / "data") as broker:
        yield broker


@pytest.fixture
def path(tmp_path):
    return tmp_path / "app.db"


@pytest.fixture
def outbox(path):
    outbox = Outbox(path)
    with sqlite3.connect(path) as db:
        outbox.create_table(db)
        db.execute("CREATE TABLE orders (id)")
    return outbox


@pytest.fixture
def db(outbox, path):
    with sqlite3.connect(path) as db:
        yield db
    db.close()


def values(broker, topic="orders"):
    return [json.loads(record.value) for record in broker.read(topic)]


def ids(broker, topic="orders"):
    return [record.header("outbox_id").decode() for record in broker.read(topic)]


# ---- what a transaction says


def test_committed_rows_are_records_in_order_with_their_ids(broker, outbox, db):
    with db:
        added = [outbox.add(db, "orders", {"n": n}, key="alice", headers={"tenant": "eu"})
                 for n in range(3)]

    assert outbox.pending() == 3
    assert outbox.relay(broker).run_once() == 3

    records = list(broker.read("orders"))
    assert [record.value for record in records] == [b'{"n":0}', b'{"n":1}', b'{"n":2}']
    assert ids(broker) == added
    assert {(record.key, record.header("tenant")) for record in records} == {(b"alice", b"eu")}
    assert outbox.pending() == 0
    assert outbox.relay(broker).run_once() == 0


def test_row_that_takes_the_number_of_one_that_was_sent_and_withdrawn_is_sent_too(
        broker, outbox, db, monkeypatch):
    """SQLite gives the number of the last row once more when that is gone."""
    append = relay._Passage._append

    def append_and_stop(*given):
        monkeypatch.setattr(relay._Passage, "_append", append)
        place = append(*given)
        with db:
            db.execute("DELETE FROM outbox")
            outbox.add(db, "orders", 2)
        return place

    with db:
        outbox.add(db, "orders", 1)
    monkeypatch.setattr(relay._Passage, "_append", append_and_stop)
    outbox.relay(broker).run_once()

    assert values(broker) == [1, 2]


def test_rows_that_are_rolled_back_are_no_records(broker, outbox, db):
    with pytest.raises(ZeroDivisionError):
        with db:
            db.execute("INSERT INTO orders VALUES (1)")
            outbox.add(db, "orders", 1)
            raise ZeroDivisionError

    assert outbox.relay(broker).run_once() == 0
    assert not db.execute("SELECT * FROM orders").fetchall()


def test_rows_that_commit_late_with_a_lower_number_are_sent(broker, outbox, db):
    row = "INSERT INTO outbox (number, id, topic, value) VALUES (?, ?, 'orders', '1')"
    with db:
        db.execute(row, (17, "later"))
    outbox.relay(broker).run_once()
    with db:
        db.execute(row, (3, "earlier"))

    assert outbox.relay(broker).run_once() == 1
    assert ids(broker) == ["later", "earlier"]


def test_keys_and_headers_and_values_may_be_any_bytes_or_none(broker, path, db):
    outbox = Outbox(path, value=None)
    headers = [("a", b"\x00\xff\x80"), ("b", None), ("c", "ü"), ("a", b"")]
    with db:
        outbox.add(db, "raw", b"\xff\x00", b"\x80", headers)
        outbox.add(db, "raw", None)

    outbox.relay(broker).run_once()

    first, second = broker.read("raw")
    assert (first.key, first.value) == (b"\x80", b"\xff\x00")
    assert first.headers[:-1] == (("a", b"\x00\xff\x80"), ("b", None), ("c", "ü".encode()),
                                  ("a", b""))
    assert (second.key, second.value) == (None, None)


def test_a_trigger_may_write_the_rows(broker, outbox, db):
    db.execute("CREATE TRIGGER said AFTER INSERT ON orders BEGIN INSERT INTO outbox "
               "(topic, key, value) VALUES ('orders', NEW.id, json_object('id', NEW.id)); END")
    with db:
        db.executemany("INSERT INTO orders VALUES (?)", [("a",), ("b",)])

    assert outbox.relay(broker).run_once() == 2
    assert [(record.key, record.value) for record in broker.read("orders")] == [
        (b"a", b'{"id":"a"}'), (b"b", b'{"id":"b"}')]
    assert len(set(ids(broker))) == 2


def test_an_event_reaches_a_bus_with_the_rows_id(broker, outbox, db):
    seen = []
    with Bus(broker, "shop") as bus:
        bus.on("order.*", lambda event: seen.append((event.type, event.data, event.id, event.key)))
        with db:
            row = outbox.emit(db, "shop", "order.created", {"id": 17}, key="k", subject="o/17")
        outbox.relay(broker).run_once()
        until(lambda: seen)

    assert seen == [("order.created", {"id": 17}, row, b"k")]
    assert ids(broker, "shop") == [row]


def test_records_are_on_disk_before_their_rows_are_deleted(broker, outbox, db):
    with db:
        outbox.add(db, "orders", 1)
    outbox.relay(broker).run_once()

    log = broker.log("orders")
    assert log.durable_offset == log.end_offset == 1


# ---- who was killed


def dies_before_its_rows_are_deleted(path, outbox):
    """Of the relay, whose records are in and whose rows are there still."""
    def act():
        original = relay._Passage._execute_many

        def execute_many(self, statement, values):
            if statement.startswith("DELETE FROM outbox WHERE"):
                os.kill(os.getpid(), signal.SIGKILL)
            original(self, statement, values)

        relay._Passage._execute_many = execute_many
        outbox.relay(Broker(path)).run_once()

    killed(act)


def test_what_a_killed_relay_has_sent_is_not_sent_again(tmp_path, outbox, db):
    with db:
        rows = [outbox.add(db, "orders", n) for n in range(5)]
    dies_before_its_rows_are_deleted(tmp_path / "data", outbox)
    with db:
        rows.append(outbox.add(db, "orders", 5))

    with Broker(tmp_path / "data") as broker:
        assert ids(broker) == rows[:5]
        assert outbox.pending() == 6
        outbox.relay(broker).run_once()

        assert ids(broker) == rows
        assert outbox.pending() == 0


def test_what_a_killed_relay_has_sent_is_on_disk_before_its_row_is_deleted(broker, outbox, db):
    """That was killed between the append and the sync: a power cut would take both."""
    with db:
        rows = [outbox.add(db, "orders", 0)]
    outbox.relay(broker).run_once()
    with db:
        rows += [outbox.add(db, "orders", 1)]
    broker.append("orders", b"1", headers=[("outbox_id", rows[1].encode())])
    assert broker.log("orders").durable_offset == 1

    outbox.relay(broker).run_once()

    assert ids(broker) == rows
    assert outbox.pending() == 0
    assert broker.log("orders").durable_offset == 2


def test_what_was_sent_is_found_in_every_partition_also_in_new_ones(tmp_path, outbox, db):
    with Broker(tmp_path / "data") as broker:
        broker.create_topic("orders", 3)
        with db:
            outbox.add(db, "orders", "first", key="x")
        outbox.relay(broker).run_once()
        with db:
            rows = {outbox.add(db, "orders", n, key=f"k{n}") for n in range(50)}
        pylog.Admin(broker).create_partitions({"orders": 5})
    dies_before_its_rows_are_deleted(tmp_path / "data", outbox)

    with Broker(tmp_path / "data") as broker:
        outbox.relay(broker).run_once()

        assert len({record.partition for record in broker.read("orders")}) == 5
        assert len(ids(broker)) == 51
        assert rows < set(ids(broker))


def test_a_topic_that_was_deleted_and_made_anew_is_read_from_its_start(tmp_path, outbox, db):
    with Broker(tmp_path / "data") as broker:
        with db:
            for n in range(10):
                outbox.add(db, "orders", n)
        outbox.relay(broker).run_once()
        broker.delete_topic("orders")
        with db:
            rows = [outbox.add(db, "orders", n) for n in range(3)]
    dies_before_its_rows_are_deleted(tmp_path / "data", outbox)

    with Broker(tmp_path / "data") as broker:
        outbox.relay(broker).run_once()

        assert ids(broker) == rows


def test_who_takes_over_reads_only_what_came_since(broker, outbox, db):
    broker.append("orders", b"of another")
    with db:
        outbox.add(db, "orders", 1)
    outbox.relay(broker).run_once()

    topic_id = str(broker.topic("orders").topic_id)
    assert db.execute("SELECT * FROM outbox_places").fetchall() == [("orders", topic_id, "[2]")]


# ---- relays at work


def test_a_relay_in_a_thread_sends_what_comes(broker, outbox, db):
    with outbox.relay(broker, poll=0.005) as one:
        for n in range(5):
            with db:
                outbox.add(db, "orders", n)
            until(lambda: not outbox.pending())
        assert one.is_running

    assert values(broker) == list(range(5))
    assert not one.is_running
    assert broker.claims() == []


def test_one_relay_works_and_another_takes_over(broker, outbox, db):
    first, second = outbox.relay(broker, 0.005).start(), outbox.relay(broker, 0.005).start()
    until(broker.claims)
    with pytest.raises(pylog.PylogTimeoutError, match="has held the claim"):
        outbox.relay(broker).run_once(timeout=0.01)
    for one in (first, second):
        with db:
            outbox.add(db, "orders", one is first)
        until(lambda: not outbox.pending())
        one.stop()

    assert values(broker) == [True, False]


def test_two_databases_have_a_relay_each(broker, outbox, tmp_path):
    other = Outbox(tmp_path / "other.db")
    with sqlite3.connect(tmp_path / "other.db") as db:
        other.create_table(db)

    with outbox.relay(broker):
        assert other.relay(broker).run_once(timeout=5) == 0


def test_a_relay_that_is_woken_does_not_wait_for_its_poll(broker, outbox, db):
    with outbox.relay(broker, poll=60) as one:
        until(broker.claims)
        with db:
            outbox.add(db, "orders", 1)
        until(lambda: one.wake() or not outbox.pending())

    assert values(broker) == [1]


def test_closing_the_broker_stops_the_relay(tmp_path, outbox):
    with Broker(tmp_path / "data") as broker:
        one = outbox.relay(broker).start()

    assert not one.is_running


def test_a_database_that_fails_is_tried_again(broker, path, db):
    tries, is_mended = itertools.count(), threading.Event()    # mended once its error was seen

    def connect():
        if next(tries) < 2 or not is_mended.is_set():
            raise sqlite3.OperationalError("gone")
        return sqlite3.connect(path)

    outbox = Outbox(connect)
    with db:
        outbox.add(db, "orders", 1)
    with outbox.relay(broker, 0.005) as one:
        until(lambda: isinstance(one.error, sqlite3.OperationalError))
        is_mended.set()
        until(lambda: "orders" in broker.topics() and values(broker) == [1])
        until(lambda: one.error is None)


# ---- what can never be sent


def test_rows_that_can_never_be_sent_are_parked_and_hold_up_none(broker, outbox, db):
    broker.create_topic("small", 1, {"max.message.bytes": 1000})
    with db:
        large = outbox.add(db, "small", "x" * 2000)
        outbox.add(db, "no/topic", 1)
        db.execute("INSERT INTO outbox (id, topic, headers) VALUES ('bad', 'orders', '{')")
        outbox.add(db, "orders", "well")

    assert outbox.relay(broker).run_once() == 4
    assert values(broker) == ["well"]
    assert [(row.topic, row.error.partition(":")[0]) for row in outbox.parked()] == [
        ("small", "MessageSizeTooLargeError"), ("no/topic", "InvalidTopicError"),
        ("orders", "ValueError")]
    assert "headers must be JSON" in outbox.parked()[-1].error
    assert outbox.relay(broker).run_once() == outbox.pending() == 0

    broker.alter_configs("small", {"max.message.bytes": 10_000})
    assert outbox.retry(large) == 1
    assert outbox.relay(broker).run_once() == 1
    assert values(broker, "small") == ["x" * 2000]
    assert outbox.retry() == 2


@pytest.mark.parametrize("column", ["id", "topic", "key", "value", "headers"])
def test_text_of_plain_sql_that_is_no_utf8_is_parked_and_holds_up_none(broker, outbox, db, column):
    columns = {"topic": "'orders'", column: "CAST(x'ff' AS TEXT)"}
    with db:
        db.execute(f"INSERT INTO outbox ({', '.join(columns)}) "
                   f"VALUES ({', '.join(columns.values())})")
        outbox.add(db, "orders", "well")

    assert outbox.relay(broker).run_once() == 2
    assert values(broker) == ["well"]
    [row] = outbox.parked()
    assert "\\udcff" in row.error
    assert "".join(row).isprintable()    # also where stdout takes no half of a surrogate pair
    "".join(row).encode()


def test_a_topic_that_is_a_blob_is_parked_and_holds_up_none(broker, outbox, db):
    with db:
        db.execute("INSERT INTO outbox (topic) VALUES (x'ff')")
        outbox.add(db, "orders", "well")

    assert outbox.relay(broker).run_once() == 2
    assert values(broker) == ["well"]
    assert [row.topic for row in outbox.parked()] == ["b'\\xff'"]


# ---- other databases


class Foreign:
    """A connection of a module whose parameters are %s or :1, and which is not sqlite3's."""

    def __init__(self, path):
        self._real = sqlite3.connect(path)

    def cursor(self):
        return ForeignCursor(self._real.cursor())

    def commit(self):
        self._real.commit()

    def close(self):
        self._real.close()


class ForeignCursor:
    def __init__(self, real):
        self._real = real

    def _translated(self, statement):
        assert "?" not in statement
        return statement.replace("%s", "?")

    def execute(self, statement, values=()):
        self._real.execute(self._translated(statement), values)

    def executemany(self, statement, values):
        self._real.executemany(self._translated(statement), values)

    def __getattr__(self, name):
        return getattr(self._real, name)


@pytest.mark.parametrize("style", ["format", "pyformat", "numeric", "qmark"])
def test_any_dbapi_module_will_do(broker, outbox, path, style, monkeypatch):
    module = types.ModuleType("foreign")
    module.paramstyle = style
    monkeypatch.setitem(sys.modules, "foreign", module)
    monkeypatch.setattr(Foreign, "__module__", "foreign.connections")
    if style == "qmark":
        monkeypatch.setattr(ForeignCursor, "_translated", lambda self, statement: statement)
    elsewhere = Outbox(lambda: Foreign(path))

    connection = elsewhere.connect()
    for n in range(3):
        elsewhere.add(connection, "orders", n, headers={"a": "b"})
    elsewhere.add(connection, "no/topic", 1)
    connection.commit()

    assert elsewhere.relay(broker).run_once() == 4
    assert values(broker) == [0, 1, 2]
    assert [row.topic for row in elsewhere.parked()] == ["no/topic"]
    assert elsewhere.retry(elsewhere.parked()[0].id) == 1
    with pytest.raises(pylog.NotSupportedError, match="make them by a migration"):
        elsewhere.create_table(connection)


def test_a_subclass_of_a_connection_will_do(outbox, path):
    class Mine(sqlite3.Connection):
        pass

    with sqlite3.connect(path, factory=Mine) as db:
        outbox.add(db, "orders", 1)

    assert outbox.pending() == 1


# ---- bad use


def test_without_its_tables_it_says_what_to_do(broker, tmp_path):
    outbox = Outbox(tmp_path / "empty.db")
    for act in (outbox.relay(broker).run_once, outbox.pending, outbox.parked, outbox.oldest,
                outbox.retry):
        with pytest.raises(pylog.IllegalStateError, match=r"call outbox.create_table\(connection"):
            act()


def test_a_connection_that_commits_by_itself_is_refused(outbox, path):
    db = sqlite3.connect(path, isolation_level=None)
    with pytest.raises(pylog.IllegalStateError, match="execute BEGIN first"):
        outbox.add(db, "orders", 1)
    db.execute("BEGIN")
    outbox.add(db, "orders", 1)
    db.execute("ROLLBACK")

    assert outbox.pending() == 0


@pytest.mark.parametrize(("arguments", "error", "words"), [
    ((17,), TypeError, "path of an SQLite database"),
    ((None,), TypeError, "path of an SQLite database"),
    (("",), ValueError, "path of the database is empty"),
    (("a.db", "out box"), ValueError, "cannot be called"),
    (("a.db", "outbox; DROP TABLE x"), ValueError, "cannot be called"),
    (("a.db", ""), ValueError, "cannot be called"),
    (("a.db", 1), TypeError, "table must be"),
])
def test_what_is_no_outbox_is_refused(arguments, error, words):
    with pytest.raises(error, match=words):
        Outbox(*arguments)


@pytest.mark.parametrize(("arguments", "error"), [
    ((1, "x"), TypeError), (("orders", 1, 7), TypeError),
    (("orders", object()), pylog.SerializationError),
    (("orders", 1, "k", {"a": 1}), TypeError), (("orders", 1, "k", {1: "a"}), TypeError),
])
def test_what_cannot_be_a_record_is_refused_when_it_is_added(outbox, db, arguments, error):
    with pytest.raises(error):
        outbox.add(db, *arguments)

    assert not db.in_transaction
    assert outbox.pending() == 0


@pytest.mark.parametrize("made", [5, None, "app.db"])
def test_a_function_that_returns_no_connection_is_told(broker, made):
    outbox = Outbox(lambda: made)
    for use in (outbox.pending, outbox.parked, outbox.relay(broker).run_once):
        with pytest.raises(TypeError, match="must return a DB-API connection"):
            use()


@pytest.mark.parametrize("add", [
    lambda outbox, db: outbox.add(db, "orders", 1, headers={"outbox_id": "7"}),
    lambda outbox, db: outbox.emit(db, "shop", "order.placed", headers={"outbox_id": "7"})])
def test_the_header_of_the_relay_is_refused_to_others(outbox, db, add):
    with pytest.raises(pylog.ConfigurationError, match="'outbox_id' is the relay's"):
        add(outbox, db)

    assert outbox.pending() == 0


@pytest.mark.parametrize(("arguments", "error"), [
    ((0,), pylog.ConfigurationError), ((-1,), pylog.ConfigurationError),
    ((float("nan"),), pylog.ConfigurationError), (("x",), TypeError), ((None,), TypeError)])
def test_what_is_no_time_between_two_looks_is_refused(outbox, broker, arguments, error):
    with pytest.raises(error, match="poll"):
        outbox.relay(broker, *arguments)


@pytest.mark.parametrize("given", [None, 7])
def test_what_is_no_broker_to_relay_to_is_refused(outbox, given):
    with pytest.raises(TypeError, match="broker must be a Broker"):
        outbox.relay(given)


@pytest.mark.parametrize("connection", [object(), None, "app.db"])
def test_what_is_no_connection_is_refused(outbox, connection):
    with pytest.raises(ValueError, match="no connection of a DB-API module"):
        outbox.add(connection, "orders", 1)


def test_stop_is_idempotent_and_a_relay_starts_again(broker, outbox, db):
    one = outbox.relay(broker, 0.005)
    one.stop()
    assert one.start() is one.start()
    one.stop()
    one.stop()
    with db:
        outbox.add(db, "orders", 1)
    with one:
        until(lambda: not outbox.pending())


def test_stop_with_a_timeout_says_that_it_is_at_work(broker, path, db):
    let_go = threading.Event()
    reached = threading.Event()

    def connect():
        reached.set()
        let_go.wait(20)
        return sqlite3.connect(path)

    one = Outbox(connect).relay(broker).start()
    reached.wait(20)
    begun = time.monotonic()
    with pytest.raises(pylog.PylogTimeoutError, match=r"at work for 0\.01 s"):
        one.stop(0.01)
    assert time.monotonic() - begun < 15
    let_go.set()
    one.stop()
