// operator.itemgetter, attrgetter and methodcaller, and C functions that are called once more at replay.
#include <string>

#include "py/layout.h"
#include "py/torch_bridge.h"
#include "record/recorder.h"
#include "record/rules/rules.h"

namespace flashpoint {

namespace {

Ref interned(PyObject* text) {
  Py_INCREF(text);
  PyUnicode_InternInPlace(&text);
  return Ref::steal(text);
}

}  // namespace

// itemgetter(1)(o) is o[1]; the getter itself never changes.
void Rules::call_getter(Recorder& r, PyObject* getter, PyObject* const* args, Py_ssize_t n) const {
  if (n != 1) return r.end(Break::k_unknown_c_function, Py_TYPE(getter)->tp_name);
  Ref reduced = Ref::steal(PyObject_CallMethod(getter, "__reduce__", nullptr));  // (type, (what to get, ...))
  if (!reduced || !PyTuple_Check(reduced.get()) || PyTuple_GET_SIZE(reduced.get()) != 2 ||
      !PyType_Check(PyTuple_GET_ITEM(reduced.get(), 0))) {
    PyErr_Clear();
    return r.end(Break::k_unknown_c_function, Py_TYPE(getter)->tp_name);
  }
  PyObject* wanted = PyTuple_GET_ITEM(reduced.get(), 1);
  const bool calls = Py_IS_TYPE(getter, methodcaller_);
  const NodeId node = r.node_of(getter);
  for (Py_ssize_t i = 0; (!calls || node != kNoNode) && i < PyTuple_GET_SIZE(wanted); ++i) {
    if (!is_primitive(PyTuple_GET_ITEM(wanted, i)))
      return r.end(Break::k_unknown_c_function, "a getter of something that is no number or text");
  }
  if (node != kNoNode) r.tree_.check(node, CheckKind::kGetterIs, wanted);
  if (calls) return call_method_of(r, args[0], wanted);
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(wanted) && !r.ended(); ++i) {
    PyObject* what = PyTuple_GET_ITEM(wanted, i);
    r.hold(what);
    if (Py_IS_TYPE(getter, itemgetter_)) {
      r.read_subscript(args[0], what);
    } else {
      get_dotted(r, args[0], what);
    }
  }
}

// All parts but the last are attributes that C code must find without running Python code.
void Rules::get_dotted(Recorder& r, PyObject* object, PyObject* path) const {
  Ref dot = Ref::steal(PyUnicode_FromString("."));
  Ref parts = Ref::steal(dot ? PyUnicode_Split(path, dot.get(), -1) : nullptr);
  if (!parts) return PyErr_Clear(), r.end(Break::k_unknown_c_function, "attrgetter");
  const Py_ssize_t count = PyList_GET_SIZE(parts.get());
  for (Py_ssize_t i = 0; i < count && !r.ended(); ++i) {
    Ref name = interned(PyList_GET_ITEM(parts.get(), i));
    r.hold(name.get());
    r.read_attr(object, name.get());
    if (i + 1 == count || r.ended()) return;
    PyObject* const on_type = _PyType_Lookup(Py_TYPE(object), name.get());
    PyObject* const dict = py::instance_dict(object);
    PyObject* const next = dict == nullptr ? nullptr : PyDict_GetItemWithError(dict, name.get());
    if (next == nullptr || Py_TYPE(object)->tp_getattro != PyObject_GenericGetAttr ||
        (on_type != nullptr && Py_TYPE(on_type)->tp_descr_set != nullptr))
      return r.end(Break::k_unknown_c_function, "attrgetter of a dotted name");
    object = next;
  }
}

// methodcaller(name, ...)(o): the method of a class of C code by its rule; Python code comes through the
// hook.
void Rules::call_method_of(Recorder& r, PyObject* object, PyObject* wanted) const {
  const auto unknown = [&] { r.end(Break::k_unknown_c_function, "operator.methodcaller"); };
  if (PyTuple_GET_SIZE(wanted) < 1 || !PyUnicode_CheckExact(PyTuple_GET_ITEM(wanted, 0))) return unknown();
  Ref name = interned(PyTuple_GET_ITEM(wanted, 0));
  r.hold(name.get());
  r.hold(wanted);
  if (!is_primitive(object)) r.read_attr(object, name.get());
  PyObject* const method = _PyType_Lookup(Py_TYPE(object), name.get());
  if (r.ended()) return;
  PyObject* const dict = is_primitive(object) || is_tensor(object) ? nullptr : py::instance_dict(object);
  if (method == nullptr || (dict != nullptr && PyDict_GetItemWithError(dict, name.get()) != nullptr))
    return unknown();
  if (PyFunction_Check(method)) return;
  if (!Py_IS_TYPE(method, &PyMethodDescr_Type)) return unknown();
  std::vector<PyObject*> args{object};
  for (Py_ssize_t i = 1; i < PyTuple_GET_SIZE(wanted); ++i) args.push_back(PyTuple_GET_ITEM(wanted, i));
  const RuleRow row = function(reinterpret_cast<PyMethodDescrObject*>(method)->d_method);
  Pending pending;
  call(r, *r.frame_, row, args.data(), static_cast<Py_ssize_t>(args.size()), nullptr, pending);
  if (pending.word != 0 || pending.answer != nullptr) {
    Py_XDECREF(pending.answer);
    unknown();
  }
}

// The environment of the process: what was said last holds, so saying it again is the effect.
void Rules::say_again(Recorder& r, const char* name, PyObject* const* argv, Py_ssize_t count) const {
  Ref module = Ref::steal(PyImport_ImportModule("posix"));
  Ref function = Ref::steal(module ? PyObject_GetAttrString(module.get(), name) : nullptr);
  Ref arguments = Ref::steal(PyTuple_New(count));
  if (!function || !arguments) return PyErr_Clear(), r.end(Break::k_unknown_c_function, name);
  std::vector<Ref> items;
  for (Py_ssize_t i = 0; i < count; ++i) {
    if (!is_primitive(argv[i])) return r.end(Break::k_unknown_c_function, name);
    items.push_back(Ref::share(argv[i]));
  }
  const NodeId node = r.tree_.child(kNoNode, Step::kConst, function.get());
  r.hold(function.get());
  r.hold(arguments.get());  // its address tells this effect from others
  r.keep_local("the environment of the process");
  Effect effect{EffectKind::kCachedCall, node, Ref::share(function.get()), {}, std::move(items)};
  r.add_effect(std::move(effect), arguments.get());
}

}  // namespace flashpoint
