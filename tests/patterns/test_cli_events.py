"""The command line: `pylog events`."""

import json
import re

import pytest
from shell import done, fails, lines

import pylog
from pylog.exits import Exit
from pylog.patterns import EventStore


@pytest.fixture
def data(data_path):
    """A stream of three events, and one of one."""
    for number in range(3):
        done("events", "append", "orders", "order-42", "order.changed", f'{{"n": {number}}}',
             "--expect", number or "none", "--id", f"e-{number}")
    done("events", "append", "orders", "user-1", "user.created")
    return data_path


def test_append_makes_an_event_of_a_store(data_path):
    result = done("events", "append", "orders", "o-1", "order.placed", '{"total": 20}', "--expect",
                  "none", "--id", "e-1", "-H", "tenant=eu")

    assert result.stderr == "o-1 is at version 1: orders-0, offset 0\n"
    with pylog.Broker(data_path) as broker:
        [one] = EventStore(broker, "orders").read("o-1")
        assert (one.type, one.id, one.data) == ("order.placed", "e-1", {"total": 20})
        assert one.header("tenant") == b"eu"
    assert json.loads(done("events", "append", "orders", "o-1", "a", "--json").stdout) == {
        "stream": "o-1", "version": 2, "partition": 0, "offset": 1}


def test_append_again_with_the_id_adds_nothing(data):
    result = done("events", "append", "orders", "order-42", "order.changed", '{"n": 1}',
                  "--expect", "1", "--id", "e-1", "--json")

    assert json.loads(result.stdout)["version"] == 2
    assert lines("events", "streams", "orders", "order-", "--json") == [
        b'{"stream": "order-42", "version": 3}']


@pytest.mark.parametrize(("terms", "versions"), [
    ([], [1, 2, 3]), (["--after", "1"], [2, 3]), (["--backwards"], [3, 2, 1]),
    (["-b", "-n", "1"], [3]), (["-n", "0"], []), (["--after", "9"], [])], ids=str)
def test_read_writes_what_is_meant(data, terms, versions):
    found = [json.loads(line) for line in
             lines("events", "read", "orders", "order-42", "--json", *terms)]

    assert [(one["version"], one["data"]) for one in found] == [
        (version, {"n": version - 1}) for version in versions]
    assert {one["stream"] for one in found} <= {"order-42"}


def test_read_writes_lines_of_version_time_type_and_data(data):
    [line] = lines("events", "read", "orders", "order-42", "--after", "2")

    assert re.fullmatch(rb'3 \d{4}-\d\d-\d\dT[0-9:.]{12}Z order.changed \{"n":2\}', line)


def test_streams_are_listed_with_their_versions(data):
    assert lines("events", "streams", "orders") == [
        b"STREAM    VERSION", b"order-42        3", b"user-1          1"]
    assert "no such stream" in done("events", "streams", "orders", "x").stderr


@pytest.mark.parametrize(("command", "code", "words"), [
    (("append", "orders", "o-1", "a*"), Exit.FAILED, "name one type"),
    (("append", "orders", "o-1", "a", "{"), Exit.USAGE, "is no JSON"),
    (("append", "orders", "", "a"), Exit.FAILED, "cannot have 0 characters"),
    (("append", "orders", "o-1", "a", "--id", ""), Exit.FAILED, "id of an event is empty"),
    (("append", "orders", "order-42", "a", "-e", "2"), Exit.FAILED, "is at version 3"),
    (("append", "orders", "order-42", "a", "-e", "none"), Exit.FAILED, "expected is 0"),
    (("append", "orders", "o-1", "a", "-e", "exists"), Exit.FAILED, "one that exists"),
    (("append", "orders", "o-1", "a", "-e", "-1"), Exit.USAGE, "use any, none, exists"),
    (("append", "orders", "o-1"), Exit.USAGE, "Missing argument"),
    (("read", "nobody", "o-1"), Exit.FAILED, "no topic 'nobody'"),
    (("read", "plain", "o-1"), Exit.FAILED, "is no event store"),
    (("streams", "plain"), Exit.FAILED, "is no event store"),
    (("streams", "orders", "-d", "nowhere"), Exit.FAILED, "no broker at nowhere"),
])
def test_what_cannot_be_done_is_told(data, command, code, words):
    with pylog.Broker(data) as broker:
        broker.create_topic("plain", 1)

    fails(code, words, "events", *command)

    with pylog.Broker(data) as broker:
        assert "retention.ms" not in broker.topic("plain").configs
