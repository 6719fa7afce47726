"""The store of what exists: what its calls promise, to threads, forks and many processes."""

import fcntl
import os
import pickle
import random
import signal
import sqlite3
import stat
import threading
import time
import uuid

import pytest
from children import in_child

import pylog
from pylog import metadata_file as store
from pylog.file_lock import file_lock
from pylog.metadata import Metadata

NAMES = ["a", "b", "c", "d"]


@pytest.fixture
def data(tmp_path):
    return tmp_path / "data"


@pytest.fixture
def metadata(data):
    with Metadata(data) as metadata:
        yield metadata


# ---- what the calls promise ----------------------------------------------------------------------

def test_created_topic_is_what_everybody_sees(data, metadata):
    before = time.time_ns() // 1_000_000
    entry = metadata.create_topic("orders", 3, {"retention.ms": 5})

    assert isinstance(entry.topic_id, uuid.UUID)
    assert (entry.name, entry.partitions, entry.configs) == ("orders", 3, {"retention.ms": "5"})
    assert before <= entry.created_ms <= time.time_ns() // 1_000_000
    assert metadata.topics() == {"orders": entry}
    with Metadata(data) as other:
        assert other.topics() == {"orders": entry}
        assert other.sequence == metadata.sequence


def test_sequence_grows_with_every_change_by_anybody(data, metadata):
    with Metadata(data) as other:
        seen = [metadata.sequence]
        for change in (
            lambda: metadata.create_topic("a"),
            lambda: other.create_topic("b"),
            lambda: other.add_partitions("a", 2),
            lambda: metadata.alter_configs("b", {"segment.ms": 7}),
            lambda: other.delete_topic("a"),
        ):
            change()
            seen.append(metadata.sequence)
            assert other.sequence == seen[-1]

    # A deletion is two changes: the topic goes, and then what is left of it.
    assert [number - seen[0] for number in seen] == [0, 1, 2, 3, 4, 6]


def test_what_changes_nothing_leaves_the_sequence(metadata):
    metadata.create_topic("a", 1, {"segment.ms": 7})
    before = metadata.sequence

    metadata.alter_configs("a", {})
    metadata.alter_configs("a", {"segment.ms": "7", "retention.ms": None})
    for call in (
        lambda: metadata.create_topic("a"), lambda: metadata.delete_topic("b"),
        lambda: metadata.add_partitions("a", 1),
    ):
        with pytest.raises(pylog.TopicError):
            call()

    assert metadata.sequence == before


def test_configs_are_set_and_go_back_to_their_defaults(metadata):
    metadata.create_topic("a", 1, {"segment.ms": 7, "retention.ms": 8})

    entry = metadata.alter_configs("a", {"segment.ms": None, "retention.bytes": 9})

    assert entry.configs == {"retention.ms": "8", "retention.bytes": "9"}
    assert metadata.topics()["a"] == entry


def test_deleted_topic_may_come_again_as_another(metadata):
    first = metadata.create_topic("a", 2)

    assert metadata.delete_topic("a") == first
    assert metadata.topics() == {}
    assert metadata.create_topic("a").topic_id != first.topic_id


def test_partitions_are_added_and_never_removed(metadata):
    entry = metadata.create_topic("a", 2)

    assert metadata.add_partitions("a", 5).topic_id == entry.topic_id
    for total in (1, 4, 5):
        with pytest.raises(pylog.InvalidPartitionsError, match="ask for 6 or more") as caught:
            metadata.add_partitions("a", total)
        assert (caught.value.partitions, caught.value.present) == (total, 5)
    assert metadata.topics()["a"].partitions == 5


@pytest.mark.parametrize(("error", "match", "call"), [
    (pylog.TopicAlreadyExistsError, "with 2 partition", lambda m: m.create_topic("orders")),
    (pylog.InvalidTopicError, "metrics", lambda m: m.create_topic("eu_orders")),
    (pylog.InvalidTopicError, "in it", lambda m: m.create_topic("or ders")),
    (pylog.InvalidPartitionsError, "use 1 to", lambda m: m.create_topic("new", 0)),
    (pylog.InvalidConfigError, "did you mean", lambda m: m.create_topic("new", 1, {"segment": 1})),
    (pylog.NotSupportedError, "compact",
     lambda m: m.create_topic("new", 1, {"cleanup.policy": "compact"})),
    (pylog.UnknownTopicOrPartitionError, "mean 'orders'", lambda m: m.delete_topic("oders")),
    (pylog.UnknownTopicOrPartitionError, "create it", lambda m: m.add_partitions("xyz", 3)),
    (pylog.UnknownTopicOrPartitionError, "create it", lambda m: m.alter_configs("xyz", {})),
    (pylog.InvalidConfigError, "retention.ms=-7",
     lambda m: m.alter_configs("orders", {"retention.ms": -7, "segment.ms": 1})),
    (pylog.InvalidConfigError, "no topic config", lambda m: m.alter_configs("orders", {"x": None})),
    (TypeError, "must be a str", lambda m: m.delete_topic(7)),
    (TypeError, "must be an int", lambda m: m.create_topic("new", "3")),
    (TypeError, "cannot be pickled", pickle.dumps),
])
def test_refused_call_changes_nothing(metadata, error, match, call):
    metadata.create_topic("orders", 2)
    metadata.create_topic("eu.orders")
    before = metadata.topics(), metadata.sequence

    with pytest.raises(error, match=match):
        call(metadata)

    assert (metadata.topics(), metadata.sequence) == before


def test_unknown_topic_is_a_key_error(metadata):
    with pytest.raises(KeyError) as caught:
        metadata.delete_topic("orders")

    assert caught.value.topic == "orders"


def test_closed_store_says_so(metadata):
    metadata.close()
    metadata.close()

    for call in (
        metadata.topics, lambda: metadata.sequence, lambda: metadata.create_topic("a"),
        lambda: metadata.delete_topic("a"),
    ):
        with pytest.raises(pylog.ClosedError):
            call()


def test_files_are_for_their_owner_alone(data, metadata):
    metadata.create_topic("a")

    assert stat.S_IMODE(data.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in data.iterdir()} == {0o600}
    assert (data / "metadata.db-wal").exists()


def test_last_one_to_close_leaves_one_file_and_the_lock(data, metadata):
    metadata.create_topic("a")
    metadata.close()

    assert sorted(path.name for path in data.iterdir()) == ["metadata.db", "metadata.lock"]


# ---- locks ---------------------------------------------------------------------------------------

def test_stopped_writer_is_named_when_the_wait_is_over(data, metadata):
    metadata.create_topic("a")
    pid = os.fork()
    if pid == 0:
        try:
            with file_lock(data / "metadata.lock", 10_000):
                os.kill(os.getpid(), signal.SIGSTOP)
        finally:
            os._exit(0)
    os.waitpid(pid, os.WUNTRACED)

    with Metadata(data, lock_timeout_ms=30) as other:
        with pytest.raises(pylog.PylogTimeoutError, match=f"process {pid} ") as caught:
            other.delete_topic("a")
        assert (caught.value.holder_pid, caught.value.timeout_ms) == (pid, 30)
        assert list(other.topics()) == ["a"]    # who reads waits for nobody
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        other.delete_topic("a")


def test_signal_handlers_run_while_a_change_waits(data, metadata):
    class Rung(Exception):    # and no OSError, which the store might take for one of its own
        pass

    def interrupt(*unused):
        raise Rung

    with open(data / "metadata.lock", "r+b") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        before = signal.signal(signal.SIGALRM, interrupt)
        try:
            with pytest.raises(Rung):
                signal.setitimer(signal.ITIMER_REAL, 0.05)
                metadata.create_topic("a")
        finally:
            signal.signal(signal.SIGALRM, before)

    metadata.create_topic("a")


def test_removed_lock_file_is_made_anew(data, metadata):
    (data / "metadata.lock").unlink()

    metadata.create_topic("a")

    assert (data / "metadata.lock").exists()


def test_error_in_the_middle_undoes_the_change(metadata):
    before = metadata.topics(), metadata.sequence

    with pytest.raises(ZeroDivisionError), metadata._changing() as change:
        change.swap(None, store.TopicEntry("a", uuid.uuid4(), 1, 0, {}))
        raise ZeroDivisionError

    assert (metadata.topics(), metadata.sequence) == before
    metadata.create_topic("a")


# ---- threads and forks ---------------------------------------------------------------------------

def test_threads_share_one_store(metadata):
    start = metadata.sequence

    def work(number):
        for i in range(10):
            metadata.create_topic(f"t-{number}-{i}")
            metadata.topics()

    run_in_threads(work, 4)

    assert len(metadata.topics()) == 40
    assert metadata.sequence == start + 40


def test_child_must_open_its_own(data, metadata):
    metadata.create_topic("a")

    error = in_child(lambda: metadata.create_topic("b"))
    assert isinstance(error, pylog.IllegalStateError)
    assert "open it again" in str(error)
    assert isinstance(in_child(lambda: metadata.sequence), pylog.IllegalStateError)
    assert in_child(metadata.close) is None
    assert list(metadata.topics()) == ["a"]


def test_child_that_opens_its_own_holds_locks_of_its_own(data, metadata):
    """SQLite would count the parent's lock as the child's, and the parent's close drop the WAL."""
    metadata.create_topic("a")
    source, target = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.close(target)
            own = Metadata(data)
            own.create_topic("b")
            os.read(source, 1)      # the parent has closed, and is the last but one
            assert (data / "metadata.db-wal").exists()
            own.create_topic("c")
            own.close()
            status = 0
        finally:
            os._exit(status)
    os.close(source)
    while "b" not in metadata.topics():
        time.sleep(0.001)
    metadata.close()
    os.close(target)

    assert os.waitpid(pid, 0)[1] == 0
    with Metadata(data) as again:
        assert list(again.topics()) == ["a", "b", "c"]


def test_fork_while_threads_change_harms_neither(data, metadata):
    stop = threading.Event()
    made = []

    def work():
        while not stop.is_set() and len(made) < 500:
            made.append(metadata.create_topic(f"t-{len(made)}").name)

    def child(number):
        with Metadata(data) as own:
            own.create_topic(f"child-{number}")
            return len(own.topics())

    thread = threading.Thread(target=work)
    thread.start()
    try:
        counts = [in_child(lambda number=number: child(number)) for number in range(8)]
    finally:
        stop.set()
        thread.join()

    assert all(isinstance(count, int) for count in counts), counts
    assert set(metadata.topics()) == {*made, *(f"child-{number}" for number in range(8))}


# ---- many processes, against a model -------------------------------------------------------------

@pytest.mark.slow
def test_many_processes_change_it_as_one_after_another(data, metadata, seed):
    start, count, rounds = metadata.sequence, 4, 60
    children = [Worker(data, number, rounds, seed) for number in range(count)]

    watched = [start]
    while any(child.is_alive() for child in children):
        watched.append(metadata.sequence)
        metadata.topics()       # each reads the digest: all of a change is there, or nothing
    for child in children:
        child.join()
    events = [event for child in children for event in child.events]

    assert not [event for event in events if event[0] == "failed"]
    assert watched == sorted(watched)
    done = [event for event in events if event[0] != "refused"]
    steps = len(done) + sum(verb == "delete" for verb, *_ in done)    # the name, then the logs
    assert metadata.sequence == start + steps
    assert_explained_by(done, metadata.topics())


def assert_explained_by(done, topics):
    """done: (verb, entry as it was returned, worker), each worker's in its order."""
    created = {entry.topic_id: entry for verb, entry, _ in done if verb == "create"}
    deleted = {entry.topic_id: entry for verb, entry, _ in done if verb == "delete"}
    assert len(created) == sum(verb == "create" for verb, _, _ in done)
    assert len(deleted) == sum(verb == "delete" for verb, _, _ in done)
    assert {entry.topic_id for entry in topics.values()} == created.keys() - deleted.keys()
    finals = deleted | {entry.topic_id: entry for entry in topics.values()}
    for topic_id, first in created.items():
        totals = [e.partitions for verb, e, _ in done if verb == "add" and e.topic_id == topic_id]
        assert len(set(totals)) == len(totals)      # no total was given twice
        assert finals[topic_id].partitions == max([first.partitions, *totals])
        last = {worker: entry.configs["retention.ms"] for verb, entry, worker in done
                if verb == "alter" and entry.topic_id == topic_id}
        assert finals[topic_id].configs.get("retention.ms") in (set(last.values()) or {None})


def random_change(metadata, rng, unique):
    name = rng.choice(NAMES)
    verb = rng.choice(["create", "create", "delete", "add", "alter"])
    call = {
        "create": lambda: metadata.create_topic(name, rng.randint(1, 3)),
        "delete": lambda: metadata.delete_topic(name),
        "add": lambda: metadata.add_partitions(name, rng.randint(2, 1000)),
        "alter": lambda: metadata.alter_configs(name, {"retention.ms": unique}),
    }[verb]
    try:
        return verb, call()
    except pylog.TopicError as error:
        return "refused", type(error).__name__


class Worker(threading.Thread):
    """A child process that changes the store at random, and what it did."""

    def __init__(self, data, number, rounds, seed):
        super().__init__()
        self.events = [("failed", "before it began", number)]
        self._work = lambda: self.work(data, number, rounds, random.Random(seed + number))
        self.start()

    def run(self):
        result = in_child(self._work)
        self.events = result if isinstance(result, list) else [("failed", result, None)]

    @staticmethod
    def work(data, number, rounds, rng):
        with Metadata(data) as own:
            return [(*random_change(own, rng, number * 10_000 + i), number) for i in range(rounds)]


def run_in_threads(work, count):
    failures = []

    def guarded(number):
        try:
            work(number)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_schema_is_what_the_constants_say(data, metadata):
    metadata.create_topic("a")

    with sqlite3.connect(data / "metadata.db") as connection:
        assert connection.execute("PRAGMA application_id").fetchone() == (store.APPLICATION_ID,)
        assert connection.execute("PRAGMA user_version").fetchone() == (store.SCHEMA_VERSION,)
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()
