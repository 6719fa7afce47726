"""The command line: `pylog rooms`."""

import json
import select
import signal

import pytest
from shell import done, fails, lines, start

import pylog
from pylog.exits import Exit
from pylog.patterns import Rooms


@pytest.fixture
def data(data_path):
    """Three messages in two rooms, a record that is no message, and one of no room."""
    with pylog.Broker(data_path) as broker:
        rooms = Rooms(broker)
        rooms.emit("a", {"n": 1})
        rooms.emit("b", "größer\x1b[2J\n", event="note")
        broker.append("live", b"{", key=b"a")
        broker.append("live", b"1")
        rooms.emit("a", {"n": 2}, event="last")
    return data_path


def listed():
    return {one["room"]: one for one in map(json.loads, lines("rooms", "ls", "--json"))}


def first():
    """What all came after."""
    return listed()["b"]["id"].partition("-")[0] + "-0"


def test_emit_sends_a_message_and_makes_the_topic(data_path):
    result = done("rooms", "emit", "a", "note", '{"n": 1}', "--topic", "shop")
    one = json.loads(done("rooms", "emit", "a", "note", "-t", "shop", "--json").stdout)

    assert result.stderr == f"emitted note to a, id {one['id'].partition('-')[0]}-1\n"
    with pylog.Broker(data_path) as broker:
        assert [(record.key, record.value) for record in broker.read("shop")] == [
            (b"a", b'{"n":1}'), (b"a", None)]


def test_emit_reads_stdin_if_it_is_told_to(data_path):
    done("rooms", "emit", "a", "note", "-", given='{"n": "größer"}\n'.encode())

    with pylog.Broker(data_path) as broker:
        assert [record.value for record in broker.read("live")] == ['{"n":"größer"}'.encode()]
    for given in (b"", b"{", b"\xff"):
        fails(Exit.USAGE, "is no JSON", "rooms", "emit", "a", "note", "-", given=given)


def test_ls_shows_the_rooms_that_have_messages(data):
    head, *rows = done("rooms", "ls").stdout.splitlines()

    assert head.split() == ["ROOM", "MESSAGES", "LAST", "ID", "CHANGED"]
    assert [row.split()[:2] for row in rows] == [["a", "3"], ["b", "1"]]
    assert listed()["a"]["id"].endswith("-5")
    with pylog.Broker(data) as broker:
        broker.log("live").delete_before(4)
    assert [(one["room"], one["messages"]) for one in listed().values()] == [("a", 1)]


@pytest.mark.parametrize(("names", "datas"), [
    (["a"], [{"n": 1}, {"n": 2}]), (["b"], ["größer\x1b[2J\n"]),
    (["a", "b"], [{"n": 1}, "größer\x1b[2J\n", {"n": 2}])])
def test_listen_writes_what_came_after_an_id(data, names, datas):
    found = lines("rooms", "listen", *names, "--after", first(), "-n", len(datas), "--json")

    assert [json.loads(line)["data"] for line in found] == datas


def test_listen_writes_lines_of_id_room_event_and_data(data):
    [line] = lines("rooms", "listen", "b", "--after", first(), "-n", 1)

    assert line.decode() == rf'{listed()["b"]["id"]} b note "größer\u001b[2J\n"'


def test_the_id_of_ls_is_where_listen_goes_on(data):
    place = listed()["a"]["id"]
    done("rooms", "emit", "a", "note", "3")

    [line] = lines("rooms", "listen", "a", "--after", place, "-n", 1)
    assert line.endswith(b" a note 3")


@pytest.mark.slow
@pytest.mark.parametrize("after", [None, "0000-7", "x", "-1"])
def test_listen_waits_for_what_comes_until_it_is_interrupted(data, after):
    process = start("rooms", "listen", "a", *([] if after is None else ["--after", after]))
    with pylog.Broker(data) as broker:
        rooms = Rooms(broker)
        while not select.select([process.stdout], [], [], 0.02)[0]:    # it is not there yet
            rooms.emit("b", "for others")
            rooms.emit("a", "later")
    line = process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=20)

    assert b' a message "later"' in line
    assert process.returncode == Exit.INTERRUPTED
    assert (f"what came after {after} is not there".encode() in told) == (after is not None)
    assert b"Traceback" not in told


@pytest.mark.parametrize(("command", "code", "words"), [
    (("emit", "a", "ready"), Exit.FAILED, "an event cannot be called 'ready'"),
    (("emit", "a", ""), Exit.FAILED, "an event cannot be called ''"),
    (("emit", "", "note"), Exit.FAILED, "a room cannot be called ''"),
    (("emit", "a\n", "note"), Exit.FAILED, "a room cannot be called"),
    (("emit", "a" * 256, "note"), Exit.FAILED, "a room cannot be called"),
    (("emit", "a", "note", "{"), Exit.USAGE, "is no JSON"),
    (("emit", "a", "note", "NaN"), Exit.FAILED, "nan"),
    (("emit", "a", "note", "-t", "no/name"), Exit.FAILED, "'/'"),
    (("emit", "a", "note", "-t", "wide"), Exit.FAILED, "2 partitions"),
    (("emit", "a"), Exit.USAGE, "Missing argument"),
    (("listen",), Exit.USAGE, "Missing argument"),
    (("listen", "a", "-n", "0"), Exit.USAGE, "0 is not in the range"),
    (("listen", ""), Exit.FAILED, "a room cannot be called ''"),
    (("listen", "a", "-t", "lve"), Exit.FAILED, "no topic 'lve'.*`pylog rooms emit ROOM EVENT`"),
    (("listen", "a", "-t", "wide"), Exit.FAILED, "2 partitions"),
    (("listen", "a", "-d", "nowhere"), Exit.FAILED, "no broker at nowhere"),
    (("ls", "-t", "none"), Exit.FAILED, "no topic 'none'"),
    (("ls", "-d", "nowhere"), Exit.FAILED, "no broker at nowhere"),
    (("ls", "a"), Exit.USAGE, "unexpected extra argument"),
])
def test_what_cannot_be_done_is_told(data, command, code, words):
    with pylog.Broker(data) as broker:
        broker.create_topic("wide", 2)
    fails(code, words, "rooms", *command)


def test_topic_without_messages_says_so(data_path):
    with pylog.Broker(data_path) as broker:
        Rooms(broker)

    assert "no room has messages" in done("rooms", "ls").stderr
