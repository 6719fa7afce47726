"""What comes behind a position in a topic, by partition and by type."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pylog import ConfigurationError, Log, Record
from pylog.patterns.events import Event
from pylog.patterns.headers import CE_TYPE, text_of

TYPES_MAX = 4096    # that are remembered: somebody may have made ids a part of them


def starts_behind(position: Any, logs: list[Log]) -> dict[int, int]:
    """The offset to begin at, by partition: see `EventStore.subscribe`.

    Raises ConfigurationError, TypeError.
    """
    if position is None:
        return {}
    if position == "latest":
        return {number: log.end_offset for number, log in enumerate(logs)}
    if isinstance(position, Event):
        position = position.record
    if hasattr(position, "partition") and hasattr(position, "offset"):
        position = {position.partition: position.offset} if len(logs) == 1 else position.offset
    if isinstance(position, int) and not isinstance(position, bool):
        if len(logs) > 1:
            raise ConfigurationError(
                f"after= names one place, and there are {len(logs)} partitions; say where each "
                "begins, {partition: offset}", option="after", value=position)
        position = {0: position}
    if not isinstance(position, Mapping):
        raise TypeError("after must be a position: what append returned, an event, an offset, "
                        f"{{partition: offset}}, 'latest' or None, not {position!r}")
    for partition, offset in position.items():
        if partition not in range(len(logs)) or not isinstance(offset, int) or offset < -1:
            raise ConfigurationError(
                f"after= has {partition!r}: {offset!r}, and that is no place; partitions are 0 to "
                f"{len(logs) - 1}, offsets from 0 on", option="after", value=position)
    return {number: offset + 1 for number, offset in position.items()}


def of_types(records: Iterator[Record], matchers: list[Callable[[str], bool]]) -> Iterator[Record]:
    """The events among them whose type one of the matchers means, looked up once a type."""
    known: dict[bytes | None, bool] = {None: False}
    for record in records:
        kind = record.header(CE_TYPE)
        wanted = known.get(kind)
        if wanted is None:
            if len(known) > TYPES_MAX:
                known = {None: False}
            text = text_of(kind)
            known[kind] = wanted = any(matches(text) for matches in matchers)
        if wanted:
            yield record
