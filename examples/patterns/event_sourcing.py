"""Event sourcing: an account is what happened to it; two clerks never pay out the same money.

    python examples/patterns/event_sourcing.py
"""

import contextlib
import tempfile
from concurrent.futures import ThreadPoolExecutor

from pylog import WrongExpectedVersionError
from pylog.patterns import NO_STREAM, EventStore, NewEvent


def balance(total, event):
    return total + event.data["amount"] * (1 if event.type == "deposited" else -1)


def withdraw(store: EventStore, amount: int) -> str:
    while True:    # once more where the other was faster
        total, version = store.fold("account-1", 0, balance)
        if total < amount:
            return "refused"
        with contextlib.suppress(WrongExpectedVersionError):
            store.append("account-1", NewEvent("withdrawn", {"amount": amount}),
                         expected_version=version)
            return "paid"


def main() -> None:
    with tempfile.TemporaryDirectory(dir=".") as data, EventStore(data, "accounts") as store:
        opening = NewEvent("deposited", {"amount": 100})
        store.append("account-1", opening, expected_version=NO_STREAM)
        with ThreadPoolExecutor(2) as clerks:
            print(sorted(clerks.map(lambda amount: withdraw(store, amount), [30] * 5)))
        print(*(f"{one.version} {one.type}" for one in store.read("account-1")), sep=", ")


if __name__ == "__main__":
    main()
