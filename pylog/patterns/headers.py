"""The names of all headers that the patterns write and read, and what their values are.

One table, so that a name that a standard settles otherwise is changed in one place. Values are
text in UTF-8, numbers in decimal.
"""

from collections.abc import Iterable, Mapping
from typing import Any

# What FastStream and Spring read, too.
CORRELATION_ID = "correlation_id"
REPLY_TO = "reply_to"
CONTENT_TYPE = "content-type"

# Of a request: which partition of REPLY_TO, if not 0; until when it is waited for, ms since the
# epoch. Of the reply to one on which its handler failed: what it raised.
REPLY_PARTITION = "reply_partition"
EXPIRES = "expires_ms"
ERROR_TYPE = "error_type"
ERROR_MESSAGE = "error_message"

# The id of the registered schema that a value was written with.
SCHEMA_ID = "schema_id"

# Of a record in the journal of a saga: what happened (saga_journal.py has the words), in which
# step, at which attempt; who has the saga; where the bus ended before a command was sent, by
# partition; whether the step may have had its effect though it failed.
SAGA_EVENT = "saga_event"
SAGA_STEP = "saga_step"
SAGA_ATTEMPT = "saga_attempt"
SAGA_OWNER = "saga_owner"
SAGA_ENDS = "saga_ends"
SAGA_DOUBT = "saga_doubt"
SAGA_STARTED = "saga_started"

# CloudEvents 1.0, Kafka protocol binding, binary mode.
CE_SPECVERSION = "ce_specversion"
CE_ID = "ce_id"
CE_TYPE = "ce_type"
CE_SOURCE = "ce_source"
CE_TIME = "ce_time"
CE_SUBJECT = "ce_subject"

# Of a record that was a row of an outbox: the row's id. Of one that was made of an event by a feed:
# group:topic:partition:offset of the event.
OUTBOX_ID = "outbox_id"
FED_FROM = "fed_from"

# Of an entry of an audit trail: the hash of the one before, and its own, in hexadecimal.
CHAIN_PREVIOUS = "chain_previous"
CHAIN_HASH = "chain_hash"

# Of a message to a room: what kind it is.
ROOM_EVENT = "event"

# Of an event of a store: which one of its stream it is, from 1 on. Of any event: the version of its
# type, if not 1.
STREAM_VERSION = "stream_version"
EVENT_VERSION = "event_version"

# Of a dead letter. The first six are KIP-1191's, the disposition KIP-1317's (a draft).
DLQ_PREFIX = "__dlq."
DLQ_TOPIC = "__dlq.errors.topic"
DLQ_PARTITION = "__dlq.errors.partition"
DLQ_OFFSET = "__dlq.errors.offset"
DLQ_GROUP = "__dlq.errors.group"
DLQ_ATTEMPTS = "__dlq.errors.delivery.count"
DLQ_MESSAGE = "__dlq.errors.message"
DLQ_DISPOSITION = "__dlq.errors.disposition"
DLQ_TIMESTAMP = "__dlq.errors.timestamp"
DLQ_TYPE = "__dlq.errors.type"
DLQ_HANDLER = "__dlq.errors.handler"

# Of the record that says what became of a letter: which one, and "replayed" or "discarded".
DLQ_MARK_OF = "__dlq.mark.of"
DLQ_MARK = "__dlq.mark"

# Of a letter that was sent again: for whom it is, which letter it was, how often that was done.
REPLAY_PREFIX = "__replay."
REPLAY_GROUP = "__replay.group"
REPLAY_HANDLER = "__replay.handler"
REPLAY_OF = "__replay.of"
REPLAY_COUNT = "__replay.count"

# Of a record that is parked: where it was, which handler failed on it and how often; and the start
# of the names of those of its own headers that these, or a queue's, could be taken for.
RETRY_PREFIX = "__retry."
RETRY_TOPIC = "__retry.topic"
RETRY_PARTITION = "__retry.partition"
RETRY_OFFSET = "__retry.offset"
RETRY_TIMESTAMP = "__retry.timestamp"
RETRY_HANDLER = "__retry.handler"
RETRY_ATTEMPTS = "__retry.attempts"
RETRY_KEPT = "__retry.kept."

# Of a message of a queue: when it may be delivered, when it is of no more use (ms since the epoch),
# how often it was delivered before it waited elsewhere; which delayed message a mark is of. No
# user's header may be taken for one of them.
QUEUE_PREFIX = "__queue."
DELIVER_AT = "__queue.deliver_at"
EXPIRES_AT = "__queue.expires_at"
DELIVERIES = "__queue.deliveries"
MOVED = "__queue.moved"

# Of what is told of a task: its name; "queued", "running", "retrying", "done" or "failed"; which
# attempt that was; how far it is, from 0 to 1, and what it said. Of a failure the ERROR_ ones, too.
TASK = "task"
TASK_STATE = "task_state"
TASK_ATTEMPT = "task_attempt"
TASK_PROGRESS = "task_progress"
TASK_MESSAGE = "task_message"

Headers = Iterable[tuple[str, bytes | None]]


def as_headers(given: "Mapping[str, object] | Headers | None") -> list[tuple[str, bytes | None]]:
    """A list of headers out of what a user gave: a dict or pairs, values bytes, str or None.

    Raises TypeError.

        >>> as_headers({"tenant": "eu", "trace": b"\\x00"})
        [('tenant', b'eu'), ('trace', b'\\x00')]
    """
    if given is None:
        return []
    try:
        pairs = [(name, value) for name, value in
                 (given.items() if isinstance(given, Mapping) else given)]
    except (TypeError, ValueError):
        raise TypeError(f"headers must be a dict or pairs of a name and a value, not "
                        f"{type(given).__name__}") from None
    found: list[tuple[str, bytes | None]] = []
    for name, value in pairs:
        if not isinstance(name, str):
            raise TypeError(f"the name of a header must be a str, not {type(name).__name__}")
        if value is not None and not isinstance(value, str | bytes):
            raise TypeError(f"the value of the header {name!r} must be bytes, str or None, not "
                            f"{type(value).__name__}")
        found.append((name, value.encode() if isinstance(value, str) else value))
    return found


def to_key(key: Any) -> Any:
    """The bytes of a key: a str is UTF-8, all else is as it is."""
    return key.encode() if isinstance(key, str) else key


def text_of(value: bytes | None, default: str = "") -> str:
    """The text of a header's value, whatever bytes somebody may have put there."""
    return default if value is None else value.decode("utf-8", "replace")


def number_of(value: bytes | None, default: int = -1) -> int:
    """The number of a header's value; `default` where that is none."""
    try:
        return default if value is None or len(value) > 20 else int(value)
    except ValueError:
        return default


def to_value(text: object) -> bytes:
    """The value of a header: any text, half a surrogate pair too."""
    return str(text).encode("utf-8", "replace")
