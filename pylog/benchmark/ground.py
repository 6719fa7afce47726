"""Where the bench works: a directory of its own inside the one it was given, gone afterwards.

Nothing that was there before is opened, changed or removed. After a kill -9 the directory
`pylog-bench-*` stays, and may be removed by hand.
"""

import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pylog.errors import ConfigurationError, DiskFullError
from pylog.names import is_log_file

PREFIX = "pylog-bench-"


def need_directory(directory: Path) -> None:
    """Refuses what is no directory, and the directory of a log."""
    if not directory.is_dir():
        raise ConfigurationError(
            f"{directory} is no directory; make it first, or name another", option="DIR",
            value=str(directory))
    if (directory / "log.meta").exists() or any(
            is_log_file(path.name) for path in directory.iterdir()):
        raise ConfigurationError(
            f"{directory} holds a log; the bench goes into no log's directory: name the one above, "
            f"{directory.resolve().parent}", option="DIR", value=str(directory))


def need_room(directory: Path, needed: int) -> int:
    """Bytes that are free; raises DiskFullError if that is not enough."""
    free = shutil.disk_usage(directory).free
    if free < needed:
        raise DiskFullError(
            f"the bench may need {size_text(needed)} at {directory}, and {size_text(free)} are "
            "free; ask for less with --disk-mb, --records or --only, or name another directory",
            path=str(directory), needed_bytes=needed)
    return free


def size_text(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"


@contextmanager
def ground(directory: Path) -> Iterator[Path]:
    """A new directory in `directory`; removed with all that is in it, also at Ctrl-C, SIGTERM and
    SIGHUP."""
    with ended_by_signals():
        made = Path(tempfile.mkdtemp(prefix=PREFIX, dir=directory))
        try:
            yield made
        finally:
            with undisturbed():
                shutil.rmtree(made)


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """What would end the process without a word is a KeyboardInterrupt within."""
    with handlers({signal.SIGTERM: interrupt, signal.SIGHUP: interrupt}):
        yield


@contextmanager
def undisturbed() -> Iterator[None]:
    """Who presses Ctrl-C twice still has the disk back."""
    ignored = dict.fromkeys((signal.SIGINT, signal.SIGTERM, signal.SIGHUP), signal.SIG_IGN)
    with handlers(ignored):
        yield


@contextmanager
def handlers(wanted: dict[signal.Signals, Any]) -> Iterator[None]:
    """Signal handlers for a while; only the main thread may set some."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number, handler in wanted.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt
