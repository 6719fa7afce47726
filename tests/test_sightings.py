"""Sightings counted: one anomaly is one, however many processes saw it."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pylog.stress.plan import Options, Plan
from pylog.stress.sightings import Sighting, distinct, size_of_union
from pylog.stress.stage import Stage
from pylog.stress.verdict import anomalies_of, line_of


def seen(anomaly, by, what="it", **known):
    return Sighting(anomaly, what, by=by, at=1.0, **known)


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 9)).map(
    lambda pair: (pair[0], sum(pair)))))
def test_size_of_a_union_is_that_of_the_set(spans):
    assert size_of_union(spans) == len({n for start, end in spans for n in range(start, end)})


@pytest.mark.parametrize(("sightings", "count"), [
    ([], 0),
    # The watcher and the examination settle with the same ledgers; the log may begin later for one.
    ([seen("hole", "watcher", producer=1, sequence=5, count=10, offset=70),
      seen("hole", "stage", producer=1, sequence=5, count=10, offset=70)], 10),
    ([seen("hole", "watcher", producer=1, sequence=5, count=10, offset=70),
      seen("hole", "stage", producer=1, sequence=9, count=6, offset=70)], 10),
    ([seen("hole", "stage", producer=1, sequence=5, count=10, offset=70),
      seen("hole", "stage", producer=2, sequence=5, count=10, offset=70)], 20),
    ([seen("lost-write", "stage", producer=1, sequence=5, count=10),
      seen("lost-write", "stage", producer=1, sequence=15, count=1)], 11),
    # One batch, seen by five.
    ([seen("torn-batch", f"reader {i}", offset=7, file="a", position=3) for i in range(5)], 1),
    ([seen("torn-batch", "stage", file="a", position=3),
      seen("torn-batch", "watcher", file="a", position=3)], 1),
    ([seen("torn-batch", "stage", file="a", position=3),
      seen("torn-batch", "stage", file="b", position=3)], 2),
    # A record three times is a duplicate twice.
    ([seen("duplicate", "watcher", producer=1, sequence=5, offset=offset) for offset in (8, 9)], 2),
    # Two checkers, both of which describe the first alone.
    ([seen("duplicate", by, what, **known) for by in ("watcher", "stage")
      for what, known in (("it", {"offset": 8}), ("", {"count": 984}))], 985),
    ([seen("stuck-reader", "stage", pid=pid, offset=70) for pid in (8, 9)], 2),
    # Calls that raise are one each, whoever made them.
    ([seen("unexpected-error", f"writer {i}") for i in (0, 1, 1)], 3),
    ([seen("broken-worker", "stage"), seen("broken-worker", "writer 0")], 2),
])
def test_anomaly_is_counted_once_for_each_place(sightings, count):
    assert distinct(sightings) == count
    assert distinct(reversed(sightings)) == count


def rows_of(*sightings):
    return anomalies_of(list(sightings), Stage(Plan(Options(), 1, ()), Path("run")))


def test_report_says_how_many_saw_it_and_shows_each_place_once():
    rows = rows_of(*(seen("torn-batch", by, offset=offset)
                     for offset in (7, 9) for by in ("reader 1", "reader 0", "watcher")))

    assert rows["torn-batch"]["count"] == 2
    assert rows["torn-batch"]["seen_by"] == ["reader 0", "reader 1", "watcher"]
    assert [one["offset"] for one in rows["torn-batch"]["examples"]] == [7, 9]




@pytest.mark.parametrize(("seers", "said"), [
    (["watcher"], "torn-batch: 1, never allowed: "),
    (["watcher", "stage", "stage"], "torn-batch: 1 (seen by 2), never allowed: "),
])
def test_text_says_how_many_saw_it_where_it_was_more_than_one(seers, said):
    rows = rows_of(*(seen("torn-batch", by, offset=7) for by in seers))

    assert line_of("torn-batch", rows["torn-batch"]).startswith(said)
