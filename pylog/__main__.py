"""`pylog` and `python -m pylog`: the command line, or how to install what it needs."""

import io
import os
import signal
import sys

from pylog.exits import Exit


def main() -> None:
    """Runs the command line and exits with a code of pylog/exits.py."""
    # As other filters do: who stops listening (`pylog read orders | head`) ends us without a word.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    stand_in_for_closed_streams()
    try:
        from pylog.cli import commands

        commands()
    except ModuleNotFoundError as error:
        if error.name not in ("click", "rich"):
            raise
        print(f"the command line needs {error.name}: pip install {error.name}, or pip install "
              "'pylog-engine[cli]' for both", file=sys.stderr)
        sys.exit(Exit.FAILED)
    except OSError as error:    # of click itself: it could not write the help
        print(f"Error: stdout: {error.strerror}", file=sys.stderr)
        leave(Exit.FAILED)
    except KeyboardInterrupt:
        sys.exit(Exit.INTERRUPTED)
    except SystemExit as leaving:
        leave(leaving.code)


def stand_in_for_closed_streams() -> None:
    """A stream that the shell closed (`>&-`) is None in Python, and its number free for the next
    file that is opened. Here it is one that fails when it is used; a closed stderr swallows all."""
    if sys.stdin is None:
        sys.stdin = os.fdopen(os.open(os.devnull, os.O_WRONLY))
    if sys.stdout is None:
        sys.stdout = os.fdopen(os.open(os.devnull, os.O_RDONLY), "w")
    if sys.stderr is None:
        sys.stderr = os.fdopen(
            os.open(os.devnull, os.O_WRONLY), "w", errors="backslashreplace")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="surrogateescape")    # a path need not be UTF-8


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
