"""`pylog rooms`: messages pushed to rooms, and listened to, by hand."""

import asyncio
import json
from contextlib import aclosing
from pathlib import Path
from typing import Any

import click

from pylog.cli_options import (
    aligned,
    as_json,
    complete_topic,
    data_dir,
    need_topic,
    open_broker,
    printable,
    to_json,
)
from pylog.dump import instant
from pylog.patterns import Message, Rooms

EXAMPLES = """\b
Examples:
  pylog rooms ls
  pylog rooms listen order-123
  pylog rooms emit order-123 orderUpdate '{"status": "shipped"}'
  pylog rooms emit order-123 orderUpdate - < order.json
"""
LS_EXAMPLE = "Example: pylog rooms ls --json | jq -r .room"
EMIT_EXAMPLE = """Example: pylog rooms emit order-123 orderUpdate '{"status": "shipped"}'"""
LISTEN_EXAMPLES = """\b
Examples:
  pylog rooms listen order-123 order-124 --json | jq .data
  pylog rooms listen order-123 --after 5f3a09c1-42 -n 1
"""

topic_option = click.option("-t", "--topic", default="live", show_default=True, metavar="NAME",
                            shell_complete=complete_topic, help="Of the rooms: Rooms(..., NAME).")


@click.group(epilog=EXAMPLES)
def rooms() -> None:
    """Push messages to rooms, listen to them. Rooms are a topic.

    Who listens here gets what clients of `Rooms.asgi` get, and takes nothing from them.
    """


@rooms.command(epilog=LS_EXAMPLE)
@data_dir
@topic_option
@as_json
def ls(data_dir: Path, topic: str, as_json: bool) -> None:
    """List the rooms that have messages, and the id of the last."""
    with open_broker(data_dir) as broker:
        need_topic(broker, topic)
        with Rooms(broker, topic) as live:
            found = live.list()
    if as_json:
        for one in found:
            click.echo(json.dumps({**one._asdict(), "changed": instant(one.changed)}))
    elif found:
        click.echo(aligned(("ROOM", "MESSAGES", "LAST ID", "CHANGED"), [
            (one.room, one.messages, one.id, instant(one.changed)) for one in found]))
    else:
        click.echo("no room has messages", err=True)


@rooms.command(epilog=EMIT_EXAMPLE)
@click.argument("room", metavar="ROOM")
@click.argument("event", metavar="EVENT")
@click.argument("data", metavar="[JSON]", default="null", callback=to_json)
@data_dir
@topic_option
@as_json
def emit(room: str, event: str, data: Any, data_dir: Path, topic: str, as_json: bool) -> None:
    """Send one message to a room.

    Its data is JSON (stdin, if it is -). A topic that is not there is made.
    """
    with open_broker(data_dir, make=True) as broker, Rooms(broker, topic) as live:
        place = live.emit(room, data, event)
    if as_json:
        click.echo(json.dumps({"id": place, "room": room, "event": event}))
    else:
        click.echo(f"emitted {event} to {room}, id {place}", err=True)


@rooms.command(epilog=LISTEN_EXAMPLES)
@click.argument("names", metavar="ROOM...", nargs=-1, required=True)
@data_dir
@topic_option
@click.option("-a", "--after", metavar="ID", help="Begin with what came after this message.")
@click.option("-n", "--max", "count", metavar="N", type=click.IntRange(min=1),
              help="Stop after N messages.")
@as_json
def listen(names: tuple[str, ...], data_dir: Path, topic: str, after: str | None,
           count: int | None, as_json: bool) -> None:
    """Write messages to stdout as they come: id, room, event, data."""
    with open_broker(data_dir) as broker:
        need_topic(broker, topic)
        with Rooms(broker, topic) as live:
            asyncio.run(write(live, names, after, count, as_json))


async def write(live: Rooms, names: tuple[str, ...], after: str | None, count: int | None,
                as_json: bool) -> None:
    """Until there were so many, or for ever."""
    async with aclosing(live.messages(*names, after=after)) as messages:
        async for message in messages:
            if message.room is None:
                if not message.data["recovered"]:
                    click.echo(f"what came after {after} is not there any more, or was never: this "
                               f"begins after {message.id}", err=True)
                continue
            click.echo(message.text if as_json else line_of(message))
            if count is not None and (count := count - 1) == 0:
                return


def line_of(message: Message) -> str:
    data = json.dumps(message.data, ensure_ascii=False)
    return printable(f"{message.id} {message.room} {message.event} {data}")
