"""Opening a large log, tidy and after kill -9, and the memory of a reader far behind.

The log was just written, so its pages are in the page cache; what is measured is `pylog.Log(path)`
alone. The killed process has appended one record, so the next opener has work to do.
"""

from __future__ import annotations

import os
import signal
import statistics
import time
from pathlib import Path

import pylog
from bench.harness import Figure, Probe, format_time
from bench.processes import SPAWN
from bench.workspace import CHUNK_BYTES, Workspace, log_bytes


def write_log(workspace: Workspace, size: int) -> Path:
    """A closed log of `size` bytes of 100-byte records."""
    log = workspace.log("large")
    values = workspace.values(10_000)
    left = size // 110
    while left > 0:
        log.append_many(values[:left])
        left -= len(values)
    log.close()
    return log.path


def open_once(path: Path) -> float:
    start = time.perf_counter()
    log = pylog.Log(path)
    seconds = time.perf_counter() - start
    try:
        if log.get(log.end_offset - 1).offset != log.end_offset - 1:
            raise AssertionError("the last record is another")
    finally:
        log.close()
    return seconds


def kill_a_writer(path: Path) -> None:
    """A process opens the log, appends a record and dies with the log open."""
    child = os.fork()
    if child == 0:
        log = pylog.Log(path)
        log.append(bytes(100))
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)


def measure_reopen(workspace: Workspace, rounds: int) -> list[Figure]:
    large = write_log(workspace, workspace.sizes.large_log)
    small = write_log(workspace, workspace.sizes.small_log)
    clean: list[float] = []
    killed: list[float] = []
    little: list[float] = []
    for _ in range(rounds):    # the two alone: what a kill leaves to write would slow the next open
        clean.append(open_once(large))
        little.append(open_once(small))
    for _ in range(rounds):
        kill_a_writer(large)
        killed.append(open_once(large))
    size = f"{log_bytes(large) / 1e9:.2g} GB"
    ratios = [a / b for a, b in zip(clean, little, strict=True)]
    return [
        Figure("reopen", f"reopen, closed cleanly, {size}", min(clean) * 1e3,
               statistics.median(clean) * 1e3, "ms", 10, 2),
        Figure("reopen", f"reopen, after kill -9, {size}", min(killed) * 1e3,
               statistics.median(killed) * 1e3, "ms", 50, 10),
        Figure("reopen", "reopen, 2 GB against 200 MB", min(clean) / min(little),
               statistics.median(ratios), "x", 1.5, 1.1,
               detail=f"{format_time(min(clean))} against {format_time(min(little))}"),
    ]


def anonymous_kib() -> int:
    """RssAnon of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1])
    raise RuntimeError("/proc/self/status has no RssAnon")


def read_from_far_behind(connection, path: str) -> None:
    """Reads all, first as records, then as values; reports anonymous memory before and at most."""
    with pylog.Log(path) as log:
        before = most = anonymous_kib()
        count = 0
        for _ in log.read():
            count += 1
            if count % 100_000 == 0:
                most = max(most, anonymous_kib())
        cursor = log.cursor()
        while chunk := cursor.fetch(max_bytes=CHUNK_BYTES):
            chunk.values()
            if chunk.next_offset % 100_000 < len(chunk):
                most = max(most, anonymous_kib())
        connection.send((before, max(most, anonymous_kib()), count, log.end_offset))


def measure_reader_memory(workspace: Workspace, rounds: int) -> list[Figure]:
    path = write_log(workspace, workspace.sizes.large_log)
    here, there = SPAWN.Pipe()
    process = SPAWN.Process(target=read_from_far_behind, args=(there, str(path)))
    process.start()
    before, most, count, end = here.recv()
    process.join()
    if count != end:
        raise AssertionError(f"the reader saw {count} records of {end}")
    return [Figure(
        "behind", f"anonymous memory of a reader {log_bytes(path) / 1e9:.2g} GB behind",
        (most - before) / 1024, None, "MiB", 32, 8,
        detail=f"added by reading; the whole process, with numpy: {most / 1024:.1f} MiB",
    )]


PROBES = (
    Probe("reopen", "opening a large log", measure_reopen),
    Probe("behind", "memory of a reader far behind", measure_reader_memory),
)
