"""Hub: one reader of a topic for all who listen in an event loop, each to some of its keys.

Who listens reads the log by itself until it is where the hub is, and gets what comes from the hub
from then on. The step from one to the other is between two awaits, so that nothing is missed and
nothing comes twice. One that is too slow falls back to the log: its buffer has a bound, and the log
is the rest of it.
"""

import asyncio
import json
import logging
from collections import deque
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from pylog import AsyncConsumer, Broker, ConfigurationError, Record, TopicPartition
from pylog.patterns.headers import ROOM_EVENT, text_of

logger = logging.getLogger("pylog.patterns")

NAME_MAX = 255            # characters of a room
BUFFER = 1000            # messages that wait for one who is slow, before it falls back to the log
CHUNK_BYTES = 65_536     # that are read for one before all others have their turn
READ_RECORDS = 100       # the same of the hub
IDLE_MS = 60_000


class Message(NamedTuple):
    """What a client gets. id: what it says when it comes back. room: None for what we say
    ourselves: "ready", and "heartbeat". text: {"id", "room", "event", "data"} in JSON."""

    id: str
    room: str | None
    event: str
    text: str

    @property
    def data(self) -> Any:
        """What was emitted."""
        return json.loads(self.text)["data"]


def check_room(name: object) -> str:
    """Returns it. Raises ConfigurationError, TypeError."""
    if not isinstance(name, str):
        raise TypeError(f"a room must be a str, not {type(name).__name__}")
    if not 0 < len(name) <= NAME_MAX or not name.isprintable():
        raise ConfigurationError(f"a room cannot be called {name[:60]!r}: use 1 to {NAME_MAX} "
                                 "printable characters", option="room", value=name)
    return name


def message(place: str, room: str | None, event: str, data: str) -> Message:
    """data: JSON."""
    head = json.dumps({"id": place, "room": room, "event": event}, ensure_ascii=False)
    return Message(place, room, event, f'{head[:-1]}, "data": {data}}}')


class Listener:
    """What waits for one who listens: (offset, message), in order."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[int, Message]] = deque()
        self._news = asyncio.Event()
        self._error: Exception | None = None
        self.is_cut = False    # it was too slow, and gets no more

    def put(self, offset: int, item: Message) -> bool:
        """False: it has no room for more, and is to get none."""
        self.is_cut = self.is_cut or len(self._waiting) == BUFFER
        if not self.is_cut:
            self._waiting.append((offset, item))
        self._news.set()
        return not self.is_cut

    def fail(self, error: Exception) -> None:
        """It raises this once it is empty."""
        self._error = error
        self._news.set()

    async def get(self, seconds: float | None) -> tuple[int, Message] | None:
        """The next; None: it was cut, or nothing came for so long."""
        while not self._waiting:
            if self._error is not None:
                raise self._error
            if self.is_cut:
                return None
            self._news.clear()
            try:
                async with asyncio.timeout(seconds):
                    await self._news.wait()
            except TimeoutError:
                if not self._news.is_set():    # something may have come at the last moment
                    return None
        return self._waiting.popleft()


class Hub:
    """The reader, which is at work while anybody listens. For one event loop."""

    def __init__(self, broker: Broker, topic: str) -> None:
        self._broker = broker
        self._partition = TopicPartition(topic, 0)
        self._listeners: dict[bytes, set[Listener]] = {}
        self._position = 0
        self._task: asyncio.Task[None] | None = None

    async def listen(self, keys: set[bytes], after: str | None, heartbeat: float | None,
                     ) -> AsyncGenerator[Message, None]:
        """"ready" first, then each message of these keys after that id, for ever; "heartbeat" when
        nothing came for so many seconds. Raises what reading raises."""
        tag, log = tag_of(self._broker, self._partition.topic), self._broker.log(*self._partition)
        position, end = offset_in(after, tag), log.readable_offset
        is_there = position is not None and log.start_offset <= position <= end
        if position is None or not is_there:
            position = end
        yield message(f"{tag}-{position}", None, "ready",
                      '{"recovered": false}' if after and not is_there else '{"recovered": true}')
        while True:
            while self._task is not None and position < self._position:
                chunk = log.fetch(position, max_bytes=CHUNK_BYTES)
                for at, key in enumerate(chunk.keys()):
                    if key in keys and (found := message_of(chunk[at], tag)) is not None:
                        yield found
                position = chunk.next_offset
                await asyncio.sleep(0)
            with self._joined(keys, position) as listener:
                while (item := await listener.get(heartbeat)) is not None or not listener.is_cut:
                    if item is None:
                        position = max(position, self._position)    # all before it was for others
                        yield message(f"{tag}-{position}", None, "heartbeat", "null")
                    elif item[0] >= position:
                        position = item[0] + 1
                        yield item[1]

    @contextmanager
    def _joined(self, keys: set[bytes], position: int) -> Iterator[Listener]:
        """A listener that gets all from where the hub is now on: there, or before it."""
        listener = Listener()
        for key in keys:
            self._listeners.setdefault(key, set()).add(listener)
        if self._task is None:
            self._position = position
            self._task = asyncio.create_task(self._run(tag_of(self._broker, self._partition.topic)))
        try:
            yield listener
        finally:
            self._drop(listener, keys)
            if not self._listeners and self._task is not None:
                self._task.cancel()
                self._task = None

    def _drop(self, listener: Listener, keys: set[bytes]) -> None:
        for key in keys:
            others = self._listeners.get(key, set())
            others.discard(listener)
            if not others:
                self._listeners.pop(key, None)

    async def _run(self, tag: str) -> None:
        try:
            async with AsyncConsumer(self._broker, auto_offset_reset="none") as consumer:
                consumer.assign([self._partition])
                consumer.seek(self._partition, self._position)
                while True:
                    found = await consumer.poll(IDLE_MS, READ_RECORDS)
                    for record in found.get(self._partition, ()):
                        self._give(record, tag)
                        self._position = record.offset + 1
                    await asyncio.sleep(0)    # what is there already would let nobody else run
        except Exception as error:
            if self._task is not asyncio.current_task():    # cancelled, and those are another's
                raise
            self._task = None
            logger.warning("the hub of %r has ended: %s", self._partition.topic, error)
            for listener in {one for group in self._listeners.values() for one in group}:
                listener.fail(error)
            self._listeners.clear()

    def _give(self, record: Record, tag: str) -> None:
        listeners = self._listeners.get(record.key or b"")
        if listeners and (found := message_of(record, tag)) is not None:
            for one in list(listeners):
                if not one.put(record.offset, found):
                    listeners.discard(one)


def message_of(record: Record, tag: str) -> Message | None:
    """None for a record that nobody has emitted: its value is no JSON."""
    try:
        text = "null" if record.value is None else record.value.decode()
        json.loads(text)
    except ValueError as error:
        logger.warning("%s-%s, offset %d is no message: %s", record.topic, record.partition,
                       record.offset, error)
        return None
    return message(f"{tag}-{record.offset + 1}", text_of(record.key),
                   text_of(record.header(ROOM_EVENT), "message"), text)


def tag_of(broker: Broker, topic: str) -> str:
    """What an id of the topic begins with: those of one that was deleted mean nothing any more."""
    return broker.topic(topic).topic_id.hex[:8]


def offset_in(place: str | None, tag: str) -> int | None:
    """The offset that an id means; None: it is none of this topic."""
    head, _, number = (place or "").partition("-")
    return int(number) if head == tag and number.isascii() and number.isdigit() \
        and len(number) < 19 else None
