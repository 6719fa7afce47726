"""Server and AsyncServer: those who answer the requests of a topic. What `Rpc.handler` returns.

Servers of a group are workers of a queue (a share group): an idle one takes the next request.
"""

import asyncio
import contextlib
import logging
import threading
from typing import Any

from pylog import AsyncShareConsumer, Broker, ClosedError, Delivery, ShareConsumer, WakeupError
from pylog.patterns.answering import Answering, ServerStats
from pylog.patterns.background import AsyncBackground, Background
from pylog.patterns.retry import check_count

logger = logging.getLogger("pylog.patterns")

LOCK_SECONDS = 300     # until a request of who is stuck is another's; of who is dead it is at once
MAX_DELIVERIES = 5     # of a request that kills whoever takes it


class _Server:
    """What both have: a share consumer, and what is done with a request."""

    topic: str

    def __init__(self, kind: type[ShareConsumer] | type[AsyncShareConsumer], broker: Broker,
                 topic: str, answering: Answering, group: str, concurrency: int) -> None:
        self.topic = topic
        self.group = group
        self.error: BaseException | None = None
        self._broker = broker
        self._answering = answering
        self._concurrency = check_count("concurrency", concurrency)
        self._stopping = threading.Event()
        self._has_ended = False
        self._inside: set[Any] = set()
        self._consumer: Any = kind(
            broker, topic, group_id=group, acknowledgement_mode="explicit", ordered_by_key=True,
            lock_ms=1000 * LOCK_SECONDS, max_deliveries=MAX_DELIVERIES,
            on_reject=answering.give_up)
        broker.dependents.discard(self._consumer)    # closed by who takes from it

    # ---- in an event loop

    async def _run_async(self) -> None:
        consumer: AsyncShareConsumer = self._consumer
        tasks = [asyncio.ensure_future(self._serve_in_task(consumer))
                 for _ in range(self._concurrency)]
        try:
            await asyncio.gather(*tasks)
        except Exception as error:
            self._fail(error)
        finally:
            self._has_ended = True
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            await consumer.close()

    async def _serve_in_task(self, consumer: AsyncShareConsumer) -> None:
        self._inside.add(asyncio.current_task())
        while (delivery := await self._next(consumer)) is not None:
            try:
                with delivery:
                    answered = self._answering.answer(delivery.record)
                    if answered is not None:
                        await answered
            except Exception as error:
                self._tell(delivery, error)

    async def _next(self, consumer: AsyncShareConsumer) -> Delivery | None:
        """None: it is to stop."""
        try:
            return None if self._stopping.is_set() else await consumer.take()
        except WakeupError:
            self._ask_to_stop()    # the next of the tasks
            return None

    # ---- what went wrong, and the end

    def _tell(self, delivery: Delivery, error: Exception) -> None:
        """No reply could be sent, or another has the request by now."""
        logger.warning("%s on the request at %s-%s, offset %d: %s", self._answering.name,
                       delivery.topic, delivery.partition, delivery.offset, error)

    def _fail(self, error: BaseException) -> None:
        is_asked_to = self._stopping.is_set() or self._broker.closed
        if not (isinstance(error, ClosedError) and is_asked_to):
            self.error = self.error or error
            logger.error("a server of %r has ended: %s", self.topic, error, exc_info=error)

    def _ask_to_stop(self) -> None:
        self._stopping.set()
        with contextlib.suppress(ClosedError):
            self._consumer.wakeup()

    def stats(self) -> ServerStats:
        """What became of the requests."""
        return self._answering.stats

    def __repr__(self) -> str:
        state = "failed" if self.error else "stopped" if self._has_ended else "running"
        return f"<{type(self).__name__} of {self.topic!r}, group {self.group!r}, {state}>"


class Server(_Server, Background):
    """A function at work on requests, in threads; one that is `async def`, in an event loop of a
    thread. A context manager, which stops it."""

    def __init__(self, broker: Broker, topic: str, answering: Answering, group: str,
                 concurrency: int) -> None:
        super().__init__(AsyncShareConsumer if answering.is_async else ShareConsumer, broker, topic,
                         answering, group, concurrency)
        self._begin()

    def _run(self) -> None:
        self._inside.add(threading.get_ident())
        try:
            if self._answering.is_async:
                asyncio.run(self._run_async())
            else:
                self._run_threads()
        except BaseException as error:
            self._fail(error)
        finally:
            self._has_ended = True
            self._broker.dependents.discard(self)
            self._is_over.set()

    def _run_threads(self) -> None:
        """This one, and others."""
        others = [threading.Thread(target=self._serve, daemon=True,
                                   name=f"pylog-{self.topic}-{number}")
                  for number in range(1, self._concurrency)]
        try:
            for thread in others:
                thread.start()
            self._serve()
        finally:    # those begun end too, where one could not be started
            self._ask_to_stop()
            for thread in others:
                if thread.ident is not None:
                    thread.join()
            self._consumer.close()

    def _serve(self) -> None:
        self._inside.add(threading.get_ident())
        try:
            while not self._stopping.is_set():
                delivery = self._consumer.take()
                try:
                    with delivery:
                        self._answering.answer(delivery.record)
                except Exception as error:
                    self._tell(delivery, error)
        except WakeupError:
            pass
        except BaseException as error:
            self._fail(error)
        self._ask_to_stop()    # the next of the threads


class AsyncServer(_Server, AsyncBackground):
    """As Server, in tasks of the event loop that it was made in."""

    def __init__(self, broker: Broker, topic: str, answering: Answering, group: str,
                 concurrency: int) -> None:
        asyncio.get_running_loop()    # fails before anything is made
        super().__init__(AsyncShareConsumer, broker, topic, answering, group, concurrency)
        self._begin()
