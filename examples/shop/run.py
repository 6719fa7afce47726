"""A shop of many processes sells what CDNOW sold, is killed all the time, and everything adds up.

    make shop                                 all 69,659 orders, and 40 kills
    python examples/shop/run.py --orders 500 --kills 20
    python examples/shop/services.py          the shop alone, for you to order in

Each service runs as its own process on one data directory (services.py). Customers send their
orders over HTTP (customers.py), some records in the topic are no orders at all, and one process
after the other is killed with SIGKILL. Then adds_up.py, which runs none of the shop's code, counts
money, stock and orders again.
"""

import argparse
import random
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from pathlib import Path

from adds_up import ENDS, JOURNAL
from customers import Customers
from domain import ORDERS
from purchases import demand, purchases
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from services import HERE, Shop, end_on_sigterm, fill_the_shelves

from pylog import Admin, Broker, Producer

STOCKED = 0.97            # of what is asked for: some orders come too late
POISON = [b"", b"{", b"[1, 2]", b'{"orderId": "x"}', b'{"orderId": 7, "userId": null}', b"\xff\xfe"]
FOLLOWERS = ["order-processors", "notifiers", "statuses", "push", "audit",
             "projection.orders_by_user"]
SETTLE_SECONDS = 300

console = Console(width=80, highlight=False)


def main():
    given = parse_options()
    end_on_sigterm()
    orders = purchases(given.purchases)[:given.orders]
    data = given.folder / "data"
    shutil.rmtree(given.folder, ignore_errors=True)
    data.mkdir(parents=True)
    users, dates = ([body[name] for _, body in orders] for name in ("userId", "placedAt"))
    say(f"[bold]{len(orders):,} orders of {len(set(users)):,} customers[/], {dates[0]} to "
        f"{dates[-1]}; seed {given.seed}")
    with Broker(data) as broker:
        fill_the_shelves(broker, {product: int(quantity * STOCKED)
                                  for product, quantity in demand(orders).items()})
        with Shop(data, given.port or free_port()) as shop:
            wait_until_open(shop)
            say(f"the shop is open, {len(shop.processes)} processes: "
                f"[bold]http://127.0.0.1:{shop.port}/[/]")
            started = time.monotonic()
            kills = sell(shop, broker, orders, given)
            say(f"{len(orders) / (time.monotonic() - started):,.0f} orders a second, "
                f"{sum(kills.values())} kills: " + ", ".join(
                    f"{name} {count}" for name, count in sorted(kills.items())))
    command = [sys.executable, str(HERE / "adds_up.py"), "--data", str(data)]
    if given.purchases:
        command += ["--purchases", str(given.purchases)]
    if given.orders:
        command += ["--orders", str(given.orders)]
    return subprocess.run(command, check=False).returncode


def parse_options():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("build/shop"), help="replaced")
    parser.add_argument("--orders", type=int, help="how many; all by default")
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--port", type=int, default=0, help="of the web page; any by default")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    parser.add_argument("--purchases", type=Path, help="the customers' file, instead of lifetimes'")
    return parser.parse_args()


def say(text):
    console.print(f"   {text}")


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def wait_until_open(shop):
    for _ in range(1000):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{shop.port}/", timeout=1).close()
            return
        except OSError:
            shop.look_after()
            time.sleep(0.02)
    raise SystemExit(f"the shop does not open; see {shop.data.parent}/api-0.log")


def sell(shop, broker, orders, given):
    """Until all orders have had their answer and all checkouts their end. Returns the kills."""
    chance = random.Random(given.seed)
    victims = plan_of_kills(chance, shop.members, given.kills)
    poison = Producer(broker)
    customers = Customers(shop.port, orders)
    checkouts = Checkouts(broker)
    kills = Counter()
    with progress() as bar:
        answered = bar.add_task("answered", total=len(orders))
        finished = bar.add_task("checked out", total=len(orders))
        deadline = None
        while True:
            shop.look_after()
            time.sleep(0.05)
            done = sum(customers.answers.values())
            if victims and done >= len(orders) * (given.kills - len(victims)) / (given.kills + 1):
                victim = victims.pop()
                shop.kill(victim)
                kills[victim[0]] += 1
                poison.send(ORDERS, chance.choice(POISON), b"nobody")
            bar.update(answered, completed=done)
            bar.update(finished, completed=checkouts.ended() + customers.answers[422])
            if customers.are_done() and not victims:
                deadline = deadline or time.monotonic() + SETTLE_SECONDS
                if everything_is_done(broker, checkouts, customers):
                    return kills
                if time.monotonic() > deadline:
                    raise SystemExit(f"after {SETTLE_SECONDS} s there are checkouts without an end")


class Checkouts:
    """How many checkouts have ended, by their journal, which is read on at each look."""

    def __init__(self, broker):
        self.broker = broker
        self.cursor = None
        self.ids = set()

    def ended(self):
        if self.cursor is None:
            if JOURNAL not in self.broker.topics():
                return 0
            self.cursor = self.broker.log(JOURNAL).cursor("earliest")
        while chunk := self.cursor.fetch():
            self.ids |= {record.key for record in chunk if record.header("saga_event") in ENDS}
        return len(self.ids)


def everything_is_done(broker, checkouts, customers):
    """All that was taken has ended, and who follows what happens has seen it all."""
    if checkouts.ended() < len(customers.taken):
        return False
    with Admin(broker) as admin:
        return all(offset.lag == 0 for group in FOLLOWERS
                   for offset in admin.list_group_offsets(group).values())


def plan_of_kills(chance, members, count):
    """Every process as often as any other, give or take one, in any order."""
    plan = []
    while len(plan) < count:
        plan += chance.sample(members, min(len(members), count - len(plan)))
    return plan


def progress():
    return Progress(TextColumn("  {task.description:12}"), BarColumn(40), MofNCompleteColumn(),
                    console=console, refresh_per_second=10)


if __name__ == "__main__":
    sys.exit(main())
