"""Options that users pass, checked: a choice of words, a number, a time, a function."""

import inspect
import math
import os
import re
from typing import Any

from pylog.errors import ConfigurationError

ADDRESS = re.compile(r"(\w+://)?([\w.-]+|\[[0-9a-fA-F:.]+\]):[0-9]{1,5}")    # of a server


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


def interval(option: str, value: Any) -> float | None:
    """How often, in seconds; None: never. Raises TypeError, ConfigurationError."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{option} must be seconds or None, not {type(value).__name__}")
    if not 0 < value < math.inf:
        raise ConfigurationError(f"{option}={value} must be more than 0; None is never",
                                 option=option, value=value)
    return value


def no_address(given: Any) -> None:
    """Raises ConfigurationError for Kafka's bootstrap servers, in a str, apart by commas, or in a
    list: a path may look like one, and then it is there or is a Path."""
    texts = given.split(",") if isinstance(given, str) else given
    if not isinstance(texts, list | tuple) or not texts or not all(
            isinstance(one, str) and ADDRESS.fullmatch(one.strip()) for one in texts):
        return
    if not (isinstance(given, str) and os.path.isdir(given)):
        raise ConfigurationError(
            f"{given!r} is the address of a server, and there is none here: pass the directory "
            "that the broker is in, as 'data' (Path(...), if one is to have this name)",
            option="path", value=given)


def is_true(option: str, value: object) -> bool:
    """Raises TypeError: the str "false" is true, and hardly meant so."""
    if not isinstance(value, bool):
        raise TypeError(f"{option} must be True or False, not {value!r}")
    return value


def names_in(what: str, given: Any) -> list[Any]:
    """A list of names; a str is one of letters, and hardly meant so. Raises TypeError."""
    if isinstance(given, str | bytes) or not hasattr(given, "__iter__"):
        raise TypeError(f"{what} must be a list of names, not the {type(given).__name__} "
                        f"{given!r}: pass [{given!r}]")
    return list(given)


def seconds(timeout_ms: float | None) -> float | None:
    """None: without end."""
    checked = patience("timeout_ms", timeout_ms, "ms")
    return None if checked is None else checked / 1000


def patience(option: str, value: Any, unit: str = "seconds") -> float | None:
    """How long to wait; None: without end. Raises TypeError, ConfigurationError."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{option} must be {unit} or None, not {type(value).__name__}")
    if not value >= 0:
        raise ConfigurationError(f"{option}={value} is negative, or no number; None waits for ever",
                                 option=option, value=value)
    return value


def is_async(function: Any) -> bool:
    """Whether what it returns has to be awaited: a coroutine function, or an object that is one."""
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(function.__call__)
