"""Bad places, options and files: each is told by name, and nothing is changed by opening it."""

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from children import in_child
from faults import rewrite_meta
from nobody import NOBODY, let_nobody_come
from planted import flip, segments
from shell import run

import pylog
from pylog import _native
from pylog.exits import Exit

FIRST = "00000000000000000000.log"


# ---- the place ----------------------------------------------------------------------------------

def test_path_that_is_a_file_is_refused(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"precious")

    for mode in "ar":
        with pytest.raises(pylog.UnsupportedFormatError):
            pylog.Log(path, mode=mode)
        with pytest.raises(pylog.LogError):
            pylog.Log(path / "inside", mode=mode)
    assert path.read_bytes() == b"precious"


def test_reading_where_no_log_is_creates_nothing(tmp_path):
    with pytest.raises(pylog.UnsupportedFormatError):
        pylog.Log(tmp_path / "none", mode="r")
    with pytest.raises(pylog.UnsupportedFormatError):
        pylog.Log(tmp_path, mode="r")
    assert list(tmp_path.iterdir()) == []


def let_nobody_read(directory):
    let_nobody_come(directory)
    for path in directory.iterdir():
        os.chmod(path, 0o644)


def test_directory_of_somebody_else_is_refused_and_untouched(closed):
    before = {path.name: path.read_bytes() for path in closed.iterdir()}
    let_nobody_come(closed)

    def as_nobody(mode):
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        return pylog.Log(closed, mode=mode).end_offset

    assert isinstance(in_child(lambda: as_nobody("a")), pylog.ReadOnlyLogError)
    denied = in_child(lambda: as_nobody("r"))
    assert (type(denied), denied.errno) == (pylog.LogError, errno.EACCES)
    assert "look at its owner and mode" in str(denied)
    let_nobody_read(closed)
    assert in_child(lambda: as_nobody("r")) == 300
    assert isinstance(in_child(lambda: as_nobody("a")), pylog.ReadOnlyLogError)
    assert {path.name: path.read_bytes() for path in closed.iterdir()} == before

    def read_as_nobody():
        os.setuid(NOBODY)
        with pylog.Log(closed, mode="r") as log:
            return [record.offset for record in log.read()]

    os.chmod(segments(closed)[1], 0o600)
    denied = in_child(read_as_nobody)
    assert (type(denied), denied.path) == (pylog.LogError, str(segments(closed)[1]))


@pytest.mark.parametrize("name", [FIRST, FIRST.replace(".log", ".index"), "log.meta", "control"])
def test_check_of_a_file_that_may_not_be_read_is_inconclusive(closed, name):
    let_nobody_read(closed)
    os.chmod(closed / name, 0o600)

    def check_as_nobody():
        os.setuid(NOBODY)
        return pylog.check(closed), run("check", closed).exit_code

    report, code = in_child(check_as_nobody)
    assert code == Exit.INCONCLUSIVE
    assert (report.ok, report.faults) == (False, 0)
    told = [f for f in report.findings if f.severity != "notice"]
    assert [(f.path, f.severity) for f in told] == [(str(closed / name), "inconclusive")]
    assert "not all may be read" in str(report)


def test_check_tells_damage_beside_a_file_that_may_not_be_read(closed):
    let_nobody_read(closed)
    os.chmod(closed / FIRST, 0o600)
    flip(segments(closed)[1], 70)

    def check_as_nobody():
        os.setuid(NOBODY)
        return pylog.check(closed), run("check", closed).exit_code

    report, code = in_child(check_as_nobody)
    assert code == Exit.DAMAGE
    assert [f.severity for f in report.findings[:2]] == ["damage", "inconclusive"]


@pytest.mark.parametrize("path", ["/proc", "/sys", "/proc/none/such", "/sys/kernel/pylog"])
def test_unsupported_file_system_is_refused(path):
    with pytest.raises(pylog.LogError) as caught:
        pylog.Log(path)

    if os.path.isdir(path):
        assert type(caught.value) is pylog.UnsupportedFilesystemError


def test_fsync_on_memory_is_refused():
    path = f"/dev/shm/pylog-{os.getpid()}"
    if not os.path.isdir("/dev/shm"):
        pytest.skip("there is no /dev/shm")
    try:
        with pytest.raises(pylog.UnsupportedFilesystemError):
            pylog.Log(path, durability="fsync")
        with pylog.Log(path) as log:
            assert log.append(b"memory is fine for 'os'") == 0
    finally:
        shutil.rmtree(path, ignore_errors=True)


OPEN_ELSEWHERE = """
import os, sys, pylog
try:
    pylog.Log(sys.argv[1])
except pylog.UnsupportedEnvironmentError as error:
    assert error.found == os.stat("/proc/self/ns/pid").st_ino
    print(error.required, pylog.Log(sys.argv[1], mode="r").end_offset)
"""


def test_another_pid_namespace_may_only_read(closed):
    unshare = ["unshare", "--pid", "--fork"]
    if shutil.which("unshare") is None or subprocess.run([*unshare, "true"]).returncode != 0:
        pytest.skip("PID namespaces cannot be made here")

    with pylog.Log(closed):
        done = subprocess.run([*unshare, sys.executable, "-c", OPEN_ELSEWHERE, str(closed)],
                              capture_output=True, text=True)

    ours = os.stat("/proc/self/ns/pid").st_ino
    assert (done.stdout, done.stderr) == (f"{ours} 300\n", "")


def test_directory_that_everybody_can_write_is_refused_with_the_mode_it_should_have(closed):
    os.chmod(closed, 0o757)

    with pytest.raises(pylog.UnsupportedEnvironmentError, match="chmod o-w") as caught:
        pylog.Log(closed)
    assert (caught.value.found, caught.value.required) == (0o757, 0o755)
    assert pylog.Log(closed, mode="r").end_offset == 300


# ---- options ------------------------------------------------------------------------------------

@pytest.mark.parametrize("options", [
    {"durability": "disk"}, {"durability": True}, {"compression": "rar"}, {"compression": 3},
    {"timestamp_type": "log"}, {"mode": "w"}, {"mode": None},
    {"segment_bytes": 4095}, {"segment_bytes": (1 << 30) + 1}, {"segment_bytes": 0},
    {"segment_bytes": -1}, {"segment_bytes": 2**70}, {"segment_bytes": 5e6},
    {"segment_bytes": "1GB"}, {"segment_bytes": True}, {"max_message_bytes": 127},
    {"max_message_bytes": -1}, {"index_interval_bytes": -1}, {"flush_interval_ms": 0},
    {"flush_interval_ms": 10**9}, {"lock_timeout_ms": -1},
], ids=repr)
def test_impossible_options_create_nothing(log_path, options):
    with pytest.raises((pylog.ConfigurationError, TypeError)):
        pylog.Log(log_path, **options)

    assert not log_path.exists()
    pylog.Log(log_path).close()


def test_zstd_and_snappy_are_named_as_to_come(log_path):
    for codec in ("zstd", "snappy"):
        with pytest.raises((pylog.UnsupportedCodecError, pylog.ConfigurationError), match=codec):
            pylog.Log(log_path, compression=codec)


@pytest.mark.parametrize("options", [
    {"durability": "fsync"}, {"segment_bytes": 8192}, {"max_message_bytes": 1000},
    {"timestamp_type": "append"}, {"index_interval_bytes": 1}, {"flush_interval_ms": 1},
], ids=repr)
def test_options_that_contradict_the_stored_ones_are_refused(closed, options):
    ((name, value),) = options.items()
    for mode in "ar":
        with pytest.raises(pylog.ConfigurationError, match=f"{name}=.*, not {value!r}") as caught:
            pylog.Log(closed, mode=mode, **options)
        assert (caught.value.option, caught.value.value) == (name, value)
        assert type(caught.value.stored) is type(value)
        assert caught.value.stored != value
        assert caught.value.path == str(closed)
    with pylog.Log(closed) as log:
        assert log.end_offset == 300


# ---- the files ----------------------------------------------------------------------------------

def assert_refused(path, error, name):
    """Opening raises `error` that names the file, in both modes, and changes no segment."""
    before = {p.name: p.read_bytes() for p in path.glob("*.log")}
    for mode in "ar":
        with pytest.raises(error) as caught:
            pylog.Log(path, mode=mode)
        assert name in caught.value.path
    assert {p.name: p.read_bytes() for p in path.glob("*.log")} == before


def test_newer_format_is_refused(closed):
    rewrite_meta(closed, lambda text: text.replace("pylog-log 1", "pylog-log 2"))
    assert_refused(closed, pylog.UnsupportedFormatError, "log.meta")


def test_unknown_features_are_refused(closed):
    rewrite_meta(closed, lambda text: text.replace("features 0", "features 10"))
    assert_refused(closed, pylog.UnsupportedFormatError, "log.meta")


@pytest.mark.parametrize("damage", [
    lambda text: "", lambda text: "pylog-log", lambda text: text[:-1], lambda text: text + "x",
    lambda text: text[5:], lambda text: text.replace("segment_bytes 4", "segment_bytes 5"),
    lambda text: text.replace("crc32c ", "crc32c 0"), lambda text: text * 2,
    lambda text: "\0" * len(text), lambda text: text * 1000,
])
def test_damaged_meta_is_refused(closed, damage):
    meta = closed / "log.meta"
    meta.write_text(damage(meta.read_text()))
    assert_refused(closed, pylog.CorruptRecordError, "log.meta")


@pytest.mark.parametrize("change", [
    lambda text: text + "colour blue\n", lambda text: text.replace("epoch 0 0\n", ""),
    lambda text: text.replace("epoch 0 0", "epoch -1 0"),
    lambda text: text.replace("log_start 0", "log_start -5"),
    lambda text: text.replace("segment_bytes 4096", "segment_bytes 0"),
])
def test_meta_with_impossible_lines_is_refused(closed, change):
    rewrite_meta(closed, change)
    assert_refused(closed, pylog.CorruptRecordError, "log.meta")


def test_segments_without_meta_are_refused(closed):
    os.remove(closed / "log.meta")
    assert_refused(closed, pylog.UnsupportedFormatError, closed.name)


def test_directory_in_a_segments_place_is_refused(closed):
    name = max(closed.glob("*.log"))
    os.rename(name, closed / "kept aside")
    name.mkdir()
    with pytest.raises(pylog.LogError):
        pylog.Log(closed)


@pytest.mark.parametrize("name", ["log.meta", "lock", FIRST])
def test_symbolic_link_in_a_files_place_is_refused(closed, name):
    os.rename(closed / name, closed / "elsewhere")
    os.symlink("elsewhere", closed / name)

    with pytest.raises(pylog.PylogError), pylog.Log(closed) as log:
        list(log.read())
    assert (closed / name).is_symlink()


@pytest.mark.parametrize("damage", [
    lambda data: b"", lambda data: data[:-1], lambda data: data[:100], lambda data: data[:61],
    lambda data: bytes(len(data)), lambda data: b"\xff" * len(data), lambda data: b"GIF89a" * 999,
])
def test_damaged_last_segment_is_refused_and_untouched(closed, damage):
    segment = max(closed.glob("*.log"))
    segment.write_bytes(damage(segment.read_bytes()))
    before = segment.read_bytes()

    with pytest.raises(pylog.CorruptRecordError) as caught:
        pylog.Log(closed)

    assert caught.value.path == str(segment)
    assert segment.read_bytes() == before
    with pylog.Log(closed, mode="r") as log:
        values = [record.value for record in log.read(stop=int(segment.stem))]
        assert values == [b"%d" % i for i in range(int(segment.stem))]
        with pytest.raises(pylog.CorruptRecordError):
            list(log.read())


@pytest.mark.parametrize("damage", [
    lambda data: b"", lambda data: data[:-1], lambda data: data[:100],
    lambda data: bytes(len(data)), lambda data: b"\xff" * len(data), lambda data: b"GIF89a" * 999,
    lambda data: data[:2000] + bytes(len(data) - 2000),
])
def test_damaged_middle_segment_is_told_and_the_rest_is_read(closed, damage):
    segments = sorted(closed.glob("*.log"))
    start, end = int(segments[1].stem), int(segments[2].stem)
    segments[1].write_bytes(damage(segments[1].read_bytes()))

    with pylog.Log(closed) as log:
        reading = log.read()
        with pytest.raises(pylog.CorruptRecordError) as caught:
            for record in reading:
                assert record.value == b"%d" % record.offset
        skipping = [record.offset for record in log.read(on_corruption="skip")]

    assert caught.value.path == str(segments[1])
    assert skipping[:start] == list(range(start))
    assert skipping[-(300 - end):] == list(range(end, 300))


def test_damage_is_told_with_how_many_whole_batches_follow_it(log_path):
    with pylog.Log(log_path) as log:
        for number in range(5):
            log.append_many([b"%d" % number] * 3, atomic=True)
        second = bytes(next(log.batches(3)))
    segment, = log_path.glob("*.log")
    whole = segment.read_bytes()
    segment.write_bytes(whole.replace(second, second[:-1] + b"?"))

    with pylog.Log(log_path) as log:
        for read in (log.get, log.fetch, lambda at: next(log.batches(at)),
                     lambda at: next(log.read(at))):
            with pytest.raises(pylog.CorruptRecordError) as caught:
                read(3)
            assert caught.value.path == str(segment)
            assert caught.value.position == whole.index(second)
            assert caught.value.offset == 3
            assert caught.value.valid_batches == 3


def test_search_by_time_that_fails_keeps_nothing_open(closed):
    segments = sorted(closed.glob("*.log"))
    segments[1].unlink()
    segments[1].mkdir()

    log = pylog.Log(closed)
    with pytest.raises(pylog.LogError):
        log.offset_for_time(2**50)
    log.close()
    del log
    is_open = [path for path in map(os.path.realpath, Path("/proc/self/fd").iterdir())
               if path == str(segments[0].resolve())]
    assert is_open == []


@pytest.mark.parametrize("damaged", [b"zero", b"one"], ids=["first", "middle"])
def test_batch_inside_a_value_is_not_taken_for_one_behind_damage(log_path, damaged):
    with pylog.Log(log_path) as log:
        inner = _native.encode_batch([b"never appended here"], base_offset=5)
        log.append_many([b"zero", inner, b"two"])
        log.append_many([b"three", b"one", inner])
        log.append_many([b"six"])
    segment = log_path / f"{0:020}.log"
    segment.write_bytes(segment.read_bytes().replace(damaged, bytes(len(damaged))))

    with pylog.Log(log_path) as log:
        reader = log.read(on_corruption="skip")
        kept = [0, 1, 2, 6] if damaged == b"one" else [3, 4, 5, 6]
        assert [record.offset for record in reader] == kept
        assert reader.skipped == 1


@pytest.mark.parametrize("is_copy", [False, True])
@pytest.mark.parametrize("mode", ["a", "r"])
@pytest.mark.parametrize("which", [0, 1, -1])
def test_missing_segment_is_told(closed, which, mode, is_copy):
    segment = sorted(closed.glob("*.log"))[which]
    segment.rename(closed / "kept aside")
    if is_copy:
        (closed / "control").unlink()       # else a page of the same boot says how it was

    with pytest.raises(pylog.CorruptRecordError) as caught, pylog.Log(closed, mode=mode) as log:
        list(log.read())

    assert caught.value.offset <= int(segment.stem)


def test_all_segments_missing_is_told(closed):
    for segment in closed.glob("*.log"):
        segment.unlink()

    with pytest.raises(pylog.CorruptRecordError):
        pylog.Log(closed)


@pytest.mark.parametrize("name", ["control", "doorbells", "leader-epoch-checkpoint", "lock"])
@pytest.mark.parametrize("damage", [b"", b"\0", b"\xff" * 10_000, None],
                         ids=["empty", "short", "foreign", "missing"])
def test_damaged_helper_files_are_made_anew(closed, name, damage):
    (closed / name).unlink()
    if damage is not None:
        (closed / name).write_bytes(damage)

    with pylog.Log(closed) as log:
        assert [record.value for record in log.read()] == [b"%d" % i for i in range(300)]
        assert log.append(b"300") == 300


@pytest.mark.parametrize("suffix", ["index", "timeindex"])
@pytest.mark.parametrize("damage", [
    lambda data: None, lambda data: b"", lambda data: data[:-1], lambda data: data + b"\0" * 24,
    lambda data: b"\xff" * len(data), lambda data: bytes(len(data)), lambda data: data[::-1],
    lambda data: b"\x7f" * 4800,
])
def test_damaged_indexes_cost_only_time(closed, suffix, damage):
    for index in closed.glob(f"*.{suffix}"):
        data = damage(index.read_bytes())
        index.unlink()
        if data is not None:
            index.write_bytes(data)

    with pylog.Log(closed) as log:
        times = [record.timestamp for record in log.read()]
        assert all(log.get(i).value == b"%d" % i for i in range(0, 300, 7))
        for time in sorted(set(times)):
            assert log.offset_for_time(time) == times.index(time)
        assert log.offset_for_time(times[-1] + 1) is None


@pytest.mark.parametrize("interval", [0, 100, 300])
def test_indexes_of_different_age_hide_no_record(log_path, rng, interval):
    times = [rng.randrange(1000) for _ in range(60)]
    with pylog.Log(log_path, index_interval_bytes=interval) as log:
        for time in times:
            log.append_many([b""], timestamps=time)
    indexes = [(log_path / FIRST).with_suffix(suffix) for suffix in (".index", ".timeindex")]
    wholes = [index.read_bytes() for index in indexes]

    for _ in range(30):
        for index, whole, entry in zip(indexes, wholes, (8, 12), strict=True):
            index.write_bytes(whole[:entry * rng.randrange(len(whole) // entry + 1)])
        with pylog.Log(log_path) as log:
            for time in range(0, 1000, 20):
                expected = next((i for i, other in enumerate(times) if other >= time), None)
                assert log.offset_for_time(time) == expected


def test_foreign_files_are_left_alone(closed):
    strangers = ["README", "00000000000000000000.log.bak", "1.log", "0000000000000000000x.log"]
    for name in strangers:
        (closed / name).write_bytes(b"mine")

    with pylog.Log(closed) as log:
        log.delete_before(300)

    assert all((closed / name).read_bytes() == b"mine" for name in strangers)


def test_reader_that_steps_over_a_missing_first_segment_leaves_no_record_out(small):
    first, second, *_ = segments(small)
    first.unlink()

    with pylog.Log(small, mode="r") as log:
        reader = log.read(on_corruption="skip")
        offsets = [record.offset for record in reader]

    assert offsets == list(range(int(second.stem), 150))
    assert reader.skipped == 1


def test_segment_that_was_overwritten_by_another_hides_no_good_record(closed):
    segments = sorted(closed.glob("*.log"))
    start, end = int(segments[1].stem), int(segments[2].stem)
    segments[1].write_bytes(segments[-1].read_bytes())

    with pylog.Log(closed, mode="r") as log:
        offsets = [record.offset for record in log.read(on_corruption="skip")]

    assert offsets == [*range(start), *range(end, 300)]
