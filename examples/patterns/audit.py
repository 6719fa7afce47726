"""An audit trail is fed by the events of users; somebody forges an entry, and is found out.

    python examples/patterns/audit.py
"""

import tempfile
import time

from pylog import Broker
from pylog.patterns import Audit, Bus


def main() -> None:
    with (tempfile.TemporaryDirectory(dir=".") as folder, Broker(f"{folder}/data") as broker,
          Bus(broker, "shop") as bus):
        trail = Audit(broker)
        with trail.feed(bus, "user.*", entry=lambda event: {
                "actor": event.data["by"], "action": event.type, "target": event.subject}):
            bus.emit("user.created", {"by": "ann"}, subject="user-7")
            bus.emit("order.paid", {"total": 12})    # of no interest here
            bus.emit("user.deleted", {"by": "mallory"}, subject="user-7")
            while len(list(trail.query())) < 2:
                time.sleep(0.01)
        print([f"{one.actor}: {one.action} {one.target}" for one in trail.query()])
        print("broken:", trail.verify(head=trail.head()))

        for record in broker.read("audit"):    # the same, but that it was ben
            broker.append("forged", record.value.replace(b"mallory", b"ben"), record.key,
                          record.headers, timestamp=record.timestamp)
        found = Audit(broker, "forged").verify()
        print("broken:", found)
        assert found.offset == 1


if __name__ == "__main__":
    main()
