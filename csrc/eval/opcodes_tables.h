// Facts about opcodes of the interpreter we are built for. 3.11 has them only inside the interpreter, so
// opcodes_tables.c keeps a private copy made from CPython's own header.
//
// Read-only, any thread.
#pragma once

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

// The generic opcode of a specialized one (itself for a generic one, 0 for an unused number).
extern const uint8_t* const fp_opcode_deopt;
// Inline cache entries behind an opcode.
extern const uint8_t* const fp_opcode_caches;

#ifdef __cplusplus
}
#endif
