"""The command line: `pylog produce`, `consume` and `cat`."""

import json
import os
import re
import signal
import subprocess
import time

import pytest
from brokers import codecs
from shell import COMMAND, done, fails, lines, run, start

import pylog
from pylog import TopicPartition, cli_records
from pylog.compression import CODECS
from pylog.exits import Exit
from pylog.record_format import make_format


@pytest.fixture
def orders(data_path):
    """Twelve records in three partitions: "p:n", n from 0 to 3."""
    with pylog.Broker(data_path) as broker:
        broker.create_topic("orders", 3)
        for number in range(3):
            broker.log("orders", number).append_many([b"%d:%d" % (number, n) for n in range(4)])
    return data_path


def committed(data_path, group, number, topic="orders"):
    with pylog.Consumer(data_path, group_id=group) as consumer:
        return consumer.committed(TopicPartition(topic, number))


# ---- produce ------------------------------------------------------------------------------------

def test_produce_makes_broker_topic_and_a_record_of_each_line(data_path):
    result = run("produce", "orders", given=b"one\ntwo\n\nlast without newline")

    assert result.exit_code == Exit.FINE
    assert result.stdout == ""
    assert result.stderr == "produced 4 records to orders, which is new: 4 in partition 0\n"
    assert lines("consume", "orders", "-e") == [b"one", b"two", b"", b"last without newline"]


def test_produce_spreads_keys_as_kafka_does_and_keeps_their_order(orders):
    given = b"".join(b"k%d|%d\n" % (n % 10, n) for n in range(100))

    result = run("produce", "orders", "-K", "|", given=given)

    assert len(re.findall(r"in partition \d", result.stderr)) == 3
    with pylog.Broker(orders) as broker, pylog.Producer(broker) as producer:
        for n in range(10):
            key = b"k%d" % n
            found = [r for r in broker.read("orders") if r.key == key]
            assert [int(r.value) for r in found] == list(range(n, 100, 10))
            home = producer.send("orders", b"", key).get().partition
            assert {r.partition for r in found} == {home}


def test_produce_reads_files_and_stdin_in_order(data_path, tmp_path):
    (tmp_path / "a").write_bytes(b"a1\na2")

    lines("produce", "orders", tmp_path / "a", "-", given=b"in\n")

    assert lines("consume", "orders", "-e") == [b"a1", b"a2", b"in"]


def test_produce_gives_key_headers_and_partition_to_all(orders):
    lines("produce", "orders", "-k", "alice", "-H", "a=1", "-H", "b=", "-p", "2", given=b"x\ny\n")

    found = lines("consume", "orders", "-p", "2", "-o", "-2", "-e", "-f", r"%p %o %k %s %h\n")
    assert found == [b"2 4 alice x a=1,b=", b"2 5 alice y a=1,b="]


def test_json_out_of_one_topic_goes_into_another_unchanged(orders):
    with pylog.Broker(orders) as broker:
        broker.append("orders", b"\xff\n", key=b"\xfe", headers=[("h", None)], timestamp=7)
    before = [json.loads(line) for line in lines("consume", "orders", "-e", "--json")]

    lines("produce", "copy", "--json", given=b"\n".join(lines("consume", "orders", "-e", "--json")))

    after = [json.loads(line) for line in lines("consume", "copy", "-e", "--json")]
    kept = {"timestamp", "key", "key_b64", "value", "value_b64", "headers"}
    assert [{k: v for k, v in one.items() if k in kept} for one in after] == \
           [{k: v for k, v in one.items() if k in kept} for one in before]
    assert {one["topic"] for one in after} == {"copy"}


@pytest.mark.parametrize("codec", ["lz4", "gzip"])
def test_produce_compresses(data_path, codec):
    given = b"the same line again\n" * 1000

    lines("produce", "orders", "-z", codec, given=given)

    assert lines("consume", "orders", "-e") == given.splitlines()
    with pylog.Broker(data_path) as broker:
        assert set(codecs(broker, "orders", 0)) == {CODECS[codec]}


def test_produce_quiet_says_nothing(data_path):
    assert run("produce", "-q", "orders", given=b"x\n").stderr == ""


def test_bad_line_is_named_after_all_before_it_are_in(orders):
    result = run("produce", "orders", "-K", ":", given=b"a:1\nb:2\nno separator\nc:3\n")

    assert result.exit_code == Exit.FAILED
    assert "stdin, line 3: it has no ':'" in result.stderr
    assert "produced 2 records to orders" in result.stderr
    assert len(lines("consume", "orders", "-e")) == 14


@pytest.mark.parametrize("keys", [[], ["-K", ":"]], ids=["one partition", "by key"])
def test_line_too_large_is_named_after_all_before_it_are_in(orders, keys):
    given = b"a:1\nb:2\nc:" + b"x" * 1_200_000 + b"\nd:4\n"

    result = run("produce", "orders", *keys, given=given)

    assert result.exit_code == Exit.FAILED
    assert "stdin, line 3: " in result.stderr
    assert "produced 2 records" in result.stderr
    assert len(lines("consume", "orders", "-e")) == 14


@pytest.mark.parametrize("given", [b"", b"no separator\n", b":" + b"x" * 2_000_000], ids=len)
def test_produce_of_no_good_line_makes_no_topic(data_path, given):
    result = run("produce", "orders", "-K", ":", given=given)

    assert "produced nothing; no topic orders was made" in result.stderr
    fails(Exit.FAILED, "no topic 'orders'", "consume", "orders", "-e")


@pytest.mark.parametrize("arguments", [
    [], ["orders", "no such file"], ["orders", "-p", "-1"], ["orders", "-p", "x"],
    ["orders", "--json", "-k", "key"], ["orders", "-k", "a", "-K", ":"], ["orders", "-H", "a"],
    ["orders", "-z", "zstd"], ["orders", "-K", ""], ["orders", "-d", ""],
], ids=str)
def test_wrong_usage_of_produce_exits_with_2_and_makes_nothing(data_path, arguments):
    fails(Exit.USAGE, "Error: ", "produce", *arguments)

    assert not data_path.exists()


@pytest.mark.parametrize(("arguments", "words"), [
    (["a b"], "a b"), ([".."], r"\.\."), (["x" * 300], "249|long"), (["orders", "-p", "3"], "3"),
], ids=str)
def test_produce_to_what_cannot_be_fails(orders, arguments, words):
    fails(Exit.FAILED, words, "produce", "-q", *arguments, given=b"x\n")


def test_produce_into_one_log_or_a_file_fails(log_path, tmp_path):
    pylog.Log(log_path).close()
    (tmp_path / "file").write_bytes(b"precious")

    fails(Exit.FAILED, f"is one log, no broker; see `pylog read {log_path}`",
          "produce", "-d", log_path, "orders", given=b"x\n")
    fails(Exit.FAILED, "file", "produce", "-d", tmp_path / "file", "orders", given=b"x\n")
    assert (tmp_path / "file").read_bytes() == b"precious"


# ---- consume ------------------------------------------------------------------------------------

def test_consume_reads_all_partitions_each_in_order(orders):
    found = lines("consume", "orders", "-e")

    for number in range(3):
        assert [line for line in found if line[:1] == b"%d" % number] == \
               [b"%d:%d" % (number, n) for n in range(4)]
    assert len(found) == 12


@pytest.mark.parametrize(("place", "kept"), [
    ("earliest", 12), ("beginning", 12), ("latest", 0), ("end", 0), ("-1", 3), ("-9", 12),
    ("3", 3), ("0", 12), ("@-1h", 12), ("-1h", 12), ("@1000000000", 12), ("s@1000000000", 12),
    ("2001-01-01", 12), ("@2100-01-01", 0), ("s@4102444800000", 0),
])
def test_consume_starts_at_the_place_of_each_partition(orders, place, kept):
    assert len(lines("consume", "orders", "-e", "--from", place)) == kept


def test_consume_stops_before_a_place(orders):
    assert lines("consume", "orders", "-p", "1", "--to", "2") == [b"1:0", b"1:1"]
    assert len(lines("consume", "orders", "--to", "latest")) == 12
    assert lines("consume", "orders", "--from", "latest", "--to", "latest") == []


def test_consume_stops_after_n(orders):
    assert len(lines("consume", "orders", "-n", "5")) == 5
    assert lines("consume", "orders", "-n", "0") == []


def test_an_offset_that_only_one_partition_has_starts_the_others_at_their_end(orders):
    with pylog.Broker(orders) as broker:
        broker.log("orders", 1).append_many([b"more"] * 5)

    assert lines("consume", "orders", "-e", "-o", "7") == [b"more"] * 2


def test_grep_takes_what_matches_and_counts_that(orders):
    assert sorted(lines("consume", "orders", "-e", "--grep", "[01]:[23]$")) == \
           [b"0:2", b"0:3", b"1:2", b"1:3"]
    assert len(lines("consume", "orders", "--grep", ":3", "-n", "2")) == 2


def test_grep_asks_for_more_than_it_is_to_find(orders, monkeypatch):
    asked = []
    poll = pylog.Consumer.poll
    monkeypatch.setattr(pylog.Consumer, "poll", lambda self, *given: (
        asked.append(given), poll(self, *given))[1])

    assert lines("consume", "orders", "-e", "--grep", "^2:3", "-n", "1") == [b"2:3"]
    assert len(asked) <= 3


def test_grep_has_enough_before_a_partition_with_nothing_to_examine(orders, monkeypatch):
    """What was there of it at the start was deleted, what came in since is behind its stop."""
    poll = pylog.Consumer.poll

    def late(self, *given):
        with pylog.Broker(orders) as broker:
            broker.append("orders", b"late", partition=1)
            broker.log("orders", 1).delete_before(4)
        return poll(self, *given)

    monkeypatch.setattr(pylog.Consumer, "poll", late)
    assert lines("consume", "orders", "-e", "--grep", "^0:3", "-n", "1") == [b"0:3"]


def test_consume_of_two_topics_tells_them_apart(orders):
    lines("produce", "refunds", given=b"back\n")

    found = lines("consume", "orders", "refunds", "-e", "-f", r"%t-%p\n")

    assert sorted(set(found)) == [b"orders-0", b"orders-1", b"orders-2", b"refunds-0"]


def test_topics_are_chosen_by_what_their_names_match(orders):
    for name in ("refunds", "re-orders", "audit"):
        lines("produce", name, given=name.encode())

    def topics(*arguments):
        return sorted(set(lines("consume", "--regex", *arguments, "-e", "-f", r"%t\n")))

    assert topics("re") == [b"re-orders", b"refunds"]
    assert topics("re.*s$", "aud") == [b"audit", b"re-orders", b"refunds"]
    assert topics("(?i)ORDERS") == [b"orders"]
    assert topics(".", "-g", "billing") == [b"audit", b"orders", b"re-orders", b"refunds"]
    assert topics(".", "-g", "billing") == []
    assert topics("o", "-p", "2", "-o", "-1") == [b"orders"]


def test_topics_that_match_later_are_read_from_their_beginning(orders, monkeypatch):
    poll = pylog.Consumer.poll

    def late(self, *given):
        with pylog.Broker(orders) as broker:
            broker.append("refunds", b"late")
        return poll(self, *given)

    monkeypatch.setattr(pylog.Consumer, "poll", late)
    assert lines("consume", "--regex", "refunds", "-n", "1") == [b"late"]


@pytest.mark.parametrize("arguments", [["-e"], ["-p", "0"], ["-e", "-g", "billing"]], ids=str)
def test_no_topic_that_matches_is_told_where_none_is_waited_for(orders, arguments):
    fails(Exit.FAILED, "no topic matches 'rders'; `pylog topic ls`", "consume", "--regex", "rders",
          *arguments)


def test_group_goes_on_where_it_committed(orders):
    first = lines("consume", "orders", "-g", "billing", "-n", "5")
    rest = lines("consume", "orders", "-g", "billing", "-e")

    assert len(first) == 5
    assert sorted(first + rest) == sorted(lines("consume", "orders", "-e"))
    assert lines("consume", "orders", "-g", "billing", "-e") == []
    assert len(lines("consume", "orders", "-g", "other", "-e")) == 12


def test_group_commits_what_grep_examined_and_no_more(orders):
    lines("consume", "orders", "-g", "billing", "--grep", "^1:1", "-n", "1")

    assert committed(orders, "billing", 1) == 2
    assert b"1:2" in lines("consume", "orders", "-g", "billing", "-e")


def test_no_commit_leaves_the_group_where_it_is(orders):
    assert len(lines("consume", "orders", "-g", "billing", "-e", "--no-commit")) == 12
    assert len(lines("consume", "orders", "-g", "billing", "-e")) == 12


def test_new_group_may_begin_at_the_end(orders):
    assert lines("consume", "orders", "-g", "billing", "-e", "-o", "latest") == []
    lines("produce", "orders", given=b"new\n")
    assert lines("consume", "orders", "-g", "billing", "-e") == [b"new"]


def test_reading_makes_no_broker_and_no_topic(data_path, tmp_path):
    fails(Exit.FAILED, f"no broker at {data_path}; `pylog produce -d {data_path} TOPIC`",
          "consume", "orders", "-e")
    assert not data_path.exists()
    lines("produce", "orders", given=b"x\n")

    fails(Exit.FAILED, "no topic 'ordrs'; did you mean 'orders'", "consume", "ordrs", "-e")
    fails(Exit.FAILED, "no topic 'ordrs'", "cat", "-t", "ordrs", "-e")
    fails(Exit.FAILED, "no topic 'zzz'", "consume", "orders", "zzz", "-e")
    with pylog.Broker(data_path) as broker:
        assert list(broker.topics()) == ["orders"]


@pytest.mark.parametrize(("arguments", "maker"), [
    (["consume", "none", "-e"], "`pylog produce {}`"),
    (["audit", "head", "none"], "`pylog audit record {}`"),
    (["bus", "listen", "none", "-e"], "`pylog bus emit {} TYPE`"),
    (["events", "read", "none", "o-1"], "`pylog events append {} STREAM TYPE`"),
    (["queue", "get", "none"], "`pylog queue put {}`"),
    (["request", "none", "x"], "who answers (`Rpc.handler`)"),
    (["saga", "ls", "none"], "a program that makes the Saga"),
], ids=lambda value: value[0])
def test_who_finds_nothing_is_told_what_would_make_it(data_path, arguments, maker):
    fails(Exit.FAILED, re.escape(f"; {maker.format(f'-d {data_path} TOPIC')} makes one, "),
          *arguments)
    pylog.Broker(data_path).close()
    fails(Exit.FAILED, re.escape(f"; {maker.format('none')} makes it, "), *arguments)
    if verb := re.match("`pylog ([a-z ]+)", maker):    # which there is
        done(*verb[1].split(), "--help")


def test_consume_of_a_name_that_no_topic_can_have_fails(orders):
    fails(Exit.FAILED, "has ' ' in it", "consume", "a b", "-e")
    fails(Exit.FAILED, "is empty", "consume", "", "-e")


@pytest.mark.parametrize(("arguments", "words"), [
    (["-o", "5"], r"no partition has the offset 5: there is orders-0 \[0, 4\)"),
    (["-p", "3"], "partitions 0 to 2, and no 3"),
    (["-g", "x" * 300], "too long"),
    (["-g", ""], "empty"),
])
def test_consume_of_what_is_not_there_fails(orders, arguments, words):
    fails(Exit.FAILED, words, "consume", "orders", "-e", *arguments)


@pytest.mark.parametrize(("arguments", "words"), [
    ([], "TOPIC"), (["orders", "-o", "soon"], "no place"), (["orders", "--to", "@"], "no place"),
    (["orders", "-n", "-1"], "range"), (["orders", "--grep", "("], "regular expression"),
    (["--regex", "a", "("], r"'\(' is no regular expression"),
    (["--regex", "a", "(?i)b"], "global flags not at the start"),
    (["orders", "-f", "%y"], "'%y' is unknown"), (["orders", "-f", "100%"], "'%' is unknown"),
    (["orders", "-f", r"\q"], "is unknown"), (["orders", "-f", "%s", "--json"], "use one"),
    (["orders", "-K", ":", "--json"], "use one"),
    (["orders", "-g", "g", "-p", "1"], "shares out"), (["orders", "-g", "g", "--to", "3"], "--to"),
    (["orders", "-g", "g", "-o", "3"], "pylog group reset g"),
    (["orders", "-o", "@9999999999999999"], "no place"),
], ids=str)
def test_wrong_usage_of_consume_exits_with_2(orders, arguments, words):
    fails(Exit.USAGE, words, "consume", *arguments)


def test_damage_is_named_or_stepped_over(orders):
    with pylog.Broker(orders) as broker:
        log = broker.log("orders", 1)
        log.append_many([b"after"] * 600)
    place = orders / "orders-1" / ("0" * 20 + ".log")
    with open(place, "r+b") as file:
        file.seek(80)
        file.write(b"\xff")

    assert run("consume", "orders", "-e").exit_code == Exit.DAMAGE
    result = run("consume", "orders", "-e", "--skip-corrupt")
    assert result.exit_code == Exit.DAMAGE
    assert "stepped over damage 1 times" in result.stderr
    assert b"after" in result.stdout_bytes
    assert b"0:0" in result.stdout_bytes


# ---- cat ----------------------------------------------------------------------------------------

def test_cat_has_the_habits_of_kcat(orders):
    assert lines("cat", "-C", "-q", "-b", orders, "-t", "orders", "-p", "0", "-o", "-2", "-e",
               "-f", r"%t %p %o %k %s\n") == [b"orders 0 2  0:2", b"orders 0 3  0:3"]
    assert len(lines("cat", "-t", "orders", "-o", "beginning", "-c", "5")) == 5
    assert lines("cat", "-t", "orders", "-o", "end", "-e") == []
    assert lines("cat", "-t", "orders", "-p", "1", "-e", "-K:") == [b"1:%d" % n for n in range(4)]
    assert {json.loads(line)["partition"] for line in lines("cat", "-t", "orders", "-e", "-J")} == \
           {0, 1, 2}


@pytest.mark.parametrize("arguments", [
    [], ["-t"], ["orders"], ["-t", "orders", "-o", "stored"], ["-t", "orders", "-c", "x"],
    ["-t", "orders", "-f", "%"], ["-t", "orders", "-J", "-f", "%s"], ["-t", "orders", "-b", ""],
], ids=str)
def test_wrong_usage_of_cat_exits_with_2(orders, arguments):
    fails(Exit.USAGE, "Error: ", "cat", *arguments)


def test_format_has_every_token_and_escape(log_path):
    with pylog.Log(log_path) as log:
        log.append(b"value", b"key", [("a", b"1"), ("b", None)], 77)
        log.append(None, None)
        full, bare = log.read()

    text = make_format(r"%t|%p|%o|%k|%s|%T|%K|%S|%h|%%|\t|\x41|\\|é")
    assert text(full) == "||0|key|value|77|3|5|a=1,b=NULL|%|\t|A|\\|é".encode()
    assert make_format("%k%s %K %S%h")(bare) == b" -1 -1"


# ---- processes ----------------------------------------------------------------------------------

@pytest.mark.slow
def test_consume_writes_what_another_process_produces_at_once_and_ends_quietly(orders):
    reader = start("consume", "orders", "-p", "0", "-o", "3")
    assert reader.stdout.readline() == b"0:3\n"
    writer = start("produce", "-p", "0", "orders")
    try:
        for text in (b"first\n", b"second\n"):
            writer.stdin.write(text)
            writer.stdin.flush()
            assert reader.stdout.readline() == text
        writer.communicate(timeout=30)
    finally:
        reader.send_signal(signal.SIGINT)
        _, stderr = reader.communicate(timeout=30)
    assert (reader.returncode, stderr) == (Exit.INTERRUPTED, b"")


@pytest.mark.slow
def test_reader_that_goes_away_ends_consume_without_a_word(orders):
    with pylog.Broker(orders) as broker:
        broker.log("orders", 0).append_many([b"x" * 100] * 20_000)
    script = f"{' '.join(COMMAND)} consume orders -e | head -1; echo ${{PIPESTATUS[0]}}"

    result = subprocess.run(["bash", "-c", script], capture_output=True, check=True, timeout=60)

    assert result.stdout.split()[-1] == b"141"
    assert result.stderr == b""


@pytest.mark.slow
def test_killed_member_repeats_what_it_had_not_written_and_loses_nothing(orders):
    with pylog.Broker(orders) as broker:
        broker.log("orders", 0).append_many([b"%d" % n for n in range(50_000)])
    first = start("consume", "orders", "-g", "billing")
    seen = [first.stdout.readline() for _ in range(2000)]
    os.kill(first.pid, signal.SIGKILL)
    seen += first.stdout.read().splitlines(keepends=True)
    first.communicate()

    rest = lines("consume", "orders", "-g", "billing", "-e")

    whole = {line.rstrip() for line in seen if line.endswith(b"\n")} | set(rest)
    assert len(whole) == 50_012


@pytest.mark.slow
def test_interrupted_produce_keeps_the_whole_lines_and_says_so(data_path):
    process = start("produce", "orders")
    process.stdin.write(b"one\ntwo\nhalf a li")
    process.stdin.flush()
    deadline = time.monotonic() + 30
    while not (data_path / "orders-0/log.meta").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    with pylog.Broker(data_path) as broker:
        assert broker.log("orders").wait(1, timeout=30)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=30)

    assert process.returncode == Exit.INTERRUPTED
    assert re.fullmatch(rb"produced \d records? to orders, which is new.*\n", stderr)
    assert lines("consume", "orders", "-e") == [b"one", b"two"]


def test_cat_lists_topics_as_topic_ls_does(orders):
    run("produce", "refunds", given=b"x\n")

    assert lines("cat", "-L", "-b", orders) == lines("topic", "ls")
    assert lines("cat", "-L", "-J") == lines("topic", "ls", "--json")
    assert [json.loads(one)["topic"] for one in lines("cat", "-L", "-t", "refunds", "-J")] == [
        "refunds"]
    fails(Exit.FAILED, "did you mean 'orders'", "cat", "-L", "-t", "oders")


def test_cat_reads_from_a_time_to_another(data_path):
    with pylog.Broker(data_path) as broker:
        broker.create_topic("orders", configs={"retention.ms": -1})
        for n in range(10):
            broker.append("orders", b"%d" % n, timestamp=1_700_000_000_000 + n)
    times = {n: f"@{1_700_000_000_000 + n}" for n in range(20)}

    def between(*options):
        return b"".join(lines("cat", "-t", "orders", *options))

    assert between("-o", f"s{times[3]}", "-o", f"e{times[6]}") == b"345"
    assert between("-o", f"e{times[2]}") == b"01"
    assert between("-o", f"e{times[6]}", "-o", "4") == b"45"
    assert between("-o", f"s{times[8]}", "-o", f"e{times[15]}") == b"89"
    assert between("-o", f"s{times[6]}", "-o", f"e{times[3]}") == b""


@pytest.mark.parametrize(("arguments", "words"), [
    (("cat", "-t", "orders", "-o", "stored"), "pylog consume -g GROUP TOPIC"),
    (("cat", "-t", "orders", "-o", "1", "-o", "2"), "say once where to begin"),
    (("cat", "-t", "orders", "-o", "e@1", "-o", "e@2"), "say once where to begin"),
    (("cat", "-t", "orders", "-o", "e@noon"), "no place in a log"),
    (("cat", "-e"), "-t TOPIC; -L lists the topics"),
    (("consume", "--from-beginning", "orders"), "called --from earliest here"),
    (("consume", "orders", "--from-beginning"), "called --from earliest here"),
    (("group", "reset", "g", "--to-earliest", "--execute"), "called --to earliest here"),
    (("group", "reset", "--to-latest", "g"), "called --to latest here"),
    (("group", "reset", "g", "--to-offset", "5"), "called --to N here"),
    (("group", "reset", "g", "--to-datetime", "2026-11-23T10:00"), "called --to 2026-"),
    (("group", "reset", "g", "--by-duration", "PT1H"), "called --to @-1h here"),
])
def test_habits_of_other_tools_are_told_what_to_write(orders, arguments, words):
    fails(Exit.USAGE, words, *arguments)


@pytest.mark.parametrize("start", ["earliest", "latest"])
def test_start_that_a_group_passes_over_is_told(orders, start):
    quiet = run("consume", "orders", "-g", "g", "--from", start, "-e")
    with pylog.Consumer(orders, group_id="half") as consumer:
        consumer.commit({TopicPartition("orders", 1): 2})

    half = run("consume", "orders", "-g", "half", "--from", start, "-e", "--no-commit")
    without = run("consume", "orders", "-g", "half", "-e", "--no-commit")

    assert (quiet.stderr, without.stderr) == ("", "")
    assert half.stderr == (
        f"--from {start} is not for 1 of 3 partitions: the group half has committed there, and "
        f"goes on; `pylog group reset half --to {start}` moves it\n")


@pytest.mark.parametrize("command", ["produce", "consume", "cat"])
def test_help_shows_an_example(command):
    text = run(command, "--help").stdout

    assert f"pylog {command} " in text.partition("Examples:")[2]


def test_partitions_are_grouped_when_there_are_many(data_path):
    intake = cli_records.TopicIntake.__new__(cli_records.TopicIntake)
    intake.topic, intake.count, intake.in_flight, intake.is_new = "orders", 60, 0, False
    intake.went = dict.fromkeys(range(6), 10)

    assert cli_records.what_was_produced(intake).endswith(
        "10 in partition 0, 10 in partition 1, 10 in partition 2, others in 3 more")
