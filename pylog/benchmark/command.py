"""The words of `pylog bench`: options in, a table and a JSON file out."""

import contextlib
import json
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from pylog import hardware
from pylog.benchmark import comparison
from pylog.benchmark.ground import ground, need_directory, need_room, size_text
from pylog.benchmark.runner import Run, measure
from pylog.benchmark.settings import (
    DISK_MB_MIN,
    PROCESSES_MAX,
    RECORDS_MAX,
    SECONDS_MAX,
    SIZE_MAX,
    SIZE_MIN,
    WORKLOADS,
    Settings,
    need_settings,
)
from pylog.benchmark.table import show
from pylog.log import DURABILITIES
from pylog.report import counted

SECONDS = 2.0
STDOUT = Path("-")


def to_directory(ctx: click.Context, param: click.Parameter, value: str) -> Path:
    """The callback of DIR: "" would be the working directory."""
    if not value:
        raise click.BadParameter("it is empty; name a directory (. for this one)", ctx, param)
    return Path(value)


def to_workloads(ctx: click.Context, param: click.Parameter, value: tuple[str, ...],
                 ) -> tuple[str, ...]:
    """The callback of --only: names apart by commas, in the order in which they run."""
    if not value:
        return WORKLOADS
    names = {name.strip() for text in value for name in text.split(",")}
    if unknown := sorted(names - set(WORKLOADS)):
        raise click.BadParameter(
            f"{unknown[0]!r} is no workload; use some of {', '.join(WORKLOADS)}", ctx, param)
    return tuple(name for name in WORKLOADS if name in names)


def to_seconds(ctx: click.Context, param: click.Parameter, value: float | None) -> float | None:
    """The callback of --seconds: click's range lets "nan" through."""
    if value is not None and not 0 < value <= SECONDS_MAX:
        raise click.BadParameter(f"{value} is not in the range 0<x<={SECONDS_MAX}.", ctx, param)
    return value


@click.command(epilog="Example: pylog bench --only append,fetch --size 1000")
@click.argument("directory", metavar="[DIR]", default=".", type=click.Path(),
                callback=to_directory)
@click.option("--only", metavar="NAMES", multiple=True, callback=to_workloads,
              help=f"Some of {', '.join(WORKLOADS)}.")
@click.option("--size", type=click.IntRange(SIZE_MIN, SIZE_MAX), default=100, show_default=True,
              help="Bytes of a value.")
@click.option("--seconds", type=float, metavar="S", callback=to_seconds,
              help=f"How long each measured part takes, at most.  [default: {SECONDS:g}]")
@click.option("--records", type=click.IntRange(1, RECORDS_MAX), metavar="N",
              help="Instead: how many each process handles in a part; of pings and syncs at most "
              "10,000.")
@click.option("--processes", type=click.IntRange(1, PROCESSES_MAX), default=1, show_default=True,
              help="How many write, or read, at once.")
@click.option("--durability", type=click.Choice(DURABILITIES), default="os", show_default=True,
              help="Of all logs but that of `fsync`.")
@click.option("-z", "--compression", type=click.Choice(["none", "lz4"]), default="none",
              show_default=True, help="Of append_many, and of what fetch and columns read.")
@click.option("--disk-mb", type=click.IntRange(DISK_MB_MIN, 10**7), default=2048, metavar="MB",
              show_default=True, help="What a log may take with --seconds; a fast disk ends there.")
@click.option("--json", "json_path", metavar="FILE", type=click.Path(dir_okay=False,
              allow_dash=True, path_type=Path), help="Write the figures there, too; - is stdout, "
              "and no table.")
@click.option("--against", metavar="FILE", type=click.Path(exists=True, dir_okay=False,
              path_type=Path), help="Compare with what --json wrote; needs the same options.")
def bench(
    directory: Path, only: tuple[str, ...], size: int, seconds: float | None, records: int | None,
    processes: int, durability: Any, compression: str, disk_mb: int, json_path: Path | None,
    against: Path | None,
) -> None:
    """Measure what pylog does on this machine and disk.

    Works in a directory of its own inside DIR (the working directory, if not told), which is
    removed afterwards; touches no log that was there. Needs disk, and says how much first.
    """
    if seconds is not None and records is not None:
        raise click.UsageError("--seconds and --records both end a part: use one")
    if seconds is None and records is None:
        seconds = SECONDS
    settings = Settings(only, size, seconds, records, processes, durability, compression, disk_mb)
    need_settings(settings)
    need_directory(directory)
    need_place_for(json_path)
    old = comparison.load(against) if against else None
    machine = hardware.describe(directory)
    settings = fit_file_system(settings, str(machine["file_system"]))
    if old and against:
        comparison.need_same(old, settings, against)
        warn_of_other_machine(old.machine, machine)
    free = need_room(directory, settings.disk_bytes)
    click.echo(f"needs up to {size_text(settings.disk_bytes)} at {directory.resolve()} "
               f"({size_text(free)} free), and removes it afterwards", err=True)
    run = Run(machine, settings)
    warn_of_cores(settings, float(machine["load"]))
    progress = say_progress()
    try:
        with ground(directory) as place:
            measure(run, place, progress)
    finally:    # what was measured before an error is told, too
        progress("")
        if run.unmeasured != [*settings.only]:
            tell(run, json_path, None if old is None else comparison.pairs(old, run))


def tell(run: Run, json_path: Path | None, compared: list[comparison.Pair] | None) -> None:
    """Prints the figures, or writes them. A file of an older run stays, where this one failed."""
    told = json.dumps(run.to_dict(), indent=1) + "\n"
    if json_path == STDOUT:
        click.echo(told, nl=False)
    else:
        show(run, compared)
        if json_path and not run.unmeasured:
            json_path.write_text(told, encoding="utf-8")
    if run.unmeasured:
        click.echo(f"warning: not measured: {', '.join(run.unmeasured)}"
                   f"{f'; {json_path} is not written' * (json_path not in (None, STDOUT))}",
                   err=True)


def fit_file_system(settings: Settings, kind: str) -> Settings:
    """Leaves `fsync` out where a log cannot be durable; who asks for it by name is refused."""
    if kind not in hardware.IN_MEMORY or "fsync" not in settings.only:
        return settings
    if settings.only != WORKLOADS:
        raise click.ClickException(
            f"the file system is {kind}, which keeps nothing over a power loss: leave fsync out of "
            "--only, or name a directory on a disk")
    click.echo(f"warning: fsync is left out: {kind} keeps nothing over a power loss", err=True)
    return replace(settings, only=tuple(name for name in WORKLOADS if name != "fsync"))


def need_place_for(json_path: Path | None) -> None:
    """Told before the minutes of work that would be lost."""
    if json_path is None or json_path == STDOUT:
        return
    folder = json_path.resolve().parent
    if not folder.is_dir() or not os.access(json_path if json_path.exists() else folder, os.W_OK):
        raise click.ClickException(f"{json_path} cannot be written; name a file in a directory "
                                   "that is there and yours")
    if json_path.exists() and not is_of_the_bench(json_path):
        raise click.ClickException(f"{json_path} is there, and no figures of the bench; remove it, "
                                   "or name another")


def is_of_the_bench(path: Path) -> bool:
    """Figures may be replaced by newer ones, whatever else bears the name may not."""
    if not path.is_file():
        return True    # a pipe or /dev/stdout
    with contextlib.suppress(ValueError, TypeError, KeyError, RecursionError):
        return bool(json.loads(path.read_bytes())["kind"] == "pylog bench")
    return path.stat().st_size == 0


def warn_of_other_machine(old: hardware.Machine, new: hardware.Machine) -> None:
    if found := hardware.differences(old, new):
        click.echo(f"warning: the old figures are of another machine: {'; '.join(found)}", err=True)


def warn_of_cores(settings: Settings, load: float) -> None:
    cores = len(os.sched_getaffinity(0))
    wanted = max(settings.processes, 2 if "latency" in settings.only else 1)
    if cores < wanted:
        click.echo(f"warning: {wanted} processes at once, and {counted(cores, 'core')}: "
                   "what they wait for each other is measured, too", err=True)
    if load > cores / 4:
        click.echo(f"warning: the machine has other work (load {load}, {counted(cores, 'core')}): "
                   "figures will be worse, and differ from run to run", err=True)


def say_progress() -> Callable[[str], None]:
    """A line on stderr that tells what runs, where a person looks on."""
    if not sys.stderr.isatty():
        return lambda name: None
    return lambda name: click.echo(f"\r\x1b[K{name}{' ...' * bool(name)}", nl=False, err=True)
