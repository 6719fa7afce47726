"""What every test may use: one seed for all that is random, and a place for a log.

The seed is drawn anew for each run and printed at its head; `--seed N` replays a run. Hypothesis
takes it too. Scratch folders lie under build/, not under /tmp: on many systems /tmp is memory,
where nothing can be made durable. PYTEST_DEBUG_TEMPROOT names another place.
"""

import logging
import os
import random
import shutil
import signal
import threading
import zlib
from pathlib import Path

import hypothesis
import pytest
from planted import write_small_log
from tables import take_part

import pylog
from pylog import _native
from pylog.broker import Broker, make_doorbells

SCRATCH = Path(__file__).parent.parent / "build" / "scratch"

hypothesis.settings.register_profile("pylog", deadline=None, print_blob=True)
hypothesis.settings.load_profile("pylog")


def pytest_addoption(parser):
    parser.addoption("--seed", type=int, help="replays the random choices of a run")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config):
    # A shell's background job ignores Ctrl-C, and so would the children that tests interrupt.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if config.option.seed is None:
        # Workers of pytest-xdist inherit the environment, and must draw what the others draw.
        drawn = os.environ.setdefault("PYLOG_TEST_SEED",
                                      str(random.SystemRandom().randrange(1 << 32)))
        config.option.seed = int(drawn)
    if config.getoption("--hypothesis-seed") is None:
        config.option.hypothesis_seed = str(config.option.seed)
    if "PYTEST_DEBUG_TEMPROOT" not in os.environ:
        SCRATCH.mkdir(parents=True, exist_ok=True)
        os.environ["PYTEST_DEBUG_TEMPROOT"] = str(SCRATCH)


def pytest_report_header(config):
    return f"seed: {config.option.seed}"


def pytest_terminal_summary(terminalreporter, config):
    if terminalreporter.stats.get("failed") or terminalreporter.stats.get("error"):
        terminalreporter.write_line(f"replay these random choices: --seed {config.option.seed}")


@pytest.fixture
def seed(request):
    """A number of this test's own: the same for the same --seed, whatever else runs."""
    return zlib.crc32(f"{request.config.option.seed} {request.node.nodeid}".encode())


@pytest.fixture
def rng(seed):
    return random.Random(seed)


@pytest.fixture(autouse=True)
def pylogs_logger():
    """As it was: a command that is run within a test turns its warnings off."""
    logger = logging.getLogger("pylog")
    level = logger.level
    yield
    logger.setLevel(level)


@pytest.fixture(autouse=True)
def threads_end():
    """A thread of pylog's that outlives its test would meddle with what later ones patch. One that
    has said that it is over, as to who waits in `stop`, may have some steps to go yet."""
    before = set(threading.enumerate())
    yield
    ours = [thread for thread in set(threading.enumerate()) - before
            if thread.name.startswith("pylog-")]
    for thread in ours:
        thread.join(5)
    assert not [thread.name for thread in ours if thread.is_alive()]


@pytest.fixture
def log_path(tmp_path):
    """Where a log may be created: a path that does not exist yet, on a real file system."""
    return tmp_path / "log"


@pytest.fixture
def data_path(log_path, monkeypatch):
    """Where the command's broker is, or will be, if no -d names another."""
    monkeypatch.setenv("PYLOG_DATA", str(log_path))
    return log_path


@pytest.fixture(scope="module")
def healthy(tmp_path_factory):
    """A closed log, not to be changed."""
    return write_small_log(tmp_path_factory.mktemp("healthy") / "log")


@pytest.fixture
def small(healthy, tmp_path):
    """A copy to be damaged."""
    return shutil.copytree(healthy, tmp_path / "small")


@pytest.fixture
def closed(log_path):
    """The path of a closed log of some rolled segments."""
    with pylog.Log(log_path, segment_bytes=4096) as log:
        for number in range(300):
            log.append(b"%d" % number, key=b"a key of some length")
    return log_path


@pytest.fixture
def log_of_three(log_path):
    """One record a second from noon on, the second with everything that a record can have."""
    noon = 1_700_000_000_000
    with pylog.Log(log_path) as log:
        log.append(b"one", timestamp=noon)
        log.append(b"\xfftwo", key=b"k\xfe", headers=[("h", b"\xfd"), ("h", None)],
                   timestamp=noon + 1000)
        log.append(None, key=b"three", headers=[("h", b"text")], timestamp=noon + 2000)
    return log_path


@pytest.fixture
def place(tmp_path):
    """With doorbells, for tables and the processes that share them."""
    make_doorbells(tmp_path / "doorbells")
    return tmp_path


@pytest.fixture
def processes(place):
    """This process, which takes part."""
    processes = take_part(place)
    yield processes
    processes.close()


@pytest.fixture
def table(place, processes):
    return _native.Table(place / "group", "a group", processes)


@pytest.fixture(scope="session")
def data_template(tmp_path_factory):
    """A directory with two topics, to be copied: to make one takes five times as long."""
    path = tmp_path_factory.mktemp("template") / "data"
    with Broker(path) as broker:
        broker.create_topic("orders", 3, {"retention.ms": -1})    # records may be old
        broker.create_topic("one", 1)
    return path


@pytest.fixture
def broker(data_template, tmp_path):
    """With the topics "orders" of three partitions and "one" of one."""
    with Broker(shutil.copytree(data_template, tmp_path / "data")) as broker:
        yield broker


@pytest.fixture
def consumer(broker):
    """Of the orders; its loops end where nothing is left."""
    with pylog.Consumer(broker, "orders", consumer_timeout_ms=0) as consumer:
        yield consumer


@pytest.fixture
def shop_path(monkeypatch):
    """Makes the modules of examples/shop importable."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "examples" / "shop"))
