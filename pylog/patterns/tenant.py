"""Tenant: what works in a broker, its user's or its own."""

import os
from typing import Self

from pylog import Broker


class Tenant:
    """A context manager that closes its broker if it has opened it.

    broker: a Broker, or the path of one, which is opened here then.
    """

    def __init__(self, broker: Broker | str | os.PathLike[str]) -> None:
        self._broker, self._is_owner = Broker.of(broker)

    def close(self) -> None:
        """Closes the broker if it was opened here; idempotent."""
        if self._is_owner:
            self._broker.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
