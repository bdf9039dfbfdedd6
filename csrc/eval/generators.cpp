#include "eval/generators.h"

#include "py/ref.h"

namespace flashpoint {
namespace {

bool iterable_coroutine(PyObject* object) {
  return PyGen_CheckExact(object) &&
         (reinterpret_cast<PyGenObject*>(object)->gi_code->co_flags & CO_ITERABLE_COROUTINE) != 0;
}

// What __await__ gives, or the object itself when it is a coroutine.
PyObject* await_protocol(PyObject* object) {
  if (PyCoro_CheckExact(object) || iterable_coroutine(object)) {
    Py_INCREF(object);
    return object;
  }
  PyTypeObject* type = Py_TYPE(object);
  if (type->tp_as_async == nullptr || type->tp_as_async->am_await == nullptr) {
    PyErr_Format(PyExc_TypeError, "object %.100s can't be used in 'await' expression", type->tp_name);
    return nullptr;
  }
  Ref result = Ref::steal(type->tp_as_async->am_await(object));
  if (!result) return nullptr;
  if (PyCoro_CheckExact(result.get()) || iterable_coroutine(result.get())) {
    PyErr_SetString(PyExc_TypeError, "__await__() returned a coroutine");
    return nullptr;
  }
  if (!PyIter_Check(result.get())) {
    PyErr_Format(PyExc_TypeError, "__await__() returned non-iterator of type '%.100s'",
                 Py_TYPE(result.get())->tp_name);
    return nullptr;
  }
  return result.release();
}

}  // namespace

PyObject* yield_from_iterator(PyObject* object, int flags) {
  if (PyCoro_CheckExact(object)) {
    if (flags & (CO_COROUTINE | CO_ITERABLE_COROUTINE)) {
      Py_INCREF(object);
      return object;
    }
    PyErr_SetString(PyExc_TypeError, "cannot 'yield from' a coroutine object in a non-coroutine generator");
    return nullptr;
  }
  if (PyGen_CheckExact(object)) {
    Py_INCREF(object);
    return object;
  }
  return PyObject_GetIter(object);
}

PyObject* awaitable_iterator(PyObject* object, int where) {
  Ref iterator = Ref::steal(await_protocol(object));
  if (!iterator) {
    PyTypeObject* type = Py_TYPE(object);
    if ((type->tp_as_async == nullptr || type->tp_as_async->am_await == nullptr) &&
        (where == 1 || where == 2)) {
      PyErr_Format(PyExc_TypeError,
                   "'async with' received an object from %s that does not implement __await__: %.100s",
                   where == 1 ? "__aenter__" : "__aexit__", type->tp_name);
    }
    return nullptr;
  }
  if (PyCoro_CheckExact(iterator.get())) {
    Ref awaited = Ref::steal(PyObject_GetAttrString(iterator.get(), "cr_await"));
    if (!awaited) return nullptr;
    if (awaited.get() != Py_None) {
      PyErr_SetString(PyExc_RuntimeError, "coroutine is being awaited already");
      return nullptr;
    }
  }
  return iterator.release();
}

PyObject* async_iterator(PyObject* object) {
  PyTypeObject* type = Py_TYPE(object);
  if (type->tp_as_async == nullptr || type->tp_as_async->am_aiter == nullptr) {
    PyErr_Format(PyExc_TypeError, "'async for' requires an object with __aiter__ method, got %.100s",
                 type->tp_name);
    return nullptr;
  }
  Ref iterator = Ref::steal(type->tp_as_async->am_aiter(object));
  if (!iterator) return nullptr;
  PyTypeObject* iterator_type = Py_TYPE(iterator.get());
  if (iterator_type->tp_as_async == nullptr || iterator_type->tp_as_async->am_anext == nullptr) {
    PyErr_Format(PyExc_TypeError,
                 "'async for' received an object from __aiter__ that does not implement __anext__: %.100s",
                 iterator_type->tp_name);
    return nullptr;
  }
  return iterator.release();
}

PyObject* async_next(PyObject* iterator) {
  PyTypeObject* type = Py_TYPE(iterator);
  if (PyAsyncGen_CheckExact(iterator)) return type->tp_as_async->am_anext(iterator);
  if (type->tp_as_async == nullptr || type->tp_as_async->am_anext == nullptr) {
    PyErr_Format(PyExc_TypeError, "'async for' requires an iterator with __anext__ method, got %.100s",
                 type->tp_name);
    return nullptr;
  }
  Ref next = Ref::steal(type->tp_as_async->am_anext(iterator));
  if (!next) return nullptr;
  PyObject* awaitable = await_protocol(next.get());
  if (awaitable == nullptr) {
    _PyErr_FormatFromCause(PyExc_TypeError, "'async for' received an invalid object from __anext__: %.100s",
                           Py_TYPE(next.get())->tp_name);
  }
  return awaitable;
}

}  // namespace flashpoint
