"""Records that check themselves, made; and the ledger of who makes or reads them."""

STAMP_BYTES = PL_STAMP_SIZE
LEDGER_BYTES, LEDGER_BYTES_MAX = PL_LEDGER_BYTES, PL_LEDGER_BYTES_MAX
LEDGER_SPANS, LEDGER_SPANS_MAX = PL_LEDGER_SPANS, PL_LEDGER_SPANS_MAX


def stamp_layout():
    """The compiled offsets of a stamp, by field: what docs/format.md must agree with."""
    return {
        "magic": PL_STAMP_MAGIC_AT, "crc": PL_STAMP_CRC, "run": PL_STAMP_RUN,
        "producer": PL_STAMP_PRODUCER, "incarnation": PL_STAMP_INCARNATION,
        "flags": PL_STAMP_FLAGS, "sequence": PL_STAMP_SEQUENCE,
        "transaction": PL_STAMP_TRANSACTION, "index": PL_STAMP_INDEX, "count": PL_STAMP_COUNT,
        "sent": PL_STAMP_SENT, "filler": PL_STAMP_SIZE,
    }


def ledger_layout():
    """The compiled offsets of a ledger file, by field."""
    return {
        "magic": LEDGER_MAGIC, "layout": LEDGER_LAYOUT, "producer": LEDGER_PRODUCER,
        "run": LEDGER_RUN, "incarnation": LEDGER_INCARNATION, "pid": LEDGER_PID,
        "sent": LEDGER_SENT, "settled": LEDGER_SETTLED, "next": LEDGER_NEXT,
        "records": LEDGER_RECORDS, "rounds": LEDGER_ROUNDS, "spanCount": LEDGER_SPAN_COUNT,
        "spans": LEDGER_SPANS_AT,
    }


def stamp_values(run, producer, incarnation, first_sequence, sizes, flags=0):
    """Values of the given sizes (bytes; -1: null) that check themselves, and their keys.

    `sizes` is an int64 array; sequences count from `first_sequence`; bit 2 of the flags, the
    tombstone's, is set for a null. Returns two lists of bytes;
    the second is None where every value has room for its stamp (48 bytes). docs/format.md draws
    the stamp. Cost: a bytes object and a CRC each, some 40 ns for 100 bytes.
    """
    cdef const int64_t[::1] wanted = numpy.ascontiguousarray(sizes, dtype=numpy.int64)
    cdef int64_t n = wanted.shape[0], i, size
    cdef pl_stamp stamp
    cdef uint8_t *key_bytes
    cdef object value, key
    cdef list values = [None] * n, keys = None
    memset(&stamp, 0, sizeof(stamp))
    stamp.run = run
    stamp.producer = producer
    stamp.incarnation = incarnation
    stamp.sequence = first_sequence
    stamp.sent_ns = pl_monotonic_ns()
    for i in range(n):
        size = wanted[i]
        value = key = None
        stamp.flags = flags | (PL_STAMP_TOMBSTONE if size < 0 else 0)
        if size >= 0:
            value = PyBytes_FromStringAndSize(NULL, size)
        if size < PL_STAMP_SIZE:
            key = PyBytes_FromStringAndSize(NULL, PL_STAMP_SIZE)
            if keys is None:
                keys = [None] * n
            keys[i] = key
        key_bytes = NULL if key is None else <uint8_t *>PyBytes_AS_STRING(key)
        pl_stamp_write(&stamp, key_bytes,
                       NULL if value is None else <uint8_t *>PyBytes_AS_STRING(value), size)
        values[i] = value
        stamp.sequence += 1
    return values, keys


def read_stamp(key, value):
    """The fields of a record's stamp as a dict; None without a stamp, False for a broken one."""
    cdef pl_slice k, v
    cdef pl_stamp stamp
    cdef uint32_t crc
    key, value = to_bytes(key, "a key"), to_bytes(value, "a value")
    take_bytes(key, &k)
    take_bytes(value, &v)
    cdef int found = pl_stamp_read(k, v, &stamp, &crc)
    if found != PL_STAMP_GOOD:
        return None if found == PL_STAMP_ABSENT else False
    return {
        "run": stamp.run, "producer": stamp.producer, "incarnation": stamp.incarnation,
        "flags": stamp.flags, "sequence": stamp.sequence, "transaction": stamp.transaction,
        "index": stamp.index, "count": stamp.count, "sent_ns": stamp.sent_ns,
    }


@cython.final
cdef class Ledger:
    """What one producer or reader did, in a file that outlives its SIGKILL (csrc/pl_ledger.h).

    Without `run` an existing one is opened to be read. A producer: `enter` once, then for each
    call `begin`, the call, and `acknowledge`, `doubt` or `withdraw`. A reader stores `next`.
    """

    cdef pl_ledger *c
    cdef bint is_writable

    def __cinit__(self, path, run=0, producer=0):
        cdef bytes name = path if isinstance(path, bytes) else str(path).encode(
            "utf-8", "surrogateescape")
        check(pl_ledger_open(name, run, producer, &self.c))
        self.is_writable = run != 0

    def __dealloc__(self):
        if self.c != NULL:
            pl_ledger_close(self.c)

    cdef int check_writable(self) except -1:
        if not self.is_writable:
            raise errors.IllegalStateError("this ledger was opened to be read; give its run")
        return 0

    def enter(self):
        """Begins a new incarnation and returns its number; what was in flight is in doubt."""
        cdef uint32_t incarnation
        self.check_writable()
        check(pl_ledger_enter(self.c, &incarnation))
        return incarnation

    def begin(self, count):
        """Before a call with `count` records: the first of their sequences."""
        self.check_writable()
        return pl_ledger_begin(self.c, count)

    def acknowledge(self, count=None):
        """After the call returned; or that raised with its first `count` in, for those alone."""
        self.check_writable()
        pl_ledger_acknowledge(self.c, 0xffffffffffffffff if count is None else count)

    def doubt(self, is_failed=False):
        """After the call raised; `is_failed`: the error promises that nothing was appended."""
        self.check_writable()
        check(pl_ledger_doubt(self.c, PL_SPAN_FAILED if is_failed else PL_SPAN_INDETERMINATE))

    def withdraw(self):
        """After the call raised and, as was *seen*, left nothing: its sequences are free again."""
        self.check_writable()
        pl_ledger_withdraw(self.c)

    def send_each(self, append, list values, list keys=None):
        """Calls append(value) or append(value, key) for each, with an entry before and after.

        What it raises comes through, with the record at hand neither settled nor doubted.
        """
        cdef int64_t i
        self.check_writable()
        for i in range(len(values)):
            pl_ledger_begin(self.c, 1)
            if keys is None or keys[i] is None:
                append(values[i])
            else:
                append(values[i], keys[i])
            pl_ledger_acknowledge(self.c, 1)

    @property
    def producer(self):
        return self.c.file.producer

    @property
    def run(self):
        return self.c.file.run

    @property
    def incarnation(self):
        return pl_load_word32(&self.c.file.incarnation)

    @property
    def pid(self):
        return pl_load_word32(&self.c.file.pid)

    @property
    def sent(self):
        """Sequences below it were handed to a call, or may have been."""
        return pl_load_word(&self.c.file.sent)

    @property
    def settled(self):
        """Sequences below it were acknowledged, but for the spans."""
        return pl_load_word(&self.c.file.settled)

    @property
    def acknowledged(self):
        """How many records calls have returned for: those that are settled and in no span."""
        cdef uint64_t settled = pl_load_word(&self.c.file.settled), count = settled
        cdef pl_span *span
        cdef uint32_t i
        for i in range(pl_load_word32(&self.c.file.span_count)):
            span = &self.c.file.spans[i]
            count -= min(settled, span.end) - min(settled, span.start)
        return count

    @property
    def spans(self):
        """Of what was not acknowledged: tuples (start, end, is_failed), rising."""
        cdef uint32_t i
        return [(self.c.file.spans[i].start, self.c.file.spans[i].end,
                 self.c.file.spans[i].kind == PL_SPAN_FAILED)
                for i in range(pl_load_word32(&self.c.file.span_count))]

    @property
    def next(self):
        """A reader's: the offset that it wants next."""
        return pl_load_word(&self.c.file.next)

    @property
    def records(self):
        """A reader's: records taken."""
        return pl_load_word(&self.c.file.records)

    @property
    def rounds(self):
        """A reader's: how often it sought, followed or looked back."""
        return pl_load_word(&self.c.file.rounds)

    def note(self, next_offset, records, rounds):
        """A reader's word, after each turn."""
        self.check_writable()
        pl_store_word(&self.c.file.next, next_offset)
        pl_store_word(&self.c.file.records, records)
        pl_store_word(&self.c.file.rounds, rounds)
