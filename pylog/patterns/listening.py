"""Listening: the handlers of a bus, by their groups, and the subscriptions that call them.

A bus is one topic and the type is in a header, so a listener reads all events and chooses: 0.3 us
for each that it does not want, and a pattern costs nothing while nothing matches it.
"""

import logging
import threading
from collections.abc import Callable
from typing import Any, Self, TypeVar

from pylog import Broker, ClosedError, ConfigurationError, IllegalStateError
from pylog.patterns.events import Event, as_declared, declared
from pylog.patterns.handler import Handler, Stats, check_handler, is_async, name_of
from pylog.patterns.letter import burier
from pylog.patterns.reader import Start
from pylog.patterns.retry import Retry, check_retry
from pylog.patterns.routes import Entry, Routes
from pylog.patterns.schema import shape_of
from pylog.patterns.wildcards import matcher

logger = logging.getLogger("pylog.patterns")

Function = TypeVar("Function", bound=Callable[[Any], Any])


class Line:
    """The handlers of a group, or those without one, and the subscription that calls them."""

    def __init__(self, group: str | None, deserialize: Callable[[Any], Any] | None) -> None:
        self.group = group
        self.routes = Routes(deserialize)
        self.start: Start = None
        self.concurrency: int | None = None
        self.subscription: Any = None

    def agree(self, option: str, given: Any) -> None:
        """One consumer reads for all handlers of a group: what is said of it is said once."""
        before = getattr(self, option)
        if given is not None and before is not None and given != before:
            raise ConfigurationError(
                f"{option}={given!r} of a handler of the group {self.group!r}, and {before!r} of "
                "another: one consumer reads for them all; say it once, or use another group",
                option=option, value=given)
        if given is not None:
            setattr(self, option, given)


class Listening:
    """The half of a bus that listens. deserialize: of the data of an event; None: it is bytes."""

    _kind: Any    # of subscription

    def __init__(self, broker: Broker, name: str,
                 deserialize: Callable[[Any], Any] | None) -> None:
        self.name = name
        self._broker = broker
        self._deserialize = deserialize
        self._lines: dict[Any, Line] = {}
        self._lock = threading.Lock()
        self._closing = threading.Event()

    def on(
        self, pattern: Any, handler: Callable[[Event], Any] | None = None, *,
        group: str | None = None, retry: Retry | None = None, dlq: bool | str | None = None,
        start: Start = None, concurrency: int | None = None, name: str | None = None,
    ) -> Any:
        """Calls handler(event) for each event whose type the pattern matches; without a handler, a
        decorator.

        pattern: a type, `*` for one segment of it, `**` for one or more; or a class that `@event`
        declares, whose instance is `event.data` then. handler: a function or a coroutine function.

        group: None is from now on, with nothing kept; such handlers are called at once, all by one
        thread (those that are coroutine functions: by another), each event by one after the other.
        With a name it is durable and begins at `start()`: each group has its own offset, and each
        of its handlers its own retry and dead letters. All handlers of a group get an event, in the
        order in which they were registered; one that fails on it is dead-lettered by its name and
        stops no other, though the others wait for its retries: a group of its own waits for nobody.
        An event is finished when all have had it; a kill before that repeats it for all of them.

        retry, dlq, start, concurrency: as `Topic.subscribe`'s, the last two for the whole group.
        name: of the handler in its dead letters; that of the function by default.

        Raises IllegalStateError for a group that has begun: register all of its handlers before
        `start()`, lest one miss events; ConfigurationError, TypeError.
        """
        said = declared(pattern)
        wants = matcher(pattern if said is None else said.type)    # now: a decorator may be late
        if handler is None:
            def register(function: Function) -> Function:
                self.on(pattern, function, group=group, retry=retry, dlq=dlq, start=start,
                        concurrency=concurrency, name=name)
                return function
            return register
        check_handler(handler)
        function: Callable[[Any], Any] = handler
        if said is not None:
            shape_of(pattern)    # says now what it cannot read
            def function(event: Event) -> Any:
                return handler(as_declared(pattern, event))
        made = Handler(function, name_of(handler) if name is None else name,
                       check_retry(retry, group), burier(self._broker, dlq, group, self.name),
                       group is not None, is_async(handler))
        if group is None and (start is not None or concurrency is not None):
            raise ConfigurationError(
                "start= and concurrency= are for a group: without one a handler gets what comes "
                "from now on, one event after the other; pass group=", option="group")
        with self._lock:
            self._check_open()
            line = self._line(group, made.is_async)
            if group is not None and line.routes.named(made.name) not in (None, handler):
                raise ConfigurationError(
                    f"two handlers of the group {group!r} are called {made.name!r}, and its dead "
                    "letters could not be told apart; pass name=", option="name", value=made.name)
            line.agree("start", start)
            line.agree("concurrency", concurrency)
            line.routes.add(Entry(made, handler, wants, self._ends() if line.subscription else {}))
            if group is None:
                self._begin_live(line)
        return handler

    def _line(self, group: str | None, is_coroutine: bool) -> Line:
        key = is_coroutine if group is None else group
        line = self._lines.get(key)
        if line is None:
            line = self._lines[key] = Line(group, self._deserialize)
        if group is not None and line.subscription is not None:
            raise IllegalStateError(
                f"the group {group!r} has begun, and a handler that comes now would miss events: "
                "register all handlers of a group before start(), or use another group")
        return line

    def _begin_live(self, line: Line) -> None:
        self._begin(line)

    def _begin(self, line: Line) -> None:
        if line.subscription is None:
            line.subscription = self._kind(
                self._broker, self.name, line.routes.of, line.routes.handlers, group=line.group,
                start=line.start, concurrency=line.concurrency or 1)

    def _ends(self) -> dict[int, int]:
        """What is published now is not what a handler that comes now gets."""
        count = self._broker.topic(self.name).partitions
        return {number: self._broker.log(self.name, number).readable_offset
                for number in range(count)}

    def start(self) -> Self:
        """Begins the groups that have not begun; returns the bus. Raises what Consumer raises."""
        with self._lock:
            self._check_open()
            for line in self._lines.values():
                self._begin(line)
        return self

    def _check_open(self) -> None:
        if self._closing.is_set():
            raise ClosedError("the bus is closed: make another")

    def _told_to_close(self) -> list[Any]:
        """The subscriptions that are to stop."""
        self._closing.set()
        with self._lock:
            for line in self._lines.values():
                if line.subscription is None:
                    logger.warning("the group %r of the bus %r was never begun: call start()",
                                   line.group, self.name)
            return [line.subscription for line in self._lines.values() if line.subscription]

    # ---- figures

    def stats(self) -> dict[tuple[str | None, str], Stats]:
        """How each handler has fared, by its group and its name."""
        return {(line.group, one.name): one.stats() for line in list(self._lines.values())
                for one in list(line.routes.handlers)}

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r} of {str(self._broker.path)!r}>"
