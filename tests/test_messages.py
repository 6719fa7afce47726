"""What messages about broken logs say: the reason, and a way out that is one."""

import os
import re
import shlex
import subprocess

import pytest
from children import killed
from faults import forget_boot
from planted import segments
from shell import COMMAND, lines, run, values

import pylog
from pylog.exits import Exit

LOST_META = "log.meta is missing, though segments are there: restore it from a copy"


def opening_fails(path, mode="a", kind=pylog.CorruptRecordError):
    """The message of the failure."""
    with pytest.raises(kind) as caught:
        pylog.Log(path, mode)
    return str(caught.value)


def cut_in_half(path):
    os.truncate(segments(path)[-1], segments(path)[-1].stat().st_size // 2)


def lose_the_last(path):
    os.remove(segments(path)[-1])


def lose_the_first(path):
    os.remove(segments(path)[0])


def write_sealed_and_open(path):
    """Three sealed and durable records, and two in the open batch; then the power goes."""
    def live():
        log = pylog.Log(path)
        log.append_many([b"sealed"] * 3)
        log.flush()
        log.append(b"open")
        log.append(b"open too")
        return log

    killed(live)
    forget_boot(path)


# ---- damage -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("damage", "reason"), [
    (cut_in_half, "the (length runs past the end|file ends inside a batch header)"),
    (lose_the_last, "the segment files end: the last one was cut, or one behind it is missing"),
])
def test_refusal_tells_the_reason_and_the_end_that_was_known(small, damage, reason):
    damage(small)

    assert re.match(f"{reason}.*, but the log was whole up to offset 150: ", opening_fails(small))


@pytest.mark.parametrize("damage", [cut_in_half, lose_the_last, lose_the_first])
def test_way_out_of_a_damaged_log_brings_back_what_is_readable(small, tmp_path, damage):
    damage(small)
    advice = opening_fails(small).split("`")[1]
    readable = lines("dump", small, "--records", "--json") if damage is not cut_in_half else None
    command = advice.replace("pylog ", shlex.join(COMMAND) + " ").replace("DIR", str(small))

    subprocess.run(["bash", "-c", command.replace("NEW", str(tmp_path / "new"))], check=True,
                   capture_output=True, timeout=60)

    assert "--skip-corrupt" in advice
    assert 0 < len(values(tmp_path / "new")) < 150
    if readable is not None:
        assert len(values(tmp_path / "new")) == sum(b'"kind": "record"' in one for one in readable)
    with pylog.Log(tmp_path / "new") as log:
        log.append(b"and it goes on")


def test_reader_behind_the_last_file_is_told_what_happened(small):
    lose_the_last(small)

    result = run("read", small)

    assert result.exit_code == Exit.DAMAGE
    assert "the log at offset 150: the last one was cut, or one behind it is missing" \
        in result.stderr
    assert "restore a copy" in result.stderr


@pytest.mark.parametrize("mode", ["a", "r"])
def test_lost_log_meta_is_told_with_what_still_reads_the_segments(small, mode):
    os.remove(small / "log.meta")

    message = opening_fails(small, mode, pylog.UnsupportedFormatError)

    assert LOST_META in message
    assert "`pylog check DIR` and `pylog dump --records DIR`" in message
    assert pylog.check(small).records == 150
    assert sum(line.startswith(b"    {") for line in lines("dump", "--records", small)) == 150


def test_empty_directory_is_told_from_a_log_without_its_log_meta(tmp_path):
    message = opening_fails(tmp_path, "r", pylog.UnsupportedFormatError)

    assert "there is no log here" in message


# ---- recoveries ---------------------------------------------------------------------------------


def test_recovery_that_cut_nothing_says_why_offsets_are_skipped(log_path):
    killed(lambda: [log := pylog.Log(log_path), log.append_many([b"x"] * 7), log.flush()])
    forget_boot(log_path)

    result = run("append", log_path, given=b"new\n")

    assert ("end at offset 7: every batch is whole, and nothing was cut; offsets that may have "
            "been lost are skipped; it goes on at offset 16777216") in result.stderr


def test_recovery_of_a_whole_log_says_so(log_path):
    killed(lambda: [log := pylog.Log(log_path, durability="fsync"), log.append(b"x")])
    forget_boot(log_path)

    with pylog.Log(log_path) as log:
        assert log.recovered.why == "every batch is whole, and nothing was cut"


def test_recovery_that_cut_the_open_batch_says_what_it_was_and_where_it_is(log_path):
    write_sealed_and_open(log_path)

    result = run("append", log_path, given=b"new\n")

    assert "end at offset 3: an open batch, which was not sealed: it has no CRC; the " \
        in result.stderr
    advice = result.stderr.split("`")[1]
    assert advice == f"pylog dump --records {segments(log_path)[0]}.cut-*"
