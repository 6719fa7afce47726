"""Partitions of keys, and parallel lists taken apart by partition: what `send_many` does natively.

Which policy holds is partitioner.py's business; where a key lands under a hash is C's.
"""

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
    cdef int32_t other = take_unkeyed(unkeyed, partitions, -1)
    found = hash_column(column, partitions, hash, other)
    if found is None:
        column = [to_bytes(key, "a key") for key in column]
        found = hash_column(column, partitions, hash, other)
    return found


cdef int32_t take_unkeyed(object unkeyed, int32_t count, int32_t least) except -2:
    """Where records without a key go."""
    cdef int64_t taken
    if not take_int(unkeyed, "unkeyed", &taken) or taken < least or taken >= count:
        raise errors.ConfigurationError(
            f"unkeyed={unkeyed} is none of the {count} partitions; use one of them, from 0 on",
            option="unkeyed", value=int(unkeyed))
    return <int32_t>taken


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


def append_by_partition(logs, partitions, values, keys=None, headers=None, timestamps=None,
                        list done=None, codec=None, bint waits=True):
    """Appends each record to the log of its partition: logs[partitions[i]], in the lists' order.

    logs: one for each partition, None for those that get nothing. The rest as Log.append_many takes
    it, and as there all is checked first, for all the logs: nothing is in any of them after
    TypeError, ConfigurationError, InvalidTimestampError, MessageSizeTooLargeError or ClosedError.

    Returns `done`, filled as it goes with (partition, first_offset, count), partitions rising, each
    as one append_many. After any other error it tells which partitions have got theirs, and the
    error's `appended` how many records of the next one are in.

    codec: its number in a batch, 0 for none; None: as each log compresses. waits: also for the
    disk, where a log's durability wants it.

    Cost: as append_many, and 10 ns a record; no list is made (but where a log compresses).
    """
    cdef list of = list(logs)
    cdef _Split split = split_of(partitions, take_partition_count(len(of)))
    cdef int64_t longest = 0
    cdef list k = None if keys is None else byte_column(keys, "a key", &longest)
    return append_parts(of, split, values, k, longest, headers, timestamps, done,
                        -1 if codec is None else codec, waits)


def append_by_key(logs, hash_name, unkeyed, values, keys, headers=None, timestamps=None,
                  list done=None, codec=None, bint waits=True):
    """As append_by_partition, with each record where `partitions_of` would put its key.

    Cost: as append_by_partition; the hash is taken in the same pass in which keys are checked.
    """
    cdef list of = list(logs), k = take_list(keys, "a key")
    cdef int32_t count = take_partition_count(len(of))
    cdef pl_key_hash hash = take_key_hash(hash_name)
    cdef int32_t other = take_unkeyed(unkeyed, count, 0)
    cdef int64_t longest = 0
    cdef _Split split = split_of_keys(k, hash, count, other, &longest)
    if split is None:
        k = [to_bytes(key, "a key") for key in k]
        split = split_of_keys(k, hash, count, other, &longest)
    return append_parts(of, split, values, k, longest, headers, timestamps, done,
                        -1 if codec is None else codec, waits)


cdef list append_parts(list of, _Split split, object values, list k, int64_t longest_key,
                       object headers, object timestamps, list done, int codec, bint waits):
    """Checks all, then appends."""
    cdef int64_t longest_value = 0, now = pl_clock_ms()
    cdef int32_t p
    cdef Appender log
    cdef list v = byte_column(values, "a value", &longest_value)
    cdef list h = None if headers is None else encode_all_headers(headers)
    same_length_of(split.n, len(v), "partitions" if k is None else "keys")
    if k is not None:
        same_length(k, len(v), "keys")
    if h is not None:
        same_length(h, len(v), "headers")
    stamps = None if timestamps is None else take_timestamps(timestamps, split.n, &now)
    if len(v) != split.n or k is not None and len(k) != split.n:    # by code of later arguments
        raise list_changed(0)
    split.sort()
    for p in range(split.count):
        if split.counts[p]:
            if not isinstance(of[p], Appender):
                raise TypeError(
                    f"logs[{p}] must be a Log, for records go there, not {type(of[p]).__name__}")
            log = of[p]
            log.check_writable()
            if h is not None or longest_value + longest_key + PL_BATCH_HEADER_SIZE \
                    + PL_RECORD_OVERHEAD_MAX > log.log.options.max_message_bytes:
                log.check_sizes(v, k, h, split, p)
    done = [] if done is None else done
    for p in range(split.count):
        if split.counts[p]:
            try:
                first = append_part(of[p], split, p, v, k, h, stamps, now, codec)
            except BaseException as error:
                tell_which(error, p, [one[0] for one in done])
                raise
            done.append((p, first, split.counts[p]))
    for p in range(split.count):
        if waits and split.counts[p] and (<Appender>of[p]).waits_for_disk:
            (<Appender>of[p]).wait_for_list(split.counts[p], None)
    return done


cdef int tell_which(object error, int32_t partition, list done) except -1:
    """What a log says of its part of the lists, said of the lists."""
    cdef int64_t appended = getattr(error, "appended", None) or 0
    cdef str told = how_to_go_on(appended)
    cdef str advice = f"append the rest: the first {appended} of the records for partition " \
        f"{partition} are in, and all of those for {done or 'no other'}"
    if not appended and not done:
        return 0
    if isinstance(error, errors.PylogError):
        text = str(error)
        error.args = (text.replace(told, advice) if told in text else f"{text}; {advice}",)
    else:
        error.add_note(advice)
    return 0


cdef object append_part(Appender log, _Split split, int32_t p, list v, list k, list h,
                        object stamps, int64_t now, int codec):
    """The records of one partition, already checked; returns the first offset."""
    log.check_writable()    # another thread may have closed it, while an earlier one waited
    if log.uses_append_time():
        stamps, now = None, pl_clock_ms()
    if codec < 0:
        codec = log.codec
    if not codec:
        return log.append_blocks(v, k, h, stamps, now, split, p)
    v = split.one_part(v, p)
    k = None if k is None else split.one_part(k, p)
    h = None if h is None else split.one_part(h, p)
    if stamps is not None:
        stamps = stamps[numpy.asarray(<int32_t[:split.counts[p]]>split.chosen(p))]
    return log.append_encoded(v, k, h, stamps, now, False, -1, codec)
