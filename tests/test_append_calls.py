"""Every way to write a call of append means the same, whichever way in it takes (appender.pxi)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

import pylog

NOW = 1_700_000_000_000

ALIKE = [
    lambda log: log.append(b"v", b"k", None, NOW),
    lambda log: log.append(b"v", b"k", timestamp=NOW),
    lambda log: log.append(b"v", key=b"k", timestamp=NOW),
    lambda log: log.append(b"v", timestamp=NOW, key=b"k"),
    lambda log: log.append(value=b"v", key=b"k", timestamp=NOW),
    lambda log: log.append(*(b"v",), **{"".join(("k", "ey")): b"k", "timestamp": NOW}),
    lambda log: log.append(memoryview(b"v"), bytearray(b"k"), timestamp=NOW),
    lambda log: log.append(b"v", b"k", (), NOW, None, None),
    lambda log: pylog.Log.append(log, b"v", b"k", timestamp=NOW),
]

WRONG = [
    lambda log: log.append(),
    lambda log: log.append(b"v", b"k", key=b"k"),
    lambda log: log.append(b"v", value=b"v"),
    lambda log: log.append(b"v", timestamp=NOW, colour=b"k"),
    lambda log: log.append(b"v", None, None, None, None, None, None),
    lambda log: log.append("v"),
    lambda log: log.append(b"v", "k"),
    lambda log: log.append(b"v", key="k"),
    lambda log: log.append(b"v", timestamp=1.5),
    lambda log: log.append(b"v", key=b"k", timestamp="now"),
    lambda log: pylog.Log.append(object(), b"v"),
    lambda log: pylog.Log.append(),
]


@pytest.fixture
def log(log_path):
    with pylog.Log(log_path) as log:
        yield log


@pytest.mark.parametrize("call", ALIKE)
def test_calls_that_say_the_same_append_the_same(log, call):
    assert call(log) == 0

    record = log.get(0)
    assert (record.value, record.key, record.timestamp, record.headers) == (b"v", b"k", NOW, ())


@pytest.mark.parametrize("call", WRONG)
def test_wrong_calls_raise_type_error_and_append_nothing(log, call):
    with pytest.raises(TypeError):
        call(log)

    assert log.end_offset == 0


def test_null_value_null_key_and_no_time_are_the_defaults(log):
    before = log.append(None)
    after = log.append(None, key=None, timestamp=None)

    for offset in (before, after):
        record = log.get(offset)
        assert (record.value, record.key) == (None, None)
        assert record.timestamp > NOW


def test_closed_and_read_only_logs_refuse_the_plain_call_too(log_path):
    log = pylog.Log(log_path)
    log.close()

    with pytest.raises(pylog.ClosedError):
        log.append(b"v")
    with pylog.Log(log_path, mode="r") as reader, pytest.raises(pylog.ReadOnlyLogError):
        reader.append(b"v")


def test_plain_call_of_an_fsync_log_is_durable_on_return(log_path):
    with pylog.Log(log_path, durability="fsync") as log:
        offset = log.append(b"v")

        assert log.durable_offset == offset + 1


def test_append_keeps_its_name_signature_and_text():
    import inspect

    assert list(inspect.signature(pylog.Log.append).parameters) == [
        "self", "value", "key", "headers", "timestamp", "if_end", "durability"]
    assert "visible to all processes" in pylog.Log.append.__doc__


NAMES = st.one_of(st.text(st.characters(exclude_categories=["Cs"]), max_size=12),
                  st.sampled_from(["n" * 63, "n" * 64, "n" * 895, "n" * 1100, "é" * 400]))
VALUES = st.one_of(st.none(), st.binary(max_size=12),
                   st.integers(0, 1100).map(lambda size: b"v" * size))


@given(st.lists(st.tuples(NAMES, VALUES), max_size=12))
def test_headers_are_the_same_in_a_list_as_in_any_other_way(headers):
    """A list of short tuples is encoded on a way of its own."""
    plain, other = ([encoded([(name, value) for name, value in headers]),
                     encoded(list(pair) for pair in headers)])

    assert plain == other
    assert pylog._native.decode_records(plain)[0].headers == tuple(headers)


def encoded(headers):
    return pylog._native.encode_batch([b"v"], headers=[headers], timestamps=[NOW])
