"""`pylog topic`, `du`, `claim`, `backup`, `restore`, `doctor`: what there is in a broker, and its
keeping."""

import contextlib
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from pylog.admin import Admin
from pylog.backup import restore as restore_copy
from pylog.broker import Broker
from pylog.check import check
from pylog.cli_options import (
    Damage,
    Place,
    aligned,
    as_json,
    data_dir,
    need_broker,
    need_topic,
    open_broker,
    progress,
)
from pylog.dump import instant
from pylog.errors import CorruptMetadataError, PylogError, UnsupportedFormatError
from pylog.exits import Exit
from pylog.metadata import Metadata
from pylog.metadata_file import topics_on_disk
from pylog.names import STORE_NAME
from pylog.report import Report
from pylog.topic import TOPIC_CONFIGS, check_name, directory_name

EXAMPLES = """\b
Examples:
  pylog topic create orders -p 3 -c retention.ms=3600000
  pylog topic ls
  pylog topic describe orders
  pylog topic alter orders -c segment.bytes=65536 -c retention.ms=
  pylog topic add-partitions orders 6
  pylog topic delete orders
"""
CREATE_EXAMPLE = "Example: pylog topic create orders -p 3 -c retention.ms=3600000"
LS_EXAMPLE = "Example: pylog topic ls --json | jq -r .topic"
DESCRIBE_EXAMPLE = "Example: pylog topic describe orders"
ALTER_EXAMPLE = "Example: pylog topic alter orders -c retention.ms=3600000 -c segment.bytes="
DELETE_EXAMPLE = "Example: pylog topic delete orders refunds --yes"
ADD_EXAMPLE = "Example: pylog topic add-partitions orders 6"
DU_EXAMPLE = "Example: pylog du -d data"
CLAIMS_EXAMPLE = "Example: pylog claim ls"
BACKUP_EXAMPLE = "Example: pylog backup /backups/monday -d data"
RESTORE_EXAMPLE = "Example: pylog restore /backups/monday -d data"
DOCTOR_EXAMPLES = """\b
Examples:
  pylog doctor -d data
  pylog doctor -d data --rebuild
"""

SPARE_BYTES = 1 << 30       # less room than this is worth a word
SLOW_SYNC_MS = 50.0
SYNCING = "waiting for the disk"


@click.group(epilog=EXAMPLES)
def topic() -> None:
    """Make topics, look at them, change them, delete them."""


def split_configs(ctx: click.Context, param: click.Parameter, value: tuple[str, ...],
                  ) -> dict[str, str | None]:
    """The callback of -c: an empty value is the default again."""
    pairs = [text.partition("=") for text in value]
    if wrong := [name for name, found, _ in pairs if not found]:
        raise click.BadParameter(f"{wrong[0]!r} is not NAME=VALUE", ctx, param)
    return {name: text or None for name, _, text in pairs}


names = click.argument("names", metavar="TOPIC...", nargs=-1, required=True)
configs = click.option("-c", "--config", "configs", metavar="NAME=VALUE", multiple=True,
                       callback=split_configs,
                       help="A config, with Kafka's name; may be repeated.")


@contextlib.contextmanager
def administration(data_dir: Path, make: bool = False) -> Iterator[tuple[Broker, Admin]]:
    with open_broker(data_dir, make=make) as broker, Admin(broker) as admin:
        yield broker, admin


@topic.command(epilog=CREATE_EXAMPLE)
@names
@data_dir
@click.option("-p", "--partitions", type=int, default=1, show_default=True,
              help="Of each topic.")
@configs
def create(names: tuple[str, ...], data_dir: Path, partitions: int,
           configs: dict[str, str | None]) -> None:
    """Make topics, and the broker if there is none."""
    for name in names:
        check_name(name)
    chosen = {name: text for name, text in configs.items() if text is not None}
    with administration(data_dir, make=True) as (_, admin):
        for name in names:
            admin.create_topic(name, partitions, chosen)
            click.echo(f"created {name}", err=True)


@topic.command(epilog=LS_EXAMPLE)
@data_dir
@as_json
def ls(data_dir: Path, as_json: bool) -> None:
    """List the topics, and how much is in each."""
    list_topics(data_dir, as_json)


def list_topics(data_dir: Path, as_json: bool, only: str | None = None) -> None:
    """All of them, or one that must be there."""
    with administration(data_dir) as (broker, admin):
        names = None if only is None else [need_topic(broker, only).name]
        found = [totals(one) for one in admin.describe_topics(names).values()]
    if as_json:
        for one in found:
            click.echo(json.dumps(one))
    elif found:
        click.echo(topics_table(found))
    else:
        click.echo("there are no topics; `pylog topic create TOPIC` makes one", err=True)


def totals(described: dict[str, Any]) -> dict[str, Any]:
    partitions = described["partitions"]
    return {
        "topic": described["topic"], "partitions": len(partitions),
        "records": sum(one["end_offset"] - one["start_offset"] for one in partitions),
        "size_bytes": sum(one["size_bytes"] for one in partitions)}


def topics_table(found: list[dict[str, Any]]) -> str:
    return aligned(("TOPIC", "PARTITIONS", "RECORDS", "BYTES"), [
        (one["topic"], one["partitions"], one["records"], one["size_bytes"]) for one in found])


@topic.command(epilog=DESCRIBE_EXAMPLE)
@click.argument("name", metavar="TOPIC")
@data_dir
@as_json
def describe(name: str, data_dir: Path, as_json: bool) -> None:
    """Show a topic's partitions and configs.

    A * marks what was set.
    """
    with administration(data_dir) as (broker, admin):
        need_topic(broker, name)
        described = admin.describe_topics([name])[name]
        values = admin.describe_configs([name])[name]
    if as_json:
        click.echo(json.dumps({**described, "all_configs": values}))
        return
    click.echo(f"topic {name}, id {described['topic_id']}, made "
               f"{instant(described['created_ms'])}\n")
    click.echo(aligned(("PARTITION", "START", "END", "BYTES"), [
        (one["partition"], one["start_offset"], one["end_offset"], one["size_bytes"])
        for one in described["partitions"]]))
    click.echo()
    click.echo(aligned(("CONFIG", "VALUE", "", "WHAT"), [
        (config, str(value), "*" if config in described["configs"] else "",
         TOPIC_CONFIGS[config].meaning) for config, value in values.items()]))


@topic.command(epilog=ALTER_EXAMPLE)
@click.argument("name", metavar="TOPIC")
@data_dir
@configs
def alter(name: str, data_dir: Path, configs: dict[str, str | None]) -> None:
    """Change configs of a topic, which may be in use.

    NAME= sets one back to its default.
    """
    if not configs:
        raise click.UsageError(f"nothing to change: add -c NAME=VALUE; `pylog topic describe "
                               f"{name}` shows what there is")
    with administration(data_dir) as (broker, admin):
        need_topic(broker, name)
        admin.alter_configs({name: configs})
    click.echo(f"altered {name}: " + ", ".join(
        f"{config}={'default' if text is None else text}" for config, text in configs.items()),
        err=True)


@topic.command(epilog=DELETE_EXAMPLE)
@names
@data_dir
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
def delete(names: tuple[str, ...], data_dir: Path, yes: bool) -> None:
    """Delete topics and all their records. Asks first, on a terminal."""
    with administration(data_dir) as (broker, admin):
        for name in names:
            need_topic(broker, name)
        count = sum(totals(one)["records"] for one in admin.describe_topics(names).values())
        if not yes:
            if not sys.stdin.isatty():
                raise click.UsageError(f"there is nobody to ask: add --yes to delete "
                                       f"{', '.join(names)} with {count:,} records")
            click.confirm(f"Delete {', '.join(names)} with {count:,} records?", abort=True,
                          err=True)
        admin.delete_topics(names)
    click.echo(f"deleted {', '.join(names)}", err=True)


@topic.command("add-partitions", epilog=ADD_EXAMPLE)
@click.argument("name", metavar="TOPIC")
@click.argument("total", type=int)
@data_dir
def add_partitions(name: str, total: int, data_dir: Path) -> None:
    """Give a topic more partitions, TOTAL in all. Keys may land elsewhere from then on."""
    with administration(data_dir) as (broker, admin):
        need_topic(broker, name)
        admin.create_partitions({name: total})
    click.echo(f"{name} has {total} partitions now", err=True)


# ---- the broker as a whole ----------------------------------------------------------------------


@click.command(epilog=DU_EXAMPLE)
@data_dir
@as_json
def du(data_dir: Path, as_json: bool) -> None:
    """Tell what takes the room on the disk, the largest first."""
    open_broker(data_dir).close()
    found = sorted(((room_of(entry), entry.name) for entry in os.scandir(data_dir)), reverse=True)
    rows = [{"path": name, "size_bytes": size} for size, name in found]
    total = sum(size for size, _ in found)
    if as_json:
        for row in rows:
            click.echo(json.dumps(row))
        return
    click.echo(aligned(("BYTES", "PATH"), [(size, name) for size, name in found]
                       + [(total, str(data_dir))]))


def room_of(entry: "os.DirEntry[str]") -> int:
    """Blocks that are taken, and not how long a file says it is; 0 where it is gone again."""
    try:
        if not entry.is_dir(follow_symlinks=False):
            return entry.stat(follow_symlinks=False).st_blocks * 512
        return sum(room_of(inner) for inner in os.scandir(entry.path))
    except FileNotFoundError:
        return 0


@click.group(epilog=CLAIMS_EXAMPLE)
def claim() -> None:
    """Look at claims: names that one process at a time holds."""


@claim.command("ls", epilog=CLAIMS_EXAMPLE)
@data_dir
@as_json
def list_claims(data_dir: Path, as_json: bool) -> None:
    """List the claims that are held, and by which process."""
    with open_broker(data_dir) as broker:
        found = broker.claims()
    if as_json:
        for one in found:
            click.echo(json.dumps(one._asdict()))
    elif found:
        click.echo(aligned(("CLAIM", "PID"), [(one.name, str(one.pid)) for one in found]))
    else:
        click.echo("nobody holds a claim", err=True)


@click.command(epilog=BACKUP_EXAMPLE)
@click.argument("target", metavar="TARGET", type=Place(path_type=Path))
@data_dir
def backup(target: Path, data_dir: Path) -> None:
    """Copy a broker to TARGET while it is used.

    The copy is proved before it is there. Files that no longer change are hard links on the same
    file system: a copy for another disk goes to that disk.
    """
    with administration(data_dir) as (_, admin), progress(then=SYNCING) as show:
        ends = admin.backup(target, on_progress=show)
    for topic in sorted({one.topic for one, end in ends.items() if end is None}):
        click.echo(f"left out: the topic {topic} was deleted meanwhile", err=True)
    count = sum(end is not None for end in ends.values())
    click.echo(f"copied {count} partitions to {target}; `pylog restore {target} -d NEW` puts them "
               "back", err=True)


@click.command(epilog=RESTORE_EXAMPLE)
@click.argument("source", metavar="COPY", type=Place(path_type=Path, exists=True))
@data_dir
def restore(source: Path, data_dir: Path) -> None:
    """Put a copy back, to where no broker is. The copy stays."""
    with progress(then=SYNCING) as show:
        restore_copy(source, data_dir, show)
    click.echo(f"restored {source} to {data_dir}", err=True)


@click.command(epilog=DOCTOR_EXAMPLES)
@data_dir
@click.option("--rebuild", is_flag=True, help="Make damaged metadata (what topics there are) anew "
              "from the logs. Says first what that will be, and asks.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
def doctor(data_dir: Path, rebuild: bool, yes: bool) -> None:
    """Look for what is wrong, or slow, with a broker.

    Proves all files, as `pylog check` does those of one log. Exits with 4 if some are damaged, with
    3 if there are files that it may not read.
    """
    if rebuild:
        rebuild_metadata(data_dir, yes)
    try:
        with open_broker(data_dir) as broker:
            entries = broker.topics().values()
    except CorruptMetadataError as error:
        raise Damage(str(error)) from None
    places = [data_dir / directory_name(entry.name, number)
              for entry in entries for number in range(entry.partitions)]
    click.echo(f"ok    {len(entries)} topics, {len(places)} partitions")
    tell_disk(data_dir)
    # Not through the broker: what is damaged could not be opened.
    reports = {place: report for place in places if (report := check_if_there(place))}
    bad = {place: report for place, report in reports.items() if not report.ok}
    for place, report in bad.items():
        click.echo(f"BAD   {place.name}: {report.findings[0].what}; `pylog check {place}` tells "
                   "all")
    if damaged := sum(report.faults > 0 for report in bad.values()):
        raise Damage(f"{damaged} of {len(reports)} partitions are damaged")
    if bad:
        raise click.exceptions.Exit(Exit.INCONCLUSIVE)
    click.echo(f"ok    {len(reports)} partitions proved, "
               f"{sum(report.records for report in reports.values()):,} records")


def check_if_there(place: Path) -> Report | None:
    """None: nobody has used the partition, or its topic was deleted while it was looked at."""
    try:
        return check(place) if place.exists() else None
    except PylogError:
        if place.exists():
            raise
        return None


def rebuild_metadata(data_dir: Path, yes: bool) -> None:
    """What `Metadata.rebuild` does, told before it is done."""
    need_broker(data_dir)
    with contextlib.suppress(CorruptMetadataError, UnsupportedFormatError):
        Metadata(data_dir).close()
        click.echo("ok    the metadata are whole: there is nothing to rebuild")
        return
    entries = topics_on_disk(data_dir)
    click.echo(f"{data_dir / STORE_NAME} will be set aside, and made anew from the logs with\n" +
               aligned(("TOPIC", "PARTITIONS", "CONFIGS"), [
                   (one.name, one.partitions, ", ".join(
                       f"{name}={value}" for name, value in sorted(one.configs.items())))
                   for one in entries]) +
               "\nand new topic ids. Retention keeps all then, and what else no log holds is at "
               "its default; `pylog topic alter` sets it.", err=True)
    if not yes:
        if not sys.stdin.isatty():
            raise click.UsageError("nothing was changed, and there is nobody to ask: add --yes to "
                                   "rebuild")
        click.confirm("Rebuild?", abort=True, err=True)
    Metadata.rebuild(data_dir).close()
    click.echo(f"rebuilt {data_dir / STORE_NAME}; the old one is beside it", err=True)


def tell_disk(data_dir: Path) -> None:
    free = shutil.disk_usage(data_dir).free
    click.echo(f"{'ok  ' if free > SPARE_BYTES else 'LOW '}  {free:,} bytes are free")
    probe = data_dir / f".doctor-{os.getpid()}"
    try:
        with open(probe, "wb") as file:
            file.write(bytes(4096))
            file.flush()
            started = time.perf_counter()
            os.fdatasync(file.fileno())
            took_ms = (time.perf_counter() - started) * 1000
    finally:
        probe.unlink(missing_ok=True)
    click.echo(f"{'ok  ' if took_ms < SLOW_SYNC_MS else 'SLOW'}  a sync of the disk takes "
               f"{took_ms:.1f} ms")
