"""Commands of a saga: events on a bus that ask a service to do something, and those that answer.

    saga.processPayment                 {"sagaId": "order-42", "total": 12}      asks
    saga.paymentProcessed.order-42      the result                               it is done
    saga.paymentFailed.order-42         {"reason": "card refused"}               it will not be
"""

import json
from collections.abc import Callable
from typing import Any, NamedTuple

from pylog import ConfigurationError, Record, TerminalError
from pylog.patterns.bus import Bus
from pylog.patterns.events import Event
from pylog.patterns.handler import check_handler, is_async
from pylog.patterns.retry import Retry
from pylog.patterns.wildcards import check_type


class Context(NamedTuple):
    """What a step gets first. id: of the saga. step: its own name. attempt: from 1 on, in this
    process. results: of the steps before, by name.

    idempotency_key: the same at each attempt of this step of this saga, in whatever process: what
    has the effect (a payment service) takes it along, and does it once.
    """

    id: str
    step: str
    attempt: int
    idempotency_key: str
    results: dict[str, Any]


class Command(NamedTuple):
    """What is sent, and what answers it. reply, failed: the types of the answers, without the id;
    without a reply it is done once it is sent."""

    bus: Bus
    type: str
    reply: str | None
    failed: str | None = None

    def answers(self, saga: str) -> dict[bytes, bool]:
        """The types of the events that answer it; True: it is done."""
        return {f"{kind}.{saga}".encode(): is_done
                for kind, is_done in ((self.reply, True), (self.failed, False)) if kind is not None}

    def send(self, ctx: Context, data: Any) -> None:
        """The event id is the same at each attempt, so that who has done it knows it again; the key
        is the saga's id, so that a service gets what one saga asks of it in order."""
        self.bus.emit(self.type, data, key=ctx.id, event_id=ctx.idempotency_key)

    def result_of(self, record: Record, is_done: bool) -> Any:
        """What was answered. Raises TerminalError where it will not be done."""
        data = self.bus.event(record).data
        if is_done:
            return data
        reason = data.get("reason") if isinstance(data, dict) else data
        raise TerminalError(str(reason or json.dumps(data, default=str)))


def check_answers(reply: str | None, failed: str | None) -> None:
    """ConfigurationError where what is done and what will not be done are answered alike."""
    if reply is not None and failed == reply:
        raise ConfigurationError(f"failed={failed!r} is the reply too, and nobody could tell one "
                                 "from the other", option="failed", value=failed)


def data_of(make: Callable[[Context, Any], Any] | None) -> Callable[..., dict[str, Any]]:
    """(ctx, input), of an undo (ctx, input, result): the data of the command. Raises TypeError."""
    if make is not None and is_async(check_handler(make, 2)):
        raise TypeError("data must be a function that returns a dict, and no `async def`")

    def data(ctx: Context, given: Any, *result: Any) -> dict[str, Any]:
        found = given if make is None else make(ctx, given)
        if not isinstance(found, dict):
            raise TypeError(f"the data of a command is a dict, not {type(found).__name__}: pass "
                            "data=, a function (ctx, input) that returns one")
        return {**found, "sagaId": ctx.id, **({"result": result[0]} if result else {})}

    return data


def serve(
    bus: Bus, command: str, function: Callable[[Event], Any] | None = None, *, reply: str,
    failed: str | None = None, group: str, retry: Retry | None = None,
) -> Any:
    """The service's side: answers a command with what function(event) returns; without a function,
    a decorator.

    A TerminalError is the answer `failed`, with its words as the reason; whatever else it raises is
    tried again by `retry`, then a dead letter, and the saga's timeout is over some day. group: of
    the service, as of `bus.on`, which this is; begin it with `bus.start()`.

    **Guarantee**: at least once: a command comes again where a process died, with the same
    `event.id`, and must not have its effect twice: see `Idempotency`, or have the id in a table.
    Raises ConfigurationError, TypeError.
    """
    if not isinstance(bus, Bus):
        raise TypeError(f"bus must be a Bus, not {type(bus).__name__}")
    for one in (command, reply) if failed is None else (command, reply, failed):
        check_type(one)
    check_answers(reply, failed)
    if function is None:
        return lambda function: serve(bus, command, function, reply=reply, failed=failed,
                                      group=group, retry=retry)
    check_handler(function)

    def say(event: Event, kind: str, result: Any) -> None:
        saga = event.data["sagaId"]
        bus.emit(f"{kind}.{saga}", result, key=saga, event_id=f"{event.id}/{kind}")

    def refuse(event: Event, error: TerminalError) -> None:
        if failed is None:
            raise error
        say(event, failed, {"reason": str(error)})

    def answer(event: Event) -> None:
        try:
            say(event, reply, function(event))
        except TerminalError as error:
            refuse(event, error)

    async def answer_async(event: Event) -> None:
        try:
            say(event, reply, await function(event))
        except TerminalError as error:
            refuse(event, error)

    bus.on(command, answer_async if is_async(function) else answer, group=group,
           retry=retry, name=command)
    return function
