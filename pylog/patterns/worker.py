"""Worker: jobs in threads of this process, until they are told to stop or one of them fails."""

import contextlib
import contextvars
import functools
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from pylog import IllegalStateError
from pylog.patterns.handler import is_async

SIGNALS = (signal.SIGINT, signal.SIGTERM)


# Whether a consumer or a listener of a worker is what runs.
is_listening: contextvars.ContextVar[bool] = contextvars.ContextVar("pylog_listening",
                                                                    default=False)


class Job(NamedTuple):
    """What goes on until it is told to stop; `run` raises what ends it otherwise."""

    name: str
    run: Callable[[], object]
    stop: Callable[[], object]


class Worker:
    """Begins jobs and ends them, again and again. stopping: set while they are to end."""

    def __init__(self) -> None:
        self.stopping = threading.Event()
        self._lock = threading.RLock()
        self._running: list[tuple[Job, threading.Thread]] = []
        self._opened: contextlib.ExitStack | None = None
        self._error: BaseException | None = None

    def start(self, jobs: Callable[[contextlib.ExitStack], Iterable[Job]]) -> None:
        """A thread for each that `jobs` makes; what they share goes on the stack, and is closed
        when all have ended. Raises IllegalStateError if there are some already, and what making
        a job raises, with those before it stopped."""
        with self._lock:
            if self._opened is not None:
                raise IllegalStateError("the app has been started: stop it first")
            self._opened = contextlib.ExitStack()
            try:
                for job in jobs(self._opened):
                    thread = threading.Thread(target=self._do, args=(job,), daemon=True,
                                              name=f"pylog-{job.name}")
                    self._running.append((job, thread))
                    thread.start()
            except BaseException:
                self.stop()
                raise

    def _do(self, job: Job) -> None:
        try:
            job.run()
        except BaseException as error:    # `wait` raises it
            self._error = error
            self.stopping.set()

    def wait(self) -> None:
        """Until it is to stop, and has. Raises what a job has failed with."""
        self.stopping.wait()
        self.stop()
        error, self._error = self._error, None
        if error is not None:
            raise error

    def stop(self) -> None:
        """Ends all, after what is in work; idempotent."""
        with self._lock:
            self.stopping.set()
            for job, _ in self._running:
                job.stop()
            for _, thread in self._running:
                if thread.ident is not None:    # else it is the one that could not be started
                    thread.join()
            self._running.clear()
            if self._opened is not None:
                self._opened.close()
                self._opened = None
            self.stopping.clear()

    @contextlib.contextmanager
    def signals(self) -> Iterator[None]:
        """The first SIGINT or SIGTERM asks for the end; then they mean what they did before."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.getsignal(number) for number in SIGNALS}

        def restore() -> None:
            for number, handler in before.items():
                signal.signal(number, handler)

        def ask(number: int, frame: object) -> None:
            restore()
            self.stopping.set()

        for number in SIGNALS:
            signal.signal(number, ask)
        try:
            yield
        finally:
            restore()


def marked(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A consumer or a listener that `stop` knows: it would wait for itself."""
    if is_async(function):
        @functools.wraps(function)
        async def call_async(item: Any) -> Any:
            is_listening.set(True)    # in a context of its own
            return await function(item)
        return call_async

    @functools.wraps(function)
    def call(item: Any) -> Any:
        token = is_listening.set(True)
        try:
            return function(item)
        finally:
            is_listening.reset(token)
    return call
