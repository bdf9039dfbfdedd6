#include "backend/native/layout.h"

#include <algorithm>
#include <numeric>
#include <vector>

namespace flashpoint::native {

int64_t numel(const ir::Dims& shape) {
  return std::accumulate(shape.begin(), shape.end(), int64_t{1}, std::multiplies<>());
}

const ir::TensorMeta& meta_of(const ir::Value& value) {
  static const auto number = [](c10::ScalarType dtype) {
    ir::TensorMeta meta;
    meta.dtype = dtype;
    return meta;
  };
  static const ir::TensorMeta real = number(c10::ScalarType::Double);
  static const ir::TensorMeta integer = number(c10::ScalarType::Long);
  switch (value.kind) {
    case ir::ValueKind::kFloat:
      return real;
    case ir::ValueKind::kInt:
      return integer;
    case ir::ValueKind::kTensor:
    case ir::ValueKind::kBool:
      break;
  }
  return value.meta;
}

std::optional<ir::Dims> strides_for(const ir::Dims& shape, const ir::Dims& strides, const ir::Dims& target) {
  ir::Dims result(target.size(), 0);
  size_t from = 0;
  size_t to = 0;
  while (to < target.size()) {
    if (target[to] == 1) {
      ++to;
      continue;
    }
    while (from < shape.size() && shape[from] == 1) ++from;
    if (from == shape.size()) return std::nullopt;
    // The smallest runs of dimensions on both sides with the same number of elements.
    size_t from_end = from + 1;
    size_t to_end = to + 1;
    int64_t have = shape[from];
    int64_t want = target[to];
    while (have != want) {
      if (have < want) {
        if (from_end == shape.size()) return std::nullopt;
        have *= shape[from_end++];
      } else {
        if (to_end == target.size()) return std::nullopt;
        want *= target[to_end++];
      }
    }
    int64_t stride = 0;  // of the innermost; the run on this side must be walked as one
    int64_t expected = 0;
    for (size_t d = from_end; d-- > from;) {
      if (shape[d] == 1) continue;
      if (expected == 0) {
        stride = strides[d];
      } else if (strides[d] != expected) {
        return std::nullopt;
      }
      expected = strides[d] * shape[d];
      if (stride == 0) expected = 0;
    }
    if (stride == 0) {  // broadcast memory: only if the whole run is
      for (size_t d = from; d < from_end; ++d) {
        if (shape[d] != 1 && strides[d] != 0) return std::nullopt;
      }
    }
    for (size_t d = to_end; d-- > to;) {
      result[d] = target[d] == 1 ? 0 : stride;
      stride *= target[d];
    }
    from = from_end;
    to = to_end;
  }
  return result;
}

bool is_dense(const ir::TensorMeta& meta) {
  std::vector<size_t> order;
  for (size_t i = 0; i < meta.sizes.size(); ++i) {
    if (meta.sizes[i] != 1) order.push_back(i);
  }
  std::sort(order.begin(), order.end(),
            [&](size_t a, size_t b) { return meta.strides[a] < meta.strides[b]; });
  int64_t expected = 1;
  for (size_t d : order) {
    if (meta.strides[d] != expected) return false;
    expected *= meta.sizes[d];
  }
  return true;
}

int64_t extent(const ir::TensorMeta& meta) {
  int64_t last = 0;
  for (size_t d = 0; d < meta.sizes.size(); ++d) {
    if (meta.sizes[d] == 0) return 0;
    last += (meta.sizes[d] - 1) * meta.strides[d];
  }
  return last + 1;
}

bool is_injective(const ir::TensorMeta& meta) {
  std::vector<size_t> order;
  for (size_t i = 0; i < meta.sizes.size(); ++i) {
    if (meta.sizes[i] != 1) order.push_back(i);
  }
  std::sort(order.begin(), order.end(),
            [&](size_t a, size_t b) { return meta.strides[a] < meta.strides[b]; });
  int64_t reach = 1;
  for (size_t d : order) {
    if (meta.strides[d] < reach) return false;
    reach += meta.strides[d] * (meta.sizes[d] - 1);
  }
  return true;
}

}  // namespace flashpoint::native
