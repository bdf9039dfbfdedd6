// Recipes of exceptions and tracebacks.
//
// An exception is all of its fields, whatever its constructor would make of the arguments; numbers that
// builtin classes keep as C fields are named below. Other state of C code has no recipe. A traceback names
// frames: one that runs on is found again once it has been restored, one that has ended is stood for by a
// frame without locals (py/tracebacks.h).
#include <algorithm>

#include "py/layout.h"
#include "py/tracebacks.h"
#include "record/recorder.h"
#include "record/visible_death.h"
#include "replay/recipe.h"

namespace flashpoint {

namespace {

constexpr size_t kMostEntries = 64;  // of a traceback

PyTypeObject* base_exception() { return reinterpret_cast<PyTypeObject*>(PyExc_BaseException); }

// C fields of builtin classes that are no objects.
struct NumberField {
  PyObject* const* type;
  size_t offset;
};
const NumberField kNumberFields[] = {
    {&PyExc_OSError, offsetof(PyOSErrorObject, written)},
    {&PyExc_UnicodeEncodeError, offsetof(PyUnicodeErrorObject, start)},
    {&PyExc_UnicodeEncodeError, offsetof(PyUnicodeErrorObject, end)},
    {&PyExc_UnicodeDecodeError, offsetof(PyUnicodeErrorObject, start)},
    {&PyExc_UnicodeDecodeError, offsetof(PyUnicodeErrorObject, end)},
    {&PyExc_UnicodeTranslateError, offsetof(PyUnicodeErrorObject, start)},
    {&PyExc_UnicodeTranslateError, offsetof(PyUnicodeErrorObject, end)},
};

PyTypeObject* type_of(const NumberField& field) { return reinterpret_cast<PyTypeObject*>(*field.type); }

Py_ssize_t& number_at(PyObject* o, size_t offset) {
  return *reinterpret_cast<Py_ssize_t*>(reinterpret_cast<char*>(o) + offset);
}

// Whose objects are no more than their memory: BaseException's constructor makes them as well.
bool has_plain_constructor(const PyTypeObject* base) {
  for (PyObject* known : {PyExc_BaseException, PyExc_OSError, PyExc_BaseExceptionGroup}) {
    if (base->tp_new == reinterpret_cast<PyTypeObject*>(known)->tp_new) return true;
  }
  return false;
}

// Calls visit(descriptor) for the members of builtin exception classes that hold an object.
template <typename Visit>
void for_each_member(PyObject* o, PyTypeObject* base, Visit&& visit) {
  for (PyTypeObject* t = base; t != nullptr && t != base_exception(); t = t->tp_base) {
    PyObject *key, *d;
    Py_ssize_t pos = 0;
    while (PyDict_Next(t->tp_dict, &pos, &key, &d)) {
      if (Py_IS_TYPE(d, &PyMemberDescr_Type) && py::object_slot(o, d) != nullptr) visit(d);
    }
  }
}

RecipeValue made(int32_t index) { return {RecipeValue::Kind::kMade, index, Ref()}; }
RecipeValue constant(Ref value) { return {RecipeValue::Kind::kConstant, 0, std::move(value)}; }

}  // namespace

RecipeValue RecipeWriter::describe_exception(PyObject* o) {
  auto* e = reinterpret_cast<PyBaseExceptionObject*>(o);
  PyTypeObject* type = Py_TYPE(o);
  PyTypeObject* base = builtin_base(type);
  Py_ssize_t members = 0;
  for_each_member(o, base, [&](PyObject*) { ++members; });
  for (const NumberField& field : kNumberFields) members += PyType_IsSubtype(base, type_of(field));
  const auto known = static_cast<Py_ssize_t>(sizeof(PyBaseExceptionObject) + members * sizeof(PyObject*));
  if (!has_plain_constructor(base) || base->tp_basicsize > known || has_c_state(o, base))
    return fail(o, "an exception with state of C code");
  if (type->tp_del != nullptr) return fail(o, "has a finalizer");
  if (PyType_HasFeature(type, Py_TPFLAGS_HEAPTYPE) &&
      recorder_.node_of(reinterpret_cast<PyObject*>(type)) == kNoNode)
    return fail(o, "an instance of a class of unknown origin");
  recorder_.sees_outer = true;
  const int32_t index = begin(o, MadeObject::Kind::kException);
  made_[index].type = Ref::share(reinterpret_cast<PyObject*>(type));
  const auto part = [&](PyObject* object) { return object == nullptr ? RecipeValue{} : describe(object); };
  std::vector<RecipeValue> items{part(e->args), part(e->context), part(e->cause), part(e->traceback),
                                 constant(Ref::share(e->suppress_context ? Py_True : Py_False))};
  for (const NumberField& field : kNumberFields) {
    if (!PyType_IsSubtype(base, type_of(field))) continue;
    items.push_back(constant(Ref::steal(PyLong_FromSize_t(field.offset))));
    items.push_back(constant(Ref::steal(PyLong_FromSsize_t(number_at(o, field.offset)))));
  }
  std::vector<std::pair<Ref, RecipeValue>> attributes, slots;
  if (PyObject* dict = py::instance_dict(o)) {
    PyObject *key, *value;
    Py_ssize_t pos = 0;
    while (PyDict_Next(dict, &pos, &key, &value)) attributes.emplace_back(Ref::share(key), describe(value));
  }
  const auto add_slot = [&](PyObject* d) {
    PyObject** slot = py::object_slot(o, d);
    if (*slot != nullptr) slots.emplace_back(Ref::share(d), describe(*slot));
  };
  for_each_member(o, base, add_slot);
  for (PyTypeObject* t = type; t != base; t = t->tp_base) {
    PyObject *key, *d;
    Py_ssize_t pos = 0;
    while (PyDict_Next(t->tp_dict, &pos, &key, &d)) {
      if (Py_IS_TYPE(d, &PyMemberDescr_Type) && py::object_slot(o, d) != nullptr) add_slot(d);
    }
  }
  made_[index].items = std::move(items);
  made_[index].attributes = std::move(attributes);
  made_[index].slots = std::move(slots);
  return made(index);
}

RecipeValue RecipeWriter::describe_traceback(PyObject* o) {
  const std::vector<TracebackEntry> entries = traceback_entries(o);
  if (entries.size() > kMostEntries) return fail(o, "a long traceback");
  auto* next = reinterpret_cast<PyObject*>(reinterpret_cast<PyTracebackObject*>(o)->tb_next);
  RecipeValue rest = next == nullptr ? RecipeValue{} : describe(next);
  const TracebackEntry& entry = entries.front();
  const auto live = std::find(running.begin(), running.end(), entry.frame);
  if (live == running.end() && ends_visibly(entry.frame))
    return fail(o, "a traceback that keeps alive what would be seen to die");
  const long level = live == running.end() ? -1 : static_cast<long>(live - running.begin());
  const int32_t index = begin(o, MadeObject::Kind::kTraceback);
  made_[index].items = {std::move(rest),
                        constant(Ref::share(reinterpret_cast<PyObject*>(entry.code))),
                        constant(Ref::share(entry.globals)),
                        constant(Ref::steal(PyLong_FromLong(entry.lasti))),
                        constant(Ref::steal(PyLong_FromLong(entry.line))),
                        constant(Ref::steal(PyLong_FromLong(level))),
                        constant(Ref::steal(PyLong_FromLong(entry.stands_at)))};
  return made(index);
}

PyObject* build_exception(BuildContext& c, const MadeObject& m, int32_t index) {
  Ref none = Ref::steal(PyTuple_New(0));
  Ref object = Ref::steal(
      none ? base_exception()->tp_new(reinterpret_cast<PyTypeObject*>(m.type.get()), none.get(), nullptr)
           : nullptr);
  if (!object) return nullptr;
  c.made[index] = object;  // before its parts, which may hold the exception itself
  auto* e = reinterpret_cast<PyBaseExceptionObject*>(object.get());
  PyObject** const fields[] = {&e->args, &e->context, &e->cause, &e->traceback};
  for (size_t i = 0; i < std::size(fields); ++i) {
    Ref value;
    if (!build_slot(c, m.items[i], &value)) return nullptr;
    Py_XSETREF(*fields[i], value.release());
  }
  e->suppress_context = m.items[4].constant.get() == Py_True;
  for (size_t i = 5; i + 1 < m.items.size(); i += 2) {
    number_at(object.get(), PyLong_AsSize_t(m.items[i].constant.get())) =
        PyLong_AsSsize_t(m.items[i + 1].constant.get());
  }
  if (!m.attributes.empty()) {
    PyObject** slot = _PyObject_GetDictPtr(object.get());
    if (*slot == nullptr) *slot = PyDict_New();
    for (const auto& [name, recipe] : m.attributes) {
      Ref value = Ref::steal(build(c, recipe));
      if (!value || PyDict_SetItem(*slot, name.get(), value.get()) < 0) return nullptr;
    }
  }
  for (const auto& [descriptor, recipe] : m.slots) {
    PyObject* value = build(c, recipe);
    if (value == nullptr) return nullptr;
    Py_XSETREF(*py::object_slot(object.get(), descriptor.get()), value);
  }
  return object.release();
}

PyObject* build_traceback(BuildContext& c, const MadeObject& m) {
  Ref next;
  if (!build_slot(c, m.items[0], &next)) return nullptr;
  const auto number = [&](size_t i) { return static_cast<int>(PyLong_AsLong(m.items[i].constant.get())); };
  Ref traceback = Ref::steal(make_traceback(next.get(), m.items[1].constant.get(), m.items[2].constant.get(),
                                            number(3), number(4), number(6)));
  if (traceback && number(5) >= 0 && c.stack != nullptr)
    c.stack->tracebacks.emplace_back(traceback, number(5));
  return traceback.release();
}

}  // namespace flashpoint
