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


cdef list take_list(object items, str what):
    """The list itself, or one of what can be gone through."""
    if type(items) is list:
        return items
    if isinstance(items, (bytes, str)) or not (hasattr(items, "__iter__")
                                               or hasattr(items, "__getitem__")):
        raise TypeError(f"expected a list with {what} each, not {type(items).__name__}")
    return list(items)


cdef object to_bytes(object value, str what):
    """A bytes object with the contents of anything bytes-like; None stays None."""
    cdef Py_buffer buffer
    if value is None or PyBytes_Check(value):
        return value
    take_buffer(value, what, "bytes-like or None", &buffer)
    try:
        return PyBytes_FromStringAndSize(<const char *>buffer.buf, buffer.len)
    finally:
        PyBuffer_Release(&buffer)


cdef int take_buffer(object value, str what, str wanted, Py_buffer *buffer) except -1:
    """Borrows the bytes of anything bytes-like, to be released; TypeError for all else."""
    if isinstance(value, str):
        raise TypeError(f"{what} must be {wanted}, not str: encode it first")
    if not PyObject_CheckBuffer(value):
        raise TypeError(f"{what} must be {wanted}, not {type(value).__name__}")
    try:
        PyObject_GetBuffer(value, buffer, PyBUF_FULL_RO)
    except (BufferError, ValueError) as error:    # as numpy's of times
        raise TypeError(f"{what} cannot be read as bytes: {error}; pass .tobytes()") from None
    cdef bint is_contiguous = PyBuffer_IsContiguous(buffer, b"C")
    cdef bint has_objects = buffer.format != NULL and points_to_objects(buffer.format)
    if is_contiguous and not has_objects:
        return 0
    PyBuffer_Release(buffer)
    if has_objects:
        raise TypeError(
            f"{what} must be {wanted}, and this {type(value).__name__} holds Python objects: what "
            "lies in it are addresses; encode the objects one by one")
    raise TypeError(
        f"{what} must be contiguous, and this {type(value).__name__} is not; pass .tobytes()")


cdef bint points_to_objects(const char *format) noexcept:
    """Does a buffer's format hold an O? The names of fields stand between two colons."""
    cdef bint is_name = False
    while format[0]:
        if format[0] == b":":
            is_name = not is_name
        elif format[0] == b"O" and not is_name:
            return True
        format += 1
    return False


def to_int(number, what):
    """The int that `number` is or stands for by `__index__`, as numpy's do; a bool is none."""
    if not isinstance(number, (bool, numpy.bool_)):
        try:
            return PyNumber_Index(number)
        except TypeError:
            pass
    raise TypeError(f"{what} must be an int, not {type(number).__name__}")


cdef inline bint take_int(object number, str what, int64_t *out) except -1:
    """Every int that a user passes comes through here. False: it is beyond int64."""
    cdef int overflow
    if not PyLong_CheckExact(number):
        number = to_int(number, what)
    out[0] = PyLong_AsLongLongAndOverflow(number, &overflow)
    return not overflow


cdef object impossible_timestamp(object timestamp, int64_t index):
    where = "timestamp" if index < 0 else f"timestamps[{index}] ="
    return errors.InvalidTimestampError(
        f"{where} {timestamp} is not within [0, {TIMESTAMP_MAX}] ms since the epoch; pass ms, not "
        "s or ns; nothing was appended", timestamp=int(timestamp),
        index=None if index < 0 else index)


cdef int64_t take_deadline(object timeout) except -2:
    """When a wait of so many seconds ends, on the monotonic clock; -1: never."""
    if timeout is None:
        return -1
    try:
        seconds = timeout + 0.0
    except OverflowError:    # an int that no float holds
        return -1
    except TypeError:
        raise TypeError(
            f"timeout must be seconds or None, not {type(timeout).__name__}") from None
    if seconds != seconds:
        raise errors.ConfigurationError(
            "timeout=nan is no time; use seconds, or None to wait for ever",
            option="timeout", value=timeout)
    if seconds > 1e12:
        return -1
    return pl_monotonic_ms() + (<int64_t>(seconds * 1000) if seconds > 0 else 0)


cdef inline int64_t take_timestamp(object timestamp, int64_t index=-1) except -1:
    cdef int64_t time
    if not take_int(timestamp, "a timestamp (ms since the epoch)", &time) \
            or time < 0 or time > TIMESTAMP_MAX:
        raise impossible_timestamp(timestamp, index)
    return time


cdef int64_t take_at_least_1(object number, str option) except -1:
    cdef int64_t taken
    if not take_int(number, option, &taken) or taken < 1:
        raise errors.ConfigurationError(
            f"{option}={number} must be from 1 to 2^63 - 1", option=option, value=int(number))
    return taken


cdef int check_durability(object durability, int64_t stored) except -1:
    """Of one call, on a log created with `stored`."""
    if durability not in ("os", "interval", "fsync"):
        raise errors.ConfigurationError(
            f"durability={durability!r} is unknown; use 'os', 'interval' or 'fsync'; nothing was "
            "appended", option="durability", value=durability)
    if durability == "interval" and stored == PL_DURABILITY_OS:
        raise errors.ConfigurationError(
            "durability='interval' cannot be had for one call: nobody flushes this log, which was "
            "created with 'os'; nothing was appended; use 'fsync', or flush() after some calls",
            option="durability", value=durability, stored="os")
    return 0


cdef list encode_all_headers(object headers):
    if hasattr(headers, "items") or isinstance(headers, (str, bytes)):
        raise TypeError(
            "headers must be a list with a mapping, pairs or None for each value, not one "
            f"{type(headers).__name__} for all: [headers] * len(values) repeats it")
    try:
        entries = iter(headers)
    except TypeError:
        raise TypeError("headers must be a list with a mapping, pairs or None for each value, not "
                        f"{type(headers).__name__}") from None
    return [encode_headers(one) for one in entries]


cdef bytes encode_few(list headers):
    """As encode_headers, of what most are: short tuples (str, bytes or None). Else None, of any.

    0.2 us for three, where the other way takes 2.5: who sends a request waits for it.
    """
    cdef uint8_t buffer[1024]
    cdef uint8_t *at = pl_put_varint(buffer, pl_zigzag(<int64_t>PyList_GET_SIZE(headers)))
    cdef Py_ssize_t name_size, size
    cdef const char *name_bytes
    for item in headers:
        if type(item) is not tuple or PyTuple_GET_SIZE(item) != 2:
            return None
        name, value = <object>PyTuple_GET_ITEM(item, 0), <object>PyTuple_GET_ITEM(item, 1)
        if not PyUnicode_CheckExact(name) or not (value is None or PyBytes_CheckExact(value)):
            return None
        try:
            name_bytes = PyUnicode_AsUTF8AndSize(name, &name_size)
        except UnicodeEncodeError:
            return None
        size = -1 if value is None else PyBytes_GET_SIZE(value)
        if max(name_size, size) > 900 or at - buffer + name_size + size > 900:
            return None
        at = pl_put_varint(at, pl_zigzag(name_size))
        memcpy(at, name_bytes, <size_t>name_size)
        at = pl_put_varint(at + name_size, pl_zigzag(size))
        if size > 0:
            memcpy(at, PyBytes_AS_STRING(value), <size_t>size)
            at += size
    return PyBytes_FromStringAndSize(<const char *>buffer, at - buffer)


cdef bytes encode_headers(object headers):
    """Kafka's bytes of a record's headers, the count first; b"" for none."""
    cdef bytes short
    if headers is None:
        return b""
    if type(headers) is list and PyList_GET_SIZE(headers):
        short = encode_few(headers)
        if short is not None:
            return short
    try:
        items = iter(headers.items() if hasattr(headers, "items") else headers)
    except TypeError:
        raise TypeError("headers must be a mapping or pairs (str, bytes), not "
                        f"{type(headers).__name__}") from None
    items = list(items)
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
        try:
            name = name.encode()
        except UnicodeEncodeError:
            raise errors.ConfigurationError(
                f"the name {name!r} in headers has no UTF-8 form (a lone surrogate); nothing was "
                "appended; name it otherwise, and put bytes into the value", option="headers",
                value=name) from None
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


cdef object find_header(const uint8_t *p, int64_t size, str name, object default):
    cdef const uint8_t *end = p + size
    cdef int64_t count
    cdef pl_slice key, value, found
    cdef Py_ssize_t name_size
    cdef const char *wanted = PyUnicode_AsUTF8AndSize(name, &name_size)
    found.data = NULL
    found.size = -2
    p = pl_get_varint(p, end, &count)
    if p == NULL or count < 0:
        raise errors.CorruptRecordError("a record's header count is broken; run `pylog check`")
    for _ in range(count):
        if not pl_record_header_next(&p, end, &key, &value):
            raise errors.CorruptRecordError("a record's headers are broken; run `pylog check`")
        if key.size == name_size and memcmp(key.data, wanted, <size_t>name_size) == 0:
            found = value
    if found.size == -2:
        return default
    return None if found.size < 0 else PyBytes_FromStringAndSize(<const char *>found.data,
                                                                found.size)


cdef int same_length(object column, int64_t count, str name) except -1:
    return same_length_of(len(column), count, name)


cdef int same_length_of(int64_t size, int64_t count, str name) except -1:
    if size != count:
        raise errors.ConfigurationError(
            f"there are {count} values and {size} {name}: give one each; nothing was appended",
            option=name)
    return 0


cdef object take_positions(object positions):
    """An int64 array of our own, which nobody changes after the caller has seen that it rises."""
    found = numpy.asarray(positions)
    if found.ndim != 1 or (found.size and found.dtype.kind not in "iu"):
        raise TypeError("positions must be one row of ints: where each value starts, and the end")
    return numpy.array(found, dtype=numpy.int64, order="C")


cdef object take_timestamps(object timestamps, int64_t count, int64_t *for_all):
    """An int64 array of our own, each entry possible; None: it is one timestamp, `for_all`."""
    if isinstance(timestamps, (list, tuple, range)) or hasattr(timestamps, "__next__"):
        stamps = stamps_of_list(tuple(timestamps))
    else:
        stamps = None if PyLong_Check(timestamps) else numpy.asarray(timestamps)
        if stamps is None or stamps.ndim == 0:
            for_all[0] = take_timestamp(timestamps)
            return None
        if stamps.ndim != 1 or (stamps.size and stamps.dtype.kind not in "iu"):
            raise TypeError("timestamps must be ints (ms since the epoch), one for each value")
        is_impossible = (stamps < 0) | (stamps > TIMESTAMP_MAX)
        if is_impossible.any():
            index = int(is_impossible.argmax())
            raise impossible_timestamp(stamps[index], index)
        stamps = numpy.array(stamps, dtype=numpy.int64, order="C")
    same_length(stamps, count, "timestamps")
    return stamps


cdef object stamps_of_list(tuple timestamps):
    cdef Py_ssize_t i, n = len(timestamps)
    stamps = numpy.empty(n, numpy.int64)
    cdef int64_t[::1] out = stamps
    for i in range(n):
        out[i] = take_timestamp(timestamps[i], i)
    return stamps
