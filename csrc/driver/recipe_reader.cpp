#include "driver/recipe_reader.h"

#include <algorithm>

#include "driver/entry_format.h"
#include "guard/guard_access.h"
#include "portable/parts.h"
#include "py/iterators.h"
#include "py/layout.h"
#include "py/rebuilt_iterators.h"
#include "py/torch_bridge.h"
#include "record/rules/rules.h"

namespace flashpoint {

namespace {

constexpr int kMaxDepth = 400;

// The test of has_c_state() for a class, of which there is no instance yet.
bool has_c_state_of_its_own(PyTypeObject* type, PyTypeObject* base) {
  Py_ssize_t size = base->tp_basicsize + 2 * static_cast<Py_ssize_t>(sizeof(PyObject*));
  for (PyTypeObject* t = type; t != nullptr && PyType_HasFeature(t, Py_TPFLAGS_HEAPTYPE); t = t->tp_base) {
    PyObject *key, *d;
    for (Py_ssize_t pos = 0; PyDict_Next(t->tp_dict, &pos, &key, &d);) {
      if (Py_IS_TYPE(d, &PyMemberDescr_Type)) size += sizeof(PyObject*);
    }
  }
  return type->tp_basicsize > size;
}

bool is_member_of(PyObject* descriptor, PyTypeObject* type) {
  return Py_IS_TYPE(descriptor, &PyMemberDescr_Type) && PyType_IsSubtype(type, PyDescr_TYPE(descriptor));
}

bool is_dict_iterator(PyObject* type) {
  return type == reinterpret_cast<PyObject*>(&PyDictIterKey_Type) ||
         type == reinterpret_cast<PyObject*>(&PyDictIterValue_Type) ||
         type == reinterpret_cast<PyObject*>(&PyDictIterItem_Type);
}

}  // namespace

RecipeReader::RecipeReader(store::Reader& in, portable::Table& table, const GuardTree& tree,
                           const ir::Graph& graph, size_t scalars, bool framed)
    : in_(in),
      table_(table),
      nodes_(GuardAccess::values(tree)),
      graph_(graph),
      scalars_(scalars),
      framed_(framed),
      fixed_(nodes_.size()) {}

bool RecipeReader::read() {
  const auto count = in_.number<uint32_t>();
  if (!in_.ok() || count > in_.left()) return false;
  made_count_ = count;
  for (uint32_t i = 0; i < count; ++i) {
    if (!read_made(made.emplace_back())) return false;
  }
  const auto writes = in_.number<uint32_t>();
  if (!in_.ok() || writes > in_.left()) return false;
  for (uint32_t i = 0; i < writes; ++i) {
    if (!read_effect(effects.emplace_back())) return false;
  }
  // Functions are made of others that may come behind them.
  for (const MadeObject& object : made) {
    if (object.kind == MadeObject::Kind::kFunction && !fits_function(object)) return false;
  }
  return read_value(result) && is_acyclic() && read_histories();
}

bool RecipeReader::read_object(Ref& object, bool required) {
  const auto ref = in_.number<uint32_t>();
  if (!in_.ok() || !table_.is_valid(ref)) return false;
  if (ref == 0) return !required;
  object = Ref::share(table_.obtain(ref));
  return static_cast<bool>(object);
}

bool RecipeReader::read_value(RecipeValue& value, bool in_frame) {
  const auto kind = in_.number<uint8_t>();
  value.index = in_.number<int32_t>();
  if (!in_.ok() || value.index < 0) return false;
  value.kind = static_cast<RecipeValue::Kind>(kind);
  const auto index = static_cast<size_t>(value.index);
  if (!read_object(value.constant, value.kind == RecipeValue::Kind::kConstant)) return false;
  switch (value.kind) {
    case RecipeValue::Kind::kNull:
    case RecipeValue::Kind::kConstant:
      return true;
    case RecipeValue::Kind::kNode:
      return index < nodes_.size();
    case RecipeValue::Kind::kOutput:
      return index < graph_.outputs.size();
    case RecipeValue::Kind::kMade:
      return index < made_count_;
    case RecipeValue::Kind::kScalar:
      return index < scalars_;
    case RecipeValue::Kind::kKeep:
      return in_frame;
    case RecipeValue::Kind::kSaved:
    case RecipeValue::Kind::kHandled:
      return false;
  }
  return false;
}

bool RecipeReader::read_values(std::vector<RecipeValue>& values) {
  const auto count = in_.number<uint32_t>();
  if (!in_.ok() || count > in_.left()) return false;
  values.resize(count);
  return std::all_of(values.begin(), values.end(), [&](RecipeValue& v) { return read_value(v); });
}

bool RecipeReader::read_made(MadeObject& object) {
  const auto kind = in_.number<uint8_t>();
  const auto base = in_.number<uint8_t>();
  object.kind = static_cast<MadeObject::Kind>(kind);
  if (!in_.ok() || !read_object(object.type, false)) return false;
  if (!read_values(object.items)) return false;
  for (auto* list : {&object.attributes, &object.slots}) {
    const auto count = in_.number<uint32_t>();
    if (!in_.ok() || count > in_.left()) return false;
    for (uint32_t i = 0; i < count; ++i) {
      auto& [name, value] = list->emplace_back();
      if (!read_object(name, true) || !read_value(value)) return false;
    }
  }
  if (object.kind == MadeObject::Kind::kInstance) {
    size_t bases = 0;
    while (instance_bases()[bases] != nullptr) ++bases;
    if (base >= bases) return false;
    object.base = instance_bases()[base];
  }
  return fits(object);
}

bool RecipeReader::fits(const MadeObject& object) {
  const size_t items = object.items.size();
  auto* type = object.type && PyType_Check(object.type.get())
                   ? reinterpret_cast<PyTypeObject*>(object.type.get())
                   : nullptr;
  const bool may_have =
      object.kind == MadeObject::Kind::kInstance ||
      ((object.kind == MadeObject::Kind::kFunction || object.kind == MadeObject::Kind::kTensor) &&
       object.slots.empty());
  if (!may_have && (!object.attributes.empty() || !object.slots.empty())) return false;
  switch (object.kind) {
    case MadeObject::Kind::kList:
    case MadeObject::Kind::kTuple:
    case MadeObject::Kind::kSet:
    case MadeObject::Kind::kFrozenSet:
      return true;
    case MadeObject::Kind::kDict:
      return items % 2 == 0;
    case MadeObject::Kind::kDefaultDict:
      return items % 2 == 1;
    case MadeObject::Kind::kSlice:
      return items == 3;
    case MadeObject::Kind::kMethod:
      return items == 2;
    case MadeObject::Kind::kCell:
      return items == 1;
    case MadeObject::Kind::kDeque:
      return object.type && (object.type.get() == Py_None || PyLong_CheckExact(object.type.get()));
    case MadeObject::Kind::kStruct:
      return type != nullptr && PyType_IsSubtype(type, &PyTuple_Type) &&
             (std::string_view(type->tp_name) == "torch.Size" ||
              PyDict_GetItemString(type->tp_dict, "n_sequence_fields") != nullptr);
    case MadeObject::Kind::kInstance: {
      if (type == nullptr || builtin_base(type) != object.base || has_c_state_of_its_own(type, object.base) ||
          type->tp_del != nullptr || type->tp_finalize != nullptr)
        return false;
      const bool mapping = object.base == &PyDict_Type || object.base == &PyODict_Type;
      if (mapping ? items % 2 != 0 : object.base == &PyBaseObject_Type && items != 0) return false;
      if (!object.attributes.empty() && type->tp_dictoffset == 0) return false;
      for (const auto& [name, value] : object.attributes) {
        if (!PyUnicode_CheckExact(name.get())) return false;
      }
      return std::all_of(object.slots.begin(), object.slots.end(),
                         [&](const auto& slot) { return is_member_of(slot.first.get(), type); });
    }
    case MadeObject::Kind::kFunction:
      return items == 10;
    case MadeObject::Kind::kReduced:
      return framed_ && items == 3 && object.items[0].kind == RecipeValue::Kind::kConstant &&
             py::makes_iterators(object.items[0].constant.get());
    case MadeObject::Kind::kDictIterator:
      return items == 2 && is_dict_iterator(object.type.get()) &&
             object.items[1].kind == RecipeValue::Kind::kConstant &&
             PyLong_CheckExact(object.items[1].constant.get());
    case MadeObject::Kind::kTensor:
      return items == 2 && tensor_of(object.items[0]) != nullptr &&
             (object.items[1].kind == RecipeValue::Kind::kNull || is_tensor_or_none(object.items[1])) &&
             (!object.type || object.type.get() == portable::find_by_name("torch.nn.parameter", "Parameter"));
    case MadeObject::Kind::kBuiltinMethod:
    case MadeObject::Kind::kException:
    case MadeObject::Kind::kInferenceRegion:
    case MadeObject::Kind::kGenerator:
    case MadeObject::Kind::kTraceback:
      return false;
  }
  return false;
}

// An output of the graph that is a tensor; null for anything else.
const ir::Value* RecipeReader::tensor_of(const RecipeValue& value) const {
  if (value.kind != RecipeValue::Kind::kOutput) return nullptr;
  const ir::Value& found =
      graph_.values[static_cast<size_t>(graph_.outputs[static_cast<size_t>(value.index)])];
  return found.kind == ir::ValueKind::kTensor ? &found : nullptr;
}

// What can be made a gradient.
bool RecipeReader::is_tensor_or_none(const RecipeValue& value) {
  if (value.kind == RecipeValue::Kind::kConstant) return value.constant.get() == Py_None;
  if (value.kind == RecipeValue::Kind::kNode) {
    fixed_[static_cast<size_t>(value.index)] = true;
    return is_tensor(nodes_[static_cast<size_t>(value.index)]);
  }
  return tensor_of(value) != nullptr;
}

bool RecipeReader::read_histories() {
  const auto count = in_.number<uint32_t>();
  if (!in_.ok() || count > in_.left()) return false;
  for (uint32_t i = 0; i < count; ++i) {
    const auto output = in_.number<int32_t>();
    std::string name(in_.take(in_.number<uint32_t>()));
    if (!in_.ok() || output < 0 || static_cast<size_t>(output) >= graph_.outputs.size()) return false;
    const ir::Value* tensor = tensor_of({RecipeValue::Kind::kOutput, output, Ref()});
    if (tensor == nullptr) return false;
    const auto dtype = static_cast<c10::ScalarType>(tensor->meta.dtype);
    if (!c10::isFloatingType(dtype) && !c10::isComplexType(dtype)) return false;
    histories.push_back({output, std::move(name)});
  }
  return true;
}

// What the interpreter takes for granted of a function: items as in replay/recipe_builder.cpp.
bool RecipeReader::fits_function(const MadeObject& function) {
  const auto constant = [&](size_t i) {
    const RecipeValue& item = function.items[i];
    return item.kind == RecipeValue::Kind::kConstant ? item.constant.get() : nullptr;
  };
  const auto is_made = [&](const RecipeValue& item, MadeObject::Kind kind) {
    return item.kind == RecipeValue::Kind::kMade && made[static_cast<size_t>(item.index)].kind == kind;
  };
  const auto none = [&](size_t i) { return function.items[i].kind == RecipeValue::Kind::kNull; };
  const auto text = [](PyObject* o) { return o != nullptr && PyUnicode_CheckExact(o); };
  PyObject* code = constant(0);
  if (code == nullptr || !PyCode_Check(code) || constant(1) == nullptr || !PyDict_Check(constant(1)))
    return false;
  if (!text(constant(2)) || !text(constant(3))) return false;
  PyObject* defaults = constant(4);
  const bool plain_defaults = none(4) || is_made(function.items[4], MadeObject::Kind::kTuple) ||
                              (defaults != nullptr && PyTuple_CheckExact(defaults));
  if (!plain_defaults || (!none(5) && !is_made(function.items[5], MadeObject::Kind::kDict))) return false;
  const auto cells = static_cast<size_t>(reinterpret_cast<PyCodeObject*>(code)->co_nfreevars);
  if (none(6) ? cells != 0 : !is_made(function.items[6], MadeObject::Kind::kTuple)) return false;
  if (!none(6)) {
    const MadeObject& closure = made[static_cast<size_t>(function.items[6].index)];
    if (closure.type || closure.items.size() != cells) return false;
    for (const RecipeValue& cell : closure.items) {
      const auto node = static_cast<size_t>(cell.index);
      const bool older = cell.kind == RecipeValue::Kind::kNode && PyCell_Check(nodes_[node]);
      if (!older && !is_made(cell, MadeObject::Kind::kCell)) return false;
      if (older) fixed_[node] = true;
    }
  }
  if (!none(7) && !is_made(function.items[7], MadeObject::Kind::kDict)) return false;
  return std::all_of(function.attributes.begin(), function.attributes.end(),
                     [&](const auto& attribute) { return text(attribute.first.get()); });
}

bool RecipeReader::read_effect(PlannedEffect& effect) {
  const auto kind = in_.number<uint8_t>();
  effect.owner = in_.number<int32_t>();
  effect.moved = in_.number<uint8_t>() != 0;
  effect.kind = static_cast<EffectKind>(kind);
  if (!in_.ok() || effect.owner < 0 || static_cast<size_t>(effect.owner) >= nodes_.size()) return false;
  return read_object(effect.key, false) && read_values(effect.items) && fits(effect);
}

bool RecipeReader::fits(const PlannedEffect& effect) {
  PyObject* owner = nodes_[static_cast<size_t>(effect.owner)];
  const size_t items = effect.items.size();
  const bool named = effect.key && PyUnicode_CheckExact(effect.key.get());
  fixed_[static_cast<size_t>(effect.owner)] = effect.kind != EffectKind::kDictItem &&
                                              effect.kind != EffectKind::kDictContents &&
                                              effect.kind != EffectKind::kCell;
  switch (effect.kind) {
    case EffectKind::kDictItem:
      return PyDict_Check(owner) && effect.key && items == 1;
    case EffectKind::kDictContents:
      return PyDict_Check(owner) && items % 2 == 0;
    case EffectKind::kListItem: {
      const Py_ssize_t i =
          effect.key && PyLong_CheckExact(effect.key.get()) ? PyLong_AsSsize_t(effect.key.get()) : -1;
      PyErr_Clear();
      return PyList_CheckExact(owner) && i >= 0 && i < PyList_GET_SIZE(owner) && items == 1;
    }
    case EffectKind::kListContents:
    case EffectKind::kListAppend:
      return PyList_Check(owner);
    case EffectKind::kSetContents:
      return PySet_Check(owner);
    case EffectKind::kCell:
      return PyCell_Check(owner) && items == 1;
    case EffectKind::kDequeContents:
      return rules().is_deque(owner);
    case EffectKind::kSlot:
      return effect.key && is_member_of(effect.key.get(), Py_TYPE(owner)) &&
             py::object_slot(owner, effect.key.get()) != nullptr && items == 1;
    case EffectKind::kTypeAttr:
      return PyType_Check(owner) && named && items == 1;
    case EffectKind::kTensorAttr:
      return is_tensor(owner) && named && items == 1;
    case EffectKind::kIteratorSteps:
      return py::is_known_iterator(Py_TYPE(owner)) &&
             std::all_of(effect.items.begin(), effect.items.end(),
                         [](const RecipeValue& v) { return v.kind == RecipeValue::Kind::kNull; });
    case EffectKind::kTensorGrad:
      return is_tensor(owner) && items == 1 && is_tensor_or_none(effect.items[0]);
    case EffectKind::kCachedCall:
    case EffectKind::kGenerator:
    case EffectKind::kContextVar:
      return false;
  }
  return false;
}

// Objects that hold themselves are possible with lists and the like; here they are refused.
bool RecipeReader::is_acyclic() const {
  std::vector<int> depth(made.size(), 0);  // 0: not seen, -1: being looked at
  const auto visit = [&](auto& self, size_t index, int level) -> int {
    if (depth[index] != 0) return depth[index];
    if (level > kMaxDepth) return -1;
    depth[index] = -1;
    int deepest = 0;
    const auto look = [&](const RecipeValue& v) {
      if (v.kind != RecipeValue::Kind::kMade || deepest < 0) return;
      const int found = self(self, static_cast<size_t>(v.index), level + 1);
      deepest = found < 0 || found > kMaxDepth ? -1 : std::max(deepest, found);
    };
    for (const RecipeValue& v : made[index].items) look(v);
    for (const auto* list : {&made[index].attributes, &made[index].slots}) {
      for (const auto& [name, v] : *list) look(v);
    }
    return depth[index] = deepest < 0 ? -1 : deepest + 1;
  };
  for (size_t i = 0; i < made.size(); ++i) {
    if (visit(visit, i, 0) < 0) return false;
  }
  return true;
}

}  // namespace flashpoint
