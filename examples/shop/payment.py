"""Payment: accounts as event streams. An order is charged once, however often it is asked for."""

from dataclasses import dataclass, field

from domain import ACCOUNTS, CARD_LIMIT_CENTS, SAGA, SAGA_PARTITIONS
from services import options, until_told_to_end

from pylog import Broker, TerminalError, WrongExpectedVersionError
from pylog.patterns import Bus, EventStore, NewEvent, serve

CHARGED, REFUNDED = "payment.charged", "payment.refunded"


@dataclass
class Account:
    """What the events of a user come to."""

    spent: int = 0
    charged: dict = field(default_factory=dict)    # cents by order
    refunded: set = field(default_factory=set)

    def after(self, event):
        order, cents = event.data["orderId"], event.data["cents"]
        if event.type == CHARGED:
            self.charged[order] = cents
            self.spent += cents
        else:
            self.refunded.add(order)
            self.spent -= cents
        return self


class Payments:
    """Decides on what has happened, and appends on condition that nothing else has since."""

    def __init__(self, broker):
        self.accounts = EventStore(broker, ACCOUNTS)

    def decide(self, user, decision):
        """Appends the event that decision(account) returns, if it returns one."""
        while True:
            account, version = self.accounts.fold(f"account-{user}", Account, Account.after)
            event = decision(account)
            if event is None:
                return
            try:
                self.accounts.append(f"account-{user}", event, expected_version=version)
                return
            except WrongExpectedVersionError:    # another process was faster: look again
                continue

    def charge(self, order):
        order_id, cents = order["orderId"], order["totalCents"]

        def decision(account):
            if order_id in account.refunded:
                raise TerminalError("refunded already")
            if order_id in account.charged:
                return None
            if account.spent + cents > CARD_LIMIT_CENTS:
                raise TerminalError("card refused")
            return NewEvent(CHARGED, {"orderId": order_id, "cents": cents})

        self.decide(order["userId"], decision)

    def refund(self, order):
        order_id = order["orderId"]

        def decision(account):
            if order_id in account.refunded or order_id not in account.charged:
                return None
            return NewEvent(REFUNDED, {"orderId": order_id, "cents": account.charged[order_id]})

        self.decide(order["userId"], decision)


def main():
    with Broker(options().data) as broker, Bus(broker, SAGA, num_partitions=SAGA_PARTITIONS) as bus:
        payments = Payments(broker)
        serve(bus, "saga.processPayment", lambda event: payments.charge(event.data),
              reply="saga.paymentProcessed", failed="saga.paymentRefused", group="payment")
        serve(bus, "saga.refundPayment", lambda event: payments.refund(event.data),
              reply="saga.paymentRefunded", group="payment")
        bus.start()
        until_told_to_end()


if __name__ == "__main__":
    main()
