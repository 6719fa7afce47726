"""Stamps: a record that came through whole proves itself, and no other does."""

import numpy
import pytest
from handmade import read_batch

import pylog
from pylog import _native

SIZES = [-1, 0, 1, 47, 48, 49, 55, 56, 57, 100, 1000]


def stamped(size, sequence=7):
    (value,), keys = _native.stamp_values(11, 3, 2, sequence, [size])
    return keys[0] if keys else None, value


@pytest.mark.parametrize("size", SIZES)
def test_stamp_comes_back_from_a_value_of_any_size(size):
    key, value = stamped(size)
    found = _native.read_stamp(key, value)

    assert (None if value is None else len(value)) == (None if size < 0 else size)
    assert (key is None) == (size >= _native.STAMP_BYTES)
    assert (found["run"], found["producer"], found["incarnation"], found["sequence"]) == (
        11, 3, 2, 7)


def test_greatest_numbers_come_back():
    (value,), _ = _native.stamp_values(2**64 - 1, 2**32 - 1, 2**16 - 1, 2**64 - 1, [48], 2**16 - 1)
    found = _native.read_stamp(None, value)

    assert (found["run"], found["producer"], found["incarnation"]) == (
        2**64 - 1, 2**32 - 1, 2**16 - 1)
    assert (found["sequence"], found["flags"]) == (2**64 - 1, 2**16 - 1)


def test_sequences_and_clock_rise_over_a_call():
    values, keys = _native.stamp_values(1, 1, 1, 100, [60] * 5)
    found = [_native.read_stamp(None, value) for value in values]

    assert keys is None
    assert [one["sequence"] for one in found] == [100, 101, 102, 103, 104]
    assert _native.read_stamp(*stamped(60))["sent_ns"] >= found[0]["sent_ns"] > 0


def test_fillers_of_different_records_differ():
    fillers = {(producer, sequence): _native.stamp_values(1, producer, 1, sequence, [64])[0][0][48:]
               for producer in range(20) for sequence in range(50)}

    assert len(set(fillers.values())) == len(fillers)


@pytest.mark.parametrize("size", SIZES)
def test_every_changed_bit_breaks_the_stamp(size):
    key, value = stamped(size)
    for name, whole in (("key", key), ("value", value)):
        for at in range(8 * len(whole or b"")):
            changed = bytearray(whole)
            changed[at // 8] ^= 1 << at % 8
            pair = (changed, value) if name == "key" else (key, changed)
            wanted = None if at < 32 and (name == "key" or size >= 48) else False
            assert _native.read_stamp(*pair) is wanted, (name, at)    # None: the magic is gone


@pytest.mark.parametrize("size", [48, 60, 200])
def test_value_that_lost_or_gained_bytes_is_broken(size):
    _, value = stamped(size)

    for cut in range(48, size):
        assert _native.read_stamp(None, value[:cut]) is False
    for more in (b"\0", bytes(48), value):
        assert _native.read_stamp(None, value + more) is False


@pytest.mark.parametrize("size", [-1, 0, 1, 30, 47])
def test_stamp_in_the_key_vouches_for_the_short_value(size):
    key, value = stamped(size)

    for other in (b"", None, b"x", bytes(47)):
        if (other or b"") != (value or b""):
            assert _native.read_stamp(key, other) is False
    assert _native.read_stamp(key, bytes(48)) is None    # a long value has its own


@pytest.mark.parametrize(("key", "value"), [
    (None, None), (b"", b""), (None, b""), (b"k", b"v"), (bytes(47), b""), (bytes(49), b""),
    (bytes(48), b""), (bytes(48), None), (None, bytes(48)), (None, bytes(10_000)),
    (None, b"plS" + bytes(60)), (None, b"plSTx" + bytes(42)), (b"plST" * 11, b""),
])
def test_record_of_somebody_else_has_no_stamp(key, value):
    assert _native.read_stamp(key, value) is None


@pytest.mark.parametrize(("key", "value"), [
    (b"plST" + bytes(44), b""), (None, b"plST" + bytes(44)), (None, b"plST" * 20),
])
def test_magic_alone_is_a_broken_stamp(key, value):
    assert _native.read_stamp(key, value) is False


@pytest.mark.parametrize("arguments", [
    (-1, 1, 1, 0, [48]), (1 << 64, 1, 1, 0, [48]), (1, 1 << 32, 1, 0, [48]),
    (1, 1, 1 << 16, 0, [48]), (1, 1, 1, -1, [48]), (1, 1, 1, 0, [48], 1 << 16),
    ("1", 1, 1, 0, [48]), (1, 1, 1, 0, ["x"]), (1, 1, 1, 0, [[48]]), (1, 1, 1, 0, None),
])
def test_impossible_stamps_are_refused(arguments):
    with pytest.raises((OverflowError, TypeError, ValueError)):
        _native.stamp_values(*arguments)


def test_no_sizes_make_no_values():
    assert _native.stamp_values(1, 1, 1, 0, numpy.array([], numpy.int64)) == ([], None)


@pytest.mark.parametrize("compression", [None, "lz4"])
def test_stamps_pass_through_a_log_and_another_decoder(log_path, compression):
    values, keys = _native.stamp_values(5, 1, 1, 0, SIZES)
    with pylog.Log(log_path, compression=compression) as log:
        log.append_many(values, keys=keys)
        records = list(log.read())
        (batch,) = map(bytes, log.batches(0))

    by_hand = read_batch(batch, decompress=lambda data: pylog.compression.decompress(
        3, data, 1 << 20))
    for found in (records, by_hand):
        assert [_native.read_stamp(one.key, one.value)["sequence"] for one in found] == list(
            range(len(SIZES)))
