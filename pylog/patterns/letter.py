"""Letter: a record that a handler failed on, as it is written into a topic and read out of it.

It is the record itself, key, value and headers, and `__dlq.errors.*` headers that say where it
comes from and why it is here, by KIP-1191's names. The topic is `dlq.<group>.<topic>` unless
somebody names another.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from pylog import (
    Broker,
    ConfigurationError,
    InvalidTopicError,
    Record,
    RecordMetadata,
    SerdeError,
)
from pylog.patterns import headers as names
from pylog.patterns.headers import number_of, text_of, to_value

# Letters are kept until somebody says otherwise, and may be larger than what they were.
CONFIGS = {"retention.ms": -1, "max.message.bytes": 1 << 30}
MESSAGE_MAX = 4096        # characters of an error that are kept

# KIP-1317's words, and two of ours.
GIVEN_UP = "MAX_DELIVERY_ATTEMPTS_REACHED"
REJECTED = "CLIENT_REJECTED"
UNREADABLE = "DESERIALIZATION_FAILED"
EXPIRED = "EXPIRED"


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter.

    id: "TOPIC:PARTITION:OFFSET" of the letter. topic, partition, offset, timestamp: of the record
    that it was; topic is "" where nobody said. group, handler: who failed. attempts: how often.
    error: the name of its class; message: its text. disposition: why it is here, in one word.
    buried_ms: since when. mark: "replayed", "discarded", or None while it is pending. key, value,
    headers: the record's own.
    """

    id: str
    topic: str
    partition: int
    offset: int
    timestamp: int
    group: str
    handler: str
    attempts: int
    error: str
    message: str
    disposition: str
    buried_ms: int
    mark: str | None
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]


def letter_of(record: Record, mark: str | None = None) -> Letter:
    """The letter that a record of a topic of letters is, whoever wrote it there."""
    head = dict(record.headers)
    return Letter(
        id=f"{record.topic}:{record.partition}:{record.offset}",
        topic=text_of(head.get(names.DLQ_TOPIC)),
        partition=number_of(head.get(names.DLQ_PARTITION)),
        offset=number_of(head.get(names.DLQ_OFFSET)),
        timestamp=number_of(head.get(names.DLQ_TIMESTAMP)),
        group=text_of(head.get(names.DLQ_GROUP)),
        handler=text_of(head.get(names.DLQ_HANDLER)),
        attempts=number_of(head.get(names.DLQ_ATTEMPTS), 0),
        error=text_of(head.get(names.DLQ_TYPE)),
        message=text_of(head.get(names.DLQ_MESSAGE)),
        disposition=text_of(head.get(names.DLQ_DISPOSITION)),
        buried_ms=record.timestamp, mark=mark, key=record.key, value=record.value,
        headers=_without(record.headers, names.DLQ_PREFIX))


def is_mark(record: Record) -> bool:
    """Whether it is no letter, but says what became of one (see `dead_letters.py`)."""
    return record.header(names.DLQ_MARK_OF) is not None and record.value is None


def dlq_name(given: bool | str | None, group: str | None, topic: str) -> str | None:
    """The topic that `dlq=` of a subscription means; None: there is none.

    given: None is True for a group and False without one.

        >>> dlq_name(True, "billing", "orders"), dlq_name("orders-dlq", None, "orders")
        ('dlq.billing.orders', 'orders-dlq')
    """
    if isinstance(given, str):
        if given == topic:
            raise ConfigurationError(f"dlq={given!r} is the topic itself, whose dead letters would "
                                     "come again without end; use another name", option="dlq",
                                     value=given)
        return given
    if given is None:
        given = group is not None
    elif not isinstance(given, bool):
        raise TypeError(f"dlq must be True, False or the name of a topic, not "
                        f"{type(given).__name__}")
    if given and group is None:
        raise ConfigurationError("dlq=True names the topic after the group, and there is none; "
                                 "pass group=, or the name of a topic as dlq=", option="dlq",
                                 value=given)
    if given and not (isinstance(group, str) and group):
        raise ConfigurationError(f"group={group!r} is no name of a group; use a text",
                                 option="group", value=group)
    return f"dlq.{group}.{topic}" if given else None


def burier(broker: Broker, dlq: bool | str | None, group: str | None, topic: str,
           ) -> Callable[..., RecordMetadata] | None:
    """What makes letters of a subscription's records; None: nothing does. The topic is made, and
    keeps letters for ever; one that is there stays as it is.

    dlq: as `dlq_name` takes it. Raises as that, and InvalidTopicError.
    """
    name = dlq_name(dlq, group, topic)
    if name is None:
        return None
    try:
        broker.create_topic(name, 1, CONFIGS, exist_ok=True)
    except InvalidTopicError as error:
        raise InvalidTopicError(f"{error}; or name the topic of dead letters: dlq='...'",
                                topic=name) from None

    def act(record: Record, error: BaseException, attempts: int, handler: str | None = None,
            disposition: str | None = None) -> RecordMetadata:
        return bury(broker, name, record, error, attempts=attempts, group=group, handler=handler,
                    disposition=disposition)

    return act


def bury(
    broker: Broker, topic: str, record: Record, error: BaseException, *, attempts: int = 1,
    group: str | None = None, handler: str | None = None, disposition: str | None = None,
) -> RecordMetadata:
    """Appends the letter of a record on which a handler failed.

    topic: of letters. disposition: by default as the error has it. Raises what an append raises.
    """
    kind = type(error)
    error_name = kind.__qualname__ if kind.__module__ == "builtins" \
        else f"{kind.__module__}.{kind.__qualname__}"
    if disposition is None:
        disposition = UNREADABLE if isinstance(error, SerdeError) else GIVEN_UP
    added = [
        (names.DLQ_TOPIC, record.topic or ""), (names.DLQ_PARTITION, record.partition or 0),
        (names.DLQ_OFFSET, record.offset), (names.DLQ_TIMESTAMP, record.timestamp),
        (names.DLQ_GROUP, group), (names.DLQ_HANDLER, handler), (names.DLQ_ATTEMPTS, attempts),
        (names.DLQ_TYPE, error_name), (names.DLQ_MESSAGE, message_of(error)),
        (names.DLQ_DISPOSITION, disposition)]
    return broker.append(
        topic, record.value, record.key,
        [*_without(record.headers, names.DLQ_PREFIX),
         *((name, to_value(value)) for name, value in added if value is not None)])


def message_of(error: BaseException) -> str:
    """Its text, whatever its class does when it is asked."""
    try:
        text = str(error)
    except Exception:    # of a user's class
        text = "(its text cannot be had)"
    return text[:MESSAGE_MAX]


def replay_headers(letter: Letter, origin: Letter, is_home: bool) -> list[tuple[str, Any]]:
    """Those with which `letter` is sent in the place of `origin`; is_home: to its own topic, and so
    only for the group, and the handler, that failed."""
    count = number_of(dict(origin.headers).get(names.REPLAY_COUNT), 0) + 1
    added = [(names.REPLAY_OF, origin.id), (names.REPLAY_COUNT, count)]
    if is_home and origin.group:
        added.append((names.REPLAY_GROUP, origin.group))
        if origin.handler:
            added.append((names.REPLAY_HANDLER, origin.handler))
    now_ms = time.time() * 1000
    kept = [(name, value) for name, value in _without(letter.headers, names.REPLAY_PREFIX)
            if name != names.EXPIRES_AT or number_of(value, 0) > now_ms]    # or nobody would get it
    return [*kept, *((name, to_value(value)) for name, value in added)]


def _without(headers: Iterable[tuple[str, bytes | None]],
             prefix: str) -> tuple[tuple[str, bytes | None], ...]:
    return tuple(pair for pair in headers if not pair[0].startswith(prefix))


def parse_id(letter_id: str) -> tuple[str, int, int]:
    """Topic, partition and offset of a letter's id. Raises ConfigurationError, TypeError.

        >>> parse_id("dlq.billing.orders:0:17")
        ('dlq.billing.orders', 0, 17)
    """
    if not isinstance(letter_id, str):
        raise TypeError(f"expected a Letter or its id, not {type(letter_id).__name__}")
    topic, _, rest = letter_id.partition(":")
    partition, _, offset = rest.partition(":")
    if not (topic and partition.isascii() and partition.isdecimal() and len(partition) < 10
            and offset.isascii() and offset.isdecimal() and len(offset) < 19):
        raise ConfigurationError(
            f"{letter_id!r} is no id of a letter: those are TOPIC:PARTITION:OFFSET, as "
            "dlq.billing.orders:0:17", option="id", value=letter_id)
    return topic, int(partition), int(offset)
