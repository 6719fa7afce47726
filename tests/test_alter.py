"""Options of a log that are changed while processes have it open."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest
from children import in_child

import pylog


def segments(log):
    return sorted(log.path.glob("*.log"))


def wait_until(condition, seconds=10):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def alter_elsewhere(path, **options):
    def act():
        with pylog.Log(path) as other:
            other.alter(**options)
            return other.stats()["options"]

    found = in_child(act)
    assert {name: found[name] for name in options} == options


@pytest.fixture
def log(log_path):
    with pylog.Log(log_path, segment_bytes=65_536, max_message_bytes=10_000) as log:
        yield log


def test_altered_options_are_those_of_the_next_opener(log):
    log.append(b"value")
    alter_elsewhere(log.path, segment_bytes=8192, max_message_bytes=5000,
                    timestamp_type="append", flush_interval_ms=7)
    log.close()

    with pylog.Log(log.path, segment_bytes=8192, max_message_bytes=5000,
                   timestamp_type="append", flush_interval_ms=7) as again:
        assert again.get(0).value == b"value"
        assert again.check().ok


def test_writer_that_is_open_rolls_by_the_new_size(log):
    log.append(bytes(5000))
    alter_elsewhere(log.path, segment_bytes=8192)

    for _ in range(4):
        log.append(bytes(5000))

    assert len(segments(log)) == 5
    wait_until(log._retire)    # the housekeeper may be at it
    assert max(path.stat().st_size for path in segments(log)) <= 8192
    assert log.check().ok


@pytest.mark.parametrize("fill", [0, 60_000])
def test_segment_grows_beyond_what_was_mapped_of_it(log, fill):
    if fill:
        log.append_many([bytes(100)] * (fill // 120))
    cursor, reader = log.cursor(), pylog.Log(log.path, mode="r")
    far = reader.cursor()
    before = sum(1 for _ in cursor) + sum(1 for _ in far)
    alter_elsewhere(log.path, segment_bytes=1 << 20)

    def act():
        with pylog.Log(log.path) as other:
            other.append_many([b"%07d" % n * 14 for n in range(5000)])

    in_child(act)

    for one in (cursor, far):
        assert [r.value for r in one] == [b"%07d" % n * 14 for n in range(5000)]
    assert before == 2 * (fill // 120)
    assert len(segments(log)) == 1
    log.append(b"last")
    assert log.get(log.end_offset - 1).value == b"last"
    assert log.check().ok
    reader.close()


@pytest.mark.parametrize("append", [
    lambda log, value: log.append(value),
    lambda log, value: log.append(value, headers=[("h", b"x")]),
    lambda log, value: log.append_many([b"small", value]),
    lambda log, value: log.append_many([value], atomic=True),
    lambda log, value: log.append_many([value], headers=[[("h", b"x")]]),
])
def test_limit_of_a_message_holds_at_once(log, append):
    append(log, bytes(9000))
    end = log.end_offset
    with pytest.raises(pylog.MessageSizeTooLargeError):
        append(log, bytes(20_000))
    assert log.end_offset == end

    alter_elsewhere(log.path, max_message_bytes=30_000)
    append(log, bytes(20_000))

    end = log.end_offset
    alter_elsewhere(log.path, max_message_bytes=10_000)
    with pytest.raises(pylog.MessageSizeTooLargeError, match="10000"):
        append(log, bytes(20_000))
    assert end <= log.end_offset <= end + 1    # of a list, the first
    assert log.check().ok


def test_timestamps_are_whose_the_option_says_from_the_next_append_on(log):
    log.append(b"mine", timestamp=7)
    alter_elsewhere(log.path, timestamp_type="append")
    log.append(b"the log's", timestamp=7)
    log.append_many([b"the log's"], timestamps=[7])
    alter_elsewhere(log.path, timestamp_type="create")
    log.append(b"mine", timestamp=7)
    log.append_many([b"mine"], timestamps=[7])

    found = [(r.value, r.timestamp_type, r.timestamp == 7) for r in log.read()]
    assert found == [(b"mine", 0, True), (b"the log's", 1, False), (b"the log's", 1, False),
                     (b"mine", 0, True), (b"mine", 0, True)]


def test_larger_batches_of_the_past_are_read_and_proved(log_path):
    with pylog.Log(log_path, compression="lz4") as log:
        log.append_many([bytes(1000)] * 900, atomic=True)
        log.append(os.urandom(900_000))
        log.alter(max_message_bytes=128, segment_bytes=4096)
    with pylog.Log(log_path) as log:
        assert sum(1 for _ in log.read()) == 901
        assert log.check().ok


def test_larger_batches_are_read_by_those_who_were_there_before(log_path):
    """What a batch may become when it is decompressed follows from the limit of a message."""
    with pylog.Log(log_path, max_message_bytes=1000) as log, pylog.Log(log_path, mode="r") as old:
        alter_elsewhere(log_path, max_message_bytes=1 << 20)
        with pylog.Log(log_path, compression="lz4") as writer:
            writer.append_many([bytes(1000)] * 9000, atomic=True)
        for each in (log, old):
            assert each.get(8999).value == bytes(1000)
            assert sum(1 for _ in each.read()) == 9000


@pytest.mark.parametrize(("options", "error"), [
    ({"segment_bytes": 4095}, ValueError),
    ({"segment_bytes": (1 << 30) + 1}, ValueError),
    ({"max_message_bytes": 0}, ValueError),
    ({"max_message_bytes": "1"}, TypeError),
    ({"timestamp_type": "now"}, ValueError),
    ({"flush_interval_ms": 0}, ValueError),
    ({"durability": "fsync"}, TypeError),
])
def test_what_cannot_be_changes_nothing(log, options, error):
    before = log.stats()["options"]

    with pytest.raises(error):
        log.alter(**options)

    assert log.stats()["options"] == before


def test_reader_cannot_alter(log):
    with pylog.Log(log.path, mode="r") as reader:
        for call in (lambda: reader.alter(segment_bytes=8192), reader.roll):
            with pytest.raises(pylog.ReadOnlyLogError):
                call()


def test_alteration_that_was_killed_halfway_is_made_up_for(log, tmp_path):
    """log.meta was written, and nobody told: here it comes out of a copy that was altered."""
    log.append(bytes(5000))
    copy = shutil.copytree(log.path, tmp_path / "copy")
    with pylog.Log(copy) as altered:
        altered.alter(segment_bytes=8192)
        shutil.copy(copy / "log.meta", log.path / "log.meta")
    log.append(bytes(5000))
    assert len(segments(log)) == 1

    log.alter(segment_bytes=8192)
    log.append(bytes(5000))

    assert len(segments(log)) == 2


def test_roll_begins_a_segment_unless_the_last_is_empty(log):
    log.roll()
    assert len(segments(log)) == 1
    log.append(b"one")
    log.roll()
    log.roll()
    assert len(segments(log)) == 2
    assert log.append(b"two") == 1
    assert [r.value for r in log.read()] == [b"one", b"two"]
    assert log.check().ok


WRITER = """
import sys, pylog
log = pylog.Log(sys.argv[1])
n = 0
while True:
    log.append(b"%s %d" % (sys.argv[2].encode(), n) + bytes(n % 300), timestamp=n)
    n += 1
    if n == 1:
        print("begun", flush=True)
    if n % 50 == 0:
        log.append_many([b"%s %d" % (sys.argv[2].encode(), m) for m in range(n, n + 40)])
        n += 40
"""


@pytest.mark.slow
def test_writers_go_on_while_options_change_and_are_killed(log_path, seed):
    rng = random.Random(seed)
    with pylog.Log(log_path, segment_bytes=65_536) as log:
        writers = []
        try:
            for round_number in range(12):
                writers.append(subprocess.Popen(
                    [sys.executable, "-c", WRITER, log_path, str(round_number)],
                    stdout=subprocess.PIPE))
                assert writers[-1].stdout.readline() == b"begun\n"
                for _ in range(10):
                    log.alter(segment_bytes=rng.choice([8192, 20_000, 1 << 20]),
                              max_message_bytes=rng.choice([2000, 1 << 20]),
                              timestamp_type=rng.choice(["create", "append"]))
                    time.sleep(rng.uniform(0, 0.03))
                if len(writers) > 2:
                    victim = writers.pop(rng.randrange(3))
                    assert victim.poll() is None
                    victim.send_signal(signal.SIGKILL)
                    victim.wait()
        finally:
            for writer in writers:
                writer.kill()
                writer.wait()
        following = {}
        for record in log.read():
            writer, number = map(int, record.value.rstrip(b"\0").split())
            assert number == following.get(writer, 0)
            following[writer] = number + 1
        assert len(following) == 12
        assert log.check().ok
