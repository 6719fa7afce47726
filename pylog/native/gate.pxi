"""The gate: a status of the C core becomes an exception of pylog.errors."""

cdef object _errors = {
    PL_ERR_IO: errors.LogError,
    PL_ERR_DISK_FULL: errors.DiskFullError,
    PL_ERR_CORRUPT: errors.CorruptRecordError,
    PL_ERR_FORMAT: errors.UnsupportedFormatError,
    PL_ERR_FILESYSTEM: errors.UnsupportedFilesystemError,
    PL_ERR_ENVIRONMENT: errors.UnsupportedEnvironmentError,
    PL_ERR_CODEC: errors.UnsupportedCodecError,
    PL_ERR_LIMIT: errors.ResourceLimitError,
    PL_ERR_READ_ONLY: errors.ReadOnlyLogError,
    PL_ERR_DURABILITY: errors.DurabilityError,
    PL_ERR_TIMEOUT: errors.PylogTimeoutError,
    PL_ERR_OUT_OF_RANGE: errors.OffsetOutOfRangeError,
    PL_ERR_WRONG_END: errors.WrongEndOffsetError,
    PL_ERR_NOT_FOUND: errors.RecordNotFoundError,
    PL_ERR_TOO_LARGE: errors.MessageSizeTooLargeError,
    PL_ERR_CLOSED: errors.ClosedError,
    PL_ERR_FORKED: errors.IllegalStateError,
    PL_ERR_CONFIG: errors.ConfigurationError,
    PL_ERR_NO_MEMORY: errors.ResourceLimitError,
    PL_ERR_DENIED: errors.LogError,
    PL_ERR_DELETED: errors.UnknownTopicOrPartitionError,
}

# What pl_error.extra and .bound are, and which limit an errno names, in the words of `ulimit -a`.
cdef object _extras = {
    PL_ERR_CORRUPT: "valid_batches",
    PL_ERR_WRONG_END: "end_offset",
    PL_ERR_DISK_FULL: "needed_bytes",
    PL_ERR_DURABILITY: "durable_offset",
    PL_ERR_OUT_OF_RANGE: "end_offset",
    PL_ERR_TOO_LARGE: "size",
    PL_ERR_ENVIRONMENT: "found",
}
cdef object _bounds = {
    PL_ERR_OUT_OF_RANGE: "start_offset",
    PL_ERR_TOO_LARGE: "max_message_bytes",
    PL_ERR_ENVIRONMENT: "required",
}
cdef object _limits = {
    ENOMEM: "virtual memory", EMFILE: "open files", EAGAIN: "max user processes",
}


cdef object _name_filesystem(uint32_t magic):
    name = pl_filesystem_name(magic)
    return hex(magic) if name is NULL else (<bytes>name).decode()


cdef object valid_beyond(bytes path, int64_t position):
    """How many whole batches follow the damage at `position`; None: the file cannot be read."""
    cdef pl_segment *segment
    cdef int64_t count = -1
    cdef bytes directory, name
    directory, name = os.path.split(path)
    cdef const char *in_directory = directory
    cdef const char *of_name = name
    with nogil:
        if pl_segment_open(in_directory, of_name, 0, 0, False, 0, &segment) == PL_OK:
            count = pl_segment_count_valid(segment, position + 1)
            pl_segment_release(segment)
    return None if count < 0 else count


cdef object deleted(bytes directory):
    """What whoever has a partition open is told when its topic is deleted."""
    name = os.fsdecode(os.path.basename(os.path.realpath(directory)))    # opened by a link, perhaps
    topic, _, partition = name.rpartition("-")
    if not partition.isdecimal():
        return errors.UnknownTopicOrPartitionError(
            f"the log {name!r} was deleted; what was read stays valid; open another",
            path=os.fsdecode(directory))
    return errors.UnknownTopicOrPartitionError(
        f"the topic {topic!r} was deleted, and its partition {partition} with it; what was read "
        "stays valid; create the topic anew, or use another",
        topic=topic, partition=int(partition), path=os.fsdecode(directory))


cdef object make_error(pl_status status, bint counts=True):
    """The exception for this thread's latest failure; `counts`: damage with what follows it."""
    cdef pl_error *e = pl_error_last()
    cdef bytes path = e.path
    if status == PL_ERR_DELETED:
        return deleted(path)
    context = {}
    if path:
        context["path"] = path.decode("utf-8", "surrogateescape")
    if e.os_errno:
        context["errno"] = e.os_errno
    if e.position >= 0:
        context["position"] = e.position
    if e.offset >= 0 or status == PL_ERR_OUT_OF_RANGE:
        context["offset"] = e.offset
    if status == PL_ERR_NO_MEMORY:
        context["errno"] = ENOMEM
    if _errors[status] is errors.ResourceLimitError:
        context["limit"] = _limits.get(context.get("errno"))
    if e.extra >= 0 and status == PL_ERR_FILESYSTEM:
        context["filesystem"] = _name_filesystem(<uint32_t>e.extra)
    elif e.extra >= 0:
        context[_extras[status]] = e.extra
    if e.bound >= 0:
        context[_bounds[status]] = e.bound
    if status == PL_ERR_ENVIRONMENT and e.extra < 0:
        context["found"], context["required"] = os.uname().release, "5.14"
    text = (<bytes>e.text).decode("utf-8", "replace")
    where = context.get("path", "")
    if "position" in context:
        where += f", byte {e.position}"
    if status == PL_ERR_CORRUPT and e.extra < 0 and e.position >= 0 and path.endswith(b".log") \
            and counts:
        context["valid_batches"] = valid_beyond(path, e.position)
    return _errors[status](f"{text} [{where}]" if where else text, **context)


cdef int check(pl_status status) except -1:
    if status < 0:
        raise make_error(status)
    return 0
