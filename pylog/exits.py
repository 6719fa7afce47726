"""The exit codes of every pylog program: the `pylog` command, the benches, the stress runs.

    0    fine
    1    failed: an error was printed, and what to do about it
    2    usage: the command line was not understood
    3    inconclusive: it ran, and could not tell
    4    damage or an anomaly was found in a log
    130  interrupted with Ctrl-C, as shells have it (128 + SIGINT)

Whoever stops reading (`pylog read orders | head`) ends a command by SIGPIPE: shells call that 141.
"""

from enum import IntEnum


class Exit(IntEnum):
    """The table above, by name: `sys.exit(Exit.DAMAGE)`."""

    FINE = 0
    FAILED = 1
    USAGE = 2
    INCONCLUSIVE = 3
    DAMAGE = 4
    INTERRUPTED = 130
