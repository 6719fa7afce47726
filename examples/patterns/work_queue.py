"""Point to point: two workers share a queue of e-mails, one of which can never be sent.

    python examples/patterns/work_queue.py
"""

import tempfile

import pylog
from pylog.patterns import DeadLetters, Queue


def send(delivery):
    """What a worker does with one message; what it raises gives the message back."""
    if delivery.value["to"] == "nobody":
        raise LookupError("no such address")
    print(f"sent {delivery.value['text']!r} to {delivery.value['to']}")


with (pylog.Broker(tempfile.mkdtemp()) as broker,
      Queue(broker, "emails", value="json", max_deliveries=2) as emails):
    emails.put({"to": "alice", "text": "welcome"})
    emails.put({"to": "nobody", "text": "hello?"})
    emails.put({"to": "bob", "text": "your order"}, delay=0.2)
    emails.put({"to": "alice", "text": "welcome"}, dedup_key="welcome-alice")
    emails.put({"to": "alice", "text": "welcome"}, dedup_key="welcome-alice")    # adds nothing

    emails.work(send, concurrency=2, idle=0.5)

    print(emails.stats())
    for letter in DeadLetters(broker, group="queue").list():
        print(f"dead: {letter.value.decode()} ({letter.message}, {letter.attempts} attempts)")
