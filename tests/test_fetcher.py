"""The native half of a consumer: words that are watched, waits, and what an idle one costs."""

import mmap
import os
import resource
import signal
import threading
import time

import pytest

import pylog
from pylog import _native
from pylog.broker import Broker
from pylog.consumer import Consumer


@pytest.fixture
def broker(log_path):
    with Broker(log_path) as broker:
        yield broker


def used(before):
    after = resource.getrusage(resource.RUSAGE_SELF)
    return (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
            after.ru_nvcsw - before.ru_nvcsw)


class Turning(_native.Fetcher):
    """Counts its turns, which are due every 30 s."""

    turns = 0

    def _turn(self):
        self.turns += 1
        return 30_000

    def _not_assigned(self, partition):
        return KeyError(partition)


def test_next_is_the_native_function_in_subclasses_too():
    assert type(Consumer.__next__) is type(list.__iter__)
    assert "__next__" not in vars(Consumer)


def test_word_that_changes_ends_a_wait_and_turns():
    memory = mmap.mmap(-1, 4096)

    class Changing(Turning):
        def _turn(self):
            if not self.turns:    # the wait that it is to end begins after this one
                timer.start()
            return super()._turn()

    def change():
        memory[0] += 1
        changed.append(time.monotonic())

    # A wait of 0.3 s may be over before a slow machine has let the other thread change the word.
    for seconds in (0.3, 3, 30):
        fetcher, timer, changed = Changing(), threading.Timer(0.05, change), []
        fetcher._watch(_native.Word(memory))
        start = time.monotonic()
        assert fetcher._poll(1, seconds) == {}
        end = time.monotonic()
        timer.join()
        assert end - start >= seconds - 0.01
        if changed[0] < start + seconds / 2:
            break

    assert fetcher.turns == 2


def test_word_is_looked_at_between_blocks(broker):
    memory = mmap.mmap(-1, 4096)
    broker.log("orders").append_many([b"value"] * 100)
    fetcher = Turning()
    fetcher._add("orders", broker.log("orders"), 0)
    fetcher._watch(_native.Word(memory))
    next(fetcher)
    memory[0] = 1

    for _ in range(40):
        next(fetcher)

    assert fetcher.turns == 2


@pytest.mark.parametrize("buffer", [
    pytest.param(b"12345678", id="read-only"), pytest.param(bytearray(7), id="short"),
    pytest.param(memoryview(bytearray(16))[1:9], id="crooked"), 7, "12345678",
])
def test_what_is_no_word_is_refused(buffer):
    with pytest.raises((BufferError, ValueError, TypeError)):
        _native.Word(buffer)


def test_at_most_seven_words_are_watched():
    fetcher = Turning()
    words = [_native.Word(mmap.mmap(-1, 4096)) for _ in range(8)]
    for word in words[:7]:
        fetcher._watch(word)

    with pytest.raises(ValueError, match="7"):
        fetcher._watch(words[7])


def test_partition_that_is_not_there_is_named():
    fetcher = Turning()

    for ask in (fetcher._remove, fetcher._place, fetcher._log, lambda p: fetcher._seek(p, 0),
                lambda p: fetcher._pause(p, True)):
        with pytest.raises(KeyError, match="orders"):
            ask("orders")


def take_by_next(fetcher):
    return next(fetcher)


def take_by_poll(fetcher):
    return fetcher._poll(10, 0.1)


@pytest.mark.parametrize("take", [take_by_next, take_by_poll])
@pytest.mark.parametrize(("moves", "place"), [
    (lambda fetcher: None, 3),
    (lambda fetcher: fetcher._seek("orders", 70), 70),
    (lambda fetcher: fetcher._seek("orders", 3), 3),
])
def test_who_fails_stands_at_the_record_or_where_it_has_sought_itself(broker, take, moves, place):
    def convert(record):
        if record.offset < 3:
            return record
        moves(fetcher)
        raise ZeroDivisionError

    broker.log("orders").append_many([b"value"] * 100)
    fetcher = Turning()
    fetcher._configure(convert, 0, False)
    fetcher._add("orders", broker.log("orders"), 3)

    with pytest.raises(ZeroDivisionError):
        take(fetcher)

    assert fetcher._place("orders") == place
    fetcher._configure(None, 0, False)
    assert next(fetcher).offset == place


def test_record_that_fails_after_the_next_was_taken_does_not_come_twice(broker):
    def convert(record):
        if record.offset == 3:
            taken.append(next(fetcher).offset)
            raise ZeroDivisionError
        return record

    broker.log("orders").append_many([b"value"] * 100)
    taken, fetcher = [], Turning()
    fetcher._configure(convert, 0, False)
    fetcher._add("orders", broker.log("orders"), 3)

    with pytest.raises(ZeroDivisionError):
        next(fetcher)

    assert taken == [4]
    assert next(fetcher).offset == 5


def test_turn_that_raises_is_asked_again(broker):
    class Raising(Turning):
        def _turn(self):
            super()._turn()
            if self.turns < 3:
                raise ZeroDivisionError
            return 30_000

    broker.append("orders", b"value")
    fetcher = Raising()
    fetcher._add("orders", broker.log("orders"), 0)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            next(fetcher)

    assert next(fetcher).value == b"value"


def test_signal_handlers_run_in_the_wait(broker):
    def interrupt(*unused):
        raise InterruptedError

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with Consumer(broker, "orders") as consumer:
            consumer.poll()
            with pytest.raises(InterruptedError):
                signal.setitimer(signal.ITIMER_REAL, 0.05)
                next(consumer)
    finally:
        signal.signal(signal.SIGALRM, before)


@pytest.mark.slow
def test_idle_consumer_of_many_partitions_costs_hardly_any_time(broker):
    broker.create_topic("wide", 50)
    with Consumer(broker, "wide") as consumer:
        consumer.poll(timeout_ms=1100)    # the first second looks for signals more often
        before = resource.getrusage(resource.RUSAGE_SELF)

        consumer.poll(timeout_ms=2000)

        seconds, switches = used(before)
    assert seconds < 0.05
    assert switches < 60


def test_consumer_with_a_record_in_hand_lets_the_ticks_rest(broker):
    broker.append("orders", b"value")
    with Consumer(broker, "orders") as consumer:
        next(consumer)
        time.sleep(0.15)
        before = resource.getrusage(resource.RUSAGE_SELF)

        time.sleep(0.5)

        assert used(before)[1] < 20


@pytest.mark.parametrize("kill", [False, True])
def test_records_of_a_writer_arrive_whole_and_once(broker, kill):
    broker.create_topic("orders", 3)
    path, count = broker.path, 3000
    pid = os.fork()
    if pid == 0:
        try:
            with Broker(path) as other:
                for number in range(count):
                    other.append("orders", b"%d" % number, partition=number % 3)
                if kill:
                    os.kill(os.getpid(), signal.SIGKILL)
        finally:
            os._exit(0)
    found = {0: [], 1: [], 2: []}
    with Consumer(broker, "orders", consumer_timeout_ms=30_000) as consumer:
        for record in consumer:
            found[record.partition].append(int(record.value))
            if sum(map(len, found.values())) == count:
                break
    os.waitpid(pid, 0)

    assert found == {p: list(range(p, count, 3)) for p in range(3)}


def test_damage_is_named_or_stepped_over_and_counted(broker):
    log = broker.log("orders")
    for _ in range(3):
        log.append_many([b"x" * 100] * 10)
        log.flush()
    (segment,) = log.path.glob("*.log")
    with open(segment, "r+b") as file:
        data = file.read()
        at = data.index(b"x" * 100, len(data[:data.index(b"x" * 100)]) + 1400)
        file.seek(at + 50)
        file.write(b"y")
    log._forget_verified()
    with Consumer(broker, "orders", consumer_timeout_ms=0) as consumer:
        with pytest.raises(pylog.CorruptRecordError):
            list(consumer)
    with Consumer(broker, "orders", consumer_timeout_ms=0, on_corruption="skip") as consumer:
        assert len(list(consumer)) == 20
        assert consumer.metrics()["consumer-fetch-manager-metrics"]["damage-skipped-total"] == 1
