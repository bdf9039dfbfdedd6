// A graph as plain Python values, from which flashpoint/fx makes a torch.fx graph.
//
//   {"name": str,
//    "values": [(sizes, strides, dtype, device, layout, requires_grad) or None for an undefined tensor],
//    "inputs": [value], "outputs": [value],
//    "nodes": [(operator, overload, arguments, outputs, state, location, callable, mutated values)],
//    "states": [(grad, inference, autocast cache, [(device type, dtype)], flags or None)]}
//
// An argument is ("%", value), ("=", constant), ("#", a number in a tensor's place) or ("[", [arguments]). An
// output is a value, or the list of them where the operator returns a list. Dtypes, layouts and memory
// formats are torch's objects.
//
// GIL: required.
#pragma once

#include <Python.h>

#include "ir/graph.h"

namespace flashpoint::fx {

// A new dict, or null with a Python error set.
PyObject* export_graph(const ir::Graph& graph);

}  // namespace flashpoint::fx
