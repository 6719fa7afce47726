"""A share group: its files, and what is in hand of each partition, seen from outside.

    DATA/shares/<group>/<topic>-<partition>     the leases on a partition (csrc/pl_lease.h)

`share_consumer.py` is the view of a member. There is no list of members: whoever takes a record
holds it until he settles it, his time is over, or his process dies.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

from pylog._native import Leases, Processes, kept_from
from pylog.group import check_group_id, file_name
from pylog.log import Log
from pylog.metadata_file import sync_name
from pylog.topic import TopicPartition, directory_name

DIRECTORY = "shares"


def open_leases(
    data_dir: Path, group_id: str, partition: TopicPartition, log: Log, processes: Processes,
    start: int, ordered: bool | None = None, keeps_records: bool = False, displaces: bool = False,
) -> Leases:
    """The leases of a group on a partition, made if it is new to the group: from `start` on.

    ordered: records of a key are taken one after another; None: as it was made. keeps_records:
    retention spares what is not done. displaces: see `Leases`. Raises ConfigurationError where it
    is there and differs in the first.
    """
    directory = data_dir / DIRECTORY / file_name(check_group_id(group_id))
    if not directory.exists():
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        sync_name(directory.parent)
        sync_name(directory)
    return Leases(directory / directory_name(*partition), group_id, partition, log, processes,
                  start, ordered, keeps_records, displaces)


def share_groups(data_dir: Path) -> dict[str, list[TopicPartition]]:
    """The share groups that there are, with the partitions that they have leases on."""
    found: dict[str, list[TopicPartition]] = {}
    for path in sorted((data_dir / DIRECTORY).glob("*/*-*")):
        topic, _, number = path.name.rpartition("-")
        if number.isdecimal():
            found.setdefault(unquote(path.parent.name), []).append(
                TopicPartition(topic, int(number)))
    return found


def kept_offset(data_dir: Path, partition: TopicPartition) -> int | None:
    """The first offset that a group which keeps records has not done; None: there is none such."""
    starts = [kept_from(path) for path in _files_of(data_dir, directory_name(*partition))]
    return min((start for start in starts if start >= 0), default=None)


def forget_topic(data_dir: Path, topic: str, partitions: int) -> None:
    """Removes what groups had in hand of a topic that was deleted. Who still works for it has the
    file mapped, and fails at its next call because of the topic."""
    for number in range(partitions):
        for path in _files_of(data_dir, directory_name(topic, number)):
            path.unlink(missing_ok=True)


def _files_of(data_dir: Path, name: str) -> Iterator[Path]:
    try:    # not by glob, which takes a directory that it could not read for an empty one
        groups = os.listdir(data_dir / DIRECTORY)
    except FileNotFoundError:
        return
    for group in groups:
        if (path := data_dir / DIRECTORY / group / name).exists():
            yield path
