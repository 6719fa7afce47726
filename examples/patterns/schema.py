"""Orders of a type: what does not fit is not sent, and the next version must go with this one.

    python examples/patterns/schema.py
"""

import tempfile
from dataclasses import dataclass, make_dataclass

from pylog import Broker, IncompatibleSchemaError, ValidationError
from pylog.patterns import Schemas, Topic


@dataclass
class Order:
    user: str
    total: float
    items: list[str]


def main() -> None:
    with tempfile.TemporaryDirectory(dir=".") as folder, Broker(f"{folder}/data") as broker:
        schemas = Schemas(broker)
        with Topic(broker, "orders", value=schemas.register("orders", Order)) as orders:
            orders.publish(Order("ann", 12.5, ["apple"]))
            try:
                orders.publish({"user": "ben", "total": 3, "items": ["pear", 7]})
            except ValidationError as error:
                print("not sent:", error.errors)
            print([record.value for record in orders.read()])
        try:
            schemas.register("orders", make_dataclass("Order", [("coupon", str)], bases=(Order,)))
        except IncompatibleSchemaError as error:
            print("not registered:", *error.reasons)


if __name__ == "__main__":
    main()
