"""Idempotency: one recorded result a key, whoever asks, whoever dies."""

import asyncio
import os
import signal
import threading
import time
from collections import Counter

import pytest
from children import in_child, kill, killed, start

import pylog
from pylog import Broker
from pylog.patterns.idempotency import Idempotency


@pytest.fixture
def broker(tmp_path):
    with Broker(tmp_path / "data") as broker:
        yield broker


@pytest.fixture
def payments(broker):
    return Idempotency(broker, "payments")


class Interrupted:
    """A state whose change is interrupted right behind it, as by a signal whose handler raises."""

    def __init__(self, state):
        self._state = state
        self.is_due = True

    def __getattr__(self, name):
        return getattr(self._state, name)

    def change(self, decide):
        done = self._state.change(decide)
        if self.is_due:
            self.is_due = False
            raise KeyboardInterrupt
        return done


def do(idempotency, key, result=None, **options):
    """(whether it had been done before, the result)"""
    with idempotency.claim(key, **options) as claim:
        if claim.done:
            return True, claim.result
        claim.save(result)
        return False, claim.result


def test_who_comes_second_gets_what_the_first_has_saved(broker, payments):
    assert do(payments, "17", {"charged": 12}) == (False, {"charged": 12})

    assert do(payments, "17", "never") == (True, {"charged": 12})
    assert do(Idempotency(broker, "payments"), b"17") == (True, {"charged": 12})
    assert in_child(lambda: do_in(broker.path, "17")) == (True, {"charged": 12})
    assert do(payments, "18", None) == (False, None)
    assert do(payments, "18", "never") == (True, None)
    assert len(payments) == 2


def do_in(path, key, result=None, **options):
    with Broker(path) as broker:
        return do(Idempotency(broker, "payments"), key, result, **options)


def test_names_do_not_know_each_others_keys(broker, payments):
    do(payments, "17", 1)

    assert do(Idempotency(broker, "emails"), "17", 2) == (False, 2)


def test_key_is_free_again_when_its_claimant_raises_or_saves_nothing(payments):
    with pytest.raises(ZeroDivisionError):
        with payments.claim("17"):
            raise ZeroDivisionError
    with payments.claim("17") as claim:
        assert not claim.done

    assert len(payments) == 0
    assert do(payments, "17", "done") == (False, "done")


def test_one_that_is_in_progress_is_waited_for(payments):
    entered, results = threading.Event(), []

    def first():
        with payments.claim("17") as claim:
            entered.set()
            time.sleep(0.1)
            claim.save("first")

    thread = threading.Thread(target=first)
    thread.start()
    entered.wait()
    results.append(do(payments, "17", "second"))
    thread.join()

    assert results == [(True, "first")]


def test_one_that_is_in_progress_for_too_long_is_an_error_that_names_it(payments):
    with payments.claim("17"):
        begun = time.monotonic()
        with pytest.raises(pylog.KeyInProgressError, match=f"in process {os.getpid()} ") as caught:
            do(payments, "17", timeout=0.1)
        assert 0.1 <= time.monotonic() - begun < 20
        with pytest.raises(TimeoutError):
            do(payments, "17", timeout=0)

    assert caught.value.key == b"17"
    assert caught.value.holder_pid == os.getpid()
    assert caught.value.retriable
    assert do(payments, "17", 1) == (False, 1)


def test_claim_of_a_process_that_was_killed_lapses_at_once(broker, payments):
    def act():
        other = Broker(broker.path)
        claim = Idempotency(other, "payments").claim("17")
        claim.__enter__()
        return other, claim

    killed(act)

    assert do(payments, "17", "taken over", timeout=5) == (False, "taken over")    # its ttl: a day


def test_who_waits_has_the_key_soon_after_its_claimant_was_killed(broker, payments, tmp_path):
    def hold():
        other = Broker(broker.path)
        with Idempotency(other, "payments").claim("17"):
            (tmp_path / "held").touch()
            time.sleep(60)

    pid = start(hold)
    while not (tmp_path / "held").exists():
        time.sleep(0.002)
    timer = threading.Timer(0.1, kill, [pid])
    begun = time.monotonic()
    timer.start()

    assert do(payments, "17", "mine") == (False, "mine")
    assert 0.09 < time.monotonic() - begun < 20
    timer.join()


def test_claimant_that_is_stopped_keeps_its_key(broker, payments, tmp_path):
    def hold():
        other = Broker(broker.path)
        with Idempotency(other, "payments").claim("17") as claim:
            (tmp_path / "held").touch()
            while not (tmp_path / "go").exists():
                time.sleep(0.002)
            claim.save("theirs")

    pid = start(hold)
    while not (tmp_path / "held").exists():
        time.sleep(0.002)
    os.kill(pid, signal.SIGSTOP)
    try:
        with pytest.raises(pylog.KeyInProgressError, match=f"in process {pid} "):
            do(payments, "17", "mine", timeout=0.2)
        (tmp_path / "go").touch()
    finally:
        os.kill(pid, signal.SIGCONT)

    assert do(payments, "17", "mine") == (True, "theirs")
    assert os.waitpid(pid, 0)[1] == 0


def test_key_with_another_fingerprint_is_refused(payments):
    do(payments, "17", "done", fingerprint="12 apples")

    assert do(payments, "17", fingerprint=b"12 apples") == (True, "done")
    assert do(payments, "17") == (True, "done")
    with pytest.raises(pylog.FingerprintMismatchError, match="first used for something else"):
        do(payments, "17", fingerprint="13 apples")
    with payments.claim("18", fingerprint="a"), pytest.raises(ValueError, match="another"):
        do(payments, "18", fingerprint="b")


def test_result_is_forgotten_when_its_time_is_over(broker):
    now = [1_000_000.0]
    payments = Idempotency(broker, "payments", ttl=60, clock=lambda: now[0])
    do(payments, "17", "first")
    now[0] += 59
    assert do(payments, "17", "second") == (True, "first")
    now[0] += 1

    assert do(payments, "17", "second") == (False, "second")
    assert broker.topic("idempotency.payments").configs["retention.ms"] == "60000"


def test_claim_that_took_longer_than_the_ttl_records_nothing_over_anothers_result(broker):
    now = [1_000_000.0]
    payments = Idempotency(broker, "payments", ttl=60, clock=lambda: now[0])

    with pytest.raises(pylog.ClaimLostError, match="set a longer ttl"):
        with payments.claim("17") as late:
            now[0] += 60
            assert do(payments, "17", "theirs") == (False, "theirs")
            late.save("mine")

    assert do(payments, "17") == (True, "theirs")


def test_claim_is_lost_with_its_topic(broker, payments):
    with pytest.raises(pylog.ClaimLostError):
        with payments.claim("17") as claim:
            broker.delete_topic("idempotency.payments")
            claim.save("mine")

    assert do(payments, "17", "again") == (False, "again")


def test_result_that_cannot_be_serialized_is_told_and_frees_the_key(payments):
    with pytest.raises(pylog.SerializationError):
        do(payments, "17", object())

    assert do(payments, "17", 1) == (False, 1)


@pytest.mark.parametrize(("value", "result"), [
    (None, b"\x00\xff"), ("str", "text"), ("json", [1, {"a": None}])])
def test_results_are_what_the_serde_makes(broker, value, result):
    payments = Idempotency(broker, "payments", value=value)

    do(payments, "17", result)

    assert do(Idempotency(broker, "payments", value=value), "17") == (True, result)


def test_keys_are_listed_with_how_they_stand(broker, payments):
    do(payments, "17", {"charged": 12})
    killed(lambda: claimed_in(broker.path, "18"))
    with payments.claim("19"):
        listed = payments.list()
        assert in_child(lambda: [(one.state, one.pid) for one in listed_in(broker.path)]) == [
            ("done", None), ("abandoned", None), ("in_progress", os.getpid())]
    done, abandoned, claimed = listed

    assert (done.key, done.value) == (b"17", b'{"charged":12}')
    assert done.expires - done.changed == 86_400_000
    assert abs(done.changed / 1000 - time.time()) < 60
    assert (abandoned.key, claimed.key, claimed.value) == (b"18", b"19", None)
    assert [one.key for one in payments.list()] == [b"17", b"18"]    # the last was freed
    assert [one.expires for one in Idempotency(broker, "payments", None).list()] == [None, None]


def claimed_in(path, key):
    broker = Broker(path)
    claim = Idempotency(broker, "payments").claim(key)
    claim.__enter__()
    return broker, claim


def listed_in(path):
    with Broker(path) as broker:
        return Idempotency(broker, "payments").list()


def test_records_that_make_no_sense_are_skipped(broker, payments):
    do(payments, "17", "done")
    for headers in ([], [("idempotency_state", b"done")], [("idempotency_state", b"lost"),
                    ("idempotency_claimant", b"1:2:3")], [("idempotency_state", b"claimed"),
                    ("idempotency_claimant", b"me")], [("idempotency_state", b"claimed"),
                    ("idempotency_claimant", b"1:%d:3" % (1 << 64))]):
        broker.append("idempotency.payments", b"?", key=b"17", headers=headers)

    assert do(payments, "17") == (True, "done")
    assert do(Idempotency(broker, "payments"), "17") == (True, "done")


# ---- misuse


def test_saving_what_is_not_claimed_is_refused(payments):
    claim = payments.claim("17")
    with pytest.raises(pylog.IllegalStateError, match="not claimed"):
        claim.save(1)
    with claim:
        claim.save(1)
        with pytest.raises(pylog.IllegalStateError, match="done already"):
            claim.save(2)
    with payments.claim("17") as claim, pytest.raises(pylog.IllegalStateError):
        claim.save(3)

    assert do(payments, "17") == (True, 1)


def test_claim_is_entered_once_at_a_time_and_again_afterwards(payments):
    claim = payments.claim("17")
    with claim:
        with pytest.raises(pylog.IllegalStateError, match="has the key"):
            claim.__enter__()
    with claim:
        claim.save(1)
    with claim:
        assert (claim.done, claim.result) == (True, 1)


@pytest.mark.parametrize("key", [None, 17, 1.5, ("a",), bytearray(b"k")])
def test_what_is_no_key_is_refused(payments, key):
    with pytest.raises(TypeError, match="a key must be"):
        payments.claim(key)


@pytest.mark.parametrize("key", ["", b""])
def test_an_empty_key_is_not_shared_by_all_that_have_none(payments, key):
    with pytest.raises(pylog.ConfigurationError, match="the key is empty"):
        payments.claim(key)
    with pytest.raises(pylog.ConfigurationError, match="the key is empty"):
        payments.once(key=lambda order: order["id"])(print)({"id": key})


@pytest.mark.parametrize(("options", "error"), [
    ({"name": 7}, TypeError), ({"name": ""}, pylog.InvalidTopicError),
    ({"name": "a/b"}, pylog.InvalidTopicError),
    ({"name": "a" * 250}, pylog.InvalidTopicError), ({"ttl": 0}, pylog.ConfigurationError),
    ({"ttl": "day"}, TypeError), ({"value": "jsn"}, pylog.ConfigurationError),
    ({"value": 7}, pylog.ConfigurationError), ({"broker": None}, TypeError)], ids=str)
def test_what_makes_no_idempotency_is_refused(broker, options, error):
    with pytest.raises(error):
        Idempotency(**{"broker": broker, "name": "payments", **options})


def test_fingerprint_must_be_text_or_bytes(payments):
    with pytest.raises(TypeError, match="a fingerprint must be"):
        payments.claim("17", fingerprint={"a": 1})


@pytest.mark.parametrize(("timeout", "error"), [
    ("1", TypeError), (-1, pylog.ConfigurationError), (float("nan"), pylog.ConfigurationError)])
def test_what_is_no_time_to_wait_is_refused(payments, timeout, error):
    with pytest.raises(error, match="timeout"):
        payments.claim("17", timeout=timeout)


def test_one_that_is_closed_claims_no_more(broker):
    payments = Idempotency(broker, "payments")
    payments.close()
    with pytest.raises(pylog.ClosedError, match="is closed; make another"):
        payments.claim("17")
    with pytest.raises(pylog.ClosedError, match="is closed; make another"):
        payments.list()


def test_a_path_is_opened_and_closed(tmp_path):
    with Idempotency(tmp_path / "data", "payments") as payments:
        do(payments, "17", 1)

    with pytest.raises(pylog.ClosedError):
        do(payments, "17")


# ---- once


def test_once_without_a_key_is_told_at_the_first_call(payments):
    @payments.once
    def charge(order):
        raise AssertionError

    with pytest.raises(TypeError, match="charge was taken for the key: write @once"):
        charge({"id": 1})
    with pytest.raises(TypeError, match="key must be a function"):
        payments.once(key="id")


def test_once_calls_a_function_once_a_key(payments):
    calls = []

    @payments.once(key=lambda order, **rest: order["id"])
    def charge(order, amount=1):
        """Charges."""
        calls.append(order["id"])
        return amount

    assert [charge({"id": "17"}, amount=5), charge({"id": "17"}), charge({"id": "18"})] == [5, 5, 1]
    assert calls == ["17", "18"]
    assert (charge.__name__, charge.__doc__) == ("charge", "Charges.")


def test_once_records_nothing_of_a_function_that_raises(payments):
    fails = [True, False]

    @payments.once(key=lambda: "17")
    def charge():
        if fails.pop(0):
            raise ConnectionError
        return "charged"

    with pytest.raises(ConnectionError):
        charge()
    assert charge() == charge() == "charged"


def test_once_compares_fingerprints(payments):
    charge = payments.once(key=lambda key, body: key, fingerprint=lambda key, body: body)(
        lambda key, body: body)

    assert charge("17", "12 apples") == charge("17", "12 apples") == "12 apples"
    with pytest.raises(pylog.FingerprintMismatchError):
        charge("17", "13 apples")


def test_once_runs_one_of_many_threads(payments):
    calls = []

    @payments.once(key=lambda: "17")
    def slow():
        calls.append(1)
        time.sleep(0.05)
        return "slow"

    results = []
    threads = [threading.Thread(target=lambda: results.append(slow())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert (results, calls) == (["slow"] * 8, [1])


def test_once_runs_one_of_many_tasks(payments):
    calls = []

    @payments.once(key=lambda number: "17")
    async def slow(number):
        calls.append(number)
        await asyncio.sleep(0.02)
        return number

    async def main():
        return await asyncio.gather(*(slow(number) for number in range(8)))

    assert asyncio.run(main()) == [0] * 8
    assert calls == [0]


def test_task_that_is_cancelled_frees_its_key(payments):
    async def main():
        async def hold():
            async with payments.claim("17"):
                await asyncio.sleep(60)

        task = asyncio.ensure_future(hold())
        await asyncio.sleep(0.01)
        with pytest.raises(pylog.KeyInProgressError):
            async with payments.claim("17", timeout=0.02):
                pass
        waiting = asyncio.ensure_future(payments.claim("17").__aenter__())
        await asyncio.sleep(0.01)
        waiting.cancel()
        task.cancel()
        await asyncio.gather(task, waiting, return_exceptions=True)
        async with payments.claim("17", timeout=0) as claim:
            claim.save("after")

    asyncio.run(main())
    assert do(payments, "17") == (True, "after")


# ---- kills


def work(path, effects, keys):
    """Does each key once, writing down before and after; ends when all are done."""
    with Broker(path) as broker, open(effects, "ab", buffering=0) as file:
        payments = Idempotency(broker, "payments")
        for key in keys:
            with payments.claim(key, timeout=30) as claim:
                if not claim.done:
                    file.write(b"%s %d\n" % (key, os.getpid()))
                    claim.save(os.getpid())


@pytest.mark.slow
def test_20_kills_leave_one_recorded_result_a_key(tmp_path, rng):
    path, effects = tmp_path / "data", tmp_path / "effects"
    keys = [b"key %d" % number for number in range(20_000)]
    workers = [start(work, path, effects, keys) for _ in range(3)]
    dead = set()
    for _ in range(20):
        time.sleep(rng.uniform(0.01, 0.05))
        victim = workers.pop(rng.randrange(3))
        kill(victim)
        dead.add(victim)
        workers.append(start(work, path, effects, keys))
    half = keys[:500]
    for pid in workers:
        kill(pid)
        dead.add(pid)
    assert os.waitpid(start(work, path, effects, half), 0)[1] == 0

    done = Counter()
    with Broker(path) as broker:
        for record in broker.read("idempotency.payments"):
            done[record.key] += record.header("idempotency_state") == b"done"
        payments = Idempotency(broker, "payments")
        results = {key: do(payments, key)[1] for key in half}
    tried = {}
    for line in effects.read_bytes().splitlines():
        key, pid = line.rsplit(b" ", 1)
        tried.setdefault(key, []).append(int(pid))
    assert set(done.values()) <= {0, 1}
    assert all(done[key] == 1 for key in half)
    for key in half:
        *earlier, last = tried[key]
        assert results[key] == last
        assert set(earlier) <= dead, "an effect was repeated though its claimant lived"


def test_a_result_that_was_recorded_stays_though_save_was_interrupted(broker, payments):
    """Leaving `with` frees what is in progress, and nothing that is done."""
    with pytest.raises(KeyboardInterrupt), payments.claim("17") as claim:
        claim._store = claim._store._replace(state=Interrupted(payments._store.state))
        claim.save("charged")
    assert do(payments, "17", "charged twice") == (True, "charged")


def test_a_claim_that_was_interrupted_has_no_key(broker, payments):
    """Its process lives on, and `with` is not left, as it was not entered."""
    claim = payments.claim("17")
    claim._store = claim._store._replace(state=Interrupted(payments._store.state))
    with pytest.raises(KeyboardInterrupt), claim:
        pass
    assert do(payments, "17", "charged", timeout=0) == (False, "charged")
