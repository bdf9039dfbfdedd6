// The portable form of an entry, shared by writer and reader. Numbers are little-endian; objects are rows of
// a table (portable/table.h), plus one, 0 for none.
//
//   "fpen" u16 version
//   | table
//   | u32 positional, u32 keyword names, u8 flags, u8 outer kind
//   | global state, [global state afterwards]
//   | u32 nodes, per node: u8 step, i32 parent, i32 index, u32 key, u32 checks,
//       per check: u8 kind, i32 number, u32 operand, u32 second, [metadata of a tensor]
//   | u32 size, text of the graph (ir/printer.h)
//   | scalar steps | number inputs | pinned arguments | tensors | tensors written to
//   | made objects | effects | result
//   | u32 questions to abstract base classes, per question: u32 such a class, u32 class, u8 answer
//   | u32 functions that C code calls by name, per function: its module and path (u32 size, text), digest of
//     its code
//
// The reader trusts none of it: what is malformed is a miss.
#pragma once

#include <cstdint>

#include "driver/entry.h"
#include "py/layout.h"

namespace flashpoint {

constexpr char kEntryMagic[] = "fpen";
constexpr uint16_t kEntryVersion = 2;

enum EntryFlags : uint8_t {
  kAnyHigherRecursionLimit = 1,
  kHasStateAfter = 2,
  kHasOuterKind = 4,
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
// reaches; or something that says nothing elsewhere. A column of guard/checks.def.
enum class CheckOperands : uint8_t {
  kNumber,
  kValues,
  kType,
  kItself,
  kFunction,
  kTensor,
  kPlainCall,
  kLocal
};

// The builtin types under instances that replay makes.
inline PyTypeObject* const* instance_bases() {
  static PyTypeObject* const bases[] = {&PyBaseObject_Type, &PyDict_Type,       &PyODict_Type, &PyList_Type,
                                        &PyTuple_Type,      &_PyNamespace_Type, nullptr};
  return bases;
}

constexpr uint32_t kMaxNamedFunctions = 4096;

struct EntryAccess {
  static std::vector<MadeObject>& recipes(Entry& entry) { return entry.recipes_; }
  static std::vector<PlannedEffect>& effects(Entry& entry) { return entry.effects_; }
  static RecipeValue& result(Entry& entry) { return entry.result_; }
};

}  // namespace flashpoint
