"""`pylog share`: groups that take records one by one, as a queue's workers do, and servers of
requests: how much each has to do, and has in hand."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import click

from pylog.cli_options import aligned, as_json, data_dir, open_broker
from pylog.errors import GroupIdNotFoundError
from pylog.share import share_groups
from pylog.share_admin import ShareAdmin

EXAMPLES = """\b
Examples:
  pylog share ls
  pylog share describe rpc.prices
  pylog share delete rpc.prices
"""
LS_EXAMPLE = "Example: pylog share ls --json | jq 'select(.lag > 1000)'"
DESCRIBE_EXAMPLE = "Example: pylog share describe rpc.prices"
DELETE_EXAMPLE = "Example: pylog share delete rpc.prices --yes"


@click.group(epilog=EXAMPLES)
def share() -> None:
    """Look at share groups: queues' workers, servers; delete them."""


@contextmanager
def administration(data_dir: Path) -> Iterator[ShareAdmin]:
    """With an error that names the next command."""
    with open_broker(data_dir) as broker:
        try:
            yield ShareAdmin(broker)
        except GroupIdNotFoundError as error:
            raise click.ClickException(
                f"{error}; `pylog share ls` shows those that there are, `pylog group ls` those "
                "that share partitions") from None


def complete_share(ctx: click.Context, param: click.Parameter, start: str) -> list[str]:
    """For the shell."""
    with suppress(Exception):
        known = share_groups(Path(ctx.params.get("data_dir") or "data"))
        return [name for name in sorted(known) if name.startswith(start)]
    return []


@share.command(epilog=LS_EXAMPLE)
@data_dir
@as_json
def ls(data_dir: Path, as_json: bool) -> None:
    """List the share groups: what each has to do, and has in hand."""
    with administration(data_dir) as admin:
        found = admin.list_share_groups()
    if as_json:
        for one in found:
            click.echo(json.dumps(one))
    elif found:
        click.echo(aligned(("SHARE GROUP", "LAG", "IN FLIGHT", "TOPICS"), [
            (one["group_id"], one["lag"], one["in_flight"], ", ".join(one["topics"]))
            for one in found]))
    else:
        click.echo("there are no share groups; `pylog queue get QUEUE` makes one", err=True)


@share.command(epilog=DESCRIBE_EXAMPLE)
@click.argument("name", metavar="GROUP", shell_complete=complete_share)
@data_dir
@as_json
def describe(name: str, data_dir: Path, as_json: bool) -> None:
    """Show how a share group stands in each partition."""
    with administration(data_dir) as admin:
        found = admin.list_share_group_offsets(name)
    if as_json:
        for one, place in found.items():
            click.echo(json.dumps({**one._asdict(), **place._asdict()}))
        return
    click.echo(aligned(
        ("PARTITION", "START", "END", "LAG", "READY", "IN FLIGHT", "DELAYED", "DONE", "REJECTED",
         "REDELIVERED"),
        [(f"{one.topic}-{one.partition}", *place) for one, place in found.items()]))


@share.command(epilog=DELETE_EXAMPLE)
@click.argument("names", metavar="GROUP...", nargs=-1, required=True,
                shell_complete=complete_share)
@data_dir
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
def delete(names: tuple[str, ...], data_dir: Path, yes: bool) -> None:
    """Delete share groups; who comes next begins anew. Asks first, on a terminal."""
    with administration(data_dir) as admin:
        for name in names:
            admin.list_share_group_offsets(name)    # all are there
        if not yes:
            if not sys.stdin.isatty():
                raise click.UsageError("there is nobody to ask: add --yes to delete "
                                       f"{', '.join(names)}")
            click.confirm(f"Delete {', '.join(names)} and what was done?", abort=True, err=True)
        admin.delete_share_groups(names)
    click.echo(f"deleted {', '.join(names)}", err=True)
