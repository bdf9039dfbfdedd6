#include "py/layout.h"
#include "py/torch_bridge.h"
#include "record/rules/rules.h"
#include "replay/recipe.h"

extern "C" PyObject* _PyDictView_New(PyObject* dict, PyTypeObject* type);

namespace flashpoint {

namespace {

PyObject* empty_tuple() { return PyTuple_New(0); }

bool set_items(BuildContext& c, PyObject* dict, const std::vector<RecipeValue>& items, bool ordered,
               size_t first = 0) {
  for (size_t i = first; i + 1 < items.size(); i += 2) {
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
  if (m.base == &PyTuple_Type || m.base == &PyFrozenSet_Type) {
    Ref items = Ref::steal(build_tuple(c, m.items));
    Ref args = Ref::steal(items ? PyTuple_Pack(1, items.get()) : nullptr);
    object = Ref::steal(args ? m.base->tp_new(type, args.get(), nullptr) : nullptr);
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
  } else if (m.base == &PySet_Type) {
    Ref items = Ref::steal(build_tuple(c, m.items));
    if (!items || _PySet_Update(object.get(), items.get()) < 0) return nullptr;
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

// items: code, globals, qualified name, name, defaults, keyword defaults, closure, annotations, module, doc.
PyObject* build_function(BuildContext& c, const MadeObject& m, int32_t index) {
  Ref function = Ref::steal(PyFunction_NewWithQualName(m.items[0].constant.get(), m.items[1].constant.get(),
                                                       m.items[2].constant.get()));
  if (!function) return nullptr;
  c.made[index] = function;  // before the closure, which may hold the function itself
  auto* f = reinterpret_cast<PyFunctionObject*>(function.get());
  PyObject** const fields[] = {&f->func_name,        &f->func_defaults, &f->func_kwdefaults, &f->func_closure,
                               &f->func_annotations, &f->func_module,   &f->func_doc};
  for (size_t i = 0; i < std::size(fields); ++i) {
    Ref value;
    if (!build_slot(c, m.items[i + 3], &value)) return nullptr;
    Py_XSETREF(*fields[i], value.release());
  }
  for (const auto& [name, recipe] : m.attributes) {
    if (f->func_dict == nullptr) f->func_dict = PyDict_New();
    Ref value = Ref::steal(build(c, recipe));
    if (!value || PyDict_SetItem(f->func_dict, name.get(), value.get()) < 0) return nullptr;
  }
  return function.release();
}

PyObject* build_tensor(BuildContext& c, const MadeObject& m, int32_t index) {
  Ref tensor = Ref::steal(build(c, m.items[0]));
  if (!tensor) return nullptr;
  c.made[index] = tensor;
  if (m.type) {
    Ref name = Ref::steal(PyUnicode_InternFromString("__class__"));
    if (PyObject_GenericSetAttr(tensor.get(), name.get(), m.type.get()) < 0) return nullptr;
    tensor_impl(tensor.get())->set_allow_tensor_metadata_change(true);
  }
  Ref grad;
  if (!build_slot(c, m.items[1], &grad)) return nullptr;
  if (grad) set_tensor_grad(tensor.get(), grad.get());
  for (const auto& [name, recipe] : m.attributes) {
    Ref value = Ref::steal(build(c, recipe));
    if (!value || PyObject_GenericSetAttr(tensor.get(), name.get(), value.get()) < 0) return nullptr;
  }
  return tensor.release();
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
    case MadeObject::Kind::kDefaultDict: {
      Ref factory = Ref::steal(build(c, m.items[0]));
      Ref dict =
          Ref::steal(factory ? PyObject_CallOneArg(rules().defaultdict_type(), factory.get()) : nullptr);
      c.made[index] = dict;
      return dict && set_items(c, dict.get(), m.items, false, 1) ? dict.release() : nullptr;
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
    case MadeObject::Kind::kCell: {
      Ref cell = Ref::steal(PyCell_New(nullptr));
      if (!cell) return nullptr;
      c.made[index] = cell;
      Ref content;
      if (!build_slot(c, m.items[0], &content)) return nullptr;
      PyCell_Set(cell.get(), content.get());
      return cell.release();
    }
    case MadeObject::Kind::kFunction:
      return build_function(c, m, index);
    case MadeObject::Kind::kBuiltinMethod: {
      Ref self = Ref::steal(build(c, m.items[0]));
      return self ? PyCFunction_New(m.method, self.get()) : nullptr;
    }
    case MadeObject::Kind::kDictIterator: {
      Ref dict = Ref::steal(build(c, m.items[0]));
      if (!dict) return nullptr;
      PyObject* type = m.type.get();
      Ref view = Ref::steal(type == reinterpret_cast<PyObject*>(&PyDictIterKey_Type)
                                ? _PyDictView_New(dict.get(), &PyDictKeys_Type)
                            : type == reinterpret_cast<PyObject*>(&PyDictIterValue_Type)
                                ? _PyDictView_New(dict.get(), &PyDictValues_Type)
                                : _PyDictView_New(dict.get(), &PyDictItems_Type));
      Ref iterator = Ref::steal(view ? PyObject_GetIter(view.get()) : nullptr);
      for (Py_ssize_t i = PyLong_AsSsize_t(m.items[1].constant.get()); iterator && i > 0; --i) {
        Ref taken = Ref::steal(PyIter_Next(iterator.get()));
        if (!taken) break;  // a dict that lost elements says so at the next step
      }
      return PyErr_Occurred() ? nullptr : iterator.release();
    }
    case MadeObject::Kind::kReduced: {
      Ref arguments = Ref::steal(build(c, m.items[1]));
      Ref object =
          Ref::steal(arguments ? PyObject_CallObject(m.items[0].constant.get(), arguments.get()) : nullptr);
      if (!object || m.items[2].kind == RecipeValue::Kind::kNull) return object.release();
      Ref state = Ref::steal(build(c, m.items[2]));
      Ref name = Ref::steal(PyUnicode_InternFromString("__setstate__"));
      Ref done = Ref::steal(state && name ? PyObject_CallMethodOneArg(object.get(), name.get(), state.get())
                                          : nullptr);
      return done ? object.release() : nullptr;
    }
    case MadeObject::Kind::kTensor:
      return build_tensor(c, m, index);
    case MadeObject::Kind::kException:
      return build_exception(c, m, index);
    case MadeObject::Kind::kGenerator:
      return build_generator(c, m, index);
    case MadeObject::Kind::kTraceback:
      return build_traceback(c, m);
    case MadeObject::Kind::kInferenceRegion: {
      m.state->enter_regions();
      Ref manager = Ref::steal(PyObject_CallOneArg(m.type.get(), m.items[0].constant.get()));
      Ref entered = Ref::steal(manager ? PyObject_CallMethod(manager.get(), "__enter__", nullptr) : nullptr);
      return entered ? manager.release() : nullptr;
    }
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
    case RecipeValue::Kind::kScalar:
      return Py_NewRef(c.scalars[v.index].get());
    case RecipeValue::Kind::kSaved:
      return Py_NewRef(c.outer.saved);
    case RecipeValue::Kind::kHandled:
      return Py_NewRef(c.outer.topmost);
    case RecipeValue::Kind::kMade: {
      if (c.made.size() < c.recipes.size()) c.made.resize(c.recipes.size());
      if (c.made[v.index]) return Py_NewRef(c.made[v.index].get());
      Ref object = Ref::steal(build_made(c, v.index));
      if (!object) return nullptr;
      // What is made of finished elements, and is inside one of them, has been made meanwhile.
      if (!c.made[v.index]) c.made[v.index] = std::move(object);
      return Py_NewRef(c.made[v.index].get());
    }
    case RecipeValue::Kind::kNull:
    case RecipeValue::Kind::kKeep:
      break;
  }
  PyErr_SetString(PyExc_SystemError, "[flashpoint] a value without a recipe");
  return nullptr;
}

bool build_slot(BuildContext& c, const RecipeValue& v, Ref* slot) {
  if (v.kind == RecipeValue::Kind::kNull || v.kind == RecipeValue::Kind::kKeep) {
    *slot = Ref();
    return true;
  }
  *slot = Ref::steal(build(c, v));
  return static_cast<bool>(*slot);
}

namespace {

// Classes have a setattr of their own, which keeps their version tags; a tensor's is object's for names that
// no descriptor has.
int set_attribute(PyObject* owner, PyObject* name, PyObject* value) {
  return PyType_Check(owner) ? PyType_Type.tp_setattro(owner, name, value)
                             : PyObject_GenericSetAttr(owner, name, value);
}

}  // namespace

bool build_hashed(BuildContext& c) {
  for (size_t i = 0; i < c.recipes.size(); ++i) {
    PyTypeObject* base = c.recipes[i].base;
    switch (c.recipes[i].kind) {
      case MadeObject::Kind::kInstance:
        if (base != &PySet_Type && base != &PyFrozenSet_Type) break;
        [[fallthrough]];
      case MadeObject::Kind::kSet:
      case MadeObject::Kind::kFrozenSet:
      case MadeObject::Kind::kDict:
      case MadeObject::Kind::kDefaultDict:
        if (!Ref::steal(build(c, {RecipeValue::Kind::kMade, static_cast<int32_t>(i), Ref()}))) return false;
        break;
      default:
        break;
    }
  }
  return true;
}

bool commit(BuildContext& c, const std::vector<PlannedEffect>& effects) {
  for (const PlannedEffect& e : effects) {
    PyObject* owner = c.nodes[e.owner];
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
      case EffectKind::kTensorGrad: {
        Ref grad = Ref::steal(build(c, e.items[0]));
        if (!grad) return false;
        set_tensor_grad(owner, grad.get() == Py_None ? nullptr : grad.get());
        break;
      }
      case EffectKind::kDictContents: {
        Ref fresh = Ref::steal(PyDict_New());
        if (!set_items(c, fresh.get(), e.items, false)) return false;
        const bool ordered = PyODict_Check(owner);
        // Of a subclass what its storage holds, whatever methods it has.
        if (ordered) {
          if (!Ref::steal(PyObject_CallMethod(owner, "clear", nullptr))) return false;
        } else {
          PyDict_Clear(owner);
        }
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
      case EffectKind::kListItem: {
        const Py_ssize_t i = PyLong_AsSsize_t(e.key.get());
        Ref value = Ref::steal(build(c, e.items[0]));
        if (!value || PyList_SetItem(owner, i, value.release()) < 0) return false;
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
        Ref value;  // none: it was cleared
        PyObject** slot = py::object_slot(owner, e.key.get());
        if (slot == nullptr || !build_slot(c, e.items[0], &value)) return false;
        Py_XSETREF(*slot, value.release());
        break;
      }
      case EffectKind::kContextVar: {
        Ref value = Ref::steal(build(c, e.items[0]));
        Ref token = Ref::steal(value ? PyContextVar_Set(owner, value.get()) : nullptr);
        if (!token) return false;
        break;
      }
      case EffectKind::kGenerator:
        if (!commit_generator(c, e)) return false;
        break;
      case EffectKind::kIteratorSteps:
        for (size_t i = 0; i < e.items.size(); ++i) {
          Ref taken = Ref::steal(Py_TYPE(owner)->tp_iternext(owner));
          if (!taken && PyErr_Occurred() != nullptr && !PyErr_ExceptionMatches(PyExc_StopIteration))
            return false;
          PyErr_Clear();
        }
        break;
      case EffectKind::kCachedCall: {
        // Guards have found the key, so this counts the hit and renews the key's place in a bounded cache.
        Ref arguments = Ref::steal(build_tuple(c, e.items));
        if (!arguments) return false;
        PyObject* const* items = &PyTuple_GET_ITEM(arguments.get(), 0);
        const Py_ssize_t named = e.key ? PyTuple_GET_SIZE(e.key.get()) : 0;
        const auto count = static_cast<size_t>(PyTuple_GET_SIZE(arguments.get()) - named);
        Ref result = Ref::steal(PyObject_Vectorcall(owner, items, count, e.key.get()));
        if (!result) return false;
        break;
      }
    }
  }
  return true;
}

}  // namespace flashpoint
