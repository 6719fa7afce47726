"""Proving a log's files without trusting or changing them.

`check` reads every byte, maps nothing, takes no lock and writes nothing, so it may run beside
writers, on a read-only copy, or on files of unknown origin. The walk over batches is walk.py's,
the proof of the indexes indexes.py's; here is what a log as a whole must be.

    names        N.log, twenty digits, no offset twice and none missing: a gap only where a
                 recovery may have gone on
    log.meta     its CRC, its values against each other and against the batches
    batches      header, CRC-32C, every record, offsets that join, the epoch of their offsets
    indexes      every entry true
    the tail     reaches as far as is known of the log's end: from the caller, from log.meta's
                 clean_end, or from a control page of this very boot and file
"""

import contextlib
import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pylog import _native
from pylog.epochs import Epochs
from pylog.errors import CorruptRecordError, LogError, UnsupportedFormatError
from pylog.indexes import IndexCheck, first_difference
from pylog.names import CUT_NAME, INDEX_NAME, is_log_file, is_segment, segment_name
from pylog.report import (
    BEHIND_END,
    OPEN_BATCH,
    PREALLOCATED,
    SET_ASIDE,
    SEVERITIES,
    UNKNOWN_CODEC,
    UNREADABLE,
    Finding,
    Report,
    SegmentFigures,
    Severity,
    offsets_text,
)
from pylog.walk import (
    HEADER_BYTES,
    OPEN_BATCH_BYTES,
    Walker,
    Window,
    cannot_look,
    is_open_header,
    open_batch,
    raise_ours,
    read_small,
    unless_denied,
)

__all__ = ["Finding", "Report", "check"]

Progress = Callable[[int, int], None]

FINDINGS_MAX = 100    # told of one file; the rest are counted
SEGMENT_BYTES_MAX = (1 << 31) - 1
PAGE_BYTES, BELLS_BYTES = 8192, 4096
POISONED = 1
MADE_ANEW = "the next writer makes it anew"
INDEX_ADVICE = f"; no record is lost by it: delete the file, {MADE_ANEW}"


def check(
    path: str | bytes | os.PathLike[str] | os.PathLike[bytes],
    end_offset: int | None = None,
    *,
    on_progress: Progress | None = None,
) -> Report:
    """Proves the files of the log in the directory `path`, whoever wrote them, and reports.

    end_offset: all records below it must be there; a log that others append to while it is checked
    is fine. on_progress(bytes_done, bytes_total) is called every few MiB. Changes nothing.

        >>> import pylog, tempfile
        >>> with pylog.Log(tempfile.mkdtemp(dir=".") + "/orders") as log:
        ...     offset = log.append(b"hello")
        >>> report = pylog.check(log.path)
        >>> report.ok, report.records
        (True, 1)

    Cost: reads every byte once, over 1 GB/s when the files are in memory, in a few MiB of its own.
    Raises UnsupportedFormatError when there is no directory or nothing of a log in it, and
    ResourceLimitError or LogError when it cannot be looked at: that says nothing about the log.
    """
    directory = Path(os.path.abspath(os.fsdecode(path)))
    try:
        if not directory.is_dir():
            raise UnsupportedFormatError(
                f"{directory} is not a directory, so there is no log to check; "
                "name the directory that holds log.meta", path=str(directory))
        for _ in range(3):
            before = _fingerprint(directory)
            report = _Check(directory, end_offset, on_progress).run()
            # Segments come and go beside us: what was seen then need not fit together.
            if report.ok or _fingerprint(directory) == before:
                break
    except OSError as error:
        raise cannot_look(error, directory) from error
    return report


def _fingerprint(directory: Path) -> list[tuple[str, int, int]]:
    """Names, inodes and sizes: different when segments were added, trimmed or removed."""
    found = []
    with os.scandir(directory) as files:
        for entry in files:
            try:
                info = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            found.append((entry.name, info.st_ino, info.st_size))
    return sorted(found)


def _names(directory: Path) -> list[str]:
    """What is there, sorted. What is added to a directory while it is read may be seen or not, also
    the second of two segments without the first. So it is read twice, and of the second time counts
    what is no newer than what the first one saw."""
    newest = max((int(name[:20]) for name in os.listdir(directory) if is_segment(name)), default=-1)
    names = sorted(os.listdir(directory))
    late = {name[:20] for name in names if is_segment(name) and int(name[:20]) > newest}
    return [name for name in names if name[:20] not in late]


class _Check:
    """One pass over a directory."""

    def __init__(self, directory: Path, end_offset: int | None, on_progress: Progress | None):
        self.directory = directory
        self.report = Report(str(directory))
        self.on_progress = on_progress
        self.told: dict[str, int] = {}
        self.names: list[str] = []
        self.bases: list[int] = []
        self.meta: dict[str, Any] | None = None
        self.epochs = Epochs()
        self.asked_end = end_offset
        self.known_end: int | None = end_offset    # where the log ended when we began
        self.is_clean = False
        self.bytes_done = 0
        self.bytes_total = 0

    def run(self) -> Report:
        self._check_meta()
        self._check_page()
        # Listed after the end was taken: so the segment that holds the end is in the list.
        self.names = _names(self.directory)
        self.bases = [int(name[:20]) for name in self.names if is_segment(name)]
        if not self.bases and "log.meta" not in self.names:
            raise UnsupportedFormatError(
                f"there is no log in {self.directory}: neither log.meta nor segment files; "
                "name the directory of one log", path=str(self.directory))
        self._check_names()
        self._check_segments()
        self._check_ends()
        self.report.findings.sort(key=lambda f: (SEVERITIES.index(f.severity), f.path, f.position))
        return self.report

    def tell(self, name: str, position: int, offset: int | None, what: str,
             severity: Severity = "damage") -> None:
        if is_segment(name) and self.is_deleted(int(name[:20])):
            what, severity = f"in a deleted segment, which no reader sees: {what}", "notice"
        self.told[name] = count = self.told.get(name, 0) + 1
        path = str(self.directory / name)
        if count <= FINDINGS_MAX:
            self.report.findings.append(Finding(path, position, offset, what, severity))
        elif count == FINDINGS_MAX + 1:
            more = "more findings in this file are not told"
            self.report.findings.append(Finding(path, position, offset, more, severity))

    def is_deleted(self, base: int) -> bool:
        """Whether all of a segment is below the log start: a deletion that a power cut undid."""
        return any(base < other <= self.report.start_offset for other in self.bases)

    def leave(self, reason: str, count: int) -> None:
        """Counts bytes as not verified."""
        self.report.unverified[reason] = self.report.unverified.get(reason, 0) + count

    # ---- log.meta and the small files ----

    def _check_meta(self) -> None:
        try:
            self.meta = _native.load_meta(os.fsencode(self.directory))
        except CorruptRecordError as error:
            self.tell("log.meta", max(0, error.position or 0), None, _sentence(error))
        except LogError as error:
            raise_ours(error)
            self.tell("log.meta", 0, None, _sentence(error), unless_denied(error, "anomaly"))
        else:
            if self.meta is None:
                self.tell("log.meta", 0, None, "there is none: the options and the epochs of the "
                          "log are unknown, and it cannot be opened; restore it", "anomaly")
        checkpoint = self._read("leader-epoch-checkpoint", 1 << 16)
        if self.meta is None:
            self.epochs = Epochs.from_checkpoint(checkpoint or b"")
            return
        self.epochs = Epochs(tuple(self.meta["epochs"]))
        for name, what in _meta_faults(self.meta):
            self.tell("log.meta", self._line_of(name), None, what)
        expected = self.epochs.to_checkpoint()
        if checkpoint is not None and checkpoint != expected:
            at = first_difference(checkpoint, expected)
            self.tell("leader-epoch-checkpoint", at, None, "its epochs are not log.meta's; it is "
                      "a copy for Kafka's tools, and rewritten with log.meta", "anomaly")
        self.is_clean = self.meta["clean_end"] >= 0
        if self.is_clean:
            self.known_end = max(self.meta["clean_end"], self.asked_end or 0)

    def _line_of(self, name: str) -> int:
        """Where the line of log.meta with this name starts."""
        text = self._read("log.meta", 1 << 16) or b""
        return max(0, text.find(f"\n{name} ".encode()) + 1)

    def _read(self, name: str, size_max: int) -> bytes | None:
        """A small file's bytes; None, told, when it is missing or cannot be read."""
        try:
            return read_small(self.directory / name, size_max)
        except FileNotFoundError:
            if self.meta is not None:
                self.tell(name, 0, None, "the file is missing; the next writer makes it", "notice")
        except OSError as error:
            raise_ours(error)
            self.tell(name, 0, None, f"it cannot be read: {error.strerror or error}",
                      unless_denied(error, "anomaly"))
        return None

    def _check_page(self) -> None:
        """The control page as bytes. It is only a witness for the end of a log left open."""
        for name, size in (("doorbells", BELLS_BYTES), ("lock", 0)):
            data = self._read(name, size + 1)
            if data is not None and len(data) != size:
                self.tell(name, 0, None, f"it should have {size} bytes; the first to open the log "
                          "makes it anew", "notice")
        data = self._read("control", PAGE_BYTES + 1)
        if data is None:
            return
        page = _native.decode_page(data)
        if isinstance(page, str):
            self.tell("control", 0, None, f"{page}; the first to open the log makes it anew",
                      "notice")
        elif self.meta is not None and page["incarnation"] != self.meta["incarnation"]:
            self.tell("control", 0, None, "it belongs to another log; the first to open this one "
                      "makes it anew", "notice")
        elif self.meta is not None and not self.is_clean and self._is_of_this_boot(page):
            if page["state"] == POISONED:
                self.tell("control", 0, page["durable_offset"], "a flush to disk failed (errno "
                          f"{page['poison_errno']}): records from here on may not be on disk",
                          "anomaly")
            self.known_end = max(page["end_offset"], self.asked_end or 0)

    def _is_of_this_boot(self, page: dict[str, Any]) -> bool:
        info = os.stat(self.directory / "control")
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            boot_id = file.read().strip().replace("-", "")
        return (page["boot_id"], page["device"], page["inode"]) == (
            boot_id, info.st_dev, info.st_ino)

    def _check_names(self) -> None:
        bases = set(self.bases)
        for name in self.names:
            index = INDEX_NAME.fullmatch(name)
            if index and int(index[1]) not in bases:
                self.tell(name, 0, None, "an index without its segment; delete it", "notice")
            elif CUT_NAME.fullmatch(name):
                size = os.lstat(self.directory / name).st_size
                self.leave(SET_ASIDE, size)
                self.tell(name, 0, None, f"a recovery set these {size} bytes aside; look with "
                          "`pylog dump --records`, delete the file when nobody wants it", "notice")
            elif name.endswith(".log") and not is_segment(name):
                self.tell(name, 0, None, "this is no segment's name (twenty digits, at most "
                          "9223372036854775807), so nobody reads the file", "anomaly")
            elif not is_log_file(name):
                self.tell(name, 0, None, "a stray file: no part of a log", "notice")
            elif name.endswith(".tmp") and self.is_clean:
                self.tell(name, 0, None, "left by a writer that died; delete it", "notice")

    # ---- the segments ----

    def _check_segments(self) -> None:
        self.bytes_total = sum(self._size_of(base) for base in self.bases)
        expected: int | None = None    # None: unknown, after damage up to the end of a segment
        for at, base in enumerate(self.bases):
            if at == 0:
                self._check_first(base)
            elif expected is not None and base != expected:
                self._check_step(self.bases[at - 1], expected, base)
            expected = self._check_segment(at)
        if not self.bases and self.meta is not None:
            self.tell("", 0, self.meta["log_start"], "there is no segment file; restore them")

    def _size_of(self, base: int) -> int:
        with contextlib.suppress(OSError):
            return os.lstat(self.directory / segment_name(base)).st_size
        return 0

    def _check_first(self, base: int) -> None:
        start = self.meta["log_start"] if self.meta else base
        self.report.start_offset = max(start, base)
        if base > start and not self.may_follow_loss(base):
            self.tell(segment_name(base), 0, start, f"the segments with offsets {start} to "
                      f"{base - 1} are missing; restore them")

    def _check_step(self, before: int, expected: int, base: int) -> None:
        """A segment that does not begin where the one before it ended."""
        size = self._size_of(before)
        if base < expected:
            self.tell(segment_name(base), 0, base, f"the segment before it reaches offset "
                      f"{expected - 1}: offsets {base} on are there twice")
        elif self.may_follow_loss(base):
            self.report.gaps.append((expected, base))
        elif base == self.bases[-1] and self._size_of(base) == 0:
            self.tell(segment_name(base), 0, base, "an empty segment after a gap: a recovery "
                      "was interrupted here; the next opening completes it", "anomaly")
        else:
            self.tell(segment_name(before), size, expected, f"offsets {expected} to {base - 1} "
                      "are missing: the file was cut, or a segment removed")

    def may_follow_loss(self, base: int) -> bool:
        """Whether a gap in front of a segment may be a recovery's: also up to the log start."""
        return self.epochs.may_follow_loss(base) or (
            self.epochs.has_start(base) and self.meta is not None
            and base <= self.meta["log_start"])

    def _check_segment(self, at: int) -> int | None:
        """Proves one segment; returns the offset after it, None when that is unknown."""
        base, name = self.bases[at], segment_name(self.bases[at])
        try:
            window = Window(self.directory / name)
        except OSError as error:
            raise_ours(error)
            if self._was_deleted(at, error):
                return self.bases[at + 1]
            self.leave(UNREADABLE, self._size_of(base))
            self.tell(name, 0, base, f"it cannot be opened: {error.strerror or error}; look at its "
                      "owner and mode", unless_denied(error, "damage"))
            return None
        try:
            return _SegmentCheck(self, at, name, window).run()
        except OSError as error:
            raise_ours(error)
            self.leave(UNREADABLE, window.size)
            self.tell(name, 0, base, f"the disk does not give it back: {error.strerror}; restore "
                      "the segment from a copy")
            return None
        finally:
            window.close()

    def _was_deleted(self, at: int, error: OSError) -> bool:
        """By a `delete_before` since we listed the directory."""
        if not isinstance(error, FileNotFoundError) or at + 1 == len(self.bases):
            return False
        try:
            meta = _native.load_meta(os.fsencode(self.directory))
        except LogError:
            return False
        return meta is not None and bool(meta["log_start"] >= self.bases[at + 1])

    @property
    def reach(self) -> int:
        """Every record below must be there."""
        owed = (self.meta["durable_end"], self.meta["log_start"]) if self.meta else ()
        return max(self.known_end or 0, *owed, 0)

    def progress(self, count: int) -> None:
        self.bytes_done += count
        if self.on_progress:
            self.on_progress(self.bytes_done, max(self.bytes_total, self.bytes_done))

    # ---- the log as a whole ----

    def _check_ends(self) -> None:
        report = self.report
        if report.segments:
            report.end_offset = max(report.end_offset, report.segments[-1].end_offset)
        if self.meta is None:
            return
        if self.is_clean and report.end_offset > self.meta["clean_end"]:
            self.tell("log.meta", self._line_of("clean_end"), report.end_offset, "it says that "
                      f"the log was closed at offset {self.meta['clean_end']}, and whole batches "
                      f"go on to {report.end_offset}")
        if report.end_offset > self.meta["reserved_end"]:
            self.tell("log.meta", self._line_of("reserved_end"), report.end_offset,
                      "it says that no offset from "
                      f"{self.meta['reserved_end']} on is used, and the segments end at "
                      f"{report.end_offset}: it is older than they are")


class _SegmentCheck:
    """The walk over one segment: `expected` is the offset that the next batch must begin with."""

    def __init__(self, check: _Check, at: int, name: str, window: Window) -> None:
        base = check.bases[at]
        self.check, self.name, self.window = check, name, window
        self.next_base = check.bases[at + 1] if at + 1 < len(check.bases) else None
        self.walker = Walker(window, 1 << 30)    # the log's limit may have been higher
        self.figures = SegmentFigures(str(check.directory / name), base, base, window.size)
        self.expected = base
        self.is_whole = True
        self.epoch, self.epoch_end = -1, base    # known for offsets below epoch_end
        interval = check.meta["index_interval_bytes"] if check.meta else 4096
        self.index = IndexCheck(
            base, interval, self._read_index(".index"), self._read_index(".timeindex"))

    def run(self) -> int | None:
        """The offset after the segment; None when damage hides it."""
        check, figures = self.check, self.figures
        if self.window.size > SEGMENT_BYTES_MAX:
            check.tell(self.name, SEGMENT_BYTES_MAX, None, f"the file has {self.window.size} "
                       "bytes, over Kafka's limit of 2 GiB: pylog does not open it")
        is_known = self._walk()
        is_final = check.meta is not None and (check.is_clean or self.next_base is not None)
        for fault in self.index.faults(is_final, self.is_whole):
            advice = "" if fault.is_harmless else INDEX_ADVICE
            check.tell(self.name.removesuffix(".log") + fault.suffix, fault.position, fault.offset,
                       fault.what + advice, "notice" if fault.is_harmless else "anomaly")
        figures.end_offset, figures.size = self.expected, self.window.size    # perhaps trimmed
        check.report.segments.append(figures)
        return self.expected if is_known else None

    def _read_index(self, suffix: str) -> bytes | None:
        name = self.name.removesuffix(".log") + suffix
        size_max = self.window.size + 64    # an entry is shorter than any batch
        try:
            data = read_small(self.check.directory / name, size_max + 1)
        except FileNotFoundError:
            if self.check.is_clean and self.window.size:
                self.check.tell(name, 0, None, f"the index is missing; {MADE_ANEW}", "notice")
            return None
        except OSError as error:
            raise_ours(error)
            self.check.tell(name, 0, None, f"it cannot be read: {error.strerror or error}",
                            unless_denied(error, "anomaly"))
            return None
        if len(data) > size_max:
            self.check.tell(name, size_max, None, "the index is larger than its segment: it is "
                            f"foreign or broken; delete it, {MADE_ANEW}", "anomaly")
            return None
        return data

    def _walk(self) -> bool:
        walker, before = self.walker, 0
        while (batch := walker.step()) is not None:
            if not batch["fault"]:
                self._count(walker.position - batch["size"], batch)
            elif self._take_tail(walker.position):
                return True
            elif not self._step_over(batch["fault"]):
                return False
            if walker.position - before >= 4 << 20:
                self.check.progress(walker.position - before)
                before = walker.position
        self.check.progress(walker.position - before)
        if self.next_base is None and self.expected < self.check.reach:
            self.check.tell(self.name, self.window.size, self.expected, "the file ends here, and "
                            f"the log reached offset {self.check.reach}: it was cut, or a segment "
                            f"behind it removed{self._gone()}")
        return True

    def _count(self, position: int, batch: dict[str, Any]) -> None:
        base, last, figures = batch["base_offset"], batch["last_offset"], self.figures
        what = None
        if base != self.expected:
            what = f"a batch begins with offset {base}, where {self.expected} was due"
        elif batch["records_count"] != last - base + 1:
            what = (f"a batch has {batch['records_count']} records for the {last - base + 1} "
                    f"offsets {base} to {last}")
        elif base >= self.epoch_end and self.check.epochs.pairs:
            self.epoch, self.epoch_end = self.check.epochs.at(base)
        if what is None and self.check.epochs.pairs and (
                batch["leader_epoch"] != self.epoch or last >= self.epoch_end):
            what = (f"a batch bears leader epoch {batch['leader_epoch']}, and its offsets belong "
                    f"to {self.epoch}")
        if what:
            self._tell_batch(position, batch, what)
            return
        figures.batches += 1
        figures.records += batch["records_count"]
        if base < (start := self.check.report.start_offset):
            self.check.report.records_below_start += min(last + 1, start) - base
        if batch["unread"]:
            self.check.leave(UNKNOWN_CODEC, batch["size"] - HEADER_BYTES)
            figures.unverified += batch["size"] - HEADER_BYTES
            figures.verified += HEADER_BYTES
        else:
            figures.verified += batch["size"]
        self.index.add(position, batch)
        self.expected = last + 1

    def _tell_batch(self, position: int, batch: dict[str, Any], what: str) -> None:
        """A batch whose CRC is right in a place where it is wrong."""
        self.check.tell(self.name, position, self.expected, what)
        self.is_whole = False
        self.figures.damaged += batch["size"]
        after = self.expected + batch["last_offset"] - batch["base_offset"] + 1
        if batch["last_offset"] + 1 == self._base_at(self.walker.position):
            after = batch["last_offset"] + 1    # the next one joins it: offsets are missing before
        self.expected = after

    def _base_at(self, position: int) -> int:
        return int.from_bytes(self.window.view(position, 8)[:8], "big", signed=True)

    def _step_over(self, fault: str) -> bool:
        """Tells of a broken batch and goes to the next whole one; False: there is none."""
        walker, start, lost = self.walker, self.walker.position, self.expected
        self.is_whole = False
        if walker.resync(self.expected):
            self.figures.damaged += walker.position - start
            self.expected = self._base_at(walker.position)
            range_lost = offsets_text(lost, self.expected) if self.expected > lost else "none is"
            self.check.tell(self.name, start, lost, f"{fault}; {range_lost} lost with "
                            f"{walker.position - start} bytes, whole batches follow")
            return True
        self.figures.damaged += self.window.size - start
        self.check.tell(self.name, start, lost, f"{fault}; no whole batch follows in this file"
                        f"{self._gone()}")
        return False

    def _gone(self) -> str:
        """Which offsets are, where nothing whole follows in the file, if something tells."""
        after = self.check.reach if self.next_base is None else self.next_base
        is_known = self.next_base is None or not self.check.may_follow_loss(after)
        if after <= self.expected or not is_known:
            return ""
        return f"; {offsets_text(self.expected, after)} gone: restore the file from a copy"

    def _take_tail(self, position: int) -> bool:
        """Whether what is no batch here is the end of the log; if so counts it as not verified."""
        check = self.check
        if self.next_base is not None:
            if self.expected != self.next_base:
                return False
            self._leave_rest(position)    # not trimmed yet
            return True
        owed = check.reach - self.expected
        view = self.window.view(position, OPEN_BATCH_BYTES)
        is_known = check.known_end is not None
        count = size = 0
        if is_open_header(view, self.expected):
            count, size = open_batch(view, owed if is_known and owed > 0 else 1 << 31)
        if count < owed:
            return False
        check.leave(OPEN_BATCH, size)
        self.figures.unverified += size
        check.report.end_offset = self.expected + (count if not is_known else max(0, owed))
        if not is_known and not self.window.is_zero(position):
            self.is_whole = False
            check.tell(self.name, position, self.expected, "a torn tail: the log was not closed "
                       "before a reboot or a copy, and from here on no batch is whole; the next "
                       f"opening sets it aside ({count} readable records)", "anomaly")
        self._leave_rest(position + size)
        return True

    def _leave_rest(self, position: int) -> None:
        is_zero = self.window.is_zero(position)    # first: it sees what was trimmed meanwhile
        rest = self.window.size - position
        self.figures.unverified += rest
        self.check.leave(PREALLOCATED if is_zero else BEHIND_END, rest)
        if rest and self.check.is_clean:
            self.check.tell(self.name, position, None, f"{rest} bytes follow the last batch of a "
                            "closed log; readers do not look at them",
                            "notice" if is_zero else "anomaly")


def _sentence(error: LogError) -> str:
    """An error's message without the place, which the finding has."""
    return str(error).rsplit(" [", 1)[0].replace(", or run `pylog check`", "").replace(
        "; run `pylog check`", "")


def _meta_faults(meta: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """(Name, sentence): values that no pylog writes, though the CRC is right."""
    ranges = {
        "durability": (0, 2), "append_time": (0, 1), "segment_bytes": (4096, 1 << 30),
        "max_message_bytes": (128, 1 << 30), "index_interval_bytes": (0, 1 << 30),
        "flush_interval_ms": (1, 86_400_000), "clean_end": (-1, meta["reserved_end"]),
        "log_start": (0, meta["reserved_end"]), "durable_end": (0, meta["reserved_end"]),
    }
    for name, (least, most) in ranges.items():
        if not least <= meta[name] <= most:
            yield name, f"{name} is {meta[name]}, which is not within [{least}, {most}]"
    for (epoch, start), (next_epoch, next_start) in itertools.pairwise(meta["epochs"]):
        if next_epoch <= epoch or next_start <= start:
            yield "epoch", (f"epoch {next_epoch} from {next_start} does not follow {epoch} from "
                            f"{start}")
