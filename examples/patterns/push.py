"""A page hears of its order at once, by any process; when it was away it gets what it missed.

    python examples/patterns/push.py      (with uvicorn and websockets: pylog-engine[web])
"""

import json
import socket
import tempfile
import threading

import uvicorn
from websockets.sync.client import connect

from pylog.patterns import Rooms


def main() -> None:
    with (tempfile.TemporaryDirectory(dir=".") as data, Rooms(data) as rooms,
          socket.create_server(("127.0.0.1", 0)) as place):
        app = rooms.asgi(authorize=lambda scope, room: room.startswith("order-"))
        server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [place]})
        thread.start()
        page = f"ws://127.0.0.1:{place.getsockname()[1]}/?room=order-123"
        with connect(page) as client:
            last = json.loads(client.recv())["id"]
            rooms.emit("order-123", {"status": "paid"}, event="orderUpdate")
            print(last := json.loads(client.recv()))
        rooms.emit("order-123", {"status": "shipped"}, event="orderUpdate")    # nobody is there
        with connect(f"{page}&after={last['id']}") as client:
            print(json.loads(client.recv())["data"])
            print(json.loads(client.recv())["data"])
        server.should_exit = True
        thread.join()


if __name__ == "__main__":
    main()
