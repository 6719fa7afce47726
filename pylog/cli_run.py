"""`pylog run`: worker processes for an app, kept alive."""

import logging
import os
import signal
import sys
import threading

import click

from pylog.cli_options import load
from pylog.patterns import App
from pylog.supervisor import Supervisor

EXAMPLES = """\b
Examples:
  pylog run shop.tasks:app
  pylog run tasks:app --workers 4 --concurrency 8
  pylog run tasks:app --reload
  pylog run tasks:app -q video --workers 2
"""


@click.command(epilog=EXAMPLES)
@click.argument("target", metavar="MODULE:APP")
@click.option("-w", "--workers", type=click.IntRange(min=1), default=1, show_default=True,
              help="Processes.")
@click.option("-c", "--concurrency", type=click.IntRange(min=1), default=1, show_default=True,
              help="Tasks of a queue that each of them has at work at a time.")
@click.option("-q", "--queue", "queues", metavar="NAME", multiple=True,
              help="Only the tasks of this queue; may be repeated.  [default: of all]")
@click.option("--reload", is_flag=True, help="Begin anew when a .py file below this directory "
              "changes. Needs watchfiles: pip install 'pylog-engine[reload]'.")
@click.option("--grace", type=click.FloatRange(min=0), default=60.0, show_default=True,
              metavar="SECONDS", help="That a worker has to finish what it is at when it is to "
              "stop; then it is killed, and another does it.")
@click.option("--as-worker", is_flag=True, hidden=True)
def run(target: str, workers: int, concurrency: int, queues: tuple[str, ...], reload: bool,
        grace: float, as_worker: bool) -> None:
    """Run the tasks and consumers of an App, in worker processes.

    MODULE is imported with the current directory in the path. A worker that dies is begun anew,
    and what it had is another's at once. The first Ctrl-C or SIGTERM lets the workers finish what
    they are at, the second ends them.
    """
    if as_worker:
        work(target, concurrency, queues)
        return
    command = [sys.executable, "-m", "pylog", "run", target, "--as-worker", "-c", str(concurrency),
               *(word for name in queues for word in ("-q", name))]
    supervisor = Supervisor(command, workers, grace, lambda line: click.echo(line, err=True))
    if reload:
        watch(supervisor)
    raise click.exceptions.Exit(supervisor.run(waits_for_changes=reload))


def watch(supervisor: Supervisor) -> None:
    """Tells it of changes, in a thread."""
    try:
        from watchfiles import PythonFilter
        from watchfiles import watch as changes
    except ModuleNotFoundError:
        raise click.ClickException(
            "--reload needs watchfiles: pip install 'pylog-engine[reload]'") from None

    def tell() -> None:
        for _ in changes(os.getcwd(), watch_filter=PythonFilter(), raise_interrupt=False):
            supervisor.reload()

    threading.Thread(target=tell, daemon=True, name="pylog-reload").start()


def work(target: str, concurrency: int, queues: tuple[str, ...]) -> None:
    """In this process, until it is told to stop or has no supervisor any more."""
    app = load(target, App, "app = pylog.patterns.App('data')")
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)    # tasks have sockets of their own
    logging.basicConfig(format="%(asctime)s %(process)d %(levelname)s %(message)s")
    logging.getLogger("pylog").setLevel(logging.NOTSET)

    def watch_supervisor() -> None:
        os.read(0, 1)
        app.quit()

    threading.Thread(target=watch_supervisor, daemon=True, name="pylog-supervisor").start()
    with app:
        app.run(concurrency, queues or None)
