"""`pylog` and `python -m pylog`: the command line, or how to install what it needs."""

import os
import signal
import sys

from pylog.exits import Exit


def main() -> None:
    """Runs the command line and exits with a code of pylog/exits.py."""
    # As other filters do: who stops listening (`pylog read orders | head`) ends us without a word.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        from pylog.cli import commands

        commands()
    except ModuleNotFoundError as error:
        if error.name != "click":
            raise
        print("the command line needs click: pip install 'pylog-engine[cli]'", file=sys.stderr)
        sys.exit(Exit.FAILED)
    except KeyboardInterrupt:
        sys.exit(Exit.INTERRUPTED)
    except SystemExit as leaving:
        leave(leaving.code)


def leave(code: int | str | None) -> None:
    """Exits, and fails if stdout cannot take what it still holds; left alone Python would exit
    with 120 and an "Exception ignored"."""
    try:
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not code:
            print(f"Error: stdout: {error.strerror}", file=sys.stderr)
            code = Exit.FAILED
    sys.exit(code)


if __name__ == "__main__":
    main()
