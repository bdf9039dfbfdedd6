// What abstract base classes say of the classes of a table, as one digest.
//
// isinstance() with an abstract base class depends on what was registered in the process, in whatever order.
// An entry that was recorded with such a question holds in another process if all abstract classes it knows
// answer alike about all classes it knows and the common builtin ones, and hold registrations of the same
// names.
//
// Asking may run a class's __subclasshook__, as isinstance() does. GIL: required.
#pragma once

#include "portable/table.h"

namespace flashpoint::portable {

// False, with no error set, where a class does not answer.
bool fingerprint_abstract_classes(const Table& table, Digest* digest);

}  // namespace flashpoint::portable
