// Which nested tracer this thread is in: a number, for when the tracer itself is out of reach.
//
// Every thread starts at 1. A Scope adds one while it lives and takes one away when it goes, whatever the
// reason, so the number is right again after an exception. Scopes count, they do not restore: two that end
// out of order leave the number as it was before both.
//
// Callers: flashpoint.current_scope_id and flashpoint.enter_new_scope (module/scope.cpp). No GIL needed.
#pragma once

#include <cstdint>

namespace flashpoint {

int64_t current_scope_id();

class Scope {
 public:
  Scope();
  ~Scope();
  Scope(const Scope&) = delete;
  Scope& operator=(const Scope&) = delete;
};

}  // namespace flashpoint
