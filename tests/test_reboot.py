"""Power cuts, copies and remounts: what was durable is there, and no offset changes its bytes.

Each image is what a disk may hold when the power goes (see faults.py). It is recovered, appended
to, cut again, and recovered again. What must hold: the log is a prefix of what was appended; all
that was acknowledged as durable is in it; no offset that anybody saw in the first life shows other
bytes in a later one; `log.recovered` says what was found.
"""

import os
import random
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from faults import Snapshot, files_of, reboot_image, snapshot

import pylog

IMAGES = 600
LIVES = 30


@dataclass
class Truth:
    """What was appended, by offset; below `durable` it may never be lost."""

    records: dict[int, bytes] = field(default_factory=dict)
    durable: int = 0
    start: int = 0

    def note(self, first, values):
        self.records |= {first + i: value for i, value in enumerate(values)}

    def upto(self, end):
        return {offset: value for offset, value in self.records.items()
                if self.start <= offset < end}


def some_values(rng, tag):
    count = rng.choice([1, 1, 1, 3, 40])
    return [b"%s %d " % (tag, rng.randrange(1 << 30)) + rng.randbytes(rng.choice([0, 90, 900]))
            for _ in range(count)]


def act(rng, log, truth, tag):
    """One append by one of the ways in, or a flush. True when all is durable now."""
    values = some_values(rng, tag)
    way = rng.randrange(8)
    if way < 3:
        first = min(log.append(value) for value in values)
    elif way < 5:
        first = log.append_many(values)
    elif way == 5 and sum(map(len, values)) < 3000:
        first = log.append_many(values, atomic=True)
    elif way == 6:
        positions = [0]
        for value in values:
            positions.append(positions[-1] + len(value))
        first = log.append_buffer(b"".join(values), positions)
    else:
        log.flush()
        return True
    truth.note(first, values)
    return log.durability == "fsync"


def live(rng, log, truth, tag, steps):
    """A stretch of life; returns its snapshots, from the last durable one on."""
    lives = barrier(log, truth)
    # An fsync log is durable at each return: for it, the power goes during one of the last ones.
    in_flight = rng.randrange(1, 4) if log.durability == "fsync" else 0
    for step in range(steps):
        if rng.random() < 0.05:
            lives = delete(rng, log, truth)
            continue
        is_durable = act(rng, log, truth, tag)
        if is_durable and step < steps - in_flight:
            lives = barrier(log, truth)
        else:
            lives.append(snapshot(log))
    if log.durability == "interval" and lives[-1].durable_floor > truth.durable:
        lives = barrier(log, truth)     # the housekeeper flushed meanwhile
    return lives


def delete(rng, log, truth):
    """Deletes from the front; the files that went may come back, the start stays where it is."""
    lives = barrier(log, truth)
    truth.start = rng.randrange(log.start_offset, log.end_offset + 1)
    log.delete_before(truth.start)
    return [*lives, snapshot(log)]


def barrier(log, truth):
    log.flush()
    truth.durable = log.end_offset
    return [snapshot(log)]


def recover(path, truth):
    """Opens an image and checks what recovery made of it; returns the open log."""
    before = {p.name: p.stat().st_size for p in path.iterdir()}
    log = pylog.Log(path)
    got = {record.offset: record.value for record in log.read()}
    found = log.recovered

    assert found is not None
    assert found.reason == "scanned"
    assert got == truth.upto(found.cut_offset), before
    assert found.cut_offset >= truth.durable
    assert ("nothing was cut" in found.why) != any(path.glob("*.cut-*"))
    assert found.why
    assert log.end_offset == found.next_offset >= found.cut_offset
    assert log.start_offset >= truth.start
    if log.durability != "fsync":
        assert found.next_offset > max(truth.records, default=-1) or not found.is_lossy
        for offset in range(found.cut_offset, max(truth.records, default=-1) + 1):
            with pytest.raises(pylog.OffsetError):
                log.get(offset)
    truth.records = got
    return log


def make_life(rng, path, durability):
    """A log that lived for a while: its truth, and its snapshots since the last flush."""
    options = {
        "durability": durability,
        "segment_bytes": rng.choice([4096, 16384, 65536]),
        "index_interval_bytes": rng.choice([0, 512, 4096]),
        "flush_interval_ms": 60_000,
    }
    truth = Truth()
    with pylog.Log(path, **options) as log:
        lives = live(rng, log, truth, b"first", rng.randrange(1, 40))
    is_closed = durability == "os" and rng.random() < 0.3
    if is_closed:
        lives.append(Snapshot(files_of(path), truth.durable))
    return truth, lives, is_closed


@pytest.fixture
def fast_path(tmp_path):
    """Memory, where every sync is free: images are read back by the same kernel anyway."""
    if not os.access("/dev/shm", os.W_OK):
        yield tmp_path
        return
    path = Path(tempfile.mkdtemp(prefix="pylog-", dir="/dev/shm"))
    yield path
    shutil.rmtree(path)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(LIVES))
def test_power_cut_loses_nothing_durable_and_reuses_no_offset(tmp_path, fast_path, rng, number):
    durability = ["os", "interval", "os", "fsync"][number % 4]
    if durability != "fsync":
        tmp_path = fast_path
    truth, lives, is_closed = make_life(rng, tmp_path / "life", durability)

    for image in range(IMAGES // LIVES):
        draw = random.Random(rng.randrange(1 << 32))
        seen = Truth(dict(truth.records), truth.durable, truth.start)
        path = tmp_path / f"image{image}"
        reboot_image(draw, path, lives, inode_is_kept=draw.random() < 0.5,
                     meta_is_synced=not is_closed)
        for life in range(2):
            with recover(path, seen) as log:
                later = live(draw, log, seen, b"later %d" % life, draw.randrange(5))
            path = tmp_path / f"image{image}-{life}"
            reboot_image(draw, path, later, inode_is_kept=draw.random() < 0.5)
        recover(path, seen).close()
