"""Notifiers, a group: who has ordered is told that it went through. A mail is a record in `emails`,
written under the order's key: there is a second only where one was killed before it was noted."""

from domain import COMPLETED, EMAILS, SAGA_PARTITIONS
from services import options, until_told_to_end

from pylog import Broker
from pylog.patterns import Idempotency, Retry, Topic, expo


def main():
    with Broker(options().data) as broker, \
            Topic(broker, EMAILS, value="json") as emails, \
            Topic(broker, COMPLETED, value="json", num_partitions=SAGA_PARTITIONS) as completed:
        idempotency = Idempotency(broker, "notifications")

        @idempotency.once(key=lambda order: order["orderId"])
        def send_email(order):
            emails.publish({"to": order["userId"], "orderId": order["orderId"],
                            "subject": "Order confirmed"}, key=order["userId"])
            return "sent"

        completed.subscribe(lambda record: send_email(record.value), group="notifiers",
                            retry=Retry(5, expo(0.05, 1)))
        until_told_to_end()


if __name__ == "__main__":
    main()
