"""The numbers that users pass: offsets, timestamps, counts and options; who counts as an int."""

import datetime as dt
import math

import numpy as np
import pytest

import pylog

NOON = 1_700_000_000_000
BEYOND = [2**63, 2**64, 2**70, -(2**63) - 1, -(2**70)]
BEYOND_ABOVE = [2**63, 2**70]


class Five:
    """An int by `__index__` alone."""

    def __index__(self):
        return 5


FIVES = [5, np.int64(5), np.uint8(5), np.array(5), Five()]
each_five = pytest.mark.parametrize("five", FIVES, ids=lambda v: type(v).__name__)

# By name: a call that takes an offset.
OFFSET_CALLS = {
    "get": lambda log, offset: log.get(offset),
    "fetch": lambda log, offset: log.fetch(offset),
    "batches": lambda log, offset: log.batches(offset),
    "wait": lambda log, offset: log.wait(offset, timeout=0),
    "seek": lambda log, offset: log.cursor().seek(offset),
    "delete_before": lambda log, offset: log.delete_before(offset),
    "if_end": lambda log, offset: log.append(b"", if_end=offset),
    "if_end of many": lambda log, offset: log.append_many([b""], if_end=offset),
}
PLACE_CALLS = {
    "cursor": lambda log, place: log.cursor(place),
    "start": lambda log, place: next(log.read(place)),
    "stop": lambda log, place: list(log.read(0, stop=place)),
    "resolve": lambda log, place: log.resolve(place),
}
each_call = pytest.mark.parametrize(
    "call", [*OFFSET_CALLS.values(), *PLACE_CALLS.values()], ids=[*OFFSET_CALLS, *PLACE_CALLS])


@pytest.fixture
def log(log_path):
    """Ten records, one a millisecond from NOON on; no test may add to them or change them."""
    with pylog.Log(log_path) as log:
        log.append_many([b"%d" % n for n in range(10)], timestamps=range(NOON, NOON + 10))
        yield log
        assert log.end_offset == 10


# ---- what is no int -----------------------------------------------------------------------------

@each_call
@pytest.mark.parametrize("offset", [
    1.0, 1.9, 3.7, np.float64(5), math.nan, b"5", [5], True, False, np.True_, ...,
    np.array([5, 6]), 5j,
], ids=repr)
def test_offsets_that_are_no_ints_are_refused(log, call, offset):
    with pytest.raises(TypeError, match="must be an int"):
        call(log, offset)

    assert log.start_offset == 0


@pytest.mark.parametrize("timestamp", [
    float(NOON), True, np.False_, "now", np.float32(5), np.datetime64(NOON, "ms"),
    dt.datetime(2026, 11, 25, tzinfo=dt.UTC), ...,
], ids=repr)
def test_timestamps_that_are_no_ints_are_refused(log, timestamp):
    with pytest.raises(TypeError, match="timestamp"):
        log.append(b"", timestamp=timestamp)
    with pytest.raises(TypeError, match="timestamp"):
        log.append_many([b"", b""], timestamps=timestamp)
    with pytest.raises(TypeError, match="timestamp"):
        log.append_many([b"", b""], timestamps=[5, timestamp])
    with pytest.raises(TypeError, match="timestamp"):
        log.append_many([b"", b""], timestamps=np.array([timestamp, timestamp]))
    with pytest.raises(TypeError, match="timestamp"):
        log.append_buffer(b"", [0, 0], timestamps=(timestamp,))
    if not isinstance(timestamp, dt.datetime):
        with pytest.raises(TypeError, match="timestamp"):
            log.offset_for_time(timestamp)


@pytest.mark.parametrize("count", [1.0, 2.5, "2", True, None], ids=repr)
@pytest.mark.parametrize("name", ["max_records", "max_bytes"])
def test_counts_that_are_no_ints_are_refused(log, name, count):
    with pytest.raises(TypeError, match=name):
        log.fetch(0, **{name: count})
    with pytest.raises(TypeError, match=name):
        log.cursor().fetch(**{name: count})


# ---- what is an int -----------------------------------------------------------------------------

@each_five
def test_offset_may_be_whatever_stands_for_an_int(log, five):
    assert log.get(five).offset == 5
    assert log.fetch(five)[0].offset == 5
    assert log.fetch(0, max_records=five, max_bytes=five).next_offset == 5
    assert next(log.cursor(five)).offset == 5
    assert [record.offset for record in log.read(five, stop=np.int32(7))] == [5, 6]
    assert [record.offset for record in log.read(np.int8(-2))] == [8, 9]
    assert log.resolve(five) == 5
    assert type(log.resolve(five)) is int
    assert log.wait(five)
    assert len(list(log.batches(five))) == 1
    cursor = log.cursor()
    cursor.seek(five)
    assert cursor.offset == 5
    log.delete_before(five)
    assert log.start_offset == 5


@each_five
def test_timestamp_may_be_whatever_stands_for_an_int(log_path, five):
    with pylog.Log(log_path) as log:
        log.append(b"", timestamp=five)
        log.append_many([b"", b""], timestamps=five)
        log.append_many([b"", b""], timestamps=[five, 5])
        log.append_buffer(b"", [0, 0], timestamps=five)
        log.append_buffer(b"", [0, 0], timestamps=(five,))

        assert [record.timestamp for record in log.read()] == [5] * 7
        assert log.offset_for_time(five) == 0


@each_five
def test_if_end_may_be_whatever_stands_for_an_int(log_path, five):
    with pylog.Log(log_path) as log:
        log.append_many([b""] * 5)

        assert log.append(b"", if_end=five) == 5
        with pytest.raises(pylog.WrongEndOffsetError):
            log.append_many([b""], if_end=five)


def test_options_may_be_whatever_stands_for_an_int(log_path):
    with pylog.Log(log_path, segment_bytes=np.int64(8192), flush_interval_ms=Five(),
                   lock_timeout_ms=np.uint16(300)) as log:
        assert log.stats()["options"]["segment_bytes"] == 8192
        assert log.stats()["options"]["flush_interval_ms"] == 5
        assert log.lock_timeout_ms == 300


def test_log_closed_by_an_argument_is_told(log_path):
    class Closing(Five):
        def __index__(self):
            log.close()
            return super().__index__()

    calls = [*(call for name, call in OFFSET_CALLS.items() if name != "seek"),
             lambda log, number: log.append(b"", timestamp=number),
             lambda log, number: log.append_many([b""], timestamps=[number])]
    for call in calls:
        with pylog.Log(log_path) as log, pytest.raises(pylog.ClosedError):
            call(log, Closing())


# ---- beyond the range ---------------------------------------------------------------------------

READING = [name for name in (*OFFSET_CALLS, *PLACE_CALLS) if not name.startswith("if_end")]


@pytest.mark.parametrize("offset", BEYOND)
@pytest.mark.parametrize("name", READING)
def test_offset_beyond_64_bits_is_out_of_range(log, name, offset):
    if name in PLACE_CALLS and offset < 0:
        return    # from the end: more than there are
    with pytest.raises(pylog.OffsetOutOfRangeError) as caught:
        (OFFSET_CALLS | PLACE_CALLS)[name](log, offset)

    error = caught.value
    assert (error.offset, error.start_offset, error.end_offset) == (offset, 0, 10)


@pytest.mark.parametrize("offset", BEYOND_ABOVE)
def test_following_to_a_stop_beyond_64_bits_is_out_of_range(log, offset):
    with pytest.raises(pylog.OffsetOutOfRangeError):
        log.read(stop=offset, follow=True)


@pytest.mark.parametrize("offset", BEYOND)
@pytest.mark.parametrize("name", ["if_end", "if_end of many"])
def test_if_end_beyond_64_bits_is_a_wrong_end_or_no_offset(log, name, offset):
    wrong = pylog.ConfigurationError if offset < 0 else pylog.WrongEndOffsetError

    with pytest.raises(wrong, match=str(offset)):
        OFFSET_CALLS[name](log, offset)


@pytest.mark.parametrize("timestamp", BEYOND)
def test_timestamp_beyond_64_bits_is_impossible(log, timestamp):
    for call in (
        lambda: log.append(b"", timestamp=timestamp),
        lambda: log.append_many([b""], timestamps=timestamp),
        lambda: log.append_many([b""], timestamps=[timestamp]),
        lambda: log.append_buffer(b"", [0, 0], timestamps=[timestamp]),
        lambda: log.offset_for_time(timestamp),
    ):
        with pytest.raises(pylog.InvalidTimestampError) as caught:
            call()
        assert caught.value.timestamp == timestamp


@pytest.mark.parametrize("stamps", [
    [1, 2, 3], (1, 2, 3), range(1, 4), iter([1, 2, 3]), (n for n in (1, 2, 3)),
    np.array([1, 2, 3], np.uint8), np.array([3, 2, 1])[::-1], memoryview(np.array([1, 2, 3])),
], ids=lambda stamps: type(stamps).__name__)
def test_timestamps_may_be_any_row_of_ints(log_path, stamps):
    with pylog.Log(log_path) as log:
        log.append_many([b""] * 3, timestamps=stamps)

        assert [record.timestamp for record in log.read()] == [1, 2, 3]


def test_impossible_timestamp_in_a_list_or_an_array_is_named_by_its_place(log):
    for stamps in ([5, NOON, -1], (5, NOON, -1), np.array([5, NOON, -1]), [5, NOON, np.int8(-1)]):
        with pytest.raises(pylog.InvalidTimestampError, match=r"timestamps\[2\]") as caught:
            log.append_many([b""] * 3, timestamps=stamps)
        assert (caught.value.index, caught.value.timestamp) == (2, -1)
    with pytest.raises(pylog.InvalidTimestampError) as caught:
        log.append_buffer(b"", [0, 0, 0], timestamps=np.array([1, 2**64 - 1], np.uint64))
    assert (caught.value.index, caught.value.timestamp) == (1, 2**64 - 1)
    with pytest.raises(pylog.InvalidTimestampError) as caught:
        log.append(b"", timestamp=-1)
    assert caught.value.index is None


@pytest.mark.parametrize("count", [0, -1, *BEYOND])
@pytest.mark.parametrize("name", ["max_records", "max_bytes"])
def test_impossible_counts_are_refused(log, name, count):
    with pytest.raises(pylog.ConfigurationError, match=name) as caught:
        log.fetch(0, **{name: count})

    assert (caught.value.option, caught.value.value) == (name, count)


OUT_OF_RANGE = {
    "segment_bytes": [0, 1, 4095, (1 << 30) + 1],
    "max_message_bytes": [0, 127, (1 << 30) + 1],
    "index_interval_bytes": [-1, (1 << 30) + 1],
    "flush_interval_ms": [0, 86_400_001],
    "lock_timeout_ms": [-1, 10**15 + 1],
}


@pytest.mark.parametrize(("name", "number"), [
    (name, number) for name, numbers in OUT_OF_RANGE.items() for number in [*numbers, *BEYOND]
])
def test_option_out_of_its_range_is_named(log_path, name, number):
    with pytest.raises(pylog.ConfigurationError, match=name) as caught:
        pylog.Log(log_path, **{name: number})

    assert (caught.value.option, caught.value.value) == (name, number)
    assert not log_path.exists()


@pytest.mark.parametrize("name", pylog.log.RANGES)
def test_ranges_of_options_are_those_of_the_core(tmp_path, name):
    if name == "lock_timeout_ms":
        return    # of the process, not of the log
    least, most = pylog.log.RANGES[name]

    open_natively(tmp_path / "least", name, least)
    open_natively(tmp_path / "most", name, most)
    for value in ((least or -1) - 1, most + 1):    # -1 itself means the default
        with pytest.raises(pylog.ConfigurationError):
            open_natively(tmp_path / str(value), name, value)


def open_natively(path, name, value):
    """Without the checks of pylog/log.py."""
    path.mkdir()
    numbers = [value if option == name else -1 for option in pylog.log.STORED]
    pylog._native.Log()._open(bytes(path), True, *numbers, 0, 0)


# ---- times --------------------------------------------------------------------------------------

@pytest.mark.parametrize("timeout", [math.nan, np.float64("nan")], ids=repr)
def test_timeout_that_is_no_number_is_refused(log, timeout):
    with pytest.raises(pylog.ConfigurationError, match="nan"):
        log.wait(0, timeout=timeout)


@pytest.mark.parametrize("timeout", ["soon", b"1", [1], dt.timedelta(seconds=1)], ids=repr)
def test_timeout_that_is_no_time_is_refused(log, timeout):
    with pytest.raises(TypeError, match="timeout must be seconds"):
        log.wait(10, timeout=timeout)


@pytest.mark.parametrize("timeout", [math.inf, 1e300, 10**400, 2**63], ids=str)
def test_endless_timeouts_are_taken(log, timeout):
    assert log.wait(9, timeout=timeout)


@pytest.mark.parametrize("timeout", [0, -1, -1e300, -math.inf, np.float32(0.001)], ids=str)
def test_short_timeouts_are_taken(log, timeout):
    assert not log.wait(10, timeout=timeout)
