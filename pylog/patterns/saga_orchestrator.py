"""What executes sagas in a process: one thread, and what it waits for.

A saga that waits, for an answer, for its next attempt or for a coroutine, is an entry in a dict or
in a heap of timers, and holds no thread. Functions are called in the thread itself, one after the
other; or with `concurrency` > 1, and where they have a timeout, in threads of their own.
"""

import contextlib
import heapq
import itertools
import time
from collections import deque
from concurrent.futures import CancelledError, Future
from typing import Any

from pylog import Broker, IllegalStateError, PylogError, PylogTimeoutError
from pylog.patterns.saga_calls import Calls
from pylog.patterns.saga_commands import Command, Context
from pylog.patterns.saga_ear import Attempt, Ear
from pylog.patterns.saga_journal import forget_owner, new_owner
from pylog.patterns.saga_run import Definition, SagaRun
from pylog.patterns.saga_steps import Action, Step

CLAIMS = 16             # sagas that are claimed between two looks at what else there is
LOOK_SECONDS = 0.05     # how soon it notices that the owner of a saga has died
IDLE_SECONDS = 1.0
TIMERS = 1000           # when those that are over are looked for


class Orchestrator:
    """Executes sagas until it is told to stop; `work` and `finish` are for one thread.

    concurrency: how many functions are called at a time. in_flight: how many sagas it has at most.
    """

    def __init__(self, definition: Definition, broker: Broker, concurrency: int = 1,
                 in_flight: int = 1) -> None:
        self._definition = definition
        self._journal = definition.journal
        self._broker = broker
        self._concurrency = concurrency
        self._in_flight = in_flight
        self.owner = new_owner(self._journal.processes)
        self._runs: dict[bytes, SagaRun] = {}
        self._is_claiming = True    # it may have one by the journal that is not in `_runs`
        self._calls = Calls(concurrency, self._limit, self._bring)
        self._outcomes: deque[tuple[Attempt, Future[Any]]] = deque()    # what it has brought
        # A heap: when, a number, whose and of which turn; an attempt whose time is over then, or
        # None where the next is due.
        self._timers: list[tuple[float, int, SagaRun, int, Attempt | None]] = []
        self._numbers = itertools.count()
        # Commands to be sent again, unless the bus has an answer before these ends.
        self._unsent: list[tuple[Command, Attempt, Context, Any, list[int]]] = []
        self._ear: Ear | None = None
        self._is_stopping = False
        self._ended = 0

    # ---- what is called from outside

    def work(self, idle: float | None = None) -> int:
        """Claims and executes, until `stop` is called or nothing was to be done for `idle` s.
        Returns how many sagas have ended."""
        idle_since = time.monotonic()
        self._journal.look_soon()
        self._need_ear()
        while True:
            asked = time.monotonic()    # who stands still from here on has not been idle
            is_busy = self._claim_some() | self._go_on()
            self._journal.keep_parked()
            now = time.monotonic()
            if is_busy or self._runs:
                idle_since = now
            elif idle is not None and asked - idle_since >= idle:
                return self._ended
            if self._is_stopping and not self._calls.is_busy:
                return self._ended
            self._hear(0.0 if is_busy else self._pause(now))

    def finish(self, run: SagaRun) -> None:
        """Executes one saga to its end."""
        self._runs[run.key] = run
        self._is_claiming = False
        self._go(run)
        while self._runs and not (self._is_stopping and not self._calls.is_busy):
            is_busy = self._go_on()
            if self._runs:
                self._hear(0.0 if is_busy else self._pause(time.monotonic()))

    @property
    def is_this_thread(self) -> bool:
        """Whether a function that it has called asks, from a thread that it gave it."""
        return self._calls.is_this_thread

    def stop(self) -> None:
        """From any thread: ends `work` after the functions that are being called."""
        self._is_stopping = True
        if self._ear is not None:
            self._ear.wake()

    # ---- one turn

    def _claim_some(self) -> bool:
        for count in range(CLAIMS):
            if self._is_stopping or len(self._runs) >= self._in_flight or self._calls.is_full:
                return count > 0
            self._is_claiming = True
            entry = self._journal.claim(self.owner)
            if entry is not None:
                run = self._runs[entry.key] = SagaRun.resumed(self._definition, entry)
            self._is_claiming = False
            if entry is None:
                return count > 0
            self._go(run)
        return True

    def _go_on(self) -> bool:
        """What threads have brought, and what is due; whether there was anything."""
        found = False
        while self._outcomes:
            begun, done = self._outcomes.popleft()
            self._calls.returned(begun)
            error = CancelledError() if done.cancelled() else done.exception()
            self._over(begun, None if error else done.result(), error)
            found = True
        if self._unsent:
            self._send_again()
            found = True
        now = time.monotonic()
        if self._timers and self._timers[0][0] <= now:
            self._hear(0.0)    # an answer that is there counts, though we had no time to look
        while self._timers and self._timers[0][0] <= now:
            _, _, run, turn, attempt = heapq.heappop(self._timers)
            if run.turn != turn:
                continue
            found = True
            if attempt is None:
                self._go(run)
            else:
                self._over(attempt, None, PylogTimeoutError(
                    f"{attempt.step.name!r} has not been done within {attempt.action.timeout} s",
                    timeout_ms=int(1000 * (attempt.action.timeout or 0))), is_doubtful=True)
        return found

    def _pause(self, now: float) -> float:
        """Seconds until something is to be looked at."""
        pause = LOOK_SECONDS if self._journal.owned > len(self._runs) else IDLE_SECONDS
        return max(0.0, min(pause, self._timers[0][0] - now)) if self._timers else pause

    # ---- a run

    def _go(self, run: SagaRun) -> None:
        """Until it waits, or has ended."""
        while not self._is_stopping:
            found = run.next()
            if found is None:
                del self._runs[run.key]
                self._ended += 1
                return
            step, action = found
            arguments = run.begin(step)
            if action.command is not None:
                if not self._send(action.command, Attempt(run, run.turn, step, action), arguments):
                    return
            elif action.is_async or action.timeout is not None or self._concurrency > 1:
                self._need_ear()    # which the outcome wakes
                self._calls.begin(Attempt(run, run.turn, step, action), arguments)
                return
            else:
                result, error = None, None
                try:
                    result = action.function(*arguments)
                except (Exception, SystemExit) as caught:    # lest it ends one worker after another
                    error = caught
                if not self._note(run, step, action, result, error):
                    return

    def _note(self, run: SagaRun, step: Step, action: Action, result: Any,
              error: BaseException | None, is_doubtful: bool | None = None) -> bool:
        """What came of an attempt; whether the saga goes on at once."""
        delay = run.succeeded(step, action, result) if error is None \
            else run.failed(step, action, error, is_doubtful)
        if delay:
            self._call_in(delay, run)
        return not delay

    def _over(self, attempt: Attempt, result: Any, error: BaseException | None,
              is_doubtful: bool | None = None) -> None:
        """The same of an attempt that was waited for, unless it comes too late."""
        run, turn, step, action = attempt
        if turn != run.turn:
            return
        run.turn += 1
        if action.command is not None:
            self._need_ear().forget(action.command, attempt)
        else:
            self._calls.over(attempt)
        if self._note(run, step, action, result, error, is_doubtful):
            self._go(run)

    def _call_in(self, seconds: float, run: SagaRun, attempt: Attempt | None = None) -> None:
        timers = self._timers
        heapq.heappush(timers, (time.monotonic() + seconds, next(self._numbers), run, run.turn,
                                attempt))
        if len(timers) > TIMERS and len(timers) > 4 * len(self._runs):
            timers[:] = [one for one in timers if one[2].turn == one[3]]    # most are over
            heapq.heapify(timers)

    def _limit(self, attempt: Attempt) -> None:
        """The time of an attempt begins."""
        timeout = attempt.action.timeout
        if timeout is not None:
            self._call_in(timeout, attempt.run, attempt)

    # ---- commands

    def _send(self, command: Command, attempt: Attempt, arguments: tuple[Any, ...]) -> bool:
        """Whether the saga goes on at once."""
        (run, _, step, action), ear = attempt, self._need_ear()
        try:
            data = action.function(*arguments)
        except (Exception, SystemExit) as error:
            return self._note(run, step, action, None, error)
        if command.reply is None:
            return self._emit(command, attempt, arguments[0], data)
        topic, ends = command.bus.name, run.ends
        ear.watch(topic)
        now = ear.ends(topic)
        run.send(step, now)
        ear.expect(command, attempt)
        if ends is None:
            return self._emit(command, attempt, arguments[0], data)
        ear.go_back(topic, ends)
        self._unsent.append((command, attempt, arguments[0], data, now))
        return False

    def _send_again(self) -> None:
        """What was sent before, by whoever had the saga, and has no answer on the bus."""
        unsent, self._unsent = self._unsent, []
        for one in unsent:
            command, attempt, ctx, data, ends = one
            if attempt.turn != attempt.run.turn:
                continue    # answered
            if not self._need_ear().has_heard(command.bus.name, ends):
                self._unsent.append(one)
            elif self._emit(command, attempt, ctx, data):
                self._go(attempt.run)

    def _emit(self, command: Command, attempt: Attempt, ctx: Context, data: Any) -> bool:
        """Sends it; whether the saga goes on at once."""
        run, _, step, action = attempt
        try:
            command.send(ctx, data)
        except IllegalStateError:    # the bus is closed: it is nothing that the saga did wrong
            raise
        except Exception as error:
            if command.reply is not None:
                self._need_ear().forget(command, attempt)
            return self._note(run, step, action, None, error)
        if command.reply is None:
            return self._note(run, step, action, None, None)
        self._limit(attempt)
        return False

    def _hear(self, timeout: float) -> None:
        for (attempt, command, is_done), record in self._need_ear().hear(timeout):
            result, error = None, None
            try:
                result = command.result_of(record, is_done)
            except Exception as caught:
                error = caught    # doubtful where it is done, and what was answered is unreadable
            self._over(attempt, result, error, is_doubtful=is_done)

    def _need_ear(self) -> Ear:
        if self._ear is None:
            self._ear = Ear(self._broker, self._journal.topic)
        return self._ear

    def _bring(self, attempt: Attempt, done: "Future[Any]") -> None:
        """In the thread of a function that was called elsewhere."""
        self._outcomes.append((attempt, done))
        if self._ear is not None:
            self._ear.wake()

    # ---- the end

    def close(self) -> None:
        """What it has in hand is anybody's then."""
        for run in self._runs.values():
            with contextlib.suppress(PylogError):    # told by what ends this
                run.release()
        if self._is_claiming:    # interrupted in it; others would wait for this process to end
            with contextlib.suppress(PylogError):
                self._journal.let_go(self.owner)
        forget_owner(self.owner)
        self._calls.close()
        if self._ear is not None:
            self._ear.close()
