#include "eval/errors.h"

namespace flashpoint {
namespace {

void call_trace_function(PyThreadState* tstate, Py_tracefunc function, PyObject* object,
                         _PyInterpreterFrame* frame, int what, PyObject* argument) {
  if (function == nullptr || tstate->tracing) return;
  PyObject *type, *value, *traceback;
  PyErr_Fetch(&type, &value, &traceback);
  PyFrameObject* frame_object = frame->frame_obj != nullptr ? frame->frame_obj : PyEval_GetFrame();
  int status = 0;
  if (frame_object != nullptr) {
    const int outer_what = tstate->tracing_what;
    tstate->tracing_what = what;
    PyThreadState_EnterTracing(tstate);
    frame_object->f_lineno = PyFrame_GetLineNumber(frame_object);
    status = function(object, frame_object, what, argument);
    frame_object->f_lineno = 0;
    PyThreadState_LeaveTracing(tstate);
    tstate->tracing_what = outer_what;
  }
  if (status == 0) {
    PyErr_Restore(type, value, traceback);
  } else {  // the trace function's own error replaces the one being raised
    Py_XDECREF(type);
    Py_XDECREF(value);
    Py_XDECREF(traceback);
  }
}

void raise_with_name(PyObject* type, const char* format, PyObject* name) {
  const char* text = PyUnicode_AsUTF8(name);
  if (text == nullptr) return;
  PyErr_Format(type, format, text);
  if (type != PyExc_NameError) return;
  // The name is kept on the exception for suggestions; failing to is not an error.
  PyObject* exception = take_exception();
  if (PyErr_GivenExceptionMatches(exception, PyExc_NameError) &&
      reinterpret_cast<PyNameErrorObject*>(exception)->name == nullptr &&
      PyObject_SetAttrString(exception, "name", name) < 0) {
    PyErr_Clear();
  }
  restore_exception(exception);
  Py_DECREF(exception);
}

constexpr const char* kUnboundLocal =
    "cannot access local variable '%s' where it is not associated with a value";
constexpr const char* kUnboundFree =
    "cannot access free variable '%s' where it is not associated with a value in enclosing scope";

// Calls an exception class given to raise or from.
PyObject* instantiate(PyObject* type) { return PyObject_CallNoArgs(type); }

}  // namespace

void add_traceback(_PyInterpreterFrame* frame) {
  if (_PyFrame_IsIncomplete(frame)) return;
  PyFrameObject* frame_object = frame->frame_obj != nullptr ? frame->frame_obj : PyEval_GetFrame();
  if (frame_object != nullptr) PyTraceBack_Here(frame_object);
}

PyObject* take_exception() {
  PyObject *type, *value, *traceback;
  PyErr_Fetch(&type, &value, &traceback);
  PyErr_NormalizeException(&type, &value, &traceback);
  PyException_SetTraceback(value, traceback != nullptr ? traceback : Py_None);
  Py_XDECREF(traceback);
  Py_XDECREF(type);
  return value;
}

void restore_exception(PyObject* exception) {
  PyObject* type = PyExceptionInstance_Class(exception);
  Py_INCREF(type);
  Py_INCREF(exception);
  PyErr_Restore(type, exception, PyException_GetTraceback(exception));
}

bool raise_statement(PyThreadState* tstate, PyObject* exception, PyObject* cause) {
  if (exception == nullptr) {
    PyObject* active = _PyErr_GetTopmostException(tstate)->exc_value;
    if (active == nullptr || active == Py_None) {
      PyErr_SetString(PyExc_RuntimeError, "No active exception to reraise");
      return false;
    }
    restore_exception(active);
    return true;
  }
  PyObject* type = nullptr;
  PyObject* value = nullptr;
  bool good = false;
  if (PyExceptionClass_Check(exception)) {
    type = exception;
    value = instantiate(type);
    if (value != nullptr && !PyExceptionInstance_Check(value)) {
      PyErr_Format(PyExc_TypeError, "calling %R should have returned an instance of BaseException, not %R",
                   type, Py_TYPE(value));
    } else {
      good = value != nullptr;
    }
  } else if (PyExceptionInstance_Check(exception)) {
    value = exception;
    type = PyExceptionInstance_Class(exception);
    Py_INCREF(type);
    good = true;
  } else {
    Py_DECREF(exception);
    PyErr_SetString(PyExc_TypeError, "exceptions must derive from BaseException");
  }
  if (good && cause != nullptr) {
    PyObject* fixed = nullptr;
    if (PyExceptionClass_Check(cause)) {
      fixed = instantiate(cause);
      good = fixed != nullptr;
      if (good) Py_CLEAR(cause);
    } else if (PyExceptionInstance_Check(cause)) {
      fixed = cause;
      cause = nullptr;
    } else if (cause == Py_None) {
      Py_CLEAR(cause);
    } else {
      PyErr_SetString(PyExc_TypeError, "exception causes must derive from BaseException");
      good = false;
    }
    if (good) PyException_SetCause(value, fixed);
  }
  if (good) PyErr_SetObject(type, value);
  Py_XDECREF(value);
  Py_XDECREF(type);
  Py_XDECREF(cause);
  return false;
}

int check_except_type(PyObject* type) {
  const bool several = PyTuple_Check(type);
  const Py_ssize_t count = several ? PyTuple_GET_SIZE(type) : 1;
  for (Py_ssize_t i = 0; i < count; ++i) {
    if (PyExceptionClass_Check(several ? PyTuple_GET_ITEM(type, i) : type)) continue;
    PyErr_SetString(PyExc_TypeError,
                    "catching classes that do not inherit from BaseException is not allowed");
    return -1;
  }
  return 0;
}

void raise_unbound_local(PyCodeObject* code, int slot) {
  raise_with_name(PyExc_UnboundLocalError, kUnboundLocal, PyTuple_GET_ITEM(code->co_localsplusnames, slot));
}

void raise_unbound_cell(PyCodeObject* code, int slot) {
  PyObject* name = PyTuple_GET_ITEM(code->co_localsplusnames, slot);
  if (slot < code->co_nlocals + code->co_nplaincellvars) {
    raise_with_name(PyExc_UnboundLocalError, kUnboundLocal, name);
  } else {
    raise_with_name(PyExc_NameError, kUnboundFree, name);
  }
}

void raise_name_error(PyObject* name) {
  raise_with_name(PyExc_NameError, "name '%.200s' is not defined", name);
}

void trace_exception(PyThreadState* tstate, _PyInterpreterFrame* frame) {
  if (tstate->c_tracefunc == nullptr || tstate->tracing) return;
  PyObject *type, *value, *traceback;
  PyErr_Fetch(&type, &value, &traceback);
  PyErr_NormalizeException(&type, &value, &traceback);
  PyObject* argument = PyTuple_Pack(3, type, value, traceback != nullptr ? traceback : Py_None);
  if (argument == nullptr) PyErr_Clear();
  PyErr_Restore(type, value, traceback);
  if (argument == nullptr) return;
  call_trace_function(tstate, tstate->c_tracefunc, tstate->c_traceobj, frame, PyTrace_EXCEPTION, argument);
  Py_DECREF(argument);
}

void trace_unwind(PyThreadState* tstate, _PyInterpreterFrame* frame) {
  call_trace_function(tstate, tstate->c_tracefunc, tstate->c_traceobj, frame, PyTrace_RETURN, nullptr);
  call_trace_function(tstate, tstate->c_profilefunc, tstate->c_profileobj, frame, PyTrace_RETURN, nullptr);
}

}  // namespace flashpoint
