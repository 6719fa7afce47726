"""A saga as the records of its journal say: what is written of it, and what that comes to.

    topic      saga.<name>, with one partition        key    the id of the saga

    saga_event             other headers                       value
    started                saga_owner, if he has it already    the input
    claimed                saga_owner
    released               saga_doubt
    command_sent           saga_step, saga_ends
    step_failed            saga_step, saga_attempt, error_*, saga_doubt
    step_completed         saga_step                           the result, in JSON
    completed
    compensating           saga_step, error_*, saga_doubt
    step_compensated       saga_step
    compensated
    parked                 saga_step, error_*
    retried
    renewed                saga_started                        the input

One that is parked is written anew before its time to live is over: *renewed*, and what is needed of
its records behind it.
"""

from collections.abc import Callable, Mapping

from pylog import Record
from pylog.patterns.claimant import place_of
from pylog.patterns.headers import (
    ERROR_MESSAGE,
    ERROR_TYPE,
    SAGA_DOUBT,
    SAGA_ENDS,
    SAGA_EVENT,
    SAGA_OWNER,
    SAGA_STARTED,
    SAGA_STEP,
    number_of,
    text_of,
    to_value,
)
from pylog.patterns.letter import message_of

STATUSES = ("submitted", "running", "compensating", "completed", "compensated", "parked")
ENDED = frozenset(STATUSES[3:])

Headers = list[tuple[str, bytes | None]]


def event_headers(event: str, step: str | None = None, error: BaseException | None = None,
                  is_doubtful: bool = False, others: Mapping[str, object] | None = None) -> Headers:
    """The headers of a record."""
    found: Headers = [(SAGA_EVENT, event.encode())]
    if step is not None:
        found.append((SAGA_STEP, to_value(step)))
    found += [(name, to_value(value)) for name, value in (others or {}).items()]
    if error is not None:
        found += [(ERROR_TYPE, to_value(type(error).__name__)),
                  (ERROR_MESSAGE, to_value(message_of(error)))]
    if is_doubtful:
        found.append((SAGA_DOUBT, b"1"))
    return found


class Entry:
    """A saga, as its records say. All that is large stays in the topic, and its offset is here.

    owner: who is at it; None: nobody. first, last: offsets of its records. steps: those that are to
    be undone if it fails, with the offset of the result, in the order in which they were done; None
    is the offset of one that may or may not have had its effect. ends: of the bus, before the
    command that is waited for. deaths: owners that have died since it last got on. is_doubtful: the
    step at hand may have had its effect. trouble: offset of the record that says why it failed.
    """

    __slots__ = ("changed", "deaths", "ends", "first", "is_doubtful", "key", "last", "owner",
                 "started", "status", "step", "steps", "trouble")

    def __init__(self, record: Record) -> None:
        self.key = record.key or b""
        self.status = "submitted"
        self.owner: bytes | None = None
        self.first = self.last = record.offset
        self.started = self.changed = record.timestamp
        self.step: str | None = None
        self.steps: tuple[tuple[str, int | None], ...] = ()
        self.trouble: int | None = None
        self.got_on()

    def got_on(self) -> None:
        """The step at hand is over."""
        self.ends: list[int] | None = None
        self.deaths = 0
        self.is_doubtful = False


# ---- what a record does to an entry --------------------------------------------------------------


def _claimed(entry: Entry, record: Record) -> None:
    owner = record.header(SAGA_OWNER)
    place_of(owner)
    entry.deaths += entry.owner is not None
    entry.owner = owner
    if entry.status == "submitted":
        entry.status = "running"


def _released(entry: Entry, record: Record) -> None:
    entry.owner = None
    entry.is_doubtful = record.header(SAGA_DOUBT) is not None


def _command_sent(entry: Entry, record: Record) -> None:
    ends = [int(one) for one in text_of(record.header(SAGA_ENDS)).split(",")]
    if entry.ends is None:
        entry.ends = ends
    entry.step = text_of(record.header(SAGA_STEP))


def _step_failed(entry: Entry, record: Record) -> None:
    entry.step = text_of(record.header(SAGA_STEP))
    entry.is_doubtful = record.header(SAGA_DOUBT) is not None


def _step_completed(entry: Entry, record: Record) -> None:
    entry.steps += ((text_of(record.header(SAGA_STEP)), record.offset),)
    entry.step = None
    entry.got_on()


def _compensating(entry: Entry, record: Record) -> None:
    entry.status = "compensating"
    entry.step = text_of(record.header(SAGA_STEP))
    entry.trouble = record.offset
    if record.header(SAGA_DOUBT) is not None:
        entry.steps += ((entry.step, None),)
    entry.got_on()


def _step_compensated(entry: Entry, record: Record) -> None:
    name = text_of(record.header(SAGA_STEP))
    entry.steps = tuple(one for one in entry.steps if one[0] != name)
    entry.got_on()


def _ended(entry: Entry, record: Record) -> None:
    entry.status = text_of(record.header(SAGA_EVENT))
    entry.owner = None
    if entry.status == "parked":
        entry.step = text_of(record.header(SAGA_STEP))
        entry.trouble = record.offset
    entry.got_on()


def _retried(entry: Entry, record: Record) -> None:
    entry.status = "compensating"


# Of these the owner alone writes, and stays the owner; the others change who has the saga.
_AT_WORK: dict[bytes | None, Callable[[Entry, Record], None]] = {
    b"command_sent": _command_sent, b"step_failed": _step_failed,
    b"step_completed": _step_completed, b"compensating": _compensating,
    b"step_compensated": _step_compensated,
}
_OWNERSHIP: dict[bytes | None, Callable[[Entry, Record], None]] = {
    b"claimed": _claimed, b"released": _released, b"retried": _retried,
    b"completed": _ended, b"compensated": _ended, b"parked": _ended,
}


def fold(entry: Entry | None, record: Record) -> tuple[Entry, bool]:
    """The entry after a record, and whether the record may have changed who has it. Raises
    ValueError, KeyError for a record that makes no sense."""
    event = record.header(SAGA_EVENT)
    if event == b"started":
        if entry is not None:
            raise ValueError("it has been started before")
        entry = Entry(record)
        if record.header(SAGA_OWNER) is not None:
            _claimed(entry, record)
        return entry, True
    if event == b"renewed":
        entry = Entry(record)
        entry.status, entry.started = "running", number_of(record.header(SAGA_STARTED))
        return entry, True
    if entry is None:
        raise ValueError(f"{event!r} without its beginning")
    act = _AT_WORK.get(event) or _OWNERSHIP[event]
    act(entry, record)
    entry.last, entry.changed = record.offset, record.timestamp
    return entry, event in _OWNERSHIP
