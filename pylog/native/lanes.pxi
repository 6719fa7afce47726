"""Lanes: the partitions that a consumer reads, how far each is finished, what is committed of it.

What was returned last is *in hand*. Who asks for more says that it is finished, so nothing is noted
a record: a partition is finished up to the first record in hand, or else up to where it stands.
"""


@cython.final
cdef class _Lane:
    """A partition that is read."""

    cdef Cursor cursor
    cdef object partition
    cdef bint is_paused
    cdef bint is_held          # as is_paused, by a run or a look at others, not by the user
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


cdef class Lanes:
    """The partitions of a Fetcher."""

    cdef list lanes            # in the order of their turns
    cdef dict by_partition
    cdef Py_ssize_t number     # whose turn it was; -1: nobody's yet
    cdef _Lane current         # of the iteration; None: none
    cdef Cursor cursor         # its
    cdef bint has_iterated     # what is in hand is the record before the cursor's
    cdef object only           # the partitions that are looked at; None: all
    cdef list held             # lanes that have some of a list in hand
    cdef bint skips_corrupt
    cdef int64_t records_before, damage_before   # by lanes that are gone
    cdef Table table           # of the group; None: there is none
    cdef bint syncs_commits    # each waits for the disk
    cdef uint64_t owner, generation    # who we are in the group, and what we have seen of it
    cdef Waiter waiter         # for the lanes as they are; None: they have changed
    cdef pl_post post          # of a wait in an event loop

    def __cinit__(self, *arguments, **keywords):
        self.lanes, self.held, self.by_partition = [], [], {}
        self.number = -1

    # -- which there are --

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
        lane.is_held = self.only is not None and partition not in self.only
        lane.held = lane.committed = -1
        if self.table is not None:
            lane.slot = self.table.find(partition[0], partition[1])
        self.leave_current()
        self.by_partition[partition] = lane
        self.lanes.append(lane)
        self.change()

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
        self.number = max(self.number - 1, -1)
        self.change()

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
        self.ring_post()

    def _pause(self, partition, bint is_paused):
        cdef _Lane lane = self.lane_of(partition)
        self.leave_current()
        lane.is_paused = is_paused
        self.change()

    def _hold(self, partition, bint is_held):
        """As `_pause`, for a run whose handlers have enough to do."""
        cdef _Lane lane = self.lane_of(partition)
        self.leave_current()
        lane.is_held = is_held
        self.change()

    def _confine(self, only):
        """Holds all but these partitions, those too that come meanwhile; None: holds none."""
        cdef _Lane lane
        self.leave_current()
        self.only = only
        for lane in self.lanes:
            lane.is_held = only is not None and lane.partition not in only
        self.change()

    def _is_paused(self, partition):
        return self.lane_of(partition).is_paused

    def _paused(self):
        return [(<_Lane>lane).partition for lane in self.lanes if (<_Lane>lane).is_paused]

    cdef void change(self) noexcept:
        """What is waited for is another now."""
        self.waiter = None
        self.ring_post()

    cdef void ring_post(self) noexcept:
        """Whoever waits in an event loop looks again."""
        if self.post.is_set:
            pl_post_ring(&self.post)

    def _counted(self):
        """(records returned, times that damage was stepped over)."""
        cdef _Lane lane
        cdef int64_t records = self.records_before, damage = self.damage_before
        for lane in self.lanes:
            records += lane.cursor.handed - (lane.cursor.filled - lane.cursor.at)
            damage += lane.cursor.skipped
        return records, damage

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

    def _use_group(self, Table table not None, bint syncs):
        """What is committed goes there from now on, and what happens there is heard of."""
        self.table, self.syncs_commits = table, syncs
        self._watch(table.word())
        self._watch(table.processes.word())

    def _be_member(self, uint64_t owner, uint64_t generation):
        """Who commits; owner 0: nobody, which is right where partitions are assigned by hand."""
        self.owner, self.generation = owner, generation

    def _commit_lanes(self, bint with_hand):
        """Commits what moved since the last time. None: done. Else the partitions that were
        refused; an empty list: the group has another generation, so ask again when that is known.
        """
        return self.commit_lanes(with_hand)

    cdef list commit_lanes(self, bint with_hand):
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

    def _note_commit(self, partition, int64_t offset):
        """It was committed in another way: what is finished differs from that, or does not."""
        cdef object found = self.by_partition.get(partition)
        if found is not None:
            (<_Lane>found).committed = offset
