"""`pylog projection`: how views stand, and how one is made anew."""

import json
from pathlib import Path
from typing import Any

import click

from pylog.admin import Admin
from pylog.broker import Broker
from pylog.cli_options import aligned, as_json, data_dir, load, open_broker, progress
from pylog.patterns.projection import GROUP_PREFIX, Projection
from pylog.topic import closest

EXAMPLES = """\b
Examples:
  pylog projection ls
  pylog projection status orders_by_user
  pylog projection rebuild shop.views:orders
"""
LS_EXAMPLE = "Example: pylog projection ls --json | jq .lag"
STATUS_EXAMPLE = "Example: pylog projection status orders_by_user"
REBUILD_EXAMPLE = "Example: pylog projection rebuild shop.views:orders"


@click.group(epilog=EXAMPLES)
def projection() -> None:
    """See how far views are, make one anew.

    They are run by programs that have their functions (`Projection.run`).
    """


def names(broker: Broker) -> list[str]:
    """The projections that there are, by their groups."""
    return [one["group_id"].removeprefix(GROUP_PREFIX) for one in Admin(broker).list_groups()
            if one["group_id"].startswith(GROUP_PREFIX)]


def partitions(broker: Broker, name: str) -> list[dict[str, Any]]:
    """How far it is in each; none: it was never run."""
    return [{"topic": place.topic, "partition": place.partition, "next_offset": one.offset,
             "end_offset": one.end_offset, "lag": one.lag}
            for place, one in Admin(broker).list_group_offsets(GROUP_PREFIX + name).items()]


def complete_name(ctx: click.Context, param: click.Parameter, start: str) -> list[str]:
    """For the shell's Tab, which must hear of no error."""
    try:
        with open_broker(Path(ctx.params.get("data_dir") or "data")) as broker:
            return [name for name in names(broker) if name.startswith(start)]
    except Exception:
        return []


@projection.command(epilog=LS_EXAMPLE)
@data_dir
@as_json
def ls(data_dir: Path, as_json: bool) -> None:
    """List the projections: who runs each, and its lag."""
    with open_broker(data_dir) as broker:
        rows = []
        for name in names(broker):
            places = partitions(broker, name)
            rows.append({"projection": name, "topic": places[0]["topic"] if places else None,
                         "pid": broker.claim(GROUP_PREFIX + name).holder(),
                         "lag": sum(one["lag"] for one in places) if places else None})
    show(rows, as_json, "there are no projections: a program that makes one tells of it here")


@projection.command(epilog=STATUS_EXAMPLE)
@click.argument("name", metavar="PROJECTION", shell_complete=complete_name)
@data_dir
@as_json
def status(name: str, data_dir: Path, as_json: bool) -> None:
    """Show how far a view is in each partition."""
    with open_broker(data_dir) as broker:
        if name not in (known := names(broker)):
            raise click.ClickException(f"there is no projection {name!r}{closest(name, known)}; "
                                       "`pylog projection ls` shows those that there are")
        show(partitions(broker, name), as_json, f"{name} has not been run yet")


def show(rows: list[dict[str, Any]], as_json: bool, nothing: str) -> None:
    if as_json:
        for row in rows:
            click.echo(json.dumps(row))
    elif rows:
        click.echo(aligned([key.replace("_", " ").upper() for key in rows[0]],
                           [[str(cell) if key == "pid" and cell else cell
                             for key, cell in row.items()] for row in rows]))
    else:
        click.echo(nothing, err=True)


@projection.command(epilog=REBUILD_EXAMPLE)
@click.argument("target", metavar="MODULE:PROJECTION")
def rebuild(target: str) -> None:
    """Empty a view, and fill it from the first record on.

    MODULE is imported with the current directory in the path; PROJECTION is a Projection in it, or
    a function that makes one. Others read the old view until all is done, Ctrl-C leaves it as it
    was, and who runs the projection goes on in the new one.
    """
    found = load(target, Projection, "orders = pylog.patterns.Projection(broker, 'orders', ...)")
    with progress("records") as on_progress:
        count = found.rebuild(on_progress)
    click.echo(f"{found.name} was made anew of {count:,} records", err=True)
