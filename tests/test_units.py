"""Pieces of the core that are tested alone, in C: each test_*.c of tests/c."""

import subprocess

import pytest
from drivers import DRIVERS, built

NAMES = sorted(path.stem for path in DRIVERS.glob("test_*.c"))


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_unit_holds(name):
    done = subprocess.run([built(f"build/{name}") / name], capture_output=True, text=True,
                          timeout=120, check=False)

    assert done.returncode == 0, done.stdout + done.stderr
