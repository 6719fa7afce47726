/* Replaces a method of a Cython class by a function of CPython's own fast-call form.
 *
 * The generated wrapper is returned, for every call that the short way does not take. Where the
 * method is not a fast-call descriptor, nothing is replaced, and the answer is NULL.
 */
#ifndef PYLOG_SHORT_WAY_H
#define PYLOG_SHORT_WAY_H

#include <Python.h>
#include <stdlib.h>

typedef PyObject *(*pl_fast_call)(PyObject *, PyObject *const *, Py_ssize_t, PyObject *);

static pl_fast_call pl_take_short_way(PyTypeObject *type, const char *name, void *short_way) {
  PyObject *old = PyDict_GetItemString(type->tp_dict, name);
  if (!old || !Py_IS_TYPE(old, &PyMethodDescr_Type)) return NULL;
  PyMethodDef *method = malloc(sizeof(*method)); /* lives as long as the type, that is for ever */
  if (!method) return NULL;
  *method = *((PyMethodDescrObject *)old)->d_method;
  pl_fast_call wrapper = (pl_fast_call)(void (*)(void))method->ml_meth;
  method->ml_meth = (PyCFunction)(void (*)(void))short_way;
  PyObject *descriptor = method->ml_flags == (METH_FASTCALL | METH_KEYWORDS)
                             ? PyDescr_NewMethod(type, method) : NULL;
  if (!descriptor || PyDict_SetItemString(type->tp_dict, name, descriptor)) {
    PyErr_Clear();
    Py_XDECREF(descriptor);
    return NULL;
  }
  Py_DECREF(descriptor);
  PyType_Modified(type);
  return wrapper;
}

#endif
