"""Idempotent processing: what is done under a key is done once, and its result kept for a while.

A key is claimed, in progress while its claimant lives, and done once a result is saved (the states
of Stripe's idempotency keys and of AWS Powertools). How that lies in a topic is key_claim.py's.
"""

import functools
import os
import time
from collections.abc import Callable
from typing import Any

from pylog import Broker
from pylog.patterns.handler import is_async, name_of
from pylog.patterns.key_claim import (
    KeyClaim,
    KeyEntry,
    Store,
    as_key,
    digest,
    entries_of,
    fold,
)
from pylog.patterns.retry import check_name, check_seconds
from pylog.patterns.state import State
from pylog.patterns.tenant import Tenant
from pylog.patterns.values import codec_of


class Idempotency(Tenant):
    """Remembers what was done under which key, for all processes of a broker. Safe for threads.

    broker: a Broker, or the path of one, which is then closed with this. name: of what is done; it
    has the topic `idempotency.<name>`. ttl: seconds that a result is remembered; None: for ever.
    Each object goes by its own, and the topic keeps results for that of the first one: give all of
    a name the same. value: how results become bytes: "json", "str", None (they are bytes), a type
    or a serde.

        >>> from pylog import Broker
        >>> with Broker("data") as broker:
        ...     payments = Idempotency(broker, "payments")
        ...     for attempt in (1, 2):
        ...         with payments.claim("order-17") as claim:
        ...             if not claim.done:
        ...                 claim.save({"charged": 12, "attempt": attempt})
        ...             print(claim.result)
        {'charged': 12, 'attempt': 1}
        {'charged': 12, 'attempt': 1}

    **Guarantee**: one *recorded* result a key, whoever asks, for as long as the ttl. Who comes
    second gets the result of the first. **What can repeat is the effect**: where a claimant dies,
    or raises, after it has done something and before it has saved, the key is free for the next
    one, at once. What must not happen twice even so (a payment) needs the key at its far end too.
    A claimant that is stopped (SIGSTOP) keeps its key. Cost: claim and save are a change of a
    `State` each, 15 us for both; a key that is done 5 us; opening reads what is remembered.
    """

    def __init__(
        self, broker: Broker | str | os.PathLike[str], name: str, ttl: float | None = 86_400,
        value: Any = "json", clock: Callable[[], float] = time.time,
    ) -> None:
        check_name("name", name)
        codec = codec_of(value)
        self._ttl = ttl
        super().__init__(broker)
        try:
            state = State(self._broker, f"idempotency.{name}", fold, ttl, clock)
            self._store = Store(state, self._broker.processes, codec)
            self._store.processes.join()
        except BaseException:
            self.close()
            raise

    def claim(
        self, key: str | bytes, fingerprint: str | bytes | None = None,
        timeout: float | None = 5.0,
    ) -> KeyClaim:
        """A context manager (`with`, or `async with`) that has the key, or its result.

        fingerprint: what must be the same whenever the key is (the body of a request, say).
        timeout: how long to wait for one who has the key; 0 does not wait, None waits for ever.

        Entering raises KeyInProgressError when the time is over, FingerprintMismatchError where the
        key came with something else. Leaving without `save`, by an exception too, frees the key.
        """
        self._check_open()
        if timeout is not None:
            check_seconds("timeout", timeout)
        return KeyClaim(self._store, as_key(key), digest(fingerprint), timeout)

    def once(
        self, key: Callable[..., str | bytes],
        fingerprint: Callable[..., str | bytes | None] | None = None,
        timeout: float | None = 5.0,
    ) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """A decorator: a call whose key is done returns the result of then, and calls nothing.

        key, fingerprint: functions of the call's arguments. The decorated may be `async def`. What
        it raises is raised, and nothing recorded. The first caller gets what the function returned,
        later ones what that is after serialization (lists for tuples, in JSON).

            >>> from pylog import Broker
            >>> with Broker("data") as broker:
            ...     @Idempotency(broker, "emails").once(key=lambda order: order["id"])
            ...     def send(order):
            ...         print("sending", order["id"])
            ...         return "sent"
            ...     send({"id": "17"}), send({"id": "17"})
            sending 17
            ('sent', 'sent')
        """
        if not callable(key):
            raise TypeError("key must be a function of the call's arguments, as in "
                            f"@once(key=lambda order: order['id']), not {type(key).__name__}")

        def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
            if not callable(function):    # @once without key= has taken the function for the key
                raise TypeError(f"{name_of(key)} was taken for the key: write "
                                "@once(key=lambda order: order['id']) above it")
            def claimed(*arguments: Any, **keywords: Any) -> KeyClaim:
                mark = fingerprint(*arguments, **keywords) if fingerprint else None
                return self.claim(key(*arguments, **keywords), mark, timeout)

            @functools.wraps(function)
            def call(*arguments: Any, **keywords: Any) -> Any:
                with claimed(*arguments, **keywords) as claim:
                    if claim.done:
                        return claim.result
                    result = function(*arguments, **keywords)
                    claim.save(result)
                    return result

            @functools.wraps(function)
            async def call_async(*arguments: Any, **keywords: Any) -> Any:
                async with claimed(*arguments, **keywords) as claim:
                    if claim.done:
                        return claim.result
                    result = await function(*arguments, **keywords)
                    claim.save(result)
                    return result

            return call_async if is_async(function) else call

        return decorate

    def list(self) -> list[KeyEntry]:
        """The keys that are remembered, the one that changed last at the end.

        `expires` is by this object's ttl. Cost: a look at each. Raises ClosedError.
        """
        self._check_open()
        return entries_of(self._store, self._ttl)

    def __len__(self) -> int:
        """How many keys are remembered, those in progress included."""
        return len(self._store.state)

    def close(self) -> None:
        """Closes the broker if it was opened here; idempotent. Keys in progress are not freed."""
        super().close()

    def __repr__(self) -> str:
        return f"<Idempotency by {self._store.state.topic!r}>"
