// What calls of torch's own C functions mean where "a tensor operation" does not say it all: numbers and
// lists that become tensors without an operator, and metadata that leaves as Python numbers.
//
// Metadata of an input is guarded and that of a result follows from the graph, except where a shape depends
// on data: then it is no constant, and what Python does with it ends the recording.
#include <string>
#include <utility>

#include "py/layout.h"
#include "py/torch_bridge.h"
#include "record/graph_recorder.h"
#include "record/recorder.h"
#include "record/rules/rules.h"

#include <ATen/PythonTorchFunctionTLS.h>
#include <ATen/core/TensorBase.h>

namespace flashpoint {

namespace {

// `t[:k]` past the end of a dimension is no operator, so it would be none at the next call either.
bool slice_may_vanish(PyObject* slice, c10::IntArrayRef sizes) {
  auto* s = reinterpret_cast<PySliceObject*>(slice);
  const bool from_start = s->start == Py_None || (PyLong_Check(s->start) && PyLong_AsLong(s->start) == 0);
  if (!from_start || s->stop == Py_None) return false;
  if (!PyLong_CheckExact(s->stop)) return true;
  int overflow = 0;
  const int64_t stop = PyLong_AsLongLongAndOverflow(s->stop, &overflow);
  if (overflow != 0) return false;  // clamped to the end whatever the size
  for (const int64_t size : sizes) {
    if (stop >= size) return true;
  }
  return false;
}

// Tensors of one element among the data are read as numbers.
bool expect_elements(GraphRecorder& graph, PyObject* data) {
  if (is_tensor(data))
    return is_plain_tensor(data) && unpack_tensor(data).numel() == 1 &&
           graph.expect_values(unpack_tensor(data));
  if (!PyList_CheckExact(data) && !PyTuple_CheckExact(data)) return true;
  for (Py_ssize_t i = 0; i < Py_SIZE(data); ++i) {
    if (!expect_elements(graph, PyList_Check(data) ? PyList_GET_ITEM(data, i) : PyTuple_GET_ITEM(data, i)))
      return false;
  }
  return true;
}

}  // namespace

bool function_mode_answers() {
  return at::impl::PythonTorchFunctionTLS::stack_len() > 0 && !at::impl::torch_function_all_disabled();
}

bool Recorder::shape_depends_on_data(PyObject* tensor) const {
  return graph_.has_dynamic_shape(graph_.value_of(unpack_tensor(tensor)));
}

bool Recorder::settle_shape(PyObject* tensor, bool only_dims) {
  return !shape_depends_on_data(tensor) || graph_.expect_shape(unpack_tensor(tensor), only_dims);
}

bool Recorder::may_read_value(PyObject* tensor) const {
  return is_plain_tensor(tensor) && !function_mode_answers() && graph_.may_expect_number() &&
         unpack_tensor(tensor).numel() == 1 && graph_.is_known(unpack_tensor(tensor));
}

void Rules::read_tensor_index(Recorder& r, PyObject* tensor, PyObject* key) const {
  if (!r.read_deep(key)) return r.end(Break::k_unsupported_container, "tensor index");
  if (contains_list(key)) {
    // It becomes a tensor without an operator: a literal, if numbers are all it holds.
    const Py_ssize_t parts = PyTuple_Check(key) ? PyTuple_GET_SIZE(key) : 1;
    for (Py_ssize_t i = 0; i < parts; ++i) {
      PyObject* part = PyTuple_Check(key) ? PyTuple_GET_ITEM(key, i) : key;
      if (!is_tensor(part) && holds_tensor(part))
        return r.end(Break::k_denied_function, "a list with tensors as a tensor index");
    }
    r.graph_.set_number_store(true);
  }
  if (is_plain_tensor(tensor) && r.shape_depends_on_data(tensor)) {
    const auto sizes = unpack_tensor(tensor).sizes();
    const Py_ssize_t parts = PyTuple_Check(key) ? PyTuple_GET_SIZE(key) : 1;
    for (Py_ssize_t i = 0; i < parts; ++i) {
      PyObject* part = PyTuple_Check(key) ? PyTuple_GET_ITEM(key, i) : key;
      if (PySlice_Check(part) && slice_may_vanish(part, sizes) && !r.settle_shape(tensor, false))
        return r.end(Break::k_tensor_data_as_python, "a slice of a tensor whose size depends on data");
    }
  }
}

void Rules::read_stored_value(Recorder& r, PyObject* tensor, PyObject* key, PyObject* value) const {
  if (value == nullptr || r.ended()) return;
  // A number becomes a tensor without an operator; it is a literal of the graph.
  if (!is_tensor(value)) return r.graph_.set_number_store(true);
  if (!is_plain_tensor(value) || !is_plain_tensor(tensor)) return;
  // Leading dimensions of size one are dropped from the value before it is written, by a view of its size.
  const bool masked = is_tensor(key);
  if (r.graph_.may_expect()) return;
  if ((r.shape_depends_on_data(value) &&
       (!masked || unpack_tensor(value).dim() == 0 || unpack_tensor(value).size(0) == 1)) ||
      (!masked && r.shape_depends_on_data(tensor))) {
    r.end(Break::k_tensor_data_as_python, "a store of a tensor whose size depends on data");
  }
}

// Values as Python numbers: the graph recorder sees single ones at the dispatcher, all of them it is told.
void Rules::read_values(Recorder& r, const char* name, PyObject* tensor, bool all) const {
  constexpr int64_t kMostValues = 256;
  if (!all && r.may_read_value(tensor)) return;
  if (all && is_plain_tensor(tensor) && !function_mode_answers() &&
      unpack_tensor(tensor).numel() <= kMostValues && r.graph_.may_expect() &&
      r.settle_shape(tensor, false) && r.graph_.expect_values(unpack_tensor(tensor))) {
    return;
  }
  r.end(Break::k_denied_function, name);
}

// Functions of metadata that give Python numbers.
void Rules::query_tensor(Recorder& r, const char* name, PyObject* const* argv, Py_ssize_t count) const {
  for (Py_ssize_t i = 0; i < count; ++i) {
    PyObject* a = argv[i];
    if (!is_tensor(a)) {
      if (!r.read_deep(a)) return r.end(Break::k_unknown_c_function, std::string(name) + ": argument");
      continue;
    }
    if (!is_plain_tensor(a))
      return r.end(Break::k_unsupported_argument, std::string("tensor subclass ") + Py_TYPE(a)->tp_name);
    const std::string_view what = name;
    // These follow from the operator.
    if (what.ends_with("is_complex") || what.ends_with("is_floating_point") || what.ends_with("is_signed") ||
        what.ends_with("is_conj") || what.ends_with("is_neg") || what.ends_with("is_inference") ||
        what.ends_with("get_device") || what.ends_with("element_size"))
      continue;
    if (!r.settle_shape(a, what.ends_with(".dim") || what.ends_with("ndimension")))
      return r.end(Break::k_tensor_data_as_python,
                   std::string("size of a tensor whose shape depends on data: ") + name);
  }
}

void Rules::read_storage_offset(Recorder& r, PyObject* tensor) const {
  if (!is_plain_tensor(tensor))
    return r.end(Break::k_unsupported_argument, std::string("tensor subclass ") + Py_TYPE(tensor)->tp_name);
  const NodeId node = r.node_of(tensor);
  // A view's offset follows from that of what it was made from, which no guard knows.
  if (node == kNoNode) return r.end(Break::k_denied_function, "storage_offset of a tensor made in the call");
  const int64_t offset = unpack_tensor(tensor).storage_offset();
  if (offset > INT32_MAX) return r.end(Break::k_denied_function, "a large storage_offset");
  r.tree_.check(node, CheckKind::kStorageOffset, nullptr, static_cast<int32_t>(offset));
}

// torch.tensor and its like: literal data only, from argument `first` on; then the result is a constant of
// the graph, cloned at each replay.
void Rules::make_literal(Recorder& r, PyObject* const* argv, Py_ssize_t count, Py_ssize_t first,
                         Pending& pending) const {
  if (function_mode_answers()) return;
  for (Py_ssize_t i = first; i < count; ++i) {
    if (is_tensor(argv[i]) || !r.read_deep(argv[i]) ||
        (holds_tensor(argv[i]) && !expect_elements(r.graph_, argv[i]))) {
      return r.end(Break::k_denied_function, "a tensor made of something that is not literal data");
    }
  }
  pending.word = Recorder::kPendingLiteral;
}

// The constructors of before torch 0.4: several numbers or a torch.Size are sizes, one list or tuple is data.
void Rules::make_legacy_tensor(Recorder& r, RuleRow row, PyObject* const* argv, Py_ssize_t n,
                               Pending& pending) const {
  if (function_mode_answers()) return r.end(Break::k_denied_function, row.name);
  bool sizes = true;
  for (Py_ssize_t i = 0; i < n; ++i) {
    if (!PyLong_CheckExact(argv[i]) && !(n == 1 && is_size(argv[i]))) sizes = false;
  }
  if (sizes) return r.call_torch(row.name, argv, n, nullptr);
  if (n != 1 || !(PyList_CheckExact(argv[0]) || PyTuple_CheckExact(argv[0])))
    return r.end(Break::k_denied_function, std::string(row.name) + " of something that is no list");
  make_literal(r, argv, n, 0, pending);
}

// An object whose class brings `__torch_function__`: the call is one of that Python code.
bool Rules::answers_torch_functions(Recorder& r, PyObject* object) const {
  PyTypeObject* type = Py_TYPE(object);
  if (!PyType_HasFeature(type, Py_TPFLAGS_HEAPTYPE) || PyType_Check(object)) return false;
  static PyObject* const name = PyUnicode_InternFromString("__torch_function__");
  PyObject* found = _PyType_Lookup(type, name);
  if (found == nullptr || type->tp_getattro != PyObject_GenericGetAttr) return false;
  PyObject** dict = _PyObject_GetDictPtr(object);
  if (dict != nullptr && *dict != nullptr && PyDict_GetItemWithError(*dict, name) != nullptr) return false;
  r.read_attr(object, name);
  const bool method = Py_IS_TYPE(found, &PyClassMethod_Type) || Py_IS_TYPE(found, &PyStaticMethod_Type);
  return PyFunction_Check(method ? py::held_callable(found) : found);
}

void Rules::call_pure_python(Recorder& r, PyObject* f, PyObject* const* args, Py_ssize_t n, PyObject* kwnames,
                             Pending& pending) const {
  const Py_ssize_t count = n + (kwnames == nullptr ? 0 : PyTuple_GET_SIZE(kwnames));
  if (function_mode_answers()) return;
  for (Py_ssize_t i = 0; i < count; ++i) {
    if (is_tensor(args[i])) {
      query_tensor(r, "an argument", args + i, 1);
    } else if (!r.read_deep(args[i]) || holds_tensor(args[i])) {
      return;  // its frame is recorded like any other
    }
    if (r.ended()) return;
  }
  bool* observing = r.graph_.observing();
  const bool saved = observing != nullptr && std::exchange(*observing, false);
  pending.answer = PyObject_Vectorcall(f, args, static_cast<size_t>(n), kwnames);
  if (observing != nullptr) *observing = saved;
  if (pending.answer == nullptr) PyErr_Clear();  // it raises again, watched
}

void Rules::call_torch_rule(Recorder& r, RuleRow row, PyObject* const* argv, Py_ssize_t n, PyObject* kwnames,
                            Pending& pending) const {
  const Py_ssize_t count = n + (kwnames == nullptr ? 0 : PyTuple_GET_SIZE(kwnames));
  switch (row.rule) {
    case Rule::kTensorQuery:
      return query_tensor(r, row.name, argv, count);
    case Rule::kStorageOffset:
      if (count != 1 || !is_tensor(argv[0])) return r.end(Break::k_unknown_c_function, row.name);
      return read_storage_offset(r, argv[0]);
    case Rule::kDescriptorGet:
      // How a torch-function mode reads an attribute: `torch.Tensor.shape.__get__(t)`.
      if (n < 2 || !is_tensor(argv[1]) || !Py_IS_TYPE(argv[0], &PyGetSetDescr_Type))
        return r.end(Break::k_unknown_c_function, row.name);
      return r.read_tensor_attr(argv[1], PyDescr_NAME(argv[0]));
    case Rule::kTensorStore:
      if (n != 3 || !is_tensor(argv[0])) return r.end(Break::k_unknown_c_function, row.name);
      return store_subscript(r, argv[0], argv[1], argv[2]);
    case Rule::kTorchTensor:
      return make_literal(r, argv, count, 0, pending);
    case Rule::kNewTensor:
      if (n < 1 || !is_plain_tensor(argv[0])) return r.end(Break::k_denied_function, row.name);
      return make_literal(r, argv, count, 1, pending);
    case Rule::kTensorValue:
    case Rule::kTensorValues:
      if (n < 1 || !is_tensor(argv[0])) return r.end(Break::k_denied_function, row.name);
      if (row.rule == Rule::kTensorValue && count == 1 && r.shadow_.may_follow_item(argv[0], false)) {
        pending.word = Recorder::kPendingItem;
        pending.data = argv[0];
        return;
      }
      return read_values(r, row.name, argv[0], row.rule == Rule::kTensorValues);
    case Rule::kLegacyTensor:
      if (kwnames != nullptr) return r.end(Break::k_denied_function, row.name);
      return make_legacy_tensor(r, row, argv, n, pending);
    case Rule::kLegacyNew:
      if (kwnames != nullptr || n < 1 || !is_plain_tensor(argv[0]))
        return r.end(Break::k_denied_function, row.name);
      return make_legacy_tensor(r, row, argv + 1, n - 1, pending);
    case Rule::kLegacyVariable:
      // With its defaults it detaches, which the dispatcher sees.
      if (n < 1 || !is_plain_tensor(argv[0])) return r.end(Break::k_denied_function, row.name);
      for (Py_ssize_t i = 1; i < count; ++i) {
        if (argv[i] != Py_False && argv[i] != Py_None)
          return r.end(Break::k_denied_function, "a Variable that requires grad");
      }
      return;
    case Rule::kAsTensor:
      // A tensor is handed on, or converted by an operator.
      if (n >= 1 && is_tensor(argv[0])) return r.call_torch(row.name, argv, n, kwnames);
      return make_literal(r, argv, count, 0, pending);
    case Rule::kEngine:
      return r.run_engine(argv, n, kwnames);
    case Rule::kBelow:
      if (!r.graph_.is_base()) return r.need_base(row.name);
      return r.call_torch(row.name, argv, n, kwnames);
    case Rule::kRetainGrad:
      if (!r.graph_.is_base()) return r.need_base(row.name);
      // The engine's gradients are known by their memory.
      if (count != 1 || !is_plain_tensor(argv[0]) || r.node_of(argv[0]) != kNoNode)
        return r.end(Break::k_denied_function, row.name);
      return;
    case Rule::kRequiresGrad: {
      if (!r.graph_.is_base()) return r.need_base(row.name);
      if (n < 1 || !is_plain_tensor(argv[0])) return r.end(Break::k_denied_function, row.name);
      // Of a tensor from outside it may stay as it is.
      const bool wanted = count < 2 || argv[1] == Py_True;
      if (r.node_of(argv[0]) != kNoNode && unpack_tensor(argv[0]).requires_grad() != wanted)
        return r.end(Break::k_denied_function, row.name);
      return;
    }
    default:
      return r.end(Break::k_unknown_c_function, std::string(row.name) + ": no handler");
  }
}

}  // namespace flashpoint
