"""Arguments: what users pass, checked and made into slices, numbers and encoded headers."""

cdef inline bint take_bytes(object value, pl_slice *out) noexcept:
    """Borrows a bytes object or None; false: it needs a buffer."""
    if PyBytes_Check(value):
        out.data = <const uint8_t *>PyBytes_AS_STRING(value)
        out.size = PyBytes_GET_SIZE(value)
        return True
    if value is None:
        out.data = NULL
        out.size = -1
        return True
    return False


cdef object to_bytes(object value, str what):
    """A bytes object with the contents of anything bytes-like; None stays None."""
    if value is None or PyBytes_Check(value):
        return value
    if isinstance(value, str):
        raise TypeError(f"{what} must be bytes-like or None, not str: encode it first")
    try:
        return bytes(memoryview(value).cast("B") if not isinstance(value, bytearray) else value)
    except TypeError:
        raise TypeError(
            f"{what} must be bytes-like or None, not {type(value).__name__}"
        ) from None


cdef int64_t take_timestamp(object timestamp) except -1:
    if timestamp is None:
        return pl_clock_ms()
    if not PyLong_Check(timestamp):
        raise TypeError(f"timestamp must be an int (ms), not {type(timestamp).__name__}")
    cdef int overflow
    cdef int64_t time = PyLong_AsLongLongAndOverflow(timestamp, &overflow)
    if overflow or time < 0 or time > TIMESTAMP_MAX:
        raise errors.InvalidTimestampError(
            f"timestamp {timestamp} is not within [0, {TIMESTAMP_MAX}] ms since the epoch; pass "
            "ms, not s or ns", timestamp=timestamp)
    return time


cdef int64_t take_if_end(object if_end) except -2:
    """The offset at which the log must end; -1 for None."""
    if if_end is None:
        return -1
    if if_end < 0:
        raise errors.ConfigurationError(
            f"if_end={if_end} must be an offset, from 0 on; nothing was appended",
            option="if_end", value=if_end)
    return if_end


cdef int check_durability(object durability) except -1:
    if durability not in ("os", "interval", "fsync"):
        raise errors.ConfigurationError(
            f"durability={durability!r} is unknown; use 'os', 'interval' or 'fsync'; nothing was "
            "appended", option="durability", value=durability)
    return 0


cdef bytes encode_headers(object headers):
    """Kafka's bytes of a record's headers, the count first; b"" for none."""
    if headers is None:
        return b""
    items = list(headers.items() if hasattr(headers, "items") else headers)
    if not items:
        return b""
    cdef uint8_t number[10]
    out = bytearray()
    out += number[:pl_put_varint(number, pl_zigzag(len(items))) - number]
    for item in items:
        try:
            name, value = item
        except (TypeError, ValueError):
            raise TypeError("headers must be a mapping or pairs (str, bytes)") from None
        if not isinstance(name, str):
            raise TypeError(f"a header's name must be str, not {type(name).__name__}")
        name = name.encode()
        value = to_bytes(value, "a header's value")
        out += number[:pl_put_varint(number, pl_zigzag(len(name))) - number]
        out += name
        size = -1 if value is None else len(value)
        out += number[:pl_put_varint(number, pl_zigzag(size)) - number]
        if value is not None:
            out += value
    return bytes(out)


cdef tuple decode_headers(const uint8_t *p, int64_t size):
    cdef const uint8_t *end = p + size
    cdef int64_t count
    cdef pl_slice key, value
    p = pl_get_varint(p, end, &count)
    if p == NULL or count < 0:
        raise errors.CorruptRecordError("a record's header count is broken; run `pylog check`")
    out = []
    for _ in range(count):
        if not pl_record_header_next(&p, end, &key, &value):
            raise errors.CorruptRecordError("a record's headers are broken; run `pylog check`")
        out.append((
            PyBytes_FromStringAndSize(<const char *>key.data, key.size).decode("utf-8", "replace"),
            None if value.size < 0
            else PyBytes_FromStringAndSize(<const char *>value.data, value.size),
        ))
    if p != end:
        raise errors.CorruptRecordError("bytes follow a record's headers; run `pylog check`")
    return tuple(out)


cdef int same_length(object column, list values, str name) except -1:
    if len(column) != len(values):
        raise errors.ConfigurationError(
            f"there are {len(values)} values and {len(column)} {name}: give one each; "
            "nothing was appended", option=name)
    return 0


cdef object take_positions(object positions):
    """An int64 array of our own, which nobody changes after the caller has seen that it rises."""
    found = numpy.asarray(positions)
    if found.ndim != 1 or (found.size and found.dtype.kind not in "iu"):
        raise TypeError("positions must be one row of ints: where each value starts, and the end")
    return numpy.array(found, dtype=numpy.int64, order="C")


cdef object take_timestamps(object timestamps):
    """A contiguous int64 array, every entry possible."""
    stamps = numpy.asarray(timestamps)
    if stamps.ndim != 1 or (stamps.size and stamps.dtype.kind not in "iu"):
        # numpy makes floats or objects of what no int64 holds.
        if isinstance(timestamps, (list, tuple)) and all(type(one) is int for one in timestamps):
            stamps = numpy.array([-1])
    if stamps.ndim != 1 or (stamps.size and stamps.dtype.kind not in "iu"):
        raise TypeError("timestamps must be ints (ms since the epoch), one for each value")
    if stamps.size and (stamps.min() < 0 or stamps.max() > TIMESTAMP_MAX):
        raise errors.InvalidTimestampError(
            f"a timestamp is not within [0, {TIMESTAMP_MAX}] ms since the epoch; nothing was "
            "appended; pass ms, not s or ns")
    return numpy.ascontiguousarray(stamps, dtype=numpy.int64)
