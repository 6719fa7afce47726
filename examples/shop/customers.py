"""The shop's customers: orders go to its HTTP face, each until it was answered."""

import http.client
import json
import threading
import time
from collections import Counter

AT_ONCE = 4
RETRY_SECONDS = 0.05


class Customers:
    """Some threads that place orders. An order is sent again until there is an answer, under its
    key, so that whether the shop died before or after it took the order does not matter.

    answers: how many of each status. taken: the ids of the orders that the shop said it took.
    """

    def __init__(self, port, orders):
        self.port = port
        self.total = len(orders)
        self.answers = Counter()
        self.taken = []
        self.sent_again = 0
        self._orders = iter(orders)
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._order, daemon=True) for _ in range(AT_ONCE)]
        for thread in self._threads:
            thread.start()

    def are_done(self):
        return not any(thread.is_alive() for thread in self._threads)

    def _next(self):
        with self._lock:
            return next(self._orders, None)

    def _order(self):
        connection = None
        while (order := self._next()) is not None:
            key, body = order
            while True:
                try:
                    connection = connection or http.client.HTTPConnection(
                        "127.0.0.1", self.port, timeout=10)
                    connection.request("POST", "/api/orders", json.dumps(body),
                                       {"Idempotency-Key": key})
                    answer = connection.getresponse()
                    answer.read()
                    break
                except (OSError, http.client.HTTPException):    # the API was killed: again
                    connection.close()
                    connection = None
                    with self._lock:
                        self.sent_again += 1
                    time.sleep(RETRY_SECONDS)
            with self._lock:
                self.answers[answer.status] += 1
                if answer.status == 202:
                    self.taken.append(key)
