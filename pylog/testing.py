"""For tests of programs that use pylog: a broker in a temporary directory, a clock, an end.

    pytest_plugins = ["pylog.testing"]      # in conftest.py: gives the fixture `broker`
"""

from collections.abc import Iterator
from pathlib import Path

from pylog._native import Record
from pylog.broker import Broker

try:
    import pytest
except ModuleNotFoundError:    # VirtualClock and drain need none
    pass
else:
    @pytest.fixture
    def broker(tmp_path: Path) -> Iterator[Broker]:
        """A broker of this test's own, closed afterwards."""
        with Broker(tmp_path / "broker") as broker:
            yield broker


class VirtualClock:
    """A time that stands still until it is told to go on.

        >>> clock = VirtualClock(1_000)
        >>> clock.advance(days=7)
        >>> clock.now_ms
        604801000

    For `timestamp=clock.now_ms` of what is appended, and `broker.maintain(clock.now_ms)`.
    """

    def __init__(self, now_ms: int = 1_700_000_000_000) -> None:
        self.now_ms = now_ms

    def advance(self, *, days: float = 0, hours: float = 0, minutes: float = 0,
                seconds: float = 0, ms: int = 0) -> None:
        """Moves on. Raises ValueError for a way back."""
        step = round((((days * 24 + hours) * 60 + minutes) * 60 + seconds) * 1000) + ms
        if step < 0:
            raise ValueError(f"time cannot go back by {-step} ms; make another clock")
        self.now_ms += step


def drain(broker: Broker, *topics: str) -> list[Record]:
    """Every record of the topics, or of all, that is there now; no group, nothing committed.

        >>> with Broker("data") as broker:
        ...     _ = broker.append("orders", b"12 apples")
        ...     [record.value for record in drain(broker)]
        [b'12 apples']
    """
    return [record for topic in topics or sorted(broker.topics())
            for record in broker.read(topic)]
