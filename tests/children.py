"""Child processes for tests: forked ones that answer, and Python scripts of their own."""

import os
import pickle


def in_child(action):
    """Runs `action` in a forked child and returns (what it returned or raised) by pickle."""
    source, target = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(source)
            try:
                result = action()
            except BaseException as error:
                result = error
            with os.fdopen(target, "wb") as pipe:
                pickle.dump(result, pipe)
        finally:
            os._exit(0)
    os.close(target)
    with os.fdopen(source, "rb") as pipe:
        result = pickle.load(pipe)
    os.waitpid(pid, 0)
    return result
