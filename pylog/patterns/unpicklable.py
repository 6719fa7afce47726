"""Unpicklable: what a user opens, and is of use only in the process that did."""

from typing import Any


class Unpicklable:
    """Neither pickled nor copied: it has threads, locks and an open broker."""

    def __reduce__(self) -> Any:
        raise TypeError(f"{self!r} cannot be pickled or copied; pass the path of its broker, and "
                        "make one in the other process")
