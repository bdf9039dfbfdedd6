// Numbers in attributes of objects that the call makes, and in cells that it makes.
//
// An instance is followed like a container (shadow_containers.cpp), by the names of its attributes. Nothing
// iterates over attributes, so it does not matter who refers to the instance already; only a dict of it that
// the program holds would be another way in. What C code may read of it without the recorder being told are
// attributes, so an event that runs no such code leaves them followed: operators and conversions end in
// Python methods, which see the object as their own operand.
#include "py/layout.h"
#include "py/torch_bridge.h"
#include "record/recorder.h"
#include "record/rules/rules.h"
#include "record/shadow.h"

namespace flashpoint {

namespace {

// Of a class of the program, and of no other builtin type's layout.
bool is_instance(PyObject* o) {
  PyTypeObject* type = Py_TYPE(o);
  if (PyType_Check(o) || !PyType_HasFeature(type, Py_TPFLAGS_HEAPTYPE) || is_tensor(o)) return false;
  while (type != nullptr && PyType_HasFeature(type, Py_TPFLAGS_HEAPTYPE)) type = type->tp_base;
  return type == &PyBaseObject_Type;
}

PyObject* base_method(const char* name) { return PyDict_GetItemString(PyBaseObject_Type.tp_dict, name); }

// The attribute's own place in the instance: a slot, or an entry of its dict. Null where there is none, or
// where something else decides what the attribute is.
PyObject* own_attribute(PyObject* o, PyObject* name, bool* decided) {
  static PyObject* const getattribute_name = PyUnicode_InternFromString("__getattribute__");
  static PyObject* const getattribute = base_method("__getattribute__");
  *decided = false;
  if (_PyType_Lookup(Py_TYPE(o), getattribute_name) != getattribute) return nullptr;
  PyObject* const d = _PyType_Lookup(Py_TYPE(o), name);
  if (d != nullptr && Py_TYPE(d)->tp_descr_set != nullptr) {
    PyObject** const slot = Py_IS_TYPE(d, &PyMemberDescr_Type) ? py::object_slot(o, d) : nullptr;
    *decided = slot != nullptr;
    return slot == nullptr ? nullptr : *slot;
  }
  PyObject** const dict = _PyObject_GetDictPtr(o);
  if (dict == nullptr || *dict == nullptr) return nullptr;
  PyObject* const value = PyDict_GetItemWithError(*dict, name);
  *decided = value != nullptr;
  return value;
}

bool is_set_attribute(PyObject* callable) {
  static PyObject* const set = base_method("__setattr__");
  if (callable == set) return true;
  return Py_IS_TYPE(callable, &_PyMethodWrapper_Type) &&
         reinterpret_cast<PyObject*>(reinterpret_cast<py::MethodWrapperLayout*>(callable)->descriptor) == set;
}

Rule function_rule(PyObject* callable) {
  return PyCFunction_Check(callable)
             ? rules().function(reinterpret_cast<PyCFunctionObject*>(callable)->m_ml).rule
             : Rule::kNone;
}

// A call of the type runs no C code but what makes a plain object.
bool constructs_in_python(PyObject* callable) {
  if (!PyType_Check(callable) || !Py_IS_TYPE(callable, &PyType_Type)) return false;
  static PyObject* const make_name = PyUnicode_InternFromString("__new__");
  static PyObject* const init_name = PyUnicode_InternFromString("__init__");
  static PyObject* const make = base_method("__new__");
  auto* type = reinterpret_cast<PyTypeObject*>(callable);
  PyObject* const init = _PyType_Lookup(type, init_name);
  return PyType_HasFeature(type, Py_TPFLAGS_HEAPTYPE) && _PyType_Lookup(type, make_name) == make &&
         init != nullptr && PyFunction_Check(init) && runs_as_itself(init);
}

}  // namespace

PyObject* constructor_of(PyObject* callable) {
  static PyObject* const init_name = PyUnicode_InternFromString("__init__");
  return constructs_in_python(callable) ? _PyType_Lookup(reinterpret_cast<PyTypeObject*>(callable), init_name)
                                        : nullptr;
}

bool Shadow::put_attribute(PyObject* o, PyObject* name, Tag tag, PyObject* value) {
  tag = table_.resolve(tag);
  if (tag == 0 || table_.value(tag) != value || !table_.is_open(tag) || table_.is_late(tag)) return false;
  if (recorder_.node_of(o) != kNoNode || !is_instance(o) || !PyUnicode_CheckExact(name) ||
      !PyUnicode_CHECK_INTERNED(name))
    return false;
  PyObject* const d = _PyType_Lookup(Py_TYPE(o), name);
  const bool slot = d != nullptr && Py_IS_TYPE(d, &PyMemberDescr_Type);
  if (d != nullptr && Py_TYPE(d)->tp_descr_set != nullptr && (!slot || py::object_slot(o, d) == nullptr))
    return false;
  if (!slot) {
    PyObject** const dict = _PyObject_GetDictPtr(o);
    if (dict == nullptr || (*dict != nullptr && Py_REFCNT(*dict) > 1)) return false;
  }
  put(follow_new(o), name, tag);
  return follows_event_ = true;
}

bool Shadow::store_through_setattr(PyObject* callable, const Operands& o) {
  if (!is_set_attribute(callable) || o.kwnames != nullptr) return false;
  const bool bound = Py_IS_TYPE(callable, &_PyMethodWrapper_Type);
  if (o.nargs != (bound ? 2 : 3)) return false;
  PyObject* const receiver = bound ? reinterpret_cast<py::MethodWrapperLayout*>(callable)->self : o.args[0];
  return recorder_.node_of(receiver) == kNoNode &&
         put_attribute(receiver, o.args[o.nargs - 2], call_tags_.back(), o.args[o.nargs - 1]);
}

// Whether the event leaves the attributes of an instance among its operands followed.
bool Shadow::keeps_instance(EvalFrame& frame, const Operands& o, PyObject* instance) {
  static PyObject* const setattr_name = PyUnicode_InternFromString("__setattr__");
  static PyObject* const set = base_method("__setattr__");
  const auto forget = [&](PyObject* name) {
    const bool plain = PyUnicode_CheckExact(name) && PyUnicode_CHECK_INTERNED(name);
    if (plain) put(*container(instance), name, 0);
    return plain;
  };
  const auto gives = [&](PyObject* name) {
    bool decided = false;
    PyObject* const value = own_attribute(instance, name, &decided);
    if (decided)
      container_events_.push_back(
          {&frame, ContainerEvent::Kind::kGives, instance, {}, {kept_item(instance, name, value)}});
    return decided;
  };
  switch (o.event) {
    case Event::kAttr:
    case Event::kMethod:
    case Event::kSpecial: {
      if (o.a != instance) return false;
      if (gives(o.name)) return true;
      // Methods and the like of its class, and Python code that answers.
      PyObject* const d = _PyType_Lookup(Py_TYPE(instance), o.name);
      return d == nullptr || PyFunction_Check(d) || Py_IS_TYPE(d, &PyProperty_Type) ||
             Py_IS_TYPE(d, &PyClassMethod_Type) || Py_IS_TYPE(d, &PyStaticMethod_Type) ||
             Py_TYPE(d)->tp_descr_get == nullptr;
    }
    case Event::kStoreAttr: {
      if (o.a != instance) return !is_tensor(o.a) && !PyType_Check(o.a);
      PyObject* const own = _PyType_Lookup(Py_TYPE(instance), setattr_name);
      if (own != set) return own != nullptr && PyFunction_Check(own);
      PyObject* const d = _PyType_Lookup(Py_TYPE(instance), o.name);
      const bool slot = d != nullptr && Py_IS_TYPE(d, &PyMemberDescr_Type);
      if (d != nullptr && !slot && Py_TYPE(d)->tp_descr_set != nullptr)
        return Py_IS_TYPE(d, &PyProperty_Type);
      return forget(o.name);
    }
    case Event::kCall: {
      if (runs_as_python(o.a) || constructs_in_python(o.a)) return true;
      if (is_set_attribute(o.a)) {
        const bool bound = Py_IS_TYPE(o.a, &_PyMethodWrapper_Type);
        if (o.kwnames != nullptr || o.nargs != (bound ? 2 : 3)) return false;
        PyObject* const receiver = bound ? reinterpret_cast<py::MethodWrapperLayout*>(o.a)->self : o.args[0];
        return receiver != instance || forget(o.args[o.nargs - 2]);
      }
      if (Py_IS_TYPE(o.a, &_PyMethodWrapper_Type)) {
        static PyObject* const init = base_method("__init__");
        return reinterpret_cast<PyObject*>(reinterpret_cast<py::MethodWrapperLayout*>(o.a)->descriptor) ==
               init;
      }
      if (o.a == reinterpret_cast<PyObject*>(&PyType_Type)) return o.nargs == 1;
      if (o.a == reinterpret_cast<PyObject*>(&PySuper_Type)) return true;
      const Rule rule = function_rule(o.a);
      if (rule == Rule::kIsInstance || rule == Rule::kLen || rule == Rule::kHasAttr) return true;
      if (rule == Rule::kGetAttr && o.nargs >= 2 && o.args[0] == instance &&
          PyUnicode_CheckExact(o.args[1]) && PyUnicode_CHECK_INTERNED(o.args[1]))
        return gives(o.args[1]) || _PyType_Lookup(Py_TYPE(instance), o.args[1]) == nullptr;
      return is_list_append(o.a) && o.nargs == 2 && o.args[0] != instance;
    }
    case Event::kMatch:
    case Event::kImportFrom:
    case Event::kUnpackMapping:
      return false;
    default:
      return true;
  }
}

bool Shadow::keeps_cell(EvalFrame& frame, const Operands& o, PyObject* cell) {
  switch (o.event) {
    case Event::kCell:
      if (o.a != cell || o.name != nullptr || frame.tags_of != recorder_.serial) return false;
      container_events_.push_back({&frame,
                                   ContainerEvent::Kind::kGives,
                                   cell,
                                   {},
                                   {kept_item(cell, index_key(0), PyCell_GET(cell))}});
      return true;
    case Event::kStoreCell:
      put(*container(cell), index_key(0), 0);
      return true;
    case Event::kClosure:
    case Event::kBuild:
      return true;
    default:
      return false;
  }
}

bool Shadow::put_cell(PyObject* cell, Tag tag, PyObject* value) {
  tag = table_.resolve(tag);
  if (tag == 0 || table_.value(tag) != value || !table_.is_open(tag) || table_.is_late(tag)) return false;
  put(follow_new(cell), index_key(0), tag);
  return follows_event_ = true;
}

// Takes instances and cells that stay followed out of the event's containers.
void Shadow::follow_objects(EvalFrame& frame, const Operands& o) {
  std::erase_if(used_containers_, [&](PyObject* used) {
    if (PyCell_Check(used)) return keeps_cell(frame, o, used);
    return is_instance(used) && keeps_instance(frame, o, used);
  });
}

}  // namespace flashpoint
