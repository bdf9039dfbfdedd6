// Which local variables an instruction and those that can follow it still read.
//
// A local that is written before it is read again is no part of what a frame needs to go on. Cells, free
// variables and the value stack always are. Code that can see all its locals at once (`locals()`, `eval`,
// `exec`, `vars`, `dir`, frames) keeps them all.
#pragma once

#include <Python.h>

#include <vector>

namespace flashpoint {

// One flag per slot of localsplus: whether it is live where the instruction at `position` is about to run.
// Computed once per code object and kept.
const std::vector<bool>& live_locals(PyCodeObject* code, int position);

bool sees_all_locals(PyCodeObject* code);

// Whether the instruction (a byte offset) is a jump of which one side only raises: an `assert` and its like.
bool is_assertion(PyCodeObject* code, int instruction);

// Whether the code goes on somewhere when the instruction (a byte offset) raises.
bool has_handler(PyCodeObject* code, int instruction);

}  // namespace flashpoint
