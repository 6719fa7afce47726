"""A directory that is moved, removed or replaced while a log in it is open: what was opened is
never mixed with what bears its name now."""

import itertools
import shutil

import pytest

import pylog

SMALL = {"segment_bytes": 4096}


@pytest.fixture
def old(log_path):
    """An open log of 300 records in some segments; its directory is to be taken away."""
    with pylog.Log(log_path, **SMALL) as log:
        for number in range(300):
            log.append(b"old %d" % number)
        yield log


def moved(path):
    """Moves the directory away, as a rotation does; returns where it is now."""
    return path.rename(path.with_suffix(".1"))


def removed(path):
    """The housekeeper may be making a file meanwhile, so once is not always enough."""
    while path.exists():
        shutil.rmtree(path, ignore_errors=True)


def start_anew(path):
    with pylog.Log(path) as log:
        for number in range(100):
            log.append(b"new %d" % number)


def is_whole(path, word, count):
    with pylog.Log(path) as log:
        values = [record.value for record in log.read()]
    return pylog.check(path).ok and values == [b"%s %d" % (word, i) for i in range(count)]


def state(path):
    """Every byte of a directory but the control page, which the next opener makes anew."""
    return {file.name: file.read_bytes() for file in path.iterdir() if file.name != "control"}


take_away = pytest.mark.parametrize("take_away", [moved, removed])


@take_away
def test_append_says_that_the_directory_is_gone_and_spares_the_new_log(old, log_path, take_away):
    take_away(log_path)
    start_anew(log_path)
    before = state(log_path)

    with pytest.raises(pylog.LogError, match="moved, removed or replaced"):
        for number in itertools.count(300):
            old.append(b"old %d" % number)
    with pytest.raises(pylog.LogError, match="moved, removed or replaced"):
        old.append_many([bytes(2000)] * 100)

    assert state(log_path) == before
    assert is_whole(log_path, b"new", 100)


@take_away
def test_close_of_the_old_log_spares_the_new_one(old, log_path, take_away):
    take_away(log_path)
    start_anew(log_path)
    before = state(log_path)

    old.close()

    assert state(log_path) == before
    assert is_whole(log_path, b"new", 100)


@take_away
def test_delete_before_of_the_old_log_spares_the_new_one(old, log_path, take_away):
    take_away(log_path)
    start_anew(log_path)
    before = state(log_path)

    with pytest.raises(pylog.LogError, match="moved, removed or replaced"):
        old.delete_before(200)

    assert state(log_path) == before


@pytest.mark.parametrize("mode", ["a", "r"])
def test_reader_never_gets_records_of_the_new_log(old, log_path, mode):
    with pylog.Log(log_path, mode=mode) as reader:
        assert reader.get(0).value == b"old 0"
        moved(log_path)
        with pylog.Log(log_path, **SMALL) as new:
            for number in range(400):
                new.append(b"new %d" % number)

            for offset in range(300):
                try:
                    assert reader.get(offset).value == b"old %d" % offset
                except pylog.LogError as error:
                    assert "moved, removed or replaced" in str(error)    # noqa: PT017


@pytest.mark.slow
def test_follower_is_told_in_the_end(old, log_path):
    with pylog.Log(log_path, mode="r") as reader:
        moved(log_path)

        with pytest.raises(pylog.LogError, match="moved, removed or replaced"):
            reader.wait(300, timeout=10)


def test_moved_log_has_all_that_was_acknowledged(old, log_path):
    place = moved(log_path)
    acknowledged = 300
    with pytest.raises(pylog.LogError, match="moved, removed or replaced"):
        for acknowledged in itertools.count(300):
            old.append(b"old %d" % acknowledged)
    old.close()

    assert is_whole(place, b"old", acknowledged)
    assert not log_path.exists()


def test_moved_log_goes_on_when_it_is_moved_back(old, log_path):
    place = moved(log_path)
    with pytest.raises(pylog.LogError, match="moved, removed or replaced"):
        old.delete_before(100)
    place.rename(log_path)

    assert old.append(b"old 300") == 300
    old.delete_before(100)
    assert old.start_offset == 100
    old.close()
    assert pylog.check(log_path).ok
