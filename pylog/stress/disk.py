"""A small disk for a run with the nemesis disk-full: a tmpfs of its own, where mounting works.

It is mounted in a mount namespace of this process and its children, so that it goes with them
whatever happens; an ordinary user gets one inside a user namespace, where the kernel allows that.
"""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pylog.stress.plan import Plan

SPARE_BYTES = 64 << 20
CLONE_NEWNS, CLONE_NEWUSER = 0x0002_0000, 0x1000_0000
MS_REC, MS_PRIVATE, MNT_DETACH = 0x4000, 0x40000, 2


@dataclass(frozen=True, slots=True)
class SmallDisk:
    """Where a file may be put that takes what is left; None: there is no small disk."""

    ballast: Path | None = None

    @classmethod
    @contextmanager
    def under(cls, directory: Path, plan: Plan) -> Iterator["SmallDisk"]:
        """Mounts one at `directory` for the run, if its plan wants it and this user may."""
        if "disk-full" not in plan.options.nemeses or plan.options.durability == "fsync":
            yield cls()    # tmpfs keeps nothing through a power cut: fsync logs are refused there
            return
        directory.mkdir(mode=0o700, exist_ok=True)
        if not mount_tmpfs(directory, plan.options.disk_bytes + SPARE_BYTES):
            directory.rmdir()
            yield cls()
            return
        try:
            yield cls(directory / "ballast")
        finally:
            ctypes.CDLL(None).umount2(os.fsencode(directory), MNT_DETACH)


def mount_tmpfs(directory: Path, size: int) -> bool:
    """Whether it worked. This process is in a namespace of its own afterwards."""
    libc = ctypes.CDLL(None, use_errno=True)
    user, group = os.geteuid(), os.getegid()
    if libc.unshare(CLONE_NEWNS | (CLONE_NEWUSER if user else 0)):
        return False
    try:
        if user:
            Path("/proc/self/setgroups").write_text("deny")
            Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
            Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    except OSError:
        return False
    if libc.mount(None, b"/", None, MS_REC | MS_PRIVATE, None):
        return False
    return not libc.mount(b"tmpfs", os.fsencode(directory), b"tmpfs", 0,
                          f"size={size},mode=0700".encode())
