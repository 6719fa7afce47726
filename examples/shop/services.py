"""The shop's processes: what they are, and one that starts them, and starts them again.

    python examples/shop/services.py --data build/shop/data     runs the shop until Ctrl-C
"""

import argparse
import contextlib
import signal
import subprocess
import sys
import time
from pathlib import Path

from domain import DELIVERIES, PRODUCTS

from pylog import Broker, Producer

HERE = Path(__file__).parent
# How many processes of each. Any of them may be killed at any time.
SERVICES = {"api": 1, "processor": 2, "checkout": 2, "inventory": 1, "payment": 2, "shipping": 2,
            "notifier": 2, "statuses": 1, "history": 1, "auditor": 1}
LOOK_SECONDS = 0.05
GRACE_SECONDS = 10.0


def options(**defaults):
    """What a service is told on its command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, default=Path("build/shop/data"))
    for name, value in defaults.items():
        parser.add_argument(f"--{name}", type=type(value), default=value)
    return parser.parse_args()


def end_on_sigterm():
    """As on Ctrl-C: with all that is to be done at the end."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def until_told_to_end():
    """What the main thread of a service does: handlers are at work in others."""
    end_on_sigterm()
    with contextlib.suppress(KeyboardInterrupt):
        signal.pause()


class Shop:
    """All services as processes, each started again when it dies. A context manager."""

    def __init__(self, data, port=8000, counts=SERVICES):
        self.data = Path(data)
        self.port = port
        self.members = [(name, number) for name, count in counts.items() for number in range(count)]
        self.processes = {}
        self.restarts = 0

    def start(self, member):
        name, number = member
        command = [sys.executable, str(HERE / f"{name}.py"), "--data", str(self.data)]
        if name == "api":
            command += ["--port", str(self.port)]
        with open(self.data.parent / f"{name}-{number}.log", "ab") as log:
            self.processes[member] = subprocess.Popen(command, stdout=log, stderr=log)

    def look_after(self):
        """Starts again what has died."""
        for member, process in list(self.processes.items()):
            if process.poll() is not None:
                self.restarts += 1
                self.start(member)

    def kill(self, member):
        """As the kernel would, for lack of memory: no goodbye."""
        self.processes[member].kill()
        self.processes[member].wait()

    def __enter__(self):
        self.data.mkdir(parents=True, exist_ok=True)
        for member in self.members:
            self.start(member)
        return self

    def __exit__(self, *exception):
        for process in self.processes.values():
            process.terminate()
        deadline = time.monotonic() + GRACE_SECONDS
        for process in self.processes.values():
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()


def fill_the_shelves(broker, quantities):
    """The stock comes in as records, so that an outsider can count it."""
    with Producer(broker, value_serializer="json") as producer:
        for product, quantity in quantities.items():
            producer.send(DELIVERIES, {"productId": product, "quantity": quantity},
                          product.encode())


def stock_a_new_shop(data):
    """A hundred of each where nothing was ever delivered, lest every order be refused."""
    with Broker(data) as broker:
        if DELIVERIES not in broker.topics():
            fill_the_shelves(broker, dict.fromkeys(PRODUCTS, 100))


def main():
    given = options(port=8000)
    end_on_sigterm()
    stock_a_new_shop(given.data)
    with Shop(given.data, given.port) as shop:
        print(f"the shop is open: http://127.0.0.1:{given.port}/    Ctrl-C closes it")
        try:
            while True:
                shop.look_after()
                time.sleep(LOOK_SECONDS)
        except KeyboardInterrupt:
            print()


if __name__ == "__main__":
    main()
