"""Lists appended over partitions: each record is in its log, in order, and bad input is in none."""

import contextlib
import random
import resource
from collections import Counter

import numpy
import pytest
from children import in_child
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import pylog
from pylog import _native
from pylog.partitioner import make_partitioner

KEYS = st.none() | st.binary(max_size=20)
RECORDS = st.lists(
    st.tuples(st.integers(0, 2), KEYS, KEYS, st.integers(0, 10**12), st.booleans()), max_size=50)


@pytest.fixture
def logs(tmp_path):
    opened = [pylog.Log(tmp_path / f"t-{i}", max_message_bytes=2000) for i in range(3)]
    yield opened
    for log in opened:
        log.close()


def contents(log, start=0):
    return [(record.value, record.key, record.headers, record.timestamp)
            for record in log.read(start)]


def by_partition(places, values, keys, headers, timestamps):
    """What a loop over the records would have put into each of three logs."""
    found = [[], [], []]
    for place, *record in zip(places, values, keys, headers, timestamps, strict=True):
        found[place].append((record[0], record[1], tuple(record[2] or ()), record[3]))
    return found


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(RECORDS)
def test_each_record_is_in_its_log_in_order(logs, records):
    places = [record[0] for record in records]
    values = [record[1] for record in records]
    keys = [record[2] for record in records]
    times = [record[3] for record in records]
    headers = [[("h", b"%d" % i)] if record[4] else None for i, record in enumerate(records)]
    ends = [log.end_offset for log in logs]
    counts = Counter(places)

    done = _native.append_by_partition(logs, places, values, keys, headers, times)

    assert done == [(p, ends[p], counts[p]) for p in sorted(counts)]
    assert [contents(log, end) for log, end in zip(logs, ends, strict=True)] == by_partition(
        places, values, keys, headers, times)


@pytest.mark.parametrize("options", [
    {}, {"compression": "lz4"}, {"durability": "fsync"}, {"segment_bytes": 65536},
], ids=str)
def test_long_lists_come_through_whole(tmp_path, options, rng):
    count = 20_000
    values = [rng.randbytes(rng.randrange(60)) for _ in range(count)]
    keys = [rng.randbytes(3) for _ in range(count)]
    logs = [pylog.Log(tmp_path / f"t-{i}", **options) for i in range(3)]
    places = _native.partitions_of(keys, 3).tolist()

    _native.append_by_key(logs, "murmur2", 0, values, keys, timestamps=range(count))

    assert [contents(log) for log in logs] == by_partition(
        places, values, keys, [None] * count, range(count))
    if options.get("durability") == "fsync":
        assert [log.durable_offset for log in logs] == [log.end_offset for log in logs]
    for log in logs:
        log.close()


@pytest.mark.parametrize("name", ["murmur2", "crc32"])
def test_keys_choose_the_log(logs, name):
    keys = [b"kafka", None, b"", bytearray(b"abc"), None]
    values = [b"%d" % i for i in range(5)]

    _native.append_by_key(logs, name, 2, values, keys)

    places = _native.partitions_of(keys, 3, name, 2).tolist()
    for partition, log in enumerate(logs):
        assert log.fetch(0).values() == [
            value for value, place in zip(values, places, strict=True) if place == partition]


@pytest.mark.parametrize("policy", ["murmur2", "crc32", "round_robin", lambda key, *_: 1],
                         ids=["murmur2", "crc32", "round_robin", "callable"])
@pytest.mark.parametrize("keys", [None, [b"a", b"b", None, b"a"]], ids=["no keys", "keys"])
def test_policy_appends_where_it_says(logs, policy, keys):
    values = [b"0", b"1", b"2", b"3"]
    expected = make_partitioner(policy, 3, random.Random(5)).partitions(keys, 4)
    places = [expected] * 4 if isinstance(expected, int) else expected.tolist()

    done = make_partitioner(policy, 3, random.Random(5)).append_many(logs, values, keys)

    assert done == [(p, 0, places.count(p)) for p in sorted(set(places))]
    for partition, log in enumerate(logs):
        assert log.fetch(0).values() == [
            value for value, place in zip(values, places, strict=True) if place == partition]


def test_what_is_done_goes_into_the_list_that_was_passed(logs):
    done = []

    assert _native.append_by_partition(logs, [2, 0], [b"a", b"b"], done=done) is done
    assert done == [(0, 0, 1), (2, 0, 1)]


def test_nothing_is_appended_to_nothing(logs):
    assert _native.append_by_partition(logs, [], []) == []
    assert _native.append_by_key([None], "murmur2", 0, [], []) == []


def test_log_that_stamps_records_itself_does_so(tmp_path):
    with pylog.Log(tmp_path / "t", timestamp_type="append") as log:
        _native.append_by_partition([log], [0], [b"a"], timestamps=[5])
        assert log.get(0).timestamp > 5


@pytest.mark.parametrize(("columns", "error"), [
    ({"values": [b"a", b"b", "c"]}, TypeError),
    ({"values": [b"a", b"b", 3]}, TypeError),
    ({"values": b"abc"}, TypeError),
    ({"values": None}, TypeError),
    ({"values": [b"a", b"b"]}, pylog.ConfigurationError),
    ({"values": [b"a", b"b", b"c", b"d"]}, pylog.ConfigurationError),
    ({"values": [b"a", b"b", b"c" * 2000]}, pylog.MessageSizeTooLargeError),
    ({"keys": [b"a", b"b", "c"]}, TypeError),
    ({"keys": [b"a", b"b"]}, pylog.ConfigurationError),
    ({"keys": [b"a", b"b", b"c" * 2000]}, pylog.MessageSizeTooLargeError),
    ({"keys": "abc"}, TypeError),
    ({"headers": [None, None]}, pylog.ConfigurationError),
    ({"headers": [None, None, 5]}, TypeError),
    ({"headers": [None, None, [("h", "text")]]}, TypeError),
    ({"headers": {"h": b"for all"}}, TypeError),
    ({"headers": [None, None, [("h", b"c" * 2000)]]}, pylog.MessageSizeTooLargeError),
    ({"timestamps": [1, 2]}, pylog.ConfigurationError),
    ({"timestamps": [1, 2, -3]}, pylog.InvalidTimestampError),
    ({"timestamps": [1, 2, "3"]}, TypeError),
])
def test_bad_entry_for_one_log_is_found_before_any_log_has_a_record(logs, columns, error):
    columns = {"values": [b"a", b"b", b"c"], "keys": [b"0", b"1", b"7"], **columns}

    with pytest.raises(error):
        _native.append_by_partition(logs, [0, 1, 2], **columns)
    with pytest.raises(error):
        _native.append_by_key(logs, "murmur2", 0, **columns)
    with pytest.raises(error):
        make_partitioner(lambda *_: 1, 3).append_many(logs, **columns)
    assert [log.end_offset for log in logs] == [0, 0, 0]


@pytest.mark.parametrize("partitions", [[0, 3], [0, -1], [2**31, 0], [0, 2**40], [2**32, 0],
                                        numpy.array([0, 2**64 - 1], numpy.uint64)], ids=str)
def test_record_for_a_partition_that_is_not_there_is_refused(logs, partitions):
    with pytest.raises(pylog.ConfigurationError, match="0 to 2; nothing was appended"):
        _native.append_by_partition(logs, partitions, [b"a", b"b"])
    assert [log.end_offset for log in logs] == [0, 0, 0]


@pytest.mark.parametrize("partitions", [["0", "1"], [0.0, 1.0], [[0, 1]], [None, 0], 0,
                                        [True, False], [2**70, 0], "01", None], ids=str)
def test_partitions_that_are_no_ints_are_refused(logs, partitions):
    with pytest.raises(TypeError, match="one row of ints"):
        _native.append_by_partition(logs, partitions, [b"a", b"b"])


@pytest.mark.parametrize("name", ["partitions", "keys", "headers", "timestamps"])
@pytest.mark.parametrize("size", [0, 1, 3])
def test_lists_of_unlike_length_are_refused(logs, name, size):
    columns = {"partitions": [0, 1], "values": [b"a", b"b"]}
    columns[name] = {"partitions": [0, 1, 1], "timestamps": [1, 2, 3]}.get(name, [None] * 3)[:size]

    with pytest.raises(pylog.ConfigurationError, match="give one each"):
        _native.append_by_partition(logs, **columns)
    assert [log.end_offset for log in logs] == [0, 0, 0]


@pytest.mark.parametrize("places", [[0, 1, 0], [1, 1, 1]], ids=["spread", "one partition"])
@pytest.mark.parametrize("columns", [
    {"values": [b"a", 1, b"c"]}, {"values": None}, {"keys": "abc"},
    {"headers": [None, None, 5]}, {"headers": [None, None, [("h", "text")]]},
    {"headers": [None, None, [(b"h", b"x")]]}, {"headers": [None, None, [("h",)]]},
    {"timestamps": 1.5},
], ids=str)
def test_entry_of_a_wrong_type_leaves_all_logs_empty(logs, places, columns):
    with pytest.raises(TypeError):
        _native.append_by_partition(logs, places, **{"values": [b"a", b"b", b"c"], **columns})
    assert [log.end_offset for log in logs] == [0, 0, 0]


@pytest.mark.parametrize("places", [[0, 1, 3], [0, 1, -1], [0, 1], [0, 1, 2, 0]])
def test_partition_without_a_log_is_refused(logs, places):
    with pytest.raises(pylog.ConfigurationError) as caught:
        _native.append_by_partition(logs, places, [b"a", b"b", b"c"])
    assert caught.value.option == "partitions"
    assert [log.end_offset for log in logs] == [0, 0, 0]


@pytest.mark.parametrize("other", [None, "log", 5, object()], ids=["None", "str", "int", "object"])
def test_what_is_no_log_is_refused_if_records_go_there(logs, other):
    some = [logs[0], logs[1], other]

    with pytest.raises(TypeError, match=r"logs\[2\] must be a Log"):
        _native.append_by_partition(some, [0, 2], [b"a", b"b"])
    assert logs[0].end_offset == 0
    assert _native.append_by_partition(some, [0, 1], [b"a", b"b"]) == [(0, 0, 1), (1, 0, 1)]


@pytest.mark.parametrize("logs", [[], None, 5])
def test_no_logs_are_refused(logs):
    with pytest.raises((TypeError, pylog.ConfigurationError)):
        _native.append_by_partition(logs, [0], [b"a"])
    with pytest.raises((TypeError, pylog.ConfigurationError)):
        _native.append_by_key(logs, "murmur2", 0, [b"a"], [b"a"])


@pytest.mark.parametrize("unkeyed", [-1, 3, 2**70, None, "0"])
def test_unkeyed_records_must_have_a_log(logs, unkeyed):
    with pytest.raises((TypeError, pylog.ConfigurationError)):
        _native.append_by_key(logs, "murmur2", unkeyed, [b"a"], [None])
    assert [log.end_offset for log in logs] == [0, 0, 0]


def test_closed_log_is_found_before_any_log_has_a_record(logs):
    logs[2].close()

    with pytest.raises(pylog.ClosedError):
        _native.append_by_partition(logs, [0, 1, 2], [b"a", b"b", b"c"])
    assert [log.end_offset for log in logs[:2]] == [0, 0]


def test_log_opened_for_reading_is_found_before_any_log_has_a_record(logs, tmp_path):
    with pylog.Log(tmp_path / "t-2", mode="r") as reader:
        with pytest.raises(pylog.ReadOnlyLogError):
            _native.append_by_partition([*logs[:2], reader], [0, 2], [b"a", b"b"])
    assert logs[0].end_offset == 0


@pytest.mark.parametrize("change", [
    lambda column: column.clear(),
    lambda column: column.__setitem__(slice(None), [5] * len(column)),
], ids=["emptied", "filled with ints"])
@pytest.mark.parametrize("name", ["values", "keys"])
@pytest.mark.parametrize("compression", [None, "lz4"])
def test_list_changed_by_a_later_argument_gives_no_foreign_bytes(
        tmp_path, change, name, compression):
    columns = {"values": [b"v"] * 1000, "keys": [b"k%d" % i for i in range(1000)]}

    def headers():
        change(columns[name])
        yield from [None] * 1000

    with pylog.Log(tmp_path / "t-0", compression=compression) as log:
        with pytest.raises((pylog.IllegalStateError, pylog.ConfigurationError, TypeError)):
            _native.append_by_key([log], "murmur2", 0, **columns, headers=headers())
        assert log.end_offset == 0


@pytest.mark.parametrize("name", ["values", "keys"])
@pytest.mark.parametrize("change", [
    lambda column: column.clear(), lambda column: column.extend([b"x" * 5000] * 100_000),
], ids=["emptied", "made longer"])
def test_list_changed_by_a_timestamp_is_refused(logs, change, name):
    columns = {"values": [b"v" * 1990] * 1000, "keys": [b"k%d" % i for i in range(1000)]}

    class Time:
        def __index__(self):
            change(columns[name])
            return 5

    with pytest.raises(pylog.IllegalStateError, match="was changed"):
        _native.append_by_key(logs, "murmur2", 0, **columns, timestamps=[Time(), *[6] * 999])
    assert [log.end_offset for log in logs] == [0, 0, 0]


@pytest.mark.parametrize("append", [
    lambda logs, places, values: _native.append_by_partition(logs, places, values),
    lambda logs, places, values: _native.append_by_key(
        logs, "murmur2", 1, values, [(b"f", None, b"b")[place] for place in places]),
], ids=["by partition", "by key"])
def test_disk_that_fills_up_halfway_is_told_with_whose_records_are_in(tmp_path, append):
    assert _native.partitions_of([b"f", b"b"], 3).tolist() == [0, 2]
    counts = [10, 60_000, 5]
    places = [place for place, count in enumerate(counts) for _ in range(count)]

    def act():
        with contextlib.ExitStack() as stack:
            logs = [stack.enter_context(pylog.Log(tmp_path / f"t-{i}", segment_bytes=1 << 25))
                    for i in range(3)]
            resource.setrlimit(resource.RLIMIT_FSIZE, (3 << 20, resource.RLIM_INFINITY))
            with pytest.raises(pylog.DiskFullError) as caught:
                append(logs, places, [bytes(100)] * len(places))
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
            return str(caught.value), caught.value.appended, [log.end_offset for log in logs]

    message, appended, ends = in_child(act)

    assert 0 < appended < 60_000
    assert ends == [10, appended, 0]
    assert (f"append the rest: the first {appended} of the records for partition 1 are in, and all "
            "of those for [0]") in message
    assert "of the list" not in message
