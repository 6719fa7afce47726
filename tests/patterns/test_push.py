"""Push: rooms over WebSocket and as server-sent events, of any ASGI server."""

import asyncio
import contextlib
import gc
import itertools
import json
import warnings

import httpx
import pytest
from pushing import served
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.websockets import WebSocketDisconnect
from websockets.sync.client import connect

import pylog
from pylog import Broker
from pylog.patterns import Rooms


@pytest.fixture
def rooms(tmp_path):
    with Rooms(tmp_path / "data") as rooms:
        yield rooms


class Client:
    """The server's side of one connection, as ASGI has it."""

    def __init__(self, app, kind="websocket", query="room=a", method="GET", headers=()):
        self.scope = {"type": kind, "query_string": query.encode(), "method": method,
                      "headers": list(headers)}
        self._app = app
        self._said, self._got = asyncio.Queue(), asyncio.Queue()
        self.is_stuck = False    # takes nothing, until who sends has given it up

    async def __aenter__(self):
        if self.scope["type"] == "websocket":
            self._said.put_nowait({"type": "websocket.connect"})
        self.task = asyncio.create_task(self._app(self.scope, self._said.get, self._send))
        return self

    async def __aexit__(self, *exception):
        kind = "websocket" if self.scope["type"] == "websocket" else "http"
        self._said.put_nowait({"type": f"{kind}.disconnect"})
        await asyncio.wait_for(self.task, 20)

    async def _send(self, event):
        if self.is_stuck:
            try:
                await asyncio.sleep(60)
            finally:
                self.is_stuck = False
        self._got.put_nowait(event)

    def say(self, event):
        self._said.put_nowait(event)

    async def got(self):
        return await asyncio.wait_for(self._got.get(), 20)


def run(action):
    return asyncio.run(action())


async def until_alone():
    """The reader of the log ends by itself, soon after the last who has listened."""
    async with asyncio.timeout(20):
        while len(asyncio.all_tasks()) > 1:
            await asyncio.sleep(0.001)


def socket_of(rooms, query="room=a", authorize=None, **options):
    return Client(rooms.asgi(authorize=authorize, **options), query=query)


# ---- WebSocket


def test_a_websocket_gets_ready_and_then_messages(rooms):
    async def act():
        async with socket_of(rooms) as client:
            assert await client.got() == {"type": "websocket.accept"}
            ready = json.loads((await client.got())["text"])
            rooms.emit("b", 1)
            rooms.emit("a", {"status": "shipped"}, event="orderUpdate")
            client.say({"type": "websocket.receive", "text": "what clients say is not heard"})
            return ready, json.loads((await client.got())["text"])

    ready, message = run(act)

    assert (ready["event"], ready["room"], ready["data"]) == ("ready", None, {"recovered": True})
    assert (message["event"], message["room"]) == ("orderUpdate", "a")
    assert message["data"] == {"status": "shipped"}


def test_who_comes_back_says_the_last_id(rooms):
    ids = [rooms.emit("a", n) for n in range(3)]

    async def act():
        async with socket_of(rooms, f"room=a&after={ids[0]}") as client:
            return [json.loads((await client.got()).get("text", "{}")) for _ in range(4)]

    assert [one.get("data") for one in run(act)] == [None, {"recovered": True}, 1, 2]


def test_several_rooms_by_one_connection(rooms):
    async def act():
        async with socket_of(rooms, "room=a&room=b&room=a&room=%C3%BC%20x") as client:
            await client.got(), await client.got()
            for room in ("a", "c", "b", "ü x"):
                rooms.emit(room)
            return [json.loads((await client.got())["text"])["room"] for _ in range(3)]

    assert run(act) == ["a", "b", "ü x"]


async def allows_later(scope, room):
    await asyncio.sleep(0)
    return dict(scope["headers"]).get(b"cookie") == f"room={room}".encode()


@pytest.mark.parametrize("authorize", [
    lambda scope, room: (b"cookie", f"room={room}".encode()) in scope["headers"], allows_later])
def test_each_room_is_asked_for_by_scope_and_name(rooms, authorize):
    async def close_of(query):
        client = Client(rooms.asgi(authorize=authorize), query=query,
                        headers=[(b"cookie", b"room=a")])
        async with client:
            await client.got()
            return (await client.got()).get("code")

    assert run(lambda: close_of("room=a")) is None
    assert run(lambda: close_of("room=b")) == run(lambda: close_of("room=a&room=b")) == 4403


@pytest.mark.parametrize("query", ["", "room=", "rooms=a", "room=a%0Ab", "room=" + "x" * 256,
                                   "&".join(f"room={n}" for n in range(101))])
def test_a_wish_that_makes_no_sense_is_closed_as_a_bad_request(rooms, query):
    async def act():
        async with socket_of(rooms, query) as client:
            await client.got()
            return await client.got()

    closed = run(act)

    assert (closed["type"], closed["code"]) == ("websocket.close", 4400)
    assert closed["reason"]


def test_an_authorize_that_raises_lets_nobody_in(rooms):
    async def act():
        async with socket_of(rooms, authorize=lambda scope, room: 1 / 0):
            pass

    with pytest.raises(ZeroDivisionError):
        run(act)


def test_heartbeats_bear_an_id_to_come_back_with(rooms):
    async def act():
        async with socket_of(rooms, heartbeat=0.01) as client:
            await client.got(), await client.got()
            last = rooms.emit("b")
            while (beat := json.loads((await client.got())["text"]))["id"] != last:
                pass
            return beat

    assert run(act)["event"] == "heartbeat"


def test_one_that_takes_nothing_is_told_to_come_back(rooms):
    async def act():
        async with socket_of(rooms, patience=0.02) as client:
            await client.got(), await client.got()
            client.is_stuck = True
            rooms.emit("a", 1)
            return await client.got()

    closed = run(act)

    assert (closed["type"], closed["code"]) == ("websocket.close", 1013)
    assert "last id" in closed["reason"]


def test_a_log_that_fails_has_clients_come_back(tmp_path):
    with Broker(tmp_path / "data") as broker:
        rooms = Rooms(broker)

        async def act():
            async with socket_of(rooms) as client:
                await client.got(), await client.got()
                broker.delete_topic("live")
                return await client.got()

        assert run(act)["code"] == 1013


def test_who_leaves_leaves_nothing_behind(rooms):
    async def act():
        async with socket_of(rooms) as client:
            await client.got(), await client.got()
        await until_alone()

    run(act)


# ---- server-sent events


def test_an_event_source_gets_events_by_name_with_ids(rooms):
    ids = [rooms.emit("a", n, event="orderUpdate") for n in range(2)]

    async def act():
        client = Client(rooms.asgi(authorize=None), "http", headers=[
            (b"last-event-id", ids[0].encode())])
        async with client:
            start = await client.got()
            return start, [(await client.got())["body"].decode() for _ in range(2)]

    start, (ready, update) = run(act)

    assert start["status"] == 200
    assert (b"content-type", b"text/event-stream; charset=utf-8") in start["headers"]
    assert ready.startswith(f"id: {ids[0]}\nevent: ready\ndata: {{")
    assert update == (f"id: {ids[1]}\nevent: orderUpdate\ndata: " + json.dumps(
        {"id": ids[1], "room": "a", "event": "orderUpdate", "data": 1}) + "\n\n")


def test_a_heartbeat_sets_the_last_id_and_is_no_event(rooms):
    async def act():
        async with Client(rooms.asgi(authorize=None, heartbeat=0.01), "http") as client:
            await client.got(), await client.got()
            return (await client.got())["body"]

    assert run(act).startswith(b"id: ")
    assert b"data" not in run(act)


@pytest.mark.parametrize(("options", "status"), [
    ({"query": ""}, 400), ({"query": "room=a%00b"}, 400), ({"query": f"room={'x' * 256}"}, 400),
    ({"method": "POST"}, 405), ({"method": "HEAD"}, 405),
    ({"query": "room=secret"}, 403), ({"query": "room=a&room=secret"}, 403)])
def test_requests_that_are_not_served_are_told_why(rooms, options, status):
    app = rooms.asgi(authorize=lambda scope, room: room != "secret")

    async def act():
        async with Client(app, "http", **options) as client:
            return await client.got(), await client.got()

    start, body = run(act)

    assert start["status"] == status
    assert body["body"].endswith(b"\n")


@pytest.mark.parametrize("options", [
    {}, {"authorize": True}, {"authorize": "all"}])
def test_who_may_enter_has_to_be_said(rooms, options):
    with pytest.raises(TypeError):
        rooms.asgi(**options)


@pytest.mark.parametrize(("options", "error"), [
    ({"heartbeat": 0}, pylog.ConfigurationError), ({"heartbeat": -1}, pylog.ConfigurationError),
    ({"heartbeat": "x"}, TypeError), ({"heartbeat": None}, TypeError),
    ({"patience": 0}, pylog.ConfigurationError), ({"patience": -1}, pylog.ConfigurationError),
    ({"patience": float("nan")}, pylog.ConfigurationError), ({"patience": "x"}, TypeError)])
def test_times_that_are_none_are_refused(rooms, options, error):
    with pytest.raises(error, match=next(iter(options))):
        rooms.asgi(authorize=None, **options)


# ---- real servers


def in_starlette(push):
    return Starlette(routes=[Mount("/live", push)])


def in_fastapi(push):
    app = pytest.importorskip("fastapi").FastAPI()
    app.mount("/live", push)
    return app


MOUNTED = pytest.mark.parametrize("mounted", [in_starlette, in_fastapi])


@MOUNTED
def test_mounted_and_spoken_to_by_the_test_client(rooms, mounted):
    gc.collect()    # a task whose error is told while pytest parses what is imported breaks that
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")    # it says that it will want another httpx
        from starlette.testclient import TestClient
    client = TestClient(mounted(rooms.asgi(authorize=None)))
    with client.websocket_connect("/live/?room=a") as socket:
        ready = socket.receive_json()
        rooms.emit("a", "first", event="greeting")
        first = socket.receive_json()
        assert (first["room"], first["event"], first["data"]) == ("a", "greeting", "first")
    rooms.emit("a", "second")
    with client.websocket_connect(f"/live/?room=a&after={ready['id']}") as socket:
        assert [socket.receive_json()["data"] for _ in range(3)] == [
            {"recovered": True}, "first", "second"]
    with client.websocket_connect("/live/") as socket, \
            pytest.raises(WebSocketDisconnect) as refused:
        socket.receive_json()
    assert (refused.value.code, refused.value.reason[:12]) == (4400, "name 1 to 10")
    assert client.get("/live/").status_code == 400
    with pytest.raises(WebSocketDisconnect), client.websocket_connect("/live?room=a"):
        pass    # a mount is what begins with its path and a slash


@pytest.mark.slow
@MOUNTED
def test_mounted_and_spoken_to_by_real_clients(rooms, mounted):
    app = mounted(rooms.asgi(authorize=None, heartbeat=0.05))
    with served(app) as port:
        with connect(f"ws://127.0.0.1:{port}/live/?room=a") as client:
            ready = json.loads(client.recv(timeout=20))
            rooms.emit("a", "first")
            while (said := json.loads(client.recv(timeout=20)))["event"] == "heartbeat":
                pass    # one comes before it, if the emit took longer than that
            assert said["data"] == "first"
        with httpx.stream("GET", f"http://127.0.0.1:{port}/live/?room=a",
                          headers={"Last-Event-ID": ready["id"]}, timeout=20) as response:
            rooms.emit("a", "second")
            lines = (line for line in response.iter_lines() if line.startswith("data: "))
            found = [json.loads(line[6:])["data"] for line in itertools.islice(lines, 3)]

    assert found == [{"recovered": True}, "first", "second"]


@pytest.mark.slow
def test_alone_under_uvicorn_and_told_to_come_back_when_it_ends(rooms):
    with contextlib.ExitStack() as stack:
        with served(rooms.asgi(authorize=None)) as port:
            client = stack.enter_context(connect(f"ws://127.0.0.1:{port}/?room=a"))
            client.recv(timeout=20)
        with pytest.raises(Exception, match="1012"):
            client.recv(timeout=20)


def test_an_extra_is_not_needed_to_make_an_app(rooms):
    assert callable(rooms.asgi(authorize=None))
    assert isinstance(pylog.patterns.Message("id", None, "ready", '{"data": 1}').data, int)
