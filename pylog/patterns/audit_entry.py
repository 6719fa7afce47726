"""AuditEntry: what is recorded of who did what, and how it becomes bytes."""

import functools
import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

from pylog import ConfigurationError, Record
from pylog.patterns.chain import hash_of
from pylog.patterns.events import Event
from pylog.patterns.wildcards import check_type

FIELDS = ("actor", "action", "target", "before", "after", "reason")
NOTHING = dict.fromkeys(FIELDS)    # each entry has these, and more may follow
TAKEN = frozenset(("offset", "time", "hash"))    # what pylog says of an entry, and nobody else
TEXTS = (str, type(None))
check_action = functools.lru_cache(4096)(check_type)
to_text = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode


class AuditEntry(NamedTuple):
    """What was recorded. timestamp: ms since the epoch. data: all that was said, by name."""

    offset: int
    timestamp: int
    hash: str
    data: Mapping[str, Any]

    @property
    def time(self) -> datetime:
        """When it was recorded, in UTC."""
        return datetime.fromtimestamp(self.timestamp / 1000, UTC)

    @property
    def actor(self) -> str:
        """Who did it."""
        return str(self.data["actor"])

    @property
    def action(self) -> str:
        """What: words with dots between."""
        return str(self.data["action"])

    @property
    def target(self) -> str | None:
        """To what; None: nothing was said."""
        return self.data.get("target")

    @property
    def before(self) -> Any:
        """What was before."""
        return self.data.get("before")

    @property
    def after(self) -> Any:
        """What was afterwards."""
        return self.data.get("after")

    @property
    def reason(self) -> str | None:
        """Why."""
        return self.data.get("reason")


def make_encoder() -> Callable[[Any], bytes]:
    """msgspec's where it is installed: a tenth of the time."""
    try:
        from msgspec.json import Encoder
    except ModuleNotFoundError:
        return lambda data: to_text(data).encode()
    return Encoder().encode


def check_texts(data: Mapping[str, Any]) -> None:
    for name in ("actor", "action", "target", "reason"):
        one = data[name]
        if not isinstance(one, str) and (name in ("actor", "action") or one is not None):
            raise TypeError(f"{name} must be a str, not {type(one).__name__}")
    if not data["actor"]:
        raise ConfigurationError("actor is empty, and an entry has one: say who did it",
                                 option="actor", value="")


def check_more(data: Mapping[str, Any]) -> None:
    if found := sorted(TAKEN.intersection(data)):
        raise ConfigurationError(f"an entry cannot say its {found[0]}: that is where and when it "
                                 "was recorded; use another name", option=found[0],
                                 value=data[found[0]])


def entry_of(record: Record) -> AuditEntry | None:
    """None: the record is no entry."""
    try:
        data = json.loads(record.value or b"")
    except ValueError:
        return None
    if not isinstance(data, dict) or not (
            isinstance(data.get("actor"), str) and isinstance(data.get("action"), str)):
        return None
    return AuditEntry(record.offset, record.timestamp,
                      (hash_of(record) or b"").hex(), data)


def entry_of_event(event: Event) -> dict[str, Any]:
    """What is recorded of an event where nobody says otherwise."""
    key = None if event.key is None else event.key.decode("utf-8", "replace")
    return {"actor": event.source, "action": event.type, "target": event.subject or key,
            "after": event.data}


def json_of(entry: AuditEntry) -> str:
    """One object: offset, time, what was said, hash."""
    said = {name: one for name, one in entry.data.items() if name not in TAKEN}
    return to_text({"offset": entry.offset, "time": entry.time.isoformat(), **said,
                    "hash": entry.hash})
