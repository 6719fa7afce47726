"""A diary: what a member of a group writes down *before* it does it, in a file that outlives it.

    own 81723 7 12 3 150      member 7 has got partition 3 in generation 12; 150 was committed
    work 81790 7 12 3 150     it is about to handle the record at offset 150
    ask 81801 7 12 3 151      it is about to commit 151
    done 81804 7 12 3 151     that was accepted; or refused
    drop 81999 7 13 3 -1      it is about to let the partition go; lost: it hears that it has
    stood 82100 0 0 -1 950    its process stood still for 950 ns, as one that is stopped

A worker of the workload queue writes, in place of member, generation and partition, the queue, the
number of the delivery and the key: `put`, a message was added; `want`, when it began to take the
one that it has `got`; `ask`, `done`, `refused`: of its acknowledgement; `back`, it is about to give
it back.

Of a message with a delay, a time to live or a dedup key it writes, with its number in place of the
member, `post` and `posted` around the put (the first with delay and time to live in microseconds
and the key, the second whether it was added), `reach` and `take` around the delivery, `settle` and
`settled` around the acknowledgement; who looks on, in the end, `letter` of each that is one.

Of the workload request, `send` and `sent` are before and after the call that sends one, `wait` is
before its reply is waited for, and then there is a `reply`, or it is `over`; a server writes
`serve` and `answer`, before and after its work. In place of the member stands the request, in place
of the generation what a `send` has for a time-out (microseconds), and else the answer; a `reply`
has as its offset the request that it says it is for. In the end an asker writes `count`, its
replies and the late ones, and who looks on `there`, where each request is.

Who only looks on writes `look` (what is committed) and then `end` (where the log ends). Times are
nanoseconds of the monotonic clock, which all processes of a machine share. A line is one write(2)
with O_APPEND: a SIGKILL comes before or after it.
"""

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Self

KINDS = ("own", "work", "ask", "done", "refused", "drop", "lost", "stood", "look", "end",
         "put", "want", "got", "back",
         "send", "sent", "wait", "reply", "over", "count", "serve", "answer", "there",
         "post", "posted", "reach", "take", "settle", "settled", "letter")

TICK_SECONDS, STALL_NS = 0.02, 100_000_000


class Entry(NamedTuple):
    """One line. process: whose diary it is; offset: -1 where there is none."""

    at: int
    kind: str
    process: int
    member: int
    generation: int
    partition: int
    offset: int


class Diary:
    """One process's. `note` never buffers. Cost: 2 us, a write(2)."""

    def __init__(self, directory: Path) -> None:
        self.process = os.getpid()
        self.descriptor = os.open(directory / f"diary-{self.process}",
                                  os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def note(self, kind: str, member: int, generation: int, partition: int,
             offset: int = -1, at: int | None = None) -> None:
        """at: when it was, if not now."""
        when = time.monotonic_ns() if at is None else at
        os.write(self.descriptor,
                 b"%s %d %d %d %d %d\n" % (kind.encode(), when, member, generation, partition,
                                           offset))

    def close(self) -> None:
        """Once."""
        os.close(self.descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *unused: object) -> None:
        self.close()


@contextlib.contextmanager
def noting_stalls(diary: Diary) -> Iterator[None]:
    """Within it the diary tells when its process stood still, on a busy machine or in a container
    that was paused: whoever is silent for his session is fenced, though nobody has stopped him."""
    ending = threading.Event()

    def watch() -> None:
        last, is_over = time.monotonic_ns(), False
        while not is_over:
            is_over = ending.wait(TICK_SECONDS)
            now = time.monotonic_ns()
            if now - last > STALL_NS:
                diary.note("stood", 0, 0, -1, now - last, at=last)
            last = now

    thread = threading.Thread(target=watch, name="stress-stalls", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ending.set()
        thread.join()


def read_diaries(directory: Path) -> list[Entry]:
    """All entries of all processes, in the order of time. ValueError for a line that is none."""
    return sorted(entry for path in directory.glob("diary-*") for entry in _entries(path))


def _entries(path: Path) -> Iterator[Entry]:
    process = int(path.name.removeprefix("diary-"))
    for line in path.read_text(encoding="ascii").splitlines():
        kind, *numbers = line.split()
        if kind not in KINDS or len(numbers) != 5:
            raise ValueError(f"{path} has a line that no diary has: {line!r}")
        at, member, generation, partition, offset = map(int, numbers)
        yield Entry(at, kind, process, member, generation, partition, offset)
