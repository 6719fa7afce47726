"""A small disk for a run with the nemesis disk-full: a tmpfs of its own, where mounting works.

It is mounted in a mount namespace of this process and its children, so that it goes with them
whatever happens; an ordinary user gets one inside a user namespace, where the kernel allows that.
When the run is over its files are copied to where it stood: a report names them.
"""

import ctypes
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pylog.stress.plan import Plan

SPARE_BYTES = 64 << 20
CLONE_NEWNS, CLONE_NEWUSER = 0x0002_0000, 0x1000_0000
MS_REC, MS_PRIVATE, MNT_DETACH = 0x4000, 0x40000, 2
BALLAST = "ballast"


@dataclass(slots=True)
class SmallDisk:
    """Where a file may be put that takes what is left; None: there is no small disk.

    unkept: why its files are gone, after the run; empty where they are not.
    """

    ballast: Path | None = None
    unkept: str = ""

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
        disk = cls(directory / BALLAST)
        try:
            yield disk
        finally:
            disk.unkept = keep_files(directory)


def keep_files(directory: Path) -> str:
    """Unmounts, and has the files where the small disk stood; what was in the way, if not."""
    copy = directory.with_name(f"{directory.name}.kept")
    unkept = ""
    try:
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(directory, copy, ignore=shutil.ignore_patterns(BALLAST))
    except OSError as error:
        shutil.rmtree(copy, ignore_errors=True)
        # shutil's own error has one for each file: source, target, reason.
        unkept = error.args[0][0][2] if isinstance(error, shutil.Error) else str(error)
    finally:
        ctypes.CDLL(None).umount2(os.fsencode(directory), MNT_DETACH)
    if not unkept:
        directory.rmdir()
        copy.rename(directory)
    return unkept


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
