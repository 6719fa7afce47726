"""The command line: `pylog idempotency`."""

import json
import os

import pytest
from children import killed
from shell import done, fails, lines

import pylog
from pylog.exits import Exit
from pylog.patterns import Idempotency


@pytest.fixture
def data(data_path):
    """Two keys that are done, one in progress, and one whose claimant was killed."""
    with pylog.Broker(data_path) as broker:
        payments = Idempotency(broker, "payments", ttl=3600)
        save(payments, "order-1", {"charged": 12})
        save(payments, b"\xff\x1b", "größer")
        broker.append("idempotency.payments", b"?", key=b"order-9")    # skipped: nobody's
        killed(lambda: claimed(data_path, "order-3"))
        with payments.claim("order-4"):
            yield data_path


def save(idempotency, key, result):
    with idempotency.claim(key) as claim:
        claim.save(result)


def claimed(path, key):
    broker = pylog.Broker(path)
    claim = Idempotency(broker, "payments", ttl=3600).claim(key)
    claim.__enter__()
    return broker, claim


def found(*arguments):
    return [json.loads(line) for line in lines("idempotency", *arguments, "--json")]


def test_ls_shows_how_many_keys_there_are_of_each_name(data):
    head, row = done("idempotency", "ls").stdout.splitlines()

    assert head.split() == ["NAME", "DONE", "IN", "PROGRESS", "ABANDONED"]
    assert row.split() == ["payments", "2", "1", "1"]
    assert found("ls") == [{"name": "payments", "done": 2, "in_progress": 1, "abandoned": 1}]


def test_ls_of_a_name_shows_its_keys_and_who_has_them(data):
    head, *rows = done("idempotency", "ls", "payments").stdout.splitlines()

    assert head.split() == ["NAME", "KEY", "STATE", "CHANGED", "EXPIRES", "PID"]
    assert [(row.split()[1], row.split()[2], row.split()[5]) for row in rows] == [
        ("order-1", "done", "-"), (r"\xff\x1b", "done", "-"), ("order-3", "abandoned", "-"),
        ("order-4", "in_progress", str(os.getpid()))]
    one = found("ls", "payments")[1]
    assert one["key_b64"] == "/xs="
    assert one["changed"][:10] <= one["expires"][:10]
    assert one["changed"] < one["expires"]


@pytest.mark.parametrize(("arguments", "count"), [
    (["payments", "--state", "done"], 2), (["--state", "abandoned"], 1),
    (["payments", "-s", "in_progress"], 1)])
def test_ls_shows_those_that_are_meant(data, arguments, count):
    assert len(found("ls", *arguments)) == count


def test_show_shows_all_of_one_with_its_result(data):
    text = done("idempotency", "show", "payments", "order-1").stdout

    assert "key      order-1\nstate    done\n" in text
    assert 'result   {"charged":12}\n' in text
    assert found("show", "payments", "order-1")[0]["result"] == {"charged": 12}
    assert "größer" in done("idempotency", "show", "payments", b"\xff\x1b".decode(
        errors="surrogateescape")).stdout
    [one] = found("show", "payments", "order-4")
    assert (one["state"], one["pid"], one["result"]) == ("in_progress", os.getpid(), None)


@pytest.mark.parametrize(("value", "field"), [
    (b"{", '"result": "{"'), (b"\xff", '"result_b64": "/w=="'), (None, '"result": null')])
def test_show_shows_a_result_that_is_no_json(data_path, value, field):
    with pylog.Broker(data_path) as broker:
        save(Idempotency(broker, "raw", value=None), "k", value)

    assert field in done("idempotency", "show", "raw", "k", "--json").stdout
    assert len(lines("idempotency", "show", "raw", "k")) == 6


@pytest.mark.parametrize("ttl", [60, None])
def test_looking_changes_no_retention_and_frees_no_key(data, ttl):
    with pylog.Broker(data) as broker:
        Idempotency(broker, "emails", ttl)
        before = broker.topics()
        done("idempotency", "ls")
        done("idempotency", "ls", "payments")
        done("idempotency", "show", "payments", "order-3")

        assert broker.topics() == before
        assert broker.log("idempotency.payments").end_offset == 7


def test_key_of_one_that_keeps_all_does_not_expire(data_path):
    with pylog.Broker(data_path) as broker:
        save(Idempotency(broker, "ever", ttl=None), "k", 1)

    assert found("ls", "ever")[0]["expires"] is None
    assert "expires  -\n" in done("idempotency", "show", "ever", "k").stdout


@pytest.mark.parametrize(("arguments", "words"), [
    (["ls", "payment"], "no topic 'idempotency.payment'.*idempotency.payments.*makes the Idemp"),
    (["ls", "a/b"], "'/'"), (["ls", ""], "no topic 'idempotency.'"),
    (["show", "none", "order-1"], "no topic 'idempotency.none'"),
    (["show", "payments", "order-7"], "nothing is known of the key 'order-7'.*ls payments"),
    (["show", "payments", "order-9"], "nothing is known of the key"),
    (["show", "payments", ""], "nothing is known of the key ''"),
    (["ls", "-d", "nowhere"], "no broker at nowhere"),
    (["ls", "wide"], "2 partitions")])
def test_what_is_not_there_is_an_error(data, arguments, words):
    if "wide" in arguments:
        with pylog.Broker(data) as broker:
            broker.create_topic("idempotency.wide", 2)
    fails(Exit.FAILED, words, "idempotency", *arguments)


@pytest.mark.parametrize("arguments", [
    ["ls", "--state", "free"], ["show", "payments"], ["show"], ["ls", "a", "b"], ["forget", "a"]])
def test_bad_use_is_an_error(data, arguments):
    fails(Exit.USAGE, "", "idempotency", *arguments)


def test_broker_without_names_says_so(data_path):
    with pylog.Broker(data_path) as broker:
        assert "there are none" in done("idempotency", "ls").stderr
        Idempotency(broker, "empty")

    assert "no such keys" in done("idempotency", "ls", "empty").stderr
    assert done("idempotency", "ls", "empty", "--json").stdout == ""
