"""Batches: what is written byte for byte, and what hostile ones come to.

Whatever bytes stand in a batch, there are two ends: exactly the records that the format's text
gives, or an error with a name. Both decoders are asked: the one for foreign bytes, and a log whose
segment file was replaced, with the CRC made right.
"""

import pytest
from handmade import (
    APPEND_TIME,
    CONTROL,
    NOW,
    TRANSACTIONAL,
    Bad,
    Plain,
    golden,
    make_batch,
    make_record,
    plain,
    read_batch,
    varint,
    with_crc,
)
from hypothesis import given
from hypothesis import strategies as st

import pylog
from pylog import _native
from pylog.errors import CorruptRecordError, UnsupportedCodecError

INT32_MAX, INT64_MIN = 2**31 - 1, -(2**63)
LAST_VALUE = b"the good batch behind"


def decode(batch):
    return [plain(record) for record in _native.decode_records(batch)]


# ---- golden bytes ------------------------------------------------------------------------------


def test_one_record_is_encoded_as_kafka_does():
    assert _native.encode_batch([b"v"], [b"k"], None, [NOW]) == golden("a_")


def test_nulls_and_headers_are_encoded_as_kafka_does():
    batch = _native.encode_batch([b"", None], [None, b"key"], [None, [("h", b"x"), ("n", None)]],
                                 [NOW, NOW + 5])

    assert batch == golden("b_")
    assert decode(batch) == [
        Plain(0, NOW, None, b"", ()),
        Plain(1, NOW + 5, b"key", None, (("h", b"x"), ("n", None))),
    ]


def test_producers_batch_is_encoded_as_kafka_does():
    batch = _native.encode_batch([b"1", b"2"], [b"a", b"b"], None, [NOW, NOW + 1],
                                 producer_id=4000, producer_epoch=1, base_sequence=7)

    assert batch == golden("c_")


def test_lz4_batch_of_another_client_is_decoded():
    fields = _native.decode_batch(golden("d_"))

    assert fields["codec"] == 3
    assert fields["crc_ok"]
    assert fields["records_error"] is None
    assert decode(golden("d_")) == [Plain(0, NOW, b"k", b"v" * 64)]


def test_commit_marker_is_encoded_as_kafka_does():
    batch = _native.encode_batch(
        [bytes(6)], [b"\0\0\0\1"], None, [NOW], base_offset=10, producer_id=4000,
        producer_epoch=1, attributes=TRANSACTIONAL | CONTROL)

    assert batch == golden("e_")
    assert decode(batch) == [Plain(10, NOW, b"\0\0\0\1", bytes(6))]


@pytest.mark.parametrize("name", ["a_", "b_", "c_", "d_", "e_"])
def test_every_bit_of_a_golden_batch_is_under_the_crc_or_read_as_it_stands(name):
    batch = golden(name)

    for bit in range(17 * 8, len(batch) * 8):
        flipped = bytearray(batch)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(CorruptRecordError):
            _native.decode_records(flipped)


@pytest.mark.parametrize(("data", "crc"), [
    (b"", 0), (b"123456789", 0xE3069283), (bytes(32), 0x8A9136AA), (b"\xff" * 32, 0x62A8AB43),
    (bytes(range(32)), 0x46DD794E), (bytes(range(31, -1, -1)), 0x113FDB5C),
])
def test_crc_is_castagnolis_of_rfc_3720(data, crc):
    assert _native.crc32c(data) == crc


def test_append_time_is_the_headers_greatest():
    batch = make_batch(make_record(timestamp_delta=-5), attributes=APPEND_TIME, max_timestamp=77)

    (record,) = _native.decode_records(batch)
    assert (record.timestamp, record.timestamp_type) == (77, 1)


@pytest.mark.parametrize("time", [-1, -2, INT64_MIN + 1])
def test_negative_append_time_is_not_taken_for_the_records_own(time):
    batch = make_batch(make_record(timestamp_delta=9), attributes=APPEND_TIME, max_timestamp=time)

    assert decode(batch)[0].timestamp == time


def test_batch_emptied_by_compaction_has_no_records():
    batch = make_batch(b"", count=0, last_delta=4)

    assert _native.decode_batch(batch)["last_offset"] == 4
    assert decode(batch) == []


def test_offsets_missing_after_compaction_are_no_error():
    batch = make_batch(make_record(offset_delta=1) + make_record(offset_delta=6), count=2,
                       last_delta=8, base_offset=100)

    assert [record.offset for record in decode(batch)] == [101, 106]


texts = st.text(max_size=8)
datas = st.none() | st.binary(max_size=40)


@given(st.lists(st.tuples(datas, datas, st.lists(st.tuples(texts, datas), max_size=3),
                          st.integers(0, 2**45)), min_size=1, max_size=9),
       st.integers(0, 2**62), st.integers(0, INT32_MAX))
def test_what_is_encoded_is_what_the_format_says(records, base_offset, epoch):
    values, keys, headers, times = map(list, zip(*records, strict=True))

    batch = _native.encode_batch(values, keys, headers, times, base_offset, epoch)

    wanted = [Plain(base_offset + i, time, key, value, tuple(head))
              for i, (value, key, head, time) in enumerate(records)]
    assert read_batch(batch) == wanted
    assert decode(batch) == wanted
    assert with_crc(batch) == batch
    assert {record.leader_epoch for record in _native.decode_records(batch)} == {epoch}


@pytest.mark.parametrize("around", [0, 64, 8192, 1 << 20])
@pytest.mark.parametrize("extra", [(None, 0), (b"key", 1 << 40), (b"k" * 70, 7)], ids=str)
def test_records_about_the_borders_of_their_length_are_encoded_exactly(around, extra):
    """A length of one, two, three and four bytes: a body that is moved for it must stay whole."""
    key, delta = extra
    span = 130 if around < 1 << 20 else 12
    for size in range(max(0, around - span), around + 20):
        value = b"0123456789abcdef" * (size // 16) + b"#" * (size % 16)

        batch = _native.encode_batch([b"", value], [key, key], None, [NOW, NOW + delta])

        assert batch[61:] == make_record(b"", key) + make_record(
            value, key, offset_delta=1, timestamp_delta=delta), size


def test_batch_of_nothing_is_refused():
    with pytest.raises(pylog.errors.ConfigurationError):
        _native.encode_batch([])


# ---- hostile headers ---------------------------------------------------------------------------

GOOD = make_record()


@pytest.mark.parametrize(("batch", "why"), [
    (b"", "fewer bytes"),
    (golden("a_")[:60], "fewer bytes"),
    (golden("a_")[:61], "past the end"),
    (golden("a_")[:-1], "past the end"),
    (make_batch(GOOD, magic=1), "magic"),
    (make_batch(GOOD, magic=-1), "magic"),
    (make_batch(GOOD, length=0), "too small"),
    (make_batch(GOOD, length=48), "too small"),
    (make_batch(GOOD, length=-1), "too small"),
    (make_batch(GOOD, length=-(2**31)), "too small"),
    (make_batch(GOOD, length=INT32_MAX), "past the end"),
    (make_batch(GOOD, length=len(GOOD) + 50), "past the end"),
    (make_batch(GOOD, base_offset=-1), "base offset"),
    (make_batch(GOOD, base_offset=INT64_MIN), "base offset"),
    (make_batch(GOOD, base_offset=2**63 - 1, count=2), "last offset"),
    (make_batch(GOOD, base_offset=2**63 - 1), "last offset"),
    (make_batch(GOOD, last_delta=-1), "last offset"),
    (make_batch(GOOD, last_delta=-(2**31)), "last offset"),
    (make_batch(GOOD, count=-1, last_delta=0), "record count"),
    (make_batch(GOOD, count=2, last_delta=0), "more records"),
    (make_batch(GOOD, count=INT32_MAX, last_delta=5), "more records"),
    (make_batch(GOOD, attributes=0x80), "unused"),
    (make_batch(GOOD, attributes=0x8000), "unused"),
    (make_batch(GOOD, attributes=5), "codec"),
    (make_batch(GOOD, attributes=7), "codec"),
])
def test_illegal_header_is_named(batch, why):
    assert why in _native.decode_batch(batch)
    with pytest.raises(CorruptRecordError, match=why):
        _native.decode_records(batch)


# ---- hostile records ---------------------------------------------------------------------------

TEN = b"0123456789"
HOSTILE = {
    "record size 0": b"\0" + GOOD,
    "record size negative": varint(-1) + GOOD,
    "record size least": varint(INT32_MAX) + GOOD,
    "record size most negative": varint(-(2**31)) + GOOD,
    "record size short by one": make_record(size=len(GOOD) - 2),
    "record size long by one": make_record(size=len(GOOD)),
    "record size of 6 bytes": b"\x8c\x80\x80\x80\x80\x00" + GOOD[1:],
    "record size of 11 bytes": b"\x80" * 10 + b"\x01" + GOOD,
    "record size over 32 bits": b"\xff\xff\xff\xff\x7f" + GOOD,
    "record cut in its size": b"\x80",
    "record cut after its size": varint(20),
    "nothing": b"",
    "timestamp of 11 bytes": varint(20) + b"\0" + b"\x80" * 10 + b"\x01" + bytes(9),
    "timestamp over 64 bits": varint(20) + b"\0" + b"\xff" * 9 + b"\x02" + bytes(10),
    "offset of 6 bytes": varint(20) + b"\0\0" + b"\x80" * 5 + bytes(13),
    "offset negative": make_record(offset_delta=-1),
    "offset most negative": make_record(offset_delta=-(2**31)),
    "offset beyond the last": make_record(offset_delta=1),
    "offset far beyond": make_record(offset_delta=INT32_MAX),
    "key size -2": varint(8) + b"\0\0\0" + varint(-2) + b"\2v\0" + b"k",
    "key outside": varint(7) + b"\0\0\0" + varint(5) + b"k\2v",
    "key size most": varint(12) + b"\0\0\0" + varint(INT32_MAX) + b"\2v\0k",
    "key size cut off": varint(6) + b"\0\0\0\x80\x80\x80",
    "value size -2": varint(8) + b"\0\0\0\2k" + varint(-2) + b"v\0",
    "value outside": varint(8) + b"\0\0\0\2k" + varint(3) + b"v\0",
    "header count missing": varint(7) + b"\0\0\0\2k" + varint(1) + b"v",
    "value size most": varint(11) + b"\0\0\0\2k" + varint(INT32_MAX) + b"\0",
    "headers missing": make_record(size=len(GOOD) - 2)[:-1],
    "header count negative": make_record(header_count=-1),
    "header count too great": make_record(headers=[(b"h", b"x")], header_count=2),
    "header count most": make_record(header_count=INT32_MAX),
    "header count too small": make_record(headers=[(b"h", b"x")], header_count=0),
    "header name null": make_record(header_count=1, tail=varint(-1) + varint(-1)),
    "header name outside": make_record(header_count=1, tail=varint(99) + b"name"),
    "header value outside": make_record(header_count=1, tail=b"\2h" + varint(99) + b"x"),
    "header value size -2": make_record(header_count=1, tail=b"\2h" + varint(-2)),
    "bytes after the headers": make_record(tail=TEN),
    "bytes after the record": GOOD + b"\0",
    "a second record": GOOD + make_record(offset_delta=1),
    "a second record of the same offset": GOOD + GOOD,
}


@pytest.mark.parametrize("payload", HOSTILE.values(), ids=HOSTILE)
def test_hostile_record_is_an_error_in_the_decoder(payload):
    batch = make_batch(payload)

    with pytest.raises(Bad):
        read_batch(batch)
    assert isinstance(_native.decode_batch(batch)["records_error"], str)
    with pytest.raises(CorruptRecordError):
        _native.decode_records(batch)


@pytest.mark.parametrize("size", [2, 3, 4, 5])
def test_varint_longer_than_it_must_be_is_read_as_javas_client_reads_it(size):
    payload = varint(len(GOOD) - 1, size) + GOOD[1:]

    assert decode(make_batch(payload)) == read_batch(make_batch(payload))


def test_wrong_greatest_timestamp_is_told():
    fields = _native.decode_batch(make_batch(GOOD, max_timestamp=NOW + 1))

    assert "timestamp" in fields["records_error"]


# ---- hostile batches inside a log --------------------------------------------------------------


@pytest.fixture
def patched(log_path):
    """Opens a log whose first `count` records are the bytes given, with a good batch behind."""
    logs = []

    def patch(batch, count):
        with pylog.Log(log_path) as log:
            log.append_many([b"placeholder"] * (count + 1))
        good = make_batch(make_record(LAST_VALUE), base_offset=count)
        (log_path / f"{0:020}.log").write_bytes(batch + good)
        logs.append(pylog.Log(log_path))
        return logs[-1]

    yield patch
    for log in logs:
        log.close()


def ways_out(log):
    """Yields (name, call) for each way of getting all fields of all records."""

    def by_chunk(take):
        cursor, out = log.cursor(), []
        while len(chunk := cursor.fetch()) or chunk.next_offset < log.end_offset:
            out += take(chunk)
        return out

    def columns(chunk):
        view = chunk.payload
        values = [None if size < 0 else bytes(view[at:at + size]) for at, size in
                  zip(chunk.value_positions.tolist(), chunk.value_sizes.tolist(), strict=True)]
        return list(zip(chunk.offsets.tolist(), chunk.timestamps.tolist(), chunk.keys(), values,
                        strict=True))

    yield "read", lambda: [plain(record) for record in log.read()]
    yield "iterate", lambda: by_chunk(lambda chunk: [plain(record) for record in chunk])
    yield "index", lambda: by_chunk(lambda chunk: [plain(record) for record in chunk[:]])
    yield "values", lambda: by_chunk(lambda chunk: chunk.values())
    yield "columns", lambda: by_chunk(columns)
    yield "get", lambda: [plain(log.get(offset)) for offset in range(log.end_offset)]


def is_beyond_the_look_of(way, name):
    """What a way out does not touch it cannot refuse, and does not hand out either."""
    if "header" in name:
        return way in ("values", "columns")
    return way == "get" and name in (    # it reads its record, not what follows it
        "bytes after the record", "a second record", "a second record of the same offset")


@pytest.mark.parametrize(("name", "payload"), HOSTILE.items(), ids=HOSTILE)
def test_hostile_record_in_a_log_is_an_error_by_every_way_out(patched, name, payload):
    log = patched(make_batch(payload), 1)

    for way, call in ways_out(log):
        if is_beyond_the_look_of(way, name):
            call()
            continue
        with pytest.raises(CorruptRecordError):
            call()


@pytest.mark.parametrize("payload", HOSTILE.values(), ids=HOSTILE)
def test_hostile_record_can_be_stepped_over(patched, payload):
    log = patched(make_batch(payload), 1)
    reader = log.read(on_corruption="skip")
    good, broken = [], 0

    for record in reader:    # lazy: what is wrong inside a record shows when it is asked for
        try:
            good.append(plain(record))
        except CorruptRecordError:
            broken += 1

    assert reader.skipped + broken >= 1
    assert good[-1].value == LAST_VALUE
    assert len(good) <= 2


def test_records_before_a_broken_one_are_handed_out_and_then_the_error_stays(patched):
    records = [make_record(b"%d" % i, offset_delta=i) for i in range(700)]
    records[650] = make_record(offset_delta=3)
    log = patched(make_batch(b"".join(records), 700), 700)
    reader = log.read()

    got = []
    for _ in range(2):
        with pytest.raises(CorruptRecordError):
            got += [record.value for record in iter(lambda: next(reader), None)]

    assert reader.offset == 650


def test_batch_behind_a_broken_one_in_the_same_chunk_is_not_skipped(patched):
    broken = make_batch(HOSTILE["offset beyond the last"])
    between = make_batch(make_record(b"between"), base_offset=1)
    log = patched(broken + between, 2)
    reader = log.read(on_corruption="skip")

    assert [record.value for record in reader] == [b"between", LAST_VALUE]
    assert reader.skipped == 1


@pytest.mark.parametrize("batch", [
    make_batch(GOOD, attributes=CONTROL | TRANSACTIONAL, producer=(7, 0, -1)),
    make_batch(b"", count=0, last_delta=0),
], ids=["marker", "emptied"])
def test_batch_without_records_for_readers_takes_its_offset_only(patched, batch):
    log = patched(batch, 1)

    assert [record.value for record in log.read()] == [LAST_VALUE]
    chunk = log.fetch(0)
    assert chunk.values() == [LAST_VALUE]
    assert chunk.offsets.tolist() == [1]
    assert [record.offset for record in chunk] == [1]
    with pytest.raises(pylog.errors.RecordNotFoundError):
        log.get(0)


def test_flip_behind_an_emptied_batch_is_seen(patched):
    """The header of an emptied batch and the next batch begin within the same 64 bytes."""
    good = make_batch(make_record(b"good"), base_offset=1)
    broken = bytearray(good)
    broken[-2] ^= 1
    log = patched(make_batch(b"", count=0, last_delta=0) + bytes(broken), 2)

    with pytest.raises(CorruptRecordError):
        list(log.read())


def test_sparse_batch_gives_the_records_that_are_left(patched):
    payload = make_record(b"1", offset_delta=1) + make_record(b"6", offset_delta=6)
    log = patched(make_batch(payload, count=2, last_delta=8), 9)

    assert [(record.offset, record.value) for record in log.read(stop=9)] == [(1, b"1"), (6, b"6")]
    assert log.fetch(2, max_records=1).offsets.tolist() == [6]


@pytest.mark.parametrize("count", [1, 3])
def test_sparse_batch_with_a_wrong_count_is_an_error(patched, count):
    payload = make_record(b"1", offset_delta=1) + make_record(b"6", offset_delta=6)
    log = patched(make_batch(payload, count=count, last_delta=8), 9)

    for way, call in ways_out(log):
        if way != "get":
            with pytest.raises(CorruptRecordError):
                call()


# ---- hostile at random -------------------------------------------------------------------------

MARKER = golden("e_")[:8].replace(b"\n", b"\0") + golden("e_")[8:]
MANY = _native.encode_batch([b"x" * i for i in range(30)], timestamps=list(range(30)))
SEEDS = [golden("a_"), golden("b_"), golden("c_"), MARKER, MANY]


def mutated(batch, rng):
    """The batch with a few bytes changed, doubled or cut, and its length and CRC put right."""
    batch = bytearray(batch)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(21, len(batch))
        match rng.randrange(5):
            case 0:
                batch[at] ^= 1 << rng.randrange(8)
            case 1:
                batch[at] = rng.choice([0, 1, 0x7F, 0x80, 0xFF])
            case 2:
                batch[at:at] = batch[at:at + rng.randint(1, 12)]
            case 3:
                del batch[at:at + rng.randint(1, 6)]
            case 4:
                batch[at:at + 5] = varint(rng.choice([-1, -2, INT32_MAX, -(2**31)]))
        batch += bytes(max(0, 61 - len(batch)))
    batch[8:12] = (len(batch) - 12).to_bytes(4, "big")
    return with_crc(bytes(batch))


def wanted_of(batch):
    """What the format's text gives; None: it is broken."""
    try:
        return read_batch(batch)
    except Bad:
        return None


def test_mutated_batches_are_read_exactly_or_refused(rng):
    outcomes = {True: 0, False: 0}

    for _ in range(10_000):
        batch = mutated(rng.choice(SEEDS), rng)
        try:
            got = decode(batch)
        except (CorruptRecordError, UnsupportedCodecError):
            got = None
        else:
            assert got == wanted_of(batch), batch.hex()
        outcomes[got is None] += 1
    assert min(outcomes.values()) > 100, outcomes


@given(st.binary(max_size=200), st.integers(0, 3), st.integers(0, 6))
def test_any_payload_is_read_exactly_or_refused(payload, count, last_delta):
    batch = make_batch(payload, count, last_delta=last_delta, max_timestamp=-1, base_timestamp=-1)

    try:
        got = decode(batch)
    except CorruptRecordError:
        got = None

    assert got in (None, wanted_of(batch))


def test_mutated_batches_in_a_log_are_read_exactly_or_refused(log_path, rng):
    outcomes = {True: 0, False: 0}
    good = make_batch(make_record(LAST_VALUE), base_offset=30)
    with pylog.Log(log_path) as log:
        log.append_many([b"placeholder"] * 31)

    for _ in range(200):
        batch = mutated(MANY, rng)
        (log_path / f"{0:020}.log").write_bytes(batch + good)
        try:
            with pylog.Log(log_path) as log:
                got = [plain(record) for record in log.read()]
        except (CorruptRecordError, UnsupportedCodecError):
            got = None
        else:
            wanted = [] if batch[22] & CONTROL else wanted_of(batch)
            assert got == [*wanted, Plain(30, NOW, b"k", LAST_VALUE)], batch.hex()
        outcomes[got is None] += 1
    assert min(outcomes.values()) > 5, outcomes


# ---- while it is sealed ------------------------------------------------------------------------


def halve_length(log, position, half):
    """Whether the batch at `position` was open still, as after 100 ms of rest it is not."""
    with (log.path / f"{0:020}.log").open("r+b") as file:
        file.seek(position + 8)
        is_open = file.read(4) == bytes(4)
        file.seek(position + 8)
        if is_open:
            file.write(half)
        return is_open


@pytest.mark.parametrize("half", [b"\0\0\1\0", b"\0\0\0\x31", b"\0\0\x3f\0", b"\0\0\xff\xff"])
def test_half_a_length_is_read_as_the_open_batch_it_was(tmp_path, half):
    """A length that straddles two cache lines can be seen half written; the next look finds it
    whole. Here the half stays for as long as the housekeeper lets the batch be."""
    position = len(make_batch(make_record(b"")))
    assert (position + 8) % 16 > 12
    for number in range(10):
        path = tmp_path / str(number)
        with pylog.Log(path) as writer, pylog.Log(path, mode="r") as reader:
            writer.append_many([b""], keys=[b"k"])
            for value in range(5):
                writer.append(b"%d" % value)
            if not halve_length(writer, position, half):
                continue

            assert [record.value for record in reader.read(1)] == [b"0", b"1", b"2", b"3", b"4"]
            assert reader.fetch(3).values() == [b"2", b"3", b"4"]
            return
    pytest.fail("sealed each time")
