"""What a broker looks like at a moment, and how fast it changes: what `pylog top` shows.

Nobody is asked: ends, committed offsets and members are words in shared files.
"""

import time
from dataclasses import dataclass, field

from pylog.broker import Broker
from pylog.errors import PylogError
from pylog.share_admin import ShareAdmin


@dataclass(slots=True)
class TopicView:
    """end: offsets of all partitions together. rate: records a second since the view before."""

    name: str
    partitions: int
    end: int
    size_bytes: int
    rate: float | None = None


@dataclass(slots=True)
class GroupView:
    """lag: of all its partitions, or of one topic's. change: of it, since the view before."""

    name: str
    state: str
    members: int
    lag: int
    change: int | None = None
    is_share: bool = False


@dataclass(slots=True)
class MemberView:
    """A process that reads."""

    pid: int
    group: str
    client: str
    partitions: int
    is_alive: bool


@dataclass(slots=True)
class Observation:
    """All of a broker. moment: on the monotonic clock, s."""

    moment: float
    topics: list[TopicView] = field(default_factory=list)
    groups: list[GroupView] = field(default_factory=list)
    members: list[MemberView] = field(default_factory=list)

    def compare(self, before: "Observation | None") -> None:
        """Fills in the rates."""
        if before is None:
            return
        seconds = max(self.moment - before.moment, 1e-9)
        ends = {one.name: one.end for one in before.topics}
        lags = {(one.name, one.is_share): one.lag for one in before.groups}
        for topic in self.topics:
            topic.rate = max(0, topic.end - ends.get(topic.name, 0)) / seconds
        for group in self.groups:
            group.change = group.lag - lags.get((group.name, group.is_share), group.lag)

    def sort(self) -> None:
        """What moves comes first; then what is large."""
        self.topics.sort(key=lambda one: (-(one.rate or 0), -one.end, one.name))
        self.groups.sort(key=lambda one: (-one.lag, one.name))
        self.members.sort(key=lambda one: (one.pid, one.group))


def observe(broker: Broker, before: Observation | None = None, topic: str | None = None,
            ) -> Observation:
    """A look at everything; of one topic only, where it is given. Cost: some us a partition.

    What is deleted while it is looked at is left out.
    """
    now = Observation(time.monotonic())
    for name, entry in broker.topics().items():
        if topic not in (None, name):
            continue
        try:
            logs = [broker.log(name, number) for number in range(entry.partitions)]
            now.topics.append(TopicView(
                name, entry.partitions, sum(log.end_offset for log in logs),
                sum(log.stats()["size_bytes"] for log in logs)))
        except PylogError:
            if name in broker.topics():
                raise
    observe_groups(ShareAdmin(broker), now, topic)
    now.compare(before)
    now.sort()
    return now


def observe_groups(admin: ShareAdmin, now: Observation, topic: str | None) -> None:
    """Groups and their members; share groups, who have none, by how many records are in flight."""
    for share in admin.list_share_groups():
        if topic is None or topic in share["topics"]:
            now.groups.append(GroupView(
                share["group_id"], f"share, {share['in_flight']:,} in flight", 0, share["lag"],
                is_share=True))
    for about in admin.list_groups():
        name = about["group_id"]
        places = admin.list_group_offsets(name)
        lag = sum(place.lag for one, place in places.items() if topic in (None, one.topic))
        now.groups.append(GroupView(name, about["state"], about["members"], lag))
        if not about["members"]:
            continue    # those that it had are dead, and the group is told as empty
        for member in admin.describe_groups([name])[name]["members"]:
            now.members.append(MemberView(member["pid"], name, member["client_id"],
                                          len(member["owned"]), member["is_alive"]))
