"""What is kept of an event store's index, so that who opens the store need not look at all events.

The topic `<name>.index` has a record for each run of 10,000 offsets of a partition: whose events
were in it. Who opens the store and finds a run without a record makes one; it is true for ever.

    key     "0:20000": the partition, and the first offset of the run
    value   {"order-42": [3, 17, 250], ...}: at the run's beginning the stream had three events, and
            those at the offsets 20017 and 20250 came to it
    header  topic_id: of the topic that it tells of

All of it can be lost: what is missing, or does not fit, is read from the events again.
"""

import json
import logging
from typing import Any

from pylog import Broker, PylogError, Record

logger = logging.getLogger("pylog.patterns")

RUN = 10_000
TOPIC_ID = "topic_id"
CONFIGS = {"retention.ms": -1, "max.message.bytes": 16 << 20}

Run = dict[str, list[int]]


class IndexRuns:
    """Those of a store. name: of its topic."""

    def __init__(self, broker: Broker, name: str) -> None:
        self.topic = f"{name}.index"
        self._broker = broker
        self._topic_id = str(broker.topic(name).topic_id).encode()

    def load(self) -> dict[bytes, Record]:
        """The records by key, of the topic that is there now."""
        if self.topic not in self._broker.topics():
            return {}
        try:
            return {record.key: record for record in self._broker.read(self.topic)
                    if record.key is not None and record.header(TOPIC_ID) == self._topic_id}
        except PylogError as error:
            logger.warning("%s cannot be read, and the events are instead: %s", self.topic, error)
            return {}

    def save(self, partition: int, start: int, run: Run) -> None:
        """Notes a run. One that cannot be noted is not, and will be read from the events."""
        try:
            self._broker.create_topic(self.topic, 1, CONFIGS, exist_ok=True)
            self._broker.append(self.topic, json.dumps(run, separators=(",", ":")).encode(),
                                run_key(partition, start), [(TOPIC_ID, self._topic_id)])
        except PylogError as error:
            logger.warning("%s: the run from offset %d on was not noted: %s", self.topic, start,
                           error)


def run_key(partition: int, start: int) -> bytes:
    return b"%d:%d" % (partition, start)


def run_of(record: Record) -> Run:
    """Raises ValueError for what is none."""
    found: Any = json.loads(record.value or b"")
    if not isinstance(found, dict) or not found:
        raise ValueError("it is no run")
    for entry in found.values():
        if not isinstance(entry, list) or len(entry) < 2 or \
                not all(type(one) is int and one >= 0 for one in entry):
            raise ValueError(f"{entry!r:.60} is no entry of a stream")
    return found
