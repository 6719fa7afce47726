"""Waits that are over at once need no sleep, and no core of their own."""

import os
import resource
import time

import pytest
from children import in_child

import pylog
from pylog import _native

ROUND = 200    # records there and back
CORES = sorted(os.sched_getaffinity(0))


def wait_for(log, offset, many):
    """Of one log, or as if of many: two ways in the core."""
    if many:
        assert _native.Waiter([log]).wait([offset], timeout=30) == 0
    else:
        assert log.wait(offset, timeout=30)


def pass_to_and_fro(path, many, cores, seconds):
    """Between this process and a fork: how often this one slept in its best round."""
    os.sched_setaffinity(0, cores)
    pid = os.fork()
    mine, other = ("there", "back") if pid else ("back", "there")
    with pylog.Log(path / mine) as to, pylog.Log(path / other) as of:
        best, passed, deadline = 10 * ROUND, 0, time.monotonic() + seconds
        while best == 10 * ROUND or (best > ROUND // 2 and time.monotonic() < deadline):
            before = resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw
            for number in range(passed, passed + ROUND):
                if pid:
                    to.append(b"to")
                wait_for(of, number, many)
                if not pid:
                    to.append(b"fro")
            passed += ROUND
            best = min(best, resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw - before)
        return best, pid


def sleeps(path, many, cores, seconds=20):
    """The fork is killed when enough is known."""
    def act():
        best, pid = pass_to_and_fro(path, many, cores, seconds)
        if pid:
            os.kill(pid, 9)
            os.waitpid(pid, 0)
            return best
        os._exit(0)

    return in_child(act)


@pytest.mark.skipif(len(CORES) == 1, reason="there is one core alone")
@pytest.mark.parametrize("many", [False, True], ids=["one log", "any of many"])
def test_two_who_answer_each_other_at_once_need_not_sleep(log_path, many):
    assert sleeps(log_path, many, CORES) <= ROUND // 2


@pytest.mark.parametrize("many", [False, True], ids=["one log", "any of many"])
def test_on_one_core_who_waits_lets_the_other_run(log_path, many):
    assert sleeps(log_path, many, CORES[:1], seconds=0) > ROUND // 10
