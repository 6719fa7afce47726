"""SendFuture: what becomes of one record that was sent."""


@cython.final
@cython.freelist(256)
cdef class SendFuture:
    """Of one record: done at once where nothing lingers, else when its batch is in the log.

    As kafka-python's and concurrent.futures' are, and awaitable. Waits may be many and from several
    threads. Not to be waited for in a callback of another one's: the thread that runs these is the
    one that appends.
    """

    cdef object target       # a Target
    cdef object batch        # it waits there; None: it is appended
    cdef int64_t offset      # in the partition, or its place in the batch
    cdef int64_t timestamp
    cdef int32_t partition, key_size, value_size, headers_size

    def __init__(self, *arguments, **keywords):
        raise TypeError("futures come out of Producer.send")

    def done(self):
        """Whether it is known what became of the record. Does not wait."""
        return self.batch is None or self.batch.is_done

    @property
    def is_done(self):
        """As `done()`."""
        return self.done()

    def succeeded(self):
        """Whether the record is in the log by now."""
        return self.done() and self.exception() is None

    def failed(self):
        """Whether it is known by now that the record will not be in the log."""
        return self.done() and self.exception() is not None

    @property
    def value(self):
        """The RecordMetadata; None while the record waits, and if it failed."""
        return self.metadata() if self.succeeded() else None

    def result(self, timeout=None):
        """The RecordMetadata; waits for it, up to `timeout` seconds.

        Raises what kept the batch out of the log (a copy, for each who asks), or PylogTimeoutError:
        the record still waits then.
        """
        error = self.exception(timeout)
        if error is not None:
            raise error
        return self.metadata()

    def get(self, timeout=None):
        """As `result`; what kafka-python calls it."""
        return self.result(timeout)

    def exception(self, timeout=None):
        """What kept the record out of the log, or None; waits as `result`."""
        cdef int64_t deadline = take_deadline(timeout)
        cdef Filling filling
        batch = self.batch
        if batch is None:
            return None
        if not batch.wait(None if deadline < 0 else timeout):
            raise errors.PylogTimeoutError(
                f"the record has not been appended after {timeout} s; it is still in the buffer: "
                "wait again", timeout_ms=int(timeout * 1000))
        error = batch.tell()
        if error is None:
            first = batch.first_offset
            filling = <Filling?>batch.filling
            if self.batch is not None:    # no other thread was faster
                self.offset += first
                if filling.append_ms >= 0:
                    self.timestamp = filling.append_ms
                self.batch = None
        return error

    cdef object metadata(self):
        return (<Target?>self.target).describe(
            (<Target>self.target).topic, self.partition, self.offset, self.timestamp,
            self.key_size, self.value_size, self.headers_size)

    def add_done_callback(self, function):
        """Calls function(future) when it is done: now, or in the thread that appends.

        What it raises is logged.
        """
        if not callable(function):
            raise TypeError(f"a callback must be callable, not {type(function).__name__}")
        if self.batch is None or not self.batch.add_callback(self, function):
            run_callback(function, self)

    def add_callback(self, function, *arguments, **keywords):
        """Calls function(*arguments, metadata, **keywords) if and when the record is in the log.

        As kafka-python's; returns the future.
        """
        def call(future):
            if future.succeeded():
                function(*arguments, future.value, **keywords)

        self.add_done_callback(call)
        return self

    def add_errback(self, function, *arguments, **keywords):
        """Calls function(*arguments, error, **keywords) if and when the record failed.

        As kafka-python's; returns the future.
        """
        def call(future):
            if future.failed():
                function(*arguments, future.exception(), **keywords)

        self.add_done_callback(call)
        return self

    def add_both(self, function, *arguments, **keywords):
        """add_callback and add_errback, of one function. As kafka-python's; returns the future."""
        self.add_callback(function, *arguments, **keywords)
        return self.add_errback(function, *arguments, **keywords)

    def __await__(self):
        if not self.done():
            yield from wait_in_loop(self)
        return self.result()

    def __repr__(self):
        topic = (<Target?>self.target).topic
        if not self.done():
            return f"<SendFuture to {topic}-{self.partition}, in the buffer>"
        error = self.exception()
        if error is not None:
            return f"<SendFuture to {topic}-{self.partition}, failed: {error!r}>"
        return f"<SendFuture of {topic}-{self.partition}, offset {self.offset}>"


cdef int run_callback(object function, object future) except -1:
    try:
        function(future)
    except Exception:
        logging.getLogger("pylog").exception("a callback of %r", future)
    return 0


def run_callbacks(callbacks):
    """Calls each of (future, function), whatever one of them raises."""
    for future, function in callbacks:
        run_callback(function, future)


def wait_in_loop(future):
    """Waits in the running event loop, without a thread; a cancelled wait leaves the record be."""
    import asyncio

    loop = asyncio.get_running_loop()
    woken = loop.create_future()

    def finish():
        if not woken.done():
            woken.set_result(None)

    def wake(_):
        try:
            loop.call_soon_threadsafe(finish)
        except RuntimeError:    # the loop was closed meanwhile
            pass

    future.add_done_callback(wake)
    yield from woken


cdef inline SendFuture new_future(Target target, object batch, int32_t partition, int64_t offset,
                                  int64_t timestamp, const pl_slice *key, const pl_slice *value,
                                  int64_t headers_size):
    cdef SendFuture future = SendFuture.__new__(SendFuture)
    future.target = target
    future.batch = batch
    future.partition = partition
    future.offset = offset
    future.timestamp = timestamp
    future.key_size = <int32_t>key.size
    future.value_size = <int32_t>value.size
    future.headers_size = <int32_t>headers_size if headers_size else -1
    return future
