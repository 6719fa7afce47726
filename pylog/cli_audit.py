"""`pylog audit`: entries recorded and looked at by hand, and the chain verified."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from pylog.cli_options import (
    Damage,
    aligned,
    as_json,
    complete_topic,
    data_dir,
    need_topic,
    open_broker,
    progress,
    to_moment,
)
from pylog.dump import instant
from pylog.patterns.audit import Audit
from pylog.patterns.audit_entry import AuditEntry, json_of

EXAMPLES = """\b
Examples:
  pylog audit record audit --actor ann --action user.deleted --target user-7
  pylog audit log audit --action 'user.*' --since @-1d
  pylog audit head audit >> elsewhere
  pylog audit verify audit --head "$(tail -1 elsewhere)"
  pylog audit export audit --form csv > audit.csv
"""
RECORD_EXAMPLE = """\b
Example:
  pylog audit record audit --actor ann --action user.renamed --target user-7 \\
    --before '"Bob"' --after '"Rob"' --reason 'asked for it'
"""
LOG_EXAMPLE = "Example: pylog audit log audit --actor ann --json | jq .after"
VERIFY_EXAMPLE = "Example: pylog audit verify audit --head 41:6f1e..."
HEAD_EXAMPLE = "Example: pylog audit head audit | mail -s 'audit trail' notary@example.org"
EXPORT_EXAMPLE = "Example: pylog audit export audit --form csv --since 2026-01-01 > audit.csv"

name_argument = click.argument("name", metavar="TOPIC", shell_complete=complete_topic)


@click.group(epilog=EXAMPLES)
def audit() -> None:
    """Record who did what, and prove that nobody changed it since."""


@contextmanager
def opened(data_dir: Path, name: str) -> Iterator[Audit]:
    """A trail that there is."""
    with open_broker(data_dir) as broker:
        need_topic(broker, name)
        yield Audit(broker, name)


def to_json(ctx: click.Context, param: click.Parameter, value: str | None) -> Any:
    """The callback of options that are JSON."""
    try:
        return None if value is None else json.loads(value)
    except ValueError as error:
        raise click.BadParameter(f"{value!r} is no JSON: {error}; text is '\"text\"'", ctx,
                                 param) from None


def choosing(command: Any) -> Any:
    """The options that say which entries."""
    for option in reversed((
        click.option("--actor", metavar="NAME", help="Only what this one did."),
        click.option("--action", metavar="PATTERN", default="**", help="Only these actions, with "
                     "* for one word and ** for one or more."),
        click.option("--target", metavar="NAME", help="Only what was done to this."),
        click.option("--since", metavar="TIME", callback=to_moment, help="-15m (s, m, h, d: that "
                     "long ago) or 2026-11-23T10:00."),
        click.option("--until", metavar="TIME", callback=to_moment, help="As --since."),
    )):
        command = option(command)
    return command


@audit.command(epilog=RECORD_EXAMPLE)
@name_argument
@data_dir
@click.option("--actor", metavar="NAME", required=True, help="Who did it.")
@click.option("--action", metavar="TYPE", required=True, help="What: words with dots between.")
@click.option("--target", metavar="NAME", help="To what.")
@click.option("--before", metavar="JSON", callback=to_json, help="What was before.")
@click.option("--after", metavar="JSON", callback=to_json, help="What was afterwards.")
@click.option("--reason", metavar="TEXT", help="Why.")
def record(name: str, data_dir: Path, **said: Any) -> None:
    """Record one entry; writes its head. A trail that is not there is made."""
    with open_broker(data_dir, make=True) as broker:
        entry = Audit(broker, name).record(**said)
    click.echo(f"{entry.offset}:{entry.hash}")


@audit.command(epilog=LOG_EXAMPLE)
@name_argument
@data_dir
@choosing
@as_json
def log(name: str, data_dir: Path, as_json: bool, since: datetime | None, **wanted: Any) -> None:
    """Write entries to stdout, the oldest first."""
    with opened(data_dir, name) as trail:
        found = list(trail.query(since=since, **wanted))
    if as_json:
        for entry in found:
            click.echo(json_of(entry))
    elif found:
        click.echo(aligned(("OFFSET", "TIME", "ACTOR", "ACTION", "TARGET", "WHAT"),
                           [(str(one.offset), instant(one.timestamp), one.actor, one.action,
                             one.target, what(one)) for one in found]))
    else:
        click.echo("no entry fits", err=True)


def what(entry: AuditEntry) -> str | None:
    """Before, after and why, in short."""
    before, after = (None if one is None else json.dumps(one, ensure_ascii=False)
                     for one in (entry.before, entry.after))
    change = f"{before} -> {after}" if before and after else after or (before and f"{before} -> -")
    return " ".join(filter(None, (change, entry.reason and f"({entry.reason})"))) or None


@audit.command(epilog=VERIFY_EXAMPLE)
@name_argument
@data_dir
@click.option("--from", "start", metavar="OFFSET", type=click.IntRange(min=0),
              help="Begin here; what is before is trusted.")
@click.option("--to", "stop", metavar="OFFSET", type=click.IntRange(min=0), help="End before it.")
@click.option("--head", metavar="OFFSET:HASH",
              help="One that was noted earlier: finds what was cut off since, or made anew.")
@as_json
def verify(name: str, data_dir: Path, as_json: bool, **wanted: Any) -> None:
    """Look for the first entry that was tampered with.

    Altered, removed, inserted or swapped: each shows.

    Ends with 0 where there is none, with 4 where there is. Without --head, an end that was cut off
    or a trail that was made anew is not found: see `pylog audit head`.
    """
    with opened(data_dir, name) as trail, progress("entries") as show:
        head = trail.head()
        found = trail.verify(progress=show, **wanted)
    if as_json:
        click.echo(json.dumps({"unbroken": found is None, "head": head and str(head),
                               "break": found and found._asdict()}))
    if found is not None:
        raise Damage(f"{name}, entry {found.offset}: {found.kind}: {found.message}")
    if not as_json:
        click.echo(f"unbroken; the head is {head or 'none: there is no entry'}")


@audit.command(epilog=HEAD_EXAMPLE)
@name_argument
@data_dir
def head(name: str, data_dir: Path) -> None:
    """Write the last entry's offset and hash, to be noted.

    Elsewhere, for it proves all that is before it.
    """
    with opened(data_dir, name) as trail:
        found = trail.head()
    if found is None:
        raise click.ClickException(f"{name} has no entry, and no head")
    click.echo(str(found))


@audit.command(epilog=EXPORT_EXAMPLE)
@name_argument
@data_dir
@choosing
@click.option("--form", type=click.Choice(["jsonl", "csv"]), default="jsonl", show_default=True,
              help="For Parquet: `pylog export`.")
def export(name: str, data_dir: Path, **wanted: Any) -> None:
    """Write entries to stdout, with their hashes, as JSON lines or CSV."""
    with opened(data_dir, name) as trail:
        count = trail.export(sys.stdout, **wanted)
    click.echo(f"exported {count:,} entries", err=True)
