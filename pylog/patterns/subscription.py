"""Subscription: records of a topic given to handlers, in a thread or a task of its own.

What Topic and Bus run on. What is done with a record, `reader.py` says; how it is begun and ended,
`background.py`.
"""

import asyncio
import logging
import threading
from collections.abc import Sequence

from pylog import AsyncConsumer, Broker, Consumer, GroupError, Record
from pylog.patterns.background import AsyncBackground, Background
from pylog.patterns.handler import Handler
from pylog.patterns.reader import Reader, Route, Start, Stopped

logger = logging.getLogger("pylog.patterns")


class Subscription(Reader, Background):
    """What `subscribe` returns: handlers at work in a thread. A context manager, which stops it.

    A handler that is `async def` runs in an event loop of that thread. Closing the broker stops it,
    and so does the end of the interpreter, which waits a second for what is in work.
    """

    def __init__(self, broker: Broker, topic: str, route: Route, handlers: Sequence[Handler], *,
                 group: str | None = None, start: Start = None, concurrency: int = 1) -> None:
        self._is_async = any(one.is_async for one in handlers)
        super().__init__(AsyncConsumer if self._is_async else Consumer, broker, topic, route,
                         handlers, group, start, concurrency)
        broker.dependents.discard(self._consumer)    # closed by its thread
        self._begin()

    def _run(self) -> None:
        self._inside.add(threading.get_ident())
        try:
            if self._is_async:
                asyncio.run(self._run_async())
            elif self._parking is None:
                self._run_here()
            else:
                self._run_with_parking()
        except BaseException as error:
            self._fail(error)
        finally:
            self._has_ended = True
            if not self._is_async:
                self._consumer.close()
            self._broker.dependents.discard(self)
            self._is_over.set()

    def _run_with_parking(self) -> None:
        beside = threading.Thread(target=self._work_parked, daemon=True,
                                  name=f"pylog-parked-{self.topic}")
        beside.start()
        try:
            self._run_here()
        finally:
            self._parking.stop()
            beside.join()
            self._parking.close()

    def _work_parked(self) -> None:
        self._inside.add(threading.get_ident())
        try:
            self._parking.work(self._process)
        except BaseException as error:
            self._fail(error)
            self._ask_to_stop()

    def _run_here(self) -> None:
        if self.group is None:
            self._consumer.run(self._process, self._concurrency)
        elif self._concurrency == 1:
            self._consumer.run(self._process_and_commit)
        else:
            self._consumer.run(self._process, self._concurrency, commit_every=1)

    def _process(self, record: Record, only: str | None = None, failed: int = 0) -> None:
        if self._concurrency > 1:
            self._inside.add(threading.get_ident())
        item, handlers = self._chosen(record, only)
        for handler in handlers:
            handler.run(record, item, self._wait, self._park, failed)

    def _process_and_commit(self, record: Record) -> None:
        item, handlers = self._chosen(record)
        for handler in handlers:
            handler.run(record, item, self._wait, self._park)
        try:
            self._consumer.commit()
        except GroupError as error:    # the partition is another's now, who does it again
            logger.info("commit of %s-%s, offset %d: %s", record.topic, record.partition,
                        record.offset, error)

    def _wait(self, seconds: float) -> None:
        if self._stopping.wait(seconds):
            raise Stopped


class AsyncSubscription(Reader, AsyncBackground):
    """As Subscription, a task of the event loop that it was made in. An async context manager.

    A task that is cancelled cancels its handlers; their records are read again.
    """

    def __init__(self, broker: Broker, topic: str, route: Route, handlers: Sequence[Handler], *,
                 group: str | None = None, start: Start = None, concurrency: int = 1) -> None:
        asyncio.get_running_loop()    # fails before anything is made
        super().__init__(AsyncConsumer, broker, topic, route, handlers, group, start, concurrency)
        self._begin()
