#include "guard/guard_tree.h"

#include <algorithm>
#include <cstring>
#include <iterator>
#include <string_view>
#include <utility>

#include "base/check.h"
#include "base/counters.h"
#include "py/dicts.h"
#include "py/generators.h"
#include "py/iterators.h"
#include "py/key_hash.h"
#include "py/layout.h"
#include "py/torch_bridge.h"

namespace flashpoint {

namespace {

constexpr bool kTagged[] = {
#define X(name, tagged, operands, text) tagged,
#include "guard/checks.def"
#undef X
};

// Tuples are often made anew: they are told by their elements, as text and numbers are by their value.
bool is_same_key(PyObject* a, PyObject* b) {
  if (a == b) return true;
  if (!py::is_plain_tuple(a) || !Py_IS_TYPE(b, Py_TYPE(a))) return primitives_equal(a, b);
  if (PyTuple_GET_SIZE(a) != PyTuple_GET_SIZE(b)) return false;
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(a); ++i) {
    if (!is_same_key(PyTuple_GET_ITEM(a, i), PyTuple_GET_ITEM(b, i))) return false;
  }
  return true;
}

// Tuples of the very same classes.
bool is_same_order(PyObject* a, PyObject* b) {
  if (a == b) return true;
  if (a == nullptr || b == nullptr || PyTuple_GET_SIZE(a) != PyTuple_GET_SIZE(b)) return false;
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(a); ++i) {
    if (PyTuple_GET_ITEM(a, i) != PyTuple_GET_ITEM(b, i)) return false;
  }
  return true;
}

// The dict is made when it is first asked for; borrowed from the function.
PyObject* annotations_of(PyObject* function) {
  if (reinterpret_cast<PyFunctionObject*>(function)->func_annotations == nullptr) {
    const Ref empty = Ref::steal(PyDict_New());
    if (!empty || PyFunction_SetAnnotations(function, empty.get()) < 0) return PyErr_Clear(), nullptr;
  }
  PyObject* annotations = PyFunction_GetAnnotations(function);
  if (annotations == nullptr) PyErr_Clear();
  return annotations;
}

}  // namespace

namespace {

// How many bytes a numpy scalar holds behind its head; 0 for anything else. Its types are static, so a class
// of the program cannot have such a name.
size_t numpy_scalar_size(PyObject* o) {
  const PyTypeObject* type = Py_TYPE(o);
  if (PyType_HasFeature(const_cast<PyTypeObject*>(type), Py_TPFLAGS_HEAPTYPE) || type->tp_name[0] != 'n' ||
      std::strncmp(type->tp_name, "numpy.", 6) != 0)
    return 0;
  constexpr struct {
    std::string_view name;
    size_t size;
  } kScalars[] = {{"float64", 8}, {"float32", 4}, {"float16", 2}, {"int64", 8}, {"int32", 4},
                  {"int16", 2},   {"int8", 1},    {"uint8", 1},   {"bool", 1},  {"bool_", 1}};
  const std::string_view name = type->tp_name + 6;
  for (const auto& row : kScalars) {
    if (row.name == name) return row.size;
  }
  return 0;
}

}  // namespace

bool is_rare_primitive(PyObject* o) {
  return PyBytes_CheckExact(o) || PyComplex_CheckExact(o) || o == Py_Ellipsis || o == Py_NotImplemented ||
         numpy_scalar_size(o) != 0;
}

bool primitives_equal(PyObject* a, PyObject* b) {
  if (a == b) return true;
  if (Py_TYPE(a) != Py_TYPE(b)) return false;
  if (PyFloat_CheckExact(a)) {
    const double x = PyFloat_AS_DOUBLE(a), y = PyFloat_AS_DOUBLE(b);
    return std::memcmp(&x, &y, sizeof x) == 0;
  }
  if (PyComplex_CheckExact(a)) {
    const Py_complex x = PyComplex_AsCComplex(a), y = PyComplex_AsCComplex(b);
    return std::memcmp(&x, &y, sizeof x) == 0;
  }
  if (const size_t size = numpy_scalar_size(a))
    return std::memcmp(reinterpret_cast<char*>(a) + sizeof(PyObject),
                       reinterpret_cast<char*>(b) + sizeof(PyObject), size) == 0;
  if (!PyLong_CheckExact(a) && !PyUnicode_CheckExact(a) && !PyBytes_CheckExact(a)) return false;
  const int equal = PyObject_RichCompareBool(a, b, Py_EQ);
  if (equal < 0) PyErr_Clear();
  return equal == 1;
}

NodeId GuardTree::find_child(NodeId parent, Step step, PyObject* key, int32_t index) const {
  const NodeId* found = index_.find(Key{parent, step, index, key});
  return found == nullptr ? kNoNode : *found;
}

NodeId GuardTree::child(NodeId parent, Step step, PyObject* key, int32_t index) {
  const auto [id, added] =
      index_.try_emplace(Key{parent, step, index, key}, static_cast<NodeId>(nodes_.size()));
  if (added) {
    plan_.ready = false;
    nodes_.push_back(Node{step, parent, index, Ref::share(key)});
  }
  return *id;
}

Check& GuardTree::add_check(NodeId id, CheckKind kind) {
  plan_.ready = false;
  Node& n = nodes_[id];
  const bool tagged = kTagged[static_cast<int>(kind)];
  int32_t& head = tagged ? n.tagged_checks : n.checks;
  int32_t& tail = tagged ? n.last_tagged_check : n.last_check;
  const int32_t index = static_cast<int32_t>(checks_.size());
  (tail < 0 ? head : checks_[tail].next) = index;
  tail = index;
  return checks_.emplace_back(Check{kind});
}

void GuardTree::check(NodeId id, CheckKind kind, PyObject* operand, int32_t number) {
  const Node& n = nodes_[id];
  for (int32_t c = kTagged[static_cast<int>(kind)] ? n.tagged_checks : n.checks; c >= 0;
       c = checks_[c].next) {
    const Check& other = checks_[c];
    if (other.kind == kind && other.number == number && other.operand.get() == operand) return;
  }
  Check& added = add_check(id, kind);
  added.number = number;
  added.operand = Ref::share(operand);
}

void GuardTree::check_place(NodeId id, CheckKind kind, PyObject* place, PyObject* value, int32_t index) {
  Check& added = add_check(id, kind);
  added.number = index;
  added.operand = Ref::share(place);
  added.second = Ref::share(value);
}

void GuardTree::check_tensor(NodeId id, TensorMeta meta) {
  for (int32_t c = nodes_[id].checks; c >= 0; c = checks_[c].next) {
    if (checks_[c].kind == CheckKind::kTensor) return;
  }
  add_check(id, CheckKind::kTensor).number = add_meta(std::move(meta));
}

int32_t GuardTree::add_meta(TensorMeta meta) {
  constexpr size_t kLookBack = 16;  // parameters of one kind come close to one another
  const size_t first = metas_.size() > kLookBack ? metas_.size() - kLookBack : 0;
  for (size_t i = metas_.size(); i-- > first;) {
    if (metas_[i] == meta) return static_cast<int32_t>(i);
  }
  metas_.push_back(std::move(meta));
  return static_cast<int32_t>(metas_.size()) - 1;
}

void GuardTree::check_plain_call(NodeId id) {
  add_check(id, CheckKind::kPlainCall).number = static_cast<int32_t>(plain_calls_.size());
  plain_calls_.emplace_back();
}

size_t GuardTree::check_count() const { return checks_.size(); }

PyObject* GuardTree::fetch(const Node& n, PyObject* const* args, size_t nargs) {
  PyObject* p = n.parent == kNoNode ? nullptr : values_[n.parent];
  PyObject* key = n.key.get();
  switch (n.step) {
    case Step::kArg:
      return static_cast<size_t>(n.index) < nargs ? args[n.index] : nullptr;
    case Step::kConst:
    case Step::kTypeRoot:
      return key;
    case Step::kDictValue:
      return PyDict_Check(p) ? py::dict_get(p, key) : nullptr;
    case Step::kInstanceDict:
      return py::made_instance_dict(p);
    case Step::kThreadLocalDict: {
      PyObject* dict = PyObject_GetAttrString(p, "__dict__");
      if (dict == nullptr) PyErr_Clear();
      temporaries_.push_back(Ref::steal(dict));
      return dict;
    }
    case Step::kListItem:
      return PyList_Check(p) && n.index < PyList_GET_SIZE(p) ? PyList_GET_ITEM(p, n.index) : nullptr;
    case Step::kTupleItem:
      return PyTuple_Check(p) && n.index < PyTuple_GET_SIZE(p) ? PyTuple_GET_ITEM(p, n.index) : nullptr;
    case Step::kDequeItem: {
      PyObject* item = PySequence_GetItem(p, n.index);
      if (item == nullptr) PyErr_Clear();
      temporaries_.push_back(Ref::steal(item));
      return item;
    }
    case Step::kTypeLookup:
      return _PyType_Lookup(reinterpret_cast<PyTypeObject*>(p), key);
    case Step::kSuperLookup:
      return py::super_lookup(reinterpret_cast<PyTypeObject*>(p),
                              reinterpret_cast<PyTypeObject*>(PyTuple_GET_ITEM(key, 0)),
                              PyTuple_GET_ITEM(key, 1));
    case Step::kIteratorSource:
      return py::iterator_source(p, n.index);
    case Step::kGeneratorFunction:
      return py::generator_function(p);
    case Step::kGeneratorSlot:
      return py::generator_slot(p, n.index);
    case Step::kTypeOf:
      return reinterpret_cast<PyObject*>(Py_TYPE(p));
    case Step::kCellContents:
      return PyCell_Check(p) ? PyCell_GET(p) : nullptr;
    case Step::kFuncClosure: {
      PyObject* closure = PyFunction_Check(p) ? PyFunction_GET_CLOSURE(p) : nullptr;
      return closure != nullptr && n.index < PyTuple_GET_SIZE(closure) ? PyTuple_GET_ITEM(closure, n.index)
                                                                       : nullptr;
    }
    case Step::kFuncDefault: {
      PyObject* defaults = PyFunction_Check(p) ? PyFunction_GET_DEFAULTS(p) : nullptr;
      return defaults != nullptr && n.index < PyTuple_GET_SIZE(defaults) ? PyTuple_GET_ITEM(defaults, n.index)
                                                                         : nullptr;
    }
    case Step::kFuncKwDefaults:
      return PyFunction_Check(p) ? PyFunction_GET_KW_DEFAULTS(p) : nullptr;
    case Step::kFuncAnnotations:
      return PyFunction_Check(p) ? annotations_of(p) : nullptr;
    case Step::kFuncGlobals:
      return PyFunction_Check(p) ? PyFunction_GET_GLOBALS(p) : nullptr;
    case Step::kMethodFunc:
      return PyMethod_Check(p) ? PyMethod_GET_FUNCTION(p) : nullptr;
    case Step::kMethodSelf:
      return PyMethod_Check(p) ? PyMethod_GET_SELF(p)
                               : (PyCFunction_Check(p) ? PyCFunction_GET_SELF(p) : nullptr);
    case Step::kSlot: {
      PyObject** slot = py::object_slot(p, key);
      return slot == nullptr ? nullptr : *slot;
    }
    case Step::kProxyDict:
      return Py_IS_TYPE(p, &PyDictProxy_Type)
                 ? py::proxied_mapping(p)
                 : (PyDictViewSet_Check(p) || PyDictValues_Check(p) ? py::view_dict(p) : nullptr);
    case Step::kTypeDict:
      return PyType_Check(p) ? reinterpret_cast<PyTypeObject*>(p)->tp_dict : nullptr;
    case Step::kWeakTarget:
      return PyWeakref_CheckRefExact(p) ? PyWeakref_GET_OBJECT(p) : nullptr;
    case Step::kPropertyGet:
      return PyObject_TypeCheck(p, &PyProperty_Type) ? py::property_getter(p) : nullptr;
    case Step::kDescrFunc:
      return py::held_callable(p);
    case Step::kPartialFunc:
      return reinterpret_cast<py::PartialLayout*>(p)->function;
    case Step::kPartialArgs:
      return reinterpret_cast<py::PartialLayout*>(p)->args;
    case Step::kPartialKeywords:
      return reinterpret_cast<py::PartialLayout*>(p)->keywords;
    case Step::kTraceback: {
      PyObject* traceback = reinterpret_cast<PyBaseExceptionObject*>(p)->traceback;
      return traceback == nullptr ? Py_None : traceback;
    }
    case Step::kTensorGrad: {
      PyObject* grad = PyObject_GetAttrString(p, "grad");
      if (grad == nullptr) PyErr_Clear();
      temporaries_.push_back(Ref::steal(grad));
      return grad;
    }
    case Step::kContextValue: {
      PyObject* value = nullptr;
      if (!PyContextVar_CheckExact(p) || PyContextVar_Get(p, nullptr, &value) < 0) PyErr_Clear();
      temporaries_.push_back(Ref::steal(value));
      return value;
    }
  }
  return nullptr;
}

bool GuardTree::holds(const Node& node, const Check& c, PyObject* v) const {
  PyObject* operand = c.operand.get();
  PyObject* second = c.second.get();
  auto item = [&](int i) { return PyTuple_GET_ITEM(operand, i); };
  switch (c.kind) {
    case CheckKind::kTypeIs:
      return reinterpret_cast<PyObject*>(Py_TYPE(v)) == operand;
    case CheckKind::kIs:
      return v == operand;
    case CheckKind::kValue:
      return primitives_equal(v, operand);
    case CheckKind::kEquals: {
      if (Py_TYPE(v) != Py_TYPE(operand)) return false;
      const int equal = PyObject_RichCompareBool(v, operand, Py_EQ);
      if (equal < 0) PyErr_Clear();
      return equal == 1;
    }
    case CheckKind::kLen:
      if (PyList_Check(v)) return PyList_GET_SIZE(v) == c.number;
      if (PyTuple_Check(v)) return PyTuple_GET_SIZE(v) == c.number;
      if (PyAnySet_Check(v)) return PySet_GET_SIZE(v) == c.number;
      if (PyDict_Check(v)) return PyDict_GET_SIZE(v) == c.number;
      {
        const Py_ssize_t n = py::stored_size(v);  // deque: C code
        if (n < 0) PyErr_Clear();
        return n == c.number;
      }
    case CheckKind::kNonEmpty: {
      Py_ssize_t n = py::stored_size(v);  // builtin containers only
      if (n < 0) PyErr_Clear();
      return (n > 0) == (c.number != 0);
    }
    case CheckKind::kListItemValue: {
      const Py_ssize_t i = c.number;
      return PyList_Check(v) && i < PyList_GET_SIZE(v) && primitives_equal(PyList_GET_ITEM(v, i), second);
    }
    case CheckKind::kTupleItemValue: {
      const Py_ssize_t i = c.number;
      return PyTuple_Check(v) && i < PyTuple_GET_SIZE(v) && primitives_equal(PyTuple_GET_ITEM(v, i), second);
    }
    case CheckKind::kSetOrder: {
      if (!PyAnySet_Check(v) || PySet_GET_SIZE(v) != PyTuple_GET_SIZE(operand)) return false;
      PyObject* key;
      Py_hash_t hash;
      Py_ssize_t pos = 0;
      int i = 0;
      while (_PySet_NextEntry(v, &pos, &key, &hash)) {
        PyObject* expected = item(i++);
        if (key != expected && !primitives_equal(key, expected)) return false;
      }
      return true;
    }
    case CheckKind::kSetContains: {
      if (!PyAnySet_Check(v)) return false;
      const int found = PySet_Contains(v, operand);
      if (found < 0) PyErr_Clear();
      return found == (second == Py_True ? 1 : 0);
    }
    case CheckKind::kSlotValue: {
      PyObject** slot = py::object_slot(v, operand);
      if (slot == nullptr) return false;
      return *slot == nullptr ? second == Py_Ellipsis : primitives_equal(*slot, second);
    }
    case CheckKind::kFuncState: {
      if (!PyFunction_Check(v)) return false;
      if (PyFunction_GET_CODE(v) != item(0)) {
        // The same source compiled again is as good.
        const int equal = PyObject_RichCompareBool(PyFunction_GET_CODE(v), item(0), Py_EQ);
        if (equal < 0) PyErr_Clear();
        if (equal != 1) return false;
      }
      PyObject* defaults = PyFunction_GET_DEFAULTS(v);
      const Py_ssize_t n = defaults == nullptr ? 0 : PyTuple_GET_SIZE(defaults);
      PyObject* kw = PyFunction_GET_KW_DEFAULTS(v);
      return n == PyLong_AsSsize_t(item(1)) &&
             (kw != nullptr && PyDict_GET_SIZE(kw) > 0) == (item(2) == Py_True) &&
             PyFunction_GET_GLOBALS(v) == item(3);
    }
    case CheckKind::kCellValue:
      return PyCell_Check(v) && PyCell_GET(v) != nullptr && primitives_equal(PyCell_GET(v), operand);
    case CheckKind::kCellEmpty:
      return PyCell_Check(v) && PyCell_GET(v) == nullptr;
    case CheckKind::kOrderedKeys:
    case CheckKind::kKeys: {
      if (!PyDict_Check(v) || PyDict_GET_SIZE(v) != PyTuple_GET_SIZE(operand)) return false;
      if (PyODict_Check(v)) {
        Ref it = Ref::steal(PyODict_Type.tp_iter(v));
        Py_ssize_t i = 0;
        while (it) {
          Ref key = Ref::steal(Py_TYPE(it.get())->tp_iternext(it.get()));
          if (!key) break;
          PyObject* expected = i < PyTuple_GET_SIZE(operand) ? item(static_cast<int>(i)) : nullptr;
          if (expected == nullptr || !is_same_key(key.get(), expected)) return false;
          ++i;
        }
        PyErr_Clear();
        return i == PyTuple_GET_SIZE(operand);
      }
      PyObject *key, *value;
      Py_ssize_t pos = 0, i = 0;
      while (PyDict_Next(v, &pos, &key, &value)) {
        PyObject* expected = item(static_cast<int>(i++));
        if (!is_same_key(key, expected)) return false;
      }
      return true;
    }
    case CheckKind::kTensor:
      return metas_[c.number].matches(v);
    case CheckKind::kInstanceLacks: {
      PyObject* dict = py::instance_dict(v);
      return dict == nullptr || py::dict_get(dict, operand) == nullptr;
    }
    case CheckKind::kFunctionAttribute: {
      if (!PyFunction_Check(v) && !PyType_Check(v)) return false;
      Ref value = Ref::steal(PyObject_GenericGetAttr(v, operand));  // of a class: its metaclass's getter in C
      if (!value) PyErr_Clear();
      return value && primitives_equal(value.get(), second);
    }
    case CheckKind::kIteratorAt:
      return py::iterator_state_is(v, operand);
    case CheckKind::kGeneratorAt:
      return py::generator_state_is(v, operand);
    case CheckKind::kRangeIs: {
      if (!PyRange_Check(v)) return false;
      const char* const names[] = {"start", "stop", "step"};
      for (int i = 0; i < 3; ++i) {
        Ref part = Ref::steal(PyObject_GetAttrString(v, names[i]));
        if (!part) PyErr_Clear();
        if (!part || !primitives_equal(part.get(), item(i))) return false;
      }
      return true;
    }
    case CheckKind::kSliceIs: {
      if (!PySlice_Check(v)) return false;
      auto* s = reinterpret_cast<PySliceObject*>(v);
      return primitives_equal(s->start, item(0)) && primitives_equal(s->stop, item(1)) &&
             primitives_equal(s->step, item(2));
    }
    case CheckKind::kDequeBound: {
      Ref bound = Ref::steal(PyObject_GetAttrString(v, "maxlen"));  // of a deque: C code
      if (!bound) PyErr_Clear();
      return bound && primitives_equal(bound.get(), operand);
    }
    case CheckKind::kGetterIs: {
      Ref reduced = Ref::steal(PyObject_CallMethod(v, "__reduce__", nullptr));  // C code
      if (!reduced) PyErr_Clear();
      PyObject* wanted = reduced && PyTuple_Check(reduced.get()) && PyTuple_GET_SIZE(reduced.get()) == 2
                             ? PyTuple_GET_ITEM(reduced.get(), 1)
                             : nullptr;
      if (wanted == nullptr || PyTuple_GET_SIZE(wanted) != PyTuple_GET_SIZE(operand)) return false;
      for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(wanted); ++i) {
        if (!primitives_equal(PyTuple_GET_ITEM(wanted, i), item(static_cast<int>(i)))) return false;
      }
      return true;
    }
    case CheckKind::kMethodDef:
      return PyCFunction_Check(v) &&
             reinterpret_cast<PyCFunctionObject*>(v)->m_ml == PyLong_AsVoidPtr(operand);
    case CheckKind::kNoGrad: {
      Ref grad = Ref::steal(PyObject_GetAttrString(v, "grad"));
      if (!grad) PyErr_Clear();
      return grad.get() == Py_None;
    }
    case CheckKind::kNoHooks:
      return is_tensor(v) && !tensor_has_hooks(v);
    case CheckKind::kStorageOffset:
      return has_storage_offset(v, c.number);
    case CheckKind::kDefaultValue: {
      PyObject* defaults = PyFunction_Check(v) ? PyFunction_GET_DEFAULTS(v) : nullptr;
      const Py_ssize_t i = c.number;
      return defaults != nullptr && i < PyTuple_GET_SIZE(defaults) &&
             primitives_equal(PyTuple_GET_ITEM(defaults, i), second);
    }
    case CheckKind::kContextUnset:
    case CheckKind::kContextIs: {
      PyObject* value = nullptr;
      if (!PyContextVar_CheckExact(v) || PyContextVar_Get(v, nullptr, &value) < 0) {
        PyErr_Clear();
        return false;
      }
      Ref owned = Ref::steal(value);
      if (c.kind == CheckKind::kContextUnset) return value == nullptr;
      return value != nullptr && primitives_equal(value, operand);
    }
    case CheckKind::kPlainCall:
      return plain_calls_[c.number].holds(v);
    case CheckKind::kSameAs:
      return v == values_[c.number];
    case CheckKind::kNotSameAs:
      return v != values_[c.number];
    case CheckKind::kCacheTag:
      return PyDict_Check(v) && py::dict_tag(v) == PyLong_AsUnsignedLongLong(operand);
    case CheckKind::kCachedResult: {
      PyObject* kept = PyDict_Check(v) ? py::dict_get(v, operand) : nullptr;
      return kept != nullptr && py::cached_result(kept) == second;
    }
    case CheckKind::kDictLen:
      return PyDict_Check(v) && PyDict_GET_SIZE(v) == c.number;
    case CheckKind::kDictNonEmpty:
      return PyDict_Check(v) && (PyDict_GET_SIZE(v) > 0) == (c.number != 0);
    case CheckKind::kKeyAbsent:
      return PyDict_Check(v) && py::dict_get(v, operand) == nullptr;
    case CheckKind::kKeyPresent:
      return PyDict_Check(v) && py::dict_get(v, operand) != nullptr;
    case CheckKind::kItemValue: {
      PyObject* found = PyDict_Check(v) ? py::dict_get(v, operand) : nullptr;
      return found != nullptr && primitives_equal(found, second);
    }
    case CheckKind::kLookupValue: {
      PyObject* found = _PyType_Lookup(reinterpret_cast<PyTypeObject*>(v), operand);
      return found != nullptr && primitives_equal(found, second);
    }
    case CheckKind::kBases: {
      auto* type = reinterpret_cast<PyTypeObject*>(v);
      return is_same_order(type->tp_mro, item(0)) && is_same_order(type->tp_bases, item(1));
    }
    case CheckKind::kLookupAbsent:
      return _PyType_Lookup(reinterpret_cast<PyTypeObject*>(v), operand) == nullptr;
    case CheckKind::kSuperAbsent:
      return py::super_lookup(reinterpret_cast<PyTypeObject*>(v), reinterpret_cast<PyTypeObject*>(item(0)),
                              item(1)) == nullptr;
  }
  return false;
}

namespace {

constexpr std::pair<CheckKind, Step> kPlaces[] = {
    {CheckKind::kItemValue, Step::kDictValue},    {CheckKind::kCellValue, Step::kCellContents},
    {CheckKind::kListItemValue, Step::kListItem}, {CheckKind::kTupleItemValue, Step::kTupleItem},
    {CheckKind::kSlotValue, Step::kSlot},         {CheckKind::kLookupValue, Step::kTypeLookup},
};

}  // namespace

Step step_to_place(CheckKind kind) {
  for (const auto& [check, step] : kPlaces) {
    if (check == kind) return step;
  }
  FP_CHECK(false, "a place of a kind that has a step");
  return Step::kDictValue;
}

void GuardTree::changed_numbers(PyObject* const* args, size_t nargs,
                                std::unordered_set<std::string>& places) {
  run(args, nargs, false, nullptr, &places);
  let_go();
}

bool GuardTree::expects_other_slice(size_t argument, PyObject* now) const {
  const NodeId id = find_child(kNoNode, Step::kArg, nullptr, static_cast<int32_t>(argument));
  for (int32_t c = id == kNoNode ? -1 : nodes_[id].checks; c >= 0; c = checks_[c].next) {
    if (checks_[c].kind == CheckKind::kSliceIs || checks_[c].kind == CheckKind::kRangeIs)
      return !holds(nodes_[id], checks_[c], now);
  }
  return false;
}

bool GuardTree::writes_hooks(size_t node, const std::vector<bool>& written) const {
  const auto& names = PlainCall::hook_names();
  return std::any_of(names.begin(), names.end(), [&](PyObject* name) {
    const NodeId hooks = find_child(static_cast<NodeId>(node), Step::kDictValue, name, 0);
    return hooks != kNoNode && written[hooks];
  });
}

bool GuardTree::run(PyObject* const* args, size_t nargs, bool use_tags, const std::vector<bool>* skip,
                    std::unordered_set<std::string>* changed) {
  const auto note_change = [&](size_t node, const Check& check, PyObject* value) {
    if (changed == nullptr || !is_other_number(check, value)) return false;
    if (check.kind == CheckKind::kValue) {
      const Node& n = nodes_[node];
      if (n.step == Step::kDequeItem || n.step == Step::kGeneratorSlot) {
        changed->insert(place(n.parent, CheckKind::kValue, nullptr, n.index));
        return true;
      }
      const auto* known = std::find_if(std::begin(kPlaces), std::end(kPlaces),
                                       [&](const auto& entry) { return entry.second == n.step; });
      if (known == std::end(kPlaces)) return false;
      const bool keyed = known->first != CheckKind::kCellValue;
      changed->insert(place(n.parent, known->first, keyed ? n.key.get() : nullptr, n.index));
      return true;
    }
    const bool of_cell = check.kind == CheckKind::kCellValue;
    changed->insert(place(static_cast<NodeId>(node), check.kind, of_cell ? nullptr : check.operand.get(),
                          of_cell ? 0 : check.number));
    return true;
  };
  const size_t n = nodes_.size();
  plan_.stale = true;
  values_.assign(n, nullptr);
  temporaries_.clear();
  pass_.assign(n, PassState{});
  failed_node_ = kNoNode;
  for (size_t i = 0; i < n; ++i) {
    Node& node = nodes_[i];
    if (skip != nullptr && ((*skip)[i] || (node.parent != kNoNode && values_[node.parent] == nullptr)))
      continue;
    PassState& state = pass_[i];
    const bool parent_clean = node.parent != kNoNode && pass_[node.parent].clean;
    PyObject* v;
    if (parent_clean && node.seen != nullptr &&
        (node.step == Step::kDictValue || node.step == Step::kTypeLookup || node.step == Step::kTupleItem ||
         node.step == Step::kSuperLookup)) {
      v = node.seen;
    } else {
      v = fetch(node, args, nargs);
    }
    if (v == nullptr) {
      failed_node_ = static_cast<NodeId>(i);
      failed_check_ = -1;
      return false;
    }
    values_[i] = v;
    for (int32_t c = node.checks; c >= 0; c = checks_[c].next) {
      const Check& check = checks_[c];
      if (skip != nullptr && check.kind >= CheckKind::kSameAs && check.kind <= CheckKind::kNotSameAs &&
          values_[check.number] == nullptr) {
        continue;
      }
      if (skip != nullptr && check.kind == CheckKind::kPlainCall && writes_hooks(i, *skip)) continue;
      if (!holds(node, check, v) && !note_change(i, check, v)) {
        failed_node_ = static_cast<NodeId>(i);
        failed_check_ = c;
        return false;
      }
    }
    uint64_t tag = 0;
    if (node.step == Step::kTypeRoot) {
      tag = py::type_tag(reinterpret_cast<PyTypeObject*>(v));
    } else if (PyDict_Check(v)) {
      tag = py::dict_tag(v);
    } else if (parent_clean && v == node.seen && PyTuple_CheckExact(v)) {
      state.clean = true;  // immutable, and the same one as last time
    }
    if (use_tags && tag != 0 && v == node.seen && tag == node.seen_tag) {
      state.clean = true;
      continue;
    }
    for (int32_t c = node.tagged_checks; c >= 0; c = checks_[c].next) {
      if (!holds(node, checks_[c], v) && !note_change(i, checks_[c], v)) {
        failed_node_ = static_cast<NodeId>(i);
        failed_check_ = c;
        return false;
      }
    }
    state.pending = true;
    // A lookup may have assigned the type's tag just now.
    state.tag = node.step == Step::kTypeRoot ? py::type_tag(reinterpret_cast<PyTypeObject*>(v)) : tag;
  }
  return true;
}

bool GuardTree::evaluate(PyObject* const* args, size_t nargs) {
  if (plan_.ready) {
    const SteadyPlan::Answer answer = run_plan(args, nargs);
    if (answer != SteadyPlan::Answer::kChanged) return answer == SteadyPlan::Answer::kHolds;
  }
  if (!run(args, nargs, true, nullptr)) return false;
  bool slow = false;
  for (size_t i = 0; i < nodes_.size(); ++i) {
    if (pass_[i].clean && !pass_[i].pending) continue;
    nodes_[i].seen = values_[i];
    nodes_[i].seen_tag = pass_[i].tag;
    slow = slow || pass_[i].tag != 0;
  }
  if (slow) ++counters().guards_checked_slow;
  make_plan();
  return true;
}

bool GuardTree::audit(PyObject* const* args, size_t nargs, const std::vector<bool>& skip_node) {
  std::vector<bool> skip = skip_node;
  skip.resize(nodes_.size());
  for (size_t i = 0; i < nodes_.size(); ++i) {
    const NodeId parent = nodes_[i].parent;
    if (parent != kNoNode && skip[parent]) skip[i] = true;
  }
#ifdef FLASHPOINT_DEBUG
  const bool trust_tags = false;  // what was recorded is checked, too
#else
  const bool trust_tags = true;
#endif
  return run(args, nargs, trust_tags, &skip);
}

void GuardTree::saw(NodeId id, PyObject* object) {
  Node& node = nodes_[id];
  if (node.seen != nullptr) return;
  node.seen = object;
  if (node.step == Step::kTypeRoot) {
    node.seen_tag = py::type_tag(reinterpret_cast<PyTypeObject*>(object));
  } else if (PyDict_Check(object)) {
    node.seen_tag = py::dict_tag(object);
  }
}

int GuardTree::traverse(visitproc visit, void* arg) const {
  for (const Node& n : nodes_) Py_VISIT(n.key.get());
  for (const Check& c : checks_) {
    Py_VISIT(c.operand.get());
    Py_VISIT(c.second.get());
  }
  return 0;
}

}  // namespace flashpoint
