"""`pylog schema`: the registered schemas, and whether another would go with them."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import click

from pylog.cli_options import aligned, as_json, data_dir, open_broker
from pylog.exits import Exit
from pylog.patterns.compatibility import COMPATIBILITIES, check_compatibility
from pylog.patterns.registry import TOPIC, Schemas

EXAMPLES = """\b
Examples:
  pylog schema ls
  pylog schema show orders --version 1
  pylog schema check orders next.json
"""
LS_EXAMPLE = "Example: pylog schema ls --json | jq -r .subject"
SHOW_EXAMPLE = "Example: pylog schema show orders --version 1"
CHECK_EXAMPLE = "Example: pylog schema check orders next.json --compatibility FULL"


@click.group(epilog=EXAMPLES)
def schema() -> None:
    """Look at schemas; see whether a next version would do.

    They are registered by programs: pylog.patterns.Schemas.
    """


@contextmanager
def registry(data_dir: Path) -> Iterator[Schemas | None]:
    """None: nobody has registered anything, and no topic is made by looking."""
    with open_broker(data_dir) as broker:
        yield Schemas(broker) if TOPIC in broker.topics() else None


def need_registry(found: Schemas | None, subject: str) -> Schemas:
    """Raises ClickException."""
    if found is None:
        raise click.ClickException(f"there is no schema of {subject!r}, nor of anything; a program "
                                   "registers them with pylog.patterns.Schemas")
    return found


@schema.command(epilog=LS_EXAMPLE)
@data_dir
@as_json
def ls(data_dir: Path, as_json: bool) -> None:
    """List the subjects, with the latest version of each."""
    with registry(data_dir) as schemas:
        found = list(schemas.subjects().values()) if schemas else []
    if as_json:
        for one in found:
            click.echo(json.dumps({"subject": one.subject, "version": one.version, "id": one.id,
                                   "compatibility": one.compatibility}))
        return
    click.echo(aligned(("SUBJECT", "VERSION", "ID", "COMPATIBILITY"),
                       [(one.subject, one.version, one.id, one.compatibility) for one in found]))


@schema.command(epilog=SHOW_EXAMPLE)
@click.argument("subject")
@data_dir
@click.option("--version", type=click.IntRange(min=1), help="Not the latest but this one.")
def show(subject: str, data_dir: Path, version: int | None) -> None:
    """Print a version as JSON Schema."""
    with registry(data_dir) as schemas:
        found = need_registry(schemas, subject).get(subject, version)
    click.echo(json.dumps(found.schema, indent=2, ensure_ascii=False))


@schema.command(epilog=CHECK_EXAMPLE)
@click.argument("subject")
@click.argument("file", type=click.File("rb"))
@data_dir
@click.option("--compatibility", type=click.Choice(COMPATIBILITIES, case_sensitive=False),
              help="Instead of the subject's own.")
def check(subject: str, file: IO[bytes], data_dir: Path, compatibility: str | None) -> None:
    """See whether the JSON Schema in FILE may be the next version.

    Prints what keeps it from that, a line each, and exits with 4; nothing, and with 0, if it may.
    Changes nothing.
    """
    try:
        given = json.load(file)
    except ValueError as error:
        raise click.ClickException(f"{file.name} is no JSON: {error}") from None
    if not isinstance(given, dict):
        raise click.ClickException(f"{file.name} is no JSON Schema: that is an object")
    level = None if compatibility is None else check_compatibility(compatibility)
    with registry(data_dir) as schemas:
        known = need_registry(schemas, subject)
        known.get(subject)    # says that there is none
        reasons = known.check(subject, given, level)
    for one in reasons:
        click.echo(str(one))
    if reasons:
        raise click.exceptions.Exit(Exit.DAMAGE)
