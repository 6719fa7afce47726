"""What is too large for a record fails by itself: it is told, not repeated, and holds nobody up."""

import pytest
from waiting import until

import pylog
from pylog import Broker, SagaFailedError, TerminalError
from pylog.patterns import App, Audit, Bus, DeadLetters, Retry, Saga

LARGE = 2_000_000


@pytest.fixture
def broker(tmp_path):
    with Broker(tmp_path / "data") as broker:
        yield broker


def test_result_of_a_step_fails_the_step_and_no_other_saga(broker):
    saga = Saga(broker, "large")
    saga.step(lambda ctx, size: "x" * size, name="make", retry=Retry(1))

    with pytest.raises(SagaFailedError, match="MessageSizeTooLarge"):
        saga.run(LARGE, id="too-large")
    assert saga.run(10, id="small") == {"make": "x" * 10}


def test_error_of_a_step_is_kept_in_part(broker):
    saga = Saga(broker, "wordy")

    @saga.step
    def explain(ctx, size):
        raise TerminalError("x" * size)

    with pytest.raises(SagaFailedError):
        saga.run(LARGE, id="w-1")
    assert [one.status for one in saga.list()] == ["compensated"]


def test_result_of_a_task_is_told_and_the_task_done_once(broker):
    done = []
    with App(broker) as app:
        @app.task(retry=Retry(3))
        def make():
            done.append(1)
            return "x" * LARGE

        sent = make.send()
        app.start()
        with pytest.raises(pylog.TaskFailedError, match="bytes"):
            sent.result(20)
    assert len(done) == 1


def test_event_becomes_a_dead_letter_and_the_next_an_entry(broker):
    trail = Audit(broker)
    bus = Bus(broker, "large", value=None)

    with trail.feed("large", "user.*", entry=lambda one: {
            "actor": "a", "action": "b", "after": "x" * int(one.data)}, group="large"):
        bus.emit("user.named", str(LARGE).encode())
        bus.emit("user.named", b"1")
        until(lambda: len(list(trail.query())) == 1)

    assert [one.offset for one in DeadLetters(broker, "large").list()] == [0]
