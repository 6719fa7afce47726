"""Tasks that are sent again and again, by whichever worker is first.

A task of every 60 seconds is due at each multiple of 60 seconds since the epoch, so all workers
agree when, without a word; and each such moment is a dedup key, so it is sent once. (A worker that
is killed in the midst of it may have sent it twice: see `Task.options`.)
"""

import logging
import threading
import time
from collections.abc import Sequence
from typing import NamedTuple

from pylog import PylogError
from pylog.patterns.task import Task

logger = logging.getLogger("pylog.patterns")


class Every(NamedTuple):
    """A task and its seconds."""

    task: Task
    seconds: float

    def moment(self) -> int:
        """Which one it is now: a count since the epoch."""
        return int(time.time() // self.seconds)

    def send(self, moment: int) -> None:
        """Unless somebody has. What cannot be sent now is told, and left out."""
        try:
            self.task.options(dedup_key=f"{self.task.name} every {self.seconds}: {moment}").send()
        except PylogError as error:
            logger.warning("%s is not sent: %s", self.task, error)


def send_when_due(entries: Sequence[Every], stopping: threading.Event) -> None:
    """Until `stopping`: what is due from now on. What was due while no worker lived is left out."""
    last = {one: one.moment() for one in entries}
    while True:
        due = min((last[one] + 1) * one.seconds for one in entries)
        if stopping.wait(max(0.0, due - time.time())):
            return
        for one in entries:
            moment = one.moment()
            if moment > last[one]:
                last[one] = moment
                one.send(moment)
