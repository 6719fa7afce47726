"""Processes that work at once: started, let go together, waited for; killed if one of them fails.

Each is a new interpreter (spawn), as a user's programs are. Ctrl-C is for the one who started
them.
"""

import contextlib
import gc
import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import connection, resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import Any, cast

from pylog.errors import PylogError

# Called in its process with `meet`, which returns when all have called it, and its arguments.
Job = Callable[..., Any]
Meet = Callable[[], None]

SPAWN = multiprocessing.get_context("spawn")
MEET, DONE, FAILED = "meet", "done", "failed"


def run_together(jobs: Sequence[tuple[Job, tuple[Any, ...]]]) -> list[Any]:
    """What each job(meet, *arguments) returned, in their order. Raises what one of them raised."""
    crew: list[tuple[SpawnProcess, Connection]] = []
    try:
        with deaf_to_interrupts():
            for job, arguments in jobs:
                crew.append(start(job, arguments))
        outcomes = wait_for_all([link for _, link in crew])
    except BaseException:
        for process, _ in crew:
            process.kill()
        raise
    finally:
        for process, link in crew:
            link.close()
            process.join()
    return outcomes


@contextmanager
def deaf_to_interrupts() -> Iterator[None]:
    """Processes started within never see Ctrl-C; it comes to this one a moment later."""
    resource_tracker.ensure_running()    # starting it would unblock the signal
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def start(job: Job, arguments: tuple[Any, ...]) -> tuple[SpawnProcess, Connection]:
    here, there = SPAWN.Pipe()
    process = SPAWN.Process(target=work, args=(there, job, arguments), daemon=True)
    process.start()
    there.close()
    return process, here


def wait_for_all(links: list[Connection]) -> list[Any]:
    """Every job meets as often as every other, or not at all."""
    outcomes: dict[Connection, Any] = {}
    meeting: list[Connection] = []
    while len(outcomes) < len(links):
        pending = [link for link in links if link not in outcomes]    # who waits here may die, too
        for link in cast(list[Connection], connection.wait(pending)):
            word, what = receive(link)
            if word == FAILED:
                raise what
            if word == MEET:
                meeting.append(link)
            else:
                outcomes[link] = what
        if len(meeting) == len(links):
            for link in meeting:
                link.send(None)
            meeting.clear()
    return [outcomes[link] for link in links]


def receive(link: Connection) -> tuple[str, Any]:
    try:
        word, what = link.recv()
    except (EOFError, ConnectionResetError):
        raise PylogError(
            "a process of the bench died; see `dmesg` for why, and run it again") from None
    return word, what


def work(link: Connection, job: Job, arguments: tuple[Any, ...]) -> None:
    """What runs in the process."""

    def meet() -> None:
        link.send((MEET, None))
        link.recv()

    gc.disable()    # a collection would be taken for a slow call
    with contextlib.suppress(EOFError, BrokenPipeError):    # nobody waits for it any more
        try:
            message = (DONE, job(meet, *arguments))
        except Exception as error:
            message = (FAILED, error)
        link.send(message)
