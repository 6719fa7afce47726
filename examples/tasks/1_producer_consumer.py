"""Practice 1: orders keyed by user, shared by two consumers of a group. The text is in README.md.

    python examples/tasks/1_producer_consumer.py
"""

import json
import tempfile
import threading

from pylog import Broker, Consumer, Producer


def consume(broker: Broker, name: str, seen: list, ready: threading.Barrier | None = None) -> None:
    with Consumer(broker, "orders", group_id="order-processors", consumer_timeout_ms=300) as orders:
        if ready:
            orders.poll(0)    # joins the group: the topic is empty yet
            ready.wait(10)
        for record in orders:    # asking for the next one says that this one is finished
            order = json.loads(record.value)
            seen.append((name, record.key.decode(), order["number"]))


def main() -> None:
    seen, ready = [], threading.Barrier(3)
    with tempfile.TemporaryDirectory(dir=".") as data, Broker(f"{data}/shop") as broker:
        broker.create_topic("orders", 3)
        with Producer(broker, value_serializer="json") as producer:
            threads = [threading.Thread(target=consume, args=(broker, name, seen, ready))
                       for name in "AB"]
            for thread in threads:
                thread.start()
            ready.wait(10)
            for number in range(30):
                producer.send("orders", {"number": number}, key=f"user-{number % 7}".encode())
            for thread in threads:
                thread.join()
            producer.send("orders", {"number": 30}, key=b"user-2")
        consume(broker, "C", seen)    # goes on where they were
    assert sorted(number for _, _, number in seen) == list(range(31))
    for user in {user for _, user, _ in seen}:
        numbers = [number for _, other, number in seen if other == user]
        assert numbers == sorted(numbers)
    print({name: sum(one[0] == name for one in seen) for name in "ABC"}, "each once, and in order")


if __name__ == "__main__":
    main()
