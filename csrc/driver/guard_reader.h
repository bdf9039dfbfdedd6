// Reads the guards of a stored entry (driver/entry_format.h) by following them through the call at hand.
//
// What a guard reaches is compared with what was recorded of it, and takes its place. A step or check that
// takes a type for granted is only read behind a guard that pins the type.
//
// Callers: entry_reader.cpp. GIL: required.
#pragma once

#include <Python.h>

#include <string>
#include <vector>

#include "driver/position_key.h"
#include "guard/global_state.h"
#include "guard/guard_tree.h"
#include "portable/table.h"
#include "py/exception_state.h"
#include "store/bytes.h"

namespace flashpoint {

enum class ReadOutcome : uint8_t {
  kRead,
  kOtherCall,  // its guards do not hold for this call; they may for another
  kChanged,    // what it was recorded from is otherwise now; `why` says what
  kMalformed,
  kRaised,  // the Python backend that its graph is for; the error is set
};

struct StoredCall {
  PyObject* function;  // null at a position
  PyObject* const* args;
  size_t nargs;  // by position
  PyObject* kwnames;
  const GlobalState& now;
  const OuterHandling& outer;
  const std::vector<PositionFrame>* frames =
      nullptr;  // of the position, where it is none of a function's start
  size_t count() const {
    return nargs + (kwnames == nullptr ? 0 : static_cast<size_t>(PyTuple_GET_SIZE(kwnames)));
  }
};

// How reading ended; the first reason counts.
struct ReadVerdict {
  ReadOutcome outcome = ReadOutcome::kRead;
  std::string why;

  std::nullptr_t end(ReadOutcome how, std::string text);
  // Null with an outcome where there must be an object and is none.
  PyObject* object(portable::Table& table, portable::ValueRef ref, const char* what);
};

// Instead of names: how the guard before a node makes sure that its type stays what it is now.
struct Reached {
  bool fixed = false;     // its type, or itself, is guarded
  bool tensor = false;    // it is a tensor of guarded metadata
  bool function = false;  // it is a function whose code is guarded
};

class GuardReader {
 public:
  GuardReader(const StoredCall& call, portable::Table& table, GuardTree& tree, ReadVerdict& verdict)
      : call_(call), table_(table), tree_(tree), verdict_(verdict) {}

  // False with an outcome.
  bool read(store::Reader& in);
  const Reached& reached(NodeId node) const { return reached_[static_cast<size_t>(node)]; }

 private:
  std::nullptr_t malformed(const char* what) { return verdict_.end(ReadOutcome::kMalformed, what); }
  std::nullptr_t other_call(std::string what) {
    return verdict_.end(ReadOutcome::kOtherCall, std::move(what));
  }
  std::nullptr_t changed() { return verdict_.end(ReadOutcome::kChanged, table_.why()); }
  bool bad(const char* what) { return malformed(what) != nullptr; }
  PyObject* object(portable::ValueRef ref, const char* what) { return verdict_.object(table_, ref, what); }

  bool read_node(store::Reader& in, NodeId id);
  void bind_operator(NodeId dict, PyObject* name) const;
  bool may_step(Step step, NodeId parent, PyObject* key) const;
  bool read_check(store::Reader& in, NodeId id, PyObject* value);
  bool add(NodeId id, CheckKind kind, int32_t number, Ref operand, Ref second, PyObject* value);
  bool read_function_state(NodeId id, PyObject* value, int32_t number, portable::ValueRef code,
                           portable::ValueRef globals);
  bool may_check(CheckKind kind, NodeId id, PyObject* v, int32_t number, PyObject* operand,
                 PyObject* second) const;

  const StoredCall& call_;
  portable::Table& table_;
  GuardTree& tree_;
  ReadVerdict& verdict_;
  std::vector<Reached> reached_;
};

}  // namespace flashpoint
