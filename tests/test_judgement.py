"""The judge of groups: whatever can be wrong is planted in diaries, and found by its name."""

import pytest

from pylog.stress.diary import Diary, Entry, read_diaries
from pylog.stress.judgement import Judgement, Outage

A, B = 501, 502    # processes

# Member 1 of process A reads to 3 and lets go; member 2 of B reads on to the end, 5.
GOOD = """
A 10 own 1 4 0 -1
A 11 work 1 4 0 0
A 12 work 1 4 0 1
A 13 ask 1 4 0 2
A 14 done 1 4 0 2
A 15 work 1 4 0 2
A 16 ask 1 4 0 3
A 17 done 1 4 0 3
L 18 look 0 0 0 3
L 19 end 0 0 0 5
A 20 drop 1 5 0 -1
B 30 own 2 5 0 3
B 31 work 2 5 0 3
B 32 work 2 5 0 4
B 33 ask 2 5 0 5
B 34 done 2 5 0 5
"""
PROCESSES = {"A": A, "B": B, "L": 503}


def entries(text):
    found = []
    for line in text.strip().splitlines():
        process, at, kind, *numbers = line.split()
        found.append(Entry(int(at), kind, PROCESSES[process], *map(int, numbers)))
    return found


def found(text, *outages, end=5):
    return sorted({one.anomaly for one in Judgement(entries(text), {0: end}, outages).findings()})


def changed(*changes):
    text = GOOD
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return text


def test_nothing_is_found_where_all_is_well():
    assert found(GOOD) == []
    assert found("", end=0) == []


@pytest.mark.parametrize(("changes", "expected"), [
    ([("B 32 work 2 5 0 4\n", "")], {"unhandled-record"}),
    ([("B 30 own 2 5", "B 30 own 2 4"), ("B 31 work 2 5", "B 31 work 2 4")], {"double-owner"}),
    ([("A 20 drop 1 5 0 -1\n", "")], {"double-owner"}),
    ([("A 20 drop", "A 31 drop")], {"double-owner"}),
    ([("A 20 drop", "A 31 lost")], {"double-owner"}),
    ([("A 12 work 1 4 0 1\n", "")], {"poll-skip", "unhandled-record"}),
    ([("B 31 work 2 5 0 3\n", "")], {"poll-skip", "unhandled-record"}),
    ([("A 15 work 1 4 0 2\n", "A 15 work 1 4 0 2\nA 15 work 1 4 0 1\n")], {"nonmonotonic-poll"}),
    ([("B 34 done 2 5 0 5\n", "B 34 done 2 5 0 5\nA 35 ask 1 4 0 5\nA 36 done 1 4 0 5\n")],
     {"zombie-commit"}),
    ([("B 33 ask 2 5 0 5", "B 33 ask 2 5 0 2")], {"commit-regression"}),
    ([("B 30 own 2 5 0 3", "B 30 own 2 5 0 -1")], {"commit-regression", "poll-skip"}),
    ([("L 18 look 0 0 0 3", "L 18 look 0 0 0 2")], {"commit-regression"}),
    ([("L 19 end 0 0 0 5", "L 19 end 0 0 0 2")], {"commit-beyond-end"}),
    ([("B 33 ask 2 5 0 5", "B 33 ask 2 5 0 6"), ("B 34 done 2 5 0 5", "B 34 done 2 5 0 6")],
     {"commit-beyond-end"}),
])
def test_what_is_planted_is_found_and_nothing_else(changes, expected):
    assert set(found(changed(*changes))) == expected


def test_a_commit_that_was_refused_or_whose_process_was_killed_proves_nothing():
    assert found(changed(("B 33 ask 2 5 0 5", "B 33 ask 2 5 0 9"),
                         ("B 34 done 2 5 0 5", "B 34 refused 2 5 0 9"))) == []
    assert found(changed(("B 33 ask 2 5 0 5", "B 33 ask 2 5 0 9"),
                         ("B 34 done 2 5 0 5\n", ""))) == []


def test_what_a_killed_or_stopped_member_had_may_be_taken():
    text = changed(("A 20 drop 1 5 0 -1\n", ""))
    assert found(text, Outage(A, 25)) == []
    assert found(text, Outage(A, 25, 40)) == []
    assert found(text, Outage(A, 31)) == ["double-owner"]
    assert found(text, Outage(B, 25)) == ["double-owner"]


def test_a_takeover_lasts_until_the_last_partition_is_taken():
    text = GOOD.replace("A 20 drop 1 5 0 -1\n", "") + """\
A 10 own 1 4 1 -1
B 40 own 2 5 1 -1
"""
    judgement = Judgement(entries(text), {0: 5, 1: 0}, [Outage(A, 25)])
    assert [seconds for _, seconds in judgement.takeovers()] == [15e-9]
    assert judgement.findings() == []


def test_a_takeover_that_never_ends_is_endless():
    judgement = Judgement(entries("A 10 own 1 4 0 -1"), {0: 0}, [Outage(A, 25)])
    assert [seconds for _, seconds in judgement.takeovers()] == [float("inf")]


def test_a_partition_that_was_let_go_for_nothing_is_found():
    text = "A 10 own 1 4 0 -1\nA 20 drop 1 5 0 -1\nA 30 own 1 6 0 -1"
    judgement = Judgement(entries(text), {0: 0})
    assert [one.anomaly for one in judgement.bounced(15, 35)] == ["needless-revocation"]
    assert list(judgement.bounced(25, 35)) == []
    assert list(Judgement(entries(GOOD), {0: 5}).bounced(5, 50)) == []


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
