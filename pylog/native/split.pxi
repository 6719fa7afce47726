"""Split: which records of parallel lists go to which partition, each in order."""


@cython.final
cdef class _Split:
    """The partition of each record, in memory that nobody else writes to, and their counts.

    order: the records' places in the lists, partition by partition; those of partition p end at
    ends[p]. Made by `sort`.
    """

    cdef Py_ssize_t n
    cdef int32_t count
    cdef int32_t *at
    cdef int32_t *order
    cdef int64_t *counts
    cdef int64_t *ends

    def __cinit__(self, Py_ssize_t n, int32_t count):
        if n > 0x7fffffff:
            raise errors.ConfigurationError(
                f"{n} records are too many for one call, so nothing was appended; pass them in "
                "parts", option="values")
        self.n = n
        self.count = count
        self.at = <int32_t *>malloc((n + 1) * sizeof(int32_t))
        self.counts = <int64_t *>calloc(count, sizeof(int64_t))
        self.ends = <int64_t *>malloc(count * sizeof(int64_t))
        if self.at == NULL or self.counts == NULL or self.ends == NULL:
            raise MemoryError()

    def __dealloc__(self):
        free(self.at)
        free(self.counts)
        free(self.ends)
        free(self.order)

    cdef list one_part(self, list column, int32_t partition):
        """The list of one partition, of entries that were looked at before; after `sort`."""
        cdef const int32_t *chosen = self.chosen(partition)
        cdef int64_t i
        if len(column) < self.n:
            raise list_changed(0)
        return [column[chosen[i]] for i in range(self.counts[partition])]

    cdef int sort(self) except -1:
        """Counting sort: one pass."""
        cdef int32_t p
        cdef Py_ssize_t i, n = self.n
        cdef int64_t start = 0
        if self.order != NULL:
            return 0
        self.order = <int32_t *>malloc((n + 1) * sizeof(int32_t))
        if self.order == NULL:
            raise MemoryError()
        for p in range(self.count):
            self.ends[p] = start
            start += self.counts[p]
        for i in range(n):
            p = self.at[i]
            self.order[self.ends[p]] = <int32_t>i
            self.ends[p] += 1
        return 0

    cdef const int32_t *chosen(self, int32_t partition) noexcept:
        """The places of the records of one partition, `counts` many; after `sort`."""
        return self.order + self.ends[partition] - self.counts[partition]


cdef _Split split_of(object partitions, int32_t count):
    """By an array that names the partition of each record."""
    cdef const int32_t[::1] given
    cdef Py_ssize_t i
    if type(partitions) is not numpy.ndarray or partitions.ndim != 1 \
            or partitions.dtype != numpy.int32 or not partitions.flags.c_contiguous:
        partitions = int32_partitions(partitions, count)
    given = partitions
    cdef _Split split = _Split(given.shape[0], count)
    for i in range(split.n):
        split.at[i] = given[i]
        if <uint32_t>given[i] >= <uint32_t>count:
            raise unknown_partition(given[i], i, count)
        split.counts[given[i]] += 1
    return split


cdef _Split split_of_keys(list keys, pl_key_hash hash, int32_t count, int32_t unkeyed,
                          int64_t *longest):
    """By the hash of each key; None: an entry is neither bytes nor None."""
    cdef _Split split = _Split(len(keys), count)
    cdef Py_ssize_t i
    cdef int32_t p
    cdef int64_t size_max = 0
    cdef pl_slice one
    if len(keys) != split.n:
        raise list_changed(0)
    for i in range(split.n):
        if i + AHEAD < split.n:
            prefetch(PyList_GET_ITEM(keys, i + AHEAD))
        if not take_bytes(<object>PyList_GET_ITEM(keys, i), &one):
            return None
        if one.size > size_max:
            size_max = one.size
        p = key_partition(&one, hash, count, unkeyed)
        split.at[i] = p
        split.counts[p] += 1
    longest[0] = size_max
    return split


cdef object int32_partitions(object partitions, int32_t count):
    found = numpy.asarray(partitions)
    if found.ndim != 1 or (found.size and found.dtype.kind not in "iu"):
        raise TypeError("partitions must be one row of ints: where each record goes")
    is_unknown = (found < 0) | (found >= count)
    if is_unknown.any():
        index = int(is_unknown.argmax())
        raise unknown_partition(int(found[index]), index, count)
    return numpy.array(found, dtype=numpy.int32, order="C")


cdef object unknown_partition(object partition, int64_t index, int32_t count):
    return errors.ConfigurationError(
        f"partitions[{index}] is {partition}, and the topic has {count} partitions, 0 to "
        f"{count - 1}; nothing was appended; pass one of these", option="partitions",
        value=partition)
