"""`pylog group`: which groups there are, how far behind each is, and moving them."""

import json
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from pylog.cli_options import (
    aligned,
    as_json,
    complete_group,
    data_dir,
    kafkas,
    need_topic,
    open_broker,
    to_place,
)
from pylog.dump import instant
from pylog.errors import GroupIdNotFoundError, NonEmptyGroupError
from pylog.group_admin import GroupAdmin, GroupOffset
from pylog.log import Start
from pylog.topic import TopicPartition

EXAMPLES = """\b
Examples:
  pylog group ls
  pylog group describe billing
  pylog group reset billing --to @-1h
  pylog group reset billing --to earliest --topic orders --execute
  pylog group delete billing
"""
LS_EXAMPLE = "Example: pylog group ls --json | jq -r .group_id"
DESCRIBE_EXAMPLE = "Example: pylog group describe billing"
MEMBERS_EXAMPLE = "Example: pylog group members billing"
RESET_EXAMPLES = """\b
Examples:
  pylog group reset billing --to earliest
  pylog group reset billing --to @-1h --execute
  pylog group reset billing --to 2026-11-23T10:00 --topic orders
  pylog group reset billing --shift-by -10 --topic orders:0,2 --execute
"""
DELETE_EXAMPLE = "Example: pylog group delete billing audit --yes"


@click.group(epilog=EXAMPLES)
def group() -> None:
    """Look at consumer groups, move them, delete them."""


@contextmanager
def administration(data_dir: Path) -> Iterator[GroupAdmin]:
    """With errors that name the next command."""
    with open_broker(data_dir) as broker:
        try:
            yield GroupAdmin(broker)
        except GroupIdNotFoundError as error:
            raise click.ClickException(
                f"{error}; `pylog group ls` shows those that there are, `pylog consume -g` makes "
                "one") from None
        except NonEmptyGroupError as error:
            raise click.ClickException(
                f"{error}; `pylog group members {error.group}` shows who they are") from None


@group.command(epilog=LS_EXAMPLE)
@data_dir
@as_json
def ls(data_dir: Path, as_json: bool) -> None:
    """List the groups, and how far behind each is."""
    with administration(data_dir) as admin:
        found = [{**one, "lag": sum(p.lag for p in
                                    admin.list_group_offsets(one["group_id"]).values())}
                 for one in admin.list_groups()]
    if as_json:
        for one in found:
            click.echo(json.dumps(one))
    elif found:
        click.echo(aligned(("GROUP", "STATE", "MEMBERS", "LAG"), [
            (one["group_id"], one["state"], one["members"], one["lag"]) for one in found]))
    else:
        click.echo("there are no groups; `pylog consume TOPIC -g GROUP` makes one", err=True)


@group.command(epilog=DESCRIBE_EXAMPLE)
@click.argument("name", metavar="GROUP", shell_complete=complete_group)
@data_dir
@as_json
def describe(name: str, data_dir: Path, as_json: bool) -> None:
    """Show where a group is in each partition, and who reads it."""
    with administration(data_dir) as admin:
        about = admin.describe_groups([name])[name]
        offsets = admin.list_group_offsets(name)
    pids = {member["member_id"]: member["pid"] for member in about["members"]}
    if as_json:
        partitions = [to_json(one, place, pids) for one, place in offsets.items()]
        click.echo(json.dumps({**about, "members": [member_json(m) for m in about["members"]],
                               "lag": sum(place.lag for place in offsets.values()),
                               "partitions": partitions}))
        return
    click.echo(f"group {name}: {about['state']}, generation {about['generation']}, "
               f"{about['protocol'] or 'no protocol'}")
    click.echo(aligned(
        ("PARTITION", "COMMITTED", "END", "LAG", "MEMBER", "PID", "COMMITTED AT"), [
            (f"{one.topic}-{one.partition}", place.offset, place.end_offset, place.lag,
             place.member_id or None, pid_text(pids.get(place.member_id)),
             None if place.time_ms is None else instant(place.time_ms))
            for one, place in offsets.items()]))


def to_json(partition: TopicPartition, place: GroupOffset, pids: dict[str, int]) -> dict[str, Any]:
    return {**partition._asdict(), **place._asdict(), "pid": pids.get(place.member_id)}


def member_json(member: dict[str, Any]) -> dict[str, Any]:
    """Partitions as objects with names, as elsewhere."""
    return {**member, **{name: [one._asdict() for one in member[name]]
                         for name in ("assignment", "owned")}}


def pid_text(pid: int | None) -> str | None:
    return None if pid is None else str(pid)


@group.command(epilog=MEMBERS_EXAMPLE)
@click.argument("name", metavar="GROUP", shell_complete=complete_group)
@data_dir
@as_json
def members(name: str, data_dir: Path, as_json: bool) -> None:
    """Show the members of a group, and what they read."""
    with administration(data_dir) as admin:
        found = admin.describe_groups([name])[name]["members"]
    if as_json:
        for one in found:
            click.echo(json.dumps(member_json(one)))
    elif found:
        click.echo(aligned(("MEMBER", "PID", "CLIENT", "INSTANCE", "ALIVE", "READS"), [
            (one["member_id"], pid_text(one["pid"]), one["client_id"], one["group_instance_id"],
             "yes" if one["is_alive"] else "no",
             ", ".join(f"{topic}-{number}" for topic, number in one["owned"]) or None)
            for one in found]))
    else:
        click.echo(f"the group {name} has no members; `pylog consume TOPIC -g {name}` is one",
                   err=True)


def to_choice(ctx: click.Context, param: click.Parameter, value: tuple[str, ...],
              ) -> list[tuple[str, list[int]]]:
    """The callback of --topic: names, each with the partitions behind a colon, or with all."""
    found = []
    for text in value:
        name, colon, numbers = text.partition(":")
        if colon and not re.fullmatch(r"[0-9]{1,9}(,[0-9]{1,9})*", numbers):
            raise click.BadParameter(f"{text!r} is neither TOPIC nor TOPIC:0,1", ctx, param)
        found.append((name, [int(one) for one in numbers.split(",")] if colon else []))
    return found


@group.command(epilog=RESET_EXAMPLES)
@click.argument("name", metavar="GROUP", shell_complete=complete_group)
@data_dir
@click.option("--to", "place", metavar="PLACE", callback=to_place,
              help="earliest, latest, an offset, -N (N before the end), @-15m (that long ago: s, "
              "m, h, d) or 2026-11-23T10:00.")
@kafkas("--to-earliest", "--to earliest")
@kafkas("--to-latest", "--to latest")
@kafkas("--to-offset", "--to N")
@kafkas("--to-datetime", "--to 2026-11-23T10:00")
@kafkas("--by-duration", "--to @-1h")
@click.option("--shift-by", metavar="N", type=int, help="Instead: N records on; back if negative.")
@click.option("--topic", "topics", metavar="TOPIC[:N,...]", multiple=True, callback=to_choice,
              help="Only this one, or these partitions of it.  [default: all that it has read]")
@click.option("--execute", is_flag=True, help="Do it, and not only say what it would do.")
@as_json
def reset(
    name: str, data_dir: Path, place: Start | None, shift_by: int | None,
    topics: list[tuple[str, list[int]]], execute: bool, as_json: bool,
) -> None:
    """Move a group to another place. Without --execute it only says what would change.

    Its members must be stopped. A place outside of a partition becomes its nearest end.
    """
    if (place is None) == (shift_by is None):
        raise click.UsageError("say where to: --to PLACE or --shift-by N")
    with administration(data_dir) as admin:
        chosen = None
        if topics:
            chosen = [TopicPartition(topic, number) for topic, numbers in topics for number in
                      numbers or range(need_topic(admin._broker, topic).partitions)]
        moves = admin.reset_group_offsets(name, place, shift_by=shift_by, partitions=chosen,
                                          dry_run=not execute)
    if as_json:
        for one, move in moves.items():
            click.echo(json.dumps({**one._asdict(), **move._asdict(), "done": execute}))
    elif moves:
        click.echo(aligned(("PARTITION", "BEFORE", "AFTER", "CHANGE"), [
            (f"{one.topic}-{one.partition}", move.before, move.after,
             None if move.before is None else f"{move.after - move.before:+,}")
            for one, move in moves.items()]))
    if not moves:
        click.echo(f"the group {name} has read nothing; name what it is to read with --topic",
                   err=True)
    elif not execute:
        click.echo("nothing was changed: add --execute to do this", err=True)


@group.command(epilog=DELETE_EXAMPLE)
@click.argument("names", metavar="GROUP...", nargs=-1, required=True,
                shell_complete=complete_group)
@data_dir
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
def delete(names: tuple[str, ...], data_dir: Path, yes: bool) -> None:
    """Delete groups and what they have committed. Asks first, on a terminal."""
    with administration(data_dir) as admin:
        admin.describe_groups(names)    # all are there
        if not yes:
            if not sys.stdin.isatty():
                raise click.UsageError("there is nobody to ask: add --yes to delete "
                                       f"{', '.join(names)}")
            click.confirm(f"Delete {', '.join(names)} and all that was committed?", abort=True,
                          err=True)
        admin.delete_groups(names)
    click.echo(f"deleted {', '.join(names)}", err=True)
