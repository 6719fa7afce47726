"""Bad arguments and bad moments, each with its own error, and nothing appended or lost by it."""

import contextlib
import copy
import itertools
import pickle
import threading

import numpy as np
import pytest
from children import in_child

import pylog

KEPT = [b"kept %d" % i for i in range(10)]


@pytest.fixture
def log(log_path):
    """A log with KEPT in it; whatever a test did, they are all that is there in the end."""
    with pylog.Log(log_path, max_message_bytes=100_000) as log:
        log.append_many(KEPT)
        yield log
    with pylog.Log(log_path) as log:
        assert [record.value for record in log.read()] == KEPT


# ---- appending ----------------------------------------------------------------------------------

NOT_BYTES = ["text", 5, 1.5, ["a"], {"a": 1}, object(), memoryview(b"abcd")[::2]]


@pytest.mark.parametrize("value", NOT_BYTES, ids=lambda v: type(v).__name__)
def test_what_is_not_bytes_like_is_refused(log, value):
    with pytest.raises(TypeError):
        log.append(value)
    with pytest.raises(TypeError):
        log.append(b"", key=value)
    with pytest.raises(TypeError):
        log.append_many([b"fine", value])
    with pytest.raises(TypeError):
        log.append_many([b"fine", b"fine"], keys=[value, b"fine"])


@pytest.mark.parametrize("headers", [
    {"name": "text"}, {b"name": b"x"}, [("name",)], [("name", b"x", b"y")], ["name"], 5, {"n": 5},
], ids=repr)
def test_headers_that_are_not_pairs_of_str_and_bytes_are_refused(log, headers):
    with pytest.raises(TypeError):
        log.append(b"", headers=headers)
    with pytest.raises(TypeError):
        log.append_many([b"", b""], headers=[None, headers])


@pytest.mark.parametrize("headers", [{"name": b"x"}, {}, "name", b"name", 5], ids=repr)
def test_headers_of_many_that_are_not_one_for_each_are_told_so(log, headers):
    with pytest.raises(TypeError, match="for each value, not"):
        log.append_many([b""], headers=headers)


@pytest.mark.parametrize("headers", [5, 1.5, object, pylog], ids=repr)
def test_headers_that_are_no_list_are_named(log, headers):
    with pytest.raises(TypeError, match=rf"pairs.*, not {type(headers).__name__}"):
        log.append(b"", headers=headers)
    with pytest.raises(TypeError, match=rf"pairs.*, not {type(headers).__name__}"):
        log.append_many([b""], headers=[headers])


@pytest.mark.parametrize("size", [99_940, 100_000, 100_001, 5_000_000])
def test_too_large_a_record_is_refused(log, size):
    value = bytes(size)

    with pytest.raises(pylog.MessageSizeTooLargeError):
        log.append(value)
    with pytest.raises(pylog.MessageSizeTooLargeError):
        log.append(b"", key=value)
    with pytest.raises(pylog.MessageSizeTooLargeError):
        log.append(b"", headers={"h": value})
    with pytest.raises(pylog.MessageSizeTooLargeError):
        log.append_many([b"fine", value])
    with pytest.raises(pylog.MessageSizeTooLargeError):
        log.append_buffer(value + b"x", [0, 1, size + 1])


def test_too_large_an_atomic_batch_is_refused(log):
    with pytest.raises(pylog.MessageSizeTooLargeError):
        log.append_many([bytes(1000)] * 100, atomic=True)
    with pytest.raises(pylog.MessageSizeTooLargeError):
        log.append_many([bytes(1000)] * 100, if_end=len(KEPT))


def test_batch_that_fits_no_segment_is_refused(closed):
    with pylog.Log(closed) as log:
        with pytest.raises(pylog.MessageSizeTooLargeError):
            log.append(bytes(5000))
        with pytest.raises(pylog.MessageSizeTooLargeError):
            log.append_many([bytes(1000)] * 5, atomic=True)
        assert log.end_offset == 300


def test_lists_of_other_lengths_are_refused(log):
    with pytest.raises(pylog.ConfigurationError):
        log.append_many([b"a", b"b"], keys=[b"k"])
    with pytest.raises(pylog.ConfigurationError):
        log.append_many([b"a", b"b"], headers=[None] * 3)
    with pytest.raises(pylog.ConfigurationError):
        log.append_many([b"a", b"b"], timestamps=[1, 2, 3])
    with pytest.raises(pylog.ConfigurationError):
        log.append_buffer(b"ab", [0, 1, 2], timestamps=[1])
    with pytest.raises(pylog.ConfigurationError):
        log.append_many([], keys=[b"k"])


@pytest.mark.parametrize("values", [b"bytes", "text", 5, None], ids=repr)
def test_values_that_are_no_list_are_refused(log, values):
    with pytest.raises(TypeError, match=rf"a list with a value each, not {type(values).__name__}"):
        log.append_many(values)


@pytest.mark.parametrize("timestamp", [-1, 253402300800000, 2**63, 2**70, -(2**70)])
def test_impossible_timestamps_are_refused(log, timestamp):
    with pytest.raises(pylog.InvalidTimestampError):
        log.append(b"", timestamp=timestamp)
    with pytest.raises(pylog.InvalidTimestampError):
        log.append_many([b"", b""], timestamps=timestamp)
    with pytest.raises(pylog.InvalidTimestampError):
        log.append_many([b"", b""], timestamps=[5, timestamp])
    with pytest.raises(pylog.InvalidTimestampError):
        log.append_buffer(b"", [0, 0], timestamps=[timestamp])


@pytest.mark.parametrize("timestamp", [1.5, "now", b"1", [1], float("nan")], ids=repr)
def test_timestamps_that_are_no_ints_are_refused(log, timestamp):
    with pytest.raises(TypeError):
        log.append(b"", timestamp=timestamp)
    with pytest.raises((TypeError, ValueError)):
        log.append_many([b"", b""], timestamps=[5, timestamp])


@pytest.mark.parametrize("positions", [
    [-1, 3], [0, 7], [3, 2], [0, 3, 2, 6], [0, 2**62], [], [2**63 - 1, 0],
], ids=repr)
def test_positions_outside_the_payload_are_refused(log, positions):
    with pytest.raises(pylog.ConfigurationError):
        log.append_buffer(b"abcdef", positions)


@pytest.mark.parametrize("positions", [
    [0.5, 1.5], ["0", "1"], [[0, 1], [1, 2]], 5, None, [float("nan"), 1], [2**63, 2**64],
], ids=repr)
def test_positions_that_are_no_row_of_ints_are_refused(log, positions):
    with pytest.raises(TypeError):
        log.append_buffer(b"abcdef", positions)


@pytest.mark.parametrize("payload", ["text", 5, None, [1, 2], np.zeros((4, 4))[:, ::2]])
def test_payload_that_is_no_buffer_is_refused(log, payload):
    with pytest.raises((TypeError, ValueError, BufferError)):
        log.append_buffer(payload, [0, 1])


def test_impossible_if_end_is_refused(log):
    with pytest.raises(pylog.ConfigurationError):
        log.append(b"", if_end=-1)
    with pytest.raises(pylog.ConfigurationError):
        log.append_many([b""], if_end=-1)
    with pytest.raises(TypeError):
        log.append(b"", if_end="end")
    with pytest.raises(pylog.WrongEndOffsetError):
        log.append_many([b""], if_end=len(KEPT) + 1)


def test_unknown_durability_of_one_append_is_refused(log):
    with pytest.raises(pylog.ConfigurationError):
        log.append(b"", durability="sync")
    with pytest.raises(pylog.ConfigurationError):
        log.append_many([b""], durability=True)


@pytest.mark.parametrize("append", [
    lambda log: log.append(b"v", durability="interval"),
    lambda log: log.append_many([b"v"], durability="interval"),
    lambda log: log.append_many([b"v"], atomic=True, durability="interval"),
    lambda log: log.append_many([], durability="interval"),
])
def test_interval_of_one_call_is_refused_where_nobody_flushes(log, append):
    end = log.end_offset

    with pytest.raises(pylog.ConfigurationError, match="use 'fsync', or flush") as caught:
        append(log)
    assert (caught.value.option, caught.value.stored) == ("durability", "os")
    assert log.end_offset == end


@pytest.mark.parametrize(("stored", "durability"), [
    ("os", "os"), ("interval", "os"), ("interval", "interval"), ("fsync", "os"),
    ("fsync", "interval"), ("fsync", "fsync"),
])
def test_durability_of_one_call_may_be_what_the_log_does_or_less(log_path, stored, durability):
    with pylog.Log(log_path, durability=stored) as log:
        log.append(b"v", durability=durability)
        log.append_many([b"v", b"w"], durability=durability)

        assert log.readable_offset == 3
        assert log.durable_offset == 3 or stored != "fsync"


def test_generator_that_raises_appends_nothing(log):
    def values():
        yield b"one"
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        log.append_many(values())


# ---- lists that change under the call ------------------------------------------------------------

@pytest.mark.parametrize("change", [
    lambda values: values.clear(),
    lambda values: values.__setitem__(slice(None), [5] * len(values)),
], ids=["emptied", "filled with ints"])
@pytest.mark.parametrize("options", [{}, {"atomic": True}], ids=["runs", "atomic"])
def test_list_changed_by_a_later_argument_is_refused(log, change, options):
    values = [b"%d" % number for number in range(1000)]

    def keys():
        change(values)
        yield from [None] * len(values)

    with pytest.raises((pylog.IllegalStateError, TypeError)):
        log.append_many(values, keys=keys(), **options)


def whole_values(generation):
    return [b"%d:%d " % (generation, number) * 400 for number in range(512)]


def change_until(stopped, values):
    for generation in itertools.count(1):
        if stopped.is_set():
            return
        values[:] = whole_values(generation)


@pytest.mark.parametrize("compression", [None, "lz4"])
def test_list_changed_by_another_thread_gives_whole_values_only(tmp_path, compression):
    values, stopped = whole_values(0), threading.Event()
    thread = threading.Thread(target=change_until, args=(stopped, values))
    thread.start()
    try:
        for number in range(6):    # the first append of each log waits without the GIL
            with pylog.Log(tmp_path / str(number), compression=compression) as log:
                log.append_many(values)
                for record in log.read():
                    first = record.value.split(b" ")[0]
                    assert record.value == (first + b" ") * 400
                    assert first.endswith(b":%d" % record.offset)
    finally:
        stopped.set()
        thread.join()


def test_list_emptied_by_another_thread_is_told_or_too_late(tmp_path):
    for number in range(10):
        values = whole_values(0) * 8
        timer = threading.Timer(0.001 * number, values.clear)
        with pylog.Log(tmp_path / str(number), compression="lz4") as log:
            timer.start()
            with contextlib.suppress(pylog.IllegalStateError):
                log.append_many(values)
            timer.join()
            assert log.end_offset in (0, 512 * 8)


# ---- reading ------------------------------------------------------------------------------------

@pytest.mark.parametrize("offset", [-1, 11, 2**40, 2**63 - 1])
def test_offset_out_of_range_is_told(log, offset):
    with pytest.raises(pylog.OffsetOutOfRangeError):
        log.fetch(offset)
    with pytest.raises(pylog.OffsetOutOfRangeError):
        log.get(offset)
    with pytest.raises(pylog.OffsetOutOfRangeError):
        list(log.batches(offset))
    with pytest.raises(pylog.OffsetOutOfRangeError):
        log.delete_before(offset)
    if offset > 0:
        with pytest.raises(pylog.OffsetOutOfRangeError):
            next(log.cursor(offset))
        with pytest.raises(pylog.OffsetOutOfRangeError):
            next(log.read(offset))


def test_getting_the_end_says_that_nothing_is_there_yet(log):
    with pytest.raises(pylog.OffsetOutOfRangeError, match="wait"):
        log.get(len(KEPT))
    with pytest.raises(IndexError):
        log.fetch(0)[len(KEPT)]


@pytest.mark.parametrize("start", ["first", 1.5, True, None, b"earliest"], ids=repr)
def test_start_that_is_none_is_refused(log, start):
    with pytest.raises((pylog.ConfigurationError, TypeError)):
        log.read(start)
    with pytest.raises((pylog.ConfigurationError, TypeError)):
        log.cursor(start)


def test_reading_with_impossible_bounds_is_refused(log):
    with pytest.raises(pylog.ConfigurationError):
        log.fetch(0, max_records=0)
    with pytest.raises(pylog.ConfigurationError):
        log.fetch(0, max_bytes=-5)
    with pytest.raises(pylog.ConfigurationError):
        log.read(on_corruption="ignore")
    with pytest.raises(TypeError):
        log.fetch("0")
    with pytest.raises(TypeError):
        log.wait(0, timeout="soon")


def test_one_cursor_in_two_threads_is_refused(log):
    cursor, caught = log.read("latest", follow=True), []

    def follow():
        try:
            next(cursor)
        except pylog.PylogError as error:
            caught.append(error)

    threads = [threading.Thread(target=follow) for _ in range(2)]
    for thread in threads:
        thread.start()
    while not caught:
        threading.Event().wait(0.001)
    with pytest.raises(pylog.IllegalStateError):
        cursor.fetch()
    with pytest.raises(pylog.IllegalStateError):
        cursor.seek(0)
    log.close()
    for thread in threads:
        thread.join()

    assert [type(error) for error in caught] == [pylog.IllegalStateError, pylog.ClosedError]


@pytest.mark.parametrize("arguments", [(), (5,), ("log", 0), (None,)], ids=repr)
@pytest.mark.parametrize("kind", [pylog.Record, pylog.Chunk, pylog.Cursor])
def test_what_comes_out_of_a_log_is_not_made_by_hand(kind, arguments):
    with pytest.raises(TypeError, match="come out of a log"):
        kind(*arguments)


# ---- the object's state -------------------------------------------------------------------------

EVERY_CALL = {
    "append": lambda log: log.append(b""),
    "append_many": lambda log: log.append_many([b""]),
    "append_buffer": lambda log: log.append_buffer(b"", [0, 0]),
    "flush": lambda log: log.flush(),
    "delete_before": lambda log: log.delete_before(1),
    "read": lambda log: list(log.read()),
    "fetch": lambda log: log.fetch(0),
    "get": lambda log: log.get(0),
    "batches": lambda log: log.batches(0),
    "cursor": lambda log: log.cursor(),
    "wait": lambda log: log.wait(0),
    "offset_for_time": lambda log: log.offset_for_time(0),
    "stats": lambda log: log.stats(),
    "check": lambda log: log.check(),
    "start_offset": lambda log: log.start_offset,
    "end_offset": lambda log: log.end_offset,
    "readable_offset": lambda log: log.readable_offset,
    "durable_offset": lambda log: log.durable_offset,
    "size_bytes": lambda log: log.size_bytes,
}
WRITING = ["append", "append_many", "append_buffer", "flush", "delete_before"]
each_call = pytest.mark.parametrize("call", EVERY_CALL.values(), ids=EVERY_CALL)


@each_call
def test_use_after_close_is_told(log, call):
    log.close()

    with pytest.raises(pylog.ClosedError):
        call(log)


@each_call
def test_use_after_fork_is_told(log, call):
    error = in_child(lambda: call(log))

    assert isinstance(error, pylog.IllegalStateError)
    assert log.wait(0)


@each_call
def test_use_before_opening_is_told(call):
    with pytest.raises(pylog.IllegalStateError):
        call(pylog.Log.__new__(pylog.Log))


def test_properties_of_a_log_that_was_never_opened_are_told():
    for name in ("durability", "recovered"):
        with pytest.raises(pylog.IllegalStateError):
            getattr(pylog.Log.__new__(pylog.Log), name)


class Closing(dict):
    """Headers that close the log when they are looked at."""

    def __init__(self, log):
        super().__init__(name=b"value")
        self.log = log

    def items(self):
        self.log.close()
        return super().items()


@pytest.mark.parametrize("call", [
    lambda log, closing: log.append(b"x", headers=closing),
    lambda log, closing: log.append_many([b"x"], headers=[closing]),
    lambda log, closing: log.append_many([b"x"], headers=[closing], atomic=True),
    lambda log, closing: log.append_many(b"x" for _ in closing.items()),
], ids=["append", "runs", "atomic", "values"])
def test_log_closed_by_its_own_argument_takes_nothing_more(log_path, call):
    log = pylog.Log(log_path)
    log.append(b"before")

    with pytest.raises(pylog.ClosedError):
        call(log, Closing(log))

    with pylog.Log(log_path) as log:
        assert log.recovered is None
        assert [record.value for record in log.read()] == [b"before"]


def test_cursor_and_batches_after_close_are_told(log):
    cursor, batches = log.cursor(), log.batches(0)
    log.close()

    with pytest.raises(pylog.ClosedError):
        next(cursor)
    with pytest.raises(pylog.ClosedError):
        cursor.fetch()
    with pytest.raises(pylog.ClosedError):
        next(batches)


def test_logs_are_not_pickled_or_copied(log):
    for act in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="path"):
            act(log)


@pytest.mark.parametrize("act", [pickle.dumps, copy.copy, copy.deepcopy])
def test_chunks_and_cursors_are_not_pickled_or_copied(log, act):
    with pytest.raises(TypeError, match=r"values\(\)"):
        act(log.fetch(0))
    with pytest.raises(TypeError, match="offset"):
        act(log.cursor())

    assert pickle.loads(pickle.dumps(list(log.fetch(0)))) == list(log.read())


@pytest.mark.parametrize("name", WRITING)
def test_reader_does_not_write(closed, name):
    with pylog.Log(closed, mode="r") as log, pytest.raises(pylog.ReadOnlyLogError):
        EVERY_CALL[name](log)


def test_opening_twice_with_one_object_is_refused(log, tmp_path):
    with pytest.raises(pylog.IllegalStateError):
        log.__init__(tmp_path / "other")
