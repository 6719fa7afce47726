"""The command line: `pylog saga`."""

import json

import pytest
from shell import done, fails, lines
from trips import Trip

import pylog
from pylog import SagaFailedError, TerminalError
from pylog.exits import Exit


@pytest.fixture
def data(data_path):
    """A trip that was completed, one that was undone, one that is parked, and one to come."""
    with pylog.Broker(data_path) as broker:
        trip = Trip(broker, ttl=3600)
        trip.saga.run("ann", id="t-1")
        for number in (2, 3):
            trip.fails("car", TerminalError("none \x1b[2J left"))
            trip.fails("no hotel", *([TerminalError("closed")] if number == 3 else []))
            with pytest.raises(SagaFailedError):
                trip.saga.run("ben", id=f"t-{number}")
        trip.saga.submit("cy", id="t-4")
    return data_path


def test_ls_shows_how_many_there_are_of_each_name(data):
    head, row = done("saga", "ls").stdout.splitlines()

    assert head.split() == ["SAGA", "SUBMITTED", "RUNNING", "COMPENSATING", "COMPLETED",
                            "COMPENSATED", "PARKED"]
    assert row.split() == ["trip", "1", "0", "0", "1", "1", "1"]
    assert json.loads(done("saga", "ls", "--json").stdout)["parked"] == 1


@pytest.mark.parametrize(("arguments", "ids"), [
    (["trip"], "1234"), (["trip", "--status", "parked"], "3"), (["--status", "submitted"], "4"),
    (["trip", "--status", "running"], "")])
def test_ls_shows_those_that_are_meant(data, arguments, ids):
    found = [json.loads(line) for line in lines("saga", "ls", *arguments, "--json")]

    assert [one["id"] for one in found] == [f"t-{number}" for number in ids]


def test_ls_shows_what_a_saga_failed_on(data):
    row = done("saga", "ls", "trip").stdout.splitlines()[2]

    assert row.split()[:4] == ["trip", "t-2", "compensated", "car"]
    assert r"TerminalError: none \x1b[2J left" in row


def test_show_shows_the_history(data):
    history = [json.loads(line) for line in lines("saga", "show", "trip", "t-3", "--json")]

    assert [one["event"] for one in history] == [
        "started", "step_completed", "step_completed", "step_failed", "compensating", "step_failed",
        "parked"]
    assert history[1]["value"] == '"flight of ben"'
    text = done("saga", "show", "trip", "t-3").stdout
    assert 'step_completed    flight  "flight of ben"' in text
    assert "step_failed       hotel  attempt 1  TerminalError: closed" in text


def test_retry_lets_a_parked_one_go_on(data):
    done("saga", "retry", "trip", "t-3")

    assert done("saga", "ls", "trip", "--status", "parked").stdout == ""
    with pylog.Broker(data) as broker:
        trip = Trip(broker, ttl=3600)
        trip.saga.resume()
        assert trip.saga.handle("t-3").status() == "compensated"


def test_looking_changes_no_retention(data):
    done("saga", "ls", "trip")

    with pylog.Broker(data) as broker:
        assert broker.topics()["saga.trip"].configs["retention.ms"] == "3600000"


@pytest.mark.parametrize(("arguments", "words"), [
    (["ls", "tripp"], "no topic 'saga.tripp'.*saga.trip"),
    (["show", "trip", "t-9"], "no saga 't-9'"),
    (["show", "trip", "a b"], "cannot have the id"), (["retry", "trip", "t-1"], "is completed"),
    (["retry", "none", "t-1"], "no topic 'saga.none'")])
def test_what_is_not_there_is_an_error(data, arguments, words):
    fails(Exit.FAILED, words, "saga", *arguments)


@pytest.mark.parametrize("arguments", [["ls", "--status", "done"], ["show", "trip"],
                                       ["retry", "trip"]])
def test_bad_use_is_an_error(data, arguments):
    fails(Exit.USAGE, "", "saga", *arguments)


def test_broker_without_sagas_says_so(data_path):
    with pylog.Broker(data_path):
        pass

    assert "there are no sagas" in done("saga", "ls").stderr
