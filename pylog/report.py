"""What a check of a log found: the findings, and how much was proved and how.

How bad a finding is: "damage" (records are lost or wrong), "anomaly" (something is not as it
should be, no record is lost by it), "inconclusive" (a file that we may not read) or "notice"
(harmless).
"""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Severity = Literal["damage", "anomaly", "inconclusive", "notice"]

SEVERITIES: tuple[Severity, ...] = ("damage", "anomaly", "inconclusive", "notice")

# Why bytes were not verified: the keys of Report.unverified.
OPEN_BATCH = "in the open batch, which has no CRC yet"
PREALLOCATED = "preallocated, all zero"
BEHIND_END = "behind the end of the log: a writer at work, or what a dead one left"
SET_ASIDE = "set aside by a recovery"
UNKNOWN_CODEC = "records in a codec that this version cannot read; their CRC is right"
UNREADABLE = "not readable"


def counted(count: int, noun: str, plural: str = "s") -> str:
    """As in "1 batch" or "2,000 batches"."""
    return f"{count:,} {noun}{plural * (count != 1)}"


def offsets_text(first: int, after: int) -> str:
    """A range that is not empty, as a sentence begins with it."""
    return f"offset {first} is" if after == first + 1 else f"offsets {first} to {after - 1} are"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it should be.

    path: the file. position: a byte in it, inside the damaged batch or entry. offset: of the first
    record concerned, if one is. what: a sentence. severity: "damage", "anomaly",
    "inconclusive" or "notice".
    """

    path: str
    position: int
    offset: int | None
    what: str
    severity: Severity = "damage"

    def __str__(self) -> str:
        where = f"{self.path}, byte {self.position}"
        if self.offset is not None:
            where += f", offset {self.offset}"
        return f"{self.severity}: {where}: {self.what}"


@dataclass(slots=True)
class SegmentFigures:
    """What was found in one segment file. Sizes in bytes; end_offset is excluded."""

    path: str
    base_offset: int
    end_offset: int
    size: int = 0
    batches: int = 0
    records: int = 0
    verified: int = 0
    unverified: int = 0
    damaged: int = 0


@dataclass(slots=True)
class Report:
    """What `check` found: `ok`, `findings` worst first, and how much was proved.

    start_offset, end_offset: the log as its files tell it, the open batch included. gaps: ranges
    (start, end) of offsets that recoveries skipped. records_below_start: those of `records` that
    were deleted, and whose segment is still needed. unverified: bytes that could not be verified,
    by reason. batches, records, bytes_verified, bytes_damaged: sums over `segments`. `str(report)`
    is the text that `pylog check` prints, `to_dict()` its JSON.
    """

    path: str
    findings: list[Finding] = field(default_factory=list)
    segments: list[SegmentFigures] = field(default_factory=list)
    start_offset: int = 0
    end_offset: int = 0
    gaps: list[tuple[int, int]] = field(default_factory=list)
    records_below_start: int = 0
    unverified: dict[str, int] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """No damage and no anomaly, and no file that may not be read; there may be notices."""
        return all(finding.severity == "notice" for finding in self.findings)

    @property
    def faults(self) -> int:
        """How much damage and how many anomalies; 0, and not `ok`: it could not be told."""
        return sum(finding.severity in ("damage", "anomaly") for finding in self.findings)

    @property
    def batches(self) -> int:
        return sum(segment.batches for segment in self.segments)

    @property
    def records(self) -> int:
        return sum(segment.records for segment in self.segments)

    @property
    def bytes_verified(self) -> int:
        return sum(segment.verified for segment in self.segments)

    @property
    def bytes_damaged(self) -> int:
        return sum(segment.damaged for segment in self.segments)

    @property
    def bytes_unverified(self) -> int:
        return sum(self.unverified.values())

    def __repr__(self) -> str:
        state = "ok" if self.ok else "NOT ok"
        return (f"<Report of {self.path!r}: {state}, {len(self.findings)} findings, "
                f"{self.records} records in {self.batches} batches>")

    def __str__(self) -> str:
        verdict = "ok" if self.ok else f"NOT ok, faults found: {self.faults}" if self.faults \
            else "no fault found, but not all may be read"
        lines = [
            f"{self.path}: {verdict}",
            f"  offsets [{self.start_offset}, {self.end_offset}), "
            f"{counted(len(self.segments), 'segment')}, {counted(self.batches, 'batch', 'es')}, "
            f"{counted(self.records - self.records_below_start, 'record')}",
            f"  {self.bytes_verified:,} bytes verified: CRC-32C, header and every record",
        ]
        if below := self.records_below_start:
            lines.insert(2, f"  {counted(below, 'more record')} below the start: deleted, and gone "
                            "with their segment")
        lines += [f"  {count:,} bytes not verified: {why}"
                  for why, count in self.unverified.items() if count]
        if self.bytes_damaged:
            lines.append(f"  {self.bytes_damaged:,} bytes damaged")
        lines += [f"  offsets [{start}, {end}) were skipped by a recovery"
                  for start, end in self.gaps]
        return "\n".join(lines + [f"  {finding}" for finding in self.findings])

    def to_dict(self) -> dict[str, Any]:
        """Plain types only, for JSON."""
        sums = ("ok", "batches", "records", "bytes_verified", "bytes_damaged", "bytes_unverified")
        return {name: getattr(self, name) for name in sums} | asdict(self)
