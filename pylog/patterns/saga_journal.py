"""The journal of a saga: a topic, and the entries that its records come to (saga_entry.py).

Who claims a saga appends on condition that nobody else was faster; all that he writes then is his
alone. An owner whose process is dead counts for nothing: another claims what he had, at once.
"""

import itertools
import json
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from typing import Any, NamedTuple

from pylog import (
    Broker,
    IllegalStateError,
    MessageSizeTooLargeError,
    OffsetError,
    Record,
    SerializationError,
    UnknownSagaError,
)
from pylog.patterns.claimant import claimant_of, place_of
from pylog.patterns.headers import (
    ERROR_MESSAGE,
    ERROR_TYPE,
    SAGA_ATTEMPT,
    SAGA_EVENT,
    SAGA_OWNER,
    SAGA_STARTED,
    SAGA_STEP,
    number_of,
    text_of,
    to_value,
)
from pylog.patterns.saga_entry import ENDED, Entry, Headers, event_headers, fold
from pylog.patterns.state import Change, Entries, State

logger = logging.getLogger("pylog.patterns")

LOOK_SECONDS = 1.0
KEEP_SECONDS = 60.0    # between two looks at what is parked, at most

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode
_numbers = itertools.count(1)
_owners_here: set[bytes] = set()    # those of this process that are at work


class SagaEntry(NamedTuple):
    """A saga as `list` has it. step: at which it is or failed, where that is known. error: why it
    failed. pid: the process that has it in work. started, changed: its first and last record."""

    id: str
    status: str
    step: str | None
    error: str | None
    pid: int | None
    started: datetime
    changed: datetime


class Moment(NamedTuple):
    """A line of the history of a saga: a record of its journal. value: its bytes."""

    time: datetime
    event: str
    step: str | None
    attempt: int | None
    error: str | None
    value: bytes | None


class Journal:
    """The records of all sagas of a name, and the entries that they come to. Safe for threads.
    clock: the time, for tests."""

    def __init__(
        self, broker: Broker, name: str, ttl: float | None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.topic = f"saga.{name}"
        # Those that have not ended, oldest first: nobody's; somebody's; of these, the dead's.
        self._free: OrderedDict[bytes, Entry] = OrderedDict()
        self._owned: dict[bytes, Entry] = {}
        self._orphans: OrderedDict[bytes, Entry] = OrderedDict()
        self._parked: OrderedDict[bytes, Entry] = OrderedDict()    # the longest first
        self._ttl, self._keep_at, self._clock = ttl, 0.0, clock
        self.processes = broker.processes
        self.processes.join()
        self._deaths, self._look_at = -1, 0.0
        self.state = State(broker, self.topic, self._fold, ttl, clock)
        self._log = broker.log(self.topic)

    def _fold(self, entry: Entry | None, record: Record) -> Entry:
        entry, may_have_moved = fold(entry, record)
        if may_have_moved:
            key = entry.key
            for one in (self._free, self._owned, self._orphans, self._parked):
                one.pop(key, None)
            if entry.status == "parked":
                self._parked[key] = entry
            elif entry.status not in ENDED:
                (self._free if entry.owner is None else self._owned)[key] = entry
        return entry

    # ---- writing

    def append(self, key: bytes, headers: Headers, value: bytes | None = None) -> None:
        """A record of a saga that the caller owns."""
        self._log.append(value, key, headers)

    def start(self, key: bytes, value: bytes | None, owner: bytes | None = None) -> bool:
        """Whether it was started by this call, and was not there."""
        headers: Headers = [(SAGA_EVENT, b"started")]
        if owner is not None:
            headers.append((SAGA_OWNER, owner))
        return self.state.change(
            lambda entries: None if key in entries else Change(key, value, headers)) is not None

    def claim(self, owner: bytes, key: bytes | None = None) -> Entry | None:
        """Makes a saga the owner's: this one, or the oldest that nobody has; None: there is none,
        or one who lives has it."""
        found: list[Entry] = []
        deaths = self.processes.deaths    # before the look: whoever claims and dies later adds one

        def decide(entries: Entries) -> Change | None:
            if key is None:
                self._look_for_dead(deaths)
            entry: Entry | None = self._oldest(entries) if key is None else entries.get(key)
            if entry is None or not self._is_claimable(entry):
                return None
            found[:] = [entry]
            return Change(entry.key, None, [(SAGA_EVENT, b"claimed"), (SAGA_OWNER, owner)])

        if self.state.change(decide) is None:
            return None
        self.state.current()    # the entry knows of its owner now
        return found[0]

    def _oldest(self, entries: Entries) -> Entry | None:
        for waiting in (self._orphans, self._free):
            while waiting:
                key, entry = next(iter(waiting.items()))
                is_known = entries.get(key) is entry
                if is_known and self._is_claimable(entry):
                    return entry
                del waiting[key]    # expired, or of one who lives
        return None

    def _is_claimable(self, entry: Entry) -> bool:
        return entry.status not in ENDED and (entry.owner is None or self._is_dead(entry.owner))

    def _is_dead(self, owner: bytes) -> bool:
        place = place_of(owner)
        if place == self.processes.me:
            return owner not in _owners_here
        return not self.processes.is_alive(*place)

    def _look_for_dead(self, deaths: int) -> None:
        """Whose owners have died since the last look; and each second, lest one died unseen."""
        now = time.monotonic()
        if deaths != self._deaths or now >= self._look_at:
            self._deaths, self._look_at = deaths, now + LOOK_SECONDS
            for key, entry in self._owned.items():
                if entry.owner is not None and self._is_dead(entry.owner):
                    self._orphans[key] = entry

    def let_go(self, owner: bytes) -> None:
        """Whoever comes next may have what an owner has by the records, and does not know of."""
        self.state.current()
        for key, entry in list(self._owned.items()):
            if entry.owner == owner:
                self.append(key, event_headers("released", is_doubtful=entry.is_doubtful))

    def look_soon(self) -> None:
        """The next claim looks whose owners are dead."""
        self._look_at = 0.0

    def retry(self, key: bytes) -> None:
        """A parked saga is nobody's, and goes on where it was. Raises UnknownSagaError,
        IllegalStateError."""
        def decide(entries: Entries) -> Change:
            entry = self._known(entries, key)
            if entry.status != "parked":
                raise IllegalStateError(
                    f"the saga {text_of(key)!r} is {entry.status}, and only what is parked can be "
                    "tried again; see `list(status='parked')`")
            return Change(key, None, [(SAGA_EVENT, b"retried")])

        self.state.change(decide)

    def keep_parked(self) -> None:
        """Writes those anew that have been parked for half of their time to live, lest they be
        forgotten. For whoever executes sagas, as often as he likes."""
        now = time.monotonic()
        if self._ttl is None or now < self._keep_at:
            return
        self._keep_at = now + min(KEEP_SECONDS, self._ttl / 8)
        is_kept: int | None = 0
        while is_kept is not None:
            tried: list[bytes] = []
            try:
                is_kept = self.state.change(partial(self._oldest_parked_anew, tried))
            except (OffsetError, MessageSizeTooLargeError) as error:
                if not tried:
                    raise
                key = tried[-1]    # which may not be the oldest any more
                self._parked.pop(key, None)
                logger.warning("the parked saga %r of %r will be forgotten, for its records cannot "
                               "be written anew: %s", text_of(key), self.topic, error)

    def _oldest_parked_anew(self, tried: list[bytes], entries: Entries) -> list[Change] | None:
        while self._parked:
            key, entry = next(iter(self._parked.items()))
            if entries.get(key) is not entry:    # expired
                del self._parked[key]
            elif self._clock() < entry.changed / 1000 + (self._ttl or 0) / 2:
                return None
            else:
                tried.append(key)
                return self._anew(entry)
        return None

    def _anew(self, entry: Entry) -> list[Change]:
        """What is needed of the records of a parked saga, to stand for them."""
        key = entry.key
        made = [Change(key, self.record(entry.first).value, [
            (SAGA_EVENT, b"renewed"), (SAGA_STARTED, to_value(entry.started))])]
        for name, offset in entry.steps:
            if offset is None:    # it may have had its effect, and nothing is known of it
                made.append(Change(key, None, event_headers("compensating", name,
                                                            is_doubtful=True)))
            else:
                made.append(Change(key, self.record(offset).value,
                                   event_headers("step_completed", name)))
        made.append(Change(key, None, self.record(entry.trouble or 0).headers))
        return made

    # ---- reading

    @property
    def owned(self) -> int:
        """How many sagas are in work, in any process."""
        return len(self._owned)

    def entry(self, key: bytes) -> Entry:
        """The entry of a saga, as of now. Raises UnknownSagaError."""
        return self._known(self.state.current(), key)

    def _known(self, entries: Entries, key: bytes) -> Entry:
        entry = entries.get(key)
        if entry is None:
            raise UnknownSagaError(
                f"there is no saga {text_of(key)!r} in {self.topic!r}: it was never submitted, or "
                "its time to live is over", saga=text_of(key))
        found: Entry = entry
        return found

    def record(self, offset: int) -> Record:
        """One of its records."""
        return self._log.get(offset)

    def result(self, offset: int) -> Any:
        """What a step has returned."""
        value = self.record(offset).value
        return None if value is None else json.loads(value)

    def error_of(self, entry: Entry) -> str | None:
        """Why a saga failed; None: it has not."""
        try:
            return None if entry.trouble is None else _error_of(self.record(entry.trouble))
        except OffsetError:
            return "forgotten: its record was older than the ttl"

    def list(self, status: str | None) -> Iterator[SagaEntry]:
        """Those of a status, or all, in the order in which they were started."""
        entries = sorted(self.state.current().copy().values(),
                         key=lambda entry: (entry.started, entry.first))
        for entry in entries:
            if status in (None, entry.status):
                pid = entry.owner and self.processes.pid_of(*place_of(entry.owner))
                yield SagaEntry(text_of(entry.key), entry.status, entry.step, self.error_of(entry),
                                pid or None, _moment(entry.started), _moment(entry.changed))

    def history(self, key: bytes) -> Iterator[Moment]:
        """All records of a saga. Cost: reads the journal from its first to its last one."""
        entry = self.entry(key)
        for record in self._log.read(max(entry.first, self._log.start_offset)):
            if record.offset > entry.last:
                break
            if record.key == key:
                step, attempt = record.header(SAGA_STEP), record.header(SAGA_ATTEMPT)
                yield Moment(_moment(record.timestamp), text_of(record.header(SAGA_EVENT)),
                             None if step is None else text_of(step),
                             None if attempt is None else number_of(attempt),
                             _error_of(record), record.value)


def new_owner(processes: Any) -> bytes:
    """Who claims sagas, at work from now on."""
    owner = claimant_of(processes, next(_numbers))
    _owners_here.add(owner)
    return owner


def forget_owner(owner: bytes) -> None:
    """It is at work no more: what it has still, others may claim."""
    _owners_here.discard(owner)


def to_json(result: Any) -> bytes | None:
    """The bytes of what a step has returned. Raises SerializationError."""
    try:
        return None if result is None else _encode(result).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise SerializationError(
            f"the step has returned what is no JSON, and cannot be kept: {error}; return dicts, "
            "lists, texts and numbers", field="value") from error


def _error_of(record: Record) -> str | None:
    kind = record.header(ERROR_TYPE)
    return None if kind is None else f"{text_of(kind)}: {text_of(record.header(ERROR_MESSAGE))}"


def _moment(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)
