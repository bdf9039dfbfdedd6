#include "record/scope.h"

namespace flashpoint {
namespace {

thread_local int64_t scope_id = 1;

}  // namespace

int64_t current_scope_id() { return scope_id; }

Scope::Scope() { ++scope_id; }
Scope::~Scope() { --scope_id; }

}  // namespace flashpoint
