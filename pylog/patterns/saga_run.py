"""One saga at work in this process: forward step by step, or backward undo by undo, each noted in
the journal before the next is begun. Called by one thread, its orchestrator's."""

from typing import Any

from pylog import SerializationError, TerminalError
from pylog.patterns.headers import SAGA_ATTEMPT, SAGA_ENDS, SAGA_EVENT, SAGA_STEP, to_value
from pylog.patterns.saga_commands import Context
from pylog.patterns.saga_journal import Entry, Journal, event_headers, to_json
from pylog.patterns.saga_steps import Action, Step
from pylog.patterns.values import Codec


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

    status: "running", "compensating", or how it has ended. error: why it turned back. turn: a
    number that moves with all that it waits for: what comes with an older one comes too late.
    """

    def __init__(self, definition: Definition, key: bytes, given: Any) -> None:
        self.key = key
        self.id = key.decode()
        self.status = "running"
        self.results: dict[str, Any] = {}
        self.error: BaseException | None = None
        self.reason: str | None = None
        self.failed_step: str | None = None
        self.turn = 0
        self.ends: list[int] | None = None    # of the bus, before the command was first sent
        self._definition = definition
        self._journal = definition.journal
        self._input = given
        self._done: list[str] = []            # what is to be undone, in order
        self._attempt = 0
        self._is_open = False        # an attempt has begun, and nothing has come of it yet
        self._is_doubtful = False    # an earlier one may have had its effect

    @classmethod
    def resumed(cls, definition: Definition, entry: Entry) -> "SagaRun":
        """Where its last owner was, as the journal says."""
        journal, read = definition.journal, definition.codec.deserialize
        first = journal.record(entry.first)
        run = cls(definition, entry.key, first.value if read is None else read(first))
        run.status = entry.status
        run.ends = entry.ends
        run._is_doubtful = entry.is_doubtful or entry.deaths > 0
        for name, offset in entry.steps:
            run._done.append(name)
            if offset is not None:
                run.results[name] = journal.result(offset)
        if entry.status == "compensating":
            run.failed_step = entry.step
            run.reason = journal.error_of(entry)
        if entry.deaths > definition.max_takeovers:
            found = run.next()
            if found is not None:
                run._turn_back(found[0], TerminalError(
                    f"{entry.deaths} processes died at it, one after the other, and no other is "
                    "given to it"))
        return run

    # ---- what is next

    def next(self) -> tuple[str, Action] | None:
        """The step and what is to be done for it. None: the saga has ended."""
        steps = self._definition.steps
        if self.status == "running":
            for name, step in steps.items():
                if name not in self.results:
                    return name, step.do
            self._end("completed")
        while self.status == "compensating":
            if not self._done:
                self._end("compensated")
                break
            name = self._done[-1]
            if name not in steps:
                self._park(name, TerminalError(f"the saga has no step {name!r} any more: execute "
                                               "it by the code that had it, and retry"))
                break
            undo = steps[name].undo
            if undo is not None:
                return name, undo
            self._done.pop()
        return None

    def begin(self, step: str) -> tuple[Any, ...]:
        """The arguments of the next attempt."""
        self._attempt += 1
        self._is_open = True
        key = f"{self._definition.name}/{self.id}/{step}"
        if self.status == "running":
            return Context(self.id, step, self._attempt, key, self.results), self._input
        return (Context(self.id, step, self._attempt, f"{key}/undo", self.results), self._input,
                self.results.get(step))

    # ---- what came of it

    def succeeded(self, step: str, action: Action, result: Any) -> float | None:
        """Seconds until the next attempt, where the result cannot be kept; else None."""
        if self.status == "running":
            try:
                data = to_json(result)
            except SerializationError as error:
                return self.failed(step, action, error, is_doubtful=True)
            self._journal.append(self.key, [(SAGA_EVENT, b"step_completed"),
                                            (SAGA_STEP, to_value(step))], data)
            self.results[step] = result
            self._done.append(step)
        else:
            self._journal.append(self.key, [(SAGA_EVENT, b"step_compensated"),
                                            (SAGA_STEP, to_value(step))])
            self._done.pop()
        self._got_on()
        return None

    def failed(self, step: str, action: Action, error: BaseException,
               is_doubtful: bool | None = None) -> float | None:
        """Seconds until the next attempt; None: there is none. is_doubtful: whether it may have had
        its effect all the same; None: as before."""
        self._is_open = False
        if is_doubtful is not None:
            self._is_doubtful = is_doubtful
        self._journal.append(self.key, event_headers(
            "step_failed", step, error, self._is_doubtful, others={SAGA_ATTEMPT: self._attempt}))
        delay = None if isinstance(error, TerminalError) \
            else action.retry.delay(self._attempt, error)
        if delay is None:
            self._turn_back(step, error)
        return delay

    def sent(self, step: str, ends: list[int]) -> None:
        """A command is about to be sent; its answers are behind these ends of the bus."""
        if self.ends is None:
            self._journal.append(self.key, event_headers(
                "command_sent", step, others={SAGA_ENDS: ",".join(map(str, ends))}))
            self.ends = ends

    def _got_on(self) -> None:
        self._attempt, self._is_open, self._is_doubtful, self.ends = 0, False, False, None

    def _turn_back(self, step: str, error: BaseException) -> None:
        if self.status == "compensating":
            return self._park(step, error)
        self._journal.append(
            self.key, event_headers("compensating", step, error, self._is_doubtful))
        if self._is_doubtful:
            self._done.append(step)
        self.status = "compensating"
        self._blame(step, error)
        return self._got_on()

    def _park(self, step: str, error: BaseException) -> None:
        self._journal.append(self.key, event_headers("parked", step, error))
        self.status = "parked"
        self._blame(step, error)

    def _blame(self, step: str, error: BaseException) -> None:
        self.failed_step, self.error = step, error
        self.reason = f"{type(error).__name__}: {error}"

    def _end(self, status: str) -> None:
        self._journal.append(self.key, event_headers(status))
        self.status = status

    def release(self) -> None:
        """Whoever comes next may have it."""
        self._journal.append(self.key, event_headers(
            "released", is_doubtful=self._is_doubtful or self._is_open))
