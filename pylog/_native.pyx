# cython: language_level=3, binding=False, boundscheck=False, wraparound=False, cdivision=True
# cython: autotestdict=False
"""The native objects in the user's hand: Log, Cursor, Chunk, Record.

Arguments, lifetimes, the GIL and errors are here; bytes are C's business, policy is log.py's.

The GIL is held for short calls. A call that would wait (for the lock, a flush, a cold page) gets
PL_BUSY or PL_NOT_READY from C and comes again without the GIL, at most 100 ms at a time, so that
Ctrl-C works everywhere.

Lifetimes: a Mapping holds one reference to a segment and, for a compressed batch, its records.
Records and views hold the Mapping, so they outlive chunk, cursor and log.
"""

cimport cython
from cpython.buffer cimport (
    PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_FillInfo, PyBuffer_Release, PyObject_GetBuffer,
)
from cpython.bytes cimport (
    PyBytes_AS_STRING, PyBytes_Check, PyBytes_FromStringAndSize, PyBytes_GET_SIZE,
)
from cpython.exc cimport PyErr_CheckSignals
from cpython.list cimport PyList_GET_ITEM, PyList_New, PyList_SET_ITEM
from cpython.long cimport PyLong_AsLongLongAndOverflow, PyLong_Check
from cpython.ref cimport PyObject, PyTypeObject, Py_INCREF
from cpython.tuple cimport PyTuple_GET_ITEM, PyTuple_GET_SIZE
from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset
from posix.stdlib cimport posix_memalign

from pylog.csrc cimport *

import sys

import numpy

from pylog import compression, errors

DEF BLOCK = 512           # records handed from C to Python at a time
DEF SLICE_MS = 100        # longest wait without looking at signals
DEF IDLE_SLICE_MS = 250   # after some time: a wake-up costs 0.1 ms, and a signal wakes anyway
DEF ENCODE_BYTES = 65536  # records that go into one compressed batch
DEF AHEAD = 32            # list entries to prefetch: their objects are rarely in the nearest cache

cdef extern from *:
    """
    #define prefetch(object) __builtin_prefetch(object)
    """
    void prefetch(void *object) noexcept nogil

cdef int64_t TIMESTAMP_MAX = 253402300799999  # the year 9999, as datetime has it
cdef int64_t DECOMPRESSED_MAX = 256 << 20

CRC_KERNEL = pl_crc32c_kernel().decode()


# ---- the gate: C status to exception ----------------------------------------------------------

cdef object _errors = {
    PL_ERR_IO: errors.LogError,
    PL_ERR_DISK_FULL: errors.DiskFullError,
    PL_ERR_CORRUPT: errors.CorruptRecordError,
    PL_ERR_FORMAT: errors.UnsupportedFormatError,
    PL_ERR_FILESYSTEM: errors.UnsupportedFilesystemError,
    PL_ERR_ENVIRONMENT: errors.UnsupportedEnvironmentError,
    PL_ERR_CODEC: errors.UnsupportedCodecError,
    PL_ERR_LIMIT: errors.ResourceLimitError,
    PL_ERR_READ_ONLY: errors.ReadOnlyLogError,
    PL_ERR_DURABILITY: errors.DurabilityError,
    PL_ERR_TIMEOUT: errors.PylogTimeoutError,
    PL_ERR_OUT_OF_RANGE: errors.OffsetOutOfRangeError,
    PL_ERR_WRONG_END: errors.WrongEndOffsetError,
    PL_ERR_NOT_FOUND: errors.RecordNotFoundError,
    PL_ERR_TOO_LARGE: errors.MessageSizeTooLargeError,
    PL_ERR_CLOSED: errors.ClosedError,
    PL_ERR_FORKED: errors.IllegalStateError,
    PL_ERR_CONFIG: errors.ConfigurationError,
    PL_ERR_NO_MEMORY: errors.ResourceLimitError,
}


cdef object make_error(pl_status status):
    """The exception for this thread's latest failure."""
    cdef pl_error *e = pl_error_last()
    cdef bytes path = e.path
    context = {}
    if path:
        context["path"] = path.decode("utf-8", "surrogateescape")
    if e.os_errno:
        context["errno"] = e.os_errno
    if e.position >= 0:
        context["position"] = e.position
    if e.offset >= 0:
        context["offset"] = e.offset
    if e.extra >= 0:
        context["end_offset" if status == PL_ERR_WRONG_END else "valid_batches"] = e.extra
    text = (<bytes>e.text).decode("utf-8", "replace")
    where = context.get("path", "")
    if "position" in context:
        where += f", byte {e.position}"
    return _errors[status](f"{text} [{where}]" if where else text, **context)


cdef int check(pl_status status) except -1:
    if status < 0:
        raise make_error(status)
    return 0


# ---- arguments --------------------------------------------------------------------------------

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


# ---- lifetimes --------------------------------------------------------------------------------

@cython.final
@cython.no_gc
@cython.freelist(64)
cdef class Mapping:
    """One reference to a segment, and the decompressed records of one batch of it if need be."""

    cdef pl_segment *segment
    cdef object payload
    cdef readonly object topic, partition

    def __dealloc__(self):
        if self.segment != NULL:
            pl_segment_release(self.segment)


cdef Mapping hold(pl_segment *segment, object payload):
    cdef Mapping mapping = Mapping.__new__(Mapping)
    if segment != NULL:
        pl_segment_acquire(segment)
    mapping.segment = segment
    mapping.payload = payload
    return mapping


@cython.final
cdef class _View:
    """A read-only buffer over bytes of a Mapping, valid and unchanged as long as it lives."""

    cdef Mapping mapping
    cdef const uint8_t *data
    cdef Py_ssize_t size

    def __getbuffer__(self, Py_buffer *buffer, int flags):
        if flags & PyBUF_WRITABLE:
            raise BufferError("the log's bytes are read-only; copy them")
        PyBuffer_FillInfo(buffer, self, <void *>self.data, self.size, 1, flags)


cdef object make_view(Mapping mapping, const uint8_t *data, Py_ssize_t size):
    cdef _View view = _View.__new__(_View)
    view.mapping = mapping
    view.data = data
    view.size = size
    return memoryview(view)


# ---- records ----------------------------------------------------------------------------------

@cython.final
@cython.no_gc
@cython.freelist(1024)
cdef class Record:
    """One record, read lazily from the log: fields are decoded when asked for.

    topic, partition: None on a bare log. offset: its number in the log. timestamp: ms since the
    epoch. timestamp_type: 0 create time, 1 append time. key, value: bytes or None. headers: a
    tuple of (str, bytes or None). leader_epoch: of the batch. Equal records have equal fields.

    Cost: 25 ns to make; key and value copy when read (once each time). Holds its segment's mapping.
    """

    cdef Mapping owner
    cdef const uint8_t *batch
    cdef const uint8_t *body
    cdef int64_t body_size
    cdef readonly int64_t offset
    cdef readonly int64_t timestamp

    __match_args__ = ("topic", "partition", "offset", "timestamp", "key", "value")

    def __init__(self):
        raise TypeError("records come out of a log")

    cdef int split(self, pl_record_fields *fields) except -1:
        if not pl_record_split(self.body, self.body_size, fields):
            raise errors.CorruptRecordError(
                f"the record at offset {self.offset} does not parse; run `pylog check`",
                offset=self.offset)
        return 0

    @property
    def key(self):
        """bytes, or None. Copies."""
        cdef pl_record_fields fields
        self.split(&fields)
        if fields.key.size < 0:
            return None
        return PyBytes_FromStringAndSize(<const char *>fields.key.data, fields.key.size)

    @property
    def value(self):
        """bytes, or None (a tombstone). Copies."""
        cdef pl_record_fields fields
        self.split(&fields)
        if fields.value.size < 0:
            return None
        return PyBytes_FromStringAndSize(<const char *>fields.value.data, fields.value.size)

    @property
    def value_view(self):
        """The value as a read-only memoryview into the log, without a copy; None if null."""
        cdef pl_record_fields fields
        self.split(&fields)
        if fields.value.size < 0:
            return None
        return make_view(self.owner, fields.value.data, fields.value.size)

    @property
    def headers(self):
        """((name, value), ...), in order; () for none."""
        cdef pl_record_fields fields
        self.split(&fields)
        return decode_headers(fields.headers, fields.headers_size)

    @property
    def topic(self):
        return self.owner.topic

    @property
    def partition(self):
        return self.owner.partition

    @property
    def timestamp_type(self):
        """0: the producer's time; 1: the append's."""
        return (self.batch[PL_BATCH_ATTRIBUTES + 1] & PL_ATTRIBUTE_APPEND_TIME) != 0 and 1 or 0

    @property
    def leader_epoch(self):
        cdef const uint8_t *p = self.batch + PL_BATCH_LEADER_EPOCH
        return <int32_t>(<uint64_t>p[0] << 24 | p[1] << 16 | p[2] << 8 | p[3])

    cdef tuple fields(self):
        return (self.topic, self.partition, self.offset, self.timestamp, self.timestamp_type,
                self.key, self.value, self.headers, self.leader_epoch)

    def __eq__(self, other):
        if not isinstance(other, Record):
            return NotImplemented
        return self.fields() == (<Record>other).fields()

    def __hash__(self):
        return hash(self.fields())

    def __len__(self):
        """Bytes of the value; 0 when null."""
        cdef pl_record_fields fields
        self.split(&fields)
        return fields.value.size if fields.value.size > 0 else 0

    def __bool__(self):
        return True

    def __repr__(self):
        where = f"topic={self.topic!r}, partition={self.partition}, " if self.topic else ""
        headers = f", headers={self.headers!r}" if self.headers else ""
        return (f"Record({where}offset={self.offset}, timestamp={self.timestamp}, "
                f"key={self.key!r}, value={self.value!r}{headers})")

    def __reduce__(self):
        return make_record, self.fields()


cdef inline Record new_record(Mapping owner, pl_record *r):
    cdef Record record = Record.__new__(Record)
    record.owner = owner
    record.batch = r.batch
    record.body = r.body
    record.body_size = r.body_size
    record.offset = r.offset
    record.timestamp = r.timestamp
    return record


def make_record(topic, partition, offset, timestamp, timestamp_type, key, value, headers,
                leader_epoch):
    """A record of its own, in no log: what unpickling builds, and tests compare with."""
    cdef bytes batch = encode_batch([value], [key], [headers], [timestamp], 0, leader_epoch,
                                    -1, -1, -1, PL_ATTRIBUTE_APPEND_TIME if timestamp_type else 0)
    cdef pl_chunk chunk
    cdef pl_segment segment
    cdef pl_reader reader
    cdef pl_record record
    cdef Mapping owner = hold(NULL, batch)
    owner.topic = topic
    owner.partition = partition
    memset(&chunk, 0, sizeof(chunk))
    memset(&segment, 0, sizeof(segment))
    segment.data = <uint8_t *>PyBytes_AS_STRING(batch)
    chunk.segment = &segment
    chunk.end_position = PyBytes_GET_SIZE(batch)
    chunk.next_offset = 1
    pl_reader_init(&reader, &chunk)
    pl_reader_records(&reader, &record, 1)
    record.offset = offset
    return new_record(owner, &record)


# ---- encoding outside a log -------------------------------------------------------------------

cdef class _Columns:
    """Arguments of a batch as C columns; holds what they point into."""

    cdef pl_columns c
    cdef list held
    cdef pl_slice *slices
    cdef int64_t *times

    def __dealloc__(self):
        free(self.slices)
        free(self.times)


cdef _Columns make_columns(list values, list keys, list headers, object timestamps, int64_t now):
    """Lists of bytes or None; `headers` of encoded bytes; `timestamps` an int64 buffer or None."""
    cdef _Columns self = _Columns.__new__(_Columns)
    cdef int64_t n = len(values), i
    cdef int64_t[::1] given
    self.held = [values, keys, headers]
    self.slices = <pl_slice *>malloc((3 * n + 1) * sizeof(pl_slice))
    if self.slices == NULL:
        raise MemoryError()
    for i in range(n):
        take_bytes(values[i], &self.slices[i])
        if keys is not None:
            take_bytes(keys[i], &self.slices[n + i])
        if headers is not None:
            take_bytes(headers[i], &self.slices[2 * n + i])
    self.c.values = self.slices
    self.c.keys = NULL if keys is None else self.slices + n
    self.c.headers = NULL if headers is None else self.slices + 2 * n
    self.c.count = n
    self.c.timestamp = now
    if timestamps is not None:
        given = timestamps
        self.times = <int64_t *>malloc((n + 1) * sizeof(int64_t))
        if self.times == NULL:
            raise MemoryError()
        if n:
            memcpy(self.times, &given[0], n * sizeof(int64_t))
        self.c.timestamps = self.times
    return self


def encode_batch(values, keys=None, headers=None, timestamps=None, base_offset=0, leader_epoch=0,
                 producer_id=-1, producer_epoch=-1, base_sequence=-1, attributes=0):
    """The bytes of one uncompressed batch, whoever it is from: also transactional and control.

    Parallel lists; a timestamp each, or none for now. Cost: encodes and one CRC.
    """
    cdef pl_identity identity
    identity.producer_id = producer_id
    identity.producer_epoch = producer_epoch
    identity.base_sequence = base_sequence
    identity.attributes = attributes
    cdef list v = [to_bytes(value, "a value") for value in values]
    cdef list k = None if keys is None else [to_bytes(key, "a key") for key in keys]
    cdef list h = None if headers is None else [encode_headers(one) for one in headers]
    if not v:
        raise errors.ConfigurationError("a batch has at least one record")
    stamps = None if timestamps is None else numpy.asarray(timestamps, dtype=numpy.int64)
    cdef _Columns columns = make_columns(v, k, h, stamps, pl_clock_ms())
    cdef uint64_t bound = pl_batch_size_bound(&columns.c)
    cdef uint8_t *batch = <uint8_t *>malloc(bound)
    if batch == NULL:
        raise MemoryError()
    try:
        size = pl_batch_encode(batch, &columns.c, &identity)
        pl_batch_stamp(batch, base_offset, leader_epoch)
        return PyBytes_FromStringAndSize(<char *>batch, size)
    finally:
        free(batch)


cdef bytes compressed_batch(int codec, pl_columns *columns, pl_identity *identity, int64_t limit):
    """One sealed batch, compressed where that makes it smaller; of what readers will decompress."""
    cdef uint8_t *batch = <uint8_t *>malloc(pl_batch_size_bound(columns))
    cdef uint64_t size
    cdef bytes plain, packed, whole
    cdef uint8_t *out
    cdef pl_header header
    cdef const char *why
    if batch == NULL:
        raise MemoryError()
    try:
        size = pl_batch_encode(batch, columns, identity)
        plain = PyBytes_FromStringAndSize(<char *>batch, size)
    finally:
        free(batch)
    if codec == PL_CODEC_NONE:
        return plain
    if <int64_t>size - PL_BATCH_HEADER_SIZE >= limit:
        raise errors.MessageSizeTooLargeError(
            f"the records of the batch have {size - PL_BATCH_HEADER_SIZE} bytes, over the {limit} "
            "that a reader will decompress; nothing of it was appended; split it", size=size)
    packed = compression.compress(codec, plain[PL_BATCH_HEADER_SIZE:])
    if len(packed) + PL_BATCH_HEADER_SIZE >= len(plain):
        return plain
    pl_header_decode(<const uint8_t *>PyBytes_AS_STRING(plain), size, &header, &why)
    whole = plain[:PL_BATCH_HEADER_SIZE] + packed
    out = <uint8_t *>PyBytes_AS_STRING(whole)
    out[PL_BATCH_ATTRIBUTES + 1] |= codec
    pl_batch_seal(out, len(whole), header.records_count, header.max_timestamp)
    return whole


def decode_batch(batch):
    """Header fields of one whole batch, as a dict, or a str that says what is wrong with it.

    Looks at every byte: header, CRC, records (of an uncompressed batch), codec. For checking and
    dumping foreign bytes; hostile ones are fine.
    """
    cdef const uint8_t[::1] view = batch
    cdef pl_header h
    cdef const char *why
    cdef int64_t max_timestamp
    if view.shape[0] < PL_BATCH_HEADER_SIZE:
        return "fewer bytes than a batch header has"
    if not pl_header_decode(&view[0], view.shape[0], &h, &why):
        return why.decode()
    fields = dict(
        base_offset=h.base_offset, last_offset=h.last_offset, size=h.size,
        leader_epoch=h.leader_epoch, attributes=h.attributes,
        codec=h.attributes & PL_ATTRIBUTE_CODEC_MASK, base_timestamp=h.base_timestamp,
        max_timestamp=h.max_timestamp, producer_id=h.producer_id,
        producer_epoch=h.producer_epoch, base_sequence=h.base_sequence,
        records_count=h.records_count,
        crc_ok=bool(pl_batch_crc_matches(&view[0], h.size)), records_error=None,
    )
    cdef const uint8_t *payload = &view[0] + PL_BATCH_HEADER_SIZE
    cdef uint64_t payload_size = h.size - PL_BATCH_HEADER_SIZE
    if fields["codec"] and fields["crc_ok"]:
        records = compression.decompress(
            fields["codec"], view[PL_BATCH_HEADER_SIZE:h.size], DECOMPRESSED_MAX)
        if records is None:
            fields["records_error"] = "the records do not decompress"
            return fields
        payload = <const uint8_t *>PyBytes_AS_STRING(records)
        payload_size = PyBytes_GET_SIZE(records)
    if fields["crc_ok"]:
        why = pl_records_verify(payload, payload_size, &h, &max_timestamp)
        if why != NULL:
            fields["records_error"] = why.decode()
        elif not h.attributes & PL_ATTRIBUTE_APPEND_TIME and h.records_count \
                and max_timestamp != h.max_timestamp:
            fields["records_error"] = "the greatest timestamp is not the header's"
    return fields


def decode_records(batch):
    """The records of one whole batch, as Record objects. Raises CorruptRecordError."""
    cdef bytes copy = bytes(batch)
    fields = decode_batch(copy)
    if isinstance(fields, str) or not fields["crc_ok"] or fields["records_error"]:
        why = fields if isinstance(fields, str) else fields["records_error"]
        raise errors.CorruptRecordError(f"the batch is broken: {why or 'it fails its CRC-32C'}")
    cdef pl_chunk chunk
    cdef pl_segment segment
    cdef pl_reader reader
    cdef pl_record record
    cdef pl_slice payload
    cdef bytes records
    memset(&chunk, 0, sizeof(chunk))
    memset(&segment, 0, sizeof(segment))
    segment.data = <uint8_t *>PyBytes_AS_STRING(copy)
    chunk.segment = &segment
    chunk.end_position = fields["size"]
    chunk.from_offset = fields["base_offset"]
    chunk.next_offset = fields["last_offset"] + 1
    cdef Mapping owner = hold(NULL, copy)
    if fields["codec"]:
        records = compression.decompress(
            fields["codec"], memoryview(copy)[PL_BATCH_HEADER_SIZE:], DECOMPRESSED_MAX)
        owner.payload = (copy, records)
        payload.data = <const uint8_t *>PyBytes_AS_STRING(records)
        payload.size = len(records)
    else:
        payload = pl_chunk_payload(&chunk)
    pl_reader_init_payload(&reader, &chunk, payload)    # a control batch's record too
    out = []
    while pl_reader_records(&reader, &record, 1) == 1:
        out.append(new_record(owner, &record))
    return out


def crc32c(data):
    """CRC-32C (Castagnoli) of anything bytes-like."""
    cdef const uint8_t[::1] view = data
    return pl_crc32c(&view[0], view.shape[0]) if view.shape[0] else 0


def batch_layout():
    """The compiled offsets of the batch header, by field: what docs/format.md must agree with."""
    return {
        "baseOffset": PL_BATCH_BASE_OFFSET, "batchLength": PL_BATCH_LENGTH,
        "partitionLeaderEpoch": PL_BATCH_LEADER_EPOCH, "magic": PL_BATCH_MAGIC,
        "crc": PL_BATCH_CRC, "attributes": PL_BATCH_ATTRIBUTES,
        "lastOffsetDelta": PL_BATCH_LAST_OFFSET_DELTA, "baseTimestamp": PL_BATCH_BASE_TIMESTAMP,
        "maxTimestamp": PL_BATCH_MAX_TIMESTAMP, "producerId": PL_BATCH_PRODUCER_ID,
        "producerEpoch": PL_BATCH_PRODUCER_EPOCH, "baseSequence": PL_BATCH_BASE_SEQUENCE,
        "recordsCount": PL_BATCH_RECORDS_COUNT, "records": PL_BATCH_HEADER_SIZE,
    }


def load_meta(directory):
    """The fields of log.meta as a dict; None when there is none; raises when it is damaged."""
    cdef pl_meta *meta = <pl_meta *>malloc(sizeof(pl_meta))
    cdef pl_status status
    cdef int64_t i
    if meta == NULL:
        raise MemoryError()
    try:
        status = pl_meta_load(directory, meta)
        check(status)
        if status != PL_OK:
            return None
        return dict(
            incarnation=meta.incarnation, log_start=meta.log_start, clean_end=meta.clean_end,
            durable_end=meta.durable_end, reserved_end=meta.reserved_end,
            durability=meta.options.durability, segment_bytes=meta.options.segment_bytes,
            max_message_bytes=meta.options.max_message_bytes,
            append_time=meta.options.append_time,
            index_interval_bytes=meta.options.index_interval_bytes,
            flush_interval_ms=meta.options.flush_interval_ms,
            epochs=[(meta.epochs[i].epoch, meta.epochs[i].start_offset)
                    for i in range(meta.epoch_count)],
        )
    finally:
        free(meta)


def decode_page(data):
    """The words of a control page, given as bytes, as a dict; or a str: why it is none of ours."""
    cdef const uint8_t[::1] view = data
    if view.shape[0] != PL_PAGE_BYTES:
        return f"it has {view.shape[0]} bytes, and a control page has {PL_PAGE_BYTES}"
    cdef void *memory = NULL
    if posix_memalign(&memory, 128, PL_PAGE_BYTES) != 0:
        raise MemoryError()
    cdef pl_page *page = <pl_page *>memory
    try:
        memcpy(page, &view[0], PL_PAGE_BYTES)
        if page.identity.magic != PL_PAGE_MAGIC:
            return "its magic number is not a control page's"
        if page.identity.layout != PL_PAGE_LAYOUT:
            return f"its layout is {page.identity.layout}, and ours is {PL_PAGE_LAYOUT}"
        return dict(
            boot_id=(<bytes>page.identity.boot_id[:16]).hex(), device=page.identity.device,
            inode=page.identity.inode, incarnation=page.identity.incarnation,
            state=page.state, poison_errno=page.poison_errno, leader_epoch=page.leader_epoch,
            start_offset=page.log_start, end_offset=page.end_offset,
            sealed_offset=page.sealed_offset, durable_offset=page.durable_offset,
            reserved_end=page.reserved_end, active_base=page.active_base, rolls=page.rolls,
            owner_deaths=page.owner_deaths, lock_owner=pl_slot_owner(&page.append_lock))
    finally:
        free(page)


# ---- reading ----------------------------------------------------------------------------------

cdef int decompressed(const pl_chunk *chunk, Mapping mapping, int64_t limit,
                      pl_slice *payload) except -1:
    """Decompresses the chunk's only batch into the mapping's care."""
    cdef pl_slice packed = pl_chunk_payload(chunk)
    records = compression.decompress(
        chunk.codec, make_view(mapping, packed.data, packed.size), limit)
    if records is None:
        raise errors.CorruptRecordError(
            f"the batch at offset {chunk.from_offset} does not decompress to at most {limit} bytes;"
            " run `pylog check`", path=(<bytes>chunk.segment.path).decode(),
            offset=chunk.from_offset, position=chunk.position)
    mapping.payload = records
    payload.data = <const uint8_t *>PyBytes_AS_STRING(records)
    payload.size = PyBytes_GET_SIZE(records)
    return 0


cdef object broken_record(const pl_chunk *chunk):
    return errors.CorruptRecordError(
        f"a record of the batch at offset {chunk.from_offset} does not parse; run `pylog check`",
        path=(<bytes>chunk.segment.path).decode(), position=chunk.position,
        offset=chunk.from_offset)


@cython.final
cdef class Chunk:
    """Consecutive records as they lie in the log: a sequence of Record, or columns, or one view.

    `len`, index, slice, iterate. `.values()` and `.keys()` are lists of bytes; `.offsets`,
    `.timestamps` int64 arrays; `.payload` one read-only view over all the records' bytes, into
    which `.value_positions` (int64) and `.value_sizes` (int32, -1 null) point, as do
    `.key_positions` and `.key_sizes`. `.next_offset` is where to fetch on.

    Cost: nothing is decoded before it is asked for; each way out is one pass. A chunk never
    crosses a segment. Holds the segment's mapping as long as it or a view of it lives.
    """

    cdef pl_chunk c
    cdef Mapping mapping
    cdef pl_slice payload_slice
    cdef list records
    cdef object columns_cache
    cdef readonly int64_t next_offset

    def __dealloc__(self):
        pl_chunk_release(&self.c)

    cdef int64_t recount(self) except -1:
        """The number of records. C took each offset of a compressed batch for one, but Kafka's
        compaction leaves batches with fewer."""
        cdef pl_reader reader
        cdef pl_record record
        self.start(&reader)
        if reader.left < reader.batch_end - reader.base_offset:
            self.c.count = 0
            while pl_reader_records(&reader, &record, 1) == 1:    # what is broken shows when read
                self.c.count += 1
        return self.c.count

    cdef int start(self, pl_reader *reader) except -1:
        if self.c.codec:
            pl_reader_init_payload(reader, &self.c, self.payload_slice)
        else:
            pl_reader_init(reader, &self.c)
        return 0

    def __len__(self):
        return self.c.count

    def values(self):
        """The values as a list of bytes (None for null). Cost: one copy each."""
        cdef pl_reader reader
        cdef pl_slice slices[BLOCK]
        cdef int64_t got, i, filled = 0
        cdef object value
        if self.c.segment == NULL:
            return []
        cdef list out = PyList_New(self.c.count)
        self.start(&reader)
        while True:
            got = pl_reader_values(&reader, slices, BLOCK)
            if got < 0 or filled + got > self.c.count:
                raise broken_record(&self.c)
            for i in range(got):
                if slices[i].size < 0:
                    value = None
                else:
                    value = PyBytes_FromStringAndSize(<const char *>slices[i].data, slices[i].size)
                Py_INCREF(value)
                PyList_SET_ITEM(out, filled + i, value)
            filled += got
            if got < BLOCK:
                break
        if filled != self.c.count:
            raise broken_record(&self.c)
        return out

    def keys(self):
        """The keys as a list of bytes (None for null). Cost: one copy each."""
        view, positions, sizes = self.payload, self.key_positions, self.key_sizes
        return [None if size < 0 else bytes(view[at:at + size])
                for at, size in zip(positions.tolist(), sizes.tolist())]

    def __iter__(self):
        """Records, made in blocks."""
        return ChunkIterator(self)

    cdef list all_records(self):
        cdef pl_reader reader
        cdef pl_record block[BLOCK]
        cdef int64_t got, i
        if self.records is None:
            self.records = []
            if self.c.segment != NULL:
                self.start(&reader)
                while True:
                    got = pl_reader_records(&reader, block, BLOCK)
                    if got < 0:
                        self.records = None
                        raise broken_record(&self.c)
                    for i in range(got):
                        self.records.append(new_record(self.mapping, &block[i]))
                    if got == 0:
                        break
        return self.records

    def __getitem__(self, index):
        """A Record, or a list of them for a slice. The first use decodes the whole chunk."""
        return self.all_records()[index]

    cdef object column_arrays(self):
        """One pass over the records that fills all columns."""
        cdef pl_reader reader
        cdef pl_column_arrays a
        cdef int64_t n = self.c.count
        cdef int64_t[::1] offsets, timestamps, value_positions
        cdef int32_t[::1] value_sizes
        if self.columns_cache is not None:
            return self.columns_cache
        arrays = (numpy.empty(n, numpy.int64), numpy.empty(n, numpy.int64),
                  numpy.empty(n, numpy.int64), numpy.empty(n, numpy.int32))
        if n:
            offsets, timestamps, value_positions, value_sizes = arrays
            memset(&a, 0, sizeof(a))
            a.offsets = &offsets[0]
            a.timestamps = &timestamps[0]
            a.value_positions = &value_positions[0]
            a.value_sizes = &value_sizes[0]
            a.origin = self.origin()
            self.start(&reader)
            self.fill(&reader, &a)
        self.columns_cache = arrays
        return arrays

    cdef int fill(self, pl_reader *reader, pl_column_arrays *a) except -1:
        """Fills the columns and sees that nothing is left over."""
        cdef pl_record unused
        if pl_reader_columns(reader, a, self.c.count) != self.c.count \
                or pl_reader_records(reader, &unused, 1) != 0:
            raise broken_record(&self.c)
        return 0

    cdef const uint8_t *origin(self) noexcept:
        """Behind the first header: the header of an open batch still changes."""
        if self.c.codec:
            return self.payload_slice.data
        return self.c.segment.data + self.c.position + PL_BATCH_HEADER_SIZE

    @property
    def offsets(self):
        """int64 array."""
        return self.column_arrays()[0]

    @property
    def timestamps(self):
        """int64 array, ms since the epoch."""
        return self.column_arrays()[1]

    @property
    def value_positions(self):
        """int64 array: where in `payload` each value starts."""
        return self.column_arrays()[2]

    @property
    def value_sizes(self):
        """int32 array: bytes of each value, -1 for null."""
        return self.column_arrays()[3]

    cdef tuple key_arrays(self):
        cdef pl_reader reader
        cdef pl_column_arrays a
        cdef int64_t n = self.c.count
        cdef int64_t[::1] positions
        cdef int32_t[::1] sizes
        arrays = (numpy.empty(n, numpy.int64), numpy.empty(n, numpy.int32))
        if n:
            positions, sizes = arrays
            memset(&a, 0, sizeof(a))
            a.key_positions = &positions[0]
            a.key_sizes = &sizes[0]
            a.origin = self.origin()
            self.start(&reader)
            self.fill(&reader, &a)
        return arrays

    @property
    def key_positions(self):
        """int64 array: where in `payload` each key starts. Cost: a pass of its own."""
        return self.key_arrays()[0]

    @property
    def key_sizes(self):
        """int32 array: bytes of each key, -1 for null. Cost: a pass of its own."""
        return self.key_arrays()[1]

    @property
    def payload(self):
        """A read-only memoryview over the chunk's records: the log itself, or what a compressed
        batch became. Outlives chunk and log."""
        if self.c.segment == NULL:
            return memoryview(b"")
        if self.c.codec:
            return make_view(self.mapping, self.payload_slice.data, self.payload_slice.size)
        return make_view(self.mapping, self.origin(),
                         self.c.end_position - self.c.position - PL_BATCH_HEADER_SIZE)

    def __repr__(self):
        return (f"<Chunk of {self.c.count} records, "
                f"offsets [{self.c.from_offset}, {self.next_offset})>")


@cython.final
cdef class ChunkIterator:
    """Iterates a chunk block by block, so that the records of a block share warm memory."""

    cdef Chunk chunk
    cdef pl_reader reader
    cdef pl_record block[BLOCK]
    cdef int64_t at, filled
    cdef bint is_done

    def __cinit__(self, Chunk chunk not None):
        self.chunk = chunk
        self.is_done = chunk.c.segment == NULL
        if not self.is_done:
            chunk.start(&self.reader)

    def __iter__(self):
        return self

    def __next__(self):
        if self.at == self.filled:
            if self.is_done:
                raise StopIteration
            self.filled = pl_reader_records(&self.reader, self.block, BLOCK)
            if self.filled < 0:
                self.filled = 0
                self.is_done = True
                raise broken_record(&self.chunk.c)
            self.at = 0
            if self.filled == 0:
                self.is_done = True
                raise StopIteration
        self.at += 1
        return new_record(self.chunk.mapping, &self.block[self.at - 1])


@cython.final
cdef class Cursor:
    """A position in a log and the native reader at it: iterate it, or fetch chunks from it.

    `offset` is the next record to be returned. Not for two threads at once. Cost: an iteration
    step is a Record out of a decoded block; a fetch looks at batch headers and, on first touch,
    checks their CRCs. Keeps one segment mapped, reads nothing ahead into memory of its own.
    """

    cdef Log log
    cdef pl_cursor c
    cdef pl_chunk chunk
    cdef pl_reader reader
    cdef pl_record block[BLOCK]
    cdef int64_t at, filled
    cdef bint in_chunk, is_busy
    cdef Mapping mapping
    cdef int64_t stop_offset
    cdef bint follows, skips_corrupt
    cdef readonly int64_t skipped  # times that damage was stepped over

    def __cinit__(self, Log log not None, int64_t offset, int64_t stop_offset=-1, bint follow=False,
                  bint skip_corrupt=False):
        self.log = log
        self.stop_offset = stop_offset
        self.follows = follow
        self.skips_corrupt = skip_corrupt
        pl_cursor_init(&self.c, log.log, offset)

    def __dealloc__(self):
        pl_chunk_release(&self.chunk)
        pl_cursor_release(&self.c)

    @property
    def offset(self):
        """Offset of the next record."""
        return self.block[self.at].offset if self.at < self.filled else self.c.offset

    def seek(self, int64_t offset):
        """Moves to `offset`; that it exists is checked by the next read."""
        self.check_free()
        self.drop_block()
        pl_cursor_seek(&self.c, offset)

    cdef int check_free(self) except -1:
        """Before anything is changed: another thread may be inside, without the GIL."""
        if self.is_busy:
            raise errors.IllegalStateError(
                "the cursor is in use by another thread: give each thread its own")
        return 0

    cdef void drop_block(self) noexcept:
        if self.at < self.filled:
            pl_cursor_seek(&self.c, self.block[self.at].offset)
        elif self.in_chunk and self.filled:
            pl_cursor_seek(&self.c, self.block[self.filled - 1].offset + 1)
        self.at = self.filled = 0
        self.in_chunk = False

    cdef pl_status take(self, int64_t max_records, int64_t max_bytes, pl_chunk *chunk) except? -100:
        """Fetches with the GIL if nothing has to be waited for, else without."""
        cdef pl_status status
        self.log.check_open()
        self.check_free()
        status = pl_cursor_fetch(&self.c, max_records, max_bytes, False, chunk)
        if status == PL_NOT_READY:
            self.is_busy = True
            self.log.enter()
            try:
                with nogil:
                    status = pl_cursor_fetch(&self.c, max_records, max_bytes, True, chunk)
            finally:
                self.log.leave()
                self.is_busy = False
        if status < 0:
            raise make_error(status)
        return status

    def fetch(self, int64_t max_records=2**31 - 1, int64_t max_bytes=1048576):
        """The records that are there now, as a Chunk, empty at the end; moves behind them.

        max_bytes: whole batches up to this many bytes (at least one). Raises OffsetOutOfRangeError,
        CorruptRecordError.
        """
        cdef Chunk chunk
        if max_records < 1 or max_bytes < 1:
            raise errors.ConfigurationError("max_records and max_bytes must be at least 1")
        self.check_free()
        self.drop_block()
        while True:
            chunk = Chunk.__new__(Chunk)
            if self.take(max_records, max_bytes, &chunk.c) == PL_END:
                chunk.c.from_offset = self.c.offset
                chunk.next_offset = self.c.offset
                return chunk
            chunk.next_offset = chunk.c.next_offset
            chunk.mapping = hold(chunk.c.segment, None)
            if not chunk.c.codec:
                return chunk
            self.unpack(&chunk.c, chunk.mapping, &chunk.payload_slice)
            if chunk.recount():
                return chunk

    cdef int unpack(self, const pl_chunk *chunk, Mapping mapping, pl_slice *payload) except -1:
        """Decompresses; who fails stands before the batch, as with any other damage."""
        try:
            return decompressed(chunk, mapping, self.log.decompressed_max, payload)
        except errors.PylogError:
            pl_cursor_seek(&self.c, chunk.from_offset)
            raise

    def wait(self, timeout=None):
        """Waits until there is a record at `offset`; False after `timeout` seconds."""
        return self.log.wait(self.offset, timeout)

    cdef int open_chunk(self) except -1:
        """The next chunk for iteration: 0 at the end."""
        cdef pl_slice payload
        pl_chunk_release(&self.chunk)
        self.in_chunk = False
        if self.take(2147483647, 262144, &self.chunk) == PL_END:
            return 0
        if self.mapping is None or self.mapping.segment != self.chunk.segment or self.chunk.codec \
                or self.mapping.payload is not None:
            self.mapping = hold(self.chunk.segment, None)
        if self.chunk.codec:
            self.unpack(&self.chunk, self.mapping, &payload)
            pl_reader_init_payload(&self.reader, &self.chunk, payload)
        else:
            pl_reader_init(&self.reader, &self.chunk)
        self.in_chunk = True
        return 1

    cdef int skip(self) except -1:
        cdef pl_status status
        self.is_busy = True
        self.log.enter()
        try:
            with nogil:
                status = pl_cursor_skip(&self.c)
        finally:
            self.log.leave()
            self.is_busy = False
        check(status)
        self.skipped += 1
        return 0

    cdef int refill(self) except -1:
        """Decodes the next block: 0 when there is none and we do not follow."""
        self.check_free()
        while True:
            if self.in_chunk:
                self.filled = pl_reader_records(&self.reader, self.block, BLOCK)
                self.at = 0
                if self.filled < 0:
                    self.filled = 0
                    self.in_chunk = False
                    if not self.skips_corrupt:
                        pl_cursor_seek(&self.c, self.reader.least_offset)
                        raise broken_record(&self.chunk)
                    pl_cursor_seek(&self.c, min(self.reader.batch_end, self.chunk.next_offset))
                    self.skipped += 1
                    continue
                if self.filled > 0:
                    return 1
                self.in_chunk = False
            self.filled = self.at = 0
            if self.stop_offset >= 0 and self.c.offset >= self.stop_offset:
                return 0
            try:
                if self.open_chunk():
                    continue
            except errors.CorruptRecordError:
                if not self.skips_corrupt:
                    raise
                if self.chunk.segment == NULL:
                    self.skip()
                else:    # its CRC is right, but it does not decompress
                    pl_cursor_seek(&self.c, self.chunk.next_offset)
                    self.skipped += 1
                continue
            if not self.follows:
                return 0
            self.is_busy = True
            try:
                self.log.wait(self.c.offset, None)
            finally:
                self.is_busy = False

    def __iter__(self):
        return self

    def __next__(self):
        if self.at == self.filled and not self.refill():
            raise StopIteration
        cdef pl_record *record = &self.block[self.at]
        if self.stop_offset >= 0 and record.offset >= self.stop_offset:
            raise StopIteration
        self.at += 1
        return new_record(self.mapping, record)


@cython.final
cdef class Batches:
    """Whole batches from the one that bears an offset on, as read-only memoryviews.

    For relaying without decoding: each is a valid Kafka batch, CRC checked on first touch. The
    open tail comes as a private, finished copy. Stops at the end.
    """

    cdef Cursor cursor

    def __cinit__(self, Log log not None, int64_t offset):
        self.cursor = Cursor(log, offset)

    def __iter__(self):
        return self

    def __next__(self):
        cdef pl_chunk chunk
        cdef pl_header header
        cdef pl_status status
        cdef bytes copy
        cdef Cursor cursor = self.cursor
        cursor.log.check_open()
        cursor.check_free()
        status = pl_cursor_batch(&cursor.c, False, &chunk, &header)
        if status == PL_NOT_READY:
            cursor.is_busy = True
            cursor.log.enter()
            try:
                with nogil:
                    status = pl_cursor_batch(&cursor.c, True, &chunk, &header)
            finally:
                cursor.log.leave()
                cursor.is_busy = False
        check(status)
        if status == PL_END:
            raise StopIteration
        try:
            if header.size:
                return make_view(hold(chunk.segment, None), chunk.segment.data + chunk.position,
                                 chunk.end_position - chunk.position)
            copy = PyBytes_FromStringAndSize(NULL, chunk.end_position - chunk.position)
            check(pl_chunk_finish(&chunk, <uint8_t *>PyBytes_AS_STRING(copy)))
            return memoryview(copy)
        finally:
            pl_chunk_release(&chunk)


# ---- the log ----------------------------------------------------------------------------------

cdef class Log:
    """The native half of pylog.Log: what is called often. See pylog/log.py for the whole."""

    cdef pl_log *log
    cdef bint can_append, is_closing, waits_for_disk, uses_append_time
    cdef int64_t users, max_message_bytes
    cdef readonly int64_t lock_timeout_ms
    cdef int codec
    cdef int64_t decompressed_max
    cdef pl_cursor getter
    cdef bint is_getting
    cdef object __weakref__

    def __cinit__(self, *arguments, **keywords):
        self.log = NULL

    def _open(self, bytes path, bint writable, int64_t durability, int64_t segment_bytes,
              int64_t max_message_bytes, int64_t append_time, int64_t index_interval_bytes,
              int64_t flush_interval_ms, int64_t lock_timeout_ms, int codec):
        cdef pl_options wanted
        cdef pl_log *log = NULL
        cdef pl_status status
        cdef const char *directory = path
        cdef int wait_ms = min(lock_timeout_ms, 2**31 - 1)
        if self.log != NULL:
            raise errors.IllegalStateError("this object is open already: make a new one")
        wanted.durability = durability
        wanted.segment_bytes = segment_bytes
        wanted.max_message_bytes = max_message_bytes
        wanted.append_time = append_time
        wanted.index_interval_bytes = index_interval_bytes
        wanted.flush_interval_ms = flush_interval_ms
        with nogil:
            status = pl_log_open(directory, writable, &wanted, wait_ms, &log)
        check(status)
        self.log = log
        self.can_append = writable
        self.waits_for_disk = log.options.durability == PL_DURABILITY_FSYNC
        self.uses_append_time = log.options.append_time != 0
        self.max_message_bytes = log.options.max_message_bytes
        self.decompressed_max = min(self.max_message_bytes * 64, DECOMPRESSED_MAX)
        self.lock_timeout_ms = lock_timeout_ms
        self.codec = codec
        pl_cursor_init(&self.getter, log, 0)

    def __dealloc__(self):
        if self.log != NULL:
            pl_cursor_release(&self.getter)
            pl_log_close(self.log)
            pl_log_free(self.log)

    cdef int check_open(self) except -1:
        if self.log == NULL or self.is_closing or self.log.is_closed:
            raise errors.ClosedError("the log is closed; open it again")
        if self.log.fork_generation != pl_forks:
            raise errors.IllegalStateError("opened before fork: open again")
        return 0

    cdef int check_writable(self) except -1:
        self.check_open()
        if not self.can_append:
            raise errors.ReadOnlyLogError(
                "the log was opened with mode='r'; open it with mode='a' to append")
        return 0

    cdef void enter(self) noexcept:
        self.users += 1

    cdef void leave(self) noexcept:
        self.users -= 1

    def close(self):
        """Seals the open batch, flushes as the durability says; the last closer leaves a tidy log.

        Idempotent. Chunks, records and views handed out stay valid. Waits end with ClosedError.
        """
        cdef pl_status status
        if self.log == NULL or self.log.is_closed:
            return
        self.is_closing = True  # what other threads look at between two waits
        self.can_append = False
        deadline = pl_monotonic_ms() + 1000
        while self.users and pl_monotonic_ms() < deadline:
            with nogil:
                pl_wake_waiters(self.log)
                pl_wait_readable(self.log, 0x7fffffffffffffff, 1)
        with nogil:
            status = pl_log_close(self.log)
        check(status)

    # -- appending --

    def append(self, value, key=None, headers=None, timestamp=None, if_end=None, durability=None):
        """Appends one record and returns its offset; it is visible to all processes on return.

        value, key: bytes-like, or None for null. headers: a mapping or pairs of (str, bytes or
        None). timestamp: ms since the epoch, now if None (the kernel's coarse clock, up to 4 ms
        late). if_end: append only if the log ends at this offset. durability: None as the log's;
        "fsync" makes this call wait until the record is on disk.

        Cost: about three times `list.append` for 100 bytes; one copy, no system call.
        Raises TypeError, InvalidTimestampError, MessageSizeTooLargeError, WrongEndOffsetError,
        DiskFullError, DurabilityError, PylogTimeoutError (the lock is held by a stopped process;
        nothing was appended), ReadOnlyLogError, ClosedError.
        """
        cdef pl_slice v, k, h
        cdef int64_t time, offset = 0, expected = -1
        cdef pl_status status
        self.check_writable()
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
        time = pl_clock_ms() if timestamp is None or self.uses_append_time \
            else take_timestamp(timestamp)
        if if_end is not None:
            expected = take_if_end(if_end)
        if durability is not None:
            check_durability(durability)
        status = pl_append(self.log, time, k, v, h, expected, 0, &offset)
        if status != PL_OK:
            self.append_slowly(time, k, v, h, expected, &offset)
        if self.waits_for_disk or durability is not None:
            self.wait_for_disk(offset + 1, durability)
        return offset

    cdef int append_slowly(self, int64_t time, pl_slice key, pl_slice value, pl_slice headers,
                           int64_t expected, int64_t *offset) except -1:
        cdef pl_status status = PL_BUSY
        cdef int64_t deadline = pl_monotonic_ms() + self.lock_timeout_ms
        self.enter()
        try:
            while True:
                with nogil:
                    status = pl_append(self.log, time, key, value, headers, expected, SLICE_MS,
                                       offset)
                if status == PL_OK:
                    return 0
                self.after_slice(status, deadline)
        finally:
            self.leave()

    cdef int after_slice(self, pl_status status, int64_t deadline) except -1:
        """Between two waits: errors, signals, a close, the time-out."""
        check(status)
        PyErr_CheckSignals()
        self.check_open()
        if pl_monotonic_ms() >= deadline:
            raise self.lock_timeout()
        return 0

    cdef object lock_timeout(self):
        cdef int owner = pl_slot_owner(&self.log.page.append_lock)
        what = "append"
        if owner == 0:
            owner = pl_lock_owner(&self.log.page.maintenance_lock)
            what = "maintenance"
        return errors.PylogTimeoutError(
            f"the {what} lock has been held by {describe(owner)} for {self.lock_timeout_ms} ms; "
            "continue or kill that process, then append again: nothing was appended",
            timeout_ms=self.lock_timeout_ms, holder_pid=process_of(owner))

    cdef int wait_for_disk(self, int64_t end, object durability) except -1:
        if self.waits_for_disk or durability == "fsync":
            self.flush_to(end)
        return 0

    cdef int flush_to(self, int64_t target) except -1:
        cdef pl_status status = PL_BUSY
        cdef int owner
        cdef int64_t deadline = pl_monotonic_ms() + self.lock_timeout_ms
        self.enter()
        try:
            while True:
                with nogil:
                    status = pl_flush(self.log, target, SLICE_MS)
                if status == PL_OK:
                    return 0
                check(status)
                PyErr_CheckSignals()
                self.check_open()
                # A slow disk is waited for; a stopped process is not.
                owner = pl_lock_owner(&self.log.page.flush_lock)
                if pl_monotonic_ms() >= deadline and "state T" in describe(owner):
                    raise errors.PylogTimeoutError(
                        f"the flush lock is held by {describe(owner)}; continue or kill that "
                        "process, then flush again: what was appended is not known durable",
                        timeout_ms=self.lock_timeout_ms, holder_pid=process_of(owner))
        finally:
            self.leave()

    def append_many(self, values, keys=None, headers=None, timestamps=None, atomic=False,
                    if_end=None, durability=None):
        """Appends many records; returns the first one's offset.

        Parallel lists (or iterables) as in `append`; `timestamps` may be one int for all, or an
        int64 array. All arguments are checked before anything is appended. With `atomic` or
        `if_end` they are one batch, appended whole or not at all, of at most max_message_bytes;
        without, they go in runs of at most 64 KiB, between which other writers' records may stand.
        No values: nothing is appended, and the end offset is returned.

        Cost: one copy and a CRC, about 20 ns a record of 100 bytes; the lock is held for 64 KiB at
        a time. Raises as `append`; after DiskFullError or PylogTimeoutError in a non-atomic call
        the exception's `appended` tells how many records are in.
        """
        self.check_writable()
        cdef int64_t longest_value = 0, longest_key = 0
        cdef list v = self.column(values, "a value", None, &longest_value)
        cdef int64_t n = len(v)
        cdef list k = None if keys is None else self.column(keys, "a key", v, &longest_key)
        cdef list h = None
        if headers is not None:
            h = [encode_headers(one) for one in headers]
            same_length(h, v, "headers")
        cdef int64_t now = pl_clock_ms()
        stamps = None
        if timestamps is not None and not self.uses_append_time:
            if PyLong_Check(timestamps):
                now = take_timestamp(timestamps)
            else:
                stamps = take_timestamps(timestamps)
                same_length(stamps, v, "timestamps")
        if durability is not None:
            check_durability(durability)
        take_if_end(if_end)
        if n == 0:
            return self.log.page.end_offset
        if h is not None or longest_value + longest_key + PL_BATCH_HEADER_SIZE \
                + PL_RECORD_SIZE_MIN > self.max_message_bytes:
            self.check_sizes(v, k, h)
        if atomic or if_end is not None or self.codec:
            first = self.append_encoded(v, k, h, stamps, now, atomic or if_end is not None, if_end)
        else:
            first = self.append_blocks(v, k, h, stamps, now)
        if self.waits_for_disk or durability is not None:
            self.wait_for_disk(self.log.page.end_offset, durability)
        return first

    cdef list column(self, object items, str what, list values, int64_t *longest):
        """A list of bytes or None, copied only if it must be, and its longest entry's size."""
        if isinstance(items, (bytes, str)):
            raise TypeError(f"expected a list with {what} each, not {type(items).__name__}")
        cdef list column = items if type(items) is list else list(items)
        cdef Py_ssize_t i, n = len(column)
        cdef pl_slice one
        if values is not None:
            same_length(column, values, "keys")
        longest[0] = 0
        for i in range(n):
            if i + AHEAD < n:
                prefetch(PyList_GET_ITEM(column, i + AHEAD))
            if not take_bytes(<object>PyList_GET_ITEM(column, i), &one):
                return self.column([to_bytes(item, what) for item in column], what, None, longest)
            if one.size > longest[0]:
                longest[0] = one.size
        return column

    cdef int check_sizes(self, list v, list k, list h) except -1:
        """Names the record that is too large; called when the longest entries could be."""
        cdef Py_ssize_t i
        for i in range(len(v)):
            size = (len(v[i] or b"") + (len(k[i] or b"") if k is not None else 0)
                    + (len(h[i]) if h is not None else 0))
            if size + PL_BATCH_HEADER_SIZE + PL_RECORD_SIZE_MIN > self.max_message_bytes:
                raise errors.MessageSizeTooLargeError(
                    f"record {i} of the list has {size} bytes, over max_message_bytes "
                    f"({self.max_message_bytes}); nothing was appended; split it",
                    index=i, size=size, max_message_bytes=self.max_message_bytes)
        return 0

    cdef object append_blocks(self, list v, list k, list h, object stamps, int64_t now):
        cdef pl_slice values[BLOCK]
        cdef pl_slice keys[BLOCK]
        cdef pl_slice heads[BLOCK]
        cdef pl_columns c
        cdef int64_t n = len(v), at = 0, i, size, first = -1, here = 0
        cdef const int64_t[::1] times
        c.values = values
        c.keys = keys if k is not None else NULL
        c.headers = heads if h is not None else NULL
        c.timestamps = NULL
        c.timestamp = now
        if stamps is not None:
            times = stamps
        while at < n:
            size = n - at if n - at < BLOCK else BLOCK
            for i in range(size):
                if at + i + AHEAD < n:
                    prefetch(PyList_GET_ITEM(v, at + i + AHEAD))
                take_bytes(<object>PyList_GET_ITEM(v, at + i), &values[i])
            if k is not None:
                for i in range(size):
                    take_bytes(<object>PyList_GET_ITEM(k, at + i), &keys[i])
            if h is not None:
                for i in range(size):
                    take_bytes(<object>PyList_GET_ITEM(h, at + i), &heads[i])
            if stamps is not None:
                c.timestamps = &times[at]
            c.count = size
            self.append_block(&c, &here, (v, k, h), at)
            if first < 0:
                first = here
            at += size
            if len(v) < n or (k is not None and len(k) < n):
                raise errors.IllegalStateError(
                    f"the list shrank while it was being appended; {at} records are in")
        return first

    cdef int append_block(self, pl_columns *c, int64_t *first, tuple lists, int64_t at) except -1:
        cdef pl_status status
        cdef int64_t done = 0, in_run = 0, here = 0
        while done < c.count:
            status = pl_append_run(self.log, c, done, 0, &in_run, &here)
            if status != PL_OK:
                # Other threads may change the lists meanwhile: hold what the slices point into.
                self.append_run_slowly(c, done, &in_run, &here, at + done,
                                       [one and one[at:at + c.count] for one in lists])
            if done == 0:
                first[0] = here
            done += in_run
        return 0

    cdef int append_run_slowly(self, pl_columns *c, int64_t start, int64_t *done,
                               int64_t *first, int64_t appended, list held) except -1:
        cdef pl_status status
        cdef int64_t deadline = pl_monotonic_ms() + self.lock_timeout_ms
        self.enter()
        try:
            while True:
                with nogil:
                    status = pl_append_run(self.log, c, start, SLICE_MS, done, first)
                if status == PL_OK:
                    return 0
                self.after_slice(status, deadline)
        except errors.PylogError as error:
            error.appended = appended
            raise
        finally:
            self.leave()

    cdef object append_encoded(self, list v, list k, list h, object stamps, int64_t now,
                               bint is_one_batch, object if_end):
        """Batches made outside the lock: atomic, conditional or compressed ones."""
        cdef _Columns columns
        cdef pl_identity identity
        cdef int64_t at = 0, i, bound, n = len(v), first = -1, here
        identity.producer_id = -1
        identity.producer_epoch = -1
        identity.base_sequence = -1
        identity.attributes = PL_ATTRIBUTE_APPEND_TIME if self.uses_append_time else 0
        while at < n:
            i = at
            bound = 0
            while i < n and (is_one_batch or i == at or bound < ENCODE_BYTES):
                bound += PL_RECORD_OVERHEAD_MAX + (len(v[i]) if v[i] is not None else 0) \
                    + (len(k[i]) if k is not None and k[i] is not None else 0) \
                    + (len(h[i]) if h is not None else 0)
                i += 1
            columns = make_columns(v[at:i], None if k is None else k[at:i],
                                   None if h is None else h[at:i],
                                   None if stamps is None else stamps[at:i], now)
            try:
                batch = compressed_batch(self.codec, &columns.c, &identity, self.decompressed_max)
                here = self.append_batch(batch, i - at, if_end)
            except errors.PylogError as error:
                error.appended = at
                raise
            if first < 0:
                first = here
            at = i
        return first

    cdef int64_t append_batch(self, bytes batch, int64_t count, object if_end) except -1:
        cdef const uint8_t *data = <const uint8_t *>PyBytes_AS_STRING(batch)
        cdef uint64_t size = PyBytes_GET_SIZE(batch)
        cdef int64_t expected = take_if_end(if_end), first = 0
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
                self.after_slice(status, deadline)
        finally:
            self.leave()

    def append_buffer(self, payload, positions, timestamps=None):
        """Appends the n values payload[positions[i]:positions[i + 1]]; returns the first offset.

        payload: one contiguous buffer (numpy, Arrow, bytes). positions: n + 1 rising int64.
        timestamps: None, one int, or n int64. Cost: as append_many, without the objects.
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
            raise errors.ConfigurationError("positions needs n + 1 entries, so at least one")
        if timestamps is not None and not self.uses_append_time:
            if PyLong_Check(timestamps):
                c.timestamp = take_timestamp(timestamps)
            else:
                stamps = take_timestamps(timestamps)
                if len(stamps) != n:
                    raise errors.ConfigurationError(
                        f"there are {n} values and {len(stamps)} timestamps")
                times = stamps
        if isinstance(payload, str):
            raise TypeError("payload must be bytes-like, not str: encode it first")
        PyObject_GetBuffer(payload, &buffer, PyBUF_SIMPLE)
        try:
            for i in range(n):
                if at[i] < 0 or at[i + 1] < at[i] or at[i + 1] > buffer.len:
                    raise errors.ConfigurationError(
                        f"positions must rise within the payload's {buffer.len} bytes, and entry "
                        f"{i + 1} does not; nothing was appended")
                if at[i + 1] - at[i] + PL_BATCH_HEADER_SIZE + PL_RECORD_SIZE_MIN \
                        > self.max_message_bytes:
                    raise errors.MessageSizeTooLargeError(
                        f"value {i} is over max_message_bytes; nothing was appended", index=i)
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
                self.append_block(&c, &here, (), done)
                if first < 0:
                    first = here
                done += size
        finally:
            PyBuffer_Release(&buffer)
        if self.waits_for_disk:
            self.flush_to(self.log.page.end_offset)
        return first

    def flush(self):
        """Makes everything appended so far durable; returns when it is.

        All threads and processes that flush at once share one fdatasync. Raises DurabilityError
        when the disk refuses: the log then takes no more appends.
        """
        self.check_writable()
        self.flush_to(pl_log_end(self.log))

    def delete_before(self, int64_t offset):
        """Moves the start of the log to `offset` and removes the segments wholly below it.

        Durable on return; views of the removed records stay valid. Raises OffsetOutOfRangeError.
        """
        cdef pl_status status
        self.check_writable()
        self.enter()
        try:
            with nogil:
                status = pl_delete_before(self.log, offset)
        finally:
            self.leave()
        check(status)
        if status == PL_BUSY:
            raise errors.PylogTimeoutError("maintenance is busy elsewhere; delete again later")

    # -- reading --

    def fetch(self, int64_t offset, int64_t max_records=2**31 - 1, int64_t max_bytes=1048576):
        """The records from `offset` on that are there now, as a Chunk; empty at the end.

        max_bytes bounds the whole batches looked at (at least one). Does not wait, does not copy.
        Raises OffsetOutOfRangeError below the start or beyond the end, CorruptRecordError.
        """
        return Cursor(self, offset).fetch(max_records, max_bytes)

    def get(self, int64_t offset):
        """The record at `offset`. Cost: an index look-up and a walk inside one batch.

        Raises OffsetOutOfRangeError, RecordNotFoundError in a gap, CorruptRecordError.
        """
        cdef pl_chunk chunk
        cdef Chunk found
        cdef pl_status status
        self.check_open()
        if self.is_getting: # another thread waits for a cold page: this one looks on its own
            found = Cursor(self, offset).fetch(1, 1)
            return self.only_record(found.c, offset)
        pl_cursor_seek(&self.getter, offset)
        status = pl_cursor_fetch(&self.getter, 1, 1, False, &chunk)
        if status == PL_NOT_READY:
            self.is_getting = True
            self.enter()
            try:
                with nogil:
                    status = pl_cursor_fetch(&self.getter, 1, 1, True, &chunk)
            finally:
                self.leave()
                self.is_getting = False
        check(status)
        try:
            return self.only_record(chunk, offset)
        finally:
            pl_chunk_release(&chunk)

    cdef Record only_record(self, pl_chunk chunk, int64_t offset):
        cdef pl_reader reader
        cdef pl_record record
        cdef pl_slice payload
        cdef Mapping mapping
        if chunk.segment == NULL:
            if offset >= pl_log_readable(self.log):
                raise errors.OffsetOutOfRangeError(
                    f"offset {offset} is the end of the log: nothing is there yet; wait({offset})",
                    offset=offset, end_offset=offset)
            raise not_found(offset, None)
        mapping = hold(chunk.segment, None)
        if chunk.codec:
            decompressed(&chunk, mapping, self.decompressed_max, &payload)
            pl_reader_init_payload(&reader, &chunk, payload)
        else:
            pl_reader_init(&reader, &chunk)
        cdef int64_t got = pl_reader_records(&reader, &record, 1)
        if got == 0 and chunk.codec:    # one of those that a compaction took out of the batch
            raise not_found(offset, None)
        if got != 1:
            raise broken_record(&chunk)
        if record.offset != offset:
            raise not_found(offset, record.offset)
        return new_record(mapping, &record)

    def batches(self, int64_t offset):
        """Whole batches from the one that bears `offset` on, as memoryviews, for relaying.

        Valid Kafka bytes, not decoded and not copied but for the open tail (a finished copy).
        """
        self.check_open()
        return Batches(self, offset)

    def wait(self, int64_t offset, timeout=None):
        """Waits until the record at `offset` can be read; True, or False after `timeout` seconds.

        Woken by the append itself, in whatever process; Ctrl-C works. With mode="r" it polls.
        """
        cdef pl_status status
        cdef int64_t deadline = -1, left = SLICE_MS, slices = 0
        self.check_open()
        if timeout is not None:
            deadline = pl_monotonic_ms() + max(0, int((timeout + 0.0) * 1000))
        if pl_log_readable(self.log) > offset:
            return True
        self.enter()
        try:
            while True:
                slices += 1
                left = SLICE_MS if slices < 10 else IDLE_SLICE_MS
                if deadline >= 0:
                    left = min(left, deadline - pl_monotonic_ms())
                    if left <= 0:
                        return pl_log_readable(self.log) > offset
                with nogil:
                    status = pl_wait_readable(self.log, offset, <int>left)
                if status == PL_OK:
                    return True
                check(status)
                PyErr_CheckSignals()
                self.check_open()
        finally:
            self.leave()

    def _offset_for_time(self, int64_t timestamp):
        """Where to start looking for the first record at or after `timestamp`; None: nowhere."""
        cdef pl_status status
        cdef int64_t offset = 0
        self.check_open()
        self.enter()
        try:
            with nogil:
                status = pl_offset_for_time(self.log, timestamp, &offset)
        finally:
            self.leave()
        check(status)
        return None if status == PL_END else offset

    def _forget_verified(self):
        """Drops the marks of checked batches, so that the next read checks CRCs again (bench)."""
        cdef pl_segment *segment
        cdef int64_t offset, next_base = 0
        self.check_open()
        offset = self.log.page.log_start
        while next_base != 0x7fffffffffffffff:
            check(pl_log_segment(self.log, offset, &segment, &next_base))
            pl_segment_forget_verified(segment)
            pl_segment_release(segment)
            offset = next_base

    def _verified_bytes(self):
        """Bytes of the batches whose CRC was checked since the marks were dropped (bench)."""
        cdef pl_segment *segment
        cdef int64_t offset, next_base = 0, verified = 0
        self.check_open()
        offset = self.log.page.log_start
        while next_base != 0x7fffffffffffffff:
            check(pl_log_segment(self.log, offset, &segment, &next_base))
            verified += pl_segment_verified_bytes(segment)
            pl_segment_release(segment)
            offset = next_base
        return verified

    # -- figures --

    @property
    def start_offset(self):
        """Offset of the first record that is kept."""
        self.check_open()
        return self.log.page.log_start

    @property
    def end_offset(self):
        """Offset that the next append will get."""
        self.check_open()
        return pl_log_end(self.log)

    @property
    def readable_offset(self):
        """Where readers stop: the end, or with durability "fsync" the durable offset."""
        self.check_open()
        return pl_log_readable(self.log)

    @property
    def durable_offset(self):
        """Records below are on disk."""
        self.check_open()
        return self.log.page.durable_offset

    @property
    def size_bytes(self):
        """Bytes of the segment files, preallocated blocks included. Cost: a listing."""
        self.check_open()
        return pl_log_size_bytes(self.log)

    @property
    def closed(self):
        return self.log == NULL or self.is_closing or self.log.is_closed != 0

    def _options(self):
        """The stored properties, by name, as numbers."""
        if self.log == NULL:
            self.check_open()
        cdef pl_options o = self.log.options
        return dict(durability=o.durability, segment_bytes=o.segment_bytes,
                    max_message_bytes=o.max_message_bytes, append_time=o.append_time,
                    index_interval_bytes=o.index_interval_bytes,
                    flush_interval_ms=o.flush_interval_ms)

    def _recovered(self):
        if self.log == NULL:
            self.check_open()
        cdef pl_recovered *r = &self.log.recovered
        if r.reason == 0:
            return None
        return dict(reason=r.reason, is_lossy=bool(r.is_lossy), cut_offset=r.cut_offset,
                    next_offset=r.next_offset, cut_bytes=r.cut_bytes,
                    batches_beyond=r.batches_beyond, position=r.cut_position,
                    path=(<bytes>r.path).decode("utf-8", "surrogateescape"),
                    why=(<bytes>r.why).decode())

    def _page(self):
        """The words of the control page that a person may want to see."""
        self.check_open()
        cdef pl_page *p = self.log.page
        return dict(end_offset=p.end_offset, sealed_offset=p.sealed_offset,
                    durable_offset=p.durable_offset, start_offset=p.log_start,
                    reserved_end=p.reserved_end, active_base=p.active_base, rolls=p.rolls,
                    flushes=p.flushes, owner_deaths=p.owner_deaths,
                    is_poisoned=p.state == PL_LOG_POISONED, leader_epoch=p.leader_epoch,
                    housekeeper_failures=self.log.keeper_failures)


cdef str describe(int thread):
    cdef char text[96]
    if thread == 0:
        return "somebody"
    pl_describe_thread(thread, text, sizeof(text))
    return (<bytes>text).decode()


cdef object process_of(int thread):
    cdef str text = describe(thread)
    return int(text.split()[1]) if text.startswith("pid ") else thread or None


cdef object not_found(int64_t offset, object next_offset):
    return errors.RecordNotFoundError(
        f"there is no record at offset {offset}: a gap or a control record; "
        f"fetch({offset}) goes on behind it", offset=offset, next_offset=next_offset)


# ---- the short way into append ------------------------------------------------------------------
#
# The generated wrapper of `append` counts references of its six arguments, in and out: 5 ns of 40.
# Calls with only value, key and timestamp, as most are, come through here and count none.

cdef extern from "short_way.h":
    object pl_append_wrapper(object self, PyObject **arguments, Py_ssize_t count, PyObject *names)
    int pl_take_short_way(PyTypeObject *type, void *short_way) except -1

cdef str KEY = sys.intern("key")
cdef str TIMESTAMP = sys.intern("timestamp")

cdef object append_shortly(Log self, PyObject **arguments, Py_ssize_t count, PyObject *names):
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
            elif name == <PyObject *>TIMESTAMP and timestamp == NULL:
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
    time = pl_clock_ms() if timestamp == NULL or self.uses_append_time \
        else take_timestamp(<object>timestamp)
    if pl_append(self.log, time, k, v, h, -1, 0, &offset) != PL_OK:
        self.append_slowly(time, k, v, h, -1, &offset)
    return offset


pl_take_short_way(<PyTypeObject *>Log, <void *>append_shortly)


cdef int same_length(object column, list values, str name) except -1:
    if len(column) != len(values):
        raise errors.ConfigurationError(
            f"there are {len(values)} values and {len(column)} {name}: give one each; "
            "nothing was appended", option=name)
    return 0


cdef object take_positions(object positions):
    """A contiguous int64 array; whether the entries rise is for the caller to see."""
    found = numpy.asarray(positions)
    if found.ndim != 1 or (found.size and found.dtype.kind not in "iu"):
        raise TypeError("positions must be one row of ints: where each value starts, and the end")
    return numpy.ascontiguousarray(found, dtype=numpy.int64)


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
