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


@ways_in
@pytest.mark.parametrize("limit", [128, 1000, 20_000, 40_000, 100_000])
def test_error_tells_size_limit_and_place_to_the_byte(log_path, limit, append):
    with pylog.Log(log_path, max_message_bytes=limit) as log:
        smallest = next(size for size in range(limit - 100, limit) if is_refused(log, append, size))
        end = log.end_offset
        with pytest.raises(pylog.MessageSizeTooLargeError) as caught:
            append(log, b"x" * smallest)

        error = caught.value
        assert (error.size, error.max_message_bytes) == (limit + 1, limit)
        assert error.index in (None, 0, 1)
        assert str(limit + 1) in str(error)
        assert "alter the log, or max.message.bytes of its topic" in str(error)
        assert log.end_offset == end


def is_refused(log, append, size):
    try:
        append(log, b"x" * size)
    except pylog.MessageSizeTooLargeError:
        return True
    return False


@pytest.mark.parametrize("extra", range(-12, 12))
@pytest.mark.parametrize("limit", [128, 1000, 40_000])
def test_list_with_a_record_over_the_limit_appends_none_of_it(log_path, limit, extra):
    values = [b"small"] * 600 + [b"x" * (limit - HEADER_BYTES + extra)]
    with pylog.Log(log_path, max_message_bytes=limit) as log:
        is_too_large = is_refused(log, lambda log, value: log.append(value), len(values[-1]))
        end = log.end_offset
        if not is_too_large:
            assert log.append_many(values) == end
            return
        with pytest.raises(pylog.MessageSizeTooLargeError) as caught:
            log.append_many(values)
        assert (caught.value.index, log.end_offset) == (600, end)


def test_batch_that_fits_no_segment_tells_its_size(log_path):
    with pylog.Log(log_path, segment_bytes=4096) as log:
        for append in (lambda: log.append(b"x" * 4096),
                       lambda: log.append_many([b"x" * 2048] * 2, atomic=True)):
            with pytest.raises(pylog.MessageSizeTooLargeError, match="segment_bytes") as caught:
                append()
            assert 4096 < caught.value.size < 4300
            assert caught.value.max_message_bytes == 1_048_588


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
