"""The command line: `pylog outbox`."""

import contextlib
import json
import signal
import sqlite3
import sys

import pytest
from shell import done, fails, lines, start
from waiting import until

import pylog
from pylog.exits import Exit
from pylog.patterns import Outbox

MODULE = """
import sqlite3
from pylog.patterns import Outbox

def outbox():
    return Outbox(lambda: sqlite3.connect("app.db"))
"""


@pytest.fixture
def path(data_path, monkeypatch):
    """A database in the current directory, whose outbox has three rows, one that cannot be sent."""
    monkeypatch.chdir(data_path.parent)
    pylog.Broker(data_path).close()
    add("app.db", ("orders", 1), ("no/topic", 2), ("orders", 3))
    return data_path.parent / "app.db"


@pytest.fixture
def module(path, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    (path.parent / "database_of_shop.py").write_text(MODULE, encoding="utf-8")
    yield "database_of_shop:outbox"
    sys.modules.pop("database_of_shop", None)


def add(path, *rows, table="outbox"):
    outbox = Outbox(path, table)
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        outbox.create_table(db)
        for topic, value in rows:
            outbox.add(db, topic, value)


def values(data_path):
    with pylog.Broker(data_path) as broker:
        return [record.value for record in broker.read("orders")]


def status(*arguments):
    return json.loads(done("outbox", "status", *arguments, "--json").stdout)


def test_relay_sends_what_is_there_once(path, data_path):
    assert done("outbox", "relay", path, "--once").stderr.startswith("sent 2 rows, parked 1: ")
    assert values(data_path) == [b"1", b"3"]
    assert done("outbox", "relay", path, "--once").stderr == "sent 0 rows\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_relay_sends_what_comes_until_it_is_told_to_end(path, data_path, number):
    process = start("outbox", "relay", path, "--poll", "0.01", "-d", data_path)
    try:
        until(lambda: status(path)["waiting"] == 0)
        assert status(path)["relay_pid"] == process.pid
        add(path, ("orders", 4))
        until(lambda: status(path)["waiting"] == 0)
        process.send_signal(number)
        assert process.wait(20) == Exit.FINE
    finally:
        process.kill()
        process.communicate()
    assert values(data_path) == [b"1", b"3", b"4"]


def test_status_says_how_many_wait_and_since_when(path):
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE outbox SET made = datetime('now', '-90 seconds') WHERE number = 3")
    waits = status(path)
    assert 90 <= waits.pop("oldest_seconds") < 120
    assert waits == {"table": "outbox", "waiting": 3, "parked": 0, "relay_pid": None}

    done("outbox", "relay", path, "--once")
    head, row = done("outbox", "status", path).stdout.splitlines()
    assert head.split() == ["TABLE", "WAITING", "PARKED", "OLDEST", "SECONDS", "RELAY", "PID"]
    assert row.split() == ["outbox", "0", "1", "-", "-"]


def test_parked_rows_are_listed_and_sent_again(path):
    assert done("outbox", "ls", path).stderr == "no row is parked\n"
    done("outbox", "relay", path, "--once")

    head, row = done("outbox", "ls", path).stdout.splitlines()
    assert head.split() == ["ID", "TOPIC", "ERROR"]
    assert "no/topic" in row
    assert "InvalidTopicError" in row
    [parked] = map(json.loads, lines("outbox", "ls", path, "--json"))
    assert done("outbox", "retry", path, parked["id"]).stderr == "1 rows are to be sent again\n"
    assert done("outbox", "retry", path).stderr == "0 rows are to be sent again\n"
    assert status(path)["waiting"] == 1


def test_outbox_of_a_module_and_of_another_table(module, path, data_path):
    assert status(module)["waiting"] == 3
    add(path, ("orders", 5), table="others")
    assert status(path, "--table", "others")["waiting"] == 1
    with pylog.Broker(data_path) as broker, Outbox(path, name="mine").relay(broker) as relay:
        until(lambda: status(path, "--name", "mine")["relay_pid"])
        assert relay.is_running
        assert status(path)["relay_pid"] is None


@pytest.mark.parametrize(("arguments", "code", "words"), [
    (["status", "none.db"], Exit.FAILED, "no file none.db: name an SQLite database, or MODULE"),
    (["relay", "some/where:x"], Exit.FAILED, "no file some/where:x"),
    (["relay", "no.such:x"], Exit.USAGE, "cannot be imported"),
    (["status", "json:dumps"], Exit.USAGE, "json has no Outbox 'dumps'"),
    (["status"], Exit.USAGE, "Missing argument"),
    (["status", "app.db", "--table", "others"], Exit.FAILED, "no outbox 'others' .*create_table"),
    (["relay", "app.db", "--table", "others"], Exit.FAILED, "no outbox 'others' .*create_table"),
    (["relay", "app.db", "--table", "out box"], Exit.FAILED, "cannot be called"),
    (["relay", "app.db", "-d", "nowhere"], Exit.FAILED, "no broker at nowhere"),
    (["relay", "app.db", "--poll", "0"], Exit.USAGE, "poll"),
    (["relay", "text"], Exit.FAILED, "text: file is not a database"),
    (["retry", "app.db", "unknown"], Exit.FAILED, "no row 'unknown' is parked"),
])
def test_bad_use_is_told(path, arguments, code, words):
    (path.parent / "text").write_text("no database, and long enough to be seen as none")
    fails(code, words, "outbox", *arguments)
