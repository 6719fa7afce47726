"""What a figure is worth nothing without: the machine, and what was not asked of it."""

import os
import platform
from pathlib import Path

from pylog import _native


def _first(path: str, field: str) -> str:
    """The first value of a "field : value" file of /proc."""
    try:
        for line in Path(path).read_text().splitlines():
            name, _, value = line.partition(":")
            if name.strip() == field:
                return value.strip()
    except OSError:
        pass
    return "unknown"


def _file_system(path: Path) -> str:
    """Type of the mount that bears the path."""
    best, kind = "", "unknown"
    for line in Path("/proc/mounts").read_text().splitlines():
        _, mount, found, *_ = line.split()
        if str(path.resolve()).startswith(mount) and len(mount) > len(best):
            best, kind = mount, found
    return kind


def describe(scratch: Path) -> dict[str, object]:
    size = os.sysconf("SC_LEVEL3_CACHE_SIZE") if "SC_LEVEL3_CACHE_SIZE" in os.sysconf_names else 0
    return {
        "cpu": _first("/proc/cpuinfo", "model name"),
        "cores": len(os.sched_getaffinity(0)),
        "cache_l3_mib": size >> 20,
        "memory_gib": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 30,
        "load": os.getloadavg()[0],
        "kernel": platform.release(),
        "file_system": _file_system(scratch),
        "python": platform.python_version(),
        "crc": _native.CRC_KERNEL,
        "durability": "os, nothing synced, but where a row says fsync",
    }


def line(machine: dict[str, object]) -> str:
    return (
        "{cpu}, {cores} cores, L3 {cache_l3_mib} MiB, {memory_gib} GiB, load {load:.1f}; "
        "Linux {kernel}, {file_system}; Python {python}; CRC-32C by {crc}\n"
        "durability: {durability}; peers: no sync either (sqlite3 WAL synchronous=OFF, lmdb "
        "sync=False, rocksdict without sync)"
    ).format(**machine)
