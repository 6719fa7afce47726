"""State: what is folded when a signal or a time limit interrupts that, is folded by the next."""

import pytest

import pylog
from pylog.patterns.state import State
from pylog.testing import broker as broker


@pytest.mark.parametrize("error", [KeyboardInterrupt(), pylog.TaskTimeoutError("over")])
def test_records_of_a_chunk_are_not_missed_when_it_is_interrupted(broker, error):
    """By a signal, or by the time limit of the task that looks; others look by the same object."""
    errors = [error]

    def number_of(entry, record):
        if record.offset == 1 and errors:
            raise errors.pop()
        return int(record.value)

    state = State(broker, "numbers", number_of)
    broker.append("numbers", b"1", key=b"a")
    assert state.current() == {b"a": 1}
    for key in (b"b", b"c"):
        broker.append("numbers", b"2", key=key)

    with pytest.raises(type(error)):
        state.current()

    assert state.current() == {b"a": 1, b"b": 2, b"c": 2}
    assert state.skipped == 0
