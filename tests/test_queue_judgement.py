"""The judge of queues: whatever can be wrong is planted in diaries, and found by its name."""

import pytest
from judging import altered, diaries_of, names

from pylog.stress.judgement import Outage
from pylog.stress.queue_forgery import BACK, ENDS, FORGERIES, GOOD
from pylog.stress.queue_judgement import LOCK_MS, QueueJudgement

A, B = 501, 502    # workers
LOCK = LOCK_MS * 1_000_000


def judged(tmp_path, text, *outages, ends=ENDS):
    return QueueJudgement(diaries_of(text, tmp_path), ends, outages)


def changed(*changes):
    return altered(GOOD, *changes)


def test_nothing_is_found_where_all_is_well(tmp_path):
    assert names(judged(tmp_path, GOOD)) == []
    assert names(judged(tmp_path, "", ends={1: 0})) == []


@pytest.mark.parametrize("forgery", FORGERIES, ids=lambda one: one.what)
def test_what_is_forged_is_found_and_nothing_else(tmp_path, forgery):
    assert set(names(judged(tmp_path, forgery.text))) == {forgery.anomaly} | forgery.implies


@pytest.mark.parametrize(("outage", "expected"), [
    (Outage(B, 35), []),                  # killed before the other took it
    (Outage(B, 42), ["two-holders"]),     # after
    (Outage(A, 35), ["two-holders"]),     # another was
    (Outage(B, 35, 38), ["two-holders"]), # it was stopped, and its lock goes on
])
def test_what_a_killed_worker_had_may_be_given_away(tmp_path, outage, expected):
    assert names(judged(tmp_path, changed((BACK, "")), outage)) == expected


def test_the_dead_are_killed_again_and_were_dead_before(tmp_path):
    judgement = judged(tmp_path, changed((BACK, "")), Outage(B, 35), Outage(B, 44))
    assert names(judgement) == []
    assert [one.seconds for one in judgement.takeovers()] == [6e-9]


@pytest.mark.parametrize(("late", "expected"), [(-1, ["two-holders"]), (0, [])])
def test_what_a_worker_keeps_for_longer_than_its_lock_may_be_given_away(tmp_path, late, expected):
    """It may do so in the very moment, and not before."""
    times = [(f" {at} 1 2 3 1", f" {30 + LOCK + late + at - 41} 1 2 3 1") for at in (41, 42, 43)]
    text = changed((BACK, ""), *times, (" 50 1 1 3 2", f" {LOCK + 50} 1 1 3 2"),
                   *[(f" {at} 1 1 3 2", f" {LOCK + at} 1 1 3 2") for at in (51, 52, 53)])

    assert names(judged(tmp_path, text)) == expected


def test_acknowledgement_that_a_kill_cut_off_may_have_been_or_not(tmp_path):
    cut = ("502 done 53 1 1 3 2\n", "")
    again = "501 want 60 1 2 3 2\n501 got 61 1 2 3 2\n501 ask 62 1 2 3 2\n501 done 63 1 2 3 2\n"
    assert names(judged(tmp_path, changed(cut))) == []
    assert names(judged(tmp_path, changed(cut) + again)) == []


def test_who_began_to_take_before_the_acknowledgement_may_have_got_it_before(tmp_path):
    """It was stopped in between, and writes too late."""
    late = "501 want 45 1 2 3 2\n501 got 61 1 2 3 2\n"
    assert names(judged(tmp_path, GOOD + late)) == []


def test_queue_that_is_not_ordered_delivers_in_any_order(tmp_path):
    text = changed(("502 want 50 1 1 3 2\n502 got 51", "502 want 33 1 1 3 2\n502 got 34"))
    lines = [line.split() for line in text.splitlines()]
    plain = "".join(" ".join([*line[:3], "0", *line[4:]]) + "\n" for line in lines)

    assert names(judged(tmp_path, plain, ends={0: 3})) == []


def test_keys_do_not_wait_for_one_another(tmp_path):
    text = changed(("502 want 50 1 1 3 2\n502 got 51", "502 want 33 1 1 3 2\n502 got 34"))
    assert names(judged(tmp_path, text.replace(" 3 2\n", " 4 2\n"))) == []


def test_takeover_lasts_from_the_kill_to_the_next_delivery(tmp_path):
    judgement = judged(tmp_path, changed((BACK, "")), Outage(B, 35), Outage(A, 39, 45))
    assert [(one.seconds, one.is_alone) for one in judgement.takeovers()] == [(6e-9, False)]


def test_takeover_that_never_comes_is_endless(tmp_path):
    text = changed(("502 ask 52 1 1 3 2\n502 done 53 1 1 3 2\n", ""))
    assert [one.seconds for one in judged(tmp_path, text, Outage(B, 60)).takeovers()] == [
        float("inf")]


def test_figures_count_deliveries_again_and_acknowledgements(tmp_path):
    assert judged(tmp_path, GOOD).figures() == {"records": 4, "again": 1, "commits": 3}
