"""Chunk: a run of records as columns, lists or an iterable, over the mapped segment."""

cdef int decompressed(const pl_chunk *chunk, Mapping mapping, int64_t limit,
                      pl_slice *payload) except -1:
    """Decompresses the chunk's only batch into the mapping's care."""
    cdef pl_slice packed = pl_chunk_payload(chunk)
    try:
        records = compression.decompress(
            chunk.codec, make_view(mapping, packed.data, packed.size), limit)
    except errors.UnsupportedCodecError as error:
        raise unread_batch(chunk, error.codec) from None
    if records is None:
        raise errors.CorruptRecordError(
            f"the batch at offset {chunk.from_offset} does not decompress to at most {limit} bytes;"
            " run `pylog check`", path=(<bytes>chunk.segment.path).decode(),
            offset=chunk.from_offset, position=chunk.position)
    mapping.payload = records
    payload.data = <const uint8_t *>PyBytes_AS_STRING(records)
    payload.size = PyBytes_GET_SIZE(records)
    return 0


cdef object unread_batch(const pl_chunk *chunk, object codec):
    """The whole batch is out of reach, also where the chunk is a part of it."""
    cdef pl_header header
    cdef const char *why
    pl_header_decode(chunk.segment.data + chunk.position, chunk.end_position - chunk.position,
                     &header, &why)
    path = os.fsdecode(<bytes>chunk.segment.path)
    return errors.UnsupportedCodecError(
        f"the batch with offsets {header.base_offset} to {header.last_offset} is compressed with "
        f"{codec}, which this version cannot read yet (it reads lz4 and gzip); read on from offset "
        f"{header.last_offset + 1}, or have its producer write it anew [{path}, byte "
        f"{chunk.position}]", codec=codec, path=path, position=chunk.position,
        offset=chunk.from_offset, next_offset=header.last_offset + 1)


cdef void *start_of(object array) except NULL:
    """Of an array that its owner keeps alive. A typed memoryview takes four times as long."""
    cdef Py_buffer buffer
    PyObject_GetBuffer(array, &buffer, PyBUF_WRITABLE)
    PyBuffer_Release(&buffer)
    return buffer.buf


cdef tuple read_only(tuple arrays):
    """The arrays, of a chunk that others may hold, too."""
    for array in arrays:
        array.setflags(False)    # write; by its name it takes twice as long
    return arrays


cdef object broken_record(const pl_chunk *chunk):
    return errors.CorruptRecordError(
        f"a record of the batch at offset {chunk.from_offset} does not parse; run `pylog check`",
        path=(<bytes>chunk.segment.path).decode(), position=chunk.position,
        offset=chunk.from_offset,
        valid_batches=valid_beyond(chunk.segment.path, chunk.position))


@cython.final
cdef class Chunk:
    """Consecutive records as they lie in the log: a sequence of Record, or columns, or one view.

    `len`, index, slice, iterate. `.values()` and `.keys()` are lists of bytes; `.offsets`,
    `.timestamps` int64 arrays; `.payload` one view over all the records' bytes, into which
    `.value_positions` (int64) and `.value_sizes` (int32, -1 null) point, as do `.key_positions`
    and `.key_sizes`. Arrays and views are read-only. `.next_offset` is where to fetch on.

    Cost: nothing is decoded before it is asked for; each way out is one pass. A chunk never
    crosses a segment. Holds the segment's mapping as long as it or a view of it lives.
    """

    cdef pl_chunk c
    cdef Mapping mapping
    cdef pl_slice payload_slice
    cdef list records
    cdef object columns_cache
    cdef readonly int64_t next_offset

    def __init__(self, *arguments, **keywords):
        raise TypeError("chunks come out of a log: log.fetch(offset), or a cursor's fetch()")

    def __reduce__(self):
        raise TypeError("a chunk cannot be pickled or copied; take .values(), or list(chunk): "
                        "records can")

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

    @property
    def topic(self):
        """Name of the topic; None on a bare log, and of an empty chunk."""
        return None if self.mapping is None else self.mapping.topic

    @property
    def partition(self):
        """Number of the partition; None on a bare log, and of an empty chunk."""
        return None if self.mapping is None else self.mapping.partition

    def __len__(self):
        return self.c.count

    def values(self):
        """The values as a list of bytes (None for null). Cost: one copy each."""
        cdef pl_reader reader
        cdef pl_slice slices[READ_BLOCK]
        cdef int64_t got, i, filled = 0
        cdef object value
        if self.c.segment == NULL:
            return []
        cdef list out = PyList_New(self.c.count)
        self.start(&reader)
        while True:
            got = pl_reader_values(&reader, slices, READ_BLOCK)
            if got < 0 or filled + got > self.c.count:
                raise broken_record(&self.c)
            for i in range(got):
                pl_reader_ahead(&reader, slices[i].data, slices[i].size)
                if slices[i].size < 0:
                    value = None
                else:
                    value = PyBytes_FromStringAndSize(<const char *>slices[i].data, slices[i].size)
                Py_INCREF(value)
                PyList_SET_ITEM(out, filled + i, value)
            filled += got
            if got < READ_BLOCK:
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
        cdef pl_record block[READ_BLOCK]
        cdef int64_t got, i
        if self.records is None:
            self.records = []
            if self.c.segment != NULL:
                self.start(&reader)
                while True:
                    got = pl_reader_records(&reader, block, READ_BLOCK)
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
        if self.columns_cache is not None:
            return self.columns_cache
        arrays = (numpy.empty(n, numpy.int64), numpy.empty(n, numpy.int64),
                  numpy.empty(n, numpy.int64), numpy.empty(n, numpy.int32))
        if n:
            memset(&a, 0, sizeof(a))
            a.offsets = <int64_t *>start_of(arrays[0])
            a.timestamps = <int64_t *>start_of(arrays[1])
            a.value_positions = <int64_t *>start_of(arrays[2])
            a.value_sizes = <int32_t *>start_of(arrays[3])
            a.origin = self.origin()
            self.start(&reader)
            self.fill(&reader, &a)
        self.columns_cache = read_only(arrays)
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
        """int64 array, read-only."""
        return self.column_arrays()[0]

    @property
    def timestamps(self):
        """int64 array, read-only: ms since the epoch."""
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
        arrays = (numpy.empty(n, numpy.int64), numpy.empty(n, numpy.int32))
        if n:
            memset(&a, 0, sizeof(a))
            a.key_positions = <int64_t *>start_of(arrays[0])
            a.key_sizes = <int32_t *>start_of(arrays[1])
            a.origin = self.origin()
            self.start(&reader)
            self.fill(&reader, &a)
        return read_only(arrays)

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
    cdef pl_record block[READ_BLOCK]
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
            self.filled = pl_reader_records(&self.reader, self.block, READ_BLOCK)
            if self.filled < 0:
                self.filled = 0
                self.is_done = True
                raise broken_record(&self.chunk.c)
            self.at = 0
            if self.filled == 0:
                self.is_done = True
                raise StopIteration
        cdef pl_record *record = &self.block[self.at]
        self.at += 1
        pl_reader_ahead(&self.reader, record.body, record.body_size)
        return new_record(self.chunk.mapping, record)
