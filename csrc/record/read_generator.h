// Which generators a recording must not keep alive. GIL: required.
#pragma once

#include <Python.h>

#include "record/observer.h"

namespace flashpoint {

// The generator has something to do when it is closed, and the program may let go of what owns it. frame: the
// innermost one, or null.
bool is_closed_by_owner(PyObject* generator, const EvalFrame* frame);
// The function makes such generators. Behind a break they may get into an object that the recording keeps
// alive.
bool closes_generator(PyObject* function);
// Code of contextlib, which runs the generators it owns to their end.
bool runs_to_the_end(const EvalFrame& frame);

}  // namespace flashpoint
