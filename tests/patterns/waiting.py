"""Waiting for what another thread does: until it is so, or the test has failed."""

import time


def until(condition, seconds=20):
    """Returns what `condition` returns, once that is true."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.002)
    return found
