// CPython's own headers, opened in one place: everything that needs a private struct includes this file.
//
// The layouts are those of the interpreter the extension is built for (3.11: 3.11.0 to the last patch
// release share them). Only what libpython exports may be called; private inline functions that call
// unexported ones (_PyFrame_GetFrameObject is one) must not be used.
//
// Must be included before any other header that includes Python.h without Py_BUILD_CORE.
#pragma once

#ifndef Py_BUILD_CORE
#define Py_BUILD_CORE 1
#endif
#include <Python.h>

#if PY_VERSION_HEX < 0x030b0000 || PY_VERSION_HEX >= 0x030c0000
#error "flashpoint's evaluator knows the frames of CPython 3.11 only"
#endif

// <stdatomic.h> is C; without it pycore_atomic.h falls back to compiler builtins of the same layout.
#undef HAVE_STD_ATOMIC
#include <internal/pycore_ceval.h>
#include <internal/pycore_code.h>
#include <internal/pycore_frame.h>
#include <internal/pycore_function.h>
#include <internal/pycore_genobject.h>
#include <internal/pycore_interp.h>
#include <internal/pycore_object.h>
#include <internal/pycore_pyerrors.h>
#include <internal/pycore_pystate.h>
#include <internal/pycore_runtime.h>

#include <frameobject.h>
#include <opcode.h>
