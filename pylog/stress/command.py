"""The words of `pylog stress`."""

import json
import math
import random
import sys
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from pylog.errors import ConfigurationError
from pylog.exits import Exit
from pylog.log import DURABILITIES
from pylog.stress import trial
from pylog.stress.anomalies import ROWS
from pylog.stress.display import Display, fitted
from pylog.stress.ensemble import Ensemble
from pylog.stress.plan import NEMESES, OF_GROUPS, RANGES, WAYS, WORKLOADS, Options, Plan
from pylog.stress.stage import Stage
from pylog.stress.verdict import exit_of, judge, text_of

EPILOG = """\b
Examples:
  pylog stress /tmp/run --nemesis kill,pause --seconds 60 --seed 7
  pylog stress /tmp/run --workload fanout,durable --nemesis kill
  pylog stress /tmp/again --replay /tmp/run/append/report.json
  pylog stress --plant all
  pylog stress --list
"""


# What has a word beside an option that says all else by itself.
GOES_WITH = {"replay": {"directory", "driver", "as_json"}, "plant": {"seed"}, "lists": set[str]()}


def to_names(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[str, ...]:
    """The callback of options that take names apart by commas."""
    known = {"workload": WORKLOADS, "nemesis": NEMESES, "ways": WAYS}.get(param.name or "")
    names = tuple(name.strip() for name in (value or "").split(",") if name.strip())
    for name in names:
        if known and name not in known:
            raise click.BadParameter(f"{name!r} is none of {', '.join(known)}", ctx, param)
    if value is not None and not names and param.name in ("workload", "ways"):
        raise click.BadParameter(f"name some of {', '.join(known or ())}", ctx, param)
    return tuple(dict.fromkeys(names))    # each once: the second would remove the first one's log


class Seconds(click.FloatRange):
    """A range that "nan" is not in."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        seconds = super().convert(value, param, ctx)
        if math.isnan(seconds):
            self.fail(f"{value} is not in the range {self._describe_range()}.", param, ctx)
        return seconds


def whole(name: str, unit: int = 1) -> click.IntRange:
    """The range of an option of whole numbers."""
    least, most = RANGES[name]
    return click.IntRange(int(least) // unit, int(most) // unit)


def need_company(ctx: click.Context) -> None:
    """UsageError for an option that would be ignored beside another."""
    given = {param.name: param.get_error_hint(ctx) for param in ctx.command.params
             if ctx.get_parameter_source(param.name or "") is ParameterSource.COMMANDLINE}
    for name, company in GOES_WITH.items():
        ignored = [hint for other, hint in given.items() if other not in company | {name}]
        if name in given and ignored:
            raise click.UsageError(f"{given[name]} would ignore {', '.join(ignored)}; leave it out")


@click.command(epilog=EPILOG)
@click.argument("directory", metavar="[DIR]", required=False, type=click.Path(path_type=Path))
@click.option("--workload", metavar="NAMES", default="append", show_default=True,
              callback=to_names, help=f"One after the other: {', '.join(WORKLOADS)}.")
@click.option("--nemesis", metavar="NAMES", callback=to_names,
              help=f"The faults: some of {', '.join(NEMESES)}.  [default: none]")
@click.option("--seconds", type=Seconds(*RANGES["seconds"]), default=10.0, show_default=True,
              help="How long there are faults.")
@click.option("--quiet-seconds", type=Seconds(*RANGES["quiet_seconds"]), default=10.0,
              show_default=True, help="How long, at most, until all is seen.")
@click.option("--seed", type=whole("seed"), help="Of the plan.  [default: drawn]")
@click.option("--rate", type=Seconds(*RANGES["rate"]), default=1.0, show_default=True,
              help="How many times as many faults as usual.")
@click.option("--durability", type=click.Choice(DURABILITIES), help="Of the log.")
@click.option("-z", "--compression", type=click.Choice(["lz4"]), help="Of the log.")
@click.option("--processes", type=whole("processes"), help="Writing processes.")
@click.option("--threads", type=whole("threads"), help="In each of them.")
@click.option("--readers", type=whole("readers"), help="Reading processes.")
@click.option("--ways", metavar="NAMES", callback=to_names,
              help=f"Ways in: some of {', '.join(WAYS)}.")
@click.option("--size-max", type=whole("size_max"), help="Bytes of the largest value.")
@click.option("--segment-bytes", type=whole("segment_bytes"), help="Of the log.")
@click.option("--disk-mb", type=whole("disk_bytes", 1 << 20),
              help="What the log may take before old segments are deleted.")
@click.option("--driver", type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help="The C driver of kill-at: tests/c/build/stress of a checkout.")
@click.option("--replay", metavar="REPORT.json", type=click.Path(exists=True, dir_okay=False,
              path_type=Path), help="The whole plan of an earlier run.")
@click.option("--plant", metavar="NAMES", callback=to_names,
              help="No run: plant these anomalies, or `all`, in a good log, and see them found.")
@click.option("--json", "as_json", is_flag=True, help="The report as JSON on stdout.")
@click.option("--list", "lists", is_flag=True, help="Workloads, nemeses and anomalies; no run.")
@click.pass_context
def stress(
    ctx: click.Context, /, directory: Path | None, workload: tuple[str, ...],
    nemesis: tuple[str, ...], replay: Path | None, plant: tuple[str, ...], as_json: bool,
    lists: bool, seed: int | None, ways: tuple[str, ...], driver: Path | None,
    disk_mb: int | None, **wanted: Any,
) -> None:
    """Stress a log with processes and faults, and check all records.

    All happens in DIR, a new directory, which is left for you to look at; DIR/WORKLOAD/report.json
    is the whole report. Exit code 0: nothing wrong; 4: an anomaly; 3: it could not be told.
    """
    need_company(ctx)
    if lists:
        click.echo(listing())
        return
    if seed is None:
        seed = random.SystemRandom().randrange(1 << 31)
    if plant:
        run_trial(plant, seed)
        return
    if directory is None:
        raise click.UsageError("name a new directory: `pylog stress DIR`")
    if replay:
        plans = [replayed(replay)]
    else:
        wanted |= {"disk_bytes": disk_mb and disk_mb << 20, "ways": ways or None}
        plans = [Plan.draw(Options.for_workload(name, nemeses=nemesis, seed=seed, **wanted))
                 for name in workload]
    if driver is None and any("kill-at" in plan.options.nemeses for plan in plans):
        raise click.UsageError(
            "kill-at needs the C driver with the core's fault points: `make -C tests/c "
            "build/stress` in a checkout of pylog, then --driver tests/c/build/stress")
    reports: list[dict[str, Any]] = []
    for plan in plans:
        reports.append(play(plan, directory / plan.options.workload, driver, as_json))
        if reports[-1]["interrupted"]:
            break
    if as_json:
        click.echo(json.dumps(reports[0] if len(plans) == 1 else reports, indent=1))
    if reports[-1]["interrupted"]:
        raise click.exceptions.Exit(Exit.INTERRUPTED)
    raise click.exceptions.Exit(max(exit_of(report) for report in reports))


def play(plan: Plan, directory: Path, driver: Path | None, as_json: bool) -> dict[str, Any]:
    """One run, from its plan to its report."""
    for line in plan.lines():
        click.echo(fitted(line, sys.stderr), err=True)
    display = Display()
    kind = Ensemble if plan.options.workload in OF_GROUPS else Stage
    stage = kind(plan, directory, display.show, driver and driver.resolve())
    with stage.noting_interrupts():
        with display:
            examination = stage.run()
        report = tell(stage, judge(stage, examination), as_json)
    # A Ctrl-C that came while the report was made ends what would follow it.
    return report | {"interrupted": stage.was_interrupted}


def tell(stage: Stage, report: dict[str, Any], as_json: bool) -> dict[str, Any]:
    """Shows the report, and leaves it in the run's directory."""
    report["repeat"] = f"pylog stress NEW_DIR --replay {stage.layout.report}"
    if not as_json:
        click.echo(fitted(text_of(report), sys.stdout))
    told = json.dumps(report, indent=1) + "\n"
    try:
        stage.layout.report.write_text(told, encoding="utf-8")
    except OSError as error:    # a full disk: what was found is not lost with it
        click.echo(f"warning: {stage.layout.report} could not be written: {error}", err=True)
    else:
        if not as_json:
            click.echo(f"  the whole report: {stage.layout.report}")
    return report


def replayed(path: Path) -> Plan:
    """The plan of a report."""
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        return Plan.from_dict(report["plan"])
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigurationError(f"{path} is no report of `pylog stress`: {error!r}; use the "
                                 "report.json of a run") from None


def run_trial(names: tuple[str, ...], seed: int) -> None:
    """Plants, looks, prints the table; ends with 4 if one was not found."""
    try:
        rows = list(trial.planted(names, seed))
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    click.echo(trial.table(rows))
    if not all(row.is_right for row in rows):
        raise click.exceptions.Exit(Exit.DAMAGE)


def listing() -> str:
    """All the names there are, and what they mean."""
    parts = []
    for title, names in (("Workloads", WORKLOADS), ("Nemeses", NEMESES),
                         ("Anomalies", {row.name: row.meaning for row in ROWS})):
        width = max(map(len, names))
        parts.append("\n".join([f"{title}:", *(f"  {name:{width}}  {meaning}"
                                               for name, meaning in names.items())]))
    return "\n\n".join(parts)
