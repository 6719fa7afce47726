"""The settlement: ledgers against what was seen; sets of integers are the model of its arithmetic.

The ledgers are real files, the checker is given records one by one.
"""

import time
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pylog import _native
from pylog.stress.examination import Layout
from pylog.stress.settlement import common, minus, settle, size
from pylog.stress.sightings import KEPT, Sightings, Tally, counted, described, read_sightings
from pylog.stress.watching import DELAYS_MAX, Delays

RUN = 5


# ---- arithmetic ---------------------------------------------------------------------------------


def intervals_of(numbers):
    """Sorted, disjoint, and none touching the next: or touching, where the numbers' tens change."""
    found = []
    for n in sorted(numbers):
        if found and found[-1][1] == n and n % 10:
            found[-1] = (found[-1][0], n + 1)
        else:
            found.append((n, n + 1))
    return found


def numbers_of(intervals):
    listed = [n for start, end in intervals for n in range(start, end)]
    assert listed == sorted(set(listed)), "not sorted, or not disjoint"
    return set(listed)


sets = st.sets(st.integers(0, 60))


@given(sets, sets)
def test_minus_and_common_are_those_of_sets(first, second):
    a, b = intervals_of(first), intervals_of(second)

    assert numbers_of(minus(a, b)) == first - second
    assert numbers_of(common(a, b)) == first & second
    assert size(a) == len(first)
    assert all(start < end for start, end in [*minus(a, b), *common(a, b)])


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), max_size=1), sets)
def test_empty_intervals_are_nothing(one, other):
    one = [(start, min(start, end)) for start, end in one]

    assert list(minus(one, intervals_of(other))) == []
    assert size(common(intervals_of(other), [])) == 0


# ---- each row -----------------------------------------------------------------------------------


class Desk:
    """A directory with ledgers, a checker, and what the settlement of both notes."""

    def __init__(self, directory):
        self.layout = Layout(directory)
        self.layout.ledgers.mkdir()
        self.checker = _native.Checker(RUN)
        self.offset = 0

    def ledger(self, *story, producer=0):
        """Words (count, end): "ok", "failed", "unknown", or "" for a call in flight."""
        ledger = _native.Ledger(self.layout.ledgers / f"producer-{producer}", RUN, producer)
        ledger.enter()
        for count, end in story:
            ledger.begin(count)
            if end == "ok":
                ledger.acknowledge()
            elif end:
                ledger.doubt(is_failed=end == "failed")

    def see(self, *sequences, producer=0, at=None):
        self.offset = self.offset if at is None else at
        for sequence in sequences:
            (value,), _ = _native.stamp_values(RUN, producer, 1, sequence, [48])
            self.checker.take_record(self.offset, None, value)
            self.offset += 1

    def settle(self, **options):
        """(balance, {name: count}, [sighting])."""
        notes = Sightings(self.layout.sightings, "desk")
        balance = settle(self.checker, self.layout.producers(), notes, **options)
        sightings = read_sightings(self.layout.sightings)
        return balance, dict(counted(sightings)), sightings


@pytest.fixture
def desk(tmp_path):
    return Desk(tmp_path)


def test_all_acknowledged_and_there_is_nothing_to_note(desk):
    desk.ledger((5, "ok"), (3, "ok"))
    desk.see(*range(8))
    balance, names, _ = desk.settle()

    assert names == {}
    assert (balance.sent, balance.acknowledged, balance.missing) == (8, 8, 0)
    assert (balance.failed, balance.indeterminate) == (0, 0)


def test_producer_that_sent_nothing_settles(desk):
    desk.ledger()

    assert desk.settle()[1] == {}


@pytest.mark.parametrize("missing", [[0], [3], [0, 1], [3, 4, 5]])
def test_missing_with_later_ones_there_is_a_hole(desk, missing):
    desk.ledger((8, "ok"))
    desk.see(*(n for n in range(8) if n not in missing))
    balance, names, (sighting,) = desk.settle()

    assert names == {"hole": len(missing)}
    assert balance.missing == len(missing)
    assert (sighting.producer, sighting.sequence) == (0, missing[0])
    assert sighting.offset == missing[0]    # where the next one stands


@pytest.mark.parametrize("there", [0, 1, 7])
def test_missing_at_the_end_is_a_lost_write(desk, there):
    desk.ledger((8, "ok"))
    desk.see(*range(there))
    _, names, (sighting,) = desk.settle()

    assert names == {"lost-write": 8 - there}
    assert (sighting.sequence, sighting.offset) == (there, None)


def test_missing_twice_is_named_twice(desk):
    desk.ledger((9, "ok"))
    desk.see(0, 1, 4, 5, 6)
    _, names, sightings = desk.settle()

    assert names == {"hole": 2, "lost-write": 2}
    assert [(one.anomaly, one.sequence) for one in sightings] == [("hole", 2), ("lost-write", 7)]


@pytest.mark.parametrize(("later", "cuts", "name"), [
    ([], [(3, 100)], "truncated-tail"),
    ([6, 7], [(3, 100)], "truncated-tail"),
    ([], [(10, 100)], "truncated-tail"),
    ([], [], "lost-write"),
    ([], [(1, 2)], "lost-write"),               # the cut was before what is there last
    ([6, 7], [(1, 2)], "hole"),
    ([6, 7], [(200, 300)], "hole"),             # the cut came after
    ([6, 7], [(1, 2), (3, 100)], "truncated-tail"),
])
def test_missing_in_front_of_a_cut_is_its_tail_and_else_is_not(desk, later, cuts, name):
    desk.ledger((8 if later else 6, "ok"))
    desk.see(0, 1, 2)
    desk.see(*later, at=100)
    _, names, _ = desk.settle(cuts=cuts)

    assert names == {name: 3}


def test_record_that_nobody_sent_is_invented(desk):
    desk.ledger((3, "ok"))
    desk.see(0, 1, 2, 3, 9)
    _, names, sightings = desk.settle()

    assert names == {"invented-write": 2}
    assert [one.sequence for one in sightings] == [3, 9]


def test_failed_record_that_is_there_is_told(desk):
    desk.ledger((2, "ok"), (3, "failed"), (2, "ok"))
    desk.see(0, 1, 3, 5, 6)
    balance, names, (sighting,) = desk.settle()

    assert names == {"failed-write": 1}
    assert (sighting.sequence, balance.failed, balance.acknowledged) == (3, 3, 4)


@pytest.mark.parametrize("there", [[], [2], [2, 3, 4]])
@pytest.mark.parametrize("end", ["unknown", ""])
def test_indeterminate_record_may_be_there_or_not(desk, there, end):
    desk.ledger((2, "ok"), (3, end))
    desk.see(0, 1, *there)
    balance, names, _ = desk.settle()

    assert names == {}
    assert (balance.indeterminate, balance.indeterminate_present) == (3, len(there))


def test_doubt_that_its_producers_death_left_half_done_counts_once(desk):
    desk.ledger((2, "ok"), (3, "unknown"))
    path = desk.layout.ledgers / "producer-0"
    at = _native.ledger_layout()["settled"]
    data = bytearray(path.read_bytes())
    data[at] = 2    # the span is there, its settlement not yet
    path.write_bytes(data)
    desk.see(0, 1, 2)
    balance, names, _ = desk.settle()

    assert names == {}
    assert (balance.indeterminate, balance.indeterminate_present) == (3, 1)


def test_log_that_starts_late_is_not_asked_for_what_was_deleted(desk):
    desk.ledger((9, "ok"))
    desk.see(4, 5, 7, 8)

    assert desk.settle(starts_late=True)[1] == {"hole": 1}


def test_late_start_with_nothing_of_a_producer_accuses_nobody(desk):
    desk.ledger((9, "ok"))

    assert desk.settle(starts_late=True)[1] == {}


def test_producers_settle_each_for_itself(desk):
    for producer in range(3):
        desk.ledger((4, "ok"), producer=producer)
        desk.see(*range(4 - producer), producer=producer)
    balance, names, sightings = desk.settle()

    assert names == {"lost-write": 3}
    assert {(one.producer, one.sequence) for one in sightings} == {(1, 3), (2, 2)}
    assert (balance.sent, balance.acknowledged, balance.missing) == (12, 12, 3)


stories = st.lists(st.tuples(st.integers(1, 6), st.sampled_from(["ok", "failed", "unknown"])),
                   max_size=8)


@given(stories, st.sets(st.integers(0, 50)))
def test_settlement_is_that_of_sets(tmp_path_factory, story, seen):
    desk = Desk(tmp_path_factory.mktemp("desk"))
    desk.ledger(*story)
    desk.see(*sorted(seen))
    balance, names, _ = desk.settle()
    ends = [end for count, end in story for _ in range(count)]
    by_end = {end: {n for n, one in enumerate(ends) if one == end}
              for end in ("ok", "failed", "unknown")}

    missing = by_end["ok"] - seen
    last = max(seen, default=-1)
    expected = {
        "hole": len({n for n in missing if n < last}),
        "lost-write": len({n for n in missing if n > last}),
        "invented-write": len({n for n in seen if n >= len(ends)}),
        "failed-write": len(by_end["failed"] & seen),
    }
    assert names == {name: count for name, count in expected.items() if count}
    assert (balance.sent, balance.acknowledged) == (len(ends), len(by_end["ok"]))
    assert (balance.failed, balance.indeterminate) == (
        len(by_end["failed"]), len(by_end["unknown"]))
    assert balance.indeterminate_present == len(by_end["unknown"] & seen)
    assert balance.missing == len(missing)


@given(st.sets(st.integers(0, 40)), st.randoms(use_true_random=False))
def test_missing_records_are_named_as_the_cuts_around_them_say(tmp_path_factory, seen, random):
    desk = Desk(tmp_path_factory.mktemp("desk"))
    desk.ledger((41, "ok"))
    offsets = dict(zip(sorted(seen), sorted(random.sample(range(100), len(seen))), strict=True))
    for sequence, offset in offsets.items():
        desk.see(sequence, at=offset)
    edges = sorted(random.sample(range(101), 2 * random.randrange(4)))
    cuts = list(zip(edges[::2], edges[1::2], strict=True))
    expected = Counter()
    for lost in {*range(41)} - seen:
        before = max((offsets[n] for n in seen if n < lost), default=-1)
        after = min((offsets[n] for n in seen if n > lost), default=1000)
        is_cut = any(before < cut and resumed <= after for cut, resumed in cuts)
        is_last = lost > max(seen, default=-1)
        expected["truncated-tail" if is_cut else "lost-write" if is_last else "hole"] += 1
    random.shuffle(cuts)

    assert desk.settle(cuts=cuts)[1] == expected


def seconds_for(desk, losses):
    """Of a settlement with so many, each an interval of its own, behind some doubts."""
    desk.ledger(*[(1, "ok"), (1, "failed")] * 100, (2 * losses, "ok"))
    values, _ = _native.stamp_values(RUN, 0, 1, 0, [48] * (200 + 2 * losses))
    for offset, value in enumerate(values[::2]):
        desk.checker.take_record(offset, None, value)
    start = time.process_time()
    balance, names, sightings = desk.settle(cuts=[(n, n + 1) for n in range(0, losses, 7)])
    assert balance.missing == sum(names.values()) == losses
    assert len(sightings) < 50
    return time.process_time() - start


def test_catastrophe_costs_in_proportion_and_writes_little(tmp_path_factory):
    few, many = (min(seconds_for(Desk(tmp_path_factory.mktemp("desk")), losses)
                     for _ in range(3)) for losses in (3_000, 30_000))

    assert many < 35 * few    # 100 times as much, were it the square


# ---- sightings ----------------------------------------------------------------------------------


def test_first_of_an_anomaly_are_described_and_all_counted(tmp_path):
    notes = Sightings(tmp_path / "sightings", "me")
    for number in range(KEPT + 5):
        notes.note("hole", f"number {number}", count=1000, offset=number)
    notes.note("duplicate", "one")
    sightings = read_sightings(notes.path)

    assert counted(sightings) == {"hole": 1000 * (KEPT + 5), "duplicate": 1} == notes.counts
    assert [one.what for one in described(sightings)] == [
        *(f"number {n}" for n in range(KEPT)), "one"]


def test_name_that_is_not_in_the_catalogue_is_refused(tmp_path):
    with pytest.raises(KeyError):
        Sightings(tmp_path / "sightings", "me").note("no-such-anomaly")
    assert read_sightings(tmp_path / "sightings") == []


def test_tally_counts_each_sighting_once_however_often_it_looks(tmp_path):
    tally = Tally(tmp_path / "sightings")
    assert not tally.look()
    notes = Sightings(tally.path, "me")

    for count in (1, 3, 50):
        notes.note("hole", "there", count=count)
        assert tally.look() == tally.look() == notes.counts

    with tally.path.open("ab") as file:
        file.write(b'{"anomaly": "dupl')    # it is being written now
    assert tally.look() == {"hole": 54}


# ---- delays -------------------------------------------------------------------------------------


def test_few_delays_have_the_percentiles_of_a_sorted_list():
    delays = Delays()
    for n in range(100):
        delays.take(n * 1_000_000)

    assert delays.percentiles() == {"p50": 50, "p99": 99, "max": 99}
    assert Delays().percentiles() == {"p50": 0, "p99": 0, "max": 0}


def test_many_delays_take_no_more_memory_and_keep_the_greatest():
    delays = Delays()
    count = 5 * DELAYS_MAX
    for n in range(count):
        delays.take(n * 1_000_000 if n != 12_345 else count * 2_000_000)

    found = delays.percentiles()
    assert len(delays.kept) < DELAYS_MAX
    assert found["p50"] == pytest.approx(count / 2, rel=0.001)
    assert found["p99"] == pytest.approx(count * 0.99, rel=0.001)
    assert found["max"] == count * 2
