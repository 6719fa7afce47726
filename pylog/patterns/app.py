"""App: functions that workers run. Tasks that are sent, consumers of topics, listeners to events.

    app = App("data")                         tasks.py

    @app.task
    def transcode(video, formats): ...        one call for one worker

    @app.consumer("orders", group="billing")
    def bill(record): ...                     each record of a topic

    $ pylog run tasks:app --workers 4 --reload

    <app>.<queue>          calls that were sent: a Queue
    <app>.results          how each stands, its progress and its result (task_status.py)
    idempotency.<app>.sends    the dedup keys of calls, where some were given
"""

import contextlib
import logging
import os
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple, Self, TypeVar

from pylog import Broker, ClaimLostError, ConfigurationError, IllegalStateError
from pylog.patterns.bus import Bus
from pylog.patterns.events import declared
from pylog.patterns.handler import check_handler, name_of
from pylog.patterns.idempotency import Idempotency
from pylog.patterns.pubsub import Topic
from pylog.patterns.queue import Queue
from pylog.patterns.retry import Retry, check_count, check_name, check_retry, check_seconds, expo
from pylog.patterns.schedule import Every, send_when_due
from pylog.patterns.task import Task, at_work
from pylog.patterns.task_runner import TaskRunner
from pylog.patterns.task_status import QUEUED, TaskResult, TaskStates, TaskStatus
from pylog.patterns.unpicklable import Unpicklable
from pylog.patterns.values import codec_of, listed
from pylog.patterns.wildcards import matcher
from pylog.patterns.worker import Job, Worker, is_listening, marked

logger = logging.getLogger("pylog.patterns")

Function = TypeVar("Function", bound=Callable[..., Any])

DELIVERIES_MAX = 65_535    # a task's own limits come first


class _Listener(NamedTuple):
    """A function that was declared to be called with what a topic, or a bus, has."""

    source: str
    pattern: Any        # of a bus; None: of a topic
    function: Callable[[Any], Any]
    options: dict[str, Any]


class App(Unpicklable):
    """Tasks, consumers and listeners of a program, and the worker that runs them. A context
    manager, safe for threads. Who only sends needs nothing but this.

    broker: a Broker, or the path of one, which is opened when it is first needed: a module that
    declares an app touches no disk when it is imported. name: of the app, before the names of its
    topics. ttl: seconds that a task is remembered after its last change. lock: seconds after which
    a worker that is stopped (SIGSTOP) loses what it has; one that is at work keeps it.

    Guarantees: a call whose `send` returned is done at least once, and once where no worker is
    killed or stopped. What a killed worker had is begun again by another within 200 ms; what has a
    result is not done again. A task that fails is tried as often as its Retry says, one that kills
    its workers five times more; then it is a dead letter, with its reason, and its status "failed".
    Progress and results are seen by all processes.

        >>> from pylog.patterns import current_task
        >>> with App("data") as app:
        ...     @app.task
        ...     def add(a, b):
        ...         current_task().progress(0.5, "thinking")
        ...         return a + b
        ...     app.start()
        ...     sum = add.send(1, 2)
        ...     sum.result(timeout=10), sum.status().state, add(1, 2)
        (3, 'done', 3)
    """

    def __init__(self, broker: Broker | str | os.PathLike[str], name: str = "app", *,
                 ttl: float = 86_400, lock: float = 30.0) -> None:
        self.name = check_name("name", name)
        self.ttl = check_seconds("ttl", ttl)
        self.lock = check_seconds("lock", lock)
        self.tasks: dict[str, Task] = {}
        self._given = broker
        self._is_owner = False
        self._opened: Broker | None = None
        self._queues: dict[str, Queue] = {}
        self._listeners: list[_Listener] = []
        self._schedule: list[Every] = []
        self._mutex = threading.RLock()
        self._worker = Worker()

    # ---- declaring

    def task(self, function: Any = None, *, name: str | None = None, queue: str = "default",
             retry: Retry | None = None, timeout: float | None = None) -> Any:
        """A decorator, with or without arguments: makes a Task of a function, or of a coroutine
        function, whose arguments and result are JSON.

        name: that of the function by default; what is sent bears it, so rename with care. queue:
        which one, for workers that run some only. retry: one attempt by default. timeout: seconds
        after which TaskTimeoutError is raised within it, and counts as any error; a call into C
        that does not return is not interrupted, but another worker has the task after `lock`.
        Raises ConfigurationError, TypeError.
        """
        if function is None:
            return partial(self.task, name=name, queue=queue, retry=retry, timeout=timeout)
        made = Task(check_handler(function, None), _short(function) if name is None else name,
                    check_name("queue", queue), check_retry(retry, None), timeout, self._send)
        if made.name in self.tasks:
            raise ConfigurationError(f"two tasks are called {made.name!r}: pass name= to one",
                                     option="name", value=made.name)
        self.tasks[made.name] = made
        return made

    def every(self, seconds: float, **options: Any) -> Callable[[Callable[[], Any]], Task]:
        """A decorator: makes a task that is sent at each multiple of `seconds` since the epoch, by
        one of the workers that live then. options: as `task`'s."""
        if not check_seconds("seconds", seconds):
            raise ConfigurationError("every 0 seconds is always: use more", option="seconds",
                                     value=seconds)

        def register(function: Callable[[], Any]) -> Task:
            made: Task = self.task(check_handler(function, 0), **options)
            self._schedule.append(Every(made, seconds))
            return made
        return register

    def consumer(self, topic: str, *, group: str | None = None, value: Any = None,
                 start: Any = None, retry: Retry | None = None, dlq: bool | str | None = None,
                 concurrency: int = 1) -> Callable[[Function], Function]:
        """A decorator: calls the function with each record of a topic, in one of the workers.

        group: `<app>.<function>` by default. The rest as `Topic` and its `subscribe` have it.
        """
        codec_of(value)
        check_name("topic", topic)
        return partial(self._listen, topic, None, group, {
            "value": value, "start": start, "retry": check_retry(retry, self.name), "dlq": dlq,
            "concurrency": check_count("concurrency", concurrency)})

    def on(self, pattern: Any, *, bus: str = "events", group: str | None = None, start: Any = None,
           retry: Retry | None = None, dlq: bool | str | None = None) -> Callable[
               [Function], Function]:
        """A decorator: calls the function with each event that the pattern matches, in one of the
        workers.

        bus: the name of a Bus, whose events are JSON. group: `<app>.<function>` by default, so that
        each function waits for no other. The rest as `Bus.on` has it.
        """
        check_name("bus", bus)
        said = declared(pattern)
        matcher(pattern if said is None else said.type)
        return partial(self._listen, bus, pattern, group, {
            "start": start, "retry": check_retry(retry, self.name), "dlq": dlq})

    def _listen(self, source: str, pattern: Any, group: str | None, options: dict[str, Any],
                function: Function) -> Function:
        check_handler(function)
        if group is None:
            group = f"{self.name}.{_short(function)}"
        if pattern is None and any(one.source == source and one.options["group"] == group
                                   for one in self._listeners if one.pattern is None):
            raise ConfigurationError(
                f"two consumers of {source!r} have the group {group!r}, and each would get a part "
                "of the records: pass group= to one", option="group", value=group)
        self._listeners.append(_Listener(source, pattern, function, {**options, "group": group}))
        return function

    # ---- sending

    @property
    def broker(self) -> Broker:
        """It, opened if need be."""
        return self._open()

    def _open(self) -> Broker:
        with self._mutex:
            if self._opened is None:
                self._opened, self._is_owner = Broker.of(self._given)
                self._states = TaskStates(self._opened, self.name, self.ttl)
                self._sends = Idempotency(self._opened, f"{self.name}.sends", self.ttl)
            return self._opened

    def _queue(self, name: str) -> Queue:
        broker = self._open()
        with self._mutex:
            if name not in self._queues:
                self._queues[name] = Queue(
                    broker, f"{self.name}.{name}", value="json", lock=self.lock,
                    max_deliveries=DELIVERIES_MAX, backoff=expo(0.1, 30))
            return self._queues[name]

    def _send(self, task: Task, args: tuple[Any, ...], kwargs: dict[str, Any],
              options: dict[str, Any]) -> TaskResult:
        queue = self._queue(task.queue)
        dedup_key = options["dedup_key"]
        if dedup_key is None:
            return self._put(queue, task, args, kwargs, options, uuid.uuid4().hex)
        once = f"{task.name}:{dedup_key}"    # another task of the same key is another call
        with self._sends.claim(once) as claim:
            if claim.done:
                return TaskResult(self._states, claim.result)
            # Who was killed behind the next line has put a call of this id, too: see TaskRunner.
            sent = self._put(queue, task, args, kwargs, options,
                             uuid.uuid5(uuid.NAMESPACE_URL, f"pylog:task:{once}").hex)
            with contextlib.suppress(ClaimLostError):    # it took longer than the key is remembered
                claim.save(sent.id)
            return sent

    def _put(self, queue: Queue, task: Task, args: tuple[Any, ...], kwargs: dict[str, Any],
             options: dict[str, Any], task_id: str) -> TaskResult:
        call: dict[str, Any] = {"id": task_id, "task": task.name, "args": args,
                                "kwargs": kwargs}
        if options["dedup_key"] is not None:
            call["once"] = True
        queue.put(call, key=options["key"], delay=options["delay"], ttl=options["ttl"])
        self._states.tell(task_id, task.name, QUEUED)
        return TaskResult(self._states, task_id)

    def result(self, task_id: str) -> TaskResult:
        """The TaskResult of a task that was sent earlier, or elsewhere."""
        if not isinstance(task_id, str):
            raise TypeError(f"the id of a task is a str, not {type(task_id).__name__}")
        self._open()
        return TaskResult(self._states, task_id)

    def statuses(self) -> list[TaskStatus]:
        """Of all tasks that are remembered, in the order of their last changes."""
        self._open()
        return self._states.all()

    # ---- working

    def start(self, concurrency: int = 1, queues: Sequence[str] | None = None) -> None:
        """Makes this process a worker, in threads, and returns. `stop` ends it.

        concurrency: how many tasks of each queue are at work at a time. queues: whose tasks; None:
        all. Raises IllegalStateError if it has begun, ConfigurationError for an unknown queue.
        """
        check_count("concurrency", concurrency)
        known = {one.queue for one in self.tasks.values()}
        wanted = known if queues is None else set(listed("queues", queues))
        if unknown := sorted(wanted - known):
            raise ConfigurationError(
                f"no task has the queue {unknown[0]!r}; there are {', '.join(sorted(known))}",
                option="queues", value=queues)
        if not (known or self._listeners):
            raise ConfigurationError("the app has nothing to do: declare tasks, consumers or "
                                     "listeners before it starts, or import where they are")
        self._open()
        self._worker.start(partial(self._jobs, concurrency, sorted(wanted)))

    def _jobs(self, concurrency: int, queues: Sequence[str],
              opened: contextlib.ExitStack) -> Iterator[Job]:
        runner = opened.enter_context(contextlib.closing(
            TaskRunner(self.name, self.tasks, self._states, self.lock)))
        for name in queues:
            queue = self._queue(name)
            yield Job(name, partial(queue.work, runner, concurrency), queue.stop)
        buses: dict[str, Bus] = {}
        for source, pattern, function, options in self._listeners:
            if pattern is None:
                more = dict(options)
                topic = Topic(self.broker, source, value=more.pop("value"))
                subscription = topic.subscribe(marked(function), **more)
                yield Job(source, subscription.join, topic.close)
            else:
                if source not in buses:
                    buses[source] = Bus(self.broker, source)
                buses[source].on(pattern, marked(function), **options)
        for name, bus in buses.items():
            yield Job(name, bus.run, bus.close)
        if self._schedule:
            stopping = self._worker.stopping
            yield Job("schedule", partial(send_when_due, self._schedule, stopping), stopping.set)

    def stop(self) -> None:
        """Ends what `start` began, after what is in work; idempotent. What runs in the worker
        calls `quit`, and gets IllegalStateError here."""
        if at_work.get(None) or is_listening.get():
            raise IllegalStateError("what runs in the worker cannot wait for its end: call quit()")
        self._worker.stop()

    def run(self, concurrency: int = 1, queues: Sequence[str] | None = None) -> None:
        """`start`, and `stop` once another thread calls `quit`, or this process gets SIGTERM or
        SIGINT (Ctrl-C): what is in work is finished. A second signal ends it at once, and what was
        in work is another's. Raises what a consumer or a queue has failed with.
        """
        with self._worker.signals():
            self.start(concurrency, queues)
            self._worker.wait()

    def quit(self) -> None:
        """Lets `run` end; returns at once."""
        self._worker.stopping.set()

    # ---- lifetime

    def close(self) -> None:
        """Stops, and closes what was opened here; idempotent. What is sent afterwards opens it
        again: an app is a declaration, of a module, and lives as long as that."""
        self.stop()
        with self._mutex:
            for queue in self._queues.values():
                queue.close()
            self._queues.clear()
            if self._opened is not None and self._is_owner:
                self._opened.close()
            self._opened = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<App {self.name!r}, {len(self.tasks)} tasks>"


def _short(function: Any) -> str:
    """Its name without what it is in: a script that is run and the module that is imported mean
    the same."""
    return name_of(function).rpartition(".")[2]
