"""The truth about a log, in plain Python: what tests compare a real one with.

No file, no batch, no segment: a dict of records by offset, and where the log starts, ends and is
durable. A lossy recovery leaves a gap in the offsets, which the model is told of by `cut`.
"""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Entry:
    """A record as it was appended."""

    value: bytes | None
    key: bytes | None
    headers: tuple
    timestamp: int


@dataclass
class LogModel:
    """entries: by offset, in order. durable: below it nothing may ever be lost."""

    entries: dict[int, Entry] = field(default_factory=dict)
    start: int = 0
    end: int = 0
    durable: int = 0

    def append(self, *entries):
        """The offset of the first."""
        first = self.end
        for entry in entries:
            self.entries[self.end] = entry
            self.end += 1
        return first

    def delete_before(self, offset):
        self.start = max(self.start, offset)

    def flush(self):
        self.durable = self.end

    def cut(self, cut_offset, next_offset):
        """What a reboot took away; all that is left is on disk, so it is durable."""
        self.entries = {offset: entry for offset, entry in self.entries.items()
                        if offset < cut_offset}
        self.end = self.durable = next_offset

    def read(self, start, stop=None):
        """[(offset, entry)] from `start` on."""
        stop = self.end if stop is None else stop
        return [(offset, entry) for offset, entry in self.entries.items()
                if max(start, self.start) <= offset < stop]

    def first_at(self, timestamp):
        """Offset of the first record at or after `timestamp`, or None."""
        return next((offset for offset, entry in self.read(self.start)
                     if entry.timestamp >= timestamp), None)


def entry_of(record):
    """What the model would hold for a record that was read."""
    return Entry(record.value, record.key, record.headers, record.timestamp)


def read_as_model(records):
    return [(record.offset, entry_of(record)) for record in records]
