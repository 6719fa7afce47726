"""Topics that are deleted: by whom, under whom, and with a kill in between."""

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest
from chances import assert_once_below
from children import in_child, killed

import pylog
from pylog import _native, deletion
from pylog import metadata as metadata_module
from pylog.broker import Broker

GONE = pylog.UnknownTopicOrPartitionError


@pytest.fixture
def broker(log_path):
    with Broker(log_path) as broker:
        yield broker


def partition_files(broker):
    return sorted(path.name for path in broker.path.iterdir() if path.is_dir())


def is_told(call):
    with pytest.raises(GONE, match="'orders' was deleted") as told:
        call()
    assert (told.value.topic, told.value.partition) == ("orders", 0)


def delete_elsewhere(broker, name="orders"):
    def act():
        with Broker(broker.path) as other:
            other.delete_topic(name)
        return True

    assert in_child(act) is True


def test_deleted_topic_is_gone_with_all_its_files(broker):
    broker.create_topic("orders", 3)
    for partition in range(3):
        broker.append("orders", b"value", partition=partition)

    assert broker.delete_topic("orders").partitions == 3

    assert broker.topics() == {}
    assert partition_files(broker) == []


@pytest.mark.parametrize("call", [
    lambda log, cursor: log.append(b"x"),
    lambda log, cursor: log.append_many([b"x"]),
    lambda log, cursor: log.get(0),
    lambda log, cursor: log.fetch(0),
    lambda log, cursor: log.flush(),
    lambda log, cursor: log.wait(99, 30),
    lambda log, cursor: log.delete_before(1),
    lambda log, cursor: log.end_offset,
    lambda log, cursor: log.stats(),
    lambda log, cursor: list(log.batches(0)),
    lambda log, cursor: cursor.fetch(),
    lambda log, cursor: next(cursor),
    lambda log, cursor: _native.Waiter([log]).wait([99], 30),
])
def test_whoever_has_it_open_is_told_its_name(broker, call):
    broker.append("orders", b"value")
    log = broker.log("orders")
    cursor = log.cursor()

    delete_elsewhere(broker)

    assert log.closed
    is_told(lambda: call(log, cursor))


def test_reader_without_the_right_to_write_is_told(broker):
    broker.append("orders", b"value")
    with pylog.Log(broker.path / "orders-0", mode="r") as reader:
        delete_elsewhere(broker)

        is_told(lambda: reader.get(0))
        is_told(lambda: reader.wait(99, 30))


@pytest.mark.parametrize("sleep", [
    lambda log: log.wait(99),
    lambda log: next(log.read("latest", follow=True)),
    lambda log: _native.Waiter([log]).wait([99]),
])
def test_sleeper_is_woken_and_told(broker, sleep):
    def seconds(_):
        broker.append("orders", b"value")
        log, found = broker.log("orders"), []

        def fall_asleep():
            try:
                sleep(log)
            except GONE as error:
                found.append((error.topic, time.monotonic()))

        thread = threading.Thread(target=fall_asleep)
        thread.start()
        time.sleep(1.2)     # past the first, short slices of the wait
        started = time.monotonic()
        delete_elsewhere(broker)
        thread.join(60)

        assert [topic for topic, _ in found] == ["orders"]
        return found[0][1] - started

    assert_once_below(1, seconds)


def test_follower_of_a_topic_is_told(broker):
    broker.create_topic("orders", 4)
    reading = broker.read("orders", follow=True)
    broker.append("orders", b"value")
    assert next(reading).value == b"value"
    delete_elsewhere(broker)

    with pytest.raises(GONE):
        next(reading)


def test_records_and_views_in_hand_stay_valid(broker):
    for n in range(100):
        broker.append("orders", b"%d" % n * 100)
    records, cursor = list(broker.log("orders").read()), broker.log("orders").cursor()
    view = memoryview(records[7].value_view)
    next(cursor)

    delete_elsewhere(broker)
    broker.append("orders", b"of the next")

    assert [record.value for record in records] == [b"%d" % n * 100 for n in range(100)]
    assert bytes(view) == b"7" * 100


def test_topic_made_anew_is_another(broker):
    first = broker.create_topic("orders", 2)
    broker.append("orders", b"old", partition=1)
    delete_elsewhere(broker)

    second = broker.create_topic("orders", 1)
    broker.append("orders", b"new")

    assert second.topic_id != first.topic_id
    assert [record.value for record in broker.read("orders")] == [b"new"]
    with pytest.raises(GONE, match="no 1"):
        broker.log("orders", 1)


def test_appender_that_slept_through_a_deletion_makes_no_directory(log_path):
    with Broker(log_path, auto_create_topics=False) as broker:
        entry = broker.create_topic("orders", 2)
        broker.append("orders", b"x", partition=0)
        delete_elsewhere(broker)

        with pytest.raises(GONE, match="there is no topic 'orders'"):
            broker.append("orders", b"x", partition=1)
        assert broker._try_to_open(entry, 1) is None
        assert partition_files(broker) == []


def test_partition_of_a_deleted_topic_is_no_partition_of_its_successor(broker):
    entry = broker.create_topic("orders", 2)
    broker.delete_topic("orders")
    broker.create_topic("orders", 2)

    assert broker._try_to_open(entry, 1) is None
    assert partition_files(broker) == []


@pytest.mark.parametrize("name", ["orders/", "orders", "", "."])
def test_what_is_no_topic_cannot_be_deleted(broker, name):
    broker.create_topic("payments")

    with pytest.raises(pylog.TopicError):
        broker.delete_topic(name)

    assert list(broker.topics()) == ["payments"]


def test_longest_name_can_be_deleted(broker):
    name = "a" * 249
    broker.create_topic(name, 2)
    broker.append(name, b"x", partition=0)
    broker.append(name, b"x", partition=1)

    broker.delete_topic(name)

    assert partition_files(broker) == []


def test_damaged_log_can_be_deleted(broker):
    broker.append("orders", b"x")
    broker.log("orders").close()
    for name in ("log.meta", "control"):
        (broker.path / "orders-0" / name).write_bytes(b"damage")

    broker.delete_topic("orders")

    assert partition_files(broker) == []


def test_user_who_has_it_open_by_a_link_is_told_its_name(broker):
    broker.append("orders", b"value")
    (broker.path / "link").symlink_to("orders-0")
    with pylog.Log(broker.path / "link") as user:
        delete_elsewhere(broker)

        is_told(lambda: user.append(b"lost"))


def test_log_that_is_no_partition_is_deleted_like_any(log_path, tmp_path):
    with pylog.Log(log_path) as user:
        _native.delete_log(os.fsencode(log_path), os.fsencode(tmp_path / "aside"), 1000)

        with pytest.raises(GONE, match="the log 'log' was deleted") as told:
            user.append(b"lost")
    assert (told.value.topic, told.value.partition) == (None, None)


def seem_of_another_namespace(page):
    with open(page, "r+b") as file:
        file.seek(56)
        file.write(bytes(8))


def test_log_of_processes_that_are_gone_can_be_deleted_from_another_pid_namespace(log_path):
    """A container that was killed: nobody is there to be told."""
    def write():
        log = pylog.Log(log_path / "orders-0")
        log.append(b"value")
        return log

    Broker(log_path).close()
    killed(write)
    seem_of_another_namespace(log_path / "orders-0" / "control")

    _native.delete_log(os.fsencode(log_path / "orders-0"), os.fsencode(log_path / "aside"), 1000)

    assert not (log_path / "orders-0").exists()


def test_log_in_use_in_another_pid_namespace_is_left_alone(broker):
    log = broker.log("orders")
    seem_of_another_namespace(log.path / "control")

    with pytest.raises(pylog.UnsupportedEnvironmentError, match="delete it from there"):
        _native.delete_log(os.fsencode(log.path), os.fsencode(broker.path / "aside"), 1000)

    assert log.append(b"value") == 0


@pytest.mark.parametrize("bit", range(32))
def test_flipped_bit_of_the_state_of_a_tidy_log_deletes_it_for_no_reader(log_path, bit):
    with pylog.Log(log_path) as log:
        log.append(b"value")
    control = bytearray((log_path / "control").read_bytes())
    control[128 + bit // 8] ^= 1 << bit % 8
    (log_path / "control").write_bytes(control)

    with pylog.Log(log_path, mode="r") as reader:
        assert [record.value for record in reader.read()] == [b"value"]


# ---- kills --------------------------------------------------------------------------------------

STEPS = ["before", "between partitions", "all renamed", "before the files go"]


def die_at(step, monkeypatch):
    """The deletion of three partitions dies there."""
    real, count = _native.delete_log, []

    def die(*arguments):
        os.kill(os.getpid(), signal.SIGKILL)

    def counted(*arguments):
        count.append(1)
        if step == "between partitions" and len(count) == 2:
            die()
        real(*arguments)
        if step == "all renamed" and len(count) == 3:
            die()

    monkeypatch.setattr(_native, "delete_log", counted)
    if step == "before":
        monkeypatch.setattr(metadata_module, "set_aside", die)
    if step == "before the files go":
        monkeypatch.setattr(metadata_module, "remove_set_aside", die)


@pytest.mark.parametrize("finisher", ["opener", "creator"])
@pytest.mark.parametrize("step", STEPS)
def test_deletion_that_was_killed_is_finished_by_the_next(log_path, step, finisher):
    with Broker(log_path) as survivor:
        survivor.create_topic("orders", 3)
        for partition in range(3):
            survivor.append("orders", b"old", partition=partition)

        def act():
            with pytest.MonkeyPatch.context() as monkeypatch:
                other = Broker(log_path)
                die_at(step, monkeypatch)
                other.delete_topic("orders")

        killed(act)
        assert survivor.topics() == {}

        if finisher == "opener":
            Broker(log_path).close()
            assert partition_files(survivor) == []
        survivor.create_topic("orders", 3)
        assert [list(survivor.log("orders", n).read()) for n in range(3)] == [[], [], []]


def test_topic_deleted_while_its_next_maker_waits_for_the_store(log_path, monkeypatch):
    """The one that deletes has let go of the store, and not taken the logs from their names yet."""
    with Broker(log_path) as broker:
        broker.append("orders", b"old")
        lock = metadata_module.file_lock

        def delete():
            with pytest.MonkeyPatch.context() as patch:
                other = Broker(log_path)
                die_at("before", patch)
                other.delete_topic("orders")

        def after_deletion(*given):
            monkeypatch.setattr(metadata_module, "file_lock", lock)
            killed(delete)
            return lock(*given)

        monkeypatch.setattr(metadata_module, "file_lock", after_deletion)
        broker.create_topic("orders")
        assert list(broker.read("orders")) == []
        broker.append("orders", b"new")
        with Broker(log_path) as late:    # who opens finishes what is left
            assert [record.value for record in late.read("orders")] == [b"new"]
            late.delete_topic("orders")


LOOKS = {
    "maintain": lambda broker, target: broker.maintain(10**15),
    "alter": lambda broker, target: broker.alter_configs("orders", {"retention.ms": 1}),
    "describe": lambda broker, target: pylog.Admin(broker).describe_topics(),
    "verify": lambda broker, target: pylog.Admin(broker).verify(),
    "delete": lambda broker, target: pylog.Admin(broker).delete_records({("orders", 0): -1}),
    "backup": lambda broker, target: pylog.Admin(broker).backup(target),
}


@pytest.mark.parametrize("look", LOOKS)
def test_topic_deleted_behind_a_look_at_it_is_not_made_by_who_looked(log_path, tmp_path,
                                                                     monkeypatch, look):
    with Broker(log_path) as other, Broker(log_path) as broker:
        other.append("orders", b"old")
        open_log = broker._open_log

        def open_late(*given):
            if "orders" in other.topics():
                other.delete_topic("orders")
            return open_log(*given)

        monkeypatch.setattr(broker, "_open_log", open_late)
        with contextlib.suppress(GONE):
            LOOKS[look](broker, tmp_path / "copy")

        assert broker.topics() == {}


def test_rebuilt_store_forgets_what_is_set_aside(log_path):
    with Broker(log_path) as broker:
        entry = broker.create_topic("orders", 1)
        broker.append("orders", b"old")
        deletion.set_aside(log_path, "orders", 1, entry.topic_id, 1000)
    with metadata_module.Metadata.rebuild(log_path) as store:
        assert store.topics() == {}


def test_stopped_writer_keeps_its_directory_and_is_named(broker):
    """It may be inside; what it does by name must not meet the next topic's files."""
    broker.append("orders", b"value")
    broker.log("orders").close()
    holder = subprocess.Popen(
        [sys.executable, "-c", "import fcntl, sys, time\n"
         "file = open(sys.argv[1], 'r+'); fcntl.flock(file, fcntl.LOCK_EX)\n"
         "print('held', flush=True); time.sleep(60)", broker.path / "orders-0" / "lock"],
        stdout=subprocess.PIPE)
    try:
        holder.stdout.readline()
        with metadata_module.Metadata(broker.path, lock_timeout_ms=300) as impatient:
            with pytest.raises(pylog.PylogTimeoutError, match="delete again"):
                impatient.delete_topic("orders")
            assert impatient.topics() == {}
            with pytest.raises(pylog.PylogTimeoutError):
                impatient.create_topic("orders")
            assert partition_files(broker) == ["orders-0"]
    finally:
        holder.kill()
        holder.wait()
    broker.create_topic("orders")
    assert list(broker.read("orders")) == []


WORKER = """
import random, sys, pylog
from pylog.broker import Broker
path, seed = sys.argv[1:]
rng = random.Random(int(seed))
gone = (pylog.UnknownTopicOrPartitionError, pylog.TopicAlreadyExistsError)
broker = Broker(path, auto_create_topics=False)
while True:
    name = f"topic-{rng.randrange(2)}"
    try:
        draw = rng.random()
        if draw < 0.1:
            broker.create_topic(name, 2)
        elif draw < 0.2:
            broker.delete_topic(name)
        elif draw < 0.6:
            for _ in range(50):
                broker.append(name, b"of " + name.encode())
        else:
            for record in broker.read(name):
                assert record.value == b"of " + name.encode(), record.value
    except gone:
        pass
"""


def churn(path, rng, seconds):
    """Workers that create, delete, append and read; each is killed after a while, six at least."""
    workers, kills = [], 0
    end = time.monotonic() + seconds
    try:
        while time.monotonic() < end or kills < 6:
            while len(workers) < 3:
                workers.append(subprocess.Popen(
                    [sys.executable, "-c", WORKER, path, str(rng.randrange(1 << 30))],
                    stderr=subprocess.PIPE))
            time.sleep(rng.uniform(0.2, 0.6))
            victim = workers.pop(rng.randrange(3))
            assert victim.poll() is None, victim.stderr.read().decode()
            victim.kill()
            victim.wait()
            kills += 1
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()


@pytest.mark.slow
def test_churn_of_topics_with_kills_ends_in_what_the_store_says(log_path, seed):
    Broker(log_path).close()
    churn(log_path, random.Random(seed), 8)

    with Broker(log_path) as broker:
        entries = broker.topics()
        allowed = {f"{name}-{n}" for name, entry in entries.items()
                   for n in range(entry.partitions)}
        assert set(partition_files(broker)) <= allowed
        for name, entry in entries.items():
            for n in range(entry.partitions):
                values = {record.value for record in broker.log(name, n).read()}
                assert values <= {b"of " + name.encode()}
                assert broker.log(name, n).check().ok
        for name in list(entries):
            broker.delete_topic(name)
        assert partition_files(broker) == []
    shutil.rmtree(log_path)
