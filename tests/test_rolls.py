"""Going from one segment to the next: what readers, other processes and indexes see of a roll."""

import subprocess
import sys

import pytest
from tables import eventually

import pylog

SEGMENT_BYTES = 65536

FOLLOWER = """
import sys, pylog
with pylog.Log(sys.argv[1]) as log:
    print("ready", flush=True)
    for expected, record in enumerate(log.read(0, int(sys.argv[2]), follow=True)):
        assert record.value == b"%d" % expected, record
        if record.offset + 1 == int(sys.argv[2]):
            break
print(expected + 1)
"""


def test_tailing_cursor_crosses_rolls_that_are_not_trimmed_yet(log_path):
    values = [b"x" * 100] * 50

    with pylog.Log(log_path, segment_bytes=SEGMENT_BYTES) as log:
        cursor = log.cursor(0)
        for _ in range(200):
            log.append_many(values)
            assert read_to_end(cursor) == values
        assert log.stats()["rolls"] > 10


@pytest.mark.slow
def test_follower_in_another_process_crosses_rolls_while_they_are_trimmed(log_path):
    count = 60_000
    with pylog.Log(log_path, segment_bytes=SEGMENT_BYTES) as log:
        command = [sys.executable, "-c", FOLLOWER, str(log_path), str(count)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as follower:
            assert follower.stdout.readline() == "ready\n"

            for number in range(count):
                log.append(b"%d" % number)

            assert follower.stdout.read() == f"{count}\n"
        assert follower.returncode == 0


@pytest.mark.parametrize("size", [300, 3_000, 20_000])
def test_follower_reads_past_the_size_that_the_file_had_when_it_came(log_path, size):
    segment_bytes = 3 << 19    # a prepared file has 1 MiB, and grows while it is read
    with pylog.Log(log_path, segment_bytes=segment_bytes) as writer, pylog.Log(log_path) as reader:
        cursor = reader.cursor(0)
        values = []
        for number in range(9_000_000 // size):
            writer.append(number.to_bytes(size, "big"))
            values += read_to_end(cursor)

        assert values == [number.to_bytes(size, "big") for number in range(9_000_000 // size)]


def test_time_is_found_behind_rolls(log_path):
    with pylog.Log(log_path, segment_bytes=SEGMENT_BYTES) as log:
        for number in range(3000):
            log.append(b"x" * 100, timestamp=1000 + number)

        assert [log.offset_for_time(1000 + n) for n in (0, 700, 1500, 2999)] == [0, 700, 1500, 2999]
        assert log.offset_for_time(4000) is None


def read_to_end(cursor):
    values = []
    while chunk := cursor.fetch():
        values += chunk.values()
    return values


def test_chunk_of_the_open_tail_stays_as_it_was_when_the_batch_grows_and_is_sealed(log_path):
    with pylog.Log(log_path) as log:
        log.append(b"one", timestamp=1)
        chunk = log.fetch(0)
        later = log.cursor(0)
        assert next(later).value == b"one"

        log.append(b"two", timestamp=2)
        log.flush()

        assert chunk.values() == [b"one"]
        assert [record.value for record in chunk] == [b"one"]
        assert chunk.timestamps.tolist() == [1]
        assert [record.value for record in later] == [b"two"]


def test_segment_that_was_closed_once_and_filled_later_gets_whole_indexes(log_path, tmp_path):
    values = [b"x" * 100] * 300
    with pylog.Log(log_path, segment_bytes=SEGMENT_BYTES) as log:
        log.append_many(values, timestamps=1000)
    with pylog.Log(log_path) as log:
        log.append_many(values, timestamps=2000)
        log.append_many(values, timestamps=3000)
    with pylog.Log(tmp_path / "at once", segment_bytes=SEGMENT_BYTES) as log:
        for timestamp in (1000, 2000, 3000):
            log.append_many(values, timestamps=timestamp)

    for name in ("00000000000000000000.index", "00000000000000000000.timeindex"):
        assert (log_path / name).read_bytes() == (tmp_path / "at once" / name).read_bytes()


def test_segment_that_is_deleted_before_it_is_retired_is_waited_for_by_nobody(log_path):
    with pylog.Log(log_path) as log:
        for number in range(10):
            log.append(b"x")
            log.roll()
            log.delete_before(number + 1)

            eventually(log._retire)    # the housekeeper may be at it
