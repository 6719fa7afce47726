"""What is closed does nothing more, also where its broker is open.

A Saga and a Projection are begun again: `with saga.start():` is one time of many.
"""

import copy
import inspect
import pickle

import pytest

import pylog
from pylog import Broker
from pylog.patterns import (
    ANY,
    App,
    AsyncBus,
    AsyncQueue,
    AsyncRpc,
    AsyncTopic,
    Audit,
    Bus,
    DeadLetters,
    EventStore,
    Idempotency,
    NewEvent,
    Queue,
    Rooms,
    Rpc,
    Saga,
    Topic,
)


@pytest.mark.parametrize(("make", "acts"), [
    (lambda broker: Queue(broker, "q"), [lambda one: one.put(b"x"), lambda one: one.get(0)]),
    (lambda broker: Topic(broker, "t"), [lambda one: one.publish(b"x")]),
    (lambda broker: Bus(broker, "b"), [lambda one: one.emit("a.b", {})]),
    (lambda broker: Rpc(broker), [lambda one: one.request("r", b"x")]),
    (lambda broker: Idempotency(broker, "i"), [lambda one: one.claim("k").__enter__()]),
    (lambda broker: EventStore(broker, "e"), [
        lambda one: one.append("s", NewEvent("a", {}), expected_version=ANY)]),
    (lambda broker: Audit(broker), [
        lambda one: one.record(actor="a", action="b"),
        lambda one: one.record_many([{"actor": "a", "action": "b"}])]),
    (lambda broker: Rooms(broker, "r"), [lambda one: one.emit("room", {})]),
], ids=["queue", "topic", "bus", "rpc", "idempotency", "event store", "audit", "rooms"])
def test_what_is_closed_does_nothing_more(tmp_path, make, acts):
    with Broker(tmp_path / "data") as broker:
        one = make(broker)
        one.close()
        one.close()
        before = {name: [broker.log(name, number).end_offset for number in range(row.partitions)]
                  for name, row in broker.topics().items()}
        for act in acts:
            with pytest.raises(pylog.ClosedError, match="closed"):
                act(one)
        assert not broker.closed
        for name, ends in before.items():
            assert [broker.log(name, number).end_offset for number in range(len(ends))] == ends


@pytest.mark.parametrize("copy_of", [pickle.dumps, copy.copy, copy.deepcopy])
@pytest.mark.parametrize("make", [
    lambda broker: Queue(broker, "q"), lambda broker: Topic(broker, "t"),
    lambda broker: Bus(broker, "b"), Rpc, Audit,
    lambda broker: AsyncQueue(broker, "q"), lambda broker: AsyncTopic(broker, "t"),
    lambda broker: AsyncBus(broker, "b"), AsyncRpc, lambda broker: Idempotency(broker, "i"),
    lambda broker: EventStore(broker, "e"), lambda broker: Rooms(broker, "r"),
    lambda broker: DeadLetters(broker, "g"), lambda broker: Saga(broker, "s"), App,
], ids=["queue", "topic", "bus", "rpc", "audit", "async queue", "async topic", "async bus",
        "async rpc", "idempotency", "event store", "rooms", "dead letters", "saga", "app"])
def test_what_is_open_here_is_made_anew_elsewhere(tmp_path, make, copy_of):
    with Broker(tmp_path / "data") as broker:
        one = make(broker)
        with pytest.raises(TypeError, match=r"cannot be pickled or copied.* in the other process"):
            copy_of(one)
        if not inspect.iscoroutinefunction(one.close):
            one.close()
