"""Racing: appends on condition that nobody else was faster, tried until they go well."""

import contextlib
from collections.abc import Callable
from typing import TypeVar

from pylog import Broker, WrongEndOffsetError

OPTIMISTIC_TRIES = 8
CLAIM_SECONDS = 1.0    # a stopped process may hold the claim, which is a courtesy only

Done = TypeVar("Done")


def until_first(broker: Broker, name: str, attempt: Callable[[], Done]) -> Done:
    """What attempt() returns once it does not raise WrongEndOffsetError.

    After 8 tries in vain it takes turns, in the claim `name`, with others who lost as often.
    """
    for _ in range(OPTIMISTIC_TRIES):
        with contextlib.suppress(WrongEndOffsetError):
            return attempt()
    claim = broker.claim(name[:100])
    claim.acquire(CLAIM_SECONDS)
    try:
        while True:
            with contextlib.suppress(WrongEndOffsetError):
                return attempt()
    finally:
        claim.release()
