"""Handle: an open log's lifetime, and how a call waits: errors, signals, a close, the time-out."""

cdef str describe(int thread):
    cdef char text[96]
    if thread == 0:
        return "somebody"
    pl_describe_thread(thread, text, sizeof(text))
    return (<bytes>text).decode()


cdef object process_of(int thread):
    cdef str text = describe(thread)
    return int(text.split()[1]) if text.startswith("pid ") else thread or None


cdef object open_timeout(bytes directory, int64_t timeout_ms):
    cdef object pid = flock_owner(directory + b"/lock")
    who = f"pid {pid}" if pid else "another process"
    return errors.PylogTimeoutError(
        f"{who} has been recovering or closing the log for {timeout_ms} ms; continue or kill that "
        f"process, then open again [{os.fsdecode(directory)}]",
        path=os.fsdecode(directory), timeout_ms=timeout_ms, holder_pid=pid)


cdef object flock_owner(bytes path):
    """The process that holds the exclusive flock, as /proc/locks says; None: it does not."""
    try:
        info = os.stat(path)
        with open("/proc/locks") as file:
            lines = file.read().splitlines()
    except OSError:
        return None
    inode = f"{os.major(info.st_dev):02x}:{os.minor(info.st_dev):02x}:{info.st_ino}"
    for words in map(str.split, lines):
        if words[1] == "FLOCK" and words[3] == "WRITE" and words[5] == inode:
            return int(words[4]) or None
    return None


def delete_log(bytes directory not None, bytes aside not None, int64_t timeout_ms):
    """Tells all who have the log in `directory` open that it is no more, and renames it to `aside`.

    Idempotent, and to be done again after a kill. Raises PylogTimeoutError while a stopped process
    is inside: nothing of it is taken away then.
    """
    cdef pl_status status
    cdef const char *source = directory
    cdef const char *target = aside
    deadline = pl_monotonic_ms() + timeout_ms
    while True:
        with nogil:
            status = pl_delete(source, target, SLICE_MS)
        check(status)
        if status == PL_OK:
            return
        PyErr_CheckSignals()
        if pl_monotonic_ms() >= deadline:
            raise errors.PylogTimeoutError(
                f"a process has been inside the log for {timeout_ms} ms, perhaps a stopped one; "
                f"continue or kill it, then delete again [{os.fsdecode(directory)}]",
                path=os.fsdecode(directory), timeout_ms=timeout_ms)


cdef class Handle:
    """An open log, without ways in or out.

    lock_timeout_ms: how long a call waits for a lock that a stopped process holds.
    """

    cdef pl_log *log
    cdef bint can_append, is_closing, waits_for_disk
    cdef int64_t users
    cdef readonly int64_t lock_timeout_ms
    cdef int codec
    cdef pl_cursor getter
    cdef bint is_getting
    cdef object topic, partition    # of which it is a part; None: a log alone
    cdef object __weakref__

    def __cinit__(self, *arguments, **keywords):
        self.log = NULL

    def _become_partition(self, str topic not None, int partition):
        """Its records say from now on where they come from."""
        self.topic = topic
        self.partition = partition

    def _set_codec(self, int codec):
        """What append_many compresses with from now on."""
        self.codec = codec

    def _open(self, bytes path, bint writable, int64_t durability, int64_t segment_bytes,
              int64_t max_message_bytes, int64_t append_time, int64_t index_interval_bytes,
              int64_t flush_interval_ms, int64_t lock_timeout_ms, int codec):
        cdef pl_options wanted
        cdef pl_log *log = NULL
        cdef pl_status status
        cdef const char *directory = path
        cdef int wait_ms = min(lock_timeout_ms, 2**31 - 1)
        cdef int slice_ms = 0    # a writer's open waits at least 100 ms by itself
        if self.log != NULL:
            raise errors.IllegalStateError("this object is open already: make a new one")
        wanted.durability = durability
        wanted.segment_bytes = segment_bytes
        wanted.max_message_bytes = max_message_bytes
        wanted.append_time = append_time
        wanted.index_interval_bytes = index_interval_bytes
        wanted.flush_interval_ms = flush_interval_ms
        if not writable:    # waits in slices, then takes what the files tell
            slice_ms, wait_ms = SLICE_MS, READER_OPEN_MS
        deadline = pl_monotonic_ms() + wait_ms
        while True:
            with nogil:
                status = pl_log_open(directory, writable, &wanted, slice_ms, &log)
            if status != PL_ERR_TIMEOUT:
                break
            PyErr_CheckSignals()
            if pl_monotonic_ms() < deadline:
                continue
            if writable:
                raise open_timeout(path, lock_timeout_ms)
            slice_ms = 0
        check(status)
        self.log = log
        self.can_append = writable
        self.waits_for_disk = log.options.durability == PL_DURABILITY_FSYNC
        self.lock_timeout_ms = lock_timeout_ms
        self.codec = codec
        pl_cursor_init(&self.getter, log, 0)

    def __dealloc__(self):
        if self.log != NULL:
            pl_cursor_release(&self.getter)
            pl_log_close(self.log)
            pl_log_free(self.log)

    cdef int64_t decompressed_max(self) noexcept:
        """What a batch may become, as the options are now: a reader never takes them over."""
        cdef pl_options options = self.log.options
        if not self.log.is_private and not pl_page_get_options(self.log.page, &options):
            return DECOMPRESSED_MAX    # damaged, or altered twice meanwhile
        return min(max(options.max_message_bytes * 64, DECOMPRESSED_LEAST), DECOMPRESSED_MAX)

    cdef int check_open(self) except -1:
        if self.log == NULL or self.is_closing or self.log.is_closed:
            raise errors.ClosedError("the log is closed; open it again")
        if self.log.fork_generation != pl_forks:
            raise errors.IllegalStateError("opened before fork: open again")
        if pl_log_is_deleted(self.log):
            raise deleted(self.log.directory)
        return 0

    cdef int check(self, pl_status status) except -1:
        """As the gate; whatever failed in a log that was deleted meanwhile, that is why."""
        if status < 0 and pl_log_is_deleted(self.log):
            raise deleted(self.log.directory)
        return check(status)

    cdef int check_writable(self) except -1:
        self.check_open()
        if not self.can_append:
            raise errors.ReadOnlyLogError(
                "the log was opened with mode='r'; open it with mode='a' to append")
        return 0

    cdef int64_t offset_of(self, object offset) except? -1:
        """An offset as users pass it; whether it is one of the log's shows where it is used."""
        cdef int64_t taken
        if not take_int(offset, "an offset", &taken):
            raise self.out_of_range(offset)
        return taken

    cdef object out_of_range(self, object offset):
        self.check_open()
        start, end = self.log.page.log_start, pl_log_readable(self.log)
        return errors.OffsetOutOfRangeError(
            f"offset {offset} is not within [{start}, {end}]; seek to one of those",
            offset=int(offset), start_offset=start, end_offset=end)

    cdef void enter(self) noexcept:
        self.users += 1

    cdef void leave(self) noexcept:
        self.users -= 1

    def close(self):
        """Seals the open batch, flushes as the durability says; the last closer leaves a tidy log.

        Idempotent. Chunks, records and views handed out stay valid. Waits end with ClosedError.
        Cost: the last closer trims a segment and writes its indexes; a flush, if not "os". Raises
        DurabilityError, or DiskFullError and LogError where the open batch could not be sealed: the
        log is closed all the same, and the next to open it makes it tidy.
        """
        cdef pl_status status
        if self.log == NULL or self.log.is_closed:
            return
        self.is_closing = True  # what other threads look at between two waits
        self.can_append = False
        deadline = pl_monotonic_ms() + 1000
        pl_end_waits(self.log)
        while self.users and pl_monotonic_ms() < deadline:
            with nogil:
                pl_sleep_ms(1)
        with nogil:
            status = pl_log_close(self.log)
        if self.users == 0:    # with the GIL in hand nobody is inside
            pl_cursor_release(&self.getter)
            pl_log_let_go(self.log)
        check(status)

    cdef int after_slice(self, pl_status status, int64_t deadline,
                         str advice="append again: nothing was appended") except -1:
        """Between two waits: errors, signals, a close, the time-out."""
        self.check(status)
        PyErr_CheckSignals()
        self.check_open()
        if pl_monotonic_ms() >= deadline:
            raise self.lock_timeout(advice)
        return 0

    cdef tuple holder(self):
        """The lock that is held and its owner, a stopped one first: others are on their way."""
        cdef pl_page *page = self.log.page
        held = [("flush", pl_lock_owner(&page.flush_lock)),
                ("append", pl_slot_owner(&page.append_lock)),
                ("maintenance", pl_lock_owner(&page.maintenance_lock))]
        for what, owner in held:
            if "state T" in describe(owner):
                return what, owner
        return held[1] if held[1][1] else held[2]

    cdef object lock_timeout(self, str advice):
        what, owner = self.holder()
        return errors.PylogTimeoutError(
            f"the {what} lock has been held by {describe(owner)} for {self.lock_timeout_ms} ms; "
            f"continue or kill that process, then {advice}",
            timeout_ms=self.lock_timeout_ms, holder_pid=process_of(owner))
