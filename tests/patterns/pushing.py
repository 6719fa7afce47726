"""A server of rooms, in a thread or in a process that may be killed, and clients of it."""

import contextlib
import random
import socket
import threading

import uvicorn
from waiting import until
from websockets.exceptions import WebSocketException
from websockets.sync.client import connect


def listening():
    """A socket that outlives the servers: who connects while none lives is served by the next."""
    return socket.create_server(("127.0.0.1", 0))


def server_of(app):
    return uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="on",
                                         timeout_graceful_shutdown=1))


@contextlib.contextmanager
def served(app):
    """The app by uvicorn in a thread; yields its port."""
    server, place = server_of(app), listening()
    thread = threading.Thread(target=server.run, kwargs={"sockets": [place]})
    thread.start()
    try:
        until(lambda: server.started)
        yield place.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join()
        place.close()


def follow(ports, query, see, after=None):
    """Each text that a client gets, from any of these servers, until see(text) is false. It comes
    back with its last id whenever its connection breaks."""
    last = [after]
    while True:
        place = f"&after={last[0]}" if last[0] else ""
        try:
            with connect(f"ws://127.0.0.1:{random.choice(ports)}/?{query}{place}",
                         open_timeout=2, close_timeout=0.1) as client:
                for text in client:
                    if (told := see(text)) is None:
                        return
                    last[0] = told
        except (WebSocketException, OSError, TimeoutError):
            pass
