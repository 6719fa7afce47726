"""Which segments there are, to a reader of a log that goes on."""

import os
import subprocess
import sys
import time

import pytest
from children import kill, start
from drivers import built
from tables import eventually

import pylog

# Reads up to offset 3, and on from there when it is told to.
READER = """
import sys
import pylog

with pylog.Log(sys.argv[1], mode="r") as log:
    assert [record.offset for record in log.read(stop=3)] == [0, 1, 2]
    print("here", flush=True)
    sys.stdin.readline()
    print(*(record.offset for record in log.read(3, follow=True, stop=7)))
"""


@pytest.fixture
def rolling(log_path):
    """A log whose segments have two records each."""
    with pylog.Log(log_path, segment_bytes=4096) as log:
        yield log


def grow(log, count):
    for _ in range(count):
        log.append(b"x" * 1800)


def test_listing_that_has_the_second_new_segment_and_not_the_first_skips_none(rolling, tmp_path):
    """So may a directory be read while files come into it."""
    torn, begun = tmp_path / "torn", tmp_path / "torn-begun"
    environment = {**os.environ, "TORN_LISTING": str(torn),
                   "LD_PRELOAD": str(built("build/torn_listing.so") / "torn_listing.so")}
    grow(rolling, 4)
    with subprocess.Popen([sys.executable, "-c", READER, rolling.path], env=environment, text=True,
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE) as reader:
        assert reader.stdout.readline() == "here\n"
        rolling.delete_before(2)    # so that it looks again; it has mapped the other segment
        torn.write_text(f"{4:020}.log")
        reader.stdin.write("go on\n")
        reader.stdin.flush()
        eventually(begun.exists)
        grow(rolling, 3)
        assert sorted(path.name for path in rolling.path.glob("*.log")) == [
            f"{base:020}.log" for base in (2, 4, 6)]
        begun.unlink()

        assert reader.stdout.read() == "3 4 5 6\n"
    assert reader.returncode == 0


@pytest.mark.slow
def test_reader_finds_each_segment_of_a_log_that_rolls_while_it_looks(rolling):
    """As the file system itself tears them: of six runs that believed each listing one failed."""
    def write():
        with pylog.Log(rolling.path) as log:
            for _ in range(150):
                grow(log, 20)
                time.sleep(0.002)    # so that the reader is where the log ends

    pid = start(write)
    try:
        with pylog.Log(rolling.path, mode="r") as log:
            for number, record in enumerate(log.read(follow=True, stop=3000)):
                assert record.offset == number
    finally:
        kill(pid)
    assert len(list(rolling.path.glob("*.log"))) > 1000
