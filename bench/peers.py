"""Others that do the same work: sqlite3 in WAL mode, lmdb, rocksdict, a plain buffered file.

Each as its own documentation says is fast: one transaction a round, prepared statements, append
mode, no sync where the log does not sync either. They keep more than a log does (an index by key),
and a plain file less; docs/performance.md says what that means.
"""

from __future__ import annotations

import random
import sqlite3
import struct

import lmdb
import rocksdict

from bench.harness import Case
from bench.workspace import Workspace

MAP_SIZE = 16 << 30    # lmdb: address space, not memory
INSERT = "insert into log(value) values (?)"


# ---- open stores --------------------------------------------------------------------------------

def open_sqlite(workspace: Workspace, synchronous: str = "off"):
    database = workspace.closing(
        sqlite3.connect(workspace.path("sqlite"), isolation_level=None, check_same_thread=False))
    database.execute("pragma journal_mode=wal")
    database.execute(f"pragma synchronous={synchronous}")
    database.execute("create table log(offset integer primary key, value blob)")
    return database


def open_lmdb(workspace: Workspace, sync: bool = False):
    return workspace.closing(lmdb.open(
        str(workspace.path("lmdb")), map_size=MAP_SIZE, sync=sync, metasync=sync,
        writemap=not sync, readahead=True))


def open_rocks(workspace: Workspace):
    options = rocksdict.Options(raw_mode=True)
    options.create_if_missing(True)
    return workspace.closing(rocksdict.Rdict(str(workspace.path("rocks")), options))


def key_of(number: int) -> bytes:
    return struct.pack(">Q", number)


def keyed(first: int, values):
    pack = struct.Struct(">Q").pack
    return [(pack(number), value) for number, value in enumerate(values, first)]


# ---- one record a call --------------------------------------------------------------------------

def file_write(workspace: Workspace) -> Case:
    file = workspace.entering(open(workspace.path("file"), "wb", 1 << 16))    # noqa: SIM115
    values = workspace.values(workspace.sizes.round_records)

    def run() -> None:
        write = file.write
        for v in values:
            write(v)
        file.flush()

    return Case(run, len(values))


def sqlite_insert(workspace: Workspace) -> Case:
    database = open_sqlite(workspace)
    values = workspace.values(workspace.sizes.round_records)

    def run() -> None:
        execute = database.execute
        execute("begin")
        for v in values:
            execute(INSERT, (v,))
        execute("commit")

    return Case(run, len(values))


def lmdb_put(workspace: Workspace) -> Case:
    environment = open_lmdb(workspace)
    values = workspace.values(workspace.sizes.round_records)
    number = 0

    def run() -> None:
        nonlocal number
        with environment.begin(write=True) as transaction:
            put, pack = transaction.put, struct.Struct(">Q").pack
            for number, v in enumerate(values, number + 1):    # noqa: B020
                put(pack(number), v, append=True)

    return Case(run, len(values))


def rocks_put(workspace: Workspace) -> Case:
    store = open_rocks(workspace)
    values = workspace.values(workspace.sizes.round_records)
    number = 0

    def run() -> None:
        nonlocal number
        pack = struct.Struct(">Q").pack
        for number, v in enumerate(values, number + 1):    # noqa: B020
            store[pack(number)] = v

    return Case(run, len(values))


# ---- many records a call ------------------------------------------------------------------------

def file_writelines(workspace: Workspace) -> Case:
    file = workspace.entering(open(workspace.path("file"), "wb", 1 << 16))    # noqa: SIM115
    values = workspace.values(workspace.sizes.round_records)

    def run() -> None:
        file.writelines(values)
        file.flush()

    return Case(run, len(values))


def sqlite_executemany(workspace: Workspace) -> Case:
    database = open_sqlite(workspace)
    rows = [(v,) for v in workspace.values(workspace.sizes.round_records)]

    def run() -> None:
        database.execute("begin")
        database.executemany(INSERT, rows)
        database.execute("commit")

    return Case(run, len(rows))


def lmdb_putmulti(workspace: Workspace) -> Case:
    environment = open_lmdb(workspace)
    values = workspace.values(workspace.sizes.round_records)
    number, rows = 0, []

    def reset() -> None:
        nonlocal number, rows
        rows = keyed(number, values)
        number += len(values)

    def run() -> None:
        with environment.begin(write=True) as transaction:
            transaction.cursor().putmulti(rows, append=True)

    return Case(run, len(values), reset=reset)


def rocks_batch(workspace: Workspace) -> Case:
    store = open_rocks(workspace)
    values = workspace.values(workspace.sizes.round_records)
    number, rows = 0, []

    def reset() -> None:
        nonlocal number, rows
        rows = keyed(number, values)
        number += len(values)

    def run() -> None:
        batch = rocksdict.WriteBatch(raw_mode=True)
        for key, value in rows:
            batch.put(key, value)
        store.write(batch)

    return Case(run, len(values), reset=reset)


# ---- reading ------------------------------------------------------------------------------------

def filled_sqlite(workspace: Workspace, count: int):
    database = open_sqlite(workspace)
    database.execute("begin")
    database.executemany(INSERT, [(v,) for v in workspace.values(count)])
    database.execute("commit")
    return database


def filled_lmdb(workspace: Workspace, count: int):
    environment = open_lmdb(workspace)
    with environment.begin(write=True) as transaction:
        transaction.cursor().putmulti(keyed(0, workspace.values(count)), append=True)
    return environment


def filled_rocks(workspace: Workspace, count: int):
    store = open_rocks(workspace)
    for key, value in keyed(0, workspace.values(count)):
        store[key] = value
    store.flush()
    return store


def scanning(run, values: list[bytes], read_all) -> Case:
    """A pass that must see all of `values`, which `read_all` returns in the same way.

    To compare them would cost more than the pass: it is done once, before the first round.
    """
    seen, count = None, len(values)
    if read_all() != values:
        raise AssertionError("a peer returned other values than were written")
    del values, read_all

    def timed() -> None:
        nonlocal seen
        seen = run()

    def check() -> None:
        if seen != count:
            raise AssertionError(f"a peer returned {seen} records of {count}")

    return Case(timed, count, check=check)


def file_read(workspace: Workspace) -> Case:
    count = workspace.sizes.memory_records
    path, values = workspace.path("file"), workspace.values(count)
    path.write_bytes(b"".join(values))

    def run() -> int:
        number = 0
        with open(path, "rb", buffering=1 << 16) as file:
            read = file.read
            while read(100):
                number += 1
        return number

    def read_all() -> list[bytes]:
        with open(path, "rb", buffering=1 << 16) as file:
            return list(iter(lambda: file.read(100), b""))

    return scanning(run, values, read_all)


def sqlite_select(workspace: Workspace) -> Case:
    count = workspace.sizes.memory_records
    database = filled_sqlite(workspace, count)
    select = "select value from log order by offset"
    return scanning(lambda: sum(1 for _ in database.execute(select)), workspace.values(count),
                    lambda: [value for value, in database.execute(select)])


def lmdb_iterate(workspace: Workspace) -> Case:
    count = workspace.sizes.memory_records
    environment = filled_lmdb(workspace, count)

    def run() -> int:
        with environment.begin() as transaction:
            return sum(1 for _ in transaction.cursor().iternext(keys=False))

    def read_all() -> list[bytes]:
        with environment.begin() as transaction:
            return list(transaction.cursor().iternext(keys=False))

    return scanning(run, workspace.values(count), read_all)


def rocks_iterate(workspace: Workspace) -> Case:
    count = workspace.sizes.memory_records
    store = filled_rocks(workspace, count)
    return scanning(lambda: sum(1 for _ in store.values()), workspace.values(count),
                    lambda: list(store.values()))


# ---- single records -----------------------------------------------------------------------------

def getting(workspace: Workspace, fetch_all) -> Case:
    """`fetch_all(numbers)` must return the values with these numbers."""
    values = workspace.values(workspace.sizes.stored_records)
    numbers = random.Random(1).choices(range(len(values)), k=workspace.sizes.gets)
    got = None

    def run() -> None:
        nonlocal got
        got = fetch_all(numbers)

    def check() -> None:
        if got != [values[number] for number in numbers]:
            raise AssertionError("a peer returned other values")

    return Case(run, len(numbers), check=check)


def get_from_lmdb(workspace: Workspace) -> Case:
    environment = filled_lmdb(workspace, workspace.sizes.stored_records)

    def fetch_all(numbers):
        pack = struct.Struct(">Q").pack
        with environment.begin() as transaction:
            get = transaction.get
            return [get(pack(number)) for number in numbers]

    return getting(workspace, fetch_all)


def get_from_sqlite(workspace: Workspace) -> Case:
    database = filled_sqlite(workspace, workspace.sizes.stored_records)
    select = "select value from log where offset = ?"
    return getting(workspace, lambda numbers: [
        database.execute(select, (number + 1,)).fetchone()[0] for number in numbers])


def get_from_rocks(workspace: Workspace) -> Case:
    store = filled_rocks(workspace, workspace.sizes.stored_records)
    pack = struct.Struct(">Q").pack
    return getting(workspace, lambda numbers: [store[pack(number)] for number in numbers])


APPEND = {"file.write, 64 KiB buffer": file_write, "sqlite3 insert": sqlite_insert,
          "lmdb put": lmdb_put, "rocksdict put": rocks_put}
APPEND_MANY = {"file.writelines": file_writelines, "sqlite3 executemany": sqlite_executemany,
               "lmdb putmulti": lmdb_putmulti, "rocksdict write": rocks_batch}
READ = {"file.read(100)": file_read, "sqlite3 select": sqlite_select,
        "lmdb iterate": lmdb_iterate, "rocksdict iterate": rocks_iterate}
GET = {"sqlite3 select": get_from_sqlite, "rocksdict get": get_from_rocks}
