"""`pylog export` and `pylog import`: topics into files and back, as JSON lines or Parquet."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from pylog import envelope
from pylog._native import Record
from pylog.broker import Broker
from pylog.cli_options import (
    complete_topic,
    data_dir,
    need_topic,
    open_broker,
    progress,
    to_place,
)
from pylog.envelope import BadLine, Columns
from pylog.errors import MessageSizeTooLargeError
from pylog.log import Start
from pylog.parquet import ParquetWriter, read_parquet
from pylog.streams import Intake, too_large
from pylog.topic import check_name, config_value

RECORDS_A_CHUNK = 4096

EXPORT_EXAMPLES = """\b
Examples:
  pylog export orders refunds > backup.jsonl
  pylog export orders -o orders.parquet --from @-24h
"""
IMPORT_EXAMPLES = """\b
Examples:
  pylog import -d elsewhere backup.jsonl
  pylog import orders.parquet --topic orders-again
  pylog export orders | pylog import -d elsewhere
"""


@click.command(epilog=EXPORT_EXAMPLES)
@click.argument("topics", metavar="TOPIC...", nargs=-1, required=True,
                shell_complete=complete_topic)
@data_dir
@click.option("-o", "--output", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path),
              help="Instead of stdout; Parquet if its name ends in .parquet.")
@click.option("--from", "start", metavar="PLACE", callback=to_place, default="earliest",
              show_default=True, help="As of `pylog consume`.")
@click.option("--to", "stop", metavar="PLACE", callback=to_place,
              help="Stop before this place.  [default: the end at the call]")
def export(topics: tuple[str, ...], data_dir: Path, output: Path | None, start: Start,
           stop: Start | None) -> None:
    """Write all of topics, as JSON lines or as Parquet.

    Partition after partition. JSON lines are those of `pylog consume --json`.
    """
    with open_broker(data_dir) as broker:
        ranges = [one for topic in dict.fromkeys(topics)
                  for one in ranges_of(broker, topic, start, stop)]
        total, done = sum(end - first for _, _, first, end in ranges), 0
        with writer(output) as write, progress("records") as show:
            for records in chunks(broker, ranges):
                write(records)
                done += len(records)
                if show is not None:
                    show(done, total)
        sys.stdout.buffer.flush()
    if output is not None:
        click.echo(f"exported {done:,} record{'s' * (done != 1)} to {output}", err=True)


Range = tuple[str, int, int, int]    # topic, partition, first offset, behind the last


def ranges_of(broker: Broker, topic: str, start: Start, stop: Start | None) -> Iterator[Range]:
    """What is to be read of a topic."""
    for number in range(need_topic(broker, topic).partitions):
        log = broker.log(topic, number)
        end = log.readable_offset
        if stop is not None:
            end = min(end, log.resolve(stop))
        first = min(max(log.resolve(start), log.start_offset), end)
        yield topic, number, first, end


def chunks(broker: Broker, ranges: list[Range]) -> Iterator[list[Record]]:
    for topic, number, first, end in ranges:
        cursor = broker.log(topic, number).cursor(first)
        while cursor.offset < end:
            found = cursor.fetch(min(RECORDS_A_CHUNK, end - cursor.offset))
            if not len(found) and cursor.offset < end:
                break
            yield [record for record in found if record.offset < end]


@contextmanager
def writer(output: Path | None) -> Iterator[Callable[[list[Record]], object]]:
    """A function that takes lists of records, to stdout, or into a file that is then closed."""
    if output is None:
        yield lambda records: sys.stdout.buffer.write(envelope.json_lines(records))
        return
    with whole_or_none(output) as path:
        if output.suffix == ".parquet":
            with ParquetWriter(path) as file:
                yield file.write
        else:
            with open(path, "wb") as stream:
                yield lambda records: stream.write(envelope.json_lines(records))


@contextmanager
def whole_or_none(output: Path) -> Iterator[Path]:
    """Where to write what is to be `output` once it is all there: half an export looks like one."""
    if output.exists() and not output.is_file():
        yield output    # a pipe, say
        return
    target = output.resolve()
    unfinished = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        yield unfinished
        unfinished.replace(target)
    finally:
        unfinished.unlink(missing_ok=True)


# ---- import -------------------------------------------------------------------------------------


@click.command("import", epilog=IMPORT_EXAMPLES)
@click.argument("files", metavar="[FILE]...", nargs=-1,
                type=click.Path(exists=True, dir_okay=False, allow_dash=True))
@data_dir
@click.option("--topic", help="For all records, whatever topic they bear.")
def import_(files: tuple[str, ...], data_dir: Path, topic: str | None) -> None:
    """Append what was exported to where it is from.

    The records of FILEs, or of stdin, go to the topics and partitions that they bear: JSON lines,
    or Parquet if the name ends in .parquet. Topics that are not there are made, with as many
    partitions as it takes, and with retention.ms=-1, for what is imported may be old: a topic that
    is there applies its own. Keys, headers and timestamps are kept; offsets are given anew.
    """
    if topic is not None:
        check_name(topic)
    with open_broker(data_dir, make=True) as broker:
        intake = HomeIntake(broker, topic)
        try:
            with progress("records") as intake.on_count:
                for name in files or ("-",):
                    if name.endswith(".parquet"):
                        intake.take_parquet(name)
                    else:
                        intake.take_all((name,))
        finally:
            more = f", and up to {intake.in_flight:,} more when it stopped" \
                if intake.in_flight else ""
            click.echo(f"imported {intake.count:,} record{'s' * (intake.count != 1)}{more}",
                       err=True)


class HomeIntake(Intake):
    """Into the partitions that the records bear; those that bear none go to partition 0.

    In runs of one partition, in the order of the lines: so what is in when one fails is all before
    it.
    """

    def __init__(self, broker: Broker, topic: str | None) -> None:
        super().__init__(envelope.from_json_with_homes, is_json=True)
        self.broker, self.topic = broker, topic
        self.is_open = True
        self.message_bytes_max = max(
            [self.message_bytes_max, *(int(config_value(entry.configs, "max.message.bytes"))
                                       for entry in broker.topics().values())])
        self.made: set[str] = set()

    def open(self) -> None:
        """Topics are opened by their first record."""

    def take_parquet(self, name: str) -> None:
        before = self.count
        try:
            for columns in read_parquet(name):
                self._append(columns)
        except BadLine as bad:
            raise BadLine(f"{name}, row {self.count - before + 1}: {bad}; the rows before it are "
                          "in, this one and what follows are not") from None

    def append(self, columns: Columns) -> None:
        homes = columns.homes or [(None, None)] * len(columns)
        start = 0
        try:
            while start < len(columns):
                end = start + 1
                while end < len(columns) and homes[end] == homes[start]:
                    end += 1
                self._append_run(homes[start], columns.part(start, end))
                start = end
        except Exception as error:
            told = start + (getattr(error, "appended", None) or 0)
            error.appended = told    # type: ignore[attr-defined]
            raise

    def _append_run(self, home: envelope.Home, run: Columns) -> None:
        topic = self.topic or home[0]
        if topic is None:
            raise BadLine('it bears no "topic"; say which with --topic')
        log = self.broker.log(topic, self._partition(topic, home[1] or 0))
        try:
            log.append_many(run.values, run.keys, run.headers, run.timestamps)
        except MessageSizeTooLargeError as error:
            at = error.index or 0
            if at:
                self._append_run(home, run.head(at))
            bad = too_large(run.values[at], error.max_message_bytes or 0)
            bad.appended = at    # type: ignore[attr-defined]
            raise bad from None

    def _partition(self, topic: str, number: int) -> int:
        """The number; makes the topic, or as many partitions as one needs that was made here."""
        entry = self.broker.topics().get(topic)
        if entry is None:
            self.broker.create_topic(topic, number + 1, {"retention.ms": -1})
            self.made.add(topic)
        elif number >= entry.partitions and topic in self.made:
            self.broker.metadata.add_partitions(topic, number + 1)
        return number
