"""A broker: topics in a directory that many processes open."""

import os
import pickle
import signal
import threading
import time
from functools import partial
from pathlib import Path

import pytest
from chances import assert_once_below
from children import in_child

import pylog
from pylog.broker import Broker


@pytest.fixture
def broker(log_path):
    with Broker(log_path) as broker:
        yield broker


def values(broker, topic, **options):
    return [record.value for record in broker.read(topic, **options)]


def test_records_come_back_from_a_topic_with_their_place(broker):
    broker.create_topic("orders", 3)

    sent = [broker.append("orders", b"%d" % n, key=b"key %d" % (n % 5)) for n in range(50)]

    read = {(r.topic, r.partition, r.offset): r.value for r in broker.read("orders")}
    assert read == {("orders", m.partition, m.offset): b"%d" % n for n, m in enumerate(sent)}
    assert {m.topic_partition for m in sent} > {("orders", 0)}


def test_records_of_a_key_stay_in_one_partition_and_in_order(broker):
    broker.create_topic("orders", 4)
    for n in range(100):
        broker.append("orders", b"%d" % n, key=b"alice" if n % 2 else b"bob")

    by_key = {}
    for record in broker.read("orders"):
        by_key.setdefault(record.key, []).append((record.partition, int(record.value)))

    for places in by_key.values():
        assert len({partition for partition, _ in places}) == 1
        assert [n for _, n in places] == sorted(n for _, n in places)


def test_append_goes_through_where_the_partition_ends_as_expected_and_nowhere_else(broker):
    broker.create_topic("orders", 2)

    assert broker.append("orders", b"first", partition=1, if_end=0).offset == 0
    with pytest.raises(pylog.WrongEndOffsetError) as caught:
        broker.append("orders", b"second", partition=1, if_end=0)
    broker.append("orders", b"second", partition=1, if_end=caught.value.end_offset)

    assert (caught.value.offset, caught.value.end_offset) == (0, 1)
    assert values(broker, "orders") == [b"first", b"second"]


def test_a_partition_that_is_not_named_is_the_only_one_where_its_end_is(broker):
    broker.create_topic("one", 1)
    broker.create_topic("two", 2)

    assert broker.append("one", b"here", if_end=0).partition == 0
    with pytest.raises(pylog.ConfigurationError, match=r"has 2: name it, with partition="):
        broker.append("two", b"where", key=b"alice", if_end=0)
    for wrong in (-1, "0", 1.5):
        with pytest.raises((pylog.ConfigurationError, TypeError)):
            broker.append("one", b"never", if_end=wrong)

    assert values(broker, "one") == [b"here"]
    assert values(broker, "two") == []


def test_topic_that_two_create_at_once_is_there_for_both(broker, monkeypatch):
    """By being used; the second has looked before the first was done."""
    create = broker.metadata.create_topic

    def create_second(name, partitions, configs):
        with Broker(broker.path) as first:
            first.append(name, b"first")
        return create(name, partitions, configs)

    monkeypatch.setattr(broker.metadata, "create_topic", create_second)

    assert broker.append("orders", b"second").offset == 1
    with pytest.raises(pylog.TopicAlreadyExistsError):
        broker.create_topic("orders")


def test_topic_made_by_another_process_is_seen(broker):
    def act():
        with Broker(broker.path) as other:
            other.create_topic("orders", 2)
            other.append("orders", b"from the child", partition=1)
        return True

    assert in_child(act) is True
    assert values(broker, "orders") == [b"from the child"]
    assert broker.topic("orders").partitions == 2


def test_follower_is_woken_by_appends_to_any_partition(broker):
    broker.create_topic("orders", 8)
    found = []

    def follow():
        for record in broker.read("orders", follow=True):
            found.append((record.partition, record.value))
            if len(found) == 8:
                return

    thread = threading.Thread(target=follow)
    thread.start()
    for partition in range(8):
        with Broker(broker.path) as other:
            other.append("orders", b"value", partition=partition)
    thread.join(30)

    assert sorted(found) == [(partition, b"value") for partition in range(8)]


def test_follower_reads_partitions_that_are_added(broker):
    broker.create_topic("orders", 1)
    reading = broker.read("orders", follow=True)
    broker.append("orders", b"first")
    assert next(reading).value == b"first"

    broker.metadata.add_partitions("orders", 2)
    broker.append("orders", b"second", partition=1)

    assert next(reading).partition == 1


def test_all_partitions_share_the_doorbells(broker):
    broker.create_topic("orders", 3)
    for partition in range(3):
        broker.log("orders", partition)

    inodes = {os.stat(path).st_ino for path in broker.path.glob("**/doorbells")}
    assert len(inodes) == 1


def test_topic_is_made_when_it_is_first_appended_to(broker):
    assert broker.append("events", b"value").offset == 0
    assert broker.topics()["events"].partitions == 1


def test_records_survive_the_kill_of_who_appended_them(broker):
    pid = os.fork()
    if pid == 0:
        other = Broker(broker.path)
        for n in range(1000):
            other.append("orders", b"%d" % n)
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)

    assert values(broker, "orders") == [b"%d" % n for n in range(1000)]


def test_another_process_is_told_to_open_a_broker_of_its_own(broker):
    with pytest.raises(TypeError, match="a broker cannot be pickled; pass its path"):
        pickle.dumps(broker)

    error = in_child(lambda: broker.append("orders", b"v"))
    assert isinstance(error, pylog.IllegalStateError)
    assert "the broker was opened before a fork" in str(error)


def test_reading_begins_in_each_partition_where_it_is_told_to(broker):
    broker.create_topic("orders", 3)
    for number in range(6):
        broker.append("orders", b"%d" % number, partition=number % 3)

    assert sorted(values(broker, "orders", start={0: 1, 2: "latest"})) == [b"1", b"3", b"4"]
    assert len(values(broker, "orders", start={})) == 6


def test_reading_ends_where_the_end_was_when_it_began(broker):
    broker.append("orders", b"there")
    reading = broker.read("orders")
    broker.append("orders", b"later")

    assert [record.value for record in reading] in ([b"there"], [b"there", b"later"])
    assert values(broker, "orders") == [b"there", b"later"]


def test_durability_of_a_topic_is_that_of_its_broker_and_stays(log_path):
    with Broker(log_path, durability="fsync") as broker:
        broker.append("orders", b"value")
    with Broker(log_path) as broker:
        assert broker.log("orders").stats()["options"]["durability"] == "fsync"


def test_threads_open_a_partition_once(broker):
    broker.create_topic("orders", 1)
    found = []
    threads = [threading.Thread(target=lambda: found.append(broker.log("orders")))
               for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(set(map(id, found))) == 1


def test_closed_broker_refuses_and_closes_its_logs(log_path):
    broker = Broker(log_path)
    broker.append("orders", b"value")
    log = broker.log("orders")
    broker.close()
    broker.close()

    assert broker.closed
    assert log.closed
    for call in (broker.topics, lambda: broker.append("orders", b"x"),
                 lambda: broker.create_topic("a"), lambda: broker.log("orders")):
        with pytest.raises(pylog.ClosedError):
            call()


@pytest.mark.parametrize(("call", "error"), [
    (lambda b: b.log("orders", 2), KeyError),
    (lambda b: b.log("orders", -1), KeyError),
    (lambda b: b.append("orders", b"x", partition=7), KeyError),
    (lambda b: b.append("orders", "text"), TypeError),
    (lambda b: b.append("a/b", b"x"), pylog.PylogError),
    (lambda b: b.create_topic("orders"), pylog.PylogError),
    (lambda b: b.create_topic(".."), pylog.PylogError),
    (lambda b: b.create_topic("x", 0), ValueError),
    (lambda b: b.create_topic("x", configs={"retention.msec": "1"}), pylog.PylogError),
    (lambda b: list(b.read("orders", start=99)), LookupError),
    (lambda b: list(b.read("orders", partition=5)), KeyError),
])
def test_what_cannot_be_is_refused_and_leaves_all_as_it_was(broker, call, error):
    broker.create_topic("orders", 2)

    with pytest.raises(error):
        call(broker)

    assert list(broker.topics()) == ["orders"]
    assert values(broker, "orders") == []


@pytest.mark.parametrize(("options", "error", "text"), [
    ({"durability": "disk"}, pylog.ConfigurationError, "durability='disk' is unknown; use 'os'"),
    ({"durability": None}, pylog.ConfigurationError, "durability=None"),
    ({"durability": "FSYNC"}, pylog.ConfigurationError, "'fsync'"),
    ({"auto_create_topics": "no"}, TypeError, "True or False, not 'no'"),
])
def test_option_that_cannot_be_is_refused_and_makes_no_directory(log_path, options, error, text):
    with pytest.raises(error, match=text):
        Broker(log_path, **options)

    assert not log_path.exists()


def test_path_that_names_no_directory_is_refused():
    for path in ("", "a\0b"):
        with pytest.raises(pylog.ConfigurationError, match="names no directory"):
            Broker(path)


ADDRESSES = ["localhost:9092", "10.0.0.1:9092", "[::1]:9092", "a-b.example.org:1",
             "SASL_SSL://kafka:9092", "one:9092,two:9092", "one:9092, two:9092",
             ["localhost:9092"], ("one:9092", "two:9092")]


@pytest.mark.parametrize("opened", [
    Broker, Broker.of, pylog.Producer, pylog.Consumer, pylog.Admin, pylog.AsyncProducer,
    pylog.AsyncConsumer, partial(pylog.ShareConsumer, group_id="g")])
@pytest.mark.parametrize("given", ADDRESSES, ids=str)
def test_address_of_a_server_is_refused_and_makes_no_directory(
        tmp_path, monkeypatch, opened, given):
    monkeypatch.chdir(tmp_path)

    with pytest.raises(pylog.ConfigurationError, match=r"address of a server.*pass the dir"):
        opened(given)

    assert os.listdir() == []


@pytest.mark.parametrize("given", [
    "C:data", "a/b:9092", "./localhost:9092", "localhost:", ":9092", "localhost:9092x",
    "one:9092,two", Path("localhost:9092")], ids=str)
def test_path_with_a_colon_is_a_path(tmp_path, monkeypatch, given):
    monkeypatch.chdir(tmp_path)

    with Broker(given):
        assert os.path.isdir(given)


def test_directory_with_the_name_of_an_address_is_opened(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Broker(Path("localhost:9092")).close()

    with pylog.Producer("localhost:9092") as producer:
        assert producer.send("orders", b"x").get().offset == 0


def test_log_and_broker_are_not_made_in_each_others_directory(log_path, tmp_path):
    Broker(log_path).close()
    with pytest.raises(pylog.UnsupportedFormatError, match="is a broker, and no log"):
        pylog.Log(log_path)
    with pytest.raises(pylog.UnsupportedFormatError, match="is a broker, and no log"):
        pylog.Log(log_path, mode="r")
    pylog.Log(tmp_path / "other").close()
    with pytest.raises(pylog.UnsupportedFormatError, match="is a log, and no directory of topics"):
        Broker(tmp_path / "other")

    assert "log.meta" not in os.listdir(log_path)
    assert "metadata.db" not in os.listdir(tmp_path / "other")


def test_unknown_topic_is_told_with_the_closest_name(log_path):
    with Broker(log_path, auto_create_topics=False) as broker:
        broker.create_topic("orders")

        with pytest.raises(KeyError, match="did you mean 'orders'"):
            broker.append("oders", b"x")


def test_idle_follower_sleeps(broker):
    broker.create_topic("orders", 20)
    thread = threading.Thread(
        target=lambda: next(broker.read("orders", follow=True)), daemon=True)
    thread.start()

    def cost(number):
        before = time.process_time()
        time.sleep(1.0)
        return time.process_time() - before

    assert_once_below(0.1, cost)    # the first time it may be opening the partitions still
    broker.append("orders", b"end")
    thread.join(10)
    assert not thread.is_alive()
