"""`pylog saga`: sagas listed, looked at, and tried again."""

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from pylog.broker import Broker
from pylog.cli_options import aligned, as_json, data_dir, need_topic, open_broker, printable
from pylog.dump import instant
from pylog.patterns.saga import Saga
from pylog.patterns.saga_entry import STATUSES
from pylog.patterns.saga_journal import Moment, SagaEntry

EXAMPLES = """\b
Examples:
  pylog saga ls
  pylog saga ls checkout --status parked
  pylog saga show checkout order-42
  pylog saga retry checkout order-42
"""
LS_EXAMPLE = "Example: pylog saga ls checkout --status parked --json | jq -r .id"
SHOW_EXAMPLE = "Example: pylog saga show checkout order-42"
RETRY_EXAMPLE = "Example: pylog saga retry checkout order-42 order-43"
PREFIX = "saga."
WEEK_MS = 604_800_000    # retention where nobody has said it


def complete_name(ctx: click.Context, param: click.Parameter, start: str) -> list[str]:
    """For the shell's Tab, which must hear of no error."""
    try:
        with open_broker(Path(ctx.params.get("data_dir") or "data")) as broker:
            return [name for name in names(broker) if name.startswith(start)]
    except Exception:
        return []


name_argument = click.argument("name", metavar="SAGA", shell_complete=complete_name)


def names(broker: Broker) -> list[str]:
    """The sagas that there are, by their journals."""
    return sorted(topic.removeprefix(PREFIX) for topic in broker.topics()
                  if topic.startswith(PREFIX))


@contextmanager
def opened(broker: Broker, name: str) -> Iterator[Saga]:
    """A saga without its steps, whose journal is there, and keeps its retention."""
    kept = int(need_topic(broker, PREFIX + name).configs.get("retention.ms", WEEK_MS))
    with Saga(broker, name, ttl=None if kept < 0 else kept / 1000) as saga:
        yield saga


@click.group(epilog=EXAMPLES)
def saga() -> None:
    """List sagas, see what became of one, let a parked one go on.

    SAGA is the name that the code gave it; its journal is the topic saga.SAGA. They are executed by
    programs that have their steps (`Saga.work`).
    """


@saga.command(epilog=LS_EXAMPLE)
@click.argument("name", metavar="[SAGA]", required=False, shell_complete=complete_name)
@data_dir
@click.option("--status", type=click.Choice(STATUSES), help="Only these.")
@as_json
def ls(name: str | None, data_dir: Path, status: str | None, as_json: bool) -> None:
    """List the sagas of a name, or how many of each name there are."""
    with open_broker(data_dir) as broker:
        if name is None and status is None:
            list_names(broker, as_json)
            return
        found = []
        for each in names(broker) if name is None else [name]:
            with opened(broker, each) as saga:
                found += [(each, one) for one in saga.list(status)]
    if as_json:
        for each, one in found:
            click.echo(json.dumps(fields(each, one)))
    elif found:
        click.echo(aligned(("SAGA", "ID", "STATUS", "STEP", "PID", "CHANGED", "ERROR"), [
            (each, one.id, one.status, one.step, one.pid and str(one.pid), at(one.changed),
             one.error) for each, one in found]))
    else:
        click.echo("there are no such sagas", err=True)


def list_names(broker: Broker, as_json: bool) -> None:
    """Each name, and how its sagas stand."""
    rows = []
    for name in names(broker):
        with opened(broker, name) as saga:
            counts = Counter(one.status for one in saga.list())
        rows.append({"saga": name, **{status: counts[status] for status in STATUSES}})
    if as_json:
        for row in rows:
            click.echo(json.dumps(row))
    elif rows:
        click.echo(aligned([key.upper() for key in rows[0]], [[*row.values()] for row in rows]))
    else:
        click.echo("there are no sagas: a program that makes a Saga makes its journal", err=True)


def fields(name: str, one: SagaEntry) -> dict[str, Any]:
    return {"saga": name, **one._asdict(), "started": one.started.isoformat(),
            "changed": one.changed.isoformat()}


def at(moment: Any) -> str:
    return instant(int(moment.timestamp() * 1000))


@saga.command(epilog=SHOW_EXAMPLE)
@name_argument
@click.argument("saga_id", metavar="ID")
@data_dir
@as_json
def show(name: str, saga_id: str, data_dir: Path, as_json: bool) -> None:
    """Show the history of a saga: a line for each record of its journal."""
    with open_broker(data_dir) as broker, opened(broker, name) as saga:
        for one in saga.show(saga_id):
            click.echo(json_of(one) if as_json else line_of(one))


def json_of(one: Moment) -> str:
    value = None if one.value is None else one.value.decode("utf-8", "replace")
    return json.dumps({**one._asdict(), "time": one.time.isoformat(), "value": value})


def line_of(one: Moment) -> str:
    attempt = None if one.attempt is None else f"attempt {one.attempt}"
    value = None if one.value is None else one.value.decode("utf-8", "backslashreplace")
    words = (at(one.time), one.event.ljust(16), one.step, attempt, one.error, value)
    return "  ".join(printable(word) for word in words if word is not None).rstrip()


@saga.command(epilog=RETRY_EXAMPLE)
@name_argument
@click.argument("ids", metavar="ID...", nargs=-1, required=True)
@data_dir
def retry(name: str, ids: tuple[str, ...], data_dir: Path) -> None:
    """Let parked sagas go on where they were.

    To be called once what their compensation failed on is mended. A program that works for them
    does it, at once if one runs.
    """
    with open_broker(data_dir) as broker, opened(broker, name) as saga:
        for saga_id in ids:
            saga.retry(saga_id)
            click.echo(f"{saga_id} is compensated further by whoever works", err=True)
