"""The parts of `pylog bench`: loops, percentiles, processes, proof, disk, machine, comparison."""

import os
import signal
import sys
from pathlib import Path

import click
import numpy as np
import pytest

import pylog
from pylog import hardware
from pylog.benchmark import (
    comparison,
    crew,
    ground,
    pings,
    proof,
    table,
    throughput,
    timing,
)
from pylog.benchmark.command import fit_file_system
from pylog.benchmark.rows import Row
from pylog.benchmark.runner import Run
from pylog.benchmark.settings import WORKLOADS, Limits, Settings, need_settings

FOREVER = Limits(float("inf"), 1000)


def row(name="append", records=1000, seconds=0.5, times=(100, 200, 300), synced="", **others):
    spread = timing.spread_of([np.array(times, np.int64)])
    return Row(name, "append(value)", 100, records, seconds, spread, synced, **others)


def run_of(*rows):
    machine = dict.fromkeys(hardware.describe(Path.cwd()), "x")
    return Run(machine, Settings(), list(rows))


# ---- loops and percentiles ----------------------------------------------------------------------


@pytest.mark.parametrize("loop", [timing.time_all, timing.time_each])
@pytest.mark.parametrize("calls", [1, 7, 8, 9, 1000])
def test_loop_makes_as_many_calls_as_it_tells(loop, calls):
    seen = []

    timed = loop(seen.append, list(range(10)), Limits(float("inf"), calls))

    assert timed.calls == len(seen) == calls
    assert set(seen) == set(range(min(calls, 10))) or calls < 10
    assert timed.started < timed.ended


@pytest.mark.parametrize("loop", [timing.time_all, timing.time_each])
def test_loop_ends_by_seconds(loop):
    timed = loop(lambda _: None, range(10_000), Limits(0.005, 10**12))

    assert timed.ended - timed.started >= 5e6
    assert timed.calls < 10**12


def test_each_call_has_its_time():
    timed = timing.time_each(len, [()] * 10, FOREVER)

    assert len(timed.times) == timed.calls == 1000
    assert timed.times.min() >= 0
    assert timed.times.sum() <= timed.ended - timed.started


def test_loop_alone_is_timed_like_a_call():
    timed = timing.time_nothing(500)

    assert len(timed.times) == timed.calls == 500


def test_percentiles_are_times_that_were_taken():
    spread = timing.spread_of([np.arange(1, 5_001), np.arange(5_001, 10_001)])

    assert spread.count == 10_000
    assert (spread.p50_ns, spread.p90_ns, spread.p99_ns) == (5001, 9001, 9901)
    assert (spread.p999_ns, spread.p9999_ns, spread.max_ns) == (9991, 10_000, 10_000)


@pytest.mark.parametrize(("count", "told"), [
    (0, []), (1, ["p50"]), (9, ["p50"]), (10, ["p50", "p90"]), (99, ["p50", "p90"]),
    (100, ["p50", "p90", "p99"]), (999, ["p50", "p90", "p99"]),
    (1000, ["p50", "p90", "p99", "p999"]), (9999, ["p50", "p90", "p99", "p999"]),
    (10_000, ["p50", "p90", "p99", "p999", "p9999"]),
])
def test_percentile_needs_enough_calls(count, told):
    spread = timing.spread_of([np.ones(count, np.int64)]).to_dict()

    assert [name.removesuffix("_ns") for name, value in spread.items()
            if name.startswith("p") and value is not None] == told


# ---- processes ----------------------------------------------------------------------------------


def tell(meet, value):
    meet()
    return value, os.getpid()


def fail(meet, error):
    raise error


def die(meet):
    os.kill(os.getpid(), signal.SIGKILL)


def test_processes_meet_and_answer_in_their_order():
    (first, one), (second, other) = crew.run_together([(tell, ("a",)), (tell, ("b",))])

    assert (first, second) == ("a", "b")
    assert len({one, other, os.getpid()}) == 3


def test_failure_of_one_ends_all_and_is_raised_whole():
    error = pylog.WrongEndOffsetError("no", offset=3, end_offset=5)

    with pytest.raises(pylog.WrongEndOffsetError) as caught:
        crew.run_together([(tell, ("waits for ever",)), (fail, (error,))])

    assert caught.value.end_offset == 5


def test_process_that_is_killed_is_told():
    with pytest.raises(pylog.PylogError, match="a process of the bench died"):
        crew.run_together([(tell, ("waits for ever",)), (die, ())])


# ---- proof --------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [8, 9, 100, 100_000])
def test_values_are_of_the_size_and_half_random(size):
    values = proof.pool(size, 1)

    assert {len(value) for value in values} == {size}
    assert len(values) >= 8
    assert proof.pool(size, 1) == values != proof.pool(size, 2)


@pytest.fixture
def written(log_path):
    """A closed log of the first 100 values of writer 0."""
    with pylog.Log(log_path) as log:
        log.append_many(proof.pool(100, 0)[:100])
    return log_path


def test_log_that_holds_what_was_written_is_proved(written):
    proof.prove(written, 100, proof.pool(100, 0))


@pytest.mark.parametrize(("count", "known", "told"), [
    (99, 0, "wrote 99 records, and the log has 100"),
    (101, 0, "wrote 101 records"),
    (0, 0, "wrote 0 records"),
    (100, 1, "100 values that the bench did not write"),
])
def test_log_that_holds_anything_else_is_damage(written, count, known, told):
    with pytest.raises(pylog.CorruptRecordError, match=told):
        proof.prove(written, count, proof.pool(100, known))


def test_flipped_bit_is_damage(written):
    (segment,) = written.glob("*.log")
    data = bytearray(segment.read_bytes())
    data[500] ^= 1
    segment.write_bytes(data)

    with pytest.raises(pylog.CorruptRecordError, match="is damaged"):
        proof.prove(written, 100, proof.pool(100, 0))


def test_values_out_of_their_order_are_damage(written):
    values = proof.pool(100, 0)
    with pylog.Log(written, mode="r") as log:
        assert throughput.compare(log, values, 1 << 20) == 1
        with pytest.raises(pylog.CorruptRecordError, match="other values from offset 0 on"):
            throughput.compare(log, values[::-1], 1 << 20)


def test_reader_checks_crcs_anew_in_each_pass(written):
    with pylog.Log(written, mode="r") as log:
        reader = throughput.Reader(log, "fetch")
        for _ in range(3):
            reader.step(None)

        assert (reader.count, reader.passes) == (300, 2)
        assert log._verified_bytes() > 0
        log._forget_verified()
        assert log._verified_bytes() == 0


def test_reader_that_hears_no_ping_gives_up(written, monkeypatch):
    monkeypatch.setattr(pings, "SILENCE_SECONDS", 0)
    with pylog.Log(written) as log:
        with pytest.raises(pylog.PylogTimeoutError, match="no ping came"):
            pings.spin_for_more(log, log.end_offset)
        with pytest.raises(pylog.PylogTimeoutError, match="no ping came"):
            pings.wait_for_more(log.cursor("latest"))


# ---- the disk -----------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP],
                         ids=lambda one: one.name)
def test_ground_is_given_back_at_a_signal(tmp_path, number):
    before = signal.getsignal(number)

    with pytest.raises(KeyboardInterrupt), ground.ground(tmp_path) as place:
        (place / "log").mkdir()
        os.kill(os.getpid(), number)
        signal.pause()

    assert os.listdir(tmp_path) == []
    assert signal.getsignal(number) == before


def test_room_that_is_not_there_is_an_error_with_its_size(tmp_path):
    assert ground.need_room(tmp_path, 1) > 1
    with pytest.raises(pylog.DiskFullError, match=r"may need 1000000\.0 GB") as caught:
        ground.need_room(tmp_path, 10**15)

    assert caught.value.needed_bytes == 10**15


@pytest.mark.parametrize("name", WORKLOADS)
@pytest.mark.parametrize("size", [8, 100, 1_000_000])
@pytest.mark.parametrize("processes", [1, 64])
def test_part_that_is_limited_by_seconds_keeps_to_its_disk(name, size, processes):
    settings = Settings(only=(name,), size=size, processes=processes, seconds=3600, disk_mb=2048)

    assert settings.disk_bytes <= (2048 + 192 + 4) << 20


@pytest.mark.parametrize("wrong", [
    {"only": ()}, {"only": ("nonsense",)}, {"only": ("append", "Fetch")},
    {"seconds": None}, {"records": 5}, {"seconds": None, "records": None},
], ids=repr)
def test_settings_that_cannot_be_are_refused(wrong):
    with pytest.raises(pylog.ConfigurationError):
        need_settings(Settings(**wrong))


# ---- the machine --------------------------------------------------------------------------------


@pytest.mark.parametrize(("lines", "expected"), [
    ([], ("unknown", "unknown")),
    (["1 0 8:1 / / rw - ext4 /dev/a rw"], ("ext4", "/dev/a")),
    (["1 0 8:1 / / rw - ext4 /dev/a rw", "2 1 0:9 / {} rw shared:1 - xfs /dev/b rw"],
     ("xfs", "/dev/b")),
    (["2 1 0:9 / {}x rw - xfs /dev/b rw", "1 0 8:1 / / rw - ext4 /dev/a rw"], ("ext4", "/dev/a")),
    (["2 1 0:9 / {} rw - xfs /dev/b rw", "3 2 0:8 / {} rw - tmpfs a\\040b rw"], ("tmpfs", "a b")),
], ids=range(5))
def test_file_system_is_that_of_the_nearest_mount(tmp_path, monkeypatch, lines, expected):
    monkeypatch.setattr(hardware, "mounts", lambda: [line.format(tmp_path) for line in lines])
    monkeypatch.setattr(hardware, "model_of", lambda path: "")

    assert hardware.mount_of(tmp_path) == expected


def test_machine_is_described_though_proc_is_hidden(tmp_path, monkeypatch):
    monkeypatch.setattr(hardware, "mounts", list)
    monkeypatch.setattr(hardware.Path, "read_text", lambda *_, **__: (_ for _ in ()).throw(OSError))

    assert hardware.line_of(hardware.describe(tmp_path)).startswith("unknown ")


def test_other_version_or_load_is_no_other_machine():
    old = hardware.describe(Path.cwd())

    assert hardware.differences(old, old | {"pylog": "9", "load": 7}) == []
    assert hardware.differences(old | {"cpu": "a"}, old | {"cpu": "b"}) == ["cpu: a then, b now"]
    assert hardware.differences({}, {"cpu": "b"}) == ["cpu: unknown then, b now"]


# ---- comparison and text ------------------------------------------------------------------------


def test_ratio_says_how_many_times_as_good():
    old = comparison.Old({}, {}, {"append": {"records_per_second": 1000.0, "p50_ns": 100,
                                             "p99_ns": None}})

    speed, median = comparison.pairs(old, run_of(row(), row("fetch")))

    assert (speed.what, speed.old, speed.new, speed.ratio) == ("records_per_second", 1000, 2000, 2)
    assert (median.what, median.old, median.new, median.ratio) == ("p50_ns", 100, 200, 0.5)


@pytest.mark.parametrize(("nanoseconds", "text"), [
    (None, "-"), (0, "0 ns"), (54, "54 ns"), (999, "999 ns"), (1000, "1 us"), (1234, "1.23 us"),
    (12_345, "12.3 us"), (999_999, "1.00 ms"), (123_456_789, "123 ms"), (1_500_000_000, "1.50 s"),
    (61_000_000_000, "61 s"),
])
def test_duration_has_three_digits_and_a_unit(nanoseconds, text):
    assert table.duration(nanoseconds) == text


def test_columns_of_plain_text_are_aligned(capsys):
    table.show(run_of(row(), row("a longer name", records=10**9)), None)

    lines = capsys.readouterr().out.splitlines()
    ends = {line.index("  append(value)") for line in lines if "  append(value)" in line}
    assert len(ends) == 1
    assert not any(line != line.rstrip() for line in lines)


def test_what_is_true_of_two_rows_is_said_once(capsys):
    table.show(run_of(row(synced="was not"), row("fetch", synced="was not"), row("x")), None)

    assert capsys.readouterr().out.count("append, fetch: was not.") == 1


def test_file_system_in_memory_is_told(capsys):
    run = run_of(row())
    run.machine["file_system"] = "tmpfs"
    table.show(run, None)

    assert "nothing was on a disk" in capsys.readouterr().out


def test_fsync_is_left_out_where_nothing_is_durable(capsys):
    assert fit_file_system(Settings(), "ext4") == Settings()
    assert fit_file_system(Settings(), "tmpfs").only == WORKLOADS[:-1]
    assert "fsync is left out" in capsys.readouterr().err


@pytest.mark.parametrize("only", [("fsync",), ("append", "fsync")])
def test_fsync_that_is_asked_for_in_memory_is_refused(only):
    with pytest.raises(click.ClickException, match="tmpfs, which keeps nothing"):
        fit_file_system(Settings(only=only), "tmpfs")


def test_paced_row_has_no_speed():
    paced = row(is_paced=True)

    assert paced.records_per_second is paced.megabytes_per_second is None
    assert row(seconds=0).records_per_second is None


@pytest.mark.parametrize(("width", "is_rich"), [("200", True), ("40", False)])
def test_terminal_has_a_table_where_there_is_room(capsys, monkeypatch, width, is_rich):
    monkeypatch.setenv("COLUMNS", width)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)

    table.show(run_of(row()), [comparison.Pair("append", "p50_ns", 100, 200, 0.5)])

    assert "200 ns" in capsys.readouterr().out
    assert table.show_rich([], [table.table_of_times([row()])], []) is is_rich


def test_terminal_without_rich_has_plain_text(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "rich.console", None)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)

    table.show(run_of(row()), None)

    assert "200 ns" in capsys.readouterr().out
