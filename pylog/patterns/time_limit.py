"""TimeLimit: a function that takes too long is interrupted by an exception in its own thread.

As dramatiq does it: CPython raises where the thread runs Python next. A call into C that does not
return (a socket without a time-out, a long sleep) is not interrupted before it does.
"""

import ctypes
import threading


class TimeLimit:
    """`with TimeLimit(seconds, Error): ...` raises Error() within the body, or on leaving it, once
    that has gone on for so long. None: no limit. Cost: a thread a limit, 50 us.
    """

    def __init__(self, seconds: float | None, error: type[BaseException]) -> None:
        self._error = error
        self._lock = threading.Lock()
        self._is_over = False
        self._timer = None if seconds is None else threading.Timer(seconds, self._expire)

    def __enter__(self) -> None:
        self._thread = threading.get_ident()
        if self._timer is not None:
            self._timer.daemon = True
            self._timer.start()

    def __exit__(self, *exception: object) -> None:
        if self._timer is not None:
            with self._lock:
                self._is_over = True
            self._timer.cancel()

    def _expire(self) -> None:
        with self._lock:
            if not self._is_over:
                self._is_over = True
                ctypes.pythonapi.PyThreadState_SetAsyncExc(
                    ctypes.c_ulong(self._thread), ctypes.py_object(self._error))
