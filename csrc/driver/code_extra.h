// What hangs on a code object: which compiled functions run it, whether it may be compiled, and entries that
// were loaded for it.
//
// A code object's extra is made when the first function of that code is compiled and dies with the code
// object. It owns loaded entries only: recordings belong to the compiled function that made them, and die
// with it. GIL: required.
#pragma once

#include <Python.h>

#include <memory>
#include <vector>

#include "driver/positions.h"

namespace flashpoint {

enum class FrameAction : uint8_t {
  kDefault,  // look for an entry, record where none fits
  kSkip,     // run eagerly
  kRunOnly,  // look for an entry, run eagerly where none fits
};

struct FrameStrategy {
  FrameAction current = FrameAction::kDefault;
  FrameAction recursive = FrameAction::kDefault;  // of compiled functions that are called meanwhile
};

struct CodeExtra {
  int number = 0;      // the first half of its entries' compile ids
  int next_entry = 0;  // the second half of the next one's
  FrameStrategy strategy;
  std::vector<std::weak_ptr<CodeState>> states;     // of living compiled functions, oldest first
  std::vector<std::shared_ptr<Entry>> precompiled;  // looked up first
  void join(const std::shared_ptr<CodeState>& state);
  // Drops those that have died.
  std::vector<std::shared_ptr<CodeState>> living();
  // Gives entries that have none a compile id.
  void number_entries(CodeState& state);
};

// Borrowed from the code object. Null where there is none and `create` is false; else only with an error set.
CodeExtra* code_extra(PyObject* code, bool create);

// The code object whose frames a callable's calls are: for a module that of its forward(). Null for none.
Ref code_of(PyObject* function);

// The strategy that calls further out have set for the calls that they make, on this thread.
FrameAction& inherited_action();

class ActionScope {
 public:
  explicit ActionScope(FrameAction action) : saved_(inherited_action()) { inherited_action() = action; }
  ~ActionScope() { inherited_action() = saved_; }
  ActionScope(const ActionScope&) = delete;
  ActionScope& operator=(const ActionScope&) = delete;

 private:
  FrameAction saved_;
};

}  // namespace flashpoint
