"""`pylog bench` as a user runs it, at tiny sizes: what it prints, keeps, refuses and leaves behind.

No figure is judged: absolute times never fail a test.
"""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from shell import COMMAND, run, start

import pylog
from pylog.benchmark import runner
from pylog.benchmark.table import speed
from pylog.errors import PylogError
from pylog.exits import Exit

ROWS = ["(the loop alone)", "append", "append_many", "fetch", "columns", "latency spinning",
        "latency blocking", "(the stamp alone)", "fsync", "fsync 8 threads"]
PACED = {"(the loop alone)", "latency spinning", "latency blocking", "(the stamp alone)"}
TIMES = ["p50_ns", "p90_ns", "p99_ns", "p999_ns", "p9999_ns", "max_ns"]
OTHERS_FILE = "a file that is not ours"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run of everything: (what subprocess.run returned, the JSON, what lay in DIR after it)."""
    folder = tmp_path_factory.mktemp("bench")
    (folder / "others").write_text(OTHERS_FILE)
    done = subprocess.run(
        [*COMMAND, "bench", "--records", "40", "--json", "../figures.json"], cwd=folder,
        capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == Exit.FINE, done.stderr
    return done, json.loads((folder.parent / "figures.json").read_text()), os.listdir(folder)


def rows_of(told):
    return {row["name"]: row for row in told["rows"]}


# ---- what it tells ------------------------------------------------------------------------------


def test_every_workload_has_its_row(whole):
    assert list(rows_of(whole[1])) == ROWS
    for name in ROWS:
        assert any(line.startswith(f"{name} ") for line in whole[0].stdout.splitlines()), name


def test_rows_that_are_not_paced_have_a_speed(whole):
    for name, row in rows_of(whole[1]).items():
        assert (row["records_per_second"] is None) == (name in PACED), name
        if name not in PACED:
            assert row["megabytes_per_second"] == pytest.approx(row["records_per_second"] / 1e4)


def test_single_calls_have_percentiles_in_order(whole):
    for name, row in rows_of(whole[1]).items():
        told = [row[which] for which in TIMES if row[which] is not None]
        assert told == sorted(told), name
        assert row["p50_ns"] > 0
        assert row["max_ns"] > 0


def test_percentile_of_too_few_calls_is_left_out(whole):
    row = rows_of(whole[1])["append"]

    assert row["count"] == 40
    assert [row[which] is None for which in TIMES] == [False, False, True, True, True, False]


def test_records_are_those_asked_for(whole):
    rows = rows_of(whole[1])

    for name in ("append", "append_many", "fetch", "columns", "latency spinning", "fsync"):
        assert rows[name]["records"] == 40
    assert rows["fsync 8 threads"]["records"] == 8 * 40


def test_output_says_what_was_not_synced(whole):
    lines = whole[0].stdout.splitlines()

    (unsynced,) = [line for line in lines if "nothing was synced" in line]
    assert unsynced.startswith("append, append_many, latency spinning, latency blocking: ")
    assert any(line.startswith("fsync, fsync 8 threads: synced before") for line in lines)
    assert any(line.startswith("fetch, columns: nothing to sync") for line in lines)


def test_machine_line_names_what_a_figure_depends_on(whole):
    machine, (first, *_) = whole[1]["machine"], whole[0].stdout.splitlines()

    for name in ("cpu", "cores", "memory_gib", "kernel", "file_system", "device", "python",
                 "pylog", "crc"):
        assert str(machine[name]) in first
    assert machine["pylog"] == pylog.__version__


def test_disk_is_told_before_and_given_back_after(whole):
    done, _, left = whole

    assert done.stderr.startswith("needs up to 4 MB at ")
    assert left == ["others"]


def test_plain_text_has_no_escape_sequences(whole):
    assert "\x1b" not in whole[0].stdout + whole[0].stderr


def test_json_on_stdout_stands_alone(tmp_path):
    done = run("bench", tmp_path, "--only", "append", "--records", 1, "--json", "-")

    assert done.exit_code == Exit.FINE, done.output
    assert list(rows_of(json.loads(done.stdout))) == ["(the loop alone)", "append"]


def test_seconds_end_a_part_and_options_reach_the_log(tmp_path):
    done = run("bench", tmp_path, "--only", "append_many", "--seconds", 0.01, "--processes",
               2, "--size", 8, "--durability", "interval", "-z", "lz4", "--json", "-")

    told = json.loads(done.stdout)
    assert told["settings"] == {
        "only": ["append_many"], "size": 8, "seconds": 0.01, "records": None,
        "processes": 2, "durability": "interval", "compression": "lz4", "disk_mb": 2048}
    assert "every 100 ms" in rows_of(told)["append_many"]["synced"]
    assert rows_of(told)["append_many"]["seconds"] < 10


# ---- a workload that fails ----------------------------------------------------------------------


@pytest.fixture
def failing(monkeypatch):
    """Makes a workload fail by name."""
    def fail(name, error):
        def measure(*unused):
            raise error
        monkeypatch.setitem(runner.ALL_MEASURES, name, measure)
    return fail


@pytest.mark.parametrize(("error", "code", "said"), [
    (OSError(28, "No space left on device"), Exit.FAILED, "Error: input or output: No space left"),
    (PylogError("a proof failed"), Exit.FAILED, "Error: a proof failed"),
    (KeyboardInterrupt(), Exit.INTERRUPTED, ""),
])
def test_rows_before_a_workload_that_fails_are_told(tmp_path, failing, error, code, said):
    failing("fetch", error)

    done = run("bench", tmp_path, "--only", "append,fetch,columns", "--records", 40)

    assert done.exit_code == code
    assert any(line.startswith("append ") for line in done.stdout.splitlines())
    assert "warning: not measured: fetch, columns" in done.stderr
    assert said in done.stderr
    assert os.listdir(tmp_path) == []


def test_json_of_a_run_that_failed_says_what_is_not_in_it(tmp_path, failing):
    failing("columns", PylogError("a proof failed"))

    done = run("bench", tmp_path, "--only", "append,columns", "--records", 40, "--json", "-")

    told = json.loads(done.stdout)
    assert done.exit_code == Exit.FAILED
    assert told["unmeasured"] == ["columns"]
    assert "append" in rows_of(told)


def test_older_figures_are_not_replaced_by_those_of_a_run_that_failed(tmp_path, failing):
    path, arguments = tmp_path / "figures", ("--only", "append,fetch", "--records", 40)
    assert run("bench", tmp_path, *arguments, "--json", path).exit_code == Exit.FINE
    before = path.read_text()
    failing("fetch", PylogError("a proof failed"))

    done = run("bench", tmp_path, *arguments, "--json", path)

    assert path.read_text() == before
    assert f"{path} is not written" in done.stderr
    assert json.loads(before)["unmeasured"] == []


def test_nothing_is_told_where_nothing_was_measured(tmp_path, failing):
    failing("append", PylogError("a proof failed"))

    done = run("bench", tmp_path, "--only", "append,fetch", "--records", 40)

    assert done.exit_code == Exit.FAILED
    assert done.stdout == ""


# ---- --against ----------------------------------------------------------------------------------


def test_old_and_new_stand_side_by_side_and_another_machine_is_warned_of(whole, tmp_path):
    told = whole[1]
    told = told | {"settings": told["settings"] | {"only": ["append"]},
                   "machine": told["machine"] | {"cpu": "abacus", "pylog": "0.0.1"}}
    (tmp_path / "old.json").write_text(json.dumps(told))

    done = run("bench", tmp_path, "--only", "append", "--records", 40, "--against",
               tmp_path / "old.json")

    assert done.exit_code == Exit.FINE, done.output
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("append  records/s")]
    assert f" {speed(rows_of(told)['append']['records_per_second'])} " in line
    assert "times as good" in done.stdout
    assert "warning: the old figures are of another machine: cpu: abacus then" in done.stderr
    assert "0.0.1" not in done.stderr


@pytest.mark.parametrize(("options", "told"), [
    (["--size", 101], "size 100, not 101"),
    (["--records", 2], "records 1, not 2"),
    (["--processes", 2], "processes 1, not 2"),
    (["--durability", "fsync"], "durability os, not fsync"),
    (["-z", "lz4"], "compression none, not lz4"),
    (["--only", "append,fetch"], "only append, not append,fetch"),
], ids=str)
def test_run_of_other_options_is_refused_before_it_starts(whole, tmp_path, options, told):
    figures = whole[1]
    figures = figures | {"settings": figures["settings"] | {"only": ["append"], "records": 1}}
    (tmp_path / "old.json").write_text(json.dumps(figures))

    done = run("bench", tmp_path, "--only", "append", "--records", 1, *options, "--against",
               tmp_path / "old.json")

    assert done.exit_code == Exit.FAILED
    assert told in done.stderr
    assert "needs up to" not in done.stderr


@pytest.mark.parametrize("text", [
    "", "{}", "[]", "null", "figures", '{"kind": "pylog bench"}', "[" * 100_000, "\x00",
    '{"kind": "pylog bench", "format": 2, "machine": {}, "settings": {}, "rows": []}',
    '{"kind": "other", "format": 1, "machine": {}, "settings": {}, "rows": []}',
    '{"kind": "pylog bench", "format": 1, "machine": 5, "settings": {}, "rows": []}',
    '{"kind": "pylog bench", "format": 1, "machine": {}, "settings": {}, "rows": [1]}',
    '{"kind": "pylog bench", "format": 1, "machine": {}, "settings": {}, "rows": [{"name": "x"}]}',
    *('{"kind": "pylog bench", "format": 1, "machine": {}, "settings": {}, "rows": [{"name": "x", '
      f'"records_per_second": {value}, "p50_ns": 1, "p99_ns": 1}}]}}'
      for value in ("NaN", "Infinity", "-1", '"1"', "true", "[]", "1e400")),
], ids=lambda text: text[-60:])
def test_file_that_is_no_figures_is_refused(tmp_path, text):
    (tmp_path / "old.json").write_text(text)

    done = run("bench", tmp_path, "--against", tmp_path / "old.json")

    assert done.exit_code == Exit.FAILED
    assert "is not what `pylog bench --json` of this version writes" in done.stderr


# ---- what is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [
    ["--size", "7"], ["--size", "1000001"], ["--size", "-1"], ["--size", "1e3"], ["--size", ""],
    ["--seconds", "0"], ["--seconds", "-1"], ["--seconds", "nan"], ["--seconds", "inf"],
    ["--seconds", "3601"], ["--seconds", "soon"],
    ["--records", "0"], ["--records", "-5"], ["--records", "1.5"], ["--records", "10000000001"],
    ["--records", "1", "--seconds", "1"],
    ["--processes", "0"], ["--processes", "65"], ["--processes", "two"],
    ["--only", "nonsense"], ["--only", ""], ["--only", "append,,fetch"], ["--only", "Append"],
    ["--only", "append", "--only", "fetchs"],
    ["--durability", "never"], ["--compression", "zstd"], ["--compression", "snappy"],
    ["--disk-mb", "15"], ["--disk-mb", "x"],
    ["--against", "missing.json"], ["--against", "."], ["--json", "."],
    ["--fast"], ["one", "two"], [""],
], ids=" ".join)
def test_option_that_cannot_be_is_a_usage_error(tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)

    done = run("bench", *arguments)

    assert done.exit_code == Exit.USAGE, done.output
    assert os.listdir() == []


def test_directory_of_a_log_is_refused(log_of_three):
    before = sorted(os.listdir(log_of_three))

    done = run("bench", log_of_three, "--records", 1)

    assert done.exit_code == Exit.FAILED
    assert f"name the one above, {log_of_three.parent}" in done.stderr
    assert sorted(os.listdir(log_of_three)) == before


@pytest.mark.parametrize("name", ["missing", "file", "file/below"])
def test_place_that_is_no_directory_is_refused(tmp_path, name):
    (tmp_path / "file").write_text(OTHERS_FILE)

    done = run("bench", tmp_path / name, "--records", 1)

    assert done.exit_code == Exit.FAILED
    assert "is no directory" in done.stderr
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("name", ["missing/figures.json", "others", "others/figures.json"])
def test_place_for_the_json_is_looked_at_first(tmp_path, name):
    (tmp_path / "others").write_text(OTHERS_FILE)

    done = run("bench", tmp_path, "--records", 1, "--json", tmp_path / name)

    assert done.exit_code == Exit.FAILED
    assert "needs up to" not in done.stderr
    assert (tmp_path / "others").read_text() == OTHERS_FILE


def test_more_than_the_disk_has_is_refused(tmp_path):
    done = run("bench", tmp_path, "--records", 10**10, "--size", 10**6)

    assert done.exit_code == Exit.FAILED
    assert "ask for less with --disk-mb, --records or --only" in done.stderr
    assert os.listdir(tmp_path) == []


# ---- how it ends, and what it does not slow -----------------------------------------------------


def test_interrupted_bench_gives_the_disk_back(tmp_path):
    bench = start("bench", tmp_path, "--only", "fsync", "--seconds", 100, start_new_session=True)
    deadline = time.monotonic() + 30
    while not list(tmp_path.glob("pylog-bench-*/fsync/1/*.log")):
        assert time.monotonic() < deadline
        time.sleep(0.01)

    os.killpg(bench.pid, signal.SIGINT)    # as a terminal does: to its processes, too
    _, told = bench.communicate(timeout=60)

    assert bench.returncode == Exit.INTERRUPTED
    assert os.listdir(tmp_path) == []
    assert b"Traceback" not in told


def test_append_does_not_import_the_bench(log_path):
    code = ("import sys; from pylog.cli import commands; "
            "commands(['append', sys.argv[1]], standalone_mode=False); "
            "sys.exit(sorted({'pylog.benchmark', 'multiprocessing', 'rich'} & set(sys.modules)))")

    done = subprocess.run([sys.executable, "-c", code, log_path], stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, check=False, timeout=60)

    assert done.stderr.splitlines()[-1] == "[]"


def test_help_lists_it_among_the_commands():
    assert "\n  bench " in run("--help").stdout
    assert "--against FILE" in run("bench", "--help").stdout
