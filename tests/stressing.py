"""`pylog stress` as a process, and what it reports, for tests."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def stress(*arguments, script=None, timeout=120):
    """Runs the command; the completed process, with the report if it made one."""
    start = ["-c", script] if script else ["-m", "pylog"]
    return subprocess.run([sys.executable, *start, "stress", *map(str, arguments)],
                          capture_output=True, text=True, timeout=timeout, cwd=ROOT)


def report_of(done):
    return json.loads(done.stdout)


def run(directory, *arguments, **keywords):
    """A run that must end well; its report."""
    done = stress(directory, "--json", *arguments, **keywords)
    assert done.returncode == 0, done.stdout + done.stderr
    return report_of(done)


def run_until_found(names, directory, *arguments, seconds, script, tries=5):
    """The report of a run of a faulty `script` that found one of `names`: what a run of seconds
    does not meet on a busy machine a longer one does."""
    for number in range(tries):
        done = stress(directory.with_name(f"{directory.name}-{number}"), "--json", *arguments,
                      "--seconds", seconds * 2 ** number, script=script)
        assert done.returncode in (0, 4), done.stdout + done.stderr
        report = report_of(done)
        if report["anomalies"].keys() & names:
            assert done.returncode == 4, done.stdout + done.stderr
            return report
    raise AssertionError((report["counts"], report["anomalies"]))
