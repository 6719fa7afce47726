"""Dead letters: what a handler cannot do is set aside with the reason, mended, and sent again.

    python examples/patterns/dead_letter_queue.py
"""

import logging
import tempfile
import time
from dataclasses import replace

from pylog.patterns import DeadLetters, Retry, Topic

logging.getLogger("pylog.patterns").setLevel(logging.ERROR)    # the letters say it, too
charged = []


def charge(record):
    if record.value <= 0:
        raise ValueError(f"nobody pays {record.value}")
    charged.append(record.value)


def main() -> None:
    with tempfile.TemporaryDirectory(dir=".") as data, \
            Topic(data, "orders", value="json") as orders:
        billing = orders.subscribe(charge, group="billing", retry=Retry(3, except_=ValueError))
        orders.publish_many([20, -5, 30])
        letters = DeadLetters(orders.broker, "billing")
        while not (found := letters.list()):
            time.sleep(0.01)
        print(f"{found[0].topic}, offset {found[0].offset}: {found[0].message}")
        letters.replay(found, edit=lambda letter: replace(letter, value=b"5"))
        while billing.stats().handled < 3:
            time.sleep(0.01)
        print(f"charged {charged}")


if __name__ == "__main__":
    main()
