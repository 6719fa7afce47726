"""`pylog stress` of groups, queues, requests: nothing in good ones, and something in bad ones."""

import json
import re

import pytest
from stressing import run, run_until_found, stress


@pytest.mark.slow
def test_group_whose_members_die_and_are_fenced_handles_every_record(log_path):
    report = run(log_path, "--workload", "group", "--nemesis", "kill,pause", "--seconds", 2,
                 "--rate", 1.5)

    counts = report["counts"]
    assert counts["faults"]["kill"] > 0
    assert counts["checked"] >= counts["acknowledged"] > 100    # some were handled again
    takeovers, alone = (report["bounds"][name] for name in ("takeover_ms", "lone_takeover_ms"))
    assert takeovers["p50"] > 0
    assert alone.get("count", 0) <= takeovers["count"]    # in 2 s there may be none


@pytest.mark.slow
def test_report_of_a_group_says_what_is_measured_of_one(log_path):
    done = stress(log_path, "--workload", "group", "--seconds", 0.3, "--seed", 3)

    counts = json.loads((log_path / "group/report.json").read_text())["counts"]
    handled = f"handled: {counts['checked']:,} times a record, {counts['handled_again']:,} of them"
    assert handled in done.stdout
    assert counts["commits"] > 0
    assert "faults: none; --nemesis kill,pause has some" in done.stdout
    assert not re.search(r"\?|bytes|turns|rolls|checker", done.stdout)


@pytest.mark.slow
def test_queue_whose_workers_die_and_are_stopped_does_every_message(log_path):
    report = run(log_path, "--workload", "queue", "--nemesis", "kill,pause", "--seconds", 2,
                 "--rate", 2)

    counts = report["counts"]
    assert counts["faults"]["kill"] > 0
    assert counts["checked"] >= counts["acknowledged"] > 100
    assert counts["commits"] > 100


@pytest.mark.slow
def test_requests_whose_askers_and_servers_die_and_are_stopped_are_served(log_path):
    report = run(log_path, "--workload", "request", "--nemesis", "kill,pause", "--seconds", 2,
                 "--rate", 2)

    counts = report["counts"]
    assert counts["faults"]["kill"] > 0
    assert counts["details"]["requests"] >= counts["acknowledged"] > 0
    assert counts["details"]["replies"] > 0


@pytest.mark.slow
def test_requests_are_served_once_where_nobody_is_killed(log_path):
    done = stress(log_path, "--workload", "request", "--seconds", 1)

    assert done.returncode == 0, done.stdout + done.stderr
    assert ", 0 of them again; " in done.stdout
    counts = json.loads((log_path / "request/report.json").read_text())["counts"]
    assert f"of it: {counts['details']['requests']:,} requests, " in done.stdout


@pytest.mark.slow
def test_run_of_requests_is_replayed(log_path, tmp_path):
    first = run(log_path, "--workload", "request", "--nemesis", "kill", "--seconds", 0.5)
    again = run(tmp_path / "again", "--replay", log_path / "request/report.json")

    assert again["plan"] == first["plan"]


@pytest.mark.soak
@pytest.mark.parametrize("workload", ["group", "queue", "request"])
def test_minutes_of_deaths_of_members(log_path, workload):
    run(log_path, "--workload", workload, "--nemesis", "kill,pause", "--seconds", 120, timeout=300)


TAKES_WHAT_ANOTHER_HAS = """
from pylog import membership
from pylog.cli import commands

def take(self, wanted, generation, roster, listener):
    new = sorted(wanted - self.owned)
    for partition in new:
        place = self.group.place(partition)
        self.table.own(place, self.table.owner(place)[0], self.number)
    self.owned |= set(new)
    if new:
        listener._assigned(new)
membership.Membership._take = take
commands()
"""


@pytest.mark.slow
def test_group_that_shares_partitions_too_early_is_found_and_named(log_path):
    report = run_until_found({"double-owner"}, log_path, "--workload", "group", seconds=0.6,
                             script=TAKES_WHAT_ANOTHER_HAS)

    row = report["anomalies"]["double-owner"]
    assert "diary-" in row["examples"][0]["file"]


GIVES_AWAY_TOO_EARLY = """
from pylog.cli import commands
from pylog.stress import queue_work

queue_work.LOCK_MS = 10
commands()
"""


@pytest.mark.slow
def test_queue_that_gives_away_too_early_is_found_and_named(log_path):
    report = run_until_found({"two-holders"}, log_path, "--workload", "queue", seconds=1,
                             script=GIVES_AWAY_TOO_EARLY)

    row = report["anomalies"]["two-holders"]
    assert "diary-" in row["examples"][0]["file"]


BREAKS_A_PROMISE = """
import contextlib, time, types
from pylog.cli import commands
from pylog.patterns import queue
from pylog.stress import queue_work

put, accepts = queue._Queue._put, queue._Queue._accepts

def put_at_once(self, value, key, headers, delay, ttl):
    return put(self, value, key, headers, 0, ttl)

def accept_all(self, delivery):
    return True

def work_slowly(self):    # so that messages wait for longer than they live
    time.sleep(0.06)
    return work(self)

def claim_nothing(self, dedup_key):
    return contextlib.nullcontext(types.SimpleNamespace(done=False, save=lambda: None))

work = queue_work.Worker.work
if {what} is accept_all:
    queue_work.Worker.work, queue_work.FEED = work_slowly, 3
queue._Queue.{method} = {what}
commands()
"""


@pytest.mark.slow
@pytest.mark.parametrize(("anomaly", "method", "what"), [
    ("delivered-early", "_put", "put_at_once"),
    ("delivered-expired", "_accepts", "accept_all"),
    ("duplicate-put", "_claim_of", "claim_nothing"),
], ids=lambda one: one if "-" in one else "")
def test_promise_of_a_queue_that_is_broken_is_found_and_named(log_path, anomaly, method, what):
    report = run_until_found({anomaly}, log_path, "--workload", "queue", "--nemesis", "pause",
                             "--rate", 4, seconds=1.5,
                             script=BREAKS_A_PROMISE.format(method=method, what=what))

    assert [*report["anomalies"]] == [anomaly]


FAULTY = """
import itertools, time
from pylog.cli import commands
from pylog.patterns import answering, replies, server
from pylog.stress import request_work

numbers = itertools.count()
append, take, result = (answering.Answering._append, replies.Inbox._take,
                        replies.PendingReply.result)

def is_time():
    return next(numbers) % 5 == 4

def drop_a_reply(self, *given):
    return True if is_time() else append(self, *given)

def reply_twice(self, *given):
    if is_time():
        append(self, *given)
    return append(self, *given)

def mix_askers_up(self):
    if len(self._pending) > 1:
        one, other, *_ = self._pending
        pending = self._pending
        pending[one], pending[other] = pending[other], pending[one]
    return take(self)

def give_late_replies(self):    # who asks again gets what came meanwhile
    try:
        return result(self)
    except replies.RequestTimeoutError:
        self._inbox._pending[self.number] = self
        raise

def ack_before(self):    # and a while for a kill to come between
    while not self._stopping.is_set():
        delivery = self._consumer.take(0.1)
        if delivery is not None:
            delivery.ack()
            time.sleep(0.005)
            self._answering.answer(delivery.record)

def ack_never(self):
    kept = []
    while not self._stopping.is_set():
        kept.append(self._consumer.take(0.1))
        if kept[-1] is not None:
            self._answering.answer(kept[-1].record)

def serve_alone(broker, answerer, board, concurrency):    # the way that is made faulty
    serve(broker, answerer, board, 1)

def give_up_at_half_time(self, topic, number, timeout):
    return expect(self, topic, number, timeout / 2)

def append_slowly(self, *given):
    time.sleep({slow})
    return append(self, *given)

expect, serve = replies.Inbox.expect, request_work.serve
request_work.serve = serve_alone
if {slow}:
    answering.Answering._append = append_slowly
request_work.SHORT, request_work.BURST, request_work.REST_SECONDS = {short}, {burst}, {rest}
request_work.BRIEF, request_work.AGAIN = {brief}, {again}
{place} = {what}
commands()
"""

# Few a second: on a busy machine members need half of one to be there.
KILLS = {"nemesis": "kill", "seconds": 4}


@pytest.mark.slow
@pytest.mark.parametrize(("anomaly", "place", "what", "more"), [
    ("foreign-reply", "replies.Inbox._take", "mix_askers_up", {}),
    ("lost-reply", "answering.Answering._append", "drop_a_reply", {}),
    ("miscounted-reply", "answering.Answering._append", "reply_twice", {}),
    ("late-reply", "replies.PendingReply.result", "give_late_replies",
     {"burst": 1, "short": 0.005, "slow": 0.006, "rest": 0.01, "brief": 0.5, "again": 1}),
    ("early-time-out", "replies.Inbox.expect", "give_up_at_half_time", {"slow": 0.015}),
    ("lost-request", "server.Server._serve", "ack_before", KILLS),
    ("served-again", "server.Server._serve", "ack_never", KILLS),
], ids=lambda one: one if isinstance(one, str) and "." not in one else "")
def test_fault_of_request_reply_is_found_and_named(log_path, anomaly, place, what, more):
    settings = {"burst": 8, "short": 0.02, "slow": 0, "rest": 0.06, "brief": 0.1,
                "again": 0.2, "nemesis": "", "seconds": 1.5} | more
    report = run_until_found({anomaly}, log_path, "--workload", "request", "--nemesis",
                             settings["nemesis"], "--quiet-seconds", 2, seconds=settings["seconds"],
                             script=FAULTY.format(place=place, what=what, **settings))

    rows = report["anomalies"]
    assert rows[anomaly]["severity"] == "never allowed"
    assert rows[anomaly]["examples"][0]["file"]
