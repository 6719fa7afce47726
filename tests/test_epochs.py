"""Leader epochs: where they lie, and behind which gap a recovery may have gone on."""

import re
from pathlib import Path

import pytest

from pylog.epochs import RESERVED_OFFSETS, Epochs

LATER = Epochs(((0, 0), (1, 70), (4, 70 + RESERVED_OFFSETS)))


def test_offsets_that_are_reserved_are_as_many_as_the_core_says():
    header = Path(__file__).parent.parent / "csrc/pl_log.h"
    (count,) = re.findall(r"PL_RESERVE_OFFSETS \(\(int64_t\)(\d+) << 20\)", header.read_text())

    assert int(count) << 20 == RESERVED_OFFSETS


@pytest.mark.parametrize(("offset", "found"), [
    (0, (0, 70)), (69, (0, 70)), (70, (1, 70 + RESERVED_OFFSETS)),
    (70 + RESERVED_OFFSETS, (4, 1 << 63)), (1 << 62, (4, 1 << 63)),
])
def test_offset_bears_the_epoch_that_began_last(offset, found):
    assert LATER.at(offset) == found


def test_offset_before_all_epochs_bears_the_first():
    assert Epochs(((3, 10),)).at(5) == (3, 10)
    assert Epochs(((3, 10), (4, 20))).at(5) == (3, 20)


@pytest.mark.parametrize(("pairs", "offset"), [
    ((), 0), ((), 100),
    (LATER.pairs, 70),                        # too early: the reserved offsets had not begun
    (LATER.pairs, 69), (LATER.pairs, 71),
    (LATER.pairs, 71 + RESERVED_OFFSETS),     # no epoch begins there
    (((0, 0), (1, RESERVED_OFFSETS - 1)), RESERVED_OFFSETS - 1),
    (((9, 50), (1, 60)), 60),                 # not even sorted
])
def test_start_that_no_loss_can_explain(pairs, offset):
    assert not Epochs(pairs).may_follow_loss(offset)


@pytest.mark.parametrize(("pairs", "offset"), [
    (LATER.pairs, 70 + RESERVED_OFFSETS),
    (((0, 0), (1, RESERVED_OFFSETS)), RESERVED_OFFSETS),
    (((7, 12345),), 12345),                   # older ones are forgotten
])
def test_start_that_a_loss_may_explain(pairs, offset):
    assert Epochs(pairs).may_follow_loss(offset)


def test_checkpoint_comes_back():
    assert Epochs.from_checkpoint(LATER.to_checkpoint()) == LATER
    assert Epochs.from_checkpoint(Epochs().to_checkpoint()) == Epochs()


@pytest.mark.parametrize("data", [
    b"", b"0", b"0\n", b"0\n1\n", b"1\n1\n0 0\n", b"0\n2\n0 0\n", b"0\n1\n0\n",
    b"0\n1\n0 0 0\n", b"0\n1\nx 0\n", b"\xff\n1\n0 0\n", b"0\nx\n0 0\n",
])
def test_what_is_no_checkpoint_says_nothing(data):
    assert Epochs.from_checkpoint(data) == Epochs()
