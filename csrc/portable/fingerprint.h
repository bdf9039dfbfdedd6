// What makes a code object or a class the same one in another process: digests that hold neither addresses
// nor hashes nor positions in a file.
//
// A code object's covers all that decides what running it does: bytecode, constants (nested code included),
// names, arguments, flags, exception table. A class's covers what guards take for granted once they know the
// class: the layout of its instances, the kind of its slots, and which special methods it defines itself.
// What its attributes hold is not in it: reads of those are guarded one by one.
//
// GIL: required. Digests of code objects are remembered on them.
#pragma once

#include <Python.h>

#include "store/sha256.h"

namespace flashpoint::portable {

using store::Digest;

// False, with no error set, where a constant has no portable form.
bool fingerprint_code(PyObject* code, Digest* digest);
Digest fingerprint_type(PyTypeObject* type);

}  // namespace flashpoint::portable
