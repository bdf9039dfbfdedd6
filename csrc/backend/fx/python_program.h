// The program of a graph that a Python backend compiled: hands the graph's inputs to the backend's callable.
//
// The callable takes the inputs in order, as the very tensor objects the program uses (parameters stay
// parameters), and returns a tuple or list with one tensor for each output. It runs under the caller's grad
// mode. Whatever it raises is the call's error: what it has done before is not known, so the call is never
// run again eagerly.
//
// Ownership: the callable is kept by the Entry that owns the program. GIL: taken by run().
#pragma once

#include <Python.h>

#include <memory>

#include "backend/program.h"
#include "ir/graph.h"

namespace flashpoint::fx {

// Whether the backend still works on it in another thread (flashpoint/fx/background.py).
bool compiles_later(PyObject* callable);
// meanwhile: what runs until it is done; null where the callable is there.
std::unique_ptr<GraphProgram> make_program(const ir::Graph& graph, PyObject* callable,
                                           std::unique_ptr<GraphProgram> meanwhile);

}  // namespace flashpoint::fx
