"""SIGKILL: 1,000 writers die at random times and at every named point of the core.

tests/c/kills.c forks writers over the core with its fault points on; here are also Python writers,
killed at random times. What was acknowledged is noted outside the log, and the whole log is read
back every twenty kills. The table of a run is printed (pytest -s, or after a failure).
"""

import mmap
import os
import random
import re
import shutil
import signal
import struct
import subprocess
import threading
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import pytest
from children import killed
from drivers import built

import pylog
from pylog import _native

TESTS = Path(__file__).parent
SOURCES = TESTS.parent / "csrc"
DURABILITIES = ["os", "interval", "fsync"]

# Mode of tests/c/kills.c, durability, segment_bytes, kills.
RUNS = [
    ("crowd", "os", 65_536, 220),
    ("crowd", "interval", 1 << 20, 120),
    ("crowd", "fsync", 131_072, 120),
    ("deleters", "os", 65_536, 160),
    ("deleters", "fsync", 65_536, 100),
    ("heirs", "os", 65_536, 60),
    ("all", "os", 131_072, 90),
    ("all", "interval", 131_072, 60),
    ("all", "fsync", 65_536, 60),
    ("births", "os", 65_536, 20),
    ("alone", "fsync", 65_536, 180),
]
# As long as a point was hit too seldom.
MORE = [("alone", "fsync", 65_536, 60), ("deleters", "fsync", 65_536, 40)] * 8
PYTHON_KILLS = 40       # of each durability
WRITERS = 3
KILLS_LEAST = 1000
OWNER_DEATHS_LEAST = 150
HITS_LEAST = 5
ELSEWHERE = ("pl_process", "pl_shared", "pl_table", "pl_lease")    # in test_tables, test_share


def points_named(name):
    """Those of the core whose names match."""
    named = re.compile(rf'PL_POINT\("({name})"\)')
    return sorted({point for source in SOURCES.glob("*.c") if source.stem not in ELSEWHERE
                   for point in named.findall(source.read_text())})


ALTERING, ERASING = points_named("alter-[a-z-]+"), points_named("erase-[a-z-]+")
CLEANING, RECOVERING = points_named("[a-z-]*clean-mark[a-z-]*"), points_named("recover-[a-z-]+")


def points_of_the_core():
    """Where writers die that append, delete and recover: not those of the last part."""
    return sorted({*points_named("[a-z-]+")} - {*ALTERING, *ERASING})


@pytest.fixture(scope="module")
def drivers():
    """The folder of the built drivers."""
    return built("build/kills", "build/holder")


# ---- the tally ----------------------------------------------------------------------------------

def driver_kills(driver, path, run, seed, before):
    """Runs kills.c once: its figures, those of points named "point ...". Fails as it does."""
    mode, durability, segment_bytes, kills = run
    points = [word for point in points_of_the_core()
              for word in (point, str(before[f"point {point}"]))]
    done = subprocess.run(
        [driver, path, mode, str(DURABILITIES.index(durability)), str(segment_bytes), str(kills),
         str(seed), *points], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{mode}, {durability}, seed {seed}: {done.stderr}"
    lines = (line.rpartition(" ") for line in done.stdout.splitlines())
    return Counter({name: int(value) for name, _, value in lines})


def print_run(name, figures):
    seconds = figures["milliseconds"] / 1000
    print(f"{name:22}{figures['kills']:>7}{figures['kills'] / seconds:>9.0f}"
          f"{figures['owner_deaths']:>14}{figures['verifications']:>11}{figures['records']:>12,}")


def print_points(total):
    points = {name.removeprefix("point "): hits for name, hits in total.items()
              if name.startswith("point ")}
    print("killed at: " + ", ".join(f"{name} {hits}" for name, hits in sorted(points.items())))
    print(f"{total['point_kills']} kills at points, {total['kills'] - total['point_kills']} at "
          f"random times; {total['killed_recoveries']} recoveries believed the control page, "
          f"{total['scanned_recoveries']} scanned; {total['crc_bytes'] / 1e6:,.0f} MB of CRC read")


def seldom_hit(total):
    hits = {point: total[f"point {point}"] for point in points_of_the_core()}
    return {point: hit for point, hit in hits.items() if hit < HITS_LEAST}


@pytest.mark.slow
def test_a_thousand_kills_lose_and_invent_nothing(drivers, tmp_path, seed):
    total = Counter()
    print(f"\n{'writers':22}{'kills':>7}{'kills/s':>9}{'owner deaths':>14}{'read back':>11}"
          f"{'records':>12}")
    for number, run in enumerate(RUNS + MORE):
        if number >= len(RUNS) and not seldom_hit(total):
            break
        path = tmp_path / f"log{number}"
        figures = driver_kills(drivers / "kills", path, run, seed + number, total)
        print_run(f"C, {run[0]}, {run[1]}", figures)
        total += figures
        shutil.rmtree(path)
    for durability in DURABILITIES:
        figures = python_kills(tmp_path / durability, durability, random.Random(seed))
        print_run(f"Python, {durability}", figures)
        total += figures
    print_run("all", total)
    print_points(total)

    assert total["kills"] >= KILLS_LEAST
    assert total["owner_deaths"] >= OWNER_DEATHS_LEAST
    assert not seldom_hit(total)


# ---- writers in Python --------------------------------------------------------------------------

class Witness:
    """What writers said of themselves, in a mapping outside the log that outlives them.

    For each life: how many values it had handed to an append, and how many appends had returned.
    """

    NUMBER = struct.Struct("=q")

    def __init__(self, lives):
        self._map = mmap.mmap(-1, lives * 16)

    def attempt(self, life, count):
        self.NUMBER.pack_into(self._map, life * 16, count)

    def acknowledge(self, life, count):
        self.NUMBER.pack_into(self._map, life * 16 + 8, count)

    def attempted(self, life):
        return self.NUMBER.unpack_from(self._map, life * 16)[0]

    def acked(self, life):
        return self.NUMBER.unpack_from(self._map, life * 16 + 8)[0]


def value_of(life, number):
    """All of a value follows from who wrote it and when."""
    return b"%d %d " % (life, number) + bytes([number % 251]) * (number * 7919 % 300)


def append_some(log, values, rng):
    way = rng.randrange(4)
    if way == 0 or len(values) == 1:
        for value in values:
            log.append(value, key=b"key" if len(value) % 2 else None)
    elif way == 1:
        log.append_many(values, atomic=rng.random() < 0.5)
    elif way == 2:
        log.append_many(values, keys=[b"key"] * len(values), headers=[[("h", b"x")]] * len(values))
    else:
        positions = [0]
        for value in values:
            positions.append(positions[-1] + len(value))
        log.append_buffer(b"".join(values), positions)


def write_for_ever(path, life, witness, seed, **options):
    rng = random.Random(seed)
    number = 0
    with pylog.Log(path, **options) as log:
        while True:
            count = rng.randrange(1, 50)
            values = [value_of(life, number + i) for i in range(count)]
            number += count
            witness.attempt(life, number)
            append_some(log, values, rng)
            witness.acknowledge(life, number)
            if rng.random() < 0.01:
                log.flush()


def start_writer(path, life, witness, seed, **options):
    pid = os.fork()
    if pid == 0:
        try:
            write_for_ever(path, life, witness, seed, **options)
        finally:
            os._exit(1)
    return pid


def verify(log, witness, lives):
    """Reads all of the log. The witnesses speak first: what they know must be below its end."""
    acked = [witness.acked(life) for life in range(lives)]
    found = Counter()
    for expected, record in enumerate(log.read(stop=log.readable_offset)):
        life, number = map(int, record.value.split(b" ", 2)[:2])
        assert (record.offset, number) == (expected, found[life])
        assert record.value == value_of(life, number)
        found[life] += 1
    for life in range(lives):
        assert acked[life] <= found[life] <= witness.attempted(life)
    return found.total()


def python_kills(path, durability, rng):
    """Kills Python writers, one of three at a time, while this process has the log open."""
    options = {"durability": durability, "flush_interval_ms": 20, "segment_bytes": 65_536,
               "compression": "lz4" if durability == "interval" else None}
    witness = Witness(PYTHON_KILLS + WRITERS)
    figures = Counter()
    start = time.monotonic()
    pids = []
    with pylog.Log(path, **options) as log:
        for life in range(PYTHON_KILLS + WRITERS):
            if life >= WRITERS:
                time.sleep(rng.random() * 0.02)
                kill(pids.pop(rng.randrange(WRITERS)), figures)
            pids.append(start_writer(path, life, witness, rng.randrange(1 << 32), **options))
            if life % 20 == 0:
                verify(log, witness, life + 1)
                figures["verifications"] += 1
        for pid in pids:
            kill(pid, figures)
        figures["records"] = verify(log, witness, life + 1)
        figures["verifications"] += 1
        figures["owner_deaths"] = log.stats()["owner_deaths"]
    figures["milliseconds"] = int((time.monotonic() - start) * 1000)
    return figures


def kill(pid, figures):
    os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status), "a writer ended by itself"
    figures["kills"] += 1


# ---- one at a known place -----------------------------------------------------------------------

@pytest.fixture
def holder(drivers):
    """Starts holder.c: a writer that gets a signal inside an append, at a named point."""
    started = []

    def start(path, point, signal_number, *more):
        command = [drivers / "holder", path, point, str(int(signal_number)), *more]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout.readline() == "ready\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


INSIDE = ["locked", "before-copy", "after-copy", "before-publish", "after-publish",
          "before-unlock"]


def is_published_at(point):
    return point in ("after-publish", "before-unlock")


@pytest.mark.parametrize("point", INSIDE)
def test_writer_stopped_inside_is_named_and_goes_on_when_it_may(log_path, holder, point):
    with pylog.Log(log_path, lock_timeout_ms=50) as log:
        stopped = holder(log_path, point, signal.SIGSTOP)
        os.waitid(os.P_PID, stopped.pid, os.WSTOPPED)

        with pytest.raises(pylog.PylogTimeoutError, match=rf"{stopped.pid}.*\bT\b") as caught:
            log.append(b"not yet")
        assert caught.value.holder_pid == stopped.pid
        held = [b"held"] if is_published_at(point) else []
        assert [record.value for record in log.read()] == [b"before", *held]

        stopped.send_signal(signal.SIGCONT)
        assert stopped.wait(10) == 0
        log.append(b"now")
        assert [record.value for record in log.read()] == [b"before", b"held", b"after", b"now"]
        assert log.stats()["owner_deaths"] == 0


def test_flush_does_not_wait_for_ever_for_a_writer_stopped_inside(log_path, holder):
    with pylog.Log(log_path, lock_timeout_ms=50) as log:
        stopped = holder(log_path, "after-publish", signal.SIGSTOP)
        os.waitid(os.P_PID, stopped.pid, os.WSTOPPED)

        with pytest.raises(pylog.PylogTimeoutError, match="append lock") as caught:
            log.flush()
        assert caught.value.holder_pid == stopped.pid
        assert log.durable_offset == 0

        stopped.send_signal(signal.SIGCONT)
        assert stopped.wait(10) == 0
        log.flush()
        assert log.durable_offset == log.end_offset == 3


def test_list_that_a_stopped_writer_cut_short_says_how_much_is_in(log_path, holder):
    pylog.Log(log_path, segment_bytes=4096).close()
    with pylog.Log(log_path, lock_timeout_ms=50) as log:
        stopped = holder(log_path, "remove-segment", signal.SIGSTOP, "delete")
        os.waitid(os.P_PID, stopped.pid, os.WSTOPPED)
        end = log.end_offset

        values = [b"%d" % number for number in range(3000)]
        with pytest.raises(pylog.PylogTimeoutError) as caught:
            log.append_many(values)
        appended = log.end_offset - end
        assert caught.value.appended == appended > 0
        assert str(caught.value).endswith(f"the first {appended} records of the list are in")

        stopped.send_signal(signal.SIGCONT)
        assert stopped.wait(10) == 0
        with pylog.Log(log_path) as patient:
            patient.append_many(values[appended:])
        read = [record.value for record in log.read(end)]
        assert read == [*values[:appended], b"after", *values[appended:]]


def test_deleting_does_not_wait_beyond_its_time_for_a_stopped_one(log_path, holder):
    pylog.Log(log_path, segment_bytes=4096).close()
    with pylog.Log(log_path, lock_timeout_ms=50) as log:
        stopped = holder(log_path, "remove-segment", signal.SIGSTOP, "delete")
        os.waitid(os.P_PID, stopped.pid, os.WSTOPPED)

        log.append(b"last")
        start = time.monotonic()
        with pytest.raises(pylog.PylogTimeoutError, match="maintenance lock") as caught:
            log.delete_before(log.end_offset)
        assert time.monotonic() - start < 30
        assert caught.value.holder_pid == stopped.pid

        stopped.send_signal(signal.SIGCONT)
        assert stopped.wait(10) == 0
        log.delete_before(log.end_offset)
        assert log.start_offset == log.end_offset


@pytest.mark.parametrize("keeps_open", [True, False])
@pytest.mark.parametrize("point", INSIDE)
def test_writer_killed_inside_leaves_whole_records_only(log_path, holder, point, keeps_open):
    log = pylog.Log(log_path)
    if not keeps_open:
        log.close()
    assert holder(log_path, point, signal.SIGKILL).wait(10) == -signal.SIGKILL
    if not keeps_open:
        log = pylog.Log(log_path)

    assert log.append(b"next") == 1 + is_published_at(point)

    held = [b"held"] if is_published_at(point) else []
    assert [record.value for record in log.read()] == [b"before", *held, b"next"]
    assert log.stats()["owner_deaths"] == keeps_open
    log.close()


# ---- who waited for the one who died alone in the log --------------------------------------------

@contextmanager
def freed_soon(stopped):
    """Kills a process that is stopped alone in the log, when others had time to wait for it."""
    os.waitid(os.P_PID, stopped.pid, os.WSTOPPED)
    timer = threading.Timer(0.1, stopped.kill)
    timer.start()
    yield
    timer.join()


def append_and_die(path, value):
    def append():
        log = pylog.Log(path)
        log.append(value)
        return log

    killed(append)


@pytest.mark.parametrize("point", CLEANING)
def test_who_waited_for_a_last_closer_that_died_is_believed_later(log_path, holder, point):
    pylog.Log(log_path).close()
    with freed_soon(holder(log_path, point, signal.SIGSTOP)):
        append_and_die(log_path, b"waited")

    with pylog.Log(log_path) as log:
        assert [record.value for record in log.read()] == [b"before", b"held", b"after", b"waited"]
        assert log.check().ok


@pytest.mark.parametrize("point", RECOVERING)
def test_who_waited_for_a_recovery_that_died_recovers(log_path, holder, point):
    """The file was cut under the dead writer's page, which tells of more than there is now."""
    append_and_die(log_path, b"flushed")
    with pylog.Log(log_path) as log:
        log.flush()
    append_and_die(log_path, bytes(1000))
    segment = log_path / "00000000000000000000.log"
    os.truncate(segment, 500)
    with freed_soon(holder(log_path, point, signal.SIGSTOP, "open")):
        append_and_die(log_path, b"waited")

    with pylog.Log(log_path) as log:
        assert [record.value for record in log.read()] == [b"flushed", b"waited"]
        assert log.check().ok


# ---- options that change, a log that is deleted -------------------------------------------------

@pytest.mark.parametrize("point", ALTERING)
def test_alteration_killed_at_any_point_leaves_all_writers_with_the_same_options(log_path, holder,
                                                                                 point):
    """Who was there before, and who comes later: a batch of one must be in reach of the other."""
    pylog.Log(log_path, segment_bytes=4096).close()
    with pylog.Log(log_path) as before:
        before.append(b"first")
        assert holder(log_path, point, signal.SIGKILL, "alter").wait(10) == -signal.SIGKILL
        with pylog.Log(log_path) as later:
            for _ in range(12):
                later.append(bytes(1000))
            before.append(b"last")
            for log in (before, later):
                assert [len(record.value) for record in log.read()] == [5, 6, *[1000] * 12, 4]
            before.alter(segment_bytes=1 << 20)
            later.append_many([bytes(1000)] * 12, atomic=True)
            before.append(b"last")
            assert before.check().ok


@pytest.mark.parametrize("point", ERASING)
def test_deletion_of_a_log_killed_at_any_point_is_done_by_the_next(log_path, holder, point):
    aside = log_path.with_name("aside")
    with pylog.Log(log_path) as user:
        assert holder(log_path, point, signal.SIGKILL, "remove").wait(10) == -signal.SIGKILL
        for call in (lambda: user.append(b"lost"), lambda: user.wait(99, 10)):
            with pytest.raises(pylog.UnknownTopicOrPartitionError):
                call()
        assert log_path.exists() == (point != "erase-renamed")

        _native.delete_log(os.fsencode(log_path), os.fsencode(aside), 1000)

        assert not log_path.exists()
        assert aside.exists() == (point != "erase-renamed")
        with pylog.Log(log_path) as successor:
            assert successor.append(b"new") == 0


def test_users_do_not_wait_for_one_who_is_stopped_while_deleting(log_path, holder):
    aside = log_path.with_name("aside")
    with pylog.Log(log_path, lock_timeout_ms=60_000) as user:
        stopped = holder(log_path, "erase-locked", signal.SIGSTOP, "remove")
        os.waitid(os.P_PID, stopped.pid, os.WSTOPPED)
        start = time.monotonic()
        with pytest.raises(pylog.UnknownTopicOrPartitionError):
            user.append(b"lost")
        assert time.monotonic() - start < 30
        with pytest.raises(pylog.PylogTimeoutError, match="delete again"):
            _native.delete_log(os.fsencode(log_path), os.fsencode(aside), 150)
        assert log_path.exists()

        stopped.send_signal(signal.SIGCONT)
        assert stopped.wait(10) == 0
        assert not log_path.exists()
