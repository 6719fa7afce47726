"""Compressed batches: the frames that are written, those that are read, and hostile ones."""

import gzip
import random
import resource
import shutil
import tracemalloc
import zlib

import lz4.frame
import pytest
from handmade import Bad, Plain, make_batch, make_record, plain, read_batch

import pylog
from pylog import _native, compression
from pylog.errors import (
    ConfigurationError,
    CorruptRecordError,
    MessageSizeTooLargeError,
    RecordNotFoundError,
    UnsupportedCodecError,
)

GZIP, SNAPPY, LZ4, ZSTD = 1, 2, 3, 4
RECORDS = b"".join(make_record(b"value %d " % i * 20, offset_delta=i) for i in range(40))
PLAIN = read_batch(make_batch(RECORDS, 40))
JAVAS = {"block_linked": False, "store_size": False}


def lz4_frame(data, **options):
    return lz4.frame.compress(data, **(JAVAS | options))


FRAME = lz4_frame(RECORDS)


def batch_of(packed, codec=LZ4, count=40):
    return make_batch(packed, count, attributes=codec)


def decode(batch):
    return [plain(record) for record in _native.decode_records(batch)]


@pytest.fixture
def patched(log_path):
    """Opens a log whose only segment holds the batches given, 40 records each."""
    logs = []

    def patch(*batches, **options):
        with pylog.Log(log_path, **options) as log:
            log.append_many([b""] * 40 * len(batches))
        data = b"".join((40 * i).to_bytes(8, "big") + batch[8:]
                        for i, batch in enumerate(batches))
        (log_path / f"{0:020}.log").write_bytes(data)
        logs.append(pylog.Log(log_path))
        return logs[-1]

    yield patch
    for log in logs:
        log.close()


# ---- written -----------------------------------------------------------------------------------


def test_frame_is_the_one_that_javas_client_reads(log_path):
    with pylog.Log(log_path, compression="lz4") as log:
        log.append_many([b"compress me " * 20_000], atomic=True)
        log.append_many([b"%07d" % i for i in range(60_000)], atomic=True)
        batches = [bytes(batch) for batch in log.batches(0)]

    for batch in batches:
        assert batch[21:23] == b"\0\3"
        assert batch[61:68] == bytes.fromhex("04224d18 6040 82")
        assert batch[-4:] == bytes(4)
        assert block_sizes(batch[68:]) is not None
    assert max(len(block_sizes(batch[68:])) for batch in batches) > 4


def block_sizes(blocks):
    """Bytes of each block up to the end mark, which must be the end; none over 64 KiB."""
    sizes, at = [], 0
    while size := int.from_bytes(blocks[at:at + 4], "little"):
        sizes.append(size & 0x7FFFFFFF)
        assert sizes[-1] <= 65_536
        at += 4 + sizes[-1]
    assert at + 4 == len(blocks)
    return sizes


@pytest.mark.parametrize("options", [{}, {"atomic": True}, {"if_end": 0}], ids=str)
def test_what_goes_in_comes_out(log_path, rng, options):
    values = [rng.choice([None, b"", b"ab" * rng.randrange(500), rng.randbytes(50)])
              for _ in range(3000)]
    keys = [rng.choice([None, b"", b"key"]) for _ in values]
    headers = [rng.choice([None, [("h", b"x" * 30)], [("n", None), ("n", b"")]]) for _ in values]
    times = [1_000_000 + rng.randrange(100) for _ in values]
    with pylog.Log(log_path, compression="lz4") as log:
        log.append_many(values, keys, headers, times, **options)
    with pylog.Log(log_path) as log:
        out = [plain(record) for record in log.read()]
        chunk = log.fetch(1000)

        assert chunk.values() == values[1000:1000 + len(chunk)]
        assert chunk.keys() == keys[1000:1000 + len(chunk)]
        assert chunk.timestamps.tolist() == times[1000:1000 + len(chunk)]
        assert plain(log.get(2999)) == out[2999]
        assert log.size_bytes < sum(len(value or b"") for value in values)
    assert out == [Plain(i, *row) for i, row in enumerate(
        zip(times, keys, values, [tuple(one or ()) for one in headers], strict=True))]


def test_codecs_mix_within_a_log(log_path):
    with pylog.Log(log_path, compression="lz4") as log:
        log.append(b"plain")
        log.append_many([b"squeezed" * 9] * 50)
        log.append(b"plain again")
    with pylog.Log(log_path) as log:
        log.append_many([b"not squeezed" * 9] * 50)
        values = [record.value for record in log.read()]
        codecs = [_native.decode_batch(batch)["codec"] for batch in log.batches(0)]

    assert values == [b"plain", *[b"squeezed" * 9] * 50, b"plain again",
                      *[b"not squeezed" * 9] * 50]
    assert codecs == [0, LZ4, 0, 0]


def test_records_that_do_not_shrink_are_stored_plain(log_path, rng):
    with pylog.Log(log_path, compression="lz4") as log:
        log.append_many([rng.randbytes(1000) for _ in range(10)])
        (batch,) = log.batches(0)

        assert _native.decode_batch(batch)["codec"] == 0


def test_append_time_holds_in_a_compressed_batch(log_path):
    with pylog.Log(log_path, compression="lz4", timestamp_type="append") as log:
        log.append_many([b"again" * 20] * 20, timestamps=list(range(20)))
        records = list(log.read())

    assert len({record.timestamp for record in records}) == 1
    assert {record.timestamp_type for record in records} == {1}


def test_batch_that_no_reader_would_decompress_is_refused(log_path):
    with pylog.Log(log_path, compression="lz4", max_message_bytes=4096) as log:
        with pytest.raises(MessageSizeTooLargeError, match="split"):
            log.append_many([bytes(1000)] * 300, atomic=True)
        assert log.end_offset == 0

        log.append_many([bytes(1000)] * 200, atomic=True)
        assert [len(record) for record in log.read()] == [1000] * 200


@pytest.mark.parametrize("name", ["snappy", "zstd"])
def test_codec_that_cannot_be_written_is_named(log_path, name):
    with pytest.raises(UnsupportedCodecError, match=f"{name}.*to come"):
        pylog.Log(log_path, compression=name)
    assert not log_path.exists()


@pytest.mark.parametrize("name", ["LZ4", "", "brotli", 3])
def test_codec_that_does_not_exist_is_named(log_path, name):
    with pytest.raises(ConfigurationError, match="compression"):
        pylog.Log(log_path, compression=name)


# ---- read --------------------------------------------------------------------------------------

FRAMES = {
    "Java's": {},
    "content size": {"store_size": True},
    "block checksums": {"block_checksum": True},
    "content checksum": {"content_checksum": True},
    "256 KiB blocks": {"block_size": lz4.frame.BLOCKSIZE_MAX256KB},
    "1 MiB blocks": {"block_size": lz4.frame.BLOCKSIZE_MAX1MB},
    "4 MiB blocks": {"block_size": lz4.frame.BLOCKSIZE_MAX4MB},
    "franz-go's": {"block_size": lz4.frame.BLOCKSIZE_MAX4MB, "content_checksum": True},
    "everything": {"block_size": lz4.frame.BLOCKSIZE_MAX4MB, "content_checksum": True,
                   "block_checksum": True, "store_size": True},
    "linked blocks": {"block_linked": True},
    "high compression": {"compression_level": 12},
}


@pytest.mark.parametrize("options", FRAMES.values(), ids=FRAMES)
def test_frames_of_other_clients_are_read(patched, options):
    frame = lz4_frame(RECORDS, **options)
    log = patched(batch_of(frame), batch_of(frame))

    assert decode(batch_of(frame)) == PLAIN
    assert [record.value for record in log.read()] == [record.value for record in PLAIN] * 2
    assert log.get(41).value == PLAIN[1].value


@pytest.mark.parametrize("level", [0, 1, 9])
def test_gzip_batches_are_read(patched, level):
    packed = gzip.compress(RECORDS, level)
    log = patched(batch_of(packed, GZIP), batch_of(lz4_frame(RECORDS)), batch_of(packed, GZIP))

    assert decode(batch_of(packed, GZIP)) == PLAIN
    assert [record.offset for record in log.read()] == list(range(120))
    assert [len(chunk.values()) for chunk in (log.fetch(0), log.fetch(39), log.fetch(60))] == [
        40, 1, 20]


def test_sparse_batches_give_the_records_that_are_left(patched):
    """As Kafka's compaction leaves them; 40 offsets each."""
    payload = make_record(b"1", offset_delta=1) + make_record(b"6", offset_delta=6)
    sparse = make_batch(lz4_frame(payload), 2, attributes=LZ4, last_delta=39)
    log = patched(sparse, sparse, batch_of(FRAME))
    wanted = [(1, b"1"), (6, b"6"), (41, b"1"), (46, b"6")]

    assert [(record.offset, record.value) for record in log.read(stop=80)] == wanted
    chunk = log.fetch(0)
    assert (chunk.offsets.tolist(), chunk.values(), len(chunk)) == ([1, 6], [b"1", b"6"], 2)
    assert log.fetch(6).offsets.tolist() == [6]
    assert log.fetch(2, max_records=1).offsets.tolist() == [6]
    assert log.fetch(7).offsets.tolist() == [41, 46]
    assert log.fetch(50).offsets.tolist() == list(range(80, 120))
    assert log.get(46).value == b"6"
    with pytest.raises(RecordNotFoundError):
        log.get(45)


def test_sparse_batch_with_a_wrong_count_is_an_error(patched):
    payload = make_record(b"1", offset_delta=1) + make_record(b"6", offset_delta=6)
    for count in (1, 3):
        log = patched(make_batch(lz4_frame(payload), count, attributes=LZ4, last_delta=39),
                      batch_of(FRAME))
        for call in (lambda log: log.fetch(0).values(), lambda log: log.fetch(0).offsets,
                     lambda log: log.fetch(0)[:], lambda log: list(log.read())):
            with pytest.raises(CorruptRecordError):
                call(log)
        log.close()
        shutil.rmtree(log.path)


@pytest.mark.parametrize(("codec", "name"), [(SNAPPY, "snappy"), (ZSTD, "zstd")])
def test_codec_to_come_is_named_and_the_rest_stays_readable(patched, codec, name):
    log = patched(batch_of(RECORDS, codec), batch_of(RECORDS, 0))

    for call in (lambda: list(log.read()), lambda: log.fetch(0), lambda: log.get(5)):
        with pytest.raises(UnsupportedCodecError, match=name) as caught:
            call()
        assert caught.value.codec == name
    assert [record.offset for record in log.read(40)] == list(range(40, 80))
    assert len(b"".join(log.batches(0))) == 2 * (61 + len(RECORDS))


@pytest.mark.parametrize("call", [
    lambda log: list(log.read(0)),
    lambda log: list(log.read(0, on_corruption="skip")),
    lambda log: log.fetch(0),
    lambda log: log.fetch(5, max_records=1),
    lambda log: log.get(39),
], ids=["read", "skip", "fetch", "fetch one", "get"])
def test_codec_to_come_is_told_with_its_place_and_where_to_read_on(patched, call):
    log = patched(batch_of(RECORDS, ZSTD), batch_of(RECORDS, 0))

    with pytest.raises(UnsupportedCodecError, match="read on from offset 40") as caught:
        call(log)

    error = caught.value
    assert (error.path, error.position) == (str(next(log.path.glob("*.log"))), 0)
    assert 0 <= error.offset < error.next_offset == 40
    assert [record.offset for record in log.read(error.next_offset)] == list(range(40, 80))


def test_iteration_goes_on_behind_a_codec_to_come(patched):
    log = patched(batch_of(RECORDS, 0), batch_of(RECORDS, SNAPPY), batch_of(RECORDS, 0))
    cursor = log.read()

    assert [next(cursor).offset for _ in range(40)] == list(range(40))
    with pytest.raises(UnsupportedCodecError) as caught:
        next(cursor)
    assert (cursor.offset, caught.value.offset, cursor.skipped) == (40, 40, 0)
    cursor.seek(caught.value.next_offset)
    assert [record.offset for record in cursor] == list(range(80, 120))


def test_views_of_a_decompressed_chunk_outlive_it(patched):
    log = patched(batch_of(lz4_frame(RECORDS)))
    chunk = log.fetch(0)
    record, view, at = chunk[7], chunk.payload, int(chunk.value_positions[7])
    del chunk
    log.close()

    assert record.value == PLAIN[7].value
    assert bytes(view[at:at + len(record.value)]) == record.value


# ---- hostile -----------------------------------------------------------------------------------

HOSTILE = {
    "lz4 nothing": (LZ4, b""),
    "lz4 magic alone": (LZ4, FRAME[:4]),
    "lz4 header alone": (LZ4, FRAME[:7]),
    "lz4 cut in a block": (LZ4, FRAME[:-60]),
    "lz4 without an end mark": (LZ4, FRAME[:-4]),
    "lz4 magic wrong": (LZ4, b"\5" + FRAME[1:]),
    "lz4 raw block": (LZ4, FRAME[11:-4]),
    "lz4 skippable frame": (LZ4, b"\x50\x2a\x4d\x18\4\0\0\0abcd"),
    "lz4 header checksum wrong": (LZ4, FRAME[:6] + b"\0" + FRAME[7:]),
    "lz4 version 2": (LZ4, FRAME[:4] + b"\xa0" + FRAME[5:]),
    "lz4 block of 2 GiB": (LZ4, FRAME[:7] + b"\xff\xff\xff\x7f" + FRAME[11:]),
    "lz4 block checksum wrong": (LZ4, lz4_frame(RECORDS, block_checksum=True)[:-5] + b"?" * 5),
    "lz4 content checksum wrong": (LZ4, lz4_frame(RECORDS, content_checksum=True)[:-4] + b"????"),
    "lz4 of too few records": (LZ4, lz4_frame(RECORDS[:-1])),
    "lz4 of too many records": (LZ4, lz4_frame(RECORDS + RECORDS[:10])),
    "lz4 of noise": (LZ4, lz4_frame(bytes(range(256)))),
    "lz4 that is gzip": (LZ4, gzip.compress(RECORDS)),
    "lz4 of lz4": (LZ4, lz4_frame(FRAME)),
    "gzip nothing": (GZIP, b""),
    "gzip header alone": (GZIP, gzip.compress(RECORDS)[:10]),
    "gzip cut": (GZIP, gzip.compress(RECORDS)[:-1]),
    "gzip CRC wrong": (GZIP, gzip.compress(RECORDS)[:-8] + b"?" * 8),
    "gzip that is zlib": (GZIP, zlib.compress(RECORDS)),
    "gzip that is lz4": (GZIP, FRAME),
    "gzip in two members": (GZIP, gzip.compress(RECORDS[:9]) + gzip.compress(RECORDS[9:])),
}


@pytest.mark.parametrize(("codec", "packed"), HOSTILE.values(), ids=HOSTILE)
def test_hostile_stream_is_an_error(patched, codec, packed):
    """Who asks for one record may have it, where it is whole; who asks for all is told."""
    log = patched(batch_of(packed, codec), batch_of(FRAME))

    with pytest.raises(CorruptRecordError):
        _native.decode_records(batch_of(packed, codec))
    for call in (lambda: list(log.read()), lambda: log.fetch(0).values(),
                 lambda: log.fetch(0)[:], lambda: log.fetch(0).offsets):
        with pytest.raises(CorruptRecordError):
            call()
    assert [record.offset for record in log.read(40)] == list(range(40, 80))
    skipping = log.read(on_corruption="skip")
    assert [record.offset for record in skipping if record.offset >= 40] == list(range(40, 80))
    assert skipping.skipped == 1


def test_error_stays_where_the_broken_stream_is(patched):
    log = patched(batch_of(FRAME), batch_of(FRAME[:-4]), batch_of(FRAME))
    reader, cursor = log.read(), log.cursor()

    assert [next(reader).offset for _ in range(40)] == list(range(40))
    assert len(cursor.fetch()) == 40
    for _ in range(2):
        with pytest.raises(CorruptRecordError) as caught:
            next(reader)
        assert (caught.value.offset, reader.offset) == (40, 40)
        with pytest.raises(CorruptRecordError):
            cursor.fetch()


BOMBS = {
    "lz4": (LZ4, lambda data: lz4_frame(data)),
    "lz4 that tells its size": (LZ4, lambda data: lz4_frame(data, store_size=True)),
    "gzip": (GZIP, gzip.compress),
}


@pytest.mark.parametrize(("codec", "pack"), BOMBS.values(), ids=BOMBS)
def test_bomb_is_an_error_and_takes_no_memory(patched, codec, pack):
    packed = pack(bytes(64 << 20))
    log = patched(batch_of(packed, codec), batch_of(RECORDS, 0), max_message_bytes=8192)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    with pytest.raises(CorruptRecordError, match="decompress"):
        log.fetch(0)
    with pytest.raises(CorruptRecordError, match="decompress"):
        next(log.read())

    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 16 << 10    # KiB
    assert [record.offset for record in log.read(on_corruption="skip")] == list(range(40, 80))


@pytest.mark.parametrize("data", [
    RECORDS, b"", bytes(1 << 20), bytes(300_000), b"ab" * 200_000,
    random.Random(5).randbytes(1 << 20),
], ids=len)
def test_frame_takes_memory_for_what_it_becomes_and_not_for_the_limit(data):
    frame = lz4_frame(data)
    tracemalloc.start()
    try:
        assert compression.decompress(LZ4, frame, 64 << 20) == data
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert peak < 2 * max(len(data), 4 * len(frame)) + 64_000


@pytest.mark.parametrize("size", [0, 1, 254, 65_535, 65_536, 65_537, 1 << 20, 4 << 20])
def test_limit_is_what_a_frame_may_become_to_the_byte(size):
    frame = lz4_frame(bytes(size))

    for limit in (size, size + 1, 64 << 20):
        assert compression.decompress(LZ4, frame, limit) == bytes(size)
    if size:
        assert compression.decompress(LZ4, frame, size - 1) is None
        assert compression.decompress(LZ4, frame, size // 2) is None


@pytest.mark.parametrize("data", [RECORDS, bytes(1 << 20), random.Random(5).randbytes(300_000)])
def test_frame_that_is_cut_off_is_none(data):
    frame = lz4_frame(data)

    for end in {0, 5, len(frame) // 2, len(frame) - 5, len(frame) - 1}:
        assert compression.decompress(LZ4, frame[:end], 64 << 20) is None


def test_flipped_bits_of_a_stream_give_what_it_then_says_or_an_error(rng):
    outcomes = {True: 0, False: 0}
    for _ in range(3000):
        codec, packed = rng.choice([(LZ4, FRAME), (GZIP, gzip.compress(RECORDS, mtime=0))])
        flipped = bytearray(packed)
        for _ in range(rng.randint(1, 3)):
            flipped[rng.randrange(len(flipped))] ^= 1 << rng.randrange(8)
        try:
            got = decode(batch_of(bytes(flipped), codec))
        except CorruptRecordError:
            got = None
        else:
            unpack = lz4.frame.decompress if codec == LZ4 else gzip.decompress
            try:
                assert got == read_batch(batch_of(bytes(flipped), codec), unpack)
            except (Bad, RuntimeError) as error:
                pytest.fail(f"{error}: {flipped.hex()}")
        outcomes[got is None] += 1
    assert min(outcomes.values()) > 10, outcomes


def test_limit_is_what_may_come_out():
    for codec, pack in ((LZ4, lz4_frame), (GZIP, gzip.compress)):
        assert compression.decompress(codec, pack(bytes(1000)), 2000) == bytes(1000)
        assert compression.decompress(codec, pack(bytes(1000)), 999) is None


def test_message_of_an_unreadable_codec_says_what_to_do():
    with pytest.raises(UnsupportedCodecError) as caught:
        compression.decompress(SNAPPY, b"", 1)

    assert "have its producer write it anew" in str(caught.value)
