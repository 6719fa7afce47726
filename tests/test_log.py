"""One log in one process: what goes in comes out, by every way in and every way out."""

import copy
import pickle
import threading
import time
from datetime import UTC, datetime

import numpy as np
import pytest

import pylog
from pylog import _native

NOW = 1_700_000_000_000


@pytest.fixture
def log(log_path):
    with pylog.Log(log_path) as log:
        yield log


def values_of(records):
    return [record.value for record in records]


def append_numbers(log, count, start=0, key=None):
    """Appends b"0", b"1", ... at timestamps NOW, NOW + 1, ..."""
    for number in range(start, start + count):
        log.append(b"%d" % number, key=key, timestamp=NOW + number)


# ---- in, and out again --------------------------------------------------------------------------

def test_new_log_is_empty(log):
    assert (log.start_offset, log.end_offset, log.readable_offset) == (0, 0, 0)
    assert list(log.read()) == []
    assert len(log.fetch(0)) == 0
    assert log.recovered is None


def test_append_returns_rising_offsets(log):
    assert [log.append(b"a"), log.append(b"b"), log.append_many([b"c", b"d"])] == [0, 1, 2]
    assert log.append(b"e") == 4
    assert log.end_offset == 5


def test_record_has_all_that_was_appended(log):
    log.append(b"value", key=b"key", headers=[("h", b"1"), ("h", None)], timestamp=NOW)

    record = log.get(0)

    assert (record.offset, record.timestamp, record.timestamp_type) == (0, NOW, 0)
    assert (record.key, record.value) == (b"key", b"value")
    assert record.headers == (("h", b"1"), ("h", None))
    assert (record.topic, record.partition, record.leader_epoch) == (None, None, 0)


def test_null_is_not_empty(log):
    log.append(None, key=b"")
    log.append(b"", key=None)

    assert [(r.key, r.value) for r in log.read()] == [(b"", None), (None, b"")]


@pytest.mark.parametrize("kind", [bytearray, memoryview, lambda b: np.frombuffer(b, np.uint8)])
def test_anything_bytes_like_is_taken(log, kind):
    log.append(kind(b"value"), key=kind(b"key"))
    log.append_many([kind(b"value")], keys=[kind(b"key")])

    assert [(r.key, r.value) for r in log.read()] == [(b"key", b"value")] * 2


def test_appended_bytes_are_copied(log):
    value = bytearray(b"before")
    log.append(value)
    value[:] = b"after!"

    assert log.get(0).value == b"before"


def test_timestamp_is_now_unless_given(log):
    before = time.time_ns() // 1_000_000
    log.append(b"a")

    assert before <= log.get(0).timestamp <= time.time_ns() // 1_000_000


def test_append_many_takes_a_timestamp_each_or_one_for_all(log):
    log.append_many([b"a", b"b"], timestamps=[NOW + 5, NOW])
    log.append_many([b"c", b"d"], timestamps=NOW)

    assert [r.timestamp for r in log.read()] == [NOW + 5, NOW, NOW, NOW]


def test_append_many_takes_any_iterable(log):
    log.append_many((b"%d" % i for i in range(3)), keys=iter([None, b"k", None]))

    assert [(r.key, r.value) for r in log.read()] == [(None, b"0"), (b"k", b"1"), (None, b"2")]


def test_append_many_of_nothing_appends_nothing(log):
    log.append(b"a")

    assert log.append_many([]) == 1
    assert log.append_buffer(b"", [0]) == 1
    assert log.end_offset == 1


def test_append_buffer_cuts_values_out_of_one_buffer(log):
    first = log.append_buffer(np.frombuffer(b"onetwothree", np.uint8), np.array([0, 3, 6, 6, 11]),
                              timestamps=np.arange(4) + NOW)

    assert first == 0
    assert values_of(log.read()) == [b"one", b"two", b"", b"three"]
    assert [r.timestamp for r in log.read()] == [NOW, NOW + 1, NOW + 2, NOW + 3]


def test_append_time_log_ignores_the_callers_timestamps(log_path):
    with pylog.Log(log_path, timestamp_type="append") as log:
        log.append(b"a", timestamp=5)
        log.append_many([b"b"], timestamps=[5])

        assert all(r.timestamp > NOW and r.timestamp_type == 1 for r in log.read())


@pytest.mark.parametrize("size", [0, 1, 100, 16_000, 33_000, 70_000, 1_000_000])
def test_records_of_any_size_come_back(log, rng, size):
    value = rng.randbytes(size)
    log.append(value)
    log.append_many([b"small", value, b"small"])
    log.append_buffer(value + b"x", [0, size, size + 1])

    assert values_of(log.read()) == [value, b"small", value, b"small", value, b"x"]


@pytest.mark.parametrize("compression", [None, "lz4"])
def test_every_way_in_goes_into_one_order(log_path, compression):
    with pylog.Log(log_path, compression=compression) as log:
        log.append(b"0")
        log.append_many([b"1" * 500, b"2" * 500])
        log.append(b"3")
        log.append_many([b"4" * 500, b"5"], atomic=True)
        log.append_buffer(b"67", [0, 1, 2])
        log.append(b"8", if_end=8)

        assert [v[:1] for v in values_of(log.read())] == [b"%d" % i for i in range(9)]
        assert [r.offset for r in log.read()] == list(range(9))


def test_conditional_append_needs_the_right_end(log):
    log.append(b"a", if_end=0)

    with pytest.raises(pylog.WrongEndOffsetError) as caught:
        log.append(b"b", if_end=0)
    with pytest.raises(pylog.WrongEndOffsetError):
        log.append_many([b"b", b"c"], if_end=2)

    assert caught.value.end_offset == 1
    assert values_of(log.read()) == [b"a"]


def test_atomic_batch_is_one_batch(log):
    log.append_many([b"x" * 1000] * 100, atomic=True)

    batches = [_native.decode_batch(batch) for batch in log.batches(0)]

    assert [batch["records_count"] for batch in batches] == [100]


def test_no_batch_passes_max_message_bytes(log_path):
    with pylog.Log(log_path, max_message_bytes=500) as log:
        for _ in range(20):
            log.append(b"x" * 100)
        log.append_many([b"y" * 100] * 20)
        log.append(b"z" * 430)
        log.flush()

        assert max(len(batch) for batch in log.batches(0)) <= 500
        assert len(values_of(log.read())) == 41


# ---- reading ------------------------------------------------------------------------------------

def test_read_starts_where_it_is_told(log):
    append_numbers(log, 10)

    def first(start):
        return next(log.read(start)).value

    assert first("earliest") == b"0"
    assert first(7) == b"7"
    assert first(-3) == b"7"
    assert first(-1000) == b"0"
    assert first(datetime.fromtimestamp((NOW + 4) / 1000, UTC)) == b"4"
    assert list(log.read("latest")) == []


def test_read_stops_where_it_is_told(log):
    append_numbers(log, 10)

    assert values_of(log.read(3, stop=6)) == [b"3", b"4", b"5"]
    assert values_of(log.read(3, stop=3)) == []
    assert values_of(log.read(8, stop=100)) == [b"8", b"9"]
    assert values_of(log.read(0, stop=-8)) == [b"0", b"1"]


def test_read_ends_at_what_was_there_when_it_began(log):
    append_numbers(log, 3)
    reading = log.read()
    append_numbers(log, 3, start=3)

    assert values_of(reading) == [b"0", b"1", b"2"]


def test_cursor_goes_on_with_what_comes_later(log):
    cursor = log.cursor()
    assert list(cursor) == []

    append_numbers(log, 2)
    assert values_of(cursor) == [b"0", b"1"]

    append_numbers(log, 2, start=2)
    assert cursor.wait(timeout=0) is True
    assert values_of(cursor.fetch()) == [b"2", b"3"]
    assert cursor.offset == 4
    assert cursor.wait(timeout=0) is False


def test_cursor_tells_the_next_offset_after_each_record(log):
    append_numbers(log, 3000)
    cursor = log.cursor()

    for record in cursor:
        assert cursor.offset == record.offset + 1


def test_cursor_seeks_anywhere(log, rng):
    append_numbers(log, 3000)
    cursor = log.cursor()

    for _ in range(300):
        offset = rng.randrange(3000)
        cursor.seek(offset)
        assert next(cursor).value == b"%d" % offset
        assert cursor.offset == offset + 1
        assert cursor.fetch(max_records=1)[0].offset == offset + 1 if offset < 2999 else True


def test_fetch_is_bounded_by_records_and_bytes(log):
    append_numbers(log, 5000)
    log.flush()

    assert len(log.fetch(10, max_records=7)) == 7
    assert 1 <= len(log.fetch(10, max_bytes=1)) < 1000
    assert len(log.fetch(0)) == 5000
    chunk = log.fetch(4990)
    assert (chunk[0].offset, len(chunk), chunk.next_offset) == (4990, 10, 5000)


def test_chunk_is_a_sequence_and_columns(log):
    append_numbers(log, 100)
    log.append(None, key=b"k", timestamp=NOW)

    chunk = log.fetch(0)

    assert (len(chunk), chunk[3].value, chunk[-1].key) == (101, b"3", b"k")
    assert [r.offset for r in chunk[10:13]] == [10, 11, 12]
    assert list(chunk) == list(log.read())
    assert chunk.values() == values_of(log.read())
    assert chunk.keys() == [None] * 100 + [b"k"]
    assert chunk.offsets.tolist() == list(range(101))
    assert chunk.timestamps.tolist() == [*range(NOW, NOW + 100), NOW]
    at, size = chunk.value_positions[42], chunk.value_sizes[42]
    assert bytes(chunk.payload[at:at + size]) == b"42"
    assert chunk.value_sizes[-1] == -1


def test_payload_is_read_only_and_outlives_the_log(log_path):
    log = pylog.Log(log_path)
    log.append(b"value")
    chunk, record = log.fetch(0), log.get(0)
    payload = chunk.payload
    before = bytes(payload)
    log.close()
    del log

    with pytest.raises(TypeError):
        payload[0] = 1
    assert bytes(payload) == before
    assert (record.value, chunk.values()) == (b"value", [b"value"])


def test_get_finds_each_record(log):
    append_numbers(log, 2000)

    assert all(log.get(i).value == b"%d" % i for i in [0, 1, 499, 500, 501, 1234, 1999, 0])


def test_records_compare_hash_pickle_and_match(log):
    log.append(b"v", key=b"k", headers={"h": b"x"}, timestamp=NOW)
    log.append(b"v", key=b"k", headers={"h": b"x"}, timestamp=NOW)
    first, again, other = log.get(0), log.get(0), log.get(1)

    assert first == again
    assert hash(first) == hash(again)
    assert first != other
    assert pickle.loads(pickle.dumps(first)) == copy.copy(first) == first
    assert "value=b'v'" in repr(first)
    match first:
        case pylog.Record(offset=0, key=key, value=value):
            assert (key, value) == (b"k", b"v")
        case _:
            pytest.fail("the record does not match its own fields")


def test_batches_are_whole_and_end_with_a_finished_copy(log):
    log.append_many([b"a"] * 3)
    append_numbers(log, 4)

    batches = [_native.decode_batch(batch) for batch in log.batches(0)]

    assert [(b["base_offset"], b["last_offset"], b["crc_ok"]) for b in batches] == [
        (0, 2, True), (3, 6, True)]
    assert log.append(b"the tail is still open") == 7


def test_batches_repeat_nothing_when_the_open_one_grows(log):
    log.append(b"first")
    records = []
    for batch in log.batches(0):
        records += [record.offset for record in _native.decode_records(batch)]
        log.append(b"one more")

    assert records == [0]


def test_batches_begin_with_the_one_that_bears_the_offset(log):
    log.append_many([b"a"] * 3)
    log.append_many([b"b"] * 3)

    assert [_native.decode_batch(b)["base_offset"] for b in log.batches(4)] == [3]
    assert list(log.batches(6)) == []


def test_offset_for_time_is_the_first_at_or_after(log):
    log.append_many([b"x"] * 4, timestamps=[NOW + 10, NOW + 30, NOW + 20, NOW + 40])
    append_numbers(log, 3, start=50)

    assert [log.offset_for_time(NOW + t) for t in (0, 10, 11, 30, 31, 40, 41, 52)] == [
        0, 0, 1, 1, 3, 3, 4, 6]
    assert log.offset_for_time(NOW + 53) is None


def test_offset_for_time_agrees_with_a_scan(log_path, rng):
    with pylog.Log(log_path, segment_bytes=8192, index_interval_bytes=512) as log:
        times = [NOW + i + rng.randrange(-50, 50) for i in range(3000)]
        log.append_many([b"value"] * 1500, timestamps=times[:1500])
        for time in times[1500:]:
            log.append(b"value", timestamp=time)

        for _ in range(200):
            sought = NOW + rng.randrange(-60, 3060)
            expected = next((i for i, time in enumerate(times) if time >= sought), None)
            assert log.offset_for_time(sought) == expected


def test_wait_tells_whether_the_record_came(log):
    assert log.wait(0, timeout=0.01) is False
    log.append(b"a")
    assert log.wait(0) is True
    assert log.wait(0, timeout=0) is True


def test_follow_is_woken_by_an_append(log):
    got = []
    reader = threading.Thread(target=lambda: got.extend(log.read(follow=True, stop=3)))
    reader.start()
    append_numbers(log, 3)
    reader.join(10)

    assert values_of(got) == [b"0", b"1", b"2"]


# ---- segments -----------------------------------------------------------------------------------

@pytest.fixture
def rolled(log_path):
    """A log of many small segments: values b"0" to b"999"."""
    with pylog.Log(log_path, segment_bytes=4096) as log:
        append_numbers(log, 1000, key=b"a key that fills the segments")
        assert log.stats()["rolls"] > 8
        yield log


def test_reading_crosses_segments(rolled):
    assert values_of(rolled.read()) == [b"%d" % i for i in range(1000)]
    assert values_of(rolled.read(-500, stop=900)) == [b"%d" % i for i in range(500, 900)]
    assert [rolled.get(i).value for i in range(0, 1000, 37)] == [
        b"%d" % i for i in range(0, 1000, 37)]


def test_segments_never_pass_their_size(rolled, log_path):
    rolled.append_many([b"x" * 900] * 20)
    rolled.append_many([b"x" * 900] * 4, atomic=True)

    assert all(path.stat().st_size <= 4096 for path in log_path.glob("*.log"))


def test_deleting_moves_the_start_and_removes_files(rolled, log_path):
    segments = len(list(log_path.glob("*.log")))

    rolled.delete_before(700)

    assert rolled.start_offset == 700
    assert len(list(log_path.glob("*.log"))) < segments
    assert values_of(rolled.read()) == [b"%d" % i for i in range(700, 1000)]
    with pytest.raises(pylog.OffsetOutOfRangeError):
        rolled.get(699)


def test_deleting_everything_keeps_the_end(rolled, log_path):
    rolled.delete_before(1000)

    assert (rolled.start_offset, rolled.end_offset) == (1000, 1000)
    assert rolled.append(b"next") == 1000
    rolled.close()
    with pylog.Log(log_path) as log:
        assert (log.start_offset, values_of(log.read())) == (1000, [b"next"])


def test_deleting_twice_or_below_the_start_changes_nothing(rolled):
    rolled.delete_before(500)
    rolled.delete_before(500)
    rolled.delete_before(3)

    assert rolled.start_offset == 500


def test_views_survive_deleting_rolling_and_closing(rolled):
    chunk = rolled.fetch(0)
    views = [(record.value_view, bytes(record.value_view)) for record in chunk]
    payload, copied = chunk.payload, bytes(chunk.payload)

    rolled.delete_before(900)
    append_numbers(rolled, 500)
    rolled.close()

    assert all(view == value for view, value in views)
    assert payload == copied


# ---- closing ------------------------------------------------------------------------------------

def test_close_may_be_called_twice(log):
    log.close()
    log.close()

    assert log.closed
    assert "closed" in repr(log)


def test_reopened_log_goes_on(log_path):
    for life in range(4):
        with pylog.Log(log_path, segment_bytes=4096) as log:
            assert log.recovered is None
            assert log.end_offset == 200 * life
            append_numbers(log, 200, start=200 * life)

    with pylog.Log(log_path, mode="r") as log:
        assert values_of(log.read()) == [b"%d" % i for i in range(800)]


def test_closed_log_has_no_preallocated_bytes(log_path):
    with pylog.Log(log_path) as log:
        log.append(b"x" * 1000)

    assert sum(path.stat().st_size for path in log_path.glob("*.log")) < 1100


def test_options_are_stored(log_path):
    options = {"segment_bytes": 8192, "max_message_bytes": 2000, "timestamp_type": "append",
                   "index_interval_bytes": 100, "flush_interval_ms": 7, "durability": "interval"}
    pylog.Log(log_path, **options).close()

    with pylog.Log(log_path) as log:
        assert log.durability == "interval"
        stored = log.stats()["options"]
    assert [stored[name] for name in ("segment_bytes", "max_message_bytes", "flush_interval_ms")] \
        == [8192, 2000, 7]
    pylog.Log(log_path, **options).close()


def test_reader_needs_nobody_to_write(log_path):
    with pylog.Log(log_path) as log:
        append_numbers(log, 5)

    with pylog.Log(log_path, mode="r") as reader:
        assert values_of(reader.read()) == [b"%d" % i for i in range(5)]
        assert (reader.end_offset, reader.readable_offset) == (5, 5)


@pytest.mark.parametrize("durability", ["os", "interval", "fsync"])
def test_flush_makes_durable(log_path, durability):
    with pylog.Log(log_path, durability=durability) as log:
        append_numbers(log, 5)
        log.flush()

        assert log.durable_offset == log.readable_offset == 5


def test_fsync_log_is_durable_on_return(log_path):
    with pylog.Log(log_path, durability="fsync") as log:
        assert log.append(b"a") < log.durable_offset
        assert log.append_many([b"b"] * 10) < log.durable_offset
        log.append_buffer(b"c", [0, 1])
        assert log.durable_offset == log.end_offset == 12


def test_one_append_can_ask_for_more_durability(log):
    log.append(b"a")
    assert log.durable_offset == 0
    log.append(b"b", durability="fsync")
    assert log.durable_offset == 2
    log.append_many([b"c"], durability="fsync")
    assert log.durable_offset == 3


def test_interval_log_is_flushed_by_itself(log_path):
    with pylog.Log(log_path, durability="interval", flush_interval_ms=5) as log:
        log.append(b"a")
        for _ in range(2000):
            if log.durable_offset == 1:
                break
            threading.Event().wait(0.005)

        assert log.durable_offset == 1


def test_closing_ends_waits_of_other_threads(log):
    caught = []

    def follow():
        try:
            list(log.read(follow=True))
        except pylog.PylogError as error:
            caught.append(error)

    reader = threading.Thread(target=follow)
    reader.start()
    log.close()
    reader.join(10)

    assert [type(error) for error in caught] == [pylog.ClosedError]


def test_log_in_a_log_of_one_process_is_shared(log_path):
    with pylog.Log(log_path) as first, pylog.Log(log_path) as second:
        first.append(b"a")
        second.append(b"b")

        assert values_of(first.read()) == values_of(second.read()) == [b"a", b"b"]


def test_record_is_never_stamped_before_the_call(log_path):
    """Who takes the time, appends and then asks for that time must find the record."""
    with pylog.Log(log_path) as log:
        for _ in range(20_000):
            before = time.time_ns() // 1_000_000
            offset = log.append(b"value")
            assert before <= log.get(offset).timestamp <= time.time_ns() // 1_000_000


def test_header_is_the_last_of_its_name(log):
    log.append(b"v", headers=[("a", b"1"), ("b", None), ("a", b"2"), ("", b"nameless"),
                              ("längst", b"3")])
    log.append(b"none")
    record, bare = log.read()

    assert [record.header(name) for name in ("a", "b", "", "längst")] == [
        b"2", None, b"nameless", b"3"]
    assert record.header("c") is None
    assert record.header("b", b"default") is None    # it is there, and null
    assert record.header("aa", b"default") == bare.header("a", b"default") == b"default"


@pytest.mark.parametrize(("name", "error"), [
    (None, TypeError), (b"a", TypeError), (1, TypeError), ("\ud800", UnicodeEncodeError)])
def test_name_of_a_header_is_text(log, name, error):
    log.append(b"v", headers=[("a", b"1")])

    with pytest.raises(error):
        log.get(0).header(name)
