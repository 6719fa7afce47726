"""Sender: the native half of a producer. Target: a topic as it sees it. SendFuture: one record."""

DEF LOOK_MS = 1000    # how old what is known of the topics may be


cdef object sent_bytes(object given, str what):
    """A bytes object or None; TypeError tells which serializer would take what was given."""
    if given is None or PyBytes_Check(given):
        return given
    if isinstance(given, str) or not PyObject_CheckBuffer(given):
        name = "str" if isinstance(given, str) else "json"
        raise TypeError(f"{what} must be bytes; got {type(given).__name__}: pass "
                        f"{what}_serializer={name!r}")
    return to_bytes(given, f"a {what}")


def refused_entry(values, keys):
    """The error with which `send` would refuse an entry of these columns; None: it takes all."""
    try:
        for value in values:
            sent_bytes(value, "value")
        for key in keys or ():
            sent_bytes(key, "key")
    except TypeError as error:
        return error
    return None


@cython.final
cdef class Target:
    """A topic as a producer sees it: its logs, as far as they are open, and its partitioner.

    hash_name: what the partitioner hashes with, if it is one that only hashes; else it is asked.
    entry: what the metadata says of it. codec: of batches and lists. describe: makes a
    RecordMetadata.
    """

    cdef readonly str topic
    cdef readonly list logs
    cdef list fillings    # the latest of each partition
    cdef readonly object partitioner
    cdef readonly object entry
    cdef readonly int codec
    cdef readonly int64_t records, bytes    # of keys and values
    cdef object describe
    cdef bint is_hashed
    cdef pl_key_hash hash
    cdef int32_t count, sticky
    cdef int64_t batch_size, sticky_left

    def __init__(self, str topic not None, count, partitioner, hash_name, int64_t batch_size,
                 describe):
        self.topic = topic
        self.count = take_partition_count(count)
        self.logs = [None] * self.count
        self.fillings = [None] * self.count
        self.partitioner = partitioner
        self.is_hashed = hash_name is not None
        self.hash = take_key_hash(hash_name) if self.is_hashed else PL_KEY_MURMUR2
        self.batch_size = self.sticky_left = batch_size
        self.describe = describe
        if self.is_hashed:
            self.sticky = partitioner.sticky

    @property
    def partitions(self):
        """How many the topic has."""
        return self.count

    def renew(self, entry, count, int codec):
        """What the metadata says now; partitions may have been added."""
        cdef int32_t taken = take_partition_count(count)
        self.partitioner.resize(taken)
        self.logs = self.logs + [None] * (taken - self.count)
        self.fillings = self.fillings + [None] * (taken - self.count)
        self.count = taken
        self.entry = entry
        self.codec = codec

    def fill(self, int32_t partition, Filling filling not None):
        """The records of a partition go there from now on."""
        if not 0 <= partition < self.count:
            raise IndexError(partition)
        self.fillings[partition] = filling

    def move_on(self, partition):
        """A batch of `partition` is full: records without a key go elsewhere."""
        self.partitioner.move_on(partition)
        if self.is_hashed:
            self.sticky = self.partitioner.sticky
        self.sticky_left = self.batch_size

    def took(self, list values not None, list keys):
        """Counts what was sent as lists."""
        self.records += len(values)
        self.bytes += bytes_in(values) + (0 if keys is None else bytes_in(keys))


cdef int64_t bytes_in(list column) except -1:
    cdef Py_buffer buffer
    cdef int64_t size = 0
    cdef Py_ssize_t i = 0
    cdef PyObject *entry
    while i < PyList_GET_SIZE(column):
        entry = PyList_GET_ITEM(column, i)    # borrowed: counting references takes as long again
        i += 1
        if PyBytes_Check(<object>entry):
            size += PyBytes_GET_SIZE(<object>entry)
        elif entry != <PyObject *>None:
            held = <object>entry    # for its buffer may be Python code
            take_buffer(held, "a value or key", "bytes-like or None", &buffer)
            size += buffer.len
            PyBuffer_Release(&buffer)
    return size


cdef inline void count_record(Target target, const pl_slice *k, const pl_slice *v) noexcept:
    target.records += 1
    target.bytes += max(0, k.size) + max(0, v.size)


cdef inline int count_sent(Target target, int32_t partition, const pl_slice *k,
                           const pl_slice *v) except -1:
    count_record(target, k, v)
    if k.size < 0 and target.count > 1:    # KIP-794: elsewhere after a batch's worth of bytes
        target.sticky_left -= v.size + PL_RECORD_OVERHEAD_MAX
        if target.sticky_left <= 0:
            target.move_on(partition)
    return 0


cdef class Sender:
    """The native half of pylog.Producer: what is called for each record. See pylog/producer.py."""

    cdef dict targets
    cdef Target last
    cdef object last_name    # of the last target, as it was passed
    cdef object key_serializer, value_serializer
    cdef Pool pool
    cdef bint is_plain, is_closed, lingers, defers
    cdef readonly bint _waits
    cdef unsigned forks
    cdef int64_t looked_ms
    cdef object __weakref__

    def __cinit__(self, *arguments, **keywords):
        self.targets = {}
        self.is_closed = True    # until it is prepared

    def _prepare(self, key_serializer, value_serializer, bint lingers, bint waits, bint defers,
                 Pool pool not None):
        """lingers: records are batched. waits: for the disk, as the log's durability says.
        defers: it is a thread that waits, and no caller. pool: of the records in batches."""
        self.key_serializer = key_serializer
        self.value_serializer = value_serializer
        self.lingers = lingers
        self._waits = waits
        self.defers = defers
        self.pool = pool
        self.forks = pl_forks
        self.is_closed = False
        self.is_plain = key_serializer is None and value_serializer is None

    def _end(self):
        """Whether it was open until now."""
        cdef bint was_open = not self.is_closed
        self.is_closed = True
        self.is_plain = False
        return was_open

    @property
    def closed(self):
        """True from the call of close() on."""
        return self.is_closed

    @property
    def _targets(self):
        return self.targets

    def _check_usable(self):
        if self.is_closed:
            raise errors.ClosedError("the producer is closed; make a new one")
        if self.forks != pl_forks:
            raise errors.IllegalStateError(
                "the producer was made before fork: make a new one in this process, with a broker "
                "of its own")

    def _forget(self, topic):
        """What is known of a topic that is gone, or another one by now."""
        self.targets.pop(topic, None)
        self.last = None
        self.last_name = None

    def _target(self, topic):
        """The topic, as it was a second ago or later. Raises for one that is not there."""
        cdef int64_t now = pl_clock_ms()
        self._check_usable()
        if not isinstance(topic, str):
            raise TypeError(f"topic must be a str, not {type(topic).__name__}")
        if <uint64_t>(now - self.looked_ms) > LOOK_MS:    # also when the clock was put back
            self.looked_ms = now
            self._look()
        target = self.targets.get(topic)
        if target is None:
            # Another thread may be as fast: of two targets each would have an open batch.
            target = self.targets.setdefault(topic, self._find(topic))
        self.last = target
        self.last_name = topic
        return target

    def _log(self, Target target not None, int32_t partition):
        """The log of a partition that the topic has."""
        log = target.logs[partition]
        if log is None or not (<Appender?>log).can_append \
                or (<Appender>log).log.fork_generation != pl_forks:
            log = target.logs[partition] = self._open_log(target.topic, partition)
        return log

    def _place(self, Target target not None, partition):
        """The number of a partition that the topic has; raises for another one."""
        cdef int64_t taken
        if take_int(partition, "partition", &taken) and 0 <= taken < target.count:
            return taken
        self._look()
        if 0 <= partition < target.count:    # it has just been added
            return partition
        raise errors.UnknownTopicOrPartitionError(
            f"topic {target.topic!r} has the partitions 0 to {target.count - 1}, and no "
            f"{partition}; nothing was appended; leave partition out, or add some first",
            topic=target.topic, partition=int(partition))

    cdef object gather(self, Target target, Appender log, int32_t place, object value, object key,
                       object headers, int64_t time, const pl_slice *k, const pl_slice *v,
                       int64_t headers_size):
        """Puts a record into the open batch of its partition, or has a new one begun."""
        cdef int64_t size = pl_alone_size(k.size, v.size, headers_size), index = -1
        cdef object batch = None
        cdef Filling filling = target.fillings[place]
        if size > log.log.options.max_message_bytes and size > log.message_bytes_max():
            raise errors.MessageSizeTooLargeError(
                f"the record makes a batch of {size} bytes, over the topic's max.message.bytes "
                f"({log.log.options.max_message_bytes}); nothing was sent; split it, or raise that",
                size=size, max_message_bytes=log.log.options.max_message_bytes)
        if filling is not None:
            index = put(filling, self.pool, value, key, headers, time, size)
            batch = filling.batch
        if index < 0:
            batch, index = self._accumulate(
                target, place, log, value, key, headers, time, size,
                log.log.options.max_message_bytes)
        count_record(target, k, v)
        return new_future(target, batch, place, index, time, k, v, headers_size)

    cdef int append_slowly(self, Appender log, int64_t *time, pl_slice k, pl_slice v, pl_slice h,
                           int64_t *offset) except -1:
        try:
            log.append_slowly(time, k, v, h, -1, offset)
        except errors.UnknownTopicOrPartitionError:    # it was deleted
            self.looked_ms = 0    # the next call looks whether it was made anew
            raise
        return 0

    def send(self, topic, value=None, key=None, headers=None, partition=None, timestamp_ms=None):
        """Sends one record, and returns a future of its RecordMetadata.

        value, key: bytes-like or None, or what the serializers take. headers: a dict or pairs of
        (str, bytes or None). partition: None leaves it to the partitioner. timestamp_ms: since the
        epoch, now if None; where message.timestamp.type is LogAppendTime it is taken and not used,
        as by Kafka, and the metadata have the time of the append.

        With linger_ms=0 the record is visible to every process when this returns, and the future is
        done. Else it is in a batch; the order within a partition is that of the calls.

        Cost: 1.5 times Log.append, no system call. Raises TypeError, SerializationError,
        UnknownTopicOrPartitionError, InvalidTimestampError, MessageSizeTooLargeError,
        PylogTimeoutError (the buffer is full), ClosedError, IllegalStateError after a fork, and
        where nothing lingers whatever Log.append does. Nothing was sent then.
        """
        cdef pl_slice v, k, h
        cdef int32_t place
        cdef int64_t time, offset = 0
        cdef Target target = self._target(topic)
        cdef Appender log
        if self.value_serializer is not None:
            value = self.value_serializer(topic, headers, value)
        if self.key_serializer is not None:
            key = self.key_serializer(topic, headers, key)
        value, key = sent_bytes(value, "value"), sent_bytes(key, "key")
        take_bytes(value, &v)
        take_bytes(key, &k)
        h.data = NULL
        h.size = 0
        if headers is not None:
            headers = encode_headers(headers)
            take_bytes(headers, &h)
        time = pl_clock_ms() if timestamp_ms is None else take_timestamp(timestamp_ms)
        if partition is not None:
            place = self._place(target, partition)
        elif target.is_hashed:
            place = key_partition(&k, target.hash, target.count, target.sticky)
        else:
            place = target.partitioner.partition(key)
        log = self._log(target, place)
        if timestamp_ms is not None and log.uses_append_time():
            time = pl_clock_ms()
        if self.lingers or self.defers and self._waits and log.waits_for_disk:
            return self.gather(target, log, place, value, key, headers, time, &k, &v, h.size)
        if pl_append(log.log, time, k, v, h, -1, 0, &offset) != PL_OK:
            self.append_slowly(log, &time, k, v, h, &offset)
        if self._waits:
            log.wait_for_disk(offset + 1, None)
        count_sent(target, place, &k, &v)
        return new_future(target, None, place, offset, time, &k, &v, h.size)


def append_list(Appender log not None, values, keys, headers, timestamps, int codec, bint waits):
    """Log.append_many with a codec of the call's own; `waits`: as the log's durability says."""
    return log.append_lists(values, keys, headers, timestamps, False, None, None, codec,
                            waits and log.waits_for_disk)


# ---- the short way into send: see appender.pxi ---------------------------------------------------

cdef pl_fast_call pl_send_wrapper
cdef str VALUE = sys.intern("value")

cdef object send_shortly(Sender self, PyObject **arguments, Py_ssize_t count, PyObject *names):
    """send(topic, value, key) of bytes to a partition that is open."""
    cdef pl_slice v, k, h
    cdef int64_t time, offset = 0
    cdef int32_t place = 0
    cdef PyObject *value = arguments[1] if count > 1 else NULL
    cdef PyObject *key = arguments[2] if count > 2 else NULL
    cdef PyObject *name
    cdef PyObject *found
    cdef Py_ssize_t i
    cdef bint is_plain = self.is_plain and 1 <= count <= 3
    cdef Target target
    cdef Appender log
    if names != NULL and is_plain:
        for i in range(PyTuple_GET_SIZE(<object>names)):
            name = <PyObject *>PyTuple_GET_ITEM(<object>names, i)
            if name == <PyObject *>VALUE and value == NULL:
                value = arguments[count + i]
            elif name == <PyObject *>KEY and key == NULL:
                key = arguments[count + i]
            else:
                is_plain = False
    if not is_plain or value == NULL or not take_bytes(<object>value, &v):
        return pl_send_wrapper(self, arguments, count, names)
    k.data = NULL
    k.size = -1
    if key != NULL and not take_bytes(<object>key, &k):
        return pl_send_wrapper(self, arguments, count, names)
    if arguments[0] != <PyObject *>self.last_name:
        found = NULL
        if PyUnicode_CheckExact(<object>arguments[0]):
            found = PyDict_GetItem(self.targets, <object>arguments[0])
        if found == NULL:
            return pl_send_wrapper(self, arguments, count, names)
        self.last = <Target>found
        self.last_name = <object>arguments[0]
    target = self.last
    time = pl_clock_ms()
    if <uint64_t>(time - self.looked_ms) > LOOK_MS or not target.is_hashed:
        return pl_send_wrapper(self, arguments, count, names)
    if target.count > 1:
        place = key_partition(&k, target.hash, target.count, target.sticky)
    found = PyList_GET_ITEM(target.logs, place)
    if found == <PyObject *>None:
        return pl_send_wrapper(self, arguments, count, names)
    log = <Appender>found
    if not log.can_append or log.waits_for_disk or log.log.fork_generation != pl_forks:
        return pl_send_wrapper(self, arguments, count, names)
    h.data = NULL
    h.size = 0
    if self.lingers:
        return self.gather(target, log, place, <object>value, None if key == NULL else <object>key,
                           None, time, &k, &v, 0)
    if pl_append(log.log, time, k, v, h, -1, 0, &offset) != PL_OK:
        self.append_slowly(log, &time, k, v, h, &offset)
    count_sent(target, place, &k, &v)
    return new_future(target, None, place, offset, time, &k, &v, 0)


pl_send_wrapper = pl_take_short_way(<PyTypeObject *>Sender, "send", <void *>send_shortly)
