"""Shares: the leases of several partitions, taken from in turn, and the wait for more of them."""

DEF GRANTS = 512


@cython.final
@cython.no_gc    # what it waits on has to outlive it
cdef class _ShareWatch:
    """What a thread, or an event loop, waits on where there are several partitions, or none."""

    cdef list leases
    cdef pl_wait w
    cdef pl_log **logs
    cdef int64_t *offsets
    cdef pl_watched *watched
    cdef pl_post post

    def __cinit__(self, Shares owner not None, list leases not None):
        cdef Py_ssize_t i, count = len(leases)
        cdef Leases one
        self.leases = leases
        self.logs = <pl_log **>calloc(count + 1, sizeof(pl_log *))
        self.offsets = <int64_t *>calloc(count + 1, sizeof(int64_t))
        self.watched = <pl_watched *>calloc(count + 2, sizeof(pl_watched))
        self.w.maps = <pl_word **>calloc(count + 1, sizeof(pl_word *))
        if self.logs == NULL or self.offsets == NULL or self.watched == NULL or \
                self.w.maps == NULL:
            raise MemoryError()
        self.w.logs, self.w.offsets, self.w.watched = self.logs, self.offsets, self.watched
        self.w.log_count, self.w.watched_count = <int>count, <int>count + (2 if count else 1)
        self.watched[0].word = &owner.wakeups
        for i in range(count):
            one = <Leases>leases[i]
            self.logs[i] = one.log.log
            self.watched[i + 2].word = &one.c.file.changes
        if count:
            one = <Leases>leases[0]
            self.watched[1].word = &one.processes.c.file.deaths
            self.watched[1].seen = pl_load_word(&one.processes.c.file.deaths)
            self.w.bells, self.w.bells_inode = one.processes.c.bells, one.processes.c.bells_inode

    def __dealloc__(self):
        pl_post_withdraw(&self.post)
        free(self.logs)
        free(self.offsets)
        free(self.watched)
        free(self.w.maps)

    cdef int prepare(self, int64_t most_ms, uint64_t wakeups_seen) noexcept:
        """What is waited for now, and for how long at most."""
        cdef Leases leases
        cdef int64_t look_ms, now_ms = pl_monotonic_ms()
        cdef uint64_t deaths
        cdef Py_ssize_t i
        self.watched[0].seen = wakeups_seen
        for i in range(len(self.leases)):
            leases = <Leases>self.leases[i]
            self.watched[i + 2].seen = leases.changes
            deaths = leases.c.file.deaths    # as that ring has seen them
            if i == 0 or deaths != pl_load_word(self.watched[1].word):
                self.watched[1].seen = deaths
            self.offsets[i] = leases.c.file.next_offset
            if leases.c.file.last - leases.c.file.first >= PL_LEASES:
                self.offsets[i] = 2 ** 63 - 2    # full: no append helps
            look_ms = pl_leases_next_look(leases.c)
            if look_ms != 2 ** 63 - 1:
                most_ms = min(most_ms, max(0, look_ms - now_ms))
        return <int>most_ms


cdef class Shares:
    """The native half of pylog.ShareConsumer: what is called often."""

    cdef list leases
    cdef Py_ssize_t number     # whose turn it was
    cdef int64_t lock_ms, most_deliveries
    cdef bint looks_at_headers # those that have some are shown to `_accepts`
    cdef object convert        # makes of a record what is delivered; None: nothing
    cdef bint is_shut
    cdef unsigned forks
    cdef pl_word wakeups
    cdef uint64_t wakeups_seen
    cdef _ShareWatch spare      # of the thread that waited last
    cdef _ShareWatch posted     # what an event loop waits on
    cdef object __weakref__

    def __cinit__(self, *arguments, **keywords):
        self.leases = []
        self.forks = pl_forks
        self.lock_ms = 30000
        self.number = -1

    def __reduce__(self):
        raise TypeError("a share consumer cannot be pickled; make one in the other process")

    def _configure(self, int64_t lock_ms, int64_t most_deliveries, bint looks_at_headers, convert):
        self.lock_ms, self.most_deliveries = lock_ms, most_deliveries
        self.looks_at_headers, self.convert = looks_at_headers, convert

    def _use(self, list leases not None):
        """Takes from these from now on."""
        self.ring()
        self.leases, self.number = leases, -1

    cdef int check_usable(self) except -1:
        if self.is_shut:
            raise errors.ClosedError("the share consumer is closed; make another")
        if self.forks != pl_forks:
            raise errors.IllegalStateError("opened before fork: open again")
        if not self.leases:
            raise self._nothing_to_take()
        if self.wakeups_seen != pl_load_word(&self.wakeups):
            self.wakeups_seen = pl_load_word(&self.wakeups)
            raise errors.WakeupError("wakeup() was called")
        return 0

    # -- taking --

    cdef Delivery deliver(self, Leases leases, pl_grant *grant):
        """None: it is not to be delivered, and was settled, or is not ours any more."""
        cdef Delivery delivery
        cdef object record
        try:
            record = leases.record_of(grant)
        except errors.PylogError:    # a later reading may succeed
            leases.settle(grant.index, grant.token, PL_SETTLE_GIVE_BACK
                          if grant.deliveries < self.most_deliveries else PL_SETTLE_REJECT, 0)
            raise
        if record is None:
            return None
        delivery = Delivery.__new__(Delivery)
        delivery.leases, delivery.owner, delivery.record = leases, self, record
        delivery.index, delivery.token = grant.index, grant.token
        delivery.delivery_count = grant.deliveries
        try:
            return delivery if self.is_wanted(delivery, grant) else None
        except errors.InvalidRecordStateError:
            if delivery.is_settled or delivery.held:    # it is about something else
                raise
            return None    # we were stopped for longer than its lock, and another may have it

    cdef bint is_wanted(self, Delivery delivery, pl_grant *grant) except -1:
        """False: it is not to be delivered, and was settled."""
        if grant.due_ms:
            self._displace(delivery, grant.due_ms)
            return False
        if grant.deliveries > self.most_deliveries:
            delivery.delivery_count -= 1    # this time nobody gets it
            self._give_up(delivery)
            return False
        if self.looks_at_headers and has_headers(<Record>delivery.record) \
                and not self._accepts(delivery):
            return False
        if self.convert is not None:
            try:
                delivery.record = self.convert(delivery.record)
            except errors.SerdeError as error:
                self._reject(delivery, error)
                return False
        return True

    cdef int collect(self, Leases leases, int64_t count, list out, bint listens) except -1:
        """Takes up to `count` from one; how many there were, be they delivered or not."""
        cdef pl_grant grants[GRANTS]
        cdef int64_t taken = 0, i = 0
        cdef Delivery delivery
        try:
            try:
                taken = leases.take(min(count, GRANTS), self.lock_ms, grants)
            finally:
                if listens:    # the next one hears of what comes, whatever we do now
                    pl_leases_unlisten(leases.c)
            while i < taken:
                i += 1
                delivery = self.deliver(leases, &grants[i - 1])
                if delivery is not None:
                    out.append(delivery)
        except BaseException:
            while i < taken:    # those behind it never came to anybody
                leases.settle(grants[i].index, grants[i].token, PL_SETTLE_RETURN, 0)
                i += 1
            for delivery in out:    # nor did those before it, and its failure is not theirs
                delivery.undo()
            raise
        return taken

    def _take_now(self, int64_t count):
        """A list of up to `count` deliveries, [] when nothing is ready."""
        cdef list out = []
        self.check_usable()
        self.take_round(count, out)
        return out

    cdef int take_round(self, int64_t count, list out) except -1:
        """From each in turn; what is taken and turns out to be nothing to deliver is followed by
        more."""
        cdef Py_ssize_t idle = 0
        cdef Leases leases
        while idle < len(self.leases) and len(out) < count:
            self.number = (self.number + 1) % len(self.leases)
            leases = <Leases>self.leases[self.number]
            if self.collect(leases, count - len(out), out, False):
                idle = 0
            else:
                idle += 1
        return 0

    def _take(self, int64_t count, timeout):
        """As `_take_now`, but waits for the first for `timeout` seconds; None: for ever."""
        cdef int64_t deadline
        cdef list out = []
        cdef Leases only
        cdef bint listens
        self.check_usable()
        only = <Leases>self.leases[0] if len(self.leases) == 1 else None
        if only is not None:
            self.collect(only, count, out, False)
        else:
            self.take_round(count, out)
        if out:
            return out
        deadline = take_deadline(timeout)
        while True:
            listens = self.wait(only, deadline)
            if listens:
                self.collect(only, count, out, True)
                if out:
                    return out
            self.check_usable()
            self._turn()
            self.take_round(count, out)
            only = <Leases>self.leases[0] if len(self.leases) == 1 else None
            if out or deadline >= 0 and pl_monotonic_ms() >= deadline:
                return out

    def _take_one(self, timeout):
        """The next delivery; None after `timeout` seconds."""
        cdef pl_grant grant
        cdef Delivery delivery
        cdef list found
        if len(self.leases) == 1:
            self.check_usable()
            if (<Leases>self.leases[0]).take(1, self.lock_ms, &grant):
                delivery = self.deliver(<Leases>self.leases[0], &grant)
                if delivery is not None:
                    return delivery
        found = self._take(1, timeout)
        return found[0] if found else None

    cdef bint wait(self, Leases only, int64_t deadline) except -1:
        """Until something may be ready. True: we are the listener, and have to let the next one
        listen when we took what there is."""
        cdef int64_t left = SLICE_MS * 5
        cdef list every = self.leases    # whatever another thread subscribes to meanwhile
        cdef _ShareWatch watch = None
        cdef int slice_ms, found
        cdef pl_status status
        cdef Leases leases
        if deadline >= 0:
            left = min(left, max(0, deadline - pl_monotonic_ms()))
        slice_ms = <int>left
        for leases in every:
            leases.log.enter()
        try:
            if only is not None:
                with nogil:
                    status = pl_leases_listen(only.c, only.changes, &self.wakeups,
                                              self.wakeups_seen, slice_ms)
            else:
                watch = self.watch()
                slice_ms = watch.prepare(slice_ms, self.wakeups_seen)
                with nogil:
                    status = pl_wait_any(&watch.w, slice_ms, &found)
                self.spare = watch
        finally:
            for leases in every:
                leases.log.leave()
        if status == PL_OK and only is not None:
            return True
        check(status)
        PyErr_CheckSignals()
        return False

    cdef _ShareWatch watch(self):
        """One for us alone."""
        cdef _ShareWatch found = self.spare
        self.spare = None
        if found is None or found.leases is not self.leases:
            found = _ShareWatch(self, self.leases)
        return found

    def _post(self, int event_fd, int64_t most_ms):
        """Has a descriptor written to when there may be something. Returns after how many ms to
        look all the same; `_withdraw` before that and in any case."""
        self.posted = self.watch()
        most_ms = self.posted.prepare(most_ms, self.wakeups_seen)
        self.posted.post.wait = self.posted.w
        self.posted.post.event_fd = event_fd
        check(pl_post_set(&self.posted.post))
        return most_ms

    def _withdraw(self):
        if self.posted is not None:
            pl_post_withdraw(&self.posted.post)
            self.spare, self.posted = self.posted, None

    cdef int ring(self) except -1:
        """Whoever waits in an event loop looks again."""
        if self.posted is not None:
            pl_post_ring(&self.posted.post)
        return 0

    def wakeup(self):
        """Ends the wait of the thread that is inside, or the next call, with WakeupError."""
        pl_word_step(&self.wakeups)
        if self.leases:
            pl_bells_ring_all((<Leases>self.leases[0]).processes.c.bells)

    @property
    def closed(self):
        """True after close()."""
        return self.is_shut

    def _shut(self):
        """No call is answered any more."""
        self.is_shut = True
        self.ring()
        self.wakeup()
        for leases in self.leases:
            leases.close()


cdef bint has_headers(Record record) except -1:
    cdef pl_record_fields fields
    split(record, &fields)
    return fields.headers_size > 1
