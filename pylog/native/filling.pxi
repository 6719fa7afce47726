"""Filling: the records that gather in a batch. Pool: how much of a producer's buffer is used.

What is done here is done with the GIL in hand and without a call back into Python, so that a record
is put into a batch whole or not at all, and into none that has been closed.
"""


@cython.final
cdef class Pool:
    """Of the records that a producer has accepted and that are not appended yet."""

    cdef readonly int64_t bytes, bytes_max, records

    def __init__(self, int64_t bytes_max):
        self.bytes_max = bytes_max

    def release(self, Filling filling not None):
        """They are appended, or never will be."""
        self.bytes -= filling.bytes
        self.records -= filling.records


@cython.final
cdef class Filling:
    """The columns of a batch. It takes records up to `limit` bytes, as encoded, but at least one.

    batch: what futures ask; see accumulator.py. append_ms: when all were appended, where that is
    their timestamp; else -1.
    """

    cdef readonly object batch
    cdef readonly int64_t bytes, records, append_ms
    cdef readonly bint is_open
    cdef list values, keys, headers, times
    cdef int64_t limit

    def __init__(self, batch, int64_t limit):
        self.batch = batch
        self.limit = limit
        self.is_open = True
        self.append_ms = -1
        self.values, self.keys, self.headers, self.times = [], [], [], []

    def close(self):
        """No more records come."""
        self.is_open = False

    def add(self, Pool pool not None, value, key, headers, timestamp, int64_t size):
        """Puts a record in, already looked at; returns its place, or -1: there is no room."""
        return put(self, pool, value, key, headers, timestamp, size)

    def append(self, Appender log not None, int codec, bint waits):
        """Appends all as one batch, whole or not at all; returns the first offset.

        Raises as Log.append_many with atomic=True.
        """
        log.check_writable()
        cdef int64_t now = pl_clock_ms()
        stamps = None
        if log.uses_append_time():
            self.append_ms = now
        else:
            stamps = stamps_of_list(tuple(self.times))
        k = None if not any_given(self.keys) else self.keys
        h = None if not any_given(self.headers) else [one or b"" for one in self.headers]
        first = log.append_encoded(self.values, k, h, stamps, now, True, -1, codec)
        if waits:
            log.wait_for_list(self.records, None)
        return first

    def empty(self):
        """Nobody needs the records any more, and futures may live long."""
        self.values, self.keys, self.headers, self.times = [], [], [], []


cdef bint any_given(list column):
    for one in column:
        if one is not None:
            return True
    return False


cdef inline int64_t put(Filling self, Pool pool, object value, object key, object headers,
                     object timestamp, int64_t size) except -2:
    if not self.is_open or (self.records and self.bytes + size > self.limit) \
            or pool.bytes + size > pool.bytes_max:
        return -1
    self.values.append(value)
    self.keys.append(key)
    self.headers.append(headers)
    self.times.append(timestamp)
    self.records += 1
    self.bytes += size
    pool.records += 1
    pool.bytes += size
    return self.records - 1
