// Objects whose death the program would notice: those with finalizers or weak references, guards of torch's
// regions, generators that have something to do when they are closed.
//
// A recording keeps its arguments alive, and a snapshot leaves out the locals that nothing reads any more.
// Both would be seen where the frames are all that such an object lives for, directly or by way of
// containers.
//
// GIL: required. Runs no Python code.
#pragma once

#include <Python.h>

#include <vector>

namespace flashpoint {

// Whether something may die while a recording keeps it alive, or at once without the references that frames
// hold. kept: what the recording would keep, null for none. safe: generators that run, and whose owner sees
// to their end. Bound methods __exit__ are on their way to being called: what they hold is not looked at.
bool dies_visibly(const std::vector<PyObject*>& kept, const std::vector<PyObject*>& references,
                  const std::vector<PyObject*>& safe);

}  // namespace flashpoint
