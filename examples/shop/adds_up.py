"""Do money, stock and orders add up? Counted from the customers' file and the raw topics alone.

    python examples/shop/adds_up.py --data build/shop/data

It runs no service's code, and believes no service, no database and no saga: it reads the file that
the customers' orders come from, and the records that there are. Then it asks the read model whether
that says the same.
"""

import argparse
import json
import sqlite3
import sys
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from domain import (
    ACCOUNTS,
    AUDIT,
    COMPLETED,
    DEAD_ORDERS,
    DELIVERIES,
    EMAILS,
    ORDERS,
    SAGA,
    SHIPMENTS,
    order_id_of,
)
from purchases import purchases
from rich.console import Console

from pylog import Broker
from pylog.patterns import Audit

JOURNAL = "saga.checkout"
ENDS = {b"completed", b"compensated", b"parked"}


class Counts(NamedTuple):
    """What the records say, by order where nothing else is said."""

    orders: dict        # the first record of each order
    poison: int         # records of the topic `orders` that are no orders
    dead: int           # records of its dead letter queue
    ends: dict          # the saga's last word
    completed: Counter  # how often `order-completed` says so
    charges: Counter    # how often
    refunds: Counter
    paid: Counter       # cents, less what was given back
    delivered: Counter  # by product
    reserved: dict      # what the order took out of stock and did not give back: (product, count)s
    emails: Counter
    parcels: dict       # the tracking numbers that an order has
    audited: set        # orders that the audit trail has
    broken: object      # the first entry of it whose hash is not what it should be; None: none
    view: dict          # the status that the read model shows


def count(broker, views):
    """views: the read model, which is made of the events: asked whether it says the same."""
    orders, poison = {}, 0
    for record in broker.read(ORDERS):
        body = parsed(record)
        if isinstance(body, dict) and isinstance(body.get("userId"), str) and "items" in body:
            orders.setdefault(body["orderId"], body)
        else:
            poison += 1
    charges, refunds, paid = Counter(), Counter(), Counter()
    for record in broker.read(ACCOUNTS):
        body = parsed(record)
        is_charge = record.header("ce_type") == b"payment.charged"
        (charges if is_charge else refunds)[body["orderId"]] += 1
        paid[body["orderId"]] += body["cents"] if is_charge else -body["cents"]
    delivered = Counter()
    for record in broker.read(DELIVERIES):
        body = parsed(record)
        delivered[body["productId"]] += body["quantity"]
    reserved = {}
    for record in broker.read(SAGA):
        kind = record.header("ce_type").decode()
        if kind.startswith("saga.inventoryReserved."):
            body = parsed(record)
            reserved[body["orderId"]] = [(item["productId"], item["quantity"])
                                         for item in body["items"]]
        elif kind.startswith("saga.inventoryReleased."):
            reserved.pop(parsed(record)["orderId"], None)
    parcels = {}
    for record in broker.read(SHIPMENTS):
        body = parsed(record)
        parcels.setdefault(body["orderId"], set()).add(body["tracking"])
    return Counts(
        orders, poison, sum(1 for record in broker.read(DEAD_ORDERS)), ends_of(broker),
        Counter(parsed(record)["orderId"] for record in broker.read(COMPLETED)), charges, refunds,
        paid, delivered, reserved,
        Counter(parsed(record)["orderId"] for record in broker.read(EMAILS)),
        parcels,
        {parsed(record)["target"] for record in broker.read(AUDIT)}, Audit(broker, AUDIT).verify(),
        statuses_in(views))


def statuses_in(views):
    with closing(sqlite3.connect(f"file:{views}?mode=ro", uri=True)) as connection:
        return dict(connection.execute("SELECT order_id, status FROM orders_by_user"))


def parsed(record):
    try:
        return json.loads(record.value)
    except ValueError:
        return None


def ends_of(broker):
    """How each checkout has ended, by the journal; None: it goes on."""
    ends = {}
    for record in broker.read(JOURNAL):
        event = record.header("saga_event")
        ends[record.key.decode()] = event.decode() if event in ENDS else None
    return ends


def questions(counts, given):
    """Each is (what should be so, is it so?, figures). given: the customers' orders."""
    valid = {key: body for key, body in given if body["totalCents"] > 0}
    done = {key for key, end in counts.ends.items() if end == "completed"}
    undone = {key for key, end in counts.ends.items() if end == "compensated"}
    same = {"userId", "totalCents", "items", "placedAt"}
    yield ("every order of the file that has a price is in the topic, as it was",
           counts.orders.keys() == valid.keys()
           and all({name: counts.orders[key].get(name) for name in same} == valid[key]
                   for key in valid),
           f"{len(counts.orders):,} of {len(valid):,}")
    yield ("every one of them is completed or undone, none of them both or neither",
           done | undone == valid.keys() and not done & undone,
           f"{len(done):,} + {len(undone):,}")
    yield ("`order-completed` has each completed order, and no other",
           counts.completed.keys() == done, f"{len(counts.completed):,}")
    yield ("no order was charged twice, or given back twice",
           max(counts.charges.values(), default=0) <= 1
           and max(counts.refunds.values(), default=0) <= 1,
           f"{sum(one - 1 for one in counts.charges.values())} double charges")
    yield ("the money of each completed order was kept, and of no other",
           {key: cents for key, cents in counts.paid.items() if cents}
           == {key: valid[key]["totalCents"] for key in done},
           f"${sum(counts.paid.values()) / 100:,.2f}")
    sold, left = Counter(), Counter(counts.delivered)
    for key in done:
        for item in valid[key]["items"]:
            sold[item["productId"]] += item["quantity"]
    for items in counts.reserved.values():
        for product, quantity in items:
            left[product] -= quantity
    yield ("what was delivered and not sold is in stock, product by product",
           all(left[product] == counts.delivered[product] - sold[product]
               for product in counts.delivered) and min(left.values()) >= 0,
           f"{sum(counts.delivered.values()):,} - {sum(sold.values()):,} = {sum(left.values()):,}")
    yield ("each completed order has one tracking number, whoever was killed",
           all(len(counts.parcels.get(key, ())) == 1 for key in done)
           and max(map(len, counts.parcels.values()), default=0) <= 1, f"{len(counts.parcels):,}")
    yield ("who has an order completed has been told, and nobody else",
           counts.emails.keys() == done, f"{sum(counts.emails.values()):,} mails for "
           f"{len(counts.emails):,} orders")
    yield ("every order is in the audit trail, whose chain of hashes is whole",
           counts.audited == valid.keys() and counts.broken is None, f"{len(counts.audited):,}")
    yield ("the read model shows of each order what became of it",
           counts.view == dict.fromkeys(done, "completed") | dict.fromkeys(undone, "rejected"),
           f"{len(counts.view):,}")
    yield ("what was no order is a dead letter", counts.poison == counts.dead,
           f"{counts.poison} of {counts.dead}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("build/shop/data"))
    parser.add_argument("--purchases", type=Path, help="the customers' file, if not lifetimes'")
    parser.add_argument("--orders", type=int, help="how many of it were sent; all by default")
    options = parser.parse_args()
    console = Console(width=80, highlight=False)
    with Broker(options.data) as broker:
        counts = count(broker, options.data / "views.db")
    given = [(order_id_of(body["userId"], key), body)
             for key, body in purchases(options.purchases)[:options.orders]]
    is_good = True
    for should, is_so, figures in questions(counts, given):
        is_good &= is_so
        console.print(f"   {'[green]yes[/]' if is_so else '[bold red]NO [/]'} {should}\n"
                      f"       [dim]{figures}[/]")
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
