"""DeadLetters: the records that handlers failed on, and what is done with them.

All state is in the topics of letters: what becomes of a letter (`letter.py`) is a mark
(`pending.py`) behind it. So the topics may be read, copied and served as any other.
"""

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from pylog import (
    Broker,
    ConfigurationError,
    OffsetOutOfRangeError,
    Record,
    RecordNotFoundError,
    UnknownTopicOrPartitionError,
)
from pylog.patterns import headers as names
from pylog.patterns.headers import to_value
from pylog.patterns.letter import Letter, is_mark, letter_of, parse_id, replay_headers
from pylog.patterns.pending import Pending, all_letters, marks_of
from pylog.patterns.tenant import Tenant

CLAIM_SECONDS = 10.0      # for another process that replays or discards
REPLAYED, DISCARDED = "replayed", "discarded"

Letters = list[Letter]    # DeadLetters.list hides the word


class DeadLetters(Tenant):
    """The dead letters of a group, of one topic, or all that there are. Safe for threads.

    group: all its topics, `dlq.<group>.*`. topic: one topic of letters, whatever its name. Neither:
    all topics called `dlq.*` or `*-dlq`.

    Guarantees: a letter is replayed or discarded by one process at a time. It is marked *after* it
    was sent again, so a kill between the two leaves it pending: it may be sent twice, and is never
    lost. Cost: a call reads what came since the last one of this object, 0.5 us a record, then 8 us
    for each letter that it looks at; `list(marked=True)` reads the topics from their beginning.

        >>> import pylog
        >>> from pylog.patterns.letter import bury
        >>> with pylog.Broker("data") as broker:
        ...     broker.append("orders", b"12 pears", key=b"alice")
        ...     record = next(broker.read("orders"))
        ...     bury(broker, "orders-dlq", record, ValueError("no pears"), group="billing")
        ...     letters = DeadLetters(broker, topic="orders-dlq")
        ...     [(letter.topic, letter.error, letter.value) for letter in letters.list()]
        ...     letters.discard(letters.list()), letters.list()    # doctest: +ELLIPSIS
        RecordMetadata(topic='orders', ...
        RecordMetadata(topic='orders-dlq', ...
        [('orders', 'ValueError', b'12 pears')]
        (1, [])

    Raises ConfigurationError for a group and a topic, and what Broker raises.
    """

    def __init__(self, broker: Broker | str | os.PathLike[str], group: str | None = None, *,
                 topic: str | None = None) -> None:
        if group is not None and topic is not None:
            raise ConfigurationError("pass a group or a topic, not both: a topic of letters may "
                                     "have those of several groups", option="topic", value=topic)
        self._group = group
        self._topic = topic
        self._pending: dict[str, Pending] = {}    # by topic
        super().__init__(broker)

    # ---- looking

    def topics(self) -> Sequence[str]:
        """The topics of letters that this is about. Raises UnknownTopicOrPartitionError."""
        known = self._broker.topics()
        if self._topic is not None:
            if self._topic not in known:
                raise UnknownTopicOrPartitionError(
                    f"there is no topic {self._topic!r}; those of a group are called "
                    "dlq.<group>.<topic>", topic=self._topic)
            return [self._topic]
        prefix = "dlq." if self._group is None else f"dlq.{self._group}."
        return sorted(name for name in known if name.startswith(prefix)
                      or (self._group is None and _is_of_letters(name)))

    def list(
        self, *, topic: str | None = None, error: str | type | None = None,
        handler: str | None = None, since: datetime | int | None = None, limit: int | None = None,
        marked: bool = False,
    ) -> Letters:
        """The pending letters, oldest first in each topic.

        topic: that they were in. error: its class, or the name of that, with or without the module.
        handler: that failed. since: buried then or later, ms since the epoch or an aware datetime.
        limit: the first so many. marked: also those that were replayed or discarded.
        """
        if limit is not None and limit < 0:
            raise ConfigurationError(f"limit={limit} is negative; use 0 or more, or None",
                                     option="limit", value=limit)
        if isinstance(error, type):
            error = error.__name__
        for option, text in (("topic", topic), ("error", error), ("handler", handler)):
            if not isinstance(text, str | None):
                raise TypeError(f"{option} must be a str, not {type(text).__name__}")
        since_ms = _as_ms(since)
        found: Letters = []
        for letter in self._letters(marked):
            if limit is not None and len(found) >= limit:
                break
            if (letter.buried_ms >= since_ms
                    and (topic is None or letter.topic == topic)
                    and (handler is None or letter.handler == handler)
                    and (error is None or error in (letter.error, letter.error.split(".")[-1]))):
                found.append(letter)
        return found

    def show(self, letter_id: str) -> Letter:
        """One letter, pending or not. Raises RecordNotFoundError, ConfigurationError."""
        topic, partition, offset = parse_id(letter_id)
        if topic in self.topics():
            record = self._record(topic, partition, offset)
            if record is not None and not is_mark(record):
                place = (partition, offset)
                return letter_of(record, None if place in self._pending_of(topic)
                                 else marks_of(self._broker, topic).get(place))
        raise RecordNotFoundError(f"there is no letter {letter_id!r} here; list(), or `pylog dlq "
                                  "ls`, has those that there are", offset=offset)

    def _letters(self, marked: bool) -> Iterator[Letter]:
        for topic in self.topics():
            for letter in all_letters(self._broker, topic) if marked \
                    else map(letter_of, self._pending_of(topic)):
                if self._group is None or letter.group in ("", self._group):
                    yield letter    # dlq.a.b.c may be the group a's or a.b's

    def _pending_of(self, topic: str) -> Pending:
        return self._pending.setdefault(topic, Pending(self._broker, topic))

    def _record(self, topic: str, partition: int, offset: int) -> Record | None:
        """None: there is no such record, any more."""
        if partition >= self._broker.topic(topic).partitions:
            return None
        try:
            return self._broker.log(topic, partition).get(offset)
        except (RecordNotFoundError, OffsetOutOfRangeError):
            return None

    # ---- doing

    def replay(
        self, letters: "Letter | str | Iterable[Letter | str]", *, to: str | None = None,
        edit: Callable[[Letter], Letter | None] | None = None, rate: float | None = None,
    ) -> int:
        """Sends letters again, one by one, and marks them. Returns how many; those that have been
        replayed or discarded meanwhile are left out.

        letters: one or several, or their ids. to: the topic; the one they were in by default, and
        there the partition too, behind all that is in it. edit: gives the letter that is to be
        sent instead (`dataclasses.replace(letter, value=...)`), None leaves it as it is, pending.
        rate: at most so many a second.

        What is sent to its own topic bears `__replay.group` and, where there were several handlers,
        `__replay.handler`: the subscriptions of other groups skip it. Other consumers of the topic
        see it as any record. Raises UnknownTopicOrPartitionError where the topic is gone,
        RecordNotFoundError, PylogTimeoutError while another process is at it.
        """
        if isinstance(rate, bool) or not isinstance(rate, int | float | None):
            raise TypeError(f"rate must be a number of records, not {type(rate).__name__}")
        if rate is not None and not rate > 0:
            raise ConfigurationError(f"rate={rate} is impossible; use records a second",
                                     option="rate", value=rate)
        count = 0
        for letter in self._chosen(letters):
            sent = letter if edit is None else edit(letter)
            if sent is None:
                continue
            if not isinstance(sent, Letter):
                raise TypeError(f"edit returned {type(sent).__name__}, and must return a Letter, "
                                "as dataclasses.replace(letter, value=...) does, or None")
            target, partition = self._target(sent, to)
            began = time.monotonic()
            if self._settle(letter, REPLAYED, target, sent.value, sent.key,
                            replay_headers(sent, letter, to is None), partition):
                count += 1
                if rate is not None:
                    time.sleep(max(0.0, began + 1 / rate - time.monotonic()))
        return count

    def discard(self, letters: "Letter | str | Iterable[Letter | str]") -> int:
        """Marks letters as done with; they stay readable. Returns how many were pending."""
        return sum(self._settle(letter, DISCARDED) for letter in self._chosen(letters))

    def _chosen(self, given: "Letter | str | Iterable[Letter | str]") -> Letters:
        if not isinstance(given, Letter | str | Iterable):
            raise TypeError("expected a Letter, its id, or several of them, not "
                            f"{type(given).__name__}")
        items = [given] if isinstance(given, Letter | str) else list(given)
        return [one if isinstance(one, Letter) else self.show(one) for one in items]

    def _target(self, letter: Letter, to: str | None) -> tuple[str, int | None]:
        """Topic and partition. None: as its key has it."""
        name = letter.topic if to is None else to
        entry = self._broker.topics().get(name)
        if entry is None:
            raise UnknownTopicOrPartitionError(
                f"the letter {letter.id} cannot be sent again: there is no topic {name!r}; create "
                "it, or name another with to=", topic=name)
        is_home = to is None and 0 <= letter.partition < entry.partitions
        return name, letter.partition if is_home else None


    def _settle(self, letter: Letter, mark: str, *record: Any) -> bool:
        """Appends the record, if there is one, and then the mark; nothing where the letter has a
        mark already, or is deleted. For one process at a time."""
        topic, partition, offset = parse_id(letter.id)
        with self._broker.claim(topic, CLAIM_SECONDS):
            self._check_is_letter(topic, partition, offset)
            if (partition, offset) not in self._pending_of(topic):
                return False
            found = self._record(topic, partition, offset)
            if found is None or found.timestamp != letter.buried_ms:    # of another topic by now
                return False
            if record:
                self._broker.append(*record)
            self._broker.append(
                topic, None, letter.key, [(names.DLQ_MARK_OF, to_value(f"{partition}:{offset}")),
                                          (names.DLQ_MARK, to_value(mark))], partition)
        return True

    def _check_is_letter(self, topic: str, partition: int, offset: int) -> None:
        """Its topic is for letters, or the record says that it is one."""
        if _is_of_letters(topic):
            return
        record = self._record(topic, partition, offset)
        if record is None or not any(name.startswith(names.DLQ_PREFIX)
                                     for name, _ in record.headers):
            raise ConfigurationError(
                f"{topic}:{partition}:{offset} is no dead letter: it does not say where it comes "
                "from, and its topic is not called dlq.* or *-dlq; a mark there would be a record "
                f"to whoever reads {topic!r}", option="letters",
                value=f"{topic}:{partition}:{offset}")


def _is_of_letters(topic: str) -> bool:
    return topic.startswith("dlq.") or topic.endswith("-dlq")


def _as_ms(since: datetime | int | None) -> float:
    if since is None:
        return float("-inf")
    if isinstance(since, datetime):
        if since.tzinfo is None:
            raise ConfigurationError("since= has no time zone; use datetime.now(UTC) - ...",
                                     option="since", value=since)
        return since.astimezone(UTC).timestamp() * 1000
    if isinstance(since, bool) or not isinstance(since, int):
        raise TypeError("since must be a datetime or ms since the epoch, not "
                        f"{type(since).__name__}")
    return since
