#include <llvm/IR/Intrinsics.h>

#include "backend/native/emit.h"
#include "base/check.h"

namespace flashpoint::native {

using c10::ScalarType;
using llvm::Value;

namespace {

bool is_signed(ScalarType dtype) { return dtype != ScalarType::Byte && dtype != ScalarType::Bool; }

// The C library's name of a primitive, which is part of Sleef's.
const char* library_name(Prim prim) {
  switch (prim) {
    case Prim::exp:
      return "exp";
    case Prim::tanh:
      return "tanh";
    case Prim::erf:
      return "erf";
    case Prim::expm1:
      return "expm1";
    case Prim::log:
      return "log";
    case Prim::log1p:
      return "log1p";
    case Prim::log2:
      return "log2";
    case Prim::log10:
      return "log10";
    case Prim::sin:
      return "sin";
    case Prim::cos:
      return "cos";
    case Prim::tan:
      return "tan";
    case Prim::asin:
      return "asin";
    case Prim::acos:
      return "acos";
    case Prim::atan:
      return "atan";
    case Prim::sinh:
      return "sinh";
    case Prim::cosh:
      return "cosh";
    case Prim::pow:
      return "pow";
    case Prim::atan2:
      return "atan2";
    default:
      return nullptr;
  }
}

}  // namespace

llvm::Type* PrimEmitter::memory_type(ScalarType dtype) const {
  switch (dtype) {
    case ScalarType::Bool:
    case ScalarType::Byte:
    case ScalarType::Char:
      return b_.getInt8Ty();
    case ScalarType::Short:
      return b_.getInt16Ty();
    case ScalarType::Int:
      return b_.getInt32Ty();
    case ScalarType::Long:
      return b_.getInt64Ty();
    case ScalarType::BFloat16:
      return b_.getInt16Ty();
    case ScalarType::Half:
      return b_.getHalfTy();
    case ScalarType::Float:
      return b_.getFloatTy();
    case ScalarType::Double:
      return b_.getDoubleTy();
    default:
      break;
  }
  FP_CHECK(false, "dtype without code generation");
}

llvm::Type* PrimEmitter::register_type(ScalarType dtype) const {
  switch (dtype) {
    case ScalarType::Bool:
      return b_.getInt1Ty();
    case ScalarType::BFloat16:
    case ScalarType::Half:
      return b_.getFloatTy();
    default:
      return memory_type(dtype);
  }
}

llvm::Type* PrimEmitter::widen(llvm::Type* scalar, int lanes) const {
  return lanes == 1 ? scalar : llvm::FixedVectorType::get(scalar, static_cast<unsigned>(lanes));
}

llvm::Type* PrimEmitter::same_shape(llvm::Type* scalar, llvm::Type* like) const {
  const auto* vector = llvm::dyn_cast<llvm::FixedVectorType>(like);
  return vector == nullptr ? scalar : llvm::FixedVectorType::get(scalar, vector->getNumElements());
}

Value* PrimEmitter::real(llvm::Type* like, double value) const { return llvm::ConstantFP::get(like, value); }
Value* PrimEmitter::integer(llvm::Type* like, int64_t value) const {
  return llvm::ConstantInt::get(like, static_cast<uint64_t>(value), true);
}

Value* PrimEmitter::number(const Number& number, ScalarType dtype, int lanes) const {
  llvm::Type* type = widen(register_type(dtype), lanes);
  return c10::isFloatingType(dtype) ? real(type, number.real) : integer(type, number.integer);
}

Value* PrimEmitter::after_load(Value* value, ScalarType dtype) {
  llvm::Type* type = value->getType();
  switch (dtype) {
    case ScalarType::Bool:
      return b_.CreateICmpNE(value, integer(type, 0));
    case ScalarType::BFloat16: {
      llvm::Type* wide = same_shape(b_.getInt32Ty(), type);
      return b_.CreateBitCast(b_.CreateShl(b_.CreateZExt(value, wide), integer(wide, 16)),
                              same_shape(b_.getFloatTy(), type));
    }
    case ScalarType::Half:
      return b_.CreateFPExt(value, same_shape(b_.getFloatTy(), type));
    default:
      return value;
  }
}

Value* PrimEmitter::before_store(Value* value, ScalarType dtype) {
  llvm::Type* type = value->getType();
  switch (dtype) {
    case ScalarType::Bool:
      return b_.CreateZExt(value, same_shape(b_.getInt8Ty(), type));
    case ScalarType::BFloat16: {  // exact: the value was rounded when it was cast
      llvm::Type* wide = same_shape(b_.getInt32Ty(), type);
      Value* bits = b_.CreateLShr(b_.CreateBitCast(value, wide), integer(wide, 16));
      return b_.CreateTrunc(bits, same_shape(b_.getInt16Ty(), type));
    }
    case ScalarType::Half:
      return b_.CreateFPTrunc(value, same_shape(b_.getHalfTy(), type));
    default:
      return value;
  }
}

// Round to nearest even in integers: a conversion instruction would flush denormals.
Value* PrimEmitter::round_to_bfloat(Value* value) {
  llvm::Type* type = same_shape(b_.getInt32Ty(), value->getType());
  Value* bits = b_.CreateBitCast(value, type);
  Value* odd = b_.CreateAnd(b_.CreateLShr(bits, integer(type, 16)), integer(type, 1));
  Value* rounded = b_.CreateAdd(bits, b_.CreateAdd(odd, integer(type, 0x7fff)));
  rounded = b_.CreateAnd(rounded, integer(type, static_cast<int32_t>(0xffff0000)));
  Value* nan = b_.CreateFCmpUNO(value, value);
  rounded = b_.CreateSelect(nan, integer(type, 0x7fc00000), rounded);
  return b_.CreateBitCast(rounded, value->getType());
}

Value* PrimEmitter::round_to_half(Value* value) {
  Value* half = b_.CreateFPTrunc(value, same_shape(b_.getHalfTy(), value->getType()));
  return b_.CreateFPExt(half, value->getType());
}

Value* PrimEmitter::cast(Value* value, ScalarType from, ScalarType to) {
  if (from == to) return value;
  llvm::Type* source = value->getType();
  llvm::Type* target = same_shape(register_type(to), source);
  const bool from_float = c10::isFloatingType(from);
  if (to == ScalarType::Bool) {
    return from_float ? b_.CreateFCmpUNE(value, real(source, 0)) : b_.CreateICmpNE(value, integer(source, 0));
  }
  if (!c10::isFloatingType(to)) {
    if (!from_float) return b_.CreateIntCast(value, target, is_signed(from));
    // Through a wider type, as torch does it for the narrow ones.
    const bool narrow = to != ScalarType::Long;
    llvm::Type* wide = same_shape(narrow ? b_.getInt32Ty() : b_.getInt64Ty(), source);
    return b_.CreateIntCast(b_.CreateFPToSI(value, wide), target, true);
  }
  Value* result = nullptr;
  if (!from_float) {
    result = is_signed(from) ? b_.CreateSIToFP(value, target) : b_.CreateUIToFP(value, target);
  } else {
    result = b_.CreateFPCast(value, target);
  }
  if (to == ScalarType::BFloat16) return round_to_bfloat(result);
  if (to == ScalarType::Half) return round_to_half(result);
  return result;
}

Value* PrimEmitter::fma(Value* a, Value* b, Value* c) {
  return b_.CreateIntrinsic(llvm::Intrinsic::fma, {a->getType()}, {a, b, c});
}

// A call per register: a value may be several registers wide, a scalar is widened to one.
Value* PrimEmitter::library_call(Prim prim, llvm::ArrayRef<Value*> operands) {
  llvm::Type* type = operands[0]->getType();
  llvm::Type* scalar = type->getScalarType();
  const bool is_double = scalar->isDoubleTy();
  // libtorch has no four-wide Sleef: older machines call the C library lane by lane.
  const int width = vector_bytes_ < 32 ? 1 : vector_bytes_ / (is_double ? 8 : 4);
  const auto* vector = llvm::dyn_cast<llvm::FixedVectorType>(type);
  const int lanes = vector == nullptr ? 1 : static_cast<int>(vector->getNumElements());
  std::string name = std::string(is_double ? "d" : "f") + std::to_string(width) + "_u10";
  name = width == 1 ? std::string(library_name(prim)) + (is_double ? "" : "f")
                    : std::string("Sleef_") + library_name(prim) + name;
  llvm::Type* part_type = widen(scalar, width);
  std::vector<llvm::Type*> parameters(operands.size(), part_type);
  const auto callee =
      module_.getOrInsertFunction(name, llvm::FunctionType::get(part_type, parameters, false));
  const auto call = [&](llvm::ArrayRef<Value*> parts) {
    auto* result = b_.CreateCall(callee, parts);
    result->setDoesNotThrow();
    return result;
  };
  if (lanes == width) return call(operands);
  std::vector<Value*> parts(operands.size());
  if (lanes < width) {  // a scalar or a narrow vector: the other lanes are not looked at
    for (size_t i = 0; i < operands.size(); ++i) {
      if (lanes == 1) {
        parts[i] = b_.CreateVectorSplat(static_cast<unsigned>(width), operands[i]);
      } else {
        std::vector<int> mask(static_cast<size_t>(width));
        for (int k = 0; k < width; ++k) mask[static_cast<size_t>(k)] = k % lanes;
        parts[i] = b_.CreateShuffleVector(operands[i], mask);
      }
    }
    Value* result = call(parts);
    if (lanes == 1) return b_.CreateExtractElement(result, uint64_t{0});
    std::vector<int> mask(static_cast<size_t>(lanes));
    for (int k = 0; k < lanes; ++k) mask[static_cast<size_t>(k)] = k;
    return b_.CreateShuffleVector(result, mask);
  }
  if (width == 1) {
    Value* result = llvm::PoisonValue::get(type);
    for (int k = 0; k < lanes; ++k) {
      for (size_t i = 0; i < operands.size(); ++i) {
        parts[i] = b_.CreateExtractElement(operands[i], static_cast<uint64_t>(k));
      }
      result = b_.CreateInsertElement(result, call(parts), static_cast<uint64_t>(k));
    }
    return result;
  }
  std::vector<Value*> results;
  for (int at = 0; at < lanes; at += width) {
    std::vector<int> mask(static_cast<size_t>(width));
    for (int k = 0; k < width; ++k) mask[static_cast<size_t>(k)] = at + k;
    for (size_t i = 0; i < operands.size(); ++i) parts[i] = b_.CreateShuffleVector(operands[i], mask);
    results.push_back(call(parts));
  }
  while (results.size() > 1) {
    std::vector<Value*> joined;
    for (size_t i = 0; i + 1 < results.size(); i += 2) {
      const auto count = llvm::cast<llvm::FixedVectorType>(results[i]->getType())->getNumElements();
      std::vector<int> mask(2 * count);
      for (size_t k = 0; k < mask.size(); ++k) mask[k] = static_cast<int>(k);
      joined.push_back(b_.CreateShuffleVector(results[i], results[i + 1], mask));
    }
    results = std::move(joined);
  }
  return results[0];
}

Value* PrimEmitter::unary(Prim prim, Value* x, bool is_float) {
  llvm::Type* type = x->getType();
  switch (prim) {
    case Prim::neg:
      return is_float ? b_.CreateFNeg(x) : b_.CreateNeg(x);
    case Prim::abs:
      if (is_float) return b_.CreateUnaryIntrinsic(llvm::Intrinsic::fabs, x);
      return b_.CreateSelect(b_.CreateICmpSLT(x, integer(type, 0)), b_.CreateNeg(x), x);
    case Prim::bit_not:
      return b_.CreateNot(x);
    case Prim::floor:
      return b_.CreateUnaryIntrinsic(llvm::Intrinsic::floor, x);
    case Prim::ceil:
      return b_.CreateUnaryIntrinsic(llvm::Intrinsic::ceil, x);
    case Prim::trunc:
      return b_.CreateUnaryIntrinsic(llvm::Intrinsic::trunc, x);
    case Prim::round:
      return b_.CreateUnaryIntrinsic(llvm::Intrinsic::rint, x);
    case Prim::sqrt:
      return b_.CreateUnaryIntrinsic(llvm::Intrinsic::sqrt, x);
    case Prim::exp:
      if (type->getScalarType()->isFloatTy()) return exp_float(x);
      return library_call(prim, {x});
    case Prim::tanh:
      if (type->getScalarType()->isFloatTy()) return tanh_float(x);
      return library_call(prim, {x});
    case Prim::erf:
      if (type->getScalarType()->isFloatTy()) return erf_float(x);
      return library_call(prim, {x});
    default:
      return library_call(prim, {x});
  }
}

Value* PrimEmitter::apply(Prim prim, ScalarType dtype, llvm::ArrayRef<Value*> operands) {
  const bool f = c10::isFloatingType(dtype);
  const bool s = is_signed(dtype);
  Value* a = operands[0];
  if (operands.size() == 1) return unary(prim, a, f);
  Value* c = operands[1];
  switch (prim) {
    case Prim::add:
      return f ? b_.CreateFAdd(a, c) : b_.CreateAdd(a, c);
    case Prim::sub:
      return f ? b_.CreateFSub(a, c) : b_.CreateSub(a, c);
    case Prim::mul:
      return f ? b_.CreateFMul(a, c) : b_.CreateMul(a, c);
    case Prim::div:
      return b_.CreateFDiv(a, c);
    case Prim::maximum:
      if (f) {  // an unordered pair: the second if it is NaN, else the first
        Value* larger = b_.CreateSelect(b_.CreateFCmpOGT(a, c), a, c);
        return b_.CreateSelect(b_.CreateFCmpUNO(a, a), a, larger);
      }
      return b_.CreateSelect(s ? b_.CreateICmpSGT(a, c) : b_.CreateICmpUGT(a, c), a, c);
    case Prim::minimum:
      if (f) {
        Value* smaller = b_.CreateSelect(b_.CreateFCmpOLT(a, c), a, c);
        return b_.CreateSelect(b_.CreateFCmpUNO(a, a), a, smaller);
      }
      return b_.CreateSelect(s ? b_.CreateICmpSLT(a, c) : b_.CreateICmpULT(a, c), a, c);
    case Prim::eq:
      return f ? b_.CreateFCmpOEQ(a, c) : b_.CreateICmpEQ(a, c);
    case Prim::ne:
      return f ? b_.CreateFCmpUNE(a, c) : b_.CreateICmpNE(a, c);
    case Prim::lt:
      return f ? b_.CreateFCmpOLT(a, c) : s ? b_.CreateICmpSLT(a, c) : b_.CreateICmpULT(a, c);
    case Prim::le:
      return f ? b_.CreateFCmpOLE(a, c) : s ? b_.CreateICmpSLE(a, c) : b_.CreateICmpULE(a, c);
    case Prim::gt:
      return f ? b_.CreateFCmpOGT(a, c) : s ? b_.CreateICmpSGT(a, c) : b_.CreateICmpUGT(a, c);
    case Prim::ge:
      return f ? b_.CreateFCmpOGE(a, c) : s ? b_.CreateICmpSGE(a, c) : b_.CreateICmpUGE(a, c);
    case Prim::bit_and:
      return b_.CreateAnd(a, c);
    case Prim::bit_or:
      return b_.CreateOr(a, c);
    case Prim::bit_xor:
      return b_.CreateXor(a, c);
    case Prim::where:
      return b_.CreateSelect(a, c, operands[2]);
    default:
      return library_call(prim, operands);
  }
}

Value* PrimEmitter::neutral(Prim prim, ScalarType dtype, int lanes) {
  llvm::Type* type = widen(register_type(dtype), lanes);
  const bool f = c10::isFloatingType(dtype);
  switch (prim) {
    case Prim::reduce_and:
      return integer(type, 1);
    case Prim::reduce_max: {
      if (f) return llvm::ConstantFP::getInfinity(type, true);
      const unsigned bits = type->getScalarSizeInBits();
      return llvm::ConstantInt::get(
          type, is_signed(dtype) ? llvm::APInt::getSignedMinValue(bits) : llvm::APInt::getMinValue(bits));
    }
    case Prim::reduce_min: {
      if (f) return llvm::ConstantFP::getInfinity(type, false);
      const unsigned bits = type->getScalarSizeInBits();
      return llvm::ConstantInt::get(
          type, is_signed(dtype) ? llvm::APInt::getSignedMaxValue(bits) : llvm::APInt::getMaxValue(bits));
    }
    default:
      return f ? real(type, 0) : integer(type, 0);
  }
}

Value* PrimEmitter::combine(Prim prim, ScalarType dtype, Value* a, Value* b) {
  switch (prim) {
    case Prim::reduce_sum:
      return apply(Prim::add, dtype, {a, b});
    case Prim::reduce_max:
      return apply(Prim::maximum, dtype, {a, b});
    case Prim::reduce_min:
      return apply(Prim::minimum, dtype, {a, b});
    case Prim::reduce_and:
      return b_.CreateAnd(a, b);
    default:
      return b_.CreateOr(a, b);
  }
}

Value* PrimEmitter::reduce_lanes(Prim prim, ScalarType dtype, Value* vector) {
  auto* type = llvm::dyn_cast<llvm::FixedVectorType>(vector->getType());
  if (type == nullptr) return vector;
  for (unsigned lanes = type->getNumElements(); lanes > 1; lanes /= 2) {
    std::vector<int> low;
    std::vector<int> high;
    for (unsigned i = 0; i < lanes / 2; ++i) {
      low.push_back(static_cast<int>(i));
      high.push_back(static_cast<int>(i + lanes / 2));
    }
    vector = combine(prim, dtype, b_.CreateShuffleVector(vector, low), b_.CreateShuffleVector(vector, high));
  }
  return b_.CreateExtractElement(vector, uint64_t{0});
}

}  // namespace flashpoint::native
