"""The command line: `pylog audit`."""

import json

import pytest
from shell import done, fails, lines

import pylog
from pylog.exits import Exit
from pylog.patterns import Audit


@pytest.fixture
def data(data_path):
    with Audit(data_path) as trail:
        for n, action in enumerate(("user.created", "user.renamed", "order.paid")):
            trail.record(actor=f"u{n % 2}", action=action, target=f"t{n}", before=n or None,
                         after=n + 1)
    return data_path


def test_record_makes_an_entry_and_writes_its_head(data_path):
    [head] = lines("audit", "record", "audit", "--actor", "ann", "--action", "user.renamed",
                   "--target", "user-7", "--before", '"Bob"', "--after", '{"name": "Rob"}',
                   "--reason", "asked for it")

    with Audit(data_path) as trail:
        [entry] = trail.query()
        assert (entry.actor, entry.before, entry.after, entry.reason) == (
            "ann", "Bob", {"name": "Rob"}, "asked for it")
        assert str(trail.head()).encode() == head
        assert trail.verify(head=head.decode()) is None


@pytest.mark.parametrize(("options", "offsets"), [
    ([], [0, 1, 2]), (["--action", "user.*"], [0, 1]), (["--actor", "u1"], [1]),
    (["--target", "t2"], [2]), (["--since", "@-1h"], [0, 1, 2]), (["--until", "@-1h"], []),
    (["--actor", "nobody"], [])])
def test_log_and_export_choose_the_same(data, options, offsets):
    found = [json.loads(line) for line in lines("audit", "log", "audit", *options, "--json")]

    assert [one["offset"] for one in found] == offsets
    assert found == [json.loads(line) for line in lines("audit", "export", "audit", *options)]


def test_log_writes_a_table_for_people(data):
    head, *rows = done("audit", "log", "audit").stdout.splitlines()

    assert head.split() == ["OFFSET", "TIME", "ACTOR", "ACTION", "TARGET", "WHAT"]
    assert [row.split()[2:5] for row in rows][1] == ["u1", "user.renamed", "t1"]
    assert rows[1].endswith("1 -> 2")


def test_export_writes_csv(data):
    assert lines("audit", "export", "audit", "--form", "csv")[0].startswith(b"offset,time,actor")


def test_verify_says_that_it_is_unbroken_and_names_the_head(data):
    [head] = lines("audit", "head", "audit")

    assert done("audit", "verify", "audit", "--head", head.decode()).stdout == \
        f"unbroken; the head is {head.decode()}\n"
    assert json.loads(done("audit", "verify", "audit", "--json").stdout) == {
        "unbroken": True, "head": head.decode(), "break": None}


def test_verify_finds_the_first_that_does_not_fit(data):
    [head] = lines("audit", "head", "audit")
    with pylog.Broker(data) as broker:
        for one in list(broker.read("audit"))[:2]:
            broker.append("forged", one.value.replace(b"u0", b"u9"), one.key, one.headers,
                          timestamp=one.timestamp)

    fails(Exit.DAMAGE, "forged, entry 0: altered", "audit", "verify", "forged")
    fails(Exit.DAMAGE, "entry 2: cut", "audit", "verify", "forged", "--from", "1", "--head",
          head.decode())


@pytest.mark.parametrize(("command", "code", "words"), [
    (("verify", "nothing"), Exit.FAILED, "no topic 'nothing'"),
    (("head", "nothing"), Exit.FAILED, "no topic 'nothing'"),
    (("log", "nothing"), Exit.FAILED, "no topic 'nothing'"),
    (("export", "nothing"), Exit.FAILED, "no topic 'nothing'"),
    (("verify", "audit", "--head", "7"), Exit.FAILED, "no head of a chain"),
    (("log", "audit", "--action", "a*"), Exit.FAILED, "neither a name nor a wildcard"),
    (("log", "audit", "--since", "earliest"), Exit.USAGE, "is no time"),
    (("record", "audit", "--actor", "a"), Exit.USAGE, "--action"),
    (("record", "audit", "--actor", "", "--action", "a"), Exit.FAILED, "actor is empty"),
    (("record", "audit", "--actor", "a", "--action", "a", "--after", "{"), Exit.USAGE, "no JSON"),
])
def test_what_cannot_be_done_is_told(data, command, code, words):
    fails(code, words, "audit", *command)


def test_a_trail_without_entries_has_no_head(data):
    with pylog.Broker(data) as broker:
        Audit(broker, "empty")

    fails(Exit.FAILED, "has no entry", "audit", "head", "empty")
    assert "there is no entry" in done("audit", "verify", "empty").stdout
