#include "py/layout.h"
#include "record/rules/rules.h"
#include "replay/recipe.h"

namespace flashpoint {

namespace {

PyObject* empty_tuple() { return PyTuple_New(0); }

bool set_items(BuildContext& c, PyObject* dict, const std::vector<RecipeValue>& items, bool ordered) {
  for (size_t i = 0; i + 1 < items.size(); i += 2) {
    Ref key = Ref::steal(build(c, items[i]));
    Ref value = Ref::steal(key ? build(c, items[i + 1]) : nullptr);
    if (!value) return false;
    if ((ordered ? PyODict_SetItem(dict, key.get(), value.get())
                 : PyDict_SetItem(dict, key.get(), value.get())) < 0) {
      return false;
    }
  }
  return true;
}

PyObject* build_tuple(BuildContext& c, const std::vector<RecipeValue>& items) {
  Ref tuple = Ref::steal(PyTuple_New(static_cast<Py_ssize_t>(items.size())));
  for (size_t i = 0; tuple && i < items.size(); ++i) {
    PyObject* item = build(c, items[i]);
    if (item == nullptr) return nullptr;
    PyTuple_SET_ITEM(tuple.get(), i, item);
  }
  return tuple.release();
}

PyObject* build_instance(BuildContext& c, const MadeObject& m, int32_t index) {
  auto* type = reinterpret_cast<PyTypeObject*>(m.type.get());
  Ref object;
  if (m.base == &PyTuple_Type) {
    Ref items = Ref::steal(build_tuple(c, m.items));
    Ref args = Ref::steal(items ? PyTuple_Pack(1, items.get()) : nullptr);
    object = Ref::steal(args ? PyTuple_Type.tp_new(type, args.get(), nullptr) : nullptr);
  } else {
    Ref args = Ref::steal(empty_tuple());
    object = Ref::steal(m.base->tp_new(type, args.get(), nullptr));
  }
  if (!object) return nullptr;
  c.made[index] = object;
  if (m.base == &PyODict_Type || m.base == &PyDict_Type) {
    if (!set_items(c, object.get(), m.items, m.base == &PyODict_Type)) return nullptr;
  } else if (m.base == &PyList_Type) {
    for (const RecipeValue& item : m.items) {
      Ref value = Ref::steal(build(c, item));
      if (!value || PyList_Append(object.get(), value.get()) < 0) return nullptr;
    }
  }
  if (!m.attributes.empty()) {
    PyObject** slot = _PyObject_GetDictPtr(object.get());
    if (slot == nullptr) {
      PyErr_SetString(PyExc_SystemError, "[flashpoint] an object lost its __dict__");
      return nullptr;
    }
    if (*slot == nullptr) *slot = PyDict_New();
    for (const auto& [name, recipe] : m.attributes) {
      Ref value = Ref::steal(build(c, recipe));
      if (!value || PyDict_SetItem(*slot, name.get(), value.get()) < 0) return nullptr;
    }
  }
  for (const auto& [descriptor, recipe] : m.slots) {
    PyObject* value = build(c, recipe);
    if (value == nullptr) return nullptr;
    PyObject** slot = py::object_slot(object.get(), descriptor.get());
    Py_XSETREF(*slot, value);
  }
  return object.release();
}

PyObject* build_made(BuildContext& c, int32_t index) {
  const MadeObject& m = c.recipes[index];
  switch (m.kind) {
    case MadeObject::Kind::kList: {
      Ref list = Ref::steal(PyList_New(static_cast<Py_ssize_t>(m.items.size())));
      if (!list) return nullptr;
      for (size_t i = 0; i < m.items.size(); ++i) PyList_SET_ITEM(list.get(), i, Py_NewRef(Py_None));
      c.made[index] = list;
      for (size_t i = 0; i < m.items.size(); ++i) {
        PyObject* item = build(c, m.items[i]);
        if (item == nullptr || PyList_SetItem(list.get(), static_cast<Py_ssize_t>(i), item) < 0)
          return nullptr;
      }
      return list.release();
    }
    case MadeObject::Kind::kTuple:
      return build_tuple(c, m.items);
    case MadeObject::Kind::kStruct: {
      Ref items = Ref::steal(build_tuple(c, m.items));
      return items ? PyObject_CallOneArg(m.type.get(), items.get()) : nullptr;
    }
    case MadeObject::Kind::kDict: {
      Ref dict = Ref::steal(PyDict_New());
      c.made[index] = dict;
      return dict && set_items(c, dict.get(), m.items, false) ? dict.release() : nullptr;
    }
    case MadeObject::Kind::kSet:
    case MadeObject::Kind::kFrozenSet: {
      Ref items = Ref::steal(build_tuple(c, m.items));
      if (!items) return nullptr;
      return m.kind == MadeObject::Kind::kSet ? PySet_New(items.get()) : PyFrozenSet_New(items.get());
    }
    case MadeObject::Kind::kSlice: {
      Ref items = Ref::steal(build_tuple(c, m.items));
      return items ? PySlice_New(PyTuple_GET_ITEM(items.get(), 0), PyTuple_GET_ITEM(items.get(), 1),
                                 PyTuple_GET_ITEM(items.get(), 2))
                   : nullptr;
    }
    case MadeObject::Kind::kMethod: {
      Ref items = Ref::steal(build_tuple(c, m.items));
      return items ? PyMethod_New(PyTuple_GET_ITEM(items.get(), 0), PyTuple_GET_ITEM(items.get(), 1))
                   : nullptr;
    }
    case MadeObject::Kind::kInstance:
      return build_instance(c, m, index);
    case MadeObject::Kind::kDeque: {
      // Elements go in one by one, so that a deque that holds itself is found again.
      PyObject* type = rules().deque_type();
      Ref none = Ref::steal(PyTuple_New(0));
      Ref object =
          Ref::steal(none ? PyObject_CallFunctionObjArgs(type, none.get(), m.type.get(), nullptr) : nullptr);
      if (!object) return nullptr;
      c.made[index] = object;
      Ref append = Ref::steal(PyUnicode_InternFromString("append"));
      for (const RecipeValue& item : m.items) {
        Ref value = Ref::steal(build(c, item));
        Ref done =
            Ref::steal(value ? PyObject_CallMethodOneArg(object.get(), append.get(), value.get()) : nullptr);
        if (!done) return nullptr;
      }
      return object.release();
    }
  }
  PyErr_SetString(PyExc_SystemError, "[flashpoint] unknown recipe");
  return nullptr;
}

}  // namespace

PyObject* build(BuildContext& c, const RecipeValue& v) {
  switch (v.kind) {
    case RecipeValue::Kind::kConstant:
      return Py_NewRef(v.constant.get());
    case RecipeValue::Kind::kNode:
      return Py_NewRef(c.nodes[v.index]);
    case RecipeValue::Kind::kOutput:
      return Py_NewRef(c.outputs[v.index].get());
    case RecipeValue::Kind::kMade: {
      if (c.made.size() < c.recipes.size()) c.made.resize(c.recipes.size());
      if (c.made[v.index]) return Py_NewRef(c.made[v.index].get());
      PyObject* object = build_made(c, v.index);
      if (object != nullptr && !c.made[v.index]) c.made[v.index] = Ref::share(object);
      return object;
    }
    case RecipeValue::Kind::kNull:
      break;
  }
  PyErr_SetString(PyExc_SystemError, "[flashpoint] a value without a recipe");
  return nullptr;
}

namespace {

// Classes have a setattr of their own, which keeps their version tags; a tensor's is object's for names that
// no descriptor has.
int set_attribute(PyObject* owner, PyObject* name, PyObject* value) {
  return PyType_Check(owner) ? PyType_Type.tp_setattro(owner, name, value)
                             : PyObject_GenericSetAttr(owner, name, value);
}

}  // namespace

bool commit(BuildContext& c, const std::vector<PlannedEffect>& effects) {
  for (const PlannedEffect& e : effects) {
    PyObject* owner = e.owner == kNoNode ? nullptr : c.nodes[e.owner];
    switch (e.kind) {
      case EffectKind::kDictItem: {
        if (e.items[0].kind == RecipeValue::Kind::kNull) {
          if (PyDict_DelItem(owner, e.key.get()) < 0) PyErr_Clear();  // written and deleted again
          break;
        }
        Ref value = Ref::steal(build(c, e.items[0]));
        if (e.moved && PyDict_GetItemWithError(owner, e.key.get()) != nullptr &&
            PyDict_DelItem(owner, e.key.get()) < 0)
          return false;
        if (!value || PyDict_SetItem(owner, e.key.get(), value.get()) < 0) return false;
        break;
      }
      case EffectKind::kDequeContents: {
        Ref extend = Ref::steal(PyUnicode_InternFromString("extend"));
        Ref items = Ref::steal(build_tuple(c, e.items));
        Ref cleared = Ref::steal(items ? PyObject_CallMethod(owner, "clear", nullptr) : nullptr);
        Ref done =
            Ref::steal(cleared ? PyObject_CallMethodOneArg(owner, extend.get(), items.get()) : nullptr);
        if (!done) return false;
        break;
      }
      case EffectKind::kTypeAttr:
      case EffectKind::kTensorAttr: {
        Ref value = Ref::steal(build(c, e.items[0]));
        if (!value || set_attribute(owner, e.key.get(), value.get()) < 0) return false;
        break;
      }
      case EffectKind::kDictContents: {
        Ref fresh = Ref::steal(PyDict_New());
        if (!set_items(c, fresh.get(), e.items, false)) return false;
        const bool ordered = PyODict_Check(owner);
        Ref done = Ref::steal(PyObject_CallMethod(owner, "clear", nullptr));
        if (!done) return false;
        PyObject *key, *value;
        Py_ssize_t pos = 0;
        while (PyDict_Next(fresh.get(), &pos, &key, &value)) {
          if ((ordered ? PyODict_SetItem(owner, key, value) : PyDict_SetItem(owner, key, value)) < 0)
            return false;
        }
        break;
      }
      case EffectKind::kListContents: {
        Ref items = Ref::steal(build_tuple(c, e.items));
        if (!items || PyList_SetSlice(owner, 0, PyList_GET_SIZE(owner), items.get()) < 0) return false;
        break;
      }
      case EffectKind::kListAppend:
        for (const RecipeValue& item : e.items) {
          Ref value = Ref::steal(build(c, item));
          if (!value || PyList_Append(owner, value.get()) < 0) return false;
        }
        break;
      case EffectKind::kSetContents: {
        Ref items = Ref::steal(build_tuple(c, e.items));
        if (!items || PySet_Clear(owner) < 0 || _PySet_Update(owner, items.get()) < 0) return false;
        break;
      }
      case EffectKind::kCell: {
        Ref value;
        if (e.items[0].kind != RecipeValue::Kind::kNull) {
          value = Ref::steal(build(c, e.items[0]));
          if (!value) return false;
        }
        PyCell_Set(owner, value.get());
        break;
      }
      case EffectKind::kSlot: {
        PyObject* value = build(c, e.items[0]);
        PyObject** slot = py::object_slot(owner, e.key.get());
        if (value == nullptr || slot == nullptr) return false;
        Py_XSETREF(*slot, value);
        break;
      }
      case EffectKind::kContextVar: {
        Ref value = Ref::steal(build(c, e.items[0]));
        Ref token = Ref::steal(value ? PyContextVar_Set(owner, value.get()) : nullptr);
        if (!token) return false;
        break;
      }
      case EffectKind::kGradMode:
        break;
    }
  }
  return true;
}

}  // namespace flashpoint
