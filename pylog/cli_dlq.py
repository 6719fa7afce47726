"""`pylog dlq`: dead letters, looked at, sent again, discarded."""

import dataclasses
import json
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import click

from pylog.broker import Broker
from pylog.cli_options import (
    aligned,
    as_json,
    complete_group,
    complete_topic,
    data_dir,
    open_broker,
    printable,
    to_moment,
)
from pylog.dump import instant
from pylog.envelope import text_field
from pylog.patterns.dead_letters import DISCARDED, REPLAYED, DeadLetters
from pylog.patterns.letter import Letter, parse_id

EXAMPLES = """\b
Examples:
  pylog dlq ls
  pylog dlq ls billing --error ValueError --since -1h
  pylog dlq show dlq.billing.orders:0:17
  pylog dlq replay dlq.billing.orders:0:17 --value '{"pears": 12}'
  pylog dlq replay billing --error ConnectionError --rate 100 --yes
  pylog dlq discard orders-dlq --handler audit --yes
"""
LS_EXAMPLE = "Example: pylog dlq ls billing --json | jq -r .id"
SHOW_EXAMPLE = "Example: pylog dlq show dlq.billing.orders:0:17"
REPLAY_EXAMPLE = "Example: pylog dlq replay billing --error ConnectionError --yes"
DISCARD_EXAMPLE = "Example: pylog dlq discard dlq.billing.orders:0:17 --yes"
AGES = ((86_400, "d"), (3_600, "h"), (60, "m"), (1, "s"))


@click.group(epilog=EXAMPLES)
def dlq() -> None:
    """Look at dead letters, send them again, discard them.

    NAME is a group, whose letters are in the topics dlq.GROUP.*, or any topic of letters. An ID is
    TOPIC:PARTITION:OFFSET, as `ls` shows it.
    """


def complete_name(ctx: click.Context, param: click.Parameter, start: str) -> list[str]:
    """For the shell's Tab."""
    return [*complete_group(ctx, param, start), *complete_topic(ctx, param, start)]


def choosing(command: Callable[..., None]) -> Callable[..., None]:
    """The options that say which letters."""
    for option in reversed((
        click.option("--error", metavar="CLASS", help="Only those of this error: ValueError."),
        click.option("--topic", shell_complete=complete_topic, help="Only those that were in it."),
        click.option("--handler", metavar="NAME", help="Only those on which it failed."),
        click.option("--since", metavar="TIME", callback=to_moment,
                     help="Only those buried since: -15m (s, m, h, d: that long ago), "
                     "2026-11-23T10:00."),
        click.option("-n", "--max", "limit", metavar="N", type=click.IntRange(min=0),
                     help="Only the first N."),
    )):
        command = option(command)
    return command


def letters_of(broker: Broker, name: str) -> DeadLetters:
    """Of a topic of letters, or of a group."""
    if name in broker.topics():
        return DeadLetters(broker, topic=name)
    found = DeadLetters(broker, name)
    if not found.topics():
        raise click.ClickException(f"there is no topic {name!r}, and no group of this name has "
                                   "dead letters; `pylog dlq ls` shows who has")
    return found


@dlq.command(epilog=LS_EXAMPLE)
@click.argument("name", metavar="[NAME]", required=False, shell_complete=complete_name)
@data_dir
@choosing
@click.option("-a", "--all", "marked", is_flag=True,
              help="Also those that were replayed or discarded.")
@as_json
def ls(name: str | None, data_dir: Path, marked: bool, as_json: bool, **wanted: Any) -> None:
    """List the pending letters, or how many there are.

    Without NAME and options: the topics of letters, and what became of them.
    """
    with open_broker(data_dir) as broker:
        if name is None and not marked and not any(value is not None for value in wanted.values()):
            list_topics(broker, as_json)
            return
        letters = (DeadLetters(broker) if name is None else letters_of(broker, name)).list(
            marked=marked, **wanted)
    if as_json:
        for letter in letters:
            click.echo(json_of(letter))
    elif letters:
        heads = ("ID", "FROM", "HANDLER", "TRIES", "AGE", *(["MARK"] if marked else []), "ERROR")
        click.echo(aligned(heads, [
            (one.id, place_of(one), one.handler or None, one.attempts, age_of(one),
             *([one.mark] if marked else []),
             f"{one.error.rpartition('.')[2]}: {one.message}" if one.error else None)
            for one in letters], whole="ID"))
    else:
        click.echo("no letter is pending", err=True)


def list_topics(broker: Broker, as_json: bool) -> None:
    """Each topic of letters, and what became of them."""
    rows: list[dict[str, Any]] = []
    for topic in DeadLetters(broker).topics():
        letters = DeadLetters(broker, topic=topic).list(marked=True)
        pending = [one for one in letters if one.mark is None]
        rows.append({
            "topic": topic, "pending": len(pending),
            "replayed": sum(one.mark == REPLAYED for one in letters),
            "discarded": sum(one.mark == DISCARDED for one in letters),
            "oldest_ms": min((one.buried_ms for one in pending), default=None)})
    if as_json:
        for row in rows:
            click.echo(json.dumps(row))
    elif rows:
        click.echo(aligned(("TOPIC", "PENDING", "REPLAYED", "DISCARDED", "OLDEST"), [
            (row["topic"], row["pending"], row["replayed"], row["discarded"],
             None if row["oldest_ms"] is None else instant(row["oldest_ms"])) for row in rows]))
    else:
        click.echo("there are no topics of dead letters; a subscription of a group makes its own",
                   err=True)


@dlq.command(epilog=SHOW_EXAMPLE)
@click.argument("letter_id", metavar="ID")
@data_dir
@as_json
def show(letter_id: str, data_dir: Path, as_json: bool) -> None:
    """Show one letter, and why it is here."""
    with open_broker(data_dir) as broker:
        letter = DeadLetters(broker, topic=parse_id(letter_id)[0]).show(letter_id)
    if as_json:
        click.echo(json_of(letter))
        return
    rows = [
        ("letter", letter.id), ("state", letter.mark or "pending"), ("from", place_of(letter)),
        ("published", None if letter.timestamp < 0 else instant(letter.timestamp)),
        ("buried", instant(letter.buried_ms)), ("group", letter.group),
        ("handler", letter.handler), ("attempts", letter.attempts or None),
        ("error", letter.error), ("message", letter.message), ("why", letter.disposition),
        ("key", text_of(letter.key)),
        *((f"header {name}", text_of(value)) for name, value in letter.headers)]
    width = max(len(printable(name)) for name, _ in rows)
    for name, text in rows:
        if text not in (None, ""):
            click.echo(f"{printable(name).ljust(width)}  {printable(str(text))}")
    click.echo()
    click.echo(text_of(letter.value) or "(null)")


@dlq.command(epilog=REPLAY_EXAMPLE)
@click.argument("targets", metavar="ID|NAME...", nargs=-1, required=True,
                shell_complete=complete_name)
@data_dir
@choosing
@click.option("--to", metavar="TOPIC", shell_complete=complete_topic,
              help="Send them there, to everybody who reads it.  [default: to where they were, for "
              "the group and the handler that failed]")
@click.option("--value", metavar="TEXT", help="Instead of the value; of one letter.")
@click.option("--rate", metavar="N", type=click.FloatRange(min=0, min_open=True),
              help="At most N a second.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
def replay(
    targets: tuple[str, ...], data_dir: Path, to: str | None, value: str | None,
    rate: float | None, yes: bool, **wanted: Any,
) -> None:
    """Send letters again. Asks first, on a terminal, unless they are named one by one."""
    with open_broker(data_dir) as broker:
        letters = chosen(broker, targets, wanted)
        if value is not None and len(letters) != 1:
            raise click.UsageError(f"--value is for one letter, and there are {len(letters)}: name "
                                   "its ID")
        confirm("Send", targets, letters, yes)
        edit = None if value is None else partial(
            dataclasses.replace, value=value.encode(errors="surrogateescape"))
        count = DeadLetters(broker).replay(letters, to=to, rate=rate, edit=edit)
    click.echo(f"sent {count} of {len(letters)} again", err=True)


@dlq.command(epilog=DISCARD_EXAMPLE)
@click.argument("targets", metavar="ID|NAME...", nargs=-1, required=True,
                shell_complete=complete_name)
@data_dir
@choosing
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
def discard(targets: tuple[str, ...], data_dir: Path, yes: bool, **wanted: Any) -> None:
    """Mark letters as done with. They stay readable: `pylog dlq ls NAME --all`."""
    with open_broker(data_dir) as broker:
        letters = chosen(broker, targets, wanted)
        confirm("Discard", targets, letters, yes)
        count = DeadLetters(broker).discard(letters)
    click.echo(f"discarded {count} of {len(letters)}", err=True)


def chosen(broker: Broker, targets: Sequence[str], wanted: dict[str, Any]) -> list[Letter]:
    """The letters that are named, and the pending ones of those names that the options mean."""
    found: dict[str, Letter] = {}
    for target in targets:
        letters = [DeadLetters(broker, topic=parse_id(target)[0]).show(target)] \
            if ":" in target else letters_of(broker, target).list(**wanted)
        found |= {letter.id: letter for letter in letters}
    return list(found.values())


def confirm(verb: str, targets: Sequence[str], letters: Sequence[Letter], yes: bool) -> None:
    if yes or not letters or all(":" in target for target in targets):
        return
    if not sys.stdin.isatty():
        raise click.UsageError(f"there is nobody to ask: add --yes for {len(letters)} letter(s) of "
                               f"{', '.join(targets)}")
    click.confirm(f"{verb} {len(letters)} letter(s)?", abort=True, err=True)


def place_of(letter: Letter) -> str | None:
    return f"{letter.topic}-{letter.partition}:{letter.offset}" if letter.topic else None


def age_of(letter: Letter) -> str:
    """How long it has been here, in one unit."""
    seconds = max(0, int(time.time() - letter.buried_ms / 1000))
    for size, unit in AGES:
        if seconds >= size:
            return f"{seconds // size}{unit}"
    return "0s"


def text_of(data: bytes | None) -> str | None:
    return None if data is None else data.decode("utf-8", "backslashreplace")


def json_of(letter: Letter) -> str:
    """One line; what is not UTF-8 is in base64, under `*_b64`."""
    plain = {name: value for name, value in dataclasses.asdict(letter).items()
             if name not in ("key", "value", "headers")}
    heads = [[name, text_of(value)] for name, value in letter.headers]
    return (f'{json.dumps(plain)[:-1]}, {text_field("key", letter.key)}, '
            f'{text_field("value", letter.value)}, "headers": {json.dumps(heads)}}}')
