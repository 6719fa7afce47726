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
