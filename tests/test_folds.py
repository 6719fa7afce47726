"""Folds: two checkers that saw different records under one offset find out, whenever they look."""

import functools

import numpy
import pytest
from checking import RUN, found, stamp, taken

from pylog import _native

FOLD = _native.FOLD_RECORDS


@functools.cache
def fold_values():
    """Of two whole blocks and a part of one."""
    return _native.stamp_values(RUN, 0, 1, 0, [56] * (2 * FOLD + 512))[0]


def fold_batches(changed=None):
    """Batches of them; `changed`: the sequence of a record that is another one."""
    values = list(fold_values())
    if changed is not None:
        values[changed] = stamp(changed, filler=b"other")
    return [_native.encode_batch(values[base:base + 512], timestamps=[5] * 512, base_offset=base)
            for base in range(0, len(values), 512)]


def test_checkers_that_share_folds_agree_on_the_same_records():
    folds = numpy.zeros(8, numpy.int64)
    for _ in range(2):
        assert found(taken(*fold_batches(), checker=_native.Checker(RUN, folds=folds))) == {}

    assert numpy.count_nonzero(folds) == 2


@pytest.mark.parametrize(("changed", "block"), [(0, 0), (FOLD - 1, 0), (FOLD, 1),
                                                (2 * FOLD - 1, 1), (2 * FOLD, None)])
def test_record_that_another_checker_saw_otherwise_is_found_by_its_block(changed, block):
    folds = numpy.zeros(8, numpy.int64)
    taken(*fold_batches(), checker=_native.Checker(RUN, folds=folds))
    checker = taken(*fold_batches(changed), checker=_native.Checker(RUN, folds=folds))

    assert found(checker) == ({} if block is None else {"inconsistent-offset": 1})
    assert [one["offset"] for one in checker.findings("inconsistent-offset")] == (
        [] if block is None else [block * FOLD])


@pytest.mark.parametrize("at", [0, 4, 7, 20, 50])
def test_record_that_was_damaged_for_a_while_accuses_nobody(at):
    folds = numpy.zeros(8, numpy.int64)
    damaged = bytearray(fold_values()[700])
    damaged[at] ^= 1    # in the stamp's magic or CRC, or elsewhere; the batch's CRC is right
    batches = fold_batches()
    values = [*fold_values()[512:700], bytes(damaged), *fold_values()[701:1024]]
    batches[1] = _native.encode_batch(values, timestamps=[5] * 512, base_offset=512)

    unlucky = taken(*batches, checker=_native.Checker(RUN, folds=folds))
    later = taken(*fold_batches(), checker=_native.Checker(RUN, folds=folds))

    assert sum(found(unlucky).values()) == 1
    assert found(later) == {}


def test_block_that_was_not_seen_whole_says_nothing():
    folds = numpy.zeros(8, numpy.int64)
    batches = fold_batches()
    checker = _native.Checker(RUN, folds=folds)
    taken(*batches[1:9], checker=checker)
    checker.seek(-1)
    taken(*batches[3:12], checker=checker)

    assert numpy.count_nonzero(folds) == 0


def test_records_one_by_one_and_batches_have_the_same_folds():
    folds = numpy.zeros(8, numpy.int64)
    taken(*fold_batches(), checker=_native.Checker(RUN, folds=folds))
    checker = _native.Checker(RUN, folds=folds)
    for offset, value in enumerate(fold_values()):
        checker.take_record(offset, None, value)

    assert found(checker) == {}


def blocks(folds, *bases, changed=None, checker=None):
    """A block of records from each base on, as one checker sees it; `changed`: one is another."""
    checker = checker or _native.Checker(RUN, folds=folds)
    for base in bases:
        checker.seek(base)
        values = list(fold_values()[:FOLD])
        if changed == base:
            values[9] = stamp(9, filler=b"other")
        checker.take_batch(_native.encode_batch(values, timestamps=[5] * FOLD, base_offset=base))
    return checker.figures()["found"]["inconsistent-offset"]


@pytest.mark.parametrize("size", [1, 3, 8])
def test_blocks_go_round_in_the_folds_and_the_latest_is_compared(size):
    folds = numpy.zeros(size, numpy.int64)
    round_size = size * FOLD
    for turn in range(4):
        base = turn * round_size
        assert blocks(folds, base) == 0
        assert blocks(folds, base) == 0
        assert blocks(folds, base, changed=base) == 1


@pytest.mark.parametrize("turns", [1, 2, 32767])
def test_who_is_rounds_late_is_compared_with_nothing_and_disturbs_nothing(turns):
    folds = numpy.zeros(2, numpy.int64)
    late, base = FOLD, FOLD + turns * 2 * FOLD
    blocks(folds, late, base)
    before = folds.copy()

    assert blocks(folds, late, changed=late) == 0
    assert (folds == before).all()
    assert blocks(folds, base, changed=base) == 1


def test_rounds_themselves_come_round():
    folds = numpy.zeros(1, numpy.int64)
    for turn in (65534, 65535, 65536, 65537):
        assert blocks(folds, turn * FOLD) == 0
        assert blocks(folds, turn * FOLD, changed=turn * FOLD) == 1


def test_no_folds_compare_nothing():
    folds = numpy.zeros(0, numpy.int64)

    assert blocks(folds, 0) == blocks(folds, 0, changed=0) == 0
