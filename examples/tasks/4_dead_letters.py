"""Practice 4: what fails is tried again, or set aside, mended and sent again. See README.md.

    python examples/tasks/4_dead_letters.py
"""

import logging
import tempfile
import time
from dataclasses import replace

from pylog import Broker, TerminalError
from pylog.patterns import DeadLetters, Retry, Topic, expo

logging.getLogger("pylog.patterns").setLevel(logging.ERROR)    # the letters say it, too
charged, attempts = [], []


def charge(record):
    attempts.append(record.value["id"])
    if record.value["total"] <= 0:
        raise TerminalError(f"nobody pays {record.value['total']}")    # no attempt would mend it
    if record.value["id"] == 2 and attempts.count(2) < 3:
        raise ConnectionError("the bank is down")
    charged.append(record.value["id"])


def main() -> None:
    retry = Retry(attempts=5, backoff=expo(0.01, 1), pause_after=10, cooldown=5)
    with tempfile.TemporaryDirectory(dir=".") as data, Broker(f"{data}/shop") as broker, \
            Topic(broker, "orders", value="json") as orders:
        orders.publish_many([{"id": n, "total": 20 * (n != 1)} for n in range(4)])
        with orders.subscribe(charge, group="billing", retry=retry, dlq="orders-dlq") as billing:
            while billing.stats().handled < 3:
                time.sleep(0.01)
            letters = DeadLetters(broker, topic="orders-dlq")
            [letter] = letters.list()
            print(f"{letter.topic}, offset {letter.offset}: {letter.error}: {letter.message}")
            letters.replay(letter, edit=lambda one: replace(one, value=b'{"id": 1, "total": 5}'))
            while billing.stats().handled < 4:
                time.sleep(0.01)
    assert (charged, attempts.count(2), attempts.count(1)) == ([0, 2, 3, 1], 3, 2)
    print(f"charged {charged}")


if __name__ == "__main__":
    main()
