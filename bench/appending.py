"""What an append costs: one record a call, lists, buffers, and on a fresh log.

The window is warm: every case appends to its own log in steady state (the first round is thrown
away), 5.5 MB a round, while the housekeeper keeps 16 MiB faulted in ahead and gains on the writer
in the other cases' turns. `cold` is the contrary: the first 100 MB of a new log, without a pause.
"""

from __future__ import annotations

import time

import numpy

from bench import peers, yardsticks
from bench.harness import Case, Figure, Probe, Question, Target
from bench.workspace import Workspace, log_bytes, read_values

LIST = 10_000    # records in one call of append_many


def for_each(f, values) -> None:
    """The loop of both `list.append` and `log.append`: the same text, `f` bound once."""
    for v in values: f(v)    # noqa: E701


def in_list(workspace: Workspace) -> Case:
    values = workspace.values(workspace.sizes.round_records)
    return Case(lambda: for_each([].append, values), len(values))


def to_log(workspace: Workspace, append, **options) -> Case:
    """A case that appends the round's values to a log of its own and reads all back at the end."""
    log = workspace.log("append", **options)
    values = workspace.values(workspace.sizes.round_records)
    rounds = 0

    def reset() -> None:
        nonlocal rounds
        rounds += 1

    def finish() -> None:
        log.flush()
        got = read_values(log)
        for _ in range(rounds):
            if [next(got) for _ in values] != values:
                raise AssertionError("the log holds something else than what was appended")
        if next(got, None) is not None:
            raise AssertionError("the log holds more than what was appended")

    return Case(lambda: append(log, values), len(values), reset=reset, finish=finish)


def append_bound(workspace: Workspace) -> Case:
    return to_log(workspace, lambda log, values: for_each(log.append, values))


def append_looked_up(workspace: Workspace) -> Case:
    def append(log, values):
        for v in values:
            log.append(v)

    return to_log(workspace, append)


def append_with_key(workspace: Workspace) -> Case:
    def append(log, values):
        f, k, t = log.append, b"key-0001", int(time.time() * 1000)
        for v in values:
            f(v, key=k, timestamp=t)

    return to_log(workspace, append)


def append_lists(workspace: Workspace, **options) -> Case:
    values = workspace.values(workspace.sizes.round_records)
    lists = [values[at:at + LIST] for at in range(0, len(values), LIST)]

    def append(log, values):
        for part in lists:
            log.append_many(part)

    return to_log(workspace, append, **options)


def append_lz4(workspace: Workspace) -> Case:
    return append_lists(workspace, compression="lz4")


def append_one_buffer(workspace: Workspace) -> Case:
    values = workspace.values(workspace.sizes.round_records)
    payload = b"".join(values)
    positions = numpy.arange(len(values) + 1, dtype=numpy.int64) * 100
    return to_log(workspace, lambda log, _: log.append_buffer(payload, positions))


def copied_lists(workspace: Workspace) -> Case:
    """memcpy of the same lists into a mapping of real blocks that no round has touched before,
    but for the fault: what append_many does, without header, CRC, lock or publication."""
    values = workspace.values(workspace.sizes.round_records)
    lists = [values[at:at + LIST] for at in range(0, len(values), LIST)]
    size = len(values) * 100
    target = workspace.mapping(8 * size)
    position = 0

    def run() -> None:
        nonlocal position
        for part in lists:
            position = yardsticks.copy_list(part, target, position)

    def reset() -> None:
        nonlocal position
        if position + size > len(target):
            position = 0

    def check() -> None:
        if target[position - size:position] != b"".join(values):
            raise AssertionError("the yardstick copied something else")

    return Case(run, len(values), reset=reset, check=check)


def measure_cold(workspace: Workspace, rounds: int) -> list[Figure]:
    """The first bytes of a new log without a pause: page faults included."""
    values = workspace.values(LIST)
    calls = max(1, workspace.sizes.cold_bytes // (110 * len(values)))
    figures = []
    for name, append in (
        ("append, first 100 MB of a new log", lambda log: for_each(log.append, values)),
        ("append_many, first 100 MB of a new log", lambda log: log.append_many(values)),
    ):
        times = []
        for _ in range(max(1, rounds // 5)):
            log = workspace.log("cold")
            start = time.perf_counter()
            for _ in range(calls):
                append(log)
            times.append((time.perf_counter() - start) / (calls * len(values)) * 1e9)
            log.close()
        times.sort()
        figures.append(Figure("cold", name, times[0], times[len(times) // 2], "ns"))
    return figures


def measure_sizes(workspace: Workspace, rounds: int) -> list[Figure]:
    """Bytes of the closed log of a million records, a record; written either way."""
    count = workspace.sizes.million
    values = workspace.values(10_000 if count > 10_000 else count)
    figures = []
    for name, append in (
        ("bytes a record, written by append", lambda log: for_each(log.append, values)),
        ("bytes a record, written by append_many", lambda log: log.append_many(values)),
    ):
        log = workspace.log("million")
        for _ in range(count // len(values)):
            append(log)
        log.close()
        size = log_bytes(log.path) / count
        figures.append(Figure("size", name, size, None, "B", 110.0, detail=f"{count:,} records"))
    return figures


QUESTIONS = (
    Question(
        "append", "append one record of 100 bytes",
        {"list.append": in_list, "append": append_bound, "log.append": append_looked_up,
         "append, key and timestamp": append_with_key},
        (
            Target("append(value)", "append", "list.append", 3.5, 2.6),
            Target("log.append(value), looked up each time", "log.append", "list.append"),
            Target("append(value, key, timestamp)", "append, key and timestamp", "list.append",
                   4.5, 3.0),
        ),
        peers=peers.APPEND,
    ),
    Question(
        "append_many", "append 100-byte records in lists of 10,000",
        {"memcpy": copied_lists, "append_many": append_lists, "append_buffer": append_one_buffer,
         "append_many, lz4": append_lz4},
        (
            Target("append_many(list)", "append_many", "memcpy", 2.2, 1.45),
            Target("append_buffer", "append_buffer", "memcpy"),
            Target("append_many(list), lz4, random bytes", "append_many, lz4", "memcpy"),
        ),
        peers=peers.APPEND_MANY,
    ),
)
PROBES = (
    Probe("cold", "append to a fresh log", measure_cold),
    Probe("size", "bytes on disk", measure_sizes),
)
