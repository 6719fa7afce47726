"""A consumer in an event loop: the same records, other tasks meanwhile, cancelled waits."""

import asyncio
import gc
import os
import resource
import threading
import time

import pytest
from chances import assert_once_below
from children import appended_soon, in_child
from orders import ORDERS, everything, fill, orders_broker, values
from turns import turns_of_another

import pylog
from pylog.aio_consumer import AsyncConsumer


def run(broker, act, **options):
    """act(consumer) in a loop of its own, with a consumer of the orders."""
    async def main():
        async with AsyncConsumer(broker, "orders", **options) as consumer:
            return await asyncio.wait_for(act(consumer), 60)
    return asyncio.run(main())


def later(seconds, act, *arguments, **keywords):
    threading.Timer(seconds, act, arguments, keywords).start()


async def all_of(consumer):
    return [record async for record in consumer]


# ---- reading

def test_iteration_returns_all_partitions_each_in_order(broker):
    fill(broker, 100)

    records = run(broker, all_of, consumer_timeout_ms=0)

    assert set(values(records)) == everything(100)
    for number in range(3):
        assert [r.offset for r in records if r.partition == number] == list(range(100))


@pytest.mark.parametrize("number", [0, 2])
def test_append_of_another_process_ends_the_wait(broker, number):
    with appended_soon(broker.path, b"from the child", partition=number):
        record = run(broker, lambda consumer: anext(consumer))

    assert (record.partition, record.value) == (number, b"from the child")


@pytest.mark.parametrize("read", [
    lambda c: anext(c), lambda c: c.getone(), lambda c: c.consume(1), lambda c: c.poll(None),
    lambda c: c.getmany(timeout_ms=None), lambda c: anext(c.batches()),
])
def test_other_tasks_run_while_one_waits(broker, read):
    async def act(consumer):
        waiting = asyncio.ensure_future(read(consumer))
        for _ in range(5):
            await asyncio.sleep(0.01)
            assert not waiting.done()
        broker.append("orders", b"value", partition=1)
        assert await waiting
        return consumer.position(ORDERS[1])

    assert run(broker, act) == 1


def test_poll_consume_and_batches_return_what_those_of_a_consumer_do(broker):
    fill(broker, 10)

    async def act(consumer):
        polled = await consumer.poll(max_records=7)
        consumed = await consumer.consume(5)
        batch = await anext(consumer.batches(3))
        rest = await consumer.getmany()
        assert await consumer.poll() == {}
        assert await consumer.consume(2, timeout=0.01) == []
        return [values(one) for one in polled.values()] + [values(consumed), batch.values()] \
            + [values(one) for one in rest.values()]

    found = [value for part in run(broker, act) for value in part]
    assert len(found) == 30
    assert set(found) == everything()


def test_consume_waits_until_it_has_them_all(broker):
    async def act(consumer):
        broker.append("orders", b"one", partition=0)
        later(0.05, broker.append, "orders", b"two", partition=2)
        return values(await consumer.consume(2))

    assert run(broker, act) == [b"one", b"two"]


def test_iterations_end_after_the_timeout(broker):
    async def act(consumer):
        start = time.monotonic()
        assert await all_of(consumer) == []
        assert [chunk async for chunk in consumer.batches()] == []
        with pytest.raises(pylog.PylogTimeoutError):
            await consumer.getone()
        return time.monotonic() - start

    assert 0.14 < run(broker, act, consumer_timeout_ms=50) < 20


def test_records_are_deserialized_and_bad_ones_come_again(broker):
    for value in (b"1", b"{", b"3"):
        broker.append("orders", value, partition=0)

    async def act(consumer):
        found = [(await anext(consumer)).value]
        for _ in range(2):
            with pytest.raises(pylog.DeserializationError):
                await anext(consumer)
            with pytest.raises(pylog.DeserializationError):
                await consumer.consume(5)
        consumer.seek(ORDERS[0], 2)
        return found + values(await consumer.consume(1))

    assert run(broker, act, value_deserializer="json") == [1, 3]


def test_consume_returns_what_lies_before_a_bad_record_without_a_wait(broker):
    for value in (b"1", b"{"):
        broker.append("orders", value, partition=0)

    async def act(consumer):
        return values(await asyncio.wait_for(consumer.consume(5), 10))

    assert run(broker, act, value_deserializer="json") == [1]


def test_long_iteration_lets_other_tasks_run(broker):
    broker.log("orders", 0).append_many([b"x" * 100] * 20_000)

    async def act(consumer):
        with turns_of_another() as turns:
            assert len(await all_of(consumer)) == 20_000
        return turns.count

    assert run(broker, act, consumer_timeout_ms=0) >= 5


def test_slow_loop_body_lets_other_tasks_run(broker):
    fill(broker, 20)

    async def act(consumer):
        gaps, last = [], time.monotonic()

        async def other():
            nonlocal last
            while True:
                gaps.append(time.monotonic() - last)
                last = time.monotonic()
                await asyncio.sleep(0)

        task = asyncio.ensure_future(other())
        async for _ in consumer:
            time.sleep(0.01)
        task.cancel()
        return len(gaps)

    assert run(broker, act, consumer_timeout_ms=0) >= 4


# ---- cancelling

@pytest.mark.parametrize("read", [
    lambda c: anext(c), lambda c: c.getone(), lambda c: c.consume(5), lambda c: c.poll(None),
])
def test_cancelled_wait_takes_no_record(broker, read):
    async def act(consumer):
        for _ in range(3):
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(read(consumer), 0.02)
        fill(broker, 2)
        return set(values(await consumer.consume(6)))

    assert run(broker, act) == everything(2)


def test_cancelled_consume_gives_back_what_it_had(broker):
    fill(broker, 1)

    async def act(consumer):
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(consumer.consume(4), 0.05)
        assert [consumer.position(one) for one in ORDERS] == [0, 0, 0]
        return set(values(await consumer.consume(3)))

    assert run(broker, act) == everything(1)


def test_step_that_nobody_awaits_takes_no_record(broker):
    fill(broker, 2)

    async def act(consumer):
        first = await anext(consumer)
        forgotten = consumer.__anext__()
        asyncio.ensure_future(forgotten).cancel()
        await asyncio.sleep(0)
        del forgotten
        return len([first, *await consumer.consume(5)])

    assert run(broker, act) == 6


def test_two_steps_at_once_are_two_records(broker):
    fill(broker, 1)

    async def act(consumer):
        await anext(consumer)
        steps = consumer.__anext__(), consumer.__anext__()
        assert steps[0] is not steps[1]
        return {(await step).partition for step in steps}

    assert len(run(broker, act)) == 2


def test_cancelled_while_a_record_comes_it_is_there_for_the_next(broker):
    async def act(consumer):
        waiting = asyncio.ensure_future(consumer.getone())
        await asyncio.sleep(0.01)
        broker.append("orders", b"value", partition=0)
        await asyncio.sleep(0)
        waiting.cancel()
        taken = 0
        try:
            await waiting
            taken = 1
        except asyncio.CancelledError:
            pass
        return taken + len(await consumer.consume(1, timeout=0.2))

    assert run(broker, act) == 1


# ---- what happens meanwhile

def test_partition_that_is_resumed_ends_the_wait(broker):
    fill(broker, 1)

    async def act(consumer):
        consumer.pause(*ORDERS)
        waiting = asyncio.ensure_future(consumer.consume(3))
        await asyncio.sleep(0.02)
        consumer.resume(*ORDERS)
        return set(values(await asyncio.wait_for(waiting, 10)))

    assert run(broker, act) == everything(1)


def test_seek_ends_the_wait(broker):
    fill(broker, 1)

    async def act(consumer):
        await consumer.consume(3)
        waiting = asyncio.ensure_future(consumer.getone())
        await asyncio.sleep(0.02)
        consumer.seek(ORDERS[2], 0)
        return (await asyncio.wait_for(waiting, 10)).value

    assert run(broker, act) == b"2:0"


def test_wakeup_of_another_thread_ends_the_wait(broker):
    async def act(consumer):
        later(0.05, consumer.wakeup)
        with pytest.raises(pylog.WakeupError):
            await consumer.getone()
        broker.append("orders", b"value", partition=0)
        return (await consumer.getone()).value

    assert run(broker, act) == b"value"


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("close", ["consumer", "broker"])
def test_close_ends_the_wait(broker, close):
    async def act(consumer):
        waiting = asyncio.ensure_future(consumer.getone())
        await asyncio.sleep(0.02)
        if close == "consumer":
            await consumer.close()
        else:
            broker.close()
        with pytest.raises(pylog.ClosedError):
            await asyncio.wait_for(waiting, 10)

    run(broker, act)


def test_topic_that_is_deleted_ends_the_wait(broker):
    async def act(consumer):
        later(0.05, broker.delete_topic, "orders")
        with pytest.raises(pylog.UnknownTopicOrPartitionError, match="deleted"):
            await consumer.getone()

    run(broker, act)


def test_second_task_is_refused(broker):
    async def act(consumer):
        waiting = asyncio.ensure_future(consumer.getone())
        await asyncio.sleep(0.01)
        with pytest.raises(pylog.ConcurrentModificationError, match="task"):
            await consumer.getone()
        broker.append("orders", b"value", partition=0)
        return (await waiting).value

    assert run(broker, act) == b"value"


def test_many_consumers_wait_with_one_thread(broker):
    async def main():
        consumers = [AsyncConsumer(broker, "orders") for _ in range(20)]
        tasks = [asyncio.ensure_future(one.getone()) for one in consumers]
        await asyncio.sleep(0.05)
        threads = len(os.listdir("/proc/self/task"))
        broker.append("orders", b"value", partition=1)
        found = values(await asyncio.wait_for(asyncio.gather(*tasks), 30))
        for one in consumers:
            await one.close()
        return threads, found

    before = len(os.listdir("/proc/self/task"))
    threads, found = asyncio.run(main())

    assert found == [b"value"] * 20
    assert threads <= before + 3    # sentry, ticker, housekeeper


def test_consumers_of_two_brokers_wait_in_one_loop(broker, tmp_path):
    async def main():
        with orders_broker(tmp_path / "other") as other:
            async with AsyncConsumer(broker, "orders") as one, \
                    AsyncConsumer(other, "orders") as two:
                later(0.05, broker.append, "orders", b"one", partition=0)
                later(0.1, other.append, "orders", b"two", partition=0)
                return values(await asyncio.wait_for(
                    asyncio.gather(one.getone(), two.getone()), 30))

    assert asyncio.run(main()) == [b"one", b"two"]


def test_descriptors_are_given_back(broker):
    async def act(consumer):
        for _ in range(5):
            await consumer.poll(timeout_ms=1)
        gc.collect()    # what earlier tests left open is not closed in between
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(20):
            await consumer.poll(timeout_ms=1)
        return len(os.listdir("/proc/self/fd")) - before

    # The housekeeper has a file open now and then.
    assert_once_below(1, lambda number: run(broker, act))


def test_consumer_that_is_forgotten_in_a_wait_goes(broker):
    async def main():
        consumer = AsyncConsumer(broker, "orders")
        task = asyncio.ensure_future(consumer.getone())
        await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.sleep(0)
        del consumer, task
        gc.collect()
        broker.append("orders", b"value", partition=0)
        await asyncio.sleep(0.05)

    asyncio.run(main())


def test_forked_child_waits_in_a_loop_of_its_own(broker):
    path = broker.path

    def read():
        async def main():
            async with AsyncConsumer(path, "orders") as consumer:
                later(0.05, consumer.wakeup)
                with pytest.raises(pylog.WakeupError):
                    await asyncio.wait_for(consumer.getone(), 30)
            return True
        return asyncio.run(main())

    async def act(consumer):
        await consumer.poll(timeout_ms=20)
        return in_child(read)

    assert run(broker, act) is True


@pytest.mark.slow
def test_idle_consumers_cost_hardly_any_time(broker):
    broker.create_topic("wide", 50)

    async def main():
        async with AsyncConsumer(broker, "wide") as consumer:
            await consumer.poll(timeout_ms=1000)
            before = resource.getrusage(resource.RUSAGE_SELF)
            await consumer.poll(timeout_ms=2000)
            after = resource.getrusage(resource.RUSAGE_SELF)
            return (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
                    after.ru_nvcsw - before.ru_nvcsw)

    def part_of_what_it_may(number):    # of all threads of this process, which may have to do
        seconds, switches = asyncio.run(main())
        return max(seconds / 0.05, switches / 60)

    assert_once_below(1, part_of_what_it_may)


# ---- refusals

@pytest.mark.parametrize(("act", "error"), [
    (lambda c: c.poll(timeout_ms=-1), pylog.ConfigurationError),
    (lambda c: c.poll(max_records=0), pylog.ConfigurationError),
    (lambda c: c.consume(0), pylog.ConfigurationError),
    (lambda c: c.consume("one"), TypeError),
    (lambda c: anext(c.batches(0)), pylog.ConfigurationError),
    (lambda c: c.commit(), pylog.IllegalStateError),
])
def test_impossible_arguments_are_refused(broker, act, error):
    async def refused(consumer):
        with pytest.raises(error):
            await act(consumer)

    run(broker, refused)


def test_closed_consumer_says_so(broker):
    async def act(consumer):
        await consumer.close()
        for ask in (lambda: anext(consumer), consumer.poll, consumer.getone,
                    lambda: consumer.consume(1), consumer.__aenter__, consumer.commit):
            with pytest.raises(pylog.ClosedError):
                await ask()

    run(broker, act)


def test_nothing_to_read_is_an_error_and_no_wait(broker):
    async def main():
        async with AsyncConsumer(broker) as consumer:
            for ask in (lambda: anext(consumer), lambda: consumer.poll(None), consumer.getone):
                with pytest.raises(pylog.IllegalStateError, match="subscribe"):
                    await ask()

    asyncio.run(main())


def test_each_kind_of_loop_has_its_kind_of_consumer(broker):
    async def act(consumer):
        with pytest.raises(TypeError):
            iter(consumer)
        with pytest.raises(TypeError):
            with consumer:
                pass
        with pylog.Consumer(broker, "orders") as other:
            with pytest.raises(TypeError):
                async for _ in other:
                    pass

    run(broker, act)


def test_steps_are_made_by_consumers_only():
    with pytest.raises(TypeError):
        pylog._native.Step()


@pytest.mark.parametrize("error", [
    ZeroDivisionError, ZeroDivisionError("thrown"), KeyboardInterrupt,
])
def test_step_that_is_thrown_into_raises_that(broker, error):
    fill(broker, 1)

    async def act(consumer):
        step = consumer.__anext__()
        with pytest.raises(error if isinstance(error, type) else type(error)):
            step.throw(error)
        step.close()
        return len(await consumer.consume(3))

    assert run(broker, act) == 3
