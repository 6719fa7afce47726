"""Log: an appender that reads, and the figures of a log."""

cdef object not_found(int64_t offset, object next_offset):
    return errors.RecordNotFoundError(
        f"there is no record at offset {offset}: a gap or a control record; "
        f"fetch({offset}) goes on behind it", offset=offset, next_offset=next_offset)


cdef class Log(Appender):
    """The native half of pylog.Log: what is called often. See pylog/log.py for the whole."""

    def flush(self):
        """Makes everything appended so far durable; returns when it is.

        All threads and processes that flush at once share one fdatasync, which is the cost. Raises
        DurabilityError when the disk refuses: the log then takes no more appends; ReadOnlyLogError,
        PylogTimeoutError (a stopped process holds a lock).
        """
        self.check_writable()
        self.flush_to(pl_log_end(self.log))

    def delete_before(self, offset):
        """Moves the start of the log to `offset` and removes the segments wholly below it.

        Durable on return; views of the removed records stay valid. The disk has its blocks again
        when no process has them mapped: within a second where it appends, else when it next reads
        or waits. Cost: a listing, two syncs.
        Raises OffsetOutOfRangeError, ReadOnlyLogError, PylogTimeoutError (a stopped process holds
        the lock; nothing was deleted).
        """
        cdef pl_status status
        cdef int64_t start = self.offset_of(offset)
        cdef int64_t deadline = pl_monotonic_ms() + self.lock_timeout_ms
        self.check_writable()
        self.enter()
        try:
            while True:
                with nogil:
                    status = pl_delete_before(self.log, start)
                if status == PL_OK:
                    return
                self.after_slice(status, deadline, "delete again: nothing was deleted")
        finally:
            self.leave()

    def _alter(self, int64_t segment_bytes, int64_t max_message_bytes, int64_t append_time,
               int64_t flush_interval_ms):
        """Changes what is not -1, for all processes."""
        cdef pl_options wanted
        cdef pl_status status
        cdef int64_t deadline = pl_monotonic_ms() + self.lock_timeout_ms
        wanted.durability = wanted.index_interval_bytes = -1
        wanted.segment_bytes = segment_bytes
        wanted.max_message_bytes = max_message_bytes
        wanted.append_time = append_time
        wanted.flush_interval_ms = flush_interval_ms
        self.check_writable()
        self.enter()
        try:
            while True:
                with nogil:
                    status = pl_alter(self.log, &wanted, SLICE_MS)
                if status == PL_OK:
                    return
                self.after_slice(status, deadline, "alter again")
        finally:
            self.leave()

    def roll(self):
        """Begins a new segment file, unless the last one is empty: what is old can be deleted by
        whole files only. Raises ReadOnlyLogError, DiskFullError, PylogTimeoutError.
        """
        cdef pl_status status
        cdef int64_t deadline = pl_monotonic_ms() + self.lock_timeout_ms
        self.check_writable()
        self.enter()
        try:
            while True:
                with nogil:
                    status = pl_roll(self.log, SLICE_MS)
                if status == PL_OK:
                    return
                self.after_slice(status, deadline, "roll again")
        finally:
            self.leave()

    def _retire(self):
        """Trims and indexes what was rolled; False: somebody else is at it. The housekeeper of who
        writes does the same."""
        cdef pl_status status
        self.check_writable()
        self.enter()
        try:
            with nogil:
                status = pl_retire(self.log)
        finally:
            self.leave()
        self.check(status)
        return self.log.page.retired_base >= self.log.page.active_base

    # -- reading --

    def _offset(self, offset):
        """An int that an offset can be."""
        return self.offset_of(offset)

    def fetch(self, offset, max_records=2**31 - 1, max_bytes=1048576):
        """The records from `offset` on that are there now, as a Chunk; empty at the end.

        max_bytes bounds the whole batches looked at (at least one). Does not wait, does not copy.
        Raises OffsetOutOfRangeError below the start or beyond the end, CorruptRecordError.
        """
        return Cursor(self, offset).fetch(max_records, max_bytes)

    def get(self, offset):
        """The record at `offset`. Cost: an index look-up and a walk inside one batch.

        Raises OffsetOutOfRangeError, RecordNotFoundError in a gap, CorruptRecordError.
        """
        cdef pl_chunk chunk
        cdef Chunk found
        cdef pl_status status
        cdef int64_t sought = self.offset_of(offset)
        self.check_open()
        if self.is_getting: # another thread waits for a cold page: this one looks on its own
            found = Cursor(self, sought).fetch(1, 1)
            return self.only_record(found.c, sought)
        pl_cursor_seek(&self.getter, sought)
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
        self.check(status)
        try:
            return self.only_record(chunk, sought)
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
                    offset=offset, start_offset=self.log.page.log_start, end_offset=offset)
            raise not_found(offset, None)
        mapping = hold(chunk.segment, None)
        mapping.topic = self.topic
        mapping.partition = self.partition
        if chunk.codec:
            decompressed(&chunk, mapping, self.decompressed_max(), &payload)
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

    def batches(self, offset):
        """Whole batches from the one that bears `offset` on, as memoryviews, for relaying.

        Valid Kafka bytes, not decoded and not copied but for the open tail (a finished copy). Cost:
        a header and, on first touch, a CRC each. Raises OffsetOutOfRangeError, CorruptRecordError.
        """
        cdef int64_t start = self.offset_of(offset)
        self.check_open()
        return Batches(self, start)

    def wait(self, offset, timeout=None):
        """Waits until the record at `offset` can be read; True, or False after `timeout` seconds.

        Woken by the append itself, in whatever process; Ctrl-C works. With mode="r" in a directory
        that this user cannot write it polls, every 128 ms at the slowest. Raises ClosedError, also
        when another thread closes the log meanwhile, ConfigurationError for a timeout of nan, and
        LogError when the directory was moved or replaced.
        """
        cdef pl_status status
        cdef int64_t left = SLICE_MS, slices = 0
        cdef int64_t awaited = self.offset_of(offset), deadline = take_deadline(timeout)
        self.check_open()
        if pl_log_readable(self.log) > awaited:
            return True
        self.enter()
        try:
            while True:
                slices += 1
                left = SLICE_MS if slices < 10 else IDLE_SLICE_MS
                if deadline >= 0:
                    left = min(left, deadline - pl_monotonic_ms())
                    if left <= 0:
                        return pl_log_readable(self.log) > awaited
                with nogil:
                    status = pl_wait_readable(self.log, awaited, <int>left)
                if status == PL_OK:
                    return True
                self.check(status)
                if slices >= 10:
                    self.check(pl_log_check_place(self.log))
                PyErr_CheckSignals()
                self.check_open()
        finally:
            self.leave()

    def _offset_before_end(self, int64_t count):
        """Of the record with `count` - 1 others behind it, or the start."""
        cdef pl_status status
        cdef int64_t offset = 0
        self.check_open()
        self.enter()
        try:
            with nogil:
                status = pl_offset_before_end(self.log, count, &offset)
        finally:
            self.leave()
        self.check(status)
        return offset

    def _offset_for_time(self, timestamp):
        """Where to start looking for the first record at or after `timestamp`; None: nowhere."""
        cdef pl_status status
        cdef int64_t offset = 0, sought
        if not take_int(timestamp, "a timestamp (ms since the epoch)", &sought):
            raise errors.InvalidTimestampError(
                f"timestamp {timestamp} is beyond 64 bits; pass ms since the epoch",
                timestamp=int(timestamp))
        self.check_open()
        self.enter()
        try:
            with nogil:
                status = pl_offset_for_time(self.log, sought, &offset)
        finally:
            self.leave()
        self.check(status)
        return None if status == PL_END else offset

    def _forget_verified(self):
        """Drops the marks of checked batches, so that the next read checks CRCs again (bench)."""
        cdef pl_segment *segment
        cdef int64_t offset, next_base = 0
        self.check_open()
        offset = self.log.page.log_start
        while next_base != 0x7fffffffffffffff:
            self.check(pl_log_segment(self.log, offset, &segment, &next_base))
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
            self.check(pl_log_segment(self.log, offset, &segment, &next_base))
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
        cdef uint64_t total
        self.check(pl_log_size_bytes(self.log, &total))
        return total

    @property
    def closed(self):
        """True from the call of close() on, and when its topic was deleted."""
        return self.log == NULL or self.is_closing or self.log.is_closed != 0 \
            or pl_log_is_deleted(self.log)

    @property
    def incarnation(self):
        """A random number of its creation: a log that is made anew in its place has another."""
        if self.log == NULL:
            self.check_open()
        return self.log.meta.incarnation

    def _options(self):
        """The stored properties, by name, as numbers."""
        if self.log == NULL:
            self.check_open()
        if self.can_append and not self.is_closing:
            self.message_bytes_max()
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
        return dict(end_offset=p.end_offset, position=p.position, sealed_offset=p.sealed_offset,
                    durable_offset=p.durable_offset, start_offset=p.log_start,
                    reserved_end=p.reserved_end, active_base=p.active_base, rolls=p.rolls,
                    flushes=p.flushes, owner_deaths=p.owner_deaths,
                    is_poisoned=p.state == PL_LOG_POISONED, leader_epoch=p.leader_epoch,
                    housekeeper_failures=self.log.keeper_failures)
