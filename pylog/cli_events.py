"""`pylog events`: streams of an event store, appended to and read by hand."""

import json
from pathlib import Path
from typing import Any

import click

from pylog.broker import Broker
from pylog.cli_bus import json_of, line_of
from pylog.cli_options import (
    aligned,
    as_json,
    complete_topic,
    data_dir,
    need_topic,
    open_broker,
    split_header,
)
from pylog.envelope import Headers
from pylog.patterns import ANY, EXISTS, NO_STREAM, EventStore, NewEvent, StoredEvent, StreamState

EXAMPLES = """\b
Examples:
  pylog events append orders order-42 placed '{"total": 20}' -e none
  pylog events read orders order-42
  pylog events streams orders
"""
APPEND_EXAMPLES = """\b
Examples:
  pylog events append orders order-42 placed '{"total": 20}' -e none
  pylog events append orders order-42 paid --expect 1 --id payment-7
"""
READ_EXAMPLES = """\b
Examples:
  pylog events read orders order-42 --json | jq .data
  pylog events read orders order-42 --backwards -n 1
"""
STREAMS_EXAMPLE = "Example: pylog events streams orders order-"

WORDS: dict[str, int | StreamState] = {"any": ANY, "none": NO_STREAM, "exists": EXISTS}

store_argument = click.argument("name", metavar="STORE", shell_complete=complete_topic)


def to_version(ctx: click.Context, param: click.Parameter, value: str) -> int | StreamState:
    if value in WORDS:
        return WORDS[value]
    if value.isdecimal():
        return int(value)
    raise click.BadParameter(f"{value!r} is none: use any, none, exists or a version")


def need_store(broker: Broker, name: str) -> None:
    """Of another topic an EventStore would make one, which is kept for ever."""
    if need_topic(broker, name).configs.get("retention.ms") != "-1":
        raise click.ClickException(f"the topic {name!r} is no event store, which is kept for ever; "
                                   f"see `pylog consume {name}`")


@click.group(epilog=EXAMPLES)
def events() -> None:
    """Append events to streams, and read them. A store is a topic.

    `pylog bus listen STORE` shows what comes to all of its streams.
    """


@events.command(epilog=APPEND_EXAMPLES)
@store_argument
@click.argument("stream")
@click.argument("kind", metavar="TYPE")
@click.argument("data", metavar="[JSON]", default="null")
@data_dir
@click.option("-e", "--expect", "expected", metavar="VERSION", default="any", show_default=True,
              callback=to_version, help="any, none, exists, or the version that the stream is at.")
@click.option("-H", "--header", "headers", metavar="NAME=VALUE", multiple=True,
              callback=split_header, help="One more header; may be repeated.")
@click.option("--id", "event_id", metavar="TEXT",
              help="Its own: a second append with the same adds nothing.  [default: a new one]")
@as_json
def append(name: str, stream: str, kind: str, data: str, data_dir: Path,
           expected: int | StreamState, headers: Headers, event_id: str | None,
           as_json: bool) -> None:
    """Append one event to a stream. A store that is not there is made."""
    try:
        value = json.loads(data)
    except ValueError as error:
        raise click.BadParameter(f"{data!r} is no JSON: {error}; text is '\"text\"'",
                                 param_hint="JSON") from None
    with open_broker(data_dir, make=True) as broker:
        done = EventStore(broker, name).append(
            stream, NewEvent(kind, value, event_id, headers or None), expected_version=expected)
    if as_json:
        click.echo(json.dumps(done._asdict()))
    else:
        click.echo(f"{stream} is at version {done.version}: {name}-{done.partition}, offset "
                   f"{done.offset}", err=True)


@events.command(epilog=READ_EXAMPLES)
@store_argument
@click.argument("stream")
@data_dir
@click.option("-a", "--after", metavar="VERSION", type=click.IntRange(min=0),
              help="Only those behind it.")
@click.option("-b", "--backwards", is_flag=True, help="The latest first.")
@click.option("-n", "--max", "limit", metavar="N", type=click.IntRange(min=0),
              help="Stop after N events.")
@as_json
def read(name: str, stream: str, data_dir: Path, as_json: bool, **terms: Any) -> None:
    """Write the events of a stream: version, time, type and data."""
    with open_broker(data_dir) as broker:
        need_store(broker, name)
        write = written_as_json if as_json else written
        for event in EventStore(broker, name, value=None).read(stream, **terms):
            click.echo(write(event))


def written(event: StoredEvent) -> str:
    return f"{event.version} {line_of(event)}"


def written_as_json(event: StoredEvent) -> str:
    head = json.dumps({"stream": event.stream, "version": event.version})
    return f"{head[:-1]}, {json_of(event)[1:]}"


@events.command(epilog=STREAMS_EXAMPLE)
@store_argument
@click.argument("prefix", default="")
@data_dir
@as_json
def streams(name: str, prefix: str, data_dir: Path, as_json: bool) -> None:
    """List streams whose names begin with PREFIX, and their versions."""
    with open_broker(data_dir) as broker:
        need_store(broker, name)
        found = EventStore(broker, name).streams(prefix)
    if as_json:
        for stream, version in found.items():
            click.echo(json.dumps({"stream": stream, "version": version}))
    elif found:
        click.echo(aligned(("STREAM", "VERSION"), list(found.items())))
    else:
        click.echo(f"{name} has no such stream", err=True)
