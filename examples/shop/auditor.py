"""The audit trail of what users did: a chain in which no entry can be altered unseen."""

from domain import AUDIT, SHOP
from services import options, until_told_to_end

from pylog import Broker
from pylog.patterns import Audit, Bus


def entry_of(event):
    """Who did what to what."""
    return {"actor": event.data["userId"], "action": event.type, "target": event.data["orderId"],
            "after": {"totalCents": event.data["totalCents"]}}


def main():
    with Broker(options().data) as broker, Bus(broker, SHOP) as shop:
        with Audit(broker, AUDIT).feed(shop, "user.*", entry=entry_of):
            until_told_to_end()


if __name__ == "__main__":
    main()
