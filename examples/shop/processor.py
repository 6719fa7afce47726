"""Order processors, a group: each order that was taken becomes a checkout, once.

What is no order goes to the dead letters `orders-dlq` at once, and the next goes on.
"""

from checkout import make_checkout
from domain import DEAD_ORDERS, ORDER_PARTITIONS, ORDERS, SHOP, Order
from msgspec import to_builtins
from services import options, until_told_to_end

from pylog import Broker
from pylog.patterns import Bus, Retry, Schemas, Topic, expo


def main():
    with Broker(options().data) as broker, Bus(broker, SHOP) as shop:
        orders = Topic(broker, ORDERS, value=Schemas(broker).register(ORDERS, Order),
                       num_partitions=ORDER_PARTITIONS)
        checkout = make_checkout(broker)

        def process(record):
            order = to_builtins(record.value)
            user, order_id = order["userId"], order["orderId"]
            shop.emit("order.created", order, key=order_id, event_id=f"{order_id}:created")
            checkout.submit(order, id=order_id)    # the same id is the same checkout
            shop.emit("user.ordered", {"userId": user, "orderId": order_id,
                                       "totalCents": order["totalCents"]},
                      key=user, event_id=f"{order_id}:ordered")

        with orders:
            orders.subscribe(process, group="order-processors", dlq=DEAD_ORDERS,
                             retry=Retry(5, expo(0.05, 1)))
            until_told_to_end()


if __name__ == "__main__":
    main()
