"""Waiting for many logs with one sleep."""

import os
import resource
import signal
import threading
import time

import pytest
from children import in_child
from tables import eventually

import pylog
from pylog import _native

COUNT = 20


def linked_logs(path, count=COUNT, **options):
    """Logs that share one file of doorbells, as the partitions of a broker do."""
    path.mkdir(mode=0o700)
    (path / "doorbells").write_bytes(bytes(4096))
    (path / "doorbells").chmod(0o600)
    for number in range(count):
        (path / str(number)).mkdir(mode=0o700)
        os.link(path / "doorbells", path / str(number) / "doorbells")
    return [pylog.Log(path / str(number), **options) for number in range(count)]


def append_later(path, number, seconds=0.05):
    """A process that appends to one of the logs after a while."""
    pid = os.fork()
    if pid == 0:
        try:
            with pylog.Log(path / str(number)) as log:
                time.sleep(seconds)
                log.append(b"value")
        finally:
            os._exit(0)
    return pid


@pytest.mark.parametrize("number", [0, COUNT // 2, COUNT - 1])
def test_append_in_another_process_to_any_of_them_wakes(log_path, number):
    logs = linked_logs(log_path)
    pid = append_later(log_path, number)

    found = _native.Waiter(logs).wait([0] * COUNT, timeout=30)

    assert found == number
    os.waitpid(pid, 0)
    assert [log.end_offset for log in logs] == [int(i == number) for i in range(COUNT)]


@pytest.mark.parametrize("many", [False, True], ids=["one log", "any of many"])
def test_two_on_one_core_answer_each_other(log_path, many):
    """A thread that is answered soon looks before it sleeps; it must not keep the other out."""
    def pass_to_and_fro():
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])
        pid = os.fork()
        mine, other = ("there", "back") if pid else ("back", "there")
        with pylog.Log(log_path / mine) as to, pylog.Log(log_path / other) as of:
            for number in range(500):
                if pid:
                    to.append(b"to")
                assert (_native.Waiter([of]).wait([number], timeout=30) == 0 if many
                        else of.wait(number, timeout=30))
                if not pid:
                    to.append(b"fro")
        if pid == 0:
            os._exit(0)
        return os.waitpid(pid, 0)[1], resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw

    status, sleeps = in_child(pass_to_and_fro)

    assert status == 0
    assert sleeps > 50


def test_what_is_there_already_is_found_without_a_sleep(log_path):
    logs = linked_logs(log_path, 3)
    logs[1].append(b"value")

    assert _native.Waiter(logs).wait([0, 0, 0]) == 1
    assert _native.Waiter(logs).wait([0, 1, 0], timeout=0) == -1


def test_thread_sleeps_through_what_another_thread_waits_for(log_path):
    busy, quiet = linked_logs(log_path, 2)
    kept = []

    def wait():
        kept.append(threading.get_native_id())
        kept.append(_native.Waiter([quiet]).wait([0], timeout=30))

    sleeper = threading.Thread(target=wait)
    sleeper.start()
    eventually(lambda: kept)
    time.sleep(0.2)
    before = switches_of(kept[0])
    pid = append_often(log_path / "0", 50)
    for number in range(50):
        assert _native.Waiter([busy]).wait([number], timeout=30) == 0
    woken = switches_of(kept[0]) - before
    os.waitpid(pid, 0)
    quiet.append(b"value")
    sleeper.join()

    assert woken < 20
    assert kept[1] == 0


def switches_of(thread):
    """How often it went to sleep."""
    with open(f"/proc/self/task/{thread}/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("voluntary"))


def append_often(path, count):
    pid = os.fork()
    if pid == 0:
        try:
            with pylog.Log(path) as log:
                for _ in range(count):
                    time.sleep(0.005)
                    log.append(b"value")
        finally:
            os._exit(0)
    return pid


def test_timeout_ends_the_wait(log_path):
    logs = linked_logs(log_path, 3)
    start = time.monotonic()

    assert _native.Waiter(logs).wait([0, 0, 0], timeout=0.15) == -1
    assert 0.1 < time.monotonic() - start < 30


def test_logs_without_common_doorbells_are_waited_for_as_well(log_path):
    log_path.mkdir()
    logs = [pylog.Log(log_path / name) for name in "abc"]
    thread = threading.Timer(0.05, logs[2].append, [b"value"])
    thread.start()

    assert _native.Waiter(logs).wait([0, 0, 0], timeout=30) == 2
    thread.join()


def test_one_log_that_recovers_leaves_the_doorbells_of_the_others(log_path):
    logs = linked_logs(log_path, 3)
    logs[0].close()
    for _ in range(5):    # each time its first opener makes the page anew
        pylog.Log(log_path / "0").close()
    logs[0] = pylog.Log(log_path / "0")
    pid = append_later(log_path, 0)

    assert _native.Waiter(logs).wait([0, 0, 0], timeout=30) == 0
    os.waitpid(pid, 0)
    assert len({os.stat(log_path / name / "doorbells").st_ino for name in "012"}) == 1


def test_many_idle_logs_cost_hardly_any_time(log_path):
    logs = linked_logs(log_path, 50)
    waiter = _native.Waiter(logs)
    waiter.wait([0] * 50, timeout=0.7)    # the housekeeper goes to rest
    before = resource.getrusage(resource.RUSAGE_SELF)

    waiter.wait([0] * 50, timeout=1.5)

    after = resource.getrusage(resource.RUSAGE_SELF)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    woken = after.ru_nvcsw - before.ru_nvcsw
    assert used < 0.05
    assert woken < 40


def test_close_in_another_thread_ends_the_wait(log_path):
    logs = linked_logs(log_path, 3)
    thread = threading.Timer(0.05, logs[1].close)
    thread.start()

    with pytest.raises(pylog.ClosedError):
        _native.Waiter(logs).wait([0, 0, 0], timeout=30)
    thread.join()


def test_signal_handlers_run_in_the_wait(log_path):
    logs = linked_logs(log_path, 2)

    def interrupt(*unused):
        raise InterruptedError

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with pytest.raises(InterruptedError):
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            _native.Waiter(logs).wait([0, 0], timeout=30)
    finally:
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize(("offsets", "timeout", "error"), [
    ([0], None, ValueError),
    ([0, 0, 0], None, ValueError),
    ([0, "one"], None, TypeError),
    ([0, 0], "soon", TypeError),
    ([0, 0], float("nan"), pylog.ConfigurationError),
])
def test_what_cannot_be_waited_for_is_refused(log_path, offsets, timeout, error):
    logs = linked_logs(log_path, 2)

    with pytest.raises(error):
        _native.Waiter(logs).wait(offsets, timeout)


def test_closed_log_is_refused(log_path):
    logs = linked_logs(log_path, 2)
    logs[0].close()

    with pytest.raises(pylog.ClosedError):
        _native.Waiter(logs).wait([0, 0])


def test_nothing_to_wait_for_waits_for_the_timeout():
    assert _native.Waiter([]).wait([], timeout=0.01) == -1
