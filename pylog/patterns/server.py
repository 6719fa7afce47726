"""Server and AsyncServer: subscriptions that answer. What `Rpc.handler` returns."""

import logging

from pylog import Broker, GroupError, Record
from pylog.patterns.answering import Answering, ServerStats
from pylog.patterns.handler import Handler
from pylog.patterns.retry import Retry
from pylog.patterns.subscription import AsyncSubscription, Subscription

logger = logging.getLogger("pylog.patterns")


def _handler(answering: Answering) -> Handler:
    """One that is never tried again: what fails is told to who asked."""
    return Handler(answering.answer, answering.name, Retry(attempts=1), None, False,
                   answering.is_async)


class Server(Subscription):
    """A function at work on requests, in a thread. A context manager, which stops it."""

    def __init__(self, broker: Broker, topic: str, answering: Answering, group: str,
                 concurrency: int) -> None:
        self._answering = answering
        handlers = (_handler(answering),)
        super().__init__(broker, topic, lambda record: (record, handlers), handlers, group=group,
                         concurrency=concurrency)

    def _process_and_commit(self, record: Record) -> None:
        """As any subscription's, on a shorter way: each step here is time that somebody waits."""
        self._answering.answer(record)
        try:
            self._consumer.commit()
        except GroupError as error:    # another has the partition, and answers again
            logger.info("%s: %s", self._answering.name, error)

    def answers(self) -> ServerStats:
        """What became of the requests."""
        return self._answering.stats


class AsyncServer(AsyncSubscription):
    """As Server, a task of the event loop that it was made in."""

    def __init__(self, broker: Broker, topic: str, answering: Answering, group: str,
                 concurrency: int) -> None:
        self._answering = answering
        handlers = (_handler(answering),)
        super().__init__(broker, topic, lambda record: (record, handlers), handlers, group=group,
                         concurrency=concurrency)

    def answers(self) -> ServerStats:
        """What became of the requests."""
        return self._answering.stats
