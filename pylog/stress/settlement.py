"""The settlement: what the producers' ledgers say against what the checker saw.

Everything below a ledger's `settled` was acknowledged, but for its spans. So what is missing, and
what is there though nobody sent it, is arithmetic on sorted intervals: no record is looked at
again.

What is missing in front of a cut is the tail that a recovery lost, also where the producer went on
behind the cut: there the lost records are no suffix of what it sent, but of what stood there.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pylog import _native
from pylog.stress.sightings import Sightings

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
    cuts = list(cuts)
    for ledger in ledgers:
        account = Account(ledger, checker.seen(ledger.producer), starts_late)
        account.note_missing(notes, cuts)
        account.note_unwanted(notes)
        account.add_to(balance)
    return balance


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
        self.offsets = {start: offset for start, _, offset, _ in seen}
        self.last_offsets = {end: offset for _, end, _, offset in seen}
        doubtful = [(start, end) for start, end, _ in self.spans]
        first = (self.seen[0][0] if seen else self.settled) if starts_late else 0
        self.acknowledged = list(minus([(0, self.settled)], doubtful))
        self.expected = list(minus(self.acknowledged, [(0, first)]))
        self.failed = [(start, end) for start, end, is_failed in self.spans if is_failed]
        # Who died while it noted a doubt left a span above `settled`.
        self.open = [*minus(doubtful, self.failed), *minus([(self.settled, self.sent)], doubtful)]

    def note_missing(self, notes: Sightings, cuts: list[Interval]) -> None:
        """What was acknowledged and not seen."""
        for start, end in minus(self.expected, self.seen):
            later = next((first for first, _ in self.seen if first >= end), None)
            after = None if later is None else self.offsets[later]
            before = max((offset for last, offset in self.last_offsets.items() if last <= start),
                         default=-1)
            name = "lost-write" if after is None else "hole"
            if any(before < cut and (after is None or after >= resumed) for cut, resumed in cuts):
                name = "truncated-tail"
            follows = "nothing of it follows" if after is None else (
                f"the next that is there stands at offset {after}")
            self._note(notes, name, start, end, follows, offset=after)

    def note_unwanted(self, notes: Sightings) -> None:
        """What was seen, and never sent or promised not to be there."""
        for start, end in minus(self.seen, [(0, self.sent)]):
            self._note(notes, "invented-write", start, end, f"it sent {self.sent} records",
                       offset=self.offsets.get(start))
        for start, end in common(self.failed, self.seen):
            self._note(notes, "failed-write", start, end, "their call raised",
                       offset=self.offsets.get(start))

    def _note(
        self, notes: Sightings, name: str, start: int, end: int, why: str, offset: int | None
    ) -> None:
        notes.note(name, f"producer {self.producer}, sequences {start} to {end - 1}: {why}",
                   count=end - start, producer=self.producer, sequence=start, offset=offset)

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
