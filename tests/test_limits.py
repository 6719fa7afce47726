"""When the machine has no more to give: room on the disk, descriptors, memory, a disk that answers.

The disks are small ones, mounted where only a forked child sees them; where that is not allowed the
tests are skipped, and test_faults.py, which needs no leave, shows the same call by call.
"""

import ctypes
import errno
import os
import resource
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from children import in_child
from drivers import built

import pylog

MEGABYTE = 1 << 20
DISK = 20 * MEGABYTE
SEGMENT = 2 * MEGABYTE
CLONE_NEWNS, CLONE_NEWUSER = 0x00020000, 0x10000000
MS_REC, MS_PRIVATE = 0x4000, 0x40000

libc = ctypes.CDLL(None, use_errno=True)


# ---- small disks --------------------------------------------------------------------------------

class NotAllowedError(Exception):
    """This machine lets us mount nothing."""


def must(result, what):
    if result != 0:
        raise NotAllowedError(f"{what}: {os.strerror(ctypes.get_errno())}")


def enter_private_mounts():
    """From here on this process mounts for itself alone, as root or as root of its own world."""
    uid, gid = os.getuid(), os.getgid()
    if uid == 0:
        must(libc.unshare(CLONE_NEWNS), "unshare")
    else:
        must(libc.unshare(CLONE_NEWNS | CLONE_NEWUSER), "unshare")
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
        Path("/proc/self/gid_map").write_text(f"0 {gid} 1")
    must(libc.mount(None, b"/", None, MS_REC | MS_PRIVATE, None), "mount --make-private")


def mount_tmpfs(folder):
    must(libc.mount(b"none", os.fsencode(folder), b"tmpfs", 0, b"size=%d" % DISK), "mount")


def mount_ext4(folder):
    """In a file: ext4 keeps what a failed fallocate got, as tmpfs does not."""
    image = folder.with_suffix(".image")
    with open(image, "wb") as file:
        file.truncate(DISK)
    for command in (["mkfs.ext4", "-q", "-F", "-m", "0", image],
                    ["mount", "-o", "loop", image, folder]):
        try:
            subprocess.run(command, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise NotAllowedError(f"{command[0]}: {error}") from None


MOUNTS = {"tmpfs": mount_tmpfs, "ext4": mount_ext4}


def on_disk(kind, folder, action):
    """Calls action(folder) in a child, in whose world the folder is a disk of 20 MB."""
    folder.mkdir()

    def mounted():
        enter_private_mounts()
        MOUNTS[kind](folder)
        return action(folder)

    result = in_child(mounted)
    if isinstance(result, NotAllowedError):
        pytest.skip(f"no {kind} can be mounted here: {result}")
    if isinstance(result, BaseException):
        raise result
    return result


@pytest.fixture(params=MOUNTS)
def on_small_disk(request, tmp_path):
    return lambda action: on_disk(request.param, tmp_path / "disk", action)


def fill(folder, leave=0):
    """A file that takes all room but `leave` bytes."""
    disk = os.statvfs(folder)
    filler = folder / f"filler{len(list(folder.glob('filler*')))}"
    with open(filler, "wb") as file:
        left = disk.f_bavail * disk.f_frsize - leave
        try:
            while left > 0:
                left -= file.write(bytes(min(left, 65536)))
        except OSError:
            pass
    return filler


def value_of(number):
    return b"%d " % number + bytes([number % 251]) * (number * 37 % 2000)


def append_until_full(log, first):
    """Appends value_of(first), ... and returns (how many there are now, the error)."""
    number = first
    while True:
        try:
            assert log.append(value_of(number)) == number
        except pylog.DiskFullError as error:
            return number, error
        number += 1


def holds(log, count, start=0):
    """Is all of it there, and no half of another?"""
    return log.end_offset == count and all(
        record.value == value_of(offset) for offset, record in
        zip(range(start, count), log.read(start), strict=True))


def test_full_disk_is_told_and_appends_go_on_when_there_is_room(on_small_disk):
    def act(folder):
        filler = fill(folder, leave=8 * MEGABYTE)
        with pylog.Log(folder / "log", segment_bytes=SEGMENT) as log:
            count, error = append_until_full(log, 0)
            assert error.errno == errno.ENOSPC
            assert error.needed_bytes > 0
            assert error.retriable
            assert "free some space; append again: nothing was appended" in str(error)
            assert append_until_full(log, count)[0] == count
            with pytest.raises(pylog.DiskFullError):
                log.append_many([bytes(1000)] * 900, atomic=True)
            assert holds(log, count)

            filler.unlink()
            more, _ = append_until_full(log, count)
            assert more > count
            assert holds(log, more)
            assert log.check().ok
        assert pylog.check(folder / "log").ok
        with pylog.Log(folder / "log") as log:
            return holds(log, more)

    assert on_small_disk(act)


def test_deleting_before_an_offset_makes_room_on_a_full_disk(on_small_disk):
    def act(folder):
        with pylog.Log(folder / "log", segment_bytes=SEGMENT) as log:
            count, _ = append_until_full(log, 0)
            log.delete_before(count // 2)
            more, _ = append_until_full(log, count)
            assert more > count + count // 4
            return holds(log, more, count // 2)

    assert on_small_disk(act)


def test_many_values_on_a_full_disk_leave_a_first_part_or_none(on_small_disk):
    def act(folder):
        fill(folder, leave=4 * MEGABYTE)
        values = [value_of(number) for number in range(20_000)]
        with pylog.Log(folder / "log", segment_bytes=SEGMENT) as log:
            with pytest.raises(pylog.DiskFullError):
                log.append_many(values)
            assert log.check().ok
            return 0 < log.end_offset < len(values) and holds(log, log.end_offset)

    assert on_small_disk(act)


@pytest.mark.parametrize("compression", [None, "lz4"])
def test_list_that_a_full_disk_cut_short_says_how_much_is_in(on_small_disk, compression):
    def act(folder):
        filler = fill(folder, leave=4 * MEGABYTE)
        # The filler is gone when the rest is appended, so all of it must fit then.
        values = [value_of(number) + os.urandom(500) for number in range(5000)]
        with pylog.Log(folder / "log", segment_bytes=SEGMENT, compression=compression) as log:
            with pytest.raises(pylog.DiskFullError) as caught:
                log.append_many(values)
            appended = caught.value.appended
            assert 0 < appended == log.end_offset < len(values)
            assert f"append the rest: the first {appended} records of the list are in [" \
                in str(caught.value)

            filler.unlink()
            log.append_many(values[appended:])
            return [record.value for record in log.read()] == values

    assert on_small_disk(act)


def test_list_that_ran_out_of_descriptors_says_how_much_is_in(log_path):
    def act():
        values = [value_of(number) for number in range(5000)]
        with pylog.Log(log_path, segment_bytes=SEGMENT) as log:
            log.append(b"before")
            for _ in range(20):    # the housekeeper may have held a lower one while we counted
                start = log.end_offset
                lower(resource.RLIMIT_NOFILE, limit_that_leaves(0))
                try:
                    log.append_many(values)
                except pylog.ResourceLimitError as error:
                    appended, said = error.appended, str(error)
                    break
                finally:
                    lift(resource.RLIMIT_NOFILE)
            assert appended == log.end_offset - start
            if appended:
                assert f"append the rest: the first {appended} records" in said
            log.append_many(values[appended:])
            return [record.value for record in log.read(start)] == values

    must_hold(act)


def test_log_on_a_disk_without_a_byte_left_closes_and_is_readable(on_small_disk):
    def act(folder):
        path = folder / "log"
        with pylog.Log(path, segment_bytes=SEGMENT) as log:
            for number in range(3000):
                log.append(value_of(number))
            fill(folder)
        fill(folder)                    # what the close gave back by trimming
        with pylog.Log(path, mode="r") as log:
            assert holds(log, 3000)
        for opened in (path, folder / "another"):
            with suppress(pylog.DiskFullError):         # a few blocks may be left after all
                pylog.Log(opened).close()
        for filler in folder.glob("filler*"):
            filler.unlink()
        pylog.Log(folder / "another").close()
        with pylog.Log(path) as log:
            assert log.append(value_of(3000)) == 3000
            return holds(log, 3001)

    assert on_small_disk(act)


def test_durable_log_on_memory_is_refused(tmp_path):
    def act(folder):
        with pytest.raises(pylog.UnsupportedFilesystemError, match=r"tmpfs.*durability") as caught:
            pylog.Log(folder / "log", durability="fsync")
        return caught.value.filesystem

    assert on_disk("tmpfs", tmp_path / "disk", act) == "tmpfs"


# ---- limits of the process ----------------------------------------------------------------------

def lower(limit, value):
    resource.setrlimit(limit, (value, resource.getrlimit(limit)[1]))


def lift(limit):
    resource.setrlimit(limit, (resource.getrlimit(limit)[1],) * 2)


def must_hold(action):
    result = in_child(action)
    if isinstance(result, BaseException):
        raise result
    assert result


def limit_that_leaves(spare):
    """The RLIMIT_NOFILE under which just `spare` more can be opened; there may be gaps."""
    opened = [os.open("/dev/null", os.O_RDONLY) for _ in range(spare + 1)]
    for fd in opened:
        os.close(fd)
    return opened[-1]


@pytest.mark.parametrize("mode", ["a", "r"])
@pytest.mark.parametrize("spare", range(5))
def test_open_without_descriptors_is_a_resource_limit(log_path, spare, mode):
    def act():
        with pylog.Log(log_path) as log:
            log.append(b"value")
        lower(resource.RLIMIT_NOFILE, limit_that_leaves(spare))
        try:
            with pylog.Log(log_path, mode=mode) as log:
                told = [record.value for record in log.read()] == [b"value"]
        except pylog.ResourceLimitError as error:
            told = spare < 4 and error.errno == errno.EMFILE and error.limit == "open files" \
                and "raise `ulimit -n`" in str(error)
        lift(resource.RLIMIT_NOFILE)
        with pylog.Log(log_path) as log:
            return told and log.append(b"value") == 1

    must_hold(act)


@pytest.mark.parametrize("spare", range(4))
def test_check_without_descriptors_is_a_resource_limit_and_no_damage(log_path, spare):
    def act():
        with pylog.Log(log_path) as log:
            log.append(b"value")
        lower(resource.RLIMIT_NOFILE, limit_that_leaves(spare))
        try:
            told = pylog.check(log_path).ok
        except pylog.ResourceLimitError as error:
            told = error.errno == errno.EMFILE and error.limit == "open files"
        lift(resource.RLIMIT_NOFILE)
        return told and pylog.check(log_path).ok

    must_hold(act)


def test_log_without_descriptors_goes_on_when_it_has_some(log_path):
    def act():
        number = 0
        with pylog.Log(log_path, segment_bytes=SEGMENT) as log:
            log.append(value_of(number))
            lower(resource.RLIMIT_NOFILE, limit_that_leaves(0))
            with pytest.raises(pylog.ResourceLimitError):
                while True:
                    number += 1
                    assert log.append(value_of(number)) == number
            assert log.end_offset == number
            with pytest.raises(pylog.ResourceLimitError):
                _ = log.size_bytes      # lists the directory; 0 would be a lie
            lift(resource.RLIMIT_NOFILE)
            assert log.append(value_of(number)) == number
            return holds(log, number + 1) and log.check().ok

    must_hold(act)


def test_file_size_limit_is_a_full_disk(log_path):
    def act():
        with pylog.Log(log_path, segment_bytes=32 * MEGABYTE) as log:
            lower(resource.RLIMIT_FSIZE, 3 * MEGABYTE)
            count, error = append_until_full(log, 0)
            assert error.errno == errno.EFBIG
            assert count > 1000
            assert holds(log, count)
            lift(resource.RLIMIT_FSIZE)
            assert log.append(value_of(count)) == count
            return holds(log, count + 1)

    must_hold(act)


def virtual_memory():
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def append_to_a_segment_of_1_gib(path):
    with pylog.Log(path) as log:
        log.append(b"value")


@pytest.mark.parametrize("spare", [0, 1, 9, 40, 1100])
def test_little_address_space_is_an_error_and_no_crash(log_path, spare):
    told = []

    def attempt(action):
        try:
            action()
        except MemoryError:
            told.append(errno.ENOMEM)
        except pylog.ResourceLimitError as error:
            told.append(error.errno)

    def work(log):
        attempt(lambda: log.append(b"large" * 100_000))
        attempt(lambda: log.append_many([b"value"] * 1000))
        attempt(lambda: list(log.read()))
        attempt(lambda: log.fetch(0).values())
        attempt(lambda: log.check())
        attempt(log.flush)

    def act():
        with pylog.Log(log_path, segment_bytes=SEGMENT) as log:
            log.append(value_of(0))
            lower(resource.RLIMIT_AS, virtual_memory() + spare * MEGABYTE)
            for _ in range(3):
                work(log)
            attempt(lambda: pylog.Log(log_path).close())
            attempt(lambda: append_to_a_segment_of_1_gib(log_path.with_name("new")))
            lift(resource.RLIMIT_AS)
            end = log.end_offset
            assert set(told) <= {errno.ENOMEM}
            assert told or spare > 1000
            assert log.append(b"last") == end
            assert log.check().ok
            return [record.value for record in log.read()][::end] == [value_of(0), b"last"]

    must_hold(act)


# ---- disks that cannot be used -------------------------------------------------------------------

@pytest.fixture(scope="module")
def drivers():
    return built("build/faults", "build/refuse_sync.so", "build/slow_open.so",
                 "build/slow_populate.so", "build/tear_fallocate.so")


UNSUPPORTED = {
    "btrfs": 0x9123683E, "zfs": 0x2FC12FC1, "nfs": 0x6969, "cifs": 0xFF534D42,
    "smb2": 0xFE534D42, "9p": 0x01021997, "fuse": 0x65735546, "unknown": 0x12345678,
}


@pytest.mark.parametrize("is_there", [False, True], ids=["new", "moved there"])
@pytest.mark.parametrize("name", UNSUPPORTED)
def test_unsupported_file_system_is_named_and_left_alone(drivers, log_path, name, is_there):
    if is_there:
        with pylog.Log(log_path) as log:
            log.append(b"value")
    else:
        log_path.mkdir()
    before = {path.name: path.read_bytes() for path in log_path.iterdir()}

    done = subprocess.run([drivers / "faults", log_path, "0", "on", hex(UNSUPPORTED[name])],
                          capture_output=True, text=True, check=True)

    assert "UNSUPPORTED" in done.stdout
    assert f"the file system is {name} ({UNSUPPORTED[name]:#x})" in done.stdout
    assert "put the directory on ext4, xfs or tmpfs" in done.stdout
    assert {path.name: path.read_bytes() for path in log_path.iterdir()} == before


# A process whose disk refuses a flush once the file in argv[2] is there.
OTHER = """
import pathlib, sys
import pylog

with pylog.Log(sys.argv[1]) as log:
    log.append(b"two")
    pathlib.Path(sys.argv[2]).touch()
    try:
        log.flush()
    except pylog.DurabilityError as error:
        print(error.errno, error.durable_offset, [record.value for record in log.read()])
    try:
        log.append(b"three")
    except pylog.DurabilityError as error:
        print(error.errno, error.durable_offset)
"""


def test_flush_that_failed_makes_the_log_read_only_for_all(drivers, log_path, tmp_path):
    refusing = tmp_path / "refusing"
    environment = {**os.environ, "LD_PRELOAD": str(drivers / "refuse_sync.so"),
                   "REFUSE_SYNC": str(refusing)}
    with pylog.Log(log_path) as log:
        log.append(b"one")
        log.flush()

        done = subprocess.run([sys.executable, "-c", OTHER, log_path, refusing], env=environment,
                              capture_output=True, text=True, check=True)

        assert done.stdout.splitlines() == ["5 1 [b'one', b'two']", "5 1"]
        for refused in (lambda: log.append(b"three"), lambda: log.append_many([b"three"] * 9),
                        lambda: log.append(b"three", durability="fsync"), log.flush):
            with pytest.raises(pylog.DurabilityError, match=r"reboot|disk") as caught:
                refused()
            assert (caught.value.errno, caught.value.durable_offset) == (errno.EIO, 1)
        assert log.durable_offset == 1
        assert [record.value for record in log.read()] == [b"one", b"two"]

    # The page cache lies until the next boot, whoever opens it.
    with pylog.Log(log_path) as log:
        with pytest.raises(pylog.DurabilityError):
            log.append(b"three")
        assert [record.value for record in log.read()] == [b"one", b"two"]
    (log_path / "control").unlink()
    with pylog.Log(log_path) as log:
        assert log.recovered.reason == "scanned"
        log.append(b"three")
        assert [record.value for record in log.read()][::2] == [b"one", b"three"]


SLOW = """
import sys
import pylog

with pylog.Log(sys.argv[1]) as log:
    print("open", flush=True)
    for _ in range(3):
        log.append(b"from the slow one")
"""


def test_segment_deleted_before_it_could_be_opened_costs_no_append(drivers, log_path):
    environment = {**os.environ, "LD_PRELOAD": str(drivers / "slow_open.so")}
    with pylog.Log(log_path, segment_bytes=4096) as log:
        slow = subprocess.Popen([sys.executable, "-c", SLOW, log_path], env=environment,
                                stdout=subprocess.PIPE, text=True)
        assert slow.stdout.readline() == "open\n"
        for _ in range(100):
            log.append_many([b"x" * 900] * 8)
            log.delete_before(log.end_offset)
        slow.communicate(timeout=60)

        assert slow.returncode == 0
        assert log.end_offset == 803


# Reads the record at each offset that it is told, and says how many bytes it has.
READER = """
import sys
import pylog

with pylog.Log(sys.argv[1], mode="r") as log:
    for line in sys.stdin:
        print(len(log.get(int(line)).value), flush=True)
"""


def test_segment_trimmed_while_it_is_read_in_is_not_called_truncated(drivers, log_path):
    environment = {**os.environ, "LD_PRELOAD": str(drivers / "slow_populate.so")}
    with pylog.Log(log_path, segment_bytes=4 << 20) as log:
        log.append_many([b"x" * 9000] * 440)    # 3.8 MiB, in windows of one
        reader = subprocess.Popen([sys.executable, "-c", READER, log_path], env=environment,
                                  stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        reader.stdin.write("0\n")
        reader.stdin.flush()
        assert reader.stdout.readline() == "9000\n"

        reader.stdin.write("439\n")
        reader.stdin.flush()
        time.sleep(0.5)     # it is in the last of three windows, a fifth of a second each
        log.append_many([b"x" * 9000] * 60)     # rolls, and the housekeeper trims
        said, _ = reader.communicate(timeout=60)

    assert reader.returncode == 0
    assert said == "9000\n"


# Appends until the disk is full for it, or until the file in argv[2] is there; then says how many.
APPENDER = """
import os, sys, time
import pylog

with pylog.Log(sys.argv[1]) as log:
    count = 0
    try:
        while not os.path.exists(sys.argv[2]):
            log.append_many([b"x" * 1000] * 16)
            count += 16
            time.sleep(0.001)
    except pylog.DiskFullError as error:
        count += error.appended or 0
    print(count)
"""


@pytest.mark.slow
def test_blocks_that_a_failing_growth_takes_back_are_nobodys(drivers, log_path, tmp_path):
    pylog.Log(log_path, segment_bytes=1 << 28).close()
    enough = tmp_path / "enough"
    tearing = {**os.environ, "LD_PRELOAD": str(drivers / "tear_fallocate.so")}
    appenders = [
        subprocess.Popen([sys.executable, "-c", APPENDER, log_path, enough], env=environment,
                         stdout=subprocess.PIPE, text=True)
        for environment in (os.environ, tearing)]

    time.sleep(4)
    enough.touch()
    counts = [int(one.communicate(timeout=60)[0] or 0) for one in appenders]

    assert [one.returncode for one in appenders] == [0, 0]
    with pylog.Log(log_path) as log:
        assert log.end_offset == sum(counts)
        assert sum(1 for _ in log.read()) == log.end_offset
