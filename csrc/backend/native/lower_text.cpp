// The text of a lowered graph, for people and tests.
#include <algorithm>

#include "backend/native/lower.h"
#include "ir/constants.h"

namespace flashpoint::native {
namespace {

void print_dims(std::string& out, const ir::Dims& dims) {
  out += '[';
  for (size_t i = 0; i < dims.size(); ++i) out += (i > 0 ? "," : "") + std::to_string(dims[i]);
  out += ']';
}

}  // namespace

std::string Lowered::text(const ir::Graph& graph) const {
  const auto time_text = [&](int32_t time) {  // the number of the call, or of the write
    for (size_t i = 0; i < writes.size(); ++i) {
      if (writes[i].time == time) return "write " + std::to_string(i);
    }
    const auto call = std::find(times.begin(), times.end(), time);
    return std::to_string(call - times.begin());
  };
  std::string out = "lowered {\n";
  size_t next_write = 0;
  const auto print_writes = [&](int32_t before) {
    for (; next_write < writes.size() && writes[next_write].time < before; ++next_write) {
      const Write& write = writes[next_write];
      out += "  write %" + std::to_string(write.root) + " ";
      print_dims(out, write.strides);
      if (write.offset != 0) out += "+" + std::to_string(write.offset);
      out += " = e" + std::to_string(write.expr);
      if (write.versions > 1) out += " for " + std::to_string(write.versions);
      out += "\n";
    }
  };
  for (size_t i = 0; i < exprs.size(); ++i) {
    const Expr& e = exprs[i];
    out += "  e" + std::to_string(i) + " = " + prim_name(e.prim);
    for (size_t k = 0; k < e.operands.size(); ++k)
      out += (k > 0 ? ", e" : " e") + std::to_string(e.operands[k]);
    if (e.prim == Prim::load || e.prim == Prim::index) {
      out += e.prim == Prim::load ? " %" + std::to_string(e.root) + " " : " ";
      print_dims(out, e.strides);
      if (e.offset != 0) out += "+" + std::to_string(e.offset);
      if (e.epoch >= 0) out += " after " + time_text(e.epoch);
    }
    if (e.prim == Prim::constant) {
      out += ' ';
      if (c10::isFloatingType(e.dtype)) {
        ir::print_float(out, e.number.real);
      } else {
        out += std::to_string(e.number.integer);
      }
    }
    if (e.reduced > 0) out += " last " + std::to_string(e.reduced);
    out += std::string(" : ") + ir::dtype_name(e.dtype);
    print_dims(out, e.shape);
    out += '\n';
  }
  for (size_t i = 0; i < nodes.size(); ++i) {
    const ir::Node& node = graph.nodes[i];
    print_writes(times[i]);
    static constexpr const char* kinds[] = {"call", "view", "lowered", "memory"};
    out += "  " + std::string(kinds[static_cast<size_t>(nodes[i])]) + " " + graph.ops[node.op].name;
    for (const ir::Output& output : node.outputs) {
      for (int32_t k = 0; k < output.count; ++k) {
        const LoweredValue& v = values[static_cast<size_t>(output.first + k)];
        out += " %" + std::to_string(output.first + k);
        if (v.expr != kNoExpr) out += "=e" + std::to_string(v.expr);
        if (v.root != ir::kNoValue && v.root != output.first + k) {
          out += "@%" + std::to_string(v.root) + "+" + std::to_string(v.offset);
        }
      }
    }
    out += '\n';
  }
  print_writes(INT32_MAX);
  return out + "}\n";
}

}  // namespace flashpoint::native
