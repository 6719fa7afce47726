"""Retry, expo and Breaker: what is tried again, when, and when nothing is for a while."""

import math
import pickle
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

import pylog
from pylog.patterns import Retry, expo
from pylog.patterns.breaker import Breaker

DOWN = ConnectionError("the shop is down")

# ---- expo


@given(st.floats(0, 100), st.floats(0, 100), st.floats(0, 2), st.integers(1, 5000))
def test_wait_doubles_up_to_the_most_and_jitter_only_adds(first, more, jitter, failed):
    backoff = expo(first, first + more, jitter)
    least = min(first + more, first * 2.0 ** min(failed - 1, 64))

    wait = backoff(failed)

    assert least <= wait <= least * (1 + jitter) + 1e-9


def test_jitter_tells_those_apart_who_failed_together():
    backoff = expo(1, 1, jitter=0.5)

    assert len({backoff(1) for _ in range(20)}) > 1


@pytest.mark.parametrize(("arguments", "error"), [
    ({"first": -1}, pylog.ConfigurationError),
    ({"first": math.nan}, pylog.ConfigurationError),
    ({"first": math.inf}, pylog.ConfigurationError),
    ({"first": 2, "most": 1}, pylog.ConfigurationError),
    ({"jitter": -0.1}, pylog.ConfigurationError),
    ({"most": 10 ** 400}, pylog.ConfigurationError),
    ({"first": "1"}, TypeError),
    ({"most": None}, TypeError),
    ({"jitter": True}, TypeError),
])
def test_impossible_waits_are_refused(arguments, error):
    with pytest.raises(error, match=next(iter(arguments))):
        expo(**arguments)


# ---- Retry


def test_attempts_count_the_first_one():
    retry = Retry(attempts=3, backoff=0.25)

    assert [retry.delay(failed, DOWN) for failed in (1, 2, 3, 4)] == [0.25, 0.25, None, None]
    assert Retry(attempts=1).delay(1, DOWN) is None


def test_no_attempts_is_for_ever():
    assert Retry(attempts=None, backoff=7).delay(1_000_000, DOWN) == 7


def test_backoff_is_asked_with_the_number_of_failed_attempts():
    asked = []
    retry = Retry(attempts=4, backoff=lambda failed: asked.append(failed) or failed / 10)

    assert [retry.delay(failed, DOWN) for failed in (1, 2, 3)] == [0.1, 0.2, 0.3]
    assert asked == [1, 2, 3]


@pytest.mark.parametrize(("retry", "error", "is_tried"), [
    (Retry(), ValueError(), True),
    (Retry(only=OSError), DOWN, True),
    (Retry(only=OSError), ValueError(), False),
    (Retry(only=(OSError, KeyError)), KeyError(), True),
    (Retry(except_=OSError), DOWN, False),
    (Retry(except_=OSError), ValueError(), True),
    (Retry(only=OSError, except_=ConnectionError), DOWN, False),
    (Retry(only=OSError, except_=ConnectionError), TimeoutError(), True),
    (Retry(), pylog.DeserializationError("bad"), False),
    (Retry(only=pylog.DeserializationError), pylog.DeserializationError("bad"), False),
    (Retry(), pylog.SerializationError("bad"), False),
    (Retry(only=pylog.TerminalError), pylog.TerminalError("refused"), False),
])
def test_kinds_of_errors_decide_what_is_tried_again(retry, error, is_tried):
    assert retry.covers(error) is is_tried
    assert (retry.delay(1, error) is not None) is is_tried


def test_a_policy_crosses_processes():
    retry = Retry(5, expo(1, 60), except_=ValueError, pause_after=3)

    assert pickle.loads(pickle.dumps(retry)) == retry


@pytest.mark.parametrize(("arguments", "error", "words"), [
    ({"attempts": 0}, pylog.ConfigurationError, "use 1 or more"),
    ({"attempts": -1}, pylog.ConfigurationError, "attempts=-1"),
    ({"attempts": 1.5}, TypeError, "attempts must be an int"),
    ({"attempts": True}, TypeError, "attempts must be an int"),
    ({"backoff": -1}, pylog.ConfigurationError, "backoff=-1"),
    ({"backoff": None}, TypeError, "backoff must be a number of seconds"),
    ({"backoff": "1s"}, TypeError, "backoff must be a number of seconds"),
    ({"backoff": lambda: 1}, TypeError, "backoff will be called with the number of attempts"),
    ({"backoff": lambda a, b: 1}, TypeError, "backoff will be called with the number of attempts"),
    ({"only": ValueError()}, TypeError, "only must be an exception class"),
    ({"only": [ValueError]}, TypeError, "only must be an exception class"),
    ({"only": (ValueError, "KeyError")}, TypeError, "only must be"),
    ({"except_": int}, TypeError, "except_ must be"),
    ({"mode": "later"}, pylog.ConfigurationError, "use 'inline' or 'park'"),
    ({"pause_after": 0}, pylog.ConfigurationError, "pause_after=0"),
    ({"cooldown": math.nan}, pylog.ConfigurationError, "cooldown=nan"),
])
def test_impossible_policies_are_refused(arguments, error, words):
    with pytest.raises(error, match=words):
        Retry(**arguments)


@pytest.mark.parametrize(("returned", "error"), [
    (-1, pylog.ConfigurationError), (math.nan, pylog.ConfigurationError), (None, TypeError)])
def test_a_backoff_that_returns_no_seconds_is_told(returned, error):
    with pytest.raises(error, match="what backoff returned"):
        Retry(backoff=lambda failed: returned).delay(1, DOWN)


# ---- Breaker


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


@given(st.lists(st.sampled_from(["ok", "fail", "wait"]), max_size=40), st.integers(1, 4))
def test_breaker_does_as_the_model_says(steps, pause_after):
    """The model: failures in a row, and the time at which a trial may be made."""
    clock = Clock()
    breaker = Breaker(pause_after, 10, clock)
    row, opened_at = 0, None
    for step in steps:
        if step == "wait":
            clock.now += 4
            continue
        if opened_at is not None:
            left = opened_at + 10 - clock.now
            assert breaker.wait_seconds() == max(0, left)
            if left > 0:
                continue
        else:
            assert breaker.wait_seconds() == 0
        if step == "ok":
            breaker.succeeded()
            row, opened_at = 0, None
        else:
            row += 1
            is_open = row >= pause_after or opened_at is not None
            assert breaker.failed() is is_open
            opened_at = clock.now if is_open else None


def test_one_alone_tries_after_the_cooldown():
    clock = Clock()
    breaker = Breaker(1, 10, clock)
    breaker.failed()
    clock.now += 10
    found = []
    threads = [threading.Thread(target=lambda: found.append(breaker.wait_seconds()))
               for _ in range(8)]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(found)[0] == 0
    assert sorted(found)[1] > 0
    assert breaker.state == "half-open"


def test_without_pause_after_nothing_opens_it():
    breaker = Breaker(None, 10)

    assert not any(breaker.failed() for _ in range(1000))
    assert breaker.state == "closed"
