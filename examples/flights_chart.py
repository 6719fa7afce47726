"""Departures an hour: counted from a log's columns, drawn in the terminal and as a picture."""

from datetime import UTC, date, datetime, timedelta

import numpy
from rich.bar import Bar
from rich.table import Table

HOUR_MS = 3_600_000
FIRST_DAY = date(2013, 1, 1)
DAYS = 365


def departures_by_hour(cursor, zone):
    """Counts the departed flights of each hour and day, in local time: an array [hour, day].

    A chunk's `timestamps` is a column of numbers and its `payload` one view of the log's own
    memory, so the kind of an event is one byte at a known place of its value: {"event":"d...
    """
    hours, payload_bytes = [], 0
    while chunk := cursor.fetch(max_bytes=1 << 20):
        payload = numpy.frombuffer(chunk.payload, numpy.uint8)
        kinds = payload[chunk.value_positions + len('{"event":"')]
        hours.append(chunk.timestamps[kinds == ord("d")] // HOUR_MS)
        payload_bytes += payload.size
    by_hour = numpy.zeros((24, DAYS), numpy.int64)
    for hour, count in zip(*numpy.unique(numpy.concatenate(hours), return_counts=True),
                           strict=True):
        local = datetime.fromtimestamp(int(hour) * 3600, UTC).astimezone(zone)
        day = (local.date() - FIRST_DAY).days
        if 0 <= day < DAYS:    # a late flight of New Year's Eve leaves in 2014
            by_hour[local.hour, day] += count
    return by_hour, payload_bytes


def print_day(by_hour, console):
    """A bar for each hour of an average day."""
    table = Table.grid(padding=(0, 1))
    mean = by_hour.mean(axis=1)
    for hour in [*range(4, 24), *range(4)]:
        table.add_row(f"   {hour:02}:00", Bar(mean.max(), 0, mean[hour], width=58, color="cyan"),
                      f"{mean[hour]:5.1f}")
    console.print(table)


def draw_picture(by_hour, folder):
    """The year as a picture: days across, hours upwards. Returns its path."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, ((days, corner), (year, hours)) = pyplot.subplots(
        2, 2, figsize=(13, 6.5), sharex="col", sharey="row",
        width_ratios=(6, 1), height_ratios=(1, 3), layout="constrained",
    )
    corner.axis("off")
    image = year.imshow(by_hour, aspect="auto", origin="lower", cmap="magma",
                        extent=(0, DAYS, 0, 24), interpolation="nearest")
    figure.colorbar(image, ax=hours, label="departures an hour")
    hours.barh(numpy.arange(24) + 0.5, by_hour.mean(axis=1), height=0.9, color="#b5367a")
    hours.set_xlabel("on average")
    year.set_ylabel("hour of the day")
    year.set_yticks(range(0, 25, 3), [f"{hour}:00" for hour in range(0, 25, 3)])
    firsts = [date(2013, month, 1) for month in range(1, 13)]
    year.set_xticks([(first - FIRST_DAY).days for first in firsts],
                    [f"{first:%b}" for first in firsts])
    draw_days(days, by_hour.sum(axis=0))
    figure.suptitle(f"{by_hour.sum():,} departures from New York in 2013: EWR, JFK and LGA")
    path = folder / "departures.png"
    figure.savefig(path, dpi=110)
    return path


def draw_days(axes, totals):
    """Departures of each day, with the quietest of them named."""
    axes.fill_between(numpy.arange(DAYS) + 0.5, totals, color="#b5367a", alpha=0.4, linewidth=0)
    axes.set_ylabel("a day")
    axes.set_ylim(0, totals.max() * 1.1)
    named = []
    for day in numpy.argsort(totals, kind="stable"):
        if len(named) == 3:
            break
        if all(abs(day - other) > 25 for other in named):
            named.append(day)
            label = f"{FIRST_DAY + timedelta(days=int(day)):%-d %b}"
            axes.annotate(label, (day + 0.5, totals[day]), xytext=(0, -3), ha="center", va="top",
                          textcoords="offset points", fontsize=9)
