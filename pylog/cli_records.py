"""`pylog produce`, `pylog consume` and `pylog cat`: lines into topics and out of them."""

import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import click

from pylog import envelope
from pylog._native import Record
from pylog.broker import Broker
from pylog.cli_options import (
    Damage,
    complete_group,
    complete_topic,
    data_dir,
    data_option,
    kafkas,
    key_separator,
    need_topic,
    open_broker,
    parser_of,
    split_header,
    to_place,
    to_separator,
)
from pylog.cli_topics import list_topics
from pylog.consumer import Consumer
from pylog.envelope import Columns, Headers
from pylog.log import Start
from pylog.producer import Producer
from pylog.record_format import MEANINGS, make_format
from pylog.streams import Intake
from pylog.topic import TopicPartition, check_name, config_value

RECORDS_A_ROUND = 4096
JOIN_SECONDS = 2  # how long `consume -g -e` waits for partitions that others have to let go

PRODUCE_EXAMPLES = """\b
Examples:
  echo '{"apples": 12}' | pylog produce orders -k alice
  pylog produce orders -K : orders.txt
  pylog consume orders -e --json | pylog produce copy --json
"""

CONSUME_EXAMPLES = """\b
Examples:
  pylog consume orders --from -10 -e
  pylog consume orders --from @-1h --grep 'apples|pears'
  pylog consume orders -g billing -n 100 --json
  pylog consume orders refunds -e -f '%t-%p %o %k %s\\n'
  pylog consume --regex 'shop\\.' '.*-audit$'
"""

CAT_EXAMPLES = """\b
Examples:
  pylog cat -t orders -o -10 -e -f '%t %p %o %k %s\\n'
  pylog cat -t orders -p 0 -o s@1700000000000 -o e@1700000060000 -J
  pylog cat -L
"""


# ---- produce ------------------------------------------------------------------------------------


@click.command(epilog=PRODUCE_EXAMPLES)
@click.argument("topic", shell_complete=complete_topic)
@click.argument("files", metavar="[FILE]...", nargs=-1,
                type=click.Path(exists=True, dir_okay=False, allow_dash=True))
@data_dir
@click.option("-k", "--key", metavar="TEXT", help="The key of every record.")
@key_separator
@click.option("-H", "--header", "headers", metavar="NAME=VALUE", multiple=True,
              callback=split_header, help="A header of every record; may be repeated.")
@click.option("-p", "--partition", type=click.IntRange(min=0),
              help="Of all records.  [default: by the key, as Kafka's clients]")
@click.option("-z", "--compression", type=click.Choice(["none", "lz4", "gzip"]), default="none",
              show_default=True, help="Of what is sent now.")
@click.option("--json", "as_json", is_flag=True,
              help="Lines are JSON, as `pylog consume --json` writes them.")
@click.option("-q", "--quiet", is_flag=True, help="Do not say how many were produced.")
def produce(
    topic: str, files: tuple[str, ...], data_dir: Path, key: str | None,
    key_separator: bytes | None, headers: Headers, partition: int | None, compression: str,
    as_json: bool, quiet: bool,
) -> None:
    """Send lines, of FILEs or stdin, to a topic.

    A line is a record; the newline is not part of it, every other byte is. The topic, and the
    broker itself, are made if there are none. What stands in a pipe is sent before more is waited
    for.
    """
    parse = parser_of(key, key_separator, headers, as_json)
    check_name(topic)
    with open_broker(data_dir, make=True) as broker, \
            Producer(broker, compression_type=None if compression == "none" else compression,
                     ) as producer:
        intake = TopicIntake(broker, producer, topic, partition, parse, as_json)
        if topic in broker.topics():
            intake.open()    # what is wrong with it is told before a line is waited for
        try:
            intake.take_all(files or ("-",))
        finally:
            if not quiet:
                click.echo(what_was_produced(intake), err=True)


class TopicIntake(Intake):
    """Into a topic. went: how many records to which partition."""

    def __init__(self, broker: Broker, producer: Producer, topic: str, partition: int | None,
                 parse: Callable[[list[bytes]], Columns], is_json: bool) -> None:
        super().__init__(parse, is_json)
        self.broker, self.producer = broker, producer
        self.topic, self.partition = topic, partition
        self.went: Counter[int] = Counter()
        self.is_new = topic not in broker.topics()

    def open(self) -> None:
        if not self.is_open:
            entry = self.broker.topic(self.topic)
            self.broker.log(self.topic, self.partition or 0)    # raises where there is none
            self.message_bytes_max = int(config_value(entry.configs, "max.message.bytes"))
            self.is_open = True

    def append(self, columns: Columns) -> None:
        for done in self.producer.send_many(
                self.topic, columns.values, columns.keys, columns.headers, columns.timestamps,
                self.partition):
            self.went[done.partition] += done.record_count


def what_was_produced(intake: TopicIntake) -> str:
    """The line for stderr."""
    topic, count = intake.topic, intake.count
    if intake.is_new and not intake.is_open:
        return f"produced nothing; no topic {topic} was made"
    text = f"produced {count:,} record{'s' * (count != 1)} to {topic}"
    if intake.is_new:
        text += ", which is new"
    if intake.in_flight:
        text += f", and up to {intake.in_flight:,} more when it stopped"
    places = [f"{count:,} in partition {number}" for number, count in sorted(intake.went.items())]
    if len(places) > 4:
        places[3:] = [f"others in {len(places) - 3} more"]
    return f"{text}: {', '.join(places)}" if places else text


# ---- consume, cat -------------------------------------------------------------------------------


def to_pattern(ctx: click.Context, param: click.Parameter, value: str | None,
               ) -> Callable[[Record], bytes] | None:
    """The callback of -f."""
    if value is None:
        return None
    try:
        return make_format(value)
    except ValueError as error:
        raise click.BadParameter(str(error), ctx, param) from None


def to_wanted(ctx: click.Context, param: click.Parameter, value: str | None,
              ) -> Callable[[Record], object] | None:
    """The callback of --grep."""
    if value is None:
        return None
    try:
        search = re.compile(value.encode(errors="surrogateescape")).search
        return lambda record: search(record.value or b"")
    except re.error as error:
        raise click.BadParameter(f"{value!r} is no regular expression: {error}", ctx,
                                 param) from None


def any_of(patterns: tuple[str, ...]) -> re.Pattern[str]:
    """What matches what one of them matches. Raises UsageError."""
    whole = patterns[0] if len(patterns) == 1 else "|".join(f"(?:{one})" for one in patterns)
    for pattern in (*patterns, whole):    # each may be right, and flags at fault within the whole
        try:
            compiled = re.compile(pattern)
        except re.error as error:
            raise click.UsageError(f"{pattern!r} is no regular expression: {error}") from None
    return compiled


@dataclass(slots=True)
class Wish:
    """What is to be read of which topics, and how it is to look.

    names: what the topics are those of that there are; more may come.
    """

    topics: tuple[str, ...]
    names: re.Pattern[str] | None = None
    partition: int | None = None
    group: str | None = None
    start: Start | None = None
    stop: Start | None = None
    count: int | None = None
    until_end: bool = False
    wanted: Callable[[Record], object] | None = None
    commits: bool = True
    skips_corrupt: bool = False
    text_of: Callable[[list[Record]], bytes] = field(default=envelope.json_lines)


@click.command(epilog=CONSUME_EXAMPLES)
@click.argument("topics", metavar="TOPIC...", nargs=-1, required=True,
                shell_complete=complete_topic)
@data_dir
@click.option("--regex", is_flag=True, help="TOPIC is a regular expression for the beginning of "
              "names; topics that come later are read, too.")
@click.option("-g", "--group", shell_complete=complete_group,
              help="Go on where this group is, share with its members, commit.")
@click.option("-o", "--from", "start", metavar="PLACE", callback=to_place,
              help="earliest, latest, an offset, -N (N before the end of each partition), @-15m "
              "(that long ago: s, m, h, d) or 2026-11-23T10:00; with -g only earliest or latest, "
              "for partitions where the group has committed nothing.  [default: earliest]")
@click.option("--to", "stop", metavar="PLACE", callback=to_place, help="Stop before this place.")
@click.option("-n", "--max", "count", metavar="N", type=click.IntRange(min=0),
              help="Stop after N records.")
@click.option("-e", "--exit", "until_end", is_flag=True,
              help="Stop at what is the end now, and do not wait for more.")
@click.option("-p", "--partition", type=click.IntRange(min=0), help="Only this one.")
@click.option("--grep", "wanted", metavar="REGEX", callback=to_wanted,
              help="Only records in whose value this is found.")
@click.option("-f", "--format", "pattern", metavar="TEXT", callback=to_pattern, help=MEANINGS)
@key_separator
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line: topic, partition, "
              "offset, timestamp, key, value, headers; *_b64 in base64 where it is not UTF-8.")
@click.option("--no-commit", is_flag=True, help="Leave the group where it is.")
@kafkas("--from-beginning", "--from earliest")
@click.option("--skip-corrupt", "skips_corrupt", is_flag=True,
              help="Step over damaged batches, and exit with 4 if there were any.")
def consume(
    topics: tuple[str, ...], data_dir: Path, regex: bool,
    pattern: Callable[[Record], bytes] | None, key_separator: bytes | None, as_json: bool,
    no_commit: bool, **wishes: Any,
) -> None:
    """Write the records of topics to stdout, and wait for more.

    Alone it begins at the beginning. In a group (-g) it begins where the group has committed,
    shares the partitions with the other members, and commits what it has written.
    """
    text_of = writer_of(pattern, key_separator, as_json)
    run_consume(data_dir, Wish(topics, any_of(topics) if regex else None, text_of=text_of,
                               commits=not no_commit, **wishes))


def to_range(ctx: click.Context, param: click.Parameter, values: tuple[str, ...],
             ) -> tuple[Start | None, Start | None]:
    """The callback of kcat's -o: where to begin, and with e@ where to stop."""
    starts = [one for one in values if not one.startswith("e@")]
    stops = [one.removeprefix("e") for one in values if one.startswith("e@")]
    if len(starts) > 1 or len(stops) > 1:
        raise click.BadParameter("say once where to begin, and once, with e@MS, where to stop",
                                 ctx, param)
    if starts == ["stored"]:
        raise click.BadParameter("offsets are stored for a group: `pylog consume -g GROUP TOPIC` "
                                 "goes on where it is", ctx, param)
    start, stop = (to_place(ctx, param, some[0] if some else None) for some in (starts, stops))
    return start, stop


@click.command(epilog=CAT_EXAMPLES)
@click.option("-t", "--topic", shell_complete=complete_topic, help="What to read.")
@click.option("-L", "--list", "lists", is_flag=True,
              help="List the topics and partitions, or those of -t; no records.")
@data_option("-b", "-d")
@click.option("-p", "--partition", type=click.IntRange(min=0), help="Only this one.")
@click.option("-o", "--offset", "places", metavar="PLACE", callback=to_range, multiple=True,
              help="beginning, end, an offset, -N or s@MS; and e@MS, to stop before that.  "
              "[default: beginning]")
@click.option("-c", "--count", metavar="N", type=click.IntRange(min=0), help="Stop after N.")
@click.option("-e", "--exit", "until_end", is_flag=True, help="Stop at the end.")
@click.option("-f", "--format", "pattern", metavar="TEXT", callback=to_pattern, help=MEANINGS)
@click.option("-K", "--key-delimiter", metavar="TEXT", callback=to_separator,
              help="Lines are key, TEXT, value.")
@click.option("-J", "--json", "as_json", is_flag=True, help="JSON lines.")
@click.option("-C", "-q", "-u", "habit", is_flag=True, hidden=True)    # how it is anyway
def cat(
    topic: str | None, data_dir: Path, pattern: Callable[[Record], bytes] | None, lists: bool,
    key_delimiter: bytes | None, as_json: bool, habit: bool,
    places: tuple[Start | None, Start | None], **wishes: Any,
) -> None:
    """Consume with kcat's options."""
    if lists:
        list_topics(data_dir, as_json, topic)
        return
    if topic is None:
        raise click.UsageError("say what to read, with -t TOPIC; -L lists the topics")
    text_of = writer_of(pattern, key_delimiter, as_json)
    start, stop = places
    run_consume(data_dir, Wish((topic,), text_of=text_of, start=start, stop=stop, **wishes))


def writer_of(pattern: Callable[[Record], bytes] | None, separator: bytes | None, as_json: bool,
              ) -> Callable[[list[Record]], bytes]:
    """What makes text of records. Raises UsageError."""
    if (pattern is not None) + (separator is not None) + as_json > 1:
        raise click.UsageError("--json, --format and the separator each say how lines look: "
                               "use one")
    if as_json:
        return envelope.json_lines
    if pattern is not None:
        return lambda records: b"".join(map(pattern, records))
    if separator is not None:
        return partial(envelope.keyed_lines, separator=separator)
    return lambda records: envelope.plain_lines([record.value for record in records])


def run_consume(data_dir: Path, wish: Wish) -> None:
    """`consume` and `cat`, once their options are read."""
    if wish.group is not None:
        if wish.partition is not None or wish.stop is not None:
            raise click.UsageError("a group shares out whole topics: leave --partition and --to "
                                   "out, or --group")
        if wish.start not in (None, "earliest", "latest"):
            raise click.UsageError(
                "a group goes on where it has committed; --from earliest or latest says where it "
                f"begins, `pylog group reset {wish.group}` moves it")
    with open_broker(data_dir) as broker:
        need_topics(broker, wish)
        with Consumer(
            broker, group_id=wish.group, enable_auto_commit=False,
            auto_offset_reset="latest" if wish.start == "latest" else "earliest",
            on_corruption="skip" if wish.skips_corrupt else "raise",
        ) as consumer:
            Reading(broker, consumer, wish).write()
            skipped = consumer.metrics()["consumer-fetch-manager-metrics"]["damage-skipped-total"]
    if skipped:
        raise Damage(f"stepped over damage {skipped} times; `pylog check` of a partition's "
                     "directory tells where")


def need_topics(broker: Broker, wish: Wish) -> None:
    """Finds those that match, if it wants such. Raises ClickException."""
    if wish.names is None:
        for topic in wish.topics:
            need_topic(broker, topic)
        return
    wish.topics = tuple(filter(wish.names.match, sorted(broker.topics())))
    if not wish.topics and (wish.until_end or wish.partition is not None):
        raise click.ClickException(f"no topic matches {wish.names.pattern!r}; `pylog topic ls` "
                                   "shows those that there are")


class Reading:
    """Writes what a consumer reads, until the wish is fulfilled.

    stops: where to end, of the partitions that are not there yet; None: nowhere.
    """

    def __init__(self, broker: Broker, consumer: Consumer, wish: Wish) -> None:
        self.broker, self.consumer, self.wish = broker, consumer, wish
        self.out = sys.stdout.buffer
        self.left = sys.maxsize if wish.count is None else wish.count
        self.partitions = [TopicPartition(topic, number) for topic in dict.fromkeys(wish.topics)
                           for number in self._numbers(topic)]
        self.stops = self._stops()
        if wish.partition is not None:
            consumer.assign(self.partitions)
        elif wish.names is not None:
            consumer.subscribe(pattern=wish.names)
        else:
            consumer.subscribe(wish.topics)
        if wish.group is None and self.partitions:
            self._start()
        elif wish.group is not None and wish.start is not None:
            self._tell_of_commits(wish.group)

    def _tell_of_commits(self, group: str) -> None:
        """A start that was wished is none where the group goes on."""
        count = sum(self.consumer.committed(one) is not None for one in self.partitions)
        if count:
            click.echo(f"--from {self.wish.start} is not for {count} of {len(self.partitions)} "
                       f"partitions: the group {group} has committed there, and goes on; `pylog "
                       f"group reset {group} --to {self.wish.start}` moves it", err=True)

    def _numbers(self, topic: str) -> Iterable[int]:
        if self.wish.partition is None:
            return range(self.broker.topic(topic).partitions)
        self.broker.log(topic, self.wish.partition)    # raises where there is none
        return [self.wish.partition]

    def _start(self) -> None:
        """Goes to the place that was wished. An offset that one partition has and another has not
        is no mistake; one that none has is."""
        start = "earliest" if self.wish.start is None else self.wish.start
        logs = {one: self.broker.log(*one) for one in self.partitions}
        places = {one: log.resolve(start) for one, log in logs.items()}
        if not any(logs[one].start_offset <= place <= logs[one].end_offset
                   for one, place in places.items()):
            ranges = ", ".join(f"{topic}-{number} [{log.start_offset}, {log.end_offset})"
                               for (topic, number), log in logs.items())
            raise click.ClickException(f"no partition has the offset {start}: there is {ranges}")
        for one, place in places.items():
            log = logs[one]
            self.consumer.seek(one, min(max(place, log.start_offset), log.end_offset))

    def _stops(self) -> dict[TopicPartition, int] | None:
        wish = self.wish
        if wish.stop is None and not wish.until_end:
            return None
        stops = {}
        for one in self.partitions:
            log = self.broker.log(*one)
            stop = sys.maxsize if wish.stop is None else log.resolve(wish.stop)
            stops[one] = min(stop, log.readable_offset) if wish.until_end else stop
        return stops

    def write(self) -> None:
        """All there is to write."""
        consumer = self.consumer
        if self.wish.group is not None and self.wish.until_end:
            self._join()
        while self.left and not self._has_arrived():
            found = consumer.poll(0, self._round())
            if not found:
                self.out.flush()
                if self.wish.until_end:
                    return
                found = consumer.poll(None, self._round())
            self._take(found)
        self.out.flush()

    def _join(self) -> None:
        """Others may have to let go of partitions first."""
        deadline = time.monotonic() + JOIN_SECONDS
        while self.left and not self.consumer.assignment() and time.monotonic() < deadline:
            self._take(self.consumer.poll(50, self._round()))

    def _round(self) -> int:
        """How many to ask for. Of those that are to match it takes any number to have one, and
        _matching goes back to where enough did."""
        return RECORDS_A_ROUND if self.wish.wanted else min(self.left, RECORDS_A_ROUND)

    def _has_arrived(self) -> bool:
        """Whether nothing is left before the stops; turns away from partitions that are there."""
        if self.stops is None:
            return False
        for one in self.consumer.assignment():
            if one in self.stops and self.consumer.position(one) >= self.stops[one]:
                del self.stops[one]
                if self.wish.group is None:
                    self.consumer.pause(one)
        return not self.stops

    def _take(self, found: dict[TopicPartition, list[Record]]) -> None:
        for partition, records in found.items():
            self._write(partition, records)
        if self.wish.group is not None and self.wish.commits:
            self.out.flush()    # what is committed must have been written
            self.consumer.commit()

    def _write(self, partition: TopicPartition, records: list[Record]) -> None:
        if self.wish.group is None and self.stops and partition in self.stops:
            records = [one for one in records if one.offset < self.stops[partition]]
        if self.wish.wanted is not None:
            records = self._matching(partition, records, self.wish.wanted)
        self.left -= len(records)
        if records:
            self.out.write(self.wish.text_of(records))

    def _matching(self, partition: TopicPartition, records: list[Record],
                  wanted: Callable[[Record], object]) -> list[Record]:
        """Goes back to behind the last that is wanted, if no more are."""
        matching = list(filter(wanted, records))
        if records and len(matching) >= self.left:
            matching = matching[:self.left]
            last = matching[-1].offset if matching else records[0].offset - 1
            self.consumer.seek(partition, last + 1)
        return matching
