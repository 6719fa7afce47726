"""The judgement of request-reply: what the diaries of askers and servers prove.

As that of a queue (queue_judgement.py), it has nothing but the diaries and the outages. A request
and an answer each have a number that no other has, and a reply names both: so one that came to the
wrong asker is seen. Where a time is held against a bound, `MARGIN` or `PATIENCE` is left to a busy
machine, and nothing is concluded of who was stopped in that time.
"""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

from pylog.stress.diary import Entry
from pylog.stress.judgement import (
    SECOND,
    Finding,
    Outage,
    Takeover,
    were_others_hit,
    with_stalls,
)

MARGIN = SECOND          # so much later than told an error, a reply, a server may be
PATIENCE = 2 * SECOND    # so long a request may wait where nobody is killed or stopped
MILLISECOND = 1_000_000
CLOCK_SLACK = 20 * MILLISECOND    # requests expire by the wall clock; diaries have another
NEVER = 1 << 62


@dataclass(slots=True)
class Serve:
    """A server has begun a request. answered: before it returned; NEVER: it was cut off."""

    entry: Entry
    answered: int = NEVER

    @property
    def answer(self) -> int:
        return self.entry.generation


@dataclass(slots=True)
class Asked:
    """One request. sent, accepted, there: before and after the call, and when it was found in the
    topic after all was done. expires: not before, by what the asker wrote down."""

    send: Entry
    accepted: int = NEVER
    there: Entry | None = None
    waited: list[int] = field(default_factory=list)
    serves: list[Serve] = field(default_factory=list)
    heard: list[Entry] = field(default_factory=list)    # replies and time-outs

    @property
    def timeout(self) -> int:
        return self.send.generation * 1000

    @property
    def expires(self) -> int:
        return self.send.at + self.timeout

    @property
    def begun(self) -> int:
        return self.serves[0].entry.at if self.serves else NEVER

    @property
    def is_answered(self) -> bool:
        return any(serve.answered != NEVER for serve in self.serves)

    def replies(self) -> list[Entry]:
        return [one for one in self.heard if one.kind == "reply"]


class RequestJudgement:
    """All that can be found. Cost: 10 us an entry; the entries are held in memory.

    ends: of each partition of requests, when all in it was committed.
    """

    def __init__(self, entries: Collection[Entry], ends: Mapping[int, int],
                 outages: Collection[Outage] = ()) -> None:
        self.entries = sorted(entries)
        self.ends = ends
        self.outages = with_stalls(outages, entries)
        self.by_process: dict[int, list[Outage]] = defaultdict(list)
        for outage in self.outages:
            self.by_process[outage.process].append(outage)
        self.requests: dict[int, Asked] = {}
        self.of_process: dict[int, list[Asked]] = defaultdict(list)
        self.last = self.entries[-1].at if self.entries else 0
        self._read()

    def _read(self) -> None:
        serves: dict[int, Serve] = {}
        for one in self.entries:
            if one.kind == "send":
                asked = self.requests[one.member] = Asked(one)
                self.of_process[one.process].append(asked)
            elif one.kind == "answer" and one.generation in serves:
                serves[one.generation].answered = one.at
            elif (found := self.requests.get(one.member)) is None:
                continue
            elif one.kind == "sent":
                found.accepted = one.at
            elif one.kind == "there":
                found.there = one
            elif one.kind == "wait":
                found.waited.append(one.at)
            elif one.kind == "serve":
                serves[one.generation] = Serve(one)
                found.serves.append(serves[one.generation])
            elif one.kind in ("reply", "over"):
                found.heard.append(one)

    def findings(self) -> list[Finding]:
        """Everything that is wrong, whatever was done."""
        return [*self.foreign(), *self.invented(), *self.second(), *self.late(), *self.lost(),
                *self.unheard(), *self.again(), *self.stuck(), *self.expired(), *self.overdue(),
                *self.early(), *self.miscounted()]

    def _was_out(self, process: int, start: int, end: int) -> bool:
        """Whether it was killed or stopped at some time between."""
        return any(outage.start < end and (outage.until or NEVER) > start
                   for outage in self.by_process[process])

    def _ran(self, process: int, start: int, end: int) -> int:
        """For how long, in that time, it was not stopped; what stopped it may be told twice."""
        ran, at = 0, start
        for outage in sorted(self.by_process[process], key=lambda one: one.start):
            if outage.until is not None:
                ran += max(0, min(outage.start, end) - at)
                at = max(at, outage.until)
        return ran + end - min(at, end)

    # ---- replies

    def _told(self) -> Iterator[tuple[Asked, Entry]]:
        for asked in self.requests.values():
            for reply in asked.replies():
                yield asked, reply

    def foreign(self) -> Iterator[Finding]:
        """A reply says for which request it is."""
        for asked, reply in self._told():
            if reply.offset != asked.send.member:
                yield _found("foreign-reply", reply, f"request {name_of(asked.send.member)} was "
                             f"given the reply to {name_of(reply.offset)}")

    def invented(self) -> Iterator[Finding]:
        """A reply says which answer it is, and who gave it wrote that down before."""
        for asked, reply in self._told():
            given = {serve.answer for serve in asked.serves if serve.answered < reply.at}
            if reply.offset == asked.send.member and reply.generation not in given:
                yield _found("invented-reply", reply, f"no server gave the answer "
                             f"{name_of(reply.generation)} to request {name_of(reply.offset)}")

    def second(self) -> Iterator[Finding]:
        """Whoever asks again is told the same."""
        for asked in self.requests.values():
            for one, other in zip(replies := asked.replies(), replies[1:], strict=False):
                if one.generation != other.generation:
                    yield _found("second-reply", other, f"request {name_of(asked.send.member)} was "
                                 "given another reply when it had one")

    def late(self) -> Iterator[Finding]:
        """Whoever had the time-out has no reply later."""
        for asked in self.requests.values():
            over = min((one.at for one in asked.heard if one.kind == "over"), default=NEVER)
            for reply in asked.replies():
                if reply.at > over:
                    yield _found("late-reply", reply, f"request {name_of(asked.send.member)} was "
                                 "given a reply after its time-out")

    def unheard(self) -> Iterator[Finding]:
        """A server had answered in time, and both lived on, and the asker did not hear of it."""
        for asked in self.requests.values():
            asker = asked.send.process
            if asked.replies() or self._was_out(asker, asked.send.at, asked.expires):
                continue
            for serve in asked.serves:
                if self._is_certain(serve, asked.expires):
                    yield _found("lost-reply", asked.send, f"request {name_of(asked.send.member)} "
                                 f"was answered by process {serve.entry.process}, and nothing came")
                    break

    def _is_certain(self, serve: Serve, until: int) -> bool:
        """Whether its reply must be there by then."""
        by = serve.answered + MARGIN
        return by < until and not self._was_out(serve.entry.process, serve.answered, by)

    # ---- requests

    def lost(self) -> Iterator[Finding]:
        """It had been accepted and had time left, when all was done, or long after a later one of
        its partition was begun, or it by one that left it; and nobody has answered it."""
        of_partition: dict[int, list[Asked]] = defaultdict(list)
        for asked in self.requests.values():
            if asked.there is not None:
                of_partition[asked.there.partition].append(asked)
            elif asked.accepted != NEVER and self.ends:
                yield _found("lost-request", asked.send, f"request {name_of(asked.send.member)} "
                             "was accepted, and is not in the topic")
        for many in of_partition.values():
            passed = NEVER    # when a later one was begun: this one had been taken then
            for asked in sorted(many, key=_offset_of, reverse=True):
                there = asked.there or asked.send
                if not asked.is_answered and (
                        there.at < asked.expires - CLOCK_SLACK or self._was_left(asked, passed)):
                    yield Finding("lost-request", f"offset {there.offset} of partition "
                                  f"{there.partition} was waited for, and went by all servers",
                                  there.partition, there.offset, 0, 0)
                passed = min(passed, asked.begun)

    def _was_left(self, asked: Asked, passed: int) -> bool:
        """Whether somebody had it, and nobody has served it though there was time: whoever had it
        may have been killed, but was not stopped."""
        since = passed
        if asked.serves:
            one = asked.serves[-1].entry
            since = max([one.at, *(outage.start for outage in self.by_process[one.process]
                                   if outage.until is None)])
        return since + PATIENCE < asked.expires and not any(
            outage.start < asked.expires and (outage.until or 0) > asked.send.at
            for outage in self.outages)

    def again(self) -> Iterator[Finding]:
        """Served twice, though the first server was not killed, or long after its answer."""
        for asked in self.requests.values():
            for first, then in zip(asked.serves, asked.serves[1:], strict=False):
                one, other = first.entry, then.entry
                if not any(outage.until is None and outage.start < other.at
                           and self._ran(one.process, first.answered, outage.start) < MARGIN
                           for outage in self.by_process[one.process]):
                    yield _found("served-again", other, f"offset {one.offset} of partition "
                                 f"{one.partition} was served by process {one.process} before")

    def stuck(self) -> Iterator[Finding]:
        """It is waited for, all servers are at work, and none takes it."""
        hits = sorted((one.start, one.until or one.start) for one in self.outages
                      if one.process not in self.of_process)
        for asked in self.requests.values():
            start, end = asked.accepted, min(asked.begun, asked.expires)
            if end - start <= PATIENCE:
                continue
            for hit, over in [*hits, (end, end)]:
                if min(hit, end) - start > PATIENCE:
                    yield _found("stuck-request", asked.send, f"request "
                                 f"{name_of(asked.send.member)} was not begun for "
                                 f"{(min(hit, end) - start) / SECOND:.1f} s")
                    break
                start = max(start, over)

    def expired(self) -> Iterator[Finding]:
        """Begun when nobody waited for it any more."""
        for asked in self.requests.values():
            over = asked.accepted + asked.timeout
            for serve in asked.serves:
                one = serve.entry
                if one.at > over + MARGIN and not self._was_out(one.process, over, one.at):
                    yield _found("served-expired", one, f"offset {one.offset} of partition "
                                 f"{one.partition} was begun {(one.at - over) / SECOND:.1f} s after"
                                 " its asker had given up")

    # ---- askers

    def overdue(self) -> Iterator[Finding]:
        """Whoever waits hears something when the time is over: a reply, an error or that."""
        for asked in self.requests.values():
            for number, waited in enumerate(asked.waited):
                heard = asked.heard[number].at if number < len(asked.heard) else self.last
                due = max(waited, asked.accepted + asked.timeout)
                if heard > due + MARGIN and \
                        not self._was_out(asked.send.process, asked.send.at, heard):
                    yield _found("stuck-asker", asked.send, f"who waits for request "
                                 f"{name_of(asked.send.member)} heard nothing for "
                                 f"{(heard - due) / SECOND:.1f} s after its time-out")

    def early(self) -> Iterator[Finding]:
        """A time-out that is none yet."""
        for asked in self.requests.values():
            for one in asked.heard:
                if one.kind == "over" and one.at < asked.expires - MILLISECOND:
                    yield _found("early-time-out", one, f"request {name_of(asked.send.member)} had "
                                 f"{(asked.expires - one.at) / MILLISECOND:.0f} ms left")

    def miscounted(self) -> Iterator[Finding]:
        """What an asker that lives counts is what it was given, and what came too late."""
        for one in self.entries:
            if one.kind != "count":
                continue
            mine = self.of_process[one.process]
            given = sum(bool(asked.replies()) for asked in mine)
            serves = [serve for asked in mine for serve in asked.serves]
            most = sum(serve.answered < one.at for serve in serves) - given
            least = sum(self._is_certain(serve, one.at) for serve in serves) - given
            if one.member != given or not least <= one.generation <= most:
                yield _found("miscounted-reply", one, f"stats() says {one.member} replies and "
                             f"{one.generation} late ones; {given} were given, and {least} to "
                             f"{most} were late")

    # ---- times

    def takeovers(self) -> Iterator[Takeover]:
        """Of each server that was killed: until others had begun what it had in work."""
        begun: dict[int, int] = defaultdict(int)    # when the last of them was begun again
        for asked in self.requests.values():
            for serve, then in zip(asked.serves, asked.serves[1:], strict=False):
                if serve.answered == NEVER:
                    process = serve.entry.process
                    begun[process] = max(begun[process], then.entry.at)
        for process, end in begun.items():
            kill = min((one for one in self.by_process[process] if one.until is None), default=None)
            if kill is not None:
                yield Takeover(kill, (end - kill.start) / SECOND,
                               not were_others_hit(self.outages, kill, end))

    def figures(self) -> dict[str, int]:
        """How often a request was served, and not for the first time; and replies."""
        counts = [len(asked.serves) for asked in self.requests.values() if asked.serves]
        return {"records": sum(counts), "again": sum(counts) - len(counts),
                "commits": sum(bool(asked.replies()) for asked in self.requests.values())}

    def details(self) -> dict[str, int]:
        """What became of the requests."""
        every = self.requests.values()
        return {
            "requests": len(self.requests),
            "replies": sum(bool(asked.replies()) for asked in every),
            "time-outs": sum(any(one.kind == "over" for one in asked.heard) for asked in every),
            "late replies": sum(one.generation for one in self.entries if one.kind == "count"),
        }


def _offset_of(asked: Asked) -> int:
    return asked.there.offset if asked.there else -1


def _found(anomaly: str, entry: Entry, what: str) -> Finding:
    return Finding(anomaly, what, entry.partition, entry.offset, entry.process, entry.at)


def name_of(number: int) -> str:
    """Of a request or an answer, which bears the process that made it.

        >>> name_of(501 << 24 | 7)
        '501:7'
    """
    return f"{number >> 24}:{number & 0xFFFFFF}"
