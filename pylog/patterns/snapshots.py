"""Snapshots: states that streams were folded to, so that a fold need not begin at the first event.

The topic `<name>.snapshots` has a record for each that was taken.

    key      the stream
    value    the state, as `state=` of the fold makes bytes of it
    headers  stream_version, ce_id: of its last event, which shows that it is of this stream still
             fold: which fold made it, and what version of that

All of it can be lost: a state that is missing is folded anew, from the events. A snapshot is of no
more use once there is a later one; to free its room, delete the topic.
"""

import logging
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any, NamedTuple

from pylog import Broker, ConfigurationError, PylogError, Record, SerdeError, SerializationError
from pylog.patterns.events import check_version
from pylog.patterns.headers import CE_ID, STREAM_VERSION, number_of, text_of
from pylog.patterns.state import State
from pylog.patterns.values import Codec

logger = logging.getLogger("pylog.patterns")

FOLD = "fold"


class Snapshot(NamedTuple):
    """A state, the version of the last event that is in it, and the id of that."""

    state: Any
    version: int
    event_id: bytes


class Snapshots:
    """Those of a store, the same in all processes. name: of the store's topic."""

    def __init__(self, broker: Broker, name: str) -> None:
        self._broker = broker
        self._places = State(broker, f"{name}.snapshots", _place)

    def latest(self, stream: bytes, fold: str, codec: Codec) -> Snapshot | None:
        """The latest of a stream, made by this fold; None: there is none that can be read."""
        places: Mapping[str, tuple[int, int]] = self._places.current().get(stream, {})
        if fold not in places:
            return None
        try:
            record = self._broker.log(self._places.topic).get(places[fold][1])
            state = record.value if codec.deserialize is None else codec.deserialize(record)
            return Snapshot(state, places[fold][0], record.header(CE_ID))
        except (PylogError, OverflowError) as error:
            logger.warning("a snapshot of %r cannot be used: %s", stream, error)
            return None

    def save(self, stream: bytes, fold: str, codec: Codec, snapshot: Snapshot) -> None:
        """Raises SerializationError for a state that would be another when it is read."""
        topic, (state, version, event_id) = self._places.topic, snapshot
        data = state if codec.serialize is None else codec.serialize(topic, None, state)
        _check_same(state, data, codec, topic)
        try:
            self._broker.append(topic, data, stream, [
                (STREAM_VERSION, b"%d" % version), (CE_ID, event_id), (FOLD, fold.encode())])
        except PylogError as error:
            logger.warning("no snapshot of %r was taken: %s", stream, error)


def name_of_fold(apply: Callable[..., Any], name: str | None, version: int) -> str:
    """What tells the snapshots of a fold from those of others. Raises ConfigurationError."""
    if name is None:
        name = f"{getattr(apply, '__module__', '')}.{getattr(apply, '__qualname__', '<')}"
        if "<" in name.replace("<locals>", ""):
            raise ConfigurationError(
                f"{apply!r} has no name of its own to keep snapshots under; pass fold_name=",
                option="fold_name", value=name)
    return f"{name}/{check_version(version)}"


def _place(places: Mapping[str, tuple[int, int]] | None, record: Record
           ) -> Mapping[str, tuple[int, int]]:
    """By fold: version and offset of its latest."""
    fold, version = text_of(record.header(FOLD)), number_of(record.header(STREAM_VERSION))
    if not fold or version < 1 or record.header(CE_ID) is None:
        raise ValueError("it is no snapshot")
    known = places or {}
    if known.get(fold, (0, 0))[0] >= version:
        return known
    return {**known, fold: (version, record.offset)}


def _check_same(state: Any, data: Any, codec: Codec, topic: str) -> None:
    """JSON makes lists of tuples, and str of the keys of a dict: a fold would go on with another
    state than the one that it left."""
    if codec.deserialize is None:
        return
    record = SimpleNamespace(topic=topic, partition=0, offset=-1, headers=(), key=None, value=data)
    try:
        again = codec.deserialize(record)
    except SerdeError as error:
        again = error
    if again != state:
        raise SerializationError(
            f"the state {state!r:.80} would be {again!r:.80} when it is read; let state= say what "
            "it is (the class of a dataclass, say), or make states of dicts, lists, str, numbers",
            topic=topic, field="value")
