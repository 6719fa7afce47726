"""The C drivers of tests/c, built when a test wants them: by one process at a time.

Two makes at once in a folder would link each other's half-written objects.
"""

import fcntl
import shutil
import subprocess
from pathlib import Path

import pytest

DRIVERS = Path(__file__).parent / "c"


def built(*targets):
    """The folder of the drivers, after `make` of `targets`; skips where nothing compiles."""
    if not shutil.which("make") or not shutil.which("cc"):
        pytest.skip("there is no make or cc")
    (DRIVERS / "build").mkdir(exist_ok=True)
    with open(DRIVERS / "build" / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        subprocess.run(["make", "-s", "-C", DRIVERS, "-j2", *targets], check=True)
    return DRIVERS / "build"
