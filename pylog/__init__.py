"""pylog: Kafka's log as a Python library.

A directory that any number of processes open at once, append to at memory speed, and read straight
from the page cache, in Kafka's own bytes.

    >>> import pylog, tempfile
    >>> log = pylog.Log(tempfile.mkdtemp(dir="."))
    >>> log.append(b"an event")
    0
    >>> log.get(0).value
    b'an event'
    >>> log.close()
"""

from pylog._native import Chunk, Cursor, Delivery, Record, SendFuture
from pylog.admin import Admin
from pylog.aio_consumer import AsyncConsumer
from pylog.aio_producer import AsyncProducer
from pylog.aio_share_consumer import AsyncShareConsumer
from pylog.broker import Broker
from pylog.check import Finding, Report, check
from pylog.claim import Claim, ClaimEntry
from pylog.consumer import Consumer
from pylog.errors import *  # noqa: F403
from pylog.errors import __all__ as _error_names
from pylog.group_admin import GroupOffset, OffsetReset
from pylog.log import Log, Recovered
from pylog.metadata_file import TopicEntry
from pylog.producer import Producer
from pylog.report import SegmentFigures
from pylog.serde import TypedRecord, make_deserializer, make_serializer
from pylog.share_admin import ShareGroupOffset
from pylog.share_consumer import AcknowledgeType, ShareConsumer
from pylog.topic import (
    BatchMetadata,
    ConsumerGroupMetadata,
    OffsetAndMetadata,
    OffsetAndTimestamp,
    RecordMetadata,
    TopicPartition,
)

__version__ = "0.1.0"

__all__ = [
    "AcknowledgeType",
    "Admin",
    "AsyncConsumer",
    "AsyncProducer",
    "AsyncShareConsumer",
    "BatchMetadata",
    "Broker",
    "Chunk",
    "Claim",
    "ClaimEntry",
    "Consumer",
    "ConsumerGroupMetadata",
    "Cursor",
    "Delivery",
    "Finding",
    "GroupOffset",
    "Log",
    "OffsetAndMetadata",
    "OffsetAndTimestamp",
    "OffsetReset",
    "Producer",
    "Record",
    "RecordMetadata",
    "Recovered",
    "Report",
    "SegmentFigures",
    "SendFuture",
    "ShareConsumer",
    "ShareGroupOffset",
    "TopicEntry",
    "TopicPartition",
    "TypedRecord",
    "check",
    "make_deserializer",
    "make_serializer",
]
__all__ += _error_names
