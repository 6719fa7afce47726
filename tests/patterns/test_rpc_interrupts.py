"""Rpc: a thread that is interrupted while it reads for all keeps nothing from the others."""

import time

import pytest

from pylog.patterns import replies
from pylog.patterns.rpc import Rpc
from pylog.testing import broker as broker


class Interrupting:
    """In the place of something of a module: raises as a signal handler would, once."""

    def __init__(self, real, name, calls):
        self._real, self._name, self._calls = real, name, calls

    def __getattr__(self, name):
        if name == self._name:
            self._calls -= 1
            if self._calls == 0:
                raise KeyboardInterrupt
        return getattr(self._real, name)


def test_who_is_interrupted_before_he_reads_keeps_no_reply_from_others(broker, monkeypatch):
    with Rpc(broker) as rpc:
        rpc.handler("same", lambda request: request.value)
        rpc.request("same", b"1")
        pending = rpc.submit("same", b"2")
        monkeypatch.setattr(replies, "time", Interrupting(time, "monotonic", 2))
        with pytest.raises(KeyboardInterrupt):
            pending.result()
        monkeypatch.undo()
        assert rpc.request("same", b"3", timeout=10.0).value == b"3"


def test_who_is_interrupted_at_a_reply_leaves_those_behind_it(broker):
    with Rpc(broker) as rpc:
        requests = [rpc.submit("asked", b"%d" % n, timeout=10.0) for n in range(3)]
        inbox = rpc._inbox
        for one in requests:
            inbox.place.log.append(b"x", None, [("correlation_id", one.number)])
        inbox._pending = Stumbling(inbox._pending, requests[1].number)
        with pytest.raises(KeyboardInterrupt):
            requests[0].result()
        assert [one.result().value for one in requests] == [b"x"] * 3
        assert rpc.stats()[1:] == (3, 0, 0)


class Stumbling(dict):
    """Ctrl-C comes when this number is looked up first."""

    def __init__(self, entries, number):
        super().__init__(entries)
        self._number = number

    def _look(self, number):
        if number == self._number:
            self._number = None
            raise KeyboardInterrupt

    def get(self, number):
        self._look(number)
        return super().get(number)

    def pop(self, number, default=None):
        self._look(number)
        return super().pop(number, default)
