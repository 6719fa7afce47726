"""Servers and emitters that are killed: a client that comes back misses nothing, and gets nothing
twice."""

import asyncio
import json
import time

import pytest
from parties import Diary, Party, Signal, kill_at_random
from pushing import follow, listening, server_of
from waiting import until

from pylog import Broker
from pylog.patterns import Bus, Rooms

CLIENTS = ("room=a", "room=b", "room=a&room=b")
LAST = "last"


class Play:
    """Two servers, an emitter, a bus that is fed by two processes, three clients."""

    def __init__(self, place):
        self.data = place / "data"
        self.end = Signal(place / "end")
        self.seen = [Diary(place / f"client{number}") for number in range(len(CLIENTS))]
        self.sockets = [listening(), listening()]
        with Broker(self.data) as broker:
            Rooms(broker)
            broker.create_topic("shop", 2)

    def serve(self, number):
        rooms = Rooms(self.data)
        server_of(rooms.asgi(authorize=None, heartbeat=0.2)).run(sockets=[self.sockets[number]])

    def emit(self):
        with Broker(self.data) as broker, Bus(broker, "shop") as bus:
            rooms, count, run = Rooms(broker), 0, time.monotonic_ns()
            while not self.end.is_given:
                count += 1
                rooms.emit("abc"[count % 3], f"{run}-{count}")
                bus.emit("order.paid", f"{run}-bus-{count}", key=str(count))
                time.sleep(0.001)

    def feed(self):
        with Broker(self.data) as broker:
            with Rooms(broker).feed("shop", "order.*", lambda event: "abc"[len(event.id) % 3]):
                self.end.wait()

    def listen(self, number):
        ports = [one.getsockname()[1] for one in self.sockets]

        def see(text):
            message = json.loads(text)
            if message["room"] is not None:
                self.seen[number].write(f"{message['id']} {message['data']}")
            elif message["event"] == "ready":
                self.seen[number].write(f"ready {message['data']['recovered']}")
            return None if message["data"] == LAST else message["id"]

        follow(ports, CLIENTS[number], see, self.start)

    def begin(self):
        """Clients that have seen nothing yet, and know from where on."""
        async def look(broker):
            return (await anext(Rooms(broker).messages("a"))).id

        with Broker(self.data) as broker:
            self.start = asyncio.run(look(broker))


def survive(place, rng, rounds):
    play = Play(place)
    play.begin()
    clients = [Party(play.listen, number) for number in range(len(CLIENTS))]
    parties = [Party(play.serve, 0), Party(play.serve, 1), Party(play.emit), Party(play.feed),
               Party(play.feed)]
    until(lambda: all(one.lines() for one in play.seen), 60)
    kill_at_random(parties, rng, rounds, (0.0, 0.15))
    until(lambda: all(len(one.lines()) > 5 * rounds for one in play.seen), 60)    # however slow
    play.end.give()
    for party in parties[2:]:
        party.wait()
    with Broker(play.data) as broker:
        rooms = Rooms(broker)
        bus = [json.loads(record.value) for record in broker.read("shop")]
        with rooms.feed("shop", "order.*", lambda event: "c"):    # what the killed left undone
            until(lambda: sum(b"-bus-" in record.value for record in broker.read("live"))
                  == len(bus), 60)
        for room in "ab":
            rooms.emit(room, LAST)
        there = [(record.key.decode(), record.offset, json.loads(record.value))
                 for record in broker.read("live")]
    for client in clients:
        client.wait()
    for party in parties[:2]:
        party.kill()

    fed = [data for _, _, data in there if "-bus-" in data]
    assert sorted(fed) == sorted(bus), "an event was fed twice, or never"
    for wish, diary in zip(CLIENTS, play.seen, strict=True):
        lines = [line.split() for line in diary.lines()]
        assert ["ready", "False"] not in lines
        got = [(int(place.partition("-")[2]) - 1, data)
               for place, data in lines if place != "ready"]
        wanted = [(offset, data) for room, offset, data in there if f"room={room}" in wish]
        assert got == wanted[:len(got)], wish
        assert got[-1][1] == LAST
        assert len(got) > 3 * rounds


@pytest.mark.slow
def test_clients_of_killed_servers_miss_nothing_and_get_nothing_twice(tmp_path, rng):
    survive(tmp_path, rng, 20)


@pytest.mark.soak
def test_clients_of_servers_killed_hundreds_of_times_miss_nothing(tmp_path, rng):
    survive(tmp_path, rng, 300)
