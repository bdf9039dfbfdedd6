#include "py/internal.h"

#include <string>

#include "py/exception_table.h"
#include "py/generators.h"

namespace flashpoint::py {

namespace {

bool stands(PyObject* o) {
  const GeneratorPhase phase = generator_phase(o);
  return phase == GeneratorPhase::kCreated || phase == GeneratorPhase::kSuspended;
}

PyGenObject* generator(PyObject* o) { return reinterpret_cast<PyGenObject*>(o); }

_PyInterpreterFrame* frame_of(PyObject* o) {
  return reinterpret_cast<_PyInterpreterFrame*>(generator(o)->gi_iframe);
}

PyObject* exception_or_null(PyObject* value) { return value == Py_None ? nullptr : value; }

// The unit of a RETURN_VALUE, or -1. Caches may hold anything, so they are skipped by way of the code's own
// bytes.
int return_position(PyCodeObject* code) {
  Ref bytes = Ref::steal(PyCode_GetCode(code));
  if (!bytes) {
    PyErr_Clear();
    return -1;
  }
  const auto* text = reinterpret_cast<const unsigned char*>(PyBytes_AS_STRING(bytes.get()));
  for (Py_ssize_t i = PyBytes_GET_SIZE(bytes.get()) - 2; i >= 0; i -= 2) {
    if (text[i] == RETURN_VALUE) return static_cast<int>(i / 2);
  }
  return -1;
}

// As many cells as the code has free variables, all empty.
Ref empty_closure(PyCodeObject* code) {
  Ref closure = Ref::steal(PyTuple_New(code->co_nfreevars));
  for (int i = 0; closure && i < code->co_nfreevars; ++i) {
    PyObject* cell = PyCell_New(nullptr);
    if (cell == nullptr) return Ref();
    PyTuple_SET_ITEM(closure.get(), i, cell);
  }
  return closure;
}

// Calls the function with as many arguments as it takes; none of them is ever seen.
PyObject* call_for_generator(PyObject* function) {
  auto* code = reinterpret_cast<PyCodeObject*>(PyFunction_GET_CODE(function));
  const int keywords = code->co_kwonlyargcount;
  const std::vector<PyObject*> arguments(static_cast<size_t>(code->co_argcount + keywords), Py_None);
  Ref names;
  if (keywords > 0) {
    names = Ref::steal(PyTuple_New(keywords));
    for (int i = 0; names && i < keywords; ++i) {
      PyObject* name = PyTuple_GET_ITEM(code->co_localsplusnames, code->co_argcount + i);
      PyTuple_SET_ITEM(names.get(), i, Py_NewRef(name));
    }
    if (!names) return nullptr;
  }
  // A function that is being built has no closure yet where that holds the generator.
  PyObject*& closure = reinterpret_cast<PyFunctionObject*>(function)->func_closure;
  const bool open = closure == nullptr && code->co_nfreevars > 0;
  if (open) {
    closure = empty_closure(code).release();
    if (closure == nullptr) return nullptr;
  }
  PyObject* made =
      PyObject_Vectorcall(function, arguments.data(), static_cast<size_t>(code->co_argcount), names.get());
  if (open) Py_CLEAR(closure);
  if (made != nullptr && !PyGen_CheckExact(made)) {
    Py_DECREF(made);
    PyErr_SetString(PyExc_SystemError, "[flashpoint] a generator function that makes none");
    return nullptr;
  }
  return made;
}

void set_names(PyObject* made, PyObject* name, PyObject* qualname) {
  Py_XSETREF(generator(made)->gi_name, Py_NewRef(name));
  Py_XSETREF(generator(made)->gi_qualname, Py_NewRef(qualname));
}

}  // namespace

bool is_generator(PyObject* o) {
  return PyGen_CheckExact(o) && (generator(o)->gi_code->co_flags & CO_ITERABLE_COROUTINE) == 0;
}

GeneratorPhase generator_phase(PyObject* o) {
  const auto state = generator(o)->gi_frame_state;
  return state == FRAME_CREATED     ? GeneratorPhase::kCreated
         : state == FRAME_SUSPENDED ? GeneratorPhase::kSuspended
         : state == FRAME_EXECUTING ? GeneratorPhase::kRunning
                                    : GeneratorPhase::kFinished;
}

PyCodeObject* generator_code(PyObject* o) { return generator(o)->gi_code; }
PyObject* generator_name(PyObject* o) { return generator(o)->gi_name; }
PyObject* generator_qualname(PyObject* o) { return generator(o)->gi_qualname; }
PyObject* generator_function(PyObject* o) { return reinterpret_cast<PyObject*>(frame_of(o)->f_func); }
bool has_function_of_its_code(PyObject* o) {
  return PyFunction_GET_CODE(generator_function(o)) == reinterpret_cast<PyObject*>(generator_code(o));
}
int generator_position(PyObject* o) { return _PyInterpreterFrame_LASTI(frame_of(o)) + 1; }
bool has_generator_weakrefs(PyObject* o) { return generator(o)->gi_weakreflist != nullptr; }

bool is_generator_frame_seen(PyObject* o) {
  if (generator_phase(o) == GeneratorPhase::kFinished) return false;
  const PyFrameObject* object = frame_of(o)->frame_obj;
  return object != nullptr && Py_REFCNT(object) > 1;
}

std::vector<PyObject*> generator_slots(PyObject* o) {
  if (!stands(o)) return {};
  const _PyInterpreterFrame* frame = frame_of(o);
  std::vector<PyObject*> slots(frame->localsplus, frame->localsplus + frame->stacktop);
  slots.push_back(generator_handled(o));
  return slots;
}

PyObject* generator_slot(PyObject* o, int32_t i) {
  if (!is_generator(o) || !stands(o)) return nullptr;
  const _PyInterpreterFrame* frame = frame_of(o);
  if (i == frame->stacktop) return generator_handled(o);
  return i < frame->stacktop ? frame->localsplus[i] : nullptr;
}

Ref generator_state(PyObject* o) {
  const auto phase = static_cast<int>(generator_phase(o));
  PyCodeObject* code = generator_code(o);
  if (!stands(o)) return Ref::steal(Py_BuildValue("(iO)", phase, code));
  const std::vector<PyObject*> slots = generator_slots(o);
  std::string empty;
  for (const PyObject* slot : slots) empty.push_back(slot == nullptr ? '0' : '1');
  return Ref::steal(Py_BuildValue("(iOiis)", phase, code, generator_position(o),
                                  static_cast<int>(slots.size()), empty.c_str()));
}

bool generator_state_is(PyObject* o, PyObject* state) {
  if (!is_generator(o)) return false;
  const Ref now = generator_state(o);
  const int equal = now ? PyObject_RichCompareBool(now.get(), state, Py_EQ) : 0;
  if (equal != 1) PyErr_Clear();
  return equal == 1;
}

PyObject* generator_of(const _PyInterpreterFrame* frame) {
  if (frame->owner != FRAME_OWNED_BY_GENERATOR) return nullptr;
  return reinterpret_cast<PyObject*>(_PyFrame_GetGenerator(const_cast<_PyInterpreterFrame*>(frame)));
}

bool closes_noticeably(PyObject* o) {
  Handler handler;
  return generator_phase(o) == GeneratorPhase::kSuspended &&
         find_handler(generator(o)->gi_code, _PyInterpreterFrame_LASTI(frame_of(o)), &handler);
}

bool may_close_noticeably(PyObject* o) {
  return generator_phase(o) != GeneratorPhase::kFinished &&
         PyBytes_GET_SIZE(generator(o)->gi_code->co_exceptiontable) > 0;
}

bool is_generator_running(PyObject* o) { return generator(o)->gi_frame_state == FRAME_EXECUTING; }

PyObject* make_generator(PyObject* function, PyObject* name, PyObject* qualname) {
  PyObject* made = call_for_generator(function);
  if (made != nullptr) set_names(made, name, qualname);
  return made;
}

PyObject* make_finished_generator(PyObject* code, PyObject* name, PyObject* qualname) {
  Ref globals = Ref::steal(PyDict_New());
  Ref function = Ref::steal(globals ? PyFunction_New(code, globals.get()) : nullptr);
  if (!function) return nullptr;
  Ref made = Ref::steal(make_generator(function.get(), name, qualname));
  // One that has not started runs nothing when it is closed.
  Ref closed = Ref::steal(made ? PyObject_CallMethod(made.get(), "close", nullptr) : nullptr);
  return closed ? made.release() : nullptr;
}

void write_generator(PyObject* o, std::vector<PyObject*> slots, int position, bool started) {
  _PyInterpreterFrame* frame = frame_of(o);
  std::vector<PyObject*> old(frame->localsplus, frame->localsplus + frame->stacktop);
  PyObject* handled = slots.back();
  slots.pop_back();
  for (size_t i = 0; i < slots.size(); ++i) frame->localsplus[i] = slots[i];
  frame->stacktop = static_cast<int>(slots.size());
  frame->prev_instr = _PyCode_CODE(frame->f_code) + position - 1;
  generator(o)->gi_frame_state = started ? FRAME_SUSPENDED : FRAME_CREATED;
  set_generator_handled(o, Ref::steal(handled));
  for (PyObject* value : old) Py_XDECREF(value);
}

PyObject* generator_handled(PyObject* o) { return exception_or_null(generator(o)->gi_exc_state.exc_value); }

void set_generator_handled(PyObject* o, Ref exception) {
  PyObject*& slot = generator(o)->gi_exc_state.exc_value;
  // Moved out first: what is dropped may run Python code.
  const Ref old = Ref::steal(slot);
  slot = exception.release();
}

void set_stop_iteration(PyObject* value) { _PyGen_SetStopIterationValue(value); }

bool can_finish(PyCodeObject* code) { return return_position(code) >= 0; }

bool finish_generator(PyObject* o) {
  _PyInterpreterFrame* frame = frame_of(o);
  const int position = return_position(frame->f_code);
  if (position < 0) {
    PyErr_SetString(PyExc_SystemError, "[flashpoint] a generator that does not return");
    return false;
  }
  std::vector<PyObject*> slots(static_cast<size_t>(frame->f_code->co_nlocalsplus) + 1, nullptr);
  write_generator(o, std::move(slots), position, true);
  PyObject* value = nullptr;  // None is sent, and returned
  const PySendResult status = PyIter_Send(o, Py_None, &value);
  Py_XDECREF(value);
  return status == PYGEN_RETURN;
}

void suspend_generator(PyObject* o) { generator(o)->gi_frame_state = FRAME_SUSPENDED; }

}  // namespace flashpoint::py
