// What TorchDynamo was told about single functions: disallow_in_graph, allow_in_graph, nonstrict_trace. It
// keeps their addresses in sets, which are read from here so that its module need not be imported.
// flashpoint.allow_in_graph leaves a mark on the function itself. GIL: required.
#pragma once

#include <Python.h>

#include "record/observer.h"

namespace flashpoint {

// A call of it is a graph break.
bool is_disallowed_in_graph(PyObject* callable);
// The frame or one of its callers belongs to a function that is to be in the graph whatever it does.
bool is_allowed_in_graph(const EvalFrame& frame);

}  // namespace flashpoint
