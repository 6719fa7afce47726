"""A saga: stock, then shipment. There is no truck for the second order, and its stock goes back.

    python examples/patterns/saga.py
"""

import tempfile

from pylog import SagaFailedError, TerminalError
from pylog.patterns import Saga


def main() -> None:
    stock = {"pears": 5}
    with tempfile.TemporaryDirectory(dir=".") as data, Saga(f"{data}/shop", "order") as saga:
        @saga.step
        def reserve(ctx, order):
            stock["pears"] -= order["pears"]
            return order["pears"]

        @reserve.compensate
        def release(ctx, order, reserved):
            stock["pears"] += reserved or 0    # None: nobody knows whether it was reserved

        @saga.step
        def ship(ctx, order):
            if order["pears"] > 2:
                raise TerminalError("no truck is large enough")

        saga.run({"pears": 2}, id="order-1")
        try:
            saga.run({"pears": 3}, id="order-2")
        except SagaFailedError as error:
            print(error)
        print([one.event for one in saga.show("order-2")], stock)
        assert stock == {"pears": 3}


if __name__ == "__main__":
    main()
