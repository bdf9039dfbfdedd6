// Kernel to LLVM IR with explicit vectors. No optimization passes run afterwards, so what should happen once
// per row or once per kernel is placed there here.
//
// One of the few headers that include LLVM's: used by emit*.cpp and jit.cpp only.
#pragma once

#include <llvm/IR/IRBuilder.h>
#include <llvm/IR/Module.h>

#include <string>

#include "backend/native/kernel.h"

namespace flashpoint::native {

struct EmitTarget {
  int vector_bytes = 64;  // of one register
};

// Adds `void name(ptr args, i64 begin, i64 end)` to the module.
void emit_kernel(llvm::Module& module, const Kernel& kernel, const std::string& name,
                 const EmitTarget& target);

// Types and primitive operations, for `lanes` elements at once (1: scalars). Half types live in registers as
// floats that are exact in them; bool is i1.
class PrimEmitter {
 public:
  PrimEmitter(llvm::IRBuilder<>& builder, llvm::Module& module, int vector_bytes)
      : b_(builder), module_(module), vector_bytes_(vector_bytes) {}

  llvm::Type* memory_type(c10::ScalarType dtype) const;
  llvm::Type* register_type(c10::ScalarType dtype) const;
  llvm::Type* widen(llvm::Type* scalar, int lanes) const;
  llvm::Value* number(const Number& number, c10::ScalarType dtype, int lanes) const;
  // Memory form to register form and back.
  llvm::Value* after_load(llvm::Value* value, c10::ScalarType dtype);
  llvm::Value* before_store(llvm::Value* value, c10::ScalarType dtype);

  llvm::Value* cast(llvm::Value* value, c10::ScalarType from, c10::ScalarType to);
  // What has no inline code becomes a call of Sleef's function ("Sleef_expf16_u10") or the C library's.
  // `dtype` is that of the operands (of the second for where).
  llvm::Value* apply(Prim prim, c10::ScalarType dtype, llvm::ArrayRef<llvm::Value*> operands);

  // Reductions: the neutral element, one step, and all lanes into one scalar.
  llvm::Value* neutral(Prim prim, c10::ScalarType dtype, int lanes);
  llvm::Value* combine(Prim prim, c10::ScalarType dtype, llvm::Value* a, llvm::Value* b);
  llvm::Value* reduce_lanes(Prim prim, c10::ScalarType dtype, llvm::Value* vector);

 private:
  llvm::Value* unary(Prim prim, llvm::Value* x, bool is_float);
  // bounded: of an argument between -80 and 80, or NaN.
  llvm::Value* exp_float(llvm::Value* x, bool bounded = false);
  llvm::Value* tanh_float(llvm::Value* x);
  llvm::Value* erf_float(llvm::Value* x);
  llvm::Value* round_to_bfloat(llvm::Value* value);
  llvm::Value* round_to_half(llvm::Value* value);
  llvm::Value* library_call(Prim prim, llvm::ArrayRef<llvm::Value*> operands);
  llvm::Value* real(llvm::Type* like, double value) const;
  llvm::Value* integer(llvm::Type* like, int64_t value) const;
  llvm::Value* fma(llvm::Value* a, llvm::Value* b, llvm::Value* c);
  llvm::Type* same_shape(llvm::Type* scalar, llvm::Type* like) const;

  llvm::IRBuilder<>& b_;
  llvm::Module& module_;
  int vector_bytes_;
};

}  // namespace flashpoint::native
