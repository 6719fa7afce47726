/* Slots of a Cython class as CPython's own types have them, for its Python subclasses.
 *
 * Cython enters __next__ into the class as a method, so that a Python subclass calls it through a
 * look-up, 10 ns a record. As a slot wrapper it is inherited as what it is: a C function.
 */
#ifndef PYLOG_PLAIN_SLOTS_H
#define PYLOG_PLAIN_SLOTS_H

#include <Python.h>

/* Borrows the description of the slot from list_iterator's wrapper. Where that is none, nothing is
 * replaced. */
static int pl_wrap_next(PyTypeObject *type) {
  PyObject *list = PyList_New(0), *iterator = list ? PyObject_GetIter(list) : NULL;
  Py_XDECREF(list);
  if (!iterator) return -1;
  PyObject *found = PyObject_GetAttrString((PyObject *)Py_TYPE(iterator), "__next__");
  Py_DECREF(iterator);
  if (!found) return -1;
  int status = 0;
  if (Py_IS_TYPE(found, &PyWrapperDescr_Type)) {
    struct wrapperbase *base = ((PyWrapperDescrObject *)found)->d_base;
    PyObject *wrapper = PyDescr_NewWrapper(type, base, (void *)type->tp_iternext);
    status = wrapper ? PyDict_SetItemString(type->tp_dict, "__next__", wrapper) : -1;
    Py_XDECREF(wrapper);
    PyType_Modified(type);
  }
  Py_DECREF(found);
  return status;
}

#endif
