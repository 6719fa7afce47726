/* Slots of a Cython class as CPython's own types have them.
 *
 * Cython enters __next__ into the class as a method, so that a Python subclass calls it through a
 * look-up, 10 ns a record. As a slot wrapper it is inherited as what it is: a C function.
 */
#ifndef PYLOG_PLAIN_SLOTS_H
#define PYLOG_PLAIN_SLOTS_H

#include <Python.h>

/* `of`: a type of CPython's with a wrapper of that name, whose description is borrowed. Where it is
 * none, nothing is replaced. */
static int pl_wrap_slot(PyTypeObject *type, const char *name, PyTypeObject *of, void *slot) {
  PyObject *found = PyObject_GetAttrString((PyObject *)of, name);
  if (!found) return -1;
  int status = 0;
  if (slot && Py_IS_TYPE(found, &PyWrapperDescr_Type)) {
    PyObject *wrapper = PyDescr_NewWrapper(type, ((PyWrapperDescrObject *)found)->d_base, slot);
    status = wrapper ? PyDict_SetItemString(type->tp_dict, name, wrapper) : -1;
    Py_XDECREF(wrapper);
    PyType_Modified(type);
  }
  Py_DECREF(found);
  return status;
}

static int pl_wrap_next(PyTypeObject *type) {
  return pl_wrap_slot(type, "__next__", &PyRangeIter_Type, (void *)type->tp_iternext);
}

static int pl_wrap_anext(PyTypeObject *type) {
  void *slot = type->tp_as_async ? (void *)type->tp_as_async->am_anext : NULL;
  return pl_wrap_slot(type, "__anext__", &PyAsyncGen_Type, slot);
}

/* Cython has no name for this slot. Without it a result comes as a StopIteration, 50 ns more. */
static void pl_set_send(PyTypeObject *type, sendfunc send) {
  if (type->tp_as_async) type->tp_as_async->am_send = send;
}

#endif
