"""A place for tables and the processes that share them, for tests of both."""

import time

from pylog import _native

VERSION, BOOT, NAMESPACE = 8, 16, 56    # where they are in a file
PATIENCE_S = 30    # what does not come about by then never will


def take_part(place):
    processes = _native.Processes(place / "processes", place / "doorbells")
    processes.join()
    return processes


def table_processes(place):
    return _native.Processes(place / "processes", place / "doorbells")


def eventually(condition, seconds=PATIENCE_S):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.0005)


def change_byte(path, at):
    with open(path, "r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 0xff]))
