"""Waiting for any of many logs, and for words that change, at once."""


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
cdef class Doorbells:
    """A broker's file of doorbells, by which who waits for anything of its hears of its topics."""

    cdef pl_bells *bells
    cdef uint64_t inode

    def __cinit__(self, path):
        cdef bytes name = os.fsencode(path)
        check(pl_bells_open(name, &self.bells, &self.inode))

    def __dealloc__(self):
        pl_bells_close(self.bells)

    @property
    def topics(self):
        """Another number after each change of the topics; a change is told after it is made."""
        return pl_load_word(&self.bells.bell[0].topics)

    def word(self):
        """`topics`, to be watched by a Fetcher."""
        cdef Word word = Word()
        word.word, word.owner = &self.bells.bell[0].topics, self
        word.bells, word.bells_inode = self.bells, self.inode
        return word

    def tell_topics(self):
        """They have changed. Wakes all who wait for anything in the broker."""
        pl_word_step(&self.bells.bell[0].topics)
        pl_bells_ring_all(self.bells)


@cython.final
cdef class Waiter:
    """Logs that are waited for together, again and again.

    Woken by the append itself where they share one file of doorbells, as the partitions of a broker
    do; else they are looked at every 20 ms. Cost: a look at each log (2 ns), one sleep for all.
    """

    cdef list handles
    cdef pl_wait w
    cdef pl_log **logs
    cdef int64_t *offsets
    cdef int64_t slices    # since something was found: who waits for long is woken seldom

    def __cinit__(self, logs):
        cdef Handle handle
        cdef int i = 0
        memset(&self.w, 0, sizeof(self.w))
        self.handles = list(logs)
        self.logs = <pl_log **>malloc((len(self.handles) + 1) * sizeof(pl_log *))
        self.w.maps = <pl_word **>malloc((len(self.handles) + 1) * sizeof(pl_word *))
        self.offsets = <int64_t *>malloc((len(self.handles) + 1) * sizeof(int64_t))
        if self.logs == NULL or self.w.maps == NULL or self.offsets == NULL:
            raise MemoryError()
        for handle in self.handles:
            handle.check_open()
            self.logs[i] = handle.log
            i += 1
        self.w.logs, self.w.offsets, self.w.log_count = self.logs, self.offsets, i

    def __dealloc__(self):
        free(self.logs)
        free(self.w.maps)
        free(self.offsets)

    def wait(self, offsets, timeout=None):
        """Waits until a log can be read past its offset: its index, or -1 after `timeout` s.

        offsets: one for each log. Ctrl-C works.
        """
        cdef Handle handle
        cdef int64_t deadline = take_deadline(timeout)
        cdef int i = 0
        if len(offsets) != self.w.log_count:
            raise ValueError(
                f"{len(offsets)} offsets for {self.w.log_count} logs: pass one for each")
        for handle, offset in zip(self.handles, offsets):
            handle.check_open()
            self.offsets[i] = handle.offset_of(offset)
            i += 1
        return self.wait_until(deadline)

    cdef int wait_until(self, int64_t deadline) except -2:
        """The index of a log, or behind them of a word; -1 at the deadline. Signals are heard."""
        cdef int64_t left
        cdef int found = -1, slice_ms
        cdef pl_status status
        self.enter()
        try:
            while True:
                self.slices += 1
                left = SLICE_MS if self.slices < 10 else IDLE_SLICE_MS
                if deadline >= 0:
                    left = min(left, max(0, deadline - pl_monotonic_ms()))
                slice_ms = <int>left
                with nogil:
                    status = pl_wait_any(&self.w, slice_ms, &found)
                if status == PL_OK:
                    self.slices = 0
                    if found < self.w.log_count:
                        (<Handle>self.handles[found]).check_open()
                    return found
                check(status)
                PyErr_CheckSignals()
                if deadline >= 0 and pl_monotonic_ms() >= deadline:
                    return -1
        finally:
            self.leave()

    cdef void enter(self) noexcept:
        cdef Handle handle
        for handle in self.handles:
            handle.enter()

    cdef void leave(self) noexcept:
        cdef Handle handle
        for handle in self.handles:
            handle.leave()
