"""Batches that linger: when they go, in which order, and that none is lost in silence."""

import asyncio
import gc
import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import pytest
from brokers import values
from chances import assert_once_below
from tables import eventually

import pylog
from pylog import Producer, _native
from pylog.broker import Broker

ROOT = Path(__file__).parent.parent
LONG = 60_000


@contextmanager
def held_up(producer):
    """The thread that appends stands still in a callback, with an empty buffer behind it.

    Of a producer that lingers for long: of a record that is in already, this thread would have the
    callback, and stand still itself.
    """
    is_in, may_go = threading.Event(), threading.Event()

    def hold(_):
        is_in.set()
        may_go.wait(60)

    future = producer.send("one", b"first")
    future.add_done_callback(hold)
    flushing = threading.Thread(target=producer.flush)
    flushing.start()
    assert is_in.wait(30)
    flushing.join()
    try:
        yield
    finally:
        may_go.set()


def batches(broker, topic="one"):
    return [_native.decode_batch(batch) for batch in broker.log(topic).batches(0)]


# ---- when a batch goes ---------------------------------------------------------------------------


def test_record_lingers_and_then_is_there(broker):
    with Producer(broker, linger_ms=LONG) as producer:
        future = producer.send("one", b"v")
        assert values(broker, "one") == []
        assert not future.done()
        assert not future.succeeded()
        assert not future.failed()
        assert future.value is None
        assert "in the buffer" in repr(future)
    with Producer(broker, linger_ms=100) as producer:
        before = time.monotonic()
        future = producer.send("one", b"w")

        assert future.get(30).offset == 1
        assert time.monotonic() - before > 0.09
        assert values(broker, "one") == [b"v", b"w"]


def test_batches_of_other_partitions_go_in_their_own_time(broker):
    with Producer(broker, linger_ms=50) as producer:
        first = producer.send("orders", b"v", partition=0)
        time.sleep(0.02)
        second = producer.send("orders", b"v", partition=1)
        first.get(30)
        assert second.get(30).offset == 0


def test_full_batch_goes_at_once(broker):
    with Producer(broker, linger_ms=LONG, batch_size=1000) as producer:
        futures = [producer.send("one", bytes(90)) for _ in range(25)]
        futures[0].get(30)

        assert not futures[-1].done()
    assert all(one["records_count"] >= 5 for one in batches(broker)[:-1])
    assert all(one["size"] <= 1000 for one in batches(broker))
    assert [future.get(0).offset for future in futures] == list(range(25))


def test_record_larger_than_a_batch_has_one_of_its_own(broker):
    with Producer(broker, linger_ms=LONG, batch_size=100) as producer:
        for size in (10, 5000, 10):
            producer.send("one", bytes(size))

    assert [len(value) for value in values(broker, "one")] == [10, 5000, 10]
    assert len(batches(broker)) == 3


def test_batch_is_no_larger_than_its_topic_allows(broker):
    broker.create_topic("small", 1, {"max.message.bytes": 1000})
    with Producer(broker, linger_ms=LONG) as producer:
        for n in range(100):
            producer.send("small", b"%090d" % n)
        with pytest.raises(pylog.MessageSizeTooLargeError, match=r"max\.message\.bytes \(1000\)"):
            producer.send("small", bytes(1000))

    assert values(broker, "small") == [b"%090d" % n for n in range(100)]


def test_unkeyed_records_change_partition_with_each_batch(broker):
    with Producer(broker, linger_ms=LONG, batch_size=1000) as producer:
        places = [producer.send("orders", bytes(90)) for _ in range(200)]
        producer.flush()
        places = [future.get().partition for future in places]

    assert set(places) == {0, 1, 2}
    assert 15 <= sum(one != other for one, other in pairwise(places)) <= 40


def test_values_are_taken_as_they_are_when_they_are_sent(broker):
    value, headers = bytearray(b"then"), {"h": b"then"}
    with Producer(broker, linger_ms=LONG) as producer:
        producer.send("one", value, headers=headers)
        value[:] = b"now!"
        headers["h"] = b"now!"

    (record,) = broker.read("one")
    assert (record.value, record.headers) == (b"then", (("h", b"then"),))


def test_timestamp_is_that_of_the_send(broker):
    with Producer(broker, linger_ms=LONG) as producer:
        before = time.time_ns() // 1_000_000
        future = producer.send("one", b"v")
        after = time.time_ns() // 1_000_000
        time.sleep(0.05)
        producer.flush()

    (record,) = broker.read("one")
    assert before <= record.timestamp <= after
    assert future.get().timestamp == record.timestamp


# ---- waiting -------------------------------------------------------------------------------------


def test_flush_waits_for_all_that_was_sent(broker):
    with Producer(broker, linger_ms=LONG) as producer:
        futures = [producer.send("orders", b"%d" % n, partition=n % 3) for n in range(100)]
        producer.flush()

        assert all(future.done() for future in futures)
        producer.flush()


@pytest.mark.parametrize("wait", [
    lambda producer, future: producer.flush(timeout=0.05),
    lambda producer, future: future.get(timeout=0.05),
    lambda producer, future: future.exception(timeout=0),
], ids=["flush", "get", "exception"])
def test_wait_that_takes_too_long_is_told_and_loses_nothing(broker, wait):
    with Producer(broker, linger_ms=LONG) as producer:
        with held_up(producer):
            future = producer.send("one", b"second")
            with pytest.raises(TimeoutError, match="still in the buffer"):
                wait(producer, future)
        producer.flush()
        assert future.get(30).offset == 1


def test_threads_that_are_the_first_to_send_to_a_topic_share_its_batches(broker, monkeypatch):
    find, both = Producer._find, threading.Barrier(2)

    def find_together(self, topic):
        both.wait(30)
        return find(self, topic)

    def send(number):
        for place in range(100):
            producer.send("one", b"%d %d" % (number, place))

    monkeypatch.setattr(Producer, "_find", find_together)
    with Producer(broker, linger_ms=LONG) as producer:
        threads = [threading.Thread(target=send, args=(number,)) for number in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        producer.flush()

    assert len(batches(broker)) == 1
    for number in (b"0", b"1"):
        sent = [int(value.split()[1]) for value in values(broker, "one")
                if value.startswith(number + b" ")]
        assert sent == list(range(100))


def test_callbacks_are_called_in_order_whatever_one_raises(broker, caplog):
    seen = []
    with Producer(broker, linger_ms=LONG) as producer:
        for n in range(3):
            future = producer.send("one", b"v")
            future.add_callback(lambda n, metadata: seen.append((n, metadata.offset)), n)
            future.add_errback(seen.append)
            future.add_done_callback(lambda _: 1 / 0)

    assert seen == [(0, 0), (1, 1), (2, 2)]
    assert caplog.text.count("ZeroDivisionError") >= 3


def test_ctrl_c_in_close_loses_nothing_and_close_can_be_called_again(tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    producer = Producer(tmp_path / "data", linger_ms=LONG)
    with held_up(producer):
        sent = producer.send("one", b"v")
        with monkeypatch.context() as context:
            context.setattr(producer._accumulator._progress, "wait_for", interrupted)
            with pytest.raises(KeyboardInterrupt):
                producer.close()
    producer.close()
    assert sent.get(30).offset == 1
    assert producer._broker.closed


@pytest.mark.parametrize("error", [SystemExit, asyncio.CancelledError, KeyboardInterrupt])
def test_no_callback_ends_the_thread_that_appends(broker, error):
    seen = []

    def leave(_):
        raise error

    with Producer(broker, linger_ms=LONG) as producer:
        sent = [producer.send("one", b"%d" % n) for n in range(2)]
        for future in sent:
            future.add_done_callback(leave)
            future.add_done_callback(seen.append)
        producer.flush(30)
        producer.send("one", b"2")
        producer.flush(30)
    assert seen == sent
    assert values(broker, "one") == [b"0", b"1", b"2"]


@pytest.mark.parametrize("action", ["flush", "close"])
def test_callback_that_would_wait_for_itself_is_told(broker, action):
    found = []

    def act(_):
        try:
            getattr(producer, action)()
        except pylog.IllegalStateError as error:
            found.append(str(error))

    with Producer(broker, linger_ms=LONG) as producer:
        future = producer.send("one", b"v")
        future.add_done_callback(act)
        producer._accumulator.drain()
        eventually(lambda: found)    # the callbacks follow the waiters
    assert len(found) == 1
    assert "in a callback" in found[0]


def test_callback_may_send_and_ask_but_not_wait(broker):
    found = []

    def act(_):
        again = producer.send("one", b"again")
        try:
            again.get(30)
        except pylog.IllegalStateError as error:
            found.append(str(error))

    with Producer(broker, linger_ms=LONG) as producer:    # else it may be this thread that calls it
        producer.send("one", b"v").add_done_callback(act)
        producer.flush()
        eventually(lambda: found)
    assert len(found) == 1
    assert values(broker, "one") == [b"v", b"again"]


# ---- a full buffer -------------------------------------------------------------------------------


def test_full_buffer_blocks_and_then_raises_and_what_was_accepted_is_kept(broker):
    with Producer(broker, linger_ms=LONG, buffer_memory=3000, max_block_ms=50) as producer:
        accepted = [b"first"]
        with held_up(producer):
            for n in range(100):
                try:
                    producer.send("one", b"%090d" % n)
                except pylog.PylogTimeoutError as error:
                    message, timeout = str(error), error.timeout_ms
                    break
                accepted.append(b"%090d" % n)
            assert 10 < len(accepted) < 40
            assert "buffer is full" in message
            assert "nothing was sent" in message
            assert timeout == 50
            assert producer.metrics()["producer-metrics"]["buffer-available-bytes"] < 200

    assert values(broker, "one") == accepted


def test_blocked_sender_goes_on_when_there_is_room(broker):
    with Producer(broker, linger_ms=LONG, buffer_memory=2000, max_block_ms=30_000) as producer:
        with held_up(producer):
            done = []
            sender = threading.Thread(target=lambda: done.extend(
                producer.send("one", b"%090d" % n) for n in range(100)))
            sender.start()
            deadline = time.monotonic() + 30
            while not producer.metrics()["producer-metrics"]["waiting-threads"]:
                assert time.monotonic() < deadline
                time.sleep(0.001)
        sender.join(30)
        assert len(done) == 100

    assert values(broker, "one")[1:] == [b"%090d" % n for n in range(100)]


def test_record_that_no_buffer_would_take_is_refused_at_once(broker):
    with Producer(broker, linger_ms=LONG, buffer_memory=1000) as producer:
        with pytest.raises(pylog.MessageSizeTooLargeError, match="buffer_memory"):
            producer.send("one", bytes(2000))
        producer.send("one", b"fits")

    assert values(broker, "one") == [b"fits"]


def test_sender_that_waits_for_room_is_told_of_a_close(broker):
    producer = Producer(broker, linger_ms=LONG, buffer_memory=500, max_block_ms=30_000)
    found = []

    def send():
        try:
            producer.send("one", bytes(300))
        except pylog.ClosedError as error:
            found.append(error)

    with held_up(producer):
        producer.send("one", bytes(300))
        sender = threading.Thread(target=send)
        sender.start()
        while not producer.metrics()["producer-metrics"]["waiting-threads"]:
            time.sleep(0.001)
        closer = threading.Thread(target=producer.close)
        closer.start()
        sender.join(30)
        assert len(found) == 1
    closer.join(30)
    assert len(values(broker, "one")) == 2


# ---- what fails ----------------------------------------------------------------------------------


def send_to_a_log_that_closes(producer, broker):
    """Two records in a batch that cannot be appended; their futures."""
    lost = [producer.send("one", b"lost"), producer.send("one", b"lost too")]
    broker.log("one").close()
    return lost


def test_failed_batch_is_told_by_each_of_its_futures(broker):
    with Producer(broker, linger_ms=LONG) as producer:
        lost = send_to_a_log_that_closes(producer, broker)
        told = []
        lost[1].add_errback(told.append)
        lost[1].add_callback(told.append)
        for future in lost:
            for _ in range(2):
                with pytest.raises(pylog.ClosedError):
                    future.get(30) if future.done() else producer.flush() or future.get(30)
            assert future.failed()
            assert not future.succeeded()
            assert future.value is None
            assert "failed" in repr(future)
        assert lost[0].exception() is not lost[0].exception()
        eventually(lambda: told)    # the callbacks follow the waiters
        assert [type(error) for error in told] == [pylog.ClosedError]
        assert producer.metrics()["producer-metrics"]["record-error-total"] == 2
        assert producer.metrics()["producer-metrics"]["records-pending"] == 0


def test_batches_behind_a_failed_one_go_on(broker):
    with Producer(broker, linger_ms=LONG) as producer:
        lost = send_to_a_log_that_closes(producer, broker)
        with pytest.raises(pylog.ClosedError):
            producer.flush()
        kept = producer.send("one", b"kept")
        producer.flush()
        assert kept.get().offset == 0
        assert all(future.failed() for future in lost)

    assert values(broker, "one") == [b"kept"]


@pytest.mark.parametrize("end", ["flush", "close"])
def test_what_nobody_asked_about_is_raised_at_the_end(broker, end):
    producer = Producer(broker, linger_ms=LONG)
    send_to_a_log_that_closes(producer, broker)

    with pytest.raises(pylog.ClosedError) as caught:
        getattr(producer, end)()
    assert "2 record(s) that were sent are not in the log" in caught.value.__notes__[0]
    producer.close()


@pytest.mark.parametrize("ask", [
    lambda future: future.exception(30), lambda future: future.failed(),
    lambda future: future.succeeded(), lambda future: future.value,
], ids=["exception", "failed", "succeeded", "value"])
def test_what_was_asked_about_is_not_raised_again(broker, ask):
    with Producer(broker, linger_ms=LONG) as producer:
        future, _ = send_to_a_log_that_closes(producer, broker)
        producer._accumulator.drain()
        ask(future)
        producer.flush()


def test_error_that_was_caught_keeps_no_frames_alive(broker):
    class Witness:
        pass

    def ask(future):
        witness = Witness()
        with pytest.raises(pylog.ClosedError):
            future.get(30)
        return witness is None

    with Producer(broker, linger_ms=LONG) as producer:
        future, _ = send_to_a_log_that_closes(producer, broker)
        producer._accumulator.drain()
        ask(future)
        gc.collect()
        # By its type: a proxy of some other test's object that is gone raises when it is asked.
        assert not [one for one in gc.get_objects() if type(one) is Witness]


def test_close_that_takes_too_long_gives_up_what_has_not_begun_and_says_so(broker):
    producer = Producer(broker, linger_ms=LONG)
    with held_up(producer):
        future = producer.send("one", b"second")
        with pytest.raises(pylog.PylogTimeoutError, match=r"1 record.* not in the log"):
            producer.close(timeout=0.05)
        with pytest.raises(pylog.ClosedError, match="send it again"):
            future.get(0)
    assert values(broker, "one") == [b"first"]


# ---- ends without a close ------------------------------------------------------------------------


def test_dropped_producer_warns_and_loses_nothing(broker):
    producers = [Producer(broker, linger_ms=LONG)]
    future = producers[0].send("one", b"v")

    with pytest.warns(ResourceWarning, match=r"1 record\(s\) in its buffer"):
        producers.clear()

    assert future.get(30).offset == 0


def test_dropped_producer_logs_what_is_lost(broker, caplog):
    producers = [Producer(broker, linger_ms=LONG)]
    send_to_a_log_that_closes(producers[0], broker)
    thread = producers[0]._accumulator._thread
    with pytest.warns(ResourceWarning):
        producers.clear()
    thread.join(30)

    assert "2 record(s) are not in the log: the log is closed" in caplog.text


def test_dropped_producer_ends_its_thread(broker):
    producer = Producer(broker, linger_ms=1)
    producer.send("one", b"v").get(30)
    thread = producer._accumulator._thread
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        del producer
        gc.collect()
    thread.join(30)

    assert not thread.is_alive()


def run_script(path, text):
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(text), str(path)], cwd=ROOT,
        capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(("broker", "end"), [
    ("path", ""), ("Broker(path)", ""), ("path", "sys.exit(0)"), ("Broker(path)", "1 / 0"),
    ("path", "del producer"),
])
def test_process_that_just_ends_loses_nothing(tmp_path, end, broker):
    done = run_script(tmp_path / "data", f"""
        import sys
        from pylog import Producer
        from pylog.broker import Broker
        path = sys.argv[1]
        producer = Producer({broker}, linger_ms=60_000)
        for n in range(10):
            producer.send("one", b"%d" % n)
        {end}
    """)

    assert done.returncode == ("1 / 0" in end), done.stderr
    with Broker(tmp_path / "data") as broker:
        assert values(broker, "one") == [b"%d" % n for n in range(10)]


def test_process_that_ends_tells_what_is_lost(tmp_path):
    done = run_script(tmp_path / "data", """
        import sys
        from pylog import Producer
        from pylog.broker import Broker
        broker = Broker(sys.argv[1])
        producer = Producer(broker, linger_ms=60_000)
        producer.send("one", b"lost")
        broker.log("one").close()
    """)

    assert "the log is closed" in done.stderr


@pytest.mark.parametrize("round_number", range(3))
def test_what_was_acknowledged_survives_a_kill(broker, seed, round_number):
    source, target = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            with Broker(broker.path) as own, Producer(own, linger_ms=1, batch_size=500) as producer:
                for n in range(1_000_000):
                    future = producer.send("one", b"%d" % n)
                    future.add_callback(lambda n, _: os.write(target, b"%d\n" % n), n)
        finally:
            os._exit(1)
    os.close(target)
    with os.fdopen(source, "rb") as pipe:
        pipe.readline()    # it is under way
        time.sleep(random.Random(seed).uniform(0, 0.05))
        os.kill(pid, signal.SIGKILL)
        acknowledged = pipe.read().rpartition(b"\n")[0].splitlines()
    os.waitpid(pid, 0)

    with Broker(broker.path) as other:
        stored = values(other, "one")
    assert stored == [b"%d" % n for n in range(len(stored))], "a hole, or another order"
    assert len(stored) > int((acknowledged or [b"0"])[-1])


def test_idle_producer_sleeps(broker):
    with Producer(broker, linger_ms=1) as producer:
        producer.send("one", b"v").get(30)

        def sleep(number):    # other threads of this process may have something to do
            before = time.process_time()
            time.sleep(0.5)
            return time.process_time() - before

        assert_once_below(0.05, sleep)
