"""The commands that read a log: `pylog read`, `stat` and `check`; test_dump.py has `dump`."""

import json
import os
import re
from datetime import UTC, datetime, timedelta

import pytest
from children import killed
from faults import forget_boot
from planted import HEADER, batches, flip, segments
from shell import READERS, lines, run

import pylog
from pylog import Admin, cli_stat
from pylog.exits import Exit


def damage_second_batch(path):
    """Flips a bit in the records of the second batch; returns the batches' fields."""
    segment = segments(path)[0]
    found = batches(segment)
    flip(segment, found[1][0] + HEADER + 2)
    return [fields for _, fields in found]


# ---- read ---------------------------------------------------------------------------------------


def test_read_writes_each_value_and_a_newline(log_of_three):
    assert run("read", log_of_three).stdout_bytes == b"one\n\xfftwo\n\n"


def test_read_writes_keys_before_the_separator(log_of_three):
    assert lines("read", log_of_three, "-K", ": ") == [b"one", b"k\xfe: \xfftwo", b"three: "]


def test_read_of_an_empty_log_writes_nothing(log_path):
    pylog.Log(log_path).close()

    for options in ([], ["--json"], ["-K", ","], ["--skip-corrupt"], ["--from", "latest"]):
        assert lines("read", log_path, *options) == []


@pytest.mark.parametrize(("place", "expected"), [
    ("earliest", 0), ("latest", 100), ("0", 0), ("40", 40), ("100", 100), ("-1", 99), ("-30", 70),
    ("-1000", 0), ("2023-11-14T22:13:20Z", 0), ("2023-11-14T22:13:21.5Z", 2),
    ("@2023-11-14T22:13:30+00:00", 10), ("2023-11-14", 0), ("2100-01-01", 100), ("-5m", 100),
    ("-9999d", 0),
])
def test_read_starts_and_stops_at_a_place(log_path, place, expected):
    with pylog.Log(log_path) as log:
        log.append_many([b"%d" % i for i in range(100)],
                        timestamps=[1_700_000_000_000 + i * 1000 for i in range(100)])
    everything = [b"%d" % i for i in range(100)]

    assert lines("read", log_path, "--from", place) == everything[expected:]
    assert lines("read", log_path, "--to", place) == everything[:expected]


def test_read_takes_a_time_without_zone_as_local(log_path):
    now = datetime.now().astimezone().replace(microsecond=0)
    with pylog.Log(log_path) as log:
        for seconds in (-20, 0, 20):
            at = now + timedelta(seconds=seconds)
            log.append(b"%d" % seconds, timestamp=int(at.timestamp() * 1000))

    local = now.replace(tzinfo=None).isoformat()

    assert lines("read", log_path, "--from", local) == [b"0", b"20"]
    assert lines("read", log_path, "--from", now.astimezone(UTC).isoformat()) == [b"0", b"20"]


@pytest.mark.parametrize("place", [
    "", "now", "yesterday", "1.5", "1e3", "--5", "-5w", "12345678901234567890", "2023-13-01",
    "2023-11-14T25:00", "-999999999d", "0x10", "@5", "Earliest",
])
@pytest.mark.parametrize("option", ["--from", "--to"])
def test_place_that_is_none_is_wrong_usage(log_of_three, option, place):
    result = run("read", log_of_three, option, place)

    assert result.exit_code == Exit.USAGE
    assert "is no place in a log" in result.stderr


@pytest.mark.parametrize("options", [["-n", "-1"], ["-n", "x"], ["--json", "-K", ","], ["-K", ""]])
def test_wrong_usage_of_read_exits_with_2(log_of_three, options):
    assert run("read", log_of_three, *options).exit_code == Exit.USAGE


@pytest.mark.parametrize("options", [[], ["--follow"], ["--json"], ["--skip-corrupt"]], ids=str)
def test_read_from_beyond_the_end_fails(log_of_three, options):
    result = run("read", log_of_three, "--from", "4", *options)

    assert result.exit_code == Exit.FAILED
    assert "offset 4 is not within [0, 3]" in result.stderr


def test_read_from_a_deleted_offset_fails(small):
    with pylog.Log(small) as log:
        log.delete_before(100)

    result = run("read", small, "--from", "5")

    assert result.exit_code == Exit.FAILED
    assert "[100, 150]" in result.stderr
    assert len(lines("read", small)) == 50


@pytest.mark.parametrize("extra", [[], ["--follow"], ["--json"], ["--skip-corrupt"]], ids=str)
def test_read_stops_after_max_records(small, extra):
    for count in (0, 1, 7, 120):
        assert len(lines("read", small, "-n", count, *extra)) == count
    assert len(lines("read", small, "-n", 1000, *extra[:0])) == 150


def test_read_follows_up_to_a_place(small):
    assert len(lines("read", small, "--follow", "--from", "20", "--to", "150")) == 130


def test_read_passes_over_a_gap_that_a_recovery_left(log_path):
    killed(lambda: [log := pylog.Log(log_path), log.append_many([b"old"]), log.append_many([b"x"])])
    flip(segments(log_path)[0], 71 + HEADER)    # the second batch
    os.remove(log_path / "control")

    appended = run("append", log_path, given=b"new\n")

    assert "reboot or a copy" in appended.stderr
    assert "goes on at offset 16777216" in appended.stderr
    assert lines("read", log_path) == [b"old", b"new"]
    assert lines("read", log_path, "--to", "1000") == [b"old"]
    assert lines("read", log_path, "--from", "-1") == [b"new"]
    assert lines("read", log_path, "--from", "-1000", "--max", "1") == [b"old"]


# ---- stat and check -----------------------------------------------------------------------------


def test_stat_says_what_a_log_is(small):
    text = run("stat", small).stdout

    assert "offsets     [0, 150)\n" in text
    assert "records     150, " in text
    assert "skipped" not in text
    assert "2023-11-14T22:13:20.000Z" in text
    assert "durability  os" in text
    assert str(small) in text


def test_stat_as_json_tells_figures_and_options(small):
    found = json.loads(run("stat", small, "--json").stdout)

    assert (found["start_offset"], found["end_offset"], found["readable_offset"]) == (0, 150, 150)
    assert found["first_timestamp"] == 1_700_000_000_000
    assert found["last_timestamp"] == 1_700_000_001_490
    assert found["segments"] == len(segments(small))
    assert found["size_bytes"] == sum(one.stat().st_size for one in segments(small))
    assert found["options"]["durability"] == "os"
    assert found["options"]["timestamp_type"] == "create"


def test_stat_of_a_log_whose_start_moves_says_nothing_of_damage(log_path, monkeypatch):
    with pylog.Log(log_path, segment_bytes=4096) as log:
        for _ in range(200):
            log.append(b"x" * 100)
        look = cli_stat.gaps_of

        def delete_and_look(log, start, end):
            log.delete_before(100)
            return look(log, start, end)

        monkeypatch.setattr(cli_stat, "gaps_of", delete_and_look)
        figures = cli_stat.figures_of(log)
        assert figures["gaps"] == []
        assert figures["start_offset"] == log.start_offset > 0


def test_stat_of_an_empty_log_has_no_times(log_path):
    pylog.Log(log_path).close()

    found = json.loads(run("stat", log_path, "--json").stdout)

    assert (found["first_timestamp"], found["last_timestamp"]) == (None, None)
    assert run("stat", log_path).exit_code == Exit.FINE


def test_stat_of_a_damaged_log_still_says_the_rest(small):
    segment = segments(small)[0]
    flip(segment, HEADER + 2)

    assert json.loads(run("stat", small, "--json").stdout)["first_timestamp"] is None
    assert "[0, 150)" in run("stat", small).stdout
    assert "records     unknown: something is damaged" in run("stat", small).stdout


def test_stat_of_a_log_that_lost_its_end_claims_no_count(small):
    os.remove(segments(small)[-1])

    assert "records     unknown: something is damaged" in run("stat", small).stdout


@pytest.mark.parametrize("given", [b"", b"new\n"])
def test_stat_counts_no_offset_that_a_recovery_skipped(log_path, given):
    killed(lambda: [log := pylog.Log(log_path), log.append_many([b"old"] * 700), log.flush()])
    forget_boot(log_path)
    run("append", log_path, given=given)

    text = run("stat", log_path).stdout
    figures = json.loads(run("stat", log_path, "--json").stdout)

    assert f"offsets     [0, {16_777_216 + len(given) // 4})\n" in text
    assert "skipped     [700, 16777216) by a recovery" in text
    assert f"records     {700 + len(given) // 4}, " in text
    assert figures["gaps"] == [[700, 16_777_216]]
    assert None not in (figures["first_timestamp"], figures["last_timestamp"])


@pytest.mark.parametrize("has_appended", [False, True])
def test_stat_of_a_log_that_a_recovery_left_empty(log_path, has_appended):
    def live():
        log = pylog.Log(log_path)
        log.append_many([b"never on disk"])
        return log

    killed(live)
    os.truncate(segments(log_path)[0], 0)
    os.remove(log_path / "control")
    forget_boot(log_path)
    run("append", log_path, given=b"new\n" * has_appended)

    text = run("stat", log_path).stdout

    assert f"records     {int(has_appended)}, " in text
    assert ("last " in text) == has_appended


def test_stat_of_a_broker_tells_its_topics(broker):
    for n in range(30):
        broker.append("orders", b"%d" % n, partition=n % 3)
    pylog.Consumer(broker, group_id="billing").close()

    text = run("stat", broker.path).stdout
    assert f"path        {broker.path}\n" in text
    assert "topics      2, with 4 partitions\n" in text
    assert "groups      1\n" in text
    assert "records     30, " in text
    assert re.search(r"^orders +3 +30 +[\d,]+$", text, re.MULTILINE)
    assert re.search(r"^one +1 +0 +[\d,]+$", text, re.MULTILINE)

    found = json.loads(run("stat", broker.path, "--json").stdout)
    sizes = {name: sum(broker.log(name, number).size_bytes for number in range(count))
             for name, count in (("orders", 3), ("one", 1))}
    assert {one["topic"]: one["size_bytes"] for one in found["topics"]} == sizes
    assert (found["partitions"], found["records"], found["groups"]) == (4, 30, 1)
    assert found["size_bytes"] == sum(sizes.values())


def test_stat_looks_where_the_other_commands_of_a_broker_do(broker, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)    # where the broker is called data
    assert "topics      2" in run("stat").stdout
    monkeypatch.setenv("PYLOG_DATA", "elsewhere")

    result = run("stat")

    assert (result.exit_code, os.listdir(tmp_path)) == (Exit.FAILED, ["data"])
    assert "nothing at elsewhere; `pylog produce -d elsewhere TOPIC` makes" in result.stderr


def test_stat_of_a_broker_without_topics(log_path):
    pylog.Broker(log_path).close()

    assert run("stat", log_path).stdout.splitlines()[1:] == [
        "topics      0, with 0 partitions", "groups      0",
        "records     0, going by their offsets", "size        0 bytes, preallocated ones included"]


def test_stat_leaves_out_a_topic_that_is_deleted_meanwhile(broker, monkeypatch):
    monkeypatch.setattr(Admin, "list_topics", lambda self: ["gone", "one", "orders"])

    found = json.loads(run("stat", broker.path, "--json").stdout)

    assert [one["topic"] for one in found["topics"]] == ["one", "orders"]


def test_check_of_a_whole_log_is_fine(small):
    result = run("check", small)

    assert result.exit_code == Exit.FINE
    assert ": ok" in result.stdout
    assert json.loads(run("check", small, "--json").stdout)["records"] == 150


def test_check_of_a_damaged_log_exits_with_4_and_names_the_place(small):
    damage_second_batch(small)

    result, as_json = run("check", small), run("check", small, "--json")

    assert result.exit_code == as_json.exit_code == Exit.DAMAGE
    assert "NOT ok" in result.stdout
    (finding,) = json.loads(as_json.stdout)["findings"]
    assert finding["path"] == str(segments(small)[0])
    assert f"{finding['path']}, byte {finding['position']}" in result.stdout


# ---- damage, and what is no log -----------------------------------------------------------------


def test_read_of_a_damaged_log_exits_with_4_behind_what_is_before(small):
    first, second, *_ = damage_second_batch(small)

    result = run("read", small)

    assert result.exit_code == Exit.DAMAGE
    assert len(result.stdout_bytes.splitlines()) == first["records_count"] == second["base_offset"]
    assert f"offset {second['base_offset']}" in result.stderr or "byte" in result.stderr


@pytest.mark.parametrize("options", [[], ["--json"], ["-K", ","]], ids=str)
def test_read_steps_over_damage_when_told_and_still_exits_with_4(small, options):
    whole = lines("read", small, *options)
    first, second, *_ = damage_second_batch(small)

    result = run("read", small, "--skip-corrupt", *options)

    assert result.exit_code == Exit.DAMAGE
    assert "stepped over damage 1 times" in result.stderr
    assert result.stdout_bytes.splitlines() == (
        whole[:first["last_offset"] + 1] + whole[second["last_offset"] + 1:])


def test_read_of_a_log_damaged_at_its_end_steps_over_it(small):
    segment = segments(small)[-1]
    (position, last) = batches(segment)[-1]
    flip(segment, position + HEADER + 2)

    result = run("read", small, "--skip-corrupt")

    assert result.exit_code == Exit.DAMAGE
    assert len(result.stdout_bytes.splitlines()) == last["base_offset"]


@pytest.mark.parametrize("command", READERS)
def test_reading_commands_fail_where_there_is_no_log_and_make_none(tmp_path, command):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_bytes(b"no log\n" * 100)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "readme").write_text("no log either")
    before = sorted(tmp_path.rglob("*"))

    for name in ("none", "none/deep", "empty", "file", "other", "file/below"):
        result = run(command, tmp_path / name)

        assert result.exit_code == Exit.FAILED, (name, result.output)
        assert result.stderr.startswith("Error: "), name
        assert result.stdout == "", name
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("command", [one for one in READERS if one != "stat"])
def test_reading_commands_tell_what_to_do_with_a_broker(broker, command):
    result = run(command, broker.path)

    assert (result.exit_code, result.stdout) == (Exit.FAILED, "")
    assert f"is a broker, no log; `pylog topic ls -d {broker.path}`" in result.stderr


@pytest.mark.parametrize("command", READERS)
def test_reading_commands_change_no_file(small, command):
    before = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in small.iterdir()}

    run(command, small)

    after = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in small.iterdir()}
    assert after == before
