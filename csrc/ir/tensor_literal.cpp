#include "ir/tensor_literal.h"

#include <ATen/EmptyTensor.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/clone.h>
#include <ATen/ops/detach.h>
#include <c10/core/impl/LocalDispatchKeySet.h>

#include <cstring>

#include "base/check.h"
#include "ir/constants.h"
#include "ir/printer.h"

namespace flashpoint::ir {
namespace {

enum class ElementClass { kFloat, kSigned, kUnsigned, kBool, kComplex, kNone };

ElementClass class_of(c10::ScalarType dtype) {
  using c10::ScalarType;
  switch (dtype) {
    case ScalarType::Float:
    case ScalarType::Double:
    case ScalarType::Half:
    case ScalarType::BFloat16:
      return ElementClass::kFloat;
    case ScalarType::Char:
    case ScalarType::Short:
    case ScalarType::Int:
    case ScalarType::Long:
      return ElementClass::kSigned;
    case ScalarType::Byte:
    case ScalarType::UInt16:
    case ScalarType::UInt32:
    case ScalarType::UInt64:
      return ElementClass::kUnsigned;
    case ScalarType::Bool:
      return ElementClass::kBool;
    case ScalarType::ComplexFloat:
    case ScalarType::ComplexDouble:
      return ElementClass::kComplex;
    default:
      return ElementClass::kNone;
  }
}

double read_float(c10::ScalarType dtype, const void* data, int64_t i) {
  using c10::ScalarType;
  if (dtype == ScalarType::Float) return static_cast<const float*>(data)[i];
  if (dtype == ScalarType::Double) return static_cast<const double*>(data)[i];
  if (dtype == ScalarType::Half) return static_cast<float>(static_cast<const at::Half*>(data)[i]);
  if (dtype == ScalarType::BFloat16) return static_cast<float>(static_cast<const at::BFloat16*>(data)[i]);
  if (dtype == ScalarType::ComplexFloat) return static_cast<const float*>(data)[i];
  return static_cast<const double*>(data)[i];  // ComplexDouble, by parts
}

void write_float(c10::ScalarType dtype, void* data, int64_t i, double value) {
  using c10::ScalarType;
  if (dtype == ScalarType::Float || dtype == ScalarType::ComplexFloat) {
    static_cast<float*>(data)[i] = static_cast<float>(value);
  } else if (dtype == ScalarType::Half) {
    static_cast<at::Half*>(data)[i] = at::Half(static_cast<float>(value));
  } else if (dtype == ScalarType::BFloat16) {
    static_cast<at::BFloat16*>(data)[i] = at::BFloat16(static_cast<float>(value));
  } else {
    static_cast<double*>(data)[i] = value;
  }
}

// Integers of every width, little endian, as two's complement in 64 bits.
uint64_t read_integer(ElementClass kind, size_t width, const void* data, int64_t i) {
  uint64_t value = 0;
  std::memcpy(&value, static_cast<const char*>(data) + i * static_cast<int64_t>(width), width);
  if (kind == ElementClass::kSigned && width < 8) {
    const int shift = static_cast<int>(64 - 8 * width);
    value = static_cast<uint64_t>(static_cast<int64_t>(value << shift) >> shift);
  }
  return value;
}

}  // namespace

bool is_literal_type(const at::TensorBase& tensor) {
  return tensor.defined() && tensor.layout() == c10::kStrided && tensor.device().is_cpu() &&
         !tensor.is_quantized() && !tensor.unsafeGetTensorImpl()->is_python_dispatch() &&
         class_of(tensor.scalar_type()) != ElementClass::kNone;
}

at::Tensor make_literal(const at::Tensor& tensor) {
  c10::impl::ExcludeDispatchKeyGuard hidden(c10::DispatchKey::TESTING_ONLY_GenericMode);
  return at::clone(at::detach(tensor), c10::MemoryFormat::Contiguous);
}

bool equal_literals(const at::TensorBase& a, const at::TensorBase& b) {
  if (!a.defined() || !b.defined()) return a.defined() == b.defined();
  if (a.scalar_type() != b.scalar_type() || a.sizes() != b.sizes()) return false;
  std::string x;
  std::string y;
  print_literal(x, a);  // nan equals nan, and bits of padding do not matter
  print_literal(y, b);
  return x == y;
}

void print_literal(std::string& out, const at::TensorBase& literal) {
  if (!literal.defined()) {
    out += "undef";
    return;
  }
  FP_CHECK(is_literal_type(literal) && literal.is_contiguous(), "tensor cannot be printed as a literal");
  const auto dtype = literal.scalar_type();
  const auto kind = class_of(dtype);
  out += "tensor(";
  print_meta(out, meta_of(literal));
  out += ", [";
  const void* data = literal.const_data_ptr();
  const int64_t count = literal.numel() * (kind == ElementClass::kComplex ? 2 : 1);
  for (int64_t i = 0; i < count; ++i) {
    if (i > 0) out += ", ";
    switch (kind) {
      case ElementClass::kFloat:
      case ElementClass::kComplex:
        print_float(out, read_float(dtype, data, i));
        break;
      case ElementClass::kSigned:
        out += std::to_string(static_cast<int64_t>(read_integer(kind, literal.itemsize(), data, i)));
        break;
      case ElementClass::kUnsigned:
        out += std::to_string(read_integer(kind, literal.itemsize(), data, i));
        break;
      case ElementClass::kBool:
        out += static_cast<const uint8_t*>(data)[i] != 0 ? "true" : "false";
        break;
      case ElementClass::kNone:
        break;
    }
  }
  out += "])";
}

std::optional<at::Tensor> build_literal(const TensorMeta& meta, const std::vector<LiteralElement>& elements) {
  const auto kind = class_of(meta.dtype);
  if (kind == ElementClass::kNone || !meta.device.is_cpu() || meta.layout != c10::kStrided)
    return std::nullopt;
  int64_t count = 1;
  for (int64_t size : meta.sizes) count *= size;
  if (kind == ElementClass::kComplex) count *= 2;
  if (count != static_cast<int64_t>(elements.size())) return std::nullopt;
  c10::impl::ExcludeDispatchKeyGuard hidden(c10::DispatchKey::TESTING_ONLY_GenericMode);
  at::Tensor tensor = at::detail::empty_cpu(meta.sizes, meta.dtype, false, std::nullopt);
  void* data = tensor.mutable_data_ptr();
  const size_t width = tensor.itemsize();
  for (int64_t i = 0; i < count; ++i) {
    const auto& element = elements[static_cast<size_t>(i)];
    if (kind == ElementClass::kFloat || kind == ElementClass::kComplex) {
      write_float(meta.dtype, data, i, element.real);
    } else {
      std::memcpy(static_cast<char*>(data) + i * static_cast<int64_t>(width), &element.integer, width);
    }
  }
  return tensor;
}

}  // namespace flashpoint::ir
