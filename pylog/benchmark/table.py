"""The bench as text: rich tables in a terminal, columns of plain text elsewhere."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pylog.benchmark.comparison import Pair
from pylog.benchmark.rows import Row
from pylog.benchmark.runner import Run
from pylog.benchmark.settings import Settings
from pylog.hardware import IN_MEMORY, line_of
from pylog.report import counted

UNITS = ((1_000, 1, "ns"), (1_000_000, 1_000, "us"), (1_000_000_000, 1_000_000, "ms"))
TITLES = {"records_per_second": "records/s", "p50_ns": "p50", "p99_ns": "p99"}
LOOPS = ("Times are of single calls, as the clock gave them: the loop alone (for pings the stamp "
         "alone) is in each of them, and not taken off.")
PACED = ("append is measured twice, records/s without a clock between the calls; a process's first "
         "append does not count. Pings are paced, so they have no records/s. - is where too few "
         "calls were timed to tell.")
NOISE = "One run each: on a machine with other work, differences below a fifth may be its own."


@dataclass(frozen=True, slots=True)
class Table:
    """head and rows as text; the first `left` columns are names, the others figures."""

    head: tuple[str, ...]
    rows: list[tuple[str, ...]]
    left: int


def duration(nanoseconds: float | None) -> str:
    """Three digits and a unit, as in 1.23 us; - for none."""
    if nanoseconds is None:
        return "-"
    for below, factor, unit in UNITS:
        if nanoseconds < 0.9995 * below:    # 999,999 ns are 1.00 ms, not 1000 us
            return f"{three_digits(nanoseconds / factor)} {unit}"
    return f"{three_digits(nanoseconds / 1e9)} s"


def three_digits(number: float) -> str:
    if number >= 100 or number == int(number):
        return f"{number:.0f}"
    return f"{number:.1f}" if number >= 10 else f"{number:.2f}"


def speed(number: float | None) -> str:
    """Records a second: rounded to what is worth telling."""
    if number is None:
        return "-"
    return f"{number:,.0f}" if number < 1_000_000 else f"{number / 1e6:.2f} M"


def table_of_speeds(rows: Sequence[Row]) -> Table:
    return Table(
        ("", "one call", "records/s", "MB/s", "calls timed"),
        [(row.name, row.call, speed(row.records_per_second),
          "-" if row.megabytes_per_second is None else three_digits(row.megabytes_per_second),
          f"{row.spread.count:,}") for row in rows], 2)


def table_of_times(rows: Sequence[Row]) -> Table:
    return Table(
        ("", "p50", "p90", "p99", "p99.9", "p99.99", "max"),
        [(row.name, *map(duration, (
            row.spread.p50_ns, row.spread.p90_ns, row.spread.p99_ns, row.spread.p999_ns,
            row.spread.p9999_ns, row.spread.max_ns))) for row in rows], 1)


def table_of_pairs(pairs: Sequence[Pair]) -> Table:
    show: dict[str, Any] = {"records_per_second": speed}
    return Table(
        ("", "", "old", "new", "times as good"),
        [(pair.name, TITLES[pair.what], show.get(pair.what, duration)(pair.old),
          show.get(pair.what, duration)(pair.new), f"{pair.ratio:.2f}") for pair in pairs], 2)


def settings_line(settings: Settings) -> str:
    part = (f"{settings.seconds:g} s a part" if settings.seconds is not None
            else f"{settings.records:,} records a part")
    return (f"{settings.size} byte values, half of each random; {part}; "
            f"{counted(settings.processes, 'process', 'es')} at once (pings: two, fsync: one); "
            f"durability {settings.durability}; compression {settings.compression}"
            f"{' (append compresses nothing)' * (settings.compression != 'none')}")


def synced_lines(rows: Sequence[Row]) -> list[str]:
    """What was not synced, said once for all rows of which it is true."""
    names: dict[str, list[str]] = {}
    for row in rows:
        if row.synced:
            names.setdefault(row.synced, []).append(row.name)
    return [f"{', '.join(of)}: {what}." for what, of in names.items()]


def show(run: Run, pairs: Sequence[Pair] | None) -> None:
    """Writes all of it to stdout."""
    lines = [line_of(run.machine), settings_line(run.settings)]
    notes = [*synced_lines(run.rows), LOOPS, PACED]
    tables = [table_of_speeds(run.rows), table_of_times(run.rows)]
    if run.machine["file_system"] in IN_MEMORY:
        notes.insert(0, "This file system is in memory: nothing was on a disk, a reboot takes all.")
    if pairs is not None:
        tables.append(table_of_pairs(pairs))
        notes.append(NOISE)
    if not (sys.stdout.isatty() and show_rich(lines, tables, notes)):
        print("\n".join([*lines, *("\n" + plain(table) for table in tables), "", *notes]))


def plain(table: Table) -> str:
    """Columns two blanks apart, figures to the right."""
    widths = [max(map(len, column)) for column in zip(table.head, *table.rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) if number < table.left else cell.rjust(width)
                  for number, (cell, width) in enumerate(zip(row, widths, strict=True))).rstrip()
        for row in (table.head, *table.rows))


def show_rich(lines: list[str], tables: list[Table], notes: list[str]) -> bool:
    """False where there is no rich, or no room for it: a figure is not to be cut short."""
    try:
        from rich.console import Console
        from rich.table import Table as RichTable
    except ModuleNotFoundError:
        return False
    console = Console(highlight=False, markup=False)
    if console.width < max(len(row) for table in tables for row in plain(table).splitlines()):
        return False
    console.print(*lines, sep="\n", style="dim")
    for table in tables:
        drawn = RichTable(box=None, padding=(0, 2, 0, 0), pad_edge=False)
        for number, title in enumerate(table.head):
            if number < table.left:
                drawn.add_column(title, style="bold" if not number else "", no_wrap=True)
            else:
                drawn.add_column(title, justify="right", no_wrap=True)
        for row in table.rows:
            drawn.add_row(*row, style="dim" if row[0].startswith("(") else "")
        console.print()
        console.print(drawn)
    console.print("", *notes, sep="\n")
    return True
