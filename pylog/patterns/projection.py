"""Projection: a view folded from events, in a database of its own, to be asked as reads want it.

    orders = Projection(broker, "orders_by_user", source=store, view="views.db",
                        schema="CREATE TABLE IF NOT EXISTS orders (id PRIMARY KEY, user, total)")

    @orders.on("order.cancelled")
    def cancelled(db, event):
        db.execute("DELETE FROM orders WHERE id = ?", (event.data["id"],))

    orders.start()                                    in one process of many, or in several
    orders.wait(store.append(...))                    what was just written, can be read now

Commands append events, queries read the view: CQRS. What the view has is what the events come to,
so it may be thrown away and made anew, in another form, by `rebuild`.
"""

import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterator
from typing import Any, Self, TypeVar

from pylog import (
    Broker,
    ConfigurationError,
    IllegalStateError,
    ProjectionError,
    PylogTimeoutError,
    WakeupError,
)
from pylog.patterns.dbapi import Database
from pylog.patterns.letter import burier
from pylog.patterns.projection_run import Progress, ProjectionRun
from pylog.patterns.projection_status import ProjectionStatus, Told
from pylog.patterns.projector import Projector, Source, Writer
from pylog.patterns.retry import Retry, check_retry
from pylog.patterns.standby import Standby
from pylog.patterns.view_file import ViewFile
from pylog.patterns.views import View

logger = logging.getLogger("pylog.patterns")

GROUP_PREFIX = "projection."
LOOK_MS = 200    # between looks whether the view is still the same file, and is to be told

Function = TypeVar("Function", bound=Callable[..., Any])


class Projection(Standby):
    """Functions that write into a view what records say. A context manager, which runs it. `wait`,
    `status` and `stop` are for all threads, the rest for one.

    broker: a Broker, or the path of one, which is then closed with the projection. name: unlike any
    other's; a table belongs to one projection. source: an EventStore, a Bus, a Topic, or the name
    of a topic, whose records are bytes. view: the path of an SQLite database, or a function that
    returns a new DB-API connection (PEP 249). schema: the statements that make its tables, with IF
    NOT EXISTS; "": your migrations do.

    retry: of a function that raises; one attempt by default, and no breaker. What it cannot mend
    stops the projection, for a view with a hole would be wrong and not say so. dlq: True, or the
    name of a topic: such a record is a dead letter and left out (of a rebuild: another letter).

        >>> import sqlite3
        >>> from pylog.patterns import Bus
        >>> broker = Broker("data")
        >>> shop = Bus(broker, "shop")
        >>> orders = Projection(broker, "orders", source=shop, view="views.db",
        ...                     schema="CREATE TABLE IF NOT EXISTS orders (id, total)")
        >>> @orders.rows("order.placed", "INSERT INTO orders VALUES (?, ?)")
        ... def placed(event):
        ...     return event.data["id"], event.data["total"]
        >>> with orders:
        ...     orders.wait(shop.emit("order.placed", {"id": 17, "total": 20}))
        ...     sqlite3.connect("views.db").execute("SELECT * FROM orders").fetchall()
        [(17, 20)]
        >>> broker.close()

    **Guarantee**: how far it is stands in the view, and changes in one transaction with the rows:
    after any kill the view is what the records up to there come to, **exactly once each**. Others
    read it meanwhile, and see whole transactions only. Of any number of processes that run it one
    works, and another takes over at once when that dies. Functions must do nothing but write into
    the view: what else they do may be done twice. Cost: what `executemany` of the same rows takes,
    0.5 us a record more, and what the functions do; a transaction has what has come, 10,000 records
    or 0.1 s at most.
    """

    def __init__(
        self, broker: Broker | str | os.PathLike[str], name: str, *, source: Source,
        view: Database, schema: str = "", retry: Retry | None = None, dlq: bool | str = False,
    ) -> None:
        if not isinstance(name, str):
            raise TypeError(f"name must be a str, not {type(name).__name__}")
        if not name:
            raise ConfigurationError("name is empty; give the projection one", option="name",
                                     value=name)
        if not isinstance(schema, str):
            raise TypeError(f"schema must be a str, not {type(schema).__name__}")
        self._retry = check_retry(retry, GROUP_PREFIX + name)
        if self._retry.mode == "park":
            raise ConfigurationError("a view needs its records in order, which mode='park' gives "
                                     "up; use 'inline'", option="retry", value=retry)
        group = GROUP_PREFIX + name
        self._projector = Projector(source, group)
        self._file = ViewFile(view)
        self._schema = schema
        self._reset: Callable[[Any], object] | None = None
        opened, self._is_owner = Broker.of(broker)
        super().__init__(opened, name, group)
        self._run_now: ProjectionRun | None = None
        try:
            self._check_source(source)
            self._told = Told(opened, name, group, self._projector.topic, self._file)
            self._bury = burier(opened, dlq, group, self._projector.topic)
        except BaseException:
            self._close_broker()
            raise

    def _check_source(self, source: Source) -> None:
        self._broker.topic(self._projector.topic)    # makes it, or says that it is missing
        path = self._broker.path if isinstance(source, str) else source.broker.path
        if not os.path.samefile(path, self._broker.path):
            raise ConfigurationError(
                f"the source is of the broker {str(path)!r}, and the projection of "
                f"{str(self._broker.path)!r}: give both the same", option="source", value=path)

    # ---- what is written

    def on(self, pattern: Any = None, function: Callable[[Any, Any], object] | None = None) -> Any:
        """Calls function(db, event) for each event whose type the pattern matches; without a
        function, a decorator.

        pattern: a type, with wildcards as `Bus.on` has them, or a class that `@event` declares;
        None: every record. db: the view's connection, in a transaction that the projection commits.
        event: what handlers of the source get: a StoredEvent, an Event, a TypedRecord or a Record.
        Several functions that want the same are called in the order in which they were registered.
        Raises TypeError for `async def`, ConfigurationError.
        """
        def register(function: Function) -> Function:
            self._add(Writer(function, None, pattern))
            return function
        return register if function is None else register(function)

    def rows(self, pattern: Any, statement: str) -> Callable[[Function], Function]:
        """A decorator: function(event) returns the parameters of the statement, or None for none.

        Those of events in a row go through one `executemany`, which is what it is quick by: for
        tables that grow by one row an event. pattern: as `on`'s. statement: in the style of the
        database's module. Raises as `on`.
        """
        if not isinstance(statement, str):
            raise TypeError(f"statement must be a str, not {type(statement).__name__}")

        def register(function: Function) -> Function:
            self._add(Writer(function, statement, pattern))
            return function
        return register

    def reset(self, function: Function) -> Function:
        """A decorator: function(db) empties the tables, for `rebuild`; it must not commit. Without
        one the tables of an SQLite `schema` are dropped and made anew."""
        self._reset = function
        return function

    def _add(self, writer: Writer) -> None:
        if self._run_now is not None or self.is_running:
            raise IllegalStateError(f"the projection {self.name!r} runs, and a function that comes "
                                    "now would miss events: stop it first, and then rebuild() it")
        self._projector.add(writer)

    def _check_functions(self) -> None:
        if self._projector.is_empty:
            raise IllegalStateError(f"the projection {self.name!r} has no function: register some "
                                    "by on() or rows() first")

    # ---- running

    def start(self) -> Self:
        """Begins in a thread, or stands by while another process is at it; returns itself. What
        the database or the broker fail on is tried again, see `error`; a record that does not go in
        ends it. Raises IllegalStateError where no function is registered."""
        self._check_functions()
        return super().start()

    def run(self) -> None:
        """Works until another thread stops it, or Ctrl-C. Raises ProjectionError."""
        thread = self.start()._thread
        try:
            if thread is not None:
                thread.join()
        finally:
            self.stop()
        self._check_error()

    def run_once(self, timeout: float | None = None) -> int:
        """Puts into the view what there is now; returns how many records were read. Waits while
        another process runs it; raises PylogTimeoutError after `timeout` seconds, ProjectionError,
        and what the database raises."""
        with self._broker.claim(self._claim_name, timeout), self._running(time.sleep) as run:
            self._told.tell(run.places, run.identity)    # what one who was killed had not told
            total = 0
            while count := run.step():
                total += count
                self._told.tell(run.places, run.identity)
            return total

    def rebuild(self, progress: Progress | None = None) -> int:
        """Empties the view and fills it from the first record on, in one transaction; returns how
        many records were read.

        Others read the old view until it is done, and a kill, or an exception of progress, leaves
        the old one. Any process may call it, also while another runs the projection: that waits,
        and goes on in the new view. progress(done, total) is called every 0.1 s or so. Cost: as
        running does; the view is on disk twice meanwhile. Raises ConfigurationError where nobody
        has said how tables are emptied; ProjectionError.
        """
        with self._running(time.sleep, seeks=False) as run:
            done = run.rebuild(progress)
            # Who runs it tells by itself, and an older place must not be told after his.
            with contextlib.suppress(PylogTimeoutError), self._broker.claim(self._claim_name, 0):
                run.seek()
                self._told.tell(run.places, run.identity)
            return done

    def _work(self) -> None:
        try:
            while not self._is_stopping:
                with self._running(self._pause) as self._run_now:
                    self._work_in(self._run_now)
        except (_Stopped, WakeupError):
            pass
        except ProjectionError as error:
            self.error = error
            self._is_stopping = True
            logger.error("%s", error, exc_info=error)
        finally:
            self._run_now = None

    def _work_in(self, run: ProjectionRun) -> None:
        """Until it is to stop, or the view is not there any more, or another one is."""
        is_news = 1    # what one who was killed had not told
        while not self._is_stopping and run.identity == self._file.identity:
            if is_news:
                self._told.tell(run.places, run.identity)
            self.error = None
            is_news = run.step(LOOK_MS)

    @contextlib.contextmanager
    def _running(self, wait: Callable[[float], None], seeks: bool = True,
                 ) -> Iterator[ProjectionRun]:
        self._check_functions()
        if self._file.identity is None:
            with self._broker.claim(f"{self._claim_name}.file"):
                if self._file.identity is None:    # not made by a rebuild meanwhile
                    self._told.tell({}, None)      # before there is one that somebody might believe
                    self._file.make()
        view = View(self._file, self._schema, self._reset)
        with contextlib.closing(ProjectionRun(self._broker, self.name, self._projector, view,
                                              self._retry, self._bury, wait)) as run:
            if seeks:
                run.seek()
            yield run

    def _pause(self, seconds: float) -> None:
        self._wait(seconds)
        if self._is_stopping:
            raise _Stopped

    def wake(self) -> None:
        super().wake()
        if self._is_stopping and (run := self._run_now) is not None:
            run.consumer.wakeup()

    # ---- how far it is

    def wait(self, position: Any, timeout: float | None = 10.0) -> None:
        """Until the view has a record: what was written, is read then, in any process.

        position: what `append`, `emit`, `publish` have returned. Cost: 20 us if it is there. Raises
        PylogTimeoutError, ProjectionError if it has stopped in this process, ConfigurationError for
        a position of another topic.
        """
        try:
            partition, offset = position.partition, position.offset
        except AttributeError:
            raise TypeError("position must be what append(), emit() or publish() returned, not "
                            f"{type(position).__name__}") from None
        topic = getattr(position, "topic", self._projector.topic)
        if topic != self._projector.topic:
            raise ConfigurationError(
                f"the position is of {topic!r}, and the view is made of "
                f"{self._projector.topic!r}: pass what was returned for that",
                option="position", value=str(position))
        try:
            self._told.wait(partition, offset, timeout, self._check_error)
        except PylogTimeoutError as late:
            raise late from self.error    # what it is tried again for, if this process runs it

    def _check_error(self) -> None:
        if isinstance(self.error, ProjectionError):
            raise self.error

    def status(self) -> ProjectionStatus:
        """How it stands, whoever runs it."""
        return self._told.status()

    # ---- lifetime

    def close(self) -> None:
        """Stops it, and closes the broker if it was opened here; idempotent."""
        self.stop()
        self._close_broker()

    def _close_broker(self) -> None:
        if self._is_owner:
            self._broker.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exception: object) -> None:
        self.close()


class _Stopped(Exception):
    """Ends a run while a record waits for its next attempt."""
