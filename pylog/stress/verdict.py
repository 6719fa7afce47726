"""The verdict: the report of a run, as JSON and as text with the same numbers, worst first."""

import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pylog
from pylog import hardware
from pylog.exits import Exit
from pylog.report import counted
from pylog.stress.anomalies import ANOMALIES, RANK, Severity
from pylog.stress.examination import Examination
from pylog.stress.excuses import excuse_of, full_disk_of
from pylog.stress.nemesis import Event
from pylog.stress.plan import OF_GROUPS
from pylog.stress.sightings import Sighting, distinct, lost, read_sightings
from pylog.stress.stage import Stage

EXAMPLES = 8
NOT_CHECKED = (
    "power loss of a real device (the reboot images of the tests stand for it)",
    "transactions",
)


def judge(stage: Stage, examination: Examination | None) -> dict[str, Any]:
    """The report, of plain types."""
    sightings = [*read_sightings(stage.layout.sightings), *lost()]
    figures = load(stage.layout.figures)
    rows = anomalies_of(sightings, stage)
    because = list(reasons_of(stage, examination, figures, rows))
    is_wrong = any(row["severity"] == Severity.NEVER.value for row in rows.values())
    return {
        "pylog": pylog.__version__,
        "verdict": "anomalies" if is_wrong else "inconclusive" if because else "ok",
        "inconclusive_because": because,
        "interrupted": was_cut_short(stage, examination),
        "machine": hardware.describe(stage.layout.directory),
        "plan": stage.plan.to_dict(),
        "counts": counts_of(stage, examination, figures),
        "anomalies": rows,
        "bounds": {"behind_ms": figures.get("behind_ms"),
                   "takeover_ms": figures.get("takeover_ms"),
                   "lone_takeover_ms": figures.get("lone_takeover_ms"),
                   "checker_memory_bytes": figures.get("checker", {}).get("memory_bytes")},
        "cpu_seconds": cpu_of(stage, figures),
        "coverage": {"kill_points": stage.points},
        "events": [asdict(event) | {"at": round(event.at - stage.began, 3)}
                   for event in stage.events],
        "unkept": stage.disk.unkept,
        "not_checked": list(NOT_CHECKED),
    }


def reasons_of(stage: Stage, examination: Examination | None, figures: dict[str, Any],
               rows: dict[str, Any]) -> Iterator[str]:
    """Why what was found is not all there is to find."""
    for row in rows.values():
        if row["severity"] == Severity.INCONCLUSIVE.value:
            yield row["meaning"]
    if was_cut_short(stage, examination):
        yield "it was interrupted"
    elif examination is None or not figures:
        yield "the watcher did not come to its end"


def was_cut_short(stage: Stage, examination: Examination | None) -> bool:
    """Whether Ctrl-C came before all was examined: one that comes later takes nothing away."""
    return stage.was_interrupted and examination is None


def exit_of(report: dict[str, Any]) -> Exit:
    """The code with which the command ends."""
    return {"ok": Exit.FINE, "anomalies": Exit.DAMAGE}.get(report["verdict"], Exit.INCONCLUSIVE)


def load(path: Path) -> dict[str, Any]:
    """Empty where the watcher did not come to its end."""
    try:
        loaded: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return loaded


def counts_of(
    stage: Stage, examination: Examination | None, figures: dict[str, Any]
) -> dict[str, Any]:
    """What was done and looked at, in records and in events."""
    readers = stage.ledgers("reader")
    log = figures.get("log", {})
    return {
        **figures.get("balance", {}),
        "checked": figures.get("checker", {}).get("records", 0),
        "checked_bytes": figures.get("checker", {}).get("bytes", 0),
        "handled_again": figures.get("checker", {}).get("again", 0),
        "commits": figures.get("checker", {}).get("commits", 0),
        "details": figures.get("details", {}),
        "checked_at_rest": examination.figures["records"] if examination else 0,
        "read": sum(ledger.records for ledger in readers),
        "reader_turns": sum(ledger.rounds for ledger in readers),
        "deleted_before": log.get("start_offset", 0),
        "killed_in_the_lock": log.get("owner_deaths", 0),
        "rolls": log.get("rolls", 0),
        "flushes": log.get("flushes", 0),
        "faults": dict(stage.faults),
        "faults_missed": stage.faults_missed,
        "replaced": dict(stage.replaced),
        "ends": dict(stage.cast.ended),
    }


def cpu_of(stage: Stage, figures: dict[str, Any]) -> dict[str, Any]:
    """Seconds by role, of processes that ended; and the checker's share by its thread's time."""
    seconds = {role: round(used, 2) for role, used in stage.cast.cpu_seconds.items()}
    checker = figures.get("cpu_seconds", 0.0)
    total = sum(seconds.values())
    return {"by_role": seconds, "checker": round(checker, 2),
            "checker_share": round(checker / total, 3) if total else None}


# ---- anomalies


def anomalies_of(sightings: list[Sighting], stage: Stage) -> dict[str, Any]:
    """One row for each anomaly that was seen: how many of it, by whom, how bad, an example of each
    place; worst first."""
    by_name: dict[tuple[str, Severity], list[tuple[Sighting, Event | None]]] = defaultdict(list)
    events = {name: [event for event in stage.events if event.nemesis in row.excused_by]
              for name, row in ANOMALIES.items()}    # once: of both there may be many thousands
    if full := full_disk_of(sightings, events["full-disk"]):
        for name, row in ANOMALIES.items():
            events[name] += [full] * (full.nemesis in row.excused_by)
    pauses: dict[int | None, list[Event]] = defaultdict(list)
    for event in stage.events:
        if event.nemesis == "pause":
            pauses[event.pid].append(event)
    for sighting in sightings:
        excuse = excuse_of(sighting, events[sighting.anomaly], pauses.get(sighting.pid, ()))
        kind = ANOMALIES[sighting.anomaly].severity(excuse.nemesis if excuse else None)
        by_name[sighting.anomaly, kind].append((sighting, excuse))
    order = list(Severity)
    rows = {}
    for (name, kind), seen in sorted(
            by_name.items(), key=lambda item: (order.index(item[0][1]), RANK[item[0][0]])):
        told: dict[object, tuple[Sighting, Event | None]] = {}
        for sighting, excuse in seen:
            if sighting.what:
                told.setdefault(sighting.place or len(told), (sighting, excuse))
        rows[name if kind is Severity.NEVER else f"{name} ({kind.name.lower()})"] = {
            "count": distinct(sighting for sighting, _ in seen),
            "seen_by": sorted({sighting.by for sighting, _ in seen}),
            "severity": kind.value,
            "meaning": ANOMALIES[name].meaning,
            "examples": [example(sighting, excuse, stage)
                         for sighting, excuse in [*told.values()][:EXAMPLES]],
        }
    return rows


def example(sighting: Sighting, excuse: Event | None, stage: Stage) -> dict[str, Any]:
    """One sighting with its place, and the fault that explains it or was nearest in time."""
    known = sighting.to_dict()
    known["at"] = round(sighting.at - stage.began, 3)
    del known["anomaly"]
    if sighting.file is None and (place := stage.places.get(sighting.offset or -1)):
        known["file"], known["position"] = place
    nearest = excuse or min(stage.events, key=lambda event: abs(event.at - sighting.at),
                            default=None)
    if nearest:
        who = f" pid {nearest.pid}" if nearest.pid else ""
        known["near"] = f"{nearest.what}{who} at {nearest.at - stage.began:.3f} s"
    return known


# ---- text


def text_of(report: dict[str, Any]) -> str:
    """The report for people."""
    counts = report["counts"]
    is_group = report["plan"]["options"]["workload"] in OF_GROUPS
    faults = ", ".join(f"{count:,} {name}" for name, count in counts["faults"].items()) or (
        "none" if report["plan"]["options"]["nemeses"] else "none; --nemesis kill,pause has some")
    misses = counts["faults_missed"]
    untargeted = f" ({misses:,} more had no target)" if misses else ""
    replaced = ", ".join(counted(count, role) for role, count in counts["replaced"].items())
    lines = [
        ": ".join(["verdict", report["verdict"], *report["inconclusive_because"]]),
        f"  {hardware.line_of(report['machine'])}",
        f"  records: {counts.get('sent', 0):,} sent, {counts.get('acknowledged', 0):,} "
        f"acknowledged, {counts.get('failed', 0):,} failed, "
        f"{counts.get('indeterminate', 0):,} indeterminate "
        f"({counts.get('indeterminate_present', 0):,} of them are there)",
        f"  faults: {faults}{untargeted}",
        f"  processes: {replaced or 'none'} replaced",
        *(lines_of_group(report) if is_group else lines_of_log(report)),
    ]
    if took := report["bounds"]["takeover_ms"]:
        lines.append(f"  what a killed member had, others had after {outcome(took)}; where nobody "
                     "else was killed or stopped meanwhile, after "
                     f"{outcome(report['bounds']['lone_takeover_ms'])}")
    if points := report["coverage"]["kill_points"]:
        missed = [point for point, kills in points.items() if not kills]
        lines.append(f"  C writers died at {len(points) - len(missed)} of {len(points)} points, "
                     f"{sum(points.values()):,} in all; "
                     f"{'not at ' + ', '.join(missed) if missed else 'none was missed'}")
    for name, row in report["anomalies"].items():
        lines.append(f"  {line_of(name, row)}")
        lines += ["    " + describe(seen) for seen in row["examples"][:3]]
    if not report["anomalies"]:
        lines.append("  anomalies: none")
    if report["unkept"]:
        lines.append("  the log's files are gone with the run's small disk, as they could not be "
                     f"copied: {report['unkept']}")
    lines.append("  not checked: " + "; ".join(report["not_checked"]))
    return "\n".join(lines)


def lines_of_log(report: dict[str, Any]) -> list[str]:
    """What is looked at where a log is tried."""
    counts, cpu = report["counts"], report["cpu_seconds"]
    return [
        f"  checked: {counts['checked']:,} records ({counts['checked_bytes']:,} bytes) as they "
        f"came, {counts['checked_at_rest']:,} again at rest; read by others: {counts['read']:,} "
        f"in {counts['reader_turns']:,} turns",
        f"  the log: {counts['rolls']:,} rolls, {counts['flushes']:,} flushes, deleted before "
        f"offset {counts['deleted_before']:,}; {counts['killed_in_the_lock']:,} died holding a "
        "lock",
        f"  the checker took {cpu['checker']} s of CPU, {share(cpu['checker_share'])} of all, and "
        f"{report['bounds']['checker_memory_bytes'] or 0:,} bytes; it was behind by "
        f"{behind(report['bounds']['behind_ms'])}",
    ]


def lines_of_group(report: dict[str, Any]) -> list[str]:
    """The same of a group, by its diaries."""
    counts = report["counts"]
    lines = [f"  handled: {counts['checked']:,} times a record, {counts['handled_again']:,} of "
             f"them again; {counts['commits']:,} commits, acknowledgements or replies"]
    if details := counts["details"]:
        lines.append("  of it: " + ", ".join(f"{many:,} {what}" for what, many in details.items()))
    return lines


def line_of(name: str, row: dict[str, Any]) -> str:
    """An anomaly in one line."""
    seen_by = len(row["seen_by"])
    by = f" (seen by {seen_by})" if seen_by > 1 else ""
    return f"{name}: {row['count']:,}{by}, {row['severity']}: {row['meaning']}"


def share(part: float | None) -> str:
    return "?" if part is None else f"{part:.1%}"


def behind(times: dict[str, float] | None) -> str:
    return "?" if not times else ", ".join(f"{at} {ms:g} ms" for at, ms in times.items())


def outcome(times: dict[str, float]) -> str:
    """
        >>> outcome({"count": 12, "p50": 3.5})
        'p50 3.5 ms (12 times)'
    """
    rest = {at: ms for at, ms in times.items() if at != "count"}
    return f"{behind(rest)} ({times.get('count', 0)} times)"


def describe(seen: dict[str, Any]) -> str:
    """An example in one line."""
    # What an error says has its file in it.
    names = ("offset",) if str(seen.get("file")) in seen["what"] else ("offset", "file", "position")
    place = ", ".join(f"{name} {seen[name]}" for name in names if name in seen)
    near = f"; near {seen['near']}" if "near" in seen else ""
    return f"{seen['at']:.3f} s, {seen['by']}: {seen['what']}{place and f' [{place}]'}{near}"
