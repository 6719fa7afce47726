"""Two workers are given the same orders, and each customer is charged once.

    python examples/patterns/idempotency.py
"""

import tempfile
from concurrent.futures import ThreadPoolExecutor

from pylog import Broker
from pylog.patterns.idempotency import Idempotency

charged: list[str] = []


def main() -> None:
    with tempfile.TemporaryDirectory(dir=".") as folder, Broker(f"{folder}/data") as broker:
        payments = Idempotency(broker, "payments")    # remembers for a day

        @payments.once(key=lambda order: f"order-{order['id']}")
        def charge(order: dict) -> dict:
            charged.append(order["user"])
            return {"receipt": len(charged)}

        orders = [{"id": number, "user": user} for number, user in enumerate(("ann", "ben", "cy"))]
        with ThreadPoolExecutor(2) as workers:
            first, second = workers.map(
                lambda orders: [charge(order) for order in orders], [orders, orders])

        print(f"charged {sorted(charged)}, and both got the receipts {first}")
        assert first == second
        assert sorted(charged) == ["ann", "ben", "cy"]


if __name__ == "__main__":
    main()
