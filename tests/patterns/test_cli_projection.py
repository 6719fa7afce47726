"""The command line: `pylog projection`."""

import json
import sys

import pytest
from ordering import ask, place, placing, rows_of
from shell import done, fails, lines

import pylog
from pylog.exits import Exit
from pylog.patterns import Bus, Projection

MODULE = """
import pylog
from pylog.patterns import Bus, Projection

broker = pylog.Broker(DATA)
orders = Projection(broker, "orders", source=Bus(broker, "shop"), view="views.db",
                    schema="CREATE TABLE IF NOT EXISTS orders (total)")
orders.rows("order.placed", "INSERT INTO orders VALUES (?)")(lambda event: (event.data["total"],))

def make():
    return orders

def make_of(broker):
    return orders
"""


@pytest.fixture
def data(data_path):
    """A projection that is one behind of three, and one that was never run."""
    with pylog.Broker(data_path) as broker, Bus(broker, "shop") as bus:
        orders = placing(broker, bus, data_path.parent / "views.db")
        place(bus, 1, 2)
        orders.run_once()
        place(bus, 3)
        Projection(broker, "idle", source=bus, view="views.db")
    return data_path


@pytest.fixture
def module(data, monkeypatch):
    """The name of a module in the current directory that has them, too."""
    monkeypatch.chdir(data.parent)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (data.parent / "views_of_shop.py").write_text(
        MODULE.replace("DATA", repr(str(data))), encoding="utf-8")
    yield "views_of_shop"
    if made := sys.modules.pop("views_of_shop", None):
        made.broker.close()


def test_ls_shows_how_they_stand(data):
    head, idle, orders = done("projection", "ls").stdout.splitlines()

    assert head.split() == ["PROJECTION", "TOPIC", "PID", "LAG"]
    assert idle.split() == ["idle", "-", "-", "-"]
    assert orders.split() == ["orders", "shop", "-", "1"]
    assert json.loads(lines("projection", "ls", "--json")[1]) == {
        "projection": "orders", "topic": "shop", "pid": None, "lag": 1}


def test_ls_says_where_there_are_none(data_path):
    pylog.Broker(data_path).close()
    assert "there are no projections" in done("projection", "ls").stderr


def test_status_shows_each_partition(data):
    head, row = done("projection", "status", "orders").stdout.splitlines()

    assert head.split() == ["TOPIC", "PARTITION", "NEXT", "OFFSET", "END", "OFFSET", "LAG"]
    assert row.split() == ["shop", "0", "2", "3", "1"]
    assert "has not been run" in done("projection", "status", "idle").stderr


@pytest.mark.parametrize("target", [":orders", ":make"])
def test_rebuild_makes_the_view_anew(module, target):
    result = done("projection", "rebuild", module + target)

    assert result.stderr == "orders was made anew of 3 records\n"
    assert ask("views.db") == [(1,), (2,), (3,)]


@pytest.mark.parametrize(("arguments", "code", "words"), [
    (["status", "order"], Exit.FAILED, "no projection 'order'; did you mean 'orders'"),
    (["status"], Exit.USAGE, "Missing argument"),
    (["rebuild"], Exit.USAGE, "Missing argument"),
    (["rebuild", "no.such.module:x"], Exit.USAGE, "cannot be imported"),
    (["rebuild", "views_of_shop:order"], Exit.USAGE, "use views_of_shop:orders"),
    (["rebuild", "views_of_shop"], Exit.USAGE, "no Projection 'projection'"),
    (["rebuild", "views_of_shop:make_of"], Exit.USAGE, "no Projection 'make_of'"),
    (["rebuild", "json:dumps"], Exit.USAGE, "json has no Projection 'dumps': orders = "),
])
def test_bad_use_is_told(module, arguments, code, words):
    fails(code, words, "projection", *arguments)
    assert ask("views.db") == rows_of(1, 2)
