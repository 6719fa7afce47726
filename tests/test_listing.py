"""Which segments there are, to a reader of a log that goes on."""

import time

import pytest
from children import kill, start

import pylog


@pytest.mark.slow
def test_reader_finds_each_segment_of_a_log_that_rolls_while_it_looks(log_path):
    """A directory that is read while files come into it may show the second without the first: of
    six runs that believed it one failed."""
    pylog.Log(log_path, segment_bytes=4096).close()

    def write():
        with pylog.Log(log_path) as log:
            for number in range(1500):    # each in a segment of its own
                log.append(b"x" * 3000)
                if number % 5 == 0:
                    time.sleep(0.002)    # so that the reader is where the log ends

    pid = start(write)
    try:
        with pylog.Log(log_path, mode="r") as log:
            for number, record in enumerate(log.read(follow=True, stop=1500)):
                assert record.offset == number
    finally:
        kill(pid)
    assert len(list(log_path.glob("*.log"))) > 1000
