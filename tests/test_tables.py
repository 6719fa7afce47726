"""Tables: the document, who owns what, what is committed; with kills at every point."""

import contextlib
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from drivers import built
from tables import (
    BOOT,
    NAMESPACE,
    VERSION,
    change_byte,
    table_processes,
)

from pylog import _native
from pylog.errors import (
    ClosedError,
    ConfigurationError,
    CorruptRecordError,
    UnsupportedEnvironmentError,
    UnsupportedFormatError,
)

SOURCES = Path(__file__).parent.parent / "csrc"


# ---- the document --------------------------------------------------------------------------------

def test_a_document_is_changed_by_who_has_read_the_last_one(table):
    generation, document = table.read()
    assert document == b""
    assert table.publish(generation, b"first")
    assert not table.publish(generation, b"late")
    assert table.read() == (generation + 1, b"first")


@pytest.mark.parametrize("size", [0, 1, 4096, 4097, 100_000, 3_000_000])
def test_documents_of_all_sizes_come_back(table, size):
    for letter in (b"a", b"b", b"c"):
        generation, _ = table.read()
        assert table.publish(generation, letter * size)
        assert table.read() == (generation + 1, letter * size)


def test_of_many_who_publish_at_once_one_wins_each_generation(place, table):
    wins = []

    def work():
        own = _native.Table(place / "group", "a group", table_processes(place))
        for _ in range(200):
            generation, document = own.read()
            if own.publish(generation, document + b"x"):
                wins.append(generation)
    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(wins) == len(set(wins)) == len(table.read()[1])


def test_a_damaged_document_is_told(place, table):
    table.publish(table.read()[0], b"members")
    where = (place / "group").read_bytes().index(b"members")
    with open(place / "group", "r+b") as file:
        file.seek(where)
        file.write(b"M")
    with pytest.raises(CorruptRecordError, match="damaged"):
        table.read()


# ---- owners and entries --------------------------------------------------------------------------

def test_a_slot_is_found_by_name_and_number(table):
    index = table.find("orders", 3)
    assert table.find("orders", 3) == index
    assert table.find("orders", 4) != index
    assert table.find("order", 3) != index
    assert table.find("nothing", 0, make=False) is None
    assert table.slots()[index] == ("orders", 3)


def test_thousands_of_slots_keep_their_places(table):
    places = [table.find("t", number) for number in range(2000)]
    assert places == list(range(2000))
    assert [table.find("t", number) for number in range(2000)] == places


def test_one_owner_at_a_time(table):
    index, first, second = table.find("t"), table.new_owner(), table.new_owner()
    assert first != second
    assert table.own(index, 0, first)
    assert not table.own(index, 0, second)
    assert not table.own(index, second, 0)
    assert table.own(index, first, second)
    assert table.owner(index)[0] == second
    assert table.own(index, second, 0)
    assert table.owner(index) == (0, -1, 0)


def test_who_has_not_seen_the_last_generation_does_not_come_to_own(table):
    index, me = table.find("t"), table.new_owner()
    generation, _ = table.read()
    table.publish(generation, b"x")
    assert not table.own(index, 0, me, generation)
    assert table.own(index, 0, me, generation + 1)


def test_an_owner_bears_the_process_that_it_lives_in(table, processes):
    index, me = table.find("t"), table.new_owner()
    table.own(index, 0, me)
    assert table.owner(index) == (me, *processes.me)


def test_what_was_committed_comes_back(table):
    index, me = table.find("t", 1), table.new_owner()
    assert table.get(index) is None
    table.own(index, 0, me)
    generation = table.generation
    for offset in (0, 17, 5, 2**62):
        note = f"at {offset} é".encode()
        assert table.commit(index, me, generation, offset, note, 3, 99) is True
        assert table.get(index)[:4] == (offset, note.decode(), 3, 99)


def test_a_commit_is_fenced_by_owner_and_by_generation(table):
    index, me, other = table.find("t"), table.new_owner(), table.new_owner()
    generation = table.generation
    table.own(index, 0, me)
    assert table.commit(index, other, generation, 5) is False
    assert table.commit(index, 0, generation, 5) is False
    assert table.commit(index, me, generation - 1, 5) is None
    table.publish(generation, b"x")
    assert table.commit(index, me, generation, 5) is None
    assert table.get(index) is None
    assert table.commit(index, me, generation + 1, 5) is True


def test_a_note_has_a_limit_that_is_told(table):
    index = table.find("t")
    longest = b"x" * _native.TABLE_TEXT_MAX
    assert table.commit(index, 0, table.generation, 1, longest)
    with pytest.raises(ConfigurationError, match="320"):
        table.commit(index, 0, table.generation, 2, longest + b"x")
    assert table.get(index)[1] == longest.decode()


def test_a_forgotten_slot_has_nothing_committed(table):
    index, me = table.find("t"), table.new_owner()
    table.own(index, 0, me)
    table.commit(index, me, table.generation, 5)
    assert not table.forget(index)
    table.own(index, me, 0)
    assert table.forget(index)
    assert table.get(index) is None
    assert table.commit(index, 0, table.generation, 1)
    assert table.get(index)[0] == 1


@pytest.mark.parametrize("index", [-1, 1, 16, 10_000, 2**31 - 1])
def test_a_slot_that_is_none_is_refused(table, index):
    table.find("t")
    for action in (lambda: table.get(index), lambda: table.own(index, 0, 1),
                   lambda: table.commit(index, 0, 2, 0), lambda: table.forget(index),
                   lambda: table.owner(index)):
        with pytest.raises(ConfigurationError, match="no slot"):
            action()


def test_names_that_are_too_long_are_refused(table):
    assert table.find("x" * _native.TABLE_NAME_MAX) == 0
    with pytest.raises(ConfigurationError, match="250 bytes"):
        table.find("x" * (_native.TABLE_NAME_MAX + 1))


def test_a_closed_table_says_so(table):
    table.close()
    table.close()
    for action in (table.read, table.slots, table.new_owner, table.sync, lambda: table.get(0),
                   lambda: table.publish(2, b""), lambda: table.find("x")):
        with pytest.raises(ClosedError):
            action()


# ---- locks of those who are stopped --------------------------------------------------------------

@contextlib.contextmanager
def lock_held_by_another(place, at):
    """As a process holds it that is stopped inside."""
    with subprocess.Popen(["sleep", "60"]) as another, open(place / "group", "r+b", 0) as file:
        try:
            os.pwrite(file.fileno(), another.pid.to_bytes(4, "little"), at)
            yield
        finally:
            os.pwrite(file.fileno(), bytes(4), at)
            another.kill()


HEADER, SLOT, _ = _native.table_layout()
OF_FIRST_SLOT = 3 * 4096 + SLOT["lock"]


@pytest.mark.parametrize(("at", "call"), [
    (HEADER["lock"], lambda table: table.find("new")),
    (HEADER["lock"], lambda table: table.publish(table.generation, b"x")),
    (OF_FIRST_SLOT, lambda table: table.get(0)),
    (OF_FIRST_SLOT, lambda table: table.owner(0)),
    (OF_FIRST_SLOT, lambda table: table.own(0, 0, 7)),
    (OF_FIRST_SLOT, lambda table: table.forget(0)),
    (OF_FIRST_SLOT, lambda table: table.commit(0, 0, table.generation, 5)),
], ids=["find", "publish", "get", "owner", "own", "forget", "commit"])
def test_who_waits_for_a_lock_keeps_no_other_thread_waiting(place, table, at, call):
    table.find("t")
    done = []
    waiting = threading.Thread(target=lambda: done.append(call(table)))
    with lock_held_by_another(place, at):
        started = time.monotonic()
        waiting.start()
        for _ in range(20):
            time.sleep(0.001)
        assert time.monotonic() - started < 20
        assert not done
    waiting.join()
    assert len(done) == 1


def test_who_is_inside_when_the_table_is_closed_uses_no_descriptor_of_another(place, table):
    """The file has to grow; its descriptor had been closed, and the number may be another's."""
    done = []

    def publish():
        try:
            done.append(table.publish(table.generation, bytes(100_000)))
        except ClosedError:    # not within one slice of the wait
            done.append(None)

    publishing = threading.Thread(target=publish)
    with contextlib.ExitStack() as opened:
        with lock_held_by_another(place, HEADER["lock"]):
            publishing.start()
            time.sleep(0.01)
            table.close()
            opened.enter_context(open(place / "file", "w+b"))
        publishing.join()
    assert done in ([True], [None])
    assert (place / "file").stat().st_size == 0


# ---- removing, syncing ---------------------------------------------------------------------------

def test_a_table_that_somebody_has_open_is_not_removed(place, table):
    other = _native.Table(place / "group", "a group", table_processes(place))
    assert not table.remove()
    other.close()
    assert table.remove()
    assert not (place / "group").exists()


def test_a_table_that_could_not_be_removed_is_in_use_as_before(place, table):
    """The lock that is asked for replaces the one that is held, and when it is refused both are
    gone: the next who removed the table took it from under who had tried."""
    other, third = (_native.Table(place / "group", "a group", table_processes(place))
                    for _ in range(2))
    assert not table.remove()
    other.close()
    assert not third.remove()
    third.close()
    assert table.commit(table.find("t"), 0, table.generation, 5)
    assert (place / "group").exists()
    assert table.remove()


def run_refusing_sync(code, place, while_there):
    """fdatasync fails in there while the file `while_there` exists."""
    environment = {**os.environ, "REFUSE_SYNC": str(while_there),
                   "LD_PRELOAD": str(built("build/refuse_sync.so") / "refuse_sync.so")}
    return subprocess.run([sys.executable, "-c", code, place], env=environment,
                          capture_output=True, text=True, check=False)


SYNC_REFUSED = """
import sys
from pathlib import Path
from pylog import _native
from pylog.broker import make_doorbells
from pylog.errors import LogError

place = Path(sys.argv[1])
make_doorbells(place / "doorbells")
table = _native.Table(place / "group", "g", _native.Processes(place / "p", place / "doorbells"))

def dirty_kib():
    of_table = Path("/proc/self/smaps").read_text().partition(f"{place}/group")[2]
    return sum(int(line.split()[1]) for line in of_table.splitlines()[:30] if "_Dirty:" in line)

index = table.find("t")
table.sync()
clean = dirty_kib()
table.commit(index, 0, table.generation, 5)
committed = dirty_kib()
(place / "refuse").touch()
try:
    table.sync()
except LogError as error:
    print(clean, committed, dirty_kib())
"""


@pytest.mark.slow
def test_a_sync_that_failed_is_done_again_and_not_believed(place):
    done = run_refusing_sync(SYNC_REFUSED, place, place / "refuse")
    assert done.returncode == 0, done.stderr
    clean, committed, after = map(int, done.stdout.split())
    if clean:
        pytest.skip("this file system keeps its pages dirty")
    assert after >= committed > 0


# ---- after a reboot, after a copy ----------------------------------------------------------------

def reboot(path):
    change_byte(path, BOOT)


def commit_numbers(table, count):
    for number in range(count):
        index = table.find("topic", number)
        for offset in (number, number + 1000):
            assert table.commit(index, 0, table.generation, offset, b"n%d" % number, 5, 6)


def test_a_table_of_another_version_that_is_in_use_is_left_alone(place, table):
    change_byte(place / "group", VERSION)
    with pytest.raises(UnsupportedFormatError, match="another version"):
        _native.Table(place / "group", "a group", table_processes(place))


@pytest.mark.parametrize("at", [0, VERSION])
def test_commits_of_another_version_or_behind_damage_are_kept_for_who_can_read_them(
        place, table, at):
    commit_numbers(table, 3)
    table.close()
    change_byte(place / "group", at)
    before = (place / "group").read_bytes()

    with pytest.raises(UnsupportedFormatError, match="another version of pylog, or"):
        _native.Table(place / "group", "a group", table_processes(place))

    assert (place / "group").read_bytes() == before
    change_byte(place / "group", at)
    table = _native.Table(place / "group", "a group", table_processes(place))
    assert [table.get(table.find("topic", n))[0] for n in range(3)] == [1000, 1001, 1002]


def test_a_table_of_another_pid_namespace_that_is_in_use_is_left_alone(place, table):
    change_byte(place / "group", NAMESPACE)
    with pytest.raises(UnsupportedEnvironmentError, match="PID namespace"):
        _native.Table(place / "group", "a group", table_processes(place))
    assert table.commit(table.find("t"), 0, table.generation, 5)


def test_what_was_committed_in_another_pid_namespace_is_there_in_the_next(place, table):
    commit_numbers(table, 3)
    table.close()
    change_byte(place / "group", NAMESPACE)
    table = _native.Table(place / "group", "a group", table_processes(place))
    assert [table.get(table.find("topic", n))[0] for n in range(3)] == [1000, 1001, 1002]


def test_after_a_reboot_the_commits_are_there_and_the_members_are_not(place, table):
    commit_numbers(table, 100)
    index, me = table.find("topic", 7), table.new_owner()
    table.own(index, 0, me)
    generation, _ = table.read()
    table.publish(generation, b"members")
    table.close()
    reboot(place / "group")
    table = _native.Table(place / "group", "a group", table_processes(place))
    assert table.name == "a group"
    assert table.read()[1] == b""
    assert table.generation > generation + 1
    assert table.new_owner() > me
    for number in range(100):
        index = table.find("topic", number, make=False)
        assert table.get(index)[:4] == (number + 1000, f"n{number}", 5, 6)
        assert table.owner(index)[0] == 0


MADE_ANEW = """
import sys
from pathlib import Path
from pylog import _native
from pylog.errors import LogError

place = Path(sys.argv[1])
processes = _native.Processes(place / "processes", place / "doorbells")
try:
    _native.Table(place / "group", "a group", processes)
except LogError as error:
    print(error)
"""


@pytest.mark.slow
def test_a_table_is_replaced_only_by_one_that_is_on_disk(place, table):
    """The old one may be the only one that a power cut leaves."""
    commit_numbers(table, 3)
    table.close()
    reboot(place / "group")
    before, names = (place / "group").read_bytes(), sorted(os.listdir(place))
    done = run_refusing_sync(MADE_ANEW, place, place / "processes")
    assert "flush" in done.stdout, done.stderr
    assert (place / "group").read_bytes() == before
    assert sorted(os.listdir(place)) == names


def test_a_copy_takes_the_commits_along(place, table):
    commit_numbers(table, 20)
    (place / "copy").write_bytes((place / "group").read_bytes())
    copy = _native.Table(place / "copy", "a group", table_processes(place))
    assert [copy.get(copy.find("topic", n))[0] for n in range(20)] == list(range(1000, 1020))


@pytest.mark.parametrize("field", ["number", "name", "nameSize", "nameCheck"])
def test_what_was_committed_is_not_another_partitions_when_a_name_is_damaged(place, table, field):
    """The entry itself is whole."""
    commit_numbers(table, 3)
    table.close()
    reboot(place / "group")
    change_byte(place / "group", 3 * 4096 + 1024 + SLOT[field])
    table = _native.Table(place / "group", "a group", table_processes(place))
    assert table.slots() == [("topic", 0), ("topic", 2)]


def test_a_torn_table_gives_back_each_entry_that_is_whole_and_invents_none(place, table, rng):
    commit_numbers(table, 40)
    table.close()
    whole = (place / "group").read_bytes()
    told = 0
    for _ in range(300):
        content = bytearray(whole)
        content[16] ^= 0xff
        for _ in range(rng.choice([1, 1, 8])):
            at = rng.randrange(BOOT, len(content))    # before it: what file it is
            content[at:at + 64] = rng.randbytes(64)[:len(content) - at]
        del content[rng.choice([len(content), rng.randrange(len(content))]):]
        (place / "group").write_bytes(content)
        table = _native.Table(place / "group", "a group", table_processes(place))
        for index, (name, number) in enumerate(table.slots()):
            entry = table.get(index)
            if entry and name == "topic" and number < 40:
                assert entry[0] in (number, number + 1000)
                told += 1
        table.close()
    assert told > 3000


def test_a_damaged_table_that_is_in_use_is_refused_or_told(place, table, rng):
    commit_numbers(table, 40)
    whole = (place / "group").read_bytes()
    for _ in range(200):
        content = bytearray(whole)
        at = rng.randrange(640, 4096)    # the header's counters and places
        content[at] ^= 1 << rng.randrange(8)
        with open(place / "group", "r+b") as file:
            file.write(content)
        try:
            other = _native.Table(place / "group", "a group", table_processes(place))
            other.read()
            for index in range(len(other.slots())):
                other.get(index)
        except (CorruptRecordError, UnsupportedFormatError):
            pass


# ---- kills ---------------------------------------------------------------------------------------

@pytest.mark.slow
def test_a_kill_at_any_point_loses_nothing_and_is_heard_of(tmp_path, seed):
    points = sorted({point for name in ("pl_table", "pl_shared", "pl_process") for point in
                     re.findall(r'PL_POINT\("([a-z-]+)"\)', (SOURCES / f"{name}.c").read_text())})
    done = subprocess.run([built("build/tables") / "tables", tmp_path / "tables", "400", str(seed),
                           *points], capture_output=True, text=True, check=False)
    print(f"seed {seed}\n{done.stdout}")
    assert done.returncode == 0, f"seed {seed}: {done.stderr}"
    assert all(f"point {point} " in done.stdout for point in points)


def test_a_process_killed_while_it_commits_leaves_a_whole_commit(place, table):
    index = table.find("t")
    rng, most = random.Random(7), 0
    for _ in range(15):
        pid = os.fork()
        if pid == 0:
            own = _native.Table(place / "group", "a group", table_processes(place))
            offset = 0
            while True:
                offset += 1
                own.commit(index, 0, own.generation, offset, str(offset).encode())
        time.sleep(rng.uniform(0.005, 0.02))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        entry = table.get(index)
        assert entry is None or entry[1] == str(entry[0])
        most = max(most, entry[0] if entry else 0)
    assert most > 100    # not each had the time to begin
