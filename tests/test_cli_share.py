"""The command line: `pylog share`, and `ShareAdmin` under it."""

import json

import pytest
from shell import done, fails

import pylog
from pylog.exits import Exit
from pylog.observation import observe
from pylog.patterns import Rpc
from pylog.testing import broker as broker
from pylog.topic import TopicPartition

AT = TopicPartition("jobs", 0)


@pytest.fixture
def data(data_path):
    """Of ten jobs two are done, one is rejected, one in hand, one came back, one has a delay."""
    with pylog.Broker(data_path) as broker:
        for number in range(10):
            broker.append("jobs", b"%d" % number)
        with workers(broker) as consumer:
            taken = consumer.poll(0, 6)
            taken[0].ack()
            taken[1].ack()
            taken[2].reject("no")
            taken[3].release()
            taken[4].release(1000)
            taken[5].release()
    return data_path


def workers(broker):
    return pylog.ShareConsumer(broker, "jobs", group_id="workers",
                               acknowledgement_mode="explicit")


def objects(*arguments):
    return [json.loads(line) for line in done(*arguments, "--json").stdout.splitlines()]


def test_share_groups_are_listed_with_what_they_have_to_do(data):
    assert objects("share", "ls") == [
        {"group_id": "workers", "topics": ["jobs"], "lag": 7, "in_flight": 0}]
    assert done("share", "ls").stdout.splitlines() == [
        "SHARE GROUP  LAG  IN FLIGHT  TOPICS", "workers        7          0  jobs"]


def test_describe_tells_each_partition(data):
    found, = objects("share", "describe", "workers")

    assert found == {
        "topic": "jobs", "partition": 0, "start_offset": 3, "end_offset": 10, "lag": 7, "ready": 6,
        "in_flight": 0, "delayed": 1, "done": 2, "rejected": 1, "redelivered": 3}
    assert done("share", "describe", "workers").stdout.splitlines()[1].split() == [
        "jobs-0", "3", "10", "7", "6", "0", "1", "2", "1", "3"]


def test_what_a_worker_has_is_in_flight(broker):
    broker.append("jobs", b"1")
    with workers(broker) as consumer, pylog.Admin(broker) as admin:
        delivery = consumer.take(0)
        assert admin.list_share_group_offsets("workers")[AT][2:6] == (1, 0, 1, 0)
        delivery.ack()
        assert admin.list_share_group_offsets("workers")[AT][2:7] == (0, 0, 0, 0, 1)


def test_looking_changes_nothing_of_a_group(broker):
    for number in range(3):
        broker.append("jobs", b"%d" % number, key=b"same")
    pylog.ShareConsumer(broker, "jobs", group_id="workers", ordered_by_key=True).close()
    with pylog.Admin(broker) as admin:
        admin.list_share_groups()

    with pytest.raises(pylog.ConfigurationError, match="as it was made"):
        pylog.ShareConsumer(broker, "jobs", group_id="workers", ordered_by_key=False)


def test_servers_of_requests_are_a_share_group(broker):
    with Rpc(broker) as rpc, pylog.Admin(broker) as admin:
        rpc.handler("prices", lambda request: b"12")
        rpc.request("prices")
        place = admin.list_share_group_offsets("rpc.prices")[TopicPartition("prices", 0)]

    assert place.end_offset == 1


def test_top_shows_share_groups_beside_the_others(broker):
    broker.append("jobs", b"1")
    with workers(broker) as consumer, pylog.Consumer(broker, group_id="workers") as other:
        other.commit({AT: 0})
        before = observe(broker)
        delivery = consumer.take(0)
        broker.append("jobs", b"2")
        now = observe(broker, before)
        delivery.ack()

    found = {one.is_share: one for one in now.groups}
    assert (found[True].state, found[True].lag, found[True].change) == ("share, 1 in flight", 2, 1)
    assert (found[False].lag, found[False].change) == (2, 1)
    assert observe(broker, topic="jobs").groups
    broker.create_topic("other")
    assert not [one for one in observe(broker, topic="other").groups if one.is_share]


def test_deleted_groups_begin_anew(data):
    done("share", "delete", "workers", "--yes")

    assert objects("share", "ls") == []
    assert "no share groups" in done("share", "ls").stderr
    with pylog.Broker(data) as broker, workers(broker) as consumer:
        assert len(consumer.poll(0, 100)) == 10


def test_a_group_that_is_at_work_is_not_deleted(data):
    with pylog.Broker(data) as broker, workers(broker):
        fails(Exit.FAILED, "a process takes records in the share group 'workers'; stop it",
              "share", "delete", "workers", "--yes")
    assert objects("share", "ls")


def test_nobody_is_asked_where_there_is_nobody(data):
    fails(Exit.USAGE, "add --yes", "share", "delete", "workers")
    assert objects("share", "ls")


@pytest.mark.parametrize("verb", ["describe", "delete"])
def test_a_group_that_is_not_there_is_told_with_the_closest_name_and_not_made(data, verb):
    more = ["--yes"] if verb == "delete" else []

    fails(Exit.FAILED, "no share group 'worker'; did you mean 'workers'.*`pylog share ls`",
          "share", verb, "worker", *more)
    assert [one["group_id"] for one in objects("share", "ls")] == ["workers"]


def test_a_topic_that_was_deleted_is_left_out(broker):
    broker.append("jobs", b"1")
    workers(broker).close()
    with pylog.Admin(broker) as admin:
        broker.delete_topic("jobs")
        assert admin.list_share_groups() == []


@pytest.mark.parametrize("name", ["", "no/such", 7, None])
def test_what_names_no_group_is_refused(broker, name):
    with pylog.Admin(broker) as admin, pytest.raises((pylog.PylogError, TypeError)):
        admin.list_share_group_offsets(name)
