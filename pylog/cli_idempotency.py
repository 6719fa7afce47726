"""`pylog idempotency`: which keys are done, in progress or abandoned, and what was saved."""

import json
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import click

from pylog.broker import Broker
from pylog.cli_options import aligned, as_json, data_dir, need_topic, open_broker, printable
from pylog.dump import instant
from pylog.envelope import text_field
from pylog.patterns import Idempotency, KeyEntry
from pylog.patterns.key_claim import STATES

EXAMPLES = """\b
Examples:
  pylog idempotency ls
  pylog idempotency ls payments
  pylog idempotency show payments order-17
"""
LS_EXAMPLE = "Example: pylog idempotency ls payments --state abandoned --json | jq -r .key"
SHOW_EXAMPLE = "Example: pylog idempotency show payments order-17 --json | jq .result"
PREFIX = "idempotency."
WEEK_MS = 604_800_000    # retention where nobody has said it


def complete_name(ctx: click.Context, param: click.Parameter, start: str) -> list[str]:
    """For the shell's Tab, which must hear of no error."""
    with suppress(Exception), open_broker(Path(ctx.params.get("data_dir") or "data")) as broker:
        return [name for name in names(broker) if name.startswith(start)]
    return []


def names(broker: Broker) -> list[str]:
    """Of what is done once, by the topics."""
    return sorted(topic.removeprefix(PREFIX) for topic in broker.topics()
                  if topic.startswith(PREFIX))


@contextmanager
def opened(broker: Broker, name: str) -> Iterator[Idempotency]:
    """One whose topic is there, and keeps its retention; results stay bytes."""
    kept = int(need_topic(broker, PREFIX + name).configs.get("retention.ms", WEEK_MS))
    with Idempotency(broker, name, None if kept < 0 else kept / 1000, value=None) as found:
        yield found


@click.group(epilog=EXAMPLES)
def idempotency() -> None:
    """See which keys are done, in progress or abandoned.

    NAME is the one that the code gave its Idempotency; its topic is idempotency.NAME. A key that is
    abandoned was claimed by a process that died before it saved: the next one to come gets it, and
    what it is for may have happened. When a key expires is told by the topic's retention; an
    Idempotency whose ttl is less forgets it earlier.
    """


@idempotency.command(epilog=LS_EXAMPLE)
@click.argument("name", metavar="[NAME]", required=False, shell_complete=complete_name)
@data_dir
@click.option("-s", "--state", type=click.Choice(STATES), help="Only these.")
@as_json
def ls(name: str | None, data_dir: Path, state: str | None, as_json: bool) -> None:
    """List the keys of a name, or how many of each name there are."""
    with open_broker(data_dir) as broker:
        if name is None and state is None:
            list_names(broker, as_json)
            return
        found = []
        for each in names(broker) if name is None else [name]:
            with opened(broker, each) as known:
                found += [(each, one) for one in known.list() if state in (None, one.state)]
    if as_json:
        for each, one in found:
            click.echo(f"{json_of(each, one)}}}")
    elif found:
        click.echo(aligned(("NAME", "KEY", "STATE", "CHANGED", "EXPIRES", "PID"), [
            (each, text_of(one.key), one.state, instant(one.changed), expiry_of(one),
             one.pid and str(one.pid)) for each, one in found]))
    else:
        click.echo("there are no such keys", err=True)


def list_names(broker: Broker, as_json: bool) -> None:
    """Each name, and how its keys stand."""
    rows = []
    for name in names(broker):
        with opened(broker, name) as known:
            counts = Counter(one.state for one in known.list())
        rows.append({"name": name, **{state: counts[state] for state in STATES}})
    if as_json:
        for row in rows:
            click.echo(json.dumps(row))
    elif rows:
        click.echo(aligned([key.upper().replace("_", " ") for key in rows[0]],
                           [[*row.values()] for row in rows]))
    else:
        click.echo("there are none: a program that makes an Idempotency makes its topic", err=True)


@idempotency.command(epilog=SHOW_EXAMPLE)
@click.argument("name", metavar="NAME", shell_complete=complete_name)
@click.argument("key", metavar="KEY")
@data_dir
@as_json
def show(name: str, key: str, data_dir: Path, as_json: bool) -> None:
    """Show how a key stands, and the result that was saved."""
    with open_broker(data_dir) as broker, opened(broker, name) as known:
        found = [one for one in known.list() if one.key == os.fsencode(key)]
    if not found:
        raise click.ClickException(f"nothing is known of the key {key!r}, or no more; `pylog "
                                   f"idempotency ls {name}` lists those that are remembered")
    [one] = found
    if as_json:
        click.echo(f"{json_of(name, one)}, {result_field(one.value)}}}")
        return
    fields = {"key": text_of(one.key), "state": one.state, "changed": instant(one.changed),
              "expires": expiry_of(one), "pid": one.pid,
              "result": None if one.value is None else text_of(one.value)}
    for word, value in fields.items():
        click.echo(f"{word:<9}{'-' if value is None else printable(str(value))}")


def json_of(name: str, one: KeyEntry) -> str:
    """All but the result, and without the last brace."""
    rest = json.dumps({"state": one.state, "changed": instant(one.changed),
                       "expires": expiry_of(one), "pid": one.pid})
    return f'{{"name": {json.dumps(name)}, {text_field("key", one.key)}, {rest[1:-1]}'


def result_field(value: bytes | None) -> str:
    """As JSON if it is that, else as text or in base64."""
    try:
        return f'"result": {json.dumps(json.loads(value or b"null"))}'
    except ValueError:
        return text_field("result", value)


def expiry_of(one: KeyEntry) -> str | None:
    return None if one.expires is None else instant(one.expires)


def text_of(data: bytes) -> str:
    return data.decode("utf-8", "backslashreplace")
