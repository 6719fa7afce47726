"""An older run beside a new one: read from its JSON, refused if it was asked for other things."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pylog.benchmark.runner import FORMAT, KIND, Run
from pylog.benchmark.settings import Settings
from pylog.errors import ConfigurationError
from pylog.hardware import Machine

NUMBERS = ("records_per_second", "p50_ns", "p99_ns")


@dataclass(frozen=True, slots=True)
class Old:
    """machine: as it was described. rows: by name, of what stands in `NUMBERS`."""

    machine: Machine
    settings: dict[str, Any]
    rows: dict[str, dict[str, float | None]]


@dataclass(frozen=True, slots=True)
class Pair:
    """ratio: how many times as good the new one is, by speed or by shortness."""

    name: str
    what: str
    old: float
    new: float
    ratio: float


def load(path: Path) -> Old:
    """Raises ConfigurationError if the file is not what `--json` writes."""
    try:
        told = json.loads(path.read_bytes())
        if (told["kind"], told["format"]) != (KIND, FORMAT):
            raise ValueError
        rows = {row["name"]: {name: as_number(row[name]) for name in NUMBERS}
                for row in told["rows"]}
        return Old(dict(told["machine"]), dict(told["settings"]), rows)
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ConfigurationError(
            f"{path} is not what `pylog bench --json` of this version writes; make it anew",
            option="against", value=str(path)) from None


def as_number(value: object) -> float | None:
    """Of a row."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e18:
        raise ValueError
    return value


def need_same(old: Old, settings: Settings, path: Path) -> None:
    """Raises ConfigurationError if the old run was asked for anything else."""
    new = settings.to_dict()
    other = [f"{name} {text_of(old.settings.get(name))}, not {text_of(new.get(name))}"
             for name in sorted({*old.settings, *new})
             if old.settings.get(name) != new.get(name)]
    if other:
        raise ConfigurationError(
            f"{path} is of another run: {'; '.join(other)}; give the same options, or leave "
            "--against out", option="against", value=str(path))


def text_of(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def pairs(old: Old, run: Run) -> list[Pair]:
    """Of what both have; rows that measure the loop itself are left out."""
    found = []
    for row in (row.to_dict() for row in run.rows if not row.name.startswith("(")):
        for what in NUMBERS:
            before, now = old.rows.get(row["name"], {}).get(what), row[what]
            if before and now:
                ratio = now / before if what == "records_per_second" else before / now
                found.append(Pair(row["name"], what, before, now, ratio))
    return found
