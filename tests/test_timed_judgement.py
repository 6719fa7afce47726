"""The judge of delays, times to live and dedup keys: what is planted is found by its name."""

import pytest
from judging import altered, diaries_of, names

from pylog.stress.judgement import Outage
from pylog.stress.timed_forgery import DELAYED, ENDS, FORGERIES, GOOD, KEYED, LIVING, REFUSED, P
from pylog.stress.timed_judgement import TimedJudgement

PUTTER, WORKER = 500, 501


def judged(tmp_path, text, *outages, ends=ENDS):
    return TimedJudgement(diaries_of(text, tmp_path), ends, outages)


def changed(*changes):
    return altered(GOOD, *changes)


def test_nothing_is_found_where_all_is_well(tmp_path):
    assert names(judged(tmp_path, GOOD)) == []
    assert names(judged(tmp_path, "", ends={})) == []


@pytest.mark.parametrize("forgery", FORGERIES, ids=lambda one: one.what)
def test_what_is_forged_is_found_and_nothing_else(tmp_path, forgery):
    assert set(names(judged(tmp_path, forgery.text))) == {forgery.anomaly} | forgery.implies


@pytest.mark.parametrize(("taken", "expected"), [(79_000_000, ["delivered-early"]),
                                                 (81_000_000, [])])
def test_clocks_that_differ_by_20_ms_are_no_early_delivery(tmp_path, taken, expected):
    text = changed((DELAYED, DELAYED.replace("100000030", str(taken))))
    assert names(judged(tmp_path, text)) == expected


def test_who_began_to_take_in_time_and_was_stopped_may_get_what_expires(tmp_path):
    late = [(f"501 {kind} {at} {P + 2}", f"501 {kind} 9000000{at} {P + 2}")
            for kind, at in (("take", 21), ("settle", 22), ("settled", 23))]
    assert names(judged(tmp_path, changed(*late))) == []


def test_message_that_expired_is_a_dead_letter(tmp_path):
    text = changed((LIVING, f"502 letter 40 {P + 2} 0 0 -1\n"))
    assert names(judged(tmp_path, text)) == []


@pytest.mark.parametrize(("outages", "expected"), [
    ([Outage(PUTTER, 17)], []),
    ([Outage(PUTTER, 17, 18)], ["duplicate-put"]),    # stopped: its call goes on
    ([Outage(WORKER, 17)], ["duplicate-put"]),
])
def test_put_that_a_kill_cut_off_may_be_in_once_more(tmp_path, outages, expected):
    text = changed((REFUSED, f"501 reach 33 {P + 4} 1 0 3\n501 take 34 {P + 4} 1 0 3\n"))
    assert names(judged(tmp_path, text, *outages)) == expected


def test_second_put_that_is_refused_while_the_first_is_cut_off_is_lost_unless_it_comes(tmp_path):
    cut = (f"500 posted 15 {P + 3} 1 0 -1\n", "")
    assert names(judged(tmp_path, changed(cut), Outage(PUTTER, 18))) == []
    assert names(judged(tmp_path, changed(cut, (KEYED, "")), Outage(PUTTER, 18))) == [
        "lost-message"]


def test_delayed_message_may_come_twice_where_somebody_was_killed(tmp_path):
    text = GOOD + f"501 reach 100000040 {P + 1} 2 0 3\n501 take 100000041 {P + 1} 2 0 3\n"
    assert names(judged(tmp_path, text, Outage(502, 50))) == []
    assert names(judged(tmp_path, text, Outage(502, 50, 60))) == ["delivered-after-ack"]


def test_nothing_is_lost_before_all_is_done(tmp_path):
    assert names(judged(tmp_path, changed((LIVING, ""), (KEYED, "")), ends={})) == []


def test_figures_count_the_kinds(tmp_path):
    assert judged(tmp_path, GOOD).details() == {
        "timed messages": 4, "delayed": 1, "expired": 0, "with a dedup key": 2,
        "refused as second ones": 1}
