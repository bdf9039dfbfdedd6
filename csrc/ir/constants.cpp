#include "ir/constants.h"

#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/jit_type.h>
#include <c10/core/MemoryFormat.h>

#include <bit>
#include <charconv>
#include <cmath>
#include <cstring>

#include "base/check.h"
#include "ir/tensor_literal.h"

namespace flashpoint::ir {
namespace {

bool equal_doubles(double a, double b) {
  return (std::isnan(a) && std::isnan(b)) || std::bit_cast<uint64_t>(a) == std::bit_cast<uint64_t>(b);
}

template <typename T>
void print_int(std::string& out, T value) {
  out += std::to_string(value);
}

const char* memory_format_name(c10::MemoryFormat format) {
#define FP_MEMORY_FORMAT(torch_name, name) \
  if (format == c10::MemoryFormat::torch_name) return #name;
#include "ir/names.def"
  return nullptr;
}

// The enum name for an int argument whose schema type is an enum of torch's; null for a plain int.
const char* enum_name(int64_t value, const c10::Type* type) {
  if (type == nullptr) return nullptr;
  if (auto* optional = type->castRaw<c10::OptionalType>())
    return enum_name(value, optional->getElementType().get());
  switch (type->kind()) {
    case c10::TypeKind::ScalarTypeType:
      return dtype_name(static_cast<c10::ScalarType>(value));
    case c10::TypeKind::LayoutType:
      return layout_name(static_cast<c10::Layout>(value));
    case c10::TypeKind::MemoryFormatType:
      return memory_format_name(static_cast<c10::MemoryFormat>(value));
    default:
      return nullptr;
  }
}

template <typename List, typename Print>
void print_list(std::string& out, const List& list, Print&& print) {
  out += '[';
  bool first = true;
  for (auto&& item : list) {
    if (!first) out += ", ";
    first = false;
    print(item);
  }
  out += ']';
}

}  // namespace

const char* dtype_name(c10::ScalarType dtype) {
#define FP_DTYPE(torch_name, name) \
  if (dtype == c10::ScalarType::torch_name) return #name;
#include "ir/names.def"
  return nullptr;
}

const char* layout_name(c10::Layout layout) {
#define FP_LAYOUT(torch_name, name) \
  if (layout == c10::Layout::torch_name) return #name;
#include "ir/names.def"
  return nullptr;
}

const char* device_type_name(c10::DeviceType type) {
#define FP_DEVICE(torch_name, name) \
  if (type == c10::DeviceType::torch_name) return #name;
#include "ir/names.def"
  return nullptr;
}

std::string device_name(c10::Device device) {
  const char* type = device_type_name(device.type());
  std::string text = type != nullptr ? type : "unknown";
  if (device.has_index()) text += ":" + std::to_string(static_cast<int>(device.index()));
  return text;
}

std::optional<c10::ScalarType> dtype_of(std::string_view text) {
#define FP_DTYPE(torch_name, name) \
  if (text == #name) return c10::ScalarType::torch_name;
#include "ir/names.def"
  return std::nullopt;
}

std::optional<c10::Layout> layout_of(std::string_view text) {
#define FP_LAYOUT(torch_name, name) \
  if (text == #name) return c10::Layout::torch_name;
#include "ir/names.def"
  return std::nullopt;
}

std::optional<c10::MemoryFormat> memory_format_of(std::string_view text) {
#define FP_MEMORY_FORMAT(torch_name, name) \
  if (text == #name) return c10::MemoryFormat::torch_name;
#include "ir/names.def"
  return std::nullopt;
}

std::optional<c10::DeviceType> device_type_of(std::string_view text) {
#define FP_DEVICE(torch_name, name) \
  if (text == #name) return c10::DeviceType::torch_name;
#include "ir/names.def"
  return std::nullopt;
}

bool equal_constants(const c10::IValue& a, const c10::IValue& b) {
  if (a.isTensor() && b.isTensor()) return equal_literals(a.toTensor(), b.toTensor());
  if (a.isDouble() && b.isDouble()) return equal_doubles(a.toDouble(), b.toDouble());
  if (a.isComplexDouble() && b.isComplexDouble()) {
    const auto x = a.toComplexDouble();
    const auto y = b.toComplexDouble();
    return equal_doubles(x.real(), y.real()) && equal_doubles(x.imag(), y.imag());
  }
  if (a.isDoubleList() && b.isDoubleList()) {
    const auto x = a.toDoubleVector();
    const auto y = b.toDoubleVector();
    return std::equal(x.begin(), x.end(), y.begin(), y.end(), equal_doubles);
  }
  if (a.isInt() && b.isInt()) return a.toInt() == b.toInt();
  if (a.isBool() && b.isBool()) return a.toBool() == b.toBool();
  if (a.isNone() || b.isNone()) return a.isNone() && b.isNone();
  if (a.isString() && b.isString()) return a.toStringRef() == b.toStringRef();
  if (a.isDevice() && b.isDevice()) return a.toDevice() == b.toDevice();
  if (a.isIntList() && b.isIntList()) return a.toIntVector() == b.toIntVector();
  if (a.isBoolList() && b.isBoolList()) return a.toBoolList().vec() == b.toBoolList().vec();
  if (a.isGenerator() && b.isGenerator()) return a.toGenerator() == b.toGenerator();
  return false;
}

bool is_representable(const c10::IValue& c) {
  return c.isInt() || c.isDouble() || c.isBool() || c.isNone() || c.isString() || c.isDevice() ||
         c.isIntList() || c.isDoubleList() || c.isBoolList() || c.isComplexDouble() || c.isGenerator() ||
         c.isTensor();
}

void print_float(std::string& out, double value) {
  if (std::isnan(value)) {
    out += "nan";
    return;
  }
  if (std::isinf(value)) {
    out += value < 0 ? "-inf" : "inf";
    return;
  }
  char buffer[40];
  const auto end = std::to_chars(buffer, buffer + sizeof buffer, value).ptr;
  const std::string_view text(buffer, static_cast<size_t>(end - buffer));
  out += text;
  if (text.find_first_of(".e") == std::string_view::npos) out += ".0";
}

void print_string(std::string& out, std::string_view text) {
  static const char* const kHex = "0123456789abcdef";
  out += '"';
  for (char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (byte < 0x20 || byte == 0x7f) {
      out += "\\x";
      out += kHex[byte >> 4];
      out += kHex[byte & 15];
    } else {
      out += c;
    }
  }
  out += '"';
}

void print_constant(std::string& out, const c10::IValue& c, const c10::Type* type) {
  if (c.isNone()) {
    out += "None";
  } else if (c.isInt()) {
    const char* name = enum_name(c.toInt(), type);
    if (name != nullptr) {
      out += name;
    } else {
      print_int(out, c.toInt());
    }
  } else if (c.isDouble()) {
    print_float(out, c.toDouble());
  } else if (c.isBool()) {
    out += c.toBool() ? "true" : "false";
  } else if (c.isComplexDouble()) {
    out += "complex(";
    print_float(out, c.toComplexDouble().real());
    out += ", ";
    print_float(out, c.toComplexDouble().imag());
    out += ')';
  } else if (c.isString()) {
    print_string(out, c.toStringRef());
  } else if (c.isDevice()) {
    out += device_name(c.toDevice());
  } else if (c.isIntList()) {
    print_list(out, c.toIntVector(), [&](int64_t v) { print_int(out, v); });
  } else if (c.isDoubleList()) {
    print_list(out, c.toDoubleVector(), [&](double v) { print_float(out, v); });
  } else if (c.isBoolList()) {
    print_list(out, c.toBoolList().vec(), [&](bool v) { out += v ? "true" : "false"; });
  } else if (c.isGenerator()) {
    out += "default_generator";
  } else if (c.isTensor()) {
    print_literal(out, c.toTensor());
  } else {
    FP_CHECK(false, "constant of kind " + c.tagKind() + " in the IR");
  }
}

}  // namespace flashpoint::ir
