"""Rooms: messages pushed to whoever is in a room just now, and to who comes back what was missed.

    rooms = Rooms(broker, "live")
    rooms.emit("order-123", {"status": "shipped"}, event="orderUpdate")     from any process
    app.mount("/live", rooms.asgi(authorize=may_enter))                     in Starlette or FastAPI

    new WebSocket("wss://shop.example/live/?room=order-123")                in a browser: a mount
                                                                            needs its last slash

A room is a key of one topic, and the log is what a message waits in: a client says the id that it
had last, and is given what came since, whichever server it reaches. (Socket.IO's rooms; ids and
Last-Event-ID are those of server-sent events.)
"""

import asyncio
import math
import os
import weakref
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any, NamedTuple

from pylog import Broker, ConfigurationError
from pylog.patterns.bus import AsyncBus, Bus
from pylog.patterns.events import Event
from pylog.patterns.handler import check_handler
from pylog.patterns.headers import ROOM_EVENT, text_of
from pylog.patterns.hub import NAME_MAX, Hub, Message, check_room, tag_of
from pylog.patterns.inflow import Headers, Inflow
from pylog.patterns.push_asgi import Authorize, PushApp
from pylog.patterns.retry import check_seconds
from pylog.patterns.tenant import Tenant
from pylog.patterns.values import codec_of

SECONDS_MIN = 0.001    # of a heartbeat, and of patience
OURS = ("ready", "heartbeat", "open", "error")    # the last two are what an EventSource itself says


class RoomEntry(NamedTuple):
    """A room that was emitted to. messages: how many are there still. id: of the last, as emit
    returned it. changed: when that came, in ms since the epoch, as a record's timestamp."""

    room: str
    messages: int
    id: str
    changed: int


class Rooms(Tenant):
    """Rooms of one topic. Safe for threads; what is pushed is pushed in event loops.

    broker: a Broker, or the path of one, which is then closed with this. name: of the topic, which
    is made with one partition, so that all messages have one order. ttl: seconds that a message is
    there for who comes back; of a topic that is made here.

        >>> async def look(rooms):
        ...     async for message in rooms.messages("order-123", after=first):
        ...         if message.event == "orderUpdate":
        ...             return message.room, message.data
        >>> with Broker("data") as broker:
        ...     rooms = Rooms(broker, "live")
        ...     first = rooms.emit("order-123", {"status": "paid"})
        ...     second = rooms.emit("order-123", {"status": "shipped"}, event="orderUpdate")
        ...     asyncio.run(look(rooms))
        ('order-123', {'status': 'shipped'})

    **Guarantee**: a client that comes back with the last id that it had gets every message of its
    rooms since, once, in order, and then what comes, from any server, also after kills; or it is
    told (`recovered: false`) that what it missed is not there any more, so that it can load anew.
    Cost: 10 us to emit; one reader a process, however many clients it has; for who comes back 30 ns
    for each message of any room since.
    """

    def __init__(self, broker: Broker | str | os.PathLike[str], name: str = "live", *,
                 ttl: float = 86_400) -> None:
        if isinstance(ttl, bool) or not isinstance(ttl, int | float) or \
                not 0 < ttl < math.inf:
            raise ConfigurationError(f"ttl={ttl!r}: use seconds, more than 0", option="ttl",
                                     value=ttl)
        super().__init__(broker)
        self.name = name
        try:
            kept = int(1000 * ttl)
            entry = self._broker.create_topic(name, 1, {
                "retention.ms": kept, "segment.ms": max(10_000, min(kept // 2, 604_800_000)),
            }, exist_ok=True)
            if entry.partitions != 1:
                raise ConfigurationError(
                    f"the topic {name!r} has {entry.partitions} partitions, whose messages "
                    "have no one order; name a topic with one", option="name", value=name)
        except BaseException:
            self.close()
            raise
        self._tagged: tuple[Any, str] = None, ""
        self._serialize: Any = codec_of("json").serialize
        self._hubs: weakref.WeakKeyDictionary[Any, Hub] = weakref.WeakKeyDictionary()

    # ---- sending

    def emit(self, room: str, data: Any = None, event: str = "message") -> str:
        """Sends data, which is JSON, to all who are in the room, of any server; returns its id.

        event: what kind of message. Raises SerializationError, ConfigurationError, TypeError.
        """
        self._check_open()
        offset, log = self._appending(room, data, event)([]), self._broker.log(self.name)
        if log is not self._tagged[0]:    # its topic is another one
            self._tagged = log, tag_of(self._broker, self.name)
        return f"{self._tagged[1]}-{offset}"

    def feed(self, bus: Bus | AsyncBus | str, pattern: str, room: Callable[[Event], str | None], *,
             event: str | None = None, group: str = "push", start: Any = None) -> Inflow:
        """Events of a bus become messages, each record of it once, whoever is killed: `with
        rooms.feed(...):`.

        bus: or its name. pattern: of types, with wildcards. room: which, of an event; None: none.
        event: the message's, the event's type by default. group, start: as `Bus.on`'s. Of many
        processes that feed one does, and others stand by. An event that `room` fails on is a dead
        letter. Raises ConfigurationError, TypeError.
        """
        def make(one: Event) -> Callable[[Headers], int] | None:
            name = room(one)
            return None if name is None else self._appending(
                name, one.data, one.type if event is None else event)

        check_handler(room)
        return Inflow(self._broker, bus, pattern, self.name, make, group, start)

    def _appending(self, room: str, data: Any, event: str) -> Callable[[Headers], int]:
        """What appends it. All that can be wrong with it is said before."""
        check_room(room)
        _check_event(event)
        value = self._serialize(self.name, None, data)
        head = (ROOM_EVENT, event.encode())
        return lambda headers: self._broker.append(
            self.name, value, room.encode(), [head, *headers]).offset + 1

    # ---- receiving

    async def messages(self, *rooms: str, after: str | None = None,
                       heartbeat: float | None = None) -> AsyncGenerator[Message, None]:
        """What clients get: "ready" first, whose data says whether all since `after` is there
        (`recovered`), then that, then what comes, for ever. heartbeat: seconds after which one
        comes instead, with an id that is up to date. What is slow reads from the log.

        after: a message's id. Raises ConfigurationError for a name that no room can have,
        TypeError, and what reading raises.
        """
        if not isinstance(after, str | None):
            raise TypeError("after must be the id of a message, as emit returns it, not "
                            f"{type(after).__name__}")
        if heartbeat is not None:
            check_seconds("heartbeat", heartbeat)
        keys = {check_room(room).encode() for room in rooms}
        hub = self._hubs.setdefault(asyncio.get_running_loop(), Hub(self._broker, self.name))
        async with aclosing(hub.listen(keys, after, heartbeat)) as messages:
            async for message in messages:
                yield message

    def asgi(self, *, authorize: Authorize | None, heartbeat: float = 15.0,
             patience: float = 30.0) -> PushApp:
        """An ASGI application for WebSocket and EventSource: see push_asgi.py. Needs no extra; the
        extra `web` has a server.

        authorize: of (scope, room), whether this client may be in it, as a bool or awaitable; None:
        anybody may be in any. The scope has the request's headers: look at `origin`, too, where
        cookies say who it is. heartbeat: seconds; less than proxies wait. patience: seconds until
        one that takes nothing is cut off.
        """
        if authorize is not None:
            check_handler(authorize, 2)
        check_seconds("heartbeat", heartbeat, SECONDS_MIN)
        check_seconds("patience", patience, SECONDS_MIN)
        return PushApp(self._listen, authorize, heartbeat, patience)

    def _listen(self, rooms: list[str], after: str | None, heartbeat: float,
                ) -> AsyncGenerator[Message, None]:
        return self.messages(*rooms, after=after, heartbeat=heartbeat)

    # ---- looking

    def list(self) -> list[RoomEntry]:
        """The rooms whose messages are there still, by name; who is in them is not known.

        Cost: reads all keys of the topic; a record that is no message is counted by its key.
        Raises what reading raises.
        """
        log, tag = self._broker.log(self.name), tag_of(self._broker, self.name)
        found: dict[bytes, tuple[int, int, int]] = {}
        position, end = log.start_offset, log.readable_offset
        while position < end:
            chunk = log.fetch(position)
            for key, offset, moment in zip(chunk.keys(), chunk.offsets.tolist(),
                                           chunk.timestamps.tolist(), strict=True):
                if key is not None:
                    found[key] = found.get(key, (0,))[0] + 1, offset, moment
            position = chunk.next_offset
        return [RoomEntry(text_of(key), count, f"{tag}-{offset + 1}", moment)
                for key, (count, offset, moment) in sorted(found.items())]

    def __repr__(self) -> str:
        return f"<Rooms of {self.name!r}>"


def _check_event(name: object) -> None:
    if not isinstance(name, str):
        raise TypeError(f"event must be a str, not {type(name).__name__}")
    if name in OURS or not 0 < len(name) <= NAME_MAX or not name.isprintable():
        raise ConfigurationError(
            f"an event cannot be called {name[:60]!r}: use 1 to {NAME_MAX} printable characters, "
            f"and not {', '.join(OURS)}", option="event", value=name)
