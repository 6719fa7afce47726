"""What becomes of an order, for whoever cares: the saga's journal, told as events of the shop, and
to the web pages that look on."""

from domain import LIVE, SHOP
from services import options, until_told_to_end

from pylog import Broker
from pylog.patterns import Bus, Rooms, Topic

STEPS = {"stock": "reserved", "payment": "paid", "parcel": "shipped"}
EVENTS = {"started": "processing", "compensating": "undoing", "completed": "completed",
          "compensated": "rejected", "parked": "parked"}


def status_of(record):
    """The status that a record of the journal brings about; None: it is nobody's business."""
    event = record.header("saga_event").decode()
    if event == "step_completed":
        return STEPS.get(record.header("saga_step").decode())
    return EVENTS.get(event)


def main():
    with Broker(options().data) as broker, Bus(broker, SHOP) as shop, \
            Topic(broker, "saga.checkout") as journal:
        rooms = Rooms(broker, LIVE)

        def tell(record):
            if (status := status_of(record)) is not None:
                order_id = record.key.decode()
                change = {"orderId": order_id, "status": status}
                if status == "undoing":
                    change["reason"] = record.header("error_message").decode()
                shop.emit("order.statusChanged", change, key=order_id,
                          event_id=f"{record.topic}-{record.offset}")

        journal.subscribe(tell, group="statuses")
        with rooms.feed(shop, "order.statusChanged", lambda event: f"order-{event.key.decode()}"):
            until_told_to_end()


if __name__ == "__main__":
    main()
