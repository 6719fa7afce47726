"""Processes: who lives. Table: what the members of a group share; who owns what; what is committed.

csrc/pl_process.h and csrc/pl_table.h say what is in the files.
"""

TABLE_TEXT_MAX = PL_TABLE_TEXT_MAX
TABLE_NAME_MAX = PL_TABLE_NAME_MAX

DEF LOCK_TIMEOUT_MS = 10000    # only a stopped process holds a lock of a table for long


def table_layout():
    """The compiled offsets of a table's header, of a slot, and of an entry, by field."""
    return {
        "identity": 0, "name": TABLE_NAME, "generation": TABLE_GENERATION,
        "changes": TABLE_CHANGES, "commits": TABLE_COMMITS, "nextOwner": TABLE_NEXT_OWNER,
        "lock": TABLE_LOCK, "slotCount": TABLE_SLOT_COUNT, "size": TABLE_SIZE,
        "documents": TABLE_DOCUMENTS, "extents": TABLE_EXTENTS,
    }, {
        "lock": SLOT_LOCK, "number": SLOT_NUMBER, "owner": SLOT_OWNER,
        "ownerNonce": SLOT_OWNER_NONCE, "ownerProcess": SLOT_OWNER_PROCESS,
        "nameSize": SLOT_NAME_SIZE, "current": SLOT_CURRENT, "name": SLOT_NAME,
        "nameCheck": SLOT_NAME_CHECK, "entries": SLOT_ENTRIES,
    }, {
        "crc": ENTRY_CRC, "textSize": ENTRY_TEXT_SIZE, "flags": ENTRY_FLAGS,
        "sequence": ENTRY_SEQUENCE, "offset": ENTRY_OFFSET, "time": ENTRY_TIME,
        "incarnation": ENTRY_INCARNATION, "leaderEpoch": ENTRY_LEADER_EPOCH, "text": ENTRY_TEXT,
    }


cdef object table_timeout(str what):
    return errors.PylogTimeoutError(
        f"a process that is stopped has been holding the lock of {what} for {LOCK_TIMEOUT_MS} ms; "
        "continue or kill it, then try again", timeout_ms=LOCK_TIMEOUT_MS)


@cython.final
cdef class Processes:
    """The processes that take part in a broker: a slot each, which the kernel frees at a death.

    A process is named by the index of its slot and a nonce. `join` makes this one take part until
    `close`; it starts a native thread. Raises ResourceLimitError, UnsupportedEnvironmentError (in
    use in another PID namespace).
    """

    cdef pl_processes *c
    cdef bint is_closed    # and mapped still: a Word may be looking
    cdef object door       # one thread at a time comes or goes

    def __cinit__(self, path, doorbells):
        self.door = threading.Lock()
        cdef bytes name = os.fsencode(path), bells = os.fsencode(doorbells)
        cdef const char *name_bytes = name
        cdef const char *bells_bytes = bells
        cdef pl_status status
        with nogil:
            status = pl_processes_open(name_bytes, bells_bytes, &self.c)
        check(status)

    def __dealloc__(self):
        if self.c != NULL:
            with nogil:
                pl_processes_close(self.c)

    cdef int check_open(self) except -1:
        if self.c == NULL or self.is_closed:
            raise errors.ClosedError("the broker is closed; open it again")
        if self.c.fork_generation != pl_forks:
            raise errors.IllegalStateError("opened before fork: open again")
        return 0

    def join(self):
        """Takes part from now on; idempotent. Cost: a thread, once."""
        cdef pl_status status
        self.check_open()    # before the door: in a forked child nobody may open it
        with self.door:
            self.check_open()
            with nogil:
                status = pl_processes_join(self.c)
            check(status)

    def close(self):
        """Leaves: what belongs to this process is free for others. Idempotent."""
        cdef pl_processes *c = self.c
        if self.is_closed:
            return
        if c.fork_generation != pl_forks:
            self.is_closed = True
            pl_processes_leave(c)    # nothing of this process
            return
        with self.door:
            if not self.is_closed:
                self.is_closed = True
                with nogil:
                    pl_processes_leave(c)

    @property
    def me(self):
        """(slot, nonce) of this process; None before `join`."""
        self.check_open()
        return None if self.c.slot < 0 else (self.c.slot, self.c.nonce)

    @property
    def deaths(self):
        """Counts deaths and departures: when it moves, look who is missing."""
        self.check_open()
        return pl_load_word(&self.c.file.deaths)

    def is_alive(self, int slot, uint64_t nonce):
        """Whether the process that had this slot and nonce lives. Cost: two loads."""
        self.check_open()
        return pl_process_is_alive(self.c, slot, nonce)

    def pid_of(self, int slot, uint64_t nonce):
        """The process id; None when it is dead."""
        self.check_open()
        if not pl_process_is_alive(self.c, slot, nonce):
            return None
        return pl_load_word32(&self.c.file.slots[slot].pid)

    def silence_ms(self, int slot):
        """How long the process in a slot has been stopped, to the beat that `ask_beats` asks."""
        self.check_open()
        if not 0 <= slot < PL_PROCESSES_MAX:
            raise errors.ConfigurationError(f"there is no slot {slot}", option="slot", value=slot)
        return pl_process_silence_ms(self.c, slot)

    def ask_beats(self, uint32_t every_ms):
        """All processes show a sign of life at least this often from now on."""
        self.check_open()
        pl_processes_ask_beats(self.c, every_ms)

    def word(self):
        """`deaths`, to be watched by a Fetcher."""
        self.check_open()
        return self.word_at(&self.c.file.deaths, self)

    cdef Word word_at(self, const pl_word *place, object owner):
        cdef Word word = Word()
        word.word, word.owner = place, owner
        word.bells, word.bells_inode = self.c.bells, self.c.bells_inode
        return word

    def ring(self):
        """Wakes all who wait for anything in this broker."""
        self.check_open()
        pl_bells_ring_all(self.c.bells)


@cython.final
cdef class Table:
    """The table of a group or of claims, in a file that all processes map.

    Its document is bytes, changed by compare-and-swap on its generation. Its slots are named
    (name, number), found once and then used by index. A slot has an owner, a number from
    `new_owner`, and an entry: what was committed. Raises CorruptRecordError, DiskFullError,
    ResourceLimitError, PylogTimeoutError (a stopped process holds a lock).
    """

    cdef pl_table *c
    cdef Processes processes
    cdef bint is_closed    # and mapped still, as Processes

    def __cinit__(self, path, str name not None, Processes processes not None):
        cdef bytes at = os.fsencode(path), encoded = name.encode()
        cdef pl_status status
        cdef const char *path_bytes = at
        cdef const char *name_bytes = encoded
        processes.check_open()
        self.processes = processes
        with nogil:
            status = pl_table_open(path_bytes, name_bytes, &self.c)
        check(status)

    def __dealloc__(self):
        if self.c != NULL:
            pl_table_close(self.c)

    cdef int check_open(self) except -1:
        if self.c == NULL or self.is_closed:
            raise errors.ClosedError("the broker is closed; open it again")
        if self.c.fork_generation != pl_forks:
            raise errors.IllegalStateError("opened before fork: open again")
        return 0

    cdef int check_index(self, int index) except -1:
        self.check_open()
        if not 0 <= index < <int>pl_load_word32(&self.c.file.slot_count):
            raise errors.ConfigurationError(f"the table has no slot {index}", option="index",
                                            value=index)
        return 0

    cdef int after_slice(self, pl_status status, int64_t deadline) except -1:
        check(status)
        PyErr_CheckSignals()
        self.check_open()
        if pl_monotonic_ms() >= deadline:
            raise table_timeout(repr(self.name))
        return 0

    def close(self):
        """Idempotent."""
        if not self.is_closed:
            self.is_closed = True
            pl_table_let_go(self.c)

    def remove(self):
        """Removes the file and closes; False when another process has it open."""
        self.check_open()
        cdef pl_status status = pl_table_remove(self.c)
        check(status)
        if status == PL_OK:
            self.close()
        return status == PL_OK

    def sync(self):
        """What was committed is on disk when it returns. Cost: fdatasync."""
        cdef pl_status status
        self.check_open()
        with nogil:
            status = pl_table_sync(self.c)
        check(status)

    @property
    def name(self):
        """As it was given when the file was made."""
        self.check_open()
        return (<bytes>self.c.file.name).decode()

    @property
    def generation(self):
        """Of the document."""
        self.check_open()
        return pl_load_word(&self.c.file.generation)

    @property
    def changes(self):
        """Moves with each new document and each new owner."""
        self.check_open()
        return pl_load_word(&self.c.file.changes)

    def word(self):
        """`changes`, to be watched by a Fetcher."""
        self.check_open()
        self.processes.check_open()
        return self.processes.word_at(&self.c.file.changes, self)

    @property
    def commits(self):
        """How many there were since the file was made."""
        self.check_open()
        return pl_load_word(&self.c.file.commits)

    def read(self):
        """(generation, document). Cost: a copy and its CRC."""
        cdef size_t capacity = 4096, size = 0
        cdef uint64_t generation = 0
        cdef pl_status status
        cdef int64_t deadline = pl_monotonic_ms() + LOCK_TIMEOUT_MS
        self.check_open()
        while True:
            document = PyBytes_FromStringAndSize(NULL, capacity)
            status = pl_table_read(self.c, PyBytes_AS_STRING(document), capacity, &size,
                                   &generation)
            if status == PL_OK and size <= capacity:
                return generation, document[:size]
            if status == PL_OK:
                capacity = size
            self.after_slice(status, deadline)

    def publish(self, uint64_t generation, bytes document not None):
        """The document of the next generation; False when it is not `generation` any more."""
        cdef pl_status status
        cdef int64_t deadline = pl_monotonic_ms() + LOCK_TIMEOUT_MS
        cdef const char *data = document
        cdef size_t size = len(document)
        self.check_open()
        while True:
            with nogil:
                status = pl_table_publish(self.c, generation, data, size, SLICE_MS)
            if status == PL_OK:
                self.processes.ring()
            if status == PL_OK or status == PL_END:
                return status == PL_OK
            self.after_slice(status, deadline)

    def find(self, str name not None, int32_t number=0, bint make=True):
        """The index of a slot; None when there is none and none is to be made."""
        cdef pl_status status
        cdef int64_t deadline = pl_monotonic_ms() + LOCK_TIMEOUT_MS
        cdef bytes encoded = name.encode()
        cdef const char *data = encoded
        cdef size_t size = len(encoded)
        cdef int index = -1
        self.check_open()
        while True:
            with nogil:
                status = pl_table_find(self.c, data, size, number, make, SLICE_MS, &index)
            if status == PL_OK:
                return None if index < 0 else index
            self.after_slice(status, deadline)

    def slots(self):
        """[(name, number)] by index."""
        cdef pl_table_slot *slot
        cdef int i
        self.check_open()
        found = []
        for i in range(<int>pl_load_word32(&self.c.file.slot_count)):
            slot = pl_table_at(self.c, i)
            size = min(slot.name_size, <uint32_t>PL_TABLE_NAME_MAX)
            found.append((slot.name[:size].decode("utf-8", "replace"), slot.number))
        return found

    def new_owner(self):
        """A number that no other owner of a slot of this table ever had or will have."""
        self.check_open()
        return pl_table_new_owner(self.c)

    def own(self, int index, uint64_t was, uint64_t now, uint64_t generation=0):
        """Gives a slot from owner `was` to `now`, of this process; 0: nobody.

        False when `was` is not its owner, or the generation, unless 0, is another.
        """
        cdef pl_status status
        cdef pl_owner owner
        cdef int64_t deadline = pl_monotonic_ms() + LOCK_TIMEOUT_MS
        self.check_index(index)
        self.processes.check_open()
        owner.id, owner.process, owner.nonce = now, -1, 0
        if now:
            owner.process, owner.nonce = self.processes.c.slot, self.processes.c.nonce
        while True:
            with nogil:
                status = pl_table_own(self.c, index, was, &owner, generation, SLICE_MS)
            if status == PL_OK:
                self.processes.ring()
            if status == PL_OK or status == PL_END:
                return status == PL_OK
            self.after_slice(status, deadline)

    def owner(self, int index):
        """(owner, process slot, nonce); owner 0: nobody."""
        cdef pl_entry entry
        cdef pl_owner owner
        self.get_slot(index, &entry, &owner)
        return owner.id, owner.process, owner.nonce

    cdef int get_slot(self, int index, pl_entry *entry, pl_owner *owner) except -1:
        cdef pl_status status
        cdef int64_t deadline = pl_monotonic_ms() + LOCK_TIMEOUT_MS
        self.check_index(index)
        while True:
            with nogil:
                status = pl_table_get(self.c, index, entry, owner, SLICE_MS)
            if status == PL_OK:
                return 0
            self.after_slice(status, deadline)

    def get(self, int index):
        """(offset, text, leader_epoch, incarnation, ms since the epoch); None: nothing yet."""
        cdef pl_entry entry
        cdef pl_owner owner
        self.get_slot(index, &entry, &owner)
        if not entry.sequence:
            return None
        return (entry.offset, entry.text[:entry.text_size].decode("utf-8", "replace"),
                entry.leader_epoch, entry.incarnation, entry.time_ms)

    def commit(self, int index, uint64_t owner, uint64_t generation, int64_t offset,
               bytes text=b"", int32_t leader_epoch=-1, uint64_t incarnation=0):
        """True: committed. False: `owner` does not own the slot. None: another generation.

        Cost: 40 ns; no system call.
        """
        cdef pl_entry entry
        cdef size_t size = len(text)
        if size > PL_TABLE_TEXT_MAX:
            raise errors.ConfigurationError(
                f"the metadata of a commit has {size} bytes; use {PL_TABLE_TEXT_MAX} at most",
                option="metadata", value=size)
        self.check_index(index)
        entry.offset = offset
        entry.leader_epoch = leader_epoch
        entry.incarnation = incarnation
        entry.text_size = <uint16_t>size
        memcpy(entry.text, PyBytes_AS_STRING(text), size)
        cdef pl_status status = self.commit_entry(index, owner, generation, &entry)
        return True if status == PL_OK else None if status == PL_NOT_READY else False

    cdef pl_status commit_entry(self, int index, uint64_t owner, uint64_t generation,
                                pl_entry *entry) except? -100:
        cdef pl_status status = pl_table_commit(self.c, index, owner, generation, entry, 0)
        cdef int64_t deadline
        if status == PL_BUSY:
            deadline = pl_monotonic_ms() + LOCK_TIMEOUT_MS
            while status == PL_BUSY:
                with nogil:
                    status = pl_table_commit(self.c, index, owner, generation, entry, SLICE_MS)
                if status == PL_BUSY:
                    self.after_slice(status, deadline)
        return status

    def wait(self, uint64_t changes, uint64_t deaths, timeout=None):
        """Waits until `changes` or the processes' `deaths` is another; False after `timeout` s.

        Cost: none while it sleeps. Ctrl-C works.
        """
        cdef int64_t deadline = take_deadline(timeout), left
        cdef uint32_t seen
        cdef int slice_ms
        cdef pl_bells *bells
        while True:
            self.check_open()
            self.processes.check_open()
            bells = self.processes.c.bells
            seen = pl_bells_announce(bells, NULL, 0)
            if pl_load_word(&self.c.file.changes) != changes \
                    or pl_load_word(&self.processes.c.file.deaths) != deaths:
                return True
            left = IDLE_SLICE_MS
            if deadline >= 0:
                left = min(left, deadline - pl_monotonic_ms())
                if left <= 0:
                    return False
            slice_ms = <int>left
            with nogil:
                pl_bells_sleep(bells, seen, slice_ms)
            PyErr_CheckSignals()

    def forget(self, int index):
        """As if nothing had been committed; False when somebody owns the slot."""
        cdef pl_status status
        cdef int64_t deadline = pl_monotonic_ms() + LOCK_TIMEOUT_MS
        self.check_index(index)
        while True:
            with nogil:
                status = pl_table_forget(self.c, index, SLICE_MS)
            if status == PL_OK or status == PL_END:
                return status == PL_OK
            self.after_slice(status, deadline)
