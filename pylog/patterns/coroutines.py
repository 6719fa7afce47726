"""An event loop in a thread of its own, for coroutine functions that a thread has to call."""

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any


class Coroutines:
    """The loop runs from here on until `close`."""

    def __init__(self) -> None:
        self._has_begun = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)
        self._thread.start()
        self._has_begun.wait()

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._end = asyncio.Event()
        self._has_begun.set()
        await self._end.wait()

    def begin(self, coroutine: Coroutine[Any, Any, Any]) -> Future[Any]:
        """Its result, to come."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def close(self) -> None:
        """Cancels those that are not done, and waits for them."""
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join()
