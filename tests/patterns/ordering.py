"""Orders placed on a bus, and the view of them: what tests of projections have in common."""

import sqlite3

from pylog.patterns import Projection

SCHEMA = "CREATE TABLE IF NOT EXISTS orders (id, total)"
INSERT = "INSERT INTO orders VALUES (?, ?)"


def placing(broker, source, path, **options):
    """A projection of the orders that are placed."""
    orders = Projection(broker, "orders", source=source, view=path, schema=SCHEMA, **options)

    @orders.rows("order.placed", INSERT)
    def placed(event):
        return event.data["id"], event.data["total"]

    return orders


def picky(broker, bus, path, seen=None, **options):
    """A projection that writes a row, and raises for the order o3."""
    orders = Projection(broker, "orders", source=bus, view=path, schema=SCHEMA, **options)

    @orders.on("order.placed")
    def placed(db, event):
        db.execute(INSERT, (event.data["id"], event.data["total"]))
        if seen is not None:
            seen.append(event.data["total"])
        if event.data["total"] == 3:
            raise ValueError("three is too many")

    return orders


def ask(path, question="SELECT * FROM orders"):
    db = sqlite3.connect(path)
    try:
        return db.execute(question).fetchall()
    finally:
        db.close()


def place(bus, *totals):
    """Emits an order for each; returns where the last is."""
    return [bus.emit("order.placed", {"id": f"o{n}", "total": n}) for n in totals][-1]


def rows_of(*totals):
    return [(f"o{n}", n) for n in totals]
