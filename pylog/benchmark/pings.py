"""How soon another process has a record: from before the append there to the bytes object here.

The writer puts the time into the record, the reader looks at the same clock. The writer paces
itself, so these are times of a log at rest, not of one under load. A spinning reader looks at the
end of the log without pause; a blocking one sleeps in `wait`. Reader and writer should each have a
core; on one alone the figures are the scheduler's.
"""

import struct
import time
from collections.abc import Callable
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np

import pylog
from pylog.benchmark.crew import Meet, run_together
from pylog.benchmark.proof import prove
from pylog.benchmark.rows import Row
from pylog.benchmark.settings import Settings
from pylog.benchmark.throughput import UNSYNCED, open_log
from pylog.benchmark.timing import Times, clock, spread_of
from pylog.errors import CorruptRecordError, PylogTimeoutError

STAMP = struct.Struct("=q")
LAST = -1
SPIN_GAP_NS = 20_000
SLEEP_SECONDS = 0.001     # the reader, and often its core, are asleep by then
SILENCE_SECONDS = 30
LOOKS = 100_000           # between two looks at the deadline
ALONE_CALLS = 20_000
WARM_UP = 100             # pings that do not count: both processes have just begun


def measure_latency(settings: Settings, path: Path) -> list[Row]:
    """Three rows: spinning, blocking, and the stamp alone, which both contain."""
    spun, slept = path / "spinning", path / "blocking"
    (sent, alone), received = run_together([(send_all, (spun, slept, settings)),
                                            (receive_all, (spun, slept))])
    return [row_of_pings(settings, spun, False, sent[0], received[0]),
            row_of_pings(settings, slept, True, sent[1], received[1]),
            Row("(the stamp alone)", "nothing", 0, 0, 0.0, spread_of([alone]), "", is_paced=True)]


def row_of_pings(settings: Settings, log_path: Path, is_blocking: bool, sent: int,
                 times: Times) -> Row:
    prove(log_path, sent + 1, None)
    if len(times) != sent:
        raise CorruptRecordError(f"{len(times):,} pings arrived of {sent:,}; keep the output, and "
                                 "report it", path=str(log_path))
    name = "latency blocking" if is_blocking else "latency spinning"
    pace = "1 ms" if is_blocking else "20 us"
    return Row(name, f"one each {pace}", settings.size, sent, 0.0,
               spread_of([times[WARM_UP:] if sent > 2 * WARM_UP else times]),
               UNSYNCED[settings.durability], is_paced=True)


def send_all(meet: Meet, spun: Path, slept: Path, settings: Settings) -> tuple[list[int], Times]:
    alone = stamp_alone(settings.size)
    return [send_pings(meet, spun, settings, False), send_pings(meet, slept, settings, True)], alone


def receive_all(meet: Meet, spun: Path, slept: Path) -> list[Times]:
    return [receive_pings(meet, spun, False), receive_pings(meet, slept, True)]


def send_pings(meet: Meet, path: Path, settings: Settings, is_blocking: bool) -> int:
    filler, pack = bytes(settings.size - STAMP.size), STAMP.pack
    limits = settings.limits(settings.slow_calls)
    with open_log(path, settings) as log:
        meet()    # the log is there,
        meet()    # and the reader at its end
        sent = 0
        deadline = clock() + limits.seconds * 1e9
        while sent < limits.calls and clock() < deadline:
            if is_blocking:
                time.sleep(SLEEP_SECONDS)
            else:
                spin_until(clock() + SPIN_GAP_NS)
            log.append(pack(clock()) + filler)
            sent += 1
        log.append(pack(LAST) + filler)
    return sent


def spin_until(due: int) -> None:
    while clock() < due:
        pass


def receive_pings(meet: Meet, path: Path, is_blocking: bool) -> Times:
    """ns of each, in the order of the log. A reader that was kept from its core may find several
    at once; each counts from its own append."""
    times: list[int] = []
    unpack: Callable[[Any], tuple[int]] = STAMP.unpack_from
    take, now = times.append, clock
    meet()
    with pylog.Log(path, mode="r") as log:
        cursor = log.cursor("latest")
        meet()
        while True:
            if is_blocking:
                wait_for_more(cursor)
            else:
                spin_for_more(log, cursor.offset)
            values = cursor.fetch().values()
            seen = now()
            for value in values:
                if (stamp := unpack(value)[0]) == LAST:
                    return np.array(times, np.int64)
                take(seen - stamp)


def wait_for_more(cursor: pylog.Cursor) -> None:
    if not cursor.wait(SILENCE_SECONDS):
        raise silence()


def spin_for_more(log: pylog.Log, offset: int) -> None:
    deadline = clock() + SILENCE_SECONDS * 10**9
    while clock() < deadline:
        for _ in repeat(None, LOOKS):
            if log.readable_offset != offset:
                return
    raise silence()


def silence() -> PylogTimeoutError:
    return PylogTimeoutError(f"no ping came for {SILENCE_SECONDS} s; run it again on a machine "
                             "that has a core to spare")


def stamp_alone(size: int) -> Times:
    """A stamp made, joined, taken apart and compared, with no log between."""
    filler, pack, unpack, now = bytes(size - STAMP.size), STAMP.pack, STAMP.unpack_from, clock
    times: list[int] = []
    for _ in range(ALONE_CALLS):
        value = pack(now()) + filler
        seen = now()
        times.append(seen - unpack(value)[0])
    return np.array(times, np.int64)


