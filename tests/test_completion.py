"""The command line: what Tab offers, by click's own completion."""

import pytest
from click.testing import CliRunner
from orders import ORDERS, orders_broker

import pylog
from pylog.cli import commands


@pytest.fixture
def data(data_path):
    with orders_broker(data_path) as broker:
        broker.create_topic("refunds", 1)
        with pylog.Consumer(broker, group_id="billing") as consumer:
            consumer.commit({ORDERS[0]: 0})
    return data_path


def offered(*words):
    """What bash is told for `pylog words` with the cursor behind the last."""
    result = CliRunner().invoke(commands, [], prog_name="pylog", env={
        "_PYLOG_COMPLETE": "bash_complete", "COMP_WORDS": " ".join(["pylog", *words]),
        "COMP_CWORD": str(len(words))})
    return [line.partition(",")[2] for line in result.stdout.splitlines() if line]


@pytest.mark.parametrize(("words", "names"), [
    (["con"], ["consume"]), (["group", "res"], ["reset"]), (["consume", "ord"], ["orders"]),
    (["consume", "orders", "re"], ["refunds"]), (["cat", "-t", "o"], ["orders"]),
    (["consume", "orders", "-g", "b"], ["billing"]), (["group", "describe", "b"], ["billing"]),
    (["export", "ref"], ["refunds"]), (["consume", "x"], []), (["group", "describe", "x"], []),
    (["consume", "-d", "nowhere", "o"], []), (["group", "members", "-d", "nowhere", "b"], []),
], ids=str)
def test_tab_offers_what_there_is(data, words, names):
    assert offered(*words) == names


def test_tab_makes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    assert offered("consume", "o") == offered("group", "members", "b") == []
    assert list(tmp_path.iterdir()) == []
