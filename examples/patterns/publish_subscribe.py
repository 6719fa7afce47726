"""Publish-subscribe: who registers does not know who is told.

Each group has every event once, however many processes are in it; who has no group sees what comes
while it looks. One that fails stops no other.

    python examples/patterns/publish_subscribe.py
"""

import tempfile
import threading

from pylog.patterns import Topic


def main() -> None:
    told, all_told = [], threading.Barrier(4)
    with tempfile.TemporaryDirectory(dir=".") as data, Topic(data, "users", value="json") as users:
        @users.subscribe(group="welcome-mail")
        def send_welcome_mail(record):
            told.append(f"a mail for user {record.value['user']}")
            all_told.wait(10)

        @users.subscribe(group="analytics")
        def count(record):
            told.append(f"one more: {record.value['event']}")
            all_told.wait(10)

        @users.subscribe()
        def look_on(record):
            told.append(f"offset {record.offset}")
            all_told.wait(10)

        users.publish({"event": "registered", "user": 123}, key="123")
        all_told.wait(10)
    print("\n".join(sorted(told)))


if __name__ == "__main__":
    main()
