"""The inspection of a damaged place by a process that has never seen the log: it must be told."""

import pylog
from pylog.errors import CorruptRecordError, PylogError
from pylog.stress.examination import Layout
from pylog.stress.nemesis import Event
from pylog.stress.sightings import Sightings


def inspect(layout: Layout, event: Event) -> None:
    """Reads what an event damaged, and checks the log; notes damage that neither names."""
    notes = Sightings(layout.sightings, "inspector")
    if told_by_reader(layout, event) or told_by_check(layout, event):
        return
    if layout.log.joinpath(event.file or "").exists():    # not deleted meanwhile
        notes.note("untold-damage", event.what, file=event.file, position=event.position,
                   offset=event.offset)


def told_by_reader(layout: Layout, event: Event) -> bool:
    """Whether the records of the damaged batch, read one by one, end in its error."""
    if event.offset is None:
        return False
    try:
        with pylog.Log(layout.log, mode="r") as log:
            for _ in log.read(event.offset, stop=event.end_offset or log.end_offset):
                pass
    except CorruptRecordError as error:
        return error.path == event.file
    except PylogError:
        pass
    return False


def told_by_check(layout: Layout, event: Event) -> bool:
    """Whether a finding of check() names the file."""
    report = pylog.check(layout.log)
    name = (event.file or "").rpartition("/")[2]
    return any(finding.path.rpartition("/")[2] == name and finding.severity != "notice"
               for finding in report.findings)
