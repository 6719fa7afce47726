"""`pylog stress` as a user runs it: it finds nothing in a good log, and something in a bad one."""

import json
import re
import subprocess
import sys
import tempfile

import pytest
from drivers import built
from stressing import ROOT, report_of, run, run_until_found, stress

import pylog
from pylog import _native
from pylog.errors import ConfigurationError
from pylog.stress.plan import NEMESES, Options, Plan

ALL_BUT_ONE = tuple(sorted(set(NEMESES) - {"truncate"}))
SMALL = ("--segment-bytes", "262144", "--size-max", "20000", "--disk-mb", "16")


@pytest.mark.slow
def test_every_record_of_a_run_with_kills_and_pauses_is_accounted_for(log_path):
    report = run(log_path, "--nemesis", "kill,pause,fork", "--seconds", 2, "--rate", 2, *SMALL)

    counts = report["counts"]
    assert report["verdict"] == "ok"
    assert counts["faults"]["kill"] > 0
    assert counts["acknowledged"] > 1000
    assert counts["checked"] == counts["acknowledged"] + counts["indeterminate_present"]
    assert counts["sent"] == sum(
        counts[name] for name in ("acknowledged", "failed", "indeterminate"))


@pytest.mark.slow
def test_readers_are_told_of_damage_that_comes_and_goes(log_path):
    # By this seed four flips and two cuts, from 0.8 s on; by one in 2,000 there are none at all.
    report = run(log_path, "--workload", "fanout", "--nemesis", "flip,truncate", "--readers", 4,
                 "--seconds", 2, "--rate", 3, "--seed", 6, *SMALL)

    faults = report["counts"]["faults"]
    assert faults.get("flip", 0) + faults.get("truncate", 0) > 0
    assert report["counts"]["read"] > 1000
    assert all(row["severity"] != "never allowed" for row in report["anomalies"].values())


@pytest.mark.slow
def test_durable_records_are_seen_after_kills_of_their_writers(log_path):
    report = run(log_path, "--workload", "durable", "--nemesis", "kill,limits", "--seconds", 1.5,
                 "--rate", 3)

    assert report["plan"]["options"]["durability"] == "fsync"
    assert report["counts"]["flushes"] > 0


@pytest.mark.slow
def test_full_disk_refuses_calls_and_takes_them_again(log_path):
    report = run(log_path, "--nemesis", "disk-full", "--seconds", 2.5, "--rate", 8, "--seed", 1,
                 *SMALL)

    assert report["counts"]["faults"]["disk-full"] > 0
    assert report["anomalies"]["refused-call (documented)"]["count"] > 0
    assert pylog.check(log_path / "append/log").ok    # the small disk's files are kept
    assert not list(log_path.glob("append/*.kept")) + list(log_path.glob("append/log/ballast"))


@pytest.mark.slow
def test_c_writers_die_at_the_points_of_the_core(log_path):
    report = run(log_path, "--nemesis", "kill-at", "--driver", built("build/stress") / "stress",
                 "--seconds", 2.5, "--rate", 3, *SMALL)

    points = report["coverage"]["kill_points"]
    assert len(points) > 15
    assert sum(kills > 0 for kills in points.values()) > len(points) // 2


@pytest.mark.soak
@pytest.mark.parametrize("durability", ["os", "interval", "fsync"])
@pytest.mark.parametrize("workload", ["append", "fanout", "durable"])
def test_minute_of_kills_and_pauses_loses_nothing(log_path, workload, durability):
    run(log_path, "--workload", workload, "--durability", durability, "--nemesis",
        "kill,pause,fork,limits,flip", "--seconds", 60, "--rate", 2, timeout=300)


BROKEN = """
from pylog import _native
from pylog.cli import commands
from pylog.stress import {module} as patched

{patch}

commands()
"""
BREAKS = {
    "acknowledged and never appended": ("writing", """
def append_many(self):
    self.make(5)
    self.ledger.acknowledge()
patched.Producer.append_many = append_many
""", {"hole", "lost-write"}),
    "appended twice": ("writing", """
def append_many(self):
    values, keys = self.make(5)
    self.log.append_many(values, keys=keys)
    first = self.log.append_many(values, keys=keys)
    self.ledger.acknowledge()
    return first
patched.Producer.append_many = append_many
""", {"duplicate"}),
    "appended without its ledger": ("writing", """
def append_many(self):
    values, keys = _native.stamp_values(self.writer.plan.run, self.number, self.incarnation,
                                        10**6 + 5 * self.calls, [100] * 5)
    self.log.append_many(values, keys=keys)
patched.Producer.append_many = append_many
""", {"invented-write"}),
    "refused and appended": ("writing", """
def append_many(self):
    values, keys = self.make(5)
    self.log.append_many(values, keys=keys)
    raise patched.MessageSizeTooLargeError("not that it matters")
patched.Producer.append_many = append_many
""", {"failed-write"}),
    "refused as second and appended": ("writing", """
def append_many(self):
    values, keys = self.make(5)
    found = self.log.end_offset
    self.log.append_many(values, keys=keys)
    raise patched.WrongEndOffsetError("not that it matters", offset=found, end_offset=found)
patched.Producer.append_many = append_many
""", {"failed-write"}),
    "less than was said": ("writing", """
def append_many(self):
    values, keys = self.make(5)
    self.log.append_many(values[:2], keys=keys and keys[:2])
    raise patched.ResourceLimitError("not that it matters", appended=3)
patched.Producer.append_many = append_many
""", {"hole", "lost-write"}),
    "another offset returned": ("writing", """
old = patched.Producer.append_many
patched.LOOK_BACK_EVERY = 1
def append_many(self):
    first = old(self)
    return first - 1 if first else first
patched.Producer.append_many = append_many
""", {"misplaced-write"}),
    "skipped by a reader": ("reading", """
old = patched.Reader.take
def take(self, chunk):
    return old(self, chunk) + 1
patched.Reader.take = take
""", {"poll-skip"}),
    "a view that changes": ("reading", """
patched.zlib.crc32 = lambda view, numbers=iter(range(10**9)): next(numbers)
""", {"changed-view"}),
    "a reader that stops": ("reading", """
def follow(self):
    patched.time.sleep(0.01)
patched.Reader.follow = follow
""", {"stuck-reader"}),
    "a log that takes no more": ("writing", """
def append_many(self):
    self.make(5)
    raise ValueError("never again")
patched.Producer.append_many = append_many
""", {"unwritable-log"}),
    "a worker with a mistake": ("watching", """
def clean(plan, layout, board):
    raise KeyError("a mistake")
from pylog.stress import stage
stage.clean = clean
""", {"broken-worker"}),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", BREAKS)
def test_broken_log_is_found_and_named(log_path, name):
    module, patch, expected = BREAKS[name]
    script = BROKEN.format(module=module, patch=patch)

    report = run_until_found(
        expected, log_path, "--workload", "fanout", "--processes", 1, "--readers", 2,
        "--quiet-seconds", 1, "--ways", "append_many", seconds=1.5 if "reader" in name else 0.4,
        script=script)

    found = {name: row["count"] for name, row in report["anomalies"].items()
             if row["severity"] == "never allowed"}
    assert found.keys() & expected, found
    if "hole" in expected:    # by two settlements, and counted once
        assert sum(map(found.get, found.keys() & expected)) == report["counts"]["missing"]


SILENT = """
from pylog.cli import commands
from pylog.stress import writing

def append_many(self, old=writing.Producer.append_many):
    while self.number == 2 and self.writer.board.phase == writing.Phase.QUIET:
        writing.time.sleep(0.01)
    return old(self)
writing.Producer.append_many = append_many
commands()
"""


@pytest.mark.slow
def test_each_producer_must_be_acknowledged_after_the_faults(log_path):
    done = stress(log_path, "--json", "--processes", 2, "--threads", 2, "--seconds", 0.2,
                  "--quiet-seconds", 4, "--ways", "append_many", *SMALL, script=SILENT)

    assert done.returncode == 4
    row = report_of(done)["anomalies"]["unwritable-log"]
    assert row["count"] == 1
    assert row["examples"][0]["what"] == (
        "1 producer of 4 had nothing acknowledged for 4 s after the faults: 2")


THREAD_THAT_ENDS = """
from pathlib import Path
from pylog.cli import commands
from pylog.stress import writing

def run(self, old=writing.Producer.run):
    mark = self.writer.layout.directory / "mark"
    if self.number == 1 and not mark.exists():
        mark.touch()
        raise MemoryError
    old(self)
writing.Producer.run = run
commands()
"""


def test_writer_with_a_thread_less_is_replaced_by_one_with_all(log_path):
    done = stress(log_path, "--json", "--processes", 1, "--threads", 2, "--seconds", 0.2,
                  *SMALL, script=THREAD_THAT_ENDS)

    anomalies = report_of(done)["anomalies"]
    assert [*anomalies] == ["broken-worker"]    # and no producer that falls silent
    assert "thread 1: MemoryError" in anomalies["broken-worker"]["examples"][0]["what"]


SLOW_CHILDREN = """
from pylog.cli import commands
from pylog.stress import writing

def run(self, old=writing.Child.run):
    writing.time.sleep(1)
    old(self)
writing.Child.run = run
commands()
"""


def test_forked_children_are_waited_for_when_their_parents_are_gone(log_path):
    # By this seed nine forks, from 0.27 s on; by one in 1,400 there are none.
    report = run(log_path, "--nemesis", "fork", "--rate", 10, "--seconds", 0.8, "--seed", 1,
                 "--processes", 1, *SMALL, script=SLOW_CHILDREN)

    children = [_native.Ledger(path) for path in log_path.glob("append/ledgers/producer-1???")]
    assert children
    assert [ledger.acknowledged for ledger in children] == [200] * len(children)
    everybody = [_native.Ledger(path) for path in log_path.glob("append/ledgers/producer-*[0-9]")]
    assert report["counts"]["acknowledged"] == sum(one.acknowledged for one in everybody)


KILLED_AT_THE_END = """
import os, signal, sys, time
from pathlib import Path
from pylog.stress.cast import Cast
from pylog.stress.nemesis import Event
from pylog.stress.plan import Options, Plan
from pylog.stress.sightings import Sightings
from pylog.stress.stage import INSPECTION, Stage

stage = Stage(Plan(Options(), 1, ()), Path(sys.argv[1]))
stage.cast = Cast(Sightings(Path(sys.argv[1]) / "sightings", "stage"))
writer = stage.start("writer", 0, lambda: time.sleep(60))
inspector = stage.start(INSPECTION, 0, lambda: time.sleep(0.3))
stage.undos = [(0.0, 0, Event(0.0, "flip", "a bit", pid=inspector), lambda: None)]
os.kill(writer, signal.SIGKILL)
stage.end_faults()
print(stage.alive("writer") not in ([], [writer]))
stage.is_over = True
stage.clear()
"""


def test_writer_that_is_killed_by_the_last_fault_is_replaced(tmp_path):
    done = subprocess.run([sys.executable, "-c", KILLED_AT_THE_END, tmp_path], check=True,
                          capture_output=True, text=True, timeout=30)

    assert done.stdout == "True\n"


def test_replay_has_the_plan_of_the_report(log_path):
    arguments = ("--seconds", 0.3, "--processes", 1, "--threads", 1, "--nemesis", "kill",
                 "--rate", 5, "--seed", 4711, *SMALL)
    first = run(log_path / "first", *arguments)

    again = run(log_path / "again", "--replay", log_path / "first/append/report.json")

    assert again["plan"] == first["plan"]
    assert first["plan"]["faults"]


@pytest.mark.parametrize(("arguments", "said"), [
    ((), "name a new directory"),
    (("new", "--workload", "apend"), "none of append"),
    (("new", "--nemesis", "kil"), "none of kill"),
    (("new", "--ways", "append,shout"), "none of append"),
    (("new", "--workload", ""), "name some of append"),
    (("new", "--ways", ","), "name some of append"),
    (("new", "--nemesis", "kill-at"), "--driver"),
    (("new", "--seconds", "0"), "range"),
    (("new", "--seconds", "nan"), "range"),
    (("new", "--seed", "-1"), "range"),
    (("new", "--processes", "0"), "range"),
    (("new", "--durability", "sometimes"), "sometimes"),
    (("--plant", "holes"), "holes"),
    (("new", "--replay", ROOT / "setup.py", "--seed", "7"), "'--replay' would ignore '--seed'"),
    (("new", "--replay", ROOT / "setup.py", "--seconds", "10.0"), "would ignore '--seconds'"),
    (("new", "--replay", ROOT / "setup.py", "--workload", "append"), "would ignore '--workload'"),
    (("new", "--replay", ROOT / "setup.py", "--plant", "all"), "would ignore"),
    (("new", "--plant", "all"), "would ignore '[DIR]'"),
    (("--plant", "all", "--json"), "would ignore '--json'"),
    (("--list", "--seed", "1"), "would ignore '--seed'"),
    (("new", "--replay", "nowhere.json"), "nowhere.json"),
])
def test_what_makes_no_sense_is_refused_before_anything_is_made(tmp_path, arguments, said):
    arguments = [str(tmp_path / "new") if word == "new" else word for word in arguments]

    done = stress(*arguments)

    assert done.returncode == 2
    assert said in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", [
    "", "no json", "[]", "{}", '{"plan": 1}', '{"plan": {"options": {}, "run": 1}}',
    '{"plan": {"options": {"workload": "x"}, "run": 1, "faults": []}}',
    '{"plan": {"options": {"color": 1}, "run": 1, "faults": []}}',
    '{"plan": {"options": {}, "run": "x", "faults": []}}',
    '{"plan": {"options": {}, "run": 1, "faults": [{"at": 1}]}}',
    '{"plan": {"options": {"nemeses": ["rain"]}, "run": 1, "faults": []}}',
    '{"plan": {"options": {"nemeses": [["kill"]]}, "run": 1, "faults": []}}',
    '{"plan": {"options": {"workload": ["append"]}, "run": 1, "faults": []}}',
])
def test_replay_of_what_is_no_report_is_refused(tmp_path, content):
    path = tmp_path / "report.json"
    path.write_text(content)

    done = stress(tmp_path / "new", "--replay", path)

    assert done.returncode == 1
    assert done.stderr.startswith("Error: ")
    assert not (tmp_path / "new").exists()


def edited(option=None, fault=None, **changes):
    """A report's plan with one thing changed."""
    plan = Plan.draw(Options(nemeses=("kill",), seconds=2, seed=1)).to_dict() | changes
    plan["options"] |= option or {}
    plan["faults"][1] |= fault or {}
    return plan


def test_plan_that_nobody_has_edited_can_be_repeated():
    assert Plan.from_dict(json.loads(json.dumps(edited()))) == Plan.draw(
        Options(nemeses=("kill",), seconds=2, seed=1))


@pytest.mark.parametrize(("plan", "said"), [
    (edited({"seconds": 0}), "seconds is 0; use a number from 0.1"),
    (edited({"seconds": "2"}), "seconds is '2'"),
    (edited({"seconds": float("nan")}), "seconds is nan"),
    (edited({"seconds": float("inf")}), "seconds is inf"),
    (edited({"seconds": None}), "seconds is None"),
    (edited({"quiet_seconds": -1.0}), "quiet_seconds is -1.0"),
    (edited({"rate": 1e9}), "rate is"),
    (edited({"seed": -1}), "seed is -1"),
    (edited({"processes": 0}), "processes is 0; use a whole number from 1 to 64"),
    (edited({"processes": 2.0}), "processes is 2.0; use a whole number"),
    (edited({"processes": True}), "processes is True"),
    (edited({"threads": 10**6}), "threads is 1000000"),
    (edited({"readers": [1]}), "readers is [1]"),
    (edited({"size_max": 1}), "size_max is 1"),
    (edited({"segment_bytes": 1 << 50}), "segment_bytes is"),
    (edited({"disk_bytes": 0}), "disk_bytes is 0"),
    (edited({"durability": "sometimes"}), "no durability 'sometimes'"),
    (edited({"compression": "zip"}), "not by 'zip'"),
    (edited({"nemeses": "kill"}), "no nemesis"),
    (edited({"nemeses": ["pause"]}), "fault 0 is of 'kill'"),
    (edited(run=0), "run is 0"),
    (edited(run="1"), "run is '1'"),
    (edited(run=1.5), "run is 1.5"),
    (edited(fault={"nemesis": "rain"}), "fault 1 is of 'rain'"),
    (edited(fault={"at": -1.0}), "at of fault 1 is -1.0"),
    (edited(fault={"at": 2.5}), "at of fault 1 is 2.5"),
    (edited(fault={"at": 0.0}), "at of fault 1 is 0.0"),    # before fault 0
    (edited(fault={"at": float("nan")}), "at of fault 1 is nan"),
    (edited(fault={"at": "0.5"}), "at of fault 1 is '0.5'"),
    (edited(fault={"seconds": 3.0}), "seconds of fault 1 is 3.0"),
    (edited(fault={"seconds": -0.1}), "seconds of fault 1 is -0.1"),
    (edited(fault={"choice": -1}), "choice of fault 1 is -1"),
    (edited(fault={"choice": 0.5}), "choice of fault 1 is 0.5"),
    (edited(fault={"color": 1}), "no plan that can be repeated"),
    (edited(faults=[{"at": 0.1, "nemesis": "kill", "seconds": 0.0, "choice": 1}, {}]),
     "no plan that can be repeated"),
])
def test_plan_that_was_edited_out_of_its_ranges_is_refused_with_the_reason(plan, said):
    with pytest.raises(ConfigurationError, match=re.escape(said)):
        Plan.from_dict(plan)


def test_directory_with_other_things_in_it_is_left_alone(tmp_path):
    (tmp_path / "append").mkdir()
    (tmp_path / "append/thesis.txt").write_text("years of work")

    done = stress(tmp_path, "--seconds", 0.1)

    assert done.returncode == 1
    assert "not empty" in done.stderr
    assert [path.name for path in (tmp_path / "append").iterdir()] == ["thesis.txt"]


def test_truncate_and_disk_full_do_not_go_together(tmp_path):
    done = stress(tmp_path / "new", "--nemesis", "truncate,disk-full")

    assert done.returncode == 1
    assert "use one of them" in done.stderr
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(("arguments", "said"), [
    (("--ways", "flush"), "nothing to check"),
    (("--nemesis", "kill", "--seconds", "1e6", "--rate", "1000"), "lower --rate"),
    (("--workload", "group", "--nemesis", "kill,flip"), "use some of kill, pause"),
    (("--workload", "queue", "--nemesis", "fork"), "use some of kill, pause"),
])
def test_run_that_could_not_be_or_not_tell_is_refused(tmp_path, arguments, said):
    done = stress(tmp_path / "new", *arguments)

    assert done.returncode == 1
    assert said in done.stderr
    assert not (tmp_path / "new").exists()


def test_log_that_cannot_be_made_is_no_anomaly():
    with tempfile.TemporaryDirectory(dir="/dev/shm") as directory:
        done = stress(directory, "--workload", "durable", "--seconds", 0.1)

    assert done.returncode == 1
    assert "the log cannot be made: UnsupportedFilesystemError" in done.stderr
    assert "Traceback" not in done.stderr


def test_replay_of_kill_at_needs_the_driver_again(tmp_path):
    plan = Plan.draw(Options(nemeses=("kill-at",), seconds=1.0)).to_dict()
    (tmp_path / "report.json").write_text(json.dumps({"plan": plan}))

    done = stress(tmp_path / "new", "--replay", tmp_path / "report.json")

    assert done.returncode == 2
    assert "--driver" in done.stderr


def test_workload_that_is_named_twice_runs_once(log_path):
    run(log_path, "--workload", "append,append", "--seconds", 0.1, "--processes", 1, *SMALL)


@pytest.mark.parametrize("report", ["", "{}", '{"plan": {}}'])
def test_log_beside_a_foreign_report_is_left_alone(tmp_path, report):
    (tmp_path / "append/log").mkdir(parents=True)
    (tmp_path / "append/log/precious").write_text("mine")
    (tmp_path / "append/report.json").write_text(report)

    done = stress(tmp_path, "--seconds", 0.1)

    assert done.returncode == 1
    assert (tmp_path / "append/log/precious").read_text() == "mine"


def test_driver_that_is_none_is_refused(tmp_path):
    done = stress(tmp_path / "new", "--nemesis", "kill-at", "--driver", "/bin/false")

    assert done.returncode == 1
    assert "--points" in done.stderr


def test_same_seed_is_the_same_plan_and_another_another():
    options = Options.for_workload("append", nemeses=ALL_BUT_ONE, seconds=60.0, seed=7)

    assert Plan.draw(options) == Plan.draw(options)
    assert Plan.draw(options) != Plan.draw(
        Options.for_workload("append", nemeses=ALL_BUT_ONE, seconds=60.0, seed=8))


def test_plan_has_every_fault_within_its_time_and_in_order():
    plan = Plan.draw(Options.for_workload("fanout", nemeses=ALL_BUT_ONE, seconds=60.0, seed=7))

    assert {fault.nemesis for fault in plan.faults} == set(ALL_BUT_ONE)
    assert all(fault.at > 0 and fault.at + fault.seconds <= 60.001 for fault in plan.faults)
    assert list(plan.faults) == sorted(plan.faults, key=lambda fault: fault.at)


def test_plan_comes_back_from_json():
    plan = Plan.draw(Options.for_workload("durable", nemeses=("kill", "pause"), seed=3))

    assert Plan.from_dict(json.loads(json.dumps(plan.to_dict()))) == plan


def test_list_names_all_there_is():
    done = stress("--list")

    assert done.returncode == 0
    assert all(name in done.stdout for name in (*NEMESES, "fanout", "zombie-write"))
