"""Worker: jobs begun and ended, also where not all of them can be begun."""

import threading

import pytest

from pylog.patterns.worker import Job, Worker


def test_worker_that_could_not_start_a_thread_can_be_started_again(monkeypatch):
    worker, begun, stops = Worker(), threading.Thread.start, [threading.Event() for _ in range(2)]
    jobs = [Job(str(number), stop.wait, stop.set) for number, stop in enumerate(stops)]

    def fails(thread):
        if thread.name == "pylog-1":
            raise RuntimeError("can't start new thread")
        begun(thread)

    with monkeypatch.context() as context:
        context.setattr(threading.Thread, "start", fails)
        with pytest.raises(RuntimeError, match="new thread"):
            worker.start(lambda stack: jobs)
    assert stops[0].is_set()
    worker.start(lambda stack: jobs)
    worker.stop()
