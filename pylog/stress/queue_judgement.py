"""The judgement of a queue: what its workers' diaries prove, and what they must not show.

As that of a group (judgement.py), it has nothing but the diaries, the ends of the queues and the
outages. A worker notes when it begins to take (`want`) and when it has (`got`): the queue gave the
message away somewhere between. It holds it for certain from `got` until it begins to settle it,
until its lock may be over, or until somebody kills it: so nothing is found that may be right.
"""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from pylog.stress.diary import Entry
from pylog.stress.judgement import SECOND, Finding, Outage, Takeover, were_others_hit
from pylog.stress.timed_judgement import TimedJudgement

LOCK_MS = 300
ORDERED = 1    # the number of the queue that is ordered by key
MILLISECOND = 1_000_000
NEVER = 1 << 62


@dataclass(slots=True)
class Hold:
    """One delivery, in one worker's hands. Times in ns; NEVER: it is not told."""

    got: Entry
    wanted: int           # before the take
    settles: int = NEVER  # before it is acknowledged or given back
    asked: int = NEVER    # before it is acknowledged; of one that was refused: NEVER
    done: int = NEVER     # when that was accepted


class QueueJudgement:
    """All that can be found. Cost: 5 us an entry; the entries are held in memory.

    ends: of each queue, after the last message, when all was done; nobody added any since.
    """

    def __init__(self, entries: Collection[Entry], ends: Mapping[int, int],
                 outages: Collection[Outage] = ()) -> None:
        self.entries = sorted(entries)
        self.ends = ends
        self.outages = outages
        self.timed = TimedJudgement(self.entries, ends, outages)
        kills = sorted((one for one in outages if one.until is None), reverse=True)
        self.kills = {one.process: one for one in kills}    # the first: the dead are killed again
        self.holds: dict[tuple[int, int], list[Hold]] = defaultdict(list)    # by queue and offset
        self.keys: dict[tuple[int, int], dict[int, None]] = defaultdict(dict)    # their offsets
        self._read()

    def _read(self) -> None:
        mine: dict[tuple[int, int, int], Hold] = {}    # what a process had last of an offset
        for one in self.entries:
            queue, me = one.member, (one.process, one.member, one.offset)
            if one.kind in ("put", "got"):
                self.keys[queue, one.partition][one.offset] = None
            if one.kind == "want":
                mine[me] = Hold(one, one.at)
            elif me in mine and one.kind == "got":
                mine[me].got = one
                self.holds[queue, one.offset].append(mine[me])
            elif me in mine and one.kind in ("ask", "back"):
                mine[me].settles = one.at
                if one.kind == "ask":
                    mine[me].asked = one.at
            elif me in mine and one.kind == "done":
                mine[me].done = one.at
            elif me in mine and one.kind == "refused":
                mine[me].asked = NEVER

    def findings(self) -> list[Finding]:
        """Everything that is wrong, whatever the queue did."""
        return [*self.lost(), *self.after_ack(), *self.shared(), *self.zombie_acks(),
                *self.out_of_order(), *self.timed.findings()]

    # ---- messages

    def lost(self) -> Iterator[Finding]:
        """All is done, says the queue, and nobody was ever about to acknowledge it."""
        for queue, end in self.ends.items():
            for offset in range(end):
                if all(hold.asked == NEVER for hold in self.holds[queue, offset]):
                    yield Finding("lost-message", f"offset {offset} of queue {queue} is done, and "
                                  "no worker has acknowledged it", queue, offset, 0, 0)

    def after_ack(self) -> Iterator[Finding]:
        """Taken by whoever began to when its acknowledgement had returned."""
        for (queue, offset), holds in self.holds.items():
            done = min((hold.done for hold in holds), default=NEVER)
            for hold in holds:
                if hold.wanted > done:
                    yield self._found("delivered-after-ack", hold, f"offset {offset} of queue "
                                      f"{queue} was acknowledged, and delivered again")

    # ---- workers

    def _held_until(self, hold: Hold) -> int:
        kill = self.kills.get(hold.got.process)
        return min(hold.settles, hold.wanted + LOCK_MS * MILLISECOND, kill.start if kill else NEVER)

    def shared(self) -> Iterator[Finding]:
        """Given to one while another held it for certain."""
        for (queue, offset), holds in self.holds.items():
            for had in holds:
                for has in holds:
                    if had.got.at < has.wanted and has.got.at < self._held_until(had):
                        yield self._found("two-holders", has, f"offset {offset} of queue {queue} "
                                          f"was given away while process {had.got.process} had it")

    def zombie_acks(self) -> Iterator[Finding]:
        """Accepted though another had got the message since."""
        for (queue, offset), holds in self.holds.items():
            for had in holds:
                if had.done != NEVER and any(had.got.at < has.wanted and has.got.at < had.asked
                                             for has in holds):
                    yield self._found("zombie-ack", had, f"offset {offset} of queue {queue} was "
                                      "another's when its acknowledgement was accepted")

    def out_of_order(self) -> Iterator[Finding]:
        """In an ordered queue: given away while an earlier one of its key could not be done."""
        for (queue, key), offsets in self.keys.items():
            if queue != ORDERED:
                continue
            before, culprit = 0, -1    # when the last of the earlier ones may have been done
            for offset in sorted(offsets):
                holds = self.holds[queue, offset]
                for hold in holds:
                    if hold.got.at < before:
                        yield self._found("out-of-key-order", hold, f"offset {offset} of key {key} "
                                          f"was delivered, and {culprit} before it is not done")
                asked = min((hold.asked for hold in holds), default=NEVER)
                if asked > before:
                    before, culprit = asked, offset

    def _found(self, anomaly: str, hold: Hold, what: str) -> Finding:
        got = hold.got
        return Finding(anomaly, what, got.member, got.offset, got.process, got.at)

    # ---- times

    def takeovers(self) -> Iterator[Takeover]:
        """Of each process that was killed while it had messages: until others had them all."""
        left: dict[int, list[Hold]] = defaultdict(list)    # by process: never settled
        for holds in self.holds.values():
            for hold in holds:
                if hold.settles == NEVER:
                    left[hold.got.process].append(hold)
        for outage in self.kills.values():
            taken = [min((has.got.at for has in self.holds[had.got.member, had.got.offset]
                          if has.got.at > outage.start), default=NEVER)
                     for had in left[outage.process]
                     if outage.start < had.wanted + LOCK_MS * MILLISECOND]
            if taken:
                end = max(taken)
                seconds = float("inf") if end == NEVER else (end - outage.start) / SECOND
                yield Takeover(outage, seconds, not were_others_hit(self.outages, outage, end))

    def figures(self) -> dict[str, int]:
        """How many deliveries there were, and not of the first time; and acknowledgements."""
        counts = [len(holds) for holds in self.holds.values() if holds]
        return {"records": sum(counts), "again": sum(counts) - len(counts),
                "commits": sum(entry.kind == "done" for entry in self.entries)}

    def details(self) -> dict[str, int]:
        """Of messages with a delay, a time to live, a dedup key."""
        return self.timed.details()
