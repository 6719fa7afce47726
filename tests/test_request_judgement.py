"""The judge of request-reply: what can be wrong is planted in diaries, and found by its name."""

import pytest
from judging import altered, diaries_of, names

from pylog.stress.judgement import Outage
from pylog.stress.request_forgery import (
    COUNT,
    ENDS,
    FORGERIES,
    GOOD,
    OF_B,
    OF_SECOND,
    OVER,
    OVER_SECOND,
    SERVED,
    SERVED_B,
    A,
    X,
    Y,
)
from pylog.stress.request_judgement import RequestJudgement, name_of

ASKER, FIRST, SECOND = 501, 601, 602    # and servers
AGAIN = f"601 serve 24 {A + 2} {X + 2} 4 1\n601 answer 25 {A + 2} {X + 2} 4 1\n"
BILLION = 1_000_000_000


def judged(tmp_path, text, *outages):
    return RequestJudgement(diaries_of(text, tmp_path), ENDS, outages)


def changed(*changes):
    return altered(GOOD, *changes)


def test_nothing_is_found_where_all_is_well(tmp_path):
    assert names(judged(tmp_path, GOOD)) == []
    assert names(judged(tmp_path, "")) == []


@pytest.mark.parametrize("forgery", FORGERIES, ids=lambda one: f"{one.anomaly}: {one.what}")
def test_what_is_forged_is_found_and_nothing_else(tmp_path, forgery):
    assert set(names(judged(tmp_path, forgery.text))) == {forgery.anomaly} | forgery.implies


@pytest.mark.parametrize(("outage", "expected"), [
    (Outage(SECOND, 23), []),                         # killed before it was committed
    (Outage(FIRST, 23), ["served-again"]),            # another was
    (Outage(SECOND, 23, 26), ["served-again"]),       # stopped, and it went on
    (Outage(SECOND, 40), ["served-again"]),           # killed when it had been served again
])
def test_what_a_killed_server_had_in_work_may_be_served_again(tmp_path, outage, expected):
    by_first = [(text, text.replace("602 ", "601 ").replace(f"{Y + 2}", f"{X + 3}"))
                for text in (SERVED_B, OF_B)]
    text = changed((SERVED, SERVED + AGAIN), *by_first, (COUNT, COUNT[:-1] + "1"))

    assert names(judged(tmp_path, text, outage)) == expected


@pytest.mark.parametrize(("killed", "others", "stall", "expected"), [
    (BILLION, [], "", []), (1_000_000_022, [], "", []), (1_000_000_024, [], "", ["served-again"]),
    (1_500_000_000, [Outage(SECOND, 20, 500_000_020)], "", []),    # it ran for less
    (1_500_000_000, [], "602 stood 24 0 0 -1 600000000", []),
    (1_500_000_000, [Outage(SECOND, 24, 400_000_024)], "602 stood 30 0 0 -1 400000000",
     ["served-again"]),    # one stop, told by both
    (1_500_000_000, [], "601 stood 24 0 0 -1 600000000", ["served-again"]),
    (1_500_000_000, [], "602 stood 24 0 0 -1 400000000", ["served-again"]),
    (1_500_000_000, [], "602 stood 1400000000 0 0 -1 900000000", ["served-again"]),
])
def test_server_that_is_killed_long_after_its_answer_had_finished(
        tmp_path, killed, others, stall, expected):
    again = f"601 serve 2000000050 {A + 2} {X + 2} 4 1\n" \
        f"601 answer 2000000051 {A + 2} {X + 2} 4 1\n"
    text = changed((SERVED_B, SERVED_B + again), (COUNT, COUNT[:-1] + "1"))

    assert names(judged(tmp_path, text + stall, Outage(SECOND, killed), *others)) == expected


@pytest.mark.parametrize(("outage", "expected"), [
    (Outage(SECOND, 24), []),                            # killed before it was on its way
    (Outage(SECOND, 24, 2 * BILLION), []),               # stopped
    (Outage(SECOND, 2 * BILLION), ["lost-reply"]),       # killed when it was
    (Outage(ASKER, 24), []),                             # nobody is there to hear
    (Outage(FIRST, 24), ["lost-reply"]),
])
def test_reply_of_a_server_that_dies_at_it_may_be_lost(tmp_path, outage, expected):
    text = changed((OF_SECOND, OVER_SECOND), (COUNT, COUNT[:-3] + "1 1"))

    found = set(names(judged(tmp_path, text, outage))) - {"miscounted-reply"}
    assert sorted(found) == expected


@pytest.mark.parametrize(("timeout", "outages", "expected"), [
    (2_020_000, (), []),
    (2_050_000, (), ["lost-request"]),    # a later one was begun after 30 ms
    (2_050_000, (Outage(FIRST, BILLION, 2 * BILLION),), []),    # stopped, perhaps with it
    (2_050_000, (Outage(ASKER, 3 * BILLION, 4 * BILLION),), ["lost-request"]),
    (9_500_000, (Outage(FIRST, BILLION, 2 * BILLION),), ["lost-request"]),    # all is done
])
def test_request_that_was_passed_for_long_is_lost(tmp_path, timeout, outages, expected):
    """As the third one of the good diaries, which nobody serves, if it had had more time."""
    longer = (f"501 send 14 {A + 3} 10000", f"501 send 14 {A + 3} {timeout}")
    later = (OVER, f"501 over {1000 * timeout + 30} {A + 3} 0 0 -1\n")
    found = set(names(judged(tmp_path, changed(longer, later), *outages)))
    assert sorted(found - {"stuck-request"}) == expected


@pytest.mark.parametrize(("outage", "expected"), [
    (Outage(FIRST, 1_500_000_000), []),
    (Outage(FIRST, 1_000_000_000, 1_800_000_000), []),
    (Outage(FIRST, 2_500_000_000), ["stuck-request"]),
    (Outage(ASKER, 1_500_000_000), ["stuck-request"]),    # which no request waits for
])
def test_request_may_wait_while_servers_die_and_are_stopped(tmp_path, outage, expected):
    text = changed(("300000", "30000000"))

    found = set(names(judged(tmp_path, text, outage)))
    assert sorted(found) == expected


@pytest.mark.parametrize(("outage", "expected"), [
    (Outage(ASKER, 20, 2_000_000_000), []),
    (Outage(FIRST, 20, 2_000_000_000), ["stuck-asker"]),
])
def test_asker_that_is_stopped_hears_later(tmp_path, outage, expected):
    text = changed((OVER, f"501 over 2010000030 {A + 3} 0 0 -1\n"))
    assert names(judged(tmp_path, text, outage)) == expected


CUT = changed((SERVED, f"602 serve 22 {A + 2} {Y + 1} 4 1\n"
               f"601 serve 30000023 {A + 2} {X + 2} 4 1\n"
               f"601 answer 30000024 {A + 2} {X + 2} 4 1\n"),
              (OF_SECOND, OF_SECOND.replace(" 26 ", " 30000026 ").replace(f"{Y + 1}", f"{X + 2}")))


def test_takeover_lasts_until_what_was_in_work_is_begun_again(tmp_path):
    judgement = judged(tmp_path, CUT, Outage(SECOND, 24), Outage(ASKER, 25, 26))
    [takeover] = judgement.takeovers()
    assert takeover.seconds == pytest.approx(0.029999999)
    assert not takeover.is_alone


def test_who_had_nothing_in_work_leaves_nothing_to_take_over(tmp_path):
    assert list(judged(tmp_path, GOOD, Outage(SECOND, 24)).takeovers()) == []
    assert list(judged(tmp_path, CUT, Outage(FIRST, 24)).takeovers()) == []
    assert list(judged(tmp_path, CUT, Outage(ASKER, 24)).takeovers()) == []
    assert list(judged(tmp_path, CUT, Outage(SECOND, 24, 25)).takeovers()) == []


def test_figures_count_what_became_of_requests(tmp_path):
    judgement = judged(tmp_path, GOOD)
    assert judgement.figures() == {"records": 3, "again": 0, "commits": 3}
    assert judgement.details() == {"requests": 4, "replies": 3, "time-outs": 1, "late replies": 0}


def test_number_names_the_process_that_made_it():
    assert name_of(Y + 17) == "602:17"
