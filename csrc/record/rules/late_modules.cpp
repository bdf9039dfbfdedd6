#include "record/rules/late_modules.h"

#include <string>
#include <unordered_set>
#include <utility>

#include "record/rules/rules.h"

namespace flashpoint {

namespace {

bool found = true;  // the first time all rules are new
uint64_t seen_version = 0;

std::unordered_set<std::string>& missing() {
  static auto* names = new std::unordered_set<std::string>();
  return *names;
}

bool is_being_imported(PyObject* module) {
  Ref spec = Ref::steal(PyObject_GetAttrString(module, "__spec__"));
  Ref flag = Ref::steal(spec ? PyObject_GetAttrString(spec.get(), "_initializing") : nullptr);
  PyErr_Clear();
  return flag && flag.get() == Py_True;
}

Ref loaded(const std::string& name) {
  Ref key = Ref::steal(PyUnicode_FromStringAndSize(name.data(), static_cast<Py_ssize_t>(name.size())));
  Ref module = Ref::steal(key ? PyImport_GetModule(key.get()) : nullptr);
  if (!module) PyErr_Clear();
  return module && !is_being_imported(module.get()) ? std::move(module) : Ref();
}

}  // namespace

Ref imported_module(const char* name) {
  Ref module = loaded(name);
  if (!module) missing().insert(name);
  return module;
}

void look_for_late_modules() {
  PyObject* modules = PyImport_GetModuleDict();
  const uint64_t version = reinterpret_cast<PyDictObject*>(modules)->ma_version_tag;
  if (version == seen_version || missing().empty()) return;
  seen_version = version;
  for (const std::string& name : missing()) {
    if (loaded(name)) {
      found = true;
      current_rules = nullptr;
      return;
    }
  }
}

bool take_late_modules() {
  if (!std::exchange(found, false)) return false;
  missing().clear();  // those that are missing still are told again
  return true;
}

}  // namespace flashpoint
