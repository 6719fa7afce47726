"""The command line: `pylog topic`, `du`, `claim`, `backup`, `restore`, `doctor`."""

import json
import os
import re
from contextlib import contextmanager

import pytest
from shell import done, run

from pylog import backup, cli_topics
from pylog.broker import Broker
from pylog.check import Finding, check
from pylog.exits import Exit


@pytest.fixture
def data(data_path):
    with Broker(data_path) as broker:
        broker.create_topic("orders", 3, {"retention.ms": 3_600_000})
        for n in range(30):
            broker.append("orders", b"%d" % n, partition=n % 3)
    return data_path


def topics(data):
    with Broker(data) as broker:
        return broker.topics()


def test_topic_is_made_with_the_broker_around_it(log_path):
    result = done("topic", "create", "a", "b", "-d", log_path, "-p", "2", "-c", "retention.ms=5")

    assert result.stdout == ""
    assert [(e.partitions, e.configs) for e in topics(log_path).values()] == [
        (2, {"retention.ms": "5"})] * 2


def test_topics_are_listed_for_people_and_programs(data):
    assert re.search(r"^orders +3 +30 +[\d,]+$", done("topic", "ls").stdout, re.MULTILINE)
    found = json.loads(done("topic", "ls", "--json").stdout)
    assert (found["topic"], found["partitions"], found["records"]) == ("orders", 3, 30)


def test_description_marks_what_was_set(data):
    text = done("topic", "describe", "orders").stdout
    assert re.search(r"^ +1 +0 +10 ", text, re.MULTILINE)
    assert re.search(r"^retention\.ms +3600000 +\* ", text, re.MULTILINE)
    assert re.search(r"^segment\.bytes +1073741824 +size", text, re.MULTILINE)

    found = json.loads(done("topic", "describe", "orders", "--json").stdout)
    assert found["configs"] == {"retention.ms": "3600000"}


def test_configs_are_altered_and_set_back(data):
    done("topic", "alter", "orders", "-c", "segment.bytes=65536", "-c", "retention.ms=")

    assert topics(data)["orders"].configs == {"segment.bytes": "65536"}


def test_partitions_are_added(data):
    done("topic", "add-partitions", "orders", "5")

    assert topics(data)["orders"].partitions == 5


def test_topic_is_deleted_when_it_was_said_twice(data):
    result = run("topic", "delete", "orders")
    assert result.exit_code == Exit.USAGE
    assert "--yes to delete orders with 30 records" in result.stderr
    assert "orders" in topics(data)

    done("topic", "delete", "orders", "--yes")
    assert topics(data) == {}


@pytest.mark.parametrize(("arguments", "code", "text"), [
    (("topic", "describe", "oders"), Exit.FAILED, "mean 'orders'"),
    (("topic", "delete", "oders", "-y"), Exit.FAILED, "mean 'orders'"),
    (("topic", "alter", "oders", "-c", "segment.ms=5"), Exit.FAILED, "mean 'orders'"),
    (("topic", "add-partitions", "oders", "5"), Exit.FAILED, "mean 'orders'"),
    (("topic", "add-partitions", "orders", "3"), Exit.FAILED, "4 or more"),
    (("topic", "add-partitions", "orders", "many"), Exit.USAGE, "many"),
    (("topic", "create", "orders"), Exit.FAILED, "already"),
    (("topic", "create", "a b"), Exit.FAILED, "has ' '"),
    (("topic", "create", "x", "-p", "0"), Exit.FAILED, "1 to"),
    (("topic", "create", "x", "-c", "retention"), Exit.USAGE, "NAME=VALUE"),
    (("topic", "create", "x", "-c", "retention.msec=5"), Exit.FAILED, "retention.ms"),
    (("topic", "alter", "orders"), Exit.USAGE, "-c NAME=VALUE"),
    (("topic", "alter", "orders", "-c", "cleanup.policy=compact"), Exit.FAILED, "not built"),
    (("topic", "ls", "-d", "nowhere"), Exit.FAILED, "no broker at nowhere"),
    (("du", "-d", "nowhere"), Exit.FAILED, "no broker at nowhere"),
    (("doctor", "-d", "nowhere"), Exit.FAILED, "no broker at nowhere"),
    (("backup", "x", "-d", "nowhere"), Exit.FAILED, "no broker at nowhere"),
    (("restore", "nowhere", "-d", "there"), Exit.USAGE, "does not exist"),
])
def test_what_cannot_be_is_told_in_a_line_and_changes_nothing(data, arguments, code, text):
    before = topics(data)

    result = run(*arguments)

    assert (result.exit_code, text in result.stderr) == (code, True), result.stderr
    assert "Traceback" not in result.output
    assert topics(data) == before


def test_room_is_told_by_directory(data):
    rows = [json.loads(line) for line in done("du", "--json").stdout.splitlines()]

    sizes = {row["path"]: row["size_bytes"] for row in rows}
    assert sizes["orders-0"] > 0
    assert list(sizes.values()) == sorted(sizes.values(), reverse=True)
    assert "metadata.db" in done("du").stdout


def test_room_of_what_is_deleted_meanwhile_is_none(data, monkeypatch):
    scandir = os.scandir

    def gone(path):
        entries = list(scandir(path))
        if str(path).endswith("orders-1"):
            for entry in entries:
                os.remove(entry.path)
        return entries

    monkeypatch.setattr(os, "scandir", gone)
    rows = [json.loads(line) for line in done("du", "--json").stdout.splitlines()]

    assert {row["path"]: row["size_bytes"] for row in rows}["orders-1"] == 0


def test_claims_are_listed_with_their_holders(data):
    assert "nobody" in done("claim", "ls").stderr
    with Broker(data) as broker, broker.claim("nightly"):
        assert re.search(r"^nightly +\d+$", done("claim", "ls").stdout, re.MULTILINE)


def test_copy_is_made_and_put_back(data, tmp_path):
    done("backup", tmp_path / "copy")
    done("restore", tmp_path / "copy", "-d", tmp_path / "new")

    assert json.loads(done("topic", "ls", "--json", "-d", tmp_path / "new").stdout)["records"] == 30
    again = run("restore", tmp_path / "copy", "-d", tmp_path / "new")
    assert (again.exit_code, "there already" in again.stderr) == (Exit.FAILED, True)


def test_topic_that_is_deleted_meanwhile_is_told_to_be_left_out(data, tmp_path, monkeypatch):
    roll = backup._roll

    def delete_then(log):
        with Broker(data) as broker:
            if "orders" in broker.topics():
                broker.delete_topic("orders")
        return roll(log)

    with Broker(data) as broker:
        broker.append("one", b"stays")
    monkeypatch.setattr(backup, "_roll", delete_then)
    result = done("backup", tmp_path / "copy")

    assert result.stderr.startswith("left out: the topic orders was deleted meanwhile\n"
                                    "copied 1 partitions to ")


def test_copying_is_shown_to_people(data, tmp_path, monkeypatch):
    told = []

    @contextmanager
    def progress(then):
        assert then == "waiting for the disk"
        yield lambda *call: told.append(call)

    monkeypatch.setattr(cli_topics, "progress", progress)
    done("backup", tmp_path / "copy")
    assert told
    told.clear()
    done("restore", tmp_path / "copy", "-d", tmp_path / "new")
    assert told


def test_doctor_finds_damage(data):
    assert "3 partitions proved" in done("doctor").stdout

    path = next((data / "orders-1").glob("*.log"))
    content = bytearray(path.read_bytes())
    content[80] ^= 1
    path.write_bytes(content)
    result = run("doctor")

    assert result.exit_code == Exit.DAMAGE
    assert "BAD   orders-1" in result.stdout


def damage_metadata(data):
    """What nobody can read any more."""
    for suffix in ("-wal", "-shm"):
        (data / f"metadata.db{suffix}").unlink(missing_ok=True)
    path = data / "metadata.db"
    content = bytearray(path.read_bytes())
    content[100:] = bytes(byte ^ 0xA5 for byte in content[100:])
    path.write_bytes(content)


def test_doctor_makes_damaged_metadata_anew_once_it_is_told_to(data):
    damage_metadata(data)
    damaged = (data / "metadata.db").read_bytes()

    assert run("topic", "ls").exit_code == Exit.FAILED
    found = run("doctor")
    asked = run("doctor", "--rebuild")

    assert found.exit_code == Exit.DAMAGE
    assert f"`pylog doctor -d {data} --rebuild` makes it anew" in found.stderr.replace("\n", " ")
    assert asked.exit_code == Exit.USAGE
    assert re.search(r"^orders +3 +.*retention.ms=-1", asked.stderr, re.MULTILINE)
    assert "add --yes" in asked.stderr
    assert (data / "metadata.db").read_bytes() == damaged

    rebuilt = done("doctor", "--rebuild", "--yes")

    assert "3 partitions proved, 30 records" in rebuilt.stdout
    assert [path.read_bytes() for path in data.glob("metadata.db.damaged-*[0-9]")] == [damaged]
    assert topics(data)["orders"].partitions == 3


def test_doctor_rebuilds_nothing_that_is_whole(data):
    before = topics(data)

    assert "nothing to rebuild" in done("doctor", "--rebuild", "--yes").stdout

    assert topics(data) == before
    assert list(data.glob("metadata.db.damaged*")) == []


def test_doctor_rebuilds_nothing_where_no_broker_is(tmp_path):
    result = run("doctor", "--rebuild", "--yes", "-d", tmp_path / "nowhere")

    assert (result.exit_code, os.listdir(tmp_path)) == (Exit.FAILED, [])


def test_doctor_calls_no_file_damaged_that_it_may_not_read(data, monkeypatch):
    report = check(data / "orders-0")
    report.findings.append(Finding("a.log", 0, None, "it may not be read", "inconclusive"))
    monkeypatch.setattr(cli_topics, "check", lambda place: report)

    result = run("doctor")

    assert (result.exit_code, result.stderr) == (Exit.INCONCLUSIVE, "")
    assert "BAD   orders-0: it may not be read" in result.stdout


@pytest.mark.parametrize("words", [
    "topic", "topic create", "topic ls", "topic describe", "topic alter", "topic delete",
    "topic add-partitions", "du", "claim ls", "backup", "restore", "doctor"])
def test_help_shows_an_example(words):
    assert f"pylog {words}" in done(*words.split(), "--help").stdout.partition("xample")[2]
