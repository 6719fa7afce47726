"""Leases: what a share group has in hand of one partition. Delivery: one record of that.

csrc/pl_lease.h says what is in the file.
"""

DEF LEASE_WAIT_MS = 10000    # only a stopped process holds the lock of a ring for long
DEF ADMIT = 32

LEASES = PL_LEASES
LEASES_AT = PL_LEASES_AT    # in the file, 32 bytes each


def kept_from(path):
    """The first offset that is not done, of the file at `path`; -1: it keeps no records."""
    cdef bytes name = os.fsencode(path)
    cdef int64_t start
    check(pl_leases_kept_from(name, &start))
    return start


@cython.final
cdef class Leases:
    """The leases of a share group on a partition, in a file that all processes of the group map.

    Made of a log, processes that were joined, and for a new file: where it starts, whether records
    of a key are done in order (None: as it was made), whether retention spares what is not done.
    displaces: takes a delayed one early where it keeps all behind it from being taken. Safe for
    threads.
    """

    cdef pl_leases *c
    cdef Handle log
    cdef Processes processes
    cdef Cursor cursor, scout    # where records are taken; where an ordered ring is filled from
    cdef object partition
    cdef bint is_closed, is_listener
    cdef uint64_t changes        # as of the last take, to wait with
    cdef object __weakref__

    def __cinit__(self, path, str name not None, partition, Handle log not None,
                  Processes processes not None, int64_t start, ordered, bint keeps_records,
                  bint displaces):
        cdef bytes at = os.fsencode(path), encoded = name.encode()
        cdef const char *path_bytes = at
        cdef pl_leases_terms terms
        cdef pl_status status
        processes.check_open()
        log.check_open()
        terms.name, terms.start = encoded, start
        terms.is_ordered = -1 if ordered is None else 1 if ordered else 0
        terms.keeps_records = keeps_records
        self.log, self.processes, self.partition = log, processes, partition
        with nogil:
            status = pl_leases_open(path_bytes, &terms, log.log, processes.c, &self.c)
        log.check(status)
        self.c.displaces = displaces
        self.cursor = Cursor(log, 0)
        if self.c.file.head.is_ordered:
            self.scout = Cursor(log, 0)

    def __dealloc__(self):
        if self.c != NULL:
            pl_leases_close(self.c)

    cdef int check_open(self) except -1:
        if self.is_closed:
            raise errors.ClosedError("the share consumer is closed; make another")
        if self.c.fork_generation != pl_forks:
            raise errors.IllegalStateError("opened before fork: open again")
        self.processes.check_open()
        self.log.check_open()
        return 0

    cdef int after_slice(self, pl_status status, int64_t deadline) except -1:
        check(status)
        PyErr_CheckSignals()
        self.check_open()
        if pl_monotonic_ms() >= deadline:
            raise table_timeout(f"the leases of {self.partition}")
        return 0

    def close(self):
        """Idempotent. What is held of it is still held, until its time is over or we die."""
        if not self.is_closed:
            self.is_closed = True
            pl_leases_let_go(self.c)

    def remove(self):
        """Removes the file and closes; False when another process has it open."""
        self.check_open()
        cdef pl_status status = pl_leases_remove(self.c)
        check(status)
        if status == PL_OK:
            self.close()
        return status == PL_OK

    def sync(self):
        """What was settled is on disk when it returns. Cost: fdatasync."""
        cdef pl_status status
        self.check_open()
        with nogil:
            status = pl_leases_sync(self.c)
        check(status)

    @property
    def settled(self):
        """How many were done or given back: another number when there is something to sync."""
        self.check_open()
        return self.c.file.counts.done + self.c.file.counts.given_back

    def stats(self):
        """A dict of counts: start (the first offset that is not done), next (the first that was
        never given out), ready, held, delayed, behind; and since the file was made: done, rejected,
        given_back, expired, orphaned (their holder died), taken."""
        cdef pl_leases_stats found
        cdef pl_status status
        cdef int64_t deadline = pl_monotonic_ms() + LEASE_WAIT_MS
        self.check_open()
        while True:
            with nogil:
                status = pl_leases_get_stats(self.c, SLICE_MS, &found)
            if status == PL_OK:
                break
            self.after_slice(status, deadline)
        return {"start": found.start, "next": found.next, "ready": found.ready,
                "held": found.held, "delayed": found.delayed, "behind": found.behind,
                "done": found.counts.done, "rejected": found.counts.rejected,
                "given_back": found.counts.given_back, "expired": found.counts.expired,
                "orphaned": found.counts.orphaned, "taken": found.counts.taken}

    # -- taking --

    cdef int64_t take(self, int64_t count, int64_t lock_ms, pl_grant *grants) except -1:
        """How many of `count` were ready. Waits for nothing but the lock."""
        cdef int64_t taken
        self.check_open()
        if not self.c.file.head.is_ordered:
            return self.take_ready(count, lock_ms, grants)
        self.admit()
        taken = self.take_ready(count, lock_ms, grants)
        try:
            while taken < count and self.admit():
                taken += self.take_ready(count - taken, lock_ms, grants + taken)
        except errors.PylogError:
            if taken == 0:
                raise
        return taken    # what failed behind these is told when they are done

    cdef int64_t take_ready(self, int64_t count, int64_t lock_ms, pl_grant *grants) except -1:
        cdef int64_t taken = 0, deadline = -1
        cdef uint64_t changes = 0
        cdef pl_status status
        status = pl_leases_take(self.c, count, lock_ms, 0, grants, &taken, &changes)
        while status == PL_BUSY:
            if deadline < 0:
                deadline = pl_monotonic_ms() + LEASE_WAIT_MS
            self.log.enter()
            try:
                with nogil:
                    status = pl_leases_take(self.c, count, lock_ms, SLICE_MS, grants, &taken,
                                            &changes)
            finally:
                self.log.leave()
            if status == PL_BUSY:
                self.after_slice(status, deadline)
        check(status)
        self.changes = changes
        return taken

    cdef bint admit(self) except -1:
        """Brings records of the log into an ordered ring, until one of them is ready; whether any
        were brought."""
        cdef int64_t offsets[ADMIT]
        cdef int32_t buckets[ADMIT]
        cdef int64_t count, admitted, next_offset, brought = 0
        cdef int64_t start = 0    # of the log, where it moved on
        cdef pl_record_fields fields
        cdef Cursor scout = self.scout
        cdef pl_record *record
        cdef pl_status status
        while self.c.file.ready.count == 0 and not scout.is_busy and \
                pl_log_readable(self.log.log) > self.c.file.next_offset:
            next_offset = self.c.file.next_offset
            if scout.place() != max(next_offset, start):
                scout.seek(max(next_offset, start))
            try:
                if scout.at == scout.filled and not scout.refill():
                    break
            except errors.OffsetOutOfRangeError as error:
                if error.start_offset <= max(next_offset, start):
                    raise
                start = error.start_offset
                continue
            count = 0
            while count < ADMIT and scout.at < scout.filled:
                record = &scout.block[scout.at]
                scout.at += 1
                if not pl_record_split(record.body, record.body_size, &fields):
                    raise errors.CorruptRecordError(
                        f"the record at offset {record.offset} does not parse; run `pylog check`",
                        offset=record.offset)
                offsets[count] = record.offset
                buckets[count] = -1 if fields.key.size < 0 else <int32_t>(
                    pl_murmur2(fields.key.data, fields.key.size) % PL_LEASE_BUCKETS)
                count += 1
            status = pl_leases_admit(self.c, next_offset, offsets, buckets, count, SLICE_MS,
                                     &admitted)
            if status == PL_BUSY or status == PL_END and admitted == 0 and \
                    self.c.file.next_offset == next_offset:    # no room
                break
            check(status)
            brought += admitted
        return brought > 0

    cdef object record_of(self, pl_grant *grant):
        """The record that was taken; None: there is none at its offset, and so it is done."""
        cdef Cursor cursor = self.cursor
        cdef pl_record *record
        # What comes in while we look is not looked at: it is no part of what has no record.
        cdef int64_t found, end = pl_log_readable(self.log.log)
        if cursor.is_busy:    # another thread waits in it for the disk
            cursor = Cursor(self.log, grant.offset)
        elif cursor.place() != grant.offset:
            cursor.seek(grant.offset)
        try:
            if cursor.at == cursor.filled and not cursor.refill():
                found = end
            else:
                found = cursor.block[cursor.at].offset
        except errors.OffsetOutOfRangeError as error:
            found = error.start_offset
            if found <= grant.offset:
                raise
        if found > grant.offset:
            pl_leases_skip(self.c, grant.index, grant.token, found, LEASE_WAIT_MS)
            return None
        record = &cursor.block[cursor.at]
        cursor.at += 1
        return new_record(cursor.mapping, record)

    cdef int settle(self, uint32_t index, uint32_t token, pl_settlement how, int64_t ms) except -1:
        """0: the lease has ended."""
        cdef int64_t deadline = -1
        cdef pl_status status
        self.check_open()
        status = pl_leases_settle(self.c, index, token, how, ms, 0)
        while status == PL_BUSY:
            if deadline < 0:
                deadline = pl_monotonic_ms() + LEASE_WAIT_MS
            with nogil:
                status = pl_leases_settle(self.c, index, token, how, ms, SLICE_MS)
            if status == PL_BUSY:
                self.after_slice(status, deadline)
        check(status)
        return status == PL_OK


@cython.final
@cython.freelist(64)
cdef class Delivery:
    """One record that was taken from a queue or a share, to be settled by exactly one of its verbs.

    Has the record's attributes (topic, partition, offset, timestamp, key, value, headers), and
    delivery_count: how often it was given to somebody, this time included. `with` acknowledges it,
    or gives it back when the body raises; after Ctrl-C or a cancellation this delivery does not
    count. Settling it when its time is over and it may be another's
    raises InvalidRecordStateError (Kafka's error 121), and changes nothing. One that is forgotten
    is given back.
    """

    cdef Leases leases
    cdef object owner           # decides what becomes of what failed
    cdef uint32_t index, token
    cdef bint is_settled
    cdef readonly object record
    cdef readonly unsigned delivery_count

    def __dealloc__(self):
        """What nobody settled and nobody can is given back."""
        if self.leases is not None and not self.is_settled and \
                self.leases.c.fork_generation == pl_forks:
            pl_leases_settle(self.leases.c, self.index, self.token, PL_SETTLE_GIVE_BACK, 0, 0)

    def __init__(self, *arguments, **keywords):
        raise TypeError("deliveries come out of a queue or a ShareConsumer")

    @property
    def topic(self):
        return self.record.topic

    @property
    def partition(self):
        return self.record.partition

    @property
    def offset(self):
        return self.record.offset

    @property
    def timestamp(self):
        return self.record.timestamp

    @property
    def key(self):
        return self.record.key

    @property
    def value(self):
        return self.record.value

    @property
    def headers(self):
        return self.record.headers

    def header(self, str name not None, default=None):
        """The last header of a name, as `Record.header`."""
        return self.record.header(name, default)

    @property
    def settled(self):
        """Whether it was acknowledged, given back or rejected by this object."""
        return self.is_settled

    @property
    def held(self):
        """Whether it is still ours: not settled, and no other has got it since."""
        return not self.is_settled and not self.leases.is_closed and \
            pl_leases_peek(self.leases.c, self.index, self.token) == PL_OK

    cdef void undo(self) noexcept:
        """It was taken, and never came to anybody: this delivery does not count."""
        if not self.is_settled:
            self.is_settled = pl_leases_settle(self.leases.c, self.index, self.token,
                                               PL_SETTLE_RETURN, 0, SLICE_MS) == PL_OK

    cdef int settle(self, pl_settlement how, int64_t ms) except -1:
        if self.is_settled:
            raise errors.InvalidRecordStateError(
                f"the delivery of offset {self.record.offset} of {self.record.topic!r} was settled "
                "already: settle each once", offset=self.record.offset)
        if not self.leases.settle(self.index, self.token, how, ms):
            raise errors.InvalidRecordStateError(
                f"the time for offset {self.record.offset} of {self.record.topic!r} is over, and "
                "another may have it by now; take less time, a longer lock, or extend() it",
                offset=self.record.offset)
        self.is_settled = how != PL_SETTLE_RENEW
        return 0

    def ack(self):
        """It is done: nobody gets it any more. Cost: 40 ns."""
        self.settle(PL_SETTLE_DONE, 0)

    def release(self, delay=0, bint count=True):
        """Gives it back, for anybody to take: after `delay` seconds; count=False: this delivery
        does not count."""
        self.settle(PL_SETTLE_GIVE_BACK if count else PL_SETTLE_RETURN, take_ms(delay, "delay"))

    def extend(self, seconds):
        """Keeps it for so long, from now on (Kafka's RENEW, KIP-1222)."""
        self.settle(PL_SETTLE_RENEW, take_ms(seconds, "seconds"))

    def nack(self, delay=None, reason=None):
        """It failed: it is given back after `delay` seconds (None: as the queue's backoff says),
        or, if it was delivered often enough, goes to the dead letters with the reason."""
        self.owner._nack(self, delay, reason)

    def reject(self, reason=None):
        """It will never succeed: it goes to the dead letters, at once. reason: a text or an
        exception, for whoever looks at them."""
        self.owner._reject(self, reason)

    def count_from(self, unsigned before):
        """It was delivered so often before, elsewhere."""
        self.delivery_count += before

    def _discard(self):
        """It is done, and was not a success."""
        self.settle(PL_SETTLE_REJECT, 0)

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        if self.is_settled:
            return
        if kind is None:
            self.settle(PL_SETTLE_DONE, 0)
        elif issubclass(kind, Exception):
            self.owner._nack(self, None, error)
        else:
            try:
                if issubclass(kind, SystemExit):    # lest it ends one worker after another
                    self.owner._nack(self, None, error)
                else:    # Ctrl-C is no failure of the record
                    self.settle(PL_SETTLE_RETURN, 0)
            except errors.InvalidRecordStateError:
                pass    # another has it; and what is to end a thread or a task does

    def __repr__(self):
        return (f"<Delivery {self.delivery_count} of offset {self.record.offset} of "
                f"{self.record.topic!r}{', settled' if self.is_settled else ''}>")


cdef int64_t take_ms(object seconds, str name) except -1:
    if not isinstance(seconds, (int, float)) or isinstance(seconds, bool):
        raise TypeError(f"{name} must be a number of seconds, not {type(seconds).__name__}")
    if not 0 <= seconds <= 31_536_000:    # a year
        raise errors.ConfigurationError(f"{name}={seconds} is impossible; use 0 to 31,536,000",
                                        option=name, value=seconds)
    return <int64_t>(seconds * 1000)
