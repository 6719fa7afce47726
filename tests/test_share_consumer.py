"""ShareConsumer: who has which record, for how long, how often, and what is left of it."""

import asyncio
import os
import pickle
import subprocess
import sys
import time

import pytest
from children import killed
from drivers import built
from faults import forget_boot
from sharing import AT, fill, taken, workers

import pylog
from pylog import _native
from pylog.share_consumer import AcknowledgeType
from pylog.testing import broker as broker

# ---- taking --------------------------------------------------------------------------------------

def test_each_record_is_taken_by_one(broker):
    fill(broker, 10)
    with workers(broker) as one, workers(broker) as other:
        assert taken(one, 4) == [0, 1, 2, 3]
        assert taken(other) == [4, 5, 6, 7, 8, 9]
        assert taken(workers(broker)) == []


def test_another_group_takes_all_again(broker):
    fill(broker, 3)
    with workers(broker) as one:
        for delivery in one.poll():
            delivery.ack()
    with pylog.ShareConsumer(broker, "jobs", group_id="others") as other:
        assert taken(other) == [0, 1, 2]


def test_what_is_acknowledged_is_never_taken_again_and_still_read(broker):
    fill(broker, 3)
    with workers(broker) as consumer:
        for delivery in consumer.poll():
            delivery.ack()
    with workers(broker) as consumer:
        assert taken(consumer) == []
        assert consumer.stats()[AT]["lag"] == 0
    assert [record.value for record in broker.read("jobs")] == [b"0", b"1", b"2"]


def test_implicit_mode_accepts_what_came_before(broker):
    fill(broker, 4)
    with pylog.ShareConsumer(broker, "jobs", group_id="workers") as consumer:
        assert taken(consumer, 2) == [0, 1]
        assert taken(consumer, 2) == [2, 3]
        assert consumer.stats()[AT]["done"] == 2
    with workers(broker) as consumer:    # close gave back what was in hand
        again = consumer.poll()
        assert [(int(d.value), d.delivery_count) for d in again] == [(2, 1), (3, 1)]
        for one in again:
            one.ack()


def test_explicit_mode_wants_all_of_a_poll_settled_before_the_next(broker):
    fill(broker, 2)
    with workers(broker) as consumer:
        first, second = consumer.poll()
        first.ack()
        with pytest.raises(pylog.IllegalStateError, match="offset 1 of 'jobs'"):
            consumer.poll()
        second.ack()
        assert consumer.poll() == []


def test_all_partitions_are_taken_from_in_turn_also_new_ones(broker):
    broker.create_topic("jobs", 3)
    for number in range(9):
        broker.append("jobs", b"%d" % number, partition=number % 3)
    with workers(broker) as consumer:
        first = consumer.poll(max_records=9)
        assert sorted(int(one.value) for one in first) == list(range(9))
        for one in first:
            one.ack()
        broker.metadata.add_partitions("jobs", 4)
        broker.append("jobs", b"9", partition=3)
        assert taken(consumer, 9, 30_000) == [9]


def test_a_group_may_begin_at_the_end(broker):
    fill(broker, 3)
    with workers(broker, auto_offset_reset="latest") as consumer:
        assert consumer.poll() == []
        fill(broker, 1)
        assert taken(consumer) == [0]
    with workers(broker, auto_offset_reset="earliest") as consumer:
        assert taken(consumer) == [0]    # the group remembers where it began


def test_typed_values_are_deserialized_and_what_cannot_be_is_rejected(broker):
    broker.append("jobs", b"[1]")
    broker.append("jobs", b"{broken")
    broker.append("jobs", b"[2]")
    rejected = []
    with workers(broker, value_deserializer="json",
                 on_reject=lambda one, why: rejected.append((one.value, type(why)))) as consumer:
        assert [one.value for one in consumer.poll()] == [[1], [2]]
        assert rejected == [(b"{broken", pylog.DeserializationError)]
        assert consumer.stats()[AT]["rejected"] == 1


def test_records_that_are_gone_or_skipped_are_no_obstacle(broker):
    fill(broker, 10)
    with workers(broker) as consumer:
        (first,) = consumer.poll(max_records=1)
        broker.log("jobs").delete_before(6)
        first.ack()
        assert taken(consumer) == [6, 7, 8, 9]


def test_damage_is_told_and_given_up_after_so_many_attempts(broker):
    with pylog.Producer(broker) as producer:
        producer.send_many("jobs", [b"0"] * 3)
        producer.send_many("jobs", [b"1"] * 3)
    path = broker.path / "jobs-0" / "00000000000000000000.log"
    broker.log("jobs").close()
    with path.open("r+b") as file:
        file.seek(65)
        byte = file.read(1)[0]
        file.seek(65)
        file.write(bytes([byte ^ 1]))
    with workers(broker, max_deliveries=2) as consumer:
        for _ in range(2 * 3):
            with pytest.raises(pylog.CorruptRecordError):
                consumer.poll()
        assert taken(consumer) == [1, 1, 1]
        assert consumer.stats()[AT]["rejected"] == 3


def test_those_beside_one_that_fails_are_not_given_up_for_it(broker):
    def accepts(delivery):
        raise OSError("the other database is down")

    fill(broker, 3)
    broker.append("jobs", b"3", headers=[("of", b"somebody")])
    fill(broker, 2)
    with workers(broker, max_deliveries=2, accepts=accepts) as consumer:
        for _ in range(2):
            with pytest.raises(OSError, match="down"):
                consumer.poll()
        found = consumer.poll()
        assert [(one.offset, one.delivery_count) for one in found] == [
            (0, 1), (1, 1), (2, 1), (4, 1), (5, 1)]
        assert consumer.stats()[AT]["rejected"] == 1


def test_in_order_what_comes_before_damage_is_delivered(broker):
    with pylog.Producer(broker) as producer:
        producer.send_many("jobs", [b"0"] * 3)
        producer.send_many("jobs", [b"1"] * 3)
    with (broker.path / "jobs-0" / "00000000000000000000.log").open("r+b") as file:
        file.seek(8)
        file.seek(12 + int.from_bytes(file.read(4)) + 65)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 1]))
    with workers(broker, ordered_by_key=True) as consumer:
        for delivery in consumer.poll():
            delivery.ack()
        assert consumer.stats()[AT]["done"] == 3
        with pytest.raises(pylog.CorruptRecordError):
            consumer.poll()


# ---- settling ------------------------------------------------------------------------------------

def test_what_is_released_comes_again_with_a_higher_count(broker):
    fill(broker, 2)
    with workers(broker) as consumer:
        first, second = consumer.poll()
        first.release()
        second.ack()
        (again,) = consumer.poll()
        assert (again.value, again.delivery_count) == (b"0", 2)
        again.release(count=False)
        (again,) = consumer.poll()
        assert again.delivery_count == 2
        again.ack()


def test_what_is_released_with_a_delay_comes_when_it_is_due(broker):
    fill(broker, 1)
    with workers(broker) as consumer:
        consumer.take(0).release(delay=1000)
        assert consumer.take(0) is None
        assert consumer.stats()[AT]["delayed"] == 1
        fill(broker, 1)
        delivery = consumer.take(0)
        start = time.monotonic()
        delivery.release(delay=0.1)
        assert consumer.take(30).delivery_count == 2
        assert time.monotonic() - start > 0.09


def test_delivered_too_often_it_is_rejected(broker):
    fill(broker, 2)
    reasons = []
    with workers(broker, max_deliveries=3, backoff=lambda count: 0,
                 on_reject=lambda one, why: reasons.append((one.value, why))) as consumer:
        for attempt in (1, 2, 3):
            delivery = consumer.take(0)
            assert (delivery.value, delivery.delivery_count) == (b"0", attempt)
            delivery.nack(reason="boom")
        assert reasons == [(b"0", "boom")]
        assert consumer.take(0).value == b"1"


def test_reject_is_at_once(broker):
    fill(broker, 1)
    with workers(broker) as consumer:
        consumer.take(0).reject("poison")
        assert consumer.take(0) is None
        assert consumer.stats()[AT]["rejected"] == 1


def test_a_body_that_raises_gives_back_and_one_that_does_not_acknowledges(broker):
    fill(broker, 1)
    with workers(broker) as consumer:
        with pytest.raises(ZeroDivisionError), consumer.take(0):
            raise ZeroDivisionError
        with pytest.raises(KeyboardInterrupt), consumer.take(0) as delivery:
            assert delivery.delivery_count == 2
            raise KeyboardInterrupt
        with consumer.take(0) as delivery:
            assert delivery.delivery_count == 2    # Ctrl-C is no failure of the record
        assert consumer.take(0) is None


def test_acknowledge_has_kafkas_four_types(broker):
    fill(broker, 1)
    with workers(broker) as consumer:
        delivery = consumer.take(0)
        consumer.acknowledge(delivery, AcknowledgeType.RENEW)
        assert delivery.held
        consumer.acknowledge(delivery, AcknowledgeType.RELEASE)
        delivery = consumer.take(0)
        consumer.acknowledge(delivery, AcknowledgeType.REJECT)
        assert consumer.take(0) is None
        with pytest.raises(TypeError, match="AcknowledgeType"):
            consumer.acknowledge(delivery, "accept")


def test_settled_once_is_settled(broker):
    fill(broker, 1)
    with workers(broker) as consumer:
        delivery = consumer.take(0)
        assert delivery.held
        delivery.ack()
        assert delivery.settled
        assert not delivery.held
        for verb in (delivery.ack, delivery.release, lambda: delivery.extend(1),
                     lambda: delivery.reject("x"), delivery.nack):
            with pytest.raises(pylog.InvalidRecordStateError, match="settled already"):
                verb()


def test_whose_time_is_over_is_refused_once_another_has_it(broker):
    fill(broker, 1)
    with workers(broker, lock_ms=30) as consumer:
        late = consumer.take(0)
        other = consumer.take(5)
        assert other.delivery_count == 2
        assert not late.held
        with pytest.raises(pylog.InvalidRecordStateError, match="time for offset 0"):
            late.ack()
        other.ack()
        assert consumer.stats()[AT]["expired"] == 1


def test_late_is_not_too_late_while_nobody_else_took_it(broker):
    fill(broker, 1)
    with workers(broker, lock_ms=10) as consumer:
        late = consumer.take(0)
        time.sleep(0.05)
        late.ack()
        assert consumer.take(0) is None


def test_extend_keeps_it(broker):
    fill(broker, 1)
    with workers(broker, lock_ms=50) as consumer:
        delivery = consumer.take(0)
        delivery.extend(10)
        assert consumer.take(0.15) is None
        delivery.ack()


def test_a_forgotten_delivery_is_given_back(broker):
    fill(broker, 1)
    with workers(broker) as consumer:
        consumer.take(0)
        assert consumer.take(0).delivery_count == 2


# ---- order of a key ------------------------------------------------------------------------------

def test_a_record_waits_for_those_of_its_key(broker):
    fill(broker, 6, key=lambda n: b"odd" if n % 2 else b"even")
    with workers(broker, ordered_by_key=True) as consumer:
        even, odd = consumer.poll()
        assert (even.value, odd.value) == (b"0", b"1")
        assert consumer.take(0) is None
        assert consumer.stats()[AT]["behind"] == 4
        odd.ack()
        later = consumer.take(0)
        assert later.value == b"3"
        even.release()
        assert consumer.take(0).value == b"0"


def test_a_delayed_record_keeps_back_those_of_its_key_and_no_others(broker):
    fill(broker, 4, key=lambda n: b"a" if n in (0, 2) else b"b")
    with workers(broker, ordered_by_key=True) as consumer:
        consumer.take(0).release(delay=0.05)
        first = None
        while first is None or first.value != b"0":    # 1 and 3, if they are not late
            first = consumer.take(30)
            assert first.value != b"2", "it went in front of one of its key"
            if first.value != b"0":
                first.ack()
        first.release(delay=1000)
        fill(broker, 2, key=lambda n: b"b")
        done = []
        while (one := consumer.take(0)) is not None:
            done.append(int(one.offset))
            one.ack()
        assert done[-2:] == [4, 5]
        assert set(done) <= {1, 3, 4, 5}
        assert consumer.stats()[AT]["behind"] == 1


def test_records_without_a_key_wait_for_nobody(broker):
    fill(broker, 5)
    with workers(broker, ordered_by_key=True) as consumer:
        assert taken(consumer) == [0, 1, 2, 3, 4]


def test_ordered_or_not_is_decided_once(broker):
    fill(broker, 1)
    workers(broker).close()
    with pytest.raises(pylog.ConfigurationError, match="not made to keep the order"):
        workers(broker, ordered_by_key=True)


# ---- misuse --------------------------------------------------------------------------------------

@pytest.mark.parametrize(("options", "error", "message"), [
    ({"group_id": 17}, TypeError, "group_id"),
    ({"group_id": ""}, pylog.InvalidGroupIdError, "group_id"),
    ({"lock_ms": 0}, pylog.ConfigurationError, "lock_ms"),
    ({"lock_ms": "30"}, TypeError, "lock_ms"),
    ({"max_deliveries": 0}, pylog.ConfigurationError, "max_deliveries"),
    ({"max_poll_records": 0}, pylog.ConfigurationError, "max_poll_records"),
    ({"acknowledgement_mode": "auto"}, pylog.ConfigurationError, "'implicit', 'explicit'"),
    ({"auto_offset_reset": "none"}, pylog.ConfigurationError, "'earliest', 'latest'"),
    ({"value_deserializer": 17}, TypeError, "value_deserializer"),
    ({"prefetch": 1}, TypeError, "ShareConsumer"),
])
def test_wrong_options_are_told(broker, options, error, message):
    with pytest.raises(error, match=message):
        pylog.ShareConsumer(broker, "jobs", **{"group_id": "workers", **options})


def test_wrong_calls_are_told(broker):
    consumer = pylog.ShareConsumer(broker, group_id="workers")
    with pytest.raises(pylog.IllegalStateError, match="subscribe"):
        consumer.poll()
    with pytest.raises(pylog.IllegalStateError, match="subscribe"):
        consumer.take(0)
    consumer.subscribe(["jobs"])
    fill(broker, 1)
    delivery = consumer.take(0)
    for wrong, error in (("soon", TypeError), (True, TypeError),
                         (-1, pylog.ConfigurationError), (float("nan"), pylog.ConfigurationError)):
        with pytest.raises(error):
            delivery.release(delay=wrong)
        with pytest.raises(error):
            delivery.extend(wrong)
    with pytest.raises(TypeError):
        consumer.take("soon")
    with pytest.raises(TypeError):
        _native.Delivery()
    with pytest.raises(TypeError):
        pickle.dumps(consumer)
    consumer.close()
    consumer.close()
    with pytest.raises(pylog.ClosedError):
        consumer.poll()


def test_a_damaged_file_is_told(broker):
    fill(broker, 1)
    workers(broker).close()
    path = broker.path / "shares" / "workers" / "jobs-0"
    path.write_bytes(b"no leases" + bytes(path.stat().st_size))
    with pytest.raises(pylog.UnsupportedFormatError, match="leases of a share group"):
        workers(broker)


# ---- in an event loop ----------------------------------------------------------------------------

def test_tasks_take_and_wait(broker):
    broker.create_topic("jobs")

    async def main():
        found = []
        async with pylog.AsyncShareConsumer(broker, "jobs", group_id="workers") as consumer:
            async def work():
                while len(found) < 100 and (delivery := await consumer.take(30)) is not None:
                    found.append(int(delivery.value))
                    delivery.ack()
                    await asyncio.sleep(0)

            tasks = [asyncio.create_task(work()) for _ in range(4)]
            await asyncio.sleep(0.05)
            await asyncio.to_thread(fill, broker, 100)
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)    # all is done
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            assert await consumer.poll(0) == []
            assert await consumer.commit_sync() == {AT: None}
        return found

    assert sorted(asyncio.run(main())) == list(range(100))


def test_a_cancelled_wait_takes_nothing(broker):
    broker.create_topic("jobs")

    async def main():
        async with pylog.AsyncShareConsumer(broker, "jobs", group_id="workers") as consumer:
            tasks = [asyncio.create_task(consumer.take()) for _ in range(3)]
            await asyncio.sleep(0.05)
            tasks[0].cancel()
            tasks[1].cancel()
            fill(broker, 1)
            assert (await asyncio.wait_for(tasks[2], 5)).value == b"0"

    asyncio.run(main())


def test_closing_ends_a_waiting_task(broker):
    broker.create_topic("jobs")

    async def main():
        consumer = pylog.AsyncShareConsumer(broker, "jobs", group_id="workers")
        task = asyncio.create_task(consumer.take())
        await asyncio.sleep(0.05)
        await consumer.close()
        with pytest.raises(pylog.ClosedError):
            await asyncio.wait_for(task, 5)

    asyncio.run(main())


SUBSCRIBE_WHILE_OTHERS_WAIT = """
import threading, time, pylog
consumer = pylog.ShareConsumer("data", group_id="workers", acknowledgement_mode="explicit")
for topic, partitions in (("few", 3), ("more", 5)):
    consumer._broker.create_topic(topic, partitions)
consumer.subscribe(["few"])
end = time.monotonic() + 1.5

def wait():
    while time.monotonic() < end:
        consumer.take(0.05)

threads = [threading.Thread(target=wait) for _ in range(6)]
for thread in threads:
    thread.start()
while time.monotonic() < end:
    consumer.subscribe(["few"])
    consumer.subscribe(["few", "more"])
for thread in threads:
    thread.join()
"""


@pytest.mark.slow
def test_threads_may_subscribe_while_others_wait(tmp_path):
    """What they wait on stays theirs; freed memory is filled with something else, so that it shows.
    """
    done = subprocess.run([sys.executable, "-c", SUBSCRIBE_WHILE_OTHERS_WAIT], cwd=tmp_path,
                          env=os.environ | {"MALLOC_PERTURB_": "165"}, capture_output=True,
                          timeout=60, text=True)
    assert (done.returncode, done.stderr) == (0, "")


GAP = """
import sys, threading, time
import pylog
from pylog.share_consumer import ShareConsumer

with pylog.Broker(sys.argv[1]) as broker:
    broker.log("jobs").roll()    # what it has to open is open
    consumer = ShareConsumer(broker, "jobs", group_id="workers")
    def append():
        taking.wait()
        time.sleep(0.01)
        broker.append("jobs", b"new")
    taking, thread = threading.Event(), threading.Thread(target=append)
    thread.start()
    taking.set()
    first = consumer.take(0)
    thread.join()
    print((first or consumer.take(5)).value.decode())
"""


def test_record_that_comes_while_there_is_none_yet_behind_a_loss_is_delivered(tmp_path):
    """Who looks at the last offsets before the gap opens a segment, and others append meanwhile."""
    def work_and_die():
        broker = pylog.Broker(tmp_path / "data")
        fill(broker, 1)
        broker.log("jobs").roll()
        for one in workers(broker).poll():
            one.ack()
        os.kill(os.getpid(), 9)

    killed(work_and_die)
    forget_boot(tmp_path / "data" / "jobs-0")
    slow = built("build/slow_open.so") / "slow_open.so"
    done = subprocess.run([sys.executable, "-c", GAP, tmp_path / "data"], timeout=60, text=True,
                          env={**os.environ, "LD_PRELOAD": str(slow)}, capture_output=True,
                          check=False)
    assert done.stdout == "new\n", done.stderr
