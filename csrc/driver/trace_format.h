// The portable form of what is known of a graph's calls (record/call_trace.h), for Python backends:
//
//   u32 callables, per callable: u32 its row in the table (0: not known)
//   u32 frames, per frame: u32 its code (0: not known), i32 node of its first argument, i32 caller, i32 the
//     caller's instruction
//   u32 calls, per call: i32 frame, i32 instruction, i64 event, i32 callable, u8 kind, i16 detail
//
// GIL: required.
#pragma once

#include <Python.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "ir/graph.h"
#include "portable/table.h"
#include "record/call_trace.h"
#include "store/bytes.h"

namespace flashpoint {

// row_of: of a code object; 0 where it has none.
void write_trace(const KeptTrace& trace, portable::Table& table,
                 const std::function<portable::ValueRef(PyObject*)>& row_of, std::string& out);
// values: of the nodes. Null: malformed, or not that of this graph.
std::unique_ptr<KeptTrace> read_trace(store::Reader& in, portable::Table& table,
                                      const std::vector<PyObject*>& values, const ir::Graph& graph);

}  // namespace flashpoint
