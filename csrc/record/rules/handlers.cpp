// What each Rule means for a call of a C function: one case per rule.
#include <string>
#include <string_view>

#include "py/frame.h"
#include "py/key_hash.h"
#include "py/layout.h"
#include "py/torch_bridge.h"
#include "record/graph_recorder.h"
#include "record/recorder.h"
#include "record/regions.h"
#include "record/rules/rules.h"

namespace flashpoint {

namespace {

Py_ssize_t total(Py_ssize_t n, PyObject* kwnames) {
  return n + (kwnames == nullptr ? 0 : PyTuple_GET_SIZE(kwnames));
}

bool makes_number(std::string_view name) {
  return name == "int" || name == "float" || name == "complex" || name == "bool" || name == "index";
}

// Null when the module is not imported or has no such Python function.
PyCodeObject* code_of_module_function(const char* module, const char* name) {
  PyObject* found = PyDict_GetItemString(PyImport_GetModuleDict(), module);
  PyObject* function = found == nullptr || !PyModule_Check(found)
                           ? nullptr
                           : PyDict_GetItemString(PyModule_GetDict(found), name);
  if (function == nullptr || !PyFunction_Check(function)) return nullptr;
  return reinterpret_cast<PyCodeObject*>(PyFunction_GET_CODE(function));
}

bool is_heap(PyTypeObject* type) { return PyType_HasFeature(type, Py_TPFLAGS_HEAPTYPE); }

}  // namespace

namespace {

bool has_accelerator_code() {
  static const bool has = [] {
    PyObject* torch = PyDict_GetItemString(PyImport_GetModuleDict(), "torch");
    Ref version = Ref::steal(torch == nullptr ? nullptr : PyObject_GetAttrString(torch, "version"));
    bool found = !version;
    for (const char* name : {"cuda", "hip", "xpu"}) {
      Ref built = Ref::steal(version ? PyObject_GetAttrString(version.get(), name) : nullptr);
      found = found || (built && built.get() != Py_None);
    }
    PyErr_Clear();
    return found;
  }();
  return has;
}

}  // namespace

// What the answer depends on beside arguments and guarded state: devices of the machine, hashes.
void Rules::keep_environment_local(Recorder& r, RuleRow row, PyObject* const* argv, Py_ssize_t count) const {
  const std::string_view name = row.name;
  // Where torch has no code for devices, there are none on any machine.
  if (row.rule == Rule::kState && (name.ends_with("DeviceCount") || name.ends_with("getAccelerator")) &&
      has_accelerator_code())
    r.keep_local("the devices of this machine");
  if (name.ends_with("__hash__")) r.keep_local("a hash, which differs between processes");
  if (row.rule == Rule::kLen || row.rule == Rule::kIsInstance || row.rule == Rule::kContains ||
      row.rule == Rule::kTruth || row.rule == Rule::kTypeOf || row.rule == Rule::kSetAdd)
    return;
  const bool of_set = name.starts_with("set.") || name.starts_with("frozenset.");
  const bool takes_out = name.ends_with(".pop") || name.ends_with("__iter__");
  for (Py_ssize_t i = of_set && !takes_out ? 1 : 0; i < count; ++i) r.keep_hash_order_local(argv[i]);
}

// A builtin class's own method, called as such: what a class below it says instead is not asked.
static bool is_own_slot(RuleRow row) { return std::string_view(row.name).ends_with("__"); }

// What a builtin class keeps in C fields, as a date does. Containers are read element by element.
static bool keeps_c_state(PyObject* o) {
  PyTypeObject* base = Py_TYPE(o);
  while (base != nullptr && PyType_HasFeature(base, Py_TPFLAGS_HEAPTYPE)) base = base->tp_base;
  for (PyTypeObject* known : {&PyBaseObject_Type, &PyDict_Type, &PyODict_Type, &PyList_Type, &PyTuple_Type,
                              &PySet_Type, &PyFrozenSet_Type, &_PyNamespace_Type}) {
    if (base == known) return false;
  }
  return true;
}

void Rules::call(Recorder& r, EvalFrame& frame, RuleRow row, PyObject* const* argv, Py_ssize_t n,
                 PyObject* kwnames, Pending& pending) const {
  const Py_ssize_t count = total(n, kwnames);
  PyObject* self = count > 0 ? argv[0] : nullptr;
  keep_environment_local(r, row, argv, count);
  auto arg = [&](Py_ssize_t i) -> PyObject* { return i < n ? argv[i] : nullptr; };
  auto unsupported = [&](const char* what) {
    r.end(Break::k_unknown_c_function, std::string(row.name) + ": " + what);
  };
  // A container of a class that would answer with Python code, and is not asked.
  const auto is_overridden = [&](const char* name) {
    if (!is_own_slot(row) || self == nullptr || !is_heap(Py_TYPE(self)) ||
        !(PyList_Check(self) || PyTuple_Check(self) || PyAnySet_Check(self)))
      return false;
    PyObject* const found = r.type_lookup(Py_TYPE(self), name);
    return found != nullptr && PyFunction_Check(found);
  };
  if (std::string_view(row.name) == "length_hint" && self != nullptr) {
    for (const char* method : {"__len__", "__length_hint__"}) r.read_special(self, method);
  }
  switch (row.rule) {
    case Rule::kNone:
      return unsupported("no rule");
    case Rule::kConstant:
      if (std::string_view(row.name) == "callable" && count == 1 && is_heap(Py_TYPE(self))) {
        r.type_lookup(Py_TYPE(self), "__call__");
      }
      if (std::string_view(row.name).starts_with("type.")) {  // what it asks of a class hangs on its bases
        for (Py_ssize_t i = 0; i < count; ++i)
          r.read_bases(PyType_Check(argv[i]) ? reinterpret_cast<PyTypeObject*>(argv[i]) : Py_TYPE(argv[i]));
      }
      return;
    case Rule::kRecursionLimit:
      // inspect.unwrap stops at the limit, so what it found holds under a higher one.
      if (py::frame_code(frame.frame) != code_of_module_function("inspect", "unwrap"))
        r.reads_recursion_limit = true;
      return;
    case Rule::kExcInfo:
      return r.read_handled();
    case Rule::kSetState:
      if (self != nullptr && is_inference_region(self)) {
        // Of one that was entered before, the guard that puts the thread's state back is C code's own.
        if (r.node_of(self) != kNoNode) return unsupported("a region that was entered before");
        if (std::string_view(row.name).ends_with("__enter__")) {
          note_inference_region(r.serial, self);
        } else {
          forget_inference_region(r.serial, self);
        }
      }
      if (n == 1 && std::string_view(row.name).ends_with("_push_on_torch_function_stack"))
        r.read_function_mode(self);
      return;
    case Rule::kState:
    case Rule::kSuper:
    case Rule::kObjectNew:
    case Rule::kObjectInit:
    case Rule::kDictView:
      if (row.rule == Rule::kDictView && self != nullptr && Py_IS_TYPE(self, &PyDictProxy_Type) &&
          r.node_of(self) != kNoNode) {
        // The view is one of the dict behind it, which has a source of its own.
        PyObject* mapping = py::proxied_mapping(self);
        if (!(PyDict_CheckExact(mapping) || PyODict_CheckExact(mapping)) || r.node_of(mapping) == kNoNode)
          unsupported("a mappingproxy that existed before");
      }
      if (row.rule == Rule::kObjectNew && count > 1 && PyType_Check(self)) {
        auto* type = reinterpret_cast<PyTypeObject*>(self);
        if (PyType_FastSubclass(type, Py_TPFLAGS_TUPLE_SUBCLASS) ||
            PyType_FastSubclass(type, Py_TPFLAGS_LIST_SUBCLASS)) {
          r.read_iterable(argv[1]);
        } else {
          for (Py_ssize_t i = 1; i < count; ++i) {
            if ((PyType_FastSubclass(type, Py_TPFLAGS_UNICODE_SUBCLASS) ||
                 PyType_FastSubclass(type, Py_TPFLAGS_LONG_SUBCLASS)) &&
                !r.read_deep(argv[i])) {
              unsupported("argument");
            }
          }
        }
      }
      return;
    case Rule::kTypeOf:
      if (count != 1) return unsupported("a class made by a call");
      return;
    case Rule::kReadSelf:
      for (Py_ssize_t i = 1; i < count; ++i) {
        if (!r.read_deep(argv[i])) {
          if (PyExceptionInstance_Check(self)) continue;
          return unsupported("argument");
        }
      }
      return;
    case Rule::kPure:
      r.read_named_operator(row.name, argv, count);
      for (Py_ssize_t i = 0; i < count; ++i) {
        // int(), float() and their like; an operator function is a tensor operation.
        const bool to_float = std::string_view(row.name) == "float";
        if (is_tensor(argv[i]) && count == 1 && (to_float || std::string_view(row.name) == "int") &&
            r.shadow_.may_follow_item(argv[i], to_float)) {
          pending.word = Recorder::kPendingItem;
          pending.data = argv[i];
          return;
        }
        if (is_tensor(argv[i]) && count == 1 && makes_number(row.name) && !r.may_read_value(argv[i])) {
          return r.end(Break::k_tensor_data_as_python, row.name);
        }
        if (PyUnicode_Check(argv[i]) && is_singleton_type(Py_TYPE(argv[i]))) continue;
        if (is_heap(Py_TYPE(argv[i])) && !is_tensor(argv[i])) {
          // int(), float(), operator functions: Python code of the argument's class runs, if it has any.
          read_operator_slots(r, argv[i]);
          continue;
        }
        if (!r.read_deep(argv[i])) return unsupported(Py_TYPE(argv[i])->tp_name);
      }
      return;
    case Rule::kIterate:
      return iterate(r, frame, row, argv, n, kwnames);
    case Rule::kJoin:
      if (n != 2) return unsupported("arguments");
      return iterate(r, frame, row, argv + 1, 1, nullptr);
    case Rule::kCompare: {
      if (n != 2) return unsupported("arguments");
      static const char* const kOperators[] = {"lt", "le", "eq", "ne", "gt", "ge"};  // Py_LT ...
      for (int op = 0; op < 6; ++op) {
        if (std::string_view(row.name) == kOperators[op]) r.read_compare(op, argv[0], argv[1]);
      }
      return;
    }
    case Rule::kIs:
      if (n != 2) return unsupported("arguments");
      return r.read_identity(argv[0], argv[1]);
    case Rule::kTruth:
      if (n != 1) return unsupported("arguments");
      return r.read_truth(self);
    case Rule::kGenerator:
      if (self != nullptr && PyGen_CheckExact(self))
        return run_generator(r, frame, self, std::string_view(row.name) != "GeneratorType.close");
      [[fallthrough]];
    case Rule::kFresh:
      if (r.node_of(self) != kNoNode) return unsupported("an object that existed before");
      return;
    case Rule::kMemoLock:
      // Held only around one write to an instance's dict, which replay does at once.
      if (reinterpret_cast<PyObject*>(py::frame_code(frame.frame)) != cached_property_code_)
        return unsupported("a lock");
      return;
    case Rule::kMemoIdent:
      if (!uses_identity_as_memo(reinterpret_cast<PyObject*>(py::frame_code(frame.frame))))
        return r.end(Break::k_identity_value, "the identity of the thread");
      return;
    case Rule::kCountElements: {
      // Counter's C loop: a mapping it changes, and what is counted.
      if (n != 2 || r.node_of(self) != kNoNode) return unsupported("a mapping that existed before");
      std::vector<PyObject*> elements;
      read_elements_of(r, argv[1], elements);
      for (PyObject* element : elements) r.read_fresh_key(self, element);
      return;
    }
    case Rule::kLen:
      if (self == nullptr) return;
      if (is_heap(Py_TYPE(self)) && !is_own_slot(row)) {
        PyObject* length = r.type_lookup(Py_TYPE(self), "__len__");
        if (length == nullptr || PyFunction_Check(length)) return;
      }
      if (is_primitive(self) || is_tensor(self) || PyRange_Check(self) || is_value_type(Py_TYPE(self)))
        return;
      if (PyDictKeys_Check(self) || PyDictValues_Check(self) || PyDictItems_Check(self))
        self = py::view_dict(self);
      if (Py_IS_TYPE(self, &PyDictProxy_Type) && r.node_of(self) == kNoNode) self = py::proxied_mapping(self);
      if (PyList_Check(self) || PyTuple_Check(self) || PyDict_Check(self) || PyAnySet_Check(self) ||
          is_deque(self)) {
        if (r.node_of(self) == kNoNode) r.read_object_keys(self);
        return r.read_length(self);
      }
      return unsupported(Py_TYPE(self)->tp_name);
    case Rule::kGetAttr:
    case Rule::kHasAttr:
      if (n < 2 || !PyUnicode_Check(argv[1])) return unsupported("arguments");
      return r.read_attr(argv[0], argv[1]);
    case Rule::kGetAttribute:
      if (n < 2 || !PyUnicode_Check(argv[1])) return unsupported("arguments");
      if (is_tensor(self)) return r.read_tensor_attr(self, argv[1]);
      if (PyModule_Check(self)) return r.read_module_attr(self, argv[1]);
      return r.read_generic_attr(self, Py_TYPE(self), argv[1], false);
    case Rule::kSetAttr:
    case Rule::kDelAttr:
      if (n < 2 || !PyUnicode_Check(argv[1])) return unsupported("arguments");
      return r.write_attr(self, argv[1], arg(2));
    case Rule::kSetAttribute:
    case Rule::kDelAttribute:
      if (n < 2 || !PyUnicode_Check(argv[1])) return unsupported("arguments");
      if (is_tensor(self) || PyType_Check(self)) return r.write_attr(self, argv[1], arg(2));
      return r.write_generic_attr(self, argv[1], arg(2));
    case Rule::kIter:
    case Rule::kIterSlot:
      if (count == 2 && row.rule == Rule::kIter && is_primitive(argv[1]) && !PyFloat_Check(argv[1]) &&
          (PyFunction_Check(self) || PyMethod_Check(self))) {
        // C code calls the function each time, and compares what it returns with the second argument.
        check_callback(r, self);
        return r.read_results(2, false);
      }
      if (count != 1) return unsupported("callable iterator");
      if (row.rule == Rule::kIterSlot) return r.read_elements(self);
      return r.read_iterable(self);
    case Rule::kNext:
      if (self != nullptr && PyGen_CheckExact(self)) return run_generator(r, frame, self, count == 1);
      if (self != nullptr && !r.advance_iterator(self))
        r.end(Break::k_iterator_argument, Py_TYPE(self)->tp_name);
      if (self != nullptr && is_heap(Py_TYPE(self))) r.type_lookup(Py_TYPE(self), "__next__");
      return;
    case Rule::kIsInstance: {
      if (n != 2) return;
      // The type of the first argument is guarded; the classes may bring Python code or an ABC's registry.
      if (!PyType_Check(self)) {
        PyObject* d = r.type_lookup(Py_TYPE(self), "__class__");
        if (d != nullptr && PyObject_TypeCheck(d, &PyProperty_Type)) r.read_descriptor(d);
      }
      if (PyType_Check(self) || reinterpret_cast<PyObject*>(Py_TYPE(self)) != argv[1])
        r.read_bases(PyType_Check(self) ? reinterpret_cast<PyTypeObject*>(self) : Py_TYPE(self));
      if (PyTuple_Check(argv[1])) r.read_elements(argv[1]);
      const Py_ssize_t classes = PyTuple_Check(argv[1]) ? PyTuple_GET_SIZE(argv[1]) : 1;
      for (Py_ssize_t i = 0; i < classes; ++i) {
        PyObject* cls = PyTuple_Check(argv[1]) ? PyTuple_GET_ITEM(argv[1], i) : argv[1];
        if (!PyType_Check(cls)) {
          // torch.FloatTensor and its like ask for what guards of tensors say; those of typing are Python
          // code.
          PyObject* check = r.type_lookup(Py_TYPE(cls), "__instancecheck__");
          const bool known = is_singleton_type(Py_TYPE(cls)) || PyTuple_Check(cls) ||
                             std::string_view(Py_TYPE(cls)->tp_name) == "torch.tensortype" ||
                             (check != nullptr && PyFunction_Check(check));
          if (!known) unsupported("not a class");
          continue;
        }
        if (Py_TYPE(cls) == &PyType_Type) continue;
        // The one of abstract base classes calls the other.
        for (const char* check : {"__instancecheck__", "__subclasscheck__"})
          r.type_lookup(Py_TYPE(cls), check);
      }
      return;
    }
    case Rule::kAbcCheck:
      return r.note_class_question(frame, argv, n, std::string_view(row.name).ends_with("instancecheck"));
    case Rule::kId: {
      PyCodeObject* code = py::frame_code(frame.frame);
      if (!uses_identity_as_memo(reinterpret_cast<PyObject*>(code))) {
        if (!r.may_pin(self)) return r.end(Break::k_identity_value, "id()");
        r.pin(self);
        r.keep_local("id()");
        return;
      }
      r.expose_address(self);
      return;
    }
    case Rule::kHash:
      return hash(r, self);
    case Rule::kFormat:
    case Rule::kStrFormat:
      return format(r, row, argv, count);
    case Rule::kVars:
      if (count == 0 && std::string_view(row.name).ends_with("globals")) {
        r.const_node(py::frame_globals(frame.frame));
        return;
      }
      if (count != 1) return unsupported("no argument");
      r.read_whole_dict(self);
      return;
    case Rule::kSayAgain:
      return count == 0 ? r.change_filters() : say_again(r, row.name, argv, count);
    case Rule::kImport: {
      Operands o{Event::kCall};
      o.name = self;
      return import(r, frame, o);
    }
    case Rule::kReduce:
      // copy and pickle read the whole state of the object, by methods that C code calls.
      for (const char* method : {"__reduce__", "__getstate__", "__getnewargs__", "__getnewargs_ex__"})
        r.read_special(self, method);
      if (r.node_of(self) == kNoNode) return;
      if (PyObject* dict = py::instance_dict(self)) {
        r.instance_dict_node(self);
        r.read_elements(dict);
      }
      r.read_slots(self);
      if (PyDict_Check(self) || PyList_Check(self) || PyAnySet_Check(self) || PyTuple_Check(self))
        r.read_elements(self);
      if (keeps_c_state(self) ||
          (Py_TYPE(self)->tp_basicsize >
               PyBaseObject_Type.tp_basicsize + 2 * static_cast<Py_ssize_t>(sizeof(void*)) &&
           !PyDict_Check(self) && !PyList_Check(self) && !PyAnySet_CheckExact(self))) {
        unsupported("an object with C state");
      }
      return;
    case Rule::kDictGet:
    case Rule::kDictContains:
      if (n < 2) return unsupported("arguments");
      if (Py_IS_TYPE(self, &PyDictProxy_Type))
        self = r.node_of(self) == kNoNode ? py::proxied_mapping(self) : nullptr;
      if (self == nullptr || !PyDict_Check(self)) return unsupported("receiver");
      return row.rule == Rule::kDictGet ? r.read_dict_key(self, argv[1]) : r.read_dict_present(self, argv[1]);
    case Rule::kDictSetDefault:
      if (n < 2) return unsupported("arguments");
      r.read_dict_key(self, argv[1]);
      if (!r.ended() && (!py::is_plain_key(argv[1]) || PyDict_Contains(self, argv[1]) == 0))
        r.write_dict(self, argv[1]);
      return;
    case Rule::kDictPop:
      if (n < 2) return unsupported("arguments");
      r.read_dict_key(self, argv[1]);
      if (!r.ended() && (!py::is_plain_key(argv[1]) || PyDict_Contains(self, argv[1]) == 1))
        r.write_dict(self, argv[1], true);
      return;
    case Rule::kDictSet:
      if (n < 3) return unsupported("arguments");
      r.read_hash(argv[1]);
      return PyODict_Check(self) && r.node_of(self) != kNoNode ? r.write_contents(self)
                                                               : r.write_dict(self, argv[1]);
    case Rule::kDictDel:
      if (n < 2) return unsupported("arguments");
      r.read_dict_present(self, argv[1]);
      return PyODict_Check(self) && r.node_of(self) != kNoNode ? r.write_contents(self)
                                                               : r.write_dict(self, argv[1], true);
    case Rule::kDictUpdate:
      for (Py_ssize_t i = 1; i < n; ++i) r.read_iterable(argv[i]);
      for (Py_ssize_t i = 1; i < n && !r.ended(); ++i) {
        r.read_mapping_methods(argv[i]);
        if (PyDict_Check(argv[i])) r.read_elements(argv[i]);
      }
      return r.write_contents(self);
    case Rule::kDictCopy:
      if (Py_IS_TYPE(self, &PyDictProxy_Type)) return unsupported("mappingproxy");
      return r.read_elements(self);
    case Rule::kListRead:
      return read_list_method(r, argv, count);
    case Rule::kContents:
      return change_contents(r, row, argv, count);
    case Rule::kAppend:
      if (n == 2) r.append_to_list(self, argv[1]);
      return;
    case Rule::kSetAdd:
      if (n != 2) return unsupported("arguments");
      if (r.node_of(self) == kNoNode) {
        r.read_fresh_key(self, argv[1]);
      } else {
        r.read_hash(argv[1]);
      }
      return r.write_contents(self);
    case Rule::kMutate:
      for (Py_ssize_t i = 1; i < count; ++i) {
        r.read_iterable_if_container(argv[i]);
        if (std::string_view(row.name).ends_with("remove")) r.read_element_identity(self, argv[i]);
      }
      return r.write_contents(self);
    case Rule::kGetItem:
      if (n != 2) return unsupported("arguments");
      if (is_overridden("__getitem__")) return r.read_elements(self);
      return r.read_subscript(self, argv[1]);
    case Rule::kContains:
      if (n != 2) return unsupported("arguments");
      if (is_overridden("__contains__")) return unsupported("membership in a container of its own class");
      return r.read_contains(self, argv[1]);
    case Rule::kCompareSlot:
      if (n != 2) return unsupported("arguments");
      r.read_deep(self);
      r.read_deep(argv[1]);
      if (!is_primitive(self) || !is_primitive(argv[1])) r.read_identity(self, argv[1]);
      return r.read_compared(self, argv[1]);
    case Rule::kCallSlot:
      if (count > 0 && PyType_Check(self)) {
        r.call_type(reinterpret_cast<PyTypeObject*>(self), argv + 1, n - 1, kwnames);
      } else {
        unsupported("receiver");
      }
      return;
    case Rule::kContextGet: {
      const NodeId node = r.const_node(self);
      if (r.overlaid(self, nullptr)) return;
      PyObject* value = nullptr;
      if (PyContextVar_Get(self, nullptr, &value) < 0) return PyErr_Clear();
      Ref owned = Ref::steal(value);
      if (value == nullptr) {
        r.tree_.check(node, CheckKind::kContextUnset);
      } else if (is_primitive(value)) {
        r.tree_.check(node, CheckKind::kContextIs, value);
      } else {
        r.observe(r.tree_.child(node, Step::kContextValue), value);
      }
      return;
    }
    case Rule::kContextSet:
    case Rule::kContextReset:
      return r.write_context_var(self);
    case Rule::kHasTorchFunction:
      for (Py_ssize_t i = 0; i < count; ++i) {
        if (!is_tensor(argv[i])) {
          r.read_iterable_if_container(argv[i]);
          if (is_heap(Py_TYPE(argv[i]))) r.type_lookup(Py_TYPE(argv[i]), "__torch_function__");
        }
      }
      return;
    case Rule::kBuildClass:
      return build_class(r, argv, n, kwnames, pending);
    case Rule::kTorch:
      return r.call_torch(row.name, argv, n, kwnames);
    case Rule::kDeny:
      return r.end(Break::k_denied_function, row.name);
    default:
      return call_torch_rule(r, row, argv, n, kwnames, pending);
  }
}

bool Rules::holds_tensor(PyObject* o) const {
  if (is_tensor(o)) return true;
  if (!PyList_Check(o) && !PyTuple_Check(o)) return false;
  for (Py_ssize_t i = 0; i < Py_SIZE(o); ++i) {
    if (holds_tensor(PyList_Check(o) ? PyList_GET_ITEM(o, i) : PyTuple_GET_ITEM(o, i))) return true;
  }
  return false;
}

void Rules::after_call(Recorder& r, const Operands& o, const Pending& pending, PyObject* result) const {
  if (result == nullptr) return;
  if (pending.word == Recorder::kPendingLiteral && is_tensor(result)) {
    if (TensorMeta::of(result).requires_grad)
      return r.end(Break::k_denied_function, "torch.tensor(requires_grad=True)");
    r.graph_.register_constant(unpack_tensor(result));
    return;
  }
  if (pending.word == Recorder::kPendingItem) {
    auto* tensor = static_cast<PyObject*>(pending.data);
    return r.shadow_.add_late(r.graph_.note_item(unpack_tensor(tensor), PyFloat_CheckExact(result)), result);
  }
  if (pending.word == Recorder::kPendingClass) {
    r.fresh_classes_.insert(result);
    r.made_.push_back(
        {result,
         {py::frame_code(r.frame_->frame), static_cast<size_t>(py::frame_instruction(r.frame_->frame))}});
    return r.hold(result);
  }
  r.check_tensor_result(result);
  if (PyTuple_Check(result) || PyList_Check(result)) {
    for (Py_ssize_t i = 0; i < Py_SIZE(result) && !r.ended(); ++i) {
      PyObject* item = PyList_Check(result) ? PyList_GET_ITEM(result, i) : PyTuple_GET_ITEM(result, i);
      if (is_tensor(item)) r.check_tensor_result(item);
    }
  }
}

}  // namespace flashpoint
