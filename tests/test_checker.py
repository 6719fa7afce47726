"""The checker: each finding from batches made by hand, and nothing else from hostile ones."""

import gzip
import itertools
import os
import struct

import lz4.frame
import numpy
import pytest
from chances import assert_once_below
from checking import RUN, batch_of, found, stamp, stamps, taken
from handmade import CONTROL, make_batch, make_record, varint, with_crc
from hypothesis import given
from hypothesis import strategies as st

import pylog
from pylog import _native, errors


def test_good_batches_have_nothing_found_in_them():
    checker = taken(stamps(range(5)), stamps(range(5, 9), 5), stamps(range(9, 10), 9))
    figures = checker.figures()

    assert found(checker) == {}
    assert (figures["records"], figures["batches"], figures["next_offset"]) == (10, 3, 10)
    assert (figures["run"], figures["producers"], figures["epoch"]) == (RUN, 1, 0)
    assert checker.seen(0) == [(0, 10, 0, 9)]
    assert checker.seen(1) == checker.seen(1 << 30) == []


# ---- each finding ------------------------------------------------------------------------------


def spoiled(value, at=-1):
    value = bytearray(value)
    value[at] ^= 1
    return bytes(value)


FINDINGS = {
    "torn-batch": ([spoiled(stamps([0, 1]))], {"offset": 0}),
    "corrupt-record": ([batch_of([stamp(0), spoiled(stamp(1))])], {"offset": 1}),
    "foreign-record": ([batch_of([stamp(0), b"plain"])], {"offset": 1}),
    "other-run": ([batch_of([stamp(0), stamp(1, run=78)])],
                  {"offset": 1, "producer": 0, "sequence": 1}),
    "zombie-write": ([batch_of([stamp(0, incarnation=2), stamp(1, incarnation=1)])],
                     {"offset": 1, "sequence": 1, "incarnation": 1, "expected": 2}),
    "duplicate": ([batch_of([stamp(0), stamp(1), stamp(0)])],
                  {"offset": 2, "sequence": 0, "expected": 0}),
    "reordered": ([batch_of([stamp(0), stamp(2), stamp(1)])],
                  {"offset": 2, "sequence": 1, "expected": 1}),
    "offset-gap": ([stamps([0]), stamps([1], 7)], {"offset": 7, "expected": 1}),
    "offset-backwards": ([stamps([0, 1]), stamps([2], 1)], {"offset": 1, "expected": 2}),
    "stale-epoch": ([stamps([0], epoch=3), stamps([1], 1, epoch=2)], {"offset": 1, "expected": 3}),
}


@pytest.mark.parametrize("name", FINDINGS)
def test_finding_is_the_one_and_says_where(name):
    batches, where = FINDINGS[name]
    checker = taken(*batches)

    assert found(checker) == {name: 1}
    (finding,) = checker.findings(name)
    assert {key: finding[key] for key in where} == where
    assert checker.found_total == 1


def test_every_kind_of_finding_has_a_test():
    assert {*FINDINGS, "inconsistent-offset"} == set(_native.FINDINGS)


def test_first_sixteen_of_a_kind_are_kept_and_all_counted():
    checker = taken(batch_of([b"plain"] * 100))

    assert found(checker) == {"foreign-record": 100}
    assert [one["offset"] for one in checker.findings("foreign-record")] == list(range(16))


@pytest.mark.parametrize(("incarnations", "zombies"), [
    ([1, 2, 3], 0), ([40_000, 40_001], 0), ([1, 30_000], 0), ([65_535, 0, 1], 0),
    ([65_535, 0, 65_535], 1), ([3, 2], 1), ([2, 1, 1, 2], 2), ([0, 65_535], 1),
])
def test_incarnations_are_serial_numbers_that_come_round(incarnations, zombies):
    checker = taken(batch_of([stamp(at, incarnation=one) for at, one in enumerate(incarnations)]))

    assert checker.figures()["found"]["zombie-write"] == zombies


def test_unknown_kind_of_finding_is_refused():
    with pytest.raises(ValueError):
        _native.Checker().findings("no-such-kind")


def test_new_epoch_may_skip_offsets_and_is_counted():
    checker = taken(stamps([0]), stamps([1], 1000, epoch=1), stamps([2], 1001, epoch=1))

    assert found(checker) == {}
    assert checker.figures()["cuts"] == 1


def test_gap_inside_the_first_batch_of_an_epoch_is_one():
    payload = make_record(stamp(1), None, offset_delta=3)
    checker = taken(stamps([0]), make_batch(payload, 1, 10, epoch=1, last_delta=3))

    assert found(checker) == {"offset-gap": 1}


@pytest.mark.parametrize("delta", [1, 2, 9])
def test_offsets_that_a_batch_claims_beyond_its_records_are_a_gap(delta):
    checker = taken(stamps([0, 1], last_delta=1 + delta), stamps([2], 2 + delta))

    assert found(checker) == {"offset-gap": 1}
    assert checker.findings("offset-gap")[0]["offset"] == 2


def test_control_batch_takes_its_offset_and_is_no_foreign_record():
    marker = make_batch(make_record(bytes(6), bytes(4)), 1, 1, attributes=CONTROL)

    checker = taken(stamps([0]), marker, stamps([1], 2))

    assert found(checker) == {}
    assert checker.records == 2


def test_run_that_is_not_given_is_the_first_stamps():
    checker = taken(batch_of([stamp(0, run=5), stamp(1, run=5), stamp(2, run=6)]),
                    checker=_native.Checker())

    assert found(checker) == {"other-run": 1}
    assert checker.figures()["run"] == 5


@pytest.mark.parametrize("hostile", [
    stamp(0, producer=1 << 20), stamp(0, producer=2**32 - 1), stamp(2**63), stamp(2**64 - 1),
])
def test_stamp_with_an_absurd_number_takes_no_memory(hostile):
    checker = taken(batch_of([stamp(0), hostile]))

    assert found(checker) == {"other-run": 1}
    assert checker.figures()["memory_bytes"] < 20_000


# ---- the sets -----------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 40), max_size=120))
def test_intervals_are_a_set_of_sequences(sequences):
    checker, at, duplicates, reordered = _native.Checker(RUN), {}, 0, 0
    for offset, sequence in enumerate(sequences):
        checker.take_record(offset, None, stamp(sequence, producer=3))
        duplicates += sequence in at
        reordered += sequence not in at and any(other > sequence for other in at)
        at.setdefault(sequence, offset)

    runs = [[n for _, n in group] for _, group in itertools.groupby(
        enumerate(sorted(at)), lambda pair: pair[1] - pair[0])]
    assert checker.seen(3) == [(run[0], run[-1] + 1, at[run[0]], at[run[-1]]) for run in runs]
    expected = {"duplicate": duplicates, "reordered": reordered}
    assert found(checker) == {name: count for name, count in expected.items() if count}
    assert checker.figures()["producers"] == bool(sequences)


def test_producers_have_sets_of_their_own():
    checker = taken(batch_of([stamp(n // 3, producer=n % 3) for n in range(30)]))

    assert found(checker) == {}
    assert [checker.seen(producer) for producer in range(3)] == [
        [(0, 10, producer, 27 + producer)] for producer in range(3)]


# ---- compressed and resumed batches ------------------------------------------------------------


def compressed(codec, compress, sequences=range(9)):
    plain = stamps(sequences)
    return make_batch(compress(plain[61:]), len(sequences), attributes=codec)


@pytest.mark.parametrize(("codec", "compress"), [(1, gzip.compress), (3, lz4.frame.compress)])
def test_compressed_batch_is_looked_into(codec, compress):
    assert found(taken(compressed(codec, compress))) == {}
    assert found(taken(compressed(codec, compress, [0, 2, 1]))) == {"reordered": 1}


@pytest.mark.parametrize(("codec", "compress"), [
    (1, lambda data: data), (3, lambda data: data), (2, lambda data: data),
    (4, lambda data: data), (5, lambda data: data), (7, lambda data: data),
    (3, gzip.compress), (1, lz4.frame.compress), (3, lambda data: b""),
    (3, lambda data: lz4.frame.compress(data)[:-5]), (1, lambda data: gzip.compress(data)[:-9]),
    (3, lambda data: lz4.frame.compress(data + b"x")), (3, lambda data: lz4.frame.compress(b"")),
])
def test_compressed_batch_that_does_not_decompress_is_torn(codec, compress):
    checker = taken(compressed(codec, compress))

    assert found(checker) == {"torn-batch": 1}
    assert checker.next_offset == 9    # as far as the header goes


@pytest.mark.parametrize("first", range(1, 6))
def test_resumed_batch_passes_over_what_was_checked(first):
    checker = taken(stamps(range(first)))
    checker.take_batch(stamps(range(6)), is_resumed=True)

    assert found(checker) == {}
    assert (checker.records, checker.next_offset) == (6, 6)


def test_same_batch_again_is_found_unless_resumed():
    batch = stamps(range(4))
    checker = taken(batch, batch)

    assert found(checker) == {"offset-backwards": 1, "duplicate": 4}


def test_after_a_seek_any_offset_may_come_and_sequences_are_kept():
    checker = taken(stamps([0]))
    checker.seek(-1)
    checker.take_batch(stamps([5], 50))
    checker.seek(60)
    checker.take_batch(stamps([6], 61))

    assert found(checker) == {"offset-gap": 1}
    assert checker.seen(0) == [(0, 1, 0, 0), (5, 7, 50, 61)]


# ---- hostile batches ----------------------------------------------------------------------------

GOOD = stamps(range(3))


def test_every_truncation_is_torn():
    for size in range(len(GOOD)):
        assert found(taken(GOOD[:size])) == {"torn-batch": 1}, size


@pytest.mark.parametrize("more", [b"\0", GOOD, bytes(61)])
def test_bytes_behind_a_batch_make_it_torn(more):
    assert found(taken(GOOD + more)) == {"torn-batch": 1}


def test_every_flipped_bit_is_found_but_in_base_and_epoch():
    for at in range(8 * len(GOOD)):
        checker = taken(bytes(spoil(GOOD, at)), checker=_native.Checker(RUN, 0))
        byte = at // 8
        if byte < 8:
            assert set(found(checker)) <= {"offset-gap", "torn-batch"}, at
            assert found(checker), at
        elif 12 <= byte < 16:
            assert found(checker) == {}, at    # any first epoch may be
        else:
            assert found(checker) == {"torn-batch": 1}, at


def spoil(data, bit):
    data = bytearray(data)
    data[bit // 8] ^= 1 << bit % 8
    return data


def test_every_flipped_byte_behind_a_right_crc_is_found():
    """The CRC is made right again: what the record says of itself is all that is left."""
    for at in range(61, len(GOOD)):
        batch = bytearray(GOOD)
        batch[at] ^= 0xFF
        checker = taken(with_crc(bytes(batch)))
        names = set(found(checker))
        is_unchecked = names == set() and checker.figures()["records"] == 3
        assert names or is_unchecked, at
        if is_unchecked:    # attributes and time of a record: of these a stamp says nothing
            assert at in unchecked_places()


def unchecked_places():
    size = len(make_record(stamp(0), None, offset_delta=0))
    return {61 + size * n + behind for n in range(3) for behind in (2, 3)}


HOSTILE = [-2, -1, 0, 1, 47, 48, 1 << 20, 2**31 - 1, -(2**31)]


@pytest.mark.parametrize("number", HOSTILE)
@pytest.mark.parametrize("place", range(5))
def test_record_with_a_hostile_length_or_count_crashes_nothing(number, place):
    fields = [varint(0), varint(0), varint(-1), varint(60) + stamp(0, filler=b"x" * 12), varint(0)]
    if place in (2, 3):
        fields[place] = varint(number) + b"abc"
    else:
        fields[place] = varint(number)
    body = b"\0" + b"".join(fields)
    checker = taken(make_batch(varint(len(body)) + body, 1))

    assert set(found(checker)) <= {"torn-batch", "foreign-record", "offset-gap"}
    assert checker.figures()["batches"] == 1


@pytest.mark.parametrize("size", HOSTILE)
def test_record_of_a_hostile_size_is_torn(size):
    batch = make_batch(make_record(stamp(0), None, size=size), 1)

    assert found(taken(batch))["torn-batch"] == 1


@pytest.mark.parametrize("bytes_of_varint", [b"\x80" * 5, b"\xff" * 10, b"\x80" * 4 + b"\x10",
                                             b"\x80", b"\xff\xff\xff\xff\x7f"])
def test_record_whose_size_is_no_varint_is_torn(bytes_of_varint):
    assert found(taken(make_batch(bytes_of_varint, 1))) == {"torn-batch": 1}


@pytest.mark.parametrize(("count", "last_delta"), [
    (4, 2), (2, 2), (2, 1), (0, 2), (0, 0), (-1, 2), (-(2**31), 2), (2**31 - 1, 2**31 - 1),
    (3, 1), (3, -1), (3, -(2**31)), (1 << 20, 1 << 21),
])
def test_count_that_is_not_the_records_is_torn(count, last_delta):
    batch = make_batch(GOOD[61:], count, last_delta=last_delta)

    assert found(taken(batch))["torn-batch"] == 1


@pytest.mark.parametrize("deltas", [(0, 0), (1, 0), (0, 5), (-1, 0), (0, -(2**31))])
def test_offsets_that_do_not_rise_within_a_batch_are_torn(deltas):
    payload = b"".join(make_record(stamp(n), None, offset_delta=delta)
                       for n, delta in enumerate(deltas))

    assert found(taken(make_batch(payload, 2)))["torn-batch"] == 1


@pytest.mark.parametrize("base", [-1, -(2**63), 2**63 - 1, 2**63 - 3])
def test_offset_that_no_log_has_is_torn(base):
    assert found(taken(batch_of([stamp(0)] * 3, base))) == {"torn-batch": 1}


@pytest.mark.parametrize("offset", [-1, -(2**63), 2**63 - 1])
def test_record_with_an_offset_that_no_log_has_is_found(offset):
    checker = _native.Checker(RUN, folds=numpy.zeros(4, numpy.int64))
    checker.take_record(offset, None, stamp(0))
    checker.take_record(0, None, stamp(0))

    assert found(checker) == {"offset-backwards": 1}


@pytest.mark.parametrize("arguments", [(-1,), (1 << 64,), ("x",), (1, 1 << 63), (1, 0, b"x" * 8),
                                       (1, 0, numpy.zeros(4)), (1, 0, [1])])
def test_impossible_checkers_are_refused(arguments):
    with pytest.raises((OverflowError, TypeError, ValueError, BufferError)):
        _native.Checker(*arguments)


@pytest.mark.parametrize("batch", [None, 5, "text", [b"x"]])
def test_what_is_no_buffer_is_refused(batch):
    with pytest.raises(TypeError):
        _native.Checker().take_batch(batch)


def test_random_bytes_are_torn(rng):
    checker = _native.Checker(RUN)
    for _ in range(2000):
        checker.take_batch(rng.randbytes(rng.randrange(200)))

    assert found(checker) == {"torn-batch": 2000}


@pytest.mark.parametrize("resumed", [0, 1, 2])
def test_batch_of_an_old_epoch_is_one_finding_however_many_records_it_has(resumed):
    """Also where it is taken twice, as an open batch that has grown meanwhile."""
    checker = taken(stamps([0], epoch=3), stamps([1, 2, 3], 1, epoch=2))
    for _ in range(resumed):
        checker.take_batch(stamps([1, 2, 3, 4], 1, epoch=2), is_resumed=True)
    taken(stamps([4 + (resumed > 0)], 4 + (resumed > 0), epoch=3), checker=checker)

    assert found(checker) == {"stale-epoch": 1}


# ---- chunks -------------------------------------------------------------------------------------


@pytest.mark.parametrize("compression", [None, "lz4"])
def test_chunks_batches_and_records_of_a_log_give_the_same_figures(log_path, compression):
    with pylog.Log(log_path, compression=compression) as log:
        values, keys = _native.stamp_values(RUN, 1, 1, 0, [60, 10, -1, 300] * 200)
        log.append_many(values, keys=keys)
        by_chunk, by_batch, by_record = (_native.Checker(RUN) for _ in range(3))
        offset = 0
        while by_chunk.take_chunk(chunk := log.fetch(offset, max_bytes=5000)):
            offset = chunk.next_offset
        log.flush()
        for batch in log.batches(0):
            by_batch.take_batch(batch)
        for record in log.read():
            by_record.take_record(record.offset, record.key, record.value)

    for checker in (by_chunk, by_batch, by_record):
        assert found(checker) == {}
        assert checker.seen(1) == [(0, 800, 0, 799)]


def test_chunk_is_needed():
    with pytest.raises(TypeError):
        _native.Checker().take_chunk(None)


def test_values_that_are_no_bytes_are_refused():
    with pytest.raises((TypeError, errors.PylogError)):
        _native.Checker().take_record(0, "key", "value")


# ---- memory -------------------------------------------------------------------------------------


def resident_bytes():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")


def feed(checker, start, end):
    """Records of eight producers in turn, 400 a batch."""
    for base in range(start, end, 400):
        producer, turn = base // 400 % 8, base // 3200
        values, _ = _native.stamp_values(RUN, producer, 1, 400 * turn, [64] * 400)
        checker.take_batch(_native.encode_batch(values, timestamps=[5] * 400, base_offset=base))


def check_growth(small, large):
    """Others have memory, too: a collection of garbage, a page that the kernel had taken away. So
    there are some chances; what grows with the records grows each time."""
    assert_once_below((1 << 20) + 1, lambda number: growth(small, large), tries=3)


def growth(small, large):
    """Bytes of memory that this process has more of, with so many records more."""
    checker = _native.Checker(RUN)
    feed(checker, 0, small)
    own, resident = checker.figures()["memory_bytes"], resident_bytes()
    feed(checker, small, large)
    grown = resident_bytes() - resident
    print(f"{small:,} records: {own:,} bytes of its own, {resident:,} resident; "
          f"{large:,}: {checker.figures()['memory_bytes']:,}, {grown:+,} resident")

    assert found(checker) == {}
    assert checker.records == large
    assert checker.figures()["memory_bytes"] == own < 20_000
    return grown


def test_memory_does_not_grow_with_the_records():
    check_growth(80_000, 800_000)


@pytest.mark.soak
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("large", [10_000_000, 100_000_000])
def test_memory_does_not_grow_with_ten_times_as_many_records(large):
    check_growth(large // 10, large)


def test_memory_grows_with_the_holes_by_the_size_of_an_interval():
    checker = _native.Checker(RUN)
    before = checker.figures()["memory_bytes"]
    for offset in range(1000):
        checker.take_record(offset, None, stamp(2 * offset))

    assert len(checker.seen(0)) == 1000
    assert checker.figures()["memory_bytes"] - before <= 64 * 32 + 1024 * struct.calcsize("QQqq")
