"""Practice 3: a service that lives on events alone, and tells its own. The text is in README.md.

    python examples/tasks/3_microservice.py
"""

import tempfile
import threading

from pylog import Broker
from pylog.patterns import Bus, Change, State


def count(orders: frozenset | None, record) -> frozenset:
    """The ids of the orders that a user has completed: one that comes twice is counted once."""
    return (orders or frozenset()) | ({record.value} - {b""})


def serve(broker: Broker, bus: Bus) -> None:
    accounts = State(broker, "accounts", count)    # a topic: another process may go on with it

    @bus.on("user.registered", group="accounts")
    def register(event):
        accounts.change(lambda _: Change(event.key, b""))

    @bus.on("order.completed", group="accounts")
    def complete(event):
        accounts.change(lambda _: Change(event.key, event.data["orderId"].encode()))
        if len(accounts.current()[event.key]) == 3:    # again, if it comes again: the same id
            bus.emit("user.promoted", key=event.key, event_id=f"promoted-{event.key.decode()}")


def main() -> None:
    with tempfile.TemporaryDirectory(dir=".") as data, Broker(f"{data}/shop") as broker, \
            Bus(broker, "shop") as bus:
        serve(broker, bus)
        promoted = threading.Event()
        bus.on("user.promoted", lambda event: (print(event.key, "is promoted"), promoted.set()))
        bus.start()
        bus.emit("user.registered", key="alice")
        for order in ("o-1", "o-2", "o-2", "o-1", "o-3"):
            assert not promoted.is_set()
            bus.emit("order.completed", {"orderId": order}, key="alice")
        assert promoted.wait(10)


if __name__ == "__main__":
    main()
