# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, binding=False
"""Yardsticks in C: the least that a machine must do for what the log does, without a log.

`copy_list` is the memcpy behind append_many, `make_bytes` the objects behind a fetch, `read_sum`
the memory behind a scan, `Baton` the kernel's wake-up behind a blocking read. They are the bench's
own: compiled by yardsticks.py into build/, with -O3, never part of the package.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.list cimport PyList_GET_ITEM, PyList_New, PyList_SET_ITEM
from cpython.ref cimport Py_INCREF
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

DEF CHUNK = 500    # objects alive at a time: more would measure fresh allocator memory

cdef extern from *:
    """
    #include <limits.h>
    #include <linux/futex.h>
    #include <stdint.h>
    #include <sys/syscall.h>
    #include <time.h>
    #include <unistd.h>

    /* Four accumulators, so that the adds do not wait for each other; gcc makes them vectors. */
    static uint64_t sum_words(const uint64_t *words, int64_t count) {
      uint64_t a = 0, b = 0, c = 0, d = 0;
      int64_t i = 0;
      for (; i + 32 <= count; i += 32)
        for (int k = 0; k < 32; k += 4) {
          a += words[i + k];
          b += words[i + k + 1];
          c += words[i + k + 2];
          d += words[i + k + 3];
        }
      for (; i < count; i++) a += words[i];
      return a + b + c + d;
    }

    static void sleep_on(const uint32_t *word, uint32_t seen) {
      struct timespec limit = {0, 100000000};
      syscall(SYS_futex, word, FUTEX_WAIT, seen, &limit, 0, 0);
    }

    static void wake_all(const uint32_t *word) {
      syscall(SYS_futex, word, FUTEX_WAKE, INT_MAX, 0, 0, 0);
    }

    static int64_t monotonic_ns(void) {
      struct timespec now;
      clock_gettime(CLOCK_MONOTONIC, &now);
      return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
    }
    """
    uint64_t sum_words(const uint64_t *words, int64_t count) nogil
    void sleep_on(const uint32_t *word, uint32_t seen) nogil
    void wake_all(const uint32_t *word) nogil
    int64_t monotonic_ns() nogil
    uint32_t load_acquire "__atomic_load_n" (uint32_t *word, int order) nogil
    void store_release "__atomic_store_n" (uint32_t *word, uint32_t value, int order) nogil
    const int ACQUIRE "__ATOMIC_ACQUIRE"
    const int RELEASE "__ATOMIC_RELEASE"


def copy_list(list values, uint8_t[::1] target, int64_t position):
    """memcpy of every bytes object of the list into `target`, one behind the other.

    Returns the position after the last; raises IndexError when they do not fit.
    """
    cdef Py_ssize_t i, size, count = len(values)
    cdef object value
    for i in range(count):
        value = <object>PyList_GET_ITEM(values, i)
        size = PyBytes_GET_SIZE(value)
        if position + size > target.shape[0]:
            raise IndexError("the mapping is full")
        memcpy(&target[position], PyBytes_AS_STRING(value), size)
        position += size
    return position


def make_bytes(list values, int64_t count):
    """`count` new bytes objects with the contents of `values` in turn, in lists of 500.

    Every list dies before the next is made, as the chunks of a reader do.
    """
    cdef int64_t done = 0, size, i, at = 0, kinds = len(values)
    cdef list chunk
    cdef object source, made
    while done < count:
        size = count - done if count - done < CHUNK else CHUNK
        chunk = PyList_New(size)
        for i in range(size):
            source = <object>PyList_GET_ITEM(values, at)
            at = at + 1 if at + 1 < kinds else 0
            made = PyBytes_FromStringAndSize(PyBytes_AS_STRING(source), PyBytes_GET_SIZE(source))
            Py_INCREF(made)
            PyList_SET_ITEM(chunk, i, made)
        done += size
    return done


def read_sum(const uint8_t[::1] memory):
    """Reads the memory once, in 64-bit words, and returns their sum."""
    cdef uint64_t total
    with nogil:
        total = sum_words(<const uint64_t *>&memory[0], memory.shape[0] // 8)
    return total


cdef class Baton:
    """Two futex words in memory that two processes share: the bare cost of waking one of them.

    Layout: word 0 counts passes, word 1 counts receipts, bytes 8 to 15 the time of the pass.
    """

    cdef uint8_t[::1] memory
    cdef uint32_t *passes
    cdef uint32_t *receipts
    cdef int64_t *stamp

    def __cinit__(self, uint8_t[::1] memory not None):
        self.memory = memory
        self.passes = <uint32_t *>&memory[0]
        self.receipts = <uint32_t *>&memory[4]
        self.stamp = <int64_t *>&memory[8]

    def send(self):
        """Stamps the time, passes, wakes."""
        self.stamp[0] = monotonic_ns()
        store_release(self.passes, self.passes[0] + 1, RELEASE)
        wake_all(self.passes)

    def receive(self, uint32_t seen):
        """Sleeps until there are more passes than `seen`; returns ns since the latest was sent."""
        cdef int64_t taken
        with nogil:
            while load_acquire(self.passes, ACQUIRE) == seen:
                sleep_on(self.passes, seen)
            taken = monotonic_ns() - self.stamp[0]
            store_release(self.receipts, self.receipts[0] + 1, RELEASE)
        return taken

    @property
    def received(self):
        """How many passes were received."""
        return load_acquire(self.receipts, ACQUIRE)
