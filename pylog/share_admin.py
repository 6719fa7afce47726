"""What an administrator does with share groups: looks at them, deletes them.

A share group has no members to be listed: whoever takes a record holds it (share.py).
"""

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from pylog._native import Leases
from pylog.errors import (
    ClosedError,
    GroupIdNotFoundError,
    NonEmptyGroupError,
    UnknownTopicOrPartitionError,
)
from pylog.group import check_group_id
from pylog.group_admin import GroupAdmin
from pylog.options import names_in
from pylog.share import open_leases, share_groups
from pylog.topic import TopicPartition, closest


class ShareGroupOffset(NamedTuple):
    """How a share group stands in a partition.

    start_offset: of the first record that is not done. lag: how many are not; of these ready are
    for anybody to take, in_flight somebody's, and delayed were given back and are not due. done,
    rejected, redelivered: since the group was made; what is redelivered was given back, or taken
    from who died or took too long.
    """

    start_offset: int
    end_offset: int
    lag: int
    ready: int
    in_flight: int
    delayed: int
    done: int
    rejected: int
    redelivered: int


class ShareAdmin(GroupAdmin):
    """The half of `Admin` that is about share groups (KIP-932). Safe for threads."""

    def list_share_groups(self) -> list[dict[str, Any]]:
        """The share groups that there are: group_id, topics, lag and in_flight. Cost: opens each.
        """
        found = []
        for group_id in sorted(share_groups(self._broker.path)):
            places = self.list_share_group_offsets(group_id)
            found.append({"group_id": group_id, "topics": sorted({one.topic for one in places}),
                          "lag": sum(place.lag for place in places.values()),
                          "in_flight": sum(place.in_flight for place in places.values())})
        return found

    def list_share_group_offsets(self, group: str) -> dict[TopicPartition, ShareGroupOffset]:
        """How a share group stands, in the partitions that it takes from."""
        found = {}
        for partition, leases, end in self._leases(group):
            counts = leases.stats()
            ready = counts["ready"] + counts["behind"] + max(0, end - counts["next"])
            found[partition] = ShareGroupOffset(
                counts["start"], end, ready + counts["held"] + counts["delayed"], ready,
                counts["held"], counts["delayed"], counts["done"] - counts["rejected"],
                counts["rejected"], counts["given_back"] + counts["expired"] + counts["orphaned"])
        return found

    def delete_share_groups(self, groups: Iterable[str]) -> None:
        """Removes share groups, and what they have done. Raises NonEmptyGroupError for one that
        another process has open."""
        for group_id in names_in("groups", groups):
            for _, leases, _ in self._leases(group_id):
                if not leases.remove():
                    raise NonEmptyGroupError(
                        f"a process takes records in the share group {group_id!r}; stop it first",
                        group=group_id)

    def _leases(self, group_id: str) -> Iterator[tuple[TopicPartition, Leases, int]]:
        """Each partition of it, open while it is looked at, and the end of its log."""
        known = share_groups(self._broker.path)
        if check_group_id(group_id) not in known:
            raise GroupIdNotFoundError(
                f"there is no share group {group_id!r}{closest(group_id, known)}", group=group_id)
        self._broker.processes.join()
        for partition in sorted(known[group_id]):
            try:
                log = self._broker.log_that_is_there(*partition)
                end = log.end_offset
            except (UnknownTopicOrPartitionError, ClosedError):
                continue    # deleted meanwhile
            with contextlib.closing(open_leases(
                    self._broker.path, group_id, partition, log, self._broker.processes,
                    log.start_offset)) as leases:
                yield partition, leases, end
