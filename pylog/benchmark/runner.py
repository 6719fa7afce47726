"""One run of the bench: workload after workload, each in a directory that goes when it is done."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pylog.benchmark.pings import measure_latency
from pylog.benchmark.rows import Row
from pylog.benchmark.settings import WORKLOADS, Settings
from pylog.benchmark.syncs import measure_fsync
from pylog.benchmark.throughput import MEASURES, measure_loop
from pylog.hardware import Machine

KIND = "pylog bench"
FORMAT = 1

ALL_MEASURES: dict[str, Callable[[Settings, Path], list[Row]]] = {
    **MEASURES, "latency": measure_latency, "fsync": measure_fsync,
}


@dataclass(slots=True)
class Run:
    """What was measured, where, and how it was asked for. unmeasured: workloads still to come."""

    machine: Machine
    settings: Settings
    rows: list[Row] = field(default_factory=list)
    unmeasured: list[str] = field(init=False)
    time: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))

    def __post_init__(self) -> None:
        self.unmeasured = [name for name in WORKLOADS if name in self.settings.only]

    def to_dict(self) -> dict[str, Any]:
        """Plain types only, for JSON."""
        return {"kind": KIND, "format": FORMAT, "time": self.time, "machine": self.machine,
                "settings": self.settings.to_dict(), "unmeasured": self.unmeasured,
                "rows": [row.to_dict() for row in self.rows]}


def measure(
    run: Run, place: Path, on_progress: Callable[[str], None] = lambda name: None,
) -> None:
    """Fills `run.rows`, which has what was measured before an error, too.

    place: an empty directory. on_progress: told each workload before it.
    """
    on_progress("the loop")
    run.rows.append(measure_loop())
    while run.unmeasured:
        name = run.unmeasured[0]
        on_progress(name)
        path = place / name
        run.rows += ALL_MEASURES[name](run.settings, path)
        del run.unmeasured[0]
        shutil.rmtree(path)
