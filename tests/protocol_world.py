"""What the model of protocol_model.py is about: the page, the files, the processes; what must hold.

Everything that processes share is a World, all that a process has for itself an Actor. Both freeze
to tuples, by which the search knows a state again.
"""

from typing import ClassVar, NamedTuple

from protocol_model import LISTS

FREE, HELD, DEAD = "free", "held", "dead"


class Batch(NamedTuple):
    """A header; its records are the cells behind it. `length` is in records, 0 while open."""

    base: int
    count: int = 0
    crc: tuple | None = None
    length: int = 0
    is_void: bool = False       # its magic byte is gone: nobody takes it for a batch


class Half(NamedTuple):
    """A record of which the second half is not written yet."""

    value: int


class Waits(Exception):
    """The step cannot be taken now."""


class Violation(Exception):
    """What no state may show."""



def renamed(cells, new):
    for cell in cells:
        if isinstance(cell, int):
            new.setdefault(cell, len(new))
        elif isinstance(cell, Half):
            new.setdefault(cell.value, len(new))
    return tuple(
        new[cell] if isinstance(cell, int)
        else Half(new[cell.value]) if isinstance(cell, Half)
        else cell._replace(crc=(cell.crc[0], renamed(cell.crc[1], new))) if cell and cell.crc
        else cell for cell in cells)


class World:
    """All that processes share: the page, the directory, the disk, and ghosts: what was shown."""

    FIELDS: ClassVar = {
        "capacity": 5, "batch_most": 2,     # cells of a segment, records of an open batch
        "kills": 0,                 # how many may yet be
        "lock": FREE, "flush_lock": FREE, "maintenance": FREE,
        "state": "live", "end": 0, "sealed": 0, "active": 0, "rolls": 0,
        "start": 0, "sequence": 0, "durable": 0,
        "position": 0, "batch_position": 0, "count": 0,    # hints, guarded by the lock
        "names": (0,), "files": (),
        "disk_names": (0,),         # that the disk has for certain
        "disk": (),          # per segment: where a scan of what was synced ends
        "truth": (),                # ghost: the record of each offset, once published
        "stale": (),                # ghost: batches never published that the disk may hold
        "counted": True,            # ghost: readers are told of every segment there is
        "kept": 0,                  # ghost: segments below were deleted, and the caller told
    }

    def __init__(self, fields=()):
        self.__dict__.update(self.FIELDS)
        self.__dict__.update(fields)
        self.files = dict(self.files) or {0: (None,) * self.capacity}
        self.disk = dict(self.disk)

    def freeze(self):
        return tuple(tuple(value.items()) if isinstance(value, dict) else value
                     for value in self.__dict__.values())

    def rename_values(self):
        """In the order of their coming: it tells nobody which is which."""
        new = {}
        self.truth = renamed(self.truth, new)
        self.stale = tuple((*old[:3], renamed(old[3], new)) for old in self.stale)
        self.files = {base: renamed(self.files[base], new) for base in sorted(self.files)}

    @classmethod
    def thaw(cls, frozen):
        return cls(zip(cls.FIELDS, frozen, strict=True))

    def set(self, **fields):
        self.__dict__.update(fields)

    def write(self, base, at, cell):
        cells = self.files[base]
        self.files[base] = (*cells[:at], cell, *cells[at + 1:])

    def sync(self, base):
        """What a scan takes now it will take always: sealed bytes do not change (check_change).
        And what the memory has no more, the disk has no more."""
        self.disk[base] = base
        self.disk = dict(sorted(self.disk.items()))
        for _, offset, values in sorted(batches_of(self.files[base])):
            if offset == self.disk[base] and values == self.truth[offset:][:len(values)]:
                self.disk[base] += len(values)
        self.stale = tuple(old for old in self.stale
                           if old[0] != base or old[1:] in batches_of(self.files[base]))

    def fresh_value(self):
        used = {*self.truth, *(value for *_, values in self.stale for value in values)}
        for cells in self.files.values():
            used.update(cell.value if isinstance(cell, Half) else cell for cell in cells)
        return next(value for value in range(99) if value not in used)


# What a reader looks at, or its checks do: indexes into a frozen world.
VISIBLE = [list(World.FIELDS).index(field) for field in (
    "end", "sealed", "start", "rolls", "sequence", "names", "files", "truth", "kept",
    "counted", "kills")]


class Actor:
    """A process: its jobs, the steps before it, and what it keeps for itself."""

    FIELDS: ClassVar = {"jobs": (), "todo": (), "holds": False, "mapped": None, "listed": None,
                        "notes": ()}

    def __init__(self, fields=()):
        self.__dict__.update(self.FIELDS)
        self.__dict__.update(fields)
        self.notes = dict(self.notes)

    def freeze(self):
        return (*list(self.__dict__.values())[:-1], tuple(sorted(self.notes.items())))

    @classmethod
    def thaw(cls, frozen):
        return cls(zip(cls.FIELDS, frozen, strict=True))

    def note(self, **notes):
        self.notes.update(notes)

    def begin(self):
        self.notes = {}
        self.todo = LISTS[self.jobs[0]] if self.jobs else ()

    def do_first(self, name, times=1):
        self.todo = LISTS[name] * times + self.todo


# ---- how batches are read -----------------------------------------------------------------------

def batches_of(cells):
    """All sealed batches that a scan could take for some: (at, offset, records)."""
    found = set()
    for at, cell in enumerate(cells):
        if isinstance(cell, Batch) and cell.length and not cell.is_void:
            values = cells[at + 1:at + 1 + cell.length]
            if cell.crc == (cell.count, values):
                found.add((at, cell.base, values))
    return found


def walk(cells, at, offset, end, sealed=0):
    """Yields (at, offset, records) of each batch, as whoever sees `end` and `sealed` reads them."""
    while offset < end:
        header = cells[at] if at < len(cells) else None
        if not isinstance(header, Batch) or header.is_void or header.base != offset:
            raise Violation(f"offset {offset} is below the end, and no batch is there")
        count = header.length
        if not count:
            if offset < sealed:
                raise Violation(f"offset {offset} is below the sealed mark, its batch is open")
            count = end - offset
        values = cells[at + 1:at + 1 + count]
        if header.length and header.crc != (header.count, values):
            raise Violation(f"the batch at offset {offset} bears a length and fails its CRC")
        for value in values:
            if not isinstance(value, int):
                raise Violation(f"a record at or behind offset {offset} is not wholly written")
        yield at, offset, values
        at, offset = at + 1 + count, offset + count


def records(files, names, end, sealed=0):
    """The records of the whole log up to `end`."""
    found, bases = {}, sorted(names)
    for base, following in zip(bases, [*bases[1:], end], strict=True):
        for _, offset, values in walk(files[base], 0, base, min(following, end), sealed):
            found.update(enumerate(values, offset))
    return found


# ---- what must hold -----------------------------------------------------------------------------

def check(w):
    """Of every state. A reader who came now would find all that was published, and nothing else."""
    shown = records(w.files, w.names, w.end, w.sealed)
    if any(w.truth[offset] != value for offset, value in shown.items()):
        raise Violation("an offset shows another record than before")
    if len(shown) < w.end - max(w.start, min(w.names)) or len(w.truth) != w.end:
        raise Violation("published records are gone")
    on_disk = w.names[0]
    for base in w.names:
        if base == on_disk and base in w.disk_names:
            on_disk = w.disk.get(base, base)
    if on_disk < w.durable:
        raise Violation(f"durable is {w.durable}, and the disk has only {on_disk} for certain")


def check_change(before, after):
    """Of every step: bytes of sealed batches never change."""
    for base, cells in before.files.items():
        for at, offset, values in batches_of(cells):
            if offset + len(values) <= before.end:
                size = 1 + len(values)
                if after.files[base][at:at + size] != cells[at:at + size]:
                    raise Violation(f"a step changed the sealed batch at offset {offset}")
