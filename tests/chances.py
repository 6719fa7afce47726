"""Claims about time, on a machine that has other work: it is given some chances."""

import time


def assert_once_below(seconds, action, tries=10):
    """action(number): returns what it took, in seconds. Once at least that is below `seconds`."""
    taken = []
    while not taken or (min(taken) >= seconds and len(taken) < tries):
        taken.append(action(len(taken)))
    assert min(taken) < seconds, taken


def until_in_time(seconds, tries=50):
    """Numbers, until what was done for one took less than `seconds`."""
    for number in range(tries):
        begun = time.monotonic()
        yield number
        if time.monotonic() - begun < seconds:
            return
    raise AssertionError(f"{tries} times it took longer than {seconds} s")
