"""The command line: `pylog group`, and `GroupAdmin` under it."""

import json
import os
import re
import signal
import subprocess
import sys
from datetime import timedelta

import pytest
from orders import NOON, ORDERS, fill, orders_broker
from shell import done, fails, start

import pylog
from pylog import group, group_admin
from pylog.exits import Exit
from pylog.group_admin import GroupAdmin


@pytest.fixture
def data(data_path):
    """Ten orders a partition; the group "billing" is at 3, 5 and the end of them."""
    with orders_broker(data_path) as broker:
        fill(broker)
        with pylog.Consumer(broker, group_id="billing") as consumer:
            consumer.commit(dict(zip(ORDERS, (3, 5, 10), strict=True)))
    return data_path


@pytest.fixture
def member(data):
    """A process that reads in the group, until the test is over."""
    process = start("consume", "orders", "-g", "billing")
    assert process.stdout.readline()
    yield process
    process.kill()
    process.communicate()


def objects(*arguments):
    return [json.loads(line) for line in done(*arguments, "--json").stdout.splitlines()]


def places(data, group="billing"):
    with pylog.Broker(data) as broker:
        return [place.offset for place in GroupAdmin(broker).list_group_offsets(group).values()]


# ---- looking

def test_a_topic_that_is_deleted_during_the_look_is_left_out(data):
    with pylog.Broker(data) as broker:
        admin = GroupAdmin(broker)
        assert len(admin.list_group_offsets("billing")) == 3    # its logs are open
        there = admin._partitions()
        admin._partitions = lambda: there
        with pylog.Broker(data) as other:
            other.delete_topic("orders")

        assert admin.list_group_offsets("billing") == {}


def test_a_group_of_any_name_keeps_to_its_line(data):
    done("consume", "orders", "-e", "-n", "1", "-g", "a\x1b[2J\nb")

    _, line, _ = done("group", "ls").stdout.splitlines()
    assert line.startswith(r"a\x1b[2J\nb ")


def test_groups_are_listed_with_their_lag(data):
    about, = objects("group", "describe", "billing")
    assert objects("group", "ls") == [{
        "group_id": "billing", "generation": about["generation"], "state": "Empty",
        "protocol": None, "members": 0, "lag": 12}]
    assert done("group", "ls").stdout.splitlines() == [
        "GROUP    STATE  MEMBERS  LAG", "billing  Empty        0   12"]


def test_describe_tells_each_partition(data):
    lines = done("group", "describe", "billing").stdout.splitlines()

    assert re.fullmatch("group billing: Empty, generation [0-9]+, no protocol", lines[0])
    assert [line.split()[:4] for line in lines[2:]] == [
        ["orders-0", "3", "10", "7"], ["orders-1", "5", "10", "5"], ["orders-2", "10", "10", "0"]]
    found, = objects("group", "describe", "billing")
    assert found["lag"] == 12
    assert [(one["partition"], one["offset"]) for one in found["partitions"]] == \
           [(0, 3), (1, 5), (2, 10)]


@pytest.mark.slow
def test_members_are_shown_with_their_process(data, member):
    found, = objects("group", "members", "billing")

    assert found["pid"] == member.pid
    assert found["is_alive"] is True
    assert [one["partition"] for one in found["owned"]] == [0, 1, 2]
    assert "orders-0, orders-1, orders-2" in done("group", "members", "billing").stdout
    assert str(member.pid) in done("group", "describe", "billing").stdout


def test_a_group_without_members_says_how_to_be_one(data):
    result = done("group", "members", "billing")

    assert (result.stdout, result.stderr.count("\n")) == ("", 1)
    assert "pylog consume TOPIC -g billing" in result.stderr


@pytest.mark.parametrize("verb", ["describe", "members", "reset", "delete"])
def test_a_group_that_is_not_there_is_told_with_the_closest_name_and_not_made(data, verb):
    more = {"reset": ["--to", "earliest"], "delete": ["--yes"]}.get(verb, [])

    fails(Exit.FAILED, "no group 'biling'; did you mean 'billing'.*`pylog group ls`",
          "group", verb, "biling", *more)
    assert [one["group_id"] for one in objects("group", "ls")] == ["billing"]


# ---- reset

@pytest.mark.parametrize(("where", "after"), [
    (["--to", "earliest"], [0, 0, 0]), (["--to", "latest"], [10, 10, 10]),
    (["--to", "4"], [4, 4, 4]), (["--to", "99"], [10, 10, 10]), (["--to", "-2"], [8, 8, 8]),
    (["--to", f"@{NOON + 6000}"], [6, 6, 6]), (["--to", "2023-11-14T22:13:25Z"], [5, 5, 5]),
    (["--to", "@-1h"], [10, 10, 10]), (["--shift-by", "2"], [5, 7, 10]),
    (["--shift-by", "-4"], [0, 1, 6]), (["--to", "1", "--topic", "orders:0,2"], [1, 5, 1]),
    (["--to", "1", "--topic", "orders:1"], [3, 1, 10]),
    (["--to", "1", "--topic", "orders"], [1, 1, 1]),
], ids=lambda one: " ".join(map(str, one)))
def test_reset_moves_only_when_it_is_to_execute(data, where, after):
    planned = objects("group", "reset", "billing", *where)
    assert places(data) == [3, 5, 10]

    result = done("group", "reset", "billing", *where, "--execute")

    assert places(data) == after
    assert all(one["after"] == after[one["partition"]] and not one["done"] for one in planned)
    assert "add --execute" not in result.stderr


def test_a_dry_run_says_that_it_is_one(data):
    result = done("group", "reset", "billing", "--to", "earliest")

    assert result.stdout.splitlines()[1].split() == ["orders-0", "3", "0", "-3"]
    assert "nothing was changed: add --execute" in result.stderr


def test_a_group_goes_on_where_it_was_reset_to(data):
    done("group", "reset", "billing", "--to", "8", "--execute")

    assert sorted(done("consume", "orders", "-g", "billing", "-e").stdout.split()) == [
        "0:8", "0:9", "1:8", "1:9", "2:8", "2:9"]


@pytest.mark.slow
def test_what_members_read_is_not_moved(data, member):
    for more in ([], ["--execute"]):
        fails(Exit.FAILED, f"stop them first: pid {member.pid}; `pylog group members billing`",
              "group", "reset", "billing", "--to", "earliest", *more)
    fails(Exit.FAILED, f"has 1 members, pid {member.pid}", "group", "delete", "billing", "--yes")

    os.kill(member.pid, signal.SIGKILL)
    member.wait()
    done("group", "reset", "billing", "--to", "earliest", "--execute")
    assert places(data) == [0, 0, 0]


@pytest.mark.parametrize(("arguments", "words"), [
    (["billing"], "--to PLACE or --shift-by N"),
    (["billing", "--to", "1", "--shift-by", "1"], "--to PLACE or --shift-by N"),
    (["billing", "--to", "soon"], "no place"), (["billing", "--shift-by", "x"], "integer"),
    (["billing", "--to", "1", "--topic", "orders:"], "neither"),
    (["billing", "--to", "1", "--topic", "orders:x"], "neither"),
    (["billing", "--to", "1", "--topic", "orders:1,"], "neither"), ([], "GROUP"),
    (["billing", "--to-earliest"], "--to"),
], ids=str)
def test_wrong_usage_of_reset_exits_with_2(data, arguments, words):
    fails(Exit.USAGE, words, "group", "reset", *arguments)
    assert places(data) == [3, 5, 10]


@pytest.mark.parametrize(("choice", "words"), [
    ("ordrs", "no topic 'ordrs'; did you mean 'orders'"),
    ("orders:3", "partitions 0 to 2, and no 3"),
])
def test_reset_of_what_is_not_there_fails(data, choice, words):
    fails(Exit.FAILED, words, "group", "reset", "billing", "--to", "1", "--topic", choice)


# ---- delete

def test_delete_asks_and_forgets(data):
    fails(Exit.USAGE, "add --yes", "group", "delete", "billing")

    assert "deleted billing" in done("group", "delete", "billing", "--yes").stderr
    assert objects("group", "ls") == []
    assert "pylog consume TOPIC -g GROUP" in done("group", "ls").stderr
    assert len(done("consume", "orders", "-g", "billing", "-e").stdout.split()) == 30


@pytest.mark.slow
def test_a_group_that_another_has_open_is_not_deleted(data):
    code = f"import pylog; b = pylog.Broker({str(data)!r}); b.group('billing'); print(1); input()"
    with subprocess.Popen([sys.executable, "-uc", code], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        fails(Exit.FAILED, "another process has the group 'billing' open",
              "group", "delete", "billing", "--yes")
        other.communicate(b"\n")
    assert places(data) == [3, 5, 10]


# ---- the library's half

def test_a_reset_is_never_for_the_next_topic_of_the_name(data, monkeypatch):
    def describe_and_stop(there):
        with orders_broker_anew(data) as other:
            fill(other, 20)
        return group.describe(there)

    def orders_broker_anew(path):
        with pylog.Broker(path) as other:
            other.delete_topic("orders")
        return orders_broker(path)

    with pylog.Broker(data) as broker:
        monkeypatch.setattr(group_admin, "describe", describe_and_stop)
        GroupAdmin(broker).reset_group_offsets("billing", "latest")

    assert places(data) == []    # else ten records of each partition are read by nobody


def test_offsets_are_altered_within_a_log_only(data):
    with pylog.Broker(data) as broker:
        admin = GroupAdmin(broker)
        admin.alter_group_offsets("billing", {ORDERS[0]: 9})
        for wrong in (-1, 11):
            with pytest.raises(pylog.ConfigurationError, match=r"lies outside \[0, 10\]"):
                admin.alter_group_offsets("billing", {ORDERS[1]: wrong})
        with pytest.raises(pylog.UnknownTopicOrPartitionError):
            admin.alter_group_offsets("billing", {pylog.TopicPartition("nowhere", 0): 0})
        with pytest.raises(pylog.ConfigurationError, match="say where to"):
            admin.reset_group_offsets("billing")
        with pytest.raises(pylog.GroupIdNotFoundError):
            admin.delete_groups(["audit"])
        assert admin.reset_group_offsets("billing", timedelta(days=1), dry_run=True)[ORDERS[1]] == \
            (5, 10)
        admin.delete_group_offsets("billing", ORDERS[:2])
    assert places(data) == [10]


@pytest.mark.parametrize("call", [
    lambda a: a.describe_groups("billing"),
    lambda a: a.delete_groups("billing"),
    lambda a: a.delete_groups("b"),    # is the list of its letters
    lambda a: a.alter_group_offsets("billing", ORDERS),
    lambda a: a.alter_group_offsets("billing", {ORDERS[0]: "9"}),
    lambda a: a.delete_group_offsets("billing", ORDERS[0]),
    lambda a: a.reset_group_offsets("billing", "earliest", topics="orders"),
    lambda a: a.reset_group_offsets("billing", "earliest", partitions=ORDERS[0]),
    lambda a: a.reset_group_offsets("billing", shift_by="-1"),
])
def test_what_is_of_another_type_is_refused_and_moves_nothing(data, call):
    before = places(data)
    with pylog.Admin(data) as admin, pytest.raises(TypeError, match=r"list of|dict by|must be an"):
        call(admin)
    assert places(data) == before


def test_what_was_committed_for_a_deleted_topic_is_not_shown(data):
    with pylog.Broker(data) as broker:
        broker.delete_topic("orders")

    assert places(data) == []
    assert objects("group", "describe", "billing")[0]["partitions"] == []
    assert "read nothing" in done("group", "reset", "billing", "--to", "earliest").stderr


@pytest.mark.parametrize("verb", ["ls", "describe", "members", "reset", "delete"])
def test_help_of_each_verb_shows_an_example(verb):
    assert f"pylog group {verb}" in done("group", verb, "--help").stdout.partition("xample")[2]


def test_looking_for_groups_makes_no_broker(tmp_path):
    fails(Exit.FAILED, "no broker at", "group", "ls", "-d", tmp_path / "none")
    assert not (tmp_path / "none").exists()
