"""AsyncConsumer.getone and getmany of some partitions, as aiokafka's: nothing of the others."""

import asyncio

import pytest
from orders import ORDERS, fill, orders_broker

import pylog
from pylog import AsyncConsumer, TopicPartition


@pytest.fixture
def broker(log_path):
    with orders_broker(log_path) as broker:
        yield broker


def run(broker, act, **options):
    """act(consumer) in a loop of its own, with a consumer of the orders."""
    async def main():
        async with AsyncConsumer(broker, "orders", **options) as consumer:
            return await asyncio.wait_for(act(consumer), 60)
    return asyncio.run(main())


def test_lists_and_records_of_some_partitions_have_no_others(broker):
    fill(broker, 10)

    async def act(consumer):
        first = await anext(consumer)
        others = [place for place in ORDERS if place.partition != first.partition]
        found = await consumer.getmany(*others, max_records=15)
        assert set(found) <= set(others)
        assert sum(map(len, found.values())) == 15
        rest = await consumer.getmany(*others, max_records=15)
        assert sum(map(len, rest.values())) == 5
        assert await consumer.getmany(*others) == {}
        assert consumer.paused() == set()
        record = await consumer.getone(TopicPartition("orders", first.partition))
        assert (record.partition, record.offset) == (first.partition, 1)
        rest = await consumer.getmany()
        return {place.partition: [record.offset for record in records]
                for place, records in rest.items()} == {first.partition: [*range(2, 10)]}

    assert run(broker, act)


@pytest.mark.parametrize("read", [
    lambda c: c.getone(ORDERS[1]), lambda c: c.getmany(ORDERS[1], timeout_ms=None)])
def test_who_waits_for_some_partitions_sleeps_while_others_have_records(broker, read):
    fill(broker, 10)

    async def act(consumer):
        await consumer.getmany(ORDERS[1])
        looks, look = [], consumer._wait
        consumer._wait = lambda *how: looks.append(how) or look(*how)
        waiting = asyncio.ensure_future(read(consumer))
        await asyncio.sleep(0.1)
        assert not waiting.done()
        assert len(looks) < 3
        broker.append("orders", b"late", partition=1)
        found = await waiting
        record = found[ORDERS[1]][0] if isinstance(found, dict) else found
        return record.value, len(await consumer.getmany(ORDERS[0]))

    assert run(broker, act) == (b"late", 1)


def test_cancelled_look_at_some_partitions_ends_with_all_read_again(broker):
    async def act(consumer):
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(consumer.getone(ORDERS[1]), 0.02)
        broker.append("orders", b"other", partition=0)
        return (await consumer.getone()).value

    assert run(broker, act) == b"other"


def test_record_of_some_partitions_is_in_hand_until_more_is_asked_for(broker):
    fill(broker, 3)

    async def act(consumer):
        await consumer.getone(ORDERS[1])
        consumer._commit_finished()
        before = consumer.committed(ORDERS[1])
        await consumer.getmany(ORDERS[2])
        consumer._commit_finished()
        return before or 0, consumer.committed(ORDERS[1]), consumer.committed(ORDERS[2]) or 0

    async def main():
        async with AsyncConsumer(broker, group_id="g", enable_auto_commit=False) as consumer:
            consumer.subscribe(["orders"])
            while not await consumer.poll(10, 1):
                pass
            consumer.seek_to_beginning()
            return await act(consumer)

    assert asyncio.run(main()) == (0, 1, 0)


def test_partition_that_comes_meanwhile_is_none_of_those_looked_at(broker):
    async def act(consumer):
        waiting = asyncio.ensure_future(consumer.getone(ORDERS[1]))
        await asyncio.sleep(0.01)
        pylog.Admin(broker).create_partitions({"orders": 4})
        broker.append("orders", b"new", partition=3)
        while TopicPartition("orders", 3) not in consumer.assignment():
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.02)
        assert not waiting.done()
        broker.append("orders", b"wanted", partition=1)
        return (await waiting).value, (await consumer.getone()).value

    assert run(broker, act) == (b"wanted", b"new")


@pytest.mark.parametrize(("partitions", "error"), [
    ([TopicPartition("orders", 7)], pylog.IllegalStateError),
    ([ORDERS[0], TopicPartition("oders", 0)], pylog.IllegalStateError),
    (["orders"], TypeError), ([7], TypeError), ([ORDERS], TypeError),
])
def test_partitions_that_are_none_are_refused_and_nothing_is_read(broker, partitions, error):
    fill(broker, 10)

    async def act(consumer):
        for read in (consumer.getone, consumer.getmany):
            with pytest.raises(error):
                await read(*partitions)
        return len([record async for record in consumer])

    assert run(broker, act, consumer_timeout_ms=0) == 30


def test_second_task_is_refused_a_look_at_some_partitions(broker):
    async def act(consumer):
        waiting = asyncio.ensure_future(consumer.getone(ORDERS[0]))
        await asyncio.sleep(0.01)
        with pytest.raises(pylog.ConcurrentModificationError, match="another task"):
            await consumer.getmany(ORDERS[1])
        broker.append("orders", b"x", partition=0)
        return (await waiting).value

    assert run(broker, act) == b"x"
