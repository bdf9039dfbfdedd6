#include "ir/graph.h"

#include <algorithm>

#include "ir/constants.h"

namespace flashpoint::ir {
namespace {

template <typename T>
uint32_t intern(std::vector<T>& table, const T& item) {
  // Tables are short and the newest entry is the likeliest match.
  for (size_t i = table.size(); i-- > 0;) {
    if (table[i] == item) return static_cast<uint32_t>(i);
  }
  table.push_back(item);
  return static_cast<uint32_t>(table.size() - 1);
}

std::string one_line(std::string_view text) {
  std::string clean;
  for (char c : text) clean.push_back(static_cast<unsigned char>(c) < 0x20 ? ' ' : c);
  const auto first = clean.find_first_not_of(' ');
  if (first == std::string::npos) return {};
  return clean.substr(first, clean.find_last_not_of(' ') - first + 1);
}

bool equal_nodes(const Graph& ga, const Node& a, const Graph& gb, const Node& b) {
  return ga.ops[a.op] == gb.ops[b.op] && ga.states[a.state] == gb.states[b.state] &&
         ga.strings[a.location] == gb.strings[b.location] &&
         ga.strings[a.callable] == gb.strings[b.callable] && a.outputs == b.outputs &&
         a.mutates == b.mutates &&
         std::equal(a.args.begin(), a.args.end(), b.args.begin(), b.args.end(), equal_args);
}

}  // namespace

Graph::Graph() : states(1), strings(1) {}

uint32_t Graph::intern_op(const Op& op) { return intern(ops, op); }

uint32_t Graph::intern_state(const NodeState& state) { return intern(states, state); }

uint32_t Graph::intern_string(std::string_view text) {
  const std::string clean = one_line(text);
  return clean.empty() ? 0 : intern(strings, clean);
}

uint32_t Graph::append_string(std::string_view text) {
  std::string clean = one_line(text);
  if (clean.empty()) return 0;
  strings.push_back(std::move(clean));
  return static_cast<uint32_t>(strings.size() - 1);
}

ValueId Graph::add_value(Value value) {
  values.push_back(std::move(value));
  return static_cast<ValueId>(values.size() - 1);
}

std::vector<ValueId> Graph::mutated_inputs() const {
  std::vector<ValueId> result;
  for (const auto& node : nodes) result.insert(result.end(), node.mutates.begin(), node.mutates.end());
  std::sort(result.begin(), result.end());
  result.erase(std::unique(result.begin(), result.end()), result.end());
  return result;
}

Dims contiguous_strides(const Dims& sizes) {
  Dims strides(sizes.size(), 1);
  for (size_t i = sizes.size(); i-- > 1;) strides[i - 1] = strides[i] * std::max<int64_t>(sizes[i], 1);
  return strides;
}

bool equal_args(const Arg& a, const Arg& b) {
  if (a.kind != b.kind) return false;
  switch (a.kind) {
    case Arg::Kind::kValue:
      return a.value == b.value;
    case Arg::Kind::kConstant:
    case Arg::Kind::kWrapped:
      return equal_constants(a.constant, b.constant);
    case Arg::Kind::kList:
      return std::equal(a.list.begin(), a.list.end(), b.list.begin(), b.list.end(), equal_args);
  }
  return false;
}

bool operator==(const Graph& a, const Graph& b) {
  if (a.name != b.name || a.inputs != b.inputs || a.outputs != b.outputs) return false;
  if (a.values.size() != b.values.size() || a.nodes.size() != b.nodes.size()) return false;
  for (size_t i = 0; i < a.values.size(); ++i) {
    const Value& x = a.values[i];
    const Value& y = b.values[i];
    if (x.kind != y.kind || x.node != y.node || !(x.meta == y.meta)) return false;
  }
  for (size_t i = 0; i < a.nodes.size(); ++i) {
    if (!equal_nodes(a, a.nodes[i], b, b.nodes[i])) return false;
  }
  return true;
}

}  // namespace flashpoint::ir
