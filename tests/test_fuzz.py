"""The fuzzers of tests/c for a few seconds; `make fuzz` shares 30 among them."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from drivers import built

DRIVERS = Path(__file__).parent / "c"
SECONDS = 6


@pytest.fixture(scope="module")
def sanitized():
    """Builds the fuzzers; skips where the compiler has no sanitizers."""
    if not shutil.which("cc"):
        pytest.skip("there is no cc")
    probe = subprocess.run(
        ["cc", "-fsanitize=address,undefined", "-x", "c", "-", "-o", "/dev/null"],
        input="int main(void) { return 0; }", text=True, capture_output=True, check=False)
    if probe.returncode:
        pytest.skip("cc has no sanitizers here")
    built("fuzzers")


@pytest.mark.slow
def test_decoders_stand_hostile_bytes_under_sanitizers(sanitized, seed):
    run = subprocess.run(
        ["make", "-s", "-C", DRIVERS, "fuzz", f"SECONDS={SECONDS}", f"SEED={seed}"],
        capture_output=True, text=True, check=False)

    assert run.returncode == 0, run.stdout + run.stderr
    runs = re.findall(r"^fuzz_\w+: (\d+) executions", run.stdout, re.M)
    assert len(runs) == len(list(DRIVERS.glob("fuzz_*.c")))
    assert min(map(int, runs)) > 0
