"""The read model: the orders of each user, as a table that the API reads. It is made of the events
of the shop alone, so it can be thrown away and made again: `pylog projection rebuild`."""

import sqlite3
import threading
from contextlib import closing

from domain import LIVE, SHOP
from services import options, until_told_to_end

from pylog import Broker
from pylog.patterns import Bus, Projection, Rooms

SCHEMA = """
CREATE TABLE IF NOT EXISTS orders_by_user (
    order_id TEXT PRIMARY KEY, user_id TEXT NOT NULL, placed_at TEXT NOT NULL,
    item_count INTEGER NOT NULL, total_cents INTEGER NOT NULL,
    status TEXT NOT NULL DEFAULT 'processing', reason TEXT
);
CREATE INDEX IF NOT EXISTS orders_of_user ON orders_by_user (user_id, placed_at);
"""
FIGURES_SECONDS = 0.5


def make_history(broker, path):
    history = Projection(broker, "orders_by_user", source=Bus(broker, SHOP), view=path,
                         schema=SCHEMA)

    @history.on("order.created")
    def created(db, event):
        order = event.data
        db.execute("INSERT OR IGNORE INTO orders_by_user"
                   " (order_id, user_id, placed_at, item_count, total_cents) VALUES (?,?,?,?,?)",
                   (order["orderId"], order["userId"], order["placedAt"],
                    sum(item["quantity"] for item in order["items"]), order["totalCents"]))

    @history.on("order.statusChanged")
    def changed(db, event):
        change = event.data
        db.execute("UPDATE orders_by_user SET status = ?, reason = COALESCE(?, reason)"
                   " WHERE order_id = ?",
                   (change["status"], change.get("reason"), change["orderId"]))

    return history


def ask(path, question):
    """What question(connection) finds in the read model, while another process writes it; None:
    nothing was written yet."""
    if not path.exists():
        return None
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as view:
        view.row_factory = sqlite3.Row
        if not view.execute("SELECT 1 FROM sqlite_master WHERE name = 'orders_by_user'").fetchone():
            return None
        return question(view)


def figures(view):
    """How many orders there are of each kind."""
    counts = dict(view.execute(
        "SELECT status, count(*) FROM orders_by_user GROUP BY status").fetchall())
    return {"created": sum(counts.values()), "completed": counts.get("completed", 0),
            "rejected": counts.get("rejected", 0)}


def tell_figures(broker, path, is_closing):
    """To the pages in the room `shop`, when they change."""
    rooms, told = Rooms(broker, LIVE), None
    while not is_closing.wait(FIGURES_SECONDS):
        if (found := ask(path, figures)) != told:
            told = found
            rooms.emit("shop", told)


def main():
    data = options().data
    path = data / "views.db"
    is_closing = threading.Event()
    with Broker(data) as broker, make_history(broker, path) as history:
        history.start()
        teller = threading.Thread(target=tell_figures, args=(broker, path, is_closing))
        teller.start()
        until_told_to_end()
        is_closing.set()
        teller.join()


if __name__ == "__main__":
    main()
