#include "ir/index_bounds.h"

#include <string_view>

namespace flashpoint::ir {
namespace {

// Operators with arguments (self, dim, index): each index lies in dimension dim of self.
constexpr std::string_view kAlongDimension[] = {
    "aten::index_copy_",     "aten::index_copy",    "aten::index_add_",   "aten::index_add",
    "aten::index_fill_",     "aten::index_fill",    "aten::index_select", "aten::gather",
    "aten::scatter_",        "aten::scatter",       "aten::scatter_add_", "aten::scatter_add",
    "aten::scatter_reduce_", "aten::scatter_reduce"};
// Operators with arguments (self, indices), one for each of the first dimensions, None where all is taken.
constexpr std::string_view kByPosition[] = {"aten::index", "aten::index_put_", "aten::index_put",
                                            "aten::_index_put_impl_"};

// Operators that take labels of classes: which arguments are the scores, the labels, the label to be ignored.
struct LabelArguments {
  std::string_view name;
  size_t scores, labels, ignored;
};
constexpr LabelArguments kByLabel[] = {
    {"aten::cross_entropy_loss", 0, 1, 4}, {"aten::nll_loss_nd", 0, 1, 4},
    {"aten::nll_loss", 0, 1, 4},           {"aten::nll_loss2d", 0, 1, 4},
    {"aten::nll_loss_forward", 0, 1, 4},   {"aten::nll_loss2d_forward", 0, 1, 4},
    {"aten::nll_loss_backward", 1, 2, 5},  {"aten::nll_loss2d_backward", 1, 2, 5}};

template <size_t N>
bool contains(const std::string_view (&names)[N], std::string_view name) {
  for (const std::string_view known : names) {
    if (known == name) return true;
  }
  return false;
}

const TensorMeta* tensor(const Graph& graph, const Arg& arg) {
  if (arg.kind != Arg::Kind::kValue) return nullptr;
  const Value& value = graph.values[static_cast<size_t>(arg.value)];
  return value.kind == ValueKind::kTensor && value.meta.defined() ? &value.meta : nullptr;
}

bool is_integer(const TensorMeta& meta) {
  return meta.dtype == c10::ScalarType::Long || meta.dtype == c10::ScalarType::Int;
}

bool label_bounds(const Graph& graph, int32_t at, const LabelArguments& which,
                  std::vector<IndexBounds>& bounds) {
  const Node& node = graph.nodes[static_cast<size_t>(at)];
  if (node.args.size() <= which.ignored) return false;
  const TensorMeta* scores = tensor(graph, node.args[which.scores]);
  const TensorMeta* labels = tensor(graph, node.args[which.labels]);
  const Arg& ignored = node.args[which.ignored];
  if (scores == nullptr || labels == nullptr || scores->sizes.empty() || !is_integer(*labels) ||
      ignored.kind != Arg::Kind::kConstant || !ignored.constant.isInt())
    return false;
  const int64_t classes = scores->sizes[scores->sizes.size() > 1 ? 1 : 0];
  bounds.push_back({at, node.args[which.labels].value, 0, classes, ignored.constant.toInt()});
  return true;
}

}  // namespace

bool index_bounds(const Graph& graph, int32_t at, std::vector<IndexBounds>& bounds) {
  const Node& node = graph.nodes[static_cast<size_t>(at)];
  const std::string_view name = graph.ops[node.op].name;
  if (node.args.size() < 2) return false;
  for (const LabelArguments& which : kByLabel) {
    if (which.name == name) return label_bounds(graph, at, which, bounds);
  }
  const TensorMeta* self = tensor(graph, node.args[0]);
  if (self == nullptr || self->sizes.empty()) return false;
  if (name == "aten::one_hot") {
    if (!is_integer(*self) || node.args[1].kind != Arg::Kind::kConstant || !node.args[1].constant.isInt() ||
        node.args[1].constant.toInt() < 1)
      return false;
    bounds.push_back({at, node.args[0].value, 0, node.args[1].constant.toInt(), {}});
    return true;
  }
  if (name == "aten::embedding") {
    const TensorMeta* index = tensor(graph, node.args[1]);
    if (index == nullptr || !is_integer(*index)) return false;
    bounds.push_back({at, node.args[1].value, 0, self->sizes[0], {}});
    return true;
  }
  const bool swapped = name == "aten::take_along_dim";
  if (swapped || contains(kAlongDimension, name)) {
    if (node.args.size() < 3) return false;
    const Arg& along = node.args[swapped ? 2 : 1];
    const Arg& indices = node.args[swapped ? 1 : 2];
    if (along.kind != Arg::Kind::kConstant || !along.constant.isInt()) return false;
    const TensorMeta* index = tensor(graph, indices);
    const auto rank = static_cast<int64_t>(self->sizes.size());
    int64_t dim = along.constant.toInt();
    if (dim < 0) dim += rank;
    if (index == nullptr || !is_integer(*index) || dim < 0 || dim >= rank) return false;
    bounds.push_back({at, indices.value, 0, self->sizes[static_cast<size_t>(dim)], {}});
    return true;
  }
  if (!contains(kByPosition, name) || node.args[1].kind != Arg::Kind::kList) return false;
  size_t dim = 0;
  for (const Arg& element : node.args[1].list) {
    if (element.kind == Arg::Kind::kConstant && element.constant.isNone()) {
      ++dim;
      continue;
    }
    const TensorMeta* index = tensor(graph, element);
    if (index == nullptr) return false;
    if (index->dtype == c10::ScalarType::Bool) {
      dim += index->sizes.size();
      continue;
    }
    if (!is_integer(*index) || dim >= self->sizes.size()) return false;
    bounds.push_back({at, element.value, -self->sizes[dim], self->sizes[dim], {}});
    ++dim;
  }
  return true;
}

}  // namespace flashpoint::ir
