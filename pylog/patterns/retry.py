"""Retry: how often a handler is tried again, when, and for which errors. Policy alone, no waiting.

    Retry(attempts=5, backoff=expo(0.1, 30), except_=PaymentRefused, pause_after=10, cooldown=60)
"""

import inspect
import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from pylog import ConfigurationError, InvalidTopicError, SerdeError, TerminalError

Kinds = type[BaseException] | tuple[type[BaseException], ...]

SECONDS_MAX = 31_536_000    # a year
MODES = ("inline", "park")


@dataclass(frozen=True, slots=True)
class Expo:
    """What `expo` returns: called with the number of attempts that failed, gives seconds."""

    first: float
    most: float
    jitter: float

    def __call__(self, failed: int) -> float:
        doublings = min(failed - 1, 64)
        seconds = min(self.most, self.first * 2.0 ** doublings)
        return seconds + random.uniform(0, self.jitter * seconds)


def expo(first: float = 0.1, most: float = 30.0, jitter: float = 0.1) -> Expo:
    """Waits of first, 2 first, 4 first ... seconds, `most` at most.

    jitter: up to this fraction of a wait is *added* at random, so that those who failed together do
    not come again together, and nobody comes before his time. Raises ConfigurationError, TypeError.

        >>> [expo(0.5, 3, jitter=0)(failed) for failed in (1, 2, 3, 4)]
        [0.5, 1.0, 2.0, 3.0]
    """
    check_seconds("first", first)
    check_seconds("most", most)
    check_seconds("jitter", jitter)
    if first > most:
        raise ConfigurationError(f"first={first} is more than most={most}: begin with less",
                                 option="first", value=first)
    return Expo(first, most, jitter)


@dataclass(frozen=True, slots=True)
class Retry:
    """What is done when a handler raises.

    attempts: how often it is tried in all, the first try included; None: until it goes well.
    backoff: seconds between two attempts, or a function of the number of attempts that failed.
    only: these errors are tried again and no others. except_: these are not. An error of a
    serializer, a deserializer or a schema (`SerdeError`) never is: the bytes stay what they are;
    nor is a TerminalError, by which a handler says so itself.

    mode: "inline" waits where the record is, so that its partition keeps its order and waits too.
    "park" moves the record aside, into the queue `retry.<group>.<topic>` of all processes of the
    group, and those behind it go on: **it loses its place in the order**, also among the records of
    its key. The handler sees it again as it was, with its own topic, partition and offset, called
    by a thread or task beside that of the others: it may run twice at a time. Only for a group.
    Cost: 40 us, and a record in that queue for each attempt (three where it waits).

    pause_after: a breaker. So many records in a row that were given up pause the subscription for
    `cooldown` seconds; then one is tried, and if it fails as well, it pauses again. Errors that are
    not tried again do not count, for no pause would mend them; nor does one that is parked, but as
    that trial.

        >>> Retry(attempts=3, backoff=0.5).delay(1, OSError())
        0.5
        >>> Retry(attempts=3).delay(3, OSError()) is None
        True
        >>> Retry(except_=ValueError).delay(1, ValueError()) is None
        True
    """

    attempts: int | None = 3
    backoff: float | Callable[[int], float] = Expo(0.1, 30.0, 0.1)
    only: Kinds = (Exception,)
    except_: Kinds = ()
    mode: Literal["inline", "park"] = "inline"
    pause_after: int | None = None
    cooldown: float = 30.0

    def __post_init__(self) -> None:
        if self.attempts is not None:
            check_count("attempts", self.attempts)
        if self.pause_after is not None:
            check_count("pause_after", self.pause_after)
        check_backoff(self.backoff)
        check_seconds("cooldown", self.cooldown)
        _check_kinds("only", self.only)
        _check_kinds("except_", self.except_)
        if self.mode not in MODES:
            raise ConfigurationError(f"mode={self.mode!r} is unknown; use 'inline' or 'park'",
                                     option="mode", value=self.mode)

    def covers(self, error: BaseException) -> bool:
        """Whether another attempt may mend it."""
        return (isinstance(error, self.only) and not isinstance(error, self.except_)
                and not isinstance(error, SerdeError | TerminalError))

    def delay(self, failed: int, error: BaseException) -> float | None:
        """Seconds until the next attempt, after `failed` of them; None: it is given up.

        Raises ConfigurationError where the backoff returns what is no number of seconds.
        """
        if not self.covers(error) or (self.attempts is not None and failed >= self.attempts):
            return None
        if not callable(self.backoff):
            return self.backoff
        return check_seconds("what backoff returned", self.backoff(failed))


def check_retry(given: object, group: str | None) -> Retry:
    """What `retry=` of a subscription means; None: one attempt. Raises TypeError, and
    ConfigurationError where it parks and there is no group."""
    if given is None:
        return Retry(attempts=1)
    if not isinstance(given, Retry):
        raise TypeError(f"retry must be a Retry, not {type(given).__name__}: "
                        "Retry(attempts=5, backoff=expo(0.1, 30))")
    if given.mode == "park" and group is None:
        raise ConfigurationError(
            "mode='park' moves records into a queue of the group, and there is none; pass group=, "
            "or use mode='inline'", option="mode", value=given.mode)
    return given


def check_backoff(given: object) -> None:
    """Seconds, or a function of the number of attempts that failed. Raises ConfigurationError,
    TypeError."""
    if not callable(given):
        check_seconds("backoff", given)
        return
    try:
        signature = inspect.signature(given)
    except (TypeError, ValueError):    # of some builtins nobody can tell
        return
    try:
        signature.bind(1)
    except TypeError as error:
        raise TypeError("backoff will be called with the number of attempts that failed: "
                        f"{error}") from None


def check_seconds(option: str, value: object, least: float = 0) -> float:
    """Returns it. Raises ConfigurationError, TypeError."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{option} must be a number of seconds, not {type(value).__name__}")
    if not least <= value <= SECONDS_MAX:
        raise ConfigurationError(f"{option}={value} is impossible; use {least} to {SECONDS_MAX:,}",
                                 option=option, value=value)
    return value


def check_count(option: str, value: object) -> int:
    """Returns it. Raises ConfigurationError, TypeError."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{option} must be an int, not {type(value).__name__}")
    if value < 1:
        raise ConfigurationError(f"{option}={value} is impossible; use 1 or more",
                                 option=option, value=value)
    return value


def check_name(option: str, value: object) -> str:
    """Returns what becomes a part of a topic's name. Raises InvalidTopicError, TypeError."""
    if not isinstance(value, str):
        raise TypeError(f"{option} must be a str, not {type(value).__name__}")
    if not re.fullmatch(r"[A-Za-z0-9._-]+", value):
        raise InvalidTopicError(f"{option}={value[:60]!r} cannot be a part of a topic's name: use "
                                "ASCII letters, digits, '.', '_' and '-', one at least",
                                topic=value)
    return value


def _check_kinds(option: str, kinds: object) -> None:
    for kind in kinds if isinstance(kinds, tuple) else (kinds,):
        if not (isinstance(kind, type) and issubclass(kind, BaseException)):
            raise TypeError(f"{option} must be an exception class or a tuple of them, not {kind!r}")
