"""Rpc between processes: replies to the right asker, whoever is killed or stopped."""

import os
import time

import pytest
from parties import Party, Signal, kill_at_random
from waiting import until

import pylog
from pylog import Broker
from pylog.patterns.rpc import Rpc


def serve(path, ready, delay=0.0):
    with Rpc(path, value="json") as rpc:
        server = rpc.handler(
            "square", lambda request: time.sleep(delay) or [os.getpid(), request.value ** 2])
        ready.give()
        server.join()


def in_work(rpc):
    with pylog.ShareConsumer(rpc._broker, "square", group_id="rpc.square") as shares:
        return sum(counts["held"] for counts in shares.stats().values())


def test_processes_ask_each_other(tmp_path):
    path, ready = tmp_path / "data", Signal(tmp_path / "ready")
    party = Party(serve, path, ready)
    try:
        ready.wait()
        with Rpc(path, value="json") as rpc:
            assert rpc.request("square", 12).value == [party.pid, 144]
    finally:
        party.kill()


def test_request_whose_server_is_killed_is_served_by_another(tmp_path):
    path, ready = tmp_path / "data", Signal(tmp_path / "ready")
    victim = Party(serve, path, ready, 60)
    try:
        ready.wait()
        with Rpc(path, value="json") as rpc:
            pending = rpc.submit("square", 12, timeout=20)
            until(lambda: in_work(rpc) == 1)
            heir = rpc.handler("square", lambda request: ["heir", request.value ** 2])
            time.sleep(0.05)
            assert not pending.done()
            victim.kill()
            begun = time.monotonic()
            assert pending.result().value == ["heir", 144]
            assert time.monotonic() - begun < 10
            until(lambda: heir.stats().answered == 1)
    finally:
        victim.start()
        victim.kill()


def ask(path, report, seed):
    """Asks for ever; writes down each answer that is not to its own question."""
    number = seed * 1_000_000
    with Rpc(path, value="json") as rpc, open(report, "a", buffering=1) as file:
        while True:
            number += 1
            try:
                _, square = rpc.request("square", number, timeout=1.0).value
                file.write("right\n" if square == number ** 2 else f"wrong {number} {square}\n")
            except pylog.RequestTimeoutError:
                file.write("timeout\n")


@pytest.mark.slow
def test_20_kills_of_askers_and_servers_give_nobody_a_wrong_reply(tmp_path, rng):
    path, report = tmp_path / "data", tmp_path / "report"
    parties = [Party(serve, path, Signal(tmp_path / "ready")) for _ in range(2)]
    parties += [Party(ask, path, report, seed) for seed in (1, 2)]
    try:
        kill_at_random(parties, rng, 20, (0.02, 0.15))
        before = report.read_text().count("right")
        until(lambda: report.read_text().count("right") > before + 20)
    finally:
        for party in parties:
            party.kill()

    lines = report.read_text().splitlines()
    assert not [line for line in lines if line.startswith("wrong")]
    assert lines.count("right") > 50
    assert lines.count("timeout") <= 5
    with Broker(path) as broker, Rpc(broker) as last:
        left = [name for name in broker.topics() if name.startswith("reply.")]
        assert left == [last.reply_topic]


def test_server_that_is_stopped_delays_its_requests_and_no_others(tmp_path):
    path, ready = tmp_path / "data", Signal(tmp_path / "ready")
    party = Party(serve, path, ready)
    try:
        ready.wait()
        with Rpc(path, value="json") as rpc:
            rpc.request("square", 1)
            party.pause()
            with pytest.raises(pylog.RequestTimeoutError):
                rpc.request("square", 2, timeout=0.1)
            rpc.handler("double", lambda request: 2 * request.value)
            assert rpc.request("double", 2).value == 4
            party.go_on()
            assert rpc.request("square", 3).value[1] == 9
            assert rpc.stats().late == 0    # it was over when it could have been begun
    finally:
        party.kill()


@pytest.mark.slow
@pytest.mark.parametrize("is_at_work", [False, True])
def test_stopped_servers_keep_others_from_nothing(tmp_path, is_at_work):
    path, ready = tmp_path / "data", Signal(tmp_path / "ready")
    party = Party(serve, path, ready, 60 * is_at_work)
    try:
        ready.wait()
        with Rpc(path, value="json") as rpc:
            if is_at_work:
                stuck = rpc.submit("square", 1)
                until(lambda: in_work(rpc) == 1)
            party.pause()
            rpc.handler("square", lambda request: ["other", request.value ** 2])
            for number in range(5):
                assert rpc.request("square", number).value == ["other", number ** 2]
            assert not (is_at_work and stuck.done())
    finally:
        party.kill()
