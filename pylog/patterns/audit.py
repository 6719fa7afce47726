"""Audit: who did what to what, when, why, and what was before and after, so that nobody can change
it in silence.

    audit = Audit(broker)
    audit.record(actor="ann", action="user.deleted", target="user-7", reason="GDPR")
    audit.verify()                       None, or the first entry that was tampered with

Entries are records of one topic, kept for ever, each with the hash of the one before (chain.py).
"""

import csv
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, TextIO

from pylog import (
    Broker,
    ConfigurationError,
    CorruptRecordError,
    Log,
    PylogTimeoutError,
    Record,
    SerializationError,
    WrongEndOffsetError,
)
from pylog.patterns.audit_entry import (
    FIELDS,
    NOTHING,
    TEXTS,
    AuditEntry,
    check_action,
    check_more,
    check_texts,
    entry_of,
    entry_of_event,
    json_of,
    make_encoder,
    to_text,
)
from pylog.patterns.bus import AsyncBus, Bus
from pylog.patterns.chain import FIRST, Break, Head, Headers, hash_of, link, misfit, walk
from pylog.patterns.events import Event
from pylog.patterns.handler import check_handler
from pylog.patterns.headers import CHAIN_HASH, CHAIN_PREVIOUS
from pylog.patterns.inflow import Inflow
from pylog.patterns.racing import until_first
from pylog.patterns.tenant import Tenant
from pylog.patterns.wildcards import matcher

PATIENCE_SECONDS = 60.0     # for an entry of an "fsync" topic that is appended and not yet on disk
PROGRESS_RECORDS = 10_000
MANY = 1_000                # entries that are one batch

# An entry that has no place yet: its timestamp, key, value, and what was said.
_Made = tuple[int, bytes | None, bytes, Mapping[str, Any]]


class Audit(Tenant):
    """An audit trail. Safe for threads; any number of processes record at once.

    broker: a Broker, or the path of one, which is then closed with this. name: of the topic, which
    is made with one partition and keeps all.

        >>> with Audit("data") as audit:
        ...     entry = audit.record(actor="ann", action="user.renamed", target="user-7",
        ...                          before="Bob", after="Rob", reason="asked for it")
        ...     [(one.actor, one.before, one.after) for one in audit.query(action="user.*")]
        ...     audit.verify(head=audit.head()) is None
        [('ann', 'Bob', 'Rob')]
        True

    **Guarantee**: `verify` finds the first entry that was altered, removed, inserted or swapped,
    its CRC made right or not. Who rewrites all that follows, or cuts the end off, is found by
    whoever has noted a `head()` elsewhere, and by nobody else. The chain is unbroken whoever is
    killed. Cost: 3.4 us an entry, 2.2 in lists; 2 more where msgspec is not installed.
    """

    def __init__(self, broker: Broker | str | os.PathLike[str], name: str = "audit",
                 clock: Callable[[], float] = time.time) -> None:
        super().__init__(broker)
        self.name = name
        self._clock = clock
        self._encode = make_encoder()
        self._lock = threading.Lock()
        self._end, self._hash = -1, b""    # where the chain ends, as far as is known here
        try:
            self._log = self._open()
        except BaseException:
            self.close()
            raise

    def _open(self) -> Log:
        entry = self._broker.create_topic(self.name, 1, {"retention.ms": -1}, exist_ok=True)
        if entry.partitions != 1 or \
                entry.configs.get("message.timestamp.type", "CreateTime") != "CreateTime":
            raise ConfigurationError(
                f"the topic {self.name!r} cannot be an audit trail: that has one partition, and "
                "timestamps of who appends (CreateTime); name another", option="name",
                value=self.name)
        self._is_kept = entry.configs.get("retention.ms") == "-1"
        return self._broker.log(self.name)

    # ---- recording

    def record(self, *, actor: str, action: str, target: str | None = None, before: Any = None,
               after: Any = None, reason: str | None = None, **more: Any) -> AuditEntry:
        """Adds an entry; it is there for all processes on return, and as durable as the broker is.

        actor: who. action: what, as the type of an event: user.deleted. target: to what. before,
        after, more: JSON, or what else msgspec makes JSON of where it is installed (of NaN, null).
        Raises SerializationError, ConfigurationError, TypeError; nothing is recorded then.
        """
        made = self._made({"actor": actor, "action": action, "target": target, "before": before,
                           "after": after, "reason": reason, **more}, self._now_ms())
        offset, digest = self._append(made)
        return AuditEntry(offset, made[0], digest.hex(), made[3])

    def record_many(self, entries: Iterable[Mapping[str, Any]]) -> int:
        """Adds entries, dicts of what `record` takes, in batches of a thousand, each whole or not
        at all, with the same time. Returns how many. All are checked before any is added."""
        now_ms = self._now_ms()
        made = [self._made({**NOTHING, **one}, now_ms) for one in entries]
        for at in range(0, len(made), MANY):
            self._append_batch(made[at:at + MANY])
        return len(made)

    def feed(self, bus: Bus | AsyncBus | str, pattern: str, *, group: str = "audit",
             entry: Callable[[Event], Mapping[str, Any] | None] | None = None,
             start: Any = None) -> Inflow:
        """Events of a bus become entries, each record of it once, whoever is killed: `with
        audit.feed(...):`. An event that its source emits again is recorded again; the entries have
        its id as `event`.

        pattern: of their types, with wildcards. entry: what `record` is to take, of an event; None:
        nothing. By default the source is the actor, the type the action, the subject or the key
        the target, and the data what was after. Raises as `Rooms.feed`.
        """
        make = entry_of_event if entry is None else check_handler(entry)

        def make_entry(event: Event) -> Callable[[Headers], int] | None:
            found = make(event)
            if found is None:
                return None
            made = self._made({**NOTHING, **found, "event": event.id}, self._now_ms())
            return lambda headers: self._append(made, tuple(headers))[0] + 1

        return Inflow(self._broker, bus, pattern, self.name, make_entry, group, start)

    def _now_ms(self) -> int:
        return int(1000 * self._clock())

    def _made(self, data: dict[str, Any], timestamp: int) -> _Made:
        target = data["target"]
        if not (type(data["actor"]) is type(data["action"]) is str and data["actor"]
                and type(target) in TEXTS and type(data["reason"]) in TEXTS):
            check_texts(data)
        check_action(data["action"])
        if len(data) > len(FIELDS):
            check_more(data)
        try:
            value = self._encode(data)
        except (TypeError, ValueError, RecursionError) as error:
            raise SerializationError(f"an entry for {self.name!r} is no JSON: {error}",
                                     topic=self.name, field="value") from error
        key = None if target is None else target.encode()
        return timestamp, key, value, data

    # ---- the end of the chain

    def _append(self, made: _Made, headers: Headers = ()) -> tuple[int, bytes]:
        with self._lock:
            try:    # nobody else, as a rule
                return self._try_to_append(made, headers)
            except WrongEndOffsetError:
                return until_first(self._broker, f"audit:{self.name}",
                                   lambda: self._try_to_append(made, headers))

    def _try_to_append(self, made: _Made, headers: Headers) -> tuple[int, bytes]:
        timestamp, key, value, _ = made
        self._check_open()
        end, previous = self._chain_end()
        digest = link(previous, timestamp, key, value, headers)
        self._end = -1    # unless it goes well
        offset = self._log.append(
            value, key, [(CHAIN_PREVIOUS, previous), (CHAIN_HASH, digest), *headers], timestamp,
            end)
        self._end, self._hash = offset + 1, digest
        return offset, digest

    def _append_batch(self, batch: list[_Made]) -> None:
        def attempt() -> None:
            self._check_open()
            end, digest = self._chain_end()
            headers = []
            for timestamp, key, value, _ in batch:
                previous, digest = digest, link(digest, timestamp, key, value)
                headers.append([(CHAIN_PREVIOUS, previous), (CHAIN_HASH, digest)])
            self._end = -1
            timestamps, keys, values, _ = zip(*batch, strict=True)
            self._log.append_many(values, keys, headers, timestamps, if_end=end)
            self._end, self._hash = end + len(batch), digest

        with self._lock:
            until_first(self._broker, f"audit:{self.name}", attempt)

    def _chain_end(self) -> tuple[int, bytes]:
        """Where the next entry goes, and the hash that it is chained to."""
        if self._end < 0:
            if not self._is_kept:    # now that it is written to: to look at a topic changes nothing
                self._broker.alter_configs(self.name, {"retention.ms": -1})
                self._is_kept = True
            end = self._log.end_offset
            last = self._last_before(end)
            self._hash = FIRST if last is None else hash_of(last) or b""
            self._end = end
        return self._end, self._hash

    def _last_before(self, end: int) -> Record | None:
        """The last entry there is; of an "fsync" topic, once it is on disk."""
        if end > self._log.readable_offset and not self._log.wait(end - 1, PATIENCE_SECONDS):
            raise PylogTimeoutError(
                f"the entries of {self.name!r} have not come to disk for {PATIENCE_SECONDS:.0f} s; "
                "see to the disk, then try again", timeout_ms=int(1000 * PATIENCE_SECONDS))
        return next(iter(self._log.read(-1)), None)

    def head(self) -> Head | None:
        """The last entry and its hash, to be noted elsewhere: printed, mailed, in another's log.
        None: there is no entry."""
        last = self._last_before(self._log.end_offset)
        if last is None:
            return None
        return Head(last.offset, (hash_of(last) or b"").hex())

    # ---- looking

    def query(self, *, actor: str | None = None, action: str = "**", target: str | None = None,
              since: datetime | None = None, until: datetime | None = None,
              ) -> Iterator[AuditEntry]:
        """The entries that fit, the oldest first. action: with wildcards, as a bus has them. since,
        until: aware; until is not among them. What is no entry is passed over: that is `verify`'s.
        Cost: a search for `since`, then 2 us for each that is looked at, less for other targets."""
        for one in (since, until):
            if one is not None and not isinstance(one, datetime):
                raise TypeError(f"since and until must be aware datetimes, not {one!r:.60}")
        wants = matcher(action)
        first, last = (None if one is None else 1000 * one.timestamp() for one in (since, until))
        for record in self._log.read("earliest" if since is None else since):
            if (first is not None and record.timestamp < first) \
                    or (last is not None and record.timestamp >= last) \
                    or (target is not None and record.key != target.encode()):
                continue
            entry = entry_of(record)
            if entry is not None and (actor is None or entry.actor == actor) \
                    and wants(entry.action):
                yield entry

    def verify(self, start: int | None = None, stop: int | None = None, *,
               head: Head | str | None = None,
               progress: Callable[[int, int], object] | None = None) -> Break | None:
        """The first entry that was tampered with; None: there is none.

        start, stop: offsets; the entry before start is trusted. head: one that was noted, of an
        entry before stop, so that an end that was cut off, or a chain that was made anew, is found;
        of one before start that entry alone is looked at. progress: called with how many entries
        were looked at, and how many there are. Cost: 2 us an entry. Raises DeserializationError for
        what is no head, ConfigurationError for one that is not before stop.
        """
        known = None if head is None else Head.of(head)
        if known is not None and stop is not None and known.offset >= stop:
            raise ConfigurationError(
                f"the head is of entry {known.offset}, and stop={stop} ends before it: leave stop "
                f"out, or say {known.offset + 1} or more", option="head", value=str(known))
        end = self._log.readable_offset if stop is None else stop
        first, count, offset = 0 if start is None else start, 0, -1
        if known is not None and known.offset < first \
                and (broken := self._break_at(known)) is not None:
            return broken
        before = self._entry_at(first - 1)
        previous = FIRST if before is None else hash_of(before) or b""
        for found in walk(self._log.read(max(first, self._log.start_offset), end), previous):
            if isinstance(found, Break):
                return found
            offset, count = found.offset, count + 1
            if known is not None and known.offset == offset \
                    and (broken := _rewritten(found, known)) is not None:
                return broken
            if progress is not None and count % PROGRESS_RECORDS == 0:
                progress(count, end - first)
        if known is not None and known.offset > offset and known.offset >= first:
            return self._break_at(known)
        if progress is not None:
            progress(count, count)
        return None

    def _entry_at(self, offset: int) -> Record | None:
        if not self._log.start_offset <= offset < self._log.readable_offset:
            return None
        return next(iter(self._log.read(offset, offset + 1)), None)

    def _break_at(self, head: Head) -> Break | None:
        """What is wrong with the entry of a head, looked at alone."""
        try:
            entry = self._entry_at(head.offset)
        except CorruptRecordError as error:
            return Break(head.offset, "unreadable", str(error))
        if entry is None:
            return Break(head.offset, "cut", "it is not there any more; the trail has entries "
                         f"{self._log.start_offset} to {self._log.readable_offset - 1}")
        return misfit(entry, entry.header(CHAIN_PREVIOUS) or b"") or _rewritten(entry, head)

    def export(self, file: TextIO, form: str = "jsonl", **wanted: Any) -> int:
        """Writes entries to a text file, as JSON lines or "csv", before and after in JSON; returns
        how many. wanted: as `query`'s. For Parquet: `pylog export`, for the topic is one as any."""
        if form not in ("jsonl", "csv"):
            raise ConfigurationError(f"form={form!r}: use jsonl or csv", option="form", value=form)
        count = 0
        table = csv.writer(file)
        if form == "csv":
            table.writerow(["offset", "time", *FIELDS, "more", "hash"])
        for count, entry in enumerate(self.query(**wanted), 1):    # noqa: B007 - it is returned
            if form == "csv":
                more = {name: one for name, one in entry.data.items() if name not in FIELDS}
                before, after, more_text = (None if one is None else to_text(one)
                                            for one in (entry.before, entry.after, more or None))
                table.writerow([entry.offset, entry.time.isoformat(), entry.actor, entry.action,
                                entry.target, before, after, entry.reason, more_text, entry.hash])
            else:
                file.write(f"{json_of(entry)}\n")
        return count

    def __repr__(self) -> str:
        return f"<Audit {self.name!r}>"


def _rewritten(entry: Record, head: Head) -> Break | None:
    """None: the entry has the hash of the head."""
    if bytes.fromhex(head.hash) == hash_of(entry):
        return None
    return Break(head.offset, "rewritten", "the chain holds, and its hash is not the one that was "
                 "noted: it and all behind it, or before it, was made anew")
