"""The shop as its customers meet it: over HTTP, and on its page in a real browser."""

import contextlib
import json
import random
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from pathlib import Path

import pytest

from pylog import Broker

SHOP = Path(__file__).parents[1] / "examples" / "shop"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
CHROMEDRIVER = shutil.which("chromedriver")
SECONDS = 60

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("shop_path")]


def free_port():
    """None that the system gives to whoever asks for any, before the shop has it (Linux begins at
    32768)."""
    while True:
        port = random.SystemRandom().randrange(20_000, 32_000)
        with socket.socket() as one, contextlib.suppress(OSError):
            one.bind(("127.0.0.1", port))
            return port


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """The URL of an open shop with ten of cd-07 and none of the rest."""
    folder = tmp_path_factory.mktemp("shop")
    with Broker(folder / "data") as broker:
        broker.create_topic("deliveries")
        broker.append("deliveries", b'{"productId": "cd-07", "quantity": 10}', b"cd-07")
    port = free_port()
    process = subprocess.Popen([sys.executable, str(SHOP / "services.py"), "--data",
                                str(folder / "data"), "--port", str(port)])
    url = f"http://127.0.0.1:{port}"
    try:
        wait_for(lambda: fetch(url)[0] == 200, "the shop does not open")
        yield url
    finally:
        process.terminate()
        process.wait(30)


def fetch(url, body=None, headers=()):
    """Status and text; 0: nobody answers."""
    data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(
                urllib.request.Request(url, data, dict(headers)), timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError:
        return 0, ""


def wait_for(is_so, otherwise):
    deadline = time.monotonic() + SECONDS
    while not (found := is_so()):
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.05)
    return found


def order_of(user="7", product="cd-07", quantity=1, cents=1500, **others):
    return {"userId": user, "totalCents": cents,
            "items": [{"productId": product, "quantity": quantity}], **others}


def key_for(user, is_far=False):
    """An Idempotency-Key of an order that a carrier can bring, as all but one of 200, or not."""
    from domain import is_unreachable, order_id_of

    keys = iter(lambda: str(uuid.uuid4()), None)
    return next(key for key in keys if is_unreachable(order_id_of(user, key)) == is_far)


def place(shop, order, **wanted):
    key = {"Idempotency-Key": key_for(order["userId"], **wanted)}
    status, text = fetch(f"{shop}/api/orders", order, key)
    assert status == 202, text
    return json.loads(text)["orderId"]


def settled(shop, order_id):
    """The order in the read model, once nothing more becomes of it."""
    def found():
        status, text = fetch(f"{shop}/api/orders/{order_id}")
        order = json.loads(text) if status == 200 else {}
        return order.get("status") in ("completed", "rejected") and order
    return wait_for(found, f"{order_id} goes on for ever")


def test_order_is_taken_at_once_and_completed(shop):
    order = settled(shop, place(shop, order_of(user="ann", quantity=2)))

    assert (order["status"], order["user_id"], order["item_count"], order["total_cents"]) == (
        "completed", "ann", 2, 1500)
    found = json.loads(fetch(f"{shop}/api/users/ann/orders")[1])["orders"]
    assert [one["order_id"] for one in found] == [order["order_id"]]


@pytest.mark.parametrize(("order", "is_far", "reason"), [
    (order_of(user="bob", product="cd-01"), False, "out of stock"),
    (order_of(user="cy", cents=100_001), False, "card refused"),
    (order_of(user="hal"), True, "no carrier goes there"),
])
def test_order_that_cannot_be_is_undone_with_its_reason(shop, order, is_far, reason):
    found = settled(shop, place(shop, order, is_far=is_far))

    assert found["status"] == "rejected"
    assert reason in found["reason"]


@pytest.mark.parametrize(("body", "status", "word"), [
    (b"", 400, "JSON"), (b"{", 400, ""), (b"[1]", 400, "object"), (b"\xff", 400, ""),
    (order_of(cents=0), 422, "totalCents"), (order_of(quantity=-1), 422, "quantity"),
    (order_of(user=""), 422, "userId"), ({**order_of(), "userId": 7}, 422, "userId"),
    ({**order_of(), "items": []}, 422, "items"), ({"items": "none"}, 422, "items"),
    (b"[" * 70_000, 400, "64 KiB"), (b"[" * 60_000, 400, "recursion"), (b"{}", 422, '["Object'),
], ids=range(13))
def test_what_is_no_order_is_refused_and_told_why(shop, body, status, word):
    found, text = fetch(f"{shop}/api/orders", body)

    assert found == status, text
    assert word in json.dumps(json.loads(text)["errors"])


def test_same_key_again_is_the_same_order(shop):
    key = {"Idempotency-Key": "of mine, with blanks"}
    first, second, foreign = (fetch(f"{shop}/api/orders", order_of(user=user), key)
                              for user in ("dee", "dee", "eve"))

    assert first == second != foreign
    settled(shop, json.loads(first[1])["orderId"])
    assert len(json.loads(fetch(f"{shop}/api/users/dee/orders")[1])["orders"]) == 1


def test_same_key_for_another_order_is_refused_and_places_none(shop):
    key = {"Idempotency-Key": "k-1"}
    first = order_of(user="fay")
    order_id = json.loads(fetch(f"{shop}/api/orders", first, key)[1])["orderId"]

    status, text = fetch(f"{shop}/api/orders", order_of(user="fay", quantity=2), key)

    assert status == 409
    assert "'k-1' was used for another order" in text
    assert fetch(f"{shop}/api/orders", dict(reversed(first.items())), key)[0] == 202
    assert settled(shop, order_id)["item_count"] == 1


def test_key_of_what_was_no_order_may_be_used_for_one(shop):
    key = {"Idempotency-Key": "k-2"}

    assert fetch(f"{shop}/api/orders", order_of(user="gil", cents=0), key)[0] == 422
    assert fetch(f"{shop}/api/orders", order_of(user="gil", cents=100), key)[0] == 202


def test_unknown_order_is_not_found(shop):
    assert fetch(f"{shop}/api/orders/nobody")[0] == 404


@contextlib.contextmanager
def browser(folder):
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for one in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic",
                "--no-first-run", "--disable-background-networking", "--disable-component-update",
                "--disable-sync", f"--user-data-dir={folder}", "--window-size=1000,900"):
        options.add_argument(one)
    driver = webdriver.Chrome(options, webdriver.ChromeService(CHROMEDRIVER))
    try:
        yield driver
    finally:
        driver.quit()


class Page:
    """The shop's page in a browser."""

    def __init__(self, driver, url):
        self.driver = driver
        self.url = url
        self.open()

    def open(self):
        self.driver.get(self.url)
        wait_for(lambda: self.text("#link") == "live", "no WebSocket")

    def text(self, selector):    # one step: what is there now may be replaced between two
        return self.driver.execute_script(
            "return document.querySelector(arguments[0])?.innerText ?? ''", selector)

    def order(self, **fields):
        """Of what a carrier can bring."""
        fields = {"user": "00042", **fields}
        for name, value in fields.items():
            field = self.driver.find_element("name", name)
            field.clear()
            field.send_keys(value)
        self.driver.execute_script("crypto.randomUUID = () => arguments[0]",
                                   key_for(fields["user"]))
        self.driver.find_element("tag name", "button").click()

    def wait_for_status(self, status):
        wait_for(lambda: self.text("#orders tr:first-child .status") == status,
                 f"it does not become {status}")

    def orders(self):
        return self.driver.find_elements("css selector", "#orders tr")


@pytest.fixture
def page(shop, tmp_path):
    if not (CHROMIUM and CHROMEDRIVER):
        pytest.skip("no Chromium with its driver here")
    with browser(tmp_path / "profile") as driver:
        yield Page(driver, shop)


def test_page_shows_an_order_live_until_it_is_completed(page, tmp_path):
    page.order(product="cd-07")
    page.wait_for_status("completed")
    page.order(product="cd-02")
    page.wait_for_status("rejected: out of stock")
    page.driver.save_screenshot(str(tmp_path / "page.png"))

    assert page.text("#orders tr:last-child .status") == "completed"
    wait_for(lambda: int(page.text('[data-figure="completed"]')) >= 1, "no figures come")
    page.order(total="0")
    wait_for(lambda: "totalCents" in page.text("#problem"), "nobody says what is wrong")
    page.open()    # and what it shows is kept
    wait_for(lambda: len(page.orders()) == 2, "no orders")
    page.wait_for_status("rejected: out of stock")    # the newest is the first


def test_order_whose_answer_is_lost_is_sent_again_and_is_one(page):
    page.driver.execute_script("""
        const ask = fetch;
        window.isLost = true;
        window.fetch = async (path, options) => {
          const answer = await ask(path, options);
          if (options?.method === "POST" && isLost) throw new TypeError("lost");
          return answer;
        };""")
    page.order(user="ivy", quantity="1")

    wait_for(lambda: "asking again" in page.text("#problem"), "nobody says what is wrong")
    page.driver.execute_script("isLost = false")
    page.wait_for_status("completed")
    assert page.text("#problem") == ""
    assert len(page.orders()) == 1
    page.open()
    page.order(user="ivy", product="cd-02")
    page.wait_for_status("rejected: out of stock")
    assert len(page.orders()) == 2
