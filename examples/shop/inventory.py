"""Inventory: a database of its own, as any service may have. What it answers is written in the same
transaction as the stock (an outbox), so that neither is ever true without the other."""

import sqlite3

from domain import DELIVERIES, SAGA, SAGA_PARTITIONS
from services import options, until_told_to_end

from pylog import Broker
from pylog.patterns import Bus, Outbox, Topic

TABLES = """
CREATE TABLE IF NOT EXISTS stock (product TEXT PRIMARY KEY, quantity INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS deliveries (number INTEGER PRIMARY KEY);
CREATE TABLE IF NOT EXISTS reservations (order_id TEXT PRIMARY KEY, state TEXT NOT NULL);
"""


class Inventory:
    """The stock. Each order is reserved once and released once, however often it is asked for."""

    def __init__(self, path):
        self.outbox = Outbox(path)
        self.database = sqlite3.connect(path, timeout=60, check_same_thread=False)
        self.database.executescript("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;"
                                    + TABLES)
        with self.database:
            self.outbox.create_table(self.database)

    def take_in(self, record):
        with self.database as database:
            known = database.execute("INSERT OR IGNORE INTO deliveries VALUES (?)", [record.offset])
            if known.rowcount:
                database.execute(
                    "INSERT INTO stock VALUES (?, ?) ON CONFLICT (product)"
                    " DO UPDATE SET quantity = quantity + excluded.quantity",
                    [record.value["productId"], record.value["quantity"]])

    def reserve(self, event):
        order = event.data
        with self.database as database:
            database.execute("BEGIN IMMEDIATE")
            state = self._state_of(order)
            if state is None:
                state = "reserved" if self._take(order["items"]) else "refused"
                database.execute("INSERT INTO reservations VALUES (?, ?)",
                                 [order["orderId"], state])
            answer, data = ("inventoryReserved", {"items": order["items"]}) \
                if state == "reserved" else ("inventoryRefused", {"reason": "out of stock"})
            self._answer(order, answer, data)

    def release(self, event):
        order = event.data
        with self.database as database:
            database.execute("BEGIN IMMEDIATE")
            if self._state_of(order) == "reserved":
                self._move(order["items"], +1)
            database.execute("INSERT OR REPLACE INTO reservations VALUES (?, 'released')",
                             [order["orderId"]])
            self._answer(order, "inventoryReleased", {"items": order["items"]})

    def _state_of(self, order):
        row = self.database.execute("SELECT state FROM reservations WHERE order_id = ?",
                                    [order["orderId"]]).fetchone()
        return row and row[0]

    def _take(self, items):
        """All of it or nothing. Whether there was enough."""
        for item in items:
            row = self.database.execute("SELECT quantity FROM stock WHERE product = ?",
                                        [item["productId"]]).fetchone()
            if row is None or row[0] < item["quantity"]:
                return False
        self._move(items, -1)
        return True

    def _move(self, items, sign):
        self.database.executemany("UPDATE stock SET quantity = quantity + ? WHERE product = ?",
                                  [(sign * item["quantity"], item["productId"]) for item in items])

    def _answer(self, order, kind, data):
        self.outbox.emit(self.database, SAGA, f"saga.{kind}.{order['sagaId']}",
                         {"orderId": order["orderId"]} | data, key=order["orderId"])


def main():
    data = options().data
    with Broker(data) as broker, Bus(broker, SAGA, num_partitions=SAGA_PARTITIONS) as bus:
        inventory = Inventory(data / "inventory.db")
        with Topic(broker, DELIVERIES, value="json") as deliveries:
            for record in deliveries.read():    # all that is there, before the first order
                inventory.take_in(record)
        bus.on("saga.reserveInventory", inventory.reserve, group="inventory")
        bus.on("saga.releaseInventory", inventory.release, group="inventory")
        bus.start()
        with inventory.outbox.relay(broker):
            until_told_to_end()


if __name__ == "__main__":
    main()
