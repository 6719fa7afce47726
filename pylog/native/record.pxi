"""Mapping: what keeps memory alive. Record: one record in it, decoded as far as it is asked."""


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
@cython.no_gc
@cython.freelist(64)
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

    def __init__(self, *arguments, **keywords):
        raise TypeError("records come out of a log")

    @property
    def key(self):
        """bytes, or None. Copies."""
        cdef pl_record_fields fields
        split(self, &fields)
        if fields.key.size < 0:
            return None
        return PyBytes_FromStringAndSize(<const char *>fields.key.data, fields.key.size)

    @property
    def value(self):
        """bytes, or None (a tombstone). Copies."""
        cdef pl_record_fields fields
        split(self, &fields)
        if fields.value.size < 0:
            return None
        return PyBytes_FromStringAndSize(<const char *>fields.value.data, fields.value.size)

    @property
    def value_view(self):
        """The value as a read-only memoryview into the log, without a copy; None if null."""
        cdef pl_record_fields fields
        split(self, &fields)
        if fields.value.size < 0:
            return None
        return make_view(self.owner, fields.value.data, fields.value.size)

    @property
    def headers(self):
        """((name, value), ...), in order; () for none."""
        cdef pl_record_fields fields
        split(self, &fields)
        return decode_headers(fields.headers, fields.headers_size)

    def header(self, str name not None, default=None):
        """The value of the last header of this name, as Kafka's lastHeader; `default`: there is
        none. Decodes no other, so it costs 60 ns where `headers` costs 100 ns for each."""
        cdef pl_record_fields fields
        split(self, &fields)
        return find_header(fields.headers, fields.headers_size, name, default)

    @property
    def topic(self):
        """Name of the topic; None on a bare log."""
        return self.owner.topic

    @property
    def partition(self):
        """Number of the partition; None on a bare log."""
        return self.owner.partition

    @property
    def timestamp_type(self):
        """0: the producer's time; 1: the append's."""
        return (self.batch[PL_BATCH_ATTRIBUTES + 1] & PL_ATTRIBUTE_APPEND_TIME) != 0 and 1 or 0

    @property
    def leader_epoch(self):
        """Of the batch: one more after each recovery."""
        cdef const uint8_t *p = self.batch + PL_BATCH_LEADER_EPOCH
        return <int32_t>(<uint64_t>p[0] << 24 | p[1] << 16 | p[2] << 8 | p[3])

    def replace(self, **fields):
        """The same with other fields, as dataclasses.replace: a record of its own, in no log."""
        unknown = fields.keys() - set(_FIELDS)
        if unknown:
            raise TypeError(f"a record has no {', '.join(sorted(unknown))}; it has "
                            f"{', '.join(_FIELDS)}")
        return make_record(**{**dict(zip(_FIELDS, fields_of(self))), **fields})

    def __eq__(self, other):
        if not isinstance(other, Record):
            return NotImplemented
        return fields_of(self) == fields_of(<Record>other)

    def __hash__(self):
        return hash(fields_of(self))

    def __len__(self):
        """Bytes of the value; 0 when null."""
        cdef pl_record_fields fields
        split(self, &fields)
        return fields.value.size if fields.value.size > 0 else 0

    def __bool__(self):
        return True

    def __repr__(self):
        where = f"topic={self.topic!r}, partition={self.partition}, " if self.topic else ""
        headers = f", headers={self.headers!r}" if self.headers else ""
        return (f"Record({where}offset={self.offset}, timestamp={self.timestamp}, "
                f"key={self.key!r}, value={self.value!r}{headers})")

    def __reduce__(self):
        return make_record, fields_of(self)


_FIELDS = ("topic", "partition", "offset", "timestamp", "timestamp_type", "key", "value", "headers",
           "leader_epoch")


# Functions, no methods: a class with C methods has a pointer to them in each of its objects.
cdef int split(Record record, pl_record_fields *fields) except -1:
    if not pl_record_split(record.body, record.body_size, fields):
        raise errors.CorruptRecordError(
            f"the record at offset {record.offset} does not parse; run `pylog check`",
            offset=record.offset)
    return 0


cdef tuple fields_of(Record record):
    return (record.topic, record.partition, record.offset, record.timestamp, record.timestamp_type,
            record.key, record.value, record.headers, record.leader_epoch)


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
