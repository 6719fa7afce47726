"""Another task of the event loop, which counts its turns."""

import asyncio
import contextlib


class Turns:
    count = 0

    async def take(self):
        while True:
            self.count += 1
            await asyncio.sleep(0)


@contextlib.contextmanager
def turns_of_another():
    """That task, while the body runs."""
    turns = Turns()
    task = asyncio.ensure_future(turns.take())
    try:
        yield turns
    finally:
        task.cancel()
