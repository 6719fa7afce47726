"""`pylog.check`: healthy logs of every shape report nothing; planted faults are told and placed.

Here batches and segments; indexes and the small files are in test_check_files.py.
"""

import json
import os
import signal
import struct
import subprocess
import sys
import time

import pytest
from children import killed
from faults import forget_boot
from planted import (
    HEADER,
    batches,
    flip,
    only,
    patch,
    rewrite_meta,
    segments,
)

import pylog
from pylog import _native
from pylog.walk import LAYOUT, Window

# ---- healthy --------------------------------------------------------------------------------


def assert_healthy(report, records=None):
    assert report.ok, report
    assert report.findings == [], report
    assert records is None or report.records == records
    total = report.bytes_verified + report.bytes_unverified
    assert total == sum(segment.size for segment in report.segments)


@pytest.mark.parametrize("options", [
    {}, {"segment_bytes": 4096}, {"segment_bytes": 5000, "index_interval_bytes": 0},
    {"timestamp_type": "append"}, {"durability": "fsync"}, {"max_message_bytes": 128},
], ids=str)
def test_closed_log_written_one_by_one_is_healthy(log_path, options):
    with pylog.Log(log_path, **options) as log:
        for i in range(300):
            log.append(b"%d" % i, key=b"k", timestamp=1_700_000_000_000 - i)

    report = pylog.check(log_path)

    assert_healthy(report, 300)
    assert (report.start_offset, report.end_offset) == (0, 300)
    assert report.bytes_unverified == 0


@pytest.mark.parametrize("compression", [None, "lz4"])
def test_log_written_by_every_way_in_is_healthy(log_path, compression):
    with pylog.Log(log_path, compression=compression, segment_bytes=4096) as log:
        for _ in range(5):
            log.append(b"one" * 10)
            log.append(None, key=b"tombstone", headers=[("a", b"1"), ("b", None)])
            log.append_many([b"many %d" % i for i in range(200)])
            log.append_many([b"atomic"] * 20, atomic=True)
            log.append_buffer(b"abcdef", [0, 1, 3, 6])
            log.append(b"", if_end=log.end_offset)
        log.flush()
        count = log.end_offset

        assert_healthy(log.check())

    assert_healthy(pylog.check(log_path), count)


def test_empty_log_is_healthy(log_path):
    with pylog.Log(log_path) as log:
        assert_healthy(log.check(), 0)

    assert_healthy(pylog.check(log_path), 0)


def test_log_deleted_up_to_the_middle_is_healthy(small):
    with pylog.Log(small) as log:
        log.delete_before(100)

    report = pylog.check(small)

    assert_healthy(report)
    assert report.start_offset == 100


@pytest.mark.parametrize("content", [b"", bytes(4096), b"no batch at all" * 50],
                         ids=["empty", "zeros", "rubbish"])
def test_deleted_segment_that_a_power_cut_brought_back_is_no_damage(small, content):
    names = sorted(path.name for path in small.glob("*.log"))
    with pylog.Log(small) as log:
        log.delete_before(int(names[2][:20]))
    (small / names[0]).write_bytes(content)
    (small / names[1]).write_bytes(content)

    report = pylog.check(small)

    assert report.ok, report
    assert any("in a deleted segment" in finding.what for finding in report.findings)


def test_log_reopened_and_rolled_again_is_healthy(small):
    for _ in range(3):
        with pylog.Log(small) as log:
            log.append_many([b"again"] * 150)

    assert_healthy(pylog.check(small), 600)


def test_open_batch_and_preallocated_tail_are_counted_as_not_verified(log_path):
    with pylog.Log(log_path) as log:
        log.append_many([b"sealed"] * 10)
        for _ in range(50):
            end = log.append(b"open")
            report = log.check()
            if report.records == end:    # else the housekeeper has sealed it before
                break

    assert_healthy(report, end)
    assert report.end_offset == end + 1
    assert len(report.unverified) == 2
    assert report.bytes_unverified > 0


def test_log_of_a_killed_process_is_healthy(log_path):
    writer = (
        "import os, sys, pylog\n"
        "log = pylog.Log(sys.argv[1], segment_bytes=8192)\n"
        "for i in range(500): log.append(b'%d' % i * 5)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    killed = subprocess.run([sys.executable, "-c", writer, log_path], check=False)

    report = pylog.check(log_path)

    assert killed.returncode == -signal.SIGKILL
    assert_healthy(report)
    assert report.end_offset == 500
    with pylog.Log(log_path) as log:
        assert_healthy(log.check())


def test_segment_that_is_trimmed_while_it_is_checked_is_as_large_as_what_was_seen(
        small, monkeypatch):
    first = segments(small)[0]
    size = os.path.getsize(first)
    os.truncate(first, size + 91)    # preallocated, and the log has gone on in the next
    open_window = Window.__init__

    def open_and_trim(window, path):
        open_window(window, path)
        if os.fspath(path) == os.fspath(first):
            assert window.size == size + 91
            os.truncate(first, size)

    monkeypatch.setattr(Window, "__init__", open_and_trim)
    assert_healthy(pylog.check(small))


def test_segments_of_which_a_listing_shows_the_second_alone_are_not_missing(log_path, monkeypatch):
    """Each time the directory is read two are added, and the first of them is not seen."""
    with pylog.Log(log_path) as log:
        log.append(b"first")
        listdir = os.listdir

        def torn(directory):
            before = listdir(directory)
            for _ in range(2):
                log.roll()
                log.append(b"another")
            return [*before, os.path.basename(segments(log_path)[-1])]

        monkeypatch.setattr(os, "listdir", torn)
        assert pylog.check(log_path).ok


def test_live_log_raises_no_false_alarm(log_path):
    writer = (
        "import sys, pylog\n"
        "log = pylog.Log(sys.argv[1], segment_bytes=65536)\n"
        "print('ready', flush=True)\n"
        "i = 0\n"
        "while True:\n"
        "    for _ in range(50): log.append(b'%d' % i * 20); i += 1\n"
        "    log.append_many([b'many'] * 50)\n"
        "    log.append_many([b'atomic' * 20] * 100, atomic=True)\n"
        "    if i % 5000 == 0: log.delete_before(log.end_offset - 100)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", writer, log_path], stdout=subprocess.PIPE)
    try:
        assert process.stdout.readline() == b"ready\n"
        with pylog.Log(log_path) as log:
            log.wait(1000, 10)
            deadline = time.monotonic() + 2
            checks = 0
            while time.monotonic() < deadline or checks < 4:
                for report in (log.check(), pylog.check(log_path)):
                    assert report.ok, str(report)
                    checks += 1
    finally:
        process.kill()
        process.communicate()

    assert pylog.check(log_path).ok


def test_check_reports_progress_up_to_the_whole(healthy):
    seen = []

    pylog.check(healthy, on_progress=lambda done, total: seen.append((done, total)))

    size = sum(segment.stat().st_size for segment in segments(healthy))
    assert seen[-1] == (size, size)


def test_check_changes_nothing(small):
    before = {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in small.iterdir()}
    os.chmod(small, 0o500)

    pylog.check(small)

    assert {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in small.iterdir()} == before
    os.chmod(small, 0o700)


# ---- the report -----------------------------------------------------------------------------


def test_report_is_plain_data_and_readable(small):
    flip(segments(small)[0], HEADER + 3)

    report = pylog.check(small)

    plain = json.loads(json.dumps(report.to_dict()))
    assert plain["ok"] is False
    assert plain["findings"][0]["path"] == str(segments(small)[0])
    assert plain["bytes_verified"] == report.bytes_verified
    assert "NOT ok" in repr(report)
    assert str(report.findings[0]) in str(report)
    assert f"{report.bytes_verified:,} bytes verified" in str(report)


def test_report_counts_one_in_the_singular(log_path):
    with pylog.Log(log_path) as log:
        log.append(b"x")

    assert "offsets [0, 1), 1 segment, 1 batch, 1 record\n" in str(pylog.check(log_path))


def test_records_below_the_start_are_told_apart(small):
    start = int(segments(small)[1].stem) + 4
    with pylog.Log(small) as log:
        log.delete_before(start)

    report = pylog.check(small)

    assert f"offsets [{start}, 150), 2 segments, " in str(report)
    assert f"batches, {150 - start} records\n" in str(report)
    assert "  4 more records below the start: deleted" in str(report)
    assert (report.records, report.records_below_start) == (154 - start, 4)


def test_worst_findings_come_first(small):
    (small / "readme.txt").write_text("stray")
    flip(segments(small)[0].with_suffix(".index"), 3)
    flip(segments(small)[-1], HEADER + 3)

    severities = [finding.severity for finding in pylog.check(small).findings]

    assert severities == ["damage", "anomaly", "notice"]


def test_findings_of_one_file_are_bounded(small):
    index = segments(small)[0].with_suffix(".index")
    index.write_bytes(b"\xff" * 4000)

    assert 100 <= len(pylog.check(small).findings) <= 102


# ---- damage to batches ----------------------------------------------------------------------


@pytest.mark.parametrize("field", sorted(LAYOUT, key=LAYOUT.get))
def test_flipped_field_of_a_batch_is_told_at_the_batch(small, field, rng):
    segment = segments(small)[1]
    position, batch = batches(segment)[2]
    flip(segment, position + LAYOUT[field], rng.randrange(8))

    finding = only(pylog.check(small))

    assert finding.path == str(segment)
    assert position <= finding.position < position + batch["size"]
    assert finding.offset == batch["base_offset"]


def test_damaged_batch_hides_no_other(small):
    segment = segments(small)[1]
    position, batch = batches(segment)[2]
    before = pylog.check(small)
    patch(segment, position, bytes(batch["size"]))

    report = pylog.check(small)

    assert only(report).position == position
    assert report.records == before.records - batch["records_count"]
    assert report.bytes_damaged == batch["size"]
    assert report.end_offset == before.end_offset


def test_two_damaged_batches_are_both_told(small):
    first, last = segments(small)[0], segments(small)[-1]
    places = [(first, batches(first)[0][0]), (first, batches(first)[4][0]),
              (last, batches(last)[0][0])]
    for segment, position in places:
        flip(segment, position + HEADER)

    report = pylog.check(small)

    assert [(f.path, f.position) for f in report.findings] == [(str(s), p) for s, p in places]


def test_batch_with_a_wrong_length_is_found_behind(small):
    segment = segments(small)[0]
    position, batch = batches(segment)[3]
    patch(segment, position + LAYOUT["batchLength"], struct.pack(">i", 1 << 28))

    report = pylog.check(small)

    assert only(report).position == position
    assert report.bytes_damaged == batch["size"]


def test_records_that_break_under_a_right_crc_are_told(log_path):
    with pylog.Log(log_path) as log:
        log.append_many([b"first"])
        log.append_many([b"second"])
    segment = segments(log_path)[0]
    position, _ = batches(segment)[1]
    data = bytearray(segment.read_bytes())
    data[position + HEADER] ^= 2    # the record's length
    crc = _native.crc32c(bytes(data[position + LAYOUT["attributes"] :]))
    struct.pack_into(">I", data, position + LAYOUT["crc"], crc)
    segment.write_bytes(data)

    finding = only(pylog.check(log_path))

    assert (finding.position, finding.offset) == (position, 1)
    assert "record" in finding.what


def test_removed_batch_is_a_gap(small):
    segment = segments(small)[0]
    data = segment.read_bytes()
    position, batch = batches(segment)[2]
    segment.write_bytes(data[:position] + data[position + batch["size"] :])
    for index in (segment.with_suffix(".index"), segment.with_suffix(".timeindex")):
        index.unlink()

    damage = [f for f in pylog.check(small).findings if f.severity == "damage"]

    assert [(f.path, f.position, f.offset) for f in damage] == [
        (str(segment), position, batch["base_offset"])]


def test_foreign_leader_epoch_is_told(small):
    segment = segments(small)[0]
    position, _ = batches(segment)[1]
    patch(segment, position + LAYOUT["partitionLeaderEpoch"], struct.pack(">i", 3))

    assert "leader epoch 3" in only(pylog.check(small)).what


def test_codec_that_we_cannot_read_is_not_verified_and_no_fault(log_path):
    batch = bytearray(_native.encode_batch([b"x" * 50], timestamps=[5]))
    batch[LAYOUT["attributes"] + 1] |= 2    # snappy
    crc = _native.crc32c(bytes(batch[LAYOUT["attributes"] :]))
    struct.pack_into(">I", batch, LAYOUT["crc"], crc)
    with pylog.Log(log_path) as log:
        log.append_many([b"plain"])
    segment = segments(log_path)[0]
    struct.pack_into(">q", batch, 0, 1)
    segment.write_bytes(segment.read_bytes() + batch)
    rewrite_meta(log_path, clean_end=2)

    report = pylog.check(log_path)

    assert report.ok
    assert report.records == 2
    assert report.bytes_unverified == len(batch) - HEADER


# ---- damage to segments ---------------------------------------------------------------------


@pytest.mark.parametrize("which", [0, 1, -1])
def test_cut_segment_is_told_where_it_ends(small, which):
    segment = segments(small)[which]
    position, batch = batches(segment)[-1]
    os.truncate(segment, position)

    damage = [f for f in pylog.check(small).findings if f.severity == "damage"]

    assert [(f.path, f.position, f.offset) for f in damage] == [
        (str(segment), position, batch["base_offset"])]


@pytest.mark.parametrize("is_whole_batch", [False, True])
def test_cut_last_segment_is_told_with_the_offsets_that_are_gone(small, is_whole_batch):
    last = segments(small)[-1]
    position, fields = batches(last)[-1]
    os.truncate(last, position + 10 * (not is_whole_batch))

    finding = next(one for one in pylog.check(small).findings if one.severity == "damage")

    first = fields["base_offset"]
    gone = "offset 149 is gone" if first == 149 else f"offsets {first} to 149 are gone"
    assert f"; {gone}: restore the file from a copy" in finding.what


def test_removed_last_segment_is_told_with_the_offsets_that_are_gone(small):
    *_, last = segments(small)
    os.remove(last)

    finding = next(one for one in pylog.check(small).findings if one.severity == "damage")

    assert "it was cut, or a segment behind it removed" in finding.what
    assert f"; offsets {int(last.stem)} to 149 are gone" in finding.what


def test_cut_segment_before_a_gap_claims_no_offsets(log_path):
    killed(lambda: [log := pylog.Log(log_path), log.append_many([b"old"] * 7), log.flush()])
    forget_boot(log_path)
    with pylog.Log(log_path) as log:
        log.append(b"new")
    os.truncate(segments(log_path)[0], 70)

    damage = [one for one in pylog.check(log_path).findings if one.severity == "damage"]

    assert len(damage) == 1
    assert "gone" not in damage[0].what


def test_log_cut_at_any_byte_is_told(small):
    last = segments(small)[-1]
    data, known = last.read_bytes(), batches(last)
    lengths = {*range(known[-2][0], len(data)), *range(0, len(data), 37)}
    for length in sorted(lengths, reverse=True):
        os.truncate(last, length)

        damage = pylog.check(small).findings[0]

        start = max(position for position, _ in known if position <= length)
        assert damage.severity == "damage"
        assert damage.path == str(last)
        assert damage.position in (start, length)


@pytest.mark.parametrize("which", [0, 1, -1])
def test_missing_segment_is_told(small, which):
    segment = segments(small)[which]
    segment.unlink()

    damage = [f for f in pylog.check(small).findings if f.severity == "damage"]

    assert len(damage) == 1
    assert damage[0].offset == int(segment.stem)


def test_log_without_any_segment_is_told(small):
    for segment in segments(small):
        segment.unlink()

    assert any("no segment" in f.what for f in pylog.check(small).findings)


def test_segment_with_another_base_in_its_name_is_told(small):
    segment = segments(small)[2]
    segment.rename(segment.with_name(f"{int(segment.stem) + 1:020}.log"))

    assert not pylog.check(small).ok


def test_bytes_behind_the_end_of_a_closed_log_are_told(small):
    last = segments(small)[-1]
    size = last.stat().st_size
    with open(last, "ab") as file:
        file.write(b"junk" * 100)

    finding = only(pylog.check(small), "anomaly")

    assert (finding.path, finding.position) == (str(last), size)


def test_zeros_behind_the_end_of_a_closed_log_are_noticed(small):
    last = segments(small)[-1]
    os.truncate(last, last.stat().st_size + 5000)

    only(pylog.check(small), "notice")


def test_records_missing_below_the_asked_end_are_told(healthy):
    assert pylog.check(healthy, end_offset=150).ok
    finding = only(pylog.check(healthy, end_offset=151))

    assert finding.path == str(segments(healthy)[-1])
    assert finding.offset == 150


def test_torn_tail_of_a_copy_is_an_anomaly(small):
    rewrite_meta(small, clean_end=-1)
    last = segments(small)[-1]
    position, batch = batches(last)[-1]
    os.truncate(last, position + batch["size"] - 5)

    finding = only(pylog.check(small), "anomaly")

    assert (finding.path, finding.position, finding.offset) == (
        str(last), position, batch["base_offset"])


def test_torn_tail_below_what_was_durable_is_damage(small):
    rewrite_meta(small, clean_end=-1, durable_end=150)
    last = segments(small)[-1]
    os.truncate(last, last.stat().st_size - 5)

    assert only(pylog.check(small)).path == str(last)


def test_gap_of_a_recovery_is_listed_and_no_fault(small):
    rewrite_meta(small, clean_end=-1)
    (small / "control").unlink()
    last = segments(small)[-1]
    os.truncate(last, last.stat().st_size - 5)
    with pylog.Log(small) as log:
        assert log.recovered.is_lossy
        cut, following = log.recovered.cut_offset, log.recovered.next_offset
        log.append(b"goes on")

    report = pylog.check(small)

    assert report.ok, report
    assert report.gaps == [(cut, following)]
    assert [f.severity for f in report.findings] == ["notice"]
    assert ".log.cut-" in report.findings[0].path


@pytest.mark.parametrize("make", [
    lambda path: path.mkdir(), lambda path: path.symlink_to("/etc/passwd"), os.mkfifo,
], ids=["directory", "link", "pipe"])
def test_segment_that_is_no_plain_file_is_told(small, make):
    segment = segments(small)[1]
    segment.unlink()
    make(segment)

    findings = pylog.check(small).findings

    assert [f.path for f in findings if f.severity == "damage"] == [str(segment)]


def test_segment_cut_to_nothing_while_it_is_read_is_told_and_no_crash(small, monkeypatch):
    last = segments(small)[-1]
    real = os.preadv

    def cut_and_read(fd, buffers, position):
        if os.readlink(f"/proc/self/fd/{fd}") == str(last):
            os.truncate(last, 10)
        return real(fd, buffers, position)

    monkeypatch.setattr(os, "preadv", cut_and_read)

    assert not pylog.check(small).ok


def test_unreadable_sector_is_told_and_no_crash(small, monkeypatch):
    segment = segments(small)[1]
    real = os.preadv

    def fail(fd, buffers, position):
        if os.readlink(f"/proc/self/fd/{fd}") == str(segment):
            raise OSError(5, "Input/output error")
        return real(fd, buffers, position)

    monkeypatch.setattr(os, "preadv", fail)

    finding = only(pylog.check(small))
    assert finding.path == str(segment)
    assert "Input/output error" in finding.what
