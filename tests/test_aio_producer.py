"""The producer in an event loop: the same records, and nothing that stops the loop."""

import asyncio
import threading
import time
from functools import partial

import pytest
from brokers import values
from turns import turns_of_another

import pylog
from pylog import AsyncProducer
from pylog.aio_producer import _wake
from pylog.broker import Broker


@pytest.fixture(params=["os", "fsync"])
def slow_or_not(request, tmp_path):
    """A broker whose logs wait for the disk, or do not."""
    with Broker(tmp_path / "durable", durability=request.param) as broker:
        broker.create_topic("t", 2)
        yield broker


def is_durable(broker, topic="t", partition=0):
    log = broker.log(topic, partition)
    return log.durable_offset == log.end_offset


@pytest.mark.parametrize("linger_ms", [0, 2])
def test_records_are_where_they_say_and_in_order(slow_or_not, linger_ms):
    async def main():
        async with AsyncProducer(slow_or_not, linger_ms=linger_ms) as producer:
            one = await producer.send("t", b"0", b"key", {"h": b"x"}, 0, 1234)
            found = await asyncio.gather(
                *(producer.send("t", b"%d" % n, partition=0) for n in range(1, 600)))
            return [one, *found]

    found = asyncio.run(main())

    assert [metadata.offset for metadata in found] == list(range(600))
    assert values(slow_or_not, "t") == [b"%d" % n for n in range(600)]
    (first, *_) = slow_or_not.read("t")
    assert (first.key, first.headers, first.timestamp) == (b"key", (("h", b"x"),), 1234)


def test_durable_record_is_durable_when_the_send_is_over(tmp_path):
    async def main(broker):
        async with AsyncProducer(broker) as producer:
            await producer.send("t", b"v")
            assert is_durable(broker)
            await producer.send_many("t", [b"v"] * 5)
            assert is_durable(broker)

    with Broker(tmp_path / "data", durability="fsync") as broker:
        asyncio.run(main(broker))


async def held_up(producer):
    """Has the producer's thread wait for the event that this returns, once it does. Not by what is
    called when a record is in: that would be called here, if it were in before it was said."""
    is_in, may_go = threading.Event(), threading.Event()

    def hold():
        is_in.set()
        may_go.wait(30)
        return 0

    producer._buffer.run(hold)
    while not is_in.is_set():
        await asyncio.sleep(0.001)
    return may_go


def test_loop_runs_on_while_a_disk_is_waited_for(tmp_path):
    """The sends wait for a held-up thread, and the loop does not."""
    async def main(broker):
        async with AsyncProducer(broker) as producer:
            await producer.send("t", b"first")
            may_go = await held_up(producer)
            one = asyncio.create_task(producer.send("t", b"second"))
            many = asyncio.create_task(producer.send_many("t", [b"third", b"fourth"]))
            flush = asyncio.create_task(producer.flush())
            for _ in range(20):
                await asyncio.sleep(0)
            assert not any(task.done() for task in (one, many, flush))
            may_go.set()
            assert (await one).offset == 1
            assert (await many)[0].offset == 2
            await flush

    with Broker(tmp_path / "data", durability="fsync") as broker:
        asyncio.run(main(broker))
        assert values(broker, "t") == [b"first", b"second", b"third", b"fourth"]


def test_sends_that_never_wait_let_others_run(broker):
    async def main():
        with turns_of_another() as turns:
            async with AsyncProducer(broker) as producer:
                for _ in range(2000):
                    await producer.send("one", b"v")
                return turns.count

    assert asyncio.run(main()) >= 5


def test_no_thread_is_started_for_what_does_not_wait(broker):
    async def main():
        async with AsyncProducer(broker) as producer:
            await producer.send("one", b"first")    # its log is opened: the broker has a thread
            before = set(threading.enumerate())
            for n in range(10):
                await producer.send("one", b"%d" % n)
                await producer.send_many("one", [b"x"] * 10)
            await producer.flush()
            return set(threading.enumerate()) - before    # one of another test may end meanwhile

    assert asyncio.run(main()) == set()


def test_lists_and_records_keep_their_order(slow_or_not):
    async def main():
        async with AsyncProducer(slow_or_not, linger_ms=20) as producer:
            await asyncio.gather(*(
                producer.send("t", b"%03d" % n, partition=0) if n % 2 else
                producer.send_many("t", [b"%03d" % n], partition=0) for n in range(20)))

    asyncio.run(main())

    assert values(slow_or_not, "t") == [b"%03d" % n for n in range(20)]


def test_list_may_be_changed_while_it_is_on_its_way(tmp_path):
    async def main(broker):
        async with AsyncProducer(broker) as producer:
            mine = [b"%d" % n for n in range(1000)]
            task = asyncio.create_task(producer.send_many("t", mine))
            await asyncio.sleep(0)
            mine.clear()
            await task

    with Broker(tmp_path / "data", durability="fsync") as broker:
        asyncio.run(main(broker))
        assert len(values(broker, "t")) == 1000


def test_full_buffer_is_waited_for_in_order(broker):
    async def main():
        async with AsyncProducer(broker, linger_ms=60_000, buffer_memory=2000) as producer:
            await asyncio.wait_for(asyncio.gather(*(
                producer.send("one", b"%090d" % n) for n in range(200)),
                producer_flush(producer)), 60)

    async def producer_flush(producer):
        while len(values(broker, "one")) < 200:
            await asyncio.sleep(0.01)
            await producer.flush()

    asyncio.run(main())

    assert values(broker, "one") == [b"%090d" % n for n in range(200)]


@pytest.mark.parametrize("call", ["send", "send_nowait"])
def test_buffer_that_stays_full_is_told_and_nothing_is_sent(broker, call):
    async def main():
        async with AsyncProducer(broker, linger_ms=1, buffer_memory=500,
                                 max_block_ms=50) as producer:
            await producer.send("one", b"first")
            may_go = await held_up(producer)
            producer.send_nowait("one", bytes(600))
            with pytest.raises(pylog.PylogTimeoutError, match=r"buffer is full.*nothing was sent"):
                if call == "send":
                    await producer.send("one", b"refused")
                else:
                    producer.send_nowait("one", b"refused")
            may_go.set()

    asyncio.run(main())

    assert values(broker, "one") == [b"first", bytes(600)]


def test_cancelled_send_harms_nothing(broker):
    async def main():
        async with AsyncProducer(broker, linger_ms=60_000, buffer_memory=300) as producer:
            accepted = asyncio.create_task(producer.send("one", bytes(400)))
            await asyncio.sleep(0)
            waits = asyncio.create_task(producer.send("one", b"waits for room"))
            behind = asyncio.create_task(producer.send("one", b"behind it"))
            for task in (waits, accepted):
                task.cancel()
            await asyncio.wait([waits, accepted])
            while producer.metrics()["producer-metrics"]["record-send-total"] < 2:
                await asyncio.sleep(0.001)
            flush = asyncio.create_task(producer.flush())
            await asyncio.sleep(0)
            flush.cancel()
            await asyncio.wait([flush])
            await producer.flush()
            assert (await behind).offset == 1

    asyncio.run(main())

    assert values(broker, "one") == [bytes(400), b"behind it"]


def test_failed_batch_is_raised_where_it_is_awaited(broker):
    async def main():
        async with AsyncProducer(broker, linger_ms=60_000) as producer:
            future = producer.send_nowait("one", b"lost")
            broker.log("one").close()
            with pytest.raises(pylog.ClosedError, match="the log is closed"):
                await producer.flush()
            with pytest.raises(pylog.ClosedError, match="the log is closed"):
                await future
            producer.send_nowait("one", b"kept")

    asyncio.run(main())

    assert values(broker, "one") == [b"kept"]


@pytest.mark.parametrize(("call", "error"), [
    (lambda p: p.send("one", "text"), TypeError),
    (lambda p: p.send("one", b"v", partition=5), KeyError),
    (lambda p: p.send(b"one", b"v"), TypeError),
    (lambda p: p.send_many("one", "text"), TypeError),
    (lambda p: p.send_many("one", [b"a"], keys=[b"k", b"l"]), ValueError),
    (lambda p: p.send_many("one", [5]), TypeError),
    (lambda p: p.partitions_for("a/b"), pylog.InvalidTopicError),
])
def test_bad_input_is_refused_as_by_the_producer(broker, call, error):
    async def main():
        async with AsyncProducer(broker) as producer:
            with pytest.raises(error):
                await call(producer)
            assert await producer.partitions_for("one") == {0}

    asyncio.run(main())

    assert values(broker, "one") == []


def test_closed_producer_refuses(broker):
    async def main():
        producer = AsyncProducer(broker)
        await producer.close()
        await producer.close()
        assert producer.closed
        assert "closed" in repr(producer)
        for call in (lambda: producer.send("one", b"x"), lambda: producer.send_many("one", []),
                     producer.flush):
            with pytest.raises(pylog.ClosedError):
                await call()

    asyncio.run(main())


def test_loop_that_ends_loses_nothing(tmp_path):
    async def main():
        producer = AsyncProducer(tmp_path / "data", linger_ms=20)
        for n in range(10):
            producer.send_nowait("one", b"%d" % n)
        return producer

    producer = asyncio.run(main())
    time.sleep(0.05)
    asyncio.run(producer.close())

    with Broker(tmp_path / "data") as broker:
        assert values(broker, "one") == [b"%d" % n for n in range(10)]


def test_loop_that_is_closed_at_that_moment_does_not_end_the_thread_that_appends(tmp_path):
    class Closing:
        def is_closed(self):
            return False

        def call_soon_threadsafe(self, function):
            raise RuntimeError("Event loop is closed")

    async def main(broker):
        async with AsyncProducer(broker, buffer_memory=1000) as producer:
            may_go = await held_up(producer)
            producer.send_nowait("t", b"v" * 1000)
            producer._buffer.call_at_progress(partial(_wake, Closing(), None))
            may_go.set()
            await producer.flush(30)
            await producer.send("t", b"w")

    with Broker(tmp_path / "data") as broker:
        asyncio.run(main(broker))
        assert len(values(broker, "t")) == 2
