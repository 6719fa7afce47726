"""`--plant`: what is planted in a good log is found, named and placed, and nothing else is."""

import ast
import dataclasses
import shutil
import sys
from pathlib import Path

import pytest
from aiokafka.record._crc32c import crc as crc32c_of_others

import pylog
from pylog.errors import RecordNotFoundError
from pylog.stress import (
    editor,
    forgery,
    liars,
    planting,
    queue_forgery,
    request_forgery,
    timed_forgery,
    trial,
)
from pylog.stress.anomalies import ANOMALIES, ROWS
from pylog.stress.board import Board
from pylog.stress.editor import LogFiles
from pylog.stress.examination import Layout
from pylog.stress.plan import Options, Plan
from pylog.stress.planting import Planted, Spot
from pylog.stress.reading import Reader
from pylog.stress.sightings import Sighting, read_sightings

FORGERIES = (*forgery.FORGERIES, *queue_forgery.FORGERIES, *timed_forgery.FORGERIES,
             *request_forgery.FORGERIES)
PLANTED = {one.anomaly for one in (*planting.PLANTS, *liars.LIES, *FORGERIES)}


@pytest.fixture(scope="module")
def good(tmp_path_factory, request):
    return trial.make_good_run(tmp_path_factory.mktemp("run") / "good",
                               request.config.option.seed)


@pytest.fixture(scope="module")
def rows(tmp_path_factory, request):
    """All plants, tried once."""
    directory = tmp_path_factory.mktemp("trial")
    return list(trial.planted(["all"], request.config.option.seed, directory))


def test_log_with_nothing_planted_has_nothing_told_of_it(rows):
    unplanted = rows[0]

    assert unplanted.found == {}
    assert unplanted.is_right


def test_every_plant_is_found_named_and_placed(rows):
    assert [row for row in rows if not row.is_right] == [], trial.table(rows)
    assert len(rows) == 1 + len(planting.PLANTS) + len(liars.LIES) + len(FORGERIES)


def test_what_a_plant_implies_is_no_excuse_for_missing_it(rows):
    for row in rows[1:]:
        assert row.found[row.anomaly] > 0, row


def test_every_anomaly_is_planted_or_says_why_not():
    assert PLANTED | planting.NOT_PLANTED.keys() == ANOMALIES.keys()
    assert PLANTED.isdisjoint(planting.NOT_PLANTED)
    assert all(len(why) > 10 for why in planting.NOT_PLANTED.values())


def test_plants_imply_only_names_of_the_catalogue():
    for plant in (*planting.PLANTS, *liars.LIES, *FORGERIES):
        assert plant.implies <= {row.name for row in ROWS}, plant
        assert plant.anomaly not in plant.implies, plant
        assert plant.what, plant


@pytest.mark.parametrize("module", [editor, forgery, planting, queue_forgery, request_forgery,
                                    timed_forgery])
def test_planting_shares_no_code_with_what_it_tests(module):
    tree = ast.parse(Path(module.__file__).read_text())
    imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    imported |= {name.name for node in ast.walk(tree) if isinstance(node, ast.Import)
                 for name in node.names}

    ours = {name for name in imported if name.split(".")[0] == "pylog"}
    assert ours <= {"pylog.stress.editor", "pylog.stress.forgery"}
    assert imported - ours <= {*sys.stdlib_module_names, "collections.abc", "lz4.frame"}


def test_editor_writes_a_log_back_byte_by_byte(good, tmp_path):
    copy = shutil.copytree(good / "log", tmp_path / "log")
    before = {file.name: file.read_bytes() for file in copy.iterdir()}

    files = LogFiles(copy)
    for batch in files.batches():
        if not batch.attributes & 7:    # frames of lz4 need not come out the same
            batch.put(batch.entries())
    files.save()

    assert {file.name: file.read_bytes() for file in copy.iterdir()} == before


@pytest.mark.parametrize("data", [b"", b"\0", b"123456789", bytes(range(256)) * 3])
def test_editors_crc_is_castagnolis(data):
    assert editor.crc32c(data) == crc32c_of_others(data)


@pytest.mark.parametrize("number", [0, -1, 1, 63, 64, -65, 300, -(1 << 31), (1 << 62)])
def test_editors_varints_come_back(number):
    assert editor.read_varint(b"x" + editor.varint(number), 1)[0] == number


def test_same_seed_plants_the_same(tmp_path):
    first, second = (
        [dataclasses.replace(row, seconds=0, found={}) for row in
         trial.planted(["zombie-write", "reordered"], 5, tmp_path / name)][1:]
        for name in ("a", "b"))

    assert [row.what for row in first] == [row.what for row in second]
    assert len(first) == 2


def test_only_the_plants_that_are_named_are_tried(tmp_path):
    found = list(trial.planted(["hole"], 1, tmp_path))

    assert [row.anomaly for row in found] == ["", "hole", "hole", "hole"]


@pytest.mark.parametrize("name", ["stuck-reader", "untold-damage", "no-such-anomaly", "", "ALL"])
def test_name_that_cannot_be_planted_is_refused_with_the_reason(name):
    with pytest.raises(ValueError, match="cannot be planted: "):
        next(trial.planted([name]))


# ---- the judge: it must be able to say no ---------------------------------------------------


def planted_at(**known):
    return Planted("hole", "something", Spot(**known), frozenset())


@pytest.mark.parametrize(("sighting", "spot"), [
    ({"offset": 5}, {"offset": 6}),
    ({"offset": 5, "end_offset": 9}, {"offset": 9}),
    ({"offset": 5}, {"producer": 1, "sequence": 2}),
    ({"producer": 1, "sequence": 7, "count": 3}, {"producer": 1, "sequence": 10}),
    ({"producer": 1, "sequence": 7, "count": 3}, {"producer": 2, "sequence": 8}),
    ({"file": "a", "position": 3}, {"file": "a", "position": 4}),
    ({"file": "a", "position": 3}, {"file": "b", "position": 3}),
    ({"offset": 5, "file": "a"}, {"offset": 5, "file": "b"}),
    ({"offset": 5, "anomaly": "lost-write"}, {"offset": 5}),
    ({}, {"offset": 5}),
    ({}, {}),
])
def test_sighting_of_another_place_is_not_taken_for_the_planted_one(sighting, spot):
    assert not trial.agrees(Sighting(**{"anomaly": "hole", **sighting}), planted_at(**spot))


@pytest.mark.parametrize(("sighting", "spot"), [
    ({"offset": 5, "end_offset": 9}, {"offset": 8}),
    ({"producer": 1, "sequence": 7, "count": 3}, {"producer": 1, "sequence": 9}),
    ({"file": "a", "position": 3, "offset": 1}, {"file": "a", "position": 3}),
])
def test_sighting_of_the_place_is_taken(sighting, spot):
    assert trial.agrees(Sighting("hole", **sighting), planted_at(**spot))


def test_row_is_right_only_when_found_named_and_placed():
    row = trial.Row("hole", "what", "where", {"hole": 1})

    assert row.is_right
    for change in ({"found": {}}, {"unexpected": ("duplicate",)}, {"is_placed": False}):
        assert not dataclasses.replace(row, **change).is_right
    assert not trial.Row("", "nothing planted", "", {"hole": 1}, ("hole",)).is_right


def test_table_has_two_lines_for_each_row_and_counts_the_right_ones(rows):
    text = trial.table([*rows, trial.Row("hole", "what", "where")])

    assert text.count("\n") == 2 * (len(rows) + 1) + 2
    assert "NOT FOUND" in text
    assert text.endswith(f"{len(rows)} of {len(rows) + 1} right\n")


# ---- a reader at a cut ------------------------------------------------------------------------


@pytest.fixture
def at_cut(good, tmp_path, rng):
    """A reader of a log that lost a tail, with a good one's seek; and the gap."""
    copy = shutil.copytree(good, tmp_path / "copy")
    one = next(one for one in planting.PLANTS if one.make is planting.lose_the_tail_and_go_on)
    planting.make(one, copy, rng)
    reader = Reader(Plan(Options(size_max=400), trial.RUN, ()), Layout(copy), Board(), 1)
    yield reader, pylog.check(copy / "log").gaps[0]
    reader.log.close()


def seek_to(reader, offset):
    def seek():
        reader.new_checker(offset)
        return offset
    reader.seek = seek


def told_by(reader):
    return [(one.anomaly, one.offset) for one in
            read_sightings(Layout(reader.path.parent).sightings)]


@pytest.mark.parametrize("from_start", [-5, 0, 5])
@pytest.mark.parametrize("turn", ["read_chunks", "read_records", "get", "hold_view"])
def test_reader_that_comes_to_a_cut_says_nothing(at_cut, turn, from_start):
    reader, (start, end) = at_cut
    seek_to(reader, start + from_start)
    far = 3 if turn == "read_chunks" else end    # it reads on behind the cut
    reader.rng.randrange = lambda *between: far

    try:
        getattr(reader, turn)()
    except RecordNotFoundError as error:
        reader.was_not_found(error)

    assert told_by(reader) == []


@pytest.mark.parametrize(("before", "behind"), [(1, 0), (0, 1), (3, 3)])
def test_reader_that_jumps_over_more_than_the_cut_is_told_of(at_cut, before, behind):
    reader, (start, end) = at_cut
    reader.new_checker(start - before)
    record = reader.log.get(end + behind)

    reader.checker.take_record(record.offset, record.key, record.value)
    reader.note_findings()

    assert told_by(reader) == [("poll-skip", end + behind)]


def test_record_that_is_there_and_not_found_is_told(at_cut):
    reader, (start, _) = at_cut

    reader.was_not_found(RecordNotFoundError("no such", offset=start - 1))

    assert told_by(reader) == [("retention-early", start - 1)]


# ---- what no plant can show -------------------------------------------------------------------


def without_segment_before_epoch(good, directory, skipped, is_deleted=False):
    """What is told of a copy whose latest epoch begins that much later, and the gap there is;
    is_deleted: all before the epoch was to go."""
    copy = shutil.copytree(good, directory / "copy")
    files = LogFiles(copy / "log")
    at = next(at for at, segment in enumerate(files.segments)
              if segment.base == files.epochs[-1][1])
    files.shift(files.segments[at].batches[0], skipped)
    files.epochs[-1] = (files.epochs[-1][0], files.segments[at].batches[0].base)
    files.meta["reserved_end"] = str(files.epochs[-1][1] + planting.RESERVED)
    if is_deleted:
        files.meta["log_start"] = str(files.epochs[-1][1])
    files.save()
    (copy / "folds").unlink()
    (copy / "log" / files.segments[at - 1].name(".log")).unlink()
    told = {sighting.anomaly for sighting in trial.look_at(copy)}
    return told, pylog.check(copy / "log").gaps, (files.segments[at - 1].base, files.epochs[-1][1])


def test_loss_in_front_of_an_epoch_that_follows_no_loss_is_told(good, tmp_path):
    told, gaps, _ = without_segment_before_epoch(good, tmp_path, 0)

    assert "truncated-tail" not in told
    assert {"hole", "damaged-structure"} <= told
    assert gaps == []


def test_gap_below_the_log_start_is_no_loss(good, tmp_path):
    told, gaps, gap = without_segment_before_epoch(good, tmp_path, 0, is_deleted=True)

    assert "damaged-structure" not in told
    assert gaps == [gap]


def test_loss_in_front_of_an_epoch_that_may_follow_one_looks_like_a_recoverys(good, tmp_path):
    """The limit of what files can say: none tells where the log had ended before the epoch."""
    told, gaps, gap = without_segment_before_epoch(good, tmp_path, planting.RESERVED)

    assert {"truncated-tail", "cut"} <= told
    assert not {"hole", "damaged-structure"} & told
    assert gaps == [gap]
