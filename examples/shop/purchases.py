"""The orders that are replayed: what 23,570 people bought at CDNOW from 1997 to 1998."""

from importlib.util import find_spec
from pathlib import Path

from domain import PRODUCTS


def purchases(path=None):
    """Each line of the data as (key, the body of an order), in the order of their dates.

    The `lifetimes` package has the file, and is found but not imported: that would need pandas.
    The key is the line's number; a request that bears it twice is one order.
    """
    if path is None:
        if (package := find_spec("lifetimes")) is None:
            raise SystemExit("the purchases are not here: `make shop` installs them, or "
                             "`pip install --no-deps lifetimes`, or say --purchases FILE")
        path = Path(package.origin).parent / "datasets/CDNOW_master.txt"
    lines = Path(path).read_text("ascii").splitlines()[1:]
    rows = sorted((date, number, user, int(quantity), round(float(dollars) * 100))
                  for number, (user, date, quantity, dollars) in enumerate(map(str.split, lines)))
    return [(f"cdnow-{number:05d}", {
        "userId": user, "totalCents": cents, "placedAt": f"{date[:4]}-{date[4:6]}-{date[6:]}",
        "items": [{"productId": product_of(user, quantity), "quantity": quantity}],
    }) for date, number, user, quantity, cents in rows]


def product_of(user, quantity):
    """The data does not say which disc it was: always the same for the same line."""
    return PRODUCTS[(7 * int(user) + quantity) % len(PRODUCTS)]


def demand(orders):
    """How many of each product the orders ask for."""
    found = dict.fromkeys(PRODUCTS, 0)
    for _, order in orders:
        for item in order["items"]:
            found[item["productId"]] += item["quantity"]
    return found
