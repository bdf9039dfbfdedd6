// Owning and non-owning references to Python objects.
//
// Ref owns one reference; Borrowed owns none, and whoever stores one says in a comment who keeps the
// object alive. The only ways in are the named constructors `steal` (takes over a reference the caller
// owns, the usual result of a C-API call) and `share` (adds one). A decref may run arbitrary Python
// code: finish a mutation, move the Ref out, and let it go out of scope last.
//
// GIL: required for every operation except moving and comparing.
#pragma once

#include <Python.h>

#include <utility>

namespace flashpoint {

class Borrowed {
 public:
  Borrowed() = default;
  explicit Borrowed(PyObject* p) : p_(p) {}
  PyObject* get() const { return p_; }
  explicit operator bool() const { return p_ != nullptr; }
  bool operator==(const Borrowed&) const = default;

 private:
  PyObject* p_ = nullptr;
};

class Ref {
 public:
  Ref() = default;
  static Ref steal(PyObject* p) { return Ref(p); }
  static Ref share(PyObject* p) {
    Py_XINCREF(p);
    return Ref(p);
  }
  Ref(const Ref& other) : p_(other.p_) { Py_XINCREF(p_); }
  Ref(Ref&& other) noexcept : p_(std::exchange(other.p_, nullptr)) {}
  Ref& operator=(Ref other) noexcept {
    std::swap(p_, other.p_);
    return *this;
  }
  ~Ref() { Py_XDECREF(p_); }

  PyObject* get() const { return p_; }
  PyObject* release() { return std::exchange(p_, nullptr); }
  Borrowed borrow() const { return Borrowed(p_); }
  explicit operator bool() const { return p_ != nullptr; }

 private:
  explicit Ref(PyObject* p) : p_(p) {}
  PyObject* p_ = nullptr;
};

}  // namespace flashpoint
