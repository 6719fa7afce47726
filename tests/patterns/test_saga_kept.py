"""Parked sagas: not forgotten, while somebody executes sagas of their name."""

import contextlib
import time

import pytest
from lateness import late_once
from trips import Trip

import pylog
from pylog import TerminalError
from pylog.patterns.saga_entry import event_headers
from pylog.testing import broker as broker


def looked_after(trip, seconds):
    """Somebody works for that long. How long he was away, at the most."""
    longest, last = 0.0, time.monotonic()
    end = last + seconds
    while last < end:
        trip.saga.work(idle=0)
        time.sleep(0.01)
        longest, last = max(longest, time.monotonic() - last), time.monotonic()
    return longest


def parked(trip, saga):
    return [(one.id, one.step, one.error, one.started) for one in trip.saga.list("parked")
            if one.id == saga]


def test_parked_sagas_outlive_their_ttl_where_somebody_works(broker):
    for number in range(50):    # a busy machine is given some chances
        trip = Trip(broker, ttl=0.4)
        trip.fails("car", TerminalError("no car"))
        trip.fails("no hotel", TerminalError("it is closed"))
        saga = f"t-{number}"
        with contextlib.suppress(pylog.PylogError):    # forgotten already, if that took 0.4 s
            trip.saga.run("ann", id=saga)
        before = parked(trip, saga)
        longest, last = looked_after(trip, 1.0), time.monotonic()
        found = [parked(one, saga) for one in (trip, Trip(broker, ttl=0.4))]
        history = trip.history(saga) if all(found) else None
        with contextlib.suppress(pylog.UnknownSagaError):
            trip.saga.retry(saga)
        if before and longest + time.monotonic() - last < 0.15:
            break

    assert before
    assert found == [before, before]
    assert history == ["renewed", "step_completed flight", "step_completed hotel", "parked hotel"]
    trip.calls.clear()
    trip.saga.work(idle=0)
    assert trip.calls == [("no hotel", "hotel of ann"), ("no flight", "flight of ann")]
    assert [one.status for one in trip.saga.list() if one.id == saga] == ["compensated"]


def test_a_step_in_doubt_is_so_still_when_its_saga_is_written_anew(broker):
    trip = Trip(broker, ttl=1000)
    trip.fails("car", pylog.PylogTimeoutError("perhaps", timeout_ms=1))
    journal = trip.saga._journal
    journal.start(b"t-1", b'"ann"')
    for event, step, doubt in (("step_completed", "flight", False), ("compensating", "car", True),
                               ("parked", "car", False)):
        value = b'"flight of ann"' if step == "flight" else None
        journal.append(b"t-1", event_headers(event, step, is_doubtful=doubt), value)
    trip.later(600)
    trip.saga.work(idle=0)

    assert trip.history("t-1")[0] == "renewed"
    trip.saga.retry("t-1")
    trip.saga.work(idle=0)
    assert trip.calls == [("no car", None), ("no flight", "flight of ann")]


def test_a_parked_saga_that_cannot_be_kept_is_told_and_keeps_no_other_from_it(broker, caplog):
    trip = Trip(broker, ttl=1000)
    for number in range(2):
        trip.fails("car", TerminalError("no car"))
        trip.fails("no hotel", TerminalError("it is closed"))
        with pytest.raises(pylog.SagaFailedError):
            trip.saga.run(f"t{number}" * (300_000 if number == 0 else 1), id=f"t-{number}")
    trip.later(600)
    trip.saga.work(idle=0)

    assert "'t-0' of 'saga.trip' will be forgotten" in caplog.text
    assert trip.history("t-0")[0] == "started"
    assert trip.history("t-1")[0] == "renewed"


def test_of_two_parked_sagas_the_one_that_cannot_be_kept_is_left_out(broker):
    """Though it was retried since: the oldest is the other then, which is kept."""
    trip = Trip(broker, ttl=1000)
    journal = trip.saga._journal
    for number in range(2):
        trip.fails("car", TerminalError("no car"))
        trip.fails("no hotel", TerminalError("it is closed"))
        with pytest.raises(pylog.SagaFailedError):
            trip.saga.run("ann", id=f"t-{number}")
    record = journal.record

    def record_of(offset):
        if offset == 0 and trip.saga.handle("t-0").status() == "parked":
            journal.retry(b"t-0")
            journal.state.current()
            raise pylog.OffsetOutOfRangeError("deleted meanwhile", offset=0)
        return record(offset)

    journal.record = record_of
    trip.later(600)
    journal.keep_parked()

    assert trip.history("t-1")[0] == "renewed"


def test_who_stood_still_behind_his_look_executes_what_came_meanwhile(broker):
    trip = Trip(broker)
    journal = trip.saga._journal
    journal.claim = late_once(journal.claim, 0.3, lambda: trip.saga.submit("ann", id="t"))
    assert trip.saga.work(idle=0.2) == 1
    assert trip.saga.handle("t").status() == "completed"
