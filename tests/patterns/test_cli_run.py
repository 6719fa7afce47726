"""The command line: `pylog run` and `pylog task`."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time

import pytest
from shell import COMMAND, done, fails, is_alive_group, lines
from waiting import until

import pylog
from pylog.exits import Exit
from pylog.patterns import App, current_task

MODULE = '''
import os, time
from pylog.patterns import App, current_task

app = App("data")

@app.task
def version():
    return [os.getpid(), "one"]

@app.task
def slow():
    current_task().progress(0.5, str(os.getpid()))
    while not os.path.exists("enough"):
        time.sleep(0.01)
    return "whole"
'''


def version():
    """Stands for the one in MODULE."""


def slow():
    """As version."""


@pytest.fixture
def place(tmp_path):
    (tmp_path / "jobs.py").write_text(MODULE, encoding="utf-8")
    return tmp_path


@pytest.fixture
def app(place):
    """Sends what the module's workers do."""
    with App(place / "data") as app:
        app.task(version)
        app.task(slow)
        yield app


class Run:
    """`pylog run` as a process, and the workers that it has."""

    def __init__(self, place, *arguments):
        self.errors = place / "errors"
        with self.errors.open("w") as stderr:
            self.process = subprocess.Popen(
                [*COMMAND, "run", *arguments], cwd=place, stderr=stderr,
                env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)})

    def workers(self):
        found = subprocess.run(["pgrep", "-P", str(self.process.pid)], capture_output=True,
                               text=True, check=False)
        return {int(pid) for pid in found.stdout.split()}

    def said(self):
        return self.errors.read_text(encoding="utf-8")

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.process.kill()
        self.process.wait()


@pytest.mark.slow
def test_workers_that_die_are_replaced_and_ctrl_c_lets_them_finish(place, app):
    with Run(place, "jobs:app", "--workers", "2") as run:
        victim, _ = app.tasks["version"].send().result(30)
        os.kill(victim, signal.SIGKILL)
        until(lambda: f"ended by {signal.SIGKILL.name}" in run.said())
        until(lambda: len(run.workers() - {victim}) == 2)
        sent = app.tasks["slow"].send()
        until(lambda: sent.progress() == 0.5)
        workers = run.workers()
        run.process.send_signal(signal.SIGINT)
        run.process.send_signal(signal.SIGINT)    # one Ctrl-C may come twice
        time.sleep(0.2)    # it is at work still when it is told to end
        (place / "enough").touch()
        assert run.process.wait(30) == Exit.FINE
        assert sent.result(0) == "whole"
        assert not any(map(is_alive_group, workers))
        assert "killing" not in run.said()


@pytest.mark.slow
def test_a_file_that_changes_is_run_anew_and_no_worker_outlives_its_supervisor(place, app):
    pytest.importorskip("watchfiles")
    with Run(place, "jobs:app", "--reload") as run:
        first, word = app.tasks["version"].send().result(30)

        def is_heard_of():    # again and again: who watches may begin later than who works
            (place / "jobs.py").write_text("raise ValueError", encoding="utf-8")
            with contextlib.suppress(AssertionError):
                return until(lambda: "cannot be imported" in run.said(), 5)

        until(is_heard_of, 60)
        (place / "jobs.py").write_text(MODULE.replace('"one"', '"two"'), encoding="utf-8")
        second, new = app.tasks["version"].send().result(30)
        assert (word, new) == ("one", "two")
        assert not is_alive_group(first)
        run.process.kill()
        run.process.wait()
        until(lambda: not is_alive_group(second))


@pytest.mark.parametrize(("target", "words"), [
    ("nowhere:app", "'nowhere' cannot be imported: No module"), ("broken:app", "division by zero"),
    ("json:app", "json has no App 'app': app = "), ("json", "json has no App 'app'"),
    (":app", "cannot be imported"), ("..x:app", "cannot be imported")])
def test_a_worker_says_why_it_cannot_begin(place, monkeypatch, target, words):
    (place / "broken.py").write_text("1 / 0", encoding="utf-8")
    monkeypatch.chdir(place)
    monkeypatch.setattr(sys, "path", sys.path[:])
    fails(Exit.USAGE, words, "run", target, "--as-worker")


@pytest.mark.parametrize("arguments", [
    (), ("jobs:app", "--workers", "0"), ("jobs:app", "-c", "0"), ("jobs:app", "--grace", "-1")])
def test_run_refuses_what_makes_no_sense(arguments):
    fails(Exit.USAGE, "Error: ", "run", *arguments)


def test_reload_without_watchfiles_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "watchfiles", None)
    fails(Exit.FAILED, r"pip install 'pylog-engine\[reload\]'", "run", "jobs:app", "--reload")


# ---- pylog task ----------------------------------------------------------------------------------

@pytest.fixture
def sent(data_path):
    """A task that is done, one that has failed, one that waits: their ids."""
    with App(data_path) as app:
        @app.task
        def half(number):
            current_task().progress(0.5, "\x1b[2J half of it")
            return number / 2

        @app.task(queue="slow")
        def wait():
            pass

        app.start(queues=["default"])
        found = [half.send(6), half.send("six"), wait.send()]
        until(lambda: sum(one.is_finished for one in app.statuses()) == 2)
    return [one.id for one in found]


def test_ls_lists_tasks_by_their_last_change(data_path, sent):
    found = [json.loads(line) for line in lines("task", "ls", "--json")]
    assert {one["id"]: one["state"] for one in found} == dict(
        zip(sent, ("done", "failed", "queued"), strict=True))
    head, *rest = lines("task", "ls")
    assert head.split() == [b"ID", b"TASK", b"STATE", b"ATTEMPT", b"PROGRESS", b"CHANGED",
                            b"MESSAGE"]
    assert len(rest) == 3
    [line] = lines("task", "ls", "--state", "failed")[1:]
    assert sent[1].encode() in line
    assert b"TypeError: unsupported operand" in line
    assert len(lines("task", "ls", "-n", "1")) == 2
    assert lines("task", "ls", "--state", "retrying") == []


def test_show_has_each_change_and_no_control_characters(data_path, sent):
    _, *rest = lines("task", "show", sent[0])
    assert [line.split()[2] for line in rest] == [b"queued", b"running", b"running", b"done"]
    assert rest[2].split(maxsplit=4)[4:] == [b"50%       \\x1b[2J half of it"]
    assert [json.loads(line)["attempt"] for line in lines("task", "show", sent[1], "--json")] == [
        0, 1, 1, 1]


def test_result_is_json_or_says_why_there_is_none(data_path, sent):
    assert lines("task", "result", sent[0]) == [b"3.0"]
    fails(Exit.FAILED, "failed for good in attempt 1: TypeError", "task", "result", sent[1])
    fails(Exit.FAILED, "queued after 0.01 s", "task", "result", sent[2], "--wait", "0.01")
    fails(Exit.FAILED, "nothing is known of the task 'x'", "task", "result", "x")
    fails(Exit.FAILED, "nothing is known of the task 'x'", "task", "show", "x")


def test_an_app_that_has_sent_nothing_is_named(data_path, sent):
    fails(Exit.FAILED, "no app 'shop' has sent a task yet; there is app", "task", "ls", "-a",
          "shop")
    with pylog.Broker(data_path) as broker:
        broker.delete_topic("app.results")
    fails(Exit.FAILED, "task.send", "task", "ls")
    fails(Exit.USAGE, "--state", "task", "ls", "--state", "lost")
    assert done("task", "--help").exit_code == Exit.FINE
