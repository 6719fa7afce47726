"""A step of a saga and its undo: functions, or commands (saga_commands.py)."""

from collections.abc import Callable
from typing import Any, NamedTuple

from pylog import ConfigurationError
from pylog.patterns.handler import check_handler, is_async
from pylog.patterns.retry import Retry, check_retry, check_seconds, expo
from pylog.patterns.saga_commands import Command
from pylog.patterns.saga_entry import event_headers

RETRY = Retry(attempts=3, backoff=expo(0.1, 30))
UNDO_RETRY = Retry(attempts=12, backoff=expo(0.1, 30))    # some minutes


class Action(NamedTuple):
    """What is done for a step, or to undo it. function: (ctx, input), of an undo (ctx, input,
    result); of a command it makes the data. timeout: seconds of an attempt; None: for ever."""

    function: Callable[..., Any]
    retry: Retry
    timeout: float | None
    is_async: bool
    command: Command | None


def action_of(function: Any, retry: Retry | None, timeout: float | None,
              command: Command | None = None) -> Action:
    """Raises TypeError, ConfigurationError."""
    if timeout is not None:
        check_seconds("timeout", timeout)
    check_handler(function, None)
    return Action(function, check_retry(retry, None), timeout, is_async(function), command)


class Step:
    """A step of a saga: what `Saga.step` makes of a function.

    name: its own in the saga. do: what it does. undo: what takes it back; None: nothing needs to.
    completed, compensated: the headers of the records that say so.
    """

    def __init__(self, name: str, do: Action, undo: Action | None = None) -> None:
        self.name = name
        self.do = do
        self.undo = undo
        self.completed = event_headers("step_completed", name)
        self.compensated = event_headers("step_compensated", name)

    def compensate(
        self, function: Callable[..., Any] | None = None, *, retry: Retry | None = UNDO_RETRY,
        timeout: float | None = None,
    ) -> Any:
        """A decorator: function(ctx, input, result) undoes the step; result is what that returned.

        It is None where nobody knows whether the step had its effect, as its time was over or its
        process died in it: so an undo must bear that there is nothing to undo. One that fails is
        tried again as `retry` says, for some minutes by default; then the saga is parked.
        """
        if function is None:
            return lambda function: self.compensate(function, retry=retry, timeout=timeout)
        if self.undo is not None:
            raise ConfigurationError(f"the step {self.name!r} has a compensation already",
                                     option="compensate", value=function)
        self.undo = action_of(check_handler(function, 3), retry, timeout)
        return function

    def __call__(self, *arguments: Any) -> Any:
        """Calls the function alone, for tests of it."""
        return self.do.function(*arguments)

    def __repr__(self) -> str:
        return f"<Step {self.name!r}{'' if self.undo is None else ', which can be undone'}>"
