"""The `pylog` command for tests: in this process where that will do, or in one of its own."""

import os
import re
import signal
import subprocess
import sys

from click.testing import CliRunner

import pylog
from pylog.cli import commands
from pylog.exits import Exit

COMMAND = [sys.executable, "-m", "pylog"]
READERS = ["read", "stat", "check", "dump"]


def run(*arguments, given=b""):
    """The outcome of `pylog arguments`, with `given` on stdin."""
    return CliRunner().invoke(commands, [str(one) for one in arguments], input=given)


def done(*arguments, given=b""):
    """The outcome of a command that went well."""
    result = run(*arguments, given=given)
    assert result.exit_code == Exit.FINE, result.output
    return result


def lines(*arguments, given=b""):
    """The lines on stdout of a command that went well."""
    return done(*arguments, given=given).stdout_bytes.splitlines()


def fails(code, words, *arguments, given=b""):
    """The outcome of a command that ends with this code and a line with these words in it, after
    one at the most that says what is in."""
    result = run(*arguments, given=given)
    assert (result.exit_code, result.stdout) == (code, ""), result.output
    assert re.search(words, result.stderr), result.stderr
    assert code == Exit.USAGE or re.fullmatch("(imported .*\n)?Error: .*\n", result.stderr)
    return result


def values(path):
    with pylog.Log(path, mode="r") as log:
        return [record.value for record in log.read()]


def start(*arguments, **pipes):
    """`pylog arguments` as a process of its own, with pipes to all its ends."""
    ends = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **pipes}
    return subprocess.Popen([*COMMAND, *map(str, arguments)], preexec_fn=hear_interrupts, **ends)


def hear_interrupts():
    """A job in the background of a script, as these tests may be, is born deaf to SIGINT."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def is_alive_group(number):
    """Whether a process of the group is left; a dead one that nobody waited for counts, too."""
    try:
        os.killpg(number, 0)
    except ProcessLookupError:
        return False
    return True
