"""Servers of an Rpc: whoever is idle takes the next request, and what ends a server."""

import asyncio
import os
import sys
import threading
import time

import pytest
from parties import Party
from waiting import until

import pylog
from pylog.patterns import server as module
from pylog.patterns.rpc import AsyncRpc, Rpc
from pylog.testing import broker as broker

MANY = 20


@pytest.fixture
def rpc(broker):
    with Rpc(broker, value="json") as rpc:
        yield rpc


# ---- sharing the work


def test_as_many_requests_are_in_work_as_were_asked_for(rpc):
    all_at_once = threading.Barrier(MANY)
    rpc.handler("meet", lambda request: all_at_once.wait(10), concurrency=MANY)

    assert {one.value for one in rpc.request_many("meet", range(MANY))} == set(range(MANY))


def test_as_many_coroutines_are_in_work_as_were_asked_for(rpc):
    come, all_at_once = [], []

    async def meet(request):
        if not all_at_once:
            all_at_once.append(asyncio.Event())
        come.append(request.value)
        if len(come) == MANY:
            all_at_once[0].set()
        await asyncio.wait_for(all_at_once[0].wait(), 10)

    rpc.handler("meet", meet, concurrency=MANY)

    assert len(rpc.request_many("meet", range(MANY))) == MANY


def test_requests_behind_a_slow_one_are_taken_by_who_is_idle(rpc):
    go = threading.Event()
    for _ in range(2):
        rpc.handler("double", lambda request: 2 * request.value if request.value else go.wait(10))
    slow = rpc.submit("double", 0)

    assert [one.value for one in rpc.request_many("double", range(1, 50))] == [*range(2, 100, 2)]
    assert not slow.done()
    go.set()
    assert slow.result().value is True


def test_requests_of_a_key_are_served_one_after_the_other(rpc):
    at_work, together, order = set(), [], []

    def serve(request):
        if request.key in at_work:
            together.append(request.key)
        at_work.add(request.key)
        time.sleep(0.001)
        order.append((request.key, request.value))
        at_work.discard(request.key)

    for _ in range(2):
        rpc.handler("serve", serve, concurrency=3)
    for one in [rpc.submit("serve", number, key=f"k{number % 4}") for number in range(80)]:
        one.result()

    assert not together
    for key in range(4):
        assert [value for found, value in order if found == b"k%d" % key] == [*range(key, 80, 4)]


def test_topic_may_have_several_partitions(broker, rpc):
    broker.create_topic("double", 3)
    rpc.handler("double", lambda request: 2 * request.value)

    assert [one.value for one in rpc.request_many("double", range(50))] == [*range(0, 100, 2)]
    assert all(broker.log("double", number).end_offset for number in range(3))


@pytest.mark.parametrize("is_async", [False, True])
def test_what_a_server_has_done_is_synced_with_all_that_was_settled(tmp_path, is_async):
    async def later(request):
        pass

    with pylog.Broker(tmp_path / "broker", "interval") as broker, Rpc(broker) as rpc:
        server = rpc.handler("ask", later if is_async else lambda request: None)
        rpc.request("ask")

        def is_synced():
            broker.sync_groups()    # what the maintainer does each second
            return server._consumer._synced == {pylog.TopicPartition("ask", 0): 1}

        until(is_synced)


# ---- what goes wrong


def test_handler_that_would_end_the_interpreter_ends_no_server(rpc):
    server = rpc.handler("leave", lambda request: sys.exit(request.value) or "stays")

    with pytest.raises(pylog.RemoteError, match="SystemExit: 3"):
        rpc.request("leave", 3)
    with pytest.raises(pylog.RemoteError, match="SystemExit"):
        rpc.request("leave", 4)
    assert server.is_running


def test_coroutine_the_wait_of_which_is_cancelled_is_an_error_reply(rpc):
    @rpc.handler("leave")
    async def leave(request):
        waiting = asyncio.ensure_future(asyncio.sleep(10))
        waiting.cancel()
        await waiting

    with pytest.raises(pylog.RemoteError, match="CancelledError"):
        rpc.request("leave")


@pytest.mark.parametrize("is_async", [False, True])
def test_reply_that_cannot_be_appended_is_tried_again(rpc, monkeypatch, is_async):
    async def double_later(request):
        return 2 * request.value

    server = rpc.handler("double", double_later if is_async else
                         lambda request: 2 * request.value)
    append, failed = server._answering._append, []

    def fail_twice(*arguments):
        if len(failed) < 4:    # with its error reply each
            failed.append(1)
            raise pylog.DiskFullError("no space is left")
        return append(*arguments)

    monkeypatch.setattr(server._answering, "_append", fail_twice)

    assert rpc.request("double", 4).value == 8
    assert server.is_running


@pytest.mark.parametrize("is_async", [False, True])
def test_reply_that_can_never_be_appended_ends_no_server(broker, rpc, is_async):
    async def double_later(request):
        return 2 * request.value

    broker.create_topic("narrow", 1, {"max.message.bytes": 128})
    servers = [rpc.handler("double", double_later if is_async else
                           lambda request: 2 * request.value) for _ in range(2)]
    with Rpc(broker, "narrow", value="json") as asker:
        asker.submit("double", 1, key="k" * 200, timeout=60)
        for _ in range(20):
            assert rpc.request("double", 4).value == 8
        with pylog.ShareConsumer(broker, "double", group_id="rpc.double") as shares:
            until(lambda: sum(one["rejected"] for one in shares.stats().values()) == 1)
    assert all(server.is_running for server in servers)


def serve_and_die(path):
    with Rpc(path) as rpc:
        rpc.handler("die", lambda request: os._exit(1)).join(20)


def test_request_that_ends_whoever_takes_it_is_an_error_reply(broker, monkeypatch):
    monkeypatch.setattr(module, "MAX_DELIVERIES", 2)
    with Rpc(broker) as rpc:
        pending = rpc.submit("die", timeout=20)
        for _ in range(2):
            os.waitpid(Party(serve_and_die, broker.path).pid, 0)
        rpc.handler("die", lambda request: b"nobody dies here")

        with pytest.raises(pylog.RemoteError, match="delivered 2 times") as caught:
            pending.result()
        assert caught.value.type == "ServersDiedError"
        assert rpc.request("die").value == b"nobody dies here"


# ---- the end


@pytest.mark.parametrize("concurrency", [1, 4])
def test_stop_ends_all_threads_and_lets_them_finish(rpc, concurrency):
    begun, go = threading.Event(), threading.Event()
    server = rpc.handler("slow", lambda request: begun.set() or go.wait(10),
                         concurrency=concurrency)
    pending = rpc.submit("slow")
    assert begun.wait(10)

    with pytest.raises(pylog.PylogTimeoutError, match="at work for"):
        server.stop(0.01)
    go.set()
    server.stop(10)

    assert pending.result().value is True
    assert server.join(0)
    assert not server.is_running
    assert not [one for one in threading.enumerate() if one.name.startswith("pylog-slow")]


@pytest.mark.parametrize("concurrency", [1, 3])
def test_a_handler_may_stop_its_server(rpc, concurrency):
    servers = []
    servers.append(rpc.handler("leave", lambda request: servers[0].stop(),
                               concurrency=concurrency))

    assert rpc.request("leave").value is None
    until(lambda: servers[0].join(0))


def test_async_server_stops_after_what_is_in_work(tmp_path):
    async def main():
        async with AsyncRpc(tmp_path / "data", value="json") as rpc:
            go, begun = asyncio.Event(), asyncio.Event()

            async def slow(request):
                begun.set()
                await go.wait()

            server = rpc.handler("slow", slow, concurrency=3)
            asking = asyncio.ensure_future(rpc.request("slow"))
            await begun.wait()
            with pytest.raises(pylog.PylogTimeoutError):
                await server.stop(0.01)
            go.set()
            await server.stop(10)
            return (await asking).value, server.is_running

    assert asyncio.run(main()) == (None, False)


@pytest.mark.parametrize("is_broker", [False, True])
@pytest.mark.parametrize("concurrency", [1, 3])
def test_a_coroutine_may_stop_its_server_and_close_the_broker(tmp_path, concurrency, is_broker):
    broker = pylog.Broker(tmp_path / "data")
    servers = []

    async def leave(request):
        if is_broker:
            broker.close()
        else:
            servers[0].stop(10)

    rpc = Rpc(broker)
    servers.append(rpc.handler("leave", leave, concurrency=concurrency))
    rpc.submit("leave")

    assert servers[0].join(10)
    assert servers[0].error is None
    broker.close()


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("partitions", [1, 2])
def test_a_server_whose_topic_is_deleted_ends_and_tells_why(broker, rpc, is_async, partitions):
    async def later(request):
        pass

    broker.create_topic("gone", partitions)
    server = rpc.handler("gone", later if is_async else lambda request: None)
    rpc.request("gone")
    broker.delete_topic("gone")

    with pytest.raises(pylog.UnknownTopicOrPartitionError, match="gone"):
        server.join(10)


def test_damage_ends_the_server_and_is_told(rpc, monkeypatch):
    server = rpc.handler("double", lambda request: 2 * request.value)
    rpc.request("double", 1)

    def fail(*arguments):
        raise MemoryError

    monkeypatch.setattr(server._consumer, "take", fail)
    rpc.submit("double", 2)    # in case that it waits in there already
    with pytest.raises(MemoryError):
        server.join(10)
    assert not server.is_running
