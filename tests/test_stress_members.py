"""`pylog stress` of groups and of queues: nothing in good ones, and something in bad ones."""

import json
import re

import pytest
from stressing import report_of, run, stress


@pytest.mark.slow
def test_group_whose_members_die_and_are_fenced_handles_every_record(log_path):
    report = run(log_path, "--workload", "group", "--nemesis", "kill,pause", "--seconds", 2,
                 "--rate", 1.5)

    counts = report["counts"]
    assert counts["faults"]["kill"] > 0
    assert counts["checked"] >= counts["acknowledged"] > 100    # some were handled again
    assert report["bounds"]["takeover_ms"]["p50"] > 0
    assert report["bounds"]["lone_takeover_ms"]["count"] <= report["bounds"]["takeover_ms"]["count"]


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


@pytest.mark.soak
@pytest.mark.parametrize("workload", ["group", "queue"])
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
    done = stress(log_path, "--json", "--workload", "group", "--seconds", 0.6,
                  script=TAKES_WHAT_ANOTHER_HAS)

    assert done.returncode == 4, done.stdout + done.stderr
    row = report_of(done)["anomalies"]["double-owner"]
    assert "diary-" in row["examples"][0]["file"]


GIVES_AWAY_TOO_EARLY = """
from pylog.cli import commands
from pylog.stress import queue_work

queue_work.LOCK_MS = 10
commands()
"""


@pytest.mark.slow
def test_queue_that_gives_away_too_early_is_found_and_named(log_path):
    done = stress(log_path, "--json", "--workload", "queue", "--seconds", 1,
                  script=GIVES_AWAY_TOO_EARLY)

    assert done.returncode == 4, done.stdout + done.stderr
    row = report_of(done)["anomalies"]["two-holders"]
    assert "diary-" in row["examples"][0]["file"]
