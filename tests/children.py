"""Child processes for tests: forked ones that answer, and Python scripts of their own."""

import os
import pickle
import signal
import traceback


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


def killed(action):
    """Runs `action` in a forked child that then kills itself: what it returns is never closed."""
    pid = os.fork()
    if pid == 0:
        try:
            held = action()
            os.kill(os.getpid(), signal.SIGKILL)
            del held
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status), "the child failed before it could be killed"
