"""The command line `pylog`: lines into a log and out of it, and what its files hold.

Data goes to stdout, all else to stderr. Nothing that reads ever makes or changes a log. How it
ends is told by the exit codes of pylog/exits.py; an error is one line that says what to do next.
"""

import importlib
import json
import logging
import os
import sys
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import click

import pylog
from pylog import envelope
from pylog.cli_options import (
    Damage,
    Place,
    as_json,
    directory,
    key_separator,
    need_log,
    parser_of,
    progress,
    split_header,
    to_place,
)
from pylog.dump import dump_items, line_of
from pylog.envelope import BadLine, Headers
from pylog.errors import CorruptRecordError, PylogError
from pylog.exits import Exit
from pylog.log import DURABILITIES, Start
from pylog.names import is_log_file
from pylog.report import UNKNOWN_CODEC
from pylog.streams import LogIntake, Outlet, Rows

EXAMPLES = """\b
Examples:
  seq 1000000 | pylog produce numbers; pylog consume numbers --from -10 -e
  seq 1000000 | pylog append data/numbers
  pylog read data/numbers --from -10
  pylog read data/numbers --from 2026-11-23T10:00 --json | jq .value
  pylog read data/numbers --follow
  pylog read data/numbers --json | pylog append data/copy --json
  pylog stat data/numbers; pylog check data/numbers
  pylog dump data/numbers | head
  pylog bench --size 1000
  pylog stress /tmp/run --nemesis kill,pause
"""

APPEND_EXAMPLE = "Example: seq 1000000 | pylog append data/numbers"
READ_EXAMPLE = "Example: pylog read data/numbers --from -10 --json"
CHECK_EXAMPLE = "Example: pylog check data/numbers"
DUMP_EXAMPLE = "Example: pylog dump data/numbers --records | head"

EXIT_CODES = """\b
Exit codes: 0 fine; 1 failed; 2 usage; 3 could not tell; 4 damage or an
anomaly found; 130 interrupted with Ctrl-C.
"""

COMPLETION = """\b
Tab completes commands, topics and groups after
  eval "$(_PYLOG_COMPLETE=bash_source pylog)"    (or zsh_source)
"""

# Commands with a file of their own: imported when they are called, and not by `pylog append`.
LAZY = {
    "audit": "pylog.cli_audit:audit",
    "backup": "pylog.cli_topics:backup",
    "bench": "pylog.benchmark.command:bench",
    "bus": "pylog.cli_bus:bus",
    "cat": "pylog.cli_records:cat",
    "claim": "pylog.cli_topics:claim",
    "consume": "pylog.cli_records:consume",
    "dlq": "pylog.cli_dlq:dlq",
    "doctor": "pylog.cli_topics:doctor",
    "du": "pylog.cli_topics:du",
    "events": "pylog.cli_events:events",
    "export": "pylog.cli_export:export",
    "graph": "pylog.live:graph",
    "group": "pylog.cli_groups:group",
    "idempotency": "pylog.cli_idempotency:idempotency",
    "import": "pylog.cli_export:import_",
    "outbox": "pylog.cli_outbox:outbox",
    "produce": "pylog.cli_records:produce",
    "projection": "pylog.cli_projection:projection",
    "queue": "pylog.cli_queue:queue",
    "request": "pylog.cli_request:request",
    "restore": "pylog.cli_topics:restore",
    "rooms": "pylog.cli_rooms:rooms",
    "run": "pylog.cli_run:run",
    "saga": "pylog.cli_saga:saga",
    "schema": "pylog.cli_schema:schema",
    "share": "pylog.cli_share:share",
    "stat": "pylog.cli_stat:stat",
    "stress": "pylog.stress.command:stress",
    "task": "pylog.cli_task:task",
    "top": "pylog.live:top",
    "topic": "pylog.cli_topics:topic",
}


class Commands(click.Group):
    """A group whose commands end as pylog/exits.py says."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*super().list_commands(ctx), *LAZY])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if place := LAZY.get(cmd_name):
            module, _, attribute = place.partition(":")
            command: click.Command = getattr(importlib.import_module(module), attribute)
            return command
        return super().get_command(ctx, cmd_name)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except CorruptRecordError as error:
            raise Damage(str(error)) from None
        except (PylogError, BadLine) as error:
            raise click.ClickException(str(error)) from None
        except OSError as error:
            place = error.filename or "input or output"
            raise click.ClickException(f"{place}: {error.strerror or error}") from None
        except KeyboardInterrupt:
            raise click.exceptions.Exit(Exit.INTERRUPTED) from None


@click.group(
    cls=Commands,
    epilog=f"{EXAMPLES}\n\n{COMPLETION}\n\n{EXIT_CODES}",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(pylog.__version__, message="pylog %(version)s")
def commands() -> None:
    """Kafka's log in a directory: topics in a broker's directory, or one log in its own.

    Any number of processes may write, read, follow and check the same at once; there is no server.
    """
    logging.getLogger("pylog").setLevel(logging.ERROR)    # what it warns of is said here, shorter


# ---- append -------------------------------------------------------------------------------------


@commands.command(epilog=APPEND_EXAMPLE)
@directory
@click.argument("files", metavar="[FILE]...", nargs=-1,
                type=click.Path(exists=True, dir_okay=False, allow_dash=True))
@key_separator
@click.option("--json", "as_json", is_flag=True,
              help="Lines are JSON, as `pylog read --json` writes them.")
@click.option("-k", "--key", metavar="TEXT", help="The key of every record.")
@click.option("-H", "--header", "headers", metavar="NAME=VALUE", multiple=True,
              callback=split_header, help="A header of every record; may be repeated.")
@click.option("--durability", type=click.Choice(DURABILITIES),
              help="Of a new log: os survives kill -9, interval and fsync power cuts too.")
@click.option("-z", "--compression", type=click.Choice(["none", "lz4"]),
              help="Of what is appended now.")
@click.option("--flush", is_flag=True, help="Return when all is on disk, whatever the durability.")
@click.option("-q", "--quiet", is_flag=True, help="Do not say how many were appended.")
def append(
    directory: Path, files: tuple[str, ...], key_separator: bytes | None, as_json: bool,
    key: str | None, headers: Headers, durability: Any, compression: str | None, flush: bool,
    quiet: bool,
) -> None:
    """Append lines, of FILEs or stdin, to a log.

    The log in DIR is made with the first line, if there is none. A line is a record; the newline is
    not part of it, every other byte is. What stands in a pipe is appended before more is waited
    for.
    """
    parse = parser_of(key, key_separator, headers, as_json)
    need_own_directory(directory)
    intake = LogIntake(partial(open_to_append, directory, durability, compression),
                       parse, is_json=as_json, is_compressed=compression == "lz4")
    with closing(intake):
        if (directory / "log.meta").exists():
            intake.open()    # what is wrong with it is told before a line is waited for
        try:
            intake.take_all(files or ("-",))
            log = intake.opened()
            if flush:
                log.flush()
        finally:
            if not quiet:
                click.echo(what_was_appended(intake, directory), err=True)


def need_own_directory(directory: Path) -> None:
    """A new log goes into no directory of other things: it would be lost among them, or they be
    taken for its files."""
    names = sorted(os.listdir(directory)) if directory.is_dir() else []
    foreign = [name for name in names if not is_log_file(name)]
    if foreign and "log.meta" not in names:
        raise click.ClickException(
            f"{directory} is no log, and not empty (there is {foreign[0]!r}); a log has a "
            f"directory of its own: name a new or an empty one, as {directory / 'log'}")


def open_to_append(directory: Path, durability: Any, compression: str | None) -> pylog.Log:
    log = pylog.Log(directory, durability=durability, compression=compression)
    tell_recovery(log)
    return log


def tell_recovery(log: pylog.Log) -> None:
    """What opening had to repair, if records may be gone by it."""
    found = log.recovered
    if found is None or not found.is_lossy:
        return
    aside = ""
    if found.cut_bytes:
        aside = (f"; the {found.cut_bytes:,} bytes behind were set aside, look at them with "
                 f"`pylog dump --records {found.path}.cut-*`")
    click.echo(
        f"note: the log was not closed before a reboot or a copy. Whole batches end at offset "
        f"{found.cut_offset}: {found.why}{aside}; it goes on at offset {found.next_offset}",
        err=True)


def what_was_appended(intake: LogIntake, directory: Path) -> str:
    """The line for stderr. Other writers' records may stand between ours, so no range is told."""
    log, count = intake.log, intake.count
    if log is None:
        return f"appended nothing; no log was made at {directory}"
    what = "nothing"
    if count:
        what = f"{count:,} record{'s' * (count != 1)}"
    if intake.first is not None:
        what += f" from offset {intake.first} on"
    if intake.in_flight:
        what += f", and up to {intake.in_flight:,} more when it stopped"
    return f"appended {what}; {log.path} ends at offset {log.end_offset}"


# ---- read ---------------------------------------------------------------------------------------


@commands.command(epilog=READ_EXAMPLE)
@directory
@click.option("--from", "start", metavar="PLACE", callback=to_place, default="earliest",
              show_default=True, help="earliest, latest, an offset, -N (N before the end), -15m "
              "(that long ago: s, m, h, d) or 2026-11-23T10:00 (local time, or with a zone).")
@click.option("--to", "stop", metavar="PLACE", callback=to_place,
              help="Stop before this place.  [default: the end at the call]")
@click.option("-n", "--max", "count_max", metavar="N", type=click.IntRange(min=0),
              help="Stop after N records.")
@click.option("-f", "--follow", is_flag=True, help="At the end, wait for more.")
@key_separator
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line: offset, timestamp, "
              "key, value, headers; *_b64 in base64 where it is not UTF-8.")
@click.option("--skip-corrupt", is_flag=True,
              help="Step over damaged batches, and exit with 4 if there were any.")
def read(
    directory: Path, start: Start, stop: Start | None, count_max: int | None, follow: bool,
    key_separator: bytes | None, as_json: bool, skip_corrupt: bool,
) -> None:
    """Write a log's values to stdout, a line each.

    Only --json brings back every record as it was: a value may hold newlines.
    """
    if as_json and key_separator:
        raise click.UsageError("--json lines bear the key: leave --key-separator out")
    need_log(directory)
    out = sys.stdout.buffer
    outlet = Outlet(directory, start, stop, count_max=count_max, follow=follow,
                    skips_corrupt=skip_corrupt)
    with closing(outlet):
        for rows in outlet.chunks(before_wait=out.flush):
            out.write(lines_of(rows, key_separator, as_json))
    out.flush()
    if outlet.skipped:
        raise Damage(
            f"stepped over damage {outlet.skipped} times; `pylog check {directory}` tells where")


def lines_of(rows: Rows, separator: bytes | None, as_json: bool) -> bytes:
    """The text of a chunk."""
    if as_json:
        return envelope.json_lines(rows)
    if separator:
        return envelope.keyed_lines(rows, separator)
    if isinstance(rows, list):
        return envelope.plain_lines([record.value for record in rows])
    return envelope.plain_lines(rows.values())


# ---- check --------------------------------------------------------------------------------------


@commands.command(epilog=CHECK_EXAMPLE)
@directory
@as_json
def check(directory: Path, as_json: bool) -> None:
    """Prove a log's files, and name every fault.

    Reads every byte, changes nothing, takes no lock, may run beside writers. Exits with 4 if it
    found damage or an anomaly, with 3 if there are files that it may not read, or records in a
    codec that it cannot read.
    """
    need_log(directory)
    with progress() as on_progress:
        report = pylog.check(directory, on_progress=on_progress)
    click.echo(json.dumps(report.to_dict()) if as_json else str(report))
    if report.faults:
        raise click.exceptions.Exit(Exit.DAMAGE)
    if not report.ok or report.unverified.get(UNKNOWN_CODEC):
        raise click.exceptions.Exit(Exit.INCONCLUSIVE)


# ---- dump ---------------------------------------------------------------------------------------


@commands.command(epilog=DUMP_EXAMPLE)
@click.argument("path", metavar="DIR|FILE", type=Place(path_type=Path))
@click.option("--records", is_flag=True, help="Also the records of each batch, as JSON.")
@as_json
def dump(path: Path, records: bool, as_json: bool) -> None:
    """Show batches and index entries as they lie in the files.

    Of a log's directory, or of one .log, .index or .timeindex file. What the bytes say, whoever
    wrote them: for a proof see `pylog check`. Exits with 4 where bytes are no batch.
    """
    need_log(path)
    out = sys.stdout
    is_damaged = False
    for item in dump_items(path, records):
        is_damaged = is_damaged or item["kind"] == "damage"
        out.write((json.dumps(item) if as_json else line_of(item)) + "\n")
    out.flush()
    if is_damaged:
        raise click.exceptions.Exit(Exit.DAMAGE)
