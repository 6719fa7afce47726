"""`pylog queue`: messages put, taken and looked at, each for one worker."""

import contextlib
import json
import os
import queue as stdlib
import sys
from pathlib import Path
from typing import Any

import click

from pylog import envelope
from pylog._native import Delivery
from pylog.broker import Broker
from pylog.cli_options import (
    aligned,
    as_json,
    complete_topic,
    data_dir,
    need_topic,
    open_broker,
    split_header,
)
from pylog.errors import InvalidRecordStateError
from pylog.patterns import Queue
from pylog.share import share_groups

EXAMPLES = """\b
Examples:
  pylog queue put emails 'welcome, alice'
  pylog queue get emails
  pylog queue stats
"""
PUT_EXAMPLES = """\b
Examples:
  pylog queue put emails 'welcome, alice'
  pylog queue put emails 'your order' --delay 60 --ttl 3600
  pylog queue put emails 'welcome' --dedup-key welcome-alice
  seq 100 | pylog queue put numbers
"""
GET_EXAMPLES = """\b
Examples:
  pylog queue get emails
  pylog queue get emails -n 10 --json
  pylog queue get emails --peek
  pylog queue get emails --reject 'no such address'
"""
STATS_EXAMPLES = """\b
Examples:
  pylog queue stats
  pylog queue stats emails --json | jq .ready
"""
PURGE_EXAMPLE = "Example: pylog queue purge emails --yes"

name_argument = click.argument("name", metavar="QUEUE", shell_complete=complete_topic)
group_option = click.option("-g", "--group", default="queue", show_default=True,
                            help="Whose messages: each group gets all of them.")


@click.group(epilog=EXAMPLES)
def queue() -> None:
    """Put messages into queues, take them out, see how queues stand.

    A queue is a topic whose messages are each for one worker. What was taken stays readable: see
    `pylog consume`; what nobody could do: see `pylog dlq`.
    """


@queue.command(epilog=PUT_EXAMPLES)
@name_argument
@click.argument("values", metavar="[VALUE]...", nargs=-1)
@data_dir
@click.option("-k", "--key", metavar="TEXT", help="Their key.")
@click.option("-H", "--header", "headers", metavar="NAME=VALUE", multiple=True,
              callback=split_header, help="A header of each; may be repeated.")
@click.option("--delay", type=click.FloatRange(min=0), default=0.0, metavar="SECONDS",
              help="Before anybody gets it.")
@click.option("--ttl", type=click.FloatRange(min=0), metavar="SECONDS",
              help="After which it is a dead letter, counted from when it is due.")
@click.option("--dedup-key", metavar="TEXT", help="A second put with the same adds nothing.")
@click.option("-q", "--quiet", is_flag=True, help="Do not say how many were put.")
def put(name: str, values: tuple[str, ...], data_dir: Path, key: str | None,
        headers: list[tuple[str, bytes]] | None, delay: float, ttl: float | None,
        dedup_key: str | None, quiet: bool) -> None:
    """Put messages: each VALUE; without one, or for -, stdin's lines."""
    if dedup_key is not None and (len(values) != 1 or values == ("-",)):
        raise click.UsageError("--dedup-key names one message: pass one VALUE")
    given = (one for value in values or ("-",) for one in (
        (line.removesuffix(b"\n") for line in sys.stdin.buffer) if value == "-"
        else (os.fsencode(value),)))
    count = 0
    with open_broker(data_dir, make=True) as broker, Queue(broker, name) as target:
        for value in given:
            count += target.put(value, key=key, headers=headers or None, delay=delay, ttl=ttl,
                                dedup_key=dedup_key) is not None
    if not quiet:
        click.echo(f"put {count:,} into {name}"
                   + ("" if count or dedup_key is None else ": the dedup key is known"), err=True)


@queue.command(epilog=GET_EXAMPLES)
@name_argument
@data_dir
@group_option
@click.option("-n", "--count", type=click.IntRange(min=1), default=1, show_default=True,
              help="At most so many.")
@click.option("-w", "--wait", type=click.FloatRange(min=0), default=0.0, metavar="SECONDS",
              help="For the next one.  [default: not at all]")
@click.option("--peek", is_flag=True, help="Give them back: they stay in the queue.")
@click.option("--reject", metavar="REASON", help="Make them dead letters.")
@as_json
def get(name: str, data_dir: Path, group: str, count: int, wait: float, peek: bool,
        reject: str | None, as_json: bool) -> None:
    """Take messages, print each, and then acknowledge it."""
    if peek and reject is not None:
        raise click.UsageError("--peek gives back, --reject does not: choose one")
    with open_broker(data_dir) as broker:
        need_topic(broker, name)
        with Queue(broker, name, group=group) as source:
            taken: list[Delivery] = []
            for _ in range(count):
                try:
                    delivery = source.get(wait)
                except stdlib.Empty:
                    break
                show(delivery, as_json)
                taken.append(delivery)
                if reject is not None:
                    delivery.reject(reject)
                elif not peek:
                    delivery.ack()
            for delivery in taken if peek else ():
                with contextlib.suppress(InvalidRecordStateError):    # over: it is back already
                    delivery.release(count=False)
    if not taken:
        click.echo(f"nothing is ready in {name}", err=True)


def show(delivery: Delivery, as_json: bool) -> None:
    """Out of the process before it is acknowledged."""
    if as_json:
        click.echo(json.dumps({**json.loads(envelope.json_lines([delivery.record])),
                               "delivery_count": delivery.delivery_count}))
    else:
        click.echo(delivery.value or b"")
    sys.stdout.flush()


@queue.command(epilog=STATS_EXAMPLES)
@click.argument("name", metavar="[QUEUE]", required=False, shell_complete=complete_topic)
@data_dir
@as_json
def stats(name: str | None, data_dir: Path, as_json: bool) -> None:
    """Show how queues stand, in each group that works for them."""
    with open_broker(data_dir) as broker:
        if name is not None:
            need_topic(broker, name)
        found = [one for one in stand(broker) if name is None or one["queue"] == name]
    if as_json:
        for one in found:
            click.echo(json.dumps(one))
    elif found:
        click.echo(aligned(
            ("QUEUE", "GROUP", "READY", "DELAYED", "IN FLIGHT", "DEAD", "DONE", "REDELIVERED",
             "OLDEST"),
            [(one["queue"], one["group"], *(one[key] for key in (
                "ready", "delayed", "in_flight", "dead", "done", "redelivered")),
              age(one["oldest_age"]) or None) for one in found]))
    else:
        click.echo("nobody has worked for "
                   + ("any queue yet" if name is None else f"{name} yet")
                   + "; `pylog queue put QUEUE VALUE` makes one", err=True)


def stand(broker: Broker) -> list[dict[str, Any]]:
    """How each queue stands, in each group; not what others share by a ShareConsumer."""
    found, topics = [], set(broker.topics())
    for group, partitions in share_groups(broker.path).items():
        for topic in {one.topic for one in partitions} & topics:
            if f"{topic}.delayed" not in topics:
                continue
            with Queue(broker, topic, group=group, dlq=f"dlq.{group}.{topic}" in topics) as one:
                found.append({"queue": topic, "group": group, **one.stats()._asdict()})
    return sorted(found, key=lambda one: (one["queue"], one["group"]))


def age(seconds: float) -> str:
    """As a person says it; "" for none."""
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s" if seconds else ""


@queue.command(epilog=PURGE_EXAMPLE)
@name_argument
@data_dir
@group_option
@click.option("--yes", is_flag=True, help="Do not ask.")
def purge(name: str, data_dir: Path, group: str, yes: bool) -> None:
    """Throw away all that is ready. What workers have in hand stays theirs."""
    with open_broker(data_dir) as broker:
        need_topic(broker, name)
        with Queue(broker, name, group=group) as target:
            ready = target.stats().ready
            if ready and not yes:
                click.confirm(f"throw away {ready:,} messages of {name}?", abort=True, err=True)
            click.echo(f"threw away {target.purge():,} messages of {name}", err=True)
