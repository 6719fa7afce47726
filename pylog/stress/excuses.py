"""Excuses: which fault of the run explains what was seen, if one does.

It must be of a kind that the catalogue names for the anomaly, at its time, and at its place: the
same file, offsets or process.
"""

import math
from collections.abc import Iterable

from pylog.stress.anomalies import ANOMALIES
from pylog.stress.nemesis import Event
from pylog.stress.sightings import Sighting

SLACK_SECONDS = 1.0    # so long after its end a fault may still explain what is seen


def excuse_of(
    sighting: Sighting, events: Iterable[Event], pauses: Iterable[Event] = ()
) -> Event | None:
    """The fault of the run that explains it: one that its kind is excused by, at its time, and in
    the same file or range of offsets. `pauses`: those of the process that saw it, by time."""
    for event in events:
        if event.nemesis not in ANOMALIES[sighting.anomaly].excused_by:
            continue
        until = math.inf if has_effects(event, sighting) else end_of(event, pauses)
        if event.at <= sighting.at <= until and is_at(event, sighting):
            return event
    return None


def end_of(event: Event, pauses: Iterable[Event]) -> float:
    """When the last who met a fault has noted it: one that was stopped in between does so later."""
    end = (event.until or event.at) + SLACK_SECONDS
    for pause in pauses:
        if pause.at <= end:
            end = max(end, (pause.until or pause.at) + SLACK_SECONDS)
    return end


def has_effects(event: Event, sighting: Sighting) -> bool:
    """Whether what was undone may still be seen: a view may be held for long, and a file that was
    opened while it was cut stays mapped; but the stage opens the files anew, after the faults, and
    nobody dies of a file that is whole again."""
    return sighting.anomaly == "changed-view" or (
        event.nemesis == "truncate" and sighting.by != "stage"
        and sighting.anomaly != "broken-worker")


def is_at(event: Event, sighting: Sighting) -> bool:
    """Whether it was seen where the event was: in the file or its offsets, or in the process."""
    if event.nemesis in ("disk-full", "full-disk"):
        return True    # everybody's
    if sighting.anomaly == "broken-worker":
        # What a file is cut for, anybody may die of; limits bind a writer and its children.
        return event.nemesis == "truncate" or sighting.pid == event.pid or (
            sighting.by.startswith(("writer", "child of writer")))
    return event.file == sighting.file is not None or overlap(event, sighting)


def overlap(event: Event, sighting: Sighting) -> bool:
    """Whether the offsets of the sighting are among those that the event damaged."""
    if sighting.offset is None or event.offset is None or event.end_offset is None:
        return False
    end = sighting.end_offset or sighting.offset + 1
    return event.offset < end and sighting.offset < event.end_offset


def full_disk_of(sightings: list[Sighting], faults: list[Event]) -> Event | None:
    """The fault that nobody planned, from its first sighting on. `faults`: those that were."""
    first = next((sighting for sighting in sightings if sighting.anomaly == "full-disk"
                  and not excuse_of(sighting, faults)), None)
    if first is None:
        return None
    return Event(first.at - SLACK_SECONDS, "full-disk", first.what, until=math.inf)
