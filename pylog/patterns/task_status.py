"""How tasks stand: a topic that workers write to, and that anybody reads.

    key        the id of the task           value     of a done one: its result, as JSON
    headers    task, task_state, task_attempt, task_progress, task_message; error_type and
               error_message of a failure

Nobody's word is conditional on another's. Which of two counts where a task is at work twice, for
its first worker was taken for dead, is settled by who reads (`fold`): the first result stays.
"""

import asyncio
import time
from collections.abc import Generator, Iterator
from typing import Any, NamedTuple

from pylog import Broker, PylogTimeoutError, Record, TaskFailedError
from pylog.patterns import headers as names
from pylog.patterns.headers import number_of, text_of, to_value
from pylog.patterns.retry import check_seconds
from pylog.patterns.state import State
from pylog.patterns.values import codec_of

QUEUED, RUNNING, RETRYING, DONE, FAILED = "queued", "running", "retrying", "done", "failed"
UNKNOWN = "unknown"
LOOK_SECONDS = 0.05     # at the most, of who waits while another thread reads for both


class TaskStatus(NamedTuple):
    """How a task stands.

    id, task: which, by its name. state: "queued", "running", "retrying" (it failed, and will be
    tried again), "done", "failed" (for good), or "unknown": nothing is known, or no more. attempt:
    how often it was begun. progress: 0 to 1, as it said; message: what it said, or why it failed.
    updated: when, in seconds since the epoch; 0: never.
    """

    id: str
    task: str = ""
    state: str = UNKNOWN
    attempt: int = 0
    progress: float = 0.0
    message: str = ""
    updated: float = 0.0

    @property
    def is_finished(self) -> bool:
        """Whether it is done, or has failed for good."""
        return self.state in (DONE, FAILED)


class Entry(NamedTuple):
    status: TaskStatus
    record: Record


def status_of(record: Record) -> TaskStatus:
    """What one record says of a task."""
    head = dict(record.headers)
    state = text_of(head[names.TASK_STATE])
    error = text_of(head.get(names.ERROR_TYPE))
    reason = text_of(head.get(names.ERROR_MESSAGE))
    return TaskStatus(
        text_of(record.key), text_of(head.get(names.TASK)), state,
        number_of(head.get(names.TASK_ATTEMPT), 0),
        1.0 if state == DONE else float(text_of(head.get(names.TASK_PROGRESS), "0")),
        f"{error}: {reason}" if error else text_of(head.get(names.TASK_MESSAGE)),
        record.timestamp / 1000)


def fold(entry: Entry | None, record: Record) -> Entry:
    new = status_of(record)
    if entry is not None:
        old = entry.status
        is_begun = new.state == RUNNING and record.header(names.TASK_PROGRESS) is None
        if old.state == DONE or new.state == QUEUED:
            return entry
        if not (is_begun or new.state == DONE or new.attempt > old.attempt
                or (new.attempt == old.attempt and old.state == RUNNING)):
            return entry    # of a worker that was taken for dead
    return Entry(new, record)


class TaskStates:
    """The statuses of an app's tasks. ttl: seconds that one is remembered after its last change."""

    def __init__(self, broker: Broker, app: str, ttl: float) -> None:
        self.topic = f"{app}.results"
        self._broker = broker
        self._codec = codec_of("json")
        self._state = State(broker, self.topic, fold, ttl)

    def encoded(self, result: Any) -> Any:
        """What a task returned, as bytes. Raises SerializationError."""
        return self._codec.serialize and self._codec.serialize(self.topic, None, result)

    def decoded(self, record: Record) -> Any:
        """It, out of its record."""
        return self._codec.deserialize and self._codec.deserialize(record)

    def tell(
        self, task_id: str, task: str, state: str, attempt: int = 0, *,
        progress: tuple[float, str] | None = None, error: BaseException | None = None,
        result: bytes | None = None,
    ) -> None:
        """Appends what has become of a task. Cost: 2 us."""
        found = [(names.TASK, task.encode()), (names.TASK_STATE, state.encode()),
                 (names.TASK_ATTEMPT, b"%d" % attempt)]
        if progress is not None:
            found += [(names.TASK_PROGRESS, b"%.4g" % progress[0]),
                      (names.TASK_MESSAGE, to_value(progress[1]))]
        if error is not None:
            found += [(names.ERROR_TYPE, type(error).__name__.encode()),
                      (names.ERROR_MESSAGE, to_value(error))]
        self._broker.append(self.topic, result, task_id.encode(), found)

    def get(self, task_id: str) -> Entry | None:
        """What is known of a task."""
        found: Entry | None = self._state.current().get(task_id.encode())
        return found

    def all(self) -> list[TaskStatus]:
        """Of all that are remembered, in the order of their last changes."""
        entries = list(self._state.current().copy().values())
        return [entry.status for entry in sorted(entries, key=lambda entry: entry.record.offset)]

    def wait(self, timeout: float) -> None:
        """Until something was told, or this long."""
        self._state.wait(timeout)


class TaskResult:
    """A task that was sent: how it stands, and what it returns. Made by `send` and by
    `App.result(id)`, in any process.

    id: of the task. Cost: the first look of a process reads what all tasks of the app have told
    within the ttl, 4 us each; later ones what is new. `await` gives the result, too.
    """

    def __init__(self, states: TaskStates, task_id: str) -> None:
        self.id = task_id
        self._states = states

    def status(self) -> TaskStatus:
        """As of now."""
        entry = self._states.get(self.id)
        return TaskStatus(self.id) if entry is None else entry.status

    def progress(self) -> float:
        """How far it is, 0 to 1, as it said; 1 once it is done."""
        return self.status().progress

    def result(self, timeout: float | None = None) -> Any:
        """What the task returned; waits for it.

        Raises TaskFailedError if it has failed for good, PylogTimeoutError after `timeout` seconds;
        the task goes on.
        """
        for _ in self.watch(timeout):
            pass
        return self._outcome()

    def watch(self, timeout: float | None = None) -> Iterator[TaskStatus]:
        """Its status now and after each change that is seen, until it is finished. Changes that
        come faster than they are read are seen as one. Raises PylogTimeoutError."""
        deadline = None if timeout is None else time.monotonic() + check_seconds("timeout", timeout)
        seen = None
        while seen is None or not seen.is_finished:
            status = self.status()
            if status != seen:
                seen = status
                yield status
                continue
            left = LOOK_SECONDS if deadline is None else deadline - time.monotonic()
            if left <= 0:
                raise PylogTimeoutError(
                    f"the task {self.id} is {status.state} after {timeout} s: ask again, or see "
                    "whether there is a worker (`pylog run module:app`)",
                    timeout_ms=int(1000 * (timeout or 0)))
            self._states.wait(min(left, LOOK_SECONDS))

    def __await__(self) -> Generator[Any, None, Any]:
        pause = 0.001
        while not self.status().is_finished:
            yield from asyncio.sleep(pause).__await__()
            pause = min(2 * pause, LOOK_SECONDS)
        return self._outcome()

    def _outcome(self) -> Any:
        entry = self._states.get(self.id)
        if entry is None:    # forgotten between two looks
            raise TaskFailedError(f"the result of the task {self.id} is no longer remembered; "
                                  "give the app a longer ttl", task_id=self.id)
        status, record = entry
        if status.state == DONE:
            return self._states.decoded(record)
        raise TaskFailedError(
            f"the task {status.task} ({self.id}) failed for good in attempt {status.attempt}: "
            f"{status.message}; it is a dead letter, `pylog dlq` shows and replays it",
            task=status.task, task_id=self.id, attempts=status.attempt,
            type=text_of(record.header(names.ERROR_TYPE)),
            reason=text_of(record.header(names.ERROR_MESSAGE)))

    def __repr__(self) -> str:
        return f"<TaskResult {self.id}>"
