"""The checkout, a saga: stock, payment and parcel, all of them or none. Run as a service it is an
orchestrator; of any number, each checkout has one, and another when that dies."""

from domain import COMPLETED, SAGA, SAGA_PARTITIONS
from services import options, until_told_to_end

from pylog import Broker
from pylog.patterns import Bus, Saga, Topic


def make_checkout(broker):
    """The saga and its steps: what one does is said in one place."""
    bus = Bus(broker, SAGA, num_partitions=SAGA_PARTITIONS)
    completed = Topic(broker, COMPLETED, value="json", num_partitions=SAGA_PARTITIONS)
    checkout = Saga(broker, "checkout")
    checkout.command("stock", bus, "saga.reserveInventory", reply="saga.inventoryReserved",
                     failed="saga.inventoryRefused", compensate="saga.releaseInventory",
                     compensated="saga.inventoryReleased")
    checkout.command("payment", bus, "saga.processPayment", reply="saga.paymentProcessed",
                     failed="saga.paymentRefused", compensate="saga.refundPayment",
                     compensated="saga.paymentRefunded")
    checkout.command("parcel", bus, "saga.createShipment", reply="saga.shipmentCreated",
                     failed="saga.shipmentRefused")

    @checkout.step
    def announce(ctx, order):
        completed.publish({"orderId": ctx.id, "userId": order["userId"], "status": "completed",
                           **ctx.results["parcel"]}, key=order["userId"])

    return checkout


def main():
    with Broker(options().data) as broker, make_checkout(broker) as checkout:
        checkout.start()
        until_told_to_end()


if __name__ == "__main__":
    main()
