"""What the shop sells, what an order is, and the names by which its services meet."""

import uuid
import zlib
from typing import Annotated

from msgspec import Meta, Struct

ORDERS = "orders"                      # every order that was taken, keyed by user
COMPLETED = "order-completed"          # those that went through
SHOP, SAGA = "shop", "saga"            # the buses: what happened; what is to be done
DEAD_ORDERS = "orders-dlq"             # what no processor can make an order of
DELIVERIES = "deliveries"              # what came into stock, keyed by product
ACCOUNTS = "accounts"                  # the event store of payments, a stream a user
SHIPMENTS = "shipments"                # what left the house, keyed by order
EMAILS = "emails"                      # what users were told, keyed by user
LIVE = "live"                          # what web pages are shown, by room
AUDIT = "audit"                        # what users did

# Of the topics that a group shares, whoever of it comes first: so many are at work at a time.
ORDER_PARTITIONS, SAGA_PARTITIONS = 8, 4

PRODUCTS = [f"cd-{number:02d}" for number in range(40)]
CARD_LIMIT_CENTS = 100_000             # what one card pays for, all orders together
UNREACHABLE = 200                      # one of so many orders is for where no carrier goes

Text = Annotated[str, Meta(min_length=1, max_length=100)]
Positive = Annotated[int, Meta(gt=0, le=10_000_000)]


class Item(Struct, rename="camel"):
    product_id: Text
    quantity: Positive


class Order(Struct, rename="camel"):
    """The value of a record in `orders`: checked when it is taken, and again when it is read."""

    order_id: Text
    user_id: Text
    items: Annotated[list[Item], Meta(min_length=1)]
    total_cents: Positive
    placed_at: Text    # as the customer's clock had it


def order_id_of(user, key):
    """Of the order that a user has sent under a key; others may have the same key."""
    return str(uuid.uuid5(uuid.NAMESPACE_OID, f"{user}/{key}"))


def is_unreachable(order_id: str) -> bool:
    return zlib.crc32(order_id.encode()) % UNREACHABLE == 0
