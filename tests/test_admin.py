"""Admin: topics, partitions, configs, records, copies. Groups are in test_cli_groups.py."""

import contextlib
import os
import shutil
import threading
import time

import pytest
from children import in_child

import pylog
from pylog import backup as backup_module
from pylog.admin import Admin
from pylog.backup import restore
from pylog.broker import Broker
from pylog.cli_topics import check_if_there
from pylog.testing import drain
from pylog.topic import TopicPartition
from pylog.walk import Window


@pytest.fixture
def admin(broker):
    with Admin(broker) as admin:
        yield admin


def fill(broker, count=1000):
    for n in range(count):
        broker.append("orders", b"%d" % n, key=b"%d" % (n % 50))


def by_value(broker):
    return sorted((r.partition, r.offset, r.value) for r in drain(broker, "orders"))


# ---- topics, configs, records -------------------------------------------------------------------

def test_topics_are_made_listed_described_and_removed(admin):
    admin.create_topics({"a": {"num_partitions": 2}, "b": {"configs": {"retention.ms": 7}}})

    assert admin.list_topics() == ["a", "b", "one", "orders"]
    described = admin.describe_topics(["a", "b"])
    assert [len(described[name]["partitions"]) for name in "ab"] == [2, 1]
    assert described["b"]["configs"] == {"retention.ms": "7"}

    admin.delete_topics(["a", "b"])
    assert admin.list_topics() == ["one", "orders"]


def test_description_tells_offsets_and_bytes_of_each_partition(admin, broker):
    broker.append("orders", b"value", partition=1)

    partitions = admin.describe_topics(["orders"])["orders"]["partitions"]

    assert [(p["partition"], p["start_offset"], p["end_offset"]) for p in partitions] == [
        (0, 0, 0), (1, 0, 1), (2, 0, 0)]
    assert partitions[1]["size_bytes"] > 0


def test_configs_are_described_with_their_defaults(admin):
    admin.alter_configs({"orders": {"retention.ms": 5000, "compression.type": "lz4"}})

    described = admin.describe_configs(["orders"])["orders"]

    assert (described["retention.ms"], described["compression.type"]) == (5000, "lz4")
    assert described["segment.bytes"] == 1 << 30


def test_partition_added_by_another_process_is_seen(admin, broker):
    def act():
        with Admin(broker.path) as other:
            other.create_partitions({"orders": 5})
        return True

    assert in_child(act)
    assert broker.append("orders", b"value", partition=4).offset == 0


def test_records_are_deleted_up_to_an_offset_or_all(admin, broker):
    for _ in range(10):
        broker.append("orders", b"value", partition=0)
        broker.append("orders", b"value", partition=1)
    first, second = TopicPartition("orders", 0), TopicPartition("orders", 1)

    assert admin.delete_records({first: 4, second: -1}) == {first: 4, second: 10}

    assert [r.offset for r in broker.read("orders", partition=0)] == list(range(4, 10))
    assert list(broker.read("orders", partition=1)) == []


def test_stats_and_verification_cover_all(admin, broker):
    fill(broker, 100)
    for n in range(3):
        broker.log("orders", n).flush()     # what is open has no CRC yet, and is not counted

    stats = admin.stats()
    reports = admin.verify()

    assert (stats["topics"], stats["partitions"], stats["records"]) == (2, 4, 100)
    assert len(reports) == 4
    assert all(report.ok for report in reports.values())
    assert sum(report.records for report in reports.values()) == 100


@pytest.mark.parametrize(("call", "error", "text"), [
    (lambda a: a.delete_topics(["oders"]), KeyError, "mean 'orders'"),
    (lambda a: a.delete_topics("orders"), TypeError, "list of names"),
    (lambda a: a.describe_topics("orders"), TypeError, "list of names"),
    (lambda a: a.describe_topics(["oders"]), KeyError, "mean 'orders'"),
    (lambda a: a.describe_configs(["oders"]), KeyError, "mean 'orders'"),
    (lambda a: a.alter_configs({"oders": {}}), KeyError, "mean 'orders'"),
    (lambda a: a.alter_configs({"orders": {"retention": 1}}), pylog.InvalidConfigError, "mean"),
    (lambda a: a.alter_configs([("orders", {})]), TypeError, "a dict by name"),
    (lambda a: a.alter_configs({"orders": "x"}), TypeError, "configs must be a dict, not str"),
    (lambda a: a.create_topic("x", 1, ["x"]), TypeError, "configs must be a dict, not list"),
    (lambda a: a.create_topic("orders"), pylog.TopicAlreadyExistsError, "already"),
    (lambda a: a.create_topics({"x": {"partitions": 3}}), ValueError, "num_partitions"),
    (lambda a: a.create_topics({"x": {"num_partitions": 0}}), ValueError, "1 to"),
    (lambda a: a.create_topics(["x"]), TypeError, "a dict by name, as {'orders': .*, not list"),
    (lambda a: a.create_topics({"x": 3}), TypeError, "'num_partitions': 3.*, not 3"),
    (lambda a: a.create_partitions(["orders"]), TypeError, "a dict by name"),
    (lambda a: a.create_partitions({"orders": 3}), ValueError, "4 or more"),
    (lambda a: a.create_partitions({"orders": 2}), ValueError, "4 or more"),
    (lambda a: a.delete_records({TopicPartition("orders", 0): 1}), LookupError, "not within"),
    (lambda a: a.delete_records({TopicPartition("orders", 9): 0}), KeyError, "no 9"),
    (lambda a: a.delete_records({TopicPartition("oders", 0): 0}), KeyError, "mean 'orders'"),
    (lambda a: a.delete_records([TopicPartition("orders", 0)]), TypeError, "a dict by partition"),
    (lambda a: a.delete_records({"orders": 0}), TypeError, "a TopicPartition"),
    (lambda a: a.delete_records(None), TypeError, "a dict by partition"),
    (lambda a: a.verify(["oders"]), KeyError, "mean 'orders'"),
    (lambda a: Admin(7), TypeError, "path"),
])
def test_what_cannot_be_is_refused_and_changes_nothing(admin, call, error, text):
    before = admin.describe_topics()

    with pytest.raises(error, match=text):
        call(admin)

    assert admin.describe_topics() == before


def test_broker_that_was_given_stays_open_and_one_that_was_opened_does_not(broker, log_path):
    with Admin(broker):
        pass
    assert not broker.closed
    with Admin(log_path) as admin:
        own = admin._broker
    assert own.closed


@pytest.mark.parametrize("is_given", [True, False])
def test_closed_admin_answers_nothing(broker, tmp_path, is_given):
    place, orders = TopicPartition("orders", 0), {"orders": {}}
    before = broker.topics()
    admin = Admin(broker if is_given else tmp_path / "own")
    admin.close()
    admin.close()

    for call in (
        lambda: admin.create_topic("more"), lambda: admin.create_topics({"more": {}}),
        lambda: admin.delete_topics(["orders"]), admin.list_topics, admin.describe_topics,
        lambda: admin.create_partitions({"orders": 9}), lambda: admin.describe_configs(["orders"]),
        lambda: admin.alter_configs(orders), lambda: admin.delete_records({place: 0}),
        admin.stats, admin.verify, lambda: admin.backup(tmp_path / "copy"), admin.list_groups,
        lambda: admin.describe_groups(["g"]), lambda: admin.list_group_offsets("g"),
        lambda: admin.reset_group_offsets("g", "latest"), lambda: admin.delete_groups(["g"]),
        lambda: admin.alter_group_offsets("g", {place: 0}), lambda: admin.__enter__(),
        lambda: admin.delete_group_offsets("g", [place]),
        lambda: admin.remove_group_members("g", ["1"]),
    ):
        with pytest.raises(pylog.ClosedError, match="Admin is closed; make a new one"):
            call()
    assert broker.topics() == before


# ---- copies -------------------------------------------------------------------------------------

def test_copy_has_what_was_there_and_goes_on(admin, broker, tmp_path):
    fill(broker)
    expected = by_value(broker)

    ends = admin.backup(tmp_path / "copy")
    fill(broker, 10)

    with Broker(tmp_path / "copy") as copy:
        assert by_value(copy) == expected
        assert ends == {TopicPartition("orders", n): copy.log("orders", n).end_offset
                        for n in range(3)}
        assert copy.topics() == broker.topics()
        assert copy.append("orders", b"next", partition=0).offset == ends["orders", 0]
        assert not getattr(copy.log("orders", 0).recovered, "is_lossy", False)
    assert broker.log("orders", 0).check().ok
    assert len(by_value(broker)) == 1010


def test_copy_of_a_broker_that_is_written_is_a_beginning_of_it(admin, broker, tmp_path):
    stop = threading.Event()

    def write():
        n = 0
        while not stop.is_set():
            broker.append("one", b"%d" % n)
            n += 1

    thread = threading.Thread(target=write)
    thread.start()
    try:
        while broker.log("one").end_offset <= 10 and thread.is_alive():
            time.sleep(0.001)
        admin.backup(tmp_path / "copy")
    finally:
        stop.set()
        thread.join()
    with Broker(tmp_path / "copy") as copy:
        values = [int(r.value) for r in copy.read("one")]
        assert values == list(range(len(values)))
        assert len(values) > 10
        assert copy.log("one").check().ok


def test_copy_ends_before_what_others_roll_while_it_lists(admin, broker, tmp_path, monkeypatch):
    fill(broker, 30)
    log, listdir = broker.log("one"), os.listdir
    log.append(b"first")

    def listing(path):
        """Has some of the files that are made meanwhile, and others not, as a directory's has."""
        names = listdir(path)
        if path == log.path:
            for _ in range(2):
                log.append(b"more")
                log.roll()
            names.append(max(name for name in listdir(path) if name.endswith(".log")))
        return names

    monkeypatch.setattr(backup_module.os, "listdir", listing)
    ends = admin.backup(tmp_path / "copy")
    monkeypatch.undo()

    assert ends["one", 0] == 1
    with Broker(tmp_path / "copy") as copy:
        assert [record.value for record in copy.read("one")] == [b"first"]


@pytest.mark.parametrize("is_listed", [True, False])
def test_copy_of_what_is_deleted_meanwhile_begins_where_that_does(admin, broker, tmp_path,
                                                                  monkeypatch, is_listed):
    log, listdir, left = broker.log("one"), os.listdir, [3]
    log.append_many([b"x"] * 10)
    log.roll()

    def listing(path):
        names = listdir(path)
        if path == log.path and left[0]:
            left[0] -= 1
            log.append_many([b"y"] * 10)
            log.delete_before(log.end_offset - 5)
        return names if is_listed else listdir(path)

    monkeypatch.setattr(backup_module.os, "listdir", listing)
    ends = admin.backup(tmp_path / "copy")
    monkeypatch.undo()

    assert not left[0]
    with Broker(tmp_path / "copy") as copy:
        assert copy.log("one").end_offset == ends["one", 0] == log.end_offset
        assert [r.offset for r in copy.read("one")] == list(range(log.end_offset - 5,
                                                                  log.end_offset))


MOMENTS = {
    "before it is opened": (backup_module, "_copy_store", 0),
    "before it is copied": (backup_module, "_Work", 0),
    "before its last partition": (backup_module, "_roll", 3),
    "while it is copied": (backup_module.os, "link", 2),
    "while it is proved": (backup_module, "check", 3),
}


@pytest.mark.parametrize("is_made_anew", [False, True])
@pytest.mark.parametrize("moment", MOMENTS)
def test_topic_that_is_deleted_meanwhile_is_left_out_of_the_copy(admin, broker, tmp_path,
                                                                 monkeypatch, moment, is_made_anew):
    fill(broker, 300)
    broker.append("one", b"stays")
    before = broker.topics()
    place, name, number = MOMENTS[moment]
    do, calls, told = getattr(place, name), [], []

    def delete_then(*arguments, **options):
        calls.append(arguments)
        done = do(*arguments, **options)
        if len(calls) == number + 1:
            with Broker(broker.path) as other:
                other.delete_topic("orders")
                if is_made_anew:
                    other.create_topic("orders", 3)
                    other.append("orders", b"another", partition=0)
        return done

    monkeypatch.setattr(place, name, delete_then)
    ends = admin.backup(tmp_path / "copy", on_progress=lambda *call: told.append(call))
    monkeypatch.undo()

    assert len(calls) > number
    assert ends == {("one", 0): 1, **{("orders", n): None for n in range(3)}}
    assert not list((tmp_path / "copy").glob("orders*"))
    assert told == sorted(told)
    assert told[-1][0] == told[-1][1]
    assert [done for done, total in told].count(told[-1][1]) == 1
    with Broker(tmp_path / "copy") as copy:
        assert copy.topics() == {"one": before["one"]}
        assert [record.value for record in copy.read("one")] == [b"stays"]
    assert list(broker.topics()) == ["one", "orders"][:1 + is_made_anew]


def test_copy_waits_no_longer_than_it_has_patience(admin, broker, tmp_path, monkeypatch):
    fill(broker, 30)
    monkeypatch.setattr(backup_module, "PATIENCE_MS", 3)
    monkeypatch.setattr(pylog.Log, "_retire", lambda self: False)

    with pytest.raises(pylog.PylogTimeoutError, match="another process has been tidying"):
        admin.backup(tmp_path / "copy")

    assert not list(tmp_path.glob("copy*"))


def test_committed_offsets_are_in_the_copy(admin, broker, tmp_path):
    fill(broker, 30)
    with pylog.Consumer(broker, "orders", group_id="billing") as consumer:
        assert len(consumer.consume(30, timeout=30)) == 30
        consumer.commit()
    committed = admin.list_group_offsets("billing")
    admin.backup(tmp_path / "copy")

    with Admin(tmp_path / "copy") as copy:
        found = copy.list_group_offsets("billing")
        assert {p: one.offset for p, one in found.items()} == {
            p: one.offset for p, one in committed.items()}


def test_restored_broker_is_the_copy_and_leaves_it_alone(admin, broker, tmp_path):
    fill(broker, 100)
    admin.backup(tmp_path / "copy")

    restore(tmp_path / "copy", tmp_path / "restored")

    with Broker(tmp_path / "restored") as restored:
        assert by_value(restored) == by_value(broker)
        restored.append("orders", b"more", partition=0)
        restored.delete_topic("orders")
    with Broker(tmp_path / "copy") as copy:
        assert by_value(copy) == by_value(broker)


def test_copying_tells_how_far_it_is(admin, broker, tmp_path):
    fill(broker, 1000)
    calls = {"backup": [], "restore": []}

    admin.backup(tmp_path / "copy", on_progress=lambda *call: calls["backup"].append(call))
    restore(tmp_path / "copy", tmp_path / "new", lambda *call: calls["restore"].append(call))

    for what, told in calls.items():
        done = [one for one, _ in told]
        assert done.index(told[0][1]) == len(done) - 1, "all is done before it is"
        assert done == sorted(done), what
        assert 0 < done[0] <= done[-1] <= told[0][1], what
        assert len({total for _, total in told}) == 1, what
    assert calls["restore"][-1][0] == calls["restore"][-1][1]


@pytest.mark.parametrize("is_there", ["directory", "file", "link"])
def test_nothing_is_copied_over_what_is_there(admin, tmp_path, is_there):
    target = tmp_path / "copy"
    if is_there == "directory":
        target.mkdir()
    elif is_there == "file":
        target.write_text("precious")
    else:
        target.symlink_to("nowhere")

    with pytest.raises(pylog.LogError, match="there already"):
        admin.backup(target)
    with pytest.raises(pylog.LogError, match="there already"):
        restore(admin._broker.path, target)

    assert os.listdir(tmp_path).count("copy") == 1
    assert not list(tmp_path.glob("*unfinished"))


def test_topic_that_is_deleted_while_it_is_proved_is_left_out(broker, monkeypatch):
    def open_late(window, path):
        monkeypatch.setattr(Window, "__init__", open_window)
        with Broker(broker.path) as other:
            other.delete_topic("gone")
        open_window(window, path)

    def look_late():
        monkeypatch.setattr(Window, "__init__", open_late)

    open_window = Window.__init__
    broker.append("gone", b"value")
    admin = Admin(broker)
    look_late()
    assert "gone" not in {one.topic for one in admin.verify()}

    broker.append("gone", b"value")
    look_late()
    with pytest.raises(pylog.UnknownTopicOrPartitionError, match="was deleted"):
        admin.verify(["gone"])

    broker.append("gone", b"value")
    look_late()
    assert check_if_there(broker.log("gone").path) is None


def test_another_copy_to_the_same_place_that_comes_too_late_spares_the_first(admin, broker,
                                                                             tmp_path):
    """Of another thread: there is nothing yet when it begins."""
    fill(broker, 100)

    def second(done, total):
        if done == total and not (tmp_path / "copy").exists():
            with contextlib.suppress(pylog.LogError):
                admin.backup(tmp_path / "copy")

    with contextlib.suppress(pylog.LogError):
        admin.backup(tmp_path / "copy", on_progress=second)

    with pylog.Admin(tmp_path / "copy") as copied:
        assert copied.stats()["records"] == 100
    assert not list(tmp_path.glob("*unfinished"))


def test_damaged_log_is_not_copied_and_nothing_is_left(admin, broker, tmp_path):
    fill(broker, 100)
    broker.log("orders", 0).roll()
    path = min((broker.path / "orders-0").glob("*.log"))
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)

    with pytest.raises(pylog.CorruptRecordError, match="nothing was copied"):
        admin.backup(tmp_path / "copy")

    assert not list(tmp_path.glob("copy*"))


def test_damaged_copy_is_not_restored(admin, broker, tmp_path):
    fill(broker, 100)
    admin.backup(tmp_path / "copy")
    plain = shutil.copytree(tmp_path / "copy", tmp_path / "plain")
    path = min((plain / "orders-0").glob("*.log"))
    path.write_bytes(path.read_bytes()[:-1])

    with pytest.raises(pylog.CorruptRecordError):
        restore(plain, tmp_path / "restored")
    with pytest.raises(pylog.LogError, match="no copy of a broker"):
        restore(tmp_path, tmp_path / "restored")

    assert not list(tmp_path.glob("restored*"))


def test_copy_to_another_file_system_is_one_of_bytes(admin, broker, tmp_path, monkeypatch):
    fill(broker, 100)

    def refuse(*arguments):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(backup_module.os, "link", refuse)
    admin.backup(tmp_path / "copy")
    monkeypatch.undo()

    with Broker(tmp_path / "copy") as copy:
        assert by_value(copy) == by_value(broker)
