// The tables are designated-initializer C; hidden, so that they never stand in for the interpreter's own.
#define Py_BUILD_CORE 1
#define NEED_OPCODE_TABLES 1
#include <Python.h>

#pragma GCC visibility push(hidden)
#include <internal/pycore_opcode.h>
#include "eval/opcodes_tables.h"

const uint8_t* const fp_opcode_deopt = _PyOpcode_Deopt;
const uint8_t* const fp_opcode_caches = _PyOpcode_Caches;
#pragma GCC visibility pop
