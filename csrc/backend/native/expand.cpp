// To add an operator: a row in kRows, if its CPU kernel is a loop over the operator on one tensor.
#include "backend/native/expand.h"

#include <ATen/core/jit_type.h>

#include <algorithm>
#include <optional>
#include <string_view>

#include "ir/schema.h"

namespace flashpoint::native {
namespace {

constexpr std::string_view kPrefix = "aten::_foreach_";

struct Row {
  std::string_view name;      // behind the prefix, without the underscore of operators that work in place
  std::string_view overload;  // of the operator on lists
  std::string_view single;    // overload of the operator on one tensor
};

constexpr Row kRows[] = {
    {"add", "Scalar", "Scalar"},
    {"add", "List", "Tensor"},
    {"add", "ScalarList", "Scalar"},
    {"add", "Tensor", "Tensor"},
    {"sub", "Scalar", "Scalar"},
    {"sub", "List", "Tensor"},
    {"sub", "ScalarList", "Scalar"},
    {"mul", "Scalar", "Scalar"},
    {"mul", "List", "Tensor"},
    {"mul", "ScalarList", "Scalar"},
    {"mul", "Tensor", "Tensor"},
    {"div", "Scalar", "Scalar"},
    {"div", "List", "Tensor"},
    {"div", "ScalarList", "Scalar"},
    {"div", "Tensor", "Tensor"},
    {"addcmul", "Scalar", ""},
    {"addcmul", "ScalarList", ""},
    {"addcdiv", "Scalar", ""},
    {"addcdiv", "ScalarList", ""},
    {"lerp", "List", "Tensor"},
    {"lerp", "Scalar", "Scalar"},
    {"lerp", "ScalarList", "Scalar"},
    {"maximum", "List", ""},
    {"minimum", "List", ""},
    {"sqrt", "", ""},
    {"neg", "", ""},
    {"abs", "", ""},
    {"exp", "", ""},
    {"reciprocal", "", ""},
    {"rsqrt", "", ""},
    {"sigmoid", "", ""},
    {"tanh", "", ""},
    {"copy", "", ""},
    {"zero", "", ""},
};

std::optional<ir::Op> single_of(const ir::Op& op) {
  if (!op.name.starts_with(kPrefix)) return std::nullopt;
  std::string_view name = std::string_view(op.name).substr(kPrefix.size());
  const bool in_place = name.ends_with('_');
  if (in_place) name.remove_suffix(1);
  for (const Row& row : kRows) {
    if (row.name != name || row.overload != op.overload) continue;
    ir::Op single{"aten::" + std::string(name) + (in_place ? "_" : ""), std::string(row.single)};
    return ir::find_schema(single) == nullptr ? std::nullopt : std::optional(single);
  }
  return std::nullopt;
}

// The elements of a list argument; none if it is no list, or one that cannot be taken apart.
std::optional<std::vector<ir::Arg>> elements(const ir::Arg& arg) {
  if (arg.kind == ir::Arg::Kind::kList) return arg.list;
  if (arg.kind != ir::Arg::Kind::kConstant) return std::nullopt;
  std::vector<ir::Arg> result;
  const c10::IValue& list = arg.constant;
  if (list.isDoubleList()) {
    for (double number : list.toDoubleVector()) result.push_back(ir::Arg::of_constant(number));
  } else if (list.isIntList()) {
    for (int64_t number : list.toIntVector()) result.push_back(ir::Arg::of_constant(number));
  } else if (list.isList()) {
    for (const c10::IValue& item : list.toListRef()) result.push_back(ir::Arg::of_constant(item));
  } else {
    return std::nullopt;
  }
  return result;
}

bool is_list_type(const c10::Argument& argument) {
  return argument.real_type()->kind() == c10::TypeKind::ListType;
}

// The nodes in place of one; none if it stays. Their values are those of the graph; outputs are still to be
// made.
std::optional<std::vector<ir::Node>> taken_apart(const ir::Graph& graph, const ir::Node& node,
                                                 const ir::Op& single) {
  const c10::FunctionSchema& schema = *ir::find_schema(graph.ops[node.op]);
  const c10::FunctionSchema& target = *ir::find_schema(single);
  const auto own = elements(node.args[0]);
  if (!own || own->empty() || target.arguments().size() < node.args.size()) return std::nullopt;
  const bool history = graph.states[node.state].grad && !graph.states[node.state].base;
  for (const ir::Arg& arg : node.args) {
    bool needed = false;
    ir::for_each_value(arg, [&](ir::ValueId id) {
      needed = needed || graph.values[static_cast<size_t>(id)].meta.requires_grad;
    });
    if (history && needed) return std::nullopt;
  }
  std::vector<ir::ValueId> written;
  for (const ir::Arg& arg : *own) {
    if (arg.kind != ir::Arg::Kind::kValue) return std::nullopt;
    written.push_back(arg.value);
  }
  std::sort(written.begin(), written.end());
  // Each writes its own input, unless the inputs are seen through views or more than once.
  const bool each_its_own =
      std::equal(written.begin(), written.end(), node.mutates.begin(), node.mutates.end());
  std::vector<ir::Node> nodes(own->size());
  for (size_t i = 0; i < nodes.size(); ++i) {
    nodes[i].state = node.state;
    nodes[i].location = node.location;
    nodes[i].mutates = node.mutates;
    if (each_its_own) nodes[i].mutates = {(*own)[i].value};
  }
  for (size_t a = 0; a < target.arguments().size(); ++a) {
    if (a >= node.args.size()) {
      const auto& given = target.arguments()[a].default_value();
      if (!given) return std::nullopt;
      for (ir::Node& one : nodes) one.args.push_back(ir::Arg::of_constant(*given));
      continue;
    }
    if (!is_list_type(schema.arguments()[a])) {
      for (ir::Node& one : nodes) one.args.push_back(node.args[a]);
      continue;
    }
    const auto list = elements(node.args[a]);
    if (!list || list->size() != nodes.size()) return std::nullopt;
    for (size_t i = 0; i < nodes.size(); ++i) nodes[i].args.push_back((*list)[i]);
  }
  return nodes;
}

}  // namespace

ir::Graph without_foreach(const ir::Graph& graph) {
  std::vector<std::optional<ir::Op>> singles;
  for (const ir::Op& op : graph.ops) singles.push_back(single_of(op));
  if (std::none_of(singles.begin(), singles.end(), [](const auto& single) { return single.has_value(); })) {
    return graph;
  }
  ir::Graph out = graph;
  out.nodes.clear();
  out.values.clear();
  std::vector<ir::ValueId> renamed(graph.values.size(), ir::kNoValue);
  const auto define = [&](ir::ValueId old) {
    ir::Value value = graph.values[static_cast<size_t>(old)];
    if (value.node != ir::kNoNode) value.node = static_cast<int32_t>(out.nodes.size());
    return renamed[static_cast<size_t>(old)] = out.add_value(std::move(value));
  };
  const auto rename = [&](ir::ValueId& id) { id = renamed[static_cast<size_t>(id)]; };
  for (ir::Input& input : out.inputs) input.value = define(input.value);
  for (const ir::Node& node : graph.nodes) {
    std::optional<std::vector<ir::Node>> parts;
    if (singles[node.op]) parts = taken_apart(graph, node, *singles[node.op]);
    if (!parts) {
      ir::Node copy = node;
      for (ir::Arg& arg : copy.args) ir::for_each_value(arg, rename);
      for (ir::ValueId& id : copy.mutates) rename(id);
      for (ir::Output& output : copy.outputs) {
        const auto first = static_cast<ir::ValueId>(out.values.size());
        for (int32_t k = 0; k < output.count; ++k) define(output.first + k);
        output.first = first;
      }
      out.nodes.push_back(std::move(copy));
      continue;
    }
    const uint32_t op = out.intern_op(*singles[node.op]);
    for (size_t i = 0; i < parts->size(); ++i) {
      ir::Node part = std::move((*parts)[i]);
      part.op = op;
      ir::ValueId result;
      if (node.outputs.empty()) {  // in place: the single operator returns what it wrote to
        ir::Value value;
        value.meta = graph.values[static_cast<size_t>(part.args[0].value)].meta;
        value.node = static_cast<int32_t>(out.nodes.size());
        result = out.add_value(std::move(value));
      } else {
        result = define(node.outputs[0].first + static_cast<int32_t>(i));
      }
      for (ir::Arg& arg : part.args) ir::for_each_value(arg, rename);
      for (ir::ValueId& id : part.mutates) rename(id);
      part.outputs.push_back({false, result, 1});
      out.nodes.push_back(std::move(part));
    }
  }
  for (ir::ValueId& id : out.outputs) rename(id);
  return out;
}

}  // namespace flashpoint::native
