"""TaskRunner: what a worker does with a call of a task, from its delivery to its last word.

What is told comes before what is settled: `done` is appended, then the message is acknowledged. So
a kill in between finds the result there, and nothing is done again; a kill before it repeats the
attempt that was in work. While a function is at work the lease of its message is renewed, so a task
may take as long as it likes, and is another's at once when this process dies.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

from pylog import (
    Delivery,
    InvalidRecordStateError,
    MessageSizeTooLargeError,
    PylogError,
    TaskTimeoutError,
    UnknownTaskError,
    WorkerLostError,
)
from pylog.patterns.task import Call, CurrentTask, Task, at_work
from pylog.patterns.task_status import DONE, FAILED, RETRYING, RUNNING, TaskStates
from pylog.patterns.time_limit import TimeLimit

logger = logging.getLogger("pylog.patterns")

LOSSES_MAX = 5    # workers that a task may kill, or lose, beyond the attempts that it has


class _TimeUp(TaskTimeoutError):
    """What the task itself may catch."""

    def __init__(self) -> None:
        super().__init__("the task is at work for longer than its timeout: it ends here")


class _Lease(NamedTuple):
    delivery: Delivery
    until: float    # it is renewed no more


class TaskRunner:
    """Runs calls, in the threads of whoever calls it. Coroutine functions run in one event loop of
    its own. lock: seconds that a message is leased for."""

    def __init__(self, app: str, tasks: Mapping[str, Task], states: TaskStates,
                 lock: float) -> None:
        self._app = app
        self._tasks = tasks
        self._states = states
        self._lock = lock
        self._leases: set[_Lease] = set()
        self._stopped = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._threads = [
            threading.Thread(target=target, daemon=True, name=f"pylog-tasks-{name}")
            for name, target in (("leases", self._renew), ("loop", self._loop.run_forever))]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """After the last call."""
        self._stopped.set()
        self._loop.call_soon_threadsafe(self._loop.stop)
        for thread in self._threads:
            thread.join()
        self._loop.close()

    # ---- a call

    def __call__(self, delivery: Delivery) -> None:
        """Runs the call of a delivery, and settles it."""
        try:
            call = Call.of(delivery.value)
        except ValueError as error:
            delivery.reject(error)
            return
        now = CurrentTask(self._states, call.id, call.task, delivery.delivery_count)
        try:
            self._run(call, now, delivery)
        except InvalidRecordStateError:
            logger.warning("%s was at work for longer than the lock of its message, which another "
                           "has now", now)
        except PylogError as error:    # of the broker: it comes again
            logger.warning("%s could not be finished: %s", now, error)
            raise

    def _run(self, call: Call, now: CurrentTask, delivery: Delivery) -> None:
        if (now.attempt > 1 or call.is_once) and self._is_done(call):
            delivery.ack()
            return
        task = self._tasks.get(call.task)
        error = self._refusal(task, call, now)
        delay = None
        if task is not None and error is None:
            now.tell(RUNNING)
            try:
                result = self._states.encoded(self._result(task, call, now, delivery))
            except BaseException as raised:    # SystemExit, too: the thread goes on
                error, delay = raised, task.retry.delay(now.attempt, raised)
            else:
                try:
                    now.tell(DONE, result=result)
                    delivery.ack()
                    return
                except MessageSizeTooLargeError as raised:    # and would be again: it is done once
                    error = raised
        logger.warning("%s failed; it is %s", now, "a dead letter now" if delay is None else
                       f"tried again in {delay:.3g} s", exc_info=error)
        now.tell(FAILED if delay is None else RETRYING, error=error)
        if delay is None:
            delivery.reject(error)
        else:
            delivery.nack(delay=delay)

    def _is_done(self, call: Call) -> bool:
        entry = self._states.get(call.id)
        return entry is not None and entry.status.state == DONE

    def _refusal(self, task: Task | None, call: Call, now: CurrentTask) -> BaseException | None:
        """Why it is not even begun."""
        if task is None:
            modules = sorted({one.function.__module__ for one in self._tasks.values()})
            return UnknownTaskError(
                f"there is no task {call.task!r} in the app {self._app!r}, which has "
                f"{', '.join(sorted(self._tasks)) or 'none'} of {', '.join(modules) or 'no module'}"
                ": import the module that declares it where the worker starts, then replay this",
                task=call.task, task_id=call.id)
        if task.retry.attempts is not None and now.attempt > task.retry.attempts + LOSSES_MAX:
            return WorkerLostError(
                f"{task.name} was begun {now.attempt - 1} times, and its worker died or was stuck "
                "each time: see what kills it, then replay this", task=call.task, task_id=call.id)
        return None

    def _result(self, task: Task, call: Call, now: CurrentTask, delivery: Delivery) -> Any:
        """What the function returns. Raises what it raises."""
        lease = _Lease(delivery, time.monotonic() + (task.timeout or float("inf")))
        token = at_work.set(now)
        self._leases.add(lease)
        try:
            if task.is_async:
                return asyncio.run_coroutine_threadsafe(_await(task, call), self._loop).result()
            with TimeLimit(task.timeout, _TimeUp):
                return task.function(*call.args, **call.kwargs)
        except _TimeUp:
            raise TaskTimeoutError(f"{task.name} was at work for longer than its timeout="
                                   f"{task.timeout}", task=call.task, task_id=call.id) from None
        finally:
            self._leases.discard(lease)
            at_work.reset(token)

    # ---- leases

    def _renew(self) -> None:
        while not self._stopped.wait(self._lock / 3):
            for lease in list(self._leases):
                if time.monotonic() < lease.until:
                    try:
                        lease.delivery.extend(self._lock)
                    except PylogError as error:    # it was settled just now, or the broker is gone
                        logger.debug("a lease was not renewed: %s", error)


async def _await(task: Task, call: Call) -> Any:
    try:
        async with asyncio.timeout(task.timeout) as limit:
            return await task.function(*call.args, **call.kwargs)
    except TimeoutError:
        if limit.expired():
            raise _TimeUp from None
        raise
