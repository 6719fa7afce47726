"""Tenant: what works in a broker, its user's or its own, and the topic that it works on."""

import os
from typing import Self

from pylog import Broker, ClosedError, ConfigurationError
from pylog.patterns.retry import check_count
from pylog.patterns.unpicklable import Unpicklable


class Tenant(Unpicklable):
    """A context manager that closes its broker if it has opened it.

    broker: a Broker, or the path of one, which is opened here then.
    """

    def __init__(self, broker: Broker | str | os.PathLike[str]) -> None:
        self._broker, self._is_owner = Broker.of(broker)
        self._is_closed = False

    def _check_open(self) -> None:
        if self._is_closed:
            raise ClosedError(f"{self!r} is closed; make another")

    def close(self) -> None:
        """Ends its use, and closes the broker if it was opened here; idempotent."""
        self._is_closed = True
        if self._is_owner:
            self._broker.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def make_topic(broker: Broker, name: str, num_partitions: int | None) -> None:
    """Makes the topic if need be.

    num_partitions: None: 1, if it is made here. Raises ConfigurationError where it has fewer, lest
    who asked for order among seven wait behind three; more may have been added meanwhile.
    UnknownTopicOrPartitionError where the broker makes none by their use.
    """
    count = 1 if num_partitions is None else check_count("num_partitions", num_partitions)
    if broker.auto_create_topics:
        found = broker.create_topic(name, count, exist_ok=True)
    else:
        found = broker.topic(name)    # says that it is missing
    if found.partitions < count:
        raise ConfigurationError(
            f"num_partitions={count}, and the topic {name!r} has {found.partitions}; leave it "
            f"out, or add some: `pylog topic add-partitions {name} {count}`",
            option="num_partitions", value=count)
