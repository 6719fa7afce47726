"""What an administrator does with groups: looks at them, moves what they have committed, deletes.

Nothing here is a member: whoever has partitions keeps them, unless it is told to remove a member,
and what is being read is not moved.
"""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from pylog import _native
from pylog.broker import Broker
from pylog.errors import (
    ClosedError,
    ConfigurationError,
    GroupIdNotFoundError,
    NonEmptyGroupError,
    UnknownMemberIdError,
    UnknownTopicOrPartitionError,
)
from pylog.group import Group, Roster, check_group_id, describe, group_ids
from pylog.log import Log, Start
from pylog.membership import change_roster
from pylog.metadata_file import TopicEntry
from pylog.options import names_in
from pylog.topic import (
    OffsetAndMetadata,
    TopicPartition,
    by_partition,
    closest,
    take_offset,
    take_partitions,
)


class GroupOffset(NamedTuple):
    """Where a group is in a partition.

    offset: committed, that of the record to be read next; None: nothing is. lag: offsets from there
    to the end, or from the start where nothing is committed; those of records that a power cut took
    count too, until the group has read past them. time_ms: when it was committed, ms since the
    epoch. member_id: of who reads it now, "" for nobody.
    """

    offset: int | None
    metadata: str
    lag: int
    end_offset: int
    time_ms: int | None
    member_id: str


class OffsetReset(NamedTuple):
    """What a reset does to a partition; before is None where nothing was committed."""

    before: int | None
    after: int


class GroupAdmin:
    """The half of `Admin` that is about groups. Safe for threads.

    Every call raises ClosedError after `close`; on a group, GroupIdNotFoundError with the closest
    name, where there is none.
    """

    def __init__(self, broker: Broker) -> None:
        self._given = broker
        self._is_closed = False

    @property
    def _broker(self) -> Broker:
        if self._is_closed:
            raise ClosedError(f"the {type(self).__name__} is closed; make a new one")
        return self._given

    # ---- looking

    def list_groups(self) -> list[dict[str, Any]]:
        """The groups that there are: group_id, state, protocol, and how many members live.

        Cost: opens each.
        """
        found = []
        for group_id in group_ids(self._broker.path):
            one = describe(self._broker.group(group_id))
            found.append({**one, "members": sum(m["is_alive"] for m in one["members"])})
        return found

    def describe_groups(self, groups: Iterable[str]) -> dict[str, dict[str, Any]]:
        """State, protocol, generation and members of groups, by id."""
        return {group_id: describe(self._group(group_id))
                for group_id in names_in("groups", groups)}

    def list_group_offsets(self, group: str) -> dict[TopicPartition, GroupOffset]:
        """Where a group is, in the partitions that it has read or is to read."""
        there = self._group(group)
        _, roster = there.roster()
        owners = there.owners()
        wanted = {TopicPartition(*slot) for slot in there.table.slots()}
        wanted |= {TopicPartition(topic, number)
                   for topic, count in roster.counts.items() for number in range(count)}
        found = {}
        for one in sorted(wanted & self._partitions()):
            try:
                log = self._log(one)
                start, end = log.start_offset, log.readable_offset
            except UnknownTopicOrPartitionError:
                continue    # deleted meanwhile
            committed = there.committed(one, log.incarnation)
            owner = owners.get(one)
            member = str(owner) if owner in roster.members else ""
            if committed is None and not member and one.topic not in roster.counts:
                continue    # forgotten
            if committed is not None:
                start = committed.offset
            found[one] = GroupOffset(
                committed and committed.offset, committed.metadata if committed else "",
                max(0, end - start), end, committed and committed.time_ms, member)
        return found

    # ---- moving

    def alter_group_offsets(
        self, group: str, offsets: Mapping[TopicPartition, OffsetAndMetadata | int]
    ) -> None:
        """Commits for a group. Raises NonEmptyGroupError where a member reads one of the
        partitions, ConfigurationError where a log has no such place."""
        there = self._group(group)
        given = by_partition(offsets, "17")
        logs = {one: self._log(one) for one in given}
        chosen = {}
        for one, wanted in ((one, take_offset(offset)) for one, offset in given.items()):
            chosen[one] = wanted._replace(offset=_within(logs[one], wanted.offset))
            if chosen[one].offset != wanted.offset:
                raise ConfigurationError(
                    f"offset {wanted.offset} of {one.topic}-{one.partition} lies outside "
                    f"[{logs[one].start_offset}, {logs[one].end_offset}]", option="offsets",
                    value=wanted.offset)
        there.alter_offsets(chosen, {one: log.incarnation for one, log in logs.items()})

    def reset_group_offsets(
        self, group: str, to: Start | timedelta | None = None, *, shift_by: int | None = None,
        topics: Iterable[str] | None = None, partitions: Iterable[TopicPartition] | None = None,
        dry_run: bool = False,
    ) -> dict[TopicPartition, OffsetReset]:
        """Moves a group, and tells from where to where.

        to: "earliest", "latest", an offset, -10 (ten before the end), an aware datetime, or a
        timedelta (so long ago). shift_by: instead, by so many records, back if negative. A place
        outside of a log becomes its nearest end, as in Kafka. topics, partitions: those to move; by
        default those that the group has read. Raises, for a dry run too, NonEmptyGroupError while
        members read them.
        """
        if (to is None) == (shift_by is None):
            raise ConfigurationError("say where to: pass `to` or `shift_by`", option="to", value=to)
        there = self._group(group)
        logs = {one: self._log(one) for one in self._chosen(group, topics, partitions)}
        # Of these logs: those of the same names may be others when it comes to the commit.
        incarnations = {one: log.incarnation for one, log in logs.items()}
        moves = {one: self._move(there, one, logs[one], to, shift_by) for one in logs}
        read_by = {str(member["pid"]) for member in describe(there)["members"]
                   if member["is_alive"] and not moves.keys().isdisjoint(member["owned"])}
        if read_by:
            raise NonEmptyGroupError(
                f"members of the group {group!r} read what is to be moved; stop them first: pid "
                f"{', '.join(sorted(read_by))}", group=group, members=len(read_by))
        if not dry_run:
            there.alter_offsets(
                {one: OffsetAndMetadata(move.after) for one, move in moves.items()}, incarnations)
        return moves

    def _move(self, group: Group, partition: TopicPartition, log: Log,
              to: Start | timedelta | None, shift_by: int | None) -> OffsetReset:
        committed = group.committed(partition, log.incarnation)
        before = committed and committed.offset
        if isinstance(to, timedelta):
            to = datetime.now(UTC) - to
        after = log.resolve(to) if to is not None else \
            (log.start_offset if before is None else before) + _native.to_int(shift_by, "shift_by")
        return OffsetReset(before, _within(log, after))

    def _chosen(self, group: str, topics: Iterable[str] | None,
                partitions: Iterable[TopicPartition] | None) -> list[TopicPartition]:
        if topics is None and partitions is None:
            return list(self.list_group_offsets(group))
        chosen = take_partitions(partitions or ())
        for topic in names_in("topics", topics or ()):
            chosen += [TopicPartition(topic, number)
                       for number in range(self._entry(topic).partitions)]
        return chosen

    # ---- deleting

    def remove_group_members(self, group: str, members: Iterable[str]) -> None:
        """Takes members out of a group: each by its group_instance_id or its member_id, as
        `describe_groups` tells them.

        For static members that will not come back: others have their partitions at once, and not
        after the session. One that lives loses its partitions, and joins anew when it next reads.
        Raises UnknownMemberIdError, and then removes nobody.
        """
        wanted = names_in("members", members)

        def without_them(roster: Roster) -> bool:
            known = {str(number): number for number in roster.members}
            known |= {member.instance_id: number for number, member in roster.members.items()
                      if member.instance_id is not None}
            if unknown := [one for one in wanted if one not in known]:
                raise UnknownMemberIdError(
                    f"the group {group!r} has no member {unknown[0]!r}"
                    f"{closest(str(unknown[0]), known)}; nobody was removed", group=group)
            for number in {known[one] for one in wanted}:
                del roster.members[number]
            return bool(wanted)

        change_roster(self._broker, self._group(group), without_them)

    def delete_group_offsets(self, group: str, partitions: Iterable[TopicPartition]) -> None:
        """Forgets what was committed. Raises NonEmptyGroupError while a member reads one."""
        self._group(group).forget(take_partitions(partitions))

    def delete_groups(self, groups: Iterable[str]) -> None:
        """Removes groups and what they have committed. Raises NonEmptyGroupError for one that has
        members, or that another process has open: it may be about to join."""
        for group_id in names_in("groups", groups):
            there = self._group(group_id)
            members = [one for one in describe(there)["members"] if one["is_alive"]]
            if members:
                raise NonEmptyGroupError(
                    f"the group {group_id!r} has {len(members)} members, pid "
                    f"{', '.join(str(one['pid']) for one in members)}; stop them first",
                    group=group_id, members=len(members))
            if not self._broker.delete_group(group_id):
                raise NonEmptyGroupError(
                    f"another process has the group {group_id!r} open; stop it first",
                    group=group_id)

    def _group(self, group_id: str) -> Group:
        known = group_ids(self._broker.path)
        if check_group_id(group_id) not in known:
            raise GroupIdNotFoundError(
                f"there is no group {group_id!r}{closest(group_id, known)}", group=group_id)
        return self._broker.group(group_id)

    def _entry(self, topic: str) -> TopicEntry:
        """A topic, and none that is made by being asked for."""
        topics = self._broker.topics()
        if topic not in topics:
            raise UnknownTopicOrPartitionError(
                f"there is no topic {topic!r}{closest(topic, topics)}; create it first",
                topic=topic)
        return topics[topic]

    def _log(self, partition: TopicPartition) -> Log:
        self._entry(partition.topic)
        return self._broker.log_that_is_there(*partition)

    def _partitions(self) -> set[TopicPartition]:
        return {TopicPartition(name, number) for name, entry in self._broker.topics().items()
                for number in range(entry.partitions)}


def _within(log: Log, offset: int) -> int:
    return min(max(offset, log.start_offset), log.end_offset)
