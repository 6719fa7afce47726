"""docs/format.md against the compiled code and against files: the page must not drift."""

import os
import re
import struct
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
from handmade import golden

import pylog
from pylog import _native

PAGE = (Path(__file__).parent.parent / "docs" / "format.md").read_text(encoding="utf-8")


def section(title):
    return re.search(rf"^## {re.escape(title)}$(.*?)(?=^## |\Z)", PAGE, re.M | re.S)[1]


def tables(title):
    """The tables of a section, each a list of rows, each a list of cells; heads left out."""
    for block in re.findall(r"(?:^\|.*\n)+", section(title), re.M):
        lines = block.splitlines()[2:]
        yield [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def names_in_table(title):
    return [row[0].strip("`") for row in next(tables(title))]


def test_batch_header_is_where_the_page_says():
    (header, _) = tables("A batch")
    layout = {row[2]: int(row[0]) for row in header}

    assert layout == _native.batch_layout()


def test_batch_header_fields_follow_one_another_without_a_gap():
    (header, _) = tables("A batch")
    sizes = {"int8": 1, "int16": 2, "uint16": 2, "int32": 4, "uint32": 4, "int64": 8}

    at = 0
    for position, size, name, kind, _ in header:
        assert int(position) == at, name
        if name != "records":
            assert int(size) == sizes[kind], name
            at += int(size)
    assert at == 61


def test_drawing_of_the_header_has_the_same_positions():
    drawn = {int(n) for line in section("A batch").split("\n\n")[1].splitlines()
             if re.fullmatch(r"[\s\d]+", line) for n in line.split()}

    assert drawn == set(_native.batch_layout().values())


def test_attribute_bits_are_the_decoders():
    (_, bits) = tables("A batch")
    codecs = dict(re.findall(r"(\d) (\w+)", bits[0][1]))

    assert codecs == {"0": "none"} | {
        str(number): name for number, name in pylog.compression.NAMES.items()}
    unused = next(row[0] for row in bits if row[1] == "zero")
    first, last = map(int, unused.split("-"))
    for bit in range(16):
        fields = _native.decode_batch(golden("a_")[:21] + (1 << bit).to_bytes(2, "big")
                                      + golden("a_")[23:])
        assert isinstance(fields, str) == (first <= bit <= last), bit


def test_annotated_record_is_the_golden_one():
    lines = re.findall(r"^    ((?:[0-9a-f]{2} ?)+)  +\w", section("A record"), re.M)

    assert bytes.fromhex("".join(lines)) == golden("a_")[61:]


def test_lz4_frame_is_the_one_drawn(log_path):
    magic, flags = re.search(r"lz4 +((?:[0-9a-f]{2} ){4})\| ((?:[0-9a-f]{2} ){3})\|",
                             section("Compression")).groups()
    with pylog.Log(log_path, compression="lz4") as log:
        log.append_many([b"again and again " * 20] * 9)
        (batch,) = log.batches(0)

        assert bytes(batch[61:68]) == bytes.fromhex(magic + flags)
        assert bytes(batch[-4:]) == bytes(4)


def test_every_file_of_a_log_is_on_the_page(log_path):
    patterns = [
        name.replace("<base>", "[0-9]" * 20).replace("<ms>", "[0-9]*").replace("<name>", "*")
        for name in names_in_table("The directory")
    ]
    log = pylog.Log(log_path, segment_bytes=4096)
    for _ in range(200):
        log.append(b"x" * 100)
    seen = set(os.listdir(log_path))
    log.close()
    seen |= set(os.listdir(log_path))
    last = max(log_path.glob("*.log"))
    last.write_bytes(last.read_bytes() + b"torn")
    (log_path / "control").unlink()
    text = re.sub(r"clean_end \d+", "clean_end -1", (log_path / "log.meta").read_text())
    body = text[:text.index("crc32c")]
    (log_path / "log.meta").write_text(f"{body}crc32c {_native.crc32c(body.encode()):08x}\n")
    with pylog.Log(log_path) as log:
        assert log.recovered.is_lossy
        log.append(b"x")
        seen |= set(os.listdir(log_path))

    matched = {name: [p for p in patterns if fnmatchcase(name, p)] for name in seen}
    assert {name for name, found in matched.items() if not found} == set()
    used = {pattern for found in matched.values() for pattern in found}
    assert set(patterns) - used <= {"*.tmp", "segment.prepared"}    # these come and go


def test_log_meta_has_the_lines_of_the_page_in_order(log_path):
    pylog.Log(log_path).close()
    text = (log_path / "log.meta").read_text()

    assert [line.split()[0] for line in text.splitlines()] == names_in_table("log.meta")
    body, crc = text.split("crc32c ")
    assert int(crc, 16) == _native.crc32c(body.encode())


def test_leader_epoch_checkpoint_is_kafkas(log_path):
    pylog.Log(log_path).close()

    assert (log_path / "leader-epoch-checkpoint").read_text() == "0\n1\n0 0\n"


def test_control_page_begins_with_the_identity_on_the_page(log_path):
    rows = next(tables("control: what the processes share"))
    at = {name: int(position) for position, _, name, _ in rows}
    with pylog.Log(log_path):
        page = (log_path / "control").read_bytes()
        info = (log_path / "control").stat()
    meta = _native.load_meta(os.fsencode(log_path))

    def word(name):
        return struct.unpack_from("=Q", page, at[name])[0]

    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip().replace("-", "")
    assert len(page) == 8192
    assert page[at["magic"]:at["magic"] + 8] == b"1lyp-gol"
    assert struct.unpack_from("=I", page, at["layout"])[0] == 7
    assert page[at["bootId"]:at["bootId"] + 16].hex() == boot
    assert (word("device"), word("inode")) == (info.st_dev, info.st_ino)
    assert word("incarnation") == meta["incarnation"]
    assert word("pidNamespace") == os.stat("/proc/self/ns/pid").st_ino


def entries(path, layout):
    return list(struct.iter_unpack(layout, path.read_bytes()))


@pytest.mark.parametrize("interval", [0, 500, 4096])
def test_index_entries_follow_the_rule_of_the_page(log_path, interval, rng):
    times = [1000 + rng.randrange(10_000) for _ in range(3000)]
    with pylog.Log(log_path, segment_bytes=1 << 16, index_interval_bytes=interval) as log:
        for at in range(0, 3000, 10):
            log.append_many([bytes(rng.randrange(200)) for _ in range(10)],
                            timestamps=times[at:at + 10])
        batches = [_native.decode_batch(batch) for batch in log.batches(0)]

    bases = sorted(int(path.stem) for path in log_path.glob("*.log"))
    for base, following in zip(bases, [*bases[1:], 1 << 62], strict=True):
        offsets, stamps = index_by_the_rule(
            [b for b in batches if base <= b["base_offset"] < following], base, interval)
        assert entries(log_path / f"{base:020}.index", ">ii") == offsets
        assert entries(log_path / f"{base:020}.timeindex", ">qi") == stamps
    assert len(bases) > 2


def index_by_the_rule(batches, base, interval):
    offsets, stamps, position, since, greatest = [], [], 0, 0, (-1, 0)

    def add_stamp():
        if not stamps or greatest[0] > stamps[-1][0]:
            stamps.append(greatest)

    for batch in batches:
        last = batch["last_offset"] - base
        if batch["max_timestamp"] > greatest[0]:
            greatest = (batch["max_timestamp"], last)
        if since > interval:
            offsets.append((last, position))
            add_stamp()
            since = 0
        since += batch["size"]
        position += batch["size"]
    add_stamp()
    return offsets, stamps


@pytest.fixture
def timed(log_path):
    """A closed log of one segment whose record at offset i has the time 1,000 + i."""
    with pylog.Log(log_path, index_interval_bytes=500) as log:
        for at in range(0, 400, 4):
            log.append_many([bytes(100)] * 4, timestamps=[1000 + at + i for i in range(4)])
    return log_path


def test_every_flip_in_an_index_changes_no_answer(timed):
    for suffix in (".index", ".timeindex"):
        path = timed / f"{0:020}{suffix}"
        whole = path.read_bytes()
        assert len(whole) > 100
        for at in range(len(whole)):
            path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1:])
            with pylog.Log(timed, mode="r") as log:
                entry = at // (8 if suffix == ".index" else 12)
                for wanted in {0, min(entry * 4, 399), min(entry * 4 + 7, 399), 399}:
                    assert log.get(wanted).offset == wanted
                    assert log.offset_for_time(1000 + wanted) == wanted
        path.write_bytes(whole)


@pytest.mark.parametrize("suffix", [".index", ".timeindex"])
@pytest.mark.parametrize("harm", [
    lambda data: b"", lambda data: data[:-5], lambda data: data + bytes(24),
    lambda data: data[::-1], lambda data: bytes(len(data)), lambda data: b"\xff" * len(data),
    lambda data: data * 50,
], ids=["empty", "cut", "padded", "reversed", "zero", "ones", "repeated"])
def test_foreign_index_changes_no_answer(timed, suffix, harm):
    path = timed / f"{0:020}{suffix}"
    path.write_bytes(harm(path.read_bytes()))

    with pylog.Log(timed, mode="r") as log:
        for offset in range(0, 400, 13):
            assert log.get(offset).offset == offset
            assert log.offset_for_time(1000 + offset) == offset
        assert log.offset_for_time(1400) is None


def line_changed(name, value):
    return lambda lines: [f"{name} {value}" if line.split()[0] == name else line for line in lines]


@pytest.mark.parametrize("harm", [
    *[lambda lines, at=at: lines[:at] + lines[at + 1:] for at in range(1, 15)],
    lambda lines: lines[:4] + lines[3:],
    lambda lines: [lines[0], *lines[2:4], lines[1], *lines[4:]],
    lambda lines: [*lines, "epoch 0 0"],
    lambda lines: [*lines, "epoch 1 0"],
    lambda lines: [*lines, "epoch 2 5", "epoch 1 9"],
    lambda lines: [*lines, "epoch 1"],
    lambda lines: [*lines, "epoch 4294967296 7"],
    lambda lines: [*lines, "epoch 1 7 "],
    lambda lines: [*lines, "something 1"],
    line_changed("segment_bytes", "8192x"),
    line_changed("segment_bytes", "99999999999999999999"),
    line_changed("log_start", "-1"),
    line_changed("clean_end", "-2"),
    line_changed("clean_boot", "12"),
    line_changed("clean_boot", "-" * 32),
    line_changed("incarnation", "0x1"),
    line_changed("durability", "3"),
    line_changed("segment_bytes", "1"),
])
@pytest.mark.parametrize("mode", ["a", "r"])
def test_log_meta_with_a_right_crc_and_wrong_lines_is_refused(log_path, harm, mode):
    pylog.Log(log_path).close()
    lines = (log_path / "log.meta").read_text().splitlines()[:-1]
    body = "\n".join(harm(lines)) + "\n"
    text = f"{body}crc32c {_native.crc32c(body.encode()):08x}\n"
    (log_path / "log.meta").write_text(text)

    with pytest.raises((pylog.errors.CorruptRecordError, pylog.errors.ConfigurationError)):
        pylog.Log(log_path, mode=mode)
    assert (log_path / "log.meta").read_text() == text


# ---- the stamp and the ledger -------------------------------------------------------------------


def check_places(rows, layout, sizes):
    """The rows stand where the code has them, and follow one another with no overlap."""
    assert {row[2]: int(row[0]) for row in rows} == layout
    end = 0
    for row in rows:
        assert int(row[0]) >= end, row
        if row[1].isdigit():
            end = int(row[0]) + int(row[1])
            assert len(row) == 4 or int(row[1]) == sizes[row[3]], row


def test_stamp_is_where_the_page_says():
    (fields, _) = tables("The stamp")

    check_places(fields, _native.stamp_layout(), {"uint16": 2, "uint32": 4, "uint64": 8})
    assert int(fields[-1][0]) == _native.STAMP_BYTES
    assert sum(int(row[1]) for row in fields[:-1]) == _native.STAMP_BYTES, "a gap"


def test_drawing_of_the_stamp_has_the_same_positions():
    (drawn,) = (line for line in section("The stamp").splitlines()
                if re.fullmatch(r"[\s\d]{9,}", line))

    assert {int(n) for n in drawn.split()} == set(_native.stamp_layout().values())


def golden_stamp():
    """The annotated bytes of the page."""
    lines = re.findall(r"^    ((?:[0-9a-f]{2} )+) +\w", section("The stamp"), re.M)
    return bytes.fromhex("".join(lines))


def test_annotated_stamp_is_read_as_the_page_says():
    assert _native.read_stamp(b"any key", golden_stamp()) == {
        "run": 1, "producer": 2, "incarnation": 3, "flags": 0, "sequence": 4,
        "transaction": 0, "index": 0, "count": 0, "sent_ns": 5}


def test_annotated_stamp_is_the_one_that_is_written():
    (value,), _ = _native.stamp_values(1, 2, 3, 4, [50])
    golden = golden_stamp()

    assert len(golden) == 50
    assert value[:4] + value[8:40] + value[48:] == golden[:4] + golden[8:40] + golden[48:]


def test_filler_is_the_generator_of_the_page():
    (value,), _ = _native.stamp_values(1, 7, 1, 99, [48 + 20])
    state, words = 7 << 40 ^ 99, b""
    for _ in range(3):
        state = (state + 0x9E3779B97F4A7C15) % 2**64
        word = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        word = (word ^ word >> 27) * 0x94D049BB133111EB % 2**64
        words += (word ^ word >> 31).to_bytes(8, "little")

    assert value[48:] == words[:20]


def test_flag_bits_of_the_page_are_the_ones_that_are_set():
    (_, bits) = tables("The stamp")
    null_bit = next(int(row[0]) for row in bits if "null" in row[1])
    _, (key,) = _native.stamp_values(1, 2, 3, 4, [-1], flags=3)

    assert _native.read_stamp(key, None)["flags"] == 1 << null_bit | 3


def test_tables_are_where_the_page_says():
    _, header, slot, entry = tables("A data directory")
    for fields, layout in zip((header, slot, entry), _native.table_layout(), strict=True):
        check_places(fields, layout, {})


def test_ledger_is_where_the_page_says(tmp_path):
    (fields,) = tables("A ledger")

    check_places(fields, _native.ledger_layout(), {})
    said = " ".join(section("A ledger").split())
    assert f"{_native.LEDGER_BYTES:,} bytes" in said
    assert f"at most {_native.LEDGER_BYTES_MAX:,}." in said
    assert f"{_native.LEDGER_SPANS:,} of them" in fields[-1][3]


def test_ledger_file_holds_what_the_page_says(tmp_path):
    at = {row[2]: int(row[0]) for row in next(tables("A ledger"))}
    ledger = _native.Ledger(tmp_path / "ledger", 77, 5)
    ledger.enter()
    for is_failed in (True, False):
        ledger.begin(10)
        ledger.acknowledge()
        ledger.begin(3)
        ledger.doubt(is_failed)
    ledger.begin(1)
    ledger.note(11, 12, 13)
    data = (tmp_path / "ledger").read_bytes()

    def word(name, kind="Q", behind=0):
        return struct.unpack_from(f"={kind}", data, at[name] + behind)[0]

    assert len(data) == _native.LEDGER_BYTES
    assert data[:8] == b"plLEDGER"
    assert (word("layout", "I"), word("producer", "I"), word("run")) == (1, 5, 77)
    assert (word("incarnation", "I"), word("pid", "I")) == (1, os.getpid())
    assert (word("sent"), word("settled")) == (27, 26)
    assert (word("next"), word("records"), word("rounds")) == (11, 12, 13)
    assert word("spanCount", "I") == 2
    assert struct.unpack_from("=6Q", data, at["spans"]) == (10, 13, 1, 23, 26, 2)
