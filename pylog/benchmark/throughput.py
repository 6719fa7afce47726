"""Writing and reading as fast as it goes: append, append_many, fetch, columns.

Each process is a writer, or a reader, of the same log. What is written is proved afterwards, what
is read is compared beforehand; both outside of the timed part.
"""

from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import pylog
from pylog.benchmark.crew import Meet, run_together
from pylog.benchmark.proof import pool, prove
from pylog.benchmark.rows import Row, row_of
from pylog.benchmark.settings import SAMPLES_MAX, Settings
from pylog.benchmark.timing import Timed, time_all, time_each, time_nothing
from pylog.errors import CorruptRecordError
from pylog.report import counted

MANY_MAX = 500                   # values in a call of append_many,
MANY_BYTES = 256 << 10           # or as many as fit here
OBJECTS_CHUNK_BYTES = 64 << 10   # what a reader that makes objects does best to take at a time,
COLUMNS_CHUNK_BYTES = 256 << 10  # and one that makes arrays
LOOP_CALLS = 200_000
UNSYNCED = {
    "os": "nothing was synced: a power cut may take all of it, a kill nothing",
    "interval": "synced in the background every 100 ms: a power cut may take what is younger",
    "fsync": "synced before each call returned",
}
READ = "nothing to sync: read from memory (page cache), every CRC checked anew in each pass"


def open_log(path: Path, settings: Settings, **options: Any) -> pylog.Log:
    return pylog.Log(path, durability=settings.durability,
                     compression=None if settings.compression == "none" else settings.compression,
                     **options)


# ---- the loop itself ----------------------------------------------------------------------------


def measure_loop() -> Row:
    (part,) = run_together([(loop_alone, ())])
    return Row("(the loop alone)", "nothing", 0, 0, 0.0,
               row_of("", "", 0, 0, [part], "").spread, "", is_paced=True)


def loop_alone(meet: Meet) -> Timed:
    time_nothing(LOOP_CALLS // 10)
    meet()
    return time_nothing(LOOP_CALLS)


# ---- append -------------------------------------------------------------------------------------


def measure_append(settings: Settings, path: Path) -> list[Row]:
    """Two parts: as fast as it goes, then with a look at the clock after each call."""
    outcomes = run_together([(append_records, (path, settings, number))
                             for number in range(settings.processes)])
    fast, timed = [one[0] for one in outcomes], [one[1] for one in outcomes]
    count = settings.processes + sum(part.calls for part in (*fast, *timed))
    prove(path, count, known_values(settings))
    return [row_of("append", "append(value)", settings.size, sum(part.calls for part in fast),
                   fast, UNSYNCED[settings.durability], timed)]


def append_records(meet: Meet, path: Path, settings: Settings, number: int) -> tuple[Timed, Timed]:
    values = pool(settings.size, number)
    count = settings.records_each
    with open_log(path, settings) as log:
        log.append(values[0])    # what only the first one pays is not what is measured
        meet()
        fast = time_all(log.append, values, settings.limits(count))
        meet()
        return fast, time_each(log.append, values, settings.limits(min(count, SAMPLES_MAX)))


def known_values(settings: Settings) -> list[bytes]:
    """Of all writers."""
    return list(chain.from_iterable(pool(settings.size, n) for n in range(settings.processes)))


# ---- append_many --------------------------------------------------------------------------------


def measure_append_many(settings: Settings, path: Path) -> list[Row]:
    parts = run_together([(append_lists, (path, settings, number))
                          for number in range(settings.processes)])
    many = values_in_a_call(settings)
    count = many * sum(part.calls for part in parts)
    prove(path, settings.processes + count, known_values(settings))
    call = f"append_many({counted(many, 'value')})"
    return [row_of("append_many", call, settings.size, count, parts, UNSYNCED[settings.durability])]


def append_lists(meet: Meet, path: Path, settings: Settings, number: int) -> Timed:
    values, many = pool(settings.size, number), values_in_a_call(settings)
    whole = values * (many // len(values) + 1)
    lists = [whole[at:at + many] for at in range(0, len(whole) - many + 1, many)]
    with open_log(path, settings) as log:
        log.append(values[0])
        meet()
        return time_each(log.append_many, lists, settings.limits(settings.records_each // many))


def values_in_a_call(settings: Settings) -> int:
    return max(1, min(MANY_MAX, MANY_BYTES // settings.size, settings.records_each))


# ---- fetch and columns --------------------------------------------------------------------------


def measure_fetch(settings: Settings, path: Path) -> list[Row]:
    return measure_reading(settings, path, "fetch", "fetch(64 KiB).values()")


def measure_columns(settings: Settings, path: Path) -> list[Row]:
    return measure_reading(settings, path, "columns", "fetch(256 KiB), 4 arrays")


def measure_reading(settings: Settings, path: Path, name: str, call: str) -> list[Row]:
    fill(settings, path)
    outcomes = run_together([(read_chunks, (path, settings, name))
                             for _ in range(settings.processes)])
    return [row_of(name, call, settings.size, sum(count for count, _ in outcomes),
                   [part for _, part in outcomes], READ)]


def fill(settings: Settings, path: Path) -> None:
    """A closed log of the values of writer 0, round and round."""
    values, missing = pool(settings.size, 0), settings.records_filled
    with open_log(path, settings) as log:
        while missing > 0:
            log.append_many(values[:missing])
            missing -= len(values)
    prove(path, settings.records_filled, None)


class Reader:
    """Reads a log chunk by chunk, again and again; at its end it forgets what it has verified."""

    def __init__(self, log: pylog.Log, name: str) -> None:
        self.take, self.chunk_bytes = {
            "fetch": (values_of, OBJECTS_CHUNK_BYTES), "columns": (columns_of, COLUMNS_CHUNK_BYTES),
        }[name]
        self.log, self.count, self.passes = log, 0, 0
        self.cursor = log.cursor(0)

    def step(self, _: object) -> None:
        """One chunk; at the end the first of the next pass."""
        chunk = self.cursor.fetch(max_bytes=self.chunk_bytes)
        if not chunk:
            self.log._forget_verified()
            self.cursor.seek(0)
            self.passes += 1
            chunk = self.cursor.fetch(max_bytes=self.chunk_bytes)
        self.count += self.take(chunk)


def values_of(chunk: Any) -> int:
    return len(chunk.values())


def columns_of(chunk: Any) -> int:
    arrays = (chunk.offsets, chunk.timestamps, chunk.value_positions, chunk.value_sizes)
    return len(arrays[0])


def read_chunks(meet: Meet, path: Path, settings: Settings, name: str) -> tuple[int, Timed]:
    """Records read, and the time it took."""
    with pylog.Log(path, mode="r") as log:
        reader = Reader(log, name)
        chunks = compare(log, pool(settings.size, 0), reader.chunk_bytes)
        log._forget_verified()
        meet()
        limits = settings.limits(SAMPLES_MAX if settings.records is None else chunks)
        part = time_each(reader.step, range(10_000), limits)
        expected = reader.passes * log.end_offset + reader.cursor.offset
    if reader.count != expected:
        raise CorruptRecordError(
            f"the bench read {reader.count:,} records where the log has {expected:,}; keep the "
            "output, and report it", path=str(path))
    return reader.count, part


def compare(log: pylog.Log, values: list[bytes], chunk_bytes: int) -> int:
    """Reads all once, value by value as it was written; returns in how many chunks."""
    cursor, at, chunks = log.cursor(0), 0, 0
    while chunk := cursor.fetch(max_bytes=chunk_bytes):
        first = at % len(values)
        found = chunk.values()
        around = values[first:] + values * (len(found) // len(values) + 1)
        if found != around[:len(found)]:
            raise CorruptRecordError(
                f"the log has other values from offset {at} on than the bench wrote; keep the "
                "output, and report it", path=str(log.path), offset=at)
        at += len(found)
        chunks += 1
    return chunks


MEASURES: dict[str, Callable[[Settings, Path], list[Row]]] = {
    "append": measure_append,
    "append_many": measure_append_many,
    "fetch": measure_fetch,
    "columns": measure_columns,
}

