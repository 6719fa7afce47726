# cython: language_level=3, binding=False, boundscheck=False, wraparound=False, cdivision=True
# cython: autotestdict=False, auto_pickle=False
"""The native objects in the user's hand: Log, Cursor, Chunk, Record.

Arguments, lifetimes, the GIL and errors are here; bytes are C's business, policy is log.py's.

The GIL is held for short calls. A call that would wait (for the lock, a flush, a cold page) gets
PL_BUSY or PL_NOT_READY from C and comes again without the GIL, at most 100 ms at a time, so that
Ctrl-C works everywhere.

Lifetimes: a Mapping holds one reference to a segment and, for a compressed batch, its records.
Records and views hold the Mapping, so they outlive chunk, cursor and log.

One module in several files, by `include`: two extensions would each have their own copy of the C
core, and with it of what a process may have only once (the list of open logs, the fork count).
"""

cimport cython
from cpython.buffer cimport (
    PyBUF_FULL_RO, PyBUF_WRITABLE, PyBuffer_FillInfo, PyBuffer_IsContiguous, PyBuffer_Release,
    PyObject_CheckBuffer, PyObject_GetBuffer,
)
from cpython.bytes cimport (
    PyBytes_AS_STRING, PyBytes_Check, PyBytes_CheckExact, PyBytes_FromStringAndSize,
    PyBytes_GET_SIZE,
)
from cpython.dict cimport PyDict_GetItem
from cpython.exc cimport PyErr_CheckSignals
from cpython.list cimport (
    PyList_GET_ITEM, PyList_GET_SIZE, PyList_New, PyList_SET_ITEM,
)
from cpython.long cimport PyLong_AsLongLongAndOverflow, PyLong_Check, PyLong_CheckExact
from cpython.number cimport PyNumber_Index
from cpython.ref cimport PyObject, PyTypeObject, Py_INCREF, Py_XDECREF
from cpython.tuple cimport PyTuple_GET_ITEM, PyTuple_GET_SIZE
from cpython.unicode cimport PyUnicode_AsUTF8AndSize, PyUnicode_CheckExact
from libc.errno cimport EAGAIN, EMFILE, ENOMEM
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcmp, memcpy, memset
from posix.stdlib cimport posix_memalign

from pylog.csrc cimport *

import logging
import os
import sys
import threading

import numpy

from pylog import compression, errors

DEF BLOCK = 512           # records handed from C to Python at a time
DEF READ_BLOCK = 32      # the same where they are read: what is decoded stays at hand
DEF SLICE_MS = 100        # longest wait without looking at signals
DEF IDLE_SLICE_MS = 1000  # after some time: a wake-up costs 0.1 ms, and a signal wakes anyway
DEF READER_OPEN_MS = 1000 # how long mode="r" waits for who recovers or closes the log
DEF ENCODE_BYTES = 65536  # records that go into one compressed batch
DEF AHEAD = 32            # list entries to prefetch: their objects are rarely in the nearest cache

cdef extern from *:
    """
    #define prefetch(object) __builtin_prefetch(object)
    """
    void prefetch(void *object) noexcept nogil

cdef extern from "pythread.h":
    unsigned long PyThread_get_thread_ident()

cdef int64_t TIMESTAMP_MAX = 253402300799999  # the year 9999, as datetime has it
cdef int64_t DECOMPRESSED_MAX = 256 << 20
cdef int64_t DECOMPRESSED_LEAST = 8 << 20    # read also if the limit was lowered meanwhile

CRC_KERNEL = pl_crc32c_kernel().decode()

include "native/gate.pxi"
include "native/arguments.pxi"
include "native/record.pxi"
include "native/batch.pxi"
include "native/handle.pxi"
include "native/chunk.pxi"
include "native/cursor.pxi"
include "native/split.pxi"
include "native/appender.pxi"
include "native/log.pxi"
include "native/waiter.pxi"
include "native/table.pxi"
include "native/lanes.pxi"
include "native/fetcher.pxi"
include "native/step.pxi"
include "native/ledger.pxi"
include "native/checker.pxi"
include "native/partition.pxi"
include "native/filling.pxi"
include "native/future.pxi"
include "native/sender.pxi"
include "native/leases.pxi"
include "native/shares.pxi"
