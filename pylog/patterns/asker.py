"""Asker: what Rpc and AsyncRpc have in common. Requests on their way, and the servers of them."""

import os
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from pylog import Broker, ClosedError, Log, UnknownTopicOrPartitionError
from pylog.patterns.answering import Answering, Request
from pylog.patterns.handler import check_handler
from pylog.patterns.headers import CORRELATION_ID, EXPIRES, REPLY_TO, to_key
from pylog.patterns.replies import ReplyPlace
from pylog.patterns.unpicklable import Unpicklable
from pylog.patterns.values import codec_of

LOOK_SECONDS = 10.0    # between looks whether a topic has got more partitions


class RpcStats(NamedTuple):
    """sent: requests. replied: those that a reply came for in time. late: replies that came when
    nobody waited for them, and were dropped. outstanding: what may be waited for now."""

    sent: int
    replied: int
    late: int
    outstanding: int


class _Target(NamedTuple):
    """Where requests go. look_at: on the wall clock."""

    logs: list[Log]
    look_at: float


class Asker(Unpicklable):
    """What both have: a place for replies, how requests are sent, how they are served."""

    _kind: Any    # of server

    def __init__(self, broker: Broker | str | os.PathLike[str], reply_topic: str | None = None,
                 value: Any = None) -> None:
        self._codec = codec_of(value)
        self._broker, self._is_owner = Broker.of(broker)
        self._servers: list[Any] = []
        self._targets: dict[str, _Target] = {}
        self._sent = 0
        self._is_closed = False
        try:
            self._place = ReplyPlace(self._broker, reply_topic)
        except BaseException:
            if self._is_owner:
                self._broker.close()
            raise
        self._broker.dependents.add(self)
        self._reply_to = self._place.topic.encode()

    @property
    def reply_topic(self) -> str:
        """Where the replies come to."""
        return self._place.topic

    def _send(self, topic: str, value: Any, number: bytes, timeout: float, headers: Any,
              key: Any) -> None:
        now = time.time()
        target = self._targets.get(topic)
        if target is None or target.look_at < now:
            target = self._look(topic, now)
        serialize = self._codec.serialize
        data = value if serialize is None else serialize(topic, headers, value)
        own: list[tuple[str, bytes | None]] = [
            (CORRELATION_ID, number), (REPLY_TO, self._reply_to),
            (EXPIRES, b"%d" % ((now + timeout) * 1000))]
        if headers is not None or self._codec.headers:
            own = [*self._codec.headers_with(headers), *own]
        self._sent += 1
        if key is None:
            log = target.logs[self._sent % len(target.logs)]
            try:
                log.append(data, None, own)
            except (UnknownTopicOrPartitionError, ClosedError):    # deleted: what is there now
                if self._broker.closed:
                    raise
                self._look(topic, now).logs[0].append(data, None, own)
        else:
            self._broker.append(topic, data, to_key(key), own)

    def _look(self, topic: str, now: float) -> "_Target":
        self._need(topic)
        logs = [self._broker.log(topic, number)
                for number in range(self._broker.topic(topic).partitions)]
        target = self._targets[topic] = _Target(logs, now + LOOK_SECONDS)
        return target

    def _need(self, topic: str) -> None:
        """A topic of requests is made by whoever comes first, asker or server."""
        if self._broker.auto_create_topics:
            self._broker.create_topic(topic, 1, exist_ok=True)
        else:
            self._broker.topic(topic)    # says that it is missing

    def handler(
        self, topic: str, function: Callable[[Request], Any] | None = None, *,
        group: str | None = None, concurrency: int = 1,
    ) -> Any:
        """Serves the requests of a topic: what function(request) returns is the reply. Returns the
        server (a Server); without a function, a decorator that leaves it as it is.

        function: gets a Request; may be `async def`. What it raises becomes an error reply, and
        RemoteError at the asker; a request that cannot be deserialized does, too. group: those of
        one name, in any processes, share the requests (`rpc.<topic>` by default): whichever is idle
        takes the next, oldest first. Each group serves all of them. concurrency: requests in work
        at a time; threads, or tasks of a function that is `async def`.

        **Guarantee**: at least once. A request whose server is killed is served by another of the
        group within 200 ms, if it is waited for still; none is begun after its timeout. One that
        was taken by five processes, each of which ended with it in hand, is an error reply. What a
        stopped or stuck server has is another's after five minutes.
        """
        if self._is_closed:
            raise ClosedError(f"the {type(self).__name__} is closed; make another")
        if function is None:
            def serve(function: Callable[[Request], Any]) -> Callable[[Request], Any]:
                self.handler(topic, function, group=group, concurrency=concurrency)
                return function
            return serve
        if not isinstance(group, str | None):
            raise TypeError(f"group must be a str or None, not {type(group).__name__}")
        check_handler(function)
        self._need(topic)
        answering = Answering(self._broker, function, self._codec)
        server = self._kind(self._broker, topic, answering,
                            f"rpc.{topic}" if group is None else group, concurrency)
        self._servers.append(server)
        return server

    def _close_with_broker(self) -> None:
        """The broker is closing."""
        self._is_closed = True
        self._place.delete()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {str(self._broker.path)!r}, replies to " \
               f"{self.reply_topic!r}>"
