"""`pylog outbox`: the rows of a database that are to be records, and the relay that sends them."""

import json
import logging
import os
import signal
import sqlite3
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from functools import wraps
from pathlib import Path
from typing import Any

import click

from pylog.broker import Broker
from pylog.cli_options import aligned, as_json, data_dir, is_broker, load, need_broker
from pylog.patterns import Outbox

EXAMPLES = """\b
Examples:
  pylog outbox relay app.db
  pylog outbox status app.db
  pylog outbox ls app.db
  pylog outbox retry shop.database:outbox
"""
RELAY_EXAMPLES = """\b
Examples:
  pylog outbox relay app.db -d /var/lib/shop
  pylog outbox relay shop.database:outbox
  pylog outbox relay app.db --once
"""
STATUS_EXAMPLE = "Example: pylog outbox status app.db --json | jq .waiting"
LS_EXAMPLE = "Example: pylog outbox ls app.db --json | jq -r .error"
RETRY_EXAMPLE = "Example: pylog outbox retry app.db"


def of_database(command: Callable[..., Any]) -> Callable[..., Any]:
    """An argument and options that name an outbox."""
    @click.argument("database", metavar="DATABASE")
    @click.option("--table", default="outbox", show_default=True, metavar="NAME",
                  help="Of the rows, in a file.")
    @click.option("--name", metavar="NAME", help="That the program has given its Outbox, if any.")
    @wraps(command)
    def run(database: str, table: str, name: str | None, **options: Any) -> None:
        if Path(database).is_file():
            outbox = Outbox(database, table, name=name)
        elif ":" in database and not os.path.dirname(database):
            outbox = load(database, Outbox, "outbox = pylog.patterns.Outbox(connect)")
        else:
            raise click.ClickException(f"there is no file {database}: name an SQLite database, or "
                                       "MODULE:OUTBOX")
        try:
            command(outbox, **options)
        except sqlite3.Error as error:
            raise click.ClickException(f"{database}: {error}") from None
    return run


@click.group(epilog=EXAMPLES)
def outbox() -> None:
    """Send rows of an outbox, see how many wait.

    DATABASE is the file of an SQLite database, or MODULE:OUTBOX, an Outbox (or a function that
    makes one) in a module that is found from the current directory.
    """


@outbox.command(epilog=RELAY_EXAMPLES)
@of_database
@data_dir
@click.option("--poll", type=click.FloatRange(min=0, min_open=True), default=0.05,
              show_default=True, metavar="SECONDS", help="Between two looks at an idle table.")
@click.option("--once", is_flag=True, help="Send what is there, and end.")
def relay(found: Outbox, data_dir: Path, poll: float, once: bool) -> None:
    """Make records of rows, until Ctrl-C or SIGTERM.

    Of any number of relays one works, and another takes over at once when it dies. What fails is
    told and tried again; a row that can never be sent is parked, see `pylog outbox ls`.
    """
    need_broker(data_dir)    # a mistyped directory would take rows that are deleted behind it
    found.pending()          # says what is wrong with the database
    with Broker(data_dir) as broker:
        work = found.relay(broker, poll)
        if once:
            parked = len(found.parked())
            count = work.run_once()
            parked = len(found.parked()) - parked
            click.echo(f"sent {count - parked:,} rows" + (
                f", parked {parked:,}: `pylog outbox ls` says why" if parked else ""), err=True)
            return
        logging.basicConfig(format="%(asctime)s %(process)d %(levelname)s %(message)s")
        logging.getLogger("pylog").setLevel(logging.NOTSET)
        stopping = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda number, frame: stopping.set())
        with work:
            stopping.wait()


@outbox.command(epilog=STATUS_EXAMPLE)
@of_database
@data_dir
@as_json
def status(found: Outbox, data_dir: Path, as_json: bool) -> None:
    """Show how many rows wait, since when, and who sends them."""
    pid = None
    if is_broker(data_dir):
        with Broker(data_dir) as broker:
            pid = broker.claim(found.name).holder()
    oldest = found.oldest()
    row = {"table": found.table, "waiting": found.pending(), "parked": len(found.parked()),
           "oldest_seconds": oldest and max(0, int((datetime.now(UTC) - oldest).total_seconds())),
           "relay_pid": pid}
    if as_json:
        click.echo(json.dumps(row))
    else:
        click.echo(aligned([name.replace("_", " ").upper() for name in row],
                           [[None if one is None else str(one) for one in row.values()]]))


@outbox.command(epilog=LS_EXAMPLE)
@of_database
@as_json
def ls(found: Outbox, as_json: bool) -> None:
    """List the rows that are parked, and why."""
    parked = found.parked()
    if as_json:
        for row in parked:
            click.echo(json.dumps(row._asdict()))
    elif parked:
        click.echo(aligned(("ID", "TOPIC", "ERROR"), parked))
    else:
        click.echo("no row is parked", err=True)


@outbox.command(epilog=RETRY_EXAMPLE)
@of_database
@click.argument("row_id", metavar="[ID]", required=False)
def retry(found: Outbox, row_id: str | None) -> None:
    """Have a parked row sent again, or all of them.

    Rows of the same key that came later may have been sent before it.
    """
    count = found.retry(row_id)
    if row_id is not None and not count:
        raise click.ClickException(f"no row {row_id!r} is parked; `pylog outbox ls` shows those "
                                   "that are")
    click.echo(f"{count:,} rows are to be sent again", err=True)
