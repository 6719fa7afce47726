"""Record.replace: the same record with other fields."""

import pytest

import pylog


@pytest.fixture
def log(log_path):
    with pylog.Log(log_path) as log:
        yield log


def test_a_record_with_other_fields_is_one_of_its_own(log):
    log.append(b"v", key=b"k", headers=[("a", b"1")], timestamp=1_700_000_000_000)
    record = log.get(0)

    other = record.replace(topic="orders", partition=3, offset=17, headers=())
    again = other.replace(topic=None, partition=None, offset=0, headers=record.headers)

    assert (other.topic, other.partition, other.offset, other.timestamp, other.key, other.value,
            other.headers) == ("orders", 3, 17, 1_700_000_000_000, b"k", b"v", ())
    assert again == record == record.replace()


@pytest.mark.parametrize(("fields", "error", "words"), [
    ({"place": 3}, TypeError, "a record has no place; it has topic, partition"),
    ({"offset": 1 << 63}, OverflowError, "int"),
    ({"offset": "3"}, TypeError, "integer"),
    ({"value": "text"}, TypeError, "value"),
    ({"headers": [("a", 3)]}, TypeError, "header"),
])
def test_a_record_with_impossible_fields_is_not_made(log, fields, error, words):
    log.append(b"v")
    with pytest.raises(error, match=words):
        log.get(0).replace(**fields)
