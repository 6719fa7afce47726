"""Where the cases work: sizes, values, scratch folders and the logs in them.

Scratch lies under build/scratch, on the file system of the checkout: /tmp may be memory. It goes
when the workspace is left.
"""

from __future__ import annotations

import mmap
import os
import random
import shutil
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import pylog

SCRATCH = Path(__file__).parent.parent / "build" / "scratch"
MADV_POPULATE_READ, MADV_POPULATE_WRITE = 22, 23    # Linux 5.14; the mmap module has no names
CHUNK_BYTES = 65536    # what a reader takes at a time: some 600 records of 100 bytes
SCAN_BYTES = 262_144   # what a scan by columns does: four numpy arrays a chunk are 1.2 us


@dataclass(frozen=True)
class Sizes:
    """How much each question handles."""

    round_records: int = 50_000         # an append round: 5.5 MB, half of what is prefaulted ahead
    cached_records: int = 60_000        # 6.6 MB: stays in a third-level cache
    memory_records: int = 500_000       # 55 MB: "50 MB and more"
    large_records: int = 60_000         # of 1 KB
    million: int = 1_000_000
    stored_records: int = 200_000       # in a store that is asked for single records
    gets: int = 20_000
    exchanged: int = 300_000            # records from one process to another
    queued: int = 20_000                # the same through a multiprocessing.Queue
    peer_messages: int = 500            # through a queue of a peer, 1 ms each where that syncs
    pings: int = 3_000
    sleeps: int = 300                   # a blocking wait each
    syncs: int = 100
    idle_seconds: float = 30
    large_log: int = 2_000_000_000      # bytes
    small_log: int = 200_000_000
    cold_bytes: int = 100_000_000
    warm_bytes: int = 2 << 30
    takeovers: int = 300
    large_takeovers: int = 30
    resident_bytes: int = 4 << 30
    joins: int = 10


FULL = Sizes()
SMOKE = Sizes(
    round_records=500, cached_records=1_000, memory_records=2_000, large_records=200,
    million=2_000, stored_records=500, gets=50, exchanged=1_000, queued=200, peer_messages=200,
    pings=50, sleeps=3, syncs=3, idle_seconds=0.5, large_log=2_000_000, small_log=200_000,
    cold_bytes=200_000, warm_bytes=1 << 20, takeovers=3, large_takeovers=1, resident_bytes=1 << 20,
    joins=1,
)


class Workspace:
    """Scratch and shared logs of one question. A context manager."""

    def __init__(self, sizes: Sizes) -> None:
        self.sizes = sizes
        self._stack = ExitStack()
        self._logs: dict[tuple[int, int, bool], pylog.Log] = {}
        SCRATCH.mkdir(parents=True, exist_ok=True)
        self._folder = Path(tempfile.mkdtemp(prefix="bench-", dir=SCRATCH))
        self._stack.callback(shutil.rmtree, self._folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def path(self, name: str) -> Path:
        """A path in the scratch folder that nobody else was given."""
        return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self._folder)) / name

    def closing(self, resource):
        """Closes it with the workspace; returns it."""
        self._stack.callback(resource.close)
        return resource

    def entering(self, context):
        """Enters a context manager until the workspace is left; returns what it yields."""
        return self._stack.enter_context(context)

    def log(self, name: str, **options) -> pylog.Log:
        return self.closing(pylog.Log(self.path(name), **options))

    def values(self, count: int, size: int = 100) -> list[bytes]:
        """Distinct values, the same each time."""
        block = random.Random(size).randbytes(count * size)
        return [block[at:at + size] for at in range(0, count * size, size)]

    def filled(self, count: int, size: int = 100, one_by_one: bool = False) -> pylog.Log:
        """A log with `values(count, size)`, all sealed; shared by the cases of a question."""
        key = (count, size, one_by_one)
        if key not in self._logs:
            log = self.log("filled")
            values = self.values(count, size)
            if one_by_one:
                for value in values:
                    log.append(value)
            else:
                for at in range(0, count, 10_000):
                    log.append_many(values[at:at + 10_000])
            log.flush()
            if list(read_values(log)) != values:
                raise AssertionError("the log does not hold what was written")
            self._logs[key] = log
        return self._logs[key]

    def mapping(self, size: int) -> memoryview:
        """Blocks of a file, mapped for writing and faulted in: where the yardstick copies to."""
        with open(self.path("mapping"), "w+b") as file:
            os.posix_fallocate(file.fileno(), 0, size)
            mapped = mmap.mmap(file.fileno(), size)
            mapped.madvise(MADV_POPULATE_WRITE)
        return memoryview(mapped)


def read_values(log: pylog.Log):
    """All values of a log, chunk by chunk."""
    cursor = log.cursor()
    while chunk := cursor.fetch(max_bytes=CHUNK_BYTES):
        yield from chunk.values()


def log_bytes(path: Path) -> int:
    """Bytes of the segment files."""
    return sum(file.stat().st_size for file in path.glob("*.log"))


def warm_memory(size: int) -> None:
    """Touches memory and gives it back: a guest's first touch of a page can cost its host 10 us,
    and the bench is not about that."""
    block = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    block.madvise(MADV_POPULATE_WRITE)
    block.close()
