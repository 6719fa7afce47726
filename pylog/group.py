"""A consumer group: its file, its members and what was committed, seen from outside.

    DATA/groups/<name>     members, assignment, committed offsets (csrc/pl_table.h)

`membership.py` is the view of a member. Here is what an administrator, or a consumer that assigns
its partitions itself, may see and do. A group is there once somebody has been in it.
"""

import json
import re
import threading
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote, unquote

from pylog._native import TABLE_NAME_MAX, TABLE_TEXT_MAX, Processes, Table
from pylog.errors import (
    CommitFailedError,
    InvalidGroupIdError,
    NonEmptyGroupError,
    OffsetMetadataTooLargeError,
)
from pylog.metadata_file import sync_name
from pylog.topic import OffsetAndMetadata, TopicPartition

FILE_NAME_MAX = 240
_UNFINISHED = re.compile(r"\.[0-9a-f]+\.tmp$")    # of a file that is being made


@dataclass
class Member:
    """One consumer, as all others see it.

    process: slot and nonce of its process. session_timeout_ms: how long it may be stopped; None:
    for ever. dead_ms: since when the process of a static member is gone, on the monotonic clock.
    """

    process: tuple[int, int]
    pid: int
    client_id: str
    strategy: str
    topics: list[str] = field(default_factory=list)
    pattern: str | None = None
    pattern_flags: int = 0
    instance_id: str | None = None
    session_timeout_ms: int | None = None
    dead_ms: int | None = None

    def wants(self, known: Iterable[str]) -> set[str]:
        """Those of the topics that there are which it has subscribed."""
        if self.pattern is None:
            return set(self.topics).intersection(known)
        matches = re.compile(self.pattern, self.pattern_flags).match
        return {topic for topic in known if matches(topic)}


@dataclass
class Roster:
    """The document of a group: who is in it, and who is to have what."""

    members: dict[int, Member] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)    # partitions of the topics in question
    assignment: dict[int, list[TopicPartition]] = field(default_factory=dict)

    @classmethod
    def decode(cls, document: bytes) -> "Roster":
        if not document:
            return cls()
        held = json.loads(document)
        members = {int(number): Member(**{**one, "process": tuple(one["process"])})
                   for number, one in held["members"].items()}
        assignment = {int(number): [TopicPartition(topic, p) for topic, numbers in one.items()
                                    for p in numbers]
                      for number, one in held["assignment"].items()}
        return cls(members, held["counts"], assignment)

    def encode(self) -> bytes:
        assignment: dict[int, dict[str, list[int]]] = {}
        for number, partitions in self.assignment.items():
            by_topic = assignment.setdefault(number, {})
            for topic, partition in partitions:
                by_topic.setdefault(topic, []).append(partition)
        members = {number: asdict(member) for number, member in self.members.items()}
        return json.dumps({"members": members, "counts": self.counts,
                           "assignment": assignment}, separators=(",", ":")).encode()


class Committed(NamedTuple):
    """What was committed for a partition. time_ms: when, ms since the epoch."""

    offset: int
    metadata: str
    leader_epoch: int
    incarnation: int
    time_ms: int


def check_group_id(group_id: object) -> str:
    """Returns it. Raises InvalidGroupIdError, TypeError.

        >>> check_group_id("billing")
        'billing'
    """
    if not isinstance(group_id, str):
        raise TypeError(f"group_id must be a str, not {type(group_id).__name__}")
    shown = group_id if len(group_id) <= 60 else group_id[:57] + "..."
    if not group_id:
        raise InvalidGroupIdError("group_id is empty; give the group a name", group=group_id)
    if len(group_id.encode("utf-8", "surrogatepass")) > TABLE_NAME_MAX \
            or len(file_name(group_id)) > FILE_NAME_MAX:
        raise InvalidGroupIdError(
            f"the group_id {shown!r} is too long; use {FILE_NAME_MAX} letters, digits and '._-' at "
            "most, or fewer of others", group=group_id)
    if "\0" in group_id or any(0xd800 <= ord(c) <= 0xdfff for c in group_id):
        raise InvalidGroupIdError(
            f"the group_id {shown!r} has characters that cannot be stored; use others",
            group=group_id)
    return group_id


def file_name(group_id: str) -> str:
    """The name of its file: quoted, and never a hidden one."""
    quoted = quote(group_id, safe="", errors="surrogatepass")
    return "%2E" + quoted[1:] if quoted.startswith(".") else quoted


def group_ids(data_dir: Path) -> list[str]:
    """The groups that there are."""
    directory = data_dir / "groups"
    if not directory.is_dir():
        return []
    return sorted(unquote(entry.name) for entry in directory.iterdir()
                  if not _UNFINISHED.search(entry.name))


class Group:
    """A group's file, opened or made. Safe for threads.

    Raises InvalidGroupIdError, CorruptRecordError (the file is damaged), UnsupportedFormatError,
    DiskFullError.
    """

    def __init__(self, data_dir: Path, group_id: str, processes: Processes,
                 durability: str) -> None:
        self.id = check_group_id(group_id)
        directory = data_dir / "groups"
        if not directory.exists():
            directory.mkdir(mode=0o700, exist_ok=True)
            sync_name(data_dir)
        self.table = Table(directory / file_name(group_id), group_id, processes)
        self.processes = processes
        self.writes_through = durability == "fsync"
        self._places: dict[TopicPartition, int] = {}
        self._lock = threading.Lock()
        self._synced = self.table.commits

    # ---- members

    def roster(self) -> tuple[int, Roster]:
        """The generation, and who is in it. Cost: a copy and a JSON text to read."""
        generation, document = self.table.read()
        return generation, Roster.decode(document)

    def owners(self) -> dict[TopicPartition, int]:
        """Who reads what now: members by number. One that has left or died may still be told."""
        found = ((TopicPartition(*slot), self.table.owner(place)[0])
                 for place, slot in enumerate(self.table.slots()))
        return {partition: owner for partition, owner in found if owner}

    # ---- offsets

    def place(self, partition: TopicPartition) -> int:
        """The slot of a partition in the table, made at its first use."""
        place = self._places.get(partition)
        if place is None:
            place = self.table.find(partition.topic, partition.partition) or 0
            self._places[partition] = place
        return place

    def committed(self, partition: TopicPartition, incarnation: int) -> Committed | None:
        """What was committed for a partition whose log has this incarnation."""
        place = self.table.find(partition.topic, partition.partition, make=False)
        entry = None if place is None else self.table.get(place)
        if entry is None or entry[3] not in (0, incarnation):
            return None
        return Committed(*entry)

    def commit(self, offsets: Mapping[TopicPartition, OffsetAndMetadata],
               incarnations: Mapping[TopicPartition, int], owner: int, generation: int,
               ) -> dict[TopicPartition, bool | None]:
        """Commits for an owner (0: nobody). Of each partition: True, or why not (`Table.commit`).

        Survives SIGKILL on return; a power cut as the broker's durability says.
        """
        texts = {p: note(p, committed.metadata) for p, committed in offsets.items()}
        result = {p: self.table.commit(self.place(p), owner, generation, one.offset, texts[p],
                                       one.leader_epoch, incarnations[p])
                  for p, one in offsets.items()}
        if self.writes_through:
            self.table.sync()
        return result

    def alter_offsets(self, offsets: Mapping[TopicPartition, OffsetAndMetadata],
                      incarnations: Mapping[TopicPartition, int]) -> None:
        """Commits from outside: a reset, or a consumer that assigns itself.

        Raises NonEmptyGroupError where a member reads one of the partitions.
        """
        for _ in range(100):
            done = self.commit(offsets, incarnations, 0, self.table.generation)
            if refused := [p for p, result in done.items() if result is False]:
                refused = [p for p in refused if not self._free(p)]
            if refused:
                raise NonEmptyGroupError(
                    f"members of the group {self.id!r} read {named(refused)}; stop them first",
                    group=self.id)
            offsets = {p: one for p, one in offsets.items() if done[p] is not True}
            if not offsets:
                return
        raise CommitFailedError(f"the group {self.id!r} changes too fast; try again",
                                group=self.id, partitions=list(offsets))

    def forget(self, partitions: Iterable[TopicPartition]) -> None:
        """Deletes what was committed. Raises NonEmptyGroupError where a member reads one."""
        for partition in partitions:
            place = self.table.find(partition.topic, partition.partition, make=False)
            if place is not None and not self.table.forget(place) and \
                    not (self._free(partition) and self.table.forget(place)):
                raise NonEmptyGroupError(
                    f"members of the group {self.id!r} read {named([partition])}; stop them first",
                    group=self.id)

    def _free(self, partition: TopicPartition) -> bool:
        """Takes a partition from an owner that is dead or no member; False: it has a good one."""
        place = self.place(partition)
        owner, slot, nonce = self.table.owner(place)
        if not owner:
            return True
        if owner in self.roster()[1].members and self.processes.is_alive(slot, nonce):
            return False
        return self.table.own(place, owner, 0)

    def sync_if_changed(self) -> None:
        """What was committed is on disk then; for who keeps an "interval" broker's promise."""
        with self._lock:
            if self._synced != (commits := self.table.commits):
                self.table.sync()
                self._synced = commits

    def close(self) -> None:
        """Idempotent."""
        self.table.close()


def note(partition: TopicPartition, metadata: str | None) -> bytes:
    """The metadata of a commit, as it is stored. Raises OffsetMetadataTooLargeError."""
    encoded = (metadata or "").encode()
    if len(encoded) <= TABLE_TEXT_MAX:
        return encoded
    raise OffsetMetadataTooLargeError(
        f"the metadata committed for {named([partition])} has {len(encoded)} bytes; use "
        f"{TABLE_TEXT_MAX} at most; append what is longer to a topic, and commit its offset as "
        "metadata", size=len(encoded), limit=TABLE_TEXT_MAX)


def named(partitions: Iterable[TopicPartition]) -> str:
    return ", ".join(f"{topic}-{number}" for topic, number in partitions)


def describe(group: Group) -> dict[str, Any]:
    """A group as plain data, for people and programs."""
    generation, roster = group.roster()
    owners = group.owners()
    members = []
    for number, member in roster.members.items():
        is_alive = group.processes.is_alive(*member.process)
        members.append({
            "member_id": str(number), "client_id": member.client_id, "pid": member.pid,
            "group_instance_id": member.instance_id, "is_alive": is_alive,
            "assignment": sorted(roster.assignment.get(number, [])),
            "owned": sorted(p for p, owner in owners.items() if owner == number)})
    return {"group_id": group.id, "generation": generation,
            "state": "Stable" if any(one["is_alive"] for one in members) else "Empty",
            "protocol": next((m.strategy for m in roster.members.values()), None),
            "members": members}
