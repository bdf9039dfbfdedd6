#include "driver/guard_reader.h"

#include "driver/entry_format.h"
#include "guard/guard_access.h"
#include "py/layout.h"
#include "record/rules/rules.h"

namespace flashpoint {

namespace {

using portable::ValueRef;

bool is_heap(PyTypeObject* type) { return PyType_HasFeature(type, Py_TPFLAGS_HEAPTYPE); }

bool is_class_and_name(PyObject* key) {
  return key != nullptr && PyTuple_CheckExact(key) && PyTuple_GET_SIZE(key) == 2 &&
         PyType_Check(PyTuple_GET_ITEM(key, 0)) && PyUnicode_CheckExact(PyTuple_GET_ITEM(key, 1));
}

bool get_meta(store::Reader& in, TensorMeta& m) {
  m.key_set = in.number<uint64_t>();
  for (int16_t* number : {&m.dtype, &m.device_type, &m.device_index, &m.layout})
    *number = in.number<int16_t>();
  const auto flags = in.number<uint8_t>();
  m.requires_grad = (flags & 1) != 0;
  m.is_leaf = (flags & 2) != 0;
  m.is_inference = (flags & 4) != 0;
  for (auto* list : {&m.sizes, &m.strides}) {
    const auto size = in.number<uint32_t>();
    if (size > 1024) return false;
    for (uint32_t i = 0; i < size; ++i) list->push_back(in.number<int64_t>());
  }
  return in.ok() && m.dtype >= 0 && m.dtype < static_cast<int16_t>(c10::ScalarType::NumOptions);
}

}  // namespace

std::nullptr_t ReadVerdict::end(ReadOutcome how, std::string text) {
  if (outcome != ReadOutcome::kRead) return nullptr;
  outcome = how;
  why = std::move(text);
  return nullptr;
}

PyObject* ReadVerdict::object(portable::Table& table, ValueRef ref, const char* what) {
  if (ref == 0 || !table.is_valid(ref)) return end(ReadOutcome::kMalformed, what), nullptr;
  PyObject* found = table.obtain(ref);
  if (found == nullptr) end(ReadOutcome::kChanged, table.why());
  return found;
}

bool GuardReader::read(store::Reader& in) {
  const auto count = in.number<uint32_t>();
  if (!in.ok() || count > kMaxEntryNodes || count > in.left()) return bad("the number of guards");
  reached_.resize(count);
  for (uint32_t i = 0; i < count; ++i) {
    if (!read_node(in, static_cast<NodeId>(i))) return false;
  }
  return true;
}

bool GuardReader::read_node(store::Reader& in, NodeId id) {
  const auto step_number = in.number<uint8_t>();
  const auto parent = in.number<int32_t>();
  const auto index = in.number<int32_t>();
  const auto key_ref = in.number<uint32_t>();
  const auto checks = in.number<uint32_t>();
  if (!in.ok() || step_number >= kSteps || index < 0 || !table_.is_valid(key_ref)) return bad("a guard");
  const auto step = static_cast<Step>(step_number);
  const bool root = step == Step::kArg || step == Step::kConst || step == Step::kTypeRoot;
  if (root ? parent != kNoNode : parent < 0 || parent >= id) return bad("a guard's parent");
  PyObject* key = nullptr;
  if (key_ref != 0 && (key = object(key_ref, "a key")) == nullptr) return false;
  if (!root && GuardAccess::values(tree_)[parent] == nullptr) return bad("a guard's parent");
  if (!may_step(step, parent, key)) return bad("a guard that cannot be followed");
  if (step == Step::kDictValue) bind_operator(parent, key);
  GuardAccess::add_node(tree_, parent, step, key, index);
  PyObject* value = GuardAccess::reach_last(tree_, call_.args, call_.count());
  if (value == nullptr) return other_call(tree_.path(id) + ": not there") != nullptr;
  reached_[id].fixed = step == Step::kConst || step == Step::kTypeRoot || step == Step::kTypeOf;
  for (uint32_t c = 0; c < checks; ++c) {
    if (!read_check(in, id, value)) return false;
  }
  return true;
}

// The call would bind it when it came to read it.
void GuardReader::bind_operator(NodeId dict, PyObject* name) const {
  const Node& node = tree_.node(dict);
  if (node.step != Step::kInstanceDict || !PyUnicode_CheckExact(name)) return;
  PyObject* holder = GuardAccess::values(tree_)[node.parent];
  if (holder != nullptr && rules().holds_operators(Py_TYPE(holder))) rules().bind_operator(holder, name);
}

// Steps that take their parent's type for granted need a guard that makes sure of it.
bool GuardReader::may_step(Step step, NodeId parent, PyObject* key) const {
  PyObject* p = parent == kNoNode ? nullptr : GuardAccess::values(tree_)[parent];
  const bool fixed = parent != kNoNode && reached_[parent].fixed;
  switch (step) {
    case Step::kArg:
    case Step::kListItem:
    case Step::kTupleItem:
    case Step::kCellContents:
    case Step::kFuncClosure:
    case Step::kFuncDefault:
    case Step::kFuncKwDefaults:
    case Step::kFuncAnnotations:
    case Step::kFuncGlobals:
    case Step::kMethodFunc:
    case Step::kMethodSelf:
    case Step::kProxyDict:
    case Step::kTypeDict:
    case Step::kPropertyGet:
    case Step::kInstanceDict:
    case Step::kTypeOf:
    case Step::kWeakTarget:
    case Step::kContextValue:
      return key == nullptr;
    case Step::kConst:
      return key != nullptr;
    case Step::kTypeRoot:
      return key != nullptr && PyType_Check(key);
    case Step::kDictValue:
      return key != nullptr;
    case Step::kSlot:
      return key != nullptr && Py_IS_TYPE(key, &PyMemberDescr_Type);
    case Step::kTypeLookup:
      return fixed && PyType_Check(p) && key != nullptr && PyUnicode_CheckExact(key);
    case Step::kSuperLookup:
      return fixed && PyType_Check(p) && is_class_and_name(key);
    case Step::kDequeItem:
      return fixed && rules().is_deque(p) && !is_heap(Py_TYPE(p));
    case Step::kDescrFunc:
      return fixed &&
             (PyObject_TypeCheck(p, &PyStaticMethod_Type) || PyObject_TypeCheck(p, &PyClassMethod_Type));
    case Step::kPartialFunc:
    case Step::kPartialArgs:
    case Step::kPartialKeywords:
      return fixed && rules().is_partial(p);
    case Step::kIteratorSource:
      return key == nullptr;
    case Step::kTensorGrad:
      return key == nullptr && parent != kNoNode && reached_[parent].tensor;
    case Step::kGeneratorFunction:
    case Step::kGeneratorSlot:
    case Step::kTraceback:
    case Step::kThreadLocalDict:
      return false;
  }
  return false;
}

bool GuardReader::read_check(store::Reader& in, NodeId id, PyObject* value) {
  const auto kind_number = in.number<uint8_t>();
  auto number = in.number<int32_t>();
  const auto first = in.number<uint32_t>();
  const auto other = in.number<uint32_t>();
  if (!in.ok() || kind_number >= kCheckKinds || !table_.is_valid(first) || !table_.is_valid(other))
    return bad("a check");
  const auto kind = static_cast<CheckKind>(kind_number);
  Reached& reached = reached_[id];
  if (kind == CheckKind::kFuncState) return read_function_state(id, value, number, first, other);
  if (kind == CheckKind::kTypeIs || kind == CheckKind::kIs) {
    if (kind == CheckKind::kTypeIs && table_.is_another_class(first, Py_TYPE(value)))
      return other_call(tree_.path(id) + ": an object of another class") != nullptr;
    PyObject* what = kind == CheckKind::kIs ? value : reinterpret_cast<PyObject*>(Py_TYPE(value));
    if (!table_.take(first, what)) return table_.why().empty() ? bad("an object") : changed() != nullptr;
    reached.fixed = true;
    return add(id, kind, number, Ref::share(what), Ref(), value);
  }
  if (kind == CheckKind::kBases) {
    // The class was compared with its description, which names its bases.
    if (tree_.node(id).step != Step::kTypeRoot) return bad("the bases of no class");
    return add(id, kind, 0, py::bases_of(reinterpret_cast<PyTypeObject*>(value)), Ref(), value);
  }
  PyObject *operand = nullptr, *second = nullptr;
  if (first != 0 && (operand = object(first, "an operand")) == nullptr) return false;
  if (other != 0 && (second = object(other, "an operand")) == nullptr) return false;
  if (kind == CheckKind::kTensor) {
    TensorMeta meta;
    if (!get_meta(in, meta)) return bad("a tensor's metadata");
    reached.tensor = true;
    number = GuardAccess::add_meta(tree_, std::move(meta));
  } else if (kind == CheckKind::kPlainCall) {
    number = GuardAccess::add_plain_call(tree_);
  } else if (!may_check(kind, id, value, number, operand, second)) {
    return bad("a check that cannot be made");
  }
  if (kind == CheckKind::kValue) reached.fixed = true;
  return add(id, kind, number, Ref::share(operand), Ref::share(second), value);
}

bool GuardReader::add(NodeId id, CheckKind kind, int32_t number, Ref operand, Ref second, PyObject* value) {
  if (GuardAccess::add(tree_, id, kind, number, std::move(operand), std::move(second), value)) return true;
  return other_call(tree_.path(id) + ": expected " + tree_.text_of(GuardAccess::last_check(tree_))) !=
         nullptr;
}

bool GuardReader::read_function_state(NodeId id, PyObject* value, int32_t number, ValueRef code,
                                      ValueRef globals) {
  if (!PyFunction_Check(value)) return other_call(tree_.path(id) + ": no function") != nullptr;
  auto* f = reinterpret_cast<PyFunctionObject*>(value);
  if (!table_.take(code, f->func_code) || !table_.take(globals, f->func_globals))
    return table_.why().empty() ? bad("a function") : changed() != nullptr;
  PyObject* builtins = PyDict_GetItemString(PyImport_GetModuleDict(), "builtins");
  if (builtins == nullptr || !PyModule_Check(builtins) || f->func_builtins != PyModule_GetDict(builtins))
    return other_call(tree_.path(id) + ": other builtins") != nullptr;
  const int32_t defaults = number / 2;
  Ref state = Ref::steal(
      Py_BuildValue("(OiOO)", f->func_code, defaults, number % 2 != 0 ? Py_True : Py_False, f->func_globals));
  if (!state || number < 0) return PyErr_Clear(), bad("a function");
  reached_[id].function = true;
  return add(id, CheckKind::kFuncState, 0, std::move(state), Ref(), value);
}

// Whether the check's C code may meet this object and these operands.
bool GuardReader::may_check(CheckKind kind, NodeId id, PyObject* v, int32_t number, PyObject* operand,
                            PyObject* second) const {
  const bool fixed = reached_[id].fixed;
  const auto tuple = [&](Py_ssize_t size) {
    return operand != nullptr && PyTuple_CheckExact(operand) &&
           (size < 0 || PyTuple_GET_SIZE(operand) == size);
  };
  const auto text = [](PyObject* o) { return o != nullptr && PyUnicode_CheckExact(o); };
  const auto value = [](PyObject* o) { return o != nullptr && is_primitive(o); };
  switch (kind) {
    case CheckKind::kLen:
    case CheckKind::kNonEmpty:
      return !is_heap(Py_TYPE(v)) || PyList_Check(v) || PyTuple_Check(v) || PyAnySet_Check(v) ||
             PyDict_Check(v);
    case CheckKind::kCellEmpty:
    case CheckKind::kStorageOffset:
    case CheckKind::kDictLen:
    case CheckKind::kDictNonEmpty:
      return true;
    case CheckKind::kSameAs:
    case CheckKind::kNotSameAs:
      return number >= 0 && number < id;
    case CheckKind::kValue:
    case CheckKind::kCellValue:
      return value(operand);
    case CheckKind::kEquals:
      return operand != nullptr && (is_primitive(operand) || rules().is_value_type(Py_TYPE(operand)));
    case CheckKind::kListItemValue:
    case CheckKind::kTupleItemValue:
    case CheckKind::kDefaultValue:
      return number >= 0 && value(second);
    case CheckKind::kSetContains:
      return value(operand) && second != nullptr;
    case CheckKind::kSlotValue:
      return operand != nullptr && Py_IS_TYPE(operand, &PyMemberDescr_Type) && value(second);
    case CheckKind::kSetOrder:
    case CheckKind::kOrderedKeys:
    case CheckKind::kKeys:
      return tuple(-1);
    case CheckKind::kInstanceLacks:
      return text(operand);
    case CheckKind::kFunctionAttribute:
      return text(operand) && value(second);
    case CheckKind::kRangeIs:
    case CheckKind::kSliceIs:
      return tuple(3);
    case CheckKind::kIteratorAt:
      return tuple(-1);
    case CheckKind::kNoGrad:
    case CheckKind::kNoHooks:
      return reached_[id].tensor;
    case CheckKind::kDequeBound:
      return fixed && rules().is_deque(v) && !is_heap(Py_TYPE(v)) && value(operand);
    case CheckKind::kGetterIs:
      return fixed && rules().is_getter(v) && tuple(-1);
    case CheckKind::kKeyAbsent:
    case CheckKind::kKeyPresent:
      return operand != nullptr;
    case CheckKind::kItemValue:
      return operand != nullptr && value(second);
    case CheckKind::kLookupValue:
      return fixed && PyType_Check(v) && text(operand) && value(second);
    case CheckKind::kLookupAbsent:
      return fixed && PyType_Check(v) && text(operand);
    case CheckKind::kSuperAbsent:
      return fixed && PyType_Check(v) && is_class_and_name(operand);
    default:
      return false;
  }
}

}  // namespace flashpoint
