"""Batches outside a log: encoded, decoded; and the other structures on disk, decoded."""

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
    cdef const int64_t[::1] given
    self.held = [values, keys, headers]
    self.slices = <pl_slice *>malloc((3 * n + 1) * sizeof(pl_slice))
    if self.slices == NULL:
        raise MemoryError()
    for i in range(n):
        if not take_bytes(values[i], &self.slices[i]) \
                or keys is not None and not take_bytes(keys[i], &self.slices[n + i]) \
                or headers is not None and not take_bytes(headers[i], &self.slices[2 * n + i]):
            raise TypeError(f"record {i} is not made of bytes: a list was changed meanwhile")
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
