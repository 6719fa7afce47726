"""What it costs to have a record on disk when append returns: alone, and eight threads at once.

The yardstick is the device: pwrite of as many bytes and fdatasync, into a file whose blocks exist
and were written once. With eight threads each syncs for itself there, while the log's callers
share a flush, so the log may be faster than its yardstick.
"""

from __future__ import annotations

import os
import threading

from bench import peers
from bench.harness import Case, Question, Target
from bench.peers import INSERT, key_of, open_lmdb, open_rocks, open_sqlite
from bench.workspace import Workspace, read_values

THREADS = 8


def in_threads(work, count: int) -> None:
    """Runs work(number of the thread) in eight threads, `count` times each."""
    def loop(number: int) -> None:
        for _ in range(count):
            work(number)

    threads = [threading.Thread(target=loop, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def written_file(workspace: Workspace) -> int:
    """Descriptor of a file of 16 MiB of written, synced blocks."""
    descriptor = os.open(workspace.path("blocks"), os.O_RDWR | os.O_CREAT)
    for _ in range(16 << 20 >> 12):
        os.write(descriptor, bytes(4096))
    os.fsync(descriptor)
    return descriptor


class Blocks:
    """A place in a written file that moves on with every write."""

    def __init__(self, workspace: Workspace) -> None:
        self.descriptor = written_file(workspace)
        self.position = 0
        workspace.closing(self)

    def close(self) -> None:
        os.close(self.descriptor)

    def write(self, value: bytes) -> None:
        position = self.position
        self.position = (position + len(value)) % (16 << 20)
        os.pwrite(self.descriptor, value, position)
        os.fdatasync(self.descriptor)


def one_file(workspace: Workspace) -> Case:
    blocks, count, value = Blocks(workspace), workspace.sizes.syncs, bytes(110)

    def run() -> None:
        for _ in range(count):
            blocks.write(value)

    return Case(run, count)


def threads_on_a_file(workspace: Workspace) -> Case:
    blocks, count, value = Blocks(workspace), workspace.sizes.syncs, bytes(110)
    return Case(lambda: in_threads(lambda _: blocks.write(value), count), THREADS * count)


def appending(workspace: Workspace, run, count: int) -> Case:
    """`run(log)` appends `count` records durably; all must be there, and durable, each time."""
    log = workspace.log("durable", durability="fsync")
    expected = 0

    def check() -> None:
        nonlocal expected
        expected += count
        if not log.durable_offset == log.end_offset == expected:
            raise AssertionError(f"{log.durable_offset} records are durable, not {expected}")

    def finish() -> None:
        if sum(1 for _ in read_values(log)) != expected:
            raise AssertionError("a durable record cannot be read")

    return Case(lambda: run(log), count, check=check, finish=finish)


def log_alone(workspace: Workspace) -> Case:
    count, value = workspace.sizes.syncs, bytes(100)

    def run(log) -> None:
        for _ in range(count):
            log.append(value)

    return appending(workspace, run, count)


def log_in_threads(workspace: Workspace) -> Case:
    count, value = workspace.sizes.syncs, bytes(100)
    return appending(
        workspace, lambda log: in_threads(lambda _: log.append(value), count), THREADS * count)


def sqlite_commit(workspace: Workspace) -> Case:
    database, count = open_sqlite(workspace, "full"), workspace.sizes.syncs

    def run() -> None:
        for _ in range(count):
            database.execute(INSERT, (bytes(100),))

    return Case(run, count)


def lmdb_commit(workspace: Workspace) -> Case:
    environment, count = open_lmdb(workspace, sync=True), workspace.sizes.syncs
    number = 0

    def run() -> None:
        nonlocal number
        for _ in range(count):
            number += 1
            with environment.begin(write=True) as transaction:
                transaction.put(key_of(number), bytes(100), append=True)

    return Case(run, count)


def rocks_sync(workspace: Workspace) -> Case:
    store, count = open_rocks(workspace), workspace.sizes.syncs
    options = peers.rocksdict.WriteOptions()
    options.sync = True
    store.set_write_options(options)
    number = 0

    def run() -> None:
        nonlocal number
        for _ in range(count):
            number += 1
            store[key_of(number)] = bytes(100)

    return Case(run, count)


QUESTIONS = (
    Question(
        "durable", "append a record and have it on disk",
        {"pwrite, fdatasync": one_file, "append, fsync": log_alone},
        (Target("append, durability fsync", "append, fsync", "pwrite, fdatasync"),),
        peers={"sqlite3 commit, full": sqlite_commit, "lmdb commit, sync": lmdb_commit,
               "rocksdict put, sync": rocks_sync},
    ),
    Question(
        "durable_threads", "eight threads, each waits for its record on disk",
        {"pwrite, fdatasync, 8 threads": threads_on_a_file,
         "append, fsync, 8 threads": log_in_threads},
        (Target("append, durability fsync, 8 threads", "append, fsync, 8 threads",
                "pwrite, fdatasync, 8 threads"),),
    ),
)
