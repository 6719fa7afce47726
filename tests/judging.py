"""Diaries that say what should not be, for the tests of those who judge them."""

from pylog.stress.diary import read_diaries
from pylog.stress.forgery import Forgery, forge


def diaries_of(text, tmp_path):
    """A forged diary, read; each in a directory of its own."""
    forge(text, directory := tmp_path / str(len(list(tmp_path.iterdir()))))
    return read_diaries(directory)


def names(judgement):
    """What it has found."""
    return sorted({one.anomaly for one in judgement.findings()})


def altered(good, *changes):
    """A good diary with these changes."""
    return Forgery("", "", 0, changes, good=good).text
