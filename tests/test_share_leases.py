"""The leases of a share group: a full ring, other processes, waiting, and what a reboot leaves."""

import asyncio
import os
import re
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from chances import assert_once_below
from children import in_child, killed
from drivers import built
from sharing import AT, fill, taken, workers
from tables import eventually

import pylog
from pylog import _native
from pylog.share import kept_offset, share_groups
from pylog.testing import broker as broker

# ---- the ring ------------------------------------------------------------------------------------

def send_full(broker, more=100):
    with pylog.Producer(broker) as producer:
        producer.send_many("jobs", [b"%d" % n for n in range(_native.LEASES + more)])


@pytest.mark.slow
def test_a_stuck_record_holds_no_others_until_the_ring_is_full(broker):
    send_full(broker)
    with workers(broker) as consumer:
        stuck = consumer.take(0)
        count = 0
        while one := consumer.poll(0, 512):
            for delivery in one:
                delivery.ack()
            count += len(one)
        assert count == _native.LEASES - 1
        assert consumer.take(0.05) is None
        waiter = threading.Timer(0.1, stuck.ack)
        waiter.start()
        assert int(consumer.take(5).value) == _native.LEASES
        waiter.join()


@pytest.mark.slow
def test_a_delayed_record_that_fills_the_ring_is_displaced(broker):
    send_full(broker)
    displaced = []
    with workers(broker, on_displaced=lambda one, due_ms: displaced.append(
            (one.value, one.delivery_count, due_ms))) as consumer:
        consumer.take(0).release(delay=1000)
        count = 0
        while one := consumer.poll(0, 512):
            for delivery in one:
                delivery.ack()
            count += len(one)
        assert count == _native.LEASES + 99
        ((value, deliveries, due_ms),) = displaced
        assert (value, deliveries) == (b"0", 1)
        assert 900_000 < due_ms - time.time() * 1000 <= 1_000_000


@pytest.mark.slow
def test_the_ring_goes_round_many_times(broker):
    with pylog.Producer(broker) as producer, workers(broker) as consumer:
        for turn in range(4):
            producer.send_many("jobs", [b"%d" % n for n in range(50_000)])
            expected = 0
            while deliveries := consumer.poll(0, 512):
                for one in deliveries:
                    assert int(one.value) == expected
                    expected += 1
                    one.ack()
            assert expected == 50_000, turn
        assert consumer.stats()[AT]["start"] == 200_000


# ---- other processes -----------------------------------------------------------------------------

def test_what_a_killed_process_held_is_taken_at_once(broker):
    fill(broker, 5)

    def hold():
        consumer = workers(pylog.Broker(broker.path))
        return consumer, consumer.poll(0, 3)

    killed(hold)
    with workers(broker) as consumer:
        deliveries = consumer.poll(5000)    # a lease is for 30 s
        assert [(int(d.value), d.delivery_count) for d in deliveries] == [
            (0, 2), (1, 2), (2, 2), (3, 1), (4, 1)]
        assert consumer.stats()[AT]["orphaned"] == 3


def take_over(broker, ready):
    """Seconds until this process has what another held, from its death on."""
    pid = os.fork()
    if pid == 0:
        try:
            consumer = workers(pylog.Broker(broker.path))
            held = consumer.take(0)
            ready.touch()
            signal.pause()
            del held
        finally:
            os._exit(1)
    while not ready.exists():
        time.sleep(0.005)
    with workers(broker) as consumer:
        killed_at = []

        def kill():
            killed_at.append(time.monotonic())
            os.kill(pid, signal.SIGKILL)

        timer = threading.Timer(0.3, kill)
        timer.start()
        delivery = consumer.take(10)
        took = time.monotonic() - killed_at[0]
        assert delivery.delivery_count == 2
        delivery.ack()
        os.waitpid(pid, 0)
    return took


def test_who_waits_hears_of_a_death_within_200_ms(broker):
    def seconds(number):
        fill(broker, 1)
        return take_over(broker, broker.path / f"ready-{number}")

    assert_once_below(0.2, seconds)


def accept_late(steal):
    def accepts(delivery):
        steal()
        delivery.ack()
    return {"accepts": accepts}


def deserialize_late(steal):
    def deserialize(value):
        steal()
        raise ValueError
    return {"value_deserializer": deserialize}


def give_up_late(steal):
    return {"max_deliveries": 1, "on_reject": lambda delivery, reason: steal()}


@pytest.mark.parametrize("late", [accept_late, deserialize_late, give_up_late])
def test_what_another_got_before_it_was_settled_for_us_is_no_error_of_a_take(broker, late):
    """It was stopped for longer than its lock between the two, as it seems."""
    broker.append("jobs", b"0", headers=[("for", b"somebody else")])
    stolen = []
    with workers(broker) as other:
        def steal():
            time.sleep(0.05)
            stolen.append(other.take(30))

        with workers(broker, lock_ms=20, **late(steal)) as consumer:
            if late is give_up_late:
                other.take(0).release()
            assert consumer.take(0) is None
            assert consumer.take(0) is None
        assert [one.held for one in stolen] == [True]


@pytest.mark.parametrize(("raised", "seen"), [
    (KeyboardInterrupt, KeyboardInterrupt), (SystemExit, SystemExit),
    (asyncio.CancelledError, asyncio.CancelledError),
    (ValueError, pylog.InvalidRecordStateError),    # a failure is told to be nobody's any more
])
def test_what_ends_a_thread_ends_it_though_another_has_its_delivery(broker, raised, seen):
    fill(broker, 1)
    with workers(broker) as other, workers(broker, lock_ms=20) as consumer:
        delivery = consumer.take(0)
        time.sleep(0.05)
        stolen = other.take(30)
        with pytest.raises(seen, match=None if seen is raised else "is over"):
            with delivery:
                raise raised
        assert stolen.held


def test_a_poll_does_not_ask_for_what_is_over(broker):
    fill(broker, 2)
    with workers(broker) as other, workers(broker, lock_ms=20) as consumer:
        late, = consumer.poll(0, 1)
        time.sleep(0.05)
        stolen = other.take(30)
        with pytest.raises(pylog.InvalidRecordStateError, match="is over"):
            late.ack()
        stolen.ack()
        after, = consumer.poll(5000)
        assert after.value == b"1"


def test_settling_twice_within_a_take_is_told(broker):
    broker.append("jobs", b"0", headers=[("a", b"b")])
    with workers(broker, accepts=lambda one: (one.ack(), one.ack())) as consumer:
        with pytest.raises(pylog.InvalidRecordStateError, match="settle each once"):
            consumer.take(0)


def test_an_error_of_somebody_who_looks_at_headers_is_raised(broker):
    broker.append("jobs", b"0", headers=[("a", b"b")])

    def accepts(delivery):
        raise pylog.InvalidRecordStateError("of another delivery")

    with workers(broker, accepts=accepts) as consumer:
        with pytest.raises(pylog.InvalidRecordStateError, match="of another"):
            consumer.take(0)


def test_one_that_is_closed_gives_its_leases_up(broker):
    fill(broker, 1)

    def leave_held():
        consumer = workers(pylog.Broker(broker.path))
        held = consumer.take(0)
        consumer._broker.close()
        return held is not None

    assert in_child(leave_held)
    with workers(broker) as consumer:
        assert consumer.take(1).delivery_count == 2


def test_a_fork_inherits_nothing(broker):
    fill(broker, 2)
    with workers(broker) as consumer:
        held = consumer.take(0)

        def use():
            with pytest.raises(pylog.IllegalStateError, match="before fork"):
                consumer.take(0)
            with pytest.raises(pylog.IllegalStateError, match="before fork"):
                held.ack()
            return True

        assert in_child(use)
        assert held.held
        held.ack()


def test_an_idle_consumer_is_woken_by_an_append(broker):
    broker.create_topic("jobs")
    with workers(broker) as consumer:
        timer = threading.Timer(0.2, fill, (broker, 1))
        timer.start()
        assert consumer.take(10).value == b"0"
        timer.join()


def test_of_many_idle_threads_each_gets_one(broker):
    broker.create_topic("jobs")
    found = []
    with workers(broker) as consumer:
        def work():
            with consumer.take(10) as delivery:
                found.append(int(delivery.value))
                time.sleep(0.05)

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        time.sleep(0.1)
        fill(broker, 8)
        for thread in threads:
            thread.join()
    assert sorted(found) == list(range(8))


def test_wakeup_and_close_end_a_wait(broker):
    broker.create_topic("jobs")
    for end, error in ((lambda one: one.wakeup(), pylog.WakeupError),
                       (lambda one: one.close(), pylog.ClosedError)):
        consumer = workers(broker)
        timer = threading.Timer(0.1, end, (consumer,))
        timer.start()
        start = time.monotonic()
        with pytest.raises(error):
            consumer.take(10)
        assert time.monotonic() - start < 9
        timer.join()
        consumer.close()


def test_a_topic_that_is_deleted_ends_its_workers(broker):
    fill(broker, 1)
    consumer = workers(broker)
    held = consumer.take(0)
    timer = threading.Timer(0.1, pylog.Admin(broker).delete_topics, (["jobs"],))
    timer.start()
    with pytest.raises(pylog.UnknownTopicOrPartitionError):
        consumer.take(10)
    timer.join()
    with pytest.raises(pylog.UnknownTopicOrPartitionError):
        held.ack()
    consumer.close()
    fill(broker, 2)
    with workers(broker) as consumer:    # made anew: nothing is known of it
        assert taken(consumer) == [0, 1]


def test_topic_made_anew_behind_its_deletion_keeps_what_its_workers_have(broker, monkeypatch):
    """The one who deleted it has not come back from that, and others take of the new one."""
    fill(broker, 1)
    workers(broker).close()
    with pylog.Broker(broker.path) as other:
        delete, early = broker.metadata.delete_topic, []

        def delete_and_wait(name):
            entry = delete(name)
            fill(other, 1)
            early.append(workers(other))
            assert taken(early[0]) == [0]
            return entry

        monkeypatch.setattr(broker.metadata, "delete_topic", delete_and_wait)
        broker.delete_topic("jobs")
        with workers(broker) as late:
            assert taken(late) == []


LATE = """
import sys
import pylog

with pylog.Broker(sys.argv[1]) as broker:
    try:
        consumer = pylog.ShareConsumer(broker, "jobs", group_id="workers")
        consumer.take(0)
    except pylog.UnknownTopicOrPartitionError:
        print("gone", flush=True)
    sys.stdin.readline()
"""


@pytest.mark.parametrize(("name", "done"), [("/shares/workers/jobs-0", 1), (".tmp", 0)])
def test_who_comes_late_for_a_deleted_topic_spares_the_leases_of_the_next_of_its_name(
        broker, tmp_path, name, done):
    """It has the log of the first, and opens the leases when those of the second are there; or
    makes some when there are none yet, and stays."""
    fill(broker, 1)
    broker.processes.join()
    held, begun = tmp_path / "held", tmp_path / "held-begun"
    held.write_text(name)
    environment = {**os.environ, "HELD_OPEN": str(held),
                   "LD_PRELOAD": str(built("build/held_open.so") / "held_open.so")}
    with subprocess.Popen([sys.executable, "-c", LATE, broker.path], env=environment, text=True,
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE) as late:
        eventually(begun.exists)
        broker.delete_topic("jobs")
        fill(broker, 2)
        if done:
            with workers(broker) as consumer:
                consumer.take(0).ack()
        begun.unlink()

        assert late.stdout.readline() == "gone\n"
        with workers(broker) as consumer:
            assert taken(consumer) == [0, 1][done:]


def test_deletion_that_was_killed_forgets_what_workers_had(broker):
    def delete_and_die():
        with pytest.MonkeyPatch.context() as patch, pylog.Broker(broker.path) as other:
            patch.setattr(other.metadata, "finish_deletions", lambda name: os.kill(os.getpid(), 9))
            other.delete_topic("jobs")

    fill(broker, 1)
    workers(broker).close()
    killed(delete_and_die)
    broker.maintain()
    assert share_groups(broker.path) == {}


@pytest.mark.slow
def test_a_kill_at_any_point_of_the_leases_loses_and_repeats_nothing(tmp_path, seed):
    source = Path(__file__).parent.parent / "csrc" / "pl_lease.c"
    points = sorted(set(re.findall(r'PL_POINT\("([a-z-]+)"\)', source.read_text())))
    done = subprocess.run([built("build/leases") / "leases", tmp_path / "leases", "210", str(seed),
                           *points], capture_output=True, text=True, check=False)
    print(f"seed {seed}\n{done.stdout}")
    assert done.returncode == 0, f"seed {seed}: {done.stderr}"
    assert all(f"point {point} " in done.stdout for point in points)


# ---- what is left --------------------------------------------------------------------------------

def test_after_a_reboot_what_was_done_is_done_and_the_rest_comes_again(broker):
    fill(broker, 10)
    with workers(broker) as consumer:
        for one in consumer.poll():
            if int(one.value) in (0, 1, 4, 7):
                one.ack()
            else:
                one.release()
    path = broker.path
    broker.close()
    forget_boot(path / "shares" / "workers" / "jobs-0")
    with pylog.Broker(path) as again, workers(again) as consumer:
        found = {int(one.value): one.delivery_count for one in consumer.poll()}
    assert found == {2: 2, 3: 2, 5: 2, 6: 2, 8: 2, 9: 2}


@pytest.mark.parametrize("options", [{}, {"ordered_by_key": True, "keeps_records": True}], ids=str)
def test_after_a_reboot_a_group_is_as_it_was_made_whoever_opens_it_first(broker, options):
    fill(broker, 4, key=lambda number: b"same")
    workers(broker, **options).close()
    path = broker.path
    broker.close()
    file = path / "shares" / "workers" / "jobs-0"
    forget_boot(file)
    with pylog.Broker(path) as again, workers(again, keeps_records=not options) as consumer:
        assert taken(consumer) == ([0] if options else [0, 1, 2, 3])
        assert (_native.kept_from(file) >= 0) == bool(options)
        with pytest.raises(pylog.ConfigurationError, match="as it was made"):
            workers(again, ordered_by_key=not options)


def test_after_a_reboot_a_torn_page_is_done_again(broker):
    fill(broker, 300)
    with workers(broker) as consumer:
        for one in consumer.poll(0, 300):
            if int(one.value):
                one.ack()
            else:
                one.release()
    path, file = broker.path, broker.path / "shares" / "workers" / "jobs-0"
    broker.close()
    forget_boot(file)
    with file.open("r+b") as torn:
        torn.seek(_native.LEASES_AT + 128 * 32)
        torn.write(bytes(4096))    # 128 leases that never reached the disk
    with pylog.Broker(path) as again, workers(again) as consumer:
        found = sorted(int(one.value) for one in consumer.poll())
    assert found == [0, *range(128, 256)]


def test_a_backup_knows_what_was_done_and_gives_out_the_rest_again(broker, tmp_path):
    fill(broker, 10)
    with workers(broker) as consumer:
        deliveries = consumer.poll()
        for one in deliveries[:4]:
            one.ack()
        pylog.Admin(broker).backup(tmp_path / "copy")
        for one in deliveries[4:]:
            one.ack()
    with pylog.Broker(tmp_path / "copy") as copy, workers(copy) as consumer:
        fill(copy, 1)
        assert taken(consumer) == [*range(4, 10), 0]


def test_a_worker_that_is_stopped_for_too_long_is_refused_when_it_wakes(broker):
    fill(broker, 1)
    answer = broker.path / "answer"

    def hold():
        with workers(pylog.Broker(broker.path), lock_ms=100) as consumer:
            held = consumer.take(0)
            os.kill(os.getpid(), signal.SIGSTOP)
            try:
                held.ack()
            except pylog.InvalidRecordStateError:
                answer.touch()

    pid = os.fork()
    if pid == 0:
        try:
            hold()
        finally:
            os._exit(0)
    os.waitpid(pid, os.WUNTRACED)
    with workers(broker) as consumer:
        other = consumer.take(10)
        assert other.delivery_count == 2
        os.kill(pid, signal.SIGCONT)
        os.waitpid(pid, 0)
        assert answer.exists()
        assert other.held
        other.ack()


@pytest.mark.slow
@pytest.mark.parametrize("durability", ["os", "interval", "fsync"])
def test_what_was_settled_is_synced_each_second_where_durability_is_promised(tmp_path, durability):
    with pylog.Broker(tmp_path / "broker", durability) as broker:
        fill(broker, 2)
        with workers(broker) as consumer:
            for one in consumer.poll():
                one.ack()
            deadline = time.monotonic() + (3 if durability == "os" else 15)
            while consumer._synced != {AT: 2} and time.monotonic() < deadline:
                time.sleep(0.05)
            assert consumer._synced == ({} if durability == "os" else {AT: 2})


@pytest.mark.parametrize("durability", ["os", "interval", "fsync"])
def test_what_was_settled_last_is_synced_at_the_end(tmp_path, durability, monkeypatch):
    with pylog.Broker(tmp_path / "broker", durability) as broker:
        fill(broker, 2)
        monkeypatch.setattr(broker, "sync_groups", lambda: None)    # each second
        with workers(broker) as consumer:
            for one in consumer.poll():
                one.ack()
        assert consumer._synced == ({} if durability == "os" else {AT: 2})


def test_consumers_that_are_closed_and_topics_that_are_deleted_hold_up_no_sync(tmp_path):
    with pylog.Broker(tmp_path / "broker", "interval") as broker:
        fill(broker, 1)
        broker.append("gone", b"1")
        one, other = workers(broker), workers(broker, "jobs", "gone")
        one.close()
        for delivery in other.poll():
            delivery.ack()
        broker.delete_topic("gone")

        broker.sync_groups()
        assert other._synced[AT] == 1


def forget_boot(path):
    with path.open("r+b") as file:
        file.seek(16)
        file.write(b"another boot, yes")


def test_no_lock_is_over_before_its_time(broker):
    """The clock of the leases is up to a kernel tick late."""
    fill(broker, 1)
    options = {"lock_ms": 10, "max_deliveries": 1000}
    with workers(broker, **options) as slow, workers(broker, **options) as other:
        for turn in range(30):
            time.sleep(0.0007 * (turn % 6))
            begun = time.monotonic_ns()
            kept = slow.take(1)
            while (again := other.take(0)) is None:
                pass
            lasted = time.monotonic_ns() - begun
            again.release()

            assert not kept.held
            assert lasted >= 10_000_000


def test_retention_spares_what_a_group_that_keeps_records_has_not_done(broker):
    pylog.Admin(broker).create_topics({"jobs": {"configs": {"retention.ms": 1000,
                                                            "segment.bytes": 4096}}})
    for number in range(200):
        broker.append("jobs", bytes(100), timestamp=1000 + number)
    with workers(broker, keeps_records=True) as consumer:
        for one in consumer.poll(0, 150):
            one.ack()
        assert kept_offset(broker.path, AT) == 150
        assert broker.maintain(10**12)
        assert 0 < broker.log("jobs").start_offset <= 150
    with pylog.ShareConsumer(broker, "jobs", group_id="careless") as consumer:
        assert kept_offset(broker.path, AT) == 150


def test_retention_takes_no_group_for_none_because_it_could_not_look(broker):
    """Where a process has opened all that it may, for a moment."""
    fill(broker, 1)
    workers(broker, keeps_records=True).close()
    file = broker.path / "shares" / "workers" / "jobs-0"
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with open(os.devnull) as free:
        none_left = free.fileno()
    resource.setrlimit(resource.RLIMIT_NOFILE, (none_left, hard))
    try:
        with pytest.raises(OSError, match="open files"):
            kept_offset(broker.path, AT)
        with pytest.raises(pylog.ResourceLimitError):
            _native.kept_from(file)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert kept_offset(broker.path, AT) == 0


def test_the_share_groups_can_be_listed(broker):
    fill(broker, 1)
    workers(broker).close()
    pylog.ShareConsumer(broker, "jobs", group_id="a/b ü").close()
    assert share_groups(broker.path) == {"a/b ü": [AT], "workers": [AT]}
