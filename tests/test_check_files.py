"""`pylog.check` of what stands beside the segments: indexes, log.meta, the control page, strays."""

import itertools
import os
import shutil
import threading
from pathlib import Path

import pytest
from planted import (
    flip,
    only,
    rewrite_meta,
    segments,
)

import pylog

# ---- damage to indexes ----------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".index", ".timeindex"])
def test_every_flipped_bit_of_an_index_is_told_at_its_entry(small, suffix):
    index = segments(small)[0].with_suffix(suffix)
    entry = {".index": 8, ".timeindex": 12}[suffix]
    data = index.read_bytes()
    assert len(data) >= 3 * entry

    for position in range(len(data)):
        flip(index, position, position % 8)
        findings = pylog.check(small).findings
        index.write_bytes(data)
        told = [f for f in findings if f.path == str(index)]
        assert told == findings, findings
        assert position // entry in {f.position // entry for f in told}, findings


@pytest.mark.parametrize("suffix", [".index", ".timeindex"])
@pytest.mark.parametrize("extra", [b"\x01", b"\xff" * 7])
def test_bytes_behind_the_last_index_entry_are_told(small, suffix, extra):
    index = segments(small)[0].with_suffix(suffix)
    size = index.stat().st_size
    with open(index, "ab") as file:
        file.write(extra)

    finding = only(pylog.check(small), "anomaly")

    assert (finding.path, finding.position) == (str(index), size)


def test_broken_index_may_be_deleted_as_the_finding_says(small):
    index = segments(small)[0].with_suffix(".index")
    flip(index, 3)
    advice = only(pylog.check(small), "anomaly").what
    index.unlink()

    assert "no record is lost by it: delete the file, the next writer makes it anew" in advice
    assert pylog.check(small).ok
    with pylog.Log(small, mode="r") as log:
        assert [record.offset for record in log.read()] == list(range(150))


@pytest.mark.parametrize("suffix", [".index", ".timeindex"])
def test_missing_index_is_noticed(small, suffix):
    index = segments(small)[0].with_suffix(suffix)
    index.unlink()

    assert only(pylog.check(small), "notice").path == str(index)


@pytest.mark.parametrize("suffix", [".index", ".timeindex"])
def test_shortened_index_is_noticed_where_it_ends(small, suffix):
    index = segments(small)[0].with_suffix(suffix)
    size = index.stat().st_size - {".index": 8, ".timeindex": 12}[suffix]
    os.truncate(index, size)

    finding = only(pylog.check(small), "notice")

    assert (finding.path, finding.position) == (str(index), size)


def test_index_of_another_segment_is_told(small):
    first, second = segments(small)[:2]
    shutil.copy(second.with_suffix(".index"), first.with_suffix(".index"))
    shutil.copy(second.with_suffix(".timeindex"), first.with_suffix(".timeindex"))

    paths = {f.path for f in pylog.check(small).findings if f.severity == "anomaly"}

    assert str(first.with_suffix(".timeindex")) in paths


def test_huge_foreign_index_is_told_without_reading_it(small):
    index = segments(small)[0].with_suffix(".index")
    os.truncate(index, 1 << 40)

    assert only(pylog.check(small), "anomaly").path == str(index)


def test_preallocated_index_of_a_live_kafka_is_only_noticed(small):
    index = segments(small)[0].with_suffix(".index")
    with open(index, "ab") as file:
        file.write(bytes(80))

    only(pylog.check(small), "notice")


# ---- damage to the small files --------------------------------------------------------------


def test_every_flipped_byte_of_log_meta_is_told(small, rng):
    meta = small / "log.meta"
    for interval in itertools.count(100):    # whose CRC begins with what a blank might stand for
        rewrite_meta(small, flush_interval_ms=interval)
        data = meta.read_bytes()
        if b"crc32c 0" in data:
            break
    assert pylog.check(small).ok
    for position in range(len(data)):
        is_in_crc = position >= data.index(b"crc32c")
        for bit in range(8) if is_in_crc else [rng.randrange(8)]:
            flip(meta, position, bit)
            findings = pylog.check(small).findings
            meta.write_bytes(data)
            assert str(meta) in {f.path for f in findings}, (position, bit, findings)


@pytest.mark.parametrize("values", [
    {"durability": 7}, {"segment_bytes": 1}, {"max_message_bytes": 1 << 40}, {"append_time": 2},
    {"flush_interval_ms": 1 << 40}, {"log_start": 1 << 50}, {"reserved_end": 10},
], ids=str)
def test_impossible_value_in_log_meta_is_told(small, values):
    rewrite_meta(small, **values)

    findings = pylog.check(small).findings

    assert str(small / "log.meta") in {f.path for f in findings}
    assert not pylog.check(small).ok


@pytest.mark.parametrize("end", [0, 149, 151, 10_000])
def test_clean_end_that_is_not_the_end_is_told(small, end):
    rewrite_meta(small, clean_end=end)

    report = pylog.check(small)

    assert not report.ok
    assert report.findings[0].path in (str(segments(small)[-1]), str(small / "log.meta"))


def test_missing_log_meta_is_an_anomaly_and_batches_are_still_proved(small):
    (small / "log.meta").unlink()

    report = pylog.check(small)

    assert only(report, "anomaly").path == str(small / "log.meta")
    assert report.records == 150


def test_checkpoint_that_is_not_log_meta_is_an_anomaly(small):
    checkpoint = small / "leader-epoch-checkpoint"
    checkpoint.write_text("0\n1\n4 0\n")

    finding = only(pylog.check(small), "anomaly")

    assert (finding.path, finding.position) == (str(checkpoint), 4)


@pytest.mark.parametrize("name", ["control", "doorbells", "lock"])
@pytest.mark.parametrize("size", [1, 100])
def test_shared_file_of_a_wrong_size_is_noticed(small, name, size):
    (small / name).write_bytes(b"x" * size)

    assert only(pylog.check(small), "notice").path == str(small / name)


@pytest.mark.parametrize("name", ["control", "doorbells", "lock", "leader-epoch-checkpoint"])
def test_missing_small_file_is_noticed(small, name):
    (small / name).unlink()

    assert only(pylog.check(small), "notice").path == str(small / name)


@pytest.mark.parametrize("position", [0, 7, 8, 11, 48, 55])
def test_control_page_of_another_log_or_layout_is_noticed(small, position):
    flip(small / "control", position)

    assert only(pylog.check(small), "notice").path == str(small / "control")


@pytest.mark.parametrize(("name", "severity"), [
    ("readme.txt", "notice"), ("12.log", "anomaly"), ("99999999999999999999.log", "anomaly"),
    ("00000000000000009999.index", "notice"), ("log.meta.tmp", "notice"),
])
def test_stray_file_is_told(small, name, severity):
    (small / name).write_bytes(b"stray")

    assert only(pylog.check(small), severity).path == str(small / name)


def test_files_that_kafka_adds_are_no_strays(small):
    (small / "partition.metadata").write_text("version: 0\n")
    (small / f"{50:020}.snapshot").write_bytes(b"x")

    assert pylog.check(small).findings == []


# ---- what is no log -------------------------------------------------------------------------


@pytest.mark.parametrize("make", [
    lambda path: None, lambda path: path.write_text("x"), lambda path: path.mkdir(),
], ids=["nothing", "a file", "an empty directory"])
def test_path_without_a_log_is_refused(tmp_path, make):
    path = tmp_path / "no log"
    make(path)

    with pytest.raises(pylog.UnsupportedFormatError, match="name the directory"):
        pylog.check(path)


def test_random_bytes_as_every_file_never_crash_the_check(small, rng):
    for path in small.iterdir():
        path.write_bytes(rng.randbytes(rng.randrange(20_000)))

    assert not pylog.check(small).ok


def test_two_checks_at_once_agree(healthy):
    reports = []
    threads = [threading.Thread(target=lambda: reports.append(pylog.check(Path(healthy))))
               for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [report.to_dict() for report in reports] == [pylog.check(healthy).to_dict()] * 4
