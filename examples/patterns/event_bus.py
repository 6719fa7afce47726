"""An event bus: an audit hears of all events, thin or full; an invoice needs all of an order.

    python examples/patterns/event_bus.py
"""

import tempfile
import threading
from dataclasses import dataclass

from pylog.patterns import Bus, event


@event("order.created", key="order_id")
@dataclass
class OrderCreated:
    order_id: str


@event("order.state", key="order_id")
@dataclass
class OrderState:
    order_id: str
    total: float


def main() -> None:
    lines, done = [], threading.Semaphore(0)
    with tempfile.TemporaryDirectory(dir=".") as data, Bus(data, "shop") as bus:
        bus.on("**", lambda e: (lines.append(f"audit: {e.type}"), done.release()), group="audit")
        bus.on(OrderState, lambda e: (lines.append(f"invoice of {e.data.total}"), done.release()))
        bus.start()
        bus.emit(OrderCreated("o-1"))
        bus.emit(OrderState("o-1", 12.5))
        assert all(done.acquire(timeout=10) for _ in range(3))
    print("\n".join(sorted(lines)))


if __name__ == "__main__":
    main()
