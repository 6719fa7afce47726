"""Sagas whose executor is interrupted, as by a signal whose handler raises: they are anybody's."""

import pytest
from trips import Trip

from pylog.testing import broker as broker


def interrupted(function):
    """Right behind it."""
    def call(*arguments):
        function(*arguments)
        raise KeyboardInterrupt
    return call


@pytest.mark.parametrize("what", ["submitted", "run"])
def test_a_saga_that_was_claimed_when_its_executor_was_interrupted_is_nobodys(broker, what):
    """The process lives on: no other would take it over."""
    trip = Trip(broker)
    journal = trip.saga._journal
    if what == "submitted":
        trip.saga.submit("ann", id="t")
        journal.claim = interrupted(journal.claim)
    else:
        journal.start = interrupted(journal.start)
    with pytest.raises(KeyboardInterrupt):
        trip.saga.work(idle=0) if what == "submitted" else trip.saga.run("ann", id="t")

    assert [(one.id, one.pid) for one in trip.saga.list()] == [("t", None)]
    assert journal.entry(b"t").owner is None


def test_a_saga_that_cannot_be_taken_over_is_nobodys(broker):
    """What the journal or the user's format raise ends the executor, and its process lives on."""
    trip = Trip(broker)
    journal = trip.saga._journal
    trip.saga.submit("ann", id="t")
    journal.record = interrupted(journal.record)
    with pytest.raises(KeyboardInterrupt):
        trip.saga.work(idle=0)

    assert journal.entry(b"t").owner is None
