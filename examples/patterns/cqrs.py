"""CQRS: another process folds a shop's orders into a table. It is killed, and each order counts
once: python examples/patterns/cqrs.py
"""

import multiprocessing
import sqlite3
import tempfile

from pylog.patterns import Bus, Projection


def project(shop: Bus, folder: str) -> Projection:
    sales = Projection(shop.broker, "sales", source=shop, view=f"{folder}/views.db",
                       schema="CREATE TABLE IF NOT EXISTS sales (user, total)")
    sales.rows("order.placed", "INSERT INTO sales VALUES (?, ?)")(lambda e: (e.key, e.data))
    return sales


def run(folder: str) -> None:
    project(Bus(f"{folder}/data", "shop"), folder).run()


def main(folder: str) -> None:
    process = multiprocessing.get_context("spawn").Process(target=run, args=[folder])
    process.start()
    with Bus(f"{folder}/data", "shop") as shop, sqlite3.connect(f"{folder}/views.db") as view:
        sales = project(shop, folder)
        for number in range(1000):
            last = shop.emit("order.placed", number, key=f"user-{number % 3}")
            if number == 500:
                sales.wait(last, timeout=60)
                process.kill()
        sales.run_once()    # here, what is left
        print(view.execute("SELECT user, count(*) FROM sales GROUP BY user").fetchall())


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(dir=".") as place:
        main(place)
