"""Saga: steps in several places that are done all, or undone: durable, without a transaction.

    saga = Saga(broker, "checkout")

    @saga.step(retry=Retry(attempts=5))
    def reserve(ctx, order):
        return inventory.reserve(order["items"], key=ctx.idempotency_key)

    @reserve.compensate
    def release(ctx, order, reservation):
        inventory.release(reservation)

    saga.command("charge", bus, "saga.processPayment", reply="saga.paymentProcessed",
                 failed="saga.paymentFailed", compensate="saga.refundPayment")

What each step returned is in the journal before the next begins, so a step that was completed is
never called again (as DBOS has it); `TerminalError` turns back at once, other errors after some
attempts (Restate); a compensation gets the result of its step (MassTransit).
"""

import atexit
import contextlib
import logging
import os
import threading
from collections.abc import Callable
from typing import Any, Self

from pylog import (
    Broker,
    ClosedError,
    ConfigurationError,
    IllegalStateError,
    PylogTimeoutError,
)
from pylog.patterns.bus import Bus
from pylog.patterns.events import Ids
from pylog.patterns.handler import check_handler
from pylog.patterns.retry import Retry, check_count, check_name, check_seconds
from pylog.patterns.saga_commands import Command, check_answers, data_of
from pylog.patterns.saga_entry import ENDED, STATUSES
from pylog.patterns.saga_handle import SagaHandle, failure, result_of
from pylog.patterns.saga_journal import Journal, Moment, SagaEntry
from pylog.patterns.saga_orchestrator import Orchestrator
from pylog.patterns.saga_run import Definition, SagaRun
from pylog.patterns.saga_steps import RETRY, UNDO_RETRY, Step, action_of
from pylog.patterns.unpicklable import Unpicklable
from pylog.patterns.values import codec_of
from pylog.patterns.wildcards import check_type

logger = logging.getLogger("pylog.patterns")

EXIT_SECONDS = 1.0    # that the interpreter waits for functions when it ends
LOOK_SECONDS = 0.05   # how soon `run` notices that another who has its saga has died


class Saga(Unpicklable):
    """A saga: its steps, and the sagas of its name, each with an id. Safe for threads.

    broker: a Broker, or the path of one, which is then closed with this. name: the journal is the
    topic `saga.<name>`. value: how an input becomes bytes, as everywhere; results are JSON. ttl:
    seconds that a saga is remembered from its last record on; None: for ever. max_takeovers: how
    many processes may die one after the other at one step, before it is given up.

        >>> from pylog import SagaFailedError, TerminalError
        >>> with Saga("data", "checkout") as checkout:
        ...     @checkout.step
        ...     def reserve(ctx, order):
        ...         return {"reserved": order["items"]}
        ...     @reserve.compensate
        ...     def release(ctx, order, reservation):
        ...         print("released", reservation["reserved"])
        ...     @checkout.step
        ...     def charge(ctx, order):
        ...         if order["total"] > 100:
        ...             raise TerminalError("card refused")
        ...         return "paid"
        ...     checkout.run({"items": 2, "total": 20}, id="order-1")
        ...     try:
        ...         checkout.run({"items": 3, "total": 200}, id="order-2")
        ...     except SagaFailedError as error:
        ...         error.step, error.reason, error.compensated
        {'reserve': {'reserved': 2}, 'charge': 'paid'}
        released 3
        ('charge', 'TerminalError: card refused', True)

    **Guarantee**: each saga is completed, or compensated, or parked and listed, whichever process
    is killed when. What a step returned is kept, and it is not called again. **What can repeat is
    the effect** of the step at hand, where its process died in it or its time was over: its
    `ctx.idempotency_key` is for that. A saga that lasts for longer than the ttl is forgotten; one
    that is parked is not, while somebody executes sagas of its name now and then. Cost: 13 us a
    step of three that return at once, of which 4 are the step's and the rest is shared; every
    process folds what all write, 2 us a record.
    """

    def __init__(
        self, broker: Broker | str | os.PathLike[str], name: str, *, value: Any = "json",
        ttl: float | None = 2_592_000, max_takeovers: int = 10,
    ) -> None:
        check_name("name", name)
        codec = codec_of(value)
        check_count("max_takeovers", max_takeovers)
        self.name = name
        self._broker, self._is_owner = Broker.of(broker)
        try:
            self._journal = Journal(self._broker, name, ttl)
        except BaseException:
            if self._is_owner:
                self._broker.close()
            raise
        self._definition = Definition(name, codec, self._journal, max_takeovers)
        self._ids = Ids()
        self._orchestrators: set[Orchestrator] = set()
        self._thread: threading.Thread | None = None
        self._has_begun = False
        self.error: BaseException | None = None
        self._broker.dependents.add(self)

    # ---- what it is

    def step(
        self, function: Callable[..., Any] | None = None, *, name: str | None = None,
        retry: Retry | None = RETRY, timeout: float | None = None,
    ) -> Any:
        """A decorator: function(ctx, input) is the next step. What it is replaced by, a Step, has
        `compensate`, the decorator of its undo.

        function: or a coroutine function. What it returns goes into JSON. A TerminalError, or any
        error after the attempts of `retry` (3 by default), undoes what was done before. name: that
        of the function by default. timeout: seconds an attempt; one that takes longer has failed,
        though a function that is running cannot be stopped, and may run beside the next attempt.
        """
        if function is None:
            return lambda function: self.step(function, name=name, retry=retry, timeout=timeout)
        check_handler(function, 2)
        return self._add(Step(getattr(function, "__name__", "step") if name is None else name,
                              action_of(function, retry, timeout)))

    def command(
        self, name: str, bus: Bus, kind: str, *, reply: str, failed: str | None = None,
        data: Callable[..., dict[str, Any]] | None = None, retry: Retry | None = None,
        timeout: float | None = 30.0, compensate: str | None = None,
        compensated: str | None = None, undo_retry: Retry | None = UNDO_RETRY,
    ) -> Step:
        """The next step is done by a service that listens on a bus (see `serve`).

        kind: the type of the event that asks; its data are the input, which is a dict, or what
        data(ctx, input) returns, and `sagaId`. reply, failed: `<reply>.<id>` is the event that it
        is done, whose data are the result; `<failed>.<id>` that it will not be. compensate: the
        type of the event that takes it back, with `result` in its data; done once it is sent, or
        once `<compensated>.<id>` comes. timeout: without an answer it has failed, which is tried
        again by `retry` (not, by default), then undone, as it may have been done.

        A command comes at least once, always with the same `event.id`. Those of one saga are in
        order where one group serves them: an undo does not overtake what it undoes.
        """
        if not isinstance(bus, Bus):
            raise TypeError(f"bus must be a Bus, not {type(bus).__name__}")
        if bus.broker.path != self._broker.path:
            raise ConfigurationError(
                f"the bus is a topic of {bus.broker.path}, and the saga of {self._broker.path}: "
                "have both in one broker", option="bus", value=bus)
        for one in (kind, reply, failed, compensate, compensated):
            if one is not None:
                check_type(one)
        check_answers(reply, failed)
        if compensated is not None and compensate is None:
            raise ConfigurationError(f"compensated={compensated!r} answers nothing: pass "
                                     "compensate=, the type of what asks for it",
                                     option="compensated", value=compensated)
        make = data_of(data)
        do = action_of(make, retry, timeout, Command(bus, kind, reply, failed))
        undo = compensate and action_of(make, undo_retry, timeout,
                                        Command(bus, compensate, compensated))
        return self._add(Step(name, do, undo or None))

    def _add(self, step: Step) -> Step:
        if not isinstance(step.name, str):
            raise TypeError(f"the name of a step must be a str, not {type(step.name).__name__}")
        if self._has_begun:
            raise IllegalStateError("the saga has begun: say all of its steps before")
        if not step.name or step.name in self._definition.steps:
            raise ConfigurationError(f"a step cannot be called {step.name!r}: each has a name of "
                                     "its own; pass name=", option="name", value=step.name)
        self._definition.steps[step.name] = step
        return step

    # ---- executing

    def submit(self, value: Any, id: str | None = None) -> SagaHandle:  # noqa: A002
        """Has a saga executed by whoever works, in any process; at once if it is there already.

        id: its own, words with dots between as types of events are; the same id is the same saga,
        and the input of the first counts. Cost: a change of a `State`. Raises SerializationError,
        ConfigurationError.
        """
        saga = self._ids.next() if id is None else _checked_id(id)
        self._journal.start(saga.encode(), self._bytes_of(value))
        return SagaHandle(self._journal, saga)

    def run(self, value: Any, id: str | None = None) -> dict[str, Any]:  # noqa: A002
        """Executes a saga in this thread; returns what its steps returned, by name.

        One that another has is waited for, and taken over if that dies; of one that has ended, the
        result is known. Raises SagaFailedError, whose cause is the error of the step;
        IllegalStateError where `stop` ended it.
        """
        saga = self._ids.next() if id is None else _checked_id(id)
        key = saga.encode()
        data = self._bytes_of(value)
        one = self._begin()
        try:
            run = self._mine(one, key, value, data)
            if run is None:
                return result_of(self._journal, self._journal.entry(key))
            one.finish(run)
        finally:
            self._end(one)
        if run.status not in ENDED:
            raise IllegalStateError(f"the saga {saga!r} was stopped while it was {run.status}; it "
                                    "is anybody's now: run it again, or have somebody work")
        if run.status == "completed":
            return run.results
        raise failure(saga, run.status, run.failed_step, run.reason) from run.error

    def _mine(self, one: Orchestrator, key: bytes, value: Any, data: bytes | None,
              ) -> SagaRun | None:
        """The saga, once it is ours; None: it has ended."""
        if self._journal.start(key, data, one.owner):
            return SagaRun(self._definition, key, value)
        while self._journal.entry(key).status not in ENDED:
            if (entry := self._journal.claim(one.owner, key)) is not None:
                return SagaRun.resumed(self._definition, entry)
            self._journal.state.wait(LOOK_SECONDS)
        return None

    def work(self, concurrency: int = 1, in_flight: int = 1000, idle: float | None = None) -> int:
        """Executes what is submitted, and what the dead have left, until `stop`; returns how many
        have ended.

        concurrency: functions that are called at a time: 1 calls them in this thread, which is
        quickest; more have a thread each, which is for those that wait. in_flight: sagas at most
        that it has, whatever they wait for: an answer, a coroutine, the next attempt. idle: stop
        after so many seconds without anything to do. Any number of processes may work. Raises what
        the journal raises, DiskFullError among it; the sagas in hand are then anybody's.
        """
        if idle is not None:
            check_seconds("idle", idle)
        return self._work_of(self._begin(concurrency, in_flight), idle)

    def _work_of(self, one: Orchestrator, idle: float | None = None) -> int:
        try:
            return one.work(idle)
        finally:
            self._end(one)

    def resume(self) -> int:
        """Executes what nobody has: submitted, or left by the dead; returns how many, when there is
        nothing of it any more."""
        return self.work(idle=0.0)

    def start(self, concurrency: int = 1, in_flight: int = 1000) -> Self:
        """`work` in a thread of its own, until `stop`; what ends it otherwise is `error`."""
        if self._thread is not None and self._thread.is_alive():
            raise IllegalStateError("it has been started already: stop() it first")
        self.error = None
        one = self._begin(concurrency, in_flight)    # here, so that stop() knows of it
        self._thread = threading.Thread(target=self._work, args=(one,), daemon=True,
                                        name=f"pylog-saga-{self.name}")
        atexit.register(self._stop_at_exit)
        self._thread.start()
        return self

    def _work(self, one: Orchestrator) -> None:
        try:
            self._work_of(one)
        except BaseException as error:    # SystemExit of a step, too
            if not (isinstance(error, ClosedError) and self._broker.closed):
                logger.error("the saga %r is executed no more: %s", self.name, error,
                             exc_info=error)
                self.error = error

    def stop(self, timeout: float | None = None) -> None:
        """Ends what this object executes, after the functions that are being called; what it has
        in hand is anybody's. Idempotent. Called by a step it does not wait.

        Raises PylogTimeoutError after `timeout` seconds; they end as soon as the functions do.
        """
        orchestrators = list(self._orchestrators)
        for one in orchestrators:
            one.stop()
        if any(one.is_this_thread for one in orchestrators):
            return
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout)
            if self._thread.is_alive():
                raise PylogTimeoutError(
                    f"a step of {self.name!r} has been at work for {timeout} s since it was to "
                    "stop; call stop() again, or let the step have a timeout",
                    timeout_ms=int(1000 * (timeout or 0)))
        atexit.unregister(self._stop_at_exit)

    def _stop_at_exit(self) -> None:
        with contextlib.suppress(PylogTimeoutError):
            self.stop(EXIT_SECONDS)

    def _begin(self, concurrency: int = 1, in_flight: int = 1) -> Orchestrator:
        self._need_steps()
        check_count("concurrency", concurrency)
        check_count("in_flight", in_flight)
        one = Orchestrator(self._definition, self._broker, concurrency, in_flight)
        self._orchestrators.add(one)
        return one

    def _end(self, one: Orchestrator) -> None:
        self._orchestrators.discard(one)
        one.close()

    def _need_steps(self) -> None:
        if not self._definition.steps:
            raise IllegalStateError(f"the saga {self.name!r} has no steps here, so that none could "
                                    "be executed: say them by `step` and `command`")
        self._has_begun = True

    def _bytes_of(self, value: Any) -> bytes | None:
        serialize = self._definition.codec.serialize
        data: bytes | None = value if serialize is None else \
            serialize(self._journal.topic, None, value)
        return data

    # ---- looking

    def handle(self, saga: str) -> SagaHandle:
        """Of a saga that was submitted before."""
        return SagaHandle(self._journal, _checked_id(saga))

    def show(self, saga: str) -> list[Moment]:
        """The history of a saga, record by record. Raises UnknownSagaError. Cost: reads the journal
        from its first record to its last."""
        return [*self._journal.history(_checked_id(saga).encode())]

    def retry(self, saga: str) -> None:
        """Lets a parked saga go on where it was, by whoever works. Raises UnknownSagaError,
        IllegalStateError."""
        self._journal.retry(_checked_id(saga).encode())

    def list(self, status: str | None = None) -> list[SagaEntry]:
        """The sagas of a status, or all that are remembered, oldest first.

        status: "submitted", "running", "compensating", "completed", "compensated" or "parked".
        """
        if status is not None and status not in STATUSES:
            raise ConfigurationError(f"status={status!r} is unknown; use one of "
                                     f"{', '.join(STATUSES)}", option="status", value=status)
        return [*self._journal.list(status)]

    # ---- lifetime

    def close(self) -> None:
        """Stops what was begun here, and closes the broker if it was opened here; idempotent."""
        self.stop()
        if self._is_owner:
            self._broker.close()

    _is_made_of_others = True    # the broker closes it before its consumers

    def _close_with_broker(self) -> None:
        self.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Saga {self.name!r}, steps {', '.join(self._definition.steps) or 'none yet'}>"


def _checked_id(given: object) -> str:
    """One that can be the end of a type of event. Raises ConfigurationError, TypeError."""
    if not isinstance(given, str):
        raise TypeError(f"the id of a saga must be a str, not {type(given).__name__}")
    try:
        return check_type(given)
    except ConfigurationError:
        raise ConfigurationError(
            f"a saga cannot have the id {given[:60]!r}: it is words with dots between, without "
            "spaces and '*', as order-42, for it becomes a part of types of events", option="id",
            value=given) from None
