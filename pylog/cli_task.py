"""`pylog task`: how the tasks of an app stand, and what they returned."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from pylog.broker import Broker
from pylog.cli_options import aligned, as_json, data_dir, open_broker
from pylog.errors import PylogTimeoutError, TaskFailedError
from pylog.patterns import App, TaskStatus
from pylog.patterns.task_status import DONE, FAILED, QUEUED, RETRYING, RUNNING, UNKNOWN, status_of

EXAMPLES = """\b
Examples:
  pylog task ls
  pylog task ls --app shop --state failed
  pylog task show 41535a2d1747483cadb2fff8b50ae372
  pylog task result 41535a2d1747483cadb2fff8b50ae372 --wait 10
"""
LS_EXAMPLE = "Example: pylog task ls --state running"
SHOW_EXAMPLE = "Example: pylog task show 41535a2d1747483cadb2fff8b50ae372"
RESULT_EXAMPLE = "Example: pylog task result 41535a2d1747483cadb2fff8b50ae372 --wait 10 | jq ."

app_option = click.option("-a", "--app", "name", metavar="NAME", default="app", show_default=True,
                          help="Whose: App(..., name=NAME).")
id_argument = click.argument("task_id", metavar="ID")


@click.group(epilog=EXAMPLES)
def task() -> None:
    """See how tasks stand, and what they returned.

    A task that has failed for good is a dead letter: `pylog dlq replay` sends it again. How many
    wait is in `pylog queue stats`, the workers are started by `pylog run`.
    """


@contextmanager
def opened(data_dir: Path, name: str) -> Iterator[tuple[Broker, App]]:
    """The broker, and the app without its functions. Raises ClickException where there is none."""
    with open_broker(data_dir) as broker:
        if f"{name}.results" not in broker.topics():
            apps = [one.removesuffix(".results") for one in sorted(broker.topics())
                    if one.endswith(".results")]
            raise click.ClickException(
                f"no app {name!r} has sent a task yet; "
                + (f"there is {', '.join(apps)}: name it with --app" if apps else
                   "a program does: `task.send(...)` of pylog.patterns.App"))
        with App(broker, name) as app:
            yield broker, app


@task.command(epilog=LS_EXAMPLE)
@data_dir
@app_option
@click.option("-s", "--state", type=click.Choice([QUEUED, RUNNING, RETRYING, DONE, FAILED]),
              help="Only those.")
@click.option("-n", "--max", "count_max", metavar="N", type=click.IntRange(min=1), default=50,
              show_default=True, help="Only the last N.")
@as_json
def ls(data_dir: Path, name: str, state: str | None, count_max: int, as_json: bool) -> None:
    """List tasks, the one that changed last at the end."""
    with opened(data_dir, name) as (_, app):
        found = [one for one in app.statuses() if state in (None, one.state)][-count_max:]
    if as_json:
        for one in found:
            click.echo(json.dumps(one._asdict()))
    elif found:
        click.echo(aligned(("ID", "TASK", "STATE", "ATTEMPT", "PROGRESS", "CHANGED", "MESSAGE"),
                           [row_of(one) for one in found]))
    else:
        click.echo("there is none", err=True)


def row_of(status: TaskStatus) -> tuple[object, ...]:
    return (status.id, status.task, status.state, status.attempt, f"{status.progress:.0%}",
            time.strftime("%H:%M:%S", time.localtime(status.updated)), status.message)


@task.command(epilog=SHOW_EXAMPLE)
@id_argument
@data_dir
@app_option
@as_json
def show(task_id: str, data_dir: Path, name: str, as_json: bool) -> None:
    """Show all that became of a task, a line for each change."""
    with opened(data_dir, name) as (broker, _):
        key = task_id.encode()
        history = [status_of(one) for one in broker.read(f"{name}.results") if one.key == key]
    history.sort(key=lambda one: one.state != QUEUED)    # told when it is sent, and may be begun
    if not history:
        raise unknown(task_id)
    for one in history:
        if as_json:
            click.echo(json.dumps(one._asdict()))
    if not as_json:
        click.echo(aligned(("CHANGED", "TASK", "STATE", "ATTEMPT", "PROGRESS", "MESSAGE"),
                           [(moment(one.updated), *row_of(one)[1:5], one.message)
                            for one in history]))


def moment(seconds: float) -> str:
    """Local time, to the millisecond."""
    return time.strftime("%H:%M:%S", time.localtime(seconds)) + f".{int(seconds * 1000) % 1000:03d}"


@task.command(epilog=RESULT_EXAMPLE)
@id_argument
@data_dir
@app_option
@click.option("-w", "--wait", type=click.FloatRange(min=0), default=0.0, metavar="SECONDS",
              help="For it to be finished.  [default: not at all]")
def result(task_id: str, data_dir: Path, name: str, wait: float) -> None:
    """Print what a task returned, as JSON. Fails if it has failed, or is not finished."""
    with opened(data_dir, name) as (_, app):
        found = app.result(task_id)
        try:
            value: Any = found.result(wait)
        except PylogTimeoutError as error:
            raise unfinished(found.status(), str(error)) from None
        except TaskFailedError as error:
            raise click.ClickException(str(error)) from None
    click.echo(json.dumps(value))


def unfinished(status: TaskStatus, words: str) -> click.ClickException:
    return unknown(status.id) if status.state == UNKNOWN else click.ClickException(words)


def unknown(task_id: str) -> click.ClickException:
    return click.ClickException(
        f"nothing is known of the task {task_id!r}, or no more; `pylog task ls` lists those that "
        "are remembered")
