"""What commands share: a broker's directory; places, separators and headers as a person writes
them; what is shown of long work.
"""

import importlib
import inspect
import json
import os
import re
import reprlib
import shutil
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import click

from pylog import envelope
from pylog.broker import Broker
from pylog.envelope import Columns, Headers
from pylog.exits import Exit
from pylog.group import group_ids
from pylog.log import Start
from pylog.metadata_file import TopicEntry
from pylog.options import no_address
from pylog.topic import check_name, closest

PROGRESS_AFTER_SECONDS = 1
PROGRESS_EVERY_SECONDS = 0.1
TEXT_WIDTH_MIN = 8
Loaded = TypeVar("Loaded")
UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
# What makes the topics that a group of commands is about, {} for the name, and a broker with them.
MAKERS = {
    "audit": "`pylog audit record {}`", "bus": "`pylog bus emit {} TYPE`",
    "events": "`pylog events append {} STREAM TYPE`", "queue": "`pylog queue put {}`",
    "idempotency": "a program that makes the Idempotency",
    "request": "who answers (`Rpc.handler`)", "rooms": "`pylog rooms emit ROOM EVENT`",
    "saga": "a program that makes the Saga",
}


class Damage(click.ClickException):
    """Ends the command as any ClickException does, "Error: " before the message, with code 4."""

    exit_code = Exit.DAMAGE


def to_place(ctx: click.Context, param: click.Parameter, value: str | None) -> Start | None:
    """Where to start or stop: what `Log.resolve` takes, as a person writes it."""
    if value is None:
        return None
    if value in ("earliest", "beginning"):
        return "earliest"
    if value in ("latest", "end"):
        return "latest"
    if re.fullmatch(r"[+-]?[0-9]{1,18}", value):
        return int(value)
    try:
        moment = value.removeprefix("@")
        if age := re.fullmatch(r"-([0-9]{1,9})([smhd])", moment):
            return datetime.now(UTC) - timedelta(**{UNITS[age[2]]: int(age[1])})
        if ms := re.fullmatch(r"s?@([0-9]{10,18})", value):    # s@ in kcat
            return datetime.fromtimestamp(int(ms[1]) / 1000, UTC)
        when = datetime.fromisoformat(moment)
        return when if when.tzinfo else when.astimezone()
    except (ValueError, OverflowError, OSError):
        raise click.BadParameter(
            f"{value!r} is no place in a log; use earliest, latest, an offset, -N (N before the "
            "end), -15m (s, m, h, d: that long ago), 2026-11-23T10:00 or "
            "@1700000000000 (ms)", ctx, param) from None


def to_moment(ctx: click.Context, param: click.Parameter, value: str | None) -> datetime | None:
    """The callback of --since: of places, only those that are a time."""
    try:
        found: Any = to_place(ctx, param, value)
    except click.BadParameter:    # it names places that are none
        found = value
    if found is None or isinstance(found, datetime):
        return found
    raise click.BadParameter(f"{value!r} is no time; use -15m (s, m, h, d: that long ago) or "
                             "2026-11-23T10:00", ctx, param)


def to_separator(ctx: click.Context, param: click.Parameter, value: str | None) -> bytes | None:
    """The two characters \\t are a tab."""
    if value is None:
        return None
    separator = os.fsencode(value.replace("\\t", "\t"))
    if not separator or b"\n" in separator:
        raise click.BadParameter("it needs a character, and no newline", ctx, param)
    return separator


class Place(click.Path):
    """A path, and not "", which Path takes for the working directory."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not os.fspath(value):
            self.fail("it is empty; name a directory (. for this one)", param, ctx)
        return super().convert(value, param, ctx)


directory = click.argument("directory", metavar="DIR", type=Place(path_type=Path))
as_json = click.option("--json", "as_json", is_flag=True, help="JSON instead of text.")
key_separator = click.option(
    "-K", "--key-separator", metavar="TEXT", callback=to_separator,
    help="Lines are key, TEXT, value; \\t is a tab. Going in, a line without TEXT is refused; "
    "coming out, a null key leaves the value alone.")
data_option = partial(    # eager: Tab completes the topics of the directory that was named
    click.option, "--data", "data_dir", metavar="DIR", type=Place(path_type=Path),
    envvar="PYLOG_DATA", is_eager=True, default="data", show_default=True, show_envvar=True,
    help="The broker's directory.")
data_dir = data_option("-d")


def kafkas(name: str, ours: str) -> Callable[[Any], Any]:
    """An option of Kafka's own tools: whoever writes it is told what it is called here."""
    def tell(ctx: click.Context, param: click.Parameter, value: str | None) -> None:
        if value is not None:
            raise click.UsageError(f"{name} is called {ours} here", ctx)
    return click.option(name, hidden=True, expose_value=False, is_flag=False, flag_value="",
                        callback=tell)


def complete_topic(ctx: click.Context, param: click.Parameter, start: str) -> list[str]:
    """For the shell's Tab, which must hear of no error."""
    with suppress(Exception), open_broker(Path(ctx.params.get("data_dir") or "data")) as broker:
        return [name for name in sorted(broker.topics()) if name.startswith(start)]
    return []


def complete_group(ctx: click.Context, param: click.Parameter, start: str) -> list[str]:
    """As complete_topic."""
    with suppress(Exception):
        known = group_ids(Path(ctx.params.get("data_dir") or "data"))
        return [name for name in known if name.startswith(start)]
    return []


def open_broker(data_dir: Path, make: bool = False) -> Broker:
    """The broker in a directory. Only with `make` is one made where there is none, so that no
    mistyped path leaves an empty broker behind; topics are never made by being looked for."""
    need_broker(data_dir, make)
    return Broker(data_dir, auto_create_topics=make)


def need_broker(data_dir: Path, make: bool = False) -> None:
    """Raises ClickException where there is none, and with `make` where there can be none."""
    if (data_dir / "log.meta").exists():
        raise click.ClickException(
            f"{data_dir} is one log, no broker; see `pylog read {data_dir}`, or name another "
            "directory with -d")
    no_address(os.fspath(data_dir))    # kcat's -b
    if not make and not is_broker(data_dir):
        raise click.ClickException(
            f"there is no broker at {data_dir}; {maker_of(f'-d {data_dir} TOPIC')} makes one, "
            "-d or PYLOG_DATA names another")


def need_topic(broker: Broker, name: str) -> TopicEntry:
    """A topic that there is. Raises ClickException with what to do, InvalidTopicError where there
    can be none of this name."""
    topics = broker.topics()
    if name not in topics:
        check_name(name)
        raise click.ClickException(
            f"there is no topic {name!r}{closest(name, topics)}; {maker_of(name)} makes it, "
            "`pylog topic ls` shows those that there are")
    return topics[name]


def maker_of(name: str) -> str:
    """What makes a topic such as the command that is running wants."""
    ctx = click.get_current_context(silent=True)
    while ctx is not None and ctx.parent is not None and ctx.parent.parent is not None:
        ctx = ctx.parent    # `pylog queue`, of `pylog queue get`
    what = None if ctx is None else ctx.info_name
    return MAKERS.get(what or "", "`pylog produce {}`").format(name)


def is_broker(data_dir: Path) -> bool:
    """Whether there is one, its metadata lost perhaps."""
    return (data_dir / "metadata.db").exists() or any(data_dir.glob("*-[0-9]*/log.meta"))


def need_log(directory: Path) -> None:
    """A better hint than the library's, which speaks of modes."""
    if not directory.exists():
        raise click.ClickException(
            f"there is no log at {directory}; `pylog append {directory}` makes one")
    if is_broker(directory):
        raise click.ClickException(
            f"{directory} is a broker, no log; `pylog topic ls -d {directory}` shows its topics, "
            f"`pylog consume -d {directory} TOPIC` reads one; each TOPIC-N in it is a log")


def split_header(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> Headers:
    """The callback of --header."""
    pairs = [text.partition("=") for text in value]
    if wrong := [name for name, found, _ in pairs if not found]:
        raise click.BadParameter(f"{wrong[0]!r} is not NAME=VALUE", ctx, param)
    # What is not UTF-8 on the command line comes as halves of surrogate pairs.
    if wrong := [name for name, _, _ in pairs if re.search("[\ud800-\udfff]", name)]:
        raise click.BadParameter(f"the name {wrong[0]!r} is not UTF-8", ctx, param)
    return [(name, os.fsencode(text)) for name, _, text in pairs]


def to_json(ctx: click.Context, param: click.Parameter, value: str) -> Any:
    """The callback of an argument that is JSON: stdin, if it is -."""
    text = sys.stdin.buffer.read() if value == "-" else value
    try:
        return json.loads(text)
    except ValueError as error:
        raise click.BadParameter(f"{reprlib.repr(text)} is no JSON: {error}; text is '\"text\"'",
                                 param_hint="JSON") from None


def parser_of(key: str | None, separator: bytes | None, headers: Headers, is_json: bool,
              ) -> Callable[[list[bytes]], Columns]:
    """What makes records of lines, by the options that say so. Raises UsageError."""
    if is_json:
        if separator or key is not None or headers:
            raise click.UsageError("--json lines bear their own keys and headers")
        return envelope.from_json
    if separator and key is not None:
        raise click.UsageError("--key and --key-separator both give the key: use one")
    return partial(parse_plain, key=None if key is None else os.fsencode(key), headers=headers,
                   separator=separator)


def parse_plain(lines: list[bytes], key: bytes | None, headers: Headers,
                separator: bytes | None) -> Columns:
    """Lines that are not JSON, with what the options give to all of them."""
    columns = envelope.from_keyed(lines, separator) if separator else envelope.from_plain(lines)
    if key is not None:
        columns.keys = [key] * len(lines)
    if headers:
        columns.headers = [headers] * len(lines)
    return columns


class Progress:
    """A line on stderr that is written over. Called with how much of `what` is done, and how much
    there is, where that is known. then: what goes on when all is done."""

    def __init__(self, what: str, then: str = "") -> None:
        self.what, self.then, self.width = what, then, 0
        self.started = time.monotonic()
        self.due = self.started + PROGRESS_AFTER_SECONDS

    def __call__(self, done: int, total: int | None = None) -> None:
        now = time.monotonic()
        is_last = done == total
        if now < self.due and not (is_last and (self.width or self.then)):
            return
        self.due = now + PROGRESS_EVERY_SECONDS
        rate = done / max(now - self.started, 1e-9)
        speed = f"{rate / 1e6:,.0f} MB/s" if self.what == "bytes" else f"{rate:,.0f} {self.what}/s"
        much = f"{done:,}" if total is None else f"{done / max(total, 1):4.0%} of {total:,}"
        text = f"  {much} {self.what}, {speed}{f'; {self.then}' if is_last and self.then else ''}"
        click.echo(f"\r{text.ljust(self.width)}", nl=False, err=True)
        self.width = len(text)


@contextmanager
def progress(what: str = "bytes", then: str = "") -> Iterator[Progress | None]:
    """What to call as work goes on: shown where a person looks on, and after a second of it."""
    if not sys.stderr.isatty():
        yield None
        return
    show = Progress(what, then)
    try:
        yield show
    finally:
        if show.width:
            click.echo(err=True)


def printable(text: str) -> str:
    """Without what would move the cursor: a group and a client may have any name."""
    return "".join(one if one.isprintable() else repr(one)[1:-1] for one in text)


def aligned(head: Sequence[str], rows: Sequence[Sequence[object]], whole: str = "") -> str:
    """Lines of a table for people; columns of numbers stand to the right. On a terminal that is too
    narrow the widest columns of text are cut, but not the one of the head `whole`."""
    texts = [head, *([f"{cell:,}" if isinstance(cell, int) else "-" if cell is None else
                      printable(str(cell)) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    is_right = [any(isinstance(row[place], int) for row in rows) for place in range(len(head))]
    if sys.stdout.isatty():
        room = shutil.get_terminal_size().columns - 2 * (len(widths) - 1)
        while sum(widths) > room:
            long = [place for place, width in enumerate(widths)
                    if not is_right[place] and head[place] != whole
                    and width > max(len(head[place]), TEXT_WIDTH_MIN)]
            if not long:
                break
            widths[max(long, key=widths.__getitem__)] -= 1
    return "\n".join(
        "  ".join(fitted(text, width, right)
                  for text, width, right in zip(line, widths, is_right, strict=True)).rstrip()
        for line in texts)


def fitted(text: str, width: int, is_right: bool) -> str:
    if len(text) > width:
        text = text[:width - 1] + "…"
    return text.rjust(width) if is_right else text.ljust(width)


def load(target: str, kind: type[Loaded], example: str) -> Loaded:
    """What MODULE:NAME names, in a module that is found from the current directory: an object of
    this kind, or what a function without arguments makes. example: a line that would make one.
    Raises BadParameter; what the module raises is printed."""
    module_name, _, name = target.partition(":")
    name = name or kind.__name__.lower()
    hint = f"MODULE:{kind.__name__.upper()}"
    sys.path.insert(0, os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        if not (isinstance(error, ModuleNotFoundError) and error.name == module_name):
            traceback.print_exc()
        raise click.BadParameter(f"the module {module_name!r} cannot be imported: {error}",
                                 param_hint=hint) from None
    found = getattr(module, name, None)
    if inspect.isfunction(found) and not inspect.signature(found).parameters:
        found = found()
    if not isinstance(found, kind):
        known = [key for key, value in vars(module).items() if isinstance(value, kind)]
        raise click.BadParameter(
            f"{module_name} has no {kind.__name__} {name!r}"
            + (f"; use {module_name}:{known[0]}" if known else f": {example}"), param_hint=hint)
    return found
