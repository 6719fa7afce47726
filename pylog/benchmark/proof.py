"""Values to write, and the proof that a log holds them: outside of what is timed."""

import random
from collections.abc import Collection
from pathlib import Path

import pylog
from pylog.errors import CorruptRecordError

POOL_BYTES = 4 << 20
POOL_MIN, POOL_MAX = 8, 8192
FILLER = b"pylog bench "


def pool(size: int, number: int) -> list[bytes]:
    """Values of `size` bytes, the same for the same number. Half of each is random, half text, so
    that lz4 has something to do and cannot do everything."""
    count = max(POOL_MIN, min(POOL_MAX, POOL_BYTES // size))
    half = (size + 1) // 2
    block = random.Random(number).randbytes(count * half)
    text = (FILLER * (size // len(FILLER) + 1))[:size - half]
    return [block[at:at + half] + text for at in range(0, count * half, half)]


def prove(path: Path, count: int, known: Collection[bytes] | None) -> None:
    """The log is closed and sound, holds `count` records, and no value that is not in `known`.

    Raises CorruptRecordError. Cost: reads every byte twice.
    """
    report = pylog.check(path)
    if not report.ok:
        raise CorruptRecordError(f"the log that the bench wrote is damaged: {report}; keep the "
                                 "output, and report it", path=str(path))
    if report.records != count:
        raise CorruptRecordError(
            f"the bench wrote {count:,} records, and the log has {report.records:,}; keep the "
            "output, and report it", path=str(path))
    if known is not None and (foreign := foreign_values(path, frozenset(known))):
        raise CorruptRecordError(
            f"the log has {foreign:,} values that the bench did not write; keep the output, and "
            "report it", path=str(path))


def foreign_values(path: Path, known: frozenset[bytes]) -> int:
    with pylog.Log(path, mode="r") as log:
        cursor, foreign = log.cursor(), 0
        while chunk := cursor.fetch(max_bytes=1 << 20):
            values = chunk.values()
            if not known.issuperset(values):
                foreign += sum(value not in known for value in values)
        return foreign
