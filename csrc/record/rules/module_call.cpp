// The way of a call through nn.Module, from __call__ to forward(), without its instructions.
//
// Every call of a module comes through it, and it asks some forty questions, most of them whether there are
// hooks. Where there are none, what it reads is recorded as one guard, its frame is brought to where it calls
// forward(), and goes on from there; in any other case its instructions run. It is known by its bytecode:
// code that is written otherwise runs as it is.
#include <opcode.h>

#include <string_view>

#include "eval/opcodes_tables.h"
#include "guard/plain_call.h"
#include "py/frame.h"
#include "py/layout.h"
#include "record/recorder.h"
#include "record/rules/rules.h"

namespace flashpoint {

namespace {

// Module._call_impl up to the call of forward(): opcodes, and the names they are about.
struct Instruction {
  int opcode;
  const char* name = nullptr;
};
constexpr Instruction kWay[] = {{MAKE_CELL, "self"},
                                {MAKE_CELL, "args"},
                                {MAKE_CELL, "kwargs"},
                                {MAKE_CELL, "called_always_called_hooks"},
                                {MAKE_CELL, "forward_call"},
                                {MAKE_CELL, "result"},
                                {RESUME},
                                {LOAD_GLOBAL, "torch"},
                                {LOAD_ATTR, "_C"},
                                {LOAD_METHOD, "_get_tracing_state"},
                                {PRECALL},
                                {CALL},
                                {POP_JUMP_FORWARD_IF_FALSE},
                                {LOAD_DEREF, "self"},
                                {LOAD_ATTR, "_slow_forward"},
                                {JUMP_FORWARD},
                                {LOAD_DEREF, "self"},
                                {LOAD_ATTR, "forward"},
                                {STORE_DEREF, "forward_call"},
                                {LOAD_DEREF, "self"},
                                {LOAD_ATTR, "_backward_hooks"},
                                {POP_JUMP_FORWARD_IF_TRUE},
                                {LOAD_DEREF, "self"},
                                {LOAD_ATTR, "_backward_pre_hooks"},
                                {POP_JUMP_FORWARD_IF_TRUE},
                                {LOAD_DEREF, "self"},
                                {LOAD_ATTR, "_forward_hooks"},
                                {POP_JUMP_FORWARD_IF_TRUE},
                                {LOAD_DEREF, "self"},
                                {LOAD_ATTR, "_forward_pre_hooks"},
                                {POP_JUMP_FORWARD_IF_TRUE},
                                {LOAD_GLOBAL, "_global_backward_pre_hooks"},
                                {POP_JUMP_FORWARD_IF_TRUE},
                                {LOAD_GLOBAL, "_global_backward_hooks"},
                                {POP_JUMP_FORWARD_IF_TRUE},
                                {LOAD_GLOBAL, "_global_forward_hooks"},
                                {POP_JUMP_FORWARD_IF_TRUE},
                                {LOAD_GLOBAL, "_global_forward_pre_hooks"},
                                {POP_JUMP_FORWARD_IF_TRUE},
                                {PUSH_NULL},
                                {LOAD_DEREF, "forward_call"},
                                {LOAD_DEREF, "args"},
                                {BUILD_MAP},
                                {LOAD_DEREF, "kwargs"},
                                {DICT_MERGE},
                                {CALL_FUNCTION_EX},
                                {RETURN_VALUE}};

PyObject* name_of(PyCodeObject* code, int opcode, int oparg) {
  switch (opcode) {
    case LOAD_GLOBAL:
      return PyTuple_GetItem(code->co_names, oparg >> 1);
    case LOAD_ATTR:
    case LOAD_METHOD:
      return PyTuple_GetItem(code->co_names, oparg);
    case MAKE_CELL:
    case LOAD_DEREF:
    case STORE_DEREF:
      return PyTuple_GetItem(code->co_localsplusnames, oparg);
    default:
      return nullptr;
  }
}

bool is_empty_dict(PyObject* object) {
  return object != nullptr && (PyDict_CheckExact(object) || PyODict_CheckExact(object)) &&
         PyDict_GET_SIZE(object) == 0;
}

}  // namespace

void Rules::learn_module_call(PyCodeObject* code) {
  Ref bytes = Ref::steal(PyCode_GetCode(code));
  if (!bytes) return PyErr_Clear();
  const auto* units = reinterpret_cast<const unsigned char*>(PyBytes_AS_STRING(bytes.get()));
  const Py_ssize_t size = PyBytes_GET_SIZE(bytes.get());
  Py_ssize_t at = 0;
  int before_call = -1, previous = -1;
  module_call_cells_.clear();
  for (const Instruction& wanted : kWay) {
    if (at + 1 >= size || units[at] != wanted.opcode) return;
    PyObject* name = name_of(code, units[at], units[at + 1]);
    if (PyErr_Occurred() != nullptr) return PyErr_Clear();
    if ((wanted.name != nullptr) != (name != nullptr)) return;
    if (name != nullptr && PyUnicode_CompareWithASCIIString(name, wanted.name) != 0) return;
    if (wanted.opcode == MAKE_CELL) module_call_cells_.push_back(units[at + 1]);
    if (wanted.opcode == PUSH_NULL) before_call = previous;
    previous = static_cast<int>(at);
    at += 2 * (1 + fp_opcode_caches[units[at]]);
  }
  // The frame stands at its last jump.
  module_call_at_ = before_call;
  module_call_ = Py_NewRef(reinterpret_cast<PyObject*>(code));
}

bool Rules::read_plain_type(Recorder& r, PyTypeObject* type) const {
  PyObject* getattribute = r.type_lookup(type, "__getattribute__");
  PyObject* own_dict = r.type_lookup(type, "__dict__");
  if (getattribute == nullptr || !Py_IS_TYPE(getattribute, &PyWrapperDescr_Type) || own_dict == nullptr ||
      !Py_IS_TYPE(own_dict, &PyGetSetDescr_Type))
    return false;
  for (PyObject* name : PlainCall::hook_names()) {
    if (r.type_lookup(type, name) != nullptr) return false;
  }
  const auto& [compiled, impl, forward] = PlainCall::method_names();
  PyObject* own_impl = r.type_lookup(type, impl);
  PyObject* own_forward = r.type_lookup(type, forward);
  if (r.type_lookup(type, compiled) != Py_None || own_impl == nullptr || !PyFunction_Check(own_impl) ||
      PyFunction_GET_CODE(own_impl) != module_call_ || own_forward == nullptr ||
      !PyFunction_Check(own_forward))
    return false;
  return !r.ended();
}

// What calling the module reads of it and its class. False where it is not plain, or not known to be.
bool Rules::read_plain_call(Recorder& r, PyObject* self) const {
  if (r.plain_self_ == self && r.plain_self_stamp_ == r.settled_stamp_) return true;
  PyTypeObject* type = Py_TYPE(self);
  PyObject* dict = r.node_of(self) == kNoNode ? nullptr : py::instance_dict(self);
  if (dict == nullptr || !PyDict_CheckExact(dict) || r.touched(dict)) return false;
  PlainCall call;
  if (!call.holds(dict)) return false;
  for (PyObject* hooks : call.hooks()) {
    if (r.node_of(hooks) != kNoNode) return false;  // the program has its hands on it
  }
  if (uint64_t& stamp = r.plain_types_[type]; stamp != r.settled_stamp_) {
    if (!read_plain_type(r, type)) return false;
    stamp = r.settled_stamp_;
  }
  const NodeId node = r.instance_dict_node(self);
  if (node == kNoNode) return false;
  if (r.once(dict, dict, 7)) {
    r.plain_calls_.push_back(node);
    r.tree_.check_plain_call(node);
  }
  for (PyObject* name : PlainCall::method_names()) r.note_read(self, name);
  if (r.ended()) return false;
  r.plain_self_ = self;
  r.plain_self_stamp_ = r.settled_stamp_;
  return true;
}

// What it reads of the world, once between any two writes.
bool Rules::read_module_globals(Recorder& r, PyObject* globals) const {
  if (r.plain_globals_stamp_ == r.settled_stamp_) return true;
  static PyObject* const hooks[] = {PyUnicode_InternFromString("_global_backward_pre_hooks"),
                                    PyUnicode_InternFromString("_global_backward_hooks"),
                                    PyUnicode_InternFromString("_global_forward_hooks"),
                                    PyUnicode_InternFromString("_global_forward_pre_hooks")};
  static PyObject* const path[] = {PyUnicode_InternFromString("torch"), PyUnicode_InternFromString("_C"),
                                   PyUnicode_InternFromString("_get_tracing_state")};
  for (PyObject* name : hooks) {
    PyObject* found = PyDict_GetItemWithError(globals, name);
    if (!is_empty_dict(found) || r.touched(found)) return false;
  }
  PyObject* torch = PyDict_GetItemWithError(globals, path[0]);
  PyObject* module_dict = torch == nullptr || !PyModule_Check(torch) ? nullptr : PyModule_GetDict(torch);
  PyObject* c = module_dict == nullptr ? nullptr : PyDict_GetItemWithError(module_dict, path[1]);
  PyObject* c_dict = c == nullptr || !PyModule_Check(c) ? nullptr : PyModule_GetDict(c);
  PyObject* query = c_dict == nullptr ? nullptr : PyDict_GetItemWithError(c_dict, path[2]);
  // Answered while recording.
  if (query == nullptr || !PyCFunction_Check(query) ||
      tracing_query_c(reinterpret_cast<PyCFunctionObject*>(query)->m_ml) != Py_None)
    return false;
  r.const_node(globals);
  for (PyObject* name : hooks) {
    r.read_dict_key(globals, name);
    if (!r.ended()) r.read_truth(PyDict_GetItemWithError(globals, name));
  }
  if (!r.ended()) r.read_dict_key(globals, path[0]);
  if (!r.ended()) r.read_attr(torch, path[1]);
  if (!r.ended()) r.read_attr(c, path[2]);
  if (r.ended()) return false;
  r.plain_globals_stamp_ = r.settled_stamp_;
  return true;
}

void Rules::settle_module_call(Recorder& r, EvalFrame& frame) const {
  PyObject* self = py::frame_local(frame.frame, 0);
  if (self != nullptr && !is_primitive(self)) read_plain_call(r, self);
}

void Rules::enter_module_call(Recorder& r, EvalFrame& frame) const {
  PyObject** slots = py::frame_slots(frame.frame);
  PyObject* self = slots[0];
  // Tests count events and break at them; recordings end before instructions that have to be met.
  if (self == nullptr || is_primitive(self) || !r.answers_tracing_queries || r.trace != nullptr ||
      r.hosted_call_runs_ || r.fail_at_event != 0 || r.break_at_event != 0 || frame.tags == nullptr)
    return;
  if (r.break_before != nullptr) {
    for (const auto& [at, nothing] : *r.break_before) {
      if (reinterpret_cast<PyObject*>(at.first) == module_call_) return;
    }
  }
  for (const int slot : module_call_cells_) {
    if (frame.tags[slot] != 0) return;
  }
  PyObject* globals = py::frame_globals(frame.frame);
  if (!read_module_globals(r, globals) || !read_plain_call(r, self)) return;
  Ref forward = Ref::steal(PyMethod_New(_PyType_Lookup(Py_TYPE(self), PlainCall::method_names()[2]), self));
  std::vector<Ref> cells;
  for (const int slot : module_call_cells_) {
    static constexpr size_t kForward = 4;  // among the cells
    PyObject* content = cells.size() == kForward ? forward.get() : slots[slot];
    cells.push_back(Ref::steal(PyCell_New(content)));
    if (!cells.back() || !forward) return PyErr_Clear();
  }
  for (size_t i = 0; i < cells.size(); ++i) {
    PyObject*& slot = slots[module_call_cells_[i]];
    Py_XDECREF(std::exchange(slot, cells[i].release()));
  }
  py::set_frame_instruction(frame.frame, module_call_at_);
}

// A hook dict that was not looked at must not be one that was written to: they are told apart at each call.
void Rules::keep_hooks_apart(Recorder& r) {
  for (size_t e = 0; e < r.effects_.size(); ++e) {
    const NodeId written = r.effects_[e].owner;
    if (written == kNoNode || !PyODict_CheckExact(r.effects_[e].object.get())) continue;
    for (const NodeId dict : r.plain_calls_) {
      PyObject* object = r.object_of(dict);
      for (PyObject* name : PlainCall::hook_names()) {
        const NodeId hooks = r.tree_.child(dict, Step::kDictValue, name);
        if (hooks == written) continue;
        const bool same =
            object != nullptr && PyDict_GetItemWithError(object, name) == r.effects_[e].object.get();
        r.tree_.check(std::max(hooks, written), same ? CheckKind::kSameAs : CheckKind::kNotSameAs, nullptr,
                      std::min(hooks, written));
      }
    }
  }
}

}  // namespace flashpoint
