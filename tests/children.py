"""Child processes for tests: forked ones that answer, and Python scripts of their own."""

import contextlib
import os
import pickle
import signal
import threading
import time
import traceback

from pylog.broker import Broker


def pickled(result):
    try:
        return pickle.dumps(result)
    except Exception:       # pytest's own failures, and exceptions of local classes
        return pickle.dumps(AssertionError(repr(result)))


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
                pipe.write(pickled(result))
        finally:
            os._exit(0)
    os.close(target)
    with os.fdopen(source, "rb") as pipe:
        result = pipe.read()
    _, status = os.waitpid(pid, 0)
    assert status == 0, f"the child ended with {os.waitstatus_to_exitcode(status)}"
    return pickle.loads(result)


@contextlib.contextmanager
def appended_soon(path, value, **where):
    """Another process appends to the topic "orders", in a moment."""
    def act():
        time.sleep(0.05)
        with Broker(path) as other:
            other.append("orders", value, **where)

    thread = threading.Thread(target=in_child, args=[act])
    thread.start()
    try:
        yield
    finally:
        thread.join()


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


def start(action, *arguments):
    """Runs action(*arguments) in a forked child; returns its pid. It ends with 1 if that raises."""
    pid = os.fork()
    if pid == 0:
        try:
            action(*arguments)
            os._exit(0)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    return pid


def kill(pid):
    """SIGKILL, and no zombie."""
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
