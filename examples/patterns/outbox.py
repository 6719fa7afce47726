"""A program books orders and says so in the same transaction. Whoever sends that is killed, another
takes over, and each order was said once: python examples/patterns/outbox.py
"""

import multiprocessing
import sqlite3
import tempfile
import time

from pylog import Broker
from pylog.patterns import Outbox


def send(folder: str) -> None:
    with Broker(f"{folder}/data") as broker, Outbox(f"{folder}/app.db").relay(broker, poll=0.001):
        time.sleep(60)


def main(folder: str) -> None:
    outbox, db = Outbox(f"{folder}/app.db"), sqlite3.connect(f"{folder}/app.db")
    outbox.create_table(db)
    db.execute("CREATE TABLE orders (id)")
    relay = multiprocessing.get_context("spawn").Process(target=send, args=[folder])
    relay.start()
    for number in range(100):
        with db:    # both, or none
            db.execute("INSERT INTO orders VALUES (?)", (number,))
            outbox.add(db, "orders", number)
        while number == 50 and outbox.pending() > 40:
            time.sleep(0.001)
    relay.kill()
    db.close()
    with Broker(f"{folder}/data") as broker:
        print(outbox.relay(broker).run_once(), "were left of", len(list(broker.read("orders"))))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(dir=".") as place:
        main(place)
