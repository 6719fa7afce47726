"""`pylog bus`: events emitted and listened to by hand."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import click

from pylog._native import Record
from pylog.cli_options import (
    as_json,
    complete_group,
    complete_topic,
    data_dir,
    open_broker,
    split_header,
    to_json,
    to_place,
)
from pylog.cli_records import Wish, run_consume
from pylog.dump import instant
from pylog.envelope import Headers, text_field
from pylog.log import Start
from pylog.patterns.bus import Bus
from pylog.patterns.events import Event
from pylog.patterns.wildcards import matcher

EXAMPLES = """\b
Examples:
  pylog bus listen shop
  pylog bus listen shop 'user.*' 'order.**' --json | jq .data
  pylog bus listen shop --group audit
  pylog bus emit shop user.created '{"id": 123}' --key 123
  pylog bus emit shop order.state - < order.json
"""
EMIT_EXAMPLE = """Example: pylog bus emit shop user.created '{"id": 123}'"""
LISTEN_EXAMPLE = "Example: pylog bus listen shop 'user.*' --from earliest --exit"


@click.group(epilog=EXAMPLES)
def bus() -> None:
    """Emit events, and listen to them. A bus is a topic."""


@bus.command(epilog=EMIT_EXAMPLE)
@click.argument("name", metavar="BUS", shell_complete=complete_topic)
@click.argument("kind", metavar="TYPE")
@click.argument("data", metavar="[JSON]", default="null", callback=to_json)
@data_dir
@click.option("-k", "--key", metavar="TEXT", help="Events of one key stay in order.")
@click.option("-H", "--header", "headers", metavar="NAME=VALUE", multiple=True,
              callback=split_header, help="One more header; may be repeated.")
@click.option("--subject", metavar="TEXT", help="What it is about.")
@click.option("--source", metavar="TEXT", help="Who says so.  [default: the bus]")
@click.option("--id", "event_id", metavar="TEXT", help="Its own.  [default: a new one]")
@as_json
def emit(name: str, kind: str, data: Any, data_dir: Path, headers: Headers, as_json: bool,
         **attributes: Any) -> None:
    """Emit one event, whose data is JSON (stdin, if it is -). A bus that is not there is made."""
    with open_broker(data_dir, make=True) as broker, Bus(broker, name) as events:
        done = events.emit(kind, data, headers=headers, **attributes)
    if as_json:
        click.echo(json.dumps({"topic": done.topic, "partition": done.partition,
                               "offset": done.offset, "timestamp": done.timestamp}))
    else:
        click.echo(f"emitted {kind} to {done.topic}-{done.partition} at offset {done.offset}",
                   err=True)


@bus.command(epilog=LISTEN_EXAMPLE)
@click.argument("name", metavar="BUS", shell_complete=complete_topic)
@click.argument("patterns", metavar="[PATTERN]...", nargs=-1)
@data_dir
@click.option("-g", "--group", shell_complete=complete_group,
              help="Go on where this group is, share with its members, commit.")
@click.option("-o", "--from", "start", metavar="PLACE", callback=to_place,
              help="earliest, latest, an offset, -N, @-15m (that long ago) or 2026-11-23T10:00.  "
              "[default: latest; of a group: earliest]")
@click.option("-n", "--max", "count", metavar="N", type=click.IntRange(min=0),
              help="Stop after N events.")
@click.option("-e", "--exit", "until_end", is_flag=True,
              help="Stop at what is the end now, and do not wait for more.")
@as_json
def listen(name: str, patterns: tuple[str, ...], data_dir: Path, group: str | None,
           start: Start | None, as_json: bool, **wishes: Any) -> None:
    """Write events to stdout as they come: time, type and data.

    PATTERN is a type, with * for one segment of it and ** for one or more; ** by default. A group
    (-g) is for one's own use: what is written here, no other member of it gets.
    """
    matchers = [matcher(one) for one in patterns or ("**",)]

    def is_wanted(record: Record) -> bool:
        kind = record.header("ce_type")
        text = "" if kind is None else kind.decode("utf-8", "replace")
        return bool(text) and any(matches(text) for matches in matchers)

    if start is None and group is None:
        start = "latest"
    run_consume(data_dir, Wish((name,), group=group, start=start, wanted=is_wanted,
                               text_of=partial(lines_of, is_json=as_json), **wishes))


def lines_of(records: list[Record], is_json: bool) -> bytes:
    """A line each."""
    write = json_of if is_json else line_of
    return "".join(f"{write(Event(record))}\n" for record in records).encode("utf-8", "replace")


def line_of(event: Event) -> str:
    data = "" if event.data is None else event.data.decode("utf-8", "backslashreplace")
    moment = instant(int(event.time.timestamp() * 1000))
    return f"{moment} {event.type} {data}".rstrip().replace("\n", "\\n")


def json_of(event: Event) -> str:
    """Its attributes, and the data: as JSON if it is that, else as text or in base64."""
    head = {"type": event.type, "id": event.id, "source": event.source, "subject": event.subject,
            "time": event.time.isoformat(), "partition": event.record.partition,
            "offset": event.record.offset}
    return f'{json.dumps(head)[:-1]}, {text_field("key", event.key)}, {data_field(event)}}}'


def data_field(event: Event) -> str:
    try:
        return f'"data": {json.dumps(json.loads(event.data or b"null"))}'
    except ValueError:
        return text_field("data", event.data)
