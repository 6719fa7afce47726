"""Cursor: the native reader with a position. Batches: whole batches, for relaying."""


@cython.final
cdef class Cursor:
    """A position in a log and the native reader at it: iterate it, or fetch chunks from it.

    `offset` is the next record to be returned, `skipped` how often an iteration with
    on_corruption="skip" stepped over damage. Not for two threads at once (IllegalStateError).
    Cost: an iteration step is a Record out of a decoded block; a fetch looks at batch headers and,
    on first touch, checks their CRCs. Keeps one segment mapped, reads nothing ahead into memory of
    its own. Iterating raises OffsetOutOfRangeError, CorruptRecordError, UnsupportedCodecError,
    ClosedError.
    """

    cdef Handle log
    cdef pl_cursor c
    cdef pl_chunk chunk
    cdef pl_reader reader
    cdef pl_record block[READ_BLOCK]
    cdef int64_t at, filled, handed    # handed: decoded so far, and not dropped
    cdef bint in_chunk, is_busy
    cdef Mapping mapping
    cdef int64_t stop_offset
    cdef bint follows, skips_corrupt
    cdef readonly int64_t skipped  # times that damage was stepped over

    def __cinit__(self, log=None, offset=None, int64_t stop_offset=-1, bint follow=False,
                  bint skip_corrupt=False):
        if not isinstance(log, Handle):
            raise TypeError("cursors come out of a log: log.cursor(start) or log.read(start)")
        self.log = log
        self.stop_offset = stop_offset
        self.follows = follow
        self.skips_corrupt = skip_corrupt
        pl_cursor_init(&self.c, self.log.log, self.log.offset_of(offset))

    def __reduce__(self):
        raise TypeError("a cursor cannot be pickled or copied; pass the log's path and `offset`")

    def __dealloc__(self):
        pl_chunk_release(&self.chunk)
        pl_cursor_release(&self.c)

    @property
    def offset(self):
        """Offset of the next record."""
        return self.place()

    cdef int64_t place(self) noexcept:
        if self.at < self.filled:
            return self.block[self.at].offset
        # The chunk may hold more than the block: `c` stands behind all of it.
        return self.block[self.filled - 1].offset + 1 if self.in_chunk and self.filled \
            else self.c.offset

    def seek(self, offset):
        """Moves to `offset`; that it exists is checked by the next read.

        Raises OffsetOutOfRangeError beyond 64 bits, IllegalStateError when in use by a thread.
        """
        cdef int64_t target = self.log.offset_of(offset)
        self.check_free()
        self.drop_block()
        pl_cursor_seek(&self.c, target)

    cdef int check_free(self) except -1:
        """Before anything is changed: another thread may be inside, without the GIL."""
        if self.is_busy:
            raise errors.IllegalStateError(
                "the cursor is in use by another thread: give each thread its own")
        return 0

    cdef void drop_block(self) noexcept:
        self.handed -= self.filled - self.at
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
            self.log.check_open()
            raise make_error(status, not self.skips_corrupt)
        return status

    def fetch(self, max_records=2**31 - 1, max_bytes=1048576):
        """The records that are there now, as a Chunk, empty at the end; moves behind them.

        max_bytes: whole batches up to this many bytes (at least one). Raises OffsetOutOfRangeError,
        CorruptRecordError, UnsupportedCodecError, ClosedError, and ConfigurationError below 1.
        """
        cdef Chunk chunk
        cdef int64_t records_max = take_at_least_1(max_records, "max_records")
        cdef int64_t bytes_max = take_at_least_1(max_bytes, "max_bytes")
        self.check_free()
        self.drop_block()
        while True:
            chunk = Chunk.__new__(Chunk)
            if self.take(records_max, bytes_max, &chunk.c) == PL_END:
                chunk.c.from_offset = self.c.offset
                chunk.next_offset = self.c.offset
                return chunk
            chunk.next_offset = chunk.c.next_offset
            chunk.mapping = hold(chunk.c.segment, None)
            chunk.mapping.topic = self.log.topic
            chunk.mapping.partition = self.log.partition
            if not chunk.c.codec:
                return chunk
            self.unpack(&chunk.c, chunk.mapping, &chunk.payload_slice)
            if chunk.recount():
                return chunk

    cdef int unpack(self, const pl_chunk *chunk, Mapping mapping, pl_slice *payload) except -1:
        """Decompresses; who fails stands before the batch, as with any other damage."""
        try:
            return decompressed(chunk, mapping, self.log.decompressed_max(), payload)
        except errors.PylogError as error:
            pl_cursor_seek(&self.c, chunk.from_offset)
            if isinstance(error, errors.CorruptRecordError) and not self.skips_corrupt:
                error.valid_batches = valid_beyond(chunk.segment.path, error.position)
            raise

    def wait(self, timeout=None):
        """Waits until there is a record at `offset`; False after `timeout` seconds.

        Raises as `Log.wait`.
        """
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
            self.mapping.topic = self.log.topic
            self.mapping.partition = self.log.partition
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
        self.log.check(status)
        self.skipped += 1
        return 0

    cdef int decode(self) except -1:
        """Decodes the next block of the chunk: 0 where it ends."""
        self.filled = pl_reader_records(&self.reader, self.block, READ_BLOCK)
        self.at = 0
        if self.filled > 0:
            self.handed += self.filled
            return 1
        self.in_chunk = False
        if self.filled == 0:
            return 0
        self.filled = 0
        if not self.skips_corrupt:
            pl_cursor_seek(&self.c, self.reader.least_offset)
            raise broken_record(&self.chunk)
        pl_cursor_seek(&self.c, min(self.reader.batch_end, self.chunk.next_offset))
        self.skipped += 1
        return 0

    cdef int refill(self) except -1:
        """Decodes the next block: 0 when there is none and we do not follow."""
        self.check_free()
        while True:
            if self.in_chunk and self.decode():
                return 1
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
        pl_reader_ahead(&self.reader, record.body, record.body_size)
        return new_record(self.mapping, record)


@cython.final
cdef class Batches:
    """Whole batches from the one that bears an offset on, as read-only memoryviews.

    For relaying without decoding: each is a valid Kafka batch, CRC checked on first touch. The
    open tail comes as a private, finished copy, and is the last: what is appended to it later would
    come again with all before it. Stops at the end.
    """

    cdef Cursor cursor
    cdef bint is_done

    def __cinit__(self, log, offset):
        self.cursor = Cursor(log, offset)

    def __iter__(self):
        return self

    def __next__(self):
        cdef pl_chunk chunk
        cdef pl_header header
        cdef pl_status status
        cdef bytes copy
        cdef Cursor cursor = self.cursor
        if self.is_done:
            raise StopIteration
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
        cursor.log.check(status)
        if status == PL_END:
            raise StopIteration
        try:
            if header.size:
                return make_view(hold(chunk.segment, None), chunk.segment.data + chunk.position,
                                 chunk.end_position - chunk.position)
            self.is_done = True
            copy = PyBytes_FromStringAndSize(NULL, chunk.end_position - chunk.position)
            check(pl_chunk_finish(&chunk, <uint8_t *>PyBytes_AS_STRING(copy)))
            return memoryview(copy)
        finally:
            pl_chunk_release(&chunk)
