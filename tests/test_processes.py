"""Many threads and processes on one log: forked, spawned, killed, interrupted, idle.

The children are real processes that import what they run from this file.
"""

import fcntl
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from chances import assert_once_below
from children import in_child, killed

import pylog

EACH = 400
METHODS = ["fork", "forkserver", "spawn"]


def write(path, writer, count=EACH):
    """Appends b"<writer> <number>" by several ways in."""
    with pylog.Log(path) as log:
        number = 0
        while number < count:
            step = min(1 + number % 7, count - number)
            values = [b"%d %d" % (writer, n) for n in range(number, number + step)]
            if number % 2:
                log.append_many(values)
            else:
                for value in values:
                    log.append(value)
            number += step


def read_until(path, count, answers):
    """Follows the log from its start until `count` records came; answers how many were in order."""
    with pylog.Log(path) as log:
        records = list(log.read(follow=True, stop=count))
    answers.put(is_in_order(records))


def is_in_order(records):
    """Are the offsets gapless and each writer's numbers rising by one?"""
    numbers = {}
    for expected, record in enumerate(records):
        writer, number = map(int, record.value.split())
        if record.offset != expected or number != numbers.get(writer, -1) + 1:
            return False
        numbers[writer] = number
    return True


def count_up(path, times):
    """Adds one to a counter, `times` times, by conditional appends alone."""
    with pylog.Log(path) as log:
        while times:
            end = log.end_offset
            last = int(log.get(end - 1).value) if end else 0
            try:
                log.append(b"%d" % (last + 1), if_end=end)
            except pylog.WrongEndOffsetError:
                continue
            times -= 1


def run_all(context, *calls):
    processes = [context.Process(target=call, args=arguments) for call, *arguments in calls]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * len(processes)


# ---- together -----------------------------------------------------------------------------------

def test_threads_append_and_read_at_once(log_path):
    with pylog.Log(log_path, segment_bytes=16384) as log:
        def append(writer):
            for number in range(EACH):
                log.append(b"%d %d" % (writer, number))

        threads = [threading.Thread(target=append, args=(writer,)) for writer in range(4)]
        for thread in threads:
            thread.start()
        records = list(log.read(follow=True, stop=4 * EACH))
        for thread in threads:
            thread.join()

        assert is_in_order(records)
        assert len(records) == 4 * EACH


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_processes_append_and_follow_at_once(log_path, method):
    context = multiprocessing.get_context(method)
    pylog.Log(log_path, segment_bytes=16384).close()
    answers = context.Queue()

    run_all(context,
            (read_until, log_path, 3 * EACH, answers),
            *[(write, log_path, writer) for writer in range(3)])

    assert answers.get(timeout=10)
    with pylog.Log(log_path) as log:
        assert log.recovered is None
        assert log.end_offset == 3 * EACH
        assert is_in_order(log.read())


@pytest.mark.slow
def test_conditional_appends_of_many_processes_form_one_counter(log_path):
    context = multiprocessing.get_context("forkserver")

    run_all(context, *[(count_up, log_path, 100)] * 4)

    with pylog.Log(log_path) as log:
        assert [int(record.value) for record in log.read()] == list(range(1, 401))


# ---- at once ------------------------------------------------------------------------------------

FOLLOW = """
import sys, pylog
with pylog.Log(sys.argv[1], mode=sys.argv[2]) as log:
    records = log.read("latest", follow=True)    # else it may begin behind what comes at "ready"
    print("ready", flush=True)
    for record in records:
        print(record.value.decode(), flush=True)
"""


@pytest.fixture
def follower(log_path):
    """Starts a process that prints what it reads, as soon as it does; killed at the end."""
    started = []

    def start(script=FOLLOW, mode="a"):
        process = subprocess.Popen([sys.executable, "-c", script, str(log_path), mode],
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout.readline() == "ready\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("mode", ["a", "r"])
def test_append_is_seen_by_another_process_at_once(log_path, follower, mode):
    with pylog.Log(log_path) as log:
        process = follower(mode=mode)
        delays = []
        for number in range(30):
            time.sleep(0.002)           # so that it sleeps again: the wake-up is what is tested
            start = time.monotonic()
            log.append(b"%d" % number)
            assert process.stdout.readline() == f"{number}\n"
            delays.append(time.monotonic() - start)

    # A poll of 100 ms would show as 50 ms; a loaded machine is allowed some bad moments.
    assert sorted(delays)[len(delays) // 2] < 0.03


def test_wait_of_another_process_ends_with_the_append(log_path, follower):
    with pylog.Log(log_path) as log:
        process = follower("""
import sys, pylog
log = pylog.Log(sys.argv[1])
print("ready", flush=True)
print(log.wait(0), log.wait(1, timeout=0.01), flush=True)
""")
        log.append(b"value")

        assert process.stdout.readline() == "True False\n"


IDLE = """
import resource, sys, threading, time, pylog
log = pylog.Log(sys.argv[1], mode=sys.argv[2])
if sys.argv[2] == "a":
    log.append(b"so that there is a housekeeper")
def follow():
    try:
        list(log.read("latest", follow=True))
    except pylog.ClosedError:
        pass
threading.Thread(target=follow).start()
time.sleep(2)    # first all look often, in case that it is a pause
print("ready", flush=True)
before = resource.getrusage(resource.RUSAGE_SELF)
time.sleep(5)
after = resource.getrusage(resource.RUSAGE_SELF)
print((after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) / 5,
      (after.ru_nvcsw - before.ru_nvcsw) / 5, flush=True)
log.close()
"""


@pytest.mark.slow
def test_following_wakes_seldom_while_idle(log_path, follower):
    with pylog.Log(log_path):
        processes = [follower(IDLE, mode) for mode in "ar"]
        used = [tuple(map(float, process.stdout.readline().split())) for process in processes]

    # What a wake-up costs is the machine's affair: 0.03 ms, or 0.3 on a busy virtual one.
    print(", ".join(f"{cpu:.3%} of a core in {wakes} wake-ups a second" for cpu, wakes in used))
    assert max(wakes for _, wakes in used) <= 5


@pytest.mark.slow
@pytest.mark.parametrize("has_bell", [True, False], ids=["woken", "polling"])
def test_reader_looks_often_again_after_a_long_silence(log_path, has_bell):
    log = pylog.Log(log_path)
    if not has_bell:
        (log_path / "doorbells").unlink()    # as in a directory that the reader cannot write

    def seconds(_):
        end = log.end_offset
        assert not reader.wait(end, timeout=1.5)
        asked = threading.Semaphore(0)

        def answer():
            for i in range(20):
                asked.acquire()
                time.sleep(0.003)    # the reader waits by then
                log.append(b"%d" % i)

        thread = threading.Thread(target=answer)
        thread.start()
        start = time.monotonic()
        for i in range(20):
            asked.release()
            assert reader.wait(end + i, timeout=30)
        thread.join()
        return time.monotonic() - start

    with log, pylog.Log(log_path, mode="r") as reader:
        assert_once_below(20 * 0.1 / 2, seconds)    # at the slowest pace it is 20 * 0.1


@pytest.mark.slow
@pytest.mark.parametrize("has_bell", [True, False], ids=["woken", "polling"])
def test_close_ends_the_wait_of_another_thread_at_once(log_path, has_bell):
    def seconds(_):
        reader = pylog.Log(log_path, mode="r")
        raised = []

        def wait():
            try:
                reader.wait(0)
            except pylog.ClosedError as error:
                raised.append(error)

        thread = threading.Thread(target=wait)
        thread.start()
        time.sleep(2)    # by then it sleeps for a second at a time
        start = time.monotonic()
        reader.close()
        thread.join(60)
        assert raised
        return time.monotonic() - start

    with pylog.Log(log_path):
        if not has_bell:
            (log_path / "doorbells").unlink()
        assert_once_below(0.5, seconds)


# ---- interrupted --------------------------------------------------------------------------------

INTERRUPTED = {
    "follow": "list(log.read('latest', follow=True))",
    "wait": "log.wait(10**6)",
    "cursor": "log.cursor('latest').wait()",
    "reader": "list(pylog.Log(sys.argv[1], mode='r').read('latest', follow=True))",
    "lock": "os.kill(os.getppid(), signal.SIGUSR1); log.append(b'never')",
}


@pytest.mark.parametrize("name", ["follow", "wait", "cursor", "reader"])
def test_interrupt_ends_a_wait(follower, name):
    process = follower(f"""
import sys, pylog
log = pylog.Log(sys.argv[1])
try:
    print("ready", flush=True)    # the signal may be here before the wait is
    {INTERRUPTED[name]}
except KeyboardInterrupt:
    print("interrupted", log.append(b"and the log still works"), flush=True)
""")
    time.sleep(0.05)
    start = time.monotonic()
    process.send_signal(signal.SIGINT)

    assert process.stdout.readline() == "interrupted 0\n"
    assert time.monotonic() - start < 30


# A writer that is stopped at a random moment holds the append lock now and then; it is stopped
# again and again until it does.
HOLDER = """
import sys, pylog
log = pylog.Log(sys.argv[1])
print("ready", flush=True)
values = [b"x" * 100] * 640
while True:
    log.append_many(values)
"""


def stop_inside(process, log):
    """Stops `process` while it holds the append lock; true if that could be done."""
    for _ in range(300):
        process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
        try:
            log.append(b"probe")
        except pylog.PylogTimeoutError:
            return True
        process.send_signal(signal.SIGCONT)
        time.sleep(0.001)
    return False


@pytest.mark.slow
def test_lock_of_a_stopped_process_is_waited_for_and_named(log_path, follower):
    with pylog.Log(log_path, segment_bytes=1 << 20, lock_timeout_ms=50) as log:
        log.append(b"first")
        process = follower(HOLDER)
        if not stop_inside(process, log):
            pytest.skip("the process could not be stopped inside the lock")

        with pytest.raises(pylog.PylogTimeoutError, match=str(process.pid)) as caught:
            log.append_many([b"late"] * 3)
        assert caught.value.holder_pid == process.pid
        assert log.get(0).value == b"first"         # readers are not concerned
        patient = pylog.Log(log_path, lock_timeout_ms=60_000)
        main = threading.main_thread().ident
        start = time.monotonic()
        with pytest.raises(KeyboardInterrupt):    # also if it comes before the wait has begun
            threading.Timer(0.3, signal.pthread_kill, (main, signal.SIGINT)).start()
            patient.append(b"interrupted")
        assert time.monotonic() - start < 10

        process.kill()
        end = log.end_offset
        assert log.append(b"after the kill") >= end
        assert log.stats()["owner_deaths"] >= 1
        assert [r.offset for r in log.read()] == list(range(log.end_offset))
        patient.close()


def test_opening_beside_a_recovery_can_be_interrupted_and_names_it(log_path):
    pylog.Log(log_path).close()
    with open(log_path / "lock") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(pylog.PylogTimeoutError, match="open again") as caught:
            pylog.Log(log_path, lock_timeout_ms=20)
        assert caught.value.timeout_ms == 20
        assert caught.value.holder_pid in (os.getpid(), None)   # None: /proc/locks hides it

        main = threading.main_thread().ident
        start = time.monotonic()
        with pytest.raises(KeyboardInterrupt):    # also if it comes before the wait has begun
            threading.Timer(0.2, signal.pthread_kill, (main, signal.SIGINT)).start()
            pylog.Log(log_path, lock_timeout_ms=60_000)
        assert time.monotonic() - start < 10
    pylog.Log(log_path).close()


def test_opening_to_read_beside_a_recovery_looks_at_signals(log_path):
    pylog.Log(log_path).close()
    with open(log_path / "lock") as file:
        fcntl.flock(file, fcntl.LOCK_EX)

        def let_go(*_):
            fcntl.flock(file, fcntl.LOCK_UN)

        before = signal.signal(signal.SIGALRM, let_go)
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.02)
            reader = pylog.Log(log_path, mode="r")
        finally:
            signal.signal(signal.SIGALRM, before)
    # Else it had waited in vain, and would see nothing of what others do from now on.
    with reader, pylog.Log(log_path) as log:
        log.append(b"seen")
        assert reader.end_offset == 1


def test_opening_to_read_beside_a_long_recovery_shows_what_the_files_tell(log_path):
    with pylog.Log(log_path) as log:
        log.append(b"there")
    with open(log_path / "lock") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pylog.Log(log_path, mode="r") as reader:
            assert [record.value for record in reader.read()] == [b"there"]


# ---- forked and killed --------------------------------------------------------------------------

def test_forked_child_is_told_and_does_not_disturb(log_path):
    with pylog.Log(log_path) as log:
        log.append(b"parent")
        records, chunk = list(log.read()), log.fetch(0)

        def child():
            with pytest.raises(pylog.IllegalStateError):
                log.append(b"child")
            log.close()
            with pylog.Log(log_path) as own:
                own.append(b"child's own")
            return records[0].value, chunk.values()

        assert in_child(child) == (b"parent", [b"parent"])
        assert log.append(b"parent again") == 2
        assert [r.value for r in log.read()] == [b"parent", b"child's own", b"parent again"]
    with pylog.Log(log_path) as log:
        assert log.recovered is None


def test_child_that_outlives_its_parent_does_not_keep_the_log_open(log_path):
    source, target = os.pipe()
    is_forked, has_forked = os.pipe()

    def parent():
        log = pylog.Log(log_path)
        log.append(b"value")
        if os.fork() == 0:
            os.write(has_forked, b"!")
            os.close(target)
            os.read(source, 1)          # until the test ends
            os._exit(0)
        os.read(is_forked, 1)
        return log

    killed(parent)
    try:
        with pylog.Log(log_path) as log:
            assert log.recovered.reason == "killed"
    finally:
        for descriptor in (source, target, is_forked, has_forked):
            os.close(descriptor)


def test_exit_without_close_leaves_a_tidy_log(log_path):
    script = "import sys, pylog; pylog.Log(sys.argv[1]).append(b'value')"
    subprocess.run([sys.executable, "-c", script, str(log_path)], check=True)

    with pylog.Log(log_path) as log:
        assert log.recovered is None
        assert log.get(0).value == b"value"


@pytest.mark.slow
def test_killed_writers_lose_and_damage_nothing(log_path, rng):
    with pylog.Log(log_path, segment_bytes=65536) as log:
        seen = []
        for life in range(20):
            process = multiprocessing.get_context("fork").Process(
                target=write, args=(log_path, life, 10**9))
            process.start()
            log.wait(log.end_offset + rng.randrange(200), timeout=5)
            time.sleep(rng.random() * 0.005)
            os.kill(process.pid, signal.SIGKILL)
            process.join()
            log.append(b"%d %d" % (1000 + life, 0))
            now = [record.value for record in log.read()]
            assert now[:len(seen)] == seen
            seen = now

        assert is_in_order(log.read())
    with pylog.Log(log_path) as log:
        assert log.recovered is None


def test_clean_and_killed_directories_open_alike(log_path):
    def live():
        log = pylog.Log(log_path)
        log.append_many([b"value"] * 1000)
        return log

    killed(live)
    killed(live)
    in_child(lambda: live().close())

    with pylog.Log(log_path) as log:
        assert len(list(log.read())) == 3000


# ---- memory -------------------------------------------------------------------------------------

LAG = """
import sys, pylog
def anonymous_kilobytes():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("RssAnon"))
log = pylog.Log(sys.argv[1])
print("ready", flush=True)
read = log.read()
next(read)
before = anonymous_kilobytes()
count = 1 + sum(len(record) == 1000 for record in read)
print(count, anonymous_kilobytes() - before, flush=True)
"""


@pytest.mark.slow
def test_memory_of_a_reader_far_behind_stays_small(log_path, follower):
    with pylog.Log(log_path, segment_bytes=32 << 20) as log:
        for _ in range(150):
            log.append_many([bytes(1000)] * 1000)

        count, grown = follower(LAG).stdout.readline().split()

    assert int(count) == 150_000
    assert int(grown) < 8192


def test_opening_and_closing_leaks_nothing(log_path):
    def use():
        with pylog.Log(log_path, segment_bytes=4096) as log:
            log.append_many([b"value" * 100] * 20)
            list(log.read())

    def held():    # of this log: other tests' are let go of when they like
        with open("/proc/self/maps") as maps:
            mapped = sum(f"{log_path}/" in line for line in maps)
        links = (os.readlink(entry.path) for entry in os.scandir("/proc/self/fd")
                 if os.path.islink(entry.path))
        return sum(link.startswith(str(log_path)) for link in links), mapped

    for _ in range(20):
        use()

    assert held() == (0, 0)


def test_closed_log_holds_no_segment_but_what_a_view_needs(log_path):
    def mapped():
        with open("/proc/self/maps") as maps:
            return sum(f"{log_path}/" in line and (".log" in line or "(deleted)" in line)
                       for line in maps)

    def opened():
        return sum(str(log_path) in os.readlink(entry.path)
                   for entry in os.scandir("/proc/self/fd") if os.path.islink(entry.path))

    log = pylog.Log(log_path, segment_bytes=4096)
    log.append_many([b"value" * 100] * 50)
    assert sum(1 for _ in log.read()) == 50
    view = log.fetch(0).payload
    first = bytes(view)
    log.delete_before(40)
    log.close()

    assert mapped() == 1
    assert bytes(view) == first
    view.release()
    assert mapped() == 0
    assert opened() == 0
    assert log.closed
