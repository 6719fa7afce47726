"""The processes of a broker: who takes part, who lives, whose files are made anew."""

import ast
import contextlib
import fcntl
import mmap
import os
import signal
import struct
import subprocess
import sys
import threading
import time

import pytest
from children import in_child, killed
from drivers import built
from tables import NAMESPACE, VERSION, change_byte, eventually, table_processes, take_part

from pylog import _native
from pylog.errors import ClosedError, IllegalStateError, UnsupportedFormatError

BEAT_AFTER_NONCE = 16    # bytes, in a slot of the file


def test_a_process_that_takes_part_is_alive_and_one_that_left_is_not(place, processes):
    other = take_part(place)
    assert other.me != processes.me
    assert processes.pid_of(*other.me) == os.getpid()
    name, deaths = other.me, processes.deaths
    other.close()
    assert not processes.is_alive(*name)
    assert processes.pid_of(*name) is None
    assert processes.deaths > deaths


def test_who_does_not_join_takes_no_part(place):
    assert _native.Processes(place / "processes", place / "doorbells").me is None


def test_joining_twice_is_joining_once(processes):
    before = processes.me
    processes.join()
    assert processes.me == before


def threads():
    """By their ids: one of an earlier test may be on its way out still."""
    return set(os.listdir("/proc/self/task"))


def test_threads_that_join_at_once_join_once(place):
    for _ in range(30):
        before = threads()
        processes = _native.Processes(place / "processes", place / "doorbells")
        joining = [threading.Thread(target=processes.join) for _ in range(4)]
        for thread in joining:
            thread.start()
        for thread in joining:
            thread.join()
        eventually(lambda before=before: len(threads() - before) == 1)
        processes.close()
        eventually(lambda before=before: not threads() - before)


def test_close_leaves_nothing_of_a_join_that_was_going_on(place):
    closed = []    # so that none is collected
    for _ in range(30):
        before = threads()
        processes = _native.Processes(place / "processes", place / "doorbells")
        closed.append(processes)
        begun = []

        def join(begun=begun, processes=processes):
            begun.append(True)
            with contextlib.suppress(ClosedError):    # closed before
                processes.join()

        joining = threading.Thread(target=join)
        joining.start()
        while not begun:    # and then the join has let go of the GIL
            pass
        processes.close()
        joining.join()
        eventually(lambda before=before: not threads() - before, 10)


@pytest.mark.parametrize("name", [(-1, 1), (1000, 1), (2**31 - 1, 1), (0, 0), (500, 17)])
def test_a_process_that_never_was_is_not_alive(processes, name):
    assert not processes.is_alive(*name)


def test_a_slot_that_was_taken_again_is_not_who_had_it(place, processes):
    other = take_part(place)
    before = other.me
    other.close()
    other = take_part(place)
    assert other.me[0] == before[0]
    assert not processes.is_alive(*before)
    assert processes.is_alive(*other.me)


def test_a_killed_process_is_heard_of_at_once(place, processes):
    for _ in range(20):
        deaths = processes.deaths
        killed(lambda: take_part(place))
        eventually(lambda before=deaths: processes.deaths > before)


def test_a_death_is_counted_once_by_many_watchers(place, processes):
    watchers = [take_part(place) for _ in range(8)]
    deaths = processes.deaths
    killed(lambda: take_part(place))
    eventually(lambda: processes.deaths > deaths)
    time.sleep(0.05)
    assert processes.deaths == deaths + 1
    for watcher in watchers:
        watcher.close()


def test_a_forked_child_takes_no_part_in_its_parents_place(processes):
    for action in (lambda: processes.me, processes.join, lambda: processes.is_alive(0, 1)):
        assert isinstance(in_child(action), IllegalStateError)
    assert processes.is_alive(*processes.me)


@contextlib.contextmanager
def another(place):
    """A process that takes part, and its name."""
    source, target = os.pipe()
    pid = os.fork()
    if pid == 0:
        other = take_part(place)
        os.write(target, repr(other.me).encode())
        time.sleep(60)
        os._exit(0)
    try:
        yield pid, ast.literal_eval(os.read(source, 100).decode())
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def test_a_stopped_process_is_silent_and_alive(place, processes):
    processes.ask_beats(10)
    with another(place) as (pid, name):
        time.sleep(0.1)
        eventually(lambda: processes.silence_ms(name[0]) < 90)
        os.kill(pid, signal.SIGSTOP)
        eventually(lambda: processes.silence_ms(name[0]) >= 200)
        assert processes.is_alive(*name)


def set_back(place, name, ms):
    """The last beat of a process, as if that were longer ago."""
    with open(place / "processes", "r+b") as file, mmap.mmap(file.fileno(), 0) as table:
        at = table.find(struct.pack("<Q", name[1])) + BEAT_AFTER_NONCE
        struct.pack_into("<q", table, at, struct.unpack_from("<q", table, at)[0] - ms)


def test_who_was_stopped_with_all_others_calls_none_of_them_silent(place, processes):
    """A container that was paused goes on: the judge may run again before its own watcher does."""
    processes.ask_beats(1000)
    with another(place) as (pid, name):
        os.kill(pid, signal.SIGSTOP)
        eventually(lambda: processes.silence_ms(name[0]) >= 100)

        def is_silent_after_all():    # unless our own watcher has just beaten
            set_back(place, processes.me, 5000)
            return processes.silence_ms(name[0])

        eventually(lambda: not is_silent_after_all())
        eventually(lambda: processes.silence_ms(name[0]) >= 100)    # it goes by its own beat again


def test_closed_processes_say_so(place):
    processes = take_part(place)
    processes.close()
    processes.close()
    for action in (processes.join, processes.ring, lambda: processes.me, lambda: processes.deaths):
        with pytest.raises(ClosedError):
            action()


def test_a_file_that_is_none_of_doorbells_is_refused(place):
    (place / "bells").write_bytes(b"x")
    with pytest.raises(UnsupportedFormatError, match="doorbells"):
        _native.Processes(place / "processes", place / "bells")


@pytest.mark.parametrize("content", [b"", b"x", b"\0" * 5000, b"\xff" * 200_000])
def test_a_file_of_another_kind_is_made_anew(place, content):
    (place / "processes").write_bytes(content)
    processes = take_part(place)
    assert processes.is_alive(*processes.me)
    processes.close()


@pytest.mark.parametrize("at", [VERSION, NAMESPACE])
def test_what_others_have_left_is_made_anew(place, at):
    """A container or a version that is gone: nobody has it open, so none of its processes lives."""
    take_part(place).close()
    change_byte(place / "processes", at)
    processes = take_part(place)
    assert processes.is_alive(*processes.me)
    processes.close()


@pytest.mark.parametrize("at", [VERSION, NAMESPACE])
def test_who_stands_still_while_he_makes_it_anew_does_not_call_it_in_use(place, at):
    take_part(place).close()
    change_byte(place / "processes", at)
    slow = {**os.environ, "SLOW_LOCK_MS": "2500",
            "LD_PRELOAD": str(built("build/slow_lock.so") / "slow_lock.so")}
    code = "import sys; from pylog import _native; _native.Processes(*sys.argv[1:]).join()"
    done = subprocess.run(
        [sys.executable, "-c", code, place / "processes", place / "doorbells"], env=slow,
        capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_who_has_left_is_in_nobodys_way(place):
    left = take_part(place)
    left.close()
    change_byte(place / "processes", VERSION)
    take_part(place).close()
    assert left is not None    # and has it mapped


@pytest.mark.parametrize("at", [VERSION, NAMESPACE])
def test_of_many_who_find_what_others_have_left_none_is_refused(place, at):
    """Each has it open for a moment, which is no use of it."""
    table_processes(place).close()
    change_byte(place / "processes", at)
    with open(place / "processes") as another:
        fcntl.flock(another, fcntl.LOCK_SH)
        closing = threading.Timer(0.05, another.close)
        closing.start()
        table_processes(place).close()
        closing.join()
