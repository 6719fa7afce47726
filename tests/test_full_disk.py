"""A user's own full disk makes a run inconclusive: nothing of it is said of the log, or unsaid."""

import errno
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from pylog._native import LEDGER_BYTES
from pylog.errors import DiskFullError
from pylog.stress import sightings
from pylog.stress.nemesis import Event
from pylog.stress.plan import Options, Plan
from pylog.stress.sightings import Sighting, Sightings, read_sightings
from pylog.stress.stage import FOLD_BLOCKS, Stage
from pylog.stress.verdict import anomalies_of

SMALL = ("--seconds", "0.5", "--quiet-seconds", "1", "--processes", "2", "--size-max", "20000")


def stress(directory, *arguments, script):
    return subprocess.run([sys.executable, "-c", script, "stress", str(directory), *arguments],
                          capture_output=True, text=True, timeout=60)


FOLDS, LEDGERS = 8 * FOLD_BLOCKS, 5 * LEDGER_BYTES    # of 4 producers and a reader


# ---- a disk that is really full -----------------------------------------------------------------

ON_A_DISK_OF = """
import sys
from pathlib import Path
from pylog.stress.disk import mount_tmpfs

if not mount_tmpfs(Path(sys.argv[2]).parent, {size}):
    sys.exit(77)
from pylog.cli import commands
commands()
"""


def stress_on_a_disk_of(size, *arguments):
    with tempfile.TemporaryDirectory() as place:
        done = stress(Path(place) / "run", *SMALL, *arguments,
                      script=ON_A_DISK_OF.format(size=size))
    if done.returncode == 77:
        pytest.skip("nothing can be mounted here")
    return done


@pytest.mark.slow
def test_run_on_a_disk_that_fills_up_is_inconclusive_and_says_why():
    done = stress_on_a_disk_of(FOLDS + LEDGERS + (3 << 20), "--json", "--seconds", "4")

    report = json.loads(done.stdout)
    assert done.returncode == 3, done.stdout + done.stderr
    assert report["verdict"] == "inconclusive"
    assert "the disk is full" in report["inconclusive_because"][0]
    assert report["anomalies"]["full-disk (inconclusive)"]["count"] > 0
    assert report["anomalies"]["unwritable-log (counted)"]["count"] == 1
    assert not any(row["severity"] == "never allowed" for row in report["anomalies"].values())


@pytest.mark.slow
@pytest.mark.parametrize("size", [8192, FOLDS // 2, FOLDS + 4096])
def test_run_for_which_there_is_no_room_is_inconclusive(size):
    done = stress_on_a_disk_of(size)

    assert done.returncode == 3, done.stdout + done.stderr
    assert done.stdout.startswith("verdict: inconclusive: the disk is full")
    assert "free some space" in done.stdout
    assert "Error" not in done.stderr


# ---- the small disk of the nemesis --------------------------------------------------------------

SMALL_DISK = """
import sys
from pathlib import Path
from pylog.stress.disk import SmallDisk, mount_tmpfs
from pylog.stress.plan import Options, Plan

place = Path(sys.argv[1])
if not mount_tmpfs(place, 1 << 20):
    sys.exit(77)
with SmallDisk.under(place / "log", Plan(Options(nemeses=("disk-full",)), 1, ())) as disk:
    (place / "log/a").write_bytes(bytes(int(sys.argv[2])))
    (place / "log/folder").mkdir()
    disk.ballast.write_bytes(bytes(4 << 20))
print(disk.unkept)
print(sorted(str(path.relative_to(place)) for path in place.rglob("*")))
"""


def small_disk_with_a_file_of(size, place):
    done = subprocess.run([sys.executable, "-c", SMALL_DISK, place, str(size)],
                          capture_output=True, text=True, timeout=30)
    if done.returncode == 77:
        pytest.skip("nothing can be mounted here")
    return done.stdout.splitlines()


def test_files_of_the_small_disk_are_kept_without_the_ballast(tmp_path):
    assert small_disk_with_a_file_of(100, tmp_path) == ["", "['log', 'log/a', 'log/folder']"]


def test_files_that_the_real_disk_has_no_room_for_are_said_to_be_gone(tmp_path):
    unkept, left = small_disk_with_a_file_of(2 << 20, tmp_path)

    assert "No space left" in unkept
    assert left == "['log']"


# ---- sightings that cannot be written -----------------------------------------------------------

ON_DEV_FULL = """
import os
from pylog.cli import commands
from pylog.stress import sightings, writing

class Lost(sightings.Sightings):
    def __init__(self, path, by):
        super().__init__(path, by)
        os.dup2(os.open("/dev/full", os.O_WRONLY), self.descriptor)

def flush(self):
    raise {error}("as it were")

writing.Sightings = Lost
writing.Producer.flush = flush
commands()
"""


@pytest.mark.slow
def test_sighting_that_cannot_be_written_is_told_and_ends_no_writer(tmp_path):
    done = stress(tmp_path / "run", *SMALL, "--ways", "append_many,flush", "--json",
                  script=ON_DEV_FULL.format(error="KeyError"))

    report = json.loads(done.stdout)
    assert done.returncode == 3, done.stdout + done.stderr
    assert report["anomalies"].keys() == {"lost-sighting (inconclusive)"}
    row = report["anomalies"]["lost-sighting (inconclusive)"]
    assert row["count"] > 4    # one of each thread, if it had been the thread's end
    assert "of unexpected-error could not be written" in row["examples"][0]["what"]


def note_in_a_fork(path, limit):
    """What is lost when another process, whose files may grow to `limit`, notes three things."""
    sightings.forget_lost()
    pid = os.fork()
    if pid == 0:
        notes = Sightings(path, "child")
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        notes.note("hole", "one", count=7)
        notes.note("hole", "two")
        notes.note("refused-call", "three")
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    return [(one.anomaly, one.what, one.count) for one in sightings.lost()]


@pytest.mark.parametrize("limit", [0, 30])    # nothing, or a piece, of the first line
def test_lost_sightings_of_a_fork_are_counted_by_name(tmp_path, limit):
    assert note_in_a_fork(tmp_path / "sightings", limit) == [
        ("lost-sighting", "8 of hole could not be written", 8),
        ("refused-call", "1 of refused-call could not be written", 1)]


def test_sightings_that_are_written_are_not_lost(tmp_path):
    assert note_in_a_fork(tmp_path / "sightings", 1 << 20) == []
    assert len(read_sightings(tmp_path / "sightings")) == 3


# ---- what a full disk explains ------------------------------------------------------------------

FULL = Sighting("full-disk", "no room", at=10.0, by="writer 0")


def severities(*seen, events=()):
    stage = Stage(Plan(Options(), 1, ()), Path("run"))
    stage.events = list(events)
    return {name: row["severity"] for name, row in anomalies_of(list(seen), stage).items()}


@pytest.mark.parametrize("name", ["unwritable-log", "broken-worker", "unexpected-error"])
def test_full_disk_explains_what_fails_from_then_on(name):
    later, before = (Sighting(name, "it", at=at, by="stage") for at in (500.0, 8.0))

    assert severities(FULL, later).keys() == {"full-disk (inconclusive)", f"{name} (counted)"}
    assert severities(FULL, before)[name] == "never allowed"
    assert severities(later) == {name: "never allowed"}


@pytest.mark.parametrize("name", ["hole", "lost-write", "duplicate", "torn-batch", "unseen"])
def test_full_disk_explains_no_harm_to_records(name):
    assert severities(FULL, Sighting(name, "it", at=11.0, offset=5))[name] == "never allowed"


def test_disk_that_the_run_itself_had_filled_explains_nothing_else():
    own = Event(9.0, "disk-full", "the last 7 KiB taken away", until=10.5)

    told = severities(FULL, Sighting("unwritable-log", "it", at=20.0), events=[own])

    assert told.keys() == {"full-disk (counted)", "unwritable-log"}


@pytest.mark.parametrize(("error", "name"), [
    (DiskFullError("full"), "full-disk"), (OSError(errno.ENOSPC, "full"), "full-disk"),
    (OSError(errno.EDQUOT, "quota"), "full-disk"), (OSError(errno.EFBIG, "ulimit"), "full-disk"),
    (OSError(errno.EIO, "a disk that breaks"), "broken-worker"), (KeyError("x"), "broken-worker"),
    (OSError("no number"), "broken-worker"),
])
def test_worker_that_ends_by_a_full_disk_is_not_broken(tmp_path, error, name):
    Sightings(tmp_path / "sightings", "writer 0").note_end(error, "it ended")

    assert [one.anomaly for one in read_sightings(tmp_path / "sightings")] == [name]
