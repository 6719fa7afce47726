"""`pylog top` and `pylog graph`: a broker that is looked at again and again.

On a terminal one screen is drawn over; elsewhere each look is printed, as text or as JSON.
"""

import json
import math
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import click
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from pylog.broker import Broker
from pylog.cli_options import (
    as_json,
    complete_group,
    complete_topic,
    data_dir,
    need_topic,
    open_broker,
    printable,
)
from pylog.group import group_ids
from pylog.observation import Observation, observe
from pylog.share import share_groups
from pylog.topic import closest

BARS = " ▁▂▃▄▅▆▇█"
PLOT_ROWS_MAX = 16
SAMPLES_MAX = 1000
NAME_WIDTH_MIN = 12    # of the first column; on a narrow screen those on the right give way

TOP_EXAMPLES = """\b
Examples:
  pylog top
  pylog top --interval 0.5
  pylog top -n 1 --json | jq '.groups[] | select(.lag > 1000)'
"""
GRAPH_EXAMPLES = """\b
Examples:
  pylog graph orders
  pylog graph --group billing
  pylog graph orders --group billing --interval 0.2
"""

interval_option = click.option(
    "-i", "--interval", metavar="SECONDS", type=click.FloatRange(0.05, 3600), default=1.0,
    show_default=True, help="Between two looks.")
count_option = click.option("-n", "--count", metavar="N", type=click.IntRange(min=1),
                            help="Stop after N looks.  [default: with Ctrl-C]")


@click.command(epilog=TOP_EXAMPLES)
@data_dir
@interval_option
@count_option
@as_json
def top(data_dir: Path, interval: float, count: int | None, as_json: bool) -> None:
    """Watch topics by rate, groups by lag, members by process."""
    with open_broker(data_dir) as broker, screen(as_json) as show:
        for now in looks(broker, interval, count):
            show(partial(top_view, broker.path, now), asdict(now))


@click.command(epilog=GRAPH_EXAMPLES)
@click.argument("topic", required=False, shell_complete=complete_topic)
@data_dir
@click.option("-g", "--group", shell_complete=complete_group,
              help="The lag of this group, of the topic or of all.")
@interval_option
@count_option
@as_json
def graph(topic: str | None, data_dir: Path, group: str | None, interval: float,
          count: int | None, as_json: bool) -> None:
    """Plot the rate of a topic, or the lag of a group."""
    if topic is None and group is None:
        raise click.UsageError("name a TOPIC, whose rate is plotted, or a --group, whose lag is")
    with open_broker(data_dir) as broker:
        if topic is not None:
            need_topic(broker, topic)
        known = {*group_ids(broker.path), *share_groups(broker.path)}
        if group is not None and group not in known:
            raise click.ClickException(f"there is no group {group!r}{closest(group, known)}; "
                                       "`pylog group ls` and `pylog share ls` show those that "
                                       "there are")
        what = f"lag of {group}" if group is not None else f"records/s into {topic}"
        if group is not None and topic is not None:
            what += f" in {topic}"
        samples: deque[float] = deque(maxlen=SAMPLES_MAX)
        with screen(as_json) as show:
            for now in looks(broker, interval, count, topic):
                samples.append(value_of(now, topic, group))
                show(partial(plot_view, what, samples, interval),
                     {"what": what, "value": samples[-1]})


def value_of(now: Observation, topic: str | None, group: str | None) -> float:
    """What is plotted; 0 for what was deleted."""
    if group is not None:
        return sum(one.lag for one in now.groups if one.name == group)
    return sum(one.rate or 0 for one in now.topics if one.name == topic)


def looks(broker: Broker, interval: float, count: int | None, topic: str | None = None,
          ) -> Iterator[Observation]:
    """An observation each interval, the first after one: before, there is no rate."""
    before = observe(broker, None, topic)
    due = time.monotonic()
    while count is None or count > 0:
        due = max(due + interval, time.monotonic())
        time.sleep(max(0.0, due - time.monotonic()))
        before = observe(broker, before, topic)
        yield before
        count = None if count is None else count - 1


Show = Callable[[Callable[[int, int], RenderableType], dict[str, Any]], None]


@contextmanager
def screen(as_json: bool) -> Iterator[Show]:
    """A function that shows a view, made for a width and a height, or prints the data."""
    console = Console(file=sys.stdout, highlight=False)
    if as_json or not console.is_terminal:
        def write(view: Callable[[int, int], RenderableType], data: dict[str, Any]) -> None:
            if as_json:
                click.echo(json.dumps(data))
            else:
                console.print(view(console.width, 1 << 30))
            sys.stdout.flush()
        yield write
        return
    last: RenderableType | None = None
    with Live(console=console, screen=True, auto_refresh=False) as live:
        def draw(view: Callable[[int, int], RenderableType], data: dict[str, Any]) -> None:
            nonlocal last
            last = view(console.width, console.height)
            live.update(last, refresh=True)
        yield draw
    if last is not None:    # --count is over: the other screen is gone, and what was on it
        console.print(last, no_wrap=True, overflow="ellipsis")


# ---- views --------------------------------------------------------------------------------------

def top_view(path: Path, now: Observation, width: int, height: int) -> RenderableType:
    """Three tables, each of at most a third of the height."""
    rows = max(2, (height - 9) // 3)
    head = Text(f"{path}  {time.strftime('%H:%M:%S')}  {len(now.topics)} topics, "
                f"{sum(one.rate or 0 for one in now.topics):,.0f} records/s, "
                f"{size_text(sum(one.size_bytes for one in now.topics))}", no_wrap=True,
                overflow="ellipsis")
    return Group(
        head, Text(),
        table(("TOPIC", "PARTITIONS", "RECORDS/S", "END", "SIZE"), [
            (one.name, f"{one.partitions:,}", "-" if one.rate is None else f"{one.rate:,.0f}",
             f"{one.end:,}", size_text(one.size_bytes))
            for one in now.topics], rows, width), Text(),
        table(("GROUP", "MEMBERS", "LAG", "CHANGE", "STATE"), [
            (one.name, f"{one.members:,}", f"{one.lag:,}", change_text(one.change), one.state)
            for one in now.groups], rows, width), Text(),
        table(("MEMBER OF", "PID", "PARTITIONS", "ALIVE", "CLIENT"), [
            (one.group, str(one.pid), f"{one.partitions:,}", "yes" if one.is_alive else "no",
             one.client) for one in now.members], rows, width))


def table(head: Sequence[str], rows: Sequence[Sequence[str]], rows_max: int, width: int,
          ) -> RenderableType:
    """The first column takes what width there is; rows that have no room are counted."""
    widths = [max(map(len, column)) + 2 for column in zip(head, *rows[:rows_max], strict=True)]
    while len(head) > 2 and sum(widths[1:len(head)]) + NAME_WIDTH_MIN > width:
        head = head[:-1]
    shown = Table(box=None, padding=(0, 2, 0, 0), header_style="bold", expand=True, pad_edge=False)
    for place, name in enumerate(head):
        shown.add_column(name, no_wrap=True, overflow="ellipsis", ratio=1 if place == 0 else None,
                         justify="left" if place == 0 or name in ("STATE", "CLIENT") else "right")
    for row in rows[:rows_max]:
        shown.add_row(*[Text(printable(cell)) for cell in row[:len(head)]])    # no markup
    if len(rows) > rows_max:
        shown.add_row(f"and {len(rows) - rows_max} more")
    return shown


def change_text(change: int | None) -> str:
    """Whether it falls behind."""
    if change is None:
        return "-"
    return f"{change:+,} {'▲' if change > 0 else '▼'}" if change else "0 ="


def size_text(size: int) -> str:
    """In the largest unit of which there is one."""
    power = max(0, min(4, (len(str(size)) - 1) // 3))
    return f"{size // 1000 ** power:,} {('B', 'KB', 'MB', 'GB', 'TB')[power]}"


def plot_view(what: str, samples: Sequence[float], interval: float, width: int, height: int,
              ) -> RenderableType:
    """A column a look, the newest on the right, and what they were."""
    rows = min(PLOT_ROWS_MAX, max(2, height - 4))
    scale = f"{max(samples):,.0f}"
    shown = list(samples)[-max(1, width - len(scale) - 3):]
    ordered = sorted(samples)
    p99 = ordered[min(len(ordered) - 1, math.ceil(0.99 * len(ordered)) - 1)]
    lines = plot(shown, rows)
    margins = [scale, *[""] * (rows - 2), "0"]
    text = "\n".join(f"{margin:>{len(scale)}} │{line}"
                     for margin, line in zip(margins, lines, strict=True))
    legend = (f"last {samples[-1]:,.0f}  min {ordered[0]:,.0f}  max {ordered[-1]:,.0f}  "
              f"p99 {p99:,.0f}  of {len(samples)} looks")
    return Text(f"{what}; a column is {interval:g} s\n{text}\n{legend}", no_wrap=True,
                overflow="ellipsis")


def plot(values: Sequence[float], rows: int) -> list[str]:
    """Bars of eighths of a character, from the top line down; the largest fills all.

        >>> plot([0, 4, 8], 1)
        [' ▄█']
    """
    most = max(values, default=0) or 1
    eighths = [round(value / most * rows * 8) for value in values]
    return ["".join(BARS[min(8, max(0, one - 8 * row))] for one in eighths)
            for row in reversed(range(rows))]
