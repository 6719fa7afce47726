/* Replaces a method of a Cython class by a function of CPython's own fast-call form.
 *
 * The generated wrapper stays reachable as pl_append_wrapper, for every call that the short way
 * does not take. Where the method is not a fast-call descriptor, nothing is replaced.
 */
#ifndef PYLOG_SHORT_WAY_H
#define PYLOG_SHORT_WAY_H

#include <Python.h>

typedef PyObject *(*pl_fast_call)(PyObject *, PyObject *const *, Py_ssize_t, PyObject *);
static pl_fast_call pl_append_wrapper;

static int pl_take_short_way(PyTypeObject *type, void *short_way) {
  static PyMethodDef method;
  PyObject *old = PyDict_GetItemString(type->tp_dict, "append");
  if (!old || !Py_IS_TYPE(old, &PyMethodDescr_Type)) return 0;
  method = *((PyMethodDescrObject *)old)->d_method;
  if (method.ml_flags != (METH_FASTCALL | METH_KEYWORDS)) return 0;
  pl_append_wrapper = (pl_fast_call)(void (*)(void))method.ml_meth;
  method.ml_meth = (PyCFunction)(void (*)(void))short_way;
  PyObject *descriptor = PyDescr_NewMethod(type, &method);
  if (!descriptor) return -1;
  int status = PyDict_SetItemString(type->tp_dict, "append", descriptor);
  Py_DECREF(descriptor);
  PyType_Modified(type);
  return status;
}

#endif
