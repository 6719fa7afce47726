"""How the logs of a topic are removed while others have them open.

    DATA/orders-0                          told its users that it is no more, and renamed to
    DATA/orders-0.<topic id>-delete        removed by whoever comes by

Kafka renames in the same way. The metadata say first that the topic is deleted, and forget it when
its last directory is renamed; so the name is free for a new topic at once, whoever is killed.
"""

import os
import re
import shutil
import uuid
from pathlib import Path

from pylog import _native
from pylog.topic import directory_name

NAME_BYTES_MAX = 255
_SET_ASIDE = re.compile(r".+\.[0-9a-f]{32}-delete")


def set_aside(data: Path, name: str, partitions: int, topic_id: uuid.UUID,
              timeout_ms: int) -> None:
    """Takes the directories of a topic's partitions away from its name; durable on return.

    To be done again after a kill. Cost: a rename each, one sync. Raises PylogTimeoutError.
    """
    for partition in range(partitions):
        directory = directory_name(name, partition)
        suffix = f".{topic_id.hex}-delete"
        aside = f"{directory[:NAME_BYTES_MAX - len(suffix) - 8]}-{partition}{suffix}" \
            if len(directory) + len(suffix) > NAME_BYTES_MAX else directory + suffix
        _native.delete_log(os.fsencode(data / directory), os.fsencode(data / aside), timeout_ms)
    descriptor = os.open(data, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_set_aside(data: Path) -> None:
    """Removes what was set aside. Others may be at it too; readers keep what they have mapped."""
    for name in os.listdir(data):
        if _SET_ASIDE.fullmatch(name):
            shutil.rmtree(data / name, ignore_errors=True)
