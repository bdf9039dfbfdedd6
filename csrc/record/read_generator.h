// Which generators a recording must not keep alive. GIL: required.
#pragma once

#include <Python.h>

#include "record/observer.h"

namespace flashpoint {

// The generator has something to do when it is closed, and the program may let go of what owns it. frame: the
// innermost one, or null.
bool is_closed_by_owner(PyObject* generator, const EvalFrame* frame);

}  // namespace flashpoint
