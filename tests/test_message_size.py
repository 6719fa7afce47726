"""No batch is longer than max_message_bytes, whatever way its records came in."""

import pytest

import pylog

HEADER_BYTES = 61
RECORD_BYTES_LEAST = 7  # what a record adds to its value, at least

ways_in = pytest.mark.parametrize("append", [
    lambda log, value: log.append(value),
    lambda log, value: log.append(b"", key=value),
    lambda log, value: log.append_many([value]),
    lambda log, value: log.append_many([b"fits", value], atomic=True),
    lambda log, value: log.append_buffer(value, [0, len(value)]),
], ids=["append", "key", "append_many", "atomic", "append_buffer"])


@ways_in
@pytest.mark.parametrize("limit", [128, 1000, 20_000, 40_000, 100_000])
def test_record_over_the_limit_is_refused_and_nothing_is_appended(log_path, limit, append):
    with pylog.Log(log_path, max_message_bytes=limit) as log:
        for size in (limit, limit - HEADER_BYTES - RECORD_BYTES_LEAST + 1):
            with pytest.raises(pylog.MessageSizeTooLargeError):
                append(log, b"x" * size)

        assert log.end_offset == 0
        assert log.append(b"small") == 0


@pytest.mark.parametrize("limit", [128, 1000, 20_000])
def test_no_batch_is_over_the_limit(log_path, limit):
    values = [b"x" * (n % (limit - 100)) for n in range(0, 4 * limit, limit // 37)]

    with pylog.Log(log_path, max_message_bytes=limit) as log:
        for value in values:
            log.append(value)
        log.append_many(values)
        log.flush()

        assert max(map(len, log.batches(0))) <= limit
        assert [record.value for record in log.read()] == values * 2
