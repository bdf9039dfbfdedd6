#include "py/internal.h"

#include <algorithm>

#include "eval/calls.h"
#include "eval/frame_control.h"
#include "eval/frame_state.h"
#include "eval/opcodes_tables.h"
#include "py/frame.h"
#include "py/generators.h"
#include "py/ref.h"

namespace flashpoint {

namespace {

int opcode_of(_Py_CODEUNIT unit) { return fp_opcode_deopt[_Py_OPCODE(unit)]; }

// The first prefix of the instruction at `at`. Found from the start of the code: what stands before an
// instruction may be a cache, and a cache may hold anything.
int first_unit(PyCodeObject* code, int at) {
  const _Py_CODEUNIT* units = _PyCode_CODE(code);
  int start = 0;
  for (int i = 0; i < at; ++i) {
    const int opcode = opcode_of(units[i]);
    if (opcode == EXTENDED_ARG) continue;
    i += fp_opcode_caches[opcode];
    start = i + 1;
  }
  return start;
}

int argument_of(PyCodeObject* code, int at) {
  const _Py_CODEUNIT* units = _PyCode_CODE(code);
  int argument = 0;
  for (int i = first_unit(code, at); i <= at; ++i) argument = (argument << 8) | _Py_OPARG(units[i]);
  return argument;
}

int current_unit(const EvalFrame& frame) {
  return static_cast<int>(frame.frame->prev_instr - _PyCode_CODE(frame.frame->f_code));
}

// Operands of the instruction in progress on the stack.
int operand_count(const EvalFrame& frame) {
  if (frame.operands_popped) return 0;
  PyCodeObject* code = frame.frame->f_code;
  const int at = current_unit(frame);
  switch (opcode_of(_PyCode_CODE(code)[at])) {
    case CALL:
      return argument_of(code, at) + 2;
    case CALL_FUNCTION_EX:
      return 3 + (argument_of(code, at) & 1);
    case LOAD_ATTR:
      return 1;
    case SEND:  // what was sent has arrived
      return 1;
    case BEFORE_WITH:        // __enter__ runs, and __exit__ has taken the place of the manager
    case WITH_EXCEPT_START:  // the operands of __exit__ stay where they are
    case FOR_ITER:
      return 0;
    default:
      return -1;
  }
}

}  // namespace

Observer* FrameControl::nobody() {
  static char address;
  return reinterpret_cast<Observer*>(&address);
}

int restart_position(const EvalFrame& frame, const Operands& operands) {
  const bool has_keyword_names = operands.event == Event::kCall && operands.kwnames != nullptr;
  PyCodeObject* code = frame.frame->f_code;
  const _Py_CODEUNIT* units = _PyCode_CODE(code);
  const int at = current_unit(frame);
  switch (opcode_of(units[at])) {
    case BEFORE_WITH:
      // The first of its steps looks up __enter__.
      if (operands.event == Event::kSpecial && operands.name == special_enter()) break;
      return -1;
    case PRINT_EXPR:
    case RESUME:
      return -1;  // several steps, some of which may be done
    case CALL_FUNCTION_EX: {
      // The arguments must not be unpacked twice.
      PyObject** top = frame.stack_pointer;
      const bool mapping = (argument_of(code, at) & 1) != 0;
      if (mapping && !PyDict_CheckExact(top[-1])) return -1;
      PyObject* positional = top[mapping ? -2 : -1];
      if (!PyTuple_CheckExact(positional) && !PyList_CheckExact(positional)) return -1;
      break;
    }
    case CALL:
      if (has_keyword_names) {
        const int precall = first_unit(code, at) - 1 - INLINE_CACHE_ENTRIES_PRECALL;
        if (precall <= 0 || opcode_of(units[precall]) != PRECALL) return -1;
        const int names = first_unit(code, precall) - 1;
        if (names < 0 || opcode_of(units[names]) != KW_NAMES) return -1;
        return first_unit(code, names);
      }
      break;
    default:
      break;
  }
  return first_unit(code, at);
}

int call_position(const EvalFrame& frame) {
  if (operand_count(frame) < 0) return -1;
  PyCodeObject* code = frame.frame->f_code;
  const int at = current_unit(frame);
  const int opcode = opcode_of(_PyCode_CODE(code)[at]);
  // These are done again, prefixes and all.
  return opcode == FOR_ITER || opcode == SEND ? first_unit(code, at) : at;
}

int boundary_position(const EvalFrame& frame) { return current_unit(frame) + 1; }

bool is_instruction(PyCodeObject* code, int at) {
  return at >= 0 && at < Py_SIZE(code) && first_unit(code, at) == at;
}

bool holds_cell(PyCodeObject* code, size_t slot) {
  const char kind = PyBytes_AS_STRING(code->co_localspluskinds)[slot];
  return (kind & (CO_FAST_CELL | CO_FAST_FREE)) != 0;
}

bool can_make_frame(PyCodeObject* code) {
  constexpr int kSuspendable = CO_GENERATOR | CO_COROUTINE | CO_ASYNC_GENERATOR | CO_ITERABLE_COROUTINE;
  return (code->co_flags & CO_OPTIMIZED) != 0 && (code->co_flags & kSuspendable) == 0;
}

std::vector<PyObject*> frame_slots(const EvalFrame& frame, bool in_call) {
  PyObject** const slots = frame.frame->localsplus;
  PyObject** const end = frame.stack_pointer - (in_call ? operand_count(frame) : 0);
  return {slots, end};
}

void add_references(const EvalFrame& frame, const EvalFrame* callee, std::vector<PyObject*>* references) {
  const std::vector<PyObject*> slots = frame_slots(frame, false);
  references->insert(references->end(), slots.begin(), slots.end());
  references->push_back(reinterpret_cast<PyObject*>(frame.frame->f_func));
  if (callee == nullptr) return;
  if (callee->link == FrameLink::kInit) references->push_back(callee->link_self);
  if (frame.operands_popped) return;
  PyCodeObject* code = frame.frame->f_code;
  const int opcode = opcode_of(_PyCode_CODE(code)[current_unit(frame)]);
  const auto operands = slots.end() - operand_count(frame);
  if (opcode == CALL) {
    // Classes and objects with a __call__ get their arguments in a tuple.
    const auto callable = *operands != nullptr ? operands : operands + 1;
    if (!PyFunction_Check(*callable)) references->insert(references->end(), callable + 1, slots.end());
  } else if (opcode == CALL_FUNCTION_EX) {
    for (auto it = operands + 2; it != slots.end(); ++it) {
      references->push_back(*it);
      if (PyTuple_Check(*it)) {
        for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(*it); ++i)
          references->push_back(PyTuple_GET_ITEM(*it, i));
      } else if (PyDict_Check(*it)) {
        PyObject *key, *value;
        Py_ssize_t position = 0;
        while (PyDict_Next(*it, &position, &key, &value)) references->push_back(value);
      }
    }
  } else if (opcode == BEFORE_WITH) {
    references->push_back(py::frame_local(callee->frame, 0));  // by the bound __enter__
  }
}

PyObject* frame_slot(const EvalFrame& frame, size_t i) {
  return static_cast<int>(i) < frame.frame->stacktop ? frame.frame->localsplus[i] : nullptr;
}

void write_frame(EvalFrame& frame, std::vector<PyObject*> slots, int position) {
  _PyInterpreterFrame* f = frame.frame;
  const int count = static_cast<int>(slots.size());
  std::vector<PyObject*> old(f->localsplus, f->localsplus + f->stacktop);
  for (int i = 0; i < count; ++i) f->localsplus[i] = slots[i];
  f->stacktop = count;
  f->prev_instr = _PyCode_CODE(f->f_code) + position - 1;
  frame.stack_pointer = f->localsplus + count;
  for (PyObject* object : old) Py_XDECREF(object);
}

void clear_stack(EvalFrame& frame) {
  std::vector<PyObject*> locals;
  for (int i = 0; i < frame.frame->f_code->co_nlocalsplus; ++i)
    locals.push_back(Py_XNewRef(frame_slot(frame, i)));
  write_frame(frame, std::move(locals), boundary_position(frame));
}

PyObject* start_frame(PyObject* function) {
  auto* code = reinterpret_cast<PyCodeObject*>(PyFunction_GET_CODE(function));
  const int keywords = code->co_kwonlyargcount;
  std::vector<PyObject*> arguments(static_cast<size_t>(code->co_argcount + keywords), Py_None);
  Ref names;
  if (keywords > 0) {
    names = Ref::steal(PyTuple_New(keywords));
    if (!names) return nullptr;
    for (int i = 0; i < keywords; ++i) {
      PyObject* name = PyTuple_GET_ITEM(code->co_localsplusnames, code->co_argcount + i);
      PyTuple_SET_ITEM(names.get(), i, Py_NewRef(name));
    }
  }
  return PyObject_Vectorcall(function, arguments.data(), static_cast<size_t>(code->co_argcount), names.get());
}

void take_tags(EvalFrame& frame, const Observer& observer) {
  if (frame.tags_of == observer.serial) return;
  frame.tags_of = observer.serial;
  const PyCodeObject* code = frame.frame->f_code;
  std::fill_n(frame.tags, code->co_nlocalsplus + code->co_stacksize + 1, Tag{0});
}

bool is_plain_frame(const EvalFrame& frame) {
  const int flags = frame.frame->f_code->co_flags;
  const int suspendable = flags & (CO_GENERATOR | CO_COROUTINE | CO_ASYNC_GENERATOR | CO_ITERABLE_COROUTINE);
  PyObject* generator = py::generator_of(frame.frame);
  const bool known = generator == nullptr ? frame.frame->owner == FRAME_OWNED_BY_THREAD && suspendable == 0
                                          : PyGen_CheckExact(generator) && suspendable == CO_GENERATOR;
  return known && (flags & CO_OPTIMIZED) != 0 && frame.frame->f_func != nullptr &&
         PyFunction_GET_CODE(reinterpret_cast<PyObject*>(frame.frame->f_func)) ==
             reinterpret_cast<PyObject*>(frame.frame->f_code);
}

}  // namespace flashpoint
