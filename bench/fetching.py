"""What reading costs: bytes, lazy records, columns, whole batches, single records.

A pass reads the whole log in chunks of 64 KiB that die before the next is taken: kept objects
would measure fresh allocator memory instead. Every pass begins with the marks of verified batches
dropped, and afterwards the bytes whose CRC was checked must be all bytes of the log. To compare all
that a pass returns would cost more than the pass, so the same pass is made before the first round
and after the last one, and its data compared with what was written.
"""

from __future__ import annotations

import mmap
import random

from bench import peers, yardsticks
from bench.harness import Case, Question, Target
from bench.workspace import CHUNK_BYTES, MADV_POPULATE_READ, SCAN_BYTES, Workspace


def data_bytes(log) -> int:
    """Bytes of all sealed batches, headers included, as the files themselves tell: each batch
    bears its length at byte 8, which counts from byte 12, and is followed by zeros at the end."""
    total = 0
    for path in log.path.glob("*.log"):
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as data:
            position = 0
            while position + 12 <= len(data):
                length = int.from_bytes(data[position + 8:position + 12], "big")
                if length == 0:
                    break
                position += 12 + length
            total += position
    return total


def each_chunk(log, use, max_bytes: int) -> int:
    cursor, count = log.cursor(), 0
    while chunk := cursor.fetch(max_bytes=max_bytes):
        use(chunk)
        count += len(chunk)
    return count


def must_equal(got, written, what: str) -> None:
    """Not assert: python -O must not drop it. Lists or bytes, too long to be printed."""
    if got != written:
        raise AssertionError(f"{what} returned something else than was written")


def reading(log, run, count: int, expected, prove) -> Case:
    """A pass over a log with every CRC; `run` must return `expected`. `prove` compares all data."""
    size = data_bytes(log)
    result = None

    def timed() -> None:
        nonlocal result
        result = run()

    def check() -> None:
        if result != expected:
            raise AssertionError(f"the pass found {result}, not {expected}")
        if log._verified_bytes() != size:
            raise AssertionError(f"{log._verified_bytes()} bytes were checked of {size}")

    prove()
    return Case(timed, count, reset=log._forget_verified, check=check, finish=prove)


def made_bytes(which: str):
    """The yardstick: the bytes objects alone, out of one chunk's worth of warm values."""
    def make(workspace: Workspace) -> Case:
        values, count = workspace.values(500), getattr(workspace.sizes, which)
        return Case(lambda: yardsticks.make_bytes(values, count), count)

    return make


def chunked(which: str, use, size: int = 100, one_by_one: bool = False,
            max_bytes: int = CHUNK_BYTES):
    """A pass that does `use` with each chunk. `which` names the number of records in Sizes."""
    def make(workspace: Workspace) -> Case:
        count = getattr(workspace.sizes, which)
        log = workspace.filled(count, size, one_by_one)

        def prove() -> None:
            got = []
            each_chunk(log, lambda chunk: got.extend(RECORDS[use](chunk, use(chunk))), max_bytes)
            written = zip(workspace.values(count, size), range(count),
                          (record.timestamp for record in log.read()), strict=True)
            must_equal(got, [record[:len(got[0])] for record in written], use.__name__)

        return reading(log, lambda: each_chunk(log, use, max_bytes), count, count, prove)

    return make


def values_of(chunk) -> list:
    return chunk.values()


def records_of(chunk) -> list:
    return list(chunk)


def columns_of(chunk) -> tuple:
    return chunk.offsets, chunk.timestamps, chunk.value_positions, chunk.value_sizes


def rows_of_columns(chunk, columns):
    view = chunk.payload
    for offset, timestamp, position, size in zip(*(one.tolist() for one in columns), strict=True):
        yield bytes(view[position:position + size]), offset, timestamp


# What each of them returned, as (value,) or (value, offset, timestamp).
RECORDS = {
    values_of: lambda chunk, values: [(value,) for value in values],
    records_of: lambda chunk, records: [(r.value, r.offset, r.timestamp) for r in records],
    columns_of: rows_of_columns,
}


def loop_over_records(which: str):
    """The plain way: a Python loop over Record objects."""
    def make(workspace: Workspace) -> Case:
        count = getattr(workspace.sizes, which)
        log = workspace.filled(count)

        def run() -> int:
            number = 0
            for _ in log.read():
                number += 1
            return number

        def prove() -> None:
            must_equal([record.value for record in log.read()], workspace.values(count), "read")

        return reading(log, run, count, count, prove)

    return make


def batch_views(workspace: Workspace) -> Case:
    count = workspace.sizes.memory_records
    log = workspace.filled(count)

    def prove() -> None:
        size = data_bytes(log)
        files = b"".join(path.read_bytes() for path in sorted(log.path.glob("*.log")))
        must_equal(b"".join(log.batches(0)), files[:size], "batches")

    return reading(log, lambda: sum(map(len, log.batches(0))), count, data_bytes(log), prove)


def memory_read(which: str, size: int = 100):
    """The yardstick of scans: the same page-cache pages, read once."""
    def make(workspace: Workspace) -> Case:
        count = getattr(workspace.sizes, which)
        log = workspace.filled(count, size)
        length = data_bytes(log)
        with open(next(log.path.glob("*.log")), "rb") as file:
            mapped = mmap.mmap(file.fileno(), length, prot=mmap.PROT_READ)
        mapped.madvise(MADV_POPULATE_READ)
        memory = memoryview(mapped)
        return Case(lambda: yardsticks.read_sum(memory), count)

    return make


def getting(workspace: Workspace) -> Case:
    """Single records at random offsets, each with its value."""
    count = workspace.sizes.stored_records
    log = workspace.filled(count)
    values = workspace.values(count)
    offsets = random.Random(1).choices(range(count), k=workspace.sizes.gets)
    got = None

    def run() -> None:
        nonlocal got
        get = log.get
        got = [get(offset).value for offset in offsets]

    def check() -> None:
        if got != [values[offset] for offset in offsets]:
            raise AssertionError("get returned something else than was appended")

    return Case(run, len(offsets), check=check)


def objects(name: str, title: str, which: str, gate: float, ambition: float) -> Question:
    return Question(
        name, f"read all as Python objects, {title}",
        {"bytes made in C": made_bytes(which), "values": chunked(which, values_of),
         "records": chunked(which, records_of), "read loop": loop_over_records(which)},
        (
            Target(f"fetch as bytes, CRC, {title}", "values", "bytes made in C", gate, ambition),
            Target(f"fetch as lazy Record, CRC, {title}", "records", "bytes made in C", 1.8, 1.1),
            Target(f"for record in log.read(), {title}", "read loop", "bytes made in C"),
        ),
        peers=peers.READ if which == "memory_records" else {},
    )


def columns(name: str, title: str, which: str, size: int, gate: float, ambition: float) -> Question:
    return Question(
        name, f"scan by columns, CRC checked, {title}",
        {"memory read": memory_read(which, size),
         "columns": chunked(which, columns_of, size, max_bytes=SCAN_BYTES)},
        (Target(f"columns, {title}", "columns", "memory read", gate, ambition, is_speed=True),),
    )


QUESTIONS = (
    objects("fetch_cached", "6.6 MB", "cached_records", 1.9, 1.35),
    objects("fetch", "55 MB", "memory_records", 2.3, 1.9),
    columns("columns", "100 B records", "memory_records", 100, 0.5, 0.7),
    columns("columns_large", "1 KB records", "large_records", 1000, 0.8, 0.9),
    Question(
        "batches", "whole batches as views, CRC checked",
        {"memory read": memory_read("memory_records"), "batch views": batch_views},
        (Target("batch views with CRC", "batch views", "memory read", 0.9, 1.0, is_speed=True),),
    ),
    Question(
        "one_by_one", "read a log that was written one record a call",
        {"written in batches": chunked("memory_records", values_of),
         "written one by one": chunked("memory_records", values_of, one_by_one=True)},
        (Target("written one by one, read", "written one by one", "written in batches", 0.9, 0.97,
                is_speed=True),),
    ),
    Question(
        "get", "single records at random offsets",
        {"lmdb get": peers.get_from_lmdb, "get(offset).value": getting},
        (Target("get(offset).value against lmdb", "get(offset).value", "lmdb get"),),
        peers=peers.GET,
        unit="get",
    ),
)
