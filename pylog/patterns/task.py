"""Task: a function that is sent to workers, with its arguments; and the task that is at work.

A message is JSON: {"id": "...", "task": "transcode", "args": ["v1"], "kwargs": {"formats": [...]}}
and "once": true, where its id is made of a dedup key.
"""

import contextvars
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

from pylog import ConfigurationError
from pylog.patterns.handler import is_async
from pylog.patterns.retry import Retry, check_seconds
from pylog.patterns.task_status import RUNNING, TaskResult, TaskStates

# (task, args, kwargs, options): sends it.
Send = Callable[["Task", tuple[Any, ...], dict[str, Any], dict[str, Any]], TaskResult]


class Task:
    """What `@app.task` makes of a function. Called, it is that function, here and now; `send` gives
    the call to a worker.

    name, queue, retry, timeout: as declared. is_async: whether it is a coroutine function.
    """

    def __init__(self, function: Callable[..., Any], name: str, queue: str, retry: Retry,
                 timeout: float | None, send: Send) -> None:
        if not isinstance(name, str):
            raise TypeError(f"the name of a task must be a str, not {type(name).__name__}")
        if not name:
            raise ConfigurationError("the name of the task is empty: pass name=", option="name",
                                     value=name)
        if timeout is not None and not check_seconds("timeout", timeout):
            raise ConfigurationError("timeout=0 lets no task begin; None is none",
                                     option="timeout", value=timeout)
        self.function = function
        self.name = name
        self.queue = queue
        self.retry = retry
        self.timeout = timeout
        self.is_async = is_async(function)
        self.__name__ = name
        self.__doc__ = function.__doc__
        self._signature = inspect.signature(function)
        self._send = send

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)

    def send(self, *args: Any, **kwargs: Any) -> TaskResult:
        """Gives the call to a worker, and returns at once; it is accepted: done at least once,
        whoever is killed.

        Arguments are JSON: lists come as lists, tuples too. Cost: 15 us. Raises TypeError for
        arguments that the function does not take, SerializationError, what Queue.put raises.
        """
        return self.options().send(*args, **kwargs)

    def options(
        self, *, delay: float = 0, ttl: float | None = None, key: str | bytes | None = None,
        dedup_key: str | None = None,
    ) -> "Sending":
        """`task.options(delay=60).send(...)`: how the next call is sent.

        delay: seconds before anybody gets it. ttl: seconds after which it is a dead letter instead,
        counted from when it is due. key: of the message, for who looks. dedup_key: a second call
        of this task with the same, while results are remembered (the app's ttl), sends nothing and
        returns the first one's TaskResult. Where the first was killed in the midst of it the
        message may be there twice, under one id: whoever has the second does nothing if the first
        is done. Both are done if two workers have them at the same time, or the first has failed.
        Raises ConfigurationError, TypeError.
        """
        check_seconds("delay", delay)
        if ttl is not None:
            check_seconds("ttl", ttl)
        if not isinstance(key, str | bytes | None):
            raise TypeError(f"key must be bytes, str or None, not {type(key).__name__}")
        if not isinstance(dedup_key, str | None):
            raise TypeError(f"dedup_key must be a str or None, not {type(dedup_key).__name__}")
        if dedup_key == "":
            raise ConfigurationError("dedup_key is empty, and all calls that have none would be "
                                     "one", option="dedup_key", value=dedup_key)
        return Sending(self, {"delay": delay, "ttl": ttl, "key": key, "dedup_key": dedup_key})

    def __repr__(self) -> str:
        return f"<Task {self.name!r}>"


class Sending(NamedTuple):
    """What `Task.options` returns."""

    task: Task
    options: dict[str, Any]

    def send(self, *args: Any, **kwargs: Any) -> TaskResult:
        """As `Task.send`."""
        task = self.task
        try:
            task._signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{task.name}{task._signature} was sent with other arguments: "
                            f"{error}") from None
        return task._send(task, args, kwargs, self.options)


class Call(NamedTuple):
    """A message."""

    id: str
    task: str
    args: list[Any]
    kwargs: dict[str, Any]
    is_once: bool

    @classmethod
    def of(cls, value: Any) -> "Call":
        """Raises ValueError for what is no message of a task."""
        kinds = {"id": str, "task": str, "args": list, "kwargs": dict}
        if not isinstance(value, dict) or any(
                not isinstance(value.get(name), kind) for name, kind in kinds.items()):
            raise ValueError('this is no call of a task: it needs {"id": "...", "task": "...", '
                             '"args": [], "kwargs": {}}')
        return cls(value["id"], value["task"], value["args"], value["kwargs"],
                   value.get("once") is True)


class CurrentTask:
    """The task that is at work, for itself. Outside of a worker nobody hears what it says.

    id, name: of the task. attempt: 1 for the first one; more, if it failed or its worker died.
    """

    def __init__(self, states: TaskStates | None = None, task_id: str = "", name: str = "",
                 attempt: int = 1) -> None:
        self.id = task_id
        self.name = name
        self.attempt = attempt
        self._states = states

    def progress(self, fraction: float, message: str = "") -> None:
        """Tells everybody how far it is: 0 to 1, and a word about it. Cost: 5 us; each is kept for
        the app's ttl. Raises ConfigurationError, TypeError."""
        if isinstance(fraction, bool) or not isinstance(fraction, int | float):
            raise TypeError(f"progress is a number from 0 to 1, not {type(fraction).__name__}")
        if not 0 <= fraction <= 1:
            raise ConfigurationError(f"progress({fraction}) is impossible; use 0 to 1",
                                     option="fraction", value=fraction)
        self.tell(RUNNING, progress=(fraction, message))

    def tell(self, state: str, **more: Any) -> None:
        if self._states is not None:
            self._states.tell(self.id, self.name, state, self.attempt, **more)

    def __repr__(self) -> str:
        return f"<CurrentTask {self.name!r} {self.id}, attempt {self.attempt}>"


at_work: contextvars.ContextVar[CurrentTask] = contextvars.ContextVar("pylog_task")


def current_task() -> CurrentTask:
    """The task that calls this, or that the caller was called by.

        >>> current_task().progress(0.5, "half of it")    # nobody hears: this is no worker
    """
    return at_work.get(None) or CurrentTask()
