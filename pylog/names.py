"""The names of a log's files, ours and those that Kafka adds: which belong to a log at all.

And of the one file that says of a directory that it is a broker.
"""

import re

SEGMENT_NAME = re.compile(r"[0-9]{20}\.log")
INDEX_NAME = re.compile(r"([0-9]{20})\.(index|timeindex)")
CUT_NAME = re.compile(r"[0-9]{20}\.log\.cut-[0-9]+")
KAFKA_NAME = re.compile(r"[0-9]{20}\.(snapshot|txnindex)|partition\.metadata")
META_NAME = "log.meta"
STORE_NAME = "metadata.db"
OWN_NAMES = {"lock", META_NAME, "leader-epoch-checkpoint", "control", "doorbells",
             "segment.prepared"}


def segment_name(base: int) -> str:
    """The file whose first offset is `base`."""
    return f"{base:020}.log"


def is_segment(name: str) -> bool:
    """Twenty digits that are an offset, and .log."""
    return bool(SEGMENT_NAME.fullmatch(name)) and int(name[:20]) < 1 << 63


def is_log_file(name: str) -> bool:
    """Whether a file of this name may be there because of the log."""
    plain = name.removesuffix(".tmp")
    return plain in OWN_NAMES or is_segment(name) or bool(
        INDEX_NAME.fullmatch(plain) or KAFKA_NAME.fullmatch(name) or CUT_NAME.fullmatch(plain))
