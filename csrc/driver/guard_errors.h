// What becomes of an error while guards are evaluated.
//
// Guards run no Python code, but torch's own C++ may throw (a tensor of a C++ extension that cannot say its
// sizes, for one). Then the entry does not fit, the event is counted, and the process's hook hears of it.
// GIL: required.
#pragma once

#include <Python.h>

#include <cstdint>

namespace flashpoint {

class Entry;

// Called as hook(code, compile id, what was thrown); null for none. Gives back the one before, as a new
// reference. What the hook raises is printed and goes no further.
PyObject* set_guard_error_hook(PyObject* hook);
void report_guard_error(const Entry& entry, const char* what);

// Tests: the evaluation of an entry's guards that throws, counted from now; 0 for none.
extern int64_t fail_at_guards;

}  // namespace flashpoint
