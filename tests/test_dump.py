"""`pylog dump`: what the bytes of a log's files say, whoever wrote them."""

import json
import os
import struct

import pytest
from children import killed
from faults import forget_boot
from handmade import NOW, golden, make_batch, make_record, with_crc
from planted import HEADER, batches, flip, patch, segments
from shell import lines, run

import pylog
from pylog.exits import Exit

CREATED_BY_PRODUCER = 0x10 | 0x20    # transactional and control
ZSTD = 4


def items(*arguments, ends=Exit.FINE):
    """What `pylog dump --json` printed."""
    result = run("dump", "--json", *arguments)
    assert result.exit_code == ends, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def of_kind(kind, found):
    return [item for item in found if item["kind"] == kind]


def only_item(kind, found):
    (item,) = of_kind(kind, found)
    return item


@pytest.fixture
def segment(tmp_path):
    """Where a segment file made by hand may be put."""
    return tmp_path / f"{0:020}.log"


# ---- whole files --------------------------------------------------------------------------------


def test_every_batch_is_shown_where_it_lies(small):
    found = of_kind("batch", items(small))

    assert [(one["file"], one["position"], one["size"], one["base_offset"], one["records"])
            for one in found] == [
        (path.name, position, fields["size"], fields["base_offset"], fields["records_count"])
        for path in segments(small) for position, fields in batches(path)]
    assert all(one["codec"] == "none" and one["is_readable"] for one in found)
    assert (found[0]["base_timestamp"], found[0]["timestamp_type"]) == (NOW, "create")


def test_every_index_entry_is_shown_with_absolute_offsets(small):
    found = items(small)

    for suffix, kind, form in (".index", "offset", ">ii"), (".timeindex", "time", ">qi"):
        for path in small.glob(f"*{suffix}"):
            base = int(path.stem)
            entries = [one for one in of_kind(kind, found) if one["file"] == path.name]
            stored = [struct.unpack(form, path.read_bytes()[at:at + struct.calcsize(form)])
                      for at in range(0, path.stat().st_size, struct.calcsize(form))]
            if kind == "offset":
                told = [(one["offset"] - base, one["batch_position"]) for one in entries]
            else:
                told = [(one["timestamp"], one["offset"] - base) for one in entries]
            assert told == stored
            assert [one["position"] for one in entries] == [
                number * struct.calcsize(form) for number in range(len(stored))]
    assert of_kind("offset", found)
    assert of_kind("time", found)


def test_files_come_in_order_each_segment_before_its_indexes(small):
    names = [one["file"] for one in of_kind("file", items(small))]

    expected = [path.with_suffix(suffix).name for path in segments(small)
                for suffix in (".log", ".index", ".timeindex")]
    assert names == [name for name in expected if (small / name).exists()]


def test_records_are_shown_behind_their_batch(small):
    found = items(small, "--records")

    records = [one["record"] for one in of_kind("record", found)]
    assert records == [json.loads(line) for line in lines("read", small, "--json")]
    counted = 0
    for item in found:
        if item["kind"] == "batch":
            assert item["base_offset"] == counted
        counted += item["kind"] == "record"


def test_text_tells_what_json_does(small):
    text = run("dump", small, "--records").stdout

    assert len(text.splitlines()) == len(items(small, "--records"))
    for one in of_kind("batch", items(small)):
        first, last = one["base_offset"], one["last_offset"]
        assert f"byte {one['position']}: offsets {first} to {last}" in text
        assert f"crc {one['crc']}" in text
    assert '{"offset": 0, "timestamp": 1700000000000' in text
    assert "2023-11-14T22:13:20.000Z" in text


@pytest.mark.parametrize("suffix", [".log", ".index", ".timeindex"])
def test_one_file_may_be_named(small, suffix):
    path = segments(small)[1].with_suffix(suffix)

    assert items(path) == [one for one in items(small) if one["file"] == path.name]


def test_empty_log_has_an_empty_segment(log_path):
    pylog.Log(log_path).close()

    assert only_item("file", items(log_path / f"{0:020}.log"))["size"] == 0
    assert of_kind("batch", items(log_path)) == []


def test_codec_producer_and_kind_of_a_batch_are_told(segment):
    payload = make_record(key=None)
    segment.write_bytes(
        golden("d_lz4") + make_batch(payload, base_offset=100, attributes=CREATED_BY_PRODUCER,
                                     producer=(7, 2, 30)))

    lz4, produced = of_kind("batch", items(segment))
    text = run("dump", segment).stdout

    assert (lz4["codec"], lz4["producer_id"]) == ("lz4", -1)
    assert (produced["producer_id"], produced["producer_epoch"], produced["base_sequence"]) == (
        7, 2, 30)
    assert produced["is_transactional"]
    assert produced["is_control"]
    assert ", lz4" in text
    assert "producer 7 epoch 2 sequence 30, transactional, control" in text


def test_batch_of_an_unreadable_codec_is_shown_without_its_records(segment):
    segment.write_bytes(make_batch(b"zstandard", attributes=ZSTD)
                        + make_batch(make_record(), base_offset=1))

    found = items(segment, "--records")

    unreadable, readable = of_kind("batch", found)
    assert (unreadable["codec"], unreadable["is_readable"]) == ("zstd", False)
    assert readable["is_readable"]
    assert len(of_kind("record", found)) == 1
    assert "zstd (not readable by this version)" in run("dump", segment).stdout


def test_time_that_no_calendar_has_is_shown_as_a_number(segment):
    far = 1 << 62
    segment.write_bytes(make_batch(make_record(), base_timestamp=far, max_timestamp=far))

    assert str(far) in run("dump", segment).stdout


# ---- unfinished ones ----------------------------------------------------------------------------


def test_open_batch_of_a_live_log_is_a_tail_and_no_damage(log_path):
    with pylog.Log(log_path) as log:
        for _ in range(10):    # the housekeeper seals what nobody has added to for 100 ms
            log.append_many([b"sealed"] * 3)
            log.append(b"open")
            log.append(b"open too")

            found = items(log_path)
            if "records" in only_item("tail", found):
                break

    assert of_kind("batch", found)[-1]["records"] == 3
    assert only_item("tail", found)["records"] == 2


def test_preallocated_bytes_are_a_tail(log_path):
    with pylog.Log(log_path) as log:
        log.append_many([b"sealed"] * 3)

        tail = only_item("tail", items(log_path))

    assert "zero" in tail["what"]
    assert tail["position"] + tail["size"] > 1 << 20


def test_log_of_a_killed_process_has_a_tail_and_no_damage(log_path):
    killed(lambda: [log := pylog.Log(log_path), [log.append(b"%d" % i) for i in range(1200)]])

    found = items(log_path)

    assert sum(one["records"] for one in of_kind("batch", found) + of_kind("tail", found)) == 1200


def test_preallocated_index_of_a_live_kafka_is_a_tail(tmp_path):
    index, times = tmp_path / f"{50:020}.index", tmp_path / f"{50:020}.timeindex"
    index.write_bytes(struct.pack(">ii", 9, 4200) + bytes(8 * 1000))
    times.write_bytes(struct.pack(">qi", NOW, 0) + bytes(12 * 1000))

    for path, kind in (index, "offset"), (times, "time"):
        found = items(path)

        assert [one["kind"] for one in found] == ["file", kind, "tail"]
        assert found[2]["size"] == path.stat().st_size - found[2]["position"]
    assert only_item("offset", items(index))["offset"] == 59
    assert only_item("time", items(times))["offset"] == 50


# ---- damaged ones -------------------------------------------------------------------------------


def test_damage_is_shown_where_it_is_and_what_follows_too(small):
    whole = items(small)
    path = segments(small)[0]
    (position, fields) = batches(path)[1]
    flip(path, position + HEADER + 2)

    found = items(small, "--records", ends=Exit.DAMAGE)

    damage = only_item("damage", found)
    assert (damage["file"], damage["position"], damage["size"]) == (
        path.name, position, fields["size"])
    assert "CRC" in damage["what"]
    assert len(of_kind("batch", found)) == len(of_kind("batch", whole)) - 1
    assert f"byte {position}: {fields['size']} bytes damage" in run("dump", small).stdout


@pytest.mark.parametrize("cut", [1, 60, HEADER])
def test_batch_that_is_cut_off_is_damage(small, cut):
    path = segments(small)[-1]
    (position, fields) = batches(path)[-1]
    os.truncate(path, position + fields["size"] - cut)

    damage = only_item("damage", items(path, ends=Exit.DAMAGE))

    assert damage["position"] == position
    assert "no whole batch follows" in damage["what"]


def test_length_turned_to_zero_between_batches_is_damage(small):
    path = segments(small)[0]
    (position, _) = batches(path)[1]
    patch(path, position + 8, bytes(4))

    assert only_item("damage", items(path, ends=Exit.DAMAGE))["position"] == position


def test_entry_that_is_cut_off_is_damage(small):
    path = next(path for path in small.glob("*.index") if path.stat().st_size)
    os.truncate(path, path.stat().st_size - 3)

    damage = only_item("damage", items(small, ends=Exit.DAMAGE))

    assert (damage["file"], damage["size"]) == (path.name, 5)


def test_hostile_bytes_are_damage_and_nothing_worse(segment, rng):
    record = make_record()
    for data in (
        rng.randbytes(100_000), b"\xff" * 5000, b"\x7f" * 61, b"no log", bytes(60) + b"\1",
        make_batch(record, magic=1), make_batch(record, crc=0), make_batch(record, length=1 << 30),
        make_batch(record, length=-5), make_batch(record, count=-1),
        make_batch(make_record(size=1 << 20)), make_batch(make_record(header_count=1 << 30)),
        with_crc(golden("d_lz4")[:HEADER] + b"\xff" * (len(golden("d_lz4")) - HEADER)),
    ):
        segment.write_bytes(data)

        found = items(segment, "--records", ends=Exit.DAMAGE)

        assert of_kind("damage", found), data[:40]


def test_bytes_that_a_recovery_set_aside_can_be_looked_at(log_path):
    killed(lambda: [log := pylog.Log(log_path), log.append_many([b"a"]), log.append_many([b"b"]),
                    log.append_many([b"c"])])
    flip(segments(log_path)[0], 69 + HEADER)    # each batch has 69 bytes
    os.remove(log_path / "control")
    pylog.Log(log_path).close()
    (aside,) = log_path.glob("*.cut-*")

    found = items(aside, "--records", ends=Exit.DAMAGE)

    assert only_item("damage", found)
    assert only_item("record", found)["record"]["value"] == "c"


@pytest.mark.parametrize("count", [0, 3])
def test_open_batch_that_a_recovery_set_aside_is_shown_with_its_records(log_path, count):
    def live():
        log = pylog.Log(log_path)
        if count:
            log.append_many([b"sealed"] * count)
        log.flush()
        for number in range(5):
            log.append(b"open %d" % number, key=b"k", headers=[("h", b"v")],
                       timestamp=NOW + number % 3)
        return log

    killed(live)
    seen = lines("read", log_path, "--json", "--from", str(count))
    forget_boot(log_path)
    pylog.Log(log_path).close()
    (aside,) = log_path.glob("*.cut-*")

    found = items(aside, "--records")

    tail = only_item("tail", found)
    assert tail["records"] == 5
    assert "open batch of 5 records, not sealed and without a CRC" in tail["what"]
    assert [one["record"] for one in of_kind("record", found)] == [json.loads(x) for x in seen]
    assert "open batch of 5 records" in run("dump", aside).stdout


def test_open_batch_that_does_not_parse_is_damage(log_path):
    killed(lambda: [log := pylog.Log(log_path), log.append(b"x", key=b"k")])
    (segment,) = segments(log_path)
    patch(segment, HEADER + 4, b"\x7f")    # the length of the key

    found = items(segment, "--records", ends=Exit.DAMAGE)

    assert only_item("tail", found)["records"] == 1
    assert "do not parse" in only_item("damage", found)["what"]
    assert of_kind("record", found) == []


@pytest.mark.parametrize("name", [
    "log.meta", "control", "readme", "0.log", f"{0:020}.txt", f"{0:020}.log.old", f"{0:019}.log",
])
def test_file_of_another_kind_is_refused(small, name):
    (small / name).touch()

    result = run("dump", small / name)

    assert result.exit_code == Exit.FAILED
    assert "is named like no file of batches" in result.stderr
    assert result.stdout == ""


def test_link_and_pipe_are_refused(tmp_path, small):
    os.symlink(segments(small)[0], tmp_path / f"{1:020}.log")
    os.mkfifo(tmp_path / f"{2:020}.log")

    for number in (1, 2):
        result = run("dump", tmp_path / f"{number:020}.log")

        assert result.exit_code == Exit.FAILED
        assert result.stderr.startswith("Error: ")


def test_check_that_meets_an_unreadable_codec_is_inconclusive(small):
    path = segments(small)[0]
    (position, fields) = batches(path)[1]
    batch = bytearray(path.read_bytes()[position:position + fields["size"]])
    batch[22] |= ZSTD
    patch(path, position, with_crc(bytes(batch)))

    result = run("check", small)

    assert result.exit_code == Exit.INCONCLUSIVE, result.output
    assert "cannot read" in result.stdout
