"""Fetcher: takes records out of its lanes in turn, and waits for more. The native half of Consumer.

A record in hand costs a look at `pl_ticks` and no more. All else (is a commit due, has the group
changed, is there a new topic) is asked at the end of a block and every 50 ms: `_turn()`, in Python.
"""

cdef int64_t WITHOUT_END = -1

DEF BLOCKS_A_REST = 64    # of records, before the other tasks of an event loop have their turn


cdef class Fetcher(Lanes):
    """The native half of pylog.Consumer: what is called often. See pylog/consumer.py."""

    cdef uint64_t ticks        # as last looked at
    cdef int64_t turn_at_ms    # when `_turn` is due
    cdef int64_t iteration_ms  # how long an iteration waits for a record
    cdef object failure        # what a deserializer raised behind the records of a list
    cdef object convert        # makes of a record what is returned; None: nothing
    cdef bint is_shut
    cdef unsigned forks
    cdef unsigned long user    # the thread inside; 0: none
    cdef unsigned long runner  # the thread of a run that has handlers elsewhere; 0: there is none
    cdef pl_word wakeups
    cdef pl_watched watched[8]
    cdef int watched_count
    cdef list words            # keeps them
    cdef pl_bells *bells
    cdef uint64_t bells_inode
    cdef list waited           # the waiter's lanes
    cdef Waiter posted         # what it points to
    cdef Step step             # the last that was awaited, to be used again
    cdef unsigned blocks       # taken by an event loop

    def __cinit__(self, *arguments, **keywords):
        self.words = []
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

    @property
    def _iteration_seconds(self):
        """How long an iteration waits for a record; None: for ever."""
        return None if self.iteration_ms < 0 else self.iteration_ms / 1000.0

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

    def __aiter__(self):
        return self

    def __anext__(self):
        if self.step is not None and (<PyObject *>self.step).ob_refcnt == 1:    # nobody has it
            self.step.has_rested = False
            return self.step
        self.step = Step.__new__(Step)
        self.step.fetcher = self
        return self.step

    cdef object take_next(self):
        """The record before which `advance` stands."""
        cdef Cursor cursor = self.cursor
        cdef pl_record *record = &cursor.block[cursor.at]
        cursor.at += 1
        pl_reader_ahead(&cursor.reader, record.body, record.body_size)
        if self.convert is None:
            return new_record(cursor.mapping, record)
        return self.converted(cursor, record)

    cdef bint owes_rest(self) noexcept:
        """Has an event loop been kept for long?"""
        self.blocks += 1
        return self.blocks % BLOCKS_A_REST == 0 or self.ticks != pl_ticks

    cdef bint advance_now(self) except -1:
        """As `advance`, and waits for nothing."""
        self.enter()
        try:
            self.acknowledge()
            self.look_up()
            self.has_iterated = self.find()
            if self.has_iterated:
                pl_tick_order()
            return self.has_iterated
        finally:
            self.leave()

    def _next_now(self):
        """The next record; None: there is none now."""
        return self.take_next() if self.advance_now() else None

    cdef object converted(self, Cursor cursor, pl_record *record):
        cdef int64_t offset = record.offset
        try:
            return self.convert(new_record(cursor.mapping, record))
        except BaseException:
            if cursor.at > 0 and cursor.block[cursor.at - 1].offset == offset:
                cursor.at -= 1    # it comes again; what was called may have moved on, or sought
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
        cdef Mapping mapping
        cdef pl_record *record
        cdef pl_record *end
        cdef int64_t left = most
        if lane.held < 0:
            lane.held = cursor.place()
            self.held.append(lane)
        while left > 0 and self.failure is None:
            if cursor.at == cursor.filled and not (cursor.in_chunk and cursor.decode()):
                break
            if self.convert is not None:
                left -= self.take_converted(cursor, out, left)
                continue
            mapping = cursor.mapping
            record = &cursor.block[cursor.at]
            end = record + min(left, cursor.filled - cursor.at)
            left -= end - record
            cursor.at += end - record
            while record != end:
                pl_reader_ahead(&cursor.reader, record.body, record.body_size)
                out.append(new_record(mapping, record))
                record += 1
        return most - left

    cdef int64_t take_converted(self, Cursor cursor, list out, int64_t most) except -1:
        """The same of a block, with a deserializer."""
        cdef int64_t left = most
        while left > 0 and cursor.at < cursor.filled:
            cursor.at += 1
            try:
                out.append(self.converted(cursor, &cursor.block[cursor.at - 1]))
            except errors.SerdeError as error:
                self.failure = error
                break
            left -= 1
        return most - left

    def _chunk(self, int64_t most, timeout):
        """The next Chunk, of whichever partition; None after `timeout` s."""
        cdef int64_t deadline = take_deadline(timeout)
        cdef _Lane lane
        cdef Chunk chunk
        self.enter()
        try:
            self.acknowledge()
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

    def _gather(self, int64_t count, list found not None):
        """Appends what is there now, up to `count` in all; true: more may come. What the list holds
        stays in hand, so that `_take_back` undoes it all."""
        self.enter()
        try:
            if not found:
                self.acknowledge()
            self.failure = None
            self.look_up()
            while len(found) < count and self.failure is None and self.find():
                self.take(self.current, found, count - len(found))
            self.current = self.cursor = None
            if self.failure is not None and not found:
                raise self.failure
            return len(found) < count and self.failure is None
        finally:
            self.failure = None
            self.leave()

    def _take_back(self):
        """What is in hand was never returned."""
        self.leave_current()
        self.take_back()

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
            if not lane.is_paused and not lane.is_held and self.fill(lane):
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
        if self.runner and self.runner != thread:
            raise errors.ConcurrentModificationError(
                "the consumer is in a run of another thread: from here, also from a handler, only "
                "wakeup() may be called; a handler that seeks, pauses or commits needs "
                "concurrency=1, or AsyncConsumer.run")
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
        cdef unsigned long thread = PyThread_get_thread_ident()
        if self.user and self.user != thread or self.runner and self.runner != thread:
            self.enter()    # says so
        return 0

    def _commit_now(self):
        """Commits positions, in hand or not, if nothing is in the way: else False, and `_commit`
        sees to it. Cost: 50 ns, and 5 for each partition that has not moved."""
        self.check_usable()
        return self.table is not None and not self.syncs_commits and not self.runner \
            and self.commit_lanes(True) is None

    def _be_in_run(self, bint is_begun):
        """A run has begun, or ended, in this thread: until then no other may do anything, and what
        was returned is not what is finished."""
        self.runner = PyThread_get_thread_ident() if is_begun else 0

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
        if deadline >= 0:
            if pl_monotonic_ms() >= deadline:
                return False
            until = min(until, deadline)
        self.prepare()
        self.waiter.wait_until(until)
        self.ticks = pl_ticks - 1    # look at the clock
        return True

    cdef int prepare(self) except -1:
        """The waiter, for lanes and words as they are."""
        cdef _Lane lane
        cdef int i = 0
        if self.waiter is None:
            self.waited = [lane for lane in self.lanes
                           if not (<_Lane>lane).is_paused and not (<_Lane>lane).is_held]
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
        return 0

    def _post(self, int event_fd):
        """Has a descriptor written to when there may be something. Returns after how many ms to
        look all the same; `_withdraw` before that and in any case."""
        self.prepare()
        self.posted = self.waiter
        self.post.wait = self.waiter.w
        self.post.event_fd = event_fd
        check(pl_post_set(&self.post))
        return max(0, self.turn_at_ms - pl_monotonic_ms())

    def _withdraw(self):
        pl_post_withdraw(&self.post)
        self.posted = None
        self.ticks = pl_ticks - 1    # look at the clock

    def __dealloc__(self):
        pl_post_withdraw(&self.post)

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
        self.ring_post()
        pl_wait_wake_own(bells)

    @property
    def _wakeups(self):
        """How often wakeup() was called."""
        return pl_load_word(&self.wakeups)

    def _forget_wakeups(self):
        pl_watched_look(&self.watched[0])

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
        self.ring_post()

    # -- the rest --

    @property
    def closed(self):
        """True after close()."""
        return self.is_shut

    def _check_alone(self):
        """Before a close: nobody is inside, and be it a callback."""
        self.enter()
        self.leave()

    def _shut(self):
        """No call is answered any more."""
        self.is_shut = True
        self.leave_current()
        self.lanes, self.held, self.by_partition = [], [], {}
        self.step = None
        self.change()
