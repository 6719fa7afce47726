"""Queue.work: a handler for each message, in threads or tasks."""

import asyncio
import functools
import logging
import math
import sys
import threading
import time

import pytest
from lateness import late_once
from queues import PATIENCE, drained, letters

import pylog
from pylog.patterns import AsyncQueue, Queue
from pylog.testing import broker as broker


def test_work_acknowledges_what_goes_well_and_buries_what_never_does(broker):
    done = []
    with Queue(broker, "jobs", max_deliveries=2) as jobs:
        jobs.put_many([b"%d" % n for n in range(20)])

        def work(delivery):
            if int(delivery.value) == 13:
                raise ValueError("unlucky")
            done.append(int(delivery.value))

        assert jobs.work(work, concurrency=3, idle=0.2) == 21
        assert sorted(done) == [n for n in range(20) if n != 13]
        assert [one[:4] for one in letters(jobs)] == [(b"13", "ValueError", "unlucky", 2)]


def test_work_is_shared_fairly_by_threads(broker):
    who, all_four = [], threading.Barrier(4)
    with Queue(broker, "jobs") as jobs:
        jobs.put_many([b"x"] * 40)

        def work(delivery):
            who.append(threading.get_ident())
            all_four.wait(PATIENCE)    # who took more than one would leave another without

        jobs.work(work, concurrency=4, idle=0.2)
    assert [who.count(one) for one in set(who)] == [10] * 4


def test_async_handlers_run_side_by_side(broker):
    inside, most, all_five = [0], [0], asyncio.Barrier(5)
    with Queue(broker, "jobs") as jobs:
        jobs.put_many([b"x"] * 20)

        async def work(delivery):
            inside[0] += 1
            most[0] = max(most[0], inside[0])
            await asyncio.wait_for(all_five.wait(), PATIENCE)
            inside[0] -= 1

        assert jobs.work(work, concurrency=5, idle=0.2) == 20
    assert most[0] == 5


def test_what_a_handler_that_nobody_awaits_was_given_is_not_acknowledged(broker):
    async def later(delivery):
        raise AssertionError("nobody runs this")

    with Queue(broker, "jobs", max_deliveries=1) as jobs:
        jobs.put(b"x")
        jobs.work(lambda delivery: later(delivery), idle=0.1)
        assert jobs.stats().done == 0
        ((_, error, message, *_),) = letters(jobs)
        assert (error, "async def" in message) == ("TypeError", True)


def test_partials_and_objects_of_coroutine_functions_are_awaited(broker):
    seen = []

    async def take(where, delivery):
        await asyncio.sleep(0)
        where.append(delivery.value)

    class Taker:
        async def __call__(self, delivery):
            await take(seen, delivery)

    with Queue(broker, "jobs") as jobs:
        for handler in (functools.partial(take, seen), Taker()):
            jobs.put(b"x")
            assert jobs.work(handler, idle=0.1) == 1
    assert seen == [b"x", b"x"]


def test_a_handler_that_fails_is_logged_and_loudly_where_it_is_over(broker, caplog):
    def fail(delivery):
        raise ValueError("no such address")

    caplog.set_level(logging.INFO, "pylog.patterns")
    with Queue(broker, "jobs", max_deliveries=2) as jobs:
        jobs.put(b"x")
        jobs.work(fail, idle=0.1)
        asyncio.run(_work_async(broker, fail))
    found = [(one.levelname, one.getMessage().split("; ")[1], one.exc_info[1].args)
             for one in caplog.records if one.name == "pylog.patterns"]
    once = [("INFO", "it comes again, unless the handler settled it", ("no such address",)),
            ("WARNING", "it is a dead letter now", ("no such address",))]
    assert found == once * 2


async def _work_async(broker, handler):
    async with AsyncQueue(broker, "letters", max_deliveries=2) as jobs:
        await jobs.put(b"x")
        await jobs.work(handler, idle=0.1)


def test_a_handler_that_is_slower_than_its_lock_is_told(broker, caplog):
    with Queue(broker, "jobs", lock=0.02) as jobs, Queue(broker, "jobs", lock=10) as other:
        jobs.put(b"x")

        def take_too_long(delivery):
            with other.get(PATIENCE):
                pass

        jobs.work(take_too_long, idle=0.05)
    assert "took longer than its lock" in caplog.text


def test_one_that_ends_its_work_leaves_others_at_work(broker):
    with Queue(broker, "jobs") as jobs:
        seen = []
        other = threading.Thread(target=lambda: jobs.work(lambda one: seen.append(one.value), 2))
        other.start()
        jobs.work(lambda one: None, idle=0.05)
        jobs.put_many([b"x"] * 5)
        limit = time.monotonic() + PATIENCE
        while len(seen) < 5:
            assert time.monotonic() < limit
            time.sleep(0.01)
        jobs.stop()
        other.join(PATIENCE)
        assert not other.is_alive()


def test_what_ends_one_thread_ends_work_and_is_raised(broker):
    ending = threading.Event()
    with Queue(broker, "jobs") as jobs:
        jobs.put_many([b"x"] * 20)

        def end(delivery):
            if threading.current_thread() is not threading.main_thread():
                ending.set()
                raise SystemExit(3)
            ending.wait(PATIENCE)    # lest it does all before another thread has begun

        with pytest.raises(SystemExit):
            jobs.work(end, concurrency=3)
        assert jobs.stats().in_flight == 0


def test_work_that_cannot_begin_leaves_no_thread_at_work(broker, monkeypatch):
    start, begun = threading.Thread.start, []

    def interrupted(thread):
        if begun:
            raise KeyboardInterrupt
        begun.append(thread)
        start(thread)

    with Queue(broker, "jobs") as jobs:
        monkeypatch.setattr(threading.Thread, "start", interrupted)
        with pytest.raises(KeyboardInterrupt):
            jobs.work(lambda delivery: None, concurrency=3)
        assert not begun[0].is_alive()


@pytest.mark.parametrize("is_async", [False, True])
def test_a_message_whose_handler_exits_is_a_dead_letter_after_its_deliveries(broker, caplog,
                                                                             is_async):
    def leave(delivery):
        sys.exit(3)

    async def leave_later(delivery):
        sys.exit(3)

    with Queue(broker, "jobs", max_deliveries=2) as jobs:
        jobs.put(b"poison")
        for delivery in (1, 2):
            with pytest.raises(SystemExit):
                jobs.work(leave_later if is_async else leave)
            assert f"failed on jobs, offset 0, delivery {delivery} of 2; this ends" in caplog.text
        assert jobs.work(leave, idle=0.01) == 0

        assert [one[:4] for one in letters(jobs)] == [(b"poison", "SystemExit", "3", 2)]


@pytest.mark.parametrize(("idle", "error"), [
    (math.nan, pylog.ConfigurationError), (-1, pylog.ConfigurationError), ("1", TypeError)])
def test_what_is_no_time_to_be_idle_is_refused(broker, idle, error):
    with Queue(broker, "jobs") as jobs, pytest.raises(error, match="idle"):
        jobs.work(print, idle=idle)


def test_a_message_in_hand_at_ctrl_c_is_not_counted(broker):
    with Queue(broker, "jobs") as jobs:
        jobs.put(b"x")
        with pytest.raises(KeyboardInterrupt), jobs.get(0):
            raise KeyboardInterrupt
        assert jobs.get(0).delivery_count == 1


def test_stop_ends_work_after_the_message_in_hand(broker):
    with Queue(broker, "jobs") as jobs:
        jobs.put_many([b"x"] * 10)
        assert jobs.work(lambda delivery: jobs.stop()) == 1
        assert len(drained(jobs)) == 9


def test_work_is_idle_when_nobody_is_at_work(broker):
    """What one thread was at may fail, and come again, when the others have been idle for long."""
    tries = []

    def fail_once(delivery):
        tries.append(delivery.delivery_count)
        time.sleep(0.4)
        if len(tries) == 1:
            raise ValueError

    with Queue(broker, "emails") as emails:
        emails.put(b"x")
        assert emails.work(fail_once, concurrency=4, idle=0.05) == 2
        assert tries == [1, 2]
        assert emails.stats().ready == 0


def test_worker_that_stood_still_has_not_been_idle(broker):
    """A queue that was to be emptied was left with what came meanwhile."""
    with Queue(broker, "jobs") as jobs:
        consumer = jobs._consumer
        consumer.take = late_once(consumer.take, 0.3, lambda: jobs.put_many([b"x"] * 5))
        assert jobs.work(lambda delivery: None, idle=0.2) == 5


def test_worker_in_a_loop_that_stood_still_has_not_been_idle(broker):
    async def main():
        async with AsyncQueue(broker, "jobs") as jobs:
            consumer = jobs._consumer
            consumer._take_now = late_once(consumer._take_now, 0.3, lambda: put_five(broker))
            return await jobs.work(lambda delivery: None, idle=0.2)

    assert asyncio.run(main()) == 5


def put_five(broker):
    with Queue(broker, "jobs") as jobs:
        jobs.put_many([b"x"] * 5)
