"""`pylog stat`: how much there is, in one log or in a broker, in short."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

import pylog
from pylog import _native
from pylog.cli_options import Place, as_json, is_broker
from pylog.cli_topics import administration, topics_table, totals
from pylog.dump import instant
from pylog.errors import PylogError, RecordNotFoundError
from pylog.report import counted

LOOKS = 10    # at a log whose first records are being deleted
EXAMPLES = """\b
Examples:
  pylog stat
  pylog stat data/orders-0
  pylog stat data --json | jq '.topics[] | select(.records > 1000) | .topic'
"""


@click.command(epilog=EXAMPLES)
@click.argument("directory", metavar="[DIR]", type=Place(path_type=Path), envvar="PYLOG_DATA",
                default="data")
@as_json
def stat(directory: Path, as_json: bool) -> None:
    """Say how much there is in a broker, or in one log.

    DIR is the directory of either; of a log it also tells how old, and how much is on disk for
    certain.  [env var: PYLOG_DATA; default: data]
    """
    if not directory.exists():
        raise click.ClickException(
            f"there is nothing at {directory}; `pylog produce -d {directory} TOPIC` makes a "
            f"broker, `pylog append {directory}` a log")
    if is_broker(directory):
        figures = figures_of_broker(directory)
        lines = [*summary_of_broker(figures)]
    else:
        with pylog.Log(directory, mode="r") as log:
            figures = figures_of(log)
        lines = [*summary(figures)]
    if as_json:
        click.echo(json.dumps(figures))
        return
    for name, text in lines:
        click.echo(f"{name:<11} {text}")
    if figures.get("topics"):
        click.echo(f"\n{topics_table(figures['topics'])}")


# ---- of a broker --------------------------------------------------------------------------------


def figures_of_broker(directory: Path) -> dict[str, Any]:
    """As `Admin.stats`, with the topics themselves."""
    with administration(directory) as (_, admin):
        topics = [totals(one) for one in admin.describe_topics().values()]
        groups = len(admin.list_groups())
    sums = {name: sum(one[name] for one in topics)
            for name in ("partitions", "records", "size_bytes")}
    return {"path": os.path.abspath(directory), "topics": topics, "groups": groups, **sums}


def summary_of_broker(figures: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """(Name, text) of each line."""
    yield "path", figures["path"]
    count = len(figures["topics"])
    yield "topics", f"{count:,}, with {counted(figures['partitions'], 'partition')}"
    yield "groups", f"{figures['groups']:,}"
    yield "records", f"{figures['records']:,}, going by their offsets"
    yield "size", f"{figures['size_bytes']:,} bytes, preallocated ones included"


# ---- of a log -----------------------------------------------------------------------------------


def figures_of(log: pylog.Log) -> dict[str, Any]:
    """`Log.stats`, and the time of the first and the last record."""
    figures = _figures_now(log)
    for _ in range(LOOKS):
        if log.start_offset == figures["start_offset"]:
            break    # nothing was deleted behind our back, which would look like damage
        figures = _figures_now(log)
    return figures


def _figures_now(log: pylog.Log) -> dict[str, Any]:
    figures = log.stats()
    options = figures.pop("options")
    start, end = figures["start_offset"], figures["readable_offset"]
    try:
        gaps = gaps_of(log, start, end)
    except PylogError:
        gaps = None    # damage hides them
    first, last = start, end - 1
    if gaps and gaps[0][0] == start:
        first = gaps[0][1]
    if gaps and gaps[-1][1] == end:    # nothing was appended since
        last = gaps[-1][0] - 1
    return {
        **figures,
        "gaps": gaps,
        "segments": sum(1 for _ in log.path.glob("[0-9]" * 20 + ".log")),
        "first_timestamp": timestamp_at(log, first) if first <= last else None,
        "last_timestamp": timestamp_at(log, last) if first <= last else None,
        "options": options,
    }


def gaps_of(log: pylog.Log, start: int, end: int) -> list[tuple[int, int]] | None:
    """The ranges of offsets between `start` and `end` that recoveries skipped.

    Cost: for each recovery a look-up, and about 30 more where it left a gap.
    """
    meta = _native.load_meta(os.fsencode(log.path))
    if meta is None:
        return None
    gaps, floor = [], start
    for _, base in meta["epochs"]:
        if start < base <= end and (missing := first_missing(log, floor, base)) < base:
            gaps.append((missing, base))
        floor = max(floor, base)
    return gaps


def first_missing(log: pylog.Log, low: int, base: int) -> int:
    """The first from `low` on that bears no record; all from there to `base` are missing."""
    high = base
    while low < high:
        middle = high - 1 if high == base else (low + high) // 2    # mostly nothing is missing
        if is_there(log, middle):
            low = middle + 1
        else:
            high = middle
    return low


def is_there(log: pylog.Log, offset: int) -> bool:
    try:
        log.get(offset)
    except RecordNotFoundError:
        return False
    return True


def timestamp_at(log: pylog.Log, offset: int) -> int | None:
    """None where there is no record, or no whole one."""
    try:
        chunk = log.fetch(offset, 1, 1)
        return chunk[0].timestamp if len(chunk) else None
    except PylogError:
        return None


def summary(figures: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """(Name, text) of each line of `pylog stat`."""
    options, start, end = figures["options"], figures["start_offset"], figures["end_offset"]
    yield "path", figures["path"]
    yield "offsets", f"[{start}, {end})"
    yield from (("skipped", f"[{first}, {after}) by a recovery, which uses no offset twice")
                for first, after in figures["gaps"] or ())
    yield "records", records_text(figures)
    if figures["first_timestamp"] is not None:
        yield "first", instant(figures["first_timestamp"])
    if figures["last_timestamp"] is not None:
        yield "last", instant(figures["last_timestamp"])
    yield "size", (f"{figures['size_bytes']:,} bytes in {figures['segments']} "
                   f"segment{'s' * (figures['segments'] != 1)}, preallocated ones included")
    yield "durability", f"{options['durability']}; on disk for certain: below offset " \
                        f"{figures['durable_offset']}"
    yield "options", ", ".join(f"{name} {options[name]}" for name in (
        "segment_bytes", "max_message_bytes", "index_interval_bytes", "flush_interval_ms",
        "timestamp_type"))
    yield "epoch", str(figures["leader_epoch"])
    if figures["is_poisoned"]:
        yield "POISONED", "a flush to disk failed; the log takes no appends until it is reopened"


def records_text(figures: dict[str, Any]) -> str:
    """How many there are, where no damage at the ends hides it."""
    start, end, gaps = figures["start_offset"], figures["end_offset"], figures["gaps"]
    count = end - start - sum(after - first for first, after in gaps or ())
    if gaps is None or (count and None in (figures["first_timestamp"], figures["last_timestamp"])):
        return "unknown: something is damaged, see `pylog check`"
    return f"{count:,}, going by their offsets"
