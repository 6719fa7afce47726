"""The machine that a figure is worth nothing without, as a dictionary and as a line."""

import os
import platform
import re
from pathlib import Path

import pylog
from pylog import _native

Machine = dict[str, str | int | float]

IN_MEMORY = ("tmpfs", "ramfs")    # file systems that keep nothing over a reboot
# No other machine, though these differ.
MAY_DIFFER = ("pylog", "load")


def describe(directory: Path) -> Machine:
    """directory: whose file system and device count."""
    kind, device = mount_of(directory)
    return {
        "cpu": first_field("/proc/cpuinfo", "model name"),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "kernel": platform.release(),
        "file_system": kind,
        "device": device,
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "pylog": pylog.__version__,
        "crc": _native.CRC_KERNEL,
        "load": round(os.getloadavg()[0], 1),
    }


def line_of(machine: Machine) -> str:
    return ("{cpu}, {cores} cores, {memory_gib} GiB; Linux {kernel}; {file_system} on {device}; "
            "{python}; pylog {pylog}; CRC-32C by {crc}; load {load} at the "
            "start").format(**machine)


def differences(old: Machine, new: Machine) -> list[str]:
    """What makes figures of the two hard to compare."""
    return [f"{name}: {old.get(name, 'unknown')} then, {new.get(name, 'unknown')} now"
            for name in sorted({*old, *new} - set(MAY_DIFFER)) if old.get(name) != new.get(name)]


def first_field(path: str, field: str) -> str:
    """The first value of a "field : value" file of /proc."""
    try:
        for line in Path(path).read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == field:
                return value.strip()
    except OSError:
        pass
    return f"unknown {platform.machine()}"


def mount_of(directory: Path) -> tuple[str, str]:
    """Type of its file system, and the device under it with what the kernel calls its model."""
    best, kind, source = "", "unknown", "unknown"
    place = os.path.join(directory.resolve(), "")
    for line in mounts():
        fields, _, rest = line.partition(" - ")
        mounted = unescaped(fields.split()[4])
        # Of several mounts on one place the last is the one that is seen.
        if place.startswith(os.path.join(mounted, "")) and len(mounted) >= len(best):
            best = mounted
            kind, source = map(unescaped, rest.split()[:2])
    model = model_of(directory)
    return kind, f"{source} ({model})" if model else source


def mounts() -> list[str]:
    try:
        return Path("/proc/self/mountinfo").read_text(encoding="utf-8",
                                                      errors="replace").splitlines()
    except OSError:
        return []


def unescaped(text: str) -> str:
    r"""A blank in a path of mountinfo is \040."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)


def model_of(directory: Path) -> str:
    """Empty for what has none, as tmpfs and most virtual disks."""
    number = directory.stat().st_dev
    block = Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}").resolve()
    for disk in (block, block.parent):
        try:
            model = (disk / "device" / "model").read_text(encoding="utf-8").strip()
        except OSError:
            continue
        if model:
            return model
    return ""
