"""Partitions of keys, and parallel lists taken apart by partition: what `send_many` does natively.

Which policy holds is partitioner.py's business; where a key lands under a hash is C's.
"""

cdef extern from "Python.h":
    ctypedef struct PyListObject:
        PyObject **ob_item

cdef dict _key_hashes = {"murmur2": PL_KEY_MURMUR2, "crc32": PL_KEY_CRC32}


cdef pl_key_hash take_key_hash(object name) except *:
    if not isinstance(name, str) or name not in _key_hashes:
        raise errors.ConfigurationError(
            f"hash={name!r} is unknown; use 'murmur2' or 'crc32'", option="hash", value=name)
    return _key_hashes[name]


cdef int32_t take_partition_count(object count) except -1:
    cdef int64_t taken
    if not take_int(count, "the count of partitions", &taken) or taken < 1 or taken > 0x7fffffff:
        raise errors.ConfigurationError(
            f"a topic cannot have {count} partitions; pass how many it has, from 1 on",
            option="count", value=int(count))
    return <int32_t>taken


cdef bytes bytes_of_key(object key):
    if key is None:
        raise TypeError("None has no hash: a record without a key goes where the policy says")
    return to_bytes(key, "a key")


def murmur2(key):
    """Kafka's hash of a key, signed as Java prints it: murmur2(b"21") is -973932308."""
    cdef bytes data = bytes_of_key(key)
    return <int32_t>pl_murmur2(<const uint8_t *>PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))


def crc32(key):
    """librdkafka's hash of a key, which is zlib's: crc32(b"kafka") is 0x5bbc7517."""
    cdef bytes data = bytes_of_key(key)
    return pl_crc32(<const uint8_t *>PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))


cdef inline int32_t key_partition(const pl_slice *key, pl_key_hash hash, int32_t count,
                                  int32_t unkeyed) noexcept:
    """Where a key lands. An empty one is a key to Java, and none to librdkafka's default."""
    if key.size < 0 or key.size == 0 and hash == PL_KEY_CRC32:
        return unkeyed
    return pl_key_partition(key.data, key.size, hash, count)


def partition_of(key, count, hash_name="murmur2"):
    """The partition of one key among `count`; -1 where the hash leaves it to the policy: None, and
    for "crc32" also b"".
    """
    cdef int32_t partitions = take_partition_count(count)
    cdef pl_key_hash hash = take_key_hash(hash_name)
    cdef bytes holder = to_bytes(key, "a key")
    cdef pl_slice one
    one.data, one.size = NULL, -1
    take_bytes(holder, &one)
    return key_partition(&one, hash, partitions, -1)


def partitions_of(keys, count, hash_name="murmur2", unkeyed=-1):
    """The partition of each key of a list, as an int32 array; `unkeyed` where partition_of says -1.

    Cost: a look at each key, and its hash; no Python call for keys that are bytes.
    """
    cdef int32_t partitions = take_partition_count(count)
    cdef pl_key_hash hash = take_key_hash(hash_name)
    cdef list column = take_list(keys, "a key")
    cdef int64_t other
    if not take_int(unkeyed, "unkeyed", &other) or other < -1 or other >= partitions:
        raise errors.ConfigurationError(
            f"unkeyed={unkeyed} is none of the {partitions} partitions; use one of them, or -1",
            option="unkeyed", value=int(unkeyed))
    found = hash_column(column, partitions, hash, <int32_t>other)
    if found is None:
        column = [to_bytes(key, "a key") for key in column]
        found = hash_column(column, partitions, hash, <int32_t>other)
    return found


cdef object hash_column(list column, int32_t count, pl_key_hash hash, int32_t unkeyed):
    """None: an entry is neither bytes nor None."""
    found = numpy.empty(len(column), numpy.int32)
    cdef int32_t[::1] out = found
    cdef Py_ssize_t i, n = out.shape[0]
    cdef pl_slice one
    if len(column) != n:
        raise list_changed(0)
    for i in range(n):
        if i + AHEAD < n:
            prefetch(PyList_GET_ITEM(column, i + AHEAD))
        if not take_bytes(<object>PyList_GET_ITEM(column, i), &one):
            return None
        out[i] = key_partition(&one, hash, count, unkeyed)
    return found


def split_by_partition(partitions, count, values, keys=None, headers=None, timestamps=None):
    """Parallel lists, taken apart: (partition, values, keys, headers, timestamps) of each partition
    that gets a record, by number, its records in the order of the lists.

    partitions: the partition of each record, ints below `count`. The rest as Log.append_many takes
    it, and what comes out is for append_many: timestamps as int64 arrays, an int for all, or None.
    Where all records go to one partition, it gets the lists that were passed.

    All is checked before anything is returned, so that no log has records of a list with a bad
    entry. Raises TypeError, ConfigurationError, InvalidTimestampError. Cost: one reference more for
    each object; no Python call a record but for headers, and for what is not bytes.
    """
    cdef int32_t many = take_partition_count(count)
    cdef list v = take_list(values, "a value")
    cdef int64_t n = len(v), for_all = -1
    cdef list k = None if keys is None else take_list(keys, "a key")
    cdef list h = None if headers is None else pairs_of_headers(headers)
    stamps = None
    if timestamps is not None:
        stamps = take_timestamps(timestamps, n, &for_all)
    cdef _Split split = _Split(partitions, many)
    same_length(split.partitions, n, "partitions")
    if k is not None:
        same_length(k, n, "keys")
    if h is not None:
        same_length(h, n, "headers")
    every = stamps if stamps is not None else None if for_all < 0 else for_all
    if n and split.count_of(split.at[0]) == n:
        check_column(v, "a value")
        if k is not None:
            check_column(k, "a key")
        return [(split.at[0], v, k, h, every)]
    of_values = split.take_apart(v, "a value")
    of_keys = None if k is None else split.take_apart(k, "a key")
    of_headers = None if h is None else split.take_apart(h, None)
    of_times = None if stamps is None else split.take_apart_times(stamps)
    return [
        (partition, of_values[partition], of_keys and of_keys[partition],
         of_headers and of_headers[partition], every if of_times is None else of_times[partition])
        for partition in range(many) if split.counts[partition]
    ]


cdef list pairs_of_headers(object headers):
    """Each entry checked; one that can be gone through only once is made a list of pairs."""
    cdef list out = [list(one) if hasattr(one, "__next__") else one
                     for one in list_of_headers(headers)]
    for one in out:
        encode_headers(one)
    return out


cdef int check_column(list column, str what) except -1:
    """TypeError for an entry that no log takes."""
    cdef Py_ssize_t i
    cdef pl_slice one
    for i in range(len(column)):
        if i < len(column) and not take_bytes(column[i], &one):
            to_bytes(column[i], what)
    return 0


@cython.final
cdef class _Split:
    """The partition of each record, in memory that nobody else writes to, and their counts."""

    cdef object partitions
    cdef const int32_t[::1] at
    cdef int32_t count
    cdef int64_t *counts
    cdef int64_t *filled
    cdef PyObject ***slots

    def __cinit__(self, partitions, int32_t count):
        found = numpy.asarray(partitions)
        if found.ndim != 1 or (found.size and found.dtype.kind not in "iu"):
            raise TypeError("partitions must be one row of ints: where each record goes")
        is_unknown = (found < 0) | (found >= count)
        if is_unknown.any():
            index = int(is_unknown.argmax())
            raise errors.ConfigurationError(
                f"partitions[{index}] is {found[index]}, and the topic has {count} partitions, "
                f"0 to {count - 1}; nothing was appended; pass one of these",
                option="partitions", value=int(found[index]))
        self.partitions = numpy.array(found, dtype=numpy.int32, order="C")
        self.at = self.partitions
        self.count = count
        self.counts = <int64_t *>calloc(count, sizeof(int64_t))
        self.filled = <int64_t *>malloc(count * sizeof(int64_t))
        self.slots = <PyObject ***>malloc(count * sizeof(PyObject **))
        if self.counts == NULL or self.filled == NULL or self.slots == NULL:
            raise MemoryError()
        cdef Py_ssize_t i
        for i in range(self.at.shape[0]):
            self.counts[self.at[i]] += 1

    def __dealloc__(self):
        free(self.counts)
        free(self.filled)
        free(self.slots)

    cdef int64_t count_of(self, int32_t partition) noexcept:
        return self.counts[partition]

    cdef list take_apart(self, list column, str what):
        """The list of each partition, None for one without; `what`: entries must be bytes."""
        cdef list parts = self.fill(column, what is not None)
        if parts is None:
            parts = self.fill([to_bytes(item, what) for item in column], True)
        return parts

    cdef list fill(self, list column, bint must_be_bytes):
        """As `take_apart`; None: an entry is neither bytes nor None."""
        cdef int32_t p
        cdef Py_ssize_t i, n = self.at.shape[0]
        cdef PyObject *item
        cdef pl_slice one
        cdef list parts = [None] * self.count
        for p in range(self.count):
            if self.counts[p]:
                parts[p] = PyList_New(self.counts[p])
                self.slots[p] = (<PyListObject *>parts[p]).ob_item
        if len(column) != n:    # from here on no other thread runs
            raise list_changed(0)
        for i in range(n):
            if i + AHEAD < n:
                prefetch(PyList_GET_ITEM(column, i + AHEAD))
            item = PyList_GET_ITEM(column, i)
            if must_be_bytes and not take_bytes(<object>item, &one):
                return None
            Py_INCREF(<object>item)
            p = self.at[i]
            self.slots[p][0] = item
            self.slots[p] += 1
        return parts

    cdef list take_apart_times(self, const int64_t[::1] stamps):
        """The timestamps of each partition: slices of one array."""
        cdef int32_t p
        cdef Py_ssize_t i
        cdef int64_t start = 0
        ordered = numpy.empty(self.at.shape[0], numpy.int64)
        cdef int64_t[::1] out = ordered
        for p in range(self.count):
            self.filled[p] = start
            start += self.counts[p]
        for i in range(self.at.shape[0]):
            p = self.at[i]
            out[self.filled[p]] = stamps[i]
            self.filled[p] += 1
        return [ordered[self.filled[p] - self.counts[p]:self.filled[p]] for p in range(self.count)]
