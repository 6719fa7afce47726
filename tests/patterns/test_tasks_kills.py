"""Workers and senders of tasks are killed: each accepted task is done, its result told once."""

import os
import random
import time
from collections import Counter

import pytest
from chances import assert_once_below
from parties import Diary, Party, kill_at_random
from waiting import until

import pylog
from pylog.patterns import App, Retry, current_task
from pylog.patterns.key_claim import KeyClaim
from pylog.patterns.task_status import TaskStates, status_of

ROUNDS = 20


def app_of(path, diary=None):
    app = App(path)

    @app.task(retry=Retry(attempts=None))
    def double(number, seconds):
        current_task().progress(0.5, f"in process {os.getpid()}")
        time.sleep(seconds)
        if diary:
            diary.write(number)
        return 2 * number

    @app.task(retry=Retry(attempts=None))
    def stay():
        """Until its worker is killed; whoever has it next is through at once."""
        current_task().progress(0.5, f"in process {os.getpid()}")
        if current_task().attempt == 1:
            time.sleep(60)

    @app.task
    def poison(pid_file):
        Diary(pid_file).write(os.getpid())
        os.kill(os.getpid(), 9)

    return app


def send_for_ever(path, diary, first):
    rng = random.Random(first)
    with app_of(path) as app:
        for number in range(first, 1 << 40):
            sent = app.tasks["double"].send(number, rng.choice((0, 0.001, 0.005)))
            diary.write(f"{sent.id} {number}")
            time.sleep(0.002)


def work_for_ever(path, diary=None):
    app_of(path, diary).run(concurrency=2)


def check_kills(tmp_path, seed, rounds):
    path, rng = tmp_path / "broker", random.Random(seed)
    done, accepted = Diary(tmp_path / "done"), [Diary(tmp_path / f"sent-{n}") for n in range(2)]
    parties = [Party(send_for_ever, path, diary, number << 32)
               for number, diary in enumerate(accepted)]
    parties += [Party(work_for_ever, path, done) for _ in range(3)]
    kill_at_random(parties, rng, rounds)
    until(lambda: sum(len(one.lines()) for one in accepted) > 20, 60)    # on a slow machine, longer
    for party in parties:
        party.kill()

    sent = [line.split() for diary in accepted for line in diary.lines()]
    with app_of(path, done) as app:
        app.start(concurrency=4)
        for task_id, number in sent:
            assert app.result(task_id).result(30) == 2 * int(number)
        until(lambda: app._queue("default").stats()[:4] == (0, 0, 0, 0))
        app.stop()
        told = [status_of(record) for record in app.broker.read("app.results")]
    judge(sent, told, Counter(map(int, done.lines())))


def judge(sent, told, done):
    results = Counter(one.id for one in told if one.state == "done")
    begun = Counter(one.id for one in told if one.state == "running" and not one.message)
    print(f"{len(sent)} accepted, {sum(begun.values())} attempts, {sum(done.values())} finished")
    assert len(sent) > 20, "hardly anything was sent"
    assert {int(number) for _, number in sent} <= set(done), "a task was not done"
    assert set(results.values()) == {1}, "a result was told twice"
    assert {one.id for one in told if one.message} >= set(results), "progress was not told"
    assert not [one for one in told if one.state in ("failed", "retrying")]


@pytest.mark.slow
def test_killed_workers_and_senders_lose_no_task_and_tell_each_result_once(tmp_path, seed):
    check_kills(tmp_path, seed, ROUNDS)


@pytest.mark.soak
def test_hundreds_of_kills_lose_no_task(tmp_path, seed):
    check_kills(tmp_path, seed, 30 * ROUNDS)


@pytest.mark.slow
def test_what_a_killed_worker_had_is_begun_again_within_200_ms(tmp_path):
    path = tmp_path / "broker"
    workers = [Party(work_for_ever, path) for _ in range(2)]
    with app_of(path) as app:
        def seconds(_):
            sent = app.tasks["stay"].send()
            words = until(lambda: sent.status().message)
            [party] = [one for one in workers if words == f"in process {one.pid}"]
            killed = time.time()
            party.kill()
            until(lambda: sent.status().attempt == 2)
            took = sent.status().updated - killed
            assert sent.result(30) is None
            party.start()
            return took

        assert_once_below(0.2, seconds)
    for party in workers:
        party.kill()


def die_with_its_result(path, diary):
    """Told, and not acknowledged."""
    tell = TaskStates.tell

    def tell_and_die(states, task_id, task, state, *more, **options):
        tell(states, task_id, task, state, *more, **options)
        if state == "done":
            os.kill(os.getpid(), 9)

    TaskStates.tell = tell_and_die
    work_for_ever(path, diary)


def test_what_has_a_result_is_not_begun_again(tmp_path):
    path, diary = tmp_path / "broker", Diary(tmp_path / "done")
    with app_of(path, diary) as app:
        sent = app.tasks["double"].send(1, 0)
        os.waitpid(Party(die_with_its_result, path, diary).pid, 0)
        app.start()
        until(lambda: app._queue("default").stats()[:4] == (0, 0, 0, 0))
        assert (sent.result(0), sent.status().attempt) == (2, 1)
    assert diary.lines() == ["1"]


def die_before_the_key_is_saved(path):
    KeyClaim.save = lambda claim, result: os.kill(os.getpid(), 9)
    app_of(path).tasks["double"].options(dedup_key="one").send(1, 0)


def test_what_was_sent_twice_by_one_key_is_done_once(tmp_path):
    path, diary = tmp_path / "broker", Diary(tmp_path / "done")
    with app_of(path, diary) as app:
        os.waitpid(Party(die_before_the_key_is_saved, path).pid, 0)
        [first] = app.statuses()
        sent = app.tasks["double"].options(dedup_key="one").send(1, 0)
        other = app.tasks["double"].options(dedup_key="other").send(1, 0)
        app.start()
        until(lambda: app._queue("default").stats()[:4] == (0, 0, 0, 0))
        assert (sent.id, sent.result(0)) == (first.id, 2)
        assert other.id != sent.id
        assert len(list(app.broker.read("app.default"))) == 3
    assert diary.lines() == ["1", "1"]


@pytest.mark.slow
def test_a_task_that_kills_its_workers_is_a_dead_letter_in_the_end(tmp_path):
    path, pids = tmp_path / "broker", Diary(tmp_path / "pids")
    with app_of(path) as app:
        sent = app.tasks["poison"].send(str(pids.path))
        for count in range(1, 7):
            party = Party(work_for_ever, path)
            os.waitpid(party.pid, 0)
            assert len(pids.lines()) == count
        app.start()
        with pytest.raises(pylog.TaskFailedError,
                           match="WorkerLostError: poison was begun 6 times"):
            sent.result(30)
