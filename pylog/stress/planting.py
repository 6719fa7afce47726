"""The plants: each makes one thing wrong in a good run's directory, and says what and where.

A plant edits bytes (editor.py) so that only the planted thing is wrong: CRCs, counts, lengths,
offsets, indexes and log.meta follow, where they are not the thing. It knows the format's text and
shares no code with what is to find it. Unless it says otherwise, a plant removes the hashes of
earlier looks at the log (`folds`): nobody had come by before.

Several plants may bear one anomaly's name: several ways to be wrong.
"""

import itertools
import random
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from pylog.stress.editor import Batch, Entry, LogFiles, Segment, read_account

FOLD_RECORDS = 4096
RESERVED = 1 << 24    # offsets that a log has in hand behind its end

# And not told by a log that lies (liars.py) either.
NOT_PLANTED = {
    "untold-damage": "it says of check() that it missed a planted byte: nothing to plant",
    "stuck-reader": "live: time passes",
    "unseen": "live: time passes",
    "unwritable-log": "live: appends fail",
    "broken-worker": "live: a process ends",
    "refused-call": "live: a call raises what a fault explains; documented",
    "unexpected-error": "live: a call raises",
    "full-disk": "live, and of the disk",
    "lost-sighting": "live, and of the disk",
    "fork-accepted": "live: a process forks",
    "indeterminate-write": "no anomaly by itself: counted from the ledgers, in every good log",
}


@dataclass(slots=True)
class Spot:
    """Where the planted thing is: what is known of it. Without `end`: one offset."""

    batch: Batch | None = None
    offset: int | None = None
    producer: int | None = None
    sequence: int | None = None
    end: int | None = None
    file: str | None = None
    position: int | None = None

    def settle(self) -> None:
        """File and position of the batch, once it is saved."""
        if self.batch is not None:
            self.file, self.position = str(self.batch.file), self.batch.position


class Ground:
    """A run's directory to plant in: its log and its ledgers, read; and the dice."""

    def __init__(self, directory: Path, rng: random.Random) -> None:
        self.directory = directory
        self.rng = rng
        self.log = LogFiles(directory / "log")
        self.accounts = [read_account(file)
                         for file in sorted((directory / "ledgers").glob("producer-*"))]
        self.of_producer = {account.producer: account for account in self.accounts}

    def pick(
        self, wanted: Callable[[list[Entry], int], bool], batches: Iterable[Batch] | None = None
    ) -> tuple[Batch, list[Entry], int]:
        """A batch, its records, and the place of one that is wanted: all by the dice."""
        every = list(self.log.batches() if batches is None else batches)
        for batch in self.rng.sample(every, len(every)):
            entries = batch.entries()
            places = [at for at in range(len(entries)) if wanted(entries, at)]
            if places:
                return batch, entries, self.rng.choice(places)
        raise LookupError("the good log has no place for this plant")

    def is_acknowledged(self, entry: Entry) -> bool:
        """With later records of its producer behind it, and no doubt about it."""
        account = self.of_producer[entry.stamp.producer]
        return entry.stamp.sequence + 50 < account.settled and not any(
            start <= entry.stamp.sequence < end for start, end in account.doubtful)

    def find(self, producer: int, sequence: int) -> tuple[Batch, list[Entry], int]:
        """The place of a record."""
        def is_it(entries: list[Entry], at: int) -> bool:
            stamp = entries[at].stamp
            return (stamp.producer, stamp.sequence) == (producer, sequence)
        return self.pick(is_it)

    def middle(self, wanted: Callable[[Batch], bool] = lambda batch: True) -> Batch:
        """A batch of several records, neither the first nor the last of its segment."""
        every = [batch for segment in self.log.segments[:-1] for batch in segment.batches[1:-1]]
        return next(batch for batch in self.rng.sample(every, len(every))
                    if batch.count > 1 and wanted(batch))


@dataclass(frozen=True, slots=True)
class Plant:
    """One way to be wrong. implies: what else is rightly told of a log with it."""

    anomaly: str
    make: Callable[[Ground], Spot]
    implies: frozenset[str]
    keeps_folds: bool = False

    @property
    def what(self) -> str:
        """The first line of what its function says."""
        return (self.make.__doc__ or "").splitlines()[0].rstrip(".")


@dataclass(frozen=True, slots=True)
class Planted:
    """What a plant did, and where."""

    anomaly: str
    what: str
    spot: Spot
    implies: frozenset[str]


PLANTS: list[Plant] = []


def plant(
    anomaly: str, implies: str = "", keeps_folds: bool = False
) -> Callable[[Callable[[Ground], Spot]], Callable[[Ground], Spot]]:
    """Enters a function among the plants."""
    def enter(make: Callable[[Ground], Spot]) -> Callable[[Ground], Spot]:
        PLANTS.append(Plant(anomaly, make, frozenset(implies.split()), keeps_folds))
        return make
    return enter


def make(one: Plant, directory: Path, rng: random.Random) -> Planted:
    """Plants it in the directory of a run at rest."""
    ground = Ground(directory, rng)
    if not one.keeps_folds:
        (directory / "folds").unlink(missing_ok=True)
    spot = one.make(ground)
    spot.settle()
    return Planted(one.anomaly, one.what, spot, one.implies)


def spot_of(batch: Batch, at: int, entry: Entry) -> Spot:
    """Of one record in a batch without gaps."""
    stamp = entry.stamp
    return Spot(batch, batch.base + at, stamp.producer, stamp.sequence)


def patch(file: Path, position: int, data: bytes) -> None:
    """Other bytes in a file."""
    with file.open("r+b") as opened:
        opened.seek(position)
        opened.write(data)


def flip(ground: Ground, file: Path, first: int, end: int) -> None:
    """One bit of the file's bytes [first, end)."""
    position = ground.rng.randrange(first, end)
    byte = file.read_bytes()[position]
    patch(file, position, bytes([byte ^ 1 << ground.rng.randrange(8)]))


# ---- what the ledgers know ------------------------------------------------------------------


@plant("hole")
def take_out_a_record(ground: Ground) -> Spot:
    """a record taken out, offsets closed up."""
    batch, entries, at = ground.pick(
        lambda entries, at: len(entries) > 1 and ground.is_acknowledged(entries[at]))
    spot = spot_of(batch, at, entries[at])
    ground.log.edit(batch, entries[:at] + entries[at + 1:])
    ground.log.save()
    spot.offset = None    # another record stands there now
    return spot


@plant("hole")
def take_out_a_batch(ground: Ground) -> Spot:
    """a whole batch taken out, offsets closed up."""
    batch = ground.middle()
    entries = batch.entries()
    at = next(at for at, entry in enumerate(entries) if ground.is_acknowledged(entry))
    spot = spot_of(batch, at, entries[at])
    after = ground.log.following(batch)
    ground.log.remove(batch)
    if after:
        ground.log.shift(after, -batch.count)
    ground.log.save()
    return Spot(producer=spot.producer, sequence=spot.sequence)


@plant("hole", implies="cut damaged-structure")
def take_out_a_segment_before_an_epoch(ground: Ground) -> Spot:
    """the last segment before a new epoch removed, as if a recovery had lost it."""
    start = ground.log.epochs[-1][1]
    before = next(one for one in reversed(ground.log.segments) if one.base < start)
    entry = next(entry for batch in before.batches for entry in batch.entries()
                 if ground.is_acknowledged(entry))
    (ground.log.directory / before.name(".log")).unlink()
    return Spot(producer=entry.stamp.producer, sequence=entry.stamp.sequence)


@plant("lost-write")
def take_out_a_last_record(ground: Ground) -> Spot:
    """a producer's last record taken out."""
    account = ground.rng.choice([one for one in ground.accounts if one.sent == one.settled])
    batch, entries, at = ground.find(account.producer, account.settled - 1)
    ground.log.edit(batch, entries[:at] + entries[at + 1:])
    ground.log.save()
    return Spot(producer=account.producer, sequence=account.settled - 1)


def lose_the_tail(ground: Ground, kept_after: int) -> Spot:
    """Cuts the last segment and goes on, in a new epoch, with its last `kept_after` batches."""
    log = ground.log
    last = log.segments[-1]
    end = len(last.batches) - kept_after
    lost, after = last.batches[end - 2:end], last.batches[end:]
    del last.batches[end - 2:]
    epoch, base = log.epochs[-1][0] + 1, int(log.meta["reserved_end"])
    log.epochs.append((epoch, base))
    log.segments.append(Segment(base, after))
    for batch in after:
        batch.base, batch.epoch = base, epoch
        base = batch.end
    log.meta["clean_end"] = str(base)
    log.meta["reserved_end"] = str(base + RESERVED)
    log.save()
    entry = next(entry for batch in lost for entry in batch.entries()
                 if entry.stamp.sequence < ground.of_producer[entry.stamp.producer].settled)
    return Spot(producer=entry.stamp.producer, sequence=entry.stamp.sequence)


@plant("truncated-tail", implies="cut")
def lose_the_tail_and_stop(ground: Ground) -> Spot:
    """the last batches cut off, as by a power cut, and a new epoch begun."""
    return lose_the_tail(ground, 0)


@plant("truncated-tail", implies="cut")
def lose_the_tail_and_go_on(ground: Ground) -> Spot:
    """the last batches cut off, and their producers went on behind the cut."""
    return lose_the_tail(ground, 3)


@plant("invented-write")
def invent_a_record(ground: Ground) -> Spot:
    """a record that was never sent, at the end."""
    account = ground.rng.choice([one for one in ground.accounts if one.sent == one.settled])
    *_, batch = ground.log.batches()
    entries = batch.entries()
    _, others, at = ground.find(account.producer, account.sent - 1)
    entries.append(others[at].stamped(sequence=account.sent))
    ground.log.edit(batch, entries)
    ground.log.save()
    return spot_of(batch, batch.count - 1, entries[-1])


@plant("failed-write")
def bring_back_a_failed_record(ground: Ground) -> Spot:
    """a record whose call raised, in its place."""
    account = next(one for one in ground.accounts if one.failed)
    _, end = account.failed[0]
    batch, entries, at = ground.find(account.producer, end)
    entries.insert(at, entries[at].stamped(sequence=end - 1))
    ground.log.edit(batch, entries)
    ground.log.save()
    return spot_of(batch, at, entries[at])


# ---- what a record says of itself -------------------------------------------------------------


@plant("corrupt-record", implies="hole")
def change_a_byte_of_a_record(ground: Ground) -> Spot:
    """a byte of a value changed, the batch's CRC made right again."""
    def has_filler(entries: list[Entry], at: int) -> bool:
        return ground.is_acknowledged(entries[at]) and len(entries[at].value or b"") > 60
    batch, entries, at = ground.pick(has_filler)
    value = bytearray(entries[at].value or b"")
    value[ground.rng.randrange(8, len(value))] ^= 1 << ground.rng.randrange(8)
    spot = Spot(batch, batch.base + at)
    entries[at] = replace(entries[at], value=bytes(value))
    batch.put(entries)
    ground.log.save()
    return spot


@plant("foreign-record")
def put_in_a_plain_record(ground: Ground) -> Spot:
    """a record without a stamp put in."""
    batch, entries, at = ground.pick(lambda entries, at: len(entries) < 400)
    entries.insert(at, Entry(0, 0, 0, b"key", b"not of this run", b"\0"))
    ground.log.edit(batch, entries)
    ground.log.save()
    return Spot(batch, batch.base + at)


@plant("other-run")
def put_in_a_record_of_another_run(ground: Ground) -> Spot:
    """a record of an earlier run put in."""
    batch, entries, at = ground.pick(lambda entries, at: len(entries) < 400)
    entries.insert(at, entries[at].stamped(run=entries[at].stamp.run ^ 0xFF00))
    ground.log.edit(batch, entries)
    ground.log.save()
    return spot_of(batch, at, entries[at])


@plant("zombie-write")
def write_from_the_grave(ground: Ground) -> Spot:
    """a record given its producer's dead incarnation."""
    def is_late(entries: list[Entry], at: int) -> bool:
        stamp = entries[at].stamp
        return stamp.incarnation > 1 and any(
            (one.stamp.producer, one.stamp.incarnation) == (stamp.producer, stamp.incarnation)
            for one in entries[max(0, at - 9):at])
    batch, entries, at = ground.pick(is_late)
    entries[at] = entries[at].stamped(incarnation=entries[at].stamp.incarnation - 1)
    batch.put(entries)
    ground.log.save()
    return spot_of(batch, at, entries[at])


# ---- order ------------------------------------------------------------------------------------


@plant("duplicate")
def repeat_a_record(ground: Ground) -> Spot:
    """a record put in again, later in its batch."""
    batch, entries, at = ground.pick(lambda entries, at: len(entries) < 400)
    again = ground.rng.randrange(at + 1, len(entries) + 1)
    stamp = entries[at].stamp
    if any(one.stamp.producer == stamp.producer and one.stamp.incarnation > stamp.incarnation
           for one in entries[at:again]):
        again = at + 1
    entries.insert(again, entries[at])
    ground.log.edit(batch, entries)
    ground.log.save()
    return spot_of(batch, again, entries[again])


@plant("duplicate")
def repeat_a_batch(ground: Ground) -> Spot:
    """a batch put in again behind itself, as by a retry."""
    def has_one_writer(batch: Batch) -> bool:
        return len({(one.stamp.producer, one.stamp.incarnation) for one in batch.entries()}) == 1
    batch = ground.middle(has_one_writer)
    copy = replace(batch, base=batch.end)
    after = ground.log.following(batch)
    if after:
        ground.log.shift(after, batch.count)
    batches = next(one.batches for one in ground.log.segments if batch in one.batches)
    batches.insert(batches.index(batch) + 1, copy)
    ground.log.save()
    return spot_of(copy, 0, copy.entries()[0])


@plant("reordered")
def swap_two_records(ground: Ground) -> Spot:
    """two records of a producer swapped."""
    def follower(entries: list[Entry], at: int) -> int | None:
        stamp = entries[at].stamp
        wanted = (stamp.producer, stamp.sequence + 1, stamp.incarnation)
        return next((place for place in range(at + 1, min(at + 20, len(entries)))
                     if (entries[place].stamp.producer, entries[place].stamp.sequence,
                         entries[place].stamp.incarnation) == wanted), None)
    batch, entries, at = ground.pick(lambda entries, at: follower(entries, at) is not None)
    other = follower(entries, at) or at
    entries[at], entries[other] = entries[other], entries[at]
    batch.put(entries)
    ground.log.save()
    return spot_of(batch, other, entries[other])


# ---- offsets and epochs -------------------------------------------------------------------------


@plant("offset-gap", implies="damaged-structure")
def skip_offsets(ground: Ground) -> Spot:
    """offsets skipped between two batches."""
    batch = ground.middle()
    ground.log.shift(batch, ground.rng.randrange(1, 1000))
    ground.log.save()
    return Spot(batch, batch.base)


def widen(ground: Ground, batch: Batch, entries: list[Entry], gap_at: int) -> None:
    """Gives the records of a batch from `gap_at` on an offset one higher, and what follows."""
    plain = b"".join(replace(one, delta=at + (at >= gap_at)).to_bytes()
                     for at, one in enumerate(entries))
    after = ground.log.following(batch)
    if after:
        ground.log.shift(after, 1)
    batch.put_payload(plain, len(entries))
    batch.last_delta += 1
    batch.put_crc()
    ground.log.save()


@plant("offset-gap", implies="damaged-structure lying-index")
def skip_an_offset_in_a_batch(ground: Ground) -> Spot:
    """an offset skipped between two records of a batch."""
    batch = ground.middle()
    entries = batch.entries()
    at = ground.rng.randrange(1, len(entries))
    widen(ground, batch, entries, at)
    return Spot(batch, batch.base + at + 1)


@plant("offset-gap", implies="damaged-structure lying-index")
def skip_an_offset_after_a_record(ground: Ground) -> Spot:
    """a batch that claims one offset more than its records have."""
    batch = ground.middle()
    entries = batch.entries()
    widen(ground, batch, entries, len(entries))
    return Spot(batch, batch.base + len(entries))


@plant("offset-backwards", implies="damaged-structure")
def use_an_offset_twice(ground: Ground) -> Spot:
    """a batch, and all behind it, one offset too low."""
    batch = ground.middle()
    ground.log.shift(batch, -1)
    ground.log.save()
    return Spot(batch, batch.base)


@plant("stale-epoch", implies="damaged-structure")
def fall_back_an_epoch(ground: Ground) -> Spot:
    """a batch with the epoch before its own."""
    batch = ground.rng.choice([
        one for segment in ground.log.segments for one in segment.batches[1:] if one.epoch > 0])
    batch.epoch -= 1
    ground.log.save()
    return Spot(batch, batch.base)


@plant("cut")
def skip_offsets_at_an_epoch(ground: Ground) -> Spot:
    """offsets skipped in front of a new epoch, nothing lost."""
    log = ground.log
    at = len(log.segments) - 1
    epoch, batch = log.epochs[-1][0] + 1, log.segments[at].batches[0]
    for one in log.segments[at].batches:
        one.epoch = epoch
    log.shift(batch, RESERVED + ground.rng.randrange(1, 1000))
    log.epochs.append((epoch, batch.base))
    log.meta["reserved_end"] = str(log.end + RESERVED)
    log.save()
    return Spot(batch, batch.base)


@plant("inconsistent-offset", keeps_folds=True)
def exchange_a_record(ground: Ground) -> Spot:
    """a record made another good one after it was read."""
    end = ground.log.end // FOLD_RECORDS * FOLD_RECORDS
    batch, entries, at = ground.pick(
        lambda entries, at: True, [one for one in ground.log.batches() if one.end <= end])
    entries[at] = entries[at].stamped(sent=entries[at].stamp.sent + 1)
    batch.put(entries)
    ground.log.save()
    return spot_of(batch, at, entries[at])


# ---- the files ----------------------------------------------------------------------------------


@plant("torn-batch", implies="damaged-structure hole lost-write offset-gap")
def change_a_byte_of_a_batch(ground: Ground) -> Spot:
    """a bit of a batch's records changed."""
    batch = ground.middle()
    flip(ground, batch.file, batch.position + 61, batch.position + batch.size)
    return Spot(batch, batch.base)


@plant("torn-batch", implies="damaged-structure hole lost-write offset-gap")
def destroy_a_length(ground: Ground) -> Spot:
    """a batch's length made zero."""
    batch = ground.middle()
    patch(batch.file, batch.position + 8, bytes(4))
    return Spot(batch)


@plant("torn-batch", implies="damaged-structure hole lost-write offset-gap")
def destroy_a_header(ground: Ground) -> Spot:
    """a batch's header overwritten."""
    batch = ground.middle()
    patch(batch.file, batch.position, ground.rng.randbytes(61))
    return Spot(batch)


@plant("torn-batch", implies="damaged-structure hole lost-write")
def miscount_the_records(ground: Ground) -> Spot:
    """a batch that counts one record less than it has, its CRC right."""
    batch = ground.middle()
    batch.count -= 1
    batch.put_crc()
    ground.log.save()
    return Spot(batch, batch.base)


@plant("damaged-structure")
def lie_in_an_index(ground: Ground) -> Spot:
    """an offset index with a wrong position."""
    file = max(ground.log.directory.glob("*.index"), key=lambda one: one.stat().st_size)
    at = ground.rng.randrange(file.stat().st_size // 8) * 8
    offset, position = struct.unpack_from(">ii", file.read_bytes(), at)
    patch(file, at, struct.pack(">ii", offset, position + 1))
    return Spot(file=str(file), position=at)


@plant("damaged-structure")
def lie_in_a_time_index(ground: Ground) -> Spot:
    """a time index with a wrong time."""
    file = max(ground.log.directory.glob("*.timeindex"), key=lambda one: one.stat().st_size)
    at = ground.rng.randrange(file.stat().st_size // 12) * 12
    time, offset = struct.unpack_from(">qi", file.read_bytes(), at)
    patch(file, at, struct.pack(">qi", time - 1, offset))
    return Spot(file=str(file), position=at)


@plant("damaged-structure")
def change_log_meta(ground: Ground) -> Spot:
    """a bit of log.meta changed."""
    file = ground.log.directory / "log.meta"
    flip(ground, file, 12, file.stat().st_size - 20)
    return Spot(file=str(file))


def before_no_epoch(ground: Ground) -> Segment:
    """A segment between others, and not the one in front of a new epoch.

    What is missing there looks like the loss of a recovery: no file says where the log ended then.
    """
    starts = {start for _, start in ground.log.epochs}
    return ground.rng.choice([one for one, after in itertools.pairwise(ground.log.segments[1:])
                              if after.base not in starts])


@plant("damaged-structure", implies="hole offset-gap")
def cut_a_retired_segment(ground: Ground) -> Spot:
    """a segment that is not the last cut at a batch's boundary."""
    batch = before_no_epoch(ground).batches[-1]
    with batch.file.open("r+b") as file:
        file.truncate(batch.position)
    return Spot(batch)


@plant("damaged-structure", implies="hole offset-gap")
def remove_a_segment(ground: Ground) -> Spot:
    """a segment file that is neither first nor last removed."""
    segment = before_no_epoch(ground)
    for suffix in (".log", ".index", ".timeindex"):
        (ground.log.directory / segment.name(suffix)).unlink()
    return Spot(offset=segment.base)


@plant("lying-time-index", implies="damaged-structure")
def hide_a_time(ground: Ground) -> Spot:
    """batches whose headers say that their records are older than they are."""
    every = list(ground.log.batches())
    at = ground.rng.randrange(len(every) // 2)
    # The prober throws dice too: a sixth of the log, and not one batch, is surely hit.
    hidden = every[at:at + len(every) // 6]
    for batch in hidden:
        batch.max_time = every[at].first_time - 1
        batch.put_crc()
    ground.log.save()
    return Spot(offset=hidden[0].base, end=hidden[-1].end)
