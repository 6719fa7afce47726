"""`pylog stress` that is interrupted or killed: its report, and its children."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import shell

SMALL = ("--segment-bytes", "262144", "--size-max", "20000", "--disk-mb", "16")


def is_gone_soon(group):
    """Whether all of a group of processes is gone: who is dead is so once somebody has waited."""
    deadline = time.monotonic() + 30
    while shell.is_alive_group(group) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not shell.is_alive_group(group)


@pytest.mark.slow
@pytest.mark.parametrize(("arguments", "expected"), [
    ([], b"verdict: inconclusive: it was interrupted"),
    (["--json"], b'"verdict": "inconclusive"'),
    (["--json", "--workload", "append,durable"], b'"verdict": "inconclusive"'),
])
def test_interrupted_run_leaves_its_report_and_nobody_behind(log_path, arguments, expected):
    process = shell.start("stress", log_path, "--seconds", 60, "--nemesis", "pause", *SMALL,
                          *arguments, start_new_session=True)
    while not list(log_path.glob("append/ledgers/producer-*")):
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    try:
        said, _ = process.communicate(timeout=30)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)

    assert process.returncode == 130
    assert expected in said
    if arguments:
        report = json.loads(said)
        for one in report if isinstance(report, list) else [report]:
            assert one["interrupted"]
            assert one["inconclusive_because"] == ["it was interrupted"]
    assert is_gone_soon(process.pid)


@pytest.mark.slow
def test_interrupt_while_the_report_is_made_does_not_lose_it(log_path):
    script = """
import os, signal
from pylog.cli import commands
from pylog.stress import command

def interrupted(function):
    def wrapped(*arguments):
        os.kill(os.getpid(), signal.SIGINT)
        return function(*arguments)
    return wrapped

command.judge, command.text_of = map(interrupted, (command.judge, command.text_of))
signal.signal(signal.SIGINT, signal.default_int_handler)
commands()
"""
    done = subprocess.run(
        [sys.executable, "-c", script, "stress", log_path, "--seconds", "0.1",
         "--workload", "append,durable", *SMALL],
        capture_output=True, text=True, timeout=60, check=False)

    assert done.returncode == 130, done.stderr
    assert done.stdout.startswith("verdict: ok")
    assert json.loads((log_path / "append/report.json").read_text())["verdict"] == "ok"
    assert not (log_path / "durable").exists()


@pytest.mark.slow
def test_killed_run_leaves_nobody_behind(log_path):
    process = shell.start("stress", log_path, "--seconds", 60, *SMALL, start_new_session=True)
    while not list(log_path.glob("append/ledgers/producer-*")):
        time.sleep(0.02)
    process.kill()
    process.wait()

    try:
        assert is_gone_soon(process.pid)
    finally:
        if shell.is_alive_group(process.pid):
            os.killpg(process.pid, signal.SIGKILL)
