"""Records as JSON lines: nothing is lost on the way out and in, and a bad line is named."""

import json
import time

import pytest
from shell import lines, run, values

import pylog
from pylog.exits import Exit


def test_json_tells_all_of_a_record(log_of_three):
    found = [json.loads(line) for line in lines("read", log_of_three, "--json")]

    assert found == [
        {"offset": 0, "timestamp": 1_700_000_000_000, "key": None, "value": "one", "headers": []},
        {"offset": 1, "timestamp": 1_700_000_001_000, "key_b64": "a/4=", "value_b64": "/3R3bw==",
         "headers_b64": [["h", "/Q=="], ["h", None]]},
        {"offset": 2, "timestamp": 1_700_000_002_000, "key": "three", "value": None,
         "headers": [["h", "text"]]},
    ]


def test_json_of_one_log_appended_to_another_gives_the_same_records(log_path, tmp_path, rng):
    texts = ["", "äöü €", "line\nbreak\r\0\x7f\u2028", '"quoted\\"', "\U0001f600", "\ufeff"]
    some = [None, *(text.encode() for text in texts), b"\xff\xfe", *map(rng.randbytes, range(40))]
    with pylog.Log(log_path) as log:
        for i in range(300):
            log.append(rng.choice(some), key=rng.choice(some), timestamp=rng.randrange(1 << 41),
                       headers=[(rng.choice(texts), rng.choice(some)) for _ in range(i % 4)])
    other = tmp_path / "other"

    result = run("append", other, "--json", given=run("read", log_path, "--json").stdout_bytes)

    assert result.exit_code == Exit.FINE, result.output
    with pylog.Log(log_path) as first, pylog.Log(other) as second:
        assert list(first.read()) == list(second.read())


def test_json_without_a_timestamp_gets_the_time_of_now(log_path):
    before = time.time() * 1000

    run("append", log_path, "--json", given=b'{"value": "v"}\n{"value": null, "timestamp": -1}\n')

    with pylog.Log(log_path) as log:
        assert [(one.key, one.value, one.headers) for one in log.read()] == [
            (None, b"v", ()), (None, None, ())]
        assert all(before - 1000 <= one.timestamp <= before + 60_000 for one in log.read())


@pytest.mark.parametrize("line", [
    b"", b"{", b"not JSON", b"1", b"null", b'"text"', b"[]", b"{}", b'{"key": "k"}',
    b'{"valeu": "v"}',
    b'{"value": 1}', b'{"value": {"a": 1}}', b'{"value": "v", "key": []}', b'{"value": "\\ud800"}',
    b'{"value_b64": "not base64!"}', b'{"value_b64": 7}', b'{"value": "v", "value_b64": "dg=="}',
    b'{"value": "v", "timestamp": "now"}', b'{"value": "v", "timestamp": 1.5}',
    b'{"value": "v", "timestamp": true}', b'{"value": "v", "timestamp": -2}',
    b'{"value": "v", "timestamp": 253402300800000}', b'{"value": "v", "headers": "h"}',
    b'{"value": "v", "headers": {"a": "1"}}', b'{"value": "v", "headers": [["a"]]}',
    b'{"value": "v", "headers": [[1, "1"]]}', b'{"value": "v", "headers": [["a", 1]]}',
    b'{"value": "v", "headers": [["\\ud800", "1"]]}',
    b'{"value": "v", "headers_b64": [["a", "?"]]}',
    b'{"value": "v", "headers": [["a", "1"]], "headers_b64": []}', b'\xff{"value": "v"}',
    b"[" * 100_000, b'{"value": "v", "timestamp": ' + b"9" * 5000 + b"}",
], ids=lambda line: line[:50].decode("latin-1"))
def test_line_that_is_no_record_is_named_after_all_before_it_are_in(log_path, line):
    given = b'{"value": "a"}\n{"value": "b"}\n' + line + b'\n{"value": "never"}\n'

    result = run("append", log_path, "--json", given=given)

    assert result.exit_code == Exit.FAILED, result.output
    assert "stdin, line 3: " in result.stderr
    assert len(result.stderr) < 600
    assert values(log_path) == [b"a", b"b"]
