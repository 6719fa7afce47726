"""One saga at work in this process: forward step by step, or backward undo by undo, each noted in
the journal before the next is begun. Called by one thread, its orchestrator's."""

import json
from typing import Any

from pylog import (
    MessageSizeTooLargeError,
    OffsetError,
    SerdeError,
    SerializationError,
    TerminalError,
)
from pylog.patterns.headers import SAGA_ATTEMPT, SAGA_ENDS
from pylog.patterns.saga_commands import Context
from pylog.patterns.saga_entry import Entry, event_headers
from pylog.patterns.saga_journal import Journal, to_json
from pylog.patterns.saga_steps import Action, Step
from pylog.patterns.values import Codec

HAS_ENDED = {status: event_headers(status) for status in ("completed", "compensated")}


class Definition:
    """What a saga is, whoever executes it. codec: of its input."""

    def __init__(self, name: str, codec: Codec, journal: Journal, max_takeovers: int) -> None:
        self.name = name
        self.codec = codec
        self.journal = journal
        self.max_takeovers = max_takeovers
        self.steps: dict[str, Step] = {}


class SagaRun:
    """A saga that this process owns.

    status: "running", "compensating", or how it has ended. failed_step, error, reason: why it
    turned back. turn: a number that moves on with each attempt: what comes of an older one comes
    too late. ends: of the bus, before the command at hand was first sent; None: it was not.
    """

    def __init__(self, definition: Definition, key: bytes, given: Any) -> None:
        self.key = key
        self.id = key.decode()
        self.status = "running"
        self.results: dict[str, Any] = {}
        self.failed_step: str | None = None
        self.error: BaseException | None = None
        self.reason: str | None = None
        self.turn = 0
        self.ends: list[int] | None = None
        self._definition = definition
        self._journal = definition.journal
        self._input = given
        self._done: list[str] = []    # what is to be undone, in order
        self._attempt = 0             # of the step at hand
        self._is_open = False         # it has begun, and nothing has come of it yet
        self._is_doubtful = False     # an earlier one may have had its effect

    @classmethod
    def resumed(cls, definition: Definition, entry: Entry) -> "SagaRun":
        """Where its last owner was, as the journal says."""
        run = cls(definition, entry.key, None)
        try:
            run._take_over(entry)
        except (SerdeError, OffsetError, ValueError) as error:    # lest it end each who takes it
            run._park(entry.step or "", error)
        return run

    def _take_over(self, entry: Entry) -> None:
        journal, read = self._journal, self._definition.codec.deserialize
        first = journal.record(entry.first)
        self._input = first.value if read is None else read(first)
        self.status, self.ends = entry.status, entry.ends
        self._is_doubtful = entry.is_doubtful or entry.deaths > 0
        for name, offset in entry.steps:
            self._done.append(name)
            if offset is not None:
                self.results[name] = journal.result(offset)
        if entry.status == "compensating":
            self.failed_step, self.reason = entry.step, journal.error_of(entry)
        if entry.deaths > self._definition.max_takeovers and (found := self.next()) is not None:
            self._turn_back(found[0].name, TerminalError(
                f"{entry.deaths} processes died at it, one after the other, and no other is given "
                "to it"))

    # ---- what is next

    def next(self) -> tuple[Step, Action] | None:
        """A step, and what is to be done for it. None: the saga has ended."""
        steps = self._definition.steps
        if self.status == "running":
            for name, step in steps.items():
                if name not in self.results:
                    return step, step.do
            self._end("completed")
        while self.status == "compensating":
            if not self._done:
                self._end("compensated")
            elif (last := steps.get(self._done[-1])) is None:
                self._park(self._done[-1], TerminalError(
                    "the saga has no such step any more: have it executed by code that has it, and "
                    "retry"))
            elif last.undo is not None:
                return last, last.undo
            else:
                self._done.pop()
        return None

    def begin(self, step: Step) -> tuple[Any, ...]:
        """The arguments of the next attempt."""
        self.turn += 1
        self._attempt += 1
        self._is_open = True
        name, key = step.name, f"{self._definition.name}/{self.id}/{step.name}"
        if self.status == "running":
            return Context(self.id, name, self._attempt, key, self.results), self._input
        return (Context(self.id, name, self._attempt, f"{key}/undo", self.results), self._input,
                self.results.get(name))

    def send(self, step: Step, ends: list[int]) -> None:
        """A command is about to be sent, and its answer will be behind these ends of the bus."""
        if self.ends is None:
            self._journal.append(self.key, event_headers(
                "command_sent", step.name, others={SAGA_ENDS: ",".join(map(str, ends))}))
            self.ends = ends

    # ---- what came of it

    def succeeded(self, step: Step, action: Action, result: Any) -> float | None:
        """Seconds until the next attempt, as `failed` has it; None: the step is over."""
        if self.status == "running":
            try:
                data = to_json(result)
                self._journal.append(self.key, step.completed, data)
            except (SerializationError, MessageSizeTooLargeError) as error:
                return self.failed(step, action, error, is_doubtful=True)
            # As who takes it over has it: no tuples, and keys are texts.
            self.results[step.name] = json.loads(data) if data is not None \
                and isinstance(result, dict | list | tuple) else result
            self._done.append(step.name)
        else:
            self._journal.append(self.key, step.compensated)
            self._done.pop()
        self._got_on()
        return None

    def failed(self, step: Step, action: Action, error: BaseException,
               is_doubtful: bool | None = None) -> float | None:
        """Seconds until the next attempt; None: there is none, and the saga turns back or is
        parked. is_doubtful: whether it may have had its effect all the same; None: as before."""
        self._is_open = False
        if is_doubtful is not None:
            self._is_doubtful = is_doubtful
        self._journal.append(self.key, event_headers(
            "step_failed", step.name, error, self._is_doubtful, {SAGA_ATTEMPT: self._attempt}))
        delay = None if isinstance(error, TerminalError) \
            else action.retry.delay(self._attempt, error)
        if delay is None:
            self._turn_back(step.name, error)
        return delay

    def _got_on(self) -> None:
        self._attempt, self._is_open, self._is_doubtful, self.ends = 0, False, False, None

    def _turn_back(self, step: str, error: BaseException) -> None:
        if self.status == "compensating":
            self._park(step, error)
            return
        self._journal.append(
            self.key, event_headers("compensating", step, error, self._is_doubtful))
        if self._is_doubtful:
            self._done.append(step)
        self._blame("compensating", step, error)
        self._got_on()

    def _park(self, step: str, error: BaseException) -> None:
        self._journal.append(self.key, event_headers("parked", step, error))
        self._blame("parked", step, error)

    def _blame(self, status: str, step: str, error: BaseException) -> None:
        self.status, self.failed_step, self.error = status, step, error
        self.reason = f"{type(error).__name__}: {error}"

    def _end(self, status: str) -> None:
        self._journal.append(self.key, HAS_ENDED[status])
        self.status = status

    def release(self) -> None:
        """Whoever comes next may have it."""
        self._journal.append(self.key, event_headers(
            "released", is_doubtful=self._is_doubtful or self._is_open))
