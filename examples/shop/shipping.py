"""Shipping: a parcel an order. Who is killed before the answer is kept may write it down twice, so
the number is made of the order's id, and is the same then."""

import uuid

from domain import SAGA, SAGA_PARTITIONS, SHIPMENTS, is_unreachable
from services import options, until_told_to_end

from pylog import Broker, TerminalError
from pylog.patterns import Bus, Idempotency, Topic, serve


def main():
    with Broker(options().data) as broker, \
            Bus(broker, SAGA, num_partitions=SAGA_PARTITIONS) as bus, \
            Topic(broker, SHIPMENTS, value="json") as shipments:
        @Idempotency(broker, "shipping").once(key=lambda order_id: order_id)
        def ship(order_id):
            tracking = uuid.uuid5(uuid.NAMESPACE_OID, order_id).hex[:12]
            shipments.publish({"orderId": order_id, "tracking": tracking}, key=order_id)
            return tracking

        def create(event):
            order_id = event.data["orderId"]
            if is_unreachable(order_id):
                raise TerminalError("no carrier goes there")
            return {"tracking": ship(order_id)}

        serve(bus, "saga.createShipment", create, reply="saga.shipmentCreated",
              failed="saga.shipmentRefused", group="shipping")
        bus.start()
        until_told_to_end()


if __name__ == "__main__":
    main()
