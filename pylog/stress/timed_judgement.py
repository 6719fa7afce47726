"""The judgement of a queue's delays, times to live and dedup keys, by what its diaries say.

A put takes its time somewhere between `post` and `posted`, a delivery is checked somewhere between
`reach` and `take`. So a message is early only if `take` is before `post` and its delay, and expired
only if `reach` is after `posted`, its delay and its time to live.
"""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

from pylog.stress.diary import Entry
from pylog.stress.judgement import Finding, Outage
from pylog.stress.request_judgement import CLOCK_SLACK, NEVER, name_of


@dataclass(slots=True)
class Message:
    """One put. posted: when it returned; is_in: that it said so; delay, ttl: ns. reached: before
    each time that it was taken."""

    post: Entry
    posted: int = NEVER
    is_in: bool = False
    reached: list[Entry] = field(default_factory=list)
    taken: list[Entry] = field(default_factory=list)
    settles: int = NEVER
    settled: int = NEVER
    is_letter: bool = False

    @property
    def delay(self) -> int:
        return self.post.generation * 1000

    @property
    def ttl(self) -> int | None:
        return None if self.post.partition < 0 else self.post.partition * 1000

    @property
    def was_seen(self) -> bool:
        """Whether it has been in the queue for certain."""
        return self.is_in or bool(self.taken) or self.is_letter


class TimedJudgement:
    """All that can be found. ends: not empty, when all was done."""

    def __init__(self, entries: Collection[Entry], ends: Mapping[int, int],
                 outages: Collection[Outage] = ()) -> None:
        self.ends = ends
        self.killed = {one.process for one in outages if one.until is None}
        self.messages: dict[int, Message] = {}
        self.keys: dict[int, list[Message]] = defaultdict(list)
        for one in sorted(entries):
            if one.kind == "post":
                message = self.messages[one.member] = Message(one)
                if one.offset >= 0:
                    self.keys[one.offset].append(message)
            elif (found := self.messages.get(one.member)) is not None:
                self._note(found, one)

    def _note(self, message: Message, one: Entry) -> None:
        if one.kind == "posted":
            message.posted, message.is_in = one.at, bool(one.generation)
        elif one.kind == "reach":
            message.reached.append(one)
        elif one.kind == "take":
            message.taken.append(one)
        elif one.kind == "settle":
            message.settles = min(message.settles, one.at)
        elif one.kind == "settled":
            message.settled = min(message.settled, one.at)
        elif one.kind == "letter":
            message.is_letter = True

    def findings(self) -> list[Finding]:
        """Everything that is wrong, whatever was done."""
        return [*self.early(), *self.expired(), *self.doubled(), *self.lost(), *self.after_ack()]

    def early(self) -> Iterator[Finding]:
        """Taken before its delay can have been over."""
        for message in self.messages.values():
            due = message.post.at + message.delay - CLOCK_SLACK
            for one in message.taken:
                if message.delay and one.at < due:
                    yield _found("delivered-early", one, "before its delay was over")

    def expired(self) -> Iterator[Finding]:
        """Whoever took it began to when its time to live was over for certain."""
        for message in self.messages.values():
            if message.ttl is None or message.posted == NEVER:
                continue
            over = message.posted + message.delay + message.ttl + CLOCK_SLACK
            for one in message.reached:
                if one.at > over:
                    yield _found("delivered-expired", one, "after its time to live")

    def doubled(self) -> Iterator[Finding]:
        """Of two with one key, both were in. Not where a put was cut off by a kill: then its key is
        free, and its message in or not."""
        for many in self.keys.values():
            told = [one for one in many if one.is_in]
            others = [one for one in many if not one.is_in and one.was_seen and not
                      (one.posted == NEVER and one.post.process in self.killed)]
            for one in told[1:] + others:
                yield _found("duplicate-put", one.post, f"with the key {one.post.offset}, which "
                             "was there")

    def lost(self) -> Iterator[Finding]:
        """All is done, and nobody has acknowledged it, nor is it a dead letter that may be one; or
        it was called a second one, and there is no first."""
        for message in self.messages.values() if self.ends else ():
            may_be_dead = message.is_letter and message.ttl is not None
            if message.is_in and message.settles == NEVER and not may_be_dead:
                yield _found("lost-message", message.post, "was put, and nobody acknowledged it")
        for key, many in self.keys.items() if self.ends else ():
            if any(one.posted != NEVER for one in many) and not any(
                    one.was_seen for one in many):
                yield _found("lost-message", many[0].post, f"and all others with the key {key} "
                             "were called second ones")

    def after_ack(self) -> Iterator[Finding]:
        """Taken when it was acknowledged. A delayed one may be brought twice where somebody was
        killed."""
        for message in self.messages.values():
            for one in message.reached:
                if one.at > message.settled and not (message.delay and self.killed):
                    yield _found("delivered-after-ack", one, "after it was acknowledged")

    def details(self) -> dict[str, int]:
        """How many there were of each kind."""
        every = self.messages.values()
        return {"timed messages": len(every),
                "delayed": sum(one.delay > 0 for one in every),
                "expired": sum(one.is_letter for one in every),
                "with a dedup key": sum(map(len, self.keys.values())),
                "refused as second ones": sum(
                    one.posted != NEVER and not one.is_in for one in every)}


def _found(anomaly: str, one: Entry, what: str) -> Finding:
    verb = "message" if one.kind == "post" else "message was delivered:"
    return Finding(anomaly, f"{verb} {name_of(one.member)} {what}", 0, one.offset, one.process,
                   one.at)
