"""The judge of groups: whatever can be wrong is planted in diaries, and found by its name."""

import os
import signal
import time

import pytest
from children import kill, start
from tables import eventually

from pylog.stress.diary import Diary, Entry, noting_stalls, read_diaries
from pylog.stress.forgery import ENDS, FORGERIES, GOOD, Forgery, forge
from pylog.stress.judgement import Judgement, Outage

A, B = 501, 502    # processes
DROP = "501 drop 20 1 5 0 -1\n"


def judged(tmp_path, text, *outages, ends=None):
    forge(text, directory := tmp_path / str(len(list(tmp_path.iterdir()))))
    return Judgement(read_diaries(directory), ENDS if ends is None else ends, outages)


def names(judgement):
    return sorted({one.anomaly for one in judgement.findings()})


def changed(*changes):
    return Forgery("", "", 0, changes).text


def test_nothing_is_found_where_all_is_well(tmp_path):
    assert names(judged(tmp_path, GOOD)) == []
    assert names(judged(tmp_path, "", ends={0: 0})) == []


@pytest.mark.parametrize("forgery", FORGERIES, ids=lambda one: one.what)
def test_what_is_forged_is_found_and_nothing_else(tmp_path, forgery):
    assert set(names(judged(tmp_path, forgery.text))) == {forgery.anomaly} | forgery.implies


def test_a_commit_that_was_refused_or_cut_off_by_a_kill_proves_nothing(tmp_path):
    ask = ("502 ask 33 2 5 0 5", "502 ask 33 2 5 0 9")
    for done in ("502 refused 34 2 5 0 9\n", ""):
        assert names(judged(tmp_path, changed(ask, ("502 done 34 2 5 0 5\n", done)))) == []


@pytest.mark.parametrize(("outage", "expected"), [
    (Outage(A, 25), []), (Outage(A, 25, 40), []),
    (Outage(A, 31), ["double-owner"]), (Outage(B, 25), ["double-owner"]),
])
def test_what_a_killed_or_stopped_member_had_may_be_taken(tmp_path, outage, expected):
    assert names(judged(tmp_path, changed((DROP, "")), outage)) == expected


@pytest.mark.parametrize(("stall", "expected"), [
    ("501 stood 25 0 0 -1 15", []), ("501 stood 5 0 0 -1 90", []),
    ("501 stood 31 0 0 -1 15", ["double-owner"]), ("502 stood 25 0 0 -1 15", ["double-owner"]),
])
def test_what_a_member_had_that_stood_still_may_be_taken(tmp_path, stall, expected):
    assert names(judged(tmp_path, changed((DROP, f"{stall}\n")))) == expected


def test_a_process_that_was_stopped_writes_down_for_how_long(tmp_path):
    def stand(diaries):
        with Diary(diaries) as diary, noting_stalls(diary):
            diary.note("look", 0, 0, 0)
            while True:
                signal.pause()

    pid = start(lambda: stand(tmp_path))
    eventually(lambda: read_diaries(tmp_path))
    try:
        before = time.monotonic_ns()
        os.kill(pid, signal.SIGSTOP)
        time.sleep(0.3)
        os.kill(pid, signal.SIGCONT)
        eventually(lambda: [one for one in read_diaries(tmp_path)
                            if one.kind == "stood" and one.offset > 200_000_000
                            and before - one.offset < one.at < time.monotonic_ns()])
    finally:
        kill(pid)


def test_a_stall_that_ends_with_the_diary_is_written_down(tmp_path, monkeypatch):
    clock, real = [0], time.monotonic_ns
    monkeypatch.setattr(time, "monotonic_ns", lambda: real() + clock[0])
    with Diary(tmp_path) as diary, noting_stalls(diary):
        clock[0] = 10**9    # a second passes, and the end is there
    # There may be others, of a machine that was busy.
    assert max(one.offset for one in read_diaries(tmp_path)) >= 10**9


def test_a_takeover_lasts_until_the_last_partition_is_taken(tmp_path):
    text = changed((DROP, "")) + "501 own 10 1 4 1 -1\n502 own 40 2 5 1 -1\n"
    judgement = judged(tmp_path, text, Outage(A, 25), ends={0: 5, 1: 0})
    assert [one.seconds for one in judgement.takeovers()] == [15e-9]
    assert names(judgement) == []


@pytest.mark.parametrize(("other", "expected"), [
    (Outage(B, 10, 24), True), (Outage(B, 41), True), (Outage(B, 10), True),
    (Outage(B, 10, 26), False), (Outage(B, 30, 35), False), (Outage(B, 30), False),
])
def test_a_takeover_is_alone_where_nobody_else_was_hit_in_its_time(tmp_path, other, expected):
    judgement = judged(tmp_path, "501 own 10 1 4 0 -1\n502 own 40 2 5 0 -1", Outage(A, 25), other)
    assert [one.is_alone for one in judgement.takeovers() if one.outage.process == A] == [expected]


def test_a_takeover_that_never_ends_is_endless(tmp_path):
    judgement = judged(tmp_path, "501 own 10 1 4 0 -1", Outage(A, 25), ends={})
    assert [one.seconds for one in judgement.takeovers()] == [float("inf")]


def test_a_partition_that_was_let_go_for_nothing_is_found(tmp_path):
    text = "501 own 10 1 4 0 -1\n501 drop 20 1 5 0 -1\n501 own 30 1 6 0 -1"
    judgement = judged(tmp_path, text, ends={})
    assert [one.anomaly for one in judgement.bounced(15, 35)] == ["needless-revocation"]
    assert list(judgement.bounced(25, 35)) == []
    assert list(judged(tmp_path, GOOD).bounced(5, 50)) == []


def test_diaries_come_back_in_the_order_of_time(tmp_path):
    with Diary(tmp_path) as diary:
        diary.note("work", 1, 2, 3, 4)
        diary.note("own", 1, 2, 3, at=5)
    first, second = read_diaries(tmp_path)
    assert first == Entry(5, "own", diary.process, 1, 2, 3, -1)
    assert second[1:] == ("work", diary.process, 1, 2, 3, 4)


@pytest.mark.parametrize("line", ["think 1 2 3 4 5", "work 1 2 3 4", "work 1 2 3 4 x", "", "work"])
def test_a_line_that_no_diary_has_is_refused(tmp_path, line):
    (tmp_path / "diary-7").write_text(f"{line}\n")
    with pytest.raises(ValueError, match=r"line|literal|unpack"):
        read_diaries(tmp_path)
