"""The judgement of a group: what its members' diaries prove, and what they must not show.

It opens no log and no group: it has the diaries, the ends of the partitions, and the outages, which
are all that an outsider did to the members. The diaries say less than happened, never more: what a
member wrote before a SIGKILL it may not have done, so nothing is concluded from a last line but
that it was about to.

A member is a number that is never used again; a process that was fenced comes back as another. A
paused process may believe that it owns what has long been another's: that is no anomaly. That its
commit is accepted is one.
"""

import bisect
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate, chain, pairwise
from pathlib import Path
from typing import Any, NamedTuple

from pylog.stress.diary import Entry
from pylog.stress.examination import Layout
from pylog.stress.sightings import Sightings

SECOND = 1_000_000_000


class Outage(NamedTuple):
    """What was done to a process, ns of the monotonic clock. until: None: it was killed."""

    process: int
    start: int
    until: int | None = None


class Takeover(NamedTuple):
    """seconds: from the SIGKILL until others had all that it had; inf: never. is_alone: nobody else
    was killed or stopped meanwhile, who might have been the one to take it."""

    outage: Outage
    seconds: float
    is_alone: bool


class Finding(NamedTuple):
    """One anomaly, by its name in the catalogue. at: ns, of the entry that shows it."""

    anomaly: str
    what: str
    partition: int
    offset: int
    process: int
    at: int


def with_stalls(outages: Iterable[Outage], entries: Iterable[Entry]) -> list[Outage]:
    """With those that nobody has made: a process that stood still is as one that was stopped."""
    return [*outages, *(Outage(entry.process, entry.at, entry.at + entry.offset)
                        for entry in entries if entry.kind == "stood")]


def were_others_hit(outages: Iterable[Outage], outage: Outage, end: float) -> bool:
    """Killed between it and the end, or stopped at some time between."""
    return any(other.start < end and (other.until or other.start) > outage.start
               for other in outages if other is not outage)


def newer(one: Entry, other: Entry) -> Entry:
    """By generation: who is stopped before it writes writes too late."""
    return max(one, other, key=lambda own: (own.generation, own.at))


@dataclass(frozen=True, slots=True)
class Stretch:
    """A partition in one member's hands. end: when it let go, or heard that it had; None: not
    told, for its diary ends there."""

    start: Entry
    end: Entry | None
    offsets: list[int]    # handled, in their order


class Judgement:
    """All that can be found. Cost: 3 us an entry; the entries are held in memory.

    ends: of each partition, after the last record; nobody appended since.
    """

    def __init__(self, entries: Collection[Entry], ends: Mapping[int, int],
                 outages: Collection[Outage] = ()) -> None:
        self.entries = sorted(entries)
        self.ends = ends
        self.outages: dict[int, list[Outage]] = defaultdict(list)
        for outage in with_stalls(outages, entries):
            self.outages[outage.process].append(outage)
        self.by_partition: dict[int, list[Entry]] = defaultdict(list)
        for entry in self.entries:
            self.by_partition[entry.partition].append(entry)

    def findings(self) -> list[Finding]:
        """Everything that is wrong, whatever the group did."""
        return [*self.unhandled(), *self.shared(), *self.overlapping(), *self.skips(),
                *self.zombie_commits(), *self.regressions(), *self.beyond_end()]

    # ---- records

    def unhandled(self) -> Iterator[Finding]:
        """Records that no member was ever about to handle."""
        for partition, end in self.ends.items():
            handled = {entry.offset for entry in self.by_partition[partition]
                       if entry.kind == "work"}
            for offset in sorted({*range(end)} - handled):
                yield Finding("unhandled-record", f"offset {offset} of partition {partition} was "
                              "never given to a member", partition, offset, 0, 0)

    def skips(self) -> Iterator[Finding]:
        """Within a stretch, which starts where the commit is, offsets follow one another."""
        for stretch in self.stretches():
            first = stretch.start
            expected = max(first.offset, 0)
            for offset in stretch.offsets:
                if offset != expected:
                    name = "poll-skip" if offset > expected else "nonmonotonic-poll"
                    yield Finding(name, f"member {first.member} was at {expected} of partition "
                                  f"{first.partition}, and got {offset}", first.partition, offset,
                                  first.process, first.at)
                expected = offset + 1

    # ---- owners

    def stretches(self) -> Iterator[Stretch]:
        """Of all members, in no order."""
        for entries in self.by_partition.values():
            mine: dict[int, Stretch] = {}
            for entry in entries:
                if entry.kind == "own":
                    if entry.member in mine:
                        yield mine.pop(entry.member)
                    mine[entry.member] = Stretch(entry, None, [])
                elif entry.member not in mine:
                    continue
                elif entry.kind == "work":
                    mine[entry.member].offsets.append(entry.offset)
                elif entry.kind in ("drop", "lost"):
                    had = mine.pop(entry.member)
                    yield Stretch(had.start, entry, had.offsets)
            yield from mine.values()

    def shared(self) -> Iterator[Finding]:
        """Two members that handle one partition in one generation."""
        seen: dict[tuple[int, int], int] = {}
        for entry in self.entries:
            if entry.kind not in ("own", "work"):
                continue
            place = (entry.generation, entry.partition)
            if seen.setdefault(place, entry.member) != entry.member:
                yield Finding(
                    "double-owner", f"members {seen[place]} and {entry.member} both have partition "
                    f"{entry.partition} in generation {entry.generation}", entry.partition,
                    entry.offset, entry.process, entry.at)
                seen[place] = entry.member

    def overlapping(self) -> Iterator[Finding]:
        """A member that has what another, alive and running, has not let go."""
        by_partition: dict[int, list[Stretch]] = defaultdict(list)
        for stretch in self.stretches():
            by_partition[stretch.start.partition].append(stretch)
        for stretches in by_partition.values():
            # By generation: who is paused before it writes writes too late.
            stretches.sort(key=lambda one: (one.start.generation, one.start.at))
            for had, has in pairwise(stretches):
                taken = has.start
                is_free = had.end is not None and had.end.at < taken.at
                if not is_free and not self._was_out(had.start, taken.at):
                    yield Finding(
                        "double-owner", f"member {taken.member} got partition {taken.partition} "
                        f"while member {had.start.member} had it", taken.partition, -1,
                        taken.process, taken.at)

    def _was_out(self, owner: Entry, when: int) -> bool:
        """Whether the owner's process was killed or stopped by then. It writes what it has got a
        moment after it has: it may have been stopped in between."""
        return any(outage.start < when and (outage.until or when) > owner.at - SECOND
                   for outage in self.outages[owner.process])

    # ---- commits

    def _owns(self) -> dict[int, list[Entry]]:
        owns: dict[int, list[Entry]] = defaultdict(list)
        for entry in self.entries:
            if entry.kind == "own":
                owns[entry.partition].append(entry)
        return owns

    def accepted(self) -> Iterator[tuple[Entry, int]]:
        """Commits, and when each had returned."""
        asked: dict[tuple[int, int], Entry] = {}
        for entry in self.entries:
            place = (entry.process, entry.partition)
            if entry.kind == "ask":
                asked[place] = entry
            elif entry.kind == "done" and place in asked:
                yield asked.pop(place), entry.at

    def zombie_commits(self) -> Iterator[Finding]:
        """A commit that was accepted after another had got the partition."""
        owns = self._owns()
        owners = {partition: list(accumulate(of_it, newer)) for partition, of_it in owns.items()}
        for ask, _ in self.accepted():
            before = bisect.bisect_left(owns[ask.partition], ask)
            if before and (owner := owners[ask.partition][before - 1]).member != ask.member:
                yield Finding(
                    "zombie-commit", f"member {ask.member} has committed {ask.offset} of partition "
                    f"{ask.partition}, which member {owner.member} had got", ask.partition,
                    ask.offset, ask.process, ask.at)

    def regressions(self) -> Iterator[Finding]:
        """Something committed, or found committed, below what was committed before it began."""
        moments: dict[int, list[tuple[int, bool, Entry]]] = defaultdict(list)
        for ask, done in self.accepted():
            moments[ask.partition] += [(ask.at, False, ask), (done, True, ask)]
        looks: dict[tuple[int, int], Entry] = {}
        for entry in self.entries:
            if entry.kind in ("own", "look"):
                moments[entry.partition].append((entry.at, False, entry))
            if entry.kind == "look":
                looks[entry.process, entry.partition] = entry
            elif entry.kind == "end" and (look := looks.get((entry.process, entry.partition))):
                moments[entry.partition].append((entry.at, True, look))
        for partition, of_it in moments.items():
            floor = -1
            for _, is_certain, entry in sorted(of_it):
                if is_certain:
                    floor = max(floor, entry.offset)
                elif entry.offset < floor:
                    yield Finding(
                        "commit-regression", f"{floor} of partition {partition} was committed, and "
                        f"then {entry.offset}", partition, entry.offset, entry.process, entry.at)

    def beyond_end(self) -> Iterator[Finding]:
        """A commit of what is not there: at the moment, of a look; in the end, of the others."""
        looks: dict[tuple[int, int], Entry] = {}
        for entry in self.entries:
            place, end = (entry.process, entry.partition), self.ends.get(entry.partition, 0)
            if entry.kind == "look":
                looks[place] = entry
                continue
            if entry.kind == "end" and place in looks:
                entry, end = looks.pop(place), entry.offset
            elif entry.kind not in ("own", "done"):
                continue
            if entry.offset > end:
                yield Finding(
                    "commit-beyond-end", f"{entry.offset} of partition {entry.partition} is "
                    f"committed, which ends at {end}", entry.partition, entry.offset,
                    entry.process, entry.at)

    # ---- times, and what moved

    def figures(self) -> dict[str, int]:
        """How often a record was handled, and not for the first time; and commits."""
        handled = [(entry.partition, entry.offset) for entry in self.entries
                   if entry.kind == "work"]
        return {"records": len(handled), "again": len(handled) - len({*handled}),
                "commits": sum(entry.kind == "done" for entry in self.entries)}

    def details(self) -> dict[str, int]:
        """What other workloads tell besides."""
        return {}

    def holders(self, moments: Iterable[int]) -> Iterator[dict[int, Entry]]:
        """Who has got what by each moment, and has not let go: the entries that say so. The moments
        rise; it is one dict, which goes on."""
        held: dict[int, Entry] = {}
        start = 0
        for moment in moments:
            end = bisect.bisect_right(self.entries, moment, lo=start, key=lambda one: one.at)
            for entry in self.entries[start:end]:
                if entry.kind == "own":
                    held[entry.partition] = entry
                elif entry.kind in ("drop", "lost") and entry.partition in held \
                        and held[entry.partition].member == entry.member:
                    del held[entry.partition]
            start = end
            yield held

    def takeovers(self) -> Iterator[Takeover]:
        """Of each process that was killed while it had partitions."""
        kills = sorted((outage for outages in self.outages.values() for outage in outages
                        if outage.until is None), key=lambda one: one.start)
        owns = self._owns()
        for outage, held in zip(kills, self.holders(one.start for one in kills), strict=True):
            taken: list[Entry | None] = []
            for partition in [p for p, own in held.items() if own.process == outage.process]:
                place = bisect.bisect(owns[partition], outage.start, key=lambda one: one.at)
                taken += owns[partition][place:place + 1] or [None]
            if taken:
                end = max(float("inf") if own is None else own.at for own in taken)
                yield Takeover(outage, (end - outage.start) / SECOND,
                               not were_others_hit(chain(*self.outages.values()), outage, end))

    def bounced(self, start: int, end: int) -> Iterator[Finding]:
        """Partitions that a member let go and had again, in a time in which nothing asked for it:
        one process came or went."""
        before, after = (dict(held) for held in self.holders((start, end)))
        for entry in self.entries:
            had, has = before.get(entry.partition), after.get(entry.partition)
            if entry.kind == "drop" and start < entry.at < end \
                    and had and has and had.member == has.member == entry.member:
                yield Finding("needless-revocation", f"member {entry.member} let partition "
                              f"{entry.partition} go, and has it again", entry.partition, -1,
                              entry.process, entry.at)


def note_finding(notes: Sightings, layout: Layout, finding: Finding) -> None:
    """Among the sightings of a run."""
    known: dict[str, Any] = {"at": finding.at / SECOND} if finding.at else {}
    place = place_of_finding(layout, finding.process, finding.partition)
    notes.note(finding.anomaly, finding.what, file=str(place), **known)


def place_of_finding(layout: Layout, process: int, partition: int) -> Path:
    """The diary that shows it; of what nobody wrote down, where it is missing."""
    return layout.ledgers / (f"diary-{process}" if process else f"partition {partition}")
