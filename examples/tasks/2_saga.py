"""Practice 2: an order as a saga of commands to services on a bus. The text is in README.md.

    python examples/tasks/2_saga.py
"""

import tempfile

from pylog import Broker, SagaFailedError, TerminalError
from pylog.patterns import Bus, Idempotency, Saga, serve

STEPS = (("inventory", "saga.reserveInventory", "saga.inventoryReserved", "saga.releaseInventory"),
         ("payment", "saga.processPayment", "saga.paymentProcessed", "saga.refundPayment"),
         ("shipping", "saga.createShipment", "saga.shipmentCreated", "saga.cancelShipment"))


def main() -> None:
    done = {}    # what each order has: stock, a payment, a shipment
    with tempfile.TemporaryDirectory(dir=".") as data, Broker(f"{data}/shop") as broker, \
            Bus(broker, "commands") as bus, Saga(broker, "order") as saga:
        once = Idempotency(broker, "services").once(key=lambda event: event.id)
        for name, do, reply, undo in STEPS:    # each service would be a process of its own
            @once
            def act(event, name=name):
                if name == "payment" and event.data["total"] > 100:
                    raise TerminalError("card refused")
                done.setdefault(event.data["orderId"], []).append(name)

            @once
            def take_back(event, name=name):
                done[event.data["orderId"]].remove(name)

            serve(bus, do, act, reply=reply, failed=f"{reply}Not", group=name)
            serve(bus, undo, take_back, reply=f"{undo}Done", group=name)
            saga.command(name, bus, do, reply=reply, failed=f"{reply}Not", compensate=undo,
                         compensated=f"{undo}Done")
        bus.start()
        saga.run({"orderId": "o-1", "total": 20}, id="o-1")
        try:
            saga.run({"orderId": "o-2", "total": 200}, id="o-2")
        except SagaFailedError as error:
            print(error)
    print(done)
    assert done == {"o-1": ["inventory", "payment", "shipping"], "o-2": []}


if __name__ == "__main__":
    main()
