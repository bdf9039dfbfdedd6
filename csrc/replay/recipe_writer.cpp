#include <string_view>

#include "base/check.h"
#include "py/dicts.h"
#include "py/iterators.h"
#include "py/layout.h"
#include "py/rebuilt_iterators.h"
#include "py/torch_bridge.h"
#include "record/graph_recorder.h"
#include "record/history.h"
#include "record/regions.h"
#include "record/rules/rules.h"
#include "replay/recipe.h"

namespace flashpoint {

PyTypeObject* builtin_base(PyTypeObject* type) {
  while (type != nullptr && PyType_HasFeature(type, Py_TPFLAGS_HEAPTYPE)) type = type->tp_base;
  return type;
}

// What torch.profiler.record_function keeps while it is entered.
static bool is_profiler_range(PyObject* owner, PyObject* value) {
  return rules().is_script_object(value) && std::string_view(Py_TYPE(owner)->tp_name) == "record_function" &&
         PyUnicode_CompareWithASCIIString(PyDict_GetItemString(Py_TYPE(owner)->tp_dict, "__module__"),
                                          "torch.autograd.profiler") == 0;
}

// The operator that begins one; null without an error where there is none.
static Ref enter_profiler_range() {
  Ref found = Ref::steal(PyImport_ImportModule("torch"));
  for (const char* name : {"ops", "profiler", "_record_function_enter_new", "default"}) {
    if (found) found = Ref::steal(PyObject_GetAttrString(found.get(), name));
  }
  if (!found) PyErr_Clear();
  return found;
}

bool has_c_state(PyObject* o, PyTypeObject* base) {
  Py_ssize_t size =
      base->tp_basicsize + 2 * static_cast<Py_ssize_t>(sizeof(PyObject*));  // dict, weak references
  for (PyTypeObject* t = Py_TYPE(o); t != nullptr && PyType_HasFeature(t, Py_TPFLAGS_HEAPTYPE);
       t = t->tp_base) {
    PyObject *key, *d;
    Py_ssize_t pos = 0;
    while (PyDict_Next(t->tp_dict, &pos, &key, &d)) {
      if (Py_IS_TYPE(d, &PyMemberDescr_Type) && py::object_slot(o, d) != nullptr) size += sizeof(PyObject*);
    }
  }
  return Py_TYPE(o)->tp_basicsize > size;
}

namespace {

// It would be rebuilt as another one than the object's own.
constexpr const char* kOutOfOrder = "an ordered dict that lost its order";
constexpr const char* kHeldDict = "its __dict__ is held by something else";

// A method or slot of a class that cannot change: what LOAD_METHOD leaves on the stack.
bool is_builtin_descriptor(PyObject* o) {
  return (Py_IS_TYPE(o, &PyMethodDescr_Type) || Py_IS_TYPE(o, &PyWrapperDescr_Type) ||
          Py_IS_TYPE(o, &PyClassMethodDescr_Type)) &&
         (!PyType_HasFeature(PyDescr_TYPE(o), Py_TPFLAGS_HEAPTYPE) ||
          PyType_HasFeature(PyDescr_TYPE(o), Py_TPFLAGS_IMMUTABLETYPE));
}

RecipeValue value_of(RecipeValue::Kind kind, int32_t index) { return {kind, index, Ref()}; }

}  // namespace

RecipeValue RecipeWriter::fail(PyObject* object, const char* why) {
  recorder_.blame(object);
  recorder_.blame(reinterpret_cast<PyObject*>(Py_TYPE(object)));
  if (failure_.empty()) failure_ = std::string(Py_TYPE(object)->tp_name) + ": " + why;
  return {};
}

int32_t RecipeWriter::begin(PyObject* object, MadeObject::Kind kind) {
  const auto index = static_cast<int32_t>(made_.size());
  made_.push_back(MadeObject{kind, Ref(), nullptr, {}, {}, {}});
  memo_.emplace(object, index);
  return index;
}

RecipeValue RecipeWriter::describe(PyObject* o, Tag tag) {
  const ScalarTable& table = recorder_.shadow().table();
  tag = table.resolve(tag);
  if (tag == 0 || table.value(tag) != o) return describe(o);
  if (table.is_carrier(tag)) {
    if (!PyList_CheckExact(o)) return fail(o, "an iterator of numbers of the graph");
    if (auto known = memo_.find(o); known != memo_.end())
      return value_of(RecipeValue::Kind::kMade, known->second);
    const int32_t index = begin(o, MadeObject::Kind::kList);
    std::vector<RecipeValue> items;
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(o); ++i) {
      PyObject* item = PyList_GET_ITEM(o, i);
      items.push_back(describe(item, table.late_of(item)));
    }
    made_[index].items = std::move(items);
    return value_of(RecipeValue::Kind::kMade, index);
  }
  const ScalarOperand from = table.operand(tag);
  switch (from.kind) {
    case ScalarOperand::Kind::kNode:
      return value_of(RecipeValue::Kind::kNode, from.index);
    case ScalarOperand::Kind::kStep:
      return value_of(RecipeValue::Kind::kScalar, from.index);
    case ScalarOperand::Kind::kLate:
      return value_of(RecipeValue::Kind::kOutput, recorder_.graph().mark_number(from.index));
    case ScalarOperand::Kind::kConstant:
      break;
  }
  return describe(o);
}

RecipeValue RecipeWriter::describe(PyObject* o) {
  if (!failure_.empty()) return {};
  // A float of the graph is told by what it is, wherever it was put.
  const ScalarTable& scalars = recorder_.shadow().table();
  if (const Tag late = PyFloat_CheckExact(o) && scalars.has_late() ? scalars.late_of(o) : 0; late != 0)
    return value_of(RecipeValue::Kind::kOutput, recorder_.graph().mark_number(scalars.operand(late).index));
  if (recorder_.is_exposed_address(o)) return fail(o, "an address");
  if (is_primitive(o)) return {RecipeValue::Kind::kConstant, 0, Ref::share(o)};
  const NodeId node = recorder_.node_of(o);
  if (node != kNoNode) return value_of(RecipeValue::Kind::kNode, node);
  auto known = memo_.find(o);
  if (known != memo_.end()) return value_of(RecipeValue::Kind::kMade, known->second);
  if (o == recorder_.outer.saved || o == recorder_.outer.topmost) {
    recorder_.sees_outer = true;
    return value_of(o == recorder_.outer.saved ? RecipeValue::Kind::kSaved : RecipeValue::Kind::kHandled, 0);
  }
  PyTypeObject* type = Py_TYPE(o);
  if (is_tensor(o)) {
    if (!is_plain_tensor(o)) return fail(o, "a tensor subclass");
    return describe_tensor(o);
  }
  if (PyType_Check(o)) {
    return PyType_HasFeature(reinterpret_cast<PyTypeObject*>(o), Py_TPFLAGS_HEAPTYPE)
               ? fail(o, "a class of unknown origin")
               : RecipeValue{RecipeValue::Kind::kConstant, 0, Ref::share(o)};
  }
  if (rules().is_size(o)) {
    const int32_t index = begin(o, MadeObject::Kind::kStruct);  // a new one each call, as in eager mode
    made_[index].type = Ref::share(reinterpret_cast<PyObject*>(type));
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(o); ++i)
      made_[index].items.push_back(describe(PyTuple_GET_ITEM(o, i)));
    return value_of(RecipeValue::Kind::kMade, index);
  }
  if (rules().is_singleton_type(type) || rules().is_value_type(type) || PyRange_Check(o) ||
      PyModule_Check(o)) {
    return {RecipeValue::Kind::kConstant, 0, Ref::share(o)};
  }
  if (PyCFunction_Check(o) &&
      (PyCFunction_GET_SELF(o) == nullptr || PyModule_Check(PyCFunction_GET_SELF(o)) ||
       rules().is_function_record(PyCFunction_GET_SELF(o)))) {
    return {RecipeValue::Kind::kConstant, 0, Ref::share(o)};
  }
  if (is_builtin_descriptor(o)) return {RecipeValue::Kind::kConstant, 0, Ref::share(o)};
  if ((PyTuple_CheckExact(o) || PyFrozenSet_CheckExact(o) || PyCode_Check(o)) &&
      recorder_.is_code_constant(o)) {
    return {RecipeValue::Kind::kConstant, 0, Ref::share(o)};
  }
  if (++depth_ > 200) return fail(o, "nested too deeply");
  RecipeValue result;
  auto sequence = [&](MadeObject::Kind kind) {
    const int32_t index = begin(o, kind);
    Ref items = Ref::steal(PySequence_List(o));  // exact builtin types: C code
    if (!items) {
      PyErr_Clear();
      return fail(o, "cannot be iterated");
    }
    std::vector<RecipeValue> described;
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(items.get()); ++i) {
      PyObject* const item = PyList_GET_ITEM(items.get(), i);
      described.push_back(describe(item, recorder_.shadow().item_tag(o, i, item)));
    }
    made_[index].items = std::move(described);
    return value_of(RecipeValue::Kind::kMade, index);
  };
  if (PyList_CheckExact(o)) {
    result = sequence(MadeObject::Kind::kList);
  } else if (PyTuple_CheckExact(o)) {
    result = sequence(MadeObject::Kind::kTuple);
  } else if (PyAnySet_CheckExact(o) && !py::is_rebuilt_in_order(o)) {
    return fail(o, "it would be iterated in another order");
  } else if (PySet_CheckExact(o)) {
    result = sequence(MadeObject::Kind::kSet);
  } else if (rules().is_exact_deque(o)) {
    result = sequence(MadeObject::Kind::kDeque);
    if (failure_.empty()) {
      Ref bound = Ref::steal(PyObject_GetAttrString(o, "maxlen"));
      made_[result.index].type = std::move(bound);
    }
  } else if (PyFrozenSet_CheckExact(o)) {
    result = sequence(MadeObject::Kind::kFrozenSet);
  } else if (PyDict_CheckExact(o) || rules().is_exact_defaultdict(o)) {
    const bool plain = PyDict_CheckExact(o);
    const int32_t index = begin(o, plain ? MadeObject::Kind::kDict : MadeObject::Kind::kDefaultDict);
    std::vector<RecipeValue> items;
    if (!plain) {
      Ref factory = Ref::steal(PyObject_GetAttrString(o, "default_factory"));
      items.push_back(describe(factory.get()));
    }
    PyObject *key, *value;
    Py_ssize_t pos = 0;
    while (PyDict_Next(o, &pos, &key, &value)) {
      // Devices, types of elements and the like are told by their value.
      const bool by_value = rules().is_value_type(Py_TYPE(key)) || rules().is_singleton_type(Py_TYPE(key));
      if (!is_primitive(key) && !by_value && !PyTuple_Check(key) && recorder_.node_of(key) == kNoNode) {
        result = fail(o, "a key that is no primitive");
      }
      items.push_back(describe(key));
      items.push_back(describe(value, recorder_.shadow().item_tag(o, key, value)));
    }
    made_[index].items = std::move(items);
    result = value_of(RecipeValue::Kind::kMade, index);
  } else if (PySlice_Check(o)) {
    const int32_t index = begin(o, MadeObject::Kind::kSlice);
    auto* s = reinterpret_cast<PySliceObject*>(o);
    std::vector<RecipeValue> items{describe(s->start), describe(s->stop), describe(s->step)};
    made_[index].items = std::move(items);
    result = value_of(RecipeValue::Kind::kMade, index);
  } else if (PyMethod_Check(o)) {
    const int32_t index = begin(o, MadeObject::Kind::kMethod);
    std::vector<RecipeValue> items{describe(PyMethod_GET_FUNCTION(o)), describe(PyMethod_GET_SELF(o))};
    made_[index].items = std::move(items);
    result = value_of(RecipeValue::Kind::kMade, index);
  } else if (PyCell_Check(o)) {
    const int32_t index = begin(o, MadeObject::Kind::kCell);
    PyObject* const held = PyCell_GET(o);
    RecipeValue content =
        held == nullptr ? RecipeValue{} : describe(held, recorder_.shadow().item_tag(o, Py_ssize_t{0}, held));
    made_[index].items.push_back(std::move(content));
    result = value_of(RecipeValue::Kind::kMade, index);
  } else if (PyFunction_Check(o)) {
    result = describe_function(o);
  } else if (PyCFunction_CheckExact(o)) {
    const int32_t index = begin(o, MadeObject::Kind::kBuiltinMethod);
    RecipeValue self = describe(PyCFunction_GET_SELF(o));
    made_[index].items.push_back(std::move(self));
    made_[index].method = reinterpret_cast<PyCFunctionObject*>(o)->m_ml;
    result = value_of(RecipeValue::Kind::kMade, index);
  } else if (type == &PyDictIterKey_Type || type == &PyDictIterValue_Type || type == &PyDictIterItem_Type) {
    PyObject* dict = py::iterator_source(o, 0);
    if (dict == nullptr) return fail(o, "an iterator that has come to its end");
    const Py_ssize_t taken = py::dict_iterator_taken(o);
    const int32_t index = begin(o, MadeObject::Kind::kDictIterator);
    std::vector<RecipeValue> items{describe(dict)};
    items.push_back({RecipeValue::Kind::kConstant, 0, Ref::steal(PyLong_FromSsize_t(taken))});
    made_[index].items = std::move(items);
    made_[index].type = Ref::share(reinterpret_cast<PyObject*>(type));
    result = value_of(RecipeValue::Kind::kMade, index);
  } else if (PyDictKeys_Check(o) || PyDictValues_Check(o) || PyDictItems_Check(o)) {
    PyObject* dict = py::view_dict(o);
    PyObject* of = reinterpret_cast<PyObject*>(PyODict_Check(dict) ? &PyODict_Type : &PyDict_Type);
    const char* name = PyDictKeys_Check(o) ? "keys" : PyDictValues_Check(o) ? "values" : "items";
    Ref method = Ref::steal(PyObject_GetAttrString(of, name));
    result = describe_made_by(o, std::move(method), dict);
  } else if (type == &PyDictProxy_Type) {
    result = describe_made_by(o, Ref::share(reinterpret_cast<PyObject*>(type)), py::proxied_mapping(o));
  } else if (PyByteArray_CheckExact(o)) {
    Ref bytes = Ref::steal(PyBytes_FromObject(o));
    result = describe_made_by(o, Ref::share(reinterpret_cast<PyObject*>(type)), bytes.get());
  } else if (py::is_rebuilt_iterator(type) || rules().is_partial(o) || rules().is_getter(o)) {
    result = describe_reduced(o);
  } else if (PyTuple_Check(o) && PyDict_GetItemString(type->tp_dict, "n_sequence_fields") != nullptr) {
    result = sequence(MadeObject::Kind::kStruct);
    if (failure_.empty()) made_[result.index].type = Ref::share(reinterpret_cast<PyObject*>(type));
  } else if (PyExceptionInstance_Check(o)) {
    result = describe_exception(o);
  } else if (PyTraceBack_Check(o)) {
    result = describe_traceback(o);
  } else if (PyGen_CheckExact(o)) {
    result = describe_generator(o);
  } else if (is_inference_region(o)) {
    result = describe_inference_region(o);
  } else {
    result = describe_instance(o);
  }
  --depth_;
  return failure_.empty() ? result : RecipeValue{};
}

// A tensor that the recording made, with the class, the attributes and the gradient that it was given.
RecipeValue RecipeWriter::describe_tensor(PyObject* o) {
  const at::Tensor& tensor = unpack_tensor(o);
  const bool base = recorder_.graph().is_base();
  // Above autograd they are nodes of the graph.
  if (base && tensor_has_hooks(o)) return fail(o, "hooks on a tensor");
  RecipeValue result;
  if (base && tensor.requires_grad()) {
    result = describe_with_history(o);
  } else {
    const int output = recorder_.graph().mark_output(tensor);
    result = output < 0 ? fail(o, "not a value of the graph") : value_of(RecipeValue::Kind::kOutput, output);
  }
  PyObject** slot = _PyObject_GetDictPtr(o);
  PyObject* dict = slot != nullptr && *slot != nullptr && PyDict_GET_SIZE(*slot) > 0 ? *slot : nullptr;
  // With history, a parameter is an object of its class from the start (record/call_function.cpp).
  const bool parameter = base && is_parameter(o);
  const at::Tensor grad = tensor.is_leaf() ? tensor.grad() : at::Tensor();
  if (!failure_.empty() || (dict == nullptr && !parameter && !grad.defined())) return result;
  if (dict != nullptr && Py_REFCNT(dict) > 1) return fail(o, kHeldDict);
  const int32_t index = begin(o, MadeObject::Kind::kTensor);
  std::vector<RecipeValue> items{std::move(result), RecipeValue{}};
  if (grad.defined()) {
    Ref wrapped = Ref::steal(wrap_tensor(grad));
    if (!wrapped) PyErr_Clear();
    items[1] = wrapped ? describe(wrapped.get()) : fail(o, "its gradient");
    kept_.push_back(std::move(wrapped));
    if (items[1].kind == RecipeValue::Kind::kMade) return fail(o, "a gradient that has parts of its own");
  }
  std::vector<std::pair<Ref, RecipeValue>> attributes;
  PyObject *key, *value;
  Py_ssize_t pos = 0;
  while (dict != nullptr && PyDict_Next(dict, &pos, &key, &value)) {
    // Nothing that could hold the tensor in turn.
    if (!is_primitive(value) && recorder_.node_of(value) == kNoNode)
      return fail(o, "an attribute of a tensor that was made in the call");
    attributes.emplace_back(Ref::share(key), describe(value));
  }
  made_[index].items = std::move(items);
  made_[index].attributes = std::move(attributes);
  if (parameter) made_[index].type = Ref::share(reinterpret_cast<PyObject*>(Py_TYPE(o)));
  return value_of(RecipeValue::Kind::kMade, index);
}

// A tensor that a base recording made and that requires grad: nothing can be rebuilt of its history, so only
// one that is of no use any more may leave, and leaves.
RecipeValue RecipeWriter::describe_with_history(PyObject* o) {
  const at::Tensor& tensor = unpack_tensor(o);
  bool passes = tensor.is_leaf();
  if (!passes) {
    PyThreadState* saved = PyEval_SaveThread();
    passes = history_is_spent(tensor, recorder_.region());
    PyEval_RestoreThread(saved);
  }
  if (!passes) return fail(o, "it requires grad, through what was recorded below autograd");
  const int output = recorder_.graph().mark_output(tensor);
  if (output < 0) return fail(o, "not a value of the graph");
  histories_.push_back(describe_history(tensor, output));
  return value_of(RecipeValue::Kind::kOutput, output);
}

// Replay enters it anew, in the state in which the recording did.
RecipeValue RecipeWriter::describe_inference_region(PyObject* o) {
  const InferenceRegion* region = open_inference_region(recorder_.serial);
  if (region == nullptr || region->manager != o) return fail(o, "a region that cannot be entered again");
  const int32_t index = begin(o, MadeObject::Kind::kInferenceRegion);
  made_[index].type = Ref::share(reinterpret_cast<PyObject*>(Py_TYPE(o)));
  PyObject* mode = GlobalState::now().inference_mode ? Py_True : Py_False;
  made_[index].items.push_back({RecipeValue::Kind::kConstant, 0, Ref::share(mode)});
  made_[index].state = std::make_shared<const GlobalState>(region->before);
  enters_inference = true;
  return value_of(RecipeValue::Kind::kMade, index);
}

RecipeValue RecipeWriter::describe_function(PyObject* o) {
  auto* f = reinterpret_cast<PyFunctionObject*>(o);
  if (f->func_dict != nullptr && Py_REFCNT(f->func_dict) > 1) return fail(o, kHeldDict);
  const int32_t index = begin(o, MadeObject::Kind::kFunction);
  const auto constant = [](PyObject* object) {
    return object == nullptr ? RecipeValue{}
                             : RecipeValue{RecipeValue::Kind::kConstant, 0, Ref::share(object)};
  };
  const auto part = [&](PyObject* object) { return object == nullptr ? RecipeValue{} : describe(object); };
  std::vector<RecipeValue> items{constant(f->func_code),     constant(f->func_globals),
                                 constant(f->func_qualname), constant(f->func_name),
                                 part(f->func_defaults),     part(f->func_kwdefaults),
                                 part(f->func_closure),      part(f->func_annotations),
                                 constant(f->func_module),   constant(f->func_doc)};
  std::vector<std::pair<Ref, RecipeValue>> attributes;
  PyObject *key, *value;
  Py_ssize_t pos = 0;
  while (f->func_dict != nullptr && PyDict_Next(f->func_dict, &pos, &key, &value))
    attributes.emplace_back(Ref::share(key), describe(value));
  made_[index].items = std::move(items);
  made_[index].attributes = std::move(attributes);
  return value_of(RecipeValue::Kind::kMade, index);
}

// What a C function makes of one argument.
RecipeValue RecipeWriter::describe_made_by(PyObject* o, Ref function, PyObject* argument) {
  Ref arguments = Ref::steal(function && argument != nullptr ? PyTuple_Pack(1, argument) : nullptr);
  if (!arguments) {
    PyErr_Clear();
    return fail(o, "an object without a state");
  }
  const int32_t index = begin(o, MadeObject::Kind::kReduced);
  std::vector<RecipeValue> items;
  items.push_back({RecipeValue::Kind::kConstant, 0, std::move(function)});
  items.push_back(describe(arguments.get()));
  items.emplace_back();
  kept_.push_back(std::move(arguments));  // memo_ knows its parts by address
  made_[index].items = std::move(items);
  return value_of(RecipeValue::Kind::kMade, index);
}

RecipeValue RecipeWriter::describe_reduced(PyObject* o) {
  const bool iterator = py::is_rebuilt_iterator(Py_TYPE(o));
  Ref reduced = iterator
                    ? py::reduce_iterator(o)
                    : Ref::steal(PyObject_CallMethod(o, "__reduce__", nullptr));  // C code of a builtin type
  if (!reduced || !PyTuple_Check(reduced.get()) || PyTuple_GET_SIZE(reduced.get()) < 2) {
    PyErr_Clear();
    return fail(o, iterator ? "an iterator that cannot be made again" : "an object without a state");
  }
  const int32_t index = begin(o, MadeObject::Kind::kReduced);
  std::vector<RecipeValue> items;
  items.push_back({RecipeValue::Kind::kConstant, 0, Ref::share(PyTuple_GET_ITEM(reduced.get(), 0))});
  items.push_back(describe(PyTuple_GET_ITEM(reduced.get(), 1)));
  items.push_back(PyTuple_GET_SIZE(reduced.get()) > 2 ? describe(PyTuple_GET_ITEM(reduced.get(), 2))
                                                      : RecipeValue{});
  kept_.push_back(std::move(reduced));  // memo_ knows its parts by address
  made_[index].items = std::move(items);
  if (Py_IS_TYPE(o, &PySetIter_Type)) made_[index].type = Ref::share(reinterpret_cast<PyObject*>(Py_TYPE(o)));
  return value_of(RecipeValue::Kind::kMade, index);
}

RecipeValue RecipeWriter::describe_instance(PyObject* o) {
  PyTypeObject* type = Py_TYPE(o);
  PyTypeObject* base = builtin_base(type);
  const bool mapping = base == &PyDict_Type || base == &PyODict_Type;
  const bool list = base == &PyList_Type, tuple = base == &PyTuple_Type;
  const bool plain = base == &PyBaseObject_Type || base == &_PyNamespace_Type;
  const bool set = base == &PySet_Type || base == &PyFrozenSet_Type;
  if (!plain && !mapping && !list && !tuple && !set) return fail(o, "no recipe for this type");
  if (set && !py::is_rebuilt_in_order(o)) return fail(o, "it would be iterated in another order");
  if (has_c_state(o, base)) return fail(o, "has state of C code");
  if (type->tp_del != nullptr || type->tp_finalize != nullptr) return fail(o, "has a finalizer");
  if (recorder_.node_of(reinterpret_cast<PyObject*>(type)) == kNoNode &&
      PyType_HasFeature(type, Py_TPFLAGS_HEAPTYPE)) {
    return fail(o, "an instance of a class of unknown origin");
  }
  const int32_t index = begin(o, MadeObject::Kind::kInstance);
  made_[index].type = Ref::share(reinterpret_cast<PyObject*>(type));
  made_[index].base = base;
  std::vector<RecipeValue> items;
  if (mapping) {
    Ref keys = py::keys_in_order(o);
    if (!keys) return fail(o, kOutOfOrder);
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(keys.get()); ++i) {
      PyObject* key = PyList_GET_ITEM(keys.get(), i);
      if (!is_primitive(key)) return fail(o, "a key that is no primitive");
      PyObject* value = PyDict_GetItemWithError(o, key);
      if (value == nullptr) return fail(o, "a key without a value");
      items.push_back(describe(key));
      items.push_back(describe(value));
    }
  } else if (list) {
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(o); ++i) items.push_back(describe(PyList_GET_ITEM(o, i)));
  } else if (tuple) {
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(o); ++i) items.push_back(describe(PyTuple_GET_ITEM(o, i)));
  } else if (set) {
    const Ref stored = py::set_items(o);
    if (!stored) PyErr_Clear();
    for (Py_ssize_t i = 0; stored && i < PyList_GET_SIZE(stored.get()); ++i)
      items.push_back(describe(PyList_GET_ITEM(stored.get(), i)));
  }
  // Another range of the same name, which begins when the frames are put together.
  const auto range = [&](PyObject* dict, PyObject* value) {
    if (const auto known = memo_.find(value); known != memo_.end())
      return value_of(RecipeValue::Kind::kMade, known->second);
    Ref enter = enter_profiler_range();
    PyObject* const name = PyDict_GetItemString(dict, "name");
    PyObject* const about = PyDict_GetItemString(dict, "args");
    if (!enter || name == nullptr || about == nullptr || !is_primitive(name) || !is_primitive(about))
      return fail(value, "a range of the profiler");
    Ref arguments = Ref::steal(PyTuple_Pack(2, name, about));
    const int32_t made = begin(value, MadeObject::Kind::kReduced);
    made_[made].items = {{RecipeValue::Kind::kConstant, 0, std::move(enter)},
                         {RecipeValue::Kind::kConstant, 0, std::move(arguments)},
                         RecipeValue{}};
    return value_of(RecipeValue::Kind::kMade, made);
  };
  std::vector<std::pair<Ref, RecipeValue>> attributes, slots;
  if (PyObject* dict = py::instance_dict(o)) {
    if (Py_REFCNT(dict) > 1) return fail(o, kHeldDict);
    PyObject *key, *value;
    Py_ssize_t pos = 0;
    while (PyDict_Next(dict, &pos, &key, &value)) {
      RecipeValue described = is_profiler_range(o, value)
                                  ? range(dict, value)
                                  : describe(value, recorder_.shadow().item_tag(o, key, value));
      attributes.emplace_back(Ref::share(key), std::move(described));
    }
  }
  for (PyTypeObject* t = type; t != nullptr && PyType_HasFeature(t, Py_TPFLAGS_HEAPTYPE); t = t->tp_base) {
    PyObject *key, *d;
    Py_ssize_t pos = 0;
    while (PyDict_Next(t->tp_dict, &pos, &key, &d)) {
      PyObject** slot = Py_IS_TYPE(d, &PyMemberDescr_Type) ? py::object_slot(o, d) : nullptr;
      if (slot == nullptr || *slot == nullptr) continue;
      // Named as in the class that has it; one of a base by the same name is another place.
      const Tag tag = _PyType_Lookup(type, key) == d ? recorder_.shadow().item_tag(o, key, *slot) : Tag{0};
      slots.emplace_back(Ref::share(d), describe(*slot, tag));
    }
  }
  made_[index].items = std::move(items);
  made_[index].attributes = std::move(attributes);
  made_[index].slots = std::move(slots);
  return value_of(RecipeValue::Kind::kMade, index);
}

bool RecipeWriter::describe_effects(std::vector<PlannedEffect>& planned) {
  for (const Effect& e : recorder_.effects()) {
    FP_CHECK(e.owner != kNoNode, "an effect changes an object that guards reach");
    PlannedEffect p{e.kind, e.owner, e.key, {}};
    PyObject* storage = e.object.get();
    if (e.superseded) continue;
    p.moved = e.moved;
    switch (e.kind) {
      case EffectKind::kDictItem: {
        PyObject* value = PyDict_GetItemWithError(storage, e.key.get());
        const Tag tag = recorder_.shadow().stored_tag(storage, e.key.get());
        p.items.push_back(value == nullptr ? RecipeValue{} : describe(value, tag));
        break;
      }
      case EffectKind::kDictContents: {
        if (PyODict_Check(storage) && !PyODict_CheckExact(storage)) {
          fail(storage, "contents of a dict subclass");
          break;
        }
        Ref keys = py::keys_in_order(storage);
        if (!keys) fail(storage, kOutOfOrder);
        for (Py_ssize_t i = 0; keys && i < PyList_GET_SIZE(keys.get()); ++i) {
          PyObject* key = PyList_GET_ITEM(keys.get(), i);
          p.items.push_back(describe(key));
          p.items.push_back(describe(PyDict_GetItemWithError(storage, key)));
        }
        break;
      }
      case EffectKind::kDequeContents: {
        Ref items = Ref::steal(PySequence_List(storage));
        for (Py_ssize_t i = 0; items && i < PyList_GET_SIZE(items.get()); ++i)
          p.items.push_back(describe(PyList_GET_ITEM(items.get(), i)));
        break;
      }
      case EffectKind::kTypeAttr: {
        PyObject* value =
            PyDict_GetItemWithError(reinterpret_cast<PyTypeObject*>(storage)->tp_dict, e.key.get());
        if (value == nullptr) {
          fail(storage, "a class attribute that was deleted");
          break;
        }
        p.items.push_back(describe(value, recorder_.shadow().stored_tag(storage, e.key.get())));
        break;
      }
      case EffectKind::kTensorAttr: {
        PyObject* value = PyDict_GetItemWithError(storage, e.key.get());
        if (value == nullptr) {
          fail(storage, "an attribute of a tensor that was deleted");
          break;
        }
        p.items.push_back(describe(value));
        break;
      }
      case EffectKind::kTensorGrad: {
        Ref grad = Ref::steal(PyObject_GetAttrString(storage, "grad"));
        if (!grad) {
          PyErr_Clear();
          fail(storage, "its gradient");
          break;
        }
        p.items.push_back(describe(grad.get()));
        break;
      }
      case EffectKind::kListContents:
        for (Py_ssize_t i = 0; i < PyList_GET_SIZE(storage); ++i)
          p.items.push_back(describe(PyList_GET_ITEM(storage, i)));
        break;
      case EffectKind::kListItem: {
        const Py_ssize_t i = PyLong_AsSsize_t(e.key.get());
        if (i < 0 || i >= PyList_GET_SIZE(storage)) {
          PyErr_Clear();
          fail(storage, "a list that became shorter");
          break;
        }
        const Tag tag = recorder_.shadow().stored_tag(storage, index_place(i));
        p.items.push_back(describe(PyList_GET_ITEM(storage, i), tag));
        break;
      }
      case EffectKind::kListAppend:
        for (const Ref& item : e.items) p.items.push_back(describe(item.get()));
        break;
      case EffectKind::kSetContents: {
        Ref items = Ref::steal(PySequence_List(storage));
        for (Py_ssize_t i = 0; items && i < PyList_GET_SIZE(items.get()); ++i) {
          PyObject* item = PyList_GET_ITEM(items.get(), i);
          if (!is_primitive(item) && recorder_.node_of(item) == kNoNode)
            fail(storage, "a set of fresh objects");
          p.items.push_back(describe(item));
        }
        break;
      }
      case EffectKind::kCell: {
        PyObject* value = PyCell_GET(storage);
        const Tag tag = recorder_.shadow().stored_tag(storage, nullptr);
        p.items.push_back(value == nullptr ? RecipeValue{} : describe(value, tag));
        break;
      }
      case EffectKind::kSlot: {
        PyObject** slot = py::object_slot(storage, e.key.get());
        if (slot == nullptr) {
          fail(storage, "a slot");
          break;
        }
        p.items.push_back(*slot == nullptr
                              ? RecipeValue{}
                              : describe(*slot, recorder_.shadow().stored_tag(storage, e.key.get())));
        break;
      }
      case EffectKind::kContextVar: {
        PyObject* value = nullptr;
        if (PyContextVar_Get(storage, nullptr, &value) < 0) PyErr_Clear();
        Ref owned = Ref::steal(value);
        const bool same = value == e.key.get() || (value != nullptr && e.key && is_primitive(value) &&
                                                   primitives_equal(value, e.key.get()));
        if (same) continue;  // set and reset
        if (value == nullptr) {
          fail(storage, "a context variable that became unset");
          break;
        }
        p.items.push_back(describe(value));
        break;
      }
      case EffectKind::kGenerator:
        if (!describe_generator_end(storage, p)) continue;  // it runs on
        break;
      case EffectKind::kIteratorSteps:
        p.items.resize(e.items.size());
        break;
      case EffectKind::kCachedCall:
        for (const Ref& argument : e.items) p.items.push_back(describe(argument.get()));
        break;
    }
    if (!failure_.empty()) return false;
    planned.push_back(std::move(p));
  }
  return true;
}

}  // namespace flashpoint
