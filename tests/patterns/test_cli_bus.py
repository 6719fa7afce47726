"""The command line: `pylog bus`."""

import json
import re
import select
import signal

import pytest
from shell import done, fails, lines, start

import pylog
from pylog.exits import Exit
from pylog.patterns import Bus, Event


@pytest.fixture
def data(data_path):
    """Four events, and a record that is none."""
    with pylog.Broker(data_path) as broker, Bus(broker, "shop") as bus:
        for number, kind in enumerate(("user.created", "user.address.changed", "order.paid", "a")):
            bus.emit(kind, {"n": number}, key=f"k{number}", event_id=f"e-{number}")
        broker.append("shop", b"no event")
    return data_path


def test_emit_makes_an_event(data_path):
    result = done("bus", "emit", "shop", "user.created", '{"id": 123}', "--key", "123", "--subject",
                  "users/123", "--source", "cli", "--id", "e-1", "-H", "ce_tenant=eu")

    assert result.stderr == "emitted user.created to shop-0 at offset 0\n"
    with pylog.Broker(data_path) as broker:
        [one] = map(Event, broker.read("shop"))
        assert (one.type, one.id, one.source, one.subject, one.key, one.data) == (
            "user.created", "e-1", "cli", "users/123", b"123", b'{"id":123}')
        assert one.header("ce_tenant") == b"eu"
    assert json.loads(done("bus", "emit", "shop", "a", "--json").stdout)["offset"] == 1


def test_emit_reads_stdin_if_it_is_told_to(data_path):
    done("bus", "emit", "shop", "a", "-", given='{"n": "größer"}\n'.encode())

    with pylog.Broker(data_path) as broker:
        assert [record.value for record in broker.read("shop")] == ['{"n":"größer"}'.encode()]
    for given in (b"", b"{", b"\xff"):
        fails(Exit.USAGE, "is no JSON", "bus", "emit", "shop", "a", "-", given=given)


@pytest.mark.parametrize(("patterns", "numbers"), [
    ([], "0123"), (["**"], "0123"), (["user.*"], "0"), (["user.**"], "01"), (["*"], "3"),
    (["a", "order.*"], "23"), (["x"], "")])
def test_listen_writes_what_is_meant(data, patterns, numbers):
    found = [json.loads(line) for line in
             lines("bus", "listen", "shop", *patterns, "-o", "earliest", "-e", "--json")]

    assert [one["data"] for one in found] == [{"n": int(one)} for one in numbers]
    assert [one["id"] for one in found] == [f"e-{one}" for one in numbers]


def test_listen_writes_lines_of_time_type_and_data(data):
    [line] = lines("bus", "listen", "shop", "order.*", "-o", "earliest", "-e")

    assert re.fullmatch(rb'\d{4}-\d\d-\d\dT[0-9:.]{12}Z order.paid \{"n":2\}', line)


def test_listen_in_a_group_goes_on_where_it_was(data):
    arguments = ("bus", "listen", "shop", "-g", "g", "-e", "--json")
    first = lines(*arguments, "-n", "2")
    rest = lines(*arguments)

    assert [json.loads(line)["data"]["n"] for line in first + rest] == [0, 1, 2, 3]
    assert lines(*arguments) == []


@pytest.mark.parametrize(("value", "field"), [
    (b"{", '"data": "{"'), (b"\xff", '"data_b64": "/w=="'), (None, '"data": null')])
def test_listen_shows_data_that_is_no_json(data_path, value, field):
    with pylog.Broker(data_path) as broker:
        broker.append("shop", value, headers=[("ce_type", b"a")])

    assert field in done("bus", "listen", "shop", "-o", "earliest", "-e", "--json").stdout
    assert len(lines("bus", "listen", "shop", "-o", "earliest", "-e")) == 1


@pytest.mark.slow
def test_listen_waits_for_what_comes_from_now_on(data):
    process = start("bus", "listen", "shop", "user.*")
    with pylog.Broker(data) as broker, Bus(broker, "shop") as bus:
        while not select.select([process.stdout], [], [], 0.02)[0]:    # it is not there yet
            bus.emit("user.created", {"later": True})
    line = process.stdout.readline()
    process.send_signal(signal.SIGINT)
    process.communicate()

    assert b"later" in line
    assert process.returncode == Exit.INTERRUPTED


@pytest.mark.parametrize(("command", "code", "words"), [
    (("emit", "shop", "a*"), Exit.FAILED, "name one type"),
    (("emit", "shop", "a", "{"), Exit.USAGE, "is no JSON"),
    (("emit", "no/name", "a"), Exit.FAILED, "'/'"),
    (("emit", "shop", "a", "--id", ""), Exit.FAILED, "id is empty"),
    (("emit", "shop"), Exit.USAGE, "Missing argument"),
    (("listen", "nobody"), Exit.FAILED, "no topic 'nobody'; `pylog bus emit nobody TYPE` makes it"),
    (("listen", "shop", "user*"), Exit.FAILED, "neither a name nor a wildcard"),
    (("listen", "shop", "-o", "noon"), Exit.USAGE, "'noon' is no place"),
    (("listen", "shop", "-d", "nowhere"), Exit.FAILED, "no broker at nowhere"),
])
def test_what_cannot_be_done_is_told(data, command, code, words):
    fails(code, words, "bus", *command)
