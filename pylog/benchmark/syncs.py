"""What it costs to have a record on disk when append returns: alone, and eight threads at once.

The threads are of one process, and share a flush where they wait at the same time.
"""

import threading
from pathlib import Path

import pylog
from pylog.benchmark.crew import Meet, run_together
from pylog.benchmark.proof import pool, prove
from pylog.benchmark.rows import Row, row_of
from pylog.benchmark.settings import Settings
from pylog.benchmark.throughput import UNSYNCED
from pylog.benchmark.timing import Timed, time_each
from pylog.errors import CorruptRecordError

THREADS = (1, 8)


def measure_fsync(settings: Settings, path: Path) -> list[Row]:
    """A log for each number of threads, one after the other."""
    (outcomes,) = run_together([(append_durably, (path, settings))])
    return [prove_durable(settings, path / str(count), count, *outcome)
            for count, outcome in zip(THREADS, outcomes, strict=True)]


def prove_durable(settings: Settings, path: Path, count: int, durable: int,
                  parts: list[Timed]) -> Row:
    records = sum(part.calls for part in parts)
    if durable != records:
        raise CorruptRecordError(f"{durable:,} records are durable, of {records:,}; keep the "
                                 "output, and report it", path=str(path))
    prove(path, records, pool(settings.size, 0))
    name = "fsync" if count == 1 else f"fsync {count} threads"
    return row_of(name, "append(value), durable", settings.size, records, parts, UNSYNCED["fsync"])


def append_durably(meet: Meet, path: Path, settings: Settings) -> list[tuple[int, list[Timed]]]:
    meet()
    return [append_in_threads(path / str(count), settings, count) for count in THREADS]


def append_in_threads(path: Path, settings: Settings, count: int) -> tuple[int, list[Timed]]:
    """The durable offset at the end, and what each thread took."""
    values, parts = pool(settings.size, 0), list[Timed]()
    failures: list[Exception] = []

    def loop() -> None:
        try:
            parts.append(time_each(log.append, values, settings.limits(settings.slow_calls)))
        except Exception as error:
            failures.append(error)

    with pylog.Log(path, durability="fsync") as log:
        threads = [threading.Thread(target=loop) for _ in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failures:
            raise failures[0]
        return log.durable_offset, parts
