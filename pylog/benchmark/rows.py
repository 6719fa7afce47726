"""A row of the bench: what was done, how fast, how long single calls took, what was not synced."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pylog.benchmark.timing import Spread, Timed, spread_of


@dataclass(frozen=True, slots=True)
class Row:
    """call: what one of the timed calls is. records, seconds: of the throughput, which a paced row
    has none of. synced: a sentence's end, about what a power cut would take."""

    name: str
    call: str
    size: int
    records: int
    seconds: float
    spread: Spread
    synced: str
    is_paced: bool = False

    @property
    def records_per_second(self) -> float | None:
        return None if self.is_paced or not self.seconds else self.records / self.seconds

    @property
    def megabytes_per_second(self) -> float | None:
        """Of values: keys, headers and framing are not counted."""
        speed = self.records_per_second
        return None if speed is None else speed * self.size / 1e6

    def to_dict(self) -> dict[str, Any]:
        return {
            "name": self.name, "call": self.call, "records": self.records, "seconds": self.seconds,
            "records_per_second": self.records_per_second,
            "megabytes_per_second": self.megabytes_per_second,
            "synced": self.synced, **self.spread.to_dict(),
        }


def row_of(name: str, call: str, size: int, records: int, parts: Sequence[Timed],
           synced: str, timed: Sequence[Timed] | None = None) -> Row:
    """parts: of all processes, whose clocks are one. timed: if others gave the single times."""
    seconds = (max(part.ended for part in parts) - min(part.started for part in parts)) / 1e9
    return Row(name, call, size, records, seconds,
               spread_of([part.times for part in timed or parts]), synced)
