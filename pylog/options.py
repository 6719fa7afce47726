"""Options that users pass, checked: a choice of words, a number, a time, a function."""

import inspect
from typing import Any

from pylog.errors import ConfigurationError


def one_of(option: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ConfigurationError(
            f"{option}={value!r} is unknown; use {', '.join(map(repr, choices))}",
            option=option, value=value)


def at_least(option: str, value: Any, least: int) -> int:
    """The number as an int. Raises TypeError, ConfigurationError."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{option} must be a number, not {type(value).__name__}")
    if not least <= value < 2**62:
        raise ConfigurationError(f"{option}={value} must be {least} or more", option=option,
                                 value=value)
    return int(value)


def seconds(timeout_ms: float | None) -> float | None:
    """None: without end."""
    if timeout_ms is None:
        return None
    if isinstance(timeout_ms, bool) or not isinstance(timeout_ms, int | float):
        raise TypeError(f"timeout_ms must be ms or None, not {type(timeout_ms).__name__}")
    if timeout_ms < 0:
        raise ConfigurationError(f"timeout_ms={timeout_ms} is negative; None waits without end",
                                 option="timeout_ms", value=timeout_ms)
    return timeout_ms / 1000


def is_async(function: Any) -> bool:
    """Whether what it returns has to be awaited: a coroutine function, or an object that is one."""
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(function.__call__)
