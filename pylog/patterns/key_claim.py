"""The claim of a key: free, claimed by one who lives, or done, as the records of a topic say.

    key        the key                          value     of a done one: the result
    headers    idempotency_state        "claimed", "done" or "released"
               idempotency_claimant     slot, nonce and number: of a process (`broker.processes`),
                                        and of the claim in it
               idempotency_fingerprint  SHA-256 of what came with the key, if anything did

A claim whose process is dead counts for nothing: the kernel tells at once, and nobody cleans up.
"""

import asyncio
import contextlib
import hashlib
import itertools
import time
from typing import Any, NamedTuple, Self

from pylog import (
    ClaimLostError,
    ConfigurationError,
    FingerprintMismatchError,
    IllegalStateError,
    KeyInProgressError,
    PylogError,
    Record,
)
from pylog.patterns.claimant import claimant_of, place_of
from pylog.patterns.state import Change, Entries, State
from pylog.patterns.values import Codec

STATE, CLAIMANT = "idempotency_state", "idempotency_claimant"
FINGERPRINT = "idempotency_fingerprint"
STATES = DONE, IN_PROGRESS, ABANDONED = "done", "in_progress", "abandoned"    # of a KeyEntry
LOOK_SECONDS = 0.05    # how soon one who waits notices that a claimant has died

_numbers = itertools.count(1)


class Entry(NamedTuple):
    record: Record | None    # of a done one
    claimant: bytes
    fingerprint: bytes | None
    changed: int             # ms since the epoch


def fold(entry: Entry | None, record: Record) -> Entry | None:
    state, claimant = record.header(STATE), record.header(CLAIMANT)
    if state == b"released":
        return None
    if state not in (b"claimed", b"done") or claimant is None:
        raise ValueError(f"{STATE}={state!r}, {CLAIMANT}={claimant!r}")
    place_of(claimant)
    return Entry(record if state == b"done" else None, claimant, record.header(FINGERPRINT),
                 record.timestamp)


class KeyEntry(NamedTuple):
    """How a key stands. state: DONE, IN_PROGRESS, or ABANDONED: its claimant has died before it
    saved, and the next one gets the key. changed: when that was written, in ms since the epoch, as
    a record's timestamp. expires: when the key is new again, in the same; None: never. pid: of who
    has it in progress. value: the result of a done one, as it was serialized.
    """

    key: bytes
    state: str
    changed: int
    expires: int | None
    pid: int | None
    value: bytes | None


class Store(NamedTuple):
    """What all claims of one `Idempotency` share. processes: those of the broker."""

    state: State
    processes: Any
    codec: Codec


def entries_of(store: Store, ttl: float | None) -> list[KeyEntry]:
    found = []
    for key, entry in store.state.current().copy().items():
        pid = None if entry.record else store.processes.pid_of(*place_of(entry.claimant))
        state = DONE if entry.record else ABANDONED if pid is None else IN_PROGRESS
        found.append(KeyEntry(
            key, state, entry.changed, None if ttl is None else entry.changed + int(ttl * 1000),
            pid, entry.record.value if entry.record else None))
    return sorted(found, key=lambda one: one.changed)


class KeyClaim:
    """What `claim` returns: entered, it has the key, or what was recorded for it.

    key: as bytes. done: whether there is a result, of somebody earlier or saved by this one.
    result: it.
    """

    def __init__(self, store: Store, key: bytes, fingerprint: bytes | None,
                 timeout: float | None) -> None:
        self.key = key
        self.done = False
        self.result: Any = None
        self._store = store
        self._fingerprint = fingerprint
        self._timeout = timeout
        self._claimant = b""    # while it has the key
        self._holder: bytes = b""

    def save(self, result: Any = None) -> None:
        """Records the result; every later claim of the key gets it.

        Raises SerializationError, with the key still claimed; ClaimLostError where the claim was
        older than the ttl, or the topic was deleted, and another has the key: nothing is recorded;
        IllegalStateError where there is nothing to save.
        """
        if self.done or not self._claimant:
            raise IllegalStateError(
                f"the key {self.key!r} {'is done already' if self.done else 'is not claimed'}: "
                "save once, within `with`, if not claim.done")
        serialize, topic = self._store.codec.serialize, self._store.state.topic
        data = result if serialize is None else serialize(topic, None, result)
        self._store.state.change(lambda entries: self._last_word(entries, b"done", data))
        self._claimant, self.done, self.result = b"", True, result

    def release(self) -> None:
        """Frees the key without a result; idempotent. Leaving `with` does it."""
        if self._claimant:
            self._store.state.change(
                lambda entries: self._last_word(entries, b"released", None)
                if self._is_mine(entries) and entries[self.key].record is None else None)
            self._claimant = b""    # its result is there where `save` was interrupted behind it

    def _is_mine(self, entries: Entries) -> bool:
        entry = entries.get(self.key)
        return entry is not None and entry.claimant == self._claimant

    def _last_word(self, entries: Entries, state: bytes, data: Any) -> Change:
        if not self._is_mine(entries):
            raise ClaimLostError(
                f"the key {self.key!r} is not this claim's any more: its time to live was over, or "
                "its topic was deleted; nothing was recorded; see whether another did the same, "
                "and set a longer ttl", key=self.key)
        return self._change(state, data)

    def _change(self, state: bytes, data: Any = None) -> Change:
        headers = [(STATE, state), (CLAIMANT, self._claimant)]
        if self._fingerprint is not None:
            headers.append((FINGERPRINT, self._fingerprint))
        return Change(self.key, data, headers)

    # ---- getting it

    def _try(self) -> bool:
        """Whether it has the key or its result now."""
        processes = self._store.processes
        self._claimant = claimant_of(processes, next(_numbers))
        found: list[Entry | None] = [None]

        def decide(entries: Entries) -> Change | None:
            found[0] = entry = entries.get(self.key)
            if entry is None:
                return self._change(b"claimed")
            if entry.record is None and not processes.is_alive(*place_of(entry.claimant)):
                return self._change(b"claimed")
            if None not in (entry.fingerprint, self._fingerprint) \
                    and entry.fingerprint != self._fingerprint:
                raise FingerprintMismatchError(
                    f"the key {self.key!r} was first used for something else: its fingerprint is "
                    "another; use a new key for a new thing", key=self.key)
            return None

        try:
            is_mine = self._store.state.change(decide) is not None
        except BaseException:    # of a signal behind the record, too: `with` is not entered
            with contextlib.suppress(PylogError):
                self.release()
            self._claimant = b""
            raise
        if is_mine:
            return True
        self._claimant = b""
        if (entry := found[0]) is None or entry.record is None:
            self._holder = entry.claimant if entry else b""
            return False
        read = self._store.codec.deserialize
        self.result = entry.record.value if read is None else read(entry.record)
        self.done = True
        return True

    def _left(self, deadline: float | None) -> float:
        """Seconds until the next look; raises when there are none left."""
        left = LOOK_SECONDS if deadline is None else deadline - time.monotonic()
        if left > 0:
            return min(left, LOOK_SECONDS)
        pid = self._store.processes.pid_of(*place_of(self._holder))
        raise KeyInProgressError(
            f"the key {self.key!r} has been in progress in process {pid} for {self._timeout} s and "
            "more; come again later, or give it a longer timeout", key=self.key, holder_pid=pid)

    def _deadline(self) -> float | None:
        self.done, self.result = False, None
        if self._claimant:
            raise IllegalStateError(f"this object has the key {self.key!r} already")
        return None if self._timeout is None else time.monotonic() + self._timeout

    def __enter__(self) -> Self:
        deadline = self._deadline()
        while not self._try():
            self._store.state.wait(self._left(deadline))
        return self

    def __exit__(self, *exception: object) -> None:
        self.release()

    async def __aenter__(self) -> Self:
        deadline = self._deadline()
        pause = 0.001
        while not self._try():
            await asyncio.sleep(min(pause, self._left(deadline)))
            pause *= 2
        return self

    async def __aexit__(self, *exception: object) -> None:
        self.release()

    def __repr__(self) -> str:
        what = "done" if self.done else "claimed" if self._claimant else "not claimed"
        return f"<KeyClaim {self.key!r}, {what}>"


def as_key(key: object) -> bytes:
    if isinstance(key, str):
        key = key.encode("utf-8", "surrogatepass")
    if not isinstance(key, bytes):
        raise TypeError(f"a key must be a str or bytes, not {type(key).__name__}")
    if not key:
        raise ConfigurationError("the key is empty, and all that have none would be one: pass what "
                                 "tells this one from others, as the id of the order", option="key",
                                 value=key)
    return key


def digest(fingerprint: object) -> bytes | None:
    if fingerprint is None:
        return None
    if isinstance(fingerprint, str):
        fingerprint = fingerprint.encode("utf-8", "surrogatepass")
    if not isinstance(fingerprint, bytes):
        raise TypeError(f"a fingerprint must be a str or bytes, not {type(fingerprint).__name__}")
    return hashlib.sha256(fingerprint).digest()
