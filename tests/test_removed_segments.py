"""Segments that delete_before removed: their blocks come back, whoever had read them.

A file that is mapped keeps its blocks without a name. A process that reads a log again looks at its
list; these do not read any more.
"""

import shutil
import subprocess
import sys
import time

import pytest

import pylog
from pylog import _native

COUNT = 50


def test_who_seeks_a_time_is_not_told_of_offsets_that_are_deleted_meanwhile(tmp_path):
    class Slow(pylog.Log):
        def _offset_for_time(self, timestamp):
            found = super()._offset_for_time(timestamp)
            if self.start_offset == 0:
                self.delete_before(2)
            return found

    with Slow(tmp_path / "log") as log:
        for time_ms in range(10, 40, 10):
            log.append(b"value", timestamp=time_ms)
            log.roll()

        assert log.offset_for_time(15) == 2


def test_who_reads_a_copy_is_told_what_was_deleted_from_it_and_of_no_damage(tmp_path):
    """A reader that came before any writer has a page of its own, which nobody else writes."""
    with pylog.Log(tmp_path / "log") as log:
        for _ in range(3):
            log.append(b"value")
            log.roll()
    shutil.copytree(tmp_path / "log", tmp_path / "copy")
    with pylog.Log(tmp_path / "copy", mode="r") as reader:
        with pylog.Log(tmp_path / "copy") as writer:
            writer.delete_before(2)

        with pytest.raises(pylog.OffsetOutOfRangeError) as told:
            list(reader.read(0))

        assert (told.value.offset, told.value.start_offset) == (0, 2)
        assert [record.offset for record in reader.read(2)] == [2]

FULL = """
import os, sys
from pathlib import Path
import pylog
from pylog.stress.disk import mount_tmpfs

if not mount_tmpfs(Path(sys.argv[1]), 24 << 20):
    sys.exit(77)
path = Path(sys.argv[1]) / "log"
with pylog.Log(path, segment_bytes=4 << 20) as log, pylog.Log(path) as other:
    try:
        while True:
            other.append_many([bytes(100_000)] * 10)
    except pylog.errors.DiskFullError:
        pass
    assert sum(1 for _ in log.read()) == other.end_offset > 100
    try:    # it has no housekeeper yet
        log.append(bytes(1_000_000))
        raise AssertionError("the disk is not full")
    except pylog.errors.DiskFullError:
        pass
    other.delete_before(other.end_offset)
    log.append(bytes(1_000_000))
"""


def removed_but_mapped(log_path):
    with open("/proc/self/maps") as maps:
        return sum(f"{log_path}/" in line and ".log (deleted)" in line for line in maps)


@pytest.fixture
def read(log_path):
    """A log that has read all of its segments."""
    with pylog.Log(log_path, segment_bytes=4096) as writer:
        writer.append_many([b"value" * 100] * COUNT)
    with pylog.Log(log_path) as log:
        assert sum(1 for _ in log.read()) == COUNT
        yield log


def remove_all_but_the_last(log_path):
    with pylog.Log(log_path) as log:
        log.delete_before(COUNT - 1)


def remove_what_is_kept(log_path):
    """By one who has no housekeeper, and so has let go of nothing yet."""
    remove_all_but_the_last(log_path)
    assert removed_but_mapped(log_path) > 3


def test_who_waits_lets_go_of_what_was_removed(log_path, read):
    remove_what_is_kept(log_path)

    assert not read.wait(COUNT, timeout=0.001)
    assert removed_but_mapped(log_path) == 0


def test_who_waits_for_many_lets_go_of_what_was_removed(log_path, read):
    remove_what_is_kept(log_path)

    assert _native.Waiter([read]).wait([COUNT], timeout=0.001) == -1
    assert removed_but_mapped(log_path) == 0


def test_what_a_view_needs_stays(log_path, read):
    view = read.fetch(0).payload
    first = bytes(view)
    remove_what_is_kept(log_path)

    read.wait(COUNT, timeout=0.001)

    assert removed_but_mapped(log_path) == 1
    assert bytes(view) == first
    view.release()
    assert removed_but_mapped(log_path) == 0


@pytest.mark.slow
def test_who_has_written_and_does_nothing_more_lets_go_of_what_was_removed(log_path, read):
    read.append(b"has a housekeeper now")
    remove_all_but_the_last(log_path)

    deadline = time.monotonic() + 30
    while removed_but_mapped(log_path):
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.slow
def test_who_was_refused_by_a_full_disk_appends_when_room_was_made(tmp_path):
    done = subprocess.run([sys.executable, "-c", FULL, tmp_path], capture_output=True, text=True,
                          timeout=60)
    if done.returncode == 77:
        pytest.skip("nothing can be mounted here")

    assert done.returncode == 0, done.stderr
