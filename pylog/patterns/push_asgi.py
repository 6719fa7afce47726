"""PushApp: rooms as an ASGI application, over WebSocket and as server-sent events.

    ws://.../?room=order-123&room=news&after=ID       a WebSocket; after: the last id, if any
    http://.../?room=order-123                        an EventSource, which sends Last-Event-ID

Each message is {"id", "room", "event", "data"} in JSON, as the text of a frame, or as the data of
an event of that name. The first is "ready", with the id to begin with, and {"recovered": false}
where what came after the last id is not there any more. It is mounted in Starlette or FastAPI
(at /live its path is /live/, with the slash), or runs by itself: the WebSocket protocol is the
server's.
"""

import asyncio
import contextlib
import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import parse_qs

from pylog import ConfigurationError, PylogError
from pylog.patterns.hub import Message, check_room

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Authorize = Callable[[Scope, str], bool | Awaitable[bool]]
Listen = Callable[[list[str], str | None, float], AsyncGenerator[Message, None]]

# Why a WebSocket is closed. Come back with the last id after the first two; not after the others.
GOING_AWAY, TRY_AGAIN_LATER, BAD_REQUEST, FORBIDDEN = 1001, 1013, 4400, 4403
ROOMS_MAX = 100
SSE_HEADERS = [(b"content-type", b"text/event-stream; charset=utf-8"),
               (b"cache-control", b"no-store"), (b"x-accel-buffering", b"no")]


class RefusedError(Exception):
    """A request that is not served. status: of HTTP."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class PushApp:
    """What `Rooms.asgi` returns."""

    def __init__(self, listen: Listen, authorize: Authorize | None, heartbeat: float,
                 patience: float) -> None:
        self._listen = listen
        self._authorize = authorize
        self._heartbeat = heartbeat
        self._patience = patience

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI 3 has it."""
        if scope["type"] == "websocket":
            await self._websocket(scope, receive, send)
        elif scope["type"] == "http":
            await self._events(scope, receive, send)
        else:
            await _lifespan(receive, send)

    async def _wish(self, scope: Scope) -> tuple[list[str], str | None]:
        """The rooms, and the last id. Raises RefusedError."""
        query = parse_qs(scope["query_string"].decode("latin-1"))
        rooms = list(dict.fromkeys(query.get("room", [])))
        if not 0 < len(rooms) <= ROOMS_MAX:
            raise RefusedError(400, f"name 1 to {ROOMS_MAX} rooms: ?room=order-123")
        for room in rooms:
            try:
                check_room(room)
            except ConfigurationError as error:
                raise RefusedError(400, str(error)) from None
            allowed = True if self._authorize is None else self._authorize(scope, room)
            if not (await allowed if inspect.isawaitable(allowed) else allowed):
                raise RefusedError(403, f"you may not be in the room {room!r}")
        last = dict(scope["headers"]).get(b"last-event-id", b"").decode("latin-1")
        return rooms, last or query.get("after", [None])[0]

    # ---- WebSocket

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()    # websocket.connect
        await send({"type": "websocket.accept"})    # a browser is told nothing of a refusal before
        try:
            wish = await self._wish(scope)
        except RefusedError as error:
            code = FORBIDDEN if error.status == 403 else BAD_REQUEST
            await send({"type": "websocket.close", "code": code, "reason": str(error)[:120]})
            return

        async def write(message: Message) -> None:
            await send({"type": "websocket.send", "text": message.text})

        code, reason = await self._push(wish, write, receive, "websocket.disconnect")
        if code:
            with contextlib.suppress(Exception):    # it may be gone
                async with asyncio.timeout(1):
                    await send({"type": "websocket.close", "code": code, "reason": reason})

    # ---- server-sent events

    async def _events(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            if scope["method"] != "GET":
                raise RefusedError(405, "an EventSource sends GET")
            wish = await self._wish(scope)
        except RefusedError as error:
            await send({"type": "http.response.start", "status": error.status,
                        "headers": [(b"content-type", b"text/plain; charset=utf-8")]})
            await send({"type": "http.response.body", "body": f"{error}\n".encode()})
            return
        await send({"type": "http.response.start", "status": 200, "headers": SSE_HEADERS})

        async def write(message: Message) -> None:
            # Without data it sets the last id, and no event is dispatched.
            what = "" if message.event == "heartbeat" else \
                f"event: {message.event}\ndata: {message.text}\n"
            await send({"type": "http.response.body", "more_body": True,
                        "body": f"id: {message.id}\n{what}\n".encode()})

        code, _ = await self._push(wish, write, receive, "http.disconnect")
        if code:
            with contextlib.suppress(Exception):
                async with asyncio.timeout(1):
                    await send({"type": "http.response.body", "body": b""})

    # ---- both

    async def _push(self, wish: tuple[list[str], str | None],
                    write: Callable[[Message], Awaitable[None]], receive: Receive, gone: str,
                    ) -> tuple[int, str]:
        """Until the client is gone: (0, ""); else why the connection is to be closed."""
        async def watch() -> None:
            while (await receive())["type"] != gone:
                pass    # clients have nothing to say here

        writing = asyncio.create_task(self._write(wish, write))
        watching = asyncio.create_task(watch())
        try:
            await asyncio.wait((writing, watching), return_when=asyncio.FIRST_COMPLETED)
            return await writing if writing.done() else (0, "")
        finally:
            for task in (writing, watching):
                task.cancel()
            await asyncio.wait((writing, watching))    # gather would lose why we are cancelled

    async def _write(self, wish: tuple[list[str], str | None],
                     write: Callable[[Message], Awaitable[None]]) -> tuple[int, str]:
        try:
            async with contextlib.aclosing(self._listen(*wish, self._heartbeat)) as messages:
                async for message in messages:
                    async with asyncio.timeout(self._patience):
                        await write(message)
        except TimeoutError:
            return TRY_AGAIN_LATER, "too slow: come back with the last id"
        except PylogError:
            return TRY_AGAIN_LATER, "come back with the last id"
        return GOING_AWAY, ""


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        event = (await receive())["type"]
        await send({"type": f"{event}.complete"})
        if event == "lifespan.shutdown":
            return
