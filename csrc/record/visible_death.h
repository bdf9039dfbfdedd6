// Objects whose death the program would notice: those with finalizers or weak references, guards of torch's
// regions, generators that are suspended where closing them runs something.
//
// A recording keeps its arguments alive, a replay commits its effects before the frames let go of anything,
// and a snapshot leaves out the locals that nothing reads any more. Each would show where such an object
// lives for the frames alone, directly or by way of what they alone hold.
//
// GIL: required. Runs no Python code.
#pragma once

#include <Python.h>

#include <vector>

namespace flashpoint {

// Whether something lives for these references alone whose death would be noticed. references: one element
// for each that is held; too many of one object only make the answer more careful.
bool dies_visibly(const std::vector<PyObject*>& references);

// Whether the death of a class's instance with weak references, or of a class that a function made, may be
// noticed, whoever else refers to it: who does cannot be told where it is part of a cycle.
bool is_watched_instance(PyObject* object);

// Whether something that the object holds on to, itself included, would be noticed to die. Who else holds it
// is not asked. An object that reaches a lot counts as one that does.
bool holds_visible(PyObject* object);

// Whether something lives for the local variables of a frame that has ended (a frame object) whose death
// would be noticed.
bool ends_visibly(PyObject* frame);

// Whether an object that the program has just made must not get into one that a recording keeps alive.
bool is_fresh_and_noticed(PyObject* object);

// Whether taking the object out of a container may let something die that would be noticed. is_held: a
// recording has a reference to it as well.
bool is_visibly_dropped(PyObject* object, bool is_held);

}  // namespace flashpoint
