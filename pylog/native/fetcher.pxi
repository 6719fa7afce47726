"""Fetcher: partitions read in turn, and how far each is finished. The native half of Consumer.

What was returned last is *in hand*. Who asks for more says that it is finished, so nothing is noted
a record: a partition is finished up to the first record in hand, or else up to where it stands.

A record in hand costs a look at `pl_ticks` and no more. All else (is a commit due, has the group
changed, is there a new topic) is asked at the end of a block and every 50 ms: `_turn()`, in Python.
"""

cdef int64_t WITHOUT_END = -1


@cython.final
cdef class Word:
    """A number in shared memory, watched: when it changes, a Fetcher's wait ends, and it turns.

    Over 8 bytes of a writable buffer, which it keeps. Whoever changes it rings the doorbells; who
    does not is noticed within 100 ms, after a second's wait within 1 s.
    """

    cdef const pl_word *word
    cdef pl_bells *bells       # where it is rung; NULL: where the partitions are
    cdef uint64_t bells_inode
    cdef object owner

    def __cinit__(self, buffer=None):
        cdef Py_buffer view
        if buffer is not None:
            PyObject_GetBuffer(buffer, &view, PyBUF_WRITABLE)
            if view.len < 8 or <uint64_t>view.buf % 8:
                PyBuffer_Release(&view)
                raise ValueError("a word takes 8 bytes, and stands at a multiple of 8")
            self.word = <const pl_word *>view.buf
            self.owner = memoryview(buffer)    # no longer can it be resized or closed
            PyBuffer_Release(&view)


@cython.final
cdef class _Lane:
    """A partition that is read."""

    cdef Cursor cursor
    cdef object partition
    cdef bint is_paused
    cdef bint has_no_place     # where it starts is still to be said
    cdef int64_t held          # the first record in hand that is of a list; -1: none
    cdef int64_t committed     # what was committed last; -1: nothing
    cdef int slot              # its place in the table of the group

    cdef int fill(self) except -1:
        """Is a record at the cursor?"""
        cdef Cursor cursor = self.cursor
        if cursor.at < cursor.filled:
            return 1
        cursor.log.check_open()
        if not cursor.in_chunk and pl_log_readable(cursor.log.log) == cursor.c.offset:
            return 0
        return cursor.refill()


cdef class Fetcher:
    """The native half of pylog.Consumer: what is called often. See pylog/consumer.py."""

    cdef list lanes            # in the order of their turns
    cdef dict by_partition
    cdef Py_ssize_t number     # whose turn it is
    cdef _Lane current         # of the iteration; None: none
    cdef Cursor cursor         # its
    cdef bint has_iterated     # what is in hand is the record before the cursor's
    cdef list held             # lanes that have some of a list in hand
    cdef uint64_t ticks        # as last looked at
    cdef int64_t turn_at_ms    # when `_turn` is due
    cdef int64_t iteration_ms  # how long an iteration waits for a record
    cdef object failure        # what a deserializer raised behind the records of a list
    cdef object convert        # makes of a record what is returned; None: nothing
    cdef bint is_shut, skips_corrupt
    cdef unsigned forks
    cdef unsigned long user    # the thread inside; 0: none
    cdef int64_t records_before, damage_before   # by lanes that are gone
    cdef pl_word wakeups
    cdef pl_watched watched[8]
    cdef int watched_count
    cdef list words            # keeps them
    cdef pl_bells *bells
    cdef uint64_t bells_inode
    cdef Table table           # of the group; None: there is none
    cdef uint64_t owner, generation    # who we are in the group, and what we have seen of it
    cdef Waiter waiter         # for the lanes as they are; None: they have changed
    cdef list waited           # its lanes

    def __cinit__(self, *arguments, **keywords):
        self.lanes, self.held, self.words, self.by_partition = [], [], [], {}
        self.forks = pl_forks
        self.ticks = pl_ticks - 1
        self.iteration_ms = WITHOUT_END
        self.watched[0].word = &self.wakeups
        self.watched_count = 1

    def __reduce__(self):
        raise TypeError("a consumer cannot be pickled or copied; make one in the other process")

    def _configure(self, convert, int64_t iteration_ms, bint skips_corrupt):
        """convert: what makes of a Record what is returned. iteration_ms: how long an iteration
        waits for one; -1: for ever."""
        self.convert = convert
        self.iteration_ms = iteration_ms
        self.skips_corrupt = skips_corrupt

    # -- one by one --

    def __iter__(self):
        """Records, one by one, for ever; with consumer_timeout_ms until none came for so long."""
        return self

    def __next__(self):
        cdef Cursor cursor = self.cursor
        if cursor is None or cursor.at == cursor.filled or self.ticks != pl_ticks:
            if not self.advance():
                raise StopIteration
            cursor = self.cursor
        cdef pl_record *record = &cursor.block[cursor.at]
        cursor.at += 1
        pl_reader_ahead(&cursor.reader, record.body, record.body_size)
        if self.convert is None:
            return new_record(cursor.mapping, record)
        return self.converted(cursor, record)

    cdef object converted(self, Cursor cursor, pl_record *record):
        try:
            return self.convert(new_record(cursor.mapping, record))
        except BaseException:
            cursor.at -= 1    # it comes again, unless somebody seeks
            self.has_iterated = False
            self.leave_current()
            raise

    cdef bint advance(self) except -1:
        """Stands before the next record; false when none came in time."""
        cdef int64_t deadline = WITHOUT_END
        cdef bint has_waited = False
        self.enter()
        try:
            self.acknowledge()
            while True:
                self.look_up()
                if self.find():
                    self.has_iterated = True
                    pl_tick_order()
                    return True
                if not has_waited and self.iteration_ms >= 0:
                    deadline = pl_monotonic_ms() + self.iteration_ms
                has_waited = True
                if not self.sleep(deadline):
                    return False
        finally:
            self.leave()

    # -- in lists --

    def _poll(self, int64_t most, timeout):
        """{partition: [records]} as soon as there are some; {} after `timeout` s."""
        return self.gather(most, take_deadline(timeout), {}, None)

    def _consume(self, int64_t count, timeout):
        """A list of `count` records, or of fewer after `timeout` s."""
        return self.gather(count, take_deadline(timeout), None, [])

    cdef object gather(self, int64_t most, int64_t deadline, dict lists, list flat):
        cdef int64_t left = most
        cdef list out = flat
        self.enter()
        try:
            self.acknowledge()
            self.failure = None
            while True:
                self.look_up()
                while left > 0 and self.failure is None and self.find():
                    partition = self.current.partition
                    if lists is not None:
                        out = lists.get(partition, [])
                    left -= self.take(self.current, out, left)
                    if lists is not None and out:
                        lists[partition] = out
                if self.failure is not None and left == most:
                    raise self.failure
                if left == 0 or self.failure is not None or left < most and lists is not None:
                    break
                if not self.sleep(deadline):
                    break
            self.current = self.cursor = None
            pl_tick_order()
            return flat if lists is None else lists
        except BaseException:
            self.take_back()
            raise
        finally:
            self.failure = None
            self.leave()

    cdef int64_t take(self, _Lane lane, list out, int64_t most) except -1:
        """Appends what the lane has at hand; returns how many. Those before a record that cannot be
        deserialized are returned first, so its error waits in `failure`."""
        cdef Cursor cursor = lane.cursor
        cdef pl_record *record
        cdef int64_t left = most
        if lane.held < 0:
            lane.held = cursor.place()
            self.held.append(lane)
        while left > 0:
            if cursor.at == cursor.filled and not (cursor.in_chunk and cursor.decode()):
                break
            while left > 0 and cursor.at < cursor.filled:
                record = &cursor.block[cursor.at]
                cursor.at += 1
                pl_reader_ahead(&cursor.reader, record.body, record.body_size)
                if self.convert is None:
                    out.append(new_record(cursor.mapping, record))
                else:
                    try:
                        out.append(self.converted(cursor, record))
                    except errors.DeserializationError as error:
                        self.failure = error
                        return most - left
                left -= 1
        return most - left

    def _chunk(self, int64_t most):
        """The next Chunk, of whichever partition; None when none came in an iteration's time."""
        cdef int64_t deadline = WITHOUT_END
        cdef _Lane lane
        cdef Chunk chunk
        self.enter()
        try:
            self.acknowledge()
            if self.iteration_ms >= 0:
                deadline = pl_monotonic_ms() + self.iteration_ms
            while True:
                self.look_up()
                while self.find():
                    lane = self.current
                    self.current = self.cursor = None
                    lane.held = lane.cursor.place()
                    self.held.append(lane)
                    chunk = lane.cursor.fetch(most)
                    lane.cursor.handed += len(chunk)
                    if len(chunk):
                        return chunk
                if not self.sleep(deadline):
                    return None
        except BaseException:
            self.take_back()
            raise
        finally:
            self.leave()

    # -- what is in hand --

    cdef void acknowledge(self) noexcept:
        cdef _Lane lane
        self.has_iterated = False
        if PyList_GET_SIZE(self.held):
            for lane in self.held:
                lane.held = -1
            self.held = []

    cdef int take_back(self) except -1:
        """The caller never gets what was taken for him."""
        cdef _Lane lane
        for lane in self.held:
            lane.cursor.seek(lane.held)
            lane.held = -1
        self.held = []
        self.current = self.cursor = None
        return 0

    cdef void leave_current(self) noexcept:
        """Before anything is done to lanes: the record in hand is noted with its lane."""
        cdef Cursor cursor = self.cursor
        if self.has_iterated and cursor is not None and cursor.at > 0 and self.current.held < 0:
            self.current.held = cursor.block[cursor.at - 1].offset
            self.held.append(self.current)
        self.has_iterated = False
        self.current = self.cursor = None

    # -- which lane is next --

    cdef bint find(self) except -1:
        """Makes the lane current that is next to be read, with a record at its cursor."""
        cdef _Lane lane = self.current
        cdef Py_ssize_t i, count = PyList_GET_SIZE(self.lanes)
        if lane is not None:    # its chunk goes on
            if self.cursor.at < self.cursor.filled or self.cursor.in_chunk and self.cursor.decode():
                return True
            self.current = self.cursor = None
        for i in range(count):
            self.number += 1
            if self.number >= count:
                self.number = 0
            lane = <_Lane>PyList_GET_ITEM(self.lanes, self.number)
            if not lane.is_paused and self.fill(lane):
                self.current = lane
                self.cursor = lane.cursor
                return True
        return False

    cdef bint fill(self, _Lane lane) except -1:
        if lane.has_no_place:
            lane.cursor.seek(self._start(lane.partition))
            lane.has_no_place = False
        try:
            return lane.fill()
        except errors.OffsetOutOfRangeError as error:
            lane.cursor.seek(self._reset(lane.partition, error))
        return lane.fill()

    # -- between records --

    cdef int enter(self) except -1:
        """One thread at a time, and it not twice."""
        cdef unsigned long thread = PyThread_get_thread_ident()
        if self.user:
            raise errors.ConcurrentModificationError(
                "the consumer is being used by its own callback: let that return first"
                if self.user == thread else
                "the consumer is in use by another thread: give each thread its own; only wakeup() "
                "may be called from others")
        self.user = thread
        return 0

    cdef void leave(self) noexcept:
        self.user = 0

    cdef int check_usable(self) except -1:
        if self.is_shut:
            raise errors.ClosedError("the consumer is closed; make a new one")
        if self.forks != pl_forks:
            raise errors.IllegalStateError(
                "the consumer was made before a fork; make one in this process")
        if self.user and self.user != PyThread_get_thread_ident():
            self.enter()    # says so
        return 0

    def _check_usable(self):
        """Raises ClosedError, IllegalStateError, and ConcurrentModificationError if another thread
        is inside; a callback of this one may go on."""
        self.check_usable()

    cdef int look_up(self) except -1:
        """What is due between two records."""
        cdef bint is_due = False
        cdef int i
        self.check_usable()
        if pl_watched_look(&self.watched[0]):
            raise errors.WakeupError("wakeup() was called; ask again to go on")
        for i in range(1, self.watched_count):
            is_due |= pl_watched_look(&self.watched[i])
        if self.ticks != pl_ticks:
            self.ticks = pl_ticks
            is_due |= pl_monotonic_ms() >= self.turn_at_ms
        if is_due:
            self._look_soon()    # if it raises
            self.turn_at_ms = pl_monotonic_ms() + <int64_t>self._turn()
            self.ticks = pl_ticks
            self.check_usable()
        return 0

    cdef bint sleep(self, int64_t deadline) except -1:
        """Until there may be something; false: it is past the deadline."""
        cdef int64_t until = self.turn_at_ms
        cdef _Lane lane
        cdef int i = 0
        if deadline >= 0:
            if pl_monotonic_ms() >= deadline:
                return False
            until = min(until, deadline)
        if self.waiter is None:
            self.waited = [lane for lane in self.lanes if not (<_Lane>lane).is_paused]
            self.waiter = Waiter([(<_Lane>lane).cursor.log for lane in self.waited])
        for lane in self.waited:
            self.waiter.offsets[i] = lane.cursor.place()
            i += 1
        self.waiter.w.watched, self.waiter.w.watched_count = self.watched, self.watched_count
        self.waiter.w.bells, self.waiter.w.bells_inode = self.bells, self.bells_inode
        if self.bells == NULL and self.lanes:
            lane = self.lanes[0]
            self.waiter.w.bells = lane.cursor.log.log.bells
            self.waiter.w.bells_inode = lane.cursor.log.log.bells_inode
        self.waiter.wait_until(until)
        self.ticks = pl_ticks - 1    # look at the clock
        return True

    def wakeup(self):
        """Ends the wait of the thread that is inside, or the next call, with WakeupError.

        The one method that any thread may call at any time.
        """
        cdef _Lane lane
        cdef pl_bells *bells = self.bells
        if bells == NULL and self.lanes:
            lane = self.lanes[0]
            bells = lane.cursor.log.log.bells
        pl_word_step(&self.wakeups)
        self.ticks = pl_ticks - 1
        pl_wait_wake_own(bells)

    def _watch(self, Word word not None):
        """`_turn` is called when the word changes, also out of a wait."""
        if self.watched_count == 8:
            raise ValueError("a consumer watches at most 7 words")
        self.watched[self.watched_count].word = word.word
        pl_watched_look(&self.watched[self.watched_count])
        self.watched_count += 1
        self.words.append(word)
        if word.bells != NULL:
            self.bells, self.bells_inode = word.bells, word.bells_inode

    def _look_soon(self):
        """`_turn` is called before the next record."""
        self.turn_at_ms = 0
        self.ticks = pl_ticks - 1

    # -- lanes --

    cdef _Lane lane_of(self, object partition):
        cdef object lane = self.by_partition.get(partition)
        if lane is None:
            raise self._not_assigned(partition)
        return <_Lane>lane

    def _add(self, partition, Handle log not None, offset):
        """Reads a partition from `offset` on; None: `_start` will say where."""
        cdef _Lane lane = _Lane.__new__(_Lane)
        lane.cursor = Cursor(log, 0 if offset is None else offset, -1, False, self.skips_corrupt)
        lane.partition = partition
        lane.has_no_place = offset is None
        lane.held = lane.committed = -1
        if self.table is not None:
            lane.slot = self.table.find(partition[0], partition[1])
        self.leave_current()
        self.by_partition[partition] = lane
        self.lanes.append(lane)
        self.waiter = None

    def _remove(self, partition):
        """Reads it no more."""
        cdef _Lane lane = self.lane_of(partition)
        self.leave_current()
        if lane.held >= 0:
            self.held.remove(lane)
        del self.by_partition[partition]
        self.lanes.remove(lane)
        self.records_before += lane.cursor.handed - (lane.cursor.filled - lane.cursor.at)
        self.damage_before += lane.cursor.skipped
        self.number = self.number - 1 if self.number > 0 else 0
        self.waiter = None

    def _partitions(self):
        """Those that are read, in the order of their turns."""
        return [(<_Lane>lane).partition for lane in self.lanes]

    def _log(self, partition):
        return self.lane_of(partition).cursor.log

    def _read_log(self, partition):
        """The log of a partition, if it is read."""
        cdef object lane = self.by_partition.get(partition)
        return None if lane is None else (<_Lane>lane).cursor.log

    def _place(self, partition):
        """Offset of the next record to be returned; None: not known yet."""
        cdef _Lane lane = self.lane_of(partition)
        return None if lane.has_no_place else lane.cursor.place()

    def _seek(self, partition, offset):
        """What is in hand of the partition counts as finished: the caller has decided."""
        cdef _Lane lane = self.lane_of(partition)
        self.leave_current()
        lane.cursor.seek(offset)
        lane.has_no_place = False
        if lane.held >= 0:
            lane.held = -1
            self.held.remove(lane)

    def _pause(self, partition, bint is_paused):
        cdef _Lane lane = self.lane_of(partition)
        self.leave_current()
        lane.is_paused = is_paused
        self.waiter = None

    def _paused(self):
        return [(<_Lane>lane).partition for lane in self.lanes if (<_Lane>lane).is_paused]

    # -- what may be committed --

    cdef int64_t finished(self, _Lane lane, bint with_hand) noexcept:
        if lane.has_no_place:
            return -1
        if not with_hand:
            if lane.held >= 0:
                return lane.held
            if self.has_iterated and lane is self.current and lane.cursor.at > 0:
                return lane.cursor.block[lane.cursor.at - 1].offset
        return lane.cursor.place()

    def _use_group(self, Table table not None):
        """What is committed goes there from now on, and what happens there is heard of."""
        self.table = table
        self._watch(table.word())
        self._watch(table.processes.word())

    def _be_member(self, uint64_t owner, uint64_t generation):
        """Who commits; owner 0: nobody, which is right where partitions are assigned by hand."""
        self.owner, self.generation = owner, generation

    def _commit_lanes(self, bint with_hand):
        """Commits what moved since the last time. None: done. Else the partitions that were
        refused; an empty list: the group has another generation, so ask again when that is known.

        Cost: 60 ns a partition that moved, 5 ns for another.
        """
        cdef _Lane lane
        cdef pl_entry entry
        cdef pl_status status
        cdef list refused = None
        if self.table is None:
            return None
        self.table.check_open()
        entry.text_size, entry.leader_epoch = 0, -1
        for lane in self.lanes:
            entry.offset = self.finished(lane, with_hand)
            if entry.offset == lane.committed or entry.offset < 0:
                continue
            entry.incarnation = lane.cursor.log.log.meta.incarnation
            status = self.table.commit_entry(lane.slot, self.owner, self.generation, &entry)
            if status == PL_OK:
                lane.committed = entry.offset
            elif status == PL_NOT_READY:
                return []
            else:
                if refused is None:
                    refused = []
                refused.append(lane.partition)
        return refused

    def _commit_lane(self, partition, int64_t offset, bytes text not None, int32_t leader_epoch):
        """Commits for a partition that is read; False: it is not, or not ours, or who knows."""
        cdef object found = self.by_partition.get(partition)
        cdef _Lane lane
        cdef pl_entry entry
        cdef size_t size = len(text)
        if found is None or self.table is None or size > PL_TABLE_TEXT_MAX:
            return False
        lane = <_Lane>found
        self.table.check_open()
        entry.offset, entry.leader_epoch, entry.text_size = offset, leader_epoch, <uint16_t>size
        entry.incarnation = lane.cursor.log.log.meta.incarnation
        memcpy(entry.text, PyBytes_AS_STRING(text), size)
        if self.table.commit_entry(lane.slot, self.owner, self.generation, &entry) != PL_OK:
            return False
        lane.committed = offset
        return True

    # -- the rest --

    @property
    def closed(self):
        """True after close()."""
        return self.is_shut

    def _check_alone(self):
        """Before a close: nobody is inside, and be it a callback."""
        self.enter()
        self.leave()

    def _counted(self):
        """(records returned, times that damage was stepped over)."""
        cdef _Lane lane
        cdef int64_t records = self.records_before, damage = self.damage_before
        for lane in self.lanes:
            records += lane.cursor.handed - (lane.cursor.filled - lane.cursor.at)
            damage += lane.cursor.skipped
        return records, damage

    def _shut(self):
        """No call is answered any more."""
        self.is_shut = True
        self.leave_current()
        self.lanes, self.held, self.by_partition = [], [], {}
        self.waiter = None


cdef extern from "plain_slots.h":
    int pl_wrap_next(PyTypeObject *type) except -1

pl_wrap_next(<PyTypeObject *>Fetcher)
