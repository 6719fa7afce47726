"""Proving a log's files without trusting or changing them."""

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Finding:
    path: str
    position: int
    offset: int | None
    what: str


@dataclass(slots=True)
class Report:
    findings: list[Finding] = field(default_factory=list)


def check(path: Path, end_offset: int | None = None) -> Report:
    """Proves the files of a log."""
    return Report()
