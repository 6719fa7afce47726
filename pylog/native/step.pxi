"""Step: what `async for` awaits. Done at once where a record is at hand, and no coroutine is made.

The record is taken when the step is awaited, not when it is made, so a step that is cancelled or
forgotten takes none. A loop uses one step again and again.
"""

cdef extern from "plain_slots.h":
    ctypedef enum PySendResult:
        PYGEN_RETURN, PYGEN_ERROR, PYGEN_NEXT
    ctypedef PySendResult (*sendfunc)(PyObject *, PyObject *, PyObject **) except PYGEN_ERROR
    PySendResult PyIter_Send(PyObject *, PyObject *, PyObject **) except PYGEN_ERROR
    int pl_wrap_next(PyTypeObject *type) except -1
    int pl_wrap_anext(PyTypeObject *type) except -1
    void pl_set_send(PyTypeObject *type, sendfunc send)


@cython.final
cdef class Step:
    """Awaitable of the next record. Use it once, as `async for` does."""

    cdef Fetcher fetcher
    cdef object waiting     # the coroutine that waits for it; None: nothing had to be waited for
    cdef bint has_rested    # other tasks have had their turn

    def __init__(self, *arguments, **keywords):
        raise TypeError("steps come out of a consumer: `async for record in consumer`")

    def __await__(self):
        return self

    def __iter__(self):
        return self

    def __next__(self):
        return self.send(None)

    def send(self, value):
        """As a coroutine has it."""
        cdef PyObject *result = NULL
        if step_send(<PyObject *>self, <PyObject *>value, &result) == PYGEN_RETURN:
            found = <object>result
            Py_XDECREF(result)
            raise StopIteration(found)
        found = <object>result
        Py_XDECREF(result)
        return found

    def throw(self, *error):
        """As a coroutine has it: ends the wait."""
        if self.waiting is not None:
            return self.waiting.throw(*error)
        self.has_rested = True
        if isinstance(error[0], BaseException):
            raise error[0]
        raise error[1] if len(error) > 1 and error[1] is not None else error[0]

    def close(self):
        """As a coroutine has it: ends the wait."""
        if self.waiting is not None:
            self.waiting.close()


cdef PySendResult step_send(PyObject *self, PyObject *value, PyObject **result) \
        except PYGEN_ERROR:
    cdef Step step = <Step>self
    cdef Fetcher fetcher = step.fetcher
    cdef object record
    if step.waiting is not None:
        return PyIter_Send(<PyObject *>step.waiting, value, result)
    if fetcher.cursor is None or fetcher.cursor.at == fetcher.cursor.filled \
            or fetcher.ticks != pl_ticks:
        if not step.has_rested and fetcher.owes_rest():
            step.has_rested = True
            Py_INCREF(None)
            result[0] = <PyObject *>None
            return PYGEN_NEXT
        if not fetcher.advance_now():
            fetcher.step = None    # it may be left half-way
            step.waiting = fetcher._next_later()
            return PyIter_Send(<PyObject *>step.waiting, <PyObject *>None, result)
    record = fetcher.take_next()
    Py_INCREF(record)
    result[0] = <PyObject *>record
    return PYGEN_RETURN


pl_wrap_next(<PyTypeObject *>Fetcher)
pl_wrap_anext(<PyTypeObject *>Fetcher)
pl_set_send(<PyTypeObject *>Step, step_send)
