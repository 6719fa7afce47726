"""The shop of examples/shop, end to end: its processes, orders, kills, and what adds up."""

import json
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from pylog import Broker

SHOP = Path(__file__).parents[1] / "examples" / "shop"

pytestmark = pytest.mark.usefixtures("shop_path")


def write_purchases(path, count, users=30):
    """A file as CDNOW's. Some users buy more than their card pays for, some lines have no price."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    lines = [" customer_id  date number_of_cds  dollar_value"]
    for number in range(count):
        price = 0 if number % 25 == 7 else chance.uniform(5, 200)
        lines.append(f" {chance.randrange(users):05d} 1997{chance.randrange(1, 13):02d}"
                     f"{chance.randrange(1, 29):02d} {chance.randrange(1, 9):2d} {price:7.2f}")
    path.write_text("\r\n".join(lines) + "\r\n", "ascii")


def run_shop(folder, purchases, *arguments):
    return subprocess.run(
        [sys.executable, str(SHOP / "run.py"), "--folder", str(folder), "--purchases",
         str(purchases), *arguments], capture_output=True, text=True, timeout=240, check=False)


@pytest.mark.slow
def test_everything_adds_up_though_each_process_is_killed(tmp_path):
    write_purchases(tmp_path / "purchases.txt", 250)

    done = run_shop(tmp_path / "shop", tmp_path / "purchases.txt", "--kills", "15")

    assert done.returncode == 0, done.stdout + done.stderr
    assert "NO" not in done.stdout
    assert "15 kills" in done.stdout


def counted():
    """What one completed, one undone order and one that was no order leave behind, and the file."""
    from adds_up import Counts

    orders = {"a": {"userId": "1", "totalCents": 100, "placedAt": "1997-01-01",
                    "items": [{"productId": "cd-00", "quantity": 2}]},
              "b": {"userId": "2", "totalCents": 300, "placedAt": "1997-01-02",
                    "items": [{"productId": "cd-01", "quantity": 1}]}}
    return list(orders.items()), Counts(
        orders={key: body | {"orderId": key} for key, body in orders.items()}, poison=1, dead=1,
        ends={"a": "completed", "b": "compensated"}, completed=Counter(["a"]),
        charges=Counter(["a", "b"]), refunds=Counter(["b"]), paid=Counter({"a": 100, "b": 0}),
        delivered=Counter({"cd-00": 5, "cd-01": 1}), reserved={"a": [("cd-00", 2)]},
        emails=Counter(["a"]), parcels={"a": {"t1"}}, audited={"a", "b"}, broken=None,
        view={"a": "completed", "b": "rejected"})


def test_what_adds_up_is_said_to():
    from adds_up import questions

    given, counts = counted()

    assert all(is_so for _, is_so, _ in questions(counts, given))


@pytest.mark.parametrize("wrong", [
    {"orders": {}}, {"poison": 2}, {"dead": 0}, {"ends": {"a": "completed", "b": None}},
    {"ends": {"a": "completed", "b": "parked"}}, {"ends": {"a": "compensated", "b": "compensated"}},
    {"completed": Counter(["a", "b"])}, {"charges": Counter(["a", "a", "b"])},
    {"refunds": Counter(["b", "b"])}, {"paid": Counter({"a": 100, "b": 300})},
    {"paid": Counter({"a": 99})}, {"reserved": {}},
    {"reserved": {"a": [("cd-00", 2)], "b": [("cd-01", 1)]}},
    {"delivered": Counter({"cd-00": 1, "cd-01": 1})}, {"emails": Counter()},
    {"parcels": {}}, {"parcels": {"a": {"t1", "t2"}}},
    {"audited": {"a"}}, {"broken": 7}, {"view": {"a": "completed"}},
    {"view": {"a": "completed", "b": "completed"}},
], ids=lambda wrong: next(iter(wrong)))
def test_what_does_not_add_up_is_found(wrong):
    from adds_up import questions

    given, counts = counted()

    assert not all(is_so for _, is_so, _ in questions(counts._replace(**wrong), given))


def test_an_order_that_was_altered_is_found():
    from adds_up import questions

    given, counts = counted()
    counts.orders["a"]["totalCents"] = 1

    assert not all(is_so for _, is_so, _ in questions(counts, given))


def test_every_process_is_killed_as_often_as_any_other():
    from run import plan_of_kills
    from services import Shop

    members = Shop(Path("data")).members
    plan = Counter(plan_of_kills(random.Random(), members, 2 * len(members)))

    assert set(plan.values()) == {2}
    assert plan.keys() == set(members)


def test_a_new_shop_has_something_to_sell_and_no_more_the_next_day(tmp_path):
    from services import stock_a_new_shop

    stock_a_new_shop(tmp_path)
    stock_a_new_shop(tmp_path)

    with Broker(tmp_path) as broker:
        shelves = [json.loads(record.value) for record in broker.read("deliveries")]
    assert len(shelves) == len({one["productId"] for one in shelves}) == 40
    assert all(one["quantity"] > 0 for one in shelves)


def test_purchases_that_are_not_installed_are_told_where_to_have_from(monkeypatch):
    import purchases

    monkeypatch.setattr(purchases, "find_spec", lambda name: None)

    with pytest.raises(SystemExit, match="pip install"):
        purchases.purchases()
