"""What a run of the bench is asked for, and how much each workload may do by it.

Two runs can be compared if, and only if, their settings are equal.
"""

import math
from dataclasses import asdict, dataclass
from typing import Any

from pylog.errors import ConfigurationError
from pylog.log import Durability

WORKLOADS = ("append", "append_many", "fetch", "columns", "latency", "fsync")

SIZE_MIN = 8                  # a ping bears the time of its append
SIZE_MAX = 1_000_000          # what fits a batch of the default max_message_bytes
PROCESSES_MAX = 64
RECORDS_MAX = 10**10
SECONDS_MAX = 3600
DISK_MB_MIN = 16

FRAMING_BYTES = 80            # around a record that has a batch of its own: an upper bound
PREALLOCATED_BYTES = 192 << 20    # what a busy log has reserved ahead, at most; less of a small one
FILL_BYTES = 64 << 20         # of the log that is read, if nobody said how many records
SAMPLES_MAX = 1_000_000       # calls of a process whose times are kept: p99.99 has 100 beyond it
SLOW_SAMPLES_MAX = 10_000     # of pings and syncs, which take their time, with --records
SYNCING_THREADS = 1 + 8       # of the two rows of `fsync`


@dataclass(frozen=True, slots=True)
class Limits:
    """Where a measured part ends: at whichever comes first."""

    seconds: float
    calls: int


@dataclass(frozen=True, slots=True)
class Settings:
    """size: bytes of a value. seconds, records: of each measured part, of each process; one of them
    is None. processes: how many write, or read, at once. disk_mb: what a part that is limited by
    seconds may write."""

    only: tuple[str, ...] = WORKLOADS
    size: int = 100
    seconds: float | None = 2.0
    records: int | None = None
    processes: int = 1
    durability: Durability = "os"
    compression: str = "none"
    disk_mb: int = 2048

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self) | {"only": list(self.only)}

    @property
    def record_bytes(self) -> int:
        """What a record takes on disk, at most."""
        return self.size + FRAMING_BYTES

    @property
    def records_each(self) -> int:
        """What a process may write to a log in one part; `append` has two parts."""
        if self.records is not None:
            return self.records
        return max(1, (self.disk_mb << 20) // self.record_bytes // self.processes // 2)

    @property
    def records_filled(self) -> int:
        """Of the log that fetch and columns read."""
        if self.records is not None:
            return self.records
        return max(1, min(FILL_BYTES, self.disk_mb << 20) // self.record_bytes)

    def limits(self, calls: int) -> Limits:
        return Limits(math.inf if self.seconds is None else self.seconds, max(1, calls))

    @property
    def slow_calls(self) -> int:
        """Pings, or syncs of each thread, in one part; the eight threads and the one of `fsync`
        are all on disk at once."""
        if self.records is not None:
            return min(self.records, SLOW_SAMPLES_MAX)
        most = (self.disk_mb << 20) // self.record_bytes // SYNCING_THREADS
        return max(1, min(SAMPLES_MAX, most))

    @property
    def disk_bytes(self) -> int:
        """What the largest workload may need at once; each log goes before the next is made."""
        most = max(self._records_of(name) for name in self.only) * self.record_bytes
        return most + min(most, PREALLOCATED_BYTES) + (4 << 20)

    def _records_of(self, name: str) -> int:
        if name == "append":
            return 2 * self.records_each * self.processes
        if name == "append_many":
            return self.records_each * self.processes
        if name in ("fetch", "columns"):
            return self.records_filled
        return SYNCING_THREADS * self.slow_calls


def need_settings(settings: Settings) -> None:
    """Raises ConfigurationError for what cannot be measured; the command line asks before."""
    unknown = [name for name in settings.only if name not in WORKLOADS]
    if unknown or not settings.only:
        raise ConfigurationError(
            f"only={unknown or 'nothing'} is no workload; use some of {', '.join(WORKLOADS)}",
            option="only", value=settings.only)
    if (settings.seconds is None) == (settings.records is None):
        raise ConfigurationError("a part ends by seconds or by records: give one of the two",
                                 option="seconds", value=settings.seconds)
