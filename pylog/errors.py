"""Every exception that pylog raises of its own accord: one tree, under `PylogError`.

The number is `code`: Kafka's error code where Kafka has one for the same thing, else one of ours
from -101 down. `+ X` is the built-in that the class also is, so `except OSError` and the like work
as usual. `retriable` marks what may go well when the same call is made again later, unchanged.

    PylogError                                        -1
    ├── ConfigurationError + ValueError               40
    ├── IllegalStateError                           -101
    │   ├── ClosedError                             -102
    │   └── ConcurrentModificationError             -123
    ├── NotSupportedError                           -103
    ├── LogError                                      56
    │   ├── CorruptRecordError                         2
    │   ├── DiskFullError + OSError                 -104  retriable
    │   ├── UnsupportedFormatError                  -105
    │   ├── DurabilityError + OSError               -106
    │   ├── ReadOnlyLogError                        -107
    │   ├── UnsupportedFilesystemError              -108
    │   ├── UnsupportedEnvironmentError             -109
    │   ├── UnsupportedCodecError                     76
    │   ├── ResourceLimitError + OSError            -110  retriable
    │   ├── InvalidTimestampError + ValueError        32
    │   └── MessageSizeTooLargeError + ValueError     10
    ├── OffsetError                                 -111
    │   ├── OffsetOutOfRangeError + LookupError        1
    │   ├── NoOffsetForPartitionError + LookupError -121
    │   ├── WrongEndOffsetError                     -112
    │   ├── OffsetMetadataTooLargeError + ValueError  12
    │   └── RecordNotFoundError + LookupError       -113
    ├── TopicError                                  -114
    │   ├── UnknownTopicOrPartitionError + KeyError    3
    │   ├── TopicAlreadyExistsError                   36
    │   ├── InvalidTopicError + ValueError            17
    │   ├── InvalidPartitionsError + ValueError       37
    │   └── InvalidConfigError + ValueError         -115
    ├── GroupError                                  -130
    │   ├── InvalidGroupIdError + ValueError          24
    │   ├── GroupIdNotFoundError + KeyError           69
    │   ├── NonEmptyGroupError                        68
    │   ├── InconsistentGroupProtocolError            23
    │   ├── UnknownMemberIdError                      25
    │   ├── FencedInstanceIdError                     82
    │   ├── CommitFailedError                       -131
    │   └── InvalidRecordStateError                  121
    ├── MetadataError                               -116
    │   └── CorruptMetadataError                    -117
    ├── SerdeError + ValueError                     -118
    │   ├── SerializationError                      -119
    │   ├── DeserializationError                    -120
    │   └── ValidationError                         -150
    ├── SchemaError                                 -151
    │   ├── IncompatibleSchemaError + ValueError    -152
    │   └── UnknownSchemaError + KeyError           -153
    ├── IdempotencyError                            -140
    │   ├── KeyInProgressError + TimeoutError       -141  retriable
    │   ├── FingerprintMismatchError + ValueError   -142
    │   └── ClaimLostError                          -143
    ├── SagaError                                   -170
    │   ├── SagaFailedError                         -171
    │   └── UnknownSagaError + KeyError             -172
    ├── TerminalError                               -173
    ├── RemoteError                                 -160
    ├── TaskError                                   -190
    │   ├── TaskFailedError                         -191
    │   ├── UnknownTaskError + LookupError          -192
    │   ├── TaskTimeoutError + TimeoutError         -193
    │   └── WorkerLostError                         -194
    ├── WrongExpectedVersionError                   -180
    ├── ProjectionError                             -200
    ├── WakeupError                                 -122
    └── PylogTimeoutError + TimeoutError               7  retriable
        └── RequestTimeoutError                     -161  retriable

The details of a failure are attributes (`error.path`, `error.position`), described at each class;
one that is not known is None. A message ends with what to do next. All of them pickle and copy
whole, so they cross processes. A value of the wrong type is Python's own TypeError.
"""

import errno as errno_codes
import os
from typing import Any, ClassVar

__all__ = [
    "ClaimLostError", "ClosedError", "CommitFailedError", "ConcurrentModificationError",
    "ConfigurationError", "CorruptMetadataError", "CorruptRecordError", "DeserializationError",
    "DiskFullError", "DurabilityError", "FencedInstanceIdError", "FingerprintMismatchError",
    "GroupError", "GroupIdNotFoundError", "IdempotencyError", "IllegalStateError",
    "IncompatibleSchemaError", "InconsistentGroupProtocolError", "InvalidConfigError",
    "InvalidGroupIdError", "InvalidPartitionsError", "InvalidRecordStateError",
    "InvalidTimestampError", "InvalidTopicError", "KeyInProgressError", "LogError",
    "MessageSizeTooLargeError", "MetadataError", "NoOffsetForPartitionError",
    "NonEmptyGroupError", "NotSupportedError", "OffsetError", "OffsetMetadataTooLargeError",
    "OffsetOutOfRangeError", "ProjectionError",
    "PylogError", "PylogTimeoutError", "ReadOnlyLogError",
    "RecordNotFoundError", "RemoteError", "RequestTimeoutError", "ResourceLimitError",
    "SagaError", "SagaFailedError", "SchemaError", "SerdeError", "SerializationError", "TaskError",
    "TaskFailedError", "TaskTimeoutError", "TerminalError", "TopicAlreadyExistsError",
    "TopicError", "UnknownMemberIdError", "UnknownSagaError", "UnknownSchemaError",
    "UnknownTaskError", "UnknownTopicOrPartitionError",
    "UnsupportedCodecError", "UnsupportedEnvironmentError", "UnsupportedFilesystemError",
    "UnsupportedFormatError", "ValidationError", "WakeupError", "WorkerLostError",
    "WrongEndOffsetError", "WrongExpectedVersionError",
]


class PylogError(Exception):
    """The base of all: `except PylogError` catches what pylog raises, and nothing else.

    path: the file or directory concerned. errno: of the system call that failed. appended: how
    many records of a list are in, where a call that appends many failed.

        >>> error = PylogError("the log is gone: create it anew", path="data/orders")
        >>> error.path, error.errno, error.retriable
        ('data/orders', None, False)
    """

    code: ClassVar[int] = -1
    retriable: ClassVar[bool] = False

    path: str | None = None
    errno: int | None = None
    appended: int | None = None

    def __init__(self, message: str, **context: Any) -> None:
        """message: what happened, with the numbers, then what to do. context: the attributes."""
        super().__init__(message)
        for name, value in context.items():
            setattr(self, name, value)
        error: PylogError = self
        if isinstance(error, OSError):
            error.filename = error.path
            error.strerror = None if error.errno is None else os.strerror(error.errno)

    def __str__(self) -> str:
        return str(self.args[0])    # OSError's own form would hide the message behind strerror

    def __repr__(self) -> str:
        details = "".join(
            f", {name}={value!r}" for name, value in vars(self).items() if name != "__notes__"
        )
        return f"{type(self).__name__}({self.args[0]!r}{details})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.args[0], vars(self).copy())


def _rebuild(kind: type[PylogError], message: str, attributes: dict[str, Any]) -> PylogError:
    """What unpickling and copying call; the attributes include the notes of `add_note`."""
    return kind(message, **attributes)


class ConfigurationError(PylogError, ValueError):
    """An option is impossible, or contradicts another or what the log was created with.

    option: its name. value: what was given. stored: what the log has, where the two conflict.
    """

    code = 40
    option: str | None = None
    value: Any = None
    stored: Any = None


class IllegalStateError(PylogError):
    """The call does not fit the state of the object, as after a fork: open it again."""

    code = -101


class ClosedError(IllegalStateError):
    """The object was closed before the call. Views handed out earlier stay valid."""

    code = -102


class ConcurrentModificationError(IllegalStateError):
    """A consumer is being used by another thread, or by its own callback. Nothing was changed."""

    code = -123


class NotSupportedError(PylogError):
    """What was asked for cannot be done here; the message names the alternative."""

    code = -103


class LogError(PylogError):
    """The log or its files. Raised itself where a system call failed for no reason named below.

    position: the byte in `path`. offset: the record. Both where they are known.
    """

    code = 56
    position: int | None = None
    offset: int | None = None


class CorruptRecordError(LogError):
    """Stored bytes are not what was written. None of them is handed out; the rest stays readable.

    path, position, offset: where the damage starts. valid_batches: how many whole batches follow
    it in the same file.
    """

    code = 2
    valid_batches: int | None = None


class DiskFullError(LogError, OSError):
    """No room for the record. Nothing of it was written; appends work again once there is space.
    Of a list, a first part may be in: `appended`.

    needed_bytes: what was to be reserved. errno: ENOSPC or EDQUOT.
    """

    code = -104
    retriable = True
    errno: int | None = errno_codes.ENOSPC
    needed_bytes: int | None = None


class UnsupportedFormatError(LogError):
    """A newer pylog wrote these files, or they are not a log at all. They were left untouched.

    found: the version or the magic bytes met. supported: what this version reads.
    """

    code = -105
    found: Any = None
    supported: Any = None


class DurabilityError(LogError, OSError):
    """The disk refused to store what was appended; the log takes no more until it is reopened.

    Records before `durable_offset` are safe, later ones may be lost in a power cut. A flush is
    never tried again into a success: the page cache lies after such a failure. errno: of the flush.
    """

    code = -106
    errno: int | None = errno_codes.EIO
    durable_offset: int | None = None


class ReadOnlyLogError(LogError):
    """An append, a flush or a deletion on a log opened for reading, or made read-only since."""

    code = -107


class UnsupportedFilesystemError(LogError):
    """The directory lies on a file system whose mappings cannot be trusted with a log.

    filesystem: its name, or its magic number in hexadecimal.
    """

    code = -108
    filesystem: str | None = None


class UnsupportedEnvironmentError(LogError):
    """The kernel is too old, or the log is in use from another PID namespace or boot.

    found, required: what is here and what it would have to be: the kernel's release, the inode of
    /proc/self/ns/pid (the log's is `required`), the owner or the mode of the directory.
    """

    code = -109
    found: Any = None
    required: Any = None


class UnsupportedCodecError(LogError):
    """A batch is compressed with a codec that this version does not know; others are readable.

    codec: its name, or its number in the batch's attributes. next_offset: of the first record
    behind the batch, from where reading goes on; on_corruption="skip" does not step over it, for
    nothing in it is damaged.
    """

    code = 76
    codec: str | int | None = None
    next_offset: int | None = None


class ResourceLimitError(LogError, OSError):
    """The system ran out of descriptors, mappings or memory for this process. Nothing was lost.

    limit: which one, as in `ulimit -a`. errno: EMFILE, ENFILE or ENOMEM.
    """

    code = -110
    retriable = True
    errno: int | None = errno_codes.EMFILE
    limit: str | None = None


class InvalidTimestampError(LogError, ValueError):
    """A timestamp is negative or beyond what a batch can hold. Nothing was appended.

    timestamp: milliseconds since the epoch, as given. index: its place in the list, if in one.
    """

    code = 32
    timestamp: int | None = None
    index: int | None = None


class MessageSizeTooLargeError(LogError, ValueError):
    """A record, or a batch that must stay whole, exceeds `max_message_bytes`. Nothing was appended.

    size: its bytes as encoded. max_message_bytes: the log's limit. index: its place in the list.
    """

    code = 10
    size: int | None = None
    max_message_bytes: int | None = None
    index: int | None = None


class OffsetError(PylogError):
    """An offset is not where the call needs it. offset: the one asked for."""

    code = -111
    offset: int | None = None


class OffsetOutOfRangeError(OffsetError, LookupError):
    """The offset lies before the first record or after the end.

    start_offset, end_offset: the range at the time of the call, its end excluded.
    """

    code = 1
    start_offset: int | None = None
    end_offset: int | None = None


class WrongEndOffsetError(OffsetError):
    """An `if_end=` append came second: the log ends elsewhere. Nothing was appended.

    offset: the end that was expected. end_offset: the end there is. Read what came between, decide
    again, and append with the new end; the same call made again would fail again.
    """

    code = -112
    end_offset: int | None = None


class RecordNotFoundError(OffsetError, LookupError):
    """No record has this offset, though others lie around it: recovery skips what a cut destroyed.

    next_offset: the first one after it that exists.
    """

    code = -113
    next_offset: int | None = None


class OffsetMetadataTooLargeError(OffsetError, ValueError):
    """The note of a commit is too long. size, limit: bytes of UTF-8. Nothing was committed."""

    code = 12
    size: int | None = None
    limit: int | None = None


class NoOffsetForPartitionError(OffsetError, LookupError):
    """Nobody has said where to read, with auto_offset_reset="none": nothing was committed.

    topic, partition: of which.
    """

    code = -121
    topic: str | None = None
    partition: int | None = None


class TopicError(PylogError):
    """A topic is not what the call needs. topic: its name. Nothing was changed."""

    code = -114
    topic: str | None = None


class UnknownTopicOrPartitionError(TopicError, KeyError):
    """There is no such topic, or it has no such partition; it may have been deleted meanwhile.

    partition: the number asked for, where the topic is there.
    """

    code = 3
    partition: int | None = None


class TopicAlreadyExistsError(TopicError):
    """A topic of this name is there already, with partitions and configs of its own."""

    code = 36


class InvalidTopicError(TopicError, ValueError):
    """A name that Kafka does not allow, or one too like another's. collides_with: that other."""

    code = 17
    collides_with: str | None = None


class InvalidPartitionsError(TopicError, ValueError):
    """A topic cannot have that many partitions. partitions: as asked. present: as there are."""

    code = 37
    partitions: int | None = None
    present: int | None = None


class InvalidConfigError(TopicError, ValueError):
    """A topic config is unknown, impossible, or makes no sense on one machine.

    config: its name in Kafka. value: what was given. Kafka's code is 40, ConfigurationError's here.
    """

    code = -115
    config: str | None = None
    value: Any = None


class GroupError(PylogError):
    """A consumer group is not what the call needs. group: its id."""

    code = -130
    group: str | None = None


class InvalidGroupIdError(GroupError, ValueError):
    """A group cannot be called that."""

    code = 24


class GroupIdNotFoundError(GroupError, KeyError):
    """There is no group of this id: nobody was ever in it, or it was deleted."""

    code = 69


class NonEmptyGroupError(GroupError):
    """The group has members, and what was asked is for one that has none.

    members: how many, where it is known.
    """

    code = 68
    members: int | None = None


class InconsistentGroupProtocolError(GroupError):
    """The members of a group have agreed on another way of assignment. agreed: theirs."""

    code = 23
    agreed: str | None = None


class UnknownMemberIdError(GroupError):
    """The consumer is no member of the group any more; the next poll joins again.

    It was stopped for longer than its session_timeout_ms, or removed by an administrator.
    """

    code = 25


class FencedInstanceIdError(GroupError):
    """Another consumer has come with the same group_instance_id; this one is done.

    instance: the id that both have.
    """

    code = 82
    instance: str | None = None


class CommitFailedError(GroupError):
    """A partition is not the consumer's, so nothing was committed for it.

    partitions: those refused. Another member has them, and reads on from what was committed last.
    """

    code = -131
    partitions: Any = None


class InvalidRecordStateError(GroupError):
    """A delivery was settled twice, or its time was over: nothing was changed.

    offset: of its record. Kafka's error of share groups (KIP-932).
    """

    code = 121
    offset: Any = None


class MetadataError(PylogError):
    """The store of what exists, DATA/metadata.db, cannot be read or written. The logs are fine.

    errno: of the system call that failed, where it was one.
    """

    code = -116


class CorruptMetadataError(MetadataError):
    """The store is damaged or cut short; it was left as it is. The logs do not depend on it.

    `Metadata.rebuild(path)` sets it aside and makes a new one from the directories of the logs.
    """

    code = -117


class SerdeError(PylogError, ValueError):
    """A key or value did not fit its serializer or deserializer; the cause is what that raised.

    topic: its name. field: "key" or "value".
    """

    code = -118
    topic: str | None = None
    field: str | None = None


class SerializationError(SerdeError):
    """No bytes could be made of a key or value. Nothing was appended."""

    code = -119


class DeserializationError(SerdeError):
    """The bytes of a key or value are not what the deserializer reads; the record is whole.

    partition, offset: its place. record: the record itself, with the bytes.
    """

    code = -120
    partition: int | None = None
    offset: int | None = None
    record: Any = None


class ValidationError(SerdeError):
    """A value is not of the type that its topic has; nothing was appended, or the record is whole.

    errors: [(path, message)] of each field that is wrong, as "items[0].quantity". partition,
    offset, record: of one that was read.
    """

    code = -150
    errors: list[tuple[str, str]] | None = None
    partition: int | None = None
    offset: int | None = None
    record: Any = None


class SchemaError(PylogError):
    """A schema in the registry is not what the call needs. subject: whose."""

    code = -151
    subject: str | None = None


class IncompatibleSchemaError(SchemaError, ValueError):
    """The new version of a schema would not go with the one before. Nothing was registered.

    reasons: what does not, one by one, each with path, rule and message.
    """

    code = -152
    reasons: Any = None


class UnknownSchemaError(SchemaError, KeyError):
    """There is no schema of this subject, version or id."""

    code = -153


class IdempotencyError(PylogError):
    """A key of idempotent processing is not what the call needs. key: it, as bytes."""

    code = -140
    key: bytes | None = None


class KeyInProgressError(IdempotencyError, TimeoutError):
    """Another is at what this key stands for, and lives. Nothing was done: come again later.

    holder_pid: its process. errno: ETIMEDOUT.
    """

    code = -141
    retriable = True
    errno: int | None = errno_codes.ETIMEDOUT
    holder_pid: int | None = None


class FingerprintMismatchError(IdempotencyError, ValueError):
    """The key was used before, for something with another fingerprint. Nothing was done."""

    code = -142


class ClaimLostError(IdempotencyError):
    """The claim of a key was over before its result was saved. Nothing was recorded."""

    code = -143


class SagaError(PylogError):
    """A saga is not what the call needs. saga: its id."""

    code = -170
    saga: str | None = None


class SagaFailedError(SagaError):
    """A saga did not come to its end: a step failed for good.

    step: which. reason: why, by type and in words. compensated: all that was done is undone; False:
    it is parked, as a compensation failed as well, and waits for `retry(id)`.
    """

    code = -171
    step: str | None = None
    reason: str | None = None
    compensated: bool | None = None


class UnknownSagaError(SagaError, KeyError):
    """There is no saga of this id: nobody has submitted it, or it was forgotten by its ttl."""

    code = -172


class TerminalError(PylogError):
    """To be raised by who knows that no other attempt would mend it: a card that is refused.

    The record of a handler, or the task, is a dead letter at once. Of a step of a saga: what was
    done before it is compensated at once. Of a compensation: the saga is parked at once.
    """

    code = -173


class RemoteError(PylogError):
    """The handler of a request raised, or what it returned was no reply. It has been called.

    topic: of the request. type, reason: what it raised, by name and in words.
    """

    code = -160
    topic: str | None = None
    type: str | None = None
    reason: str | None = None


class WrongExpectedVersionError(PylogError):
    """The stream is not where the caller took it to be. Nothing was appended: read on, decide anew.

    stream: its name. expected: what was asked for. actual: its version, 0 where there is none.
    """

    code = -180
    stream: str | None = None
    expected: Any = None
    actual: int | None = None


class TaskError(PylogError):
    """A task is not what its sender or its worker needs. task: its name. task_id: its id."""

    code = -190
    task: str | None = None
    task_id: str | None = None


class TaskFailedError(TaskError):
    """A task whose result was asked for has failed for good; its message is a dead letter.

    type, reason: what it raised, by name and in words. attempts: how often it was begun.
    """

    code = -191
    type: str | None = None
    reason: str | None = None
    attempts: int | None = None


class UnknownTaskError(TaskError, LookupError):
    """A worker got a task by a name that its app does not have."""

    code = -192


class TaskTimeoutError(TaskError, TimeoutError):
    """Raised within a task that is at work for longer than its time-out.

    errno: ETIMEDOUT.
    """

    code = -193
    errno: int | None = errno_codes.ETIMEDOUT


class WorkerLostError(TaskError):
    """A task was begun again and again, and each worker that had it died or was stuck."""

    code = -194


class ProjectionError(PylogError):
    """A projection has stopped at a record that it cannot put into its view. All before is there.

    projection: its name. topic, partition, offset: of the record. The cause is what was raised.
    """

    code = -200
    projection: str | None = None
    topic: str | None = None
    partition: int | None = None
    offset: int | None = None


class WakeupError(PylogError):
    """Another thread called `wakeup()` to end the wait of this one. Nothing was lost: ask again."""

    code = -122


class PylogTimeoutError(PylogError, TimeoutError):
    """A wait ended without its event; nothing was changed.

    timeout_ms: how long it waited. holder_pid: the process that holds the lock, if it was one.
    """

    code = 7
    retriable = True
    errno: int | None = errno_codes.ETIMEDOUT
    timeout_ms: int | None = None
    holder_pid: int | None = None


class RequestTimeoutError(PylogTimeoutError):
    """No reply came in time. The request may have been served all the same, or be in work.

    topic: of the request. correlation_id: of the reply that did not come.
    """

    code = -161
    topic: str | None = None
    correlation_id: str | None = None
