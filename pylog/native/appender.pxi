"""Appender: every way into a log."""

cdef object list_changed(int64_t appended):
    return errors.IllegalStateError(
        "a list was changed while it was being appended; pass one that nobody else writes to; "
        f"{appended} records are in", appended=appended)


cdef str how_to_go_on(int64_t appended):
    if appended == 0:
        return "append again: nothing was appended"
    return f"append the rest: the first {appended} records of the list are in"


cdef int tell_how_far(object error, int64_t appended) except -1:
    """Puts into `error` how many records of a list are in, and so how to go on."""
    error.appended = appended
    if not isinstance(error, errors.PylogError):    # Ctrl-C, MemoryError
        if appended:
            error.add_note(how_to_go_on(appended))
        return 0
    cdef str text = str(error), advice = how_to_go_on(appended)
    if advice in text or not (appended or error.retriable):
        return 0
    at = text.rfind(f" [{error.path}") if error.path else -1
    if at < 0:
        at = len(text)
    error.args = (f"{text[:at]}; {advice}{text[at:]}",)
    return 0


cdef list byte_column(object items, str what, int64_t *longest):
    """A list of bytes or None, copied only if it must be, and its longest entry's size."""
    cdef list column = take_list(items, what)
    cdef Py_ssize_t i, n = len(column)
    cdef pl_slice one
    longest[0] = 0
    for i in range(n):
        if i + AHEAD < n:
            prefetch(PyList_GET_ITEM(column, i + AHEAD))
        if not take_bytes(<object>PyList_GET_ITEM(column, i), &one):
            return byte_column([to_bytes(item, what) for item in column], what, longest)
        if one.size > longest[0]:
            longest[0] = one.size
    return column


cdef inline bint take_block(list column, int64_t of_list, const int32_t *chosen, int64_t at,
                            int64_t size, int64_t end, pl_slice *out) noexcept:
    """Borrows entries from `at` on, of the list or of those chosen of it, `end` in all; false: the
    list was changed. Nobody else runs meanwhile.
    """
    cdef Py_ssize_t i
    if PyList_GET_SIZE(column) < of_list:
        return False
    if chosen == NULL:
        for i in range(at, at + size):
            if i + AHEAD < end:
                prefetch(PyList_GET_ITEM(column, i + AHEAD))
            if not take_bytes(<object>PyList_GET_ITEM(column, i), &out[i - at]):
                return False
        return True
    for i in range(at, at + size):
        if i + AHEAD < end:
            prefetch(PyList_GET_ITEM(column, chosen[i + AHEAD]))
        if not take_bytes(<object>PyList_GET_ITEM(column, chosen[i]), &out[i - at]):
            return False
    return True


cdef list held_block(list column, const int32_t *chosen, int64_t at, int64_t size):
    cdef int64_t i
    if chosen == NULL:
        return column[at:at + size]
    return [column[chosen[i]] for i in range(at, at + size)]


cdef class Appender(Handle):
    """An open log that takes records."""

    def append(self, value, key=None, headers=None, timestamp=None, if_end=None, durability=None):
        """Appends one record and returns its offset; it is visible to all processes on return.

        value, key: bytes-like, or None for null. headers: a mapping or pairs of (str, bytes or
        None). timestamp: ms since the epoch, now if None. if_end: append only if the log ends at
        this offset. durability: None as the log's; "fsync" makes this call wait until the record
        is on disk. What the log does anyway, or less, changes nothing: no value spares the wait of
        a log created with "fsync". "interval" is refused by one created with "os".

        Cost: about three times `list.append` for 100 bytes; one copy, no system call.
        Raises TypeError, InvalidTimestampError, MessageSizeTooLargeError, WrongEndOffsetError,
        DiskFullError, DurabilityError, PylogTimeoutError (the lock is held by a stopped process;
        nothing was appended), ReadOnlyLogError, ClosedError.
        """
        cdef int64_t time = 0, offset, expected
        self.check_writable()
        expected = self.take_if_end(if_end)
        if durability is not None:
            check_durability(durability, self.log.options.durability)
        offset = self.append_one(value, key, headers, timestamp, expected, &time)
        if self.waits_for_disk or durability is not None:
            self.wait_for_disk(offset + 1, durability)
        return offset

    def _append_timed(self, value, key, headers, timestamp, if_end=None):
        """As `append`; returns the offset, and the timestamp that the record has."""
        cdef int64_t time = 0, offset
        self.check_writable()
        offset = self.append_one(value, key, headers, timestamp, self.take_if_end(if_end), &time)
        self.wait_for_disk(offset + 1, None)
        return offset, time

    cdef int64_t append_one(self, object value, object key, object headers, object timestamp,
                            int64_t expected, int64_t *time) except -1:
        cdef pl_slice v, k, h
        cdef int64_t offset = 0
        if not take_bytes(value, &v):
            value = to_bytes(value, "a value")
            take_bytes(value, &v)
        if not take_bytes(key, &k):
            key = to_bytes(key, "a key")
            take_bytes(key, &k)
        h.data = NULL
        h.size = 0
        if headers is not None:
            headers = encode_headers(headers)
            take_bytes(headers, &h)
        time[0] = pl_clock_ms() if timestamp is None or self.uses_append_time() \
            else take_timestamp(timestamp)
        if pl_append(self.log, time[0], k, v, h, expected, 0, &offset) != PL_OK:
            self.append_slowly(time, k, v, h, expected, &offset)
        return offset

    cdef int64_t take_if_end(self, object if_end) except -2:
        """The offset at which the log must end; -1 for None."""
        cdef int64_t expected
        if if_end is None:
            return -1
        if not take_int(if_end, "if_end", &expected):
            expected = -1 if if_end < 0 else 0x7fffffffffffffff
        if expected < 0:
            raise errors.ConfigurationError(
                f"if_end={if_end} is no offset, so nothing was appended; pass the end that you "
                "expect, from 0 on, or None to append wherever the log ends",
                option="if_end", value=int(if_end))
        if expected == 0x7fffffffffffffff:
            raise self.wrong_end(int(if_end))
        return expected

    cdef object wrong_end(self, object expected):
        end = pl_log_end(self.log)
        return errors.WrongEndOffsetError(
            f"the log ends at offset {end} and not at {expected}; read what is new, decide again, "
            "retry", offset=expected, end_offset=end)

    cdef int append_slowly(self, int64_t *time, pl_slice key, pl_slice value, pl_slice headers,
                           int64_t expected, int64_t *offset) except -1:
        cdef pl_status status = PL_BUSY
        cdef int64_t deadline = pl_monotonic_ms() + self.lock_timeout_ms
        self.enter()
        try:
            while True:
                if self.log.options.append_time:    # perhaps only now
                    time[0] = pl_clock_ms()
                with nogil:
                    status = pl_append(self.log, time[0], key, value, headers, expected, SLICE_MS,
                                       offset)
                if status == PL_OK:
                    return 0
                self.after_slice(status, deadline)
        except errors.PylogError as error:
            tell_how_far(error, 0)
            raise
        finally:
            self.leave()

    cdef int wait_for_disk(self, int64_t end, object durability) except -1:
        if self.waits_for_disk or durability == "fsync":
            self.flush_to(end)
        return 0

    cdef int wait_for_list(self, int64_t appended, object durability) except -1:
        try:
            self.wait_for_disk(self.log.page.end_offset, durability)
        except BaseException as error:
            error.appended = appended    # all are in, and perhaps not on disk
            raise
        return 0

    cdef int flush_to(self, int64_t target) except -1:
        cdef pl_status status = PL_BUSY
        cdef int64_t deadline = pl_monotonic_ms() + self.lock_timeout_ms
        self.enter()
        try:
            while True:
                with nogil:
                    status = pl_flush(self.log, target, SLICE_MS)
                if status == PL_OK:
                    return 0
                self.check(status)
                PyErr_CheckSignals()
                self.check_open()
                if pl_monotonic_ms() >= deadline:
                    self.look_for_stopped()
        finally:
            self.leave()

    cdef int look_for_stopped(self) except -1:
        """A slow disk is waited for; a stopped process is not."""
        if "state T" in describe(self.holder()[1]):
            raise self.lock_timeout("flush again: what was appended is not known durable")
        return 0

    def append_many(self, values, keys=None, headers=None, timestamps=None, atomic=False,
                    if_end=None, durability=None):
        """Appends many records; returns the first one's offset.

        Parallel lists (or iterables) and `durability` as in `append`; `timestamps` may be one int
        for all, or an int64 array. All arguments are checked before anything is appended. With
        `atomic` or `if_end` they are one batch, appended whole or not at all, of at most
        max_message_bytes; without, they go in runs of at most 64 KiB, between which other writers'
        records may stand.
        No values: nothing is appended, and the end offset is returned, if it is `if_end`. With
        compression="lz4" each batch is compressed where that makes it smaller.

        Cost: one copy and a CRC, some 30 ns a record of 100 bytes; the lock is held for 64 KiB at
        a time. Raises as `append`; when a non-atomic call fails halfway (DiskFullError,
        PylogTimeoutError, ResourceLimitError, Ctrl-C and the like), the exception's `appended`
        tells how many records of the list are in: append those behind them.
        """
        return self.append_lists(values, keys, headers, timestamps, atomic, if_end, durability,
                                 self.codec, self.waits_for_disk)

    cdef object append_lists(self, object values, object keys, object headers, object timestamps,
                             bint atomic, object if_end, object durability, int codec, bint waits):
        """append_many, with a codec of the call's own, and perhaps without the wait for the disk.
        """
        self.check_writable()
        cdef int64_t longest_value = 0, longest_key = 0
        cdef list v = byte_column(values, "a value", &longest_value)
        cdef int64_t n = len(v)
        cdef list k = None
        if keys is not None:
            k = take_list(keys, "a key")
            same_length(k, len(v), "keys")
            k = byte_column(k, "a key", &longest_key)
        cdef list h = None
        if headers is not None:
            h = encode_all_headers(headers)
            same_length(h, n, "headers")
        cdef int64_t now = pl_clock_ms()
        stamps = None
        if timestamps is not None and not self.uses_append_time():
            stamps = take_timestamps(timestamps, n, &now)
        if durability is not None:
            check_durability(durability, self.log.options.durability)
        cdef int64_t expected = self.take_if_end(if_end)
        if len(v) != n or (k is not None and len(k) != n): # by code of the later arguments
            raise list_changed(0)
        if n == 0:
            end = pl_log_end(self.log)
            if expected >= 0 and expected != end:
                raise self.wrong_end(expected)
            return end
        if h is not None or longest_value + longest_key + PL_BATCH_HEADER_SIZE \
                + PL_RECORD_OVERHEAD_MAX > self.log.options.max_message_bytes:
            self.check_sizes(v, k, h, None, 0)
        if atomic or expected >= 0 or codec:
            first = self.append_encoded(v, k, h, stamps, now, atomic or expected >= 0, expected,
                                        codec)
        else:
            first = self.append_blocks(v, k, h, stamps, now, None, 0)
        if waits or durability is not None:
            self.wait_for_list(n, durability)
        return first

    cdef int check_sizes(self, list v, list k, list h, _Split split, int32_t partition) except -1:
        """Names the record that is too large; called when the longest entries could be."""
        cdef Py_ssize_t i
        cdef pl_slice value, key, headers
        key.size, headers.size = -1, 0
        for i in range(len(v)):
            if split is not None and split.at[i] != partition:
                continue
            if not take_bytes(v[i], &value) or k is not None and not take_bytes(k[i], &key):
                raise list_changed(0)
            if h is not None:
                take_bytes(h[i], &headers)
            self.check_size(i, pl_alone_size(key.size, value.size, headers.size))
        return 0

    cdef inline bint uses_append_time(self) except -1:
        """As it is now; asked of those who bring a timestamp, and so mostly of no one."""
        if not self.log.options.append_time or pl_log_knows_options(self.log):
            return self.log.options.append_time != 0
        self.message_bytes_max()
        return self.log.options.append_time != 0

    cdef int64_t message_bytes_max(self) except -1:
        """The limit as it is now: another process may have altered it since our last append."""
        cdef pl_status status
        with nogil:
            status = pl_learn_options(self.log)
        self.check(status)
        return self.log.options.max_message_bytes

    cdef int check_size(self, int64_t index, int64_t size) except -1:
        if size > self.log.options.max_message_bytes and size > self.message_bytes_max():
            raise errors.MessageSizeTooLargeError(
                f"record {index} of the list makes a batch of {size} bytes, over max_message_bytes "
                f"({self.log.options.max_message_bytes}); nothing was appended; split it, or raise "
                "that: alter the log, or max.message.bytes of its topic", index=index, size=size,
                max_message_bytes=self.log.options.max_message_bytes)
        return 0

    cdef object append_blocks(self, list v, list k, list h, object stamps, int64_t now,
                              _Split split, int32_t partition):
        """All records, or those that go to one partition."""
        cdef pl_slice values[BLOCK]
        cdef pl_slice keys[BLOCK]
        cdef pl_slice heads[BLOCK]
        cdef int64_t some[BLOCK]
        cdef pl_columns c
        cdef int64_t n = len(v), of_list = n, at = 0, i, size, first = -1, here = 0
        cdef const int32_t *chosen = NULL
        cdef const int64_t[::1] times
        if split is not None:
            n = split.counts[partition]
            of_list = split.n
            chosen = split.chosen(partition)
        c.values = values
        c.keys = keys if k is not None else NULL
        c.headers = heads if h is not None else NULL
        c.timestamps = NULL
        c.timestamp = now
        if stamps is not None:
            times = stamps
        while at < n:
            size = n - at if n - at < BLOCK else BLOCK
            if not take_block(v, of_list, chosen, at, size, n, values) \
                    or k is not None and not take_block(k, of_list, chosen, at, size, n, keys) \
                    or h is not None and not take_block(h, of_list, chosen, at, size, n, heads):
                raise list_changed(at)
            if stamps is not None and chosen == NULL:
                c.timestamps = &times[at]
            elif stamps is not None:
                for i in range(size):
                    some[i] = times[chosen[at + i]]
                c.timestamps = some
            c.count = size
            self.append_block(&c, &here, (v, k, h), at, chosen)
            if first < 0:
                first = here
            at += size
        return first

    cdef int append_block(self, pl_columns *c, int64_t *first, tuple lists, int64_t at,
                          const int32_t *chosen) except -1:
        cdef pl_status status
        cdef int64_t done = 0, in_run = 0, here = 0
        cdef list held = None
        while done < c.count:
            status = pl_append_run(self.log, c, done, 0, &in_run, &here)
            if status != PL_OK:
                # Other threads may change the lists meanwhile: what the slices point into is held
                # until the whole block is in.
                if held is None:
                    held = [one and held_block(one, chosen, at, c.count) for one in lists]
                self.append_run_slowly(c, done, &in_run, &here, at + done)
            if done == 0:
                first[0] = here
            done += in_run
        return 0

    cdef int append_run_slowly(self, pl_columns *c, int64_t start, int64_t *done,
                               int64_t *first, int64_t appended) except -1:
        cdef pl_status status
        cdef int64_t deadline = pl_monotonic_ms() + self.lock_timeout_ms
        self.enter()
        try:
            while True:
                with nogil:
                    status = pl_append_run(self.log, c, start, SLICE_MS, done, first)
                if status == PL_OK:
                    return 0
                self.after_slice(status, deadline, how_to_go_on(appended))
        except BaseException as error:
            tell_how_far(error, appended)
            raise
        finally:
            self.leave()

    cdef object append_encoded(self, list v, list k, list h, object stamps, int64_t now,
                               bint is_one_batch, int64_t expected, int codec):
        """Batches made outside the lock: atomic, conditional or compressed ones."""
        cdef _Columns columns
        cdef pl_identity identity
        cdef int64_t at = 0, i, bound, n = len(v), first = -1, here
        v = v[:]    # a batch is compressed and appended without the GIL
        k = None if k is None else k[:]
        identity.producer_id = -1
        identity.producer_epoch = -1
        identity.base_sequence = -1
        identity.attributes = PL_ATTRIBUTE_APPEND_TIME if self.uses_append_time() else 0
        while at < n:
            i = at
            bound = 0
            while i < n and (is_one_batch or i == at or bound < ENCODE_BYTES):
                bound += PL_RECORD_OVERHEAD_MAX + (len(v[i]) if v[i] is not None else 0) \
                    + (len(k[i]) if k is not None and k[i] is not None else 0) \
                    + (len(h[i]) if h is not None else 0)
                i += 1
            try:
                columns = make_columns(v[at:i], None if k is None else k[at:i],
                                       None if h is None else h[at:i],
                                       None if stamps is None else stamps[at:i], now)
                batch = compressed_batch(codec, &columns.c, &identity,
                                         min(self.log.options.max_message_bytes * 64,
                                             DECOMPRESSED_MAX))
                here = self.append_batch(batch, i - at, expected, at)
            except BaseException as error:
                tell_how_far(error, at)
                if isinstance(error, errors.MessageSizeTooLargeError):
                    error.max_message_bytes = self.log.options.max_message_bytes
                raise
            if first < 0:
                first = here
            at = i
        return first

    cdef int64_t append_batch(self, bytes batch, int64_t count, int64_t expected,
                              int64_t appended) except -1:
        cdef const uint8_t *data = <const uint8_t *>PyBytes_AS_STRING(batch)
        cdef uint64_t size = PyBytes_GET_SIZE(batch)
        cdef int64_t first = 0
        cdef pl_status status = pl_append_batch(self.log, data, size, count, expected, 0, &first)
        cdef int64_t deadline = pl_monotonic_ms() + self.lock_timeout_ms
        if status == PL_OK:
            return first
        self.enter()
        try:
            while True:
                with nogil:
                    status = pl_append_batch(self.log, data, size, count, expected, SLICE_MS,
                                             &first)
                if status == PL_OK:
                    return first
                self.after_slice(status, deadline, how_to_go_on(appended))
        finally:
            self.leave()

    def append_buffer(self, payload, positions, timestamps=None):
        """Appends the n values payload[positions[i]:positions[i + 1]]; returns the first offset.

        payload: one contiguous buffer (numpy, Arrow, bytes). positions: n + 1 rising int64.
        timestamps: None, one int, or n int64. Nothing is compressed. Cost, errors and
        `appended`: as append_many, without the objects.
        """
        self.check_writable()
        cdef Py_buffer buffer
        cdef const int64_t[::1] at = take_positions(positions)
        cdef int64_t n = at.shape[0] - 1, i, done = 0, size, first = -1, here = 0
        cdef pl_slice values[BLOCK]
        cdef pl_columns c
        cdef const int64_t[::1] times
        stamps = None
        memset(&c, 0, sizeof(c))
        c.values = values
        c.timestamp = pl_clock_ms()
        if n < 0:
            raise errors.ConfigurationError(
                "positions is empty, and for n values it needs n + 1 entries; nothing was "
                "appended; pass where each value starts, then where the last one ends ([0] for "
                "none)", option="positions")
        if timestamps is not None and not self.uses_append_time():
            stamps = take_timestamps(timestamps, n, &c.timestamp)
            if stamps is not None:
                times = stamps
        take_buffer(payload, "payload", "bytes-like", &buffer)
        try:
            for i in range(n):
                if at[i] < 0 or at[i + 1] < at[i] or at[i + 1] > buffer.len:
                    raise errors.ConfigurationError(
                        f"positions must rise within the payload's {buffer.len} bytes, and entry "
                        f"{i + 1} does not, so nothing was appended; pass where each value "
                        "starts, then where the last one ends", option="positions")
                if at[i + 1] - at[i] + PL_BATCH_HEADER_SIZE + PL_RECORD_OVERHEAD_MAX \
                        > self.log.options.max_message_bytes:
                    self.check_size(i, pl_alone_size(-1, at[i + 1] - at[i], 0))
            if n == 0:
                return self.log.page.end_offset
            while done < n:
                size = n - done if n - done < BLOCK else BLOCK
                for i in range(size):
                    values[i].data = <const uint8_t *>buffer.buf + at[done + i]
                    values[i].size = at[done + i + 1] - at[done + i]
                if stamps is not None:
                    c.timestamps = &times[done]
                c.count = size
                self.append_block(&c, &here, (), done, NULL)
                if first < 0:
                    first = here
                done += size
        finally:
            PyBuffer_Release(&buffer)
        if self.waits_for_disk:
            self.wait_for_list(n, None)
        return first


# ---- the short way into append ------------------------------------------------------------------
#
# The generated wrapper of `append` counts references of its six arguments, in and out: 5 ns of 40.
# Calls with only value, key and timestamp, as most are, come through here and count none.

cdef extern from "short_way.h":
    ctypedef object (*pl_fast_call)(object self, PyObject **arguments, Py_ssize_t count,
                                    PyObject *names)
    pl_fast_call pl_take_short_way(PyTypeObject *type, const char *name, void *short_way)

cdef pl_fast_call pl_append_wrapper

cdef str KEY = sys.intern("key")
cdef str TIMESTAMP = sys.intern("timestamp")

cdef object append_shortly(Appender self, PyObject **arguments, Py_ssize_t count, PyObject *names):
    cdef pl_slice v, k, h
    cdef int64_t time, offset = 0
    cdef PyObject *key = NULL
    cdef PyObject *timestamp = NULL
    cdef PyObject *name
    cdef Py_ssize_t i
    cdef bint is_plain = (count == 1 or count == 2) and self.can_append \
        and not self.waits_for_disk and self.log.fork_generation == pl_forks
    if count == 2:
        key = arguments[1]
    if names != NULL and is_plain:
        for i in range(PyTuple_GET_SIZE(<object>names)):
            name = <PyObject *>PyTuple_GET_ITEM(<object>names, i)
            if name == <PyObject *>KEY and key == NULL:
                key = arguments[count + i]
            elif name == <PyObject *>TIMESTAMP and timestamp == NULL \
                    and PyLong_CheckExact(<object>arguments[count + i]):
                timestamp = arguments[count + i]
            else:
                is_plain = False
    if not is_plain or not take_bytes(<object>arguments[0], &v):
        return pl_append_wrapper(self, arguments, count, names)
    k.data = NULL
    k.size = -1
    if key != NULL and not take_bytes(<object>key, &k):
        return pl_append_wrapper(self, arguments, count, names)
    h.data = NULL
    h.size = 0
    time = pl_clock_ms() if timestamp == NULL or self.uses_append_time() \
        else take_timestamp(<object>timestamp)
    if pl_append(self.log, time, k, v, h, -1, 0, &offset) != PL_OK:
        self.append_slowly(&time, k, v, h, -1, &offset)
    return offset


pl_append_wrapper = pl_take_short_way(<PyTypeObject *>Appender, "append", <void *>append_shortly)
