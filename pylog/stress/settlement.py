"""The settlement: what the producers' ledgers say against what the checker saw.

Everything below a ledger's `settled` was acknowledged, but for its spans. So what is missing, and
what is there though nobody sent it, is arithmetic on sorted intervals: no record is looked at
again, and a catastrophe of a million losses takes seconds.

What is missing in front of a cut is the tail that a recovery lost, also where the producer went on
behind the cut: there the lost records are no suffix of what it sent, but of what stood there.
"""

import bisect
import itertools
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from operator import itemgetter

from pylog import _native
from pylog.stress.sightings import KEPT, Sightings

Interval = tuple[int, int]    # half-open


@dataclass(slots=True)
class Balance:
    """Sums over the producers, in records."""

    sent: int = 0
    acknowledged: int = 0
    failed: int = 0
    indeterminate: int = 0
    indeterminate_present: int = 0
    missing: int = 0


def settle(
    checker: _native.Checker,
    ledgers: Iterable[_native.Ledger],
    notes: Sightings,
    starts_late: bool = False,
    cuts: Iterable[Interval] = (),
) -> Balance:
    """Notes every record that is missing or should not be there.

    `starts_late`: what the log held first was deleted, and nobody can say whether it was there.
    `cuts`: offsets that recoveries skipped.
    """
    balance = Balance()
    cuts = sorted(cuts)
    undescribed: Counter[str] = Counter()
    for ledger in ledgers:
        account = Account(ledger, checker.seen(ledger.producer), starts_late)
        for found in itertools.chain(account.missing(cuts), account.unwanted()):
            if notes.described[found.name] < KEPT:
                found.note(notes, account.producer)
            else:
                undescribed[found.name] += found.end - found.start
        account.add_to(balance)
    for name, count in undescribed.items():
        notes.note(name, count=count)
    return balance


@dataclass(frozen=True, slots=True)
class Found:
    """Sequences [start, end) of a producer with which the same is wrong."""

    name: str
    start: int
    end: int
    why: str
    offset: int | None

    def note(self, notes: Sightings, producer: int) -> None:
        notes.note(self.name,
                   f"producer {producer}, sequences {self.start} to {self.end - 1}: {self.why}",
                   count=self.end - self.start, producer=producer, sequence=self.start,
                   offset=self.offset)


class Account:
    """One producer: its ledger, and the intervals of sequences that were seen."""

    def __init__(
        self, ledger: _native.Ledger, seen: list[tuple[int, int, int, int]], starts_late: bool
    ) -> None:
        self.producer = ledger.producer
        self.settled = ledger.settled    # first: it only grows, and the spans below it stay
        self.spans = ledger.spans
        self.sent = ledger.sent
        self.seen = [(start, end) for start, end, _, _ in seen]
        self.offsets = [offset for _, _, offset, _ in seen]
        # The greatest offset of the first n intervals, and of none.
        self.reached = list(itertools.accumulate((one[3] for one in seen), max, initial=-1))
        doubtful = [(start, end) for start, end, _ in self.spans]
        first = (self.seen[0][0] if seen else self.settled) if starts_late else 0
        self.acknowledged = list(minus([(0, self.settled)], doubtful))
        self.expected = list(minus(self.acknowledged, [(0, first)]))
        self.failed = [(start, end) for start, end, is_failed in self.spans if is_failed]
        # Who died while it noted a doubt left a span above `settled`.
        self.open = [*minus(doubtful, self.failed), *minus([(self.settled, self.sent)], doubtful)]

    def missing(self, cuts: list[Interval]) -> Iterator[Found]:
        """What was acknowledged and not seen. Cost: log n for each."""
        for start, end in minus(self.expected, self.seen):
            at = bisect.bisect_left(self.seen, (end,))    # all before it end at `start` or below
            before = self.reached[at]
            after = self.offsets[at] if at < len(self.seen) else None
            name = "lost-write" if after is None else "hole"
            behind = bisect.bisect_right(cuts, before, key=itemgetter(0))
            if behind < len(cuts) and (after is None or after >= cuts[behind][1]):
                name = "truncated-tail"
            why = "nothing of it follows" if after is None else (
                f"the next that is there stands at offset {after}")
            yield Found(name, start, end, why, after)

    def unwanted(self) -> Iterator[Found]:
        """What was seen, and never sent or promised not to be there."""
        for start, end in minus(self.seen, [(0, self.sent)]):
            yield Found("invented-write", start, end, f"it sent {self.sent} records",
                        self.offset_of(start))
        for start, end in common(self.failed, self.seen):
            yield Found("failed-write", start, end, "their call raised", self.offset_of(start))

    def offset_of(self, sequence: int) -> int | None:
        """Of one at which an interval begins."""
        at = bisect.bisect_left(self.seen, (sequence,))
        is_there = at < len(self.seen) and self.seen[at][0] == sequence
        return self.offsets[at] if is_there else None

    def add_to(self, balance: Balance) -> None:
        """Its sums."""
        balance.sent += self.sent
        balance.acknowledged += size(self.acknowledged)
        balance.failed += size(self.failed)
        balance.indeterminate += size(self.open)
        balance.indeterminate_present += size(common(self.open, self.seen))
        balance.missing += size(minus(self.expected, self.seen))


def acknowledged_of(ledger: _native.Ledger, start: int = 0) -> Iterator[Interval]:
    """The sequences from `start` on that calls have returned for, also while the producer works."""
    settled = ledger.settled    # first: it only grows, and the spans below it stay
    return minus([(start, settled)], [(first, end) for first, end, _ in ledger.spans])


def minus(first: Iterable[Interval], second: Iterable[Interval]) -> Iterator[Interval]:
    """What is in the first and not in the second; both sorted and disjoint."""
    takers = iter(second)
    taker = next(takers, None)
    for start, end in first:
        while taker and start < end:
            if taker[1] <= start:
                taker = next(takers, None)
            elif taker[0] >= end:
                break
            else:
                if taker[0] > start:
                    yield start, taker[0]
                start = taker[1]
        if start < end:
            yield start, end


def common(first: list[Interval], second: list[Interval]) -> Iterator[Interval]:
    """What is in both; both sorted and disjoint."""
    return minus(first, list(minus(first, second)))


def size(intervals: Iterable[Interval]) -> int:
    """How many numbers they hold."""
    return sum(end - start for start, end in intervals)
