"""Rpc: the reply to one's own request, an error, or a time-out; whoever is killed."""

import asyncio
import logging
import threading
import time

import pytest
from children import in_child, killed
from waiting import until

import pylog
from pylog import Broker
from pylog.patterns import replies
from pylog.patterns.rpc import AsyncRpc, Rpc


@pytest.fixture
def broker(tmp_path):
    with Broker(tmp_path / "data") as broker:
        yield broker


@pytest.fixture
def rpc(broker):
    with Rpc(broker, value="json") as rpc:
        yield rpc


def double(request):
    return 2 * request.value


def reply_topics(broker):
    return [name for name in broker.topics() if name.startswith("reply.")]


# ---- one process


def test_request_gets_what_the_handler_returns(rpc):
    rpc.handler("double", double)

    reply = rpc.request("double", 21)

    assert (reply.value, reply.topic) == (42, rpc.reply_topic)
    assert rpc.request("double", "ab").value == "abab"
    assert rpc.request("double", [], key="k").key == b"k"


def test_handler_is_told_all_about_the_request(rpc):
    seen = []
    rpc.handler("double", lambda request: seen.append(request))

    assert rpc.request("double", 1, headers={"tenant": "eu"}, key="k").value is None

    request, = seen
    assert (request.topic, request.key, request.value) == ("double", b"k", 1)
    assert request.header("tenant") == b"eu"
    assert (request.headers, request.timestamp) \
        == (request.record.headers, request.record.timestamp)
    assert request.header("reply_to") == rpc.reply_topic.encode()
    assert request.correlation_id == request.header("correlation_id").decode()


def test_values_are_bytes_if_nothing_else_is_asked_for(broker):
    with Rpc(broker) as rpc:
        rpc.handler("double", double)

        assert rpc.request("double", b"\xff").value == b"\xff\xff"
        with pytest.raises(TypeError):
            rpc.request("double", 17)


def test_what_the_handler_raises_is_raised_at_the_asker(rpc):
    @rpc.handler("fail")
    def fail(request):
        raise LookupError(f"no product {request.value}")

    with pytest.raises(pylog.RemoteError, match="raised LookupError: no product 17") as caught:
        rpc.request("fail", 17)

    assert (caught.value.type, caught.value.reason) == ("LookupError", "no product 17")
    assert caught.value.topic == "fail"


@pytest.mark.parametrize(("result", "kind"), [
    (object(), "SerializationError"), ("x" * 2_000_000, "MessageSizeTooLargeError")],
    ids=["no-json", "too-large"])
def test_result_that_cannot_be_sent_is_an_error_reply(rpc, result, kind):
    rpc.handler("make", lambda request: result)

    with pytest.raises(pylog.RemoteError) as caught:
        rpc.request("make")

    assert caught.value.type == kind


def test_request_that_cannot_be_read_is_an_error_reply(broker, rpc):
    server = rpc.handler("double", double)
    with Rpc(broker) as plain, pytest.raises(pylog.RemoteError) as caught:
        plain.request("double", b"{")

    assert caught.value.type == "DeserializationError"
    assert rpc.request("double", 1).value == 2
    until(lambda: server.stats()[:2] == (1, 1))


def test_error_that_says_a_lot_or_nothing_legible_is_told_all_the_same(rpc, caplog):
    caplog.set_level(logging.CRITICAL, "pylog.patterns")    # half a pair cannot be printed

    @rpc.handler("fail")
    def fail(request):
        raise ValueError("\ud800" + "x" * 100_000)

    with pytest.raises(pylog.RemoteError) as caught:
        rpc.request("fail")

    assert len(caught.value.reason) < 5000


def test_no_reply_in_time_is_an_error(rpc):
    begun = time.monotonic()

    with pytest.raises(pylog.RequestTimeoutError, match="no reply from 'nobody'") as caught:
        rpc.request("nobody", 1, timeout=0.1)

    assert 0.1 <= time.monotonic() - begun < 20
    assert (caught.value.topic, caught.value.timeout_ms) == ("nobody", 100)
    assert isinstance(caught.value, TimeoutError)
    with pytest.raises(pylog.RequestTimeoutError):
        rpc.request("nobody", 1, timeout=0)


def test_late_reply_is_counted_and_dropped(rpc):
    go, begun = threading.Event(), threading.Event()
    rpc.handler("slow", lambda request: begun.set() or (go.wait(10) and request.value))
    pending = rpc.submit("slow", 1, timeout=60)
    assert begun.wait(10)
    pending.deadline = time.monotonic()    # a shorter timeout may be over before it is begun

    with pytest.raises(pylog.RequestTimeoutError):
        pending.result()
    assert rpc.stats().late == 0
    go.set()

    assert rpc.request("slow", 2).value == 2
    until(lambda: rpc.stats().late == 1)
    assert rpc.stats() == (2, 1, 1, 0)


def test_request_whose_asker_has_given_up_is_not_begun(broker, rpc):
    with pytest.raises(pylog.RequestTimeoutError):
        rpc.request("double", 1, timeout=0.02)
    time.sleep(0.03)
    seen = []

    server = rpc.handler("double", lambda request: seen.append(request.value))
    rpc.request("double", 2)

    assert seen == [2]
    until(lambda: server.stats().expired == 1)


def test_many_requests_are_outstanding_at_a_time(rpc):
    rpc.handler("double", double, concurrency=4)

    assert [one.value for one in rpc.request_many("double", range(500))] \
        == list(range(0, 1000, 2))
    pending = [rpc.submit("double", number) for number in range(10)]
    assert [one.result().value for one in reversed(pending)] == list(range(18, -2, -2))
    assert all(one.done() for one in pending)
    assert rpc.stats() == (510, 510, 0, 0)


def test_of_many_each_has_its_reply_or_its_error(rpc):
    @rpc.handler("odd")
    def odd(request):
        if request.value % 2:
            raise ValueError(request.value)
        return request.value

    found = rpc.request_many("odd", range(6), return_exceptions=True)

    assert [one.value for one in found[::2]] == [0, 2, 4]
    assert [one.reason for one in found[1::2]] == ["1", "3", "5"]
    with pytest.raises(pylog.RemoteError, match="ValueError: 1"):
        rpc.request_many("odd", range(6))


@pytest.mark.parametrize("one", ["abc", b"abc", {"a": 1}, 7])
def test_one_value_is_not_taken_for_many(rpc, one):
    with pytest.raises(TypeError, match="values must be several"):
        rpc.request_many("double", one)
    assert rpc.stats().sent == 0


def test_threads_get_the_replies_to_their_own_requests(rpc):
    rpc.handler("double", double)
    wrong = []

    def ask(first):
        wrong.extend(number for number in range(first, first + 200)
                     if rpc.request("double", number).value != 2 * number)

    threads = [threading.Thread(target=ask, args=[1000 * n]) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert wrong == []
    assert rpc.stats() == (1200, 1200, 0, 0)


def test_one_whose_time_is_over_hands_the_reading_on_to_others(rpc):
    rpc.handler("echo", lambda request: time.sleep(request.value) or "done")
    quick = rpc.submit("nobody", timeout=0.1)
    slow = rpc.submit("echo", 0.3)
    errors, thread = [], threading.Thread(target=lambda: errors.append(catch(quick.result)))
    thread.start()

    assert slow.result().value == "done"
    thread.join()
    assert isinstance(errors[0], pylog.RequestTimeoutError)


def catch(action):
    try:
        return action()
    except Exception as error:
        return error


def test_replies_that_nobody_asks_for_are_forgotten_in_the_end(rpc, monkeypatch):
    monkeypatch.setattr(replies, "FORGET_AT", 10)
    rpc._inbox._forget_at = 10
    for _ in range(50):
        rpc.submit("nobody", timeout=0.001)
        time.sleep(0.0015)

    assert rpc.stats().outstanding <= 12


def test_handler_may_be_async_def(rpc):
    @rpc.handler("double")
    async def double_later(request):
        await asyncio.sleep(0.001)
        return 2 * request.value

    assert rpc.request("double", 21).value == 42


def test_handler_may_ask_others(rpc):
    rpc.handler("double", double)
    rpc.handler("quadruple", lambda request: rpc.request(
        "double", rpc.request("double", request.value).value).value)

    assert rpc.request("quadruple", 3).value == 12


def test_each_group_serves_all_requests_and_the_second_reply_is_late(rpc):
    seen = []
    for name in ("one", "two"):
        rpc.handler("double", lambda request, name=name: seen.append(name), group=name)

    rpc.request("double", 1)

    until(lambda: sorted(seen) == ["one", "two"] and rpc.stats().late == 1)


def test_server_that_was_stopped_serves_no_more(rpc):
    server = rpc.handler("double", double)
    rpc.request("double", 1)
    server.stop()

    with pytest.raises(pylog.RequestTimeoutError):
        rpc.request("double", 2, timeout=0.05)
    assert not server.is_running
    with rpc.handler("double", double):
        assert rpc.request("double", 3).value == 6


def test_server_that_cannot_start_all_of_its_threads_serves_in_none(rpc, monkeypatch):
    start, begun = threading.Thread.start, []

    def start_two(thread):
        if len(begun) == 2:
            raise RuntimeError("can't start new thread")
        begun.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_two)
    server = rpc.handler("double", double, concurrency=3)
    until(lambda: not server.is_running)
    monkeypatch.undo()
    assert "start new thread" in str(server.error)
    assert not begun[1].is_alive()
    with pytest.raises(pylog.RequestTimeoutError):
        rpc.request("double", 1, timeout=0.05)


def test_topic_of_requests_that_is_made_anew_is_found(broker, rpc):
    with rpc.handler("double", double):
        rpc.request("double", 1)
    broker.delete_topic("double")
    rpc.handler("double", double)

    assert rpc.request("double", 2).value == 4


# ---- where replies go


def test_private_topic_is_there_at_once_and_gone_afterwards(broker):
    with Rpc(broker) as first, Rpc(broker) as second:
        assert sorted(reply_topics(broker)) == sorted([first.reply_topic, second.reply_topic])

    assert reply_topics(broker) == []


def test_what_a_killed_process_left_is_deleted_by_the_next(broker):
    def act():
        other = Broker(broker.path)
        return other, Rpc(other)

    with Rpc(broker) as mine:
        killed(act)
        assert len(reply_topics(broker)) == 2
        with Rpc(broker) as next_one:
            assert sorted(reply_topics(broker)) == sorted([mine.reply_topic, next_one.reply_topic])


def test_reply_to_one_that_is_closed_makes_no_topic(broker, rpc):
    go, begun = threading.Event(), threading.Event()

    def slow(request):
        begun.set()
        go.wait(10)

    server = rpc.handler("slow", slow)
    with Rpc(broker, value="json") as other:
        other.submit("slow", 1)
        begun.wait(10)
    go.set()

    until(lambda: server.stats().unanswerable == 1)
    assert reply_topics(broker) == [rpc.reply_topic]


@pytest.mark.parametrize("headers", [
    [], [("reply_to", b"nowhere")], [("reply_to", b"no/topic")], [("reply_to", b"\xff")],
    [("reply_to", None)], [("reply_to", b"double"), ("reply_partition", b"99")],
    [("reply_to", b"double"), ("reply_partition", b"-1")],
    [("reply_to", b"double"), ("reply_partition", b"many")],
    [("expires_ms", b"soon")], [("expires_ms", b"-5")], [("expires_ms", None)],
], ids=str)
def test_request_that_says_nonsense_harms_nobody(broker, rpc, headers):
    server = rpc.handler("double", double)
    topics = set(broker.topics())

    broker.append("double", b"1", headers=headers)

    until(lambda: server.stats().unanswerable == 1)
    assert rpc.request("double", 2).value == 4
    assert set(broker.topics()) == topics


def test_replies_to_nobody_are_dropped(broker, rpc):
    rpc.handler("double", double)
    for number in (None, b"", b"1", rpc._place.prefix + b"99"):
        broker.append(rpc.reply_topic, b"0", headers=[("correlation_id", number)])
    broker.append(rpc.reply_topic, b"0")

    assert rpc.request("double", 1).value == 2
    assert rpc.stats().late == 1


def test_askers_may_share_a_topic_for_their_replies(broker):
    with Rpc(broker, "replies", value="json") as first:
        first.handler("double", double)
        first.request("double", 0)
        with Rpc(broker, "replies", value="json") as second:
            assert [second.request("double", 1).value, first.request("double", 2).value] == [2, 4]
            assert second.stats() == (1, 1, 0, 0)
        assert first.stats() == (2, 2, 0, 0)

    assert "replies" in broker.topics()


def test_reply_goes_to_the_partition_that_is_named(broker, rpc):
    rpc.handler("double", double)
    broker.create_topic("elsewhere", 3)

    broker.append("double", b"4", headers=[
        ("correlation_id", b"17"), ("reply_to", b"elsewhere"), ("reply_partition", b"2")])

    record = next(broker.read("elsewhere", follow=True))
    assert (record.partition, record.value, record.header("correlation_id")) == (2, b"8", b"17")


# ---- ends


def test_closing_wakes_who_waits(broker):
    rpc = Rpc(broker)
    found, threads = [], []
    for _ in range(2):
        threads.append(threading.Thread(
            target=lambda: found.append(catch(lambda: rpc.request("nobody", timeout=30)))))
        threads[-1].start()
    until(lambda: rpc._inbox._followers == 1)
    rpc.close()
    for thread in threads:
        thread.join(10)

    assert [type(one) for one in found] == [pylog.ClosedError] * 2
    with pytest.raises(pylog.ClosedError):
        rpc.request("nobody")
    rpc.close()


def test_closing_the_broker_closes_it(tmp_path):
    with Broker(tmp_path / "data") as broker:
        rpc = Rpc(broker, value="json")
        rpc.handler("double", double)
        assert rpc.request("double", 1).value == 2

    with pytest.raises(pylog.ClosedError):
        rpc.request("double", 1)
    with Broker(tmp_path / "data") as broker:
        assert reply_topics(broker) == []


def test_a_closed_rpc_serves_no_more(broker):
    rpc = Rpc(broker, value="json")
    rpc.close()

    with pytest.raises(pylog.ClosedError, match="the Rpc is closed"):
        rpc.handler("double", double)
    assert "double" not in broker.topics()


def test_an_error_without_a_text_is_told_and_ends_no_server(rpc):
    class Mute(Exception):
        def __str__(self):
            raise RuntimeError

    def answer(request):
        if request.value is None:
            raise Mute
        return request.value

    server = rpc.handler("mute", answer)
    with pytest.raises(pylog.RemoteError, match="cannot be had") as caught:
        rpc.request("mute")
    assert caught.value.type.endswith("Mute")
    assert rpc.request("mute", 5).value == 5
    assert server.is_running


def test_rpc_of_a_path_closes_its_broker(tmp_path):
    with Rpc(tmp_path / "data", value="json") as rpc:
        rpc.handler("double", double)
        assert rpc.request("double", 1).value == 2
    assert rpc._broker.closed


def test_rpc_in_a_forked_child_says_that_it_must_be_made_again(rpc):
    assert isinstance(in_child(lambda: rpc.request("double", 1)), pylog.IllegalStateError)


@pytest.mark.parametrize(("timeout", "error"), [
    (-1, pylog.ConfigurationError), (float("nan"), pylog.ConfigurationError),
    (float("inf"), pylog.ConfigurationError), ("5", TypeError), (None, TypeError),
    (True, TypeError)])
def test_timeout_must_be_a_number_of_seconds(rpc, timeout, error):
    with pytest.raises(error):
        rpc.request("double", 1, timeout=timeout)
    assert rpc.stats() == (0, 0, 0, 0)


def test_what_cannot_be_sent_is_not_waited_for(rpc):
    for wrong in (lambda: rpc.request("double", object()), lambda: rpc.request("no/topic", 1),
                  lambda: rpc.request("double", 1, headers={"a": 5}),
                  lambda: rpc.request("double", 1, key=5)):
        with pytest.raises((pylog.PylogError, TypeError)):
            wrong()

    assert rpc.stats().outstanding == 0


@pytest.mark.parametrize(("arguments", "error"), [
    ({"function": None, "topic": "no/topic"}, pylog.InvalidTopicError),
    ({"function": 7}, TypeError), ({"concurrency": 0}, pylog.ConfigurationError),
    ({"group": 7}, TypeError), ({"group": ""}, pylog.InvalidGroupIdError)], ids=str)
def test_what_cannot_serve_is_refused(rpc, arguments, error):
    with pytest.raises(error):
        made = rpc.handler(**{"topic": "double", "function": double, **arguments})
        made(double)


def test_what_makes_no_rpc_is_refused(broker):
    for options in ({"reply_topic": "no/topic"}, {"value": "jsn"},
                    {"value": 7}):
        with pytest.raises(pylog.PylogError):
            Rpc(broker, **options)
    assert reply_topics(broker) == []


def test_topics_are_not_made_where_the_broker_makes_none(tmp_path):
    with Broker(tmp_path / "data", auto_create_topics=False) as broker, Rpc(broker) as rpc:
        with pytest.raises(pylog.UnknownTopicOrPartitionError):
            rpc.request("double", b"1")
        with pytest.raises(pylog.UnknownTopicOrPartitionError):
            rpc.handler("double", double)


# ---- in an event loop


def run(main, path):
    async def body():
        async with AsyncRpc(path, value="json") as rpc:
            return await main(rpc)
    return asyncio.run(body())


def test_async_rpc_asks_and_answers(tmp_path):
    async def main(rpc):
        @rpc.handler("double")
        async def double_later(request):
            await asyncio.sleep(0.001)
            return 2 * request.value

        rpc.handler("fail", lambda request: 1 // request.value)
        many = await rpc.request_many("double", range(100))
        with pytest.raises(pylog.RemoteError, match="ZeroDivisionError"):
            await rpc.request("fail", 0)
        with pytest.raises(pylog.RequestTimeoutError):
            await rpc.request("nobody", 1, timeout=0.05)
        return [one.value for one in many], rpc.stats()

    values, stats = run(main, tmp_path / "data")

    assert values == list(range(0, 200, 2))
    assert stats == (102, 101, 0, 0)
    with Broker(tmp_path / "data") as broker:
        assert reply_topics(broker) == []


def test_async_request_that_is_cancelled_is_waited_for_no_more(tmp_path):
    async def main(rpc):
        go = asyncio.Event()

        @rpc.handler("slow")
        async def slow(request):
            await go.wait()

        task = asyncio.ensure_future(rpc.request("slow", 1))
        await asyncio.sleep(0.05)
        task.cancel()
        await asyncio.wait([task])
        outstanding = rpc.stats().outstanding
        go.set()
        await rpc.request("slow", 2)
        while rpc.stats().late < 1:
            await asyncio.sleep(0.005)
        return task.cancelled(), outstanding

    assert run(main, tmp_path / "data") == (True, 0)


def test_async_close_wakes_who_waits(tmp_path):
    async def main():
        rpc = AsyncRpc(tmp_path / "data")
        task = asyncio.ensure_future(rpc.request("nobody", b"1", timeout=30))
        await asyncio.sleep(0.02)
        await rpc.close()
        await rpc.close()
        with pytest.raises(pylog.ClosedError):
            await task
        with pytest.raises(pylog.ClosedError):
            await rpc.request("nobody", b"1")

    asyncio.run(main())
