// Constants of the IR: equality, printing and parsing, exact in both directions.
//
// Floats print as the shortest text that reads back to the same bits, always with a point, an exponent,
// `inf` or `nan`; so `1` is an int and `1.0` a float. torch passes dtypes, layouts and memory formats as
// ints: the schema's type says which name to print, and since the names are distinct the parser needs no
// schema for them. A tensor literal carries its elements: `tensor(i64[2] cpu, [1, 2])`.
//
// Threads: pure functions; no GIL needed.
#pragma once

#include <ATen/core/ivalue.h>
#include <ATen/core/jit_type_base.h>
#include <c10/core/Device.h>

#include <optional>
#include <string>
#include <string_view>

namespace flashpoint::ir {

// Floats by bits (every nan equals every nan), lists by element, tensors by metadata and data.
bool equal_constants(const c10::IValue& a, const c10::IValue& b);

// Whether the IR can hold this constant: print_constant and the parser know it.
bool is_representable(const c10::IValue& constant);

void print_float(std::string& out, double value);
void print_string(std::string& out, std::string_view text);
// `type` is the schema's real type of the argument, or null.
void print_constant(std::string& out, const c10::IValue& constant, const c10::Type* type);

const char* dtype_name(c10::ScalarType dtype);  // null when the table has no row
const char* layout_name(c10::Layout layout);
std::string device_name(c10::Device device);
const char* device_type_name(c10::DeviceType type);

std::optional<c10::ScalarType> dtype_of(std::string_view name);
std::optional<c10::Layout> layout_of(std::string_view name);
std::optional<c10::MemoryFormat> memory_format_of(std::string_view name);
std::optional<c10::DeviceType> device_type_of(std::string_view name);

}  // namespace flashpoint::ir
