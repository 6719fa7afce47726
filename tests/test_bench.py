"""The bench at smoke size: it runs, verifies what it moves, and has every row that was promised.

No figure is judged here: absolute times never fail a test.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# Start of a row's name, gate, ambition: the table that docs/performance.md explains.
PROMISED = [
    ("append(value)", 3.5, 2.6),
    ("log.append(value)", None, None),
    ("append(value, key, timestamp)", 4.5, 3.0),
    ("append_many(list)", 2.2, 1.45),
    ("Producer.send(topic, value), linger 0", 2.0, 1.5),
    ("send_many(list)", 1.2, 1.05),
    ("send_many(list, keys)", 2.5, 1.6),
    ("the same producer, over confluent-kafka", 5, 15),
    ("fetch as bytes, CRC, 6.6 MB", 1.9, 1.35),
    ("fetch as bytes, CRC, 55 MB", 2.3, 1.9),
    ("fetch as lazy Record, CRC, 6.6 MB", 1.8, 1.1),
    ("fetch as lazy Record, CRC, 55 MB", 1.8, 1.1),
    ("for record in consumer, commits every 100 ms", 1.25, 1.1),
    ("for record in consumer, no group", None, None),
    ("async for record in consumer", 0.5, 0.8),
    ("consume(500)", 1.2, 1.05),
    ("consume(500), over confluent-kafka", 5, 15),
    ("idle consumer of 50 partitions", 0.1, None),
    ("from send to a waiting consumer", 1.5, 1.2),
    ("next record, then commit(), one partition", 5, 2),
    ("columns, 100 B records", 0.5, 0.7),
    ("columns, 1 KB records", 0.8, 0.9),
    ("batch views with CRC", 0.9, 1.0),
    ("written one by one, read", 0.9, 0.97),
    ("bytes a record, written by append", 110.0, None),
    ("bytes a record, written by append_many", 110.0, None),
    ("one writer, one reader process", 40, 130),
    ("another process sees it, spinning", 1.0, 0.5),
    ("another process sees it, blocking", 1.3, 1.1),
    ("request-reply, one after the other", 2.5, 1.5),
    ("request-reply, both have slept", 2.5, 1.5),
    ("queue put, get, ack, one process, over the best", 20, 50),
    ("2 producers, 2 workers as processes, over mp.Queue", 2, 10),
    ("put to handler in another, idle, process", 2, 1.3),
    ("get, a million messages waiting", 1.1, 1),
    ("projection of records over executemany", 0.7, 0.9),
    ("projection of events in JSON over executemany", None, None),
    ("audit entries, record_many, over Log.append", 10, 4),
    ("audit entries, one by one, over Log.append", None, None),
    ("bus dispatch, 100 wildcard handlers", 3, 1),
    ("event store append, expected version", 2, 0.5),
    ("event store opened", None, None),
    ("saga steps a second, run", 20, 100),
    ("saga steps a second, submitted", 20, 100),
    ("takeover after SIGKILL", 100, 60),
    ("the same, 0.00098 GiB resident", 100, 60),
    ("a process joins 8 with 64 partitions: gap over none", 1.5, 1.1),
    ("a process joins 8 with 64 partitions: balanced", 500, 100),
    ("reopen, closed cleanly", 10, 2),
    ("reopen, after kill -9", 50, 10),
    ("reopen, 2 GB against 200 MB", 1.5, 1.1),
    ("anonymous memory of a reader", 32, 8),
]


def run_bench(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "bench", *arguments], cwd=ROOT, capture_output=True, text=True,
        timeout=400, check=False,
        env={name: value for name, value in os.environ.items() if "XDIST" not in name})


def scratch():
    """What benches have left, killed ones too."""
    return set((ROOT / "build" / "scratch").glob("bench-*"))


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    """Output and rows of one run of everything at smoke size."""
    path = tmp_path_factory.mktemp("bench") / "rows.json"
    before = scratch()
    done = run_bench("--smoke", "--json", str(path))
    assert done.returncode == 0, done.stderr
    return done.stdout, json.loads(path.read_text()), scratch() - before


@pytest.mark.slow
@pytest.mark.parametrize(("name", "gate", "ambition"), PROMISED, ids=lambda value: str(value))
def test_every_promised_row_is_measured(smoke, name, gate, ambition):
    rows = [row for row in smoke[1]["rows"] if row["name"].startswith(name)]

    assert rows, f"no row begins with {name!r}"
    assert (rows[0]["gate"], rows[0]["ambition"]) == (gate, ambition)
    may_be_none = name == "anonymous memory of a reader"    # 64 KiB, where 2 MB are read
    assert rows[0]["best"] > 0 or (may_be_none and rows[0]["best"] == 0)
    if gate is None:
        assert rows[0]["verdict"] == ""
    else:
        assert rows[0]["verdict"] in ("met", "met, ambition too", "missed", "undecided")


@pytest.mark.slow
def test_output_tells_the_machine_and_what_was_not_synced(smoke):
    text, told, _ = smoke

    assert {"cpu", "cores", "kernel", "file_system", "python", "durability"} <= set(told["machine"])
    assert "nothing synced" in text
    assert "smoke sizes" in text


@pytest.mark.slow
def test_peers_run_as_rows_of_the_groups():
    done = run_bench("--smoke", "--groups", "get", "append_many")

    assert done.returncode == 0, done.stdout + done.stderr
    for peer in ("lmdb", "sqlite3", "rocksdict", "file.writelines"):
        assert peer in done.stdout


def test_unknown_name_is_told_and_nothing_runs():
    done = run_bench("nonsense")

    assert done.returncode != 0
    assert "no question is called nonsense" in done.stderr


def test_bench_leaves_no_scratch_behind(smoke):
    assert smoke[2] == set()


class TestData:
    """What a pass returns is compared with what was written, once before the first round."""

    @pytest.fixture
    def workspace(self):
        from bench.workspace import SMOKE, Workspace

        with Workspace(SMOKE) as workspace:
            yield workspace

    @pytest.mark.parametrize("lie", [
        lambda values: [b"?" * len(values[0]), *values[1:]],
        lambda values: values[::-1],
        lambda values: values[:-1],
    ], ids=["other bytes", "other order", "fewer"])
    def test_a_pass_that_returns_other_values_is_refused(self, workspace, monkeypatch, lie):
        from bench import fetching

        def use(chunk):
            return lie(chunk.values())

        monkeypatch.setitem(fetching.RECORDS, use, fetching.RECORDS[fetching.values_of])
        with pytest.raises(AssertionError, match="something else than was written"):
            fetching.chunked("cached_records", use)(workspace)

    @pytest.mark.parametrize("column", range(4), ids=["offset", "timestamp", "position", "size"])
    def test_a_scan_with_a_wrong_column_is_refused(self, workspace, monkeypatch, column):
        from bench import fetching

        def use(chunk):
            columns = [one.copy() for one in fetching.columns_of(chunk)]
            columns[column][len(chunk) // 2] += 1
            return columns

        monkeypatch.setitem(fetching.RECORDS, use, fetching.rows_of_columns)
        with pytest.raises(AssertionError, match="something else than was written"):
            fetching.chunked("cached_records", use)(workspace)

    @pytest.mark.parametrize("lie", [lambda value: value[::-1], lambda value: None],
                             ids=["other bytes", "nothing"])
    def test_a_queue_that_returns_other_values_is_refused(self, workspace, lie):
        from bench.queueing import in_bursts

        kept = []
        case = in_bursts(workspace, 200, kept.append, lambda: lie(kept.pop(0)))
        case.run()
        with pytest.raises(AssertionError, match="something else than was put"):
            case.check()

    @pytest.mark.parametrize("name", ["file_read", "sqlite_select", "lmdb_iterate",
                                      "rocks_iterate"])
    def test_a_peer_that_returns_other_values_is_refused(self, workspace, monkeypatch, name):
        from bench import peers

        told = []

        def scanning(run, values, read_all):
            told.append(read_all() == values)
            values[-1] = values[-1][::-1]
            return real(run, values, read_all)

        real = peers.scanning
        monkeypatch.setattr(peers, "scanning", scanning)
        with pytest.raises(AssertionError, match="other values"):
            getattr(peers, name)(workspace)
        assert told == [True]


class TestVerdict:
    """The judge, without a clock."""

    @staticmethod
    def judged(of, to, gate=2.0, ambition=1.5, is_speed=False):
        from bench.harness import Question, Target, judge

        target = Target("row", "ours", "theirs", gate, ambition, is_speed)
        return judge(Question("q", "t", {}, (target,)), target, {"ours": of, "theirs": to})

    def test_the_best_round_decides(self):
        assert self.judged([9.0, 3.8], [2.0, 2.0]).verdict == "met"

    def test_of_several_rivals_the_one_with_the_best_round_counts(self):
        from bench.harness import Question, Target, judge

        target = Target("row", "ours", ("slow", "fast"), 2.0, 10.0, is_speed=True)
        taken = {"ours": [1.0, 1.0], "slow": [9.0, 9.0], "fast": [3.0, 3.1]}
        figure = judge(Question("q", "t", {}, (target,)), target, taken)

        assert (figure.best, figure.verdict) == (3.0, "met")
        assert figure.detail.endswith("of fast")

    def test_a_ratio_over_the_gate_is_missed(self):
        assert self.judged([4.2, 4.4], [2.0, 2.0]).verdict == "missed"

    def test_a_ratio_within_the_ambition_says_so(self):
        assert self.judged([2.9, 9.0], [2.0, 2.0]).verdict == "met, ambition too"

    def test_a_speed_must_be_at_least_its_gate(self):
        assert self.judged([2.0, 2.0], [1.0, 1.0], 0.6, 0.9, True).verdict == "missed"
        assert self.judged([2.0, 2.0], [1.4, 1.4], 0.6, 0.9, True).verdict == "met"

    def test_a_yardstick_that_moved_by_over_a_tenth_leaves_it_undecided(self):
        assert self.judged([4.2] * 4, [2.0, 2.0, 2.3, 2.3]).verdict == "undecided"
        assert self.judged([4.2] * 4, [2.0, 2.0, 2.1, 2.1]).verdict == "missed"


@pytest.mark.parametrize(("taken", "told"), [
    ([], ""), ([1.0], "up to 1 ms 1"), ([0.5, 0.7, 1.5, 30.0, 30_000.0],
     "up to 1 ms 2, up to 2 ms 1, up to 50 ms 1, up to inf ms 1"),
])
def test_takeovers_are_spread_out(taken, told):
    from bench.takeover import spread

    assert spread(taken) == told
