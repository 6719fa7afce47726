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
    return [measure_threads(settings, path / str(count), count) for count in THREADS]


def measure_threads(settings: Settings, path: Path, count: int) -> Row:
    ((durable, parts),) = run_together([(append_durably, (path, settings, count))])
    records = sum(part.calls for part in parts)
    if durable != records:
        raise CorruptRecordError(f"{durable:,} records are durable, of {records:,}; keep the "
                                 "output, and report it", path=str(path))
    prove(path, records, pool(settings.size, 0))
    name = "fsync" if count == 1 else f"fsync {count} threads"
    return row_of(name, "append(value), durable", settings.size, records, parts, UNSYNCED["fsync"])


def append_durably(
    meet: Meet, path: Path, settings: Settings, count: int,
) -> tuple[int, list[Timed]]:
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
        meet()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failures:
            raise failures[0]
        return log.durable_offset, parts
