"""The same events into a log, into sqlite3 and into a plain file, in one run.

On the same terms: a record can be read by other processes when the call returns, survives a
kill -9 of its writer, and nobody waits for the disk.
"""

import shutil
import sqlite3
import time

import numpy
from rich.table import Table

import pylog

BATCH = 500
ONE_BY_ONE_MAX = 50_000    # of sqlite3's commits: they are slow
ROUNDS = 3


class LogPeer:
    name = "pylog"

    def __init__(self, folder):
        self.log = pylog.Log(folder / "log")

    @staticmethod
    def shape(batch):
        timestamps, keys, values = map(list, zip(*batch, strict=True))
        return values, keys, numpy.array(timestamps)

    def append_one(self, events):
        append = self.log.append
        for timestamp, key, value in events:
            append(value, key=key, timestamp=timestamp)

    def append_batches(self, shaped):
        for values, keys, timestamps in shaped:
            self.log.append_many(values, keys=keys, timestamps=timestamps)

    def read(self):
        values, cursor = [], self.log.cursor()
        while chunk := cursor.fetch():
            values += chunk.values()
        return values

    def close(self):
        self.log.close()


class SqlitePeer:
    name = "sqlite3, WAL"

    def __init__(self, folder):
        self.database = sqlite3.connect(folder / "events.db", isolation_level=None)
        self.database.execute("PRAGMA journal_mode=WAL")
        self.database.execute("PRAGMA synchronous=OFF")    # it does not wait for the disk either
        self.database.execute(
            "CREATE TABLE events (id INTEGER PRIMARY KEY, time INTEGER, key BLOB, value BLOB)"
        )
        self.insert = "INSERT INTO events (time, key, value) VALUES (?, ?, ?)"

    @staticmethod
    def shape(batch):
        return batch

    def append_one(self, events):
        execute, insert = self.database.execute, self.insert
        for event in events:
            execute(insert, event)

    def append_batches(self, shaped):
        for batch in shaped:
            self.database.execute("BEGIN")
            self.database.executemany(self.insert, batch)
            self.database.execute("COMMIT")

    def read(self):
        return [value for (value,) in self.database.execute("SELECT value FROM events ORDER BY id")]

    def close(self):
        self.database.close()


class FilePeer:
    name = "plain file ¹"

    def __init__(self, folder):
        self.file = open(folder / "events.jsonl", "ab+")    # noqa: SIM115 - closed by close()

    @staticmethod
    def shape(batch):
        return [value + b"\n" for _, _, value in batch]

    def append_one(self, events):
        write, flush = self.file.write, self.file.flush
        for _, _, value in events:
            write(value + b"\n")
            flush()

    def append_batches(self, shaped):
        for lines in shaped:
            self.file.writelines(lines)
            self.file.flush()

    def read(self):
        self.file.seek(0)
        return [line[:-1] for line in self.file]

    def close(self):
        self.file.close()


def compare(events, folder, console):
    """Prints records/s of each, the best of a few rounds taken in turn."""
    best = {peer: [0.0, 0.0, 0.0] for peer in (LogPeer, SqlitePeer, FilePeer)}
    for _ in range(ROUNDS):
        for peer, rates in best.items():
            found = measure(peer, events, folder)
            best[peer] = [max(pair) for pair in zip(rates, found, strict=True)]
    shutil.rmtree(folder)
    table = Table(box=None, padding=(0, 2), pad_edge=False)
    for title in ("   records/s", "append, one a call", f"append, {BATCH} a call", "read all"):
        table.add_column(title, justify="right" if table.columns else "left")
    for peer, rates in best.items():
        cells = [f"{rate:,.0f}" for rate in rates]
        table.add_row(f"   {peer.name}", *cells, style="bold" if peer is LogPeer else "")
    console.print(table)
    console.print("   ¹ values only: no keys, no times, no checksums, no finding anything in it",
                  style="dim")


def measure(peer_class, events, folder):
    """Records/s of (one a call, many a call, read). What each takes is shaped before the clock."""
    few = events if peer_class is not SqlitePeer else events[:ONE_BY_ONE_MAX]
    peer = make(peer_class, folder)
    one_a_call = len(few) / seconds(lambda: peer.append_one(few))
    peer.close()
    peer = make(peer_class, folder)
    starts = range(0, len(events), BATCH)
    shaped = [peer.shape(events[start:start + BATCH]) for start in starts]
    many_a_call = len(events) / seconds(lambda: peer.append_batches(shaped))
    values = []
    read = len(events) / seconds(lambda: values.append(peer.read()))
    peer.close()
    if values[0] != [value for _, _, value in events]:
        raise SystemExit(f"{peer.name} gave back other values than it was given")
    return one_a_call, many_a_call, read


def make(peer_class, folder):
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return peer_class(folder)


def seconds(action):
    started = time.perf_counter()
    action()
    return time.perf_counter() - started
