"""The command line: `pylog queue`."""

import json

import pytest
from shell import done, fails, lines, run

import pylog
from pylog.exits import Exit
from pylog.patterns import DeadLetters, Queue


@pytest.fixture
def emails(data_path):
    """Three messages; two are done, one of them badly."""
    with pylog.Broker(data_path) as broker, Queue(broker, "emails") as emails:
        emails.put_many([b"one", b"two", b"three"])
        emails.get(0).ack()
        emails.get(0).reject("no such address")
    return data_path


def objects(*arguments):
    return [json.loads(line) for line in done(*arguments, "--json").stdout.splitlines()]


def test_what_is_put_is_got_once(data_path):
    assert "put 2 into jobs" in done("queue", "put", "jobs", "resize 17", "resize 18").stderr
    assert lines("queue", "get", "jobs") == [b"resize 17"]
    assert lines("queue", "get", "jobs", "-n", "5") == [b"resize 18"]
    assert "nothing is ready in jobs" in done("queue", "get", "jobs").stderr


def test_lines_of_stdin_are_messages(data_path):
    done("queue", "put", "jobs", "-q", given=b"a\nb\n\nc")
    assert lines("queue", "get", "jobs", "-n", "9") == [b"a", b"b", b"", b"c"]


def test_a_value_that_is_a_dash_is_the_lines_of_stdin(data_path):
    done("queue", "put", "jobs", "-q", "first", "-", "last", given=b"a\nb")
    assert lines("queue", "get", "jobs", "-n", "9") == [b"first", b"a", b"b", b"last"]
    fails(Exit.USAGE, "pass one VALUE", "queue", "put", "jobs", "-", "--dedup-key", "k")


def test_messages_bear_keys_headers_delays_and_dedup_keys(data_path):
    done("queue", "put", "jobs", "x", "-k", "alice", "-H", "tenant=eu", "--ttl", "100")
    assert "the dedup key is known" not in done("queue", "put", "jobs", "y", "--dedup-key",
                                                "k").stderr
    assert "put 0 into jobs: the dedup key is known" in done(
        "queue", "put", "jobs", "y", "--dedup-key", "k").stderr
    done("queue", "put", "jobs", "z", "--delay", "0.1")
    first, second = objects("queue", "get", "jobs", "-n", "2")
    assert (first["key"], first["delivery_count"], second["value"]) == ("alice", 1, "y")
    assert lines("queue", "get", "jobs", "-w", "10") == [b"z"]


def test_peek_takes_nothing_away(emails):
    for _ in range(2):
        ((found),) = objects("queue", "get", "emails", "--peek", "-n", "5")
        assert (found["value"], found["delivery_count"]) == ("three", 1)


def test_reject_makes_dead_letters(emails):
    assert lines("queue", "get", "emails", "--reject", "spam") == [b"three"]
    with pylog.Broker(emails) as broker:
        assert [letter.message for letter in DeadLetters(broker, group="queue").list()] == [
            "no such address", "spam"]


def test_stats_show_every_queue_and_group(emails):
    done("queue", "get", "emails", "-g", "archive", "-n", "2")
    ((archive), (queue)) = objects("queue", "stats")
    assert (queue["queue"], queue["group"], queue["ready"], queue["dead"], queue["done"]) == (
        "emails", "queue", 1, 1, 1)
    assert (archive["group"], archive["ready"], archive["done"]) == ("archive", 1, 2)
    text = done("queue", "stats", "emails").stdout.splitlines()
    assert text[0].split() == ["QUEUE", "GROUP", "READY", "DELAYED", "IN", "FLIGHT", "DEAD", "DONE",
                               "REDELIVERED", "OLDEST"]
    assert text[2].split()[:7] == ["emails", "queue", "1", "0", "0", "1", "1"]


def test_an_age_that_there_is_not_is_a_dash(emails):
    assert lines("queue", "get", "emails") == [b"three"]
    assert done("queue", "stats").stdout.splitlines()[1].split()[-1] == "-"


def test_stats_of_nothing_say_what_to_do(data_path):
    pylog.Broker(data_path).close()
    assert "pylog queue put" in done("queue", "stats").stderr


def test_purge_asks_first(emails):
    assert "threw away 1 messages" in done("queue", "purge", "emails", given=b"y\n").stderr
    assert "threw away 0 messages" in done("queue", "purge", "emails", "--yes").stderr


def test_purge_keeps_all_when_the_answer_is_no(emails):
    assert run("queue", "purge", "emails", given=b"n\n").exit_code == Exit.FAILED
    assert objects("queue", "get", "emails", "--peek")


@pytest.mark.parametrize(("arguments", "words"), [
    (["get", "emals"], "emails"),
    (["get", "emals"], "`pylog queue put emals` makes it"),
    (["stats", "emals"], "emails"),
    (["purge", "emals", "--yes"], "emails"),
])
def test_an_unknown_queue_is_told_with_the_closest(emails, arguments, words):
    fails(Exit.FAILED, words, "queue", *arguments)


@pytest.mark.parametrize("arguments", [
    ["put", "jobs", "a", "b", "--dedup-key", "k"],
    ["put", "jobs", "a", "--delay", "-1"],
    ["get", "emails", "--peek", "--reject", "x"],
    ["get", "emails", "-n", "0"],
])
def test_wrong_usage_is_told(emails, arguments):
    fails(Exit.USAGE, "", "queue", *arguments)
