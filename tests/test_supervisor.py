"""Supervisor: processes that are kept alive, replaced, and ended. Those here are lines of sh."""

import os
import re
import signal
import threading
import time

import pytest

from pylog import supervisor as supervisor_module
from pylog.exits import Exit
from pylog.supervisor import Supervisor


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Where the lines run; signals are put back afterwards."""
    monkeypatch.chdir(tmp_path)
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield tmp_path
    for number, handler in before.items():
        signal.signal(number, handler)


def supervised(line, count=1, grace=10.0, asked_after=None, **options):
    """What `run` returns, what was said, and after how many seconds it ended. asked_after: a file;
    once it is there a signal is sent."""
    said = []
    supervisor = Supervisor(["sh", "-c", line], count, grace, said.append)

    def ask():
        while not os.path.exists(asked_after):
            time.sleep(0.005)
        os.kill(os.getpid(), signal.SIGTERM)

    if asked_after:
        threading.Thread(target=ask, daemon=True).start()
    began = time.monotonic()
    outcome = supervisor.run(**options)
    return outcome, said, time.monotonic() - began


def test_workers_finish_what_they_are_at(place):
    line = ("trap 'echo whole >> done; exit 0' TERM; echo >> begun; "
            "[ $(wc -l < begun) = 2 ] && touch ready; while :; do sleep 0.01; done")
    outcome, said, _ = supervised(line, count=2, asked_after="ready")

    assert (outcome, said) == (Exit.FINE, [])
    assert (place / "done").read_text() == "whole\n" * 2


def test_who_does_not_end_in_time_is_killed(place):
    line = "trap '' TERM; touch ready; while :; do sleep 0.01; done"
    outcome, said, seconds = supervised(line, grace=0.1, asked_after="ready")

    assert outcome == Exit.FINE
    assert said == ["killing workers that are still at work; others will do that again"]
    assert seconds < 10


def test_a_second_signal_kills_at_once_but_one_that_came_twice_does_not(place, monkeypatch):
    """Each comes when the one before was heard, and what is twice is said: none of it by sleeps."""
    assert 0.05 < supervisor_module.TWICE_SECONDS < 0.5
    line = "trap '' TERM; touch ready; while :; do sleep 0.01; done"
    urged, ask = [], Supervisor._ask

    def hear(self, number, frame):
        ask(self, number, frame)
        urged.append(self._is_urged)
        if len(urged) < 3:
            is_late = len(urged) == 2
            monkeypatch.setattr(supervisor_module, "TWICE_SECONDS", 0 if is_late else 1000)
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Supervisor, "_ask", hear)
    _, said, seconds = supervised(line, grace=60, asked_after="ready")

    assert urged == [False, False, True]
    assert len(said) == 1
    assert seconds < 30


def test_who_dies_young_is_begun_anew_later_and_later(place, monkeypatch):
    monkeypatch.setattr(supervisor_module, "YOUNG_SECONDS", 1000)    # however long sh takes
    line = "date +%s.%N >> begun; [ $(wc -l < begun) = 4 ] && touch ready; exit 7"
    outcome, said, _ = supervised(line, asked_after="ready")

    assert outcome == Exit.FINE
    waits = [0.1, 0.2, 0.4]
    for one in said[:3]:    # what is left of the wait when it is said
        assert re.fullmatch(r"worker 1 ended with code 7; it is begun anew in 0\.\d s", one)
    times = list(map(float, (place / "begun").read_text().split()))
    assert all(later - time >= wait for time, later, wait in zip(times, times[1:], waits,
                                                                 strict=False))


def test_who_cannot_begin_ends_all(place):
    line = "if mkdir first; then exit 2; else sleep 60; fi"
    outcome, _, seconds = supervised(line, count=2)

    assert outcome == Exit.USAGE
    assert seconds < 30


def test_a_change_mends_who_cannot_begin(place):
    said = []
    supervisor = Supervisor(["sh", "-c", "if mkdir first; then exit 2; else touch ready; sleep 60; "
                                         "fi"], 1, 10, said.append)

    def mend():
        while not (place / "first").exists():
            time.sleep(0.005)
        time.sleep(0.15)
        supervisor.reload()
        while not (place / "ready").exists():
            time.sleep(0.005)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=mend, daemon=True).start()
    assert supervisor.run(waits_for_changes=True) == Exit.FINE
    assert said == ["reloading: files have changed"]
