// The portable form of an entry, shared by writer and reader. Numbers are little-endian; objects are rows of
// a table (portable/table.h), plus one, 0 for none.
//
//   "fpen" u16 version, u8 whether it starts or ends at a break, [digest of what follows]
//   | table
//   | u32 positional, u32 keyword names, u8 flags, u8 outer kind
//   | global state, [global state afterwards]
//   | u32 frames of the position (0: a function's start), per frame: u32 its code
//   | u32 nodes, per node: u8 step, i32 parent, i32 index, u32 key, u32 checks,
//       per check: u8 kind, i32 number, u32 operand, u32 second, [metadata of a tensor]
//   | u32 size, text of the graph (ir/printer.h)
//   | scalar steps | number inputs | pinned arguments | tensors | tensors written to
//   | made objects | effects | result | histories of outputs
//   | [snapshot: i32 common, u32 frames, per frame: i32 position, u8 link, u32 slots, function, self, slots;
//       what is being handled]
//   | u32 questions to abstract base classes, per question: u32 such a class, u32 class, u8 answer
//   | u32 functions that C code calls by name, per function: its module and path (u32 size, text), digest of
//     its code
//   | [calls of the graph's operators (driver/trace_format.h)]
//
// The reader trusts none of it: what is malformed is a miss.
#pragma once

#include <cstdint>
#include <string_view>

#include "driver/entry.h"
#include "py/layout.h"

namespace flashpoint {

constexpr char kEntryMagic[] = "fpen";
constexpr uint16_t kEntryVersion = 6;

enum EntryFlags : uint8_t {
  kAnyHigherRecursionLimit = 1,
  kHasStateAfter = 2,
  kHasOuterKind = 4,
  kHasSnapshot = 8,
  kBelowAutograd = 16,  // no two of its tensors may be one
  kHasTrace = 32,       // for Python backends
};

constexpr uint32_t kMaxEntryNodes = 400'000;

constexpr int kSteps = 0
#define X(name, portable, text) +1
#include "guard/steps.def"
#undef X
    ;
constexpr int kCheckKinds = 0
#define X(name, tagged, operands, text) +1
#include "guard/checks.def"
#undef X
    ;

// What a check's operands are: nothing but numbers; values; a class, object or function that the guard itself
// reaches; what that class was described with; or something that says nothing elsewhere. A column of
// guard/checks.def.
enum class CheckOperands : uint8_t {
  kNumber,
  kValues,
  kType,
  kItself,
  kFunction,
  kTensor,
  kPlainCall,
  kClass,
  kLocal
};

// The builtin types under instances that replay makes.
inline PyTypeObject* const* instance_bases() {
  static PyTypeObject* const bases[] = {&PyBaseObject_Type, &PyDict_Type,       &PyODict_Type, &PyList_Type,
                                        &PyTuple_Type,      &_PyNamespace_Type, nullptr};
  return bases;
}

constexpr uint32_t kMaxNamedFunctions = 4096;

// Operators of our own that are the same in every process: none that names code, or a place in it.
inline bool is_portable_operator(std::string_view name) {
  for (const std::string_view space : {"aten::", "prims::", "profiler::_record_function_"}) {
    if (name.starts_with(space)) return true;
  }
  for (const std::string_view known : {"constant", "data", "set_data", "check_range", "item_float",
                                       "item_int", "number_float", "number_int"}) {
    if (name.size() == known.size() + 12 && name.starts_with("flashpoint::") && name.ends_with(known))
      return true;
  }
  return false;
}

inline bool is_special_name(PyObject* name) {
  const char* text = PyUnicode_CheckExact(name) ? PyUnicode_AsUTF8(name) : nullptr;
  if (text == nullptr) PyErr_Clear();
  const std::string_view view = text == nullptr ? "" : text;
  return view.size() > 4 && view.starts_with("__") && view.ends_with("__");
}

// The Python function that an attribute of a class is, or holds as a static or class method; null: none.
inline PyObject* function_of_method(PyObject* attribute) {
  if (Py_IS_TYPE(attribute, &PyStaticMethod_Type) || Py_IS_TYPE(attribute, &PyClassMethod_Type))
    attribute = py::held_callable(attribute);
  return attribute != nullptr && PyFunction_Check(attribute) ? attribute : nullptr;
}

struct EntryAccess {
  static std::vector<MadeObject>& recipes(Entry& entry) { return entry.recipes_; }
  static std::vector<PlannedEffect>& effects(Entry& entry) { return entry.effects_; }
  static const std::vector<NodeId>& kept_nodes(const Entry& entry) { return entry.kept_nodes_; }
  static RecipeValue& result(Entry& entry) { return entry.result_; }
};

}  // namespace flashpoint
