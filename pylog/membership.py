"""A consumer's place in a group: it joins, takes what it is assigned, lets go of what it is not.

The group's roster says who is in it and who is to have what; any member changes it, by compare and
swap. The slots say who *has* what: a member takes a partition when its owner has let go, or is no
member any more; whoever is killed is taken out of the roster by the first who looks. So there is no
barrier, no coordinator, and a partition that stays where it is never stops.

Fencing: a member's number is never used again, and a commit is refused where the slot has another
owner or the generation is not the one that the member has seen.
"""

import contextlib
import os
import time
from collections.abc import Callable, Collection, Mapping
from typing import Protocol

from pylog.assignor import assign, check_strategy
from pylog.broker import Broker
from pylog.errors import (
    CommitFailedError,
    ConfigurationError,
    FencedInstanceIdError,
    InconsistentGroupProtocolError,
    UnknownMemberIdError,
)
from pylog.group import Committed, Group, Member, Roster, named
from pylog.subscription_state import SubscriptionState
from pylog.topic import OffsetAndMetadata, TopicPartition

STATIC_SESSION_MS = 45_000    # Kafka's session.timeout.ms: how long a static member may be away
BEATS_A_SESSION = 8
LOOK_SECONDS = 10.0    # topics are told of when they change, unless who changed them was killed


class Listener(Protocol):
    """What a member tells the consumer that it is of; what these raise comes out of `sync`.

    _revoked returns those that are in work still, if any: they go at a later `sync`.
    """

    def _assigned(self, partitions: list[TopicPartition]) -> None: ...
    def _revoked(self, partitions: list[TopicPartition]) -> Collection[TopicPartition] | None: ...
    def _lost(self, partitions: list[TopicPartition]) -> None: ...


def change_roster(
    broker: Broker, group: Group, edit: Callable[[Roster], bool]
) -> tuple[int, Roster]:
    """Publishes what `edit` makes of a group's roster, and who is to have what from then on; unless
    it says that there is nothing to do. Returns the generation, and the roster of it."""
    while True:
        generation, roster = group.roster()
        if not edit(roster):
            return generation, roster
        known = _counts(broker)
        wanted = {number: member.wants(known) for number, member in roster.members.items()}
        topics = set().union(*wanted.values())
        roster.counts = {topic: known[topic] for topic in topics}
        strategy = next((m.strategy for m in roster.members.values()), "range")
        roster.assignment = assign(strategy, wanted, roster.counts, roster.assignment)
        if group.table.publish(generation, roster.encode()):
            return generation + 1, roster


def _counts(broker: Broker) -> dict[str, int]:
    """Partitions of all topics that there are."""
    return {name: entry.partitions for name, entry in broker.topics().items()}


class Membership:
    """One consumer's. Not for two threads at once.

    session_timeout_ms: how long its process may be stopped before it is taken for dead; None: for
    ever. Who is told of partitions is passed to each call, not held: so a consumer that nobody
    closed goes when it is forgotten, and leaves.
    """

    def __init__(
        self, broker: Broker, group_id: str, strategy: str = "cooperative-sticky",
        client_id: str = "pylog", instance_id: str | None = None,
        session_timeout_ms: int | None = None,
    ) -> None:
        group = broker.group(group_id)
        self.broker = broker
        self.group = group
        self.table = group.table
        self.processes = group.processes
        self.strategy = check_strategy(strategy)
        self.client_id = client_id
        if instance_id == "":
            raise ConfigurationError("group_instance_id is empty; name the member, or leave it out",
                                     option="group_instance_id", value="")
        self.instance_id = instance_id
        self.session_timeout_ms = session_timeout_ms
        self.number = 0           # 0: no member now
        self.generation = 0       # of the last `sync`: that in which what is owned is ours
        self.seen = 0             # the newest with us in it: commits are fenced by it
        self.owned: set[TopicPartition] = set()
        self.awaited: set[TopicPartition] = set()    # ours, and not yet let go by who has them
        self._wanted = SubscriptionState()
        self._changes = -1        # the table's, when we looked last
        self._deaths = -1
        self._topics = -1         # the doorbells' word
        self._look_at = 0.0       # when topics and sessions are looked at again
        self.look_seconds = LOOK_SECONDS
        self._fenced: FencedInstanceIdError | None = None
        self._pid = os.getpid()
        self.processes.join()
        if session_timeout_ms is not None:
            self.processes.ask_beats(max(1, session_timeout_ms // BEATS_A_SESSION))
        self.generation = self.seen = self.table.generation

    @property
    def _wants_any(self) -> bool:
        return bool(self._wanted.names or self._wanted.pattern)

    # ---- coming and going

    def subscribe(self, wanted: SubscriptionState) -> None:
        """From now on these; joins the group if it is no member yet. `sync` does the rest."""
        self._wanted = wanted
        self._look_at = 0.0
        if self.number:
            self._change(self._with_me)
        else:
            self._join()

    def _join(self) -> None:
        self.number = self.table.new_owner()
        try:
            self._change(self._with_me)
        except BaseException:
            with contextlib.suppress(Exception):    # an interrupt may come when we are a member
                self._change(self._without_me)
            self.number = 0
            raise

    def _with_me(self, roster: Roster) -> bool:
        for other in roster.members.values():
            is_ours = self.instance_id is not None and other.instance_id == self.instance_id
            if other.strategy != self.strategy and not is_ours:
                raise InconsistentGroupProtocolError(
                    f"the members of the group {self.group.id!r} use {other.strategy!r}; use it "
                    "too, or stop them all first", group=self.group.id, agreed=other.strategy)
        me = self.processes.me or (-1, 0)    # we have joined
        if self.instance_id is not None:    # whoever was here under our name is done
            for number, other in list(roster.members.items()):
                if other.instance_id == self.instance_id and number != self.number:
                    del roster.members[number]
                    roster.assignment[self.number] = roster.assignment.pop(number, [])
        pattern = self._wanted.pattern
        roster.members[self.number] = Member(
            me, self._pid, self.client_id, self.strategy, sorted(self._wanted.names),
            pattern and pattern.pattern, pattern.flags if pattern else 0, self.instance_id,
            self.session_timeout_ms)
        return True

    def _without_me(self, roster: Roster) -> bool:
        return roster.members.pop(self.number, None) is not None

    def leave(self) -> None:
        """Lets go of all and is no member any more. A static member stays one, for its session."""
        if not self.number or self._pid != os.getpid():
            return
        self._let_go(self.owned)
        if self.instance_id is None:
            self._change(self._without_me)
        self.number = 0
        self._wanted = SubscriptionState()
        self.owned.clear()
        self.awaited.clear()

    # ---- keeping up

    @property
    def is_current(self) -> bool:
        """Nothing has changed since the last `sync`: neither members, nor who owns what, nor the
        topics."""
        return (self.table.changes == self._changes and self.processes.deaths == self._deaths
                and self.broker.doorbells.topics == self._topics)

    def sync(self, listener: Listener) -> None:
        """Sees what the others have done, and does what is ours to do.

        Cost: three loads where nothing has changed.
        """
        if self._fenced is not None:
            raise self._fenced
        if not self.number:
            if not self._wants_any:
                return
            self._join()
        elif self.is_current and time.monotonic() < self._look_at:
            return
        self._look_at = time.monotonic() + self.look_seconds
        while True:
            self._changes, self._deaths = self.table.changes, self.processes.deaths
            self._topics = self.broker.doorbells.topics
            generation, roster = self._bury_the_dead()
            if self.number not in roster.members:
                self._be_lost(roster, listener)
                continue
            self.generation = self.seen = generation
            sessions = [m.session_timeout_ms for m in roster.members.values()
                        if m.session_timeout_ms is not None]
            self.look_seconds = min([LOOK_SECONDS, *(ms / 4000 for ms in sessions)])
            mine = set(roster.assignment.get(self.number, ()))
            kept: Collection[TopicPartition] = ()
            if gone := self.owned - mine:
                try:
                    kept = listener._revoked(sorted(gone)) or ()
                finally:
                    self._let_go(gone.difference(kept))
            self._take(mine - self.owned, generation, roster, listener)
            if self.table.generation == generation:
                self._changes = -1 if kept else self._changes    # not seen to until they go too
                return

    def _take(self, wanted: set[TopicPartition], generation: int, roster: Roster,
              listener: Listener) -> None:
        taken = set()
        self.awaited = set()
        for partition in sorted(wanted):
            place = self.group.place(partition)
            owner = self.table.owner(place)[0]
            if owner == self.number or (owner not in roster.members and
                                        self.table.own(place, owner, self.number, generation)):
                taken.add(partition)
            else:
                self.awaited.add(partition)
        self.owned |= taken
        if taken:
            listener._assigned(sorted(taken))

    def _let_go(self, partitions: Collection[TopicPartition]) -> None:
        for partition in list(partitions):
            self.table.own(self.group.place(partition), self.number, 0)
            self.owned.discard(partition)

    def _be_lost(self, roster: Roster, listener: Listener) -> None:
        """Somebody has taken us for dead, or has come in our place."""
        lost, self.owned, self.number = sorted(self.owned), set(), 0
        if lost:
            listener._lost(lost)
        if self.instance_id is not None and any(
                other.instance_id == self.instance_id for other in roster.members.values()):
            self._fenced = FencedInstanceIdError(
                f"another consumer has come with group_instance_id={self.instance_id!r}; close "
                "this one, or give it another", group=self.group.id, instance=self.instance_id)
            raise self._fenced
        self._join()

    # ---- the roster

    def _change(self, edit: Callable[[Roster], bool]) -> tuple[int, Roster]:
        return change_roster(self.broker, self.group, edit)

    def _incarnation(self, partition: TopicPartition) -> int:
        return self.broker.log(*partition).incarnation

    def _bury_the_dead(self) -> tuple[int, Roster]:
        """Takes out who has died, and sees to topics and partitions that are new."""
        now_ms = time.monotonic_ns() // 1_000_000
        known = _counts(self.broker)

        def edit(roster: Roster) -> bool:
            changed = False
            for number, member in list(roster.members.items()):
                if number != self.number and self._is_gone(member, now_ms):
                    if member.instance_id is not None and not self._is_over(member, now_ms):
                        continue
                    del roster.members[number]
                    changed = True
            changed |= self._mark_the_absent(roster, now_ms)
            topics = set().union(*(m.wants(known) for m in roster.members.values()))
            return changed or roster.counts != {topic: known[topic] for topic in topics}
        return self._change(edit)

    def _is_gone(self, member: Member, now_ms: int) -> bool:
        if not self.processes.is_alive(*member.process):
            return True
        return member.session_timeout_ms is not None and \
            self.processes.silence_ms(member.process[0]) > member.session_timeout_ms

    def _is_over(self, member: Member, now_ms: int) -> bool:
        """Whether a static member has been away for its session."""
        if self.processes.is_alive(*member.process):
            return True    # stopped for as long as it may be
        session_ms = member.session_timeout_ms or STATIC_SESSION_MS
        return member.dead_ms is not None and now_ms - member.dead_ms > session_ms

    def _mark_the_absent(self, roster: Roster, now_ms: int) -> bool:
        """Static members whose process is gone: from now on their session runs."""
        changed = False
        for number, member in roster.members.items():
            if number != self.number and member.dead_ms is None and \
                    member.instance_id is not None and \
                    not self.processes.is_alive(*member.process):
                member.dead_ms = now_ms
                changed = True
        return changed

    # ---- offsets

    def commit(self, offsets: Mapping[TopicPartition, OffsetAndMetadata],
               incarnations: Mapping[TopicPartition, int] | None = None) -> None:
        """Commits for partitions that are ours; who is no member, for those that nobody reads.
        incarnations: of the logs that the offsets are of; None: of those that there are now.

        Raises CommitFailedError where one is not (the others are committed), UnknownMemberIdError
        where this consumer is no member any more, OffsetMetadataTooLargeError.
        """
        if incarnations is None:
            incarnations = {p: self._incarnation(p) for p in offsets}
        refused = [p for p in offsets if self.number and p not in self.owned]
        left = {p: one for p, one in offsets.items() if p not in refused}
        if not self.number:
            self.see_generation()
        while left:
            done = self.group.commit(left, incarnations, self.number, self.seen)
            refused += [p for p, result in done.items() if result is False]
            left = {p: one for p, one in left.items() if done[p] is None}
            if left:
                self.see_generation()
        if refused:
            raise self.refusal(refused)

    def see_generation(self) -> None:
        """Makes `seen` what the generation is now, if we are a member still, or are none at all.

        Raises UnknownMemberIdError. What the generation brings is seen to by the next `sync`.
        """
        generation, roster = self.group.roster()
        if self.number and self.number not in roster.members:
            raise UnknownMemberIdError(
                f"this consumer is no member of the group {self.group.id!r} any more: it was "
                "stopped for longer than its session_timeout_ms, or removed; poll again to rejoin. "
                "Nothing was committed", group=self.group.id)
        self.seen = generation

    def refusal(self, partitions: list[TopicPartition]) -> CommitFailedError:
        """The error for partitions that are not ours to commit for."""
        them = "it" if len(partitions) == 1 else "them"
        why = "not owned by this consumer" if self.number else "read by a member of the group"
        return CommitFailedError(
            f"{named(partitions)}: {why}, so nothing was committed for {them}; who has {them} "
            "reads on from the last commit", group=self.group.id, partitions=partitions)

    def committed(self, partition: TopicPartition) -> Committed | None:
        """What was committed for a partition, ours or not; None: nothing."""
        return self.group.committed(partition, self._incarnation(partition))

    def __del__(self) -> None:
        # A consumer that nobody closed: its process lives on, and its partitions must not be held.
        try:
            self.leave()
        except Exception:    # the broker was closed before, or the interpreter ends
            self.number = 0
