"""Every call of the core that the operating system may refuse, refused; and what then is told.

tests/c/faults.c runs one script of all that a log does, table_faults.c one of all that processes
share beside it, and the linker puts a door before each call into libc (tests/c/calls.h): the n-th
is refused, for every n and every errno that fits it (sweep.h). The table of a run is printed
(pytest -s, or after a failure).
"""

import shutil
import subprocess
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from drivers import built

DURABILITIES = ["os", "interval", "fsync"]
MODES = ["once", "for-good"]
STRIDE = 8                  # in `make test` every eighth call, from one that the seed draws
RUNS_LEAST = 1200
TABLE_STRIDE = 3
TABLE_RUNS_LEAST = 200
OUTCOMES = ["absorbed", "refused", "poisoned"]

# What the core may call without a door: it cannot fail, or has no way to tell.
HARMLESS = {
    "clock_gettime", "getpid", "memcmp", "memcpy", "memmove", "memset", "nanosleep",
    "pthread_join", "pthread_once", "qsort", "sigfillset", "snprintf", "strcmp", "strerror",
    "strlen", "strncmp", "strncpy", "strrchr", "strspn", "strstr", "strtok_r", "strtol", "strtoll",
    "strtoul", "strtoull", "vsnprintf",
}
PREFIXES_HARMLESS = ("pl_", "__", "_GLOBAL", "pthread_mutex", "pthread_attr_", "pthread_sigmask",
                     "pthread_atfork")
# futex(2), gettid(2), membarrier(2) and the list of robust locks.
BEHIND_NO_DOOR = {"syscall"}


@pytest.fixture(scope="module")
def drivers():
    """The folder of the built drivers."""
    return built("build/faults", "build/table_faults")


@pytest.fixture
def memory(tmp_path):
    """A folder where a sync costs nothing; the driver calls it a disk."""
    try:
        path = Path(tempfile.mkdtemp(prefix="pylog-", dir="/dev/shm"))
    except OSError:
        yield tmp_path
        return
    yield path
    shutil.rmtree(path)


# ---- the sweep ----------------------------------------------------------------------------------

def sweep(driver, *words):
    done = subprocess.run([driver, *map(str, words)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{words}: {done.stderr}"
    lines = (line.rpartition(" ") for line in done.stdout.splitlines())
    return Counter({name: int(value) for name, _, value in lines})


def sweep_all(drivers, memory, seed, stride):
    """Both modes on all durabilities; the sum of what was counted."""
    jobs = [(memory / f"{name}-{mode}", number, mode)
            for number, name in enumerate(DURABILITIES) for mode in MODES]
    with ThreadPoolExecutor(2) as pool:
        return sum(pool.map(lambda job: sweep(
            drivers / "faults", *job, 1 + seed % stride, stride), jobs), Counter())


def sweep_tables(drivers, memory, seed, stride):
    with ThreadPoolExecutor(2) as pool:
        return sum(pool.map(lambda mode: sweep(
            drivers / "table_faults", memory / f"tables-{mode}", mode, 1 + seed % stride, stride),
            MODES), Counter())


def print_table(total):
    rows = sorted({tuple(name.split()[1:3]) for name in total if name.startswith("run ")})
    print(f"\n{'call':16}{'answer':10}" + "".join(f"{outcome:>10}" for outcome in OUTCOMES))
    for call, answer in rows:
        counts = [total[f"run {call} {answer} {outcome}"] for outcome in OUTCOMES]
        print(f"{call:16}{answer:10}" + "".join(f"{count:>10,}" for count in counts))
    print(f"{total['runs']:,} faults injected, of {total['calls']:,} calls")


@pytest.mark.slow
def test_any_call_may_fail_and_loses_nothing(drivers, memory, seed):
    total = sweep_all(drivers, memory, seed, STRIDE)
    print_table(total)

    assert total["runs"] >= RUNS_LEAST


@pytest.mark.slow
def test_any_call_for_shared_tables_may_fail_and_loses_nothing(drivers, memory, seed):
    total = sweep_tables(drivers, memory, seed, TABLE_STRIDE)
    print_table(total)

    assert total["runs"] >= TABLE_RUNS_LEAST


@pytest.mark.soak
def test_every_call_for_shared_tables_may_fail_and_loses_nothing(drivers, memory, seed):
    print_table(sweep_tables(drivers, memory, seed, 1))


@pytest.mark.soak
def test_every_call_may_fail_and_loses_nothing(drivers, memory, seed):
    print_table(sweep_all(drivers, memory, seed, 1))


def test_what_can_fail_in_the_core_has_a_door(drivers):
    if not shutil.which("nm"):
        pytest.skip("there is no nm")

    def symbols(kind, *objects):
        lines = subprocess.run(["nm", *objects], check=True, capture_output=True,
                               text=True).stdout.splitlines()
        return {line.split()[-1].partition("@")[0] for line in lines if f" {kind} " in line}

    core = symbols("U", *(drivers / "plain").glob("pl_*.o"))
    doors = {name.removeprefix("__wrap_") for name in symbols("T", drivers / "plain" / "calls.o")}
    unguarded = core - doors - HARMLESS - BEHIND_NO_DOOR

    assert "open" in core
    assert {name for name in unguarded if not name.startswith(PREFIXES_HARMLESS)} == set()
