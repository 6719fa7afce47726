"""A thread that stands still, as one does whose time the machine gives to others."""

import threading
import time


def late_once(look, seconds, meanwhile):
    """`look`, whose first answer that there is nothing comes so late; meanwhile() comes before."""
    first = threading.Semaphore()

    def look_or_be_late(*given):
        found = look(*given)
        if not found and first.acquire(blocking=False):
            meanwhile()
            time.sleep(seconds)
        return found

    return look_or_be_late
