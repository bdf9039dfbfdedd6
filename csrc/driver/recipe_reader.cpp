#include "driver/recipe_reader.h"

#include <algorithm>

#include "driver/entry_format.h"
#include "guard/guard_access.h"
#include "py/layout.h"
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

}  // namespace

RecipeReader::RecipeReader(store::Reader& in, portable::Table& table, const GuardTree& tree, size_t outputs,
                           size_t scalars)
    : in_(in),
      table_(table),
      nodes_(GuardAccess::values(tree)),
      outputs_(outputs),
      scalars_(scalars),
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
  return read_value(result) && is_acyclic();
}

bool RecipeReader::read_object(Ref& object, bool required) {
  const auto ref = in_.number<uint32_t>();
  if (!in_.ok() || !table_.is_valid(ref)) return false;
  if (ref == 0) return !required;
  object = Ref::share(table_.obtain(ref));
  return static_cast<bool>(object);
}

bool RecipeReader::read_value(RecipeValue& value) {
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
      return index < outputs_;
    case RecipeValue::Kind::kMade:
      return index < made_count_;
    case RecipeValue::Kind::kScalar:
      return index < scalars_;
    case RecipeValue::Kind::kKeep:
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

bool RecipeReader::fits(const MadeObject& object) const {
  const size_t items = object.items.size();
  auto* type = object.type && PyType_Check(object.type.get())
                   ? reinterpret_cast<PyTypeObject*>(object.type.get())
                   : nullptr;
  if (object.kind != MadeObject::Kind::kInstance && (!object.attributes.empty() || !object.slots.empty()))
    return false;
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
    case MadeObject::Kind::kBuiltinMethod:
    case MadeObject::Kind::kReduced:
    case MadeObject::Kind::kTensor:
    case MadeObject::Kind::kDictIterator:
    case MadeObject::Kind::kException:
    case MadeObject::Kind::kInferenceRegion:
    case MadeObject::Kind::kGenerator:
    case MadeObject::Kind::kTraceback:
      return false;
  }
  return false;
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
    case EffectKind::kCachedCall:
    case EffectKind::kGenerator:
    case EffectKind::kTensorGrad:
    case EffectKind::kContextVar:
    case EffectKind::kIteratorSteps:
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
